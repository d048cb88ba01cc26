"""Data sets: preparation scripts, readers and small demo data."""
