"""What the operations on matrices share: triangles and parts of them, and how LAPACK is called for a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.errors import DTypeError, LinAlgError, ShapeError
from graphc.ops.creation import iota
from graphc.ops.elementwise import cast, eq, le, where
from graphc.ops.movement import reshape, slice
from graphc.types import Size, TensorType, complex64, complex128, float32, float64, int64

# Shapes


def lesser(x: TensorType) -> Size:
    """The smaller one of the last two sizes."""
    rows, columns = x.shape[-2:]
    return min(rows, columns)


def need_matrices(name: str, x: TensorType) -> None:
    """An error unless x holds matrices of a dtype that LAPACK has routines for."""
    if x.dtype not in (float32, float64, complex64, complex128):
        raise DTypeError(f"{name}: no matrices of {x.dtype.name}", expected="float32, float64, complex64 or complex128",
                         got=str(x))
    if x.ndim < 2:
        raise ShapeError(f"{name}: expected matrices", expected="[..., m, n]", got=str(x))


def need_square(name: str, x: TensorType) -> None:
    """An error unless x holds square matrices of a dtype that LAPACK has routines for."""
    need_matrices(name, x)
    if x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{name}: expected square matrices", expected="[..., n, n]", got=str(x))


def _place(x: Any, axis: int) -> Any:
    """The number of the row (axis -2) or column (axis -1) of each element, in the shape of one matrix."""
    return iota(shape=tuple(x.shape[-2:]), axis=axis + 2, dtype=int64, like=x)


def lower_triangle(x: Any, diagonal: int = 0) -> Any:
    """Zeros above a diagonal of the last two dimensions; 0 is the main one, negative ones lie below it."""
    return where(le(_place(x, -1) - diagonal, _place(x, -2)), x, 0.0)


def upper_triangle(x: Any, diagonal: int = 0) -> Any:
    """Zeros below a diagonal of the last two dimensions."""
    return where(le(_place(x, -2) + diagonal, _place(x, -1)), x, 0.0)


def on_diagonal(x: Any) -> Any:
    """Which elements of the last two dimensions lie on the main diagonal, as the booleans of one matrix."""
    return eq(_place(x, -2), _place(x, -1))


def identity_like(x: Any) -> Any:
    """One identity matrix of x's dtype and last two sizes."""
    return cast(on_diagonal(x), x.dtype)


def part(x: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
    """x[..., rows, columns], for ranges given by start and stop."""
    lead = x.shape[:-2]
    starts, stops = (0,) * len(lead) + (rows[0], columns[0]), (*lead, rows[1], columns[1])
    return slice(x, starts, stops, (1,) * len(starts))


def as_row(v: Any) -> Any:
    """Vectors as matrices of one row."""
    return reshape(v, (*v.shape[:-1], 1, v.shape[-1]))


def as_column(v: Any) -> Any:
    """Vectors as matrices of one column."""
    return reshape(v, (*v.shape, 1))


def total(terms: list[Any]) -> Any:
    """The sum of what there is; None of nothing."""
    found: Any = None
    for term in terms:
        if term is not None:
            found = term if found is None else found + term
    return found


# Calling LAPACK

LAPACK: dict[str, Any] = {"kernel": "host", "batch": "leading"}
"""What the records of all ops here say."""


def each_matrix(
    function: Callable[..., tuple[Any, ...]], arrays: tuple[np.ndarray, ...], results: tuple[np.ndarray, ...]
) -> None:
    """Call a function for each matrix of a batch, and write what it returns into `results`."""
    for index in np.ndindex(arrays[0].shape[:-2]):
        for result, made in zip(results, function(*(a[index] for a in arrays)), strict=True):
            result[index] = made


def failure(name: str, info: np.ndarray, problem: str) -> LinAlgError:
    """The error of a batch in which some matrices have an error code; `problem` may mention {info}."""
    place = int(np.flatnonzero(info)[0])
    batch = f"(Batch element {place}): " if info.ndim else ""
    return LinAlgError(f"{name}: {batch}{problem.format(info=int(info.reshape(-1)[place]))}")


