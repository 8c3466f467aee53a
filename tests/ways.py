"""Functions whose way depends on numbers: what they do, call by call, eagerly and compiled."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import graphc
from graphc.frontend.pytree import flatten

Made = tuple[Callable[..., Any], Callable[[], Sequence[Any]]]
"""A function, and the state that it changes."""

INPUTS = [[1.0, 2.0], [-1.0, -2.0], [5.0, 0.0], [0.25, -0.5]]


def plain(leaf: Any) -> Any:
    return leaf.tolist() if isinstance(leaf, graphc.Tensor) else leaf


def history(made: Made, inputs: Sequence[Any], calls: int, compiled: bool) -> tuple[list[Any], str]:
    """Results, the state after each call, and what was printed."""
    function, state = made
    run = graphc.compile(function) if compiled else function
    happened = []
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for _ in range(calls):
            for x in inputs:
                try:
                    result = run(graphc.tensor(x))
                except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                    result = repr(error)
                leaves, structure = flatten(result)
                happened.append((structure, list(map(plain, leaves)), [type(x) for x in leaves],
                                 [plain(x) for x in flatten(list(state()))[0]]))
    return happened, printed.getvalue()


def close(left: Any, right: Any) -> bool:
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(close, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-4, abs_tol=1e-6) or (math.isnan(left) and math.isnan(right))
    return type(left) is type(right) and left == right


def agree(make: Callable[[], Made], inputs: Sequence[Any] = tuple(INPUTS), calls: int = 5) -> None:
    """The same results, state and output as eagerly, call by call."""
    graphc.manual_seed(3)
    eager, eager_text = history(make(), inputs, calls, compiled=False)
    graphc.manual_seed(3)
    compiled, text = history(make(), inputs, calls, compiled=True)
    for k, (want, got) in enumerate(zip(eager, compiled, strict=True)):
        assert close(want, got), f"call {k}: {want} eagerly, {got} compiled"
    assert text == eager_text


def pure(function: Callable[..., Any]) -> Made:
    return function, lambda: ()


def way(x: Any) -> Any:
    h = (x * 2).sin()
    if h.sum() > 0:
        return (h * h).cos() * x
    while h.sum() < -0.5:
        h = h * 0.7
    return h.exp() * x
