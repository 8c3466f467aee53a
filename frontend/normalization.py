"""Batch, layer and group normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, GraphcError, ShapeError
from graphc.frontend.arguments import emit
from graphc.frontend.composite import composite
from graphc.frontend.inplace import assign
from graphc.frontend.modes import no_grad
from graphc.frontend.movement import reshape
from graphc.frontend.pointwise import rsqrt
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor


def _moments(input: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Any]:
    """Mean and (biased) variance over dimensions that stay with size 1, and the count of elements."""
    shape = input._data.shape
    count = math.prod(shape[a] for a in axes)
    mean = ops.keepdims(emit(ops.sum, (input,), {"axes": axes}) / count, shape, axes)
    spread = input - mean
    variance = ops.keepdims(emit(ops.sum, (spread * spread,), {"axes": axes}) / count, shape, axes)
    return mean, variance, count


def _along(x: Tensor, ndim: int) -> Tensor:
    """A number a channel, as it stretches over [N, C, ...]."""
    return reshape(x, (1, -1, *(1,) * (ndim - 2)))


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float | Tensor = 0.1,
               eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias, a channel at a time (Ioffe and Szegedy 2015).

    Training takes mean and variance from the batch, and moves the running ones towards them by `momentum`; otherwise the
    running ones are taken.
    """
    ndim = len(input._data.shape)
    if ndim < 2:
        raise ShapeError(f"batch_norm: expected an input of at least 2 dimensions, got {list(input.shape)}")
    axes = (0, *range(2, ndim))
    if training:
        size = math.prod(input._data.shape[a] for a in axes)
        if size == 1:
            raise ArgumentError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
        mean, variance, count = _moments(input, axes)
        if running_mean is not None and running_var is not None:
            with no_grad():
                flat = tuple(running_mean._data.shape)
                seen = reshape(mean.detach(), flat)
                spread = reshape(variance.detach(), flat) * (count / (count - 1))
                assign(running_mean, running_mean * (1 - momentum) + seen * momentum)
                assign(running_var, running_var * (1 - momentum) + spread * momentum)
    else:
        if running_mean is None or running_var is None:
            raise GraphcError("Expected running_mean and running_var to be defined when training=False")
        for name, x in (("running_mean", running_mean), ("weight", weight)):
            if x is not None and x.numel() != input._data.shape[1]:
                raise ShapeError(f"{name} should contain {input._data.shape[1]} elements not {x.numel()}")
        mean, variance = _along(running_mean, ndim), _along(running_var, ndim)
    scale = rsqrt(variance + eps)
    if weight is not None:
        scale = scale * _along(weight, ndim)
    out = (input - mean) * scale
    if bias is not None:
        out = out + _along(bias, ndim)
    return named(out, "NativeBatchNorm")


def _not_last(last: tuple[int, ...], shape: tuple[int, ...]) -> ShapeError:
    return ShapeError(f"Given normalized_shape={list(last)}, expected input with shape [*, {', '.join(map(str, last))}], "
                      f"but got input of size{list(shape)}")


@composite
def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last dimensions (Ba et al. 2016)."""
    last = tuple(normalized_shape)
    shape = tuple(input._data.shape)
    if len(last) < 1:
        raise GraphcError("Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element")
    if shape[len(shape) - len(last) :] != last:
        raise _not_last(last, shape)
    mean, variance, _ = _moments(input, tuple(range(len(shape) - len(last), len(shape))))
    out = (input - mean) * rsqrt(variance + eps)
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    return named(out, "NativeLayerNorm")


@composite
def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over groups of channels (Wu and He 2018)."""
    shape = tuple(input._data.shape)
    if len(shape) < 2:
        raise GraphcError(f"Expected at least 2 dimensions for input tensor but received {len(shape)}")
    if shape[1] % num_groups:
        raise GraphcError(f"Expected number of channels in input to be divisible by num_groups, but got input of shape "
                          f"{list(shape)} and num_groups={num_groups}")
    x = reshape(input, (shape[0], num_groups, -1))
    mean, variance, _ = _moments(x, (2,))
    out = reshape((x - mean) * rsqrt(variance + eps), shape)
    if weight is not None:
        out = out * _along(weight, len(shape))
    if bias is not None:
        out = out + _along(bias, len(shape))
    return named(out, "NativeGroupNorm")


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                  weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Batch normalisation of every sample by itself (Ulyanov et al. 2016)."""
    shape = tuple(input._data.shape)
    axes = tuple(range(2, len(shape)))
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if math.prod(shape[2:]) == 1:
        raise ArgumentError(f"Expected more than 1 spatial element when training, got input size {input.shape}")
    mean, variance, count = _moments(input, axes)
    if running_mean is not None and running_var is not None:
        with no_grad():
            flat = (shape[0], shape[1])
            seen = reshape(mean.detach(), flat).mean(0)
            spread = (reshape(variance.detach(), flat) * (count / (count - 1))).mean(0)
            assign(running_mean, running_mean * (1 - momentum) + seen * momentum)
            assign(running_var, running_var * (1 - momentum) + spread * momentum)
    out = (input - mean) * rsqrt(variance + eps)
    if weight is not None:
        out = out * _along(weight, len(shape))
    if bias is not None:
        out = out + _along(bias, len(shape))
    return out


@composite
def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions (Zhang and Sennrich 2019)."""
    last = tuple(normalized_shape)
    shape = tuple(input._data.shape)
    if shape[len(shape) - len(last) :] != last:
        raise _not_last(last, shape)
    axes = tuple(range(len(shape) - len(last), len(shape)))
    mean = emit(ops.sum, (input * input,), {"axes": axes}) / math.prod(last)
    floor = float(np.finfo(input.dtype.numpy).eps) if eps is None else eps
    out = input * rsqrt(ops.keepdims(mean, shape, axes) + floor)
    return out if weight is None else out * weight


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """x / max(norm(x), eps) along a dimension."""
    from graphc.frontend.linalg_norms import norm

    length = norm(input, p, dim, keepdim=True)
    return input / length.clamp_min(eps).expand_as(input)



