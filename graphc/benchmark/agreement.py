"""Whether two libraries computed the same: results of calls as flat lists of arrays, written, read and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CALLS = 3
"""How many calls are compared: of a training step, the second one shows whether the first has updated rightly."""
_TOLERANCE = {"float16": 2e-2, "bfloat16": 5e-2, "float64": 1e-6, "complex128": 1e-6}
"""Of the largest number of a result, by the least precise dtype in it; what rounding may come to."""
_SINGLE = 1e-3


def leaves(result: Any, to_array: Callable[[Any], np.ndarray | None]) -> list[tuple[str, np.ndarray]]:
    """The numbers of a result with the names of their dtypes, in order: tensors, which `to_array` knows, and Python's numbers,
    in containers."""
    array = to_array(result)
    if array is not None:
        return [(str(result.dtype).removeprefix("torch.").removeprefix("graphc."), array)]
    if isinstance(result, (bool, int, float, complex)):
        return [("float32", np.asarray(result))]
    if isinstance(result, dict):
        return [leaf for key in sorted(result, key=str) for leaf in leaves(result[key], to_array)]
    if isinstance(result, (list, tuple)):
        return [leaf for part in result for leaf in leaves(part, to_array)]
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return [leaf for field in dataclasses.fields(result) for leaf in leaves(getattr(result, field.name), to_array)]
    return []


def write(calls: Sequence[list[tuple[str, np.ndarray]]], path: str) -> int:
    """Write the results of calls; how many arrays each has."""
    arrays: dict[str, Any] = {
        f"{call} {number} {dtype}": array for call, parts in enumerate(calls) for number, (dtype, array) in enumerate(parts)
    }
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return len(calls[0]) if calls else 0


def compare(path: str | Path, other: str | Path) -> str | None:
    """How the results in a file differ from those in the other; None if by rounding alone."""
    with np.load(path) as found, np.load(other) as expected:
        ours, theirs = _by_place(found), _by_place(expected)
        for call in range(CALLS):
            one, two = (sum(place[0] == call for place in places) for places in (ours, theirs))
            if one != two:
                return f"call {call + 1} gives {one} results instead of {two}"
        for place in sorted(theirs):
            problem = difference(ours[place], theirs[place])
            if problem is not None:
                return f"in call {place[0] + 1}, result {place[1] + 1} {problem}"
    return None


def _by_place(file: Any) -> dict[tuple[int, int], tuple[str, np.ndarray]]:
    found = {}
    for name in file:
        call, number, dtype = name.split(" ")
        found[int(call), int(number)] = dtype, file[name]
    return found


def difference(found: tuple[str, np.ndarray], expected: tuple[str, np.ndarray]) -> str | None:
    """
    >>> ones = np.ones(3, np.float32)
    >>> difference(("float32", ones + np.float32(1e-5)), ("float32", ones))
    >>> difference(("float32", 2 * ones), ("float32", ones))
    'is off by 1, of numbers up to 1'
    """
    (dtype, one), (other_dtype, other) = found, expected
    if one.shape != other.shape:
        return f"has the shape {list(one.shape)} instead of {list(other.shape)}"
    if not other.size:
        return None
    exact = one.dtype.kind in "biu" and other.dtype.kind in "biu"
    tolerance = 0.0 if exact else max(_TOLERANCE.get(name, _SINGLE) for name in (dtype, other_dtype))
    wide = np.complex128 if "c" in one.dtype.kind + other.dtype.kind else np.float64
    one, other = one.astype(wide), other.astype(wide)
    odd = ~np.isfinite(other)
    if not np.array_equal(odd, ~np.isfinite(one)) or not np.array_equal(one[odd], other[odd], equal_nan=True):
        return "is infinite or not a number in other places"
    largest = float(np.abs(other[~odd]).max(initial=0.0))
    error = float(np.abs(one[~odd] - other[~odd]).max(initial=0.0))
    return None if error <= tolerance * largest else f"is off by {error:.3g}, of numbers up to {largest:.3g}"
