"""The nonlinear functions of neural networks."""

from __future__ import annotations

import math
import warnings

from graphc import ops
from graphc.errors import ArgumentError, GraphcError
from graphc.frontend.arguments import axis as one_axis
from graphc.frontend.arguments import emit
from graphc.frontend.composite import composite
from graphc.frontend.inplace import assign, refuse
from graphc.frontend.movement import reshape
from graphc.frontend.pointwise import abs, cast, clamp, erf, exp, expm1, log, log1p, sigmoid, tanh, where
from graphc.frontend.pointwise import relu as _relu
from graphc.frontend.random import dropout_mask
from graphc.frontend.splitting import chunk
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import DType

FUNCTIONS = "log_softmax softmax dropout selu celu prelu threshold"
METHODS = "log_softmax softmax"


def _written(input: Tensor, inplace: bool, compute: object) -> Tensor:
    """The result of `compute(input)`, written into the input if asked to."""
    if not inplace:
        return compute(input)  # type: ignore[operator]
    refuse(input)
    return assign(input, compute(input))  # type: ignore[operator]


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(0, x)."""
    return _written(input, inplace, _relu)


def relu_(input: Tensor) -> Tensor:
    """max(0, x), in place."""
    return relu(input, True)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(0, x), 6)."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x, cut off at both ends."""
    if min_val > max_val:
        raise ArgumentError("min_val cannot be greater than max_val")
    if not input.dtype.is_floating_point:
        return _written(input, inplace, lambda x: clamp(x, int(min_val), int(max_val)))
    return _written(input, inplace, lambda x: named(_open_clamp(x, min_val, max_val), "Hardtanh"))


@composite
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x; with approximate="tanh" by the formula of Hendrycks and Gimpel."""
    if approximate == "none":
        out = input * 0.5 * (1.0 + erf(input * math.sqrt(0.5)))
    elif approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (input + 0.044715 * (input * input * input))
        out = 0.5 * input * (1.0 + tanh(inner))
    else:
        raise GraphcError("approximate argument must be either none or tanh.", got=repr(approximate))
    return named(out, "Gelu")


@composite
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    return _written(input, inplace, lambda x: named(x * sigmoid(x), "Silu"))


@composite
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x))."""
    return _written(input, inplace, lambda x: named(x * tanh(softplus(x)), "Mish"))


@composite
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta; x itself where beta x is over the threshold."""
    scaled = input if beta == 1 else input * beta
    smooth = log1p(exp(where(scaled > threshold, 0.0, scaled)))
    return named(where(scaled > threshold, input, smooth if beta == 1 else smooth / beta), "Softplus")


@composite
def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return named(input / (abs(input) + 1), "Div")


@composite
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else alpha (exp(x) - 1)."""
    return _written(input, inplace, lambda x: named(_elu(x, alpha, 1.0, 1.0), "Elu"))


def _elu(x: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    low = expm1(where(x > 0, 0.0, x) * input_scale) * (alpha * scale)
    return where(x > 0, x if scale == 1 else x * scale, low)


@composite
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * elu(x) with the constants that keep mean and variance (Klambauer et al. 2017)."""
    return _written(input, inplace, lambda x: named(_elu(x, 1.6732632423543772, 1.0507009873554805, 1.0), "Selu"))


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    return _written(input, inplace, lambda x: named(_elu(x, alpha, 1.0, 1.0 / alpha), "Celu"))


@composite
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, else negative_slope * x."""
    return _written(input, inplace, lambda x: named(where(x > 0, x, x * negative_slope), "LeakyRelu"))


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where positive, else weight * x, with a weight a channel or one for all."""
    if weight.ndim > 1:
        raise GraphcError(f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.ndim}")
    if weight.numel() == 1:
        weight = reshape(weight, ())
    else:
        if input.ndim == 0:
            raise GraphcError("Not allow zero-dim input tensor.")
        channels = input._data.shape[1] if input.ndim > 1 else 1
        if channels != weight.numel():
            raise GraphcError("Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                              f"{weight.numel()} and channel size = {channels}.")
        if input.ndim > 1:
            weight = reshape(weight, (1, -1, *(1,) * (input.ndim - 2)))
    return named(where(input > 0, input, input * weight), "PreluKernel")


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where it is over the threshold, else the value."""
    return _written(input, inplace, lambda x: named(where(x > threshold, x, value), "Threshold"))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return _written(input, inplace, lambda x: named(_open_clamp(x + 3.0, 0.0, 6.0) / 6.0, "Hardsigmoid"))


def _open_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """clamp whose gradient is zero at the ends."""
    return where((x > low) & (x < high), x, where(x >= high, high, where(x != x, x, low)))


@composite
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * min(max(x + 3, 0), 6) / 6."""
    return _written(input, inplace, lambda x: named(where(x <= -3, 0.0, where(x >= 3, x, x * (x + 3) / 6)), "Hardswish"))


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambd, else 0."""
    return named(where((input >= -lambd) & (input <= lambd), 0.0, input), "Hardshrink")


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x, moved towards zero by lambd."""
    if lambd < 0:
        raise GraphcError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    out = where(input > lambd, input - lambd, where(input < -lambd, input + lambd, where(input != input, input, 0.0)))
    return named(out, "Softshrink")


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return named(input - tanh(input), "Sub")


@composite
def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x))."""
    return named(-log1p_exp_of_negative(input), "LogSigmoid")


def log1p_exp_of_negative(input: Tensor) -> Tensor:
    """log(1 + exp(-x)) for any x: with m = max(-x, 0), m + log(exp(-m) + exp(-x - m)), whose slope in m is zero."""
    top = clamp(-input.detach(), min=0)
    return top + log1p(exp(-input - top) + expm1(-top))


@composite
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half times the sigmoid of the second half."""
    size = input.size(dim)
    if size % 2:
        raise GraphcError(f"Halving dimension must be even, but dimension {dim} is size {size}")
    left, right = chunk(input, 2, dim)
    return named(left * sigmoid(right), "Glu")


def _softmax_dim(name: str, ndim: int) -> int:
    warnings.warn(f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
                  stacklevel=4)
    return 0 if ndim in (0, 1, 3) else 1


def _shifted(input: Tensor, dim: int | None, name: str, dtype: DType | None) -> tuple[Tensor, tuple[int, ...]]:
    """The input less its maximum, which changes nothing and keeps exp from overflowing."""
    if dtype is not None:
        input = cast(input, dtype)
    elif not input.dtype.is_floating_point:
        raise GraphcError(f'"{name}_lastdim_kernel_impl" not implemented for {input.dtype.name}',
                          expected="a floating-point dtype, or dtype=float32", got=input.dtype.name)
    shape = input._data.shape
    at = one_axis(_softmax_dim(name, len(shape)) if dim is None else dim, len(shape))
    axes = (at,) if shape else ()
    if shape and shape[at] == 0:
        return input, axes
    top = emit(ops.amax, (input.detach(),), {"axes": axes})
    return input - (ops.keepdims(top, shape, axes) if axes else top), axes


@composite
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along a dimension."""
    shifted, axes = _shifted(input, dim, "softmax", dtype)
    powers = exp(shifted)
    total = emit(ops.sum, (powers,), {"axes": axes})
    return named(powers / (ops.keepdims(total, input._data.shape, axes) if axes else total), "Softmax")


@composite
def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """log(softmax(x)) along a dimension."""
    shifted, axes = _shifted(input, dim, "log_softmax", dtype)
    total = log(emit(ops.sum, (exp(shifted),), {"axes": axes}))
    return named(shifted - (ops.keepdims(total, input._data.shape, axes) if axes else total), "LogSoftmax")


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """softmax(-x)."""
    return softmax(-input, dim, dtype=dtype)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element zeroed with probability p, the others scaled by 1 / (1 - p); the input itself when not training."""
    if p < 0.0 or p > 1.0:
        raise ArgumentError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    return _written(input, inplace, lambda x: named(_dropped(x, p, tuple(x._data.shape)), "Mul"))


def _dropped(x: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    if p == 1:
        return x * 0.0
    return where(dropout_mask(shape, p), x * (1 / (1 - p)), 0.0)


def _channel_dropout(input: Tensor, p: float, training: bool, inplace: bool, dims: int) -> Tensor:
    """Whole channels of [N, C, ...] or [C, ...] zeroed together."""
    if p < 0.0 or p > 1.0:
        raise ArgumentError(f"dropout probability has to be between 0 and 1, but got {p}")
    shape = tuple(input._data.shape)
    if len(shape) not in (dims + 1, dims + 2):
        raise GraphcError(f"dropout{dims}d: Expected {dims + 1}D or {dims + 2}D input, but received a {len(shape)}D input")
    if not training or p == 0:
        return input
    channels = (*shape[: len(shape) - dims], *(1,) * dims)
    return _written(input, inplace, lambda x: named(_dropped(x, p, channels), "Mul"))


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of [N, C, L] or [C, L]."""
    return _channel_dropout(input, p, training, inplace, 1)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of [N, C, H, W] or [C, H, W]."""
    return _channel_dropout(input, p, training, inplace, 2)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of [N, C, D, H, W] or [C, D, H, W]."""
    return _channel_dropout(input, p, training, inplace, 3)

