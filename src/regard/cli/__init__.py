"""The command line: one file per verb, thin over regard.api."""

from regard.cli.main import main

__all__ = ["main"]
