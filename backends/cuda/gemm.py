"""Matrix products as CUDA kernels.

A block computes one tile of the result. It goes along k step by step, with the operands of a step in shared memory, while those
of the next step are on their way to other tiles there:

    fetch the operands of the first step
    for each step:
      wait for its operands
      fetch those of the next step
      multiply

Operands are read through their expressions, so a convolution is a product whose operand is read from an image. Where 16
bytes stand side by side as they are wanted, they are copied by `cp.async`, past the registers; all else goes through registers,
number by number. Tiles have the order in which an operand stands in memory: along k, or across it.

`_Scalars` multiplies numbers of any dtype one by one. `_Halves` multiplies those of half precision, and `_Tf32` those of single
precision rounded to 11 bits, with the tensor cores' instructions.
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
from graphc.backends.cuda.launch import ALIGNMENT, Launch, Sizes, index_type
from graphc.backends.cuda.vectors import Segment, Vectors, choose_vectors, depends, multiple, starts_at_multiples
from graphc.expression import Axis, Buffer, Expr
from graphc.kernel import Gemm
from graphc.sizes import ceil_div, estimate
from graphc.types import DType, Size, bool_, float32

_ENOUGH = 160
"""Blocks that keep a large GPU busy."""
_SHARED_BYTES = 48 << 10
_STAGES = 2
_TOGETHER = 8
"""Rows of tiles whose blocks run at about the same time, so that they find each other's operands in the cache."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns of the result that a block computes, steps of k that it takes at a time, and its threads."""

    rows: int
    columns: int
    depth: int
    threads: int


_SCALAR_TILES = (Tile(128, 128, 16, 256), Tile(64, 64, 16, 256), Tile(32, 32, 32, 256))
_HALF_TILES = (Tile(128, 128, 32, 256), Tile(64, 64, 32, 128))
_TF32_TILES = (Tile(128, 128, 16, 256), Tile(64, 64, 16, 128))


def render_gemm(
    kernel: Gemm, name: str, buffers: Sequence[Buffer], aligned: bool = True, tf32: bool = False
) -> tuple[str, Launch]:
    """The kernel as a function of its buffers, and how it is launched; `aligned` as `render_loops` has it. With `tf32`, factors
    in single precision may be rounded to 11 bits."""
    dtype = kernel.lhs.dtype
    writer: type[_Product] = _Scalars
    if dtype is kernel.rhs.dtype and dtype in HALVES:
        writer = _Halves
    elif dtype is kernel.rhs.dtype is kernel.accumulator.dtype is float32 and tf32:
        writer = _Tf32
    product = writer(kernel, buffers, aligned)
    text = product.render(name)
    return text, Launch(name, product.blocks, product.tile.threads, product.sizes.all, product.aligned_buffers())


def _extent(axes: Sequence[Axis]) -> Size:
    return math.prod(axis.extent for axis in axes)


class _Operand:
    """How a block reads one operand, and what its tile looks like."""

    def __init__(self, side: str, expr: Expr, axes: Sequence[Axis], k: Sequence[Axis], tile: Tile, held: DType) -> None:
        width, depth = tile.rows if side == "lhs" else tile.columns, tile.depth
        self.side = side
        self.expr = expr
        self.axes = axes
        self.size = _extent(axes)
        self.width = width
        self.depth = depth
        self.name = f"{side}_tile"
        self.first = "m0" if side == "lhs" else "n0"
        self.by_depth = _by_depth(expr, axes, k)
        """Whether it stands in memory along k rather than along its other axes."""
        together = ALIGNMENT // held.itemsize
        along = k if self.by_depth else axes
        enough = width * depth >= together * tile.threads
        self.chunk = together if enough and along and _stands_side_by_side(expr, along[-1], together, held) else 1
        """Numbers that are copied at once; 1 where they go through registers."""
        pad = max(together, 1 if self.by_depth else 8)
        self.shape = (width, depth + pad) if self.by_depth else (depth, width + pad)

    @property
    def nbytes(self) -> int:
        """Of its tiles, but for the size of a number."""
        return _STAGES * self.shape[0] * self.shape[1]

    def at(self, stage: str, across: str, along: str) -> str:
        """A number of a tile."""
        return f"{self.name}[{stage}][{across}][{along}]" if self.by_depth else f"{self.name}[{stage}][{along}][{across}]"

    def place(self, code: Code, threads: int) -> None:
        """Which numbers of the tile it is that a thread brings in turn `e`: `along` k, and `across`. Threads side by side read
        what stands so."""
        code.line(f"const int number = thread + e * {threads};")
        if self.by_depth:
            row = self.depth // self.chunk
            code.line(f"const int along = number % {row} * {self.chunk}, across = number / {row};")
        else:
            row = self.width // self.chunk
            code.line(f"const int across = number % {row} * {self.chunk}, along = number / {row};")


def _by_depth(expr: Expr, axes: Sequence[Axis], k: Sequence[Axis]) -> bool:
    for e in expr.walk():
        if e.op == "load":
            along_k = k and ix.stride(e.args[0], k[-1]) in (1, -1)
            across = axes and ix.stride(e.args[0], axes[-1]) in (1, -1)
            if along_k or across:
                return bool(along_k)
    return False


def _stands_side_by_side(expr: Expr, axis: Axis, together: int, held: DType) -> bool:
    """Whether an operand is read as it stands, so many numbers along an axis at a time."""
    if expr.op != "load" or expr.dtype is not held or held is bool_ or together < 2:
        return False
    offset, *masks = expr.args
    return (
        ix.stride(offset, axis) == 1 and multiple(axis.extent, together) and starts_at_multiples(offset, axis, together)
        and not any(depends(mask, axis) for mask in masks)
    )


class _Product(ABC):
    """Renders one kernel; how tiles are multiplied is the subclasses'."""

    tiles: tuple[Tile, ...]

    def __init__(self, kernel: Gemm, buffers: Sequence[Buffer], aligned: bool) -> None:
        self.kernel = kernel
        self.buffers = buffers
        self.aligned = aligned
        self.batch, self.m, self.n, self.k = map(_extent, (kernel.batch, kernel.m, kernel.n, kernel.k))
        self.tile = self._choose()
        self.blocks = self._blocks(self.tile)
        margin = max(self.tile.rows, self.tile.columns, self.tile.depth)
        wide = [size for size in (self.m, self.n, self.k) if index_type(size + margin) != "int"]
        self.int = "long long" if wide else "int"
        """What rows, columns and steps are counted in: those of the last tile may be beyond the matrix."""
        self.sizes = Sizes()
        self.code = Code()
        self._names = {buffer: f"b{i}" for i, buffer in enumerate(buffers)}
        self._scope = Scope(self.code, self._names.__getitem__, self.sizes)
        self.lhs, self.rhs = self._operands(self.tile)
        self._vectors: Vectors | None = None

    def _operands(self, tile: Tile) -> tuple[_Operand, _Operand]:
        kernel = self.kernel
        return (
            _Operand("lhs", kernel.lhs, kernel.m, kernel.k, tile, self.held),
            _Operand("rhs", kernel.rhs, kernel.n, kernel.k, tile, self.held),
        )

    def _blocks(self, tile: Tile) -> Size:
        return self.batch * ceil_div(self.m, tile.rows) * ceil_div(self.n, tile.columns)

    def _choose(self) -> Tile:
        """The largest tile with which all of the GPU has something to do; else the smallest."""
        for tile in self.tiles[:-1]:
            fits = 2 * estimate(self.m) > tile.rows and 2 * estimate(self.n) > tile.columns
            nbytes = sum(operand.nbytes for operand in self._operands(tile)) * self.held.itemsize
            if estimate(self._blocks(tile)) >= _ENOUGH and fits and nbytes <= _SHARED_BYTES:
                return tile
        return self.tiles[-1]

    def aligned_buffers(self) -> tuple[int, ...]:
        """The numbers of the buffers whose addresses have to be aligned."""
        if not self.aligned:
            return ()
        wanted = {operand.expr.attr for operand in (self.lhs, self.rhs) if operand.chunk > 1}
        wanted |= self._vectors.buffers() if self._vectors is not None else set()
        return tuple(i for i, buffer in enumerate(self.buffers) if buffer in wanted)

    def render(self, name: str) -> str:
        """The text of the function."""
        code, tile, depth = self.code, self.tile, self.tile.depth
        code.line("const int thread = threadIdx.x;")
        self._bind_block()
        for operand in (self.lhs, self.rhs):
            rows, pitch = operand.shape
            type_ = C_TYPE[self.held.name]
            code.line(f"__shared__ __align__({ALIGNMENT}) {type_} {operand.name}[{_STAGES}][{rows}][{pitch}];")
            if operand.chunk == 1:
                code.line(f"{type_} {operand.side}_next[{self._share(operand)}];")
        self.declare()
        k = self.sizes.text(self.k)
        with code.block(f"for ({self.int} k0 = -{depth}, stage = 1; k0 < {k}; k0 += {depth}, stage ^= 1)"):
            code.line(f"const {self.int} next = k0 + {depth};")
            code.line("wait_for_copies();")
            code.line("__syncthreads();")
            with code.block(f"if (next < {k})"):
                for operand in (self.lhs, self.rhs):
                    self._fetch(operand)
            with code.block("if (k0 >= 0)"):
                self.multiply()
            through_registers = [operand for operand in (self.lhs, self.rhs) if operand.chunk == 1]
            if through_registers:
                with code.block(f"if (next < {k})"):
                    for operand in through_registers:
                        with code.block(f"for (int e = 0; e < {self._share(operand)}; ++e)", unroll=True):
                            operand.place(code, tile.threads)
                            code.line(f"{operand.at('stage ^ 1', 'across', 'along')} = {operand.side}_next[e];")
        self.epilogue()
        return self.sizes.function(name, self.buffers, tile.threads, str(code), together=2)

    def _bind_block(self) -> None:
        """Which tile this block has: neighbours have some of their operands in common."""
        code, tile = self.code, self.tile
        rows, columns = (self.sizes.text(ceil_div(*pair)) for pair in ((self.m, tile.rows), (self.n, tile.columns)))
        code.line(f"const int of_matrix = blockIdx.x % ({rows} * {columns});")
        code.line(f"const int first = of_matrix / ({_TOGETHER} * {columns}) * {_TOGETHER};")
        code.line(f"const int high = min({rows} - first, {_TOGETHER}), within = of_matrix - first * {columns};")
        code.line(f"const {self.int} m0 = ({self.int})(first + within % high) * {tile.rows};")
        code.line(f"const {self.int} n0 = ({self.int})(within / high) * {tile.columns};")
        self._bind(self._scope, self.kernel.batch, code.value("int", f"blockIdx.x / ({rows} * {columns})", "batch"))

    def _bind(self, scope: Scope, axes: Sequence[Axis], place: str) -> None:
        """Give axes their values at a place of their product."""
        for axis in reversed(axes[1:]):
            extent = self.sizes.text(axis.extent)
            scope.bind(axis, self.code.value(self.int, f"{place} % {extent}", "i"))
            place = self.code.value(self.int, f"{place} / {extent}", "i")
        if axes:
            scope.bind(axes[0], place)

    # Operands

    def _share(self, operand: _Operand) -> int:
        """How many times each thread brings something to an operand's tile."""
        return operand.width * operand.depth // operand.chunk // self.tile.threads

    def _fetch(self, operand: _Operand) -> None:
        """Read the operands of the next step."""
        code, type_, expr = self.code, C_TYPE[self.held.name], operand.expr
        with code.block(f"for (int e = 0; e < {self._share(operand)}; ++e)", unroll=True):
            operand.place(code, self.tile.threads)
            code.line(f"const {self.int} outer = {operand.first} + across, inner = next + along;")
            conditions = []
            if not multiple(operand.size, operand.width):
                conditions.append(f"outer < {self.sizes.text(operand.size)}")
            if not multiple(self.k, operand.depth):
                conditions.append(f"inner < {self.sizes.text(self.k)}")
            inside = " && ".join(conditions) or "true"
            scope = self._scope.child()
            if operand.chunk == 1:
                code.line(f"{type_} number_read = {literal(0, self.held)};")
                with code.block(f"if ({inside})"):
                    self._bind(scope, operand.axes, "outer")
                    self._bind(scope, self.kernel.k, "inner")
                    code.line(f"number_read = {cast(scope.value(expr), expr.dtype, self.held)};")
                code.line(f"{operand.side}_next[e] = number_read;")
                return
            self._bind(scope, operand.axes, "outer")
            self._bind(scope, self.kernel.k, "inner")
            offset = scope.value(expr.args[0])
            mask = scope.value(expr.args[1]) if len(expr.args) > 1 else "true"
            wanted = code.value("bool", " && ".join(x for x in (inside, mask) if x != "true") or "true", "wanted")
            how = "copy_vector" if self.aligned else "copy_each"
            target = operand.at("stage ^ 1", "across", "along")
            code.line(f"{how}<{operand.chunk}>(&{target}, {self._names[expr.attr]} + ({wanted} ? {offset} : 0), {wanted});")

    # Results

    def store(self, m: str, n: str, sums: str, width: int) -> None:
        """Compute and write what sums become, of as many neighbouring columns as `width` says: `sums` is a format of the
        neighbour's number."""
        code, kernel = self.code, self.kernel
        with code.block(f"if ({m} < {self.sizes.text(self.m)} && {n} < {self.sizes.text(self.n)})"):
            scope = self._scope.child()
            self._bind(scope, kernel.m, m)
            base = n
            if len(kernel.n) > 1:
                extent = self.sizes.text(kernel.n[-1].extent)
                base = code.value(self.int, f"{n} % {extent}", "base")
                self._bind(scope, kernel.n[:-1], code.value(self.int, f"{n} / {extent}", "i"))

            def bind(inside: Scope, number: str) -> None:
                type_ = C_TYPE[kernel.accumulator.dtype.name]
                value = cast(sums.format(number), self.summed, kernel.accumulator.dtype)
                inside.bind_accumulator(kernel.accumulator, code.value(type_, value, "sum"))

            if self._vectors is not None and width > 1:
                segment = Segment(code, self._vectors, kernel.epilogue, self._names.__getitem__, self.aligned)
                segment.load(scope, base)
                segment.compute(scope, base, "0", lambda inside: bind(inside, "j"))
                segment.write(scope, base)
                return
            if kernel.n:
                scope.bind(kernel.n[-1], base)
            bind(scope, "0")
            scope.store(kernel.epilogue)

    def columns_together(self, most: int) -> int:
        """How many neighbouring columns are stored at once, where a thread has so many."""
        if self.kernel.n and most > 1:
            vectors = choose_vectors(self.kernel.n[-1], self.kernel.epilogue, (), most)
            if vectors is not None and most % vectors.width == 0 and multiple(self.kernel.n[-1].extent, vectors.width):
                self._vectors = vectors
                return vectors.width
        return 1

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
        """The sums, and where in a tile they belong."""

    @abstractmethod
    def multiply(self) -> None:
        """Multiply the tiles of `stage`."""

    @abstractmethod
    def epilogue(self) -> None:
        """Store the results."""


class _Scalars(_Product):
    """Each thread has the sums of a few rows and columns, and multiplies them one by one.

    Of an operand that stands along k it takes every sixteenth row, four steps of k at a time; of one that stands across, rows
    in groups of four: so what a warp reads at once is 16 bytes a thread, in different banks.
    """

    tiles = _SCALAR_TILES
    _SIDE = 16
    """Threads along each side of a tile."""
    _DEEP = 4

    @property
    def held(self) -> DType:
        return self.kernel.accumulator.dtype.computes_in

    @property
    def summed(self) -> DType:
        return self.held

    def _group(self, operand: _Operand) -> int:
        """How many neighbouring rows, or columns, a thread has."""
        return 1 if operand.by_depth else min(self._DEEP, operand.width // self._SIDE)

    def _own(self, operand: _Operand, thread: str, number: str) -> str:
        """Which row, or column, of a tile a thread's number is."""
        group = self._group(operand)
        if group == 1:
            return f"{thread} + {number} * {self._SIDE}"
        return f"{number} / {group} * {self._SIDE * group} + {thread} * {group} + {number} % {group}"

    def declare(self) -> None:
        code, type_ = self.code, C_TYPE[self.held.name]
        self._rows, self._columns = self.tile.rows // self._SIDE, self.tile.columns // self._SIDE
        code.line(f"const int row = thread / {self._SIDE}, column = thread % {self._SIDE};")
        code.line(f"{type_} sums[{self._rows}][{self._columns}];")
        with code.block(f"for (int i = 0; i < {self._rows * self._columns}; ++i)", unroll=True):
            code.line(f"sums[i / {self._columns}][i % {self._columns}] = {literal(0, self.summed)};")

    def _read(self, operand: _Operand, name: str, thread: str, count: int) -> None:
        """Bring what a thread needs for a few steps to registers."""
        code, group, deep = self.code, self._group(operand), self._DEEP
        code.line(f"{C_TYPE[self.held.name]} {name}[{count}][{deep}];")
        if operand.by_depth:
            with code.block(f"for (int i = 0; i < {count}; ++i)", unroll=True):
                code.line(f"load_vector<{deep}>({name}[i], &{operand.at('stage', self._own(operand, thread, 'i'), 'along')});")
            return
        with (
            code.block(f"for (int c = 0; c < {deep}; ++c)", unroll=True),
            code.block(f"for (int i = 0; i < {count}; i += {group})", unroll=True),
        ):
            code.line(f"{C_TYPE[self.held.name]} read[{group}];")
            code.line(f"load_vector<{group}>(read, &{operand.at('stage', self._own(operand, thread, 'i'), 'along + c')});")
            with code.block(f"for (int j = 0; j < {group}; ++j)", unroll=True):
                code.line(f"{name}[i + j][c] = read[j];")

    def multiply(self) -> None:
        code = self.code
        # what two operands that stand along k need for further steps at the same time, there are no registers for
        unroll = 1 if self.lhs.by_depth and self.rhs.by_depth else True
        with code.block(f"for (int along = 0; along < {self.tile.depth}; along += {self._DEEP})", unroll=unroll):
            self._read(self.lhs, "x", "row", self._rows)
            self._read(self.rhs, "y", "column", self._columns)
            with (
                code.block(f"for (int c = 0; c < {self._DEEP}; ++c)", unroll=True),
                code.block(f"for (int i = 0; i < {self._rows}; ++i)", unroll=True),
                code.block(f"for (int j = 0; j < {self._columns}; ++j)", unroll=True),
            ):
                dtype = self.summed
                if dtype.is_floating_point:
                    total = "fma(x[i][c], y[j][c], sums[i][j])"
                else:
                    product = render("mul", dtype, ("x[i][c]", "y[j][c]"), result=dtype)
                    total = render("add", dtype, ("sums[i][j]", f"({product})"), result=dtype)
                code.line(f"sums[i][j] = {total};")

    def epilogue(self) -> None:
        code = self.code
        together = self.columns_together(self._group(self.rhs))
        with (
            code.block(f"for (int i = 0; i < {self._rows}; ++i)", unroll=True),
            code.block(f"for (int c = 0; c < {self._columns}; c += {together})", unroll=True),
        ):
            m = code.value(self.int, f"m0 + {self._own(self.lhs, 'row', 'i')}", "m")
            n = code.value(self.int, f"n0 + {self._own(self.rhs, 'column', 'c')}", "n")
            self.store(m, n, "sums[i][c + {}]", together)


class _Squares(_Product):
    """Each warp has a part of the tile, of squares that the tensor cores multiply: 16 rows and 8 columns. Thread `lane` of the
    warp has of each the sums of rows lane / 4 and lane / 4 + 8, and columns 2 * (lane % 4) and the next.

    "PTX ISA", sections on mma.m16n8k16 and mma.m16n8k8.
    """

    _DOWN = 2
    """Parts of a tile, above each other."""

    @property
    def summed(self) -> DType:
        return float32

    def declare(self) -> None:
        code, tile = self.code, self.tile
        across = tile.threads // 32 // self._DOWN
        rows, columns = tile.rows // self._DOWN, tile.columns // across
        self._down, self._across = rows // 16, columns // 8
        code.line("const int lane = thread % 32, warp = thread / 32;")
        code.line(f"const int row0 = warp / {across} * {rows}, column0 = warp % {across} * {columns};")
        code.line(f"float sums[{self._down}][{self._across}][4];")
        with (
            code.block(f"for (int i = 0; i < {self._down}; ++i)", unroll=True),
            code.block(f"for (int j = 0; j < {self._across}; ++j)", unroll=True),
            code.block("for (int c = 0; c < 4; ++c)", unroll=True),
        ):
            code.line("sums[i][j][c] = 0.0f;")

    def _multiply_squares(self, kind: str) -> None:
        code = self.code
        with (
            code.block(f"for (int i = 0; i < {self._down}; ++i)", unroll=True),
            code.block(f"for (int j = 0; j < {self._across}; ++j)", unroll=True),
        ):
            code.line(f"multiply_tiles(sums[i][j], x[i], y[j], {kind}());")

    def epilogue(self) -> None:
        code = self.code
        together = self.columns_together(2)
        with (
            code.block(f"for (int i = 0; i < {self._down}; ++i)", unroll=True),
            code.block(f"for (int j = 0; j < {self._across}; ++j)", unroll=True),
            code.block(f"for (int c = 0; c < 4; c += {together})", unroll=True),
        ):
            m = code.value(self.int, "m0 + row0 + i * 16 + lane / 4 + c / 2 * 8", "m")
            n = code.value(self.int, "n0 + column0 + j * 8 + lane % 4 * 2 + c % 2", "n")
            # the name of a neighbour's number shadows that of the square's
            code.line("const float* const of_square = sums[i][j];")
            self.store(m, n, "of_square[c + {}]", together)


class _Halves(_Squares):
    """Squares 16 deep, which are read from the tiles by `ldmatrix`, turned where an operand stands across."""

    tiles = _HALF_TILES

    @property
    def held(self) -> DType:
        return self.kernel.lhs.dtype

    def multiply(self) -> None:
        code = self.code
        with code.block(f"for (int along = 0; along < {self.tile.depth}; along += 16)", unroll=True):
            code.line(f"unsigned x[{self._down}][4], y[{self._across}][2];")
            how = "" if self.lhs.by_depth else "_turned"
            across = "lane % 16" if self.lhs.by_depth else "lane / 8 % 2 * 8"
            deep = "lane / 16 * 8" if self.lhs.by_depth else "lane / 16 * 8 + lane % 8"
            with code.block(f"for (int i = 0; i < {self._down}; ++i)", unroll=True):
                at = self.lhs.at("stage", f"row0 + i * 16 + {across}", f"along + {deep}")
                code.line(f"load_squares{how}(x[i][0], x[i][1], x[i][2], x[i][3], &{at});")
            how = "" if self.rhs.by_depth else "_turned"
            across = "lane / 16 * 8 + lane % 8" if self.rhs.by_depth else "lane / 16 * 8"
            deep = "lane / 8 % 2 * 8" if self.rhs.by_depth else "lane / 8 % 2 * 8 + lane % 8"
            with code.block(f"for (int j = 0; j < {self._across}; j += 2)", unroll=True):
                at = self.rhs.at("stage", f"column0 + j * 8 + {across}", f"along + {deep}")
                code.line(f"load_squares{how}(y[j][0], y[j][1], y[j + 1][0], y[j + 1][1], &{at});")
            self._multiply_squares(C_TYPE[self.held.name])


class _Tf32(_Squares):
    """Squares 8 deep, of numbers in single precision, which the tensor cores take to 11 bits."""

    tiles = _TF32_TILES

    @property
    def held(self) -> DType:
        return float32

    def multiply(self) -> None:
        code = self.code
        with code.block(f"for (int along = 0; along < {self.tile.depth}; along += 8)", unroll=True):
            code.line(f"unsigned x[{self._down}][4], y[{self._across}][2];")
            with (
                code.block(f"for (int i = 0; i < {self._down}; ++i)", unroll=True),
                code.block("for (int c = 0; c < 4; ++c)", unroll=True),
            ):
                at = self.lhs.at("stage", "row0 + i * 16 + lane / 4 + c % 2 * 8", "along + lane % 4 + c / 2 * 4")
                code.line(f"x[i][c] = to_tf32({at});")
            with (
                code.block(f"for (int j = 0; j < {self._across}; ++j)", unroll=True),
                code.block("for (int c = 0; c < 2; ++c)", unroll=True),
            ):
                at = self.rhs.at("stage", "column0 + j * 8 + lane / 4", "along + lane % 4 + c * 4")
                code.line(f"y[j][c] = to_tf32({at});")
            self._multiply_squares("tf32_t")
