"""Averages of a model's parameters over its training, and the learning rates that go with them (Izmailov et al. 2018)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from graphc.errors import ArgumentError
from graphc.frontend.arithmetic import lerp
from graphc.frontend.from_data import tensor
from graphc.frontend.modes import no_grad
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.normalization import _BatchNorm
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.optim.schedule import LRScheduler, for_each
from graphc.frontend.pointwise import where
from graphc.frontend.tensor import Tensor
from graphc.types import int64

Average = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The next average, from the one so far, the current value, and how many values have been averaged."""

MultiAverage = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]
"""The same for many tensors, in place."""


def _check_decay(decay: float) -> None:
    if decay < 0.0 or decay > 1.0:
        raise ArgumentError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")


def get_swa_avg_fn() -> Average:
    """The mean of all values."""
    return lambda averaged, current, count: averaged + (current - averaged) / (count + 1)


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """decay * average + (1 - decay) * value."""
    _check_decay(decay)
    return lambda averaged, current, count: decay * averaged + (1 - decay) * current


def get_swa_multi_avg_fn() -> MultiAverage:
    """The means of all values."""
    one = get_swa_avg_fn()

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
        for a, c in zip(averaged, current, strict=True):
            a.copy_(one(a, c, count))

    return average


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """decay * average + (1 - decay) * value; integers are replaced by the value."""
    _check_decay(decay)

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
        for a, c in zip(averaged, current, strict=True):
            a.copy_(lerp(a, c, 1 - decay) if a.is_floating_point() else c)

    return average


class AveragedModel(Module):
    """A copy of a model whose parameters are averages over those of the model at each `update_parameters`.

    avg_fn
        How the average changes: by default the mean of all values; `get_ema_avg_fn()` gives a moving one.
    multi_avg_fn
        The same for all tensors at once, in place.
    use_buffers
        Whether buffers are averaged too; they are copied otherwise.
    """

    n_averaged: Tensor

    def __init__(self, model: Module, device: Any = None, avg_fn: Average | None = None,
                 multi_avg_fn: MultiAverage | None = None, use_buffers: bool = False) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ArgumentError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, dtype=int64))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def update_parameters(self, model: Module) -> None:
        """Take the model's parameters into the average; the first ones are copied."""
        averaged: list[Tensor] = [p.detach() for p in self.module.parameters()]
        current: list[Tensor] = [p.detach() for p in model.parameters()]
        buffers = [(a.detach(), c.detach()) for a, c in zip(self.module.buffers(), model.buffers(), strict=True)]
        with no_grad():
            if self.use_buffers:
                averaged += [a for a, _ in buffers]
                current += [c for _, c in buffers]
            else:
                for a, c in buffers:
                    a.copy_(c)
            self._average(averaged, current)
            self.n_averaged.add_(1)

    def _average(self, averaged: list[Tensor], current: list[Tensor]) -> None:
        if self.multi_avg_fn is None:
            one, first = self.avg_fn or get_swa_avg_fn(), self.n_averaged == 0
            for a, c in zip(averaged, current, strict=True):
                a.copy_(where(first, c, one(a, c, self.n_averaged)))
        elif self.n_averaged == 0:
            for a, c in zip(averaged, current, strict=True):
                a.copy_(c)
        else:
            self.multi_avg_fn(averaged, current, self.n_averaged)


def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of all batch normalisations of a model anew, by one pass over `loader`.

    The loader gives inputs, or tuples and lists whose first element is the input.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        return
    momenta = [m.momentum for m in norms]
    training = model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    model.train()
    with no_grad():
        for batch in loader:
            input = batch[0] if isinstance(batch, (list, tuple)) else batch
            model(input if device is None else input.to(device))
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    model.train(training)


class SWALR(LRScheduler):
    """Each group's rate to `swa_lr` over `anneal_epochs` epochs, along a cosine or a line; it stays there."""

    def __init__(self, optimizer: Optimizer, swa_lr: Any, anneal_epochs: int = 10,
                 anneal_strategy: Literal["cos", "linear"] = "cos", last_epoch: int = -1) -> None:
        for group, rate in zip(optimizer.param_groups, for_each(swa_lr, len(optimizer.param_groups), "swa_lr")):
            group["swa_lr"] = rate
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}")
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ArgumentError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self.anneal_epochs = anneal_epochs
        self._strategy = anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _share(self, step: int) -> float:
        """How far the rate has gone."""
        t = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return t if self._strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> list[float]:
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._share(step - 1), self._share(step)
        rates = []
        for group in self.optimizer.param_groups:
            goal, rate = group["swa_lr"], group["lr"]
            start = rate if before == 1 else (rate - before * goal) / (1 - before)
            rates.append(goal * now + start * (1 - now))
        return rates


__all__ = [
    "SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn", "get_swa_multi_avg_fn", "update_bn",
]
