"""`regard view`: the page on which models are asked and readings are seen."""

import logging
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from regard.cli.options import Device, Dtype
from regard.errors import RegardError

Port = Annotated[int | None, Parameter(validator=Number(gte=0, lte=65535))]
logger = logging.getLogger("regard")


def view(
    *things: str,
    port: Port = None,
    host: str = "127.0.0.1",
    no_browser: bool = False,
    no_history: bool = False,
    lang: Literal["en", "zh"] | None = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Open the page on which models are asked and what they looked at is seen; it ends with Ctrl-C.

    Parameters
    ----------
    things
        Models (run folders, Hugging Face folders, names of its hub, GGUF files, smollm2, gemma3-270m) and readings
        (.safetensors). The page asks no other model.
    port
        The port it listens on, 0 for any that is free; by default 8765, or the next free one.
    host
        The address it listens on. Any but this machine's own lets others on the network try to reach the page.
    no_browser
        Prints the page's address instead of opening it.
    no_history
        Keeps no readings for the next time.
    lang
        en or zh; by default the browser's language.
    device
        auto, cpu or cuda.
    dtype
        float32 or bfloat16, or float64.
    """
    from regard.api import load
    from regard.language_model import LanguageModel
    from regard.reading.reading import Reading

    try:
        from regard.view.server.models import serve_language_model, serve_translator
        from regard.view.server.serve import PORT, Page, is_loopback, open_browser
    except ImportError as error:
        raise RegardError(
            f"the page needs starlette and uvicorn ({error}); run: python -m pip install 'regard[view]'"
        ) from None
    models, readings = [], []
    for thing in things:
        if thing.endswith(".safetensors"):
            readings.append(Reading.load(thing))
            continue
        opened = load(thing, device=device, dtype=dtype)
        serve = serve_language_model if isinstance(opened, LanguageModel) else serve_translator
        models.append(serve(opened))
    page = Page(models, readings, host=host, port=port, keeps_history=not no_history, language=lang)
    if not is_loopback(host):
        logger.warning(
            "warning: others on the network can reach this page. Whoever has its address, with the token, can ask the "
            "models and read the history; the connection is not encrypted."
        )
    if port is None and page.port != PORT:
        logger.info("port %d is taken; this is port %d", PORT, page.port)
    # what is not read from a pipe at once would wait in a buffer
    print(page.address, flush=True)
    page.run(ready=lambda: None if no_browser else open_browser(page.address))
