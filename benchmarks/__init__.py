"""Measurements, run by hand: `python -m benchmarks [NAME…]`; tables and figures land in benchmarks/results."""
