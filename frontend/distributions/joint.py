"""Distributions made of others, and how far two are apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.distributions.continuous import Exponential, Laplace, Normal, Uniform
from graphc.frontend.distributions.discrete import Bernoulli, Categorical
from graphc.frontend.distributions.distribution import Constraint, Distribution
from graphc.frontend.distributions.multivariate import MultivariateNormal
from graphc.frontend.linalg_solvers import solve_triangular
from graphc.frontend.movement import broadcast_to
from graphc.frontend.nn.functional import softplus
from graphc.frontend.tensor import Tensor


class Independent(Distribution):
    """A batch of distributions as one, of all the values together: the last dimensions of the batch become the event's.

    ArgumentError where the batch has fewer dimensions.

    >>> graphc.distributions.Independent(graphc.distributions.Normal(graphc.zeros(3), 1.0), 1).log_prob(graphc.zeros(3)).shape
    graphc.Size([])
    """

    def __init__(
        self, base_distribution: Distribution, reinterpreted_batch_ndims: int, validate_args: bool | None = None
    ) -> None:
        batch = base_distribution.batch_shape
        count = reinterpreted_batch_ndims
        if count > len(batch):
            raise ArgumentError("Expected reinterpreted_batch_ndims <= len(base_distribution.batch_shape)",
                                got=f"{count} > {len(batch)}")
        self.base_dist = base_distribution
        self.reinterpreted_batch_ndims = count
        self.has_rsample = base_distribution.has_rsample
        split = len(batch) - count
        super().__init__(batch[:split], batch[split:] + base_distribution.event_shape, validate_args)

    @property
    def support(self) -> Constraint:
        return self.base_dist.support

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance

    @property
    def mode(self) -> Tensor:
        """The likeliest values."""
        base: Any = self.base_dist
        return base.mode

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.sample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.base_dist.rsample(sample_shape)

    def _summed(self, each: Tensor) -> Tensor:
        count = self.reinterpreted_batch_ndims
        return each.sum(tuple(range(-count, 0))) if count else each

    def log_prob(self, value: Tensor) -> Tensor:
        return self._summed(self.base_dist.log_prob(value))

    def entropy(self) -> Tensor:
        return self._summed(self.base_dist.entropy())

    def expand(self, batch_shape: Sequence[int]) -> Independent:
        inner = self.base_dist.batch_shape[len(self.batch_shape) :]
        return Independent(self.base_dist.expand((*batch_shape, *inner)), self.reinterpreted_batch_ndims)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist!r}, {self.reinterpreted_batch_ndims})"


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The Kullback-Leibler divergence of p from q, the expectation under p of log p - log q, in nats.

    NotImplementedError for pairs of kinds without a formula here.

    >>> graphc.distributions.kl_divergence(graphc.distributions.Normal(0.0, 1.0), graphc.distributions.Normal(1.0, 1.0))
    tensor(0.5000)
    """
    if isinstance(p, Independent) and isinstance(q, Independent):
        if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
            raise NotImplementedError("kl_divergence: the two have different numbers of reinterpreted dimensions")
        return p._summed(kl_divergence(p.base_dist, q.base_dist))
    rule = next((rule for (a, b), rule in _RULES.items() if isinstance(p, a) and isinstance(q, b)), None)
    if rule is None:
        raise NotImplementedError(f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}")
    return rule(p, q)


def register_kl(type_p: type[Distribution], type_q: type[Distribution]) -> Callable[[Callable[..., Tensor]], Any]:
    """Decorate a function of p and q that `kl_divergence` calls for distributions of two kinds.

    >>> class Constant(graphc.distributions.Distribution):
    ...     pass
    >>> @graphc.distributions.register_kl(Constant, Constant)
    ... def divergence(p, q):
    ...     return graphc.tensor(0.0)
    >>> graphc.distributions.kl_divergence(Constant(), Constant())
    tensor(0.)
    """

    def register(rule: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _RULES[(type_p, type_q)] = rule
        return rule

    return register


_RULES: dict[tuple[type[Distribution], type[Distribution]], Callable[..., Tensor]] = {}


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale) ** 2 - 1 - ratio.log())


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    distance = (p.loc - q.loc).abs()
    ratio = p.scale / q.scale
    return -ratio.log() + distance / q.scale + ratio * (-distance / p.scale).exp() - 1


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    outside = (q.low > p.low) | (q.high < p.high)
    return ((q.high - q.low) / (p.high - p.low)).log().masked_fill(outside, math.inf)


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - ratio.log()


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    # log p(1) - log q(1) and the same of 0, by the logits
    return (p.probs * (softplus(-q.logits) - softplus(-p.logits))
            + (1 - p.probs) * (softplus(q.logits) - softplus(p.logits)))


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate_normal(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    batch = (p.loc + q.loc).shape[:-1]
    factor = broadcast_to(q.scale_tril, (*batch, *q.scale_tril.shape[-2:]))
    spread = solve_triangular(factor, broadcast_to(p.scale_tril, factor.shape), upper=False)
    away = solve_triangular(factor, (p.loc - q.loc).unsqueeze(-1), upper=False)
    squares = (spread**2).sum((-2, -1)) + (away**2).sum((-2, -1))
    return q._half_log_det() - p._half_log_det() + 0.5 * (squares - p.event_shape[0])


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    apart = p.probs * (p.logits - q.logits)
    return apart.masked_fill(q.probs == 0, math.inf).masked_fill(p.probs == 0, 0).sum(-1)
