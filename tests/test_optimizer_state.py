"""The state that optimizers make in the middle of a compiled function's first call: it is traced for all calls, unless
something could have noticed that the state was new."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.errors import TraceError

ALIKE: dict[str, Callable[[Any], optim.Optimizer]] = {
    "SGD": lambda parameters: optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: optim.SGD(parameters, lr=0.05, momentum=0.9),
    "Nesterov": lambda parameters: optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "amsgrad": lambda parameters: optim.Adam(parameters, lr=0.05, amsgrad=True),
    "groups": lambda parameters: optim.AdamW([{"params": parameters[:1], "lr": 0.1}, {"params": parameters[1:]}]),
    **{
        name: getattr(optim, name)
        for name in ("Adam", "AdamW", "RMSprop", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop", "Adafactor")
    },
}
CALLS = 4


class Remembering(optim.SGD):
    """A rule of the user's own whose first step is another one."""

    def _update(self, parameter: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        if state:
            grad = grad + state["before"]
        else:
            self._zeros(state, "before", parameter)
        state["before"].copy_(grad)
        parameter.sub_(grad * group["lr"])


class Warming(optim.Adam):
    """A step that asks for the state."""

    def step(self, closure: Any = None) -> Any:
        rate = 0.01 if self.state else 0.1
        self.param_groups[0]["lr"] = rate
        return super().step(closure)


def trained(
    make: Callable[[Any], optim.Optimizer], compiled: bool, before: Callable[[optim.Optimizer, Any], Any] = lambda o, loss: loss
) -> tuple[list[np.ndarray], optim.Optimizer, Any]:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    optimizer = make(list(model.parameters()))
    x, y = graphc.randn(8, 6), graphc.randn(8, 1)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        loss = before(optimizer, loss)
        optimizer.step()
        return loss

    run = graphc.compile(step) if compiled else step
    results = [run(x, y).detach().numpy() for _ in range(CALLS)]
    return [*results, *(p.detach().numpy() for p in model.parameters())], optimizer, run


def check(make: Callable[[Any], optim.Optimizer], traces: int, *before: Any) -> None:
    got, optimizer, run = trained(make, True, *before)
    wanted, other, _ = trained(make, False, *before)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert run.explain().count("traced because of") == traces, run.explain()
    states, others = (list(o.state_dict()["state"].items()) for o in (optimizer, other))
    assert [(i, list(state)) for i, state in states] == [(i, list(state)) for i, state in others]


@pytest.mark.parametrize("name", ALIKE)
def test_a_training_step_is_traced_once(name: str) -> None:
    check(ALIKE[name], 1)


def test_a_first_step_that_is_another_one() -> None:
    check(lambda parameters: optim.SGD(parameters, lr=0.05, momentum=0.9, dampening=0.5), 2)
    check(lambda parameters: Remembering(parameters, lr=0.05), 2)


def test_code_that_asks_whether_there_is_a_state() -> None:
    check(lambda parameters: Warming(parameters), 2)
    check(ALIKE["Adam"], 2, lambda optimizer, loss: loss * 1 if optimizer.state else loss * 3)
    check(ALIKE["Adam"], 2, lambda optimizer, loss: loss + len(optimizer.state_dict()["state"]))
    check(ALIKE["Adam"], 2, lambda optimizer, loss: loss + len(getattr(optimizer, "st" + "ate")))


def test_an_option_that_asks_for_more_state_later() -> None:
    for compiled in (True, False):
        _, optimizer, run = trained(lambda parameters: optim.Adam(parameters, lr=0.01), compiled)
        optimizer.param_groups[0]["amsgrad"] = True
        for _ in range(2):
            run(graphc.ones(8, 6), graphc.ones(8, 1))
        assert all("max_exp_avg_sq" in state for state in optimizer.state.values())
        if compiled:
            assert run.explain().count("traced because of") == 3, run.explain()


def test_rules_without_a_state_leave_none() -> None:
    for compiled in (True, False):
        _, optimizer, _ = trained(ALIKE["SGD"], compiled)
        assert optimizer.state_dict()["state"] == {} and not optimizer.state


def test_an_exception_leaves_the_state_that_it_leaves_eagerly() -> None:
    def states(compiled: bool) -> list[list[str]]:
        weight = nn.Parameter(graphc.ones(3))
        optimizer = optim.Adam([weight])

        def step(x: Any) -> None:
            optimizer.zero_grad()
            (weight * x).sum().backward()
            optimizer.step()
            raise ValueError("after the step")

        run = graphc.compile(step) if compiled else step
        for _ in range(2):
            with pytest.raises(ValueError, match="after the step"):
                run(graphc.ones(3))
        assert optimizer.state[weight]["step"].item() == 2
        return [list(state) for state in optimizer.state.values()]

    assert states(True) == states(False)


def test_what_cannot_be_traced_leaves_no_state() -> None:
    weight = nn.Parameter(graphc.ones(3))
    optimizer = optim.Adam([weight])

    @graphc.compile(fullgraph=True)
    def step(x: Any) -> None:
        optimizer.zero_grad()
        (weight * x).sum().backward()
        optimizer.step()
        print("done")

    with pytest.raises(TraceError, match="print"):
        step(graphc.ones(3))
    assert not optimizer.state and weight.detach().tolist() == [1, 1, 1]


# Who else may see that the state is new


def stepping(look: Callable[[optim.Optimizer, nn.Parameter], Callable[[Any], Any]]) -> Any:
    """A training step whose loss goes through what `look` makes of the optimizer outside."""

    def results(compiled: bool) -> list[float]:
        weight = nn.Parameter(graphc.full((3,), 2.0))
        optimizer = optim.Adam([weight], lr=0.1)
        change = look(optimizer, weight)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = change((weight * x).sum())
            loss.backward()
            optimizer.step()
            return loss

        run = graphc.compile(step) if compiled else step
        return [run(graphc.full((3,), k + 1.0)).item() for k in range(CALLS)]

    np.testing.assert_allclose(results(True), results(False), rtol=1e-5)


def named(optimizer: optim.Optimizer, weight: nn.Parameter) -> Callable[[Any], Any]:
    known = optimizer.state
    return lambda loss: loss if known else loss * 3


def keys(optimizer: optim.Optimizer, weight: nn.Parameter) -> Callable[[Any], Any]:
    known = optimizer.state.keys()
    return lambda loss: loss if len(known) else loss * 3


def held(optimizer: optim.Optimizer, weight: nn.Parameter) -> Callable[[Any], Any]:
    known = optimizer.state[weight]
    return lambda loss: loss * (len(known) + 1)


def asked(optimizer: optim.Optimizer, weight: nn.Parameter) -> Callable[[Any], Any]:
    return lambda loss: loss if optimizer.__getstate__()["state"] else loss * 3


@pytest.mark.parametrize("look", [named, keys, held, asked])
def test_state_that_is_reached_under_another_name(look: Any) -> None:
    stepping(look)


class Halving(optim.Adam):
    """A step that changes what there is, and puts it into the place of what was."""

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        for known in self.state.values():
            known["exp_avg"] = known["exp_avg"] * 0.5
        return result


class Whole(optim.Optimizer):
    """A rule that keeps a state of its own making."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def _update(self, parameter: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        before = self.state[parameter].get("m", 0.0)
        self.state[parameter] = {"m": grad + 0.9 * before}
        parameter.sub_(self.state[parameter]["m"] * group["lr"])


class Wrapped(optim.Adam):
    """A rule that looks like the one that it calls."""

    @functools.wraps(optim.Adam._update)
    def _update(self, parameter: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
        super()._update(parameter, grad if state else grad * 10, state, group)


def patched(parameters: Any) -> optim.Optimizer:
    optimizer = optim.SGD(parameters, lr=0.05, momentum=0.9)
    update = optimizer._update
    optimizer._update = lambda p, g, state, group: update(p, g if state else g * 0.1, state, group)  # type: ignore[method-assign]
    return optimizer


@pytest.mark.parametrize("make", [Halving, Whole, Wrapped, patched])
def test_rules_and_steps_of_the_users_own(make: Any) -> None:
    check(make, 2)


def test_a_rule_that_throws_its_state_away() -> None:
    class Forgetting(Whole):
        def _update(self, parameter: Any, grad: Any, state: dict[str, Any], group: dict[str, Any]) -> None:
            super()._update(parameter, grad, state, group)
            self.state.pop(parameter)

    _, optimizer, _ = trained(Forgetting, False)
    assert not optimizer.state


def test_state_that_the_call_clears_again() -> None:
    def clearing(optimizer: optim.Optimizer, weight: nn.Parameter) -> Callable[[Any], Any]:
        optimizer.register_step_post_hook(lambda o, *_: o.state.clear())
        return lambda loss: loss

    stepping(clearing)


# Optimizers, schedules and scalers in the call


def test_an_optimizer_that_each_call_makes() -> None:
    """As for an input that is attacked: it begins at each call, and is traced as all else."""

    def attack(x: Any) -> Any:
        change = graphc.zeros(3, requires_grad=True)
        optimizer = optim.Adam([change], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            ((change - x) ** 2).sum().backward()
            optimizer.step()
        return change.detach()

    def aliased(x: Any) -> Any:
        change = x.detach().requires_grad_()
        optimizer = optim.SGD([change], lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            ((change - 2) ** 2).sum().backward()
            optimizer.step()
        return change.detach() * 1

    for function in (attack, aliased):
        compiled = graphc.compile(function)
        for k in range(CALLS):
            x, y = (graphc.full((3,), float(k)) for _ in range(2))
            np.testing.assert_allclose(compiled(x).numpy(), function(y).numpy(), rtol=1e-5)
            np.testing.assert_allclose(x.numpy(), y.numpy(), rtol=1e-5)
        assert compiled.explain().count("traced because of") == 1, compiled.explain()


@pytest.mark.parametrize("make", [
    lambda optimizer: optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5),
    lambda optimizer: optim.lr_scheduler.MultiStepLR(optimizer, [1, 4], gamma=0.5),
    lambda optimizer: optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),
])
@pytest.mark.parametrize("inside", [True, False])
def test_a_schedule_in_the_step_or_beside_it(make: Callable[[optim.Optimizer], Any], inside: bool) -> None:
    def rates(compiled: bool) -> tuple[list[float], list[float], int]:
        weight = nn.Parameter(graphc.ones(3))
        optimizer = optim.Adam([weight], lr=0.1)
        schedule = make(optimizer)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (weight * x).sum()
            loss.backward()
            optimizer.step()
            return loss

        def both(x: Any) -> Any:
            loss = step(x)
            schedule.step()
            return loss

        function = both if inside else step
        run, found, losses = graphc.compile(function) if compiled else function, [], []
        for _ in range(8):
            losses.append(run(graphc.ones(3)).item())
            if not inside:
                schedule.step()
            found.append(optimizer.param_groups[0]["lr"])
        if compiled and not inside:
            assert run.explain().count("traced because of") == 1, run.explain()
        return found, [round(loss, 5) for loss in losses], schedule.last_epoch

    assert rates(True) == rates(False)


def test_a_scaler_in_the_step() -> None:
    def scales(compiled: bool) -> list[float]:
        weight = nn.Parameter(graphc.ones(3))
        optimizer = optim.SGD([weight], lr=0.1)
        scaler = graphc.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            scaler.scale((weight * x).sum()).backward()
            scaler.step(optimizer)
            scaler.update()

        run, found = graphc.compile(step) if compiled else step, []
        for _ in range(6):
            run(graphc.ones(3))
            found.append(scaler.get_scale())
        return found

    assert scales(True) == scales(False)
