"""Running the recorded graph backwards. Nothing here recurses: a chain of a million operations is fine."""

from __future__ import annotations

import heapq
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphc import ops
from graphc.errors import ArgumentTypeError, AutogradError
from graphc.frontend import device_ops, eager
from graphc.frontend.device_arrays import is_on_device
from graphc.frontend.modes import anomaly, mode
from graphc.frontend.node import Edge, Node
from graphc.frontend.tape import CompiledNode, OpNode, match
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import _state as trace_state
from graphc.frontend.tracer import active

Target: TypeAlias = Node | Tensor


def run(
    roots: Sequence[tuple[Edge, Tensor]],
    *,
    keep_graph: bool,
    create_graph: bool,
    inputs: Sequence[Edge] | None = None,
    accumulate: bool = True,
) -> list[Tensor | None]:
    """Send the cotangents of the roots down the graph.

    roots
        Where to start, with the cotangent there.
    keep_graph
        Whether what the nodes saved is kept for another run.
    create_graph
        Whether the run itself is recorded.
    inputs, accumulate
        With `inputs`, only the paths to them are followed. If `accumulate`, gradients are added to `.grad` (of all leaves,
        or of the inputs); otherwise the gradients of the inputs are returned, None for one that is not reached.
    """
    captures: dict[tuple[Target, int], Tensor | None] = {} if inputs is None else {edge: None for edge in inputs if edge}
    tracer = active()
    if tracer is not None:
        tracer.begin_backward()
    before, mode.grad = mode.grad, create_graph
    try:
        this = Run(roots, keep_graph, captures if inputs is not None else None, accumulate)
        _running.stack.append(this)
        try:
            this.run()
        finally:
            _running.stack.pop()
            this.finish()
    finally:
        mode.grad = before
    return [captures[edge] if edge else None for edge in inputs] if inputs is not None else []


class _Running(threading.local):
    def __init__(self) -> None:
        self.stack: list[Run] = []


_running = _Running()


def running() -> Run:
    """The run that calls a hook or the backward of a node; where runs are nested, the innermost."""
    return _running.stack[-1]


def is_running() -> bool:
    """Whether there is one."""
    return bool(_running.stack)


class Run:
    """One run of the engine."""

    def __init__(
        self,
        roots: Sequence[tuple[Edge, Tensor]],
        keep_graph: bool,
        captures: dict[tuple[Target, int], Tensor | None] | None,
        accumulate: bool,
    ) -> None:
        self.keep_graph = keep_graph
        self.captures = captures
        self.accumulate = accumulate
        self._at_end: list[Callable[[], object]] = []
        self.ready: list[tuple[int, Node]] = []
        self.buffers: dict[Target, list[Tensor | None]] = {}
        starts = list(dict.fromkeys(edge[0] for edge, _ in roots if edge))
        self.pending = _dependencies(starts, None if captures is None else {target for target, _ in captures})
        self._targets = self.pending.keys()
        for edge, ct in roots:
            if edge is not None and edge[0] in self.pending:
                self._add(edge, ct)
        for target in starts:
            if self.pending.get(target) == 0:
                self._arrived(target)

    @property
    def is_partial(self) -> bool:
        """Whether the gradients of some inputs alone are wanted, instead of those of all leaves."""
        return self.captures is not None

    def reaches(self, target: Target) -> bool:
        """Whether gradients will come to a node or a leaf, or have come."""
        return target in self._targets

    def at_end(self, call: Callable[[], object]) -> None:
        """Call a function when the run is over, however it ends."""
        self._at_end.append(call)

    def finish(self) -> None:
        """The end of the run."""
        for call in self._at_end:
            call()

    def run(self) -> None:
        ready, buffers, pending = self.ready, self.buffers, self.pending
        everywhere, frees = self.captures is None and trace_state.watcher is None, not self.keep_graph
        native = eager.engine if everywhere and not mode.grad and not mode.inference and active() is None else None
        walk, add = (None, None) if native is None else (native[0], eager.functions.get(ops.add, ops.add))
        node: Node | None = None
        while True:
            if node is None:
                if not ready:
                    return
                node = heapq.heappop(ready)[1]
            if walk is not None and isinstance(node, (OpNode, CompiledNode)):
                node = walk(node, ready, buffers, pending, frees, self._leaf, self._add, add)
                if node is None:
                    continue
                if isinstance(node, (OpNode, CompiledNode)):
                    eager.run_by_python(node.plan if isinstance(node, OpNode) else node.how)
            edges = node.edges
            cotangents = buffers.pop(node, None)
            results: Any = None
            if cotangents is None:
                pass
            elif everywhere and not node.watched and not anomaly.enabled:
                results = node.apply(cotangents)
                if frees:
                    node.free()
                if not isinstance(node, OpNode) or type(results) is not list:
                    results = list(results)
            else:
                results = self._results(node, cotangents)
            following: Node | None = None
            i = -1
            for edge in edges:
                i += 1
                if edge is None:
                    continue
                target = edge[0]
                left = pending.get(target)
                if left is None:
                    continue
                if results is not None and results[i] is not None:
                    if target in buffers or (isinstance(target, Node) and target.outputs != 1):
                        self._add(edge, results[i])
                    else:
                        buffers[target] = [results[i]]
                    results[i] = None  # so that a leaf can tell whether it is the only owner
                pending[target] = left - 1
                if left == 1:
                    if not isinstance(target, Node):
                        self._leaf(target)
                    elif following is None:
                        following = target
                    else:
                        heapq.heappush(ready, (-target.sequence, target))
            if following is not None and ready and -ready[0][0] > following.sequence:
                following = heapq.heapreplace(ready, (-following.sequence, following))[1]
            node = following

    def _results(self, node: Node, cotangents: list[Tensor | None]) -> list[Any] | None:
        """What a node sends on, where that or what comes to it is watched; None where nobody waits for it."""
        goes_on = any(edge is not None and edge[0] in self.pending for edge in node.edges)
        self._watchers(node, cotangents, goes_on)
        return list(self._apply(node, cotangents)) if goes_on else None

    def _arrived(self, target: Target) -> None:
        """Everything that flows into the target has come."""
        if isinstance(target, Node):
            heapq.heappush(self.ready, (-target.sequence, target))
        else:
            self._leaf(target)

    def _add(self, edge: tuple[Target, int], ct: Tensor) -> None:
        target, index = edge
        buffer = self.buffers.get(target)
        if buffer is None:
            self.buffers[target] = buffer = [None] * (target.outputs if isinstance(target, Node) else 1)
        there = buffer[index]
        buffer[index] = ct if there is None else ops.add(there, ct)

    def _apply(self, node: Node, cotangents: list[Tensor | None]) -> Sequence[Any]:
        if node.prehooks:
            for hook in list(node.prehooks.values()):
                cotangents = list(_replaced(hook, hook(tuple(cotangents)), cotangents))
        results: Sequence[Any]
        if trace_state.watcher is not None:
            results = trace_state.watcher.run(node, node.apply, cotangents)
        else:
            results = _watched(node, cotangents) if anomaly.enabled else node.apply(cotangents)
        if not self.keep_graph:
            node.free()
        if node.hooks:
            for hook in list(node.hooks.values()):
                results = _replaced(hook, hook(tuple(results), tuple(cotangents)), results)
        return results

    def _watchers(self, node: Node, cotangents: list[Tensor | None], goes_on: bool) -> None:
        """Hooks, retained gradients and captures of the tensors that are outputs of the node.

        As in PyTorch, what is captured on the way to other inputs is the gradient before the hooks have seen it.
        """
        if goes_on:
            self._capture(node, cotangents)
        if node.tensor_prehooks is not None:
            for index, hooks in node.tensor_prehooks.items():
                cotangents[index] = _hooked(hooks.values(), cotangents[index])
        if node.retainers is not None:
            for index, reference in node.retainers.items():
                tensor, ct = reference(), cotangents[index]
                if tensor is not None and ct is not None:
                    old = tensor._get_grad()
                    tensor._set_grad(ct if old is None else ops.add(old, ct))
        if not goes_on:
            self._capture(node, cotangents)

    def _capture(self, node: Node, cotangents: list[Tensor | None]) -> None:
        if self.captures is not None:
            for index, ct in enumerate(cotangents):
                if (node, index) in self.captures:
                    self.captures[node, index] = ct

    def _leaf(self, leaf: Tensor) -> None:
        buffer = self.buffers.pop(leaf, None)
        if buffer is None or buffer[0] is None:
            return
        ct = buffer.pop()
        del buffer
        meta = leaf._state()
        assert ct is not None
        if is_on_device(leaf._data) and type(ct._data) is np.ndarray:  # zeros, which the rule of an op has made of nothing
            ct = ct.to(leaf.device)
        if meta.hooks:
            ct = _hooked(meta.hooks.values(), ct)
        if not self.accumulate:
            if self.captures is not None and (leaf, 0) in self.captures:
                self.captures[leaf, 0] = ct
            return
        ct = match(ct, leaf._data.shape, leaf._data.dtype)
        accumulator = None if meta.accumulator is None else meta.accumulator()
        if accumulator is not None:
            for hook in list(accumulator.prehooks.values()):
                (ct,) = _replaced(hook, hook((ct,)), [ct])
        old = leaf._get_grad()
        if old is None:
            leaf._set_grad(_owned(ct, leaf._data))
        elif mode.grad:
            leaf._set_grad(ops.add(old, ct))
        else:
            old.add_(ct)
        if meta.post_hooks:
            for hook in list(meta.post_hooks.values()):
                if hook(leaf) is not None:
                    raise AutogradError("Tensor post accumulate grad hooks should return None.",
                                        hint="change the gradient in place, as in leaf.grad.mul_(2)")
        if accumulator is not None:
            for hook in list(accumulator.hooks.values()):
                hook((), (ct,))


def _replaced(hook: Any, changed: Any, given: Sequence[Any]) -> Sequence[Any]:
    """What a node's hook makes of gradients: what it returned, if anything."""
    if changed is None:
        return given
    if len(given) == 1 and isinstance(changed, Tensor):
        return [changed]
    if not isinstance(changed, (tuple, list)):
        raise ArgumentTypeError(f"expected tuple, but hook returned '{type(changed).__name__}'",
                                expected=f"{len(given)} gradients, or None to leave them as they are")
    if len(changed) != len(given):
        raise AutogradError(f"hook '{getattr(hook, '__name__', hook)}' has returned an incorrect number of values (got "
                            f"{len(changed)}, but expected {len(given)})")
    return list(changed)


def _watched(node: Node, cotangents: list[Tensor | None]) -> Sequence[Any]:
    """What the node computes, in anomaly mode."""
    try:
        results = node.apply(cotangents)
        for i, ct in enumerate(results):
            if anomaly.check_nan and ct is not None and ct.dtype.is_differentiable:
                known = ct._known()
                if known is not None and np.isnan(known).any():
                    raise AutogradError(f"Function '{node.name()}' returned nan values in its {i}th output.")
    except Exception:
        lines = "".join(node.metadata.get("traceback_", ()))
        warnings.warn(
            f"Error detected in {node.name()}. Traceback of forward call that caused the error:\n{lines}" if lines else
            f"Error detected in {node.name()}. No forward pass information available. Enable detect anomaly during forward "
            "pass for more information.", stacklevel=2)
        raise
    return results


def _hooked(hooks: Iterable[Any], ct: Any) -> Any:
    if ct is not None:
        for hook in list(hooks):
            changed = hook(ct)
            if changed is not None:
                if not isinstance(changed, Tensor):
                    raise ArgumentTypeError(f"expected Variable, but hook returned '{type(changed).__name__}'")
                if changed._data.shape != ct._data.shape:
                    raise AutogradError("hook has changed the size of value", expected=str(ct.shape), got=str(changed.shape))
                ct = changed
    return ct


def _owned(ct: Any, like: Any) -> Tensor:
    """A gradient that nobody else refers to, and that lies in memory as its leaf does: the cotangent itself if that is so,
    else a copy. What has a gradient of its own remains what was computed."""
    if active() is not None:
        return ct
    array = ct._data
    if is_on_device(array):
        # ct: this frame, the caller's, and the argument; the array: the tensor, the name, the argument. Views are tied to ct
        if sys.getrefcount(ct) <= 3 and sys.getrefcount(array) <= 3 and ct._node is None and ct._meta is None:
            return ct
        return ops.cast(ct, dtype=ct.dtype) if mode.grad else wrap(device_ops.copied(array))
    owner = array if array.base is None else array.base
    # ct: this frame, the caller's, and getrefcount's argument; the array: the tensor, two names here, the argument;
    # where it is a view of fresh memory, that is held by the view and by the name
    alone = (
        sys.getrefcount(ct) <= 3
        and isinstance(owner, np.ndarray)
        and sys.getrefcount(owner) <= (4 if owner is array else 3)
        and (owner is array or sys.getrefcount(array) <= 3)
    )
    if alone and array.flags.writeable and ct._node is None and 0 not in array.strides and _lies_as(array, like):
        meta = ct._meta
        if meta is None or (meta.view is None and not meta.requires_grad):
            return ct
        return wrap(array)
    if mode.grad:
        return ops.cast(ct, dtype=ct.dtype)
    made = np.empty_like(like, array.dtype)
    np.copyto(made, array)
    return wrap(made)


def _lies_as(array: np.ndarray, like: np.ndarray) -> bool:
    return array.strides == like.strides or (array.flags.c_contiguous and like.flags.c_contiguous)


def leaves_below(edge: Edge) -> set[int]:
    """The ids of the leaves that a cotangent may come to from an edge."""
    return set() if edge is None else {id(t) for t in _dependencies([edge[0]], None) if isinstance(t, Tensor)}


def _dependencies(starts: Sequence[Target], wanted: set[Target] | None) -> dict[Target, int]:
    """How many edges lead into each target that is to be visited. With `wanted`, only what leads to those."""
    stack: list[Target] = list(starts)
    if wanted is None:
        counts = dict.fromkeys(starts, 0)
        if eager.engine is not None:
            eager.engine[1](stack, counts)
            return counts
        while stack:
            target = stack.pop()
            for edge in target.edges if isinstance(target, Node) else ():
                if edge is not None:
                    child = edge[0]
                    if child in counts:
                        counts[child] += 1
                    else:
                        counts[child] = 1
                        stack.append(child)
        return counts
    reached: dict[Target, list[Target]] = {}
    while stack:
        target = stack.pop()
        if target in reached:
            continue
        children = [edge[0] for edge in target.edges if edge is not None] if isinstance(target, Node) else []
        reached[target] = children
        stack.extend(children)
    keep: set[Target] = set()
    # inputs were made before what was computed from them: by age, each node comes after its children
    for target in sorted(reached, key=lambda t: t.sequence if isinstance(t, Node) else -1):
        if target in wanted or any(child in keep for child in reached[target]):
            keep.add(target)
    reached = {target: [c for c in children if c in keep] for target, children in reached.items() if target in keep}
    counts = dict.fromkeys(reached, 0)
    for children in reached.values():
        for child in children:
            counts[child] += 1
    return counts

