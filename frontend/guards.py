"""What a traced function read of Python's state, and whether it is still so.

A function's code is scanned for the globals and closure variables that it names, and for attributes read off them; the
functions that it reaches this way are scanned in turn. Plain values are compared, tensors and functions must be the
same objects, containers are compared item by item, and modules and other objects by their attributes.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from graphc.frontend.tensor import Tensor
from graphc.types import DType

_PLAIN = (bool, int, float, complex, str, bytes, type(None), DType, slice, range, type(Ellipsis))
_DEPTH = 6
"""How deep containers and objects are followed."""
_STANDARD = frozenset(sys.stdlib_module_names)


class Snapshot:
    """The state that a function depends on, as it was. `changed()` says what is different now, None if nothing is."""

    def __init__(self, function: Any, exempt: set[tuple[int, str]] | None = None) -> None:
        self._exempt = exempt or set()
        """(id of a mapping, key) pairs that are read anew at each call."""
        self._items: list[tuple[str, Callable[[], Any], Any]] = []
        self._seen: set[Any] = set()
        self._keep: list[Any] = []
        self._look("the function", lambda: function, function, 0)

    def changed(self) -> str | None:
        """What is not as it was, in a few words."""
        for name, read, expected in self._items:
            try:
                now = read()
            except (KeyError, AttributeError, ValueError, IndexError):
                return f"{name} is gone"
            if now is expected:
                continue
            if type(now) is not type(expected) or not isinstance(expected, (*_PLAIN, tuple, frozenset)) or now != expected:
                return f"{name} was {_short(expected)}, is {_short(now)}"
        return None

    def _add(self, name: str, read: Callable[[], Any], value: Any) -> None:
        self._items.append((name, read, value))

    def _look(self, name: str, read: Callable[[], Any], value: Any, depth: int) -> None:
        """Note a value that was reached by `read`, and what hangs on it."""
        if isinstance(value, Mapping) and type(value).__module__ == "builtins" or isinstance(value, dict):
            self._container(name, read, value, depth, dict(value).items(), lambda v: tuple(v))
            return
        if isinstance(value, (list, tuple)) and not isinstance(value, _PLAIN):
            self._container(name, read, value, depth, enumerate(value), len)
            return
        self._add(name, read, value)
        if isinstance(value, (*_PLAIN, Tensor, BuiltinFunctionType, ModuleType)):
            return
        key = id(value)
        if key in self._seen or depth > _DEPTH:
            return
        self._seen.add(key)
        self._keep.append(value)
        if isinstance(value, MethodType):
            self._look(f"{name}.__self__", lambda: read().__self__, value.__self__, depth)
            self._look(f"{name}.__func__", lambda: read().__func__, value.__func__, depth)
        elif isinstance(value, FunctionType):
            self._function(value, depth)
        elif not isinstance(value, type):
            self._object(name, read, value, depth)

    def _container(
        self, name: str, read: Callable[[], Any], value: Any, depth: int, items: Any, shape: Callable[[Any], Any]
    ) -> None:
        key = id(value)
        if key in self._seen or depth > _DEPTH:
            return
        self._seen.add(key)
        self._keep.append(value)
        self._add(f"the items of {name}", lambda: shape(read()), shape(value))
        for k, item in items:
            if (id(value), k) in self._exempt:
                continue
            self._look(f"{name}[{k!r}]", lambda k=k: read()[k], item, depth + 1)

    def _object(self, name: str, read: Callable[[], Any], value: Any, depth: int) -> None:
        """The attributes of an object, and the methods of its class that are written in Python."""
        module = type(value).__module__.partition(".")[0]
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict) and module not in _STANDARD:
            for k, item in list(attributes.items()):
                if (id(attributes), k) not in self._exempt:
                    self._look(f"{name}.{k}", lambda k=k: read().__dict__[k], item, depth + 1)
        if module != "graphc" and module not in _STANDARD:
            for cls in type(value).__mro__:
                for k, item in list(vars(cls).items()):
                    if isinstance(item, FunctionType) and not cls.__module__.startswith("graphc"):
                        self._look(f"{cls.__name__}.{k}", lambda cls=cls, k=k: vars(cls)[k], item, depth + 1)

    def _function(self, function: FunctionType, depth: int) -> None:
        if function.__module__ is not None and function.__module__.partition(".")[0] in ("graphc", "numpy", *_STANDARD):
            return
        self._add(f"the code of {function.__name__}", lambda: function.__code__, function.__code__)
        self._look(f"the defaults of {function.__name__}", lambda: function.__defaults__, function.__defaults__, depth + 1)
        self._look(f"the defaults of {function.__name__}", lambda: function.__kwdefaults__, function.__kwdefaults__, depth + 1)
        for cell_name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            try:
                content = cell.cell_contents
            except ValueError:
                continue  # not yet assigned: the function did not read it
            self._look(cell_name, lambda cell=cell: cell.cell_contents, content, depth + 1)
        names = function.__globals__
        for path in _global_reads(function.__code__):
            self._path(names, path, depth)

    def _path(self, names: dict[str, Any], path: tuple[str, ...], depth: int) -> None:
        """A global, and attributes read off it as long as they go through modules."""
        first = path[0]
        if first not in names:
            return  # a built-in, or a name that the function did not reach
        value = names[first]
        read: Callable[[], Any] = lambda: names[first]  # noqa: E731
        name = first
        for attribute in path[1:]:
            if not isinstance(value, ModuleType) or not hasattr(value, attribute):
                break
            if value.__name__.partition(".")[0] in ("graphc", "numpy", *_STANDARD):
                return
            outer = read
            read = lambda outer=outer, attribute=attribute: getattr(outer(), attribute)  # noqa: E731
            value = getattr(value, attribute)
            name = f"{name}.{attribute}"
        self._look(name, read, value, depth + 1)


def _global_reads(code: CodeType) -> list[tuple[str, ...]]:
    """The globals that code names, each with the attributes that are read off it at once; nested functions included."""
    found: dict[tuple[str, ...], None] = {}
    path: tuple[str, ...] = ()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found[path] = None
            path = (instruction.argval,)
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and path:
            path = (*path, instruction.argval)
        elif path and instruction.opname not in ("CACHE", "NOP", "PRECALL", "EXTENDED_ARG", "PUSH_NULL"):
            found[path] = None
            path = ()
    found[path] = None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found.update(dict.fromkeys(_global_reads(constant)))
    return [path for path in found if path]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
