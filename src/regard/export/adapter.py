"""The adapter of a run apart from the model that it adapts, as a folder that peft loads with the same logits."""

import importlib
import shutil
from pathlib import Path

import torch

from regard.errors import RegardError
from regard.export.hugging_face import check_logits
from regard.files import check_new_folder, new_folder
from regard.models.pretrained.folder import CONFIG, GENERATION_CONFIG, load_folder, load_own
from regard.models.pretrained.lora import ADAPTER, ADAPTER_CONFIG, find_merged
from regard.models.pretrained.needs import quiet
from regard.training.folder import PRETRAINED


def export_adapter(run: Path, folder: Path) -> None:
    """Write the adapter of a run, its tokenizer, and a README.md that tells how to use them, into a new folder.

    The folder appears once peft has loaded it and given the same logits. Raises RegardError for what is no run with
    LoRA, where peft is not installed, and if the folder is not empty.
    """
    if not (run / ADAPTER_CONFIG).is_file():
        raise RegardError(f"{run}: it has no adapter, such as a run with [model] lora has; leave out --apart")
    check_new_folder(folder)
    try:
        peft = importlib.import_module("peft")
    except ImportError as error:
        raise RegardError(f"--apart needs peft ({error}); run: python -m pip install 'regard[finetune]'") from None
    _, base, adapters = find_merged(run)
    own = load_own(base, dtype=torch.float32, adapters=adapters)
    if own is None:
        raise RegardError(f"{run}: Regard has no model of its own for this architecture; peft loads the run as it is")
    with new_folder(folder) as made:
        for name in (ADAPTER_CONFIG, ADAPTER, *PRETRAINED):
            if name not in (CONFIG, GENERATION_CONFIG) and (run / name).is_file():
                shutil.copyfile(run / name, made / name)
        theirs, _ = load_folder(base, dtype=torch.float32, adapters=adapters[:-1])
        with quiet():
            theirs = peft.PeftModel.from_pretrained(theirs, str(made))
        check_logits(own[0], theirs, run.name)
        (made / "README.md").write_text(_card(run.name, adapters[-1].base or "BASE"), encoding="utf-8")


def _card(name: str, base: str) -> str:
    return f"""# {name}, an adapter for peft

Written by Regard, and checked then: peft gives the same logits. It adapts {base}.

`pip install peft transformers`, then, in this folder:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), ".")
tokenizer = AutoTokenizer.from_pretrained(".")
```
"""
