"""Muon: momentum whose steps are made orthogonal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.arithmetic import lerp
from graphc.frontend.linalg_norms import norm
from graphc.frontend.matrices import addmm
from graphc.frontend.optim.optimizer import Optimizer, hyperparameter
from graphc.frontend.pointwise import cast, clamp
from graphc.frontend.tensor import Tensor
from graphc.types import float32


class Muon(Optimizer):
    """p -= lr * scale * U with U near the closest orthogonal matrix to the momentum (Jordan et al. 2024); for matrices only.

    `adjust_lr_fn` says how `scale` depends on a matrix's shape [a, b]: "original" (the default) is sqrt(max(1, a / b)),
    "match_rms_adamw" is 0.2 * sqrt(max(a, b)). Weight decay shrinks the parameter directly.

    >>> weight = graphc.eye(2).requires_grad_()
    >>> optimizer = graphc.optim.Muon([weight], lr=0.1, weight_decay=0.0)
    >>> (weight * graphc.tensor([[1.0, 0.0], [0.0, 2.0]])).sum().backward()
    >>> optimizer.step()
    >>> weight.shape
    graphc.Size([2, 2])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
                 nesterov: bool = True, ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
                 eps: float = 1e-7, ns_steps: int = 5, adjust_lr_fn: str | None = None) -> None:
        super().__init__(params, {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn})

    def _check(self, group: Mapping[str, Any]) -> None:
        for name, spelled in (("lr", "Learning rate"), ("momentum", "momentum"), ("weight_decay", "weight decay")):
            if not isinstance(group[name], Tensor) and not group[name] >= 0.0:
                raise ArgumentError(f"{spelled} should be >= 0 but is: {group[name]}")
        if group["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            raise ArgumentError(f"Adjust learning rate function {group['adjust_lr_fn']} is not supported",
                                expected="None, 'original' or 'match_rms_adamw'")
        if len(group["ns_coefficients"]) != 3:
            raise ArgumentError("Coefficients must be a tuple of exactly 3 values", got=str(group["ns_coefficients"]))
        if group["ns_steps"] >= 100:
            raise ArgumentError("Number of steps must be less than 100 for computational efficiency")
        for parameter in group["params"]:
            if parameter.dim() != 2:
                raise ArgumentError("Muon only supports 2D parameters whereas we found a parameter with size: "
                                    f"{parameter.size()}")

    def _update(self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        rate, momentum = hyperparameter(group, "lr"), group["momentum"]
        average = self._zeros(state, "momentum_buffer", parameter)
        average.lerp_(grad, 1 - momentum)
        direction = lerp(grad, average, momentum) if group["nesterov"] else average
        step = orthogonalized(direction, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = parameter._data.shape
        scale = math.sqrt(max(1, rows / columns))
        if group["adjust_lr_fn"] == "match_rms_adamw":
            scale = 0.2 * math.sqrt(max(rows, columns))
        parameter.mul_(1 - rate * group["weight_decay"])
        parameter.sub_(cast(step, parameter.dtype) * (rate * scale))


def orthogonalized(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """A matrix with the singular vectors of `x` and singular values near 1, float32.

    Each step of this Newton-Schulz iteration takes singular values s to a s + b s^3 + c s^5. PyTorch computes it in bfloat16.
    """
    a, b, c = coefficients
    tall = x._data.shape[0] > x._data.shape[1]
    x = cast(x, float32)
    y = x.T if tall else x
    y = y / clamp(norm(y), min=eps)
    for _ in range(steps):
        gram = y @ y.T
        y = addmm(y, addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.T if tall else y
