"""Functions that make one number of many."""

from __future__ import annotations

import builtins
import math
from typing import Any

from graphc import ops
from graphc.errors import ArgumentTypeError, DimError, DTypeError, ShapeError
from graphc.frontend import return_types
from graphc.frontend.arguments import axes, emit, sizes
from graphc.frontend.arguments import axis as one_axis
from graphc.frontend.arithmetic import square
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.creation import full
from graphc.frontend.logic import isnan, ne
from graphc.frontend.movement import reshape, squeeze, unsqueeze
from graphc.frontend.pointwise import abs, cast, exp, log, maximum, minimum, sqrt, where
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import DType, bool_, float32, int64, uint8

FUNCTIONS = """
    all amax amin aminmax any argmax argmin count_nonzero logsumexp max mean min nanmean nansum prod std
    std_mean sum var var_mean
"""
METHODS = """
    all amax amin aminmax any argmax argmin count_nonzero logsumexp max mean min nanmean nansum prod std
    sum sum_to_size var
"""

Dims = int | tuple[int, ...] | list[int] | None


def _reduced(record: Any, input: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    out = emit(record, (input,), {"axes": dims})
    return ops.keepdims(out, input._data.shape, dims) if keepdim and dims else out


@composite
def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None, axis: Dims = None) -> Tensor:
    """The sum over all dimensions, or over `dim`, one or several. Integers and bools are summed as int64.

    DimError for a dimension that there is not.

    >>> x = graphc.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> graphc.sum(x), graphc.sum(x, dim=0), graphc.sum(x, dim=1, keepdim=True)
    (tensor(10.), tensor([4., 6.]), tensor([[3.],
            [7.]]))
    """
    if dtype is not None:
        input = cast(input, dtype)
    elif not input.dtype.is_differentiable:
        input = cast(input, int64)
    dims = axes(dim if axis is None else axis, len(input._data.shape))
    return named(_reduced(ops.sum, input, dims, keepdim), "Sum")


def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The sum of what is not nan.

    DTypeError for complex numbers.

    >>> graphc.nansum(graphc.tensor([1.0, float("nan"), 2.0]))
    tensor(3.)
    """
    if input.dtype.is_complex:
        raise DTypeError("nansum on CPU does not support complex inputs")
    return named(sum(where(isnan(input), 0, input), dim, keepdim, dtype=dtype), "Nansum")


def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """The sum over the dimensions along which a tensor of that size was stretched to this one. ShapeError where it cannot have
    been, ArgumentTypeError without a size.

    >>> graphc.ones(2, 3).sum_to_size(1, 3)
    tensor([[2., 2., 2.]])
    """
    if not size:
        raise ArgumentTypeError('sum_to_size() missing 1 required positional arguments: "size"')
    wanted = sizes(size, "size")
    shape = tuple(input._data.shape)
    own = shape[len(shape) - len(wanted) :]
    if len(wanted) > len(shape) or builtins.any(s not in (1, n) for s, n in zip(wanted, own)):
        raise ShapeError(f"size {{{list(wanted)}}} is not expandable to size {{{list(shape)}}}.")
    if wanted == shape:
        return input
    offset = len(shape) - len(wanted)
    return reshape(sum(input, [i for i, n in enumerate(shape) if i < offset or wanted[i - offset] != n]), wanted)


def _count(input: Tensor, dims: tuple[int, ...]) -> Any:
    shape = input._data.shape
    return math.prod(shape[d] for d in dims)


def _need_differentiable(input: Tensor, function: str) -> None:
    if not input.dtype.is_differentiable:
        raise DTypeError(
            f"{function}(): could not infer output dtype. Input dtype must be either a floating point or complex dtype. "
            f"Got: {input.dtype.name}", hint=f"x.float().{function}(), or {function}(dtype=graphc.float32)")


@composite
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None, axis: Dims = None) -> Tensor:
    """The mean over all dimensions, or over `dim`, one or several. DTypeError for integers: give a `dtype` to compute in.

    >>> graphc.mean(graphc.tensor([[1.0, 2.0], [3.0, 4.0]]), dim=0)
    tensor([2., 3.])
    """
    if dtype is not None:
        input = cast(input, dtype)
    _need_differentiable(input, "mean")
    dims = axes(dim if axis is None else axis, len(input._data.shape))
    return named(_reduced(ops.sum, input, dims, keepdim) / _count(input, dims), "Mean")


def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The mean of what is not nan.

    DTypeError for integers.

    >>> graphc.nanmean(graphc.tensor([1.0, float("nan"), 2.0]))
    tensor(1.5000)
    """
    if not input.dtype.is_differentiable:
        raise DTypeError("nanmean(): expected input to have floating point or complex dtype but got "
                         f"{input.dtype.name}")
    count = sum(~isnan(input), dim, keepdim)
    total = sum(where(isnan(input), 0, input), dim, keepdim, dtype=dtype)
    return named(total / count, "Nanmean")


def _moments(input: Tensor, dim: Any, unbiased: Any, correction: Any, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Variance and mean; `unbiased` may have been written in the place of `dim`."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None or unbiased else 0
    if not input.dtype.is_differentiable:
        raise DTypeError("std and var only support floating point and complex dtypes", got=input.dtype.name)
    dims = axes(dim, len(input._data.shape))
    count = _count(input, dims)
    shape = input._data.shape
    mean = emit(ops.sum, (input,), {"axes": dims}) / count
    if input.dtype.is_complex:
        squares = emit(ops.sum, (square(abs(input - ops.keepdims(mean, shape, dims))),), {"axes": dims})
    else:
        squares = emit(ops.squared_deviations, (input, mean), {"axes": dims})
    left = count - correction
    # no degrees of freedom: nan of 0 / 0, inf of a positive number
    variance = squares / (left if not isinstance(left, (int, float)) or left > 0 else 0)
    return (ops.keepdims(variance, shape, dims), ops.keepdims(mean, shape, dims)) if keepdim else (variance, mean)


@composite
def var(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None) -> Tensor:
    """The variance over all dimensions, or over `dim`: the sum of squared deviations from the mean over n - correction (1
    unless given).

    DTypeError for integers and bools.

    >>> graphc.var(graphc.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor(1.6667)
    >>> graphc.var(graphc.tensor([1.0, 2.0, 3.0, 4.0]), correction=0)
    tensor(1.2500)
    """
    return named(_moments(input, dim, unbiased, correction, keepdim)[0], "Var")


@composite
def std(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
        correction: float | None = None) -> Tensor:
    """The standard deviation, the square root of `var`.

    DTypeError for integers and bools.

    >>> graphc.std(graphc.tensor([1.0, 2.0, 3.0, 4.0]))
    tensor(1.2910)
    """
    return named(_root(_moments(input, dim, unbiased, correction, keepdim)[0]), "Std")


def _root(variance: Tensor) -> Tensor:
    """The square root; its slope at zero counts as zero, as in PyTorch."""
    zero = variance == 0
    return where(zero, 0.0, sqrt(where(zero, 1.0, variance)))


def var_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: float | None = None) -> tuple[Tensor, Tensor]:
    """Variance and mean, a pair.

    DTypeError for integers and bools.

    >>> graphc.var_mean(graphc.tensor([1.0, 2.0, 3.0, 4.0]))
    (tensor(1.6667), tensor(2.5000))
    """
    return _moments(input, dim, unbiased, correction, keepdim)


def std_mean(input: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *,
             correction: float | None = None) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean, a pair.

    DTypeError for integers and bools.

    >>> graphc.std_mean(graphc.tensor([1.0, 2.0, 3.0, 4.0]))
    (tensor(1.2910), tensor(2.5000))
    """
    variance, centre = _moments(input, dim, unbiased, correction, keepdim)
    return _root(variance), centre


@full_precision
@composite(large=False)
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None) -> Tensor:
    """The product over all dimensions, or over one. Integers and bools are multiplied as int64. The gradient is exact where
    elements are zero.

    DimError for a dimension that there is not.

    >>> graphc.prod(graphc.tensor([[1, 2], [3, 4]]), dim=1)
    tensor([ 2, 12])
    """
    if dtype is not None:
        input = cast(input, dtype)
    elif not input.dtype.is_differentiable:
        input = cast(input, int64)
    if dim is None:
        return named(emit(ops.prod, (reshape(input, (-1,)),), {"axis": 0}), "Prod")
    at = one_axis(dim, len(input._data.shape))
    if not input._data.shape:
        return input.clone()
    out = emit(ops.prod, (input,), {"axis": at})
    return named(unsqueeze(out, at) if keepdim else out, "Prod")


@composite(large=False)
def amax(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The largest element over `dim`; the gradient is shared among equals.

    DimError for a dimension that there is not, and where there is nothing to choose from.

    >>> graphc.amax(graphc.tensor([[1.0, 5.0], [7.0, 3.0]]), dim=1)
    tensor([5., 7.])
    """
    return _extreme(ops.amax, "Amax", input, axes(dim, len(input._data.shape)), keepdim)


@composite(large=False)
def amin(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The least element over `dim`; the gradient is shared among equals.

    DimError for a dimension that there is not, and where there is nothing to choose from.

    >>> graphc.amin(graphc.tensor([[1.0, 5.0], [7.0, 3.0]]), dim=1)
    tensor([1., 3.])
    """
    return _extreme(ops.amin, "Amin", input, axes(dim, len(input._data.shape)), keepdim)


def _extreme(record: Any, name: str, input: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    if builtins.any(input._data.shape[d] == 0 for d in dims) or (not dims and 0 in input._data.shape):
        raise DimError(f"{name.lower()}(): Expected reduction dim to be specified for input.numel() == 0. "
                       "Specify the reduction dim with the 'dim' argument.")
    return named(_reduced(record, input, dims, keepdim), name)


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The least and the largest element, of all or along `dim`.

    DimError along a dimension of size 0.

    >>> low, high = graphc.aminmax(graphc.tensor([3.0, 1.0, 2.0]))
    >>> low, high
    (tensor(1.), tensor(3.))
    """
    shape = input._data.shape
    if 0 in (shape if dim is None else shape[dim : dim + 1 or None]):
        raise DimError("aminmax(): cannot compute aminmax over an empty dimension as the operation has no identity.",
                       got=str(list(shape)))
    dims: Dims = () if dim is None else dim
    return return_types.aminmax(amin(input, dims, keepdim), amax(input, dims, keepdim))


def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """The largest element; along `dim`, with its int64 index; or, given a second tensor, the larger of each two elements. nan
    is larger than all numbers. DimError for a dimension that there is not, and where there is nothing to choose from.

    >>> x = graphc.tensor([[1.0, 5.0], [7.0, 3.0]])
    >>> graphc.max(x)
    tensor(7.)
    >>> graphc.max(x, dim=1)
    graphc.return_types.max(
    values=tensor([5., 7.]),
    indices=tensor([1, 0]))
    """
    if isinstance(dim, Tensor) or other is not None:
        return maximum(input, dim if other is None else other)
    if dim is None:
        return _largest_of_all(input)
    return return_types.max(*_largest(input, dim, keepdim))


def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    """The least element; along `dim`, with its int64 index; or, given a second tensor, the smaller of each two elements. nan is
    less than all numbers. DimError for a dimension that there is not, and where there is nothing to choose from.

    >>> x = graphc.tensor([[1.0, 5.0], [7.0, 3.0]])
    >>> graphc.min(x)
    tensor(1.)
    >>> graphc.min(x, dim=1)
    graphc.return_types.min(
    values=tensor([1., 3.]),
    indices=tensor([0, 1]))
    """
    if isinstance(dim, Tensor) or other is not None:
        return minimum(input, dim if other is None else other)
    if dim is None:
        return _least_of_all(input)
    return return_types.min(*_least(input, dim, keepdim))


@composite(large=False)
def _largest_of_all(input: Tensor) -> Tensor:
    return _extreme(ops.amax, "Max", input, tuple(range(len(input._data.shape))), False)


@composite(large=False)
def _least_of_all(input: Tensor) -> Tensor:
    return _extreme(ops.amin, "Min", input, tuple(range(len(input._data.shape))), False)


@composite(large=False)
def _largest(input: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    return _with_index(ops.argmax, "Max", input, dim, keepdim)


@composite(large=False)
def _least(input: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    return _with_index(ops.argmin, "Min", input, dim, keepdim)


def _with_index(record: Any, name: str, input: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """The element that an index op finds along a dimension, and the index."""
    at = one_axis(dim, len(input._data.shape))
    if not input._data.shape:
        index = emit(record, (_ordered(reshape(input, (1,))),), {"axis": 0})
        return input.clone(), reshape(index, ())
    if input._data.shape[at] == 0:
        raise DimError(f"{name.lower()}(): Expected reduction dim {at} to have non-zero size.")
    index = unsqueeze(emit(record, (_ordered(input),), {"axis": at}), at)
    value = named(emit(ops.gather, (input, index), {"axis": at}), name)
    return (value, index) if keepdim else (named(squeeze(value, at), name), squeeze(index, at))


def _ordered(input: Tensor) -> Tensor:
    return cast(input, int64) if input.dtype is bool_ else input


@composite(large=False)
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the largest element, the first of equals: in the flattened tensor, or along `dim`.

    DimError for a dimension that there is not, and where there is nothing to choose from; DTypeError for bools.

    >>> graphc.argmax(graphc.tensor([[1.0, 5.0], [7.0, 3.0]]), dim=1)
    tensor([1, 0])
    """
    return _arg(ops.argmax, input, dim, keepdim)


@composite(large=False)
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the least element, the first of equals: in the flattened tensor, or along `dim`.

    DimError for a dimension that there is not, and where there is nothing to choose from; DTypeError for bools.

    >>> graphc.argmin(graphc.tensor([[1.0, 5.0], [7.0, 3.0]]), dim=1)
    tensor([0, 1])
    """
    return _arg(ops.argmin, input, dim, keepdim)


def _arg(record: Any, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    shape = input._data.shape
    if input.dtype is bool_:
        raise DTypeError(f"{record.name}(): does not support bool input", hint="convert it with .int()")
    if dim is None or not shape:
        if dim is not None:
            one_axis(dim, 0)
        if 0 in shape:
            raise DimError(f"{record.name}(): Expected reduction dim to be specified for input.numel() == 0.")
        out = emit(record, (reshape(input, (-1,)),), {"axis": 0})
        return reshape(out, (1,) * len(shape)) if keepdim else out
    at = one_axis(dim, len(shape))
    if shape[at] == 0:
        raise DimError(f"{record.name}(): Expected reduction dim {at} to have non-zero size.")
    out = emit(record, (input,), {"axis": at})
    return unsqueeze(out, at) if keepdim else out


@composite(large=False)
def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are nonzero, of all or along `dim`; true of none.

    DimError for a dimension that there is not.

    >>> graphc.all(graphc.tensor([[True, False], [True, True]]), dim=1)
    tensor([False,  True])
    """
    return _logical(ops.amin, input, dim, keepdim, True)


@composite(large=False)
def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether any element is nonzero, of all or along `dim`; false of none.

    DimError for a dimension that there is not.

    >>> graphc.any(graphc.tensor([[False, False], [True, False]]), dim=1)
    tensor([False,  True])
    """
    return _logical(ops.amax, input, dim, keepdim, False)


def _logical(record: Any, input: Tensor, dim: Dims, keepdim: bool, empty: bool) -> Tensor:
    truth = input if input.dtype is bool_ else ne(input, 0)
    shape = truth._data.shape
    dims = () if isinstance(dim, (tuple, list)) and not dim else axes(dim, len(shape))
    if builtins.any(shape[d] == 0 for d in dims):
        left = tuple(1 if i in dims else s for i, s in enumerate(shape) if keepdim or i not in dims)
        out = full(left, empty, dtype=bool_, device=input.device)
    else:
        out = _reduced(record, truth, dims, keepdim)
    return cast(out, uint8) if input.dtype is uint8 else out  # as PyTorch has it, from before there were bools


def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """How many elements are not zero, of all or along `dim`, as int64.

    DimError for a dimension that there is not.

    >>> graphc.count_nonzero(graphc.tensor([[0, 1], [2, 3]]), dim=0)
    tensor([1, 2])
    """
    return sum(ne(input, 0), dim)


@composite
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over `dim`, without overflow.

    DimError for a dimension that there is not.

    >>> graphc.logsumexp(graphc.tensor([1000.0, 1000.0]), dim=0)
    tensor(1000.6932)
    """
    if not input.dtype.is_differentiable:
        input = cast(input, float32)
    shape = input._data.shape
    dims = axes(dim, len(shape))
    if builtins.any(shape[d] == 0 for d in dims):
        return named(log(_reduced(ops.sum, exp(input), dims, keepdim)), "Logsumexp")
    top = _reduced(ops.amax, ops.real(input.detach()) if input.dtype.is_complex else input.detach(), dims, True)
    top = where(abs(top) == math.inf, 0.0, top)
    out = log(_reduced(ops.sum, exp(input - top), dims, True)) + top
    if not keepdim:
        out = reshape(out, tuple(s for i, s in enumerate(input._data.shape) if i not in dims))
    return named(out, "Logsumexp")
