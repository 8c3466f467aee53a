"""The `onnx` package, where it is installed, and its element types."""

from __future__ import annotations

import importlib
from typing import Any

from graphc.errors import BackendError, DTypeError
from graphc.types import DTYPES, DType


def onnx(module: str = "onnx") -> Any:
    """The `onnx` package, or a module of it; BackendError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendError(f"ONNX models need the onnx package: {error}", hint="pip install 'graphc[onnx]'") from None


_NUMBERS = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11, "uint32": 12, "uint64": 13, "complex64": 14, "complex128": 15, "bfloat16": 16,
}  # fmt: skip
_DTYPES = {number: DTYPES[name] for name, number in _NUMBERS.items()}
_OTHERS = {
    0: "undefined", 8: "string", 17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4",
    22: "int4", 23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2",
}  # fmt: skip


def element_type(dtype: DType) -> int:
    """The number by which ONNX knows a dtype; DTypeError where it has none."""
    found = _NUMBERS.get(dtype.name)
    if found is None:
        raise DTypeError(f"ONNX has no element type for {dtype.name}", expected=f"one of {', '.join(_NUMBERS)}")
    return found


def dtype_of_element(number: int) -> DType:
    """The dtype of one of ONNX's element types; DTypeError where graphc has none."""
    found = _DTYPES.get(number)
    if found is None:
        raise DTypeError(f"ONNX's element type {_OTHERS.get(number, number)} is not supported",
                         expected=f"one of {', '.join(_NUMBERS)}")
    return found
