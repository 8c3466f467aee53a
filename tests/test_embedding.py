"""Tables of vectors: lookups, bags, and their gradients."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn

WORDS = np.array([2, 0, 4, 4, 1, 2, 3])
OFFSETS = np.array([0, 3, 3, 6])
BAGS = [WORDS[0:3], WORDS[3:3], WORDS[3:6], WORDS[6:7]]


def table(rows: int = 5, width: int = 3) -> graphc.Tensor:
    return graphc.tensor(np.random.default_rng(1).standard_normal((rows, width)), requires_grad=True)


def pooled(rows: np.ndarray, mode: str) -> np.ndarray:
    if not len(rows):
        return np.zeros(rows.shape[1])
    return {"sum": np.sum, "mean": np.mean, "max": np.max}[mode](rows, 0)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 4, -3])
def test_bags_by_offsets(mode: str, padding_idx: int | None, compiled: bool) -> None:
    weight = table()

    def run(words: graphc.Tensor, offsets: graphc.Tensor) -> graphc.Tensor:
        return F.embedding_bag(words, weight, offsets, mode=mode, padding_idx=padding_idx)

    got = (graphc.compile(run) if compiled else run)(graphc.tensor(WORDS), graphc.tensor(OFFSETS))
    skip = None if padding_idx is None else padding_idx % 5
    for bag, row in zip(BAGS, got):
        np.testing.assert_allclose(row.detach().numpy(), pooled(weight.detach().numpy()[bag[bag != skip]], mode), rtol=1e-12)
    got.sum().backward()
    wanted = np.zeros((5, 3))
    for bag in BAGS:
        bag = bag[bag != skip]
        if mode == "max" and len(bag):
            wanted[bag[weight.detach().numpy()[bag].argmax(0)], range(3)] += 1
        elif len(bag):
            np.add.at(wanted, bag, 1 if mode == "sum" else 1 / len(bag))
    np.testing.assert_allclose(weight.grad.numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_equal_size_and_a_last_offset(mode: str) -> None:
    weight = table()
    words = graphc.tensor([[0, 1], [4, 4]], dtype=graphc.int32)
    got = F.embedding_bag(words, weight, mode=mode)
    by_offsets = F.embedding_bag(words.view(-1), weight, graphc.tensor([0, 2, 4]), mode=mode, include_last_offset=True)
    np.testing.assert_allclose(got.detach().numpy(), by_offsets.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(got[0].detach().numpy(), pooled(weight.detach().numpy()[[0, 1]], mode), rtol=1e-12)
    assert tuple(F.embedding_bag(words[:0], weight, mode=mode).shape) == (0, 3)
    nothing = F.embedding_bag(words[:, :0], weight, mode=mode)
    assert tuple(nothing.shape) == (2, 3) and not nothing.any()


def test_samples_have_weights() -> None:
    weight, shares = table(), graphc.tensor(np.arange(1.0, 8.0), requires_grad=True)
    got = F.embedding_bag(graphc.tensor(WORDS), weight, graphc.tensor(OFFSETS), mode="sum", per_sample_weights=shares)
    np.testing.assert_allclose(got[0].detach().numpy(), np.array([1, 2, 3]) @ weight.detach().numpy()[WORDS[:3]], rtol=1e-12)
    got.sum().backward()
    np.testing.assert_allclose(shares.grad.numpy(), weight.detach().numpy()[WORDS].sum(1), rtol=1e-12)


@pytest.mark.parametrize("bags", [False, True])
def test_gradients_by_frequency_and_clipped_rows(bags: bool) -> None:
    weight = table()
    words = graphc.tensor([[1, 1, 3]])
    out = F.embedding_bag(words, weight, mode="sum", scale_grad_by_freq=True) if bags else F.embedding(
        words, weight, scale_grad_by_freq=True)
    out.sum().backward()
    np.testing.assert_allclose(weight.grad.numpy()[:, 0], [0, 1, 0, 1, 0])
    clipped = table()
    before = clipped.detach().numpy().copy()
    (F.embedding_bag if bags else F.embedding)(words, clipped, max_norm=0.1)
    lengths = np.linalg.norm(clipped.detach().numpy(), axis=1)
    np.testing.assert_allclose(lengths[[1, 3]], 0.1, rtol=1e-5)
    np.testing.assert_array_equal(clipped.detach().numpy()[[0, 2, 4]], before[[0, 2, 4]])


def test_modules() -> None:
    module = nn.Embedding(5, 3, padding_idx=-1)
    assert repr(module) == "Embedding(5, 3, padding_idx=4)" and not module.weight[4].any() and module.weight[0].any()
    module(graphc.tensor([4, 0])).sum().backward()
    assert module.weight.grad[:, 0].tolist() == [1, 0, 0, 0, 0]
    bag = nn.EmbeddingBag.from_pretrained(table().detach(), mode="sum", padding_idx=1)
    assert repr(bag) == "EmbeddingBag(5, 3, mode='sum', padding_idx=1)" and not bag.weight.requires_grad
    np.testing.assert_allclose(bag(graphc.tensor([[0, 1]])).numpy()[0], bag.weight.numpy()[0])
    assert nn.Embedding.from_pretrained(graphc.ones(2, 2), freeze=False).weight.requires_grad


@pytest.mark.parametrize("call, kind, message", [
    (lambda w: F.embedding(graphc.tensor([5]), w), IndexError, "out of range"),
    (lambda w: F.embedding(graphc.tensor([0.5]), w), RuntimeError, "scalar types: Long, Int"),
    (lambda w: F.embedding(graphc.tensor([0]), w, padding_idx=9), ValueError, "padding_idx"),
    (lambda w: F.embedding_bag(graphc.tensor([0]), w), ValueError, "offsets has to be a 1D Tensor"),
    (lambda w: F.embedding_bag(graphc.tensor([0]), w, graphc.tensor([1])), RuntimeError, r"offsets\[0\] has to be 0"),
    (lambda w: F.embedding_bag(graphc.tensor([0]), w, graphc.tensor([0, 7])), RuntimeError, r"offsets\[-1\]"),
    (lambda w: F.embedding_bag(graphc.tensor([[0]]), w, graphc.tensor([0])), ValueError, "input is 2D"),
    (lambda w: F.embedding_bag(graphc.tensor([[0]]), w, mode="min"), ValueError, "one of sum, mean or max"),
    (lambda w: F.embedding_bag(graphc.tensor([[0]]), w, per_sample_weights=w[:1, :1]), RuntimeError, "only supported for mode"),
    (lambda w: nn.Embedding(3, 2, _weight=w), ValueError, "Shape of weight"),
    (lambda w: F.one_hot(graphc.tensor([3]), 3), RuntimeError, "smaller than num_classes"),
    (lambda w: F.one_hot(graphc.tensor([], dtype=graphc.int64)), RuntimeError, "empty tensor"),
])
def test_misuse(call, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(table().detach())


def test_one_hot_of_nothing() -> None:
    assert F.one_hot(graphc.zeros(0, 2, dtype=graphc.int64), 3).shape == (0, 2, 3)


def test_bilinear_maps() -> None:
    module = nn.Bilinear(2, 3, 4, dtype=graphc.float64)
    x, y = graphc.randn(5, 2, dtype=graphc.float64), graphc.randn(5, 3, dtype=graphc.float64)
    wanted = np.einsum("ni,kij,nj->nk", x.numpy(), module.weight.detach().numpy(), y.numpy()) + module.bias.detach().numpy()
    np.testing.assert_allclose(module(x, y).detach().numpy(), wanted, rtol=1e-10)
    assert repr(module) == "Bilinear(in1_features=2, in2_features=3, out_features=4, bias=True)"
    with pytest.raises(RuntimeError, match="input2 size does not match"):
        F.bilinear(x, x, module.weight)
