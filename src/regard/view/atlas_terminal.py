"""An atlas as text, for a terminal of any colour or of none."""

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from regard.reading.atlas import Atlas
from regard.reading.atlas_difference import AtlasDifference
from regard.reading.measures import MEASURES
from regard.view.words import printable

# heads of each role that are named
SHOWN = 3
CHANGES = 10
ROLES = {name: measure for name, measure in MEASURES.items() if measure.role}
# of a head on the map, by its first role
LETTERS = {
    "first_token": "s",
    "previous_token": "p",
    "duplicate_token": "d",
    "prefix_matching": "I",
    "retrieval": "R",
    "local": "l",
    "own_segment": "g",
}
NONE = "·"


def atlas_view(atlas: Atlas) -> Group:
    """How many heads do what, the strongest of each, and a map of all."""
    tally = atlas.tally
    cut = f", {tally.cut:,} of them cut to {atlas.settings['max_tokens']} tokens" if tally.cut else ""
    title = f"{printable(atlas.model)}: {tally.prompts:,} texts{cut}, {tally.tokens:,} tokens"
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("")
    table.add_column("heads that are")
    table.add_column("count", justify="right")
    table.add_column("by chance", justify="right")
    table.add_column("the strongest, with their mean")
    for name, measure in ROLES.items():
        found, mean = atlas.heads(name), atlas.mean(name)
        named = [f"{layer}.{head} {_percent(mean[atlas.layers.index(layer), head])}" for layer, head in found[:SHOWN]]
        chance = atlas.chance(name)
        table.add_row(LETTERS[name], measure.role, str(len(found)), _percent(float(chance.mean())), "  ".join(named))
    parts = [Text(title, "bold"), Text(), table, Text(), _map(atlas)]
    parts += [Text(f"layer {layer} was not measured: {why}", "yellow") for layer, why in atlas.refused.items()]
    if (effects := atlas.effects) is not None:
        strongest = ", ".join(
            f"{layer}.{head} {effects.mean[atlas.layers.index(layer), head]:+.2f}"
            for layer, head in effects.strongest(SHOWN)
        )
        parts += [Text(), Text(f"without it a text loses most nats, of {len(effects.values)} texts: {strongest}")]
    return Group(*parts)


def difference_view(difference: AtlasDifference) -> Group:
    """How many heads do what before and after, and the heads that changed most."""
    before, after = printable(difference.before.model), printable(difference.after.model)
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for column in ("heads that are", before, after):
        table.add_column(column, justify="left" if column == "heads that are" else "right")
    for name, (one, other) in difference.roles().items():
        table.add_row(ROLES[name].role, str(one), str(other))
    parts = [Text(), Text(f"{before} → {after}", "bold"), Text(), table]
    if not difference.has_same_shape:
        return Group(*parts, Text("they have other layers or heads, so that no head of one is a head of the other"))
    changes = difference.strongest(CHANGES)
    if not changes:
        return Group(*parts, Text("no head changed more than chance explains"))
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for column in ("head", "measure", "before", "after", "change, 95 %"):
        table.add_column(column, justify="left" if column in ("head", "measure") else "right")
    for change in changes:
        low, high = (f"{100 * end:+.1f}" for end in (change.low, change.high))
        figures = (_percent(change.before), _percent(change.after), f"{low} to {high} %")
        table.add_row(f"{change.layer}.{change.head}", ROLES[change.measure].role, *figures)
    return Group(*parts, Text(), Text("the largest changes"), table)


def _map(atlas: Atlas) -> Text:
    """A letter for each head: layers to the right, heads down."""
    roles = atlas.roles()
    side = len(str(max(atlas.tally.heads) - 1))
    lines = [" " * side + " " + "".join(str(layer)[-1] for layer in atlas.layers) + "  layers →, heads ↓"]
    for head in range(max(atlas.tally.heads)):
        row = [layer[head] if head < len(layer) else None for layer in roles]
        letters = "".join(" " if named is None else LETTERS[named[0]] if named else NONE for named in row)
        lines.append(f"{head:>{side}} {letters}")
    return Text("\n".join(lines))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"
