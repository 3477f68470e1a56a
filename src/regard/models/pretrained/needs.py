"""What is loaded with transformers needs the extra `hf`; its talk is silenced, its failures become ours."""

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import final

from regard.errors import RegardError

# what transformers and its like raise about files that they cannot use
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
LONGEST_REASON = 300


def check_installed() -> None:
    """Raises RegardError where transformers or gguf are not installed."""
    for name in ("transformers", "gguf"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise RegardError(
                f"pretrained models need {name}, which cannot be imported ({error}); "
                "run: python -m pip install 'regard[hf]'"
            ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No logs, bars or warnings of transformers meanwhile; what matters of them is raised or told by the caller."""
    from transformers.utils import logging as talk

    before, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity(logging.CRITICAL)
    talk.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        talk.set_verbosity(before)
        if bars:
            talk.enable_progress_bar()


@final
class told:
    """Whatever goes wrong in a library meanwhile is a RegardError that begins with `what`."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        from huggingface_hub.errors import StrictDataclassError
        from jinja2 import TemplateError
        from safetensors import SafetensorError

        # tokenizers raises Exception itself, of no kind of its own
        if isinstance(error, (*FAILURES, SafetensorError, StrictDataclassError, TemplateError)) or kind is Exception:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RegardError(f"{self.what}: {reason[:LONGEST_REASON]}") from None
