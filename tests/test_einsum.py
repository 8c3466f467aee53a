"""einsum and tensordot against NumPy's, and the products that they become."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import pytest
from finite_differences import check_gradients
from matrix_samples import EITHER_KIND, array, near

import graphc

EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ij,jk->ki", (2, 3), (3, 4)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("ij,ij->", (2, 3), (2, 3)), ("ij,ij->ij", (2, 3), (2, 3)), ("i,j->ij", (2,), (3,)), ("ij,kl", (2, 3), (3, 4)),
    ("ii->i", (3, 3)), ("ii", (3, 3)), ("iij->j", (3, 3, 2)), ("iji->ij", (3, 2, 3)), ("ij->ji", (2, 3)), ("ij->", (2, 3)),
    ("ji", (2, 3)), ("...ij,...jk->...ik", (5, 1, 2, 3), (4, 3, 2)), ("...ii->...i", (2, 3, 3)), ("i...->...", (2, 3)),
    ("i...,j...->ij...", (2, 4), (3, 4)), ("ij,jk,kl->il", (2, 3), (3, 4), (4, 5)), ("ij,jk,ki->", (2, 3), (3, 4), (4, 2)),
    ("a,b,c->abc", (2,), (3,), (4,)), ("ij,j,jk->ik", (2, 3), (3,), (3, 2)), ("abc,acd->db", (2, 3, 4), (2, 4, 3)),
    ("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)), (",ij->ij", (), (2, 3)), ("->", ()), ("ab,ab,c->c", (2, 3), (2, 3), (4,)),
    ("ijk,k->", (2, 3, 4), (4,)), (" i j , j k -> i k ", (2, 3), (3, 4)), ("aB,Bc", (2, 3), (3, 4)),
    ("ij,jk->ik", (0, 3), (3, 2)), ("ij,jk->ik", (2, 0), (0, 2)),
]  # fmt: skip


@EITHER_KIND
@pytest.mark.parametrize("case", EQUATIONS, ids=lambda case: case[0])
def test_equations(kind: str, case: Any) -> None:
    equation, *shapes = case
    arrays = [np.asarray(array(*shape, kind=kind, seed=i)) for i, shape in enumerate(shapes)]
    near(graphc.einsum(equation, *map(graphc.tensor, arrays)), np.asarray(np.einsum(equation.replace(" ", ""), *arrays)))
    check_gradients(lambda *xs: graphc.einsum(equation, *xs), arrays)


def test_sizes_of_one_stretch() -> None:
    a, b = array(2, 1), array(3, 4)
    near(graphc.einsum("ij,jk->ik", graphc.tensor(a), graphc.tensor(b)), np.broadcast_to(a, (2, 3)) @ b)
    near(graphc.einsum("ij,ij->ij", graphc.tensor(a), graphc.tensor(a[:1])), a * a[:1])
    check_gradients(lambda a, b: graphc.einsum("ij,jk->ik", a, b), [a, b])


def test_numbers_in_place_of_names() -> None:
    a, b = graphc.tensor(array(2, 3)), graphc.tensor(array(3, 4))
    near(graphc.einsum(a, [0, 1], b, [1, 2], [0, 2]), (a @ b).numpy())
    near(graphc.einsum(a, [0, 1], b, [1, 2]), (a @ b).numpy())
    near(graphc.einsum(a, [..., 0], [0, ...]), a.numpy().T)
    near(graphc.einsum("ij,jk", [a, b]), (a @ b).numpy())
    near(graphc.einsum(a, [27, 26]), a.numpy().T)


@pytest.mark.parametrize("dtype", [graphc.int64, graphc.float16, graphc.bfloat16])
def test_other_dtypes(dtype: Any) -> None:
    a = graphc.arange(6).reshape(2, 3).to(dtype)
    got = graphc.einsum("ij,kj->ik", a, a)
    assert got.dtype is dtype and got.tolist() == [[5, 14], [14, 50]]


@pytest.mark.parametrize(("equation", "message"), [
    ("ii,jk", "subscript i is repeated for operand 0 but the sizes don't match, 3 != 2"),
    ("ij,jk->l", "output subscript l does not appear"), ("ij,jk->ii", "output subscript i appears more than once"),
    ("i,jk", r"the number of subscripts in the equation \(1\) does not match the number of dimensions \(2\) for operand 0"),
    ("ij", "more operands were provided"), ("ij,jk,k", "fewer operands were provided"),
    ("i.j,jk", "found '.' for operand 0 that is not part of any ellipsis"), ("......,jk", "an ellipsis was already found"),
    ("i1,jk", r"invalid subscript given at index 1 in the equation string, subscripts must be in \[a-zA-Z\]"),
    ("ij,kj", "subscript j has size 4 for operand 1 which does not broadcast with previously seen size 3"),
])  # fmt: skip
def test_what_is_refused(equation: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        graphc.einsum(equation, graphc.ones(2, 3), graphc.ones(3, 4))


def test_what_is_no_equation() -> None:
    with pytest.raises(ValueError, match="must specify the equation string and at least one operand"):
        graphc.einsum("ij")
    with pytest.raises(ValueError, match=r"not within the valid range \[0, 52\)"):
        graphc.einsum(graphc.ones(2), [52])
    with pytest.raises(RuntimeError, match="expected scalar type Float but found Long"):
        graphc.einsum("i,i", graphc.ones(2), graphc.ones(2, dtype=graphc.int64))
    with pytest.raises(TypeError, match="operand 0 must be Tensor"):
        graphc.einsum("i", [1.0])


@pytest.mark.parametrize(("equation", "shapes", "ops"), [
    ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5)), ["contract"]), ("bhqd,bkhd->bqhk", ((2, 2, 3, 4), (2, 5, 2, 4)), ["contract"]),
    ("ij,ij->ij", ((2, 3), (2, 3)), ["mul"]), ("ij->ji", ((2, 3),), ["permute"]),
    ("ijk,kl->lji", ((2, 3, 4), (4, 5)), ["contract"]),
])  # fmt: skip
def test_becomes_one_op(equation: str, shapes: Any, ops: list[str]) -> None:
    graph = graphc.trace(lambda *xs: graphc.einsum(equation, *xs), tuple(graphc.ones(shape) for shape in shapes)).ir
    assert [node.op.name for node in graph.nodes] == ops


def test_small_products_come_first() -> None:
    """Of (100 x 2)(2 x 100)(100 x 2) the last two: no matrix of 100 x 100 is made."""
    shapes = (100, 2), (2, 100), (100, 2)
    graph = graphc.trace(lambda *xs: graphc.einsum("ij,jk,kl->il", *xs), tuple(graphc.ones(s) for s in shapes)).ir
    assert max(node.result.type.size for node in graph.nodes) <= 200


def test_many_dimensions() -> None:
    names = string.ascii_letters[:20]
    x = graphc.ones((1,) * 18 + (2, 3))
    assert graphc.einsum(f"{names},{names}->{names[-1]}", x, x).tolist() == [2.0, 2.0, 2.0]
    assert graphc.einsum("...a,...a->...", x, x).shape == (1,) * 18 + (2,)


def test_compiled() -> None:
    a, b = graphc.tensor(array(2, 3, 4).astype(np.float32)), graphc.tensor(array(4, 3, 5).astype(np.float32))
    compiled = graphc.compile(lambda a, b: graphc.einsum("bij,jic->cb", a, b))
    for _ in range(2):
        near(compiled(a, b), np.einsum("bij,jic->cb", a.numpy(), b.numpy()), 1e-5)


@EITHER_KIND
@pytest.mark.parametrize(("shapes", "dims"), [
    (((2, 3, 4), (3, 4, 5)), 2), (((2, 3), (3, 4)), 1), (((2, 3), (4,)), 0), (((2, 3, 4), (4, 2, 5)), ([0, -1], [1, 0])),
    (((2, 3), (3, 2)), ([0, 1], [1, 0])), (((2, 0), (0, 3)), 1),
])  # fmt: skip
def test_tensordot(kind: str, shapes: Any, dims: Any) -> None:
    a, b = (array(*shape, kind=kind) for shape in shapes)
    near(graphc.tensordot(graphc.tensor(a), graphc.tensor(b), dims), np.tensordot(a, b, dims))
    check_gradients(lambda a, b: graphc.tensordot(a, b, dims=dims), [a, b])


def test_tensordot_refuses() -> None:
    a, b = graphc.ones(2, 3), graphc.ones(3, 4)
    for dims, message in ((-1, "expects dims >= 0"), (5, "expects dims < ndim_a or ndim_b"),
                          (2, "contracted dimensions need to match"),
                          (([0, 1], [0]), "both dimension lists should have same length")):
        with pytest.raises(RuntimeError, match=message):
            graphc.tensordot(a, b, dims)
    with pytest.raises(RuntimeError, match="both inputs should have same dtype"):
        graphc.tensordot(a, b.double(), 1)
