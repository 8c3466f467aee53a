"""Sums over the steps of a loop, taken after it.

The gradient of a matrix that each step multiplies by is a sum of products, one for each step. All factors side by side
make it one product, which takes a fraction of the time.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Sequence

from graphc.ir import Builder, Graph, Node, Value
from graphc.ops.elementwise import neg
from graphc.ops.linalg import contract, parse_spec
from graphc.ops.movement import permute, reshape
from graphc.ops.reduce import sum
from graphc.types import Size

_PRODUCTS = ("contract", "matmul")


class StepSums:
    """Which of some values of a step can be summed up afterwards, and the graph that does it."""

    def __init__(
        self, name: str, length: Size, rows: Collection[Value], fixed: Collection[Value], values: Sequence[Value]
    ) -> None:
        """`rows` are inputs of the step of which there is one for each step, `fixed` those that stay the same."""
        self._rows, self._fixed, self._length = set(rows), set(fixed), length
        self._stacked: dict[Value, Value] = {}
        self._builder = Builder(f"{name}.sums", locations=False)
        self._factors = {_source(x) for value in values for product in _products(value) for x in product.operands}
        self._sums = {value: self._sum(value) for value in dict.fromkeys(values) if self._can(value)}

    def __contains__(self, value: Value) -> bool:
        return value in self._sums

    @property
    def sources(self) -> list[Value]:
        """The values of each step that the sums are made of: rows, or such as the step has to leave."""
        return list(self._stacked)

    def graph(self, values: Sequence[Value]) -> Graph:
        """From the sources, all steps of each, to the sums of these values."""
        return self._builder.finish(self._sums[value] for value in values)

    def _can(self, value: Value) -> bool:
        node = value.node
        if node is None:
            return value in self._rows
        match node.op.name:
            case "permute" | "reshape" | "neg":
                return self._can(node.operands[0])
            case "add":
                return all(map(self._can, node.operands))
            case "sum":
                return _source(node.operands[0]) in self._rows | self._factors
        return node.op.name in _PRODUCTS and value.ndim == 2 and not any(_source(x) in self._fixed for x in node.operands)

    def _sum(self, value: Value) -> Value:
        node = value.node
        if node is None:
            return sum(self._all(value), (0,))
        match node.op.name:
            case "permute":
                return permute(self._sum(node.operands[0]), node.attrs["order"])
            case "reshape":
                return reshape(self._sum(node.operands[0]), node.attrs["shape"])
            case "neg":
                return neg(self._sum(node.operands[0]))
            case "add":
                return self._sum(node.operands[0]) + self._sum(node.operands[1])
            case "sum":
                return sum(self._all(node.operands[0]), (0, *(axis + 1 for axis in node.attrs["axes"])))
        spec = node.attrs["spec"] if node.op.name == "contract" else "ik,kj->ij"
        left, right, out = parse_spec(spec)
        step = next(c for c in string.ascii_letters if c not in spec)
        return contract(*map(self._all, node.operands), f"{step}{left},{step}{right}->{out}")

    def _all(self, value: Value) -> Value:
        """The value of all steps."""
        node = value.node
        if node is not None and node.op.name == "permute":
            return permute(self._all(node.operands[0]), (0, *(i + 1 for i in node.attrs["order"])))
        if node is not None and node.op.name == "reshape":
            return reshape(self._all(node.operands[0]), (self._length, *value.shape))
        if value not in self._stacked:
            self._stacked[value] = self._builder.input(None, value.type.with_shape((self._length, *value.shape)))
        return self._stacked[value]


def _products(value: Value) -> list[Node]:
    """The products that a value is a sum of."""
    node = value.node
    if node is None:
        return []
    if node.op.name in ("permute", "reshape", "neg", "add"):
        return [product for x in node.operands for product in _products(x)]
    return [node] if node.op.name in _PRODUCTS and value.ndim == 2 else []


def _source(value: Value) -> Value:
    """What a value is but another view of."""
    while value.node is not None and value.node.op.name in ("permute", "reshape"):
        value = value.node.operands[0]
    return value
