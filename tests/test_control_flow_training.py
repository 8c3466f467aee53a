"""graphc.compile: modules, training steps and derivatives whose way depends on numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ways import INPUTS, Made, agree, close, pure, way

import graphc
from graphc import nn
from graphc.errors import AutogradError
from graphc.frontend import follower
from graphc.frontend.pytree import flatten

pytestmark = pytest.mark.usefixtures("recorded_however_small")


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("steps", graphc.zeros(()))

    def forward(self, x: Any) -> Any:
        h = self.fc(x)
        self.steps += 1
        if h.mean() > 0:
            return h
        return h * 0 - self.steps


def test_branches_in_a_module() -> None:
    def make() -> Made:
        gate = Gate()
        return gate, lambda: [gate.steps]

    agree(make)


def test_nested_compiled_functions() -> None:
    inner = graphc.compile(lambda x: x * 2 if x.sum() > 0 else x * 3)
    agree(lambda: pure(lambda x: inner(x) + inner(-x)))


def test_transforms_inside() -> None:
    def f(x: Any) -> Any:
        slope = graphc.func.grad(lambda v: (v**2).sum() if v.sum() > 0 else (v**3).sum())(x)
        return graphc.func.vmap(lambda v: v * 2)(slope)

    agree(lambda: pure(f))


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_whole_training_steps(optimizer: str, python_runs: list[str]) -> None:
    def make() -> Made:
        graphc.manual_seed(1)
        model = nn.Sequential(nn.Linear(2, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))
        options = {"momentum": 0.9} if optimizer == "SGD" else {}
        opt = getattr(graphc.optim, optimizer)(model.parameters(), lr=1e-2, **options)

        def step(x: Any) -> Any:
            opt.zero_grad()
            loss = (model(x) ** 2).mean()
            if loss > 0.5:
                loss = loss * 0.5
            loss.backward()
            norm = graphc.stack([p.grad.norm() for p in model.parameters()]).norm()
            if norm > 0.3:
                for p in model.parameters():
                    p.grad.mul_(0.3 / norm)
            if not loss.isfinite():
                return "overflow"
            opt.step()
            return loss.item()

        def state() -> list[Any]:
            tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
            return [*tensors, *flatten(list(opt.state_dict()["state"].values()))[0]]

        return step, state

    graphc.manual_seed(5)
    inputs = [graphc.randn(6, 2).tolist() for _ in range(4)]
    agree(make, inputs, calls=8)
    assert 0 < python_runs.count("step") < 12  # what else is there are functions of several ops, which run eagerly too


def test_a_schedulers_learning_rate_makes_no_new_ways(python_runs: list[str]) -> None:
    weight = nn.Parameter(graphc.ones(2))
    opt = graphc.optim.SGD([weight], lr=1.0)

    @graphc.compile
    def step(x: Any) -> Any:
        opt.zero_grad()
        (weight * x).sum().backward()
        if weight.grad.norm() > 0.1:
            opt.step()
        return weight.detach() * 1

    for k in range(10):
        opt.param_groups[0]["lr"] = 2.0**-k
        before = weight.tolist()
        assert step(graphc.ones(2)).tolist() == pytest.approx([before[0] - 2.0**-k] * 2)
    assert len(python_runs) <= 2


def test_hooks_that_look_at_values() -> None:
    def make() -> Made:
        weight = nn.Parameter(graphc.ones(2))
        weight.register_hook(lambda grad: grad / grad.norm() if grad.norm() > 2 else grad)

        def f(x: Any) -> Any:
            weight.grad = None
            ((weight * x) ** 2).sum().backward()
            return weight.grad.clone()

        return f, lambda: [weight.grad]

    agree(make)


def test_gradients_outside_on_every_way(python_runs: list[str]) -> None:
    compiled = graphc.compile(way)
    for _ in range(4):
        for start in INPUTS:
            got, want = (graphc.tensor(start, requires_grad=True) for _ in range(2))
            for x, f in ((got, compiled), (want, way)):
                f(x * 1.5).sum().backward()
            assert got.grad is not None and want.grad is not None
            assert close(got.grad.tolist(), want.grad.tolist())
    assert len(python_runs) <= len(INPUTS)


def test_second_derivatives_outside() -> None:
    compiled = graphc.compile(way)
    for start in INPUTS * 2:
        found = []
        for f in (compiled, way):
            x = graphc.tensor(start, requires_grad=True)
            (slope,) = graphc.autograd.grad(f(x).sum(), x, create_graph=True)
            found.append(graphc.autograd.grad(slope.sum(), x)[0].tolist())
        assert close(*found)


def test_a_gradient_that_is_wanted_from_now_on() -> None:
    compiled = graphc.compile(way)
    x = graphc.tensor([1.0, 2.0])
    assert close(compiled(x).tolist(), way(x).tolist())
    x.requires_grad_()
    assert compiled(x).requires_grad
    with graphc.no_grad():
        assert not compiled(x).requires_grad


def test_backward_is_freed_as_eagerly() -> None:
    x = graphc.ones(2, requires_grad=True)
    out = graphc.compile(way)(x).sum()
    out.backward()
    with pytest.raises(AutogradError, match="second time"):
        out.backward()


def test_hooks_of_the_backward_pass_outside_that_look_at_values() -> None:
    seen = []

    def hook(grad: Any) -> Any:
        seen.append(grad.sum().item())
        return grad * 2 if grad.sum() > 0 else grad

    def f(x: Any) -> Any:
        y = x * 3
        y.register_hook(hook)
        return y.sum()

    compiled = graphc.compile(f)
    for _ in range(3):
        x = graphc.ones(2, requires_grad=True)
        compiled(x).backward()
        assert x.grad is not None and x.grad.tolist() == [6, 6]
    assert seen == [2.0] * 3


def test_detached_or_not_is_told_apart() -> None:
    """The same nodes, and another tape."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            h = x.detach() if self.calls % 2 else x
            return (h * x).sum() if x.sum() > 0 else x.sum()

    gradients: list[list[Any]] = [[], []]
    for found, wrap in zip(gradients, (lambda f: f, graphc.compile)):
        net = wrap(Net())
        for _ in range(6):
            x = graphc.tensor([1.0, 2.0], requires_grad=True)
            net(x).backward()
            assert x.grad is not None
            found.append(x.grad.tolist())
    assert gradients[0] == gradients[1]


def test_values_that_take_long_are_computed_by_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of the first step of a large model, which makes the optimizer's state."""

    def losses(wrap: Callable[..., Any]) -> list[float]:
        graphc.manual_seed(2)
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))
        opt = graphc.optim.Adam(model.parameters(), lr=0.1)

        def step(x: graphc.Tensor) -> float:
            opt.zero_grad()
            loss = (model(x) ** 2).mean()
            if loss > 0.01:
                loss = loss * 2
            loss.backward()
            opt.step()
            return loss.item()

        step = wrap(step)
        return [step(graphc.full((4, 3), float(k))) for k in range(4)]

    expected = losses(lambda step: step)
    monkeypatch.setattr(follower, "_COMPILING", 0.0)
    assert losses(graphc.compile) == pytest.approx(expected, rel=1e-4)


def test_a_gradient_that_asks_which_element_was_the_largest() -> None:
    """The first call computes op by op, its backward pass by code, whose tanh may be another in the last bit."""

    def f(x: graphc.Tensor) -> graphc.Tensor:
        y = x.tanh()
        if x.sum() > 100:
            y = y * 2
        return y.amax(0)

    compiled = graphc.compile(f)
    for k in range(20):
        values = np.random.default_rng(k).normal(size=(5, 3))
        slopes = []
        for function in (f, compiled):
            x = graphc.tensor(values, requires_grad=True)
            function(x).sum().backward()
            slopes.append(x.grad.numpy())
        np.testing.assert_allclose(slopes[1], slopes[0], 1e-9)
        compiled = graphc.compile(f) if k % 2 else compiled
