"""Functions that put the same numbers into other places. Those that PyTorch calls views share memory here too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.dims import Dim
from graphc.errors import ArgumentError, DimError, GraphcError, ShapeError
from graphc.frontend.arguments import axis, emit, integer, sizes
from graphc.frontend.dispatch import finish
from graphc.frontend.tape import named
from graphc.frontend.tensor import Size, Tensor, wrap
from graphc.frontend.tracer import active
from graphc.types import DType
from graphc.types import broadcast_shapes as common_shape

FUNCTIONS = """
    adjoint broadcast_shapes broadcast_tensors broadcast_to chunk clone flatten flip fliplr flipud movedim narrow
    permute ravel reshape select split squeeze swapaxes t tensor_split tile transpose unbind unflatten unsqueeze
"""
METHODS = """
    adjoint broadcast_to chunk clone contiguous expand expand_as flatten flip fliplr flipud movedim narrow permute
    ravel repeat reshape reshape_as select split squeeze swapaxes t tensor_split tile transpose unbind unflatten
    unfold unsqueeze view view_as
"""
ALIASES = {"moveaxis": "movedim", "swapdims": "swapaxes"}


def _filled(input: Tensor, shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape with its -1, if it has one, worked out."""
    unknown = [i for i, s in enumerate(shape) if isinstance(s, int) and s < 0]
    if not unknown:
        return shape
    if len(unknown) > 1:
        raise ShapeError("only one dimension can be inferred", got=str(list(shape)))
    if shape[unknown[0]] != -1:
        raise ShapeError(f"invalid shape dimension {shape[unknown[0]]}", expected="sizes >= 0, and one -1 at most")
    known = math.prod(s for i, s in enumerate(shape) if i != unknown[0])
    total = math.prod(input._data.shape)
    fits = not isinstance(known, int) or (known != 0 and (not isinstance(total, int) or total % known == 0))
    if not fits:
        if known == 0:
            raise ShapeError("cannot reshape tensor of 0 elements into shape "
                             f"{list(shape)} because the unspecified dimension size -1 can be any value and is ambiguous")
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {total}", got=str(list(input.shape)))
    return (*shape[: unknown[0]], total // known, *shape[unknown[0] + 1 :])


def reshape(input: Tensor, *args: Any, shape: Any = None) -> Tensor:
    """The elements in row-major order as a tensor of another shape; a view where the memory allows it, else a copy."""
    return named(_reshape(input, _filled(input, sizes(args if shape is None else (shape,)))), "View")


def _reshape(input: Tensor, shape: tuple[Any, ...]) -> Tensor:
    return emit(ops.reshape, (input,), {"shape": shape})


def view(input: Tensor, *args: Any, size: Any = None) -> Tensor:
    """`reshape`, but an error where it would have to copy. Given a dtype, the memory read as that dtype."""
    if len(args) == 1 and isinstance(args[0], DType):
        return _reinterpreted(input, args[0])
    wanted = _filled(input, sizes(args if size is None else (size,)))
    data = input._data
    if isinstance(data, np.ndarray) and not data.flags.c_contiguous and math.prod(wanted) == data.size:
        try:
            data.reshape(wanted, copy=False)
        except ValueError:
            raise ShapeError(
                "view size is not compatible with input tensor's size and stride (at least one dimension spans across two "
                "contiguous subspaces). Use .reshape(...) instead.", got=f"{list(data.shape)} as {list(wanted)}") from None
    return reshape(input, wanted)


def _reinterpreted(input: Tensor, dtype: Any) -> Tensor:
    if dtype is input.dtype:
        return input
    return wrap(input._array("view(dtype)").view(dtype.numpy))


def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`view` with the shape of `other`."""
    return view(input, other.shape)


def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`reshape` with the shape of `other`."""
    return reshape(input, other.shape)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from `start_dim` to `end_dim` as one."""
    shape = input._data.shape
    if not shape:
        return reshape(input, (1,))
    start, end = axis(start_dim, len(shape)), axis(end_dim, len(shape))
    if start > end:
        raise GraphcError("flatten() has invalid args: start_dim cannot come after end_dim")
    if start == end:
        return input
    return reshape(input, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension as several; one of the sizes may be -1."""
    shape = input._data.shape
    at = axis(dim, len(shape))
    parts = tuple(sizes)
    if -1 in parts:
        known = -math.prod(parts)
        parts = tuple(shape[at] // known if s == -1 and known else s for s in parts)
    if math.prod(parts) != shape[at]:
        raise GraphcError(f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {at} ({shape[at]}) "
                          "in the input tensor")
    return reshape(input, (*shape[:at], *parts, *shape[at + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension."""
    return reshape(input, (-1,))


def _listed(given: tuple[Any, ...], named_: Any) -> Any:
    """Dimensions that were written as `f(0, 1)`, `f((0, 1))` or `f(dims=(0, 1))`."""
    if named_ is not None:
        return (named_,) if isinstance(named_, int) else named_
    return given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given


def permute(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """The dimensions in another order."""
    order = _listed(args, dims)
    ndim = len(input._data.shape)
    if len(order) != ndim:
        raise GraphcError(f"permute(sparse_coo): number of dimensions in the tensor input does not match the length of the "
                          f"desired ordering of dimensions i.e. input.dim() = {ndim} is not equal to len(dims) = {len(order)}")
    found = tuple(axis(d, ndim) for d in order)
    if len(set(found)) != len(found):
        raise GraphcError("permute(): duplicate dims are not allowed.", got=str(tuple(order)))
    return emit(ops.permute, (input,), {"order": found})


def _swapped(input: Tensor, first: int, second: int) -> Tensor:
    ndim = len(input._data.shape)
    a, b = axis(first, ndim), axis(second, ndim)
    order = list(range(ndim))
    if ndim:
        order[a], order[b] = order[b], order[a]
    return emit(ops.permute, (input,), {"order": tuple(order)})


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    return named(_swapped(input, dim0, dim1), "Transpose")


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and numbers as they are."""
    if len(input._data.shape) > 2:
        raise GraphcError(f"t() expects a tensor with <= 2 dimensions, but self is {input.dim()}D")
    return named(_swapped(input, 0, -1), "T")


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Dimensions moved to other places; the rest keep their order."""
    ndim = len(input._data.shape)
    origin = [axis(d, ndim) for d in ([source] if isinstance(source, int) else source)]
    target = [axis(d, ndim) for d in ([destination] if isinstance(destination, int) else destination)]
    if len(origin) != len(target) or len(set(origin)) != len(origin) or len(set(target)) != len(target):
        raise GraphcError("movedim: Invalid source or destination dims", expected="as many different dims in both",
                          got=f"{source} and {destination}")
    order = [-1] * ndim
    for a, b in zip(origin, target):
        order[b] = a
    rest = iter(d for d in range(ndim) if d not in origin)
    return permute(input, [next(rest) if d < 0 else d for d in order])


def squeeze(input: Tensor, dim: int | tuple[int, ...] | list[int] | None = None) -> Tensor:
    """Without the dimensions of size 1, or without `dim` if its size is 1."""
    shape = input._data.shape
    if dim is None:
        chosen = range(len(shape))
    else:
        chosen = [axis(d, len(shape)) for d in (dim if isinstance(dim, (tuple, list)) else (dim,))]  # type: ignore[assignment]
    return named(_reshape(input, tuple(s for i, s in enumerate(shape) if i not in chosen or s != 1)), "Squeeze")


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a dimension of size 1 put in at `dim`."""
    shape = input._data.shape
    count = len(shape) + 1
    if not -count <= dim < count:
        raise DimError(f"Dimension out of range (expected to be in range of [{-count}, {count - 1}], but got {dim})")
    at = dim % count
    return named(_reshape(input, (*shape[:at], 1, *shape[at:])), "Unsqueeze")


def expand(input: Tensor, *args: Any, size: Any = None, implicit: bool = False) -> Tensor:
    """Dimensions of size 1 stretched without a copy; -1 keeps a size, new dimensions come in front."""
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
        elif own is not None and own not in (1, s):
            raise ShapeError(
                f"The expanded size of the tensor ({s}) must match the existing size ({own}) at non-singleton dimension {i}.  "
                f"Target sizes: {list(wanted)}.  Tensor sizes: {list(shape)}")
        out.append(s)
    if tuple(out) == tuple(shape):
        return named(_reshape(input, tuple(out)), "Expand")
    return named(emit(ops.broadcast_to, (input,), {"shape": tuple(out)}), "Expand")


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """Stretched to the shape of `other`."""
    return expand(input, other.shape)


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """Stretched to a shape."""
    return expand(input, size)


def broadcast_shapes(*shapes: Any) -> Any:
    """The shape that all the shapes stretch to."""
    return Size(common_shape(*(sizes((s,)) for s in shapes)))


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors stretched to one shape."""
    given = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) else tensors
    shape = broadcast_shapes(*(x.shape for x in given))
    return tuple(expand(x, shape) for x in given)


def clone(input: Tensor, *, memory_format: object = None) -> Tensor:
    """A copy that the gradient flows through."""
    return named(emit(ops.cast, (input,), {"dtype": input.dtype}), "Clone")


def contiguous(input: Tensor, memory_format: object = None) -> Tensor:
    """The tensor itself if it lies in row-major order without gaps, else a copy that does."""
    if input.is_contiguous():
        return input
    if active() is not None:
        return clone(input)
    array = np.ascontiguousarray(input._data)
    return named(finish(ops.cast, (input,), {"dtype": input.dtype}, array, input.dtype.is_floating_point), "Clone")


def flip(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """A copy in reversed order along the dimensions."""
    chosen = _listed(args, dims)
    found = tuple(axis(d, len(input._data.shape)) for d in chosen)
    if len(set(found)) != len(found):
        raise GraphcError("flip: dim appears multiple times in the list of dims", got=str(tuple(chosen)))
    return named(contiguous(emit(ops.flip, (input,), {"axes": found})), "Flip")


def fliplr(input: Tensor) -> Tensor:
    """Flipped left to right, along dimension 1."""
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """Flipped upside down, along dimension 0."""
    return flip(input, 0)


def narrow(input: Tensor, dim: int, start: int | Tensor, length: int) -> Tensor:
    """The `length` elements from `start` along a dimension, as a view."""
    shape = input._data.shape
    if not shape:
        raise GraphcError("narrow() cannot be applied to a 0-dim tensor.")
    at = axis(dim, len(shape))
    first = integer(start, "start")
    if isinstance(shape[at], int):
        if not -shape[at] <= first <= shape[at]:
            raise DimError(f"start out of range (expected to be in range of [{-shape[at]}, {shape[at]}], but got {first})")
        first = first + shape[at] if first < 0 else first
        if length < 0:
            raise GraphcError("narrow(): length must be non-negative.")
        if first + length > shape[at]:
            raise GraphcError(f"start ({first}) + length ({length}) exceeds dimension size ({shape[at]}).")
    return named(part(input, at, first, first + length), "Slice")


def part(input: Tensor, at: int, start: int, stop: Any, step: int = 1) -> Tensor:
    """`input[..., start:stop:step, ...]` along one dimension, by numbers that are known to fit."""
    shape = input._data.shape
    starts = tuple(start if i == at else 0 for i in range(len(shape)))
    stops = tuple(stop if i == at else s for i, s in enumerate(shape))
    steps = tuple(step if i == at else 1 for i in range(len(shape)))
    return emit(ops.slice, (input,), {"starts": starts, "stops": stops, "steps": steps})


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The element at `index` along a dimension, which is dropped; a view."""
    shape = input._data.shape
    if not shape:
        raise DimError("select() cannot be applied to a 0-dim tensor.")
    at = axis(dim, len(shape))
    place = integer(index, "index")
    if isinstance(shape[at], int) and not -shape[at] <= place < shape[at]:
        raise DimError(f"select(): index {place} out of range for tensor of size {list(shape)} at dimension {at}")
    place = place + shape[at] if place < 0 else place
    row = part(input, at, place, place + 1)
    return named(_reshape(row, (*shape[:at], *shape[at + 1 :])), "Select")


def split(input: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of the pieces along a dimension: of one size (the last may be smaller), or of the sizes given."""
    shape = input._data.shape
    at = axis(dim, len(shape))
    if not shape:
        raise GraphcError("split expects at least a 1-dimensional tensor")
    size = shape[at]
    if isinstance(split_size_or_sections, (int, Dim)) or not isinstance(split_size_or_sections, Sequence):
        step = integer(split_size_or_sections, "split_size")
        if step < 0 or (step == 0 and size != 0):
            raise GraphcError(f"split expects split_size be non-negative, but got split_size={step}")
        lengths = [min(step, size - start) for start in range(0, size, step)] if size else [0]
    else:
        lengths = [integer(length, "split_sizes") for length in split_size_or_sections]
        if sum(lengths) != size:
            raise GraphcError(f"split_with_sizes expects split_sizes to sum exactly to {size} (input tensor's size at "
                              f"dimension {at}), but got split_sizes={lengths}")
    pieces, start = [], 0
    for length in lengths:
        pieces.append(named(part(input, at, start, start + length), "Split"))
        start += length
    return tuple(pieces)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of `chunks` pieces of about equal size."""
    if chunks <= 0:
        raise GraphcError("chunk expects `chunks` to be greater than 0, got: " + str(chunks))
    size = input._data.shape[axis(dim, len(input._data.shape))] if input._data.shape else 1
    step = max(1, -(-size // chunks))
    if size == 0:
        return tuple(split(input, [0] * chunks, dim))
    return split(input, step, dim)


def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int] | Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of pieces: a number of them, the first ones larger by one where it does not go up, or cut at the indices."""
    if not input._data.shape:
        raise GraphcError("tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    at = axis(dim, len(input._data.shape))
    size = input._data.shape[at]
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        count = indices_or_sections
        if count <= 0:
            raise GraphcError(f"number of sections must be larger than 0, got {count}")
        lengths = [size // count + (i < size % count) for i in range(count)]
        edges = [0]
        for length in lengths:
            edges.append(edges[-1] + length)
    else:
        cuts = [min(max(i + size if i < 0 else i, 0), size) for i in indices_or_sections]
        edges = [0, *cuts, size]
    return tuple(part(input, at, a, max(a, b)) for a, b in itertools.pairwise(edges))


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of all elements along a dimension, which is dropped."""
    at = axis(dim, len(input._data.shape))
    if not input._data.shape:
        raise GraphcError("Dimension specified as 0 but tensor has no dimensions")
    return tuple(named(select(input, at, i), "Unbind") for i in range(input._data.shape[at]))


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All windows of `size` elements, `step` apart, along a dimension; the window's own dimension comes last."""
    shape = input._data.shape
    at = axis(dimension, len(shape))
    if not shape:
        return unfold(reshape(input, (1,)), 0, size, step)[0]
    if size > shape[at]:
        raise GraphcError(f"maximum size for tensor at dimension {at} is {shape[at]} but size is {size}")
    return named(emit(ops.window, (input,), {"axis": at, "size": size, "step": step, "dilation": 1}), "Unfold")


def repeat(input: Tensor, *args: Any, repeats: Any = None) -> Tensor:
    """The tensor set side by side, so many times along each dimension."""
    times = sizes(args if repeats is None else (repeats,), "repeats")
    shape = (1,) * (len(times) - len(input._data.shape)) + tuple(input._data.shape)
    if len(times) < len(shape):
        raise GraphcError("Number of dimensions of repeat dims can not be smaller than number of dimensions of tensor")
    if any(t < 0 for t in times):
        raise ArgumentError("repeat: a negative number of times", got=str(list(times)))
    spread = _reshape(input, tuple(x for s in shape for x in (1, s)))
    stretched = expand(spread, tuple(x for r, s in zip(times, shape) for x in (r, s)))
    return named(contiguous(reshape(stretched, tuple(r * s for r, s in zip(times, shape)))), "Repeat")


def tile(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """`repeat`, where missing times count as 1 in front."""
    times = sizes(args if dims is None else (dims,), "dims")
    return repeat(input, (1,) * (len(input._data.shape) - len(times)) + times)


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two dimensions exchanged."""
    return transpose(input, axis0, axis1)


def adjoint(input: Tensor) -> Tensor:
    """The last two dimensions exchanged."""
    return transpose(input, -2, -1)
