"""Tensors in other dtypes and on other devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import ArgumentTypeError
from graphc.frontend import device as devices
from graphc.frontend.movement import clone
from graphc.frontend.pointwise import cast
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import (
    DTYPES,
    DType,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)

METHODS = "cpu cuda to type type_as"

_CLASSES = {"bool": "BoolTensor", "uint8": "ByteTensor", "int8": "CharTensor", "int16": "ShortTensor", "int32": "IntTensor",
            "int64": "LongTensor", "float16": "HalfTensor", "float32": "FloatTensor", "float64": "DoubleTensor"}


def to(self: Tensor, *args: Any, dtype: DType | None = None, device: Any = None, non_blocking: bool = False,
       copy: bool = False, memory_format: object = None) -> Tensor:
    """The tensor in another dtype or on another device: to(dtype), to(device), to(device, dtype) or to(other).

    The tensor itself if nothing has to change, unless `copy`.
    """
    for arg in args:
        if isinstance(arg, DType):
            dtype = arg
        elif isinstance(arg, (str, devices.device)):
            device = arg
        elif isinstance(arg, Tensor):
            dtype = arg.dtype
        elif arg is not None and not isinstance(arg, (bool, int)):
            raise ArgumentTypeError("to() received an invalid combination of arguments",
                                    expected="a dtype, a device or a tensor", got=type(arg).__name__)
    devices.check(device)
    if dtype is not None and dtype is not self.dtype:
        return cast(self, dtype)
    return named(clone(self), "ToCopy") if copy else self


def type(self: Tensor, dtype: DType | str | None = None, non_blocking: bool = False) -> Any:
    """The old name of the tensor's class, such as "graphc.FloatTensor"; or the tensor in another dtype."""
    if dtype is None:
        return f"graphc.{_CLASSES[self.dtype.name]}"
    if isinstance(dtype, str):
        wanted = dtype.rpartition(".")[2]
        dtype = next((DTYPES[name] for name, spelled in _CLASSES.items() if spelled == wanted), DTYPES.get(wanted))
    if not isinstance(dtype, DType):
        raise ArgumentTypeError("type(): not a dtype", expected="a dtype such as graphc.float32", got=repr(dtype))
    return cast(self, dtype)


def type_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor in the dtype of `other`."""
    return cast(self, other.dtype)


def cpu(self: Tensor, memory_format: object = None) -> Tensor:
    """The tensor in CPU memory, where it is already."""
    return self


def cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """The tensor on a GPU: an error where there is none."""
    devices.check("cuda")
    return self


def _converter(name: str, dtype: DType) -> Callable[[Tensor], Tensor]:
    def convert(self: Tensor, memory_format: object = None) -> Tensor:
        return cast(self, dtype)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"The tensor as {dtype.name}."
    return convert


CONVERTERS = {
    name: _converter(name, dtype)
    for name, dtype in {
        "bool": bool_, "byte": uint8, "char": int8, "short": int16, "int": int32, "long": int64, "half": float16,
        "float": float32, "double": float64,
    }.items()
}
"""The conversion methods by name: float, long, ..."""
