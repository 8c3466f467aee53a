"""Jacobians and Hessians by the tape, dual tensors, and the check of derivatives itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.autograd import Function, forward_ad, functional, gradcheck, gradgradcheck
from graphc.autograd.gradcheck import GradcheckError

X = graphc.tensor([0.5, 1.5, 0.7], dtype=graphc.float64)
W = graphc.tensor([[1.0, 2.0], [0.5, -1.0], [0.3, 0.1]], dtype=graphc.float64)
V = graphc.tensor([1.0, -2.0, 0.5], dtype=graphc.float64)


def f(x: graphc.Tensor) -> graphc.Tensor:
    return (x @ W).tanh()


def energy(x: graphc.Tensor) -> graphc.Tensor:
    return (x**3).sum() * x[0]


JACOBIAN = ((1 - f(X) ** 2)[:, None] * W.t()).numpy()
HESSIAN = graphc.func.hessian(energy)(X).numpy()


def close(found: Any, expected: Any) -> None:
    numbers = expected if isinstance(expected, np.ndarray) else expected.detach().numpy()
    np.testing.assert_allclose(found.detach().numpy(), numbers, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("how", [
    {}, {"vectorize": True}, {"vectorize": True, "strategy": "forward-mode"}, {"strict": True}, {"create_graph": True},
])
def test_jacobian(how: dict[str, Any]) -> None:
    found = functional.jacobian(f, X, **how)
    close(found, JACOBIAN)
    assert found.requires_grad == how.get("create_graph", False)
    pair = functional.jacobian(lambda a, b: (a * b, b.sum()), (X, V), **{k: v for k, v in how.items() if k != "strict"})
    close(pair[0][0], np.diag(V.numpy()))
    close(pair[0][1], np.diag(X.numpy()))
    close(pair[1][0], np.zeros(3))
    close(pair[1][1], np.ones(3))


def test_products() -> None:
    u = graphc.tensor([2.0, -1.0], dtype=graphc.float64)
    value, product = functional.vjp(f, X, u)
    close(value, f(X))
    close(product, u.numpy() @ JACOBIAN)
    close(functional.jvp(f, X, V)[1], JACOBIAN @ V.numpy())
    assert not product.requires_grad
    close(functional.hvp(energy, X, V)[1], HESSIAN @ V.numpy())
    value, product = functional.vhp(energy, X, V)
    close(value, energy(X))
    close(product, V.numpy() @ HESSIAN)
    one = graphc.tensor([3.0], dtype=graphc.float64)
    assert functional.vjp(lambda x: x**2, one)[1].tolist() == [6]
    assert functional.jvp(lambda x: x**2, one)[1].tolist() == [6]


@pytest.mark.parametrize("how", [{}, {"vectorize": True}, {"vectorize": True, "outer_jacobian_strategy": "forward-mode"}])
def test_hessian(how: dict[str, Any]) -> None:
    close(functional.hessian(energy, X, **how), HESSIAN)
    blocks = functional.hessian(lambda a, b: (a * b).sum(), (X, V), **how)
    close(blocks[0][0], np.zeros((3, 3)))
    close(blocks[0][1], np.eye(3))


def test_results_can_be_differentiated() -> None:
    x = X.clone().requires_grad_()
    functional.jacobian(lambda x: x**3, x, create_graph=True).sum().backward()
    assert x.grad is not None
    close(x.grad, 6 * X)
    y = X.clone().requires_grad_()
    functional.hvp(energy, y, V, create_graph=True)[1].sum().backward()
    assert y.grad is not None
    close(y.grad, graphc.func.grad(lambda x: (graphc.func.hessian(energy)(x) @ V).sum())(X))


@pytest.mark.parametrize("call, kind, message", [
    (lambda: functional.jacobian(lambda x: graphc.ones(2), X, strict=True), RuntimeError, "does not require gradients"),
    (lambda: functional.vjp(lambda x, y: x.sum(), (X, V), strict=True), RuntimeError, "independent of input 1"),
    (lambda: functional.jacobian(f, X, strict=True, vectorize=True), RuntimeError, "strict=True looks at one row"),
    (lambda: functional.jacobian(f, X, strategy="forward-mode"), NotImplementedError, "vectorize=True"),
    (lambda: functional.jacobian(f, X, strategy="sideways"), AssertionError, "forward-mode"),
    (lambda: functional.vjp(f, X), RuntimeError, "v can only be None"),
    (lambda: functional.vjp(f, X, V), RuntimeError, "v has invalid size"),
    (lambda: functional.jvp(f, X), RuntimeError, "v can only be None"),
    (lambda: functional.vjp(f, 3), TypeError, "inputs given to vjp must be"),
    (lambda: functional.vjp(lambda x: 3, X), TypeError, "outputs of the user-provided function given to vjp"),
    (lambda: functional.hessian(f, X), RuntimeError, "should contain a single element"),
    (lambda: functional.hvp(lambda x: (x.sum(),), X, V), RuntimeError, "should return a single Tensor"),
])
def test_misuse_is_named(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


# Dual tensors


def test_dual_tensors() -> None:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, V)
        out = forward_ad.unpack_dual(f(dual))
        close(out.primal, f(X))
        assert out.tangent is not None
        close(out.tangent, JACOBIAN @ V.numpy())
        assert not out.primal.requires_grad
        assert not out.tangent.requires_grad
        assert forward_ad.unpack_dual(X).tangent is None
        own = forward_ad.unpack_dual(dual).tangent
        assert own is not None
        close(own, V)
        both = forward_ad.unpack_dual(dual * forward_ad.make_dual(V, X)).tangent
        assert both is not None
        close(both, V * V + X * X)
    assert forward_ad.unpack_dual(f(dual)).tangent is None


def test_tangents_have_gradients() -> None:
    x = X.clone().requires_grad_()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(forward_ad.make_dual(x, V) ** 3).tangent
    assert tangent is not None
    tangent.sum().backward()
    assert x.grad is not None
    close(x.grad, 6 * X * V)


def test_levels_of_dual_tensors() -> None:
    with pytest.raises(RuntimeError, match="no level exists"):
        forward_ad.make_dual(X, V)
    with forward_ad.dual_level():
        with pytest.raises(RuntimeError, match="Nested forward mode AD"):
            forward_ad.enter_dual_level()
        with pytest.raises(RuntimeError, match="different size"):
            forward_ad.make_dual(X, V[:2])
        with pytest.raises(ValueError, match="floating point or complex"):
            forward_ad.make_dual(graphc.ones(2, dtype=graphc.int64), V[:2])
    with pytest.raises(RuntimeError, match="not the last one"):
        forward_ad.exit_dual_level()


# Checking derivatives


class Wrong(Function):
    """x * x, whose backward can be made to fail in several ways."""

    how = ""

    @staticmethod
    def forward(ctx: Any, x: graphc.Tensor) -> graphc.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, ct: graphc.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        if Wrong.how == "forgets":
            return 2 * x
        if Wrong.how == "varies":
            return 2 * x * ct * (1 + 1e-7 * graphc.rand(3).double())
        if Wrong.how == "second":
            return 2 * x.detach() * ct
        return 2 * x * ct


def test_right_derivatives_pass() -> None:
    x = X.clone().requires_grad_()
    y = V.clone().requires_grad_()
    every: dict[str, Any] = {"check_forward_ad": True, "check_batched_grad": True, "check_grad_dtypes": True}
    assert gradcheck(lambda x, y, k: (x * y.sin() * k, (x @ y).exp(), x > 0), (x, y, 2.0), **every)
    assert gradgradcheck(lambda x, y: x**2 * y.tanh(), (x, y), check_fwd_over_rev=True)
    assert gradcheck(f, x, fast_mode=True)
    assert gradgradcheck(f, x, fast_mode=True)
    Wrong.how = ""
    assert gradcheck(Wrong.apply, x)
    assert gradcheck(lambda x, y: y * 2, (x, y))


def test_complex_derivatives() -> None:
    z = graphc.tensor([0.5 + 1j, -0.3 + 0.2j], dtype=graphc.complex128, requires_grad=True)
    assert gradcheck(lambda z: (z * z, z.conj() * z, (z * z).real, z.abs()), z)
    assert gradcheck(lambda z: z * z.conj() * z, z, fast_mode=True)


@pytest.mark.parametrize("how, message", [("forgets", "Jacobian mismatch for output 0"), ("varies", "not reentrant")])
def test_wrong_derivatives_fail(how: str, message: str) -> None:
    x = X.clone().requires_grad_()
    Wrong.how = how
    with pytest.raises(GradcheckError, match=message):
        gradcheck(Wrong.apply, x)
    assert not gradcheck(Wrong.apply, x, raise_exception=False)
    if how == "forgets":
        with pytest.raises(GradcheckError, match="along a random direction"):
            gradcheck(Wrong.apply, x, fast_mode=True)
    else:
        assert gradcheck(Wrong.apply, x, nondet_tol=1e-6)


def test_wrong_second_derivatives_fail() -> None:
    Wrong.how = "second"
    x = X.clone().requires_grad_()
    assert gradcheck(Wrong.apply, x)
    with pytest.raises(GradcheckError):
        gradgradcheck(Wrong.apply, x)


def test_a_slope_that_is_not_recorded_is_found() -> None:
    with pytest.raises(GradcheckError, match="expected to be zero"):
        gradcheck(lambda x: x.detach() * 2, X.clone().requires_grad_())


def test_inputs_are_checked() -> None:
    with pytest.raises(ValueError, match="at least one input tensor to require gradient"):
        gradcheck(f, X)
    with pytest.warns(UserWarning, match="not of double precision"):
        gradcheck(lambda x: x * 1, graphc.ones(1, requires_grad=True), atol=1e-1)
    with pytest.raises(RuntimeError, match="dimension with stride 0"):
        gradcheck(lambda x: x * 1, graphc.ones(1, dtype=graphc.float64).expand(3).detach().requires_grad_())
