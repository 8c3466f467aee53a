"""Tensors in other dtypes, in other memory formats and on other devices."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from graphc import gpu, ops
from graphc.errors import ArgumentError, ArgumentTypeError, GraphcError
from graphc.frontend import device as devices
from graphc.frontend import device_ops
from graphc.frontend.arguments import emit, given_dtype
from graphc.frontend.copying import clone, contiguous
from graphc.frontend.creation import empty, set_default_dtype
from graphc.frontend.formats import preserve_format
from graphc.frontend.from_data import tensor
from graphc.frontend.modes import mode
from graphc.frontend.node import Node, edge_to, node_class
from graphc.frontend.pointwise import cast
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.types import (
    DTYPES,
    DType,
    bfloat16,
    bool_,
    complex32,
    complex64,
    complex128,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)

METHODS = "cpu cuda pin_memory to type type_as"

_type = type  # the name is a method here

_CLASSES = {
    "bool": "BoolTensor", "uint8": "ByteTensor", "int8": "CharTensor", "int16": "ShortTensor", "int32": "IntTensor",
    "int64": "LongTensor", "float16": "HalfTensor", "float32": "FloatTensor", "float64": "DoubleTensor",
    "bfloat16": "BFloat16Tensor", "uint16": "UInt16Tensor", "uint32": "UInt32Tensor", "uint64": "UInt64Tensor",
    "complex32": "ComplexHalfTensor", "complex64": "ComplexFloatTensor", "complex128": "ComplexDoubleTensor",
}  # fmt: skip


def _converted(self: Tensor, dtype: DType, memory_format: object = None) -> Tensor:
    if self.dtype.is_complex and not dtype.is_complex and dtype is not bool_:
        warnings.warn("Casting complex values to real discards the imaginary part", UserWarning, stacklevel=3)
    return _laid_out(cast(self, dtype), memory_format)


def _laid_out(self: Tensor, memory_format: object) -> Tensor:
    return self if memory_format is None or memory_format is preserve_format else contiguous(self, memory_format)


def to(self: Tensor, *args: Any, dtype: DType | None = None, device: Any = None, non_blocking: bool = False,
       copy: bool = False, memory_format: object = None) -> Tensor:
    """The tensor in another dtype or on another device: to(dtype), to(device), to(device, dtype) or to(other).

    The tensor itself if nothing has to change, unless `copy`.

    ArgumentTypeError for what is neither a dtype, a device nor a tensor, BackendError for a device that is not there;
    GraphcError for a name that no device has.

    >>> graphc.tensor([1, 2]).to(graphc.float32)
    tensor([1., 2.])
    """
    flags = [arg for arg in args if isinstance(arg, bool)]
    if len(flags) > 1:
        copy = flags[1]
    for position, arg in enumerate(args):
        if isinstance(arg, (DType, _type)):
            dtype = given_dtype(arg, "to")
        elif isinstance(arg, (str, devices.device)) or (isinstance(arg, int) and not isinstance(arg, bool)):
            device = arg
        elif isinstance(arg, Tensor) and position == 0:
            dtype = arg.dtype
        elif arg is not None and not isinstance(arg, bool):
            raise ArgumentTypeError("to() received an invalid combination of arguments",
                                    expected="a dtype, a device or a tensor", got=_type(arg).__name__)
    if args and isinstance(args[0], Tensor) and device is None:
        device = args[0].device
    if device is not None:
        moved = _moved(self, device)
        copy, self = copy and moved is self, moved
    wanted = given_dtype(dtype, "to") or self.dtype
    if wanted is not self.dtype:
        return _converted(self, wanted, memory_format)
    return _laid_out(named(clone(self), "ToCopy") if copy else self, memory_format)


class ToCopyNode(Node):
    """A copy on another device: the gradient goes back to where the tensor was."""

    __slots__ = ("source",)

    def __init__(self, tensor: Tensor) -> None:
        Node.__init__(self, (edge_to(tensor),))
        self.source = tensor.device

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        return [None if ct is None else _moved(ct, self.source) for ct in cotangents]


def _moved(self: Tensor, where: Any) -> Tensor:
    """The tensor on another device; itself if it is there."""
    if self.name is not None:  # a value of a graph, which has its place there
        devices.check(where)
        there = devices.queue(devices.device(where))
        return self if there == devices.queue(self.device) else emit(ops.transfer, (self,), {"device": there})
    index, here = devices.gpu_of(where), self.device
    if index == (here.index if here.type == "cuda" else -1):
        return self
    tracer = active()
    if tracer is None:
        out = wrap(device_ops.moved(self._data, index))
    else:
        out = wrap(tracer.transfer(self, devices.device("cuda", index) if index >= 0 else devices.CPU))
    if mode.grad and self.requires_grad and (tracer is None or tracer.records(self)):
        out._node = node_class("ToCopyBackward0", ToCopyNode)(self)
    return out


def type(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The old name of the tensor's class, such as "graphc.FloatTensor"; or the tensor in another dtype.

    ArgumentError for a name that no dtype has.

    >>> graphc.tensor([1.5]).type()
    'graphc.FloatTensor'
    >>> graphc.tensor([1.5]).type(graphc.int64)
    tensor([1])
    """
    if dtype is None:
        return f"graphc.{_CLASSES[self.dtype.name]}"
    if isinstance(dtype, str):
        wanted = dtype.rpartition(".")[2]
        chosen = next((DTYPES[name] for name, spelled in _CLASSES.items() if spelled == wanted), None)
        if chosen is None:
            raise ArgumentError(f"invalid type: {dtype!r}", expected="such as 'graphc.FloatTensor'")
    else:
        chosen = dtype.dtype if isinstance(dtype, TypedTensor) else given_dtype(dtype, "type") or self.dtype
    return _converted(self, chosen)


def type_as(self: Tensor, other: Tensor) -> Tensor:
    """The tensor in the dtype of `other`.

    >>> graphc.tensor([1]).type_as(graphc.tensor([1.0]))
    tensor([1.])
    """
    return _converted(self, other.dtype)


def cpu(self: Tensor, memory_format: object = None) -> Tensor:
    """The tensor in CPU memory: itself, or a copy of what is on a GPU.

    >>> graphc.tensor([1]).cpu().device
    device(type='cpu')
    """
    return _laid_out(_moved(self, devices.CPU), memory_format)


def cuda(self: Tensor, device: Any = None, non_blocking: bool = False, memory_format: object = None) -> Tensor:
    """The tensor on a GPU, the current one if none is named: itself, or a copy. An error where there is none.

    BackendError where there is no GPU.

    >>> x = graphc.ones(2)
    >>> x = x.cuda() if graphc.cuda.is_available() else x
    """
    return _laid_out(_moved(self, "cuda" if device is None else device), memory_format)


def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """The tensor itself: copies to a GPU need no memory of a kind of its own here. GraphcError where there is no GPU, and for a
    tensor that is on one.

    >>> x = graphc.ones(2)
    >>> x = x.pin_memory() if graphc.cuda.is_available() else x
    """
    if not gpu.device_count():
        raise GraphcError("Cannot access accelerator device when none is available.", hint="leave pin_memory away on the CPU")
    if self.is_cuda:
        raise GraphcError(f"cannot pin '{self.type()}' only dense CPU tensors can be pinned", got=str(self.device))
    return self


def _converter(name: str, dtype: DType) -> Callable[..., Tensor]:
    def convert(self: Tensor, memory_format: object = None) -> Tensor:
        return _converted(self, dtype, memory_format)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"The tensor as {dtype.name}.\n\n>>> graphc.tensor([1]).{name}().dtype\n{dtype!r}"
    return convert


CONVERTERS = {
    name: _converter(name, dtype)
    for name, dtype in {
        "bool": bool_, "byte": uint8, "char": int8, "short": int16, "int": int32, "long": int64, "half": float16,
        "bfloat16": bfloat16, "float": float32, "double": float64, "chalf": complex32, "cfloat": complex64,
        "cdouble": complex128,
    }.items()
}
"""The conversion methods by name: float, long, ..."""


class TypedTensor:
    """The old class of tensors of one dtype: `FloatTensor(2, 3)` is uninitialised, `FloatTensor([1, 2])` holds the numbers,
    and isinstance(x, FloatTensor) asks for the dtype."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        self.__name__ = _CLASSES[dtype.name]
        self.__doc__ = (f"Tensors of {dtype.name}: the old way to make them.\n\n"
                        f">>> graphc.{self.__name__}([1]).dtype\n{dtype!r}")

    def __call__(self, *args: Any) -> Tensor:
        if len(args) == 1 and not isinstance(args[0], int):
            return tensor(args[0], dtype=self.dtype) if not isinstance(args[0], Tensor) else cast(args[0], self.dtype)
        return empty(args or (0,), dtype=self.dtype)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is self.dtype

    def __repr__(self) -> str:
        return f"<class 'graphc.{self.__name__}'>"


def set_default_tensor_type(t: TypedTensor | str) -> None:
    """The old way to change the default dtype: `set_default_tensor_type(graphc.DoubleTensor)`.

    ArgumentTypeError for what is no such class.

    >>> graphc.set_default_tensor_type(graphc.FloatTensor)
    """
    found = TYPED.get(t.rpartition(".")[2]) if isinstance(t, str) else t
    if not isinstance(found, TypedTensor):
        raise ArgumentTypeError("invalid type object", expected="such as graphc.DoubleTensor", got=repr(t))
    set_default_dtype(found.dtype)


TYPED = {name: TypedTensor(DTYPES[dtype]) for dtype, name in _CLASSES.items()}
"""The old classes by name: FloatTensor, LongTensor, ..."""
