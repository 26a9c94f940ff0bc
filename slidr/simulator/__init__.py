"""Made traffic with known robots and known incidents, at any size, by seed."""

from slidr.simulator.settings import Attack, CounterOutage, Duplicates, LabelOutage, Late, Simulation
from slidr.simulator.traffic import simulate

__all__ = ["Attack", "CounterOutage", "Duplicates", "LabelOutage", "Late", "Simulation", "simulate"]
