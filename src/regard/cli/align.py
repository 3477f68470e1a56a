"""`regard align`: which words of given pairs translate each other, by what the model looks at."""

import json as json_module
from pathlib import Path

from regard.cli.options import NO_LANGUAGES, Device, Dtype, Languages, PairFiles, pair_chunks


def align(
    model: str,
    files: PairFiles = (Path("-"),),
    /,
    *,
    layer: int = -1,
    head: int | None = None,
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
        The cross layer to read; -1 is the last. Where there are gold links, `regard evaluate` tells which layer and
        head align best.
    head
        The head to read; by default the mean of all.
    json
        One JSON object a line: source, target and links, each a source and a target word.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load_translator
    from regard.reading.replay import links

    translator = load_translator(model, device=device, dtype=dtype, **vars(languages))
    translator.check_cross_attention(layer=layer, head=head)
    for pairs, name in pair_chunks(files):
        sources, targets = map(list, zip(*pairs, strict=True))
        translator.check_pairs(sources, targets, name=name)
        for pair, table in zip(pairs, translator.alignments(sources, targets, layer=layer, head=head), strict=True):
            found = links(table)
            if json:
                print(json_module.dumps({**pair._asdict(), "links": found}, ensure_ascii=False))
            else:
                print(" ".join(f"{source}-{target}" for source, target in found))
