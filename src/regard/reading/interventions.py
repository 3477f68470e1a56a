"""What a head did, by running the model with it changed: ablated, or patched with what it gave on another text.

The context of a head, the sum of its weighted values, is overwritten the moment the kernel has given it, before the
output projection. That is where the paths through different heads are still apart (Elhage et al. 2021, "A mathematical
framework for transformer circuits"), whatever projections are fused and however many heads share a key.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regard.errors import RegardError
from regard.models.gpt import GPT
from regard.reading.answer_run import run_foreign
from regard.reading.call import AttentionCall
from regard.reading.layer_watch import LayerWatch
from regard.reading.options import refuse_compiled

Head = tuple[int, int]
GRADIENTS = "gradients cannot be taken through changed heads; run the model under torch.no_grad()"


class Intervention(LayerWatch):
    """A watch that may write over the contexts of the layers that it sees."""

    sees_again = True
    intervenes = True

    def check(self) -> None:
        """Raises RegardError if something could not be changed."""
        if self.why is not None:
            raise RegardError(f"the model ran unchanged, or changed in part: {self.why}")

    def saw(self, call: AttentionCall) -> None:
        if torch._C._current_graph_task_id() != -1:
            # gradient checkpointing runs it again
            self.why = self.why or GRADIENTS
            return
        super().saw(call)


def written_over(call: AttentionCall) -> str | None:
    """Why what is written to a call's context would not reach the model."""
    if call.refused is not None:
        return call.refused
    if isinstance(call.module, nn.MultiheadAttention) or call.output is None:
        return "torch's own module keeps its context to itself"
    if call.context.untyped_storage().data_ptr() != call.output.untyped_storage().data_ptr():
        return "its context is a copy of what the model goes on with"
    if call.output.requires_grad:
        call.output.register_hook(_refuse_gradient)
    return None


def _refuse_gradient(_: Tensor) -> None:
    raise RegardError(GRADIENTS)


# which model, which heads


def module_of(model: Any) -> nn.Module:
    module = model if isinstance(model, nn.Module) else getattr(model, "module", None)
    if not isinstance(module, nn.Module):
        raise RegardError(f"what is changed must be a model or a torch module, not {type(model).__name__}")
    refuse_compiled(module)
    if getattr(module, "step", None) is not None:
        raise RegardError("a compiled model cannot be changed while it runs; load it anew")
    return module


def heads_of(heads: Any, module: nn.Module, kind: str) -> list[Head]:
    """Heads that are pairs of whole numbers, none given twice, as far as the model's configuration knows them."""
    found: list[Head] = []
    for each in [*heads] if isinstance(heads, Sequence | set | frozenset) and not isinstance(heads, str) else [heads]:
        pair = tuple(each) if isinstance(each, Sequence) and not isinstance(each, str) else ()
        if len(pair) != 2 or not all(isinstance(part, int) and not isinstance(part, bool) for part in pair):
            raise RegardError(f"heads are pairs of a layer and a head, such as [(5, 1), (7, 3)], not {each!r}")
        if min(pair) < 0:
            raise RegardError(f"layers and heads are counted from 0; {each!r} is none")
        found.append(pair)
    if len(set(found)) != len(found):
        raise RegardError("a head is given twice")
    shapes = _known(module) if kind == "decoder" else {}
    for layer, head in found if shapes else ():
        check_head(layer, head, shapes, kind)
    return found


def _known(module: nn.Module) -> dict[int, int]:
    """The heads of each layer, where a decoder's configuration says how many there are."""
    config: Any = getattr(module, "config", None)
    if getattr(config, "is_encoder_decoder", False) or config is None:
        return {}
    if isinstance(module, GPT):
        count, heads = module.config.num_layers, module.config.num_heads
    else:
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        count, heads = (getattr(text, name, None) for name in ("num_hidden_layers", "num_attention_heads"))
    if not isinstance(count, int) or not isinstance(heads, int):
        return {}
    return dict[int, int].fromkeys(range(count), heads)


def check_head(layer: int, head: int, shapes: Mapping[int, int], kind: str) -> None:
    if layer not in shapes:
        found = ", ".join(map(str, sorted(shapes)))
        raise RegardError(f"there is no {kind} layer {layer} that attends; there are {found}")
    if head >= shapes[layer]:
        raise RegardError(f"{kind} layer {layer} has no head {head}; it has heads 0 to {shapes[layer] - 1}")


@torch.inference_mode()
def run_over(module: nn.Module, ids: Sequence[Sequence[int]]) -> Float[Tensor, "item token vocabulary"]:
    """The logits of a causal language model over tokens, [item, token, vocabulary].

    Raises RegardError in training mode, and where the model is no language model.
    """
    if module.training:
        raise RegardError("the model is in training mode, where dropout hides at random; call model.eval() first")
    device = next((each.device for each in module.parameters() if each.device.type != "meta"), None)
    tokens = torch.tensor(ids, device=device)
    if isinstance(module, GPT):
        return module(tokens).logits
    return run_foreign(module, tokens, None, caches=False, last=0).logits
