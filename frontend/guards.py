"""What a traced function read of Python's state, and whether it is still so.

A function's code is scanned for the globals, closure variables and attributes that it names; the functions that it
reaches through these are scanned in turn, those of graphc, NumPy and the standard library apart. Plain values are
compared, tensors and functions must be the same objects, containers are compared item by item, and objects by the
attributes that some scanned code names. The parts of a model or an optimizer are compared whatever they are called.
"""

from __future__ import annotations

import dis
import functools
import math
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import chain, compress, repeat
from operator import attrgetter, is_, itemgetter, methodcaller
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, TypeAlias

import numpy as np

from graphc import types
from graphc.backend import ABSENT, ANYTHING, Guard
from graphc.frontend.nn.module import Module
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.tensor import Meta, Tensor
from graphc.types import DType

_PLAIN = (bool, int, float, complex, str, bytes, type(None), DType, slice, range, type(Ellipsis), np.generic, np.dtype)
_LEAVES = (*_PLAIN, BuiltinFunctionType, CodeType)
_KNOWN = frozenset({"graphc", "numpy", *sys.stdlib_module_names})
"""Packages whose functions and classes are taken to stay as they are."""
_DYNAMIC = frozenset({
    "__dict__", "__getattribute__", "asdict", "astuple", "attrgetter", "copy", "deepcopy", "dir", "getattr", "hasattr",
    "methodcaller", "replace", "setattr", "vars",
})  # fmt: skip
"""Code that names one of these may read any attribute."""
_ANY_NAME = "*"
"""Among the names that code mentions: all others."""
_UNREAD = frozenset({
    "_version", "_unsaved_buffers", "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
})  # fmt: skip
"""Attributes of modules and optimizers that no computation reads."""


_FROZEN: dict[type, Callable[[Any], Any]] = {
    set: frozenset, deque: tuple, OrderedDict: tuple, bytearray: bytes, ContextVar: lambda variable: variable.get(ABSENT),
    np.ndarray: lambda array: (array.shape, array.dtype, array.tobytes()),
}  # fmt: skip
"""Types whose contents are compared as a whole, and how to keep them; of an OrderedDict the order, which is its own."""
_RECORDS = frozenset({("types", "SimpleNamespace"), ("argparse", "Namespace")})
"""Classes of the standard library whose objects are the user's to fill."""

_Name: TypeAlias = "str | tuple[_Name, str, Any]"
"""What a value is called: a name, or (of what, "." or "[" or "the ... of", which). Most are never put into words."""


class Snapshot:
    """The state that a function depends on, as it was. `changed()` says what is different now, None if nothing is."""

    def __init__(
        self, function: Any, arguments: Sequence[Any] = (), exempt: set[tuple[int, str]] | None = None
    ) -> None:
        """`arguments` are what the function is called with besides tensors; `exempt` are (id of a dict, key) of what is read
        anew at each call."""
        names: set[str] = set()
        while True:
            # code that is found late may name attributes of objects that were seen early
            before = len(names)
            survey = _Survey(names, exempt or set())
            survey.default_dtype()
            survey.visit(function, "the function")
            for number, argument in enumerate(arguments):
                survey.visit(argument, f"argument {number}")
            if len(names) == before:
                break
        self.guards = survey.guards
        self._names = survey.names
        self._contents = survey.contents
        self.tensors = survey.tensors
        """The ids of the tensors that were found."""
        self.renewed = 0
        """How often a value was found to be another object of the same value, and that object put into its guard."""
        self._fast: _Fast | None = None

    @property
    def native(self) -> bool:
        """Whether the guards say it all."""
        return not self._contents

    def changed(self) -> str | None:
        """What is not as it was, in a few words."""
        if self._fast is None:
            self._fast = _Fast(self.guards)
        if not self._fast.unchanged():
            for guard, name in zip(self.guards, self._names, strict=True):
                difference = self._difference(guard, name)
                if difference is not None:
                    return difference
        for name, owner, read, expected in self._contents:
            if not _same(expected, read(owner)):
                return f"the contents of {_text(name)} have changed"
        return None

    def _difference(self, guard: Guard, name: _Name) -> str | None:
        """What one guard finds. Where an object has made way for one of the same value, it is the new one from now on."""
        now = _read(guard)
        if now is guard.expected:
            return None
        if guard.kind in ("dict", "class", "list"):
            before = guard.expected
            if guard.kind == "list":
                now, before = tuple(enumerate(now)), tuple(enumerate(before))
            if len(now) != len(before) or not all(_same(k, other) for (k, _), (other, _) in zip(now, before)):
                return f"the items of {_text(name)} have changed"
            for (key, value), (_, expected) in zip(now, before):
                if not _same(expected, value):
                    return f"{_member(name, key)} was {_short(expected)}, is {_short(value)}"
            now = _read(guard)
        elif guard.kind == "function":
            for what, value, expected in zip(("code", "defaults", "keyword defaults"), now, guard.expected):
                if not _same(expected, value):
                    return f"the {what} of {_text(name)} have changed"
        elif now is ABSENT:
            return f"{_text(name)} is gone"
        elif guard.expected is ABSENT:
            return f"{_text(name)} is new"
        elif not _same(guard.expected, now):
            return f"{_text(name)} was {_short(guard.expected)}, is {_short(now)}"
        if not _identical(guard.expected, now):
            guard.expected = now
            self.renewed += 1
            self._fast = None
        return None


def _read(guard: Guard) -> Any:
    """What a guard's `expected` would be now."""
    owner, key = guard.owner, guard.key
    match guard.kind:
        case "cell":
            return _cell_contents(owner)
        case "item":
            return dict.get(owner, key, ABSENT)
        case "dict":
            anything = {id(k) for k, value in guard.expected if value is ANYTHING}
            return tuple((k, ANYTHING if id(k) in anything else value) for k, value in dict.items(owner))
        case "list":
            return tuple(list.__iter__(owner))
        case "slot":
            return _slot_contents(owner, key)
        case "function":
            return _function_parts(owner)
        case "type":
            return type(owner)
        case "class":
            return tuple((name, _class_attribute(owner, name)) for name, _ in guard.expected)
        case "namespace":
            return _namespace(owner)


def _identical(left: Any, right: Any) -> bool:
    """Whether two readings of a guard are the same objects."""
    if type(left) is tuple and type(right) is tuple and len(left) == len(right):
        return all(map(_identical, left, right))
    return left is right


class _Fast:
    """All guards at once: whether everything is still the very same object. Most of this runs in C."""

    def __init__(self, guards: list[Guard]) -> None:
        def owners(*kinds: str) -> list[Guard]:
            return [g for g in guards if g.kind in kinds]

        dicts = owners("dict")
        pairs = [pair for g in dicts for pair in g.expected]
        self.dicts = [g.owner for g in dicts]
        self.dict_sizes = [len(g.expected) for g in dicts]
        self.dict_keys = [key for key, _ in pairs]
        self.wanted = [value is not ANYTHING for _, value in pairs]
        self.dict_values = [value for _, value in pairs if value is not ANYTHING]
        self.lists = [g.owner for g in owners("list")]
        self.list_sizes = [len(g.expected) for g in owners("list")]
        self.list_items = [item for g in owners("list") for item in g.expected]
        self.items = ([g.owner for g in owners("item")], [g.key for g in owners("item")], [g.expected for g in owners("item")])
        self.cells = ([g.owner for g in owners("cell")], [g.expected for g in owners("cell")])
        self.typed = ([g.owner for g in owners("type")], [g.expected for g in owners("type")])
        self.named = ([g.owner for g in owners("namespace")], [g.expected for g in owners("namespace")])
        functions = owners("function")
        self.functions = ([g.owner for g in functions], [part for g in functions for part in g.expected])
        hooked = [g for g in owners("slot") if g.key in _HOOKS]  # two for each tensor, one after the other
        self.hooked = ([g.owner for g in hooked[::2]], [g.expected for g in hooked])
        self.others = [g for g in owners("slot", "class") if g.key not in _HOOKS]

    def unchanged(self) -> bool:
        """False also where values are equal without being the same."""
        try:
            return (
                list(map(len, self.dicts)) == self.dict_sizes
                and list(map(len, self.lists)) == self.list_sizes
                and all(map(is_, chain.from_iterable(map(dict.keys, self.dicts)), self.dict_keys))
                and all(map(is_, compress(chain.from_iterable(map(dict.values, self.dicts)), self.wanted), self.dict_values))
                and all(map(is_, chain.from_iterable(self.lists), self.list_items))
                and all(map(is_, map(dict.get, *self.items[:2], repeat(ABSENT)), self.items[2]))
                and all(map(is_, map(_cell_contents, self.cells[0]), self.cells[1]))
                and all(map(is_, map(type, self.typed[0]), self.typed[1]))
                and all(map(is_, map(_namespace, self.named[0]), self.named[1]))
                and all(map(is_, chain.from_iterable(map(_function_parts, self.functions[0])), self.functions[1]))
                and all(map(is_, chain.from_iterable(map(_hooks, self.hooked[0])), self.hooked[1]))
                and all(_identical(_read(guard), guard.expected) for guard in self.others)
            )
        except RuntimeError:  # another thread changed a dict at this moment
            return False


_function_parts = attrgetter("__code__", "__defaults__", "__kwdefaults__")
_namespace = attrgetter("__dict__")


def _cell_contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


def _slot_contents(owner: Any, descriptor: MemberDescriptorType) -> Any:
    try:
        return descriptor.__get__(owner, type(owner))
    except AttributeError:
        return ABSENT


def _class_attribute(cls: type, name: str) -> Any:
    """What a class has under a name, before any binding."""
    for holder in cls.__mro__:
        if name in holder.__dict__:
            return holder.__dict__[name]
    return ABSENT


_HOOKS: tuple[Any, ...] = (vars(Meta)["hooks"], vars(Meta)["post_hooks"])
_hooks = attrgetter("hooks", "post_hooks")


class _Survey:
    """One walk over everything that a function reaches.

    `names` grows by all names in the code that is found; objects are looked at by those known so far.
    """

    def __init__(self, names: set[str], exempt: set[tuple[int, str]]) -> None:
        self._mentioned = names
        self._exempt = exempt
        self.guards: list[Guard] = []
        self.names: list[_Name] = []
        self.contents: list[tuple[_Name, Any, Callable[[Any], Any], Any]] = []
        """State that only Python can compare: (name, owner, how to read it, what it was)."""
        self.tensors: set[int] = set()
        self._seen: dict[int, Any] = {}
        self._guarded: set[tuple[str, int, Any]] = set()
        self._waiting: list[tuple[Any, _Name]] = []

    def visit(self, value: Any, name: _Name) -> None:
        """Walk from a value."""
        self._waiting.append((value, name))
        while self._waiting:
            value, name = self._waiting.pop()
            if isinstance(value, Tensor):
                if id(value) not in self.tensors:
                    self.tensors.add(id(value))
                    self._tensor_hooks(value, name)
            elif not isinstance(value, _LEAVES) and id(value) not in self._seen:
                self._seen[id(value)] = value
                self._look(value, name)

    def default_dtype(self) -> None:
        """Note the dtype that new tensors have, which is no state of the user's code."""
        self._guard("item", "the default dtype", vars(types), "_default", types.get_default_dtype())

    def _tensor_hooks(self, tensor: Tensor, name: _Name) -> None:
        """The hooks of a leaf, which a backward pass within the function calls."""
        if tensor._meta is None or not tensor._meta.requires_grad:
            return
        for slot in _HOOKS:
            hooks = _slot_contents(tensor._meta, slot)
            self._guard("slot", (name, "the hooks of", None), tensor._meta, slot, hooks)
            if hooks is not None:
                self._later(hooks, (name, "the hooks of", None))

    def _later(self, value: Any, name: _Name) -> None:
        if not isinstance(value, _LEAVES):
            self._waiting.append((value, name))

    def _guard(self, kind: Any, name: _Name, owner: Any, key: Any, expected: Any) -> None:
        identity = (kind, id(owner), key)
        if identity not in self._guarded:
            self._guarded.add(identity)
            self.guards.append(Guard(kind, owner, key, expected))
            self.names.append(name)

    @property
    def _dynamic(self) -> bool:
        return _ANY_NAME in self._mentioned

    def _look(self, value: Any, name: _Name) -> None:
        """Note what hangs on a value; that the value itself is the same, whoever holds it sees to."""
        if isinstance(value, FunctionType):
            self._function(value, name)
        elif isinstance(value, MethodType):
            self._later(value.__self__, (name, ".", "__self__"))
            self._later(value.__func__, name)
        elif isinstance(value, ModuleType):
            self._module(value, name)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, functools.partial):
            for part in ("func", "args", "keywords"):
                self._later(getattr(value, part), (name, ".", part))
        elif isinstance(value, (staticmethod, classmethod)):
            self._later(value.__func__, name)
        elif isinstance(value, property):
            for function in (value.fget, value.fset, value.fdel):
                self._later(function, name)
        elif isinstance(value, functools.cached_property):
            self._later(value.func, name)
        elif isinstance(value, CellType):
            self._cell(value, name)
        elif isinstance(value, (attrgetter, itemgetter, methodcaller)):
            self._mentioned.add(_ANY_NAME)
        elif isinstance(value, (tuple, frozenset)):
            for k, item in enumerate(value):
                self._later(item, (name, "[", k))
        else:
            self._container(value, name)
            self._object(value, name)

    def _container(self, value: Any, name: _Name) -> None:
        if isinstance(value, dict):
            self._dict(value, name, "[", lambda key: True)
        elif isinstance(value, list):
            self._guard("list", (name, "[", None), value, None, tuple(list.__iter__(value)))
            for k, item in enumerate(list.__iter__(value)):
                self._later(item, (name, "[", k))
        for cls, freeze in _FROZEN.items():
            if isinstance(value, cls):
                self.contents.append((name, value, freeze, freeze(value)))
                if isinstance(value, (set, deque)):
                    for item in list(value):
                        self._later(item, (name, "an item of", None))

    def _dict(self, value: dict[Any, Any], name: _Name, form: str, wanted: Callable[[Any], bool]) -> None:
        pairs = []
        for key, item in list(dict.items(value)):
            if (id(value), key) in self._exempt or not wanted(key):
                pairs.append((key, ANYTHING))
                continue
            pairs.append((key, item))
            self._later(key, (name, "a key of", None))
            self._later(item, (name, form, key))
        self._guard("dict", (name, form, None), value, None, tuple(pairs))

    def _object(self, value: Any, name: _Name) -> None:
        """The attributes of an object, and its class."""
        cls = type(value)
        attributes = getattr(value, "__dict__", None)
        wrapped = attributes.get("__wrapped__") if isinstance(attributes, dict) else None
        if wrapped is not None:  # a compiled function, a cache
            self._later(wrapped, name)
            return
        if isinstance(attributes, dict):
            if isinstance(value, (Module, Optimizer)):
                wanted: Callable[[Any], bool] = lambda key: key not in _UNREAD  # noqa: E731
            elif self._dynamic and (_package(cls) not in _KNOWN or (cls.__module__, cls.__qualname__) in _RECORDS):
                wanted = lambda key: True  # noqa: E731
            else:
                wanted = self._mentioned.__contains__
            self._guard("namespace", (name, ".", "__dict__"), value, None, attributes)
            self._dict(attributes, name, ".", wanted)
        for holder in cls.__mro__:
            for attribute, descriptor in vars(holder).items():
                if isinstance(descriptor, MemberDescriptorType) and attribute in self._mentioned:
                    content = _slot_contents(value, descriptor)
                    self._guard("slot", (name, ".", attribute), value, descriptor, content)
                    self._later(content, (name, ".", attribute))
        if isinstance(attributes, dict) or _package(cls) not in _KNOWN:
            self._guard("type", (name, "the type of", None), value, None, cls)
            self._class(cls)

    def _class(self, cls: type) -> None:
        """What a class has under the names that code mentions, and the methods that Python calls by itself."""
        if _package(cls) in _KNOWN:
            return
        own = [holder for holder in cls.__mro__ if _package(holder) not in _KNOWN]
        # what a base from elsewhere reads or calls, as Module.__call__ does forward, no scanned code mentions
        all_names = self._dynamic or len(own) + 1 < len(cls.__mro__)
        found: dict[str, Any] = {}
        for holder in own:
            for attribute, value in list(vars(holder).items()):
                special = attribute.startswith("__") and attribute.endswith("__")
                if isinstance(value, FunctionType) if special else all_names or attribute in self._mentioned:
                    found.setdefault(attribute, _class_attribute(cls, attribute))
        self._guard("class", (cls.__qualname__, ".", None), cls, None, tuple(found.items()))
        for attribute, value in found.items():
            self._later(value, (cls.__qualname__, ".", attribute))

    def _module(self, module: ModuleType, name: _Name) -> None:
        if module.__name__.partition(".")[0] in _KNOWN:
            return
        namespace = vars(module)
        for attribute in sorted(self._mentioned & namespace.keys()):
            self._guard("item", (name, ".", attribute), namespace, attribute, namespace[attribute])
            self._later(namespace[attribute], (name, ".", attribute))

    def _function(self, function: FunctionType, name: _Name) -> None:
        # not __module__, which functools.wraps sets to that of the function within
        if str(function.__globals__.get("__name__")).partition(".")[0] in _KNOWN:
            self._later(function.__dict__.get("__wrapped__"), name)
            return
        parts = _function_parts(function)
        self._guard("function", function.__qualname__, function, None, parts)
        for part in parts[1:]:
            self._later(part, (function.__name__, "a default of", None))
        self._guard("namespace", (function.__name__, ".", "__dict__"), function, None, function.__dict__)
        self._dict(function.__dict__, function.__name__, ".", self._mentioned.__contains__)
        for cell_name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            self._cell(cell, cell_name)
        reads = _reads(function.__code__)
        self._mentioned |= reads.attributes
        if reads.dynamic:
            self._mentioned.add(_ANY_NAME)
        names = function.__globals__
        for first in reads.globals:
            value = names.get(first, ABSENT)
            self._guard("item", first, names, first, value)
            if value is not ABSENT:
                self._later(value, first)
        for imported in reads.imports:
            for module in _imported(imported, names):
                self._later(module, imported)

    def _cell(self, cell: CellType, name: _Name) -> None:
        content = _cell_contents(cell)
        self._guard("cell", name, cell, None, content)
        if content is not ABSENT:
            self._later(content, name)


@dataclass(frozen=True)
class _Reads:
    """What a piece of code, the functions defined in it included, may read by name."""

    globals: tuple[str, ...]
    imports: tuple[str, ...]
    attributes: frozenset[str]
    """Strings are among them: of getattr(x, "name"), or of a pattern."""
    dynamic: bool
    """Whether it may read others too."""


_READING = {
    "LOAD_GLOBAL": "globals", "LOAD_NAME": "globals", "IMPORT_NAME": "imports", "IMPORT_FROM": "attributes",
    "LOAD_ATTR": "attributes", "LOAD_METHOD": "attributes", "LOAD_SUPER_ATTR": "attributes",
}  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _reads(code: CodeType) -> _Reads:
    names: dict[str, set[str]] = {"globals": set(), "imports": set(), "attributes": set(_strings(code.co_consts))}
    for instruction in dis.get_instructions(code):
        kind = _READING.get(instruction.opname)
        if kind is not None:
            names[kind].add(instruction.argval)
    dynamic = not _DYNAMIC.isdisjoint(names["globals"] | names["attributes"])
    found = _Reads(tuple(sorted(names["globals"])), tuple(sorted(names["imports"])), frozenset(names["attributes"]), dynamic)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = _reads(constant)
            found = _Reads(
                found.globals + inner.globals, found.imports + inner.imports, found.attributes | inner.attributes,
                found.dynamic or inner.dynamic,
            )  # fmt: skip
    return found


def _strings(constants: tuple[Any, ...]) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple):
            yield from _strings(constant)


def _imported(name: str, namespace: dict[str, Any]) -> Iterator[ModuleType]:
    """The modules that an import statement in a function may mean."""
    package = namespace.get("__package__") or ""
    parents = [package, *(package.rsplit(".", k)[0] for k in range(1, package.count(".") + 1))] if package else []
    for full in (name, *(f"{parent}.{name}" if name else parent for parent in parents)):
        module = sys.modules.get(full)
        if isinstance(module, ModuleType):
            yield module


def is_known(cls: type) -> bool:
    """Whether a class is one of those that are taken to stay as they are."""
    return _package(cls) in _KNOWN


def _package(cls: type) -> str:
    return (cls.__module__ or "").partition(".")[0] if isinstance(cls.__module__, str) else ""


def _same(expected: Any, now: Any) -> bool:
    """Whether two values make no difference to code: the same object, or equal plain values of one type."""
    if expected is now:
        return True
    if type(expected) is not type(now):
        return False
    if isinstance(expected, float):  # 0.0 is not -0.0, and nan is nan
        return (math.isnan(expected) and math.isnan(now)) or (
            expected == now and math.copysign(1, expected) == math.copysign(1, now)
        )
    if isinstance(expected, tuple):
        return len(expected) == len(now) and all(map(_same, expected, now))
    return isinstance(expected, (*_PLAIN, frozenset)) and bool(expected == now)


def _text(name: _Name) -> str:
    """A name in words."""
    before, after = "", ""
    while not isinstance(name, str):
        name, form, key = name
        if form == ".":
            after = f".{key}{after}" if key is not None else after
        elif form == "[":
            after = f"[{_short(key)}]{after}" if key is not None else after
        else:
            before = f"{before}{form} "
    return f"{before}{name}{after}"


def _member(name: _Name, key: Any) -> str:
    """What a dict, list or class holds under a key, in words."""
    return _text((name[0], name[1], key)) if isinstance(name, tuple) else _text((name, "[", key))


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    text = "missing" if value is ABSENT else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
