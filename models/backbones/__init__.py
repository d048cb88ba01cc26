"""Unimodal networks whose features the fusion reads."""
