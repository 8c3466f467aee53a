"""Connectionist temporal classification: the loss of all alignments of a sequence with its labels (Graves et al. 2006)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, DTypeError, GraphcError, ShapeError, UnsupportedError
from graphc.frontend.arguments import emit
from graphc.frontend.autocast import full_precision
from graphc.frontend.creation import as_tensor
from graphc.frontend.cumulative import cumsum
from graphc.frontend.indexing import gather
from graphc.frontend.joining import cat, stack
from graphc.frontend.movement import expand, part, reshape, select, squeeze, unsqueeze
from graphc.frontend.pointwise import add, cast, clamp, clamp_min, exp, log, maximum, where
from graphc.frontend.reductions import mean, sum
from graphc.frontend.spatial import constant, places
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import float32, float64, int64

_NEVER = -1e30
"""The logarithm of a probability of zero: finite, so that differences of two of them are no nan."""


@full_precision
def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Tensor | Sequence[int], target_lengths: Tensor | Sequence[int],
             blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> Tensor:
    """-log of the probability of the labels, summed over all their alignments.

    `log_probs` is [T, N, C], or [T, C] for one sequence; `targets` is [N, S], or all sequences' labels one after another.
    The mean is over the losses divided by the target lengths. Where labels are too many for the input the loss is inf,
    or 0 with `zero_infinity`. The gradient is that for log_probs out of log_softmax, as in PyTorch.
    """
    if log_probs.dim() not in (2, 3):
        raise ShapeError(f"ctc_loss: log_probs has {log_probs.dim()} dimensions", expected="[T, N, C] or [T, C]")
    alone = log_probs.dim() == 2
    x = unsqueeze(log_probs, 1) if alone else log_probs
    if x.dtype not in (float32, float64):
        raise UnsupportedError(f'"ctc_loss_cpu" not implemented for {x.dtype.name}', expected="float32 or float64")
    if targets.dtype.kind not in ("int", "uint"):
        raise DTypeError("targets must be int32 or int64", got=targets.dtype.name)
    steps, count, classes = x._data.shape
    if not 0 <= blank < classes:
        raise GraphcError("blank must be in label range", expected=f"0 <= blank < {classes}", got=str(blank))
    inputs, wanted = _lengths(input_lengths, count, "input_lengths"), _lengths(target_lengths, count, "target_lengths")
    known = inputs._known()
    if known is not None and known.size and (known.max() > steps or known.min() < 0):
        raise GraphcError(f"Expected input_lengths to have value at most {steps}, but got value {known.max()}")
    labels = _labels(cast(targets, int64), wanted, count, alone)
    loss = _losses(x, labels, inputs, wanted, blank)
    if zero_infinity:
        loss = where(loss == float("inf"), 0.0, loss)
    if reduction == "mean":
        return named(mean(loss / cast(clamp_min(wanted, 1), loss.dtype)), "Mean")
    if reduction not in ("none", "sum"):
        raise ArgumentError(f"{reduction} is not a valid value for reduction", expected="'none', 'mean' or 'sum'")
    return sum(loss) if reduction == "sum" else named(squeeze(loss, 0) if alone else loss, "CtcLoss")


def _lengths(given: Tensor | Sequence[int], count: int, name: str) -> Tensor:
    found = given if isinstance(given, Tensor) else as_tensor(np.asarray(given, np.int64))
    if found.dtype.kind not in ("int", "uint"):
        raise DTypeError(f"{name} must be integral", got=found.dtype.name)
    if found.numel() != count:
        raise ShapeError(f"{name} must be of size batch_size", expected=str(count), got=str(list(found.shape)))
    return reshape(cast(found, int64), (count,))


def _labels(targets: Tensor, lengths: Tensor, count: int, alone: bool) -> Tensor:
    """The labels as [N, S]; what lies beyond a sequence's length is of no account."""
    known = lengths._known()
    longest = None if known is None else int(known.max(initial=0))
    if known is not None and known.min(initial=0) < 0:
        raise GraphcError("Expected target_lengths to have value at least 0", got=str(known.min()))
    if targets.dim() == 2 or (alone and targets.dim() == 1):
        labels = unsqueeze(targets, 0) if targets.dim() == 1 else targets
        if labels._data.shape[0] != count or (longest is not None and labels._data.shape[1] < longest):
            raise ShapeError(f"Expected tensor to have size at least {longest} at dimension 1, but got size "
                             f"{list(targets.shape)} for argument #2 'targets'", expected=f"[{count}, {longest or 'S'}]")
        return labels if longest is None else part(labels, 1, 0, longest)
    if targets.dim() != 1:
        raise ShapeError("ctc_loss: targets should have one dimension or two", got=str(list(targets.shape)))
    total = targets._data.shape[0]
    if known is not None and int(known.sum()) != total:
        raise ShapeError(f"Expected targets of {known.sum()} labels, as many as target_lengths sum up to", got=str(total))
    width = total if longest is None else longest
    if total == 0:
        return expand(places([[0]]), (count, width))
    begin = cumsum(lengths, 0) - lengths
    index = clamp(unsqueeze(begin, 1) + places(range(width)), max=total - 1)
    return reshape(gather(targets, 0, reshape(index, (count * width,))), (count, width))


def _losses(x: Tensor, labels: Tensor, inputs: Tensor, wanted: Tensor, blank: int) -> Tensor:
    """The losses [N] by the forward recursion of section 4.1: `paths` [N, 2 S + 1] holds the logarithms of the
    probabilities of all prefixes of the labels, with blanks before, between and after them."""
    steps, count, _ = x._data.shape
    size = 2 * labels._data.shape[1] + 1
    blanks = expand(places([[blank]]), tuple(labels._data.shape))
    symbols = cat([reshape(stack([blanks, labels], 2), (count, size - 1)), expand(places([[blank]]), (count, 1))], 1)
    # a blank between two different labels may be left out
    skips = places(range(size)) >= 2
    skips = skips & (symbols != _later(symbols, 2, blank)) if size > 2 else expand(skips, (count, size))
    scores = gather(x, 2, expand(unsqueeze(symbols, 0), (steps, count, size)))
    scores = where(scores < _NEVER, _NEVER, scores)
    paths: Any = where(expand(places(range(size)) < 2, (count, size)), select(scores, 0, 0), _NEVER) if steps else None
    for t in range(1, steps):
        one, two = _later(paths, 1, _NEVER), where(skips, _later(paths, 2, _NEVER), _NEVER)
        further = _log_sum_exp(paths, one, two) + select(scores, 0, t)
        paths = where(unsqueeze(inputs > t, 1), further, paths)
    impossible = constant(float("inf"), x)
    if paths is None:
        return where(wanted == 0, 0.0, impossible)
    last = reshape(gather(paths, 1, unsqueeze(2 * wanted, 1)), (count,))
    before = reshape(gather(paths, 1, unsqueeze(clamp_min(2 * wanted - 1, 0), 1)), (count,))
    total = _log_sum_exp(last, where(wanted > 0, before, _NEVER))
    loss = where(total > _NEVER / 2, -total, impossible)
    loss = where(inputs > 0, loss, where(wanted == 0, 0.0, impossible))
    return loss + _of_normalised(x, inputs)


def _later(x: Tensor, count: int, fill: Any) -> Tensor:
    """[N, S] moved up by so many places in S."""
    size = x._data.shape[1]
    kept = part(x, 1, 0, max(0, size - count))
    return emit(ops.pad, (kept,), {"low": (0, min(count, size)), "high": (0, 0), "value": fill})


def _log_sum_exp(*xs: Tensor) -> Tensor:
    top = functools.reduce(maximum, (x.detach() for x in xs))
    return log(functools.reduce(add, (exp(x - top) for x in xs))) + top


def _of_normalised(x: Tensor, inputs: Tensor) -> Tensor:
    """Zeros [N] with the gradient exp(x) by x: what the probabilities would have to lose, were they not to sum up to 1.

    Behind log_softmax it makes no difference; PyTorch has it in the gradient by log_probs.
    """
    within = reshape(places(range(x._data.shape[0])), (-1, 1)) < unsqueeze(inputs, 0)
    probabilities = where(unsqueeze(within, 2), exp(x), 0.0)
    return sum(probabilities - probabilities.detach(), (0, 2))
