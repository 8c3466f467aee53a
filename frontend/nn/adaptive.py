"""Softmax over very many classes, most of which are rare (Grave et al. 2017, "Efficient softmax approximation for GPUs")."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from graphc.errors import ArgumentError, GraphcError, ShapeError
from graphc.frontend.activations import log_softmax
from graphc.frontend.indexing import gather
from graphc.frontend.joining import cat
from graphc.frontend.movement import select, squeeze, unsqueeze
from graphc.frontend.nn.containers import ModuleList, Sequential
from graphc.frontend.nn.linear import Linear
from graphc.frontend.nn.module import Module
from graphc.frontend.pointwise import clamp, where
from graphc.frontend.reductions import argmax
from graphc.frontend.tensor import Tensor
from graphc.types import DType


class ASMOutput(NamedTuple):
    """What AdaptiveLogSoftmaxWithLoss returns."""

    output: Tensor
    """The log-probabilities of the targets: [N], or [] for one sample."""
    loss: Tensor
    """The mean of their negatives."""


class AdaptiveLogSoftmaxWithLoss(Module):
    """The log-probabilities of classes that are ordered from frequent to rare, and their loss.

    The classes below `cutoffs[0]` have scores of their own. The others are clusters between the cutoffs: each has one
    score in the head, and a projection to fewer features, by another factor of `div_value`, to tell its classes apart.

    ArgumentError for cutoffs that are not ascending integers from 1 to n_classes - 1; at a call ShapeError where the numbers of
    samples differ, GraphcError where those of dimensions do not fit, and for a class that there is not.

    >>> head = nn.AdaptiveLogSoftmaxWithLoss(64, 100, cutoffs=[10, 50])
    >>> out = head(graphc.randn(4, 64), graphc.tensor([1, 20, 60, 99]))
    >>> out.output.shape, out.loss.shape
    (graphc.Size([4]), graphc.Size([]))
    >>> head.log_prob(graphc.randn(4, 64)).shape
    graphc.Size([4, 100])
    """

    def __init__(self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
                 head_bias: bool = False, device: Any = None, dtype: DType | None = None) -> None:
        super().__init__()
        given = list(cutoffs)
        if not given:
            raise ArgumentError("cutoffs should be a sequence of length larger than 0")
        increasing = all(a < b for a, b in itertools.pairwise(given))
        if not increasing or given[0] <= 0 or given[-1] > n_classes - 1 or any(int(c) != c for c in given):
            raise ArgumentError("cutoffs should be a sequence of unique, positive integers sorted in an increasing order, "
                                "where each value is between 1 and n_classes-1", got=str(given))
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*given, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = self.cutoffs[0]
        self.n_clusters = len(given)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, head_bias, device, dtype)
        self.tail = ModuleList()
        for i, (low, high) in enumerate(itertools.pairwise(self.cutoffs)):
            features = int(in_features // div_value ** (i + 1))
            self.tail.append(Sequential(Linear(in_features, features, False, device, dtype),
                                        Linear(features, high - low, False, device, dtype)))

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        self.head.reset_parameters()
        for cluster in self.tail:
            for layer in cluster.children():
                layer.reset_parameters()

    def forward(self, input: Tensor, target: Tensor) -> ASMOutput:
        if target.dim() > 1:
            raise GraphcError("0D or 1D target tensor expected, multi-target not supported", got=str(list(target.shape)))
        if input.dim() != target.dim() + 1:
            raise GraphcError(f"{target.dim()}D target tensor expects {target.dim() + 1}D input tensors, but found inputs with "
                              f"size {list(input.shape)}")
        alone = target.dim() == 0
        x, t = (unsqueeze(input, 0), unsqueeze(target, 0)) if alone else (input, target)
        if x.size(0) != t.size(0):
            raise ShapeError("Input and target should have the same size in the batch dimension.",
                             got=f"{list(input.shape)} and {list(target.shape)}")
        known = t._known()
        if known is not None and known.size and (known.min() < 0 or known.max() >= self.n_classes):
            raise GraphcError(f"Target values should be in [0, {self.n_classes - 1}], but values in range [{known.min()}, "
                              f"{known.max()}] were found.")
        head = log_softmax(self.head(x), 1)
        out = _picked(head, clamp(t, max=self.shortlist_size - 1))
        for i, (low, high) in enumerate(itertools.pairwise(self.cutoffs)):
            inside = log_softmax(self.tail[i](x), 1)
            rare = select(head, 1, self.shortlist_size + i) + _picked(inside, clamp(t - low, 0, high - low - 1))
            out = where((t >= low) & (t < high), rare, out)
        return ASMOutput(squeeze(out, 0) if alone else out, (-out).mean())

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities of all classes, [N, n_classes], for inputs [N, in_features]."""
        head = log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            at = self.shortlist_size + i
            parts.append(log_softmax(cluster(input), 1) + head[:, at : at + 1])
        return cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each sample, [N]."""
        return argmax(self.log_prob(input), 1)


def _picked(scores: Tensor, column: Tensor) -> Tensor:
    return squeeze(gather(scores, 1, unsqueeze(column, 1)), 1)
