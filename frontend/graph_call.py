"""Graphs as functions of arrays and of tensors, and their nodes on the tape."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from graphc.autodiff import vjp_graph
from graphc.backend import Executable, Layout, get_backend
from graphc.bind import bind_graph
from graphc.compiler import executable
from graphc.config import config
from graphc.errors import AutogradError
from graphc.frontend import device_arrays
from graphc.frontend.device_arrays import index_of
from graphc.frontend.device_ops import DeviceCode, code_for, moved
from graphc.frontend.modes import mode, no_grad
from graphc.frontend.native import array_function
from graphc.frontend.node import Edge, Node, edge_to
from graphc.frontend.tape import (
    AliasNode,
    CompiledNode,
    CopySlices,
    OpNode,
    Saved,
    ZeroNode,
    freed_error,
    keep,
    modified_error,
    unkeep,
)
from graphc.frontend.tape_plan import Native
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.ir import Graph, Value, inline
from graphc.numerics import pinned
from graphc.specs import CallSpec
from graphc.types import TensorType


class ArrayFunction:
    """A graph as a function of arrays of its inputs' types, in any layout: code is made for each on first use. Returns the
    outputs as a tuple of new arrays."""

    __slots__ = ("_backend", "_functions", "_graph")

    def __init__(self, graph: Graph, backend: str | None = None) -> None:
        self._graph = graph
        self._backend = pinned(backend)
        self._functions: dict[tuple[tuple[int, ...], ...], Callable[..., Any]] = {}

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        key = tuple([array.strides for array in arrays])
        function = self._functions.get(key)
        if function is None:
            code = self.executable(arrays)
            function = self._functions[key] = array_function(code) if not isinstance(code, DeviceCode) else code.on_new
        return function(*arrays)

    def row_major(self) -> Callable[..., tuple[np.ndarray, ...]]:
        """The function of row-major arrays, which is not checked."""
        layout = Layout((None,) * len(self._graph.inputs))
        return array_function(executable(self._graph, layout, backend=self._backend))

    def bind(self, sizes: Mapping[str, int]) -> ArrayFunction:
        """The function for these sizes."""
        return ArrayFunction(bind_graph(self._graph, sizes), self._backend)

    def executable(self, arrays: Sequence[np.ndarray], steady: tuple[int, ...] = ()) -> Executable:
        """The code for arrays of these layouts. What depends on the inputs of the `steady` numbers alone is computed by its
        preparation."""
        return code_for(self._graph, arrays, self._backend, steady=steady)


_NOTHING: Mapping[int, np.ndarray] = MappingProxyType({})


@dataclass(eq=False)
class SecondOrder:
    """A derivative as the tape of a trace had it, and the derivative of that."""

    first: Graph
    """From the inputs and the cotangents of outputs to the cotangents of inputs."""
    second: Graph | Exception
    """From those, and cotangents of some results of `first`, to the cotangents of some that `first` takes; or what was raised
    when the tape was asked for it."""
    seeded: list[int]
    """Numbers of those results."""
    wanted: list[int]
    """Numbers of what `first` takes that cotangents go to."""

    def bind(self, sizes: Mapping[str, int]) -> SecondOrder:
        """The same for these sizes."""
        second = self.second if isinstance(self.second, Exception) else bind_graph(self.second, sizes)
        return replace(self, first=bind_graph(self.first, sizes), second=second)

    def apply(self, operands: Sequence[Tensor]) -> list[Tensor]:
        """The cotangents of the inputs, with a history if one is wanted."""
        with no_grad():
            results = apply_graph(self.first, operands)
        if mode.grad and any(operands[i].requires_grad for i in self.wanted):
            node = SecondBackward(self, operands)
            for k, j in enumerate(self.seeded):
                results[j]._node = node
                results[j]._state().index = k
        return results


class SecondBackward(Node):
    """The node of a derivative that was taken from a tape."""

    __slots__ = ("how", "outputs", "saved")

    def __init__(self, how: SecondOrder, operands: Sequence[Tensor]) -> None:
        super().__init__(tuple(edge_to(operands[i]) for i in how.wanted))
        self.how = how
        self.outputs = len(how.seeded)  # type: ignore[misc]
        self.saved: list[Saved] | None = [Saved(t) for t in operands]

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        if self.saved is None:
            raise freed_error(self.name())
        graph = self.how.second
        if isinstance(graph, Exception):
            raise graph
        operands = [saved.unpack(self) for saved in self.saved]
        types = [self.how.first.outputs[j].type for j in self.how.seeded]
        seeds = [wrap(np.zeros(t.shape, t.dtype.numpy)) if ct is None else ct for ct, t in zip(cotangents, types)]
        if mode.grad:
            raise AutogradError(
                "a third derivative of a compiled function with user-defined backwards, hooks, or hidden changes of tensors "
                "that require grad", expected="derivatives of the first and the second order",
                hint="run the function eagerly, or compile the code that takes the derivatives")
        return apply_graph(graph, [*operands, *seeds])

    def free(self) -> None:
        self.saved = None

    @property
    def is_freed(self) -> bool:
        return self.saved is None


@dataclass(eq=False)
class Differentiable(Native):
    """How a call of a graph takes part in autograd."""

    whole: Graph
    """The graph as a function of its inputs, for derivatives of higher order."""
    second: SecondOrder | None
    """The derivative and its own, where they are not those of the graph: user-defined backwards, hooks."""
    backward: ArrayFunction
    """From what was kept, some of the inputs, and cotangents of outputs, to the cotangents of inputs."""
    wanted: list[int]
    """Numbers of the inputs that gradients go to."""
    seeded: list[int]
    """Numbers of the outputs that gradients come from."""
    sources: list[list[int]]
    """For each of the inputs that gradients go to, from which of those outputs one can come."""
    kept: list[int]
    """Numbers of the outputs that the backward takes, first of all."""
    taken: list[int]
    """Numbers of the inputs that it takes then."""
    read: frozenset[int]
    """Numbers of the inputs that a derivative may be computed from, of the first order or a higher one."""
    on_gpu: bool = False
    """Whether it runs on a GPU."""
    call: CallSpec | None = None
    """The backward for row-major arrays, where native code calls it."""

    def __post_init__(self) -> None:
        super().__init__()

    def make_native(self) -> Any:
        types = [self.whole.outputs[j].type for j in self.seeded]
        if self.on_gpu or not all(isinstance(size, int) for type_ in types for size in type_.shape):
            return None
        zeros = tuple(np.broadcast_to(np.zeros((), t.dtype.numpy), t.shape) if len(types) == 1 else _zeros(t) for t in types)
        sources = tuple(map(tuple, self.sources))
        self.call = CallSpec(self.backward.row_major(), len(self.kept), tuple(self.taken), zeros, sources)
        return get_backend(config.backend).rules(self.call)

    def bind(self, sizes: Mapping[str, int]) -> Differentiable:
        """The same for these sizes."""
        second = None if self.second is None else self.second.bind(sizes)
        return replace(self, call=None, whole=bind_graph(self.whole, sizes), second=second, backward=self.backward.bind(sizes))


def _zeros(type_: TensorType) -> np.ndarray:
    return np.zeros(type_.shape, type_.dtype.numpy)


class CompiledBackward(CompiledNode):
    """The node of a compiled call: its backward is compiled too."""

    __slots__ = ("places",)

    how: Differentiable

    def __init__(
        self, how: Differentiable, tensors: Sequence[Tensor], arrays: Sequence[np.ndarray], results: Sequence[Tensor],
        before: Mapping[int, np.ndarray] = _NOTHING,
    ) -> None:
        """Of a call with these inputs and outputs; `results` are the outputs that are tensors now, the first ones; `before` is
        what inputs held that the call has changed, as far as a derivative is computed from it."""
        Node.__init__(self, tuple([edge_to(tensors[i]) for i in how.wanted]))
        self.how = how
        self.places = [index_of(tensors[i]._data) for i in how.wanted] if device_arrays.kinds else None
        """The GPUs that the cotangents of inputs go to, -1 for the CPU."""
        self.outputs = len(how.seeded)  # type: ignore[misc]
        self.kept = [arrays[j] for j in how.kept]
        # the tensors would be references to this node: their versions tell whether the arrays are what they were
        self.versions = [
            (j, results[j]._version_counter()) for j in how.kept if j < len(results)
        ]
        # an input that is not read is kept for its type alone: it may go on to change
        self.saved = [
            self._before(i, before[i]) if i in before else keep(tensor if i in how.read else wrap(tensor._data))
            for i, tensor in enumerate(tensors)
        ]
        for k, j in enumerate(how.seeded):
            if j < len(results):
                results[j]._node = self
                if k:
                    results[j]._state().index = k

    def _before(self, i: int, array: np.ndarray) -> Tensor:
        """An input as it was before the call has changed it."""
        old = wrap(array)
        if i in self.how.wanted:
            old._node = AliasNode((self.edges[self.how.wanted.index(i)],))
        return keep(old)

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        if self.kept is None or self.saved is None:
            raise freed_error(self.name())
        how = self.how
        seeds = [wrap(_zeros(how.whole.outputs[j].type)) if ct is None else ct for ct, j in zip(cotangents, how.seeded)]
        if len(cotangents) == 1:
            comes = [len(sources) > 0 for sources in how.sources]
        else:
            comes = [any(cotangents[k] is not None for k in sources) for sources in how.sources]
        if mode.grad or active() is not None:
            # to be differentiated again: as a function of the inputs, not of what was kept
            inputs = [unkeep(kept, self) for kept in self.saved]
            if how.second is not None:
                results = how.second.apply([*inputs, *seeds])
            else:
                results = apply_graph(_vjp(how.whole, tuple(how.wanted), tuple(how.seeded)), [*inputs, *seeds])
            return [result if some else None for result, some in zip(results, comes)]
        for j, version in self.versions:
            if version.count:
                raise modified_error(self, wrap(self.kept[how.kept.index(j)]), version.count, 0)
        inputs = [unkeep(self.saved[i], self) for i in how.taken]
        arrays = how.backward(*self.kept, *(t._data for t in inputs), *(seed._data for seed in seeds))
        if self.places is not None:
            arrays = tuple(map(moved, arrays, self.places))
        return [wrap(array) if some else None for array, some in zip(arrays, comes)]

    def free(self) -> None:
        if self.how.kept or self.how.taken:  # else nothing is missing for another run, as with a node of one op
            self.kept = self.saved = None

    @property
    def is_freed(self) -> bool:
        return self.saved is None


def compiled_template(cls: type[CompiledBackward], how: Differentiable) -> CompiledBackward:
    """A node that has all that is the same for each call: what native code copies."""
    node = object.__new__(cls)
    node.how = how
    node.edges, node.sequence, node.watched = (), 0, False
    node.outputs = len(how.seeded)  # type: ignore[misc]
    node.kept, node.saved, node.versions, node.places = None, None, [], None
    return node


class FreedBackward(Node):
    """The node of a result whose graph was used up inside the compiled function, as that of a loss after backward()."""

    __slots__ = ()

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        raise freed_error(self.name())

    @property
    def is_freed(self) -> bool:
        return True


FREED = FreedBackward((edge_to(wrap(np.zeros((), np.float32)).requires_grad_()),))
"""Its edge leads to a leaf that nobody has: the engine does not visit a node without."""


def is_freed(tensor: Tensor) -> bool:
    """Whether a backward() inside the trace has used up the graph that a result hangs on."""
    edge = edge_to(tensor)
    pending = [edge[0]] if edge is not None else []
    seen = set(map(id, pending))
    while pending:
        node = pending.pop()
        if not isinstance(node, Node):
            continue
        if node.is_freed:
            return True
        for edge in node.edges:
            if edge is not None and id(edge[0]) not in seen:
                seen.add(id(edge[0]))
                pending.append(edge[0])
    return False


def is_plain(edge: Edge) -> bool:
    """Whether the tape above an edge holds nothing but ops, whose derivatives are those of a graph of them."""
    pending = [] if edge is None else [edge[0]]
    seen = set(map(id, pending))
    while pending:
        target = pending.pop()
        if isinstance(target, Node):
            watched = target.hooks or target.prehooks or target.tensor_prehooks or target.retainers
            if watched or not isinstance(target, (OpNode, AliasNode, CopySlices, ZeroNode)):
                return False
            for edge in target.edges:
                if edge is not None and id(edge[0]) not in seen:
                    seen.add(id(edge[0]))
                    pending.append(edge[0])
        elif target._meta is not None and (target._meta.hooks or target._meta.post_hooks):
            return False
    return True


class GraphBackward(Node):
    """The node of a call of `apply_graph`."""

    __slots__ = ("graph", "outputs", "saved", "wanted")

    def __init__(self, graph: Graph, tensors: Sequence[Tensor], wanted: tuple[int, ...]) -> None:
        super().__init__(tuple(edge_to(tensors[i]) for i in wanted))
        self.graph = graph
        self.wanted = wanted
        self.outputs = len(graph.outputs)  # type: ignore[misc]
        self.saved: list[Saved] | None = [Saved(t) for t in tensors]

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        if self.saved is None:
            raise freed_error(self.name())
        seeds = [
            ct if ct is not None else wrap(np.zeros(v.shape, v.dtype.numpy)) for ct, v in zip(cotangents, self.graph.outputs)
        ]
        inputs = [saved.unpack(self) for saved in self.saved]
        return apply_graph(_vjp(self.graph, self.wanted, tuple(range(self.outputs))), [*inputs, *seeds])

    def free(self) -> None:
        self.saved = None

    @property
    def is_freed(self) -> bool:
        return self.saved is None


def apply_graph(graph: Graph, tensors: Sequence[Tensor]) -> list[Tensor]:
    """A graph as a differentiable function of tensors; within a trace, its nodes join the trace."""
    tracer = active()
    if tracer is not None:
        values = [tracer.value(t) for t in tensors]
        if all(isinstance(v, Value) for v in values):
            return [wrap(v) for v in inline(graph, values, values[0])]
        return inline(graph, tensors, tensors[0])  # a level of vmap or grad
    outputs = [wrap(a) for a in _function(graph, pinned(None))(*(t._data for t in tensors))]
    wanted = tuple(i for i, t in enumerate(tensors) if t.requires_grad)
    if mode.grad and wanted:
        node = GraphBackward(graph, tensors, wanted)
        for j, out in enumerate(outputs):
            if out.dtype.is_differentiable:
                out._node = node
                out._state().index = j
    return outputs


_vjp = functools.lru_cache(maxsize=256)(vjp_graph)
_function = functools.lru_cache(maxsize=256)(ArrayFunction)
