"""What a back end is, and how one is found by name.

A back end turns a graph into an `Executable`. It lives in `graphc.backends.<name>` and offers
`create() -> Backend` there; nothing else in the core knows of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from graphc.errors import BackendError
from graphc.ir import Graph
from graphc.passes.order import DEFAULT
from graphc.types import TensorType

if TYPE_CHECKING:
    from graphc.kernel_info import KernelCode, KernelRun
    from graphc.specs import CallSpec, EagerSpec, EntrySpec, RecordedSpec, RuleSpec, SubscriptSpec, TensorClass, ViewSpec

BACKENDS = ("llvm", "cuda", "reference")
"""The names that `get_backend` knows."""


@dataclass(frozen=True)
class Layout:
    """How a call hands memory to an executable, and what numbers it takes.

    strides
        For each input, its strides in elements, or None for row-major.
    donated
        (output number, input number) pairs: the output is written over that input's memory. All other outputs are fresh.
    steady
        Numbers of inputs that are the same at most calls: what depends on them alone is computed by `Executable.preparation`.
    numerics
        How exactly float32 is computed with (see `graphc.numerics`): what the back end makes use of.
    """

    strides: tuple[tuple[int, ...] | None, ...]
    donated: tuple[tuple[int, int], ...] = ()
    steady: tuple[int, ...] = ()
    numerics: str = "strict"

    @staticmethod
    def plain(graph: Graph) -> Layout:
        """Row-major inputs, fresh outputs."""
        return Layout((None,) * len(graph.inputs))


class Entry(Protocol):
    """A native way into one graph."""

    @property
    def calls(self) -> int:
        """How many calls it has served."""
        ...

    def bind(self, fallback: Callable[..., Any]) -> Callable[..., Any]:
        """A function of positional arguments that runs the graph where all checks of the spec pass, and else, having
        changed nothing, calls `fallback` with the arguments that it was given."""
        ...


class Preparation(Protocol):
    """The part of an executable that depends on steady inputs alone, computed once for many runs."""

    @property
    def key(self) -> object:
        """The same for all executables that can run with what one of them has prepared, as those for other sizes can."""
        ...

    @property
    def inputs(self) -> tuple[int, ...]:
        """The numbers of the steady inputs that it depends on."""
        ...

    def prepare(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """What runs with the same contents of these inputs need; the others may be anything. It holds no reference to the
        inputs, and nothing writes to it later."""
        ...

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], prepared: np.ndarray) -> None:
        """As the `run` of the executable, with what has been prepared of such inputs."""
        ...


class Executable(Protocol):
    """A compiled graph."""

    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Compute into `outputs`. The arrays have the types and layouts that the executable was compiled for, which is
        not checked here; a donated output is the same array as its input."""
        ...

    @property
    def preparation(self) -> Preparation | None:
        """What it computes once; None if it computes all at each run."""
        ...

    def at(self, sizes: Mapping[str, int]) -> Executable:
        """For a graph with symbolic sizes: the executable where they are these numbers."""
        ...

    def entry(self, spec: EntrySpec) -> Entry | None:
        """A native entry; None where the back end, the interpreter or the spec does not allow for one."""
        ...


class Backend(Protocol):
    """Makes executables."""

    name: str

    def compile(self, graph: Graph, layout: Layout, passes: Sequence[str] = DEFAULT) -> Executable:
        """Put a graph through the passes of these names, and compile it; or load what has been made of it before. Sizes are
        numbers; or, while facts are relied on (see `graphc.sizes`), symbols. NumberNeeded where it takes numbers."""
        ...

    def source(self, graph: Graph, layout: Layout | None = None) -> str:
        """What is compiled for a graph whose sizes are numbers, as text. That takes nothing of the device."""
        ...

    def eager(self, spec: EagerSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """Makes of a fallback a function of the op's operands, tensors and Python numbers, that returns a new tensor with the
        bits that NumPy would compute; None where the back end does not."""
        ...

    def view(self, spec: ViewSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """Makes of a fallback a function `(source, array, attributes)`, or `(source, array, step)`, that returns a tensor
        around an array that was made of the source's, tied to the source if it lies in its memory; None where the back end
        does not."""
        ...

    def subscript(self, spec: SubscriptSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """Makes of a fallback a function `(tensor, index)` that returns a part of a tensor; None where the back end does
        not."""
        ...

    def engine(self, tensors: TensorClass) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
        """Two functions that run backwards through a graph of nodes of these tensors; None where there are none.

        `walk(node, ready, buffers, pending, frees, leaf, add, sum)` runs nodes from one that is ready on, as `engine.Run` of
        the front end does, as far as what they hold as `plan_native` says how; it returns the node that is not for it, or
        None where none follows. `dependencies(targets, counts)` adds to the list all that edges lead to from its targets,
        and counts the edges into each in the dict.
        """
        ...

    def rules(self, spec: RuleSpec | CallSpec) -> Any | None:
        """What `walk` knows nodes by; None for those that are not for it."""
        ...

    def recorded(self, spec: RecordedSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """Makes of a fallback a function of the arguments that returns tensors and records the call; None where the back end
        does not."""
        ...

    def set_num_threads(self, threads: int) -> None:
        """How many threads executables run on; a back end without threads of its own takes note of nothing."""
        ...

    def get_num_threads(self) -> int:
        """How many threads executables run on."""
        ...


@runtime_checkable
class RecordsKernels(Protocol):
    """A back end that can tell when each of its kernels has run."""

    def start_recording(self) -> None:
        """Record the runs of all kernels from now on, on all threads, those of code too that there is already. ProfilerError
        where that is being done."""
        ...

    def stop_recording(self) -> tuple[list[KernelRun], int]:
        """Record no more: the runs by their beginning, and how many there was no room for."""
        ...


@runtime_checkable
class ShowsCode(Protocol):
    """A back end that can show the code of single kernels."""

    def code(self, graph: Graph, assembly: bool = True) -> list[KernelCode]:
        """The kernels of a graph that has been through the passes, and whose sizes are numbers, in the order in which they run,
        with their code; with its assembly if wanted, which takes as long as to compile it."""
        ...


_loaded: dict[str, Backend] = {}
_lock = threading.Lock()


def is_loaded(name: str) -> bool:
    """Whether the back end called `name` has been made."""
    return name in _loaded


def get_backend(name: str) -> Backend:
    """The back end called `name`, made on first use; BackendError where there is none, or where it cannot run here. "cuda:1" is
    that of one of several GPUs."""
    with _lock:
        if name not in _loaded:
            kind, colon, number = name.partition(":")
            known = kind in BACKENDS and (not colon or (kind == "cuda" and number.isdecimal()))
            if not known or importlib.util.find_spec(f"graphc.backends.{kind}") is None:
                raise BackendError(f"no back end {name!r}", expected=f"one of {', '.join(BACKENDS)}",
                                   hint="set GRAPHC_BACKEND, or pass backend=")
            _loaded[name] = importlib.import_module(f"graphc.backends.{kind}").create()
        return _loaded[name]
