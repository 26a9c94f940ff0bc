"""CORRECTION: deciding a past window again through a stable model version, and publishing the differences once."""
