"""compile(verify=True) and minify, on functions: a broken op is found wherever it is used."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.compiler import clear_cache
from graphc.config import override
from graphc.errors import AccuracyError, ArgumentError


@pytest.fixture
def wrong_exp(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The code of exp computes 2 ** x."""
    from graphc.backends.llvm import elementwise

    monkeypatch.setitem(elementwise.RULES, "exp", elementwise.RULES["exp2"])
    clear_cache()
    with override(cache_dir=None, fuse_eager=False):
        yield
    clear_cache()


def f(x: graphc.Tensor) -> graphc.Tensor:
    y = graphc.tanh(x) + 1
    z = y.exp() * 2  # the line that is at fault
    return z.sum()


def test_the_line_is_named(wrong_exp: None) -> None:
    with pytest.raises(AccuracyError) as raised:
        graphc.compile(f, verify=True)(graphc.linspace(0, 1, 7))
    text = str(raised.value)
    assert "the first node that differs is exp" in text
    assert f"test_verified_compile.py:{f.__code__.co_firstlineno + 2} in f" in text
    assert "of 7 elements differ" in text


def test_right_results_pass() -> None:
    x = graphc.linspace(0, 1, 7, requires_grad=True)
    compiled = graphc.compile(f, verify=True)
    for _ in range(3):
        out = compiled(x)
        out.backward()
    np.testing.assert_allclose(out.item(), f(x).item(), rtol=1e-6)
    expected = graphc.autograd.grad(f(x), x)[0].numpy()
    np.testing.assert_allclose(x.grad.numpy(), 3 * expected, rtol=1e-5)


def test_a_backward_pass_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong in the derivative alone is found when that runs."""
    from graphc.backends.llvm import elementwise

    x = graphc.linspace(0.1, 1, 5, requires_grad=True)
    compiled = graphc.compile(lambda x: x.sin().sum(), verify=True)
    monkeypatch.setitem(elementwise.RULES, "cos", elementwise.RULES["sin"])
    clear_cache()
    with override(cache_dir=None, fuse_eager=False):
        loss = compiled(x)
        with pytest.raises(AccuracyError, match="the first node that differs is cos"):
            loss.backward()
    clear_cache()


def trained(verify: bool) -> tuple[list[float], nn.Module]:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 1))
    optimizer = graphc.optim.AdamW(model.parameters(), lr=1e-2)
    x, y = graphc.randn(16, 4), graphc.randn(16, 1)

    @graphc.compile(verify=verify)
    def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return [step(x, y).item() for _ in range(4)], model


def test_training_steps_with_state() -> None:
    losses, model = trained(verify=True)
    expected, other = trained(verify=False)
    assert losses == expected
    for left, right in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy())


def test_a_failing_step_leaves_the_state(wrong_exp: None) -> None:
    weight = graphc.ones(3)

    @graphc.compile(verify=True)
    def step(x: graphc.Tensor) -> graphc.Tensor:
        weight.mul_(x.exp())
        return weight.sum()

    with pytest.raises(AccuracyError):
        step(graphc.ones(3))
    assert weight.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [graphc.float16, graphc.float64, graphc.int32, graphc.bool, graphc.complex64])
def test_dtypes(dtype: graphc.dtype) -> None:
    x = graphc.tensor([0, 1, 1, 0, 1]).to(dtype)
    compiled = graphc.compile(lambda x: (x == x.flip(0), x * x.flip(0), x.sum()), verify=True)
    for got, right in zip(compiled(x), (x == x.flip(0), x * x.flip(0), x.sum())):
        assert got.tolist() == right.tolist()


def test_minify_a_function(wrong_exp: None) -> None:
    found = graphc.minify(f, (graphc.linspace(0, 1, 7),))
    assert [node.op.name for node in found.graph.nodes] == ["exp"]
    assert found.failure.kind == "wrong"
    assert "graph @f" in found.report()


def test_minify_a_training_step(wrong_exp: None) -> None:
    model = nn.Linear(3, 2)
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)
    before = model.weight.detach().clone()

    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = (model(x).exp() ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    found = graphc.minify(step, (graphc.ones(4, 3),))
    assert [node.op.name for node in found.graph.nodes] == ["exp"]
    assert model.weight.tolist() == before.tolist()


def test_minify_a_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.backends.llvm import elementwise

    monkeypatch.setitem(elementwise.RULES, "cos", elementwise.RULES["sin"])
    clear_cache()
    with override(cache_dir=None):
        found = graphc.minify(lambda x: x.sin().sum(), (graphc.ones(3, requires_grad=True),))
    assert [node.op.name for node in found.graph.nodes] == ["cos"]
    clear_cache()


def test_minify_a_graph(wrong_exp: None) -> None:
    layer = nn.Linear(3, 2)
    graph = graphc.trace(lambda x: layer(x).exp().sum(), (graphc.ones(4, 3),))
    assert [node.op.name for node in graphc.minify(graph, (graphc.ones(4, 3),)).graph.nodes] == ["exp"]
    with pytest.raises(ArgumentError, match="the inputs are not those of the graph"):
        graphc.minify(graph, ())


def test_minify_needs_a_failure() -> None:
    with pytest.raises(ArgumentError, match="does not fail"):
        graphc.minify(lambda x: x + 1, (graphc.ones(3),))
