"""Convolution and pooling over one, two or three spatial dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, ArgumentTypeError, DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import emit
from graphc.frontend.movement import reshape, squeeze, unsqueeze
from graphc.frontend.pointwise import cast, div, where
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import float16, float32, int64

Ints = int | Sequence[int]


def spread(value: Any, count: int, what: str) -> tuple[int, ...]:
    """One number for every spatial dimension, or one for each."""
    if isinstance(value, int):
        return (value,) * count
    found = tuple(int(v) for v in value)
    if len(found) == 1:
        return found * count
    if len(found) != count:
        raise GraphcError(f"{what}: {len(found)} numbers for {count} spatial dimensions", expected=f"1 or {count}")
    return found


def _batched(input: Tensor, dims: int, function: str) -> tuple[Tensor, bool]:
    """The input with a batch dimension, and whether it had none."""
    ndim = len(input._data.shape)
    if ndim == dims + 1:
        return unsqueeze(input, 0), True
    if ndim != dims + 2:
        raise ShapeError(f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {function}, but got input of "
                         f"size: {list(input.shape)}")
    return input, False


def _same_padding(kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    if any(s != 1 for s in stride):
        raise GraphcError("padding='same' is not supported for strided convolutions")
    totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
    return [(t // 2, t - t // 2) for t in totals]


def _conv(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Any, dilation: Ints, groups: int,
          dims: int) -> Tensor:
    function = f"conv{dims}d"
    input, alone = _batched(input, dims, function)
    if len(weight._data.shape) != dims + 2:
        raise ShapeError(f"{function}: the weight has {weight.dim()} dimensions", expected=str(dims + 2))
    if groups < 1:
        raise GraphcError("non-positive groups is not supported")
    steps, gaps = spread(stride, dims, "stride"), spread(dilation, dims, "dilation")
    if any(s < 1 for s in steps):
        raise GraphcError("non-positive stride is not supported")
    if any(g < 1 for g in gaps):
        raise GraphcError("dilation should be greater than zero")
    kernel = tuple(weight._data.shape[2:])
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise GraphcError(f"Invalid padding string: '{padding}'", expected="'same' or 'valid'")
        pairs = _same_padding(kernel, steps, gaps) if padding == "same" else [(0, 0)] * dims
    else:
        pairs = [(p, p) for p in spread(padding, dims, "padding")]
        if any(low < 0 for low, _ in pairs):
            raise GraphcError("negative padding is not supported")
    channels = input._data.shape[1]
    if channels != weight._data.shape[1] * groups:
        raise ShapeError(f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(input.shape)} to "
                         f"have {weight._data.shape[1] * groups} channels, but got {channels} channels instead")
    if bias is not None and bias.dtype is not input.dtype:
        raise DTypeError(f"{function}: Input type ({input.dtype.name}) and bias type ({bias.dtype.name}) should be the same")
    attrs = {"stride": steps, "padding": tuple(pairs), "dilation": gaps, "groups": groups}
    if input.dtype is float16 and weight.dtype is float16:
        # sums of many products: in single precision, rounded once
        out = cast(emit(ops.conv, (cast(input, float32), cast(weight, float32)), attrs), float16)
    else:
        out = emit(ops.conv, (input, weight), attrs)
    if bias is not None:
        out = emit(ops.add, (out, reshape(bias, (-1, *(1,) * dims))), {})
    return named(squeeze(out, 0) if alone else out, "Convolution")


def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Any = 0,
           dilation: Ints = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of [N, C, L] with weights [O, C / groups, K]."""
    return _conv(input, weight, bias, stride, padding, dilation, groups, 1)


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Any = 0,
           dilation: Ints = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of [N, C, H, W] with weights [O, C / groups, K, K']."""
    return _conv(input, weight, bias, stride, padding, dilation, groups, 2)


def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Ints = 1, padding: Any = 0,
           dilation: Ints = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of [N, C, D, H, W] with weights [O, C / groups, K, K', K'']."""
    return _conv(input, weight, bias, stride, padding, dilation, groups, 3)


# Pooling


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
        self.input, self.alone = _batched(input, dims, function)
        self.dims = dims
        self.kernel = spread(kernel, dims, "kernel_size")
        given = stride is not None and (isinstance(stride, int) or len(stride) > 0)
        self.stride = spread(stride, dims, "stride") if given else self.kernel
        self.padding = spread(padding, dims, "padding")
        self.dilation = spread(dilation, dims, "dilation")
        if any(s < 1 for s in self.stride):
            raise GraphcError("stride should not be zero")
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

    def windows(self, fill: float, x: Tensor | None = None) -> Tensor:
        x = self.input if x is None else x
        need = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(self.out, self.stride, self.dilation, self.kernel)]
        low = self.padding
        high = tuple(max(0, want - size - p) for want, size, p in zip(need, self.size, low))
        if any(low) or any(high):
            x = emit(ops.pad, (x,), {"low": (0, 0, *low), "high": (0, 0, *high), "value": fill})
        for i, (k, s, d) in enumerate(zip(self.kernel, self.stride, self.dilation)):
            x = emit(ops.window, (x,), {"axis": 2 + i, "size": k, "step": s, "dilation": d})
        counts = tuple(x._data.shape[2 : 2 + self.dims])
        if counts != self.out:
            stops = (*x._data.shape[:2], *self.out, *x._data.shape[2 + self.dims :])
            x = emit(ops.slice, (x,), {"starts": (0,) * len(stops), "stops": tuple(stops), "steps": (1,) * len(stops)})
        return x

    def finish(self, out: Tensor) -> Tensor:
        return squeeze(out, 0) if self.alone else out


def _max_pool(function: str, input: Tensor, kernel: Ints, stride: Any, padding: Ints, dilation: Ints, ceil_mode: bool,
              return_indices: bool, dims: int) -> Any:
    pool = _Pool(function, input, dims, kernel, stride, padding, dilation, ceil_mode)
    if 0 in pool.input._data.shape[1:]:
        raise ShapeError(f"{function}: Expected input's non-batch dimensions to have positive length, but input has a shape of "
                         f"{list(input.shape)}")
    least = -math.inf if input.dtype.is_floating_point else -(1 << (input.dtype.bits - 1))
    windows = pool.windows(least)
    area = math.prod(pool.kernel)
    flat = reshape(windows, (*windows._data.shape[: 2 + dims], area))
    axis = 2 + dims
    # The place of the first maximum; the maximum itself is the sum of the window with all else set to zero. The
    # derivative of that sends each cotangent to one place, by comparison instead of by scattering.
    chosen = emit(ops.argmax, (flat.detach(),), {"axis": axis})
    place = ops.iota(shape=tuple(flat._data.shape), axis=axis, dtype=int64, like=Tensor)
    hit = place == unsqueeze(chosen, axis)
    out = emit(ops.sum, (where(hit, flat, 0),), {"axes": (axis,)})
    out = named(pool.finish(out), f"MaxPool{dims}DWithIndices" if dims > 1 else "Squeeze")
    if not return_indices:
        return out
    return out, pool.finish(_positions(pool, chosen))


def _positions(pool: _Pool, chosen: Tensor) -> Tensor:
    """The place of each maximum in the flattened input, from its place in the window."""
    shape = tuple(chosen._data.shape)
    flat: Any = 0
    rest = chosen
    within: list[Tensor] = []
    for k in reversed(pool.kernel):
        within.append(rest % k)
        rest = rest // k
    within.reverse()
    for i in range(pool.dims):
        start = ops.iota(shape=shape, axis=2 + i, dtype=int64, like=Tensor) * pool.stride[i] - pool.padding[i]
        flat = flat * pool.size[i] + start + within[i] * pool.dilation[i]
    return flat


def max_pool1d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window."""
    return _max_pool("max_pool1d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 1)


def max_pool2d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window."""
    return _max_pool("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 2)


def max_pool3d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, dilation: Ints = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element of each window."""
    return _max_pool("max_pool3d", input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, 3)


def _avg_pool(function: str, input: Tensor, kernel: Ints, stride: Any, padding: Ints, ceil_mode: bool,
              count_include_pad: bool, divisor: int | None, dims: int) -> Tensor:
    if divisor == 0:
        raise GraphcError("divisor must be not zero")
    pool = _Pool(function, input, dims, kernel, stride, padding, 1, ceil_mode)
    windows = pool.windows(0.0)
    axes = tuple(range(2 + dims, 2 + 2 * dims))
    total = emit(ops.sum, (windows,), {"axes": axes})
    if not input.dtype.is_floating_point:
        out = div(total, divisor or math.prod(pool.kernel), rounding_mode="trunc")
    elif divisor is not None:
        out = total / divisor
    elif ceil_mode or (any(pool.padding) and not count_include_pad):
        out = total / _window_sizes(pool, count_include_pad, input)
    else:
        out = total / math.prod(pool.kernel)
    return named(pool.finish(out), f"AvgPool{dims}D")


def _window_sizes(pool: _Pool, count_include_pad: bool, input: Tensor) -> Tensor:
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
        edge = reshape(constant(line, input), shape)
        sizes = edge if sizes is None else sizes * edge
    return sizes


def constant(values: Any, like: Tensor) -> Tensor:
    """Numbers that are known beforehand, in the dtype of `like`."""
    return emit(ops.constant, (), {"value": np.asarray(values, like.dtype.numpy)})


def avg_pool1d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """The mean of each window."""
    return _avg_pool("avg_pool1d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, None, 1)


def avg_pool2d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """The mean of each window."""
    return _avg_pool("avg_pool2d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 2)


def avg_pool3d(input: Tensor, kernel_size: Ints, stride: Any = None, padding: Ints = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Tensor:
    """The mean of each window."""
    return _avg_pool("avg_pool3d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 3)


def _output_size(output_size: Any, size: Sequence[int], dims: int) -> tuple[int, ...]:
    given = (output_size,) * dims if isinstance(output_size, int) or output_size is None else tuple(output_size)
    if len(given) == 1:
        given = given * dims
    if len(given) != dims:
        raise ArgumentTypeError(f"adaptive pooling: output_size has {len(given)} numbers", expected=str(dims))
    return tuple(s if g is None else int(g) for g, s in zip(given, size))


def _adaptive_avg_pool(input: Tensor, output_size: Any, dims: int) -> Tensor:
    x, alone = _batched(input, dims, f"adaptive_avg_pool{dims}d")
    wanted = _output_size(output_size, x._data.shape[2:], dims)
    if any(w < 0 for w in wanted):
        raise ArgumentError("adaptive pooling: negative output size", got=str(list(wanted)))
    if all(w == 1 for w in wanted):
        axes = tuple(range(2, 2 + dims))
        total = emit(ops.sum, (x,), {"axes": axes})
        out = ops.keepdims(total, x._data.shape, axes) / math.prod(x._data.shape[2:])
        return named(squeeze(out, 0) if alone else out, "Mean")
    for i, want in enumerate(wanted):
        size = x._data.shape[2 + i]
        if want == size:
            continue
        # window j spans from floor(j * size / want) to ceil((j + 1) * size / want): the mean is a product with a matrix
        spans = [range(j * size // want, -(-(j + 1) * size // want)) for j in range(want)]
        rows = [[1.0 / len(span) if k in span else 0.0 for span in spans] for k in range(size)]
        letters = "abcdef"[: x.ndim]
        spec = f"{letters},{letters[2 + i]}z->{letters.replace(letters[2 + i], 'z')}"
        x = emit(ops.contract, (x, constant(rows, x)), {"spec": spec})
    return named(squeeze(x, 0) if alone else x, f"AdaptiveAvgPool{dims}D")


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means of as many windows as `output_size` says."""
    return _adaptive_avg_pool(input, output_size, 1)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means of as many windows as `output_size` says."""
    return _adaptive_avg_pool(input, output_size, 2)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means of as many windows as `output_size` says."""
    return _adaptive_avg_pool(input, output_size, 3)



