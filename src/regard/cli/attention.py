"""`regard attention`: self-attention in four steps, or cross-attention, in the terminal."""

import json as json_module

from rich.console import Console

from regard.cli.options import HyphenOrText, text_or_standard_input
from regard.errors import RegardError


def attention(
    text: HyphenOrText | None = None,
    target: HyphenOrText | None = None,
    /,
    *,
    cross: bool = False,
    json: bool = False,
) -> None:
    """Walk through self-attention in four steps, or through cross-attention, showing every matrix.

    The steps are simple, trainable, causal and multi-head attention. With `--cross` a target looks at a source:
    `regard attention --cross SOURCE TARGET`. Nothing is trained: the numbers show the arithmetic, not what a model
    has learned.

    Parameters
    ----------
    text
        A short text of your own, at most 32 words; `-` reads it from standard input. Its embeddings are
        drawn at random. Without it: a textbook's example, "Your journey starts with one step".
    target
        The text that looks at the first one, with `--cross`. Without both: the example and its French translation.
    cross
        Cross-attention of two texts, `regard attention --cross SOURCE TARGET`: queries from the target, keys and
        values from the source.
    json
        Print every matrix as one JSON document; hidden scores are null.
    """
    # torch takes a second to import, and help must not wait for it
    from regard.view.walk import walk_through
    from regard.view.walk_across import walk_across
    from regard.view.walk_document import cross_attention_document, self_attention_document

    if cross:
        texts = _source_and_target(text, target)
        made = cross_attention_document(texts) if json else walk_across(texts)
    elif target is not None:
        raise RegardError("self-attention takes one text: put it in quotes, or add --cross to have two")
    else:
        given = None if text is None else text_or_standard_input(text)
        made = self_attention_document(given) if json else walk_through(given)
    if json:
        print(json_module.dumps(made, ensure_ascii=False))
    else:
        Console().print(made)


def _source_and_target(source: str | None, target: str | None) -> tuple[str, str] | None:
    if source is None:
        return None
    if target is None:
        raise RegardError("--cross takes two texts, each in quotes: regard attention --cross 'SOURCE' 'TARGET'")
    if source == target == "-":
        raise RegardError("standard input can be the source or the target, not both; give one of them as text")
    return text_or_standard_input(source), text_or_standard_input(target)
