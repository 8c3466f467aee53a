"""Batch, layer, group and local response normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, DimError, GraphcError, ShapeError, UnsupportedError
from graphc.frontend.arguments import emit
from graphc.frontend.arithmetic import div
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.copying import clone
from graphc.frontend.inplace import assign
from graphc.frontend.linalg_norms import norm
from graphc.frontend.modes import no_grad
from graphc.frontend.movement import reshape
from graphc.frontend.pointwise import cast, rsqrt
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import float32

FUNCTIONS = "rms_norm"


def _need_floating(input: Tensor, kernel: str) -> None:
    if not input.dtype.is_floating_point:
        raise UnsupportedError(f'"{kernel}" not implemented for {input.dtype.name}', expected="a floating-point dtype",
                               hint="input.float()")


def _wide(input: Tensor, kernel: str) -> Tensor:
    """The input as it is computed with: 16-bit numbers in single precision."""
    _need_floating(input, kernel)
    return cast(input, float32) if input.dtype.bits == 16 else input


def _affine(out: Tensor, weight: Tensor | None, bias: Tensor | None, input: Tensor, name: str) -> Tensor:
    """out * weight + bias, in the dtype of the input."""
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    return named(cast(out, input.dtype), name)


def _moments(input: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Any]:
    """Mean and (biased) variance over dimensions that stay with size 1, and the count of elements."""
    return *_mean_and_variance(input, axes), math.prod(input._data.shape[a] for a in axes)


@composite
def _mean_and_variance(input: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    shape = input._data.shape
    count = math.prod(shape[a] for a in axes)
    mean = emit(ops.sum, (input,), {"axes": axes}) / count
    variance = emit(ops.squared_deviations, (input, mean), {"axes": axes}) / count
    return ops.keepdims(mean, shape, axes), ops.keepdims(variance, shape, axes)


@composite
def _normalized(
    input: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """(input - mean) / sqrt(variance + eps) * weight + bias, in the input's dtype. All but that have a number a channel."""
    ndim = len(input._data.shape)
    scale = rsqrt(variance + eps)
    if weight is not None:
        scale = scale * weight
    out = ops.standardize(_wide(input, "batch_norm"), _along(mean, ndim), _along(scale, ndim))
    return named(cast(out if bias is None else out + _along(bias, ndim), input.dtype), "NativeBatchNorm")


def _along(x: Tensor, ndim: int) -> Tensor:
    """A number a channel, as it stretches over [N, C, ...]."""
    return reshape(x, (1, -1, *(1,) * (ndim - 2)))


@composite
def _channel_moments(input: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel."""
    x = _wide(input, "batch_norm")
    channels = x._data.shape[1:2]
    mean, variance = _mean_and_variance(x, (0, *range(2, len(x._data.shape))))
    return reshape(mean, channels), reshape(variance, channels)


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float | Tensor = 0.1,
               eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, a channel at a time (Ioffe and Szegedy 2015).

    Training takes mean and variance from the batch, and moves the running ones towards them by `momentum`; otherwise the
    running ones are taken.

    ShapeError where weights or statistics are not one for each channel, ArgumentError for one value a channel in training,
    GraphcError without running statistics otherwise, DimError for less than two dimensions, UnsupportedError for integers.

    >>> F.batch_norm(graphc.tensor([[1.0], [3.0]]), None, None, training=True)
    tensor([[-1.0000],
            [ 1.0000]])
    """
    _need_floating(input, "batch_norm")
    shape = input._data.shape
    ndim = len(shape)
    if training and ndim and math.prod(shape[:1] + shape[2:]) == 1:
        raise ArgumentError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
    if 0 in shape:
        out = clone(input)
        # there is nothing to compute, but gradients go to them: zeros
        out = out if weight is None else out * weight.sum()
        return out if bias is None else out + bias.sum()
    if ndim < 2:
        raise DimError("Dimension out of range (expected to be in range of [-1, 0], but got 1)",
                       expected="an input [N, C] or [N, C, ...]", got=str(list(shape)))
    if not training and (running_mean is None or running_var is None):
        raise GraphcError("running_mean must be defined in evaluation mode" if running_mean is None else
                          "running_var must be defined in evaluation mode")
    for name, given in (("running_mean", running_mean), ("running_var", running_var), ("weight", weight), ("bias", bias)):
        if given is not None and given._data.shape != shape[1:2] and given.numel() != shape[1]:
            raise ShapeError(f"{name} should contain {shape[1]} elements not {given.numel()}")
    if not training:
        return _normalized(input, running_mean, running_var, weight, bias, eps)  # type: ignore[arg-type]  # neither is None
    mean, variance = _channel_moments(input)
    if running_mean is not None and running_var is not None:
        count = math.prod(shape[:1] + shape[2:])
        with no_grad():
            _track(running_mean, running_var, mean, variance, momentum, count / (count - 1))
    return _normalized(input, mean, variance, weight, bias, eps)


def _track(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, variance: Tensor, momentum: float | Tensor, unbiased: float
) -> None:
    """Move the running statistics towards what a batch has shown, whose variance is not unbiased."""
    new_mean, new_var = _moved(running_mean, running_var, mean, variance, momentum, unbiased)
    assign(running_mean, new_mean)
    assign(running_var, new_var)


@composite(large=False)
def _moved(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, variance: Tensor, momentum: float | Tensor, unbiased: float
) -> tuple[Tensor, Tensor]:
    kept = 1 - momentum
    return running_mean * kept + mean * momentum, running_var * kept + variance * unbiased * momentum


def _not_last(last: tuple[int, ...], shape: tuple[int, ...]) -> ShapeError:
    return ShapeError(f"Given normalized_shape={list(last)}, expected input with shape [*, {', '.join(map(str, last))}], "
                      f"but got input of size{list(shape)}")


@composite
def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimensions (Ba et al. 2016).

    ShapeError where `normalized_shape` is not the last sizes of the input, and for weights of another shape; GraphcError where
    it is empty, UnsupportedError for integers.

    >>> F.layer_norm(graphc.tensor([[1.0, 3.0]]), (2,))
    tensor([[-1.0000,  1.0000]])
    """
    last = tuple(normalized_shape)
    shape = tuple(input._data.shape)
    if len(last) < 1:
        raise GraphcError("Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element")
    if shape[len(shape) - len(last) :] != last:
        raise _not_last(last, shape)
    _check_affine(last, weight, bias)
    x = _wide(input, "LayerNormKernelImpl")
    mean, variance, _ = _moments(x, tuple(range(len(shape) - len(last), len(shape))))
    return _affine(ops.standardize(x, mean, rsqrt(variance + eps)), weight, bias, input, "NativeLayerNorm")


def _check_affine(last: tuple[int, ...], weight: Tensor | None, bias: Tensor | None) -> None:
    for name, given in (("weight", weight), ("bias", bias)):
        if given is not None and tuple(given._data.shape) != last:
            raise ShapeError(f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape "
                             f"{list(given.shape)} and normalized_shape = {list(last)}")


@composite
def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over groups of channels of [N, C, ...] (Wu and He 2018). C has to be a
    multiple of `num_groups`.

    GraphcError where it is not, and for less than two dimensions; ShapeError where weights are not one for each channel,
    ArgumentError for one value a group, UnsupportedError for integers.

    >>> F.group_norm(graphc.tensor([[1.0, 3.0, 5.0, 9.0]]), 2)
    tensor([[-1.0000,  1.0000, -1.0000,  1.0000]])
    """
    shape = tuple(input._data.shape)
    if len(shape) < 2:
        raise GraphcError(f"Expected at least 2 dimensions for input tensor but received {len(shape)}")
    if num_groups < 1 or shape[1] % num_groups:
        raise GraphcError(f"Expected number of channels in input to be divisible by num_groups, but got input of shape "
                          f"{list(shape)} and num_groups={num_groups}")
    for name, given in (("weight", weight), ("bias", bias)):
        if given is not None and tuple(given._data.shape) != (shape[1],):
            raise ShapeError(f"Expected {name} to be a vector of size equal to the number of channels in input, but got {name} "
                             f"of shape {list(given.shape)} and input of shape {list(shape)}")
    if shape[0] * (shape[1] // num_groups) * math.prod(shape[2:]) == 1:
        raise ArgumentError("Expected more than 1 value per channel when training, got input size "
                            f"{[shape[0] * shape[1] // num_groups, num_groups, *shape[2:]]}")
    x = _wide(input, "GroupNormKernelImpl")
    x = reshape(x, (shape[0], num_groups, shape[1] // num_groups * math.prod(shape[2:])))
    mean, variance, _ = _moments(x, (2,))
    out = reshape(ops.standardize(x, mean, rsqrt(variance + eps)), shape)
    weight, bias = (None if given is None else _along(given, len(shape)) for given in (weight, bias))
    return _affine(out, weight, bias, input, "NativeGroupNorm")


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                  weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Batch normalisation of every sample by itself (Ulyanov et al. 2016).

    ArgumentError for one value a channel, and for one running statistic without the other; GraphcError for none without
    `use_input_stats`, UnsupportedError for integers.

    >>> F.instance_norm(graphc.tensor([[[1.0, 3.0]]]))
    tensor([[[-1.0000,  1.0000]]])
    """
    shape = tuple(input._data.shape)
    if (running_mean is None) != (running_var is None):
        raise ArgumentError("running_mean and running_var must either both be None or neither be None")
    if not use_input_stats:
        if running_mean is None:
            raise GraphcError("Expected running_mean and running_var to be defined when use_input_stats is false")
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if math.prod(shape[2:]) == 1:
        raise ArgumentError(f"Expected more than 1 spatial element when training, got input size {input.shape}")
    x = _wide(input, "batch_norm")
    mean, variance, count = _moments(x, tuple(range(2, len(shape))))
    if running_mean is not None and running_var is not None:
        with no_grad():
            flat = (shape[0], shape[1])
            seen_mean, seen_var = (reshape(each, flat).mean(0) for each in (mean, variance))
            _track(running_mean, running_var, seen_mean, seen_var, momentum, count / (count - 1))
    weight, bias = (None if given is None else _along(given, len(shape)) for given in (weight, bias))
    return _affine(ops.standardize(x, mean, rsqrt(variance + eps)), weight, bias, input, "NativeBatchNorm")


@composite
def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions (Zhang and Sennrich 2019).

    ShapeError where `normalized_shape` is not the last sizes of the input, and for weights of another shape, UnsupportedError
    for integers.

    >>> F.rms_norm(graphc.tensor([[3.0, 4.0]]), (2,))
    tensor([[0.8485, 1.1314]])
    """
    last = tuple(normalized_shape)
    shape = tuple(input._data.shape)
    if shape[len(shape) - len(last) :] != last:
        raise _not_last(last, shape)
    _check_affine(last, weight, None)
    x = _wide(input, "rms_norm")
    axes = tuple(range(len(shape) - len(last), len(shape)))
    mean = emit(ops.sum, (x * x,), {"axes": axes}) / math.prod(last)
    floor = float(np.finfo(x.dtype.numpy).eps) if eps is None else eps
    return _affine(x * rsqrt(ops.keepdims(mean, shape, axes) + floor), weight, None, input, "FusedRmsNorm")


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """x / max(norm(x), eps) along a dimension.

    >>> F.normalize(graphc.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    return _divided_by_norm(input, p, dim, eps)


@composite
def _divided_by_norm(input: Tensor, p: float, dim: Any, eps: float) -> Tensor:
    length = norm(input, p, dim, keepdim=True)
    return input / length.clamp_min(eps).expand_as(input)


@full_precision
@composite
def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha * mean of the squares of `size` neighbouring channels)^beta, for [N, C, ...]; outside are zeros.

    Krizhevsky et al. 2012, with the mean in place of the sum.

    ArgumentError for less than three dimensions.

    >>> F.local_response_norm(graphc.ones(1, 2, 1), 2)
    tensor([[[1.0000],
             [0.9999]]])
    """
    shape = tuple(input._data.shape)
    if len(shape) < 3:
        raise ArgumentError(f"Expected 3D or higher dimensionality input (got {len(shape)} dimensions)")
    if 0 in shape:
        return input
    low = (0, size // 2, *(0,) * (len(shape) - 2))
    high = (0, (size - 1) // 2, *(0,) * (len(shape) - 2))
    squares = emit(ops.pad, (input * input,), {"low": low, "high": high, "value": 0})
    windows = emit(ops.window, (squares,), {"axis": 1, "size": size, "step": 1, "dilation": 1})
    total = emit(ops.sum, (windows,), {"axes": (len(shape),)})
    mean = total / size if input.dtype.is_floating_point else div(total, size, rounding_mode="trunc")
    return input / (mean * alpha + k) ** beta
