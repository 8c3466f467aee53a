"""What a traced function read of Python's state, and whether it is still so.

Plain values are compared, tensors and functions must be the same objects, containers are compared item by item, and
objects by the attributes that some scanned code names (see graphc.frontend.survey).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, compress, repeat
from operator import attrgetter, is_
from typing import Any

import numpy as np

from graphc.frontend.code_reads import ANY_NAME
from graphc.frontend.guard_text import Name, last, member, short, text
from graphc.frontend.nn.module import Module
from graphc.frontend.survey import HOOKS, PLAIN, Survey, cell_contents, class_attribute, function_parts, slot_contents
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracer import BegunState
from graphc.specs import ABSENT, ANYTHING, Guard

_MOST_LINES = 40
"""Guards that are put into words."""


@dataclass(frozen=True)
class Difference:
    """A piece of state that is not as it was."""

    text: str
    key: Any
    """The attribute or variable that holds it, or the last one on the way to it."""


class Snapshot:
    """The state that a function depends on, as it was. `changed()` says what is different now, None if nothing is."""

    def __init__(
        self, function: Any, arguments: Sequence[Any] = (), exempt: set[tuple[int, str]] | None = None,
        writes: bool = False,
    ) -> None:
        """`arguments` are what the function is called with besides tensors; `exempt` are (id of a dict, key) of what is read
        anew at each call; with `writes`, what code writes without reading it belongs to the state."""
        names: set[str] = set()
        while True:
            # code that is found late may name attributes of objects that were seen early
            survey = Survey(names, exempt or set(), writes)
            survey.settings()
            survey.visit(function, "the module" if isinstance(function, Module) else "the function")
            for number, argument in enumerate(arguments):
                survey.visit(argument, f"argument {number}")
            if survey.is_whole:
                break
        self.guards = survey.guards
        self._names = survey.names
        self._mentioned = names
        self._unshared = survey.unshared
        self._contents = survey.contents
        self.tensors = survey.tensors
        """The ids of the tensors that were found."""
        self.made = survey.made
        """Those that a trace has made, which have no numbers."""
        self.remembers = survey.remembers
        """Whether results of functions are kept that are called no more, by functools.cache."""
        self.reached = survey.reached
        """All else that was found, by its id."""
        self.codes = survey.codes
        """The code of the functions that were found."""
        self.compares = survey.compares
        """Whether it asks if two things are the same object."""
        self.suspects = survey.suspects
        """What was found that may ask something of the world, by its name."""
        self.asks = survey.asks
        """What was found that does, each time that it is used."""
        self.sources = survey.sources
        """Random numbers and files, and how to read their state."""
        self.renewed = 0
        """How often a value was found to be another object of the same value, and that object put into its guard."""
        self._begun: list[tuple[Guard, Any]] = []
        """What guards expected before `begin_with`."""
        self._fast: _Fast | None = None

    @property
    def native(self) -> bool:
        """Whether the guards say it all."""
        return not self._contents

    def mentions(self, names: Collection[str]) -> bool:
        """Whether code that was found reads or writes an attribute of such a name, or may do so."""
        return not self._mentioned.isdisjoint((*names, ANY_NAME))

    def begin_with(self, begun: Iterable[BegunState]) -> None:
        """Take the state that optimizers have made since as if it had been there, where nobody else has that."""
        new: dict[int, dict[Tensor, dict[str, Any]]] = {}
        for one in begun:
            new.setdefault(id(one.states), {})[one.parameter] = one.state
        for guard in self.guards:
            if guard.kind == "dict" and id(guard.owner) in self._unshared and id(guard.owner) in new:
                self._begun.append((guard, guard.expected))
                guard.expected += tuple(new[id(guard.owner)].items())
        self._fast = None

    def restore(self) -> None:
        """Have the state be again as it was, as far as the guards say it."""
        for guard, expected in self._begun:
            guard.expected = expected
        for guard in self.guards:
            owner, key, before = guard.owner, guard.key, guard.expected
            now = _read(guard)
            if _identical(now, before):
                continue
            if guard.kind == "cell":
                if before is ABSENT:
                    del owner.cell_contents
                else:
                    owner.cell_contents = before
            elif guard.kind == "item":
                if before is ABSENT:
                    del owner[key]
                else:
                    owner[key] = before
            elif guard.kind == "dict":
                contents = {k: dict.get(owner, k) if value is ANYTHING else value for k, value in before}
                dict.clear(owner)
                dict.update(owner, contents)
            elif guard.kind == "list":
                list.__setitem__(owner, slice(None), list(before))
            elif guard.kind == "slot":
                if before is ABSENT:
                    key.__delete__(owner)
                else:
                    key.__set__(owner, before)
            elif guard.kind == "class":
                for name, value in before:
                    _restore_attribute(owner, name, value)

    def substitute(self, change: Callable[[Any], Any]) -> None:
        """Put `change(value)` in the place of each value of the state that it makes another one of."""
        for guard in self.guards:
            owner, key, found = guard.owner, guard.key, guard.expected
            if guard.kind in ("cell", "item", "slot"):
                pairs = [(key, found)]
            elif guard.kind == "list":
                pairs = list(enumerate(found))
            else:
                pairs = list(found) if guard.kind in ("dict", "class") else []
            for place, value in pairs:
                if (new := change(value)) is value:
                    continue
                if guard.kind == "cell":
                    owner.cell_contents = new
                elif guard.kind in ("slot", "class"):
                    setattr(owner, place.__name__ if guard.kind == "slot" else place, new)
                else:
                    owner[place] = new

    def changed(self) -> str | None:
        """What is not as it was, in a few words."""
        difference = self.difference()
        return None if difference is None else difference.text

    def lines(self) -> list[str]:
        """The guards in words: plain values one by one, objects that must be the same by their number."""
        found: list[str] = []
        same = 0
        for guard, name in zip(self.guards, self._names, strict=True):
            pairs: Any = [(name, guard.expected)] if guard.kind in ("cell", "item", "slot") else []
            if guard.kind in ("dict", "class"):
                pairs = [((*name[:2], key), value) for key, value in guard.expected]
            elif guard.kind == "list":
                pairs = [((*name[:2], k), value) for k, value in enumerate(guard.expected)]
            for member_name, value in pairs:
                if isinstance(value, PLAIN):
                    found.append(f"  where {text(member_name)} is {short(value)}")
                elif value is not ANYTHING and value is not ABSENT:
                    same += 1
        if len(found) > _MOST_LINES:
            found[_MOST_LINES:] = [f"  and {len(found) - _MOST_LINES} more values are as they were"]
        return [*found, f"  where all functions, tensors and other objects are the same ones ({same})"]

    def difference(self) -> Difference | None:
        """What is not as it was."""
        if self._fast is None:
            self._fast = _Fast(self.guards)
        if not self._fast.unchanged():
            for guard, name in zip(self.guards, self._names, strict=True):
                difference = self._difference(guard, name)
                if difference is not None:
                    return difference
        for name, owner, read, expected in self._contents:
            if not _same(expected, read(owner)):
                return Difference(f"the contents of {text(name)} have changed", last(name))
        return None

    def _difference(self, guard: Guard, name: Name) -> Difference | None:
        """What one guard finds. Where an object has made way for one of the same value, it is the new one from now on."""
        now = _read(guard)
        if now is guard.expected:
            return None
        if guard.kind in ("dict", "class", "list"):
            before = guard.expected
            if guard.kind == "list":
                now, before = tuple(enumerate(now)), tuple(enumerate(before))
            if len(now) != len(before) or not all(_same(k, other) for (k, _), (other, _) in zip(now, before)):
                if guard.kind != "dict" or last(name) is not None or name[1] != ".":
                    return Difference(f"the items of {text(name)} have changed", last(name[0]))
                return _attributes_differ(now, before, name)
            for (key, value), (_, expected) in zip(now, before):
                if not _same(expected, value):
                    return Difference(f"{member(name, key)} was {short(expected)}, is {short(value)}",
                                      last(name[0]) if guard.kind == "list" else key)
            now = _read(guard)
        elif guard.kind == "function":
            for what, value, expected in zip(("code", "defaults", "keyword defaults"), now, guard.expected):
                if not _same(expected, value):
                    return Difference(f"the {what} of {text(name)} have changed", None)
        elif now is ABSENT:
            return Difference(f"{text(name)} is gone", last(name))
        elif guard.expected is ABSENT:
            return Difference(f"{text(name)} is new", last(name))
        elif not _same(guard.expected, now):
            return Difference(f"{text(name)} was {short(guard.expected)}, is {short(now)}", last(name))
        if not _identical(guard.expected, now):
            guard.expected = now
            self.renewed += 1
            self._fast = None
        return None


def _attributes_differ(now: Any, before: Any, name: Name) -> Difference:
    """Which attribute of an object is new or gone; or that their order is another."""
    names, known = [key for key, _ in now], [key for key, _ in before]
    for key in names:
        if key not in known:
            return Difference(f"{member(name, key)} is new", key)
    for key in known:
        if key not in names:
            return Difference(f"{member(name, key)} is gone", key)
    return Difference(f"the order of the attributes of {text(name)} has changed", None)


def _restore_attribute(cls: type, name: str, value: Any) -> None:
    """Have a class, or the base that has it, have an attribute as it was."""
    if class_attribute(cls, name) is value:
        return
    holder = next((holder for holder in cls.__mro__ if name in vars(holder)), cls)
    if name in vars(holder):
        delattr(holder, name)
    if class_attribute(cls, name) is not value and value is not ABSENT:  # a base need not have had it
        setattr(holder, name, value)


def _read(guard: Guard) -> Any:
    """What a guard's `expected` would be now."""
    owner, key = guard.owner, guard.key
    match guard.kind:
        case "cell":
            return cell_contents(owner)
        case "item":
            return dict.get(owner, key, ABSENT)
        case "dict":
            anything = {id(k) for k, value in guard.expected if value is ANYTHING}
            return tuple((k, ANYTHING if id(k) in anything else value) for k, value in dict.items(owner))
        case "list":
            return tuple(list.__iter__(owner))
        case "slot":
            return slot_contents(owner, key)
        case "function":
            return function_parts(owner)
        case "type":
            return type(owner)
        case "class":
            return tuple((name, class_attribute(owner, name)) for name, _ in guard.expected)
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
        hooked = [g for g in owners("slot") if g.key in HOOKS]  # two for each tensor, one after the other
        self.hooked = ([g.owner for g in hooked[::2]], [g.expected for g in hooked])
        self.others = [g for g in owners("slot", "class") if g.key not in HOOKS]

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
                and all(map(is_, map(cell_contents, self.cells[0]), self.cells[1]))
                and all(map(is_, map(type, self.typed[0]), self.typed[1]))
                and all(map(is_, map(_namespace, self.named[0]), self.named[1]))
                and all(map(is_, chain.from_iterable(map(function_parts, self.functions[0])), self.functions[1]))
                and all(map(is_, chain.from_iterable(map(_hooks, self.hooked[0])), self.hooked[1]))
                and all(_identical(_read(guard), guard.expected) for guard in self.others)
            )
        except RuntimeError:  # another thread changed a dict at this moment
            return False


_namespace = attrgetter("__dict__")
_hooks = attrgetter("hooks", "post_hooks")


def _same(expected: Any, now: Any) -> bool:
    """Whether two values make no difference to code: the same object, or equal plain values of one type."""
    if expected is now:
        return True
    if type(expected) is not type(now):
        return False
    own = isinstance(expected, (int, float, complex, str, bytes)) and not isinstance(expected, np.generic)
    if own and type(expected) not in PLAIN:
        return False  # of a class of the user's, which may have an == of its own, and attributes
    if isinstance(expected, float):  # 0.0 is not -0.0, and nan is nan
        return (math.isnan(expected) and math.isnan(now)) or (
            expected == now and math.copysign(1, expected) == math.copysign(1, now)
        )
    if isinstance(expected, tuple):
        return len(expected) == len(now) and all(map(_same, expected, now))
    return isinstance(expected, (*PLAIN, frozenset)) and bool(expected == now)
