"""Parametrisations: weights split into size and direction, of spectral norm one, or orthogonal."""

from __future__ import annotations

from graphc.errors import ArgumentError
from graphc.frontend.creation import empty
from graphc.frontend.linalg_norms import norm
from graphc.frontend.matrices import mv
from graphc.frontend.modes import no_grad
from graphc.frontend.movement import movedim, reshape
from graphc.frontend.nn.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.utils.orthogonal import orthogonal
from graphc.frontend.nn.utils.parametrize import register_parametrization
from graphc.frontend.normalization import normalize
from graphc.frontend.reductions import sum
from graphc.frontend.tensor import Tensor


def norm_except_dim(v: Tensor, pow: int = 2, dim: int = 0) -> Tensor:
    """The norm of each slice along one dimension, which is kept as others of size 1; of all of it for dim -1."""
    if dim == -1:
        return norm(v, pow)
    rest = tuple(i for i in range(v.dim()) if i != dim % v.dim())
    return norm(v, pow, rest, keepdim=True) if rest else v.abs()


class _WeightNorm(Module):
    """v * (g / |v|), for a size g and a direction v."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return weight_v * (weight_g / norm_except_dim(weight_v, 2, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Size and direction of a weight."""
        return norm_except_dim(weight, 2, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Split a weight into its size along `dim`, `original0`, and its direction, `original1` (Salimans and Kingma 2016).

    With dim None the size is that of the whole weight.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ArgumentError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


def as_matrix(weight: Tensor, dim: int) -> Tensor:
    """A weight with `dim` first and all other dimensions as one."""
    if not -weight.dim() <= dim < weight.dim():
        raise IndexError(f"Dimension out of range (expected to be in range of [-{weight.dim()}, {weight.dim() - 1}] but got "
                         f"{dim})")
    return reshape(movedim(weight, dim, 0), (weight._data.shape[dim], -1))


def first_singular_vectors(matrix: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Estimates of the singular vectors of the largest singular value, from a random start."""
    rows, columns = matrix._data.shape
    with no_grad():
        u = normalize(empty(rows, dtype=matrix.dtype).normal_(), dim=0, eps=eps)
        v = normalize(empty(columns, dtype=matrix.dtype).normal_(), dim=0, eps=eps)
    power_iteration(matrix, u, v, 15, eps)
    return u, v


def power_iteration(matrix: Tensor, u: Tensor, v: Tensor, times: int, eps: float) -> None:
    """Bring the estimates nearer to the singular vectors, in place."""
    with no_grad():
        for _ in range(times):
            u.copy_(normalize(mv(matrix, v), dim=0, eps=eps))
            v.copy_(normalize(mv(matrix.t(), u), dim=0, eps=eps))


def divided(weight: Tensor, matrix: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """A weight, which is also given as a matrix, divided by the largest singular value."""
    # clones: the next iteration changes the estimates in place
    return weight / sum(u.clone() * mv(matrix, v.clone()))


def check_iterations(n_power_iterations: int) -> None:
    """ArgumentError unless there is an iteration."""
    if n_power_iterations <= 0:
        raise ArgumentError(f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}")


class _SpectralNorm(Module):
    """A weight divided by its largest singular value; _u and _v estimate the singular vectors."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        check_iterations(n_power_iterations)
        self.dim = dim
        self.eps = eps
        self.n_power_iterations = n_power_iterations
        if weight.dim() > 1:
            u, v = first_singular_vectors(as_matrix(weight.detach(), dim), eps)
            self.register_buffer("_u", u)
            self.register_buffer("_v", v)

    def forward(self, weight: Tensor) -> Tensor:
        if weight.dim() == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            power_iteration(matrix, self._u, self._v, self.n_power_iterations, self.eps)
        return divided(weight, matrix, self._u, self._v)

    def right_inverse(self, value: Tensor) -> Tensor:
        """The weight itself: which multiple of it was meant is not known."""
        return value


def default_dim(module: Module) -> int:
    """The dimension of a layer's weight that belongs to its outputs."""
    return 1 if isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)) else 0


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
                  dim: int | None = None) -> Module:
    """Divide a weight by its largest singular value, which power iteration estimates in training (Miyato et al. 2018).

    The weight is seen as a matrix whose rows are along `dim`: by default the dimension of the layer's outputs.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ArgumentError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    norm_ = _SpectralNorm(weight, n_power_iterations, default_dim(module) if dim is None else dim, eps)
    return register_parametrization(module, name, norm_)


__all__ = ["orthogonal", "spectral_norm", "weight_norm"]
