"""Telling equal kernels apart from different ones, whatever buffers they work on.

The layers of a network become the same kernels again and again, on other buffers. A back end renders each of them once,
as a function of the places of its buffers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from graphc.dims import Dim
from graphc.kernel import Accumulate, Axis, Buffer, Expr, Gemm, Loop, Loops, Reset, Statement, Store
from graphc.types import Size


def kernel_key(kernel: Loops | Gemm) -> tuple[Hashable, list[Buffer]]:
    """A description that is equal for kernels which do the same with their buffers, and these buffers, but for local ones, in
    the order in which the description counts them.

    Names do not count, nor what inputs and constants hold. The role of a buffer does, and which of them are the same.
    """
    writer = _Writer()
    if isinstance(kernel, Gemm):
        groups = (kernel.batch, kernel.m, kernel.n, kernel.k)
        head: list[Hashable] = ["gemm", *(tuple(map(writer.axis, group)) for group in groups)]
        head += [writer.thing(kernel.accumulator), writer.expression(kernel.lhs), writer.expression(kernel.rhs)]
        body: tuple[Statement, ...] = kernel.epilogue
    else:
        head = ["loops", kernel.cost, kernel.work, *map(writer.axis, kernel.grid)]
        body = kernel.body
    key = (*head, *writer.statements(body), *writer.expressions)
    return key, [thing for thing in writer.things if isinstance(thing, Buffer) and thing.role != "local"]


class _Writer:
    """Numbers expressions, and what they are about, in the order in which they are met."""

    def __init__(self) -> None:
        self.expressions: list[Hashable] = []
        """What each expression is, by its number."""
        self.things: dict[Any, int] = {}
        self._numbers: dict[Expr, int] = {}

    def expression(self, root: Expr | None) -> int:
        """The number of an expression; -1 for none."""
        if root is None:
            return -1
        numbers = self._numbers
        if root not in numbers:
            for e in root.walk():
                if e not in numbers:
                    attr = e.attr
                    about = repr(attr) if isinstance(attr, (bool, int, float, complex, Dim)) else self.thing(attr)
                    self.expressions.append((e.op, e.dtype.name, about, *[numbers[arg] for arg in e.args]))
                    numbers[e] = len(numbers)
        return numbers[root]

    def thing(self, thing: Any) -> Hashable:
        """A buffer, an axis or an accumulator: what it is, and its number. Any other attribute as it is."""
        if isinstance(thing, Buffer):
            return (self._number(thing), thing.dtype.name, thing.size, thing.role)
        if isinstance(thing, Axis):
            return self.axis(thing)
        if thing is None or isinstance(thing, str):
            return thing
        return (self._number(thing), thing.reduction, thing.dtype.name)

    def axis(self, axis: Axis) -> tuple[int, Size]:
        return self._number(axis), axis.extent

    def _number(self, thing: Any) -> int:
        return self.things.setdefault(thing, len(self.things))

    def statements(self, body: tuple[Statement, ...]) -> Iterator[Hashable]:
        """What the statements are, one after another; a loop ends with a None."""
        for s in body:
            match s:
                case Store():
                    yield ("store", self.thing(s.buffer), *map(self.expression, (s.offset, s.value, s.mask)))
                case Reset():
                    yield ("reset", self.thing(s.accumulator))
                case Accumulate():
                    yield ("accumulate", self.thing(s.accumulator), self.expression(s.value))
                case Loop():
                    yield ("loop", self.axis(s.axis), s.lanes, self.expression(s.limit))
                    yield from self.statements(s.body)
                    yield None
