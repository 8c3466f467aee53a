"""Optimizers that scale each parameter's steps by its past gradients: Adagrad, Adadelta, RMSprop, Adamax, NAdam, RAdam,
Adafactor, Rprop, and averaged descent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.frontend.creation import zeros
from graphc.frontend.creation_like import full_like
from graphc.frontend.from_data import tensor
from graphc.frontend.linalg_norms import norm
from graphc.frontend.optim.optimizer import Optimizer, check_betas, check_positive, hyperparameter
from graphc.frontend.pointwise import abs, clamp, maximum, rsqrt, sign, sqrt, where
from graphc.frontend.reductions import mean
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracer import active
from graphc.types import float32, float64

Group = dict[str, Any]
State = dict[str, Any]


def _check_common(group: Mapping[str, Any]) -> None:
    check_positive("learning rate", group["lr"])
    check_positive("epsilon value", group["eps"])
    check_positive("weight_decay value", group["weight_decay"])


class _Counting(Optimizer):
    """An optimizer whose rule depends on the number of the step."""

    def _count(self, state: State) -> Any:
        """Count a step, and give its number in double precision: a Python number, inside a trace a 0-d tensor."""
        step = self._new_state(state, "step", lambda: tensor(0.0, dtype=float32))
        step.add_(1)
        return step.to(float64) if active() is not None else step.item()

    @staticmethod
    def _decayed(parameter: Tensor, grad: Tensor, group: Group) -> Tensor:
        return grad + parameter * group["weight_decay"] if group["weight_decay"] != 0 else grad


class Adagrad(_Counting):
    """p -= lr * grad / (sqrt(sum of grad^2) + eps) (Duchi, Hazan and Singer 2011).

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.Adagrad([weight], lr=0.1)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.9000])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
                 initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *,
                 maximize: bool = False, differentiable: bool = False, fused: bool | None = None) -> None:
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "fused": fused})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {"step": tensor(0.0, dtype=float32),
                                         "sum": full_like(parameter, group["initial_accumulator_value"])}

    def _check(self, group: Mapping[str, Any]) -> None:
        _check_common(group)
        check_positive("lr_decay value", group["lr_decay"])
        check_positive("initial_accumulator_value value", group["initial_accumulator_value"])

    def _update(self, parameter: Tensor, grad: Tensor, state: State, group: Group) -> None:
        count = self._count(state)
        grad = self._decayed(parameter, grad, group)
        total = self._new_state(state, "sum", lambda: full_like(parameter, group["initial_accumulator_value"]))
        total.add_(grad * grad)
        rate = hyperparameter(group, "lr") / (1 + (count - 1) * group["lr_decay"])
        parameter.sub_(grad * rate / (sqrt(total) + group["eps"]))


class Adadelta(_Counting):
    """Steps scaled by the ratio of the sizes of past steps and of past gradients (Zeiler 2012).

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.Adadelta([weight], lr=0.1)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.9997])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1.0, rho: float = 0.9, eps: float = 1e-6,
                 weight_decay: float = 0, foreach: bool | None = None, *, capturable: bool = False, maximize: bool = False,
                 differentiable: bool = False) -> None:
        super().__init__(params, {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize, "capturable": capturable,
            "foreach": foreach, "differentiable": differentiable})

    def _check(self, group: Mapping[str, Any]) -> None:
        _check_common(group)
        if not 0.0 <= group["rho"] <= 1.0:
            raise ArgumentError(f"Invalid rho value: {group['rho']}")

    def _update(self, parameter: Tensor, grad: Tensor, state: State, group: Group) -> None:
        self._count(state)
        rho, eps = group["rho"], group["eps"]
        grad = self._decayed(parameter, grad, group)
        squares = self._zeros(state, "square_avg", parameter)
        steps = self._zeros(state, "acc_delta", parameter)
        squares.mul_(rho).add_(grad * grad * (1 - rho))
        delta = sqrt(steps + eps) / sqrt(squares + eps) * grad
        steps.mul_(rho).add_(delta * delta * (1 - rho))
        parameter.sub_(delta * hyperparameter(group, "lr"))


class RMSprop(_Counting):
    """p -= lr * grad / (sqrt(v) + eps), with a running mean v of grad^2; `centered` takes the variance in its place.

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.RMSprop([weight], lr=0.01)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.9000])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0, momentum: float = 0, centered: bool = False, capturable: bool = False,
                 foreach: bool | None = None, maximize: bool = False, differentiable: bool = False) -> None:
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered, "weight_decay": weight_decay,
            "capturable": capturable, "foreach": foreach, "maximize": maximize, "differentiable": differentiable})

    def _check(self, group: Mapping[str, Any]) -> None:
        _check_common(group)
        check_positive("momentum value", group["momentum"])
        check_positive("alpha value", group["alpha"])

    def _update(self, parameter: Tensor, grad: Tensor, state: State, group: Group) -> None:
        self._count(state)
        alpha = group["alpha"]
        grad = self._decayed(parameter, grad, group)
        squares = self._zeros(state, "square_avg", parameter)
        squares.mul_(alpha).add_(grad * grad * (1 - alpha))
        spread: Any = squares
        if group["centered"]:
            centre = self._zeros(state, "grad_avg", parameter)
            centre.lerp_(grad, 1 - alpha)
            spread = squares - centre * centre
        step = grad / (sqrt(spread) + group["eps"])
        if group["momentum"] > 0:
            step = self._zeros(state, "momentum_buffer", parameter).mul_(group["momentum"]).add_(step)
        parameter.sub_(step * hyperparameter(group, "lr"))


class Adamax(_Counting):
    """Adam with the largest gradient so far, decaying, in the place of the mean square (Kingma and Ba 2015).

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.Adamax([weight], lr=0.1)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.9000])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, capturable: bool = False) -> None:
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable})

    def _check(self, group: Mapping[str, Any]) -> None:
        _check_common(group)
        check_betas(group)

    def _update(self, parameter: Tensor, grad: Tensor, state: State, group: Group) -> None:
        count = self._count(state)
        beta1, beta2 = group["betas"]
        grad = self._decayed(parameter, grad, group)
        first = self._zeros(state, "exp_avg", parameter)
        largest = self._zeros(state, "exp_inf", parameter)
        first.lerp_(grad, 1 - beta1)
        largest.copy_(maximum(largest * beta2, abs(grad) + group["eps"]))
        parameter.sub_(first / largest * (hyperparameter(group, "lr") / (1 - beta1**count)))


class NAdam(_Counting):
    """Adam with Nesterov's momentum (Dozat 2016).

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.NAdam([weight], lr=0.1)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.8944])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, momentum_decay: float = 4e-3,
                 decoupled_weight_decay: bool = False, *, foreach: bool | None = None, maximize: bool = False,
                 capturable: bool = False, differentiable: bool = False) -> None:
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable})

    def _check(self, group: Mapping[str, Any]) -> None:
        _check_common(group)
        check_betas(group)
        check_positive("momentum_decay value", group["momentum_decay"])

    def _update(self, parameter: Tensor, grad: Tensor, state: State, group: Group) -> None:
        count = self._count(state)
        beta1, beta2 = group["betas"]
        rate, decay = hyperparameter(group, "lr"), group["momentum_decay"]
        if group["decoupled_weight_decay"] and group["weight_decay"] != 0:
            parameter.mul_(1 - rate * group["weight_decay"])
        else:
            grad = self._decayed(parameter, grad, group)
        product = self._new_state(state, "mu_product", lambda: tensor(1.0, dtype=float32))
        first = self._zeros(state, "exp_avg", parameter)
        second = self._zeros(state, "exp_avg_sq", parameter)
        now = beta1 * (1 - 0.5 * 0.96 ** (count * decay))
        after = beta1 * (1 - 0.5 * 0.96 ** ((count + 1) * decay))
        product.mul_(now)
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).add_(grad * grad * (1 - beta2))
        root = sqrt(second / (1 - beta2**count)) + group["eps"]
        so_far: Any = product.to(float64) if active() is not None else product.item()
        parameter.sub_(grad / root * (rate * (1 - now) / (1 - so_far)))
        parameter.sub_(first / root * (rate * after / (1 - so_far * after)))


class RAdam(_Counting):
    """Adam that takes plain momentum steps until the variance of its scale is bounded (Liu et al. 2020).

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.RAdam([weight], lr=0.1)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.7000])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, decoupled_weight_decay: bool = False, *,
                 foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False) -> None:
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "decoupled_weight_decay": decoupled_weight_decay, "differentiable": differentiable})

    def _check(self, group: Mapping[str, Any]) -> None:
        _check_common(group)
        check_betas(group)

    def _update(self, parameter: Tensor, grad: Tensor, state: State, group: Group) -> None:
        count = self._count(state)
        beta1, beta2 = group["betas"]
        rate = hyperparameter(group, "lr")
        if group["decoupled_weight_decay"] and group["weight_decay"] != 0:
            parameter.mul_(1 - rate * group["weight_decay"])
        else:
            grad = self._decayed(parameter, grad, group)
        first = self._zeros(state, "exp_avg", parameter)
        second = self._zeros(state, "exp_avg_sq", parameter)
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).add_(grad * grad * (1 - beta2))
        start2 = 1 - beta2**count
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * count * beta2**count / start2
        ratio = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
        step = first * (rate / (1 - beta1**count))
        if isinstance(length, Tensor):
            scale = sqrt(where(length > 5.0, ratio * start2, 1.0))
            parameter.sub_(where(length > 5.0, step * scale / (sqrt(second) + group["eps"]), step))
        elif length > 5.0:
            parameter.sub_(step * math.sqrt(ratio * start2) / (sqrt(second) + group["eps"]))
        else:
            parameter.sub_(step)


class ASGD(_Counting):
    """Descent with a decreasing rate, and the average of the parameters on the side (Polyak and Juditsky 1992).

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.ASGD([weight], lr=0.1)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.7000])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-2, lambd: float = 1e-4, alpha: float = 0.75,
                 t0: float = 1e6, weight_decay: float = 0, foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False, capturable: bool = False) -> None:
        super().__init__(params, {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable})

    def _check(self, group: Mapping[str, Any]) -> None:
        check_positive("learning rate", group["lr"])
        check_positive("weight_decay value", group["weight_decay"])

    def _update(self, parameter: Tensor, grad: Tensor, state: State, group: Group) -> None:
        count = self._count(state)
        rate = hyperparameter(group, "lr")
        eta = self._new_state(state, "eta", lambda: tensor(float(group["lr"]), dtype=float32))
        share = self._new_state(state, "mu", lambda: tensor(1.0, dtype=float32))
        average = self._zeros(state, "ax", parameter)
        grad = self._decayed(parameter, grad, group)
        parameter.mul_(1 - eta * group["lambd"])
        parameter.sub_(grad * eta)
        average.add_((parameter - average) * share)
        eta.copy_(_scalar(rate / (1 + group["lambd"] * rate * count) ** group["alpha"]))
        share.copy_(_scalar(1 / _at_least_one(count - group["t0"])))


def _scalar(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else tensor(value, dtype=float64)


def _at_least_one(value: Any) -> Any:
    return clamp(value, min=1.0) if isinstance(value, Tensor) else max(1.0, value)


class Rprop(_Counting):
    """Steps of sizes that grow while the gradient keeps its sign and shrink when it turns (Riedmiller and Braun 1993).

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.Rprop([weight], lr=0.1)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.9000])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
                 step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False, foreach: bool | None = None,
                 maximize: bool = False, differentiable: bool = False) -> None:
        super().__init__(params, {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach, "maximize": maximize,
            "differentiable": differentiable, "capturable": capturable})

    def _check(self, group: Mapping[str, Any]) -> None:
        check_positive("learning rate", group["lr"])
        low, high = group["etas"]
        if not 0.0 < low < 1.0 < high:
            raise ArgumentError(f"Invalid eta values: {low}, {high}")

    def _update(self, parameter: Tensor, grad: Tensor, state: State, group: Group) -> None:
        self._count(state)
        shrink, grow = group["etas"]
        before = self._zeros(state, "prev", parameter)
        size = self._new_state(state, "step_size", lambda: full_like(parameter, float(group["lr"])))
        agreement = grad * before
        factor = where(agreement > 0, grow, where(agreement < 0, shrink, 1.0))
        size.copy_(clamp(size * factor, *group["step_sizes"]))
        grad = where(agreement < 0, 0.0, grad)
        parameter.sub_(sign(grad) * size)
        before.copy_(grad)


class Adafactor(_Counting):
    """Adam's scaling from the means of rows and columns alone, so that the state is small (Shazeer and Stern 2018).

    >>> weight = graphc.tensor([1.0], requires_grad=True)
    >>> optimizer = graphc.optim.Adafactor([weight], lr=0.1)
    >>> (weight * 3).sum().backward()
    >>> optimizer.step()
    >>> weight.detach()
    tensor([0.9000])
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-2, beta2_decay: float = -0.8,
                 eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0, weight_decay: float = 0.0, *,
                 foreach: bool | None = None, maximize: bool = False) -> None:
        super().__init__(params, {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d, "weight_decay": weight_decay, "foreach": foreach,
            "maximize": maximize})

    def _check(self, group: Mapping[str, Any]) -> None:
        check_positive("learning rate", group["lr"])
        check_positive("weight_decay value", group["weight_decay"])
        if group["beta2_decay"] > 0.0:
            raise ArgumentError(f"beta2_decay should be <= 0 but is: {group['beta2_decay']}")
        if group["d"] < 1.0:
            raise ArgumentError(f"Clipping threshold d should be >= 1 but is: {group['d']}")

    def _update(self, parameter: Tensor, grad: Tensor, state: State, group: Group) -> None:
        count = self._count(state)
        rate = hyperparameter(group, "lr")
        floor = np.finfo(parameter.dtype.numpy).eps.item() if group["eps"][0] is None else group["eps"][0]
        share = count ** group["beta2_decay"]
        scale = _smaller(rate, count**-0.5) * maximum(_size(parameter), _scalar(group["eps"][1]).to(parameter.dtype))
        if group["weight_decay"] != 0:
            parameter.mul_(1 - rate * group["weight_decay"])
        if grad.dim() > 1:
            shape = tuple(parameter.shape)
            rows = self._new_state(state, "row_var", lambda: zeros((*shape[:-1], 1), dtype=parameter.dtype))
            columns = self._new_state(state, "col_var", lambda: zeros((*shape[:-2], 1, shape[-1]), dtype=parameter.dtype))
            squares = grad * grad
            rows.add_((mean(squares, -1, keepdim=True) - rows) * share)
            columns.add_((mean(squares, -2, keepdim=True) - columns) * share)
            estimate = rows @ columns / clamp(mean(rows, -2, keepdim=True), min=floor)
        else:
            variance = self._zeros(state, "variance", parameter)
            variance.add_((grad * grad - variance) * share)
            estimate = variance
        update = rsqrt(clamp(estimate, min=floor * floor)) * grad
        excess = clamp(_size(update) / group["d"], min=1.0)
        parameter.sub_(update * (scale / excess))


def _size(x: Tensor) -> Tensor:
    """The root of the mean square."""
    return norm(x) / math.sqrt(x.numel())


def _smaller(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return where(a < b, a, b)
    return min(a, b)
