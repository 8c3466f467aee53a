"""One node of a model, as the functions of the table see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

import graphc.ops as ops
from graphc.dims import Dim
from graphc.ir import Graph, Value
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.scope import Operand, Scope, missing, needs
from graphc.types import Size, TensorType


@dataclass(frozen=True)
class Inner:
    """A graph inside of a node, made into one of graphc's."""

    graph: Graph
    """Its inputs: those that the node gives, then what it takes from outside."""
    captured: tuple[str, ...]
    """The names of what it takes from outside."""
    values: tuple[Value, ...]
    """What these stand for, outside."""


class Graphs(Protocol):
    """Who makes the graphs inside of nodes."""

    def inner(self, proto: Any, scope: Scope, types: Sequence[TensorType]) -> Inner:
        """The graph with inputs of these types."""
        ...

    def inline(self, proto: Any, scope: Scope) -> list[Operand]:
        """The results of a graph without inputs, its nodes put among those of the scope."""
        ...


class Call:
    """An operator applied to operands, with its attributes."""

    def __init__(
        self, op_type: str, scope: Scope, opset: int, names: Sequence[str], attributes: dict[str, Any], outputs: int,
        converter: Graphs,
    ) -> None:
        self.op_type = op_type
        self.scope = scope
        self.opset = opset
        """The version of the operators that the node is written in."""
        self.names = list(names)
        self.attributes = attributes
        self.outputs = outputs
        """How many results are wanted."""
        self.graphs = converter
        self.operands: list[Operand | None] = [self._find(name) if name else None for name in names]

    def _find(self, name: str) -> Operand:
        found = self.scope.find(name)
        if found is None:
            raise missing(name)
        return found

    # Operands

    def has(self, i: int) -> bool:
        """Whether operand i is given."""
        return i < len(self.operands) and self.operands[i] is not None

    def __getitem__(self, i: int) -> Value:
        """Operand i as a value of the graph."""
        return self.value(i)

    def value(self, i: int, kind: str = "param") -> Value:
        """Operand i; if it is a weight, one of this kind: a "param" or a "buffer"."""
        return self.scope.value(self._operand(i), kind)

    def values(self) -> list[Value]:
        """All operands."""
        return [self.value(i) for i in range(len(self.operands))]

    def optional(self, i: int) -> Value | None:
        """Operand i, or None where it is not given."""
        return self.value(i) if self.has(i) else None

    def type(self, i: int) -> TensorType:
        return self._operand(i).type

    def shape(self, i: int) -> tuple[Size, ...]:
        return tuple(self.type(i).shape)

    def _operand(self, i: int) -> Operand:
        operand = self.operands[i] if i < len(self.operands) else None
        if operand is None:
            raise BadModel(f"operand {i} is missing")
        return operand

    def known(self, i: int) -> np.ndarray | None:
        """The numbers of operand i if they are known, which may be symbolic sizes."""
        return self.scope.content(self._operand(i))

    def content(self, i: int, why: str = "decides on a shape") -> np.ndarray:
        """The numbers of operand i; NeedsContent where they are not known."""
        found = self.known(i)
        if found is None:
            raise needs(self.names[i], f"operand {i} of {self.op_type} {why}")
        return found

    def sizes(self, i: int) -> tuple[Size, ...]:
        """Operand i as sizes or axes: integers, and symbols."""
        return tuple(x if isinstance(x, Dim) else int(x) for x in self.content(i).reshape(-1))

    def number(self, i: int, default: Any = None) -> Any:
        """Operand i as one number; `default` where it is not given."""
        if not self.has(i):
            return default
        found = self.content(i, "has to be known")
        if found.size != 1:
            raise BadModel(f"operand {i} is not one number", got=str(list(found.shape)))
        return found.reshape(-1)[0] if found.dtype == object else found.reshape(-1)[0].item()

    # Attributes

    def attribute(self, name: str, kind: Any, default: Any) -> Any:
        """An attribute of a Python type; BadModel where it is of another one."""
        found = self.attributes.get(name)
        if found is None:
            return default
        if not isinstance(found, kind):
            raise BadModel(f"the attribute {name} is a {type(found).__name__}", expected=str(getattr(kind, "__name__", kind)))
        return found

    def int(self, name: str, default: Any = None) -> Any:
        return self.attribute(name, int, default)

    def float(self, name: str, default: Any = None) -> Any:
        return self.attribute(name, float, default)

    def ints(self, name: str, default: Any = None) -> Any:
        found = self.attribute(name, list, default)
        if isinstance(found, list) and not all(isinstance(x, int) for x in found):
            raise BadModel(f"the attribute {name} is not a list of integers")
        return found if found is None else tuple(found)

    def text(self, name: str, default: str = "") -> str:
        found = self.attribute(name, bytes, None)
        return default if found is None else found.decode("utf-8", "replace")

    def axis(self, default: Any, ndim: Any = None, name: str = "axis") -> Any:
        """The attribute that names a dimension, counted from the left."""
        ndim = len(self.shape(0)) if ndim is None else ndim
        return self.checked_axis(self.int(name, default), ndim)

    def checked_axis(self, axis: Any, ndim: Any) -> Any:
        if not isinstance(axis, (int, np.integer)) or not -max(ndim, 1) <= axis < max(ndim, 1):
            raise BadModel(f"there is no dimension {axis}", expected=f"-{ndim} to {ndim - 1}")
        return int(axis) % max(ndim, 1)

    def axes(self, i: Any, ndim: Any = None) -> tuple[Any, ...] | None:
        """The dimensions that operand i names, or in older versions the attribute `axes`; None where neither is given."""
        found = self.sizes(i) if self.has(i) else self.ints("axes")
        ndim = len(self.shape(0)) if ndim is None else ndim
        axes = None if found is None else tuple(self.checked_axis(axis, ndim) for axis in found)
        if axes is not None and len(set(axes)) != len(axes):
            raise BadModel("a dimension is named twice", got=str(found))
        return axes


# What many operators are made of


def line(x: Value, vector: Any, axis: int) -> Value:
    """A vector along one dimension, to be stretched along the others."""
    return ops.reshape(vector, tuple(vector.shape[0] if i == axis else 1 for i in range(x.ndim)))


def take(x: Value, places: Any, axis: int) -> Value:
    """The slices of x at the places, a vector of integers (an array or a value) that are not negative."""
    places = x.builder.lift(places) if isinstance(places, np.ndarray) else places  # type: ignore[union-attr]
    shape = tuple(places.shape[0] if i == axis else n for i, n in enumerate(x.shape))
    return ops.gather(x, ops.broadcast_to(line(x, places, axis), shape), axis)


def from_front(places: Value, size: Size) -> Value:
    """Places that count from the end where they are negative."""
    return ops.where(places < 0, places + size, places)


def part(x: Value, axis: int, start: Size, stop: Size) -> Value:
    """A range of one dimension."""
    if isinstance(start, int) and start == 0 and stop is x.shape[axis]:
        return x
    starts = tuple(start if i == axis else 0 for i in range(x.ndim))
    stops = tuple(stop if i == axis else n for i, n in enumerate(x.shape))
    return ops.slice(x, starts, stops, (1,) * x.ndim)
