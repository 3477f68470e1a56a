"""Hypothesis without a clock: tests share their machine with others."""

from hypothesis import settings

settings.register_profile("data", deadline=None, max_examples=60, database=None)
settings.load_profile("data")
