"""Dropout and reshaping layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.movement import flatten, unflatten
from graphc.frontend.nn import functional as F
from graphc.frontend.nn.module import Module
from graphc.frontend.tensor import Tensor


class _Dropout(Module):
    _function: Any

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if p < 0 or p > 1:
            raise ArgumentError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._function(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training, zeroes each element with probability p and scales the others by 1 / (1 - p).

    >>> layer = nn.Dropout(p=0.5)
    >>> sorted(set(layer(graphc.ones(1000)).tolist()))
    [0.0, 2.0]
    >>> layer.eval()(graphc.ones(3))
    tensor([1., 1., 1.])
    """

    _function = staticmethod(F.dropout)


class Dropout1d(_Dropout):
    """Dropout of whole channels of [N, C, L].

    >>> nn.Dropout1d(p=1.0)(graphc.ones(1, 2, 3))
    tensor([[[0., 0., 0.],
             [0., 0., 0.]]])
    """

    _function = staticmethod(F.dropout1d)


class Dropout2d(_Dropout):
    """Dropout of whole channels of [N, C, H, W].

    >>> nn.Dropout2d().eval()(graphc.ones(1, 2, 1, 1)).flatten()
    tensor([1., 1.])
    """

    _function = staticmethod(F.dropout2d)


class Dropout3d(_Dropout):
    """Dropout of whole channels of [N, C, D, H, W].

    >>> nn.Dropout3d().eval()(graphc.ones(1, 2, 1, 1, 1)).flatten()
    tensor([1., 1.])
    """

    _function = staticmethod(F.dropout3d)


class AlphaDropout(_Dropout):
    """Dropout for networks of SELU: mean and variance stay what they are.

    >>> nn.AlphaDropout(p=0.1).eval()(graphc.ones(3))
    tensor([1., 1., 1.])
    """

    _function = staticmethod(F.alpha_dropout)


class FeatureAlphaDropout(_Dropout):
    """AlphaDropout of whole channels of [N, C, ...].

    >>> nn.FeatureAlphaDropout(p=0.1).eval()(graphc.ones(1, 2, 1)).flatten()
    tensor([1., 1.])
    """

    _function = staticmethod(F.feature_alpha_dropout)


class Flatten(Module):
    """The dimensions from start_dim to end_dim as one.

    At a call GraphcError where the first dimension comes after the last one.

    >>> nn.Flatten()(graphc.zeros(2, 3, 4)).shape
    graphc.Size([2, 12])
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One dimension as several.

    At a call GraphcError where the sizes do not multiply to that of the dimension.

    >>> nn.Unflatten(1, (3, 4))(graphc.zeros(2, 12)).shape
    graphc.Size([2, 3, 4])
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        return unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
