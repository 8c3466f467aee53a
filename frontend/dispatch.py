"""What a primitive op does when its operands are tensors: it runs now, or joins the trace; and it goes on the tape."""

from __future__ import annotations

import contextvars
import functools
import threading
from typing import Any

import numpy as np

from graphc import compiler, ops
from graphc.dim_numbers import DimNumber
from graphc.dims import Dim
from graphc.errors import ArgumentTypeError
from graphc.frontend import device_arrays, device_ops, eager, large_arrays
from graphc.frontend.described import as_dtype
from graphc.frontend.device_arrays import is_on_device
from graphc.frontend.memory_layout import can_share
from graphc.frontend.modes import mode
from graphc.frontend.symbolic_number import SymbolicNumber
from graphc.frontend.tape import record_op, record_several
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import _state as trace_state
from graphc.frontend.viewing import Viewing, lies_in, tie
from graphc.op import OpDef, common_dtype, working_dtype
from graphc.types import (
    DType,
    TensorType,
    bfloat16,
    broadcast_shapes,
    complex32,
    complex64,
    convert,
    scalar_dtype,
)

COSTLY = 1 << 12
"""From how many elements on an op that NumPy is slow at runs compiled."""

DIFFERENTIABLE = "fcV"
"""The kinds of NumPy's dtypes that can have gradients: floating point, complex, and bfloat16."""

_new = object.__new__


class _Quiet(threading.local):
    """`run(function, *args)` without NumPy's warnings of division by zero and the like: the result says inf or nan.

    A context entered once a thread, because `with np.errstate` costs more than a small operation.
    """

    def __init__(self) -> None:
        with np.errstate(all="ignore"):
            self.run = contextvars.copy_context().run


quiet = _Quiet()


class TensorEmitter:
    """The emitter of tensors. It stands below the builders of graphs: a tensor among graph values becomes a constant."""

    priority = 0

    def emit(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """Apply the op; a tensor, or a tuple of them."""
        if trace_state.tracer is not None:
            tracer = trace_state.active
            if tracer is None:
                return trace_state.watcher.run(record, self.emit, record, args, attrs)  # type: ignore[union-attr]
            traced = tracer.apply(record, args, attrs)
            if isinstance(traced, tuple):
                return finish_several(record, args, attrs, traced)
            return finish(record, args, attrs, traced, traced.dtype.is_differentiable)
        if record.elementwise:
            function = eager.functions.get(record)
            return _elementwise(record, args) if function is None else function(*args)
        if (record.view is not None or record is ops.broadcast_to) and len(args) == 1 and isinstance(args[0], Tensor):
            return _view(record, args[0], attrs)
        if device_arrays.kinds and any(isinstance(arg, Tensor) and is_on_device(arg._data) for arg in args):
            return _on_device(record, args, attrs)
        result = _general(record, args, attrs)
        if type(result) is tuple:
            return finish_several(record, args, attrs, result)
        return finish(record, args, attrs, result, result.dtype.kind in DIFFERENTIABLE)


Tensor.__graphc_emitter__ = TensorEmitter()


def finish(record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any], result: Any, floating: bool) -> Tensor:
    """The tensor for the result of an op: on the tape if a gradient is wanted, and tied to the memory it shares."""
    out = _new(Tensor)
    out._data = result
    out._node = None
    out._meta = None
    if mode.inference:
        out._state().inference = True
    if floating and mode.grad:
        for arg in args:
            if isinstance(arg, Tensor) and (arg._node is not None or arg._meta is not None):
                record_op(record, args, attrs, out)
                break
    if args and (record.view is not None or record in _SHARING) and _shares(record, args[0], attrs, result):
        tie(out, args[0], (record, attrs))
    return out


def finish_several(record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any], results: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """The tensors for the results of an op that has several, on the tape if a gradient is wanted."""
    outs = tuple(map(wrap, results))
    if mode.inference:
        for out in outs:
            out._state().inference = True
    if mode.grad and any(isinstance(arg, Tensor) and (arg._node is not None or arg._meta is not None) for arg in args):
        record_several(record, args, attrs, outs)
    return outs


_SHARING = frozenset((ops.broadcast_to, ops.window))
"""Ops other than views whose results may lie in the memory of the operand."""


def _shares(record: OpDef, source: Any, attrs: dict[str, Any], result: Any) -> bool:
    """Whether the result lies in the memory of the operand."""
    if not isinstance(source, Tensor):
        return False
    if type(result) is not np.ndarray:
        return not is_on_device(result) and (record.name != "reshape" or can_share(source, attrs["shape"]))
    return lies_in(result, source._data)


# Elementwise ops

_functions: dict[OpDef, Any] = {}
_plans: dict[Any, Any] = {}
_NUMBERS = (float, int, bool, complex)
_REAL = (float, int, bool)


def _function(record: OpDef) -> Any:
    """What computes the op under `quiet`, which has silenced the warnings already: the ufunc itself, where it is one."""
    found = _functions[record] = getattr(record.ref, "ufunc", record.ref)
    return found


def _elementwise(record: OpDef, args: tuple[Any, ...]) -> Tensor:
    eager.count()
    arrays: list[Any] = []
    watched = False
    same = None  # the dtype, as long as all tensors are of one floating-point dtype
    size = 0  # of the largest operand
    plain = True
    numbers = False  # whether NumPy is given real numbers, to which it gives the dtype of the arrays beside them
    function = _functions.get(record) or _function(record)
    for arg in args:
        if type(arg) is Tensor or isinstance(arg, Tensor):
            array = arg._data
            if type(array) is not np.ndarray:
                if is_on_device(array):
                    return _on_device(record, args, {})
                array = arg._array("eager execution")
            if arg._node is not None or arg._meta is not None:
                watched = True
            if array.size > size:
                size = array.size
            dtype = array.dtype
            if dtype is not same:
                if same is None and dtype.kind == "f":  # every elementwise op is defined on these
                    same = dtype
                else:
                    plain = False
        elif type(arg) in _NUMBERS:
            array = arg
            if type(arg) in _REAL and type(function) is np.ufunc and not record.keeps:
                numbers = True
            else:
                plain = False
        else:
            array = lower(arg)
            plain = False
        arrays.append(array)
    narrow = None
    if not plain or (numbers and (same is None or same.itemsize == 2)):
        narrow = _promote(record, arrays)
    try:
        native = None
        if size >= COSTLY and (record.costly or size >= large_arrays.LARGE or record is ops.where):  # NumPy chooses slowly
            native = _native(record, arrays)
        result = quiet.run(function, *arrays) if native is None else native
    except ValueError:
        # NumPy's message names neither the op nor the dimension
        broadcast_shapes(*(np.shape(a) for a in arrays), op=record.name)
        raise
    except TypeError:
        record.infer(*(TensorType(as_dtype(np.asarray(a).dtype), ()) for a in arrays))  # says what the op is defined on
        raise
    if type(result) is not np.ndarray:
        result = np.asarray(result)
    if narrow is not None:
        result = _narrowed(result, narrow)
    out = _new(Tensor)
    out._data = result
    out._node = None
    out._meta = None
    if watched and mode.grad and result.dtype.kind in DIFFERENTIABLE:
        record_op(record, args, {}, out)
    if mode.inference:
        out._state().inference = True
    return out


def _on_device(record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
    """The op on operands of which some are on a GPU."""
    source = args[0] if args else None
    if (record.view is not None or record in _SHARING) and isinstance(source, Tensor) and is_on_device(source._data):
        _check(record, [source._data], attrs)
        if record.name != "reshape" or can_share(source, attrs["shape"]):
            seen = device_arrays.viewed(source._data, functools.partial(record.ref, **attrs))
            if seen is not None:
                out = finish(record, args, attrs, seen, seen.dtype.kind in DIFFERENTIABLE)
                tie(out, source, (record, attrs))
                return out
    result = device_ops.run(record, args, attrs)
    if type(result) is tuple:
        return finish_several(record, args, attrs, result)
    return finish(record, args, attrs, result, result.dtype.kind in DIFFERENTIABLE)


def overwrite(record: OpDef, arrays: list[Any]) -> None:
    """Compute an elementwise op over its first operand, of float32 or float64. A second one is of its type, or a number."""
    own = arrays[0]
    if own.size >= large_arrays.LARGE and _native(record, arrays, over=True) is not None:
        return
    function = _functions.get(record) or _function(record)
    into = [own] if type(function) is np.ufunc else []
    computed = quiet.run(function, *arrays, *into)
    if computed is not own:
        np.copyto(own, computed)


def _native(record: OpDef, arrays: list[Any], over: bool = False) -> np.ndarray | None:
    """The result by code for large arrays, written over the first operand if asked to; None where there is none, or not yet.
    Python numbers get the dtype of the arrays."""
    if record.kernel is not None:
        return None
    if not all(type(array) is np.ndarray for array in arrays):
        dtypes = [a.dtype for a, name in zip(arrays, record.operands) if type(a) is np.ndarray and name not in record.keeps]
        if not dtypes:
            return None
        dtype = as_dtype(dtypes[0])
        arrays = [array if type(array) is np.ndarray else number(array, dtype) for array in arrays]
    if over:
        return arrays[0] if large_arrays.computed_over(record, arrays) else None
    return large_arrays.computed(record, arrays)


def _promote(record: OpDef, arrays: list[Any]) -> DType | None:
    """Convert the operands to the dtype that PyTorch's rules give; NumPy's own never come to act.

    The dtype to which the result has to be rounded, where the operands are wider.
    """
    key: list[Any] = [record.name]
    for array in arrays:
        if type(array) is np.ndarray:
            key += (array.dtype, array.ndim == 0)
        else:
            key.append(type(array))
    plan = _plans.get(tuple(key))
    if plan is None:
        plan = _plans[tuple(key)] = _conversions(record, arrays)
    wanted, narrow = plan
    for i, target in wanted:
        array = arrays[i]
        if target is None:
            arrays[i] = float(array)
        elif type(array) is not np.ndarray:
            arrays[i] = number(array, target)
        elif target.is_complex or array.dtype.kind in "cV":
            arrays[i] = convert(array, target)
        else:
            arrays[i] = quiet.run(array.astype, target.numpy)
    return narrow


def _narrowed(wide: np.ndarray, dtype: DType) -> np.ndarray:
    """What was computed in a wider dtype, rounded; booleans, and parts of complex numbers, as such."""
    if wide.dtype.kind not in DIFFERENTIABLE:
        return wide
    return convert(wide, dtype if wide.dtype.kind == "c" else dtype.to_real())


def _conversions(record: OpDef, arrays: list[Any]) -> tuple[tuple[tuple[int, DType | None], ...], DType | None]:
    """Which operands need another dtype for these dtypes; the type rule refuses those that the op is not defined on.

    None stands for a Python number that NumPy itself gives the floating-point dtype of the array beside it.
    """
    described = [TensorType(as_dtype(a.dtype), a.shape) if type(a) is np.ndarray else a for a in arrays]
    common = common_dtype(record, described)
    dtype = working_dtype(record, described, common)
    function = _function(record)
    weak = dtype.kind == "float" and dtype is not bfloat16 and (isinstance(function, np.ufunc) or function is np.where) and any(
        isinstance(t, TensorType) for t, name in zip(described, record.operands) if name not in record.keeps)
    wanted: list[tuple[int, DType | None]] = []
    types = []
    for i, (operand, name) in enumerate(zip(described, record.operands)):
        if name in record.keeps:
            target = operand.dtype if isinstance(operand, TensorType) else scalar_dtype(operand)
        else:
            target = dtype
        types.append(TensorType(target, ()))
        if not isinstance(operand, TensorType):
            wanted.append((i, None if weak and name not in record.keeps else target))
        elif operand.dtype is not target:
            wanted.append((i, target))
    record.infer(*types)
    return tuple(wanted), None if dtype is common else common


eager.python.by_python = _elementwise


def forget_promotions() -> None:
    """After the default dtype has changed, which Python numbers and some results have."""
    _plans.clear()


@functools.lru_cache(maxsize=1 << 12, typed=True)
def _known_number(value: Any, dtype: DType) -> np.ndarray:
    array = _new_number(value, dtype)
    array.setflags(write=False)
    return array


def _new_number(value: Any, dtype: DType) -> np.ndarray:
    if dtype.is_complex:
        return convert(np.asarray(value, np.complex128), dtype)
    try:
        return quiet.run(np.asarray, value, dtype.numpy)
    except OverflowError:
        return np.asarray(int(value) & 0xFFFFFFFFFFFFFFFF, np.uint64).astype(dtype.numpy)


def number(value: Any, dtype: DType) -> np.ndarray:
    """A Python number as a 0-d array; integers that do not fit wrap around, as in C."""
    if type(value) is SymbolicNumber:  # whose trace ends before the cache forgets it
        value = value.plain()
    # 0.0 equals -0.0, and is another number
    return _known_number(value, dtype) if value and not dtype.is_complex else _new_number(value, dtype)


def lower(arg: Any) -> Any:
    """An operand as an array, or as a Python number."""
    if isinstance(arg, Tensor):
        data = arg._data
        return data if type(data) is np.ndarray else arg._array("eager execution")
    if type(arg) in _NUMBERS or isinstance(arg, (np.ndarray, int, float, complex, Dim, DimNumber)):
        return arg
    if isinstance(arg, np.generic):
        return np.asarray(arg)
    raise ArgumentTypeError("an operand is not a tensor", expected="a Tensor or a number", got=type(arg).__name__)


# Everything else


_viewings: dict[OpDef, Viewing] = {}
_EXPLAINED = frozenset((ops.reshape, ops.permute))
"""Ops whose mistakes NumPy finds; the type rule says what is wrong then."""


def _view(record: OpDef, source: Tensor, attrs: dict[str, Any]) -> Tensor:
    """The operand's memory seen in another way, or a copy where that cannot be."""
    array = source._data
    if type(array) is not np.ndarray:
        if is_on_device(array):
            return _on_device(record, (source,), attrs)
        array = source._array("eager execution")
    if record not in _EXPLAINED:
        _check(record, [array], attrs)
    try:
        result = record.ref(array, **attrs)
    except ValueError:
        record.infer(TensorType(as_dtype(array.dtype), array.shape), **attrs)
        raise
    viewing = _viewings.get(record)
    if viewing is None:
        viewing = _viewings[record] = Viewing(record)
    return viewing.make(source, result, attrs)


_checked: dict[Any, bool] = {}
_HALVES = complex32.numpy


def _general(record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
    arrays = []
    for arg in args:
        array = arg._data if isinstance(arg, Tensor) else None
        arrays.append(array if type(array) is np.ndarray else np.asarray(lower(arg)))
    if record.name != "constant" and _check(record, arrays, attrs):
        result = quiet.run(record.ref, *arrays, **attrs)
        if type(result) is tuple:
            return tuple(map(np.asarray, result))
        return result if type(result) is np.ndarray else np.asarray(result)
    if record.costly and ((arrays and max(a.size for a in arrays) >= COSTLY) or "shape" in attrs or record.kernel == "control"):
        return compiler.run_op(record, arrays, attrs)
    narrow = record.computes and any(a.dtype == _HALVES for a in arrays)
    if narrow:
        arrays = [convert(a, complex64) if a.dtype == _HALVES else a for a in arrays]
    result = quiet.run(record.ref, *arrays, **attrs)
    if type(result) is tuple:
        results = tuple(map(np.asarray, result))
        return tuple(_narrowed(r, complex32) for r in results) if narrow else results
    result = result if type(result) is np.ndarray else np.asarray(result)
    return _narrowed(result, complex32) if narrow else result


def _check(record: OpDef, arrays: list[np.ndarray], attrs: dict[str, Any]) -> bool:
    """Let the type rule look at the operands, once for each combination of types and attributes. Whether the op's definition
    can be run as it is, and gives one result or several arrays."""
    key: Any = [record, *attrs.values()]
    for array in arrays:
        key += (array.dtype, array.shape)
    key = tuple(key)
    try:
        plain = _checked.get(key)
        if plain is not None:
            return plain
    except TypeError:
        key = None
    plain = not record.costly and record.kernel is None and all(array.dtype.kind in "biuf" for array in arrays)
    record.infer(*(TensorType(as_dtype(a.dtype), a.shape) for a in arrays), **attrs)
    if key is not None:
        if len(_checked) > 1 << 14:
            _checked.clear()
        _checked[key] = plain
    return plain
