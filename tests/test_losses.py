"""Loss functions: values, reductions, gradients and complaints, against formulas in NumPy."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special

import graphc
import graphc.nn.functional as F
from graphc import nn

RNG = np.random.default_rng(3)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def signs(*shape: int) -> np.ndarray:
    return RNG.choice([-1.0, 1.0], shape)


def log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    return scipy.special.log_softmax(x, axis)


X, Y, POSITIVE, UNIT = draw(4, 5), draw(4, 5), np.abs(draw(4, 5)) + 0.1, RNG.uniform(0.05, 0.95, (4, 5))
COUNTS, TARGETS, SIGNS = RNG.integers(0, 6, (4, 5)).astype(float), RNG.uniform(0, 1, (4, 5)), signs(4, 5)


def log_rate(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    large = counts > 1
    c = np.where(large, counts, 1)
    return np.exp(x) - counts * x + np.where(large, c * np.log(c) - c + 0.5 * np.log(2 * np.pi * c), 0)


ELEMENTWISE: dict[str, tuple[Callable[..., Any], Callable[..., np.ndarray], tuple[np.ndarray, ...]]] = {
    "mse": (F.mse_loss, lambda x, y: (x - y) ** 2, (X, Y)),
    "l1": (F.l1_loss, lambda x, y: np.abs(x - y), (X, Y)),
    "smooth_l1": (lambda *a, **k: F.smooth_l1_loss(*a, beta=0.7, **k),
                  lambda x, y: np.where(np.abs(x - y) < 0.7, (x - y) ** 2 / 1.4, np.abs(x - y) - 0.35), (X, Y)),
    "huber": (lambda *a, **k: F.huber_loss(*a, delta=0.7, **k),
              lambda x, y: np.where(np.abs(x - y) < 0.7, (x - y) ** 2 / 2, 0.7 * (np.abs(x - y) - 0.35)), (X, Y)),
    "bce": (F.binary_cross_entropy, lambda p, t: -(t * np.log(p) + (1 - t) * np.log(1 - p)), (UNIT, TARGETS)),
    "bce_with_logits": (F.binary_cross_entropy_with_logits,
                        lambda x, t: np.logaddexp(0, -x) * t + np.logaddexp(0, x) * (1 - t), (X, TARGETS)),
    "poisson": (lambda *a, **k: F.poisson_nll_loss(*a, full=True, **k), log_rate, (X, COUNTS)),
    "poisson_rate": (lambda *a, **k: F.poisson_nll_loss(*a, log_input=False, **k),
                     lambda x, c: x - c * np.log(x + 1e-8), (POSITIVE, COUNTS)),
    "gaussian": (lambda *a, **k: F.gaussian_nll_loss(*a, full=True, **k),
                 lambda x, y, v: 0.5 * (np.log(v) + (x - y) ** 2 / v + np.log(2 * np.pi)), (X, Y, POSITIVE)),
    "kl": (F.kl_div, lambda x, t: scipy.special.xlogy(t, t) - t * x, (X, TARGETS)),
    "kl_of_logs": (lambda *a, **k: F.kl_div(*a, log_target=True, **k), lambda x, t: np.exp(t) * (t - x), (X, Y)),
    "soft_margin": (F.soft_margin_loss, lambda x, s: np.logaddexp(0, -s * x), (X, SIGNS)),
    "hinge": (lambda *a, **k: F.hinge_embedding_loss(*a, margin=0.5, **k),
              lambda x, s: np.where(s == 1, x, np.maximum(0, 0.5 - x)), (X, SIGNS)),
    "ranking": (lambda *a, **k: F.margin_ranking_loss(*a, margin=0.5, **k),
                lambda x, y, s: np.maximum(0, -s * (x - y) + 0.5), (X, Y, SIGNS)),
    "cosine": (lambda *a, **k: F.cosine_embedding_loss(*a, margin=0.1, **k),
               lambda x, y, s: np.where(s == 1, 1 - cosines(x, y), np.maximum(0, cosines(x, y) - 0.1)), (X, Y, signs(4))),
    "triplet": (lambda *a, **k: F.triplet_margin_loss(*a, margin=0.8, p=3, **k),
                lambda a, p, n: np.maximum(0, 0.8 + distances(a, p, 3) - distances(a, n, 3)), (X, Y, POSITIVE)),
    "multilabel_soft": (F.multilabel_soft_margin_loss,
                        lambda x, t: (np.logaddexp(0, -x) * t + np.logaddexp(0, x) * (1 - t)).mean(1), (X, TARGETS)),
}  # fmt: skip


def cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x * y).sum(1) / np.sqrt(((x * x).sum(1) + 1e-12) * ((y * y).sum(1) + 1e-12))


def distances(x: np.ndarray, y: np.ndarray, p: float) -> np.ndarray:
    return (np.abs(x - y + 1e-6) ** p).sum(1) ** (1 / p)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_values_reductions_and_gradients(name: str) -> None:
    function, formula, arrays = ELEMENTWISE[name]
    tensors = [graphc.tensor(a) for a in arrays]
    losses = formula(*arrays)
    np.testing.assert_allclose(function(*tensors, reduction="none").numpy(), losses, atol=1e-9)
    np.testing.assert_allclose(function(*tensors).item(), losses.mean(), atol=1e-9)
    np.testing.assert_allclose(function(*tensors, reduction="sum").item(), losses.sum(), atol=1e-9)
    tensors[0].requires_grad_()
    assert graphc.autograd.gradcheck(lambda x: function(x, *tensors[1:], reduction="none"), (tensors[0],))
    with pytest.raises(ValueError, match=r"other is not .*valid"):
        function(*tensors, reduction="other")


@pytest.mark.parametrize("name", ["mse", "poisson", "soft_margin", "triplet", "multilabel_soft", "hinge"])
def test_compiled_losses_and_their_gradients(name: str) -> None:
    function, _, arrays = ELEMENTWISE[name]
    tensors = [graphc.tensor(arrays[0], requires_grad=True), *map(graphc.tensor, arrays[1:])]
    loss = function(*tensors)
    compiled = graphc.compile(lambda *t: function(*t))(*tensors)
    np.testing.assert_allclose(compiled.item(), loss.item(), rtol=1e-12)
    got, expected = (graphc.autograd.grad(x, tensors[0])[0].numpy() for x in (compiled, loss))
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("flags", "reduction"), [
    ({"size_average": True}, "mean"), ({"size_average": False}, "sum"), ({"reduce": False}, "none"),
    ({"size_average": False, "reduce": True}, "sum"), ({"size_average": True, "reduce": False}, "none"),
])  # fmt: skip
def test_the_flags_of_old(flags: dict[str, bool], reduction: str) -> None:
    x, y = graphc.tensor(X), graphc.tensor(Y)
    with pytest.warns(UserWarning, match=f"please use reduction='{reduction}' instead"):
        loss = F.mse_loss(x, y, **flags)
    np.testing.assert_array_equal(loss.numpy(), F.mse_loss(x, y, reduction=reduction).numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert nn.CrossEntropyLoss(**flags).reduction == reduction


def test_weights_of_elements() -> None:
    x, y, w = map(graphc.tensor, (X, Y, POSITIVE))
    expected = ((X - Y) ** 2 * POSITIVE).sum() / POSITIVE.sum()
    np.testing.assert_allclose(F.mse_loss(x, y, weight=w).item(), expected)
    with pytest.raises(ValueError, match="Weights and input must have the same size"):
        F.l1_loss(x, y, weight=w[0])


def test_bce_stays_finite_where_its_input_saturates() -> None:
    p = graphc.tensor([0.0, 1.0, 0.0], requires_grad=True)
    losses = F.binary_cross_entropy(p, graphc.tensor([1.0, 0.0, 0.0]), reduction="none")
    assert losses.tolist() == [100.0, 100.0, 0.0]
    losses.sum().backward()
    np.testing.assert_allclose(p.grad.numpy()[:2], [-1e12, 1e12], rtol=1e-6)
    x = graphc.tensor([200.0, -200.0], requires_grad=True)
    F.binary_cross_entropy(graphc.sigmoid(x), graphc.tensor([0.0, 1.0])).backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_variances_of_other_shapes() -> None:
    x, y = graphc.tensor(X), graphc.tensor(Y)
    v = np.abs(draw(4)) + 0.1
    expected = 0.5 * (np.log(v)[:, None] + (X - Y) ** 2 / v[:, None])
    for shape in ((4,), (4, 1)):
        got = F.gaussian_nll_loss(x, y, graphc.tensor(v.reshape(shape)), reduction="none")
        np.testing.assert_allclose(got.numpy(), expected)
    np.testing.assert_allclose(F.gaussian_nll_loss(x, y, 2.0).item(), 0.5 * (np.log(2) + (X - Y) ** 2 / 2).mean())
    small = graphc.tensor([1e-9], requires_grad=True)
    assert F.gaussian_nll_loss(graphc.ones(1), graphc.ones(1), small, eps=0.5).item() == pytest.approx(0.5 * math.log(0.5))
    for var, message in ((graphc.ones(5), "incorrect size"), (-graphc.ones(4, 5), "negative")):
        with pytest.raises(ValueError, match=message):
            F.gaussian_nll_loss(x, y, var)


# Classes

CLASSES = [((4,), ()), ((3, 4), (3,)), ((2, 4, 3), (2, 3)), ((2, 4, 2, 3), (2, 2, 3))]


def nll(scores: np.ndarray, target: np.ndarray, weight: np.ndarray, ignore: int) -> tuple[np.ndarray, np.ndarray]:
    """The losses and their weights."""
    rows = np.moveaxis(scores, 1, -1) if scores.ndim > 1 else scores
    safe = np.where(target == ignore, 0, target)
    weights = np.where(target == ignore, 0.0, weight[safe])
    return -np.take_along_axis(rows, safe[..., None], -1)[..., 0] * weights, weights


@pytest.mark.parametrize(("shape", "targets"), CLASSES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_of_class_indices(
    shape: tuple[int, ...], targets: tuple[int, ...], weighted: bool, smoothing: float
) -> None:
    x, target = draw(*shape), RNG.integers(0, 4, targets)
    weight = np.array([0.3, 1.0, 2.0, 0.5]) if weighted else np.ones(4)
    axis = 0 if len(shape) == 1 else 1
    scores = log_softmax(x, axis)
    losses, weights = nll(scores, target, weight, ignore=1)
    spread = weight.reshape([4 if i == axis else 1 for i in range(len(shape))])
    smooth = np.where(target == 1, 0.0, -(scores * spread).sum(axis)) / 4
    options: dict[str, Any] = {"weight": graphc.tensor(weight) if weighted else None, "ignore_index": 1}
    got = F.cross_entropy(graphc.tensor(x), graphc.tensor(target), label_smoothing=smoothing, reduction="none", **options)
    np.testing.assert_allclose(got.numpy(), (1 - smoothing) * losses + smoothing * smooth, atol=1e-12)
    if weights.sum():
        mean = F.cross_entropy(graphc.tensor(x), graphc.tensor(target), label_smoothing=smoothing, **options)
        expected = ((1 - smoothing) * losses.sum() + smoothing * smooth.sum()) / weights.sum()
        np.testing.assert_allclose(mean.item(), expected, atol=1e-12)
    if not smoothing:
        direct = F.nll_loss(graphc.tensor(scores), graphc.tensor(target), reduction="none", **options)
        np.testing.assert_allclose(direct.numpy(), losses, atol=1e-12)


@pytest.mark.parametrize(("shape", "targets"), CLASSES)
def test_cross_entropy_of_probabilities(shape: tuple[int, ...], targets: tuple[int, ...]) -> None:
    x, p, weight = draw(*shape), RNG.uniform(0, 1, shape), np.array([0.3, 1.0, 2.0, 0.5])
    axis = 0 if len(shape) == 1 else 1
    spread = weight.reshape([4 if i == axis else 1 for i in range(len(shape))])
    losses = -(log_softmax(x, axis) * (p * 0.9 + 0.1 / 4) * spread).sum(axis)
    arguments = (*map(graphc.tensor, (x, p)), graphc.tensor(weight))
    np.testing.assert_allclose(F.cross_entropy(*arguments, label_smoothing=0.1).item(), losses.mean())
    np.testing.assert_allclose(F.cross_entropy(*arguments, label_smoothing=0.1, reduction="none").numpy(), losses)


@pytest.mark.parametrize(("target", "options", "kind", "message"), [
    (graphc.tensor([0.0, 1.0]), {}, RuntimeError, "expected target dtype to be Long or Byte, but got Float"),
    (graphc.tensor([0, 3]), {}, IndexError, "Target 3 is out of bounds"),
    (graphc.tensor([0]), {}, ValueError, "Expected input batch_size"),
    (graphc.ones(2, 3), {"ignore_index": 1}, RuntimeError, "ignore_index is not supported for floating point target"),
    (graphc.ones(2, 3).long(), {}, RuntimeError, "Expected floating point type for target with class probabilities"),
    (graphc.tensor([0, 1]), {"label_smoothing": 2.0}, RuntimeError, "label_smoothing must be between 0.0 and 1.0"),
    (graphc.tensor([0, 1]), {"weight": graphc.ones(2)}, RuntimeError, "weight tensor should be defined either for all 3"),
])  # fmt: skip
def test_errors_of_cross_entropy(target: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        F.cross_entropy(graphc.ones(2, 3), target, **options)


def test_a_class_out_of_bounds_is_named_in_large_calls_too() -> None:
    x, target = graphc.zeros(6000, 3), graphc.zeros(6000, dtype=graphc.int64)
    target[17] = 9
    with pytest.raises(IndexError, match="Target 9 is out of bounds"):
        F.cross_entropy(x, target)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_multi_margin(p: int, weighted: bool) -> None:
    weight = np.array([0.3, 1.0, 2.0, 0.5, 0.9]) if weighted else np.ones(5)
    target = RNG.integers(0, 5, 4)
    expected = [sum(weight[t] * max(0, 0.7 - row[t] + row[j]) ** p for j in range(5) if j != t) / 5
                for row, t in zip(X, target)]
    given = graphc.tensor(weight) if weighted else None
    got = F.multi_margin_loss(graphc.tensor(X), graphc.tensor(target), p, 0.7, given, reduction="none")
    np.testing.assert_allclose(got.numpy(), expected)
    alone = F.multi_margin_loss(graphc.tensor(X[0]), graphc.tensor(target[0]), p, 0.7, given, reduction="none")
    assert alone.shape == () and alone.item() == pytest.approx(expected[0])
    with pytest.raises(ValueError, match="only p == 1 and p == 2 supported"):
        nn.MultiMarginLoss(p=3)
    with pytest.raises(RuntimeError, match="target out of range"):
        F.multi_margin_loss(graphc.tensor(X), graphc.tensor(target + 5))


def test_multilabel_margin() -> None:
    targets = np.array([[3, 0, -1, 1, 4], [-1, 2, 2, 2, 2], [0, 1, 2, 3, 4], [4, -1, -1, -1, -1]])
    expected = []
    for row, target in zip(X, targets):
        right = list(itertools.takewhile(lambda t: t >= 0, target))
        expected.append(sum(max(0, 1 - row[i] + row[j]) for i in right for j in range(5) if j not in right) / 5)
    got = F.multilabel_margin_loss(graphc.tensor(X), graphc.tensor(targets), reduction="none")
    np.testing.assert_allclose(got.numpy(), expected)
    assert F.multilabel_margin_loss(graphc.tensor(X[0]), graphc.tensor(targets[0])).item() == pytest.approx(expected[0])
    with pytest.raises(RuntimeError, match="out of range"):
        F.multilabel_margin_loss(graphc.tensor(X), graphc.tensor(targets + 3))


def test_linear_cross_entropy() -> None:
    x, w, b, target = draw(5, 3), draw(4, 2, 3), draw(4, 2), RNG.integers(0, 4, (5, 2))
    logits = np.einsum("ni,cki->nck", x, w) + b
    got = F.linear_cross_entropy(*map(graphc.tensor, (x, w, target)), linear_bias=graphc.tensor(b))
    np.testing.assert_allclose(got.item(), F.cross_entropy(graphc.tensor(logits), graphc.tensor(target)).item())
    layer = nn.LinearCrossEntropyLoss(3, 4, out_features=(2,), bias=True).double()
    layer.load_state_dict({"linear.weight": graphc.tensor(w.reshape(8, 3)), "linear.bias": graphc.tensor(b.reshape(8))})
    assert layer(graphc.tensor(x), graphc.tensor(target)).item() == pytest.approx(got.item())
    with pytest.raises(RuntimeError, match=r"last dimensions \(in_features\), got 2 and 3"):
        F.linear_cross_entropy(graphc.ones(5, 2), graphc.tensor(w), graphc.tensor(target))


# Triplets


def test_triplets_with_swap_and_a_distance_of_ones_own() -> None:
    a, p, n = (graphc.tensor(v) for v in (X, Y, POSITIVE))
    near, far, other = distances(X, Y, 2), distances(X, POSITIVE, 2), distances(Y, POSITIVE, 2)
    expected = np.maximum(0, 1 + near - np.minimum(far, other)).mean()
    np.testing.assert_allclose(nn.TripletMarginLoss(swap=True)(a, p, n).item(), expected, atol=1e-9)
    np.testing.assert_allclose(F.triplet_margin_with_distance_loss(a, p, n, swap=True).item(), expected, atol=1e-9)
    layer = nn.TripletMarginWithDistanceLoss(distance_function=lambda x, y: (x - y).abs().amax(1), margin=0.5)
    expected = np.maximum(0, 0.5 + np.abs(X - Y).max(1) - np.abs(X - POSITIVE).max(1)).mean()
    np.testing.assert_allclose(layer(a, p, n).item(), expected)
    with pytest.raises(ValueError, match="margin must be greater than 0"):
        F.triplet_margin_loss(a, p, n, margin=0)
    with pytest.raises(RuntimeError, match="anchor 2D, positive 1D, and negative 2D"):
        F.triplet_margin_loss(a, p[0], n)


def test_similarity_of_zero_vectors() -> None:
    x = graphc.zeros(2, 3, requires_grad=True)
    similarity = F.cosine_similarity(x, graphc.ones(2, 3))
    assert similarity.tolist() == [0.0, 0.0]
    similarity.sum().backward()
    assert np.isfinite(x.grad.numpy()).all()
    assert nn.CosineSimilarity(dim=0)(graphc.tensor(X), graphc.tensor(2 * X)).numpy() == pytest.approx(np.ones(5))
    np.testing.assert_allclose(nn.PairwiseDistance(3, keepdim=True)(graphc.tensor(X), graphc.tensor(Y)).numpy()[:, 0],
                               distances(X, Y, 3))


# Connectionist temporal classification


def alignments(scores: np.ndarray, labels: list[int]) -> float:
    """-log of the summed probabilities of all paths that become the labels when repeats and then blanks (0) go."""
    total = -math.inf
    for path in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        merged = [s for s, _ in itertools.groupby(path) if s != 0]
        if merged == labels:
            total = np.logaddexp(total, sum(scores[t, s] for t, s in enumerate(path)))
    return -total


LABELS = [[1, 1], [2], [], [1, 2, 1]]


@pytest.mark.parametrize("joined", [False, True])
def test_ctc_sums_over_all_alignments(joined: bool) -> None:
    scores = log_softmax(draw(5, 4, 3), 2)
    lengths = [5, 3, 4, 5]
    expected = [alignments(scores[:n, i], labels) for i, (n, labels) in enumerate(zip(lengths, LABELS))]
    targets = [*itertools.chain(*LABELS)] if joined else [labels + [0] * (3 - len(labels)) for labels in LABELS]
    counts = [len(labels) for labels in LABELS]
    for wrap in (graphc.tensor, tuple):
        arguments = (graphc.tensor(scores), graphc.tensor(targets), wrap(lengths), wrap(counts))
        np.testing.assert_allclose(F.ctc_loss(*arguments, reduction="none").numpy(), expected, rtol=1e-12)
        mean = np.mean(np.array(expected) / np.maximum(counts, 1))
        np.testing.assert_allclose(F.ctc_loss(*arguments).item(), mean, rtol=1e-12)


def test_ctc_of_one_sequence_and_another_blank() -> None:
    scores = log_softmax(draw(4, 3), 1)
    expected = alignments(scores[:, [2, 0, 1]], [1, 2])  # classes 0 and 1 behind blank 2
    sizes = graphc.tensor(4), graphc.tensor(2)
    got = F.ctc_loss(graphc.tensor(scores), graphc.tensor([0, 1]), *sizes, blank=2, reduction="none")
    assert got.shape == () and got.item() == pytest.approx(expected)


def test_ctc_without_an_alignment() -> None:
    scores = graphc.tensor(draw(2, 1, 3), requires_grad=True)
    arguments = (graphc.log_softmax(scores, 2), graphc.tensor([[1, 1]]), (2,), (2,))  # needs a blank between: three steps
    assert F.ctc_loss(*arguments).item() == math.inf
    loss = nn.CTCLoss(zero_infinity=True)(*arguments)
    loss.backward()
    assert loss.item() == 0 and not scores.grad.any()


def test_gradient_of_ctc_behind_log_softmax() -> None:
    x = graphc.tensor(draw(5, 2, 3), requires_grad=True)

    def loss(x: graphc.Tensor) -> graphc.Tensor:
        return F.ctc_loss(F.log_softmax(x, 2), graphc.tensor([[1, 2], [1, 0]]), (5, 4), (2, 1), reduction="sum")

    assert graphc.autograd.gradcheck(loss, (x,))
    np.testing.assert_allclose(graphc.compile(loss)(x).item(), loss(x).item(), rtol=1e-12)
    # by log_probs themselves it sums up to zero over the classes, as PyTorch's does
    scores = F.log_softmax(x, 2).detach().requires_grad_()
    F.ctc_loss(scores, graphc.tensor([[1, 2], [1, 0]]), (5, 4), (2, 1)).backward()
    np.testing.assert_allclose(scores.grad.sum(2).numpy(), 0, atol=1e-12)


@pytest.mark.parametrize(("change", "message"), [
    ({"blank": 5}, "blank must be in label range"), ({"input_lengths": (9,)}, "Expected input_lengths to have value at most 4"),
    ({"target_lengths": (3,)}, "size at least 3"), ({"input_lengths": (4, 4)}, "must be of size batch_size"),
    ({"log_probs": graphc.ones(4, 1, 3).half()}, "not implemented for float16"),
])  # fmt: skip
def test_errors_of_ctc(change: dict[str, Any], message: str) -> None:
    arguments = {"log_probs": graphc.ones(4, 1, 3), "targets": graphc.tensor([[1, 2]]), "input_lengths": (4,),
                 "target_lengths": (2,)}
    with pytest.raises(RuntimeError, match=message):
        F.ctc_loss(**{**arguments, **change})


# Very many classes


def test_adaptive_softmax() -> None:
    layer = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 12], div_value=2.0, head_bias=True).double()
    assert [tuple(p.shape) for p in layer.parameters()] == [(7, 8), (7,), (4, 8), (7, 4), (2, 8), (8, 2)]
    x, target = graphc.tensor(draw(6, 8)), graphc.tensor([0, 4, 5, 11, 12, 19])
    scores = layer.log_prob(x).detach().numpy()
    np.testing.assert_allclose(np.exp(scores).sum(1), 1)
    head = log_softmax((x @ layer.head.weight.T + layer.head.bias).detach().numpy(), 1)
    rare = log_softmax(layer.tail[1](x).detach().numpy(), 1)
    np.testing.assert_allclose(scores[:, 12:], head[:, 6:] + rare)
    output, loss = layer(x, target)
    np.testing.assert_allclose(output.detach().numpy(), scores[np.arange(6), target.numpy()])
    assert loss.item() == pytest.approx(-output.mean().item())
    assert layer(x[0], target[0]).output.shape == () and layer.predict(x).tolist() == scores.argmax(1).tolist()
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())
    with pytest.raises(ValueError, match="sorted in an increasing order"):
        nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 5])
    with pytest.raises(RuntimeError, match="Target values should be in"):
        layer(x, target + 1)


@pytest.mark.parametrize(("steps", "labels"), [(7, 3), (6, 0), (1, 1), (3, 4)])
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_ctc_at_once_is_ctc_step_by_step(
    steps: int, labels: int, zero_infinity: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(steps)
    x = graphc.tensor(rng.standard_normal((steps, 3, 5))).log_softmax(2).detach().requires_grad_()
    targets = graphc.tensor(rng.integers(1, 5, (3, max(labels, 1))))
    lengths = graphc.tensor(rng.integers(0, labels + 1, 3)), graphc.tensor(rng.integers(max(1, steps - 2), steps + 1, 3))

    def run() -> list[np.ndarray]:
        loss = F.ctc_loss(x, targets, lengths[1], lengths[0], reduction="none", zero_infinity=zero_infinity)
        weights = graphc.arange(1.0, 4.0, dtype=graphc.float64)
        (grad,) = graphc.autograd.grad(loss[loss.isfinite()].sum() + (where(loss) * weights).sum(), x)
        return [loss.detach().numpy(), grad.numpy()]

    def where(loss: graphc.Tensor) -> graphc.Tensor:
        return graphc.where(loss.isfinite(), loss, 0.0)

    whole = run()
    monkeypatch.setattr("graphc.frontend.ctc.is_plain", lambda *tensors: False)
    for one, other in zip(whole, run(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_ctc_has_second_derivatives() -> None:
    x = graphc.randn(4, 2, 3, dtype=graphc.float64, requires_grad=True)
    targets, lengths = graphc.tensor([[1, 2], [2, 2]]), ([4, 4], [2, 2])

    def loss(x: graphc.Tensor) -> graphc.Tensor:
        return F.ctc_loss(x.log_softmax(2), targets, *lengths)

    assert graphc.autograd.gradcheck(loss, (x,)) and graphc.autograd.gradgradcheck(loss, (x,))
    out = loss(x)
    out.backward()
    with pytest.raises(RuntimeError, match="second time"):
        out.backward()
