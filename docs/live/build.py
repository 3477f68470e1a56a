"""Makes docs/live/index.html: one page that brings its models with it and runs them in the browser.

    python docs/live/build.py

`make site` runs it. Weights that are missing from docs/live/weights/ are trained first, by a shipped recipe and a seed,
and rounded to 8 bits, 32 numbers of a row with a scale of their own (Dettmers et al. 2022, "LLM.int8()", section 2); a
card beside them records how they were trained, and what rounding changed. The page is then put together from the
weights and src/regard/view/page/live.bundle.js, which esbuild makes of the modules in src/regard/view/page/live/.
"""

import base64
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import regard
from regard.data.tokenizer import Tokenizer
from regard.training.run import Run
from regard.translator import Translator
from regard.view.html import asset, digest_of
from regard.view.steps import DROPOUT, DROPOUT_SEED, EXAMPLE, EXAMPLE_INPUTS, MOST_TOKENS, draw_parameters

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights"
PAGE = HERE / "index.html"
STEPS = HERE / "weights" / "self-attention.json"
SCALES = ".scales"
# numbers of a row that share a scale: with one for a whole row the RNN translates 98 % of long numbers as before
GROUP = 32
SEED = 1
GPT = {"model.model_dim": 96, "model.num_layers": 3, "model.feed_forward_dim": 384, "train.validate_every": 250}
# each with the recipe that trains it, and its changes; steps repeat where minutes would not
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "rnn": ("numbers-rnn", {"train.steps": 1200}),
    "bahdanau": ("numbers-bahdanau", {"train.steps": 1200}),
    "transformer": ("numbers-transformer", {"train.steps": 1200}),
    "gpt": ("gpt-austen", {"train.steps": 1500, **GPT}),
}


def weights_path(name: str) -> Path:
    return WEIGHTS / f"{name}.safetensors"


def train(name: str) -> None:
    """Train a model, round its weights to 8 bits, and write them with their card."""
    recipe, changes = MODELS[name]
    changes = {**changes, "train.seed": SEED, "train.threads": 1, "train.device": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        regard.train(recipe, out=Path(folder) / recipe, changes=changes)
        round_run(name, Run.open(Path(folder) / recipe))


def round_run(name: str, run: Run) -> None:
    """Write the weights of a run in 8 bits, and its card with what rounding changed."""
    path = weights_path(name)
    facts: dict[str, Any] = {key: run.facts[key] for key in ("parameters", "steps", "seconds")}
    tensors = rounded(run.module().state_dict())
    compared = ""
    if run.recipe.translates:
        model = regard.load(run.path)
        assert isinstance(model, Translator)
        sources = [pair.source for pair in model.pairs("test")]
        before = [found.text for found in model.translate(sources)]
        model.module.load_state_dict(restored(tensors), strict=False)
        after = [found.text for found in model.translate(sources)]
        facts["same"] = sum(map(str.__eq__, before, after)) / len(sources)
        quality = model.evaluate("test").to_json()
        facts |= {key: quality[key] for key in ("count", "exact")}
        compared = (
            f"On {len(sources):,} test sentences {facts['same']:.1%} of the greedy translations are those of the "
            f"float32 weights; exact match is {facts['exact']:.1%}."
        )
    metadata = {"config": asdict(run.recipe.model), "tokenizer": tokens(run.tokenizer()), "facts": facts}
    save_file(tensors, path, {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()})
    note = f"## In 8 bits\n{GROUP} numbers of a row share a float32 scale; vectors stay float32. {compared}".rstrip()
    path.chmod(0o644)
    card = (run.path / "README.md").read_text(encoding="utf-8").rstrip()
    path.with_suffix(".md").write_text(f"{card}\n\n{note}\n", encoding="utf-8")


def rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 with a scale for each GROUP numbers of a row, vectors as they are; what is tied comes once."""
    tensors = {}
    # by the place in memory, which tied matrices share
    for name, tensor in {tensor.data_ptr(): (name, tensor) for name, tensor in reversed(state.items())}.values():
        if tensor.dim() < 2:
            tensors[name] = tensor.contiguous()
            continue
        groups = [part.abs().amax(dim=1).clamp(min=1e-12) / 127 for part in tensor.split(GROUP, dim=1)]
        scales = torch.stack(groups, dim=1)
        tensors[name] = (tensor / _spread(scales, tensor)).round().to(torch.int8)
        tensors[name + SCALES] = scales
    return tensors


def restored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `rounded` gave, in float32 again."""
    return {
        name: tensor * _spread(tensors[name + SCALES], tensor) if tensor.dtype == torch.int8 else tensor
        for name, tensor in tensors.items()
        if not name.endswith(SCALES)
    }


def _spread(scales: Tensor, matrix: Tensor) -> Tensor:
    """The scale of each number of a matrix."""
    return scales.repeat_interleave(GROUP, dim=1)[:, : matrix.shape[1]]


def read_weights(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a model of the page as float32, and its metadata: config, tokenizer, facts."""
    with safe_open(weights_path(name), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no dict
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
    return restored(tensors), metadata


def tokens(tokenizer: Any) -> dict[str, Any]:
    """What the page needs of a tokenizer: its tokens by id, and the merges of byte-level BPE."""
    assert isinstance(tokenizer, Tokenizer)
    stored = json.loads(tokenizer.backend.to_str())
    vocabulary = stored["model"]["vocab"]
    merges = [" ".join(pair) for pair in stored["model"].get("merges", ())]
    return {"kind": tokenizer.kind, "tokens": sorted(vocabulary, key=vocabulary.__getitem__), "merges": merges}


def self_attention() -> dict[str, Any]:
    """What `regard attention` starts from: example, parameters, and which of n × n weights dropout keeps."""
    kept = []
    for count in range(1, MOST_TOKENS + 1):
        torch.manual_seed(DROPOUT_SEED)
        visible = torch.nn.functional.dropout(torch.ones(count, count), DROPOUT) > 0
        kept.append("".join("01"[value] for value in visible.flatten().tolist()))
    parameters = {name: matrix.tolist() for name, matrix in draw_parameters()._asdict().items()}
    return {"tokens": EXAMPLE, "inputs": EXAMPLE_INPUTS, "parameters": parameters, "dropout": DROPOUT, "kept": kept}


def site() -> str:
    """The page, from what is committed."""
    script, style = asset("live.bundle.js"), asset("live.css")
    policy = (
        f"default-src 'none'; script-src {digest_of(script)}; style-src {digest_of(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    blocks = [_block(name, weights_path(name).read_bytes()) for name in MODELS]
    blocks.append(_block("self-attention", STEPS.read_bytes()))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="description" content="Translators and a GPT that run in this page: why attention was needed, step by step.">
<title>Attention, live · Regard</title>
<style>{style}</style>
</head>
<body>
<noscript>This page needs JavaScript, which it brings with it; nothing is fetched. 本页面需要 JavaScript。</noscript>
<script type="module">{script}</script>
{"".join(blocks)}</body>
</html>
"""


def _block(name: str, content: bytes) -> str:
    text = base64.b64encode(content).decode("ascii")
    return f'<script type="application/octet-stream;base64" id="{name}">{text}</script>\n'


def main() -> None:
    WEIGHTS.mkdir(exist_ok=True)
    for name in MODELS:
        if not weights_path(name).is_file():
            train(name)
    if not STEPS.is_file():
        STEPS.write_text(json.dumps(self_attention()) + "\n", encoding="utf-8")
    PAGE.write_text(site(), encoding="utf-8")
    print(f"{PAGE}: {PAGE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
