"""Activation functions as modules."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from graphc.errors import ArgumentError
from graphc.frontend.creation import full
from graphc.frontend.modes import no_grad
from graphc.frontend.nn import functional as F
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor
from graphc.types import DType


class _Plain(Module):
    """An activation without settings."""

    _function: Any

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input)


class Tanh(_Plain):
    """tanh(x).

    >>> nn.Tanh()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.7616,  0.0000,  0.9640])
    """

    _function = staticmethod(F.tanh)


class Sigmoid(_Plain):
    """1 / (1 + exp(-x)).

    >>> nn.Sigmoid()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([0.2689, 0.5000, 0.8808])
    """

    _function = staticmethod(F.sigmoid)


class LogSigmoid(_Plain):
    """log(sigmoid(x)).

    >>> nn.LogSigmoid()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-1.3133, -0.6931, -0.1269])
    """

    _function = staticmethod(F.logsigmoid)


class Softsign(_Plain):
    """x / (1 + |x|).

    >>> nn.Softsign()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.5000,  0.0000,  0.6667])
    """

    _function = staticmethod(F.softsign)


class Tanhshrink(_Plain):
    """x - tanh(x).

    >>> nn.Tanhshrink()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.2384,  0.0000,  1.0360])
    """

    _function = staticmethod(F.tanhshrink)


class _InPlace(Module):
    """An activation whose only setting is whether it overwrites its input."""

    _function: Any

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, inplace=self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class ReLU(_InPlace):
    """max(0, x).

    >>> nn.ReLU()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([0., 0., 2.])
    """

    _function = staticmethod(F.relu)


class ReLU6(_InPlace):
    """min(max(0, x), 6).

    >>> nn.ReLU6()(graphc.tensor([-1.0, 2.0, 8.0]))
    tensor([0., 2., 6.])
    """

    _function = staticmethod(F.relu6)


class SiLU(_InPlace):
    """x * sigmoid(x).

    >>> nn.SiLU()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.2689,  0.0000,  1.7616])
    """

    _function = staticmethod(F.silu)


class Mish(_InPlace):
    """x * tanh(softplus(x)).

    >>> nn.Mish()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.3034,  0.0000,  1.9440])
    """

    _function = staticmethod(F.mish)


class SELU(_InPlace):
    """The exponential unit that keeps mean and variance.

    >>> nn.SELU()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-1.1113,  0.0000,  2.1014])
    """

    _function = staticmethod(F.selu)


class Hardsigmoid(_InPlace):
    """min(max(x + 3, 0), 6) / 6.

    >>> nn.Hardsigmoid()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([0.3333, 0.5000, 0.8333])
    """

    _function = staticmethod(F.hardsigmoid)

    def extra_repr(self) -> str:
        return ""  # as PyTorch has it


class Hardswish(_InPlace):
    """x * min(max(x + 3, 0), 6) / 6.

    >>> nn.Hardswish()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.3333,  0.0000,  1.6667])
    """

    _function = staticmethod(F.hardswish)

    def extra_repr(self) -> str:
        return ""  # as PyTorch has it


class _Settings(Module):
    """An activation with numbers: the class names them with their defaults, in the order of the arguments."""

    _settings: ClassVar[dict[str, Any]]
    _function: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        names = list(self._settings)
        if len(args) > len(names):
            raise TypeError(f"{type(self).__name__} takes {len(names)} arguments but {len(args)} were given")
        given = {**dict(zip(names, args)), **kwargs}
        unknown = set(given) - set(names)
        if unknown:
            raise TypeError(f"{type(self).__name__} got an unexpected keyword argument {min(unknown)!r}")
        for name, default in self._settings.items():
            setattr(self, name, given.get(name, default))

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, **{name: getattr(self, name) for name in self._settings})

    def extra_repr(self) -> str:
        shown = [n for n in self._settings if n != "inplace" or self.inplace]
        return ", ".join(f"{n}={getattr(self, n)}" for n in shown)


class GELU(_Settings):
    """x times the normal distribution function of x.

    >>> nn.GELU()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.1587,  0.0000,  1.9545])
    """

    _settings: ClassVar[dict[str, Any]] = {"approximate": "none"}
    _function = staticmethod(F.gelu)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class ELU(_Settings):
    """x where positive, else alpha (exp(x) - 1).

    >>> nn.ELU()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.6321,  0.0000,  2.0000])
    """

    _settings: ClassVar[dict[str, Any]] = {"alpha": 1.0, "inplace": False}
    _function = staticmethod(F.elu)


class CELU(_Settings):
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)).

    >>> nn.CELU()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.6321,  0.0000,  2.0000])
    """

    _settings: ClassVar[dict[str, Any]] = {"alpha": 1.0, "inplace": False}
    _function = staticmethod(F.celu)


class LeakyReLU(_Settings):
    """x where positive, else negative_slope * x.

    >>> nn.LeakyReLU()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.0100,  0.0000,  2.0000])
    """

    _settings: ClassVar[dict[str, Any]] = {"negative_slope": 0.01, "inplace": False}
    _function = staticmethod(F.leaky_relu)


class Softplus(_Settings):
    """log(1 + exp(beta x)) / beta.

    >>> nn.Softplus()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([0.3133, 0.6931, 2.1269])
    """

    _settings: ClassVar[dict[str, Any]] = {"beta": 1.0, "threshold": 20.0}
    _function = staticmethod(F.softplus)


class Hardshrink(_Settings):
    """x where |x| > lambd, else 0.

    >>> nn.Hardshrink()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-1.,  0.,  2.])
    """

    _settings: ClassVar[dict[str, Any]] = {"lambd": 0.5}
    _function = staticmethod(F.hardshrink)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Softshrink(_Settings):
    """x, moved towards zero by lambd.

    >>> nn.Softshrink()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.5000,  0.0000,  1.5000])
    """

    _settings: ClassVar[dict[str, Any]] = {"lambd": 0.5}
    _function = staticmethod(F.softshrink)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Hardtanh(Module):
    """x, cut off at both ends.

    AssertionError where `max_val` is not more than `min_val`.

    >>> nn.Hardtanh(-1.0, 1.0)(graphc.tensor([-2.0, 0.5]))
    tensor([-1.0000,  0.5000])
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False, min_value: float | None = None,
                 max_value: float | None = None) -> None:
        super().__init__()
        for old, given, new in (("min_value", min_value, "min_val"), ("max_value", max_value, "max_val")):
            if given is not None:
                warnings.warn(f"keyword argument `{old}` is deprecated and rename to `{new}`", FutureWarning, stacklevel=2)
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = inplace
        if self.max_val <= self.min_val:
            raise AssertionError(f"max_val ({self.max_val}) must be greater than min_val ({self.min_val})")

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}" + (", inplace=True" if self.inplace else "")


class RReLU(Module):
    """x where positive, else a * x, with `a` in training uniform from lower to upper, and else the middle of the two.

    GraphcError, at a call, where lower is more than upper.

    >>> nn.RReLU().eval()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.2292,  0.0000,  2.0000])
    """

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (", inplace=True" if self.inplace else "")


class GLU(_Settings):
    """The first half times the sigmoid of the second half.

    >>> nn.GLU()(graphc.tensor([1.0, 2.0, 0.0, 0.0]))
    tensor([0.5000, 1.0000])
    """

    _settings: ClassVar[dict[str, Any]] = {"dim": -1}
    _function = staticmethod(F.glu)


class Threshold(Module):
    """x where it is over the threshold, else the value.

    >>> nn.Threshold(1.0, -1.0)(graphc.tensor([0.5, 2.0]))
    tensor([-1.,  2.])
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}" + (", inplace=True" if self.inplace else "")


class PReLU(Module):
    """x where positive, else weight * x, with a weight that is learned.

    >>> nn.PReLU()(graphc.tensor([-1.0, 0.0, 2.0]))
    tensor([-0.2500,  0.0000,  2.0000], grad_fn=<PreluKernelBackward0>)
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: DType | None = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(full((num_parameters,), float(init), device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """The weight as it began."""
        with no_grad():
            self.weight.fill_(self.init)

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class _Along(Module):
    """A function along a dimension."""

    _function: Any

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_Along):
    """exp(x) / sum(exp(x)) along a dimension.

    >>> nn.Softmax(dim=1)(graphc.tensor([[0.0, 0.0]]))
    tensor([[0.5000, 0.5000]])
    """

    _function = staticmethod(F.softmax)


class Softmax2d(Module):
    """softmax over the channels of [N, C, H, W] or [C, H, W].

    ArgumentError for another number of dimensions.

    >>> nn.Softmax2d()(graphc.zeros(1, 2, 1, 1)).flatten()
    tensor([0.5000, 0.5000])
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4):
            raise ArgumentError(f"Softmax2d: expected input to be 3D or 4D, got {input.dim()}D instead")
        return F.softmax(input, -3)


class LogSoftmax(_Along):
    """log(softmax(x)) along a dimension.

    >>> nn.LogSoftmax(dim=1)(graphc.tensor([[0.0, 0.0]]))
    tensor([[-0.6931, -0.6931]])
    """

    _function = staticmethod(F.log_softmax)


class Softmin(_Along):
    """softmax(-x) along a dimension.

    >>> nn.Softmin(dim=1)(graphc.tensor([[0.0, 0.0]]))
    tensor([[0.5000, 0.5000]])
    """

    _function = staticmethod(F.softmin)
