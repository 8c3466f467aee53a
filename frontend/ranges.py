"""Tensors of numbers at equal distances, and of powers at equal distances of their exponents."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from graphc import ops
from graphc.dim_numbers import DimNumber
from graphc.dims import Dim
from graphc.errors import ArgumentTypeError, GraphcError, UnsupportedDTypeError
from graphc.frontend.arguments import given_dtype, integer
from graphc.frontend.arithmetic import pow
from graphc.frontend.creation import Device, finished
from graphc.frontend.pointwise import cast, trunc, where
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.types import DType, complex128, float64, get_default_dtype, int64

FUNCTIONS = "arange linspace logspace range"


def _number(value: Any, function: str, name: str) -> Any:
    """A Python number, out of one or of a 0-d tensor."""
    if isinstance(value, Tensor):
        if value._data.shape and function != "arange":
            raise GraphcError(f"{function} only supports 0-dimensional start and end tensors, but got {name} with "
                              f"{value.dim()} dimension(s).")
        return value.item()
    if isinstance(value, np.generic):
        return value.item()
    if not isinstance(value, (int, float, complex, Dim, DimNumber)):
        raise ArgumentTypeError(f"{function}(): argument '{name}' must be Number, not {type(value).__name__}")
    return value


def arange(start: Any = None, end: Any = None, step: Any = 1, *, out: Tensor | None = None, dtype: DType | None = None,
           device: Device = None, requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """The numbers from `start` (0 unless given) up to but not including `end`, `step` apart; int64 if all three are ints,
    else of the default dtype.

    GraphcError for a step of 0, and for one that leads away from the end; UnsupportedDTypeError for bools and complex numbers,
    ArgumentTypeError for what is no number.

    >>> graphc.arange(5), graphc.arange(1, 2, 0.25)
    (tensor([0, 1, 2, 3, 4]), tensor([1.0000, 1.2500, 1.5000, 1.7500]))
    """
    if end is None:
        start, end = 0, start
    elif start is None:
        start = 0
    start, end, step = (_number(x, "arange", name) for x, name in ((start, "start"), (end, "end"), (step, "step")))
    dtype = given_dtype(dtype, "arange") or (None if out is None else out.dtype)
    if dtype is None:
        dtype = get_default_dtype() if any(isinstance(x, (float, DimNumber)) for x in (start, end, step)) else int64
    if dtype.is_complex or dtype.kind == "bool":
        raise UnsupportedDTypeError(f'"arange" not implemented for {dtype.name}', expected="an integer or floating-point dtype")
    if step == 0:
        raise GraphcError("step must be nonzero")
    if not all(math.isfinite(x) for x in (start, end) if not isinstance(x, Dim)):
        raise GraphcError(f"unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise GraphcError("upper bound and lower bound inconsistent with step sign", got=f"{start}, {end}, {step}")
    if not dtype.is_floating_point:
        start, end, step = (x if isinstance(x, Dim) else int(x) for x in (start, end, step))
    exact = all(isinstance(x, (int, Dim)) for x in (start, end, step))
    count = -((start - end) // step) if exact else math.ceil((end - start) / step)
    return finished(_progression(count, start, step, dtype), out, requires_grad, device)


def range(start: float = 0, end: float | None = None, step: float = 1, *, out: Tensor | None = None,
          dtype: DType | None = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """The numbers from `start` to `end`, which is included: the old form of `arange`, which warns.

    GraphcError for a step of 0, and for one that leads away from the end.

    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     graphc.range(1, 3)
    tensor([1., 2., 3.])
    """
    warnings.warn("range is deprecated: its behavior is inconsistent with Python's range builtin. Use arange, which does not "
                  "include the end.", UserWarning, stacklevel=2)
    if end is None:
        start, end = 0, start
    if step == 0:
        raise GraphcError("step must be nonzero")
    if (end - start) * step < 0:
        raise GraphcError("upper bound and lower bound inconsistent with step sign", got=f"{start}, {end}, {step}")
    made = _progression(math.floor((end - start) / step) + 1, start, step, given_dtype(dtype, "range") or get_default_dtype())
    return finished(made, out, requires_grad, device)


def _progression(count: Any, start: Any, step: Any, dtype: DType) -> Tensor:
    made = _counted(count, float64 if dtype.is_floating_point else int64)
    if not dtype.is_floating_point:
        start, step = (x if isinstance(x, Dim) else int(x) for x in (start, step))
    if step != 1 or isinstance(step, float):
        made = made * step
    if start != 0:
        made = made + start
    return cast(made, dtype)


def _counted(count: int, dtype: DType) -> Tensor:
    if active() is not None:
        return ops.iota(shape=(count,), axis=0, dtype=dtype, like=Tensor)
    return wrap(np.arange(count, dtype=dtype.numpy))


def linspace(start: Any, end: Any, steps: int, *, out: Tensor | None = None, dtype: DType | None = None,
             device: Device = None, requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """`steps` numbers at equal distances, the first `start` and the last `end`.

    GraphcError for a negative number of steps, for ends that have dimensions, and complex ones in a real dtype;
    ArgumentTypeError for what is no number.

    >>> graphc.linspace(0, 1, 5)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    chosen = _spaced_dtype("linspace", start, end, dtype, out)
    made = _spaced("linspace", start, end, integer(steps, "linspace(): argument 'steps'"), chosen)
    made = made if chosen.is_differentiable else trunc(made)
    return finished(_wrapped(made, chosen), out, requires_grad, device)


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, out: Tensor | None = None, dtype: DType | None = None,
             device: Device = None, requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """`steps` powers of `base` whose exponents are at equal distances.

    GraphcError for a negative number of steps, for ends that have dimensions, and complex ones in a real dtype;
    ArgumentTypeError for what is no number.

    >>> graphc.logspace(0, 2, 3, base=2)
    tensor([1., 2., 4.])
    """
    chosen = _spaced_dtype("logspace", start, end, dtype, out)
    exponents = _spaced("logspace", start, end, integer(steps, "logspace(): argument 'steps'"), chosen)
    return finished(_wrapped(pow(float(base), exponents), chosen), out, requires_grad, device)


def _spaced_dtype(function: str, start: Any, end: Any, dtype: DType | None, out: Tensor | None) -> DType:
    chosen = given_dtype(dtype, function) or (None if out is None else out.dtype)
    if any((x.is_complex() if isinstance(x, Tensor) else isinstance(x, complex)) for x in (start, end)):
        chosen = chosen or get_default_dtype().to_complex()
        if not chosen.is_complex:
            raise GraphcError(f"{function}(): inferred dtype {get_default_dtype().to_complex().name} can't be safely cast to "
                              f"passed dtype {chosen.name}")
    return chosen or get_default_dtype()


def _spaced(function: str, start: Any, end: Any, steps: int, dtype: DType) -> Tensor:
    """Numbers at equal distances, in double precision."""
    if steps < 0:
        raise GraphcError("number of steps must be non-negative", got=str(steps))
    wide = complex128 if dtype.is_complex else float64
    low, high = (cast(_no_dimensions(x, function, name), wide) if isinstance(x, Tensor) else _number(x, function, name)
                 for x, name in ((start, "start"), (end, "end")))
    place = _counted(steps, float64)
    if steps == 1:
        return cast(place, wide) + low
    # from both ends towards the middle, so that both are hit exactly
    gap = (high - low) / max(steps - 1, 1)
    return where(place < steps / 2, low + place * gap, high - (steps - 1 - place) * gap)


def _no_dimensions(x: Tensor, function: str, name: str) -> Tensor:
    if x._data.shape:
        raise GraphcError(f"{function} only supports 0-dimensional start and end tensors, but got {name} with "
                          f"{x.dim()} dimension(s).")
    return x


def _wrapped(made: Tensor, dtype: DType) -> Tensor:
    # negative numbers wrap around in unsigned dtypes by way of the signed ones
    return cast(cast(made, int64) if dtype.kind == "uint" else made, dtype)
