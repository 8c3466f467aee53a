"""Padding: elements put before and after those of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, GraphcError
from graphc.frontend.arguments import emit
from graphc.frontend.creation import tensor
from graphc.frontend.indexing import index_select
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import int64


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Elements put before and after: (left, right, top, bottom, ...) from the last dimension backwards.

    Negative numbers cut off. `mode` "reflect", "replicate" or "circular" takes them from the input.
    """
    shape = input._data.shape
    if len(pad) % 2:
        raise GraphcError("Padding length must be divisible by 2")
    if len(pad) // 2 > len(shape):
        raise GraphcError("Padding length should be less than or equal to two times the input dimension but got padding "
                          f"length {len(pad)} and input of dimension {len(shape)}")
    low, high = [0] * len(shape), [0] * len(shape)
    for i in range(len(pad) // 2):
        low[-1 - i], high[-1 - i] = pad[2 * i], pad[2 * i + 1]
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise GraphcError(f"Unrecognised padding mode {mode}", expected="'constant', 'reflect', 'replicate' or 'circular'")
    if mode == "constant":
        return named(_with_constant(input, low, high, 0 if value is None else value), "ConstantPadNd")
    if value is not None and value != 0:
        raise ArgumentError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if mode == "circular":  # what wraps around is what is left after cutting
        input = _with_constant(input, [min(a, 0) for a in low], [min(b, 0) for b in high], 0)
        low, high = [max(a, 0) for a in low], [max(b, 0) for b in high]
    for axis, (before, after) in enumerate(zip(low, high)):
        if before or after:
            input = _from_input(input, axis, before, after, mode)
    return input


def _with_constant(input: Tensor, low: Sequence[int], high: Sequence[int], value: Any) -> Tensor:
    shape = tuple(input._data.shape)
    starts = tuple(max(0, -a) for a in low)
    stops = tuple(s - max(0, -b) for s, b in zip(shape, high))
    if any(isinstance(b, int) and b < a for a, b in zip(starts, stops)):
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
        raise GraphcError("Padding value causes wrapping around more than once.")
    places = []
    for i in range(-before, size + after):
        if mode == "replicate":
            places.append(min(max(i, 0), size - 1))
        elif mode == "circular":
            places.append(i % size)
        else:
            places.append(-i if i < 0 else 2 * (size - 1) - i if i >= size else i)
    return index_select(input, axis, tensor(places, dtype=int64))
