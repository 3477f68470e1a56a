"""Help pages as sentence pairs, from fabricated pages."""

import pytest

from regard.data.libreoffice import align_paragraphs, read_help, read_paragraphs


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<p id="a">One\n  <span class="emph">bold</span>&nbsp;&amp; two.</p>', "One bold & two."),
        ('<h2 id="a" dir="auto"> A <a href="x">link</a> </h2>', "A link"),
        ('<p id="a">One.<br>Two.<br/>Three.</p>', "One. Two. Three."),
        ('<p id="a">See <img alt="picture" src="x"><b>it</b>.</p>', "See it."),
        (
            '<p id="a">Press <span class="switchinline"><span hidden="true" id="MACx" class="MAC"><b>Command</b></span>'
            '<span hidden="true" id="defaultx">Ctrl</span></span>+F.</p>',
            "Press Ctrl+F.",
        ),
    ],
)
def test_a_paragraph_is_its_text(html, text):
    assert read_paragraphs(html) == [("a", text)]


@pytest.mark.parametrize(
    "html",
    [
        "<p>no identity</p>",
        '<p id="">no identity</p>',
        '<p id="a">  <br> </p>',
        '<div class="bascode"><div><p id="a">Dim x</p></div></div>',
        '<p id="a" class="code">SELECT</p>',
        '<script>var x = "<p id=a>x</p>"</script>',
        '<!-- <p id="a">x</p> -->',
        '<p id="a">never closed',
        '<li id="a">another tag</li>',
    ],
)
def test_what_is_no_paragraph_of_text_is_left_out(html):
    assert read_paragraphs(html) == []


def test_paragraphs_after_code_and_inside_of_hidden_parts_are_read():
    html = (
        '<div class="bascode"><pre>x</pre></div><p id="a">one</p></div>'
        '<span class="switch"><span hidden="true" class="WRITER"><p id="b">two</p></span></span><p id="c">three</p>'
    )
    assert read_paragraphs(html) == [("a", "one"), ("b", "two"), ("c", "three")]


def test_the_same_identity_in_two_pages_is_two_paragraphs(monkeypatch):
    pages = [
        ("./usr/share/libreoffice/help/de/text/a.html", '<p id="x">eins</p><p id="x">wieder</p>'),
        ("./usr/share/libreoffice/help/de/text/b.html", '<p id="x">zwei</p>'),
        ("./usr/share/libreoffice/help/de/noscript.html", '<p id="x">drei</p>'),
    ]
    monkeypatch.setattr("regard.data.libreoffice.read_deb", lambda package, suffix: iter(pages))
    assert read_help(None) == {("a.html", "x"): "eins", ("b.html", "x"): "zwei"}


def pairs(*sides):
    """Aligned pairs of these texts, each at a place of its own."""
    source, target = ({("page", f"{n:02}"): side[n] for n in range(len(side))} for side in zip(*sides, strict=True))
    return align_paragraphs(source, target)


def test_only_paragraphs_in_both_are_paired():
    assert align_paragraphs({("a", "1"): "one", ("a", "2"): "two"}, {("a", "2"): "zwei", ("b", "1"): "drei"}) == [
        ("two", "zwei")
    ]
    assert align_paragraphs({}, {("b", "1"): "drei"}) == []


def test_what_is_not_translated_is_left_out_and_a_pair_comes_once():
    given = [
        ("Open the file", "Datei öffnen"),
        ("=SUM(A1)", "=SUM(A1)"),
        ("=SUM(A1)", "「=SUM(A1)」"),
        ("Format...", "format"),
        ("2011-09-30", "30.09.2011"),
        ("Open the file", "Datei öffnen"),
        ("Open the file", "Datei auf"),
    ]
    assert pairs(*given) == [("Open the file", "Datei öffnen"), ("Open the file", "Datei auf")]


def test_a_pair_whose_length_ratio_is_three_times_the_usual_is_left_out():
    # the median is a target half as long
    usual = [(word * 8, f"{word}xxx") for word in "abcdefgh"]
    assert pairs(*usual, ("y" * 8, "z" * 12), ("w" * 8, "u" * 13), ("w" * 8, "v" * 2), ("q" * 8, "p")) == [
        *usual,
        ("y" * 8, "z" * 12),
        ("w" * 8, "v" * 2),
    ]
