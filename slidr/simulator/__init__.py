"""Made traffic with known robots and known incidents, at any size, by seed."""

from slidr.simulator.settings import Attack, CounterOutage, Drift, Duplicates, LabelOutage, Late, Sale, Simulation
from slidr.simulator.traffic import simulate

__all__ = ["Attack", "CounterOutage", "Drift", "Duplicates", "LabelOutage", "Late", "Sale", "Simulation", "simulate"]
