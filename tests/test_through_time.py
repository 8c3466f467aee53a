"""LSTM layers that run as a whole: the same numbers and derivatives as step by step, to second order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.frontend import recurrent


def network(**options: object) -> nn.LSTM:
    graphc.manual_seed(1)
    return nn.LSTM(3, 4, dtype=graphc.float64, **options)


def step_by_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> object:
    with monkeypatch.context() as patch:
        patch.setattr(recurrent, "is_plain", lambda *tensors: False)
        return act()


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "batch_first": True}])
@pytest.mark.parametrize("used", ["out", "last", "both"])
def test_values_and_gradients(options: dict[str, object], used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(**options)
    x = graphc.randn(5, 5, 3, dtype=graphc.float64, requires_grad=True)
    rows = 2 * model.num_layers if model.bidirectional else model.num_layers
    states = [graphc.randn(rows, 5, 4, dtype=graphc.float64, requires_grad=True) for _ in range(2)]

    def run() -> list[np.ndarray]:
        out, (h, c) = model(x, tuple(states))
        parts = {"out": [out], "last": [h, c], "both": [out, h, c]}[used]
        loss = sum((part * part).sum() for part in parts)
        grads = graphc.autograd.grad(loss, [x, *states, *model.parameters()], allow_unused=True)
        return [part.detach().numpy() for part in (out, h, c, *grads)]

    for whole, single in zip(run(), step_by_step(monkeypatch, run), strict=True):
        np.testing.assert_allclose(whole, single, rtol=1e-10, atol=1e-12)


def test_second_derivatives() -> None:
    model = network()
    x = graphc.randn(3, 2, 3, dtype=graphc.float64, requires_grad=True)
    assert graphc.autograd.gradcheck(lambda x: model(x)[0], (x,))
    assert graphc.autograd.gradgradcheck(lambda x: model(x)[0], (x,))


def test_one_node_a_layer_whose_backward_runs_once() -> None:
    model = network()
    x = graphc.randn(3, 2, 3, dtype=graphc.float64, requires_grad=True)
    out, (h, c) = model(x)
    assert "Lstm" in out.grad_fn.name()
    (out.sum() + c.sum()).backward(retain_graph=True)
    first = x.grad.clone()
    (out.sum() + c.sum()).backward()
    np.testing.assert_allclose(x.grad, 2 * first, rtol=1e-12)
    with pytest.raises(RuntimeError, match="second time"):
        h.sum().backward()


def test_changes_in_place() -> None:
    model = network()
    x = graphc.randn(3, 2, 3, dtype=graphc.float64)
    out, (h, _) = model(x)
    expected = graphc.autograd.grad((out * 2).sum() + h.sum(), model.weight_hh_l0, retain_graph=True)[0]
    changed, (h, _) = model(x)
    changed.mul_(2)  # the outputs are nobody else's
    assert graphc.equal(graphc.autograd.grad(changed.sum() + h.sum(), model.weight_hh_l0)[0], expected)
    out, _ = model(x)
    with graphc.no_grad():
        model.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="inplace"):
        out.sum().backward()


def test_transforms_and_graphs_take_the_steps() -> None:
    model = network()
    x = graphc.randn(3, 2, 3, dtype=graphc.float64)
    expected = model(x)[0]
    np.testing.assert_allclose(graphc.compile(lambda x: model(x)[0])(x).detach(), expected.detach(), rtol=1e-10)
    mapped = graphc.vmap(lambda x: model(x)[0])(graphc.stack([x, x]))
    np.testing.assert_allclose(mapped[1].detach(), expected.detach(), rtol=1e-10)
    with graphc.inference_mode():
        np.testing.assert_allclose(model(x)[0], expected.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (4, 0), (1, 3)])
def test_small_sequences(steps: int, batch: int) -> None:
    model = network()
    x = graphc.randn(steps, batch, 3, dtype=graphc.float64, requires_grad=True)
    out, (h, c) = model(x)
    assert out.shape == (steps, batch, 4) and h.shape == c.shape == (1, batch, 4)
    out.sum().backward()
    assert x.grad.shape == x.shape and model.weight_hh_l0.grad.shape == (16, 4)
