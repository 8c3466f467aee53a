"""One graph of a compiled function: made from a call, valid while the world is as it was then, run on arguments."""

from __future__ import annotations

import copy
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.backend import Entry, Executable, Layout
from graphc.bind import bind_graph
from graphc.compiler import executable
from graphc.frontend import device_arrays
from graphc.frontend.composite import Traced
from graphc.frontend.device_entry import DeviceEntry
from graphc.frontend.device_ops import code_on, gpu_of_backend
from graphc.frontend.entry import Output, entry_spec
from graphc.frontend.guards import Snapshot
from graphc.frontend.pytree import flatten
from graphc.frontend.recording import Recording, pinned_differently
from graphc.frontend.steady import SteadyInputs
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace_inputs import Argument
from graphc.ir import Graph
from graphc.types import Shape, TensorType


class Compiled:
    """One graph of a function, with the state of the world that it was made in."""

    def __init__(
        self, function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any], backend: str | None,
        shapes: Mapping[int, Shape] | None = None, recording: Recording | None = None,
    ) -> None:
        """Of a call that has been recorded; or of one that is now, for `shapes` (see `Recording`)."""
        self.backend = backend
        if recording is None:
            recording = Recording(function, name, args, kwargs, backend, shapes)
        self.capture, self.graph = recording.capture, recording.graph
        self.is_passing, self.asks_the_world = recording.is_passing, recording.asks_the_world
        self.snapshot = Snapshot(function, recording.objects, recording.numbers())
        self.pinned = recording.pinned(self.snapshot)
        """Arguments that the function also finds by itself: the graph cannot tell which of the two it was that was used."""
        self.capture.forget_arguments()
        self.gpu = max(self.capture.gpu, gpu_of_backend(backend))
        """The GPU that the graph runs on; -1 for the CPU."""
        self.executable: Executable | None = None
        self.entry: Entry | None = None
        self._counted = 0
        """Calls of the native entry that are known of."""
        self.steady = SteadyInputs.of(self.capture)
        self._prepares = self.steady.numbers
        """Of which inputs the code computes things once."""
        self._sized: tuple[Graph, Mapping[str, int]] | None = None
        self.is_bound = False
        """Whether the graph is another one, for symbolic sizes, with numbers for these."""
        self.misses = 0
        """Calls by way of Python, from the one on before which the native entry was last of use."""
        self._lock = threading.Lock()

    def mismatch(self, leaves: Sequence[Any]) -> str | None:
        """Why the graph does not stand for a call with these arguments; None if it does. Arguments' types are part of the
        key that the graph is found by, and not looked at here."""
        changed = self.snapshot.changed()
        if changed is not None:
            return changed
        return pinned_differently(self.pinned, self.snapshot, leaves) or self.capture.mismatch(leaves)

    def bind(self, sizes: Mapping[str, int], leaves: Sequence[Any]) -> Compiled:
        """The same with numbers for symbolic sizes, for arguments such as these."""
        new = copy.copy(self)
        new._sized = self.graph, sizes
        new.graph = bind_graph(self.graph, sizes)
        new.capture = self.capture.bind(sizes, new.graph, leaves)
        new.executable = new.entry = None
        new._counted = 0
        new.is_bound = True
        new.misses = 0
        new._lock = threading.Lock()
        return new

    def compiled(self) -> Executable:
        """The code, made on first use."""
        if self.executable is None:
            self.steady.settle()
        code, wanted = self.executable, self.steady.numbers
        if code is None or self._prepares != wanted:
            with self._lock:
                code = self.executable
                if code is None or self._prepares != wanted:
                    layout = Layout(tuple(self.capture.layouts), tuple(self.capture.updates), wanted)
                    if self.gpu >= 0:
                        code = self._on_gpu()
                    elif self._sized is None:
                        code = executable(self.graph, layout, backend=self.backend)
                    else:  # the same code for all sizes
                        graph, sizes = self._sized
                        code = executable(graph, layout, backend=self.backend).at(sizes)
                    self.executable, self._prepares = code, wanted
        return code

    def _on_gpu(self) -> Executable:
        capture = self.capture
        strides = [layout if place >= 0 else None for layout, place in zip(capture.layouts, capture.input_places)]
        graph, sizes = (self.graph, None) if self._sized is None else self._sized
        over = dict(capture.updates)
        on_cpu = [i for i, place in enumerate(capture.input_places) if place < 0]
        to_cpu = [j for j in range(len(graph.outputs)) if (over[j] in on_cpu if j in over else not capture.goes_to_gpu(j))]
        code = code_on(self.gpu, graph, strides, capture.updates, self.backend, on_cpu, to_cpu)
        return code if sizes is None else code.at(sizes)

    def __call__(self, leaves: Sequence[Any]) -> Any:
        """Run on arguments that fit."""
        code = self.compiled()
        self._count()
        prepared = self.steady.prepared(code)
        self.steady.calls += 1
        tensors = self.capture.tensors(leaves)
        arrays = [tensor._data for tensor in tensors]
        self.capture.check_writable(tensors)
        before = self.capture.before(tensors)
        outputs = self._outputs(code, leaves, arrays)
        try:
            if prepared is not None and code.preparation is not None:
                code.preparation.run(arrays, outputs, prepared.memory)
            else:
                code.run(arrays, outputs)
        except BaseException:
            for owner in self.capture.replaced_gradients(leaves).values():
                owner._state().grad = None  # it may have been written over
            raise
        return self.capture.finish(leaves, tensors, outputs, before)

    def _outputs(self, code: Executable, leaves: Sequence[Any], arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Memory for the outputs: of inputs that they are written over, of gradients whose place they take, or new."""
        donated = dict(self.capture.updates)
        owners = self.capture.replaced_gradients(leaves)
        outputs = []
        for j, type_ in enumerate(code.outputs):
            if j in donated:
                outputs.append(arrays[donated[j]])
                continue
            spare = _spare_gradient(owners[j], type_) if j in owners else None
            if spare is None and self.gpu >= 0 and self.capture.goes_to_gpu(j):
                spare = device_arrays.empty(type_.shape, type_.dtype.numpy, self.gpu)
            outputs.append(np.empty(type_.shape, type_.dtype.numpy) if spare is None else spare)
        return outputs

    def _count(self) -> None:
        """Take note of the calls that came natively."""
        served = 0 if self.entry is None else self.entry.calls
        self.steady.calls += served - self._counted
        self._counted = served

    def lines(self) -> list[str]:
        """The graph as text, and what it rests on."""
        return [*self.snapshot.lines(), *str(self.graph).splitlines()]

    def make_entry(self, arguments: Sequence[Any]) -> None:
        """Have a native way in, for calls with positional arguments like these, if there can be one."""
        self._count()
        self.entry, self._counted = None, 0
        if self.snapshot.compares and self.snapshot.tensors:
            return  # it might ask if an argument is one of its own tensors
        if any(isinstance(argument, Tensor) and len(argument.__dict__) for argument in arguments):
            return  # it may read what was written to these
        plan = self.capture.plan(self.snapshot, self.pinned)
        if self.gpu >= 0:
            self.entry = None if plan is None else DeviceEntry.make(self.capture, plan, self.compiled(), arguments)
            if self.entry is not None and self.mismatch(arguments) is not None:
                self.entry = None
            return
        spec = None if plan is None else entry_spec(plan, arguments)
        if spec is not None:
            code = self.compiled()
            prepared = self.steady.prepared(code)
            if prepared is not None:
                guards = (*spec.guards, *self.steady.guards(prepared))
                spec = replace(spec, guards=guards, prepared=prepared.memory)
            self.entry = code.entry(spec)
            if self.entry is not None and self.mismatch(arguments) is not None:
                self.entry = None  # another thread has changed something since the spec was made


def _references(owner: Tensor) -> tuple[int, int]:
    """Those to the gradient of a tensor, and to its array."""
    meta = owner._meta
    assert meta is not None and meta.grad is not None
    return sys.getrefcount(meta.grad), sys.getrefcount(meta.grad._data)


def _owner_of_a_gradient() -> Tensor:
    owner = wrap(np.zeros(1))
    owner._state().grad = wrap(np.zeros(1))
    return owner


_NOBODY_ELSE = _references(_owner_of_a_gradient())


def _spare_gradient(owner: Tensor, type_: TensorType) -> np.ndarray | None:
    """The array of a tensor's gradient, if nobody else has either, and it is of this type and row-major: as native entries take
    it for the gradient that comes in its place."""
    grad = None if owner._meta is None else owner._meta.grad
    if grad is None or type(grad) is not Tensor or grad._node is not None or grad._meta is not None:
        return None
    array = grad._data
    fits = (
        type(array) is np.ndarray and array.base is None and array.flags.owndata and array.flags.carray
        and array.dtype == type_.dtype.numpy and array.shape == type_.shape and not weakref.getweakrefcount(array)
    )  # fmt: skip
    del grad
    if not fits:
        return None
    references, of_array = _references(owner)
    return array if (references, of_array - 1) == _NOBODY_ELSE else None  # one is the variable's


def trace_once(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], shapes: Mapping[int, Shape] | None = None
) -> Traced | None:
    """The graph of a call that returns new tensors and looks at nothing but its arguments; None for any other. `shapes` are
    those that arguments are said to have, by their numbers."""
    leaves, _ = flatten((args, kwargs))
    traced = Compiled(function, function.__name__, args, kwargs, None, shapes)
    capture = traced.capture
    sources = [lifted.source for lifted in capture.inputs]
    single_level = capture.structure.kind == "tuple" and all(child.kind == "leaf" for child in capture.structure.children)
    ordinary = (
        (capture.structure.kind == "leaf" or single_level) and not capture.freed
        and capture.results == [Output(j) for j in range(len(capture.results))]
        and not capture.updates and not capture.grads and not capture.grad_guards and not capture.new_leaves
    )  # fmt: skip
    if not ordinary or not all(isinstance(source, Argument) for source in sources):
        return None
    inputs = [leaves[source.index] for source in sources if isinstance(source, Argument)]
    results = len(capture.results) if single_level else 0
    return Traced(results, traced.graph, inputs, capture.differentiable, capture.node_name)
