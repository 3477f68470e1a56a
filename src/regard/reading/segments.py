"""Parts of a text whose weight is summed: sentences, paragraphs, chat turns, documents.

A segmenter gives the characters at which a part begins. Where a part begins depends on what stands before it and on the
character or two that open it, so that the parts of a text that is being written stay what they are.
"""

import re
from collections.abc import Callable

Segmenter = Callable[[str], list[int]]

# a full stop and space, or, where a script writes none, the stop alone; quotes and brackets close what they end, in
# French behind a space, and are taken whole (possessively), or a sentence could begin with the first of two
_SENTENCE = re.compile(
    r"""(?P<stop>[.!?…؟۔।॥]++)(?P<closed>["'“”‘’«»‹›)\]]*+(?:[ \xa0\u202f]»(?=\s))?+)\s++(?=[^\s»]|»\S)"""
    r"""|(?P<mark>[。！？｡។៕။]++)(?P<quote>["'”’」』）]*+)\s*+(?=\S)"""
    r"""|\n\s*+(?=\S)"""
)
# characters before a full stop that are looked at
_LONGEST = 24
# and of a Chinese quotation
_LONGEST_QUOTATION = 1000
# what ends in a full stop within a sentence
_ABBREVIATION = re.compile(
    r"""(?:
    # titles
    \b(?:Mr|Mrs|Ms|Mx|Messrs|Dr|Prof|Rev|Hon|Gen|Col|Lt|Sgt|Capt|Gov|Sen|Rep|St|Ste|Hr|Fr|Frl|Dipl|Ing|MM|Mme|Mlle|Mgr)
    # words
    |\b(?i:viz|vs|cf|ca|approx|bzw|ggf|evtl|inkl|sog|vgl|bspw|usf|env|av|apr|et\sal|p\.\s?ex|c\.-à-d)
    # single letters in a row (e.g., z. B., U.S.), but not the hour
    |\b(?![ap]\.\s?m)[^\W\d_]\.\s?[^\W\d_]
    # initials; I after a word is a pronoun
    |\b[A-HJ-ZÀ-ÖØ-ÞΑ-ΩА-Я]|(?<![a-z,]\s)\bI
    # German dates and ranks, and the numbers of a list
    |\b(?i:(?<!\bI\s)am|vom|zum|beim|bis|seit|ab|der|dem|den|des|das|im|und)\s\d{1,2}|^\s*\d{1,3}
    )$""",
    re.VERBOSE,
)
# the same before a number
_NUMBERED = re.compile(
    r"\b(?i:[a-z]|nos?|nr|pp|figs?|vol|ch|chap|sec|eq|art|abs|abb|bd|kap|jan|feb|mar|apr|aug|sept?|oct|okt|nov|dec|dez)$"
)
_OPENING = {"”": "“", "’": "‘", "」": "「", "』": "『", '"': '"', "'": "'"}
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*(?=\S)")
# how chat templates of several families begin a turn
_TURN = re.compile(r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|(?:user|assistant|system)\|>|\[INST\]")
_DOCUMENT = re.compile(r"\f|<\|endoftext\|>|</s>|^-{3,}$", re.MULTILINE)


def sentences(text: str) -> list[int]:
    """A sentence begins at a new line and after . ! ? … 。！？ and the stops of Arabic, Hindi, Khmer and Burmese.

    A full stop ends none after an abbreviation, an initial or an ordinal number, and no stop does before a lower-case
    letter. What follows a Chinese quotation directly belongs to it unless a colon or comma introduced the quotation.
    """
    starts = {0}
    # straight quotation marks of the line, which open and close in turn
    quotes = counted = 0
    for match in _SENTENCE.finditer(text):
        quotes += text.count('"', counted, match.start())
        counted = match.start()
        start = _start(text, match, is_open=quotes % 2 == 1)
        if start is not None:
            starts.add(start)
        if "\n" in match[0]:
            quotes, counted = 0, match.end()
    return sorted(starts)


def paragraphs(text: str) -> list[int]:
    """A paragraph begins after an empty line."""
    return _after(_PARAGRAPH, text)


def turns(text: str) -> list[int]:
    """A turn begins with the mark that the chat template puts there."""
    return sorted({0, *(match.start() for match in _TURN.finditer(text))})


def documents(text: str) -> list[int]:
    """A document begins after a form feed, an end-of-text token or a line of three hyphens."""
    return _after(_DOCUMENT, text)


def _start(text: str, match: re.Match[str], *, is_open: bool) -> int | None:
    """Where the sentence after these stops begins, or None where they end none; `is_open` within straight quotes."""
    if "\n" in match[0]:
        return match.end()
    following = text[match.end()]
    if match["mark"]:
        return _start_after_quote(text, match, following, is_open=is_open)
    if following.islower():
        return None
    if match["stop"] != "." or match["closed"]:
        return match.end()
    before = text[max(0, match.start() - _LONGEST) : match.start()].rpartition("\n")[2]
    within = (
        _ABBREVIATION.search(before)
        or (following.isdecimal() and _NUMBERED.search(before))
        # z. B., unlike a variable's name at the end: decided when the next character is known
        or (re.search(r"\b[a-z]$", before) and text[match.end() + 1 : match.end() + 2] in ("", "."))
    )
    return None if within else match.end()


def _start_after_quote(text: str, match: re.Match[str], following: str, *, is_open: bool) -> int | None:
    closed = match["quote"]
    if '"' in closed and not is_open:
        # it opens what follows
        return match.start("quote") + closed.index('"')
    if not closed or match.end() > match.end("quote") or not following.isalnum():
        return match.end()
    opened = text.rfind(_OPENING.get(closed[-1], closed[-1]), max(0, match.start() - _LONGEST_QUOTATION), match.start())
    return match.end() if opened < 0 or text[max(0, opened - 1) : opened] in ("：", ":", "，", ",") else None


def _after(pattern: re.Pattern[str], text: str) -> list[int]:
    return sorted({0, *(match.end() for match in pattern.finditer(text))})


SEGMENTERS: dict[str, Segmenter] = {
    "sentences": sentences,
    "paragraphs": paragraphs,
    "turns": turns,
    "documents": documents,
}
