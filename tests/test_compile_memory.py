"""graphc.compile: tensors whose shape is changed in place, and those that are given other memory by `x.data = new`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import graphc
from graphc import nn

CALLS = 6  # enough for a native entry


def squeezed(x: graphc.Tensor) -> Any:
    v = x[0:1]
    v.squeeze_()
    return v


def unsqueezed_view(x: graphc.Tensor) -> Any:
    a = x.clone()
    r = a.view(-1).unsqueeze_(0)
    r.mul_(2)
    return a, r


def squeezed_and_changed(x: graphc.Tensor) -> Any:
    v = x[0:1].squeeze_()
    v += 1
    return v.sum(0), x


def turned_twice(x: graphc.Tensor) -> Any:
    v = x.t()
    v.t_()
    v.mul_(2)
    return v, x


def there_and_back(x: graphc.Tensor) -> Any:
    a = x.clone()
    a.unsqueeze(0).squeeze_().neg_()
    return a


def argument(x: graphc.Tensor) -> Any:
    x.unsqueeze_(0)
    return list(x.shape), x


def changed_argument(x: graphc.Tensor) -> Any:
    x.t_()
    x.mul_(2)
    return x.sum(0)


def detached(x: graphc.Tensor) -> Any:
    v = x.detach()
    v.unsqueeze_(0)
    v.add_(1)
    return v, x


def constant(x: graphc.Tensor) -> Any:
    t = graphc.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    v = t[0]
    t.t_()
    t.mul_(2)
    return t, v, t + x[:1].t()


def strided(x: graphc.Tensor) -> Any:
    return x.clone().as_strided_((2,), (1,)).add_(1)


@pytest.mark.parametrize("has_history", [False, True])
@pytest.mark.parametrize("function", [
    squeezed, unsqueezed_view, squeezed_and_changed, turned_twice, there_and_back, argument, changed_argument, detached,
    constant, strided,
])  # fmt: skip
def test_shapes_that_are_changed_in_place(function: Callable[[graphc.Tensor], Any], has_history: bool) -> None:
    """Results, the memory that they share, the argument's shape and gradients are as they are eagerly, call after call."""
    run = graphc.compile(function)
    for _ in range(CALLS):
        seen = [_described(f, has_history) for f in (run, function)]
        assert seen[0] == seen[1]


def _described(function: Callable[[graphc.Tensor], Any], has_history: bool) -> list[Any]:
    leaf = (graphc.arange(6.0).reshape(2, 3).clone() + 1).requires_grad_(has_history)
    x = leaf * 1 if has_history else leaf
    result = function(x)
    results = [r for r in (result if isinstance(result, tuple) else (result,)) if isinstance(r, graphc.Tensor)]
    seen = [x.tolist(), result[0] if isinstance(result[0], list) else None, *((r.tolist(), r.requires_grad) for r in results)]
    if has_history and any(r.requires_grad for r in results):
        sum((r * r).sum() for r in results if r.requires_grad).backward()
        assert leaf.grad is not None
        seen.append(leaf.grad.tolist())
    for r in results:
        with graphc.no_grad():
            r.add_(1)
    return [*seen, x.tolist(), [r.tolist() for r in results]]


def test_views_made_before_and_after_a_change_of_shape() -> None:
    """The gradient follows the changes through all of them."""

    def f(x: graphc.Tensor) -> Any:
        a = x.clone()
        row, flat = a[0], a.view(-1)
        a.unsqueeze_(0)
        row += 1
        a.mul_(2)
        a[0, 1] = 7
        flat[0] = -5
        return a, row, flat

    compiled = graphc.compile(f)
    for _ in range(CALLS):
        x = graphc.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
        a, row, flat = compiled(x)
        assert a.tolist() == [[[-5.0, 6.0, 8.0], [7.0, 7.0, 7.0]]] and row.tolist() == [-5.0, 6.0, 8.0]
        assert flat.tolist() == [-5.0, 6.0, 8.0, 7.0, 7.0, 7.0]
        sum((r * r).sum() for r in (a, row, flat)).backward()
        assert x.grad is not None and x.grad.tolist() == [[0.0, 72.0, 96.0], [0.0, 0.0, 0.0]]
        with graphc.no_grad():
            row.zero_()
        assert a.tolist() == [[[0.0, 0.0, 0.0], [7.0, 7.0, 7.0]]] and flat.tolist()[:3] == [0.0, 0.0, 0.0]


def test_a_tensor_whose_shape_was_changed_can_be_detached() -> None:
    def f(x: graphc.Tensor) -> Any:
        a = x * 1
        row = a[0]
        a.unsqueeze_(0)
        row += 1
        return a.detach_()

    compiled = graphc.compile(f)
    for _ in range(3):
        result = compiled(graphc.ones(2, 2, requires_grad=True))
        assert not result.requires_grad and result.tolist() == [[[2.0, 2.0], [1.0, 1.0]]]


def clipped(m: nn.Linear, other: nn.Linear, x: graphc.Tensor) -> Any:
    for p in m.parameters():
        p.data = p.data.clamp(-0.25, 0.25)
    return m(x).sum()


def trained(m: nn.Linear, other: nn.Linear, x: graphc.Tensor) -> Any:
    m.zero_grad()
    loss = (m(x) ** 2).sum()
    loss.backward()
    for p in m.parameters():
        assert p.grad is not None
        p.data = p.data - 0.125 * p.grad
    return loss.detach()


def averaged(m: nn.Linear, other: nn.Linear, x: graphc.Tensor) -> Any:
    for a, b in zip(m.parameters(), other.parameters()):
        b.data = 0.5 * b.data + 0.5 * a.data
    return other(x).sum()


def assigned_argument(m: nn.Linear, other: nn.Linear, x: graphc.Tensor) -> Any:
    x.data = graphc.zeros(1, 2)
    return x * 1


def before_backward(m: nn.Linear, other: nn.Linear, x: graphc.Tensor) -> Any:
    loss = (m(x) ** 2).sum()
    for p in m.parameters():
        p.data = p.data * 0.5
    return loss


def shared(m: nn.Linear, other: nn.Linear, x: graphc.Tensor) -> Any:
    for a, b in zip(m.parameters(), other.parameters()):
        a.data = b.data
    return m(x).sum()


def swapped(m: nn.Linear, other: nn.Linear, x: graphc.Tensor) -> Any:
    for a, b in zip(m.parameters(), other.parameters()):
        a.data, b.data = b.data, a.data
    return m(x).sum()


def resized(m: nn.Linear, other: nn.Linear, x: graphc.Tensor) -> Any:
    m.weight.data = graphc.cat([m.weight.data] * 2)[:3]
    m.bias.data = graphc.ones(3)
    return m(x).sum()


def old_memory(m: nn.Linear, other: nn.Linear, x: graphc.Tensor) -> Any:
    before = m.weight.data
    m.weight.data = before * 2
    return before * x


def changed_later(m: nn.Linear, other: nn.Linear, x: graphc.Tensor) -> Any:
    new = m.weight.data * 2
    m.weight.data = new
    new.add_(1)
    return m(x).sum()


@pytest.mark.parametrize(("function", "is_graph"), [
    (clipped, True), (trained, True), (averaged, True), (assigned_argument, True), (before_backward, False), (shared, False),
    (swapped, False), (resized, True), (old_memory, False), (changed_later, False),
])  # fmt: skip
def test_data_is_assigned(function: Callable[..., Any], is_graph: bool) -> None:
    """Values and gradients are as eagerly at each call; where it matters whose memory it is, Python runs the function."""

    def results(compiled: bool) -> list[Any]:
        m, other, seen = nn.Linear(2, 2), nn.Linear(2, 2), []
        with graphc.no_grad():
            m.weight.copy_(graphc.tensor([[0.5, -0.5], [0.25, 1.0]]))
            m.bias.copy_(graphc.tensor([0.125, -0.25]))
            other.weight.fill_(0.75)
            other.bias.fill_(0.5)
        run = graphc.compile(lambda x: function(m, other, x)) if compiled else lambda x: function(m, other, x)
        for _ in range(CALLS):
            x = graphc.ones(1, 2, requires_grad=True)
            result = run(x)
            if result.requires_grad:
                result.sum().backward()
            tensors = [x, *m.parameters(), *other.parameters()]
            seen += [result.tolist(), *((t.tolist(), None if t.grad is None else t.grad.tolist()) for t in tensors)]
            with graphc.no_grad():
                for p in m.parameters():
                    p.mul_(2)
        if compiled:
            assert ("traced because of" in run.explain()) == is_graph, run.explain()
        return seen

    assert str(results(True)) == str(results(False))
