"""`torch.jit`'s part of PyTorch: functions and modules that are recorded once, saved, and run without their code.

New code says `graphc.compile` and `graphc.export`; what is here does that under the names that older code knows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import ArgumentTypeError, GraphcError
from graphc.frontend.compile import compile
from graphc.frontend.dynamic_shapes import Dim
from graphc.frontend.export import Program
from graphc.frontend.export import export as export_program
from graphc.frontend.serialization import load as load_any
from graphc.frontend.serialization import save as save_any
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracer import active
from graphc.ir import Graph


class TracedFunction:
    """What `trace` makes: the function compiled, and its program, which can be saved.

    >>> traced = graphc.jit.trace(lambda x: x * 2, (graphc.ones(3),))
    >>> traced(graphc.ones(3)), [node.op.name for node in traced.graph.nodes]
    (tensor([2., 2., 2.]), ['constant', 'broadcast_to', 'mul'])
    """

    def __init__(self, function: Callable[..., Any], example_inputs: tuple[Any, ...]) -> None:
        self._compiled: Callable[..., Any] = compile(function)
        self.program = _for_all_batches(function, example_inputs)
        self.original_name = getattr(function, "__name__", type(function).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function; arguments of other sizes than the example's are compiled for anew."""
        return self._compiled(*args, **kwargs)

    @property
    def graph(self) -> Graph:
        """What was recorded."""
        return self.program.graph

    @property
    def code(self) -> str:
        """What was recorded, as text."""
        return str(self.graph)

    def save(self, f: Any) -> None:
        """Write the program to a file, as `jit.save` does."""
        self.program.save(f)

    def eval(self) -> TracedFunction:
        """Nothing changes: whether a module was training when it was recorded is part of what was recorded."""
        return self

    def __repr__(self) -> str:
        return f"TracedFunction({self.original_name}): {self.program.signature}"


def _for_all_batches(function: Callable[..., Any], example_inputs: tuple[Any, ...]) -> Program:
    """The program for any size of the first dimensions, where the code leaves that open."""
    try:
        batches = [{0: Dim.AUTO} if x.ndim else None for x in example_inputs]
        return export_program(function, example_inputs, dynamic_shapes=batches)
    except (GraphcError, TypeError):  # a size that has to be a number; an error of the function's comes again
        return export_program(function, example_inputs)


def trace(func: Callable[..., Any], example_inputs: Any = None, **options: Any) -> TracedFunction:
    """Record a function or a module for example inputs: a tensor, or a tuple of the arguments.

    Of the options, `example_kwarg_inputs` is not taken; those about checking the trace mean nothing here, where a branch on a
    tensor's value is an error rather than a path that is chosen for ever.

    ArgumentTypeError for inputs that are no tensors and for options that there are not, TraceError where the function cannot
    become a graph.

    >>> import graphc
    >>> double = graphc.jit.trace(lambda x: x * 2, graphc.ones(3))
    >>> double(graphc.tensor([1.0, 2.0, 3.0]))
    tensor([2., 4., 6.])
    """
    unknown = set(options) - {"optimize", "check_trace", "check_inputs", "check_tolerance", "strict", "_force_outplace"}
    if unknown:
        raise ArgumentTypeError(f"jit.trace() does not take {min(unknown)!r}", hint="give positional example_inputs")
    args = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    if not all(isinstance(arg, Tensor) for arg in args):
        raise ArgumentTypeError("jit.trace(): example_inputs must be tensors", got=", ".join(type(a).__name__ for a in args))
    return TracedFunction(func, tuple(args))


def script(obj: Callable[..., Any], *_: Any, **__: Any) -> Any:
    """The function or module compiled. It is recorded when it is called, and its Python is not translated.

    >>> graphc.jit.script(lambda x: x * 2)(graphc.ones(2))
    tensor([2., 2.])
    """
    return compile(obj)


def save(m: TracedFunction | Program, f: Any) -> None:
    """Write what was traced to a `.gcz` file, which `jit.load` and `graphc.load` read, and `graphc.runtime` too.

    ArgumentTypeError for what `jit.trace` has not made.

    >>> import io
    >>> buffer = io.BytesIO()
    >>> graphc.jit.save(graphc.jit.trace(lambda x: x * 2, (graphc.ones(2),)), buffer)
    >>> graphc.jit.load(io.BytesIO(buffer.getvalue()))(graphc.ones(2))
    tensor([2., 2.])
    """
    if not isinstance(m, (TracedFunction, Program)):
        raise ArgumentTypeError("jit.save() writes what jit.trace() has made", got=type(m).__name__,
                                hint="graphc.save() writes state dicts")
    save_any(m.program if isinstance(m, TracedFunction) else m, f)


def load(f: Any, map_location: Any = None) -> Any:
    """Read a program back; it is called with tensors like the example's.

    >>> import io
    >>> buffer = io.BytesIO()
    >>> graphc.jit.trace(lambda x: x * 2, (graphc.ones(2),)).save(buffer)
    >>> graphc.jit.load(io.BytesIO(buffer.getvalue()))(graphc.ones(2))
    tensor([2., 2.])
    """
    del map_location  # there is one place where it can run
    return load_any(f)


def is_tracing() -> bool:
    """Whether this code is being recorded.

    >>> graphc.jit.is_tracing()
    False
    """
    return active() is not None


def is_scripting() -> bool:
    """False: Python is not translated here, it is run and recorded.

    >>> graphc.jit.is_scripting()
    False
    """
    return False


def export(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The method as it is: what is called is recorded, whatever it is called. `graphc.export` makes programs.

    >>> class Net(nn.Module):
    ...     @graphc.jit.export
    ...     def doubled(self, x):
    ...         return x * 2
    >>> Net().doubled(graphc.ones(2))
    tensor([2., 2.])
    """
    return fn


unused = export


def ignore(drop: Any = False) -> Any:
    """A decorator, with or without parentheses, that leaves a function as it is: there is nothing to be left out.

    >>> @graphc.jit.ignore
    ... def double(x):
    ...     return x * 2
    >>> double(3)
    6
    """
    return drop if callable(drop) else export


def annotate(the_type: Any, the_value: Any) -> Any:
    """The value as it is: Python's types are not looked at.

    >>> graphc.jit.annotate(list[int], [])
    []
    """
    del the_type
    return the_value


ScriptModule = ScriptFunction = TracedFunction

__all__ = [
    "ScriptFunction", "ScriptModule", "TracedFunction", "annotate", "export", "ignore", "is_scripting", "is_tracing", "load",
    "save", "script", "trace", "unused",
]  # fmt: skip
