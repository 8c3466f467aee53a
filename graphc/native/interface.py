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
    """One entry: a function of this name, whose weights, by the numbers of the inputs that they are, have these names. For
    symbolic sizes, `examples` are those that there has to be code for; if there are none, the back end looks for some."""

    symbol: str
    graph: Graph
    weights: Mapping[int, str]
    examples: tuple[Mapping[str, int], ...] = ()


@dataclass(frozen=True, eq=False)
class ObjectRequest:
    """An object file.

    arrays
        All weights, by name.
    offsets
        Where each weight is in the file that callers map; None if weights are to be in the object.
    prepare
        Whether what depends on weights alone is computed by a function of its own, once.
    threads
        Whether callers may give a function that runs loops on threads.
    """

    name: str
    entries: tuple[EntryRequest, ...]
    arrays: Mapping[str, np.ndarray]
    offsets: Mapping[str, int] | None
    prepare: bool
    threads: bool


@dataclass(frozen=True)
class RunError:
    """What a function finds wrong while it runs; its code is its number, counted from 1."""

    problem: str
    expected: str
    at: Location | None


@dataclass(frozen=True)
class EntryCode:
    """What there is of an entry. `<symbol>(inputs..., outputs..., sizes..., [weights], [prepared], workspace, [threads])` runs
    it, `<symbol>_workspace(sizes...)` says how many bytes of workspace it takes, and if `prepared`, as many bytes are to be
    filled by `<symbol>_prepare([weights], prepared, workspace, [threads])`, which takes `preparing` bytes of workspace."""

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
    that it needs from libraries."""

    data: bytes
    triple: str
    cpu: str
    pointer_bytes: int
    entries: tuple[EntryCode, ...]
    externals: tuple[str, ...]
