"""The ways in which PyTorch lets arguments be written: shapes as separate numbers or as a sequence, dimensions as one
number, several or none."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from graphc.dims import Dim
from graphc.errors import ArgumentTypeError, DimError, GraphcError
from graphc.frontend.dispatch import lower
from graphc.frontend.tensor import Tensor, wrap
from graphc.ops import normalize_axis
from graphc.types import DType, TensorType, dtype_of, result_type

emit = Tensor.__graphc_emitter__.emit


def sizes(given: Sequence[Any], what: str = "shape") -> tuple[Any, ...]:
    """A shape that was written as `f(2, 3)`, `f((2, 3))` or `f([2, 3])`."""
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = given[0]
    return tuple(s if type(s) is int or isinstance(s, Dim) else integer(s, what) for s in given)


def integer(value: Any, what: str) -> int:
    """A Python int out of anything that stands for one."""
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentTypeError(f"{what}: not an integer", expected="an int", got=type(value).__name__) from None


def axes(dim: Any, ndim: int) -> tuple[int, ...]:
    """The dimensions that a reduction goes over, in order: all of them for None and for an empty sequence."""
    if dim is None:
        return tuple(range(ndim))
    if isinstance(dim, (tuple, list)):
        found = [normalize_axis(d, ndim) for d in dim]
        if len(set(found)) != len(found):
            raise GraphcError(f"dim {next(d for d in found if found.count(d) > 1)} appears multiple times in the list of dims")
        return tuple(sorted(found)) if found and ndim else tuple(range(ndim))
    axis = normalize_axis(integer(dim, "dim"), ndim)
    return (axis,) if ndim else ()


def axis(dim: Any, ndim: int) -> int:
    """One dimension, counted from the left."""
    return normalize_axis(dim if type(dim) is int else integer(dim, "dim"), ndim)


def described(value: Any) -> Any:
    """An operand as promotion sees it: a TensorType, or the Python number itself."""
    if isinstance(value, Tensor):
        return TensorType(value.dtype, value._data.shape)
    found = lower(value)
    return found if isinstance(found, (bool, int, float)) else TensorType(dtype_of(found.dtype), found.shape)


def promoted(*values: Any) -> DType:
    """The dtype that an operation on these tensors and numbers computes in."""
    return result_type([described(value) for value in values])


def as_operand(value: Any) -> Any:
    """A tensor or a Python number; NumPy's arrays and scalars become tensors."""
    if isinstance(value, (Tensor, bool, int, float)):
        return value
    return wrap(lower(value))


def need_tensor(value: Any, function: str, name: str = "input") -> Tensor:
    """ArgumentTypeError unless it is a tensor."""
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(f"{function}(): argument '{name}' must be Tensor, not {type(value).__name__}")
    return value


def expect_range(low: int, high: int, got: int) -> DimError:
    """The error of a dimension that is not there."""
    return DimError(f"Dimension out of range (expected to be in range of [{low}, {high}], but got {got})")
