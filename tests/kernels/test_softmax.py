"""The softmax of rows with their highest scores: as mathematics has it, compiled or not."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from regard.kernels import softmax
from regard.kernels.threads import threads

HIDDEN = 2 * softmax.FLOOR


@pytest.fixture(params=["compiled", "torch"])
def how(request, monkeypatch):
    monkeypatch.setattr(softmax, "LONG", 0)
    if request.param == "torch":
        monkeypatch.setattr(softmax, "_compiled", lambda: None)
    else:
        pytest.importorskip("numba")
        assert softmax._compiled() is not None
    return request.param


def rows_of(num_keys):
    """Ordinary rows, long ties, few or no keys that are seen, and scores that are far apart."""
    generator = torch.Generator().manual_seed(num_keys)
    scores = torch.randn(4, 9, num_keys, generator=generator) * 4
    scores[1, :, num_keys // 3 :] = HIDDEN
    scores[1, 0] = HIDDEN
    scores[2, 1] = 1.5
    scores[2, 2] = torch.arange(num_keys) % 3
    scores[2, 3] = torch.arange(num_keys)
    scores[2, 4] = -torch.arange(num_keys).float()
    scores[3] *= 300
    return scores


def of_all_keys(scores, k):
    return softmax_of(scores, k, torch.tensor([0, scores.shape[-1]]).expand(scores.shape[1], 2))


def softmax_of(scores, k, seen, first_key=0):
    """The sums and the numerators of all rows, given in several parts."""
    heads, queries, _ = scores.shape
    found = softmax.SoftmaxRows(heads, k, seen=seen, dtype=scores.dtype)
    found.numerators = torch.full_like(scores, torch.nan)
    for head in (slice(0, 1), slice(1, heads)):
        for query in (slice(0, queries // 2), slice(queries // 2, queries)):
            part = scores[head, query].clone()
            found.numerators[head, query] = found.numerators_(part, heads=head, queries=query, first_key=first_key)
    return found


@pytest.mark.parametrize("k", [0, 1, 8, 40])
@pytest.mark.parametrize("num_keys", [1, 2, 7, 31, 32, 33, 129, 1000, 2048])
def test_numerators_and_their_sums_are_those_of_double_precision(how, num_keys, k):
    scores = rows_of(num_keys)
    exact = scores.double()
    found = of_all_keys(scores, k)
    shifts = exact.amax(-1).clamp(min=softmax.FLOOR)
    exponents = exact - shifts[..., None]
    torch.testing.assert_close(found.shifts.double(), shifts, rtol=1e-7, atol=0)
    # the difference of two scores is rounded before its exp is
    rounding = 1.2e-7 * (1 + exponents.abs()).clamp(max=100) * exponents.exp() + 2e-38
    assert ((found.numerators.double() - exponents.exp()).abs() <= rounding).all()
    totals = exponents.exp().sum(-1)
    torch.testing.assert_close(found.totals.double(), totals.where(totals > 0, 1.0), rtol=2e-6, atol=0)
    products = (exponents * exponents.exp()).sum(-1)
    torch.testing.assert_close(found.products.double(), products, rtol=1e-5, atol=1e-6)
    assert (found.numerators[scores == HIDDEN] == 0).all()


@pytest.mark.parametrize("k", [1, 8, 40])
@pytest.mark.parametrize("num_keys", [1, 2, 7, 31, 32, 33, 129, 1000, 2048])
def test_the_highest_scores_are_those_that_sorting_finds(how, num_keys, k):
    scores = rows_of(num_keys)
    found = of_all_keys(scores, k)
    most = min(k, num_keys)
    values = scores.sort(-1, descending=True).values[..., :most]
    assert torch.equal(found.values[..., :most], values)
    assert torch.equal(scores.gather(-1, found.indices[..., :most]), values)
    # no key is named twice
    assert (found.indices[..., :most].sort(-1).values.diff(dim=-1) > 0).all()
    assert (found.indices[..., most:] == -1).all()
    assert (found.values[..., most:] == -torch.inf).all()


@pytest.mark.parametrize("k", [0, 8])
def test_keys_outside_those_that_a_query_sees_weigh_nothing(how, k):
    scores = rows_of(300)
    seen = torch.tensor([[500, 510], [520, 520], [400, 900], [500, 800], [499, 501], [799, 801], [640, 700]])
    scores = scores[:, : len(seen)]
    found = softmax_of(scores, k, seen, first_key=500)
    for query, (low, high) in enumerate((seen - 500).clamp(0, 300).tolist()):
        alone = of_all_keys(scores[:, query : query + 1, low:high], k) if low < high else None
        assert (found.numerators[:, query, :low] == 0).all()
        assert (found.numerators[:, query, high:] == 0).all()
        if alone is None:
            assert (found.totals[:, query] == 1).all()
            assert (found.indices[:, query] == -1).all()
            continue
        torch.testing.assert_close(found.numerators[:, query, low:high], alone.numerators[:, 0])
        assert torch.equal(found.values[:, query], alone.values[:, 0])
        own = scores[:, query].gather(-1, (found.indices[:, query] - 500).clamp(min=0))
        assert torch.equal(own.where(found.indices[:, query] >= 0, -torch.inf), found.values[:, query])


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_what_is_no_number_is_seen_in_the_sums_of_its_row_alone(how, number):
    scores = rows_of(300)
    scores[0, 4, 77] = number
    found = of_all_keys(scores, 8)
    unknown = torch.zeros(4, 9, dtype=torch.bool)
    unknown[0, 4] = True
    assert torch.equal(found.totals.isnan(), unknown)
    assert torch.equal(found.products.isnan(), unknown)


def test_on_one_thread_and_on_more_it_is_the_same(monkeypatch):
    monkeypatch.setattr(softmax, "LONG", 0)
    found = []
    for count in (1, 2, 5):
        with threads(count):
            found.append(of_all_keys(rows_of(500), 8))
    for other in found[1:]:
        for name in ("numerators", "totals", "products", "values", "indices"):
            assert torch.equal(getattr(found[0], name), getattr(other, name)), name


def test_threads_of_python_may_ask_at_once(how):
    scores = rows_of(1000)
    alone = of_all_keys(scores, 8)
    found = []
    asking = [
        threading.Thread(target=lambda: found.extend(of_all_keys(scores, 8) for _ in range(20))) for _ in range(4)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(found) == 80
    assert all(torch.equal(each.totals, alone.totals) and torch.equal(each.indices, alone.indices) for each in found)


FORKED = """
import os
import torch
from regard.kernels import softmax

softmax.LONG = 0

def total():
    seen = torch.tensor([[0, 300]]).expand(16, 2)
    rows = softmax.SoftmaxRows(2, 4, seen=seen, dtype=torch.float32)
    rows.numerators_(torch.ones(2, 16, 300), heads=slice(0, 2), queries=slice(0, 16), first_key=0)
    return float(rows.totals.sum())

torch.set_num_threads(2)
before = total()
child = os.fork()
if not child:
    os._exit(0 if total() == before == 2 * 16 * 300 else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_process_that_is_forked_computes_too():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "0", done.stderr


def test_little_work_waits_for_no_compiler(monkeypatch):
    def compiled():
        raise AssertionError("compiled")

    monkeypatch.setattr(softmax, "_compiled", compiled)
    assert of_all_keys(rows_of(300), 8).totals.shape == (4, 9)
    with pytest.raises(AssertionError, match="compiled"):
        softmax.SoftmaxRows(64, 8, seen=torch.tensor([[0, 1024]]).expand(1024, 2), dtype=torch.float32)
