"""What autograd knows about a tensor: its history, its gradient, and who watches it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Self

from graphc.errors import ArgumentTypeError, AutogradError
from graphc.frontend.hooks import Hooks, RemovableHandle
from graphc.frontend.meta import Meta
from graphc.frontend.modes import enable_grad, mode
from graphc.frontend.tracer import active

if TYPE_CHECKING:
    from graphc.frontend.node import Node
    from graphc.frontend.tensor import Tensor


class Tracked:
    """The part of `Tensor` that autograd reads and writes."""

    __slots__ = ()

    _data: Any
    _node: Node | None
    _meta: Meta | None

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def _state(self) -> Meta:
        meta = self._meta
        if meta is None:
            meta = self._meta = Meta()  # type: ignore[misc]
        return meta

    @property
    def grad_fn(self) -> Node | None:
        """The node of the graph that made this tensor; None for leaves.

        >>> x = graphc.tensor([1.0, 2.0], requires_grad=True)
        >>> x.grad_fn, (x * 2).grad_fn.name()
        (None, 'MulBackward0')
        """
        meta = self._meta
        if meta is not None and meta.view is not None and meta.view.stale:
            # the memory was changed through another view: this one has a new history, read off the base's
            base = meta.view._base
            with enable_grad():
                self._node = meta.view.read(base)._node  # type: ignore[misc]
            meta.view.seen = base._node
        return self._node

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are computed for this tensor.

        Changing it is an AutogradError for a tensor that is no leaf, and for integers.

        >>> x = graphc.ones(2, requires_grad=True)
        >>> x.requires_grad, (x * 2).requires_grad, graphc.ones(2).requires_grad
        (True, True, False)
        """
        return (self._meta is not None and self._meta.requires_grad) or self.grad_fn is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if self.grad_fn is not None:
            if wanted:
                return
            raise AutogradError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a "
                "subgraph that doesn't require differentiation use var_no_grad = var.detach().")
        if wanted and not self.dtype.is_differentiable:
            raise AutogradError("only Tensors of floating point dtype can require gradients",
                                expected="a floating-point or complex dtype", got=self.dtype.name)
        meta = self._state()
        if wanted and meta.inference and not mode.inference:
            raise AutogradError("Setting requires_grad=True on inference tensor outside InferenceMode is not allowed",
                                hint="clone() the tensor to get a normal one")
        meta.requires_grad = bool(wanted)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad`; returns the tensor itself.

        AutogradError for a tensor that is no leaf and for integers, ArgumentTypeError for what is no bool.

        >>> graphc.ones(2).requires_grad_().requires_grad
        True
        """
        if not isinstance(requires_grad, bool):
            raise ArgumentTypeError("requires_grad_(): argument 'requires_grad' (position 1) must be bool, not "
                                    f"{type(requires_grad).__name__}")
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor.

        >>> x = graphc.tensor([1.0, 2.0], requires_grad=True)
        >>> x.is_leaf, (x * 2).is_leaf
        (True, False)
        """
        return self.grad_fn is None

    @property
    def output_nr(self) -> int:
        """Which of the results of its node this tensor is.

        >>> x = graphc.tensor([1.0, 2.0], requires_grad=True)
        >>> x.split(1)[1].output_nr
        1
        """
        return 0 if self._meta is None else self._meta.index

    @property
    def grad(self) -> Tensor | None:
        """The gradient that backward() has added up here; only leaves, and tensors after `retain_grad()`, have one.

        Assigning one of another shape or dtype is an AutogradError, and what is no tensor an ArgumentTypeError.

        >>> x = graphc.tensor([1.0, 2.0], requires_grad=True)
        >>> x.grad is None
        True
        >>> (x * x).sum().backward()
        >>> x.grad
        tensor([2., 4.])
        """
        found = self._get_grad()
        if found is None and self._node is not None and not self.retains_grad:
            warnings.warn(
                "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad attribute won't be "
                "populated during autograd.backward(). If you want it, use .retain_grad() on the non-leaf Tensor.",
                UserWarning, stacklevel=2)
        return found

    @grad.setter
    def grad(self, new: Tensor | None) -> None:
        if new is not None:
            if not isinstance(new, Tracked):
                raise ArgumentTypeError("assigned grad expected to be a Tensor or None but got grad of type "
                                        f"{type(new).__name__}")
            if new is self:
                raise AutogradError("can't assign Variable as its own grad")
            if new._data.shape != self._data.shape:
                raise AutogradError(f"attempting to assign a gradient of size '{list(new.shape)}' to a tensor of size "
                                    f"'{list(self.shape)}'. Please ensure that the gradient and the tensor are the same size")
            if new.dtype is not self.dtype:
                raise AutogradError(f"attempting to assign a gradient with dtype '{new.dtype.name}' to a tensor with "
                                    f"grad_dtype '{self.dtype.name}'. The gradient must match the tensor's grad_dtype "
                                    "(defaults to the tensor's dtype).", hint=f"convert the gradient: .to({self.dtype.name})")
        self._set_grad(new)

    def _get_grad(self) -> Tensor | None:
        tracer = active()
        if tracer is not None:
            return tracer.get_grad(self)  # type: ignore[arg-type]
        return None if self._meta is None else self._meta.grad

    def _set_grad(self, new: Tensor | None) -> None:
        tracer = active()
        if tracer is not None:
            tracer.set_grad(self, new)  # type: ignore[arg-type]
        elif new is not None or self._meta is not None:
            self._state().grad = new

    @property
    def retains_grad(self) -> bool:
        """Whether `retain_grad()` was called on this result.

        >>> x = graphc.tensor([1.0, 2.0], requires_grad=True)
        >>> y = x * 2
        >>> y.retain_grad()
        >>> y.retains_grad
        True
        """
        return self._node is not None and self._node.retains(self.output_nr, self)  # type: ignore[arg-type]

    def retain_grad(self) -> None:
        """Keep the gradient of this result in `.grad` when backward() comes by.

        AutogradError for a tensor that needs no gradient.

        >>> x = graphc.tensor([1.0, 2.0], requires_grad=True)
        >>> y = x * 2
        >>> y.retain_grad()
        >>> y.sum().backward()
        >>> y.grad
        tensor([1., 1.])
        """
        if not self.requires_grad:
            raise AutogradError("can't retain_grad on Tensor that has requires_grad=False")
        node = self.grad_fn
        if node is not None:
            node.retain(self.output_nr, self)  # type: ignore[arg-type]

    def register_hook(self, hook: Any) -> RemovableHandle:
        """Call `hook(grad)` when the gradient of this tensor is there; what it returns takes the gradient's place.

        AutogradError for a tensor that needs no gradient.

        >>> x = graphc.tensor([1.0, 2.0], requires_grad=True)
        >>> handle = x.register_hook(lambda grad: grad * 10)
        >>> x.sum().backward()
        >>> x.grad
        tensor([10., 10.])
        >>> handle.remove()
        """
        if not self.requires_grad:
            raise AutogradError("cannot register a hook on a tensor that doesn't require gradient")
        node = self.grad_fn
        if node is not None:
            return node.tensor_hooks(self.output_nr).add(hook)
        meta = self._state()
        if meta.hooks is None:
            meta.hooks = Hooks()
        return meta.hooks.add(hook)

    def register_post_accumulate_grad_hook(self, hook: Any) -> RemovableHandle:
        """Call `hook(tensor)` after backward() has added to this leaf's `.grad`.

        AutogradError for a tensor that is no leaf or needs no gradient, and later for a hook that returns something.

        >>> x = graphc.tensor([1.0, 2.0], requires_grad=True)
        >>> handle = x.register_post_accumulate_grad_hook(lambda leaf: print(leaf.grad))
        >>> x.sum().backward()
        tensor([1., 1.])
        """
        if not self.requires_grad or not self.is_leaf:
            raise AutogradError("post accumulate grad hooks cannot be registered on non-leaf tensors"
                                if self.requires_grad else
                                "cannot register a hook on a tensor that doesn't require gradient")
        meta = self._state()
        if meta.post_hooks is None:
            meta.post_hooks = Hooks()
        return meta.post_hooks.add(hook)
