"""A statistic of one's own is an entry in one table, and is then everywhere that those of the package are."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

import regard
from regard.errors import RegardError
from regard.reading.compute.statistics import STATISTICS, Statistic
from regard.reading.reading import Reading
from regard.view import wire
from regard.view.heads import by_head
from regard.view.statistics_table import statistics_tables

SECOND = Statistic(
    axes=("head", "query"),
    label="second token",
    label_zh="次词元",
    unit="share",
    meaning="weights[i, 1]",
    compute=lambda tile: (tile.weights * (tile.keys == 1)).sum(-1),
)
SQUARED = Statistic(
    axes=("head", "row", "key"),
    label="weight squared",
    label_zh="权重平方",
    unit="weights²",
    meaning="weights[i, j]²",
    compute=lambda weights, call, item, keys: weights**2,
)


@pytest.fixture
def reading(tiny_smollm2, monkeypatch):
    monkeypatch.setitem(STATISTICS, "second_token", SECOND)
    monkeypatch.setitem(STATISTICS, "squared", SQUARED)
    model = regard.load(tiny_smollm2 / "models" / "smollm2")
    return model.read(text="one two three four", rows="all", statistics=("squared", "second_token", "received"))


def test_it_is_read(reading):
    np.testing.assert_allclose(reading.statistic("second_token"), reading.weights()[..., 1], atol=1e-6)
    np.testing.assert_allclose(reading.statistic("squared"), reading.weights() ** 2, atol=1e-6)


def test_it_tells_heads_apart_and_is_drawn_by_its_label(reading):
    pytest.importorskip("matplotlib")
    weights = reading.weights("decoder", 2)
    np.testing.assert_allclose(by_head(reading, "decoder")["second_token"][2], weights[..., 1].mean(1), atol=1e-6)
    np.testing.assert_allclose(by_head(reading, "decoder")["squared"][2], (weights**2).sum(2).mean(1), atol=1e-6)
    assert reading.plot("heads", statistic="second_token").axes[1].get_ylabel() == "second token"
    assert reading.plot("heads", statistic="squared").axes[1].get_ylabel() == "weight squared, weights²"


def test_it_is_in_the_table_of_the_terminal(reading):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(*statistics_tables(reading))
    lines = {line.strip().partition("  ")[0]: line for line in console.export_text().split("\n")}
    means = np.concatenate([weights[..., 1].mean(1) for weights in reading.weights()])
    layer, head = divmod(int(means.argmax()), 4)
    assert f"{100 * means.mean():.1f} %" in lines["second token"]
    assert f"{100 * means.max():.1f} %  (layer {layer}, head {head})" in lines["second token"]
    assert lines.keys() >= {"weight squared, weights²", "received by one token"}


def test_it_is_sent_to_the_viewer_with_its_labels_and_unit(reading):
    header = wire.header(reading)
    assert header["statistics"]["second_token"]["label"] == {"en": "second token", "zh": "次词元"}
    assert header["statistics"]["squared"]["unit"] == "weights²"
    (kind,) = header["kinds"]
    assert kind["measures"] == ["weights", "squared"]
    assert kind["summary"].keys() >= {"second_token", "squared"}
    assert {"second_token", "squared", "received"} <= {part["name"] for part in kind["layers"][0]["parts"]}


@pytest.mark.parametrize(
    ("lang", "label", "measure"),
    [("en", "second token", "weight squared, weights²"), ("zh", "次词元", "权重平方（weights²）")],
)
def test_the_viewer_shows_it(reading, browser, tmp_path, lang, label, measure):
    path = tmp_path / "reading.html"
    path.write_text(reading.to_html(lang), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector('[data-ready="true"]')
    options = page.locator("option").all_text_contents()
    assert label in options
    # as a measure of weights and as a number of heads
    assert options.count(measure) == 2
    page.close()


def test_a_file_is_checked_by_its_axes(reading, tmp_path):
    reading.save(tmp_path / "a.json")
    np.testing.assert_array_equal(
        Reading.load(tmp_path / "a.json").statistic("second_token"), reading.statistic("second_token")
    )
    for name, table in (("second_token", np.ones((4, 1), np.float32)), ("squared", -reading.weights("decoder", 0))):
        spoilt = dataclasses.replace(reading, statistics={("decoder", 0): {name: table}})
        spoilt.save(tmp_path / "b.safetensors")
        with pytest.raises(RegardError, match=f"not valid: {name} of decoder layer 0"):
            Reading.load(tmp_path / "b.safetensors")


def test_it_is_a_column_of_frames(reading):
    pytest.importorskip("pandas")
    np.testing.assert_array_equal(reading.to_frame().squared, reading.statistic("squared").ravel())
    np.testing.assert_array_equal(
        reading.to_frame("second_token").second_token, reading.statistic("second_token").ravel()
    )
