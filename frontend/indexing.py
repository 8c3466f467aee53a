"""Picking elements and writing to them: `x[...]`, `x[...] = v`, and the functions that index."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, ArgumentTypeError, DimError, DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import axis, emit, integer
from graphc.frontend.creation import as_tensor, zeros
from graphc.frontend.inplace import assign, refuse
from graphc.frontend.movement import expand, movedim, reshape
from graphc.frontend.pointwise import cast
from graphc.frontend.pointwise import where as choose
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.types import bool_, int64, uint8

FUNCTIONS = """
    gather index_add index_put index_select masked_fill masked_select nonzero repeat_interleave scatter scatter_add
    take take_along_dim where
"""
METHODS = """
    gather index_add index_put index_put_ index_select masked_fill masked_select nonzero repeat_interleave scatter
    scatter_add take take_along_dim
"""
IN_PLACE = "index_add masked_fill scatter scatter_add"


def _items(index: Any) -> list[Any]:
    items = list(index) if isinstance(index, tuple) else [index]
    return [as_tensor(i) if isinstance(i, (list, np.ndarray)) and not (isinstance(i, np.ndarray) and i.ndim == 0
                                                                       and i.dtype.kind in "iu") else i for i in items]


def _is_mask(item: Any) -> bool:
    return isinstance(item, bool) or (isinstance(item, Tensor) and item.dtype in (bool_, uint8))


def _is_places(item: Any) -> bool:
    return isinstance(item, Tensor) and not _is_mask(item) and (item.ndim > 0 or active() is not None)


class _Basic:
    """An index of integers, slices, None and Ellipsis, worked out against a shape: a slice, then a reshape.

    Index tensors stand aside: `places` are (dimension of the result, tensor) pairs.
    """

    def __init__(self, items: Sequence[Any], shape: tuple[Any, ...]) -> None:
        used = sum(1 for i in items if i is not None and i is not Ellipsis and not isinstance(i, bool)
                   and not (_is_mask(i) and i.ndim == 0)) + sum(i.ndim - 1 for i in items if isinstance(i, Tensor)
                                                                and _is_mask(i) and i.ndim > 0)
        if used > len(shape):
            if not shape:
                raise DimError("invalid index of a 0-dim tensor. Use `tensor.item()` in Python")
            raise DimError(f"too many indices for tensor of dimension {len(shape)}", got=f"{used} indices")
        if sum(1 for i in items if i is Ellipsis) > 1:
            raise DimError("an index can have one Ellipsis ('...') only")
        self.starts: list[Any] = []
        self.stops: list[Any] = []
        self.steps: list[int] = []
        self.shape: list[Any] = []
        self.places: list[tuple[int, Tensor]] = []
        self.trivial = True
        self._input = shape
        expanded = any(i is Ellipsis for i in items)
        for item in items if expanded else [*items, Ellipsis]:
            self._add(item, len(shape) - used)

    def _add(self, item: Any, rest: int) -> None:
        at = len(self.starts)
        if item is None:
            self.shape.append(1)
        elif item is Ellipsis:
            for _ in range(rest):
                self._keep(self._input[len(self.starts)])
        elif isinstance(item, slice):
            self._slice(item, at)
        elif isinstance(item, bool) or (_is_mask(item) and item.ndim == 0):
            self.places.append((len(self.shape), as_tensor(item) if isinstance(item, bool) else item))
            self.shape.append(1)
        elif isinstance(item, Tensor) and (_is_mask(item) or _is_places(item)):
            count = item.ndim if _is_mask(item) else 1
            self.places.append((len(self.shape), item))
            for _ in range(count):
                self._keep(self._input[len(self.starts)])
        else:
            self._number(item, at)

    def _keep(self, size: Any) -> None:
        self.starts.append(0)
        self.stops.append(size)
        self.steps.append(1)
        self.shape.append(size)

    def _slice(self, item: slice, at: int) -> None:
        size = self._input[at]
        step = 1 if item.step is None else integer(item.step, "slice step")
        if step <= 0:
            raise ArgumentError("step must be greater than zero", hint="flip() turns a tensor round")
        if not isinstance(size, int):
            start, stop = self._symbolic(item, size)
        else:
            start, stop, step = slice(None if item.start is None else integer(item.start, "slice start"),
                                      None if item.stop is None else integer(item.stop, "slice stop"), step).indices(size)
            stop = max(start, stop)
        if not (start == 0 and stop == size and step == 1):
            self.trivial = False
        self.starts.append(start)
        self.stops.append(stop)
        self.steps.append(step)
        self.shape.append(-(-(stop - start) // step) if isinstance(stop, int) else ops.movement.slice_length(start, stop, step))

    def _symbolic(self, item: slice, size: Any) -> tuple[Any, Any]:
        start = 0 if item.start is None else item.start
        stop = size if item.stop is None else item.stop
        return (size + start if isinstance(start, int) and start < 0 else start,
                size + stop if isinstance(stop, int) and stop < 0 else stop)

    def _number(self, item: Any, at: int) -> None:
        if isinstance(item, (float, str)) or not (isinstance(item, int) or hasattr(item, "__index__")):
            raise DimError("only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
                           f"(got {type(item).__name__})")
        place, size = integer(item, "index"), self._input[at]
        if isinstance(size, int) and not -size <= place < size:
            raise DimError(f"index {place} is out of bounds for dimension {at} with size {size}")
        place = place + size if place < 0 else place
        self.trivial = False
        self.starts.append(place)
        self.stops.append(place + 1)
        self.steps.append(1)

    def view(self, input: Tensor) -> Tensor:
        """The part of the tensor that integers and slices choose, as a view."""
        out = input
        if not self.trivial:
            out = named(emit(ops.slice, (input,), {
                "starts": tuple(self.starts), "stops": tuple(self.stops), "steps": tuple(self.steps)}), "Slice")
        if out is input or tuple(self.shape) != tuple(out._data.shape):
            name = "Select" if len(self.shape) < len(self._input) else "Slice" if out is not input else "Alias"
            out = named(emit(ops.reshape, (out,), {"shape": tuple(self.shape)}), name)
        return out


def getitem(self: Tensor, index: Any) -> Tensor:
    """`self[index]`: a view for integers, slices, None and Ellipsis; a copy for masks, lists and index tensors."""
    basic = _Basic(_items(index), self._data.shape)
    part = basic.view(self) if not (basic.places and basic.trivial and len(basic.shape) == self.ndim) else self
    if not basic.places:
        return part
    return named(_Advanced(part, basic.places).get(), "Index")


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """`self[index] = value`, in place; the value is stretched to the shape of the place."""
    refuse(self)
    basic = _Basic(_items(index), self._data.shape)
    new = value if isinstance(value, Tensor) else as_tensor(value, dtype=self.dtype)
    if len(basic.places) == 1 and _is_mask(basic.places[0][1]) and new.numel() == 1 and basic.places[0][1].ndim:
        # one number for all places needs no list of the places, which a trace could not have
        part = basic.view(self)
        refuse(part)
        assign(part, cast(choose(_mask_over(part, *basic.places[0]), reshape(new, ()), part), part.dtype))
        return
    if not basic.places:
        part = basic.view(self)
        refuse(part)
        assign(part, _fitted(new, part._data.shape))
        return
    part = basic.view(self)
    refuse(part)
    assign(part, _Advanced(part, basic.places).put(new, accumulate=False))


def _mask_over(part: Tensor, at: int, mask: Tensor) -> Tensor:
    """A mask of dimensions from `at` on, as it stretches over the tensor."""
    _Advanced._check_mask(mask, part, at)
    shape = (*(1,) * at, *mask._data.shape, *(1,) * (part.ndim - at - mask.ndim))
    return reshape(mask if mask.dtype is bool_ else cast(mask, bool_), shape)


def _fitted(new: Tensor, shape: Any) -> Tensor:
    """A value without the leading ones that the place does not have, as PyTorch lets it be assigned."""
    own = tuple(new._data.shape)
    while len(own) > len(shape) and own[0] == 1:
        own = own[1:]
    fits = len(own) <= len(shape) and all(a in (1, b) for a, b in zip(reversed(own), reversed(tuple(shape))))
    if not fits:
        raise ShapeError(f"shape mismatch: value tensor of shape {list(new.shape)} cannot be broadcast to indexing result of "
                         f"shape {list(shape)}")
    return new if own == tuple(new._data.shape) else reshape(new, own)


class _Advanced:
    """Index tensors applied to dimensions of a tensor: those dimensions become one, which is read by a flat index."""

    def __init__(self, input: Tensor, places: Sequence[tuple[int, Tensor]]) -> None:
        dims: list[int] = []
        indices: list[Tensor] = []
        for at, item in places:
            if _is_mask(item):
                self._check_mask(item, input, at)
                found = nonzero(item, as_tuple=True) if item.ndim else (wrap(np.zeros(int(bool(item)), np.int64)),)
                dims += range(at, at + len(found))
                indices += found
            else:
                if item.dtype.kind not in ("int", "uint"):
                    raise DimError("tensors used as indices must be long, int, byte or bool tensors", got=item.dtype.name)
                dims.append(at)
                indices.append(cast(item, int64))
        self.input = input
        self.dims = dims
        shape = ops_broadcast([i._data.shape for i in indices])
        self.together = dims == list(range(dims[0], dims[0] + len(dims)))
        sizes = [input._data.shape[d] for d in dims]
        self._check_bounds(indices, sizes, dims)
        flat: Tensor | None = None
        for index, size in zip(indices, sizes):
            positive = choose(index < 0, index + size, index)
            flat = positive if flat is None else flat * size + positive
        assert flat is not None
        self.index = reshape(expand(flat, shape), (-1,)) if tuple(flat._data.shape) != tuple(shape) else reshape(flat, (-1,))
        self.index_shape = tuple(shape)
        self.front = (self.together and dims[0]) or 0
        """Where the dimensions of the index come in the result: in place, or in front where they stand apart."""
        rest = [d for d in range(input.ndim) if d not in dims]
        self.order = [*rest[: self.front], *dims, *rest[self.front :]]
        self.lead = tuple(input._data.shape[d] for d in rest[: self.front])
        self.tail = tuple(input._data.shape[d] for d in rest[self.front :])
        self.count = math.prod(sizes)

    @staticmethod
    def _check_mask(mask: Tensor, input: Tensor, at: int) -> None:
        for i, size in enumerate(mask._data.shape):
            if size != input._data.shape[at + i]:
                raise DimError(f"The shape of the mask {list(mask.shape)} at index {i} does not match the shape of the indexed "
                               f"tensor {list(input.shape)} at index {at + i}")

    @staticmethod
    def _check_bounds(indices: Sequence[Tensor], sizes: Sequence[Any], dims: Sequence[int]) -> None:
        for index, size, dim in zip(indices, sizes, dims):
            array = index._known()
            if array is not None and isinstance(size, int):
                low, high = array.min(), array.max()
                if low < -size or high >= size:
                    wrong = low if low < -size else high
                    raise DimError(f"index {wrong} is out of bounds for dimension {dim} with size {size}")

    def _flat(self, x: Tensor) -> Tensor:
        if self.order != list(range(len(self.order))):
            x = emit(ops.permute, (x,), {"order": tuple(self.order)})
        return reshape(x, (*self.lead, self.count, *self.tail))

    def _unflat(self, x: Tensor) -> Tensor:
        shape = tuple(self.input._data.shape[d] for d in self.order)
        x = reshape(x, shape)
        if self.order != list(range(len(self.order))):
            x = emit(ops.permute, (x,), {"order": ops.inverse_permutation(tuple(self.order))})
        return x

    def _index(self) -> Tensor:
        """The flat index stretched along all other dimensions."""
        at = len(self.lead)
        ones = (*(1,) * at, -1, *(1,) * len(self.tail))
        n = self.index._data.shape[0]
        return expand(reshape(self.index, ones), (*self.lead, n, *self.tail))

    def get(self) -> Tensor:
        picked = emit(ops.gather, (self._flat(self.input), self._index()), {"axis": len(self.lead)})
        return reshape(picked, (*self.lead, *self.index_shape, *self.tail))

    def put(self, new: Tensor, accumulate: bool) -> Tensor:
        """The input with `new` at the places, or added to what is there."""
        new = cast(_fitted(new, (*self.lead, *self.index_shape, *self.tail)), self.input.dtype)
        new = expand(new, (*self.lead, *self.index_shape, *self.tail))
        flat, index, at = self._flat(self.input), self._index(), len(self.lead)
        new = reshape(new, (*self.lead, index._data.shape[at], *self.tail))
        if accumulate:
            return self._unflat(emit(ops.scatter_add, (flat, index, new), {"axis": at}))
        return self._unflat(overwritten(flat, index, new, at))


def ops_broadcast(shapes: Sequence[Any]) -> tuple[Any, ...]:
    """The shape that index tensors stretch to; DimError where they do not fit."""
    from graphc.types import broadcast_shapes

    try:
        return broadcast_shapes(*map(tuple, shapes))
    except ShapeError:
        raise DimError("shape mismatch: indexing tensors could not be broadcast together with shapes "
                       f"{', '.join(str(list(s)) for s in shapes)}") from None


def overwritten(base: Tensor, index: Tensor, new: Tensor, at: int) -> Tensor:
    """`base` with `new` at `index` along a dimension; of several writes to one place the last one counts.

    Written with additions, which have derivatives: the winners of each place are summed onto zero.
    """
    size = base._data.shape[at]
    count = index._data.shape[at]
    order = emit_iota(index._data.shape, at)
    # the last writer of each place: the largest position + 1 that is scattered there
    last = _last_writer(index, order, size, count, at)
    hit = last > 0
    mine = emit(ops.gather, (last, index), {"axis": at}) == order + 1
    zero = zeros(tuple(base._data.shape), dtype=new.dtype)
    put = emit(ops.scatter_add, (zero, index, choose(mine, new, 0 if new.dtype is not bool_ else False)), {"axis": at}) \
        if new.dtype is not bool_ else cast(emit(ops.scatter_add, (
            zeros(tuple(base._data.shape), dtype=int64), index, cast(choose(mine, new, False), int64)), {"axis": at}), bool_)
    return choose(hit, put, base)


def emit_iota(shape: Any, at: int) -> Tensor:
    """Positions along a dimension."""
    return ops.iota(shape=tuple(shape), axis=at, dtype=int64, like=Tensor)


def _last_writer(index: Tensor, order: Tensor, size: Any, count: Any, at: int) -> Tensor:
    shape = tuple(size if i == at else s for i, s in enumerate(index._data.shape))
    if active() is None:
        last = np.zeros(shape, np.int64)
        places = list(np.ogrid[tuple(map(slice, index._data.shape))])
        places[at] = index._data
        np.maximum.at(last, tuple(places), order._data + 1)
        return wrap(last)
    # a place's writers as a table of (place, writer): the largest writer that goes there
    writers = reshape(movedim(index, at, -1), (*[s for i, s in enumerate(index._data.shape) if i != at], 1, count))
    table = expand(writers, (*writers._data.shape[:-2], size, count))
    places_ = emit_iota(table._data.shape, len(table._data.shape) - 2)
    position = emit_iota(table._data.shape, len(table._data.shape) - 1) + 1
    last_ = emit(ops.amax, (choose(table == places_, position, 0),), {"axes": (len(table._data.shape) - 1,)})
    return movedim(last_, -1, at)


# Functions


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """`input` where the condition holds and `other` elsewhere; of a condition alone, the places where it holds."""
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return choose(condition, input, other)


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The places of the elements that are not zero: one row a place, or a tuple of one tensor a dimension."""
    found = np.nonzero(input._array("nonzero()").reshape(input._data.shape or (1,)))
    if as_tuple:
        return tuple(wrap(part.astype(np.int64)) for part in found)
    stacked = np.stack(found, 1).astype(np.int64)
    return wrap(stacked if input._data.shape else stacked[:, :0])


def _check_index(function: str, index: Tensor) -> Tensor:
    if index.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{function}(): Expected dtype int32 or int64 for index", got=index.dtype.name)
    return cast(index, int64)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The rows (along `dim`) that an integer vector lists, in its order, as a copy."""
    at = axis(dim, input.ndim)
    if index.ndim > 1:
        raise DimError("index_select(): Index is supposed to be a vector", got=f"{index.ndim} dimensions")
    index = reshape(_check_index("index_select", index), (-1,))
    source = input if input._data.shape else reshape(input, (1,))
    shape = source._data.shape
    _Advanced._check_bounds([index], [shape[at]], [at])
    known = index._known()
    if known is not None and known.min() < 0:
        raise DimError("index out of range in self", expected=f"0 <= index < {shape[at]}", got=str(known.min()))
    stretched = expand(reshape(index, tuple(-1 if i == at else 1 for i in range(len(shape)))),
                       tuple(index._data.shape[0] if i == at else s for i, s in enumerate(shape)))
    out = emit(ops.gather, (source, stretched), {"axis": at})
    return named(out if input._data.shape else reshape(out, ()), "IndexSelect")


def _flat_scalars(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a function of `(input, dim, index, source)` take 0-d tensors, as vectors of one element."""

    @functools.wraps(function)
    def lifted(input: Tensor, dim: int, index: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if input._data.shape:
            return function(input, dim, index, *args, **kwargs)
        axis(dim, 0)
        shape = index._data.shape if function.__name__ == "gather" else ()
        rest = [reshape(x, (1,)) if isinstance(x, Tensor) and not x._data.shape else x for x in args]
        named_ = {k: reshape(x, (1,)) if isinstance(x, Tensor) and not x._data.shape else x for k, x in kwargs.items()}
        index = index if index._data.shape else reshape(index, (1,))
        return reshape(function(reshape(input, (1,)), 0, index, *rest, **named_), shape)

    return lifted


@_flat_scalars
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """out[i][j] = input[index[i][j]][j] along dimension 0, and so on."""
    at = axis(dim, input.ndim)
    index = _check_index("gather", index)
    if input.ndim != index.ndim:
        raise GraphcError("Index tensor must have the same number of dimensions as input tensor",
                          got=f"{index.ndim} and {input.ndim}")
    return named(emit(ops.gather, (input, index), {"axis": at}), "Gather")


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather`, with the other dimensions stretched to each other; of the flattened tensor without `dim`."""
    if dim is None:
        return gather(reshape(input, (-1,)), 0, reshape(indices, (-1,)))
    at = axis(dim, input.ndim)
    shape = ops_broadcast([tuple(1 if i == at else s for i, s in enumerate(x._data.shape)) for x in (input, indices)])
    left = tuple(input._data.shape[at] if i == at else s for i, s in enumerate(shape))
    right = tuple(indices._data.shape[at] if i == at else s for i, s in enumerate(shape))
    return gather(expand(input, left), at, expand(indices, right))


def _source(function: str, input: Tensor, index: Tensor, src: Any, at: int) -> tuple[Tensor, Tensor]:
    index = _check_index(function, index)
    if not isinstance(src, Tensor):
        src = ops.full(_described(input, index._data.shape), src, like=Tensor)
    if src.dtype is not input.dtype:
        raise DTypeError(f"{function}(): Expected self.dtype to be equal to src.dtype",
                         got=f"{input.dtype.name} and {src.dtype.name}")
    if src._data.shape != index._data.shape:  # src may be larger than the index
        for i, size in enumerate(index._data.shape):
            if size > src._data.shape[i]:
                raise GraphcError(f"Expected index {list(index.shape)} to be no larger than src {list(src.shape)}")
        src = emit(ops.slice, (src,), {"starts": (0,) * src.ndim, "stops": tuple(index._data.shape), "steps": (1,) * src.ndim})
    return index, src


def _described(input: Tensor, shape: Any) -> Any:
    from graphc.types import TensorType

    return TensorType(input.dtype, tuple(shape))


def _padded_index(input: Tensor, index: Tensor, at: int) -> bool:
    return all(i == at or a == b for i, (a, b) in enumerate(zip(input._data.shape, index._data.shape)))


@_flat_scalars
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """input with src[i][j] added at [index[i][j]][j] along dimension 0, and so on."""
    at = axis(dim, input.ndim)
    index, src = _source("scatter_add", input, index, src, at)
    return named(emit(ops.scatter_add, (input, index, src), {"axis": at}), "ScatterAdd")


@_flat_scalars
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None) -> Tensor:
    """input with src[i][j] at [index[i][j]][j] along dimension 0, and so on."""
    at = axis(dim, input.ndim)
    index, source = _source("scatter", input, index, value if src is None else src, at)
    if reduce == "add":
        return scatter_add(input, at, index, source)
    if reduce is not None:
        raise ArgumentError(f"scatter: reduce={reduce!r}", expected="None or 'add'")
    if not _padded_index(input, index, at):
        return named(_partly(input, index, source, at), "Scatter")
    return named(overwritten(input, index, source, at), "Scatter")


def _partly(input: Tensor, index: Tensor, source: Tensor, at: int) -> Tensor:
    """A scatter whose index covers only the front of the other dimensions."""
    starts = (0,) * input.ndim
    stops = tuple(s if i == at else n for i, (s, n) in enumerate(zip(input._data.shape, index._data.shape)))
    front = emit(ops.slice, (input,), {"starts": starts, "stops": stops, "steps": (1,) * input.ndim})
    new = overwritten(front, index, source, at)
    return emit(ops.slice_update, (input, new), {"starts": starts, "stops": stops, "steps": (1,) * input.ndim})


@_flat_scalars
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """input with alpha times the rows of source added at the rows (along `dim`) that index lists."""
    at = axis(dim, input.ndim)
    index = _check_index("index_add", index)
    shape = input._data.shape
    stretched = expand(reshape(index, tuple(-1 if i == at else 1 for i in range(len(shape)))), source._data.shape)
    return named(emit(ops.scatter_add, (input, stretched, source if alpha == 1 else source * alpha), {"axis": at}), "IndexAdd")


def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Every element (along `dim`, or of the flattened tensor) `repeats` times in a row, or as often as a vector says.

    Given a vector of counts alone: the place of each count, that often.
    """
    if repeats is None:
        return wrap(np.repeat(np.arange(input.numel(), dtype=np.int64), input._array("repeat_interleave()")))
    if dim is None:
        input, dim = reshape(input, (-1,)), 0
    at = axis(dim, input.ndim)
    size = input._data.shape[at]
    if isinstance(repeats, Tensor) and repeats.numel() > 1:
        counts = repeats._array("repeat_interleave()").reshape(-1)
        if len(counts) != size:
            raise GraphcError("repeats must have the same size as input along dim", expected=str(size), got=str(len(counts)))
        if (counts < 0).any():
            raise GraphcError("repeats can not be negative")
        return index_select(input, at, wrap(np.repeat(np.arange(size, dtype=np.int64), counts)))
    times = integer(repeats, "repeats")
    if times < 0:
        raise GraphcError("Repeats must be non-negative")
    shape = tuple(input._data.shape)
    spread = reshape(input, (*shape[: at + 1], 1, *shape[at + 1 :]))
    stretched = expand(spread, (*shape[: at + 1], times, *shape[at + 1 :]))
    return reshape(stretched, (*shape[:at], size * times, *shape[at + 1 :])).clone()


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """input with `value` where the mask is True."""
    if mask.dtype is not bool_:
        raise DTypeError("masked_fill only supports boolean masks", got=mask.dtype.name)
    if isinstance(value, float) and not input.dtype.is_floating_point:
        raise GraphcError(f"value cannot be converted to type {input.dtype.name} without overflow")
    return named(cast(choose(mask, value, input), input.dtype), "MaskedFill")


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask is True, as a vector."""
    if mask.dtype is not bool_:
        raise DTypeError("masked_select: expected BoolTensor for mask", got=mask.dtype.name)
    shape = ops_broadcast([input._data.shape, mask._data.shape])
    return named(getitem(expand(input, shape), expand(mask, shape)), "MaskedSelect")


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements of the flattened tensor at the places of an index tensor, in its shape."""
    return named(getitem(reshape(input, (-1,)), _check_index("take", index)), "Take")


def index_put(input: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """input with `values` at the places that index tensors list, or added to what is there."""
    items = [slice(None) if i is None else i for i in indices]
    basic = _Basic(items, input._data.shape)
    if not basic.places:
        raise ArgumentTypeError("index_put: no index tensors among the indices")
    return named(_Advanced(input, basic.places).put(values, accumulate), "IndexPut")


def index_put_(input: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Tensor:
    """`index_put`, written into the tensor itself."""
    refuse(input)
    return assign(input, index_put(input, indices, values, accumulate))
