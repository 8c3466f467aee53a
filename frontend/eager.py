"""Elementwise ops and views that run natively at once: no Python between the call and the result.

Ops whose results are exactly rounded, and those that NumPy computes in a loop that native code can call as NumPy does, have
NumPy's bits; few others have loops of their own. An op gets its code when a program has called such ops so often that this is
bound to pay; until then, and for operands that there is no code for, `dispatch` runs NumPy.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from graphc import ops
from graphc.backend import get_backend, is_loaded
from graphc.config import config
from graphc.frontend import tracer
from graphc.frontend.hooks import saved_hooks
from graphc.frontend.modes import mode
from graphc.frontend.native import TENSORS
from graphc.frontend.tape import named, node_plan, record_op, wants_only
from graphc.frontend.tape_plan import Native
from graphc.frontend.tensor import Tensor
from graphc.op import OPS, OpDef
from graphc.specs import EagerSpec, NodePlan, SubscriptSpec, ViewSpec
from graphc.types import TensorType, float32, float64

EXACT = (
    ops.add, ops.sub, ops.mul, ops.div, ops.neg, ops.abs, ops.sqrt, ops.relu, ops.maximum, ops.minimum,
    ops.eq, ops.ne, ops.lt, ops.le, ops.gt, ops.ge,
)  # fmt: skip
OWN = (*EXACT, ops.sigmoid, ops.rsqrt, ops.erf, ops.atan2, ops.erfinv, ops.lgamma, ops.digamma)
"""What has loops of its own. NumPy takes several passes for those that are not exact: last bits may differ."""
OFTEN = 2_000
"""Calls after which code for the ops pays, if the back end is there already; each saves about a microsecond."""
VERY_OFTEN = 50_000
"""Calls after which loading the back end pays."""

functions: dict[OpDef, Callable[..., Any]] = {}
"""What calls an op natively, or by way of Python if need be."""
views: list[Maker] = []
"""What makes views."""
calls_left = iter(range(OFTEN, -1, -1))
"""Counts the calls by way of Python, down to 0, when `begin` is due."""
MANY = 40
"""Nodes of a plan that Python has run, after which code for their rules pays."""
begun = False
"""Whether code is made."""
engine: tuple[Callable[..., Any], Callable[..., Any]] | None = None
"""What runs nodes of the tape natively, once code is made: see `Backend.engine`."""
_waited = False
_making = threading.Lock()
_SUBSCRIPT = "__getitem__"
_subscripts: list[Subscripts] = []
_in_place: list[tuple[str, OpDef, Callable[..., Any]]] = []
_methods: dict[OpDef, list[tuple[str, Callable[..., Any]]]] = {}

_THREAD = ((tracer._state, "tracer", None), (mode, "inference", False))
_GRAD = (mode, "grad", True)
_HOOKS = (saved_hooks, "stack", ())


class Maker:
    """Makes views by one op, called `name` on the tape if given; or, without an op, by steps that are given."""

    __slots__ = ("make", "name", "record")

    def __init__(self, record: OpDef | None, name: str | None, by_python: Callable[..., Tensor]) -> None:
        self.record = record
        self.name = name
        self.make = native_view(record, name, by_python) if begun else by_python
        """Of a source, an array made of its own, and the op's attributes or the steps, the tensor; natively, once it pays."""
        views.append(self)


class Subscripts(NamedTuple):
    """How `tensor[index]` is made by Python, and of what."""

    by_python: Callable[..., Any]
    lazy: Maker
    """Makes parts by steps that are given."""
    cut: Maker
    """Makes parts by slices; for numbers `selected`, and without the dimensions that they leave `dropped`."""
    selected: Maker
    dropped: Maker
    alias: Maker
    """Another shape, where nothing is left out."""
    steps: Callable[..., Any]
    """Of an index and a shape, the steps for `lazy`."""


class _Python:
    by_python: Callable[[OpDef, tuple[Any, ...]], Any]


python = _Python()
"""What applies an op to operands that the code is not for: `dispatch` says it, which stands above."""


def attach(name: str, record: OpDef, by_python: Callable[..., Any]) -> None:
    """Give tensors a method that is one op, of the tensor and the other operands in this order."""
    setattr(Tensor, name, by_python)
    _methods.setdefault(record, []).append((name, by_python))


def attach_in_place(name: str, record: OpDef, by_python: Callable[..., Any]) -> None:
    """Give tensors a method that writes what an op makes of the tensor and another operand over the tensor."""
    setattr(Tensor, name, by_python)
    _in_place.append((name, record, by_python))


def attach_subscript(subscripts: Subscripts) -> None:
    """Give tensors `tensor[index]`."""
    setattr(Tensor, _SUBSCRIPT, subscripts.by_python)
    _subscripts.append(subscripts)


def numpy_loop(record: OpDef) -> np.ufunc | None:
    """The ufunc of one operand, defined on floating-point numbers, that an op is, where it is nothing else."""
    ufunc = getattr(record.ref, "ufunc", record.ref)
    if record.elementwise and len(record.operands) == 1 and not record.costly and isinstance(ufunc, np.ufunc):
        return ufunc if "f->f" in ufunc.types else None
    return None


def count() -> None:
    """Count a call by way of Python."""
    if not next(calls_left, 1):
        begin()


def begin() -> None:
    """Have each of the ops get its code at its next call, or wait until it pays to load the back end."""
    global _waited, begun, calls_left, engine  # noqa: PLW0603  (states of the process, with this one writer)
    if not (_waited or is_loaded(config.backend)):
        _waited, calls_left = True, iter(range(VERY_OFTEN, -1, -1))
        return
    for record in (*OWN, *filter(numpy_loop, OPS.values())):
        functions[record] = functools.partial(_first, record)
    begun = True
    engine = get_backend(config.backend).engine(TENSORS) if config.fuse_eager else None
    for name, record, by_python in _in_place:
        setattr(Tensor, name, _first_in_place(name, record, by_python))
    for view in views:
        view.make = native_view(view.record, view.name, view.make)
    for subscripts in _subscripts:
        setattr(Tensor, _SUBSCRIPT, _native_subscript(subscripts))


def _first(record: OpDef, *args: Any) -> Any:
    function = functions[record] = native(record, lambda *args: python.by_python(record, args))
    for name, method in _methods.get(record, ()):
        own = native(record, method)
        if own is not method:
            setattr(Tensor, name, _as_method(own))
    return function(*args)


def _first_in_place(name: str, record: OpDef, by_python: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(by_python)
    def method(*args: Any, **kwargs: Any) -> Any:
        own = native(record, by_python, in_place=True)
        setattr(Tensor, name, by_python if own is by_python else _as_method(own))
        return own(*args, **kwargs)

    return method


def native(record: OpDef, fallback: Callable[..., Any], in_place: bool = False) -> Callable[..., Any]:
    """A function of the op's operands that runs natively on tensors of float32 or float64, and calls `fallback` for others.
    It is `fallback` itself where the back end makes no such functions."""
    if not config.fuse_eager:
        return fallback
    result = record.infer(*[TensorType(float32, ())] * len(record.operands)).dtype
    ufunc = None if record in OWN else numpy_loop(record)
    function = fallback
    for dtype in (float64, float32):
        make = get_backend(config.backend).eager(EagerSpec(
            op=record, dtype=dtype, tensors=TENSORS, thread=_THREAD, grad=_GRAD, hooks=_HOOKS, nodes=_nodes(record),
            record=functools.partial(_record, record) if result.is_differentiable else None, ufunc=ufunc,
            in_place=in_place,
        ))  # fmt: skip
        if make is not None:
            function = make(function)
    return function


def _nodes(record: OpDef) -> tuple[NodePlan | None, ...]:
    """What is recorded natively: of rules that ask for no types, which are those of tensors alone where all are alike."""
    combinations = ((0,),) if len(record.operands) == 1 else ((0,), (1,), (0, 1))
    return tuple(node_plan(record, wanted) if wants_only(record, wanted, ("ct", "out", "operand")) else None
                 for wanted in combinations)


def run_by_python(plan: Native) -> None:
    """Count a node that Python runs, and have those of its plan run natively once that pays."""
    if type(plan.native) is int:
        plan.native += 1
        # what there is never changes, as other threads may be running it; and a fork may leave the lock as it is
        if plan.native > MANY and _making.acquire(blocking=False):
            try:
                if type(plan.native) is int:
                    plan.native = plan.make_native()
            finally:
                _making.release()


def _record(record: OpDef, out: Tensor, alike: bool, *args: Any) -> None:
    record_op(record, args, {}, out, alike and all(isinstance(arg, Tensor) for arg in args))


def native_view(record: OpDef | None, name: str | None, fallback: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function (source, array, attributes) that makes a view of the source around an array, as the op, which is called
    `name` on the tape. Without an op, (source, array, steps)."""
    if not config.fuse_eager:
        return fallback

    def by_python(source: Tensor, attrs: dict[str, Any], out: Tensor) -> None:
        assert record is not None
        record_op(record, (source,), attrs, out)
        if name is not None:
            named(out, name)

    make = get_backend(config.backend).view(ViewSpec(
        tensors=TENSORS, thread=_THREAD, grad=_GRAD, hooks=_HOOKS, op=record,
        node=None if record is None else node_plan(record, (0,), name), record=None if record is None else by_python,
    ))  # fmt: skip
    return fallback if make is None else make(fallback)


def _native_subscript(how: Subscripts) -> Any:
    """A method that runs natively where the index consists of ints, slices, None and Ellipsis."""
    if not config.fuse_eager:
        return how.by_python
    make = get_backend(config.backend).subscript(SubscriptSpec(
        tensors=TENSORS, thread=_THREAD, grad=_GRAD, lazy=how.lazy.make, cut=how.cut.make, selected=how.selected.make,
        dropped=how.dropped.make, alias=how.alias.make, partial=functools.partial, steps=how.steps,
    ))  # fmt: skip
    return how.by_python if make is None else _as_method(make(how.by_python))


def _as_method(function: Callable[..., Any]) -> Any:
    """A built-in function that is bound to an object as Python's functions are."""
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(("PyInstanceMethod_New", ctypes.pythonapi))
    return make(function)
