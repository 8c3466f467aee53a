"""One task of a matrix product: a block of its tiles, one after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc import index
from graphc.backends.llvm.axes import extent, locate
from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.context import ALIGNMENT
from graphc.backends.llvm.dotkernel import DotTile
from graphc.backends.llvm.expression import Evaluator
from graphc.backends.llvm.gemm_parts import Parts, Side
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.memory import LINE_BYTES, address
from graphc.backends.llvm.microkernel import Tile, emit_merge
from graphc.backends.llvm.pairtile import STEPS, PairTile
from graphc.backends.llvm.planned_gemm import Access
from graphc.backends.llvm.sizes import size_operand
from graphc.backends.llvm.transpose import emit_transpose
from graphc.expression import Axis, Expr
from graphc.types import Size

Axes = Mapping[Axis, str]



class Task:
    """Writes the body of name.task. What it has packed for itself is at `panels`."""

    def __init__(self, product: Parts, f: Function, panels: str = "%own") -> None:
        self.product = product
        self.panels = panels
        self.plan = product.plan
        self.f = f
        self.integers = Integers(f)
        plan = self.plan
        sides = (product.lhs, product.rhs)
        buffers = {b for side in sides if side.access is Access.DIRECT or plan.streams for b in side.operand.buffers}
        buffers |= {side.kept for side in sides if side.kept is not None}
        places = (plan.place, plan.target if plan.turned else None)
        buffers |= {place.buffer for place in places if place is not None and place.buffer is not None}
        self.pointers = product.context.pointers(f, buffers)
        self.scratch = product.context.scratch(f)
        tile = plan.tile
        # some tiles' sums need a memory of their own before they are taken to their place
        self.has_parts = plan.m % tile.rows != 0 or plan.n % tile.columns != 0 or isinstance(tile, DotTile)
        self.collects = plan.turned and plan.streams
        if not self.collects and (self.has_parts or plan.place is None):
            # squares that are turned may begin anywhere among them
            rows = tile.rows + tile.lanes if isinstance(tile, Tile) and tile.turned else tile.rows
            size = -(-rows * tile.columns // tile.width) * tile.width
            self.tile_sums = f.slot(f"[{size} x {product.scalar}]", ALIGNMENT)
        if isinstance(tile, Tile) and tile.turned and not self.collects:
            self.turned_sums = f.slot(f"[{tile.columns * tile.lanes} x {product.scalar}]", ALIGNMENT)

    def write(self) -> None:
        """Go through the matrices."""
        plan, f, integers, product = self.plan, self.f, self.integers, self.product
        batch_parts, m_parts, n_parts = plan.grid
        rest, m_part = integers.divide("%task", m_parts), integers.remainder("%task", m_parts)
        batch_part, n_part = integers.divide(rest, n_parts), integers.remainder(rest, n_parts)
        matrices = self.part(batch_part, batch_parts, plan.batch_block, plan.batch)
        rows = self.part(m_part, m_parts, plan.m_block, plan.m_tiles)
        columns = self.part(n_part, n_parts, plan.n_block, plan.n_tiles)
        with integers.loop(*matrices, "matrix") as matrix:
            axes = dict(zip(plan.kernel.batch, locate(f, plan.kernel.batch, matrix), strict=True))
            lhs = Reader(self, product.lhs, axes, rows[0])
            rhs = Reader(self, product.rhs, axes, columns[0] if plan.streams else "0")
            place = self.place(matrix, axes)
            self.target = self.address_of_target(axes)
            self.go(matrix, lhs, rhs, rows, columns, place)

    def go(
        self, matrix: str, lhs: Reader, rhs: Reader, rows: tuple[str, str], columns: tuple[str, str], place: str
    ) -> None:
        """Go through the blocks of steps, the columns and the rows of tiles."""
        f, integers, product = self.f, self.integers, self.product
        first, last = product.blocks(f, self.scratch)
        with integers.loop(first, last, "block") as block:
            since = integers.subtract(block, first)
            if lhs.packs:
                with integers.loop(*rows, "row") as i:
                    product.call_packing(f, product.lhs, lhs.batch, i, block, lhs.panel(i))
            with integers.loop(*columns, "column") as j:
                if rhs.packs:
                    product.call_packing(f, product.rhs, rhs.batch, j, block, rhs.panel("0"))
                b = rhs.read("0" if rhs.packs else j, j, block, since)
                with integers.loop(*rows, "row") as i:
                    a = lhs.read(i, i, block, since)
                    self.tile(matrix, block, i, j, a, self.fetching(b, block, integers.subtract(i, rows[0])), place)

    def fetching(self, b: Lanes, block: str, passed: str) -> Lanes:
        """The same, where a kernel fetches: a part of the next panel, after those that kernels for rows above have fetched."""
        tile, integers = self.plan.tile, self.integers
        if not isinstance(tile, PairTile) or not tile.fetched:
            return b
        blocks = integers.divide(integers.add(self.product.steps(self.f, block)[1], STEPS - 1), STEPS)
        part = integers.multiply(blocks, tile.fetched * LINE_BYTES // tile.dtype.itemsize)
        return replace(b, step=integers.add(integers.multiply(passed, part), self.product.rhs.panel))

    def part(self, number: str, parts: Size, block: Size, count: Size) -> tuple[str, str]:
        """Where a part of `count` begins and ends."""
        if parts == 1:
            return "0", size_operand(self.f, count)
        begin = self.integers.multiply(number, block)
        return begin, self.integers.least(self.integers.add(begin, block), count)

    def place(self, matrix: str, axes: Axes) -> str:
        """The address at which a matrix of sums is collected."""
        plan, place = self.plan, self.plan.place
        if place is None:
            return ""
        if place.buffer is not None:
            return self.product.element(self.f, self.pointers(place.buffer), self.index(place.offset, axes))
        sums = self.product.at(self.f, self.scratch, self.product.sums)
        return self.product.element(self.f, sums, self.integers.multiply(matrix, plan.m * plan.n))

    def address_of_target(self, axes: Axes) -> str | None:
        """The address of a matrix that turned tiles are stored to, if they are, and it is known."""
        target = self.plan.target
        if not self.plan.turned or target is None or target.buffer is None:
            return None
        return address(self.f, target.buffer.dtype, self.pointers(target.buffer), self.index(target.offset, axes))

    def index(self, offset: Expr, axes: Axes) -> str:
        """The value of an index over the batch."""
        evaluator = Evaluator(self.f, 1, self.pointers)
        for axis, value in axes.items():
            evaluator.bind(axis, value)
        return evaluator.scalar(offset)

    def tile(
        self, matrix: str, block: str, i: str, j: str, a: Lanes, b: Lanes, place: str, copying: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Compute one tile, and see to its sums. `copying` is what a micro-kernel that copies is told of that."""
        plan, f, integers, product = self.plan, self.f, self.integers, self.product
        tile = plan.tile
        _, count = product.steps(f, block)
        row, column = integers.multiply(i, tile.rows), integers.multiply(j, tile.columns)
        rows = integers.least(integers.subtract(plan.m, row), tile.rows) if plan.m % tile.rows else str(tile.rows)
        columns = (
            integers.least(integers.subtract(plan.n, column), tile.columns) if plan.n % tile.columns else str(tile.columns)
        )

        def compute(to: str, step: Size, accumulate: str) -> None:
            steps = [x if isinstance(x, str) else size_operand(f, x) for x in (a.step, b.step, step)]
            operands = (("ptr", a.pointer), ("i64", steps[0]), ("ptr", b.pointer), ("i64", steps[1]))
            sums = (("ptr", to), ("i64", steps[2]), ("i1", accumulate))
            turning = self.what_is_fetched(to, row, column) if plan.turned else ()
            f.call("void", product.microkernel, ("i64", count), *operands, *sums, *turning, *copying)

        def finish(sums: str, step: Size) -> None:
            numbers = (size_operand(f, step), row, rows, column, columns)
            if isinstance(tile, Tile) and tile.turned:
                sums, numbers = self.turn(tile, sums, step), (str(tile.lanes), column, columns, row, rows)
            f.call("void", f"@{product.name}.epilogue", ("ptr", "%context"), ("i64", matrix), ("ptr", sums),
                   *(("i64", number) for number in numbers))

        def part() -> str:
            skipped = integers.add(integers.multiply(a.skipped, tile.columns), b.skipped)
            return product.element(f, self.tile_sums, skipped)

        if plan.place is None:
            compute(self.tile_sums, tile.columns, "false")
            finish(part(), tile.columns)
            return
        step = plan.place.row
        to = product.element(f, place, integers.add(integers.multiply(row, step), column))
        accumulate = "false" if plan.k_blocks == 1 else f.value(f"icmp ne i64 {block}, 0")

        def merge() -> None:
            compute(self.tile_sums, tile.columns, "false")
            symbol = emit_merge(product.context.module, plan.dtype, tile.width)
            steps = (("i64", str(tile.columns)), ("ptr", to), ("i64", size_operand(f, step)))
            f.call("void", symbol, ("ptr", part()), *steps, ("i64", rows), ("i64", columns), ("i1", accumulate))

        if not self.has_parts:
            compute(to, step, accumulate)
        elif isinstance(tile, DotTile):
            merge()
        else:
            whole = [f.value(f"icmp eq i64 {rows}, {tile.rows}"), f.value(f"icmp eq i64 {columns}, {tile.columns}")]
            is_whole = f.value(f"and i1 {whole[0]}, {whole[1]}")
            with f.when(is_whole):
                compute(to, step, accumulate)
            with f.when(f.value(f"xor i1 {is_whole}, true")):
                merge()
        if not plan.stays:
            with f.when(f.value(f"icmp eq i64 {block}, {size_operand(f, plan.k_blocks - 1)}")):
                finish(to, step)

    def what_is_fetched(self, otherwise: str, row: str, column: str) -> Sequence[tuple[str, str]]:
        """What the micro-kernel of turned tiles is told of where one goes."""
        f, integers, target = self.f, self.integers, self.plan.target
        if self.target is None or target is None or target.buffer is None:
            return ("ptr", otherwise), ("i64", "0")
        dtype = target.buffer.dtype
        out = address(f, dtype, self.target, integers.add(integers.multiply(column, target.row), row))
        return ("ptr", out), ("i64", size_operand(f, target.row * dtype.itemsize))

    def turn(self, tile: Tile, sums: str, step: Size) -> str:
        """The address of the columns of a tile's sums as rows, `tile.lanes` apart."""
        f, product, integers = self.f, self.product, self.integers
        transpose = emit_transpose(product.context.module, tile.dtype, tile.width)
        for i in range(0, tile.lanes, tile.width):
            row = product.element(f, sums, integers.multiply(size_operand(f, step), i))
            for j in range(0, tile.columns, tile.width):
                there = product.element(f, self.turned_sums, str(j * tile.lanes + i))
                f.call("void", transpose, ("ptr", product.element(f, row, str(j))), ("i64", size_operand(f, step)),
                       ("ptr", there), ("i64", str(tile.lanes)))  # fmt: skip
        return self.turned_sums


@dataclass(frozen=True)
class Lanes:
    """What the micro-kernel reads for a tile: where, how far apart steps are, and how many lanes at the start are another
    tile's (a last tile that would reach beyond the operand begins earlier)."""

    pointer: str
    step: Size | str
    skipped: str


class Reader:
    """Where a task finds the panels of one operand, for one matrix."""

    def __init__(self, task: Task, side: Side, axes: Axes, first: str) -> None:
        self.task = task
        self.side = side
        self.first = first
        self.packs = side.access is Access.PRIVATE and task.plan.k != 0
        integers = task.integers
        self.batch = "0"
        for axis in side.operand.batch:
            self.batch = integers.add(integers.multiply(self.batch, axis.extent), axes[axis])
        operand = side.operand
        strides = operand.strides
        self.stands_in_rows = self.packs and strides is not None and strides[0] == 1
        if side.access in (Access.DIRECT, Access.STREAMED) or (task.plan.streams and self.stands_in_rows):
            start = {axis.value: index.ZERO for axis in (*operand.lanes, *operand.steps)}
            offset = task.index(index.substitute(operand.value.args[0], start), axes)
            self.base = task.product.element(task.f, task.pointers(operand.value.attr), offset)

    def panel(self, tile: str) -> str:
        """The address of a panel in the worker's memory."""
        integers, side = self.task.integers, self.side
        number = integers.subtract(tile, self.first)
        offset = integers.add(integers.multiply(number, side.panel), side.private)
        return self.task.product.element(self.task.f, self.task.panels, offset)

    def first_lane(self, tile: str) -> str:
        """The first lane that is read for a tile where lanes are read as they stand."""
        integers, lanes, total = self.task.integers, self.side.lanes, extent(self.side.operand.lanes)
        wanted = integers.multiply(tile, lanes)
        return integers.least(wanted, total - lanes) if total % lanes else wanted

    def read(self, panel: str, tile: str, block: str, since: str) -> Lanes:
        """What a tile reads at a block of steps, `since` blocks after the first of the round."""
        task, side, integers = self.task, self.side, self.task.integers
        product, f = task.product, task.f
        if side.access is Access.PRIVATE:
            return Lanes(self.panel(panel), side.lanes, "0")
        if side.access is Access.SHARED:
            number = integers.add(integers.multiply(self.batch, side.tiles), tile)
            return Lanes(product.shared_panel(f, side, task.scratch, since, number), side.lanes, "0")
        if side.kept is not None:
            number = integers.add(integers.multiply(self.batch, side.tiles), tile)
            return Lanes(product.kept_panel(f, side, task.pointers(side.kept), block, number), side.lanes, "0")
        assert side.operand.strides is not None
        lane, step = side.operand.strides
        wanted, first = integers.multiply(tile, side.lanes), self.first_lane(tile)
        start, _ = product.steps(f, block)
        offset = integers.add(integers.multiply(first, lane), integers.multiply(start, step))
        return Lanes(product.element(f, self.base, offset), step, integers.subtract(wanted, first))
