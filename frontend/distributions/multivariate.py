"""The normal distribution of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Self

from graphc.errors import ArgumentError
from graphc.frontend.distributions.distribution import REAL, Constraint, Distribution
from graphc.frontend.linalg_factors import cholesky
from graphc.frontend.linalg_solvers import inv, solve_triangular
from graphc.frontend.movement import broadcast_to
from graphc.frontend.random import randn
from graphc.frontend.tensor import Size, Tensor
from graphc.types import broadcast_shapes

_LOWER = Constraint("LowerCholesky()", lambda x: ((x.tril() == x).all(-1).all(-1) & (x.diagonal(dim1=-2, dim2=-1) > 0).all(-1)))


class MultivariateNormal(Distribution):
    """Normal distribution of vectors with mean `loc` [..., n], and one of `covariance_matrix`, its inverse
    `precision_matrix`, and its Cholesky factor `scale_tril`, [..., n, n]. LinAlgError where a matrix is not positive
    definite.

    ArgumentError where not just one of the three is given, and for a mean without a dimension.

    >>> import graphc
    >>> d = graphc.distributions.MultivariateNormal(graphc.zeros(2), 4 * graphc.eye(2))
    >>> d.log_prob(graphc.zeros(2))
    tensor(-3.2242)
    """

    has_rsample = True
    parameters: ClassVar[dict[str, Constraint]] = {"loc": REAL, "scale_tril": _LOWER}

    def __init__(self, loc: Tensor, covariance_matrix: Tensor | None = None, precision_matrix: Tensor | None = None,
                 scale_tril: Tensor | None = None, validate_args: bool | None = None) -> None:
        if loc.dim() < 1:
            raise ArgumentError("loc must be at least one-dimensional.")
        given = {"covariance_matrix": covariance_matrix, "precision_matrix": precision_matrix, "scale_tril": scale_tril}
        found = [(name, matrix) for name, matrix in given.items() if matrix is not None]
        if len(found) != 1:
            raise ArgumentError("Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified.",
                                got=", ".join(name for name, _ in found) or "none")
        name, matrix = found[0]
        if matrix.dim() < 2:
            raise ArgumentError(f"{name} must be at least two-dimensional, [..., n, n]", got=str(list(matrix.shape)))
        if name == "precision_matrix":
            matrix = inv(matrix)
        factor = matrix if name == "scale_tril" else cholesky(matrix)
        batch = broadcast_shapes(loc.shape[:-1], factor.shape[:-2])
        self.loc = broadcast_to(loc, (*batch, loc.shape[-1]))
        self.scale_tril = broadcast_to(factor, (*batch, *factor.shape[-2:]))
        super().__init__(batch, loc.shape[-1:], validate_args)

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariances of the elements of a draw."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance matrix."""
        return inv(self.covariance_matrix)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The likeliest vector."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (self.scale_tril**2).sum(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        drawn = randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.scale_tril @ drawn.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        away = (value - self.loc).unsqueeze(-1)
        factor = broadcast_to(self.scale_tril, (*away.shape[:-2], *self.scale_tril.shape[-2:]))
        squares = (solve_triangular(factor, away, upper=False) ** 2).sum((-2, -1))
        return -0.5 * (self._event_shape[0] * math.log(2 * math.pi) + squares) - self._half_log_det()

    def entropy(self) -> Tensor:
        return 0.5 * self._event_shape[0] * (1 + math.log(2 * math.pi)) + self._half_log_det()

    def _half_log_det(self) -> Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def expand(self, batch_shape: Sequence[int]) -> Self:
        batch = Size(batch_shape)
        return type(self)(broadcast_to(self.loc, (*batch, *self._event_shape)), validate_args=False,
                          scale_tril=broadcast_to(self.scale_tril, (*batch, *self.scale_tril.shape[-2:])))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(loc: {self.loc.shape!r}, scale_tril: {self.scale_tril.shape!r})"
