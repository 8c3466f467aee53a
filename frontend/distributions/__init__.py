"""Probability distributions: draws, log probabilities, entropies and divergences. A part of those of PyTorch."""

from __future__ import annotations

from graphc.frontend.distributions.continuous import (
    Cauchy,
    Exponential,
    Gumbel,
    HalfNormal,
    Laplace,
    LogNormal,
    Normal,
    Uniform,
)
from graphc.frontend.distributions.discrete import Bernoulli, Categorical, OneHotCategorical
from graphc.frontend.distributions.distribution import Distribution
from graphc.frontend.distributions.joint import Independent, kl_divergence, register_kl
from graphc.frontend.distributions.multivariate import MultivariateNormal

__all__ = [
    "Bernoulli", "Categorical", "Cauchy", "Distribution", "Exponential", "Gumbel", "HalfNormal", "Independent", "Laplace",
    "LogNormal", "MultivariateNormal", "Normal", "OneHotCategorical", "Uniform", "kl_divergence", "register_kl",
]
