"""graphc.compile: the same function, run from graphs."""

from __future__ import annotations

import copy
import functools
import inspect
import math
import operator
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from types import NoneType
from typing import TYPE_CHECKING, Any, overload

import numpy as np

import graphc.ops as ops
from graphc.autodiff import partition
from graphc.backend import Entry, Executable, Layout
from graphc.compiler import executable
from graphc.config import config
from graphc.errors import ArgumentTypeError, TraceError
from graphc.frontend import engine
from graphc.frontend.composite import Traced
from graphc.frontend.entry import Constant, Given, Output, Plan, Same, entry_spec
from graphc.frontend.graph_call import FREED, ArrayFunction, CompiledBackward, Differentiable, is_freed
from graphc.frontend.guards import Snapshot, is_known
from graphc.frontend.modes import mode, no_grad
from graphc.frontend.native import strides_of
from graphc.frontend.nn.module import Module
from graphc.frontend.node import edge_to
from graphc.frontend.pytree import Structure, flatten, unflatten
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace import Argument, Captured, Gradient, Lifted, Number, Trace, graph_name, parameter_names
from graphc.frontend.tracer import activated, active
from graphc.ir import Graph, Value
from graphc.types import TensorType

_MANY = 32
"""Graphs of one function after which a warning says that it is traced again and again."""
_ENTRIES = 4
"""How many graphs of a function have native entries at the same time."""
_USEFUL = 8
"""Calls that make up for the making of a native entry."""


class Compiled:
    """One graph of a function, with the state of the world that it was made in."""

    def __init__(
        self, function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any], backend: str | None
    ) -> None:
        self.backend = backend
        leaves, structure = flatten((args, kwargs))
        names = parameter_names(function)
        self.leaves = _stand_ins(leaves)
        trace = Trace(name, self.leaves, names, [x for x, own in zip(self.leaves, leaves) if _has_history(own)])
        inside_args, inside_kwargs = unflatten(structure, self.leaves)
        objects = [leaf for leaf in leaves if not isinstance(leaf, Tensor)]
        before = Snapshot(function, objects)
        try:
            with activated(trace):
                result = function(*inside_args, **inside_kwargs)
                if inspect.isawaitable(result) or isinstance(result, AsyncIterator):
                    if inspect.iscoroutine(result):
                        result.close()  # it would complain that nobody awaited it
                    raise TraceError(f"{name!r} is an async function", expected="a function that returns when it is done")
                self._finish(trace, result, before.tensors)
        finally:
            trace.restore()
        after, structure_after = flatten((inside_args, inside_kwargs))
        if structure_after != structure or not all(map(operator.is_, after, self.leaves)):
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
        self.pinned = {i: x for i, x in enumerate(leaves) if x is self.leaves[i] and id(x) in self.snapshot.tensors}
        """Arguments that the function also finds by itself: the graph cannot tell which of the two it was that was used."""
        self._forget_arguments()
        self.executable: Executable | None = None
        self.entry: Entry | None = None
        self.misses = 0
        """Calls by way of Python, from the one on before which the native entry was last of use."""
        self._lock = threading.Lock()

    # Making the graph

    def _finish(self, trace: Trace, result: Any, known: set[int]) -> None:
        """Make the graph of a trace; `known` are the ids of the tensors that the function reached before it ran."""
        leaves, self.structure = flatten(result)
        updates = trace.updates()
        trace.check_overlaps()
        trace.check_histories()
        outputs: list[Value] = []
        self.results: list[Output | Given | Same | Constant] = []
        arguments = {id(leaf): i for i, leaf in reversed(list(enumerate(self.leaves))) if isinstance(leaf, Tensor)}
        seeds: list[tuple[int, Tensor]] = []
        for leaf in leaves:
            lifted = trace.lifted(leaf) if isinstance(leaf, Tensor) else None
            if not isinstance(leaf, Tensor):
                if _is_used_up(leaf):
                    raise TraceError(f"{trace.builder.name!r} returns a {type(leaf).__name__}, which runs only once",
                                     expected="tensors and values", hint="make it a list or a tuple")
                self.results.append(Constant(leaf))
            elif id(leaf) in arguments:
                self.results.append(Given(arguments[id(leaf)]))
            elif lifted is not None:
                self.results.append(Same(trace.inputs.index(lifted)))
            elif isinstance(leaf._data, np.ndarray) and leaf._base is None:
                if id(leaf) in known or leaf.requires_grad:
                    self.results.append(Constant(leaf))
                else:  # made inside, so each call makes one of its own; or a gradient that was there before
                    trace.value(leaf)
                    found = trace.lifted(leaf)
                    if found is not None and isinstance(found.source, Gradient):
                        self.results.append(Same(trace.inputs.index(found)))
                    else:
                        self.results.append(Output(len(outputs)))
                        outputs.append(trace.value(leaf))
            else:
                self.results.append(Output(len(outputs)))
                if leaf.requires_grad:
                    seeds.append((len(outputs), leaf))
                outputs.append(trace.value(leaf))
        self.visible = len(outputs)
        self.updates = [(len(outputs) + k, i) for k, (i, _) in enumerate(updates)]
        outputs += [value for _, value in updates]
        self.grads: list[tuple[Argument | Captured, int | None]] = []
        self.grad_guards: list[tuple[Argument | Captured, bool]] = []
        for state in trace.grads.values():
            owner = trace.owner(state.tensor)
            if state.read:
                self.grad_guards.append((owner, state.initial is None))
            if state.current is state.initial:
                continue
            if state.current is None:
                self.grads.append((owner, None))
            else:
                self.grads.append((owner, len(outputs)))
                outputs.append(trace.value(state.current))
        self.differentiable: Differentiable | None = None
        forward = len(trace.builder.nodes)
        self.freed = [j for j, leaf in seeds if is_freed(leaf)]
        live = [(j, leaf) for j, leaf in seeds if j not in self.freed]
        self.node_name = live[0][1]._node.name() if live and live[0][1]._node is not None else ""
        if live:
            self._differentiate(trace, outputs, live, forward)
        else:
            self.inputs = list(trace.inputs)
            self.graph = trace.builder.finish(outputs)
        self.types = [lifted.value.type for lifted in self.inputs]
        self.needs_grad = [lifted.tensor is not None and lifted.tensor.requires_grad for lifted in self.inputs]
        self.layouts = [strides_of(lifted.tensor._data) if lifted.tensor is not None else None for lifted in self.inputs]

    def _differentiate(self, trace: Trace, outputs: list[Value], seeds: list[tuple[int, Tensor]], forward: int) -> None:
        """Run the tape backwards within the trace, and cut what has been written down into forward and backward."""
        inputs = list(trace.inputs)
        trained = {i: x.tensor for i, x in enumerate(inputs) if x.tensor is not None and x.tensor.requires_grad}
        wanted = list(trained)
        for i, tensor in trained.items():
            if tensor.grad_fn is not None:
                raise TraceError(
                    f"{trace.builder.name!r} uses a tensor with a history that was not passed to it: {inputs[i].value!r}",
                    hint="make it an argument, or detach() it",
                )
        values = [x.value for x in inputs]
        # the whole as one graph, for derivatives of higher order
        cotangents = [trace.builder.input(None, outputs[j].type) for j, _ in seeds]
        roots = [(edge_to(tensor), wrap(ct)) for (_, tensor), ct in zip(seeds, cotangents)]
        found = engine.run(
            roots, keep_graph=False, create_graph=False, inputs=[edge_to(t) for t in trained.values()], accumulate=False
        )
        with no_grad():
            grads = [
                trace.value(g) if g is not None else ops.zeros_like(inputs[i].value) for i, g in zip(wanted, found)
            ]
        if len(trace.inputs) != len(inputs):
            raise TraceError(f"{trace.builder.name!r}: the backward pass reads tensors that the forward does not",
                             hint="use them in the forward, or save them with save_for_backward")
        self.inputs = inputs
        whole = _subgraph(trace, values, outputs, forward)
        self.graph, backward, kept, taken = partition(
            trace.builder, forward, values, outputs, cotangents, grads, self.visible, [i for _, i in self.updates]
        )
        function = ArrayFunction(backward, self.backend)
        self.differentiable = Differentiable(whole, function, wanted, [j for j, _ in seeds], kept, taken)

    def _forget_arguments(self) -> None:
        """The tensors of the first call are not to be kept."""
        self.leaves = []
        for lifted in self.inputs:
            if isinstance(lifted.source, Argument):
                lifted.tensor = None

    # Checking

    def mismatch(self, leaves: Sequence[Any]) -> str | None:
        """Why the graph does not stand for a call with these arguments; None if it does. Arguments' types are part of the
        key that the graph is found by, and not looked at here."""
        changed = self.snapshot.changed()
        if changed is not None:
            return changed
        for i, tensor in self.pinned.items():
            if leaves[i] is not tensor:
                return "an argument was a tensor that the function also uses by itself, and is another one"
        for owner, none in self.grad_guards:
            tensor = _owned_by(owner, leaves)
            if (tensor._meta is None or tensor._meta.grad is None) != none:
                return f"a gradient was {'None' if none else 'there'}, and is not any more"
        for lifted, type_, layout, needs in zip(self.inputs, self.types, self.layouts, self.needs_grad):
            if isinstance(lifted.source, (Captured, Gradient)):
                tensor = self._tensor(lifted, leaves)
                data = tensor._data
                if data.shape != type_.shape or data.dtype != type_.dtype.numpy or strides_of(data) != layout:
                    return f"a captured tensor was {type_}, is {TensorType(tensor.dtype, data.shape)}"
                if tensor.requires_grad != needs:
                    return "requires_grad of a captured tensor has changed"
        if self.updates and self._overlapping(leaves):
            return "an argument shares memory with a tensor that the function changes in place"
        return None

    def _overlapping(self, leaves: Sequence[Any]) -> bool:
        written = {i for _, i in self.updates}
        arrays = {i: self._tensor(x, leaves)._data for i, x in enumerate(self.inputs) if not isinstance(x.source, Number)}
        arguments = [i for i in arrays if isinstance(self.inputs[i].source, Argument)]
        return any(
            np.may_share_memory(arrays[i], arrays[j])
            for i in arguments for j in arrays if i != j and (i in written or j in written)
        )

    def _tensor(self, lifted: Lifted, leaves: Sequence[Any]) -> Tensor:
        source = lifted.source
        if isinstance(source, Gradient):
            grad = _owned_by(source.owner, leaves)._state().grad
            assert grad is not None  # a guard has seen to that
            return grad
        assert isinstance(source, (Argument, Captured))
        return _owned_by(source, leaves)

    # Running

    def compiled(self) -> Executable:
        """The code, made on first use."""
        if self.executable is None:
            with self._lock:
                if self.executable is None:
                    layout = Layout(tuple(self.layouts), tuple(self.updates))
                    self.executable = executable(self.graph, layout, backend=self.backend)
        return self.executable

    def __call__(self, leaves: Sequence[Any]) -> Any:
        """Run on arguments that fit."""
        code = self.compiled()
        tensors: list[Tensor] = []
        arrays = []
        for lifted in self.inputs:
            source = lifted.source
            if isinstance(source, Number):
                arrays.append(np.asarray(source.mapping[source.key], np.float64))
                tensors.append(wrap(arrays[-1]))
            else:
                tensor = self._tensor(lifted, leaves)
                tensors.append(tensor)
                arrays.append(tensor._data)
        donated = dict(self.updates)
        outputs = [
            arrays[donated[j]] if j in donated else np.empty(t.shape, t.dtype.numpy)
            for j, t in enumerate(code.outputs)
        ]
        for _, i in self.updates:
            _check_writable(tensors[i])
        code.run(arrays, outputs)
        for _, i in self.updates:
            tensors[i]._version_counter().count += 1
        for owner, j in self.grads:
            _owned_by(owner, leaves)._state().grad = None if j is None else wrap(outputs[j])
        made = [wrap(outputs[j]) for j in range(self.visible)]
        for j in self.freed:
            made[j]._node = FREED
        if self.differentiable is not None:
            CompiledBackward(self.differentiable, tensors, outputs, made)
        results: list[Any] = []
        for result in self.results:
            match result:
                case Output(index):
                    results.append(made[index])
                case Given(index):
                    results.append(leaves[index])
                case Same(index):
                    results.append(tensors[index])
                case Constant(value):
                    results.append(value)
        return unflatten(self.structure, results)

    def make_entry(self, arguments: Sequence[Any]) -> None:
        """Have a native way in, for calls with positional arguments like these, if there can be one."""
        self.entry = None
        if self.differentiable is not None or not all(none for _, none in self.grad_guards):
            return
        plan = Plan(
            inputs=self.inputs, updates=self.updates, grads=self.grads, without_grad=[owner for owner, _ in self.grad_guards],
            results=self.results, structure=self.structure, nodes=dict.fromkeys(self.freed, FREED), snapshot=self.snapshot,
            pinned=self.pinned,
        )  # fmt: skip
        spec = entry_spec(plan, arguments)
        if spec is not None:
            self.entry = self.compiled().entry(spec)
            if self.entry is not None and self.mismatch(arguments) is not None:
                self.entry = None  # another thread has changed something since the spec was made


def trace_once(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Traced | None:
    """The graph of a call that returns new tensors and looks at nothing but its arguments; None for any other."""
    leaves, _ = flatten((args, kwargs))
    traced = Compiled(function, function.__name__, args, kwargs, None)
    sources = [lifted.source for lifted in traced.inputs]
    single_level = traced.structure.kind == "tuple" and all(child.kind == "leaf" for child in traced.structure.children)
    ordinary = (
        (traced.structure.kind == "leaf" or single_level) and not traced.freed
        and traced.results == [Output(j) for j in range(len(traced.results))]
        and not traced.updates and not traced.grads and not traced.grad_guards
    )  # fmt: skip
    if not ordinary or not all(isinstance(source, Argument) for source in sources):
        return None
    inputs = [leaves[source.index] for source in sources if isinstance(source, Argument)]
    return Traced(len(traced.results) if single_level else 0, traced.graph, inputs, traced.differentiable, traced.node_name)


def _owned_by(owner: Argument | Captured, leaves: Sequence[Any]) -> Tensor:
    """The tensor that an argument of this call, or a captured one, is."""
    return leaves[owner.index] if isinstance(owner, Argument) else owner.tensor


def _is_used_up(leaf: Any) -> bool:
    """Whether a value is a generator or another iterator of Python's own, whose state cannot be seen."""
    return isinstance(leaf, Iterator) and type(leaf).__module__ in ("builtins", "itertools")


def _has_history(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and mode.grad and leaf.grad_fn is not None


def _stand_ins(leaves: Sequence[Any]) -> list[Any]:
    """The leaves as the traced function sees them. A tensor with a history is replaced by one without, so that the tape of
    the trace ends at the function's door, and a view by a tensor on the same memory that knows nothing of its base: the
    graph must stand for any other view."""
    made: dict[int, Tensor] = {}
    for leaf in leaves:
        if isinstance(leaf, Tensor) and id(leaf) not in made and (_has_history(leaf) or leaf._is_view()):
            made[id(leaf)] = wrap(leaf._data).requires_grad_(leaf.requires_grad and mode.grad)
    return [made.get(id(leaf), leaf) for leaf in leaves]


def _subgraph(trace: Trace, inputs: Sequence[Value], outputs: Sequence[Value], forward: int) -> Graph:
    """The forward part of a trace as a graph of its own."""
    from graphc.autodiff import _extract

    return _extract(trace.builder.name, inputs, trace.builder.nodes[:forward], outputs)


def _check_writable(tensor: Tensor) -> None:
    if not tensor._data.flags.writeable:
        raise ArgumentTypeError("a compiled function changes a tensor in place whose memory is read-only", hint="clone() it")
    if mode.grad and tensor.requires_grad and tensor.is_leaf:
        return  # the trace has seen to it that this happens under no_grad


class CompiledFunction:
    """What `compile` makes of a function. Call it like the function.

    A call goes to `_entry`: the native entries of the graphs used last, one behind the other, and last `_call`, which does
    by way of Python what they do, and everything else.
    """

    __slots__ = ("__dict__", "__weakref__", "_entry")

    def __init__(self, function: Callable[..., Any], *, fullgraph: bool = False, backend: str | None = None) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.fullgraph = fullgraph
        self.backend = backend
        self._name = graph_name(function)
        self._graphs: dict[Any, list[Compiled]] = {}
        self._settled: set[Any] = set()
        """The keys of graphs that served one call alone, since an optimizer made its state while they were traced."""
        self._reasons: list[str] = []
        self._lock = threading.RLock()
        self._entered: list[Compiled] = []
        self._entry: Callable[..., Any] = self._call

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        if active() is not None:
            return self.function(*args, **kwargs)  # part of another graph
        leaves, structure = flatten((args, kwargs))
        key = self._key(leaves, structure)
        for graph in self._graphs.get(key, ()):
            if graph.mismatch(leaves) is None:
                break
        else:
            graph = self._trace(key, args, kwargs)
        result = graph(leaves)
        if len(leaves) == len(args) and all(map(operator.is_, leaves, args)):
            self._enter(graph, args)
        return result

    def _enter(self, graph: Compiled, arguments: Sequence[Any]) -> None:
        """Give a graph that was called by way of Python a native entry, or a new one in place of one that did not fit.

        Not after the first call, which may be the only one; and ever more rarely where it is of no use.
        """
        useful = graph.entry is not None and graph.entry.calls >= _USEFUL
        graph.misses = 1 if useful else graph.misses + 1
        if not useful and (graph.misses < 2 or graph.misses & (graph.misses - 1)):
            return
        with self._lock:
            graph.make_entry(arguments)
            others = [g for g in self._entered if g is not graph]
            self._entered = [graph, *others][:_ENTRIES] if graph.entry is not None else others
            call: Callable[..., Any] = self._call
            for entered in reversed(self._entered):
                if entered.entry is not None:
                    call = entered.entry.bind(call)
            self._entry = call

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledFunction:
        """As the function would be copied: a bound method goes to the copy of its object. Graphs are made anew."""
        return CompiledFunction(copy.deepcopy(self.function, memo), fullgraph=self.fullgraph, backend=self.backend)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def _key(self, leaves: Sequence[Any], structure: Structure) -> Any:
        return (structure, mode.grad, mode.inference, mode.autocast, _repeats(leaves), *map(_leaf_key, leaves))

    def _trace(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Compiled:
        with self._lock:
            leaves, _ = flatten((args, kwargs))
            known = self._graphs.get(key, [])
            for graph in known:  # another thread may have been here
                if graph.mismatch(leaves) is None:
                    return graph
            if known:
                reason = known[-1].mismatch(leaves) or ""
            else:
                reason = "other arguments" if self._graphs else "an optimizer's state" if self._reasons else "a first call"
            made = Compiled(self.function, self._name, args, kwargs, self.backend)
            self._reasons.append(reason)
            if len(self._reasons) == _MANY:
                warnings.warn(f"{self._name} was traced {_MANY} times, last because of {reason}; see explain()", stacklevel=4)
            if config.debug:
                print(f"graphc: {self._name}: traced because of {reason}: {len(made.graph.nodes)} nodes")
            if made.settling and key not in self._settled:
                self._settled.add(key)  # for this one call
            else:
                # stale graphs of this key would be looked at first at each call
                self._graphs[key] = [made, *known]
            return made

    def explain(self) -> str:
        """The graphs that were made, and why."""
        graphs = [g for found in self._graphs.values() for g in found]
        lines = [f"{self._name}: {len(graphs)} graphs"]
        lines += [f"  {i}: traced because of {reason}" for i, reason in enumerate(self._reasons)]
        for graph in graphs:
            lines += ["", str(graph.graph)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<compiled {self._name}: {sum(map(len, self._graphs.values()))} graphs>"


class CompiledModule(Module):
    """What `compile` makes of a module: it shares the module's parameters, buffers and modes, and is called like it."""

    __slots__ = ("_compiled",)

    def __init__(self, module: Module, *, fullgraph: bool = False, backend: str | None = None) -> None:
        super().__init__()
        self.__dict__["_original"] = module
        object.__setattr__(self, "_compiled", CompiledFunction(module, fullgraph=fullgraph, backend=backend))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__dict__")
        if name in ("_original", "_compiled", "__class__", "__dict__", "__call__", "forward", "explain"):
            return own[name] if name in own else object.__getattribute__(self, name)
        return getattr(own["_original"], name) if "_original" in own else object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_original" in self.__dict__:
            setattr(self._original, name, value)
        else:
            super().__setattr__(name, value)

    def __getitem__(self, index: Any) -> Any:
        return self._original[index]

    def __len__(self) -> int:
        return len(self._original)

    def __iter__(self) -> Any:
        return iter(self._original)

    def explain(self) -> str:
        """The graphs that were made, and why."""
        return self._compiled.explain()

    def __repr__(self) -> str:
        return f"Compiled({self._original!r})"


if not TYPE_CHECKING:
    # The descriptors of slots: the interpreter looks up __call__ in the class, and calls what it finds in the object's
    # slot. A method would cost as much as all that a native entry does.
    CompiledFunction.__call__ = CompiledFunction._entry
    CompiledModule.__call__ = CompiledModule._compiled


def _repeats(leaves: Sequence[Any]) -> tuple[int, ...]:
    """Which tensors are passed more than once: for each leaf where it was first, () where all are different."""
    first: dict[int, int] = {}
    places = tuple(first.setdefault(id(x), i) if isinstance(x, Tensor) else i for i, x in enumerate(leaves))
    return () if all(i == place for i, place in enumerate(places)) else places


def _leaf_key(leaf: Any) -> Any:
    kind = type(leaf)
    if isinstance(leaf, Tensor):
        data = leaf._data
        if not isinstance(data, np.ndarray):
            data.__graphc_emitter__  # noqa: B018  (raises: the tensor outlived its trace)
        return (kind, data.dtype, data.shape, strides_of(data), leaf.requires_grad, _has_history(leaf))
    if kind in (int, bool, str, NoneType):
        return (kind, leaf)
    if kind is float:  # 0.0 == -0.0, and nan != nan
        return (float, math.copysign(1, leaf), leaf if leaf == leaf else "nan")
    if kind is complex:
        return (complex, _leaf_key(leaf.real), _leaf_key(leaf.imag))
    if isinstance(leaf, np.generic):
        return (kind, leaf.dtype, leaf.tobytes())
    if kind is frozenset:  # {1} == {True}
        return (frozenset, frozenset((type(item), item) for item in leaf))
    if kind is slice:
        return (slice, *map(_leaf_key, (leaf.start, leaf.stop, leaf.step)))
    if _is_used_up(leaf):
        raise ArgumentTypeError(f"a compiled function cannot take a {kind.__name__}, which runs only once",
                                hint="make it a list or a tuple")
    try:
        hash(leaf)
    except TypeError:
        raise ArgumentTypeError(
            f"a compiled function cannot take a {kind.__name__}",
            expected="tensors, hashable values, and tuples, lists, dicts and dataclasses of these",
            hint=_HINTS.get(kind),
        ) from None
    if not is_known(kind):  # what its == takes for equal may differ in what the function reads
        return (kind, leaf, id(leaf))
    return (kind, leaf)


_HINTS: dict[type, str] = {np.ndarray: "pass graphc.from_numpy(array)", set: "pass a frozenset"}


@overload
def compile(  # type: ignore[overload-overlap]  # a module can be called, too
    function: Module, *, fullgraph: bool = False, backend: str | None = None
) -> CompiledModule: ...
@overload
def compile(function: Callable[..., Any], *, fullgraph: bool = False, backend: str | None = None) -> CompiledFunction: ...
@overload
def compile(function: None = None, *, fullgraph: bool = False, backend: str | None = None) -> Callable[..., Any]: ...
def compile(function: Any = None, *, fullgraph: bool = False, backend: str | None = None) -> Any:
    """Run a function or a module from compiled graphs.

    The first call traces the function and makes native code; later calls with arguments of the same types run that.
    Everything that the function changes in place (parameters, running statistics, an optimizer's state, `.grad`) is
    changed in the same way, so a whole training step can be compiled. The function is traced again when its arguments'
    types, or Python values that it reads, are other than before.

    Results are tensors of their own: one that is a view of an argument or of another result shares no memory with it, as it
    would eagerly. An argument that is returned as it came is the argument itself. What the function asks of the world
    (the time, Python's `random`) is asked once, while it is traced; graphc's own random numbers are drawn anew.

    >>> import graphc
    >>> @graphc.compile
    ... def f(x):
    ...     return x * 2 + 1
    >>> f(graphc.tensor([1.0, 2.0]))
    tensor([3., 5.])

    fullgraph
        Refuse code that cannot be one graph, with an error that names the line.
    backend
        "llvm" or "reference"; `GRAPHC_BACKEND` by default.
    """
    if function is None:
        return lambda f: compile(f, fullgraph=fullgraph, backend=backend)
    if isinstance(function, Module):
        return CompiledModule(function, fullgraph=fullgraph, backend=backend)
    if not callable(function):
        raise ArgumentTypeError(f"compile: a {type(function).__name__} cannot be called", expected="a function or a module")
    return CompiledFunction(function, fullgraph=fullgraph, backend=backend)
