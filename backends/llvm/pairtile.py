"""The innermost loop of matrix products of bfloat16: one tile of float32 sums.

Instructions for bfloat16 multiply pairs of numbers of two neighbouring steps, and add both products to a float32. Both
operands stand in panels of blocks of 1 KB: 16 lanes by 32 steps, which are 16 pairs. A block of the left operand has a row
for each lane, one of the right operand a row for each pair; so the first is what AMX loads as one tile, and the second what
it multiplies that with. A panel has the blocks of its lanes for the first 32 steps, then those for the next; the steps after
the last one are zeros.

AMX has eight tiles, which take two by two sums, and two blocks of each operand. Without it, a tile is in vector registers.
Subnormal numbers count as zeros either way, operands and sums.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from graphc.backends.llvm.builder import Function, Module
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.memory import LINE_BYTES, prefetch
from graphc.backends.llvm.microkernel import begin_microkernel
from graphc.backends.llvm.target import Target
from graphc.sizes import ceil_div
from graphc.types import DType, Size, float32

LANES = 16
"""Lanes of a block; sums are computed in vectors of as many."""
PAIRS = 16
STEPS = 2 * PAIRS
"""Steps of a block."""
BLOCK = LANES * PAIRS
"""Words of a block, each a pair."""
_VECTOR = f"<{LANES} x float>"
_AMX_BLOCKS = 2  # of rows, and of columns
_AMX_CYCLES = 16  # to multiply two blocks
_AMX_CALL = 150  # cycles to call a kernel, and to store its tile
_CALL = 60
_CONFIGURATION = "graphc.tiles"
_LEFT, _RIGHT = 4, 6  # the first tiles of the operands; the sums are those from 0 on


@dataclass(frozen=True, slots=True)
class PairTile:
    """The shape of a kernel: `rows` rows by `columns` columns, a multiple of 16; `amx` says which instructions it has."""

    rows: int
    columns: int
    amx: bool
    dtype: DType = float32
    """That of the sums."""
    width: int = LANES
    fetched: int = 0
    """How many lines of memory a kernel asks for at each block of steps, for those that come after it: from `b_step` words
    behind b on."""

    def cycles(self, m: int, n: int, k: int) -> float:
        """About how many cycles an m by n product of k steps takes."""
        tiles = -(-m // self.rows) * -(-n // self.columns)
        vectors = self.columns // LANES
        if self.amx:
            # a tile's rows are loaded and multiplied one by one
            step = max(self.rows * vectors, 8 * (-(-self.rows // LANES) + vectors))
            return tiles * (-(-k // STEPS) * step + _AMX_CALL)
        return tiles * (-(-k // 2) * max(self.rows * vectors, 4) + _CALL)

    def panel(self, lanes: int, steps: Size) -> Size:
        """Words from one panel of so many lanes to the next."""
        return ceil_div(lanes, LANES) * BLOCK * ceil_div(steps, STEPS)

    @property
    def symbol(self) -> str:
        fetched = f".fetched{self.fetched}" if self.fetched else ""
        return f"graphc.gemm.pairs.{self.rows}x{self.columns}{'.amx' if self.amx else ''}{fetched}"

    def ahead(self, readers: int) -> PairTile:
        """The same, with a kernel that asks for its part of the next panel of b, which so many kernels read one after another.

        A panel that is read for the first time comes from far away, and the hardware does not see where the next one begins.
        """
        return replace(self, fetched=-(-self.columns // LANES * BLOCK * 4 // LINE_BYTES // readers))


def choose_pair_tile(target: Target, m: int, n: int, k: int) -> PairTile | None:
    """The tile that computes an m by n product of k steps in the fewest cycles; None where the CPU has no instructions for
    pairs. Rows are shared out evenly."""
    if target.has_amx_bf16:
        shapes = [(rows, blocks) for rows in range(1, _AMX_BLOCKS * LANES + 1) for blocks in range(1, _AMX_BLOCKS + 1)]
    elif target.has("avx512bf16"):
        most = target.vector_registers - 1
        shapes = [(rows, vectors) for vectors in range(1, 5) for rows in range(1, most // vectors)]
    else:
        return None
    tiles = (PairTile(-(-m // -(-m // rows)), LANES * blocks, target.has_amx_bf16) for rows, blocks in shapes)
    return min(tiles, key=lambda tile: tile.cycles(m, n, k))


def emit_pair_kernel(module: Module, tile: PairTile) -> str:
    """The symbol of a function of the same type as `emit_microkernel`'s. It takes no heed of the step of a, and
    `b_step` says where what it fetches begins. Where the tile is one of AMX, its configuration has been loaded."""
    symbol = f"@{tile.symbol}"
    if module.has(tile.symbol):
        return symbol
    f = begin_microkernel(module, tile.symbol)
    blocks = f.value(f"udiv i64 {Integers(f).add('%k', STEPS - 1)}, {STEPS}")
    (_amx_kernel if tile.amx else _vector_kernel)(f, tile, blocks)
    f.do("ret void")
    return symbol


def _fetch(f: Function, tile: PairTile, block: str) -> None:
    if tile.fetched:
        at = Integers(f).add("%b_step", f.value(f"mul i64 {block}, {tile.fetched * LINE_BYTES // 4}"))
        prefetch(f, _word(f, "%b", at), tile.fetched * LINE_BYTES, level=2)


def _word(f: Function, pointer: str, offset: str | int) -> str:
    return f.value(f"getelementptr float, ptr {pointer}, i64 {offset}")


# AMX


def load_configuration(f: Function, tile: PairTile) -> None:
    """Set up the tiles of the thread for the kernels of a shape, until `release_tiles`."""
    rows, columns = _blocks_of(tile.rows), _blocks_of(tile.columns)
    tiles = {i * len(columns) + j: count for i, count in enumerate(rows) for j in range(len(columns))}
    tiles |= {_LEFT + i: count for i, count in enumerate(rows)} | {_RIGHT + j: PAIRS for j in range(len(columns))}
    bytes_of_row = [4 * LANES if number in tiles else 0 for number in range(16)]
    layout = struct.pack("<2B14x16H16B", 1, 0, *bytes_of_row, *(tiles.get(number, 0) for number in range(16)))
    text = ", ".join(f"i8 {byte}" for byte in layout)
    table = f.module.constant(f"{_CONFIGURATION}.{tile.rows}x{tile.columns}", f"[{len(layout)} x i8] [{text}], align 64")
    f.call("void", f.module.declare("llvm.x86.ldtilecfg", "void", ["ptr"]), ("ptr", table))


def release_tiles(f: Function) -> None:
    """Have the thread's tiles empty, so that nothing of them is kept when threads change."""
    f.call("void", f.module.declare("llvm.x86.tilerelease", "void", []))


def _blocks_of(lanes: int) -> list[int]:
    """How many lanes each block has."""
    return [min(LANES, lanes - first) for first in range(0, lanes, LANES)]


def _amx_kernel(f: Function, tile: PairTile, blocks: str) -> None:
    module = f.module
    load = module.declare("llvm.x86.tileloadd64", "void", ["i8", "ptr", "i64"])
    store = module.declare("llvm.x86.tilestored64", "void", ["i8", "ptr", "i64"])
    zero = module.declare("llvm.x86.tilezero", "void", ["i8"])
    multiply = module.declare("llvm.x86.tdpbf16ps", "void", ["i8", "i8", "i8"])
    rows, columns = range(len(_blocks_of(tile.rows))), range(tile.columns // LANES)
    sums = {(i, j): ("i8", str(i * len(columns) + j)) for i in rows for j in columns}
    stride = ("i64", f.value("shl i64 %c_step, 2"))
    places: dict[tuple[int, int], str] = {}
    for i, j in sums:
        offset = f.value(f"add i64 {f.value(f'mul i64 %c_step, {i * LANES}')}, {j * LANES}")
        places[i, j] = _word(f, "%c", offset)
    adding, starting, ready = f.label("adding"), f.label("starting"), f.label("ready")
    f.branch("%accumulate", adding, starting)
    f.enter(adding)
    for at, number in sums.items():
        f.call("void", load, number, ("ptr", places[at]), stride)
    f.jump(ready)
    f.enter(starting)
    for number in sums.values():
        f.call("void", zero, number)
    f.jump(ready)
    f.enter(ready)
    with f.loop("0", blocks, hint="block") as block:
        counts = (("%a", len(rows)), ("%b", len(columns)))
        starts = [_word(f, pointer, f.value(f"mul i64 {block}, {count * BLOCK}")) for pointer, count in counts]
        _fetch(f, tile, block)
        loaded: set[int] = set()
        for (i, j), number in sums.items():  # each block is loaded where it is first needed, while others are multiplied
            for start, first, lanes in zip(starts, (_LEFT, _RIGHT), (i, j)):
                if first + lanes not in loaded:
                    loaded.add(first + lanes)
                    place = _word(f, start, lanes * BLOCK)
                    f.call("void", load, ("i8", str(first + lanes)), ("ptr", place), ("i64", str(4 * PAIRS)))
            f.call("void", multiply, number, ("i8", str(_LEFT + i)), ("i8", str(_RIGHT + j)))
    for at, number in sums.items():
        f.call("void", store, number, ("ptr", places[at]), stride)


# AVX-512


def _vector_kernel(f: Function, tile: PairTile, blocks: str) -> None:
    pairs = f"<{STEPS} x bfloat>"
    multiply = f.module.declare("llvm.x86.avx512bf16.dpbf16ps.512", _VECTOR, [_VECTOR, pairs, pairs])
    vectors, left = tile.columns // LANES, len(_blocks_of(tile.rows))
    sums = [[f.slot(_VECTOR) for _ in range(vectors)] for _ in range(tile.rows)]
    for row in sums:
        for slot in row:
            f.do(f"store {_VECTOR} zeroinitializer, ptr {slot}")
    with f.loop("0", blocks, hint="block") as block:
        a, b = (_word(f, p, f.value(f"mul i64 {block}, {count * BLOCK}")) for p, count in (("%a", left), ("%b", vectors)))
        _fetch(f, tile, block)
        with f.loop("0", str(PAIRS), hint="pair") as pair:
            there, row_of_b = _word(f, a, pair), _word(f, b, f.value(f"mul i64 {pair}, {LANES}"))
            columns = [f.value(f"load {pairs}, ptr {_word(f, row_of_b, v * BLOCK)}, align 64") for v in range(vectors)]
            for i, row in enumerate(sums):
                word = f.value(f"load i32, ptr {_word(f, there, i * PAIRS)}, align 4")
                factor = f.value(f"bitcast <{PAIRS} x i32> {f.splat('i32', word, PAIRS)} to {pairs}")
                for slot, column in zip(row, columns, strict=True):
                    before = f.value(f"load {_VECTOR}, ptr {slot}")
                    after = f.call(_VECTOR, multiply, (_VECTOR, before), (pairs, factor), (pairs, column))
                    f.do(f"store {_VECTOR} {after}, ptr {slot}")
    for i, row in enumerate(sums):
        start = _word(f, "%c", f.value(f"mul i64 %c_step, {i}"))
        for v, slot in enumerate(row):
            place = _word(f, start, v * LANES)
            total = f.value(f"load {_VECTOR}, ptr {slot}")
            before = f.call(_VECTOR, _masked_load(f), ("ptr", place), ("i32", "4"),
                            (f"<{LANES} x i1>", f.splat("i1", "%accumulate", LANES)), (_VECTOR, "zeroinitializer"))
            f.do(f"store {_VECTOR} {f.value(f'fadd {_VECTOR} {before}, {total}')}, ptr {place}, align 4")


def _masked_load(f: Function) -> str:
    mask = f"<{LANES} x i1>"
    return f.module.declare("llvm.masked.load.v16f32.p0", _VECTOR, ["ptr", "i32", mask, _VECTOR])
