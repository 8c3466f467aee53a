"""The innermost loop of matrix products: one tile of the result in registers.

A tile of `rows` rows by `vectors` vectors is kept in registers while k runs: each step loads `vectors` vectors of the
right operand and multiplies them with each of `rows` numbers of the left one. Its code is one function per shape,
shared by all products of a module.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

from graphc.backends.llvm.builder import Function, Module, vector
from graphc.backends.llvm.elementwise import REGISTER
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.memory import load_consecutive, store_consecutive
from graphc.backends.llvm.target import Target
from graphc.types import DType, bool_, float16, float32, int32

# What CPUs of the last ten years have in common, as far as the choice of a tile's shape goes.
_LATENCY = 4  # cycles from a multiply-add to the next one into the same register
_PER_CYCLE = 2  # multiply-adds
_LOADS_PER_CYCLE = 1.8  # as found with tiles that load much
_MOST_LANES = 16  # of small integers, vectors are not filled: squares of more lanes would take too much code
_MOST_VECTORS = 8

_PREFETCHED_STEPS = 32  # from so many steps on there is time to fetch the result's lines meanwhile
_LINE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Tile:
    """The shape of a micro-kernel.

    `dtype` is what is multiplied and summed. Row i of the left operand is `row_stride * i` elements behind row 0: 1
    where it is packed, or stands in memory with rows side by side.
    """

    dtype: DType
    rows: int
    vectors: int
    width: int
    row_stride: int = 1

    @property
    def columns(self) -> int:
        return self.vectors * self.width

    def with_row_stride(self, stride: int) -> Tile:
        """The tile with its left operand's rows so far apart."""
        return replace(self, row_stride=stride)

    @property
    def symbol(self) -> str:
        stride = f".by{self.row_stride}" if self.row_stride != 1 else ""
        return f"graphc.gemm.{self.dtype.name}.{self.rows}x{self.columns}{stride}"


def choose_tile(target: Target, dtype: DType, m: int, n: int) -> Tile:
    """The tile that computes an m by n result in the fewest cycles a step.

    A tile as large as the registers hold, but for a small result: many vectors a row where there are few rows, fewer
    where there are few columns. Rows are shared out evenly, so that the last tile has about as many as the others.
    """
    width = min(target.vector_bytes // dtype.itemsize, _MOST_LANES)
    spare = 1 if target.has_fma and dtype.is_floating_point else 2  # a factor, and perhaps a product
    best: tuple[float, int, int] | None = None
    for vectors in range(1, _MOST_VECTORS + 1):
        for rows in range(1, (target.vector_registers - spare) // vectors):
            tiles = -(-m // rows) * -(-n // (vectors * width))
            step = max(rows * vectors / _PER_CYCLE, (rows + vectors) / _LOADS_PER_CYCLE, _LATENCY)
            cycles = tiles * (step + 1 + vectors / 4)  # the rest is measured: large tiles of few vectors lose least
            if best is None or cycles < best[0]:
                best = cycles, rows, vectors
    assert best is not None
    _, rows, vectors = best
    return Tile(dtype, max(1, -(-m // -(-m // rows))), vectors, width)


def computed_in(dtype: DType) -> DType:
    """The dtype that products of a dtype are multiplied and summed in; those of booleans are counted."""
    return {float16: float32, bool_: int32}.get(dtype, dtype)


def add(f: Function, dtype: DType, type_: str, a: str, b: str) -> str:
    """a + b."""
    return f.value(f"{'fadd' if dtype.is_floating_point else 'add'} {type_} {a}, {b}")


def _multiply_add(f: Function, dtype: DType, type_: str, a: str, b: str, c: str) -> str:
    """a * b + c, rounded once where the target can."""
    if dtype.is_floating_point and f.module.has_fma:
        return f.intrinsic("llvm.fma", type_, a, b, c)
    multiply = "fmul" if dtype.is_floating_point else "mul"
    return add(f, dtype, type_, f.value(f"{multiply} {type_} {a}, {b}"), c)


def emit_microkernel(module: Module, tile: Tile) -> str:
    """The symbol of the function

        void (i64 k, ptr a, i64 a_step, ptr b, i64 b_step, ptr c, i64 c_step, i1 accumulate)

    that computes c = a b, or c += a b. Step k reads `rows` numbers at a + k * a_step and `columns` consecutive ones at
    b + k * b_step; row i of the result is at c + i * c_step (all in elements).
    """
    symbol = f"@{tile.symbol}"
    if module.has(tile.symbol):
        return symbol
    params = [("i64", "k"), ("ptr", "a"), ("i64", "a_step"), ("ptr", "b"), ("i64", "b_step"), ("ptr", "c")]
    f = module.function(
        tile.symbol, [*params, ("i64", "c_step"), ("i1", "accumulate")], linkage="internal", attributes="nounwind noinline"
    )
    scalar = REGISTER[tile.dtype.name]
    type_ = vector(scalar, tile.width)
    align = tile.dtype.itemsize
    sums = [[f.slot(type_) for _ in range(tile.vectors)] for _ in range(tile.rows)]
    for slot in itertools.chain.from_iterable(sums):
        f.do(f"store {type_} zeroinitializer, ptr {slot}")
    with f.when(f.value(f"icmp sgt i64 %k, {_PREFETCHED_STEPS}")):
        prefetch = module.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
        lanes = range(0, tile.columns, max(tile.width, _LINE_BYTES // align))
        for i, lane in itertools.product(range(tile.rows), lanes):
            offset = f.value(f"add i64 {f.value(f'mul i64 %c_step, {i}')}, {lane}")
            place = f.value(f"getelementptr {scalar}, ptr %c, i64 {offset}")
            f.call("void", prefetch, ("ptr", place), ("i32", "0"), ("i32", "2"), ("i32", "1"))
    a_slot, b_slot = f.slot("ptr"), f.slot("ptr")
    f.do(f"store ptr %a, ptr {a_slot}")
    f.do(f"store ptr %b, ptr {b_slot}")
    with f.loop("0", "%k", hint="k"):
        a, b = f.value(f"load ptr, ptr {a_slot}"), f.value(f"load ptr, ptr {b_slot}")
        columns = []
        for v in range(tile.vectors):
            place = f.value(f"getelementptr {scalar}, ptr {b}, i64 {v * tile.width}")
            columns.append(f.value(f"load {type_}, ptr {place}, align {align}"))
        for i, row in enumerate(sums):
            place = f.value(f"getelementptr {scalar}, ptr {a}, i64 {i * tile.row_stride}")
            factor = f.splat(scalar, f.value(f"load {scalar}, ptr {place}, align {align}"), tile.width)
            for slot, column in zip(row, columns, strict=True):
                before = f.value(f"load {type_}, ptr {slot}")
                after = _multiply_add(f, tile.dtype, type_, factor, column, before)
                f.do(f"store {type_} {after}, ptr {slot}")
        f.do(f"store ptr {f.value(f'getelementptr {scalar}, ptr {a}, i64 %a_step')}, ptr {a_slot}")
        f.do(f"store ptr {f.value(f'getelementptr {scalar}, ptr {b}, i64 %b_step')}, ptr {b_slot}")
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
    return symbol


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
