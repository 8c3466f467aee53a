"""Maps that read an operand along another axis than they write: `x.T + y`, the channels of an image put last.

Element after element such an operand would be read across its rows, a line of the cache and a page for each. So the axes
are cut into tiles. Of a tile each such operand is first copied, turned round, to a buffer on the stack; then the elements of
the tile are computed as if the operand had stood there. A back end copies a square of numbers at a time through registers.

    for i1 < 64:                                     # along what is written
      for i0 < 64 in lanes of 16:                    # along what is read
        turned[i0 * 64 + i1] = x[i1 * 2048 + i0]
    for i0 < 64:
      for i1 < 64 in lanes of 32:
        out[i0 * 2048 + i1] = turned[i0 * 64 + i1] + y[i0 * 2048 + i1]

Where rows of what is written begin within lines of the cache, the tiles of each row are shifted so that they begin with a
line: otherwise each tile would write parts of lines, and vectors across two of them. Of what is read, such a tile copies as
much more as it may be shifted by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import graphc.expression as ex
import graphc.index as ix
from graphc.expression import Axis, Buffer, Expr
from graphc.kernel import Loop, Loops, Statement, Store
from graphc.schedule.costs import choose_lanes, cost
from graphc.schedule.machine import Machine
from graphc.schedule.statements import last_limit, substitute_statements, with_loads
from graphc.schedule.threads import turned_nest
from graphc.sizes import ceil_div, estimate
from graphc.types import Size, int64

_SIDE = 64
"""Elements along each side of a tile: of four bytes, they are some lines of the cache in both directions."""
_SQUARE = 16
"""Elements along each side of the largest square that is turned round in registers."""
_SMALLEST_SQUARE = 4
_BYTES = 1 << 15
"""How much of the stack the tiles of all operands take: they have to stay in the first level of cache."""
_FEWEST = 1024
"""Elements of a map for which this is worth its code."""
_TURNED = 0.3
"""Nanoseconds that a vector of a turned operand takes."""
_LINE = 64
"""Bytes of a line of the cache."""
_FEW_ROWS = 32
_LONG_ROW = 512
"""Rows, and the bytes of each, of tiles where rows begin within lines: longer and fewer than others, so that less of what is
written is in lines of two tiles, and less is copied twice."""


def map_in_tiles(name: str, axes: Sequence[Axis], stores: Sequence[Store], machine: Machine) -> Loops | None:
    """The loops of a map over axes, of which the last is the one along which it is written; None where each operand is read
    along that one, too."""
    if estimate(math.prod(axis.extent for axis in axes)) < _FEWEST:
        return None
    sides = _turned_operands(axes, stores)
    if not sides:
        return None
    if machine.threads:
        return turned_nest(name, axes, sides, stores, cost([store.value for store in stores], axes[-1]))
    lane_axis = axes[-1]
    tiled = [axis for axis in axes if axis in {*sides.values(), lane_axis}]
    square = min(_SQUARE, machine.vector_bytes // max(load.dtype.itemsize for load in sides))
    square = min(square, *(1 << estimate(axis.extent).bit_length() - 1 for axis in tiled))
    if square < _SMALLEST_SQUARE:
        return None

    nbytes = sum(load.dtype.itemsize for load in sides)
    cuts = _cuts_by_lines(tiled, stores, square, nbytes)
    if not cuts:
        side = _SIDE if len(tiled) == 2 else _SQUARE
        while side > square and side ** len(tiled) * nbytes > _BYTES:
            side //= 2
        cuts = {axis: _cut(axis, side, square) for axis in tiled}
    read = {axis.value: cut.read.place for axis, cut in cuts.items()}
    written = {axis.value: cut.written.place for axis, cut in cuts.items()}
    shape = [cut.read.axis.extent for cut in cuts.values()]
    filled = ix.ravel([cut.read.axis.value for cut in cuts.values()], shape)
    taken = ix.ravel([ix.plus(cut.written.place, ix.times(cut.read.start, -1)) for cut in cuts.values()], shape)
    body: list[Statement] = []
    turned: dict[Expr, Expr] = {}
    for load, along in sides.items():
        buffer = Buffer(f"turned{len(turned)}", load.dtype, math.prod(shape), "local")
        turned[ix.substitute(load, written)] = ex.load(buffer, taken)
        copy: Statement = Store(buffer, filled, ix.substitute(load, read))
        for axis in (along, lane_axis, *(axis for axis in reversed(tiled) if axis not in (along, lane_axis))):
            copy = cuts[axis].read.loop((copy,), square if axis is along else 0)
        body.append(copy)
    inner = _with_turned(substitute_statements(stores, written), turned)
    values = [e for s in inner if isinstance(s, Store) for e in (s.value, s.offset)]
    lanes = choose_lanes(values, cuts[lane_axis].written.axis, machine)
    for axis in reversed(tiled):
        inner = (cuts[axis].written.loop(inner, lanes if axis is lane_axis else 0),)
    per_vector = cost(values, cuts[lane_axis].written.axis) + _TURNED * len(sides)
    # from tile to tile along what is read, so that the hardware sees where it goes on; or along what is written, where rows
    # begin within lines: what the next tile copies again is there then, and so are lines of which it writes the rest
    order = tiled if any(_begins_within_lines(store, axis) for store in stores for axis in tiled[:-1]) else tiled[::-1]
    grid = (*(axis for axis in axes if axis not in cuts), *(cuts[axis].step for axis in order))
    return Loops(name, grid, (*body, *inner), cost=math.prod(shape) * per_vector / max(lanes, 1))


def _begins_within_lines(store: Store, axis: Axis) -> bool:
    """Whether rows of several tiles are written, one for each place on an axis, that are no whole number of lines apart."""
    step = ix.stride(store.offset, axis)
    return step is not None and estimate(step) > _SIDE and estimate(step) * store.buffer.dtype.itemsize % _LINE != 0


def _cuts_by_lines(tiled: Sequence[Axis], stores: Sequence[Store], square: int, nbytes: int) -> dict[Axis, _Cut] | None:
    """Cuts for rows that begin within lines, where all stores write the same places, and nothing else depends on where in a
    row a tile begins: into tiles of whole rows, or shifted ones."""
    if len(tiled) != 2:
        return None
    (rows, lane_axis), first = tiled, stores[0]
    itemsize = first.buffer.dtype.itemsize
    size, line = _LONG_ROW // itemsize, _LINE // itemsize
    if any(s.offset != first.offset or s.buffer.dtype.itemsize != itemsize for s in stores):
        return None
    if not _begins_within_lines(first, rows) or _FEW_ROWS * (size + line) * nbytes > _BYTES or line < square:
        return None
    offsets = [e.args[0] for s in stores for e in s.value.walk() if e.op == "load"]
    if any(ix.stride(offset, axis) is None for offset in (first.offset, *offsets) for axis in tiled):
        return None
    row_cut = _cut(rows, _FEW_ROWS, square)
    if estimate(lane_axis.extent) <= size:  # tiles of whole rows have no neighbours
        return {rows: row_cut, lane_axis: _cut(lane_axis, size, square)}
    begin = ix.substitute(first.offset, {rows.value: row_cut.written.place, lane_axis.value: ix.ZERO})
    return {rows: row_cut, lane_axis: _shifted_cut(lane_axis, size, line, ix.modulo(begin, line), square)}


def _turned_operands(axes: Sequence[Axis], stores: Sequence[Store]) -> dict[Expr, Axis]:
    """The loads that go in steps along the last axis, and one by one along another one: that one."""
    lane_axis = axes[-1]
    if len(axes) == 1 or not all(ix.stride(store.offset, lane_axis) == 1 for store in stores):
        return {}
    sides: dict[Expr, Axis] = {}
    for e in ex.walk(e for store in stores for e in (store.value, store.offset)):
        if e.op != "load" or len(e.args) > 1 or e.attr.role == "local":
            continue
        strides = [ix.stride(e.args[0], axis) for axis in axes]
        if None in strides or strides[-1] in (-1, 0, 1) or 1 not in strides:
            continue
        along = axes[strides.index(1)]
        if len({*sides.values(), along}) <= 2:
            sides[e] = along
    return sides


@dataclass(frozen=True, slots=True)
class _Part:
    """What a step has of an axis: from `start` on all of `axis`, or less of it."""

    axis: Axis
    start: Expr
    limit: Expr | None

    @property
    def place(self) -> Expr:
        return ix.plus(self.start, self.axis.value)

    def loop(self, body: tuple[Statement, ...], lanes: int) -> Loop:
        return Loop(self.axis, body, lanes, self.limit)


@dataclass(frozen=True, slots=True)
class _Cut:
    """An axis in steps, and what each of them reads and writes."""

    step: Axis
    read: _Part
    written: _Part


def _cut(axis: Axis, most: int, multiple: int) -> _Cut:
    """An axis in steps of one size, of which the last may be smaller."""
    size = _even_size(axis.extent, most, multiple)
    step = Axis(f"{axis.name}.tile", ceil_div(axis.extent, size))
    part = _Part(Axis(axis.name, size), ix.times(step.value, size), last_limit(axis.extent, step, size))
    return _Cut(step, part, part)


def _shifted_cut(axis: Axis, most: int, line: int, shift: Expr, least: int) -> _Cut:
    """An axis in steps that are written `shift` places earlier, less than a line. What is read is what all shifts need, and
    at least so many."""
    extent = axis.extent
    size = _even_size(extent + (line - 1), most, line)
    step = Axis(f"{axis.name}.tile", ceil_div(extent + (line - 1), size))
    begin, whole = ix.times(step.value, size), ix.number(extent)
    end = ix.plus(begin, size)
    start = _between(ix.ZERO, ix.plus(begin, -line), ix.number(extent - least))
    written_start = _between(ix.ZERO, ix.plus(begin, ix.times(shift, -1)), whole)
    written_end = _least(ix.plus(end, ix.times(shift, -1)), whole)
    return _Cut(
        step,
        _Part(Axis(axis.name, size + line), start, ix.plus(_least(end, whole), ix.times(start, -1))),
        _Part(Axis(axis.name, size), written_start, ix.plus(written_end, ix.times(written_start, -1))),
    )  # fmt: skip


def _even_size(extent: Size, most: int, multiple: int) -> int:
    """A size of steps, a multiple, so that all have about the same."""
    if not isinstance(extent, int):
        return most
    return min(most, ceil_div(ceil_div(extent, ceil_div(extent, most)), multiple) * multiple)


def _least(a: Expr, b: Expr) -> Expr:
    return Expr("minimum", (a, b), int64)


def _between(low: Expr, a: Expr, high: Expr) -> Expr:
    return Expr("maximum", (low, _least(a, high)), int64)


def _with_turned(stores: Sequence[Statement], turned: dict[Expr, Expr]) -> tuple[Statement, ...]:
    """The stores with other loads in their values."""
    return tuple(Store(s.buffer, s.offset, with_loads(s.value, turned), s.mask) for s in stores if isinstance(s, Store))
