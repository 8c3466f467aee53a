"""Which symbols an object file leaves to others: ELF, Mach-O, COFF and WebAssembly."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_WASM_IMPORTS = 2
_WASM_FUNCTION = 0


def undefined_symbols(data: bytes) -> tuple[str, ...]:
    """The names of the functions and variables that an object file refers to and does not define, in order, as C spells
    them. ValueError for a file of another kind."""
    if data.startswith(b"\x7fELF\x02"):
        found = _elf64(data)
    elif data.startswith(b"\xcf\xfa\xed\xfe"):
        found = (name.removeprefix("_") for name in _mach_o(data))
    elif data.startswith(b"\0asm"):
        found = _wasm(data)
    elif data[:2] in (b"\x64\x86", b"\x64\xaa"):
        found = _coff(data)
    else:
        raise ValueError(f"no object file that is known here: it begins with {data[:4]!r}")
    return tuple(dict.fromkeys(found))


def _text(data: bytes, start: int) -> str:
    return data[start : data.index(0, start)].decode()


def _elf64(data: bytes) -> Iterator[str]:
    sections, size, count = *struct.unpack_from("<Q", data, 0x28), *struct.unpack_from("<HH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, sections + size * k) for k in range(count)]
    symbol_table = 2
    for _, kind, _, _, start, length, link, _, _, entry in headers:
        if kind == symbol_table:
            names = headers[link][4]
            for at in range(start + entry, start + length, entry):  # the first one is empty
                name, _, _, section = struct.unpack_from("<IBBH", data, at)
                if section == 0:
                    yield _text(data, names + name)


def _mach_o(data: bytes) -> Iterator[str]:
    (commands,) = struct.unpack_from("<I", data, 16)
    at, symbol_table, kind_of, external = 32, 2, 0x0E, 0x01
    for _ in range(commands):
        command, size = struct.unpack_from("<II", data, at)
        if command == symbol_table:
            start, count, names, _ = struct.unpack_from("<IIII", data, at + 8)
            for k in range(count):
                name, kind = struct.unpack_from("<IB", data, start + 16 * k)
                if kind & external and not kind & kind_of:
                    yield _text(data, names + name)
        at += size


def _coff(data: bytes) -> Iterator[str]:
    start, count = struct.unpack_from("<II", data, 8)
    names, external, k = start + 18 * count, 2, 0
    while k < count:
        at = start + 18 * k
        section, _, kind, more = struct.unpack_from("<hHBB", data, at + 12)
        if section == 0 and kind == external:
            short = data[at : at + 8]
            yield _text(data, names + struct.unpack_from("<I", short, 4)[0]) if short[:4] == b"\0\0\0\0" else (
                short.rstrip(b"\0").decode())
        k += 1 + more


def _wasm(data: bytes) -> Iterator[str]:
    at = 8
    while at < len(data):
        section = data[at]
        length, at = _leb128(data, at + 1)
        if section == _WASM_IMPORTS:
            yield from _wasm_imports(data, at)
        at += length


def _wasm_imports(data: bytes, at: int) -> Iterator[str]:
    """The functions; memories, tables and the stack's address are the linker's."""
    count, at = _leb128(data, at)
    for _ in range(count):
        texts = []
        for _ in range(2):
            length, at = _leb128(data, at)
            texts.append(data[at : at + length].decode())
            at += length
        kind = data[at]
        at += 1
        if kind == _WASM_FUNCTION:
            yield texts[1]
            _, at = _leb128(data, at)
        elif kind == 3:  # a global: its type, and whether it changes
            at += 2
        else:
            at += kind == 1  # a table: what it holds; then, as for a memory, one limit or two
            limits, at = 1 + (data[at] & 1), at + 1
            for _ in range(limits):
                _, at = _leb128(data, at)


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
