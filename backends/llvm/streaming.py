"""Large results, written past the caches.

A line of memory that is to be written is read first, unless all of it is written at once by a store that goes past the caches
(a non-temporal one). Of a result that no cache would still have when it is read again nothing is lost by that, and the reading
is saved: a third of what a sum of two arrays moves, or half of what a transposition does, which waits for it besides.

Such stores are ordered with others only by a fence, and need addresses that are multiples of their size. So a loop that may
use them is written twice, and where its rows begin decides at run time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import graphc.index as ix
from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.memory import LINE_BYTES
from graphc.backends.llvm.target import Target
from graphc.kernel import Loop, Loops, Statement, Store
from graphc.types import Size

_LEAST = 24 << 20
"""Bytes of a result from which on it is faster even where the next kernel reads the result: below that, from what a level-2
cache holds on, the next one loses what this one gains."""
_NARROWEST = 16
"""Bytes of a vector that can be stored so. Narrow ones become lines before they go on."""

Streamed = Mapping[Loop, Sequence[Store]]
"""For loops in lanes: the stores that may go past the caches."""


def what_to_stream(kernel: Loops, target: Target) -> Streamed:
    """The stores of a kernel, in loops over lanes, that write large results vector after vector."""
    if target.architecture != "x86_64":
        return {}
    steps = math.prod(axis.extent for axis in kernel.grid)
    return {loop: stores for loop, written in _loops(kernel.body, steps) if (stores := _streamed(loop, written))}


def _loops(body: Sequence[Statement], times: Size) -> Iterator[tuple[Loop, Size]]:
    """The loops of statements that run so often, and how often their own bodies do."""
    for statement in body:
        if isinstance(statement, Loop):
            inside = times * statement.axis.extent
            yield statement, inside
            yield from _loops(statement.body, inside)


def _streamed(loop: Loop, written: Size) -> list[Store]:
    if not isinstance(written, int):
        return []
    return [
        s for s in loop.body
        if isinstance(s, Store) and s.mask is None and s.buffer.role != "local" and ix.stride(s.offset, loop.axis) == 1
        and written * s.buffer.dtype.itemsize >= _LEAST and loop.lanes * s.buffer.dtype.itemsize >= _NARROWEST
    ]  # fmt: skip


def begin_lines(f: Function, places: Sequence[str]) -> str:
    """Whether all of the addresses are those of lines, as an i1."""
    bits = "0"
    for place in places:
        number = f.value(f"ptrtoint ptr {place} to i64")
        bits = number if bits == "0" else f.value(f"or i64 {bits}, {number}")
    return f.value(f"icmp eq i64 {f.value(f'and i64 {bits}, {LINE_BYTES - 1}')}, 0")


def fence(f: Function) -> None:
    """Have what was streamed come before whatever is stored from now on."""
    f.call("void", f.module.declare("llvm.x86.sse.sfence", "void", []))
