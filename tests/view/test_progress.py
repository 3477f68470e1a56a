"""Progress where nobody watches a bar: lines, and not more than one reads."""

import pytest

from regard.view import progress
from regard.view.progress import training_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test turns."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_text_that_is_read_for_long_has_a_line_at_once_and_then_one_every_ten_seconds(clock, capfd):
    with training_progress("mine") as (_, preparing):
        preparing("reading pairs", 0)
        for seconds in range(25):
            clock[0] = 100.0 + seconds
            preparing("reading pairs", 1000 * (1 + seconds))
        clock[0] += 2
        preparing("learning the tokenizer", 0)
        preparing("learning the tokenizer", 1000)
    told = capfd.readouterr()
    assert not told.out
    assert told.err.splitlines() == [
        "mine  reading pairs: 1,000",
        "mine  reading pairs: 11,000",
        "mine  reading pairs: 21,000",
        "mine  learning the tokenizer",
    ]


def test_a_text_that_is_read_in_no_time_has_no_line(clock, capfd):
    with training_progress("mine") as (_, preparing):
        for step in ("reading pairs", "learning the tokenizer", "encoding train"):
            preparing(step, 0)
    assert not capfd.readouterr().err
