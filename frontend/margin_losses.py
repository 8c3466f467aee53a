"""Losses that ask for a margin: between classes, between pairs, and in triplets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, DTypeError, GraphcError, ShapeError
from graphc.frontend.activations import log1p_exp_of_negative, logsigmoid
from graphc.frontend.arguments import emit
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.distances import pairwise_distance
from graphc.frontend.indexing import gather
from graphc.frontend.losses import legacy, reduced
from graphc.frontend.movement import reshape, unsqueeze
from graphc.frontend.pointwise import cast, clamp_min, minimum, relu, sqrt, where
from graphc.frontend.reductions import any, sum
from graphc.frontend.spatial import places
from graphc.frontend.tensor import Tensor
from graphc.types import float32, int64


@full_precision
@composite
def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: Any = None,
                        reduce: Any = None, reduction: str = "mean") -> Tensor:
    """max(0, -target * (input1 - input2) + margin): the first is to be larger for a target of 1, smaller for -1. All three are
    of shapes that broadcast.

    ShapeError where the numbers of dimensions differ.

    >>> F.margin_ranking_loss(graphc.tensor([1.0]), graphc.tensor([2.0]), graphc.tensor([1.0]), margin=0.5)
    tensor(1.5000)
    """
    if not input1.dim() == input2.dim() == target.dim():
        raise ShapeError("margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: "
                         f"{input1.shape}, input2: {input2.shape}, target: {target.shape} ")
    return reduced(clamp_min(-target * (input1 - input2) + margin, 0), legacy(reduction, size_average, reduce))


@full_precision
@composite
def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, size_average: Any = None, reduce: Any = None,
                         reduction: str = "mean") -> Tensor:
    """The input itself where the target is 1, max(0, margin - input) where it is -1.

    ShapeError where the shapes do not broadcast, ArgumentError for another reduction.

    >>> F.hinge_embedding_loss(graphc.tensor([0.25, 0.25]), graphc.tensor([1.0, -1.0]), reduction="none")
    tensor([0.2500, 0.7500])
    """
    apart = where(target != 1, clamp_min(margin - input, 0), 0)
    return reduced(apart + where(target != -1, input, 0), legacy(reduction, size_average, reduce))


@full_precision
@composite
def soft_margin_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
                     reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * input)), for targets 1 and -1.

    ShapeError where the shapes do not broadcast, ArgumentError for another reduction.

    >>> F.soft_margin_loss(graphc.tensor([0.0]), graphc.tensor([1.0]))
    tensor(0.6931)
    """
    return reduced(log1p_exp_of_negative(target * input), legacy(reduction, size_average, reduce), "SoftMarginLoss")


@full_precision
@composite
def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: Any = None,
                          reduce: Any = None, reduction: str = "mean") -> Tensor:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1, for vectors [N, D] and targets [N] or [D] and [].

    ShapeError where the vectors have not one dimension more than the targets, and for targets of several.

    >>> F.cosine_embedding_loss(graphc.tensor([[1.0, 0.0]]), graphc.tensor([[1.0, 1.0]]), graphc.tensor([1.0]))
    tensor(0.2929)
    """
    ndim = target.dim()
    if ndim > 1:
        raise ShapeError("0D or 1D target tensor expected, multi-target not supported", got=str(list(target.shape)))
    if not input1.dim() == input2.dim() == ndim + 1:
        raise ShapeError(f"{ndim}D target tensor expects {ndim + 1}D input tensors, but found inputs with sizes "
                         f"{list(input1.shape)} and {list(input2.shape)}.")
    x, y = (v if v.dtype.is_floating_point else cast(v, float32) for v in (input1, input2))
    squares = [sum(v * v, -1) + 1e-12 for v in (x, y)]
    cosine = sum(x * y, -1) / sqrt(squares[0] * squares[1])
    loss = where(target == 1, 1 - cosine, 0) + where(target == -1, clamp_min(cosine - margin, 0), 0)
    return reduced(loss, legacy(reduction, size_average, reduce))


# Classes


def _rows(input: Tensor, function: str) -> Tensor:
    """Scores as [N, C]."""
    ndim = input.dim()
    if ndim > 2 or (ndim and input._data.shape[-1] == 0):
        raise ShapeError("Expected non-empty vector or matrix with optional 0-dim batch size, but got: "
                         f"{list(input.shape)}", got=function)
    return input if ndim == 2 else reshape(input, (1, -1))


@full_precision
def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
                      size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> Tensor:
    """The sum over wrong classes of max(0, margin - right score + score)^p / C, for scores [N, C] and class indices [N].

    ShapeError where the sizes do not fit, DTypeError for a target that is not of int64, GraphcError for a class that there is
    not, ArgumentError for another p and for weights that are no vector.

    >>> F.multi_margin_loss(graphc.tensor([[0.1, 0.2, 0.9]]), graphc.tensor([2]))
    tensor(0.1667)
    """
    if p not in (1, 2):
        raise ArgumentError("only p == 1 and p == 2 supported", got=str(p))
    if weight is not None and weight.dim() != 1:
        raise ArgumentError("weight must be one-dimensional", got=str(list(weight.shape)))
    if target.dtype is not int64:
        raise DTypeError(f"expected scalar type Long but found {target.dtype.name.capitalize()}", hint="target.long()")
    x = _rows(input, "multi_margin_loss")
    count, classes = x._data.shape
    if target.dim() > 1 or target.numel() != count:
        raise ShapeError("multi_margin_loss: target tensor should be 1-D with size equal to the number of input samples (batch "
                         f"size). Expected target size [{count}], but got {list(target.shape)}. Input has shape "
                         f"{list(input.shape)}.")
    if weight is not None and weight.numel() != classes:
        raise ShapeError(f"inconsistent weight size, expected {classes} but got {list(weight.shape)}")
    known = target._known()
    if known is not None and known.size and (known.min() < 0 or known.max() >= classes):
        raise GraphcError("target out of range", expected=f"0 <= target < {classes}")
    loss = _multi_margin_loss(x, reshape(target, (count,)), p, margin, weight)
    loss = reshape(loss, target.shape) if input.dim() < 2 else loss
    return reduced(loss, legacy(reduction, size_average, reduce), "MultiMarginLoss")


@composite
def _multi_margin_loss(x: Tensor, target: Tensor, p: int, margin: float, weight: Tensor | None) -> Tensor:
    classes = x._data.shape[1]
    place = unsqueeze(target, 1)
    excess = relu(margin - gather(x, 1, place) + x)
    excess = excess if p == 1 else excess * excess
    if weight is not None:
        excess = excess * reshape(gather(weight, 0, target), (-1, 1))
    return sum(where(places(range(classes)) == place, 0.0, excess), 1) / classes


@full_precision
def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
                           reduction: str = "mean") -> Tensor:
    """The sum over right classes i and wrong ones j of max(0, 1 - x[i] + x[j]) / C, for scores [N, C].

    A row of the targets [N, C] lists the right classes, and ends with its first -1.

    ShapeError where the shapes differ, or are not of one or two dimensions; GraphcError for a class that there is not.

    >>> F.multilabel_margin_loss(graphc.tensor([[0.1, 0.2, 0.9]]), graphc.tensor([[2, -1, 0]]))
    tensor(0.1667)
    """
    x = _rows(input, "multilabel_margin_loss")
    if target.shape != input.shape and not (input.dim() == 0 and target.numel() == 1):
        raise ShapeError(f"inconsistent target size: {list(target.shape)} for input of size: {list(input.shape)}")
    known = target._known()
    if known is not None and known.size and (known.min() < -1 or known.max() >= x._data.shape[1]):
        raise GraphcError("argument #2 'target' is out of range", expected=f"-1 <= target < {x._data.shape[1]}")
    loss = _multilabel_margin_loss(x, cast(reshape(target, tuple(x._data.shape)), int64))
    loss = loss if input.dim() == 2 else reshape(loss, ())
    return reduced(loss, legacy(reduction, size_average, reduce), "MultilabelMarginLoss")


@composite
def _multilabel_margin_loss(x: Tensor, target: Tensor) -> Tensor:
    classes = x._data.shape[1]
    place = places(range(classes))
    end = emit(ops.amin, (where(target < 0, place, classes),), {"axes": (1,)})
    listed = place < unsqueeze(end, 1)  # [N, C]: which entries of the targets count
    label = where(listed, target, 0)
    right = any(unsqueeze(listed, 1) & (unsqueeze(label, 1) == reshape(place, (classes, 1))), 2)
    excess = relu(1 - unsqueeze(gather(x, 1, label), 2) + unsqueeze(x, 1))  # [N, entry, class]
    wanted = unsqueeze(listed, 2) & unsqueeze(~right, 1)
    return sum(where(wanted, excess, 0.0), (1, 2)) / classes


@composite
def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
                                reduce: Any = None, reduction: str = "mean") -> Tensor:
    """-(y log sigmoid(x) + (1 - y) log sigmoid(-x)), as the mean over the classes, which are the last dimension.

    ArgumentError for another reduction.

    >>> F.multilabel_soft_margin_loss(graphc.tensor([[0.0, 0.0]]), graphc.tensor([[1.0, 0.0]]))
    tensor(0.6931)
    """
    chosen = legacy(reduction, size_average, reduce)
    if chosen not in ("none", "mean", "sum"):
        raise ArgumentError(f"{chosen} is not valid", expected="'none', 'mean' or 'sum'")
    loss = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    if weight is not None:
        loss = loss * weight
    return reduced(sum(loss, -1) / input.size(-1), chosen)


# Triplets


@full_precision
def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2,
                        eps: float = 1e-6, swap: bool = False, size_average: Any = None, reduce: Any = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, margin + |anchor - positive| - |anchor - negative|) with p-norms along the last dimension. [N, D] gives a loss for
    each of N, [D] one.

    With `swap` the smaller of the negative's distances from the anchor and from the positive counts (Balntas et al. 2016).

    ShapeError where the numbers of dimensions differ, ArgumentError for a margin that is not positive.

    >>> F.triplet_margin_loss(graphc.zeros(1, 2), graphc.zeros(1, 2), graphc.ones(1, 2))
    tensor(0.)
    """

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return pairwise_distance(x, y, p, eps)

    return _triplet(anchor, positive, negative, distance, margin, swap, legacy(reduction, size_average, reduce))


def triplet_margin_with_distance_loss(anchor: Tensor, positive: Tensor, negative: Tensor, *,
                                      distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
                                      swap: bool = False, reduction: str = "mean") -> Tensor:
    """`triplet_margin_loss` with a distance function of one's own.

    ShapeError where the numbers of dimensions differ, ArgumentError for a margin that is not positive.

    >>> anchor, negative = graphc.zeros(1, 2), graphc.ones(1, 2)
    >>> F.triplet_margin_with_distance_loss(anchor, anchor, negative, distance_function=F.l1_loss)
    tensor(0.)
    """
    return _triplet(anchor, positive, negative, distance_function or pairwise_distance, margin, swap, reduction)


def _triplet(anchor: Tensor, positive: Tensor, negative: Tensor, distance: Callable[[Tensor, Tensor], Tensor],
             margin: float, swap: bool, reduction: str) -> Tensor:
    if margin <= 0:
        raise ArgumentError(f"margin must be greater than 0, got {margin}")
    if not anchor.dim() == positive.dim() == negative.dim():
        raise ShapeError("The anchor, positive, and negative tensors are expected to have the same number of dimensions, but "
                         f"got: anchor {anchor.dim()}D, positive {positive.dim()}D, and negative {negative.dim()}D inputs")
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return reduced(clamp_min(margin + near - far, 0), reduction)
