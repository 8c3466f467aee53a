"""Folding a batch normalisation that is no longer trained into the layer before it."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from graphc.errors import GraphcError
from graphc.frontend.creation_like import ones_like, zeros_like
from graphc.frontend.movement import reshape
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.pointwise import rsqrt
from graphc.frontend.tensor import Tensor

M = TypeVar("M", bound=Module)


def _scale_and_shift(bias: Tensor | None, mean: Tensor, var: Tensor, eps: float, weight: Tensor | None,
                     shift: Tensor | None) -> tuple[Tensor, Tensor]:
    """By what the layer's weight is multiplied, and its new bias."""
    scale = rsqrt(var + eps) * (ones_like(mean) if weight is None else weight)
    bias = zeros_like(mean) if bias is None else bias
    return scale, (bias - mean) * scale + (zeros_like(mean) if shift is None else shift)


def fuse_conv_bn_weights(conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
                         bn_w: Tensor | None, bn_b: Tensor | None, transpose: bool = False) -> tuple[Parameter, Parameter]:
    """Weight and bias of the convolution that does what a convolution and a batch normalisation do one after the other.

    >>> norm = nn.BatchNorm2d(4)
    >>> weight, bias = nn.utils.fuse_conv_bn_weights(
    ...     graphc.ones(4, 3, 1, 1), None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    >>> weight.shape, bias.shape
    (graphc.Size([4, 3, 1, 1]), graphc.Size([4]))
    """
    scale, bias = _scale_and_shift(conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)
    ones = (1,) * (conv_w.dim() - 2)
    shape = (1, -1, *ones) if transpose else (-1, 1, *ones)
    weight = (conv_w * reshape(scale, shape)).to(conv_w.dtype)
    return (Parameter(weight.detach(), conv_w.requires_grad),
            Parameter(bias.to(conv_w.dtype if conv_b is None else conv_b.dtype).detach(),
                      conv_w.requires_grad if conv_b is None else conv_b.requires_grad))


def fuse_conv_bn_eval(conv: M, bn: Module, transpose: bool = False) -> M:
    """A copy of a convolution that also does what the batch normalisation after it does; both in eval mode.

    GraphcError for layers in training, and for a normalisation without running statistics.

    >>> conv, norm = nn.Conv2d(3, 4, 3).eval(), nn.BatchNorm2d(4).eval()
    >>> fused = nn.utils.fuse_conv_bn_eval(conv, norm)
    >>> x = graphc.randn(1, 3, 5, 5)
    >>> graphc.allclose(fused(x), norm(conv(x)), atol=1e-5)
    True
    """
    fused, norm = _evaluated(conv, bn)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        fused.weight, fused.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias, transpose)
    return fused


def fuse_linear_bn_weights(linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor, bn_eps: float,
                           bn_w: Tensor | None, bn_b: Tensor | None) -> tuple[Parameter, Parameter]:
    """Weight and bias of the linear layer that does what a linear layer and a batch normalisation do one after the other.

    >>> norm = nn.BatchNorm1d(4)
    >>> weight, bias = nn.utils.fuse_linear_bn_weights(
    ...     graphc.ones(4, 3), None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    >>> weight.shape, bias.shape
    (graphc.Size([4, 3]), graphc.Size([4]))
    """
    scale, bias = _scale_and_shift(linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)
    weight = linear_w * reshape(scale, (-1, 1))
    return (Parameter(weight.to(linear_w.dtype).detach(), linear_w.requires_grad),
            Parameter(bias.to(linear_w.dtype if linear_b is None else linear_b.dtype).detach(),
                      linear_w.requires_grad if linear_b is None else linear_b.requires_grad))


def fuse_linear_bn_eval(linear: M, bn: Module) -> M:
    """A copy of a linear layer that also does what the batch normalisation after it does; both in eval mode.

    GraphcError for layers in training, for a normalisation without running statistics, or of another number of features.

    >>> linear, norm = nn.Linear(3, 4).eval(), nn.BatchNorm1d(4).eval()
    >>> fused = nn.utils.fuse_linear_bn_eval(linear, norm)
    >>> x = graphc.randn(5, 3)
    >>> graphc.allclose(fused(x), norm(linear(x)), atol=1e-5)
    True
    """
    fused, norm = _evaluated(linear, bn)
    if fused.out_features != norm.num_features and norm.num_features != 1:
        raise GraphcError("To fuse, linear.out_features == bn.num_features or bn.num_features == 1",
                          got=f"{fused.out_features} and {norm.num_features}")
    fused.weight, fused.bias = fuse_linear_bn_weights(
        fused.weight, fused.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    return fused


def _evaluated(layer: M, norm: Module) -> tuple[Any, Any]:
    """A copy of the layer, and the norm; an error unless both are in eval mode."""
    if layer.training or norm.training:
        raise GraphcError("Fusion only for eval!", hint="call eval() on both")
    if norm.running_mean is None or norm.running_var is None:
        raise GraphcError("fusion: the batch normalisation has no running statistics", hint="track_running_stats=True")
    return copy.deepcopy(layer), norm
