"""What is decided of a matrix product: the shape of its tile, its blocks, what is packed, and what runs in parallel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from graphc import index
from graphc.backends.llvm.axes import Axes, collapse, extent
from graphc.backends.llvm.dotkernel import DotTile
from graphc.backends.llvm.microkernel import Tile
from graphc.backends.llvm.packing import Operand, panel_size
from graphc.backends.llvm.pairtile import PairTile
from graphc.expression import Buffer, Expr
from graphc.kernel import Gemm, Store
from graphc.sizes import ceil_div, estimate
from graphc.types import DType, Size

_SHARED_BYTES = 32 << 20
"""The memory that operands packed beforehand may take; where it is too little, the steps are taken in rounds."""
MOST_TASKS = 128
MOST_CORES = 16
"""Among how many cores products are shared out whose tasks pack all they read for themselves."""

_TURNED_VECTORS = 4
"""How many vectors of each column of sums are stored at a time at least, where tiles are turned together."""

# In cycles of a core:
PACKING = 0.6  # to pack a number
FETCHING = 0.4  # to fetch one from beyond the level-2 cache
COPYING = 0.25  # to copy one while multiplying
PACKING_ROWS = 1.0  # to pack one that no other core packs, from beyond the level-2 cache
TURNING = 1.2  # to turn one of the sums, and store it


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
    the sums in their place are the result. Where tiles are turned, m and n are those of the product the other way round, and
    the epilogue's are not.
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
        most = 2 * MOST_CORES if self.streams else MOST_TASKS  # they take much memory each
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
    def turned(self) -> bool:
        """Whether the columns of a tile are stored as rows."""
        return isinstance(self.tile, Tile) and self.tile.turned

    @cached_property
    def target(self) -> Place | None:
        """Where the epilogue's first store goes, if neighbours along n are neighbours there."""
        return place_of(self.epilogue.stores[0], self.epilogue)

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
        """All that a task has for itself: what it packs of the right operand, which is one panel at a time, or all of a block
        where the left one is streamed past them; and the sums of tiles that are turned together."""
        panels = (self.n_block if self.streams else 1) if self.rhs_access is Access.PRIVATE else 0
        return self.lhs_private + panels * self.rhs_panel + self.collected_rows * self.collected_step

    @property
    def group(self) -> int:
        """How many tiles below one another are turned together where rows are streamed: some whole vectors of rows."""
        assert isinstance(self.tile, Tile)
        unit = self.tile.width // math.gcd(self.tile.width, self.tile.rows)
        return unit * -(-_TURNED_VECTORS * self.tile.width // (unit * self.tile.rows))

    @property
    def collected_rows(self) -> int:
        """How many rows of sums a task collects before they are turned, in squares that may reach beyond the last one."""
        if not (self.turned and self.streams and isinstance(self.tile, Tile)):
            return 0
        return (self.group if self.k_blocks == 1 else estimate(self.m_block)) * self.tile.rows + self.tile.lanes

    @property
    def collected_step(self) -> int:
        """From one row of these sums to the next."""
        return estimate(self.n_block) * self.tile.columns

    @property
    def sums(self) -> Size:
        """What the sums take that are collected in scratch memory. Of those that are turned, squares may reach beyond the last
        row and column."""
        if self.place is None or self.place.buffer is not None:
            return 0
        surplus = self.tile.lanes * self.n + self.tile.columns if isinstance(self.tile, Tile) and self.turned else 0
        return ceil_div(self.batch * self.m * self.n + surplus, 16) * 16

    @property
    def cycles(self) -> float:
        """About how many cycles of a core it takes, if sizes are known; the same for any number of cores."""
        batch, m, n, k = map(estimate, (self.batch, self.m, self.n, self.k))
        total = batch * self.tile.cycles(m, n, k) + (batch * m * n * TURNING if self.turned else 0)
        each = {
            Access.DIRECT: FETCHING, Access.KEPT: FETCHING, Access.SHARED: PACKING + FETCHING, Access.STREAMED: COPYING,
            Access.PRIVATE: PACKING_ROWS * (2 if self.turned and self.streams else 1),  # by two tasks at least
        }  # fmt: skip
        sides = ((self.lhs, self.lhs_access, m), (self.rhs, self.rhs_access, n))
        return total + sum(estimate(extent(operand.batch)) * lanes * k * each[access] for operand, access, lanes in sides)


def place_of(store: Store, epilogue: Epilogue) -> Place | None:
    """Where a store goes, if neighbours along n are neighbours there, and rows some way apart."""
    if len(epilogue.m) > 1 or len(epilogue.n) > 1:
        return None
    row, column = (index.stride(store.offset, axes[0]) if axes else 0 for axes in (epilogue.m, epilogue.n))
    if row is None or (row == 0 and epilogue.m) or (column != 1 and epilogue.n):
        return None
    values = {axis.value: index.ZERO for axis in (*epilogue.m, *epilogue.n)}
    return Place(store.buffer, index.substitute(store.offset, values), row)
