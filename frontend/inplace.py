"""Changing tensors in place: assignment, methods with a trailing underscore, and `out=` arguments."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentTypeError, AutogradError, DTypeError, GraphcError, ShapeError
from graphc.frontend import device_arrays, device_ops, eager, large_arrays
from graphc.frontend.arguments import check_fits, emit, scalar_type, wrapped
from graphc.frontend.device_arrays import is_array, is_on_device
from graphc.frontend.dispatch import overwrite, quiet
from graphc.frontend.modes import mode
from graphc.frontend.movement import expand
from graphc.frontend.node import Node, edge_to, next_sequence, node_class
from graphc.frontend.pointwise import cast, where
from graphc.frontend.tape import CopySlices, Saved, ZeroNode, named
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import _state as trace_state
from graphc.frontend.tracer import active
from graphc.op import OpDef
from graphc.types import DType, TensorType, bool_

FUNCTIONS = "fill"
METHODS = "apply_ copy_ detach_ fill_ map_ resize_ zero_"


def refuse(tensor: Tensor) -> None:
    """AutogradError where the tensor must not be changed in place."""
    meta = tensor._meta
    if meta is None:
        return
    if meta.inference and not mode.inference:
        raise AutogradError("Inplace update to inference tensor outside InferenceMode is not allowed",
                            hint="clone() it before the update")
    if not mode.grad:
        return
    if meta.requires_grad and tensor._node is None:
        raise AutogradError("a leaf Variable that requires grad is being used in an in-place operation.",
                            hint="update it under no_grad(), or change a clone() of it")
    view = meta.view
    if view is None or view.base is None or not view.base.requires_grad:
        return
    if view.refusal is not None:
        raise AutogradError(view.refusal)
    if view.tracked:
        if view.base.is_leaf:
            raise AutogradError("a view of a leaf Variable that requires grad is being used in an in-place operation.",
                                hint="update it under no_grad(), or change a clone() of it")
    elif not view.detached:
        raise AutogradError("A view was created in no_grad mode and is being modified inplace with grad mode enabled.",
                            hint="make the view outside no_grad(), or change it inside")


def check_castable(result: DType, own: DType) -> None:
    """DTypeError where a result must not be written into memory of another dtype: floats into integers, say."""
    if result.category > own.category:
        raise DTypeError(f"result type {scalar_type(result)} can't be cast to the desired output type {scalar_type(own)}",
                         hint="use the operation without the trailing underscore, or convert the tensor first")


def assign(target: Tensor, new: Tensor) -> Tensor:
    """Write `new`, of the target's shape or one that stretches to it, into the target's memory, and tell autograd.

    `new` may have been computed from the target. The caller has asked `refuse` before.
    """
    if new.ndim != target.ndim or new._data.shape != target._data.shape:
        new = expand(new, target._data.shape)
    if new.dtype is not target.dtype:
        new = cast(new, target.dtype)
    tracer = active()
    if tracer is not None and device_arrays.kinds and new.device != target.device:
        new = new.to(target.device)
    if tracer is None:
        own, numbers = target._data, new._data
        if type(own) is np.ndarray and type(numbers) is np.ndarray:
            _copy(own, numbers)
        else:
            check_writable(own)
            new = _copied_across(target, new)
    else:
        base = target._base
        outside = not tracer.records(target if base is None else base)
        if outside and edge_to(new) is not None:
            raise AutogradError(
                "in-place operation that would mutate a captured Tensor: a tensor from outside of a function that is being "
                "transformed by grad, vjp or jvp cannot take a value that depends on what is differentiated by",
                hint="pass the tensor to the function as an argument, and return the new value")
        tracer.write(target, tracer.value(new))
        if outside:
            return target  # its history is kept where it comes from
    bump(target)
    adopt(target, new)
    return target


def _copied_across(target: Tensor, new: Tensor) -> Tensor:
    """Write a tensor over another one, some of them on a GPU. What the target's history becomes."""
    if not (is_array(target._data) and is_array(new._data)):
        (new if is_array(target._data) else target)._array("copy_()")  # raises: it has no numbers
    device_ops.copy_into(target._data, new._data)
    return new if new.device == target.device or edge_to(new) is None else new.to(target.device)


def _copy(array: np.ndarray, new: np.ndarray) -> None:
    check_writable(array)
    if array.size < large_arrays.LARGE or not large_arrays.copied_over(array, new):
        np.copyto(array, new, casting="unsafe")


def check_writable(array: np.ndarray) -> None:
    """GraphcError where memory must not be written to."""
    if not device_ops.is_writable(array):
        raise GraphcError(
            "unsupported operation: more than one element of the written-to tensor refers to a single memory location"
            if 0 in array.strides else "the tensor's memory is read-only",
            hint="clone() the tensor before changing it in place")


def bump(tensor: Tensor) -> None:
    """Count a change in place."""
    tensor._version_counter().count += 1


def adopt(target: Tensor, new: Tensor) -> None:
    """The target's history is that of `new` from here on."""
    if not mode.grad:
        return
    meta = target._state()
    view = meta.view
    base = None if view is None else view.base
    if view is not None and base is not None and view.tracked:
        new_edge, base_edge = edge_to(new), edge_to(base)
        if new_edge is None and base_edge is None:
            return
        base._node = CopySlices(view, base_edge, new_edge)
        base._state().index = 0
        return  # the view's own history is read off the base's when somebody asks
    new_edge = edge_to(new)
    if view is not None and not view.tracked and new_edge is None:
        return
    if new_edge is not None:
        node = new.grad_fn
        if node is None:  # a leaf was copied in
            with_node = emit(ops.cast, (new,), {"dtype": new.dtype})
            node = with_node._node
        old, index = target._node, meta.index
        target._node, meta.index = node, new.output_nr
        if old is not None and old.retains(index, target):  # the gradient to be kept is that of the new contents
            old.retainers.pop(index)  # type: ignore[union-attr]
            target.retain_grad()
    elif target.requires_grad:
        target._node, meta.index = node_class("ZeroBackward0", ZeroNode)((target,)), 0


def in_place(function: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """The method that writes the function's result into its first argument: add_ of add."""

    @functools.wraps(function)
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        refuse(self)
        start = next_sequence()
        new = function(self, *args, **kwargs)
        if new._node is not None:
            _keep_old(self, new._node, start)
        check_castable(new.dtype, self.dtype)
        if new._data.shape != self._data.shape:
            raise ShapeError(f"output with shape {list(self.shape)} doesn't match the broadcast shape {list(new.shape)}",
                             expected="a result of the tensor's own shape", got=f"{name}: {list(new.shape)}")
        return assign(self, new)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = (f"`{function.__name__}`, written into the tensor itself, which is returned.\n\n"
                      "AutogradError for a leaf that requires grad, ShapeError where the result has another shape, DTypeError\n"
                      "where the tensor's dtype does not hold it, as integers do not hold fractions.")
    return method


def _keep_old(target: Tensor, node: Node, start: int) -> None:
    """Let what was recorded from `start` on, down from a node, keep a copy where it has saved what is to be overwritten."""
    old: Saved | None = None
    pending = [node]
    while pending:
        node = pending.pop()
        pending += [edge[0] for edge in node.edges if edge is not None and isinstance(edge[0], Node)
                    and edge[0].sequence > start]
        saved: list[Any] = getattr(node, "saved", None) or []
        for i, kept in enumerate(saved):
            if kept is target or (isinstance(kept, Saved) and kept.tensor is target):
                if old is None:
                    copy = wrap(emit(ops.cast, (target,), {"dtype": target.dtype})._data)
                    copy._node, copy._state().index = target.grad_fn, target.output_nr
                    old = Saved(copy)
                saved[i] = old


def elementwise(function: Callable[..., Tensor], record: OpDef, name: str) -> Callable[..., Tensor]:
    """`in_place` for an elementwise op of one or two operands, which needs no memory besides where no gradient is wanted."""
    general = in_place(function, name)
    operands = len(record.operands)
    counts = record in (ops.add, ops.sub, ops.mul)

    @functools.wraps(general)
    def method(self: Tensor, *others: Any, **kwargs: Any) -> Tensor:
        if trace_state.watcher is not None:
            return trace_state.watcher.run(method, method, self, *others, **kwargs)
        own = self._data
        in_full = type(own) is np.ndarray and (
            (own.dtype.kind == "f" and own.itemsize > 2) or (own.dtype.kind in "iu" and counts and all(map(_fits_all, others)))
        )
        if in_full and not kwargs and len(others) == operands - 1 and active() is None and own.flags.writeable:
            arrays = [own, *[other._data if isinstance(other, Tensor) else other for other in others]]
            plain = not mode.grad or (unwatched(self) and not any(isinstance(x, Tensor) and x.requires_grad for x in others))
            if plain and all(map(_is_beside, arrays[1:], arrays)):
                refuse(self)
                eager.count()
                overwrite(record, arrays)
                bump(self)
                return self
        elif is_on_device(own) and not kwargs and len(others) == operands - 1 and _may_run_over(self, others):
            refuse(self)
            device_ops.run_over(record, (self, *others))
            bump(self)
            return self
        return general(self, *others, **kwargs)

    return method


def _may_run_over(self: Tensor, others: tuple[Any, ...]) -> bool:
    """Whether an op can be computed over a tensor of a GPU: in its type, with nothing recorded, and of operands elsewhere."""
    own = self._data
    if active() is not None or not self.dtype.is_floating_point or not device_ops.is_writable(own):
        return False
    if mode.grad and not (unwatched(self) and not any(isinstance(x, Tensor) and x.requires_grad for x in others)):
        return False
    return all(
        x._data.dtype == own.dtype and x._data.shape == own.shape and is_on_device(x._data)
        and (x._data is own or not device_arrays.may_overlap(own, x._data))
        if isinstance(x, Tensor) else type(x) in (int, float)
        for x in others
    )  # fmt: skip


def _fits_all(operand: Any) -> bool:
    """Whether an operand is an int that all integer dtypes have."""
    return type(operand) is int and 0 <= operand < 128


def _is_beside(operand: Any, own: np.ndarray) -> bool:
    """Whether an operand is of the type of the other, or a number that gets its dtype."""
    if type(operand) is np.ndarray:
        return operand.dtype is own.dtype and operand.shape == own.shape
    return type(operand) in (int, float)


def unwatched(tensor: Tensor) -> bool:
    """Whether neither the tensor nor what it is a view of takes part in a graph."""
    meta = tensor._meta
    if tensor._node is not None:
        return False
    return meta is None or (not meta.requires_grad and (meta.view is None or not meta.view.tracked
                                                        or not meta.view._base.requires_grad))


def write_out(made: Tensor, out: Tensor) -> Tensor:
    """Put a finished result into the tensor given as `out=`, which is resized if it has another shape."""
    if not isinstance(out, Tensor):
        raise GraphcError("out= expects a Tensor", got=type(out).__name__)
    if mode.grad and (made.requires_grad or out.requires_grad):
        raise AutogradError("functions with out=... arguments don't support automatic differentiation, but one of the "
                            "arguments requires grad.", hint="leave out= away, or work under no_grad()")
    check_castable(made.dtype, out.dtype)
    if made._data.shape != out._data.shape:
        if out.numel() != 0:
            warnings.warn(f"An output with one or more elements was resized since it had shape {list(out.shape)}, which does "
                          f"not match the required output shape {list(made.shape)}.", UserWarning, stacklevel=4)
        if is_on_device(out._data) or is_on_device(made._data):
            out._data = device_ops.moved(device_ops.copied(cast(made, out.dtype)._data), out.get_device())
        else:
            out._data = made._array("out=").astype(out.dtype.numpy, order="C")
        bump(out)
        return out
    return assign(out, made)


# Assignments that are functions of their own


def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite the tensor with another one's elements, or a number, stretched to its shape and converted to its dtype.

    ArgumentTypeError where `src` is neither a tensor nor a number; ShapeError where it does not stretch to this shape.

    >>> graphc.zeros(2, 2).copy_(graphc.tensor([1, 2]))
    tensor([[1., 2.],
            [1., 2.]])
    """
    refuse(self)
    if isinstance(src, (bool, int, float, complex)):
        src = _one(src, self.dtype)
    if not isinstance(src, Tensor):
        raise ArgumentTypeError("copy_(): argument 'other' must be Tensor", got=type(src).__name__)
    return assign(self, src)


def fill_(self: Tensor, value: Any) -> Tensor:
    """Overwrite every element with one number.

    GraphcError for a tensor that has dimensions.

    >>> graphc.zeros(2).fill_(3)
    tensor([3., 3.])
    """
    refuse(self)
    data = self._data
    # what fits float16 fits all of these dtypes
    if (type(data) is np.ndarray and data.dtype.kind == "f" and type(value) in (int, float) and -65504 <= value <= 65504
            and data.flags.writeable and active() is None and not mode.inference and unwatched(self)):
        quiet.run(data.fill, value)
        bump(self)
        return self
    return assign(self, _one(value, self.dtype))


def fill(input: Tensor, value: Any) -> Tensor:
    """One number everywhere, in the input's shape and dtype.

    GraphcError for a tensor that has dimensions.

    >>> graphc.fill(graphc.zeros(2), 3)
    tensor([3., 3.])
    """
    shape = tuple(input._data.shape)
    every = ops.full(TensorType(bool_, shape), True, like=Tensor)
    return named(where(every, _one(value, input.dtype), input), "Fill")


def _one(value: Any, dtype: DType) -> Tensor:
    """The number to fill with as a 0-d tensor."""
    if isinstance(value, Tensor):
        if value._data.shape:
            raise GraphcError(f"fill_ only supports 0-dimension value tensor but got tensor with {value.dim()} dimensions.")
        return cast(value, dtype)
    check_fits(value, dtype)
    if dtype.kind in ("int", "uint"):
        value = wrapped(value, dtype)
    return ops.full(TensorType(dtype, ()), value, like=Tensor)


def zero_(self: Tensor) -> Tensor:
    """Overwrite every element with zero.

    >>> graphc.ones(2).zero_()
    tensor([0., 0.])
    """
    return fill_(self, 0)


def detach_(self: Tensor) -> Tensor:
    """Take the tensor itself out of the graph.

    AutogradError for views that autograd follows.

    >>> x = graphc.ones(2, requires_grad=True) * 2
    >>> x.detach_().requires_grad
    False
    """
    view = None if self._meta is None else self._meta.view
    base = None if view is None else view.base
    if view is not None and base is not None and view.tracked:
        if not view.turned:
            raise AutogradError("Can't detach views in-place. Use detach() instead")
        view.seen = base._node
    self._node = None
    if self._meta is not None:
        self._meta.requires_grad = False
        self._meta.index = 0
    return self


def retyped(function: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
    """A method that turns the tensor itself around: t_ of t. The memory stays where it is."""

    @functools.wraps(function)
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        refuse(self)
        tracer = active()
        if tracer is not None:
            tracer.turn(self)
        new = function(self, *args, **kwargs)
        if new is self:
            return self
        self._data = new._data
        own, view = self._state().view, new._state().view
        if own is not None and view is not None and view.base is own.base:
            view.turned = own.turned
            self._state().view = view
        if new.grad_fn is not None:
            self._node, self._state().index = new.grad_fn, 0
        bump(self)
        return self

    method.__name__ = method.__qualname__ = name
    return method


def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Put a Python function of each element in its place. It is called once an element: slow, and outside of all graphs.

    ArgumentTypeError for a tensor that is on a GPU.

    >>> graphc.tensor([1.0, 2.0]).apply_(lambda v: v * 10)
    tensor([10., 20.])
    """
    refuse(self)
    _only_on_cpu(self, "apply_")
    array = self._array("apply_()")
    for place in np.ndindex(array.shape):
        array[place] = callable(array[place].item())
    bump(self)
    return self


def _only_on_cpu(tensor: Tensor, function: str) -> None:
    if not tensor.is_cpu:
        raise ArgumentTypeError(f"{function} is only implemented on CPU tensors", got=f"a tensor on {tensor.device}",
                                hint="change x.cpu(), and copy_ it back")


def map_(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Put a Python function of each element and that of another tensor, stretched to the shape, in its place.

    ArgumentTypeError for a tensor that is on a GPU.

    >>> graphc.tensor([1.0, 2.0]).map_(graphc.tensor([3.0, 4.0]), lambda a, b: a * b)
    tensor([3., 8.])
    """
    refuse(self)
    _only_on_cpu(self, "map_")
    array = self._array("map_()")
    other = np.broadcast_to(tensor._array("map_()"), array.shape)
    for place in np.ndindex(array.shape):
        array[place] = callable(array[place].item(), other[place].item())
    bump(self)
    return self


def resize_(self: Tensor, *sizes: Any, memory_format: object = None) -> Tensor:
    """Give the tensor another shape: its elements in their order, cut off or followed by ones that mean nothing.

    AutogradError for a tensor that needs a gradient.

    >>> graphc.tensor([1, 2, 3, 4]).resize_(2, 1)
    tensor([[1],
            [2]])
    """
    shape = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    if self.requires_grad:
        raise AutogradError("cannot resize variables that require grad", hint="resize x.detach()")
    array = self._array("resize_()")
    count = math.prod(shape)
    flat = np.ascontiguousarray(array).reshape(-1)
    if count > flat.size:
        flat = np.concatenate([flat, np.zeros(count - flat.size, flat.dtype)])
    self._data = device_ops.moved(flat[:count].reshape(shape), self.get_device())
    bump(self)
    return self
