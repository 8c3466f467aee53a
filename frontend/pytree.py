"""Nested containers as a flat list of leaves, and back: tuples, lists, dicts, named tuples and dataclasses."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Structure:
    """How leaves are nested. Hashable; equal for equal nestings.

    kind
        "leaf", "tuple", "list", "dict", "defaultdict", "namedtuple" or "dataclass"; `keys` are a dict's keys or the fields'
        names. `type` is the class of a dict, named tuple or dataclass, and the factory of a defaultdict.
    """

    kind: str
    children: tuple[Structure, ...] = ()
    keys: tuple[Any, ...] = ()
    type: Any = None

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
            "defaultdict", tuple(_flatten(x, leaves) for x in tree.values()), tuple(tree), tree.default_factory
        )
    if isinstance(tree, dict):
        return Structure("dict", tuple(_flatten(x, leaves) for x in tree.values()), tuple(tree), kind)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = tuple(f.name for f in dataclasses.fields(tree))
        return Structure("dataclass", tuple(_flatten(getattr(tree, n), leaves) for n in names), names, kind)
    leaves.append(tree)
    return LEAF


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
            for key, child in zip(structure.keys, children):
                made[key] = child
            return made
        case "defaultdict":
            return defaultdict(structure.type, zip(structure.keys, children))
        case "namedtuple":
            return structure.type(*children)
    # without __init__, which might want other arguments than the fields
    made = object.__new__(structure.type)
    for name, child in zip(structure.keys, children):
        object.__setattr__(made, name, child)
    return made
