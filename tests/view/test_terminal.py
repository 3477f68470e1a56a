import io

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from regard.errors import RegardError
from regard.view.terminal import alignment_grid, quality_line, quality_table, strongest
from regard.view.words import graphemes, printable, shorten

FAMILY = "👨‍👩‍👧"
HOSTILE = ["[red]x[/red]", "a\x1b[31m\nb", f"{FAMILY}e\u0301", "\u202eevil", "", "北京大学", ":smile:", "\ud800"]


def shown(renderable: RenderableType, *, width: int = 80, colour: bool = False) -> list[str]:
    file = io.StringIO()
    Console(width=width, file=file, force_terminal=colour, color_system="standard" if colour else None).print(
        renderable
    )
    return file.getvalue().split("\n")


def peaked(targets: int, sources: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(sources, 0.2), size=targets)


def words(count: int) -> list[str]:
    return [f"w{index}" for index in range(count)]


def parts(*values: float) -> list[dict]:
    ends = [(1, 5), (6, 10), (11, 15)]
    return [
        {"from": low, "to": high, "count": 1200}
        | {
            f"{name}{end}": value * scale
            for name, scale in (("exact", 1), ("chrf", 100), ("bleu", 100))
            for end in ("", "_low", "_high")
        }
        for (low, high), value in zip(ends, values, strict=False)
    ]


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 30), (30, 5), (3, 95)])
def test_no_line_of_a_grid_is_wider_than_the_terminal(width: int, size: tuple[int, int]) -> None:
    targets, sources = size
    rows, columns = (HOSTILE * 12)[:targets], (HOSTILE * 12)[:sources]
    for lines in (
        shown(alignment_grid(peaked(*size), columns, rows, width=width), width=200),
        shown(strongest(peaked(*size), columns, rows, width=width), width=200),
    ):
        assert max(map(cell_len, lines)) <= width


def test_a_cell_is_shaded_by_weight_and_stands_under_its_word() -> None:
    weights = np.array([[0.01, 0.99, 0.0], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]])
    lines = shown(alignment_grid(weights, ["a", "北", "c"], ["p", "q", "rst"]))
    assert lines[:4] == ["    a 北c", "  p   ██  ", "  q ··░░▓▓", "rst ▒▒▒▒░░"]


def test_source_words_are_written_downwards_and_end_above_their_column() -> None:
    lines = shown(alignment_grid(np.eye(2), ["cat", "extraordinarily"], ["p", "q"]))
    heading = [line.ljust(6) for line in lines[:10]]
    assert "".join(line[2] for line in heading).strip() == "cat"
    assert "".join(line[4] for line in heading) == "extraordi⋮"
    assert lines[10] == "p ██  "


def test_a_long_source_goes_on_in_panels_that_together_show_every_weight_once() -> None:
    weights = np.zeros((1, 50))
    weights[0, ::7] = 1 / 8
    lines = shown(alignment_grid(weights, words(50), ["target"], width=60))
    rows = [line for line in lines if line.startswith("target")]
    assert len(rows) == 2
    assert sum(row.count("··") for row in rows) == 8
    assert "source words 1 to 25 of 50" in lines
    assert "source words 26 to 50 of 50" in lines


def test_the_scale_is_stated() -> None:
    text = "\n".join(shown(alignment_grid(np.eye(2), words(2), words(2))))
    assert "·· 5%  ░░ 15%  ▒▒ 35%  ▓▓ 60%  ██ 85%" in text


def test_colour_marks_the_largest_weight_of_each_target() -> None:
    lines = shown(alignment_grid(np.array([[0.4, 0.6]]), ["a", "b"], ["p"]), colour=True)
    row = next(line for line in lines if line.startswith("p "))
    assert "\x1b[34m▒▒" in row
    assert "\x1b[1;35m▓▓" in row


@pytest.mark.parametrize("colour", [False, True])
def test_words_cannot_send_codes_to_the_terminal(colour: bool) -> None:
    size = len(HOSTILE)
    weights = np.eye(size)
    curves = {word: parts(0.5, 0.5) for word in HOSTILE}
    for renderable in (
        alignment_grid(weights, HOSTILE, HOSTILE),
        strongest(weights, HOSTILE, HOSTILE),
        quality_table(curves),
        quality_table({HOSTILE[1]: parts(0.5)}),
    ):
        text = "\n".join(shown(renderable, colour=colour))
        assert "\x1b[31m" not in text
        assert "\u202e" not in text
        assert r"a\x1b[31m\nb" in text or r"\x1b" in text
        text.encode()


def test_markup_in_words_is_literal() -> None:
    assert "[red]x[/red] 100%" in "\n".join(shown(strongest(np.eye(1), ["[red]x[/red]"], [":smile:"])))
    assert ":smile: ←" in "\n".join(shown(strongest(np.eye(1), ["[red]x[/red]"], [":smile:"])))
    assert "[bold]m[/bold]" in "\n".join(shown(quality_table({"[bold]m[/bold]": parts(1), "n": parts(1)})))


def test_the_strongest_sources_are_listed_by_weight_while_they_are_notable() -> None:
    weights = np.array([[0.25, 0.05, 0.7], [0.09, 0.08, 0.07]])
    assert shown(strongest(weights, ["a", "b", "c"], ["p", "q"]))[:2] == ["p ← c 70%   a 25%", "q ← a 9%"]


def test_several_models_share_a_table_for_each_metric() -> None:
    lines = shown(
        quality_table({"RNN": parts(1, 0.5, 0.058), "Transformer": parts(1, 0.98)}, metrics=["exact", "bleu"])
    )
    text = "\n".join(lines)
    assert "Exact match (%) by source length" in text
    assert "BLEU by source length" in text
    assert "chrF" not in text
    (row,) = (line for line in lines[: len(lines) // 2] if line.startswith("11–15"))
    # an interval is rounded outwards, a model without this bin has a dash
    assert row.split()[1:6] == ["1,200", "▎", "5.8", "5–6", "–"]


def test_one_model_has_its_metrics_side_by_side() -> None:
    lines = shown(quality_table({"RNN": parts(1, 0.5)}, length_unit="characters"))
    assert lines[0].startswith("RNN by source length")
    assert lines[1].split()[:2] == ["characters", "count"]
    assert [lines[1].index(name) for name in ("Exact", "chrF", "BLEU")] == sorted(
        lines[1].index(name) for name in ("Exact", "chrF", "BLEU")
    )


def test_a_bar_is_as_long_as_its_value() -> None:
    lines = shown(quality_table({"RNN": parts(1, 0.5, 0)}, metrics=["chrf"]))
    bars = [line.count("█") for line in lines if line[:1].isdigit()]
    assert bars == [4, 2, 0]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_tables_of_many_models_stay_within_eighty_columns(count: int) -> None:
    names = [
        f"a model with a long name, number {index}" if index % 2 else f"北京大学的翻译模型之第{index}"
        for index in range(count)
    ]
    lines = shown(quality_table({name: parts(1, 1, 1) for name in names}), width=200)
    assert max(map(cell_len, lines)) <= 80
    assert sum(line.count("100–100") for line in lines) == count * 3 * 3


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(RegardError, match="did you mean 'bleu'"):
        quality_table({"a": parts(1)}, metrics=["blue"])
    with pytest.raises(RegardError, match="no quality"):
        quality_table({})
    with pytest.raises(RegardError, match="one row for each target"):
        alignment_grid(np.eye(2), ["a"], ["b"])
    with pytest.raises(RegardError, match="one row for each target"):
        strongest(np.eye(2), ["a"], ["b"])


def test_marks_and_joined_emoji_stay_with_their_letter() -> None:
    assert graphemes(f"e\u0301{FAMILY}x") == ["e\u0301", FAMILY, "x"]
    assert printable("可以 naïve \u200d👍🏽") == "可以 naïve \u200d👍🏽"


@pytest.mark.parametrize("word", ["plain", "北京大学", "e\u0301" * 9, FAMILY * 4, ""])
def test_a_shortened_word_fits_and_says_that_it_was_cut(word: str) -> None:
    for cells in range(1, 12):
        short = shorten(word, cells)
        assert cell_len(short) <= cells
        assert short == word or (short.endswith("…") and word.startswith(short[:-1]))


def test_an_undefined_figure_is_a_dash_and_no_zero() -> None:
    part = {"from": 1, "to": 5, "count": 3} | {
        f"{name}{end}": value
        for name, value in (("exact", 1.0), ("chrf", 100.0), ("bleu", None))
        for end in ("", "_low", "_high")
    }
    (row,) = (line for line in shown(quality_table({"a run": [part]})) if line.startswith("1–5"))
    assert row.split()[-1] == "–"
    whole = {**part, "perplexity": None, "signature": "signed"}
    assert "BLEU –" in quality_line(whole).plain
    assert "0.0" not in quality_line(whole).plain.replace("100.0", "")
