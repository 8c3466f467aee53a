"""Matrix products as CUDA kernels.

A block computes one tile of the result. Step by step along k it holds a tile of each operand in shared memory, while the
numbers of the next step are on their way from memory to registers:

    for each step:
      fetch the operands of the next step to registers
      multiply the tiles of this step
      put what was fetched into the tiles

Operands are read through their expressions, so a convolution is a product whose operand is read from an image. `_Scalars`
multiplies numbers of any dtype one by one, `_Halves` those of half precision with the tensor cores' instruction.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import graphc.index as ix
from graphc.backends.cuda.code import Code
from graphc.backends.cuda.elementwise import C_TYPE, HALVES, cast, literal, render
from graphc.backends.cuda.expression import Scope
from graphc.backends.cuda.launch import Launch, Sizes
from graphc.expression import Axis, Buffer, Expr
from graphc.kernel import Gemm
from graphc.types import DType, float32

_ENOUGH = 160
"""Blocks that keep a large GPU busy."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns of the result that a block computes, steps of k that it takes at a time, and its threads."""

    rows: int
    columns: int
    depth: int
    threads: int


_SCALAR_TILES = (Tile(128, 128, 16, 256), Tile(64, 64, 16, 256), Tile(32, 32, 32, 256))
_HALF_TILES = (Tile(128, 128, 32, 256), Tile(64, 64, 32, 128))


def render_gemm(kernel: Gemm, name: str, buffers: Sequence[Buffer]) -> tuple[str, Launch]:
    """The kernel as a function of its buffers, and how it is launched."""
    halves = kernel.lhs.dtype in HALVES and kernel.lhs.dtype is kernel.rhs.dtype
    writer = (_Halves if halves else _Scalars)(kernel, name, buffers)
    return writer.render(), writer.launch


def _extent(axes: Sequence[Axis]) -> int:
    return math.prod(int(axis.extent) for axis in axes)


class _Product(ABC):
    """Renders one kernel; what stands in the tiles, and how they are multiplied, is the subclasses'."""

    tiles: tuple[Tile, ...]

    def __init__(self, kernel: Gemm, name: str, buffers: Sequence[Buffer]) -> None:
        self.kernel = kernel
        self.batch, self.m, self.n, self.k = map(_extent, (kernel.batch, kernel.m, kernel.n, kernel.k))
        self.tile = self._choose()
        blocks = self.batch * self._count(self.m, self.tile.rows) * self._count(self.n, self.tile.columns)
        self.launch = Launch(name, blocks, self.tile.threads)
        self.code = Code()
        self._buffers = buffers
        self._sizes = Sizes()
        self._scope = Scope(self.code, {buffer: f"b{i}" for i, buffer in enumerate(buffers)}.__getitem__, self._sizes)

    @staticmethod
    def _count(size: int, tile: int) -> int:
        return -(-size // tile)

    def _choose(self) -> Tile:
        """The largest tile with which all of the GPU has something to do; else the smallest."""
        for tile in self.tiles[:-1]:
            blocks = self.batch * self._count(self.m, tile.rows) * self._count(self.n, tile.columns)
            fits = 2 * self.m > tile.rows and 2 * self.n > tile.columns and self.kernel.accumulator.dtype.itemsize <= 4
            if blocks >= _ENOUGH and fits:
                return tile
        return self.tiles[-1]

    def render(self) -> str:
        """The text of the function."""
        code, tile, depth = self.code, self.tile, self.tile.depth
        code.line("const int thread = threadIdx.x;")
        columns, rows = self._count(self.n, tile.columns), self._count(self.m, tile.rows)
        code.line(f"const int n0 = blockIdx.x % {columns} * {tile.columns};")
        code.line(f"const int m0 = blockIdx.x / {columns} % {rows} * {tile.rows};")
        self._bind(self._scope, self.kernel.batch, code.value("int", f"blockIdx.x / {columns * rows}", "batch"))
        self.declare()
        with code.block(f"for (int k0 = -{depth}; k0 < {self.k}; k0 += {depth})"):
            code.line(f"const int next = k0 + {depth};")
            with code.block(f"if (next < {self.k})"):
                self._fetch("lhs")
                self._fetch("rhs")
            with code.block("if (k0 >= 0)"):
                self.multiply()
            code.line("__syncthreads();")
            with code.block(f"if (next < {self.k})"):
                for side in ("lhs", "rhs"):
                    with code.block(f"for (int e = 0; e < {self._share(side)}; ++e)", unroll=True):
                        self._place(side)
                        code.line(f"{self.slot(side)} = {side}_next[e];")
            code.line("__syncthreads();")
        self.epilogue()
        return self._sizes.function(self.launch.symbol, self._buffers, tile.threads, str(code))

    def _bind(self, scope: Scope, axes: Sequence[Axis], place: str) -> None:
        """Give axes their values at a place of their product."""
        for axis in reversed(axes[1:]):
            scope.bind(axis, self.code.value("int", f"{place} % {axis.extent}", "i"))
            place = self.code.value("int", f"{place} / {axis.extent}", "i")
        if axes:
            scope.bind(axes[0], place)

    # Operands

    def _operand(self, side: str) -> tuple[Expr, Sequence[Axis], str, int, int]:
        """An operand, its axes beside k, the first of them in this block, how many there are, and in a tile."""
        if side == "lhs":
            return self.kernel.lhs, self.kernel.m, "m0", self.m, self.tile.rows
        return self.kernel.rhs, self.kernel.n, "n0", self.n, self.tile.columns

    def _share(self, side: str) -> int:
        """How many numbers of an operand's tile each thread brings."""
        return self._operand(side)[-1] * self.tile.depth // self.tile.threads

    def _place(self, side: str) -> None:
        """Which number of an operand's tile it is: `along` k, and `across`. Threads side by side read what stands so."""
        expr, axes, _, _, width = self._operand(side)
        self.code.line(f"const int number = thread + e * {self.tile.threads};")
        depth = self.tile.depth
        if self._by_depth(expr, axes):
            self.code.line(f"const int along = number % {depth}, across = number / {depth};")
        else:
            self.code.line(f"const int across = number % {width}, along = number / {width};")

    def _by_depth(self, expr: Expr, axes: Sequence[Axis]) -> bool:
        """Whether an operand stands in memory along k rather than along its other axes."""
        for e in expr.walk():
            if e.op == "load":
                along_k = self.kernel.k and ix.stride(e.args[0], self.kernel.k[-1]) in (1, -1)
                across = axes and ix.stride(e.args[0], axes[-1]) in (1, -1)
                if along_k or across:
                    return bool(along_k)
        return False

    def _fetch(self, side: str) -> None:
        """Read the numbers of the next step."""
        expr, axes, first, size, width = self._operand(side)
        code, type_ = self.code, C_TYPE[self.held.name]
        with code.block(f"for (int e = 0; e < {self._share(side)}; ++e)", unroll=True):
            self._place(side)
            code.line(f"const int outer = {first} + across, inner = next + along;")
            code.line(f"{type_} number_read = {literal(0, self.held)};")
            conditions = []
            if size % width:
                conditions.append(f"outer < {size}")
            if self.k % self.tile.depth:
                conditions.append(f"inner < {self.k}")
            with code.block(f"if ({' && '.join(conditions) or 'true'})"):
                scope = self._scope.child()
                self._bind(scope, axes, "outer")
                self._bind(scope, self.kernel.k, "inner")
                code.line(f"number_read = {cast(scope.value(expr), expr.dtype, self.held)};")
            code.line(f"{side}_next[e] = number_read;")

    def declare_next(self) -> None:
        """The registers for what is fetched."""
        for side in ("lhs", "rhs"):
            self.code.line(f"{C_TYPE[self.held.name]} {side}_next[{self._share(side)}];")

    def store(self, m: str, n: str, sum_: str) -> None:
        """Compute and write what one sum becomes."""
        code, accumulator = self.code, self.kernel.accumulator
        with code.block(f"if ({m} < {self.m} && {n} < {self.n})"):
            scope = self._scope.child()
            self._bind(scope, self.kernel.m, m)
            self._bind(scope, self.kernel.n, n)
            value = code.value(C_TYPE[accumulator.dtype.name], cast(sum_, self.summed, accumulator.dtype), "sum")
            scope.bind_accumulator(accumulator, value)
            scope.store(self.kernel.epilogue)

    @property
    @abstractmethod
    def held(self) -> DType:
        """What stands in the tiles."""

    @property
    @abstractmethod
    def summed(self) -> DType:
        """What sums are of."""

    @abstractmethod
    def declare(self) -> None:
        """The tiles, and the sums."""

    @abstractmethod
    def slot(self, side: str) -> str:
        """Where in the tile the number `along` and `across` is."""

    @abstractmethod
    def multiply(self) -> None:
        """Multiply the tiles."""

    @abstractmethod
    def epilogue(self) -> None:
        """Store the results."""


class _Scalars(_Product):
    """Each thread has the sums of a few rows and columns, and multiplies them one by one."""

    tiles = _SCALAR_TILES
    _SIDE = 16
    """Threads along each side of a tile."""

    @property
    def held(self) -> DType:
        return self.kernel.accumulator.dtype.computes_in

    @property
    def summed(self) -> DType:
        return self.held

    def declare(self) -> None:
        code, type_ = self.code, C_TYPE[self.held.name]
        self._rows, self._columns = self.tile.rows // self._SIDE, self.tile.columns // self._SIDE
        code.line(f"__shared__ {type_} lhs_tile[{self.tile.depth}][{self.tile.rows + 1}];")
        code.line(f"__shared__ {type_} rhs_tile[{self.tile.depth}][{self.tile.columns + 1}];")
        code.line(f"const int row = thread / {self._SIDE}, column = thread % {self._SIDE};")
        self.declare_next()
        code.line(f"{type_} sums[{self._rows}][{self._columns}];")
        with code.block(f"for (int i = 0; i < {self._rows * self._columns}; ++i)", unroll=True):
            code.line(f"sums[i / {self._columns}][i % {self._columns}] = {literal(0, self.summed)};")

    def slot(self, side: str) -> str:
        return f"{side}_tile[along][across]"

    def multiply(self) -> None:
        code, type_ = self.code, C_TYPE[self.held.name]
        with code.block(f"for (int along = 0; along < {self.tile.depth}; ++along)", unroll=True):
            code.line(f"{type_} x[{self._rows}], y[{self._columns}];")
            with code.block(f"for (int i = 0; i < {self._rows}; ++i)", unroll=True):
                code.line(f"x[i] = lhs_tile[along][row * {self._rows} + i];")
            with code.block(f"for (int j = 0; j < {self._columns}; ++j)", unroll=True):
                code.line(f"y[j] = rhs_tile[along][column + j * {self._SIDE}];")
            with (
                code.block(f"for (int i = 0; i < {self._rows}; ++i)", unroll=True),
                code.block(f"for (int j = 0; j < {self._columns}; ++j)", unroll=True),
            ):
                dtype = self.summed
                if dtype.is_floating_point:
                    total = "fma(x[i], y[j], sums[i][j])"
                else:
                    product = render("mul", dtype, ("x[i]", "y[j]"), result=dtype)
                    total = render("add", dtype, ("sums[i][j]", f"({product})"), result=dtype)
                code.line(f"sums[i][j] = {total};")

    def epilogue(self) -> None:
        code = self.code
        with (
            code.block(f"for (int i = 0; i < {self._rows}; ++i)", unroll=True),
            code.block(f"for (int j = 0; j < {self._columns}; ++j)", unroll=True),
        ):
            m = code.value("int", f"m0 + row * {self._rows} + i", "m")
            n = code.value("int", f"n0 + column + j * {self._SIDE}", "n")
            self.store(m, n, "sums[i][j]")


class _Halves(_Product):
    """Each warp has a part of the tile, of squares that the tensor cores multiply: 16 rows and 8 columns, 16 deep.

    "PTX ISA", section on mma.m16n8k16: thread `lane` of a warp holds of each operand pairs of numbers that follow one another
    along k, at 2 * (lane % 4), in the row, or column, lane / 4.
    """

    tiles = _HALF_TILES
    _PAD = 8
    """Numbers behind each row of a tile, so that the rows that a warp reads at once stand in different banks."""

    @property
    def held(self) -> DType:
        return self.kernel.lhs.dtype

    @property
    def summed(self) -> DType:
        return float32

    def declare(self) -> None:
        code, tile = self.code, self.tile
        warps_down = 2
        warps_across = tile.threads // 32 // warps_down
        rows, columns = tile.rows // warps_down, tile.columns // warps_across
        self._down, self._across = rows // 16, columns // 8
        pitch = tile.depth + self._PAD
        type_ = C_TYPE[self.held.name]
        code.line(f"__shared__ __align__(16) {type_} lhs_tile[{tile.rows}][{pitch}];")
        code.line(f"__shared__ __align__(16) {type_} rhs_tile[{tile.columns}][{pitch}];")
        code.line("const int lane = thread % 32, warp = thread / 32, square = lane / 4, pair = lane % 4 * 2;")
        code.line(f"const int row0 = warp / {warps_across} * {rows}, column0 = warp % {warps_across} * {columns};")
        self.declare_next()
        code.line(f"float sums[{self._down}][{self._across}][4];")
        with (
            code.block(f"for (int i = 0; i < {self._down}; ++i)", unroll=True),
            code.block(f"for (int j = 0; j < {self._across}; ++j)", unroll=True),
            code.block("for (int c = 0; c < 4; ++c)", unroll=True),
        ):
            code.line("sums[i][j][c] = 0.0f;")

    def slot(self, side: str) -> str:
        return f"{side}_tile[across][along]"

    def multiply(self) -> None:
        code = self.code
        with code.block(f"for (int along = 0; along < {self.tile.depth}; along += 16)", unroll=True):
            code.line(f"unsigned x[{self._down}][4], y[{self._across}][2];")
            with (
                code.block(f"for (int i = 0; i < {self._down}; ++i)", unroll=True),
                code.block("for (int c = 0; c < 4; ++c)", unroll=True),
            ):
                at = "lhs_tile[row0 + i * 16 + square + c % 2 * 8][along + pair + c / 2 * 8]"
                code.line(f"x[i][c] = *(const unsigned*)&{at};")
            with (
                code.block(f"for (int j = 0; j < {self._across}; ++j)", unroll=True),
                code.block("for (int c = 0; c < 2; ++c)", unroll=True),
            ):
                code.line("y[j][c] = *(const unsigned*)&rhs_tile[column0 + j * 8 + square][along + pair + c * 8];")
            with (
                code.block(f"for (int i = 0; i < {self._down}; ++i)", unroll=True),
                code.block(f"for (int j = 0; j < {self._across}; ++j)", unroll=True),
            ):
                code.line(f"multiply_tiles(sums[i][j], x[i], y[j], {C_TYPE[self.held.name]}());")

    def epilogue(self) -> None:
        code = self.code
        with (
            code.block(f"for (int i = 0; i < {self._down}; ++i)", unroll=True),
            code.block(f"for (int j = 0; j < {self._across}; ++j)", unroll=True),
            code.block("for (int c = 0; c < 4; ++c)", unroll=True),
        ):
            m = code.value("int", "m0 + row0 + i * 16 + square + c / 2 * 8", "m")
            n = code.value("int", "n0 + column0 + j * 8 + pair + c % 2", "n")
            self.store(m, n, "sums[i][j][c]")
