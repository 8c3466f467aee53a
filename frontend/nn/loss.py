"""Loss functions as modules."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from graphc.errors import ArgumentError, GraphcError
from graphc.frontend.losses import legacy
from graphc.frontend.nn import functional as F
from graphc.frontend.nn.distance import PairwiseDistance
from graphc.frontend.nn.linear import Linear
from graphc.frontend.nn.module import Module
from graphc.frontend.tensor import Tensor
from graphc.types import DType


class _Loss(Module):
    """A loss with a reduction: "mean" (the default), "sum" or "none"."""

    def __init__(self, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = legacy(reduction, size_average, reduce)


class _WeightedLoss(_Loss):
    """A loss with a weight for each class or element."""

    def __init__(self, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)


class MSELoss(_Loss):
    """(input - target)^2.

    At a call ShapeError where the shapes do not broadcast.

    >>> nn.MSELoss()(graphc.tensor([1.0, 2.0]), graphc.tensor([1.0, 4.0]))
    tensor(2.)
    >>> nn.MSELoss(reduction="sum")(graphc.tensor([1.0, 2.0]), graphc.tensor([1.0, 4.0]))
    tensor(4.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """|input - target|.

    At a call ShapeError where the shapes do not broadcast.

    >>> nn.L1Loss()(graphc.tensor([1.0, 2.0]), graphc.tensor([1.0, 4.0]))
    tensor(1.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """Quadratic where |input - target| < beta, linear beyond.

    At a call GraphcError for a negative beta, and ShapeError where the shapes do not broadcast.

    >>> nn.SmoothL1Loss()(graphc.tensor([1.0, 2.0]), graphc.tensor([1.0, 4.0]))
    tensor(0.7500)
    """

    def __init__(self, size_average: Any = None, reduce: Any = None, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """Half the square where |input - target| < delta, linear beyond.

    At a call GraphcError for a delta that is not positive, and ShapeError where the shapes do not broadcast.

    >>> nn.HuberLoss(delta=0.5)(graphc.tensor([1.0, 2.0]), graphc.tensor([1.0, 4.0]))
    tensor(0.4375)
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class BCELoss(_WeightedLoss):
    """-(y log x + (1 - y) log(1 - x)).

    At a call ArgumentError where the shapes differ, DTypeError where the dtypes do, and GraphcError for an input outside of 0
    to 1.

    >>> nn.BCELoss()(graphc.tensor([0.5, 0.9]), graphc.tensor([1.0, 1.0]))
    tensor(0.3993)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """BCELoss of sigmoid(input), without overflow.

    At a call ArgumentError where the shapes differ.

    >>> nn.BCEWithLogitsLoss()(graphc.tensor([0.0]), graphc.tensor([1.0]))
    tensor(0.6931)
    """

    def __init__(self, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
                 pos_weight: Tensor | None = None) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(input, target, self.weight, pos_weight=self.pos_weight,
                                                  reduction=self.reduction)


class NLLLoss(_WeightedLoss):
    """-weight[target] * input[target], for log-probabilities.

    At a call ShapeError and ArgumentError where the target's shape does not fit, DimError for a class that there is not, and
    GraphcError for a target that is not of int64 or uint8.

    >>> nn.NLLLoss()(graphc.tensor([[0.25, 0.75]]).log(), graphc.tensor([1]))
    tensor(0.2877)
    """

    def __init__(self, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
                 reduction: str = "mean") -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class NLLLoss2d(NLLLoss):
    """NLLLoss by its older name for images.

    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     loss = nn.NLLLoss2d()(graphc.zeros(1, 2, 3, 3), graphc.zeros(1, 3, 3, dtype=graphc.int64))
    >>> loss.item() == 0.0
    True
    """

    def __init__(self, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
                 reduction: str = "mean") -> None:
        warnings.warn("`NLLLoss2d` is deprecated: use `NLLLoss`, which does the same.", FutureWarning, stacklevel=2)
        super().__init__(weight, size_average, ignore_index, reduce, reduction)


class CrossEntropyLoss(_WeightedLoss):
    """NLLLoss of log_softmax(input).

    At a call ShapeError and ArgumentError where the target's shape does not fit, DimError for a class that there is not, and
    GraphcError for a label smoothing outside of 0 to 1.

    >>> nn.CrossEntropyLoss()(graphc.tensor([[0.0, 0.0]]), graphc.tensor([1]))
    tensor(0.6931)
    """

    def __init__(self, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
                 reduction: str = "mean", label_smoothing: float = 0.0) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
                               label_smoothing=self.label_smoothing)


class KLDivLoss(_Loss):
    """target * (log target - input), for log-probabilities.

    >>> nn.KLDivLoss(reduction="batchmean")(graphc.tensor([[0.5, 0.5]]).log(), graphc.tensor([[0.25, 0.75]]))
    tensor(0.1308)
    """

    def __init__(self, size_average: Any = None, reduce: Any = None, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class LinearCrossEntropyLoss(_WeightedLoss):
    """CrossEntropyLoss of a linear layer's result. `out_features` are further dimensions of the target.

    GraphcError for weights of another number of classes, and a label smoothing outside of 0 to 1.

    >>> head = nn.LinearCrossEntropyLoss(8, 10)
    >>> head(graphc.randn(4, 8), graphc.tensor([1, 2, 3, 4])).shape
    graphc.Size([])
    """

    def __init__(self, in_features: int, num_classes: int, *, out_features: tuple[int, ...] = (), bias: bool = False,
                 device: Any = None, dtype: DType | None = None, reduction: str = "mean", weight: Tensor | None = None,
                 ignore_index: int | None = None, label_smoothing: float = 0.0, options: Any = None) -> None:
        if weight is not None and tuple(weight.shape) != (num_classes,):
            raise GraphcError(f"expected weight shape to be {(num_classes,)}, got {tuple(weight.shape)}")
        if not 0 <= label_smoothing <= 1:
            raise GraphcError(f"expected label_smoothing to be in range [0, 1], got {label_smoothing}")
        super().__init__(weight=weight, reduction=reduction)
        self.num_classes = num_classes
        self.out_features = out_features
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.linear = Linear(in_features, math.prod(out_features, start=num_classes), bias, device, dtype)
        self.options = options

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        outer = (self.num_classes, *self.out_features)
        bias = None if self.linear.bias is None else self.linear.bias.reshape(outer)
        return F.linear_cross_entropy(input, self.linear.weight.reshape(*outer, self.linear.in_features), target,
                                      linear_bias=bias, weight=self.weight, reduction=self.reduction,
                                      ignore_index=self.ignore_index, label_smoothing=self.label_smoothing,
                                      options=self.options)

    def extra_repr(self) -> str:
        return (f"in_features={self.linear.in_features}, num_classes={self.num_classes}, out_features={self.out_features}, "
                f"bias={self.linear.bias is not None}, reduction={self.reduction}, ignore_index={self.ignore_index}, "
                f"label_smoothing={self.label_smoothing}, options={self.options}")


class PoissonNLLLoss(_Loss):
    """The rate less target * log(rate).

    >>> nn.PoissonNLLLoss()(graphc.tensor([0.0]), graphc.tensor([2.0]))
    tensor(1.)
    """

    def __init__(self, log_input: bool = True, full: bool = False, size_average: Any = None, eps: float = 1e-8,
                 reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        return F.poisson_nll_loss(log_input, target, log_input=self.log_input, full=self.full, eps=self.eps,
                                  reduction=self.reduction)


class GaussianNLLLoss(_Loss):
    """(log(var) + (input - target)^2 / var) / 2.

    At a call ArgumentError for variances of another shape, and for negative ones.

    >>> nn.GaussianNLLLoss()(graphc.tensor([1.0]), graphc.tensor([2.0]), graphc.tensor([1.0]))
    tensor(0.5000)
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full = full
        self.eps = eps

    def forward(self, input: Tensor, target: Tensor, var: Tensor | float) -> Tensor:
        return F.gaussian_nll_loss(input, target, var, full=self.full, eps=self.eps, reduction=self.reduction)


class MarginRankingLoss(_Loss):
    """max(0, -target * (input1 - input2) + margin).

    At a call ShapeError where the numbers of dimensions differ.

    >>> nn.MarginRankingLoss()(graphc.tensor([1.0]), graphc.tensor([2.0]), graphc.tensor([1.0]))
    tensor(1.)
    """

    def __init__(self, margin: float = 0.0, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.margin_ranking_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


class HingeEmbeddingLoss(_Loss):
    """The input itself where the target is 1, max(0, margin - input) where it is -1.

    >>> nn.HingeEmbeddingLoss()(graphc.tensor([0.25]), graphc.tensor([-1.0]))
    tensor(0.7500)
    """

    def __init__(self, margin: float = 1.0, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)


class SoftMarginLoss(_Loss):
    """log(1 + exp(-target * input)), for targets 1 and -1.

    >>> nn.SoftMarginLoss()(graphc.tensor([0.0]), graphc.tensor([1.0]))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.soft_margin_loss(input, target, reduction=self.reduction)


class CosineEmbeddingLoss(_Loss):
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1.

    At a call ShapeError where the vectors have not one dimension more than the targets.

    >>> nn.CosineEmbeddingLoss()(graphc.tensor([[1.0, 0.0]]), graphc.tensor([[1.0, 1.0]]), graphc.tensor([1.0]))
    tensor(0.2929)
    """

    def __init__(self, margin: float = 0.0, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.cosine_embedding_loss(input1, input2, target, margin=self.margin, reduction=self.reduction)


class MultiMarginLoss(_WeightedLoss):
    """The sum over wrong classes of max(0, margin - right score + score)^p / C.

    ArgumentError for a p other than 1 and 2, and for weights that are no vector.

    >>> nn.MultiMarginLoss()(graphc.tensor([[0.1, 0.2, 0.9]]), graphc.tensor([2]))
    tensor(0.1667)
    """

    def __init__(self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, size_average: Any = None,
                 reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(weight, size_average, reduce, reduction)
        if p not in (1, 2):
            raise ArgumentError("only p == 1 and p == 2 supported", got=str(p))
        if weight is not None and weight.dim() != 1:
            raise ArgumentError(f"MultiMarginLoss: expected weight to be None or 1D tensor, got {weight.dim()}D instead")
        self.p = p
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multi_margin_loss(input, target, p=self.p, margin=self.margin, weight=self.weight, reduction=self.reduction)


class MultiLabelMarginLoss(_Loss):
    """The sum over right classes i and wrong ones j of max(0, 1 - x[i] + x[j]) / C.

    At a call ShapeError where the shapes differ, and GraphcError for a class that there is not.

    >>> nn.MultiLabelMarginLoss()(graphc.tensor([[0.1, 0.2, 0.9]]), graphc.tensor([[2, -1, 0]]))
    tensor(0.1667)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(_WeightedLoss):
    """BCEWithLogitsLoss, as the mean over the classes.

    At a call ShapeError where the shapes do not broadcast.

    >>> nn.MultiLabelSoftMarginLoss()(graphc.tensor([[0.0, 0.0]]), graphc.tensor([[1.0, 0.0]]))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_soft_margin_loss(input, target, weight=self.weight, reduction=self.reduction)


class TripletMarginLoss(_Loss):
    """max(0, margin + |anchor - positive| - |anchor - negative|).

    ArgumentError for a margin that is not positive.

    >>> nn.TripletMarginLoss()(graphc.zeros(1, 2), graphc.zeros(1, 2), graphc.ones(1, 2))
    tensor(0.)
    """

    def __init__(self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, size_average: Any = None,
                 reduce: Any = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        if margin <= 0:
            raise ArgumentError(f"TripletMarginLoss: expected margin to be greater than 0, got {margin} instead")
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return F.triplet_margin_loss(anchor, positive, negative, margin=self.margin, p=self.p, eps=self.eps, swap=self.swap,
                                     reduction=self.reduction)


class TripletMarginWithDistanceLoss(_Loss):
    """TripletMarginLoss with a distance function of one's own.

    ArgumentError for a margin that is not positive.

    >>> loss = nn.TripletMarginWithDistanceLoss(distance_function=nn.PairwiseDistance(p=1))
    >>> loss(graphc.zeros(1, 2), graphc.zeros(1, 2), graphc.ones(1, 2))
    tensor(0.)
    """

    def __init__(self, *, distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
                 swap: bool = False, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        if margin <= 0:
            raise ArgumentError(f"TripletMarginWithDistanceLoss: expected margin to be greater than 0, got {margin} instead")
        self.distance_function = PairwiseDistance() if distance_function is None else distance_function
        self.margin = margin
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return F.triplet_margin_with_distance_loss(anchor, positive, negative, distance_function=self.distance_function,
                                                   margin=self.margin, swap=self.swap, reduction=self.reduction)


class CTCLoss(_Loss):
    """-log of the probability of the labels, summed over all their alignments (Graves et al. 2006).

    At a call ShapeError where sizes do not fit, DTypeError for labels that are no integers, and GraphcError for lengths beyond
    the input's.

    >>> nn.CTCLoss()(graphc.zeros(3, 1, 2).log_softmax(2), graphc.tensor([[1]]), (3,), (1,))
    tensor(0.2877)
    """

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__(reduction=reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def forward(self, log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any) -> Tensor:
        return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction, self.zero_infinity)
