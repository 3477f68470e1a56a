import pytest
import torch

from regard.attention.cross_attention import CrossAttention
from regard.attention.self_attention import SelfAttention


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_it_is_scaled_dot_product_attention_from_the_target_to_the_source(batch):
    module = CrossAttention(5, 4).double()
    target = torch.randn(*batch, 3, 5, dtype=torch.float64)
    source = torch.randn(*batch, 7, 5, dtype=torch.float64)
    context, weights = module(target, source)
    expected = torch.nn.functional.scaled_dot_product_attention(
        module.query_proj(target), module.key_proj(source), module.value_proj(source)
    )
    torch.testing.assert_close(context, expected)
    assert weights.shape == (*batch, 3, 7)
    torch.testing.assert_close(weights @ module.value_proj(source), expected)


def test_a_sentence_that_looks_at_itself_gives_self_attention():
    cross, own = CrossAttention(3, 2), SelfAttention(3, 2)
    own.load_state_dict(cross.state_dict())
    inputs = torch.randn(4, 3)
    assert torch.equal(cross(inputs, inputs).context, own(inputs).context)
