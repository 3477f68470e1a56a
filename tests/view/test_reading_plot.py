"""`reading.plot` draws the numbers of the reading, and says what there is where something is not."""

import dataclasses

import numpy as np
import pytest

from regard.errors import RegardError
from regard.view import renderers
from regard.view.heads import by_head

pytest.importorskip("matplotlib")


def mesh(figure):
    return (
        figure.axes[0]
        .collections[0]
        .get_array()
        .reshape(figure.axes[0].collections[0].get_coordinates().shape[0] - 1, -1)
    )


def names(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize(
    ("statistic", "label"),
    [
        ("strongest", "strongest weight"),
        ("entropy", "entropy, nats"),
        ("first_token", "first token"),
        ("distance", "distance, tokens"),
    ],
)
def test_a_map_of_heads_has_a_number_for_each(dogs, statistic, label):
    figure = dogs.plot("heads", statistic=statistic)
    expected = np.stack(by_head(dogs, "decoder")[statistic], axis=1)
    np.testing.assert_allclose(mesh(figure), expected)
    layers = dogs.layers("decoder")
    strongest = [
        [dogs.weights("decoder", layer)[head].max(axis=1).mean() for layer in layers] for head in range(len(expected))
    ]
    if statistic == "strongest":
        np.testing.assert_allclose(expected, strongest, rtol=1e-6)
    assert names(figure.axes[0].xaxis) == [str(layer) for layer in layers]
    assert figure.axes[1].get_ylabel() == label


@pytest.mark.parametrize(("layer", "head"), [(None, None), (0, None), (0, 0)])
def test_tokens_of_a_text_by_those_they_looked_at(dogs, layer, head):
    figure = dogs.plot("alignment", layer=layer, head=head)
    layers = dogs.layers("decoder") if layer is None else [layer]
    table = np.mean([dogs.weights("decoder", each) for each in layers], axis=0)
    expected = table.mean(axis=0) if head is None else table[head]
    np.testing.assert_allclose(mesh(figure), expected)
    tokens = [token.text.strip() for token in dogs.sequences["text"].tokens]
    assert names(figure.axes[0].xaxis) == tokens[: expected.shape[1]]
    assert names(figure.axes[0].yaxis) == [tokens[row] for row in dogs.rows("decoder")]


def test_a_figure_is_written_and_shown_by_a_notebook(dogs, tmp_path):
    # the second letter stands for no letter of any script, so that no font has it
    figure = dogs.plot("heads", tmp_path / "heads.png", title="头\U000f1234")
    assert (tmp_path / "heads.png").read_bytes().startswith(b"\x89PNG")
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert dogs.plot("text")._repr_png_() == dogs.plot()._repr_png_()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"what": "head"}, "no picture 'head'; did you mean 'heads'"),
        ({"what": "heads", "statistic": "entropi"}, "did you mean 'entropy'"),
        ({"kind": "cross"}, "there is no 'cross' attention here; there is decoder"),
        ({"what": "alignment", "layer": 99}, "no decoder layer 99"),
        ({"what": "alignment", "head": 99}, "no head 99"),
        ({"what": "heads", "head": 0}, "a picture of 'heads' has no use for head; leave it out"),
        ({"what": "alignment", "token": "dog"}, "a picture of 'alignment' has no use for token"),
        ({"what": "heads", "path": "heads.gif"}, "a picture ends in .png, .svg, .pdf"),
    ],
)
def test_what_is_not_there_is_told(dogs, how, says):
    with pytest.raises(RegardError, match=says):
        dogs.plot(**how)


def test_a_reading_of_nothing_and_one_too_long_are_told(dogs, monkeypatch):
    with pytest.raises(RegardError, match="no attention was read"):
        dataclasses.replace(dogs, maps={}, kept={}, sides={}, checks={}, statistics={}, tops={}).plot()
    monkeypatch.setattr(renderers, "MOST_TOKENS", 2)
    with pytest.raises(RegardError, match="more than 2 tokens has no room"):
        dogs.plot("alignment")
