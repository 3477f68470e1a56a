"""Optimisers by name: what each one moves, against arithmetic of our own."""

import numpy as np
import pytest
import torch
from torch import nn

from regard.models import MODELS, build, read_config
from regard.models.gpt import GPT, GPTConfig
from regard.models.pretrained.seq2seq import PretrainedTranslator
from regard.training import checkpoint, muon
from regard.training.optimizers import OPTIMIZERS, hidden_matrices

SIZES = {"model_dim": 16, "num_heads": 2, "num_layers": 2, "feed_forward_dim": 24, "max_length": 8}
TOKENS = torch.arange(16).view(2, 8)


@pytest.fixture
def model():
    return GPT(GPTConfig(**SIZES, tied_embeddings=False), 20)


def descend(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(TOKENS).logits.square().mean().backward()
        optimizer.step()


def test_hidden_are_the_matrices_of_the_blocks_alone(model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(matrix)] for matrix in hidden_matrices(model)}
    wanted = {name for name, parameter in model.named_parameters() if "blocks" in name and parameter.ndim == 2}
    assert found == wanted
    assert len(found) == 8


# what is pretrained has sizes of its own
@pytest.mark.parametrize("name", [name for name in MODELS if name != "pretrained"])
def test_no_table_of_tokens_or_positions_is_hidden(name):
    model = build(read_config({"type": name}, where="test"), 20)
    hidden = set(map(id, hidden_matrices(model)))
    assert hidden
    tables = {name for name, parameter in model.named_parameters() if 20 in parameter.shape}
    assert tables
    assert all(id(parameter) not in hidden for name, parameter in model.named_parameters() if name in tables)


def test_the_output_of_a_pretrained_translator_is_not_hidden_where_it_is_a_table_of_its_own():
    transformers = pytest.importorskip("transformers")
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 20, **heads}
    config = transformers.BartConfig(**sizes, tie_word_embeddings=False)
    model = PretrainedTranslator(transformers.BartForConditionalGeneration(config))
    hidden = set(map(id, hidden_matrices(model)))
    tables = {name for name, parameter in model.named_parameters() if 20 in parameter.shape}
    assert {"model.model.shared.weight", "model.lm_head.weight"} <= tables
    assert hidden
    assert all(id(parameter) not in hidden for name, parameter in model.named_parameters() if name in tables)


def test_muon_turns_the_gradient_of_a_hidden_matrix_into_one_that_moves_all_directions_alike(model):
    """A step of the rule of Jordan et al.: every singular value of the change is about the same."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    descend(model, OPTIMIZERS["muon"](model, 0.01, 0.0), 1)
    weight = "blocks.0.feed_forward.in_proj.weight"
    gradient = dict(model.named_parameters())[weight].grad
    change = dict(model.named_parameters())[weight].detach() - before[weight]
    ours, theirs = (torch.linalg.svdvals(matrix) for matrix in (change, gradient))
    # five iterations leave all but the least values between 0.5 and 1.5, times the step size
    assert (ours / (0.01 * 0.2 * max(change.shape) ** 0.5) < 1.5).all()
    assert ours.max() / ours.median() < 2 < theirs.max() / theirs.median()


def test_what_is_not_hidden_moves_under_muon_as_under_adamw(model):
    other = GPT(GPTConfig(**SIZES, tied_embeddings=False), 20)
    other.load_state_dict(model.state_dict())
    for each, name in ((model, "muon"), (other, "adamw")):
        descend(each, OPTIMIZERS[name](each, 0.01, 0.1), 1)
    hidden = set(map(id, hidden_matrices(model)))
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs) == (id(ours) not in hidden)


def test_a_learning_rate_is_that_of_all_parts(model):
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = OPTIMIZERS["muon"](model, 0.01, 0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    descend(model, optimizer, 2)
    assert all(map(torch.equal, before, model.parameters()))
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    descend(model, optimizer, 1)
    assert not any(map(torch.equal, before, model.parameters()))


def test_muon_goes_on_from_disk_as_if_it_had_never_stopped(model, tmp_path):
    path = tmp_path / "checkpoint"
    optimizer = OPTIMIZERS["muon"](model, 0.01, 0.1)
    descend(model, optimizer, 3)
    checkpoint.save_checkpoint(path, model=model, optimizer=optimizer)
    other = GPT(GPTConfig(**SIZES, tied_embeddings=False), 20)
    other.load_state_dict(model.state_dict())
    resumed = OPTIMIZERS["muon"](other, 0.01, 0.1)
    checkpoint.load_optimizer(resumed, other, checkpoint.open_checkpoint(path, "optimizer"))
    for each, with_it in ((model, optimizer), (other, resumed)):
        descend(each, with_it, 2)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def steps_of(kind, matrices, gradients):
    own = [nn.Parameter(each.clone()) for each in matrices]
    optimizer = kind(own, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for row in gradients:
        for matrix, gradient in zip(own, row, strict=True):
            matrix.grad = gradient.clone()
        optimizer.step()
    return own, optimizer


@pytest.fixture
def matrices():
    shapes = ((6, 6), (12, 5), (4, 9))
    return [torch.randn(shape) for shape in shapes], [[torch.randn(shape) for shape in shapes] for _ in range(3)]


def test_in_bfloat16_muon_is_torchs_to_the_bit(matrices, monkeypatch):
    monkeypatch.setattr(muon, "product_dtype", lambda matrix: torch.bfloat16)
    (ours, own), (theirs, torchs) = (steps_of(kind, *matrices) for kind in (muon.Muon, torch.optim.Muon))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(own.state[one]["momentum_buffer"], torchs.state[other]["momentum_buffer"])


def test_in_full_precision_muon_is_its_formula(matrices, monkeypatch):
    monkeypatch.setattr(muon, "product_dtype", lambda matrix: matrix.dtype)
    ours, _ = steps_of(muon.Muon, *matrices)
    for number, matrix in enumerate(ours):
        weights, momentum = matrices[0][number].double().numpy(), 0.0
        for row in matrices[1]:
            gradient = row[number].double().numpy()
            momentum = 0.95 * momentum + 0.05 * gradient
            x = 0.05 * gradient + 0.95 * momentum
            x = x / np.linalg.norm(x)
            # on the side with more rows the same polynomial of the singular values
            left, values, right = np.linalg.svd(x, full_matrices=False)
            for _ in range(5):
                values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
            update = left * values @ right * 0.2 * max(x.shape) ** 0.5
            weights = weights * (1 - 0.02 * 0.1) - 0.02 * update
        np.testing.assert_allclose(matrix.detach().numpy(), weights, atol=2e-6)


def test_bfloat16_is_for_processors_that_have_it(monkeypatch):
    for has_it, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has_it=has_it: has_it)
        assert muon.product_dtype(torch.zeros(2, 2)) == dtype
    assert muon.product_dtype(torch.zeros(2, 2, dtype=torch.float64)) == torch.float64
