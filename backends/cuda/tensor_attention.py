"""Attention by tensor cores.

Each warp of a block has 16 queries. Of a tile of keys it has their scores in registers, where mma leaves them, makes weights of
them there, and multiplies these with the values as they are: what a thread has of a square of sums is what it has to bring of
one that is multiplied. While scores are computed, the values are on their way to shared memory, and while values are weighed,
the next keys. Dao: "FlashAttention-2" (ICLR 2024), sections 3.1 and 3.3.

Scores are held in units of log(2), since powers of two are what the GPU computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.backends.cuda.attention_code import AttentionCode
from graphc.backends.cuda.elementwise import C_TYPE, HALVES, literal
from graphc.backends.cuda.launch import ALIGNMENT, Launch, Sizes
from graphc.expression import Buffer
from graphc.kernel import Attention, Block
from graphc.types import float32

_SHARED_BYTES = 48 << 10
_WIDEST = 256
"""Numbers of a key or a value for which there are registers."""
_TILES = ((4, 64), (4, 32), (2, 32), (2, 16), (1, 16))
"""Warps of a block, and keys of a tile: the first for which there is shared memory."""
_ROWS = 16
"""Queries of a warp, and what widths are rounded up to."""


def multiplies(kernel: Attention, tf32: bool) -> bool:
    """Whether tensor cores can be used: for half precision, and for single precision that may be rounded to 11 bits."""
    dtype = kernel.q.buffer.dtype
    if any(block.buffer.dtype is not dtype for block in (kernel.k, kernel.v)):
        return False
    if dtype not in HALVES and not (dtype is float32 and tf32):
        return False
    return 0 < kernel.width <= _WIDEST and 0 < kernel.columns <= _WIDEST and _tile(kernel) is not None


def _tile(kernel: Attention) -> tuple[int, int] | None:
    """How many warps a block has, and how many keys a tile; None where not even one warp has room."""
    itemsize = kernel.q.buffer.dtype.itemsize
    width, columns = (_rounded(size) + ALIGNMENT // itemsize for size in (kernel.width, kernel.columns))
    for warps, keys in _TILES:
        if ((_ROWS * warps + keys) * width + keys * columns) * itemsize <= _SHARED_BYTES:
            return warps, keys
    return None


def _rounded(size: int) -> int:
    return -(-size // _ROWS) * _ROWS


class TensorAttention(AttentionCode):
    """Renders one kernel. `aligned` as `render_loops` has it."""

    def __init__(self, kernel: Attention, name: str, buffers: Sequence[Buffer], aligned: bool) -> None:
        super().__init__(kernel, buffers)
        self.kernel = kernel
        self.aligned = aligned
        self.held = kernel.q.buffer.dtype
        self.halves = self.held in HALVES
        self.depth = 16 if self.halves else 8
        """Of the squares that are multiplied."""
        self.together = ALIGNMENT // self.held.itemsize
        self.width, self.columns = _rounded(kernel.width), _rounded(kernel.columns)
        tile = _tile(kernel)
        assert tile is not None, "there is a tile for what tensor cores multiply"
        warps, self.keys = tile
        self.rows = _ROWS * warps
        self.blocks_of_rows = -(-kernel.queries // self.rows)
        operands = (kernel.q, kernel.k, kernel.v) if aligned else ()
        wanted = {block.buffer for block in operands if self._stands_side_by_side(block)}
        numbers = tuple(i for i, buffer in enumerate(buffers) if buffer in wanted)
        self.launch = Launch(name, self.batch * self.blocks_of_rows, 32 * warps, (), numbers)

    def _stands_side_by_side(self, block: Block) -> bool:
        """Whether rows can be copied 16 bytes at a time."""
        steps = (block.offset, *block.strides[:-1], block.shape[-1])
        return block.strides[-1] == 1 and all(step % self.together == 0 for step in steps)

    def render(self) -> str:
        """The text of the function."""
        code, k, keys = self.code, self.kernel, self.keys
        code.line(f"const int thread = threadIdx.x, lane = thread % 32, q0 = blockIdx.x % {self.blocks_of_rows} * {self.rows};")
        code.line(f"const int row0 = thread / 32 * {_ROWS};")
        self.bind_batch(f"blockIdx.x / {self.blocks_of_rows}")
        for name, rows, width in (("q", self.rows, self.width), ("k", keys, self.width), ("v", keys, self.columns)):
            tile = f"{name}_tile[{rows}][{width + self.together}]"
            code.line(f"__shared__ __align__({ALIGNMENT}) {C_TYPE[self.held.name]} {tile};")
        lowest = literal(float("-inf"), float32)
        code.line(f"float sums[{self.columns // 8}][4] = {{}};")
        code.line(f"float greatest[2] = {{{lowest}, {lowest}}}, total[2] = {{}};")
        stop = code.value("int", f"min({k.keys}, q0 + {self.rows})", "stop") if k.causal else str(k.keys)
        self._fetch("q_tile", k.q, self.rows, self.width, "q0", k.queries)
        self._fetch("k_tile", k.k, keys, self.width, "0", k.keys)
        with code.block(f"for (int k0 = 0; k0 < {stop}; k0 += {keys})"):
            self._wait()
            self._fetch("v_tile", k.v, keys, self.columns, "k0", k.keys)
            self._score()
            self._weigh()
            self._wait()
            with code.block(f"if (k0 + {keys} < {stop})"):
                self._fetch("k_tile", k.k, keys, self.width, f"k0 + {keys}", k.keys)
            self._sum()
        self._finish()
        return Sizes().function(self.launch.symbol, self.buffers, self.launch.threads, str(code))

    def _wait(self) -> None:
        """For what has been fetched, and for those who read what is fetched next."""
        self.code.line("wait_for_copies();")
        self.code.line("__syncthreads();")

    def _fetch(self, tile: str, block: Block, rows: int, width: int, first: str, size: int) -> None:
        """Bring rows of a matrix from `first` on to a tile, and zeros for what there is not."""
        code, columns, together = self.code, block.shape[-1], self.together
        several = self._stands_side_by_side(block)
        step = together if several else 1
        across = width // step
        with code.block(f"for (int i = thread; i < {rows * across}; i += {self.launch.threads})", unroll=4):
            code.line(f"const int row = i / {across}, column = i % {across} * {step};")
            conditions = [f"{first} + row < {size}", *([f"column < {columns}"] if columns < width else [])]
            code.line(f"const bool wanted = {' && '.join(conditions)};")
            how = f"copy_vector<{step}>" if several and self.aligned else f"copy_each<{step}>"
            place = self.at(block, f"(wanted ? {first} + row : 0)", "(wanted ? column : 0)")
            code.line(f"{how}(&{tile}[row][column], &{place}, wanted);")

    def _load_rows(self, into: str, tile: str, row: str, along: str) -> None:
        """What a thread brings of 16 rows that are multiplied from the left."""
        if self.halves:
            at = f"{tile}[{row} + lane % 16][{along} + lane / 16 * 8]"
            self.code.line(f"load_squares({into}[0], {into}[1], {into}[2], {into}[3], &{at});")
            return
        with self.code.block("for (int c = 0; c < 4; ++c)", unroll=True):
            at = f"{tile}[{row} + lane / 4 + c % 2 * 8][{along} + lane % 4 + c / 2 * 4]"
            self.code.line(f"{into}[c] = to_tf32({at});")

    def _load_columns(self, load: str, squares: str, number: str) -> None:
        """What a thread brings of 16 columns, two squares, that are multiplied from the right: of halves by a function that
        loads `squares`, otherwise each `number`, of which there are four."""
        code = self.code
        code.line("unsigned y[2][2];")
        if self.halves:
            code.line(f"{load}(y[0][0], y[0][1], y[1][0], y[1][1], &{squares});")
            return
        with code.block("for (int c = 0; c < 4; ++c)", unroll=True):
            code.line(f"y[c / 2][c % 2] = to_tf32({number});")

    def _multiply(self, into: str, left: str) -> None:
        kind = C_TYPE[self.held.name] if self.halves else "tf32_t"
        self.code.line(f"multiply_tiles({into}, {left}, y[0], {kind}());")
        self.code.line(f"multiply_tiles({into.replace('[j]', '[j + 1]')}, {left}, y[1], {kind}());")

    def _score(self) -> None:
        """The products of 16 queries and the keys of a tile."""
        code, squares = self.code, self.keys // 8
        code.line(f"float scores[{squares}][4] = {{}};")
        with code.block(f"for (int along = 0; along < {self.width}; along += {self.depth})", unroll=True):
            code.line("unsigned x[4];")
            self._load_rows("x", "q_tile", "row0", "along")
            with code.block(f"for (int j = 0; j < {squares}; j += 2)", unroll=True):
                self._load_columns(
                    "load_squares", "k_tile[j * 8 + lane / 16 * 8 + lane % 8][along + lane / 8 % 2 * 8]",
                    "k_tile[(j + c / 2) * 8 + lane / 4][along + lane % 4 + c % 2 * 4]",
                )  # fmt: skip
                self._multiply("scores[j]", "x")

    def _weigh(self) -> None:
        """From products to weights, relative to the greatest so far, by which what there is of sums is scaled."""
        code, k, squares = self.code, self.kernel, self.keys // 8
        scale = literal(k.scale * math.log2(math.e), float32)
        inside = [f"k0 + {self.keys} <= {k.keys}", *(["k0 + KEYS <= q0 + row0 + 1"] if k.causal else [])]
        whole = "false" if k.mask is not None else " && ".join(inside).replace("KEYS", str(self.keys))
        code.line(f"const bool whole = {whole};")
        with (
            code.block(f"for (int j = 0; j < {squares}; ++j)", unroll=True),
            code.block("for (int c = 0; c < 4; ++c)", unroll=True),
        ):
            code.line("const int key = k0 + j * 8 + lane % 4 * 2 + c % 2, query = q0 + row0 + lane / 4 + c / 2 * 8;")
            lowest = literal(float("-inf"), float32)
            code.line(f"scores[j][c] = whole || ({self.seen()}) ? scores[j][c] * {scale} : {lowest};")
        with code.block("for (int r = 0; r < 2; ++r)", unroll=True):
            code.line("float most = greatest[r];")
            with code.block(f"for (int i = 0; i < {2 * squares}; ++i)", unroll=True):
                code.line("most = maximum(most, scores[i / 2][2 * r + i % 2]);")
            for distance in (1, 2):
                code.line(f"most = maximum(most, __shfl_xor_sync(0xffffffffu, most, {distance}));")
            lowest = literal(float("-inf"), float32)
            code.line(f"const bool none = most == {lowest};")
            code.line("const float kept = none ? 0.0f : exp2(greatest[r] - most);")
            code.line("total[r] *= kept;")
            with code.block(f"for (int i = 0; i < {2 * squares}; ++i)", unroll=True):
                code.line("float& score = scores[i / 2][2 * r + i % 2];")
                code.line("score = none ? 0.0f : exp2(score - most);")
                code.line("total[r] += score;")
            with code.block(f"for (int i = 0; i < {self.columns // 4}; ++i)", unroll=True):
                code.line("sums[i / 2][2 * r + i % 2] *= kept;")
            code.line("greatest[r] = most;")

    def _sum(self) -> None:
        """Add what values weigh."""
        code, step = self.code, self.depth // 8
        with code.block(f"for (int s = 0; s < {self.keys // 8}; s += {step})", unroll=True):
            if self.halves:
                kind = f"{C_TYPE[self.held.name]}()"
                packed = [f"pack(scores[s + {c // 2}][{c % 2 * 2}], scores[s + {c // 2}][{c % 2 * 2 + 1}], {kind})"
                          for c in range(4)]
            else:  # of two neighbours, the squares have one four steps behind the other: values are read in the same order
                packed = [f"to_tf32(scores[s][{c}])" for c in (0, 2, 1, 3)]
            code.line(f"const unsigned x[4] = {{{', '.join(packed)}}};")
            with code.block(f"for (int j = 0; j < {self.columns // 8}; j += 2)", unroll=True):
                self._load_columns(
                    "load_squares_turned", "v_tile[s * 8 + lane / 8 % 2 * 8 + lane % 8][j * 8 + lane / 16 * 8]",
                    "v_tile[s * 8 + lane % 4 * 2 + c % 2][(j + c / 2) * 8 + lane / 4]",
                )  # fmt: skip
                self._multiply("sums[j]", "x")

    def _finish(self) -> None:
        """Divide, and store."""
        code, k = self.code, self.kernel
        with code.block("for (int r = 0; r < 2; ++r)", unroll=True):
            for distance in (1, 2):
                code.line(f"total[r] += __shfl_xor_sync(0xffffffffu, total[r], {distance});")
            code.line("const int query = q0 + row0 + lane / 4 + r * 8;")
            with code.block(f"if (query < {k.queries})"):
                with code.block(f"for (int i = 0; i < {self.columns // 4}; ++i)", unroll=True):
                    code.line("const int column = i / 2 * 8 + lane % 4 * 2 + i % 2;")
                    value = "sums[i / 2][2 * r + i % 2] / total[r]"
                    if k.zeros:
                        value = f"(total[r] == 0 ? 0.0f : {value})"
                    with code.block(f"if (column < {k.columns})"):
                        self.store(k.out, value, "query", "column")
                nothing = literal(float("inf" if k.zeros else "-inf"), float32)
                log = f"greatest[r] * {literal(math.log(2), float32)} + log(total[r])"
                with code.block("if (lane % 4 == 0)"):
                    self.store(k.lse, f"(total[r] == 0 ? {nothing} : {log})", "query")
