"""Tables of vectors that integers look up."""

from __future__ import annotations

from typing import Any

from graphc import ops
from graphc.errors import DimError, DTypeError, GraphcError
from graphc.frontend.arguments import emit
from graphc.frontend.creation import ones_like, zeros
from graphc.frontend.inplace import assign
from graphc.frontend.modes import no_grad
from graphc.frontend.movement import expand, reshape, unsqueeze
from graphc.frontend.pointwise import cast, clamp_min, where
from graphc.frontend.reductions import norm
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import float32, int64


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """The rows of `weight` that the integers of `input` name. The row `padding_idx` gets no gradient."""
    if input.dtype.is_floating_point:
        raise DTypeError("embedding: Expected tensor for argument #1 'indices' to have one of the following scalar types: "
                         "Long, Int", got=input.dtype.name)
    rows, width = weight._data.shape
    flat = reshape(cast(input, int64), (-1, 1))
    _check_rows(flat, rows)
    if max_norm is not None:
        _clip_rows(weight, flat, max_norm, norm_type)
    if scale_grad_by_freq:
        # how often each row is used: its gradient is divided by that
        counts = emit(ops.scatter_add, (zeros(rows, 1, dtype=weight.dtype), flat, ones_like(flat, dtype=weight.dtype)),
                      {"axis": 0})
        share = clamp_min(counts, 1)
        weight = weight / share + (weight.detach() - weight.detach() / share)  # the value of the one, the slope of the other
    if padding_idx is not None:
        padding_idx = padding_idx + rows if padding_idx < 0 else padding_idx
        row = ops.iota(shape=(rows, 1), axis=0, dtype=int64, like=Tensor)
        weight = where(row == padding_idx, weight.detach(), weight)
    index = expand(flat, (flat._data.shape[0], width))
    out = emit(ops.gather, (weight, index), {"axis": 0})
    return named(reshape(out, (*input._data.shape, width)), "Embedding")


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


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Each integer as a vector of zeros with a one at its place, int64."""
    if tensor.dtype is not int64:
        raise DTypeError("one_hot is only applicable to index tensor of type LongTensor.", got=tensor.dtype.name)
    if num_classes == -1:
        num_classes = int(tensor.max().item()) + 1
    shape = (*tensor._data.shape, num_classes)
    array = tensor._known()
    if array is not None:
        if array.min() < 0:
            raise GraphcError("Class values must be non-negative.")
        if array.max() >= num_classes:
            raise GraphcError("Class values must be smaller than num_classes.")
    place = ops.iota(shape=shape, axis=len(shape) - 1, dtype=int64, like=Tensor)
    return cast(place == unsqueeze(tensor, -1), int64)
