"""Numbers of 16 bits, on their way to and from single precision, in which all is computed.

A float16 is LLVM's `half`: where the CPU has no instructions for it, the code generator calls `conversions.ll`. A bfloat16
is an i16, the upper half of a float32, since code that LLVM makes for its `bfloat` calls a function for each number on
CPUs that have no instruction, and loses subnormal numbers on those that have one.
"""

from __future__ import annotations

import struct

from graphc.backends.llvm.builder import Function, vector
from graphc.types import DType, Real, bfloat16, float16

HALVES = (float16, bfloat16)
_QUIET = 0x400000  # the bit by which a NaN is quiet, among those that are kept


def widen(f: Function, dtype: DType, width: int, x: str) -> str:
    """The halves as float32, exactly."""
    single = vector("float", width)
    if dtype is float16:
        return f.value(f"fpext {vector('half', width)} {x} to {single}")
    word = vector("i32", width)
    wide = f.value(f"zext {vector('i16', width)} {x} to {word}")
    return f.value(f"bitcast {word} {f.value(f'shl {word} {wide}, {_all(width, 16)}')} to {single}")


def narrow(f: Function, dtype: DType, width: int, x: str, *, exact: bool = False) -> str:
    """Numbers of float32 as halves, rounded to nearest, ties to even; `exact` ones are halves already. A NaN stays one,
    quiet and of its sign."""
    single = vector("float", width)
    if dtype is float16:
        return f.value(f"fptrunc {single} {x} to {vector('half', width)}")
    word = vector("i32", width)
    bits = f.value(f"bitcast {single} {x} to {word}")
    kept = f.value(f"lshr {word} {bits}, {_all(width, 16)}")
    if exact:
        return f.value(f"trunc {word} {kept} to {vector('i16', width)}")
    odd = f.value(f"and {word} {kept}, {_all(width, 1)}")
    rounded = f.value(f"add {word} {f.value(f'add {word} {bits}, {_all(width, 0x7FFF)}')}, {odd}")
    is_nan = f.value(f"fcmp uno {single} {x}, {x}")
    quiet = f.value(f"or {word} {bits}, {_all(width, _QUIET)}")
    result = f.value(f"select {vector('i1', width)} {is_nan}, {word} {quiet}, {word} {rounded}")
    return f.value(f"trunc {word} {f.value(f'lshr {word} {result}, {_all(width, 16)}')} to {vector('i16', width)}")


def bits_of(value: Real) -> int:
    """A number as bfloat16 has it."""
    # two roundings are one: what is halfway between bfloat16 numbers, float32 has exactly, and a number that bfloat16 holds
    # is what code is made for
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 if value == value else bits >> 16 | _QUIET >> 16


def _all(width: int, number: int) -> str:
    return str(number) if width == 1 else f"splat (i32 {number})"
