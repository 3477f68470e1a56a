"""`regard VERB`: data on stdout, progress and logs on stderr; exit 0 done, 1 failed, 2 usage, 130 interrupted."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import cyclopts
from rich.console import Console

from regard import RegardError, __version__

# each verb is a file of that name here, loaded when it is used or its own help asked for
VERBS = {
    "demo": "See an RNN lose long sentences and attention hold them.",
    "corpus": "Corpora by name.",
    "train": "Train one model by a recipe.",
    "translate": "Translate a text, line in, line out.",
    "evaluate": "Quality of a run, overall and by source length.",
    "compare": "Quality of several runs side by side, as table and picture.",
    "score": "How likely a model finds given translations or texts.",
    "align": "Which words of given translations belong together.",
    "symmetrise": "Join the word links of both directions.",
    "generate": "Go on with a text, shown as it is written.",
    "read": "What every written word looked at, in a source, a prompt or a text.",
    "sources": "Which passages of its prompt an answer rests on.",
    "atlas": "What every head of a model does, over many texts.",
    "view": "The page: ask models, and see what they looked at.",
    "export": "Hand a trained model to another tool.",
    "attention": "Self-attention in four steps, or cross-attention, every matrix shown.",
}

app = cyclopts.App(
    name="regard",
    help="Train, run and read attention models.",
    help_epilogue="`regard VERB --help` tells more. `--debug` with any verb shows the traceback of an error.",
    version=__version__,
    # main says what an interruption is
    suppress_keyboard_interrupt=False,
    # a switch is off until it is given
    default_parameter=cyclopts.Parameter(negative=()),
)
for order, (verb, help) in enumerate(VERBS.items()):
    app.command(f"regard.cli.{verb}:{verb}", name=verb, help=help, sort_key=order)


def main() -> NoReturn:
    """The entry point of `regard`."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    for stream, handling in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        # what we write is UTF-8 whatever the terminal's old code page, and a file's name what its bytes are
        stream.reconfigure(encoding="utf-8", errors=handling)  # pyright: ignore[reportAttributeAccessIssue]
    # closed, as it may be where a service runs, it has nothing to say
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    errors = Console(stderr=True)
    # some 50 µs: threads that spin on slow all down where another program has a core too, those that sleep at once
    # halve the speed of a model that writes
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("regard").setLevel(logging.INFO)
    if any("\0" in argument for argument in arguments):
        _say(errors, "an argument holds NUL, which no text and no name of a file does")
        sys.exit(2)
    try:
        with _terminable():
            app(arguments, exit_on_error=False, print_error=False)
            sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        # the name of a group of options is nothing that anybody typed
        of_group = isinstance(error, cyclopts.ValidationError) and error.group is not None
        told = error.exception_message if of_group else error  # pyright: ignore[reportAttributeAccessIssue]
        _say(errors, f"{told}\n`regard --help` lists the verbs, `regard VERB --help` their settings")
        sys.exit(2)
    except RegardError as error:
        if debug:
            raise
        _say(errors, str(error))
        sys.exit(1)
    except UnicodeEncodeError as error:
        if debug:
            raise
        _say(
            errors,
            f"{error.object[:80]!a}: not UTF-8 at character {error.start}; write the text, or the name, in UTF-8",
        )
        sys.exit(1)
    except MemoryError:
        if debug:
            raise
        _say(errors, "there is not enough memory")
        sys.exit(1)
    except KeyboardInterrupt:
        if debug:
            raise
        _say(errors, "interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # whoever read our output has left; let Python not complain of it at its end
        _leave_output()
        sys.exit(1)
    except OSError as error:
        if debug:
            raise
        if error.filename is not None:
            _say(errors, f"{error.filename}: {error.strerror or error}")
            sys.exit(1)
        _say(errors, f"the output cannot be written: {error.strerror or error}")
        _leave_output()
        sys.exit(1)
    sys.exit(0)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, by which clusters and containers end a job, interrupts as Ctrl-C does: nothing half-written is left."""
    is_heard = threading.current_thread() is threading.main_thread()
    if not is_heard or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(console: Console, message: str) -> None:
    console.print(f"regard: {message}", markup=False, highlight=False, soft_wrap=True)
