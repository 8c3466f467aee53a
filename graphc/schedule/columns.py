"""Sums of long columns, of which all rows are read in the order in which they stand in memory.

A column at a time, even with its neighbours beside it in lanes, would jump from row to row, which takes twice as long. So
the rows are cut into pieces. Of each piece a few rows are added up at a time, from end to end, to partial sums that stay in
the first level of cache; then the partial sums of all pieces are added up.

    over (piece < 128):
      for c < 1024 in lanes of 64:
        partial[piece * 1024 + c] = 0
      for group < 8:
        for c < 1024 in lanes of 64:
          acc = 0
          for r < 8:
            acc += x[(piece * 64 + group * 8 + r) * 1024 + c]
          partial[piece * 1024 + c] = partial[piece * 1024 + c] + acc

Of few columns all rows of a piece are added up at once, in registers.

Of very few, which fill no registers, several rows are taken side by side as one, as many as do fill some:

    for i < 48 in lanes of 16:
      acc = 0
      for r < 21845:
        acc += x[r * 48 + i]
      partial[i] = acc
    for c < 3 in lanes of 4:
      acc = 0
      for side < 16:
        acc += partial[side * 3 + c] + (x[1048560 + side * 3 + c] if side * 3 + c < 15 else 0)
      out[c] = acc
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import graphc.expression as ex
import graphc.index as ix
from graphc.expression import Axis, Buffer, Expr
from graphc.kernel import Accumulate, Loop, Loops, Reset, Statement, Store
from graphc.schedule.costs import choose_lanes, cost
from graphc.schedule.machine import Machine
from graphc.schedule.statements import last_limit
from graphc.schedule.threads import masked
from graphc.sizes import ceil_div
from graphc.types import DType, int64

_FEWEST_ROWS = 64
_FEWEST_COLUMNS = 8
_MANY_COLUMNS = 64
_FEWEST = 1 << 17
"""Elements from which on a second kernel pays."""
_PIECE = 1 << 15
"""About how many elements a piece has; twice as many where there are very many."""
_VERY_MANY = 1 << 22
_WIDEST = 1024
"""Partial sums at a time."""
_GROUP = 8
"""Rows that are added up at a time."""
_FEWEST_FOLDED = 1 << 14
"""Elements from which on rows are taken side by side."""
_COMBINED = {"sum": "add", "max": "maximum", "min": "minimum"}


def cut_columns(
    name: str, outer: Sequence[Axis], inner: Sequence[Axis], order: Sequence[Axis], accumulate: Accumulate,
    machine: Machine, temporary: Callable[[str, DType, int], Buffer],
) -> tuple[Loops, Axis, Accumulate] | None:
    """The kernel that reduces each piece of long columns to temporary memory, the axis of the pieces, and how they are
    reduced along it to what all of the columns are; None where it is better done otherwise."""
    extents = [axis.extent for axis in (*outer, *inner)]
    if len(inner) != 1 or not outer or order[-1] is not outer[-1] or not all(isinstance(e, int) for e in extents):
        return None
    (down,), across = inner, outer[-1]
    rows, columns, steps = int(down.extent), int(across.extent), math.prod(int(axis.extent) for axis in outer)
    if rows < _FEWEST_ROWS or columns < _FEWEST_COLUMNS or rows * columns < _FEWEST or not _is_along(accumulate.value, across):
        return None

    accumulator = accumulate.accumulator
    width = min(columns, _WIDEST)
    elements = _PIECE if rows * columns < _VERY_MANY else 2 * _PIECE
    if columns < _MANY_COLUMNS:
        group = ceil_div(rows, ceil_div(rows, elements // columns))
    else:
        group = next((size for size in range(_GROUP, _GROUP // 2, -1) if rows % size == 0), _GROUP)
    groups = max(1, elements // width // group)
    size = groups * group
    count = ceil_div(rows, size)
    partial = temporary(f"{name}.partial", accumulator.dtype, count * steps)
    piece, groups_axis, within = Axis("piece", count), Axis("group", groups), Axis(down.name, group)
    blocks, column = Axis(f"{across.name}.block", ceil_div(columns, width)), Axis(across.name, width)
    row = ix.plus(ix.plus(ix.times(piece.value, size), ix.times(groups_axis.value, group)), within.value)
    place = {down.value: row, across.value: ix.plus(ix.times(blocks.value, width), column.value)}
    target = ix.plus(ix.times(piece.value, steps), ix.ravel([axis.value for axis in outer], [axis.extent for axis in outer]))
    target = ix.substitute(target, place)
    value = ix.substitute(accumulate.value, place)
    lanes = choose_lanes([value], column, machine, sums=True)

    def over_columns(*body: Statement) -> Loop:
        return Loop(column, body, lanes, last_limit(columns, blocks, width))

    group_limit = last_limit(ceil_div(rows, group), piece, groups)
    row_limit = None
    if rows % group:
        left = ix.plus(ix.plus(ix.times(piece.value, -size), ix.times(groups_axis.value, -group)), rows)
        row_limit = Expr("minimum", (left, ix.number(group)), int64)
    so_far = ex.load(partial, target)
    combined = Expr(_COMBINED[accumulator.reduction], (so_far, accumulator.value), accumulator.dtype)
    body: tuple[Statement, ...] = (
        over_columns(Store(partial, target, ex.constant(accumulator.initial, accumulator.dtype))),
        Loop(groups_axis, (over_columns(
            Reset(accumulator),
            Loop(within, (Accumulate(accumulator, value),), 0, row_limit),
            Store(partial, target, combined),
        ),), 0, group_limit),
    )  # fmt: skip
    nanoseconds = size * width * cost([value], column) / max(lanes, 1)
    first = Loops(f"{name}.pieces", (piece, *outer[:-1], blocks), body, cost=nanoseconds)

    pieces = Axis("r.piece", count)
    again = ix.plus(ix.times(pieces.value, steps), ix.ravel([axis.value for axis in outer], [axis.extent for axis in outer]))
    return first, pieces, Accumulate(accumulator, ex.load(partial, again))


def fold_columns(
    name: str, column: Axis, flat: Axis, accumulate: Accumulate, machine: Machine,
    temporary: Callable[[str, DType, int], Buffer],
) -> tuple[tuple[Axis, Axis, Accumulate, Store], tuple[Axis, Accumulate]] | None:
    """Sums of very few columns, whose elements stand one after another along `flat`, by way of sums of more: the axes of rows
    and of columns, what is summed along the first, and where it is stored; then the axis of sides, and what is summed along it
    to what all of the columns are. None where it is better done otherwise."""
    accumulator, elements, columns = accumulate.accumulator, flat.extent, column.extent
    if not isinstance(elements, int) or not isinstance(columns, int) or elements < _FEWEST_FOLDED:
        return None
    lanes = machine.lanes(accumulator.dtype)
    if columns >= 2 * lanes or columns % lanes == 0 or not _is_along(accumulate.value, flat):
        return None
    sides = lanes // math.gcd(columns, lanes)
    width = sides * columns
    rows, rest = divmod(elements, width)
    row, wide = Axis("row", rows), Axis(flat.name, width)
    partial = temporary(f"{name}.folded", accumulator.dtype, width)
    value = ix.substitute(accumulate.value, {flat.value: ix.plus(ix.times(row.value, width), wide.value)})
    first = row, wide, Accumulate(accumulator, value), Store(partial, wide.value, accumulator.value)

    side = Axis("side", sides)
    place = ix.plus(ix.times(side.value, columns), column.value)
    again = ex.load(partial, place)
    if rest:  # a part of one more row
        inside = ix.less(place, rest)
        last = masked(ix.substitute(accumulate.value, {flat.value: ix.plus(place, rows * width)}), inside)
        last = Expr("where", (inside, last, ex.constant(accumulator.initial, accumulator.dtype)), accumulator.dtype)
        again = Expr(_COMBINED[accumulator.reduction], (again, last), accumulator.dtype)
    return first, (side, Accumulate(accumulator, again))


def _is_along(value: Expr, axis: Axis) -> bool:
    """Whether something is read one by one along an axis."""
    return any(e.op == "load" and ix.stride(e.args[0], axis) == 1 for e in value.walk())
