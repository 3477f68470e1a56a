"""A figure of a reading with pictures has the numbers of `looks`, and the pictures that the model was given."""

import numpy as np
import pytest
from tests.view import pictured

from regard.errors import RegardError
from regard.view.picture_figure import MOST_TOKENS
from regard.view.pictures import looks

LineCollection = pytest.importorskip("matplotlib.collections").LineCollection
pytest.importorskip("PIL")


def drawn(figure):
    """Of every picture in the figure the heat over it, None of the picture itself."""
    return [
        axes.images[1].get_array() if len(axes.images) > 1 else None
        for axes in figure.axes
        # a scale has no picture
        if axes.images and axes.images[0].get_array().ndim == 3
    ]


def told(figure):
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("name", ["asked", "tiled", "seen", "crossed"])
def test_a_reading_with_pictures_is_drawn_as_heat_for_all_rows_and_for_each(name):
    reading = getattr(pictured, name)()
    found, figure = looks(reading), reading.plot()
    expected = []
    for place, heat in enumerate(found.heats):
        expected += [heat.density, None, *(heats[place].density for _, heats in found.by_token)]
    for density, heat in zip(drawn(figure), expected, strict=True):
        assert (density is None) == (heat is None)
        if density is not None:
            np.testing.assert_allclose(density, heat)
    texts = told(figure)
    assert texts[0] == f"What {found.subject} looked at  ·  {found.scope}"
    assert {name for name, _ in found.shares} <= set(texts)


def test_one_token_of_one_head_and_the_edges_of_patches(tmp_path):
    reading = pictured.asked()
    figure = reading.plot("image grid", tmp_path / "red.png", layer=1, head=0, token="red", title="Red")
    (heat,) = looks(reading, layer=1, head=0, token="red").heats
    density, picture = drawn(figure)
    assert density is not None
    np.testing.assert_allclose(density, heat.density)
    assert picture is None
    assert told(figure)[0] == "Red"
    edges = [each for axes in figure.axes for each in axes.collections if isinstance(each, LineCollection)]
    corners = {tuple(map(tuple, np.asarray(path.vertices)[[0, 2]].tolist())) for path in edges[0].get_paths()}
    assert corners == {(area[3:5], area[5:7]) for area in pictured.grid(0, 4, 6, (0, 0, 120, 80))}
    assert (tmp_path / "red.png").read_bytes().startswith(b"\x89PNG")


def test_more_tokens_than_there_is_room_for_are_counted():
    answer = [f" word{place}" for place in range(MOST_TOKENS + 4)]
    texts = told(pictured.asked(answer=answer).plot())
    assert f"the first {MOST_TOKENS} of {len(answer)} tokens; token= draws any one" in texts


def test_other_plots_of_such_a_reading_and_what_has_no_picture():
    reading = pictured.asked()
    assert any("image 1 · 4×6 patches" in text.replace("\n", " ") for text in told(reading.plot("text")))
    reading.plot("heads", statistic="entropy")
    with pytest.raises(RegardError, match="no patches of a picture"):
        pictured.asked(areas=[" none"]).plot("image", kind="decoder")
    with pytest.raises(RegardError, match="was not written"):
        reading.plot("image", token="green")
