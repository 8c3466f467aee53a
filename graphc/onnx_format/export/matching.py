"""Looking at the nodes that a value is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir import Node, Value
from graphc.onnx_format.export.writer import Names, Step, Writer
from graphc.types import TensorType


@dataclass(frozen=True)
class Match:
    """How a node is written: from which values, and by which function, or as its table says."""

    operands: tuple[Value, ...]
    write: Callable[[Writer, Step], Names] | None = None


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
