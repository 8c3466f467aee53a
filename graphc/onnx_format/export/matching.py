"""Looking at the nodes that a value is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir import Node, Value
from graphc.onnx_format.export.writer import Names, Step, Writer
from graphc.types import Size, TensorType


@dataclass(frozen=True)
class Match:
    """How a node is written: from which values, and by which function, or as its table says."""

    operands: tuple[Value, ...]
    write: Callable[[Writer, Step], Names] | None = None
    opset: int = 0
    """The version of the operators that the one which is written came with."""
    inside: frozenset[Value] = frozenset()
    """What would be computed a second time, and takes long: if something else needs it, the nodes stay as they are."""


def operator(op_type: str, **attributes: Any) -> Callable[[Writer, Step], str]:
    """Writes one operator of the step's operands."""
    return lambda w, step: str(w.emit(op_type, *step.names, **attributes))


def made_by(value: Value, *ops: str) -> Node | None:
    """The node that a value is the only result of, if that is one of these ops."""
    node = value.node
    return node if node is not None and node.op.name in ops else None


def stretched(value: Value) -> Value:
    """What was stretched to be the value; the value itself if it was not."""
    node = made_by(value, "broadcast_to")
    return value if node is None else node.operands[0]


def kept(value: Value) -> Value:
    """The reduced value that sizes of 1 were put into; the value itself if there are none."""
    node = made_by(stretched(value), "reshape")
    return stretched(value) if node is None else node.operands[0]


def number(value: Value) -> float | None:
    """The number that a constant holds everywhere."""
    node = made_by(stretched(value), "constant")
    array: Any = None if node is None else node.attrs["value"]
    return float(array) if isinstance(array, np.ndarray) and array.ndim == 0 and array.dtype.kind in "fiuV" else None


def is_kept(value: Value, reduced: TensorType, axes: tuple[int, ...]) -> bool:
    """Whether a value has the shape before a reduction, with sizes of 1 for the reduced dimensions."""
    rest = iter(reduced.shape)
    wanted = [1 if i in axes else next(rest) for i in range(reduced.ndim + len(axes))]
    return list(map(str, value.shape)) == list(map(str, wanted))


def is_in_place(value: Value, x: Value, axes: tuple[int, ...]) -> bool:
    """Whether what was made of a reduction of x, element by element, is stretched along the dimensions that were reduced: of a
    square matrix the maxima of rows can as well be taken off columns."""
    shape, wanted = stretched(value).shape, [1 if i in axes else size for i, size in enumerate(x.shape)]
    missing = len(wanted) - len(shape)
    return list(map(str, wanted)) == [*["1"] * missing, *map(str, shape)]


def mean_of(value: Value) -> tuple[Value | None, tuple[int, ...]]:
    """What a value is the mean of, and along which dimensions: a sum over as many elements as it is divided by."""
    quotient = made_by(value, "div")
    total = None if quotient is None else made_by(_reduced(quotient.operands[0]), "sum")
    if quotient is None or total is None:
        return None, ()
    x, axes = total.operands[0], total.attrs["axes"]
    if total.result is not quotient.operands[0] and not is_kept(value, total.result.type, axes):
        return None, ()
    count = math.prod(x.shape[i] for i in axes)
    size = made_by(stretched(quotient.operands[1]), "size")
    same = str(size.attrs["value"]) == str(count) if size is not None else number(quotient.operands[1]) == count
    return (x, axes) if axes and isinstance(same, bool) and same else (None, ())


def _reduced(value: Value) -> Value:
    node = made_by(value, "reshape")
    return value if node is None else node.operands[0]


def softmax_of(value: Value) -> tuple[Value | None, tuple[int, ...]]:
    """x and the axis of exp(x - max) / sum(exp(x - max))"""
    quotient = made_by(value, "div")
    powers = None if quotient is None else made_by(quotient.operands[0], "exp")
    total = None if quotient is None else made_by(kept(quotient.operands[1]), "sum")
    if quotient is None or powers is None or total is None or total.operands[0] is not powers.result:
        return None, ()
    x, axes = less_its_maximum(powers.operands[0])
    if x is None or axes != total.attrs["axes"] or not is_in_place(quotient.operands[1], x, axes):
        return None, ()
    return x, axes


def less_its_maximum(value: Value) -> tuple[Value | None, tuple[int, ...]]:
    """x and the one axis along which its maximum is taken off."""
    difference = made_by(value, "sub")
    top = None if difference is None else made_by(kept(difference.operands[1]), "amax")
    if difference is None or top is None or top.operands[0] is not difference.operands[0] or len(top.attrs["axes"]) != 1:
        return None, ()
    x, axes = difference.operands[0], top.attrs["axes"]
    return (x, axes) if is_in_place(difference.operands[1], x, axes) else (None, ())


def of_channels(value: Value, ndim: int) -> Value | None:
    """The vector that is stretched along all dimensions of an image but that of its channels."""
    shaped = stretched(value)
    node = made_by(shaped, "reshape")
    if node is None or node.operands[0].ndim != 1 or ndim < 3:
        return None
    return node.operands[0] if is_by_channel(shaped, node.operands[0].shape[0], ndim) else None


def is_by_channel(value: Value, channels: Size, ndim: int) -> bool:
    """Whether a value is stretched along all dimensions of an image but that of its channels."""
    shape = tuple(stretched(value).shape)
    return shape in ((channels, *(1 for _ in range(ndim - 2))), (1, channels, *(1 for _ in range(ndim - 2))))
