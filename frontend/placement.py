"""Running a graph whose nodes are placed on several devices: in parts, side by side."""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

import graphc.ops as ops
from graphc.bind import bind_graph, bind_sizes
from graphc.compiler import CompiledGraph, compile_graph
from graphc.frontend.device import HOST, spelled
from graphc.ir import Builder, Graph, Node, Value, copy_node
from graphc.verify import verify


@dataclass(frozen=True)
class Part:
    """What one device did in a run, without waiting for another in between."""

    device: str
    nodes: tuple[str, ...]
    thread: str
    """The name of the thread that it ran in."""
    start: float
    """Seconds since the run began."""
    seconds: float


@dataclass(eq=False)
class Segment:
    """Nodes of one device that can run once the segments before are done, and the code for them."""

    device: str
    nodes: list[Node] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    before: set[Segment] = field(default_factory=set)
    after: list[Segment] = field(default_factory=list)
    code: CompiledGraph | None = None


def devices_of(graph: Graph) -> set[str]:
    """The devices of a graph's nodes."""
    return {node.results[0].type.device for node in graph.nodes}


def on_host(graph: Graph) -> Graph:
    """The graph without its devices and transfers, as back ends take it."""
    if all(value.type.device == HOST for value in graph.values()):
        return graph
    return _extract(graph.name, graph.inputs, graph.nodes, graph.outputs)


class PlacedGraph:
    """A graph with nodes on several devices, called with arrays. What is on different devices, and does not depend on one
    another, runs at the same time. Compiled anew at each new set of sizes."""

    def __init__(self, graph: Graph, backend: str | None = None) -> None:
        self.graph = graph
        self.backend = backend
        self._schedules: dict[tuple[tuple[int, ...], ...], _Schedule] = {}

    def __call__(self, *arrays: np.ndarray) -> tuple[list[np.ndarray], list[Part]]:
        """The outputs, and what was done where."""
        shapes = tuple(array.shape for array in arrays)
        schedule = self._schedules.get(shapes)
        if schedule is None:
            bound = bind_graph(self.graph, bind_sizes(self.graph, shapes))
            verify(bound)
            names = {new: str(old.results[0].name) for new, old in zip(bound.nodes, self.graph.nodes, strict=True)}
            schedule = self._schedules[shapes] = _Schedule(bound, names, self.backend)
        return _Execution(schedule, arrays).finish()


class _Schedule:
    """A graph of known sizes, cut into segments."""

    def __init__(self, graph: Graph, names: Mapping[Node, str], backend: str | None) -> None:
        self.graph = graph
        self.segments = _segments(graph)
        self.names = names
        """What the nodes are called."""
        for segment in self.segments:
            code = _extract(graph.name, segment.inputs, segment.nodes, segment.outputs)
            segment.code = compile_graph(code, backend=backend)


def _segments(graph: Graph) -> list[Segment]:
    """Nodes of one device belong together as long as none of them has to wait for a node elsewhere that waits for another of
    them: all that have the same number of changes of device behind them. Those that other devices wait for come first."""
    awaited: set[Node] = set()
    for node in reversed(graph.nodes):
        device = node.results[0].type.device
        awaited.update(v.node for v in node.operands
                       if v.node is not None and (node in awaited or v.node.results[0].type.device != device))
    stages = _stages(graph)
    segments: dict[tuple[int, bool, str], Segment] = {}
    owner: dict[Value, Segment] = {}
    for node in graph.nodes:
        device = node.results[0].type.device
        segment = segments.setdefault((stages[node], node not in awaited, device), Segment(device))
        segment.nodes.append(node)
        owner.update(dict.fromkeys(node.results, segment))
    returned = set(graph.outputs)
    for segment in segments.values():
        taken = dict.fromkeys(v for node in segment.nodes for v in node.operands if owner.get(v) is not segment)
        segment.inputs = list(taken)
        segment.before = {owner[v] for v in taken if v in owner}
        for other in segment.before:
            other.after.append(segment)
            other.outputs += [v for v in taken if owner.get(v) is other and v not in other.outputs]
    for segment in segments.values():
        segment.outputs += [r for n in segment.nodes for r in n.results if r in returned and r not in segment.outputs]
    return list(segments.values())


def _stages(graph: Graph) -> dict[Node, int]:
    """How many changes of device are behind each node. Behind what is computed from constants there are as many as behind
    the first node that takes it."""
    stages: dict[Node, int] = {}
    free: set[Node] = set()
    for node in graph.nodes:
        device = node.results[0].type.device
        behind = [v.node for v in node.operands if v.node is not None]
        stages[node] = max((stages[n] + (n.results[0].type.device != device) for n in behind), default=0)
        if len(behind) == len(node.operands) and node.op is not ops.transfer and free.issuperset(behind):
            free.add(node)
    first: dict[Node, int] = {}
    for node in reversed(graph.nodes):
        stage = stages[node] = first.get(node, stages[node]) if node in free else stages[node]
        for value in node.operands:
            if value.node is not None:
                here = 0 if node.op is ops.transfer else stage
                first[value.node] = min(first.get(value.node, here), here)
    return stages


def _extract(name: str, inputs: Sequence[Value], nodes: Sequence[Node], outputs: Sequence[Value]) -> Graph:
    """A graph of some nodes of another, without devices."""
    builder = Builder(name, locations=False)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type.on(HOST)) for v in inputs}
    for node in nodes:
        operands = [new[v] for v in node.operands]
        if node.op is ops.transfer:
            new[node.result] = operands[0]
            continue
        copied = copy_node(builder, node, operands)
        for old, made in zip(node.results, copied.results):
            made.type = made.type.on(HOST)
            new[old] = made
    return builder.finish([new[v] for v in outputs])


class _Execution:
    """One run of a schedule. Segments of the host run in the calling thread, those of each other device in its own."""

    def __init__(self, schedule: _Schedule, arrays: Sequence[np.ndarray]) -> None:
        self._schedule = schedule
        self._known: dict[Value, np.ndarray] = dict(zip(schedule.graph.inputs, arrays))
        self._waiting = {segment: len(segment.before) for segment in schedule.segments}
        self._unfinished = len(schedule.segments)
        self._host: list[Segment] = []
        self._parts: list[Part] = []
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._begin = time.perf_counter()

    def finish(self) -> tuple[list[np.ndarray], list[Part]]:
        """Run all segments; the outputs of the graph."""
        with self._changed:
            for segment in [segment for segment, count in self._waiting.items() if not count]:
                self._launch(segment)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._host or not self._unfinished or self._error is not None)
                if self._error is not None:
                    raise self._error
                if not self._unfinished:
                    return [self._known[v] for v in self._schedule.graph.outputs], self._parts
                segment = self._host.pop(0)
            self._run(segment)

    def _launch(self, segment: Segment) -> None:
        if segment.device == HOST:
            self._host.append(segment)
        else:
            _worker(segment.device).submit(contextvars.copy_context().run, self._run, segment)

    def _run(self, segment: Segment) -> None:
        start = time.perf_counter()
        try:
            if self._error is not None:
                return
            assert segment.code is not None
            results = segment.code(*(self._known[v] for v in segment.inputs))
        except BaseException as error:  # raised again in the thread that waits
            with self._changed:
                self._error = self._error or error
                self._changed.notify()
            return
        seconds = time.perf_counter() - start
        names = tuple(self._schedule.names[node] for node in segment.nodes)
        with self._changed:
            self._known.update(zip(segment.outputs, results))
            self._parts.append(
                Part(spelled(segment.device), names, threading.current_thread().name, start - self._begin, seconds))
            self._unfinished -= 1
            for other in segment.after:
                self._waiting[other] -= 1
                if not self._waiting[other]:
                    self._launch(other)
            self._changed.notify()


_workers: dict[str, ThreadPoolExecutor] = {}
_workers_lock = threading.Lock()


def _worker(device: str) -> ThreadPoolExecutor:
    """The thread of a device."""
    with _workers_lock:
        if device not in _workers:
            _workers[device] = ThreadPoolExecutor(1, thread_name_prefix=f"graphc {device}")
        return _workers[device]


def _forget_workers() -> None:
    """In a forked child, which has none of the threads."""
    global _workers_lock  # noqa: PLW0603
    _workers_lock = threading.Lock()
    _workers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)
