"""Translation memories: the languages that are meant, the text of a segment, and what must never be followed."""

import pytest

from regard.data import tmx
from regard.data.columns import PAIR, PAIR_NAMES, TEXT_NAMES, Columns
from regard.data.tmx import read_tmx
from regard.errors import RegardError

UNITS = [[("en-US", "one"), ("fr-FR", "un")], [("fr-FR", "deux"), ("en-US", "two")]]


def memory(tmp_path, units=UNITS, *, header='srclang="en"', before="", encoding="utf-8", name="a.tmx"):
    body = "".join(
        "<tu>" + "".join(f'<tuv xml:lang="{lang}"><seg>{text}</seg></tuv>' for lang, text in unit) + "</tu>\n"
        for unit in units
    )
    path = tmp_path / name
    head = f'<?xml version="1.0" encoding="{encoding}"?>\n{before}'
    text = f'{head}<tmx version="1.4"><header {header}/><body>{body}</body></tmx>'
    path.write_bytes(text.encode(encoding))
    return path


def read(path, *keys):
    return list(read_tmx(path, Columns(PAIR_NAMES, keys) if keys else PAIR))


def refusal(path, *keys):
    with pytest.raises(RegardError) as caught:
        read(path, *keys)
    return str(caught.value)


def test_the_source_is_the_files_own_source_language_in_whatever_order_the_variants_come(tmp_path, caplog):
    assert read(memory(tmp_path)) == [("one", "un"), ("two", "deux")]
    assert "a.tmx: source is en, its source language, target is fr-FR" in caplog.text
    assert read(memory(tmp_path, header='srclang="fr-FR"')) == [("un", "one"), ("deux", "two")]


@pytest.mark.parametrize("keys", [("fr", "en"), ("FR", "en_us"), ("fr-FR", "en-US")])
def test_languages_are_chosen_with_or_without_their_region(tmp_path, keys):
    assert read(memory(tmp_path), *keys) == [("un", "one"), ("deux", "two")]


def test_what_stays_open_is_refused_with_the_languages_that_there_are(tmp_path):
    for header in ("", 'srclang="*all*"'):
        message = refusal(memory(tmp_path, header=header))
        assert "a.tmx:2: no source language in its header (srclang), and a unit in en-US, fr-FR" in message
    three = [[*unit, ("de", "eins")] for unit in UNITS]
    assert "a.tmx:2: several translations, and a unit in en-US, fr-FR, de" in refusal(memory(tmp_path, three))
    assert read(memory(tmp_path, three), "en", "de") == [("one", "eins"), ("two", "eins")]
    two = [[*unit, ("en-GB", "one")] for unit in UNITS]
    assert "a.tmx:2: 2 texts of one unit are in en; name the variant" in refusal(memory(tmp_path, two), "en", "fr")
    assert read(memory(tmp_path, two), "en-GB", "fr") == [("one", "un"), ("one", "deux")]
    assert "no unit has texts in en and it; its languages are en-US, fr-FR" in refusal(memory(tmp_path), "en", "it")
    single = [unit[:1] for unit in UNITS]
    assert "no unit has texts in 2 languages" in refusal(memory(tmp_path, single, header='srclang="en-US"'))


def test_a_unit_without_one_of_the_languages_is_a_blank_side(tmp_path):
    assert read(memory(tmp_path, [*UNITS, [("en-US", "three")]]), "en", "fr")[2] == ("three", "")


def test_a_text_is_that_of_the_segment_without_the_codes_of_the_program_that_made_it(tmp_path):
    text = 'a <bpt i="1">&lt;b&gt;</bpt>bold<ept i="1">&lt;/b&gt;</ept> <hi>new</hi> &amp; &#233;<ph><sub>x</sub></ph>'
    assert read(memory(tmp_path, [[("en", text), ("fr", "<![CDATA[<b>]]>")]])) == [("a bold new & é", "<b>")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "windows-1252"])
def test_every_encoding_that_the_file_declares_is_read(tmp_path, encoding):
    assert read(memory(tmp_path, [[("en", "one"), ("fr", "été")]], encoding=encoding)) == [("one", "été")]


@pytest.mark.parametrize("type", ["", 'SYSTEM "tmx14.dtd"', 'PUBLIC "-//LISA" "http://www.lisa.org/tmx/tmx14.dtd"'])
def test_the_document_type_of_every_tmx_is_no_fault(tmp_path, type):
    assert read(memory(tmp_path, before=f"<!DOCTYPE tmx {type}>" if type else ""))


@pytest.mark.parametrize(
    ("before", "text", "says"),
    [
        ('<!DOCTYPE tmx [<!ENTITY x SYSTEM "file:///etc/passwd">]>', "&x;", "a.tmx:2: declares the entity 'x'"),
        ('<!DOCTYPE tmx [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>', "&b;", "declares the entity 'a'"),
        ('<!DOCTYPE tmx [<!ENTITY % p SYSTEM "http://localhost/x.dtd"> %p;]>', "x", "declares the entity 'p'"),
        ('<!DOCTYPE tmx SYSTEM "http://localhost/x.dtd">', "x", "is no TMX's"),
        ('<!DOCTYPE tmx SYSTEM "tmx14.dtd">', "&x;", "the entity &x; is not declared"),
        ("", "&x;", "not whole XML"),
        ("", '<xi:include href="/etc/passwd"/>', "includes another file"),
        ("", "<hi>" * 100 + "</hi>" * 100, "nested 64 deep"),
    ],
)
def test_entities_and_other_files_are_refused_with_the_line(tmp_path, before, text, says):
    message = refusal(memory(tmp_path, [[("en", text), ("fr", "un")]], before=before))
    assert message.startswith(f"{tmp_path}/a.tmx:")
    assert says in message


@pytest.mark.parametrize("cut", [30, 60, 120, 250])
def test_a_memory_that_is_cut_off_is_refused(tmp_path, cut):
    path = memory(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    assert "not whole XML" in refusal(path)


def test_two_encodings_in_one_memory_are_refused_with_the_line(tmp_path):
    path = memory(tmp_path, [*UNITS, [("en", "three"), ("fr", "é")]])
    path.write_bytes(path.read_bytes().replace("é".encode(), "é".encode("latin-1")))
    assert "a.tmx:4: not whole XML (not well-formed (invalid token))" in refusal(path)


def test_other_xml_and_segments_without_end_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.tmx"
    path.write_text("<html><p>one</p></html>")
    assert "a.tmx:1: <html> begins no translation memory" in refusal(path)
    monkeypatch.setattr(tmx, "LONGEST_LINE", 1000)
    assert "have more than 1000 characters" in refusal(memory(tmp_path, [[("en", "x" * 2000), ("fr", "un")]]))


def test_a_language_model_learns_one_language(tmp_path):
    path = memory(tmp_path)
    assert list(read_tmx(path, Columns(TEXT_NAMES, ("fr",)))) == [("un",), ("deux",)]
    with pytest.raises(RegardError, match=r"has en-US, fr-FR; say which to read: data\.text_key"):
        list(read_tmx(path, Columns(TEXT_NAMES, (None,))))
