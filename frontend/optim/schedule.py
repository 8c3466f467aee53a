"""`LRScheduler`: the base of learning-rate schedules."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from graphc.errors import ArgumentError, ArgumentTypeError
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.settings_text import PrintsSettings


class LRScheduler(PrintsSettings):
    """The base of schedules by epoch. Subclasses say in `get_lr` what the rates become when `last_epoch` is reached.

    last_epoch
        The epoch that is over; -1 for a schedule that begins.

    ArgumentTypeError for what is no optimizer, KeyError where a schedule that goes on finds no "initial_lr" in a group.

    >>> class Halving(graphc.optim.lr_scheduler.LRScheduler):
    ...     def get_lr(self):
    ...         return [rate * 0.5 ** self.last_epoch for rate in self.base_lrs]
    >>> optimizer = graphc.optim.SGD([graphc.zeros(1, requires_grad=True)], lr=1.0)
    >>> scheduler = Halving(optimizer)
    >>> optimizer.step()
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentTypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(f"param 'initial_lr' is not specified in param_groups[{i}] when resuming an optimizer")
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        if optimizer._has_stepped is None:
            optimizer._has_stepped = False
        self._last_lr: list[float] = []
        self.step()

    def _printed_settings(self) -> dict[str, Any]:
        shown = super()._printed_settings()
        return {name: shown[name] for name in shown if name not in ("optimizer", "base_lrs")} | {"lr": self.get_last_lr()}

    def get_lr(self) -> list[float]:
        """The rate of each group for the epoch `last_epoch`."""
        raise NotImplementedError

    def get_last_lr(self) -> list[float]:
        """The rates that were set last."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Set the rates for the next epoch, or for the one given."""
        if self._step_count == 1 and self.optimizer._has_stepped is False:
            warnings.warn("Detected call of `lr_scheduler.step()` before `optimizer.step()`. Call them in the opposite order: "
                          "otherwise the first value of the learning rate schedule is skipped.", UserWarning, stacklevel=2)
        self._step_count += 1
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            self.last_epoch = epoch
            closed = getattr(self, "_get_closed_form_lr", None)
            rates = self.get_lr() if closed is None else closed()
        self._set(rates)

    def _set(self, rates: Sequence[Any]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _rates(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.__dict__.update(state_dict)


def for_each(value: Any, groups: int, name: str) -> list[Any]:
    """One value for each group, given one for all or a list."""
    if not isinstance(value, (list, tuple)):
        return [value] * groups
    if len(value) != groups:
        raise ArgumentError(f"{name} must have the same length as optimizer.param_groups. {name} has {len(value)} values, "
                            f"param_groups has {groups}.")
    return list(value)
