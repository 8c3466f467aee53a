"""Making tensors from data: numbers, nested lists, arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphc import types
from graphc.errors import ArgumentError, ArgumentTypeError, DTypeError
from graphc.frontend import device as devices
from graphc.frontend.arguments import check_fits, given_dtype
from graphc.frontend.creation import Device, finished, on_device
from graphc.frontend.described import as_dtype
from graphc.frontend.exchange import from_numpy
from graphc.frontend.symbolic_number import SymbolicNumber
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.types import DType, bool_, convert, get_default_dtype, promote_types, scalar_dtype

FUNCTIONS = "as_tensor asarray tensor"


def _array(data: Any, dtype: DType | None) -> np.ndarray:
    """A new array of the data; Python numbers get the dtypes of PyTorch."""
    if isinstance(data, (np.ndarray, np.generic)):
        found = np.asarray(data)
        chosen = dtype or _supported(found.dtype)
    else:
        nested = _plain(data)
        _check_even(nested)
        first = _first(nested)
        found = _joined(nested, first)
        if dtype is not None:
            chosen = dtype
            _check_numbers(found, chosen)
        elif isinstance(first, np.ndarray):
            chosen = _promoted(nested)
        else:
            chosen = {"f": get_default_dtype(), "c": get_default_dtype().to_complex(), "b": bool_}.get(
                found.dtype.kind, types.int64) if found.size else get_default_dtype()
    return np.ascontiguousarray(convert(found, chosen)).reshape(found.shape)


def _joined(nested: Any, first: Any) -> np.ndarray:
    try:
        found = np.array(nested)
    except OverflowError:
        raise ArgumentError("Overflow when unpacking long long: an integer does not fit into 64 bits") from None
    except ValueError as error:
        raise ArgumentError(f"tensor: the data is not a regular array ({error})") from None
    except TypeError:
        found = np.array(None)
    if found.dtype.kind in "biufcV":
        if found.dtype.kind == "u" and not isinstance(first, np.ndarray):
            raise ArgumentError("Overflow when unpacking long long: an integer does not fit into 64 bits")
        return found
    if found.dtype.kind in "US":
        raise ArgumentTypeError("new(): invalid data type 'str'", expected="numbers, or nested lists of numbers")
    strange = [x for x in _leaves(nested) if not isinstance(x, (bool, int, float, complex, np.ndarray))]
    if not strange:
        raise ArgumentError("Overflow when unpacking long long: an integer does not fit into 64 bits")
    raise ArgumentTypeError(f"Could not infer dtype of {type(strange[0]).__name__}",
                            expected="numbers, or nested lists of numbers")


def _supported(dtype: np.dtype) -> DType:
    try:
        return as_dtype(dtype)
    except DTypeError:
        raise ArgumentTypeError(
            f"can't convert np.ndarray of type {dtype.type.__module__}.{dtype.type.__name__}. The only supported types are: "
            f"{', '.join(d.name for d in types.DTYPES.values() if d.name != 'complex32')}.") from None


def _check_numbers(found: np.ndarray, dtype: DType) -> None:
    """Numbers of a list must fit the dtype that was asked for."""
    if found.dtype.kind == "c" and not dtype.is_complex:
        raise ArgumentTypeError("must be real number, not complex", hint="give a complex dtype, or the real parts")
    if dtype.kind in ("int", "uint") and found.dtype.kind in "iuf" and found.size:
        for extreme in (found.min(), found.max()):
            check_fits(extreme.item(), dtype, dtype.name)


def _plain(data: Any) -> Any:
    """The data with tensors and NumPy's scalars inside lists as arrays without dimensions."""
    if isinstance(data, Tensor):
        array = data._array("tensor(data)")
        if array.size != 1:
            raise ArgumentError("only one element tensors can be converted to Python scalars", got=f"shape {list(array.shape)}",
                                hint="stack() joins tensors of one shape")
        return array.reshape(())
    if isinstance(data, (list, tuple)):
        return [_plain(item) for item in data]
    if isinstance(data, range):
        return list(data)
    if isinstance(data, np.generic):
        return np.asarray(data)
    if type(data) is SymbolicNumber:
        return data.plain("tensor(data)")
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return [_plain(item) for item in data]
    return data


def _first(nested: Any) -> Any:
    while isinstance(nested, list) and nested:
        nested = nested[0]
    return nested


def _leaves(nested: Any) -> Iterator[Any]:
    if isinstance(nested, list):
        for item in nested:
            yield from _leaves(item)
    else:
        yield nested


def _promoted(nested: Any) -> DType:
    """The dtype of lists with arrays in them."""
    found: DType | None = None
    for leaf in _leaves(nested):
        dtype = _supported(leaf.dtype) if isinstance(leaf, np.ndarray) else scalar_dtype(leaf)
        found = dtype if found is None else promote_types(found, dtype)
    assert found is not None
    return found


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
    if any(isinstance(item, list) for item in level):
        raise ArgumentTypeError("'list' object cannot be interpreted as a number", expected="lists of one depth")


def tensor(data: Any, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
           pin_memory: bool = False) -> Tensor:
    """A new tensor with a copy of the data: a number, nested lists, an array.

    Python floats give the default dtype (float32), ints int64, bools bool, complex numbers complex64; arrays keep their
    dtype.

    ArgumentError for lists of different lengths and integers that 64 bits do not hold, ArgumentTypeError for what are no
    numbers.

    >>> graphc.tensor([[1, 2], [3, 4]])
    tensor([[1, 2],
            [3, 4]])
    >>> graphc.tensor([1, 2], dtype=graphc.float64, requires_grad=True)
    tensor([1., 2.], dtype=graphc.float64, requires_grad=True)
    """
    dtype = given_dtype(dtype, "tensor")
    if isinstance(data, Tensor):
        made = data.detach().to(device, dtype, copy=True) if device is not None or dtype is not None else data.detach().clone()
        return finished(made, None, requires_grad, made.device)
    made = on_device(wrap(_array(data, dtype)), device)
    tracer = active()
    if tracer is not None:
        tracer.made(made)
    return finished(made, None, requires_grad, made.device)


def as_tensor(data: Any, dtype: DType | None = None, device: Device = None) -> Tensor:
    """The data as a tensor, sharing memory with a tensor or array of the wanted dtype, else a copy.

    ArgumentError for lists of different lengths and integers that 64 bits do not hold, ArgumentTypeError for what are no
    numbers.

    >>> import numpy as np
    >>> array = np.zeros(2)
    >>> x = graphc.as_tensor(array)
    >>> array[0] = 1.0
    >>> x
    tensor([1., 0.], dtype=graphc.float64)
    """
    dtype = given_dtype(dtype, "as_tensor")
    if isinstance(data, Tensor):
        return data if dtype is None and device is None else data.to(device, dtype)
    on_gpu = devices.gpu_of(device) >= 0
    if isinstance(data, np.ndarray) and not on_gpu and data.dtype.isnative and (dtype is None or dtype.numpy == data.dtype):
        _supported(data.dtype)
        return from_numpy(data)
    made = on_device(wrap(_array(data, dtype)), device) if on_gpu else wrap(_array(data, dtype))
    tracer = active()
    if tracer is not None:
        tracer.made(made)
    return made


def asarray(obj: Any, *, dtype: DType | None = None, device: Device = None, copy: bool | None = None,
            requires_grad: bool = False) -> Tensor:
    """The object as a tensor: a copy with copy=True, on its own memory with copy=False, else shared if it can be. ArgumentError
    where copy=False and it cannot, and for lists of different lengths; ArgumentTypeError for what are no numbers.

    >>> graphc.asarray([1.0, 2.0])
    tensor([1., 2.])
    """
    if copy:
        return tensor(obj, dtype=dtype, device=device, requires_grad=requires_grad)
    if copy is False and not isinstance(obj, (Tensor, np.ndarray)):
        raise ArgumentError("can't alias arbitrary sequence into a tensor.", hint="copy=None makes a copy where it has to")
    made = as_tensor(obj, dtype, device)
    own = obj.dtype if isinstance(obj, Tensor) else _supported(obj.dtype) if isinstance(obj, np.ndarray) else made.dtype
    if copy is False and made.dtype is not own:
        raise ArgumentError(f"can't alias tensor with dtype '{own.name}' into dtype '{made.dtype.name}'.")
    made = made.detach() if isinstance(obj, Tensor) and requires_grad else made
    return finished(made, None, requires_grad, made.device)
