"""Attention as functions: softmax(scale * q k^T) v, without the matrix of weights in memory.

A task computes a block of queries of one matrix of the batch. Queries are in the lanes: the scores of a block of keys are the
product of the keys, as they stand, with the task's queries, turned once; so all of softmax goes lane by lane. It is online
(Milakov and Gimelshein 2018: "Online normalizer calculation for softmax"): when a block of keys brings a greater score, what
was summed before is scaled down. The sums of the values are turned back at the end. What a task holds stays in the caches:

    turned    [width][queries]    the queries
    weights   [keys][queries]     scores of a block of keys, then their exponentials
    sums      [columns][queries]  of values times weights
    greatest, total  [queries]    the greatest score so far, and the sum of the weights

    name       the kernel: has the tasks done
    name.task  computes one block of queries
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.backends.llvm import elementwise
from graphc.backends.llvm.builder import literal, vector
from graphc.backends.llvm.context import ALIGNMENT, Context
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.memory import load_consecutive, load_one
from graphc.backends.llvm.microkernel import Tile, emit_microkernel, lanes_of
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.transpose import emit_transpose
from graphc.kernel import Attention, Block
from graphc.types import bool_, float32

_VECTORS = 4
"""Of queries in a task: several chains of operations at a time hide their latencies."""
_KEYS = 96
"""About how many keys a block has, so that their weights stay in the level-1 cache beside the sums."""
_SERIAL = 25_000
"""Cycles that attention must take to be shared among threads."""
_SCALAR = "float"


def render_attention(context: Context, kernel: Attention, name: str) -> None:
    """Add the kernel to the context's module as `void name(ptr context)`."""
    task = _Task(context, kernel, name)
    task.write()
    f = context.module.function(name, [("ptr", "context")], linkage="internal")
    chunks = math.prod(kernel.batch) * task.blocks
    cycles = math.prod(kernel.batch) * kernel.keys * (task.scores.cycles(1, task.queries, kernel.width)) * task.blocks
    if cycles >= _SERIAL and chunks > 1:
        context.parallel_for(f, f"@{name}.task", str(chunks))
    else:
        with f.loop("0", str(chunks), hint="chunk") as chunk:
            f.call("void", f"@{name}.task", ("ptr", "%context"), ("i64", chunk))
    f.do("ret void")


def _tile(target: Target, rows: int, columns: int, steps: int) -> Tile:
    """The shape of a micro-kernel for rows of queries, whose columns divide those of a task."""
    width = lanes_of(target, float32)
    spare = 1 if target.has_fma else 2
    shapes = [
        Tile(float32, count, vectors, width)
        for vectors in (1, 2, 4)
        for count in range(1, min(rows, (target.vector_registers - spare) // vectors - 1) + 1)
    ]
    return min(shapes, key=lambda tile: tile.cycles(rows, columns, steps))


class _Task:
    """Writes name.task."""

    def __init__(self, context: Context, kernel: Attention, name: str) -> None:
        self.context = context
        self.kernel = kernel
        self.width = lanes_of(context.target, float32)
        self.queries = _VECTORS * self.width
        self.blocks = -(-kernel.queries // self.queries)
        self.scores = _tile(context.target, kernel.keys, self.queries, kernel.width)
        self.values = _tile(context.target, kernel.columns, self.queries, min(kernel.keys, _KEYS))
        self.block = max(1, _KEYS // self.scores.rows) * self.scores.rows
        self.type = vector(_SCALAR, self.width)
        self.f = context.module.function(f"{name}.task", [("ptr", "context"), ("i64", "chunk")], linkage="internal")
        self.integers = Integers(self.f)

    def write(self) -> None:
        """The whole function."""
        f, kernel, integers, queries = self.f, self.kernel, self.integers, self.queries
        blocks = [kernel.q, kernel.k, kernel.v, kernel.out, *([kernel.mask] if kernel.mask is not None else [])]
        pointers = self.context.pointers(f, [block.buffer for block in blocks])
        matrix = integers.divide("%chunk", self.blocks)
        first = integers.multiply(integers.remainder("%chunk", self.blocks), queries)
        count = integers.least(integers.subtract(kernel.queries, first), queries)
        q, k, v, out, *mask = (self.matrix(block, pointers(block.buffer), matrix) for block in blocks)
        q = self.element(q, integers.multiply(first, kernel.q.strides[-2]))
        out = self.element(out, integers.multiply(first, kernel.out.strides[-2]))
        turned = f.slot(f"[{kernel.width * queries} x float]", ALIGNMENT)
        sums = f.slot(f"[{kernel.columns * queries} x float]", ALIGNMENT)
        # a tile of the last keys begins earlier, so that it does not reach beyond them: perhaps before the block
        space = f.slot(f"[{(self.block + self.scores.rows) * queries} x float]", ALIGNMENT)
        weights = self.element(space, str(self.scores.rows * queries))
        greatest, total = ([f.slot(self.type) for _ in range(_VECTORS)] for _ in range(2))
        for slots, number in ((greatest, -math.inf), (total, 0.0)):
            for slot in slots:
                f.do(f"store {self.type} splat (float {literal(number, _SCALAR)}), ptr {slot}")
        self.turn(q, kernel.q.strides[-2:], kernel.width, turned, count, back=False)
        end = integers.least(integers.add(first, queries), kernel.keys) if kernel.causal else str(kernel.keys)
        with f.loop("0", end, str(self.block), hint="block") as start:
            keys = integers.least(integers.subtract(end, start), self.block)
            with f.loop("0", keys, str(self.scores.rows), hint="key") as key:
                place = integers.least(integers.add(start, key), kernel.keys - self.scores.rows)
                row = self.element(k, integers.multiply(place, kernel.k.strides[-2]))
                to = self.element(weights, integers.multiply(integers.subtract(place, start), queries))
                self.product(self.scores, kernel.k.strides[-2:], str(kernel.width), row, turned, to, "false")
            later = f.value(f"icmp ne i64 {start}, 0")
            self.softmax(weights, keys, start, first, count, mask, greatest, total, sums, later)
            values = self.element(v, integers.multiply(start, kernel.v.strides[-2]))
            self.weighted(values, weights, sums, keys, later)
        self.divide(sums, total)
        self.turn(out, kernel.out.strides[-2:], kernel.columns, sums, count, back=True)
        f.do("ret void")

    # Memory

    def element(self, pointer: str, offset: str) -> str:
        return pointer if offset == "0" else self.f.value(f"getelementptr float, ptr {pointer}, i64 {offset}")

    def matrix(self, block: Block, pointer: str, number: str) -> str:
        """The address of one matrix of a batch."""
        integers, offset = self.integers, str(block.offset)
        for size, stride in zip(reversed(block.shape[:-2]), reversed(block.strides[:-2]), strict=True):
            offset = integers.add(offset, integers.multiply(integers.remainder(number, size), stride))
            number = integers.divide(number, size)
        type_ = "i8" if block.buffer.dtype is bool_ else "float"
        return self.f.value(f"getelementptr {type_}, ptr {pointer}, i64 {offset}")

    def vector(self, pointer: str, row: str, number: int) -> str:
        """The address of a vector of a row of queries."""
        offset = self.integers.add(self.integers.multiply(row, self.queries), number * self.width)
        return self.element(pointer, offset)

    def load(self, pointer: str) -> str:
        return self.f.value(f"load {self.type}, ptr {pointer}, align 4")

    def store(self, value: str, pointer: str) -> None:
        self.f.do(f"store {self.type} {value}, ptr {pointer}, align 4")

    # The steps

    def product(
        self, tile: Tile, strides: Sequence[int], steps: str, a: str, b: str, c: str, accumulate: str, *, by_rows: bool = True
    ) -> None:
        """Rows of a matrix, where they stand, times all queries. `by_rows`: its first dimension is the product's rows, and
        the second the steps; else the other way round."""
        f, queries = self.f, self.queries
        row, step = strides if by_rows else reversed(strides)
        symbol = emit_microkernel(f.module, tile.with_row_stride(row))
        for column in range(0, queries, tile.columns):
            f.call(
                "void", symbol, ("i64", steps), ("ptr", a), ("i64", str(step)), ("ptr", self.element(b, str(column))),
                ("i64", str(queries)), ("ptr", self.element(c, str(column))), ("i64", str(queries)), ("i1", accumulate),
            )

    def weighted(self, values: str, weights: str, sums: str, keys: str, accumulate: str) -> None:
        """Add a block of values, times their weights."""
        kernel, tile = self.kernel, self.values
        row_stride = kernel.v.strides[-1]
        whole, rest = divmod(kernel.columns, tile.rows)
        with self.f.loop("0", str(whole * tile.rows), str(tile.rows), hint="column") as column:
            a = self.element(values, self.integers.multiply(column, row_stride))
            c = self.element(sums, self.integers.multiply(column, self.queries))
            self.product(tile, kernel.v.strides[-2:], keys, a, weights, c, accumulate, by_rows=False)
        if rest:
            last = Tile(float32, rest, tile.vectors, tile.width)
            a = self.element(values, str(whole * tile.rows * row_stride))
            c = self.element(sums, str(whole * tile.rows * self.queries))
            self.product(last, kernel.v.strides[-2:], keys, a, weights, c, accumulate, by_rows=False)

    def softmax(
        self, weights: str, keys: str, start: str, first: str, count: str, mask: Sequence[str], greatest: Sequence[str],
        total: Sequence[str], sums: str, later: str,
    ) -> None:
        """From the scores of a block of keys to weights, relative to the greatest scores so far."""
        f, kernel = self.f, self.kernel
        before = [self.load(slot) for slot in greatest]
        with f.loop("0", keys, hint="key") as key:
            for g, slot in enumerate(greatest):
                place = self.vector(weights, key, g)
                score = f.value(f"fmul {self.type} {self.load(place)}, splat (float {literal(kernel.scale, _SCALAR)})")
                allowed = self.allowed(self.integers.add(start, key), first, count, mask, g)
                for condition in allowed:
                    score = f.value(f"select <{self.width} x i1> {condition}, {self.type} {score}, "
                                    f"{self.type} splat (float {literal(-math.inf, _SCALAR)})")
                self.store(score, place)
                self.store(f.intrinsic("llvm.maxnum", self.type, self.load(slot), score), slot)
        shifts: list[str] = []
        for slot in greatest:
            new = self.load(slot)
            none = f.value(f"fcmp oeq {self.type} {new}, splat (float {literal(-math.inf, _SCALAR)})")
            # where all scores are -inf so far: then weights are 0, and not NaN before there is a reason for it
            shifts.append(f.value(f"select <{self.width} x i1> {none}, {self.type} zeroinitializer, {self.type} {new}"))
        scales = [self.exp(f.value(f"fsub {self.type} {old}, {new}")) for old, new in zip(before, shifts, strict=True)]
        for scale, slot in zip(scales, total, strict=True):
            self.store(f.value(f"fmul {self.type} {self.load(slot)}, {scale}"), slot)
        with f.when(later), f.loop("0", str(kernel.columns), hint="column") as column:
            for g, scale in enumerate(scales):
                place = self.vector(sums, column, g)
                self.store(f.value(f"fmul {self.type} {self.load(place)}, {scale}"), place)
        with f.loop("0", keys, hint="key") as key:
            for g, (shift, slot) in enumerate(zip(shifts, total, strict=True)):
                place = self.vector(weights, key, g)
                weight = self.exp(f.value(f"fsub {self.type} {self.load(place)}, {shift}"))
                self.store(weight, place)
                self.store(f.value(f"fadd {self.type} {self.load(slot)}, {weight}"), slot)

    def allowed(self, key: str, first: str, count: str, mask: Sequence[str], g: int) -> list[str]:
        """Which of a vector of queries may look at a key, one condition after another."""
        f, kernel, width, integers = self.f, self.kernel, self.width, self.integers
        conditions: list[str] = []
        if kernel.causal:
            # query first + g * width + lane >= key
            conditions.append(integers.mask(width, integers.subtract(key, integers.add(first, g * width)), width))
        if kernel.mask is not None:
            rows, columns = kernel.mask.strides[-2:]
            offset = integers.multiply(key, columns)
            if rows == 0:
                one = load_one(f, bool_, mask[0], offset)
                conditions.append(f.splat("i1", one, width))
            else:
                offset = integers.add(offset, integers.add(first, g * width))
                valid = integers.mask(width, 0, integers.subtract(count, g * width))
                conditions.append(load_consecutive(f, bool_, width, mask[0], offset, valid))
        return conditions

    def exp(self, x: str) -> str:
        return elementwise.render(self.f, "exp", float32, self.width, [x], result=float32)

    def divide(self, sums: str, total: Sequence[str]) -> None:
        """Bring the sums of values into proportion to those of their weights."""
        f = self.f
        one = f"splat (float {literal(1.0, _SCALAR)})"
        factors = [f.value(f"fdiv {self.type} {one}, {self.load(slot)}") for slot in total]
        if self.kernel.zeros:
            nothing = [f.value(f"fcmp oeq {self.type} {self.load(slot)}, zeroinitializer") for slot in total]
            factors = [f.value(f"select <{self.width} x i1> {n}, {self.type} zeroinitializer, {self.type} {x}")
                       for n, x in zip(nothing, factors, strict=True)]
        with f.loop("0", str(self.kernel.columns), hint="column") as column:
            for g, factor in enumerate(factors):
                place = self.vector(sums, column, g)
                self.store(f.value(f"fmul {self.type} {self.load(place)}, {factor}"), place)

    def turn(self, rows: str, strides: Sequence[int], columns: int, turned: str, count: str, *, back: bool) -> None:
        """Take a block of rows of queries to their columns, or back. Queries past the last are copies of that."""
        f, integers, queries, width = self.f, self.integers, self.queries, self.width
        row, column = strides
        whole = columns // width * width if column == 1 else 0
        is_full = f.value(f"icmp eq i64 {count}, {queries}")
        start = f.value(f"select i1 {is_full}, i64 {whole}, i64 0")
        transpose = emit_transpose(f.module, float32, width)
        with f.loop("0", start, str(width), hint="square") as j, f.loop("0", str(queries), str(width), hint="query") as i:
            outside = self.element(rows, integers.add(integers.multiply(i, row), j))
            inside = self.element(turned, integers.add(integers.multiply(j, queries), i))
            places = [(inside, queries), (outside, row)] if back else [(outside, row), (inside, queries)]
            f.call("void", transpose, *(arg for at, step in places for arg in (("ptr", at), ("i64", str(step)))))
        last = integers.subtract(count, 1)
        with f.loop("0", count if back else str(queries), hint="query") as i:
            outer = self.element(rows, integers.multiply(i if back else integers.least(i, last), row))
            with f.loop(start, str(columns), hint="column") as j:
                outside = self.element(outer, integers.multiply(j, column))
                inside = self.element(turned, integers.add(integers.multiply(j, queries), i))
                source, target = (inside, outside) if back else (outside, inside)
                f.do(f"store float {f.value(f'load float, ptr {source}, align 4')}, ptr {target}, align 4")
