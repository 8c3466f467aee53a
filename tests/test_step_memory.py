"""What a compiled training step takes of memory: updates in place from the first call on, gradients where gradients were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Tensor, compiler, memory, nn
from graphc.backend import Layout
from graphc.backends.llvm import compilation
from graphc.config import override
from graphc.frontend import device_ops
from graphc.ir import Graph
from graphc.nn import functional as F

SIZE = 700


def training(make: Callable[..., Any]) -> tuple[Any, nn.Parameter]:
    w = nn.Parameter(graphc.full((SIZE, SIZE), 0.5))
    optimizer = make([w])

    @graphc.compile
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (w @ x).sum()
        loss.backward()
        optimizer.step()
        return loss

    return step, w


class Counting(graphc.optim.AdamW):
    """Its steps change Python's state, so that a first call is one of its own."""

    calls = 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        return super().step(closure)


def test_the_first_call_updates_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts: list[Layout] = []

    def executable(graph: Graph, layout: Layout, **options: Any) -> Any:
        layouts.append(layout)
        return compiler.executable(graph, layout, **options)

    monkeypatch.setattr(device_ops, "executable", executable)
    step, w = training(lambda parameters: Counting(parameters, lr=0.1))
    address = w._data.ctypes.data
    step(graphc.ones(SIZE, SIZE))
    weight_and_moments = 3
    assert len(layouts) == 1 and len(layouts[0].donated) >= weight_and_moments
    assert w._data.ctypes.data == address and np.allclose(w.detach().numpy(), 0.5 - 0.1 * (1 + 0.5 * 0.01), atol=1e-6)


def test_a_gradient_that_nobody_holds_lends_its_memory_in_python_too() -> None:
    step, w = training(lambda parameters: graphc.optim.SGD(parameters, lr=0.1))
    addresses = set()
    for k in range(3):
        step(x=graphc.full((SIZE, SIZE), float(k)))  # by its name: no native entry
        addresses.add(w.grad._data.ctypes.data)
        assert w.grad._data[0, 0] == k * SIZE
    assert len(addresses) == 1


@pytest.mark.parametrize("hold", [lambda w: w.grad, lambda w: w.grad.numpy(), lambda w: w.grad.detach(), lambda w: w.grad[1:]])
def test_a_gradient_that_somebody_holds_stays(hold: Callable[[nn.Parameter], Any]) -> None:
    step, w = training(lambda parameters: graphc.optim.SGD(parameters, lr=0.1))
    held = []
    for k in range(3):
        step(x=graphc.full((SIZE, SIZE), float(k)))
        held.append(hold(w))
    assert [float(array[0, 0]) for array in held] == [0, SIZE, 2 * SIZE]


def looking_up(weight: Tensor) -> Any:
    def step(index: Any) -> Any:
        weight.grad = None
        loss = F.embedding(index, weight).sum()
        loss.backward()
        with graphc.no_grad():
            weight.add_(weight.grad)
        return loss

    return graphc.compile(step)


def test_an_error_leaves_no_gradient_that_is_half_written() -> None:
    weight = nn.Parameter(graphc.zeros(4, 3))
    step, right, wrong = looking_up(weight), graphc.tensor([0, 1]), graphc.tensor([0, 9])
    for native in (False, False, True, True):
        step(right) if native else step(index=right)
        assert weight.grad is not None
        before = weight.detach().clone()
        with pytest.raises(IndexError):
            step(wrong) if native else step(index=wrong)
        assert weight.grad is None and graphc.equal(weight, before)


def test_an_error_in_the_first_call_changes_nothing() -> None:
    weight = nn.Parameter(graphc.zeros(4, 3))
    with pytest.raises(IndexError):
        looking_up(weight)(graphc.tensor([0, 9]))
    assert graphc.equal(weight, graphc.zeros(4, 3)) and weight.grad is None


def test_what_becomes_of_values_that_are_used_twice() -> None:
    """A first call that Python's state makes one of its own: nothing of its result may be the memory of what it changed."""
    a, b, seen = graphc.zeros(3), graphc.ones(3), []

    @graphc.compile
    def swap(x: Any) -> Any:
        seen.append(1)
        old = a * 1
        new = a + x
        a.copy_(new)
        b.copy_(new)
        return new, old, a

    new, old, same = swap(graphc.full((3,), 2.0))
    assert same is a
    a.add_(1)
    assert new.tolist() == b.tolist() == [2, 2, 2] and old.tolist() == [0, 0, 0] and a.tolist() == [3, 3, 3]


def test_inputs_that_are_exchanged() -> None:
    a, b, seen = graphc.zeros(SIZE, SIZE), graphc.ones(SIZE, SIZE), []

    @graphc.compile
    def swap() -> None:
        seen.append(1)
        held = a.clone()
        a.copy_(b)
        b.copy_(held)

    swap()
    assert a.sum() == SIZE * SIZE and b.sum() == 0


def test_a_step_works_in_the_memory_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_WORTHWHILE", 0)
    monkeypatch.setattr(memory, "_LARGE", 1 << 10)
    arenas: list[tuple[int, int]] = []
    real = memory.share_outputs

    def share(program: Any, donated: Any) -> None:
        before = program.arena
        real(program, donated)
        arenas.append((before, program.arena))

    monkeypatch.setattr(compilation, "share_outputs", share)

    def gradients(call: Callable[[Callable[..., Any]], Callable[..., Any]]) -> list[np.ndarray]:
        graphc.manual_seed(0)
        layers = [layer for _ in range(4) for layer in (nn.Linear(131, 131), nn.GELU())]
        model = nn.Sequential(*layers, nn.Linear(131, 131))
        x, y = graphc.randn(64, 131), graphc.randint(0, 131, (64,))
        optimizer = graphc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step() -> Any:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        run = call(step)
        for _ in range(3):
            run()
        return [p.grad.numpy() for p in model.parameters() if p.grad is not None]

    expected = gradients(lambda step: step)
    arenas.clear()
    with override(cache_dir=None, verify=False, debug=0):
        found = gradients(graphc.compile)
    before, after = max(arenas)
    assert after < 0.8 * before
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
