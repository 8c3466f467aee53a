"""What one thread runs eagerly, as it runs: each operation, call of a compiled function and node of a backward pass."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import GraphcError, Location, user_location
from graphc.flops import node_flops
from graphc.frontend.compile import CompiledFunction
from graphc.frontend.described import as_dtype
from graphc.frontend.node import Node
from graphc.frontend.pytree import Structure, flatten, unflatten
from graphc.frontend.tape import OpNode
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace import Trace
from graphc.frontend.tracer import activated, watched
from graphc.op import OpDef
from graphc.types import TensorType


@dataclass(frozen=True, slots=True)
class Seen:
    """One operation. Times are those of `time.perf_counter_ns`."""

    what: Any
    start: int
    stop: int
    thread: int
    location: Location | None
    arguments: tuple[Any, ...]
    """The leaves of positional arguments and those by name; in the place of each tensor its type."""
    structure: Structure
    """How these are nested."""
    results: tuple[TensorType, ...]

    @property
    def name(self) -> str:
        """What PyTorch calls such a thing, or nearly."""
        what = self.what
        if isinstance(what, OpDef):
            return what.name
        if isinstance(what, Node):
            return what.name()
        if isinstance(what, CompiledFunction):
            return f"compiled {what._name}"
        return str(getattr(what, "__name__", what)).lstrip("_")

    @property
    def kind(self) -> str:
        """"op", "backward" or "compiled"."""
        return "compiled" if isinstance(self.what, CompiledFunction) else "backward" if isinstance(self.what, Node) else "op"

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        """The types of the tensors that went in."""
        return tuple(leaf for leaf in self.arguments if isinstance(leaf, TensorType))

    @property
    def bytes(self) -> int:
        """Of the tensors that went in, and of the results."""
        return sum(int(type_.nbytes) for type_ in (*self.inputs, *self.results))

    @property
    def flops(self) -> int | None:
        """The floating-point operations, as `graphc.flops` counts them; None where that depends on numbers, or is not known."""
        if not callable(self.what) or isinstance(self.what, (CompiledFunction, Node)):
            return None
        try:
            hash((self.arguments, self.structure))
        except TypeError:  # an attribute that has no hash
            return _flops.__wrapped__(self.what, self.arguments, self.structure)
        return _flops(self.what, self.arguments, self.structure)


class Watch:
    """Takes note of what a thread does; see `graphc.frontend.tracer.Watcher`."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def run(self, what: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the function, which nobody watches meanwhile."""
        location = (what.location() if isinstance(what, OpNode) else None) or user_location()
        # an op's emitter takes the op, its operands and its attributes
        leaves, structure = flatten((args[1:], {}) if isinstance(what, OpDef) else (args, kwargs))
        arguments = tuple(_type(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        with watched(None):
            start = time.perf_counter_ns()
            result = function(*args, **kwargs)
            stop = time.perf_counter_ns()
        results = tuple(_type(leaf) for leaf in flatten(result)[0] if isinstance(leaf, Tensor))
        self.seen.append(Seen(what, start, stop, threading.get_ident(), location, arguments, structure, results))
        return result


def _type(tensor: Tensor) -> TensorType:
    return TensorType(as_dtype(tensor._data.dtype), tuple(tensor._data.shape))


@functools.lru_cache(maxsize=1 << 12)
def _flops(function: Callable[..., Any], leaves: Sequence[Any], structure: Structure) -> int | None:
    """Of a call with tensors of these types: it is traced with tensors that have no memory to speak of."""
    tensors = [wrap(np.broadcast_to(np.zeros((), x.dtype.numpy), x.shape)) if isinstance(x, TensorType) else x for x in leaves]
    trace = Trace("flops", tensors)
    try:
        with activated(trace):
            args, kwargs = unflatten(structure, tensors)
            if isinstance(function, OpDef):
                operands, attributes = args
                function(*operands, like=Tensor, **attributes)
            else:
                function(*args, **kwargs)
        flops = sum((node_flops(node) for node in trace.builder.nodes), start=0)
    except GraphcError:  # what depends on numbers cannot be traced
        return None
    finally:
        trace.restore()
    return flops if isinstance(flops, int) else None
