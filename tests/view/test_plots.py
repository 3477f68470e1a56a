import itertools
import logging
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.image import imread

from regard.errors import RegardError
from regard.view import figure
from regard.view.plots import apart, plot_alignment, plot_length_curve

SUFFIXES = {".png": b"\x89PNG\r\n", ".svg": b"<?xml", ".pdf": b"%PDF-"}


def curve(*values: float, size: int = 5) -> list[dict]:
    parts = []
    for index, value in enumerate(values):
        part = {"from": index * size + 1, "to": (index + 1) * size, "count": 40 - index, "perplexity": None}
        for name, scale in (("exact", 1), ("chrf", 100), ("bleu", 100)):
            part |= {name: scale * value, f"{name}_low": scale * value * 0.9, f"{name}_high": scale * value}
        parts.append(part)
    return parts


CURVES = {"RNN encoder–decoder": curve(1, 0.6, 0.05), "Transformer": curve(1, 0.98, 0.97)}


def weights(targets: int, sources: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(sources, 0.3), size=targets)


def words(count: int) -> list[str]:
    return [f"w{index}" for index in range(count)]


def svg_words(path: Path) -> list[str]:
    """Every text of an SVG; matplotlib writes it beside the outlines that draw it."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    comments = ElementTree.parse(path, parser).iter(ElementTree.Comment)
    return [(comment.text or "").strip() for comment in comments]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_suffix_chooses_the_format(tmp_path: Path, suffix: str) -> None:
    for path, draw in (
        (tmp_path / f"curve{suffix}", lambda path: plot_length_curve(CURVES, path)),
        (tmp_path / f"grid{suffix}", lambda path: plot_alignment(weights(3, 4), words(4), words(3), path)),
    ):
        draw(path)
        assert path.read_bytes().startswith(SUFFIXES[suffix])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_picture_is_the_same_file(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        plot_alignment(weights(3, 4), words(4), words(3), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RegardError, match=r"\.png, \.svg, \.pdf"):
        plot_length_curve(CURVES, tmp_path / "curve.gif")
    with pytest.raises(RegardError, match=r"\.png, \.svg, \.pdf"):
        plot_alignment(weights(1, 1), ["a"], ["b"], tmp_path / "grid")


def test_a_failed_write_is_told_and_leaves_the_old_picture(tmp_path: Path) -> None:
    with pytest.raises(RegardError, match=r"curve\.svg.*cannot be written"):
        plot_length_curve(CURVES, Path(__file__) / "curve.svg")
    taken = tmp_path / "taken.svg"
    taken.mkdir()
    with pytest.raises(RegardError, match=r"taken\.svg"):
        plot_length_curve(CURVES, taken)
    assert list(tmp_path.iterdir()) == [taken]


def test_a_length_curve_names_its_models_bins_and_counts(tmp_path: Path) -> None:
    plot_length_curve(CURVES, tmp_path / "curve.svg", metric="exact", title="Costs $5 or $6", length_unit="characters")
    shown = svg_words(tmp_path / "curve.svg")
    for text in (*CURVES, "1–5", "6–10", "11–15", "40", "39", "38", "Exact match (%)", "Costs $5 or $6"):
        assert text in shown
    assert "Source length (characters)" in shown


def test_models_need_not_share_their_bins(tmp_path: Path) -> None:
    plot_length_curve({"short": curve(0.5), "long": curve(0.5, 0.4)[1:], "none": []}, tmp_path / "curve.svg")
    shown = svg_words(tmp_path / "curve.svg")
    assert {"1–5", "6–10", "short", "long"} <= set(shown)
    assert "none" not in shown


def test_what_is_undefined_is_left_out_of_a_curve(tmp_path: Path) -> None:
    undefined = {"bleu": None, "bleu_low": None, "bleu_high": None}
    first, *others = curve(1, 0.6, 0.5)
    curves = {"one": [first | undefined, *others], "none": [first | undefined]}
    figure = plot_length_curve(curves, tmp_path / "curve.svg", metric="bleu")
    (line,) = figure.axes[0].lines
    assert len(line.get_xdata()) == len(others)
    assert plot_length_curve({"none": [first | undefined]}, metric="bleu").axes[0].lines[:] == []


def test_labels_of_many_bins_are_thinned_and_more_models_than_colours_are_drawn(tmp_path: Path) -> None:
    curves = {f"model {index}": curve(*np.linspace(1, index / 9, 40)) for index in range(9)}
    plot_length_curve(curves, tmp_path / "curve.svg")
    shown = svg_words(tmp_path / "curve.svg")
    assert set(curves) <= set(shown)
    assert 3 < sum("–" in text for text in shown) < 12


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [99.0, 99.5, 100.0], [10.0, 50.0, 90.0], [1.0] * 15])
def test_names_at_line_ends_do_not_touch_and_stay_inside(values: list[float]) -> None:
    gap = 6.5
    places = apart(values, gap=gap)
    assert all(after - before >= gap - 1e-9 for before, after in itertools.pairwise(places))
    assert places[0] >= 0
    assert places[-1] <= 100
    if values == [10.0, 50.0, 90.0]:
        assert places == values


def test_curves_without_bins_and_unknown_metrics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RegardError, match="no quality by source length"):
        plot_length_curve({"a": []}, tmp_path / "curve.svg")
    with pytest.raises(RegardError, match="did you mean 'chrf'"):
        plot_length_curve(CURVES, tmp_path / "curve.svg", metric="chrff")


def test_an_alignment_is_dark_where_its_weight_is(tmp_path: Path) -> None:
    plot_alignment(np.eye(8), words(8), words(8), tmp_path / "grid.png")
    picture = imread(tmp_path / "grid.png")[..., :3]
    # the colour of weight 1, which the colour bar shows in its topmost row only
    is_full = np.abs(picture - np.array(colormaps["Blues"](1.0)[:3])).max(axis=-1) < 0.005
    rows, columns = np.nonzero(is_full)
    assert is_full.sum() > 8 * 30 * 30
    # the first row's weight is at the left and the last row's at the right
    assert np.corrcoef(rows, columns)[0, 1] > 0.97


def test_words_are_shown_as_they_are_and_newlines_escaped(tmp_path: Path) -> None:
    plot_alignment(weights(2, 2), [r"$\frac$", "a\nb"], ["\x1b[31m", "c" * 40], tmp_path / "grid.svg", title="$y$")
    shown = svg_words(tmp_path / "grid.svg")
    for text in (r"$\frac$", r"a\nb", r"\x1b[31m", "c" * 23 + "…", "$y$"):
        assert text in shown


@pytest.mark.parametrize("size", [(1, 1), (2, 60), (80, 80)])
def test_a_picture_grows_with_its_tokens(tmp_path: Path, size: tuple[int, int]) -> None:
    targets, sources = size
    plot_alignment(weights(*size), words(sources), words(targets), tmp_path / "grid.png")
    height, width, _ = imread(tmp_path / "grid.png").shape
    assert targets * 30 < height < targets * 50 + 200
    assert sources * 30 < width < sources * 50 + 300


def test_letters_without_a_font_are_told_in_the_log_and_not_as_a_python_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(figure, "FALLBACK_FONTS", ())
    with caplog.at_level(logging.WARNING, logger="regard"):
        plot_alignment(weights(1, 2), ["北京", "cat"], ["x"], tmp_path / "grid.svg")
        plot_alignment(weights(1, 2), ["dog", "↵"], ["naïve"], tmp_path / "plain.svg")
    (record,) = caplog.records
    assert "京 北" in record.getMessage()
    assert "Noto Sans CJK" in record.getMessage()


@pytest.mark.parametrize(
    ("grid", "told"),
    [
        (np.zeros((2, 3)), r"shape \(2, 3\)"),
        (np.array([[0.5, np.nan]]), r"weights\[0, 1\]"),
        (np.array([[1.5, 0.0]]), r"weights\[0, 0\]"),
    ],
)
def test_weights_that_do_not_fit_the_words_are_refused(tmp_path: Path, grid: np.ndarray, told: str) -> None:
    with pytest.raises(RegardError, match=told):
        plot_alignment(grid, ["a", "b"], ["c"], tmp_path / "grid.svg")
    with pytest.raises(RegardError, match="at least one"):
        plot_alignment(np.zeros((0, 2)), ["a", "b"], [], tmp_path / "grid.svg")


def test_without_matplotlib_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a module that the search finds nowhere
    monkeypatch.delitem(sys.modules, "matplotlib")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(RegardError, match=r"pip install 'regard\[plot\]'"):
        plot_length_curve(CURVES, tmp_path / "curve.svg")


def test_drawing_leaves_matplotlibs_global_state_alone_and_import_waits(tmp_path: Path) -> None:
    program = f"""
import sys
from regard.view.plots import plot_length_curve
assert "matplotlib" not in sys.modules
import matplotlib
before = matplotlib.rcParams.copy()
plot_length_curve({CURVES!r}, {str(tmp_path / "curve.png")!r})
assert "matplotlib.pyplot" not in sys.modules
# asking for the backend would choose one
assert all(matplotlib.rcParams[name] == before[name] for name in before if name != "backend")
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("metric", "factor", "top"), [("exact", 0.002, 100), ("chrf", 0.33, 40), ("bleu", 1, 100)])
def test_the_scale_leaves_no_interval_out_and_no_more_room_than_they_need(
    metric: str, factor: float, top: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part = {"from": 1, "to": 5, "count": 9, metric: 90 * factor, f"{metric}_low": 0.0, f"{metric}_high": 100 * factor}
    drawn = []
    monkeypatch.setattr("regard.view.plots.save", lambda figure, path: drawn.append(figure))
    plot_length_curve({"one": [part]}, tmp_path / "curve.png", metric=metric)
    assert drawn[0].axes[0].get_ylim() == (0, top)
