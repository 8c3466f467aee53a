"""Branches and loops: eagerly, in graphs, compiled, exported, differentiated, batched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import TraceError
from graphc.func import grad, jvp, vmap

X = graphc.tensor([0.5, -1.0, 2.0])
ROWS = graphc.tensor([[0.1, 0.2, 0.3], [-0.4, 0.5, 0.6], [0.7, -0.8, 0.9], [1.0, 1.1, -1.2]])
W = graphc.tensor([[0.3, -0.2, 0.1], [0.5, 0.4, -0.3], [-0.1, 0.2, 0.6]])


def branch(x: Any) -> Any:
    return graphc.cond(x.sum() > 0, lambda x: (x * x).sin(), lambda x: x.exp(), (x,))


def captured(x: Any) -> Any:
    return graphc.cond(x.sum() > 0, lambda: {"y": W @ x}, lambda: {"y": x * 2})["y"]


def nested(x: Any) -> Any:
    def inner(y: Any) -> Any:
        return graphc.cond(y[0] > 0, lambda y: y * x, lambda y: y - x, (y,))

    return graphc.cond(x.sum() > 0, inner, lambda y: y.cos(), (x * 2,))


def newton(x: Any) -> Any:
    x = x.abs() + 1
    return graphc.while_loop(lambda y, k: (y * y - x).abs().max() > 1e-4, lambda y, k: ((y + x / y) / 2, k + 1), (x, 0))[0]


def powers(x: Any) -> Any:
    return graphc.while_loop(lambda y, k: k < 3, lambda y, k: ((W @ y).tanh() * x, k + 1), (x, 0))[0]


def never(x: Any) -> Any:
    return graphc.while_loop(lambda y: y.sum() > 1000, lambda y: y * 2, (x,))[0]


def rnn(x: Any) -> Any:
    h, ys = graphc.scan(lambda h, r: ((W @ h + r).tanh(), h * r), x, ROWS)
    return h + ys.sum(0)


def rnn_back(x: Any) -> Any:
    def step(s: Any, r: Any) -> Any:
        return ((W @ s[0] + r).tanh(), s[1] * s[0]), {"y": s[0] * r}

    (h, c), ys = graphc.scan(step, (x, x + 1), ROWS, reverse=True)
    return h * c + ys["y"][1]


def swap(x: Any) -> Any:
    (a, b), _ = graphc.scan(lambda s, _: ((s[1], s[0] * s[1]), None), (x, x + 1), None, length=3)
    return a - b


def mapped(x: Any) -> Any:
    return graphc.map(lambda r: (r * x).sum() * r, ROWS).sum(0)


def prefix(x: Any) -> Any:
    return graphc.associative_scan(lambda a, b: a * b + b, ROWS * x, 0).sum(0)


def prefix_back(x: Any) -> Any:
    return graphc.associative_scan(graphc.maximum, (ROWS * x).T, 1, reverse=True).sum(1)


def branch_in_scan(x: Any) -> Any:
    def step(h: Any, r: Any) -> Any:
        return graphc.cond(r[0] > 0, lambda h: (h * r).sin(), lambda h: h + x, (h,)), h.sum()

    h, ys = graphc.scan(step, x, ROWS)
    return h * ys.sum()


def scan_in_while(x: Any) -> Any:
    def step(y: Any, k: Any) -> Any:
        return graphc.scan(lambda h, r: ((h * r).sin() + x, None), y, ROWS)[0], k + 1

    return graphc.while_loop(lambda y, k: k < 2, step, (x, 0))[0]


FUNCTIONS: list[Callable[[Any], Any]] = [
    branch, captured, nested, newton, powers, never, rnn, rnn_back, swap, mapped, prefix, prefix_back, branch_in_scan,
    scan_in_while,
]  # fmt: skip
every_function = pytest.mark.parametrize("function", FUNCTIONS)
every_backend = pytest.mark.parametrize("backend", ["llvm", "reference"])


def close(a: Any, b: Any, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=tolerance, atol=tolerance)


def loss(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: (function(x) * graphc.tensor([1.0, 2.0, -0.5])).sum()


@every_backend
@every_function
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_compiled_is_eager(function: Callable[[Any], Any], backend: str, sign: float) -> None:
    close(graphc.compile(function, backend=backend, fullgraph=True)(X * sign), function(X * sign))


@every_function
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients(function: Callable[[Any], Any], sign: float) -> None:
    def backward(x: Any) -> Any:
        x = x.detach().requires_grad_()
        return graphc.autograd.grad(loss(function)(x), x)[0]

    compiled = graphc.compile(function, fullgraph=True)
    outside = (X * sign).requires_grad_()
    loss(compiled)(outside).backward()
    close(outside.grad, backward(X * sign))
    close(graphc.compile(backward, fullgraph=True)(X * sign), backward(X * sign))
    close(graphc.compile(grad(loss(function)), fullgraph=True)(X * sign), backward(X * sign))


@every_function
def test_second_derivatives(function: Callable[[Any], Any]) -> None:
    slope = grad(loss(function))
    product = grad(lambda x: (slope(x) * X).sum())
    close(graphc.compile(product, fullgraph=True)(X), product(X), 1e-4)


@every_function
def test_forward_mode(function: Callable[[Any], Any]) -> None:
    def push(x: Any) -> Any:
        return jvp(function, (x,), (W[0],))[1]

    close(graphc.compile(push, fullgraph=True)(X), push(X))


@every_function
def test_batches(function: Callable[[Any], Any]) -> None:
    batch = graphc.stack([X, -X, X * 0.5])
    each = graphc.stack([function(x) for x in batch])
    close(vmap(function)(batch), each)
    close(graphc.compile(vmap(function), fullgraph=True)(batch), each)


@every_function
def test_gradients_of_batches(function: Callable[[Any], Any]) -> None:
    batch = graphc.stack([X, -X, X * 0.5])
    each = graphc.stack([grad(loss(function))(x) for x in batch])
    close(vmap(grad(loss(function)))(batch), each)
    close(graphc.compile(vmap(grad(loss(function))), fullgraph=True)(batch), each)


@every_function
def test_exported(function: Callable[[Any], Any], tmp_path: Any) -> None:
    path = tmp_path / "f.gcz"
    graphc.save(graphc.export(function, (X,)), path)
    for x in (X, -X):
        close(graphc.load(path)(x), function(x))


def test_parameters_get_gradients() -> None:
    cell = graphc.nn.Linear(3, 3)

    def run(x: Any) -> Any:
        h, _ = graphc.scan(lambda h, r: (cell(h + r).tanh(), None), x, ROWS)
        return graphc.cond(h.sum() > 0, lambda h: cell(h), lambda h: -cell(h), (h,)).sum()

    grads = []
    for f in (run, graphc.compile(run, fullgraph=True)):
        cell.zero_grad()
        f(X).backward()
        grads.append([p.grad.clone() for p in cell.parameters()])
    for a, b in zip(*grads):
        close(a, b)


def test_numbers_and_lists_are_carried() -> None:
    def f(x: Any) -> Any:
        return graphc.while_loop(lambda s: s["k"] < 4, lambda s: {"k": s["k"] + 1, "v": [s["v"][0] * 2]}, ({"k": 0, "v": [x]},))

    for g in (f, graphc.compile(f)):
        (state,) = g(X)
        assert state["k"].item() == 4
        close(state["v"][0], X * 16)


def test_scan_of_nothing() -> None:
    def f(x: Any) -> Any:
        return graphc.scan(lambda h, r: (h + r, (h * 2, r.sum())), x, x.reshape(1, 3)[:0])

    for g in (f, graphc.compile(f)):
        h, (ys, sums) = g(X)
        close(h, X)
        assert ys.shape == (0, 3) and sums.shape == (0,)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_associative_scan_of_any_length(count: int) -> None:
    x = graphc.arange(1.0, count + 1)
    expected = np.cumprod(np.arange(1.0, count + 1))

    def f(x: Any) -> Any:
        return graphc.associative_scan(graphc.mul, x)

    for g in (f, graphc.compile(f)):
        np.testing.assert_allclose(g(x).numpy(), expected)


def test_scan_along_another_dimension() -> None:
    def f(x: Any) -> Any:
        return graphc.scan(lambda h, r: (h + r, h * r), graphc.zeros(4), x, dim=1)

    h, ys = f(ROWS)
    assert h.shape == (4,) and ys.shape == (4, 3)
    for a, b in zip(graphc.compile(f)(ROWS), (h, ys)):
        close(a, b)


def test_changes_in_place_are_kept() -> None:
    counts = [graphc.zeros(3), graphc.zeros(3)]

    def f(count: Any, x: Any) -> Any:
        def step(h: Any, r: Any) -> Any:
            count.add_(r)
            return h * count, None

        return graphc.scan(step, x, ROWS)[0] + graphc.cond(x.sum() > 0, lambda: count.mul_(2), lambda: x)

    close(graphc.compile(f)(counts[1], X), f(counts[0], X))
    close(counts[1], counts[0])


def test_a_carry_that_is_changed_in_place() -> None:
    def step(h: Any, r: Any) -> Any:
        h.add_(r)
        return h, h

    def f(x: Any) -> Any:
        return graphc.scan(step, x * 1, ROWS)

    for a, b in zip(graphc.compile(f)(X), f(X)):
        close(a, b)
    close(f(X)[1], X + ROWS.cumsum(0))


def test_running_statistics_in_a_loop() -> None:
    norms = [graphc.nn.BatchNorm1d(3), graphc.nn.BatchNorm1d(3)]
    batches = ROWS.reshape(2, 2, 3)

    def f(norm: Any) -> Callable[[Any], Any]:
        return lambda x: graphc.map(norm, x)

    close(graphc.compile(f(norms[0]))(batches), f(norms[1])(batches))
    for a, b in zip(norms[0].buffers(), norms[1].buffers()):
        close(a, b)


def test_no_random_numbers_under_vmap() -> None:
    f = vmap(lambda x: graphc.cond(x.sum() > 0, lambda: graphc.rand(3), lambda: x), randomness="different")
    with pytest.raises(TraceError, match="state of a random generator"):
        f(graphc.stack([X, -X]))


def test_random_numbers_inside() -> None:
    def f(x: Any) -> Any:
        return graphc.scan(lambda h, r: (h + graphc.rand(3) * r, None), x, ROWS)[0]

    results = []
    for g in (f, graphc.compile(f)):
        graphc.manual_seed(3)
        results += [g(X), g(X)]
    close(results[0], results[2])
    close(results[1], results[3])
    assert not np.allclose(results[0].numpy(), results[1].numpy())


def test_no_grad_inside() -> None:
    def f(x: Any) -> Any:
        def step(h: Any, r: Any) -> Any:
            with graphc.no_grad():
                scale = h.exp()
            return h * scale * r, None

        return graphc.scan(step, x, ROWS)[0].sum()

    close(graphc.compile(grad(f))(X), grad(f)(X))


def test_a_module_in_a_branch() -> None:
    layers = [graphc.nn.Linear(3, 3), graphc.nn.Linear(3, 3)]

    @graphc.compile(fullgraph=True)
    def f(x: Any, which: Any) -> Any:
        return graphc.cond(which, layers[0], layers[1], (x,))

    for which in (True, False):
        close(f(X, graphc.tensor(which)), layers[0 if which else 1](X))


@pytest.mark.parametrize("dtype", [graphc.bfloat16, graphc.float16, graphc.float64, graphc.complex64, graphc.int64])
def test_dtypes(dtype: Any) -> None:
    def f(x: Any) -> Any:
        h, ys = graphc.scan(lambda h, r: (h * r + x, h), x, graphc.stack([x, x + 1, x]))
        return h, ys, graphc.cond(x[0] == x[0], lambda x: x + x, lambda x: x * 3, (x,))

    x = graphc.tensor([1.0, 2.0, 3.0]).to(dtype)
    for a, b in zip(graphc.compile(f)(x), f(x)):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a.to(graphc.complex128).numpy(), b.to(graphc.complex128).numpy(), rtol=1e-2)


def test_operands_in_any_layout() -> None:
    def f(x: Any, h: Any) -> Any:
        h, ys = graphc.scan(lambda h, r: (h + r, h @ r), h, x)
        return h, ys, graphc.cond(x.sum() > 0, lambda: x @ h, lambda: x @ x.mT @ x @ h)

    square = graphc.tensor(np.random.default_rng(0).standard_normal((3, 4, 4)).astype(np.float32))
    for x in (square, square.permute(0, 2, 1), square.flip(0), square[:, ::2, ::2].permute(2, 0, 1)[:, :2]):
        h = x[0].T
        for a, b in zip(graphc.compile(f)(x, h), f(x, h)):
            close(a, b)


def test_indices_are_checked_inside() -> None:
    table = graphc.arange(4.0)

    @graphc.compile
    def f(places: Any) -> Any:
        return graphc.scan(lambda h, k: (h + table[k], None), graphc.tensor(0.0), places)[0]

    assert f(graphc.tensor([1, 3, 2])).item() == 6
    with pytest.raises(IndexError, match="out of bounds"):
        f(graphc.tensor([1, 4, 2]))


# Errors


def wrong_branches(x: Any) -> Any:
    return graphc.cond(x.sum() > 0, lambda x: x, lambda x: x.sum(), (x,))


def wrong_carry(x: Any) -> Any:
    return graphc.scan(lambda h, r: (h.sum(), None), x, ROWS)


def wrong_pair(x: Any) -> Any:
    return graphc.scan(lambda h, r: h, x, ROWS)


def wrong_condition(x: Any) -> Any:
    return graphc.while_loop(lambda x: x > 0, lambda x: x - 1, (x,))


def looks(x: Any) -> Any:
    return graphc.scan(lambda h, r: (h if r.sum() > 0 else -h, None), x, ROWS)


def gradient_outside(x: Any) -> Any:
    def step(h: Any, r: Any) -> Any:
        X.grad = h
        return h, None

    return graphc.scan(step, x, ROWS)


@pytest.mark.parametrize(("function", "message"), [
    (wrong_branches, r"(?s)return different things.*float32\[3\].*control_flow.py:\d+.*float32\[\].*control_flow.py:\d+"),
    (wrong_carry, r"(?s)something else than it takes.*float32\[3\].*float32\[\] from test_control_flow.py:\d+"),
    (wrong_pair, r"does not return a pair"),
    (wrong_condition, r"(?s)condition is not one bool.*bool\[3\] from test_control_flow.py:\d+"),
    (looks, r"(?s)bool\(\) needs the numbers.*at test_control_flow.py:\d+"),
    (gradient_outside, r"\.grad of a tensor from outside"),
])  # fmt: skip
def test_errors_in_graphs(function: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        graphc.compile(function, fullgraph=True)(X)


@pytest.mark.parametrize("function", [wrong_carry, wrong_pair, wrong_condition])
def test_errors_eagerly(function: Callable[[Any], Any]) -> None:
    with pytest.raises(TraceError):
        function(X)


def test_arguments_are_checked() -> None:
    with pytest.raises(RuntimeError, match="a bool tensor"):
        graphc.cond(X, lambda: X, lambda: X)
    with pytest.raises(TypeError, match="not a tuple"):
        graphc.cond(True, lambda x: x, lambda x: x, X)
    with pytest.raises(RuntimeError, match="number of steps"):
        graphc.scan(lambda h, x: (h, x), X, (ROWS, X))
    with pytest.raises(RuntimeError, match="xs, or length="):
        graphc.scan(lambda h, x: (h, x), X)
    with pytest.raises(TypeError, match="cannot be carried"):
        graphc.while_loop(lambda x: True, lambda x: x, ("a",))
