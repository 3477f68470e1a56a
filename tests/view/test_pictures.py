"""Heat lies where the patches lie: against every pixel painted one by one, and against shares summed by hand."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from rich.console import Console
from tests.view import pictured

from regard.errors import RegardError
from regard.reading.media import ImageArea
from regard.view.folds import folds
from regard.view.heat import over
from regard.view.picture_terminal import digits, half_blocks, picture_view
from regard.view.pictures import has_pictures, looks
from regard.view.pixels import pixels
from regard.view.shares import shares

Image = pytest.importorskip("PIL.Image")
MAKERS = {name: getattr(pictured, name) for name in ("asked", "tiled", "seen", "crossed")}


def painted(areas, weights, picture, times=3):
    """Weight for every pixel, each pixel cut into 3 × 3 so that thirds are exact, one patch after another."""
    canvas = np.zeros((picture.height * times, picture.width * times))
    for area, weight in zip(areas, weights, strict=True):
        left, top, right, bottom = (round(times * edge) for edge in area[3:])
        canvas[top:bottom, left:right] += weight / ((right - left) * (bottom - top) / times**2)
    return canvas


def spread(heat, times=3):
    """The heat for every such pixel."""
    rows, columns = (np.round(edges * times).astype(int) for edges in (heat.ys, heat.xs))
    return np.repeat(np.repeat(heat.density, np.diff(rows), 0), np.diff(columns), 1) / heat.unit


def mean(reading, kind, rows, layer=None, head=None):
    tables = [reading.maps[place] for place in reading.maps if layer is None or place == (kind, layer)]
    return np.concatenate(tables)[slice(None) if head is None else [head]][:, rows].mean(axis=(0, 1), dtype=float)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("where", [{}, {"layer": 1}, {"layer": 0, "head": 1}])
def test_the_heat_of_every_pixel_is_the_weight_of_the_patches_over_it(name, where):
    reading = MAKERS[name]()
    found = looks(reading, **where)
    kind = reading.kinds[0]
    weights = mean(reading, kind, list(range(len(reading.rows(kind)))), **where)
    keys = reading.keys(kind)
    assert [heat.number for heat in found.heats] == list(range(len(reading.media)))
    for heat in found.heats:
        own = [place for place, key in enumerate(keys) if key.area and key.area.image == heat.number]
        expected = painted([keys[place].area for place in own], weights[own], heat.picture)
        np.testing.assert_allclose(spread(heat), expected, atol=1e-9)
        assert heat.share == pytest.approx(weights[own].sum())
    assert sum(share for _, share in found.shares) == pytest.approx(1, abs=1e-6)


def test_the_density_of_equal_patches_is_their_weight():
    reading = pictured.asked()
    (heat,) = looks(reading, token="red", layer=0, head=0).heats
    weights = reading.weights("decoder", 0)[0, 1]
    np.testing.assert_allclose(heat.density, weights[2:26].reshape(4, 6), rtol=1e-6)
    assert heat.scale == "weight of a patch"
    assert heat.density.argmax() == 7


def test_of_a_thumbnail_and_tiles_the_heat_is_the_sum_and_its_scale_says_so():
    reading = pictured.tiled()
    first, second = looks(reading, token="disc").heats
    # nine patches in each quarter of 60 × 40, and a quarter of the thumbnail over them
    assert first.unit == pytest.approx(60 * 40 / 9)
    assert first.scale == "weight of 267 pixels"
    assert (first.grid, second.grid) == ("40 patches", "5×3 patches")
    assert set(np.unique(first.coverage)) == {2}


def test_every_written_token_has_its_own_heat():
    reading = pictured.asked()
    found = looks(reading)
    assert [name for name, _ in found.by_token] == [f"“{token.strip()}”" for token in pictured.ANSWER]
    for row, (_, (heat,)) in enumerate(found.by_token):
        np.testing.assert_allclose(heat.density.ravel(), mean(reading, "decoder", [row])[2:26], rtol=1e-6)


def test_class_token_registers_text_answer_and_first_token_stand_apart():
    reading = pictured.seen()
    found = looks(reading)
    weights = mean(reading, "vision", list(range(28)))
    shares_of = dict(found.shares)
    assert shares_of.keys() == {"image 1", "class token", "registers"}
    assert shares_of["class token"] == pytest.approx(weights[0], rel=1e-5)
    assert shares_of["registers"] == pytest.approx(weights[1:3].sum(), rel=1e-5)
    assert [name for name, _ in found.by_token] == ["“class token”", "“register 0”", "“register 1”"]
    (own,) = looks(reading, token="class token").heats
    np.testing.assert_allclose(own.density[:, 1:-1].ravel(), mean(reading, "vision", [0])[3:], rtol=1e-5)
    assert list(dict(looks(pictured.asked()).shares)) == ["image 1", "text", "the answer itself", "first token <s>"]


def test_the_text_shows_a_picture_as_one_piece_and_keeps_it_out_of_its_parts():
    reading = pictured.tiled()
    found = shares(reading)
    told = [piece.text for piece in found.pieces if piece.is_folded]
    weights = mean(reading, "decoder", list(range(7)))
    assert [each.split(":")[0].strip(" [") for each in told] == ["image 1 · 40 patches", "image 2 · 5×3 patches"]
    assert found.images == pytest.approx(weights[2:42].sum() + weights[43:58].sum(), rel=1e-5)
    assert found.prompt + found.images + found.answer + found.first == pytest.approx(1, abs=1e-6)
    assert not any("image patch" in part.text for part in found.parts)
    assert not any("patch" in word.text for part in found.parts for word in part.words)


@pytest.mark.parametrize("has_turns", [True, False])
def test_a_chat_tells_the_role_of_a_message_with_pictures_once(has_turns):
    found = shares(pictured.chatted(has_turns=has_turns))
    told = "".join(piece.text for piece in found.pieces)
    shown = re.sub(r": [\d.]+ %", "", " ".join(told.split()))
    assert shown == "user: [image 1 · 2×3 patches] [image 2 · 3×2 patches] What is red? assistant:"
    assert [part.text for part in found.parts] == ["What is red?"]
    total = found.prompt + found.template + found.images + found.answer + found.first
    assert total == pytest.approx(1, abs=1e-6)


def test_separators_between_rows_belong_to_the_picture_and_words_do_not():
    rows = pictured.grid(0, 2, 3, (0, 0, 120, 80))
    tokens = pictured.sequence(["<s>", *rows[:3], "\n", *rows[3:], " and", " then", " a", " last", *rows]).tokens
    first, second = folds(tokens)
    assert (first.first, first.last, second.first, second.last) == (1, 8, 12, 18)
    assert second.name == "image 1 · 2×3 patches"


def test_what_was_gathered_is_one_piece_without_a_place():
    reading = pictured.asked(areas=[f"[gathered image {place}]" for place in range(9)])
    (fold,) = folds(reading.sequences["text"].tokens)
    assert fold.name == "image · 9 vectors"
    assert not has_pictures(reading)
    weights = mean(reading, "decoder", list(range(7)))
    assert shares(reading).images == pytest.approx(weights[2:11].sum(), rel=1e-5)


def test_padding_belongs_to_its_picture_and_is_counted_apart():
    padding = ["[image padding 0]", "[image padding 1]", "[image padding 2]"]
    areas = [*padding, *pictured.grid(0, 2, 3, (0, 0, 120, 80)), *padding, *padding]
    reading = pictured.asked(areas=areas, before=("<s>",))
    (fold,) = folds(reading.sequences["text"].tokens)
    assert (fold.name, fold.first, fold.last) == ("image 1 · 2×3 patches", 1, 16)
    weights = mean(reading, "decoder", list(range(7)))
    padded = weights[1:4].sum() + weights[10:16].sum()
    assert dict(looks(reading).shares)["image padding"] == pytest.approx(padded, rel=1e-5)


def test_patches_beyond_the_picture_are_counted_and_not_drawn():
    areas = [
        *pictured.grid(0, 2, 2, (0, 0, 120, 80)),
        ImageArea(0, 2, 0, 0, 80, 60, 120),
        ImageArea(0, 2, 1, 60, 80, 120, 120),
    ]
    found = looks(pictured.asked(areas=areas))
    assert found.heats[0].density.shape == (2, 2)
    assert "image patches that have no place" in dict(found.shares)
    assert sum(share for _, share in found.shares) == pytest.approx(1, abs=1e-6)


def test_what_is_not_there_is_said():
    reading = pictured.seen()
    with pytest.raises(RegardError, match="no picture"):
        looks(dataclasses.replace(reading, media=[]))
    with pytest.raises(RegardError, match="this reading has no 'decoder' attention"):
        looks(reading, kind="decoder")
    with pytest.raises(RegardError, match="no attention looks at patches"):
        looks(dataclasses.replace(pictured.asked(areas=[" none"])))
    with pytest.raises(RegardError, match="no head 5"):
        looks(reading, layer=0, head=5)
    assert not has_pictures(dataclasses.replace(reading, media=[]))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_every_format_is_drawn_upright_and_in_rgb(form):
    image = pixels(pictured.drawn(form=form), 1000)
    assert image.shape == (80, 120, 3)
    assert image[24, 30] @ [1, -1, 0] > 90
    assert image[56, 90] @ [-1, 0, 1] > 90
    assert pixels(pictured.drawn(form=form), 30).shape == (20, 30, 3)


def encoded(mode, value, **how):
    file = io.BytesIO()
    Image.new(mode, (6, 4), value).save(file, "PNG", **how)
    return dataclasses.replace(pictured.drawn(), data=file.getvalue(), width=6, height=4)


def test_other_modes_are_drawn_as_they_look():
    assert pixels(encoded("I;16", 65535), 9).min() == 255
    assert pixels(encoded("RGBA", (0, 0, 0, 0)), 9).min() == 255
    assert pixels(encoded("L", 7), 9).max() == 7


def test_a_damaged_or_exchanged_picture_is_refused():
    picture = pictured.drawn()
    with pytest.raises(RegardError, match="damaged"):
        pixels(dataclasses.replace(picture, data=picture.data[:200]), 100)
    with pytest.raises(RegardError, match="is 120 × 80, not"):
        pixels(dataclasses.replace(picture, width=999), 100)
    with pytest.raises(RegardError, match="svg"):
        pixels(dataclasses.replace(picture, media_type="image/svg+xml"), 100)
    with pytest.raises(RegardError, match="pixels are not drawn"):
        pixels(dataclasses.replace(picture, width=99_999, height=99_999), 100)


@pytest.mark.parametrize("name", [*MAKERS, "chatted"])
def test_the_still_of_a_notebook_has_every_picture_with_its_heat(name):
    reading = getattr(pictured, name)()
    html = reading._repr_html_()
    images = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    for image, heat in zip(images, looks(reading).heats, strict=True):
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(image))), dtype=float)
        assert drawn.shape == (heat.picture.height, heat.picture.width, 3)
        reds = drawn[..., 0] - drawn[..., 1]
        row, column = np.unravel_index(reds.argmax(), reds.shape)
        hottest = np.unravel_index(heat.density.argmax(), heat.density.shape)
        places = [np.searchsorted(edges, place + 0.5) - 1 for edges, place in ((heat.ys, row), (heat.xs, column))]
        assert tuple(places) == hottest
    assert "image patch (" not in html
    assert ("The red disc" in html) == (name in ("asked", "tiled", "chatted"))


def shown(reading, *, width=80, colour=None, **where):
    file = io.StringIO()
    console = Console(width=width, file=file, force_terminal=colour is not None, color_system=colour, no_color=False)
    console.print(*picture_view(reading, segments="sentences", **where), sep="\n")
    return file.getvalue()


def test_places_of_a_terminal_have_the_mean_of_what_they_cover():
    (heat,) = looks(pictured.asked()).heats
    places = over(heat, 8, 12)
    np.testing.assert_allclose(places, np.kron(heat.density, np.ones((2, 2))), rtol=1e-9)
    assert over(heat, 5, 7).mean() == pytest.approx(heat.density.mean())


def test_half_blocks_are_reddest_where_the_weight_is():
    (heat,) = looks(pictured.asked(), token="disc").heats
    lines = half_blocks(heat, 60)
    assert len(lines) == 20
    assert {line.cell_len for line in lines} == {60}

    def redness(line, column):
        red, green, _ = next(span.style for span in lines[line].spans if span.start <= column < span.end).color.triplet
        return red - green

    reds = np.array([[redness(line, column) for column in range(60)] for line in range(20)])
    # row 1 and column 1 of 4 × 6
    assert reds[5:10, 10:20].min() > 100
    reds[5:10, 10:20] = 0
    assert reds.max() < 60


def test_without_colour_digits_say_tenths_of_the_strongest_patch():
    (heat,) = looks(pictured.asked(), token="disc").heats
    lines = [line.plain for line in digits(heat, 60)]
    assert [line[2:4] for line in lines][1] == "99"
    text = shown(pictured.asked())
    assert "\x1b" not in text
    assert "digits are tenths of 21.4 %" in text
    (middle,) = looks(pictured.seen()).heats
    # beside the patches nothing was looked at
    assert {line.plain[0] for line in digits(middle, 60)} == {" "}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("width", [24, 80, 200])
@pytest.mark.parametrize("colour", [None, "standard", "256", "truecolor"])
def test_no_line_is_wider_than_the_terminal(name, width, colour):
    from rich.text import Text

    reading = MAKERS[name]()
    for line in Text.from_ansi(shown(reading, width=width, colour=colour)).split("\n"):
        assert line.cell_len <= width
