"""`regard atlas`: what every head of a model does, over many texts."""

import json as json_module
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

from regard.cli.bulk import NO_JOB, Files, Jobs, run
from regard.cli.options import Count, Device, Dtype
from regard.errors import RegardError

if TYPE_CHECKING:
    from regard.reading.atlas import Atlas
    from regard.reading.atlas_difference import AtlasDifference

logger = logging.getLogger("regard")


def atlas(
    model: str,
    files: Files = (),
    /,
    *,
    out: Path | None = None,
    max_tokens: Annotated[int | None, Parameter(validator=Number(gte=2))] = None,
    segments: Literal["sentences", "paragraphs", "turns", "documents"] = "sentences",
    effects: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    compare: Path | None = None,
    json: bool = False,
    resume: bool = False,
    jobs: Jobs = NO_JOB,
    threads: Count | None = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Show what every head does, over all texts of FILES: which copy, which look back, which are sinks.

    The folder --out gets atlas.html, a map of all heads with examples of each; atlas.parquet, a row for each head; and
    atlas.safetensors, which `regard.Atlas.load` opens.

    Parameters
    ----------
    model
        A language model, or an encoder of text: a Hugging Face folder, a name of its hub, a GGUF file, a run, smollm2
        or gemma3-270m.
    files
        Files, patterns or folders, each line or record of which is a text.
    out
        A new folder.
    max_tokens
        Of longer texts only the first tokens are taken; by default texts are taken whole.
    segments
        What counts as the part of the text that a token is in.
    effects
        Of so many texts, the first, every head is ablated in turn, which takes a pass for each head.
    compare
        Another atlas, a folder or its atlas.safetensors, over the same texts: the differences are shown, and drawn.
    json
        The table of heads as one JSON document.
    resume
        Go on with the shards that --out has.
    threads
        How many threads of a CPU compute in each worker; by default 1.
    device
        auto, cpu or cuda.
    dtype
        float32, bfloat16 or float64.
    """
    from regard.jobs.atlas import merged_atlas, opened_atlas
    from regard.reading.atlas_difference import AtlasDifference
    from regard.view.atlas_terminal import atlas_view, difference_view

    other = None if compare is None else opened_atlas(compare)

    def show(manifest: Mapping[str, Any]) -> None:
        assert out is not None
        found = merged_atlas(out, manifest)
        difference = None if other is None else AtlasDifference(other, found)
        _save(found, difference, out)
        if json:
            print(json_module.dumps({**found.facts(), "heads": found.columns()}, ensure_ascii=False))
            return
        console = Console(highlight=False)
        console.print(atlas_view(found))
        if difference is not None:
            console.print(difference_view(difference))
        console.print(f"{out / 'atlas.html'}: a map of all heads, with examples", soft_wrap=True)

    options = {"max_tokens": max_tokens, "segments": segments, "effects": effects}
    loading = {"device": device, "dtype": dtype}
    run("atlas", model, files, out, jobs, resume=resume, loading=loading, options=options, threads=threads, then=show)


def _save(found: "Atlas", difference: "AtlasDifference | None", out: Path) -> None:
    """Write the atlas into the job's folder."""
    from regard.files import new_file
    from regard.jobs.atlas import ATLAS
    from regard.view.atlas_page import atlas_html

    found.save(out / ATLAS)
    with new_file(out / "atlas.html") as partial:
        partial.write_text(atlas_html(found, difference=difference), encoding="utf-8")
    try:
        found.save(out / "atlas.parquet")
    except RegardError as error:
        # the rest is there all the same
        logger.warning("atlas.parquet is left out: %s", error)
