"""Composites with gradients, called and run backwards natively: what Python would record, and errors and modes as ever."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.backend import get_backend
from graphc.config import config
from graphc.frontend import composite as composites
from graphc.frontend import eager
from graphc.frontend.composite import composite
from graphc.frontend.graph_call import CompiledBackward
from graphc.frontend.native import TENSORS
from graphc.frontend.tape import Saved
from graphc.frontend.tensor import Tensor

pytestmark = pytest.mark.skipif(config.backend != "llvm", reason="the reference back end makes no native code")


class Missed(Exception):
    pass


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Composites get code at their second call, and nodes run natively from the second one of each form on."""
    monkeypatch.setattr(composites, "OFTEN", 1)
    monkeypatch.setattr(eager, "engine", get_backend("llvm").engine(TENSORS))
    monkeypatch.setattr(eager, "MANY", 0)
    yield


@pytest.fixture
def only_native(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, a call that Python records and a node that Python runs are errors."""

    def missed(self: Any, *args: Any) -> Any:
        raise Missed

    def forbid() -> None:
        monkeypatch.setattr(CompiledBackward, "__init__", missed)
        monkeypatch.setattr(CompiledBackward, "apply", missed)

    return forbid


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return graphc.tensor(np.random.default_rng(seed).standard_normal(shape), dtype=graphc.float32).requires_grad_()


def made() -> dict[str, Callable[..., Any]]:
    @composite
    def one(x: Any, b: float = 2.0) -> Any:
        return (x.exp() * b).tanh()

    @composite
    def two(x: Any, y: Any) -> Any:
        return (x * y).sigmoid() + y.exp()

    @composite
    def several(x: Any, y: Any) -> Any:
        return x.exp() * 2, (x * y).sum(0)

    @composite
    def reduced(x: Any) -> Any:
        return (x * x).sum()

    @composite
    def plain(x: Any) -> Any:
        return x * 3 + 1

    return {f.__name__: f for f in (one, two, several, reduced, plain)}


def gradients(function: Callable[..., Any], *leaves: Tensor) -> list[Any]:
    for x in leaves:
        x.grad = None
    out = function(*leaves)
    (out if isinstance(out, Tensor) else sum(each.sum() for each in out)).sum().backward()
    return [None if x.grad is None else x.grad.numpy().copy() for x in leaves]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("name", ["one", "two", "reduced", "plain"])
def test_gradients_are_those_of_the_ops(name: str, shape: tuple[int, ...], only_native: Callable[[], None]) -> None:
    function = made()[name]
    leaves = [leaf(*shape, seed=k) for k in range(2 if name == "two" else 1)]
    expected = gradients(function.__wrapped__, *leaves)
    gradients(function, *leaves)
    gradients(function, *leaves)
    only_native()
    for a, b in zip(gradients(function, *leaves), expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


def test_an_entry_that_was_displaced_returns(only_native: Callable[[], None]) -> None:
    function = made()["one"]
    sizes = range(1, composites._ENTRIES + 3)
    for size in sizes:
        for _ in range(2):
            gradients(function, leaf(size))
    for _ in range(2):
        first = gradients(function, leaf(1))
    only_native()
    np.testing.assert_array_equal(gradients(function, leaf(1)), first)
    with pytest.raises(Missed):
        function(leaf(2))


def test_the_node_is_the_one_that_python_makes() -> None:
    function = made()["two"]
    x, y = leaf(3, 4), leaf(3, 4, seed=1)
    with graphc.no_grad():
        y.mul_(2.0)  # it has a version from now on
    z = x * 1.0

    def described(node: Any) -> Any:
        saved = [(type(s), id(s.tensor if isinstance(s, Saved) else s)) for s in node.saved if s is not None]
        return (type(node), node.name(), node.edges, node.how, node.outputs, len(node.kept), saved, node.watched,
                [(j, v.count) for j, v in node.versions])

    by_python, natively = function(z, y), function(z, y)
    left, right = described(natively.grad_fn), described(by_python.grad_fn)
    assert left == right
    assert natively.grad_fn.sequence > z.grad_fn.sequence


def test_several_results(only_native: Callable[[], None]) -> None:
    function = made()["several"]
    x, y = leaf(3, 4), leaf(3, 4, seed=1)
    for _ in range(3):
        a, b = function(x, y)
        assert a.output_nr == 0 and b.output_nr == 1 and a.grad_fn is b.grad_fn
        x.grad = y.grad = None
        (a.sum() + (b * 2).sum()).backward()
    n, m = x.detach().numpy(), y.detach().numpy()
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp(n) + 2 * m, rtol=1e-5)
    np.testing.assert_allclose(y.grad.numpy(), 2 * n, rtol=1e-5)
    x.grad = None
    function(x, y)[1].sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), m, rtol=1e-5)


def test_who_wants_a_gradient_may_change() -> None:
    function = made()["two"]
    x, y = leaf(4), leaf(4, seed=1)
    for _ in range(3):
        assert function(x, y).grad_fn.next_functions[1][0] is not None
    for _ in range(3):
        assert len(function(x, y.detach()).grad_fn.next_functions) == 1
        assert not function(x.detach(), y.detach()).requires_grad
    with graphc.no_grad():
        assert not function(x, y).requires_grad
    with graphc.inference_mode():
        assert function(x.detach(), y.detach()).is_inference()
    y.requires_grad_(False)
    assert len(function(x, y).grad_fn.next_functions) == 1
    view = (x * 2)[1:3]
    w = leaf(2)
    for _ in range(3):
        out = function(view, w)
        assert out.grad_fn.next_functions[0][0] is view.grad_fn


def test_values_layouts_and_types_are_told_apart() -> None:
    functions = made()
    one, two = functions["one"], functions["two"]
    x = leaf(4, 4)
    for b in (2.0, 3.0, 2.0, 3.0, 0.0, -0.0):
        for _ in range(3):
            np.testing.assert_allclose(one(x, b).detach().numpy(), np.tanh(np.exp(x.detach().numpy()) * b), rtol=1e-5)
    for y in (leaf(4, 4, seed=2), leaf(4, 4, seed=3).detach().T, leaf(8, 4, seed=4).detach()[::2], x):
        for _ in range(3):
            y.requires_grad_()
            found, expected = gradients(two, x, y), gradients(two.__wrapped__, x, y)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    doubles = x.detach().double().requires_grad_()
    for _ in range(3):
        assert one(doubles).dtype is graphc.float64 and gradients(one, doubles)[0].dtype == np.float64


def test_keywords(only_native: Callable[[], None]) -> None:
    functions = made()
    x, y = leaf(4), leaf(4, seed=1)
    calls: list[Callable[[], Any]] = [
        lambda: functions["one"](x, b=3.0), lambda: functions["one"](b=0.5, x=x), lambda: functions["two"](y=x, x=y),
        lambda: functions["two"](x, y=y), lambda: functions["one"](x.detach(), b=3.0),
    ]  # fmt: skip
    expected = [call() for call in calls]
    for call, value in zip(calls, expected, strict=True):
        call()
        np.testing.assert_allclose(call().detach().numpy(), value.detach().numpy(), rtol=1e-5)
    with pytest.raises(TypeError, match="unexpected keyword"):
        functions["one"](x, c=3.0)
    only_native()
    for call, value in zip(calls, expected, strict=True):
        np.testing.assert_allclose(call().detach().numpy(), value.detach().numpy(), rtol=1e-5)


def test_parameters_have_a_native_entry_beside_tensors(only_native: Callable[[], None]) -> None:
    function = made()["two"]
    x, y = leaf(4), leaf(4, seed=1)
    both = [(x, y), (nn.Parameter(x.detach()), y), (nn.Parameter(x.detach()), nn.Parameter(y.detach()))]
    for arguments in both * 2:
        function(*arguments)
    only_native()
    for arguments in both:
        assert function(*arguments).requires_grad


def test_other_cotangents_are_left_to_python() -> None:
    function = made()["one"]
    x = leaf(3, 4)
    for _ in range(3):
        x.grad = None
        function(x).backward(graphc.ones(1, 4).expand(3, 4))
        expected = gradients(function.__wrapped__, x)[0]
    x.grad = None
    function(x).T.backward(graphc.ones(4, 3))
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-5)


def test_changes_in_place_are_noticed() -> None:
    functions = made()
    for _ in range(3):
        x = leaf(4)
        a = x * 1.0
        out = functions["one"](a)
        a.add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            functions["reduced"](functions["two"](a, out) + 0.0).backward(retain_graph=True)
            out = functions["two"](a, x)
            a.mul_(2.0)
            out.sum().backward()


def test_freed_and_kept_graphs() -> None:
    functions = made()
    x = leaf(4)
    for _ in range(3):
        y = functions["reduced"](x)
        y.backward(retain_graph=True)
        y.backward()
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            y.backward()
        z = functions["plain"](x)  # which keeps nothing
        z.sum().backward()
        z.backward(graphc.ones(4))


def test_hooks_anomalies_and_second_derivatives() -> None:
    function = made()["reduced"]
    x = leaf(4)
    packed: list[Any] = []
    for _ in range(3):
        with graphc.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
            function(x).backward()
        assert packed
        packed.clear()
        y = function(x)
        y.register_hook(lambda ct: ct * 10)
        x.grad = None
        y.backward()
        np.testing.assert_allclose(x.grad.numpy(), 20 * x.detach().numpy(), rtol=1e-5)
        (slope,) = graphc.autograd.grad(function(x), x, create_graph=True)
        x.grad = None
        slope.sum().backward()
        assert x.grad.tolist() == [2.0] * 4
        with graphc.autograd.set_detect_anomaly(True):
            assert function(x).grad_fn.metadata["traceback_"]
        with pytest.raises(ZeroDivisionError):
            z = function(x)
            z.register_hook(lambda ct: 1 / 0)
            z.backward()


def test_a_training_step_of_modules(only_native: Callable[[], None]) -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3))
    x, y = graphc.randn(5, 6), graphc.tensor([0, 1, 2, 0, 1])
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for k in range(8):
        if k == 4:
            only_native()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


def test_nothing_is_kept_alive() -> None:
    functions = made()
    x, y = leaf(4), leaf(4, seed=1)

    def once() -> weakref.ref[Any]:
        a, b = functions["several"](functions["two"](x, y), y)
        reference = weakref.ref(a.grad_fn)
        functions["reduced"](a + b).backward()
        return reference

    things = (None, Tensor, np.ndarray, np.dtype(np.float32), x, y, True, 0, 1)
    for _ in range(5):
        once()
    gc.collect()
    before, blocks = [sys.getrefcount(thing) for thing in things], sys.getallocatedblocks()
    for _ in range(200):
        assert once()() is None
    gc.collect()
    after = [sys.getrefcount(thing) for thing in things]
    assert all(abs(b - a) < 100 for a, b in zip(before, after))
    assert sys.getallocatedblocks() - blocks < 500


def test_threads() -> None:
    functions = made()
    wrong: list[Any] = []

    def work(seed: int) -> None:
        x, y = leaf(16, seed=seed), leaf(16, seed=seed + 10)
        expected = gradients(functions["two"].__wrapped__, x, y)
        for _ in range(50):
            for a, b in zip(gradients(functions["two"], x, y), expected, strict=True):
                if not np.allclose(a, b, rtol=1e-4, atol=1e-5):
                    wrong.append((a, b))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_without_gradients_it_does_not_matter_who_wants_one(monkeypatch: pytest.MonkeyPatch) -> None:
    function = made()["two"]
    x, y = leaf(4), leaf(4, seed=1)
    z = x * 1.0
    with graphc.no_grad():
        expected = [function(z, y).tolist() for _ in range(3)]
        monkeypatch.setattr(composites._Form, "__call__", None)
        for a in (z, x, x.detach()):
            found = function(a, y)
            assert not found.requires_grad and [found.tolist()] * 3 == expected


def test_values_that_never_come_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composites, "OFTEN", 3)
    monkeypatch.setattr(composites, "_MOST_COUNTED", 8)
    kept: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
    consider = composites._consider

    def noted(forms: dict[Any, Any], calls: dict[Any, Any], *rest: Any) -> Any:
        kept.append((forms, calls))
        return consider(forms, calls, *rest)

    monkeypatch.setattr(composites, "_consider", noted)
    function, x = made()["one"], leaf(4)
    for _ in range(4):
        function(x)
    for k in range(100):
        np.testing.assert_allclose(function(x, float(k)).detach().numpy(), np.tanh(np.exp(x.detach().numpy()) * k), rtol=1e-5)
    forms, calls = kept[-1]
    assert len(calls) <= 8 and [type(form) for form in forms.values()] == [composites._Form]
