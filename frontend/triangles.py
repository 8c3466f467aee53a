"""The identity, and matrices cut off above or below a diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import GraphcError, UnsupportedDTypeError
from graphc.frontend.arguments import emit, given_dtype, integer
from graphc.frontend.composite import composite
from graphc.frontend.creation import Device, finished
from graphc.frontend.pointwise import where
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.types import DType, get_default_dtype, int32, int64

FUNCTIONS = "eye tril tril_indices triu triu_indices"
METHODS = "tril triu"
IN_PLACE = "tril triu"


def eye(n: int, m: int | None = None, *, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
        requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """Ones on the diagonal of an n x m matrix, zeros elsewhere.

    GraphcError for a negative size.

    >>> graphc.eye(2, 3)
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    rows = integer(n, "eye(): argument 'n'")
    columns = rows if m is None else integer(m, "eye(): argument 'm'")
    for name, size in (("n", rows), ("m", columns)):
        if size < 0:
            raise GraphcError(f"{name} must be greater or equal to 0, got {size}")
    chosen = given_dtype(dtype, "eye") or (get_default_dtype() if out is None else out.dtype)
    if active() is None:
        shape = (rows, columns)
        made = ops.cast(wrap(np.eye(*shape, dtype=bool)), dtype=chosen)
    else:
        shape = (rows, columns)
        made = emit(ops.cast, (_grid(shape, 0) == _grid(shape, 1),), {"dtype": chosen})
    return finished(made, out, requires_grad, device)


def tril_mask(shape: Sequence[int], diagonal: int) -> Tensor:
    """Where column - row <= diagonal, in the last two dimensions."""
    row = _grid(shape, len(shape) - 2)
    column = _grid(shape, len(shape) - 1)
    return column - row <= diagonal


def _grid(shape: Sequence[int], along: int) -> Tensor:
    return ops.iota(shape=tuple(shape), axis=along, dtype=int64, like=Tensor)


@composite(large=False)
def tril(input: Tensor, diagonal: int = 0, *, k: int = 0) -> Tensor:
    """The elements on and below a diagonal; zeros above. `k` is NumPy's name for the diagonal.

    GraphcError for less than two dimensions.

    >>> graphc.tril(graphc.ones(2, 3))
    tensor([[1., 0., 0.],
            [1., 1., 0.]])
    """
    return _triangle(input, "tril", lambda: tril_mask(input._data.shape, diagonal or k))


@composite(large=False)
def triu(input: Tensor, diagonal: int = 0, *, k: int = 0) -> Tensor:
    """The elements on and above a diagonal; zeros below. `k` is NumPy's name for the diagonal.

    GraphcError for less than two dimensions.

    >>> graphc.triu(graphc.ones(2, 3), diagonal=1)
    tensor([[0., 1., 1.],
            [0., 0., 1.]])
    """
    return _triangle(input, "triu", lambda: ~tril_mask(input._data.shape, (diagonal or k) - 1))


def _triangle(input: Tensor, name: str, mask: Any) -> Tensor:
    if len(input._data.shape) < 2:
        raise GraphcError(f"{name}: input tensor must have at least 2 dimensions")
    return named(where(mask(), input, False if input.dtype.kind == "bool" else 0), name.capitalize())


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DType | None = None, device: Device = None,
                 layout: object = None) -> Tensor:
    """Rows and columns, as int64[2, n], of the elements on and below a diagonal of a row x col matrix.

    GraphcError for negative sizes, UnsupportedDTypeError for other dtypes than int32 and int64.

    >>> graphc.tril_indices(2, 2)
    tensor([[0, 1, 1],
            [0, 0, 1]])
    """
    return _indices("tril_indices", np.tril_indices, row, col, offset, dtype, device)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DType | None = None, device: Device = None,
                 layout: object = None) -> Tensor:
    """Rows and columns, as int64[2, n], of the elements on and above a diagonal of a row x col matrix.

    GraphcError for negative sizes, UnsupportedDTypeError for other dtypes than int32 and int64.

    >>> graphc.triu_indices(2, 2)
    tensor([[0, 0, 1],
            [0, 1, 1]])
    """
    return _indices("triu_indices", np.triu_indices, row, col, offset, dtype, device)


def _indices(name: str, function: Any, row: int, col: int, offset: int, dtype: DType | None, device: Device) -> Tensor:
    for what, size in (("row", row), ("col", col)):
        if integer(size, f"{name}(): argument '{what}'") < 0:
            raise GraphcError(f"{what} must be non-negative, got {size}")
    chosen = given_dtype(dtype, name) or int64
    if chosen not in (int64, int32):
        raise UnsupportedDTypeError(f'"{name}" not implemented for {chosen.name}', expected="int64 or int32")
    places = np.stack(function(row, offset, col)).astype(chosen.numpy)
    return finished(wrap(places), None, False, device)
