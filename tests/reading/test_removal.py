"""What removing a span does: beside plain runs of the model over the text with it and without it."""

import pytest
import torch

import regard
from regard.errors import RegardError
from regard.reading import removal
from regard.reading.compute import rows as reading_rows
from regard.reading.reading import Reading

pytest.importorskip("transformers")

PROMPT = "One two three. Four five six.\n\nWhat is it?"


@pytest.fixture(scope="module", params=["regard", "transformers"])
def model(request, tiny_smollm2):
    return regard.load(tiny_smollm2 / "models" / "smollm2", library=request.param)


def change(model, ids, span, first):
    """Of the tokens from `first` on, log p in a plain run without the span minus log p in one with it."""
    start, end = span

    def log_probabilities(ids, first):
        with torch.no_grad():
            logits = model.module(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        return torch.stack([logits[place - 1, ids[place]] for place in range(first, len(ids))])

    shorter = [*ids[:start], *ids[end:]]
    return (log_probabilities(shorter, first - (end - start)) - log_probabilities(ids, first)).numpy()


def test_of_an_answer_every_token_is_judged_without_the_span(model):
    reading = model.read(PROMPT, chat=True, max_new_tokens=4)
    ids = [token.id for token in reading.sequences["text"].tokens]
    count = reading.settings["prompt_tokens"]
    steps = []
    for span in [(3, 9), (0, 1), (count - 1, count), (count + 1, count + 2)]:
        found = reading.removal(span, progress=steps.append)
        first = max(count, span[1])
        assert found[:3] == (*span, first)
        assert found.effects == pytest.approx(change(model, ids, span, first), abs=2e-5)
    assert steps == [1] * 8
    tokens = reading.sequences["text"].tokens
    named = reading.removal("Four five six.")
    assert "Four five six." in "".join(token.text for token in tokens[named.start : named.end])


def test_of_a_text_what_follows_the_span_is_judged_in_parts(model, monkeypatch):
    monkeypatch.setattr(removal, "AT_ONCE", 8)
    reading = model.read(text=PROMPT, rows="all")
    ids = [token.id for token in reading.sequences["text"].tokens]
    steps = []
    found = reading.removal((2, 5), progress=steps.append)
    assert (found.first, sum(steps)) == (5, 2 * -(-(len(ids) - 5) // 8))
    assert found.effects == pytest.approx(change(model, ids, (2, 5), 5), abs=2e-5)


@pytest.mark.parametrize(
    ("span", "says"),
    [
        ((-1, 2), "is not within"),
        ((3, 3), "is not within"),
        ((0, 99), "is not within"),
        ((10, 12), "no token after the span 10:12"),
        ((0, 10), "is all that comes before token 10"),
        (3, "a span is a pair of positions"),
        ("nowhere", "the text does not have it"),
    ],
)
def test_a_span_that_cannot_be_removed_is_told(model, span, says):
    reading = model.read("one two three four five six seven", max_new_tokens=2)
    count = reading.settings["prompt_tokens"]
    moved = {10: count, 12: count + 2, 99: 99}
    if isinstance(span, tuple):
        span = tuple(moved.get(place, place) for place in span)
    with pytest.raises(RegardError, match=says.replace("10:12", f"{count}:{count + 2}").replace("10", str(count))):
        reading.removal(span)


def test_without_its_model_nothing_is_removed(model, tmp_path):
    reading = model.read("one two", max_new_tokens=2)
    reading.save(tmp_path / "a.safetensors")
    with pytest.raises(RegardError, match="needs the model itself"):
        Reading.load(tmp_path / "a.safetensors").removal((0, 1))


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_chat_of_which_every_layer_was_refused_keeps_its_text(tiny_smollm2, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(reading_rows, "complaint", lambda *_: "it was refused")
    model = regard.load(tiny_smollm2 / "models" / "smollm2", library="transformers")
    reading = model.read(PROMPT, chat=True, max_new_tokens=2)
    assert (reading.kinds, {*reading.refused.values()}) == ([], {"it was refused"})
    reading.save(tmp_path / f"a{suffix}")
    again = Reading.load(tmp_path / f"a{suffix}")
    assert again.sequences == reading.sequences
    (turn,) = again.settings["turns"]
    assert again.sequences["text"].text[turn["start"] : turn["end"]] == PROMPT
