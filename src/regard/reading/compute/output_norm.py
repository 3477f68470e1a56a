"""What a key adds to a module's output holds only where the context itself is what the output projection is given.

A gate or a norm between them would make it another figure. So the statistic is withheld until the projection has run.
"""

import contextlib
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from regard.reading.call import AttentionCall
from regard.reading.capture.session import unobserved
from regard.reading.compute.statistics import output_projection
from regard.reading.runs import Piece

NAME = "output_norm"
STANDS_BETWEEN = "its context is not what its output projection is given: a gate or a norm stands between"


def prove(call: AttentionCall, pieces: dict[int, Piece]) -> list[RemovableHandle]:
    """Keep `output_norm` of a call only if its context is what the projection is given next.

    The hooks that find out are to be removed when the model's run ends.
    """
    held = {item: piece.row_statistics[NAME] for item, piece in pieces.items() if NAME in piece.row_statistics}
    # torch's own module is proved by its output
    if not held or isinstance(call.module, nn.MultiheadAttention):
        return []
    for item in held:
        del pieces[item].row_statistics[NAME]
        pieces[item].left_out[NAME] = STANDS_BETWEEN
    module, _ = output_projection(call)
    context = call.context.transpose(1, 2)

    def compare(_: nn.Module, args: tuple[Any, ...]) -> None:
        hook.remove()
        # a watch never harms a run: what cannot be compared is not proved
        with unobserved(), contextlib.suppress(RuntimeError, TypeError, AttributeError, LookupError, MemoryError):
            if torch.equal(args[0].detach().reshape(-1), context.to(args[0].dtype).reshape(-1)):
                for item, table in held.items():
                    pieces[item].row_statistics[NAME] = table
                    del pieces[item].left_out[NAME]

    hook = module.register_forward_pre_hook(compare)
    return [hook]
