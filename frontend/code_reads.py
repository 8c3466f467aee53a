"""What a piece of code reads by name: globals, attributes, modules that it imports."""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

_DYNAMIC = frozenset({
    "__dict__", "__getattribute__", "asdict", "astuple", "attrgetter", "copy", "deepcopy", "dir", "getattr", "hasattr",
    "methodcaller", "replace", "setattr", "vars",
})  # fmt: skip
"""Code that names one of these may read any attribute."""
ANY_NAME = "*"
"""Among the names that code mentions: all others."""


@dataclass(frozen=True)
class Reads:
    """What a piece of code, the functions defined in it included, may read or write by name."""

    globals: tuple[str, ...]
    imports: tuple[str, ...]
    attributes: frozenset[str]
    """Strings are among them: of getattr(x, "name"), or of a pattern."""
    dynamic: bool
    """Whether it may read others too."""
    values: frozenset[str]
    """The globals that it reads without calling them at once."""
    compares: bool
    """Whether it asks if two things are the same object, other than constants."""
    written_globals: tuple[str, ...]
    written_attributes: frozenset[str]


_READING = {
    "LOAD_GLOBAL": "globals", "LOAD_NAME": "globals", "IMPORT_NAME": "imports", "IMPORT_FROM": "attributes",
    "LOAD_ATTR": "attributes", "LOAD_METHOD": "attributes", "LOAD_SUPER_ATTR": "attributes",
    "STORE_GLOBAL": "written_globals", "DELETE_GLOBAL": "written_globals",
    "STORE_ATTR": "written_attributes", "DELETE_ATTR": "written_attributes",
}  # fmt: skip


@functools.lru_cache(maxsize=4096)
def reads_of(code: CodeType) -> Reads:
    names: dict[str, set[str]] = {kind: set() for kind in _READING.values()}
    names["attributes"] |= set(_strings(code.co_consts))
    values: set[str] = set()
    compares = False
    before = ""
    for instruction in dis.get_instructions(code):
        kind = _READING.get(instruction.opname)
        if kind is not None:
            names[kind].add(instruction.argval)
        if instruction.opname == "LOAD_GLOBAL" and instruction.arg is not None and not instruction.arg & 1:
            values.add(instruction.argval)  # the last bit prepares a call
        compares |= instruction.opname == "IS_OP" and before != "LOAD_CONST"
        before = instruction.opname
    dynamic = not _DYNAMIC.isdisjoint(names["globals"] | names["attributes"])
    found = Reads(
        tuple(sorted(names["globals"])), tuple(sorted(names["imports"])), frozenset(names["attributes"]), dynamic,
        frozenset(values), compares, tuple(sorted(names["written_globals"])), frozenset(names["written_attributes"]),
    )  # fmt: skip
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = reads_of(constant)
            found = Reads(
                found.globals + inner.globals, found.imports + inner.imports, found.attributes | inner.attributes,
                found.dynamic or inner.dynamic, found.values | inner.values, found.compares or inner.compares,
                found.written_globals + inner.written_globals, found.written_attributes | inner.written_attributes,
            )  # fmt: skip
    return found


def _strings(constants: tuple[Any, ...]) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple):
            yield from _strings(constant)


def imported_modules(name: str, namespace: dict[str, Any]) -> Iterator[ModuleType]:
    """The modules that an import statement in a function may mean."""
    package = namespace.get("__package__") or ""
    parents = [package, *(package.rsplit(".", k)[0] for k in range(1, package.count(".") + 1))] if package else []
    for full in (name, *(f"{parent}.{name}" if name else parent for parent in parents)):
        module = sys.modules.get(full)
        if isinstance(module, ModuleType):
            yield module
