"""How a product is computed whose operands are read where they stand, though not as two matrices: a convolution.

The steps of a convolution are the places of its kernel and the channels there, and its rows are the pixels of an image. With
the channels last, the steps of one pixel are stretches of memory, one for each row or place of the kernel, and the same ones
for each pixel, but that they begin elsewhere. So nothing has to be packed: the micro-kernel goes through the *runs* of steps,
whose places stand in a table, and reads its rows at fixed distances from there. The gradient of the weights is such a product,
too: there the steps are pixels, a run for each row of each image.

Where images are padded, tiles leave out what is zero (see `padding`). As in `gemm_plan`, everything is decided by the extents,
the operands and the CPU, never by the number of threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from graphc import index
from graphc.backends.llvm.axes import Axes, collapse, extent
from graphc.backends.llvm.gemm_plan import SERIAL, choose_blocks, choose_place
from graphc.backends.llvm.lines import Lines
from graphc.backends.llvm.microkernel import (
    CALL,
    LATENCY,
    LOADS_PER_CYCLE,
    MOST_VECTORS,
    PER_CYCLE,
    Tile,
    computed_in,
    lanes_of,
)
from graphc.backends.llvm.padding import Edge, Left, Skips, Trims, edges
from graphc.backends.llvm.planned_gemm import Epilogue, Place
from graphc.backends.llvm.target import Target
from graphc.expression import Axis, Buffer, Expr
from graphc.kernel import Gemm, Store
from graphc.schedule.statements import substitute_statements
from graphc.sizes import is_static
from graphc.types import DType

_RUN = 16
"""Cycles that it takes to begin a run: the places of its operands, and a branch that goes another way than before."""
_FINISHING = 0.5
"""Cycles that the epilogue takes for each number of a tile, about."""
_SHARE = 2
"""The part of the level-2 cache, one over this, that the operands of a block of steps may take."""
_FEWEST_STEPS = 192
"""A block of steps has no fewer than that, as its sums are read and written once for each block."""
_FEW_ROWS = 8
"""As many tiles of rows are not shared out among tasks: each would read all columns."""
_FEW_TASKS = 8
_THREADS = (2, 4, 8)
_ARRANGED_BYTES = 1 << 15
"""What a tile of columns that are put in another order may take: it is on the stack, and should stay near."""
_MOST_RUNS = 512
"""How many runs a block of steps has at most: the table of them is on the stack."""


@dataclass(frozen=True)
class Places:
    """Where an operand stands: element (batch, lane, step) of `buffer` is at `base`, an index over the batch, plus the strides
    times the values of the axes of lanes and steps."""

    buffer: Buffer
    base: Expr
    lanes: Axes
    lane_strides: tuple[int, ...]
    step_strides: tuple[int, ...]
    lines: Lines
    offsets: tuple[int, ...]
    """Where the rows of a tile stand after its first; of columns, each vector of them."""


@dataclass(frozen=True)
class DirectPlan:
    """A product's operands, blocks and tasks.

    `steps` are the axes of k: the last is a run, of `run` steps. `m_block` and `n_block` count tiles, `runs_block` runs; a
    task computes a block of each of the first two, all steps of it, for one matrix of the batch.

    The epilogue may want the columns in another order than that in which they stand together: the weights of a convolution
    have their places last, and an image its channels. Then the places are a `group`: a tile takes some channels of each of
    them, and its sums are put in order afterwards. `group_strides` are those of the right operand.
    """

    kernel: Gemm
    tile: Tile
    batch: Axes
    lhs: Places
    rhs: Places
    steps: Axes
    run: int
    group: Axes
    group_strides: tuple[int, ...]
    epilogue: Epilogue
    m_block: int
    n_block: int
    runs_block: int
    is_parallel: bool
    place: Place | None
    """Where the sums are the result; None where they go through the epilogue."""
    skips: Skips | None
    """The runs that a tile leaves out, as its rows are zero there, if any."""
    trims: Trims | None
    """The rows that a tile leaves out at each run, if any."""
    cycles: float
    """About how many it takes of a core."""

    @property
    def dtype(self) -> DType:
        """What is multiplied and summed."""
        return self.tile.dtype

    @property
    def groups(self) -> int:
        """How many sums there are for each column."""
        return _number(extent(self.group))

    @property
    def m(self) -> int:
        return self.lhs.lines.total

    @property
    def n(self) -> int:
        """All columns, those of the group included."""
        return self.rhs.lines.total * self.groups

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return _number(extent(self.steps[:-1]))

    @property
    def entry(self) -> int:
        """How many numbers the table has for each run: where its operands stand, and the kind of its rows if there are some."""
        return 2 if self.trims is None else 3

    @property
    def blocks(self) -> int:
        """How many blocks of runs there are."""
        return -(-self.runs // self.runs_block)

    @property
    def grid(self) -> tuple[int, int, int]:
        """The number of matrices, and of blocks of m and n; their product is the number of tasks."""
        return (
            _number(extent(self.batch)), -(-self.lhs.lines.tiles // self.m_block), -(-self.rhs.lines.tiles // self.n_block)
        )  # fmt: skip

    @property
    def tasks(self) -> int:
        return math.prod(self.grid)

    @property
    def sums(self) -> int:
        """How many sums are collected in scratch memory: all, if there are several blocks of steps and no other place."""
        return self.grid[0] * self.m * self.n if self.blocks > 1 and self.place is None else 0


def plan_direct(kernel: Gemm, target: Target) -> DirectPlan | None:
    """The plan of a product whose operands are such as to be read where they stand, and would have to be packed otherwise; None
    for all other ones."""
    plan = _plan(kernel, None, target)
    if plan is None:
        return None
    orders = (kernel, *_side_by_side(kernel, plan.lhs.lanes, target))
    along = [edge for edge in edges(kernel) if edge.rows is plan.lhs.lanes[-1]]
    plans = (_plan(other, edge, target) for other in orders for edge in (None, *along) if other is not kernel or edge)
    return min((plan, *filter(None, plans)), key=lambda found: found.cycles)


def _side_by_side(kernel: Gemm, m: Axes, target: Target) -> Iterator[Gemm]:
    """The product with its rows in other orders, in which the same short row of a few images comes one after another, so that a
    tile may take them together. `m` are the axes of its rows that cannot be taken for one."""
    if len(m) < 3 or not {m[-3], m[-2]} <= set(kernel.m):
        return
    images, most = m[-3], (target.vector_registers - 1) // 2 - 1  # as many as with two vectors each
    for count in range(2, most // _number(m[-1].extent) + 1):
        if _number(images.extent) % count != 0:
            continue
        outer, inner = Axis(f"{images.name}.block", images.extent // count), Axis(images.name, count)
        values = {images.value: index.plus(index.times(outer.value, count), inner.value)}
        order = {images: (outer,), m[-2]: (m[-2], inner)}
        axes = tuple(itertools.chain.from_iterable(order.get(axis, (axis,)) for axis in kernel.m))
        stores = (s for s in substitute_statements(kernel.epilogue, values) if isinstance(s, Store))
        yield replace(kernel, m=axes, lhs=index.substitute(kernel.lhs, values), epilogue=tuple(stores))


@dataclass(frozen=True)
class _Reading:
    """How a product's operands are read where they stand: its rows, columns and steps, and by how much the places of each
    operand grow along these. Along an edge, if there is one, tiles leave out single rows."""

    kernel: Gemm
    edge: Edge | None
    lhs: Expr
    rhs: Expr
    m: Axes
    n: Axes
    group: Axes
    order: Axes
    steps: Axes
    left: tuple[tuple[int, ...], tuple[int, ...]]
    right: tuple[tuple[int, ...], tuple[int, ...]]
    group_strides: tuple[int, ...]
    skips: Skips | None

    @staticmethod
    def of(kernel: Gemm, edge: Edge | None) -> _Reading | None:
        """How the operands are read, for the order in which the rows are given; None where they cannot be."""
        axes = (*kernel.batch, *kernel.m, *kernel.n, *kernel.k)
        dtype = kernel.accumulator.dtype
        if not is_static(*(axis.extent for axis in axes)) or 0 in [axis.extent for axis in axes]:
            return None
        loads = (kernel.lhs, kernel.rhs)
        if any(e.op != "load" or len(e.args) > 1 or e.dtype is not dtype for e in loads) or computed_in(dtype) is not dtype:
            return None
        apart = 0 if edge is None else kernel.k.index(edge.taps) + 1  # its steps are no part of runs
        outer, (lhs, rhs) = collapse(kernel.k[:apart], loads)
        inner, (lhs, rhs) = collapse(kernel.k[apart:], (lhs, rhs))
        m, (lhs,) = collapse(kernel.m, (lhs,))
        steps = (*outer, *inner) or (Axis("step", 1),)
        if edge is not None and (len(inner) != 1 or not outer or outer[-1] is not edge.taps or m[-1:] != (edge.rows,)):
            return None
        group, order = _group(kernel)
        n, (rhs,) = (order[:1], (rhs,)) if group else collapse(*_in_blocks(kernel.n, rhs))
        if len(m) < 2 and len(n) < 2 and len(steps) < 2:
            return None  # two matrices
        left, right, group_strides = _strides(lhs, m, steps), _strides(rhs, n, steps), _strides(rhs, group, ())
        if left is None or right is None or group_strides is None or not n or right[0][-1] != 1:
            return None
        m = m or (Axis("row", 1),)
        return _Reading(
            kernel, edge, lhs, rhs, m, n, group, order, steps, (left[0] or (0,), left[1]), right, group_strides[0],
            Skips.of(kernel, m, steps),
        )  # fmt: skip

    def tiles(self, target: Target) -> Iterator[tuple[float, Tile, Lines, Lines, tuple[int, ...]]]:
        """The tiles that there could be, as `_tiles` has them."""
        dtype = self.kernel.accumulator.dtype
        matrices, groups = _number(extent(self.kernel.batch)), _number(extent(self.group))
        left = Left(self.m, self.skips, self.edge)
        room = _ARRANGED_BYTES // (groups * dtype.itemsize) if self.group else math.inf
        for found in _tiles(matrices, self.m, self.left[0], self.n, self.right[0], self.steps, left, dtype, target):
            if found[1].rows * found[1].columns <= room:
                yield found


def reads_directly(kernel: Gemm, target: Target) -> bool:
    """Whether there is a plan for a product."""
    reading = _Reading.of(kernel, None)
    return reading is not None and any(True for _ in reading.tiles(target))


def _plan(kernel: Gemm, edge: Edge | None, target: Target) -> DirectPlan | None:
    """The plan for the order in which the rows are given, and for an edge, if there is one."""
    reading = _Reading.of(kernel, edge)
    best = None if reading is None else min(reading.tiles(target), key=lambda found: found[0], default=None)
    if reading is None or best is None:
        return None
    m, n, group, steps, right = reading.m, reading.n, reading.group, reading.steps, reading.right
    cycles, tile, rows, columns, row_offsets = best
    groups, matrices = _number(extent(group)), _number(extent(kernel.batch))
    skips = None if reading.skips is None else reading.skips.by(rows, m)
    trims = None if edge is None else Trims.of(edge, rows)
    zero = {axis.value: index.ZERO for axis in (*m, *n, *group, *steps)}
    left_places, right_places = (
        Places(load.attr, index.substitute(load.args[0], zero), lanes, strides[0], strides[1], lines, offsets)
        for load, lanes, strides, lines, offsets in (
            (reading.lhs, m, reading.left, rows, row_offsets),
            (reading.rhs, n, right, columns, _vector_offsets(tile, n, right[0])),
        )
    )
    cycles *= matrices * groups
    run, runs = _number(steps[-1].extent), _number(extent(steps[:-1]))
    runs_block = _runs_block(left_places, tile, runs, run, target)
    blocks = (matrices, rows.tiles, columns.tiles)
    is_parallel = cycles >= SERIAL
    if is_parallel:
        numbers = ((rows.total * runs * run, True), (columns.total * groups * runs * run, True))
        # rows that overlap have few numbers each of their own
        each = min(runs_block * run, -(-left_places.buffer.size // rows.total))
        blocks = choose_blocks(blocks, cycles, numbers, tile, each, target)
        if blocks[1] == rows.tiles:  # a task fetches the columns of its next tile while it computes one
            blocks = blocks[0], blocks[1], max(blocks[2], -(-columns.tiles // _FEW_TASKS))
    epilogue = Epilogue.of(kernel.epilogue, kernel.batch, kernel.m, reading.order)
    place, stays = (None, False) if group else choose_place(kernel, epilogue, tile.dtype)
    return DirectPlan(
        kernel, tile, kernel.batch, left_places, right_places, steps, run, group, reading.group_strides, epilogue, blocks[1],
        blocks[2], runs_block, is_parallel, place if stays else None, skips, trims, cycles,
    )


def _group(kernel: Gemm) -> tuple[Axes, Axes]:
    """The axes of n that are taken together for each column, and all of n in the order in which the epilogue has them side by
    side; none and n as it is where it has them so already, or not at all."""
    last = kernel.n[-1:]
    order = (*last, *kernel.n[:-1])
    roots = [e for store in kernel.epilogue for e in (store.offset, store.value, store.mask) if e is not None]
    offset = kernel.epilogue[0].offset
    if len(order) < 2 or index.stride(offset, order[0]) == 1 or index.stride(kernel.rhs.args[0], order[0]) != 1:
        return (), kernel.n
    return (order[1:], order) if len(collapse(order, roots)[0]) == 1 else ((), kernel.n)


def _number(size: object) -> int:
    assert isinstance(size, int)
    return size


def _in_blocks(axes: Axes, load: Expr) -> tuple[Axes, tuple[Expr, ...]]:
    """Lanes that stand in blocks, of which an index has the quotient and the remainder, with an axis for the blocks and one
    for what is within them."""
    out: list[Axis] = []
    for axis in axes:
        sizes = {e.args[1].attr for e in load.walk() if e.op in ("quotient", "modulo") and e.args[0] is axis.value}
        if len(sizes) == 1 and axis.extent % (size := sizes.pop()) == 0:
            block, within = Axis(f"{axis.name}.block", axis.extent // size), Axis(axis.name, size)
            load = index.substitute(load, {axis.value: index.plus(index.times(block.value, size), within.value)})
            out += [block, within]
        else:
            out.append(axis)
    return tuple(out), (load,)


def _strides(load: Expr, lanes: Axes, steps: Axes) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """By how much the offset of a load grows along each axis of the lanes and of the steps; None if that varies."""
    found: list[tuple[int, ...]] = []
    for axes in (lanes, steps):
        strides = [index.stride(load.args[0], axis) for axis in axes]
        numbers = tuple(stride for stride in strides if isinstance(stride, int))
        if len(numbers) < len(strides):
            return None
        found.append(numbers)
    return found[0], found[1]


def _tiles(
    matrices: int, m: Axes, row_strides: Sequence[int], n: Axes, column_strides: Sequence[int], steps: Axes,
    left: Left, dtype: DType, target: Target,
) -> Iterator[tuple[float, Tile, Lines, Lines, tuple[int, ...]]]:
    """The tiles that there could be: about how many cycles the product takes with each, the lines of its rows and columns, and
    the distances of its rows."""
    width = lanes_of(target, dtype)
    spare = 1 if target.has_fma and dtype.is_floating_point else 2
    k = _number(extent(steps))
    total_m, total_n = _number(extent(m)), _number(extent(n))
    row = _number(m[-1].extent)
    for vectors in range(1, MOST_VECTORS + 1):
        columns = _column_lines(n, column_strides, vectors * width, width, total_n)
        if columns is None:
            continue
        most = (target.vector_registers - spare) // vectors - 1
        lines: dict[Lines, tuple[int, ...]] = {}
        for wanted in range(1, min(row, most) + 1):
            size = -(-row // -(-row // wanted))  # as even as can be
            lines[Lines(total_m, row, size)] = tuple(i * row_strides[-1] for i in range(size))
        # several whole rows of an image at once
        if len(m) > 1:
            count = _number(m[-2].extent)
            for wanted in range(2, min(count, most // row) + 1):
                together = -(-count // -(-count // wanted))
                lines[Lines(total_m, count * row, together * row)] = tuple(
                    i * row_strides[-2] + j * row_strides[-1] for i in range(together) for j in range(row)
                )
        for rows, offsets in lines.items():
            size = rows.size
            each = (k * _step_cycles(left.sizes(rows), vectors) + _RUN * extent(steps[:-1])) * left.share(rows)
            each += CALL + _FINISHING * size * vectors
            balance = _balance(matrices * columns.tiles * -(-rows.tiles // _FEW_ROWS), target.cores)
            yield rows.tiles * columns.tiles * each * balance, Tile(dtype, size, vectors, width), rows, columns, offsets


def _step_cycles(sizes: Sequence[int], vectors: int) -> float:
    """How many cycles a step takes, on average over tiles of some numbers of rows."""
    total = sum(max(size * vectors / PER_CYCLE, (size + vectors) / LOADS_PER_CYCLE, LATENCY) for size in sizes)
    return total / len(sizes) + 1 + vectors / 4


def _balance(parts: int, cores: int) -> float:
    """By how much longer it takes to do equal parts on some threads than if they could be cut: the mean for as many threads as
    there may be on so many cores."""
    counts = [threads for threads in _THREADS if threads <= max(cores, _THREADS[0])]
    return sum(-(-parts // threads) * threads / parts for threads in counts) / len(counts)


def _column_lines(n: Axes, strides: Sequence[int], size: int, width: int, total: int) -> Lines | None:
    """The lines of columns for tiles of a size; None where there can be none."""
    if _stand_in_blocks(n, strides, size, width):
        return Lines(total, total, size) if size <= total else None
    length = _number(n[-1].extent)
    return Lines(total, length, size) if size <= length else None


def _stand_in_blocks(n: Axes, strides: Sequence[int], size: int, width: int) -> bool:
    """Whether columns stand in blocks of which tiles of the size take whole ones, in whole vectors."""
    return len(n) == 2 and strides[1] == 1 and _number(n[1].extent) % width == 0 and size % _number(n[1].extent) == 0


def _vector_offsets(tile: Tile, n: Axes, strides: Sequence[int]) -> tuple[int, ...]:
    """Where each vector of a tile's columns stands after the first one."""
    starts = range(0, tile.columns, tile.width)
    if not _stand_in_blocks(n, strides, tile.columns, tile.width):
        return tuple(starts)
    block = _number(n[1].extent)
    return tuple(start // block * strides[0] + start % block for start in starts)


def _runs_block(lhs: Places, tile: Tile, runs: int, run: int, target: Target) -> int:
    """How many runs of steps to take at a time: as many as the columns of a tile, and all rows, stay in the level-2 cache for.
    Rows that overlap, as those of an image do, stay there or not however many steps are taken."""
    k, m = runs * run, lhs.lines.total
    cached = target.l2_bytes // (_SHARE * tile.dtype.itemsize)
    numbers = tile.columns + (m if m * k <= lhs.buffer.size else 0)
    most = max(_FEWEST_STEPS, cached // numbers)
    if k <= most and runs <= _MOST_RUNS:
        return runs
    count = max(1, min(runs, _MOST_RUNS, most // run))
    return -(-runs // -(-runs // count))
