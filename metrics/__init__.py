"""Metrics over an epoch. Each has ``reset()``, ``update(outputs, batch)`` and ``compute() -> dict of floats``."""
