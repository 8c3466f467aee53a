"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphc.frontend.from_data import tensor
from graphc.frontend.optim.optimizer import Optimizer, check_betas, check_positive, hyperparameter
from graphc.frontend.pointwise import maximum
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracer import active
from graphc.types import float32, float64


class Adam(Optimizer):
    """p -= lr * m / (sqrt(v) + eps), with running means m of the gradient and v of its square, both corrected for their
    start at zero (Kingma and Ba 2015).

    `weight_decay` adds that multiple of the parameter to its gradient; `amsgrad` takes the largest v so far.

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.Adam([weight], lr=0.1)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.9000])
    """

    _decoupled = False

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False, differentiable: bool = False, fused: bool | None = None,
                 decoupled_weight_decay: bool = False) -> None:
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay or self._decoupled})

    def _check(self, group: Mapping[str, Any]) -> None:
        check_positive("learning rate", group["lr"])
        check_positive("epsilon value", group["eps"])
        check_positive("weight_decay value", group["weight_decay"])
        check_betas(group)

    def _update(self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        rate = hyperparameter(group, "lr")
        step = self._new_state(state, "step", lambda: tensor(0.0, dtype=float32))
        first = self._zeros(state, "exp_avg", parameter)
        second = self._zeros(state, "exp_avg_sq", parameter)
        step.add_(1)
        if group["weight_decay"] != 0:
            if group["decoupled_weight_decay"]:
                parameter.mul_(1 - rate * group["weight_decay"])
            else:
                grad = grad + parameter * group["weight_decay"]
        first.add_((grad - first).mul_(1 - beta1))  # lerp_, of which this takes a third of the memory
        second.mul_(beta2).add_((grad * grad).mul_(1 - beta2))
        # in double precision, as Python numbers or as 0-d tensors: the formula is the same
        count: Any = step.to(float64) if active() is not None else step.item()
        start1, start2 = 1 - beta1**count, 1 - beta2**count
        largest = second
        if group["amsgrad"]:
            largest = self._zeros(state, "max_exp_avg_sq", parameter)
            largest.copy_(maximum(largest, second))
        # a product with the reciprocal, which is one number, instead of a division for each element
        root = largest.sqrt().mul_(start2**-0.5).add_(group["eps"])
        parameter.sub_((first / root).mul_(rate / start1))


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameter directly (Loshchilov and Hutter 2019).

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.AdamW([weight], lr=0.1)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.8990])
    """

    _decoupled = True

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
                 foreach: bool | None = None, capturable: bool = False, differentiable: bool = False,
                 fused: bool | None = None) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
                         capturable=capturable, differentiable=differentiable, fused=fused)
