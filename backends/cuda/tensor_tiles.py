"""What kernels of attention by tensor cores have in common: tiles in shared memory, and their products.

Each warp of a block has 16 rows. What `mma` leaves of a square of sums in a thread is what the thread has to bring of one that
is multiplied from the left: so what is made of products is multiplied on as it is, in registers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.backends.cuda.attention_code import AttentionCode
from graphc.backends.cuda.elementwise import C_TYPE, HALVES
from graphc.backends.cuda.launch import ALIGNMENT
from graphc.expression import Buffer
from graphc.kernel import Attention, AttentionBackward, Block
from graphc.types import DType, float32

SHARED_BYTES = 48 << 10
"""Of a block."""
ROWS = 16
"""Rows of a warp, and what widths are rounded up to."""
_WIDEST = 256
"""Numbers of a key or a value for which there are registers."""


def can_multiply(kernel: Attention | AttentionBackward, factors: Iterable[Block], tf32: bool) -> bool:
    """Whether tensor cores can be used, if there is room: for half precision, and for single precision that may be rounded to
    11 bits."""
    dtype = kernel.q.buffer.dtype
    if any(block.buffer.dtype is not dtype for block in factors):
        return False
    if dtype not in HALVES and not (dtype is float32 and tf32):
        return False
    return 0 < kernel.width <= _WIDEST and 0 < kernel.columns <= _WIDEST


def rounded(size: int) -> int:
    """A width of a tile that squares fill."""
    return -(-size // ROWS) * ROWS


def row_bytes(size: int, dtype: DType) -> int:
    """What a row of a tile takes, and after it so much that the next begins in another bank."""
    return rounded(size) * dtype.itemsize + ALIGNMENT


class TensorTiles(AttentionCode):
    """Tiles of one kernel; a block has so many warps. `aligned` as `render_loops` has it."""

    def __init__(self, kernel: Attention | AttentionBackward, buffers: Sequence[Buffer], aligned: bool, warps: int) -> None:
        super().__init__(kernel, buffers)
        self.aligned = aligned
        self.held = kernel.q.buffer.dtype
        self.halves = self.held in HALVES
        self.depth = 16 if self.halves else 8
        """Of the squares that are multiplied."""
        self.together = ALIGNMENT // self.held.itemsize
        self.width, self.columns = rounded(kernel.width), rounded(kernel.columns)
        self.rows = ROWS * warps
        self.threads = 32 * warps

    def aligned_buffers(self, factors: Iterable[Block]) -> tuple[int, ...]:
        """The numbers of the buffers whose addresses have to be aligned."""
        wanted = {block.buffer for block in factors if self.aligned and self._stands_side_by_side(block)}
        return tuple(i for i, buffer in enumerate(self.buffers) if buffer in wanted)

    def _stands_side_by_side(self, block: Block) -> bool:
        """Whether rows can be copied 16 bytes at a time."""
        steps = (block.offset, *block.strides[:-1], block.shape[-1])
        return block.strides[-1] == 1 and all(step % self.together == 0 for step in steps)

    def declare(self, tile: str, width: int) -> None:
        """A tile: its name, and its dimensions but for the last."""
        self.code.line(f"__shared__ __align__({ALIGNMENT}) {C_TYPE[self.held.name]} {tile}[{width + self.together}];")

    def wait(self) -> None:
        """For what has been fetched, and for those who read what is fetched next."""
        self.code.line("wait_for_copies();")
        self.code.line("__syncthreads();")

    def fetch(self, tile: str, block: Block, rows: int, width: int, first: str, size: int) -> None:
        """Bring rows of a matrix from `first` on to a tile, and zeros for what there is not."""
        code, columns, together = self.code, block.shape[-1], self.together
        several = self._stands_side_by_side(block)
        step = together if several else 1
        across = width // step
        with code.block(f"for (int i = thread; i < {rows * across}; i += {self.threads})", unroll=4):
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

    def add_inner(self, sums: str, left: str, right: str, count: int, width: int) -> None:
        """Add to `sums` the inner products of the warp's 16 rows of a tile and `count` rows of another, `width` long."""
        code, squares = self.code, count // 8
        with code.block(f"for (int along = 0; along < {width}; along += {self.depth})", unroll=True):
            code.line("unsigned x[4];")
            self._load_rows("x", left, "row0", "along")
            with code.block(f"for (int j = 0; j < {squares}; j += 2)", unroll=True):
                self._load_columns(
                    "load_squares", f"{right}[j * 8 + lane / 16 * 8 + lane % 8][along + lane / 8 % 2 * 8]",
                    f"{right}[(j + c / 2) * 8 + lane / 4][along + lane % 4 + c % 2 * 4]",
                )  # fmt: skip
                self._multiply(f"{sums}[j]", "x")

    def add_weighed(self, sums: str, factors: str, tile: str, count: int, width: int) -> None:
        """Add to `sums` the sums of `count` rows of a tile, `width` long, that 16 rows of `factors` weigh, which stand in
        registers as `add_inner` leaves them."""
        code, step = self.code, self.depth // 8
        with code.block(f"for (int s = 0; s < {count // 8}; s += {step})", unroll=True):
            if self.halves:
                kind = f"{C_TYPE[self.held.name]}()"
                packed = [f"pack({factors}[s + {c // 2}][{c % 2 * 2}], {factors}[s + {c // 2}][{c % 2 * 2 + 1}], {kind})"
                          for c in range(4)]
            else:  # of two neighbours, the squares have one four steps behind the other: the tile is read in the same order
                packed = [f"to_tf32({factors}[s][{c}])" for c in (0, 2, 1, 3)]
            code.line(f"const unsigned x[4] = {{{', '.join(packed)}}};")
            with code.block(f"for (int j = 0; j < {width // 8}; j += 2)", unroll=True):
                self._load_columns(
                    "load_squares_turned", f"{tile}[s * 8 + lane / 8 % 2 * 8 + lane % 8][j * 8 + lane / 16 * 8]",
                    f"{tile}[s * 8 + lane % 4 * 2 + c % 2][(j + c / 2) * 8 + lane / 4]",
                )  # fmt: skip
                self._multiply(f"{sums}[j]", "x")
