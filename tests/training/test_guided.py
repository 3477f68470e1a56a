"""A head of cross-attention learns to look where a statistical aligner links words."""

import math

import pytest
import torch

import regard
from regard.attention.output import AttentionMap
from regard.data.batch import OWN_FRAMES
from regard.data.guide import Guide
from regard.errors import RegardError
from regard.training.folder import GUIDE
from regard.training.guided import alignment_loss, guided_head


def test_links_of_words_become_rows_of_their_tokens():
    guide = Guide()
    # two source words of one and two tokens, two target words of two tokens and one
    guide.add([(1, 0)], [[0], [1], [1]], [[0], [0], [1]])
    guide.add([], [[0]], [[0]])
    table = guide.table([0, 1], OWN_FRAMES, steps=4, source=4)
    half = [0, 0.5, 0.5, 0]
    none = [0, 0, 0, 0]
    assert table.tolist() == [[half, half, none, none], [none] * 4]


def attention(weights):
    """One layer with this as its only head."""
    weights = torch.tensor([weights])[:, None]
    return [AttentionMap("cross", 0, weights=weights, value=weights, context=weights)]


def test_the_loss_is_the_cross_entropy_of_the_rows_that_read_linked_tokens():
    # of three labels the first is linked with both source tokens, the second with the last one, the end with none
    guide = torch.tensor([[[0.5, 0.5], [0, 1], [0, 0]]])
    weights = [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]]
    expected = -(0.5 * math.log(0.2) + 0.5 * math.log(0.8) + math.log(0.3))
    assert alignment_loss(attention(weights), guide).item() == pytest.approx(expected, rel=1e-6)


def test_the_head_is_of_the_layer_before_the_last():
    assert [guided_head(layers) for layers in (1, 2, 6)] == [(0, 0), (0, 0), (4, 0)]


def test_a_guided_head_links_the_words_that_translate_each_other(trained):
    translator = regard.load(trained(guided_alignment=1.0, steps=60, learning_rate=0.01).path)
    assert translator.guided_head == (0, 0)
    pairs = [pair for pair in translator.pairs("test") if len(set(pair.source.split())) == len(pair.source.split())]
    tables = list(translator.alignments([pair.source for pair in pairs], [pair.target for pair in pairs]))
    found = [int(column) for table in tables for column in table.argmax(axis=1)]
    wanted = [place for table in tables for place in reversed(range(len(table)))]
    assert sum(a == b for a, b in zip(found, wanted, strict=True)) > 0.9 * len(wanted)


def test_a_run_that_is_not_guided_has_no_links_and_no_guided_head(trained):
    run = trained()
    assert not (run.path / GUIDE).exists()
    assert regard.load(run.path).guided_head is None
    train, _ = run.splits(run.corpus())
    assert train.batch([0], epoch=0).guide is None


def test_a_guided_run_is_resumed_with_the_links_that_it_began_with(trained, ctrl_c, metrics_of):
    whole = trained(guided_alignment=0.5)
    part = trained(guided_alignment=0.5, report=ctrl_c(5))
    assert part.facts["status"] == "interrupted"
    written = (part.path / GUIDE).stat().st_mtime_ns
    part = trained(guided_alignment=0.5, folder=part.path, resume=True)
    assert (part.path / GUIDE).stat().st_mtime_ns == written
    assert metrics_of(part.path)[-1]["final_dev_loss"] == metrics_of(whole.path)[-1]["final_dev_loss"]
    weights = part.module().state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in whole.module().state_dict().items())


def test_two_processes_minimise_what_one_does(trained):
    losses = {1: [], 2: []}
    for threads, found in losses.items():
        report = lambda progress, found=found: found.append(progress.loss)  # noqa: E731
        settings = {"guided_alignment": 0.5, "batch_tokens": 1024, "model": {"dropout": 0.0}, "steps": 6}
        assert trained(threads=threads, report=report, **settings).facts["processes"] == threads
    assert losses[2] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "bahdanau"}, "guides a cross head of a model of type 'transformer', not 'rnn'"),
        (
            {"data": {"tokenizer": "bpe", "bpe_dropout": 0.1, "vocab_size": 300}},
            "bpe_dropout makes others in every epoch",
        ),
    ],
)
def test_what_cannot_be_guided_is_refused_before_anything_is_read(recipe, changes, message):
    with pytest.raises(RegardError, match=message):
        recipe(guided_alignment=0.5, **changes)
