"""A model's own code run with parts of its input replaced, and with its norms frozen.

A norm divides by a scale that it computes of its input. Frozen, as it scaled in a real run, it is linear, and what it
makes of a sum is the sum of what it makes of the parts (Elhage et al. 2021, "A mathematical framework for transformer
circuits").
"""

import contextlib
import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.reading.capture import session

# largest error of what is to be the same, relative to its largest number
TOLERANCE = 1e-5
# a norm's gain is read off so large an input that its epsilon is nothing beside it
PROBE = 1e3


class Hooks(contextlib.ExitStack):
    """Hooks on modules, for what this thread runs, until it closes."""

    def before(self, module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> None:
        """Have `change` see what a module is given, its first tensor of numbers, and put something in its place."""
        own = threading.get_ident()

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if threading.get_ident() != own:
                return None
            given = list(enumerate(args)) + list(kwargs.items())
            found = next((name for name, each in given if isinstance(each, Tensor) and each.is_floating_point()), None)
            if found is None:
                return None
            with session.unobserved():
                changed = change(args[found] if isinstance(found, int) else kwargs[found])
            if changed is None:
                return None
            if isinstance(found, int):
                return (*args[:found], changed, *args[found + 1 :]), kwargs
            return args, kwargs | {found: changed}

        self.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(self, module: nn.Module, change: Callable[[Tensor, Tensor], Tensor | None]) -> None:
        """Have `change` see what a module was given and gave, and put something in the place of the latter."""
        own = threading.get_ident()

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            given = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
            gave = output[0] if isinstance(output, tuple) else output
            if threading.get_ident() != own or not isinstance(given, Tensor) or not isinstance(gave, Tensor):
                return None
            with session.unobserved():
                changed = change(given, gave)
            return changed if changed is None or not isinstance(output, tuple) else (changed, *output[1:])

        self.callback(module.register_forward_hook(hook, with_kwargs=True).remove)

    def freeze(self, block: nn.Module, apart: Iterable[nn.Module]) -> None:
        """Have the norms of a block scale all items of a batch as they scale the last, but for those within `apart`."""
        inner = {id(each) for part in apart for each in part.modules()}
        for each in block.modules():
            if is_norm(each) and id(each) not in inner:
                self.after(each, lambda x, y, norm=each: _frozen(norm, x, y))


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm, by its class's name."""
    return "norm" in type(module).__name__.lower() and not any(True for _ in module.children())


def _frozen(norm: nn.Module, x: Float[Tensor, "item ... dim"], y: Float[Tensor, "item ... dim"]) -> Tensor | None:
    """gain · x / scale + bias with the scale of the last item, less x's mean where the norm centres.

    None where the norm is of another sort: what it makes then is refused as not linear.
    """
    size = x.shape[-1]
    # as many 1 as −1, or 1, 1 and −2: of mean 0
    signs = torch.ones(size, dtype=x.dtype, device=x.device)
    signs[1::2] = -1
    if size % 2:
        signs[-3:] = torch.tensor([1.0, 1.0, -2.0])[:size]
    probe = (PROBE * signs).expand_as(x[-1:])
    bias = type(norm).forward(norm, torch.zeros_like(x[-1:])).double()
    gain = (type(norm).forward(norm, probe).double() - bias) / signs * signs.square().mean().sqrt()
    for centres in (False, True):
        centred = x.double() - (x.double().mean(-1, keepdim=True) if centres else 0.0)
        scaled = gain * centred
        wanted = y[-1:].double() - bias
        scale = (scaled[-1:] * wanted).sum(-1, keepdim=True) / scaled[-1:].square().sum(-1, keepdim=True)
        if error_of(scaled[-1:] * scale, wanted) <= TOLERANCE:
            return (scaled * scale + bias).to(y.dtype)
    return None


def error_of(found: Any, wanted: Tensor) -> float:
    """The largest error, relative to the largest number."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))
