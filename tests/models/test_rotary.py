"""Rotary positions against the formula in float64."""

import math

import pytest
import torch

from regard.config import from_dict
from regard.errors import RegardError
from regard.models.rotary import RotaryConfig, angles, frequencies, rotate


def turned(x, position, rates):
    """Each pair as a complex number, times e to the i · position · rate."""
    half = len(x) // 2
    out = [complex(x[i], x[i + half]) * complex(math.cos(position * r), math.sin(position * r)) for i, r in rates]
    return torch.tensor([z.real for z in out] + [z.imag for z in out], dtype=torch.float64)


@pytest.mark.parametrize("head_dim", [2, 6, 64])
@pytest.mark.parametrize("base", [100.0, 10_000.0, 500_000.0])
def test_each_pair_turns_by_its_angle(head_dim, base):
    config = RotaryConfig(base=base)
    x = torch.randn(1, 2, 33, head_dim)
    found = rotate(x, *angles(config, head_dim, 33))
    rates = [(i, base ** (-2 * i / head_dim)) for i in range(head_dim // 2)]
    for head in range(2):
        for position in (0, 1, 7, 32):
            wanted = turned(x[0, head, position].tolist(), position, rates)
            torch.testing.assert_close(found[0, head, position].double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scaling", [{}, {"scaling": "linear", "factor": 3.0}, {"scaling": "llama3", "factor": 8.0}])
def test_a_score_depends_on_the_distance_alone(scaling):
    config = RotaryConfig(**scaling, original_length=16)
    query, key = torch.randn(2, 16, dtype=torch.float64)
    cosines, sines = (part.double() for part in angles(config, 16, 60))
    queries, keys = (rotate(x.expand(1, 1, 60, 16), cosines, sines)[0, 0] for x in (query, key))
    scores = queries @ keys.T
    for distance in (0, 1, 9, 30):
        along = scores.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=1e-4, atol=1e-4)
    assert (scores[0] - scores[0, 0]).abs().max() > 0.1
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(60), rtol=1e-6, atol=1e-6)


def test_linear_scaling_is_as_if_positions_were_nearer():
    plain, stretched = (angles(RotaryConfig(**s), 8, 41) for s in ({}, {"scaling": "linear", "factor": 4.0}))
    for short, long in zip(plain, stretched, strict=True):
        torch.testing.assert_close(long[::4], short[:11], rtol=1e-5, atol=1e-5)


def test_llama3_keeps_short_waves_and_stretches_long_ones():
    """Grattafiori et al. 2024 leave the formula to their code: the mean of both between the two bounds."""
    config = RotaryConfig(
        scaling="llama3", factor=8.0, low_frequency_factor=1.0, high_frequency_factor=4.0, original_length=256
    )
    kinds = set()
    for i, rate in enumerate(frequencies(config, 32).tolist()):
        plain = 10_000.0 ** (-2 * i / 32)
        wave = 2 * math.pi / plain
        if wave < 256 / 4:
            kind, wanted = "kept", plain
        elif wave > 256:
            kind, wanted = "stretched", plain / 8
        else:
            share = (256 / wave - 1) / (4 - 1)
            kind, wanted = "between", (1 - share) * plain / 8 + share * plain
        kinds.add(kind)
        assert rate == pytest.approx(wanted, rel=1e-5)
    assert kinds == {"kept", "stretched", "between"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"base": 1.0}, "base must be above 1"),
        ({"scaling": "yarn"}, "scaling must be one of none, linear, llama3"),
        ({"factor": 0.5}, "factor must be at least 1"),
        ({"scaling": "llama3", "low_frequency_factor": 4.0}, "low_frequency_factor must be less than"),
    ],
)
def test_settings_without_sense_are_told(settings, says):
    with pytest.raises(RegardError, match=says):
        from_dict(RotaryConfig, settings, where="[model.rotary]")
