"""The state that optimizers make in the middle of a compiled function's first call: it is traced for all calls, unless
something could have noticed that the state was new."""

from __future__ import annotations

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
            assert run.explain().count("traced because of") == 2, run.explain()


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
