"""Kernels for contractions: matrix products over groups of axes, and loops where those are too small to be worth it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import graphc.index as ix
import graphc.ops as ops
from graphc.expression import Accumulator, Axis, Buffer, Expr, cast
from graphc.ir import Node, Value
from graphc.kernel import Accumulate, Gemm, Kernel, Loop, Loops, Margin, Reset, Statement, Store
from graphc.ops.linalg import parse_spec
from graphc.passes.layout import FEW_TAPS, is_windows
from graphc.schedule.costs import choose_lanes, cost
from graphc.schedule.elements import Elements, Stored
from graphc.schedule.layout import memory_order
from graphc.schedule.loops import as_read, in_memory, reduce_along, summed_in
from graphc.schedule.machine import Machine
from graphc.schedule.statements import substitute_statements
from graphc.schedule.threads import column_nest
from graphc.schedule.winograd import plan_winograd, winograd_kernels
from graphc.sizes import estimate, is_static
from graphc.types import DType, bfloat16, float32

_SMALL = 16_384
"""Multiplications below which packing panels costs more than it saves."""
_LARGE = 4096
"""Numbers of a matrix from which on it matters in which order they are read."""
_SHORT_ROW = 8
"""Columns below which a row leaves most lanes empty."""
_ROWS = 4
"""Rows that a small product computes at a time."""


def product_kernels(
    name: str,
    node: Node,
    values: Sequence[Value],
    memory: Mapping[Value, Stored],
    targets: Mapping[Value, Stored],
    machine: Machine,
    temporary: Callable[[str, DType, int], Buffer],
    steady: Collection[Value] = (),
) -> list[Kernel]:
    """The kernels of a contraction that stores `values`: its result, or what is computed from it element by element.

    The columns (n) are those of the operand that has the result's last dimension, so that results are stored in order. What
    is computed of `steady` operands alone is computed once.
    """
    winograd = plan_winograd(node, node.operands[0] in steady) if machine.transforms_convolutions else None
    if winograd is not None:
        return winograd_kernels(name, node, winograd, values, memory, targets, machine, temporary)
    left, right, out = parse_spec(node.attrs["spec"])
    x, y = node.operands
    order = memory_order(targets[values[0]].strides)
    stands = "".join(out[k] for k in order)
    if stands and stands[-1] in left and stands[-1] not in right:
        left, right, x, y = right, left, y, x
    sizes = dict(zip(left, x.shape)) | dict(zip(right, y.shape))
    axes = {letter: Axis(letter, size) for letter, size in sizes.items()}

    def index(letters: str) -> tuple[ix.Expr, ...]:
        return tuple(ix.ZERO if sizes[s] == 1 else axes[s].value for s in letters)

    def group(letters: str) -> tuple[Axis, ...]:
        return tuple(axes[s] for s in letters if sizes[s] != 1)

    elements = Elements(memory)
    lhs, rhs = elements.at(x, index(left)), elements.at(y, index(right))
    batch = group("".join(s for s in stands if s in left and s in right))
    m = group("".join(s for s in stands if s not in right))
    n = group("".join(s for s in stands if s not in left))
    k = group("".join(s for s in right if s not in out))
    if is_windows(x):
        m, k = as_read(lhs, m), as_read(lhs, k)
    elif is_windows(y):
        n, k = as_read(rhs, n), as_read(rhs, k)
    work = math.prod(sizes.values())
    channels_last = bool(batch and n) and _stand_side_by_side(batch[-1], (lhs, rhs))
    by_channel = not machine.threads and not m and _are_few_taps(rhs, batch, n, k, channels_last=channels_last)
    in_order = () if by_channel or is_windows(x) or is_windows(y) else _by_vector(batch, m, n, k, lhs, rhs)
    small = by_channel or bool(in_order) or work <= _SMALL or not (m or batch) or not n or not k
    # a matrix product sees to its precision itself
    accumulator = Accumulator("acc", "sum", summed_in(node.result.dtype) if small else node.result.dtype)
    result = cast(accumulator.value, node.result.dtype)
    final = Elements(memory, {node.result: lambda _: result})
    stores = tuple(Store(targets[v].buffer, targets[v].place(index(out)), final.at(v, index(out))) for v in values)
    if machine.rounds_factors and not small and lhs.dtype is rhs.dtype is float32:
        lhs, rhs = cast(lhs, bfloat16), cast(rhs, bfloat16)
    if machine.threads and not small:
        lhs, rhs = _as_halves(lhs, rhs)
    if small:
        before: list[Kernel] = []
        vector = lhs if n else rhs
        if in_order and (m or n) and not _goes_along(vector, in_order[-1]):
            used = {e.attr for e in vector.walk() if e.op == "axis"}
            along = (*(axis for axis in batch if axis in used), *(axis for axis in in_order if axis in k))
            kernel, vector = in_memory(f"{name}.vector", along, vector, machine, temporary)
            before, (lhs, rhs) = [kernel], (vector, rhs) if n else (lhs, vector)
        product = cast(lhs, accumulator.dtype) * cast(rhs, accumulator.dtype)
        if in_order:
            kernels = reduce_along(name, in_order, set(k), Accumulate(accumulator, product), stores, machine, temporary)
            return [*before, *kernels]
        if by_channel and channels_last and all(ix.stride(store.offset, batch[-1]) == 1 for store in stores):
            return [_small(name, (*batch[:-1], *n), batch[-1:], k, Accumulate(accumulator, product), stores, machine)]
        return [_small(name, (*batch, *m), n, k, Accumulate(accumulator, product), stores, machine)]
    return [Gemm(name, batch, m, n, k, lhs, rhs, accumulator, stores, margins=_margins(x, index(left)))]


def _margins(x: Value, index: tuple[ix.Expr, ...]) -> tuple[Margin, ...]:
    """Where the element of an operand at an index is zero because it lies in what was padded."""
    node = x.node
    while node is not None and node.op in (ops.window, ops.slice):
        assert node.op.lower is not None
        (x,) = node.operands
        read: Any = node.op.lower(lambda _, place: place, index, (x.type,), **node.attrs)
        index, node = read, x.node
    if node is None or node.op is not ops.pad or node.attrs["value"] != 0:
        return ()
    low, high, shape = node.attrs["low"], node.attrs["high"], node.operands[0].shape
    return tuple(
        Margin(place, before, before + size)
        for place, before, size, after in zip(index, low, shape, high, strict=True)
        if (before or after) and is_static(before, size)
    )


def _as_halves(lhs: Expr, rhs: Expr) -> tuple[Expr, Expr]:
    """Operands in half precision that have been widened, as they were: what is made of them is the same."""
    if all(side.op == "cast" and side.dtype is float32 for side in (lhs, rhs)):
        narrow = lhs.args[0].dtype
        if narrow is rhs.args[0].dtype and narrow.itemsize == 2 and narrow.computes_in is float32:
            return lhs.args[0], rhs.args[0]
    return lhs, rhs


def _by_vector(
    batch: tuple[Axis, ...], m: tuple[Axis, ...], n: tuple[Axis, ...], k: tuple[Axis, ...], lhs: Expr, rhs: Expr
) -> tuple[Axis, ...]:
    """The order in which the axes of the product of a matrix and a vector are gone through: that in which the matrix stands in
    memory, whose numbers are read once and take longer to come than to be multiplied. Empty for other products."""
    if not k or (m and n) or not is_static(*(axis.extent for axis in (*batch, *m, *n, *k))):
        return ()
    if estimate(math.prod(axis.extent for axis in (*m, *n, *k))) < _LARGE:
        return ()
    return (*batch, *as_read(rhs if n else lhs, (*m, *n, *k)))


def _goes_along(vector: Expr, axis: Axis) -> bool:
    """Whether a vector may be read again and again beside a matrix, whose numbers along an axis stand side by side: its own do
    so too, or each is for many of the matrix."""
    return not any(e.attr is axis for e in vector.walk() if e.op == "axis") or _stand_side_by_side(axis, (vector,))


def _are_few_taps(
    rhs: Expr, batch: tuple[Axis, ...], n: tuple[Axis, ...], k: tuple[Axis, ...], *, channels_last: bool
) -> bool:
    """Whether each sum takes a few numbers of which its neighbours take most as well, as where a channel is convolved by
    itself: they are in a cache, so that what counts is how many sums go on at once. These are along the last axis of n; or of
    the batch, where that is the channels of images that have them last."""
    axes = (*batch, *n)
    if not k or not axes or not is_static(*(axis.extent for axis in (*axes, *k))) or math.prod(a.extent for a in k) > FEW_TAPS:
        return False
    read = math.prod(axis.extent for axis in (*axes, *k))
    row, times = (batch[-1], 1) if channels_last else (axes[-1], 2)
    return rhs.op == "load" and row.extent >= _SHORT_ROW and read > times * rhs.attr.size


def _stand_side_by_side(axis: Axis, operands: tuple[Expr, ...]) -> bool:
    """Whether what is read along an axis stands side by side, as the channels of images do that have them last."""
    return all(e.op == "load" and ix.stride(e.args[0], axis) == 1 for e in operands)


def _small(
    name: str, rows: tuple[Axis, ...], n: tuple[Axis, ...], k: tuple[Axis, ...], accumulate: Accumulate,
    after: tuple[Store, ...], machine: Machine,
) -> Loops:
    """A product as plain loops: columns in lanes, and a few rows at a time to use each column more than once."""
    total = max(1, estimate(math.prod(a.extent for a in k)))
    values = [accumulate.value, *(s.value for s in after)]
    accumulator = accumulate.accumulator
    if machine.threads:
        return column_nest(name, (*rows, *n), k, accumulate, after, total * cost(values))
    if not n:
        lanes = choose_lanes(values, k[-1], machine, sums=True) if k else 0
        body: tuple[Statement, ...] = (accumulate,)
        for depth, axis in enumerate(reversed(k)):
            body = (Loop(axis, body, lanes if depth == 0 else 0),)
        return Loops(name, rows, (Reset(accumulator), *body, *after), cost=total * cost(values) / max(lanes, 1) + 10)
    lane_axis = n[-1]
    lanes = choose_lanes(values, lane_axis, machine)
    grid: tuple[Axis, ...] = (*rows, *n[:-1])
    together = max((r for r in range(1, _ROWS + 1) if rows and rows[-1].extent % r == 0), default=1)
    resets: list[Statement] = []
    sums: list[Statement] = []
    stores: list[Statement] = []
    step = Axis(f"{rows[-1].name}.rows", rows[-1].extent // together) if rows else None
    for r in range(together):
        own = Accumulator(f"acc{r}", accumulator.reduction, accumulator.dtype)
        values_of = {accumulator.value: own.value}
        if step is not None:
            values_of[rows[-1].value] = ix.plus(ix.times(step.value, together), r)
        resets.append(Reset(own))
        sums.append(Accumulate(own, ix.substitute(accumulate.value, values_of)))
        stores += substitute_statements(after, values_of)
    if step is not None:
        grid = (*rows[:-1], step, *n[:-1])
    body = tuple(sums)
    for axis in reversed(k):
        body = (Loop(axis, body),)
    loop = Loop(lane_axis, (*resets, *body, *stores), lanes)
    steps = max(1, estimate(lane_axis.extent) / max(lanes, 1))
    return Loops(name, grid, (loop,), cost=total * steps * together * cost(values, lane_axis))
