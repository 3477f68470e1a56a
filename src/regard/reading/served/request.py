"""What a serving engine hands over of one request, checked before anything is computed from it.

Engines such as vLLM keep keys and values in the blocks of a pool, and a block table lists those of a request: Kwon et
al. 2023, "Efficient memory management for large language model serving with PagedAttention", section 4.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.errors import RegardError
from regard.reading.call import AttentionCall, Visibility
from regard.reading.served.checks import positive, require, tensor, whole, whole_numbers
from regard.reading.served.files import LAYER_FACTS, read, write

DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}
# in a block table, a block that the engine gave back because every later row's window ends before it
FREED = -1
# no tokenizer has ids beyond
MOST_IDS = 2**31
AXES = {
    "query": ("row", "head", "dim"),
    "key_blocks": ("block", "slot", "key head", "dim"),
    "value_blocks": ("block", "slot", "key head", "value dim"),
    "block_table": ("block of the request",),
    "context": ("row", "head", "value dim"),
    "sinks": ("head",),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class ServedLayer:
    """What the attention kernel of one layer was given for the rows to be read, and what it returned.

    Parameters
    ----------
    number
        The model's own number of the layer.
    query
        [row, head, dim], after normalisation and rotary embedding, as the kernel got them.
    key_blocks, value_blocks
        [block, slot, key head, dim]: the engine's pool, or any part of it that `block_table` counts in. Values may have
        another dim.
    block_table
        [block of the request]: which blocks hold the request's positions, in order; −1 for a block that was freed
        because no row that is read sees it.
    context
        [row, head, value dim]: what the kernel returned, before the output projection.
    scale
        What scores are multiplied by.
    softcap
        Scores become softcap · tanh(scores / softcap).
    window
        How many positions a row sees, its own among them; all before it where this is None.
    sinks
        [head]: a score outside the sequence that takes a part of every row.
    """

    number: int
    query: Any
    key_blocks: Any
    value_blocks: Any
    block_table: Any
    context: Any
    scale: float
    softcap: float | None = None
    window: int | None = None
    sinks: Any = None

    def tables(self) -> dict[str, Any]:
        """Its arrays by name; no sinks where there are none."""
        return {name: getattr(self, name) for name in AXES if name != "sinks" or self.sinks is not None}


@dataclass(frozen=True, eq=False, kw_only=True)
class ServedRequest:
    """One request as an engine served it; arrays are numpy's or torch's, on any device.

    Parameters
    ----------
    model
        The model's name.
    ids
        Token ids of prompt and answer.
    prompt_tokens
        How many of them are the prompt.
    num_keys
        How many of them were fed, and so have keys: all, or all but the last, which was written and not fed back.
    rows
        Positions of the rows that are handed over, ascending; position t − 1 wrote token t.
    layers
        Each layer that is to be read.
    block_size
        Slots of a block.
    ended
        Whether the last id only ends the answer.
    dtype
        The dtype that the kernel computed in, such as "bfloat16", where arrays are handed over in a wider one.
    """

    model: str
    ids: Any
    prompt_tokens: int
    num_keys: int
    rows: Any
    layers: Any
    block_size: int
    ended: bool = False
    dtype: str | None = None

    def checked(self) -> "ServedRequest":
        """The same with lists for ids and rows, and tensors for the tables of layers.

        Raises RegardError for what contradicts itself: it names the layer, what it has and what was expected.
        """
        require(isinstance(self.model, str), f"model must be a name, not {self.model!r}")
        ids = whole_numbers(self.ids, "ids")
        require(bool(ids), "ids are empty; hand over the token ids of prompt and answer")
        wrong = next((id for id in ids if not 0 <= id < MOST_IDS), None)
        require(wrong is None, f"{wrong} is no token id")
        whole(self.num_keys, "num_keys", least=1)
        require(
            self.num_keys in (len(ids) - 1, len(ids)),
            f"num_keys is {self.num_keys}; of {len(ids)} ids either all have keys or all but the last",
        )
        whole(self.prompt_tokens, "prompt_tokens", least=1)
        require(
            self.prompt_tokens <= self.num_keys,
            f"prompt_tokens is {self.prompt_tokens}, and only {self.num_keys} tokens have keys",
        )
        require(isinstance(self.ended, bool), f"ended must be true or false, not {self.ended!r}")
        require(not self.ended or self.prompt_tokens < len(ids), "ended is true, and there is no answer to end")
        require(
            self.dtype is None or (isinstance(self.dtype, str) and self.dtype in DTYPES),
            f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}",
        )
        whole(self.block_size, "block_size", least=1)
        rows = whole_numbers(self.rows, "rows")
        require(bool(rows), "rows are empty; hand over the queries of at least one row")
        for row, after in zip(rows, [*rows[1:], None], strict=True):
            require(
                0 <= row < self.num_keys, f"row {row} is out of range; {self.num_keys} tokens were fed, counted from 0"
            )
            require(after is None or row < after, f"rows must ascend, and {row} comes before {after}")
        require(
            isinstance(self.layers, list | tuple) and all(isinstance(each, ServedLayer) for each in self.layers),
            "layers must be a list of ServedLayer",
        )
        require(bool(self.layers), "layers are empty; hand over at least one")
        request = replace(self, ids=ids, rows=rows)
        layers = [_checked_layer(request, each) for each in self.layers]
        numbers = [each.number for each in layers]
        twice = next((number for number in numbers if numbers.count(number) > 1), None)
        require(twice is None, f"layer {twice} is there twice")
        return replace(request, layers=layers)

    def save(self, path: str | Path) -> None:
        """Write the request as one safetensors file, of the engine's pool its own positions alone.

        Blocks are numbered anew, in order. Raises RegardError for a request that contradicts itself.
        """
        request = self.checked()
        tensors = {"ids": torch.tensor(request.ids), "rows": torch.tensor(request.rows)}
        layers = {}
        for layer in request.layers:
            tables = {**layer.tables(), **_own_blocks(request, layer)}
            tensors |= {f"layer.{layer.number}.{name}": table for name, table in tables.items()}
            layers[str(layer.number)] = {name: getattr(layer, name) for name in LAYER_FACTS}
        names = ("model", "prompt_tokens", "num_keys", "block_size", "ended", "dtype")
        write({**{name: getattr(request, name) for name in names}, "layers": layers}, tensors, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "ServedRequest":
        """What `save` or an engine wrote. Raises RegardError for any other file, and one that contradicts itself."""
        facts, own, layers = read(Path(path))
        try:
            for name in ("ids", "rows"):
                require(name in own, f"there is no tensor {name!r}")
            for number, tables in layers.items():
                missing = {*AXES} - {"sinks"} - {*tables}
                require(not missing, f"layer {number}: there is no {', '.join(sorted(missing))}")
                unknown = {*tables} - {*AXES}
                require(not unknown, f"layer {number}: there is an unknown {', '.join(sorted(unknown))}")
            served = [
                ServedLayer(number=each, **tables, **facts["layers"][str(each)]) for each, tables in layers.items()
            ]
            return cls(**own, **{**facts, "layers": served}).checked()
        except RegardError as error:
            raise RegardError(f"{path}: {error}") from None

    @property
    def is_whole(self) -> bool:
        """Whether the rows of all tokens with keys are there; asked of a checked request."""
        return len(self.rows) == self.num_keys


class Gathered(NamedTuple):
    """Keys and values of a request, [position, key head, dim]; 0 where a block was freed."""

    key: Tensor
    value: Tensor


def gathered(request: ServedRequest, layer: ServedLayer) -> Gathered:
    """What the block table lists, in order, up to the request's last key; of a checked request."""
    table, freed = layer.block_table, layer.block_table == FREED

    def gather(blocks: Tensor) -> Tensor:
        own = blocks.index_select(0, table.clamp(min=0).to(blocks.device))
        if freed.any():
            own[freed.to(own.device)] = 0
        return own.flatten(0, 1)[: request.num_keys]

    return Gathered(gather(layer.key_blocks), gather(layer.value_blocks))


def _own_blocks(request: ServedRequest, layer: ServedLayer) -> dict[str, Tensor]:
    """Blocks that hold the request's positions, in order, and their table: other slots, which are not its, are 0."""
    size, table = request.block_size, layer.block_table.clone()
    kept = table != FREED
    table[kept] = torch.arange(int(kept.sum()))
    spare = len(table) * size - request.num_keys

    def blocks(own: Tensor) -> Tensor:
        filled = torch.nn.functional.pad(own, (0, 0, 0, 0, 0, spare))
        return filled.unflatten(0, (len(table), size))[kept.to(own.device)]

    key, value = gathered(request, layer)
    return {"key_blocks": blocks(key), "value_blocks": blocks(value), "block_table": table}


def call_of(request: ServedRequest, layer: ServedLayer) -> AttentionCall:
    """The attention call of a layer of a checked request; its queries are the rows that were handed over.

    Raises RegardError for a number that is NaN or infinite, and for one that the kernel's dtype cannot hold.
    """
    where = f"layer {layer.number}"
    key, value = gathered(request, layer)
    found = {"query": layer.query, "key_blocks": key, "value_blocks": value, "context": layer.context}
    dtype = None if request.dtype is None else DTYPES[request.dtype]
    for name, table in found.items():
        require(bool(torch.isfinite(table).all()), f"{where}: {name} has a NaN or infinite number")
        if dtype is not None and table.dtype != dtype:
            narrow = table.to(dtype)
            require(
                torch.equal(narrow.to(table.dtype), table),
                f"{where}: {name} has numbers that {request.dtype} cannot hold; name the dtype that the kernel "
                "computed in",
            )
            found[name] = narrow
    if layer.sinks is not None:
        require(not bool(torch.isnan(layer.sinks).any()), f"{where}: sinks have a NaN")
    query, key, value, context = (table.transpose(0, 1)[None] for table in found.values())
    return AttentionCall(
        module=None,
        path=f"layers.{layer.number}",
        query=query,
        key=key,
        value=value,
        context=context,
        scale=float(layer.scale),
        softcap=layer.softcap,
        sinks=layer.sinks,
        visibilities=(_visibility(request, layer),),
        causal=True,
    )


def _visibility(request: ServedRequest, layer: ServedLayer) -> Visibility:
    rows, device = request.rows, layer.query.device
    if rows[-1] - rows[0] == len(rows) - 1:
        return Visibility(causal=rows[0], window=layer.window)
    last, keys = torch.tensor(rows, device=device)[:, None], torch.arange(request.num_keys, device=device)
    seen = keys <= last
    if layer.window is not None:
        seen &= keys > last - layer.window
    return Visibility(mask=seen[None, None])


def _checked_layer(request: ServedRequest, layer: ServedLayer) -> ServedLayer:
    whole(layer.number, "the number of a layer", least=0)
    where = f"layer {layer.number}"
    tables = {name: tensor(table, f"{where}: {name}") for name, table in layer.tables().items()}
    for name, table in tables.items():
        axes = ", ".join(AXES[name])
        shape = list(table.shape)
        require(table.dim() == len(AXES[name]), f"{where}: {name} must be [{axes}], not of the shape {shape}")
        require(0 not in shape, f"{where}: {name} is empty: its shape is {shape}")
        if name != "block_table":
            require(
                table.dtype in DTYPES.values(),
                f"{where}: {name} must be of {', '.join(DTYPES)}, not {table.dtype}; dequantise it first",
            )
    query, key, value = (tables[name] for name in ("query", "key_blocks", "value_blocks"))
    heads, dim, key_heads = query.shape[1], query.shape[2], key.shape[2]
    require(heads % key_heads == 0, f"{where}: {heads} heads of the query cannot share {key_heads} key heads")
    wanted = {
        "query": (len(request.rows), heads, dim),
        "key_blocks": (len(key), request.block_size, key_heads, dim),
        "value_blocks": (*key.shape[:3], value.shape[3]),
        "context": (len(request.rows), heads, value.shape[3]),
        "sinks": (heads,),
    }
    for name, shape in wanted.items():
        if name in tables:
            found = tuple(tables[name].shape)
            axes = ", ".join(AXES[name])
            require(found == shape, f"{where}: {name} [{axes}] has the shape {list(found)}, not {list(shape)}")
    devices = {str(tables[name].device) for name in tables if name != "block_table"}
    require(len(devices) == 1, f"{where}: its arrays are on several devices: {', '.join(sorted(devices))}")
    positive(layer.scale, f"{where}: scale")
    if layer.softcap is not None:
        positive(layer.softcap, f"{where}: softcap")
    if layer.window is not None:
        whole(layer.window, f"{where}: window", least=1)
    tables["block_table"] = _checked_table(request, layer, tables["block_table"], len(key))
    return replace(layer, **tables)


def _checked_table(request: ServedRequest, layer: ServedLayer, table: Tensor, count: int) -> Tensor:
    """The block table on the CPU, each of whose numbers is a block of its own or freed."""
    where, size = f"layer {layer.number}: block_table", request.block_size
    require(
        not table.is_floating_point() and not table.is_complex() and table.dtype != torch.bool,
        f"{where} must be whole numbers, not {table.dtype}",
    )
    table = table.to("cpu", torch.int64)
    expected = -(-request.num_keys // size)
    require(
        len(table) == expected,
        f"{where} has {len(table)} blocks; {request.num_keys} keys in blocks of {size} take {expected}",
    )
    # the first position that any row sees
    first = 0 if layer.window is None else max(0, request.rows[0] - layer.window + 1)
    known: set[int] = set()
    for place, block in enumerate(table.tolist()):
        if block == FREED:
            require(
                (place + 1) * size <= first,
                f"{where} has no block for positions {place * size} to {(place + 1) * size - 1}, which row "
                f"{max(request.rows[0], place * size)} sees",
            )
            continue
        require(0 <= block < count, f"{where} names block {block}; there are {count}, counted from 0")
        require(block not in known, f"{where} names block {block} twice")
        known.add(block)
    return table
