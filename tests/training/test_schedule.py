"""Schedules follow their papers, and a run by the clock can be repeated by its number of steps."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.training.schedule import SCHEDULES, decay_start, share, total_steps

schedules = pytest.mark.parametrize("schedule", SCHEDULES)


def rates(schedule, *, warmup, total, decay=0.25):
    return [share(schedule, step, warmup=warmup, total=total, decay=decay) for step in range(1, total + 1)]


@schedules
def test_the_warm_up_rises_in_equal_steps_to_the_peak(schedule):
    np.testing.assert_allclose(rates(schedule, warmup=8, total=40)[:8], np.arange(1, 9) / 8)


@schedules
@given(warmup=st.integers(0, 30), more=st.integers(1, 60), decay=st.floats(0.01, 0.99))
def test_no_rate_is_above_the_peak_or_below_zero_and_none_rises_after_the_warm_up(schedule, warmup, more, decay):
    found = rates(schedule, warmup=warmup, total=warmup + more, decay=decay)
    assert all(0 <= rate <= 1 for rate in found)
    after = found[max(warmup - 1, 0) :]
    assert after == sorted(after, reverse=True)


def test_inverse_sqrt_is_the_formula_of_the_transformer_paper_over_its_peak():
    warmup = 7
    step = np.arange(1, 60.0)
    # Vaswani et al. 2017, equation 3, without the constant
    paper = np.minimum(step**-0.5, step * warmup**-1.5)
    np.testing.assert_allclose(rates("inverse_sqrt", warmup=warmup, total=59), paper / paper.max())


def test_inverse_sqrt_without_warm_up_starts_at_the_peak():
    np.testing.assert_allclose(rates("inverse_sqrt", warmup=0, total=9), np.arange(1, 10.0) ** -0.5)


def test_cosine_is_torchs_own():
    warmup, total = 5, 30
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - warmup)
    theirs = []
    for _ in range(total - warmup):
        optimizer.step()
        scheduler.step()
        theirs.append(scheduler.get_last_lr()[0])
    np.testing.assert_allclose(rates("cosine", warmup=warmup, total=total)[warmup:], theirs, atol=1e-12)


@given(total=st.integers(1, 300), decay=st.floats(0.01, 0.99))
def test_wsd_is_level_and_then_a_straight_line_to_zero_after_the_last_step(total, decay):
    start = decay_start(total, decay)
    step = np.arange(1, total + 1)
    wanted = np.interp(step, [start, total + 1], [1, 0])
    np.testing.assert_allclose(rates("wsd", warmup=0, total=total, decay=decay), wanted, atol=1e-12)
    assert abs((total - start) - total * decay) <= 0.5


def test_constant_stays_at_the_peak():
    assert rates("constant", warmup=2, total=9) == [0.5, *[1.0] * 8]


def run_by_the_clock(schedule, durations, *, limit, warmup, decay):
    """The rates of a run whose steps take `durations` seconds, as the training loop asks for them."""
    found, elapsed, total = [], 0.0, None
    for step, seconds in enumerate(durations, 1):
        if (elapsed >= limit) if total is None else (step > total):
            break
        found.append(share(schedule, step, warmup=warmup, total=total, decay=decay))
        elapsed += seconds
        if total is None:
            total = total_steps(schedule, step, elapsed=elapsed, limit=limit, warmup=warmup, decay=decay)
    return found


@schedules
@given(
    # a machine that is now fast and now slow, and stays so for any time
    durations=st.lists(st.floats(0.05, 20), min_size=1, max_size=12),
    limit=st.floats(0.1, 60),
    warmup=st.integers(1, 20),
    decay=st.floats(0.05, 0.95),
)
def test_a_run_by_the_clock_has_the_rates_of_a_run_by_its_number_of_steps(schedule, durations, limit, warmup, decay):
    by_clock = run_by_the_clock(schedule, itertools.cycle(durations), limit=limit, warmup=warmup, decay=decay)
    assert by_clock == rates(schedule, warmup=warmup, total=len(by_clock), decay=decay)


@schedules
@given(seconds=st.floats(0.05, 1), warmup=st.integers(1, 20), decay=st.floats(0.1, 0.9))
def test_a_run_by_the_clock_at_an_even_pace_ends_on_time(schedule, seconds, warmup, decay):
    limit = 60.0
    by_clock = run_by_the_clock(schedule, itertools.repeat(seconds), limit=limit, warmup=warmup, decay=decay)
    # of the decay no part can be measured before it begins, hence the step that is spread over the whole
    late = max(0.0, warmup * seconds - (1 - decay) * limit) if schedule == "wsd" else 0.0
    assert limit - 2 * seconds <= len(by_clock) * seconds <= limit + (2 * seconds + late) / (1 - decay)


def test_the_end_is_told_once_the_schedule_must_know_it():
    known = {
        schedule: [
            total_steps(schedule, step, elapsed=float(step), limit=100.0, warmup=5, decay=0.25) for step in (4, 5, 74)
        ]
        for schedule in SCHEDULES
    }
    assert known == {
        "inverse_sqrt": [None, None, None],
        "constant": [None, None, None],
        # a second a step
        "cosine": [None, 100, 100],
        "wsd": [None, None, None],
    }
    assert total_steps("wsd", 75, elapsed=75.0, limit=100.0, warmup=5, decay=0.25) == 100


def test_a_run_that_the_clock_ends_in_its_warm_up_has_no_end_to_tell():
    for schedule in SCHEDULES:
        by_clock = run_by_the_clock(schedule, itertools.repeat(10.0), limit=25.0, warmup=50, decay=0.25)
        assert by_clock == [1 / 50, 2 / 50, 3 / 50]
        assert math.isclose(sum(by_clock), 0.12)
