"""How a matrix product is computed: the shape of its tile, its blocks, what is packed, and what runs in parallel.

Everything is decided here by the extents, the operands and the CPU, never by the number of threads; how many cores there are
decides at most what a task's share is. So the products of an element are always summed in the same order.
"""

from __future__ import annotations

import math
from dataclasses import replace

from graphc import index
from graphc.backends.llvm.axes import Axes, extent
from graphc.backends.llvm.dotkernel import DotTile, choose_dot_tile
from graphc.backends.llvm.memory import LINE_BYTES
from graphc.backends.llvm.microkernel import Tile, choose_tile, computed_in
from graphc.backends.llvm.packing import Operand
from graphc.backends.llvm.pairtile import STEPS, PairTile, choose_pair_tile
from graphc.backends.llvm.planned_gemm import (
    COPYING,
    FETCHING,
    MOST_CORES,
    MOST_TASKS,
    PACKING,
    PACKING_ROWS,
    Access,
    Epilogue,
    Place,
    Plan,
    place_of,
)
from graphc.backends.llvm.target import Target
from graphc.expression import Buffer
from graphc.kernel import Gemm, expressions
from graphc.sizes import ceil_div, estimate, is_static
from graphc.types import DType, Size, bfloat16

# In cycles of a core:
SERIAL = 25_000  # what a product must take to be shared among threads
_TASK = 15_000  # what a task takes at least
_LONG_TASK = 500_000  # what a task may take though that makes them many
_TASKS = 64  # as many as that are wanted
_SHARED_LINE = 400  # for a line of memory that two cores write to
_RELOADING = 0.05  # to bring one of the right operand into the level-1 cache, for each part of the rows
_THREADS = 8  # among how many threads blocks are best
_FETCHES = 4  # how many cores fetch what fits their level-2 caches
_DIRECT_READS = 3
"""How many tiles may read a panel of the right operand where it stands, a row of it at each step; for more tiles, packing
it first is faster."""
_DIRECT_COLUMN_READS = 1
"""The same for a left operand whose rows stand side by side, and of which each step reads a stretch elsewhere."""
_DIRECT_ROW_READS = 24
"""The same for a left operand whose steps stand side by side: each of its rows is read on and on."""
_MOST_STEPS = 768
"""How many steps a block has at most: with more, its panels leave the caches before they are read again."""
_MOST_PAIRED = 1024
"""The same for steps of bfloat16 in pairs, of which a core reads the panels from its level-2 cache as fast as it needs them."""
_ALIASING = 4096
"""Bytes: addresses so far apart compete for the same few lines of the level-1 cache."""
_MOST_ALIASED = 4
"""How many steps of many vectors at such addresses are fetched before they are needed: with more, they drive out one
another."""
_FEW_DOTS = 32
"""How many rows or columns a product may have that is computed as dot products."""
_MANY = 64
"""More rows or columns than most tiles have. Of a symbolic size the plan asks whether it is more than that."""
_TYPICAL_MANY, _TYPICAL_FEW = 512, 8
"""What a symbolic size is taken for, if it is more and if it is not: so tiles are the same for many sizes."""
_WIDER = 4
"""How many times as many rows or columns as it was planned for a task may be given."""
_WASTE = 1.08
"""By how much fewer tiles are worth folding the batch into the rows or columns."""
_MOST_COPIED = 12
"""How many vectors of each row a micro-kernel may copy while it computes."""
_MOST_COPIED_STEPS = 2
"""How many steps for each row it may copy from beyond the level-2 cache, as each step is on a line of its own."""


def plan_gemm(kernel: Gemm, target: Target) -> Plan:
    """Decide how to compute a product. Its batch, m and n must not be empty."""
    kernel = _folded(_oriented(kernel), target)
    plan = _plan(kernel, target)
    turned = _turned(kernel, plan, target)
    return plan if turned is None or plan.cycles <= turned.cycles else turned


def plan_with_panels(kernel: Gemm, target: Target) -> Plan:
    """How a product is computed if operands of it may be packed beforehand: in panels that another plan has, too, which is for
    the same product with some of them as its `panels`."""
    return _plan(_folded(_oriented(kernel), target), target, may_stream=False)


def _turned(kernel: Gemm, plan: Plan, target: Target) -> Plan | None:
    """A plan for the product the other way round, with tiles that are turned before they are stored. So a right operand whose
    steps stand side by side, such as the weights of a linear layer, is read where it stands, or copied, instead of packed."""
    strides = plan.rhs.strides
    if isinstance(plan.tile, PairTile) or any(kernel.panels) or plan.k == 0 or strides is None or strides[1] != 1:
        return None
    if not (plan.rhs.lanes and plan.rhs.steps and is_static(*strides, plan.batch, plan.m, plan.n, plan.k)):
        return None
    kernel = _with(kernel, m=kernel.n, n=kernel.m, lhs=kernel.rhs, rhs=kernel.lhs)
    turned = _plan(kernel, target, turns=True)
    return turned if turned.turned and turned.lhs_access in (Access.DIRECT, Access.STREAMED) else None


def _plan(kernel: Gemm, target: Target, *, may_stream: bool = True, turns: bool = False) -> Plan:
    dtype = computed_in(kernel.accumulator.dtype)
    batch, m, n, k = map(extent, (kernel.batch, kernel.m, kernel.n, kernel.k))
    tile: Tile | DotTile | PairTile
    pairs = choose_pair_tile(target, *map(_typical, (m, n, k))) if kernel.lhs.dtype is bfloat16 else None
    multiplied = dtype if pairs is None else bfloat16
    lhs = Operand.of(kernel.lhs, multiplied, kernel.batch, kernel.m, kernel.k)
    rhs = Operand.of(kernel.rhs, multiplied, kernel.batch, kernel.n, kernel.k)
    stored = (kernel.n, kernel.m) if turns else (kernel.m, kernel.n)
    epilogue = Epilogue.of(kernel.epilogue, kernel.batch, *stored)
    tile, lhs_direct, rhs_direct = (pairs, False, False) if pairs else _tile(lhs, rhs, dtype, m, n, k, target)
    m_tiles, n_tiles = ceil_div(m, tile.rows), ceil_div(n, tile.columns)
    k_block = max(1, estimate(k)) if isinstance(tile, DotTile) else _k_block(tile, k, lhs, rhs, target)
    # blocks that are best for the example, or for more, are not bad for others
    rows, columns = (size if isinstance(size, int) else max(_TYPICAL_MANY, estimate(size)) for size in (m, n))
    steps, matrices = estimate(k), estimate(batch)
    cycles = matrices * tile.cycles(rows, columns, steps)
    is_parallel = cycles >= SERIAL or not is_static(batch, m, n, k)
    blocks = (matrices, -(-rows // tile.rows), -(-columns // tile.columns))
    if is_parallel:
        lhs_there, rhs_there = lhs_direct or kernel.panels[0] is not None, rhs_direct or kernel.panels[1] is not None
        loads = ((rows * steps, lhs_there), (columns * steps, rhs_there))
        blocks = choose_blocks(blocks, cycles, loads, tile, max(1, estimate(k_block)), target)
    if turns and isinstance(tile, Tile):
        tile = replace(tile, turned=True)
    streamed = None
    if may_stream and is_parallel and isinstance(tile, Tile) and not (rhs_direct or any(kernel.panels)):
        shared_lines = _shares_lines(kernel, stored[0][-1:])
        streamed = _streamed(lhs, tile, (batch, m, n, k, k_block), cycles, shared_lines, target)
    if streamed is not None:
        tile, blocks, k_block = streamed
    batch_block, m_block, n_block = blocks
    # what one task takes of the example, one task takes of all sizes that are not much greater
    if m_block == -(-rows // tile.rows) and m <= _WIDER * rows:
        m_block = m_tiles
    if n_block == -(-columns // tile.columns) and n <= _WIDER * columns:
        n_block = n_tiles
    if isinstance(tile, PairTile) and kernel.panels[1] is not None:
        tile = tile.ahead(max(1, estimate(m_block)))
    # packed by each task for itself, unless other tasks read it too
    lhs_private = n_block == n_tiles and extent(lhs.batch) == batch
    rhs_private = m_block == m_tiles and extent(rhs.batch) == batch
    place, stays = (None, False) if turns else choose_place(kernel, epilogue, dtype)
    collects = turns and streamed is not None
    if collects or (not stays and (k == k_block or (is_static(k, k_block) and k <= k_block))):
        place = None
    elif place is None:
        place = Place(None, index.ZERO, n)
    return Plan(
        kernel, tile, batch, m, n, k, lhs, rhs, epilogue,
        _access(lhs_direct, kernel.panels[0], lhs_private) if streamed is None else Access.STREAMED,
        _access(rhs_direct, kernel.panels[1], rhs_private or streamed is not None),
        batch_block, m_block, n_block, k_block, is_parallel, place, stays,
    )


def _access(direct: bool, panels: Buffer | None, private: bool) -> Access:
    if panels is not None:
        return Access.KEPT
    return Access.DIRECT if direct else Access.PRIVATE if private else Access.SHARED


def _oriented(kernel: Gemm) -> Gemm:
    """The product, transposed if its results are then stored side by side."""
    offset = kernel.epilogue[0].offset
    rows, columns = ([axis for axis in axes if axis.extent not in (0, 1)] for axes in (kernel.m, kernel.n))
    if not rows or (columns and index.stride(offset, columns[-1]) == 1) or index.stride(offset, rows[-1]) != 1:
        return kernel
    return _with(kernel, m=kernel.n, n=kernel.m, lhs=kernel.rhs, rhs=kernel.lhs, panels=kernel.panels[::-1])


def _folded(kernel: Gemm, target: Target) -> Gemm:
    """The product with axes of the batch as rows or columns, where one operand is the same for all of them and that
    fills the tiles better."""
    extents = (_typical(extent(axes)) for axes in (kernel.m, kernel.n, kernel.k))
    tile = choose_tile(target, computed_in(kernel.accumulator.dtype), *extents)
    for side, other, size in (("m", "rhs", tile.rows), ("n", "lhs", tile.columns)):
        used = {e.attr for e in getattr(kernel, other).walk() if e.op == "axis"}
        free = tuple(axis for axis in kernel.batch if axis not in used)
        axes: Axes = getattr(kernel, side)
        apart = _typical(extent(free)) * -(-_typical(extent(axes)) // size)
        if free and apart > _WASTE * -(-_typical(extent(free)) * _typical(extent(axes)) // size):
            rest = tuple(axis for axis in kernel.batch if axis not in free)
            kernel = _with(kernel, batch=rest, **{side: (*free, *axes)})
    return kernel


def _typical(size: Size) -> int:
    """A number to decide by in the place of a size: the same for many of them."""
    if isinstance(size, int):
        return size
    return _TYPICAL_MANY if size > _MANY else _TYPICAL_FEW


def _with(kernel: Gemm, **changes: object) -> Gemm:
    fields = {name: getattr(kernel, name) for name in Gemm.__dataclass_fields__}
    # margins are those of the left operand as it was, and what is packed has no use for them
    return Gemm(**{**fields, "margins": (), **changes})


def _tile(
    lhs: Operand, rhs: Operand, dtype: DType, rows: Size, columns: Size, steps: Size, target: Target
) -> tuple[Tile | DotTile, bool, bool]:
    """The shape of the micro-kernel, and whether it reads the left and the right operand directly."""
    m, n, k = map(_typical, (rows, columns, steps))
    tile = choose_tile(target, dtype, m, n, k)
    m_tiles, n_tiles = -(-m // tile.rows), -(-n // tile.columns)
    lhs_direct = rhs_direct = False
    # what is read directly has no fewer rows or columns than a tile, and a micro-kernel is made for one distance of rows
    if lhs.strides is not None and is_static(lhs.strides[0]) and (is_static(rows) or m > _MANY):
        few = _DIRECT_ROW_READS if lhs.strides[1] == 1 or not lhs.steps else _DIRECT_COLUMN_READS
        lhs_direct = n_tiles <= few
    is_wide = n >= tile.columns if is_static(columns) else n > _MANY >= tile.columns
    if rhs.strides is not None and rhs.strides[0] == 1 and is_wide:
        few = 1 if rhs.strides[1] * dtype.itemsize % _ALIASING == 0 else _DIRECT_READS
        rhs_direct = m_tiles <= few
        if rhs_direct and tile.vectors > 2 and is_static(rhs.strides[1]):
            apart = math.gcd(estimate(rhs.strides[1]) * dtype.itemsize, _ALIASING)
            tile = replace(tile, ahead=min(tile.ahead, _MOST_ALIASED * (_ALIASING // apart)))
    is_known = is_static(rows, columns, steps, *(lhs.strides or ()), *(rhs.strides or ()))
    if is_known and lhs.strides is not None and rhs.strides is not None and lhs.strides[1] == rhs.strides[1] == 1:
        dot = choose_dot_tile(target, dtype, m, n, k, (lhs.strides[0], rhs.strides[0]))
        packed = (0 if lhs_direct else m * k) + (0 if rhs_direct else n * k)
        if min(m, n) <= _FEW_DOTS and dot.cycles(m, n, k) < tile.cycles(m, n, k) + packed * PACKING:
            return dot, True, True
    if lhs_direct and lhs.strides is not None and lhs.lanes:
        tile = tile.with_row_stride(lhs.strides[0])
    return tile, lhs_direct, rhs_direct


def _k_block(tile: Tile | PairTile, k: Size, lhs: Operand, rhs: Operand, target: Target) -> Size:
    """How many steps to take at a time: as many as panels of the right operand stay in the level-1 cache for, or not
    much beyond it, shared out evenly."""
    if isinstance(tile, PairTile):
        return _steps_in_pairs(k, lhs, rhs)
    most = max(64, min(_MOST_STEPS, target.l1_bytes * 2 // (tile.columns * tile.dtype.itemsize)))
    if k <= most:
        return max(1, k) if isinstance(k, int) else k
    # whole numbers of the inner axes' steps are packed faster
    steps = [size for size in (extent(operand.steps[1:]) for operand in (lhs, rhs)) if isinstance(size, int)]
    inner = math.lcm(*steps) if len(steps) == 2 else most + 1
    unit = inner if inner <= most else 16
    blocks = ceil_div(k, most)
    return ceil_div(k, blocks * unit) * unit


def _steps_in_pairs(k: Size, lhs: Operand, rhs: Operand) -> int:
    """The same for blocks of pairs: always a number, as packing keeps the steps of a block on the stack."""
    if not isinstance(k, int):
        return _MOST_PAIRED
    if k <= _MOST_PAIRED:
        return max(1, k)
    inner = [size for size in (extent(operand.steps[1:]) for operand in (lhs, rhs)) if isinstance(size, int)]
    unit = math.lcm(STEPS, *inner)
    unit = unit if unit <= _MOST_PAIRED else STEPS
    return -(-k // (-(-k // _MOST_PAIRED) * unit)) * unit


def choose_blocks(
    tiles: tuple[int, int, int], cycles: float, operands: tuple[tuple[int, bool], ...], tile: Tile | DotTile | PairTile,
    k_block: int,
    target: Target,
) -> tuple[int, int, int]:
    """Blocks of batch, m and n for tasks that are many enough for many threads, and worth handing out.

    `operands` are how many numbers a matrix of each has, and whether it is read directly.
    """
    batch, m, n = tiles
    size = tile.dtype.itemsize
    wanted = max(2, int(min(MOST_TASKS, max(min(_TASKS, cycles / _TASK), cycles / _LONG_TASK))))
    cached = target.l2_bytes // (2 * size)  # numbers that stay in the level-2 cache, beside others
    most_rows = m if isinstance(tile, DotTile) else max(1, cached // (k_block * tile.rows))
    if batch >= wanted:
        return max(1, batch // wanted), min(m, most_rows), n
    each = -(-wanted // batch)
    best: tuple[float, int, int] | None = None
    least = -(-m // most_rows)
    for m_parts in range(least, max(least, min(m, MOST_TASKS)) + 1):
        m_block = -(-m // m_parts)
        m_parts = -(-m // m_block)
        for n_wanted in (-(-each // m_parts), max(1, each // m_parts)):
            n_block = -(-n // min(n, n_wanted))
            n_parts = -(-n // n_block)
            # each part of m reads the right operand, each part of n the left one; a part alone with it packs it for itself
            work = 0.0
            for (numbers, is_direct), readers in zip(operands, (n_parts, m_parts), strict=True):
                work += 0 if is_direct else numbers * PACKING
                if readers > 1:
                    work += numbers * FETCHING * (min(readers, _FETCHES) if numbers <= cached else readers)
            work += operands[1][0] * m_parts * _RELOADING
            # threads share the work, and wait for the last task: half of it on average
            cost = batch * work / _THREADS + cycles / (batch * min(each, m_parts * n_parts)) / 2
            if best is None or cost < best[0]:
                best = cost, m_block, n_block
    assert best is not None
    return 1, best[1], best[2]


def _streamed(
    lhs: Operand, tile: Tile, sizes: tuple[Size, ...], cycles: float, shared_lines: bool, target: Target,
) -> tuple[Tile, tuple[int, int, int], int] | None:
    """The tile, the blocks and the steps at a time of a product whose tasks keep panels of the right operand in the level-2
    cache, and stream rows of the left one past them: they share nothing but rows that are left over (see `gemm_stream`). None
    where that is not possible.

    Rows are copied, not packed, which takes hardly any time beside the multiplications. Where they stand, they might compete
    for the same lines of the level-1 cache. `sizes` are those of batch, m, n, k and a block of k; with `shared_lines`, tasks
    side by side write to the same lines.
    """
    strides = lhs.strides
    if strides is None or 1 not in strides or not (lhs.lanes and lhs.steps and is_static(*strides, *sizes)):
        return None
    batch, m, n, k, most_steps = map(estimate, sizes)
    in_rows = strides[1] == 1
    if m < (tile.rows if in_rows else tile.lanes):
        return None
    m_tiles, n_tiles, cores = -(-m // tile.rows), -(-n // tile.columns), min(target.cores, MOST_CORES)
    size, unit = tile.dtype.itemsize, tile.width if in_rows else tile.rows  # steps for each of what is copied at once
    best: tuple[float, int, tuple[int, int, int]] | None = None
    # where there are few columns of tiles to copy rows beside, half the steps at a time may do
    for k_block in (most_steps, -(-most_steps // 32) * 16) if tile.turned else (most_steps,):
        last_steps = k - (-(-k // k_block) - 1) * k_block
        most = max(1, target.l2_bytes * 5 // 8 // (k_block * tile.columns * size))
        is_near = in_rows or m * k_block * size <= target.l2_bytes // 2
        most_copied = _MOST_COPIED if is_near else _MOST_COPIED_STEPS
        for n_parts in range(-(-n_tiles // most), n_tiles + 1):
            n_block = -(-n_tiles // n_parts)
            n_parts = -(-n_tiles // n_block)
            # a tile's rows are copied in as many parts as there are columns of tiles, in the last task, too
            copied = -(-k_block // (unit * (n_tiles - (n_parts - 1) * n_block)))
            if copied > most_copied or copied * unit > last_steps:
                continue
            for m_parts in range(1, min(m_tiles, 2 * cores) + 1):
                m_block = -(-m_tiles // m_parts)
                tasks = batch * n_parts * -(-m_tiles // m_block)
                work = cycles + batch * k * (n_parts * m * COPYING + m_parts * n * PACKING_ROWS)
                if shared_lines and cores > 1:
                    work += batch * (n * (m_parts - 1) if tile.turned else m * (n_parts - 1)) * _SHARED_LINE
                cost = work * -(-tasks // cores) * (m_block * n_block) / (batch * m_tiles * n_tiles)
                if best is None or cost < best[0]:
                    best = cost, copied, (1, m_block, n_block)
        if best is not None:
            # an odd number of lines from row to row, so that those do not compete either
            lines = -(-k_block * size // LINE_BYTES) | 1
            row_stride = lines * LINE_BYTES // size if in_rows else 1
            return replace(tile, row_stride=row_stride, copied=best[1]), best[2], k_block
    return None


def _shares_lines(kernel: Gemm, rows: Axes) -> bool:
    """Whether rows of a result begin within lines, so that parts of them side by side have lines in common."""
    steps = ((index.stride(store.offset, axis), store.buffer.dtype.itemsize) for store in kernel.epilogue for axis in rows)
    return any(not isinstance(step, int) or step * itemsize % LINE_BYTES for step, itemsize in steps)


def choose_place(kernel: Gemm, epilogue: Epilogue, dtype: DType) -> tuple[Place | None, bool]:
    """Memory that the epilogue writes and nothing reads meanwhile, to collect the sums in; and whether they stay there."""
    loads = [e for root in expressions(kernel) for e in root.walk() if e.op == "load"]
    written = [s.buffer for s in epilogue.stores]
    for old, store in zip(kernel.epilogue, epilogue.stores):
        buffer = store.buffer
        if store.mask is not None or buffer.dtype is not dtype or written.count(buffer) > 1:
            continue
        # an output may stand where an input does that is read at the same offset
        overwritten = (e for e in loads if e.attr is buffer or (e.attr.role == "input" and e.args[0] == old.offset))
        place = None if any(overwritten) else place_of(store, epilogue)
        if place is not None:
            return place, len(epilogue.stores) == 1 and store.value == kernel.accumulator.value
    return None, False
