"""Telling equal kernels apart from different ones, whatever buffers they work on.

The layers of a network become the same kernels again and again, on other buffers. A back end renders each of them once,
as a function of the places of its buffers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from graphc.dims import Dim
from graphc.expression import Axis, Buffer, Expr, walk
from graphc.kernel import (
    Accumulate,
    Attention,
    AttentionBackward,
    Gemm,
    Loop,
    Loops,
    Reset,
    Statement,
    Store,
    expressions,
)
from graphc.types import Size


@dataclass(frozen=True)
class Place:
    """Where a kernel finds one of its buffers: from element `origin` on."""

    buffer: Buffer
    origin: int


def kernel_key(kernel: Loops | Gemm | Attention | AttentionBackward) -> tuple[Hashable, list[Place]]:
    """A description that is equal for kernels which do the same with their buffers, and the places of these, but for local
    ones, in the order in which the description counts them.

    Names do not count, nor what inputs and constants hold, nor at which place in a buffer a kernel begins: code for one kernel
    is code for another of the same description, whose buffers are moved by the differences of their origins. The role of a
    buffer does count, and which of them are the same.
    """
    if isinstance(kernel, (Attention, AttentionBackward)):
        return _attention_key(kernel)
    writer = _Writer()
    if isinstance(kernel, Gemm):
        groups = (kernel.batch, kernel.m, kernel.n, kernel.k)
        head: list[Hashable] = ["gemm", *(tuple(map(writer.axis, group)) for group in groups), _overwrites(kernel)]
        head += [writer.thing(kernel.accumulator), writer.expression(kernel.lhs), writer.expression(kernel.rhs)]
        head += map(writer.thing, kernel.panels)
        head += [(writer.expression(margin.place), margin.begin, margin.end) for margin in kernel.margins]
        body: tuple[Statement, ...] = kernel.epilogue
    else:
        head = ["loops", kernel.cost, kernel.work, *map(writer.axis, kernel.grid)]
        body = kernel.body
    key = (*head, *writer.statements(body), *writer.expressions)
    return key, [Place(b, writer.origins.get(b, 0)) for b in writer.things if isinstance(b, Buffer) and b.role != "local"]


def _attention_key(kernel: Attention | AttentionBackward) -> tuple[Hashable, list[Place]]:
    buffers = list(kernel.accesses)
    blocks = (*kernel.operands, *kernel.results)
    places = tuple((buffers.index(b.buffer), b.buffer.dtype.name, b.buffer.role, b.shape, b.strides, b.offset) for b in blocks)
    zeros = kernel.zeros if isinstance(kernel, Attention) else None
    key = (type(kernel).__name__, kernel.scale, kernel.causal, zeros, kernel.mask is None, places)
    return key, [Place(b, 0) for b in buffers]


def _overwrites(kernel: Gemm) -> tuple[bool, ...]:
    """Which inputs a product reads at the very offsets that it stores to: there an output may stand in the same memory."""
    loads = [e for e in walk(expressions(kernel)) if e.op == "load" and e.attr.role == "input"]
    return tuple(load.args[0] == store.offset for load in loads for store in kernel.epilogue)


class _Writer:
    """Numbers expressions, and what they are about, in the order in which they are met."""

    def __init__(self) -> None:
        self.expressions: list[Hashable] = []
        """What each expression is, by its number."""
        self.things: dict[Any, int] = {}
        self.origins: dict[Buffer, int] = {}
        """The constant part of the offset at which each buffer is touched first."""
        self._numbers: dict[Expr, int] = {}

    def expression(self, root: Expr | None) -> int:
        """The number of an expression; -1 for none."""
        if root is None:
            return -1
        numbers = self._numbers
        pending = [] if root in numbers else [root]
        while pending:
            e = pending[-1]
            base, constant = _split(e.args[0]) if e.op == "load" else (None, 0)
            parts = e.args if e.op != "load" else [part for part in (base, *e.args[1:]) if part is not None]
            missing = [part for part in parts if part not in numbers]
            if e in numbers or not missing:
                pending.pop()
                if e not in numbers:
                    attr = e.attr
                    about = repr(attr) if isinstance(attr, (bool, int, float, complex, Dim)) else self.thing(attr)
                    offset = self._from_origin(attr, constant) if e.op == "load" else 0
                    self.expressions.append((e.op, e.dtype.name, about, base is None, offset, *[numbers[p] for p in parts]))
                    numbers[e] = len(numbers)
                continue
            pending += reversed(missing)
        return numbers[root]

    def _offset(self, store: Store) -> tuple[int, int]:
        """Where a statement stores to: what varies, and the constant part."""
        base, constant = _split(store.offset)
        return self.expression(base), self._from_origin(store.buffer, constant)

    def _from_origin(self, buffer: Buffer, constant: int) -> int:
        return constant - self.origins.setdefault(buffer, 0 if buffer.role == "local" else constant)

    def thing(self, thing: Any) -> Hashable:
        """A buffer, an axis or an accumulator: what it is, and its number. Any other attribute as it is."""
        if isinstance(thing, Buffer):
            return (self._number(thing), thing.dtype.name, thing.size, thing.role)
        if isinstance(thing, Axis):
            return self.axis(thing)
        if thing is None or isinstance(thing, str):
            return thing
        return (self._number(thing), thing.reduction, thing.initial, thing.dtype.name)

    def axis(self, axis: Axis) -> tuple[int, Size]:
        return self._number(axis), axis.extent

    def _number(self, thing: Any) -> int:
        return self.things.setdefault(thing, len(self.things))

    def statements(self, body: tuple[Statement, ...]) -> Iterator[Hashable]:
        """What the statements are, one after another; a loop ends with a None."""
        for s in body:
            match s:
                case Store():
                    yield ("store", self.thing(s.buffer), *self._offset(s), self.expression(s.value), self.expression(s.mask))
                case Reset():
                    yield ("reset", self.thing(s.accumulator))
                case Accumulate():
                    yield ("accumulate", self.thing(s.accumulator), self.expression(s.value))
                case Loop():
                    yield ("loop", self.axis(s.axis), s.lanes, self.expression(s.limit))
                    yield from self.statements(s.body)
                    yield None


def _split(offset: Expr) -> tuple[Expr | None, int]:
    """An offset as a part that varies, None if none does, and a constant."""
    if offset.op == "constant":
        return None, offset.attr
    if offset.op == "add" and offset.args[1].op == "constant":
        return offset.args[0], offset.args[1].attr
    return offset, 0
