"""Nested containers as a flat list of leaves, and back: tuples, lists, dicts, named tuples and dataclasses."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Structure:
    """How leaves are nested. Hashable; equal for equal nestings.

    kind
        "leaf", "tuple", "list", "sequence" (of a class derived from list), "dict", "defaultdict", "namedtuple" or
        "dataclass"; `keys` are a dict's keys or the fields' names. `type` is the class of a container that is not Python's
        own, and the factory of a defaultdict.
    attributes
        The names of what an object of such a class has besides: the last children.
    """

    kind: str
    children: tuple[Structure, ...] = ()
    keys: tuple[Any, ...] = ()
    type: Any = None
    attributes: tuple[str, ...] = ()
    key_types: tuple[Any, ...] = ()
    """The types of keys that are no strings: 1 == True."""

    @property
    def leaves(self) -> int:
        """How many leaves there are."""
        return 1 if self.kind == "leaf" else sum(child.leaves for child in self.children)


LEAF = Structure("leaf")


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves of a tree from left to right, and its structure."""
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list[Any]) -> Structure:
    kind = type(tree)
    if kind is tuple or kind is list:
        return Structure(kind.__name__, tuple(_flatten(x, leaves) for x in tree))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return Structure("namedtuple", tuple(_flatten(x, leaves) for x in tree), tuple(tree._fields), kind)
    if kind is defaultdict:
        return Structure(
            "defaultdict", tuple(_flatten(x, leaves) for x in tree.values()), tuple(tree), tree.default_factory,
            key_types=_key_types(tree),
        )  # fmt: skip
    if isinstance(tree, dict):
        children, names = [_flatten(x, leaves) for x in tree.values()], _attributes(tree, ())
        children += [_flatten(vars(tree)[name], leaves) for name in names]
        return Structure("dict", tuple(children), tuple(tree), kind, names, _key_types(tree))
    if isinstance(tree, list):
        children, names = [_flatten(x, leaves) for x in tree], _attributes(tree, ())
        children += [_flatten(vars(tree)[name], leaves) for name in names]
        return Structure("sequence", tuple(children), (), kind, names)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = tuple(f.name for f in dataclasses.fields(tree) if hasattr(tree, f.name))
        names = _attributes(tree, fields)
        return Structure("dataclass", tuple(_flatten(getattr(tree, n), leaves) for n in (*fields, *names)), fields, kind, names)
    leaves.append(tree)
    return LEAF


def _attributes(tree: Any, fields: Sequence[str]) -> tuple[str, ...]:
    """What an object has besides its items or fields."""
    found = getattr(tree, "__dict__", None)
    return tuple(name for name in found if name not in fields) if found else ()


def _key_types(tree: dict[Any, Any]) -> tuple[Any, ...]:
    types = tuple(map(type, tree))
    return () if all(t is str for t in types) else types


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """The tree of a structure with these leaves."""
    source = iter(leaves)
    return _unflatten(structure, source)


def _unflatten(structure: Structure, source: Any) -> Any:
    if structure.kind == "leaf":
        return next(source)
    children = [_unflatten(child, source) for child in structure.children]
    match structure.kind:
        case "tuple":
            return tuple(children)
        case "list":
            return children
        case "dict":
            # without __init__, which may want other arguments, or count them as Counter's does
            made = structure.type.__new__(structure.type)
            put = OrderedDict.__setitem__ if isinstance(made, OrderedDict) else dict.__setitem__
            for key, child in zip(structure.keys, children):
                put(made, key, child)
            return _with_attributes(made, structure, children)
        case "sequence":
            made = structure.type.__new__(structure.type)
            list.extend(made, children[: len(children) - len(structure.attributes)])
            return _with_attributes(made, structure, children)
        case "defaultdict":
            return defaultdict(structure.type, zip(structure.keys, children))
        case "namedtuple":
            return structure.type(*children)
    # without __init__, which might want other arguments than the fields
    made = object.__new__(structure.type)
    for name, child in zip((*structure.keys, *structure.attributes), children):
        object.__setattr__(made, name, child)
    return made


def _with_attributes(made: Any, structure: Structure, children: Sequence[Any]) -> Any:
    for name, child in zip(structure.attributes, children[len(children) - len(structure.attributes) :]):
        vars(made)[name] = child
    return made
