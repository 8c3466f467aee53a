"""Products whose operands are read where they stand, as functions: see `direct_plan`.

A task goes through the blocks of runs, in each through its columns of tiles, and for each of them through all rows, so that
the columns of a tile, which a convolution's weights are, stay near meanwhile. The functions of one product:

    name             the kernel: has the tasks done
    name.task        computes one block
    name.epilogue    stores what becomes of a tile's sums
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from graphc.backends.llvm.axes import locate
from graphc.backends.llvm.builder import Function, Module, mangle, vector
from graphc.backends.llvm.context import ALIGNMENT, Context
from graphc.backends.llvm.direct_plan import DirectPlan, Places
from graphc.backends.llvm.elementwise import REGISTER
from graphc.backends.llvm.epilogue import emit_epilogue
from graphc.backends.llvm.expression import Evaluator
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.memory import LINE_BYTES, prefetch, store_consecutive
from graphc.backends.llvm.microkernel import cleared_sums, emit_merge, finish_with_sums, multiply_add
from graphc.expression import Axis, Expr

_AHEAD = 16
"""How many steps before they are needed the columns are fetched into the level-1 cache."""
_TOGETHER = 4
"""How many steps there are in the code of a loop over steps: what counts them takes cycles from multiplications."""
_MOST_AHEAD_BYTES = 2 * LINE_BYTES
"""How much of the next tile's columns may be fetched into the level-2 cache at each step, meanwhile."""


def render_direct(context: Context, plan: DirectPlan, name: str) -> None:
    """Add the kernel to the context's module as `void name(ptr context)`."""
    context.reserve_scratch(plan.sums * plan.dtype.itemsize)
    if plan.place is None:
        columns = plan.tile.columns * plan.groups if plan.rhs.lines.is_even else None
        emit_epilogue(context, plan.kernel, plan.epilogue, plan.dtype, plan.tile.width, columns, f"{name}.epilogue")
    f = context.module.function(f"{name}.task", [("ptr", "context"), ("i64", "task")], linkage="internal")
    _Task(context, plan, name, f).write()
    f.do("ret void")
    f = context.module.function(name, [("ptr", "context")], linkage="internal")
    if plan.is_parallel:
        context.parallel_for(f, f"@{name}.task", str(plan.tasks))
    else:
        with f.loop("0", str(plan.tasks), hint="task", reduced=False) as task:
            f.call("void", f"@{name}.task", ("ptr", "%context"), ("i64", task))
    f.do("ret void")


@dataclass(frozen=True)
class _Tile:
    """The rows or columns of one tile: its number in its line, the first, how many, how many it has that are an earlier tile's,
    the address of the first that it reads, and that one's place on each axis."""

    number: str
    first: str
    count: str
    skipped: str
    pointer: str
    places: Sequence[str]


class _Task:
    """Writes the body of name.task."""

    def __init__(self, context: Context, plan: DirectPlan, name: str, f: Function) -> None:
        self.plan = plan
        self.name = name
        self.f = f
        self.module = context.module
        self.integers = Integers(f)
        self.scalar = REGISTER[plan.dtype.name]
        places = [] if plan.place is None or plan.place.buffer is None else [plan.place.buffer]
        self.pointers = context.pointers(f, {plan.lhs.buffer, plan.rhs.buffer, *places})
        self.microkernel = emit_runs_kernel(context.module, plan)
        self.entry = f"[{plan.entry} x i64]"
        self.classes = 1 if plan.trims is None else len(plan.trims.classes)
        self.runs = f.slot(f"[{self.classes * plan.runs_block} x {self.entry}]")
        size = plan.tile.rows * plan.tile.columns * plan.groups
        self.tile_sums = f.slot(f"[{size} x {self.scalar}]", ALIGNMENT)
        self.arranged = f.slot(f"[{size} x {self.scalar}]", ALIGNMENT) if plan.group else ""
        self.scratch = context.scratch(f) if plan.sums else ""
        self.panel = columns_bytes(plan)

    def write(self) -> None:
        """Go through the blocks of runs, the columns and the rows of tiles."""
        plan, f, integers = self.plan, self.f, self.integers
        _, m_parts, n_parts = plan.grid
        rest, m_part = integers.divide("%task", m_parts), integers.remainder("%task", m_parts)
        matrix, n_part = integers.divide(rest, n_parts), integers.remainder(rest, n_parts)
        batch = dict(zip(plan.batch, locate(f, plan.batch, matrix), strict=True))
        lhs, rhs = (self.element(self.pointers(side.buffer), self.index(side.base, batch)) for side in (plan.lhs, plan.rhs))
        rows = self.part(m_part, plan.m_block, plan.lhs.lines.tiles)
        columns = self.part(n_part, plan.n_block, plan.rhs.lines.tiles)
        sums = self.element(self.scratch, integers.multiply(matrix, plan.m * plan.n)) if plan.sums else ""
        if plan.place is not None and plan.place.buffer is not None:
            sums = self.element(self.pointers(plan.place.buffer), self.index(plan.place.offset, batch))
        with integers.loop(0, plan.blocks, "block") as block:
            first = integers.multiply(block, plan.runs_block)
            count = integers.least(integers.subtract(plan.runs, first), plan.runs_block)
            self.table(first, count)
            with integers.loop(*columns, "column") as j:
                b = self.tile(plan.rhs, rhs, j)
                with integers.loop(*rows, "row") as i:
                    # the next columns, a part of them with each tile of rows
                    part = integers.multiply(integers.subtract(i, rows[0]), self.panel // plan.m_block)
                    following = f.value(f"getelementptr i8, ptr {b.pointer}, i64 {integers.add(part, self.panel)}")
                    a = self.tile(plan.lhs, lhs, i)
                    self.compute(matrix, block, self.taken(a, first, count), a, b, following, sums)

    def index(self, offset: Expr, axes: dict[Axis, str]) -> str:
        """The value of an index over the batch."""
        evaluator = Evaluator(self.f, 1, self.pointers)
        for axis, value in axes.items():
            evaluator.bind(axis, value)
        return evaluator.scalar(offset)

    def element(self, pointer: str, offset: str) -> str:
        """The address of a number."""
        return pointer if offset == "0" else self.f.value(f"getelementptr {self.scalar}, ptr {pointer}, i64 {offset}")

    def part(self, number: str, block: int, count: int) -> tuple[str, str]:
        """Where a part of `count` begins and ends."""
        if block >= count:
            return "0", str(count)
        begin = self.integers.multiply(number, block)
        return begin, self.integers.least(self.integers.add(begin, block), count)

    def table(self, first: str, count: str) -> None:
        """Write down where the operands of each run stand, after those of step 0; and for each class of tiles, which rows they
        take."""
        f, integers, plan = self.f, self.integers, self.plan
        with f.loop("0", count, hint="run", reduced=False) as number:
            places = locate(f, plan.steps[:-1], integers.add(first, number))
            offsets = [self.sum_of(places, operand.step_strides[:-1]) for operand in (plan.lhs, plan.rhs)]
            for tiles in range(self.classes):
                kinds = [] if plan.trims is None else [self.chosen(plan.trims.classes[tiles], places[-1])]
                entry = self.entry_of(tiles, number)
                for at, value in enumerate((*offsets, *kinds)):
                    f.do(f"store i64 {value}, ptr {f.value(f'getelementptr i64, ptr {entry}, i64 {at}')}")

    def entry_of(self, tiles: int | str, number: str) -> str:
        """The address of a run's entry in the table, for a class of tiles."""
        at = self.integers.add(self.integers.multiply(tiles, self.plan.runs_block), number)
        return self.f.value(f"getelementptr {self.entry}, ptr {self.runs}, i64 {at}")

    def chosen(self, numbers: Sequence[int], place: str) -> str:
        """The number at a place."""
        usual = max(set(numbers), key=numbers.count)
        found = str(usual)
        for at, number in enumerate(numbers):
            if number != usual:
                is_here = self.f.value(f"icmp eq i64 {place}, {at}")
                found = self.f.value(f"select i1 {is_here}, i64 {number}, i64 {found}")
        return found

    def sum_of(self, places: Sequence[str], strides: Sequence[int]) -> str:
        """Places on axes, times their strides."""
        total = "0"
        for place, stride in zip(places, strides, strict=True):
            total = self.integers.add(total, self.integers.multiply(place, stride))
        return total

    def tile(self, operand: Places, base: str, number: str) -> _Tile:
        """Where the rows or columns of a tile are."""
        integers, lines = self.integers, operand.lines
        line, within = integers.divide(number, lines.tiles_of_line), integers.remainder(number, lines.tiles_of_line)
        begin, start = integers.multiply(line, lines.length), integers.multiply(within, lines.size)
        if lines.is_even:
            count, read = str(lines.size), start
        else:
            count = integers.least(integers.subtract(lines.length, start), lines.size)
            read = integers.least(start, lines.length - lines.size)
        places = locate(self.f, operand.lanes, integers.add(begin, read))
        pointer = self.element(base, self.sum_of(places, operand.lane_strides))
        return _Tile(within, integers.add(begin, start), count, integers.subtract(start, read), pointer, places)

    def taken(self, tile: _Tile, first: str, count: str) -> tuple[str, str]:
        """The entry of the table that a tile of rows begins with, and how many runs it takes of `count` from run `first` on."""
        skips, trims, integers = self.plan.skips, self.plan.trims, self.integers
        tiles = "0" if trims is None else self.chosen(trims.numbers, tile.number)
        if skips is None:
            return self.entry_of(tiles, "0"), count
        edge, u = skips.edge, tile.places[skips.axis]
        each = self.plan.runs // edge.steps

        def runs(place: int, u: str) -> str:
            """The runs before the first step that stands at a place, or beyond it."""
            rest = integers.greatest(integers.subtract(place, integers.multiply(u, edge.row)), 0)
            return integers.multiply(integers.divide(integers.add(rest, edge.step - 1), edge.step), each)

        low = integers.greatest(integers.subtract(runs(edge.begin, integers.add(u, skips.span)), first), 0)
        high = integers.least(integers.subtract(runs(edge.end, u), first), count)
        return self.entry_of(tiles, low), integers.greatest(integers.subtract(high, low), 0)

    def compute(
        self, matrix: str, block: str, runs: tuple[str, str], a: _Tile, b: _Tile, following: str, sums: str
    ) -> None:
        """Compute one tile, and see to its sums. `runs` are the first one's entry of the table, and how many there are."""
        plan, f, integers = self.plan, self.f, self.integers
        tile = plan.tile
        # where sums are: those of a tile one after another, or in their place among all
        row = plan.n if plan.place is None else plan.place.row
        own, whole = (tile.columns, tile.rows * tile.columns), (row, plan.rhs.lines.total)
        skipped = integers.add(integers.multiply(a.skipped, tile.columns), b.skipped)
        place = integers.add(integers.multiply(a.first, row), b.first)
        accumulate = f.value(f"icmp ne i64 {block}, 0") if plan.blocks > 1 else "false"
        in_place = bool(sums) and plan.lhs.lines.is_even and plan.rhs.lines.is_even
        with integers.loop(0, plan.groups, "group") as group:
            shift = self.sum_of(locate(f, plan.group, group), plan.group_strides)
            there = integers.add(place, integers.multiply(group, whole[1]))
            here = integers.multiply(group, own[1])
            to, step = (self.element(sums, there), whole[0]) if in_place else (self.element(self.tile_sums, here), own[0])
            f.call("void", self.microkernel, ("i64", runs[1]), ("ptr", runs[0]), ("ptr", a.pointer),
                   ("ptr", self.element(b.pointer, shift)), ("ptr", following), ("ptr", to), ("i64", str(step)),
                   ("i1", accumulate if in_place else "false"))
            if sums and not in_place:
                part = self.element(self.tile_sums, integers.add(here, skipped))
                f.call("void", emit_merge(self.module, plan.dtype, tile.width), ("ptr", part), ("i64", str(own[0])),
                       ("ptr", self.element(sums, there)), ("i64", str(whole[0])), ("i64", a.count), ("i64", b.count),
                       ("i1", accumulate))
        if plan.place is not None:
            return
        if not sums:
            self.finish(matrix, a, b, self.element(self.tile_sums, skipped), own)
            return
        with f.when(f.value(f"icmp eq i64 {block}, {plan.blocks - 1}")):
            self.finish(matrix, a, b, self.element(sums, place), whole)

    def finish(self, matrix: str, a: _Tile, b: _Tile, sums: str, steps: tuple[int, int]) -> None:
        """Hand the sums of a tile to the epilogue. `steps` are from row to row and from one of the group to the next."""
        plan, f, integers = self.plan, self.f, self.integers
        step = steps[0]
        if plan.group:
            arrange = emit_arrange(self.module, plan, *steps)
            f.call("void", arrange, ("ptr", sums), ("ptr", self.arranged), ("i64", a.count), ("i64", b.count))
            sums, step = self.arranged, plan.tile.columns * plan.groups
        f.call("void", f"@{self.name}.epilogue", ("ptr", "%context"), ("i64", matrix), ("ptr", sums), ("i64", str(step)),
               ("i64", a.first), ("i64", a.count), ("i64", integers.multiply(b.first, plan.groups)),
               ("i64", integers.multiply(b.count, plan.groups)))


def emit_arrange(module: Module, plan: DirectPlan, step: int, group_step: int) -> str:
    """The symbol of the function

        void (ptr from, ptr to, i64 rows, i64 columns)

    that puts the sums of a tile, which stand column after column for each of a group, in an order in which those of a group
    stand side by side for each column. Rows are `step` apart, and as far as a tile is wide where they go to.
    """
    tile, groups, dtype = plan.tile, plan.groups, plan.dtype
    name = f"graphc.arrange.{dtype.name}.{tile.columns}x{groups}.{step}.{group_step}"
    if module.has(name):
        return f"@{name}"
    f = module.function(name, [("ptr", "from"), ("ptr", "to"), ("i64", "rows"), ("i64", "columns")], linkage="internal")
    integers, scalar, width = Integers(f), REGISTER[dtype.name], tile.width
    # where the sums for each place in a row come from
    sources = [place // groups + place % groups * group_step for place in range(tile.columns * groups)]
    table = module.constant(f"{name}.sources", f"[{len(sources)} x i32] [{', '.join(f'i32 {s}' for s in sources)}]")
    type_, lanes, pointers, bits = (vector(t, width) for t in (scalar, "i32", "ptr", "i1"))
    gather = module.declare(f"llvm.masked.gather.{mangle(type_)}.v{width}p0", type_, [pointers, "i32", bits, type_])
    count = integers.multiply("%columns", groups)
    with f.loop("0", "%rows", hint="row", reduced=False) as row:
        source = f.value(f"getelementptr {scalar}, ptr %from, i64 {integers.multiply(row, step)}")
        target = f.value(f"getelementptr {scalar}, ptr %to, i64 {integers.multiply(row, tile.columns * groups)}")
        with f.loop("0", count, str(width), hint="place", reduced=False) as place:
            offset = f.value(f"load {lanes}, ptr {f.value(f'getelementptr i32, ptr {table}, i64 {place}')}, align 4")
            at = f.value(f"getelementptr {scalar}, ptr {source}, {lanes} {offset}")
            mask = integers.mask(width, 0, integers.subtract(count, place))
            operands = (pointers, at), ("i32", str(dtype.itemsize)), (bits, mask), (type_, "zeroinitializer")
            numbers = f.call(type_, gather, *operands)
            store_consecutive(f, dtype, width, target, place, numbers, mask)
    f.do("ret void")
    return f"@{name}"


def columns_bytes(plan: DirectPlan) -> int:
    """The size of a tile's columns, if those of the next tile stand behind them; else 0."""
    block = plan.runs * plan.run * plan.tile.width
    if plan.blocks > 1 or plan.group or any(offset != v * block for v, offset in enumerate(plan.rhs.offsets)):
        return 0
    return plan.tile.vectors * block * plan.dtype.itemsize


def emit_runs_kernel(module: Module, plan: DirectPlan) -> str:
    """The symbol of the function

        void (i64 runs, ptr table, ptr a, ptr b, ptr next, ptr c, i64 c_step, i1 accumulate)

    that computes a tile of c = a b, or c += a b. For each run the table has two offsets, which a and b are read at, and where
    tiles leave out rows, which kind of them is taken; rows, columns and the steps of a run stand where the plan says. Row i of
    the result is at c + i * c_step (all in elements). What is at `next` is needed later, and fetched as far as the steps give
    time for it.
    """
    tile = plan.tile
    ahead = min(_MOST_AHEAD_BYTES, -(-columns_bytes(plan) // (plan.m_block * plan.runs * plan.run)))
    kinds = (tuple(range(tile.rows)),) if plan.trims is None else plan.trims.kinds
    shape = (kinds, ahead, plan.run, plan.lhs.step_strides[-1], plan.rhs.step_strides[-1], plan.lhs.offsets, plan.rhs.offsets)
    digest = hashlib.md5(repr(shape).encode(), usedforsecurity=False).hexdigest()[:12]
    name = f"graphc.runs.{tile.dtype.name}.{tile.rows}x{tile.columns}.{digest}"
    if module.has(name):
        return f"@{name}"
    params = [("i64", "runs"), *(("ptr", p) for p in ("table", "a", "b", "next", "c")), ("i64", "c_step"), ("i1", "accumulate")]
    f = module.function(name, params, linkage="internal", attributes="nounwind noinline")
    scalar = REGISTER[tile.dtype.name]
    type_ = vector(scalar, tile.width)
    align = tile.dtype.itemsize
    sums = cleared_sums(f, tile)
    pointers = [f.slot("ptr"), f.slot("ptr")]
    following = f.slot("ptr")
    f.do(f"store ptr %next, ptr {following}")

    def element(pointer: str, offset: str | int) -> str:
        return f.value(f"getelementptr {scalar}, ptr {pointer}, i64 {offset}") if offset else pointer

    def multiply(rows: Collection[int], steps: int) -> None:
        """Multiply some of the rows, a few steps of them."""
        a, b = (f.value(f"load ptr, ptr {slot}") for slot in pointers)
        strides = [operand.step_strides[-1] for operand in (plan.lhs, plan.rhs)]
        totals = {slot: f.value(f"load {type_}, ptr {slot}") for i in rows for slot in sums[i]}
        place = f.value(f"load ptr, ptr {following}") if ahead else ""
        for k in range(steps):
            later = element(b, (k + _AHEAD) * strides[1])
            for line in sorted({offset * align // LINE_BYTES for offset in plan.rhs.offsets}):
                prefetch(f, element(later, line * LINE_BYTES // align), 1)
            if ahead:
                prefetch(f, place, ahead, level=2)
                place = f.value(f"getelementptr i8, ptr {place}, i64 {ahead}")
            starts = (element(b, k * strides[1] + offset) for offset in plan.rhs.offsets)
            columns = [f.value(f"load {type_}, ptr {start}, align {align}") for start in starts]
            for i in rows:
                start = element(a, k * strides[0] + plan.lhs.offsets[i])
                factor = f.splat(scalar, f.value(f"load {scalar}, ptr {start}, align {align}"), tile.width)
                for slot, column in zip(sums[i], columns, strict=True):
                    totals[slot] = multiply_add(f, tile.dtype, type_, factor, column, totals[slot])
        for slot, total in totals.items():
            f.do(f"store {type_} {total}, ptr {slot}")
        if ahead:
            f.do(f"store ptr {place}, ptr {following}")
        for slot, pointer, stride in zip(pointers, (a, b), strides):
            f.do(f"store ptr {element(pointer, steps * stride)}, ptr {slot}")

    with f.loop("0", "%runs", hint="run", reduced=False) as run:
        entry = f.value(f"getelementptr [{plan.entry} x i64], ptr %table, i64 {run}")
        values = [f.value(f"load i64, ptr {f.value(f'getelementptr i64, ptr {entry}, i64 {at}')}") for at in range(plan.entry)]
        for pointer, offset, slot in zip(("%a", "%b"), values, pointers):
            f.do(f"store ptr {element(pointer, offset)}, ptr {slot}")
        for kind, rows in enumerate(kinds):
            is_taken = f.when(f.value(f"icmp eq i64 {values[2]}, {kind}")) if len(kinds) > 1 else nullcontext()
            with is_taken:
                if plan.run >= _TOGETHER:
                    with f.loop("0", str(plan.run // _TOGETHER), hint="steps", reduced=False):
                        multiply(rows, _TOGETHER)
                if plan.run % _TOGETHER:
                    multiply(rows, plan.run % _TOGETHER)
    finish_with_sums(f, tile, sums)
    return f"@{name}"
