"""Epoch metrics: ``reset``, ``update(outputs, batch)``, ``compute() -> dict of floats``."""
