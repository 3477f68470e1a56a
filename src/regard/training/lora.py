"""Low-rank adapters are trained in place of a model's weights, by peft, and saved in its format.

Hu et al. 2021, "LoRA: low-rank adaptation of large language models"; in every linear layer of every block: Dettmers et
al. 2023, "QLoRA: efficient finetuning of quantized LLMs", section 4.
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from regard.config import setting
from regard.errors import RegardError
from regard.kernels.linear import Linear
from regard.models.gpt import GPT
from regard.models.limits import LARGEST_SIZE
from regard.models.pretrained.gpt_weights import parts
from regard.models.pretrained.lora import ADAPTER, PREFIX, A, B
from regard.models.pretrained.needs import quiet
from regard.training.checkpoint import save_tensors

NAME = "default"
# of Regard's own model; its embedding and its output layer stay as they are
BLOCKS = r"blocks\.\d+\.(attention|feed_forward)\.(in|out)_proj"


@dataclass(frozen=True)
class LoRAConfig:
    """Adapters in place of weights that are trained.

    Parameters
    ----------
    rank
        Columns of one matrix and rows of the other whose product is added to a weight.
    alpha
        The product is multiplied by alpha / rank.
    dropout
        Share of an adapter's inputs that is dropped out in training.
    """

    rank: int = setting(8, least=1, most=LARGEST_SIZE)
    alpha: float = setting(16.0, above=0)
    dropout: float = setting(0.0, least=0, below=1)


def add_adapters(module: nn.Module, config: LoRAConfig) -> None:
    """Put adapters into every linear layer but the output's, in place; they alone are trained from now on.

    They add nothing yet. `module` is Regard's GPT or one of transformers. Raises RegardError where peft is missing.
    """
    peft = _peft()
    settings = _settings(module, config, "all-linear" if not isinstance(module, GPT) else BLOCKS)
    if isinstance(module, GPT):
        from peft.tuners.lora import Linear as Adapted

        # beside it the product with the weight stays Regard's own
        settings._register_custom_module({Linear: Adapted})
    with quiet():
        peft.inject_adapter_in_model(settings, module, adapter_name=NAME)


def save_adapters(module: nn.Module, config: LoRAConfig, folder: Path, *, base: str) -> None:
    """Write the adapters of a module into a folder as peft's `save_pretrained` does, by Hugging Face's names.

    `base` is the name of the model, or its path from the folder, that whoever loads them is told.
    """
    tensors = {f"{PREFIX}{name}": tensor.detach().cpu().contiguous() for name, tensor in _tensors(module)}
    names = {name.removeprefix(PREFIX).removesuffix(A).removesuffix(B).rpartition(".")[2] for name in tensors}
    settings = _settings(module, config, sorted(names))
    settings.base_model_name_or_path = base
    settings.inference_mode = True
    settings.save_pretrained(str(folder))
    # the first matrix of several adapters may be one memory
    save_tensors({name: tensor.clone() for name, tensor in tensors.items()}, folder / ADAPTER)


def _settings(module: nn.Module, config: LoRAConfig, targets: str | list[str]) -> Any:
    is_pair = bool(getattr(getattr(module, "config", None), "is_encoder_decoder", False))
    return _peft().LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=config.dropout,
        target_modules=targets,
        fan_in_fan_out=isinstance(module, GPT) and module.config.positions == "learned" and isinstance(targets, list),
        task_type="SEQ_2_SEQ_LM" if is_pair else "CAUSAL_LM",
    )


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Both matrices of every adapter by Hugging Face's names, as in a file of peft's."""
    if not isinstance(module, GPT):
        for name, parameter in module.named_parameters():
            if name.endswith((f".lora_A.{NAME}.weight", f".lora_B.{NAME}.weight")):
                yield name.removesuffix(f".{NAME}.weight") + ".weight", parameter
        return
    for part in parts(module):
        layer = module.get_submodule(part.ours.rpartition(".")[0])
        if not part.ours.endswith(".weight") or not hasattr(layer, "lora_A"):
            continue
        a, b = (halves[NAME].weight for halves in (layer.lora_A, layer.lora_B))  # pyright: ignore
        # rows of one product are several products that share A
        for name, rows in zip(part.theirs, b.split(list(part.rows) or [len(b)]), strict=True):
            yield from ((name.removesuffix(".weight") + half, each) for half, each in ((A, a), (B, rows)))


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise RegardError(
            f"model.lora needs peft, which cannot be imported ({error}); run: python -m pip install 'regard[finetune]'"
        ) from None
