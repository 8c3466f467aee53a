"""A compiled function notices whatever it read of modules and optimizers: it never returns what used to be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from native_calls import graphs, native

import graphc
from graphc import nn
from graphc.frontend.compile import CompiledFunction

X = graphc.ones(2)


def value(f: Callable[..., Any], *args: Any) -> float:
    return f(X, *args)[0].item()


class Net(nn.Module):
    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        self.linear.weight.data = graphc.eye(2)
        self.shift = 0.0
        self.register_buffer("offset", graphc.zeros(2))
        self.drop = nn.Dropout(1.0)
        self.eval()

    def forward(self, x: Any) -> Any:
        x = self.linear(x) * self.factor + self.shift + self.offset
        return self.drop(x) + x if self.drop.training else x


def replace_weight(net: Net) -> None:
    net.linear.weight = nn.Parameter(3 * graphc.eye(2))


def new_linear() -> nn.Linear:
    linear = nn.Linear(2, 2, bias=False)
    linear.weight.data = 3 * graphc.eye(2)
    return linear


def add_bias(net: Net) -> None:
    net.linear.bias = nn.Parameter(graphc.full((2,), 2.0))


def fill(net: Net) -> None:
    with graphc.no_grad():
        net.linear.weight.fill_(1.5)


def hook(net: Net) -> None:
    net.linear.register_forward_hook(lambda module, args, out: out * 3)


@pytest.fixture
def restored_net() -> Iterator[None]:
    yield
    Net.factor = 1.0


@pytest.mark.parametrize("change", [
    replace_weight,
    add_bias,
    fill,
    hook,
    lambda net: setattr(net, "shift", 2.0),
    lambda net: setattr(net, "offset", graphc.full((2,), 2.0)),
    lambda net: net._buffers.update(offset=graphc.full((2,), 2.0)),
    lambda net: net.linear._parameters.update(weight=nn.Parameter(3 * graphc.eye(2))),
    lambda net: net.offset.fill_(2.0),
    lambda net: setattr(net, "linear", new_linear()),
    lambda net: net.linear.load_state_dict({"weight": 3 * graphc.eye(2)}),
    lambda net: setattr(net.linear.weight, "data", 3 * graphc.eye(2)),
    lambda net: setattr(net.linear, "forward", lambda x: x * 3),
    lambda net: setattr(Net, "factor", 3.0),
], ids=range(14))  # fmt: skip
@pytest.mark.parametrize("grad", [True, False])
def test_changes_of_a_module(change: Callable[[Net], Any], grad: bool, restored_net: None) -> None:
    net = Net()
    compiled = graphc.compile(net)
    with graphc.set_grad_enabled(grad):
        assert [value(compiled) for _ in range(4)] == [1.0] * 4
        with graphc.enable_grad():
            change(net)
        assert [value(compiled) for _ in range(4)] == [3.0] * 4
        assert [value(net) for _ in range(4)] == [3.0] * 4


def test_training_and_evaluation(python_calls: list[Any]) -> None:
    net = Net()
    with graphc.no_grad():
        compiled = graphc.compile(net)
        for _ in range(4):
            assert value(compiled) == 1.0
        for k in range(40):
            net.train(k % 2 == 0)
            assert value(compiled) == 1.0
        assert graphs(compiled._compiled) == 2
        if native:
            assert len(python_calls) < 10
        net.drop.p = 0.0
        net.train()
        assert [value(compiled) for _ in range(4)] == [2.0] * 4


def test_parts_of_a_deep_module() -> None:
    inner = new_linear()
    net: nn.Module = inner
    for _ in range(12):
        net = nn.Sequential(net)
    f = graphc.compile(net)
    with graphc.no_grad():
        assert [value(f) for _ in range(4)] == [3.0] * 4
        inner.weight = nn.Parameter(5 * graphc.eye(2))
        assert [value(f) for _ in range(4)] == [5.0] * 4


def training(make: Callable[[Any], Any]) -> tuple[CompiledFunction, nn.Parameter, Any]:
    w = nn.Parameter(graphc.zeros(2))
    optimizer = make([w])

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        optimizer.step()
        return loss

    return graphc.compile(step), w, optimizer


def test_a_learning_rate_is_an_input() -> None:
    step, w, optimizer = training(lambda p: graphc.optim.SGD(p, lr=1.0))
    expected = 0.0
    for lr in [1.0] * 4 + [0.5, 0.25, 2, 3, True, 1, 0.5] * 3:
        optimizer.param_groups[0]["lr"] = lr
        step(X)
        expected -= float(lr)
        assert w[0].item() == expected
    assert graphs(step) <= 2  # True is another kind of thing


def test_other_options_are_not() -> None:
    step, w, optimizer = training(lambda p: graphc.optim.SGD(p, lr=1.0, momentum=0.5))
    _, v, other = training(lambda p: graphc.optim.SGD(p, lr=1.0, momentum=0.5))
    for k in range(16):
        for o in (optimizer, other):
            o.param_groups[0]["momentum"] = 0.5 if k < 8 else 0.75
            o.param_groups[0]["weight_decay"] = 0.0 if k < 12 else 0.125
        step(X)
        other.zero_grad()
        (v * X).sum().backward()
        other.step()
        assert w.tolist() == v.tolist(), k


def test_the_first_step_of_an_optimizer_is_not_like_the_others() -> None:
    options = {"lr": 1.0, "momentum": 0.5, "dampening": 0.5}
    step, w, _ = training(lambda p: graphc.optim.SGD(p, **options))
    for expected in (-1.0, -2.0, -3.0, -4.0, -5.0):
        step(X)
        assert w.tolist() == [expected] * 2
    assert graphs(step) == 1


def test_a_parameter_that_stops_requiring_grad() -> None:
    a, b = nn.Parameter(graphc.zeros(2)), nn.Parameter(graphc.zeros(2))
    optimizer = graphc.optim.SGD([a, b], lr=1.0)

    @graphc.compile
    def step(x: Any) -> None:
        optimizer.zero_grad()
        ((a + b) * x).sum().backward()
        optimizer.step()

    for _ in range(4):
        step(X)
    assert a.tolist() == b.tolist() == [-4, -4]
    b.requires_grad_(False)
    for _ in range(4):
        step(X)
    assert a.tolist() == [-8, -8] and b.tolist() == [-4, -4] and b.grad is None
