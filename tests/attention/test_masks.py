"""Masks are True where a query may look, and leave every query something to look at."""

import pytest
import torch

from regard.attention.masks import causal_mask, padding_mask
from regard.errors import RegardError


@pytest.mark.parametrize(("lengths", "size"), [([1], 1), ([3, 1, 5], 5), ([2, 2], 7)])
def test_padding_is_what_comes_after_each_length(lengths, size):
    mask = padding_mask(torch.tensor(lengths), size)
    assert mask.tolist() == [[position < length for position in range(size)] for length in lengths]


@pytest.mark.parametrize("lengths", [[0], [3, 0], [0, 0], [-1, 2], [6], [1, 6]])
def test_a_length_that_is_none_or_too_much_is_refused_with_the_lengths(lengths):
    with pytest.raises(RegardError, match=r"must lie in 1 to 5, not \[.*\]; leave empty ones out") as refused:
        padding_mask(torch.tensor(lengths), 5)
    assert str(lengths) in str(refused.value)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_causal_query_looks_at_itself_and_at_what_came_before(size):
    assert causal_mask(size).tolist() == [[key <= query for key in range(size)] for query in range(size)]
