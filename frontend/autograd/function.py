"""User-defined operations: `Function`, with a forward and a backward of one's own."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from graphc import ops
from graphc.errors import ArgumentTypeError, AutogradError, ShapeError
from graphc.frontend.described import as_dtype
from graphc.frontend.hooks import saved_hooks
from graphc.frontend.level import Level
from graphc.frontend.modes import mode, no_grad
from graphc.frontend.node import Edge, Node, edge_to, node_class
from graphc.frontend.tape import CopySlices, Saved, freed_error, match, modified_error
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.types import TensorType


class FunctionNode(Node):
    """The node of one call of a Function; it is also the `ctx` that forward and backward see."""

    _function: type[Function]

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
        for tensor in tensors:
            if tensor is not None and not isinstance(tensor, Tensor):
                raise ArgumentTypeError("save_for_backward can only save variables, but argument "
                                        f"{tensors.index(tensor)} is of type {type(tensor).__name__}",
                                        hint="make what is no tensor an attribute of ctx")
        self._to_save = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for `jvp`. Forward mode goes by way of backward here, so there is nothing to keep."""

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
            if isinstance(data, Saved):
                data = data.unpack(self)._data
            out = wrap(data)
            out._node = self
            meta = out._state()
            meta.index, meta.version = index, version
            if version.count != count:
                raise modified_error(self, out, version.count, count)
            return out
        return kept

    def _keep(self, outputs: Sequence[Any]) -> None:
        numbers = {id(out): i for i, out in enumerate(outputs) if isinstance(out, Tensor)}
        kept: list[Any] = []
        for tensor in self._to_save:
            if tensor is None:
                kept.append(None)
            elif id(tensor) in numbers and tensor._node is self:
                version = tensor._version_counter()
                data = Saved(wrap(tensor._data)) if saved_hooks.stack else tensor._data
                kept.append((data, numbers[id(tensor)], version, version.count))
            else:
                kept.append(Saved(tensor))
        self._saved = tuple(kept)
        self._to_save = ()

    def place(self, args: Sequence[Any], result: Any) -> Any:
        """What forward returned, with its place in the graph; keeps what was saved."""
        outputs: Sequence[Any] = result if isinstance(result, tuple) else (result,)
        if any(edge is not None for edge in self.edges):
            outputs = self._placed(args, outputs)
            self._keep(outputs)
        return tuple(outputs) if isinstance(result, tuple) else outputs[0]

    def _placed(self, args: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
        self.outputs = len(outputs)  # type: ignore[misc]
        plain = {id(t) for t in self._non_differentiable}
        dirty = {id(t) for t in self._dirty}
        given = {id(a) for a in args}
        if dirty - {id(out) for out in outputs}:
            raise AutogradError("Some elements marked as dirty during the forward method were not returned as output. The "
                                "inputs that are modified inplace must all be outputs of the Function.")
        placed: list[Any] = []
        for i, out in enumerate(outputs):
            if not isinstance(out, Tensor) or id(out) in plain or not out.dtype.is_differentiable:
                self._types.append(None)
                placed.append(out)
                continue
            if id(out) in dirty:
                _check_dirty(out)
            elif id(out) in given:
                out = out._alias(share_version=True)  # an input that is returned as it came is another tensor
            view = None if out._meta is None else out._meta.view
            if id(out) in dirty and view is not None and view.base is not None and view.tracked:
                view.base._node = CopySlices(view, edge_to(view.base), (self, i))
                view.base._state().index = 0
            else:
                out._node = self
                if i or out._meta is not None:
                    out._state().index = i
                if view is not None and id(out) not in dirty:
                    view.refusal = _OVERRIDES.format(f"Output {i} of {self.name()}")
            self._types.append((out._data.shape, out._data.dtype))
            placed.append(out)
        return placed

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        if self._saved is None:
            raise freed_error(self.name())
        if self.materialize_grads:
            for i, described in enumerate(self._types):
                if cotangents[i] is None and described is not None:
                    shape, dtype = described
                    cotangents[i] = ops.full(TensorType(as_dtype(dtype), shape), 0, like=Tensor)
        results = self._function.backward(self, *cotangents)
        results = list(results) if isinstance(results, (tuple, list)) else [results]
        count = len(self.edges)
        while len(results) > count and results[-1] is None:
            results.pop()
        if len(results) != count:
            raise AutogradError(f"function {self.name()} returned an incorrect number of gradients (expected {count}, got "
                                f"{len(results)})", hint="backward returns one gradient for each argument of forward")
        return [self._matched(i, ct) for i, ct in enumerate(results)]

    def _matched(self, i: int, ct: Any) -> Any:
        """What backward returned for argument i, in the argument's type."""
        if ct is None:
            return None
        if not isinstance(ct, Tensor):
            raise ArgumentTypeError(f"expected Variable or None (got {type(ct).__name__})", got=f"from {self.name()}")
        if self._arguments[i] is None:
            raise AutogradError(f"function {self.name()} returned a gradient different than None at position {i + 1}, but the "
                                "corresponding forward input was not a Variable")
        if self.edges[i] is None:
            return None
        shape, dtype = self._arguments[i]
        try:
            return match(ct, shape, dtype)
        except ShapeError:
            raise ShapeError(f"Function {self.name()} returned an invalid gradient at index {i} - got {list(ct.shape)} but "
                             f"expected shape compatible with {list(shape)}") from None

    def free(self) -> None:
        self._saved = None


FunctionCtx = FunctionNode
"""The name that code for PyTorch knows the type of `ctx` by."""

_OVERRIDES = (
    "{} is a view and is being modified inplace. This view was created inside a custom Function (or because an input was "
    "returned as-is) and the autograd logic to handle view+inplace would override the custom backward associated with the "
    "custom Function, leading to incorrect gradients. This behavior is forbidden. You can fix this by cloning the output of "
    "the custom Function."
)


def _check_dirty(out: Tensor) -> None:
    meta = out._meta
    if meta is not None and meta.requires_grad and out._node is None and mode.grad:
        raise AutogradError("a leaf Variable that requires grad has been used in an in-place operation.",
                            hint="change a clone() of it")


class VmapInfo(NamedTuple):
    """What `Function.vmap` is told of the vmap that is running."""

    batch_size: int
    randomness: str


class _Named(type):
    """Gives every Function its node class, named after it."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        super().__init__(name, bases, namespace)
        cls._node_class = type(f"{name}Backward", (FunctionNode,), {"__slots__": (), "_function": cls})
        if "vjp" in namespace and "backward" not in namespace:
            cls.backward = namespace["vjp"]


class Function(metaclass=_Named):
    """An operation with a hand-written derivative.

    Subclasses define the static methods `forward(ctx, *args)` (or `forward(*args)` and `setup_context(ctx, inputs, output)`,
    which the transforms of graphc.func ask for) and `backward(ctx, *grad_outputs)`, which returns one gradient for each
    argument of forward. Call it by `apply`.

    For vmap, either `generate_vmap_rule = True`, and forward and backward are batched as they are, or a static method
    `vmap(info, in_dims, *args)`, which returns the output for the whole batch and where in it the batch lies.

    >>> class Square(graphc.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x
    ...
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         x, = ctx.saved_tensors
    ...         return 2 * x * grad
    >>> x = graphc.tensor([3.0], requires_grad=True)
    >>> Square.apply(x).backward()
    >>> x.grad
    tensor([6.])
    """

    _node_class: type[FunctionNode]
    generate_vmap_rule = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warnings.warn(f"{type(self)} should not be instantiated. Methods on autograd functions are all static, so you should "
                      "invoke them on the class itself. Instantiating an autograd function will raise an error in a future "
                      "version.", DeprecationWarning, stacklevel=2)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise AutogradError("Legacy autograd function with non-static forward method is deprecated. Please use new-style "
                            "autograd function with static forward method.", hint=f"{type(self).__name__}.apply(...)")

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
        raise NotImplementedError("You must implement either the backward or vjp method for your custom autograd.Function to "
                                  "use it with backward mode AD.")

    vjp = backward

    @staticmethod
    def vmap(info: VmapInfo, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        """The output for a batch of arguments, and the dimension of it along which the batch lies."""
        raise NotImplementedError("To use autograd.Function with vmap, you must either override the vmap staticmethod or set "
                                  "generate_vmap_rule=True.")

    @classmethod
    def is_separate(cls) -> bool:
        """Whether forward takes no ctx, because setup_context does."""
        return cls.setup_context is not Function.setup_context

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run forward now, and put it on the tape if a gradient is wanted."""
        if cls.is_separate():
            args = _bound(cls.forward, args, kwargs)
        elif kwargs:
            args = _bound(cls.forward, (None, *args), kwargs)[1:]
        level = active()
        if isinstance(level, Level):
            if not cls.is_separate():
                raise AutogradError(
                    "In order to use an autograd.Function with functorch transforms (vmap, grad, jvp, jacrev, ...), it must "
                    f"override the setup_context staticmethod: {cls.__name__} does not",
                    hint="let forward take the arguments alone, and save what backward needs in setup_context(ctx, inputs, "
                         "output)")
            return level.call_function(cls, args)
        return cls.run(args) if level is None else level.call_function(cls, args)

    @classmethod
    def run(cls, args: tuple[Any, ...]) -> Any:
        """Run forward, and put it on the tape if a gradient is wanted."""
        ctx = cls._context(args)
        with no_grad():
            if cls.is_separate():
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)
            else:
                result = cls.forward(ctx, *args)
        return ctx.place(args, result)

    @classmethod
    def record(cls, args: Sequence[Any], result: Any) -> Any:
        """Put on the tape what forward, which ran elsewhere, has computed."""
        ctx = cls._context(args)
        with no_grad():
            cls.setup_context(ctx, tuple(args), result)
        return ctx.place(args, result)

    @classmethod
    def _context(cls, args: Sequence[Any]) -> FunctionNode:
        edges = tuple(edge_to(a) if isinstance(a, Tensor) else None for a in args)
        ctx = cls._node_class(edges if mode.grad else (None,) * len(edges))
        ctx.needs_input_grad = tuple(edge is not None for edge in edges)
        ctx._arguments = [(a._data.shape, a._data.dtype) if isinstance(a, Tensor) else None for a in args]
        return ctx


_signature = functools.lru_cache(maxsize=256)(inspect.signature)


def _bound(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments by position, defaults filled in."""
    bound = _signature(forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator for a backward that cannot be differentiated itself: doing so is an error that says so.

    >>> class Double(graphc.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return x * 2
    ...
    ...     @staticmethod
    ...     @graphc.autograd.function.once_differentiable
    ...     def backward(ctx, grad):
    ...         return grad * 2
    >>> x = graphc.tensor([3.0], requires_grad=True)
    >>> Double.apply(x).backward()
    >>> x.grad
    tensor([2.])
    """

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
