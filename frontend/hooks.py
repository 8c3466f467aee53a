"""Hooks: functions that users hang on tensors, graph nodes and modules, and the handles that take them off again."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

_ids = itertools.count()


class RemovableHandle:
    """Takes one hook off: call `remove()`, or use it as a `with` block."""

    def __init__(self, hooks: MutableMapping[int, Any], *more: MutableMapping[int, Any]) -> None:
        self.id = next(_ids)
        self._homes = tuple(weakref.ref(home) for home in (hooks, *more))

    def remove(self) -> None:
        """Take the hook off; a second time does nothing."""
        for reference in self._homes:
            home = reference()
            if home is not None:
                home.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()


class Hooks(dict[int, Callable[..., Any]]):
    """Hooks in the order in which they were added."""

    __slots__ = ("__weakref__",)

    def add(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Hang a hook on; the handle takes it off."""
        handle = RemovableHandle(self)
        self[handle.id] = hook
        return handle

    def __reduce__(self) -> Any:
        return Hooks, (dict(self),)
