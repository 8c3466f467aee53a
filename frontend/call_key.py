"""What graphs of a function are found by: the types of a call's tensors, its other arguments, how they are nested, and the
modes of the thread."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import NoneType
from typing import Any

import numpy as np

from graphc.errors import ArgumentTypeError
from graphc.frontend.device_arrays import index_of, is_on_device
from graphc.frontend.modes import mode
from graphc.frontend.native import strides_of
from graphc.frontend.pytree import Structure
from graphc.frontend.survey import MARKS, is_known
from graphc.frontend.tensor import Tensor

_HINTS: dict[type, str] = {np.ndarray: "pass graphc.from_numpy(array)", set: "pass a frozenset"}


def call_key(leaves: Sequence[Any], structure: Structure) -> Any:
    """The key of a call with these arguments, flattened; ArgumentTypeError for one that a compiled function cannot take."""
    return (structure, mode.grad, mode.inference, mode.autocast, _repeats(leaves), *map(_leaf_key, leaves))


def _repeats(leaves: Sequence[Any]) -> tuple[int, ...]:
    """Which tensors are passed more than once: for each leaf where it was first, () where all are different."""
    first: dict[int, int] = {}
    places = tuple(first.setdefault(id(x), i) if isinstance(x, Tensor) else i for i, x in enumerate(leaves))
    return () if all(i == place for i, place in enumerate(places)) else places


def _leaf_key(leaf: Any) -> Any:
    kind = type(leaf)
    if isinstance(leaf, Tensor):
        data = leaf._data
        if not isinstance(data, np.ndarray) and not is_on_device(data):
            data.__graphc_emitter__  # noqa: B018  (raises: the tensor outlived its trace)
        key: tuple[Any, ...] = (kind, data.dtype, data.shape, strides_of(data), leaf.requires_grad, has_history(leaf))
        if is_on_device(data):
            key = (*key, index_of(data))
        return key if leaf.__dict__.keys() <= MARKS else (*key, *_attributes(leaf))
    if kind in (int, bool, str, NoneType):
        return (kind, leaf)
    if kind is float:  # 0.0 == -0.0, and nan != nan
        return (float, math.copysign(1, leaf), leaf if leaf == leaf else "nan")
    if kind is complex:
        return (complex, _leaf_key(leaf.real), _leaf_key(leaf.imag))
    if isinstance(leaf, np.generic):
        return (kind, leaf.dtype, leaf.tobytes())
    if kind is frozenset:  # {1} == {True}
        return (frozenset, frozenset((type(item), item) for item in leaf))
    if kind is slice:
        return (slice, *map(_leaf_key, (leaf.start, leaf.stop, leaf.step)))
    if is_used_up(leaf):
        raise ArgumentTypeError(f"a compiled function cannot take a {kind.__name__}, which runs only once",
                                hint="make it a list or a tuple")
    if kind in _HINTS:
        raise ArgumentTypeError(
            f"a compiled function cannot take a {kind.__name__}", hint=_HINTS[kind],
            expected="tensors, plain values, objects, and containers of these",
        )  # fmt: skip
    if kind.__hash__ is None or not is_known(kind):  # what its == takes for equal may differ in what the function reads
        return (kind, _Identity(leaf))
    return (kind, leaf)


class _Identity:
    """An object in a key, equal to itself alone."""

    __slots__ = ("_object",)

    def __init__(self, leaf: Any) -> None:
        self._object = leaf

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other._object is self._object

    def __hash__(self) -> int:
        return id(self._object)


def _attributes(tensor: Tensor) -> Iterator[tuple[str, Any]]:
    """What a program has written to a tensor, which the function may read."""
    for name, value in sorted(tensor.__dict__.items()):
        if name not in MARKS:
            yield name, (type(value), _Identity(value)) if isinstance(value, (Tensor, list, dict)) else _leaf_key(value)


def is_used_up(leaf: Any) -> bool:
    """Whether a value is a generator or another iterator of Python's own, whose state cannot be seen."""
    return isinstance(leaf, Iterator) and type(leaf).__module__ in ("builtins", "itertools")


def has_history(leaf: Any) -> bool:
    """Whether a leaf is a tensor that was computed, and whose gradient is wanted."""
    return isinstance(leaf, Tensor) and mode.grad and leaf.grad_fn is not None
