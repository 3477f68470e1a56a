"""The loops of `regard.kernels.softmax`, compiled by numba; only that module imports this one.

Each row is gone through while it is in the core's nearest cache. A branch that the processor guesses wrongly costs it
about twenty operations, so the candidates for the highest scores are collected and ranked without branches.
"""

import numpy as np
from numba import njit, prange
from numba.np.ufunc import parallel

# sums may be taken in any order, but NaN stays NaN
FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}
# up to this many candidates for each of the k places are ranked by comparing each with each
CROWDED = 4
# parts of a row for each of the k places, and parts where no place is asked for
PARTS = 8
MAXIMA = 128
LOWEST = np.float32(-np.inf)
LOG2_E = np.float32(1.4426950408889634)
# 2 to a lower power is no normal number, and is taken for 0
LEAST_POWER = np.float32(-126.0)


def threading_layer() -> str:
    """What shares work out to threads here: numba knows once it has done so."""
    _shared_out()
    return parallel.threading_layer()


@njit(cache=True, parallel=True)
def _shared_out():
    total = 0
    for number in prange(2):
        total += number
    return total


def softmax_rows(threads, rows, scores, first_head, first_query, first_key, floor):
    """What `SoftmaxRows.numerators_` says, shared out over threads; scores give way to numerators.

    `rows` has the arrays of a `SoftmaxRows`: seen, shifts, totals, products, values and indices.
    """
    loops = _parts_of_rows if threads > 1 else _all_rows
    loops(threads, rows, scores, first_head, first_query, first_key, np.float32(floor))


@njit(cache=True, nogil=True, parallel=True, fastmath=FAST)
def _parts_of_rows(threads, rows, scores, first_head, first_query, first_key, floor):
    count = scores.shape[0] * scores.shape[1]
    for part in prange(threads):
        start, stop = part * count // threads, (part + 1) * count // threads
        _some_rows(start, stop, rows, scores, first_head, first_query, first_key, floor)


@njit(cache=True, nogil=True, fastmath=FAST)
def _all_rows(_, rows, scores, first_head, first_query, first_key, floor):
    _some_rows(0, scores.shape[0] * scores.shape[1], rows, scores, first_head, first_query, first_key, floor)


@njit(cache=True, nogil=True, fastmath=FAST)
def _some_rows(start, stop, rows, scores, first_head, first_query, first_key, floor):
    seen, shifts, totals, products, values, indices = rows
    _, num_queries, num_keys = scores.shape
    k = values.shape[2]
    maxima = np.empty(num_keys, np.float32)
    coarse = np.empty((2 * k + 15) // 16 * 16, np.float32)
    found = np.empty(2 * num_keys + 1, np.int32)
    few = np.empty(CROWDED * k, np.float32)
    for row in range(start, stop):
        own_head, own_query = row // num_queries, row % num_queries
        head, query = first_head + own_head, first_query + own_query
        low = min(max(seen[query, 0] - first_key, 0), num_keys)
        high = max(min(seen[query, 1] - first_key, num_keys), low)
        scores[own_head, own_query, :low] = 0.0
        scores[own_head, own_query, high:] = 0.0
        score = scores[own_head, own_query, low:high]
        most = floor
        if k:
            places = indices[head, query]
            _strongest(score, values[head, query], places, maxima, coarse, found, few)
            most = max(most, values[head, query, 0])
            places[: len(score)] += low + first_key
        elif len(score):
            parts = min(len(score), MAXIMA)
            _fold(score, maxima, parts)
            for part in range(parts):
                most = max(most, maxima[part])
        total = np.float32(0.0)
        product = np.float32(0.0)
        for key in range(len(score)):
            exponent = score[key] - most
            power = exponent * LOG2_E
            whole = np.int32(power - np.float32(0.5))
            rest = power - np.float32(whole)
            # 2 ** rest, of all polynomials of this degree the one with the least relative error, 2e-9
            numerator = np.float32(1.5345811822e-04)
            numerator = numerator * rest + np.float32(1.3399931218e-03)
            numerator = numerator * rest + np.float32(9.6184889578e-03)
            numerator = numerator * rest + np.float32(5.5503287770e-02)
            numerator = numerator * rest + np.float32(2.4022646891e-01)
            numerator = numerator * rest + np.float32(6.9314720574e-01)
            numerator = numerator * rest + np.float32(1.0)
            numerator = numerator * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)
            numerator = np.float32(0.0) if power < LEAST_POWER else numerator
            score[key] = numerator
            total += numerator
            product += np.float32(0.0) if power < LEAST_POWER else numerator * exponent
        # of a row that sees no key all numerators are 0
        shifts[head, query], products[head, query] = most, product
        totals[head, query] = np.float32(1.0) if total == 0 else total


@njit(cache=True, nogil=True, fastmath=FAST)
def _strongest(row, values, indices, maxima, coarse, found, few):
    """Enter the k highest values of a row, the highest first, and their indices; places beyond a short row stay.

    The k highest are in the k parts of the row whose maxima are highest. These parts are found in the same way: parts
    are grouped, and the k-th highest maximum of all parts is at least the k-th highest of the groups. The last four
    arguments are room to work in.
    """
    num_keys, k, width = len(row), len(values), len(coarse)
    first, count = 0, num_keys
    if num_keys < 2 * width:
        for key in range(num_keys):
            found[key] = key
    else:
        size = max(1, num_keys // (PARTS * width))
        parts = num_keys // size
        # part p has the keys p, p + parts, p + 2 · parts, …: so the maxima of all parts are found side by side
        _fold(row, maxima, parts)
        _fold(maxima[:parts], coarse, width)
        lowest = _kth(coarse, width, k)
        first = 0
        for part in range(parts):
            found[first] = part
            first += maxima[part] >= lowest
        if first <= len(few):
            for i in range(first):
                few[i] = maxima[found[i]]
            lowest = _kth(few, first, k)
        count = 0
        for i in range(first):
            part = found[i]
            if maxima[part] >= lowest:
                for key in range(part, num_keys, parts):
                    found[first + count] = key
                    count += row[key] >= lowest
    candidates = found[first : first + count]
    if count <= len(few):
        for i in range(count):
            few[i] = row[candidates[i]]
        for i in range(count):
            rank = _rank(few, count, i)
            if rank < k:
                values[rank], indices[rank] = few[i], candidates[i]
    else:
        for key in candidates:
            value = row[key]
            if value > values[k - 1]:
                place = k - 1
                while place > 0 and values[place - 1] < value:
                    values[place], indices[place] = values[place - 1], indices[place - 1]
                    place -= 1
                values[place], indices[place] = value, key


@njit(cache=True, nogil=True, fastmath=FAST)
def _fold(row, maxima, parts):
    """Of each of these parts of a row, which lie side by side, the highest value."""
    maxima[:parts] = row[:parts]
    for start in range(parts, len(row), parts):
        others = row[start : start + parts]
        for part in range(len(others)):
            value, most = others[part], maxima[part]
            maxima[part] = value if value > most else most


@njit(cache=True, nogil=True, fastmath=FAST)
def _kth(values, count, k):
    """The k-th highest of the first `count`."""
    for i in range(count):
        if _rank(values, count, i) == k - 1:
            return values[i]
    return LOWEST


@njit(inline="always", fastmath=FAST)
def _rank(values, count, i):
    """How many of the first `count` are before number i, from the highest down."""
    value, rank = values[i], 0
    for other in range(count):
        rank += values[other] > value
    for other in range(i):
        rank += values[other] == value
    return rank
