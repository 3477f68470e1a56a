"""Products with rounded weights, beside the same products in float64."""

import pytest
import torch

from regard.errors import RegardError
from regard.kernels.quantised import Int4Linear, Int8Linear, quantised


@pytest.mark.parametrize("rows", [1, 4, 7, 17])
@pytest.mark.parametrize("outputs", [1, 3, 16, 33])
@pytest.mark.parametrize("inputs", [1, 8, 15, 16, 24, 100, 576])
def test_a_product_with_8_bits_is_near_that_with_all(inputs, outputs, rows):
    generator = torch.Generator().manual_seed(inputs + outputs + rows)
    weight = torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    given = torch.randn(2, rows, inputs, generator=generator)[:1].bfloat16()
    wanted = given.double() @ weight.double().T + bias.double()
    with torch.inference_mode():
        found = Int8Linear(weight, bias)(given)
    # half a level of each weight, and what bfloat16 rounds of scales, bias and sums
    bound = weight.abs().amax(dim=1) / 254 * given.float().abs().sum(-1, keepdim=True) + 0.02 * (1 + wanted.abs())
    assert found.shape == (1, rows, outputs)
    assert ((found.double() - wanted).abs() <= bound).all()


def test_a_weight_of_8_bits_is_the_nearest_multiple_of_the_scale_that_is_kept():
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = Int8Linear(weight.float(), None)
    scales = layer.scales.double()[:, None]
    # no number of 8 bits is nearer, but beyond 127 scales
    wanted = weight.clamp(-127 * scales, 127 * scales)
    assert ((layer.weight.double() * scales - wanted).abs() <= scales / 2 * (1 + 1e-6)).all()


@pytest.mark.parametrize("rows", [1, 5, 40, 300])
def test_a_product_with_4_bits_is_near_that_with_all(rows):
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(48, 96, generator=generator)
    given = torch.randn(rows, 96, generator=generator).bfloat16()
    wanted = given.double() @ weight.double().T
    with torch.inference_mode():
        found = Int4Linear(weight, None)(given)
    groups = weight.unflatten(1, (3, 32))
    half_levels = ((groups.amax(-1) - groups.amin(-1)) / 30).repeat_interleave(32, dim=1)
    bound = (
        given.float().abs() @ half_levels.T + 0.02 * (1 + wanted.abs()) + 0.02 * given.float().abs().sum(-1)[:, None]
    )
    assert ((found.double() - wanted).abs() <= bound).all()


def test_many_rows_have_the_same_4_bits_as_few():
    weight = torch.randn(48, 96, generator=torch.Generator().manual_seed(1)) * 3 + 1
    layer = Int4Linear(weight, None)
    identity = torch.eye(96, dtype=torch.bfloat16)
    with torch.inference_mode():
        few, many = layer(identity), layer(torch.cat([identity] * 3))
    # the weight itself, which is rounded to bfloat16 once
    torch.testing.assert_close(many[:96], few, rtol=2**-7, atol=2**-8)
    assert torch.equal(many[:96], many[96:192])


def test_weights_that_4_bits_do_not_fit_have_8():
    assert isinstance(quantised(torch.randn(48, 100), None, "int4"), Int8Linear)
    assert isinstance(quantised(torch.randn(40, 96), None, "int4"), Int8Linear)
    assert isinstance(quantised(torch.randn(48, 96), None, "int4"), Int4Linear)
    assert isinstance(quantised(torch.randn(48, 96), None, "int8"), Int8Linear)


def test_rounded_weights_are_for_a_cpu():
    with pytest.raises(RegardError, match="int8 weights are for a CPU; on meta load bfloat16"):
        quantised(torch.randn(16, 16, device="meta"), None, "int8")
