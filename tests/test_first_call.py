"""The first call, which Python runs while it is traced: what it looks at, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.frontend.follower import Values
from graphc.frontend.guards import Snapshot
from graphc.ir import Node, Value


def runs_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many outputs code computes from here on, in first calls."""
    counts: list[int] = []
    run = Values._run

    def counting(self: Values, nodes: Sequence[Node], wanted: Sequence[Value], over: Mapping[Value, Value]) -> None:
        counts.append(len(wanted))
        run(self, nodes, wanted, over)

    monkeypatch.setattr(Values, "_run", counting)
    return counts


def test_results_have_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = runs_of(monkeypatch)
    seen: list[np.ndarray] = []
    state = graphc.zeros(600, 600)
    x = graphc.randn(600, 600)
    expected = x.numpy() @ x.numpy()

    def f(x: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        y = x @ x
        seen.append(y.numpy())
        state.add_(y)
        return y, y.clone(), y, x, y + 0

    made = graphc.compile(f)(x)
    assert counts
    assert made[3] is x
    assert made[0] is made[2]
    for tensor in (made[0], made[1], made[4], state):
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-3, atol=1e-3)
    arrays = [made[0].numpy(), made[1].numpy(), made[4].numpy(), state.numpy(), x.numpy(), seen[0]]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = runs_of(monkeypatch)

    def train(compiled: bool) -> tuple[list[float], list[np.ndarray]]:
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512))
        optimizer = graphc.optim.Adam(model.parameters(), lr=1e-3)
        x = graphc.randn(300, 512)
        calls: list[int] = []

        def step(x: graphc.Tensor) -> graphc.Tensor:
            calls.append(1)
            optimizer.zero_grad()
            loss = (model(x) - x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = graphc.compile(step) if compiled else step
        losses = [run(x).item() for _ in range(4)]
        parameters = list(model.parameters())
        states = [x for state in optimizer.state.values() for x in state.values() if isinstance(x, graphc.Tensor)]
        return losses, [x.detach().numpy() for x in (*parameters, *(p.grad for p in parameters), *states)]

    (losses, held), (wanted, _) = train(True), train(False)
    assert counts
    np.testing.assert_allclose(losses, wanted, rtol=1e-4)
    large = [array for array in held if array.size > 1]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(large) for b in large[:i])


FACTOR = 2.0


def scaled(x: graphc.Tensor) -> graphc.Tensor:
    assert x.ndim == 1  # which pytest makes calls of its own functions
    return x * FACTOR


def test_the_test_runner_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def f(x: graphc.Tensor) -> graphc.Tensor:
        y = scaled(x)
        assert y.shape == x.shape
        with pytest.raises(ZeroDivisionError):
            _ = 1 / 0
        return y

    found = Snapshot(f)
    names = [str(getattr(value, "__module__", "")) for value in found.reached.values()]
    assert not [name for name in names if name.partition(".")[0] in ("_pytest", "pluggy")]
    assert len(found.guards) < 100
    compiled = graphc.compile(f)
    assert compiled(graphc.ones(2)).tolist() == [2.0, 2.0]
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert compiled(graphc.ones(2)).tolist() == [3.0, 3.0]
