"""Norms, condition and rank of matrices against NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from finite_differences import check_gradients
from matrix_samples import EITHER_KIND, array, near

import graphc
from graphc import linalg


@EITHER_KIND
@pytest.mark.parametrize("order", [0, 0.5, 1, 2, 3, -1, math.inf, -math.inf])
def test_vector_norms(kind: str, order: float) -> None:
    x = array(3, 4, kind=kind)
    near(linalg.vector_norm(graphc.tensor(x), order, dim=1), np.linalg.norm(x, order, axis=1).astype(float))
    near(linalg.vector_norm(graphc.tensor(x), order), np.asarray(np.linalg.norm(x.reshape(-1), order), float))
    kept = graphc.norm(graphc.tensor(x), order, dim=1, keepdim=True)
    near(kept, np.linalg.norm(x, order, axis=1, keepdims=True).astype(float))
    if order:
        check_gradients(lambda x: linalg.vector_norm(x, order, dim=0), [x])


@pytest.mark.parametrize("order", [0.5, 1, 2, 3, -1, math.inf, -math.inf])
def test_norms_at_zero_have_no_slope(order: float) -> None:
    x = graphc.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    (slope,) = graphc.autograd.grad(linalg.vector_norm(x, order, dim=1).sum(), x, create_graph=True)
    assert slope[0].tolist() == [0.0, 0.0] and slope.isfinite().all()


@EITHER_KIND
@pytest.mark.parametrize("order", ["fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf])
def test_matrix_norms(kind: str, order: Any) -> None:
    x = array(2, 3, 4, kind=kind)
    near(linalg.matrix_norm(graphc.tensor(x), order), np.linalg.norm(x, order, axis=(1, 2)))
    kept = linalg.matrix_norm(graphc.tensor(x), order, dim=(2, 0), keepdim=True)
    near(kept, np.linalg.norm(x, order, axis=(2, 0), keepdims=True))
    near(linalg.norm(graphc.tensor(x[0]), order), np.asarray(np.linalg.norm(x[0], order)))
    check_gradients(lambda x: linalg.matrix_norm(x, order), [x])


def test_norms_of_other_dtypes() -> None:
    assert linalg.vector_norm(graphc.full((2,), 300.0, dtype=graphc.float16)).item() == pytest.approx(424.25, rel=1e-3)
    assert linalg.vector_norm(graphc.ones(2), dtype=graphc.float64).dtype is graphc.float64
    with pytest.raises(RuntimeError, match=r"Expected a floating point or complex tensor as input\. Got Long"):
        graphc.norm(graphc.ones(2, dtype=graphc.int64))
    with pytest.raises(RuntimeError, match="does not have an identity"):
        linalg.vector_norm(graphc.ones(0), math.inf)
    with pytest.raises(RuntimeError, match="Order 3 not supported"):
        linalg.norm(graphc.ones(2, 2), 3)
    with pytest.raises(RuntimeError, match=r"the input must be 1D or 2D\. Got 3D"):
        linalg.norm(graphc.ones(2, 2, 2), 2)


@EITHER_KIND
@pytest.mark.parametrize("order", [None, "fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf])
def test_cond(kind: str, order: Any) -> None:
    a = array(2, 3, 3, kind=kind)
    near(linalg.cond(graphc.tensor(a), order), np.linalg.cond(a, order))
    check_gradients(lambda a: linalg.cond(a, order), [a], order=1)
    assert linalg.cond(graphc.ones(2, 2), 1).item() == math.inf


def test_matrix_rank() -> None:
    a = np.stack([array(4, 3), array(4, 1) @ array(1, 3), np.zeros((4, 3))])
    assert linalg.matrix_rank(graphc.tensor(a)).tolist() == [3, 1, 0]
    square = graphc.diag(graphc.tensor([4.0, -2.0, 1.0]))
    assert linalg.matrix_rank(square, hermitian=True).item() == 3
    assert linalg.matrix_rank(square, atol=1.5).item() == 2
    assert linalg.matrix_rank(square, rtol=0.5).item() == 1
    assert linalg.matrix_rank(square, 1.5).item() == 2
    assert linalg.matrix_rank(square.expand(2, 3, 3), atol=graphc.tensor([0.5, 3.0])).tolist() == [3, 1]
    assert linalg.matrix_rank(graphc.ones(2, 0, 3)).tolist() == [0, 0]
