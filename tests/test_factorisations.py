"""Factorisations of matrices against NumPy, SciPy and their definitions."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from finite_differences import check_gradients
from matrix_samples import EITHER_KIND, adjoint, array, near, numpy, positive

import graphc
from graphc import linalg


@EITHER_KIND
@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3), (0, 3, 3), (0, 0)])
def test_cholesky(kind: str, shape: tuple[int, ...]) -> None:
    a = positive(*shape, kind=kind)
    lower, upper = linalg.cholesky(graphc.tensor(a)), linalg.cholesky(graphc.tensor(a), upper=True)
    near(lower, np.linalg.cholesky(a))
    near(upper, adjoint(np.linalg.cholesky(a)))
    near(graphc.cholesky(graphc.tensor(a)), numpy(lower))


def test_cholesky_reads_one_triangle() -> None:
    a = positive(3, 3)
    garbage = a + np.triu(np.full((3, 3), 7.0), 1)
    near(linalg.cholesky(graphc.tensor(garbage)), np.linalg.cholesky(a))
    near(linalg.cholesky(graphc.tensor(garbage.T.copy()), upper=True), np.linalg.cholesky(a).T)


@EITHER_KIND
def test_cholesky_gradient(kind: str) -> None:
    check_gradients(linalg.cholesky, [positive(2, 3, 3, kind=kind)], hermitian=True)
    check_gradients(lambda a: linalg.cholesky(a, upper=True), [positive(3, 3, kind=kind)], hermitian=True)


def test_not_positive_definite() -> None:
    a = graphc.tensor(np.stack([np.eye(3), np.diag([1.0, 1.0, -1.0])]))
    with pytest.raises(linalg.LinAlgError, match=r"Batch element 1.*leading minor of order 3 is not positive-definite"):
        linalg.cholesky(a)
    with pytest.raises(RuntimeError, match="leading minor of order 1"):
        graphc.cholesky(-graphc.eye(2))
    factor, info = linalg.cholesky_ex(a)
    assert info.tolist() == [0, 3] and info.dtype is graphc.int32
    near(factor[0], np.eye(3))


@EITHER_KIND
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 3), (3, 5), (0, 3, 2), (3, 0)])
def test_lu(kind: str, shape: tuple[int, ...]) -> None:
    a = array(*shape, kind=kind)
    made = linalg.lu(graphc.tensor(a))
    for got, expected in zip(made, [np.zeros(x.shape, a.dtype) for x in made] if 0 in shape else scipy_lu(a), strict=True):
        if 0 not in shape:
            near(got, expected)
        else:
            assert got.shape == expected.shape
    near(made.P @ made.L @ made.U, a)


def scipy_lu(a: np.ndarray) -> list[np.ndarray]:
    parts = [scipy.linalg.lu(m) for m in a.reshape(-1, *a.shape[-2:])]
    return [np.stack(part).reshape(*a.shape[:-2], *part[0].shape[-2:]).astype(a.dtype) for part in zip(*parts)]


@EITHER_KIND
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 3), (3, 5)])
def test_lu_gradient(kind: str, shape: tuple[int, ...]) -> None:
    check_gradients(lambda a: linalg.lu_factor(a)[0], [array(*shape, kind=kind)])
    check_gradients(lambda a: linalg.lu(a)[1:], [array(*shape, kind=kind)])


def test_singular_lu() -> None:
    a = graphc.tensor([[1.0, 2.0], [2.0, 4.0]])
    with pytest.raises(RuntimeError, match=r"U\[2,2\] is zero"):
        linalg.lu_factor(a)
    assert linalg.lu_factor_ex(a).info.item() == 2
    assert graphc.lu(a, get_infos=True)[2].item() == 2
    with pytest.raises(RuntimeError, match="LU without pivoting is not implemented on the CPU"):
        linalg.lu(a, pivot=False)


@EITHER_KIND
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("conjugated", [True, False])
def test_lu_solve(kind: str, left: bool, conjugated: bool) -> None:
    a, b = array(2, 3, 3, kind=kind), array(4, 1, 3, 3, kind=kind)
    used = adjoint(a) if conjugated else a
    expected = np.linalg.solve(used, b) if left else adjoint(np.linalg.solve(adjoint(used), adjoint(b)))

    def solved(a: Any, b: Any) -> Any:
        return linalg.lu_solve(*linalg.lu_factor(a), b, left=left, adjoint=conjugated)

    near(solved(graphc.tensor(a), graphc.tensor(b)), expected)
    check_gradients(solved, [a, b])


def test_unpacking_lu() -> None:
    a = array(2, 3, 3)
    packed, pivots = graphc.lu(graphc.tensor(a))
    P, L, U = graphc.lu_unpack(packed, pivots)
    near(P @ L @ U, a)
    assert graphc.lu_unpack(packed, pivots, unpack_pivots=False).P.shape == (0,)
    near(graphc.lu_solve(graphc.tensor(array(2, 3, 1)), packed, pivots), np.linalg.solve(a, array(2, 3, 1)))


@EITHER_KIND
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 3), (3, 5), (0, 3, 2), (3, 0)])
@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
def test_qr(kind: str, shape: tuple[int, ...], mode: str) -> None:
    a = array(*shape, kind=kind)
    Q, R = linalg.qr(graphc.tensor(a), mode)
    if mode == "r":
        assert Q.shape == (0,)
        near(R, np.linalg.qr(a, mode))
        return
    near(Q, np.linalg.qr(a, mode)[0])
    near(Q @ R, a)
    near(graphc.qr(graphc.tensor(a), some=mode == "reduced").R, numpy(R))


@EITHER_KIND
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 3), (3, 5)])
def test_qr_gradient(kind: str, shape: tuple[int, ...]) -> None:
    a = array(*shape, kind=kind)
    check_gradients(linalg.qr, [a])
    check_gradients(lambda a: linalg.qr(a)[0], [a])
    check_gradients(lambda a: linalg.qr(a)[1], [a])


def test_qr_without_derivative() -> None:
    a = graphc.tensor(array(4, 3), requires_grad=True)
    with pytest.raises(RuntimeError, match="not differentiable when mode='complete'"):
        linalg.qr(a, "complete")[1].sum().backward()
    with pytest.raises(RuntimeError, match="depends on Q"):
        linalg.qr(a, "r")[1].sum().backward()
    with pytest.raises(RuntimeError, match="unrecognized mode"):
        linalg.qr(a, "full")


@EITHER_KIND
def test_householder_products(kind: str) -> None:
    a = array(2, 5, 3, kind=kind)
    packed, tau = graphc.geqrf(graphc.tensor(a))
    Q = linalg.householder_product(packed, tau)
    near(Q, np.linalg.qr(a)[0])
    near(graphc.orgqr(packed, tau), numpy(Q))
    check_gradients(linalg.householder_product, [numpy(packed), numpy(tau)])
    whole, other = np.linalg.qr(a, "complete")[0], array(2, 5, 2, kind=kind)
    near(graphc.ormqr(packed, tau, graphc.tensor(other)), whole @ other)
    near(graphc.ormqr(packed, tau, graphc.tensor(other), transpose=True), adjoint(whole) @ other)
    near(graphc.ormqr(packed, tau, graphc.tensor(adjoint(other)), left=False), adjoint(other) @ whole)


@EITHER_KIND
def test_ldl(kind: str) -> None:
    symmetric = array(3, 3, kind=kind) + array(3, 3, kind=kind).T
    hermitian = array(2, 3, 3, kind=kind) + adjoint(array(2, 3, 3, kind=kind))
    for a, flag in ((symmetric, False), (hermitian, True)):
        LD, pivots = linalg.ldl_factor(graphc.tensor(a), hermitian=flag)
        b = array(*a.shape[:-1], 2, kind=kind)
        near(linalg.ldl_solve(LD, pivots, graphc.tensor(b), hermitian=flag), np.linalg.solve(a, b))
        solve = functools.partial(linalg.ldl_solve, LD, pivots, hermitian=flag)
        check_gradients(solve, [b], order=1)
    x = graphc.tensor(symmetric, requires_grad=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        linalg.ldl_factor(x).LD.sum().abs().backward()


# Eigenvalues and singular values


@EITHER_KIND
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (0, 3, 3), (0, 0)])
def test_eigh(kind: str, shape: tuple[int, ...]) -> None:
    a = array(*shape, kind=kind)
    for uplo in "LU":
        values, vectors = linalg.eigh(graphc.tensor(a), uplo)
        near(values, np.linalg.eigh(a, uplo)[0])
        near(linalg.eigvalsh(graphc.tensor(a), uplo), np.linalg.eigvalsh(a, uplo))
        triangle = np.tril(a, -1) if uplo == "L" else np.triu(a, 1)
        whole = triangle + adjoint(triangle) + np.eye(shape[-1]) * a.real
        near((vectors * values[..., None, :].to(vectors.dtype)) @ vectors.mH, whole.astype(a.dtype))


@EITHER_KIND
def test_eigh_gradient(kind: str) -> None:
    a = positive(2, 3, 3, kind=kind)
    weights = graphc.tensor(array(3, 3))
    check_gradients(linalg.eigvalsh, [a], hermitian=True)
    check_gradients(lambda a: (linalg.eigh(a)[0], linalg.eigh(a)[1].abs() * weights), [a], hermitian=True)


def test_gradient_of_equal_eigenvalues() -> None:
    """The sum of all is the trace, whatever becomes of the vectors."""
    a = graphc.eye(3, dtype=graphc.float64, requires_grad=True)
    linalg.eigvalsh(a).sum().backward()
    near(a.grad, np.eye(3))


@EITHER_KIND
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (0, 0)])
def test_eig(kind: str, shape: tuple[int, ...]) -> None:
    a = array(*shape, kind=kind)
    values, vectors = linalg.eig(graphc.tensor(a))
    assert values.dtype is vectors.dtype is graphc.complex128
    near(vectors * values[..., None, :], a.astype(complex) @ numpy(vectors))
    near(linalg.eigvals(graphc.tensor(a)), np.linalg.eigvals(a).astype(complex))
    assert linalg.eigvals(graphc.tensor(a.real.astype(np.float32))).dtype is graphc.complex64


@EITHER_KIND
def test_eig_gradient(kind: str) -> None:
    a = array(3, 3, kind=kind)
    check_gradients(linalg.eigvals, [a])
    check_gradients(lambda a: (linalg.eig(a)[0], linalg.eig(a)[1].abs()), [a])


@EITHER_KIND
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 3), (3, 5), (0, 3, 2), (0, 3), (0, 0)])
def test_svd(kind: str, shape: tuple[int, ...]) -> None:
    a = array(*shape, kind=kind)
    for full in (True, False):
        U, S, Vh = linalg.svd(graphc.tensor(a), full_matrices=full)
        near(S, np.linalg.svd(a, compute_uv=False))
        k = min(shape[-2:])
        assert U.shape == (*shape[:-1], shape[-2] if full else k)
        near((U[..., :k] * S[..., None, :].to(U.dtype)) @ Vh[..., :k, :], a)
        near(U.mH @ U, np.broadcast_to(np.eye(U.shape[-1], dtype=a.dtype), (*shape[:-2], U.shape[-1], U.shape[-1])))
    near(linalg.svdvals(graphc.tensor(a)), np.linalg.svd(a, compute_uv=False))


@EITHER_KIND
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 3), (3, 5)])
def test_svd_gradient(kind: str, shape: tuple[int, ...]) -> None:
    """Of what does not depend on the vectors' phases: they can turn together."""
    a = array(*shape, kind=kind)
    check_gradients(linalg.svdvals, [a])
    weights = array(shape[-2], shape[-1])

    def invariant(a: Any) -> Any:
        U, S, Vh = linalg.svd(a, full_matrices=False)
        return S, U.abs(), Vh.abs(), (U * S.exp()[..., None, :].to(U.dtype)) @ Vh * graphc.tensor(weights)

    check_gradients(invariant, [a])


def test_old_svd() -> None:
    a = array(4, 3, kind="complex")
    U, S, V = graphc.svd(graphc.tensor(a))
    near((U * S.to(U.dtype)) @ V.mH, a)
    assert graphc.svd(graphc.tensor(a), some=False).U.shape == (4, 4)
    U, S, V = graphc.svd(graphc.tensor(a), compute_uv=False)
    assert not U.any() and U.shape == (4, 4) and V.shape == (3, 3)


def test_what_does_not_converge() -> None:
    for function in (linalg.svd, linalg.eigvals):
        with pytest.raises(linalg.LinAlgError, match="non-finite values"):
            function(graphc.full((2, 2), math.nan))


@pytest.mark.parametrize(("function", "name"), [
    (linalg.svd, "LinalgSvd"), (linalg.eigh, "LinalgEigh"), (linalg.qr, "LinalgQr"), (linalg.slogdet, "LinalgSlogdet"),
])  # fmt: skip
def test_names_on_the_tape(function: Any, name: str) -> None:
    made = function(graphc.eye(2, requires_grad=True))
    assert {result.grad_fn.name() for result in made} == {f"{name}Backward0"}
    assert [result.output_nr for result in made] == list(range(len(made)))
