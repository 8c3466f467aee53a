"""Pooling: one number for each window of an input with one, two or three spatial dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, DimError, DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import emit
from graphc.frontend.arithmetic import div
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.modes import mode
from graphc.frontend.movement import reshape, unsqueeze
from graphc.frontend.pointwise import abs, cast, maximum, where
from graphc.frontend.scattering import scatter, scatter_add
from graphc.frontend.spatial import Ints, batched, constant, places, spread, unbatched
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import TensorType, bool_, float32, int64

FUNCTIONS = "avg_pool1d max_pool1d max_pool1d_with_indices max_pool2d max_pool3d"


def _pooled_size(size: int, kernel: int, stride: int, pad: int, dilation: int, ceil_mode: bool) -> int:
    span = size + 2 * pad - dilation * (kernel - 1) - 1
    count = (-(-span // stride) if ceil_mode else span // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + pad:
        count -= 1  # the last window would begin in the padding at the end
    return count


class _Pool:
    """The windows of a pooling: [N, C, *S] as [N, C, *T, *K], out of an input padded with one number."""

    def __init__(self, function: str, input: Tensor, dims: int, kernel: Ints, stride: Any, padding: Ints, dilation: Ints,
                 ceil_mode: bool) -> None:
        self.input, self.alone = batched(input, dims, function)
        self.dims, self.ceil_mode = dims, ceil_mode
        self.kernel = spread(kernel, dims, "kernel_size")
        given = stride is not None and (isinstance(stride, int) or len(stride) > 0)
        self.stride = spread(stride, dims, "stride") if given else self.kernel
        self.padding = spread(padding, dims, "padding")
        self.dilation = spread(dilation, dims, "dilation")
        if any(k < 1 for k in self.kernel):
            raise GraphcError("kernel size should be greater than zero", got=f"kernel_size={list(self.kernel)}")
        if any(s < 1 for s in self.stride):
            raise GraphcError("stride should not be zero", got=str(list(self.stride)))
        if any(d < 1 for d in self.dilation):
            raise GraphcError("dilation should be greater than zero", got=f"dilation={list(self.dilation)}")
        for k, p, d in zip(self.kernel, self.padding, self.dilation):
            if p < 0 or 2 * p > d * (k - 1) + 1:
                raise GraphcError(f"pad should be at most half of effective kernel size, but got pad={p}, kernel_size={k} and "
                                  f"dilation={d}")
        self.size = tuple(self.input._data.shape[2:])
        self.out = tuple(map(_pooled_size, self.size, self.kernel, self.stride, self.padding, self.dilation,
                             (ceil_mode,) * dims))
        if any(n < 1 for n in self.out):
            raise ShapeError(f"{function}: Given input size: {list(self.size)}. Calculated output size: {list(self.out)}. "
                             "Output size is too small")

    def windows(self, fill: float) -> Tensor:
        """The windows, with `fill` where they reach out of the input."""
        x = self.input
        need = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(self.out, self.stride, self.dilation, self.kernel)]
        low = self.padding
        # of a symbolic size as much as may be needed: windows beyond those that are wanted are cut off
        high = tuple(max(0, want - size - p) if isinstance(size, int) else p + (s - 1 if self.ceil_mode else 0)
                     for want, size, p, s in zip(need, self.size, low, self.stride))
        if any(low) or any(high):
            x = emit(ops.pad, (x,), {"low": (0, 0, *low), "high": (0, 0, *high), "value": fill})
        for i, (k, s, d) in enumerate(zip(self.kernel, self.stride, self.dilation)):
            x = emit(ops.window, (x,), {"axis": 2 + i, "size": k, "step": s, "dilation": d})
        counts = tuple(x._data.shape[2 : 2 + self.dims])
        if counts != self.out:
            stops = (*x._data.shape[:2], *self.out, *x._data.shape[2 + self.dims :])
            x = emit(ops.slice, (x,), {"starts": (0,) * len(stops), "stops": tuple(stops), "steps": (1,) * len(stops)})
        return x

    def starts(self) -> list[range]:
        """Where the windows begin, a dimension; below zero for those that begin in the padding."""
        return [range(-p, n * s - p, s) for n, s, p in zip(self.out, self.stride, self.padding)]


# Maximum


def least(input: Tensor) -> Any:
    """The number that never wins against another one."""
    if input.dtype is bool_:
        raise DTypeError("max pooling: not implemented for 'Bool'", expected="a numeric dtype")
    if input.dtype.is_floating_point:
        return -math.inf
    return -(1 << (input.dtype.bits - 1)) if input.dtype.is_signed else 0


def maxima(windows: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """The maxima of windows [N, C, *T, *K], and their places in the flattened windows: the first where there are several."""
    shape = tuple(windows._data.shape)
    axis = 2 + dims
    flat = reshape(windows, (*shape[:axis], math.prod(shape[axis:])))
    chosen = emit(ops.argmax, (flat.detach(),), {"axis": axis})
    # The maximum itself is the sum of the window with all else set to zero. The derivative of that sends each cotangent
    # to one place, by comparison instead of by scattering.
    hit = ops.iota(shape=tuple(flat._data.shape), axis=axis, dtype=int64, like=Tensor) == unsqueeze(chosen, axis)
    return emit(ops.sum, (where(hit, flat, 0),), {"axes": (axis,)}), chosen


def positions(chosen: Tensor, kernel: Sequence[int], starts: Sequence[Sequence[int]], dilation: Sequence[int],
              size: Sequence[int]) -> Tensor:
    """Places in flattened windows [N, C, *T] as places in the flattened input; `starts` says where the windows begin."""
    flat: Any = 0
    rest = chosen
    within: list[Tensor] = []
    for k in reversed(kernel):
        within.insert(0, rest % k)
        rest = rest // k
    for i, (inner, begin, step, length) in enumerate(zip(within, starts, dilation, size)):
        along = tuple(len(begin) if j == i else 1 for j in range(len(size)))
        place = inner * step + reshape(places(begin), along)
        if min(begin) < 0:  # a window of nothing but -inf has its maximum at the first place that is no padding
            place = maximum(place, reshape(places([n if n >= 0 else n % step for n in begin]), along))
        flat = flat * length + place
    return flat


@composite
def _max_pool(function: str, input: Tensor, kernel: Ints, stride: Any, padding: Ints, dilation: Ints, ceil_mode: bool,
              return_indices: bool, dims: int) -> Any:
    pool = _Pool(function, input, dims, kernel, stride, padding, dilation, ceil_mode)
    if 0 in pool.input._data.shape[1:]:
        raise ShapeError(f"{function}: Expected input's non-batch dimensions to have positive length, but input has a shape of "
                         f"{list(input.shape)}")
    windows = pool.windows(least(input))
    if not return_indices and not (mode.grad and input.requires_grad):
        largest = emit(ops.amax, (windows,), {"axes": tuple(range(2 + dims, 2 + 2 * dims))})
        return named(unbatched(largest, pool.alone), f"MaxPool{dims}DWithIndices" if dims > 1 else "Squeeze")
    largest, chosen = maxima(windows, dims)
    out = named(unbatched(largest, pool.alone), f"MaxPool{dims}DWithIndices" if dims > 1 else "Squeeze")
    if not return_indices:
        return out
    return out, unbatched(positions(chosen, pool.kernel, pool.starts(), pool.dilation, pool.size), pool.alone)


def max_pool1d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of [N, C, L] or [C, L]; with `return_indices` its place in [L] too.

    ShapeError for another number of dimensions, for sizes of 0, and where no window fits; GraphcError for padding by more than
    half a window.

    >>> F.max_pool1d(graphc.tensor([[[1.0, 3.0, 2.0, 4.0]]]), 2)
    tensor([[[3., 4.]]])
    """
    return _max_pool("max_pool1d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 1)


def max_pool2d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of [N, C, H, W] or [C, H, W]; with `return_indices` its place in the flattened [H,
    W] too.

    ShapeError for another number of dimensions, for sizes of 0, and where no window fits; GraphcError for padding by more than
    half a window.

    >>> F.max_pool2d(graphc.arange(16.0).view(1, 1, 4, 4), 2)
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """
    return _max_pool("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 2)


@full_precision
def max_pool3d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window of [N, C, D, H, W] or [C, D, H, W]; with `return_indices` its place in the
    flattened [D, H, W] too.

    ShapeError for another number of dimensions, for sizes of 0, and where no window fits; GraphcError for padding by more than
    half a window.

    >>> F.max_pool3d(graphc.ones(1, 1, 4, 4, 4), 2).shape
    graphc.Size([1, 1, 2, 2, 2])
    """
    return _max_pool("max_pool3d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 3)


def max_pool1d_with_indices(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, dilation: Ints = 1,
                            ceil_mode: bool = False, return_indices: bool = True) -> tuple[Tensor, Tensor]:
    """max_pool1d with return_indices=True.

    >>> F.max_pool1d_with_indices(graphc.tensor([[[1.0, 3.0, 2.0, 4.0]]]), 2)
    (tensor([[[3., 4.]]]), tensor([[[1, 3]]]))
    """
    return max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool2d_with_indices(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, dilation: Ints = 1,
                            ceil_mode: bool = False, return_indices: bool = True) -> tuple[Tensor, Tensor]:
    """max_pool2d with return_indices=True.

    >>> values, indices = F.max_pool2d_with_indices(graphc.arange(16.0).view(1, 1, 4, 4), 4)
    >>> values, indices
    (tensor([[[[15.]]]]), tensor([[[[15]]]]))
    """
    return max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool3d_with_indices(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, dilation: Ints = 1,
                            ceil_mode: bool = False, return_indices: bool = True) -> tuple[Tensor, Tensor]:
    """max_pool3d with return_indices=True.

    >>> values, indices = F.max_pool3d_with_indices(graphc.ones(1, 1, 4, 4, 4), 2)
    >>> indices.shape
    graphc.Size([1, 1, 2, 2, 2])
    """
    return max_pool3d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


# The way back from the maxima


def _unpooled_size(input: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
                   output_size: Sequence[int] | None) -> tuple[int, ...]:
    dims = len(kernel)
    usual = [(n - 1) * s + k - 2 * p for n, s, k, p in zip(input._data.shape[-dims:], stride, kernel, padding)]
    if output_size is None:
        return tuple(usual)
    wanted = tuple(output_size)[-dims:] if len(output_size) in (dims + 1, dims + 2) else tuple(output_size)
    if len(wanted) != dims:
        raise ArgumentError(f"output_size should be a sequence containing {dims} or {dims + 2} elements, but it has a length "
                            f"of '{len(output_size)}'")
    for want, size, step in zip(wanted, usual, stride):
        if not size - step < want < size + step:
            raise ArgumentError(f"invalid output_size {list(output_size)} (dim 0 must be between {size - step} and "
                                f"{size + step})", got=str(want))
    return wanted


def _max_unpool(input: Tensor, indices: Tensor, kernel_size: Ints, stride: Any, padding: Ints,
                output_size: Sequence[int] | None, dims: int) -> Tensor:
    function = f"max_unpool{dims}d"
    kernel = spread(kernel_size, dims, "kernel_size")
    steps = kernel if stride is None or (not isinstance(stride, int) and not len(stride)) else spread(stride, dims, "stride")
    size = _unpooled_size(input, kernel, steps, spread(padding, dims, "padding"), output_size)
    if indices.dtype is not int64:
        raise DTypeError(f"elements in indices should be type int64 but got: {indices.dtype.name}")
    if indices.shape != input.shape:
        raise ShapeError(f"Expected shape of indices to be same as that of the input tensor ({list(input.shape)}) but got "
                         f"indices tensor with shape: {list(indices.shape)}")
    x, alone = batched(input, dims, function)
    lead = tuple(x._data.shape[:2])
    if any(s < 1 for s in size) or 0 in x._data.shape[1:]:
        raise ShapeError(f"{function}: Expected positive sizes besides the batch", got=f"{list(input.shape)} to {list(size)}")
    known = indices._known()
    if known is not None and known.size and (known.min() < 0 or known.max() >= math.prod(size)):
        raise DimError(f"Found an invalid max index: {known.max() if known.min() >= 0 else known.min()} (output volumes are of "
                       f"size {'x'.join(map(str, size))})")
    base = ops.full(TensorType(x.dtype, (*lead, math.prod(size))), 0, like=Tensor)
    count = math.prod(x._data.shape[2:])
    index, source = reshape(indices, (*lead, count)), reshape(x, (*lead, count))
    # Windows that overlap may name a place twice. It holds the element once, and its cotangent goes to all who name it,
    # as it does from a sum.
    added, written = scatter_add(base, 2, index, source), scatter(base, 2, index, source.detach())
    out = added + where(added == written, 0, written - added).detach()
    return named(unbatched(reshape(out, (*lead, *size)), alone), f"MaxUnpool{dims}D")


def max_unpool1d(input: Tensor, indices: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0,
                 output_size: Sequence[int] | None = None) -> Tensor:
    """Maxima put back to the places that max_pool1d gave, zeros elsewhere.

    ShapeError where the shapes differ, DTypeError for indices that are not of int64, DimError for those outside the result,
    ArgumentError for an `output_size` that is not a step from the one that follows from the windows.

    >>> values, indices = F.max_pool1d(graphc.tensor([[[1.0, 3.0, 2.0, 4.0]]]), 2, return_indices=True)
    >>> F.max_unpool1d(values, indices, 2)
    tensor([[[0., 3., 0., 4.]]])
    """
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 1)


def max_unpool2d(input: Tensor, indices: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0,
                 output_size: Sequence[int] | None = None) -> Tensor:
    """Maxima put back to the places that max_pool2d gave, zeros elsewhere.

    ShapeError where the shapes differ, DTypeError for indices that are not of int64, DimError for those outside the result,
    ArgumentError for an `output_size` that is not a step from the one that follows from the windows.

    >>> values, indices = F.max_pool2d(graphc.arange(16.0).view(1, 1, 4, 4), 2, return_indices=True)
    >>> F.max_unpool2d(values, indices, 2)
    tensor([[[[ 0.,  0.,  0.,  0.],
              [ 0.,  5.,  0.,  7.],
              [ 0.,  0.,  0.,  0.],
              [ 0., 13.,  0., 15.]]]])
    """
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 2)


def max_unpool3d(input: Tensor, indices: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0,
                 output_size: Sequence[int] | None = None) -> Tensor:
    """Maxima put back to the places that max_pool3d gave, zeros elsewhere.

    ShapeError where the shapes differ, DTypeError for indices that are not of int64, DimError for those outside the result,
    ArgumentError for an `output_size` that is not a step from the one that follows from the windows.

    >>> values, indices = F.max_pool3d(graphc.ones(1, 1, 4, 4, 4), 2, return_indices=True)
    >>> F.max_unpool3d(values, indices, 2).shape
    graphc.Size([1, 1, 4, 4, 4])
    """
    return _max_unpool(input, indices, kernel_size, stride, padding, output_size, 3)


# Means


@composite
def _avg_pool(function: str, input: Tensor, kernel: Ints, stride: Any, padding: Ints, ceil_mode: bool,
              count_include_pad: bool, divisor: int | None, dims: int) -> Tensor:
    if divisor == 0:
        raise GraphcError("divisor must be not zero")
    pool = _Pool(function, input, dims, kernel, stride, padding, 1, ceil_mode)
    windows = pool.windows(0.0)
    axes = tuple(range(2 + dims, 2 + 2 * dims))
    narrow = input.dtype.is_floating_point and input.dtype.bits == 16
    total = emit(ops.sum, (cast(windows, float32) if narrow else windows,), {"axes": axes})
    if not input.dtype.is_floating_point:
        out = div(total, divisor or math.prod(pool.kernel), rounding_mode="trunc")
    elif divisor is not None:
        out = total / divisor
    elif ceil_mode or (any(pool.padding) and not count_include_pad):
        out = total / _window_sizes(pool, count_include_pad, total)
    else:
        out = total / math.prod(pool.kernel)
    return named(unbatched(cast(out, input.dtype), pool.alone), f"AvgPool{dims}D")


def _window_sizes(pool: _Pool, count_include_pad: bool, like: Tensor) -> Tensor:
    """How many elements count in each window: those of the input, or of the padded input."""
    sizes: Any = None
    for i in range(pool.dims):
        line = []
        for n in range(pool.out[i]):
            start = n * pool.stride[i] - pool.padding[i]
            stop = min(start + pool.kernel[i], pool.size[i] + pool.padding[i])
            if not count_include_pad:
                start, stop = max(start, 0), min(stop, pool.size[i])
            line.append(float(stop - start))
        shape = tuple(-1 if j == i else 1 for j in range(pool.dims))
        edge = reshape(constant(line, like), shape)
        sizes = edge if sizes is None else sizes * edge
    return sizes


def avg_pool1d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """The mean of each window of [N, C, L] or [C, L].

    With `count_include_pad` padding counts as zeros; without, windows are divided by the number of elements that they really
    have.

    ShapeError for another number of dimensions, and where no window fits; GraphcError for padding by more than half a window.

    >>> F.avg_pool1d(graphc.tensor([[[1.0, 3.0, 2.0, 4.0]]]), 2)
    tensor([[[2., 3.]]])
    """
    return _avg_pool("avg_pool1d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, None, 1)


def avg_pool2d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """The mean of each window of [N, C, H, W] or [C, H, W]; or the sum of each over `divisor_override`. See `avg_pool1d`.

    ShapeError for another number of dimensions, and where no window fits; GraphcError for padding by more than half a window,
    and a divisor of 0.

    >>> F.avg_pool2d(graphc.arange(16.0).view(1, 1, 4, 4), 2)
    tensor([[[[ 2.5000,  4.5000],
              [10.5000, 12.5000]]]])
    """
    return _avg_pool("avg_pool2d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 2)


@full_precision
def avg_pool3d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """The mean of each window of [N, C, D, H, W] or [C, D, H, W]; or the sum of each over `divisor_override`. See
    `avg_pool1d`.

    ShapeError for another number of dimensions, and where no window fits; GraphcError for padding by more than half a window,
    and a divisor of 0.

    >>> F.avg_pool3d(graphc.ones(1, 1, 4, 4, 4), 2).shape
    graphc.Size([1, 1, 2, 2, 2])
    """
    return _avg_pool("avg_pool3d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 3)


# Power means


def _lp_pool(input: Tensor, norm_type: float, kernel_size: Ints, stride: Any, ceil_mode: bool, dims: int) -> Tensor:
    function = f"lp_pool{dims}d"
    if math.isinf(norm_type):
        extreme = _max_pool(function, abs(input) if norm_type > 0 else -abs(input), kernel_size, stride, 0, 1, ceil_mode, False,
                            dims)
        return extreme if norm_type > 0 else -extreme
    kernel = spread(kernel_size, dims, "kernel_size")
    means = _avg_pool(function, input**norm_type, kernel, stride, 0, ceil_mode, True, None, dims)
    # no gradient where the sum is zero: the root is infinitely steep there
    return (where(means == 0, 0.0, means) * math.prod(kernel)) ** (1.0 / norm_type)


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Ints, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """(sum of x^p)^(1/p) of each window; the largest |x| for p = inf. The input is [N, C, L] or [C, L].

    ShapeError for another number of dimensions, and where no window fits.

    >>> F.lp_pool1d(graphc.tensor([[[3.0, 4.0]]]), 2, 2)
    tensor([[[5.]]])
    """
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 1)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Ints, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """(sum of x^p)^(1/p) of each window; the largest |x| for p = inf. The input is [N, C, H, W] or [C, H, W].

    ShapeError for another number of dimensions, and where no window fits.

    >>> F.lp_pool2d(graphc.ones(1, 1, 2, 2), 2, 2)
    tensor([[[[2.]]]])
    """
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 2)


def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Ints, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """(sum of x^p)^(1/p) of each window; the largest |x| for p = inf. The input is [N, C, D, H, W] or [C, D, H, W].

    ShapeError for another number of dimensions, and where no window fits.

    >>> F.lp_pool3d(graphc.ones(1, 1, 2, 2, 2), 1, 2)
    tensor([[[[[8.]]]]])
    """
    return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, 3)
