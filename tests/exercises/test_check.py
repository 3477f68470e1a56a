"""Every solution passes however it returns its numbers; an empty function and every mistake get their own hint."""

import importlib.util
import inspect
import math
import re
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

import regard
from regard import RegardError
from regard.exercises import EXERCISES, check
from regard.exercises.exercise import Draw
from regard.kernels import reference

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def load_solutions():
    spec = importlib.util.spec_from_file_location("exercises_solutions", NOTEBOOKS / "exercises_solutions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solutions = load_solutions()
SOLVED = {name: getattr(solutions, name) for name in EXERCISES}


def empty(name):
    def stub(*given):
        raise NotImplementedError

    stub.__name__ = name
    return stub


def softmax(x, axis=-1):
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def lower(n):
    return np.tril(np.ones((n, n), dtype=bool))


def attend(query, key, value, scale=None):
    return softmax(query @ key.T / (scale or math.sqrt(query.shape[1]))) @ value


def turn(x, base, exponent=2.0, first=0, sign=1):
    angles = np.outer(np.arange(first, first + len(x)), base ** (-exponent * np.arange(x.shape[1] // 2) / x.shape[1]))
    a, b = x[:, 0::2], x[:, 1::2]
    out = np.empty_like(x)
    out[:, 0::2] = a * np.cos(angles) - sign * b * np.sin(angles)
    out[:, 1::2] = sign * a * np.sin(angles) + b * np.cos(angles)
    return out


def turn_halves(x, base):
    half = x.shape[1] // 2
    angles = np.outer(np.arange(len(x)), base ** (-2.0 * np.arange(half) / x.shape[1]))
    a, b = x[:, :half], x[:, half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)], axis=1)


def turn_in_place(x, base):
    angles = np.outer(np.arange(len(x)), base ** (-2.0 * np.arange(x.shape[1] // 2) / x.shape[1]))
    x[:, 0::2] = x[:, 0::2] * np.cos(angles) - x[:, 1::2] * np.sin(angles)
    x[:, 1::2] = x[:, 0::2] * np.sin(angles) + x[:, 1::2] * np.cos(angles)
    return x


def nan_mask(scores):
    with np.errstate(invalid="ignore"):
        return softmax(scores + ~lower(len(scores)) * -np.inf)


def blind_mask(scores):
    with np.errstate(invalid="ignore"):
        return softmax(np.where(np.tril(lower(len(scores)), -1), scores, -np.inf))


def overflowing(scores):
    with np.errstate(over="ignore", invalid="ignore"):
        powers = np.exp(scores)
        return powers / powers.sum(axis=-1, keepdims=True)


# as learners write them, in numpy: the function, and what the hint says
MISTAKES = {
    "longest_source": [
        (lambda h, b, v: math.ceil(h * b / math.log2(v)), "one word too many: 1000\\^206 .* 2\\^2048"),
        (lambda h, b, v: round(h * b / math.log2(v)), "one word too many"),
        (lambda h, b, v: h * b / math.log2(v), "whole number of words: round down"),
        (lambda h, b, v: int(h * b / math.log(v)), "base 2"),
        (lambda h, b, v: int(h * b / math.log10(v)), "base 10"),
        (lambda h, b, v: h * b // v, "divided by the vocabulary"),
        (lambda h, b, v: int(b / math.log2(v)), "of one number only"),
        (lambda h, b, v: int(h / math.log2(v)), "one bit for each number only"),
    ],
    "additive_score": [
        (lambda q, k, W, U, v: (W @ q + k @ U.T) @ v, "tanh is missing"),
        (lambda q, k, W, U, v: np.tanh((W @ q + k @ U.T) @ v), "tanh comes too late"),
        (lambda q, k, W, U, v: (1 / (1 + np.exp(-(W @ q + k @ U.T)))) @ v, "sigmoid"),
        (lambda q, k, W, U, v: np.tanh(W @ q + k @ U.T), "v is still to turn"),
        (lambda q, k, W, U, v: np.tanh(W @ q + k @ U.T).sum(axis=1), "v says how much"),
        (lambda q, k, W, U, v: np.tanh(k @ U.T) @ v, "the query is missing"),
        (lambda q, k, W, U, v: np.tanh((W @ q) * (k @ U.T)) @ v, "multiplied: this score is additive"),
        (lambda q, k, W, U, v: np.tanh(U @ q + k @ W.T) @ v, "W and U have changed places"),
        (lambda q, k, W, U, v: k @ q, "Luong's dot score"),
        (lambda q, k, W, U, v: softmax(np.tanh(W @ q + k @ U.T) @ v), "weights already"),
    ],
    "attention_weights": [
        (lambda s: softmax(s, axis=0), r"your rows sum to \d\.?\d* \(row \d\), your columns to 1: .* axis -1"),
        (lambda s: np.exp(s) / np.exp(s).sum(), "whole table sums to 1.*axis -1"),
        (lambda s: np.exp(s), "divide each row by its own sum"),
        (lambda s: s / s.sum(axis=1, keepdims=True), "exp is missing"),
        (lambda s: np.log(softmax(s)), "logarithms of the weights"),
        (lambda s: 2**s / (2**s).sum(axis=1, keepdims=True), "powers of 2"),
        (overflowing, "exp of a large number is infinite.*which one keeps exp small"),
        (lambda s: overflowing(s - s.max()), "infinite"),
        (lambda s: softmax(s) / 2, r"row \d sums to 0.5"),
    ],
    "context_vector": [
        (lambda w, v: np.tile(v.mean(axis=0), (len(w), 1)), "plain mean"),
        (lambda w, v: np.tile(v.sum(axis=0), (len(w), 1)), "plain sum"),
        (lambda w, v: v[w.argmax(axis=1)], "the search is soft"),
        (lambda w, v: w.T @ v, "the weights are transposed"),
        (lambda w, v: w[:, :, None] * v, "not yet summed"),
        (lambda w, v: w @ v / len(v), "divided by the number of keys"),
    ],
    "scaled_scores": [
        (lambda q, k: q @ k.T, "off by a factor of √d = 2.24: scale"),
        (lambda q, k: q @ k.T / q.shape[1], "divided by d, or twice"),
        (lambda q, k: q @ k.T * math.sqrt(q.shape[1]), "off by a factor of d = 5: multiplied"),
        (lambda q, k: q @ k.T / math.sqrt(len(k)), "root of the number of keys"),
        (lambda q, k: q @ k.T / math.sqrt(len(q)), "root of the number of queries"),
        (lambda q, k: q @ k.T / 2 / math.sqrt(q.shape[1]), "off by a factor of 0.5"),
        (lambda q, k: softmax(q @ k.T / math.sqrt(q.shape[1])), "weights already"),
        (lambda q, k: k @ q.T / math.sqrt(q.shape[1]), r"axes swapped: the shape is \[4, 3\]"),
    ],
    "causal_weights": [
        (lambda s: softmax(s), r"row 0 sees key 3 \(weight 0.\d+\): mask before the softmax"),
        (lambda s: softmax(np.where(lower(len(s)), s, -1.0)), "row 0 sees key 3"),
        (lambda s: np.tril(softmax(s)), r"row \d sums to 0.\d+: after the softmax"),
        (lambda s: softmax(np.tril(s)), "score of 0 still counts"),
        (lambda s: softmax(np.where(lower(len(s)).T, s, -np.inf)), "upside down"),
        (lambda s: softmax(np.where(np.tril(np.ones_like(s), 1), s, -np.inf)), "one diagonal too far"),
        (blind_mask, "row 1 does not see key 1"),
        (nan_mask, "−∞ times 0"),
        (lambda s: softmax(np.where(lower(len(s)), s, -np.inf), axis=0), "axis -1"),
    ],
    "merge_heads": [
        (lambda h, W: h.reshape(h.shape[1], -1) @ W, "Bring head next to head_dim"),
        (lambda h, W: h.transpose(1, 2, 0).reshape(h.shape[1], -1) @ W, "numbers alternate"),
        (lambda h, W: np.concatenate(h, axis=1), "W_out is missing"),
        (lambda h, W: np.concatenate(h, axis=1) @ W.T, "W_out is transposed"),
        (lambda h, W: h.mean(axis=0), "the mean of the heads"),
        (lambda h, W: h.sum(axis=0), "the sum of the heads"),
    ],
    "cross_attention": [
        (lambda t, s, Q, K, V: attend(s @ Q, t @ K, t @ V), "the other way round"),
        (lambda t, s, Q, K, V: attend(t @ Q, t @ K, t @ V), "the source is never looked at"),
        (lambda t, s, Q, K, V: attend(s @ Q, s @ K, s @ V), "the target does not ask"),
        (lambda t, s, Q, K, V: attend(t @ Q, s @ K, t @ V), "values come from the target"),
        (lambda t, s, Q, K, V: attend(t @ Q, t @ K, s @ V), "keys come from the target"),
        (lambda t, s, Q, K, V: attend(t @ Q, s @ K, s @ V, 1.0), "factor of √d: scale"),
        (lambda t, s, Q, K, V: attend(t @ Q, s @ K, s @ V, math.sqrt(5)), "d is the size of a query"),
        (lambda t, s, Q, K, V: attend(t @ Q, s @ V, s @ K), "W_key and W_value"),
        (lambda t, s, Q, K, V: softmax((t @ Q) @ (s @ K).T / math.sqrt(3)), "times the values"),
        (lambda t, s, Q, K, V: softmax((t @ Q) @ (s @ K).T / math.sqrt(3), axis=0) @ (s @ V), "axis -1"),
        (
            lambda t, s, Q, K, V: (
                softmax(np.where(np.tril(np.ones((len(t), len(s)))), (t @ Q) @ (s @ K).T / math.sqrt(3), -np.inf))
                @ (s @ V)
            ),
            "causal mask",
        ),
    ],
    "rotary": [
        (lambda x, base: turn(x, base, sign=-1), "turned the other way"),
        (lambda x, base: turn(x, base, first=1), "first token has position 0"),
        (turn_halves, "pairs are neighbours"),
        (lambda x, base: turn(x, base, exponent=1.0), "exponent −2i/d"),
        (lambda x, base: turn(x, base, exponent=0.0), "same angle"),
        (lambda x, base: turn(x, base, exponent=-2.0), "the exponent is negative"),
        (lambda x, base: x, "nothing has turned"),
        (turn_in_place, r"at position 1 the pair \(x\[0\], x\[1\]\) changes its length from"),
    ],
    "induction_score": [
        (lambda w, p: w[:, :, range(p, 2 * p), range(p)].mean(axis=-1), "the same token"),
        (lambda w, p: w[:, :, range(p, 2 * p), range(p - 1, 2 * p - 1)].mean(axis=-1), "previous-token head"),
        (lambda w, p: w[:, :, range(p, 2 * p), range(1, p + 1)].sum(axis=-1), "a sum"),
        (lambda w, p: w[:, :, range(p, 2 * p), range(1, p + 1)].max(axis=-1), "the largest weight"),
        (lambda w, p: w[:, :, range(p - 1, 2 * p), range(p + 1)].mean(axis=-1), "queries of the first round"),
        (lambda w, p: w[:, :, range(p, 2 * p), range(1, p + 1)].mean(axis=(1, 2)), "the mean over all heads"),
    ],
}
NAMED = [(name, wrong, hint) for name, mistakes in MISTAKES.items() for wrong, hint in mistakes]


def in_numpy(function):
    """It is given arrays."""
    return lambda *given: function(*(each.numpy() if isinstance(each, torch.Tensor) else each for each in given))


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize(
    "returning",
    [
        lambda made: made,
        lambda made: made.float() if isinstance(made, torch.Tensor) else made,
        lambda made: made.clone().requires_grad_() if isinstance(made, torch.Tensor) else torch.tensor(made),
        lambda made: np.asarray(made),
        lambda made: made.tolist() if isinstance(made, torch.Tensor) else made,
        lambda made: list(made) if isinstance(made, torch.Tensor) and made.ndim else made,
    ],
    ids=["as is", "float32", "with gradients", "array", "lists", "list of tensors"],
)
def test_a_solution_passes_as_tensor_array_or_lists(name, returning):
    verdict = check(lambda *given: returning(SOLVED[name](*given)), name)
    assert verdict, verdict
    assert verdict.passed
    assert verdict.message == "right on 40 random inputs."
    assert not verdict.inputs


def test_there_is_a_solution_for_every_exercise_and_a_mistake_that_it_knows():
    named = {name for name, function in inspect.getmembers(solutions, inspect.isfunction)}
    assert named == set(EXERCISES) == set(MISTAKES)
    for name, task in EXERCISES.items():
        assert list(inspect.signature(SOLVED[name]).parameters) == list(task.draw(Draw(0), 0))


@pytest.mark.parametrize("name", EXERCISES)
def test_an_empty_function_is_told_how_to_begin(name):
    task = EXERCISES[name]
    english, chinese = check(empty(name)), check(empty(name), language="zh")
    assert not english
    assert english.message.startswith(f"not written yet. {task.begin.en}\n{task.equation}")
    assert chinese.message.startswith(f"还没有写。{task.begin.zh}\n{task.equation}")
    for given in english.inputs:
        assert given in str(english)
        assert given in str(chinese)
    assert "returns nothing" in check(lambda *given: None, name).message
    assert "没有返回值" in check(lambda *given: None, name, language="zh").message


@pytest.mark.parametrize(("name", "wrong", "hint"), NAMED, ids=[f"{name}: {hint[:30]}" for name, _, hint in NAMED])
def test_a_mistake_gets_its_hint(name, wrong, hint):
    verdict = check(in_numpy(wrong), name)
    assert not verdict
    assert re.search(hint, verdict.message), verdict
    chinese = check(in_numpy(wrong), name, language="zh")
    assert re.search("[\u4e00-\u9fff]", chinese.message.split("\n")[0]), chinese
    assert chinese.inputs.keys() == verdict.inputs.keys()


@pytest.mark.parametrize("name", EXERCISES)
def test_every_mistake_that_an_exercise_knows_is_wrong_and_is_tried(name):
    """Each diagnosis is reached by one of the mistakes above: none of them hides another."""
    said = {check(in_numpy(wrong), name).message.split("\n")[0] for wrong, _ in MISTAKES[name]}
    assert len(said) >= len(EXERCISES[name].diagnoses)


def test_the_scores_that_are_expected_give_the_weights_of_the_reference():
    inputs = EXERCISES["scaled_scores"].draw(Draw(3), 3)
    scores = EXERCISES["scaled_scores"].reference(**inputs)
    expected = reference.weights(inputs["query"][None, None], inputs["key"][None, None])[0, 0]
    torch.testing.assert_close(scores.softmax(dim=-1), expected)


def test_what_is_expected_of_rotary_depends_on_distances_alone():
    task = EXERCISES["rotary"]
    query, key = torch.randn(2, 8, dtype=torch.float64)
    turned = [task.reference(each.expand(6, -1), 100.0) for each in (query, key)]
    products = turned[0] @ turned[1].T
    for distance in range(-4, 5):
        line = products.diagonal(distance)
        torch.testing.assert_close(line, line[:1].expand_as(line))


@pytest.mark.parametrize(
    ("returned", "hint"),
    [
        ("0.5", "returns a str"),
        ([[1.0], [1.0, 2.0]], "rows of one length"),
        ({"a": 1}, "returns a dict"),
        (torch.ones(4, 3, dtype=torch.complex64), "complex"),
        (np.ones((4, 3), dtype=complex), "complex"),
        (0.5, r"the shape is \[\] and should be \[4, 3\]"),
        (torch.ones(1, 4, 3), r"the shape is \[1, 4, 3\] and should be"),
        (torch.full((4, 3), torch.nan), "nan"),
        ([[0.2, 0.3, 0.5]] * 4, r"numbers are wrong; at \[\d, \d\] you have 0.\d, and it should be"),
    ],
)
def test_what_is_no_answer_is_told_without_a_traceback(returned, hint):
    verdict = check(lambda scores: returned, "attention_weights")
    assert not verdict
    assert re.search(hint, verdict.message), verdict
    assert re.search("[\u4e00-\u9fff]", check(lambda scores: returned, "attention_weights", language="zh").message)


def test_an_exception_is_the_learners_own_with_the_inputs_beside_it():
    def scaled_scores(query, key):
        return query @ key

    with pytest.raises(RuntimeError, match="mat") as raised:
        check(scaled_scores)
    assert raised.value.__notes__ == ["Given: query [3, 5], key [4, 5]"]
    assert traceback.extract_tb(raised.value.__traceback__)[-1].line == "return query @ key"


def test_the_note_on_an_exception_is_in_the_language_of_the_check():
    with pytest.raises(IndexError) as raised:
        check(lambda scores: scores[99], "causal_weights", language="zh")
    assert raised.value.__notes__ == ["输入：scores [4, 4]"]


def test_a_function_may_write_into_what_it_is_given():
    def causal_weights(scores):
        scores[~torch.ones_like(scores).tril().bool()] = -torch.inf
        return scores.softmax(dim=-1)

    assert check(causal_weights)


def test_the_inputs_of_the_first_wrong_call_are_kept():
    verdict = check(lambda query, key: query @ key.T, "scaled_scores")
    wrong = verdict.inputs["query"] @ verdict.inputs["key"].T
    torch.testing.assert_close(EXERCISES["scaled_scores"].reference(**verdict.inputs) * 5**0.5, wrong)


def test_other_arguments_are_told():
    verdict = check(lambda query: query, "scaled_scores")
    assert "it has to take (query, key)" in verdict.message
    # a built-in function does not say what it takes
    assert "returns a zip" in check(zip, "context_vector").message


def test_a_verdict_shows_itself_and_escapes_what_it_shows():
    verdict = check(empty("scaled_scores"))
    assert repr(verdict).startswith("✗ scaled_scores: not written yet")
    assert "<br>" in verdict._repr_html_()
    assert "<" not in re.sub("<(/?div|br)[^>]*>", "", check(lambda s: {}, "attention_weights")._repr_html_())
    assert repr(check(SOLVED["rotary"])) == "✓ rotary: right on 40 random inputs."


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: check(lambda: 1), "there is no exercise '<lambda>'.*longest_source"),
        (lambda: check(max, "scaled_score"), "did you mean 'scaled_scores'"),
        (lambda: check(3), "check takes your function, not int"),
        (lambda: check(SOLVED["rotary"], language="fr"), "there are 'en' and 'zh'"),
    ],
)
def test_what_cannot_be_checked_is_refused(given, message):
    with pytest.raises(RegardError, match=message):
        given()


def test_regard_offers_the_exercises():
    assert regard.exercises.check is check
