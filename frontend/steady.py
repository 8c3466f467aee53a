"""Tensors that a graph finds by itself and does not change, such as weights, and what is computed of them once for many calls.

What has been computed stands for the tensors as they were; `graphc.frontend.ownership` tells whether they are still the same.
While others may change a tensor unnoticed, it is computed anew at each call.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.backend import Executable
from graphc.config import config
from graphc.frontend.capture import Capture
from graphc.frontend.meta import Meta, Version
from graphc.frontend.ownership import is_exclusive, is_owned, state_of
from graphc.frontend.tensor import Tensor
from graphc.frontend.trace_inputs import Captured
from graphc.specs import Guard

_USEFUL = 4
"""Calls that make up for computing it."""
_STRIKES = 3
"""After so many times that it was of no use because of a tensor, it is no longer computed of that one."""
_YOUNG = 1
"""The objects of a trace are in this generation of Python's at most."""
_FEW = 100
"""Below this part of the tensors' bytes, it is not worth going through all objects for those that are shared."""

_META, _VERSION, _COUNT, _LENT = (
    vars(cls)[name] for cls, name in ((Tensor, "_meta"), (Meta, "version"), (Version, "count"), (Version, "lent"))
)


@dataclass(eq=False)
class Prepared:
    """What has been computed of some tensors in a certain state."""

    memory: np.ndarray
    states: Mapping[int, tuple[Version, int, int]]
    """By the numbers of the inputs: the counter, and what it said."""
    calls: int
    """How many there had been before."""


@dataclass(eq=False)
class SteadyInputs:
    """Of one graph, for all sizes of its arguments. Threads may ask at once."""

    tensors: dict[int, Tensor]
    """By the numbers of the inputs."""
    calls: int = 0
    """How many there were so far, by way of Python or natively."""
    _strikes: dict[int, int] = field(default_factory=dict)
    _known: dict[object, Prepared] = field(default_factory=dict)
    """By the key of the preparation."""
    _has_collected: bool = False
    _lock: Any = field(default_factory=threading.RLock)

    @staticmethod
    def of(capture: Capture) -> SteadyInputs:
        """The tensors that a capture's graph finds by itself and is unlikely to see changed: none that it changes itself,
        nor those that it computes gradients for, nor any in whose memory others lie."""
        written = {i for _, i in capture.updates}
        found = {
            i: lifted.source.tensor for i, lifted in enumerate(capture.inputs)
            if isinstance(lifted.source, Captured) and i not in written and not lifted.is_viewed
        }  # fmt: skip
        trains = capture.differentiable is not None or bool(capture.grads) or any(capture.needs_grad[i] for i in written)
        return SteadyInputs({
            i: tensor for i, tensor in found.items() if not (trains and capture.needs_grad[i]) and is_owned(tensor)
        } if config.prepare_weights else {})  # fmt: skip

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the inputs."""
        return tuple(sorted(self.tensors))

    def settle(self) -> None:
        """Leave out, before there is code, the tensors whose memory others have, such as those that are views of them."""
        with self._lock:
            for i in self._shared(self.numbers):
                del self.tensors[i]

    def prepared(self, code: Executable) -> Prepared | None:
        """What the code can be run with now, computed if it is not there; None where others may change some tensor unnoticed.
        What is in `tensors` may be less afterwards: then there should be new code."""
        preparation = code.preparation
        if preparation is None:
            return None
        with self._lock:
            if not self.tensors.keys() >= set(preparation.inputs):
                return None
            before = self._known.get(preparation.key)
            changed = list(preparation.inputs) if before is None else self._changed(before)
            if before is not None and not changed:
                return before
            if before is not None and self.calls - before.calls < _USEFUL:
                self._strike(changed)
                if not self.tensors.keys() >= set(preparation.inputs):
                    return None
            self._known.clear()  # before there is a new one, so that both need not fit
            states = {i: state_of(self.tensors[i]) for i in preparation.inputs}  # first: what comes in between shows
            shared = self._shared(preparation.inputs)
            if shared:
                self._strike(shared)
                return None
            memory = preparation.prepare(self._arrays(code))
            made = self._known[preparation.key] = Prepared(memory, states, self.calls)
            return made

    def guards(self, prepared: Prepared) -> list[Guard]:
        """What has to be so for what is prepared to be of use."""
        guards: list[Guard] = []
        for i, (version, count, lent) in prepared.states.items():
            tensor = self.tensors[i]
            guards += [
                Guard("slot", tensor, _META, tensor._meta), Guard("slot", tensor._meta, _VERSION, version),
                Guard("slot", version, _COUNT, count), Guard("slot", version, _LENT, lent),
            ]  # fmt: skip
        return guards

    def _shared(self, inputs: Sequence[int]) -> list[int]:
        shared = [i for i in inputs if not is_exclusive(self.tensors[i])]
        if shared and not self._has_collected:
            self._has_collected = True
            gc.collect(_YOUNG)  # it may be what the tracing has left
            shared = [i for i in inputs if not is_exclusive(self.tensors[i])]
            sizes = {i: self.tensors[i]._data.nbytes for i in inputs}
            if _FEW * sum(sizes[i] for i in shared) > sum(sizes.values()):
                gc.collect()
                shared = [i for i in inputs if not is_exclusive(self.tensors[i])]
        return shared

    def _changed(self, prepared: Prepared) -> list[int]:
        return [i for i, state in prepared.states.items() if state_of(self.tensors[i]) != state]

    def _strike(self, inputs: Sequence[int]) -> None:
        for i in inputs:
            self._strikes[i] = self._strikes.get(i, 0) + 1
            if self._strikes[i] >= _STRIKES:
                self.tensors.pop(i, None)

    def _arrays(self, code: Executable) -> list[np.ndarray]:
        nothing = np.empty(0)
        return [self.tensors[i]._data if i in self.tensors else nothing for i in range(len(code.inputs))]
