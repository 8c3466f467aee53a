"""`x[...]` and `x[...] = value`: integers, slices, masks and index tensors, as NumPy and PyTorch understand them."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.dims import Dim
from graphc.errors import ArgumentError, ArgumentTypeError, DimError, DTypeError, ShapeError
from graphc.frontend import large_arrays
from graphc.frontend.arguments import emit, integer
from graphc.frontend.composite import composite
from graphc.frontend.device_arrays import is_on_device
from graphc.frontend.dispatch import quiet
from graphc.frontend.eager import Subscripts
from graphc.frontend.from_data import as_tensor
from graphc.frontend.inplace import assign, bump, refuse, unwatched
from graphc.frontend.modes import mode
from graphc.frontend.movement import expand, reshape
from graphc.frontend.pointwise import cast
from graphc.frontend.pointwise import where as choose
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import _state as trace_state
from graphc.frontend.tracer import active
from graphc.frontend.viewing import Viewing, indexed
from graphc.op import OpDef
from graphc.types import TensorType, bool_, broadcast_shapes, int32, int64, uint8

_NESTED = (list, tuple, slice, Tensor, np.ndarray, type(None), type(Ellipsis))


def _items(index: Any) -> list[Any]:
    """The index of each dimension. A list that holds more than numbers stands for a tuple, as in old NumPy."""
    several = isinstance(index, tuple) or (isinstance(index, list) and any(isinstance(i, _NESTED) for i in index))
    return [_item(i) for i in (index if several else [index])]


def _item(item: Any) -> Any:
    """Lists and arrays as tensors; a 0-d array of integers is a number."""
    if isinstance(item, (list, range)):
        return as_tensor(list(item), dtype=None if len(item) else int64)
    if isinstance(item, np.ndarray) and not (item.ndim == 0 and item.dtype.kind in "iu"):
        return as_tensor(item)
    return item


def _end(given: Any, what: str) -> int:
    """A number of a slice; a bool is one, as in Python."""
    return int(given) if isinstance(given, bool) else integer(given, what)


def _within(given: Any, missing: Any, size: Any) -> Any:
    """An end of a slice, counted from the start, within a symbolic size."""
    if given is None:
        return missing
    place = integer(given, "slice")
    return max(0, place + size) if place < 0 else min(place, size)


def _is_mask(item: Any) -> bool:
    return isinstance(item, bool) or (isinstance(item, Tensor) and item.dtype in (bool_, uint8))


def _is_places(item: Any) -> bool:
    return isinstance(item, Tensor) and not _is_mask(item) and (item.ndim > 0 or active() is not None)


class Basic:
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
        self.starts: list[Any] = []
        self.stops: list[Any] = []
        self.steps: list[int] = []
        self.shape: list[Any] = []
        self.places: list[tuple[int, Tensor]] = []
        self.trivial = True
        self._input = shape
        rest = len(shape) - used
        for item in items if any(i is Ellipsis for i in items) else [*items, Ellipsis]:
            self._add(item, rest)
            if item is Ellipsis:
                rest = 0  # further ones stand for no dimension

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
        step = 1 if item.step is None else _end(item.step, "slice step")
        if step <= 0:
            raise ArgumentError("step must be greater than zero", hint="flip() turns a tensor round")
        if not isinstance(size, int) or isinstance(item.start, Dim) or isinstance(item.stop, Dim):
            start, stop = _within(item.start, 0, size), _within(item.stop, size, size)
            stop = max(start, stop)
        else:
            start, stop, step = slice(None if item.start is None else _end(item.start, "slice start"),
                                      None if item.stop is None else _end(item.stop, "slice stop"), step).indices(size)
            stop = max(start, stop)
        # whether a symbol happens to be a number need not be asked: then the slice is the whole without being known to be
        if not (type(start) is int and start == 0 and type(stop) is type(size) and stop == size and step == 1):
            self.trivial = False
        self.starts.append(start)
        self.stops.append(stop)
        self.steps.append(step)
        self.shape.append(-(-(stop - start) // step))

    def _number(self, item: Any, at: int) -> None:
        if isinstance(item, Tensor) and item.dtype.kind not in ("int", "uint"):
            raise DimError("tensors used as indices must be long, int, byte or bool tensors", got=item.dtype.name)
        if isinstance(item, (str, bytes)):
            raise ArgumentTypeError(f"a tensor has no element {item!r}", expected="an index of numbers, slices and tensors")
        if isinstance(item, float) or not (isinstance(item, int) or hasattr(item, "__index__")):
            raise DimError("only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid indices "
                           f"(got {type(item).__name__})")
        place, size = integer(item, "index"), self._input[at]
        if not -size <= place < size:
            raise DimError(f"index {place} is out of bounds for dimension {at} with size {size}")
        place = place + size if place < 0 else place
        self.trivial = False
        self.starts.append(place)
        self.stops.append(place + 1)
        self.steps.append(1)

    def ops(self) -> list[tuple[OpDef, dict[str, Any]]]:
        """The ops that choose the part that integers and slices say."""
        steps: list[tuple[OpDef, dict[str, Any]]] = []
        between = self._input
        if not self.trivial:
            bounds = {"starts": tuple(self.starts), "stops": tuple(self.stops), "steps": tuple(self.steps)}
            steps.append((ops.slice, bounds))
            between = ops.slice.infer(TensorType(bool_, between), **bounds).shape
        if self.trivial or tuple(self.shape) != tuple(between):
            steps.append((ops.reshape, {"shape": tuple(self.shape)}))
        return steps

    def view(self, input: Tensor) -> Tensor:
        """That part of the tensor, as a view."""
        out = input
        for record, attrs in self.ops():
            name = "Slice" if record is ops.slice else (
                "Select" if len(self.shape) < len(self._input) else "Slice" if out is not input else "Alias")
            out = named(emit(record, (out,), attrs), name)
        return out


def getitem(self: Tensor, index: Any) -> Tensor:
    """`self[index]`: a view for integers, slices, None and Ellipsis; a copy for masks, lists and index tensors."""
    if _is_plain(self):
        found = plain_view(self, index) if _is_basic(index) else _plain_copy(self, index)
        if found is not None:
            return found
    elif type(self._data) is np.ndarray:
        chosen = _plain_part(self, index if type(index) is tuple else (index,))
        if chosen is not None:
            return chosen
        if isinstance(index, Tensor) and trace_state.tracer is None and _is_whole_mask(index, self):
            places = wrap(np.flatnonzero(index._data))
            return named(emit(ops.gather, (reshape(self, (-1,)), places), {"axis": 0}), "Index")
    together = index if type(index) is tuple else (index,)
    if 0 < len(together) <= len(self._data.shape) and all(map(_lists_places, together)):
        return _picked(self, tuple(range(len(together))), *together)
    basic = Basic(_items(index), self._data.shape)
    part = basic.view(self) if not (basic.places and basic.trivial and len(basic.shape) == self.ndim) else self
    if not basic.places:
        return part
    if all(_lists_places(item) for _, item in basic.places):
        return _picked(part, tuple(at for at, _ in basic.places), *(item for _, item in basic.places))
    return named(Advanced(part, basic.places).get(), "Index")


def _is_whole_mask(index: Tensor, of: Tensor) -> bool:
    """Whether an index is a mask, whose numbers are known, of all elements of a tensor of one dimension or more."""
    mask = index._data
    return type(mask) is np.ndarray and mask.dtype.kind == "b" and mask.ndim > 0 and mask.shape == of._data.shape


def _lists_places(item: Any) -> bool:
    return isinstance(item, Tensor) and type(item._data) is np.ndarray and item._data.dtype.kind == "i" and item._data.ndim > 0


@composite(large=False)
def _picked(input: Tensor, dims: tuple[int, ...], *indices: Tensor) -> Tensor:
    """The elements at the places that tensors of integers list in some dimensions."""
    return named(Advanced(input, list(zip(dims, indices))).get(), "Index")


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """`self[index] = value`, in place; the value is stretched to the shape of the place."""
    refuse(self)
    if _is_plain(self) and _written_plainly(self, index, value):
        return
    basic = Basic(_items(index), self._data.shape)
    new = value if isinstance(value, Tensor) else as_tensor(value, dtype=self.dtype)
    if is_on_device(self._data) and new.ndim == 0:
        new = new.to(self.device)
    part = basic.view(self)
    refuse(part)
    if not basic.places:
        assign(part, _fitted(new, part._data.shape))
        return
    if new.numel() == 1 and len(basic.places) == 1 and _is_mask(basic.places[0][1]):
        new = cast(new, self.dtype)  # PyTorch fills by a mask, with a number of any dtype
    assign(part, put(part, basic.places, new, accumulate=False))


# Where autograd and traces have no interest, NumPy does it. What it refuses is gone through again for PyTorch's errors.


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor._data) is np.ndarray and active() is None and not mode.inference
        and (not mode.grad or tensor._meta is None or unwatched(tensor)) and tensor._node is None
    )  # fmt: skip


def _is_basic(index: Any) -> bool:
    """Whether an index consists of ints, slices forwards, None and Ellipsis."""
    kind = type(index)
    if kind is int or index is None or index is Ellipsis:
        return True
    if kind is slice:
        start, stop, step = index.start, index.stop, index.step
        return ((start is None or type(start) is int) and (stop is None or type(stop) is int)
                and (step is None or (type(step) is int and step > 0)))
    return kind is tuple and all(type(item) is not tuple and _is_basic(item) for item in index)


def plain_view(self: Tensor, index: Any) -> Tensor | None:
    """The view that numbers, slices, None and Ellipsis choose of a tensor with an array, outside traces, with no history of its
    own; None where there is none."""
    data = self._data
    try:
        # with an Ellipsis it is a view in any case, and not a number
        if type(index) is not tuple:
            part = data[index, ...] if index is not Ellipsis else data[...]
        else:
            part = data[(*index, ...)] if Ellipsis not in index else data[index]
    except IndexError:
        return None
    return indexed.make(self, part, functools.partial(_steps, index, data.shape))


def _plain_part(self: Tensor, index: tuple[Any, ...]) -> Tensor | None:
    """The view that numbers and slices choose, in as many steps as there are dimensions to be cut or dropped; None for others,
    and for what is wrong or nothing at all."""
    shape = self._data.shape
    if len(index) > len(shape):
        return None
    bounds: list[tuple[int, int, int]] = []
    for item, size in zip(index, shape):
        if type(item) is slice:
            if not _is_basic(item):
                return None
            start, stop, step = item.indices(size)
            bounds.append((start, max(start, stop), step))
        elif type(item) is int and -size <= item < size:
            bounds.append((item % size, item % size + 1, 1))
        else:
            return None
    if all(start == 0 and stop == size and step == 1 and type(item) is slice
           for (start, stop, step), size, item in zip(bounds, shape, index)):
        return None
    starts, stops, steps = zip(*bounds)
    rest = len(shape) - len(index)
    numbers = int in map(type, index)
    attrs = {"starts": starts + (0,) * rest, "stops": stops + shape[len(index) :], "steps": steps + (1,) * rest}
    cut = (_cut if not numbers else _cut_for_select)(self, attrs)
    if not numbers:
        return cut
    sizes = cut._data.shape
    return _dropped(cut, {"shape": tuple([n for n, item in zip(sizes, index) if type(item) is slice]) + sizes[len(index) :]})


_cut, _cut_for_select, _dropped = Viewing(ops.slice, "Slice"), Viewing(ops.slice, "Select"), Viewing(ops.reshape, "Select")
_aliased = Viewing(ops.reshape, "Alias")


def _steps(index: Any, shape: tuple[int, ...]) -> list[tuple[OpDef, dict[str, Any]]]:
    return Basic(_items(index), shape).ops()


NATIVE = Subscripts(getitem, indexed, _cut, _cut_for_select, _dropped, _aliased, _steps)
"""What native code makes parts of tensors with."""


def _plain_copy(self: Tensor, index: Any) -> Tensor | None:
    """The elements that one mask, or one tensor or list of numbers, chooses in one dimension."""
    at = 0
    if type(index) is tuple:
        chosen = [i for i, item in enumerate(index) if not (type(item) is slice and item == slice(None))]
        if len(chosen) != 1:
            return None
        (at,) = chosen
        index = index[at]
    if type(index) is list and index and all(type(item) is int for item in index):
        places = np.array(index)
    elif isinstance(index, Tensor) and type(index._data) is np.ndarray:
        places = index._data
        if places.dtype.kind == "b" and at == 0 and places.ndim:
            try:
                return wrap(self._data[places])
            except IndexError:
                return None
        if places.dtype.kind != "i" or not places.ndim:
            return None
    else:
        return None
    try:
        return wrap(self._data.take(places, at))
    except (IndexError, ValueError):
        return None


def _written_at_once(data: np.ndarray, index: Any, new: Any) -> bool:
    """Copy a large array to a part that it need not be stretched to, if there is code for that."""
    if type(new) is not np.ndarray or new.size < large_arrays.LARGE or type(index) is np.ndarray:
        return False
    part = data[index]
    return part.shape == new.shape and large_arrays.copied_over(part, new)


def _written_plainly(self: Tensor, index: Any, value: Any) -> bool:
    """Assign, and say so; nothing has happened if not."""
    data = self._data
    if not data.flags.writeable:
        return False
    if isinstance(index, Tensor) and index._data.dtype == np.bool_ and index._data.ndim:
        index = index._data
        if type(index) is not np.ndarray or type(value) is Tensor:
            return False
    elif not _is_basic(index):
        return False
    if isinstance(value, Tensor):
        if not _is_plain(value) or value._data.dtype != data.dtype:
            return False
        new = value._data
    elif (type(value) is float and data.dtype.kind == "f") or (type(value) in (int, bool) and data.dtype.kind in "fi"):
        new = value
    else:
        return False
    try:
        if not _written_at_once(data, index, new):
            quiet.run(operator.setitem, data, index, new)
    except (IndexError, ValueError, OverflowError):
        return False
    bump(self)
    return True


def put(input: Tensor, places: Sequence[tuple[int, Tensor]], new: Tensor, accumulate: bool) -> Tensor:
    """The input with `new` at the places, pairs of a dimension and an index tensor, or added to what is there."""
    if new.dtype is not input.dtype:
        raise DTypeError(f"Index put requires the source and destination dtypes match, got {input.dtype.name} for the "
                         f"destination and {new.dtype.name} for the source.", hint="convert the value with .to(dtype)")
    if len(places) == 1 and _is_mask(places[0][1]) and places[0][1].ndim:
        written = _put_by_mask(input, *places[0], new, accumulate)
        if written is not None:
            return written
    if all(_lists_places(item) for _, item in places):
        return _put_at(input, new, accumulate, tuple(at for at, _ in places), *(item for _, item in places))
    return Advanced(input, places).put(new, accumulate)


@composite(large=False)
def _put_at(input: Tensor, new: Tensor, accumulate: bool, dims: tuple[int, ...], *indices: Tensor) -> Tensor:
    """The input with `new` at the places that tensors of integers list in some dimensions, or added to what is there."""
    return named(Advanced(input, list(zip(dims, indices))).put(new, accumulate), "IndexPut")


def _put_by_mask(input: Tensor, at: int, mask: Tensor, new: Tensor, accumulate: bool) -> Tensor | None:
    """What is put without a list of the places, which a trace could not have; None where such a list is better."""
    Advanced._check_mask(mask, input, at)
    if is_on_device(input._data):
        mask = mask.to(input.device)
    lead, tail = tuple(input._data.shape[:at]), tuple(input._data.shape[at + mask.ndim :])
    own = tuple(new._data.shape)
    own = (*(1,) * (len(lead) + 1 + len(tail) - len(own)), *own)
    count = own[at] if len(own) == len(lead) + 1 + len(tail) else 0
    if count != 1 and (active() is None or count == 0):
        return None
    new = reshape(new, own)
    if count != 1:
        chosen = cast(reshape(mask, (-1,)), int64)
        # what is read where nothing is chosen is in range if just as many are chosen as there are values: else it is an error
        other = choose(emit(ops.sum, (chosen,), {"axes": (0,)}) == count, 0, count)
        rank = choose(chosen == 1, emit(ops.cumsum, (chosen,), {"axis": 0}) - 1, other)
        new = expand(new, (*lead, count, *tail))
        index = expand(reshape(rank, (-1, *(1,) * len(tail))), (*lead, rank._data.shape[0], *tail))
        new = reshape(emit(ops.gather, (new, index), {"axis": at}), input._data.shape)
    else:
        new = reshape(new, (*own[:at], *(1,) * mask.ndim, *own[at + 1 :]))
    over = reshape(cast(mask, bool_), (*(1,) * at, *mask._data.shape, *(1,) * len(tail)))
    new = expand(new, input._data.shape)
    return choose(over, input + new if accumulate else new, input)


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


class Advanced:
    """Index tensors applied to dimensions of a tensor: those dimensions become one, which is read by a flat index."""

    def __init__(self, input: Tensor, places: Sequence[tuple[int, Tensor]]) -> None:
        dims: list[int] = []
        indices: list[Tensor] = []
        for at, item in places:
            if _is_mask(item):
                self._check_mask(item, input, at)
                found = nonzero_places(item) if item.ndim else (wrap(np.zeros(int(bool(item)), np.int64)),)
                dims += range(at, at + len(found))
                indices += found
            else:
                if item.dtype not in (int32, int64):
                    raise DimError("tensors used as indices must be long, int, byte or bool tensors", got=item.dtype.name)
                dims.append(at)
                indices.append(cast(item, int64))
        if is_on_device(input._data):  # indices may lie on the CPU
            indices = [index.to(input.device) for index in indices]
        self.input = input
        self.dims = dims
        shape = broadcast_indices([i._data.shape for i in indices])
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
        return self._unflat(emit(ops.scatter_update, (flat, index, new), {"axis": at}))


def nonzero_places(input: Tensor) -> tuple[Tensor, ...]:
    """The places of the elements that are not zero, a vector a dimension."""
    places = tuple(map(wrap, _nonzero(input._array("nonzero()").reshape(input._data.shape or (1,)))))
    return tuple(place.to(input.device) for place in places) if is_on_device(input._data) else places


_MANY = 1 << 12
"""From how many elements on places are found sooner in one dimension, of booleans, than as np.nonzero does it."""


def _nonzero(array: np.ndarray) -> list[np.ndarray]:
    if array.size < _MANY:
        return [part.astype(np.int64, copy=False) for part in np.nonzero(array)]
    left = np.flatnonzero(array if array.dtype.kind == "b" else array != 0).astype(np.int64, copy=False)
    found = []
    for size in reversed(array.shape[1:]):
        above = left // size
        left -= above * size
        found.append(left)
        left = above
    return [left, *reversed(found)]


def broadcast_indices(shapes: Sequence[Any]) -> tuple[Any, ...]:
    """The shape that index tensors stretch to; DimError where they do not fit."""
    try:
        return broadcast_shapes(*map(tuple, shapes))
    except ShapeError:
        raise DimError("shape mismatch: indexing tensors could not be broadcast together with shapes "
                       f"{', '.join(str(list(s)) for s in shapes)}") from None
