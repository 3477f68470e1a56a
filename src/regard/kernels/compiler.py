"""Whether there is a C++ compiler for the code that torch writes."""

import os
import shutil

from regard.errors import RegardError


def check_compiler(who: str, remedy: str) -> None:
    """Raises RegardError where none is found, saying who needs one and what else may be done."""
    names = [os.environ.get("CXX"), "g++", "clang++", "cl"]
    if not any(name and shutil.which(name) for name in names):
        raise RegardError(f"{who} needs a C++ compiler, and none is found; install g++, name yours by CXX, or {remedy}")
