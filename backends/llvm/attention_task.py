"""What attention and its derivative are written with: products in which a vector's lanes are queries, or keys.

A task holds blocks of rows of `lanes` numbers each. What stands in the lanes is read from rows in memory and turned once, and
turned back where it is a result; the other factors of products are read where they stand.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from graphc.backends.llvm import elementwise
from graphc.backends.llvm.builder import literal, vector
from graphc.backends.llvm.context import Context
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.microkernel import Tile, emit_microkernel, lanes_of
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.transpose import emit_transpose
from graphc.kernel import Attention, AttentionBackward, Block
from graphc.types import bool_, float32

SCALAR = "float"
K = TypeVar("K", Attention, AttentionBackward)
_SERIAL = 1_600_000
"""Products that must be summed for a kernel to be shared among threads: some 10 us of them."""


def choose_rows(target: Target, rows: int, columns: int, steps: int, vectors: Iterable[int] = (1, 2, 4)) -> Tile:
    """The shape of a micro-kernel for so many rows, whose columns divide those of a task."""
    width = lanes_of(target, float32)
    spare = 1 if target.has_fma else 2
    shapes = [
        Tile(float32, count, several, width)
        for several in vectors
        for count in range(1, min(rows, (target.vector_registers - spare) // several - 1) + 1)
    ]
    return min(shapes, key=lambda tile: tile.cycles(rows, columns, steps))


def run_tasks(context: Context, name: str, kernel: Attention | AttentionBackward, *tasks: tuple[str, int]) -> None:
    """Write `void name(ptr context)`, which calls one function after another for each of so many chunks."""
    f = context.module.function(name, [("ptr", "context")], linkage="internal")
    for task, chunks in tasks:
        if kernel.products >= _SERIAL and chunks > 1:
            context.parallel_for(f, f"@{task}", str(chunks))
        else:
            with f.loop("0", str(chunks), hint="chunk") as chunk:
                f.call("void", f"@{task}", ("ptr", "%context"), ("i64", chunk))
    f.do("ret void")


class LaneTask(Generic[K]):
    """Writes a function `void name(ptr context, i64 chunk)`."""

    def __init__(self, context: Context, kernel: K, name: str, vectors: int) -> None:
        self.context = context
        self.kernel: K = kernel
        self.width = lanes_of(context.target, float32)
        self.vectors = vectors
        self.lanes = vectors * self.width
        self.type = vector(SCALAR, self.width)
        self.f = context.module.function(name, [("ptr", "context"), ("i64", "chunk")], linkage="internal")
        self.integers = Integers(self.f)

    # Memory

    def element(self, pointer: str, offset: str) -> str:
        return pointer if offset == "0" else self.f.value(f"getelementptr float, ptr {pointer}, i64 {offset}")

    def row(self, pointer: str, block: Block, number: str) -> str:
        """The address of a row of a matrix."""
        return self.element(pointer, self.integers.multiply(number, block.strides[-2]))

    def member(self, block: Block, pointer: str, number: str) -> str:
        """The address of what belongs to one matrix of the batch."""
        integers, offset, batch = self.integers, str(block.offset), len(self.kernel.batch)
        for size, stride in zip(reversed(block.shape[:batch]), reversed(block.strides[:batch]), strict=True):
            offset = integers.add(offset, integers.multiply(integers.remainder(number, size), stride))
            number = integers.divide(number, size)
        type_ = "i8" if block.buffer.dtype is bool_ else "float"
        return self.f.value(f"getelementptr {type_}, ptr {pointer}, i64 {offset}")

    def vector(self, pointer: str, row: str, number: int) -> str:
        """The address of a vector of a row of lanes."""
        offset = self.integers.add(self.integers.multiply(row, self.lanes), number * self.width)
        return self.element(pointer, offset)

    def load(self, pointer: str) -> str:
        return self.f.value(f"load {self.type}, ptr {pointer}, align 4")

    def store(self, value: str, pointer: str) -> None:
        self.f.do(f"store {self.type} {value}, ptr {pointer}, align 4")

    def clear(self, rows: str, count: int) -> None:
        """Write zeros to rows of lanes."""
        with self.f.loop("0", str(count * self.lanes), str(self.width), hint="zero") as i:
            self.store("zeroinitializer", self.element(rows, i))

    def load_splat(self, pointer: str) -> str:
        """A number in all lanes."""
        return self.f.splat(SCALAR, self.f.value(f"load float, ptr {pointer}, align 4"), self.width)

    # Arithmetic

    def number(self, value: float) -> str:
        return f"splat (float {literal(value, SCALAR)})"

    def binary(self, op: str, a: str, b: str) -> str:
        return self.f.value(f"{op} {self.type} {a}, {b}")

    def select(self, condition: str, a: str, b: str) -> str:
        return self.f.value(f"select <{self.width} x i1> {condition}, {self.type} {a}, {self.type} {b}")

    def any_of(self, conditions: Sequence[str]) -> str:
        """Whether any of some vectors of booleans has one that is true."""
        f, type_ = self.f, f"<{self.width} x i1>"
        seen = functools.reduce(lambda a, b: f.value(f"or {type_} {a}, {b}"), conditions)
        return elementwise.any_lane(f, seen, self.width)

    def function(self, name: str, x: str) -> str:
        return elementwise.render(self.f, name, float32, self.width, [x], result=float32)

    # Products

    def product(
        self, tile: Tile, strides: Sequence[int], steps: str, a: str, b: str, c: str, accumulate: str, *, by_rows: bool = True
    ) -> None:
        """Rows of a matrix, where they stand, times rows of lanes. `by_rows`: the matrix' first dimension is the product's
        rows, and the second the steps; else the other way round."""
        self.tiles(tile, strides if by_rows else strides[::-1], steps, a, (b, self.lanes), (c, self.lanes), accumulate)

    def tiles(
        self, tile: Tile, strides: Sequence[int], steps: str, a: str, b: tuple[str, int], c: tuple[str, int], accumulate: str,
        columns: int | None = None,
    ) -> None:
        """Tiles side by side: `b` and `c` are addresses, and how far rows are apart there."""
        f = self.f
        row, step = strides
        symbol = emit_microkernel(f.module, tile.with_row_stride(row))
        for column in range(0, self.lanes if columns is None else columns, tile.columns):
            f.call(
                "void", symbol, ("i64", steps), ("ptr", a), ("i64", str(step)), ("ptr", self.element(b[0], str(column))),
                ("i64", str(b[1])), ("ptr", self.element(c[0], str(column))), ("i64", str(c[1])), ("i1", accumulate),
            )

    def add_weighted(self, tile: Tile, block: Block, rows: str, steps: str, weights: str, sums: str) -> None:
        """sums[columns][lanes] += the transpose of some rows of a matrix, times as many rows of weights."""
        row_stride = block.strides[-1]
        whole, rest = divmod(block.shape[-1], tile.rows)
        with self.f.loop("0", str(whole * tile.rows), str(tile.rows), hint="column") as column:
            a = self.element(rows, self.integers.multiply(column, row_stride))
            c = self.element(sums, self.integers.multiply(column, self.lanes))
            self.product(tile, block.strides[-2:], steps, a, weights, c, "true", by_rows=False)
        if rest:
            last = Tile(float32, rest, tile.vectors, tile.width)
            a = self.element(rows, str(whole * tile.rows * row_stride))
            c = self.element(sums, str(whole * tile.rows * self.lanes))
            self.product(last, block.strides[-2:], steps, a, weights, c, "true", by_rows=False)

    # Turning

    def turn(self, rows: str, strides: Sequence[int], columns: int, turned: str, count: str, *, back: bool) -> None:
        """Take a block of rows to lanes, or back. Lanes past the last row are copies of that."""
        f, integers, lanes, width = self.f, self.integers, self.lanes, self.width
        row, column = strides
        whole = columns // width * width if column == 1 else 0
        is_full = f.value(f"icmp eq i64 {count}, {lanes}")
        start = f.value(f"select i1 {is_full}, i64 {whole}, i64 0")
        transpose = emit_transpose(f.module, float32, width)
        with f.loop("0", start, str(width), hint="square") as j, f.loop("0", str(lanes), str(width), hint="lane") as i:
            outside = self.element(rows, integers.add(integers.multiply(i, row), j))
            inside = self.element(turned, integers.add(integers.multiply(j, lanes), i))
            places = [(inside, lanes), (outside, row)] if back else [(outside, row), (inside, lanes)]
            f.call("void", transpose, *(arg for at, step in places for arg in (("ptr", at), ("i64", str(step)))))
        last = integers.subtract(count, 1)
        with f.loop("0", count if back else str(lanes), hint="lane") as i:
            outer = self.element(rows, integers.multiply(i if back else integers.least(i, last), row))
            with f.loop(start, str(columns), hint="column") as j:
                outside = self.element(outer, integers.multiply(j, column))
                inside = self.element(turned, integers.add(integers.multiply(j, lanes), i))
                source, target = (inside, outside) if back else (outside, inside)
                f.do(f"store float {f.value(f'load float, ptr {source}, align 4')}, ptr {target}, align 4")
