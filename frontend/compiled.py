"""One graph of a compiled function: made from a call, valid while the world is as it was then, run on arguments."""

from __future__ import annotations

import inspect
import operator
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np

from graphc.backend import Entry, Executable, Layout
from graphc.compiler import executable
from graphc.errors import TraceError
from graphc.frontend.call_key import has_history
from graphc.frontend.capture import Capture
from graphc.frontend.composite import Traced
from graphc.frontend.entry import Output, entry_spec
from graphc.frontend.guards import Snapshot
from graphc.frontend.modes import mode
from graphc.frontend.pytree import flatten, unflatten
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace import Argument, Number, Trace, parameter_names
from graphc.frontend.tracer import activated


class Compiled:
    """One graph of a function, with the state of the world that it was made in."""

    def __init__(
        self, function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any], backend: str | None
    ) -> None:
        self.backend = backend
        leaves, structure = flatten((args, kwargs))
        names = parameter_names(function)
        inside = _stand_ins(leaves)
        trace = Trace(name, inside, names, [x for x, own in zip(inside, leaves) if has_history(own)])
        inside_args, inside_kwargs = unflatten(structure, inside)
        objects = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
        before = Snapshot(function, objects)
        try:
            with activated(trace):
                result = function(*inside_args, **inside_kwargs)
                if inspect.isawaitable(result) or isinstance(result, AsyncIterator):
                    if inspect.iscoroutine(result):
                        result.close()  # it would complain that nobody awaited it
                    raise TraceError(f"{name!r} is an async function", expected="a function that returns when it is done")
                self.capture = Capture(trace, inside, result, before.tensors, backend)
            self.graph = self.capture.graph(trace)
        finally:
            trace.restore()
        after, structure_after = flatten((inside_args, inside_kwargs))
        if structure_after != structure or not all(map(operator.is_, after, inside)):
            warnings.warn(
                f"{name} changes a container among its arguments: a compiled call works on copies of containers, and the "
                "caller's stays as it is; return what is new instead",
                stacklevel=4,
            )
        changed = before.changed()
        self.settling = changed is not None and ".state" in changed
        """Whether an optimizer made its state meanwhile: its first step may be another computation than all that follow."""
        if changed is not None and not self.settling:
            warnings.warn(
                f"{name} changes Python state while it is traced ({changed}); a compiled call will not do that again",
                stacklevel=4,
            )
        exempt = {(id(x.source.mapping), x.source.key) for x in trace.inputs if isinstance(x.source, Number)}
        self.snapshot = Snapshot(function, objects, exempt)
        self.pinned = {i: x for i, x in enumerate(leaves) if x is inside[i] and id(x) in self.snapshot.tensors}
        """Arguments that the function also finds by itself: the graph cannot tell which of the two it was that was used."""
        self.capture.forget_arguments()
        self.executable: Executable | None = None
        self.entry: Entry | None = None
        self.misses = 0
        """Calls by way of Python, from the one on before which the native entry was last of use."""
        self._lock = threading.Lock()

    def mismatch(self, leaves: Sequence[Any]) -> str | None:
        """Why the graph does not stand for a call with these arguments; None if it does. Arguments' types are part of the
        key that the graph is found by, and not looked at here."""
        changed = self.snapshot.changed()
        if changed is not None:
            return changed
        for i, tensor in self.pinned.items():
            if leaves[i] is not tensor:
                return "an argument was a tensor that the function also uses by itself, and is another one"
        return self.capture.mismatch(leaves)

    def compiled(self) -> Executable:
        """The code, made on first use."""
        if self.executable is None:
            with self._lock:
                if self.executable is None:
                    layout = Layout(tuple(self.capture.layouts), tuple(self.capture.updates))
                    self.executable = executable(self.graph, layout, backend=self.backend)
        return self.executable

    def __call__(self, leaves: Sequence[Any]) -> Any:
        """Run on arguments that fit."""
        code = self.compiled()
        tensors = self.capture.tensors(leaves)
        arrays = [tensor._data for tensor in tensors]
        donated = dict(self.capture.updates)
        outputs = [
            arrays[donated[j]] if j in donated else np.empty(t.shape, t.dtype.numpy)
            for j, t in enumerate(code.outputs)
        ]
        self.capture.check_writable(tensors)
        code.run(arrays, outputs)
        return self.capture.finish(leaves, tensors, outputs)

    def make_entry(self, arguments: Sequence[Any]) -> None:
        """Have a native way in, for calls with positional arguments like these, if there can be one."""
        self.entry = None
        plan = self.capture.plan(self.snapshot, self.pinned)
        spec = None if plan is None else entry_spec(plan, arguments)
        if spec is not None:
            self.entry = self.compiled().entry(spec)
            if self.entry is not None and self.mismatch(arguments) is not None:
                self.entry = None  # another thread has changed something since the spec was made


def trace_once(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced | None:
    """The graph of a call that returns new tensors and looks at nothing but its arguments; None for any other."""
    leaves, _ = flatten((args, kwargs))
    traced = Compiled(function, function.__name__, args, kwargs, None)
    capture = traced.capture
    sources = [lifted.source for lifted in capture.inputs]
    single_level = capture.structure.kind == "tuple" and all(child.kind == "leaf" for child in capture.structure.children)
    ordinary = (
        (capture.structure.kind == "leaf" or single_level) and not capture.freed
        and capture.results == [Output(j) for j in range(len(capture.results))]
        and not capture.updates and not capture.grads and not capture.grad_guards
    )  # fmt: skip
    if not ordinary or not all(isinstance(source, Argument) for source in sources):
        return None
    inputs = [leaves[source.index] for source in sources if isinstance(source, Argument)]
    results = len(capture.results) if single_level else 0
    return Traced(results, traced.graph, inputs, capture.differentiable, capture.node_name)


def _stand_ins(leaves: Sequence[Any]) -> list[Any]:
    """The leaves as the traced function sees them. A tensor with a history is replaced by one without, so that the tape of
    the trace ends at the function's door, and a view by a tensor on the same memory that knows nothing of its base: the
    graph must stand for any other view."""
    made: dict[int, Tensor] = {}
    for leaf in leaves:
        if isinstance(leaf, Tensor) and id(leaf) not in made and (has_history(leaf) or leaf._is_view()):
            made[id(leaf)] = wrap(leaf._data).requires_grad_(leaf.requires_grad and mode.grad)
    return [made.get(id(leaf), leaf) for leaf in leaves]
