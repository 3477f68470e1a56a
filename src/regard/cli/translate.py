"""`regard translate`: line in, line out."""

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from regard.cli.options import Count, Device, Dtype, HyphenOrText
from regard.errors import RegardError

# lines translated together: enough to find many of like length
CHUNK = 2048


def translate(
    run: Path,
    file: HyphenOrText = "-",
    /,
    *,
    num_beams: Count = 1,
    length_penalty: float = 1.0,
    n_best: Count = 1,
    max_new_tokens: Count | None = None,
    batch_size: Count = 64,
    alignments: Path | None = None,
    layer: int = -1,
    head: int | None = None,
    json: bool = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Translate a text, line in, line out. An empty line stays an empty line.

    Parameters
    ----------
    run
        A run folder.
    file
        A text file, plain, gzip or xz; `-` is standard input.
    num_beams
        Hypotheses kept at each step; 1 is greedy.
    length_penalty
        Beams are ranked by log-probability / length ** this.
    n_best
        Translations of each line, best first, so many lines for each line; where there are fewer, empty ones follow.
    max_new_tokens
        Where a translation ends at the latest; by default twice the source and 20 more.
    batch_size
        Sentences translated at a time; it does not change what comes out.
    alignments
        Writes the word alignment of each best translation, a line of source-target pairs (Pharaoh format).
    layer
        The cross layer that --alignments reads; -1 is the last.
    head
        The head that --alignments reads; by default the mean of all.
    json
        One JSON object a line: source, translations with score, and whether each is finished.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.api import load
    from regard.data.formats import read_lines
    from regard.files import new_file

    if n_best > num_beams:
        raise RegardError(f"--n-best {n_best} needs as many --num-beams; it has {num_beams}")
    translator = load(run, device=device, dtype=dtype)
    if alignments is not None:
        # told before anything is translated
        translator.check_cross_attention(layer=layer, head=head)
    unfinished = 0
    with contextlib.ExitStack() as stack:
        aligned = None
        if alignments is not None:
            partial = stack.enter_context(new_file(alignments))
            aligned = stack.enter_context(partial.open("w", encoding="utf-8"))
        # someone who types wants an answer to each line
        size = 1 if file == "-" and sys.stdin.isatty() else CHUNK
        for first, lines in _chunks(read_lines(file), size):
            found = translator.translate_n_best(
                lines,
                num_beams=num_beams,
                length_penalty=length_penalty,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                name=lambda index, first=first: f"{'standard input' if file == '-' else file}:{first + index + 1}",
            )
            for line, generations in zip(lines, found, strict=True):
                unfinished += not generations[0].finished
                _write(line, generations[:n_best], as_json=json, lines=n_best)
            sys.stdout.flush()
            if aligned is not None:
                _align(translator, lines, [best[0] for best in found], aligned, layer=layer, head=head)
    if unfinished:
        print(f"regard: {unfinished} translations were cut at the limit; see --max-new-tokens", file=sys.stderr)


def _chunks(lines: Iterator[str], size: int) -> Iterator[tuple[int, list[str]]]:
    for start in itertools.count(0, size):
        chunk = list(itertools.islice(lines, size))
        if not chunk:
            return
        yield start, chunk


def _write(line: str, generations: list, *, as_json: bool, lines: int) -> None:
    if as_json:
        translations = [{"text": each.text, "score": each.score, "finished": each.finished} for each in generations]
        print(json.dumps({"source": line, "translations": translations}, ensure_ascii=False))
        return
    for generation in generations:
        # one line in is one line out, whatever the model wrote
        print(generation.text.replace("\n", " ").replace("\r", " "))
    print("\n" * (lines - len(generations)), end="")


def _align(translator, lines: list[str], best: list, file, *, layer: int, head: int | None) -> None:
    from regard.reading.replay import pharaoh

    for alignment in translator.alignments(lines, best, layer=layer, head=head):
        file.write(pharaoh(alignment) + "\n")
