"""graphc.compile: the same function, run from graphs."""

from __future__ import annotations

import copy
import functools
import operator
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MethodType
from typing import TYPE_CHECKING, Any, overload

from graphc import garbage
from graphc.backend import Layout, get_backend
from graphc.compiler import VERIFIED
from graphc.config import check_numerics, config
from graphc.errors import ArgumentError, ArgumentTypeError
from graphc.frontend.branching import Branching
from graphc.frontend.call_key import call_key
from graphc.frontend.compiled import Compiled
from graphc.frontend.dynamic import DynamicSizes
from graphc.frontend.nn.module import Module
from graphc.frontend.pytree import Structure, flatten
from graphc.frontend.recording import Recording, recorded
from graphc.frontend.segments import Tree
from graphc.frontend.trace import OnlyEagerly, graph_name
from graphc.frontend.tracer import _state as trace_state
from graphc.frontend.tracings import Tracings
from graphc.numerics import divided, pinned
from graphc.recompute import budgeted, check_budget

MAX_GRAPHS = 64
"""How many graphs a function may have, unless `compile` is told otherwise."""
_MOST_SIZES = 256
"""For how many sizes a graph for symbolic ones is found at once."""
_MOST_OF_A_KEY = 16
"""Of those, how many for arguments of the same types: the oldest make way, which may never fit again."""
_MOST_EAGER = 256
"""How many kinds of calls are known that no graph stands for."""
_ENTRIES = 4
"""How many graphs of a function have native entries at the same time."""
_USEFUL = 8
"""Calls that make up for the making of a native entry."""


@dataclass(frozen=True)
class Options:
    """What `compile` was told."""

    dynamic: bool | None
    fullgraph: bool
    backend: str | None
    memory_budget: float | int | None
    max_graphs: int
    retrace: bool
    numerics: str | None

    @property
    def pinned(self) -> str:
        """The back end, with the numerics that hold now."""
        return pinned(self.backend, self.numerics)


class CompiledFunction:
    """What `compile` makes of a function. Call it like the function.

    A call goes to `_entry`: the native entries of the graphs used last, one behind the other, and last `_call`, which does
    by way of Python what they do, and everything else.
    """

    __slots__ = ("__dict__", "__weakref__", "_entry")

    def __init__(self, function: Callable[..., Any], options: Options) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.options = options
        self._sizes = DynamicSizes(options.dynamic)
        self._sized: list[Any] = []
        """The keys of graphs for symbolic sizes with the numbers of a call, in the order in which they were made."""
        self._name = graph_name(function)
        self._graphs: dict[Any, list[Compiled | Branching]] = {}
        self._settled: set[Any] = set()
        """The keys of graphs that served one call alone, since the function changed Python's state: an optimizer made its own,
        a cache was filled."""
        self._eager: dict[Any, int] = {}
        """How many calls of a kind there have been since a trace of one failed that eager code can do."""
        self._eager_because = ""
        self._tracings = Tracings(function, self._name, options.max_graphs, options.retrace)
        self._by_python: str | None = None
        self._attribute: str | None = None
        """What it is called in the class whose method it is."""
        self._lock = threading.RLock()
        self._entered: list[Compiled | Branching] = []
        self._entry: Callable[..., Any] = self._call

    if TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        if trace_state.tracer is not None:
            if trace_state.watcher is not None:
                return trace_state.watcher.run(self, self, *args, **kwargs)
            return self.function(*args, **kwargs)  # part of another graph
        leaves, structure = flatten((args, kwargs))
        key = self._key(leaves, structure)
        for graph in self._graphs.get(key, ()):
            if graph.mismatch(leaves) is None:
                break
        else:
            made = self._trace(key, args, kwargs)
            if made is None:
                return self.function(*args, **kwargs)
            if isinstance(made, Recording):
                return made.finish()
            graph = made
        result = graph(leaves) if isinstance(graph, Compiled) else graph(leaves, args, kwargs)
        if len(leaves) == len(args) and all(map(operator.is_, leaves, args)):
            self._enter(graph, args)
        return result

    def _enter(self, graph: Compiled | Branching, arguments: Sequence[Any]) -> None:
        """Give a graph that was called by way of Python a native entry, or a new one in place of one that did not fit.

        Not after the first call, which may be the only one; and ever more rarely where it is of no use.
        """
        useful = graph.entry is not None and graph.entry.calls >= _USEFUL
        graph.misses = 1 if useful else graph.misses + 1
        if not useful and (graph.misses < 2 or graph.misses & (graph.misses - 1)):
            return
        with self._lock:
            if isinstance(graph, Compiled):
                graph.make_entry(arguments)
            else:
                graph.make_entry(arguments, functools.partial(self._leave, graph))
            others = [g for g in self._entered if g is not graph]
            self._entered = [graph, *others][:_ENTRIES] if graph.entry is not None else others
            self._bind()

    def _leave(self, graph: Branching) -> None:
        """Have calls come by way of Python again, where a new native entry is made: the graph has grown."""
        with self._lock:
            self._entered = [g for g in self._entered if g is not graph]
            self._bind()

    def _bind(self) -> None:
        """Put the native entries one behind the other."""
        call: Callable[..., Any] = self._call
        for entered in reversed(self._entered):
            if entered.entry is not None:
                call = entered.entry.bind(call)
        self._entry = call

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledFunction:
        """As the function would be copied: a bound method goes to the copy of its object. Graphs are made anew."""
        made = CompiledFunction(copy.deepcopy(self.function, memo), self.options)
        made._attribute = self._attribute
        return made

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """The method of an instance, which has graphs of its own: they are the instance's, and go with it."""
        if instance is None:
            return self
        attributes = getattr(instance, "__dict__", None)
        if not isinstance(attributes, dict) or self._attribute is None:
            return functools.partial(self, instance)
        with self._lock:
            if self._attribute not in attributes:
                bound = CompiledFunction(MethodType(self.function, instance), self.options)
                bound._attribute = self._attribute
                attributes[self._attribute] = bound
            return attributes[self._attribute]

    def __reduce__(self) -> Any:
        if isinstance(self.function, MethodType) and self._attribute is not None:
            return getattr, (self.function.__self__, self._attribute)
        name = getattr(self, "__qualname__", None)  # it is found where the function would be
        return (CompiledFunction, (self.function, self.options)) if name is None else name

    def _key(self, leaves: Sequence[Any], structure: Structure) -> Any:
        return call_key(leaves, structure)

    def _trace(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Compiled | Branching | Recording | None:
        """A graph for the call; or the call itself, where Python had to run it to the end; None if it is to run eagerly."""
        with self._lock:
            leaves, _ = flatten((args, kwargs))
            known = self._graphs.get(key, [])
            for graph in known:  # another thread may have been here
                if graph.mismatch(leaves) is None:
                    return graph
            sized = self._sizes.find(key, leaves)
            if sized is not None:
                return self._keep(key, sized)
            eager = self._eager.get(key, 0)  # tried ever more rarely: what no graph could say may be gone from Python's state
            if eager:
                self._eager[key] = eager + 1
                if eager & (eager - 1):
                    return None
            if known:
                reason = known[0].mismatch(leaves) or ""
            else:
                reason = "other arguments" if self._graphs else "state that is new" if self._tracings.all else "a first call"
            if not self._tracings.allow(self._count(), reason):
                return None
            self._tracings.add(reason, args, kwargs)
            try:
                with budgeted(self.options.memory_budget), garbage.sought_seldom():
                    made = self._made(key, args, kwargs)
            except Exception as error:
                self._tracings.all.pop()  # there is no graph
                if isinstance(error, OnlyEagerly):
                    if len(self._eager) >= _MOST_EAGER:
                        self._eager.clear()
                    self._eager.setdefault(key, 1)
                    self._eager_because = str(error).partition("\n")[0]
                    return None
                raise
            self._eager.pop(key, None)
            if isinstance(made, Recording):
                self._tracings.all.pop()
                return made
            if config.debug:
                what = "segments" if isinstance(made, Branching) else f"{len(made.graph.nodes)} nodes"
                print(f"graphc: {self._name}: traced because of {reason}: {what}")
            if isinstance(made, Compiled) and made.asks_the_world is not None:
                return made  # for this one call: at the next one Python is going to run
            if made.is_passing and (key not in self._settled or isinstance(made, Compiled)):
                self._settled.add(key)  # for this one call
            else:
                self._keep(key, made)
            return made.take() if isinstance(made, Branching) else made

    def run_by_python(self, why: str) -> None:
        """Have Python run the function at each call from now on, and only what it computes run natively: for what a graph
        would not do again."""
        with self._lock:
            self._by_python = why
            self._graphs.clear()
            self._entered.clear()
            self._entry = self._call

    def _keep(self, key: Any, made: Compiled | Branching) -> Compiled | Branching:
        """Have a graph found from now on, before stale ones of this key."""
        self._graphs[key] = [made, *self._graphs.get(key, ())][:_MOST_OF_A_KEY]
        if made.is_bound:
            self._sized.append(key)
            if len(self._sized) > _MOST_SIZES:
                oldest = self._sized.pop(0)
                left = [graph for graph in self._graphs.pop(oldest, ()) if not graph.is_bound]
                if left:
                    self._graphs[oldest] = left
        return made

    def _count(self) -> int:
        graphs = sum(not graph.is_bound for found in self._graphs.values() for graph in found)
        return graphs + len(self._sizes.graphs())

    def _made(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Compiled | Branching | Recording:
        """A new graph for a call: for all sizes, where sizes change, or for those of the call; or the call itself, if no graph
        is to be kept of it."""
        leaves, _ = flatten((args, kwargs))
        backend = self.options.pinned
        branches = any(isinstance(graph, Branching) for known in self._graphs.values() for graph in known)
        symbolic = None if branches or self._by_python is not None else self._sizes.plan(key, leaves)
        failed: str | None = None
        if symbolic is not None:
            try:
                with symbolic.assumed():
                    made = Compiled(self.function, self._name, args, kwargs, backend, symbolic.shapes)
            except Exception as error:
                if symbolic.is_demanded:
                    raise
                failed = str(error).partition("\n")[0]  # a size that has to be a number, or an error that comes again
            else:
                why = made.asks_the_world or ("Python's state changes" if made.is_passing and key in self._settled else None)
                if why is not None:
                    self._sizes.refuse(key, leaves, why)
                if why is None or not self.options.fullgraph:
                    return self._sizes.add(key, leaves, made, symbolic)
        recording = recorded(
            self.function, self._name, args, kwargs, backend, tree=Tree(self._name, backend),
            by_python=self._by_python is not None, watched=self._by_python is None, fullgraph=self.options.fullgraph,
            may_pass=key not in self._settled, begins=not self._graphs.get(key),
        )
        if failed is not None:
            if recording.error is not None:
                return recording  # a wrong call, which says nothing of what others of these kinds come to
            self._sizes.refuse(key, leaves, failed)
        if recording.is_done:
            return Branching(recording, self._by_python, self.options.memory_budget)
        return Compiled(self.function, self._name, args, kwargs, backend, recording=recording)

    def source(self, *args: Any, **kwargs: Any) -> str:
        """What a call with these arguments would be compiled to, without running it: CUDA C++ with `backend="cuda"`, which
        takes no GPU; with "llvm" its kernels as pseudo-code.

        >>> import graphc
        >>> double = graphc.compile(lambda x: x * 2, backend="cuda")
        >>> "__global__" in double.source(graphc.ones(3))
        True
        """
        graph = Recording(self.function, self._name, args, kwargs, self.options.pinned).graph
        numerics, backend = divided(self.options.pinned)
        return get_backend(backend or config.backend).source(graph, replace(Layout.plain(graph), numerics=numerics))

    def _counted(self) -> str:
        count = self._count()
        return f"{count} graph{'s' if count != 1 else ''}"

    def explain(self) -> str:
        """The graphs that there are, what each of them rests on, and why the function was traced."""
        graphs = [g for found in self._graphs.values() for g in found if not g.is_bound]
        lines = [f"{self._name} ({self._tracings.place}): {self._counted()}", *self._tracings.lines()]
        lines += [f"  not for other sizes: {why}" for why in self._sizes.refusals()]
        lines += [f"  run eagerly: {self._eager_because}"] if self._eager else []
        for symbolic in self._sizes.graphs():
            lines += ["", *symbolic.made.snapshot.lines(), symbolic.explain()]
        for graph in graphs:
            lines += ["", *graph.lines()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<compiled {self._name}: {self._counted()}>"


_ITS_OWN = frozenset((
    "_original", "_compiled", "__class__", "__dict__", "__reduce__", "__reduce_ex__", "__call__", "forward", "explain",
    "source",
))  # fmt: skip
"""What a compiled module has that is not its module's."""


class CompiledModule(Module):
    """What `compile` makes of a module: it shares the module's parameters, buffers and modes, and is called like it."""

    __slots__ = ("_compiled",)

    def __init__(self, module: Module, options: Options) -> None:
        super().__init__()
        self.__dict__["_original"] = module
        object.__setattr__(self, "_compiled", CompiledFunction(module, options))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled(*args, **kwargs)

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__dict__")
        if name in _ITS_OWN:
            return own[name] if name in own else object.__getattribute__(self, name)
        return getattr(own["_original"], name) if "_original" in own else object.__getattribute__(self, name)

    def __reduce__(self) -> Any:
        return CompiledModule, (self._original, self._compiled.options)

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

    def source(self, *args: Any, **kwargs: Any) -> str:
        """See `CompiledFunction.source`."""
        return self._compiled.source(*args, **kwargs)

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


@overload
def compile(  # type: ignore[overload-overlap]  # a module can be called, too
    function: Module, *, dynamic: bool | None = None, fullgraph: bool = False, backend: str | None = None,
    verify: bool = False, memory_budget: float | int | None = None, max_graphs: int = MAX_GRAPHS, retrace: bool = True,
    numerics: str | None = None,
) -> CompiledModule: ...
@overload
def compile(
    function: Callable[..., Any], *, dynamic: bool | None = None, fullgraph: bool = False, backend: str | None = None,
    verify: bool = False, memory_budget: float | int | None = None, max_graphs: int = MAX_GRAPHS, retrace: bool = True,
    numerics: str | None = None,
) -> CompiledFunction: ...
@overload
def compile(
    function: None = None, *, dynamic: bool | None = None, fullgraph: bool = False, backend: str | None = None,
    verify: bool = False, memory_budget: float | int | None = None, max_graphs: int = MAX_GRAPHS, retrace: bool = True,
    numerics: str | None = None,
) -> Callable[..., Any]: ...
def compile(
    function: Any = None, *, dynamic: bool | None = None, fullgraph: bool = False, backend: str | None = None,
    verify: bool = False, memory_budget: float | int | None = None, max_graphs: int = MAX_GRAPHS, retrace: bool = True,
    numerics: str | None = None,
) -> Any:
    """Run a function or a module from compiled graphs.

    The first call traces the function and makes native code; later calls with arguments of the same types run that.
    Everything that the function changes in place (parameters, running statistics, an optimizer's state, `.grad`) is
    changed in the same way, so a whole training step can be compiled. The function is traced again when its arguments'
    types, or Python values that it reads, are other than before.

    Results are as they would be eagerly: an argument that is returned is the argument itself, and a view of it shares its
    memory; containers among them are new ones. Where the function asks something of the world (the time, a file, Python's
    `random`), writes something (as by `print`), or changes Python's state, Python runs it at each call; what it computes then
    runs as native code, or eagerly where its tensors are small. `explain()` names the lines.

    Where the function branches on a tensor's value, or takes an integer out of one, it is compiled in parts, and calls go
    natively along all ways that have been met; a new one is traced. Numbers of `item()` stay in the graph. Other uses of
    numbers, as `print(x)`, `float(x)` and `x.numpy()`, are Python's at each call. Nothing outside changes before a call is
    over; an exception of the function's own arrives as it is, and leaves behind what it would leave eagerly.

    ArgumentTypeError for what cannot be called, and for a `max_graphs` that is not 1 or more; ArgumentError for `verify` with
    other numerics than "strict". A call raises TraceError, with the line, where the function cannot become a graph.

    >>> import graphc
    >>> @graphc.compile
    ... def f(x):
    ...     return x * 2 + 1
    >>> f(graphc.tensor([1.0, 2.0]))
    tensor([3., 5.])

    dynamic
        Whether one graph stands for all sizes of its arguments. By default those dimensions become symbols whose sizes are
        seen to change; True makes symbols of all from the start, False of none. What the code asks of a size (`n > 1`) is
        answered as for the sizes of the call that is traced, and others are traced again.
    fullgraph
        Refuse code that cannot be one graph, with an error that names the line.
    backend
        "llvm" or "reference"; `GRAPHC_BACKEND` by default.
    verify
        Compare the results of each call with the definitions of the ops, and raise an AccuracyError that names the first node
        which differs by more than rounding, and the line that it comes from. To find bugs of graphc's: it is slow.
    max_graphs
        How many graphs it may have. Where none of them fits, and there are so many, it runs eagerly, which a warning tells.
    retrace
        False: never trace it again; where the one graph does not fit, a TraceError says why. `GRAPHC_RETRACE=0` for all.
    memory_budget
        How much of what the forward pass computes may be kept for a backward pass, within the function or after it: a float
        from 0 to 1 is a part of what would be kept, an int is bytes. The rest is computed again, first what frees most bytes
        for the time that this takes. Results stay as they are.
    numerics
        How exactly float32 is computed with: "strict", as the function says; "high", where convolutions may take fewer
        multiplications, and are off by about 1e-5 of the largest result; or "fast", where products may also round their factors
        to bfloat16, and are off by at most 1/127 of the sum of the absolute products. See `graphc.numerics`; `GRAPHC_NUMERICS`
        by default.
    """
    if function is None:
        return lambda f: compile(
            f, dynamic=dynamic, fullgraph=fullgraph, backend=backend, verify=verify, memory_budget=memory_budget,
            max_graphs=max_graphs, retrace=retrace, numerics=numerics,
        )  # fmt: skip
    if memory_budget is not None:
        check_budget(memory_budget)
    if type(max_graphs) is not int or max_graphs < 1:
        raise ArgumentTypeError("compile: max_graphs is no number of graphs", expected="1 or more", got=repr(max_graphs))
    if numerics is not None:
        check_numerics(numerics, "compile: numerics=")
        if verify and numerics != "strict":
            raise ArgumentError(f"compile: there is nothing to compare {numerics!r} numerics with", got="verify=True",
                                expected='numerics="strict"')
    backend = f"{VERIFIED}{backend or ''}" if verify else backend
    options = Options(dynamic, fullgraph, backend, memory_budget, max_graphs, retrace, numerics)
    if isinstance(function, Module):
        return CompiledModule(function, options)
    if not callable(function):
        raise ArgumentTypeError(f"compile: a {type(function).__name__} cannot be called", expected="a function or a module")
    return CompiledFunction(function, options)
