"""How a matrix product is computed: the shape of its tile, its blocks, what is packed, and what runs in parallel.

Everything is decided here by the extents, the operands and the CPU, never by the number of threads; how many cores there are
decides at most what a task's share is. So the products of an element are always summed in the same order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from graphc import index
from graphc.backends.llvm.axes import Axes, collapse, extent
from graphc.backends.llvm.dotkernel import DotTile, choose_dot_tile
from graphc.backends.llvm.memory import LINE_BYTES
from graphc.backends.llvm.microkernel import Tile, choose_tile, computed_in
from graphc.backends.llvm.packing import Operand, panel_size
from graphc.backends.llvm.pairtile import STEPS, PairTile, choose_pair_tile
from graphc.backends.llvm.target import Target
from graphc.expression import Buffer, Expr
from graphc.kernel import Gemm, Store, expressions
from graphc.sizes import ceil_div, estimate, is_static
from graphc.types import DType, Size, bfloat16

# In cycles of a core:
SERIAL = 25_000  # what a product must take to be shared among threads
_TASK = 15_000  # what a task takes at least
_LONG_TASK = 500_000  # what a task may take though that makes them many
_PACKING = 0.6  # to pack a number
_FETCHING = 0.4  # to fetch one from beyond the level-2 cache
_TASKS = 64  # as many as that are wanted
_MOST_TASKS = 128
_RELOADING = 0.05  # to bring one of the right operand into the level-1 cache, for each part of the rows
_THREADS = 8  # among how many threads blocks are best
_FETCHES = 4  # how many cores fetch what fits their level-2 caches
_SHARED_BYTES = 32 << 20
"""The memory that operands packed beforehand may take; where it is too little, the steps are taken in rounds."""
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
_MOST_COPIED = 8
"""How many vectors of each row a micro-kernel may copy while it computes."""
_MOST_COPIED_STEPS = 2
"""How many steps for each row it may copy from beyond the level-2 cache, as each step is on a line of its own."""
_COPYING = 0.25  # cycles to copy a number meanwhile
_PACKING_ROWS = 1.0  # to pack one that no other core packs, from beyond the level-2 cache
_MOST_CORES = 16  # among how many cores products are shared out whose tasks pack all they read for themselves


class Access(Enum):
    """Where the micro-kernel reads an operand from."""

    DIRECT = "memory, as it stands"
    SHARED = "panels packed beforehand, for all tasks"
    PRIVATE = "panels packed by the task that reads them"
    KEPT = "panels packed when the program was prepared"
    STREAMED = "what the task that reads it copies for a tile of rows, while it computes with the tile before"


@dataclass(frozen=True)
class Epilogue:
    """What becomes of the sums: stores over the axes of batch, m and n, each group on as few axes as it can do with."""

    stores: tuple[Store, ...]
    batch: Axes
    m: Axes
    n: Axes

    @staticmethod
    def of(stores: tuple[Store, ...], batch: Axes, m: Axes, n: Axes) -> Epilogue:
        """The epilogue of a product."""
        roots = [e for s in stores for e in (s.offset, s.value, s.mask) if e is not None]
        m, parts = collapse(m, roots)
        n, parts = collapse(n, parts)
        rest = iter(parts)
        stores = tuple(Store(s.buffer, next(rest), next(rest), None if s.mask is None else next(rest)) for s in stores)
        return Epilogue(stores, batch, m, n)


@dataclass(frozen=True)
class Place:
    """Where sums are collected: that of row m and column n at element `offset` + m * `row` + n.

    buffer
        one that the epilogue stores to; None for scratch memory
    offset
        an index over the axes of the batch
    """

    buffer: Buffer | None
    offset: Expr
    row: Size


@dataclass(frozen=True)
class Plan:
    """A product's operands, blocks and tasks.

    `m_block` and `n_block` count tiles, `k_block` steps, `batch_block` matrices; a task computes a block of each of the
    first three, all steps of it. `place` is None where a tile's sums go through the epilogue at once; with `stays`
    the sums in their place are the result.
    """

    kernel: Gemm
    tile: Tile | DotTile | PairTile
    batch: Size
    m: Size
    n: Size
    k: Size
    lhs: Operand
    rhs: Operand
    epilogue: Epilogue
    lhs_access: Access
    rhs_access: Access
    batch_block: int
    m_block: Size
    n_block: Size
    k_block: Size
    is_parallel: bool
    place: Place | None
    stays: bool

    @property
    def dtype(self) -> DType:
        """What is multiplied and summed."""
        return self.tile.dtype

    @property
    def m_tiles(self) -> Size:
        return ceil_div(self.m, self.tile.rows)

    @property
    def n_tiles(self) -> Size:
        return ceil_div(self.n, self.tile.columns)

    @property
    def k_blocks(self) -> Size:
        if self.k == self.k_block:
            return 1
        blocks = ceil_div(self.k, self.k_block)
        return max(1, blocks) if isinstance(blocks, int) else blocks

    @property
    def grid(self) -> tuple[Size, Size, Size]:
        """The number of blocks of batch, m and n; their product is the number of tasks."""
        return tuple(  # type: ignore[return-value]
            1 if count == block else ceil_div(count, block)
            for count, block in ((self.batch, self.batch_block), (self.m_tiles, self.m_block), (self.n_tiles, self.n_block))
        )

    @property
    def tasks(self) -> Size:
        return math.prod(self.grid)

    @property
    def workers(self) -> Size:
        """How many tasks can run at once, or more than that."""
        if not self.is_parallel:
            return 1
        most = 2 * _MOST_CORES if self.streams else _MOST_TASKS  # they take much memory each
        return self.tasks if estimate(self.tasks) < most else most

    # Memory, in elements

    @property
    def lhs_panel(self) -> Size:
        return self._panel(self.tile.rows)

    @property
    def rhs_panel(self) -> Size:
        return self._panel(self.tile.columns)

    def _panel(self, lanes: int) -> Size:
        if isinstance(self.tile, PairTile):
            return self.tile.panel(lanes, self.k_block)
        return panel_size(lanes, self.k_block, self.tile.width)

    @property
    def streams(self) -> bool:
        """Whether tasks go through the rows, and for each tile of them through their columns."""
        return self.lhs_access is Access.STREAMED

    @property
    def copied_panel(self) -> int:
        """A block of steps of a tile's rows as they are copied. Where these stand side by side, there is room before the first
        step and after the last one, as the vectors of the last tile begin earlier."""
        assert isinstance(self.tile, Tile)
        if self.tile.row_stride > 1:
            return self.tile.rows * self.tile.row_stride
        return -(-(estimate(self.k_block) + 2) * self.tile.lanes // 16) * 16

    @property
    def lhs_panels(self) -> Size:
        """All panels of the left operand at a block of steps."""
        return extent(self.lhs.batch) * self.m_tiles * self.lhs_panel

    @property
    def rhs_panels(self) -> Size:
        """All panels of the right operand at a block of steps."""
        return extent(self.rhs.batch) * self.n_tiles * self.rhs_panel

    @property
    def lhs_block(self) -> Size:
        """A block of steps of the left operand, if it is packed beforehand."""
        return self.lhs_panels if self.lhs_access is Access.SHARED else 0

    @property
    def rhs_block(self) -> Size:
        """A block of steps of the right operand, if it is packed beforehand."""
        return self.rhs_panels if self.rhs_access is Access.SHARED else 0

    @cached_property
    def round(self) -> Size:
        """How many blocks of steps are packed beforehand at a time."""
        block = estimate((self.lhs_block + self.rhs_block) * self.dtype.itemsize)
        most = _SHARED_BYTES // block if block else 0
        return self.k_blocks if block == 0 or estimate(self.k_blocks) <= most else max(1, most)

    @property
    def lhs_private(self) -> Size:
        """What a task packs of the left operand for itself: a block of rows; or what it copies, for two tiles."""
        if self.streams:
            return 2 * self.copied_panel
        return self.m_block * self.lhs_panel if self.lhs_access is Access.PRIVATE else 0

    @property
    def private(self) -> Size:
        """All that a task packs for itself: of the right operand one panel at a time, or all of a block where the left one
        is streamed past them."""
        panels = (self.n_block if self.streams else 1) if self.rhs_access is Access.PRIVATE else 0
        return self.lhs_private + panels * self.rhs_panel

    @property
    def sums(self) -> Size:
        """What the sums take that are collected in scratch memory."""
        collected = self.place is not None and self.place.buffer is None
        return -(-self.batch * self.m * self.n // 16) * 16 if collected else 0


def plan_gemm(kernel: Gemm, target: Target) -> Plan:
    """Decide how to compute a product. Its batch, m and n must not be empty."""
    kernel = _folded(_oriented(kernel), target)
    dtype = computed_in(kernel.accumulator.dtype)
    batch, m, n, k = map(extent, (kernel.batch, kernel.m, kernel.n, kernel.k))
    tile: Tile | DotTile | PairTile
    pairs = choose_pair_tile(target, *map(_typical, (m, n, k))) if kernel.lhs.dtype is bfloat16 else None
    multiplied = dtype if pairs is None else bfloat16
    lhs = Operand.of(kernel.lhs, multiplied, kernel.batch, kernel.m, kernel.k)
    rhs = Operand.of(kernel.rhs, multiplied, kernel.batch, kernel.n, kernel.k)
    epilogue = Epilogue.of(kernel.epilogue, kernel.batch, kernel.m, kernel.n)
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
    streamed = None
    if is_parallel and isinstance(tile, Tile) and not (rhs_direct or any(kernel.panels)):
        streamed = _streamed(lhs, tile, (batch, m, n, k, k_block), cycles, target)
    if streamed is not None:
        tile, blocks = streamed
    batch_block, m_block, n_block = blocks
    # what one task takes of the example, one task takes of all sizes that are not much greater
    if m_block == -(-rows // tile.rows) and m <= _WIDER * rows:
        m_block = m_tiles
    if n_block == -(-columns // tile.columns) and n <= _WIDER * columns:
        n_block = n_tiles
    # packed by each task for itself, unless other tasks read it too
    lhs_private = n_block == n_tiles and extent(lhs.batch) == batch
    rhs_private = m_block == m_tiles and extent(rhs.batch) == batch
    place, stays = choose_place(kernel, epilogue, dtype)
    if not stays and (k == k_block or (is_static(k, k_block) and k <= k_block)):
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
    return Gemm(**{**fields, **changes})


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
        if min(m, n) <= _FEW_DOTS and dot.cycles(m, n, k) < tile.cycles(m, n, k) + packed * _PACKING:
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
    wanted = max(2, int(min(_MOST_TASKS, max(min(_TASKS, cycles / _TASK), cycles / _LONG_TASK))))
    cached = target.l2_bytes // (2 * size)  # numbers that stay in the level-2 cache, beside others
    most_rows = m if isinstance(tile, DotTile) else max(1, cached // (k_block * tile.rows))
    if batch >= wanted:
        return max(1, batch // wanted), min(m, most_rows), n
    each = -(-wanted // batch)
    best: tuple[float, int, int] | None = None
    least = -(-m // most_rows)
    for m_parts in range(least, max(least, min(m, _MOST_TASKS)) + 1):
        m_block = -(-m // m_parts)
        m_parts = -(-m // m_block)
        n_block = -(-n // min(n, -(-each // m_parts)))
        n_parts = -(-n // n_block)
        # each part of m reads the right operand, each part of n the left one; a part alone with it packs it for itself
        work = 0.0
        for (numbers, is_direct), readers in zip(operands, (n_parts, m_parts), strict=True):
            work += 0 if is_direct else numbers * _PACKING
            if readers > 1:
                work += numbers * _FETCHING * (min(readers, _FETCHES) if numbers <= cached else readers)
        work += operands[1][0] * m_parts * _RELOADING
        # threads share the work, and wait for the last task: half of it on average
        cost = batch * work / _THREADS + cycles / (batch * min(each, m_parts * n_parts)) / 2
        if best is None or cost < best[0]:
            best = cost, m_block, n_block
    assert best is not None
    return 1, best[1], best[2]


def _streamed(
    lhs: Operand, tile: Tile, sizes: tuple[Size, ...], cycles: float, target: Target,
) -> tuple[Tile, tuple[int, int, int]] | None:
    """The tile and the blocks of a product whose tasks keep panels of the right operand in the level-2 cache, and stream rows
    of the left one past them: they share nothing, and wait for nobody. None where that is not possible.

    Rows are copied, not packed, which takes hardly any time beside the multiplications. Where they stand, they might compete
    for the same lines of the level-1 cache. `sizes` are those of batch, m, n, k and a block of k.
    """
    strides = lhs.strides
    if strides is None or 1 not in strides or not (lhs.lanes and lhs.steps and is_static(*strides, *sizes)):
        return None
    batch, m, n, k, k_block = map(estimate, sizes)
    in_rows = strides[1] == 1
    if m < (tile.rows if in_rows else tile.lanes):
        return None
    m_tiles, n_tiles, cores = -(-m // tile.rows), -(-n // tile.columns), min(target.cores, _MOST_CORES)
    size, unit = tile.dtype.itemsize, tile.width if in_rows else tile.rows  # steps for each of what is copied at once
    last_steps = k - (-(-k // k_block) - 1) * k_block
    most = max(1, target.l2_bytes * 5 // 8 // (k_block * tile.columns * size))
    is_near = in_rows or m * k_block * size <= target.l2_bytes // 2
    most_copied = _MOST_COPIED if is_near else _MOST_COPIED_STEPS
    best: tuple[float, int, tuple[int, int, int]] | None = None
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
            work = cycles + batch * k * (n_parts * m * _COPYING + m_parts * n * _PACKING_ROWS)
            cost = work * -(-tasks // cores) * (m_block * n_block) / (batch * m_tiles * n_tiles)
            if best is None or cost < best[0]:
                best = cost, copied, (1, m_block, n_block)
    if best is None:
        return None
    # an odd number of lines from row to row, so that those do not compete either
    lines = -(-k_block * size // LINE_BYTES) | 1
    return replace(tile, row_stride=lines * LINE_BYTES // size if in_rows else 1, copied=best[1]), best[2]


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
        if any(overwritten) or len(epilogue.m) > 1 or len(epilogue.n) > 1:
            continue
        row, column = (index.stride(store.offset, axes[0]) if axes else 0 for axes in (epilogue.m, epilogue.n))
        if row is None or (row == 0 and epilogue.m) or (column != 1 and epilogue.n):
            continue
        values = {axis.value: index.ZERO for axis in (*epilogue.m, *epilogue.n)}
        place = Place(buffer, index.substitute(store.offset, values), row)
        return place, len(epilogue.stores) == 1 and store.value == kernel.accumulator.value
    return None, False
