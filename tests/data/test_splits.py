"""Splits that share no near-duplicates."""

import itertools
import random

import pytest

from regard.data.formats import Pair, read_pairs
from regard.data.links import Links, read_links
from regard.data.near_duplicates import letters, near_duplicates
from regard.data.splits import split_pairs, write_splits


@pytest.fixture(scope="module")
def pairs():
    """Sentences of random words; every third comes again with another number, and the first 40 end alike."""
    generator = random.Random(7)
    words = ["".join(generator.choices("abcdefghijklmnop", k=5)) for _ in range(2000)]
    made = []
    for number in range(600):
        source, target = (" ".join(generator.choices(words, k=8)) for _ in range(2))
        made.append(Pair(f"{source} 1", target if number >= 40 else "OK"))
        if number % 3 == 0:
            made.append(Pair(f"{source.upper()} 2", " ".join(generator.choices(words, k=8))))
    return made


def test_no_near_duplicates_are_in_two_splits(pairs):
    splits = split_pairs(pairs, 50)
    groups = near_duplicates(pairs)
    found = [{groups[index] for index in indices} for indices in splits.values()]
    assert all(not one & other for one, other in itertools.combinations(found, 2))
    sources = [{letters(pairs[index].source) for index in indices} for indices in splits.values()]
    assert all(not one & other for one, other in itertools.combinations(sources, 2))


def test_held_out_pairs_are_as_many_as_asked_and_no_two_are_near_duplicates(pairs):
    splits = split_pairs(pairs, 50)
    groups = near_duplicates(pairs)
    for split in ("dev", "test"):
        assert len({groups[index] for index in splits[split]}) == len(splits[split]) == 50
    dropped = set(range(len(pairs))) - set(itertools.chain(*splits.values()))
    held_out = {groups[index] for split in ("dev", "test") for index in splits[split]}
    assert dropped
    assert all(groups[index] in held_out for index in dropped)


def test_a_group_that_hangs_together_by_chance_is_for_training(pairs):
    # 40 pairs of 800 share a target, which is more than one in a hundred
    assert set(range(30)) <= set(split_pairs(pairs, 279)["train"])


def test_a_sentence_keeps_its_split_when_the_lines_are_shuffled_and_others_come(pairs):
    before = {split: {pairs[index] for index in indices} for split, indices in split_pairs(pairs, 50).items()}
    more = [*pairs, Pair("something else entirely", "etwas ganz anderes")]
    random.Random(1).shuffle(more)
    after = {split: {more[index] for index in indices} for split, indices in split_pairs(more, 50).items()}
    for split in ("dev", "test"):
        # one newcomer moves at most the last of each split over its end
        assert len(before[split] & after[split]) >= 49
    assert len(before["train"] & after["train"]) >= len(before["train"]) - 2


def test_links_are_written_beside_their_pairs(tmp_path, pairs):
    links = [Links(*[frozenset({(index % 8, 0)})] * 2) for index in range(len(pairs))]
    write_splits(tmp_path, pairs, links=links, held_out=20)
    of = dict(zip(pairs, links, strict=True))
    for split in ("train", "dev", "test"):
        written = list(read_pairs([tmp_path / f"{split}.tsv"]))
        assert list(read_links(tmp_path / f"{split}.links", written)) == [of[pair] for pair in written]
    assert len(written) == 20
