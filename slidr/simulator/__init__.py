"""Made traffic with known robots and known incidents, at any size, by seed."""
