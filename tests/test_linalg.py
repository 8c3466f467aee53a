"""Equations, determinants and products of matrices, against NumPy, SciPy and their definitions; and what holds for all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from finite_differences import check_gradients
from matrix_samples import EITHER_KIND, array, near, numpy, positive

import graphc
from graphc import linalg
from graphc.errors import GraphcError

# Equations


@EITHER_KIND
def test_solve(kind: str) -> None:
    a, b, v = array(2, 3, 3, kind=kind), array(3, 2, kind=kind), array(2, 3, kind=kind)
    near(linalg.solve(graphc.tensor(a), graphc.tensor(b)), np.linalg.solve(a, b))
    near(linalg.solve(graphc.tensor(a), graphc.tensor(v)), np.linalg.solve(a, v[..., None])[..., 0])
    near(linalg.solve(graphc.tensor(a[0]), graphc.tensor(b).T, left=False), b.T @ np.linalg.inv(a[0]))
    check_gradients(linalg.solve, [a, b])
    check_gradients(linalg.solve, [a, v])


def test_singular_equations() -> None:
    a = graphc.stack([graphc.eye(2), graphc.ones(2, 2)])
    with pytest.raises(linalg.LinAlgError, match=r"linalg.solve: \(Batch element 1\): The solver failed"):
        linalg.solve(a, graphc.ones(2, 2))
    with pytest.raises(linalg.LinAlgError, match=r"\(Batch element 1\): The diagonal element 2 is zero"):
        linalg.inv(a)
    result, info = linalg.solve_ex(a, graphc.ones(2, 1))
    assert info.tolist() == [0, 2] and result[0].tolist() == [[1.0], [1.0]] and not result[1].isfinite().any()
    inverse, info = linalg.inv_ex(a)
    assert info.tolist() == [0, 2] and inverse[0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


@EITHER_KIND
@pytest.mark.parametrize("size", [47, 48, 150])
def test_large_equations(kind: str, size: int) -> None:
    a, b = array(2, size, size, kind=kind), array(size, 3, kind=kind)
    a[0] += size * np.eye(size)
    x = graphc.tensor(a)
    near(linalg.solve(x, graphc.tensor(b)), np.linalg.solve(a, b))
    near(linalg.solve(x.mT, graphc.tensor(b)), np.linalg.solve(a.swapaxes(1, 2), b))
    near(linalg.inv(x), np.linalg.inv(a))
    near(linalg.inv(x[0].T), np.linalg.inv(a[0].T))
    assert linalg.inv(x[:0]).shape == (0, size, size) and linalg.solve(x[0], graphc.tensor(b)[:, :0]).shape == (size, 0)
    a[1, :, 4] = 0
    x = graphc.tensor(a)
    with pytest.raises(linalg.LinAlgError, match=r"\(Batch element 1\): The diagonal element 5 is zero"):
        linalg.inv(x)
    with pytest.raises(linalg.LinAlgError, match=r"\(Batch element 1\): The solver failed"):
        linalg.solve(x, graphc.tensor(b))
    inverse, info = linalg.inv_ex(x)
    assert info.tolist() == [0, 5] and not inverse[1].isfinite().all()
    near(inverse[0], np.linalg.inv(a[0]))


@EITHER_KIND
@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3), (0, 3, 3)])
def test_inv(kind: str, shape: tuple[int, ...]) -> None:
    a = array(*shape, kind=kind)
    near(linalg.inv(graphc.tensor(a)), np.linalg.inv(a))
    near(graphc.tensor(a).inverse(), np.linalg.inv(a))
    check_gradients(linalg.inv, [a])


@EITHER_KIND
@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("unit", [True, False])
def test_solve_triangular(kind: str, upper: bool, left: bool, unit: bool) -> None:
    a, b = array(2, 3, 3, kind=kind) + 2 * np.eye(3), array(4, 1, 3, 3, kind=kind)
    used = np.triu(a, int(unit)) if upper else np.tril(a, -int(unit))
    used = used + np.eye(3) if unit else used

    def solved(a: Any, b: Any) -> Any:
        return linalg.solve_triangular(a, b, upper=upper, left=left, unitriangular=unit)

    near(solved(graphc.tensor(a), graphc.tensor(b)), np.linalg.solve(used, b) if left else b @ np.linalg.inv(used))
    check_gradients(solved, [a, b])


def test_old_triangular_solve() -> None:
    a, b = array(3, 3), array(3, 2)
    solution, copy = graphc.triangular_solve(graphc.tensor(b), graphc.tensor(a), transpose=True)
    near(solution, np.linalg.solve(np.triu(a).T, b))
    near(copy, a)


@EITHER_KIND
@pytest.mark.parametrize("upper", [True, False])
def test_cholesky_factors(kind: str, upper: bool) -> None:
    a, b = positive(2, 3, 3, kind=kind), array(3, 2, kind=kind)
    factor = np.linalg.cholesky(a, upper=upper)
    near(graphc.cholesky_solve(graphc.tensor(b), graphc.tensor(factor), upper), np.linalg.solve(a, b))
    near(graphc.cholesky_inverse(graphc.tensor(factor), upper), np.linalg.inv(a))
    check_gradients(lambda a, b: graphc.cholesky_solve(b, linalg.cholesky(a, upper=upper), upper), [a, b], hermitian=True)


@EITHER_KIND
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4), (3, 3), (0, 3), (2, 0, 0)])
def test_pinv(kind: str, shape: tuple[int, ...]) -> None:
    a = array(*shape, kind=kind)
    near(linalg.pinv(graphc.tensor(a)), np.linalg.pinv(a))
    near(graphc.pinverse(graphc.tensor(a)), np.linalg.pinv(a))
    if a.size:
        check_gradients(linalg.pinv, [a])


def test_pinv_of_less_than_full_rank() -> None:
    a = array(4, 2) @ array(2, 3)
    near(linalg.pinv(graphc.tensor(a)), np.linalg.pinv(a, rcond=1e-10), 1e-8)
    check_gradients(lambda left, right: linalg.pinv(left @ right), [array(4, 2), array(2, 3)])
    diagonal = graphc.diag(graphc.tensor([4.0, 2.0, 1.0]))
    assert linalg.pinv(diagonal, atol=1.5).diagonal().tolist() == [0.25, 0.5, 0.0]
    assert linalg.pinv(diagonal, rtol=0.5).diagonal().tolist() == [0.25, 0.0, 0.0]
    each = linalg.pinv(diagonal.expand(2, 3, 3), atol=graphc.tensor([0.0, 1.5]))
    assert each.diagonal(dim1=1, dim2=2).tolist() == [[0.25, 0.5, 1.0], [0.25, 0.5, 0.0]]
    near(linalg.pinv(graphc.tensor(positive(3, 3)), hermitian=True), np.linalg.inv(positive(3, 3)))


@EITHER_KIND
@pytest.mark.parametrize("driver", [None, "gels", "gelsy", "gelsd", "gelss"])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 4)])
def test_lstsq(kind: str, driver: str | None, shape: tuple[int, ...]) -> None:
    a, b = array(*shape, kind=kind), array(*shape[:-1], 2, kind=kind)
    made = linalg.lstsq(graphc.tensor(a), graphc.tensor(b), driver=driver)
    near(made.solution, np.linalg.pinv(a) @ b)
    if driver != "gels":
        assert (made.rank == min(shape[-2:])).all() and made.rank.shape == shape[:-2]
    if driver in ("gelsd", "gelss"):
        near(made.singular_values, np.linalg.svd(a, compute_uv=False))
    if shape == (5, 3) and driver not in (None, "gelsy"):
        near(made.residuals, (np.abs(a @ np.linalg.pinv(a) @ b - b) ** 2).sum(-2))
    else:
        assert made.residuals.shape == (0,)
    if driver in (None, "gels"):
        check_gradients(lambda a, b: linalg.lstsq(a, b, driver=driver)[:2], [a, b])


def test_lstsq_of_vectors_and_nothing() -> None:
    a, b = array(2, 4, 3), array(2, 4)
    near(linalg.lstsq(graphc.tensor(a), graphc.tensor(b)).solution, (np.linalg.pinv(a) @ b[..., None])[..., 0])
    assert linalg.lstsq(graphc.zeros(0, 3), graphc.zeros(0, 2)).solution.tolist() == [[0.0, 0.0]] * 3
    with pytest.raises(RuntimeError, match="input must have at least 2 dimensions"):
        linalg.lstsq(graphc.tensor(1.0), graphc.tensor(1.0))
    with pytest.raises(RuntimeError, match="parameter `driver` should be one of"):
        linalg.lstsq(graphc.ones(2, 2), graphc.ones(2, 2), driver="qr")


@EITHER_KIND
def test_tensor_equations(kind: str) -> None:
    a, b = array(4, 6, 8, 3, kind=kind), array(2, 3, 6, kind=kind)
    near(linalg.tensorinv(graphc.tensor(a)), np.linalg.tensorinv(a))
    sides = array(2, 3, kind=kind)
    near(linalg.tensorsolve(graphc.tensor(b), graphc.tensor(sides)), np.linalg.tensorsolve(b, sides))
    turned = np.moveaxis(b, 2, 1)
    near(linalg.tensorsolve(graphc.tensor(turned), graphc.tensor(sides), dims=(1,)), np.linalg.tensorsolve(b, sides))
    with pytest.raises(RuntimeError, match="Expected self to satisfy the requirement"):
        linalg.tensorinv(graphc.ones(2, 3, 4))


# Determinants and functions of matrices


@EITHER_KIND
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 4), (1, 1), (0, 3, 3), (0, 0)])
def test_determinants(kind: str, shape: tuple[int, ...]) -> None:
    a = array(*shape, kind=kind)
    near(graphc.det(graphc.tensor(a)), np.linalg.det(a))
    for got, expected in zip(linalg.slogdet(graphc.tensor(a)), np.linalg.slogdet(a), strict=True):
        near(got, expected)
    check_gradients(linalg.det, [a])
    if a.size:
        check_gradients(linalg.slogdet, [a])


@pytest.mark.parametrize("matrix", [
    [[1.0, 2.0], [2.0, 4.0]], np.ones((3, 3)), np.zeros((3, 3)), np.diag([1.0, 1.0, 0.0]), np.eye(4),
])  # fmt: skip
def test_det_of_singular_and_of_plain_matrices(matrix: Any) -> None:
    """Its gradient is the matrix of cofactors, which takes no inverse; nor does the gradient's."""
    check_gradients(linalg.det, [np.array(matrix)])


def test_logdet() -> None:
    a = graphc.stack([graphc.eye(2) * 2, graphc.tensor([[0.0, 1.0], [1.0, 0.0]]), graphc.zeros(2, 2)])
    got = graphc.logdet(a)
    assert got[0].item() == pytest.approx(math.log(4)) and got[1].isnan() and got[2].item() == -math.inf
    check_gradients(graphc.logdet, [positive(2, 3, 3)])
    check_gradients(lambda a: graphc.logdet(a), [positive(3, 3, kind="complex")])


@EITHER_KIND
@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3), (0, 3, 3), (1, 1), (0, 0)])
def test_matrix_exp(kind: str, shape: tuple[int, ...]) -> None:
    a = array(*shape, kind=kind)
    near(linalg.matrix_exp(graphc.tensor(a)), scipy.linalg.expm(a) if a.size else a)
    if a.size:
        check_gradients(graphc.matrix_exp, [a])


@EITHER_KIND
@pytest.mark.parametrize("n", [-3, -1, 0, 1, 2, 7])
def test_matrix_power(kind: str, n: int) -> None:
    a = array(2, 3, 3, kind=kind)
    near(linalg.matrix_power(graphc.tensor(a), n), np.linalg.matrix_power(a, n), 1e-8)
    check_gradients(lambda a: linalg.matrix_power(a, n), [a * 0.5 if n > 0 else a], order=2 if n else 1)


def test_vander() -> None:
    x = array(2, 3)
    near(linalg.vander(graphc.tensor(x)), x[..., None] ** np.arange(3))
    near(linalg.vander(graphc.tensor(x), N=5), x[..., None] ** np.arange(5))
    assert linalg.vander(graphc.tensor([1, 2, 3]), N=2).tolist() == [[1, 1], [1, 2], [1, 3]]
    check_gradients(lambda x: linalg.vander(x, N=4), [np.array([0.0, 1.5, -2.0])])
    with pytest.raises(RuntimeError, match="N must be greater than 1"):
        linalg.vander(graphc.ones(3), N=1)


# Products


@EITHER_KIND
def test_multi_dot(kind: str) -> None:
    factors = [array(*shape, kind=kind) for shape in ((2, 4), (4, 3), (3, 5), (5, 3))]
    near(linalg.multi_dot([graphc.tensor(a) for a in factors]), np.linalg.multi_dot(factors))
    near(graphc.chain_matmul(*map(graphc.tensor, factors)), np.linalg.multi_dot(factors))
    ends = [array(4, kind=kind), *factors[1:3], array(5, kind=kind)]
    near(linalg.multi_dot([graphc.tensor(a) for a in ends]), ends[0] @ ends[1] @ ends[2] @ ends[3])
    check_gradients(lambda *xs: linalg.multi_dot(xs), factors)


def test_multi_dot_takes_the_cheapest_order() -> None:
    factors = graphc.ones(50, 2), graphc.ones(2, 50), graphc.ones(50, 3)
    graph = graphc.trace(lambda *given: linalg.multi_dot(given), factors).ir
    shapes = [node.result.shape for node in graph.nodes if node.op.name in ("matmul", "contract")]
    assert shapes == [(2, 3), (50, 3)]


@EITHER_KIND
def test_vecdot_and_vdot(kind: str) -> None:
    x, y = array(2, 3, kind=kind), array(3, kind=kind)
    near(linalg.vecdot(graphc.tensor(x), graphc.tensor(y)), (x.conj() * y).sum(-1))
    near(graphc.vdot(graphc.tensor(y), graphc.tensor(x[0])), np.vdot(y, x[0]))
    near(graphc.dot(graphc.tensor(y), graphc.tensor(x[0])), y @ x[0])
    check_gradients(linalg.vecdot, [x, y])
    check_gradients(graphc.vdot, [y, x[0]])


@EITHER_KIND
def test_cross(kind: str) -> None:
    x, y = array(4, 3, kind=kind), array(1, 3, kind=kind)
    near(linalg.cross(graphc.tensor(x), graphc.tensor(y)), np.cross(x, y))
    near(linalg.cross(graphc.tensor(x.T.copy()), graphc.tensor(y.T.copy()), dim=0), np.cross(x, y).T)
    check_gradients(linalg.cross, [x, y])
    with pytest.raises(RuntimeError, match=r"must have length 3\. Got 4 and 4"):
        linalg.cross(graphc.ones(3, 4), graphc.ones(3, 4))


def test_diagonal() -> None:
    x = graphc.arange(24).reshape(2, 3, 4)
    assert linalg.diagonal(x).tolist() == [[0, 5, 10], [12, 17, 22]]
    assert linalg.diagonal(x, offset=1, dim1=0, dim2=1).shape == (4, 2)


# In general


@pytest.mark.parametrize("function", [
    linalg.cholesky, linalg.inv, linalg.det, linalg.slogdet, linalg.eigh, linalg.eigvalsh, linalg.eig, linalg.eigvals,
    linalg.matrix_exp, graphc.logdet,
])  # fmt: skip
def test_only_square_matrices(function: Callable[..., Any]) -> None:
    with pytest.raises(RuntimeError, match="A must be batches of square matrices, but they are 2 by 3 matrices"):
        function(graphc.ones(2, 3))
    with pytest.raises(RuntimeError, match="must have at least 2 dimensions"):
        function(graphc.ones(3))
    with pytest.raises(RuntimeError, match=r"Expected a floating point or complex tensor as input\. Got Long"):
        function(graphc.ones(2, 2, dtype=graphc.int64))
    with pytest.raises(RuntimeError, match=r"Low precision dtypes not supported\. Got Half"):
        function(graphc.ones(2, 2, dtype=graphc.float16))


@pytest.mark.parametrize(("name", "instead"), [
    ("eig", "eig"), ("symeig", "eigh"), ("solve", "solve"), ("lstsq", "lstsq"), ("matrix_rank", "matrix_rank"),
])  # fmt: skip
def test_removed_functions_say_what_to_use(name: str, instead: str) -> None:
    with pytest.raises(GraphcError, match=rf"is now removed[^$]*graphc\.linalg\.{instead}"):
        getattr(graphc, name)(graphc.ones(2, 2), *([graphc.ones(2, 2)] if name in ("solve", "lstsq") else []))


def test_results_have_names_and_can_be_written_into_tensors() -> None:
    a = graphc.tensor(positive(3, 3))
    out = graphc.empty(3, 3, dtype=graphc.float64)
    assert linalg.inv(a, out=out) is out
    near(out, np.linalg.inv(numpy(a)))
    pair = graphc.empty(3, dtype=graphc.float64), graphc.empty(3, 3, dtype=graphc.float64)
    made = linalg.eigh(a, out=pair)
    assert made.eigenvalues is pair[0] and made.eigenvectors is pair[1]
    near(pair[0], np.linalg.eigvalsh(numpy(a)))
    assert repr(linalg.slogdet(graphc.eye(2))).startswith("graphc.return_types.linalg_slogdet(\nsign=")


def test_transposed_and_strided_operands() -> None:
    a, b = array(6, 3), array(2, 3)
    x = graphc.tensor(a)[::2].T
    near(linalg.inv(x), np.linalg.inv(a[::2].T))
    near(linalg.solve(x, graphc.tensor(b).T), np.linalg.solve(a[::2].T, b.T))


COMPILED: dict[str, Callable[[Any], Any]] = {
    "cholesky": lambda a: linalg.cholesky(a @ a.mT + graphc.eye(3)),
    "lu": lambda a: linalg.lu(a)[2],
    "qr": lambda a: linalg.qr(a)[1],
    "svd": lambda a: linalg.svd(a)[1],
    "eigvalsh": linalg.eigvalsh,
    "solve": lambda a: linalg.solve(a, a.sin()),
    "det": linalg.det,
    "pinv": linalg.pinv,
    "lstsq": lambda a: linalg.lstsq(a, a + 1).solution,
    "matrix_exp": linalg.matrix_exp,
    "norm": lambda a: linalg.norm(a, 2),
    "cond": lambda a: linalg.cond(a, "fro"),
}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_with_gradients(name: str) -> None:
    """One graph: nothing here looks at numbers while it is traced."""
    function = COMPILED[name]
    x = graphc.tensor(array(3, 3).astype(np.float32), requires_grad=True)
    y = graphc.tensor(numpy(x), requires_grad=True)
    compiled = graphc.compile(function, fullgraph=True)
    for _ in range(2):
        expected, got = function(x), compiled(y)
        near(got, numpy(expected), 1e-4)
        (slope,) = graphc.autograd.grad(expected.sum(), x)
        (found,) = graphc.autograd.grad(got.sum(), y)
        near(found, numpy(slope), 2e-3)


def test_errors_of_compiled_functions() -> None:
    compiled = graphc.compile(lambda a: linalg.inv(a) * 2)
    assert compiled(graphc.eye(2)).tolist() == [[2.0, 0.0], [0.0, 2.0]]
    for _ in range(2):
        with pytest.raises(linalg.LinAlgError, match="singular"):
            compiled(graphc.ones(2, 2))


MAPPED: dict[str, Callable[..., Any]] = {
    "solve": linalg.solve,
    "solve_triangular": lambda a, b: linalg.solve_triangular(a, b, upper=True),
    "lu_solve": lambda a, b: linalg.lu_solve(*linalg.lu_factor(a), b),
    "lstsq": lambda a, b: linalg.lstsq(a, b).solution,
    "pinv": lambda a, b: linalg.pinv(a) @ b,
    "svdvals": lambda a, b: linalg.svdvals(a) + b.sum(),
    "cond": lambda a, b: linalg.cond(a, 1) + b.sum(),
    "einsum": lambda a, b: graphc.einsum("ij,jk->ki", a, b),
}


@pytest.mark.parametrize("name", MAPPED)
@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)])
def test_mapped_over_a_batch(name: str, dims: Any) -> None:
    function = MAPPED[name]
    a, b = (graphc.tensor(array(*shape)) for shape in ((4, 3, 3), (4, 3, 2)))
    given = [x if d == 0 else x[0] for x, d in zip((a, b), dims)]
    got = graphc.func.vmap(function, in_dims=dims)(*given)
    expected = [function(*(x[i] if d == 0 else x for x, d in zip(given, dims))) for i in range(4)]
    near(got, numpy(graphc.stack(expected)), 1e-9)


def test_sums_of_products_stretch_to_the_product_alone() -> None:
    for function, shapes in ((graphc.addmm, ((3,), (2, 3), (3, 2))), (graphc.addmv, ((3, 2), (2, 3), (3,))),
                             (graphc.baddbmm, ((5, 2, 2, 2), (2, 2, 3), (2, 3, 2)))):
        with pytest.raises(RuntimeError, match="size"):
            function(*(graphc.ones(shape) for shape in shapes))
    half = graphc.addmm(graphc.ones(2), graphc.ones(2, 300), graphc.full((300, 2), 7.0), beta=-2000.0, alpha=1.0)
    got = graphc.addmm(*(x.to(graphc.bfloat16) for x in (graphc.ones(2), graphc.ones(2, 300), graphc.full((300, 2), 7.0))),
                       beta=-2000.0)
    assert got.tolist() == half.to(graphc.bfloat16).tolist() == [[100.0, 100.0], [100.0, 100.0]]
