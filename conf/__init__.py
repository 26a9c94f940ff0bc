"""Configuration files that slidr ships: one complete YAML per place, and `sources/`."""
