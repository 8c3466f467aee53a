"""A walk over everything of Python's state that a function may read, and the guards that it calls for.

A function's code is scanned for the globals, closure variables and attributes that it names; the functions that it
reaches through these are scanned in turn, those of graphc, NumPy and the standard library apart. Of objects, the
attributes that some scanned code names are noted; the parts of a model or an optimizer whatever they are called.
"""

from __future__ import annotations

import builtins
import functools
import gc
import os
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Set
from contextvars import ContextVar
from operator import attrgetter, itemgetter, methodcaller
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)  # fmt: skip
from typing import Any

import numpy as np

from graphc import types
from graphc.config import config
from graphc.frontend import world
from graphc.frontend.code_reads import ANY_NAME, imported_modules, reads_of
from graphc.frontend.device_arrays import is_array
from graphc.frontend.guard_text import Name, text
from graphc.frontend.nn.module import Module
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.pytree import flatten
from graphc.frontend.tensor import Meta, Tensor
from graphc.specs import ABSENT, ANYTHING, Guard
from graphc.types import DType

PLAIN = (bool, int, float, complex, str, bytes, type(None), DType, slice, range, type(Ellipsis), np.generic, np.dtype)
MARKS = frozenset({"_dynamic"})
"""Attributes of tensors that are graphc's own."""
_LEAVES = (*PLAIN, BuiltinFunctionType, CodeType)
_TEST_RUNNERS = frozenset({"_pytest", "hypothesis", "pluggy", "pytest"})
"""Packages that no computation depends on, and that each `assert` in a module refers to which pytest has rewritten."""
KNOWN = frozenset({"graphc", "numpy", *_TEST_RUNNERS, *sys.stdlib_module_names} - {
    "antigravity", "idlelib", "test", "this", "turtledemo",
})  # fmt: skip
"""Packages whose functions and classes are taken to stay as they are; not those of the standard library that nobody calls,
and whose names users give to files of their own."""
_UNREAD = frozenset({
    "_version", "_has_stepped", "_made_in", "_unsaved_buffers", "_state_dict_hooks", "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
})  # fmt: skip
"""Attributes of modules and optimizers that no computation reads."""
_TRAINING = ("graphc.frontend.optim.", "graphc.frontend.amp")
"""Where classes stand whose objects read and change all their attributes: optimizers, schedules, scalers of losses."""


_HOLDING = ("collections", "graphc.frontend.distributions.")
"""Where classes stand whose objects are what their attributes are: UserDict, ChainMap and their like, distributions."""
_FROZEN: dict[type, Callable[[Any], Any]] = {
    set: frozenset, deque: tuple, OrderedDict: tuple, bytearray: bytes, ContextVar: lambda variable: variable.get(ABSENT),
    np.ndarray: lambda array: (array.shape, array.dtype, array.tobytes()), MappingProxyType: lambda proxy: tuple(proxy.items()),
    weakref.ref: lambda reference: id(reference()),
}  # fmt: skip
"""Types whose contents are compared as a whole, and how to keep them; of an OrderedDict the order, which is its own."""
_GRAPHC_ASKS = frozenset({"DataLoader", "get_num_threads", "load", "save", "set_num_threads"})
"""Names of graphc under which code may ask something of the world."""
_CONSTANT = frozenset({"cmath", "math", "numpy", "operator", "string"})
"""Packages whose variables are constants."""
_RECORDS = frozenset({("types", "SimpleNamespace"), ("argparse", "Namespace")})
"""Classes of the standard library whose objects are the user's to fill."""

_BY_ITSELF = (BuiltinFunctionType, FunctionType, MethodType, type)
"""What may ask something of the world, or not, whatever others of its class do."""
_WITH_PARTS = (
    FunctionType, MethodType, ModuleType, type, functools.partial, staticmethod, classmethod, property,
    functools.cached_property, CellType, attrgetter, itemgetter, methodcaller, tuple, frozenset, MethodWrapperType,
)  # fmt: skip
_PLAINEST = frozenset({bool, int, float, complex, str, bytes, type(None)})
"""Those of `PLAIN` that most values are of."""

function_parts = attrgetter("__code__", "__defaults__", "__kwdefaults__")


def cell_contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return ABSENT


def slot_contents(owner: Any, descriptor: MemberDescriptorType) -> Any:
    try:
        return descriptor.__get__(owner, type(owner))
    except AttributeError:
        return ABSENT


def class_attribute(cls: type, name: str) -> Any:
    """What a class has under a name, before any binding."""
    for holder in cls.__mro__:
        if name in holder.__dict__:
            return holder.__dict__[name]
    return ABSENT


HOOKS: tuple[Any, ...] = (vars(Meta)["hooks"], vars(Meta)["post_hooks"])


class _Traits:
    """What the class of an object says of it. It is looked at once, and there may be thousands of objects."""

    def __init__(self, value: Any, mentioned: Set[str]) -> None:
        cls = type(value)
        self.has_parts = isinstance(value, _WITH_PARTS)
        """Whether it is no object like others: `Survey._look` knows what it is made of."""
        self.is_one_shot = world.is_one_shot(value)
        self.asks = isinstance(value, _BY_ITSELF) or world.may_ask(value, mentioned)
        """Whether it may ask something of the world; or another of its class may."""
        self.has_state = world.state_of(value) is not None
        self.logs = cls.__module__ == "logging"
        self.frozen = tuple(freeze for known, freeze in _FROZEN.items() if isinstance(value, known))
        self.is_users = _package(cls) not in KNOWN
        self.is_model = isinstance(value, Module) or any(str(holder.__module__).startswith(_TRAINING) for holder in cls.__mro__)
        self.takes_all = any(str(holder.__module__).startswith(_HOLDING) for holder in cls.__mro__)
        """Whether all its attributes count, not only those that the code mentions that is scanned."""
        self.slots = tuple(
            (attribute, descriptor) for holder in cls.__mro__ for attribute, descriptor in vars(holder).items()
            if isinstance(descriptor, MemberDescriptorType)
        )  # fmt: skip


class Survey:
    """One walk over everything that a function reaches.

    `names` grows by all names in the code that is found; objects are looked at by those known so far.
    """

    def __init__(self, names: set[str], exempt: set[tuple[int, str]], writes: bool = False) -> None:
        """`writes`: look at what code may write, too, not only at what it may read."""
        self._mentioned = names
        self._writes = writes
        self._exempt = exempt
        self.guards: list[Guard] = []
        self.names: list[Name] = []
        self.contents: list[tuple[Name, Any, Callable[[Any], Any], Any]] = []
        """State that only Python can compare: (name, owner, how to read it, what it was)."""
        self.tensors: set[int] = set()
        self.made: list[Tensor] = []
        """Those that a trace has made: they have no numbers."""
        self._passed_over: set[str] = {ANY_NAME} - names
        """Names under which there was something that no code had mentioned by then."""
        self.codes: list[CodeType] = []
        """The code of the functions that were found."""
        self.suspects: set[str] = set()
        """What was found that may ask something of the world, by its name."""
        self.asks: set[str] = set()
        """What was found that does, whoever calls it, and the iterators, which are used up by reading."""
        self.sources: list[tuple[Name, Callable[[], Any]]] = []
        """Random numbers and files that were found, and how to read their state."""
        self.compares = False
        """Whether code asks if two things are the same object."""
        self.unshared: set[int] = set()
        """The dicts of optimizers' states that only these have, by their ids."""
        self.remembers = False
        """Whether there is a function that is remembered by what it returned."""
        self._seen: dict[int, Any] = {}
        self._known_modules: set[ModuleType] = set()
        self._guarded: set[tuple[str, int, Any]] = set()
        self._traits: dict[type, _Traits] = {}
        self._waiting: list[tuple[Any, Name]] = []

    def visit(self, value: Any, name: Name) -> None:
        """Walk from a value."""
        self._waiting.append((value, name))
        while self._waiting:
            value, name = self._waiting.pop()
            if isinstance(value, Tensor):
                if id(value) not in self.tensors:
                    self.tensors.add(id(value))
                    if not is_array(value._data):
                        self.made.append(value)
                    self._tensor_hooks(value, name)
                    if value.__dict__.keys() - MARKS:
                        self._dict(value.__dict__, name, ".", lambda key: key not in MARKS)
            elif type(value) is dict and id(value) not in self._seen:  # there are many of them
                self._seen[id(value)] = value
                self._dict(value, name, "[", None)
            elif not isinstance(value, _LEAVES) and id(value) not in self._seen:
                self._seen[id(value)] = value
                traits = self._traits_of(value)
                self._look_at_world(value, name, traits)
                if traits.has_parts:
                    self._look(value, name)
                else:
                    self._container(value, name, traits)
                    self._object(value, name, traits)
            elif isinstance(value, BuiltinFunctionType):
                self._look_at_world(value, name, self._traits_of(value))
                if isinstance(value.__self__, (list, dict, set, deque)):  # it may change what it is a method of
                    self._later(value.__self__, (name, ".", "__self__"))

    def _traits_of(self, value: Any) -> _Traits:
        cls = type(value)
        is_itself = value.__class__ is cls  # not a stand-in for an object of another class, which the next may not be
        traits = self._traits.get(cls) if is_itself else None
        if traits is None:
            traits = _Traits(value, self._mentioned)
            self._pass_over({attribute for attribute, _ in traits.slots} | world.names_that_ask(cls))
            if is_itself:
                self._traits[cls] = traits
        return traits

    def settings(self) -> None:
        """Note what is no state of the user's code: the dtype that new tensors have, and the numerics."""
        self._guard("item", "the default dtype", vars(types), "_default", types.get_default_dtype())
        self._guard("item", "the numerics", vars(config), "numerics", config.numerics)

    def _look_at_world(self, value: Any, name: Name, traits: _Traits) -> None:
        """Note what is no state that could be compared."""
        if value is os.environ or value is os.getenv:
            self._later(os.environ._data, "os.environ")  # type: ignore[attr-defined]
        elif traits.is_one_shot:
            self.asks.add(f"{text(name)}, an iterator")
        elif traits.asks and world.may_ask(value, self._mentioned):
            self.suspects.add(text(name))
        elif isinstance(value, type):
            self._pass_over(world.names_that_ask(value))
        if traits.logs:
            self._logger(value, name)
        read = world.state_of(value) if traits.has_state else None
        if read is not None:
            self.sources.append((name, read))

    def _logger(self, logger: Any, name: Name) -> None:
        """The levels that say whether a logger writes anything."""
        while logger is not None:
            for attribute in ("level", "disabled", "propagate"):
                if attribute in vars(logger):
                    self._guard("item", (name, ".", attribute), vars(logger), attribute, vars(logger)[attribute])
            logger = getattr(logger, "parent", None)

    def _tensor_hooks(self, tensor: Tensor, name: Name) -> None:
        """The hooks of a leaf, which a backward pass within the function calls."""
        if tensor._meta is None or not tensor._meta.requires_grad:
            return
        for slot in HOOKS:
            hooks = slot_contents(tensor._meta, slot)
            self._guard("slot", (name, "the hooks of", None), tensor._meta, slot, hooks)
            if hooks is not None:
                self._later(hooks, (name, "the hooks of", None))

    def _later(self, value: Any, name: Name) -> None:
        if type(value) not in _PLAINEST and not isinstance(value, PLAIN):
            self._waiting.append((value, name))

    def _guard(self, kind: Any, name: Name, owner: Any, key: Any, expected: Any) -> None:
        identity = (kind, id(owner), key)
        if identity not in self._guarded:
            self._guarded.add(identity)
            self.guards.append(Guard(kind, owner, key, expected))
            self.names.append(name)

    @property
    def reached(self) -> dict[int, Any]:
        """All else that was found, by its id."""
        return self._seen

    @property
    def is_whole(self) -> bool:
        """Whether nothing was passed over that is mentioned by code that was found later."""
        return not self._passed_over & self._mentioned

    def _pass_over(self, names: Set[str]) -> None:
        self._passed_over |= names - self._mentioned

    @property
    def _dynamic(self) -> bool:
        return ANY_NAME in self._mentioned

    def _look(self, value: Any, name: Name) -> None:
        """Note what hangs on a value that has parts; that the value itself is the same, whoever holds it sees to."""
        if isinstance(value, FunctionType):
            self._function(value, name)
        elif isinstance(value, MethodWrapperType):
            self._later(value.__self__, (name, ".", "__self__"))
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
            self._mentioned.add(ANY_NAME)
        elif isinstance(value, (tuple, frozenset)):
            for k, item in enumerate(value):
                self._later(item, (name, "[", k))

    def _container(self, value: Any, name: Name, traits: _Traits) -> None:
        if issubclass(type(value), dict):  # not one that stands in for one
            self._dict(value, name, "[", None)
        elif issubclass(type(value), list):
            self._guard("list", (name, "[", None), value, None, tuple(list.__iter__(value)))
            for k, item in enumerate(list.__iter__(value)):
                self._later(item, (name, "[", k))
        for freeze in traits.frozen:
            self.contents.append((name, value, freeze, freeze(value)))
            if isinstance(value, (set, deque)):
                for item in list(value):
                    self._later(item, (name, "an item of", None))
            elif isinstance(value, MappingProxyType):
                for key, item in list(value.items()):
                    self._later(item, (name, "[", key))
            elif isinstance(value, weakref.ref):
                self._later(value(), name)

    def _dict(self, value: dict[Any, Any], name: Name, form: str, wanted: Callable[[Any], bool] | None) -> None:
        """`wanted` says which keys matter; None if all do."""
        pairs = []
        for key, item in list(dict.items(value)):
            if (wanted is not None and not wanted(key)) or (id(value), key) in self._exempt:
                pairs.append((key, ANYTHING))
                continue
            pairs.append((key, item))
            self._later(key, (name, "a key of", None))
            self._later(item, (name, form, key))
        self._guard("dict", (name, form, None), value, None, tuple(pairs))

    def _object(self, value: Any, name: Name, traits: _Traits) -> None:
        """The attributes of an object, and its class."""
        cls = type(value)
        attributes = getattr(value, "__dict__", None)
        wrapped = attributes.get("__wrapped__") if isinstance(attributes, dict) else None
        if wrapped is not None:  # a compiled function, a cache
            if isinstance(value, functools._lru_cache_wrapper):
                self.remembers = True
                self._cached(value, name)
            self._later(wrapped, name)
            return
        if isinstance(attributes, dict):
            if isinstance(value, Optimizer) and "state" in attributes and sys.getrefcount(attributes["state"]) == _BY_ONE:
                self.unshared.add(id(attributes["state"]))
            of_users = traits.is_users or (cls.__module__, cls.__qualname__) in _RECORDS
            wanted: Callable[[Any], bool] | None = self._mentioned.__contains__
            if traits.is_model:
                wanted = _is_read
            elif traits.takes_all or (self._dynamic and of_users):
                wanted = None
            else:
                self._pass_over(attributes.keys())
            self._guard("namespace", (name, ".", "__dict__"), value, None, attributes)
            self._dict(attributes, name, ".", wanted)
        for attribute, descriptor in traits.slots:
            if attribute in self._mentioned:
                content = slot_contents(value, descriptor)
                self._guard("slot", (name, ".", attribute), value, descriptor, content)
                self._later(content, (name, ".", attribute))
        if isinstance(attributes, dict) or traits.is_users:
            self._guard("type", (name, "the type of", None), value, None, cls)
            self._class(cls)

    def _cached(self, cache: functools._lru_cache_wrapper[Any], name: Name) -> None:
        """Look for tensors among what a function has been remembered to return. As long as it is remembered, no call returns
        anything else; more may be, but what is there has to stay. It is not for us to put back what has been forgotten."""
        for held in gc.get_referents(cache):
            kept = list(held.values()) if type(held) is dict else [held]
            if type(held) is dict and held is not vars(cache) and not self._writes:
                for key, result in held.items():
                    self._remembered(held, key, result, (name, "a remembered result of", None))
            self.made += [x for x in flatten(kept)[0] if isinstance(x, Tensor) and not is_array(x._data)]

    def _remembered(self, results: dict[Any, Any], key: Any, result: Any, name: Name) -> None:
        parts = key if type(key) is tuple else (key,)
        if all(getattr(type(part), "__hash__", None) is object.__hash__ or type(part) in PLAIN for part in parts):
            self._guard("item", name, results, key, result)
        else:  # to look for it runs code of the user's
            self.contents.append((name, results, lambda found: found.get(key, ABSENT), result))

    def _class(self, cls: type) -> None:
        """What a class has under the names that code mentions, and the methods that Python calls by itself."""
        if _package(cls) in KNOWN:
            return
        if type(cls) is not type:
            self._class(type(cls))
        own = [holder for holder in cls.__mro__ if _package(holder) not in KNOWN]
        # what a base from elsewhere reads or calls, as Module.__call__ does forward, no scanned code mentions
        all_names = self._dynamic or len(own) + 1 < len(cls.__mro__)
        found: dict[str, Any] = {}
        for holder in own:
            if not all_names:
                self._pass_over(vars(holder).keys())
            for attribute, value in list(vars(holder).items()):
                special = attribute.startswith("__") and attribute.endswith("__")
                if isinstance(value, FunctionType) if special else all_names or attribute in self._mentioned:
                    found.setdefault(attribute, class_attribute(cls, attribute))
        self._guard("class", (cls.__qualname__, ".", None), cls, None, tuple(found.items()))
        for attribute, value in found.items():
            self._later(value, (cls.__qualname__, ".", attribute))

    def _module(self, module: ModuleType, name: Name) -> None:
        namespace = vars(module)
        if module.__name__.partition(".")[0] in KNOWN:
            self._known_module(module, namespace, name)
            return
        self._pass_over(namespace.keys())
        for attribute in sorted(self._mentioned & namespace.keys()):
            self._guard("item", (name, ".", attribute), namespace, attribute, namespace[attribute])
            self._later(namespace[attribute], (name, ".", attribute))

    def _known_module(self, module: ModuleType, namespace: dict[str, Any], name: Name) -> None:
        """What code names of a module whose functions stay as they are: what they ask of the world, and variables."""
        top = module.__name__.partition(".")[0]
        if module in self._known_modules:
            return
        self._known_modules.add(module)
        if top == "graphc":
            self.suspects |= _GRAPHC_ASKS & self._mentioned
            self._pass_over(_GRAPHC_ASKS)
            return
        self._pass_over(namespace.keys())
        for attribute in sorted(self._mentioned & namespace.keys()):
            value = namespace[attribute]
            if isinstance(value, ModuleType):
                self._known_module(value, vars(value), (name, ".", attribute))
            elif isinstance(value, (FunctionType, BuiltinFunctionType, MethodType, type)):
                self._look_at_world(value, (name, ".", attribute), self._traits_of(value))
            elif top not in _CONSTANT and value is not sys.modules:
                self._guard("item", (name, ".", attribute), namespace, attribute, value)
                self._later(value, (name, ".", attribute))

    def _function(self, function: FunctionType, name: Name) -> None:
        # not __module__, which functools.wraps sets to that of the function within
        package = str(function.__globals__.get("__name__")).partition(".")[0]
        if package in KNOWN:
            self._later(function.__dict__.get("__wrapped__"), name)
            for cell in function.__closure__ or () if package != "graphc" else ():  # as of functools.singledispatch
                content = cell_contents(cell)
                if isinstance(content, (FunctionType, MethodType, dict)):
                    self._later(content, name)
            return
        parts = function_parts(function)
        self._guard("function", function.__qualname__, function, None, parts)
        for part in parts[1:]:
            self._later(part, (function.__name__, "a default of", None))
        self._guard("namespace", (function.__name__, ".", "__dict__"), function, None, function.__dict__)
        self._pass_over(function.__dict__.keys())
        self._dict(function.__dict__, function.__name__, ".", self._mentioned.__contains__)
        for cell_name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
            self._cell(cell, ("the closure variable", cell_name))
        reads = reads_of(function.__code__)
        self.codes.append(function.__code__)
        self.compares |= reads.compares
        self._mentioned |= reads.attributes
        written: tuple[str, ...] = ()
        if self._writes:
            self._mentioned |= reads.written_attributes
            written = reads.written_globals
        if reads.dynamic:
            self._mentioned.add(ANY_NAME)
        names = function.__globals__
        by_string = reads.attributes & names.keys() if "globals" in reads.globals else ()
        for first in (*reads.globals, *written, *sorted(by_string)):
            value = names.get(first, ABSENT)
            self._guard("item", ("the global", first), names, first, value)
            if value is ABSENT:
                value = getattr(builtins, first, ABSENT)
            if first in reads.values and isinstance(value, BuiltinFunctionType) and world.asks(*world.called(value)):
                self.asks.add(first)  # somebody else may call it
            if value is not ABSENT:
                self._later(value, ("the global", first))
        for imported in reads.imports:
            for module in imported_modules(imported, names):
                self._later(module, imported)
                if module.__name__.partition(".")[0] in KNOWN:
                    self._known_module(module, vars(module), imported)

    def _cell(self, cell: CellType, name: Name) -> None:
        content = cell_contents(cell)
        self._guard("cell", name, cell, None, content)
        if content is not ABSENT:
            self._later(content, name)


_holder: dict[str, dict[Any, Any]] = {"state": {}}
_BY_ONE = sys.getrefcount(_holder["state"])
"""References to what one dict has, when they are counted."""


def _is_read(attribute: Any) -> bool:
    """Whether an attribute of a module or an optimizer is one that computations may read."""
    return attribute not in _UNREAD


def is_known(cls: type) -> bool:
    """Whether a class is one of those that are taken to stay as they are."""
    return _package(cls) in KNOWN


def _package(cls: type) -> str:
    return (cls.__module__ or "").partition(".")[0] if isinstance(cls.__module__, str) else ""
