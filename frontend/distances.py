"""How far apart or how alike vectors are."""

from __future__ import annotations

from graphc.errors import DTypeError
from graphc.frontend.arguments import promoted
from graphc.frontend.composite import composite
from graphc.frontend.linalg_norms import norm
from graphc.frontend.movement import broadcast_tensors
from graphc.frontend.pointwise import cast, clamp
from graphc.frontend.reductions import sum
from graphc.frontend.tensor import Tensor

FUNCTIONS = "cosine_similarity pairwise_distance"


def held_above(x: Tensor, least: float) -> Tensor:
    """max(x, least) with the gradient of x everywhere."""
    flat = x.detach()
    return x + (clamp(flat, min=least) - flat)


@composite
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last dimension.

    ShapeError where the shapes do not broadcast.

    >>> F.pairwise_distance(graphc.tensor([[0.0, 0.0]]), graphc.tensor([[3.0, 4.0]]))
    tensor([5.0000])
    """
    return norm(x1 - x2 + eps, p, -1, keepdim)


@composite
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along a dimension; their lengths count as `eps` at least.

    DTypeError for integers.

    >>> F.cosine_similarity(graphc.tensor([[1.0, 0.0]]), graphc.tensor([[1.0, 1.0]]))
    tensor([0.7071])
    """
    dtype = promoted(x1, x2)
    if not dtype.is_floating_point:
        raise DTypeError(f"expected common dtype to be floating point, yet common dtype is {dtype.name}")
    left, right = broadcast_tensors(cast(x1, dtype), cast(x2, dtype))
    lengths = [held_above(norm(x, 2.0, dim, True), eps) for x in (left, right)]
    return sum((left / lengths[0]) * (right / lengths[1]), dim)
