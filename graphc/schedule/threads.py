"""Loop nests for machines of very many threads: `Machine.threads`.

Each element of a map is a step of the grid, so that neighbours in memory are neighbouring threads. A reduction along rows takes
a group of threads a row; one along columns a thread a column. What is too long for that is cut into pieces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import graphc.expression as ex
import graphc.index as ix
from graphc.expression import Axis, Buffer, Expr
from graphc.kernel import Accumulate, Kernel, Loop, Loops, Reset, Statement, Store
from graphc.schedule.statements import last_limit, substitute_statements, with_loads
from graphc.sizes import ceil_div, estimate
from graphc.types import Size, bool_

_ENOUGH = 1 << 16
"""Threads that keep a large GPU busy."""
_SCATTERING = 1 << 18
"""Threads that places are dealt out to: more of them have longer to look for their own than to add."""
_ENOUGH_COLUMNS = 1 << 18
"""Columns that do, as a thread may take several."""
_FEW_COLUMNS = 1 << 14
"""Columns that leave so much of a GPU idle that each is taken by a group of threads, though these read lines apart."""
_LONG = 256
"""Numbers that a thread or a group may add one after another without more ado."""
_ROW_PIECE = 4096
_COLUMN_PIECE = 32
_GROUP = 256
"""Threads of the largest group."""
_SMALLEST_GROUP = 32
_PER_THREAD = 8
"""Numbers of a row that a thread takes at the least, where there are that many: two vectors in single precision."""
_SIDE = 32
"""Elements along each side of a tile that is turned."""
_TURNING = 256
"""Threads that turn a tile."""
_SHARED_BYTES = 1 << 15
"""What the tiles of all operands take."""


def map_nest(name: str, axes: Sequence[Axis], stores: Sequence[Store], cost: float) -> Loops:
    """A map, one element a step."""
    return Loops(name, tuple(axes), tuple(stores), cost)


def group_of(size: Size) -> int:
    """How many threads take a row of so many elements: a power of two, with a few elements each."""
    extent = estimate(size)
    if extent <= _SMALLEST_GROUP:
        return max(2, 1 << (extent - 1).bit_length())
    return min(_GROUP, max(_SMALLEST_GROUP, 1 << (extent // _PER_THREAD).bit_length() - 1))


def row_nest(
    name: str, outer: Sequence[Axis], inner: Sequence[Axis], accumulate: Accumulate, after: Sequence[Store], cost: float
) -> Loops:
    """A reduction along rows: a group of threads a row."""
    body: tuple[Statement, ...] = (accumulate,)
    for depth, axis in enumerate(reversed(inner)):
        body = (Loop(axis, body, group_of(axis.extent) if depth == 0 else 0),)
    return Loops(name, tuple(outer), (Reset(accumulate.accumulator), *body, *after), cost)


def column_nest(
    name: str, outer: Sequence[Axis], inner: Sequence[Axis], accumulate: Accumulate, after: Sequence[Store], cost: float
) -> Loops:
    """A reduction along columns, or one of few elements: one result a thread."""
    body: tuple[Statement, ...] = (accumulate,)
    for axis in reversed(inner):
        body = (Loop(axis, body),)
    return Loops(name, tuple(outer), (Reset(accumulate.accumulator), *body, *after), cost)


def by_groups(steps: Size, total: Size, along_rows: bool) -> bool:
    """Whether each of the results of a reduction, of `total` elements each, is computed by a group of threads."""
    return along_rows or (estimate(steps) < _FEW_COLUMNS and estimate(total) >= _LONG // 4)


def piece_of(cut: Axis, others: Size, steps: Size, along_rows: bool) -> int | None:
    """The length of the pieces into which the longest axis of a reduction is cut; None where it stays whole. `others` elements
    of each of its places are reduced too, for each of `steps` results."""
    extent, beside, results = estimate(cut.extent), max(1, estimate(others)), max(1, estimate(steps))
    total = extent * beside
    if along_rows:
        if total <= _LONG * _GROUP or results * _GROUP >= _ENOUGH:
            return None
        size = max(1, _ROW_PIECE // beside)
    else:
        if total <= _LONG or results >= _ENOUGH_COLUMNS:
            return None
        size = max(int(ceil_div(_COLUMN_PIECE, beside)), int(ceil_div(extent, ceil_div(_ENOUGH_COLUMNS, results))))
    return size if size < cut.extent else None


def turned_nest(
    name: str, axes: Sequence[Axis], sides: dict[Expr, Axis], stores: Sequence[Store], cost: float
) -> Loops | None:
    """A map that reads operands along another axis than it writes. A block takes a tile; those operands go through shared
    memory, whose rows are one number longer than the tile, so that columns stand in different banks. None where an operand
    does not fit."""
    lane_axis = axes[-1]
    tiled = [axis for axis in axes if axis in {*sides.values(), lane_axis}]
    nbytes = sum(load.dtype.itemsize for load in sides) * _SIDE * (_SIDE + 1)
    if len(tiled) != 2 or nbytes > _SHARED_BYTES:
        return None
    other = tiled[0]
    steps = {axis: Axis(f"{axis.name}.tile", ceil_div(axis.extent, _SIDE)) for axis in tiled}
    number = Axis("number", _SIDE * _SIDE)
    fast, slow = ix.modulo(number.value, _SIDE), ix.quotient(number.value, _SIDE)

    def places(along: Axis) -> tuple[dict[Expr, Expr], Expr, Expr | None]:
        """Where a thread is, with its neighbours beside it along an axis; where in a tile; and whether that is inside."""
        within = {along: fast, (other if along is lane_axis else lane_axis): slow}
        whole = {axis.value: ix.plus(ix.times(steps[axis].value, _SIDE), within[axis]) for axis in tiled}
        inside = [ix.less(whole[axis.value], axis.extent) for axis in tiled if last_limit(axis.extent, steps[axis], _SIDE)]
        return whole, ix.plus(ix.times(within[other], _SIDE + 1), within[lane_axis]), ix.both(*inside)

    body: list[Statement] = []
    whole, at, inside = places(lane_axis)
    turned: dict[Expr, Expr] = {}
    for load, along in sides.items():
        buffer = Buffer(f"turned{len(turned)}", load.dtype, _SIDE * (_SIDE + 1), "local")
        there, place, wanted = places(along)
        source = ix.substitute(load, there)
        if wanted is not None:
            source = ex.load(source.attr, source.args[0], wanted)
        body.append(Loop(number, (Store(buffer, place, source),), _TURNING))
        turned[ix.substitute(load, whole)] = ex.load(buffer, at)
    last = []
    for store in substitute_statements(stores, whole):
        assert isinstance(store, Store)
        value = masked(with_loads(store.value, turned), inside, turned.values())
        last.append(Store(store.buffer, store.offset, value, ix.both(store.mask, inside)))
    grid = (*(axis for axis in axes if axis not in steps), *(steps[axis] for axis in tiled))
    return Loops(name, grid, (*body, Loop(number, tuple(last), _TURNING)), cost * _SIDE * _SIDE)


def divided_scatter(name: str, others: Sequence[Axis], along: Axis, place: Expr, size: Size, store: Store) -> Loops:
    """Additions at places that an index chooses, one after another for each place, as on one thread. Where there are too few
    threads, the places are dealt out: each thread goes through the whole index, and adds what belongs to its own places."""
    steps = max(1, math.prod(estimate(axis.extent) for axis in others))
    most = min(estimate(size), estimate(along.extent), max(1, _SCATTERING // steps))
    shares = 1 << max(0, most.bit_length() - 1)
    grid, own = tuple(others), store
    if shares > 1:
        share = Axis("share", shares)
        mine = ix.both(store.mask, Expr("eq", (place & (shares - 1), share.value), bool_))
        value = masked(store.value, mine, (e for e in place.walk() if e.op == "load"))
        grid, own = (share, *others), Store(store.buffer, store.offset, value, mine)
    return Loops(name, grid, (Loop(along, (own,)),), estimate(along.extent) * 2.0, along.extent)


def masked(value: Expr, inside: Expr | None, known: Iterable[Expr] = ()) -> Expr:
    """The value, of which nothing is read where `inside` does not hold, but for the loads in `known`."""
    if inside is None:
        return value
    kept = set(known)
    done: dict[Expr, Expr] = {}
    for e in value.walk():
        args = tuple(done[a] for a in e.args)
        if e.op == "load" and e not in kept:
            done[e] = ex.load(e.attr, args[0], ix.both(args[1] if len(args) > 1 else None, inside))
        else:
            done[e] = e if args == e.args else Expr(e.op, args, e.dtype, e.attr)
    return done[value]


def in_rows(current: Kernel, grid: Sequence[Axis]) -> Kernel:
    """A map whose first axes are like those of a grid of rows, as a group of threads a row: so it can be merged with what
    reduces them. Any other kernel as it is."""
    if not isinstance(current, Loops) or len(current.grid) <= len(grid) or not grid:
        return current
    if not all(isinstance(statement, Store) for statement in current.body):
        return current
    if [axis.extent for axis in current.grid[: len(grid)]] != [axis.extent for axis in grid]:
        return current
    rest = current.grid[len(grid) :]
    body = current.body
    for depth, axis in enumerate(reversed(rest)):
        body = (Loop(axis, body, group_of(axis.extent) if depth == 0 else 0),)
    return Loops(current.name, current.grid[: len(grid)], body, current.cost * math.prod(estimate(a.extent) for a in rest))
