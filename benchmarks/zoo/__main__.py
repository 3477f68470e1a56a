"""Run every architecture of the zoo once with each implementation and show by which route it attends."""

import argparse
import time
import warnings
from collections.abc import Iterable

import torch
import transformers

from benchmarks import witness
from benchmarks.zoo import ARCHITECTURES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures; by default all")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    settings = parser.parse_args()
    if unknown := set(settings.names) - ARCHITECTURES.keys():
        parser.error(f"the zoo has no {', '.join(sorted(unknown))}")
    transformers.logging.set_verbosity_error()
    # FlexAttention warns that it is not compiled
    warnings.simplefilter("ignore")
    dtype = getattr(torch, settings.dtype)
    for name in settings.names or ARCHITECTURES:
        if dtype not in ARCHITECTURES[name].dtypes:
            print(f"{name:20} does not run in {settings.dtype}")
            continue
        for implementation in ARCHITECTURES[name].implementations:
            _show(name, implementation, dtype)


def _show(name: str, implementation: str, dtype: torch.dtype) -> None:
    architecture = ARCHITECTURES[name]
    start = time.perf_counter()
    model, inputs = architecture.build(implementation, dtype=dtype), architecture.inputs(dtype)
    built = time.perf_counter()
    with torch.compiler.set_stance("force_eager"):
        calls = witness.capture(model, lambda: model(**inputs), kinds=architecture.kinds)
    ran = time.perf_counter()
    missing = _missing(architecture.layers, calls)
    print(
        f"{name:20} {implementation:14} built in {built - start:.2f} s, run in {ran - built:.2f} s",
        f"MISSING {missing}" if missing else "",
    )
    for line in dict.fromkeys(_line(call) for call in calls):
        print("   ", line)
    errors = [witness.context_error(call) for call in calls if call.context is not None and call.scores is None]
    if errors:
        print(f"    truth · value against the context: {max(errors):.1e}")


def _missing(layers: dict[str, tuple[int, ...]], calls: Iterable[witness.Call]) -> set[tuple[str, int]]:
    return {(kind, layer) for kind in layers for layer in layers[kind]} - {(call.kind, call.layer) for call in calls}


def _line(call: witness.Call) -> str:
    shape = "×".join(map(str, (call.num_queries, call.num_keys)))
    told = {name: value for name, value in call.settings.items() if name in witness.TOLD and value is not None}
    words = [
        f"{name}={list(value.shape) if isinstance(value, torch.Tensor) else value}" for name, value in told.items()
    ]
    causal = f"module.is_causal={getattr(call.module, 'is_causal', None)}"
    return " ".join(
        (call.kind, call.route, call.function, type(call.module).__name__, shape, _form(call.mask), causal, *words)
    )


def _form(mask: object) -> str:
    if isinstance(mask, torch.Tensor):
        return f"mask {str(mask.dtype).removeprefix('torch.')}{list(mask.shape)}"
    return f"mask {None if mask is None else type(mask).__name__}"


main()
