"""The derivative of attention as functions: dq, dk and dv, without the matrix of weights in memory.

A task computes one matrix of the batch, or where there are few of them its share of the keys, by blocks of keys, which are in
the lanes. For each block of queries, whose rows are read where they stand, it computes the weights again, and adds what they
contribute. What a task holds stays in the caches:

    keys, values       [width][keys], [columns][keys]  a block of k and v, turned
    dk_sums, dv_sums   likewise                        turned back when all queries have been seen
    weights, slopes    [queries][keys]                 of a block of queries
    rows               [keys][width]                   k as it is, where its rows are not whole vectors

dq is summed over the blocks of keys in its own memory; where its rows are not whole vectors, or several tasks contribute to it,
in scratch memory.

    name       the kernel: has the tasks done
    name.task  computes one matrix, or a share of it
    name.sum   sums a block of dq over the shares
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from graphc.backends.llvm.attention_task import SCALAR, LaneTask, choose_rows, run_tasks
from graphc.backends.llvm.builder import literal
from graphc.backends.llvm.context import ALIGNMENT, Context
from graphc.backends.llvm.memory import load_consecutive, load_one
from graphc.backends.llvm.microkernel import Tile
from graphc.kernel import AttentionBackward, Block
from graphc.types import bool_, float32

_VECTORS = 2
"""Of keys in a block: more would waste more of the blocks that reach beyond a causal diagonal."""
_TASKS = 8
"""Into about so many tasks few matrices are divided, so that there are some for each thread. How many threads there are does
not matter: the sums would be others."""
_QUERIES = 96
"""About how many queries a block has, so that their weights and slopes stay in the level-1 cache."""


def render_attention_backward(context: Context, kernel: AttentionBackward, name: str) -> None:
    """Add the kernel to the context's module as `void name(ptr context)`."""
    task = _Task(context, kernel, f"{name}.task")
    task.write()
    tasks = [(f"{name}.task", math.prod(kernel.batch) * task.shares)]
    if task.shares > 1:
        total = _Sum(context, kernel, f"{name}.sum", task.shares)
        total.write()
        tasks.append((f"{name}.sum", math.prod(kernel.batch) * total.blocks))
    run_tasks(context, name, kernel, *tasks)


class _Rows(LaneTask[AttentionBackward]):
    """What works on dq, whose rows are padded to whole vectors in scratch memory."""

    def __init__(self, context: Context, kernel: AttentionBackward, name: str) -> None:
        super().__init__(context, kernel, name, _VECTORS)
        self.padded = -(-kernel.width // self.width) * self.width

    def is_whole(self, block: Block) -> bool:
        """Whether the rows of a matrix are made of whole vectors."""
        return block.strides[-1] == 1 and self.padded == self.kernel.width

    def scratch(self, task: str) -> str:
        """Where a task sums dq."""
        return self.element(self.context.scratch(self.f), self.integers.multiply(task, self.kernel.queries * self.padded))

    def copy(self, count: str, a: str, a_strides: Sequence[int], b: str, b_strides: Sequence[int]) -> None:
        """Copy `count` rows of `width` numbers."""
        f, integers = self.f, self.integers
        with f.loop("0", count, hint="row") as i, f.loop("0", str(self.kernel.width), hint="column") as j:
            source, target = (
                self.element(place, integers.add(integers.multiply(i, row), integers.multiply(j, column)))
                for place, (row, column) in ((a, a_strides), (b, b_strides))
            )
            f.do(f"store float {f.value(f'load float, ptr {source}, align 4')}, ptr {target}, align 4")


class _Sum(_Rows):
    """Sums rows of dq over the shares of the keys, in their order."""

    def __init__(self, context: Context, kernel: AttentionBackward, name: str, shares: int) -> None:
        super().__init__(context, kernel, name)
        self.shares = shares
        self.blocks = -(-kernel.queries // _QUERIES)

    def write(self) -> None:
        """The whole function."""
        f, integers, kernel, dq = self.f, self.integers, self.kernel, self.kernel.dq
        matrix = integers.divide("%chunk", self.blocks)
        first = integers.multiply(integers.remainder("%chunk", self.blocks), _QUERIES)
        count = integers.least(integers.subtract(kernel.queries, first), _QUERIES)
        to = self.row(self.member(dq, self.context.pointers(f, [dq.buffer])(dq.buffer), matrix), dq, first)
        parts = [self.scratch(integers.add(integers.multiply(matrix, self.shares), share)) for share in range(self.shares)]
        parts = [self.element(part, integers.multiply(first, self.padded)) for part in parts]
        place, step = (to, dq.strides[-2]) if self.is_whole(dq) else (parts[0], self.padded)
        with f.loop("0", count, hint="row") as i, f.loop("0", str(self.padded), str(self.width), hint="column") as j:
            at = integers.add(integers.multiply(i, self.padded), j)
            total = functools.reduce(lambda a, b: self.binary("fadd", a, b), [self.load(self.element(p, at)) for p in parts])
            self.store(total, self.element(place, integers.add(integers.multiply(i, step), j)))
        if place != to:
            self.copy(count, place, (step, 1), to, dq.strides[-2:])
        f.do("ret void")


class _Task(_Rows):
    """The keys are in the lanes."""

    def __init__(self, context: Context, kernel: AttentionBackward, name: str) -> None:
        super().__init__(context, kernel, name)
        blocks = -(-kernel.keys // self.lanes)
        self.share = -(-blocks // min(blocks, -(-_TASKS // math.prod(kernel.batch)))) * self.lanes
        self.shares = -(-kernel.keys // self.share)
        self.by_query = choose_rows(context.target, kernel.queries, self.lanes, kernel.width, (_VECTORS,))
        vectors = 1 if self.padded // self.width % _VECTORS else _VECTORS
        self.of_queries = Tile(float32, self.by_query.rows, vectors, self.width)
        self.queries = max(1, _QUERIES // self.by_query.rows) * self.by_query.rows
        steps = min(kernel.queries, self.queries)
        self.of_keys, self.of_values = (
            choose_rows(context.target, rows, self.lanes, steps) for rows in (kernel.width, kernel.columns)
        )

    def write(self) -> None:
        """The whole function."""
        f, kernel, integers, lanes = self.f, self.kernel, self.integers, self.lanes
        blocks = (*kernel.operands, *kernel.results)
        pointers = self.context.pointers(f, [block.buffer for block in blocks])
        matrix = integers.divide("%chunk", self.shares)
        at = self.at = {block: self.member(block, pointers(block.buffer), matrix) for block in blocks}
        keys, dk_sums = (f.slot(f"[{kernel.width * lanes} x float]", ALIGNMENT) for _ in range(2))
        values, dv_sums = (f.slot(f"[{kernel.columns * lanes} x float]", ALIGNMENT) for _ in range(2))
        weights, slopes = (f.slot(f"[{self.queries * lanes} x float]", ALIGNMENT) for _ in range(2))
        dq_sums = self.dq_sums()
        begin = integers.multiply(integers.remainder("%chunk", self.shares), self.share)
        end = integers.least(integers.add(begin, self.share), kernel.keys)
        with f.loop(begin, end, str(lanes), hint="block") as start:
            count = integers.least(integers.subtract(kernel.keys, start), lanes)
            for block, turned in ((kernel.k, keys), (kernel.v, values)):
                self.turn(self.row(at[block], block, start), block.strides[-2:], block.shape[-1], turned, count, back=False)
            rows = self.key_rows(start, count)
            self.clear(dk_sums, kernel.width)
            self.clear(dv_sums, kernel.columns)
            with f.loop(self.first_query(start), str(kernel.queries), str(self.queries), hint="query") as first:
                queries = integers.least(integers.subtract(kernel.queries, first), self.queries)
                if kernel.mask is not None:
                    skipped = self.skipped(start, first, queries)
                    first, queries = integers.add(first, skipped), integers.subtract(queries, skipped)
                with f.when(f.value(f"icmp sgt i64 {queries}, 0")):
                    q, ct = (self.row(at[block], block, first) for block in (kernel.q, kernel.ct))
                    for x, a, b, c in ((kernel.q, q, keys, weights), (kernel.ct, ct, values, slopes)):
                        self.each_row(self.by_query, queries, x.strides[-2:], str(x.shape[-1]), a, (b, lanes), (c, lanes))
                    self.weigh(start, first, queries, weights, slopes)
                    self.add_weighted(self.of_values, kernel.ct, ct, queries, weights, dv_sums)
                    self.add_weighted(self.of_keys, kernel.q, q, queries, slopes, dk_sums)
                    to = self.element(dq_sums[0], integers.multiply(first, dq_sums[1]))
                    self.each_row(self.of_queries, queries, (lanes, 1), count, slopes, rows, (to, dq_sums[1]), add=self.padded)
            for block, turned in ((kernel.dk, dk_sums), (kernel.dv, dv_sums)):
                self.turn(self.row(at[block], block, start), block.strides[-2:], block.shape[-1], turned, count, back=True)
        if self.shares == 1 and dq_sums[0] != at[kernel.dq]:
            self.copy(str(kernel.queries), dq_sums[0], (self.padded, 1), at[kernel.dq], kernel.dq.strides[-2:])
        f.do("ret void")

    # Memory

    def dq_sums(self) -> tuple[str, int]:
        """Where dq is summed, beginning with zeros, and how far rows are apart there."""
        kernel, f, integers = self.kernel, self.f, self.integers
        place, step = self.at[kernel.dq], kernel.dq.strides[-2]
        if self.shares > 1 or not self.is_whole(kernel.dq):
            tasks = math.prod(kernel.batch) * self.shares
            self.context.reserve_scratch(tasks * kernel.queries * self.padded * float32.itemsize)
            place, step = self.scratch("%chunk"), self.padded
        with f.loop("0", str(kernel.queries), hint="row") as i:
            row = self.element(place, integers.multiply(i, step))
            with f.loop("0", str(self.padded), str(self.width), hint="zero") as j:
                self.store("zeroinitializer", self.element(row, j))
        return place, step

    def key_rows(self, start: str, count: str) -> tuple[str, int]:
        """The rows of a block of keys, as whole vectors, and how far they are apart. What is beyond a row does not matter: it
        goes to columns of dq's sums that nobody reads."""
        kernel, f = self.kernel, self.f
        rows = self.row(self.at[kernel.k], kernel.k, start)
        if self.is_whole(kernel.k):
            return rows, kernel.k.strides[-2]
        copied = f.slot(f"[{self.lanes * self.padded} x float]", ALIGNMENT)
        self.copy(count, rows, kernel.k.strides[-2:], copied, (self.padded, 1))
        return copied, self.padded

    # The steps

    def first_query(self, start: str) -> str:
        """The first query that may look at a block of keys, or one before it, so that whole tiles remain."""
        if not self.kernel.causal:
            return "0"
        rows = self.by_query.rows
        return self.integers.multiply(self.integers.divide(start, rows), rows)

    def skipped(self, start: str, first: str, count: str) -> str:
        """How many queries of a block, counted in whole tiles, look at none of a block of keys, so that they contribute
        nothing; `count` if that goes for all. The weights of one that looks at no key at all are no numbers, and count."""
        f, integers, lse = self.f, self.integers, self.kernel.lse
        begin = f.slot("i64")
        f.do(f"store i64 {count}, ptr {begin}")
        with f.loop("0", count, hint="query") as i:
            query = integers.add(first, i)
            some = self.any_of([self.allowed(query, integers.add(start, g * self.width))[-1] for g in range(self.vectors)])
            own = f.value(f"load float, ptr {self.element(self.at[lse], integers.multiply(query, lse.strides[-1]))}, align 4")
            counts = f.value(f"or i1 {some}, {f.value(f'fcmp ule float {own}, {literal(-math.inf, SCALAR)}')}")
            before = f.value(f"load i64, ptr {begin}")
            least = integers.least(before, i)
            f.do(f"store i64 {f.value(f'select i1 {counts}, i64 {least}, i64 {before}')}, ptr {begin}")
        found = f.value(f"load i64, ptr {begin}")
        whole = integers.subtract(found, integers.remainder(found, self.by_query.rows))
        return f.value(f"select i1 {f.value(f'icmp eq i64 {found}, {count}')}, i64 {found}, i64 {whole}")

    def each_row(
        self, tile: Tile, count: str, strides: Sequence[int], steps: str, a: str, b: tuple[str, int], c: tuple[str, int],
        add: int = 0,
    ) -> None:
        """`count` rows of queries times a matrix; with `add`, added to so many columns of what is there. The rows begin with a
        whole tile, so that what remains is the same wherever queries end."""
        f, integers = self.f, self.integers

        def some(rows: Tile, row: str) -> None:
            place, to = (self.element(x, integers.multiply(row, step)) for x, step in ((a, strides[0]), c))
            self.tiles(rows, strides, steps, place, b, (to, c[1]), "true" if add else "false", add or self.lanes)

        rest = self.kernel.queries % tile.rows
        whole = integers.subtract(count, integers.remainder(count, tile.rows))
        with f.loop("0", whole, str(tile.rows), hint="row") as row:
            some(tile, row)
        if rest:
            with f.when(f.value(f"icmp ne i64 {whole}, {count}")):
                some(Tile(float32, rest, tile.vectors, tile.width), whole)

    def weigh(self, start: str, first: str, count: str, weights: str, slopes: str) -> None:
        """From scores, and products of cotangents with values, to weights and slopes."""
        f, kernel, integers = self.f, self.kernel, self.integers
        scale = self.number(kernel.scale)
        with f.loop("0", count, hint="query") as i:
            query = integers.add(first, i)
            lse, inner = (
                self.load_splat(self.element(self.at[block], integers.multiply(query, block.strides[-1])))
                for block in (kernel.lse, kernel.inner)
            )
            for g in range(self.vectors):
                score_at, slope_at = self.vector(weights, i, g), self.vector(slopes, i, g)
                score = self.binary("fmul", self.load(score_at), scale)
                allowed = self.allowed(query, integers.add(start, g * self.width))
                for condition in allowed:
                    score = self.select(condition, score, self.number(-math.inf))
                weight = self.function("exp", self.binary("fsub", score, lse))
                slope = self.binary("fmul", weight, self.binary("fsub", self.load(slope_at), inner))
                slope = self.binary("fmul", slope, scale)
                for condition in allowed:
                    slope = self.select(condition, slope, "zeroinitializer")
                self.store(weight, score_at)
                self.store(slope, slope_at)

    def allowed(self, query: str, key: str) -> list[str]:
        """Which of a vector of keys a query may look at, one condition after another."""
        f, mask, width, integers = self.f, self.kernel.mask, self.width, self.integers
        conditions: list[str] = []
        if self.kernel.causal:
            conditions.append(integers.mask(width, 0, integers.subtract(integers.add(query, 1), key)))
        if mask is not None:
            rows, columns = mask.strides[-2:]
            offset = integers.multiply(query, rows)
            if columns == 0:
                conditions.append(f.splat("i1", load_one(f, bool_, self.at[mask], offset), width))
            else:
                valid = integers.mask(width, 0, integers.subtract(self.kernel.keys, key))
                conditions.append(load_consecutive(f, bool_, width, self.at[mask], integers.add(offset, key), valid))
        return conditions
