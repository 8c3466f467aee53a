"""Loss functions: how far a prediction is from its target."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, DimError, DTypeError, GraphcError, ShapeError
from graphc.frontend.activations import log1p_exp_of_negative, log_softmax
from graphc.frontend.arguments import emit
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.creation_like import full_like
from graphc.frontend.distances import held_above
from graphc.frontend.logic import ne
from graphc.frontend.matrices import linear
from graphc.frontend.movement import broadcast_tensors, expand, movedim, reshape, squeeze, unsqueeze
from graphc.frontend.pointwise import abs, cast, clamp, exp, log, log1p, where
from graphc.frontend.reductions import mean, sum
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import int64, uint8


def legacy(reduction: str, size_average: Any, reduce: Any) -> str:
    """The reduction that the two flags of old say, or the one given."""
    if size_average is None and reduce is None:
        return reduction
    chosen = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn(f"size_average and reduce args will be deprecated, please use reduction='{chosen}' instead.", stacklevel=4)
    return chosen


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


def _weighted(loss: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """Losses times their weights; the mean divides by the sum of the weights."""
    if weight.shape != loss.shape:
        raise ArgumentError("Weights and input must have the same size.", expected=str(list(loss.shape)),
                            got=str(list(weight.shape)))
    return sum(loss * weight) / sum(weight) if reduction == "mean" else reduced(loss * weight, reduction)


def _pair(input: Tensor, target: Tensor, function: str) -> tuple[Tensor, Tensor]:
    if input.shape != target.shape:
        warnings.warn(f"Using a target size ({target.shape}) that is different to the input size ({input.shape}). This will "
                      "likely lead to incorrect results due to broadcasting. Please ensure they have the same size.",
                      stacklevel=4)
        input, target = broadcast_tensors(input, target)
    return input, target


@full_precision
@composite
def mse_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
             weight: Tensor | None = None) -> Tensor:
    """(input - target)^2: its mean, its sum, or all of them, as `reduction` "mean", "sum" or "none" says.

    ShapeError where the shapes do not broadcast, ArgumentError for weights of another shape and for another reduction.

    >>> F.mse_loss(graphc.tensor([1.0, 2.0]), graphc.tensor([1.0, 4.0]))
    tensor(2.)
    >>> F.mse_loss(graphc.tensor([1.0, 2.0]), graphc.tensor([1.0, 4.0]), reduction="none")
    tensor([0., 4.])
    """
    x, y = _pair(input, target, "mse_loss")
    difference = x - y
    squares = difference * difference
    chosen = legacy(reduction, size_average, reduce)
    return reduced(squares, chosen, "MseLoss") if weight is None else _weighted(squares, weight, chosen)


@full_precision
@composite
def l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
            weight: Tensor | None = None) -> Tensor:
    """|input - target|.

    ShapeError where the shapes do not broadcast, ArgumentError for weights of another shape and for another reduction.

    >>> F.l1_loss(graphc.tensor([1.0, 2.0]), graphc.tensor([1.0, 4.0]))
    tensor(1.)
    """
    x, y = _pair(input, target, "l1_loss")
    distances = abs(x - y)
    chosen = legacy(reduction, size_average, reduce)
    return reduced(distances, chosen) if weight is None else _weighted(distances, weight, chosen)


@full_precision
@composite
def smooth_l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
                   beta: float = 1.0) -> Tensor:
    """Quadratic where |input - target| < beta, linear beyond.

    GraphcError for a negative beta.

    >>> F.smooth_l1_loss(graphc.tensor([0.5, 3.0]), graphc.tensor([0.0, 0.0]), reduction="none")
    tensor([0.1250, 2.5000])
    """
    if beta < 0:
        raise GraphcError("smooth_l1_loss does not support negative values for beta.", got=str(beta))
    reduction = legacy(reduction, size_average, reduce)
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    x, y = _pair(input, target, "smooth_l1_loss")
    distance = abs(x - y)
    far = distance >= beta
    near = where(far, 0.0, distance)  # the square of what is infinite would make nan of a slope of 0
    return reduced(where(far, distance - 0.5 * beta, near * near * (0.5 / beta)), reduction, "SmoothL1Loss")


@full_precision
@composite
def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """Half the square where |input - target| < delta, linear beyond.

    GraphcError for a delta that is not positive; ShapeError where the shapes do not broadcast, ArgumentError for weights of
    another shape and for another reduction.

    >>> F.huber_loss(graphc.tensor([0.5, 3.0]), graphc.tensor([0.0, 0.0]), reduction="none")
    tensor([0.1250, 2.5000])
    """
    if delta <= 0:
        raise GraphcError("huber_loss does not support non-positive values for delta.", got=str(delta))
    x, y = _pair(input, target, "huber_loss")
    distance = abs(x - y)
    far = distance >= delta
    near = where(far, 0.0, distance)  # the square of what is infinite would make nan of a slope of 0
    loss = where(far, delta * (distance - 0.5 * delta), near * near * 0.5)
    return reduced(loss, reduction, "HuberLoss") if weight is None else _weighted(loss, weight, reduction)


@full_precision
def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
                         reduce: Any = None, reduction: str = "mean") -> Tensor:
    """-(y log x + (1 - y) log(1 - x)), with the logarithms no less than -100, and their slopes no more than 1e12.

    ArgumentError where the shapes differ, GraphcError for an input outside of 0 to 1; DTypeError where the dtypes differ.

    >>> F.binary_cross_entropy(graphc.tensor([0.5, 0.9]), graphc.tensor([1.0, 1.0]))
    tensor(0.3993)
    """
    if input.shape != target.shape:
        raise ArgumentError(f"Using a target size ({target.shape}) that is different to the input size ({input.shape}) is "
                            "deprecated. Please ensure they have the same size.")
    if target.dtype is not input.dtype:
        raise DTypeError(f"Found dtype {target.dtype.name} but expected {input.dtype.name}",
                         hint="targets are probabilities: target.to(input.dtype)")
    array = input._known()
    if array is not None and array.size and not (array.min() >= 0 and array.max() <= 1):
        raise GraphcError("all elements of input should be between 0 and 1", got=f"from {array.min()} to {array.max()}",
                          hint="apply sigmoid() first, or use binary_cross_entropy_with_logits")
    return _binary_cross_entropy(input, target, weight, legacy(reduction, size_average, reduce))


@composite
def _binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    loss = (target - 1) * _bounded(lambda x: log1p(-x), input, 1) - target * _bounded(log, input, 0)
    if weight is not None:
        loss = loss * weight
    return reduced(loss, reduction, "BinaryCrossEntropy")


def _bounded(logarithm: Callable[[Tensor], Tensor], x: Tensor, pole: int) -> Tensor:
    """A logarithm that is -inf at the pole, 0 or 1: no less than -100, and of the slope 1e12 nearer than 1e-12 to the pole."""
    flat = x.detach()
    near = abs(flat - pole) < 1e-12
    bound = clamp(logarithm(flat), min=-100) + (x - flat) * (1e12 * (1 - 2 * pole))
    return where(near, bound, logarithm(where(near, 1.0 - pole, x)))


@full_precision
@composite
def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
                                     reduce: Any = None, reduction: str = "mean",
                                     pos_weight: Tensor | None = None) -> Tensor:
    """binary_cross_entropy of sigmoid(input), without overflow.

    ArgumentError where the shapes differ.

    >>> F.binary_cross_entropy_with_logits(graphc.tensor([0.0, 1000.0]), graphc.tensor([1.0, 1.0]), reduction="none")
    tensor([0.6931, 0.0000])
    """
    if input.shape != target.shape:
        raise ArgumentError(f"Target size ({target.shape}) must be the same as input size ({input.shape})")
    tail = log1p_exp_of_negative(input)
    if pos_weight is None:
        loss = (1 - target) * input + tail
    else:
        loss = (1 - target) * input + (1 + (pos_weight - 1) * target) * tail
    if weight is not None:
        loss = loss * weight
    return reduced(loss, legacy(reduction, size_average, reduce), "BinaryCrossEntropyWithLogits")


@full_precision
def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
             ignore_index: int = -100, reduce: Any = None, reduction: str = "mean") -> Tensor:
    """-weight[target] * input[target], for log-probabilities [N, C, ...] and class indices [N, ...].

    The mean is weighted; targets equal to `ignore_index` do not count.

    ShapeError where the target's shape does not fit and ArgumentError where the numbers of samples differ, DimError for a class
    that there is not, GraphcError for a target that is not of int64 or uint8 and for weights of another number of classes.

    >>> F.nll_loss(graphc.tensor([[0.25, 0.75]]).log(), graphc.tensor([1]))
    tensor(0.2877)
    """
    chosen = legacy(reduction, size_average, reduce)
    target = _checked_classes(input, target, weight, ignore_index, "nll_loss")
    return _nll_loss(input, target, weight, ignore_index, chosen)


def _checked_classes(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, function: str) -> Tensor:
    """The class indices as int64, after a look at whether they fit the input."""
    shape = tuple(input._data.shape)
    if not shape:
        raise ArgumentError("Expected 1 or more dimensions (got 0)", got=f"{function} of a 0-dimensional input")
    if target.dtype is not int64 and target.dtype is not uint8:
        raise GraphcError(f"expected target dtype to be Long or Byte, but got {target.dtype.name.capitalize()}",
                          hint="class indices are integers: target.long()")
    expected = (shape[0], *shape[2:]) if len(shape) > 1 else ()
    if tuple(target._data.shape) != expected:
        if len(shape) > 1 and target._data.shape[:1] != shape[:1]:
            raise ArgumentError(f"Expected input batch_size ({shape[0]}) to match target batch_size "
                                f"({target._data.shape[0] if target._data.shape else 'none'}).")
        if len(shape) < 3 and target.dim() > 1:
            raise ShapeError("0D or 1D target tensor expected, multi-target not supported", got=str(list(target.shape)))
        raise ShapeError(f"Expected target size {list(expected)}, got {list(target.shape)}")
    classes = shape[0 if len(shape) == 1 else 1]
    if weight is not None and tuple(weight._data.shape) != (classes,):
        raise GraphcError(f"weight tensor should be defined either for all {classes} classes or no classes but got weight "
                          f"tensor of shape: {list(weight.shape)}")
    array = target._known()
    # as numbers without signs, negative ones are large
    if array is not None and isinstance(classes, int) and not (array.view(f"u{array.itemsize}") < classes).all():
        wrong = (array != ignore_index) & ((array < 0) | (array >= classes))
        if wrong.any():
            raise DimError(f"Target {array[wrong].reshape(-1)[0]} is out of bounds.", expected=f"0 <= target < {classes}")
    return cast(target, int64)


@composite
def _nll_loss(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str) -> Tensor:
    scores = movedim(input, 1, -1) if input.dim() > 2 else input
    axis = len(scores._data.shape) - 1
    counts = ne(target, ignore_index)
    place = unsqueeze(where(counts, target, 0), axis)
    picked = squeeze(emit(ops.gather, (scores, place), {"axis": axis}), axis)
    if weight is None:
        weights = cast(counts, input.dtype)
    else:
        rows = expand(weight, scores._data.shape)
        weights = where(counts, squeeze(emit(ops.gather, (rows, place), {"axis": axis}), axis), 0.0)
    losses = where(counts, -picked * weights, 0.0)
    if reduction == "mean":
        return named(sum(losses) / sum(weights), "NllLoss")
    return reduced(losses, reduction, "NllLoss")


@full_precision
def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
                  ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """nll_loss of log_softmax(input), for class indices [N, ...]; or, for targets of the input's shape, the cross entropy
    with those probabilities. Smoothing moves that share of the target's probability to all classes alike.

    GraphcError for a label smoothing outside of 0 to 1, and for probabilities with an `ignore_index`. It is also for weights of
    another number of classes; ShapeError and ArgumentError where the target's shape does not fit, DimError for a class that
    there is not.

    >>> F.cross_entropy(graphc.tensor([[0.0, 0.0], [10.0, 0.0]]), graphc.tensor([1, 0]), reduction="none")
    tensor([6.9315e-01, 4.5418e-05])
    >>> F.cross_entropy(graphc.tensor([[0.0, 0.0]]), graphc.tensor([[0.5, 0.5]]))
    tensor(0.6931)
    """
    chosen = legacy(reduction, size_average, reduce)
    if label_smoothing < 0.0 or label_smoothing > 1.0:
        raise GraphcError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if input.shape == target.shape:
        if not target.dtype.is_floating_point:
            raise GraphcError("Expected floating point type for target with class probabilities, got "
                              f"{target.dtype.name.capitalize()}", hint="class indices have no dimension for the classes")
        if ignore_index >= 0:
            raise GraphcError("ignore_index is not supported for floating point target", got=str(ignore_index))
        classes = input._data.shape[0 if input.dim() == 1 else 1] if input.dim() else 1
        if weight is not None and tuple(weight._data.shape) != (classes,):
            raise GraphcError(f"cross_entropy: weight tensor should be defined either for all {classes} classes or no classes "
                              f"but got weight tensor of shape: {list(weight.shape)}")
        return _soft_cross_entropy(input, target, weight, chosen, label_smoothing)
    target = _checked_classes(input, target, weight, ignore_index, "cross_entropy")
    return _cross_entropy(input, target, weight, ignore_index, chosen, label_smoothing)


@composite
def _cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str,
                   label_smoothing: float) -> Tensor:
    ndim = len(input._data.shape)
    axis = 0 if ndim == 1 else 1
    scores = log_softmax(input, axis)
    loss = _nll_loss(scores, target, weight, ignore_index, reduction)
    if label_smoothing == 0.0:
        return loss
    counts = ne(target, ignore_index)
    smooth = where(counts, -sum(scores if weight is None else scores * _spread(weight, ndim, axis), axis), 0.0)
    if reduction == "mean":
        shares = cast(counts, input.dtype) if weight is None else where(counts, weight[where(counts, target, 0)], 0.0)
        smooth_loss = sum(smooth) / sum(shares)
    else:
        smooth_loss = reduced(smooth, reduction)
    return (1 - label_smoothing) * loss + smooth_loss * (label_smoothing / input._data.shape[axis])


def _spread(weight: Tensor, ndim: int, axis: int) -> Tensor:
    return reshape(weight, tuple(-1 if i == axis else 1 for i in range(ndim)))


@composite
def _soft_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float) -> Tensor:
    axis = 0 if input.dim() == 1 else 1
    classes = input._data.shape[axis]
    if smoothing > 0:
        target = target * (1 - smoothing) + smoothing / classes
    products = log_softmax(input, axis) * target
    if weight is not None:
        products = products * _spread(weight, input.ndim, axis)
    losses = -sum(products, axis)
    return sum(losses) / math.prod(losses._data.shape) if reduction == "mean" else reduced(losses, reduction)


def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None,
                         weight: Tensor | None = None, reduction: str = "mean", ignore_index: int | None = None,
                         label_smoothing: float = 0.0, options: Any = None) -> Tensor:
    """cross_entropy of linear(input, linear_weight, linear_bias), for input [N, in] or [in] and weights [C, ..., in].

    Further dimensions of the weights are those of the target: [N, ...] or, for probabilities, [N, C, ...]. `options` is
    for implementations that work in chunks to save memory, and changes no result.

    ShapeError where the sizes do not fit, GraphcError for probabilities with an `ignore_index`.

    >>> F.linear_cross_entropy(graphc.ones(1, 2), graphc.zeros(3, 2), graphc.tensor([0]))
    tensor(1.0986)
    """
    if input.dim() not in (1, 2):
        raise ShapeError(f"expected input with dimensionality 1 or 2, got {input.dim()}")
    if linear_weight.dim() < 2:
        raise ShapeError(f"expected linear_weight with dimensionality at least 2, got {linear_weight.dim()}")
    *outer, features = linear_weight._data.shape
    if input._data.shape[-1] != features:
        raise ShapeError("expected equal input and linear_weight last dimensions (in_features), got "
                         f"{input._data.shape[-1]} and {features}, respectively")
    if linear_bias is not None and tuple(linear_bias._data.shape) != tuple(outer):
        raise ShapeError(f"expected linear_bias shape {tuple(outer)}, got {tuple(linear_bias.shape)}")
    if len(outer) > 1 and input.dim() == 1:
        raise ShapeError(f"K-dimensional loss defined by linear_weight shape {list(linear_weight.shape)} requires batched "
                         f"input, (N, {features}), got unbatched input with shape {list(input.shape)}")
    flat_bias = None if linear_bias is None else reshape(linear_bias, (-1,))
    rows = linear(input, reshape(linear_weight, (math.prod(outer), features)), flat_bias)
    logits = reshape(rows, (*input._data.shape[:-1], *outer))
    if target.shape == logits.shape and ignore_index is not None:
        raise GraphcError("ignore_index cannot be specified when target contains probabilities", got=str(ignore_index))
    return cross_entropy(logits, target, weight, ignore_index=-100 if ignore_index is None else ignore_index,
                         reduction=reduction, label_smoothing=label_smoothing)


@full_precision
@composite
def kl_div(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
           log_target: bool = False) -> Tensor:
    """target * (log target - input), for log-probabilities; "batchmean" divides the sum by the batch size.

    ShapeError where the shapes do not broadcast, ArgumentError for another reduction.

    >>> F.kl_div(graphc.tensor([[0.5, 0.5]]).log(), graphc.tensor([[0.25, 0.75]]), reduction="batchmean")
    tensor(0.1308)
    """
    if log_target:
        loss = exp(target) * (target - input)
    else:
        zero = target == 0
        loss = where(zero, 0.0, target * log(where(zero, 1.0, target))) - target * input
    if reduction == "batchmean":
        return sum(loss) / (input._data.shape[0] if input._data.shape else 1)
    return reduced(loss, legacy(reduction, size_average, reduce))


@full_precision
@composite
def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, size_average: Any = None,
                     eps: float = 1e-8, reduce: Any = None, reduction: str = "mean") -> Tensor:
    """The rate less target * log(rate), where the input is the rate or its logarithm. `full` adds Stirling's approximation
    of log(target!) for targets above 1.

    ShapeError where the shapes do not broadcast, ArgumentError for another reduction.

    >>> F.poisson_nll_loss(graphc.tensor([0.0]), graphc.tensor([2.0]))
    tensor(1.)
    """
    loss = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        large = target > 1
        count = where(large, target, 1)
        loss = loss + where(large, count * log(count) - count + 0.5 * log(2 * math.pi * count), 0.0)
    return reduced(loss, legacy(reduction, size_average, reduce))


def gaussian_nll_loss(input: Tensor, target: Tensor, var: Tensor | float, full: bool = False, eps: float = 1e-6,
                      reduction: str = "mean") -> Tensor:
    """(log(var) + (input - target)^2 / var) / 2, for variances of the input's shape, without its last dimension, or with a
    size of 1 in one dimension. `full` adds log(2 pi) / 2.

    ArgumentError for variances of another shape, for negative ones, and for another reduction.

    >>> F.gaussian_nll_loss(graphc.tensor([1.0]), graphc.tensor([2.0]), graphc.tensor([1.0]))
    tensor(0.5000)
    """
    if not isinstance(var, Tensor):
        if var < 0:
            raise ArgumentError("var has negative entry/entries", got=str(var))
        var = full_like(input, var)
    known = var._known()
    if known is not None and (known < 0).any():
        raise ArgumentError("var has negative entry/entries", got=str(known.min()))
    if var.shape != input.shape:
        if tuple(var.shape) == tuple(input.shape[:-1]):
            var = unsqueeze(var, -1)
        elif var.dim() != input.dim() or [b for a, b in zip(input.shape, var.shape) if a != b] != [1]:
            raise ArgumentError("var is of incorrect size", expected=f"like the input's: {list(input.shape)}",
                                got=str(list(var.shape)))
    if reduction not in ("none", "mean", "sum"):
        raise ArgumentError(f"{reduction} is not valid", expected="'none', 'mean' or 'sum'")
    return _gaussian_nll_loss(input, target, var, full, eps, reduction)


@composite
def _gaussian_nll_loss(input: Tensor, target: Tensor, var: Tensor, full: bool, eps: float, reduction: str) -> Tensor:
    var = held_above(var, eps)
    difference = input - target
    loss = 0.5 * (log(var) + difference * difference / var)
    return reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)
