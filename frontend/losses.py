"""Loss functions: how far a prediction is from its target."""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, DimError, GraphcError, ShapeError
from graphc.frontend.activations import log1p_exp_of_negative, log_softmax
from graphc.frontend.arguments import emit
from graphc.frontend.composite import composite
from graphc.frontend.logic import ne
from graphc.frontend.movement import broadcast_tensors, expand, movedim, reshape, squeeze, unsqueeze
from graphc.frontend.pointwise import abs, clamp, exp, log, log1p, where
from graphc.frontend.reductions import mean, sum
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor


def reduced(loss: Tensor, reduction: str, name: str | None = None) -> Tensor:
    """The mean or the sum of the losses, or the losses themselves."""
    if reduction == "mean":
        out = mean(loss)
    elif reduction == "sum":
        out = sum(loss)
    elif reduction == "none":
        out = loss
    else:
        raise ArgumentError(f"{reduction} is not a valid value for reduction", expected="'none', 'mean' or 'sum'")
    return out if name is None else named(out, name)


def _pair(input: Tensor, target: Tensor, function: str) -> tuple[Tensor, Tensor]:
    if input.shape != target.shape:
        warnings.warn(f"Using a target size ({target.shape}) that is different to the input size ({input.shape}). This will "
                      "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
                      stacklevel=4)
        input, target = broadcast_tensors(input, target)
    return input, target


@composite
def mse_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
             weight: Tensor | None = None) -> Tensor:
    """(input - target)^2."""
    x, y = _pair(input, target, "mse_loss")
    difference = x - y
    squares = difference * difference
    if weight is not None:
        squares = squares * weight
        if reduction == "mean":
            return sum(squares) / sum(weight)
    return reduced(squares, reduction, "MseLoss")


@composite
def l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
            weight: Tensor | None = None) -> Tensor:
    """|input - target|."""
    x, y = _pair(input, target, "l1_loss")
    distances = abs(x - y)
    if weight is not None:
        distances = distances * weight
        if reduction == "mean":
            return sum(distances) / sum(weight)
    return reduced(distances, reduction)


@composite
def smooth_l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
                   beta: float = 1.0) -> Tensor:
    """Quadratic where |input - target| < beta, linear beyond."""
    if beta < 0:
        raise GraphcError("smooth_l1_loss does not support negative values for beta.")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    x, y = _pair(input, target, "smooth_l1_loss")
    distance = abs(x - y)
    return reduced(where(distance < beta, distance * distance * (0.5 / beta), distance - 0.5 * beta), reduction, "SmoothL1Loss")


@composite
def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """Half the square where |input - target| < delta, linear beyond."""
    if delta <= 0:
        raise GraphcError("huber_loss does not support non-positive values for delta.")
    x, y = _pair(input, target, "huber_loss")
    distance = abs(x - y)
    loss = where(distance < delta, distance * distance * 0.5, delta * (distance - 0.5 * delta))
    if weight is not None:
        loss = loss * weight
        if reduction == "mean":
            return sum(loss) / sum(weight)
    return reduced(loss, reduction, "HuberLoss")


@composite
def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
                         reduce: Any = None, reduction: str = "mean") -> Tensor:
    """-(y log x + (1 - y) log(1 - x)), with the logarithms no less than -100."""
    if input.shape != target.shape:
        raise ArgumentError(f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is "
                            "deprecated. Please ensure they have the same size.")
    array = input._known()
    if array is not None and not (array.min() >= 0 and array.max() <= 1):
        raise GraphcError("all elements of input should be between 0 and 1", got=f"from {array.min()} to {array.max()}",
                          hint="apply sigmoid() first, or use binary_cross_entropy_with_logits")
    loss = (target - 1) * clamp(log1p(-input), min=-100) - target * clamp(log(input), min=-100)
    if weight is not None:
        loss = loss * weight
    return reduced(loss, reduction, "BinaryCrossEntropy")


@composite
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
                                     reduce: Any = None, reduction: str = "mean",
                                     pos_weight: Tensor | None = None) -> Tensor:
    """binary_cross_entropy of sigmoid(input), without overflow."""
    if input.shape != target.shape:
        raise ArgumentError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    tail = log1p_exp_of_negative(input)
    if pos_weight is None:
        loss = (1 - target) * input + tail
    else:
        loss = (1 - target) * input + (1 + (pos_weight - 1) * target) * tail
    if weight is not None:
        loss = loss * weight
    return reduced(loss, reduction, "BinaryCrossEntropyWithLogits")


def _class_last(input: Tensor, target: Tensor, function: str) -> Tensor:
    """[C], [N, C] or [N, C, ...] with the classes as last dimension."""
    ndim = len(input._data.shape)
    if ndim == 0:
        raise ArgumentError(f"{function}: Expected 1 or more dimensions (got 0)")
    shape = tuple(input._data.shape)
    rest = shape[2:] if ndim > 1 else ()
    expected = (shape[0], *rest) if ndim > 1 else ()
    if tuple(target._data.shape) != expected:
        if ndim > 1 and target._data.shape[:1] != shape[:1]:
            raise ArgumentError(f"Expected input batch_size ({shape[0]}) to match target batch_size "
                                f"({target._data.shape[0] if target._data.shape else 'none'}).")
        raise ShapeError(f"{function}: Expected target size {list(expected)}, got {list(target.shape)}")
    return movedim(input, 1, -1) if ndim > 2 else input


@composite
def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
             ignore_index: int = -100, reduce: Any = None, reduction: str = "mean") -> Tensor:
    """-weight[target] * input[target], for log-probabilities [N, C, ...] and class indices [N, ...].

    The mean is weighted; targets equal to `ignore_index` do not count.
    """
    if target.dtype.is_floating_point:
        raise GraphcError("expected scalar type Long but found Float", hint="class indices are integers: target.long()")
    scores = _class_last(input, target, "nll_loss")
    axis = len(scores._data.shape) - 1
    classes = scores._data.shape[axis]
    _check_targets(target, classes, ignore_index)
    counts = ne(target, ignore_index)
    place = unsqueeze(where(counts, target, 0), axis)
    picked = squeeze(emit(ops.gather, (scores, place), {"axis": axis}), axis)
    if weight is None:
        weights = where(counts, 1.0, 0.0).to(input.dtype)
    else:
        if weight.numel() != classes:
            raise GraphcError(f"weight tensor should be defined either for all {classes} classes or no classes but got weight "
                              f"tensor of shape: {list(weight.shape)}")
        rows = expand(weight, scores._data.shape)
        weights = where(counts, squeeze(emit(ops.gather, (rows, place), {"axis": axis}), axis), 0.0)
    losses = where(counts, -picked * weights, 0.0)
    if reduction == "mean":
        return named(sum(losses) / sum(weights), "NllLoss")
    return reduced(losses, reduction, "NllLoss")


def _check_targets(target: Tensor, classes: Any, ignore_index: int) -> None:
    array = target._known()
    if array is None or not isinstance(classes, int):
        return
    wrong = (array != ignore_index) & ((array < 0) | (array >= classes))
    if wrong.any():
        raise DimError(f"Target {array[wrong].reshape(-1)[0]} is out of bounds.", expected=f"0 <= target < {classes}")


@composite
def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
                  ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """nll_loss of log_softmax(input), for class indices [N, ...]; or, for targets of the input's shape, the cross entropy
    with those probabilities. Smoothing moves that share of the target's probability to all classes alike."""
    if label_smoothing < 0.0 or label_smoothing > 1.0:
        raise GraphcError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    ndim = len(input._data.shape)
    axis = 0 if ndim == 1 else 1
    if target.dtype.is_floating_point:
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing, axis)
    scores = log_softmax(input, axis)
    loss = nll_loss(scores, target, weight, ignore_index=ignore_index, reduction=reduction)
    if label_smoothing == 0.0:
        return loss
    classes = input._data.shape[axis]
    counts = ne(target, ignore_index)
    weighted = scores if weight is None else scores * _spread(weight, ndim, axis)
    smooth = where(counts, -sum(weighted, axis), 0.0)
    if reduction == "mean":
        if weight is None:
            total = sum(where(counts, 1.0, 0.0))
        else:
            rows = where(counts, weight[where(counts, target, 0)], 0.0)
            total = sum(rows)
        smooth_loss = sum(smooth) / total
    else:
        smooth_loss = reduced(smooth, reduction)
    return (1 - label_smoothing) * loss + smooth_loss * (label_smoothing / classes)


def _spread(weight: Tensor, ndim: int, axis: int) -> Tensor:
    return reshape(weight, tuple(-1 if i == axis else 1 for i in range(ndim)))


def _soft_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float,
                        axis: int) -> Tensor:
    if input.shape != target.shape:
        raise GraphcError("Expected floating point type for target with class probabilities to have the shape of the input",
                          expected=str(list(input.shape)), got=str(list(target.shape)),
                          hint="targets that are class indices are integers: target.long()")
    classes = input._data.shape[axis]
    if smoothing > 0:
        target = target * (1 - smoothing) + smoothing / classes
    products = log_softmax(input, axis) * target
    if weight is not None:
        products = products * _spread(weight, input.ndim, axis)
    losses = -sum(products, axis)
    if reduction == "mean":
        return sum(losses) / (math.prod(input._data.shape) // classes if input.ndim > 1 else 1)
    return reduced(losses, reduction)


@composite
def kl_div(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
           log_target: bool = False) -> Tensor:
    """target * (log target - input), for log-probabilities; "batchmean" divides the sum by the batch size."""
    if log_target:
        loss = exp(target) * (target - input)
    else:
        zero = target == 0
        loss = where(zero, 0.0, target * log(where(zero, 1.0, target))) - target * input
    if reduction == "batchmean":
        return sum(loss) / (input._data.shape[0] if input._data.shape else 1)
    return reduced(loss, reduction)
