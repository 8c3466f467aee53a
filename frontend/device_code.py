"""A graph that runs on a GPU, with inputs and outputs on the CPU besides.

What the program has on the CPU, and computes of that alone, such as an optimizer's counts of steps, is computed there: so
nobody waits for the GPU. Small inputs from the CPU are copied to the GPU together, to the same place at each call: so what
reads them can be replayed.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.autodiff import extract
from graphc.backend import Executable, Layout
from graphc.bind import is_symbolic
from graphc.compiler import executable
from graphc.config import config
from graphc.frontend import device_arrays
from graphc.gpu import report
from graphc.ir import Graph, Value
from graphc.numerics import divided
from graphc.types import TensorType

_SMALL = 1 << 12
"""Bytes of an input that is copied together with others, at most."""
_UNIT = 16
"""Bytes, at multiples of which those begin."""
_UNDER_WAY = 4
"""Copies that may wait for the GPU at a time."""
_MOST_STREAMS = 8


@dataclass(frozen=True, eq=False)
class _Part:
    """Code for some outputs of a graph, of some of its inputs, by their numbers."""

    code: Executable
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def at(self, sizes: Mapping[str, int]) -> _Part:
        """The same where symbolic sizes are these numbers."""
        return _Part(self.code.at(sizes), self.inputs, self.outputs)


class DeviceCode:
    """An executable on one GPU, whose inputs and outputs may also be arrays of the CPU. Threads may run it at the same time."""

    def __init__(self, graph: Graph, device: int, on_gpu: _Part, on_cpu: _Part | None, small: Collection[int]) -> None:
        self.device = device
        self.inputs = tuple(v.type for v in graph.inputs)
        self.outputs = tuple(v.type for v in graph.outputs)
        self._graph, self._on_gpu, self._on_cpu, self._small = graph, on_gpu, on_cpu, tuple(small)
        self._lock = threading.Lock()
        self._letters: dict[int, _Letters] = {}
        """By the stream, in whose order they are read."""

    @classmethod
    def make(
        cls, graph: Graph, device: int, layout: Layout, from_cpu: Collection[int], to_cpu: Collection[int], backend: str
    ) -> DeviceCode:
        """Compile a graph of which some inputs are on the CPU, row-major, and some outputs shall be there."""
        small = [i for i in from_cpu if _is_small(graph.inputs[i].type)]
        of_cpu = _computed_of(graph, from_cpu)
        apart = [j for j in to_cpu if graph.outputs[j] in of_cpu]
        left = [j for j in range(len(graph.outputs)) if j not in apart]
        inputs = _read(graph, apart)
        alone = _part(graph, inputs, apart)
        if not apart or not left or is_symbolic(alone):
            code = executable(graph, layout, backend=backend)
            everything = _Part(code, tuple(range(len(graph.inputs))), tuple(range(len(graph.outputs))))
            return cls(graph, device, everything, None, small)
        numerics, _ = divided(backend)
        name = "llvm" if config.backend.partition(":")[0] == "cuda" else config.backend
        on_cpu = _Part(executable(alone, backend=f"{numerics} {name}"), tuple(inputs), tuple(apart))
        donated = dict(layout.donated)
        needed = {*_read(graph, left), *(donated[j] for j in left if j in donated)}
        inputs = [i for i, v in enumerate(graph.inputs) if i in needed or not v.type.is_static]
        numbers = {i: k for k, i in enumerate(inputs)}
        pairs = tuple((k, numbers[donated[j]]) for k, j in enumerate(left) if j in donated)
        own = Layout(tuple(layout.strides[i] for i in inputs), pairs)
        code = executable(_part(graph, inputs, left), own, backend=backend)
        return cls(graph, device, _Part(code, tuple(inputs), tuple(left)), on_cpu, [i for i in small if i in numbers])

    @property
    def preparation(self) -> None:
        """None: everything is computed at each run."""

    def at(self, sizes: Mapping[str, int]) -> DeviceCode:
        """The same where symbolic sizes are these numbers."""
        made = DeviceCode(self._graph, self.device, self._on_gpu.at(sizes), self._on_cpu, self._small)
        made.inputs = tuple(t.bind(sizes) for t in self.inputs)
        made.outputs = tuple(t.bind(sizes) for t in self.outputs)
        return made

    def entry(self, spec: Any) -> None:
        """None: calls go by way of Python."""
        del spec

    def empty_outputs(self) -> list[Any]:
        """Memory for all outputs, on the GPU."""
        return [device_arrays.empty(t.shape, t.dtype.numpy, self.device) for t in self.outputs]

    def on_new(self, *inputs: Any) -> tuple[Any, ...]:
        """The outputs, in new memory."""
        outputs = self.empty_outputs()
        self.run(inputs, outputs)
        return tuple(outputs)

    def run(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Compute into `outputs`. Kernels are under way when this returns, unless what they compute goes to the CPU."""
        part, apart = self._on_gpu, self._on_cpu
        with device_arrays.on(self.device), self._lock if self._small else contextlib.nullcontext():
            here = self._sent(inputs) if self._small else {}
            given = [here[i] if i in here else inputs[i] for i in part.inputs] if here else [inputs[i] for i in part.inputs]
            given = [device_arrays.upload(a, self.device) if type(a) is np.ndarray else a for a in given]
            places = [self._place(outputs[j], part, inputs, given) for j in part.outputs]
            part.code.run(given, places)
        if apart is not None:
            found = [np.empty(self.outputs[j].shape, self.outputs[j].dtype.numpy) for j in apart.outputs]
            apart.code.run([np.asarray(device_arrays.known_on_host(inputs[i]), order="C") for i in apart.inputs], found)
            for j, new in zip(apart.outputs, found):
                _keep(outputs[j], new)
        for j, place in zip(part.outputs, places):
            if place is not outputs[j]:
                np.copyto(outputs[j], device_arrays.download(place))

    def _sent(self, inputs: Sequence[Any]) -> dict[int, Any]:
        """The small inputs from the CPU, on the GPU."""
        stream = device_arrays.cupy().cuda.get_current_stream().ptr
        letters = self._letters.get(stream)
        if letters is None:
            if len(self._letters) == _MOST_STREAMS:
                del self._letters[next(iter(self._letters))]
            letters = self._letters[stream] = _Letters([self.inputs[i] for i in self._small], self.device)
        arrays = [inputs[i] for i in self._small]
        there = letters.sent(arrays)
        return {i: place for i, array, place in zip(self._small, arrays, there) if type(array) is np.ndarray}

    def _place(self, output: Any, part: _Part, inputs: Sequence[Any], given: Sequence[Any]) -> Any:
        """Where an output is computed."""
        if not isinstance(output, np.ndarray):
            return output
        for i, here in zip(part.inputs, given):
            if inputs[i] is output:  # what is written over it
                return here
        return device_arrays.empty(output.shape, output.dtype, self.device)


class _Letters:
    """Small arrays of the CPU, which are copied to one place on a GPU together."""

    def __init__(self, types: Sequence[TensorType], device: int) -> None:
        offsets, end = [], 0
        for type_ in types:
            offsets.append(end)
            end += -(-max(1, math.prod(type_.shape) * type_.dtype.itemsize) // _UNIT) * _UNIT
        self._memory = device_arrays.empty((end,), np.dtype(np.uint8), device)
        described = [(t.shape, t.dtype.numpy, offset) for t, offset in zip(types, offsets)]
        self._there = [device_arrays.view(self._memory, shape, _row_major(shape, dtype), offset, dtype)
                       for shape, dtype, offset in described]
        cuda = device_arrays.cupy().cuda
        self._slots = []
        for _ in range(_UNDER_WAY):
            memory = np.frombuffer(cuda.alloc_pinned_memory(end), np.uint8, end)
            parts = [np.ndarray(shape, dtype, memory, offset) for shape, dtype, offset in described]
            self._slots.append((memory, parts, cuda.Event(disable_timing=True)))

    def __del__(self) -> None:
        """Page-locked memory is given to whoever wants some next: not before it has been copied."""
        for memory, _, copied in getattr(self, "_slots", ()):
            if not copied.done:
                report(copied, memory, _nothing)

    def sent(self, arrays: Sequence[np.ndarray]) -> list[Any]:
        """Copy the arrays' numbers, which nobody waits for; where they are."""
        memory, parts, copied = slot = self._slots.pop(0)
        self._slots.append(slot)
        copied.synchronize()
        for part, array in zip(parts, arrays):
            if type(array) is np.ndarray:  # another caller may have it on the GPU
                part[...] = array
        cuda = device_arrays.cupy().cuda
        stream = cuda.get_current_stream()
        cuda.runtime.memcpyAsync(self._memory.data.ptr, memory.ctypes.data, memory.nbytes, cuda.runtime.memcpyHostToDevice,
                                 stream.ptr)
        copied.record(stream)
        return self._there


def _nothing(numbers: np.ndarray) -> None:
    """There is nothing to be said of numbers that have been copied."""
    del numbers


def _row_major(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    return tuple(dtype.itemsize * math.prod(shape[d + 1 :]) for d in range(len(shape)))


def _is_small(type_: TensorType) -> bool:
    return type_.is_static and math.prod(type_.shape) * type_.dtype.itemsize <= _SMALL


def _keep(output: Any, new: np.ndarray) -> None:
    """Have an output hold these numbers, wherever it is."""
    if isinstance(output, np.ndarray):
        np.copyto(output, new)
    else:
        device_arrays.overwrite(output, new)


def _part(graph: Graph, inputs: Sequence[int], outputs: Sequence[int]) -> Graph:
    """The graph of some outputs."""
    return extract(graph.name, [graph.inputs[i] for i in inputs], graph.nodes, [graph.outputs[j] for j in outputs])


def _computed_of(graph: Graph, inputs: Collection[int]) -> set[Value]:
    """What is computed of some inputs, and of nothing else."""
    known = {graph.inputs[i] for i in inputs}
    fixed: set[Value] = set()  # of no input at all
    for node in graph.nodes:
        if all(v in fixed for v in node.operands):
            fixed.update(node.results)
        elif all(v in fixed or v in known for v in node.operands):
            known.update(node.results)
    return known


def _read(graph: Graph, outputs: Collection[int]) -> list[int]:
    """The numbers of the inputs that outputs are computed from."""
    live = {graph.outputs[j] for j in outputs}
    for node in reversed(graph.nodes):
        if not live.isdisjoint(node.results):
            live.update(node.operands)
    return [i for i, v in enumerate(graph.inputs) if v in live]
