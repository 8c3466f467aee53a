"""What a back end is, and how one is found by name.

A back end turns a graph whose sizes are numbers into an `Executable`. It lives in `graphc.backends.<name>` and offers
`create() -> Backend` there; nothing else in the core knows of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from graphc.errors import BackendError
from graphc.ir import Graph
from graphc.types import TensorType

BACKENDS = ("llvm", "reference")
"""The names that `get_backend` knows."""


@dataclass(frozen=True)
class Layout:
    """How a call hands memory to an executable.

    strides
        For each input, its strides in elements, or None for row-major.
    donated
        (output number, input number) pairs: the output is written over that input's memory. All other outputs are fresh.
    """

    strides: tuple[tuple[int, ...] | None, ...]
    donated: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def plain(graph: Graph) -> Layout:
        """Row-major inputs, fresh outputs."""
        return Layout((None,) * len(graph.inputs))


class Executable(Protocol):
    """A compiled graph."""

    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Compute into `outputs`. The arrays have the types and layouts that the executable was compiled for, which is
        not checked here; a donated output is the same array as its input."""
        ...


class Backend(Protocol):
    """Makes executables."""

    name: str

    def compile(self, graph: Graph, layout: Layout) -> Executable:
        """Compile a graph whose sizes are numbers and whose ops are lowerable."""
        ...

    def set_num_threads(self, threads: int) -> None:
        """How many threads executables run on; a back end without threads of its own takes note of nothing."""
        ...

    def get_num_threads(self) -> int:
        """How many threads executables run on."""
        ...


_loaded: dict[str, Backend] = {}
_lock = threading.Lock()


def get_backend(name: str) -> Backend:
    """The back end called `name`, made on first use; BackendError where there is none, or where it cannot run here."""
    with _lock:
        if name not in _loaded:
            if name not in BACKENDS or importlib.util.find_spec(f"graphc.backends.{name}") is None:
                raise BackendError(f"no back end {name!r}", expected=f"one of {', '.join(BACKENDS)}",
                                   hint="set GRAPHC_BACKEND, or pass backend=")
            _loaded[name] = importlib.import_module(f"graphc.backends.{name}").create()
        return _loaded[name]
