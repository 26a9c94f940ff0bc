"""Windowed click counters: `spec` says what, `kernel` computes on arrays, `counters` runs it on Spark."""
