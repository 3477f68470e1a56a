"""Lines are worked on as they come: what is there already together, and nothing waits for what is still to come."""

import gzip
import io
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data.formats import read_lines
from regard.errors import RegardError
from regard.jobs.lines import Line, PausingStream, chunks, inputs, pausing_stream


@pytest.fixture
def pipe(monkeypatch):
    """A pipe for standard input: a function that writes into it, or, without bytes, closes it."""
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(open(reading, "rb")))  # noqa: SIM115
    is_open = True

    def write(data=None):
        nonlocal is_open
        if data is not None:
            os.write(writing, data)
        elif is_open:
            os.close(writing)
            is_open = False

    yield write
    write()
    sys.stdin.close()


def texts(chunk):
    return [line.text for line in chunk]


def test_a_chunk_comes_as_soon_as_no_further_line_is_there(pipe):
    with pausing_stream("-") as stream:
        found = chunks(inputs("-", stream=stream), pauses=stream.pauses)
        pipe(b"one\n")
        assert texts(next(found)) == ["one"]
        pipe("two\nthree\nvier é".encode()[:-1])
        # a line that is not whole keeps none waiting
        assert texts(next(found)) == ["two", "three"]
        pipe("é\n\n\n".encode()[1:])
        assert next(found) == [Line(3, "vier é"), Line(4, ""), Line(5, "")]
        pipe(b"the last")
        pipe()
        assert texts(next(found)) == ["the last"]
        assert list(found) == []


def test_no_chunk_is_larger_than_it_may_be(pipe):
    pipe(b"one\n" * 7)
    pipe()
    with pausing_stream("-") as stream:
        assert [len(chunk) for chunk in chunks(inputs("-", stream=stream), 3, stream.pauses)] == [3, 3, 1]


def test_compressed_input_is_read_from_a_pipe_too(pipe):
    pipe(gzip.compress(b"one\ntwo\n" * 50))
    pipe()
    with pausing_stream("-") as stream:
        (chunk,) = chunks(inputs("-", stream=stream), pauses=stream.pauses)
    assert texts(chunk) == ["one", "two"] * 50


def test_what_came_before_an_error_comes_before_it(pipe):
    pipe(b"one\ntwo\n\xff\nfour\n")
    pipe()
    with pausing_stream("-") as stream:
        found = chunks(inputs("-", stream=stream), pauses=stream.pauses)
        assert texts(next(found)) == ["one", "two"]
        with pytest.raises(RegardError, match="standard input:3: not UTF-8 at byte 8"):
            next(found)


def test_a_file_and_text_in_memory_never_pause(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n")))
    (tmp_path / "text").write_text("one\n")
    for file in ("-", str(tmp_path / "text"), str(tmp_path / "none")):
        with pausing_stream(file) as stream:
            assert stream is None
    with (tmp_path / "text").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        with pausing_stream("-") as stream:
            assert stream is None


def test_a_named_pipe_pauses_as_standard_input_does(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    # open for both, it waits for nobody
    writing = os.open(tmp_path / "pipe", os.O_RDWR)
    with pausing_stream(str(tmp_path / "pipe")) as stream:
        found = chunks(inputs(str(tmp_path / "pipe"), stream=stream), pauses=stream.pauses)
        os.write(writing, b"one\n")
        assert texts(next(found)) == ["one"]
    os.close(writing)


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(1, 9))
def test_a_stream_gives_the_bytes_that_were_written_whatever_the_calls(parts, size):
    """Against io.BytesIO."""
    reading, writing = os.pipe()
    os.write(writing, b"".join(parts))
    os.close(writing)
    stream, wanted = PausingStream(reading), io.BytesIO(b"".join(parts))
    try:
        for turn in range(len(b"".join(parts)) + 3):
            assert stream.peek(1)[:1] == wanted.getvalue()[wanted.tell() :][:1]
            call = ("readline", "read")[turn % 2]
            assert getattr(stream, call)(size) == getattr(wanted, call)(size)
        assert stream.read() == wanted.read()
    finally:
        os.close(reading)


def test_lines_of_a_stream_are_those_of_a_file(tmp_path, pipe):
    data = "\ufeffone\r\ntwo\u2028still two\r\n\r\n\u4e8c".encode()
    (tmp_path / "text").write_bytes(data)
    pipe(data)
    pipe()
    with pausing_stream("-") as stream:
        assert list(read_lines("-", stream=stream)) == list(read_lines(tmp_path / "text"))
