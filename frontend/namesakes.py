"""Functions of the top level that share a name with one of `nn.functional`, and take other arguments.

These are the functions that PyTorch's own are made of: they have no defaults where those have, losses take the number of a
reduction (0 none, 1 mean, 2 sum; the names are taken here too), and norms a flag about cuDNN, which means nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import ArgumentError
from graphc.frontend import ctc, losses, margin_losses, matrices, normalization
from graphc.frontend import embedding as embeddings
from graphc.frontend.tensor import Tensor

FUNCTIONS = """
    batch_norm bilinear binary_cross_entropy_with_logits cosine_embedding_loss ctc_loss embedding group_norm
    hinge_embedding_loss instance_norm kl_div layer_norm margin_ranking_loss poisson_nll_loss triplet_margin_loss
"""

Reduction = int | str

_REDUCTIONS = ("none", "mean", "sum")


def _named(reduction: Reduction) -> str:
    if isinstance(reduction, str):
        return reduction
    if not 0 <= reduction < len(_REDUCTIONS):
        raise ArgumentError(f"{reduction} is not a valid value for reduction", expected="0 (none), 1 (mean) or 2 (sum)")
    return _REDUCTIONS[reduction]


# Norms


def batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
               running_var: Tensor | None, training: bool, momentum: float, eps: float, cudnn_enabled: bool) -> Tensor:
    """`nn.functional.batch_norm`, with weight and bias before the running statistics.

    >>> graphc.batch_norm(graphc.tensor([[1.0], [3.0]]), None, None, None, None, True, 0.1, 1e-5, False)
    tensor([[-1.0000],
            [ 1.0000]])
    """
    del cudnn_enabled
    return normalization.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
                  running_var: Tensor | None, use_input_stats: bool, momentum: float, eps: float,
                  cudnn_enabled: bool) -> Tensor:
    """`nn.functional.instance_norm`, with weight and bias before the running statistics.

    >>> graphc.instance_norm(graphc.tensor([[[1.0, 3.0]]]), None, None, None, None, True, 0.1, 1e-5, False)
    tensor([[[-1.0000,  1.0000]]])
    """
    del cudnn_enabled
    return normalization.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5, cudnn_enable: bool = True) -> Tensor:
    """`nn.functional.layer_norm`.

    >>> graphc.layer_norm(graphc.tensor([[1.0, 3.0]]), (2,))
    tensor([[-1.0000,  1.0000]])
    """
    del cudnn_enable
    return normalization.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
               cudnn_enabled: bool = True) -> Tensor:
    """`nn.functional.group_norm`.

    >>> graphc.group_norm(graphc.tensor([[1.0, 3.0, 5.0, 9.0]]), 2)
    tensor([[-1.0000,  1.0000, -1.0000,  1.0000]])
    """
    del cudnn_enabled
    return normalization.group_norm(input, num_groups, weight, bias, eps)


# Products and tables


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`nn.functional.bilinear`.

    >>> graphc.bilinear(graphc.ones(1, 2), graphc.ones(1, 2), graphc.ones(1, 2, 2))
    tensor([[4.]])
    """
    return matrices.bilinear(input1, input2, weight, bias)


def embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False,
              sparse: bool = False) -> Tensor:
    """`nn.functional.embedding`, with the table first; padding_idx -1 is none.

    >>> graphc.embedding(graphc.tensor([[1.0, 2.0], [3.0, 4.0]]), graphc.tensor([1]))
    tensor([[3., 4.]])
    """
    padding = None if padding_idx == -1 else padding_idx
    return embeddings.embedding(indices, weight, padding, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


# Losses


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     pos_weight: Tensor | None = None, reduction: Reduction = 1) -> Tensor:
    """`nn.functional.binary_cross_entropy_with_logits`.

    ArgumentError for a reduction that is not 0, 1 or 2.

    >>> graphc.binary_cross_entropy_with_logits(graphc.tensor([0.0]), graphc.tensor([1.0]))
    tensor(0.6931)
    """
    return losses.binary_cross_entropy_with_logits(input, target, weight, reduction=_named(reduction), pos_weight=pos_weight)


def kl_div(input: Tensor, target: Tensor, reduction: Reduction = 1, *, log_target: bool = False) -> Tensor:
    """`nn.functional.kl_div`.

    ArgumentError for a reduction that is not 0, 1 or 2.

    >>> graphc.kl_div(graphc.tensor([0.5]).log(), graphc.tensor([0.5]))
    tensor(0.)
    """
    return losses.kl_div(input, target, reduction=_named(reduction), log_target=log_target)


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: Reduction) -> Tensor:
    """`nn.functional.poisson_nll_loss`.

    ArgumentError for a reduction that is not 0, 1 or 2.

    >>> graphc.poisson_nll_loss(graphc.tensor([0.0]), graphc.tensor([1.0]), True, False, 1e-8, 1)
    tensor(1.)
    """
    return losses.poisson_nll_loss(input, target, log_input, full, eps=eps, reduction=_named(reduction))


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                          reduction: Reduction = 1) -> Tensor:
    """`nn.functional.cosine_embedding_loss`.

    ArgumentError for a reduction that is not 0, 1 or 2.

    >>> graphc.cosine_embedding_loss(graphc.tensor([[1.0, 0.0]]), graphc.tensor([[1.0, 1.0]]), graphc.tensor([1.0]))
    tensor(0.2929)
    """
    return margin_losses.cosine_embedding_loss(input1, input2, target, margin, reduction=_named(reduction))


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: Reduction = 1) -> Tensor:
    """`nn.functional.hinge_embedding_loss`.

    ArgumentError for a reduction that is not 0, 1 or 2.

    >>> graphc.hinge_embedding_loss(graphc.tensor([0.25]), graphc.tensor([-1.0]))
    tensor(0.7500)
    """
    return margin_losses.hinge_embedding_loss(input, target, margin, reduction=_named(reduction))


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                        reduction: Reduction = 1) -> Tensor:
    """`nn.functional.margin_ranking_loss`.

    ArgumentError for a reduction that is not 0, 1 or 2.

    >>> graphc.margin_ranking_loss(graphc.tensor([1.0]), graphc.tensor([2.0]), graphc.tensor([1.0]))
    tensor(1.)
    """
    return margin_losses.margin_ranking_loss(input1, input2, target, margin, reduction=_named(reduction))


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0,
                        eps: float = 1e-6, swap: bool = False, reduction: Reduction = 1) -> Tensor:
    """`nn.functional.triplet_margin_loss`.

    ArgumentError for a reduction that is not 0, 1 or 2.

    >>> graphc.triplet_margin_loss(graphc.zeros(1, 2), graphc.zeros(1, 2), graphc.ones(1, 2))
    tensor(0.)
    """
    return margin_losses.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, reduction=_named(reduction))


def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Tensor | Sequence[int],
             target_lengths: Tensor | Sequence[int], blank: int = 0, reduction: Reduction = 1,
             zero_infinity: bool = False) -> Tensor:
    """`nn.functional.ctc_loss`.

    ArgumentError for a reduction that is not 0, 1 or 2.

    >>> log_probs = graphc.zeros(3, 1, 2).log_softmax(2)
    >>> graphc.ctc_loss(log_probs, graphc.tensor([[1]]), (3,), (1,))
    tensor(0.2877)
    """
    return ctc.ctc_loss(log_probs, targets, input_lengths, target_lengths, blank, _named(reduction), zero_infinity)
