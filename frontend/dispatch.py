"""What a primitive op does when its operands are tensors: it runs now, or joins the trace; and it goes on the tape."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import numpy as np

from graphc import compiler
from graphc.errors import ArgumentTypeError
from graphc.frontend.modes import mode
from graphc.frontend.tape import record_op
from graphc.frontend.tensor import Meta, Tensor, View, as_dtype, wrap
from graphc.frontend.tracer import active
from graphc.op import OpDef, common_dtype
from graphc.types import DType, TensorType, broadcast_shapes, scalar_dtype

COSTLY = 1 << 12
"""From how many elements on an op that NumPy is slow at runs compiled."""

_new = object.__new__


class _Quiet(threading.local):
    """`run(function, *args)` without NumPy's warnings of division by zero and the like: the result says inf or nan.

    A context entered once a thread, because `with np.errstate` costs more than a small operation.
    """

    def __init__(self) -> None:
        with np.errstate(all="ignore"):
            self.run = contextvars.copy_context().run


_quiet = _Quiet()


class TensorEmitter:
    """The emitter of tensors. It stands below the builders of graphs: a tensor among graph values becomes a constant."""

    priority = 0

    def emit(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """Apply the op; a tensor, or a tuple of them."""
        tracer = active()
        if tracer is not None:
            result = tracer.apply(record, args, attrs)
            if type(result) is tuple:
                return tuple(map(wrap, result))
            floating = result.dtype.is_floating_point
        else:
            result = _elementwise(record, args) if record.elementwise else _general(record, args, attrs)
            if type(result) is tuple:
                return tuple(map(wrap, result))
            floating = result.dtype.kind == "f"
        return finish(record, args, attrs, result, floating)


Tensor.__graphc_emitter__ = TensorEmitter()


def finish(record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any], result: Any, floating: bool) -> Tensor:
    """The tensor for the result of an op: on the tape if a gradient is wanted, and tied to the memory it shares."""
    out = _new(Tensor)
    out._data = result
    out._node = None
    out._meta = None
    if mode.inference:
        out._state().inference = True
    shares = not record.elementwise and args and type(args[0]) is not np.ndarray and _shares(record, args[0], result)
    if floating and mode.grad:
        for arg in args:
            if isinstance(arg, Tensor) and (arg._node is not None or arg._meta is not None):
                record_op(record, args, attrs, out)
                break
    if shares:
        _tie(out, args[0], record, attrs)
    return out


def _shares(record: OpDef, source: Any, result: Any) -> bool:
    """Whether the result lies in the memory of the operand."""
    if record.view is None and record.name not in ("broadcast_to", "window"):
        return False
    if not isinstance(source, Tensor):
        return False
    if type(result) is not np.ndarray:
        return True
    array = source._data
    return result.base is not None and (result.base is array or result.base is array.base)


def _tie(out: Tensor, source: Tensor, record: OpDef, attrs: dict[str, Any]) -> None:
    own = source._state()
    meta = out._meta
    if meta is None:
        meta = out._meta = Meta()
    meta.version = source._version_counter()
    meta.inference = own.inference
    parent = own.view
    base = None if parent is None else parent.base
    step = (record, attrs)
    if parent is None or base is None:
        meta.view = View(source, (step,), mode.grad)
    else:
        meta.view = View(base, (*parent.steps, step), parent.tracked and mode.grad)


# Elementwise ops


def _elementwise(record: OpDef, args: tuple[Any, ...]) -> np.ndarray:
    arrays = _same_floating(args)
    if arrays is None:
        arrays, dtype = _promoted(record, args)
        _check_dtype(record, dtype, arrays)
    ref = record.ref
    function = getattr(ref, "ufunc", None) or ref
    try:
        if record.costly and arrays[0].size >= COSTLY:
            result = compiler.run_op(record, [np.asarray(a) for a in np.broadcast_arrays(*arrays)], {})
        else:
            result = _quiet.run(function, *arrays)
    except ValueError:
        # NumPy's message names neither the op nor the dimension
        broadcast_shapes(*(a.shape for a in arrays), op=record.name)
        raise
    return result if type(result) is np.ndarray else np.asarray(result)


def _same_floating(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The arrays, where all operands are tensors of one floating-point dtype: the common case."""
    dtype = None
    arrays = []
    for arg in args:
        if not isinstance(arg, Tensor):
            return None
        array = arg._data
        if array.dtype is not dtype:
            if dtype is not None:
                return None
            dtype = array.dtype
        arrays.append(array)
    return tuple(arrays) if dtype is not None and dtype.kind == "f" else None


def _promoted(record: OpDef, args: tuple[Any, ...]) -> tuple[tuple[np.ndarray, ...], DType]:
    """The operands as arrays of the dtype that PyTorch's rules give; NumPy's own never come to act."""
    values = [lower(arg) for arg in args]
    described = [v if isinstance(v, (bool, int, float)) else TensorType(as_dtype(v.dtype), v.shape) for v in values]
    dtype = common_dtype(record, described)
    arrays = []
    for value, name in zip(values, record.operands):
        if not isinstance(value, np.ndarray):
            kept = scalar_dtype(value) if name in record.keeps else dtype
            value = number(value, kept)
        elif value.dtype != dtype.numpy and name not in record.keeps:
            value = _quiet.run(value.astype, dtype.numpy)
        arrays.append(value)
    return tuple(arrays), dtype


def number(value: Any, dtype: DType) -> np.ndarray:
    """A Python number as a 0-d array; integers that do not fit wrap around, as in C."""
    try:
        return _quiet.run(np.asarray, value, dtype.numpy)
    except OverflowError:
        return np.asarray(int(value) & 0xFFFFFFFFFFFFFFFF, np.uint64).astype(dtype.numpy)


def lower(arg: Any) -> Any:
    """An operand as an array, or as a Python number."""
    if isinstance(arg, Tensor):
        data = arg._data
        return data if type(data) is np.ndarray else arg._array("eager execution")
    if type(arg) in (int, float, bool) or isinstance(arg, (np.ndarray, int, float)):
        return arg
    if isinstance(arg, np.generic):
        return np.asarray(arg)
    raise ArgumentTypeError("an operand is not a tensor", expected="a Tensor or a number", got=type(arg).__name__)


_accepted: set[tuple[str, DType]] = set()


def _check_dtype(record: OpDef, dtype: DType, arrays: tuple[np.ndarray, ...]) -> None:
    """Let the type rule refuse dtypes that the op is not defined on."""
    if (record.name, dtype) not in _accepted:
        types = [TensorType(as_dtype(a.dtype), ()) for a in arrays]
        record.infer(*types)
        if all(t.dtype is dtype for t in types):
            _accepted.add((record.name, dtype))


# Everything else

_checked: set[Any] = set()


def _general(record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
    arrays = [a._data if type(a) is Tensor and type(a._data) is np.ndarray else np.asarray(lower(a)) for a in args]
    if record.name != "constant":
        _check(record, arrays, attrs)
    if record.costly and ((arrays and max(a.size for a in arrays) >= COSTLY) or "shape" in attrs):
        return compiler.run_op(record, arrays, attrs)
    result = _quiet.run(_call, record.ref, arrays, attrs)
    if type(result) is tuple:
        return tuple(map(np.asarray, result))
    return result if type(result) is np.ndarray else np.asarray(result)


def _call(ref: Any, arrays: list[np.ndarray], attrs: dict[str, Any]) -> Any:
    return ref(*arrays, **attrs)


def _check(record: OpDef, arrays: list[np.ndarray], attrs: dict[str, Any]) -> None:
    """Let the type rule look at the operands, once for each combination of types and attributes."""
    key = (record.name, *[(a.dtype, a.shape) for a in arrays], *attrs.values())
    try:
        if key in _checked:
            return
    except TypeError:
        key = None
    record.infer(*(TensorType(as_dtype(a.dtype), a.shape) for a in arrays), **attrs)
    if key is not None:
        if len(_checked) > 1 << 14:
            _checked.clear()
        _checked.add(key)
