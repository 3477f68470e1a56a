"""Guided alignment: one head of cross-attention learns to look where a statistical aligner links words.

Chen, Matusov, Khadivi and Peter 2016, "Guided alignment training for topic-aware neural machine translation", section
3; the head after Garg, Peitz, Nallasamy and Paulik 2019, "Jointly learning to align and translate with Transformer
models", section 4; which row looks after Chen, Liu, Chen, Jiang and Liu 2020, "Accurate word alignment induction from
neural machine translation". The aligner learns from the training pairs alone. It never sees a link that a person drew.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from regard.attention.output import AttentionMap
from regard.data.corpus import Watcher, unwatched
from regard.data.formats import Pair
from regard.data.guide import Guide
from regard.data.links import Links, read_links, write_links
from regard.data.mixture import Mixture
from regard.data.pair_tokenizer import PairTokenizer
from regard.data.prepare import TokenizedCorpus
from regard.data.word_links import WordAligner, symmetrise
from regard.files import new_file

# joins both directions' links so that most words have one
HEURISTIC = "grow-diag-final-and"
TINY = 1e-30


def guided_head(num_layers: int) -> tuple[int, int]:
    """Layer and head that are guided: the first head of the layer before the last, as in Garg et al., section 4.2."""
    return max(0, num_layers - 2), 0


def alignment_loss(attention: Sequence[AttentionMap], guide: Float[Tensor, "batch step source"]) -> Float[Tensor, ""]:
    """Cross-entropy of the guided head's weights against the links, summed over the tokens that have any.

    -Σ_t Σ_s G_ts log A_ts (Garg et al. 2019, equation 3). A_t is the row whose query reads token t, one after the row
    that writes it (Chen et al. 2020, section 3.1): the head knows the word whose source it seeks, in the very pass that
    translates. Garg et al. have a second pass with the whole target in view for that.
    """
    layer, head = guided_head(len(attention))
    weights = attention[layer].weights[:, head].float()
    # the row of a label is the one that writes it; the next one reads it. After the end of a target nothing is read
    return -(guide[:, :-1] * weights[:, 1:].clamp_min(TINY).log()).sum()


def with_guide(
    train: TokenizedCorpus | Mixture, tokenizer: PairTokenizer, path: Path, progress: Watcher = unwatched
) -> TokenizedCorpus | Mixture:
    """The same pairs with the links that guide a head, read from `path`, or found and written there.

    Raises RegardError for a file with links of other pairs.
    """
    parts = train.corpora if isinstance(train, Mixture) else [train]
    if not path.exists():
        pairs = [_words(*ids, tokenizer) for part in parts for ids in _pairs(part)]
        found = WordAligner.learn(pairs, progress).directions(pairs)
        links = (frozenset(symmetrise(*both, HEURISTIC)) for both in found)
        with new_file(path) as partial:
            write_links(partial, (Links(each, each) for each in links))
    texts = (
        Pair(tokenizer.decode(source), tokenizer.target.decode(target))
        for part in parts
        for source, target in _pairs(part)
    )
    links = read_links(path, texts)
    guides = []
    for part in parts:
        guide = Guide()
        for source, target in _pairs(part):
            (_, source_words), (_, target_words) = tokenizer.word_indices(source), tokenizer.target.word_indices(target)
            guide.add(next(links).sure, source_words, target_words)
        guides.append(guide)
    return train.with_guides(guides) if isinstance(train, Mixture) else train.with_guide(*guides)


def _pairs(part: TokenizedCorpus) -> Iterator[tuple[list[int], list[int]]]:
    return ((source.tolist(), target.tolist()) for source, target in (part[index] for index in range(len(part))))


def _words(source: list[int], target: list[int], tokenizer: PairTokenizer) -> tuple[list[str], list[str]]:
    return tokenizer.word_indices(source)[0], tokenizer.target.word_indices(target)[0]
