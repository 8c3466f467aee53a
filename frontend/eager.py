"""Elementwise ops that run natively at once: no Python between the call and the result.

Only ops whose results are exactly rounded, so that the bits are NumPy's. An op gets its code when a program has called
such ops so often that this is bound to pay; until then, and for operands that there is no code for, `dispatch` runs NumPy.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from graphc import ops
from graphc.backend import EagerSpec, get_backend, is_loaded
from graphc.config import config
from graphc.frontend import tracer
from graphc.frontend.modes import mode
from graphc.frontend.native import TENSORS
from graphc.frontend.tape import record_op
from graphc.frontend.tensor import Tensor
from graphc.op import OpDef
from graphc.types import TensorType, float32, float64

EXACT = (
    ops.add, ops.sub, ops.mul, ops.div, ops.neg, ops.abs, ops.sqrt, ops.relu, ops.maximum, ops.minimum,
    ops.eq, ops.ne, ops.lt, ops.le, ops.gt, ops.ge,
)  # fmt: skip
OFTEN = 2_000
"""Calls after which code for the ops pays, if the back end is there already; each saves about a microsecond."""
VERY_OFTEN = 50_000
"""Calls after which loading the back end pays."""

functions: dict[OpDef, Callable[..., Any]] = {}
"""What calls an op natively, or by way of Python if need be."""
calls_left = iter(range(OFTEN, -1, -1))
"""Counts the calls by way of Python, down to 0, when `begin` is due."""
_waited = False
_methods: dict[OpDef, list[tuple[str, Callable[..., Any]]]] = {}


def attach(name: str, record: OpDef, by_python: Callable[..., Any]) -> None:
    """Give tensors a method that is one op, of the tensor and the other operands in this order."""
    setattr(Tensor, name, by_python)
    _methods.setdefault(record, []).append((name, by_python))


def begin(by_python: Callable[[OpDef, tuple[Any, ...]], Any]) -> None:
    """Have each of the ops get its code at its next call, or wait until it pays to load the back end. `by_python` is what to
    call for operands that the code is not for."""
    global _waited, calls_left
    if not (_waited or is_loaded(config.backend)):
        _waited, calls_left = True, iter(range(VERY_OFTEN, -1, -1))
        return
    for record in EXACT:
        functions[record] = functools.partial(_first, record, by_python)


def _first(record: OpDef, by_python: Callable[[OpDef, tuple[Any, ...]], Any], *args: Any) -> Any:
    function = functions[record] = native(record, lambda *args: by_python(record, args))
    for name, method in _methods.get(record, ()):
        own = native(record, method)
        if own is not method:
            setattr(Tensor, name, _as_method(own))
    return function(*args)


def native(record: OpDef, fallback: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the op's operands that runs natively on tensors of float32 or float64, and calls `fallback` for others.
    It is `fallback` itself where the back end makes no such functions."""
    if not config.fuse_eager:
        return fallback
    differentiable = record.infer(*[TensorType(float32, ())] * len(record.operands)).dtype.is_differentiable
    function = fallback
    for dtype in (float64, float32):
        make = get_backend(config.backend).eager(EagerSpec(
            op=record, dtype=dtype, tensors=TENSORS, thread=((tracer._state, "tracer", None), (mode, "inference", False)),
            grad=(mode, "grad", True), record=functools.partial(_record, record) if differentiable else None,
        ))  # fmt: skip
        if make is not None:
            function = make(function)
    return function


def _record(record: OpDef, out: Tensor, alike: bool, *args: Any) -> None:
    record_op(record, args, {}, out, alike)


def _as_method(function: Callable[..., Any]) -> Any:
    """A built-in function that is bound to an object as Python's functions are."""
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(("PyInstanceMethod_New", ctypes.pythonapi))
    return make(function)
