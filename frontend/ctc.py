"""Connectionist temporal classification: the loss of all alignments of a sequence with its labels (Graves et al. 2006)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, DTypeError, GraphcError, ShapeError, UnsupportedError
from graphc.frontend import engine
from graphc.frontend.arguments import emit
from graphc.frontend.arithmetic import add
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.control_flow import in_graph, scan
from graphc.frontend.cumulative import cumsum
from graphc.frontend.from_data import as_tensor
from graphc.frontend.indexing import gather
from graphc.frontend.joining import cat, stack
from graphc.frontend.modes import enable_grad, mode, no_grad
from graphc.frontend.movement import expand, part, reshape, select, squeeze, unsqueeze
from graphc.frontend.node import Node, edge_to, history, node_class
from graphc.frontend.pointwise import cast, clamp, clamp_min, exp, log, maximum, where
from graphc.frontend.reductions import mean, sum
from graphc.frontend.spatial import constant, places
from graphc.frontend.tape import Saved, freed_error, named
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.through_time import is_plain
from graphc.frontend.tracer import active
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

    ShapeError where sizes do not fit, UnsupportedError for other dtypes than float32 and float64, DTypeError for labels and
    lengths that are no integers, GraphcError for lengths beyond the input's and a blank that is no label, ArgumentError for
    another reduction.

    >>> log_probs = graphc.zeros(3, 1, 2).log_softmax(2)
    >>> F.ctc_loss(log_probs, graphc.tensor([[1]]), (3,), (1,))
    tensor(0.2877)
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
    loss = _at_once(x, labels, inputs, wanted, blank) if is_plain(x) else _losses(x, labels, inputs, wanted, blank)
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
    probabilities of all prefixes of the labels."""
    _, skips, scores = _prefixes(x, labels, blank)
    count = x._data.shape[0]
    paths = _begun(select(scores, 0, 0))
    if in_graph() and count > 1:
        def ahead(paths: Tensor, row: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
            score, t = row
            return _ahead(paths, skips, score, unsqueeze(inputs > t, 1)), None

        paths, _ = scan(ahead, paths, (part(scores, 0, 1, count), places(range(1, count))))
    else:
        for t in range(1, count):
            paths = _ahead(paths, skips, select(scores, 0, t), unsqueeze(inputs > t, 1))
    return _ended(paths, inputs, wanted, constant(float("inf"), x)) + _of_normalised(x, inputs)


def _prefixes(x: Tensor, labels: Tensor, blank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The labels with blanks before, between and after them, [N, 2 S + 1]; which may be reached from two places before; and
    the inputs for them, [T, N, 2 S + 1]."""
    steps, count, _ = x._data.shape
    size = 2 * labels._data.shape[1] + 1
    blanks = expand(places([[blank]]), tuple(labels._data.shape))
    symbols = cat([reshape(stack([blanks, labels], 2), (count, size - 1)), expand(places([[blank]]), (count, 1))], 1)
    # a blank between two different labels may be left out
    skips = places(range(size)) >= 2
    skips = skips & (symbols != _moved(symbols, 2, blank)) if size > 2 else expand(skips, (count, size))
    scores = gather(x, 2, expand(unsqueeze(symbols, 0), (steps, count, size)))
    return symbols, skips, where(scores < _NEVER, _NEVER, scores)


def _begun(score: Tensor) -> Tensor:
    """Prefixes after the first step: nothing but a blank, or the first label."""
    size = score._data.shape[1]
    return where(expand(places(range(size)) < 2, tuple(score._data.shape)), score, _NEVER)


@composite
def _ahead(paths: Tensor, skips: Tensor, score: Tensor, runs: Tensor) -> Tensor:
    """Prefixes after one step more, where the input still runs."""
    one, two = _moved(paths, 1, _NEVER), where(skips, _moved(paths, 2, _NEVER), _NEVER)
    return where(runs, _log_sum_exp(paths, one, two) + score, paths)


@composite
def _behind(rests: Tensor, skips: Tensor, score: Tensor, ends: Tensor, last: Tensor) -> Tensor:
    """The rests of the labels that begin one step before, out of those that begin here; `last` where the input `ends`."""
    one, two = _moved(rests, -1, _NEVER), _moved(where(skips, rests, _NEVER), -2, _NEVER)
    return where(ends, last, _log_sum_exp(rests, one, two)) + score


def _ended(paths: Tensor | None, inputs: Tensor, wanted: Tensor, impossible: Tensor) -> Tensor:
    """The losses, out of the prefixes after the last step."""
    if paths is None:
        return where(wanted == 0, 0.0, impossible)
    count = paths._data.shape[0]
    last = reshape(gather(paths, 1, unsqueeze(2 * wanted, 1)), (count,))
    before = reshape(gather(paths, 1, unsqueeze(clamp_min(2 * wanted - 1, 0), 1)), (count,))
    total = _log_sum_exp(last, where(wanted > 0, before, _NEVER))
    loss = where(total > _NEVER / 2, -total, impossible)
    return where(inputs > 0, loss, where(wanted == 0, 0.0, impossible))


def _moved(x: Tensor, count: int, fill: Any) -> Tensor:
    """[N, S] moved up by so many places in S, or down by a negative number."""
    size = x._data.shape[1]
    far = min(abs(count), size)
    kept = part(x, 1, 0, size - far) if count > 0 else part(x, 1, far, size)
    low, high = ((0, far), (0, 0)) if count > 0 else ((0, 0), (0, far))
    return emit(ops.pad, (kept,), {"low": low, "high": high, "value": fill})


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


# Eagerly: one node of the tape, whose backward is the backward recursion


class _Alignments(Node):
    """The node of the losses of a batch."""

    __slots__ = ("given", "paths", "saved")

    def __init__(self, x: Tensor, given: tuple[Tensor, Tensor, Tensor, int], paths: list[Tensor]) -> None:
        Node.__init__(self, (edge_to(x),))
        self.saved: Saved | None = Saved(x)
        self.given = given
        self.paths = paths

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        if self.saved is None:
            raise freed_error(self.name())
        x = self.saved.unpack(self)
        if mode.grad or active() is not None:  # to be differentiated again
            with enable_grad():
                losses = _losses(x, *self.given)
            return engine.run([(history(losses), cotangents[0])], keep_graph=True, create_graph=True, inputs=[history(x)],
                              accumulate=False)
        return [wrap(self._slope(x, cotangents[0]._data))]

    def _slope(self, x: Tensor, cotangent: np.ndarray) -> np.ndarray:
        """The probabilities, less how much of them the alignments use (formula 15 with that for the inputs of softmax)."""
        labels, inputs, wanted, blank = self.given
        symbols, skips, scores = _prefixes(x, labels, blank)
        steps, count, classes = x._data.shape
        size = symbols._data.shape[1]
        ends = 2 * wanted._data[:, None]
        at_end = (np.arange(size) == ends) | ((np.arange(size) == ends - 1) & (ends > 0))
        last = wrap(np.where(at_end, 0, _NEVER).astype(x._data.dtype))
        rests = wrap(np.full((count, size), _NEVER, x._data.dtype))
        used = np.empty((steps, count, size), x._data.dtype)
        for t in range(steps - 1, -1, -1):
            score = wrap(scores._data[t])
            rests = _behind(rests, skips, score, wrap(inputs._data[:, None] == t + 1), last)
            np.add(self.paths[t]._data, rests._data, out=used[t])
        with np.errstate(all="ignore"):
            used -= scores._data
            top = used.max(2, keepdims=True)
            total = np.log(np.exp(used[:1] - top[:1]).sum(2, keepdims=True)) + top[:1]
            used = np.where(total > _NEVER / 2, np.exp(np.minimum(used - total, 0)), 0)
            within = (np.arange(steps)[:, None] < inputs._data)[:, :, None]
            place = np.arange(steps * count).reshape(steps, count, 1) * classes + symbols._data
            shares = np.bincount(place.ravel(), np.where(within, used, 0).ravel(), steps * count * classes)
            slope = np.where(within, np.exp(x._data), 0) - shares.reshape(x._data.shape)
        return (slope * cotangent[:, None]).astype(x._data.dtype)

    def free(self) -> None:
        self.saved = None
        self.paths = []

    @property
    def is_freed(self) -> bool:
        return self.saved is None


def _at_once(x: Tensor, labels: Tensor, inputs: Tensor, wanted: Tensor, blank: int) -> Tensor:
    """`_losses` with one node of the tape."""
    paths: list[Tensor] = []
    with no_grad():
        _, skips, scores = _prefixes(x.detach(), labels, blank)
        for t in range(x._data.shape[0]):
            score = wrap(scores._data[t])
            paths.append(_ahead(paths[-1], skips, score, wrap(inputs._data[:, None] > t)) if paths else _begun(score))
        losses = _ended(paths[-1] if paths else None, inputs, wanted, constant(float("inf"), x))
    if mode.grad and edge_to(x) is not None:
        losses._node = node_class("CtcLossBackward0", _Alignments)(x, (labels, inputs, wanted, blank), paths)
    return losses
