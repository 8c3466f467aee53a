"""Large results, written past the caches.

A line of memory that is to be written is read first, unless all of it is written at once by a store that goes past the caches
(a non-temporal one). Of a large result hardly anything is lost by that, and the reading is saved: a quarter of what a sum of
two arrays moves, or a third of what a transposition does, which waits for it besides.

Such stores are ordered with others only by a fence, and need addresses that are multiples of their size. So a loop that may
use them is written twice, and where its rows begin decides at run time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import graphc.index as ix
from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.memory import LINE_BYTES
from graphc.backends.llvm.target import Target
from graphc.kernel import Loop, Loops, Store, reads

_LEAST = 24 << 20
"""Bytes of a result from which on it is faster even where the next kernel reads the result: below that, from what a level-2
cache holds on, the next one loses what this one gains."""
_NARROWEST = 16
"""Bytes of a vector that can be stored so. Narrow ones become lines before they go on, but for the last of a row: of which the
next row stores the rest."""
_LONG_ROW = 4096
"""Bytes of a row, of which that one line does not matter."""

Streamed = Mapping[Loop, Sequence[Store]]
"""For loops in lanes: the stores that may go past the caches."""


def what_to_stream(kernel: Loops, target: Target) -> Streamed:
    """The stores of a kernel, in loops over lanes, that write large results vector after vector."""
    if target.architecture != "x86_64":
        return {}
    known = reads(kernel)
    found = {}
    for loop in kernel.statements():
        if isinstance(loop, Loop):
            found[loop] = [s for s in loop.body if isinstance(s, Store) and s.buffer not in known and _is_streamed(s, loop)]
    return {loop: stores for loop, stores in found.items() if stores}


def _is_streamed(store: Store, loop: Loop) -> bool:
    """Whether a store writes one vector after the other, and much in all its loops together."""
    if store.mask is not None or store.buffer.role == "local" or ix.stride(store.offset, loop.axis) != 1:
        return False
    itemsize = store.buffer.dtype.itemsize
    # of axes that the place does not depend on each goes over all of it again
    written = math.prod(e.attr.extent for e in store.offset.walk() if e.op == "axis")
    if not isinstance(written, int) or written * itemsize < _LEAST:
        return False
    width = loop.lanes * itemsize
    return width % LINE_BYTES == 0 or (width >= _NARROWEST and loop.axis.extent * itemsize >= _LONG_ROW)


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
