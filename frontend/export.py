"""From Python code to graphs that stand on their own: `trace`, and `export` to a program that can be saved."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import graphc.passes.pipeline as pipeline
import graphc.runtime as runtime
from graphc.assumptions import Relation
from graphc.bind import substitute
from graphc.conditions import written
from graphc.dims import answering
from graphc.errors import ArgumentTypeError, TraceError
from graphc.frontend import define
from graphc.frontend.dynamic_shapes import Dim, NamedSizes
from graphc.frontend.pytree import flatten, unflatten
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace import Argument, Captured, Lifted, Trace, graph_name, parameter_names
from graphc.frontend.tracer import activated
from graphc.ir import Builder, Graph, Value, copy_node
from graphc.package import Entry
from graphc.package.structure import describe
from graphc.passes.prune import prune


@dataclass(frozen=True, eq=False)
class Traced:
    """What tracing a function for export found."""

    graph: Graph
    """Inputs: the tensors among the arguments, in order, then the captured ones."""
    captured: tuple[Tensor, ...]
    outputs: Any
    """The result: nested tensors."""


def trace(function: Callable[..., Any], example_inputs: Sequence[Any]) -> define.Graph:
    """Write down what a function does with tensors like the example's, as a graph. Nothing is computed.

    `graph.inputs` are to be fed: the example's tensors, in order. `graph.captured` are the tensors that the function found by
    itself, such as a module's parameters; in the text they are inputs, too, with their names. `graph.outputs` are the results.
    `graphc.Session(graph)` runs it.

    >>> import graphc
    >>> print(graphc.trace(lambda a: graphc.relu(a) * 2, (graphc.ones(3),)))
    graph @lambda(%a: float32[3]) -> float32[3] {
      %0 = relu(%a) : float32[3]
      %1 = constant() {value = 2.0} : float32[]
      %2 = broadcast_to(%1) {shape = [3]} : float32[3]
      %3 = mul(%0, %2) : float32[3]
      return %3
    }

    Raises TraceError where the code looks at the values of tensors, naming the line, and where it changes tensors that
    it does not own.
    """
    traced = trace_function(function, example_inputs)
    return define.Graph.from_ir(traced.graph, traced.captured)


def trace_function(function: Callable[..., Any], example_inputs: Sequence[Any], dynamic_shapes: Any = None) -> Traced:
    """`trace`, with all that `export` needs."""
    if not isinstance(example_inputs, (tuple, list)):
        raise ArgumentTypeError("the example inputs are not a tuple", expected="a tuple or list of arguments, as in (x,)",
                                got=type(example_inputs).__name__)
    args = tuple(example_inputs)
    leaves, structure = flatten(args)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise ArgumentTypeError(f"cannot trace an argument of type {type(leaf).__name__}",
                                    expected="tensors, perhaps nested",
                                    hint="fix other arguments with a lambda or functools.partial")
    # stand-ins, so that each argument is an input of its own even where one tensor is passed twice
    inside = [wrap(leaf._data) for leaf in leaves]
    tracer = Trace(graph_name(function), inside, parameter_names(function))
    names = _input_names(function, args)
    sizes = None if dynamic_shapes is None else NamedSizes(function, args, names, dynamic_shapes)
    try:
        with activated(tracer), nullcontext() if sizes is None else answering(sizes.sizes):
            for i, (tensor, name) in enumerate(zip(inside, names)):
                if sizes is not None and i in sizes.shapes:
                    tracer.declare_sizes(tensor, sizes.shapes[i], name)
                else:
                    tracer.declare(tensor, name)
            result = function(*unflatten(structure, inside))
            outputs = []
            for leaf in flatten(result)[0]:
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
        tracer.restore()
    if sizes is not None:
        sizes.check()
        graph = _conditional(substitute(graph, sizes.sizes.solved), sizes.conditions())
    captured = tuple(x.source.tensor for x in tracer.inputs if isinstance(x.source, Captured))
    if len(captured) + len(inside) != len(tracer.inputs):
        raise TraceError(f"{graph.name!r} reads gradients or numbers that change from call to call",
                         expected="a function of its inputs and of tensors")
    return Traced(prune(graph), captured, result)


def _conditional(graph: Graph, conditions: Sequence[Relation]) -> Graph:
    """The graph with conditions on its sizes."""
    builder = Builder(graph.name, locations=False)
    new: dict[Value, Value] = {}
    for i, value in enumerate(graph.inputs):
        new[value] = builder.input(value.name, value.type, **value.info, **(written(conditions) if not i else {}))
    for node in graph.nodes:
        new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
    return builder.finish([new[v] for v in graph.outputs], graph.output_names)


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


def export(function: Callable[..., Any], example_inputs: Sequence[Any], *, dynamic_shapes: Any = None) -> Program:
    """Turn a function or a module into a program that needs none of the code it was made from.

    The tensors that it reads, such as a module's parameters, are copied: training on does not change the program. It takes
    tensors of the example's types; what the function did not look at but Python values (flags, sizes) is fixed.

    >>> import graphc
    >>> program = graphc.export(graphc.nn.Linear(2, 1), (graphc.ones(3, 2),))
    >>> program.signature
    'forward(input: float32[3, 2]) -> (output: float32[3, 1])'

    dynamic_shapes
        The sizes that may change: by parameter, or one entry for each argument, and for each tensor a dict of dimensions
        or an entry for each: a `graphc.Dim`, `Dim.AUTO`, or None for the size of the example.

    >>> batch = graphc.Dim("batch", max=64)
    >>> program = graphc.export(graphc.nn.Linear(2, 1), (graphc.ones(3, 2),), dynamic_shapes={"input": {0: batch}})
    >>> program.signature
    'forward(input: float32[batch, 2]) -> (output: float32[batch, 1])'
    >>> program(graphc.ones(5, 2)).shape
    graphc.Size([5, 1])

    Raises TraceError as `trace` does, and ShapeError, with the line, where the code does not stand for all the sizes that a
    name is to have.
    """
    traced = trace_function(function, example_inputs, dynamic_shapes)
    names = [value.info.get("param") for value in traced.graph.inputs[-len(traced.captured) :]] if traced.captured else []
    weights, bound = {}, {}
    for i, (tensor, name) in enumerate(zip(traced.captured, names)):
        name = name or f"tensor.{i}"
        weights[name] = tensor._data.copy()
        bound[len(traced.graph.inputs) - len(traced.captured) + i] = name
    graph = pipeline.run(_bind(traced.graph, bound), ("prune", "simplify", "control", "hoist", "cse"))
    inputs = describe((tuple(example_inputs), {}), _is_tensor)
    return Program(runtime.Program({runtime.MAIN: Entry(graph, inputs, describe(traced.outputs, _is_tensor))}, weights))


export.Dim = Dim  # type: ignore[attr-defined]  # as PyTorch spells it


def _bind(graph: Graph, weights: Mapping[int, str]) -> Graph:
    """The graph with inputs marked as the weights that they stand for."""
    builder = Builder(graph.name, locations=False)
    new = {}
    for i, value in enumerate(graph.inputs):
        info = {**value.info, **({"param": weights[i]} if i in weights else {})}
        new[value] = builder.input(value.name, value.type, **info)
    for node in graph.nodes:
        new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
    return builder.finish([new[v] for v in graph.outputs])


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


class Program:
    """An exported function, called with tensors like the example's; results are nested as the function returned them.

    `graphc.save(program, path)` writes it to a file, and `graphc.load` reads it back. Nothing here is differentiable.
    """

    def __init__(self, program: runtime.Program) -> None:
        self.program = program
        """The same program over NumPy arrays."""

    @property
    def graph(self) -> Graph:
        """The graph of the main entry."""
        return self.program.main.graph

    @property
    def signature(self) -> str:
        """What the program takes and gives."""
        return self.program.signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; ShapeError, DTypeError and ArgumentTypeError name the input that does not fit."""
        function = self.program.main
        given = [x._array("a program") if isinstance(x, Tensor) else x for x in function.arguments(args, kwargs)]
        return function.build([wrap(array) for array in function.compute(given)])

    def save(self, path: Any) -> None:
        """Write the program as a `.gcz` file."""
        self.program.save(path)

    def __repr__(self) -> str:
        return repr(self.program)
