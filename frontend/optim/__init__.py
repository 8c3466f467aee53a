"""Optimizers: rules that change parameters by their gradients."""

from __future__ import annotations

from graphc.frontend.optim import lr_scheduler, swa_utils
from graphc.frontend.optim.adam import Adam, AdamW
from graphc.frontend.optim.adaptive import ASGD, Adadelta, Adafactor, Adagrad, Adamax, NAdam, RAdam, RMSprop, Rprop
from graphc.frontend.optim.lbfgs import LBFGS
from graphc.frontend.optim.muon import Muon
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.optim.sgd import SGD
from graphc.frontend.optim.sparse_adam import SparseAdam

__all__ = [
    "ASGD", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "Optimizer",
    "RAdam", "RMSprop", "Rprop", "SparseAdam", "lr_scheduler", "swa_utils",
]
