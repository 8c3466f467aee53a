"""Functions that find the same numbers in other places. Those that PyTorch calls views share memory here too."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import DimError, GraphcError, ShapeError
from graphc.frontend import device_arrays
from graphc.frontend.arguments import axis, emit, integer, sizes
from graphc.frontend.device_arrays import is_on_device
from graphc.frontend.tape import named
from graphc.frontend.tensor import Size, Tensor, wrap
from graphc.frontend.tracer import active
from graphc.frontend.viewing import Viewing
from graphc.types import DType, int64
from graphc.types import broadcast_shapes as common_shape

FUNCTIONS = """
    adjoint as_strided broadcast_shapes broadcast_tensors broadcast_to flatten movedim narrow permute ravel reshape
    select squeeze swapaxes t transpose unflatten unsqueeze
"""
METHODS = """
    adjoint as_strided broadcast_to expand expand_as flatten movedim narrow permute ravel reshape reshape_as select
    squeeze swapaxes t transpose unflatten unfold unsqueeze view view_as
"""
ALIASES = {"moveaxis": "movedim", "swapdims": "swapaxes"}


_viewed, _squeezed, _unsqueezed, _selected = (
    Viewing(ops.reshape, name) for name in ("View", "Squeeze", "Unsqueeze", "Select")
)  # fmt: skip
_permuted, _transposed, _turned = Viewing(ops.permute), Viewing(ops.permute, "Transpose"), Viewing(ops.permute, "T")
_stretched, _sliced = Viewing(ops.broadcast_to, "Expand"), Viewing(ops.slice)


def check_distinct(dims: Sequence[int]) -> None:
    """An error where a dimension, counted from the left, is named twice."""
    for i, dim in enumerate(dims):
        if dim in dims[:i]:
            raise GraphcError(f"dim {dim} appears multiple times in the list of dims")


def _filled(input: Tensor, shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape with its -1, if it has one, worked out."""
    for size in shape:
        if type(size) is not int or size < 0:
            break
    else:
        return shape
    unknown = [i for i, s in enumerate(shape) if isinstance(s, int) and s < 0]
    if not unknown:
        return shape
    if len(unknown) > 1:
        raise ShapeError("only one dimension can be inferred", got=str(list(shape)))
    if shape[unknown[0]] != -1:
        raise ShapeError(f"invalid shape dimension {shape[unknown[0]]}", expected="sizes >= 0, and one -1 at most")
    known = math.prod(s for i, s in enumerate(shape) if i != unknown[0])
    total = math.prod(input._data.shape)
    if known == 0 or total % known != 0:
        if known == 0:
            raise ShapeError("cannot reshape tensor of 0 elements into shape "
                             f"{list(shape)} because the unspecified dimension size -1 can be any value and is ambiguous")
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {total}", got=str(list(input.shape)))
    return (*shape[: unknown[0]], total // known, *shape[unknown[0] + 1 :])


def reshape(input: Tensor, *args: Any, shape: Any = None) -> Tensor:
    """The elements in row-major order as a tensor of another shape, in which one size may be -1; a view where the memory
    allows it, else a copy. ShapeError where the sizes do not multiply to the number of elements.

    >>> graphc.reshape(graphc.arange(6), (2, -1))
    tensor([[0, 1, 2],
            [3, 4, 5]])
    """
    return _viewed(input, {"shape": _filled(input, sizes(args if shape is None else (shape,)))})


def reshaped(input: Tensor, shape: tuple[Any, ...]) -> Tensor:
    """`reshape` to a shape that is known to fit."""
    return emit(ops.reshape, (input,), {"shape": shape})


def view(input: Tensor, *args: Any, size: Any = None) -> Tensor:
    """`reshape`, but never a copy. Given a dtype, the memory read as that dtype. ShapeError where it would have to copy, and
    where the sizes do not multiply to the number of elements.

    >>> graphc.arange(6).view(2, 3)
    tensor([[0, 1, 2],
            [3, 4, 5]])
    >>> graphc.tensor([1.0]).view(graphc.int32)
    tensor([1065353216], dtype=graphc.int32)
    """
    if len(args) == 1 and isinstance(args[0], DType):
        return _reinterpreted(input, args[0])
    wanted = _filled(input, sizes(args if size is None else (size,)))
    data = input._data
    is_known = type(data) is np.ndarray or is_on_device(data)
    if is_known and not data.flags.c_contiguous and math.prod(wanted) == data.size and not _is_reshapable(data, wanted):
        raise ShapeError(
            "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
            "contiguous subspaces). Use .reshape(...) instead.", got=f"{list(data.shape)} as {list(wanted)}")
    return _viewed(input, {"shape": wanted})


def _is_reshapable(data: Any, shape: tuple[int, ...]) -> bool:
    """Whether an array takes another shape without a copy."""
    try:
        data.reshape(shape, copy=False) if type(data) is np.ndarray else device_arrays.viewed(
            data, lambda array: array.reshape(shape, copy=False))
    except ValueError:
        return False
    return True


def _reinterpreted(input: Tensor, dtype: Any) -> Tensor:
    if dtype is input.dtype:
        return input
    own, wanted, shape = input.dtype.itemsize, dtype.itemsize, input._data.shape
    if wanted != own and not shape:
        raise ShapeError(f"self.dim() cannot be 0 to view {input.dtype.name} as {dtype.name} (different element sizes)")
    if wanted > own and shape[-1] % (wanted // own):
        raise ShapeError(f"self.size(-1) must be divisible by {wanted // own} to view {input.dtype.name} as {dtype.name} "
                         f"(different element sizes), but got {shape[-1]}")
    if wanted != own and input.stride(-1) != 1:
        raise ShapeError(f"self.stride(-1) must be 1 to view {input.dtype.name} as {dtype.name} (different element sizes), but "
                         f"got {input.stride(-1)}")
    if is_on_device(input._data) and active() is None:
        return wrap(device_arrays.viewed(input._data, lambda array: array.view(dtype.numpy)))
    return wrap(input._array("view(dtype)").view(dtype.numpy))


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`view` with the shape of `other`.

    ShapeError where it does not fit.

    >>> graphc.arange(4).view_as(graphc.zeros(2, 2))
    tensor([[0, 1],
            [2, 3]])
    """
    return view(input, other.shape)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`reshape` with the shape of `other`.

    ShapeError where the numbers of elements differ.

    >>> graphc.arange(4).reshape_as(graphc.zeros(2, 2))
    tensor([[0, 1],
            [2, 3]])
    """
    return reshape(input, other.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from `start_dim` to `end_dim` as one.

    GraphcError where the first dimension comes after the last.

    >>> graphc.flatten(graphc.zeros(2, 3, 4), start_dim=1).shape
    graphc.Size([2, 12])
    """
    shape = input._data.shape
    start, end = axis(start_dim, len(shape)), axis(end_dim, len(shape))
    if not shape:
        return reshape(input, (1,))
    if start > end:
        raise GraphcError("flatten() has invalid args: start_dim cannot come after end_dim")
    if start == end:
        return input
    return reshape(input, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension as several; one of the sizes may be -1.

    GraphcError where the sizes do not multiply to that of the dimension; ShapeError for no sizes, and for several of -1.

    >>> graphc.unflatten(graphc.zeros(2, 12), 1, (3, -1)).shape
    graphc.Size([2, 3, 4])
    """
    shape = input._data.shape
    at = axis(dim, len(shape))
    parts = tuple(sizes)
    if not parts:
        raise ShapeError("unflatten: sizes must be non-empty")
    if parts.count(-1) > 1:
        raise ShapeError("unflatten: only one dimension can be inferred", got=str(list(parts)))
    if -1 in parts:
        known = -math.prod(parts)
        parts = tuple(shape[at] // known if s == -1 and known else s for s in parts)
    if math.prod(parts) != shape[at]:
        raise GraphcError(f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {at} ({shape[at]}) "
                          "in the input tensor")
    return reshape(input, (*shape[:at], *parts, *shape[at + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension, in row-major order; a view where the memory allows it.

    >>> graphc.ravel(graphc.tensor([[1, 2], [3, 4]]))
    tensor([1, 2, 3, 4])
    """
    return reshape(input, (-1,))


def listed(given: tuple[Any, ...], named_: Any) -> Any:
    """Dimensions that were written as `f(0, 1)`, `f((0, 1))` or `f(dims=(0, 1))`."""
    if named_ is not None:
        return (named_,) if isinstance(named_, int) else named_
    return given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given


def permute(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """The dimensions in another order, as a view.

    GraphcError unless each dimension is named once.

    >>> graphc.permute(graphc.zeros(2, 3, 4), (2, 0, 1)).shape
    graphc.Size([4, 2, 3])
    """
    return _permuted(input, _order(len(input._data.shape), *listed(args, dims)))


@functools.lru_cache(maxsize=1 << 10, typed=True)
def _order(ndim: int, *order: Any) -> dict[str, Any]:
    """The attributes of `ops.permute`, which nobody changes."""
    if len(order) != ndim:
        raise GraphcError("permute: the number of dimensions of the input does not match the length of the order",
                          expected=f"{ndim} dimensions", got=f"{len(order)}: {order}")
    found = tuple(axis(d, ndim) for d in order)
    if len(set(found)) != len(found):
        raise GraphcError("permute(): duplicate dims are not allowed.", got=str(tuple(order)))
    return {"order": found}


@functools.lru_cache(maxsize=1 << 10, typed=True)
def _exchanged(ndim: int, first: Any, second: Any) -> dict[str, Any]:
    """The attributes of `ops.permute` that exchange two dimensions."""
    a, b = axis(first, ndim), axis(second, ndim)
    order = list(range(ndim))
    if ndim:
        order[a], order[b] = order[b], order[a]
    return {"order": tuple(order)}


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged, as a view.

    >>> graphc.transpose(graphc.tensor([[1, 2], [3, 4]]), 0, 1)
    tensor([[1, 3],
            [2, 4]])
    """
    return _transposed(input, _exchanged(len(input._data.shape), dim0, dim1))


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix, as a view; vectors and numbers as they are. GraphcError for more dimensions.

    >>> graphc.t(graphc.tensor([[1, 2, 3]]))
    tensor([[1],
            [2],
            [3]])
    """
    ndim = len(input._data.shape)
    if ndim > 2:
        raise GraphcError(f"t() expects a tensor with <= 2 dimensions, but self is {ndim}D")
    return _turned(input, _exchanged(ndim, 0, -1))


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Dimensions moved to other places; the rest keep their order.

    GraphcError where there are not as many destinations as sources, and for a dimension that is named twice.

    >>> graphc.movedim(graphc.zeros(2, 3, 4), 0, -1).shape
    graphc.Size([3, 4, 2])
    """
    ndim = len(input._data.shape)
    given = [source] if isinstance(source, int) else list(source)
    wanted = [destination] if isinstance(destination, int) else list(destination)
    if len(given) != len(wanted):
        raise GraphcError(f"movedim: Invalid source or destination dims: source ({given} dims) should contain the same number "
                          f"of dims as destination ({wanted} dims)")
    origin, target = [axis(d, ndim) for d in given], [axis(d, ndim) for d in wanted]
    for name, dims, places in (("source", given, origin), ("destination", wanted, target)):
        if len(set(places)) != len(places):
            raise GraphcError(f"movedim: repeated dim in `{name}` ({dims})")
    if not ndim:
        return permute(input, ())
    order = [-1] * ndim
    for a, b in zip(origin, target):
        order[b] = a
    rest = iter(d for d in range(ndim) if d not in origin)
    return permute(input, [next(rest) if d < 0 else d for d in order])


def squeeze(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None) -> Tensor:
    """Without the dimensions of size 1, or without `dim` if its size is 1; a view.

    DimError for a dimension that there is not.

    >>> graphc.squeeze(graphc.zeros(1, 3, 1)).shape
    graphc.Size([3])
    """
    shape = input._data.shape
    if dim is None:
        chosen = range(len(shape))
    else:
        chosen = [axis(d, len(shape)) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]  # type: ignore[assignment]
        check_distinct(chosen)
    return _squeezed(input, {"shape": tuple([s for i, s in enumerate(shape) if i not in chosen or s != 1])})


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a dimension of size 1 put in at `dim`; a view.

    DimError for a dimension that there is not.

    >>> graphc.unsqueeze(graphc.zeros(3), 0).shape
    graphc.Size([1, 3])
    """
    shape = input._data.shape
    count = len(shape) + 1
    at = axis(dim, count)
    return _unsqueezed(input, {"shape": (*shape[:at], 1, *shape[at:])})


def expand(input: Tensor, *args: Any, size: Any = None, implicit: bool = False) -> Tensor:
    """Dimensions of size 1 stretched without a copy; -1 keeps a size, new dimensions come in front.

    ShapeError where a size is neither 1 nor the one that is wanted.

    >>> graphc.tensor([[1], [2]]).expand(-1, 3)
    tensor([[1, 1, 1],
            [2, 2, 2]])
    """
    wanted = sizes(args if size is None else (size,))
    shape = input._data.shape
    extra = len(wanted) - len(shape)
    if extra < 0:
        raise ShapeError(f"expand({list(shape)}, size={list(wanted)}): the number of sizes provided ({len(wanted)}) must be "
                         f"greater or equal to the number of dimensions in the tensor ({len(shape)})")
    out = []
    for i, s in enumerate(wanted):
        own = shape[i - extra] if i >= extra else None
        if isinstance(s, int) and s == -1:
            if own is None:
                raise ShapeError(f"expand: The expanded size of the tensor (-1) isn't allowed in a leading, non-existing "
                                 f"dimension {i}")
            s = own
        elif (isinstance(s, int) and s < 0) or (own is not None and not _stretches(own, s)):
            raise ShapeError(
                f"The expanded size of the tensor ({s}) must match the existing size ({own}) at non-singleton dimension {i}.  "
                f"Target sizes: {list(wanted)}.  Tensor sizes: {list(shape)}")
        out.append(s)
    if not extra and all(type(s) is type(own) and s == own for s, own in zip(out, shape)):
        return named(reshaped(input, tuple(out)), "Expand")
    return _stretched(input, {"shape": tuple(out)})


def _stretches(size: Any, to: Any) -> bool:
    """Whether a dimension can be stretched: from the number 1, or not at all. Whether a symbol is 1 is not asked."""
    return (isinstance(size, int) and size == 1) or size == to


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """Stretched to the shape of `other`.

    ShapeError where it does not fit.

    >>> graphc.tensor([[1], [2]]).expand_as(graphc.zeros(2, 3))
    tensor([[1, 1, 1],
            [2, 2, 2]])
    """
    return expand(input, other.shape)


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """Stretched to a shape without a copy. ShapeError where it does not fit.

    >>> graphc.broadcast_to(graphc.tensor([1, 2]), (2, 2))
    tensor([[1, 2],
            [1, 2]])
    """
    return expand(input, size)


def broadcast_shapes(*shapes: Any) -> Any:
    """The shape that all the shapes stretch to. ShapeError where there is none.

    >>> graphc.broadcast_shapes((2, 1), (3,))
    graphc.Size([2, 3])
    """
    return Size(common_shape(*(sizes((s,)) for s in shapes)))


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors stretched to one shape.

    ShapeError where there is no such shape.

    >>> a, b = graphc.broadcast_tensors(graphc.zeros(2, 1), graphc.zeros(3))
    >>> a.shape, b.shape
    (graphc.Size([2, 3]), graphc.Size([2, 3]))
    """
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    shape = broadcast_shapes(*(x.shape for x in given))
    return tuple(expand(x, shape) for x in given)


def narrow(input: Tensor, dim: int, start: int | Tensor, length: int) -> Tensor:
    """The `length` elements from `start` along a dimension, as a view; in a trace, from a `start` that is a tensor, a copy.

    GraphcError for a single number and a negative length, DimError for a start out of range.

    >>> graphc.narrow(graphc.arange(6), 0, 2, 3)
    tensor([2, 3, 4])
    """
    shape = input._data.shape
    if not shape:
        raise GraphcError("narrow() cannot be applied to a 0-dim tensor.")
    at = axis(dim, len(shape))
    if isinstance(start, Tensor) and active() is not None:
        along = tuple(length if i == at else 1 for i in range(len(shape)))
        place = ops.iota(shape=along, axis=at, dtype=int64, like=Tensor) + (start + (start < 0) * shape[at])
        index = expand(place, tuple(length if i == at else s for i, s in enumerate(shape)))
        return named(emit(ops.gather, (input, index), {"axis": at}), "Slice")
    first = integer(start, "start")
    if not -shape[at] <= first <= shape[at]:
        raise DimError(f"start out of range (expected to be in range of [{-shape[at]}, {shape[at]}], but got {first})")
    first = first + shape[at] if first < 0 else first
    if length < 0:
        raise GraphcError("narrow(): length must be non-negative.", got=str(length))
    if first + length > shape[at]:
        raise GraphcError(f"start ({first}) + length ({length}) exceeds dimension size ({shape[at]}).")
    return named(part(input, at, first, first + length), "Slice")


def part(input: Tensor, at: int, start: int, stop: Any, step: int = 1) -> Tensor:
    """`input[..., start:stop:step, ...]` along one dimension, by numbers that are known to fit."""
    shape = input._data.shape
    if type(input._data) is np.ndarray and (start != 0 or stop != shape[at] or step != 1):
        chosen: Tensor = input[(*(slice(None),) * at, slice(start, stop, step))]
        return chosen
    before, after = (0,) * at, (0,) * (len(shape) - at - 1)
    ones = (1,) * len(shape)
    return _sliced(input, {"starts": (*before, start, *after), "stops": (*shape[:at], stop, *shape[at + 1 :]),
                           "steps": ones if step == 1 else (*ones[:at], step, *ones[at + 1 :])})


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The element at `index` along a dimension, which is dropped; a view.

    DimError for a single number, and for an index out of range.

    >>> graphc.select(graphc.tensor([[1, 2], [3, 4]]), 0, 1)
    tensor([3, 4])
    """
    shape = input._data.shape
    if not shape:
        raise DimError("select() cannot be applied to a 0-dim tensor.")
    at = axis(dim, len(shape))
    place = integer(index, "index")
    if not -shape[at] <= place < shape[at]:
        raise DimError(f"select(): index {place} out of range for tensor of size {list(shape)} at dimension {at}")
    place = place + shape[at] if place < 0 else place
    if type(input._data) is np.ndarray:
        chosen: Tensor = input[(*(slice(None),) * at, place)]
        return chosen
    row = part(input, at, place, place + 1)
    return _selected(row, {"shape": (*shape[:at], *shape[at + 1 :])})


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of `size` elements, `step` apart, along a dimension; the window's own dimension comes last.

    GraphcError for a size greater than that of the dimension.

    >>> graphc.arange(5).unfold(0, 3, 1)
    tensor([[0, 1, 2],
            [1, 2, 3],
            [2, 3, 4]])
    """
    shape = input._data.shape
    at = axis(dimension, len(shape))
    if not shape:
        return unfold(reshape(input, (1,)), 0, size, step)[0]
    if size > shape[at]:
        raise GraphcError(f"maximum size for tensor at dimension {at} is {shape[at]} but size is {size}")
    return named(emit(ops.window, (input,), {"axis": at, "size": size, "step": step, "dilation": 1}), "Unfold")


def as_strided(input: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None) -> Tensor:
    """A view of the memory behind the tensor, with any sizes and strides; `storage_offset` is counted from the start of the
    memory, and that of the tensor unless given.

    Tensors that are not contiguous are views themselves: the memory is then that of the tensor they were taken from.

    GraphcError where there are not as many strides as sizes, and for a tensor whose memory has no order of its own.

    >>> graphc.as_strided(graphc.arange(6), (2, 2), (3, 1), 1)
    tensor([[1, 2],
            [4, 5]])
    """
    shape, strides = sizes((size,), "size"), sizes((stride,), "stride")
    if len(shape) != len(strides):
        raise GraphcError("mismatch in length of strides and shape", got=f"{list(strides)} and {list(shape)}")
    own = input.storage_offset() if active() is None else 0
    offset = own if storage_offset is None else integer(storage_offset, "storage_offset")
    base, skipped = input, own
    if active() is None and (not input.is_contiguous() or offset < own or _reach(shape, strides, offset) > own + input.numel()):
        whole = input._base
        if whole is not None and whole.is_contiguous():
            base, skipped = whole, whole.storage_offset()
    if not base.is_contiguous():
        raise GraphcError("as_strided: the tensor's memory has no order of its own that strides could count in",
                          got=f"strides {list(base.stride())}", hint="call contiguous() first")
    flat = reshape(base, (-1,))
    return named(emit(ops.as_strided, (flat,), {"shape": shape, "strides": strides, "offset": offset - skipped}), "AsStrided")


def _reach(shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> int:
    """How many elements of the memory lie before the end of the last element."""
    return 0 if 0 in shape else offset + sum((n - 1) * s for n, s in zip(shape, strides)) + 1


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two dimensions exchanged, as a view: NumPy's name of `transpose`.

    >>> graphc.swapaxes(graphc.zeros(2, 3, 4), 0, 2).shape
    graphc.Size([4, 3, 2])
    """
    return transpose(input, axis0, axis1)


def adjoint(input: Tensor) -> Tensor:
    """The last two dimensions exchanged, and the conjugate of complex numbers.

    DimError for less than two dimensions.

    >>> graphc.adjoint(graphc.tensor([[1 + 1j, 2 + 0j]]))
    tensor([[1.-1.j],
            [2.-0.j]])
    """
    return ops.conjugate(transpose(input, -2, -1))
