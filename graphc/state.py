"""What a program keeps from one call to the next: a hidden vector, running statistics, parameters that are trained."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError, UnknownNameError
from graphc.types import TensorType, dtype_of


def _references(held: list[np.ndarray]) -> int:
    """How many references there are to the one array of a list, by Python's way of counting."""
    return sys.getrefcount(held[0])


_ALONE = _references([np.empty(0)])


class State(Mapping[str, np.ndarray]):
    """Arrays by name, which calls replace and never write to: what has been read stays as it was.

    >>> state = State({"h": np.zeros(2, np.float32)})
    >>> state["h"] = [1.0, 2.0]
    >>> state["h"]
    array([1., 2.], dtype=float32)
    >>> state.reset()
    >>> state["h"]
    array([0., 0.], dtype=float32)
    """

    def __init__(self, initial: Mapping[str, np.ndarray]) -> None:
        self._initial = dict(initial)
        self._current = dict(initial)
        self._spare: dict[str, np.ndarray] = {}
        """Arrays of former calls that nobody else has: the next call writes there, which is quicker than to new memory."""
        self._swap = threading.Lock()
        self.lock = threading.RLock()
        """Held by a call that changes the state, from reading it to replacing it."""

    def __getitem__(self, name: str) -> np.ndarray:
        """The array as it is now; it cannot be written to."""
        with self._swap:
            array = self._current[self._known(name)].view()
        array.setflags(write=False)
        return array

    def __setitem__(self, name: str, value: Any) -> None:
        """Replace an array by another, or by what NumPy makes one of; ShapeError or DTypeError where it does not fit."""
        old = self._current[self._known(name)]
        given = np.asarray(value)
        expected = str(TensorType(dtype_of(old.dtype), old.shape))
        if given.shape != old.shape:
            raise ShapeError(f"the state {name!r} has another shape", expected=expected, got=f"the shape {list(given.shape)}")
        is_python = not isinstance(value, (np.ndarray, np.generic))  # numbers of Python's have no dtype of their own
        if not (given.dtype == old.dtype or (is_python and np.can_cast(given.dtype, old.dtype, "same_kind"))):
            raise DTypeError(f"the state {name!r} has another dtype", expected=expected, got=given.dtype.name)
        self.replace({name: np.array(value, old.dtype, order="C")})

    def update(self, values: Mapping[str, Any]) -> None:
        """Replace several arrays."""
        for name, value in values.items():
            self[name] = value

    def reset(self) -> None:
        """Go back to what the program began with: what its file holds."""
        self.replace(self._initial)

    def replace(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over arrays of the right types, all or none of them."""
        with self.lock, self._swap:
            before, self._current = self._current, {**self._current, **arrays}
            for name in arrays:
                old = [before.pop(name)]
                if old[0].flags.owndata and old[0].flags.writeable and _references(old) == _ALONE:
                    self._spare[name] = old.pop()

    def spare(self, names: Mapping[str, int]) -> dict[int, np.ndarray]:
        """Arrays to write the next state to, as far as there are any, by the numbers that the names have."""
        with self.lock:
            return {number: self._spare.pop(name) for name, number in names.items() if name in self._spare}

    def _known(self, name: str) -> str:
        if name not in self._initial:
            names = ", ".join(self._initial) or "nothing: the program has no state"
            raise UnknownNameError(f"there is no state {name!r}", expected=f"one of {names}")
        return name

    def __iter__(self) -> Iterator[str]:
        return iter(self._initial)

    def __len__(self) -> int:
        return len(self._initial)

    def __repr__(self) -> str:
        described = (f"{name}: {TensorType(dtype_of(a.dtype), a.shape)}" for name, a in self._initial.items())
        return f"<state {{{', '.join(described)}}}>"
