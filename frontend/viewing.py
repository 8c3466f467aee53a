"""Tensors that lie in another one's memory: how they come to know of each other."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from graphc.frontend import eager
from graphc.frontend.described import as_dtype
from graphc.frontend.meta import Meta, Steps, View
from graphc.frontend.modes import mode
from graphc.frontend.tape import named, record_op
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.op import OpDef
from graphc.types import TensorType


def lies_in(result: np.ndarray, array: np.ndarray) -> bool:
    """Whether a result of NumPy's is a view of an array."""
    return result.base is not None and (result.base is array or result.base is array.base)


def tie(out: Tensor, source: Tensor, step: tuple[OpDef, dict[str, Any]] | Steps) -> None:
    """Let a tensor know that it lies in another one's memory, and how to get there."""
    own = source._state()
    meta = out._meta
    if meta is None:
        meta = out._meta = Meta()
    meta.version = source._version_counter()
    meta.inference = own.inference
    parent = own.view
    base = None if parent is None else parent.base
    if parent is None or base is None:
        meta.view = View(source, None, step, tracked=mode.grad, detached=False)
    else:
        tracked = parent.tracked and mode.grad
        meta.view = View(base, parent, step, tracked=tracked, detached=parent.detached)


class Viewing(eager.Maker):
    """Makes views by one op, called `name` on the tape if given."""

    __slots__ = ("_op", "_ref")

    def __init__(self, record: OpDef, name: str | None = None) -> None:
        self._op = record
        self._ref = record.ref
        super().__init__(record, name, functools.partial(_made, record, name))

    def __call__(self, source: Tensor, attrs: dict[str, Any]) -> Tensor:
        """The view. What NumPy does not find wrong with the attributes is taken to be right."""
        array = source._data
        if type(array) is np.ndarray and active() is None:
            try:
                seen = self._ref(array, **attrs)
            except ValueError:
                self._op.infer(TensorType(as_dtype(array.dtype), array.shape), **attrs)  # says what is wrong
                raise
            return self.make(source, seen, attrs)
        made = Tensor.__graphc_emitter__.emit(self._op, (source,), attrs)
        return made if self.name is None else named(made, self.name)


def _made(record: OpDef, name: str | None, source: Tensor, array: np.ndarray, attrs: dict[str, Any]) -> Tensor:
    if active() is not None:
        out = Tensor.__graphc_emitter__.emit(record, (source,), attrs)
        return out if name is None else named(out, name)
    eager.count()
    out = wrap(array)
    if mode.grad and (source._node is not None or source._meta is not None) and source.dtype.is_differentiable:
        record_op(record, (source,), attrs, out)
        if name is not None:
            named(out, name)
    if lies_in(array, source._data):
        tie(out, source, (record, attrs))
    return out


def _indexed(source: Tensor, array: np.ndarray, steps: Steps) -> Tensor:
    eager.count()
    out = wrap(array)
    tie(out, source, steps)
    return out


indexed = eager.Maker(None, None, _indexed)
"""Makes views of tensors that no gradient is wanted of, by steps that are worked out when somebody asks."""
