"""CSV, TSV, Anki's exports and lines with bars: headers, quotes and columns, and what is never guessed."""

import csv
import io
import logging

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regard.data.columns import PAIR_NAMES, TEXT, Columns
from regard.data.formats import Pair, read_pairs, write_tsv
from regard.data.tables import read_table
from regard.errors import RegardError

LETTERS = st.characters(codec="utf-8", exclude_characters="\0\r\ufeff")
CELLS = st.text(LETTERS, min_size=1, max_size=30).filter(str.strip)
SIDES = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n\t\ufeff"), min_size=1).filter(str.strip)
# what a header or a field of CSV might be taken for
TRAPS = st.sampled_from(
    ["en", "fr", "source", "target", '"a"', '"a ""b"""', '""""', '"', '"a" b', "#separator:tab", "a"]
)


def table(tmp_path, text, name="a.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def pairs_of(path, source=None, target=None):
    return list(read_pairs([path], Columns(PAIR_NAMES, (source, target))))


def refusal(path, *keys):
    with pytest.raises(RegardError) as caught:
        pairs_of(path, *keys)
    return str(caught.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=70))
def test_a_csv_of_any_separator_and_quoting_gives_what_pythons_own_writer_was_given(
    tmp_path_factory, delimiter, quoting, rows
):
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, quoting=quoting).writerows([("source", "target"), *rows])
    assert pairs_of(table(tmp_path_factory.mktemp("csv"), file.getvalue())) == rows


@given(pairs=st.lists(st.tuples(SIDES | TRAPS, SIDES | TRAPS), min_size=1, max_size=8))
@example(pairs=[("en", "fr"), ("a", "b")])
@example(pairs=[('"a"', '"b"'), ('"c"', "d")])
@example(pairs=[("a", "b"), ('"say ""c"""', "d")])
def test_what_is_written_as_tsv_is_read_again_whatever_it_looks_like(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    assert write_tsv(path, [Pair(*pair) for pair in pairs]) == len(pairs)
    assert pairs_of(path) == pairs


def test_quotes_are_text_in_a_tsv_but_where_they_can_only_be_those_of_csv(tmp_path, caplog):
    text = 'He left.\tIl partit.\n"Yes," he said.\t"Oui."\n"Say ""no""."\t"Dis ""non""."\n"Never\t« Jamais\n'
    assert pairs_of(table(tmp_path, text, "a.tsv")) == [
        ("He left.", "Il partit."),
        ('"Yes," he said.', '"Oui."'),
        ('Say "no".', 'Dis "non".'),
        ('"Never', "« Jamais"),
    ]
    assert "a.tsv:3: quotes of CSV around a field removed" in caplog.text
    quoted = table(tmp_path, '"en"\t"fr"\n"Yes."\t"Oui."\n"Never\t« Jamais\n', "b.tsv")
    assert pairs_of(quoted) == [("Yes.", "Oui."), ('"Never', "« Jamais")]
    assert "b.tsv: its fields are in quotes, which are removed" in caplog.text


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('source,target\na,b\n"c,d\ne,f\n', 3, "a quote that opens here never closes"),
        ('source,target\na,b\n"c" d,e\n', 3, "not CSV"),
        ("source,target\na,b\nc\n", 3, "1 column where two are needed"),
        ("source,target\na,b\n\nc,d,e\n", 4, "3 columns where two are needed"),
        ("id,en,fr\n1,a,b\n2,c\n", 3, "2 columns, parted by comma, where the first row has 3"),
    ],
)
def test_a_csv_that_is_none_is_refused_with_the_line_where_its_row_begins(tmp_path, text, line, says):
    assert f"a.csv:{line}: {says}" in refusal(table(tmp_path, text), *(("en", "fr") if "en" in text[:9] else ()))


def test_a_quote_that_never_closes_is_not_looked_for_beyond_the_longest_line(tmp_path, monkeypatch):
    monkeypatch.setattr("regard.data.tables.LONGEST_LINE", 1000)
    path = table(tmp_path, 'source,target\na,b\n"c,d\n' + "e,f\n" * 1000)
    assert "a.csv:3: a quote that opens here does not close within 1000 characters" in refusal(path)


@pytest.mark.parametrize("header", ["en,fr", "EN,fr-FR", "English,French", "source,target", "src,tgt", "zh_Hant,it"])
def test_a_first_row_that_names_languages_or_sides_is_a_header_and_the_log_says_so(tmp_path, header, caplog):
    assert pairs_of(table(tmp_path, f"{header}\none,un\n")) == [("one", "un")]
    assert "a.csv:1: the first line names the columns" in caplog.text


@pytest.mark.parametrize("row", ["one,un", "French,Français", "no,no", "Hello.,Salut.", "中文,英文"])
def test_a_first_row_of_other_words_is_a_pair(tmp_path, row):
    assert pairs_of(table(tmp_path, f"{row}\ntwo,deux\n")) == [tuple(row.split(",")), ("two", "deux")]


def test_a_first_row_that_may_be_a_header_is_a_pair_and_is_told(tmp_path, caplog):
    rows = "".join(f"A sentence with number {n}.,Une phrase avec numéro {n}.\n" for n in range(9))
    assert len(pairs_of(table(tmp_path, f"Anfang,Ende\n{rows}"))) == 10
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "a.csv:1: Anfang / Ende is read as a pair; if it names the columns, say so" in caplog.text


def test_columns_are_chosen_by_name_or_number_and_never_guessed(tmp_path):
    named = table(tmp_path, "id,en,fr\n1,one,un\n", "named.csv")
    assert pairs_of(named, "fr", "en") == pairs_of(named, 3, 2) == pairs_of(named, "3", "en") == [("un", "one")]
    assert "named.csv:1: has the columns 'id', 'en', 'fr'; say which to read: data.source_key" in refusal(named)
    assert "there is no column 'eng'; did you mean 'en'?" in refusal(named, "eng", "fr")
    assert "source and target are both column 'en'" in refusal(named, "en", "en")
    plain = table(tmp_path, "7\tone\t8\tun\n", "plain.tsv")
    assert pairs_of(plain, 2, 4) == [("one", "un")]
    assert "4 columns where two are needed" in refusal(plain)
    assert "such as data.source_key = 1 and data.target_key = 2" in refusal(plain)
    assert "there is no column 5" in refusal(plain, 2, 5)


def test_a_table_without_names_is_not_taken_for_one_with_the_names_that_were_given(tmp_path):
    message = refusal(table(tmp_path, "one\tun\n", "a.tsv"), "en", "fr")
    assert "a.tsv:1: the first line does not name 'en' and 'fr'; if its columns have no names" in message


@pytest.mark.parametrize("text", ['sep="\na,b\n', "#separator:dots\na,b\n"])
def test_what_cannot_part_columns_is_refused(tmp_path, text):
    assert "cannot part columns" in refusal(table(tmp_path, text))


def test_a_csv_whose_separator_stays_open_is_refused(tmp_path):
    assert "may be parted by comma or by semicolon" in refusal(table(tmp_path, "a, b;c d\ne, f;g h\n"))
    assert pairs_of(table(tmp_path, "a, b;c d\ne f;g h\n")) == [("a, b", "c d"), ("e f", "g h")]
    assert pairs_of(table(tmp_path, "en;fr\na, b;c, d\n")) == [("a, b", "c, d")]


def test_the_attribution_of_sentences_from_tatoeba_is_left_out_and_any_other_third_column_refused(tmp_path, caplog):
    lines = [f"one {n}\tun {n}\tCC-BY 2.0 (France) Attribution: tatoeba.org #{n}" for n in range(3)]
    path = table(tmp_path, "\n".join([*lines, "last\tdernier\t"]), "fra.txt")
    assert pairs_of(path) == [*((f"one {n}", f"un {n}") for n in range(3)), ("last", "dernier")]
    assert "fra.txt:1: its last column, an attribution or nothing, is left out" in caplog.text
    path = table(tmp_path, "\n".join([*lines, "last\tdernier\tultimate"]), "fra.txt")
    assert "fra.txt:4: 3 columns where two are needed" in refusal(path)


def test_ankis_own_export_loses_its_directives_tags_and_markup(tmp_path, caplog):
    text = '#separator:tab\n#html:true\n#tags column:3\nA&nbsp;<b>b</b><br>c\t"D ""e"""\ttag\nf\tg\t\n'
    assert pairs_of(table(tmp_path, text, "deck.txt")) == [("A b c", 'D "e"'), ("f", "g")]
    assert "deck.txt: Anki's HTML is removed" in caplog.text
    semicolons = "#separator:Semicolon\n#columns:Front;Back;Tags\n#tags column:3\na;b;c\n"
    assert pairs_of(table(tmp_path, semicolons, "deck.txt")) == [("a", "b")]


def test_the_separator_that_a_csv_names_for_excel_is_taken(tmp_path):
    assert pairs_of(table(tmp_path, "sep=;\na, b;c, d\ne;f\n")) == [("a, b", "c, d"), ("e", "f")]


@given(pairs=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=8))
def test_bars_between_the_sides_are_read_as_tabs_are(tmp_path_factory, pairs):
    pairs = [tuple(side.replace("|", "").strip() or "x" for side in pair) for pair in pairs]
    text = "".join(f"{source} ||| {target}\n" for source, target in [("the first", "la première"), *pairs])
    path = table(tmp_path_factory.mktemp("bars"), text, "a.txt")
    assert pairs_of(path)[1:] == pairs


def test_bars_must_be_on_every_line(tmp_path):
    assert 'a.txt:2: 1 column where two are needed: source, " ||| ", target' in refusal(
        table(tmp_path, "a ||| b\nc\n", "a.txt")
    )


def test_a_language_model_takes_one_column_and_does_not_learn_commas(tmp_path):
    path = table(tmp_path, 'id,text\n1,"One, two.\nThree."\n2,Four.\n')
    assert list(read_table(path, TEXT)) == [("One, two.\nThree.",), ("Four.",)]
    assert list(read_table(table(tmp_path, "One.\nTwo.\n"), TEXT)) == [("One.",), ("Two.",)]
    pairs = table(tmp_path, "en,fr\none,un\n")
    assert list(read_table(pairs, Columns(("text",), ("fr",)))) == [("un",)]
    with pytest.raises(RegardError, match=r"a\.csv:1: 2 columns, parted by comma, where one text is wanted; say which"):
        list(read_table(pairs, TEXT))


def test_blank_lines_stay_records_so_that_lines_of_links_keep_their_pairs(tmp_path):
    assert list(read_table(table(tmp_path, "\none,un\n\n,x\n"), Columns(PAIR_NAMES, (None, None)))) == [
        ("", ""),
        ("one", "un"),
        ("", ""),
        ("", "x"),
    ]
