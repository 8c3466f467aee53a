"""The lists, dicts and other containers among the arguments of a recorded call. The function is given copies that hold what
stands for tensors; what it does to a copy is done to the caller's container when the call is over."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from graphc.frontend.device_arrays import is_array
from graphc.frontend.effects import Effect
from graphc.frontend.pytree import flatten
from graphc.frontend.tensor import Tensor
from graphc.ir import Builder

_Items: TypeAlias = list[tuple[Any, Any]]
"""What a container holds: ((whether it is an attribute, key), value)."""


class _Callers:
    """In a result, the place of a container that the caller has passed."""

    def __init__(self, container: Any) -> None:
        self.container = container


class ArgumentContainers:
    """The containers of one call, and the copies that the function has of them."""

    def __init__(self, arguments: Any, copies: Any, leaves: Sequence[Any], inside: Sequence[Any]) -> None:
        """`arguments` and `copies` are nested alike; `leaves` are those of the arguments, `inside` those of the copies."""
        self._pairs: list[tuple[Any, Any, _Items]] = []
        """The caller's container, the copy, and what that held."""
        self._pair(arguments, copies)
        self._originals = {id(stand_in): leaf for leaf, stand_in in zip(leaves, inside)}
        self._originals |= {id(own): container for container, own, _ in self._pairs}

    def _pair(self, container: Any, own: Any) -> None:
        if _is_mutable(container):
            self._pairs.append((container, own, _items(own)))
        if _is_mutable(container) or isinstance(own, tuple):
            for (_, item), (_, copied) in zip(_items(container), _items(own)):
                if item is not copied:
                    self._pair(item, copied)

    def _changed(self) -> list[tuple[Any, Any]]:
        return [(container, own) for container, own, before in self._pairs if not _alike(before, _items(own))]

    def effects(self) -> list[Effect]:
        """What the function has done to them."""
        return [Effect(f"changes a {type(container).__name__} among its arguments", None, True)
                for container, _ in self._changed()[:1]]  # fmt: skip

    def left(self, builder: Builder) -> list[Tensor]:
        """The tensors of a trace that it has put into them."""
        found = [item for _, own in self._changed() for item in flatten(own)[0] if isinstance(item, Tensor)]
        return [tensor for tensor in found if not is_array(tensor._data) and tensor._data.builder is builder
                and id(tensor) not in self._originals]  # fmt: skip

    def marked(self, result: Any) -> Any:
        """The function's result; if it has changed containers, with marks in the places of those that the caller has passed."""
        if not self._changed():
            return result
        callers = {id(own): container for container, own, _ in self._pairs}
        return _replaced(result, lambda part: _Callers(callers[id(part)]) if id(part) in callers else part)

    def finish(self, result: Any) -> Any:
        """Do to the caller's containers what was done to their copies. The result, with them in their places."""
        changed = self._changed()
        for container, own in changed:
            _fill(container, [(key, self._originals.get(id(item), item)) for key, item in _items(own)])
        return _replaced(result, lambda part: part.container if isinstance(part, _Callers) else part) if changed else result


def _is_mutable(tree: Any) -> bool:
    return isinstance(tree, (list, dict)) or (dataclasses.is_dataclass(tree) and not isinstance(tree, type))


def _items(tree: Any) -> _Items:
    items: _Items = []
    if isinstance(tree, dict):
        items = [((False, key), item) for key, item in tree.items()]
    elif isinstance(tree, (list, tuple)):
        items = [((False, k), item) for k, item in enumerate(tree)]
    elif dataclasses.is_dataclass(tree) and not hasattr(tree, "__dict__"):
        return [((True, f.name), getattr(tree, f.name)) for f in dataclasses.fields(tree) if hasattr(tree, f.name)]
    return items + [((True, name), item) for name, item in getattr(tree, "__dict__", {}).items()]


def _alike(before: _Items, now: _Items) -> bool:
    return len(before) == len(now) and all(k == key and x is item for (k, x), (key, item) in zip(before, now))


def _fill(container: Any, items: _Items) -> None:
    """Let a container hold these."""
    own = [(key, item) for (is_attribute, key), item in items if not is_attribute]
    if isinstance(container, OrderedDict):
        OrderedDict.clear(container)
        OrderedDict.update(container, own)
    elif isinstance(container, dict):
        dict.clear(container)
        dict.update(container, own)
    elif isinstance(container, list):
        list.__setitem__(container, slice(None), [item for _, item in own])
    attributes = {key: item for (is_attribute, key), item in items if is_attribute}
    for name in getattr(container, "__dict__", {}).keys() - attributes.keys():
        object.__delattr__(container, name)
    for name, item in attributes.items():
        object.__setattr__(container, name, item)


def _replaced(tree: Any, change: Callable[[Any], Any]) -> Any:
    """A tree whose parts are changed, from the outside to the inside; the same object where none are."""
    new = change(tree)
    if new is not tree or not (_is_mutable(tree) or isinstance(tree, tuple)):
        return new
    items = _items(tree)
    changed = [(key, _replaced(item, change)) for key, item in items]
    if all(item is before for (_, item), (_, before) in zip(changed, items)):
        return tree
    if isinstance(tree, tuple):
        parts = [item for (is_attribute, _), item in changed if not is_attribute]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    made = copy.copy(tree)
    _fill(made, changed)
    return made
