"""Processes that each do a part of every batch do together what one does alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from regard.errors import RegardError
from regard.training.data_parallel import helpers, num_processes
from regard.training.loss import add_gradients

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
# enough for two processes
TOKENS = 1024

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory without a name is Linux's alone")


def children(parent="self"):
    """The processes that this one, or another, has started and that have not ended."""
    return [int(pid) for path in Path(f"/proc/{parent}/task").glob("*/children") for pid in path.read_text().split()]


def is_at_work(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    # one that has ended stays until somebody asks how
    return state != "Z"


@pytest.fixture
def first_gradient(trained, first_gradient_of):
    """How many processes helped in the first step of a training, and its gradient."""

    def of(threads, name, *, model=(), **train):
        seen, before = [], len(children())
        settings = {"steps": 1, "validate_every": 1, "clip": 1e9, "batch_tokens": TOKENS, **train}
        model = {"dropout": 0.0, **dict(model)}

        def stop(progress):
            seen.append(len(children()) - before)
            # so that the state stays on disk
            os.kill(os.getpid(), signal.SIGINT)

        run = trained(name, threads=threads, model=model, report=stop, **settings)
        return seen, first_gradient_of(run.path)

    return of


@pytest.mark.parametrize("name", ["rnn", "bahdanau", "transformer"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_gradient_is_that_of_one_process(first_gradient, name, accumulate):
    alone, expected = first_gradient(1, name, accumulate=accumulate)
    together, found = first_gradient(2, name, accumulate=accumulate)
    assert (alone, together) == ([0], [1])
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-6)


def test_no_process_stays_behind(trained):
    before = children()
    trained(threads=2, batch_tokens=TOKENS, steps=2)
    assert children() == before


def test_a_run_repeats_bit_for_bit_and_goes_on_so(trained, ctrl_c):
    settings = {"threads": 2, "batch_tokens": TOKENS, "steps": 6, "model": {"dropout": 0.2}}
    whole = trained(**settings)
    again = trained(**settings)
    stopped = trained(report=ctrl_c(3), **settings)
    assert stopped.facts["status"] == "interrupted"
    resumed = trained(folder=stopped.path, resume=True, **settings)
    expected = load_file(whole.path / "model.safetensors")
    for run in (again, resumed):
        found = load_file(run.path / "model.safetensors")
        assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.fixture
def helper_of(trained):
    """A run's model, a batch of it, and one process that helps to train it."""

    def make(dropout):
        run = trained(steps=1, batch_tokens=TOKENS, model={"dropout": dropout})
        module, corpus = run.module().train(), run.tokenized("train")
        return run, module, corpus.batch(range(20))

    return make


@pytest.mark.parametrize(("dropout", "same"), [(0.0, True), (0.5, False)])
def test_each_process_drops_out_what_it_draws_by_itself(helper_of, dropout, same):
    run, module, batch = helper_of(dropout)
    task = {"seed": 7, "count": batch.label_count}
    ours = add_gradients(module, [batch], run.recipe.train, **task)
    gradients = [parameter.grad.clone() for parameter in module.parameters()]
    with helpers(module, run.path, count=1, num_threads=1) as (helper,):
        helper.ask([batch], **task)
        theirs = helper.collect(module)
    others = [parameter.grad - ours for parameter, ours in zip(module.parameters(), gradients, strict=True)]
    pairs = zip(others, gradients, strict=True)
    assert (abs(theirs - ours) < 1e-6) is same
    assert all(torch.allclose(other, ours, rtol=1e-4, atol=1e-6) for other, ours in pairs) is same


def test_a_process_sees_the_weights_change(helper_of):
    run, module, batch = helper_of(0.0)
    task = {"seed": 7, "count": batch.label_count}
    with helpers(module, run.path, count=1, num_threads=1) as (helper,), torch.no_grad():
        module.target_embedding.weight.zero_()
        helper.ask([batch], **task)
        # all logits are 0: each token of the vocabulary is as likely
        vocab_size = len(run.tokenizer())
        assert helper.answer()["loss"] == pytest.approx(torch.tensor(float(vocab_size)).log().item())
    assert not module.target_embedding.weight.any()
    module.target_embedding.weight.data += 1


def test_a_process_is_out_of_reach_of_ctrl_c(helper_of):
    run, module, _ = helper_of(0.0)
    before = children()
    with helpers(module, run.path, count=1, num_threads=1):
        (child,) = set(children()) - set(before)
        assert os.getpgid(child) != os.getpgid(0)


def test_a_process_imports_nothing_from_where_the_user_is(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("json.py").write_text("raise SystemExit('not the json that was meant')", encoding="utf-8")
    assert trained(threads=2, batch_tokens=TOKENS, steps=1).facts["steps"] == 1


def test_a_process_ends_when_the_one_that_leads_is_gone(recipe, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(recipe(threads=2, batch_tokens=TOKENS, steps=10**6).to_toml(), encoding="utf-8")
    lead = subprocess.Popen([sys.executable, "-m", "regard", "train", str(path), "--out", str(tmp_path / "run")])
    try:
        deadline = time.monotonic() + 120
        metrics = tmp_path / "run" / "metrics.jsonl"
        while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.1)
        (helper,) = children(lead.pid)
    finally:
        lead.kill()
        lead.wait()
    while is_at_work(helper) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_at_work(helper)


def test_a_process_that_is_killed_ends_the_training_with_what_to_do(trained):
    before = children()

    def kill(progress):
        if progress.step == 2:
            (child,) = set(children()) - set(before)
            os.kill(child, signal.SIGKILL)

    with pytest.raises(RegardError, match=r"helped to train ended with status -9; .* lower train.threads"):
        trained(threads=2, batch_tokens=TOKENS, steps=4, report=kill)
    assert children() == before


@pytest.mark.parametrize(
    ("device", "num_threads", "batch_tokens", "compile", "expected"),
    [
        (CPU, 1, 2048, False, 1),
        (CPU, 2, 2048, False, 2),
        (CPU, 16, 2048, False, 4),
        (CPU, 2, 1023, False, 1),
        (CPU, 2, 100, False, 1),
        (CPU, 2, 2048, True, 1),
        (CUDA, 2, 2048, False, 1),
    ],
)
def test_the_number_of_processes(recipe, device, num_threads, batch_tokens, compile, expected):
    config = recipe(batch_tokens=batch_tokens, compile=compile).train
    assert num_processes(config, device, num_threads) == expected


def test_a_system_without_such_memory_trains_in_one_process(recipe, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    assert num_processes(recipe(batch_tokens=2048).train, CPU, 2) == 1
