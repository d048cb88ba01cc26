"""Unimodal networks whose features a fusion network reads."""
