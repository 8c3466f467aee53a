"""Making tensors like another one: of its shape and type, or of its type alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.frontend import device as devices
from graphc.frontend import device_ops
from graphc.frontend.arguments import check_fits, given_dtype, need_tensor
from graphc.frontend.creation import Device, constant, empty, empty_permuted, empty_strided, finished, full, ones, zeros
from graphc.frontend.device_arrays import is_on_device
from graphc.frontend.dispatch import number
from graphc.frontend.formats import channels_last_order, contiguous_format
from graphc.frontend.from_data import tensor
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.types import DType

FUNCTIONS = "empty_like full_like ones_like zeros_like"
METHODS = "new new_empty new_empty_strided new_full new_ones new_tensor new_zeros"


def _like(input: Tensor, value: Any, dtype: DType | None, memory_format: object, requires_grad: bool, device: Device,
          function: str) -> Tensor:
    """One number everywhere in the shape of the input, its dimensions in memory in the same order."""
    need_tensor(input, function)
    chosen = given_dtype(dtype, function) or input.dtype
    data = input._data
    device = input.device if device is None else device
    if active() is None and (is_on_device(data) or devices.gpu_of(device) >= 0):
        return finished(_like_on_device(data, value, chosen, memory_format, device), None, requires_grad, device)
    if active() is not None or type(data) is not np.ndarray:
        made = constant(tuple(data.shape), 0 if value is None else value, chosen)
    else:
        array = np.empty_like(data, chosen.numpy, order="C" if memory_format is contiguous_format or 0 in data.strides else "K")
        if (order := channels_last_order(memory_format, data.ndim)) is not None:
            array = np.empty([data.shape[d] for d in order], chosen.numpy).transpose(np.argsort(order))
        if value is not None:
            array[...] = number(value, chosen)
        made = wrap(array)
    return finished(made, None, requires_grad, device)


def _like_on_device(data: Any, value: Any, dtype: DType, memory_format: object, device: Device) -> Tensor:
    shape = tuple(data.shape)
    if (order := channels_last_order(memory_format, len(shape))) is None:
        steps = [abs(step) for step in data.strides]
        order = tuple(sorted(range(len(shape)), key=lambda d: -steps[d]))
        if memory_format is contiguous_format or 0 in steps:
            order = tuple(range(len(shape)))
    made = empty_permuted(shape, order, dtype=dtype, device=device)
    if value is not None:
        one = number(value, dtype)
        if made.is_cpu:
            made._data[...] = one
        else:
            device_ops.fill(made._data, one)
    return made


def zeros_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
               layout: object = None, memory_format: object = None, pin_memory: bool = False) -> Tensor:
    """Zeros of the input's shape and dtype.

    ArgumentTypeError for what is no tensor.

    >>> graphc.zeros_like(graphc.tensor([1, 2]))
    tensor([0, 0])
    """
    return _like(input, 0, dtype, memory_format, requires_grad, device, "zeros_like")


def ones_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
              layout: object = None, memory_format: object = None, pin_memory: bool = False) -> Tensor:
    """Ones of the input's shape and dtype.

    ArgumentTypeError for what is no tensor.

    >>> graphc.ones_like(graphc.tensor([1, 2]), dtype=graphc.float32)
    tensor([1., 1.])
    """
    return _like(input, 1, dtype, memory_format, requires_grad, device, "ones_like")


def full_like(input: Tensor, fill_value: Any, *, dtype: DType | None = None, device: Device = None,
              requires_grad: bool = False, layout: object = None, memory_format: object = None,
              pin_memory: bool = False) -> Tensor:
    """One number everywhere, in the input's shape and dtype.

    ArgumentTypeError for what is no tensor.

    >>> graphc.full_like(graphc.tensor([1.0, 2.0]), 3)
    tensor([3., 3.])
    """
    need_tensor(input, "full_like")
    if isinstance(fill_value, Tensor):
        made = full(tuple(input._data.shape), fill_value, dtype=dtype or input.dtype, device=device or input.device)
        return finished(made, None, requires_grad, made.device)
    check_fits(fill_value, given_dtype(dtype, "full_like") or input.dtype)
    return _like(input, fill_value, dtype, memory_format, requires_grad, device, "full_like")


def empty_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
               layout: object = None, memory_format: object = None, pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor of the input's shape and dtype.

    ArgumentTypeError for what is no tensor.

    >>> graphc.empty_like(graphc.zeros(2, 3)).shape
    graphc.Size([2, 3])
    """
    return _like(input, None, dtype, memory_format, requires_grad, device, "empty_like")


def _beside(input: Tensor, device: Device) -> Device:
    return input.device if device is None else device


def new(input: Tensor, *args: Any, dtype: DType | None = None, device: Device = None) -> Tensor:
    """The old constructor: uninitialised of a shape given as separate numbers, or a copy of data, in the input's dtype.

    >>> graphc.ones(1).new([1, 2])
    tensor([1., 2.])
    """
    if all(isinstance(arg, int) for arg in args):
        return empty(args or (0,), dtype=dtype or input.dtype, device=_beside(input, device))
    return tensor(args[0], dtype=dtype or input.dtype, device=_beside(input, device))


def new_zeros(input: Tensor, *args: Any, size: Any = None, dtype: DType | None = None, device: Device = None,
              requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """Zeros of the input's dtype.

    GraphcError for a negative size, ArgumentTypeError for one that is no int.

    >>> graphc.tensor([1]).new_zeros(2)
    tensor([0, 0])
    """
    return zeros(*args, size=size, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)


def new_ones(input: Tensor, *args: Any, size: Any = None, dtype: DType | None = None, device: Device = None,
             requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """Ones of the input's dtype.

    GraphcError for a negative size, ArgumentTypeError for one that is no int.

    >>> graphc.tensor([1]).new_ones(2)
    tensor([1, 1])
    """
    return ones(*args, size=size, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)


def new_empty(input: Tensor, *args: Any, size: Any = None, dtype: DType | None = None, device: Device = None,
              requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor of the input's dtype.

    GraphcError for a negative size, ArgumentTypeError for one that is no int.

    >>> graphc.tensor([1]).new_empty(2).dtype
    graphc.int64
    """
    return empty(*args, size=size, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)


def new_empty_strided(input: Tensor, size: Any, stride: Any, *, dtype: DType | None = None, device: Device = None,
                      requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """`empty_strided` in the input's dtype.

    GraphcError for negative sizes and strides, and where there are not as many strides as sizes.

    >>> graphc.tensor([1]).new_empty_strided((2, 3), (1, 2)).stride()
    (1, 2)
    """
    return empty_strided(size, stride, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)


def new_full(input: Tensor, size: Any, fill_value: Any, *, dtype: DType | None = None, device: Device = None,
             requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """One number everywhere, in the input's dtype.

    ArgumentTypeError for what is no number.

    >>> graphc.tensor([1]).new_full((2,), 7)
    tensor([7, 7])
    """
    return full(size, fill_value, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)


def new_tensor(input: Tensor, data: Any, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
               layout: object = None, pin_memory: bool = False) -> Tensor:
    """A copy of the data in the input's dtype.

    >>> graphc.tensor([1.0]).new_tensor([2, 3])
    tensor([2., 3.])
    """
    return tensor(data, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)
