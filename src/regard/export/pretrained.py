"""A pretrained translator handed to another tool: transformers itself, or CTranslate2 by its own converter."""

import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from regard.errors import RegardError
from regard.export import Agreement, agreed, greedy
from regard.export.ctranslate2 import LONGEST_BY_DEFAULT
from regard.files import check_new_folder, new_folder
from regard.models.pretrained.folder import CONFIG, read_json
from regard.models.pretrained.needs import quiet, told
from regard.models.pretrained.pair_tokenizer import PretrainedTokenizer
from regard.models.pretrained.seq2seq import PretrainedTranslator
from regard.models.pretrained.translators import save_tokenizer

# sentences that the other tool translates at a time
BATCH_SIZE = 16


class Target(NamedTuple):
    """What writes a model into a folder, what translates there greedily, and what tells a user how.

    `translate(folder, tokenizer, texts, max_new_tokens)`; `usage(tokenizer, max_new_tokens)` is Markdown.
    """

    write: Callable[[PretrainedTranslator, PretrainedTokenizer, Path], None]
    translate: Callable[[Path, PretrainedTokenizer, list[str], int], list[list[int]]]
    usage: Callable[[PretrainedTokenizer, int], str]


def export_pretrained(
    name: str,
    folder: Path,
    model: str,
    module: PretrainedTranslator,
    tokenizer: PretrainedTokenizer,
    *,
    max_length: int,
    sample: list[str],
) -> Agreement:
    """Write the translator `model` into a new folder, which appears once the target has translated the sample.

    Raises RegardError for an unknown target, a model it cannot hold, a folder that is not empty, and if fewer than 99 %
    of its greedy translations are the same.
    """
    if name not in TARGETS:
        raise RegardError(f"a pretrained translator is exported to {', '.join(TARGETS)}, not to {name!r}")
    if name != "hf" and importlib.util.find_spec(name) is None:
        raise RegardError(f"an export to {name} needs that package; pip install 'regard[{name}]'")
    check_new_folder(folder)
    target = TARGETS[name]
    longest = max((len(ids) for ids in tokenizer.encode_batch(sample)), default=0)
    room = max_length - len(tokenizer.frames.target.before)
    most = min(2 * longest + 20, room)
    sample, ours = greedy(module, tokenizer, sample, max_length=max_length, max_new_tokens=most)
    with new_folder(folder) as made:
        with told(f"{model} cannot be exported to {name}"), quiet():
            target.write(module, tokenizer, made)
            found = target.translate(made, tokenizer, sample, most)
        agreement = agreed(name, ours, [tokenizer.target.decode(ids) for ids in found])
        card = [
            f"# {model}, for {name}",
            "",
            f"Checked at its export by Regard: {name} gives the same greedy translation of {agreement.same} in",
            f"{agreement.sentences} sentences. The licence and the limits of {model} hold for it too.",
            "",
            target.usage(tokenizer, min(room, LONGEST_BY_DEFAULT)),
        ]
        (made / "README.md").write_text("\n".join(card), encoding="utf-8")
    return agreement


def _write_folder(module: PretrainedTranslator, tokenizer: PretrainedTokenizer, folder: Path) -> None:
    module.model.save_pretrained(folder)
    save_tokenizer(module, tokenizer, folder)


def _generate(folder: Path, tokenizer: PretrainedTokenizer, texts: list[str], max_new_tokens: int) -> list[list[int]]:
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(str(folder), local_files_only=True)
    frames = tokenizer.frames
    given = torch.tensor([frames.target.before])
    found = []
    for text in texts:
        ids = torch.tensor([frames.source(tokenizer.encode(text))])
        # what was forced is given already, and Regard says where a text was cut
        written = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            decoder_input_ids=given,
            max_new_tokens=max_new_tokens,
            num_beams=1,
            do_sample=False,
            eos_token_id=frames.end,
            forced_bos_token_id=None,
            forced_eos_token_id=None,
        )
        found.append(_until(written[0, given.shape[1] :].tolist(), frames.end))
    return found


def _write_ctranslate2(module: PretrainedTranslator, tokenizer: PretrainedTokenizer, folder: Path) -> None:
    from ctranslate2.converters import TransformersConverter
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="regard-") as saved:
        _write_folder(module, tokenizer, Path(saved))
        # its converter asks for what older versions of transformers wrote there
        config = {"normalize_before": module.config.model_type == "mbart"} | read_json(Path(saved) / CONFIG)
        config["tokenizer_class"] = type(tokenizer.backend).__name__
        (Path(saved) / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        if hasattr(tokenizer.backend, "lang_token_to_id"):
            # tags that its tokenizer does not list among its tokens
            listed = AutoTokenizer.from_pretrained(saved, local_files_only=True)
            listed.add_tokens([*listed.lang_token_to_id], special_tokens=True)
            listed.save_pretrained(saved)
        TransformersConverter(saved).convert(str(folder), force=True)
    config = read_json(folder / CONFIG)
    if config.get("bos_token", "") is None:
        # its own reader wants one, which no decoder here starts from
        config["bos_token"] = config["eos_token"]
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_tokenizer(module, tokenizer, folder)


def _translate_ctranslate2(
    folder: Path, tokenizer: PretrainedTokenizer, texts: list[str], max_new_tokens: int
) -> list[list[int]]:
    import ctranslate2

    translator: Any = ctranslate2.Translator(str(folder), compute_type="float32", intra_threads=torch.get_num_threads())
    backend, frames = tokenizer.backend, tokenizer.frames
    prefix, again = _given(tokenizer)
    results = translator.translate_batch(
        [backend.convert_ids_to_tokens(frames.source(tokenizer.encode(text))) for text in texts],
        target_prefix=[prefix] * len(texts) if prefix else None,
        beam_size=1,
        max_batch_size=BATCH_SIZE,
        max_input_length=0,
        min_decoding_length=0,
        # what it is given counts too
        max_decoding_length=max_new_tokens + again,
    )
    return [backend.convert_tokens_to_ids(result.hypotheses[0][again:]) for result in results]


def _given(tokenizer: PretrainedTokenizer) -> tuple[list[str], int]:
    """The tokens that CTranslate2 must be told to begin with, and how many of them it gives back."""
    before = tokenizer.frames.target.before
    # it does not know the start of a decoder that starts from the language
    starts_from_tag = before[0] in tokenizer.frames.target.after[1:]
    told = before if starts_from_tag else before[1:]
    return tokenizer.backend.convert_ids_to_tokens(list(told)), len(before) - 1


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _usage_folder(tokenizer: PretrainedTokenizer, max_new_tokens: int) -> str:
    return f"""## Use

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
inputs = tokenizer(["{tokenizer.typed}One sentence."], return_tensors="pt")
written = model.generate(**inputs, max_new_tokens={max_new_tokens})
print(tokenizer.batch_decode(written, skip_special_tokens=True))
```
"""


def _usage_ctranslate2(tokenizer: PretrainedTokenizer, max_new_tokens: int) -> str:
    prefix, again = _given(tokenizer)
    given = f", target_prefix=[{prefix}]" if prefix else ""
    skipped = f"[{again}:]" if again else ""
    return f"""## Use

`pip install ctranslate2 transformers`, then, in this folder:

```python
import ctranslate2
from transformers import AutoTokenizer

tokenizer, translator = AutoTokenizer.from_pretrained("."), ctranslate2.Translator(".", compute_type="float32")
source = tokenizer.convert_ids_to_tokens(tokenizer("{tokenizer.typed}One sentence.").input_ids)
(result,) = translator.translate_batch([source], beam_size=5, max_decoding_length={max_new_tokens}{given})
print(tokenizer.decode(tokenizer.convert_tokens_to_ids(result.hypotheses[0]{skipped})))
```
"""


TARGETS = {
    "hf": Target(_write_folder, _generate, _usage_folder),
    "ctranslate2": Target(_write_ctranslate2, _translate_ctranslate2, _usage_ctranslate2),
}
