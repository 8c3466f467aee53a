"""The ways in which PyTorch lets arguments be written: shapes as separate numbers or as a sequence, dimensions as one
number, several or none."""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dim_numbers import DimNumber
from graphc.dims import Dim
from graphc.errors import ArgumentTypeError, GraphcError
from graphc.frontend.described import as_dtype
from graphc.frontend.dispatch import lower
from graphc.frontend.tensor import Tensor, wrap
from graphc.ops import normalize_axis
from graphc.types import DType, Scalar, TensorType, bool_, complex128, dtype_of, float64, int64, result_type

emit = Tensor.__graphc_emitter__.emit


def sizes(given: Sequence[Any], what: str = "shape") -> tuple[Any, ...]:
    """A shape that was written as `f(2, 3)`, `f((2, 3))` or `f([2, 3])`."""
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = given[0]
    for size in given:
        if type(size) is not int:
            break
    else:
        return tuple(given)
    return tuple(s if type(s) is int or isinstance(s, Dim) else _size(s, what) for s in given)


def _size(value: Any, what: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ArgumentTypeError(f"{what} must be tuple of ints, not {type(value).__name__}", got=repr(value))
    return operator.index(value)


def integer(value: Any, what: str) -> Any:
    """A Python int out of anything that stands for one; a bool does not. A symbolic size stays what it is."""
    if isinstance(value, Dim):
        return value
    if isinstance(value, bool):
        raise ArgumentTypeError(f"{what} must be int, not bool", got=repr(value))
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentTypeError(f"{what} must be int, not {type(value).__name__}", got=repr(value)) from None


_PYTHON = {builtins.bool: bool_, builtins.int: int64, builtins.float: float64, builtins.complex: complex128}


def given_dtype(dtype: Any, function: str) -> DType | None:
    """The `dtype` argument of a function: one of graphc's dtypes, or Python's bool, int, float or complex; None as it is."""
    if dtype is None or isinstance(dtype, DType):
        return dtype
    found = _PYTHON.get(dtype) if isinstance(dtype, type) else None
    if found is None:
        raise ArgumentTypeError(f"{function}(): argument 'dtype' must be graphc.dtype, not {type(dtype).__name__}",
                                expected="such as graphc.float32", got=repr(dtype))
    return found


_SPELLED = {"int32": "int", "float32": "float", "float64": "double", "float16": "c10::Half", "bfloat16": "c10::BFloat16"}


def check_fits(value: Scalar, dtype: DType, spelled: str | None = None) -> None:
    """GraphcError unless a Python number can be converted to the dtype: a fraction is cut off, and unsigned dtypes take
    negative numbers of their size, but nothing may overflow."""
    if dtype.kind == "bool" or isinstance(value, bool):
        return
    fits = True
    if isinstance(value, complex):
        if dtype.is_complex:
            parts: tuple[Any, ...] = (value.real, value.imag)
        else:
            parts, fits = (value.real,), value.imag == 0
    else:
        parts = (value,)
    for part in parts:
        if dtype.kind in ("int", "uint"):
            high = (1 << (dtype.bits - (dtype.kind == "int"))) - 1
            fits = fits and math.isfinite(part) and -high - (dtype.kind == "int") <= part <= high
        elif math.isfinite(part):
            with np.errstate(all="ignore"):
                limit = np.float64(part).astype(dtype.to_real().numpy)
            fits = fits and math.isfinite(float(limit))
    if not fits:
        name = spelled or _SPELLED.get(dtype.name) or (f"{dtype.name}_t" if dtype.kind in ("int", "uint") else dtype.name)
        raise GraphcError(f"value cannot be converted to type {name} without overflow", got=str(value))


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


def wrapped(value: Scalar, dtype: DType) -> Scalar:
    """A Python number as an integer dtype holds it: without its fraction, and wrapped around."""
    return dtype.numpy.type(np.int64(int(value.real)).astype(dtype.numpy)).item()


def described(value: Any) -> Any:
    """An operand as promotion sees it: a TensorType, or the Python number itself."""
    if isinstance(value, Tensor):
        return TensorType(value.dtype, value._data.shape)
    found = lower(value)
    numbers = (bool, int, float, complex, Dim, DimNumber)
    return found if isinstance(found, numbers) else TensorType(dtype_of(found.dtype), found.shape)


def promoted(*values: Any) -> DType:
    """The dtype that an operation on these tensors and numbers computes in."""
    found = {value._data.dtype for value in values if isinstance(value, Tensor)}
    if len(found) == 1:  # most often
        (dtype,) = found
        if all(isinstance(value, Tensor) or (dtype.kind == "f" and type(value) in (int, float)) for value in values):
            return as_dtype(dtype)
    return result_type([described(value) for value in values])


def as_operand(value: Any) -> Any:
    """A tensor or a Python number; NumPy's arrays and scalars become tensors. A symbolic size is a number."""
    if isinstance(value, (Tensor, bool, int, float, complex, Dim, DimNumber)):
        return value
    return wrap(lower(value))


_SCALAR_TYPES = {"bool": "Bool", "uint8": "Byte", "int8": "Char", "int16": "Short", "int32": "Int", "int64": "Long",
                 "float16": "Half", "float32": "Float", "float64": "Double", "bfloat16": "BFloat16", "uint16": "UInt16",
                 "uint32": "UInt32", "uint64": "UInt64", "complex32": "ComplexHalf", "complex64": "ComplexFloat",
                 "complex128": "ComplexDouble"}


def scalar_type(dtype: DType) -> str:
    """The dtype's name in PyTorch's error messages: Float, Long, Half."""
    return _SCALAR_TYPES[dtype.name]


def need_tensor(value: Any, function: str, name: str = "input") -> Tensor:
    """ArgumentTypeError unless it is a tensor."""
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(f"{function}(): argument '{name}' must be Tensor, not {type(value).__name__}")
    return value
