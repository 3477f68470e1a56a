"""Numbers in words, English and French: a translation task without end, as long or as short as one likes."""

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from num2words import num2words

from regard.data.formats import Pair, write_tsv

SIZES = {"train": 30_000, "dev": 500, "test": 1_500}
# of the 900 numbers with three digits; those with fewer are all for training
THREE_DIGITS = {"dev": 22, "test": 68}
MOST_DIGITS = 15
SEED = 20150519


def write_numbers(folder: Path) -> None:
    """Split files of number names, from one word to 24, of numbers below 10^15."""
    for split, numbers in split_numbers().items():
        write_tsv(folder / f"{split}.tsv", number_pairs(numbers))


def number_pairs(numbers: Iterable[int]) -> Iterator[Pair]:
    """Each number in English and in French."""
    for number in numbers:
        yield Pair(num2words(number, lang="en"), num2words(number, lang="fr"))


def split_numbers() -> dict[str, list[int]]:
    """Numbers below 10**15 for each split, no number in two, as many of each count of digits as there are."""
    generator = random.Random(SEED)
    short = generator.sample(range(100, 1000), 900)
    splits: dict[str, list[int]] = {}
    seen: set[int] = set()
    for split in ("test", "dev", "train"):
        numbers = [short.pop() for _ in range(THREE_DIGITS.get(split, len(short)))]
        if split == "train":
            numbers += range(100)
        while len(numbers) < SIZES[split]:
            digits = generator.randint(4, MOST_DIGITS)
            number = generator.randrange(10 ** (digits - 1), 10**digits)
            if number not in seen:
                seen.add(number)
                numbers.append(number)
        generator.shuffle(numbers)
        splits[split] = numbers
    return splits
