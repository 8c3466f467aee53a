"""Derivatives of any order as parts of compiled functions: what they compute eagerly, they compute compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.autograd import grad as gradients
from graphc.frontend.pytree import flatten
from graphc.func import functional_call, grad, grad_and_value, hessian, jacfwd, jacrev, jvp, vjp, vmap

F = nn.functional


def same(got: Any, expected: Any, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Equal structures of tensors, as far as float32 goes."""
    left, structure = flatten(got)
    right, other = flatten(expected)
    assert structure == other
    for a, b in zip(left, right):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=rtol, atol=atol)


def f(x: graphc.Tensor) -> graphc.Tensor:
    return (graphc.tanh(x) * x.sin() + (x * x + 1).log()).sum()


def g(x: graphc.Tensor) -> graphc.Tensor:
    return graphc.softmax(x, 0) * x.exp().sum()


def mlp(w: graphc.Tensor, x: graphc.Tensor) -> graphc.Tensor:
    return (graphc.tanh(x @ w) ** 2).mean()


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "grad": grad(f),
    "grad of grad": vmap(grad(grad(lambda x: x.sin() * x**3))),
    "third order": vmap(grad(grad(grad(lambda x: x.exp() * x.tanh())))),
    "jacrev": jacrev(g),
    "jacfwd": jacfwd(g),
    "hessian": hessian(f),
    "jacrev of jacrev": jacrev(jacrev(g)),
    "jacfwd of jacrev": jacfwd(jacrev(g)),
    "jacrev of jacfwd": jacrev(jacfwd(g)),
    "jvp": lambda x: jvp(g, (x,), (x.cos(),)),
    "jvp of jvp": lambda x: jvp(lambda y: jvp(g, (y,), (y.cos(),))[1], (x,), (x,)),
    "vjp": lambda x: vjp(g, x)[1](x.cos()),
    "forward over reverse": lambda x: jvp(grad(f), (x,), (x.cos(),))[1],
    "reverse over forward": lambda x: grad(lambda y: jvp(f, (y,), (x.cos(),))[1])(x),
    "reverse over reverse": lambda x: grad(lambda y: (grad(f)(y) * x.cos()).sum())(x),
    "value too": lambda x: grad_and_value(f)(x),
    "vmap of grad": lambda x: vmap(grad(mlp), (None, 0))(x.reshape(1, -1).expand(3, -1), graphc.ones(4, 3) * x.sum()),
    "vmap of hessian": lambda x: vmap(hessian(lambda y: (y**3).prod()))(x.reshape(-1, 2)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_compile(name: str) -> None:
    function = TRANSFORMS[name]
    compiled = graphc.compile(function, fullgraph=True)
    for seed in range(2):
        graphc.manual_seed(seed)
        x = graphc.rand(6) + 0.25
        same(compiled(x), function(x), rtol=2e-4)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_orders(order: int) -> None:
    """The derivatives of sin are known."""
    function: Callable[..., Any] = graphc.sin
    for _ in range(order):
        function = grad(function)
    x = graphc.linspace(0, 3, 13, dtype=graphc.float64)
    got = graphc.compile(vmap(function), fullgraph=True)(x)
    np.testing.assert_allclose(got.numpy(), np.sin(x.numpy() + order * np.pi / 2), atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_orders_by_the_tape(order: int) -> None:
    """The same with create_graph, inside a compiled function."""

    def run(x: graphc.Tensor) -> graphc.Tensor:
        x = x.detach().requires_grad_()
        y = x.sin()
        for k in range(order):
            (y,) = gradients(y.sum(), x, create_graph=k + 1 < order)
        return y

    x = graphc.linspace(0, 3, 13, dtype=graphc.float64)
    got = graphc.compile(run, fullgraph=True)(x)
    np.testing.assert_allclose(got.numpy(), np.sin(x.numpy() + order * np.pi / 2), atol=1e-12)


def test_hessian_vector_products_of_a_network() -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    parameters = dict(model.named_parameters())
    x, y = graphc.randn(5, 4), graphc.randn(5, 2)
    vector = {name: graphc.randn(p.shape) for name, p in parameters.items()}

    def loss(parameters: dict[str, graphc.Tensor]) -> graphc.Tensor:
        return F.mse_loss(functional_call(model, parameters, (x,)), y)

    def product(parameters: dict[str, graphc.Tensor], vector: dict[str, graphc.Tensor]) -> dict[str, graphc.Tensor]:
        return jvp(grad(loss), (parameters,), (vector,))[1]

    plain = {name: p.detach() for name, p in parameters.items()}
    got = graphc.compile(product)(plain, vector)
    same(got, product(plain, vector))
    step = 1e-3
    ahead, behind = ({name: plain[name] + s * step * vector[name] for name in plain} for s in (1, -1))
    for name, value in got.items():
        numeric = (grad(loss)(ahead)[name] - grad(loss)(behind)[name]) / (2 * step)
        np.testing.assert_allclose(value.numpy(), numeric.numpy(), rtol=2e-2, atol=2e-3)


def gan(compiled: bool) -> list[float]:
    """Four steps of the critic of a Wasserstein GAN with a gradient penalty (Gulrajani et al. 2017)."""
    graphc.manual_seed(0)
    critic = nn.Sequential(nn.Linear(3, 16), nn.LeakyReLU(0.2), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = graphc.optim.Adam(critic.parameters(), lr=1e-2)

    def step(real: graphc.Tensor, fake: graphc.Tensor, mix: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (slope,) = gradients(critic(between).sum(), between, create_graph=True)
        penalty = ((slope.norm(2, dim=1) - 1) ** 2).mean()
        loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
        loss.backward()
        optimizer.step()
        return loss

    run = graphc.compile(step) if compiled else step
    return [run(graphc.randn(8, 3) + 1, graphc.randn(8, 3), graphc.rand(8, 1)).item() for _ in range(4)]


def test_gradient_penalties_in_a_training_step() -> None:
    np.testing.assert_allclose(gan(True), gan(False), rtol=1e-4)


def test_gradients_per_sample() -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    x, y = graphc.randn(7, 4), graphc.randint(0, 3, (7,))

    def loss(parameters: dict[str, graphc.Tensor], x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    per_sample = vmap(grad(loss), (None, 0, 0))
    got = graphc.compile(per_sample, fullgraph=True)(parameters, x, y)
    for i in range(7):
        same({name: g[i] for name, g in got.items()}, grad(loss)(parameters, x[i], y[i]))


def test_derivatives_of_compiled_functions() -> None:
    """From outside, to second order, as those of the function itself."""
    compiled = graphc.compile(f)
    x = graphc.linspace(-1, 1, 5, dtype=graphc.float64, requires_grad=True)

    def second(function: Callable[..., Any]) -> graphc.Tensor:
        (first,) = gradients(function(x), x, create_graph=True)
        (result,) = gradients((first**2).sum(), x)
        return result

    same(second(compiled), second(f), rtol=1e-10)
    same(grad(compiled)(x.detach()), grad(f)(x.detach()), rtol=1e-10)
    same(hessian(compiled)(x.detach()), hessian(f)(x.detach()), rtol=1e-10)


def test_budgets_keep_derivatives() -> None:
    x = graphc.linspace(-1, 1, 5, dtype=graphc.float64, requires_grad=True)
    compiled = graphc.compile(lambda x: g(x).tanh().sum(), memory_budget=0.0)
    (got,) = gradients(compiled(x), x)
    (expected,) = gradients(g(x).tanh().sum(), x)
    same(got, expected, rtol=1e-10)
