"""Adam for embeddings: rows of the parameter that a batch does not use stay as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.from_data import tensor
from graphc.frontend.optim.optimizer import Optimizer, check_betas, hyperparameter
from graphc.frontend.pointwise import where
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracer import active
from graphc.types import float32, float64


class SparseAdam(Optimizer):
    """Adam (Kingma and Ba 2015) that changes only the rows of a parameter whose gradient is not zero everywhere: the others
    keep their numbers and their running means.

    PyTorch's takes the rows that a sparse gradient names. Gradients are dense here, so any parameter can be given; rows are
    along the first dimension.

    >>> import graphc
    >>> table = graphc.nn.Embedding(4, 2)
    >>> before = table.weight.detach().clone()
    >>> optimizer = graphc.optim.SparseAdam(table.parameters())
    >>> table(graphc.tensor([2])).sum().backward()
    >>> optimizer.step()
    >>> (table.weight != before).any(1)
    tensor([False, False,  True, False])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, maximize: bool = False) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})

    def _check(self, group: Mapping[str, Any]) -> None:
        for name, value in (("learning rate", group["lr"]), ("epsilon value", group["eps"])):
            if not value > 0:
                raise ArgumentError(f"Invalid {name}: {value}", expected="a positive number")
        check_betas(group)

    def _update(self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        step = self._new_state(state, "step", lambda: tensor(0.0, dtype=float32))
        first = self._zeros(state, "exp_avg", parameter)
        second = self._zeros(state, "exp_avg_sq", parameter)
        step.add_(1)
        used = grad != 0
        if grad.dim() > 1:
            used = used.any(tuple(range(1, grad.dim())), keepdim=True)
        first.copy_(where(used, first + (grad - first) * (1 - beta1), first))
        second.copy_(where(used, second + (grad * grad - second) * (1 - beta2), second))
        count: Any = step.to(float64) if active() is not None else step.item()
        size = hyperparameter(group, "lr") * (1 - beta2**count) ** 0.5 / (1 - beta1**count)
        parameter.sub_(where(used, first / (second.sqrt() + group["eps"]) * size, 0.0))
