"""Copies that turn a matrix round, a square of numbers at a time through registers.

    for b < 64:
      for a < 64 in lanes of 16:
        buffer[a * 64 + b] = x[b * 2048 + a]

reads rows as vectors and would write each number to another row. Where the buffer is a local one, so that nothing else sees
in which order it is written, squares of 16 rows are transposed instead; the last ones overlap with those before. What is then
stored of the square is fetched meanwhile: the hardware does not see that a row is written, of which a tile has so little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import graphc.index as ix
from graphc.backends.llvm.expression import Evaluator
from graphc.backends.llvm.integers import Integers, known
from graphc.backends.llvm.memory import address, prefetch
from graphc.backends.llvm.sizes import size_operand
from graphc.backends.llvm.transpose import emit_transpose
from graphc.expression import Buffer, Expr
from graphc.kernel import Loop, Loops, Store
from graphc.sizes import estimate
from graphc.types import DType, Size, bool_, uint8

_SHORTEST_ROW = 1024
"""Bytes of rows that are fetched; those of shorter ones follow soon enough on each other."""
_ALIASING = 4096
"""Bytes: rows that are a multiple of this apart compete for the same lines of a cache, and what is fetched would drive out what
is turned."""


@dataclass(frozen=True, slots=True, eq=False)
class TurnedCopy:
    """Two loops, of which the inner one goes along the rows that are read, and the outer one along those that are written."""

    outer: Loop
    inner: Loop
    store: Store
    read_step: Size
    written_step: Size

    @property
    def source(self) -> Expr:
        return self.store.value


def turned_copy(loop: Loop) -> TurnedCopy | None:
    """What a loop copies in squares, if it does."""
    match loop:
        case Loop(lanes=0, body=(Loop(body=(Store(mask=None) as store,)) as inner,)) if inner.lanes > 1:
            pass
        case _:
            return None
    value = store.value
    if store.buffer.role != "local" or value.op != "load" or len(value.args) > 1 or value.attr is store.buffer:
        return None
    rows, columns = loop.axis, inner.axis
    if inner.limit is not None and rows.value in set(inner.limit.walk()):
        return None
    read_step, written_step = ix.stride(value.args[0], rows), ix.stride(store.offset, columns)
    if ix.stride(value.args[0], columns) != 1 or ix.stride(store.offset, rows) != 1 or not read_step or not written_step:
        return None
    return TurnedCopy(loop, inner, store, read_step, written_step)


def to_fetch(kernel: Loops, copy: TurnedCopy) -> list[tuple[Buffer, Expr, Size]]:
    """Buffers in which a kernel stores what a copy turns, in rows, one for each column of the copy: where, as the copy goes,
    and how far the rows are apart."""
    found: list[tuple[Buffer, Expr, Size]] = []
    for store in kernel.statements():
        if not isinstance(store, Store) or store.buffer.role == "local":
            continue
        taken = next((e.args[0] for e in store.value.walk() if e.op == "load" and e.attr is copy.store.buffer), None)
        if taken is None:
            continue
        # as far from where the number stands in the local buffer, wherever in its row that is
        place = ix.plus(ix.plus(store.offset, ix.times(taken, -1)), copy.store.offset)
        step = ix.stride(place, copy.inner.axis)
        if step is None or ix.stride(place, copy.outer.axis) != 1:
            continue
        nbytes = estimate(step) * store.buffer.dtype.itemsize
        if nbytes >= _SHORTEST_ROW and nbytes % _ALIASING:
            found.append((store.buffer, place, step))
    return found


def emit_squares(
    copy: TurnedCopy, e: Evaluator, pointers: Callable[[Buffer], str], rows: str, columns: str,
    fetched: Sequence[tuple[Buffer, Expr, Size]],
) -> None:
    """Copy so many rows and columns, of which there must be a square at least, and fetch where they are stored."""
    f, width = e.f, copy.inner.lanes
    integers = Integers(f)
    dtype = _as_it_stands(copy.store.buffer.dtype)
    transpose = emit_transpose(f.module, dtype, width)
    read_step, written_step = size_operand(f, copy.read_step), size_operand(f, copy.written_step)
    with f.loop("0", rows, str(width)) as row, f.loop("0", columns, str(width)) as column:
        inside = e.child()
        for axis, place, extent in ((copy.outer.axis, row, rows), (copy.inner.axis, column, columns)):
            number = known(extent)
            if number is None or number % width:
                place = integers.least(place, integers.subtract(extent, width))
            inside.bind(axis, place)
        for buffer, start, step in fetched:
            last = integers.add(inside.scalar(start), width - 1)
            for i in range(width):  # the line in which a row ends: that in which it begins has been fetched with what is before
                place = integers.add(last, integers.multiply(size_operand(f, step), i))
                prefetch(f, address(f, buffer.dtype, pointers(buffer), place), 1, level=2)
        source = address(f, dtype, pointers(copy.source.attr), inside.scalar(copy.source.args[0]))
        target = address(f, dtype, pointers(copy.store.buffer), inside.scalar(copy.store.offset))
        f.call("void", transpose, ("ptr", source), ("i64", read_step), ("ptr", target), ("i64", written_step))


def has_square(copy: TurnedCopy, e: Evaluator, rows: str, columns: str) -> str | bool:
    """Whether there is a square of that many rows and columns: known, or an i1."""
    width = copy.inner.lanes
    conditions = []
    for extent in (rows, columns):
        number = known(extent)
        if number is None:
            conditions.append(e.f.value(f"icmp sge i64 {extent}, {width}"))
        elif number < width:
            return False
    if len(conditions) == 2:
        return e.f.value(f"and i1 {conditions[0]}, {conditions[1]}")
    return conditions[0] if conditions else True


def _as_it_stands(dtype: DType) -> DType:
    """A dtype as wide in a register as in memory."""
    return uint8 if dtype is bool_ else dtype
