"""Checkpoints: the same gradients from a second run of the forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from leaves import leaf

import graphc
from graphc import nn
from graphc.utils.checkpoint import (
    CheckpointError,
    checkpoint,
    checkpoint_sequential,
    set_checkpoint_early_stop,
)


class Part:
    """A function that counts its runs."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, x: graphc.Tensor, y: graphc.Tensor, k: float = 2.0) -> graphc.Tensor:
        self.runs += 1
        return (x * y * k).sin().exp() * x


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradients_are_the_same(use_reentrant: bool) -> None:
    part = Part()
    x, y = leaf(0.3, 0.7), leaf(1.1, 0.4)
    out = checkpoint(part, x, y, use_reentrant=use_reentrant)
    assert part.runs == 1
    out.sum().backward()
    assert part.runs == 2
    a, b = leaf(0.3, 0.7), leaf(1.1, 0.4)
    Part()(a, b).sum().backward()
    for found, expected in ((x, a), (y, b)):
        assert found.grad is not None
        assert expected.grad is not None
        assert found.grad.tolist() == expected.grad.tolist()


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("preserve_rng_state", [False, True])
def test_random_numbers(use_reentrant: bool, preserve_rng_state: bool) -> None:
    x = leaf(*[1.0] * 64)
    graphc.manual_seed(0)
    out = checkpoint(lambda x: nn.functional.dropout(x.exp(), 0.5), x, use_reentrant=use_reentrant,
                     preserve_rng_state=preserve_rng_state)
    state = graphc.get_rng_state()
    out.sum().backward()
    assert x.grad is not None
    assert ((x.grad == 0) == (out == 0)).all().item() == preserve_rng_state
    assert (graphc.get_rng_state() == state).all().item() == preserve_rng_state


def test_only_the_arguments_are_kept() -> None:
    x = leaf(1, 2)
    out = checkpoint(lambda x: x.exp().sin(), x, use_reentrant=False)
    node = out.grad_fn
    assert node is not None
    kept = [s.tensor for s in node.saved]
    assert kept
    assert all(type(t) is int for t in kept)


def test_keywords_modules_and_second_derivatives() -> None:
    part, x, y = Part(), leaf(0.3, 0.7), leaf(1.1, 0.4)
    out = checkpoint(part, x, y=y, k=3.0, use_reentrant=False)
    (g,) = graphc.autograd.grad(out.sum(), x, create_graph=True)
    (h,) = graphc.autograd.grad(g.sum(), x)
    plain = Part()(x, y, 3.0)
    (g2,) = graphc.autograd.grad(plain.sum(), x, create_graph=True)
    (h2,) = graphc.autograd.grad(g2.sum(), x)
    assert h.tolist() == pytest.approx(h2.tolist())
    layer = nn.Linear(2, 2).double()
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [x.tolist()] * 2


def test_retained_graphs_run_once_for_each_backward() -> None:
    part, x = Part(), leaf(0.3)
    out = checkpoint(part, x, x, use_reentrant=False)
    out.backward(retain_graph=True)
    out.backward()
    assert part.runs == 3
    assert x.grad is not None
    expected = leaf(0.3)
    Part()(expected, expected).backward()
    assert expected.grad is not None
    assert x.grad.item() == pytest.approx(2 * expected.grad.item())


def test_checkpoints_nest() -> None:
    inner, outer = Part(), Part()

    def both(x: graphc.Tensor) -> graphc.Tensor:
        return checkpoint(inner, outer(x, x), x, use_reentrant=False).cos()

    x, y = leaf(0.3, 0.7), leaf(0.3, 0.7)
    checkpoint(both, x, use_reentrant=False).sum().backward()
    Part()(Part()(y, y), y).cos().sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.tolist() == pytest.approx(y.grad.tolist())


def test_the_second_run_stops_early() -> None:
    log: list[str] = []

    def part(x: graphc.Tensor) -> graphc.Tensor:
        y = x.exp()
        z = y + 1  # saves nothing
        log.append("end")
        return z

    x = leaf(1)
    checkpoint(part, x, use_reentrant=False).backward()
    assert log == ["end"]
    checkpoint(part, x, use_reentrant=False, early_stop=False).backward()
    assert log == ["end"] * 3
    with set_checkpoint_early_stop(False):
        out = checkpoint(part, x, use_reentrant=False)
    out.backward()
    assert log == ["end"] * 5


def test_contexts() -> None:
    log: list[str] = []

    @contextmanager
    def context(name: str) -> Iterator[None]:
        log.append(f"+{name}")
        yield
        log.append(f"-{name}")

    out = checkpoint(lambda x: x.exp(), leaf(1), use_reentrant=False, early_stop=False,
                     context_fn=lambda: (context("first"), context("second")))
    assert log == ["+first", "-first"]
    out.backward()
    assert log == ["+first", "-first", "+second", "-second"]


class Fickle:
    """A function that is another one in its second run."""

    def __init__(self, first: Any, second: Any) -> None:
        self.turns = [first, second]

    def __call__(self, x: graphc.Tensor) -> graphc.Tensor:
        return self.turns.pop(0)(x)


@pytest.mark.parametrize("first, second, message", [
    (lambda x: x.exp(), lambda x: x.exp().sin(), "more tensors during recomputation"),
    (lambda x: x.exp().sin(), lambda x: x.exp(), "different number of tensors was saved"),
    (lambda x: x.exp(), lambda x: graphc.cat([x, x]).exp(), "different metadata"),
])
def test_another_second_run_is_an_error(first: Any, second: Any, message: str) -> None:
    x = leaf(1, 2)
    out = checkpoint(Fickle(first, second), x, use_reentrant=False, early_stop=False)
    with pytest.raises(CheckpointError, match=message):
        out.sum().backward()


def test_a_sequence_in_segments() -> None:
    calls: list[int] = []

    def step(i: int) -> Any:
        def run(x: graphc.Tensor) -> graphc.Tensor:
            calls.append(i)
            return (x * (i + 1)).sin()

        return run

    x, y = leaf(0.3, 0.7), leaf(0.3, 0.7)
    checkpoint_sequential([step(i) for i in range(5)], 2, x, use_reentrant=False).sum().backward()
    assert calls == [0, 1, 2, 3, 4, 0, 1]
    z: graphc.Tensor = y
    for i in range(5):
        z = step(i)(z)
    z.sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.tolist() == pytest.approx(y.grad.tolist())
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    checkpoint_sequential(model, 3, x, use_reentrant=True).backward()
    assert model[0].weight.grad is not None


def test_within_compiled_functions_and_transforms() -> None:
    def loss(x: graphc.Tensor) -> graphc.Tensor:
        return checkpoint(lambda x: (x.sin() * x).exp(), x, use_reentrant=False).sum()

    x = leaf(0.3, 0.7)
    loss(x).backward()
    assert x.grad is not None
    y = leaf(0.3, 0.7)
    graphc.compile(loss)(y).backward()
    assert y.grad is not None
    assert y.grad.tolist() == pytest.approx(x.grad.tolist())
    assert graphc.func.grad(loss)(x.detach()).tolist() == pytest.approx(x.grad.tolist())


def test_misuse_is_named() -> None:
    x = leaf(1)
    with pytest.warns(UserWarning, match="use_reentrant parameter should be passed explicitly"):
        checkpoint(lambda x: x * 2, x)
    with pytest.warns(UserWarning, match=r"None of the inputs have requires_grad=True"):
        checkpoint(lambda x: x * 2, x.detach(), use_reentrant=True)
    with pytest.raises(ValueError, match="Unexpected keyword arguments: k"):
        checkpoint(lambda x, k: x, x, k=1, use_reentrant=True)
    with pytest.raises(ValueError, match="only supported when use_reentrant=False"):
        checkpoint(lambda x: x, x, use_reentrant=True, context_fn=lambda: (None, None))
    with pytest.raises(ValueError, match="determinism_check"):
        checkpoint(lambda x: x, x, use_reentrant=False, determinism_check="some")
    out = checkpoint(lambda x: x.exp(), x, use_reentrant=True)
    with pytest.raises(RuntimeError, match=r"incompatible with \.grad\(\)"):
        graphc.autograd.grad(out, x)
