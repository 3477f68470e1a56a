"""A language model's step from one token to the next as machine code, compiled once and kept in the user's cache.

One token gives each kernel so little to do that half of a step's time on a CPU goes into getting from one to the next.
torch compiles all of them into one function, which is given the weights: models of one shape share it.
"""

import hashlib
import logging
import os
import platform
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

import regard
from regard.attention.key_values import KeyValues, Queries
from regard.data.download import cache_dir
from regard.errors import RegardError
from regard.kernels.compiler import check_compiler
from regard.models.gpt import GPT, Places

logger = logging.getLogger(__name__)

# of the run that is traced: any but 0 and 1, which torch takes for constants
TOKENS, ROOM = 3, 8
# torch makes a case of its own of less
LEAST_ROOM = 4
# positions of a compiled step, for which room is made at once; a model may say that it takes many more
LONGEST = 1 << 24
# on which what is compiled depends
SOURCES = ("attention", "kernels", "models")


@final
class CompiledStep:
    """What a model does with one token after others, of one sequence, all of which it sees."""

    def __init__(self, module: GPT, path: Path) -> None:
        self._weights = list(_weights(module).values())
        self._most = min(module.config.max_length, LONGEST)
        self._counter = torch.empty(self._most, dtype=torch.bool)
        self._loader = torch._inductor.aoti_load_package(str(path)).loader

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of the model has weights of its own."""

    def fits(self, x: Float[Tensor, "batch new model_dim"], places: Places, past: KeyValues) -> bool:
        """Whether it can do this step."""
        return (
            x.shape[:2] == (1, 1)
            and places.mask is None
            and past.length > 0
            and LEAST_ROOM <= past.room <= self._most
            # whoever watches torch's functions wants to see them, and who takes gradients needs them
            and not torch._C._len_torch_function_stack()
            and not torch.is_grad_enabled()
        )

    def __call__(
        self, x: Float[Tensor, "1 1 model_dim"], places: Places, past: KeyValues
    ) -> Float[Tensor, "1 1 vocabulary"]:
        """The logits after the token; its keys and values are entered into `past`, whose `length` is not moved on."""
        inputs = [x, *(places.angles or ()), self._counter[: past.length]]
        for pair in past.layers:
            inputs += pair
        logits, queries, contexts = self._loader.run(inputs + self._weights)
        if past.queries is not None:
            past.queries.add_run(queries, contexts)
        return logits


def compiled_step(module: GPT) -> CompiledStep:
    """The step of a model, made for its sizes where the cache has none, which takes about a minute.

    Raises RegardError for a model elsewhere than on a CPU, and where there is no C++ compiler.
    """
    if (device := module.embedding.weight.device.type) != "cpu":
        raise RegardError(f"a step is compiled for a CPU, and this model is on {device}; leave out compile")
    # dropout is no part of it
    module.eval()
    path = path_of(module)
    if not path.exists():
        check_compiler("compiling a model's step", "leave out compile")
        path.parent.mkdir(parents=True, exist_ok=True)
        logger.info("compiling a step of this model, which takes about a minute and is done once")
        # whole or not at all, whoever else compiles the same
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            _compile(module, Path(folder) / path.name)
            os.replace(Path(folder) / path.name, path)
    return CompiledStep(module, path)


def path_of(module: GPT) -> Path:
    """Where the step of a model is kept: by its sizes, and by all that what is compiled depends on."""
    folder = Path(regard.__file__).parent
    sources = [path.read_bytes() for name in SOURCES for path in sorted((folder / name).glob("*.py"))]
    facts = [
        *(torch.__version__, platform.machine(), torch.backends.cpu.get_cpu_capability(), repr(module.config)),
        *(f"{name} {tuple(each.shape)} {each.stride()} {each.dtype}" for name, each in _weights(module).items()),
    ]
    digest = hashlib.sha256(b"\0".join([*sources, *(fact.encode() for fact in facts)])).hexdigest()
    return cache_dir() / "compiled" / f"{digest[:32]}.pt2"


def _weights(module: GPT) -> dict[str, Tensor]:
    return {name: each.detach() for name, each in (*module.named_parameters(), *module.named_buffers())}


@final
class _Step(nn.Module):
    """A step as torch traces it: the model's own blocks, with weights and cache given from outside."""

    def __init__(self, module: GPT, names: Sequence[str]) -> None:
        super().__init__()
        # not as a part of this module, whose weights would then be constants
        self._blocks = [_Blocks(module)]
        self._names = names

    def forward(
        self, x: Tensor, angles: list[Tensor], counter: Tensor, layers: list[list[Tensor]], weights: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        past = KeyValues.of([(keys, values) for keys, values in layers], counter.shape[0], Queries())
        assert past.queries is not None
        given = {f"module.{name}": weight for name, weight in zip(self._names, weights, strict=True)}
        places = Places((angles[0], angles[1]) if angles else None, None)
        logits = functional_call(self._blocks[0], given, (x, places, past))
        queries, contexts = zip(*past.queries.layers(), strict=True)
        return logits, torch.stack(queries), torch.stack(contexts)


@final
class _Blocks(nn.Module):
    def __init__(self, module: GPT) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, places: Places, past: KeyValues) -> Tensor:
        return self.module.through(x, places, past).logits


@torch.no_grad()
def _compile(module: GPT, path: Path) -> None:
    past = KeyValues(ROOM)
    module(torch.zeros(1, TOKENS, dtype=torch.long), past)
    x, places = module.embedded(torch.zeros(1, 1, dtype=torch.long), past)
    weights = _weights(module)
    layers = [[keys.clone(), values.clone()] for keys, values in past.layers]
    angles = [part.clone() for part in places.angles or ()]
    given = (x, angles, torch.empty(TOKENS, dtype=torch.bool), layers, list(weights.values()))
    most = min(module.config.max_length, LONGEST)
    room, length = torch.export.Dim("room", min=LEAST_ROOM, max=most), torch.export.Dim("length", min=1, max=most - 1)
    shapes = (None, [None] * len(angles), {0: length}, [[{2: room}] * 2] * len(layers), [None] * len(weights))
    with warnings.catch_warnings():
        # torch's own, of itself
        warnings.simplefilter("ignore")
        traced = torch.export.export(_Step(module, list(weights)).eval(), given, dynamic_shapes=shapes, strict=False)
        settings: dict[str, Any] = {"cpp.dynamic_threads": True}
        torch._inductor.aoti_compile_and_package(traced, package_path=str(path), inductor_configs=settings)
