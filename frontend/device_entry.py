"""Calls of a compiled function on a GPU with little of Python.

Whether the graph still stands for the world is asked of native code: a graph of nothing, whose entry has the guards, and the
places where the tensors that the function holds have their arrays. Arguments are looked at here.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.backend import Executable
from graphc.compiler import executable
from graphc.frontend import device_arrays, tracer
from graphc.frontend.entry import Plan, is_dict
from graphc.frontend.modes import mode
from graphc.frontend.native import TENSORS, identities
from graphc.frontend.tensor import Meta, Tensor
from graphc.frontend.trace_inputs import Argument, Captured, Number
from graphc.ir import Builder
from graphc.specs import EntrySpec, Guard, ResultLeaf

if TYPE_CHECKING:
    from graphc.frontend.capture import Capture

_DATA, _META, _NODE = (Tensor.__dict__[name] for name in ("_data", "_meta", "_node"))
_VALUES = (int, bool, str, type(None))
_REQUIRES_GRAD = Meta.__dict__["requires_grad"]


class DeviceEntry:
    """A way into one graph on a GPU, for calls with positional arguments like those that it was made for."""

    def __init__(
        self, capture: Capture, plan: Plan, code: Executable, arguments: Sequence[Any], holds: Callable[[], bool]
    ) -> None:
        self.calls = 0
        """How many calls it has served."""
        self._capture, self._code, self._holds = capture, code, holds
        self._checks = [_check(argument) for argument in arguments]
        self._identities = identities(arguments)
        self._donated = dict(plan.updates)
        self._tensors: list[Any] = [x.source.tensor if isinstance(x.source, Captured) else None for x in plan.inputs]
        self._arrays: list[Any] = [None if tensor is None else tensor._data for tensor in self._tensors]
        self._given = [(i, x.source.index) for i, x in enumerate(plan.inputs) if isinstance(x.source, Argument)]
        self._numbers = [(i, x.source) for i, x in enumerate(plan.inputs) if isinstance(x.source, Number)]
        self._written = _spans(self._arrays, {i for _, i in plan.updates})
        self._places = [
            None if j in self._donated else (t.shape, t.dtype.numpy, capture.gpu if capture.goes_to_gpu(j) else -1)
            for j, t in enumerate(code.outputs)
        ]
        self._grads = [(owner.tensor, j) for owner, j in plan.grads
                       if isinstance(owner, Captured) and j is not None and self._places[j] is not None]

    @classmethod
    def make(cls, capture: Capture, plan: Plan, code: Executable, arguments: Sequence[Any]) -> DeviceEntry | None:
        """The entry, as the state of the world is now, which must be one that the graph stands for; None where a call takes
        more than it does."""
        owners = [owner for owner, _ in plan.grads] + list(plan.without_grad)
        if mode.inference or not plan.snapshot.native or plan.pinned or any(isinstance(owner, Argument) for owner in owners):
            return None
        held = []
        for lifted in plan.inputs:
            source = lifted.source
            if isinstance(source, Captured):
                held.append(source.tensor)
            elif not (isinstance(source, Argument) or (isinstance(source, Number) and is_dict(source.mapping))):
                return None
        written = {i for _, i in plan.updates}
        if any(isinstance(plan.inputs[i].source, Argument) for i in written) or any(t._node is not None for t in held):
            return None
        if not all(_is_plain(a) if isinstance(a, Tensor) else type(a) in _VALUES for a in arguments):
            return None
        holds = _standing(plan, held)
        return None if holds is None else cls(capture, plan, code, arguments, holds)

    def bind(self, fallback: Callable[..., Any]) -> Callable[..., Any]:
        """A function of positional arguments that runs the graph where everything fits, and else calls `fallback`."""
        count = len(self._checks)

        def call(*args: Any, **kwargs: Any) -> Any:
            if kwargs or len(args) != count or not self._holds() or not self._fits(args):
                return fallback(*args, **kwargs)
            self.calls += 1
            return self._run(args)

        return call

    def _fits(self, args: Sequence[Any]) -> bool:
        for argument, check in zip(args, self._checks):
            if type(argument) is not check[0]:
                return False
            if isinstance(argument, Tensor):
                _, requires_grad, dtype, shape, strides, device = check
                data = argument._data
                if not (
                    _is_plain(argument) and (argument._meta is not None and argument.requires_grad) == requires_grad
                    and data.shape == shape and data.dtype == dtype and data.strides == strides
                    and device_arrays.index_of(data) == device
                ):  # fmt: skip
                    return False
                if self._written and self._is_written(*device_arrays.byte_bounds(data)):
                    return False
            elif argument != check[1]:
                return False
        return all((args[j] is args[k]) == same for j, k, same in self._identities)

    def _is_written(self, low: int, high: int) -> bool:
        """Whether some of these bytes are written by the graph."""
        place = bisect_left(self._written, (low, low))
        near = self._written[max(0, place - 1) : place + 1]
        return any(start < high and low < stop for start, stop in near)

    def _run(self, args: Sequence[Any]) -> Any:
        tensors, arrays = self._tensors.copy(), self._arrays.copy()
        for i, k in self._given:
            tensors[i] = args[k]
            arrays[i] = args[k]._data
        for i, source in self._numbers:
            arrays[i] = np.asarray(source.mapping[source.key], np.float64)
        again = {j: _given_up(owner, self._places[j]) for owner, j in self._grads}
        outputs: list[Any] = [
            arrays[self._donated[j]] if place is None
            else np.empty(place[0], place[1]) if place[2] < 0
            else found if (found := again.get(j)) is not None else device_arrays.empty(*place)
            for j, place in enumerate(self._places)
        ]  # fmt: skip
        del again
        self._code.run(arrays, outputs)
        return self._capture.finish(args, tensors, outputs, {})


_ALONE = 2
"""References to what an attribute holds while they are counted: the attribute's, and that of the counting."""


def _given_up(owner: Tensor, place: Any) -> Any:
    """The memory of a tensor's gradient that is about to be replaced, if it is such as is wanted and nobody else has the
    gradient, or a view of it: so there are never two at a time, and they are at the same address from call to call."""
    state = owner._state()
    if state.grad is None or place[2] < 0 or not device_arrays.is_on_device(state.grad._data):
        return None
    held = (sys.getrefcount(state.grad), sys.getrefcount(state.grad._data), sys.getrefcount(state.grad._data.data),
            sys.getrefcount(state.grad._data.data.mem))
    array = state.grad._data
    fits = (array.shape, array.dtype, device_arrays.index_of(array)) == place and array.flags.c_contiguous
    if max(held) > _ALONE or not fits:
        return None
    state.grad = None
    return array


def _check(argument: Any) -> tuple[Any, ...]:
    if not isinstance(argument, Tensor):
        return type(argument), argument
    data = argument._data
    return type(argument), argument.requires_grad, data.dtype, data.shape, data.strides, device_arrays.index_of(data)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has no history, and nothing is written to it."""
    return (tensor._meta is None or tensor.grad_fn is None) and tensor._node is None and not tensor.__dict__


def _standing(plan: Plan, held: Sequence[Tensor]) -> Callable[[], bool] | None:
    """Whether all that the graph rests on is as it is now, but for the arguments; None if native code cannot tell."""
    guards = list(plan.snapshot.guards)
    for tensor in held:
        guards += [Guard("slot", tensor, slot, slot.__get__(tensor)) for slot in (_DATA, _META, _NODE)]
        if tensor._meta is not None:
            guards.append(Guard("slot", tensor._meta, _REQUIRES_GRAD, tensor._meta.requires_grad))
    spec = EntrySpec(
        tensors=TENSORS,
        thread=((tracer._state, "tracer", None), (mode, "grad", mode.grad), (mode, "inference", False),
                (mode, "autocast", mode.autocast)),
        arguments=(), held=(), numbers=(), guards=tuple(guards), identities=(), updates=(), grads=(),
        no_grads=tuple(owner.tensor for owner in plan.without_grad if isinstance(owner, Captured)),
        leaves=(ResultLeaf("object", True),), result="one",
    )  # fmt: skip
    entry = executable(Builder("nothing").finish([]), backend="strict llvm").entry(spec)
    return None if entry is None else entry.bind(lambda: False)


def _spans(arrays: Sequence[Any], written: set[int]) -> list[tuple[int, int]]:
    """Where the arrays that are written begin and end, in order."""
    return sorted(device_arrays.byte_bounds(arrays[i]) for i in written)
