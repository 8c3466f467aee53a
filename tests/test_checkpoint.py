"""Checkpoints: the same gradients from a second run of the forward pass."""

from __future__ import annotations

import copy
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


class Counted(nn.Module):
    """Passes on what it is given, and counts how often."""

    runs = 0

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        self.runs += 1
        return x


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layers", [
    [nn.BatchNorm1d(2)], [nn.BatchNorm1d(2), nn.GroupNorm(1, 2)], [nn.Softmax(1)], [nn.LogSoftmax(1), nn.Softplus()],
    [nn.LayerNorm(2), nn.Linear(2, 2), nn.Tanh(), nn.GELU(), nn.RMSNorm(2)],
], ids=lambda layers: "-".join(type(layer).__name__ for layer in layers))
def test_a_part_runs_twice_whatever_its_ops_save(layers: list[nn.Module], compiled: bool) -> None:
    """Also where several derivatives of one op ask for the same tensor."""
    count = Counted()
    model = nn.Sequential(count, *copy.deepcopy(layers))
    x = graphc.tensor([[1.0, 1.0], [2.0, 2.5], [3.0, 3.0]], requires_grad=True)

    def step(x: graphc.Tensor) -> graphc.Tensor:
        y = checkpoint(model, x, use_reentrant=False)
        (y**2).sum().backward()
        return y.detach()

    (graphc.compile(step) if compiled else step)(x)
    assert count.runs == 2
    assert [int(b) for name, b in model.named_buffers() if name.endswith("num_batches_tracked")] in ([], [2])


def test_each_backward_pass_runs_a_part_once_more() -> None:
    """Even one that comes to a tensor that an earlier one has left: the part may compute something else by now."""
    runs: list[str] = []

    def part(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
        runs.append("run")
        return ((x * w).softmax(0).sin() * w).exp()

    x, w, factor = leaf(0.3, 0.7), leaf(0.3, 0.7), graphc.ones(())
    out = checkpoint(part, x, w, use_reentrant=False)
    graphc.autograd.grad(out.sum(), w, retain_graph=True)
    assert len(runs) == 2
    graphc.autograd.grad(out.sum(), x, retain_graph=True)
    assert len(runs) == 3
    (g,) = graphc.autograd.grad(out.sum(), x, create_graph=True)
    assert len(runs) == 4
    graphc.autograd.grad(g.pow(2).sum(), x)
    assert len(runs) == 5
    y = checkpoint(lambda a, b: a * factor * b * factor, x, w, use_reentrant=False)
    graphc.autograd.grad(y.sum(), x, retain_graph=True)  # leaves what the gradient of w needs
    factor.fill_(3)
    (g,) = graphc.autograd.grad(y.sum(), w)
    assert g.tolist() == pytest.approx([0.3 * 9, 0.7 * 9])


def test_nested_parts_run_as_seldom_as_can_be() -> None:
    log: list[str] = []

    def inner(x: graphc.Tensor) -> graphc.Tensor:
        log.append("i")
        return x.softmax(0).sin()

    def outer(x: graphc.Tensor) -> graphc.Tensor:
        log.append("o")
        x = checkpoint(inner, x.exp(), use_reentrant=False)
        log.append("p")
        return x

    x, y = leaf(0.3, 0.7), leaf(0.3, 0.7)
    checkpoint(outer, x, use_reentrant=False).sum().backward()
    assert "".join(log) == "oip" + "o" + "i"  # all that the outer part keeps is the argument of the inner one
    y.exp().softmax(0).sin().sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.tolist() == pytest.approx(y.grad.tolist())


@pytest.mark.parametrize("early_stop", [False, True])
def test_a_backward_pass_within_a_part(early_stop: bool) -> None:
    log: list[str] = []

    def part(x: graphc.Tensor) -> graphc.Tensor:
        y = x.sin()
        log.append("a")
        z = y.cos()
        log.append("b")
        (g,) = graphc.autograd.grad(z.sum(), x, retain_graph=True)
        log.append("c")
        return x.cos() * g * z

    x, y = leaf(0.3, 0.7), leaf(0.3, 0.7)
    out = checkpoint(part, x, use_reentrant=False, early_stop=early_stop)
    assert "".join(log) == ("abac" if early_stop else "ababcc")
    log.clear()
    out.sum().backward()
    assert "".join(log) == "abc"
    part(y).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert x.grad.tolist() == pytest.approx(y.grad.tolist())


def test_what_is_asked_for_twice() -> None:
    class Twice(graphc.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: graphc.Tensor) -> graphc.Tensor:
            return grad * ctx.saved_tensors[0] * ctx.saved_tensors[0]

    out = checkpoint(lambda x: Twice.apply(x.exp()), leaf(1), use_reentrant=False)
    with pytest.raises(CheckpointError, match="already unpacked once"):
        out.sum().backward()
    part, x = Part(), leaf(1)
    out = checkpoint(part, x, x, use_reentrant=False)
    assert out.grad_fn is not None
    assert out.grad_fn._saved_other.tolist() == [1]  # outside of a backward pass it is computed for whoever looks
    out.backward()
    assert part.runs == 3


def test_arguments_that_were_changed_in_place() -> None:
    x = leaf(1) * 1
    out = checkpoint(lambda x: x.sin(), x, use_reentrant=False)
    x.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


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
