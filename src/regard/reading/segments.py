"""Parts of a text whose weight is summed: sentences, paragraphs, chat turns, documents.

A segmenter gives the characters at which a part begins. Where a part begins depends on what stands before it alone, so
that the parts of a text that is being written stay what they are.
"""

import re
from collections.abc import Callable

Segmenter = Callable[[str], list[int]]

# a full stop and space, or, where a script writes none, the stop alone; quotes and brackets close what they end
_SENTENCE = re.compile(r"""(?:[.!?…]+["'”’»)\]]*\s+|[。！？｡]+["'”’」』）]*\s*|\n\s*)(?=\S)""")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*(?=\S)")
# how chat templates of several families begin a turn
_TURN = re.compile(r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|(?:user|assistant|system)\|>|\[INST\]")
_DOCUMENT = re.compile(r"\f|<\|endoftext\|>|</s>|^-{3,}$", re.MULTILINE)


def sentences(text: str) -> list[int]:
    """A sentence begins after . ! ? … 。！？ and at a new line."""
    return _after(_SENTENCE, text)


def paragraphs(text: str) -> list[int]:
    """A paragraph begins after an empty line."""
    return _after(_PARAGRAPH, text)


def turns(text: str) -> list[int]:
    """A turn begins with the mark that the chat template puts there."""
    return sorted({0, *(match.start() for match in _TURN.finditer(text))})


def documents(text: str) -> list[int]:
    """A document begins after a form feed, an end-of-text token or a line of three hyphens."""
    return _after(_DOCUMENT, text)


def _after(pattern: re.Pattern[str], text: str) -> list[int]:
    return sorted({0, *(match.end() for match in pattern.finditer(text))})


SEGMENTERS: dict[str, Segmenter] = {
    "sentences": sentences,
    "paragraphs": paragraphs,
    "turns": turns,
    "documents": documents,
}
