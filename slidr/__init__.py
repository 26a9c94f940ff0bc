"""slidr: offline scoring and replay of robotic ad clicks. Importing it loads nothing heavy."""

__version__ = "0.1.0"
