import io
import json
import math
import re

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from regard.errors import RegardError
from regard.view.matrix import Matrix
from regard.view.steps import (
    EXAMPLE_INPUTS,
    EXAMPLE_TARGET,
    HEAD_DIM,
    causal_step,
    cross_step,
    draw_parameters,
    multi_head_step,
    random_embedding,
    simple_step,
    split_tokens,
    trainable_step,
)
from regard.view.walk import walk_through
from regard.view.walk_across import walk_across
from regard.view.walk_document import cross_attention_document, self_attention_document

INPUTS = {
    "textbook": torch.tensor(EXAMPLE_INPUTS),
    "one token": torch.tensor(EXAMPLE_INPUTS[:1]),
    "random": torch.stack([random_embedding(word) for word in ["the", "cat", "saw", "the", "other", "cat"]]),
}


def printed(thing, *, width=80, coloured=False, no_color=False):
    file = io.StringIO()
    # no environment: the machine's NO_COLOR or COLUMNS must not decide what is tested
    console = Console(
        file=file,
        width=width,
        force_terminal=coloured,
        color_system="truecolor" if coloured else None,
        no_color=no_color,
        _environ={},
    )
    console.print(thing)
    return file.getvalue()


def squeezed(text):
    return " ".join(text.split())


def matrix_rows(text, title):
    """The lines of one matrix: from its title to the next empty line."""
    lines = text.split("\n")
    start = next(index for index, line in enumerate(lines) if line.startswith(title))
    return lines[start : lines.index("", start)]


@pytest.fixture(scope="module")
def example():
    return printed(walk_through())


@pytest.mark.parametrize(
    ("title", "label", "numbers"),
    [
        # Raschka 2024, chapter 3, sections 3.3 and 3.4
        ("scores = inputs", "journey", "0.9544 1.4950 1.4754 0.8434 0.7070 1.0865"),
        ("weights = softmax(scores)", "journey", "0.1385 0.2379 0.2333 0.1240 0.1082 0.1581"),
        ("context = weights · inputs", "journey", "0.4419 0.6515 0.5683"),
        ("weights = softmax(scaled scores)", "journey", "0.1500 0.2264 0.2199 0.1311 0.0906 0.1820"),
        ("context = weights · value", "journey", "0.3061 0.8210"),
        ("masked scores", "one", "−∞"),
    ],
)
def test_the_textbooks_numbers_appear_in_their_row(example, title, label, numbers):
    (row,) = (line for line in matrix_rows(example, title)[2:] if label in line)
    found = [part for part in row.split() if part[-1].isdigit() or part == "−∞"]
    assert " ".join(found).endswith(numbers)


def test_sums_done_by_hand_end_in_the_number_of_the_matrix(example):
    text = squeezed(example)
    assert "score(journey, starts) = 0.55·0.57 + 0.87·0.85 + 0.66·0.64 = 1.4754" in text
    assert "weight(journey, Your) = e^0.8984 / (e^0.8984 + e^1.3098) = 0.3986" in text
    assert "0.1385·0.43 + 0.2379·0.55 + 0.2333·0.57 + 0.1240·0.22 + 0.1082·0.77 + 0.1581·0.05 = 0.4419" in text


@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_every_matrix_follows_from_those_before_it(inputs):
    parameters = draw_parameters()
    close = torch.testing.assert_close
    with torch.no_grad():
        one, two = simple_step(inputs), trainable_step(inputs, parameters)
        three, four = causal_step(inputs, parameters), multi_head_step(inputs, parameters)
    close(one.weights, one.scores.softmax(dim=-1))
    close(one.context, one.weights @ inputs)
    close(two.query, inputs @ parameters.query[:, :HEAD_DIM])
    close(two.weights, two.scaled.softmax(dim=-1))
    close(two.context, two.weights @ two.value)
    close(three.weights, three.masked.softmax(dim=-1))
    close(three.context, three.weights @ two.value)
    close(three.training_context, three.dropped @ two.value)
    kept = three.dropped > 0
    close(three.dropped[kept], 2 * three.weights[kept])
    close(four.weights[0], three.weights)
    close(four.joined[:, :HEAD_DIM], three.context)
    scaled = four.query[:, HEAD_DIM:] @ four.key[:, HEAD_DIM:].T / HEAD_DIM**0.5
    hidden = torch.ones(len(inputs), len(inputs)).triu(1).bool()
    close(four.weights[1], scaled.masked_fill(hidden, -torch.inf).softmax(dim=-1))
    close(four.joined[:, HEAD_DIM:], four.weights[1] @ four.value[:, HEAD_DIM:])
    close(four.output, four.joined @ parameters.out)


@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_cross_attention_is_what_torch_computes_from_its_queries_keys_and_values(inputs):
    parameters = draw_parameters()
    target = torch.stack([random_embedding(word) for word in EXAMPLE_TARGET])
    with torch.no_grad():
        step = cross_step(target, inputs, parameters)
    close = torch.testing.assert_close
    close(step.query, target @ parameters.query[:, :HEAD_DIM])
    close(step.key, inputs @ parameters.key[:, :HEAD_DIM])
    close(step.value, inputs @ parameters.value[:, :HEAD_DIM])
    close(step.scores, step.query @ step.key.T)
    close(step.scaled, step.scores / 2**0.5)
    close(step.weights, step.scaled.softmax(dim=-1))
    sdpa = torch.nn.functional.scaled_dot_product_attention
    close(step.context, sdpa(step.query[None], step.key[None], step.value[None])[0])


def test_the_walk_across_shows_every_matrix_and_sums_by_hand():
    text = printed(walk_across())
    for title, shape in {
        "source: what the encoder": (6, 3),
        "target: the decoder's state": (7, 3),
        "query = target": (7, 2),
        "scores = query": (7, 6),
        "scaled scores": (7, 6),
        "weights = softmax": (7, 6),
        "context = weights": (7, 2),
    }.items():
        first, _, *rows = matrix_rows(text, title)
        assert first.endswith(f"{shape[0]} × {shape[1]}")
        assert len(rows) == shape[0]
    # the same keys and values as in step 2 of the textbook's example
    step_2 = matrix_rows(printed(walk_through()), "query │ key │ value")[2:]
    across = matrix_rows(text, "key │ value")[2:]
    assert [line.split()[-5:] for line in step_2] == [line.split()[-5:] for line in across]
    # by hand: 0.57, 0.04, 0.17 and the textbook's W_query and W_key
    assert "score(voyage, journey) = 0.1914·0.4433 + 0.4693·1.1419 = 0.6207" in squeezed(text)
    share, row, weight = re.search(r"weight\(voyage, journey\) = e\^(\S+) / \((.+?)\) = (\S+)", squeezed(text)).groups()
    powers = [math.exp(float(each)) for each in re.findall(r"e\^(\S+)", row)]
    assert math.exp(float(share)) / sum(powers) == pytest.approx(float(weight), abs=1e-4)
    # the products by hand, divided by √2
    assert float(share) == pytest.approx(0.6207 / 2**0.5, abs=1e-4)
    terms, context = re.search(r"context\(voyage\), dim 1 = (.+?) = (\S+)", squeezed(text)).groups()
    products = [float(one) * float(two) for one, two in re.findall(r"(\S+)·(\S+)", terms)]
    assert len(products) == 6
    assert sum(products) == pytest.approx(float(context), abs=1e-3)


def test_the_document_has_the_numbers_that_the_walk_prints():
    found = cross_attention_document(("我喜欢猫", "I like cats"))
    assert found["source"]["tokens"] == ["我", "喜", "欢", "猫"]
    text = printed(walk_across(("我喜欢猫", "I like cats")))
    rows = matrix_rows(text, "weights = softmax")[2:]
    for row, weights in zip(rows, found["cross"]["weights"], strict=True):
        assert re.findall(r"\d\.\d{4}", row) == [f"{weight:.4f}" for weight in weights]
    alone = self_attention_document(None)
    assert alone["inputs"] == EXAMPLE_INPUTS
    assert alone["causal"]["masked"][0][1:] == [None] * 5
    assert [f"{weight:.4f}" for weight in alone["trainable"]["weights"][1]] == [
        *("0.1500", "0.2264", "0.2199", "0.1311", "0.0906", "0.1820")
    ]
    json.dumps([found, alone], allow_nan=False)


@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize(
    "text",
    [
        None,
        "one",
        "two words",
        "我喜欢学习注意力机制，它很有趣",
        "a word of length twenty-eight: " + "antidisestablishmentarianism " * 3,
        "x" * 40 + " and " + "力" * 20,
        " ".join(f"w{number}" for number in range(32)),
    ],
)
def test_no_line_is_wider_than_the_terminal_or_eighty(text, width, coloured):
    file = io.StringIO()
    console = Console(file=file, width=width, record=True, force_terminal=coloured, _environ={})
    console.print(walk_through(text))
    if text is not None:
        console.print(walk_across((text, "two words")))
        console.print(walk_across(("两个词", text)))
    assert max(cell_len(line) for line in console.export_text().split("\n")) <= min(width, 80)


def test_a_long_text_is_shown_whole_in_panels_of_columns():
    words = [f"w{number}" for number in range(32)]
    text = printed(walk_through(" ".join(words)))
    lines = text.split("\n")
    starts = [index for index, line in enumerate(lines) if line.startswith("scores = inputs")]
    assert len(starts) > 1
    headers = [word for index in starts for word in lines[index + 1].split()[2:]]
    assert headers == words
    assert "columns 1 to 8 of 32" in text


@pytest.mark.parametrize("width", range(40, 81, 4))
@pytest.mark.parametrize("coloured", [False, True])
def test_no_number_is_broken_at_any_width(width, coloured):
    matrix = Matrix(
        title="t",
        values=torch.rand(3, 20),
        rows=["a", "b", "c"],
        columns=[f"w{number}" for number in range(20)],
        shaded=True,
    )
    file = io.StringIO()
    console = Console(file=file, width=width, record=True, force_terminal=coloured, _environ={})
    console.print(matrix)
    assert len(re.findall(r"\b\d\.\d{4}\b", console.export_text())) == 60


def test_a_word_too_long_for_its_column_goes_on_below():
    word = "antidisestablishmentarianism"
    values = torch.tensor([[0.5]])
    text = printed(Matrix(title="t", values=values, rows=["row"], columns=[word]))
    letters = "".join(line.strip() for line in text.split("\n")[1:] if "0.5000" not in line)
    assert letters == word


def test_the_same_word_has_the_same_embedding_and_another_word_another():
    assert torch.equal(random_embedding("cat"), random_embedding("cat"))
    assert not torch.equal(random_embedding("cat"), random_embedding("dog"))


def test_the_parameters_are_the_same_every_time():
    for first, second in zip(draw_parameters(), draw_parameters(), strict=True):
        assert torch.equal(first, second)


def test_embeddings_of_a_users_text_are_called_random():
    assert "embeddings are drawn at random" in squeezed(printed(walk_through("the cat")))
    assert "textbook" in squeezed(printed(walk_through()))


@pytest.mark.parametrize("coloured", [False, True])
def test_markup_and_control_characters_are_shown_not_obeyed(coloured):
    text = printed(walk_through("[red]a[/red] \x1b[2Jb :smile: c\x07 \u202eevil"), coloured=coloured)
    for shown in ("[red]a[/red]", "\\x1b[2Jb", ":smile:", "c\\x07", "\\u202eevil"):
        assert shown in text
    for obeyed in ("\x1b[2J", "\x07", "\u202e"):
        assert obeyed not in text


def test_without_colour_the_followed_row_is_marked_and_weights_have_bars(example):
    assert "\x1b" not in example
    assert all(line.startswith("▸ journey") for line in example.split("\n") if "▸" in line and "Follow" not in line)
    (row,) = (line for line in matrix_rows(example, "weights after")[2:] if "journey" in line)
    assert row.split()[2:6] == ["0.3986", "▄", "0.6014", "▅"]


def test_no_color_keeps_the_mark_and_draws_bars_in_a_terminal():
    text = printed(walk_through(), coloured=True, no_color=True)
    assert "▸" in text
    assert "▅" in text
    assert "48;2" not in text


def test_with_colour_a_greater_weight_has_a_stronger_shade():
    matrix = Matrix(title="t", values=torch.tensor([[0.1, 0.9]]), rows=["a"], columns=["b", "c"], shaded=True)
    console = Console(width=80, force_terminal=True, color_system="truecolor", _environ={})
    shades = {
        segment.text: sum(segment.style.bgcolor.get_truecolor())
        for segment in console.render(matrix)
        if segment.style and segment.style.bgcolor
    }
    assert shades["0.9000"] < shades["0.1000"]


def test_chinese_and_japanese_characters_are_tokens_of_their_own():
    assert split_tokens("我喜欢 GPT，です") == ["我", "喜", "欢", "GPT，", "で", "す"]


@pytest.mark.parametrize("text", ["", " \n\t", "\u3000"])
def test_a_text_without_words_is_refused(text):
    with pytest.raises(RegardError, match="the text has no words"):
        walk_through(text)


def test_a_text_too_long_for_tables_is_refused_and_not_cut():
    with pytest.raises(RegardError, match="has 33 tokens, and tables of more than 32"):
        walk_through("a " * 33)
    with pytest.raises(RegardError, match="token 2 has 41 characters"):
        walk_through("a " + "b" * 41)


def test_an_error_says_which_of_two_texts_it_means():
    with pytest.raises(RegardError, match=r"the source has no words; .*--cross"):
        walk_across((" ", "a"))
    with pytest.raises(RegardError, match=r"the target has 33 tokens.*give a shorter target"):
        walk_across(("a", "a " * 33))
    with pytest.raises(RegardError, match="token 1 of the target has 41"):
        walk_across(("a", "b" * 41))


def test_the_walk_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    walk_through()
    assert torch.equal(torch.rand(3), expected)
