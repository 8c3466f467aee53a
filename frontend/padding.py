"""Padding: elements put before and after those of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, GraphcError, ShapeError, UnsupportedError
from graphc.frontend.arguments import emit
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.indexing import index_select
from graphc.frontend.spatial import places
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor

FUNCTIONS = "constant_pad_nd"


@composite(large=False)
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Elements put before and after: (left, right, top, bottom, ...) from the last dimension backwards.

    Negative numbers cut off. `mode` "reflect", "replicate" or "circular" takes them from the input.

    GraphcError for another mode, ArgumentError for a value where the mode takes none; GraphcError also for more numbers than
    the dimensions have ends, and for more than the mode can take from the input; UnsupportedError for numbers of dimensions
    that it has no way for, ShapeError for an empty input.

    >>> F.pad(graphc.tensor([[1.0, 2.0]]), (1, 2))
    tensor([[0., 1., 2., 0., 0.]])
    >>> F.pad(graphc.tensor([[1.0, 2.0, 3.0]]), (2, 0), mode="reflect")
    tensor([[3., 2., 1., 2., 3.]])
    """
    low, high = _edges(input, pad)
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise GraphcError(f"Unrecognised padding mode {mode}", expected="'constant', 'reflect', 'replicate' or 'circular'")
    if mode == "constant":
        return named(_with_constant(input, low, high, 0 if value is None else value), "ConstantPadNd")
    if value is not None and value != 0:
        raise ArgumentError(f'Padding mode "{mode}" doesn\'t take in value argument')
    dims = len(pad) // 2
    if dims not in (1, 2, 3) or input.dim() not in (dims + 1, dims + 2):
        raise UnsupportedError(
            f"Padding size {len(pad)} is not supported for {input.dim()}D input tensor",
            expected=f"for mode={mode!r}, 2, 4 or 6 numbers and an input of one or two dimensions more than are padded")
    if mode != "circular" and 0 in input._data.shape[-dims - 1 :]:
        raise ShapeError(f"Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with possibly 0 batch size and other "
                         f"non-zero dimensions for input, but got: {list(input.shape)}")
    if mode == "circular":  # what wraps around is what is left after cutting
        input = _with_constant(input, [min(a, 0) for a in low], [min(b, 0) for b in high], 0)
        return _extended(input, [max(a, 0) for a in low], [max(b, 0) for b in high], mode)
    return full_precision(_extended)(input, low, high, mode)


def _extended(input: Tensor, low: Sequence[int], high: Sequence[int], mode: str) -> Tensor:
    """With elements of its own before and after, dimension by dimension."""
    for axis, (before, after) in enumerate(zip(low, high)):
        if before or after:
            input = _from_input(input, axis, before, after, mode)
    return input


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: Any = 0) -> Tensor:
    """One number put before and after: (left, right, top, bottom, ...) from the last dimension backwards.

    GraphcError for an odd number of them, for more than the dimensions have ends, and where more is cut off than there is.

    >>> graphc.constant_pad_nd(graphc.tensor([1.0, 2.0]), (1, 1), 9.0)
    tensor([9., 1., 2., 9.])
    """
    low, high = _edges(input, pad)
    return named(_with_constant(input, low, high, value), "ConstantPadNd")


def _edges(input: Tensor, pad: Sequence[int]) -> tuple[list[int], list[int]]:
    """How much goes before and after, dimension by dimension."""
    shape = input._data.shape
    if len(pad) % 2:
        raise GraphcError("Padding length must be divisible by 2", got=str(list(pad)))
    if len(pad) // 2 > len(shape):
        raise GraphcError("Padding length should be less than or equal to two times the input dimension but got padding "
                          f"length {len(pad)} and input of dimension {len(shape)}")
    low, high = [0] * len(shape), [0] * len(shape)
    for i in range(len(pad) // 2):
        low[-1 - i], high[-1 - i] = pad[2 * i], pad[2 * i + 1]
    return low, high


def _with_constant(input: Tensor, low: Sequence[int], high: Sequence[int], value: Any) -> Tensor:
    shape = tuple(input._data.shape)
    starts = tuple(max(0, -a) for a in low)
    stops = tuple(s - max(0, -b) for s, b in zip(shape, high))
    if any(b < a for a, b in zip(starts, stops)):
        raise GraphcError(f"The input size {list(shape)}, plus negative padding {list(low)} and {list(high)}, resulted in a "
                          "negative output size, which is invalid.")
    if any(starts) or stops != shape:
        input = emit(ops.slice, (input,), {"starts": starts, "stops": stops, "steps": (1,) * len(shape)})
    before, after = tuple(max(0, a) for a in low), tuple(max(0, b) for b in high)
    fill = float(value) if input.dtype.is_floating_point else value
    return emit(ops.pad, (input,), {"low": before, "high": after, "value": fill})


def _from_input(input: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    size = input._data.shape[axis]
    if mode == "reflect" and max(before, after) >= size:
        raise GraphcError(f"Padding size should be less than the corresponding input dimension, but got: padding ({before}, "
                          f"{after}) at dimension {axis} of input {list(input.shape)}")
    if mode == "circular" and max(before, after) > size:
        raise GraphcError("Padding value causes wrapping around more than once.",
                          got=f"({before}, {after}) at dimension {axis} of {list(input.shape)}")
    source = []
    for i in range(-before, size + after):
        if mode == "replicate":
            source.append(min(max(i, 0), size - 1))
        elif mode == "circular":
            source.append(i % size)
        else:
            source.append(-i if i < 0 else 2 * (size - 1) - i if i >= size else i)
    return index_select(input, axis, places(source))
