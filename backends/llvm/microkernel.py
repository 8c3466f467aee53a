"""The innermost loop of matrix products: one tile of the result in registers.

A tile of `rows` rows by `vectors` vectors is kept in registers while k runs: each step loads `vectors` vectors of the
right operand and multiplies them with each of `rows` numbers of the left one. Its code is one function per shape,
shared by all products of a module.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.backends.llvm.builder import Function, Module, vector
from graphc.backends.llvm.elementwise import REGISTER
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.memory import LINE_BYTES, load_consecutive, prefetch, store_consecutive
from graphc.backends.llvm.target import Target
from graphc.types import DType, bfloat16, bool_, float16, float32, int32

# What CPUs of the last ten years have in common, as far as the choice of a tile's shape goes.
LATENCY = 4  # cycles from a multiply-add to the next one into the same register
PER_CYCLE = 2  # multiply-adds
LOADS_PER_CYCLE = 1.8  # as found with tiles that load much
_MOST_LANES = 16  # of small integers, vectors are not filled: squares of more lanes would take too much code
MOST_VECTORS = 8
CALL = 20  # cycles to call a kernel and store its tile

_FETCH_DIVISOR = 32  # a row of the result is fetched every so many parts of the steps, if there are so many steps
AHEAD = 24
"""How many steps before they are needed the operands are fetched: hardware that fetches ahead stops where a page ends,
and starts too late on what another core has just packed. Two threads win 6% by it on a product of 1024 by 1024."""
_READS_PER_CYCLE = 2  # loads or prefetches, at most


@dataclass(frozen=True, slots=True)
class Tile:
    """The shape of a micro-kernel.

    `dtype` is what is multiplied and summed. Row i of the left operand is `row_stride * i` elements behind row 0: 1
    where it is packed, or stands in memory with rows side by side. While it computes, the kernel copies a part of what a
    later tile needs: `copied` vectors of each row; or where rows stand side by side, `copied` steps for each row. Operands
    are fetched `ahead` steps before they are needed. The sums of a tile that is `turned` are stored elsewhere later, columns as
    rows.
    """

    dtype: DType
    rows: int
    vectors: int
    width: int
    row_stride: int = 1
    copied: int = 0
    ahead: int = AHEAD
    turned: bool = False

    @property
    def columns(self) -> int:
        return self.vectors * self.width

    @property
    def lanes(self) -> int:
        """What a copied step takes: whole vectors of rows."""
        return -(-self.rows // self.width) * self.width

    def cycles(self, m: int, n: int, k: int) -> float:
        """About how many cycles an m by n product of k steps takes."""
        step = max(self.rows * self.vectors / PER_CYCLE, (self.rows + self.vectors) / LOADS_PER_CYCLE, LATENCY)
        # the surplus is measured: large tiles of few vectors lose least
        return -(-m // self.rows) * -(-n // self.columns) * (k * (step + 1 + self.vectors / 4) + CALL)

    def with_row_stride(self, stride: int) -> Tile:
        """The tile with its left operand's rows so far apart."""
        return replace(self, row_stride=stride)

    @property
    def fetched(self) -> tuple[int, int]:
        """How many lines of the left and of the right operand are fetched at each step, for a later one: none where there
        is no time for it beside the loads. Rows that are read on and on need it least."""
        lines = (
            -(-self.rows * self.dtype.itemsize // LINE_BYTES) if self.row_stride == 1 else 0,
            -(-self.columns * self.dtype.itemsize // LINE_BYTES),
        )
        reads = self.rows + self.vectors + sum(lines)
        return lines if reads <= _READS_PER_CYCLE * self.rows * self.vectors / PER_CYCLE else (0, 0)

    @property
    def symbol(self) -> str:
        stride = f".by{self.row_stride}" if self.row_stride != 1 else ""
        copied = f".copy{self.copied}" if self.copied else ""
        ahead = f".ahead{self.ahead}" if self.ahead != AHEAD else ""
        turned = ".turned" if self.turned else ""
        return f"graphc.gemm.{self.dtype.name}.{self.rows}x{self.columns}{stride}{copied}{ahead}{turned}"


def lanes_of(target: Target, dtype: DType) -> int:
    """How many numbers of a dtype are computed at once."""
    return min(target.vector_bytes // dtype.itemsize, _MOST_LANES)


def choose_tile(target: Target, dtype: DType, m: int, n: int, k: int) -> Tile:
    """The tile that computes an m by n product of k steps in the fewest cycles; m and n are at least 1.

    A tile as large as the registers hold, but for a small result: many vectors a row where there are few rows, fewer
    where there are few columns. Rows are shared out evenly, so that the last tile has about as many as the others.
    """
    width = lanes_of(target, dtype)
    spare = 1 if target.has_fma and dtype.is_floating_point else 2  # a factor, and perhaps a product
    shapes = (
        Tile(dtype, -(-m // -(-m // rows)), vectors, width)
        for vectors in range(1, MOST_VECTORS + 1)
        for rows in range(1, min(m, (target.vector_registers - spare) // vectors - 1) + 1)
    )
    return min(shapes, key=lambda tile: tile.cycles(m, n, k))


def computed_in(dtype: DType) -> DType:
    """The dtype that products of a dtype are multiplied and summed in; those of booleans are counted."""
    return {float16: float32, bfloat16: float32, bool_: int32}.get(dtype, dtype)


def add(f: Function, dtype: DType, type_: str, a: str, b: str) -> str:
    """a + b."""
    return f.value(f"{'fadd' if dtype.is_floating_point else 'add'} {type_} {a}, {b}")


def multiply_add(f: Function, dtype: DType, type_: str, a: str, b: str, c: str) -> str:
    """a * b + c, rounded once where the target can."""
    if dtype.is_floating_point and f.module.has_fma:
        return f.intrinsic("llvm.fma", type_, a, b, c)
    multiply = "fmul" if dtype.is_floating_point else "mul"
    return add(f, dtype, type_, f.value(f"{multiply} {type_} {a}, {b}"), c)


def begin_microkernel(module: Module, symbol: str, *more: tuple[str, str]) -> Function:
    """Begin a function

        void (i64 k, ptr a, i64 a_step, ptr b, i64 b_step, ptr c, i64 c_step, i1 accumulate)

    with more parameters after these.
    """
    params = [("i64", "k"), ("ptr", "a"), ("i64", "a_step"), ("ptr", "b"), ("i64", "b_step"), ("ptr", "c")]
    return module.function(
        symbol, [*params, ("i64", "c_step"), ("i1", "accumulate"), *more], linkage="internal", attributes="nounwind noinline"
    )


def cleared_sums(f: Function, tile: Tile) -> list[list[str]]:
    """A slot for each vector of a tile, row by row, with zeros in it."""
    type_ = vector(REGISTER[tile.dtype.name], tile.width)
    sums = [[f.slot(type_) for _ in range(tile.vectors)] for _ in range(tile.rows)]
    for slot in itertools.chain.from_iterable(sums):
        f.do(f"store {type_} zeroinitializer, ptr {slot}")
    return sums


def finish_with_sums(f: Function, tile: Tile, sums: Sequence[Sequence[str]]) -> None:
    """End a function by storing a tile's sums at `c`, rows `c_step` apart; with `accumulate`, by adding them to what is
    there."""
    scalar = REGISTER[tile.dtype.name]
    type_ = vector(scalar, tile.width)
    align = tile.dtype.itemsize
    adding, storing, done = f.label("adding"), f.label("storing"), f.label("done")
    f.branch("%accumulate", adding, storing)
    for label in (adding, storing):
        f.enter(label)
        for i, row in enumerate(sums):
            start = f.value(f"getelementptr {scalar}, ptr %c, i64 {f.value(f'mul i64 %c_step, {i}')}")
            for v, slot in enumerate(row):
                place = f.value(f"getelementptr {scalar}, ptr {start}, i64 {v * tile.width}")
                total = f.value(f"load {type_}, ptr {slot}")
                if label is adding:
                    before = f.value(f"load {type_}, ptr {place}, align {align}")
                    total = add(f, tile.dtype, type_, before, total)
                f.do(f"store {type_} {total}, ptr {place}, align {align}")
        f.jump(done)
    f.enter(done)
    f.do("ret void")


def emit_microkernel(module: Module, tile: Tile) -> str:
    """The symbol of the function

        void (i64 k, ptr a, i64 a_step, ptr b, i64 b_step, ptr c, i64 c_step, i1 accumulate)

    that computes c = a b, or c += a b. Step k reads `rows` numbers at a + k * a_step and `columns` consecutive ones at
    b + k * b_step; row i of the result is at c + i * c_step (all in elements).

    A tile that is turned has more parameters, (ptr out, i64 out_step): its columns are going to be stored as rows from `out`
    on, `out_step` bytes apart, and these are fetched meanwhile.

    A tile that copies has more parameters still, (ptr from, i64 from_step, ptr to, ptr later). Where rows stand side by side,
    `copied` steps for each row are copied from from + i * from_step to to + i * lanes, and fetched from later + i * from_step
    for the next call. Else these are followed by (i64 row, i64 piece, i64 later_row, i64 later_piece, i64 pieces, i64 last):
    each row is copied in `pieces` of `copied` vectors, of which the last begins at step `last`. A call copies as many pieces as
    there are rows, as they follow one another in memory, from number `piece` of row `row` on, and fetches as many others.
    """
    symbol = f"@{tile.symbol}"
    if module.has(tile.symbol):
        return symbol
    turning = [("ptr", "out"), ("i64", "out_step")] if tile.turned else []
    copying = [("ptr", "from"), ("i64", "from_step"), ("ptr", "to"), ("ptr", "later")] if tile.copied else []
    if tile.copied and tile.row_stride > 1:
        copying += [("i64", name) for name in ("row", "piece", "later_row", "later_piece", "pieces", "last")]
    f = begin_microkernel(module, tile.symbol, *turning, *copying)
    sums = cleared_sums(f, tile)
    a_slot, b_slot = f.slot("ptr"), f.slot("ptr")
    pieces = _Pieces(f, tile) if tile.copied and tile.row_stride > 1 else None
    f.do(f"store ptr %a, ptr {a_slot}")
    f.do(f"store ptr %b, ptr {b_slot}")
    # The result's lines are fetched meanwhile, a row every few steps: all at once, they would hold up the operands.
    few = f.value(f"udiv i64 %k, {tile.rows if tile.copied else _FETCH_DIVISOR}")
    most = f.value(f"sub i64 %k, {f.value(f'mul i64 {few}, {tile.rows}')}")
    # where rows are copied, none may be left out
    first = "0" if tile.copied else f.value(f"select i1 {f.value(f'icmp eq i64 {few}, 0')}, i64 {tile.rows}, i64 0")
    with f.loop(first, str(tile.rows + 1), hint="row") as fetched:
        if tile.turned:
            _prefetch_columns(f, tile, fetched)
        else:
            _prefetch_row(f, tile, fetched)
        if pieces is not None:
            with f.when(f.value(f"icmp slt i64 {fetched}, {tile.rows}")):
                pieces.copy_next()
        elif tile.copied:
            _copy(f, tile, fetched)
        last = f.value(f"icmp eq i64 {fetched}, {tile.rows}")
        with f.loop("0", f.value(f"select i1 {last}, i64 {most}, i64 {few}"), hint="k"):
            _step(f, tile, a_slot, b_slot, sums)
    finish_with_sums(f, tile, sums)
    return symbol


def _prefetch_row(f: Function, tile: Tile, row: str) -> None:
    """Have the lines of a row of the result fetched; past the last row, something is fetched to no effect."""
    scalar = REGISTER[tile.dtype.name]
    start = f.value(f"getelementptr {scalar}, ptr %c, i64 {f.value(f'mul i64 %c_step, {row}')}")
    prefetch(f, start, tile.columns * tile.dtype.itemsize, level=2)


def _prefetch_columns(f: Function, tile: Tile, row: str) -> None:
    """Have a line fetched of some of the columns, where they are stored as rows."""
    integers, each = Integers(f), -(-tile.columns // tile.rows)
    for number in range(each):
        offset = integers.multiply(integers.add(integers.multiply(row, each), number), "%out_step")
        prefetch(f, f.value(f"getelementptr i8, ptr %out, i64 {offset}"), 1, level=2)


class _Pieces:
    """Goes through the pieces that a call copies, and those that it has fetched for the next one."""

    def __init__(self, f: Function, tile: Tile) -> None:
        self.f = f
        self.tile = tile
        self.slots = {name: f.slot("i64") for name in ("row", "piece", "later_row", "later_piece")}
        for name, slot in self.slots.items():
            f.do(f"store i64 %{name}, ptr {slot}")

    def copy_next(self) -> None:
        """Copy a piece, and have one fetched."""
        f, tile, integers = self.f, self.tile, Integers(self.f)
        scalar, size = REGISTER[tile.dtype.name], tile.dtype.itemsize
        type_ = vector(scalar, tile.width)
        row, start = self.next("row", "piece")
        source, target = (
            self.element(pointer, integers.add(integers.multiply(row, step), start))
            for pointer, step in (("%from", "%from_step"), ("%to", tile.row_stride))
        )
        for v in range(0, tile.copied * tile.width, tile.width):
            values = f.value(f"load {type_}, ptr {self.element(source, str(v))}, align {size}")
            f.do(f"store {type_} {values}, ptr {self.element(target, str(v))}, align {size}")
        row, start = self.next("later_row", "later_piece")
        later = self.element("%later", integers.add(integers.multiply(row, "%from_step"), start))
        prefetch(f, later, tile.copied * tile.width * size, level=2)

    def next(self, row: str, piece: str) -> tuple[str, str]:
        """The row of a piece, and the step at which it begins; then there is the one after it in the slots."""
        f, integers = self.f, Integers(self.f)
        this, number = (f.value(f"load i64, ptr {self.slots[name]}") for name in (row, piece))
        following = integers.add(number, 1)
        ends = f.value(f"icmp eq i64 {following}, %pieces")
        f.do(f"store i64 {f.value(f'select i1 {ends}, i64 0, i64 {following}')}, ptr {self.slots[piece]}")
        f.do(f"store i64 {f.value(f'select i1 {ends}, i64 {integers.add(this, 1)}, i64 {this}')}, ptr {self.slots[row]}")
        return this, integers.least(integers.multiply(number, self.tile.copied * self.tile.width), "%last")

    def element(self, pointer: str, offset: str) -> str:
        return self.f.value(f"getelementptr {REGISTER[self.tile.dtype.name]}, ptr {pointer}, i64 {offset}")


def _copy(f: Function, tile: Tile, part: str) -> None:
    """Copy one of as many parts as there are rows, and have fetched what the next call copies; after the last part, that one
    once more."""
    scalar, integers, size = REGISTER[tile.dtype.name], Integers(f), tile.dtype.itemsize
    type_ = vector(scalar, tile.width)
    part = integers.least(part, tile.rows - 1)
    for number in range(tile.copied):
        place = integers.add(integers.multiply(part, tile.copied), number)
        steps = {"from": integers.multiply(place, "%from_step"), "to": integers.multiply(place, tile.lanes)}
        starts = {name: f.value(f"getelementptr {scalar}, ptr %{name}, i64 {step}") for name, step in steps.items()}
        for v in range(0, tile.lanes, tile.width):
            source, target = (f.value(f"getelementptr {scalar}, ptr {starts[x]}, i64 {v}") for x in ("from", "to"))
            values = f.value(f"load {type_}, ptr {source}, align {size}")
            f.do(f"store {type_} {values}, ptr {target}, align {size}")
        later = f.value(f"getelementptr {scalar}, ptr %later, i64 {steps['from']}")
        prefetch(f, later, tile.lanes * size, level=2)


def _step(f: Function, tile: Tile, a_slot: str, b_slot: str, sums: Sequence[Sequence[str]]) -> None:
    """One step: `sums` += column of a * row of b, whose pointers move on."""
    scalar = REGISTER[tile.dtype.name]
    type_ = vector(scalar, tile.width)
    align = tile.dtype.itemsize
    a, b = f.value(f"load ptr, ptr {a_slot}"), f.value(f"load ptr, ptr {b_slot}")
    for pointer, step, lines in zip((a, b), ("%a_step", "%b_step"), tile.fetched, strict=True):
        if lines:
            later = f.value(f"getelementptr {scalar}, ptr {pointer}, i64 {f.value(f'mul i64 {step}, {tile.ahead}')}")
            prefetch(f, later, lines * LINE_BYTES)
    columns: list[str] = []
    for v in range(tile.vectors):
        place = f.value(f"getelementptr {scalar}, ptr {b}, i64 {v * tile.width}")
        columns.append(f.value(f"load {type_}, ptr {place}, align {align}"))
    for i, row in enumerate(sums):
        place = f.value(f"getelementptr {scalar}, ptr {a}, i64 {i * tile.row_stride}")
        factor = f.splat(scalar, f.value(f"load {scalar}, ptr {place}, align {align}"), tile.width)
        for slot, column in zip(row, columns, strict=True):
            before = f.value(f"load {type_}, ptr {slot}")
            after = multiply_add(f, tile.dtype, type_, factor, column, before)
            f.do(f"store {type_} {after}, ptr {slot}")
    f.do(f"store ptr {f.value(f'getelementptr {scalar}, ptr {a}, i64 %a_step')}, ptr {a_slot}")
    f.do(f"store ptr {f.value(f'getelementptr {scalar}, ptr {b}, i64 %b_step')}, ptr {b_slot}")


def emit_merge(module: Module, dtype: DType, width: int) -> str:
    """The symbol of the function

        void (ptr from, i64 from_step, ptr to, i64 to_step, i64 rows, i64 columns, i1 accumulate)

    that copies a part of a tile to its place, or adds it to what is there.
    """
    name = f"graphc.gemm.{dtype.name}.merge{width}"
    if module.has(name):
        return f"@{name}"
    params = [("ptr", "from"), ("i64", "from_step"), ("ptr", "to"), ("i64", "to_step"), ("i64", "rows")]
    f = module.function(name, [*params, ("i64", "columns"), ("i1", "accumulate")], linkage="internal")
    integers, scalar = Integers(f), REGISTER[dtype.name]
    type_ = vector(scalar, width)
    with f.loop("0", "%rows", hint="row") as i:
        rows = [f.value(f"getelementptr {scalar}, ptr %{name}, i64 {integers.multiply(i, f'%{name}_step')}")
                for name in ("from", "to")]
        with f.loop("0", "%columns", str(width), hint="column") as j:
            mask = integers.mask(width, 0, integers.subtract("%columns", j))
            after, before = (load_consecutive(f, dtype, width, row, j, mask) for row in rows)
            total = add(f, dtype, type_, before, after)
            total = f.value(f"select i1 %accumulate, {type_} {total}, {type_} {after}")
            store_consecutive(f, dtype, width, rows[1], j, total, mask)
    f.do("ret void")
    return f"@{name}"
