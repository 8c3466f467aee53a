"""Distributions of a finite number of values, by probabilities or by their logarithms up to a constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from graphc.errors import ArgumentError
from graphc.frontend.activations import log_softmax, softmax
from graphc.frontend.creation import full, ones
from graphc.frontend.distributions.distribution import BOOLEAN, REAL, UNIT, Constraint, Distribution, together
from graphc.frontend.embedding import one_hot
from graphc.frontend.from_data import tensor
from graphc.frontend.losses import binary_cross_entropy_with_logits
from graphc.frontend.modes import no_grad
from graphc.frontend.pointwise import sigmoid
from graphc.frontend.random import bernoulli, multinomial
from graphc.frontend.ranges import arange
from graphc.frontend.tensor import Size, Tensor
from graphc.types import int64


def _one_of(probs: object, logits: object) -> None:
    if (probs is None) == (logits is None):
        raise ArgumentError("Either `probs` or `logits` must be specified, but not both.",
                            got="neither" if probs is None else "both")


def _away_from_ends(probs: Tensor) -> Tensor:
    """Probabilities whose logarithms are finite."""
    eps = {16: 1e-3, 32: 1.1920929e-07, 64: 2.220446049250313e-16}[probs.dtype.bits]
    return probs.clamp(eps, 1 - eps)


class Bernoulli(Distribution):
    """1 with probability `probs`, or with the log odds `logits`; else 0.

    ArgumentError where not just one of the two is given, and for probabilities outside [0, 1].

    >>> graphc.distributions.Bernoulli(probs=0.25).log_prob(graphc.tensor(1.0)).exp()
    tensor(0.2500)
    """

    parameters: ClassVar[dict[str, Constraint]] = {"_probs": UNIT, "_logits": REAL}

    def __init__(
        self, probs: Tensor | float | None = None, logits: Tensor | float | None = None, validate_args: bool | None = None
    ) -> None:
        _one_of(probs, logits)
        self._probs = None if probs is None else together(probs)[0]
        self._logits = None if logits is None else together(logits)[0]
        given = self._probs if self._logits is None else self._logits
        assert given is not None
        super().__init__(given.shape, validate_args=validate_args)

    @property
    def probs(self) -> Tensor:
        """The probability of 1."""
        return self._probs if self._probs is not None else sigmoid(self.logits)

    @property
    def logits(self) -> Tensor:
        """The logarithm of the odds."""
        if self._logits is not None:
            return self._logits
        inside = _away_from_ends(self.probs)
        return inside.log() - (-inside).log1p()

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter."""
        return self._batch_shape

    @property
    def support(self) -> Constraint:
        return BOOLEAN

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    @property
    def mode(self) -> Tensor:
        """The likelier value; NaN where both are as likely."""
        probs = self.probs.detach()
        return (probs > 0.5).type_as(probs).masked_fill(probs == 0.5, float("nan"))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            return bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        shape = (self.logits + value).shape
        return -binary_cross_entropy_with_logits(self.logits.expand(shape), value.expand(shape), reduction="none")

    def entropy(self) -> Tensor:
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Both values, in a leading dimension."""
        values = tensor([0.0, 1.0], dtype=self.probs.dtype).reshape((2,) + (1,) * len(self._batch_shape))
        return values.expand((2, *self._batch_shape)) if expand else values

    def expand(self, batch_shape: Sequence[int]) -> Self:
        return type(self)(logits=self.logits.expand(Size(batch_shape)), validate_args=False)


class Categorical(Distribution):
    """0 to n - 1 with the probabilities in the last dimension of `probs`, scaled to sum to 1, or with their logarithms.

    ArgumentError where not just one of the two is given, and for a single number.

    >>> graphc.distributions.Categorical(probs=graphc.tensor([1.0, 3.0])).log_prob(graphc.tensor(1)).exp()
    tensor(0.7500)
    """

    parameters: ClassVar[dict[str, Constraint]] = {"_logits": REAL}

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        _one_of(probs, logits)
        name, given = ("probs", probs) if probs is not None else ("logits", logits)
        assert given is not None
        if given.dim() < 1:
            raise ArgumentError(f"`{name}` parameter must be at least one-dimensional.")
        self._probs = None if probs is None else probs / probs.sum(-1, keepdim=True)
        self._logits = None if logits is None else log_softmax(logits, -1)
        self._given = name
        self._count = given.shape[-1]
        self._param_shape = given.shape
        super().__init__(given.shape[:-1], validate_args=validate_args)
        if self._validate and probs is not None:
            simplex = Constraint("Simplex()", lambda x: (x >= 0).all(-1))
            self._check_parameters([("probs", probs, simplex)])

    @property
    def probs(self) -> Tensor:
        """The probabilities; they sum to 1."""
        return self._probs if self._probs is not None else softmax(self.logits, -1)

    @property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities."""
        return self._logits if self._logits is not None else _away_from_ends(self.probs).log()

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter."""
        return self._param_shape

    @property
    def support(self) -> Constraint:
        last = self._count - 1
        return Constraint(f"IntegerInterval(lower_bound=0, upper_bound={last})",
                          lambda x: (x >= 0) & (x <= last) & (x % 1 == 0))

    @property
    def mean(self) -> Tensor:
        """NaN: the values are names, not numbers."""
        return full(self._batch_shape, float("nan"), dtype=self.probs.dtype)

    @property
    def variance(self) -> Tensor:
        """NaN: the values are names, not numbers."""
        return self.mean

    @property
    def mode(self) -> Tensor:
        """The likeliest value."""
        return self.probs.argmax(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            shape = self._extended_shape(sample_shape)
            count = Size(sample_shape).numel()
            if not shape.numel():
                return ones(shape, dtype=int64)
            drawn = multinomial(self.probs.reshape(-1, self._count), count, True)
            return drawn.t().reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        shape = (self.logits[..., 0] + value).shape
        picked = value.long().expand(shape).unsqueeze(-1)
        return self.logits.expand((*shape, self._count)).gather(-1, picked).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self.probs * self.logits).masked_fill(self.probs == 0, 0).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values, in a leading dimension."""
        values = arange(self._count).reshape((-1,) + (1,) * len(self._batch_shape))
        return values.expand((self._count, *self._batch_shape)) if expand else values

    def expand(self, batch_shape: Sequence[int]) -> Self:
        return type(self)(logits=self.logits.expand((*batch_shape, self._count)), validate_args=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._given}: {self._param_shape!r})"


class OneHotCategorical(Distribution):
    """Vectors of zeros with a one at a place that `Categorical` draws.

    >>> graphc.distributions.OneHotCategorical(probs=graphc.tensor([0.0, 1.0])).sample()
    tensor([0., 1.])
    """

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        super().__init__(self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args)

    @property
    def probs(self) -> Tensor:
        """The probabilities; they sum to 1."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """The logarithms of the probabilities."""
        return self._categorical.logits

    @property
    def param_shape(self) -> Size:
        """The shape of the parameter."""
        return self._categorical.param_shape

    @property
    def support(self) -> Constraint:
        return Constraint("OneHot()", lambda x: ((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1))

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    @property
    def mode(self) -> Tensor:
        """The likeliest vector."""
        return one_hot(self._categorical.mode, self._event_shape[0]).to(self.probs.dtype)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return one_hot(self._categorical.sample(sample_shape), self._event_shape[0]).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self._categorical.log_prob(value.argmax(-1))

    def entropy(self) -> Tensor:
        return self._categorical.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All vectors, in a leading dimension."""
        values = one_hot(self._categorical.enumerate_support(expand), self._event_shape[0])
        return values.to(self.probs.dtype)

    def expand(self, batch_shape: Sequence[int]) -> Self:
        return type(self)(logits=self.logits.expand((*batch_shape, *self._event_shape)), validate_args=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._categorical._given}: {self.param_shape!r})"
