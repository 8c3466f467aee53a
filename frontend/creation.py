"""Making tensors: from values, and from nothing. Inside a trace constants become nodes of the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphc import ops, types
from graphc.dim_numbers import DimNumber
from graphc.dims import Dim
from graphc.errors import ArgumentError, ArgumentTypeError, AutogradError, DTypeError, GraphcError
from graphc.frontend import device as devices
from graphc.frontend import device_arrays, device_ops
from graphc.frontend.arguments import check_fits, emit, given_dtype, scalar_type, sizes
from graphc.frontend.composite import forget_forms
from graphc.frontend.device_arrays import is_on_device
from graphc.frontend.dispatch import forget_promotions, number
from graphc.frontend.exchange import from_numpy
from graphc.frontend.formats import channels_last_order, contiguous_format
from graphc.frontend.inplace import write_out
from graphc.frontend.movement import expand
from graphc.frontend.pointwise import cast
from graphc.frontend.symbolic_number import SymbolicNumber
from graphc.frontend.tensor import Tensor, as_dtype, wrap
from graphc.frontend.tracer import active
from graphc.types import DType, TensorType, bool_, convert, get_default_dtype, promote_types, scalar_dtype

FUNCTIONS = """
    as_tensor asarray empty empty_like empty_permuted empty_strided full full_like get_default_dtype ones ones_like
    scalar_tensor tensor zeros zeros_like
"""
METHODS = "new new_empty new_empty_strided new_full new_ones new_tensor new_zeros"

Device = str | int | devices.device | None


def set_default_dtype(dtype: DType) -> None:
    """Change the dtype of floating-point tensors made from Python numbers: float32, float64, float16 or bfloat16.

    >>> graphc.set_default_dtype(graphc.float64)
    >>> graphc.tensor(1.5).dtype
    graphc.float64
    >>> graphc.set_default_dtype(graphc.float32)
    """
    if not isinstance(dtype, DType) or not dtype.is_floating_point:
        raise ArgumentTypeError("only floating-point types are supported as the default type",
                                expected="float32, float64, float16 or bfloat16", got=repr(dtype))
    types.set_default_dtype(dtype)
    forget_promotions()
    forget_forms()


def on_device(tensor: Tensor, device: Device) -> Tensor:
    """A new tensor where it was asked for, or on the default device."""
    index = devices.gpu_of(device)
    if index >= 0 and type(tensor._data) is np.ndarray:
        tensor._data = device_arrays.upload(tensor._data, index)
    elif (index >= 0 and active() is not None) or (index < 0 and device is not None and tensor.is_cuda):
        return tensor.to(device=devices.device("cuda", index) if index >= 0 else devices.CPU)
    return tensor


def finished(tensor: Tensor, out: Tensor | None, requires_grad: bool, device: Device) -> Tensor:
    """A new tensor as it was asked for: written into `out`, requiring grad."""
    if out is not None:
        devices.check(device)
        tensor = write_out(tensor, out)
    else:
        tensor = on_device(tensor, device)
    if not requires_grad:
        return tensor
    if not tensor.dtype.is_differentiable:
        raise AutogradError("Only Tensors of floating point and complex dtype can require gradients", got=tensor.dtype.name)
    return tensor.requires_grad_()


# From values


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
    """The object as a tensor: a copy with copy=True, on its own memory or an error with copy=False, else shared if it can
    be.

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


def scalar_tensor(s: Any, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
                  layout: object = None, pin_memory: bool = False) -> Tensor:
    """A tensor without dimensions, of the default dtype.

    >>> graphc.scalar_tensor(3)
    tensor(3.)
    """
    return full((), s, dtype=dtype or get_default_dtype(), device=device, requires_grad=requires_grad)


# From nothing


def _constant(shape: tuple[Any, ...], value: Any, dtype: DType, device: Device = None) -> Tensor:
    index = devices.gpu_of(device)
    if index >= 0 and active() is None:
        _check_shape(shape)
        return wrap(device_ops.filled(shape, number(value, dtype), index))
    if active() is not None:
        # a tensor of its own, not a view of one number
        return wrap(ops.full(TensorType(dtype, shape), number(value, dtype).item(), like=Tensor)._data)
    _check_shape(shape)
    if value == 0 and type(value) is int:  # -0.0 is equal to it, and another number
        return wrap(np.zeros(shape, dtype.numpy))
    return wrap(np.full(shape, number(value, dtype), dtype.numpy))


def _check_shape(shape: tuple[Any, ...]) -> None:
    for size in shape:
        if size < 0:
            raise GraphcError(f"Trying to create tensor with negative dimension {size}: {list(shape)}. "
                              "Dimension size must be non-negative.")


def given_size(args: tuple[Any, ...], size: Any, function: str) -> tuple[Any, ...]:
    """A shape that was written as `f(2, 3)`, `f((2, 3))` or `f(size=(2, 3))`."""
    if size is None and not args:
        raise ArgumentTypeError(f'{function}() missing 1 required positional arguments: "size"')
    return sizes(args if size is None else (size,), f"{function}(): argument 'size' (position 1)")


def kept_dtype(dtype: DType | None, out: Tensor | None, function: str) -> DType:
    """The dtype of a new tensor: that of `out=`, where there is one."""
    chosen = given_dtype(dtype, function)
    if out is None:
        return chosen or get_default_dtype()
    if chosen is not None and chosen is not out.dtype:
        raise GraphcError(f"dtype {scalar_type(chosen)} does not match dtype of out parameter ({scalar_type(out.dtype)})")
    return out.dtype


def zeros(*args: Any, size: Any = None, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
          requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """A tensor of zeros, of the default dtype unless one is given. The sizes are separate numbers or one sequence.

    >>> graphc.zeros(2, 3)
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    made = _constant(given_size(args, size, "zeros"), 0, kept_dtype(dtype, out, "zeros"), device)
    return finished(made, out, requires_grad, device)


def ones(*args: Any, size: Any = None, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
         requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """A tensor of ones, of the default dtype unless one is given. The sizes are separate numbers or one sequence.

    >>> graphc.ones((2, 2), dtype=graphc.int64)
    tensor([[1, 1],
            [1, 1]])
    """
    made = _constant(given_size(args, size, "ones"), 1, kept_dtype(dtype, out, "ones"), device)
    return finished(made, out, requires_grad, device)


def empty(*args: Any, size: Any = None, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
          requires_grad: bool = False, layout: object = None, pin_memory: bool = False,
          memory_format: object = None) -> Tensor:
    """A tensor of numbers that are whatever they are, of the default dtype unless one is given.

    >>> graphc.empty(2, 3).shape
    graphc.Size([2, 3])
    """
    shape = given_size(args, size, "empty")
    chosen = kept_dtype(dtype, out, "empty")
    if active() is not None:
        made = _constant(shape, 0, chosen)
    else:
        _check_shape(shape)
        index = devices.gpu_of(device)
        made = wrap(np.empty(shape, chosen.numpy) if index < 0 else device_arrays.empty(shape, chosen.numpy, index))
    return finished(made, out, requires_grad, device)


def empty_strided(size: Any, stride: Any, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
                  layout: object = None, pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor whose position in memory grows by `stride` elements along each dimension.

    >>> graphc.empty_strided((2, 3), (1, 2)).stride()
    (1, 2)
    """
    shape, steps = sizes((size,), "size"), sizes((stride,), "stride")
    chosen = given_dtype(dtype, "empty_strided") or get_default_dtype()
    if len(shape) != len(steps):
        raise GraphcError(f"dimensionality of sizes ({len(shape)}) must match dimensionality of strides ({len(steps)})")
    _check_shape(shape)
    if any(step < 0 for step in steps):
        raise GraphcError(f"empty_strided: negative strides are not supported, sizes={list(shape)} and strides={list(steps)}")
    if active() is not None:
        return finished(_constant(shape, 0, chosen), None, requires_grad, device)
    length = 0 if 0 in shape else 1 + sum((n - 1) * step for n, step in zip(shape, steps))
    in_bytes = tuple(step * chosen.itemsize for step in steps)
    index = devices.gpu_of(device)
    if index < 0:
        array = np.ndarray(shape, chosen.numpy, np.empty(length, chosen.numpy), 0, in_bytes)
    else:
        array = device_arrays.view(device_arrays.empty((length,), chosen.numpy, index), shape, in_bytes)
    return finished(wrap(array), None, requires_grad, device)


def empty_permuted(size: Any, physical_layout: Any, *, dtype: DType | None = None, device: Device = None,
                   requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor without gaps whose dimensions lie in memory in the order `physical_layout`.

    >>> graphc.empty_permuted((2, 3), (1, 0)).stride()
    (1, 2)
    """
    shape, order = sizes((size,), "size"), sizes((physical_layout,), "physical_layout")
    if len(shape) != len(order):
        raise GraphcError("Number of dimensions in size does not match the length of the physical_layout; i.e. len(size) = "
                          f"{len(shape)} is not equal to len(physical_layout) = {len(order)}")
    if any(not 0 <= d < len(shape) for d in order):
        raise GraphcError(f"Dimension out of range (expected to be between 0 and {len(shape) - 1}, but got {list(order)})")
    if len(set(order)) != len(order):
        raise GraphcError("Duplicate dim not allowed")
    strides, step = [0] * len(shape), 1
    for d in reversed(order):
        strides[d] = step
        step *= max(shape[d], 1)
    return empty_strided(shape, strides, dtype=dtype, device=device, requires_grad=requires_grad)


def full(size: Any, fill_value: Any, *, out: Tensor | None = None, dtype: DType | None = None, device: Device = None,
         requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """A tensor with one number everywhere; the number decides the dtype unless one is given.

    >>> graphc.full((2,), 7)
    tensor([7, 7])
    >>> graphc.full((2,), 7, dtype=graphc.float32)
    tensor([7., 7.])
    """
    if not isinstance(size, (tuple, list)):
        raise ArgumentTypeError(f"full(): argument 'size' (position 1) must be tuple of ints, not {type(size).__name__}")
    shape = sizes((size,), "size")
    chosen = given_dtype(dtype, "full")
    if isinstance(fill_value, Tensor):
        if fill_value._data.shape:
            raise ArgumentTypeError("full(): argument 'fill_value' (position 2) must be Number, not Tensor",
                                    got=f"shape {list(fill_value.shape)}")
        return finished(expand(cast(fill_value, chosen or fill_value.dtype), shape).clone(), out, requires_grad, device)
    if isinstance(fill_value, np.generic):
        fill_value = fill_value.item()
    if isinstance(fill_value, (Dim, DimNumber)):
        chosen = chosen or scalar_dtype(fill_value)
        made = emit(ops.add, (np.zeros((), chosen.numpy), fill_value), {})
        return finished(expand(cast(made, chosen), shape).clone(), out, requires_grad, device)
    if not isinstance(fill_value, (bool, int, float, complex)):
        raise ArgumentTypeError("full(): argument 'fill_value' (position 2) must be Number, not "
                                f"{type(fill_value).__name__}")
    chosen = chosen or (scalar_dtype(fill_value) if out is None else out.dtype)
    check_fits(fill_value, chosen)
    return finished(_constant(shape, fill_value, chosen, device), out, requires_grad, device)


# Like another tensor


def _like(input: Tensor, value: Any, dtype: DType | None, memory_format: object, requires_grad: bool, device: Device,
          function: str) -> Tensor:
    """One number everywhere in the shape of the input, its dimensions in memory in the same order."""
    if not isinstance(input, Tensor):
        raise ArgumentTypeError(f"{function}(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}")
    chosen = given_dtype(dtype, function) or input.dtype
    data = input._data
    device = input.device if device is None else device
    if active() is None and (is_on_device(data) or devices.gpu_of(device) >= 0):
        return finished(_like_on_device(data, value, chosen, memory_format, device), None, requires_grad, device)
    if active() is not None or type(data) is not np.ndarray:
        made = _constant(tuple(data.shape), 0 if value is None else value, chosen)
    else:
        array = np.empty_like(data, chosen.numpy, order="C" if memory_format is contiguous_format or 0 in data.strides else "K")
        if (order := channels_last_order(memory_format, data.ndim)) is not None:
            array = np.empty([data.shape[d] for d in order], chosen.numpy).transpose(np.argsort(order))
        if value is not None:
            array[...] = number(value, chosen)
        made = wrap(array)
    return finished(made, None, requires_grad, device)


def _like_on_device(data: Any, value: Any, dtype: DType, memory_format: object, device: Device) -> Tensor:
    shape = tuple(data.shape)
    if (order := channels_last_order(memory_format, len(shape))) is None:
        steps = [abs(step) for step in data.strides]
        order = tuple(sorted(range(len(shape)), key=lambda d: -steps[d]))
        if memory_format is contiguous_format or 0 in steps:
            order = tuple(range(len(shape)))
    made = empty_permuted(shape, order, dtype=dtype, device=device)
    if value is not None:
        one = number(value, dtype)
        if made.is_cpu:
            made._data[...] = one
        else:
            device_ops.fill(made._data, one)
    return made


def zeros_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
               layout: object = None, memory_format: object = None, pin_memory: bool = False) -> Tensor:
    """Zeros of the input's shape and dtype.

    >>> graphc.zeros_like(graphc.tensor([1, 2]))
    tensor([0, 0])
    """
    return _like(input, 0, dtype, memory_format, requires_grad, device, "zeros_like")


def ones_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
              layout: object = None, memory_format: object = None, pin_memory: bool = False) -> Tensor:
    """Ones of the input's shape and dtype.

    >>> graphc.ones_like(graphc.tensor([1, 2]), dtype=graphc.float32)
    tensor([1., 1.])
    """
    return _like(input, 1, dtype, memory_format, requires_grad, device, "ones_like")


def full_like(input: Tensor, fill_value: Any, *, dtype: DType | None = None, device: Device = None,
              requires_grad: bool = False, layout: object = None, memory_format: object = None,
              pin_memory: bool = False) -> Tensor:
    """One number everywhere, in the input's shape and dtype.

    >>> graphc.full_like(graphc.tensor([1.0, 2.0]), 3)
    tensor([3., 3.])
    """
    if isinstance(fill_value, Tensor):
        made = full(tuple(input._data.shape), fill_value, dtype=dtype or input.dtype, device=device or input.device)
        return finished(made, None, requires_grad, made.device)
    check_fits(fill_value, given_dtype(dtype, "full_like") or input.dtype)
    return _like(input, fill_value, dtype, memory_format, requires_grad, device, "full_like")


def empty_like(input: Tensor, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
               layout: object = None, memory_format: object = None, pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor of the input's shape and dtype.

    >>> graphc.empty_like(graphc.zeros(2, 3)).shape
    graphc.Size([2, 3])
    """
    return _like(input, None, dtype, memory_format, requires_grad, device, "empty_like")


def _beside(input: Tensor, device: Device) -> Device:
    return input.device if device is None else device


def new(input: Tensor, *args: Any, dtype: DType | None = None, device: Device = None) -> Tensor:
    """The old constructor: uninitialised of a shape given as separate numbers, or a copy of data, in the input's dtype.

    >>> graphc.ones(1).new([1, 2])
    tensor([1., 2.])
    """
    if all(isinstance(arg, int) for arg in args):
        return empty(args or (0,), dtype=dtype or input.dtype, device=_beside(input, device))
    return tensor(args[0], dtype=dtype or input.dtype, device=_beside(input, device))


def new_zeros(input: Tensor, *args: Any, size: Any = None, dtype: DType | None = None, device: Device = None,
              requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """Zeros of the input's dtype.

    >>> graphc.tensor([1]).new_zeros(2)
    tensor([0, 0])
    """
    return zeros(*args, size=size, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)


def new_ones(input: Tensor, *args: Any, size: Any = None, dtype: DType | None = None, device: Device = None,
             requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """Ones of the input's dtype.

    >>> graphc.tensor([1]).new_ones(2)
    tensor([1, 1])
    """
    return ones(*args, size=size, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)


def new_empty(input: Tensor, *args: Any, size: Any = None, dtype: DType | None = None, device: Device = None,
              requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor of the input's dtype.

    >>> graphc.tensor([1]).new_empty(2).dtype
    graphc.int64
    """
    return empty(*args, size=size, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)


def new_empty_strided(input: Tensor, size: Any, stride: Any, *, dtype: DType | None = None, device: Device = None,
                      requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """`empty_strided` in the input's dtype.

    >>> graphc.tensor([1]).new_empty_strided((2, 3), (1, 2)).stride()
    (1, 2)
    """
    return empty_strided(size, stride, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)


def new_full(input: Tensor, size: Any, fill_value: Any, *, dtype: DType | None = None, device: Device = None,
             requires_grad: bool = False, layout: object = None, pin_memory: bool = False) -> Tensor:
    """One number everywhere, in the input's dtype.

    >>> graphc.tensor([1]).new_full((2,), 7)
    tensor([7, 7])
    """
    return full(size, fill_value, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)


def new_tensor(input: Tensor, data: Any, *, dtype: DType | None = None, device: Device = None, requires_grad: bool = False,
               layout: object = None, pin_memory: bool = False) -> Tensor:
    """A copy of the data in the input's dtype.

    >>> graphc.tensor([1.0]).new_tensor([2, 3])
    tensor([2., 3.])
    """
    return tensor(data, dtype=dtype or input.dtype, device=_beside(input, device), requires_grad=requires_grad)
