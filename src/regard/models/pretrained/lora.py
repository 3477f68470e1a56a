"""Low-rank adapters as peft keeps them: for a weight W two small matrices, whose product B·A is added to it.

Hu et al. 2021, "LoRA: low-rank adaptation of large language models", section 4.1; ranks whose products are stable:
Kalajdzievski 2023, "A rank stabilization scaling factor for fine-tuning with LoRA".
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import regex
from torch import Tensor

from regard.config import shown
from regard.errors import RegardError
from regard.models.pretrained.find import find_model
from regard.models.pretrained.folder import read_json, read_tensors

Name = str | os.PathLike[str]
ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
# what says how the product is made, and what says nothing about it
MEANT = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "init_lora_weights")
ASIDE = (
    *("peft_type", "base_model_name_or_path", "revision", "task_type", "auto_mapping", "peft_version", "bias"),
    *("inference_mode", "target_modules", "exclude_modules", "lora_dropout", "layers_to_transform", "layers_pattern"),
    *("megatron_core", "runtime_config", "qalora_group_size", "loftq_config", "eva_config", "corda_config"),
    *("lora_ga_config", "ensure_weight_tying"),
)
# for a pattern to be compared with a name
SECONDS = 1
# others change the base, too
INITIAL = (None, True, False, "gaussian", "orthogonal", "eva")
MOST_TOLD = 3
# on each other
MOST_ADAPTERS = 16
REMEDY = "merge it into its base with merge_and_unload of peft"


class Product(NamedTuple):
    """The matrices of one module, and what their product is multiplied by."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def change(self) -> Tensor:
        return self.scale * (self.b.float() @ self.a.float())


@final
@dataclass(frozen=True)
class Adapter:
    """What is added to weights, by the names of their modules; `base` is the model that the adapter names.

    The weights are `turned` where their rows are what others have as columns, as GPT-2's are.
    """

    folder: Path
    base: str | None
    products: Mapping[str, Product]
    turned: bool

    def base_folder(self) -> Path:
        """The folder of the base: beside the adapter, or as `find_model` finds it. Raises RegardError."""
        remedy = f"give its base: regard.load(BASE, adapter={str(self.folder)!r})"
        if not self.base:
            raise RegardError(f"{self.folder / ADAPTER_CONFIG}: it names no base_model_name_or_path; {remedy}")
        beside = self.folder / self.base
        try:
            return find_model(beside if beside.exists() else self.base)[1]
        except RegardError as error:
            raise RegardError(f"{self.folder}: its base cannot be had: {error}; or {remedy}") from None

    def merged(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the base with the products added, in float32. Raises RegardError where it is another model."""
        found, wrong = dict(tensors), []
        for module, product in self.products.items():
            # a model saved without its head has names without the first part
            names = (f"{module}.weight", f"{module.partition('.')[2]}.weight")
            name = next((name for name in names if name in tensors), None)
            change = product.change.T if self.turned else product.change
            if name is None:
                wrong.append(f"has no {names[0]}")
            elif tensors[name].shape != change.shape:
                wrong.append(f"has {name} of shape {list(tensors[name].shape)}, not {list(change.shape)}")
            else:
                found[name] = tensors[name].float() + change
        if wrong:
            raise RegardError(f"{self.folder}: an adapter for another model: the base {_listed(wrong)}; name its base")
        return found


class Found(NamedTuple):
    """A model: its name, the folder of its weights, and the adapters that are to be merged into these, in order."""

    name: str
    folder: Path
    adapters: tuple[Adapter, ...] = ()


def find_merged(model: Name, adapter: Name | None = None) -> Found:
    """A model as `find_model` finds it, which may be an adapter, and one more `adapter` on it. Raises RegardError."""
    name, folder = find_model(model)
    adapters = [] if adapter is None else [read_adapter(find_model(adapter)[1])]
    while (folder / ADAPTER_CONFIG).is_file():
        if len(adapters) > MOST_ADAPTERS:
            raise RegardError(f"{folder}: an adapter of an adapter, and so on for ever; correct its {ADAPTER_CONFIG}")
        adapters.insert(0, read_adapter(folder))
        folder = adapters[0].base_folder()
    return Found(name, folder, tuple(adapters))


def read_adapter(folder: Path) -> Adapter:
    """What peft's `save_pretrained`, or a run with LoRA, wrote into a folder.

    Raises RegardError for another kind of adapter, for one in a pickle, and where settings and tensors do not fit.
    """
    path = folder / ADAPTER_CONFIG
    values = read_json(path)
    if not (folder / ADAPTER).is_file():
        if (folder / PICKLED).is_file():
            raise RegardError(
                f"{folder / PICKLED}: a pickle, which may hold code and is not read; save the adapter where you trust "
                "it, with save_pretrained of peft"
            )
        raise RegardError(f"{folder}: it holds no {ADAPTER}; fetch the adapter's safetensors file as well")
    _check_settings(values, path)
    base = values.get("base_model_name_or_path")
    if not isinstance(base, str | None):
        raise RegardError(f"{path}: base_model_name_or_path is {shown(base)}, which must be a name or a path")
    tensors = read_tensors([folder / ADAPTER])
    modules = {name.removeprefix(PREFIX).removesuffix(A).removesuffix(B) for name in tensors}
    wanted = {f"{PREFIX}{module}{half}" for module in modules for half in (A, B)}
    if unknown := sorted(tensors.keys() - wanted):
        raise RegardError(f"{folder / ADAPTER}: it has {_listed(unknown)}, which is not known here; {REMEDY}")
    if lacking := sorted(wanted - tensors.keys()) or ([] if modules else [f"any{A}"]):
        raise RegardError(f"{folder / ADAPTER}: it lacks {_listed(lacking)}; fetch it again")
    products = {module: _product(module, tensors, values, folder / ADAPTER) for module in sorted(modules)}
    return Adapter(folder, base, products, turned=bool(values.get("fan_in_fan_out")))


def _product(module: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any], where: Path) -> Product:
    a, b = (tensors[f"{PREFIX}{module}{half}"] for half in (A, B))
    try:
        rank = _of_pattern(values.get("rank_pattern"), module, values.get("r", 8))
        alpha = _of_pattern(values.get("alpha_pattern"), module, values.get("lora_alpha", 8))
    except (regex.error, TimeoutError) as error:
        raise RegardError(
            f"{where.parent / ADAPTER_CONFIG}: rank_pattern or alpha_pattern is no table of patterns ({error})"
        ) from None
    if a.ndim != 2 or b.ndim != 2 or not len(a) == b.shape[1] == rank:
        raise RegardError(
            f"{where}: {module} has matrices of shape {list(a.shape)} and {list(b.shape)}, which have no rank {rank}, "
            f"as {ADAPTER_CONFIG} says; fetch both again"
        )
    if not (a.is_floating_point() and b.is_floating_point() and a.isfinite().all() and b.isfinite().all()):
        raise RegardError(f"{where}: {module} holds values that are not finite; fetch it again")
    return Product(a, b, alpha / (rank**0.5 if values.get("use_rslora") else rank))


def _of_pattern(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The value of the first pattern that fits the end of a module's name, as peft finds it."""
    for key, value in (pattern or {}).items():
        if regex.fullmatch(rf"(.*\.)?({key})", module, timeout=SECONDS):
            return value
    return default


def _check_settings(values: Mapping[str, Any], path: Path) -> None:
    if values.get("peft_type") != "LORA":
        raise RegardError(f"{path}: an adapter of the kind {shown(values.get('peft_type'))}, not LORA; {REMEDY}")
    if values.get("bias", "none") != "none":
        raise RegardError(f"{path}: bias is {shown(values['bias'])}, and biases are not adapted here; {REMEDY}")
    if values.get("init_lora_weights") not in INITIAL:
        raise RegardError(
            f"{path}: init_lora_weights is {shown(values['init_lora_weights'])}, a changed base; {REMEDY}"
        )
    for name, value in values.items():
        if value and name not in (*MEANT, *ASIDE):
            raise RegardError(f"{path}: {name} is {shown(value)}, which is not known here; {REMEDY}")
    sizes = [("r", values.get("r", 8)), ("lora_alpha", values.get("lora_alpha", 8))]
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = values.get(name) or {}
        if not isinstance(pattern, Mapping):
            raise RegardError(f"{path}: {name} is {shown(pattern)}, which must be a table")
        sizes += [(f"{name} of {key}", value) for key, value in pattern.items()]
    for name, value in sizes:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise RegardError(f"{path}: {name} is {shown(value)}, which must be a number above 0")


def _listed(wrong: list[str]) -> str:
    more = f" and {len(wrong) - MOST_TOLD} more" if len(wrong) > MOST_TOLD else ""
    return ", ".join(wrong[:MOST_TOLD]) + more
