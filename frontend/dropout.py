"""Dropout: elements or whole channels taken away at random in training."""

from __future__ import annotations

import math
import warnings

from graphc.errors import ArgumentError, DTypeError, GraphcError
from graphc.frontend.activations import written
from graphc.frontend.arguments import need_tensor
from graphc.frontend.pointwise import where
from graphc.frontend.random import dropout_mask
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor

FUNCTIONS = """
    alpha_dropout alpha_dropout_ dropout dropout_ feature_alpha_dropout feature_alpha_dropout_ feature_dropout
    feature_dropout_
"""

_FLOOR = 1.7580993408473766
"""-lim selu(x) for x to -inf: where alpha dropout puts what it takes away."""


def _idle(input: Tensor, p: float, training: bool) -> bool:
    """Whether there is nothing to do."""
    if p < 0.0 or p > 1.0:
        raise ArgumentError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0 or 0 in input._data.shape:
        return True
    if not input.dtype.is_differentiable:
        raise DTypeError(f"result type Float can't be cast to the desired output type {input.dtype.name.capitalize()}",
                         expected="a floating-point input", hint="input.float()")
    return False


def _dropped(x: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    if p == 1:
        return x * 0.0
    return where(dropout_mask(shape, p, x.device), x * (1 / (1 - p)), 0.0)


def _alpha_dropped(x: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    """Klambauer et al. 2017, appendix: mean and variance of what selu makes stay what they are."""
    if p == 1:
        return x * 0.0
    scale = 1 / math.sqrt((_FLOOR * _FLOOR * p + 1) * (1 - p))
    return where(dropout_mask(shape, p, x.device), x, -_FLOOR) * scale + _FLOOR * scale * p


def _channels(input: Tensor) -> tuple[int, ...]:
    """The shape of one number for each channel of [N, C, ...]."""
    shape = tuple(input._data.shape)
    if len(shape) < 2:
        raise GraphcError("Feature dropout requires at least 2 dimensions in the input", got=str(list(shape)))
    return (*shape[:2], *(1,) * (len(shape) - 2))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element zeroed with probability p, the others scaled by 1 / (1 - p); the input itself when not training.

    ArgumentError for a p outside [0, 1], DTypeError for integers in training.

    >>> x = F.dropout(graphc.ones(1000), p=0.5)
    >>> sorted(set(x.tolist()))
    [0.0, 2.0]
    >>> F.dropout(graphc.ones(3), training=False)
    tensor([1., 1., 1.])
    """
    if _idle(input, p, training):
        return input
    return written(input, inplace, lambda x: named(_dropped(x, p, tuple(x._data.shape)), "Mul"))


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Dropout for networks of selu: what is taken away becomes selu's lowest value, and mean and variance are restored.

    ArgumentError for a p outside [0, 1], DTypeError for integers in training.

    >>> F.alpha_dropout(graphc.ones(3), training=False)
    tensor([1., 1., 1.])
    """
    if _idle(input, p, training):
        return input
    return written(input, inplace, lambda x: named(_alpha_dropped(x, p, tuple(x._data.shape)), "Add"))


def feature_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of [N, C, ...].

    ArgumentError for a p outside [0, 1]; in training DTypeError for integers, GraphcError for less than two dimensions.

    >>> F.dropout2d(graphc.ones(1, 2, 3, 3), training=False).shape
    graphc.Size([1, 2, 3, 3])
    """
    if _idle(input, p, training):
        return input
    return written(input, inplace, lambda x: named(_dropped(x, p, _channels(x)), "Mul"))


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Alpha dropout of whole channels of [N, C, ...].

    ArgumentError for a p outside [0, 1]; in training DTypeError for integers, GraphcError for less than two dimensions.

    >>> F.feature_alpha_dropout(graphc.ones(1, 2, 3, 3), training=False).shape
    graphc.Size([1, 2, 3, 3])
    """
    if _idle(input, p, training):
        return input
    return written(input, inplace, lambda x: named(_alpha_dropped(x, p, _channels(x)), "Add"))


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of [N, C, L] or [C, L].

    GraphcError for another number of dimensions, ArgumentError for a p outside [0, 1], DTypeError for integers in training.

    >>> F.dropout1d(graphc.ones(1, 2, 3), training=False)
    tensor([[[1., 1., 1.],
             [1., 1., 1.]]])
    """
    if need_tensor(input, "dropout1d").dim() not in (2, 3):
        raise GraphcError(f"dropout1d: Expected 2D or 3D input, but received a {input.dim()}D input. Note that dropout1d "
                          "exists to provide channel-wise dropout on inputs with 1 spatial dimension")
    return _of_channels(input, p, training, inplace, 1 if input.dim() == 2 else 2)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of [N, C, H, W].

    ArgumentError for a p outside [0, 1]; in training DTypeError for integers, GraphcError for less than two dimensions.

    >>> x = F.dropout2d(graphc.ones(1, 8, 2, 2), p=0.5)
    >>> bool((x[:, :, 0, 0] == x[:, :, 1, 1]).all())
    True
    """
    if need_tensor(input, "dropout2d").dim() not in (3, 4):
        _warn("dropout2d", input)
    elif input.dim() == 3:
        warnings.warn("dropout2d: a 3D input is taken for [N, C, L]; for one image, [C, H, W], use dropout2d on "
                      "input.unsqueeze(0)", stacklevel=2)
    return feature_dropout(input, p, training, inplace)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of [N, C, D, H, W] or [C, D, H, W].

    ArgumentError for a p outside [0, 1], DTypeError for integers in training.

    >>> F.dropout3d(graphc.ones(1, 2, 3, 3, 3), training=False).shape
    graphc.Size([1, 2, 3, 3, 3])
    """
    if need_tensor(input, "dropout3d").dim() not in (4, 5):
        _warn("dropout3d", input)
    return _of_channels(input, p, training, inplace, 2 if input.dim() == 5 else 1)


def _warn(name: str, input: Tensor) -> None:
    warnings.warn(f"{name}: Received a {input.dim()}-D input to {name}, which is deprecated and will result in an error in a "
                  "future release.", stacklevel=3)


def _of_channels(input: Tensor, p: float, training: bool, inplace: bool, lead: int) -> Tensor:
    """Dropout of all that lies at one place of the first `lead` dimensions."""
    if _idle(input, p, training):
        return input
    shape = tuple(input._data.shape)
    channels = (*shape[:lead], *(1,) * (len(shape) - lead))
    return written(input, inplace, lambda x: named(_dropped(x, p, channels), "Mul"))


def dropout_(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """`dropout`, in place.

    >>> x = graphc.ones(3)
    >>> graphc.dropout_(x, 1.0, True) is x, x
    (True, tensor([0., 0., 0.]))
    """
    return dropout(input, p, training, True)


def alpha_dropout_(input: Tensor, p: float = 0.5, training: bool = False) -> Tensor:
    """`alpha_dropout`, in place.

    >>> x = graphc.ones(3)
    >>> graphc.alpha_dropout_(x, 0.5, False) is x
    True
    """
    return alpha_dropout(input, p, training, True)


def feature_dropout_(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """`feature_dropout`, in place.

    >>> x = graphc.ones(1, 2, 3)
    >>> graphc.feature_dropout_(x, 1.0, True) is x
    True
    """
    return feature_dropout(input, p, training, True)


def feature_alpha_dropout_(input: Tensor, p: float = 0.5, training: bool = False) -> Tensor:
    """`feature_alpha_dropout`, in place.

    >>> x = graphc.ones(1, 2, 3)
    >>> graphc.feature_alpha_dropout_(x, 0.5, False) is x
    True
    """
    return feature_alpha_dropout(input, p, training, True)
