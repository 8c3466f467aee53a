"""Tracing the functions that control flow runs: a branch, or the body of a loop, becomes a graph of its own.

What such a function finds outside, in a closure or a module, becomes an input of its graph, and so an operand of the op
that runs it. What it changes in place outside is a further result, which is written back when the op has run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.errors import Location, TraceError
from graphc.frontend import from_data
from graphc.frontend.described import as_dtype
from graphc.frontend.device import CPU, device
from graphc.frontend.modes import mode
from graphc.frontend.pytree import Structure, flatten, unflatten
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import BegunState, activated, active
from graphc.ir import Builder, Graph, Value, with_inputs
from graphc.op import OpDef
from graphc.types import TensorType

_LARGEST_CONSTANT = 64
"""Elements of a tensor that is made in the function and becomes a constant. More would be copied for each trace."""


def type_of(tensor: Tensor) -> TensorType:
    """The type that a tensor has for the code that runs now."""
    data = tensor._data
    return data.type if isinstance(data, Value) else TensorType(as_dtype(data.dtype), tuple(data.shape))


class BodyTrace:
    """A trace within whatever runs outside: an active tracer (see graphc.frontend.tracer)."""

    answers = False

    def __init__(self, name: str) -> None:
        self.builder = Builder(name)
        self.around = active()
        self.captured: list[Tensor] = []
        self._inputs: dict[int, Value] = {}
        self._made: dict[int, Tensor] = {}
        self._current: dict[int, Value] = {}
        self._views: dict[tuple[int, Value], Value] = {}
        self._nodes: list[Any] = []
        self._alive: list[Any] = []  # ids must not be used again while the trace runs

    # What the front end asks

    def apply(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Value | tuple[Value, ...]:
        """Append a node."""
        operands = tuple(self.value(a) if isinstance(a, Tensor) else a for a in args)
        result = self.builder.emit(record, operands if record.operands else (), attrs)
        if not mode.grad and any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return tuple(map(_stopped, result)) if isinstance(result, tuple) else _stopped(result)
        return result

    def value(self, tensor: Tensor) -> Value:
        """The tensor's contents as they are at this point of the trace."""
        view = None if tensor._meta is None else tensor._meta.view
        base = None if view is None else view.base
        if view is None or base is None:
            return self._root(tensor)
        if id(base) not in self._current:
            return tensor._data if self._owns(tensor) else self._root(tensor)
        now = self._root(base)
        key = (id(tensor), now)
        if key not in self._views:
            self._alive.append(tensor)
            read = view.read(now)
            self._views[key] = read if view.tracked else _stopped(read)
        return self._views[key]

    def write(self, tensor: Tensor, value: Value) -> None:
        """The tensor holds `value` from here on, and so do its views and its base."""
        view = None if tensor._meta is None else tensor._meta.view
        if view is not None and view.base is not None:
            value, tensor = view.write(self._root(view.base), value), view.base
        else:
            self._root(tensor)
        self._alive.append(tensor)
        self._current[id(tensor)] = value

    def replace(self, tensor: Tensor, new: Tensor) -> None:
        """The tensor holds what the other one does."""
        self.write(tensor, self.value(new))

    def turn(self, tensor: Tensor) -> None:
        """There is nothing to prepare."""

    def get_grad(self, tensor: Tensor) -> Tensor | None:
        """`tensor.grad`, of tensors that are made here."""
        self._refuse_gradient(tensor)
        return None if tensor._meta is None else tensor._meta.grad

    def set_grad(self, tensor: Tensor, grad: Tensor | None) -> None:
        """`tensor.grad = grad`, of tensors that are made here."""
        self._refuse_gradient(tensor)
        tensor._state().grad = grad

    def concrete(self, tensor: Tensor, what: str) -> Any:
        """There are no numbers: a TraceError that names the user's line."""
        raise TraceError(
            f"{what} needs the numbers of a tensor inside of {self.builder.name!r}, which runs as part of a graph",
            expected="code that does not look at the values of tensors", got=f"{what} of {self.value(tensor).type}",
            hint="choose with where(condition, a, b) or cond(), and keep the value a tensor",
        )  # fmt: skip

    def tells_of(self, tensor: Tensor) -> bool:
        """It never has one."""
        return False

    def decide(self, tensor: Tensor, kind: Any, what: str) -> Any:
        """As `concrete`."""
        return self.concrete(tensor, what)

    def number(self, tensor: Tensor) -> Any:
        """As `concrete`."""
        return self.concrete(tensor, "item()")

    def begin_backward(self) -> None:
        """A backward pass begins in the body: there is nothing that is kept for it from outside."""

    def compute_later(self, tensor: Tensor) -> Tensor:
        """The tensor as it is. Nothing is kept for a backward pass from a body."""
        return tensor

    def records(self, tensor: Tensor) -> bool:
        """All tensors may have a history within the trace."""
        return True

    def call_function(self, function: Any, args: Sequence[Any]) -> Any:
        """Apply a user-defined `Function`: the operations of its forward are recorded."""
        return function.run(args)

    def device_of(self, tensor: Tensor) -> device:
        """The one that the whole graph runs on."""
        with activated(self.around):
            return next((known.device for known in self.captured if not known.is_cpu), CPU)

    def transfer(self, tensor: Tensor, where: device) -> Value:
        """The same: a graph runs on one device."""
        return self.value(tensor)

    def made(self, tensor: Tensor) -> None:
        """A tensor of numbers in the code is a constant."""
        if type(tensor._data) is np.ndarray and tensor._data.size <= _LARGEST_CONSTANT:
            self._made[id(tensor)] = tensor

    def aliased(self, tensor: Tensor) -> None:
        """It is so for the code outside, too."""
        if self.around is not None:
            self.around.aliased(tensor)

    def scalar(self, mapping: Mapping[str, Any], key: str) -> Any:
        """`mapping[key]`, as the code outside sees it."""
        return mapping[key] if self.around is None else self.around.scalar(mapping, key)

    def begun(self, begun: BegunState) -> None:
        """That is for the code outside to know."""
        if self.around is not None:
            self.around.begun(begun)

    # Afterwards

    def updates(self) -> list[tuple[Tensor, Value]]:
        """The tensors from outside that were changed in place, with what they hold in the end."""
        return [(t, self._current[id(t)]) for t in self.captured if id(t) in self._current]

    def check_histories(self) -> None:
        """TraceError where a tensor from outside has got a history inside: it could not be kept."""
        for tensor, node in self._nodes:
            if tensor._node is not node:
                raise TraceError(
                    f"{self.builder.name!r} changes a tensor from outside in place in a way that autograd would have to know "
                    f"of: {type_of(tensor)}",
                    expected="in-place changes of tensors from outside under no_grad(), or with values that need no gradient",
                    hint="return the new value instead",
                )

    def restore(self) -> None:
        """The end, good or bad."""
        self.builder.abandon()
        for tensor, node in self._nodes:
            tensor._node = node

    # Within

    def _owns(self, tensor: Tensor) -> bool:
        return isinstance(tensor._data, Value) and tensor._data.builder is self.builder

    def _root(self, tensor: Tensor) -> Value:
        now = self._current.get(id(tensor))
        if now is not None:
            return now
        if self._owns(tensor):
            return tensor._data
        if id(tensor) in self._made:
            return self.builder.constant(tensor._data)
        known = self._inputs.get(id(tensor))
        if known is None:
            known = self._inputs[id(tensor)] = self.builder.input(None, type_of(tensor))
            self.captured.append(tensor)
            self._nodes.append((tensor, tensor._node))
        return known

    def _refuse_gradient(self, tensor: Tensor) -> None:
        if not self._owns(tensor):
            raise TraceError(
                f".grad of a tensor from outside is used inside of {self.builder.name!r}, which runs as part of a graph",
                expected="gradients of tensors that the function has made",
                hint="use graphc.func.grad, or autograd.grad() with respect to what the function computes",
            )


def _stopped(value: Value) -> Value:
    return ops.stop_gradient(value) if value.dtype.is_differentiable else value


@dataclass(frozen=True, eq=False)
class Body:
    """A function as a graph."""

    graph: Graph
    """Inputs: the arguments, then the captured tensors. Outputs: the results, then the updates."""
    structure: Structure
    """How the results are nested."""
    captured: list[Tensor]
    updated: list[Tensor]
    """The captured tensors that are changed in place, in the order of the updates."""

    @property
    def types(self) -> list[TensorType]:
        """Of the results."""
        outputs = self.graph.outputs
        return [value.type for value in outputs[: len(outputs) - len(self.updated)]]

    def with_inputs(self, types: Sequence[TensorType], places: Sequence[int], outputs: Sequence[int]) -> Graph:
        """The graph with inputs of these types, of which its own are those at `places`, and with these of its outputs;
        a negative number -1 - i stands for input i as it is."""
        graph = with_inputs(self.graph, types, dict(enumerate(places)))
        results = [graph.inputs[-1 - j] if j < 0 else graph.outputs[j] for j in outputs]
        return Graph(graph.name, graph.inputs, graph.nodes, results)


def trace_body(
    function: Callable[..., Any], like: Sequence[Tensor], types: Sequence[TensorType], structure: Structure,
    named: Callable[..., Any], carries: int = 0,
) -> Body:
    """Trace a function of arguments of these types, nested as `structure` says; its results are tensors and numbers.

    like
        For each argument a tensor that requires grad if the argument does. The first `carries` ones are carried from step to
        step: they do so too where the first results do.
    named
        The user's own function, which `function` calls.
    """
    requires = [mode.grad and x.requires_grad for x in like]
    while True:
        trace = BodyTrace(re.sub(r"\W", "", getattr(named, "__name__", "")) or "body")
        arguments = [wrap(trace.builder.input(None, type_)) for type_ in types]
        for argument, wanted in zip(arguments, requires):
            if wanted:
                argument._state().requires_grad = True  # so that what runs under no_grad() is not differentiated
        try:
            with activated(trace):
                leaves, result = flatten(function(*unflatten(structure, arguments)))
                results = as_tensors(leaves, named)
                come = [own or x.requires_grad for own, x in zip(requires, results[:carries])]
                if come != requires[: len(come)]:
                    requires[: len(come)] = come
                    continue
                values = [trace.value(x) for x in results]
                trace.check_histories()
                updates = trace.updates()
            graph = trace.builder.finish([*values, *(value for _, value in updates)])
        finally:
            trace.restore()
        return Body(graph, result, trace.captured, [t for t, _ in updates])


def as_tensors(leaves: Sequence[Any], function: Callable[..., Any]) -> list[Tensor]:
    """Tensors as they are, and numbers as tensors; TraceError for anything else."""
    for leaf in leaves:
        if not isinstance(leaf, (Tensor, bool, int, float, complex)):
            raise TraceError(f"{described(function)} returns a {type(leaf).__name__}",
                             expected="tensors and numbers, perhaps nested")
    return [leaf if isinstance(leaf, Tensor) else from_data.tensor(leaf) for leaf in leaves]


def described(function: Callable[..., Any]) -> str:
    """The function with its line."""
    name = getattr(function, "__name__", type(function).__name__)
    code = getattr(getattr(function, "forward", function), "__code__", None)
    return name if code is None else str(Location(code.co_filename, code.co_firstlineno, name))
