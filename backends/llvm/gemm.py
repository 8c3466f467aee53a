"""Matrix products as functions.

A product is computed in tiles by a micro-kernel that reads its operands as packed panels, or from memory where they
stand well for it. A task computes a block of tiles: for each block of steps it goes through its columns of tiles, and
for each of them through all rows, so that a panel of the right operand stays in the level-1 cache meanwhile and a block
of the left one in the level-2 cache. Or it goes through its rows of tiles, and for each of them through all columns, a
block of which it has packed; the rows of a tile are copied while the one before is computed. Where the right operand would
have to be turned to be packed, the product may be computed the other way round, and the tiles turned before they are stored.
The functions of one product:

    name             the kernel: has operands packed, then the tasks done
    name.pack        packs one panel that all tasks read
    name.worker      takes tasks, one after another, until none is left
    name.task        computes one block
    name.rows        computes rows of a task's block, with what the task has packed
    name.lhs, .rhs   pack one panel at a block of steps
    name.keep        packs the operands that are kept packed between runs
    name.epilogue    stores what becomes of a tile's sums
    name.turned      has the columns of several tiles' sums stored as rows
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.backends.llvm.axes import extent, locate
from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.context import ALIGNMENT, Context
from graphc.backends.llvm.direct import render_direct
from graphc.backends.llvm.direct_plan import plan_direct
from graphc.backends.llvm.epilogue import emit_epilogue
from graphc.backends.llvm.gemm_parts import FINISHED, FIRST_BLOCK, NEXT_TASK, Parts, Share, Side
from graphc.backends.llvm.gemm_plan import plan_gemm
from graphc.backends.llvm.gemm_stream import StreamRows, StreamTask, emit_helping
from graphc.backends.llvm.gemm_task import Task
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.packing import Panel, emit_packing
from graphc.backends.llvm.pair_packing import emit_pair_packing
from graphc.backends.llvm.pairtile import PairTile, load_configuration, release_tiles
from graphc.backends.llvm.planned_gemm import Access
from graphc.backends.llvm.sizes import size_operand
from graphc.backends.llvm.transpose import emit_transpose
from graphc.kernel import Gemm
from graphc.sizes import ceil_div, is_static
from graphc.types import Size

_PARALLEL_PACKING = 50_000
"""How many numbers there must be to pack for several threads to do it."""


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


class _Product(Parts):
    """Writes the functions of one product."""

    def render(self) -> None:
        """Add all functions to the module."""
        plan, context = self.plan, self.context
        for side in (self.lhs, self.rhs):
            if side.access not in (Access.DIRECT, Access.STREAMED) and plan.k != 0:
                self.packing(side)
        self.task()
        if not plan.stays:
            columns = plan.tile.columns if not plan.turned and plan.n % plan.tile.columns == 0 else None
            emit_epilogue(context, plan.kernel, plan.epilogue, plan.dtype, plan.tile.width, columns, f"{self.name}.epilogue")
        if plan.turned and plan.streams:
            self.turned()
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
                f.do(f"store i64 {first}, ptr {self.header(f, scratch, FIRST_BLOCK)}")
            if shared:
                numbers = sum(side.block * plan.round for side in shared)
                panels = sum(side.panels for side in shared)
                is_much = not is_static(numbers) or numbers >= _PARALLEL_PACKING
                self.each(f, "pack", panels, parallel=plan.is_parallel and is_much)
            if plan.is_parallel:
                f.do(f"store i64 0, ptr {self.header(f, scratch, NEXT_TASK)}")
                if plan.streams:
                    self.close_shares(f, scratch)
                self.each(f, "worker", plan.workers, parallel=True)
            else:
                own = self.at(f, scratch, self.private)
                with integers.loop(0, plan.tasks, "task") as task:
                    f.call("void", f"@{self.name}.task", ("ptr", "%context"), ("i64", task), ("ptr", own))
        f.do("ret void")

    def function(self, suffix: str, *params: tuple[str, str], result: str = "void") -> Function:
        """Begin one of the functions."""
        symbol = f"{self.name}.{suffix}" if suffix else self.name
        return self.context.module.function(symbol, [("ptr", "context"), *params], result, linkage="internal")

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
        plan, scratch = self.plan, self.context.scratch(f)
        own = self.worker_memory(f, scratch, "%number")
        arguments = [("ptr", own)]
        if plan.streams:
            arguments.append(("ptr", self.share_of(f, scratch, "%number")))
        with f.repeat("task") as go_on_if:
            task = f.value(f"atomicrmw add ptr {self.header(f, scratch, NEXT_TASK)}, i64 1 monotonic")
            go_on_if(f.value(f"icmp slt i64 {task}, {size_operand(f, plan.tasks)}"))
            f.call("void", f"@{self.name}.task", ("ptr", "%context"), ("i64", task), *arguments)
            if plan.streams:
                f.do(f"atomicrmw add ptr {self.header(f, scratch, FINISHED)}, i64 1 release")
        if plan.streams:
            emit_helping(self, f, own)
        f.do("ret void")

    def close_shares(self, f: Function, scratch: str) -> None:
        """Begin with no task finished, and nothing to take from any worker."""
        f.do(f"store i64 0, ptr {self.header(f, scratch, FINISHED)}")
        with Integers(f).loop(0, self.plan.workers, "worker") as worker:
            share = self.share_of(f, scratch, worker)
            for field in (Share.OPEN, Share.HELPERS):
                f.do(f"store i64 0, ptr {self.share(f, share, field)}")

    def task(self) -> None:
        """void name.task(ptr context, i64 task, ptr own): `own` is the worker's memory.

        Where rows are streamed, there is one parameter more, `share`, for a `Share`, and

        i64 name.rows(ptr context, i64 task, i64 block, ptr panels, ptr own, ptr share): `panels` is the memory of the worker
        whose task it is, `own` that of the one that takes part. The result is how many rows of tiles it has computed.
        """
        if self.plan.streams:
            f = self.function("rows", ("i64", "task"), ("i64", "block"), ("ptr", "panels"), ("ptr", "own"), ("ptr", "share"),
                              result="i64")  # fmt: skip
            StreamRows(self, f).write()
            f = self.function("task", ("i64", "task"), ("ptr", "own"), ("ptr", "share"))
            StreamTask(self, f).write()
            f.do("ret void")
            return
        f = self.function("task", ("i64", "task"), ("ptr", "own"))
        tile = self.plan.tile
        if isinstance(tile, PairTile) and tile.amx:
            load_configuration(f, tile)
        Task(self, f).write()
        if isinstance(tile, PairTile) and tile.amx:
            release_tiles(f)
        f.do("ret void")

    def turned(self) -> None:
        """void name.turned(ptr context, i64 batch, ptr sums, i64 row, i64 rows, i64 column, i64 columns): store the columns of
        collected sums, some at a time, as rows."""
        numbers = [("i64", name) for name in ("row", "rows", "column", "columns")]
        f = self.function("turned", ("i64", "batch"), ("ptr", "sums"), *numbers)
        plan, integers, width = self.plan, Integers(f), self.plan.tile.width
        transpose = emit_transpose(self.context.module, plan.dtype, width)
        step = -(-plan.group * plan.tile.rows // width) * width
        columns = f.slot(f"[{width * step} x {self.scalar}]", ALIGNMENT)
        with f.loop("0", "%columns", str(width), hint="columns") as j:
            with f.loop("0", "%rows", str(width), hint="square") as i:
                here = self.element(f, "%sums", integers.add(integers.multiply(i, plan.collected_step), j))
                there = self.element(f, columns, i)
                f.call("void", transpose, ("ptr", here), ("i64", str(plan.collected_step)), ("ptr", there), ("i64", str(step)))
            first, count = integers.add("%column", j), integers.least(integers.subtract("%columns", j), width)
            f.call("void", f"@{self.name}.epilogue", ("ptr", "%context"), ("i64", "%batch"), ("ptr", columns),
                   *(("i64", number) for number in (str(step), first, count, "%row", "%rows")))  # fmt: skip
        f.do("ret void")

    # Packing

    def pack(self, sides: Sequence[Side]) -> None:
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

    def packing(self, side: Side) -> None:
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
