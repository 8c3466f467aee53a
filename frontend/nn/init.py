"""Initial values of parameters. Every function changes its tensor in place, outside the graph, and returns it."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.linalg_factors import qr
from graphc.frontend.modes import no_grad
from graphc.frontend.random import randperm
from graphc.frontend.tensor import Tensor
from graphc.frontend.triangles import eye as identity


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """By what the standard deviation is multiplied for a nonlinearity, so that variances stay as they are.

    ArgumentError for another nonlinearity, and for a slope that is no number.

    >>> nn.init.calculate_gain("relu")
    1.4142135623730951
    """
    if nonlinearity in ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
                        "sigmoid"):
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ArgumentError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ArgumentError(f"Unsupported nonlinearity {nonlinearity}")


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    if tensor.dim() < 2:
        raise ArgumentError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions",
                            got=str(list(tensor.shape)))
    area = math.prod(tensor.shape[2:])
    return tensor.shape[1] * area, tensor.shape[0] * area


def _fan(tensor: Tensor, mode: str) -> int:
    if mode.lower() not in ("fan_in", "fan_out"):
        raise ArgumentError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    return _calculate_fan_in_and_fan_out(tensor)[mode.lower() == "fan_out"]


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Overwrite with numbers uniform on [a, b), without a gradient; returns the tensor.

    >>> w = nn.init.uniform_(graphc.empty(100), 2, 3)
    >>> bool(((w >= 2) & (w < 3)).all())
    True
    """
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Overwrite with normal numbers, without a gradient; returns the tensor.

    >>> nn.init.normal_(graphc.empty(2), mean=3.0, std=0.0)
    tensor([3., 3.])
    """
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
                  generator: Any = None) -> Tensor:
    """Normal, cut off to [a, b], by the inverse of the distribution function.

    >>> w = nn.init.trunc_normal_(graphc.empty(100), std=2.0, a=-1.0, b=1.0)
    >>> bool((w.abs() <= 1).all())
    True
    """
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn("mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of values may be "
                      "incorrect.", stacklevel=2)

    def quantile(x: float) -> float:
        return math.erf((x - mean) / std / math.sqrt(2.0))

    with no_grad():
        tensor.uniform_(quantile(a), quantile(b), generator=generator)
        return tensor.erfinv_().mul_(std * math.sqrt(2.0)).add_(mean).clamp_(a, b)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """One number everywhere.

    >>> nn.init.constant_(graphc.empty(2), 0.3)
    tensor([0.3000, 0.3000])
    """
    with no_grad():
        return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """Ones.

    >>> nn.init.ones_(graphc.empty(2))
    tensor([1., 1.])
    """
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros.

    >>> nn.init.zeros_(graphc.empty(2))
    tensor([0., 0.])
    """
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix.

    ArgumentError for what is no matrix.

    >>> nn.init.eye_(graphc.empty(2, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    if tensor.dim() != 2:
        raise ArgumentError("Only tensors with 2 dimensions are supported", got=str(list(tensor.shape)))
    with no_grad():
        return tensor.copy_(identity(*tensor.shape, dtype=tensor.dtype))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution that passes its input on.

    ArgumentError unless there are 3 to 5 dimensions, and where `groups` does not divide the first.

    >>> x = graphc.randn(1, 2, 5, 5)
    >>> graphc.allclose(F.conv2d(x, nn.init.dirac_(graphc.empty(2, 2, 3, 3)), padding=1), x)
    True
    """
    if tensor.dim() not in (3, 4, 5):
        raise ArgumentError("Only tensors with 3, 4, or 5 dimensions are supported", got=str(list(tensor.shape)))
    if tensor.shape[0] % groups:
        raise ArgumentError("dim 0 must be divisible by groups", got=f"{tensor.shape[0]} and groups={groups}")
    each = tensor.shape[0] // groups
    middle = tuple(s // 2 for s in tensor.shape[2:])
    with no_grad():
        tensor.zero_()
        for g in range(groups):
            for d in range(min(each, tensor.shape[1])):
                tensor[(g * each + d, d, *middle)] = 1
    return tensor


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Uniform within gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).

    ArgumentError for less than two dimensions.

    >>> nn.init.xavier_uniform_(graphc.empty(3, 5), gain=nn.init.calculate_gain("relu")).shape
    graphc.Size([3, 5])
    """
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Normal with deviation gain * sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio 2010).

    ArgumentError for less than two dimensions.

    >>> nn.init.xavier_normal_(graphc.empty(3, 5)).shape
    graphc.Size([3, 5])
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor))), generator)


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                     generator: Any = None) -> Tensor:
    """Uniform within gain * sqrt(3 / fan) (He et al. 2015).

    ArgumentError for less than two dimensions, and for another mode than "fan_in" and "fan_out".

    >>> nn.init.kaiming_uniform_(graphc.empty(3, 5), nonlinearity="relu").shape
    graphc.Size([3, 5])
    """
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    bound = math.sqrt(3.0) * calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                    generator: Any = None) -> Tensor:
    """Normal with deviation gain / sqrt(fan) (He et al. 2015).

    ArgumentError for less than two dimensions, and for another mode than "fan_in" and "fan_out".

    >>> nn.init.kaiming_normal_(graphc.empty(3, 5), mode="fan_out", nonlinearity="relu").shape
    graphc.Size([3, 5])
    """
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """A random orthogonal matrix times gain (Saxe et al. 2013); further dimensions count as columns.

    ArgumentError for less than two dimensions.

    >>> w = nn.init.orthogonal_(graphc.empty(3, 3))
    >>> graphc.allclose(w @ w.T, graphc.eye(3), atol=1e-6)
    True
    """
    if tensor.dim() < 2:
        raise ArgumentError("Only tensors with 2 or more dimensions are supported", got=str(list(tensor.shape)))
    if tensor.numel() == 0:
        return tensor
    rows = tensor._data.shape[0]
    columns = tensor.numel() // rows
    with no_grad():
        drawn = tensor.new_empty((rows, columns)).normal_(0, 1, generator=generator)
        q, r = qr(drawn.t() if rows < columns else drawn)
        q = q * r.diagonal().sign()  # uniform over all orthogonal matrices
        return tensor.copy_((q.t() if rows < columns else q).reshape(tensor.shape) * gain)


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Normal, but for a share of zeros at random places of each column (Martens 2010).

    ArgumentError for what is no matrix.

    >>> w = nn.init.sparse_(graphc.empty(10, 3), sparsity=0.3)
    >>> (w == 0).sum(0)
    tensor([3, 3, 3])
    """
    if tensor.dim() != 2:
        raise ArgumentError("Only tensors with 2 dimensions are supported", got=str(list(tensor.shape)))
    rows, columns = tensor._data.shape
    zeros = math.ceil(sparsity * rows)
    with no_grad():
        tensor.normal_(0, std, generator=generator)
        for column in range(columns):
            tensor[randperm(rows, generator=generator)[:zeros], column] = 0
    return tensor


def _older(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function under the name that it had before it got an underscore."""
    name = function.__name__.rstrip("_")

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Tensor:
        warnings.warn(f"`nn.init.{name}` is now deprecated in favor of `nn.init.{name}_`.", FutureWarning, stacklevel=2)
        return function(*args, **kwargs)

    call.__name__ = name
    return call


uniform, normal, constant = _older(uniform_), _older(normal_), _older(constant_)
eye, dirac = _older(eye_), _older(dirac_)
xavier_uniform, xavier_normal = _older(xavier_uniform_), _older(xavier_normal_)
kaiming_uniform, kaiming_normal = _older(kaiming_uniform_), _older(kaiming_normal_)
orthogonal, sparse = _older(orthogonal_), _older(sparse_)

__all__ = [
    "calculate_gain", "constant", "constant_", "dirac", "dirac_", "eye", "eye_", "kaiming_normal", "kaiming_normal_",
    "kaiming_uniform", "kaiming_uniform_", "normal", "normal_", "ones_", "orthogonal", "orthogonal_", "sparse", "sparse_",
    "trunc_normal_", "uniform", "uniform_", "xavier_normal", "xavier_normal_", "xavier_uniform", "xavier_uniform_", "zeros_",
]  # fmt: skip
