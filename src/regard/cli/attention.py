"""`regard attention`: self-attention in four steps, in the terminal."""

from rich.console import Console

from regard.cli.options import HyphenOrText, text_or_standard_input


def attention(text: HyphenOrText | None = None, /) -> None:
    """Walk through self-attention in four steps, showing every matrix.

    The steps are simple, trainable, causal and multi-head attention. Nothing is trained: the numbers show
    the arithmetic, not what a model has learned.

    Parameters
    ----------
    text
        A short text of your own, at most 32 words; `-` reads it from standard input. Its embeddings are
        drawn at random. Without it: a textbook's example, "Your journey starts with one step".
    """
    # torch takes a second to import, and help must not wait for it
    from regard.view.walk import walk_through

    Console().print(walk_through(None if text is None else text_or_standard_input(text)))
