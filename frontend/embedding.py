"""Tables of vectors that integers look up."""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, DimError, DTypeError, GraphcError
from graphc.frontend.arguments import emit
from graphc.frontend.composite import composite
from graphc.frontend.creation import zeros
from graphc.frontend.creation_like import ones_like
from graphc.frontend.inplace import assign
from graphc.frontend.linalg_norms import norm
from graphc.frontend.modes import no_grad
from graphc.frontend.movement import expand, part, reshape, unsqueeze
from graphc.frontend.pointwise import cast, clamp_min, minimum, where
from graphc.frontend.reductions import max, sum
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import float32, int32, int64


@composite(large=False)
def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """The rows of `weight` [rows, width] that the integers of `input` name. The row `padding_idx` gets no gradient.

    Rows that are used and longer than `max_norm` are scaled down in place first. `scale_grad_by_freq` divides the gradient
    of a row by how often it is used. Gradients are dense: `sparse` is accepted and changes nothing.

    DTypeError for indices other than int32 and int64, DimError for those outside the table, GraphcError where the weight is no
    matrix, ArgumentError for a `padding_idx` outside it.

    >>> F.embedding(graphc.tensor([1, 0]), graphc.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[3., 4.],
            [1., 2.]])
    """
    rows, width = _table(weight)
    flat = _places("embedding", input, rows)
    padding_idx = _padding("embedding", padding_idx, rows)
    if max_norm is not None:
        _clip_rows(weight, flat, max_norm, norm_type)
    if scale_grad_by_freq:
        weight = _shared_slope(weight, flat)
    if padding_idx is not None:
        row = ops.iota(shape=(rows, 1), axis=0, dtype=int64, like=Tensor)
        weight = where(row == padding_idx, weight.detach(), weight)
    return named(reshape(_rows(weight, flat), (*input._data.shape, width)), "Embedding")


def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
                  norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Tensor:
    """The sum, mean or largest elements of the rows of `weight` that each bag of integers names: [bags, width].

    A bag is a row of an `input` [bags, n]; or, of an `input` [n], what lies between one of `offsets` and the next (the last
    offset is the end of the last bag with `include_last_offset`). Entries equal to `padding_idx` do not count; an empty
    bag gives zeros. `per_sample_weights` multiplies the rows before they are summed.

    DTypeError for indices other than int32 and int64, DimError for those outside the table, GraphcError for offsets that do not
    begin at 0 or end after the input, ArgumentError for another mode, for offsets with an input of two dimensions, and for none
    with one of one.

    >>> F.embedding_bag(graphc.tensor([[0, 1]]), graphc.tensor([[1.0, 2.0], [3.0, 4.0]]), mode="sum")
    tensor([[4., 6.]])
    """
    if weight.dtype is int64 and input.dtype.is_floating_point:
        warnings.warn("Argument order of nn.functional.embedding_bag was changed. Usage `embedding_bag(weight, input, ...)` is "
                      "deprecated, and should now be `embedding_bag(input, weight, ...)`.", stacklevel=2)
        input, weight = weight, input
    rows, width = _table(weight)
    if mode not in ("sum", "mean", "max"):
        raise ArgumentError("mode has to be one of sum, mean or max", got=repr(mode))
    padding_idx = _padding("embedding_bag", padding_idx, rows)
    if per_sample_weights is not None:
        _check_sample_weights(per_sample_weights, input, weight, mode)
    if input.dim() == 2:
        if offsets is not None:
            raise ArgumentError("if input is 2D, then offsets has to be None, as input is treated is a mini-batch of fixed "
                                "length sequences. However, found offsets of type Tensor")
        bags, most = input._data.shape
        starts = None
    elif input.dim() == 1:
        starts = _starts(offsets, input, include_last_offset)
        bags, most = starts._data.shape[0], input._data.shape[0]
    else:
        raise ArgumentError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.dim()}")
    flat = _places("embedding_bag", input, rows)
    if max_norm is not None:
        _clip_rows(weight, flat, max_norm, norm_type)
    if scale_grad_by_freq:
        weight = _shared_slope(weight, flat)
    count = flat._data.shape[0]
    if count == 0 or bags == 0:
        # an empty sum, for its gradient of zeros
        return expand(sum(weight * 0.0, 0, keepdim=True), (bags, width)) if bags else zeros(0, width, dtype=weight.dtype)
    counts = None if padding_idx is None else flat != padding_idx
    if mode == "max":
        return _bag_maxima(weight, flat, counts, starts, (bags, most))
    bag = None if starts is None else _bag_of(starts, count)
    picked = _rows(weight, flat)
    if per_sample_weights is not None:
        picked = picked * reshape(per_sample_weights, (-1, 1))
    if counts is not None:
        picked = where(counts, picked, 0.0)
    total = _bag_sums(picked, bag, bags)
    if mode == "mean":
        ones = ones_like(flat, dtype=weight.dtype) if counts is None else cast(counts, weight.dtype)
        total = total / clamp_min(_bag_sums(ones, bag, bags), 1)
    return named(total, "EmbeddingBag")


def _table(weight: Tensor) -> tuple[Any, Any]:
    if weight.dim() != 2:
        raise GraphcError("'weight' must be 2-D", got=f"{weight.dtype.name}{list(weight.shape)}")
    return weight._data.shape


def _places(function: str, input: Tensor, rows: Any) -> Tensor:
    """The rows that are looked up, as a column."""
    if input.dtype is not int64 and input.dtype is not int32:
        raise DTypeError(f"{function}: Expected tensor for argument #1 'indices' to have one of the following scalar types: "
                         "Long, Int", got=input.dtype.name)
    flat = reshape(cast(input, int64), (-1, 1))
    _check_rows(flat, rows)
    return flat


def _padding(function: str, padding_idx: int | None, rows: Any) -> int | None:
    if padding_idx is None:
        return None
    if isinstance(rows, int) and not -rows <= padding_idx < rows:
        raise ArgumentError(f"{function}: padding_idx must be within the number of embeddings",
                            expected=f"-{rows} <= padding_idx < {rows}", got=str(padding_idx))
    return padding_idx + rows if padding_idx < 0 else padding_idx


def _rows(weight: Tensor, flat: Tensor) -> Tensor:
    return emit(ops.gather, (weight, expand(flat, (flat._data.shape[0], weight._data.shape[1]))), {"axis": 0})


def _shared_slope(weight: Tensor, flat: Tensor) -> Tensor:
    """The weight itself, but the gradient of a row is divided by how often the row is used."""
    counts = emit(ops.scatter_add, (zeros(weight._data.shape[0], 1, dtype=weight.dtype), flat,
                                    ones_like(flat, dtype=weight.dtype)), {"axis": 0})
    share = clamp_min(counts, 1)
    return weight / share + (weight.detach() - weight.detach() / share)


def _clip_rows(weight: Tensor, index: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale down in place the rows that are used and longer than max_norm."""
    with no_grad():
        used = emit(ops.scatter_add, (zeros(weight._data.shape[0], 1), index, ones_like(index, dtype=float32)), {"axis": 0})
        length = norm(weight, norm_type, 1, keepdim=True)
        assign(weight, where((used > 0) & (length > max_norm), weight * (max_norm / (length + 1e-7)), weight))


def _check_rows(index: Tensor, rows: Any) -> None:
    array = index._known()
    if array is not None and (array.min() < 0 or array.max() >= rows):
        raise DimError("index out of range in self", expected=f"0 <= index < {rows}",
                       got=str(array.min() if array.min() < 0 else array.max()))


def _check_sample_weights(weights: Tensor, input: Tensor, table: Tensor, mode: str) -> None:
    if mode != "sum":
        raise GraphcError("embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' "
                          f"(got mode='{mode}').")
    if weights._data.shape != input._data.shape:
        raise ArgumentError(f"embedding_bag: If per_sample_weights ({list(weights.shape)}) is not None, then it must have the "
                            f"same shape as the input ({list(input.shape)})")
    if weights.dtype is not table.dtype:
        raise DTypeError("embedding_bag: expected 'weight' and 'per_sample_weights' to have the same scalar type",
                         expected=table.dtype.name, got=weights.dtype.name)


def _starts(offsets: Tensor | None, input: Tensor, include_last: bool) -> Tensor:
    """Where each bag begins."""
    if offsets is None:
        raise ArgumentError("offsets has to be a 1D Tensor but got None", hint="or give an input of two dimensions")
    if offsets.dim() != 1:
        raise ArgumentError("offsets has to be a 1D Tensor", got=str(list(offsets.shape)))
    offsets = cast(offsets, int64)
    array = offsets._known()
    if array is not None and array[0] != 0:
        raise GraphcError("offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from position 0. "
                          f"However, got {array[0]}")
    if array is not None and array[-1] > input._data.shape[0]:
        raise GraphcError(f"offsets[-1] can not be greater than input's length({input._data.shape[0]}) but got offsets[-1] of "
                          f"{array[-1]}")
    if not include_last:
        return offsets
    if offsets._data.shape[0] < 1:
        raise GraphcError("include_last_offset: number of offset should be at least 1")
    return part(offsets, 0, 0, offsets._data.shape[0] - 1)


def _bag_of(starts: Tensor, count: Any) -> Tensor:
    """For each of `count` places the last bag that begins at it or before it, a column, by binary search."""
    bags = starts._data.shape[0]
    place = ops.iota(shape=(count,), axis=0, dtype=int64, like=Tensor)
    bag = zeros(count, dtype=int64)
    step = 1 << (int(bags).bit_length() - 1)
    while step:
        further = bag + step
        start = emit(ops.gather, (starts, minimum(further, zeros(1, dtype=int64) + (bags - 1))), {"axis": 0})
        bag = where((further < bags) & (start <= place), further, bag)
        step >>= 1
    return reshape(bag, (count, 1))


def _bag_sums(rows: Tensor, bag: Tensor | None, bags: Any) -> Tensor:
    """The sums of the rows of each bag, for bags of equal size (`bag` is None) or by each row's bag."""
    count, width = rows._data.shape
    if bag is None:
        return sum(reshape(rows, (bags, count // bags, width)), 1)
    return emit(ops.scatter_add, (zeros(bags, width, dtype=rows.dtype), expand(bag, (count, width)), rows), {"axis": 0})


def _bag_maxima(weight: Tensor, flat: Tensor, counts: Tensor | None, starts: Tensor | None, shape: tuple[Any, Any]) -> Tensor:
    """The largest element of each column in each bag; bags are padded to the length of the longest."""
    if starts is None:
        inside = None if counts is None else reshape(counts, shape)
    else:
        flat, inside, shape = _padded(flat, counts, starts)
        if shape[1] == 0:
            return expand(sum(weight * 0.0, 0, keepdim=True), (shape[0], weight._data.shape[1]))
    picked = reshape(_rows(weight, flat), (*shape, weight._data.shape[1]))
    if inside is None:
        return named(max(picked, 1).values, "EmbeddingBag")
    largest = max(where(unsqueeze(inside, 2), picked, -math.inf), 1).values
    return named(where(largest == -math.inf, 0.0, largest), "EmbeddingBag")


def _padded(flat: Tensor, counts: Tensor | None, starts: Tensor) -> tuple[Tensor, Tensor, tuple[Any, Any]]:
    """Bags that follow each other as the rows of a matrix, as a column; which of its places count; its shape."""
    bags, most = starts._data.shape[0], flat._data.shape[0]
    ends = _ends(starts, most)
    first, last = starts._known(), ends._known()
    if first is not None and last is not None:
        most = int((last - first).max())
    shape = bags, most
    place = unsqueeze(starts, 1) + ops.iota(shape=shape, axis=1, dtype=int64, like=Tensor)
    inside = place < unsqueeze(ends, 1)
    place = reshape(where(inside, place, 0), (-1, 1))
    if counts is not None:
        inside = inside & reshape(emit(ops.gather, (counts, place), {"axis": 0}), shape)
    return emit(ops.gather, (flat, place), {"axis": 0}), inside, shape


def _ends(starts: Tensor, count: Any) -> Tensor:
    """Where each bag ends: where the next one begins."""
    bags = starts._data.shape[0]
    after = ops.iota(shape=(bags,), axis=0, dtype=int64, like=Tensor) + 1
    following = emit(ops.gather, (starts, where(after < bags, after, 0)), {"axis": 0})
    return where(after < bags, following, count)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Each integer as a vector of zeros with a one at its place, int64: [...] gives [..., num_classes]; -1 is one more than
    the largest.

    DTypeError for other dtypes than int64, GraphcError for negative numbers, and for those beyond `num_classes`.

    >>> F.one_hot(graphc.tensor([0, 2]), num_classes=3)
    tensor([[1, 0, 0],
            [0, 0, 1]])
    """
    if tensor.dtype is not int64:
        raise DTypeError("one_hot is only applicable to index tensor of type LongTensor.", got=tensor.dtype.name)
    array = tensor._known()
    if array is not None and array.size and array.min() < 0:
        raise GraphcError("Class values must be non-negative.", got=str(array.min()))
    if num_classes == -1:
        if tensor.numel() == 0:
            raise GraphcError("Can not infer total number of classes from empty tensor.", hint="pass num_classes")
        num_classes = int(tensor.max().item()) + 1
    if num_classes < 1 and tensor.numel() > 0:
        raise GraphcError("num_classes should be positive", got=str(num_classes))
    if array is not None and array.size and array.max() >= num_classes:
        raise GraphcError("Class values must be smaller than num_classes.",
                          expected=f"0 <= class < {num_classes}", got=str(array.max()))
    if array is None:  # a trace: the numbers are checked when its graph runs
        tensor = emit(ops.in_range, (tensor,), {"size": num_classes, "axis": len(tensor._data.shape), "name": "one_hot"})
    shape = (*tensor._data.shape, num_classes)
    place = ops.iota(shape=shape, axis=len(shape) - 1, dtype=int64, like=Tensor)
    return cast(place == unsqueeze(tensor, -1), int64)
