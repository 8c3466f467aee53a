"""From Python code to graphs that stand on their own: `trace`, and `export` to a program that can be saved."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc.passes.pipeline as pipeline
import graphc.runtime as runtime
from graphc.assumptions import Relation
from graphc.bind import substitute
from graphc.conditions import written
from graphc.dims import answering
from graphc.errors import ArgumentError, ArgumentTypeError, TraceError
from graphc.frontend import define
from graphc.frontend.dynamic_shapes import Dim, NamedSizes
from graphc.frontend.exported_state import Names, Rebinding, paths
from graphc.frontend.generator import default_generator
from graphc.frontend.pytree import flatten, unflatten
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace import Trace, graph_name, parameter_names
from graphc.frontend.trace_inputs import Argument, Captured, Lifted
from graphc.frontend.tracer import activated
from graphc.ir import Builder, Graph, Value, copy_node
from graphc.package import Entry
from graphc.package.entry import NEXT
from graphc.package.quantize import quantize
from graphc.package.structure import describe
from graphc.passes.prune import prune
from graphc.state import State


@dataclass(frozen=True, eq=False)
class Traced:
    """What tracing a function for export found."""

    graph: Graph
    """Inputs: the tensors among the arguments, in order, then what the function found. Outputs: the results, then what takes
    the place of what was changed."""
    found: tuple[Lifted, ...]
    outputs: Any
    """The result: nested tensors."""
    updates: Mapping[int, int]
    """Which output takes the place of which input at the next call."""

    @property
    def captured(self) -> tuple[Tensor, ...]:
        """The tensors that the function found."""
        return tuple(x.source.tensor for x in self.found if isinstance(x.source, Captured))


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


def trace_function(
    function: Callable[..., Any],
    example_inputs: Sequence[Any],
    dynamic_shapes: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    state: bool = False,
) -> Traced:
    """`trace`, with all that `export` needs."""
    if not callable(function):
        raise ArgumentTypeError(f"a {type(function).__name__} cannot be traced", expected="a function, or a module")
    if not isinstance(example_inputs, (tuple, list)):
        raise ArgumentTypeError("the example inputs are not a tuple", expected="a tuple or list of arguments, as in (x,)",
                                got=type(example_inputs).__name__)
    args, keywords = tuple(example_inputs), dict(kwargs or {})
    leaves, structure = flatten((args, keywords))
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise ArgumentTypeError(f"cannot trace an argument of type {type(leaf).__name__}",
                                    expected="tensors, perhaps nested",
                                    hint="fix other arguments with a lambda or functools.partial")
    # stand-ins, so that each argument is an input of its own even where one tensor is passed twice
    inside = [wrap(leaf._data) for leaf in leaves]
    tracer = Trace(graph_name(function), inside, parameter_names(function))
    names = _input_names(function, args, keywords)
    sizes = None
    if dynamic_shapes is not None:
        sizes = NamedSizes(function, args, keywords, names, dynamic_shapes)
    rebinding = Rebinding(function)
    try:
        with activated(tracer), nullcontext() if sizes is None else answering(sizes.sizes):
            for i, (tensor, name) in enumerate(zip(inside, names)):
                if sizes is not None and i in sizes.shapes:
                    tracer.declare_sizes(tensor, sizes.shapes[i], name)
                else:
                    tracer.declare(tensor, name)
            try:
                given, named = unflatten(structure, inside)
                result = function(*given, **named)
            finally:
                rebound, added = rebinding.undo()
            outputs = []
            for leaf in flatten(result)[0]:
                if leaf is None:
                    continue
                if not isinstance(leaf, Tensor):
                    raise TraceError(f"the function returns a {type(leaf).__name__}", expected="tensors, perhaps nested")
                outputs.append(tracer.value(leaf))
            changes = dict(tracer.updates())
            if state:
                _check_state(tracer, added)
                changes |= {**_replaced(tracer, rebound), **_gradients(tracer)}
        changed = [tracer.inputs[i] for i in sorted(changes)] + [_lifted(tracer, old) for old, _ in rebound]
        if changed and not state:
            raise _impure(tracer, changed[0], function)
        updates = {i: len(outputs) + k for k, i in enumerate(sorted(changes))}
        graph = tracer.builder.finish([*outputs, *(changes[i] for i in updates)])
    finally:
        tracer.restore()
    if sizes is not None:
        sizes.check()
        graph = _conditional(substitute(graph, sizes.sizes.solved), sizes.conditions())
    found = tuple(tracer.inputs[len(inside) :])
    if not state and any(not isinstance(x.source, Captured) for x in found):
        raise TraceError(f"{graph.name!r} reads gradients or numbers that change from call to call",
                         expected="a function of its inputs and of tensors", hint="export(..., state=True)")
    return Traced(prune(graph), found, result, updates)


def _lifted(tracer: Trace, tensor: Tensor) -> Lifted:
    """The input that stands for a tensor which the program keeps."""
    tracer.value(tensor)
    lifted = tracer.lifted(tensor)
    if lifted is None:
        raise TraceError(f"{tracer.builder.name!r} keeps a view of another tensor, {tensor.dtype.name}{list(tensor.shape)}",
                         expected="a tensor with memory of its own", hint="clone() it in __init__")
    return lifted


def _replaced(tracer: Trace, rebound: Sequence[tuple[Tensor, Tensor]]) -> dict[int, Value]:
    """For each input in whose place another tensor is kept, by its number, what that holds."""
    changes: dict[int, Value] = {}
    for old, new in rebound:
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise TraceError("a tensor that the function keeps is replaced by one of another type",
                             expected=f"{old.dtype.name}{list(old.shape)}", got=f"{new.dtype.name}{list(new.shape)}")
        changes[tracer.inputs.index(_lifted(tracer, old))] = tracer.value(new)
    return changes


def _check_state(tracer: Trace, added: Sequence[str]) -> None:
    """Refuse what cannot be kept from one call of a program to the next."""
    if added:
        raise TraceError(f"{tracer.builder.name!r} keeps a tensor as {added[0]!r}, where there was none before",
                         expected="a tensor from the beginning, which calls replace",
                         hint=f"register_buffer({added[0]!r}, graphc.zeros(...)) in __init__")
    for i, _ in tracer.updates():
        if isinstance(tracer.inputs[i].source, Argument):
            raise TraceError(f"{tracer.builder.name!r} changes its argument {tracer.inputs[i].value.name!r} in place",
                             expected="a function that changes nothing but what it holds itself", hint="clone() it first")
    tracer.check_overlaps()
    tracer.check_histories()


def _gradients(tracer: Trace) -> dict[int, Value]:
    """The gradients that are carried from call to call, by their inputs, with what they are in the end."""
    changes: dict[int, Value] = {}
    for grad in list(tracer.grads.values()):
        if not grad.read or grad.current is grad.initial:
            continue
        if grad.initial is None or grad.current is None:
            raise TraceError(
                f"{tracer.builder.name!r} adds to gradients that are {'None' if grad.initial is None else 'there'} at first, "
                f"and are {'there' if grad.initial is None else 'None'} afterwards",
                expected="gradients that are the same tensors at each call",
                hint="call zero_grad() at the beginning of the step, or before exporting with set_to_none=False",
            )
        changes[tracer.inputs.index(_lifted(tracer, grad.initial))] = tracer.value(grad.current)
    return changes


def _conditional(graph: Graph, conditions: Sequence[Relation]) -> Graph:
    """The graph with conditions on its sizes."""
    builder = Builder(graph.name, locations=False)
    new: dict[Value, Value] = {}
    for i, value in enumerate(graph.inputs):
        new[value] = builder.input(value.name, value.type, **value.info, **(written(conditions) if not i else {}))
    for node in graph.nodes:
        new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
    return builder.finish([new[v] for v in graph.outputs], graph.output_names)


def _impure(tracer: Trace, lifted: Lifted, function: Callable[..., Any]) -> TraceError:
    """What to say of a function that changes something and may not."""
    name = tracer.builder.name
    if isinstance(lifted.source, Argument):
        return TraceError(f"{name!r} changes its argument {lifted.value.name!r} in place", hint="clone() it first",
                          expected="a function that changes none of its arguments")
    if isinstance(lifted.source, Captured) and lifted.source.tensor is default_generator._state:
        does = "draws random numbers, which an exported graph cannot: it would draw the same ones at each call"
    else:
        does = f"changes {Names([function]).of(lifted.source)} in place, which an exported graph cannot"
    return TraceError(
        f"{name!r} {does}", expected="a function of its inputs alone",
        hint="call .eval() on the module first: batch norm and dropout change their state while training. Or "
        "export(..., state=True), for a program that keeps what it changes",
    )


def _input_names(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """Names of the tensors among the arguments: the parameters' names, with the path inside nested ones."""
    target = getattr(function, "forward", function)
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names: list[str] = []
    for i, arg in enumerate(args):
        plain = i < len(parameters) and parameters[i].kind in (
            inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        names += _nested_names(parameters[i].name if plain else f"input{i}", arg)
    return names + [name for key, arg in kwargs.items() for name in _nested_names(key, arg)]


def _nested_names(base: str, tree: Any) -> list[str]:
    return [".".join((base, *path)) for path in paths(flatten(tree)[1])]


def _output_names(outputs: Any) -> list[str]:
    """Names of the results: `output`, or the way to each, as in `logits` or `output_0.hidden`."""
    leaves, structure = flatten(outputs)
    names: list[str] = []
    for path, leaf in zip(paths(structure), leaves):
        if leaf is None:
            continue
        name = ".".join(path) or "output"
        name = f"output_{name}" if name[0].isdigit() else name
        while name in names:
            name += "_"
        names.append(name)
    return names


def export(
    function: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    example_inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    state: bool = False,
    weights: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Program:
    """Turn a function or a module into a program that needs none of the code it was made from.

    The tensors that it reads, such as a module's parameters, are copied: training on does not change the program. It takes
    tensors of the example's types; what the function did not look at but Python values (flags, sizes) is fixed.

    With several functions, ArgumentTypeError for example inputs that are no dict, and ArgumentError for a function without any.

    >>> import graphc
    >>> program = graphc.export(graphc.nn.Linear(2, 1), (graphc.ones(3, 2),))
    >>> program.signature
    'forward(input: float32[3, 2]) -> (output: float32[3, 1])'

    function
        What is called; or a dict of functions, for a program of several entries, which share their tensors. The other
        arguments that are about the call are dicts by the same names then.
    example_inputs, kwargs
        The positional and the keyword arguments of an example.
    dynamic_shapes
        The sizes that may change: by parameter, or one entry for each argument, and for each tensor a dict of dimensions
        or an entry for each: a `graphc.Dim`, `Dim.AUTO`, or None for the size of the example.
    state
        Whether the program keeps what the function changes (running statistics, a hidden vector, parameters and an
        optimizer's state in a training step, random numbers) from one call to the next, as `program.state`.
    weights
        "int8", "bfloat16" or "float16": how the weights of matrix products, convolutions and embeddings are stored. They
        are used as float32 numbers; int8 with a scale for each channel.
    metadata
        What else is kept in the file: anything that JSON holds.

    >>> batch = graphc.Dim("batch", max=64)
    >>> program = graphc.export(graphc.nn.Linear(2, 1), (graphc.ones(3, 2),), dynamic_shapes={"input": {0: batch}})
    >>> program.signature
    'forward(input: float32[batch, 2]) -> (output: float32[batch, 1])'
    >>> program(graphc.ones(5, 2)).shape
    graphc.Size([5, 1])

    >>> total = graphc.zeros(2)
    >>> program = graphc.export(lambda x: total.add_(x).clone(), (graphc.ones(2),), state=True)
    >>> program(graphc.ones(2)), program(graphc.ones(2))
    (tensor([1., 1.]), tensor([2., 2.]))
    >>> program.state["total"]
    tensor([2., 2.])

    Raises TraceError as `trace` does, and ShapeError, with the line, where the code does not stand for all the sizes that a
    name is to have.
    """
    calls = list(_calls(function, example_inputs, kwargs, dynamic_shapes))
    traced = {name: trace_function(f, args, shapes, kwargs=named, state=state) for name, f, args, named, shapes in calls}
    names = Names([f for _, f, *_ in calls])
    arrays: dict[str, np.ndarray] = {}
    entries: dict[str, Entry] = {}
    for name, _, args, named, _ in calls:
        graph = pipeline.run(_bind(traced[name], names, arrays), ("prune", "simplify", "control", "hoist", "cse"))
        structures = describe((tuple(args), dict(named)), _is_tensor), describe(traced[name].outputs, _is_tensor)
        entries[name] = Entry(graph, *structures)
    if weights is not None:
        entries, arrays = quantize(entries, arrays, weights)
    return Program(runtime.Program(entries, arrays, metadata))


export.Dim = Dim  # type: ignore[attr-defined]  # as PyTorch spells it


def _calls(function: Any, example_inputs: Any, kwargs: Any, dynamic_shapes: Any) -> Iterator[tuple[str, Any, Any, Any, Any]]:
    """For each entry, its name, function, positional and keyword arguments, and dynamic shapes."""
    if not isinstance(function, Mapping):
        yield runtime.MAIN, function, example_inputs, kwargs or {}, dynamic_shapes
        return
    for what, given in (("example_inputs", example_inputs), ("kwargs", kwargs), ("dynamic_shapes", dynamic_shapes)):
        if not isinstance(given, Mapping) and (given is not None or what == "example_inputs"):
            raise ArgumentTypeError(f"{what} is not a dict, as the functions are", got=type(given).__name__)
        if unknown := (given or {}).keys() - function.keys():
            raise ArgumentError(f"{what}: there is no function {min(unknown)!r}", expected=f"some of {', '.join(function)}")
    for name, each in function.items():
        if name not in example_inputs:
            raise ArgumentError(f"there are no example inputs for {name!r}", got=", ".join(example_inputs) or "none")
        yield name, each, example_inputs[name], (kwargs or {}).get(name, {}), (dynamic_shapes or {}).get(name)


def _bind(traced: Traced, names: Names, arrays: dict[str, np.ndarray]) -> Graph:
    """The graph with its inputs marked as what they stand for, and its outputs named; `arrays` gets what they hold."""
    builder = Builder(traced.graph.name, locations=False)
    first = len(traced.graph.inputs) - len(traced.found)
    new = {}
    for i, value in enumerate(traced.graph.inputs):
        info = dict(value.info)
        if i >= first:
            lifted = traced.found[i - first]
            name = names.of(lifted.source)
            kept = i in traced.updates or not isinstance(lifted.source, Captured)
            kind = "param" if names.is_of_module(lifted.source) or not kept else "state"
            info = {kind: name, **({NEXT: traced.updates[i]} if i in traced.updates else {})}
            if name not in arrays:
                arrays[name] = lifted.data.copy()
        new[value] = builder.input(value.name, value.type, **info)
    for node in traced.graph.nodes:
        new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
    changed = {number: builder.inputs[i].info for i, number in traced.updates.items()}
    results = _output_names(traced.outputs)
    kept_names = [f"next.{info.get('state') or info['param']}" for _, info in sorted(changed.items())]
    return builder.finish([new[v] for v in traced.graph.outputs], [*results, *kept_names] or None)


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


class Program:
    """An exported function, called with tensors like the example's; results are nested as the function returned them.

    `graphc.save(program, path)` writes it to a file, and `graphc.load` reads it back. Nothing here is differentiable.

    >>> program = graphc.export(nn.Linear(2, 1), (graphc.zeros(5, 2),))
    >>> program.signature
    'forward(input: float32[5, 2]) -> (output: float32[5, 1])'
    >>> program(graphc.zeros(5, 2)).shape
    graphc.Size([5, 1])
    """

    def __init__(self, program: runtime.Program) -> None:
        self.program = program
        """The same program over NumPy arrays."""
        self.state = ProgramState(program.state)
        """The tensors that calls change, by name; set an item to change it yourself."""

    @property
    def graph(self) -> Graph:
        """The graph of the main entry."""
        return self.program.main.graph

    @property
    def signature(self) -> str:
        """What the program takes and gives, a line for each entry."""
        return self.program.signature

    @property
    def metadata(self) -> dict[str, Any]:
        """What else is kept in the file."""
        return self.program.metadata

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program; ShapeError, DTypeError and ArgumentTypeError name the input that does not fit."""
        return _run(self.program.main, *args, **kwargs)

    def function(self, entry: str) -> Callable[..., Any]:
        """The entry of that name, to be called with tensors; ArgumentError if there is none."""
        return functools.partial(_run, self.program.function(entry))

    def reset(self) -> None:
        """Go back to the state that the program began with."""
        self.program.reset()

    def save(self, path: Any) -> None:
        """Write the program, with its state as it is now, as a `.gcz` file."""
        self.program.save(path)

    def __repr__(self) -> str:
        return repr(self.program)


def _run(function: runtime.Function, *args: Any, **kwargs: Any) -> Any:
    given = [x._array("a program") if isinstance(x, Tensor) else x for x in function.arguments(args, kwargs)]
    return function.build([wrap(array) for array in function.compute(given)])


class ProgramState(Mapping[str, Tensor]):
    """The state of a program as tensors, which are copies."""

    def __init__(self, state: State) -> None:
        self._state = state

    def __getitem__(self, name: str) -> Tensor:
        return wrap(self._state[name].copy())

    def __setitem__(self, name: str, value: Any) -> None:
        """Replace a tensor by another, or by numbers; ShapeError or DTypeError where it does not fit."""
        self._state[name] = value._array("a program's state") if isinstance(value, Tensor) else value

    def update(self, values: Mapping[str, Any]) -> None:
        """Replace several tensors."""
        for name, value in values.items():
            self[name] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __repr__(self) -> str:
        return repr(self._state)
