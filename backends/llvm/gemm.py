"""Matrix products as functions.

A product is computed in tiles by a micro-kernel that reads its operands as packed panels, or from memory where they
stand well for it. A task computes a block of tiles: for each block of steps it goes through its columns of tiles, and
for each of them through all rows, so that a panel of the right operand stays in the level-1 cache meanwhile and a block
of the left one in the level-2 cache. The functions of one product:

    name             the kernel: has operands packed, then the tasks done
    name.pack        packs one panel that all tasks read
    name.worker      takes tasks, one after another, until none is left
    name.task        computes one block
    name.lhs, .rhs   pack one panel at a block of steps
    name.keep        packs the operands that are kept packed between runs
    name.epilogue    stores what becomes of a tile's sums
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc import index
from graphc.backends.llvm.axes import extent, locate
from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.context import ALIGNMENT, Context
from graphc.backends.llvm.direct import render_direct
from graphc.backends.llvm.direct_plan import plan_direct
from graphc.backends.llvm.dotkernel import DotTile, emit_dotkernel
from graphc.backends.llvm.elementwise import REGISTER
from graphc.backends.llvm.epilogue import emit_epilogue
from graphc.backends.llvm.expression import Evaluator
from graphc.backends.llvm.gemm_plan import Access, Plan, plan_gemm
from graphc.backends.llvm.integers import Integer, Integers
from graphc.backends.llvm.microkernel import emit_merge, emit_microkernel
from graphc.backends.llvm.packing import Operand, Panel, emit_packing
from graphc.backends.llvm.pair_packing import emit_pair_packing
from graphc.backends.llvm.pairtile import PairTile, emit_pair_kernel, load_configuration, release_tiles
from graphc.backends.llvm.sizes import size_operand
from graphc.kernel import Axis, Buffer, Expr, Gemm
from graphc.sizes import ceil_div, is_static
from graphc.types import Size

_HEADER = ALIGNMENT
"""Bytes at the start of the scratch memory: the number of the next task, and of the first block of steps of a round."""
_NEXT_TASK, _FIRST_BLOCK = range(2)
_PARALLEL_PACKING = 50_000
"""How many numbers there must be to pack for several threads to do it."""

Axes = Mapping[Axis, str]


def packing_symbol(name: str) -> str:
    """The name of the function of a kernel that fills its panels, of the same parameters."""
    return f"{name}.keep"


def render_gemm(context: Context, kernel: Gemm, name: str) -> None:
    """Add the kernel to the context's module as `void name(ptr context)`; and if it has panels, what fills them."""
    if extent((*kernel.batch, *kernel.m, *kernel.n)) == 0:
        context.module.function(name, [("ptr", "context")], linkage="internal").do("ret void")
        return
    direct = plan_direct(kernel, context.target)
    if direct is not None:
        render_direct(context, direct, name)
        return
    _Product(context, plan_gemm(kernel, context.target), name).render()


@dataclass(frozen=True)
class _Side:
    """One of the two operands: how it is read, and where its panels are."""

    name: str
    operand: Operand
    access: Access
    lanes: int
    """How many of them a tile has."""
    tiles: Size
    panel: Size
    """Elements from one panel to the next."""
    block: Size
    """Elements of all panels at a block of steps."""
    shared: Size
    """Where panels for all tasks begin in the scratch memory, in bytes."""
    private: Size
    """Where panels for one task begin in its worker's memory, in elements."""
    kept: Buffer | None
    """Where panels are that are kept between runs."""

    @property
    def panels(self) -> Size:
        """How many there are at a block of steps, through the batch."""
        return extent(self.operand.batch) * self.tiles


class _Product:
    """Writes the functions of one product."""

    def __init__(self, context: Context, plan: Plan, name: str) -> None:
        self.context = context
        self.plan = plan
        self.name = name
        self.scalar = REGISTER[plan.dtype.name]
        size, tile = plan.dtype.itemsize, plan.tile
        rhs_shared = _HEADER + plan.lhs_block * plan.round * size
        self.sums = rhs_shared + plan.rhs_block * plan.round * size
        self.private = self.sums + plan.sums * size
        context.reserve_scratch(self.private + plan.workers * plan.private * size)
        self.lhs = _Side("lhs", plan.lhs, plan.lhs_access, tile.rows, plan.m_tiles, plan.lhs_panel, plan.lhs_panels,
                         _HEADER, 0, plan.kernel.panels[0])
        self.rhs = _Side("rhs", plan.rhs, plan.rhs_access, tile.columns, plan.n_tiles, plan.rhs_panel, plan.rhs_panels,
                         rhs_shared, plan.lhs_private, plan.kernel.panels[1])
        module = context.module
        if isinstance(tile, PairTile):
            self.microkernel = emit_pair_kernel(module, tile)
        else:
            self.microkernel = emit_dotkernel(module, tile) if isinstance(tile, DotTile) else emit_microkernel(module, tile)

    def render(self) -> None:
        """Add all functions to the module."""
        plan, context = self.plan, self.context
        for side in (self.lhs, self.rhs):
            if side.access is not Access.DIRECT and plan.k != 0:
                self.packing(side)
        self.task()
        if not plan.stays:
            emit_epilogue(context, plan.kernel, plan.epilogue, plan.dtype, plan.tile.width, f"{self.name}.epilogue")
        shared = [side for side in (self.lhs, self.rhs) if side.access is Access.SHARED and plan.k != 0]
        if shared:
            self.pack(shared)
        if any(plan.kernel.panels):
            self.keep()
        if plan.is_parallel:
            self.worker()

        f = self.function("")
        integers = Integers(f)
        scratch = context.scratch(f)
        with integers.loop(0, 1 if plan.round == plan.k_blocks else ceil_div(plan.k_blocks, plan.round), "round") as number:
            if plan.round != plan.k_blocks:
                first = integers.multiply(number, plan.round)
                f.do(f"store i64 {first}, ptr {self.header(f, scratch, _FIRST_BLOCK)}")
            if shared:
                numbers = sum(side.block * plan.round for side in shared)
                panels = sum(side.panels for side in shared)
                is_much = not is_static(numbers) or numbers >= _PARALLEL_PACKING
                self.each(f, "pack", panels, parallel=plan.is_parallel and is_much)
            if plan.is_parallel:
                f.do(f"store i64 0, ptr {self.header(f, scratch, _NEXT_TASK)}")
                self.each(f, "worker", plan.workers, parallel=True)
            else:
                own = self.at(f, scratch, self.private)
                with integers.loop(0, plan.tasks, "task") as task:
                    f.call("void", f"@{self.name}.task", ("ptr", "%context"), ("i64", task), ("ptr", own))
        f.do("ret void")

    def function(self, suffix: str, *params: tuple[str, str]) -> Function:
        """Begin one of the functions."""
        symbol = f"{self.name}.{suffix}" if suffix else self.name
        return self.context.module.function(symbol, [("ptr", "context"), *params], linkage="internal")

    def each(self, f: Function, suffix: str, chunks: Size, *, parallel: bool) -> None:
        """Call a function of (context, chunk) for each chunk."""
        if parallel:
            self.context.parallel_for(f, f"@{self.name}.{suffix}", size_operand(f, chunks))
            return
        with Integers(f).loop(0, chunks, "chunk") as chunk:
            f.call("void", f"@{self.name}.{suffix}", ("ptr", "%context"), ("i64", chunk))

    def worker(self) -> None:
        """void name.worker(ptr context, i64 number)"""
        f = self.function("worker", ("i64", "number"))
        plan, integers = self.plan, Integers(f)
        scratch = self.context.scratch(f)
        offset = integers.add(integers.multiply("%number", plan.private * plan.dtype.itemsize), self.private)
        own = self.at(f, scratch, offset)
        again, work, done = f.label("again"), f.label("work"), f.label("done")
        f.jump(again)
        f.enter(again)
        task = f.value(f"atomicrmw add ptr {self.header(f, scratch, _NEXT_TASK)}, i64 1 monotonic")
        f.branch(f.value(f"icmp slt i64 {task}, {size_operand(f, plan.tasks)}"), work, done)
        f.enter(work)
        f.call("void", f"@{self.name}.task", ("ptr", "%context"), ("i64", task), ("ptr", own))
        f.jump(again)
        f.enter(done)
        f.do("ret void")

    def task(self) -> None:
        """void name.task(ptr context, i64 task, ptr own): `own` is the worker's memory."""
        f = self.function("task", ("i64", "task"), ("ptr", "own"))
        tile = self.plan.tile
        if isinstance(tile, PairTile) and tile.amx:
            load_configuration(f, tile)
        _Task(self, f).write()
        if isinstance(tile, PairTile) and tile.amx:
            release_tiles(f)
        f.do("ret void")

    # Memory

    def header(self, f: Function, scratch: str, field: int) -> str:
        """The address of a number in the header."""
        return f.value(f"getelementptr i64, ptr {scratch}, i64 {field}")

    def blocks(self, f: Function, scratch: str) -> tuple[str, str]:
        """The first block of steps of the round, and the one after the last."""
        plan = self.plan
        if plan.round == plan.k_blocks:
            return "0", size_operand(f, plan.k_blocks)
        first = f.value(f"load i64, ptr {self.header(f, scratch, _FIRST_BLOCK)}")
        return first, Integers(f).least(Integers(f).add(first, plan.round), plan.k_blocks)

    def steps(self, f: Function, block: str) -> tuple[str, str]:
        """The first step of a block, and how many it has."""
        plan, integers = self.plan, Integers(f)
        start = integers.multiply(block, plan.k_block)
        if plan.k == plan.k_blocks * plan.k_block:
            return start, size_operand(f, plan.k_block)
        return start, integers.least(integers.subtract(plan.k, start), plan.k_block)

    def shared_panel(self, f: Function, side: _Side, scratch: str, block: str, panel: str) -> str:
        """The address of a panel, counted through the batch, at a block of the round."""
        integers = Integers(f)
        offset = integers.add(integers.multiply(block, side.block), integers.multiply(panel, side.panel))
        return self.element(f, self.at(f, scratch, side.shared), offset)

    def at(self, f: Function, pointer: str, nbytes: Integer) -> str:
        """An address, some bytes on."""
        return f.value(f"getelementptr i8, ptr {pointer}, i64 {Integers(f).operand(nbytes)}")

    def element(self, f: Function, pointer: str, offset: str) -> str:
        """The address of a number that is multiplied or summed."""
        return pointer if offset == "0" else f.value(f"getelementptr {self.scalar}, ptr {pointer}, i64 {offset}")

    # Packing

    def pack(self, sides: Sequence[_Side]) -> None:
        """void name.pack(ptr context, i64 chunk): a panel of the left operand, or past those of the right one."""
        f = self.function("pack", ("i64", "chunk"))
        integers = Integers(f)
        scratch = self.context.scratch(f)
        first, last = self.blocks(f, scratch)
        before: Size = 0
        for side in sides:
            panel = integers.subtract("%chunk", before)
            with f.when(f.value(f"icmp ult i64 {panel}, {size_operand(f, side.panels)}")):
                batch = integers.divide(panel, side.tiles)
                tile = integers.remainder(panel, side.tiles)
                with integers.loop(first, last, "block") as block:
                    to = self.shared_panel(f, side, scratch, integers.subtract(block, first), panel)
                    self.call_packing(f, side, batch, tile, block, to)
            before = before + side.panels
        f.do("ret void")

    def keep(self) -> None:
        """void name.keep(ptr context), which calls

        void name.lhs.keep(ptr context, i64 chunk), .rhs.keep: a panel, at all blocks of steps
        """
        plan, whole = self.plan, self.function("keep")
        for side in (self.lhs, self.rhs):
            if side.kept is None:
                continue
            f = self.function(f"{side.name}.keep", ("i64", "chunk"))
            integers, memory = Integers(f), self.context.pointers(f, [side.kept])(side.kept)
            batch, tile = integers.divide("%chunk", side.tiles), integers.remainder("%chunk", side.tiles)
            with integers.loop(0, plan.k_blocks, "block") as block:
                self.call_packing(f, side, batch, tile, block, self.kept_panel(f, side, memory, block, "%chunk"))
            f.do("ret void")
            self.each(whole, f"{side.name}.keep", side.panels, parallel=side.kept.size >= _PARALLEL_PACKING)
        whole.do("ret void")

    def kept_panel(self, f: Function, side: _Side, memory: str, block: str, panel: str) -> str:
        """The address of a panel, counted through the batch, at a block of steps."""
        integers = Integers(f)
        return self.element(f, memory, integers.add(integers.multiply(block, side.block), integers.multiply(panel, side.panel)))

    def packing(self, side: _Side) -> None:
        """void name.lhs(ptr context, i64 batch, i64 first, i64 start, i64 count, ptr to): the batch is that of the
        operand; the other numbers are those of a `Panel`."""
        numbers = [("i64", name) for name in ("batch", "first", "start", "count")]
        f = self.function(side.name, *numbers, ("ptr", "to"))
        operand, plan = side.operand, self.plan
        pointers = self.context.pointers(f, operand.buffers)
        batch = locate(f, operand.batch, "%batch")
        panel = Panel(side.lanes, plan.k_block, batch, "%first", "%start", "%count", "%to")
        if isinstance(plan.tile, PairTile):
            emit_pair_packing(f, operand, panel, side.name == "lhs", self.context.target, pointers)
        else:
            emit_packing(f, operand, panel, plan.dtype, plan.tile.width, self.context.target, pointers)
        f.do("ret void")

    def call_packing(self, f: Function, side: _Side, batch: str, tile: str, block: str, to: str) -> None:
        """Pack a tile's panel."""
        numbers = (batch, Integers(f).multiply(tile, side.lanes), *self.steps(f, block))
        f.call("void", f"@{self.name}.{side.name}", ("ptr", "%context"), *(("i64", n) for n in numbers), ("ptr", to))



class _Task:
    """Writes the body of name.task."""

    def __init__(self, product: _Product, f: Function) -> None:
        self.product = product
        self.plan = product.plan
        self.f = f
        self.integers = Integers(f)
        plan = self.plan
        sides = (product.lhs, product.rhs)
        buffers = {b for side in sides if side.access is Access.DIRECT for b in side.operand.buffers}
        buffers |= {side.kept for side in sides if side.kept is not None}
        if plan.place is not None and plan.place.buffer is not None:
            buffers.add(plan.place.buffer)
        self.pointers = product.context.pointers(f, buffers)
        self.scratch = product.context.scratch(f)
        tile = plan.tile
        # some tiles' sums need a memory of their own before they are taken to their place
        self.has_parts = plan.m % tile.rows != 0 or plan.n % tile.columns != 0 or isinstance(tile, DotTile)
        if self.has_parts or plan.place is None:
            size = -(-tile.rows * tile.columns // tile.width) * tile.width
            self.tile_sums = f.slot(f"[{size} x {product.scalar}]", ALIGNMENT)

    def write(self) -> None:
        """Go through the matrices, the blocks of steps, the columns and the rows of tiles."""
        plan, f, integers, product = self.plan, self.f, self.integers, self.product
        batch_parts, m_parts, n_parts = plan.grid
        rest, m_part = integers.divide("%task", m_parts), integers.remainder("%task", m_parts)
        batch_part, n_part = integers.divide(rest, n_parts), integers.remainder(rest, n_parts)
        matrices = self.part(batch_part, batch_parts, plan.batch_block, plan.batch)
        rows = self.part(m_part, m_parts, plan.m_block, plan.m_tiles)
        columns = self.part(n_part, n_parts, plan.n_block, plan.n_tiles)
        first, last = product.blocks(f, self.scratch)
        with integers.loop(*matrices, "matrix") as matrix:
            axes = dict(zip(plan.kernel.batch, locate(f, plan.kernel.batch, matrix), strict=True))
            lhs = _Reader(self, product.lhs, axes, rows[0])
            rhs = _Reader(self, product.rhs, axes, "0")
            place = self.place(matrix, axes)
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
                        self.tile(matrix, block, i, j, a, b, place)

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

    def index(self, offset: Expr, axes: Axes) -> str:
        """The value of an index over the batch."""
        evaluator = Evaluator(self.f, 1, self.pointers)
        for axis, value in axes.items():
            evaluator.bind(axis, value)
        return evaluator.scalar(offset)

    def tile(self, matrix: str, block: str, i: str, j: str, a: _Lanes, b: _Lanes, place: str) -> None:
        """Compute one tile, and see to its sums."""
        plan, f, integers, product = self.plan, self.f, self.integers, self.product
        tile = plan.tile
        _, count = product.steps(f, block)
        row, column = integers.multiply(i, tile.rows), integers.multiply(j, tile.columns)
        rows = integers.least(integers.subtract(plan.m, row), tile.rows) if plan.m % tile.rows else str(tile.rows)
        columns = (
            integers.least(integers.subtract(plan.n, column), tile.columns) if plan.n % tile.columns else str(tile.columns)
        )

        def compute(to: str, step: Size, accumulate: str) -> None:
            steps = [size_operand(f, size) for size in (a.step, b.step, step)]
            operands = (("ptr", a.pointer), ("i64", steps[0]), ("ptr", b.pointer), ("i64", steps[1]))
            f.call("void", product.microkernel, ("i64", count), *operands, ("ptr", to), ("i64", steps[2]), ("i1", accumulate))

        def finish(sums: str, step: Size) -> None:
            numbers = (size_operand(f, step), row, rows, column, columns)
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


@dataclass(frozen=True)
class _Lanes:
    """What the micro-kernel reads for a tile: where, how far apart steps are, and how many lanes at the start are another
    tile's (a last tile that would reach beyond the operand begins earlier)."""

    pointer: str
    step: Size
    skipped: str


class _Reader:
    """Where a task finds the panels of one operand, for one matrix."""

    def __init__(self, task: _Task, side: _Side, axes: Axes, first: str) -> None:
        self.task = task
        self.side = side
        self.first = first
        self.packs = side.access is Access.PRIVATE and task.plan.k != 0
        integers = task.integers
        self.batch = "0"
        for axis in side.operand.batch:
            self.batch = integers.add(integers.multiply(self.batch, axis.extent), axes[axis])
        if side.access is Access.DIRECT:
            operand = side.operand
            start = {axis.value: index.ZERO for axis in (*operand.lanes, *operand.steps)}
            offset = task.index(index.substitute(operand.value.args[0], start), axes)
            self.base = task.product.element(task.f, task.pointers(operand.value.attr), offset)

    def panel(self, tile: str) -> str:
        """The address of a panel in the worker's memory."""
        integers, side = self.task.integers, self.side
        number = integers.subtract(tile, self.first)
        offset = integers.add(integers.multiply(number, side.panel), side.private)
        return self.task.product.element(self.task.f, "%own", offset)

    def read(self, panel: str, tile: str, block: str, since: str) -> _Lanes:
        """What a tile reads at a block of steps, `since` blocks after the first of the round."""
        task, side, integers = self.task, self.side, self.task.integers
        product, f = task.product, task.f
        if side.access is Access.PRIVATE:
            return _Lanes(self.panel(panel), side.lanes, "0")
        if side.access is Access.SHARED:
            number = integers.add(integers.multiply(self.batch, side.tiles), tile)
            return _Lanes(product.shared_panel(f, side, task.scratch, since, number), side.lanes, "0")
        if side.kept is not None:
            number = integers.add(integers.multiply(self.batch, side.tiles), tile)
            return _Lanes(product.kept_panel(f, side, task.pointers(side.kept), block, number), side.lanes, "0")
        assert side.operand.strides is not None
        lane, step = side.operand.strides
        total = extent(side.operand.lanes)
        wanted = integers.multiply(tile, side.lanes)
        first = integers.least(wanted, total - side.lanes) if total % side.lanes else wanted
        start, _ = product.steps(f, block)
        offset = integers.add(integers.multiply(first, lane), integers.multiply(start, step))
        return _Lanes(product.element(f, self.base, offset), step, integers.subtract(wanted, first))
