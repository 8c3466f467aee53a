"""From Python code to graphs that stand on their own: `trace`, and `export` to a program that can be saved."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc.passes.pipeline as pipeline
from graphc.errors import ArgumentTypeError, TraceError
from graphc.frontend.pytree import Structure, flatten, unflatten
from graphc.frontend.tensor import Tensor
from graphc.frontend.trace import Argument, Captured, Lifted, Trace, graph_name, parameter_names
from graphc.frontend.tracer import activated
from graphc.ir import Graph


@dataclass(frozen=True, eq=False)
class Traced:
    """What tracing a function for export found."""

    graph: Graph
    """Inputs: the tensors among the arguments, in order, then the captured ones."""
    captured: tuple[Tensor, ...]
    inputs: Structure
    """How the arguments are nested; every leaf is a tensor."""
    outputs: Structure
    """How the results are nested."""


def trace(function: Callable[..., Any], example_inputs: Sequence[Any]) -> Graph:
    """Write down what a function does with tensors like the example's, as a graph.

    The graph's inputs are the example's tensors in order, then the tensors that the function found by itself (a
    module's parameters, by name). Nothing is computed.

    >>> import graphc
    >>> print(graphc.trace(lambda a: graphc.relu(a) * 2, (graphc.ones(3),)))
    graph @main(%a: float32[3]) -> float32[3] {
      %0 = relu(%a) : float32[3]
      %1 = constant() {value = 2.0} : float32[]
      %2 = broadcast_to(%1) {shape = [3]} : float32[3]
      %3 = mul(%0, %2) : float32[3]
      return %3
    }

    Raises TraceError where the code looks at the values of tensors, naming the line, and where it changes tensors that
    it does not own.
    """
    return trace_function(function, example_inputs).graph


def trace_function(function: Callable[..., Any], example_inputs: Sequence[Any]) -> Traced:
    """`trace`, with all that `export` needs."""
    if isinstance(example_inputs, (Tensor, Mapping)) or not isinstance(example_inputs, Sequence):
        raise ArgumentTypeError("the example inputs are not a tuple", expected="a tuple or list of arguments, as in (x,)",
                                got=type(example_inputs).__name__)
    args = tuple(example_inputs)
    leaves, structure = flatten(args)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise ArgumentTypeError(f"cannot export an argument of type {type(leaf).__name__}", expected="tensors, perhaps nested",
                                    hint="fix other arguments with a lambda or functools.partial")
    # stand-ins, so that each argument is an input of its own even where one tensor is passed twice
    inside = [leaf.detach() for leaf in leaves]
    tracer = Trace(graph_name(function), inside, parameter_names(function))
    try:
        with activated(tracer):
            for tensor, name in zip(inside, _input_names(function, args)):
                tracer.declare(tensor, name)
            result = function(*unflatten(structure, inside))
            results, result_structure = flatten(result)
            outputs = []
            for leaf in results:
                if not isinstance(leaf, Tensor):
                    raise TraceError(f"the function returns a {type(leaf).__name__}", expected="tensors, perhaps nested")
                outputs.append(tracer.value(leaf))
        changed = [tracer.inputs[i] for i, _ in tracer.updates()]
        if changed:
            raise TraceError(
                f"{tracer.builder.name!r} changes {_described(changed[0])} in place, which an exported graph cannot",
                expected="a function of its inputs alone",
                hint="call .eval() on the module first: batch norm and dropout change their state while training",
            )
        graph = tracer.builder.finish(outputs)
    finally:
        tracer.builder.abandon()
    captured = tuple(x.source.tensor for x in tracer.inputs if isinstance(x.source, Captured))
    if len(captured) + len(inside) != len(tracer.inputs):
        raise TraceError(f"{graph.name!r} reads gradients or numbers that change from call to call",
                         expected="a function of its inputs and of tensors")
    return Traced(pipeline.run(graph, ("prune",)), captured, structure, result_structure)


def _described(lifted: Lifted) -> str:
    if isinstance(lifted.source, Argument):
        return f"argument {lifted.source.index}"
    return str(lifted.value.info.get("param", lifted.value))


def _input_names(function: Callable[..., Any], args: tuple[Any, ...]) -> list[str | None]:
    """Names of the tensors among the arguments: the parameters' names, with the path inside nested ones."""
    target = getattr(function, "forward", function)
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names: list[str | None] = []
    for i, arg in enumerate(args):
        plain = i < len(parameters) and parameters[i].kind in (
            inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        base = parameters[i].name if plain else f"input{i}"
        count = len(flatten(arg)[0])
        names += [base] if isinstance(arg, Tensor) else [f"{base}.{k}" for k in range(count)]
    return names


class Program:
    """An exported function: a graph, the weights that it reads, and the shape of its arguments and results.

    Called with tensors like the example's it returns tensors, nested as the function returned them. `graphc.save` writes
    it to a file that needs none of the code it was made from.
    """

    def __init__(self, graph: Graph, weights: Mapping[str, np.ndarray], inputs: Structure, outputs: Structure) -> None:
        self.graph = graph
        self.weights = dict(weights)
        self.inputs = inputs
        self.outputs = outputs
