"""Making tensors: from values, from NumPy, and from nothing. Inside a trace constants become nodes of the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, ArgumentTypeError, DTypeError, GraphcError
from graphc.frontend import device as devices
from graphc.frontend.arguments import emit, sizes
from graphc.frontend.dispatch import number
from graphc.frontend.inplace import write_out
from graphc.frontend.movement import expand
from graphc.frontend.pointwise import cast, pow, trunc, where
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor, as_dtype, wrap
from graphc.frontend.tracer import active
from graphc.types import DType, TensorType, bool_, float32, float64, int64, scalar_dtype

FUNCTIONS = """
    arange as_tensor asarray empty empty_like eye from_numpy full full_like get_default_dtype linspace logspace ones
    ones_like scalar_tensor tensor tril triu zeros zeros_like
"""
METHODS = "new_empty new_full new_ones new_tensor new_zeros tril triu"
IN_PLACE = "tril triu"

Device = str | devices.device | None

_default = float32


def get_default_dtype() -> DType:
    """The dtype of floating-point tensors made from Python numbers: float32 unless changed."""
    return _default


def set_default_dtype(dtype: DType) -> None:
    """Change the dtype of floating-point tensors made from Python numbers."""
    global _default  # noqa: PLW0603  (one setting of the process, with this one writer)
    if not dtype.is_floating_point:
        raise DTypeError("only floating-point types are supported as the default type", got=dtype.name)
    _default = dtype


def _made(tensor: Tensor, requires_grad: bool, device: Device) -> Tensor:
    devices.check(device)
    return tensor.requires_grad_() if requires_grad else tensor


# From values


def _array(data: Any, dtype: DType | None) -> np.ndarray:
    """A new array of the data; Python numbers get the dtypes of PyTorch."""
    if isinstance(data, (np.ndarray, np.generic)):
        found = np.array(data)
        chosen = dtype or as_dtype(found.dtype)
    else:
        nested = _plain(data)
        _check_even(nested)
        try:
            found = np.array(nested)
        except ValueError as error:
            raise ArgumentError(f"tensor: the data is not a regular array ({error})") from None
        if found.dtype.kind not in "biuf":
            raise ArgumentTypeError(f"tensor: could not infer dtype of {type(_first(nested)).__name__}",
                                    expected="numbers, or nested lists of numbers")
        if dtype is None and isinstance(_first(nested), (np.ndarray, np.generic)):
            dtype = as_dtype(found.dtype)
        chosen = dtype or {"f": _default, "b": bool_}.get(found.dtype.kind, int64)
    with np.errstate(all="ignore"):
        if chosen.kind == "bool":
            return found.astype(bool)
        return np.ascontiguousarray(found.astype(chosen.numpy)).reshape(found.shape)


def _plain(data: Any) -> Any:
    """The data with tensors and arrays inside lists made into Python numbers and arrays."""
    if isinstance(data, Tensor):
        return data._array("tensor(data)")
    if isinstance(data, (list, tuple)):
        return [_plain(item) for item in data]
    if isinstance(data, range):
        return list(data)
    return data


def _first(nested: Any) -> Any:
    while isinstance(nested, list) and nested:
        nested = nested[0]
    return nested


def _check_even(nested: Any) -> None:
    """ArgumentError unless lists of one depth have one length."""
    sizes_ = []
    first = nested
    while isinstance(first, list):
        sizes_.append(len(first))
        first = first[0] if first else None
    level = [nested]
    for depth, size in enumerate(sizes_):
        for item in level:
            if not isinstance(item, list) or len(item) != size:
                got = len(item) if isinstance(item, list) else "a number"
                raise ArgumentError(f"expected sequence of length {size} at dim {depth} (got {got})")
        level = [x for item in level for x in item]


def tensor(data: Any, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """A new tensor with a copy of the data: a number, nested lists, an array.

    Python floats give the default dtype (float32), ints int64, bools bool; arrays keep their dtype.
    """
    if isinstance(data, Tensor):
        made = data.detach().clone() if dtype is None else data.detach().to(dtype, copy=True)
        return _made(made, requires_grad, device)
    devices.check(device)
    return _made(wrap(_array(data, dtype)), requires_grad, None)


def as_tensor(data: Any, dtype: DType | None = None, device: Device = None) -> Tensor:
    """The data as a tensor, sharing memory where that is possible."""
    devices.check(device)
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(dtype)
    if isinstance(data, np.ndarray) and data.dtype.isnative and (dtype is None or dtype.numpy == data.dtype):
        return from_numpy(data)
    return wrap(_array(data, dtype))


def asarray(obj: Any, *, dtype: DType | None = None, device: Device = None, copy: bool | None = None,
            requires_grad: bool = False) -> Tensor:
    """`as_tensor`, or `tensor` with copy=True."""
    made = tensor(obj, dtype=dtype, device=device) if copy else as_tensor(obj, dtype, device)
    return made.requires_grad_() if requires_grad else made


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor on the memory of an array: changes of one show in the other."""
    if not isinstance(array, np.ndarray):
        raise ArgumentTypeError(f"expected np.ndarray (got {type(array).__name__})")
    if not array.dtype.isnative:
        raise ArgumentError("from_numpy: the array has a byte order that is not this machine's",
                            hint="array.astype(array.dtype.newbyteorder('='))")
    as_dtype(array.dtype)
    if any(stride % array.itemsize for stride in array.strides):
        raise ArgumentError("from_numpy: the array's elements do not lie at multiples of their size",
                            expected=f"strides that {array.itemsize} divides", got=str(array.strides), hint="array.copy()")
    return wrap(array if type(array) is np.ndarray else array.view(np.ndarray))


def scalar_tensor(value: Any, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """A tensor without dimensions, of the default dtype."""
    return full((), value, dtype=dtype or _default, device=device, requires_grad=requires_grad)


# From nothing


def _constant(shape: tuple[Any, ...], value: Any, dtype: DType) -> Tensor:
    if active() is not None:
        return ops.full(TensorType(dtype, shape), number(value, dtype).item(), like=Tensor)
    _check_shape(shape)
    if value == 0 and not isinstance(value, Tensor):
        return wrap(np.zeros(shape, dtype.numpy))
    return wrap(np.full(shape, number(value, dtype), dtype.numpy))


def _check_shape(shape: tuple[Any, ...]) -> None:
    for size in shape:
        if size < 0:
            raise GraphcError(f"Trying to create tensor with negative dimension {size}: {list(shape)}")


def _into(out: Tensor | None, made: Tensor) -> Tensor:
    if out is None:
        return made
    return write_out(made, out)


def given_size(args: tuple[Any, ...], size: Any) -> tuple[Any, ...]:
    """A shape that was written as `f(2, 3)`, `f((2, 3))` or `f(size=(2, 3))`."""
    return sizes(args if size is None else (size,), "size")


def _kept(dtype: DType | None, out: Tensor | None) -> DType:
    """The dtype of a new tensor: that of `out=`, where there is one."""
    return dtype or (_default if out is None else out.dtype)


def zeros(*args: Any, size: Any = None, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
          requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """A tensor of zeros."""
    return _into(out, _made(_constant(given_size(args, size), 0, _kept(dtype, out)), requires_grad, device))


def ones(*args: Any, size: Any = None, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
         requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """A tensor of ones."""
    return _into(out, _made(_constant(given_size(args, size), 1, _kept(dtype, out)), requires_grad, device))


def empty(*args: Any, size: Any = None, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
          requires_grad: bool = False, layout: object = None, pin_memory: bool = False,
          memory_format: object = None) -> Tensor:
    """A tensor of numbers that are whatever they are."""
    shape = given_size(args, size)
    devices.check(device)
    if active() is not None:
        made = _constant(shape, 0, _kept(dtype, out))
    else:
        _check_shape(shape)
        made = wrap(np.empty(shape, _kept(dtype, out).numpy))
    return _into(out, _made(made, requires_grad, None))


def full(size: Any, fill_value: Any, *, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
         requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """A tensor with one number everywhere; the number decides the dtype unless one is given."""
    shape = sizes((size,), "size")
    if isinstance(fill_value, Tensor):
        return _made(expand(cast(fill_value, dtype or fill_value.dtype), shape).clone(), requires_grad, device)
    chosen = dtype or _scalar_dtype(fill_value)
    return _into(out, _made(_constant(shape, fill_value, chosen), requires_grad, device))


def _scalar_dtype(value: Any) -> DType:
    return _default if isinstance(value, float) else scalar_dtype(value)


def zeros_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
               layout: object = None, memory_format: object = None) -> Tensor:
    """Zeros of the input's shape and dtype."""
    return _made(_constant(tuple(input._data.shape), 0, dtype or input.dtype), requires_grad, device)


def ones_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
              layout: object = None, memory_format: object = None) -> Tensor:
    """Ones of the input's shape and dtype."""
    return _made(_constant(tuple(input._data.shape), 1, dtype or input.dtype), requires_grad, device)


def full_like(input: Tensor, fill_value: Any, *, dtype: DType | None = None, device: Device = None,
              requires_grad: bool = False, layout: object = None, memory_format: object = None) -> Tensor:
    """One number everywhere, in the input's shape and dtype."""
    return full(tuple(input._data.shape), fill_value, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def empty_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
               layout: object = None, memory_format: object = None) -> Tensor:
    """An uninitialised tensor of the input's shape and dtype."""
    return empty(tuple(input._data.shape), dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def new_zeros(input: Tensor, *size: Any, dtype: DType | None = None, device: Device = None,
              requires_grad: bool = False) -> Tensor:
    """Zeros of the input's dtype."""
    return zeros(*size, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def new_ones(input: Tensor, *size: Any, dtype: DType | None = None, device: Device = None,
             requires_grad: bool = False) -> Tensor:
    """Ones of the input's dtype."""
    return ones(*size, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def new_empty(input: Tensor, *size: Any, dtype: DType | None = None, device: Device = None,
              requires_grad: bool = False) -> Tensor:
    """An uninitialised tensor of the input's dtype."""
    return empty(*size, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def new_full(input: Tensor, size: Any, fill_value: Any, *, dtype: DType | None = None, device: Device = None,
             requires_grad: bool = False) -> Tensor:
    """One number everywhere, in the input's dtype."""
    return full(size, fill_value, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


def new_tensor(input: Tensor, data: Any, *, dtype: DType | None = None, device: Device = None,
               requires_grad: bool = False) -> Tensor:
    """A copy of the data in the input's dtype."""
    return tensor(data, dtype=dtype or input.dtype, device=device, requires_grad=requires_grad)


# Ranges


def arange(start: Any = 0, end: Any = None, step: Any = 1, *, out: Tensor | None = None, dtype: DType | None = None,
           device: Device = None, requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """The numbers from `start` up to but not including `end`, `step` apart; int64 if all three are ints."""
    if end is None:
        start, end = 0, start
    start, end, step = (x.item() if isinstance(x, Tensor) else x for x in (start, end, step))
    if dtype is None:
        dtype = _default if any(isinstance(x, float) for x in (start, end, step)) else int64
    if step == 0:
        raise GraphcError("step must be nonzero")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise GraphcError(f"unsupported range: {start} -> {end}")
    if (end - start) * step < 0:
        raise GraphcError("upper bound and lower bound inconsistent with step sign", got=f"{start}, {end}, {step}")
    if not dtype.is_floating_point:
        start, end, step = int(start), int(end), int(step)
    exact = all(isinstance(x, int) for x in (start, end, step))
    count = len(range(start, end, step)) if exact else math.ceil((end - start) / step)
    wide = float64 if dtype.is_floating_point else int64
    made = _counted(count, wide)
    if step != 1 or isinstance(step, float):
        made = made * (step if dtype.is_floating_point else int(step))
    if start != 0:
        made = made + (start if dtype.is_floating_point else int(start))
    return _into(out, _made(cast(made, dtype), requires_grad, device))


def _counted(count: int, dtype: DType) -> Tensor:
    if active() is not None:
        return ops.iota(shape=(count,), axis=0, dtype=dtype, like=Tensor)
    return wrap(np.arange(count, dtype=dtype.numpy))


def linspace(start: Any, end: Any, steps: int, *, out: Tensor | None = None, dtype: DType | None = None,
             device: Device = None, requires_grad: bool = False) -> Tensor:
    """`steps` numbers at equal distances, the first `start` and the last `end`."""
    if steps < 0:
        raise GraphcError("number of steps must be non-negative")
    low, high = (cast(x, float64) if isinstance(x, Tensor) else float(x) for x in (start, end))
    place = _counted(steps, float64)
    if steps == 1:
        made = place + low
    else:
        # from both ends towards the middle, so that both are hit exactly
        gap = (high - low) / max(steps - 1, 1)
        made = where(place < steps / 2, low + place * gap, high - (steps - 1 - place) * gap)
    chosen = dtype or _default
    made = cast(made if chosen.is_floating_point else trunc(made), chosen)
    return _into(out, _made(made, requires_grad, device))


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, out: Tensor | None = None,
             dtype: DType | None = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """`steps` powers of `base` whose exponents are at equal distances."""
    made = cast(pow(float(base), linspace(start, end, steps, dtype=float64)), dtype or _default)
    return _into(out, _made(made, requires_grad, device))


def eye(n: int, m: int | None = None, *, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
        requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of an n x m matrix, zeros elsewhere."""
    columns = n if m is None else m
    if n < 0 or columns < 0:
        raise GraphcError(f"n and m must be greater or equal to 0, got {n} and {columns}")
    if active() is None:
        made = wrap(np.eye(n, columns, dtype=(dtype or _default).numpy))
    else:
        shape = (n, columns)
        row = ops.iota(shape=shape, axis=0, dtype=int64, like=Tensor)
        made = emit(ops.cast, (row == ops.iota(shape=shape, axis=1, dtype=int64, like=Tensor),),
                    {"dtype": dtype or _default})
    return _into(out, _made(made, requires_grad, device))


def tril_mask(shape: Sequence[int], diagonal: int) -> Tensor:
    """Where column - row <= diagonal, in the last two dimensions."""
    row = _grid(shape, len(shape) - 2)
    column = _grid(shape, len(shape) - 1)
    return column - row <= diagonal


def _grid(shape: Sequence[int], along: int) -> Tensor:
    return ops.iota(shape=tuple(shape), axis=along, dtype=int64, like=Tensor)


def tril(input: Tensor, diagonal: int = 0, *, k: int = 0) -> Tensor:
    """The elements on and below a diagonal; zeros above. `k` is NumPy's name for the diagonal."""
    return _triangle(input, "tril", lambda: tril_mask(input._data.shape, diagonal or k))


def triu(input: Tensor, diagonal: int = 0, *, k: int = 0) -> Tensor:
    """The elements on and above a diagonal; zeros below. `k` is NumPy's name for the diagonal."""
    return _triangle(input, "triu", lambda: ~tril_mask(input._data.shape, (diagonal or k) - 1))


def _triangle(input: Tensor, name: str, mask: Any) -> Tensor:
    if len(input._data.shape) < 2:
        raise GraphcError(f"{name}: input tensor must have at least 2 dimensions")
    return named(where(mask(), input, False if input.dtype.kind == "bool" else 0), name.capitalize())
