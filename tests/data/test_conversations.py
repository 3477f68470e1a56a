"""Of conversations a model learns the answers alone, each token once an epoch, and nothing of their padding."""

import numpy as np
import pytest
import torch

from regard.data.batch import IGNORED
from regard.data.chat import chat_text
from regard.data.conversations import Answered, Conversations, prepare_chats
from regard.errors import RegardError
from regard.evaluation.likelihood import likelihood
from regard.evaluation.text import evaluate_text
from regard.models.gpt import GPT, GPTConfig

SIZES = [3, 9, 2, 5, 7, 4]
VOCABULARY = 40
EOS = 2


def chat(size):
    return [{"role": "user", "content": "a" * size}, {"role": "assistant", "content": "é" * size}]


def encode(messages):
    """Letters by their number: a is 10, é is 20; a question is not learned, its answer and the end are."""
    question, answer = (len(message["content"]) for message in messages)
    ids = [1, *range(10, 10 + question), *range(20, 20 + answer), EOS]
    return Answered(ids, [False] * (1 + question) + [True] * (answer + 1), 2 * answer)


def prepared(tmp_path, sizes=SIZES, **settings):
    texts = [chat_text(chat(size)) for size in sizes]
    return prepare_chats(texts, encode, tmp_path / "ids", **{"max_length": 100, **settings})


def test_a_batch_has_whole_conversations_and_asks_for_their_answers(tmp_path):
    batch = prepared(tmp_path).batch(np.array([0, 2]))
    assert batch.tokens.tolist() == [[1, 10, 11, 12, 20, 21, 22], [1, 10, 11, 20, 21, 0, 0]]
    no = IGNORED
    assert batch.labels.tolist() == [[no, no, no, 20, 21, 22, EOS], [no, no, 20, 21, EOS, no, no]]


def test_an_epoch_has_each_conversation_once_in_batches_that_hold_it(tmp_path):
    corpus = prepared(tmp_path)
    orders = [corpus.order(batch_tokens=30, seed=1, epoch=epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(np.concatenate(order)) == list(range(len(SIZES)))
        assert all(corpus.batch(rows).tokens.numel() <= 30 for rows in order)
    assert len({str(order) for order in orders}) == 3
    assert sum(corpus.batch(rows).label_count for rows in orders[0]) == corpus.num_labels == sum(SIZES) + len(SIZES)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_parts_of_a_batch_have_all_of_it_once(tmp_path, count):
    corpus, rows = prepared(tmp_path), np.array([1, 4, 2, 0])
    parts = corpus.parts(rows, count)
    assert len(parts) == count
    assert sorted(np.concatenate(parts)) == sorted(rows)


def test_what_is_too_long_is_skipped_counted_and_named(tmp_path, caplog):
    # a conversation of size 5 has 12 tokens, the last of which is a label only
    corpus = prepared(tmp_path, max_length=11)
    assert len(corpus) == 4
    assert corpus.skipped == corpus.sizes["conversations_skipped"] == 2
    message = f"conversations skipped because they have more than 11 tokens: 2; the first asks {'a' * 9!r}"
    assert message in caplog.text
    caplog.clear()
    Conversations.open(tmp_path / "ids", max_length=11)
    assert message in caplog.text


def test_where_all_are_too_long_nothing_is_left(tmp_path):
    with pytest.raises(RegardError, match="no conversation is left of mine: 6 have more than 3 tokens"):
        prepared(tmp_path, max_length=3, name="mine")
    assert not (tmp_path / "ids").exists()


def test_an_error_of_the_template_names_the_conversation(tmp_path):
    def refuse(messages):
        raise RegardError("its template fails")

    with pytest.raises(RegardError, match=r"^mine: conversation 1: its template fails$"):
        prepare_chats([chat_text(chat(1))], refuse, tmp_path / "ids", max_length=9, name="mine")


def test_broken_files_are_refused(tmp_path):
    prepared(tmp_path)
    (tmp_path / "ids" / "learned.npy").write_bytes(b"nonsense")
    with pytest.raises(RegardError, match="delete it and prepare it again"):
        Conversations.open(tmp_path / "ids", max_length=9)


def test_the_likelihood_is_that_of_the_answers_of_each_conversation_alone(tmp_path):
    corpus = prepared(tmp_path)
    model = GPT(GPTConfig(model_dim=16, num_heads=2, num_layers=2, feed_forward_dim=32, max_length=32), VOCABULARY)
    found = likelihood(model, corpus, batch_tokens=40)
    model.eval()
    for index, size in enumerate(SIZES):
        ids = torch.tensor(encode(chat(size)).ids)
        with torch.no_grad():
            scores = model(ids[None]).logits[0].log_softmax(-1)
        wanted = sum(float(scores[place - 1, ids[place]]) for place in range(1 + size, len(ids)))
        assert found.log_probs[index] == pytest.approx(wanted, abs=1e-5)
        assert found.token_counts[index] == size + 1
    quality = evaluate_text(model, corpus)
    bits = -found.log_probs.sum() / np.log(2)
    assert quality.bits_per_byte == pytest.approx(bits / (2 * sum(SIZES)))
    assert quality.tokens == found.token_counts.sum()
