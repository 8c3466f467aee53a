"""Attention by tensor cores.

Each warp of a block has 16 queries. Of a tile of keys it has their scores in registers, where mma leaves them, makes weights of
them there, and multiplies these with the values as they are. While scores are computed, the values are on their way to shared
memory, and while values are weighed, the next keys. Dao: "FlashAttention-2" (ICLR 2024), sections 3.1 and 3.3.

Scores are held in units of log(2), since powers of two are what the GPU computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.backends.cuda.elementwise import literal
from graphc.backends.cuda.launch import Launch, Sizes
from graphc.backends.cuda.tensor_tiles import ROWS, SHARED_BYTES, TensorTiles, can_multiply, row_bytes
from graphc.expression import Buffer
from graphc.kernel import Attention
from graphc.types import float32

_TILES = ((4, 64), (4, 32), (2, 32), (2, 16), (1, 16))
"""Warps of a block, and keys of a tile: the first for which there is shared memory."""


def multiplies(kernel: Attention, tf32: bool) -> bool:
    """Whether tensor cores can be used."""
    return can_multiply(kernel, (kernel.q, kernel.k, kernel.v), tf32) and _tile(kernel) is not None


def _tile(kernel: Attention) -> tuple[int, int] | None:
    """How many warps a block has, and how many keys a tile; None where not even one warp has room."""
    width, columns = (row_bytes(size, kernel.q.buffer.dtype) for size in (kernel.width, kernel.columns))
    for warps, keys in _TILES:
        if (ROWS * warps + keys) * width + keys * columns <= SHARED_BYTES:
            return warps, keys
    return None


class TensorAttention(TensorTiles):
    """Renders one kernel. `aligned` as `render_loops` has it."""

    def __init__(self, kernel: Attention, name: str, buffers: Sequence[Buffer], aligned: bool) -> None:
        tile = _tile(kernel)
        assert tile is not None, "there is a tile for what tensor cores multiply"
        warps, self.keys = tile
        super().__init__(kernel, buffers, aligned, warps)
        self.kernel = kernel
        self.blocks_of_rows = -(-kernel.queries // self.rows)
        numbers = self.aligned_buffers((kernel.q, kernel.k, kernel.v))
        self.launch = Launch(name, self.batch * self.blocks_of_rows, self.threads, (), numbers)

    def render(self) -> str:
        """The text of the function."""
        code, k, keys = self.code, self.kernel, self.keys
        code.line(f"const int thread = threadIdx.x, lane = thread % 32, q0 = blockIdx.x % {self.blocks_of_rows} * {self.rows};")
        code.line(f"const int row0 = thread / 32 * {ROWS};")
        self.bind_batch(f"blockIdx.x / {self.blocks_of_rows}")
        for name, rows, width in (("q", self.rows, self.width), ("k", keys, self.width), ("v", keys, self.columns)):
            self.declare(f"{name}_tile[{rows}]", width)
        lowest = literal(float("-inf"), float32)
        code.line(f"float sums[{self.columns // 8}][4] = {{}};")
        code.line(f"float greatest[2] = {{{lowest}, {lowest}}}, total[2] = {{}};")
        stop = code.value("int", f"min({k.keys}, q0 + {self.rows})", "stop") if k.causal else str(k.keys)
        self.fetch("q_tile", k.q, self.rows, self.width, "q0", k.queries)
        self.fetch("k_tile", k.k, keys, self.width, "0", k.keys)
        with code.block(f"for (int k0 = 0; k0 < {stop}; k0 += {keys})"):
            self.wait()
            self.fetch("v_tile", k.v, keys, self.columns, "k0", k.keys)
            code.line(f"float scores[{keys // 8}][4] = {{}};")
            self.add_inner("scores", "q_tile", "k_tile", keys, self.width)
            self._weigh()
            self.wait()
            with code.block(f"if (k0 + {keys} < {stop})"):
                self.fetch("k_tile", k.k, keys, self.width, f"k0 + {keys}", k.keys)
            self.add_weighed("sums", "scores", "v_tile", keys, self.columns)
        self._finish()
        return Sizes().function(self.launch.symbol, self.buffers, self.launch.threads, str(code))

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
