"""What a step of training does, held against arithmetic that knows nothing of batches."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from regard.data.batch import EOS, collate
from regard.data.bucketing import batches
from regard.data.formats import read_pairs
from regard.data.prepare import prepare
from regard.data.tokenizer import Tokenizer
from regard.errors import RegardError
from regard.evaluation.likelihood import likelihood
from regard.kernels.compiler import check_compiler
from regard.models import build
from regard.training.loop import check_dtype, fit, rehearsal
from regard.training.loss import smoothed_loss

CPU = torch.device("cpu")
SHARD = "model-00001-of-00001.safetensors"


@pytest.fixture
def corpora(toy, tmp_path):
    """Tokenizer, a corpus to train on and one to validate on."""
    pairs = list(read_pairs([toy]))
    tokenizer = Tokenizer.train((side for pair in pairs for side in pair), kind="word", vocab_size=24)
    train, dev = (prepare(part, tokenizer, tmp_path / "ids" / name, max_length=16)
                  for name, part in (("train", pairs[:120]), ("dev", pairs[120:150])))  # fmt: skip
    return tokenizer, train, dev


@pytest.fixture
def fitted(corpora, recipe, tmp_path):
    """Trains a model with `fit` alone, which leaves checkpoints and state in the folder."""
    tokenizer, train, dev = corpora

    def run(name="transformer", *, double=False, report=lambda progress: None, **settings):
        settings.setdefault("model", {"dropout": 0.0})
        chosen = recipe(name, **settings)
        torch.manual_seed(chosen.train.seed)
        model = build(chosen.model, len(tokenizer))
        model = model.double() if double else model
        folder = tmp_path / "fit"
        folder.mkdir()
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        outcome = fit(model, train, dev, chosen.train, folder=folder, report=report)
        return model, before, folder, outcome

    return run


def loss_of_each(model, corpus, rows):
    """Negative log-probability of the targets in float64, one sentence at a time, and their number of tokens."""
    total, count = 0.0, 0
    for row in rows:
        source, target = corpus[row]
        log_probs = model(collate([source.tolist()], [target.tolist()])).logits[0].double().log_softmax(-1)
        labels = [*target.tolist(), EOS]
        total = total - sum(log_probs[step, label] for step, label in enumerate(labels))
        count += len(labels)
    return total, count


@pytest.mark.parametrize("name", ["rnn", "bahdanau", "transformer"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_gradient_of_a_step_is_that_of_the_mean_token_of_all_its_batches(
    fitted, corpora, first_gradient_of, name, accumulate
):
    settings = {"steps": 1, "accumulate": accumulate, "validate_every": 1, "clip": 1e9, "label_smoothing": 0.0}
    model, before, folder, _ = fitted(name, double=True, **settings)
    _, train, _ = corpora
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(before[parameter_name])
    order = batches(train.source_lengths, train.target_lengths, batch_tokens=256, seed=1, epoch=0)
    assert len(order) > 3
    total, count = loss_of_each(model, train, np.concatenate(order[:accumulate]))
    (total / count).backward()
    found = first_gradient_of(folder)
    for parameter_name, parameter in model.named_parameters():
        # the loop's loss is taken in float32
        scale = parameter.grad.abs().max().item()
        torch.testing.assert_close(found[parameter_name], parameter.grad, rtol=1e-4, atol=1e-5 * scale + 1e-9)


def test_a_gradient_longer_than_the_clip_is_cut_to_its_length_and_keeps_its_direction(fitted, first_gradient_of):
    _, _, folder, _ = fitted(steps=1, validate_every=1, clip=0.01)
    gradient = torch.cat([value.flatten() for value in first_gradient_of(folder).values()])
    assert math.isclose(gradient.norm().item(), 0.01, rel_tol=1e-3)


def test_the_loss_reported_is_that_of_the_mean_token(fitted, corpora):
    reports = []
    model, before, _, _ = fitted(steps=1, label_smoothing=0.0, report=reports.append)
    _, train, _ = corpora
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name])
        order = batches(train.source_lengths, train.target_lengths, batch_tokens=256, seed=1, epoch=0)
        total, count = loss_of_each(model, train, order[0])
    assert math.isclose(reports[0].loss, total / count, rel_tol=1e-5)


BATCH = collate([[5, 6], [7]], [[4, 5, 6], [6]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_label_smoothing_gives_its_share_to_every_token_alike(smoothing):
    logits = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(3))
    log_probs = (logits.double() - logits.double().exp().sum(-1, keepdim=True).log()).numpy()
    # Szegedy et al. 2016, section 7: cross-entropy against (1 - e) one-hot + e / V
    wanted = 0.0
    for row, target in enumerate(([4, 5, 6, EOS], [6, EOS])):
        for step, label in enumerate(target):
            wanted -= (1 - smoothing) * log_probs[row, step, label] + smoothing * log_probs[row, step].mean()
    assert math.isclose(smoothed_loss(logits, BATCH, smoothing).item(), wanted, rel_tol=1e-5)


def test_what_stands_at_the_padding_has_no_part_in_the_loss():
    logits = torch.randn(2, 4, 9)
    poisoned = logits.clone()
    poisoned[1, 2:] = torch.nan
    assert torch.equal(smoothed_loss(poisoned, BATCH, 0.1), smoothed_loss(logits, BATCH, 0.1))
    poisoned[1, 1] = torch.nan
    assert smoothed_loss(poisoned, BATCH, 0.1).isnan()


def test_the_learning_rate_reported_is_that_of_the_schedule(fitted):
    reports = []
    fitted(steps=8, warmup_steps=2, schedule="cosine", learning_rate=0.25, report=reports.append)
    wanted = [0.125, 0.25, *(0.125 * (1 + math.cos(math.pi * step / 6)) for step in range(1, 7))]
    np.testing.assert_allclose([report.learning_rate for report in reports], wanted, atol=1e-15)


def test_a_model_that_wanders_is_left_with_the_mean_of_the_checkpoints_that_are_best_on_dev(fitted, metrics_of):
    model, _, folder, outcome = fitted(steps=14, validate_every=2, average=3, learning_rate=0.05, schedule="constant")
    losses = {line["step"]: line["dev_loss"] for line in metrics_of(folder) if "dev_loss" in line}
    assert len(losses) == 7
    best = sorted(losses, key=losses.__getitem__)[:3]
    paths = {folder / "checkpoints" / f"step-{step:08d}" for step in best}
    assert set((folder / "checkpoints").iterdir()) == paths
    files = [load_file(path / SHARD) for path in paths]
    for name, parameter in model.named_parameters():
        mean = torch.stack([file[name].double() for file in files]).mean(0).float()
        assert torch.equal(parameter, mean), name
    assert outcome.dev_loss < min(losses.values())


def test_a_model_that_still_learns_is_left_with_the_best_checkpoint_alone(fitted, metrics_of):
    model, _, folder, outcome = fitted(steps=12, validate_every=2, average=3, learning_rate=3e-3, schedule="constant")
    losses = {line["step"]: line["dev_loss"] for line in metrics_of(folder) if "dev_loss" in line}
    assert min(losses, key=losses.__getitem__) == 12
    last = load_file(folder / "checkpoints" / "step-00000012" / SHARD)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, last[name]), name
    assert outcome.dev_loss == losses[12]


def test_training_that_gains_nothing_stops_when_patience_ends(fitted, metrics_of):
    # so slow that no weight moves by a bit
    _, _, folder, outcome = fitted(steps=100, validate_every=2, patience=3, learning_rate=1e-30)
    assert (outcome.status, outcome.steps) == ("stopped early", 2 * (1 + 3))
    assert len({line["dev_loss"] for line in metrics_of(folder) if "dev_loss" in line}) == 1


def test_training_that_gains_goes_on_to_its_end(fitted):
    _, _, _, outcome = fitted(steps=12, validate_every=2, patience=1, learning_rate=3e-3)
    assert (outcome.status, outcome.steps) == ("finished", 12)


def test_the_metrics_are_lines_of_json_in_the_order_of_the_steps(fitted, metrics_of):
    _, _, folder, outcome = fitted(steps=45, validate_every=15)
    lines = metrics_of(folder)
    told = {"step", "epoch", "loss", "learning_rate", "tokens_per_second", "seconds", "seconds_left"}
    assert [(line["step"], line.keys() - {"step", "epoch"}) for line in lines] == [
        (15, {"dev_loss"}),
        (20, told - {"step", "epoch"}),
        (30, {"dev_loss"}),
        (40, told - {"step", "epoch"}),
        (45, {"dev_loss"}),
        (45, {"final_dev_loss", "status"}),
    ]
    assert all(math.isfinite(value) for line in lines for value in line.values() if isinstance(value, float))
    assert (lines[-1]["status"], lines[-1]["final_dev_loss"]) == (outcome.status, outcome.dev_loss)


def test_the_loss_on_dev_is_the_mean_over_its_tokens(fitted, corpora):
    model, _, _, outcome = fitted(steps=4)
    with torch.no_grad():
        total, count = loss_of_each(model.eval(), corpora[2], range(len(corpora[2])))
    assert math.isclose(outcome.dev_loss, total / count, rel_tol=1e-5)


def test_the_loss_on_dev_takes_sentences_that_are_longer_than_a_batch(fitted, corpora):
    model, _, _, outcome = fitted(steps=1)
    assert math.isclose(likelihood(model, corpora[2], batch_tokens=1).loss, outcome.dev_loss, rel_tol=1e-5)


def test_every_epoch_takes_every_sentence_once(fitted, corpora, monkeypatch):
    _, train, _ = corpora
    seen = []
    take = train.batch
    monkeypatch.setattr(train, "batch", lambda rows, **how: seen.append(rows) or take(rows, **how))
    _, _, _, outcome = fitted(steps=None, epochs=2, accumulate=2)
    half = len(seen) // 2
    assert sorted(np.concatenate(seen[:half])) == sorted(np.concatenate(seen[half:])) == list(range(len(train)))
    assert [rows.tolist() for rows in seen[:half]] != [rows.tolist() for rows in seen[half:]]
    assert outcome.steps == 2 * math.ceil(half / 2)
    assert outcome.epochs == 2


@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_a_loss_that_is_no_number_ends_the_training_with_its_step(fitted, name):
    with pytest.raises(RegardError, match=r"broke down at step [2-9]: the loss is .*lower train\.learning_rate"):
        fitted(name, steps=40, learning_rate=1e30, warmup_steps=0, schedule="constant")


def test_a_processor_without_bfloat16_says_so(fitted, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(RegardError, match="this processor has no bfloat16; set train"):
        fitted(dtype="bfloat16")
    check_dtype("float32", CPU)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor has no bfloat16")
@pytest.mark.parametrize("name", ["rnn", "bahdanau", "transformer"])
def test_bfloat16_trains_float32_weights_nearly_as_float32_does(fitted, corpora, name, tmp_path):
    model, _, folder, half = fitted(name, dtype="bfloat16", steps=30)
    folder.rename(tmp_path / "half")
    _, before, _, whole = fitted(name, steps=30)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(before[parameter_name])
        total, count = loss_of_each(model.eval(), corpora[2], range(len(corpora[2])))
    gained = float(total / count) - whole.dev_loss
    assert gained > 0.3
    assert abs(half.dev_loss - whole.dev_loss) < 0.1 * gained


def test_a_machine_without_a_compiler_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RegardError, match=r"train.compile needs a C\+\+ compiler, and none is found"):
        check_compiler("train.compile", "set it to false")


def test_a_rehearsal_is_a_step_that_changes_nothing(corpora, recipe):
    tokenizer, train, _ = corpora
    chosen = recipe("transformer", model={"dropout": 0.1})
    model = build(chosen.model, len(tokenizer))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    rehearsal(model, train, chosen.train)()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
