"""User-defined operations: `Function`, with a forward and a backward of one's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphc import ops
from graphc.errors import AutogradError
from graphc.frontend.modes import mode, no_grad
from graphc.frontend.node import Edge, Node, edge_to, node_class
from graphc.frontend.tape import Saved, freed_error, match
from graphc.frontend.tensor import Tensor, as_dtype, wrap
from graphc.types import TensorType


class FunctionNode(Node):
    """The node of one call of a Function; it is also the `ctx` that forward and backward see."""

    __slots__ = ("__dict__",)
    function: type[Function]

    def __init__(self, edges: tuple[Edge, ...]) -> None:
        Node.__init__(self, edges)
        self.outputs = 1  # type: ignore[misc]
        self.needs_input_grad: tuple[bool, ...] = ()
        self.materialize_grads = True
        self._to_save: tuple[Tensor | None, ...] = ()
        self._saved: tuple[Any, ...] | None = ()
        self._non_differentiable: tuple[Tensor, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._types: list[tuple[Any, Any] | None] = []
        self._arguments: list[Any] = []

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for backward, which finds them in `ctx.saved_tensors`."""
        self._to_save = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say that these outputs have no gradient."""
        self._non_differentiable = tensors

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say that forward has changed these inputs in place; they have to be outputs too."""
        self._dirty = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether gradients that are missing come to backward as zeros (the default) or as None."""
        self.materialize_grads = value

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What save_for_backward was given."""
        if self._saved is None:
            raise freed_error(self.name())
        return tuple(self._unpack(kept) for kept in self._saved)

    def _unpack(self, kept: Any) -> Any:
        if isinstance(kept, Saved):
            return kept.unpack(self)
        if isinstance(kept, tuple):  # an output: the tensor without the reference to this node
            data, index, version, count = kept
            out = wrap(data)
            out._node = self
            meta = out._state()
            meta.index, meta.version = index, version
            if version.count != count:
                from graphc.frontend.tape import modified_error

                raise modified_error(self, out, version.count, count)
            return out
        return kept

    def _keep(self, outputs: Sequence[Any]) -> None:
        numbers = {id(out): i for i, out in enumerate(outputs) if isinstance(out, Tensor)}
        kept: list[Any] = []
        for tensor in self._to_save:
            if tensor is None or not isinstance(tensor, Tensor):
                kept.append(tensor)
            elif id(tensor) in numbers and tensor._node is self:
                version = tensor._version_counter()
                kept.append((tensor._data, numbers[id(tensor)], version, version.count))
            else:
                kept.append(Saved(tensor))
        self._saved = tuple(kept)
        self._to_save = ()

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        if self._saved is None:
            raise freed_error(self.name())
        if self.materialize_grads:
            for i, described in enumerate(self._types):
                if cotangents[i] is None and described is not None:
                    shape, dtype = described
                    cotangents[i] = ops.full(TensorType(as_dtype(dtype), shape), 0, like=Tensor)
        results = self.function.backward(self, *cotangents)
        if not isinstance(results, (tuple, list)):
            results = (results,)
        results = list(results)
        count = len(self.edges)
        while len(results) > count and results[-1] is None:
            results.pop()
        if len(results) != count:
            raise AutogradError(f"function {self.name()} returned an incorrect number of gradients",
                                expected=f"{count}, one for each argument of forward", got=str(len(results)))
        matched: list[Any] = []
        for edge, ct, argument in zip(self.edges, results, self._arguments):
            if edge is None or ct is None:
                matched.append(None)
                continue
            if not isinstance(ct, Tensor):
                raise AutogradError(f"function {self.name()} returned something that is not a gradient",
                                    expected="a Tensor or None", got=type(ct).__name__)
            matched.append(match(ct, *argument))
        return matched

    def free(self) -> None:
        self._saved = None


class _Named(type):
    """Gives every Function its node class, named after it."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        super().__init__(name, bases, namespace)
        cls._node_class = type(f"{name}Backward", (FunctionNode,), {"__slots__": (), "function": cls})


class Function(metaclass=_Named):
    """An operation with a hand-written derivative.

    Subclasses define the static methods `forward(ctx, *args)` (or `forward(*args)` and `setup_context(ctx, inputs, output)`)
    and `backward(ctx, *grad_outputs)`, which returns one gradient for each argument of forward. Call it by `apply`.
    """

    _node_class: type[FunctionNode]

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Compute the result."""
        raise NotImplementedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Save what backward needs; for forwards that take no ctx."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients of the arguments of forward, given those of its results."""
        raise NotImplementedError("You must implement the backward function for your custom autograd.Function.")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward now, and put it on the tape if a gradient is wanted."""
        edges = tuple(edge_to(arg) if isinstance(arg, Tensor) and mode.grad else None for arg in args)
        ctx = cls._node_class(edges)
        ctx.needs_input_grad = tuple(edge is not None for edge in edges)
        ctx._arguments = [(a._data.shape, a._data.dtype) if isinstance(a, Tensor) else None for a in args]
        with no_grad():
            if cls.setup_context is not Function.setup_context:
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)
            else:
                result = cls.forward(ctx, *args)
        outputs: Sequence[Any] = result if isinstance(result, tuple) else (result,)
        if any(ctx.needs_input_grad):
            outputs = ctx_outputs(ctx, args, outputs)
        ctx._keep(outputs)
        return tuple(outputs) if isinstance(result, tuple) else outputs[0]


def ctx_outputs(ctx: FunctionNode, args: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """The outputs with their place in the graph."""
    ctx.outputs = len(outputs)  # type: ignore[misc]
    plain = {id(t) for t in ctx._non_differentiable}
    dirty = {id(t) for t in ctx._dirty}
    given = {id(a) for a in args}
    placed: list[Any] = []
    for i, out in enumerate(outputs):
        if not isinstance(out, Tensor) or id(out) in plain or not out.dtype.is_differentiable:
            ctx._types.append(None)
            placed.append(out)
            continue
        if id(out) in given and id(out) not in dirty:
            out = out._alias(share_version=True)  # an input that is returned as it came is another tensor
        out._node = ctx
        if i or out._meta is not None:
            out._state().index = i
        ctx._types.append((out._data.shape, out._data.dtype))
        placed.append(out)
    return placed


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator for a backward that cannot be differentiated itself: doing so is an error that says so."""

    @functools.wraps(backward)
    def once(ctx: Any, *grads: Any) -> Any:
        with no_grad():
            results = backward(ctx, *grads)
        if not mode.grad or not any(isinstance(g, Tensor) and g.requires_grad for g in grads):
            return results
        several = isinstance(results, tuple)
        stopped = [_stop(r, grads) for r in (results if several else (results,))]
        return tuple(stopped) if several else stopped[0]

    return once


class _StopNode(Node):
    """Stands where a second derivative would begin that does not exist."""

    __slots__ = ()

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        raise AutogradError("trying to differentiate twice a function that was marked with @once_differentiable")


def _stop(result: Any, grads: Iterable[Any]) -> Any:
    if not isinstance(result, Tensor):
        return result
    out = result.detach()
    edges = tuple(edge_to(g) for g in grads if isinstance(g, Tensor))
    out._node = node_class("DelayedError", _StopNode)(edges)
    return out
