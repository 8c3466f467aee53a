"""Loads and stores of several elements at once, as LLVM instructions.

A mask (an operand of type <width x i1>, or None for all) says which lanes take part: the others touch no memory, and
load 0. Offsets count elements. In memory a bool is a byte, 0 or 1; in a register it is an i1.
"""

from __future__ import annotations

import math

from graphc.backends.llvm.builder import Function, mangle, vector
from graphc.backends.llvm.elementwise import REGISTER
from graphc.types import DType, bool_

LINE_BYTES = 64
"""What is fetched from memory at once."""


def memory_type(dtype: DType) -> str:
    """The LLVM type of an element in memory."""
    return "i8" if dtype is bool_ else REGISTER[dtype.name]


def address(f: Function, dtype: DType, pointer: str, offset: str) -> str:
    """The address of the element at an i64 offset."""
    return pointer if offset == "0" else f.value(f"getelementptr {memory_type(dtype)}, ptr {pointer}, i64 {offset}")


def load_one(f: Function, dtype: DType, pointer: str, offset: str) -> str:
    """One element, as a scalar."""
    place = address(f, dtype, pointer, offset)
    return _from_memory(f, dtype, 1, f.value(f"load {memory_type(dtype)}, ptr {place}, align {dtype.itemsize}"))


def load_consecutive(f: Function, dtype: DType, width: int, pointer: str, offset: str, mask: str | None) -> str:
    """`width` elements from an offset upwards."""
    type_ = vector(memory_type(dtype), width)
    place = address(f, dtype, pointer, offset)
    if mask is None:
        value = f.value(f"load {type_}, ptr {place}, align {dtype.itemsize}")
        return _from_memory(f, dtype, width, value)
    loaded = []
    for start, lanes, own in _registers(f, dtype, width, mask):
        type_, mask_type = vector(memory_type(dtype), lanes), vector("i1", lanes)
        part = place if start == 0 else address(f, dtype, place, str(start))
        name = f.module.declare(f"llvm.masked.load.{mangle(type_)}.p0", type_, ["ptr", "i32", mask_type, type_])
        align, nothing = ("i32", str(dtype.itemsize)), (type_, "zeroinitializer")
        loaded.append(f.call(type_, name, ("ptr", part), align, (mask_type, own), nothing))
    while len(loaded) > 1:
        lanes = width // len(loaded)
        type_ = vector(memory_type(dtype), lanes)
        loaded = [_shuffle(f, type_, a, b, list(range(2 * lanes))) for a, b in zip(loaded[::2], loaded[1::2])]
    return _from_memory(f, dtype, width, loaded[0])


def load_strided(f: Function, dtype: DType, width: int, pointer: str, offset: str, stride: int) -> str:
    """`width` elements, `stride` (2 or more) apart, from an offset upwards: by consecutive loads that begin at the
    first and end at the last of them, so that nothing else than what lies between is read."""
    type_ = vector(memory_type(dtype), width)
    last = (width - 1) * (stride - 1)
    starts = [min(k * width, last) for k in range(stride)]
    result = ""
    first = address(f, dtype, pointer, offset)
    for k, start in enumerate(starts):
        place = address(f, dtype, first, str(start))
        part = f.value(f"load {type_}, ptr {place}, align {dtype.itemsize}")
        lanes = [lane * stride - start for lane in range(width)]
        if k == 0:
            picks = [lane if 0 <= lane < width else 0 for lane in lanes]
            result = _shuffle(f, type_, part, part, picks)
        else:
            picks = [width + lane if 0 <= lane < width else i for i, lane in enumerate(lanes)]
            result = _shuffle(f, type_, result, part, picks)
    return _from_memory(f, dtype, width, result)


def gather(f: Function, dtype: DType, width: int, pointer: str, offsets: tuple[str, str], mask: str | None) -> str:
    """The elements at the offsets, given as (vector type, operand)."""
    type_, pointers, mask_type = vector(memory_type(dtype), width), vector("ptr", width), vector("i1", width)
    places = _addresses(f, dtype, pointer, offsets)
    params = [pointers, "i32", mask_type, type_]
    name = f.module.declare(f"llvm.masked.gather.{mangle(type_)}.{mangle(pointers)}", type_, params)
    lanes = (mask_type, mask or "splat (i1 true)")
    value = f.call(type_, name, (pointers, places), ("i32", str(dtype.itemsize)), lanes, (type_, "zeroinitializer"))
    return _from_memory(f, dtype, width, value)


def store_one(f: Function, dtype: DType, pointer: str, offset: str, value: str) -> None:
    """One element, from a scalar."""
    value = _to_memory(f, dtype, 1, value)
    f.do(f"store {memory_type(dtype)} {value}, ptr {address(f, dtype, pointer, offset)}, align {dtype.itemsize}")


def store_consecutive(
    f: Function, dtype: DType, width: int, pointer: str, offset: str, value: str, mask: str | None, *, streamed: bool = False
) -> None:
    """`width` elements from an offset upwards; `streamed` past the caches, which takes all of them, and an
    address that is a multiple of their size, or of a line."""
    type_ = vector(memory_type(dtype), width)
    value = _to_memory(f, dtype, width, value)
    place = address(f, dtype, pointer, offset)
    if mask is None:
        how = f"{math.gcd(width * dtype.itemsize, LINE_BYTES)}, !nontemporal !{{i32 1}}" if streamed else f"{dtype.itemsize}"
        f.do(f"store {type_} {value}, ptr {place}, align {how}")
        return
    scalar = memory_type(dtype)
    for start, lanes, own in _registers(f, dtype, width, mask):
        bits = own.split(",")
        if own.startswith("<") and own.count("true") == 1:
            # LLVM 22 makes a scalar store of it itself, but of the wrong width where the value was truncated
            lane = start + bits.index(next(bit for bit in bits if "true" in bit))
            element = f.value(f"extractelement {type_} {value}, i64 {lane}")
            f.do(f"store {scalar} {element}, ptr {address(f, dtype, place, str(lane))}, align {dtype.itemsize}")
            continue
        part_type, mask_type = vector(scalar, lanes), vector("i1", lanes)
        if scalar in ("i8", "i16", "i32") and not own.startswith("<"):
            own = _opaque(f, own, lanes)  # or LLVM may find out that it is such a mask
        part = value if lanes == width else _shuffle(f, type_, value, value, list(range(start, start + lanes)))
        where = place if start == 0 else address(f, dtype, place, str(start))
        name = f.module.declare(f"llvm.masked.store.{mangle(part_type)}.p0", "void", [part_type, "ptr", "i32", mask_type])
        f.call("void", name, (part_type, part), ("ptr", where), ("i32", str(dtype.itemsize)), (mask_type, own))


def scatter(
    f: Function, dtype: DType, width: int, pointer: str, offsets: tuple[str, str], value: str, mask: str | None
) -> None:
    """The elements at the offsets, given as (vector type, operand)."""
    type_, pointers, mask_type = vector(memory_type(dtype), width), vector("ptr", width), vector("i1", width)
    places = _addresses(f, dtype, pointer, offsets)
    params = [type_, pointers, "i32", mask_type]
    name = f.module.declare(f"llvm.masked.scatter.{mangle(type_)}.{mangle(pointers)}", "void", params)
    value = _to_memory(f, dtype, width, value)
    lanes = (mask_type, mask or "splat (i1 true)")
    f.call("void", name, (type_, value), (pointers, places), ("i32", str(dtype.itemsize)), lanes)


def prefetch(f: Function, place: str, nbytes: int, level: int = 1) -> None:
    """Have some bytes from an address on fetched into a level of cache. The address may be any."""
    callee = f.module.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
    for start in range(0, nbytes, LINE_BYTES):
        at = f.value(f"getelementptr i8, ptr {place}, i64 {start}") if start else place
        f.call("void", callee, ("ptr", at), ("i32", "0"), ("i32", str(4 - level)), ("i32", "1"))


def reverse(f: Function, scalar: str, width: int, operand: str) -> str:
    """The lanes of a vector in reverse order."""
    return _shuffle(f, vector(scalar, width), operand, operand, list(range(width - 1, -1, -1)))


def _registers(f: Function, dtype: DType, width: int, mask: str) -> list[tuple[int, int, str]]:
    """A masked access in parts of a register: (first lane, lanes, mask) of each.

    LLVM 22 splits what is wider itself, but wrongly: a part whose mask turns out to be false becomes a load without a
    mask, which reads what must not be read and lets it through.
    """
    lanes = min(width, max(1, f.module.vector_bytes // dtype.itemsize))
    if lanes == width:
        return [(0, width, mask)]
    parts = []
    for start in range(0, width, lanes):
        if mask.startswith("<"):
            own = f"<{', '.join(bit.strip() for bit in mask[1:-1].split(',')[start : start + lanes])}>"
        else:
            own = _shuffle(f, vector("i1", width), mask, mask, list(range(start, start + lanes)))
        parts.append((start, lanes, own))
    return parts


def _opaque(f: Function, mask: str, lanes: int) -> str:
    """A mask that LLVM knows nothing about."""
    bits, word = f"i{lanes}", f"i{max(32, lanes)}"
    number = f.value(f"bitcast {vector('i1', lanes)} {mask} to {bits}") if lanes > 1 else mask
    wide = f.value(f"zext {bits} {number} to {word}") if bits != word else number
    wide = f.value(f'call {word} asm "", "=r,0"({word} {wide})')
    number = f.value(f"trunc {word} {wide} to {bits}") if bits != word else wide
    return f.value(f"bitcast {bits} {number} to {vector('i1', lanes)}") if lanes > 1 else number


def _shuffle(f: Function, type_: str, a: str, b: str, picks: list[int]) -> str:
    indices = ", ".join(f"i32 {pick}" for pick in picks)
    return f.value(f"shufflevector {type_} {a}, {type_} {b}, <{len(picks)} x i32> <{indices}>")


def _addresses(f: Function, dtype: DType, pointer: str, offsets: tuple[str, str]) -> str:
    type_, operand = offsets
    return f.value(f"getelementptr {memory_type(dtype)}, ptr {pointer}, {type_} {operand}")


def _from_memory(f: Function, dtype: DType, width: int, value: str) -> str:
    if dtype is not bool_:
        return value
    return f.value(f"icmp ne {vector('i8', width)} {value}, zeroinitializer" if width > 1 else f"icmp ne i8 {value}, 0")


def _to_memory(f: Function, dtype: DType, width: int, value: str) -> str:
    if dtype is not bool_:
        return value
    return f.value(f"zext {vector('i1', width)} {value} to {vector('i8', width)}")
