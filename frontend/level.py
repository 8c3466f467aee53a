"""Levels: a function that is transformed by grad or vmap runs on tensors that stand for tensors of the level outside.

A level sees every operation of the code that runs on it, as a trace does. It applies the operation to the tensors
outside, in its own manner, and so does the level outside in its turn, down to the arrays or the graph. Each level has a
tape of its own. That is why transforms nest in any order, and why they can be traced and compiled.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from graphc.errors import GraphcError
from graphc.frontend import inplace
from graphc.frontend.device import device
from graphc.frontend.modes import mode
from graphc.frontend.pytree import flatten, unflatten
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import BegunState, activated, active
from graphc.op import OpDef
from graphc.types import DType

if TYPE_CHECKING:
    from graphc.frontend.autograd.function import Function


class Key:
    """What the tensors of a level have in common."""

    __slots__ = ("has_tape",)

    def __init__(self, has_tape: bool) -> None:
        self.has_tape = has_tape


class Inner:
    """What a tensor of a level holds in the place of an array: the tensor outside that it stands for."""

    __slots__ = ("batched", "dtype", "key", "own", "shape", "value")

    def __init__(self, key: Key, value: Tensor, batched: bool = False, own: bool = False) -> None:
        self.key = key
        self.value = value
        self.batched = batched
        """Whether dimension 0 of `value` is that of a vmap, which the tensor does not have."""
        self.own = own
        """Whether the level has made the value, so that nobody outside knows it."""
        self.shape: tuple[Any, ...] = value._data.shape[1:] if batched else value._data.shape
        self.dtype: DType = value.dtype

    def __repr__(self) -> str:
        if not self.batched and not self.key.has_tape:
            return repr(self.value)
        depth, data = 1, self.value._data
        while isinstance(data, Inner):
            depth, data = depth + 1, data.value._data
        kind = f"BatchedTensor(lvl={depth}, bdim=0" if self.batched else f"GradTrackingTensor(lvl={depth}"
        return f"{kind}, value=\n" + textwrap.indent(repr(self.value), "    ") + "\n)"

    @property
    def __graphc_emitter__(self) -> Any:
        raise GraphcError("a tensor was kept from inside of a function that was transformed by vmap, grad or jvp, and is used "
                          "after the function has returned", hint="return it; grad and vjp return it unchanged as aux")


class Level:
    """One run of a transformed function. An `active` tracer while the function runs (see graphc.frontend.tracer).

    Tensors belong to the level by its key, so that what was recorded in one run is known to a later one with the same key.
    """

    has_tape: ClassVar[bool] = False

    def __init__(self, key: Key | None = None) -> None:
        self.key = Key(self.has_tape) if key is None else key
        self.around: Any = None
        """The level or the trace outside; None for eager execution."""
        self._written: dict[int, Tensor] = {}
        """Tensors that were changed in place, by their ids: views of them may show what was there before."""

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run a function on the level."""
        self.around = active()
        with activated(self):
            yield

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Run as the code outside would."""
        with activated(self.around):
            yield

    # Tensors from outside to inside, and back

    def begin_backward(self) -> None:
        """A backward pass begins."""
        if self.around is not None:
            self.around.begin_backward()

    def compute_later(self, tensor: Tensor) -> Tensor:
        """The tensor as it is. What runs on a level is not optimised by itself."""
        return tensor

    def records(self, tensor: Tensor) -> bool:
        """Whether the tensor is one of this level's."""
        data = tensor._data
        return type(data) is Inner and data.key is self.key

    def enter(self, tensor: Tensor) -> Tensor:
        """A tensor of this level that stands for one from outside."""
        return wrap(Inner(self.key, tensor))

    def leave(self, tensor: Tensor) -> Tensor:
        """The tensor outside that a tensor stands for."""
        data = self.value(tensor)
        view = None if tensor._meta is None else tensor._meta.view
        if view is None or not view.detached or not self.records(tensor):
            return data.value
        with self.outside():
            return data.value.detach()

    def leave_all(self, tree: Any) -> Any:
        """`leave`, for the tensors in a nested container."""
        leaves, structure = flatten(tree)
        return unflatten(structure, [self.leave(x) if isinstance(x, Tensor) else x for x in leaves])

    # What the front end asks

    def apply(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Inner | tuple[Inner, ...]:
        """Apply an op to what the operands stand for."""
        raise NotImplementedError

    def call_function(self, function: type[Function], args: Sequence[Any]) -> Any:
        """Apply a user-defined `Function`."""
        raise NotImplementedError

    def value(self, tensor: Tensor) -> Inner:
        """What the tensor holds, or would hold if it were one of this level's."""
        if self._written and tensor._base is not None and id(tensor._base) in self._written:
            assert tensor._meta is not None and tensor._meta.view is not None
            tensor = tensor._meta.view.read(wrap(self.value(tensor._base)))
        return tensor._data if self.records(tensor) else Inner(self.key, tensor)

    def write(self, tensor: Tensor, value: Inner) -> None:
        """The tensor holds `value` from here on, and so do its views, its base, and what it stands for outside."""
        base = tensor._base
        if base is not None:
            assert tensor._meta is not None and tensor._meta.view is not None
            new = tensor._meta.view.write(wrap(self.value(base)), wrap(value))
            tensor, value = base, new._data
        data = self.value(tensor)
        if self.records(tensor) and data.own:
            tensor._data = Inner(self.key, value.value, value.batched, own=True)
        else:
            self._write_outside(data, value)
        self._written[id(tensor)] = tensor

    def _write_outside(self, target: Inner, value: Inner) -> None:
        with self.outside():
            inplace.refuse(target.value)
            inplace.assign(target.value, value.value)

    def replace(self, tensor: Tensor, new: Tensor) -> None:
        """The tensor holds what the other one does."""
        self.write(tensor, self.value(new))

    def turn(self, tensor: Tensor) -> None:
        """There is nothing to prepare."""

    def get_grad(self, tensor: Tensor) -> Tensor | None:
        """`tensor.grad`."""
        if self.records(tensor):
            return None if tensor._meta is None else tensor._meta.grad
        with self.outside():
            return tensor._get_grad()

    def set_grad(self, tensor: Tensor, grad: Tensor | None) -> None:
        """`tensor.grad = grad`."""
        if self.records(tensor):
            tensor._state().grad = grad
            return
        with self.outside():
            tensor._set_grad(None if grad is None else self.leave(grad))

    def concrete(self, tensor: Tensor, what: str) -> Any:
        """The tensor's numbers, where there are any outside."""
        known = self.leave(tensor)
        with self.outside():
            return known._array(what)

    def decide(self, tensor: Tensor, kind: Any, what: str) -> Any:
        """The tensor's one element as a bool or an int, where there are numbers outside."""
        known = self.leave(tensor)
        with self.outside():
            return kind(known)

    def number(self, tensor: Tensor) -> Any:
        """The tensor's one element, as the code outside sees it."""
        known = self.leave(tensor)
        with self.outside():
            return known.item()

    @property
    def answers(self) -> bool:
        """Whether there are numbers outside."""
        return self.around is None or self.around.answers

    def tells_of(self, tensor: Tensor) -> bool:
        """Such checks are left out: of many elements at once there is no one answer."""
        return False

    def device_of(self, tensor: Tensor) -> device:
        """Where the tensor lives that it stands for."""
        known = self.leave(tensor)
        with self.outside():
            return known.device

    def transfer(self, tensor: Tensor, where: device) -> Inner:
        """What it stands for, on another device."""
        data = self.value(tensor)
        with self.outside():
            return Inner(self.key, data.value.to(where), data.batched, own=True)

    def made(self, tensor: Tensor) -> None:
        """A tensor of numbers in the code is one of the code outside."""
        if self.around is not None:
            self.around.made(tensor)

    def aliased(self, tensor: Tensor) -> None:
        """It is so for the code outside, too."""
        if self.around is not None:
            self.around.aliased(tensor)

    def scalar(self, mapping: Mapping[str, Any], key: str) -> Any:
        """`mapping[key]`, as the code outside sees it."""
        return mapping[key] if self.around is None else self.around.scalar(mapping, key)

    def begun(self, begun: BegunState) -> None:
        """That is for the code outside to know."""
        if self.around is not None:
            self.around.begun(begun)


class GradLevel(Level):
    """A level with a tape: what grad, vjp and jvp run a function on."""

    has_tape = True

    def __init__(self, key: Key | None = None) -> None:
        super().__init__(key)
        self.pulling = False
        """Whether the tape is run backwards by the transform itself, which is no matter of the code outside."""
        self._grad_around = True

    @contextmanager
    def entered(self) -> Iterator[None]:
        self._grad_around = before = mode.grad
        with super().entered():
            mode.grad = True
            try:
                yield
            finally:
                mode.grad = before

    @contextmanager
    def outside(self) -> Iterator[None]:
        """no_grad inside holds for the tapes outside, too, but no_grad around grad does not hold inside."""
        before = mode.grad
        mode.grad = self._grad_around and (before or self.pulling)
        try:
            with super().outside():
                yield
        finally:
            mode.grad = before

    def apply(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Inner | tuple[Inner, ...]:
        operands = [self.leave(a) if isinstance(a, Tensor) else a for a in args]
        with self.outside():
            found = record(*operands, like=Tensor, **attrs)
        if isinstance(found, tuple):
            return tuple(Inner(self.key, x, own=True) for x in found)
        return Inner(self.key, found, own=True)

    def call_function(self, function: type[Function], args: Sequence[Any]) -> Any:
        operands = [self.leave(a) if isinstance(a, Tensor) else a for a in args]
        with self.outside():
            result = function.apply(*operands)
        given = {id(x): a for x, a in zip(operands, args) if isinstance(a, Tensor)}
        outputs = result if isinstance(result, tuple) else (result,)
        # an input that comes back as it went in has been changed in place
        inside = tuple(given[id(o)] if id(o) in given else self.enter(o) if isinstance(o, Tensor) else o for o in outputs)
        return function.record(args, inside if isinstance(result, tuple) else inside[0])
