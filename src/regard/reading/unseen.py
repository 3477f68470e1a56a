"""Layers that never attended in a way that was seen: a reading names them too."""

from collections.abc import Collection
from typing import Any

Place = tuple[str, int]


def name_unseen(model: Any, wanted: Collection[int] | None, read: Collection[Place], refused: dict[Place, str]) -> None:
    """Enter such layers of a model into what was refused, as far as its configuration counts them."""
    config = getattr(model, "config", None)
    if config is None:
        return
    known = {*read, *refused}
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    if getattr(config, "is_encoder_decoder", False):
        counts = {
            "encoder": _count(config, "encoder_layers", "num_encoder_layers", "num_layers", "num_hidden_layers"),
            "decoder": _count(config, "decoder_layers", "num_decoder_layers", "num_layers", "num_hidden_layers"),
        }
        # only where nothing is known of a side: counts of parts that several families put together differ
        counts = {kind: count for kind, count in counts.items() if all(name != kind for name, _ in known)}
    else:
        kinds = {kind for kind, _ in known} & {"decoder", "encoder"}
        if len(kinds) > 1 or (not kinds and any(kind == "vision" for kind, _ in known)):
            return
        can_generate = getattr(model, "can_generate", lambda: False)()
        counts = {next(iter(kinds), "decoder" if can_generate else "encoder"): _count(text, "num_hidden_layers")}
    sorts = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or ()
    for kind, count in counts.items():
        for number in range(count):
            if (kind, number) not in known and (wanted is None or number in wanted):
                told = f" ({sorts[number]})" if number < len(sorts) else ""
                refused[kind, number] = f"it{told} did not attend by a softmax over keys that could be seen"


def _count(config: Any, *names: str) -> int:
    return next((value for name in names if isinstance(value := getattr(config, name, None), int)), 0)
