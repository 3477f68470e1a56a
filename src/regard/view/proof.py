"""What was read, what proves it, and what was refused, in a line."""

from regard.reading.reading import Reading


def proof(reading: Reading) -> str:
    """Layers, checked rows with their largest error, and each reason for a refusal with the layers that it is of."""
    # what is wrong with a refused layer is its reason
    checks = [check for place, check in reading.checks.items() if place in reading.maps]
    errors = [max(check.row_sum_error, check.context_error) for check in checks]
    rows = sum(check.rows for check in checks)
    where = ", ".join(f"{len(reading.layers(kind))} {kind}" for kind in reading.kinds)
    told = f"read: {where} layers; checked: {rows:,} rows sum to 1 and give the model's own context, off by at most "
    reasons: dict[tuple[str, str], list[str]] = {}
    for (kind, layer), why in sorted(reading.refused.items()):
        reasons.setdefault((kind, why), []).append(str(layer))
    refused = (f"; refused {kind} {', '.join(layers)}: {why}" for (kind, why), layers in reasons.items())
    return f"{told}{max(errors, default=0):.0e}{''.join(refused)}"
