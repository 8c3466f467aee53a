"""Hooks: functions that users hang on tensors, graph nodes and modules, and the handles that take them off again."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

from graphc.frontend.settings_text import PrintsSettings

_ids = itertools.count()


class RemovableHandle(PrintsSettings):
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

    def add(self, hook: Any, prepend: bool = False) -> RemovableHandle:
        """Hang a hook on, after the others or before them; the handle takes it off."""
        handle = RemovableHandle(self)
        others = dict(self) if prepend else {}
        if prepend:
            self.clear()
        self[handle.id] = hook
        self.update(others)
        return handle

    def __reduce__(self) -> Any:
        return Hooks, (dict(self),)


class _SavedHooks(threading.local):
    def __init__(self) -> None:
        self.stack: tuple[tuple[Callable[[Any], Any], Callable[[Any], Any]], ...] = ()
        self.refused: str | None = None


saved_hooks = _SavedHooks()
"""The calling thread's hooks on tensors that the tape saves: pairs (pack, unpack), the innermost last. `refused` is what to
say where hooks are not allowed."""
