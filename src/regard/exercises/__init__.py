"""Exercises along the line from an RNN to an LLM: fill in a function, and `check` says what is wrong with it.

    from regard.exercises import check
    check(scaled_scores)

They are those of notebooks/exercises.ipynb. References are independent of what is taught: torch's own scaled
dot-product attention, kernels/reference.py, complex numbers for rotations.
"""

from regard.exercises.catalogue import EXERCISES
from regard.exercises.check import Verdict, check

__all__ = ["EXERCISES", "Verdict", "check"]
