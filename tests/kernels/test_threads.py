"""The number of threads that is fastest is found by trying, and what was set comes back."""

import time

import pytest
import torch

from regard.kernels.threads import fastest_threads, threads


@pytest.mark.parametrize("best", [1, 2, 4, 6])
def test_the_fastest_of_the_powers_of_two_and_the_most_is_taken(best):
    tried = []

    def work():
        tried.append(torch.get_num_threads())
        time.sleep(0.001 if tried[-1] == best else 0.02)

    before = torch.get_num_threads()
    assert fastest_threads(work, 6) == best
    assert set(tried) == {1, 2, 4, 6}
    assert torch.get_num_threads() == before


def test_where_there_is_no_choice_nothing_is_tried():
    assert fastest_threads(lambda: pytest.fail("tried"), 1) == 1


def test_threads_come_back_after_an_error():
    before = torch.get_num_threads()

    def fail():
        with threads(before + 1):
            assert torch.get_num_threads() == before + 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before
