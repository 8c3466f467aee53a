"""One call of a function that Python runs, its operations written down as they come."""

from __future__ import annotations

import contextlib
import inspect
import operator
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import TraceError
from graphc.frontend.call_key import has_history
from graphc.frontend.capture import Capture
from graphc.frontend.effects import Effect, Watch
from graphc.frontend.follower import Follower, Values
from graphc.frontend.guards import Snapshot
from graphc.frontend.modes import mode
from graphc.frontend.pytree import flatten, unflatten
from graphc.frontend.segments import Tree
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace import Number, NumbersNeeded, Trace, parameter_names
from graphc.frontend.tracer import activated
from graphc.ir import Graph
from graphc.types import Shape


class Recording:
    """What Python did in one call.

    Without a tree, or with `fullgraph`, code that looks at numbers is refused. With one, it is told those of the present
    call; and if it has asked for any, or left tensors in Python's state, the call is over when it has run: see `is_done`.
    With a tree, an exception of the function's leaves behind what it would leave eagerly; without, nothing.
    """

    graph: Graph
    """The whole call as one graph, unless it is done."""
    effects: list[Effect]
    """What the function did besides computing tensors, unless it is known that Python runs it at each call."""

    def __init__(
        self, function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any], backend: str | None,
        shapes: Mapping[int, Shape] | None = None, tree: Tree | None = None, known: Values | None = None,
        by_python: bool = False, watched: bool = True, fullgraph: bool = False,
    ) -> None:
        """`shapes` has shapes with symbols for some of the tensors among the leaves, by their number; `known` are values of
        the tree for this call. With `by_python`, the call is done in any case. It is `watched` unless it is known what the
        function asks of the world."""
        self.function = function
        self.backend = backend
        self._arguments = args, kwargs
        self.leaves, self.structure = flatten((args, kwargs))
        self.inside = _stand_ins(self.leaves, shapes or {})
        with_history = [x for x, own in zip(self.inside, self.leaves) if has_history(own)]
        self.trace = trace = Trace(name, self.inside, parameter_names(function), with_history)
        for i, shape in (shapes or {}).items():
            trace.declare_sizes(self.inside[i], shape)
        inside_args, inside_kwargs = unflatten(self.structure, self.inside)
        self.objects = [leaf for leaf in self.leaves if not isinstance(leaf, Tensor)]
        self.before = Snapshot(function, self.objects)
        self.tree = tree
        self.is_done = False
        """Whether the call has been computed, and only its end is still to come about."""
        self.refused: str | None = None
        """Why the call can only be run eagerly; None if it need not."""
        watch = Watch(self.before) if watched else None
        follower = None if tree is None else Follower(trace, tree, known)
        if not fullgraph:
            trace.oracle = follower
        self._outputs: list[np.ndarray] = []
        try:
            with activated(trace):
                try:
                    with contextlib.nullcontext() if watch is None else watch.looking():
                        result = function(*inside_args, **inside_kwargs)
                    _refuse_async(result, name)
                except TraceError:
                    raise
                except Exception:
                    if follower is not None:
                        follower.leave(self.leaves)
                    raise
                self.changed = self.before.changed()
                """What of Python's state is different now."""
                self.effects = [] if watch is None else watch.effects()
                left = self._left_behind(function) if self.changed is not None and trace.oracle is not None else []
                self.capture = Capture(trace, self.inside, result, self.before.tensors, left)
                trace.oracle = None
                self.is_done = follower is not None and (
                    follower.asked or bool(left) or by_python or (not fullgraph and self.asks_the_world is not None)
                )
                try:
                    if follower is not None and self.is_done:
                        self._outputs = follower.finish(self.capture, backend)
                    else:
                        self.capture.differentiate(trace, backend)
                except NumbersNeeded as error:
                    if follower is None or fullgraph:
                        raise
                    self.refused, self.is_done = str(error).partition("\n")[0], True
            if not self.is_done:
                self.graph = self.capture.graph(trace)
        finally:
            trace.restore()
        after, structure_after = flatten((inside_args, inside_kwargs))
        if structure_after != self.structure or not all(map(operator.is_, after, self.inside)):
            warnings.warn(
                f"{name} changes a container among its arguments: a compiled call works on copies of containers, and the "
                "caller's stays as it is; return what is new instead",
                stacklevel=5,
            )

    @property
    def asks_the_world(self) -> str | None:
        """What the function is going to do at each call besides computing tensors."""
        return next((str(effect) for effect in self.effects if effect.lasting), None)

    @property
    def settling(self) -> bool:
        """Whether an optimizer made its state meanwhile: its first step may be another computation than all that follow."""
        return self.changed is not None and ".state" in self.changed

    def numbers(self) -> set[tuple[int, str]]:
        """What was read from mappings, and is at each call: (id of the mapping, key)."""
        return {(id(x.source.mapping), x.source.key) for x in self.trace.inputs if isinstance(x.source, Number)}

    def pinned(self, snapshot: Snapshot) -> dict[int, Tensor]:
        """The arguments, by number, that the function also finds by itself, in a state of the world."""
        return {i: x for i, x in enumerate(self.leaves) if x is self.inside[i] and id(x) in snapshot.tensors}

    def finish(self) -> Any:
        """Bring about the end of a call that is done: what it changed is written back. Returns its result."""
        if self.refused is not None:
            args, kwargs = self._arguments
            return self.function(*args, **kwargs)
        capture = self.capture
        tensors = capture.tensors(self.leaves)
        capture.check_writable(tensors)
        for j, i in capture.updates:
            tensors[i]._data[...] = self._outputs[j]
            self._outputs[j] = tensors[i]._data
        return capture.finish(self.leaves, tensors, self._outputs)

    def _left_behind(self, function: Callable[..., Any]) -> list[Tensor]:
        """Tensors of the trace that the function has put where it finds them again."""
        found = Snapshot(function, self.objects).made
        return [tensor for tensor in found if tensor._data.builder is self.trace.builder]


def _refuse_async(result: Any, name: str) -> None:
    if inspect.isawaitable(result) or isinstance(result, AsyncIterator):
        if inspect.iscoroutine(result):
            result.close()  # it would complain that nobody awaited it
        raise TraceError(f"{name!r} is an async function", expected="a function that returns when it is done")


def _stand_ins(leaves: Sequence[Any], shapes: Mapping[int, Shape]) -> list[Any]:
    """The leaves as the traced function sees them. A tensor with a history is replaced by one without, so that the tape of
    the trace ends at the function's door, and a view by a tensor on the same memory that knows nothing of its base: the
    graph must stand for any other view. So is one that is to have symbolic sizes."""
    made: dict[int, Tensor] = {}
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and id(leaf) not in made and (has_history(leaf) or leaf._is_view() or i in shapes):
            made[id(leaf)] = wrap(leaf._data).requires_grad_(leaf.requires_grad and mode.grad)
    return [made.get(id(leaf), leaf) for leaf in leaves]
