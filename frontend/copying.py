"""Functions that put the same numbers into other places, in memory of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, ArgumentTypeError, GraphcError
from graphc.frontend import device_arrays, device_ops, large_arrays
from graphc.frontend.arguments import axis, emit, sizes
from graphc.frontend.composite import HUGE, composite
from graphc.frontend.device_arrays import is_on_device
from graphc.frontend.dispatch import finish
from graphc.frontend.formats import channels_last_order
from graphc.frontend.memory_layout import is_row_major
from graphc.frontend.modes import mode
from graphc.frontend.movement import check_distinct, expand, listed, narrow, permute, reshape, reshaped, transpose
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import _state as trace_state
from graphc.frontend.tracer import active
from graphc.frontend.viewing import Viewing

FUNCTIONS = "clone flip fliplr flipud narrow_copy rot90 tile"
METHODS = "clone contiguous flip fliplr flipud narrow_copy repeat rot90 tile"


def clone(input: Tensor, *, memory_format: object = None) -> Tensor:
    """A copy that the gradient flows through.

    >>> x = graphc.tensor([1.0, 2.0])
    >>> y = graphc.clone(x).zero_()
    >>> x
    tensor([1., 2.])
    """
    if memory_format is not None and not input.is_contiguous(memory_format):
        return contiguous(input, memory_format)
    data = input._data
    if type(data) is np.ndarray and active() is None and not (mode.grad and input.requires_grad):
        return wrap(large_arrays.duplicate(data))
    if is_on_device(data) and active() is None and not (mode.grad and input.requires_grad):
        return wrap(device_arrays.duplicate(data) if 0 not in data.strides else device_ops.copied(data))
    if type(data) is np.ndarray and data.dtype.kind == "f" and trace_state.tracer is None and not mode.inference:
        return _duplicated.make(input, large_arrays.duplicate(data), {"dtype": input.dtype})
    return named(emit(ops.cast, (input,), {"dtype": input.dtype}), "Clone")


def contiguous(input: Tensor, memory_format: object = None) -> Tensor:
    """The tensor itself if it lies in row-major order without gaps, or in that of a memory format, else a copy that does.

    >>> graphc.zeros(2, 3).t().contiguous().is_contiguous()
    True
    """
    data = input._data
    if memory_format is None and (type(data) is np.ndarray or is_on_device(data)) and data.flags.c_contiguous:
        return input
    order = channels_last_order(memory_format, input.ndim)
    if input.is_contiguous(None if order is None else memory_format) and (order is not None or is_row_major(input)):
        return input
    if order is not None:
        return permute(contiguous(permute(input, order)), tuple(order.index(d) for d in range(len(order))))
    if active() is not None:
        return clone(input)
    if type(data) is np.ndarray and data.size >= HUGE and input.dtype.has_code:
        return _copied_row_major(input)
    return _row_major(input)


@composite(large=False)
def _copied_row_major(input: Tensor) -> Tensor:
    """`_row_major`, by code that turns tiles in registers once that is made."""
    return named(emit(ops.copy, (input,), {}), "Clone") if active() is not None else _row_major(input)


def _row_major(input: Tensor) -> Tensor:
    data = input._data
    array = np.ascontiguousarray(data) if type(data) is np.ndarray else device_ops.copied(data)
    return named(finish(ops.cast, (input,), {"dtype": input.dtype}, array, input.dtype.is_differentiable), "Clone")


_duplicated = Viewing(ops.cast, "Clone")


def _copied(input: Tensor) -> Tensor:
    """A copy in row-major order in any case."""
    copy = contiguous(input)
    return clone(input) if copy is input else copy


@composite(large=False)
def flip(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """A copy in reversed order along the dimensions.

    DimError for a dimension that there is not, GraphcError for one that is named twice.

    >>> graphc.flip(graphc.tensor([[1, 2], [3, 4]]), (0, 1))
    tensor([[4, 3],
            [2, 1]])
    """
    chosen = listed(args, dims)
    found = tuple(axis(d, len(input._data.shape)) for d in chosen)
    check_distinct(found)
    if not input._data.shape:
        return clone(input)
    return named(_copied(emit(ops.flip, (input,), {"axes": found})), "Flip")


def fliplr(input: Tensor) -> Tensor:
    """Flipped left to right, along dimension 1.

    GraphcError for less than two dimensions.

    >>> graphc.fliplr(graphc.tensor([[1, 2], [3, 4]]))
    tensor([[2, 1],
            [4, 3]])
    """
    if len(input._data.shape) < 2:
        raise GraphcError("Input must be >= 2-d.", got=str(list(input.shape)))
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """Flipped upside down, along dimension 0.

    GraphcError for a tensor without dimensions.

    >>> graphc.flipud(graphc.tensor([[1, 2], [3, 4]]))
    tensor([[3, 4],
            [1, 2]])
    """
    if not input._data.shape:
        raise GraphcError("Input must be >= 1-d.")
    return flip(input, 0)


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """A copy turned by k times 90 degrees, from the first towards the second of two dimensions.

    GraphcError for dimensions that are not two different ones.

    >>> graphc.rot90(graphc.tensor([[1, 2], [3, 4]]))
    tensor([[2, 4],
            [1, 3]])
    """
    ndim = len(input._data.shape)
    if len(dims) != 2:
        raise GraphcError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if ndim < 2:
        raise GraphcError(f"expected total dims >= 2, but got total dims = {ndim}")
    first, second = axis(dims[0], ndim), axis(dims[1], ndim)
    if first == second:
        raise GraphcError(f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}")
    turns = k % 4
    if turns == 0:
        return clone(input)
    if turns == 2:
        return flip(input, (first, second))
    return contiguous(transpose(flip(input, second if turns == 1 else first), first, second))


def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """A copy of the `length` elements from `start` along a dimension.

    DimError where it would begin outside, GraphcError where it would end there.

    >>> graphc.narrow_copy(graphc.arange(6), 0, 2, 3)
    tensor([2, 3, 4])
    """
    return clone(narrow(input, dim, start, length))


@composite(large=False)
def repeat(input: Tensor, *args: Any, repeats: Any = None) -> Tensor:
    """The tensor set side by side, so many times along each dimension.

    GraphcError for fewer repeats than dimensions; ArgumentError for negative ones, ArgumentTypeError for none.

    >>> graphc.tensor([1, 2]).repeat(2, 2)
    tensor([[1, 2, 1, 2],
            [1, 2, 1, 2]])
    """
    if not args and repeats is None:
        raise ArgumentTypeError('repeat() missing 1 required positional arguments: "repeats"')
    times = sizes(args if repeats is None else (repeats,), "repeats")
    shape = (1,) * (len(times) - len(input._data.shape)) + tuple(input._data.shape)
    if len(times) < len(shape):
        raise GraphcError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor",
                          got=f"{len(times)} repeats for {list(input.shape)}")
    if any(t < 0 for t in times):
        raise ArgumentError("repeat: a negative number of times", got=str(list(times)))
    if all(t == 1 for t in times):
        return named(clone(reshaped(input, shape)), "Repeat")
    spread = reshaped(input, tuple(x for s in shape for x in (1, s)))
    stretched = expand(spread, tuple(x for r, s in zip(times, shape) for x in (r, s)))
    return named(_copied(reshape(stretched, tuple(r * s for r, s in zip(times, shape)))), "Repeat")


def tile(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """`repeat`, where missing times count as 1 in front.

    ArgumentError for a negative number of times.

    >>> graphc.tile(graphc.tensor([1, 2]), (2,))
    tensor([1, 2, 1, 2])
    """
    times = sizes(args if dims is None else (dims,), "dims")
    return repeat(input, (1,) * (len(input._data.shape) - len(times)) + times)
