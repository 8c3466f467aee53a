"""The transposition of a square of numbers, in registers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from graphc.backends.llvm.builder import Function, Module, vector
from graphc.backends.llvm.elementwise import REGISTER
from graphc.types import DType

_BLOCK_BYTES = 16
"""Vector units shuffle best within blocks of 16 bytes, and load those best from memory."""


def emit_transpose(module: Module, dtype: DType, width: int) -> str:
    """The symbol of the function

        void (ptr from, i64 from_step, ptr to, i64 to_step)

    that reads a square of `width` by `width` numbers, whose rows are `from_step` numbers apart, and writes its columns as
    rows that are `to_step` apart. `width` is a power of two, and a row is one, two or four blocks of 16 bytes, or a part
    of one.
    """
    name = f"graphc.transpose.{dtype.name}.{width}"
    if module.has(name):
        return f"@{name}"
    params = [("ptr noalias", "from"), ("i64", "from_step"), ("ptr noalias", "to"), ("i64", "to_step")]
    f = module.function(name, params, linkage="internal")
    scalar = REGISTER[dtype.name]
    size = min(width, _BLOCK_BYTES // dtype.itemsize)
    half = size // 2
    for column in range(0, width, size):
        # row i of the block column, and beside it rows i + size, i + 2 * size, ...
        rows = [_stacked(f, dtype, width, size, column, i) for i in range(size)]
        # turn the blocks by interleaving the upper rows with the lower ones, log2(size) times
        for _ in range(size.bit_length() - 1):
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = list(chain.from_iterable((_interleaved(f, dtype, a, b, width, size, 0),
                                             _interleaved(f, dtype, a, b, width, size, half)) for a, b in pairs))
        for i, row in enumerate(rows):
            place = f.value(f"getelementptr {scalar}, ptr %to, i64 {f.value(f'mul i64 %to_step, {column + i}')}")
            f.do(f"store {vector(scalar, width)} {row}, ptr {place}, align {dtype.itemsize}")
    f.do("ret void")
    return f"@{name}"


def _stacked(f: Function, dtype: DType, width: int, size: int, column: int, row: int) -> str:
    """The blocks at a column of every size-th row, side by side."""
    scalar = REGISTER[dtype.name]
    parts: list[str] = []
    for i in range(row, width, size):
        offset = f.value(f"add i64 {f.value(f'mul i64 %from_step, {i}')}, {column}")
        place = f.value(f"getelementptr {scalar}, ptr %from, i64 {offset}")
        parts.append(f.value(f"load {vector(scalar, size)}, ptr {place}, align {dtype.itemsize}"))
    while len(parts) > 1:
        type_ = vector(scalar, size)
        lanes = ", ".join(f"i32 {lane}" for lane in range(2 * size))
        parts = [f.value(f"shufflevector {type_} {a}, {type_} {b}, <{2 * size} x i32> <{lanes}>")
                 for a, b in zip(parts[::2], parts[1::2], strict=True)]
        size *= 2
    return parts[0]


def _interleaved(f: Function, dtype: DType, a: str, b: str, width: int, size: int, start: int) -> str:
    """Of each block the numbers from `start` on, in turn from a and b."""
    type_ = vector(REGISTER[dtype.name], width)
    lanes = [lane for block in range(0, width, size) for i in range(start, start + size // 2)
             for lane in (block + i, width + block + i)]
    picks: Sequence[str] = [f"i32 {lane}" for lane in lanes]
    return f.value(f"shufflevector {type_} {a}, {type_} {b}, <{width} x i32> <{', '.join(picks)}>")
