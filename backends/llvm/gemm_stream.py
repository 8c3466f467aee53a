"""Tasks of a matrix product that stream rows of the left operand past panels of the right one.

A task packs a block of the right operand for itself, and goes through its rows of tiles: those of each are copied while the
tile before is computed. It shares out these rows one after another, and workers that find no task any more take some of them:
cores are not equally fast at all times. So all are done when the last row is, not when the slowest core has done its part.

Each worker has a `Share` in the scratch memory, where it says what there is to take. It packs the next block when nobody reads
the last one any more:

    the worker                          one that helps
    ----------                          --------------
    packs, NEXT = 0                     HELPERS += 1
    OPEN = which block of which task    is it OPEN?
    takes rows, until none is left      then takes rows, until none is left
    OPEN = 0                            HELPERS -= 1
    waits until HELPERS = 0

What a row's sums are does not depend on who computes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.backends.llvm.builder import Function, vector
from graphc.backends.llvm.gemm_parts import FINISHED, Parts, Share
from graphc.backends.llvm.gemm_task import Lanes, Reader, Task
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.memory import LINE_BYTES
from graphc.backends.llvm.microkernel import Tile
from graphc.backends.llvm.sizes import size_operand

_ROWS = 8
"""How many rows of the right operand are packed at a time: what is written of a panel then goes on from line to line."""
_WORTH_HELPING = 4
"""How many rows of tiles there must be left for another worker to take some: it fetches the whole block from the core that has
packed it, which takes about as long as two or three of them."""
_PATIENCE = 2000
"""How many times a worker looks for somebody to help, before it leaves the others to themselves."""

Range = tuple[str, str]


class StreamTask(Task):
    """Writes the body of name.task, where rows are streamed."""

    def go(self, matrix: str, lhs: Reader, rhs: Reader, rows: Range, columns: Range, place: str) -> None:
        """Go through the blocks of steps: pack one, and have the rows computed with it."""
        plan, f, integers = self.plan, self.f, self.integers
        next_, open_, helpers = (self.product.share(f, "%share", field) for field in (Share.NEXT, Share.OPEN, Share.HELPERS))
        with integers.loop(0, plan.k_blocks, "block") as block:
            self.pack_block(rhs, block, columns)
            f.do(f"store atomic i64 0, ptr {next_} monotonic, align 8")
            number = integers.add(integers.add(integers.multiply("%task", plan.k_blocks), block), 1)
            f.do(f"store atomic i64 {number}, ptr {open_} seq_cst, align 8")
            f.call("i64", f"@{self.product.name}.rows", ("ptr", "%context"), ("i64", "%task"), ("i64", block),
                   ("ptr", "%own"), ("ptr", "%own"), ("ptr", "%share"))  # fmt: skip
            f.do(f"store atomic i64 0, ptr {open_} seq_cst, align 8")
            with f.repeat("helped") as go_on_if:
                count = f.value(f"load atomic i64, ptr {helpers} seq_cst, align 8")
                go_on_if(f.value(f"icmp ne i64 {count}, 0"))
                _pause(self.product, f)

    def pack_block(self, rhs: Reader, block: str, columns: Range) -> None:
        """Pack a block of steps of the right operand. Rows that stand in memory are taken a few at a time, as far as they go:
        to read a panel after another would be to fetch a few lines of each row, again and again."""
        plan, f, integers, product, tile = self.plan, self.f, self.integers, self.product, self.plan.tile
        assert isinstance(tile, Tile)
        first = columns[0]
        if rhs.stands_in_rows:
            assert rhs.side.operand.strides is not None
            row_step = rhs.side.operand.strides[1]
            whole = integers.least(columns[1], plan.n // tile.columns)
            start, count = product.steps(f, block)
            with f.loop("0", count, str(_ROWS), hint="rows") as k, f.loop(first, whole, hint="column") as j:
                lanes = product.element(f, rhs.base, integers.multiply(j, tile.columns))
                panel = rhs.panel(j)
                with f.loop(k, integers.least(integers.add(k, _ROWS), count), hint="step") as step:
                    here = product.element(f, lanes, integers.multiply(integers.add(start, step), row_step))
                    there = product.element(f, panel, integers.multiply(step, tile.columns))
                    for v in range(tile.vectors):
                        at = str(v * tile.width)
                        _copy(self, product.element(f, here, at), product.element(f, there, at))
            first = integers.greatest(first, whole)
        with f.loop(first, columns[1], hint="column") as j:
            product.call_packing(f, rhs.side, rhs.batch, j, block, rhs.panel(j))

class StreamRows(Task):
    """Writes the body of name.rows: takes rows of tiles that a task shares out, until none is left. The result is how many."""

    def __init__(self, product: Parts, f: Function) -> None:
        super().__init__(product, f, panels="%panels")
        self.number = f.slot("i64")
        f.do(f"store i64 0, ptr {self.number}")

    def write(self) -> None:
        """All of it."""
        super().write()
        self.f.do(f"ret i64 {self.f.value(f'load i64, ptr {self.number}')}")

    def go(self, matrix: str, lhs: Reader, rhs: Reader, rows: Range, columns: Range, place: str) -> None:
        """Go through the rows that are taken, and for each through the columns of tiles."""
        plan, f, integers, product, tile = self.plan, self.f, self.integers, self.product, self.plan.tile
        assert isinstance(tile, Tile) and lhs.side.operand.strides is not None
        row_step, k_step = lhs.side.operand.strides
        # a part is some steps of each row; or where rows stand side by side, some whole steps
        in_rows = tile.row_stride > 1
        part, from_step, to_step = (
            (tile.copied * tile.width, row_step, 1) if in_rows else (tile.copied * tile.rows, k_step, tile.lanes)
        )
        last_column = integers.subtract(columns[1], 1)
        start, count = product.steps(f, "%block")

        def source(i: str) -> str:
            offset = integers.add(integers.multiply(lhs.first_lane(i), row_step), integers.multiply(start, k_step))
            return product.element(f, lhs.base, offset)

        def copied(number: str) -> str:
            offset = integers.multiply(integers.remainder(number, 2), plan.copied_panel)
            return product.element(f, "%own", integers.add(offset, 0 if in_rows else tile.lanes))

        def back(pointer: str, i: str) -> str:
            """The same place for vectors that begin early enough not to reach beyond the last row."""
            beyond = integers.subtract(integers.add(lhs.first_lane(i), tile.lanes), plan.m)
            early = "0" if in_rows else integers.greatest(beyond, 0)
            return product.element(f, pointer, integers.subtract("0", early))

        # some tiles below one another are taken at a time where they are turned together
        group = plan.group if self.collects else 1
        groups = integers.divide(integers.add(integers.subtract(rows[1], rows[0]), group - 1), group)
        counter = product.share(f, "%share", Share.NEXT)

        def take() -> str:
            return f.value(f"atomicrmw add ptr {counter}, i64 1 monotonic")

        def first_of(taken: str) -> str:
            return integers.add(rows[0], integers.multiply(taken, group))

        # which group comes next: none for a worker that helps where little is left
        taken_slot = f.slot("i64")
        f.do(f"store i64 {groups}, ptr {taken_slot}")
        helps = f.value("icmp ne ptr %panels, %own")
        left = integers.subtract(groups, f.value(f"load atomic i64, ptr {counter} monotonic, align 8"))
        is_little = f.value(f"icmp slt i64 {left}, {-(-_WORTH_HELPING // group)}")
        with f.when(f.value(f"xor i1 {f.value(f'and i1 {helps}, {is_little}')}, true")):
            f.do(f"store i64 {take()}, ptr {taken_slot}")
        first = first_of(f.value(f"load i64, ptr {taken_slot}"))
        with f.when(f.value(f"icmp slt i64 {first}, {rows[1]}")):
            here, there = back(source(first), first), back(copied("0"), first)
            with integers.loop(0, tile.rows if in_rows else count, "line") as line:
                size = count if in_rows else str(tile.lanes)
                with f.loop("0", size, str(tile.width), hint="part") as at:
                    early = integers.least(at, integers.subtract(size, tile.width))
                    sides = ((here, from_step), (there, tile.row_stride if in_rows else to_step))
                    offsets = (integers.add(integers.multiply(line, step), early) for _, step in sides)
                    _copy(self, *(product.element(f, x, offset) for (x, _), offset in zip(sides, offsets)))
        with f.repeat("group") as go_on_if:
            taken = f.value(f"load i64, ptr {taken_slot}")
            go_on_if(f.value(f"icmp slt i64 {taken}, {groups}"))
            begin = first_of(taken)
            end = integers.least(integers.add(begin, group), rows[1])
            with integers.loop(begin, end, "row") as i:
                number = f.value(f"load i64, ptr {self.number}")
                f.do(f"store i64 {integers.add(number, 1)}, ptr {self.number}")
                a = Lanes(copied(number), to_step, integers.subtract(integers.multiply(i, tile.rows), lhs.first_lane(i)))
                row = integers.add(i, 1)
                is_last = f.value(f"icmp eq i64 {row}, {end}")
                with f.when(is_last):
                    f.do(f"store i64 {take()}, ptr {taken_slot}")
                # the next tile's rows: in the end any
                later = integers.least(first_of(f.value(f"load i64, ptr {taken_slot}")), integers.subtract(rows[1], 1))
                row = f.value(f"select i1 {is_last}, i64 {later}, i64 {row}")
                next_, to = back(source(row), row), back(copied(integers.add(number, 1)), row)
                beyond = source(integers.add(row, 1))
                with integers.loop(*columns, "column") as j:
                    b = rhs.read(j, j, "%block", "%block")
                    ends = f.value(f"icmp eq i64 {j}, {last_column}")
                    passed = integers.subtract(j, columns[0])
                    if in_rows:
                        pieces = integers.subtract(columns[1], columns[0])
                        first = integers.multiply(passed, tile.rows)
                        then = f.value(f"select i1 {ends}, i64 0, i64 {integers.add(first, tile.rows)}")
                        splits = (integers.divide, integers.remainder)
                        places = [split(x, pieces) for x in (first, then) for split in splits]
                        last = integers.subtract(count, part)
                        here, there, after = next_, to, f.value(f"select i1 {ends}, ptr {beyond}, ptr {next_}")
                        more = [("i64", x) for x in (*places, pieces, last)]
                    else:
                        early = integers.least(integers.multiply(passed, part), integers.subtract(count, part))
                        here = product.element(f, next_, integers.multiply(early, k_step))
                        there = product.element(f, to, integers.multiply(early, to_step))
                        after = product.element(f, here, integers.multiply(part, k_step))
                        after, more = f.value(f"select i1 {ends}, ptr {beyond}, ptr {after}"), []
                    copying = [("ptr", here), ("i64", size_operand(f, from_step)), ("ptr", there), ("ptr", after), *more]
                    if self.collects:
                        self.collect("%block", i, j, rows[0], columns[0], a, b, copying)
                    else:
                        self.tile(matrix, "%block", i, j, a, b, place, copying)
                if self.collects:
                    self.store_collected(matrix, "%block", i, rows, columns, a)

    def collected(self, tiles: str, skipped: str = "0") -> str:
        """The address of collected sums, some tiles and rows below the first."""
        plan, integers = self.plan, self.integers
        row = integers.add(integers.multiply(tiles, plan.tile.rows), skipped)
        start = plan.private - plan.collected_rows * plan.collected_step
        # those of several blocks are the task's, of whose rows each block may be another worker's
        memory = "%own" if plan.k_blocks == 1 else "%panels"
        return self.product.element(self.f, memory, integers.add(integers.multiply(row, plan.collected_step), start))

    def since_group(self, i: str, first: str) -> tuple[str, str]:
        """How many tiles a tile is below the first of those that are turned with it, and below the first that is collected."""
        passed = self.integers.subtract(i, first)
        since = self.integers.remainder(passed, self.plan.group)
        return since, since if self.plan.k_blocks == 1 else passed

    def collect(
        self, block: str, i: str, j: str, first: str, column: str, a: Lanes, b: Lanes, copying: Sequence[tuple[str, str]]
    ) -> None:
        """Compute a tile that is turned later with others; the task's first one is in row `first` and column `column`."""
        plan, f, integers, product, tile = self.plan, self.f, self.integers, self.product, self.plan.tile
        since, row = self.since_group(i, first)
        to = product.element(f, self.collected(row), integers.multiply(integers.subtract(j, column), tile.columns))
        steps = [size_operand(f, size) for size in (a.step, b.step, plan.collected_step)]
        start = integers.multiply(integers.subtract(i, since), tile.rows)
        line = integers.add(start, integers.multiply(since, LINE_BYTES // tile.dtype.itemsize))
        accumulate = "false" if plan.k_blocks == 1 else f.value(f"icmp ne i64 {block}, 0")
        f.call("void", product.microkernel, ("i64", product.steps(f, block)[1]), ("ptr", a.pointer), ("i64", steps[0]),
               ("ptr", b.pointer), ("i64", steps[1]), ("ptr", to), ("i64", steps[2]), ("i1", accumulate),
               *self.what_is_fetched(to, line, integers.multiply(j, tile.columns)), *copying)  # fmt: skip

    def store_collected(
        self, matrix: str, block: str, i: str, rows: tuple[str, str], columns: tuple[str, str], a: Lanes
    ) -> None:
        """After the last tile of those that are turned together, store them."""
        plan, f, integers, tile = self.plan, self.f, self.integers, self.plan.tile
        since, row = self.since_group(i, rows[0])
        is_last = f.value(f"icmp eq i64 {i}, {integers.subtract(rows[1], 1)}")
        ends = f.value(f"or i1 {is_last}, {f.value(f'icmp eq i64 {since}, {plan.group - 1}')}")
        if plan.k_blocks != 1:
            ends = f.value(f"and i1 {ends}, {f.value(f'icmp eq i64 {block}, {size_operand(f, plan.k_blocks - 1)}')}")
        column = integers.multiply(columns[0], tile.columns)
        width = integers.subtract(integers.least(integers.multiply(columns[1], tile.columns), plan.n), column)

        def store(sums: str, first: str, count: str) -> None:
            numbers = (first, count, column, width)
            f.call("void", f"@{self.product.name}.turned", ("ptr", "%context"), ("i64", matrix), ("ptr", sums),
                   *(("i64", number) for number in numbers))  # fmt: skip

        with f.when(ends):
            start = integers.multiply(integers.subtract(i, since), tile.rows)
            # a last tile that would reach beyond the operand has begun earlier
            whole = integers.least(integers.multiply(integers.add(i, 1), tile.rows), plan.m - plan.m % tile.rows)
            store(self.collected(integers.subtract(row, since)), start, integers.subtract(whole, start))
            if plan.m % tile.rows:
                with f.when(f.value(f"icmp eq i64 {i}, {size_operand(f, plan.m_tiles - 1)}")):
                    last = integers.multiply(i, tile.rows)
                    store(self.collected(row, a.skipped), last, integers.subtract(plan.m, last))


def _pause(product: Parts, f: Function) -> None:
    """Let the core do something else for a moment."""
    found = product.context.target.pause
    if found is not None:
        name, arguments = found
        f.call("void", f.module.declare(name, "void", [type_ for type_, _ in arguments]), *arguments)


def _copy(task: Task, here: str, there: str) -> None:
    """Copy a vector."""
    size, type_ = task.plan.dtype.itemsize, vector(task.product.scalar, task.plan.tile.width)
    part = task.f.value(f"load {type_}, ptr {here}, align {size}")
    task.f.do(f"store {type_} {part}, ptr {there}, align {size}")


def emit_helping(product: Parts, f: Function, own: str) -> None:
    """Go on in a worker whose memory is at `own`, where no task is left: take rows of others' tasks, until all are finished, or
    there has been nothing to take for a while."""
    plan, integers = product.plan, Integers(f)
    scratch = product.context.scratch(f)
    patience = f.slot("i64")
    f.do(f"store i64 {_PATIENCE}, ptr {patience}")
    with f.repeat("looking") as go_on_if:
        finished = f.value(f"load atomic i64, ptr {product.header(f, scratch, FINISHED)} acquire, align 8")
        go_on_if(f.value(f"icmp slt i64 {finished}, {size_operand(f, plan.tasks)}"))
        left = f.value(f"load i64, ptr {patience}")
        go_on_if(f.value(f"icmp ne i64 {left}, 0"))
        f.do(f"store i64 {integers.subtract(left, 1)}, ptr {patience}")
        with integers.loop(0, plan.workers, "other") as other:
            share = product.share_of(f, scratch, other)
            open_, helpers = (product.share(f, share, field) for field in (Share.OPEN, Share.HELPERS))
            with f.when(f.value(f"icmp ne i64 {f.value(f'load atomic i64, ptr {open_} monotonic, align 8')}, 0")):
                f.do(f"atomicrmw add ptr {helpers}, i64 1 seq_cst")
                block = f.value(f"load atomic i64, ptr {open_} seq_cst, align 8")
                with f.when(f.value(f"icmp ne i64 {block}, 0")):
                    block = integers.subtract(block, 1)
                    task, block = integers.divide(block, plan.k_blocks), integers.remainder(block, plan.k_blocks)
                    taken = f.call("i64", f"@{product.name}.rows", ("ptr", "%context"), ("i64", task), ("i64", block),
                                   ("ptr", product.worker_memory(f, scratch, other)), ("ptr", own), ("ptr", share))  # fmt: skip
                    with f.when(f.value(f"icmp ne i64 {taken}, 0")):
                        f.do(f"store i64 {_PATIENCE}, ptr {patience}")
                f.do(f"atomicrmw sub ptr {helpers}, i64 1 seq_cst")
        _pause(product, f)
