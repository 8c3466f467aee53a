"""Optimizers: rules that change parameters by their gradients."""

from __future__ import annotations

from graphc.frontend.optim.adam import Adam, AdamW
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
