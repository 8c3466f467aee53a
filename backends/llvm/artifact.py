"""What is left of a program once its kernels are object code: all that it takes to load and to run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graphc.backends.llvm.jit import UnitKeys
from graphc.dims import Dim
from graphc.errors import Location
from graphc.sizes import estimate
from graphc.types import Size

if TYPE_CHECKING:
    from graphc.kernel import Call

ENTRY = "run"
"""The name of the function in the object code."""
PRECOMPUTE = "precompute"
"""The name of the one that fills prepared buffers."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a check of the program says where it fails."""

    problem: str
    expected: str
    at: Location | None


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """A compiled program without its kernels."""

    name: str
    units: UnitKeys
    """Its object code."""
    arena: int
    """How many bytes it works in; 0 where that depends on symbols."""
    symbols: tuple[str, ...] | None
    """Those that sizes are made of, in the order of the table of sizes; None where all sizes are numbers."""
    facts: Mapping[Dim, bool]
    """What is taken for granted of the symbols: whether sizes are >= 0."""
    words: int
    """How many words the table of sizes has."""
    prepared: int
    """How many bytes what is computed once takes."""
    prepared_from: tuple[int, ...]
    """The numbers of the inputs that this depends on."""
    constants: tuple[np.ndarray, ...]
    calls: tuple[Call, ...]
    """What is left to Python."""
    failures: tuple[Failure, ...]
    """By the number of the check that fails, counted from 0."""
    cost: tuple[tuple[Size, float], ...]
    """Sizes, and how many nanoseconds one thread takes for each unit of these, roughly."""

    def nanoseconds(self) -> float:
        """How long one thread takes for a run, roughly; of symbols, those of the facts that are relied on count."""
        return sum(estimate(size) * nanoseconds for size, nanoseconds in self.cost)
