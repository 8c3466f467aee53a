"""The graph that autograd records: nodes, and the edges from a result back to what it was computed from."""

from __future__ import annotations

import itertools
import sys
import traceback
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from graphc.errors import _INTERNAL, ArgumentTypeError
from graphc.frontend.hooks import Hooks, RemovableHandle
from graphc.frontend.modes import anomaly
from graphc.frontend.tracer import active

if TYPE_CHECKING:
    from graphc.frontend.tensor import Tensor

Edge: TypeAlias = "tuple[Node | Tensor, int] | None"
"""Where a cotangent goes: to an output of a node, or to a leaf tensor; None where nobody asks for it."""

sequence = itertools.count()
"""Numbers for nodes: a node made later has a larger one."""
next_sequence = sequence.__next__


class Node:
    """One recorded operation. Subclasses say in `apply` how cotangents of the outputs become those of the inputs."""

    __slots__ = ("__dict__", "__weakref__", "edges", "sequence", "watched")
    outputs: ClassVar[int] = 1
    # what few nodes have is no slot: a node is made with every operation, and each slot takes time to fill
    hooks: Hooks | None = None
    prehooks: Hooks | None = None
    tensor_prehooks: dict[int, Hooks] | None = None
    retainers: dict[int, weakref.ref[Tensor]] | None = None

    def __init__(self, edges: tuple[Edge, ...]) -> None:
        self.edges = edges
        self.watched = False
        """Whether there is, or was, any of the hooks and the like above."""
        if anomaly.enabled:
            self.note_traceback()
        self.sequence = next_sequence()
        """Grows with every node: of the nodes that are ready, backward() runs the youngest first."""

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        """The cotangents of the inputs, one for each edge (None: no gradient), given those of the outputs."""
        raise NotImplementedError

    def note_traceback(self) -> None:
        """Keep the calls that led here, for the message of an error in anomaly mode."""
        self.metadata["traceback_"] = traceback.format_list(user_stack())

    def free(self) -> None:
        """Let go of what was saved; running the node again is an error from then on."""

    @property
    def is_freed(self) -> bool:
        """Whether what the node needs for running is gone."""
        return False

    # What users see

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"

    def name(self) -> str:
        """The name of the class, such as AddBackward0."""
        return type(self).__name__

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """The nodes that the cotangents of the inputs go to, with the number of the output there."""
        return tuple((None, 0) if edge is None else (function_of(edge[0]), edge[1]) for edge in self.edges)

    @property
    def metadata(self) -> dict[Any, Any]:
        """A dictionary for the user's own notes."""
        try:
            return self._metadata
        except AttributeError:
            self._metadata: dict[Any, Any] = {}
            return self._metadata

    def register_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(grad_inputs, grad_outputs)` after the node has run; a returned tuple replaces the grad_inputs."""
        self.watched = True
        if self.hooks is None:
            self.hooks = Hooks()
        return self.hooks.add(hook)

    def register_prehook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(grad_outputs)` before the node runs; a returned tuple replaces them."""
        self.watched = True
        if self.prehooks is None:
            self.prehooks = Hooks()
        return self.prehooks.add(hook)

    def __call__(self, *cotangents: Any) -> Any:
        if len(cotangents) != self.outputs:
            raise ArgumentTypeError(
                f"{self.name()} is called with {len(cotangents)} gradients", expected=f"{self.outputs}: those of its outputs",
                hint="grad_fn is an attribute; for the gradient of a tensor call backward() and read .grad")
        results = tuple(self.apply(list(cotangents)))
        return results[0] if len(results) == 1 else results

    # Tensors that watch an output of this node

    def tensor_hooks(self, index: int) -> Hooks:
        """The hooks of the tensor that is output `index`."""
        self.watched = True
        if self.tensor_prehooks is None:
            self.tensor_prehooks = {}
        return self.tensor_prehooks.setdefault(index, Hooks())

    def retain(self, index: int, tensor: Tensor) -> None:
        """Store the gradient of output `index` in `tensor.grad`."""
        self.watched = True
        if self.retainers is None:
            self.retainers = {}
        self.retainers[index] = weakref.ref(tensor)

    def retains(self, index: int, tensor: Tensor) -> bool:
        """Whether `retain` was called for the tensor."""
        if self.retainers is None or index not in self.retainers:
            return False
        return self.retainers[index]() is tensor


class AccumulateGrad:
    """What stands at the end of the graph: a leaf that gradients are added up in.

    Hooks are called as long as somebody holds it.
    """

    __slots__ = ("__weakref__", "hooks", "metadata", "prehooks", "variable")
    next_functions: ClassVar[tuple[()]] = ()

    def __init__(self, variable: Tensor) -> None:
        self.variable = variable
        self.hooks = Hooks()
        self.prehooks = Hooks()
        self.metadata: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"<AccumulateGrad object at {id(self):#x}>"

    def name(self) -> str:
        """The name that PyTorch gives it."""
        return "torch::autograd::AccumulateGrad"

    def register_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook((), grad_outputs)` after a gradient has been added."""
        return self.hooks.add(hook)

    def register_prehook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(grad_outputs)` before a gradient is added; a returned tuple replaces it."""
        return self.prehooks.add(hook)


def function_of(target: Any) -> Any:
    """A node as it is; a leaf as its AccumulateGrad, which is one object as long as somebody holds it."""
    if isinstance(target, Node):
        return target
    meta = target._state()
    known = None if meta.accumulator is None else meta.accumulator()
    if known is None:
        known = AccumulateGrad(target)
        meta.accumulator = weakref.ref(known)
    return known


def user_stack() -> list[traceback.FrameSummary]:
    """The calls that led here, as far as they are the user's."""
    return [f for f in traceback.extract_stack(sys._getframe(1)) if not f.filename.startswith(_INTERNAL)]


N = TypeVar("N", bound=Node)
_classes: dict[tuple[str, type[Node]], Any] = {}


def node_class(name: str, base: type[N]) -> type[N]:
    """The class of nodes called `name`, such as AddBackward0, made on first use."""
    found = _classes.get((name, base))
    if found is None:
        found = _classes[name, base] = type(name, (base,), {"__slots__": (), "__module__": base.__module__})
    return found


def edge_to(tensor: Tensor) -> Edge:
    """Where the cotangent of an operand goes; None if it does not require grad, or is a constant to the running transform."""
    meta = tensor._meta
    if meta is None or meta.view is None:  # what `history` comes to, most often
        node = tensor._node
        if node is not None:
            edge: Edge = (node, 0 if meta is None else meta.index)
        elif meta is not None and meta.requires_grad:
            edge = (tensor, 0)
        else:
            return None
    else:
        edge = history(tensor)
    if edge is not None:
        tracer = active()
        if tracer is not None and not tracer.records(tensor):
            return None
    return edge


def history(tensor: Tensor) -> Edge:
    """What a tensor was made by, or the tensor itself if it is a leaf that requires grad."""
    node = tensor._node if tensor._meta is None else tensor.grad_fn
    if node is not None:
        return node, (0 if tensor._meta is None else tensor._meta.index)
    return (tensor, 0) if tensor._meta is not None and tensor._meta.requires_grad else None
