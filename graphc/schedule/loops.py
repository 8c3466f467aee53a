"""Loop nests for maps and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import graphc.expression as ex
import graphc.index as ix
from graphc.expression import Accumulator, Axis, Buffer, Expr, Reduction
from graphc.ir import Node, Value
from graphc.kernel import Accumulate, Kernel, Loop, Loops, Reset, Statement, Store
from graphc.schedule import threads
from graphc.schedule.columns import cut_columns, fold_columns
from graphc.schedule.costs import choose_lanes, cost
from graphc.schedule.elements import Elements, Stored
from graphc.schedule.layout import memory_order
from graphc.schedule.machine import Machine
from graphc.schedule.statements import cut_loop, substitute_statements
from graphc.schedule.threads import masked
from graphc.schedule.tiles import map_in_tiles
from graphc.sizes import ceil_div, estimate, is_static
from graphc.types import DType, Size, float32, float64, int64

_STEP = 8192
"""About how many elements one step of a grid computes."""
_SPLIT = 65536
"""A reduction of more elements is cut into pieces where there is too little else to run in parallel."""
_SHORT = 12
"""Rows of fewer elements are reduced side by side instead of each in lanes."""
_WIDE = 16
"""By how much a step of unknown size may come to exceed what it was taken for."""


def map_kernel(
    name: str, values: Sequence[Value], memory: Mapping[Value, Stored], targets: Mapping[Value, Stored], machine: Machine
) -> Loops:
    """One loop nest that computes values of one shape element by element."""
    shape = values[0].shape
    axes = [Axis(f"i{k}", size) for k, size in enumerate(shape)]
    index = tuple(axis.value if axis.extent != 1 else ix.ZERO for axis in axes)
    elements = Elements(memory)
    stores = [Store(targets[v].buffer, targets[v].place(index), elements.at(v, index)) for v in values]
    axes = [axes[k] for k in memory_order(targets[values[0]].strides)]
    axes, _, stores = merge_axes(axes, stores)
    return _map_nest(name, axes, stores, machine)


def in_memory(
    name: str, axes: Sequence[Axis], value: Expr, machine: Machine, temporary: Callable[[str, DType, int], Buffer]
) -> tuple[Loops, Expr]:
    """A kernel that computes what others read many times, in the order of the axes; and what reads it."""
    buffer = temporary(name, value.dtype, math.prod(estimate(axis.extent) for axis in axes))
    place = ix.ravel([axis.value for axis in axes], [axis.extent for axis in axes])
    merged, _, stores = merge_axes(list(axes), [Store(buffer, place, value)])
    return _map_nest(name, merged, stores, machine), ex.load(buffer, place)


def margin_kernels(name: str, padded: Value, target: Stored, machine: Machine) -> list[Kernel]:
    """What stands around that which a value pads, at the start and the end of each dimension: loop nests that store it."""
    assert padded.node is not None
    low, high, fill = (padded.node.attrs[attribute] for attribute in ("low", "high", "value"))
    region = [(0, size) for size in padded.shape]  # what is left so far: (start, size) of each dimension
    kernels: list[Kernel] = []
    for dim, (before, after) in enumerate(zip(low, high)):
        _, size = region[dim]
        for start, count in ((0, before), (size - after, after)):
            part = [*region[:dim], (start, count), *region[dim + 1 :]]
            if count:
                axes = [Axis(f"i{k}", extent) for k, (_, extent) in enumerate(part)]
                index = tuple(ix.plus(ix.ZERO if a.extent == 1 else a.value, first) for a, (first, _) in zip(axes, part))
                store = Store(target.buffer, target.place(index), ex.constant(fill, padded.dtype))
                axes, _, stores = merge_axes([axes[k] for k in memory_order(target.strides)], [store])
                kernels.append(_map_nest(f"{name}.margin{len(kernels)}", axes, stores, machine))
        region[dim] = (before, size - before - after)
    return kernels


def _map_nest(name: str, axes: list[Axis], stores: Sequence[Store], machine: Machine) -> Loops:
    """Loops over all axes: the innermost in lanes, as many as make a step serially, the rest as the grid."""
    values = [e for s in stores for e in (s.value, s.offset)]
    if not axes:
        return Loops(name, (), tuple(stores), cost=cost(values) * 4)
    tiled = map_in_tiles(name, axes, stores, machine)
    if tiled is not None:
        return tiled
    if machine.threads:
        return threads.map_nest(name, axes, stores, cost(values, axes[-1]))
    lane_axis = axes[-1]
    lanes = choose_lanes(values, lane_axis, machine)
    grid, body = block([*axes[:-1]], lane_axis, tuple(stores), lanes, values)
    work: Size = 1
    if not grid or grid[-1] in axes:  # else the lanes' axis is cut, and a step of about the same size each time
        work = math.prod(a.extent for a in axes if a not in grid)
    per_step = estimate(math.prod(a.extent for a in axes)) / max(1, estimate(math.prod(a.extent for a in grid)))
    return Loops(name, tuple(grid), body, cost=per_step * cost(values, lane_axis) / max(lanes, 1), work=work)


def block(
    outer: list[Axis], lane_axis: Axis, body: tuple[Statement, ...], lanes: int, values: Iterable[Expr]
) -> tuple[list[Axis], tuple[Statement, ...]]:
    """Cut loops into steps of a grid: a long innermost axis is split, short ones are put together with outer axes."""
    if _is_cut(lane_axis.extent, is_alone=not outer):
        size = _STEP
        if isinstance(lane_axis.extent, int):  # all of about the same size
            count = ceil_div(lane_axis.extent, _STEP)
            size = ceil_div(lane_axis.extent, count)
            size = ceil_div(size, lanes) * lanes if lanes else size
        step, loop = cut_loop(lane_axis, size, body, lanes)
        return [*outer, step], (loop,)
    inner: Statement = Loop(lane_axis, body, lanes)
    done = lane_axis.extent
    grid = list(outer)
    while grid and is_static(grid[-1].extent) and fits(done * grid[-1].extent, _STEP):
        axis = grid.pop()
        done *= axis.extent
        inner = Loop(axis, (inner,))
    return grid, (inner,)


def fits(size: Size, most: int) -> bool:
    """Whether a size is no more than `most`, if it is about what it is estimated to be."""
    return estimate(size) <= most and size <= _WIDE * most


def _is_cut(size: Size, *, is_alone: bool) -> bool:
    """Whether a loop is cut into steps, which works for any size."""
    if not isinstance(size, int) and is_alone:
        return True
    return not fits(size, 2 * _STEP)


# Reductions


def reduction_kernels(
    name: str,
    node: Node,
    values: Sequence[Value],
    memory: Mapping[Value, Stored],
    targets: Mapping[Value, Stored],
    machine: Machine,
    temporary: Callable[[str, DType, int], Buffer],
) -> list[Kernel]:
    """The kernels of a reduction that store `values`: its result, or what is computed from it element by element.

    The order of the sum follows from the shape alone. Where a large reduction has few results, it is cut into pieces
    that are reduced on their own, and a second kernel takes the pieces together.
    """
    source = node.operands[0]
    reduced = set(node.attrs["axes"])
    kept = [Axis(f"i{k}", size) for k, size in enumerate(node.result.shape)]
    along = [Axis(f"r{k}", source.shape[k]) for k in sorted(reduced)]
    kept_values, along_values = iter([a.value for a in kept]), iter([a.value for a in along])
    index = tuple(next(along_values) if k in reduced else next(kept_values) for k in range(source.ndim))
    index = tuple(ix.ZERO if size == 1 else i for i, size in zip(index, source.shape))
    accumulator = Accumulator("acc", reduction_of(node), _reduced_in(node, machine))
    value = ex.cast(Elements(memory).at(source, index), accumulator.dtype)
    result_index = tuple(ix.ZERO if a.extent == 1 else a.value for a in kept)
    result = ex.cast(accumulator.value, node.result.dtype)
    final = Elements(memory, {node.result: lambda _: result})
    after = [Store(targets[v].buffer, targets[v].place(result_index), final.at(v, result_index)) for v in values]

    k, a = iter(kept), iter(along)
    order = as_read(value, [next(a) if i in reduced else next(k) for i in range(source.ndim)])
    return reduce_along(name, order, set(along), Accumulate(accumulator, value), after, machine, temporary)


def reduce_along(
    name: str, order: Sequence[Axis], along: set[Axis], accumulate: Accumulate, after: Sequence[Store], machine: Machine,
    temporary: Callable[[str, DType, int], Buffer],
) -> list[Kernel]:
    """The kernels of a reduction along some axes out of `order`, which is about that of what is read in memory."""
    axes, apart, (accumulate, *after) = merge_axes(list(order), [accumulate, *after], along)
    inner = [axis for axis in axes if axis in apart]
    outer = [axis for axis in axes if axis not in apart]
    if machine.threads:
        size = _piece_for_threads(outer, inner, axes)
        if size is not None:
            return _split_reduction(name, outer, inner, axes, accumulate, after, machine, temporary, size)
        return [_reduction_nest(name, outer, inner, axes, accumulate, after, machine)]
    if axes == [*inner, *outer] and len(inner) == len(outer) == 1 and isinstance(outer[0].extent, int):
        flat, _, (whole,) = merge_axes(list(axes), [accumulate])
        folded = fold_columns(name, outer[0], flat[0], whole, machine, temporary) if len(flat) == 1 else None
        if folded is not None:
            (row, wide, sums, store), (side, again) = folded
            kernels = reduce_along(f"{name}.rows", [row, wide], {row}, sums, [store], machine, temporary)
            return [*kernels, _reduction_nest(name, outer, [side], [side, *outer], again, after, machine)]
    pieces = cut_columns(name, outer, inner, axes, accumulate, machine, temporary)
    if pieces is not None:
        first, axis, again = pieces
        return [first, _reduction_nest(name, outer, [axis], [axis, *outer], again, after, machine)]
    total = math.prod(a.extent for a in inner)
    steps = math.prod(a.extent for a in outer)
    if total > _SPLIT and steps * 8 < total and inner:
        return _split_reduction(name, outer, inner, axes, accumulate, after, machine, temporary)
    return [_reduction_nest(name, outer, inner, axes, accumulate, after, machine)]


def _piece_for_threads(outer: Sequence[Axis], inner: Sequence[Axis], order: Sequence[Axis]) -> int | None:
    if not inner:
        return None
    cut = max(inner, key=lambda a: estimate(a.extent))
    others = math.prod(a.extent for a in inner if a is not cut)
    return threads.piece_of(cut, others, math.prod(a.extent for a in outer), not outer or order[-1] in inner)


def as_read(value: Expr, axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """The axes in the order in which what is read along all of them stands in memory; as they are if there is no such thing."""
    wide = [axis for axis in axes if axis.extent != 1]
    for e in value.walk():
        if e.op == "load":
            steps = [_first_step(e.args[0], axis) for axis in wide]
            if all(isinstance(step, int) and step for step in steps):
                return tuple(wide[k] for k in memory_order(tuple(steps)))  # type: ignore[arg-type]
    return tuple(axes)


def _first_step(offset: Expr, axis: Axis) -> Size | None:
    """By how much an offset grows from the first place on an axis to the second, where that is the same everywhere."""
    step = ix.stride(offset, axis)
    if step is not None:
        return step
    first, second = (ix.substitute(offset, {axis.value: ix.number(place)}) for place in (0, 1))
    atoms, distance = ix.terms(ix.plus(second, ix.times(first, -1)))
    return None if atoms else distance


def reduction_of(node: Node) -> Reduction:
    """The kind of a reduction node."""
    assert node.op.reduction is not None
    return node.op.reduction


def summed_in(dtype: DType) -> DType:
    """The dtype in which sums go on: half precision would lose what is small beside the sum."""
    return dtype.computes_in


def _reduced_in(node: Node, machine: Machine) -> DType:
    """The dtype in which a reduction goes on.

    Sums of float32 over a batch, a dimension before one that stays, go on in float64. In which order they are taken depends on
    the layout that was chosen for the whole graph; rounded to float32 once, at the end, they are the same in any order, all but
    always, so that a batch norm computes the same wherever it is compiled. That takes a few per cent longer, as it is memory
    that sums wait for. Many a GPU has few units for float64, and sums of a GPU are sums of many short ones.
    """
    dtype = summed_in(node.result.dtype)
    over_batch = any(axis < node.result.ndim for axis in node.attrs["axes"])
    if dtype is float32 and reduction_of(node) == "sum" and over_batch and not machine.threads:
        return float64
    return dtype


def _reduction_nest(
    name: str, outer: list[Axis], inner: list[Axis], order: list[Axis], accumulate: Accumulate, after: list[Store],
    machine: Machine,
) -> Loops:
    """A reduction whose result is finished in one go."""
    accumulator, values = accumulate.accumulator, [accumulate.value, *(s.value for s in after)]
    work: Size = math.prod(a.extent for a in inner)
    total = max(1, estimate(work))
    along_rows = not outer or (order[-1] in inner and order[-1].extent >= _SHORT)
    if machine.threads:
        by_groups = inner and threads.by_groups(math.prod(a.extent for a in outer), work, along_rows)
        nest = threads.row_nest if by_groups else threads.column_nest
        return nest(name, outer, inner, accumulate, after, total * cost(values))
    if along_rows:
        # along rows: the lanes share a sum
        body: tuple[Statement, ...] = (accumulate,)
        lanes = choose_lanes([accumulate.value], order[-1], machine, sums=True) if order else 0
        for depth, axis in enumerate(reversed(inner)):
            body = (Loop(axis, body, lanes if depth == 0 else 0),)
        body = (Reset(accumulator), *body, *after)
        per_step = total * cost(values) / max(lanes, 1) + 10
        grid = list(outer)
        while grid and is_static(grid[-1].extent) and fits(work * grid[-1].extent, _STEP):
            axis = grid.pop()
            work, per_step = work * axis.extent, per_step * estimate(axis.extent)
            body = (Loop(axis, body),)
        return Loops(name, tuple(grid), body, cost=per_step, work=work)
    # along columns, or across short rows: each lane has a sum of its own
    lane_axis = outer[-1]
    lanes = choose_lanes(values, lane_axis, machine, sums=True)
    body = (accumulate,)
    for axis in reversed(inner):
        body = (Loop(axis, body),)
    body = (Reset(accumulator), *body, *after)
    per_lanes = total * cost(values, lane_axis)
    rest = [a for a in outer if a is not lane_axis]
    width = max(1, _STEP // total // lanes) * lanes
    if fits(lane_axis.extent, width):
        per_step = per_lanes * max(1, estimate(lane_axis.extent) / lanes)
        return Loops(name, tuple(rest), (Loop(lane_axis, body, lanes),), cost=per_step, work=work * lane_axis.extent)
    step, loop = cut_loop(lane_axis, width, body, lanes)
    return Loops(name, (*rest, step), (loop,), cost=per_lanes * width / lanes, work=work)


def _split_reduction(
    name: str, outer: list[Axis], inner: list[Axis], order: list[Axis], accumulate: Accumulate, after: list[Store],
    machine: Machine, temporary: Callable[[str, DType, int], Buffer], size: int | None = None,
) -> list[Kernel]:
    """Two kernels: sums of pieces of fixed length, which may be given, and the sum of those."""
    accumulator = accumulate.accumulator
    cut = max(inner, key=lambda a: a.extent)
    others = math.prod(a.extent for a in inner) // cut.extent
    in_lanes = order[-1].extent if order[-1] in outer else 1
    if size is None:
        size = max(1, 4 * _STEP // max(1, others * min(in_lanes, 1024)))
        size = min(cut.extent, -(-size // 64) * 64 if cut is order[-1] else size)
    count = -(-cut.extent // size)
    piece, within = Axis("piece", count), Axis(cut.name, size)
    whole = {cut.value: ix.plus(ix.times(piece.value, size), within.value)}
    inside: Expr | None = None
    if count * size != cut.extent:
        inside = ix.less(whole[cut.value], cut.extent)
    steps = math.prod(a.extent for a in outer)
    partial = temporary(f"{name}.partial", accumulator.dtype, count * steps)
    result_index = [a.value for a in outer]
    place = ix.plus(ix.times(piece.value, steps), ix.ravel(result_index, [a.extent for a in outer]))
    value = ix.substitute(accumulate.value, whole)
    if inside is not None:
        neutral = ex.constant(accumulator.initial, accumulator.dtype)
        value = Expr("where", (inside, masked(value, inside), neutral), value.dtype)
    first_inner = [within if a is cut else a for a in inner]
    first_order = [piece, *(within if a is cut else a for a in order)]
    first = _reduction_nest(
        f"{name}.pieces", [piece, *outer], first_inner, first_order, Accumulate(accumulator, value),
        [Store(partial, place, accumulator.value)], machine,
    )
    pieces = Axis("r.piece", count)
    again = ex.load(partial, ix.plus(ix.times(pieces.value, steps), ix.ravel(result_index, [a.extent for a in outer])))
    last_order = [pieces, *outer]
    return [first, _reduction_nest(name, outer, [pieces], last_order, Accumulate(accumulator, again), after, machine)]


# Axes


def merge_axes(
    axes: list[Axis], statements: Sequence[Any], separate: set[Axis] | None = None
) -> tuple[list[Axis], set[Axis], list[Any]]:
    """Make one axis of neighbours wherever all indices allow it, and drop axes of size 1.

    Axes in `separate` do not merge with the others. Returns the axes, which of them are separate, and the statements.
    """
    separate = separate or set()
    roots = [e for s in statements for e in _roots(s)]
    indices, fixed = _index_uses(roots)
    axes = [a for a in axes if a.extent != 1]
    merged: list[Axis] = []
    for axis in axes:
        last = merged[-1] if merged else None
        mergeable = (
            last is not None
            and (last in separate) == (axis in separate)
            and last not in fixed
            and axis not in fixed
            and all(i.get(last.value, 0) == i.get(axis.value, 0) * axis.extent for i in indices)
        )
        if last is None or not mergeable:
            merged.append(axis)
            continue
        both = Axis(last.name, last.extent * axis.extent)
        values = {last.value: ix.ZERO, axis.value: both.value}
        statements = list(substitute_statements(statements, values))
        indices, fixed = _index_uses([e for s in statements for e in _roots(s)])
        if last in separate:
            separate = separate | {both}
        merged[-1] = both
    return merged, separate & set(merged), list(statements)


def _roots(statement: Store | Accumulate) -> list[Expr]:
    if isinstance(statement, Accumulate):
        return [statement.value]
    return [statement.offset, statement.value, *([statement.mask] if statement.mask is not None else [])]


def _index_uses(roots: Sequence[Expr]) -> tuple[list[Mapping[Expr, int]], set[Axis]]:
    """The normal forms of all indices that depend on axes linearly, and the axes that are used in any other way."""
    linear: list[Mapping[Expr, int]] = []
    fixed: set[Axis] = set()
    seen: set[Expr] = set()

    def look(e: Expr, is_index: bool) -> None:
        pending = [(e, is_index)]
        while pending:
            e, is_index = pending.pop()
            if is_index:
                atoms, _ = ix.terms(e)
                linear.append(atoms)
                pending.extend((atom, False) for atom in atoms if atom.op != "axis")
            elif e in seen:
                continue
            else:
                seen.add(e)
                if e.op == "axis":
                    fixed.add(e.attr)
                elif e.op == "load":
                    pending.append((e.args[0], True))
                    pending.extend((a, False) for a in e.args[1:])
                else:
                    pending.extend((a, False) for a in e.args)

    for root in roots:
        look(root, root.dtype is int64 and root.op in ("add", "mul", "axis"))
    return linear, fixed
