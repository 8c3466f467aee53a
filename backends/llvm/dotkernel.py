"""The innermost loop of products with few rows or columns whose operands' steps stand side by side in memory.

A tile of dot products is computed with the steps in the lanes: both operands are read where they stand, and the lanes
are summed at the end. Packing would cost more than it saves, where an operand is read only a few times.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.backends.llvm.builder import Function, Module, vector
from graphc.backends.llvm.elementwise import REGISTER
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.memory import load_consecutive, store_consecutive
from graphc.backends.llvm.microkernel import LATENCY, LOADS_PER_CYCLE, PER_CYCLE, add, begin_microkernel, lanes_of, multiply_add
from graphc.backends.llvm.target import Target
from graphc.types import DType

_MOST_ROWS = 8
_MOST_COLUMNS = 16
_SUM = 3  # cycles to sum the lanes of a vector
_CALL = 30  # cycles to call a kernel, and to copy its tile


@dataclass(frozen=True, slots=True)
class DotTile:
    """The shape of a kernel of dot products: `rows` rows of the left operand, `lhs_stride` elements apart, with `columns`
    columns of the right one, `rhs_stride` apart."""

    dtype: DType
    rows: int
    columns: int
    width: int
    lhs_stride: int
    rhs_stride: int

    def cycles(self, m: int, n: int, k: int) -> float:
        """About how many cycles an m by n product of k steps takes."""
        step = max(self.rows * self.columns / PER_CYCLE, (self.rows + self.columns) / LOADS_PER_CYCLE, LATENCY)
        # the last vector of steps may be a part; to sum the lanes of a vector takes some three shuffles and additions
        tile = -(-k // self.width) * (step + 1) + self.rows * self.columns * _SUM + _CALL
        return -(-m // self.rows) * -(-n // self.columns) * tile

    @property
    def symbol(self) -> str:
        return f"graphc.dot.{self.dtype.name}.{self.rows}.by{self.lhs_stride}.{self.columns}.by{self.rhs_stride}"


def choose_dot_tile(target: Target, dtype: DType, m: int, n: int, k: int, strides: tuple[int, int]) -> DotTile:
    """The tile that computes m by n dot products of k numbers in the fewest cycles; m and n are at least 1."""
    width = lanes_of(target, dtype)
    spare = 1 if target.has_fma and dtype.is_floating_point else 2
    shapes = (
        DotTile(dtype, -(-m // -(-m // rows)), -(-n // -(-n // columns)), width, *strides)
        for rows, columns in itertools.product(range(1, min(m, _MOST_ROWS) + 1), range(1, min(n, _MOST_COLUMNS) + 1))
        if rows * columns + rows + spare <= target.vector_registers
    )
    return min(shapes, key=lambda tile: tile.cycles(m, n, k))


def emit_dotkernel(module: Module, tile: DotTile) -> str:
    """The symbol of a function of the same type as `emit_microkernel`'s, which writes the sums row by row without gaps,
    and a vector's surplus after them. It takes no heed of the steps of a, b and c, and never accumulates."""
    symbol = f"@{tile.symbol}"
    if module.has(tile.symbol):
        return symbol
    f = begin_microkernel(module, tile.symbol)
    integers, width = Integers(f), tile.width
    type_ = vector(REGISTER[tile.dtype.name], width)
    sums = [f.slot(type_) for _ in range(tile.rows * tile.columns)]
    for slot in sums:
        f.do(f"store {type_} zeroinitializer, ptr {slot}")
    whole = f.value(f"and i64 %k, {-width}")
    with f.loop("0", whole, str(width), hint="k") as k:
        _step(f, tile, sums, k, None)
    left = integers.subtract("%k", whole)
    with f.when(f.value(f"icmp ne i64 {left}, 0")):
        _step(f, tile, sums, whole, integers.mask(width, 0, left))
    totals = [f.value(f"load {type_}, ptr {slot}") for slot in sums]
    for start in range(0, len(totals), width):
        group = totals[start : start + width]
        result = _summed(f, tile.dtype, [*group, *["zeroinitializer"] * (width - len(group))])
        store_consecutive(f, tile.dtype, width, "%c", str(start), result, None)
    f.do("ret void")
    return symbol


def _step(f: Function, tile: DotTile, sums: Sequence[str], k: str, mask: str | None) -> None:
    """Add the products of `width` steps."""
    integers, dtype, width = Integers(f), tile.dtype, tile.width
    type_ = vector(REGISTER[dtype.name], width)
    rows = [load_consecutive(f, dtype, width, "%a", integers.add(k, i * tile.lhs_stride), mask) for i in range(tile.rows)]
    for j in range(tile.columns):
        column = load_consecutive(f, dtype, width, "%b", integers.add(k, j * tile.rhs_stride), mask)
        for i, row in enumerate(rows):
            slot = sums[i * tile.columns + j]
            before = f.value(f"load {type_}, ptr {slot}")
            f.do(f"store {type_} {multiply_add(f, dtype, type_, row, column, before)}, ptr {slot}")


def _summed(f: Function, dtype: DType, vectors: Sequence[str]) -> str:
    """The sums of the lanes of as many vectors as each has lanes, as one vector.

    Each round adds the halves of the parts of two vectors, and puts them side by side in one vector.
    """
    width = len(vectors)
    type_ = vector(REGISTER[dtype.name], width)
    part = width
    while part > 1:
        half = part // 2
        low = [lane for start in range(0, 2 * width, part) for lane in range(start, start + half)]
        picks = ["<" + ", ".join(f"i32 {lane + shift}" for lane in low) + ">" for shift in (0, half)]
        joined: list[str] = []
        for a, b in zip(vectors[::2], vectors[1::2], strict=True):
            halves = [f.value(f"shufflevector {type_} {a}, {type_} {b}, <{width} x i32> {pick}") for pick in picks]
            joined.append(add(f, dtype, type_, *halves))
        vectors = joined
        part = half
    return vectors[0]
