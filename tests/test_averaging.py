"""Averaged models, the schedule that goes with them, Muon, and optimizers written by users."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.optim import swa_utils
from graphc.optim.swa_utils import SWALR, AveragedModel


def set_all(model: nn.Module, value: float) -> None:
    for p in model.parameters():
        nn.init.constant_(p, value)


@pytest.mark.parametrize("options, wanted", [
    ({}, [1, 1.5, 3]),  # the means of 1, 2, 6
    ({"avg_fn": swa_utils.get_ema_avg_fn(0.5)}, [1, 1.5, 3.75]),
    ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.5)}, [1, 1.5, 3.75]),
    ({"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()}, [1, 1.5, 3]),
    ({"avg_fn": lambda averaged, current, count: averaged + count}, [1, 2, 4]),
])
@pytest.mark.parametrize("buffers", [False, True])
def test_parameters_are_averaged(options: dict[str, object], wanted: list[float], buffers: bool) -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    average = AveragedModel(model, use_buffers=buffers, **options)
    for i, value in enumerate((1.0, 2.0, 6.0)):
        set_all(model, value)
        model[1].running_mean.fill_(value)
        average.update_parameters(model)
        assert average.module[0].weight.item() == pytest.approx(wanted[i])
        assert average.module[1].running_mean.item() == pytest.approx(wanted[i] if buffers else value)
    assert average.n_averaged.item() == 3 and model[0].weight.item() == 6
    assert list(average.state_dict())[:2] == ["n_averaged", "module.0.weight"]
    with pytest.raises(ValueError, match="Only one of"):
        AveragedModel(model, avg_fn=swa_utils.get_swa_avg_fn(), multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    with pytest.raises(ValueError, match="Invalid decay value"):
        swa_utils.get_ema_avg_fn(1.5)


def test_averages_compile_with_the_step() -> None:
    model = nn.Linear(2, 1)
    optimizer, average = optim.SGD(model.parameters(), 0.1), AveragedModel(model)
    seen: list[np.ndarray] = []

    @graphc.compile
    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = model(x).pow(2).sum()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        return loss

    for _ in range(3):
        step(graphc.ones(1, 2))
        seen.append(model.weight.detach().numpy().copy())
    np.testing.assert_allclose(average.module.weight.detach().numpy(), np.mean(seen, 0), rtol=1e-5)


def test_statistics_of_normalisations_are_computed_anew() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1)).eval()
    model[0].running_mean.fill_(9)
    batches = [graphc.randn(8, 2) for _ in range(3)]
    swa_utils.update_bn([(x, None) for x in batches], model)
    np.testing.assert_allclose(model[0].running_mean.numpy(), np.mean([x.numpy().mean(0) for x in batches], 0), atol=1e-6)
    assert model[0].momentum == 0.1 and not model.training and model[0].num_batches_tracked.item() == 3


@pytest.mark.parametrize("strategy, wanted", [
    ("linear", [1.0, 0.775, 0.55, 0.325, 0.1, 0.1]), ("cos", [1.0, 0.868198, 0.55, 0.231802, 0.1, 0.1]),
])
def test_rates_go_to_the_constant_one(strategy: str, wanted: list[float]) -> None:
    optimizer = optim.SGD([nn.Parameter(graphc.ones(1))], lr=1.0)
    schedule, rates = SWALR(optimizer, swa_lr=0.1, anneal_epochs=4, anneal_strategy=strategy), []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="anneal_strategy"):
        SWALR(optimizer, 0.1, anneal_strategy="x")


# Muon


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (1, 5)])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("adjust", [None, "match_rms_adamw"])
def test_muon(shape: tuple[int, int], nesterov: bool, adjust: str | None) -> None:
    rng = np.random.default_rng(0)
    theta, momentum = rng.standard_normal(shape), np.zeros(shape)
    p = nn.Parameter(graphc.tensor(theta))
    optimizer = optim.Muon([p], lr=0.1, weight_decay=0.5, momentum=0.9, nesterov=nesterov, adjust_lr_fn=adjust)
    for _ in range(3):
        grad = rng.standard_normal(shape)
        momentum = 0.9 * momentum + 0.1 * grad
        step = 0.1 * grad + 0.9 * momentum if nesterov else momentum
        u, s, v = np.linalg.svd(step, full_matrices=False)
        s = s / np.linalg.norm(s)
        for _ in range(5):  # the iteration acts on the singular values alone
            s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
        scale = max(1, shape[0] / shape[1]) ** 0.5 if adjust is None else 0.2 * max(shape) ** 0.5
        theta = theta * (1 - 0.1 * 0.5) - 0.1 * scale * (u * s) @ v
        p.grad = graphc.tensor(grad)
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), theta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options, message", [
    ({"lr": -1.0}, "Learning rate should be >= 0"), ({"adjust_lr_fn": "x"}, "not supported"),
    ({"ns_steps": 100}, "less than 100"), ({"ns_coefficients": (1.0, 2.0)}, "exactly 3"),
])
def test_muon_misuse(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        optim.Muon([nn.Parameter(graphc.ones(2, 2))], **options)
    with pytest.raises(ValueError, match="only supports 2D"):
        optim.Muon([nn.Parameter(graphc.ones(2))])


# Hooks


class Signs(optim.Optimizer):
    """As users write optimizers: with a step of their own."""

    def __init__(self, params: object, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @graphc.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(p.grad.sign() * group["lr"])


class Loud(optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


@pytest.mark.parametrize("make", [Signs, Loud, optim.SGD])
def test_hooks_run_once_around_any_step(make) -> None:
    p = nn.Parameter(graphc.zeros(1))
    optimizer, order = make([p], lr=0.5), []
    optimizer.register_step_pre_hook(lambda o, args, kwargs: order.append(("pre", args[0] is o, kwargs)))
    handle = optimizer.register_step_post_hook(lambda o, args, kwargs: order.append("post"))
    schedule = optim.lr_scheduler.StepLR(optimizer, 1)
    p.grad = graphc.ones(1)
    optimizer.step()
    schedule.step()  # no warning: it has seen the step
    assert order == [("pre", True, {}), "post"] and p.item() == -0.5
    handle.remove()
    optimizer.step()
    assert len(order) == 3


def test_a_pre_hook_may_replace_the_arguments() -> None:
    p = nn.Parameter(graphc.zeros(1))
    optimizer = optim.SGD([p], lr=0.5)
    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((args[0], lambda: 7), {}))
    assert optimizer.step() == 7
    optimizer.register_step_pre_hook(lambda o, args, kwargs: 3)
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        optimizer.step()


def test_hooks_of_states() -> None:
    p = nn.Parameter(graphc.zeros(1))
    optimizer, order = optim.SGD([p], lr=0.5), []
    optimizer.register_state_dict_pre_hook(lambda o: order.append("pre"))
    optimizer.register_state_dict_post_hook(lambda o, state: {**state, "extra": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, state: {k: v for k, v in state.items() if k != "extra"})
    optimizer.register_load_state_dict_post_hook(lambda o: order.append("loaded"))
    optimizer.register_load_state_dict_post_hook(lambda o: order.append("first"), prepend=True)
    state = copy.deepcopy(optimizer.state_dict())
    assert state["extra"] == 1
    optimizer.load_state_dict(state)
    assert order == ["pre", "first", "loaded"]
