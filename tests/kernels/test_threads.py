"""The number of threads that is fastest is found by trying, and what was set comes back."""

import os
import time

import pytest
import torch

from regard.errors import RegardError
from regard.kernels.threads import check_threads, fastest_threads, threads


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


def test_more_threads_than_a_machine_has_use_for_are_refused():
    most = max(64, 8 * (os.cpu_count() or 1))
    check_threads(most)
    with pytest.raises(RegardError, match=f"threads must be at most {most} on this machine of .*, not 1,000,000"):
        check_threads(1_000_000)
