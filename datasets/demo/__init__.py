"""Small demo data for every task, made by ``datasets/make_demo.py``."""
