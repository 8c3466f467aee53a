"""Comparing tensors in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, ArgumentTypeError
from graphc.frontend.from_data import as_tensor
from graphc.frontend.logic import isclose
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.types import DType, promote_types

__all__ = ["assert_close"]

_TOLERANCES = {"float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}
"""How much may differ by default, by the dtype of the real numbers: a part of the expected number, and so much at least."""


def assert_close(actual: Any, expected: Any, *, allow_subclasses: bool = True, rtol: float | None = None,
                 atol: float | None = None, equal_nan: bool = False, check_device: bool = True, check_dtype: bool = True,
                 check_layout: bool = True, check_stride: bool = False, msg: str | Callable[[str], str] | None = None) -> None:
    """AssertionError, which says where and by how much, unless |actual - expected| <= atol + rtol * |expected| everywhere.

    Both are tensors or NumPy arrays of one shape, numbers, None, or sequences and mappings of those. The tolerances are given
    together; by default they go by the dtype. `check_dtype` and `check_stride` compare these, too; `msg` is what is said
    instead, or a function of what would be said.

    ArgumentError for one tolerance without the other, ArgumentTypeError for what there is no comparing.

    >>> import graphc
    >>> graphc.testing.assert_close(graphc.tensor([0.1, 0.2]).cumsum(0), graphc.tensor([0.1, 0.3]))
    >>> graphc.testing.assert_close([1, 2], [1, 3])
    Traceback (most recent call last):
    AssertionError: item 1: 2 is not close to 3: they differ by 1, allowed is 0
    """
    if (rtol is None) != (atol is None):
        raise ArgumentError("assert_close: rtol and atol are given together, or neither of them",
                            got=f"rtol={rtol}, atol={atol}")
    options = (rtol, atol, equal_nan, check_dtype, check_stride)
    with no_grad():
        problem = _difference(actual, expected, allow_subclasses, options)
    if problem is not None:
        raise AssertionError(problem if msg is None else msg(problem) if callable(msg) else msg)


def _difference(actual: Any, expected: Any, subclasses: bool, options: tuple[Any, ...]) -> str | None:
    """What is wrong, if anything is."""
    if actual is None and expected is None:
        return None
    if isinstance(actual, (int, float, complex)) and isinstance(expected, (int, float, complex)):
        return _of_numbers(actual, expected, options)
    arrays = (Tensor, np.ndarray)
    if isinstance(actual, arrays) and isinstance(expected, arrays) and (subclasses or type(actual) is type(expected)):
        return _of_tensors(as_tensor(actual), as_tensor(expected), options)
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if actual.keys() != expected.keys():
            return f"the keys differ: {sorted(map(str, actual.keys() ^ expected.keys()))} are in one of the two alone"
        pairs = [(key, actual[key], expected[key]) for key in expected]
    elif all(isinstance(x, Sequence) and not isinstance(x, str) for x in (actual, expected)):
        if len(actual) != len(expected):
            return f"the lengths differ: {len(actual)} and {len(expected)}"
        pairs = [(i, a, b) for i, (a, b) in enumerate(zip(actual, expected))]
    else:
        raise ArgumentTypeError("assert_close: there is no comparing these",
                                expected="two tensors, two numbers, or two containers of them",
                                got=f"{type(actual).__name__} and {type(expected).__name__}")
    for key, a, b in pairs:
        problem = _difference(a, b, subclasses, options)
        if problem is not None:
            return f"item {key}: {problem}"
    return None


def _of_numbers(actual: Any, expected: Any, options: tuple[Any, ...]) -> str | None:
    rtol, atol, equal_nan, check_dtype, _ = options
    if check_dtype and type(actual) is not type(expected):
        return f"the types differ: {type(actual).__name__} and {type(expected).__name__}"
    if rtol is None:
        rtol, atol = (0.0, 0.0) if isinstance(actual, int) and isinstance(expected, int) else _TOLERANCES["float64"]
    if actual == expected or (equal_nan and actual != actual and expected != expected):
        return None
    allowed = atol + rtol * abs(expected)
    if abs(actual - expected) <= allowed < float("inf"):
        return None
    return f"{actual} is not close to {expected}: they differ by {abs(actual - expected)}, allowed is {allowed:g}"


def _of_tensors(actual: Tensor, expected: Tensor, options: tuple[Any, ...]) -> str | None:
    rtol, atol, equal_nan, check_dtype, check_stride = options
    if actual.shape != expected.shape:
        return f"the shapes differ: {list(actual.shape)} and {list(expected.shape)}"
    if check_dtype and actual.dtype is not expected.dtype:
        return f"the dtypes differ: {actual.dtype.name} and {expected.dtype.name}"
    if check_stride and actual.stride() != expected.stride():
        return f"the strides differ: {actual.stride()} and {expected.stride()}"
    if rtol is None:
        rtol, atol = np.maximum(_tolerances(actual.dtype), _tolerances(expected.dtype)).tolist()
    common = promote_types(actual.dtype, expected.dtype)
    a, b = actual.to(common), expected.to(common)
    close = isclose(a, b, rtol, atol, equal_nan).numpy()
    if close.all():
        return None
    wide = np.complex128 if common.is_complex else np.float64
    x, y = a.numpy().astype(wide), b.numpy().astype(wide)
    with np.errstate(all="ignore"):
        gap = np.where(close, 0.0, np.abs(x - y))
    place = np.unravel_index(np.nanargmax(gap) if not np.isnan(gap).all() else 0, gap.shape)
    where = tuple(map(int, place))
    at = f" at {where if len(where) != 1 else where[0]}" if where else ""
    return (f"{(~close).sum()} of {close.size} elements are not close: the largest difference is {gap[place]:g}{at}, where "
            f"{x[place]:g} was to be {y[place]:g} (rtol={rtol:g}, atol={atol:g})")


def _tolerances(dtype: DType) -> tuple[float, float]:
    return _TOLERANCES.get(dtype.to_real().name if dtype.is_complex else dtype.name, (0.0, 0.0))
