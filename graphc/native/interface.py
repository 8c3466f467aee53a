"""What a back end is asked for when entries of a program become an object file, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphc.errors import Location
from graphc.ir import Graph

UNFIT_SIZES = -1
"""What a function returns for sizes that its code is not for."""
ALIGNMENT = 64
"""Of weights in a file, and in an object."""


@dataclass(frozen=True, eq=False)
class EntryRequest:
    """One entry: a function of this name.

    weights, state
        The names of the arrays that inputs are bound to, by the numbers of the inputs; state may change from call to call.
    updates
        The outputs that become the state of these names.
    steady
        Numbers of inputs, weights among them: what depends on these alone may be computed once.
    examples
        For symbolic sizes: those that there has to be code for; if there are none, the back end looks for some.
    """

    symbol: str
    graph: Graph
    weights: Mapping[int, str]
    state: Mapping[int, str]
    updates: Mapping[str, int]
    steady: tuple[int, ...]
    examples: tuple[Mapping[str, int], ...]

    @property
    def arguments(self) -> list[int]:
        """The inputs that a call gives."""
        return [i for i in range(len(self.graph.inputs)) if i not in self.weights and i not in self.state]

    @property
    def results(self) -> list[int]:
        """The outputs that a call gives back."""
        return [j for j in range(len(self.graph.outputs)) if j not in self.updates.values()]


@dataclass(frozen=True, eq=False)
class ObjectRequest:
    """An object file.

    arrays
        All weights, by name, and the state that programs begin with.
    offsets
        Where each of these is in the file that callers map; None if they are to be in the object.
    state
        Where each array of the state is in the memory that callers keep it in.
    threads
        Whether callers may give a function that runs loops on threads.
    """

    name: str
    entries: tuple[EntryRequest, ...]
    arrays: Mapping[str, np.ndarray]
    offsets: Mapping[str, int] | None
    state: Mapping[str, int]
    threads: bool


@dataclass(frozen=True)
class RunError:
    """What a function finds wrong while it runs; its code is its number, counted from 1."""

    problem: str
    expected: str
    at: Location | None


@dataclass(frozen=True)
class EntryCode:
    """What there is of an entry.

    `<symbol>(inputs..., outputs..., sizes..., [weights], [prepared], [state], workspace, [threads])` runs it, and
    `<symbol>_workspace(sizes...)` says how many bytes of workspace that takes. If `prepared`, as many bytes are to be filled by
    `<symbol>_prepare([weights], prepared, workspace, [threads])`, which takes `preparing` bytes of workspace.
    """

    symbol: str
    sizes: tuple[str, ...]
    workspace: int | None
    """None if it depends on sizes."""
    prepared: int
    preparing: int
    errors: tuple[RunError, ...]
    variants: tuple[str, ...]
    """For which sizes there is code, in words."""


@dataclass(frozen=True)
class ObjectCode:
    """An object file for a target, and its entries in the order in which they were asked for. `externals` are the functions
    that it needs from libraries. If there is state, `<name>_reset(state, [weights])` fills it with what it begins with."""

    data: bytes
    triple: str
    cpu: str
    pointer_bytes: int
    entries: tuple[EntryCode, ...]
    externals: tuple[str, ...]
