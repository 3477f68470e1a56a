"""`regard align`: which words of given pairs translate each other, by what the model looks at."""

import json as json_module
from pathlib import Path

from regard.cli.options import NO_LANGUAGES, Device, Dtype, Heuristic, Languages, PairFiles, pair_chunks


def align(
    model: str,
    files: PairFiles = (Path("-"),),
    /,
    *,
    layer: int | None = None,
    head: int | None = None,
    reverse: str | None = None,
    heuristic: Heuristic = "grow-diag-final-and",
    json: bool = False,
    languages: Languages = NO_LANGUAGES,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Align the words of given translations: `i-j` where target word j looks most at source word i (Pharaoh format).

    Words count from 0: what stands between spaces, and each character of a script that is written without them. The
    model is made to write each target. A pair with nothing on a side has an empty line.

    Parameters
    ----------
    model
        A run folder, or a pretrained translator: a Hugging Face folder or a name of its hub.
    files
        One file with both sides, or two aligned files, source first, in any format that training takes. `-`, or
        nothing, is standard input.
    layer
        The cross layer to read; -1 is the last. The default is the head that training guided (train.guided_alignment),
        else the last layer. Where there are gold links, `regard evaluate` tells which layer and head align best.
    head
        The head to read; by default the mean of all.
    reverse
        A translator of the other direction, which aligns the pairs too: --heuristic joins what both find. Links that
        are in files already are joined by `regard symmetrise`.
    heuristic
        intersection keeps the links that both have, union those that either has; grow-diag, -final and -final-and lie
        between (see `regard symmetrise --help`).
    json
        One JSON object a line: source, target and links, each a source and a target word.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load_translator
    from regard.data.word_links import HEURISTICS
    from regard.reading.replay import links

    translator = load_translator(model, device=device, dtype=dtype, **vars(languages))
    translator.check_cross_attention(layer=layer, head=head)
    other = None
    if reverse is not None:
        other = load_translator(reverse, device=device, dtype=dtype)
        other.check_cross_attention(layer=layer, head=head)
    for pairs, name in pair_chunks(files):
        sources, targets = map(list, zip(*pairs, strict=True))
        translator.check_pairs(sources, targets, name=name)
        found = map(links, translator.alignments(sources, targets, layer=layer, head=head))
        if other is not None:
            other.check_pairs(targets, sources, name=name)
            backwards = map(links, other.alignments(targets, sources, layer=layer, head=head))
            found = (
                sorted(HEURISTICS[heuristic](set(one), {(mine, theirs) for theirs, mine in back}))
                for one, back in zip(found, backwards, strict=True)
            )
        for pair, own in zip(pairs, found, strict=True):
            if json:
                print(json_module.dumps({**pair._asdict(), "links": own}, ensure_ascii=False))
            else:
                print(" ".join(f"{source}-{target}" for source, target in own))
