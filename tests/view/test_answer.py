"""A reading of a language model in terminals of all kinds, and as a picture."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from rich.cells import cell_len
from rich.console import Console

from regard.view.answer import ASKS, FIRST, SHADES, answer_view, scale, shaded_text
from regard.view.answer_figure import plot_answer
from regard.view.pieces import QUESTION
from regard.view.proof import proof
from regard.view.renderers import draw
from regard.view.shares import shares
from regard.view.words import percent

HOSTILE = ["[red]x[/red]", " a\x1b[31m", "\n", " \u202eevil", ":smile:", "北", "京", "\t大", "e\u0301", " end"]


def printed(reading, *, width=80, coloured=False, no_color=False, **settings):
    file = io.StringIO()
    # no environment: the machine's NO_COLOR or COLUMNS must not decide what is tested
    console = Console(
        file=file,
        width=width,
        force_terminal=coloured or no_color,
        color_system="truecolor" if coloured or no_color else None,
        no_color=no_color,
        _environ={},
    )
    console.print(*answer_view(reading, segments="sentences", **settings), sep="\n")
    return file.getvalue()


def hostile(by_hand):
    table = np.random.default_rng(0).dirichlet(np.ones(len(HOSTILE) - 1), size=(2, 3, 4))
    return by_hand(HOSTILE, 6, *table.transpose(1, 0, 2, 3))


def test_answer_shares_parts_and_proof_are_told_without_colour(dogs):
    lines = printed(dogs).splitlines()
    assert lines[0] == "Bo."
    found, told = shares(dogs), " ".join(" ".join(lines).split())
    assert f"the prompt {percent(found.prompt)}" in told
    assert f"the answer itself {percent(found.answer)}" in told
    assert f"first token Ann {percent(found.first)}" in told
    listed = [line for line in lines if line.endswith(("Bo has a cat.", "Who?", "Ann has a dog."))]
    assert [line.split()[0] for line in listed] == [
        percent(found.parts[part].share).split()[0] for part in found.strongest
    ]
    assert "read: 2 decoder layers; checked: 6 rows sum to 1" in told


@pytest.mark.parametrize("settings", [{}, {"no_color": True}])
def test_without_colour_nothing_is_coloured(dogs, settings):
    assert "38;" not in printed(dogs, **settings)
    assert "48;" not in printed(dogs, **settings)


@pytest.mark.parametrize("width", [24, 40, 80, 200])
@pytest.mark.parametrize("coloured", [False, True])
def test_no_line_is_wider_than_the_terminal(dogs, by_hand, width, coloured):
    for reading in (dogs, hostile(by_hand)):
        file = io.StringIO()
        # rich keeps the codes of a style as its first console writes them, so all consoles here have the same colours
        system = "truecolor" if coloured else None
        console = Console(
            file=file, width=width, record=True, force_terminal=coloured, color_system=system, _environ={}
        )
        console.print(*answer_view(reading, segments="sentences"), sep="\n")
        assert max(cell_len(line) for line in console.export_text().split("\n")) <= width


@pytest.mark.parametrize("coloured", [False, True])
def test_a_text_cannot_send_codes_to_the_terminal(by_hand, coloured):
    text = printed(hostile(by_hand), coloured=coloured)
    assert "\x1b[31m" not in text.replace("\x1b[0m", "")
    assert "\u202e" not in text
    assert "[red]x[/red]" in text
    assert ":smile:" in text


def test_a_stronger_token_has_a_stronger_shade_and_the_first_has_none(dogs):
    found = shares(dogs)
    text = shaded_text(found.pieces, found.strongest, scale=scale(found))
    shades = {text.plain[span.start : span.end]: span.style for span in text.spans if span.style}
    top = max(piece.share for piece in found.pieces)
    assert shades["Ann"] == FIRST
    assert shades["Bo"] == SHADES[-1]
    for piece in found.pieces[1:]:
        expected = next((shade for shade in range(len(SHADES)) if piece.share >= top / 2 ** (shade + 1)), None)
        if expected is not None and text.plain.count(piece.text.strip()) == 1:
            assert shades[piece.text.strip()] == SHADES[len(SHADES) - 1 - expected]
    assert text.plain == "Ann has a dog. Bo has a cat. Who?"


def test_a_question_that_is_known_stands_apart(chat, sourced):
    question = sourced.settings["sources"]["question"]
    found = shares(sourced)
    keys, weights = sourced.keys("decoder"), mean_weights(sourced)
    asks = [key.start < question["end"] and question["start"] < key.end for key in keys]
    assert found.question == pytest.approx(float(weights[asks].sum()), abs=1e-6)
    total = found.prompt + found.template + found.question + found.images + found.answer + found.first
    assert total == pytest.approx(1, abs=1e-6)
    own = [piece for piece in found.pieces if piece.part == QUESTION]
    assert "".join(piece.text for piece in own).strip() == question["text"]
    assert not any(piece.share for piece in own)
    text = shaded_text(found.pieces, found.strongest, scale=scale(found))
    asked = "".join(text.plain[span.start : span.end] for span in text.spans if span.style == ASKS)
    assert asked.replace(" ", "") == question["text"].replace(" ", "")
    assert question["text"] not in [part.text for part in found.parts if part.share]
    told = " ".join(printed(sourced).split())
    assert f"the question {percent(found.question)}" in told
    figure = plot_answer(found)
    assert any(f"question {percent(found.question)}" in each.get_text() for axes in figure.axes for each in axes.texts)
    # where nothing told it, it is a part as others are
    sourced.settings.pop("sources")
    assert shares(sourced).question == 0


def mean_weights(reading):
    tables = [reading.weights("decoder", layer) for layer in reading.layers("decoder")]
    return np.concatenate(tables).mean((0, 1))


def test_shades_are_legible_on_any_terminal():
    def luminance(colour):
        parts = [value / 255 for value in colour.get_truecolor()]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    # WCAG 2.2, success criterion 1.4.3
    for shade in SHADES:
        assert (luminance(shade.bgcolor) + 0.05) / (luminance(shade.color) + 0.05) >= 4.5


def test_of_a_long_prompt_only_what_is_around_the_strongest_is_shown(by_hand):
    pieces = [f" word{number}{'.' if number % 10 == 9 else ''}" for number in range(1000)]
    row = np.full(1000, 0.1 / 990)
    row[[0, *range(495, 504)]] = [0.5, *[0.4 / 9] * 9]
    found = shares(by_hand([*pieces, " end"], 1000, row[None, None]))
    text = shaded_text(found.pieces, found.strongest[:1], scale=scale(found)).plain
    assert "word495" in text
    assert "word100 " not in text
    first, last = (line for line in text.split("\n") if line.startswith("⋯"))
    shown = sum(f"word{number}" in text.replace(".", " ").split() for number in range(1000))
    left = [int(line.split()[1].replace(",", "")) for line in (first, last)]
    assert sum(left) + shown == 1000
    shares_left = [float(line.split()[-2]) for line in (first, last)]
    assert sum(shares_left) == pytest.approx(100 * (0.1 / 990) * (sum(left) - 1), abs=0.1)


def test_a_text_of_one_token_has_nothing_to_rank(by_hand):
    told = printed(by_hand(["Hi"], 0, np.ones((2, 1, 1))))
    assert "Nothing to rank: no weight is on the text beyond its first token." in told
    assert "Strongest" not in told


def test_one_picked_token_has_no_list_of_words(dogs):
    assert "What “B” looked at" in printed(dogs, token="0")
    assert "Strongest words of the prompt" not in printed(dogs, token="0")


def test_layers_that_were_refused_are_named_once_for_each_reason(dogs):
    refused = {("decoder", 3): "linear attention", ("decoder", 2): "linear attention", ("decoder", 4): "NaN"}
    told = proof(replace(dogs, refused=refused))
    assert told.endswith("; refused decoder 2, 3: linear attention; refused decoder 4: NaN")
    assert told.startswith("read: 2 decoder layers; checked: 6 rows")


@pytest.mark.parametrize(
    ("share", "told"), [(0, "0.0 %"), (1, "100.0 %"), (0.123, "12.3 %"), (0.0042, "0.42 %"), (0.00001, "<0.01 %")]
)
def test_percent_has_the_digits_that_count(share, told):
    assert percent(share) == told


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF-")])
def test_the_suffix_chooses_the_picture_and_the_same_is_the_same_file(dogs, tmp_path, suffix, magic):
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path in paths:
        draw(dogs, path)
    assert paths[0].read_bytes().startswith(magic)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_picture_has_every_word_and_shades_those_that_weigh(dogs, tmp_path):
    plot_answer(shares(dogs), tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    # matplotlib writes every text beside the outlines that draw it
    words = re.findall("<!-- (.*) -->", drawn)
    assert {"Ann", "dog.", "Bo", "Who", "Bo has a cat."} <= set(words)
    assert SHADES[-1].bgcolor is not None
    assert SHADES[-1].bgcolor.name in drawn
    plot_answer(shares(dogs, token="-1"), tmp_path / "b.svg")
    assert "“.”" in (tmp_path / "b.svg").read_text(encoding="utf-8")


def test_pictures_of_other_scripts_are_drawn_without_a_warning(by_hand, tmp_path):
    plot_answer(shares(hostile(by_hand)), tmp_path / "a.png")
    pixels = imread(tmp_path / "a.png")
    assert pixels.shape[0] > 100
    assert pixels[..., :3].min() < 0.2
