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
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import graphc.expression as ex
import graphc.index as ix
from graphc.expression import Axis, Buffer, Expr
from graphc.kernel import Loop, Loops, Statement, Store
from graphc.schedule.costs import choose_lanes, cost
from graphc.schedule.machine import Machine
from graphc.schedule.statements import last_limit, substitute_statements, with_loads
from graphc.schedule.threads import turned_nest
from graphc.sizes import ceil_div, estimate

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
    side = _SIDE if len(tiled) == 2 else _SQUARE
    while side > square and side ** len(tiled) * nbytes > _BYTES:
        side //= 2
    cuts = {axis: _Cut(axis, side, square) for axis in tiled}
    whole = {axis.value: cut.place for axis, cut in cuts.items()}
    shape = [cuts[axis].within.extent for axis in tiled]
    place = ix.ravel([cuts[axis].within.value for axis in tiled], shape)
    body: list[Statement] = []
    turned: dict[Expr, Expr] = {}
    for load, along in sides.items():
        buffer = Buffer(f"turned{len(turned)}", load.dtype, math.prod(shape), "local")
        turned[ix.substitute(load, whole)] = ex.load(buffer, place)
        copy: Statement = Store(buffer, place, ix.substitute(load, whole))
        for axis in (along, lane_axis, *(axis for axis in reversed(tiled) if axis not in (along, lane_axis))):
            copy = cuts[axis].loop((copy,), square if axis is along else 0)
        body.append(copy)
    inner = _with_turned(substitute_statements(stores, whole), turned)
    values = [e for s in inner if isinstance(s, Store) for e in (s.value, s.offset)]
    lanes = choose_lanes(values, cuts[lane_axis].within, machine)
    for axis in reversed(tiled):
        inner = (cuts[axis].loop(inner, lanes if axis is lane_axis else 0),)
    per_vector = cost(values, cuts[lane_axis].within) + _TURNED * len(sides)
    # from tile to tile along what is read, so that the hardware sees where it goes on; or along what is written, where rows
    # begin within lines: of some a tile writes a part, and the next one the rest
    order = tiled if any(_begins_within_lines(store, axis) for store in stores for axis in tiled[:-1]) else tiled[::-1]
    grid = (*(axis for axis in axes if axis not in cuts), *(cuts[axis].step for axis in order))
    return Loops(name, grid, (*body, *inner), cost=math.prod(shape) * per_vector / max(lanes, 1))


def _begins_within_lines(store: Store, axis: Axis) -> bool:
    """Whether rows of several tiles are written, one for each place on an axis, that are no whole number of lines apart."""
    step = ix.stride(store.offset, axis)
    return step is not None and estimate(step) > _SIDE and estimate(step) * store.buffer.dtype.itemsize % _LINE != 0


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


class _Cut:
    """An axis in steps of one size, of which the last may be smaller."""

    def __init__(self, axis: Axis, most: int, multiple: int) -> None:
        extent = axis.extent
        size = most
        if isinstance(extent, int):  # all of about the same size
            size = min(most, ceil_div(ceil_div(extent, ceil_div(extent, most)), multiple) * multiple)
        self.step = Axis(f"{axis.name}.tile", ceil_div(extent, size))
        self.within = Axis(axis.name, size)
        self.place = ix.plus(ix.times(self.step.value, size), self.within.value)
        self._limit = last_limit(extent, self.step, size)

    def loop(self, body: tuple[Statement, ...], lanes: int) -> Loop:
        """A loop over what a step has of the axis."""
        return Loop(self.within, body, lanes, self._limit)


def _with_turned(stores: Sequence[Statement], turned: dict[Expr, Expr]) -> tuple[Statement, ...]:
    """The stores with other loads in their values."""
    return tuple(Store(s.buffer, s.offset, with_loads(s.value, turned), s.mask) for s in stores if isinstance(s, Store))
