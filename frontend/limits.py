"""`finfo` and `iinfo`: the limits of the dtypes."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ArgumentTypeError
from graphc.types import DType, bfloat16, get_default_dtype


class finfo:
    """The limits of a floating-point dtype, or of the parts of a complex one.

    ArgumentTypeError for a dtype of integers.

    >>> import graphc
    >>> graphc.finfo(graphc.float32).eps
    1.1920928955078125e-07
    """

    def __init__(self, type: DType | None = None) -> None:
        dtype = get_default_dtype() if type is None else type
        if not isinstance(dtype, DType) or not dtype.is_differentiable:
            raise ArgumentTypeError("finfo() requires a floating point input type. Use iinfo to handle 'graphc.finfo'",
                                    expected="a floating-point or complex dtype", got=repr(type))
        real = dtype.to_real()
        if real is bfloat16:
            import ml_dtypes

            found: Any = ml_dtypes.finfo(real.numpy)
            self.resolution = 0.01
        else:
            found = np.finfo(real.numpy)
            self.resolution = float(str(found.resolution))
        self.dtype = real.name
        self.bits = real.bits
        self.eps = float(found.eps)
        self.max = float(found.max)
        self.min = float(found.min)
        self.tiny = self.smallest_normal = float(found.smallest_normal)

    def __repr__(self) -> str:
        return (f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g}, "
                f"smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, finfo) and other.dtype == self.dtype

    def __hash__(self) -> int:
        return hash(("finfo", self.dtype))


class iinfo:
    """The limits of an integer dtype.

    ArgumentTypeError for a dtype of floating-point numbers, and for bool.

    >>> import graphc
    >>> graphc.iinfo(graphc.int8).max
    127
    """

    def __init__(self, type: DType) -> None:
        if not isinstance(type, DType) or type.is_differentiable:
            raise ArgumentTypeError("iinfo() requires an integer input type. Use finfo to handle 'graphc.iinfo'",
                                    expected="an integer dtype", got=repr(type))
        if type.kind == "bool":
            raise ArgumentTypeError("graphc.bool is not supported by iinfo", expected="an integer dtype")
        found = np.iinfo(type.numpy)
        self.dtype = type.name
        self.bits = type.bits
        self.max = int(found.max)
        self.min = int(found.min)

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, iinfo) and other.dtype == self.dtype

    def __hash__(self) -> int:
        return hash(("iinfo", self.dtype))
