"""Derivatives as functions of functions: against formulas and differences, nested in every order, eagerly and compiled."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.autograd import Function, once_differentiable
from graphc.func import (
    functional_call,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    value_and_grad,
    vjp,
    vmap,
)

RNG = np.random.default_rng(1)


def draw(*shape: int) -> graphc.Tensor:
    return graphc.tensor(RNG.uniform(0.3, 1.0, shape))


X, V, W = draw(3), draw(3), draw(3, 4)
VECTOR: dict[str, Callable[[graphc.Tensor], graphc.Tensor]] = {
    "matmul": lambda x: (x @ W).tanh(),
    "outputs": lambda x: x.exp() * x.sigmoid() / x.sqrt(),
    "powers": lambda x: x**3 * x.sum() ** 2 + x.prod(),
    "softmax": lambda x: nn.functional.softmax(x, 0),
    "index": lambda x: x[graphc.tensor([0, 0, 2])] * x,
    "extremes": lambda x: x.max() * x + x.sort()[0],
    "linear algebra": lambda x: graphc.linalg.inv(x.outer(x) + graphc.eye(3, dtype=x.dtype)).flatten(),
    "in place": lambda x: in_place(x),
    "constant": lambda x: x.detach() * 2,
}


def in_place(x: graphc.Tensor) -> graphc.Tensor:
    y = x * 2
    y[0] = x[1] * x[2]
    y.mul_(x)
    part = y[1:]
    part.add_(x[:2])
    z = graphc.zeros(3, dtype=x.dtype)
    z[1:] = part
    return y * z


def numbers(x: graphc.Tensor) -> np.ndarray:
    return x.detach().numpy()


def differences(f: Callable[[graphc.Tensor], graphc.Tensor], x: graphc.Tensor, eps: float = 1e-6) -> np.ndarray:
    """The Jacobian, [*m, *n]."""
    columns = []
    for place in np.ndindex(*x.shape):
        step = np.zeros(x.shape)
        step[place] = eps
        up, down = (numbers(f(x + graphc.tensor(sign * step))) for sign in (1, -1))
        columns.append((up - down) / (2 * eps))
    return np.stack(columns, -1).reshape(*columns[0].shape, *x.shape)


def close(found: Any, expected: Any, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(numbers(found), expected if isinstance(expected, np.ndarray) else numbers(expected),
                               rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", VECTOR)
def test_jacobians(name: str) -> None:
    f = VECTOR[name]
    expected = np.zeros((3, 3)) if name == "constant" else differences(f, X)
    for transform in (jacrev, jacfwd, lambda f: jacrev(f, chunk_size=2)):
        close(transform(f)(X), expected)
        close(graphc.compile(transform(f))(X), expected)


@pytest.mark.parametrize("name", VECTOR)
def test_products_with_jacobians(name: str) -> None:
    f = VECTOR[name]
    jacobian = numbers(jacrev(f)(X))
    value, tangent = jvp(f, (X,), (V,))
    close(value, f(X))
    close(tangent, jacobian @ numbers(V))
    out, push = linearize(f, X)
    close(out, f(X))
    close(push(V), jacobian @ numbers(V))
    close(push(X), jacobian @ numbers(X))
    out, pull = vjp(f, X)
    ct = graphc.ones_like(out)
    (found,) = pull(ct)
    close(found, numbers(ct) @ jacobian)
    close(vmap(pull)(graphc.eye(out.numel(), dtype=X.dtype))[0], jacobian)


def scalar(f: Callable[[graphc.Tensor], graphc.Tensor]) -> Callable[[graphc.Tensor], graphc.Tensor]:
    return lambda x: (f(x) * graphc.arange(f(x).numel(), dtype=x.dtype).cos()).sum()


@pytest.mark.parametrize("outer, inner", list(itertools.product([jacrev, jacfwd], repeat=2)))
@pytest.mark.parametrize("name", VECTOR)
def test_hessians_in_any_order(name: str, outer: Any, inner: Any) -> None:
    f = scalar(VECTOR[name])
    expected = np.zeros((3, 3)) if name == "constant" else differences(grad(f), X)
    close(outer(inner(f))(X), expected, 1e-5)


@pytest.mark.parametrize("name", VECTOR)
def test_second_derivatives(name: str) -> None:
    f = scalar(VECTOR[name])
    expected = np.zeros((3, 3)) if name == "constant" else differences(grad(f), X)
    close(hessian(f)(X), expected, 1e-5)
    close(graphc.compile(hessian(f))(X), expected, 1e-5)
    batch = graphc.stack([X, X * 0.7])
    close(vmap(hessian(f))(batch)[0], expected, 1e-5)
    close(vmap(hessian(f))(batch)[1], hessian(f)(X * 0.7))
    value, product = jvp(grad(f), (X,), (V,))
    close(value, grad(f)(X))
    close(product, expected @ numbers(V), 1e-5)
    close(grad(lambda x: jvp(f, (x,), (V,))[1])(X), expected @ numbers(V), 1e-5)
    close(grad(lambda x: grad(f)(x) @ V)(X), expected @ numbers(V), 1e-5)
    close(vmap(lambda v: jvp(grad(f), (X,), (v,))[1])(graphc.eye(3, dtype=X.dtype)), expected, 1e-5)


def test_derivatives_of_any_order() -> None:
    f: Callable[..., Any] = lambda x: x**5 + x.sin()  # noqa: E731
    x = graphc.tensor(1.3, dtype=graphc.float64)
    for expected in (5 * 1.3**4 + np.cos(1.3), 20 * 1.3**3 - np.sin(1.3), 60 * 1.3**2 - np.cos(1.3), 120 * 1.3 + np.sin(1.3)):
        f = grad(f)
        assert f(x).item() == pytest.approx(expected)


def test_the_inner_derivative_does_not_see_the_outer_one() -> None:
    """d/dx (x * d/dy (x + y)) is 1: the perturbations of x and of y are not to be confused."""
    one = graphc.tensor(1.0)
    assert grad(lambda x: x * grad(lambda y: x + y)(one))(one).item() == 1
    assert grad(lambda x: x * jvp(lambda y: x + y, (one,), (one,))[1])(one).item() == 1
    assert jvp(lambda x: x * jvp(lambda y: x * y, (one,), (one,))[1], (one,), (one,))[1].item() == 2


def test_arguments() -> None:
    def f(a: graphc.Tensor, b: dict[str, Any], k: float = 1.0) -> graphc.Tensor:
        return (a * b["x"]).sum() * b["y"][0] * k

    b = {"x": V, "y": [graphc.tensor(2.0, dtype=graphc.float64)]}
    close(grad(f)(X, b), 2 * V)
    close(grad(f)(X, b, k=3.0), 6 * V)
    first, second = grad(f, argnums=(0, -1))(X, b)
    close(first, 2 * V)
    close(second["x"], 2 * X)
    close(second["y"][0], X @ V)
    both = jacrev(lambda d: {"sum": d["a"].sum(), "all": d["a"] * d["b"]})({"a": X, "b": V})
    assert both["sum"]["b"].tolist() == [0, 0, 0]
    close(both["all"]["a"], graphc.diag(V))
    rows = jacfwd(lambda a, b: (a * b, b.sum()), argnums=(1, 0))(X, V)
    close(rows[0][0], graphc.diag(X))
    close(rows[0][1], graphc.diag(V))
    assert rows[1][1].tolist() == [0, 0, 0]


def test_values_and_more_results() -> None:
    def f(x: graphc.Tensor) -> tuple[graphc.Tensor, Any]:
        return (x**2).sum(), {"twice": x * 2, "name": "aux"}

    gradient, aux = grad(f, has_aux=True)(X)
    close(gradient, 2 * X)
    close(aux["twice"], 2 * X)
    assert aux["name"] == "aux"
    gradient, (value, aux) = grad_and_value(f, has_aux=True)(X)
    close(value, (X**2).sum())
    value, gradient = value_and_grad(lambda x: f(x)[0])(X)
    close(gradient, 2 * X)
    close(vjp(f, X, has_aux=True)[2]["twice"], 2 * X)
    close(jvp(f, (X,), (V,), has_aux=True)[2]["twice"], 2 * X)
    jacobian, aux = jacrev(lambda x: (x * 3, x), has_aux=True)(X)
    close(jacobian, 3 * np.eye(3))
    close(aux, X)
    close(jacfwd(lambda x: (x * 3, x), has_aux=True)(X)[1], X)


def test_results_are_outside_of_what_was_differentiated() -> None:
    assert not grad(lambda x: (x**2).sum())(X).requires_grad
    assert not any(t.requires_grad for t in jvp(lambda x: x**2, (X,), (V,)))
    weight = W.clone().requires_grad_()
    found = grad(lambda x: (x @ weight).tanh().sum())(X)
    assert found.requires_grad
    found.sum().backward()
    assert weight.grad is not None
    close(weight.grad, differences(lambda w: grad(lambda x: (x @ w).tanh().sum())(X).sum(), W))
    x = X.clone().requires_grad_()
    grad(lambda a: (a**3).sum())(x).sum().backward()
    assert x.grad is not None
    close(x.grad, 6 * X)


def test_no_grad_inside_holds_and_outside_does_not() -> None:
    def f(x: graphc.Tensor) -> graphc.Tensor:
        with graphc.no_grad():
            c = x**2
        return (x**3 - c * x).sum()

    close(grad(f)(X), 3 * X**2 - X**2)
    close(grad(lambda x: grad(f)(x).sum())(X), 6 * X)  # c is constant to the outer derivative, too
    with graphc.no_grad():
        assert graphc.is_grad_enabled() is False
        close(grad(lambda x: (x**2).sum())(X), 2 * X)
        close(grad(lambda x: grad(lambda y: (y**3).sum())(x).sum())(X), 6 * X)


def test_detached_is_constant_on_all_levels() -> None:
    close(grad(lambda x: (x.detach() * x).sum())(X), X)
    close(grad(lambda x: grad(lambda y: (y.detach() * y).sum())(x).sum())(X), np.zeros(3))


def test_values_can_be_looked_at() -> None:
    def f(x: graphc.Tensor) -> graphc.Tensor:
        if x.sum() > 0 and float(x[0]) > 0:
            return (x * x.max().item()).sum()
        return x.sum() * 100

    close(grad(f)(X), np.full(3, X.max().item()))


def test_what_comes_from_outside_is_constant_and_stays() -> None:
    outside = graphc.zeros(3, dtype=graphc.float64)

    def counts(x: graphc.Tensor) -> graphc.Tensor:
        outside.add_(1)
        return (x * outside).sum()

    close(grad(counts)(X), np.ones(3))
    assert outside.tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match="mutate a captured Tensor"):
        grad(lambda x: outside.add_(x).sum())(X)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        grad(lambda x: x.add_(1).sum())(X)
    assert outside.tolist() == [1, 1, 1]


def test_running_statistics_are_kept() -> None:
    model = nn.BatchNorm1d(4)
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    grad(lambda p: functional_call(model, p, graphc.ones(3, 4) * 5).sum())(dict(model.named_parameters()))
    assert model.running_mean.tolist() == [0.5] * 4
    state = {name: t.detach().clone() for name, t in state.items()}
    functional_call(model, state, graphc.zeros(3, 4))
    np.testing.assert_allclose(state["running_mean"].numpy(), [0.45] * 4, rtol=1e-6)
    assert model.running_mean.tolist() == [0.5] * 4


def test_random_numbers_go_on() -> None:
    graphc.manual_seed(0)
    first = grad(lambda x: (x * graphc.rand(3, dtype=x.dtype)).sum())(X)
    second = grad(lambda x: (x * graphc.rand(3, dtype=x.dtype)).sum())(X)
    assert (first != second).all()
    graphc.manual_seed(0)
    close(graphc.rand(3, dtype=graphc.float64), first)


def test_backward_inside() -> None:
    """A tape of its own, as for a gradient penalty."""

    def f(x: graphc.Tensor) -> graphc.Tensor:
        (inner,) = graphc.autograd.grad((x**3).sum(), x, create_graph=True)
        return (inner**2).sum()

    close(grad(f)(X), 36 * X**3)


def test_over_compiled_functions() -> None:
    compiled = graphc.compile(lambda x: (x**3).sum())
    compiled(X)
    close(grad(compiled)(X), 3 * X**2)
    close(hessian(compiled)(X), graphc.diag(6 * X))


# Functions of one's own


class Ramp(Function):
    """x * x, with a derivative that tells by its factors which rule was used."""

    @staticmethod
    def forward(x: graphc.Tensor) -> graphc.Tensor:
        return x * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, ct: graphc.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return ct * x * 20


def test_custom_functions_are_differentiated_by_their_own_rule_on_every_level() -> None:
    close(grad(lambda x: Ramp.apply(x).sum())(X), 20 * X)
    close(grad(lambda x: grad(lambda y: Ramp.apply(y).sum())(x).sum())(X), np.full(3, 20.0))
    close(jvp(Ramp.apply, (X,), (V,))[1], 20 * X * V)
    x = X.clone().requires_grad_()
    value = jvp(Ramp.apply, (x,), (V,))[0]
    value.sum().backward()
    assert x.grad is not None
    close(x.grad, 20 * X)


def test_custom_functions_with_a_context_in_forward_are_refused() -> None:
    class Old(Function):
        @staticmethod
        def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
            return x * 2

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, ct: graphc.Tensor) -> Any:
            return ct * 2

    with pytest.raises(RuntimeError, match="must override the setup_context staticmethod"):
        grad(lambda x: Old.apply(x).sum())(X)


def test_inputs_that_a_function_changes() -> None:
    class Double(Function):
        @staticmethod
        def forward(x: graphc.Tensor) -> graphc.Tensor:
            return x.mul_(2)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.mark_dirty(inputs[0])

        @staticmethod
        def backward(ctx: Any, ct: graphc.Tensor) -> Any:
            return ct * 7

    def f(x: graphc.Tensor) -> graphc.Tensor:
        y = x.clone()
        out = Double.apply(y)
        assert out is y
        return (y * x).sum()

    close(grad(f)(X), 7 * X + 2 * X)


# functional_call


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 2, bias=False)
        self.b = nn.Linear(2, 2, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: graphc.Tensor, scale: float = 1.0) -> graphc.Tensor:
        return self.b(self.a(x)) * scale


def test_functional_call() -> None:
    model, x = Tied(), graphc.ones(1, 2)
    before = model.a.weight
    two = 2 * graphc.eye(2)
    assert functional_call(model, {"a.weight": two}, x).tolist() == [[4, 4]]
    assert functional_call(model, {"b.weight": two}, (x,), {"scale": 3.0}).tolist() == [[12, 12]]
    untied = functional_call(model, ({"a.weight": two}, {"b.weight": graphc.eye(2)}), x, tie_weights=False)
    assert untied.tolist() == [[2, 2]]
    assert model.a.weight is before
    assert model.b.weight is before
    with pytest.raises(ValueError, match="tied"):
        functional_call(model, {"a.weight": two, "b.weight": two.clone()}, x)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        functional_call(model, {"a.weight": two, "c": two}, x, strict=True)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\): 'bias'"):
        functional_call(nn.Linear(2, 2), {"weight": two}, x, strict=True)
    with pytest.raises(KeyError, match="no parameter or buffer"):
        functional_call(model, {"c": two}, x)
    with pytest.raises(ZeroDivisionError):
        functional_call(model, {"a.weight": two}, (x,), {"scale": 1 // 0})
    assert model.a.weight is before


# Errors


@pytest.mark.parametrize("call, kind, message", [
    (lambda: grad(lambda x: x)(X), RuntimeError, "to return a scalar Tensor, got tensor with 1 dims"),
    (lambda: grad(lambda x: 3)(X), RuntimeError, "to return a Tensor"),
    (lambda: grad(lambda x: x.sum())(graphc.tensor([1, 2])), RuntimeError, "floating point dtype"),
    (lambda: grad(lambda x: x.sum())(3.0), ValueError, "must be Tensor"),
    (lambda: grad(lambda x: x.sum(), argnums=2)(X), RuntimeError, "only 1 positional inputs"),
    (lambda: grad(lambda x: x.sum(), argnums=(0, 0))(X), RuntimeError, "must be unique"),
    (lambda: grad(lambda x: x.sum(), has_aux=True)(X), RuntimeError, "should be a tuple"),
    (lambda: vjp(lambda x: x.long(), X), RuntimeError, "floating-point or complex"),
    (lambda: vjp(lambda x: (x, x), X)[1](X), RuntimeError, "same as pytree structure"),
    (lambda: vjp(lambda x: x, X)[1](X[:2]), RuntimeError, "Mismatch in shape"),
    (lambda: jvp(lambda x: x, X, X), RuntimeError, "Expected primals to be a tuple"),
    (lambda: jvp(lambda x: x, (X,), (X, X)), RuntimeError, "same python structure"),
    (lambda: jvp(lambda x: graphc.ones(2), (X,), (X,), strict=True), RuntimeError, "independent of the inputs"),
    (lambda: linearize(lambda x: x, X)[1](X[:2]), RuntimeError, "doesn't match the shape"),
    (lambda: jacrev(lambda x: x, chunk_size=0), ValueError, "greater than 0"),
])
def test_misuse_is_named(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
