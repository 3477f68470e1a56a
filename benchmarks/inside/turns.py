"""A turn as the child process sees it: a line of JSON on standard input starts it, another on standard output ends it.

Imported by programs that run in a peer's environment, so that it knows the standard library alone.
"""

import json
import sys
from typing import Any


def wait() -> dict[str, Any] | None:
    """What the next turn is to do; None where there is none any more, but the end to be told."""
    line = sys.stdin.readline()
    if not line:
        sys.exit("whoever gave the turns has left")
    return json.loads(line)


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)
