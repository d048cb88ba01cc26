"""Shared storage: blob stores, frame stores, opening pictures, and worker processes."""
