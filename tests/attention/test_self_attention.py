import pytest
import torch
from torch import nn

from regard.attention.self_attention import (
    CausalSelfAttention,
    MultiHeadSelfAttention,
    SelfAttention,
    simple_self_attention,
)
from regard.errors import RegardError

# Raschka 2024, "Build a large language model (from scratch)", chapter 3: "Your journey starts with one step"
INPUTS = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)
SIZES = [(1, 1), (1, 5), (3, 7), (2, 13)]


def textbook(module):
    torch.manual_seed(123)
    with torch.no_grad():
        for proj in (module.query_proj, module.key_proj, module.value_proj):
            proj.weight.copy_(torch.rand(3, 2).T)
    return module


def every_step(dim):
    """The four steps over inputs of one size; each ends in as many numbers as it was given."""
    return {
        "simple": simple_self_attention,
        "trainable": SelfAttention(dim, dim),
        "causal": CausalSelfAttention(dim, dim),
        "multi-head": MultiHeadSelfAttention(dim, 2),
    }


STEPS = list(every_step(2))
CAUSAL = ["causal", "multi-head"]


def assert_four_decimals(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=5.1e-5)


def test_simple_attention_of_token_two_is_the_textbooks():
    assert_four_decimals((INPUTS @ INPUTS.T)[1], [0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865])
    context, weights = simple_self_attention(INPUTS)
    assert_four_decimals(weights[1], [0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581])
    assert_four_decimals(context[1], [0.4419, 0.6515, 0.5683])


def test_trainable_attention_with_the_textbooks_matrices_is_the_textbooks():
    context, weights = textbook(SelfAttention(3, 2))(INPUTS)
    assert_four_decimals(weights[1], [0.1500, 0.2264, 0.2199, 0.1311, 0.0906, 0.1820])
    assert_four_decimals(context[1], [0.3061, 0.8210])


def test_masking_scores_is_hiding_weights_and_sharing_the_rest_out():
    all_weights = textbook(SelfAttention(3, 2))(INPUTS).weights
    kept = all_weights.tril()
    causal = textbook(CausalSelfAttention(3, 2))(INPUTS).weights
    torch.testing.assert_close(causal, kept / kept.sum(dim=-1, keepdim=True))


@pytest.mark.parametrize(("batch", "positions"), SIZES)
@pytest.mark.parametrize(("step", "is_causal"), [(SelfAttention, False), (CausalSelfAttention, True)])
def test_a_head_agrees_with_torchs_attention(step, is_causal, batch, positions):
    module = step(5, 3)
    inputs = torch.randn(batch, positions, 5)
    query, key, value = module.query_proj(inputs), module.key_proj(inputs), module.value_proj(inputs)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=is_causal)
    torch.testing.assert_close(module(inputs).context, expected)


@pytest.mark.parametrize(("batch", "positions"), SIZES)
@pytest.mark.parametrize("num_heads", [1, 2, 3, 6])
def test_multi_head_agrees_with_torchs_module(num_heads, batch, positions):
    module = MultiHeadSelfAttention(6, num_heads)
    witness = nn.MultiheadAttention(6, num_heads, bias=False, batch_first=True)
    with torch.no_grad():
        witness.in_proj_weight.copy_(
            torch.cat([module.query_proj.weight, module.key_proj.weight, module.value_proj.weight])
        )
        witness.out_proj.weight.copy_(module.out_proj.weight)
    inputs = torch.randn(batch, positions, 6)
    hidden = torch.ones(positions, positions, dtype=torch.bool).triu(1)
    context, weights = witness(inputs, inputs, inputs, attn_mask=hidden, average_attn_weights=False)
    output = module(inputs)
    torch.testing.assert_close(output.context, context)
    torch.testing.assert_close(output.weights, weights)


def test_one_head_without_joining_is_the_causal_step():
    torch.manual_seed(0)
    module = MultiHeadSelfAttention(3, 1, head_dim=2)
    single = CausalSelfAttention(3, 2)
    single.load_state_dict({name: weight for name, weight in module.state_dict().items() if "out" not in name})
    expected = single(INPUTS)
    output = module(INPUTS)
    torch.testing.assert_close(output.weights[0], expected.weights)
    torch.testing.assert_close(output.context, module.out_proj(expected.context))


@pytest.mark.parametrize("name", CAUSAL)
def test_no_token_depends_on_a_later_one(name):
    module = every_step(4)[name]
    inputs = torch.randn(1, 7, 4, requires_grad=True)
    context = module(inputs).context
    for position in range(7):
        (gradient,) = torch.autograd.grad(context[0, position].sum(), inputs, retain_graph=True)
        seen = gradient[0].abs().sum(dim=-1) > 0
        assert seen.tolist() == [other <= position for other in range(7)]


@pytest.mark.parametrize("name", ["simple", "trainable"])
def test_without_a_mask_every_token_depends_on_every_other(name):
    inputs = torch.randn(1, 5, 4, requires_grad=True)
    every_step(4)[name](inputs).context[0, 0].sum().backward()
    assert (inputs.grad.abs().sum(dim=-1) > 0).all()


@pytest.mark.parametrize(("batch", "positions"), SIZES)
@pytest.mark.parametrize("name", STEPS)
def test_rows_sum_to_one_and_shapes_are_those_promised(name, batch, positions):
    context, weights = every_step(4)[name](torch.randn(batch, positions, 4))
    assert context.shape == (batch, positions, 4)
    heads = (2,) if name == "multi-head" else ()
    assert weights.shape == (batch, *heads, positions, positions)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("name", STEPS)
def test_a_sentence_is_attended_the_same_alone_and_in_a_batch(name):
    step = every_step(4)[name]
    inputs = torch.randn(2, 3, 5, 4)
    together = step(inputs)
    alone = step(inputs[1, 2])
    torch.testing.assert_close(together.context[1, 2], alone.context)
    torch.testing.assert_close(together.weights[1, 2], alone.weights)


@pytest.mark.parametrize("name", STEPS)
def test_a_lone_token_looks_at_itself(name):
    assert (every_step(4)[name](torch.randn(1, 4)).weights == 1).all()


@pytest.mark.parametrize("name", STEPS)
def test_gradients_are_those_of_finite_differences(name):
    step = every_step(4)[name]
    if isinstance(step, nn.Module):
        step.double()
    inputs = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: tuple(step(given)), (inputs,))


@pytest.mark.parametrize(
    "make",
    [lambda rate: CausalSelfAttention(4, 4, dropout=rate), lambda rate: MultiHeadSelfAttention(4, 2, dropout=rate)],
)
def test_dropout_changes_the_context_in_training_only(make):
    torch.manual_seed(0)
    module = make(0.5)
    without = make(0.0)
    without.load_state_dict(module.state_dict())
    inputs = torch.randn(2, 9, 4)
    torch.testing.assert_close(module.eval()(inputs), without(inputs), rtol=0, atol=0)
    first, second = module.train()(inputs), module(inputs)
    assert not torch.equal(first.context, second.context)
    torch.testing.assert_close(first.weights, without(inputs).weights)


def test_dropout_drops_and_scales_up_the_weights_that_make_the_context():
    torch.manual_seed(0)
    module = CausalSelfAttention(4, 4, dropout=0.5)
    inputs = torch.randn(9, 4)
    torch.manual_seed(1)
    context, weights = module(inputs)
    torch.manual_seed(1)
    dropped = module.dropout(weights)
    assert set((dropped / weights)[weights > 0].tolist()) == {0.0, 2.0}
    torch.testing.assert_close(context, dropped @ module.value_proj(inputs))


def test_heads_that_do_not_divide_the_model_are_refused():
    with pytest.raises(RegardError, match="model_dim 6 cannot be cut into 4 heads"):
        MultiHeadSelfAttention(6, 4)
    with pytest.raises(RegardError, match="num_heads must be at least 1, not 0"):
        MultiHeadSelfAttention(6, 0)
