"""Tests a learner's function on random inputs, and says what is wrong and how to go on, never the solution."""

import difflib
import html
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from regard.errors import RegardError
from regard.exercises.catalogue import EXERCISES
from regard.exercises.exercise import Attempt, Draw, Exercise, Text, close

Language = Literal["en", "zh"]
CASES = 40


@dataclass(frozen=True, repr=False)
class Verdict:
    """Whether a function passed, and what there is to say. True where it passed.

    `inputs` are those of the first call that went wrong, by name; empty where none did.
    """

    exercise: str
    passed: bool
    message: str
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return f"{'✓' if self.passed else '✗'} {self.exercise}: {self.message}"

    def _repr_html_(self) -> str:
        colour = "#1a7f37" if self.passed else "#cf222e"
        text = html.escape(str(self)).replace("\n", "<br>")
        return f'<div style="border-left: 4px solid {colour}; padding: 2px 10px">{text}</div>'


def check(function: Callable[..., Any], exercise: str | None = None, *, language: Language = "en") -> Verdict:
    """Test a function that solves the exercise of its name, or of the name given, on random inputs in float64.

    It is given torch tensors and may return a tensor, an array or nested lists. An exception of its own is raised as
    it is, with a note of the inputs; of NotImplementedError the verdict says that nothing is written yet.
    Raises RegardError for an unknown exercise or language.
    """
    # IPython and pytest leave this frame out of an exception of the learner's
    __tracebackhide__ = True
    if language not in ("en", "zh"):
        raise RegardError(f"there is no language {language!r}; there are 'en' and 'zh'")
    name = exercise or getattr(function, "__name__", "")
    task = _find(name, function)
    for case in range(CASES):
        inputs = task.draw(Draw(case), case)
        problem = _try(function, task, inputs, language)
        if problem is not None:
            kept = Text("(in `.inputs`)", "（见 `.inputs`）")
            told = [getattr(text, language) for text in (problem, _given(inputs), kept)]
            return Verdict(name, False, f"{told[0]}\n{told[1]} {told[2]}", inputs)
    passed = Text(f"right on {CASES} random inputs.", f"正确：{CASES} 组随机输入全部通过。")
    return Verdict(name, True, getattr(passed, language))


def _find(name: str, function: object) -> Exercise:
    if not callable(function):
        raise RegardError(f"check takes your function, not {type(function).__name__}: check(scaled_scores)")
    if name not in EXERCISES:
        close_names = difflib.get_close_matches(name, EXERCISES, n=1)
        guess = f"did you mean {close_names[0]!r}?" if close_names else f"there are {', '.join(EXERCISES)}"
        raise RegardError(f"there is no exercise {name!r}; {guess} check(function, 'NAME') names one")
    return EXERCISES[name]


def _try(function: Callable[..., Any], task: Exercise, inputs: dict[str, Any], language: Language) -> Text | None:
    """What is wrong with the function on these inputs: nothing is None."""
    __tracebackhide__ = True
    names = ", ".join(inputs)
    try:
        inspect.signature(function).bind(*inputs.values())
    except TypeError as error:
        return Text(f"it has to take ({names}): {error}.", f"它的参数应是 ({names})：{error}。")
    except ValueError:
        # built-in functions do not say what they take
        pass
    try:
        # a function may write into what it was given
        with _Noted(getattr(_given(inputs), language)):
            returned = function(*map(_copied, inputs.values()))
    except NotImplementedError:
        return Text(
            f"not written yet. {task.begin.en}\n{task.equation}  ({task.source.en})\nReturns {task.returns.en}.",
            f"还没有写。{task.begin.zh}\n{task.equation}（{task.source.zh}）\n返回{task.returns.zh}。",
        )
    found = _as_tensor(returned, task)
    if isinstance(found, Text):
        return found
    expected = task.reference(*inputs.values())
    if close(found, expected):
        return None
    attempt = Attempt(found, expected, inputs)
    return next((said for diagnose in task.diagnoses if (said := diagnose(attempt))), None) or _difference(
        attempt, task
    )


class _Noted:
    """Adds a note to an exception, and lets it through."""

    def __init__(self, note: str) -> None:
        self._note = note

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self._note)


def _difference(attempt: Attempt, task: Exercise) -> Text:
    found, expected = attempt.found, attempt.expected
    shapes = {"found": list(found.shape), "expected": list(expected.shape)}
    if found.shape != expected.shape:
        if found.ndim > 1 and found.mT.shape == expected.shape and close(found.mT, expected):
            return Text(
                "the numbers are right and the axes swapped: the shape is {found} and should be {expected}.",
                "数值正确，但两个轴颠倒了：形状是 {found}，应为 {expected}。",
            ).format(**shapes)
        return Text(
            f"the shape is {{found}} and should be {{expected}}; return {task.returns.en}.",
            f"形状是 {{found}}，应为 {{expected}}；应返回{task.returns.zh}。",
        ).format(**shapes)
    if not bool(found.isfinite().all()):
        place = [int(index) for index in (~found.isfinite()).nonzero()[0]]
        return Text(
            "the number at {place} is {value}: somewhere infinity is divided by infinity, 0 by 0, or exp overflows.",
            "位置 {place} 处是 {value}：可能出现了无穷除以无穷、0 除以 0，或者 exp 溢出。",
        ).format(place=place, value=float(found[tuple(place)]))
    if found.ndim > 1 and close(found.mT, expected):
        return Text("the numbers are right and the axes swapped: transpose.", "数值正确，但两个轴颠倒了：需要转置。")
    distance = (found - expected).abs()
    place = tuple(int(index) for index in np.unravel_index(int(distance.argmax()), expected.shape))
    wrong = int((distance > 1e-6 + 1e-4 * expected.abs()).sum())
    values = {
        "wrong": wrong,
        "all": expected.numel(),
        "place": f" at {list(place)}" if place else "",
        "where": f"位置 {list(place)} 处" if place else "结果",
        "found": f"{float(found[place]):.4g}",
        "expected": f"{float(expected[place]):.4g}",
        "equation": task.equation,
    }
    return Text(
        "{wrong} of {all} numbers are wrong;{place} you have {found}, and it should be {expected}.\n{equation}",
        "{all} 个数中有 {wrong} 个不对；{where}是 {found}，应为 {expected}。\n{equation}",
    ).format(**values)


def _as_tensor(returned: object, task: Exercise) -> Tensor | Text:
    """What a function returned, in float64, or what is wrong with it."""
    if returned is None:
        return Text(
            f"it returns nothing: end it with `return`. It returns {task.returns.en}.",
            f"它没有返回值：最后要有 `return`。返回{task.returns.zh}。",
        )
    try:
        table = np.array(_plain(returned))
    except (TypeError, ValueError):
        table = np.array("ragged")
    if table.dtype.kind == "c":
        return Text("it returns complex numbers; return real ones.", "它返回了复数；应返回实数。")
    if table.dtype.kind not in "bifu":
        kind = type(returned).__name__
        return Text(
            f"it returns a {kind} that is no table of numbers: return {task.returns.en} as tensor, array or lists, "
            "with rows of one length.",
            f"它返回的 {kind} 不是数表：应返回{task.returns.zh}，可以是张量、数组或列表，各行长度相同。",
        )
    return torch.from_numpy(table.astype(np.float64))


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu().resolve_conj()
        # numpy has no bfloat16
        return (value if value.is_complex() else value.double()).numpy()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _given(inputs: dict[str, Any]) -> Text:
    told = ", ".join(
        f"{name} {list(value.shape)}" if isinstance(value, Tensor) else f"{name} = {value}"
        for name, value in inputs.items()
    )
    return Text(f"Given: {told}", f"输入：{told}")
