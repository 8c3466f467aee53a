"""Making tensors from nothing: of one number, or uninitialised. Inside a trace constants become nodes of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import ops, types
from graphc.dim_numbers import DimNumber
from graphc.dims import Dim
from graphc.errors import ArgumentTypeError, AutogradError, GraphcError
from graphc.frontend import device as devices
from graphc.frontend import device_arrays, device_ops
from graphc.frontend.arguments import check_fits, emit, given_dtype, scalar_type, sizes
from graphc.frontend.composite import forget_forms
from graphc.frontend.dispatch import forget_promotions, number
from graphc.frontend.inplace import write_out
from graphc.frontend.movement import expand
from graphc.frontend.pointwise import cast
from graphc.frontend.symbolic_number import SymbolicNumber
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.types import DType, TensorType, get_default_dtype, scalar_dtype

FUNCTIONS = "empty empty_permuted empty_strided full get_default_dtype ones scalar_tensor zeros"

Device = str | int | devices.device | None


def set_default_dtype(dtype: DType) -> None:
    """Change the dtype of floating-point tensors made from Python numbers: float32, float64, float16 or bfloat16.

    ArgumentTypeError for a dtype that is not of floating-point numbers.

    >>> graphc.set_default_dtype(graphc.float64)
    >>> graphc.tensor(1.5).dtype
    graphc.float64
    >>> graphc.set_default_dtype(graphc.float32)
    """
    if not isinstance(dtype, DType) or not dtype.is_floating_point:
        raise ArgumentTypeError("only floating-point types are supported as the default type",
                                expected="float32, float64, float16 or bfloat16", got=repr(dtype))
    types.set_default_dtype(dtype)
    forget_promotions()
    forget_forms()


def on_device(tensor: Tensor, device: Device) -> Tensor:
    """A new tensor where it was asked for, or on the default device."""
    index = devices.gpu_of(device)
    if index >= 0 and type(tensor._data) is np.ndarray:
        tensor._data = device_arrays.upload(tensor._data, index)
    elif (index >= 0 and active() is not None) or (index < 0 and device is not None and tensor.is_cuda):
        return tensor.to(device=devices.device("cuda", index) if index >= 0 else devices.CPU)
    return tensor


def finished(tensor: Tensor, out: Tensor | None, requires_grad: bool, device: Device) -> Tensor:
    """A new tensor as it was asked for: written into `out`, requiring grad."""
    if out is not None:
        devices.check(device)
        tensor = write_out(tensor, out)
    else:
        tensor = on_device(tensor, device)
    if not requires_grad:
        return tensor
    if not tensor.dtype.is_differentiable:
        raise AutogradError("Only Tensors of floating point and complex dtype can require gradients", got=tensor.dtype.name)
    return tensor.requires_grad_()


def constant(shape: tuple[Any, ...], value: Any, dtype: DType, device: Device = None) -> Tensor:
    _check_shape(shape)
    index = devices.gpu_of(device)
    if index >= 0 and active() is None:
        return wrap(device_ops.filled(shape, number(value, dtype), index))
    if active() is not None:
        # a tensor of its own, not a view of one number
        return wrap(ops.full(TensorType(dtype, shape), number(value, dtype).item(), like=Tensor)._data)
    if value == 0 and type(value) is int:  # -0.0 is equal to it, and another number
        return wrap(np.zeros(shape, dtype.numpy))
    return wrap(np.full(shape, number(value, dtype), dtype.numpy))


def _check_shape(shape: tuple[Any, ...]) -> None:
    for size in shape:
        if type(size) is int and size < 0:  # a symbolic one stands for what a tensor has
            raise GraphcError(f"Trying to create tensor with negative dimension {size}: {list(shape)}. "
                              "Dimension size must be non-negative.")


def given_size(args: tuple[Any, ...], size: Any, function: str) -> tuple[Any, ...]:
    """A shape that was written as `f(2, 3)`, `f((2, 3))` or `f(size=(2, 3))`."""
    if size is None and not args:
        raise ArgumentTypeError(f'{function}() missing 1 required positional arguments: "size"')
    return sizes(args if size is None else (size,), f"{function}(): argument 'size' (position 1)")


def kept_dtype(dtype: DType | None, out: Tensor | None, function: str) -> DType:
    """The dtype of a new tensor: that of `out=`, where there is one."""
    chosen = given_dtype(dtype, function)
    if out is None:
        return chosen or get_default_dtype()
    if chosen is not None and chosen is not out.dtype:
        raise GraphcError(f"dtype {scalar_type(chosen)} does not match dtype of out parameter ({scalar_type(out.dtype)})")
    return out.dtype


def zeros(*args: Any, size: Any = None, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
          requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """A tensor of zeros, of the default dtype unless one is given. The sizes are separate numbers or one sequence.

    GraphcError for a negative size, ArgumentTypeError for one that is no int, AutogradError for integers that require grad.

    >>> graphc.zeros(2, 3)
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    made = constant(given_size(args, size, "zeros"), 0, kept_dtype(dtype, out, "zeros"), device)
    return finished(made, out, requires_grad, device)


def ones(*args: Any, size: Any = None, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
         requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """A tensor of ones, of the default dtype unless one is given. The sizes are separate numbers or one sequence.

    GraphcError for a negative size, ArgumentTypeError for one that is no int, AutogradError for integers that require grad.

    >>> graphc.ones((2, 2), dtype=graphc.int64)
    tensor([[1, 1],
            [1, 1]])
    """
    made = constant(given_size(args, size, "ones"), 1, kept_dtype(dtype, out, "ones"), device)
    return finished(made, out, requires_grad, device)


def empty(*args: Any, size: Any = None, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
          requires_grad: bool = False, layout: object = None, pin_memory: bool = False,
          memory_format: object = None) -> Tensor:
    """A tensor of numbers that are whatever they are, of the default dtype unless one is given.

    GraphcError for a negative size, BackendError for a device that is not there, OutOfMemoryError where its memory does not
    suffice.

    >>> graphc.empty(2, 3).shape
    graphc.Size([2, 3])
    """
    shape = given_size(args, size, "empty")
    chosen = kept_dtype(dtype, out, "empty")
    if active() is not None:
        made = constant(shape, 0, chosen)
    else:
        _check_shape(shape)
        index = devices.gpu_of(device)
        made = wrap(np.empty(shape, chosen.numpy) if index < 0 else device_arrays.empty(shape, chosen.numpy, index))
    return finished(made, out, requires_grad, device)


def empty_strided(size: Any, stride: Any, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
                  layout: object = None, pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor whose position in memory grows by `stride` elements along each dimension.

    GraphcError for negative sizes and strides, and where there are not as many strides as sizes.

    >>> graphc.empty_strided((2, 3), (1, 2)).stride()
    (1, 2)
    """
    shape, steps = sizes((size,), "size"), sizes((stride,), "stride")
    chosen = given_dtype(dtype, "empty_strided") or get_default_dtype()
    if len(shape) != len(steps):
        raise GraphcError(f"dimensionality of sizes ({len(shape)}) must match dimensionality of strides ({len(steps)})")
    _check_shape(shape)
    if any(step < 0 for step in steps):
        raise GraphcError(f"empty_strided: negative strides are not supported, sizes={list(shape)} and strides={list(steps)}")
    if active() is not None:
        return finished(constant(shape, 0, chosen), None, requires_grad, device)
    length = 0 if 0 in shape else 1 + sum((n - 1) * step for n, step in zip(shape, steps))
    in_bytes = tuple(step * chosen.itemsize for step in steps)
    index = devices.gpu_of(device)
    if index < 0:
        array = np.ndarray(shape, chosen.numpy, np.empty(length, chosen.numpy), 0, in_bytes)
    else:
        array = device_arrays.view(device_arrays.empty((length,), chosen.numpy, index), shape, in_bytes)
    return finished(wrap(array), None, requires_grad, device)


def empty_permuted(size: Any, physical_layout: Any, *, dtype: DType | None = None, device: Device = None,
                   requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor without gaps whose dimensions lie in memory in the order `physical_layout`.

    GraphcError for negative sizes, and where `physical_layout` does not name each dimension once.

    >>> graphc.empty_permuted((2, 3), (1, 0)).stride()
    (1, 2)
    """
    shape, order = sizes((size,), "size"), sizes((physical_layout,), "physical_layout")
    if len(shape) != len(order):
        raise GraphcError("Number of dimensions in size does not match the length of the physical_layout; i.e. len(size) = "
                          f"{len(shape)} is not equal to len(physical_layout) = {len(order)}")
    if any(not 0 <= d < len(shape) for d in order):
        raise GraphcError(f"Dimension out of range (expected to be between 0 and {len(shape) - 1}, but got {list(order)})")
    if len(set(order)) != len(order):
        raise GraphcError("Duplicate dim not allowed", got=str(list(order)))
    strides, step = [0] * len(shape), 1
    for d in reversed(order):
        strides[d] = step
        step *= max(shape[d], 1)
    return empty_strided(shape, strides, dtype=dtype, device=device, requires_grad=requires_grad)


def full(size: Any, fill_value: Any, *, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
         requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """A tensor with one number everywhere; the number decides the dtype unless one is given.

    ArgumentTypeError for a size that is not of ints, and for what is not a number to fill it with; GraphcError for a negative
    size.

    >>> graphc.full((2,), 7)
    tensor([7, 7])
    >>> graphc.full((2,), 7, dtype=graphc.float32)
    tensor([7., 7.])
    """
    if not isinstance(size, (tuple, list)):
        raise ArgumentTypeError(f"full(): argument 'size' (position 1) must be tuple of ints, not {type(size).__name__}")
    shape = sizes((size,), "size")
    chosen = given_dtype(dtype, "full")
    if isinstance(fill_value, Tensor):
        if fill_value._data.shape:
            raise ArgumentTypeError("full(): argument 'fill_value' (position 2) must be Number, not Tensor",
                                    got=f"shape {list(fill_value.shape)}")
        return finished(expand(cast(fill_value, chosen or fill_value.dtype), shape).clone(), out, requires_grad, device)
    if isinstance(fill_value, np.generic):
        fill_value = fill_value.item()
    if type(fill_value) is SymbolicNumber:
        fill_value = fill_value.plain("full()")
    if isinstance(fill_value, (Dim, DimNumber)):
        chosen = chosen or scalar_dtype(fill_value)
        made = emit(ops.add, (np.zeros((), chosen.numpy), fill_value), {})
        return finished(expand(cast(made, chosen), shape).clone(), out, requires_grad, device)
    if not isinstance(fill_value, (bool, int, float, complex)):
        raise ArgumentTypeError("full(): argument 'fill_value' (position 2) must be Number, not "
                                f"{type(fill_value).__name__}")
    chosen = chosen or (scalar_dtype(fill_value) if out is None else out.dtype)
    check_fits(fill_value, chosen)
    return finished(constant(shape, fill_value, chosen, device), out, requires_grad, device)


def scalar_tensor(s: Any, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
                  layout: object = None, pin_memory: bool = False) -> Tensor:
    """A tensor without dimensions, of the default dtype.

    ArgumentTypeError for what is no number.

    >>> graphc.scalar_tensor(3)
    tensor(3.)
    """
    return full((), s, dtype=dtype or get_default_dtype(), device=device, requires_grad=requires_grad)
