"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.optim.optimizer import Optimizer, check_positive, hyperparameter
from graphc.frontend.tensor import Tensor


class SGD(Optimizer):
    """p -= lr * v with v = momentum * v + (1 - dampening) * grad; Nesterov's form looks one step ahead.

    `weight_decay` adds that multiple of the parameter to its gradient.

    ArgumentError for Nesterov's momentum without momentum, or with dampening.

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.SGD([weight], lr=0.1, momentum=0.9)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.7000])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-3, momentum: float = 0, dampening: float = 0,
                 weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False, foreach: bool | None = None,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize, "foreach": foreach, "differentiable": differentiable, "fused": fused})

    def _check(self, group: Mapping[str, Any]) -> None:
        check_positive("learning rate", group["lr"])
        check_positive("momentum value", group["momentum"])
        check_positive("weight_decay value", group["weight_decay"])
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ArgumentError("Nesterov momentum requires a momentum and zero dampening")

    def _begins_alike(self, group: Mapping[str, Any]) -> bool:
        return super()._begins_alike(group) and not (group["momentum"] and group["dampening"])

    def _update(self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if group["weight_decay"] != 0:
            grad = grad + parameter * group["weight_decay"]
        momentum = group["momentum"]
        if momentum != 0:
            first = state.get("momentum_buffer") is None
            velocity = self._zeros(state, "momentum_buffer", parameter)
            # the first step takes the whole gradient, whatever the dampening
            share = 1 if first else 1 - group["dampening"]
            velocity.mul_(momentum).add_(grad if share == 1 else grad * share)
            grad = grad + velocity * momentum if group["nesterov"] else velocity
        parameter.sub_(grad * hyperparameter(group, "lr"))
