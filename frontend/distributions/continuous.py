"""Distributions of real numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from graphc.errors import ArgumentError
from graphc.frontend.creation_like import full_like
from graphc.frontend.distributions.distribution import (
    NOT_NEGATIVE,
    POSITIVE,
    REAL,
    Constraint,
    Distribution,
    all_hold,
    together,
)
from graphc.frontend.random import rand, randn
from graphc.frontend.tensor import Tensor

_EULER = 0.5772156649015329
"""The constant of Euler and Mascheroni."""


class _Symmetric(Distribution):
    """Densities that fall to both sides of `loc` alike, the more slowly the larger `scale` is."""

    has_rsample = True
    parameters: ClassVar[dict[str, Constraint]] = {"loc": REAL, "scale": POSITIVE}

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        self.loc, self.scale = together(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The value of the greatest density."""
        return self.loc


class Normal(_Symmetric):
    """Normal with mean `loc` and standard deviation `scale`.

    >>> normal = graphc.distributions.Normal(0.0, 1.0)
    >>> normal.log_prob(graphc.tensor(0.0)), normal.sample((3,)).shape
    (tensor(-0.9189), graphc.Size([3]))
    """

    @property
    def variance(self) -> Tensor:
        return self.scale**2

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc + randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device) * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return -((value - self.loc) ** 2) / (2 * self.variance) - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less than a value."""
        self._validate_sample(value)
        return 0.5 * (1 + ((value - self.loc) / (self.scale * math.sqrt(2))).erf())

    def icdf(self, value: Tensor) -> Tensor:
        """The value below which a given probability lies."""
        return self.loc + self.scale * (2 * value - 1).erfinv() * math.sqrt(2)

    def entropy(self) -> Tensor:
        return 0.5 + 0.5 * math.log(2 * math.pi) + self.scale.log()


class Laplace(_Symmetric):
    """Laplace, or doubly exponential, with mean `loc` and scale `scale`.

    >>> graphc.distributions.Laplace(0.0, 1.0).log_prob(graphc.tensor(0.0))
    tensor(-0.6931)
    """

    @property
    def variance(self) -> Tensor:
        return 2 * self.scale**2

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        sides = rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device) - 0.5
        return self.loc - self.scale * sides.sign() * (-2 * sides.abs()).clamp(min=-1 + 1e-7).log1p()

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return -(2 * self.scale).log() - (value - self.loc).abs() / self.scale

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less than a value."""
        self._validate_sample(value)
        return 0.5 - 0.5 * (value - self.loc).sign() * (-(value - self.loc).abs() / self.scale).expm1()

    def entropy(self) -> Tensor:
        return 1 + (2 * self.scale).log()


class Uniform(Distribution):
    """Uniform from `low` up to `high`.

    ArgumentError where `low` is not less than `high`.

    >>> graphc.distributions.Uniform(0.0, 4.0).log_prob(graphc.tensor(1.0)).exp()
    tensor(0.2500)
    """

    has_rsample = True
    parameters: ClassVar[dict[str, Constraint]] = {"low": REAL, "high": REAL}

    def __init__(self, low: Tensor | float, high: Tensor | float, validate_args: bool | None = None) -> None:
        self.low, self.high = together(low, high)
        super().__init__(self.low.shape, validate_args=validate_args)
        if self._validate and not all_hold([(self.high - self.low, POSITIVE)]):
            raise ArgumentError(f"Uniform: low has to be less than high in {self!r}")

    @property
    def support(self) -> Constraint:
        low, high = self.low.detach(), self.high.detach()
        return Constraint("Interval(lower_bound=low, upper_bound=high)", lambda x: (x >= low) & (x <= high))

    @property
    def mean(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def variance(self) -> Tensor:
        return (self.high - self.low) ** 2 / 12

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        drawn = rand(self._extended_shape(sample_shape), dtype=self.low.dtype, device=self.low.device)
        return self.low + drawn * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        inside = (value >= self.low) & (value < self.high)
        return inside.type_as(self.low).log() - (self.high - self.low).log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less than a value."""
        self._validate_sample(value)
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def icdf(self, value: Tensor) -> Tensor:
        """The value below which a given probability lies."""
        return self.low + value * (self.high - self.low)

    def entropy(self) -> Tensor:
        return (self.high - self.low).log()


class Exponential(Distribution):
    """Exponential with mean 1 / `rate`.

    >>> graphc.distributions.Exponential(2.0).mean
    tensor(0.5000)
    """

    has_rsample = True
    parameters: ClassVar[dict[str, Constraint]] = {"rate": POSITIVE}

    def __init__(self, rate: Tensor | float, validate_args: bool | None = None) -> None:
        (self.rate,) = together(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def support(self) -> Constraint:
        return NOT_NEGATIVE

    @property
    def mean(self) -> Tensor:
        return 1 / self.rate

    @property
    def variance(self) -> Tensor:
        return 1 / self.rate**2

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return -(-rand(self._extended_shape(sample_shape), dtype=self.rate.dtype, device=self.rate.device)).log1p() / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self.rate.log() - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less than a value."""
        self._validate_sample(value)
        return -(-self.rate * value).expm1()

    def entropy(self) -> Tensor:
        return 1 - self.rate.log()


class LogNormal(Distribution):
    """The exponential of a normal distribution with mean `loc` and standard deviation `scale`.

    >>> graphc.distributions.LogNormal(0.0, 1.0).mean
    tensor(1.6487)
    """

    has_rsample = True
    parameters: ClassVar[dict[str, Constraint]] = {"loc": REAL, "scale": POSITIVE}

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        self.loc, self.scale = together(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)
        self.base_dist = Normal(self.loc, self.scale, validate_args=False)

    @property
    def support(self) -> Constraint:
        return POSITIVE

    @property
    def mean(self) -> Tensor:
        return (self.loc + self.scale**2 / 2).exp()

    @property
    def mode(self) -> Tensor:
        """The value of the greatest density."""
        return (self.loc - self.scale**2).exp()

    @property
    def variance(self) -> Tensor:
        return (self.scale**2).expm1() * (2 * self.loc + self.scale**2).exp()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self.base_dist.log_prob(value.log()) - value.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less than a value."""
        self._validate_sample(value)
        return self.base_dist.cdf(value.log())

    def icdf(self, value: Tensor) -> Tensor:
        """The value below which a given probability lies."""
        return self.base_dist.icdf(value).exp()

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() + self.loc


class HalfNormal(Distribution):
    """The size of normal draws with mean 0 and standard deviation `scale`.

    >>> graphc.distributions.HalfNormal(1.0).mean
    tensor(0.7979)
    """

    has_rsample = True
    parameters: ClassVar[dict[str, Constraint]] = {"scale": POSITIVE}

    def __init__(self, scale: Tensor | float, validate_args: bool | None = None) -> None:
        (self.scale,) = together(scale)
        super().__init__(self.scale.shape, validate_args=validate_args)
        self.base_dist = Normal(0 * self.scale, self.scale, validate_args=False)

    @property
    def support(self) -> Constraint:
        return NOT_NEGATIVE

    @property
    def mean(self) -> Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def mode(self) -> Tensor:
        """The value of the greatest density."""
        return 0 * self.scale

    @property
    def variance(self) -> Tensor:
        return self.scale**2 * (1 - 2 / math.pi)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape).abs()

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self.base_dist.log_prob(value) + math.log(2)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less than a value."""
        self._validate_sample(value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Tensor) -> Tensor:
        """The value below which a given probability lies."""
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() - math.log(2)


class Cauchy(_Symmetric):
    """Cauchy, or Lorentz, around `loc` with half its width at half its height `scale`. It has no mean and no variance.

    >>> graphc.distributions.Cauchy(0.0, 1.0).log_prob(graphc.tensor(0.0)).exp()
    tensor(0.3183)
    """

    @property
    def mean(self) -> Tensor:
        return full_like(self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        return full_like(self.loc, math.inf)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.icdf(rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return -math.log(math.pi) - self.scale.log() - (((value - self.loc) / self.scale) ** 2).log1p()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less than a value."""
        self._validate_sample(value)
        return ((value - self.loc) / self.scale).atan() / math.pi + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        """The value below which a given probability lies."""
        return (math.pi * (value - 0.5)).tan() * self.scale + self.loc

    def entropy(self) -> Tensor:
        return math.log(4 * math.pi) + self.scale.log()


class Gumbel(Distribution):
    """The distribution of largest values (Gumbel 1935), around `loc`, of the width `scale`.

    >>> graphc.distributions.Gumbel(0.0, 1.0).mean
    tensor(0.5772)
    """

    has_rsample = True
    parameters: ClassVar[dict[str, Constraint]] = {"loc": REAL, "scale": POSITIVE}

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        self.loc, self.scale = together(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * _EULER

    @property
    def mode(self) -> Tensor:
        """The value of the greatest density."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (math.pi * self.scale) ** 2 / 6

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        inside = rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device).clamp(min=1e-38)
        return self.icdf(inside.clamp(max=1 - 1e-7))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        away = (self.loc - value) / self.scale
        return away - away.exp() - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of less than a value."""
        self._validate_sample(value)
        return (-((self.loc - value) / self.scale).exp()).exp()

    def icdf(self, value: Tensor) -> Tensor:
        """The value below which a given probability lies."""
        return self.loc - self.scale * (-value.log()).log()

    def entropy(self) -> Tensor:
        return self.scale.log() + (1 + _EULER)

