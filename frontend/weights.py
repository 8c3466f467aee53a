"""Weights that a function is given again and again, and what its code computes of a weight alone, such as packing it: done
once for many calls, as long as nobody can have changed the weight (see `graphc.frontend.ownership`).

This is for functions that run eagerly; compiled ones know their weights (see `graphc.frontend.steady`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from graphc.backend import Executable
from graphc.config import config
from graphc.frontend.meta import Version
from graphc.frontend.native import array_function
from graphc.frontend.ownership import is_exclusive, state_of
from graphc.frontend.tensor import Tensor

LARGE = 1 << 13
"""Elements of a weight from which on it is worth a look at each call."""
_USEFUL = 4
"""Calls with a weight, unchanged and by the same code, before something is computed for more of them."""

State = tuple[Version, int, int]
Code = Callable[..., tuple[np.ndarray, ...]]


class Prepared(NamedTuple):
    """What was computed of a weight in a certain state."""

    user: object
    state: State
    run: Code
    """The user's code, for arrays as it was made for, the weight's among them."""


class _Weight:
    """One of the tensors that were given as a weight. It holds on to none of its memory."""

    __slots__ = ("calls", "patience", "prepared", "reference", "state", "user")

    def __init__(self, reference: weakref.ref[Tensor]) -> None:
        self.reference = reference
        self.prepared: Prepared | None = None
        self.user: object = None
        self.state: State | None = None
        self.calls = 0
        """How many there were in a row by the same user and in the same state."""
        self.patience = _USEFUL


class Weights:
    """The weights of one function. Threads may ask at once."""

    def __init__(self) -> None:
        self._known: dict[int, _Weight] = {}
        """By their ids. For each there is one thing prepared at a time, however many sizes its function is called with."""

    def prepared(
        self, user: object, tensors: Sequence[Tensor], weight: int, code: Callable[[], Executable | None]
    ) -> Code | None:
        """What computes a call of `user` on these tensors with what has been computed of the weight, the tensor of this number;
        None where nothing has, yet, or `code` finds that there is nothing to compute."""
        tensor = tensors[weight]
        known = self._known.get(id(tensor)) or self._meet(tensor)
        state, prepared = state_of(tensor), known.prepared
        if prepared is not None:
            if prepared.state != state:
                known.prepared = None
            elif prepared.user is user:
                return prepared.run
        if known.user is not user or known.state != state:
            known.user, known.state, known.calls = user, state, 0
        known.calls += 1
        if known.calls < known.patience or not config.prepare_weights:
            return None
        known.calls = 0
        if not is_exclusive(tensor):
            known.patience *= 2  # it may stay so
            return None
        known.prepared = None  # before there is a new one, so that both need not fit
        made = code()
        if made is None or made.preparation is None:
            return None
        run = array_function(made, made.preparation.prepare([t._data for t in tensors]))
        known.prepared = Prepared(user, state, run)
        return run

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    def _meet(self, tensor: Tensor) -> _Weight:
        known, place = self._known, id(tensor)
        weight = known[place] = _Weight(weakref.ref(tensor, lambda _: known.pop(place, None)))
        return weight
