"""The derivative of attention by tensor cores.

The weights of a tile are computed again, from products and what the forward pass has kept of each query. Some blocks have a few
queries each, and go through the keys; they sum up the derivatives of their queries. Others have a few keys, and go through the
queries; they compute the products the other way around, so that what they weigh queries by stands in registers as it is
multiplied. So nothing is added to by several blocks, and results are the same at each run; scores are computed twice for that.
Dao: "FlashAttention-2" (ICLR 2024), section 3.1; there, blocks of keys add to the derivatives of queries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.backends.cuda.elementwise import cast, literal
from graphc.backends.cuda.launch import Launch, Sizes
from graphc.backends.cuda.tensor_tiles import ROWS, SHARED_BYTES, TensorTiles, can_multiply, row_bytes
from graphc.expression import Buffer
from graphc.kernel import AttentionBackward, Block
from graphc.types import float32

_TILES = ((4, 32, 2), (4, 16, 2), (4, 16, 1), (2, 16, 2), (2, 16, 1), (1, 16, 1))
"""Warps of a block, rows of what it goes through, and how many tiles there are of these: the first for which there is shared
memory."""
_MOST_SUMS = 144
"""Of a thread, beside what else it needs registers for."""


def multiplies(kernel: AttentionBackward, tf32: bool) -> bool:
    """Whether tensor cores can be used."""
    return can_multiply(kernel, (kernel.q, kernel.k, kernel.v, kernel.ct), tf32) and _tile(kernel) is not None


def _tile(kernel: AttentionBackward) -> tuple[int, int, int] | None:
    """The warps of a block, rows of a tile, and tiles; None where not even one warp has room."""
    row = sum(row_bytes(size, kernel.q.buffer.dtype) for size in (kernel.width, kernel.columns))
    for warps, step, stages in _TILES:
        if (ROWS * warps + stages * step) * row + 2 * stages * step * float32.itemsize <= SHARED_BYTES:
            return warps, step, stages
    return None


@dataclass(frozen=True, eq=False)
class _Share:
    """What some of the blocks do: they have rows of one pair of matrices, and go through the other pair."""

    of_queries: bool
    by_slopes: Block | None
    """The derivative of the first of their own matrices, by those of scores."""
    by_weights: Block | None
    """That of the second, by the weights."""


class TensorAttentionBackward(TensorTiles):
    """Renders one kernel. `aligned` as `render_loops` has it."""

    def __init__(self, kernel: AttentionBackward, name: str, buffers: Sequence[Buffer], aligned: bool) -> None:
        tile = _tile(kernel)
        assert tile is not None, "there is a tile for what tensor cores multiply"
        warps, self.step, self.stages = tile
        super().__init__(kernel, buffers, aligned, warps)
        self.kernel = k = kernel
        together = (self.width + self.columns) // 2 <= _MOST_SUMS
        of_keys = [_Share(False, k.dk, k.dv)] if together else [_Share(False, k.dk, None), _Share(False, None, k.dv)]
        self.shares = (_Share(True, k.dq, None), *of_keys)
        blocks = sum(self._blocks(share) for share in self.shares)
        self.launch = Launch(name, blocks, self.threads, (), self.aligned_buffers((k.q, k.k, k.v, k.ct)))

    def _blocks_of_rows(self, share: _Share) -> int:
        return -(-(self.kernel.queries if share.of_queries else self.kernel.keys) // self.rows)

    def _blocks(self, share: _Share) -> int:
        return self.batch * self._blocks_of_rows(share)

    def render(self) -> str:
        """The text of the function."""
        code = self.code
        code.line(f"const int thread = threadIdx.x, lane = thread % 32, row0 = thread / 32 * {ROWS};")
        for name, dimensions in (("own", f"[{self.rows}]"), ("tile", f"[{self.stages}][{self.step}]")):
            self.declare(f"{name}_first{dimensions}", self.width)
            self.declare(f"{name}_second{dimensions}", self.columns)
        code.line(f"__shared__ float tile_lse[{self.stages}][{self.step}], tile_inner[{self.stages}][{self.step}];")
        first = 0
        for number, share in enumerate(self.shares):
            last = first + self._blocks(share)
            head = "else" if number == len(self.shares) - 1 else f"{'else ' if number else ''}if (blockIdx.x < {last})"
            with code.block(head):
                self._render(share, first)
            first = last
        return Sizes().function(self.launch.symbol, self.buffers, self.launch.threads, str(code))

    def _render(self, share: _Share, first: int) -> None:
        """What the blocks from `first` on do."""
        code, k, step, blocks = self.code, self.kernel, self.step, self._blocks_of_rows(share)
        pairs = ((k.q, k.ct), (k.k, k.v))
        own, others = pairs if share.of_queries else pairs[::-1]
        mine, theirs = ("q", "k") if share.of_queries else ("k", "q")
        count, stop = (k.queries, str(k.keys)) if share.of_queries else (k.keys, str(k.queries))
        start = "0"
        code.line(f"const int place = blockIdx.x - {first}, {mine}0 = place % {blocks} * {self.rows};")
        self.bind_batch(f"place / {blocks}")
        if k.causal and share.of_queries:
            stop = code.value("int", f"min({k.keys}, q0 + {self.rows})", "stop")
        elif k.causal:
            start = f"k0 / {step} * {step}"
        for name, width, wanted in (("slopes", self.width, share.by_slopes), ("weights", self.columns, share.by_weights)):
            if wanted is not None:
                code.line(f"float of_{name}[{width // 8}][4] = {{}};")
        if share.of_queries:
            code.line("float lse[2], inner[2];")
            with code.block("for (int r = 0; r < 2; ++r)", unroll=True):
                code.line("const int query = q0 + row0 + lane / 4 + r * 8;")
                self._read_kept("lse[r]", "inner[r]")
        else:
            code.line("float next_lse, next_inner;")
        place, following = f"{theirs}0", f"{theirs}0 + {step}"
        code.line(f"int {place} = {start};")
        with code.block(f"if ({place} < {stop})"):
            self.fetch("own_first", own[0], self.rows, self.width, f"{mine}0", count)
            if share.by_slopes is not None:
                self.fetch("own_second", own[1], self.rows, self.columns, f"{mine}0", count)
            self._fetch_others(share, others, place, "0")
            self._place_kept(share, "0")
        if self.stages == 1:
            with code.block(f"for (; {place} < {stop}; {place} += {step})"):
                self.wait()
                self._compute(share, "0")
                code.line("__syncthreads();")
                with code.block(f"if ({following} < {stop})"):
                    self._fetch_others(share, others, following, "0")
                    self._place_kept(share, "0")
        else:
            with code.block(f"for (int stage = 0; {place} < {stop}; {place} += {step}, stage ^= 1)"):
                self.wait()
                with code.block(f"if ({following} < {stop})"):
                    self._fetch_others(share, others, following, "stage ^ 1")
                self._compute(share, "stage")
                with code.block(f"if ({following} < {stop})"):
                    self._place_kept(share, "stage ^ 1")
        self._finish(share, f"{mine}0", count)

    def _fetch_others(self, share: _Share, others: tuple[Block, Block], first: str, stage: str) -> None:
        """Bring the next rows of the other matrices, and what has been kept of them if they are queries."""
        count = self.kernel.keys if share.of_queries else self.kernel.queries
        self.fetch(f"tile_first[{stage}]", others[0], self.step, self.width, first, count)
        self.fetch(f"tile_second[{stage}]", others[1], self.step, self.columns, first, count)
        if not share.of_queries:
            with self.code.block(f"if (thread < {self.step})"):
                self.code.line(f"const int query = {first} + thread;")
                self._read_kept("next_lse", "next_inner")

    def _place_kept(self, share: _Share, stage: str) -> None:
        """Put what has been read of queries where the others of the block find it."""
        if not share.of_queries:
            with self.code.block(f"if (thread < {self.step})"):
                self.code.line(f"tile_lse[{stage}][thread] = next_lse;")
                self.code.line(f"tile_inner[{stage}][thread] = next_inner;")

    def _read_kept(self, lse: str, inner: str) -> None:
        """What the forward pass has kept of `query`, the logarithm to base 2; and what derivatives are relative to."""
        code, k = self.code, self.kernel
        for name, block, factor in ((lse, k.lse, math.log2(math.e)), (inner, k.inner, 1.0)):
            value = cast(self.at(block, f"(query < {k.queries} ? query : 0)"), block.buffer.dtype, self.dtype)
            code.line(f"{name} = {value}{f' * {literal(factor, float32)}' if factor != 1 else ''};")

    def _compute(self, share: _Share, stage: str) -> None:
        """Add what a tile has to the sums."""
        code, k, squares = self.code, self.kernel, self.step // 8
        slopes = share.by_slopes is not None
        code.line(f"float weights[{squares}][4] = {{}};")
        self.add_inner("weights", "own_first", f"tile_first[{stage}]", self.step, self.width)
        if slopes:
            code.line(f"float slopes[{squares}][4] = {{}};")
            self.add_inner("slopes", "own_second", f"tile_second[{stage}]", self.step, self.columns)
        if share.of_queries:
            inside = [f"k0 + {self.step} <= {k.keys}", *([f"k0 + {self.step} <= q0 + row0 + 1"] if k.causal else [])]
            own, other, lse, inner = "query = q0", "key = k0", "lse[c / 2]", "inner[c / 2]"
        else:
            inside = [f"q0 + {self.step} <= {k.queries}", *([f"q0 >= k0 + row0 + {ROWS - 1}"] if k.causal else [])]
            own, other = "key = k0", "query = q0"
            lse, inner = (f"tile_{name}[{stage}][j * 8 + lane % 4 * 2 + c % 2]" for name in ("lse", "inner"))
        code.line(f"const bool whole = {'false' if k.mask is not None else ' && '.join(inside)};")
        scale, lowest = literal(k.scale * math.log2(math.e), float32), literal(float("-inf"), float32)
        with (
            code.block(f"for (int j = 0; j < {squares}; ++j)", unroll=True),
            code.block("for (int c = 0; c < 4; ++c)", unroll=True),
        ):
            code.line(f"const int {own} + row0 + lane / 4 + c / 2 * 8, {other} + j * 8 + lane % 4 * 2 + c % 2;")
            code.line(f"const float score = whole || ({self.seen()}) ? weights[j][c] * {scale} : {lowest};")
            code.line(f"const bool none = score == {lowest};")
            code.line(f"const float weight = none ? 0.0f : exp2(score - {lse});")
            code.line("weights[j][c] = weight;")
            if slopes:
                code.line(f"slopes[j][c] = none ? 0.0f : weight * (slopes[j][c] - {inner});")
        if share.by_slopes is not None:
            self.add_weighed("of_slopes", "slopes", f"tile_first[{stage}]", self.step, self.width)
        if share.by_weights is not None:
            self.add_weighed("of_weights", "weights", f"tile_second[{stage}]", self.step, self.columns)

    def _finish(self, share: _Share, first: str, count: int) -> None:
        """Store the sums."""
        code, scale = self.code, literal(self.kernel.scale, float32)
        with code.block("for (int r = 0; r < 2; ++r)", unroll=True):
            row = code.value("int", f"{first} + row0 + lane / 4 + r * 8", "row")
            with code.block(f"if ({row} < {count})"):
                for name, block, factor in (("slopes", share.by_slopes, f" * {scale}"), ("weights", share.by_weights, "")):
                    if block is None:
                        continue
                    width = self.width if name == "slopes" else self.columns
                    with code.block(f"for (int i = 0; i < {width // 4}; ++i)", unroll=True):
                        code.line("const int column = i / 2 * 8 + lane % 4 * 2 + i % 2;")
                        with code.block(f"if (column < {block.shape[-1]})"):
                            self.store(block, f"of_{name}[i / 2][2 * r + i % 2]{factor}", row, "column")
