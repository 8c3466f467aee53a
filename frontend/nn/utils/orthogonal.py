"""The parametrisation of orthogonal weights."""

from __future__ import annotations

from typing import Literal

from graphc.errors import ArgumentError
from graphc.frontend.creation import zeros
from graphc.frontend.joining import cat
from graphc.frontend.limits import finfo
from graphc.frontend.linalg_factors import geqrf, householder_product
from graphc.frontend.linalg_products import matrix_exp
from graphc.frontend.linalg_solvers import solve
from graphc.frontend.logic import allclose
from graphc.frontend.modes import no_grad
from graphc.frontend.movement import expand, part, unsqueeze
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.utils.parametrize import register_parametrization
from graphc.frontend.random import randn
from graphc.frontend.reductions import sum
from graphc.frontend.tensor import Tensor
from graphc.frontend.triangles import eye, tril

Map = Literal["matrix_exp", "cayley", "householder"]


def _nearest(a: Tensor) -> Tensor:
    """An orthogonal matrix that spans what `a` does: the Q of its QR with a positive diagonal in R."""
    reflectors, tau = geqrf(a)
    return householder_product(reflectors, tau) * unsqueeze(reflectors.diagonal(dim1=-2, dim2=-1).sgn(), -2)


def _is_orthogonal(q: Tensor) -> bool:
    n, k = q._data.shape[-2:]
    return allclose(q.mH @ q, eye(k, dtype=q.dtype), atol=10 * n * finfo(q.dtype).eps)


class _Orthogonal(Module):
    """An orthogonal matrix out of any matrix X of its shape: of its lower triangle A, that is.

    exp(A - A.mH), or (I - S / 2)^-1 (I + S / 2) for S = A - A.mH, or a product of Householder reflections whose vectors are
    the columns of A; times `base` from the left, so that X = -I stands for the matrix that there was (Lezcano-Casado 2019).
    """

    base: Tensor | None

    def __init__(self, orthogonal_map: Map, use_trivialization: bool = True) -> None:
        super().__init__()
        self.orthogonal_map = orthogonal_map
        self.use_trivialization = use_trivialization
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        n, k = X._data.shape[-2:]
        wide = n < k
        if wide:
            X, n, k = X.mT, k, n
        if self.orthogonal_map == "householder":
            below = tril(X, -1)
            tau = 2.0 / (1.0 + sum(below * below, -2))
            signs = X.detach().diagonal(dim1=-2, dim2=-1).sign()
            q = householder_product(below, tau) * unsqueeze(signs, -2)
        else:
            lower = tril(X)
            if n != k:
                nothing = expand(zeros(n, n - k, dtype=X.dtype), (*X._data.shape[:-2], n, n - k))
                lower = cat([lower, nothing], -1)
            skew = lower - lower.mH
            if self.orthogonal_map == "matrix_exp":
                q = matrix_exp(skew)
            else:
                identity = eye(n, dtype=X.dtype)
                q = solve(identity - 0.5 * skew, identity + 0.5 * skew)
            q = part(q, q.dim() - 1, 0, k)
        if self.use_trivialization and self.base is not None:
            q = self.base @ q
        return q.mT if wide else q

    def right_inverse(self, Q: Tensor) -> Tensor:
        """The matrix that stands for Q, or for the orthogonal matrix next to it."""
        n, k = Q._data.shape[-2:]
        wide = n < k
        tall = Q.mT if wide else Q
        n, k = tall._data.shape[-2:]
        if not self.use_trivialization:
            if self.orthogonal_map != "householder":
                raise NotImplementedError("It is not possible to assign to the matrix exponential or the Cayley "
                                          "parametrizations when use_trivialization=False.")
            made, tau = geqrf(tall)
            # the diagonal says which columns change their sign; a reflection with tau zero is none
            diagonal = made.diagonal(dim1=-2, dim2=-1)
            diagonal.copy_(diagonal.sign() * (1 - 2 * (tau == 0).to(tau.dtype)))
            return made.mT if wide else made
        with no_grad():
            if n == k:
                base = tall.clone() if _is_orthogonal(tall) else _nearest(tall)
            else:
                base = _nearest(cat([tall, randn(*tall._data.shape[:-1], n - k, dtype=Q.dtype)], -1))
        self.base = base
        start = zeros(Q._data.shape, dtype=Q.dtype)
        start.diagonal(dim1=-2, dim2=-1).fill_(-1.0)
        return start


def orthogonal(module: Module, name: str = "weight", orthogonal_map: Map | None = None, *,
               use_trivialization: bool = True) -> Module:
    """Keep a weight orthogonal, or its rows or columns orthonormal where it is not square; a stack of weights one by one.

    orthogonal_map
        How an orthogonal matrix is made of any other: "matrix_exp" (for square ones the default), "cayley" or
        "householder" (the default otherwise).
    use_trivialization
        Whether the weight starts as the orthogonal matrix next to the present one.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ArgumentError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.dim() < 2:
        raise ArgumentError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.dim()} dimensions.")
    if orthogonal_map is None:
        square = weight._data.shape[-2] == weight._data.shape[-1]
        orthogonal_map = "matrix_exp" if square or weight.dtype.is_complex else "householder"
    if orthogonal_map not in ("matrix_exp", "cayley", "householder"):
        raise ArgumentError('orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: '
                            f"{orthogonal_map}")
    if weight.dtype.is_complex and orthogonal_map == "householder":
        raise ArgumentError("The householder parametrization does not support complex tensors.")
    return register_parametrization(module, name, _Orthogonal(orthogonal_map, use_trivialization), unsafe=True)
