"""Probability distributions: draws, log probabilities, entropies and divergences. A part of those of PyTorch."""

from __future__ import annotations

from graphc.frontend.distributions.continuous import Exponential, Laplace, Normal, Uniform
from graphc.frontend.distributions.discrete import Bernoulli, Categorical
from graphc.frontend.distributions.distribution import Distribution
from graphc.frontend.distributions.joint import Independent, kl_divergence, register_kl

__all__ = [
    "Bernoulli", "Categorical", "Distribution", "Exponential", "Independent", "Laplace", "Normal", "Uniform",
    "kl_divergence", "register_kl",
]
