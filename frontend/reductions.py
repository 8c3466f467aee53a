"""Functions that make one number of many."""

from __future__ import annotations

import builtins
import math
from typing import Any

from graphc import ops
from graphc.errors import DimError, DTypeError
from graphc.frontend import return_types
from graphc.frontend.arguments import axes, emit
from graphc.frontend.arguments import axis as one_axis
from graphc.frontend.composite import composite
from graphc.frontend.creation import full
from graphc.frontend.joining import cat
from graphc.frontend.logic import isnan, ne
from graphc.frontend.movement import reshape, squeeze, unsqueeze
from graphc.frontend.pointwise import abs, cast, exp, log, maximum, minimum, sqrt, where
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import DType, bool_, float32, int64

FUNCTIONS = """
    all amax amin aminmax any argmax argmin count_nonzero logsumexp max mean min nanmean nansum prod std
    std_mean sum var var_mean
"""
METHODS = """
    all amax amin aminmax any argmax argmin count_nonzero logsumexp max mean min nanmean nansum prod std
    sum var
"""

Dims = int | tuple[int, ...] | list[int] | None


def _reduced(record: Any, input: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    out = emit(record, (input,), {"axes": dims})
    return ops.keepdims(out, input._data.shape, dims) if keepdim and dims else out


@composite
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None, axis: Dims = None) -> Tensor:
    """The sum over all dimensions, or over `dim`. Integers and bools are summed as int64."""
    if dtype is not None:
        input = cast(input, dtype)
    elif not input.dtype.is_floating_point:
        input = cast(input, int64)
    dims = axes(dim if axis is None else axis, len(input._data.shape))
    return named(_reduced(ops.sum, input, dims, keepdim), "Sum")


def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The sum of what is not nan."""
    return named(sum(where(isnan(input), 0, input), dim, keepdim, dtype=dtype), "Nansum")


def _count(input: Tensor, dims: tuple[int, ...]) -> Any:
    shape = input._data.shape
    return math.prod(shape[d] for d in dims)


def _need_floating(input: Tensor, function: str) -> None:
    if not input.dtype.is_floating_point:
        raise DTypeError(
            f"{function}(): could not infer output dtype. Input dtype must be either a floating point or complex dtype.",
            got=input.dtype.name, hint=f"x.float().{function}(), or {function}(dtype=graphc.float32)")


@composite
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None, axis: Dims = None) -> Tensor:
    """The mean over all dimensions, or over `dim`."""
    if dtype is not None:
        input = cast(input, dtype)
    _need_floating(input, "mean")
    dims = axes(dim if axis is None else axis, len(input._data.shape))
    return named(_reduced(ops.sum, input, dims, keepdim) / _count(input, dims), "Mean")


def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The mean of what is not nan."""
    count = sum(~isnan(input), dim, keepdim)
    return named(nansum(input, dim, keepdim, dtype=dtype) / count, "Nanmean")


def _moments(input: Tensor, dim: Any, unbiased: Any, correction: Any, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Variance and mean; `unbiased` may have been written in the place of `dim`."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    _need_floating(input, "var")
    dims = axes(dim, len(input._data.shape))
    count = _count(input, dims)
    centre = _reduced(ops.sum, input, dims, True) / count
    spread = input - centre
    squares = _reduced(ops.sum, spread * spread, dims, keepdim)
    left = count - correction
    # no degrees of freedom: nan of 0 / 0, inf of a positive number
    variance = squares / (left if not isinstance(left, (int, float)) or left > 0 else 0)
    if not keepdim:
        shape = tuple(s for i, s in enumerate(input._data.shape) if i not in dims)
        centre = reshape(centre, shape)
    return variance, centre


@composite
def var(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None) -> Tensor:
    """The variance: the sum of squared deviations from the mean over n - correction (1 unless given)."""
    return named(_moments(input, dim, unbiased, correction, keepdim)[0], "Var")


@composite
def std(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None) -> Tensor:
    """The standard deviation, the square root of `var`."""
    return named(sqrt(_moments(input, dim, unbiased, correction, keepdim)[0]), "Std")


def var_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: float | None = None) -> tuple[Tensor, Tensor]:
    """Variance and mean."""
    return _moments(input, dim, unbiased, correction, keepdim)


def std_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: float | None = None) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean."""
    variance, centre = _moments(input, dim, unbiased, correction, keepdim)
    return sqrt(variance), centre


def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The product over all dimensions, or over one."""
    if dtype is not None:
        input = cast(input, dtype)
    elif not input.dtype.is_floating_point:
        input = cast(input, int64)
    shape = input._data.shape
    flat = reshape(input, (-1,)) if dim is None else input
    at = 0 if dim is None else one_axis(dim, len(shape))
    if not flat._data.shape:
        return flat
    out = _halved_product(flat, at)
    if dim is not None and not keepdim:
        out = squeeze(out, at)
    elif dim is None:
        out = reshape(out, ())
    return named(out, "Prod")


def _halved_product(input: Tensor, at: int) -> Tensor:
    """The product along a dimension, which stays with size 1: halves are multiplied until one is left."""
    while (size := input._data.shape[at]) != 1:
        if size == 0:
            return sum(input, at, keepdim=True, dtype=input.dtype) + 1  # of nothing, but still in the graph
        half = size // 2
        product = input.narrow(at, 0, half) * input.narrow(at, half, half)
        input = cat((product, input.narrow(at, 2 * half, 1)), at) if size % 2 else product
    return input


def amax(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The largest element over `dim`; the gradient is shared among equals."""
    return _extreme(ops.amax, "Amax", input, axes(dim, len(input._data.shape)), keepdim)


def amin(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The least element over `dim`; the gradient is shared among equals."""
    return _extreme(ops.amin, "Amin", input, axes(dim, len(input._data.shape)), keepdim)


def _extreme(record: Any, name: str, input: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    if builtins.any(input._data.shape[d] == 0 for d in dims) or (not dims and 0 in input._data.shape):
        raise DimError(f"{name.lower()}(): Expected reduction dim to be specified for input.numel() == 0. "
                       "Specify the reduction dim with the 'dim' argument.")
    return named(_reduced(record, input, dims, keepdim), name)


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The least and the largest element."""
    dims: Dims = () if dim is None else dim
    return return_types.aminmax(amin(input, dims, keepdim), amax(input, dims, keepdim))


def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element; along `dim` with its index; or, given a second tensor, the larger of each two elements."""
    if isinstance(dim, Tensor):
        return maximum(input, dim)
    if dim is None:
        return named(_extreme(ops.amax, "Max", input, tuple(range(len(input._data.shape))), False), "Max")
    return return_types.max(*_with_index(ops.argmax, "Max", input, dim, keepdim))


def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The least element; along `dim` with its index; or, given a second tensor, the smaller of each two elements."""
    if isinstance(dim, Tensor):
        return minimum(input, dim)
    if dim is None:
        return named(_extreme(ops.amin, "Min", input, tuple(range(len(input._data.shape))), False), "Min")
    return return_types.min(*_with_index(ops.argmin, "Min", input, dim, keepdim))


def _with_index(record: Any, name: str, input: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """The element that an index op finds along a dimension, and the index."""
    at = one_axis(dim, len(input._data.shape))
    if not input._data.shape:
        index = emit(record, (reshape(input, (1,)),), {"axis": 0})
        return input.clone(), index
    index = unsqueeze(emit(record, (_ordered(input),), {"axis": at}), at)
    value = named(emit(ops.gather, (input, index), {"axis": at}), name)
    return (value, index) if keepdim else (named(squeeze(value, at), name), squeeze(index, at))


def _ordered(input: Tensor) -> Tensor:
    return cast(input, int64) if input.dtype is bool_ else input


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the largest element, the first of equals: in the flattened tensor, or along `dim`."""
    return _arg(ops.argmax, input, dim, keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the least element, the first of equals: in the flattened tensor, or along `dim`."""
    return _arg(ops.argmin, input, dim, keepdim)


def _arg(record: Any, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    shape = input._data.shape
    if dim is None or not shape:
        if dim is not None:
            one_axis(dim, 0)
        if 0 in shape:
            raise DimError(f"{record.name}(): Expected reduction dim to be specified for input.numel() == 0.")
        out = emit(record, (_ordered(reshape(input, (-1,))),), {"axis": 0})
        return reshape(out, (1,) * len(shape)) if keepdim else out
    at = one_axis(dim, len(shape))
    if shape[at] == 0:
        raise DimError(f"{record.name}(): Expected reduction dim {at} to have non-zero size.")
    out = emit(record, (_ordered(input),), {"axis": at})
    return unsqueeze(out, at) if keepdim else out


def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are nonzero."""
    return _logical(ops.amin, input, dim, keepdim, True)


def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether any element is nonzero."""
    return _logical(ops.amax, input, dim, keepdim, False)


def _logical(record: Any, input: Tensor, dim: Dims, keepdim: bool, empty: bool) -> Tensor:
    truth = input if input.dtype is bool_ else ne(input, 0)
    shape = truth._data.shape
    dims = axes(dim, len(shape))
    if builtins.any(shape[d] == 0 for d in dims):
        left = tuple(1 if i in dims else s for i, s in enumerate(shape) if keepdim or i not in dims)
        return full(left, empty)
    return _reduced(record, truth, dims, keepdim)


def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """How many elements are not zero."""
    return sum(ne(input, 0), dim)


@composite
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over `dim`, without overflow."""
    if not input.dtype.is_floating_point:
        input = cast(input, float32)
    dims = axes(dim, len(input._data.shape))
    top = _reduced(ops.amax, input.detach(), dims, True)
    top = where(abs(top) == math.inf, 0.0, top)
    out = log(_reduced(ops.sum, exp(input - top), dims, True)) + top
    if not keepdim:
        out = reshape(out, tuple(s for i, s in enumerate(input._data.shape) if i not in dims))
    return named(out, "Logsumexp")
