"""Attention, and its derivative, as CUDA kernels: no matrix of all queries and keys stands in memory.

A block has a few queries, and goes through the keys a tile at a time. Of the scores of a tile it keeps for each query the
greatest number so far, the sum of the exponentials, and the sum of the values that they weigh, and scales what it has when a
greater one comes. Milakov, Gimelshein: "Online normalizer calculation for softmax" (2018); Dao et al.: "FlashAttention"
(NeurIPS 2022), algorithm 1.

For the derivative the weights of a tile are computed again. Some blocks have a few queries each, whose derivatives they sum up
over the keys; the others have a few keys, and sum up over the queries. So nothing is added to by several blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphc.backends.cuda import tensor_attention, tensor_attention_backward
from graphc.backends.cuda.attention_code import AttentionCode
from graphc.backends.cuda.elementwise import cast, literal
from graphc.backends.cuda.launch import Launch, Sizes
from graphc.backends.cuda.tensor_attention import TensorAttention
from graphc.backends.cuda.tensor_attention_backward import TensorAttentionBackward
from graphc.expression import Buffer
from graphc.kernel import Attention, AttentionBackward, Block

_THREADS = 128
_SHARED_BYTES = 44 << 10
_TILES = ((32, 32), (16, 32), (16, 16), (8, 16), (8, 8), (4, 8), (4, 4), (1, 4), (1, 1))
"""Queries and keys of a tile: the first for which there is shared memory."""


def render_attention(
    kernel: Attention | AttentionBackward, name: str, buffers: Sequence[Buffer], aligned: bool = True, tf32: bool = False
) -> tuple[str, Launch]:
    """The kernel as a function of its buffers, and how it is launched; `aligned` as `render_loops` has it. With `tf32`, factors
    in single precision may be rounded to 11 bits."""
    writer: TensorAttention | TensorAttentionBackward | _Forward | _Backward
    if isinstance(kernel, AttentionBackward):
        if tensor_attention_backward.multiplies(kernel, tf32):
            writer = TensorAttentionBackward(kernel, name, buffers, aligned)
        else:
            writer = _Backward(kernel, name, buffers)
    elif tensor_attention.multiplies(kernel, tf32):
        writer = TensorAttention(kernel, name, buffers, aligned)
    else:
        writer = _Forward(kernel, name, buffers)
    return writer.render(), writer.launch


class _Tiles(AttentionCode, ABC):
    """Tiles of matrices in shared memory, whose numbers are multiplied one by one."""

    def __init__(self, kernel: Attention | AttentionBackward, buffers: Sequence[Buffer]) -> None:
        super().__init__(kernel, buffers)
        self.rows, self.keys = next(t for t in _TILES if self.numbers(*t) * self.dtype.itemsize <= _SHARED_BYTES or t == (1, 1))

    @abstractmethod
    def numbers(self, rows: int, keys: int) -> int:
        """How many numbers stand in shared memory, for such tiles."""

    @contextmanager
    def over(self, count: int) -> Iterator[None]:
        """Let the block's threads take turns with the numbers i < count."""
        with self.code.block(f"for (int i = thread; i < {count}; i += {_THREADS})"):
            yield

    def load(self, tile: str, block: Block, rows: int, first: str, size: int) -> None:
        """Bring rows of a matrix from `first` on to shared memory, and zeros for those that there are not."""
        columns = block.shape[-1]
        if columns:
            with self.over(rows * columns):
                self.code.line(f"const int row = i / {columns}, column = i % {columns};")
                value = cast(self.at(block, f"({first} + row)", "column"), block.buffer.dtype, self.dtype)
                self.code.line(f"{tile}[row][column] = {first} + row < {size} ? {value} : {self.zero};")

    def product(self, name: str, left: str, right: str, width: int) -> None:
        """A variable that has the inner product of two rows."""
        self.code.line(f"{self.type} {name} = {self.zero};")
        with self.code.block(f"for (int c = 0; c < {width}; ++c)", unroll=8):
            self.code.line(f"{name} = fma({left}[c], {right}[c], {name});")

    def sync(self) -> None:
        """Wait for all threads of the block."""
        self.code.line("__syncthreads();")

    @contextmanager
    def over_sums(self, rows: int, columns: int) -> Iterator[None]:
        """For the sums that a thread has: sums[e] belongs to `row` and `column` of a tile."""
        with self.code.block(f"for (int e = 0; e < {self.share(rows, columns)}; ++e)", unroll=True):
            self.code.line(f"const int number = thread + e * {_THREADS}, row = number / {max(1, columns)};")
            self.code.line(f"const int column = number % {max(1, columns)};")
            with self.code.block(f"if (row < {rows})"):
                yield

    def share(self, rows: int, columns: int) -> int:
        """How many sums a thread has of a tile."""
        return max(1, -(-rows * columns // _THREADS))

    def declare_sums(self, name: str, rows: int, columns: int) -> None:
        """The sums of a thread."""
        self.code.line(f"{self.type} {name}[{self.share(rows, columns)}] = {{}};")


class _Forward(_Tiles):
    def __init__(self, kernel: Attention, name: str, buffers: Sequence[Buffer]) -> None:
        super().__init__(kernel, buffers)
        self.kernel = kernel
        self.blocks_of_rows = -(-kernel.queries // self.rows)
        self.launch = Launch(name, self.batch * self.blocks_of_rows, _THREADS)

    def numbers(self, rows: int, keys: int) -> int:
        k = self.shape
        return (rows + keys) * (k.width + 1) + keys * k.columns + rows * (keys + 1) + 3 * rows

    def render(self) -> str:
        """The text of the function."""
        code, k, type_, rows, keys = self.code, self.kernel, self.type, self.rows, self.keys
        code.line(f"const int thread = threadIdx.x, q0 = blockIdx.x % {self.blocks_of_rows} * {rows};")
        self.bind_batch(f"blockIdx.x / {self.blocks_of_rows}")
        code.line(f"__shared__ {type_} q_tile[{rows}][{k.width + 1}], k_tile[{keys}][{k.width + 1}];")
        code.line(f"__shared__ {type_} v_tile[{keys}][{max(1, k.columns)}], scores[{rows}][{keys + 1}];")
        code.line(f"__shared__ {type_} greatest[{rows}], total[{rows}], scale[{rows}];")
        self.load("q_tile", k.q, rows, "q0", k.queries)
        with self.over(rows):
            code.line(f"greatest[i] = {self.lowest}; total[i] = {self.zero};")
        self.declare_sums("sums", rows, k.columns)
        stop = code.value("int", f"min({k.keys}, q0 + {rows})", "stop") if k.causal else str(k.keys)
        with code.block(f"for (int k0 = 0; k0 < {stop}; k0 += {keys})"):
            self.sync()
            self.load("k_tile", k.k, keys, "k0", k.keys)
            self.load("v_tile", k.v, keys, "k0", k.keys)
            self.sync()
            with self.over(rows * keys):
                code.line(f"const int row = i / {keys}, j = i % {keys}, query = q0 + row, key = k0 + j;")
                self.product("score", "q_tile[row]", "k_tile[j]", k.width)
                code.line(f"scores[row][j] = {self.seen()} ? score * {literal(k.scale, self.dtype)} : {self.lowest};")
            self.sync()
            self._normalise()
            self.sync()
            with self.over_sums(rows, k.columns):
                code.line("sums[e] *= scale[row];")
                with code.block(f"for (int j = 0; j < {keys}; ++j)", unroll=4):
                    code.line("sums[e] = fma(scores[row][j], v_tile[j][column], sums[e]);")
        self.sync()
        with self.over_sums(rows, k.columns), code.block(f"if (q0 + row < {k.queries})"):
            value = "sums[e] / total[row]"
            if k.zeros:
                value = f"(total[row] == 0 ? {self.zero} : {value})"
            self.store(k.out, value, "(q0 + row)", "column")
        with self.over(rows), code.block(f"if (q0 + i < {k.queries})"):
            nothing = literal(float("inf" if k.zeros else "-inf"), self.dtype)
            self.store(k.lse, f"(total[i] == 0 ? {nothing} : greatest[i] + log(total[i]))", "(q0 + i)")
        return Sizes().function(self.launch.symbol, self.buffers, _THREADS, str(code))

    def _normalise(self) -> None:
        """From scores to exponentials, one thread a query."""
        code, keys = self.code, self.keys
        with self.over(self.rows):
            code.line(f"{self.type} most = greatest[i];")
            with code.block(f"for (int j = 0; j < {keys}; ++j)"):
                code.line("most = maximum(most, scores[i][j]);")
            code.line(f"const {self.type} kept = most == {self.lowest} ? {self.zero} : exp(greatest[i] - most);")
            code.line(f"{self.type} sum = total[i] * kept;")
            with code.block(f"for (int j = 0; j < {keys}; ++j)"):
                code.line(f"const {self.type} weight = most == {self.lowest} ? {self.zero} : exp(scores[i][j] - most);")
                code.line("scores[i][j] = weight; sum += weight;")
            code.line("scale[i] = kept; total[i] = sum; greatest[i] = most;")


class _Backward(_Tiles):
    def __init__(self, kernel: AttentionBackward, name: str, buffers: Sequence[Buffer]) -> None:
        super().__init__(kernel, buffers)
        self.kernel = kernel
        self.of_queries = self.batch * -(-kernel.queries // self.rows)
        """Blocks that have queries; the others have keys."""
        self.launch = Launch(name, self.of_queries + self.batch * -(-kernel.keys // self.keys), _THREADS)

    def numbers(self, rows: int, keys: int) -> int:
        k = self.shape
        return (rows + keys) * (k.width + 1 + k.columns + 1) + 2 * rows * (keys + 1) + 2 * rows

    def render(self) -> str:
        """The text of the function."""
        code, k, type_, rows, keys = self.code, self.kernel, self.type, self.rows, self.keys
        code.line("const int thread = threadIdx.x;")
        code.line(f"__shared__ {type_} q_tile[{rows}][{k.width + 1}], k_tile[{keys}][{k.width + 1}];")
        code.line(f"__shared__ {type_} ct_tile[{rows}][{k.columns + 1}], v_tile[{keys}][{k.columns + 1}];")
        code.line(f"__shared__ {type_} weights[{rows}][{keys + 1}], slopes[{rows}][{keys + 1}];")
        code.line(f"__shared__ {type_} lse[{rows}], inner[{rows}];")
        with code.block(f"if (blockIdx.x < {self.of_queries})"):
            self._queries()
        with code.block("else"):
            self._keys()
        return Sizes().function(self.launch.symbol, self.buffers, _THREADS, str(code))

    def _load_queries(self) -> None:
        k = self.kernel
        self.load("q_tile", k.q, self.rows, "q0", k.queries)
        self.load("ct_tile", k.ct, self.rows, "q0", k.queries)
        with self.over(self.rows):
            for name, block in (("lse", k.lse), ("inner", k.inner)):
                value = cast(self.at(block, "(q0 + i)"), block.buffer.dtype, self.dtype)
                self.code.line(f"{name}[i] = q0 + i < {k.queries} ? {value} : {self.zero};")

    def _load_keys(self) -> None:
        k = self.kernel
        self.load("k_tile", k.k, self.keys, "k0", k.keys)
        self.load("v_tile", k.v, self.keys, "k0", k.keys)

    def _weigh(self) -> None:
        """The weights of a tile, and the derivatives of its scores."""
        code, k, keys = self.code, self.kernel, self.keys
        with self.over(self.rows * keys):
            code.line(f"const int row = i / {keys}, j = i % {keys}, query = q0 + row, key = k0 + j;")
            code.line(f"const bool seen = {self.seen()};")
            self.product("score", "q_tile[row]", "k_tile[j]", k.width)
            self.product("ct", "ct_tile[row]", "v_tile[j]", k.columns)
            scale = literal(k.scale, self.dtype)
            code.line(f"score *= {scale};")
            code.line(f"const {self.type} weight = seen && score != {self.lowest} ? exp(score - lse[row]) : {self.zero};")
            code.line("weights[row][j] = weight;")
            slope = f"{scale} * weight * (ct - inner[row])"
            code.line(f"slopes[row][j] = seen && score != {self.lowest} ? {slope} : {self.zero};")

    def _queries(self) -> None:
        code, k, rows, keys = self.code, self.kernel, self.rows, self.keys
        blocks = -(-k.queries // rows)
        code.line(f"const int q0 = blockIdx.x % {blocks} * {rows};")
        self.bind_batch(f"blockIdx.x / {blocks}")
        self._load_queries()
        self.declare_sums("sums", rows, k.width)
        stop = code.value("int", f"min({k.keys}, q0 + {rows})", "stop") if k.causal else str(k.keys)
        with code.block(f"for (int k0 = 0; k0 < {stop}; k0 += {keys})"):
            self.sync()
            self._load_keys()
            self.sync()
            self._weigh()
            self.sync()
            with self.over_sums(rows, k.width), code.block(f"for (int j = 0; j < {keys}; ++j)", unroll=4):
                code.line("sums[e] = fma(slopes[row][j], k_tile[j][column], sums[e]);")
        with self.over_sums(rows, k.width), code.block(f"if (q0 + row < {k.queries})"):
            self.store(k.dq, "sums[e]", "(q0 + row)", "column")

    def _keys(self) -> None:
        code, k, rows, keys = self.code, self.kernel, self.rows, self.keys
        blocks = -(-k.keys // keys)
        code.line(f"const int place = blockIdx.x - {self.of_queries}, k0 = place % {blocks} * {keys};")
        self.bind_batch(f"place / {blocks}")
        self._load_keys()
        sums = (("of_k", "slopes", "q_tile", k.width, k.dk), ("of_v", "weights", "ct_tile", k.columns, k.dv))
        for name, _, _, width, _ in sums:
            self.declare_sums(name, keys, width)
        start = f"k0 / {rows} * {rows}" if k.causal else "0"
        with code.block(f"for (int q0 = {start}; q0 < {k.queries}; q0 += {rows})"):
            self.sync()
            self._load_queries()
            self.sync()
            self._weigh()
            self.sync()
            for name, factors, tile, width, _ in sums:
                with self.over_sums(keys, width), code.block(f"for (int j = 0; j < {rows}; ++j)", unroll=4):
                    code.line(f"{name}[e] = fma({factors}[j][row], {tile}[j][column], {name}[e]);")
        for name, _, _, width, block in sums:
            with self.over_sums(keys, width), code.block(f"if (k0 + row < {k.keys})"):
                self.store(block, f"{name}[e]", "(k0 + row)", "column")
