"""The nonlinear functions of neural networks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

from graphc import ops
from graphc.errors import ArgumentError, DTypeError, GraphcError, UnsupportedError
from graphc.frontend.arguments import axis as one_axis
from graphc.frontend.arguments import emit
from graphc.frontend.autocast import lowered
from graphc.frontend.composite import composite
from graphc.frontend.inplace import assign, refuse
from graphc.frontend.modes import mode, no_grad
from graphc.frontend.movement import reshape, unsqueeze
from graphc.frontend.pointwise import abs, cast, clamp, erf, exp, expm1, log, log1p, sigmoid, tanh, where
from graphc.frontend.pointwise import relu as _relu
from graphc.frontend.random import rand
from graphc.frontend.splitting import chunk
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import DType, bool_, float16, float32, int64

FUNCTIONS = """
    celu celu_ hardshrink log_softmax prelu relu_ rrelu rrelu_ selu selu_ softmax threshold threshold_
"""
METHODS = "hardshrink log_softmax prelu softmax"


def written(input: Tensor, inplace: bool, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """The result of `compute(input)`, written into the input if asked to."""
    if not inplace:
        return compute(input)
    refuse(input)
    return assign(input, compute(input))


def _computed(input: Tensor, kernel: str, name: str, compute: Callable[[Tensor], Tensor], inplace: bool = False) -> Tensor:
    """`written` for floating-point numbers: those of 16 bits are computed in single precision and rounded once."""
    if not input.dtype.is_floating_point:
        raise UnsupportedError(f'"{kernel}" not implemented for {input.dtype.name}', expected="a floating-point dtype",
                               hint="input.float()")
    if input.dtype.bits > 16:
        return written(input, inplace, lambda x: named(compute(x), name))
    return written(input, inplace, lambda x: named(cast(compute(cast(x, float32)), x.dtype), name))


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(0, x); the gradient at 0 is 0. With `inplace` written over the input.

    GraphcError for bools.

    >>> F.relu(graphc.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if input.dtype is bool_:
        raise GraphcError("Boolean inputs not supported for relu")
    return input.relu_() if inplace else _relu(input)


def relu_(input: Tensor) -> Tensor:
    """max(0, x), in place: the input itself is changed, and returned.

    GraphcError for bools.

    >>> x = graphc.tensor([-1.0, 2.0])
    >>> graphc.relu_(x) is x, x
    (True, tensor([0., 2.]))
    """
    return relu(input, True)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(0, x), 6).

    UnsupportedDTypeError for complex numbers.

    >>> F.relu6(graphc.tensor([-1.0, 3.0, 8.0]))
    tensor([0., 3., 6.])
    """
    return hardtanh(input, 0.0, 6.0, inplace)


@composite
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x, cut off at both ends: from min_val to max_val.

    ArgumentError where min_val is greater than max_val.

    >>> F.hardtanh(graphc.tensor([-2.0, 0.5, 3.0]))
    tensor([-1.0000,  0.5000,  1.0000])
    """
    if min_val > max_val:
        raise ArgumentError("min_val cannot be greater than max_val", got=f"{min_val} and {max_val}")
    if not input.dtype.is_floating_point:
        return written(input, inplace, lambda x: clamp(x, int(min_val), int(max_val)))
    return written(input, inplace, lambda x: named(_open_clamp(x, min_val, max_val), "Hardtanh"))


@composite
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x; with approximate="tanh" by the formula of Hendrycks and Gimpel.

    GraphcError for another approximation; UnsupportedError for integers and bools.

    >>> F.gelu(graphc.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.1587,  0.0000,  0.8413])
    >>> F.gelu(graphc.tensor([-1.0, 0.0, 1.0]), approximate="tanh")
    tensor([-0.1588,  0.0000,  0.8412])
    """
    if approximate not in ("none", "tanh"):
        raise GraphcError("approximate argument must be either none or tanh.", got=repr(approximate))
    return _computed(input, "GeluKernelImpl", "Gelu", _gelu if approximate == "none" else _tanh_gelu)


def _gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + erf(x * math.sqrt(0.5)))


def _tanh_gelu(x: Tensor) -> Tensor:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
    return 0.5 * x * (1.0 + tanh(inner))


@composite
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x).

    UnsupportedError for integers and bools.

    >>> F.silu(graphc.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.2689,  0.0000,  0.7311])
    """
    return _computed(input, "silu_cpu", "Silu", lambda x: x * sigmoid(x), inplace)


@composite
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)).

    UnsupportedError for integers and bools.

    >>> F.mish(graphc.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.3034,  0.0000,  0.8651])
    """
    return _computed(input, "mish_cpu", "Mish", lambda x: x * tanh(softplus(x)), inplace)


@composite
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta; x itself where beta x is over the threshold.

    UnsupportedError for integers and bools.

    >>> F.softplus(graphc.tensor([-1.0, 0.0, 30.0]))
    tensor([ 0.3133,  0.6931, 30.0000])
    """

    def compute(x: Tensor) -> Tensor:
        scaled = x if beta == 1 else x * beta
        smooth = log1p(exp(where(scaled > threshold, 0.0, scaled)))
        return where(scaled > threshold, x, smooth if beta == 1 else smooth / beta)

    return _computed(input, "softplus_cpu", "Softplus", compute)


@composite
def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|).

    UnsupportedDTypeError for bools.

    >>> F.softsign(graphc.tensor([-1.0, 3.0]))
    tensor([-0.5000,  0.7500])
    """
    return named(input / (abs(input) + 1), "Div")


@composite
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else alpha (exp(x) - 1).

    UnsupportedError for integers and bools.

    >>> F.elu(graphc.tensor([-1.0, 2.0]))
    tensor([-0.6321,  2.0000])
    """
    return _computed(input, "elu_cpu", "Elu", lambda x: _elu(x, alpha, 1.0, 1.0), inplace)


def _elu(x: Tensor, alpha: float, scale: float, input_scale: float) -> Tensor:
    low = expm1(where(x <= 0, x, 0.0) * input_scale) * (alpha * scale)
    return where(x <= 0, low, x if scale == 1 else x * scale)


@composite
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * elu(x) with the constants that keep mean and variance (Klambauer et al. 2017).

    UnsupportedError for integers and bools.

    >>> F.selu(graphc.tensor([-1.0, 1.0]))
    tensor([-1.1113,  1.0507])
    """
    return _computed(input, "elu_cpu", "Selu", lambda x: _elu(x, 1.6732632423543772, 1.0507009873554805, 1.0), inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)).

    GraphcError where alpha is 0, UnsupportedError for integers and bools.

    >>> F.celu(graphc.tensor([-1.0, 2.0]), alpha=0.5)
    tensor([-0.4323,  2.0000])
    """
    if alpha == 0:
        raise GraphcError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _computed(input, "elu_cpu", "Celu", lambda x: _elu(x, alpha, 1.0, 1.0 / alpha), inplace)


@composite
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, else negative_slope * x.

    UnsupportedError for integers and bools.

    >>> F.leaky_relu(graphc.tensor([-1.0, 2.0]))
    tensor([-0.0100,  2.0000])
    """
    return _computed(input, "leaky_relu_cpu", "LeakyRelu", lambda x: where(x > 0, x, x * negative_slope), inplace)


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
          inplace: bool = False) -> Tensor:
    """x where positive, else a * x, with `a` in training uniform from lower to upper, and else the middle of the two.

    GraphcError where lower is more than upper, UnsupportedError for integers and bools.

    >>> F.rrelu(graphc.tensor([-1.0, 2.0]))
    tensor([-0.2292,  2.0000])
    """
    if lower > upper:
        raise GraphcError("Lower bound should be less than or equal to the upper bound", got=f"{lower} and {upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    with no_grad():
        slopes = rand(tuple(input._data.shape), dtype=input.dtype, device=input.device) * (upper - lower) + lower
    return _computed(input, "rrelu_with_noise_cpu", "RreluWithNoise", lambda x: where(x > 0, x, x * slopes), inplace)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where positive, else weight * x, with a weight a channel or one for all.

    DTypeError where the dtypes differ, GraphcError for weights of several dimensions.

    >>> F.prelu(graphc.tensor([[-1.0, -1.0]]), graphc.tensor([0.1, 0.5]))
    tensor([[-0.1000, -0.5000]])
    """
    if mode.autocast is not None:
        input, weight = lowered(input, mode.autocast), lowered(weight, mode.autocast)
    if weight.dtype is not input.dtype:
        raise DTypeError(f"prelu: Type promoting not supported. Got {input.dtype.name} and {weight.dtype.name}")
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
    """x where it is over the threshold, else the value.

    >>> F.threshold(graphc.tensor([0.5, 2.0]), 1.0, -1.0)
    tensor([-1.,  2.])
    """
    return _threshold(input, threshold, value, inplace)


@composite(large=False)
def _threshold(input: Tensor, threshold: float, value: float, inplace: bool) -> Tensor:
    return written(input, inplace, lambda x: named(where(x <= threshold, value, x), "Threshold"))


@composite
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6.

    UnsupportedError for integers and bools.

    >>> F.hardsigmoid(graphc.tensor([-4.0, 0.0, 1.5]))
    tensor([0.0000, 0.5000, 0.7500])
    """
    return _computed(input, "hardsigmoid_cpu", "Hardsigmoid", lambda x: _open_clamp(x + 3.0, 0.0, 6.0) / 6.0, inplace)


def _open_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """clamp whose gradient is zero at the ends."""
    return where((x > low) & (x < high), x, where(x >= high, high, where(x <= low, low, math.nan)))


@composite
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * min(max(x + 3, 0), 6) / 6.

    UnsupportedError for integers and bools.

    >>> F.hardswish(graphc.tensor([-4.0, 1.0, 4.0]))
    tensor([0.0000, 0.6667, 4.0000])
    """
    return _computed(input, "hardswish_cpu", "Hardswish", _hardswish, inplace)


def _hardswish(x: Tensor) -> Tensor:
    low, high = x <= -3, x >= 3
    middle = where(low | high, 0.0, x)
    return where(low, 0.0, where(high, x, middle * (middle + 3) / 6))


@composite
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where |x| > lambd, else 0.

    UnsupportedError for integers and bools.

    >>> F.hardshrink(graphc.tensor([-1.0, 0.25]))
    tensor([-1.,  0.])
    """
    return _computed(input, "hardshrink_cpu", "Hardshrink", lambda x: where((x >= -lambd) & (x <= lambd), 0.0, x))


@composite
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x, moved towards zero by lambd; 0 where it is nearer than that.

    GraphcError for a negative lambd; UnsupportedError for integers and bools.

    >>> F.softshrink(graphc.tensor([-1.0, 0.25]))
    tensor([-0.5000,  0.0000])
    """
    if lambd < 0:
        raise GraphcError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return _computed(input, "softshrink_cpu", "Softshrink", lambda x: where(
        x > lambd, x - lambd, where(x < -lambd, x + lambd, where(x != x, x, 0.0))))


@composite(large=False)
def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x). Integers give float32.

    >>> F.tanhshrink(graphc.tensor([0.0, 1.0]))
    tensor([0.0000, 0.2384])
    """
    return named(input - tanh(input), "Sub")


@composite
def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow.

    UnsupportedError for integers and bools.

    >>> F.logsigmoid(graphc.tensor([0.0, -100.0]))
    tensor([  -0.6931, -100.0000])
    """
    return _computed(input, "log_sigmoid_cpu", "LogSigmoid", lambda x: -log1p_exp_of_negative(x))


def log1p_exp_of_negative(input: Tensor) -> Tensor:
    """log(1 + exp(-x)) for any x; where exp(-x) would be too large it is -x, to the last bit or so."""
    bound = -10.0 if input.dtype is float16 else -50.0
    steep = input < bound
    return where(steep, -input, log1p(exp(-where(steep, 0.0, input))))


@composite
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half times the sigmoid of the second half, along a dimension of even size.

    GraphcError along a dimension of odd size.

    >>> F.glu(graphc.tensor([1.0, 2.0, 0.0, 0.0]))
    tensor([0.5000, 1.0000])
    """
    if not input.dim():
        raise GraphcError("glu does not support scalars because halving size must be even")
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
    """The input less its maximum, which changes nothing and keeps exp from overflowing. 16-bit numbers become float32."""
    if dtype is not None:
        input = cast(input, dtype)
    elif not input.dtype.is_floating_point:
        raise UnsupportedError(f'"{name}_lastdim_kernel_impl" not implemented for {input.dtype.name}',
                               expected="a floating-point dtype, or dtype=float32", got=input.dtype.name)
    if input.dtype.bits == 16:
        input = cast(input, float32)
    shape = input._data.shape
    at = one_axis(_softmax_dim(name, len(shape)) if dim is None else dim, len(shape))
    axes = (at,) if shape else ()
    if shape and shape[at] == 0:
        return input, axes
    top = emit(ops.amax, (input.detach(),), {"axes": axes})
    return input - (ops.keepdims(top, shape, axes) if axes else top), axes


@composite
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """exp(x) / sum(exp(x)) along a dimension, without overflow: numbers from 0 to 1 whose sum is 1. With `dtype`, converted
    to it first.

    UnsupportedError for integers and bools, unless `dtype` converts them; DimError for a dimension that there is not.

    >>> F.softmax(graphc.tensor([[1.0, 1.0], [1000.0, 0.0]]), dim=1)
    tensor([[0.5000, 0.5000],
            [1.0000, 0.0000]])
    """
    shifted, axes = _shifted(input, dim, "softmax", dtype)
    powers = exp(shifted)
    total = emit(ops.sum, (powers,), {"axes": axes})
    out = powers / (ops.keepdims(total, input._data.shape, axes) if axes else total)
    return named(cast(out, dtype or input.dtype), "Softmax")


@composite
def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """log(softmax(x)) along a dimension, without overflow. With `dtype`, converted to it first.

    UnsupportedError for integers and bools, unless `dtype` converts them; DimError for a dimension that there is not.

    >>> F.log_softmax(graphc.tensor([0.0, 0.0]), dim=0)
    tensor([-0.6931, -0.6931])
    """
    shifted, axes = _shifted(input, dim, "log_softmax", dtype)
    total = log(emit(ops.sum, (exp(shifted),), {"axes": axes}))
    out = shifted - (ops.keepdims(total, input._data.shape, axes) if axes else total)
    return named(cast(out, dtype or input.dtype), "LogSoftmax")


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None) -> Tensor:
    """softmax(-x).

    UnsupportedError for integers, GraphcError for bools, DimError for a dimension that there is not.

    >>> F.softmin(graphc.tensor([0.0, 0.0]), dim=0)
    tensor([0.5000, 0.5000])
    """
    return softmax(-input, dim, dtype=dtype)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1) -> Tensor:
    """softmax((logits + Gumbel noise) / tau): a sample that has a gradient (Jang et al. 2017). `hard` makes it one-hot, with
    the gradient of the soft one.

    UnsupportedDTypeError for integers and bools.

    >>> F.gumbel_softmax(graphc.tensor([[1.0, 2.0, 3.0]]), hard=True).sum()
    tensor(1.)
    """
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    with no_grad():
        # a uniform number of 0 stands for those up to 2^-24
        waiting = clamp(-log1p(-rand(tuple(logits._data.shape), dtype=logits.dtype, device=logits.device)), min=2.0**-25)
        noise = -log(waiting)
    soft = softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    flat = soft.detach()
    at = one_axis(dim, max(flat.dim(), 1))
    shape = tuple(flat._data.shape)
    if not shape:
        return soft
    largest = unsqueeze(emit(ops.argmax, (flat,), {"axis": at}), at)
    one_hot = cast(ops.iota(shape=shape, axis=at, dtype=int64, like=Tensor) == largest, flat.dtype)
    return one_hot - flat + soft


# In place


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`celu`, in place.

    >>> x = graphc.tensor([-1.0, 2.0])
    >>> graphc.celu_(x) is x
    True
    """
    return celu(input, alpha, True)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """`elu`, in place.

    >>> x = graphc.tensor([-1.0, 2.0])
    >>> F.elu_(x) is x
    True
    """
    return elu(input, alpha, True)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """`hardtanh`, in place.

    >>> x = graphc.tensor([-2.0, 0.5])
    >>> F.hardtanh_(x) is x, x
    (True, tensor([-1.0000,  0.5000]))
    """
    return hardtanh(input, min_val, max_val, True)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """`leaky_relu`, in place.

    >>> x = graphc.tensor([-1.0, 2.0])
    >>> F.leaky_relu_(x) is x, x
    (True, tensor([-0.0100,  2.0000]))
    """
    return leaky_relu(input, negative_slope, True)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False) -> Tensor:
    """`rrelu`, in place.

    >>> x = graphc.tensor([-1.0, 2.0])
    >>> F.rrelu_(x) is x
    True
    """
    return rrelu(input, lower, upper, training, True)


def selu_(input: Tensor) -> Tensor:
    """`selu`, in place.

    >>> x = graphc.tensor([-1.0, 2.0])
    >>> graphc.selu_(x) is x
    True
    """
    return selu(input, True)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """`threshold`, in place.

    >>> x = graphc.tensor([0.5, 2.0])
    >>> F.threshold_(x, 1.0, -1.0) is x, x
    (True, tensor([-1.,  2.]))
    """
    return _threshold(input, threshold, value, True)
