"""Source files: how foreign files map to tables."""
