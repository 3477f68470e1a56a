"""Gold links: one line for each pair, refused with file and line where it cannot be what is meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data.corpus import Corpus
from regard.data.formats import Pair
from regard.data.links import Links, format_links, read_links, write_links
from regard.errors import RegardError

PAIRS = [Pair("the red house", "la maison rouge"), Pair("yes", "oui")]


def links(sure=(), possible=()):
    return Links(frozenset(sure), frozenset(sure) | frozenset(possible))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dev.links"


def test_sure_and_possible_links_are_read(path):
    path.write_text("0-0 1-2 2?1\n\n")
    assert list(read_links(path, PAIRS)) == [links([(0, 0), (1, 2)], [(2, 1)]), links()]


def test_a_link_that_is_given_both_ways_is_sure(path):
    path.write_text("0?0 0-0\n0-0\n")
    assert next(read_links(path, PAIRS)) == links([(0, 0)])


def test_han_characters_are_words_of_their_own(path):
    path.write_text("1-2\n")
    assert list(read_links(path, [Pair("two words", "两个词")])) == [links([(1, 2)])]
    path.write_text("1-3\n")
    with pytest.raises(RegardError, match="3 target words"):
        list(read_links(path, [Pair("two words", "两个词")]))


@pytest.mark.parametrize("word", ["1", "1-", "-1", "1–1", "a-b", "0-0-0", "0.0", "1?-1", "٠-٠", "0-" + "9" * 5000])
def test_what_is_no_link_is_refused_with_file_and_line(path, word):
    path.write_text(f"0-0\n0-0 {word}\n")
    with pytest.raises(RegardError, match=r"dev\.links:2: .* is no link; write i-j"):
        list(read_links(path, PAIRS))


@pytest.mark.parametrize("link", ["3-0", "0-3", "0?3"])
def test_a_link_past_the_sentence_is_refused_with_its_length(path, link):
    path.write_text(f"2-2 {link}\n0-0\n")
    with pytest.raises(RegardError, match=r"dev\.links:1: .* points past the sentence.*3 source and 3 target words"):
        list(read_links(path, PAIRS))


@pytest.mark.parametrize(("text", "lines"), [("0-0\n", 1), ("0-0\n0-0\n0-0\n", 3)])
def test_more_or_fewer_lines_than_pairs_are_refused(path, text, lines):
    path.write_text(text)
    with pytest.raises(RegardError, match=rf"dev\.links has {lines} lines for 2 pairs"):
        list(read_links(path, PAIRS))


@given(st.lists(st.tuples(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 6)))), min_size=1, max_size=5))
def test_what_is_written_is_read_again(tmp_path_factory, sets):
    path = tmp_path_factory.mktemp("links") / "a.links"
    written = [links({link for link in found if sum(link) % 2}, found) for (found,) in sets]
    write_links(path, written)
    pairs = [Pair("a b c d e", "a b c d e f g")] * len(written)
    assert list(read_links(path, pairs)) == written


def test_a_line_of_links_is_in_pharaoh_format():
    assert format_links(links([(10, 0), (2, 1)], [(2, 0)])) == "2?0 2-1 10-0"


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("".join(f"source {n}\ttarget {n}\n" for n in range(30)))
    return path


def test_links_stay_with_their_pairs_where_blank_pairs_are_dropped(tmp_path, path, train):
    dev = tmp_path / "dev.tsv"
    dev.write_text("one two\tun deux\n\t\n \tdrei\nthree\ttrois\n")
    path.write_text("0-0 1-1\n\n\n0-0\n")
    corpus = Corpus.from_files(train, dev=dev, links={"dev": path})
    expected = [(("one two", "un deux"), links([(0, 0), (1, 1)])), (("three", "trois"), links([(0, 0)]))]
    assert list(corpus.gold("dev")) == expected
    assert [pair for pair, _ in corpus.gold("dev")] == list(corpus.pairs("dev"))


def test_links_of_two_aligned_files_and_of_jsonl_are_counted_by_line(tmp_path, path, train):
    (tmp_path / "a.en").write_text("one two\n\nthree\n")
    (tmp_path / "a.fr").write_text("un deux\n\ntrois\n")
    (tmp_path / "a.jsonl").write_text('{"source": "a", "target": "b"}\n\n{"source": "c d", "target": "e"}\n')
    path.write_text("1-1\n\n0-0\n")
    other = tmp_path / "test.links"
    other.write_text("0-0\n\n1-0\n")
    aligned = [tmp_path / "a.en", tmp_path / "a.fr"]
    corpus = Corpus.from_files(train, aligned, tmp_path / "a.jsonl", links={"dev": path, "test": str(other)})
    assert [found.sure for _, found in corpus.gold("dev")] == [{(1, 1)}, {(0, 0)}]
    assert [found.sure for _, found in corpus.gold("test")] == [{(0, 0)}, {(1, 0)}]


def test_links_for_a_split_without_a_file_of_its_own_are_refused(path, train):
    with pytest.raises(RegardError, match=r"dev\.links: gold links for dev, but dev has no file of its own"):
        Corpus.from_files(train, links={"dev": path})


def test_a_split_without_links_has_no_gold(path, train):
    with pytest.raises(RegardError, match="no gold links for dev"):
        Corpus.from_files(train, dev=train).gold("dev")
    with pytest.raises(RegardError, match="did you mean 'dev'"):
        Corpus.from_files(train, dev=train).gold("devs")


def test_too_few_links_for_a_corpus_are_refused(path, train):
    path.write_text("0-0\n" * 29)
    corpus = Corpus.from_files(train, dev=train, links={"dev": path})
    with pytest.raises(RegardError, match=r"dev\.links has 29 lines for 30 pairs"):
        list(corpus.gold("dev"))


def test_links_of_train_leave_out_what_is_held_out(path, train):
    path.write_text("".join(f"{n % 2}-0\n" for n in range(30)))
    corpus = Corpus.from_files(train, links={"train": path})
    found = list(corpus.gold("train"))
    assert [pair for pair, _ in found] == list(corpus.pairs("train"))
    assert len(found) == 28
    assert all(each.sure == {(int(pair.source.split()[1]) % 2, 0)} for pair, each in found)
