"""One look at the data before a training: how much there is, and what is likely to be a mistake.

Caswell et al. 2022, "Quality at a glance: an audit of web-crawled multilingual datasets", section 4, on what is found
when somebody looks.
"""

import itertools
import logging
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from regard.data.conversations import Conversations
from regard.data.corpus import Corpus, Watcher, counted, pair_hash, text_hash, unwatched
from regard.data.mixture import Part
from regard.data.normal_form import in_form, is_in_form
from regard.data.packed import PackedText
from regard.data.prepare import SIDES, TokenizedCorpus
from regard.data.text import Text
from regard.data.tokenizer import Tokenizer
from regard.data.words import counts_characters
from regard.models.pretrained.pair_tokenizer import PretrainedTokenizer
from regard.models.pretrained.text_tokenizer import TextTokenizer
from regard.training.recipe import Recipe
from regard.training.translators import AnyTokenizer

# pairs or passages, spread over all, whose letters are looked at
SAMPLE = 2000
# of the letters or lines of a sample: what is fewer is chance
NOTABLE = 0.01
# of a sample's lines
MANY = 0.5
# characters of a text that are shown, and of these before what is worth a look
SHOWN, BEFORE = 40, 12
QUOTES = ('"', '"'), ("“", "”"), ("'", "'"), ("«", "»")
# what the columns of tables of sentence pairs are called, and languages
HEADINGS = re.compile(
    r"(?:source|target|src|tgt|trg|text|sentence|translation|original|reference|input|output|question|answer"
    r"|lang(?:uage)?|english|french|german|spanish|italian|portuguese|dutch|russian|chinese|japanese|korean|arabic"
    r"|hebrew|thai|lao|khmer|burmese|vietnamese|hindi|turkish|polish|français|deutsch|español|中文|英文|日本語"
    r")(?:[ _.:-]?\w{1,8})?"
    r"|(?:en|fr|de|es|it|pt|nl|ru|zh|ja|ko|ar|he|th|lo|km|my|vi|hi|tr|pl|el|la)(?:[_.:-]\w{1,12})?",
    re.IGNORECASE,
)

logger = logging.getLogger("regard")


@dataclass
class Look:
    """What was seen: `figures` by name, the same in a few `lines`, and `warnings` of what is likely a mistake."""

    figures: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def log_warnings(look: Look) -> None:
    """Log what is likely a mistake."""
    for warning in look.warnings:
        logger.warning("%s", warning)


def log_look(look: Look) -> None:
    """Log all that was seen."""
    for line in look.lines:
        logger.info("%s", line)
    log_warnings(look)


def look_at(
    recipe: Recipe,
    corpus: Corpus | Text,
    tokenizer: AnyTokenizer,
    train: Sequence[Part],
    dev: Part,
    *,
    steps_per_epoch: int,
    progress: Watcher = unwatched,
) -> Look:
    """A look at the data of a run that is about to begin, tokenized already: all parts of `train`, and `dev`.

    `progress` hears how many pairs or passages have been seen.
    """
    look = Look()
    if isinstance(corpus, Corpus):
        _look_at_pairs(look, recipe, corpus, [part for part in train if isinstance(part, TokenizedCorpus)], progress)
    else:
        texts = [part for part in train if not isinstance(part, TokenizedCorpus)]
        _look_at_text(look, recipe, corpus, texts, progress)
    _look_at_vocabulary(look, recipe, corpus, tokenizer, {"train": train, "dev": [dev]}, progress)
    _look_at_steps(look, recipe, steps_per_epoch)
    return look


def _look_at_pairs(
    look: Look, recipe: Recipe, corpus: Corpus, train: Sequence[TokenizedCorpus], progress: Watcher
) -> None:
    form = recipe.data.form
    raw = replace(corpus, form=None)
    too_long = sum(part.skipped for part in train)
    every = 1 + (sum(map(len, train)) + too_long) // SAMPLE
    hashes, sample = array("Q"), []
    unformed = copies = 0
    for index, pair in enumerate(counted(raw.pairs("train"), "looking at pairs", progress)):
        hashes.append(text_hash("\t".join(in_form(side, form) for side in pair)))
        copies += pair.source.strip() == pair.target.strip()
        unformed += not all(is_in_form(side, form or "NFC") for side in pair)
        if index % every == 0:
            sample.append(pair)
    again = _repeated(hashes)
    lengths = {side: np.concatenate([getattr(part, f"{side}_lengths") for part in train]) for side in SIDES}
    told = {side: {"median": float(np.median(each)), "longest": int(each.max())} for side, each in lengths.items()}
    look.figures |= {"pairs": len(hashes), "duplicates": again, "copies": copies, "not_normalised": unformed}
    look.figures |= {"tokens": told, "too_long": too_long}
    look.lines.append(
        f"{len(hashes):,} pairs to train on; tokens of a sentence (median, longest): "
        + "; ".join(f"{side} {each['median']:g}, {each['longest']}" for side, each in told.items())
    )
    sides = {side: list(texts) for side, texts in zip(SIDES, zip(*sample, strict=True), strict=True)}
    _tell_scripts(look, sides)
    if again:
        look.lines.append(f"{again:,} of {len(hashes):,} pairs repeat an earlier one; scores count each pair once")
    if copies > NOTABLE * len(hashes):
        look.warnings.append(
            f"{copies:,} of {len(hashes):,} pairs have the same text on both sides: the model learns to leave text "
            "untranslated; remove them where that is not meant"
        )
    _tell_form(look, unformed, len(hashes), form, "pairs")
    _tell_quotes(look, sides)
    # of whichever split it is
    first = next(replace(raw, hashes={}).pairs("train"), None)
    if first is not None and all(map(_is_heading, first)):
        look.warnings.append(
            f"the first pair, {first.source!r} and {first.target!r}, looks like the heading of a table; remove the "
            "line if it is one"
        )
    if recipe.data.corpus is None:
        _tell_overlap(look, corpus, lambda split: map(pair_hash, corpus.pairs(split)), "source sentences", progress)


def _look_at_text(
    look: Look, recipe: Recipe, corpus: Text, train: Sequence[PackedText | Conversations], progress: Watcher
) -> None:
    form = recipe.data.form
    hashes, sample = array("Q"), []
    unformed = 0
    passages = replace(corpus, form=None).passages("train")
    for index, passage in enumerate(counted(passages, "looking at passages", progress)):
        hashes.append(text_hash(passage.text))
        unformed += not is_in_form(passage.text, form or "NFC")
        if index < SAMPLE:
            sample.append(corpus.plain(passage)[:SAMPLE])
    again = _repeated(hashes)
    documents, size = (sum(getattr(part.facts, name) for part in train) for name in ("documents", "bytes"))
    tokens, context = sum(part.num_tokens for part in train), recipe.max_length
    labels, lengths = sum(part.num_labels for part in train), _lengths(train)
    look.figures |= {"documents": documents, "bytes": size, "tokens": tokens}
    look.figures |= {"passages": len(hashes), "duplicates": again, "not_normalised": unformed}
    if lengths is None:
        told = f"{size:,} bytes, {tokens:,} tokens: {tokens // context:,} windows of {context}"
        look.lines.append(f"{documents:,} documents to train on, {told}")
    else:
        told = f"tokens (median, longest): {np.median(lengths):g}, {lengths.max()}"
        look.lines.append(
            f"{documents:,} conversations to train on, {labels:,} of {tokens:,} tokens in answers; {told}"
        )
        look.figures |= {"answer_tokens": labels, "too_long": sum(getattr(part, "skipped", 0) for part in train)}
    _tell_scripts(look, {"text": sample})
    if again:
        look.lines.append(f"{again:,} of {len(hashes):,} passages repeat an earlier one")
    _tell_form(look, unformed, len(hashes), form, "passages")
    if recipe.data.corpus is None:
        what = "conversations, by what they ask," if corpus.chats else "passages"
        _tell_overlap(look, corpus, lambda split: map(corpus.hash_of, corpus.passages(split)), what, progress)


def _lengths(train: Sequence[PackedText | Conversations]) -> np.ndarray | None:
    """Tokens of each conversation; None of text that is cut into windows."""
    found = [part.lengths for part in train if isinstance(part, Conversations)]
    return np.concatenate(found) if found else None


def _look_at_vocabulary(
    look: Look,
    recipe: Recipe,
    corpus: Corpus | Text,
    tokenizer: AnyTokenizer,
    splits: Mapping[str, Sequence[Part]],
    progress: Watcher,
) -> None:
    data = recipe.data
    tokens = {split: sum(part.num_tokens for part in parts) for split, parts in splits.items()}
    unknown = {split: sum(part.num_unknown for part in parts) for split, parts in splits.items()}
    look.figures |= {"vocabulary": len(tokenizer), "unknown": unknown}
    kept = recipe.init if data.tokenizer is None else data.tokenizer_file
    origin = f" of {kept}" if kept else f", of at most {data.vocab_size:,}"
    look.lines.append(f"vocabulary: {len(tokenizer):,} tokens{origin}, kind {tokenizer.kind}")
    if isinstance(tokenizer, TextTokenizer):
        return
    share = {split: unknown[split] / max(1, tokens[split]) for split in unknown}
    if isinstance(tokenizer, PretrainedTokenizer):
        if share["train"] > NOTABLE:
            look.warnings.append(
                f"{unknown['train']:,} tokens of the training text ({share['train']:.2%}) are unknown to the tokenizer "
                f"of {recipe.init}, which reads and writes them as ⁇; begin from a model that knows these letters"
            )
        return
    unit = "characters" if tokenizer.kind == "character" else "words or characters"
    remedy = "give another tokenizer" if kept else "raise data.vocab_size"
    if unknown["train"]:
        # a vocabulary that holds all of the text has nothing unknown in it
        distinct = ""
        if tokenizer.kind == "character":
            look.figures["left_out"] = cut = _left_out(corpus, tokenizer, progress)
            distinct, remedy = f", {cut:,} different ones", f"{remedy} to {len(tokenizer) + cut:,}"
        look.warnings.append(
            f"the vocabulary leaves out {unknown['train']:,} {unit} of the training text{distinct} "
            f"({share['train']:.2%}), which the model reads and writes as unknown; {remedy}, or take tokenizer = 'bpe'"
        )
    elif unknown["dev"] > NOTABLE * tokens["dev"]:
        look.warnings.append(
            f"{unknown['dev']:,} {unit} of dev ({share['dev']:.2%}) are unknown to the vocabulary; {remedy}, or take "
            "tokenizer = 'bpe'"
        )
    if data.tokenizer_file:
        _tell_round_trip(look, corpus, tokenizer)


def _look_at_steps(look: Look, recipe: Recipe, per_epoch: int) -> None:
    config = recipe.train
    steps = config.steps if config.epochs is None else config.epochs * per_epoch
    look.figures |= {"steps_per_epoch": per_epoch, "steps": steps}
    if steps is not None:
        look.lines.append(f"{steps:,} steps, {steps / per_epoch:.1f} epochs of {per_epoch:,}")
        if steps <= config.warmup_steps:
            less = "are less than" if steps < config.warmup_steps else "are all of"
            look.warnings.append(
                f"{steps:,} steps {less} the warm-up of {config.warmup_steps:,}: the learning rate never reaches "
                f"{config.learning_rate:g}; lower train.warmup_steps or train longer"
            )


def _repeated(hashes: array) -> int:
    """How many are the same as one before them."""
    return len(hashes) - len(np.unique(np.frombuffer(hashes, dtype=np.uint64)))


def _tell_scripts(look: Look, sides: dict[str, list[str]]) -> None:
    scripts = {side: _scripts(texts) for side, texts in sides.items()}
    characters = [side for side, texts in sides.items() if counts_characters(texts)]
    look.figures |= {"scripts": scripts, "counted_in_characters": characters}
    told = "; ".join(
        f"{side} {', '.join(f'{name} {share:.0%}' for name, share in shares.items()) or 'no letters'}"
        for side, shares in scripts.items()
    )
    spaces = f"; {' and '.join(characters)} without spaces: lengths are counted in characters" if characters else ""
    look.lines.append(f"scripts: {told}{spaces}")


def _scripts(texts: Iterable[str]) -> dict[str, float]:
    """The share of letters in each script, by the first word of their Unicode names, the largest first."""
    letters = Counter(letter for letter in itertools.chain.from_iterable(texts) if letter.isalpha())
    counts: Counter[str] = Counter()
    for letter, count in letters.items():
        counts[_script(letter)] += count
    total = counts.total()
    return {name: round(count / total, 4) for name, count in counts.most_common() if count >= NOTABLE * total}


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "unnamed").split(" ")[0].split("-")[0]
    return {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana", "MYANMAR": "Burmese"}.get(name, name.capitalize())


def _tell_form(look: Look, count: int, total: int, form: str | None, what: str) -> None:
    if not count:
        return
    if form is not None:
        look.lines.append(f"{count:,} of {total:,} {what} are not in {form}; they are read and written in it")
    else:
        look.warnings.append(
            f"{count:,} of {total:,} {what} have decomposed characters, which look like composed ones and are other "
            "tokens; set data.normalise = 'NFC'"
        )


def _tell_quotes(look: Look, sides: dict[str, list[str]]) -> None:
    for side, texts in sides.items():
        quoted = [*filter(_is_quoted, texts)]
        if len(quoted) > MANY * len(texts):
            look.warnings.append(
                f"{len(quoted) / len(texts):.0%} of the {side} texts are in quotes, which are learnt as text, such as "
                f"{quoted[0][:SHOWN]!r}; remove them where they are of a table, not of the language"
            )


def _is_quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and any(text.startswith(opening) and text.endswith(closing) for opening, closing in QUOTES)


def _is_heading(text: str) -> bool:
    return HEADINGS.fullmatch(text.strip().strip("\"'")) is not None


def _tell_overlap(
    look: Look, corpus: Corpus | Text, hashes: Callable[[str], Iterator[int]], what: str, progress: Watcher
) -> None:
    """What dev and test share with train; splits by hash share nothing."""
    splits = [split for split in ("dev", "test") if split in corpus.splits and split not in corpus.hashes]
    if not splits:
        return
    found = counted(hashes("train"), f"comparing {what} of train with {' and '.join(splits)}", progress)
    train = np.unique(np.fromiter(found, dtype=np.uint64))
    for split in splits:
        own = np.fromiter(hashes(split), dtype=np.uint64)
        shared = int(np.isin(own, train).sum())
        look.figures[f"{split}_in_train"] = shared
        if shared:
            look.warnings.append(
                f"{shared:,} of {len(own):,} {what} of {split} are in train too, but for case and punctuation: {split} "
                "says less about text that is new; remove them from one"
            )


def _left_out(corpus: Corpus | Text, tokenizer: Tokenizer, progress: Watcher) -> int:
    """How many different characters of the training text the vocabulary has not."""
    found: set[str] = set()
    # not all of the texts at once
    for text in counted(_texts(corpus), "collecting unknown characters", progress):
        found.update(text)
    return len(found - tokenizer.backend.get_vocab().keys())


def _texts(corpus: Corpus | Text) -> Iterator[str]:
    """The training texts: those that a model learns to write."""
    if isinstance(corpus, Text):
        return (corpus.plain(passage) for passage in corpus.passages("train"))
    return (pair.target for pair in corpus.pairs("train"))


def _tell_round_trip(look: Look, corpus: Corpus | Text, tokenizer: Tokenizer) -> None:
    """Texts that a tokenizer from a file does not write as they are."""
    texts = [text[:SAMPLE] for text in itertools.islice(_texts(corpus), SAMPLE)]
    written = [(text, tokenizer.decode(ids)) for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True)]
    changed = [(text, other) for text, other in written if other != text]
    look.figures["not_written_back"] = len(changed)
    if len(changed) > NOTABLE * len(texts):
        text, other = changed[0]
        pairs = enumerate(zip(text, other, strict=False))
        differs = next((index for index, (one, two) in pairs if one != two), min(map(len, changed[0])))
        shown = slice(max(0, differs - BEFORE), differs + SHOWN)
        look.warnings.append(
            f"{len(changed):,} of {len(texts):,} texts change in the tokenizer, such as {text[shown]!r}, which becomes "
            f"{other[shown]!r}"
        )
