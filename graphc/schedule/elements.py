"""The expression of one element of a tensor value: how operations are fused.

An elementwise op asks its operands for the element at the same index, a movement op for the element at another one;
this goes on until something stands in memory. What lies between is computed where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import graphc.expression as ex
import graphc.index as ix
from graphc.errors import CompileError
from graphc.expression import Buffer, Expr
from graphc.ir import Value
from graphc.types import Size

Index = tuple[Expr, ...]
Key = tuple[Value, Index, Expr | None]

_DEEPEST = 30
"""Elements within elements that are computed by recursion; what lies deeper is computed first, on its own."""


@dataclass(frozen=True)
class Stored:
    """Where a value stands in memory: element `index` is at `offset + sum(index * strides)`, in elements."""

    buffer: Buffer
    strides: tuple[Size, ...]
    offset: Size = 0

    def place(self, index: Index) -> Expr:
        """The position of an element in the buffer."""
        return ix.plus(ix.strided(index, self.strides), self.offset)


def stored(value: Value, buffer: Buffer) -> Stored:
    """The value stands in the whole of `buffer`, row-major."""
    return Stored(buffer, ix.contiguous_strides(value.shape))


class _TooDeep(Exception):
    """An element that has to be computed before what was asked for."""

    def __init__(self, key: Key) -> None:
        super().__init__()
        self.key = key


class Elements:
    """Expressions of elements, in one kernel.

    `memory` says what can be loaded; `known` overrides single values, such as an accumulator's.
    """

    def __init__(self, memory: Mapping[Value, Stored], known: Mapping[Value, Callable[[Index], Expr]] | None = None):
        self._memory = memory
        self._known = known or {}
        self._done: dict[Key, Expr] = {}
        self._depth = 0

    def at(self, value: Value, index: Index, mask: Expr | None = None) -> Expr:
        """The element of `value` at `index`; where `mask` is false it is not read, and may be anything."""
        key = (value, index, mask)
        if key in self._done:
            return self._done[key]
        if self._depth == _DEEPEST:
            raise _TooDeep(key)
        if self._depth:
            return self._descend(key)
        pending = [key]
        while pending:
            try:
                self._descend(pending[-1])
                pending.pop()
            except _TooDeep as deep:
                pending.append(deep.key)
        return self._done[key]

    def _descend(self, key: Key) -> Expr:
        self._depth += 1
        try:
            self._done[key] = self._compute(*key)
        finally:
            self._depth -= 1
        return self._done[key]

    def _compute(self, value: Value, index: Index, mask: Expr | None) -> Expr:
        if value in self._known:
            return self._known[value](index)
        if value in self._memory:
            place = self._memory[value]
            return ex.load(place.buffer, place.place(index), mask)
        node = value.node
        if node is None:
            raise CompileError(f"input {value!r} has no buffer")
        record = node.op
        if record.elementwise:
            return record(*(self.at(operand, index, mask) for operand in node.operands))
        if record.lower is None:
            raise CompileError(f"{record.name} cannot be computed element by element: {node!r}", at=node.location)

        def read(i: int, place: Sequence[Expr], inside: Expr | None = None) -> Expr:
            return self.at(node.operands[i], tuple(place), ix.both(mask, inside))

        return record.lower(read, index, tuple(v.type for v in node.operands), **node.attrs)
