"""Random numbers: streams, distributions, and state that can be saved."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import graphc

WEIGHTS = graphc.tensor([1.0, 2.0, 0.5, 4.0])


@pytest.mark.parametrize("draw", [
    lambda g: graphc.rand(7, generator=g), lambda g: graphc.randn(3, 5, generator=g),
    lambda g: graphc.rand(5, dtype=graphc.float64, generator=g), lambda g: graphc.randint(0, 9, (11,), generator=g),
    lambda g: graphc.randperm(13, generator=g), lambda g: graphc.empty(4).exponential_(generator=g),
    lambda g: graphc.bernoulli(graphc.full((9,), 0.5), generator=g),
    lambda g: graphc.multinomial(WEIGHTS, 30, True, generator=g),
])
def test_streams_repeat_resume_and_do_not_depend_on_each_other(draw) -> None:
    g = graphc.Generator().manual_seed(3)
    first = draw(g).tolist()
    state, place = g.get_state(), g.clone_state()
    second = draw(g).tolist()
    graphc.rand(100)
    assert g.initial_seed() == 3
    assert draw(graphc.Generator().manual_seed(3)).tolist() == first != second
    assert draw(pickle.loads(pickle.dumps(place))).tolist() == second == draw(place).tolist()
    g.set_state(state)
    assert draw(g).tolist() == second


def test_a_draw_is_the_philox_block_at_its_place() -> None:
    """Known answer of Philox4x32-10 for counter and key zero (Random123's kat_vectors): the first word is 6627e8d5."""
    words = graphc.random.bits((4,), graphc.Generator().manual_seed(0))
    assert [hex(w) for w in words.tolist()] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


def test_draws_take_whole_blocks() -> None:
    g = graphc.Generator().manual_seed(1)
    graphc.rand(5, generator=g)
    a = graphc.rand(3, generator=g)
    h = graphc.Generator().manual_seed(1)
    np.testing.assert_array_equal(a.numpy(), graphc.rand(11, generator=h).numpy()[8:])


@pytest.mark.parametrize("seed", [0, -1, 2**63, 2**64 - 1])
def test_seeds_of_64_bits(seed: int) -> None:
    assert graphc.Generator().manual_seed(seed).initial_seed() == seed % 2**64


def test_seeds_beyond_are_refused() -> None:
    with pytest.raises(RuntimeError, match="64 bits"):
        graphc.manual_seed(2**64)


@pytest.mark.parametrize("dtype", [graphc.float16, graphc.float32, graphc.float64])
def test_uniform_numbers(dtype: graphc.DType) -> None:
    graphc.manual_seed(0)
    x = graphc.rand(40_000, dtype=dtype)
    assert x.dtype is dtype and x.min().item() >= 0 and x.max().item() < 1
    histogram, _ = np.histogram(x.numpy().astype(np.float64), 16, (0, 1))
    chi_square = ((histogram - 2500) ** 2 / 2500).sum()
    assert chi_square < 45  # 15 degrees of freedom: exceeded once in 10,000


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64])
def test_normal_numbers(dtype: graphc.DType) -> None:
    graphc.manual_seed(0)
    x = np.sort(graphc.randn(40_000, dtype=dtype).numpy())
    expected = np.array([(1 + math.erf(v / math.sqrt(2))) / 2 for v in x])
    distance = np.abs(expected - np.arange(1, len(x) + 1) / len(x)).max()
    assert distance * math.sqrt(len(x)) < 2.0  # Kolmogorov and Smirnov: exceeded once in 1,500


def test_uniform_numbers_in_float64_have_53_bits() -> None:
    x = graphc.rand(1000, dtype=graphc.float64).numpy()
    scaled = x * 2.0**53
    assert (scaled == np.floor(scaled)).all() and (np.floor(x * 2.0**24) != x * 2.0**24).any()


@pytest.mark.parametrize("n", [0, 1, 2, 17, 1000])
def test_permutations(n: int) -> None:
    assert sorted(graphc.randperm(n).tolist()) == list(range(n))


def test_integers_reach_both_ends_and_may_be_negative() -> None:
    x = graphc.randint(-3, 3, (2000,))
    assert set(x.tolist()) == {-3, -2, -1, 0, 1, 2} and x.dtype is graphc.int64
    assert graphc.randint(5, (3,), dtype=graphc.float32).dtype is graphc.float32
    assert graphc.randint(low=0, high=1, size=(0,)).shape == (0,)
    with pytest.raises(RuntimeError, match="less than"):
        graphc.randint(3, 3, (1,))


def test_drawing_without_replacement_follows_the_weights() -> None:
    graphc.manual_seed(1)
    weights = graphc.tensor([1.0, 0.0, 3.0])
    drawn = graphc.stack([graphc.multinomial(weights, 2) for _ in range(400)])
    assert set(drawn.reshape(-1).tolist()) == {0, 2}
    first = (drawn[:, 0] == 2).float().mean().item()
    assert abs(first - 0.75) < 0.07
    assert graphc.multinomial(weights.expand(4, 3), 5, replacement=True).shape == (4, 5)
    with pytest.raises(RuntimeError, match="without replacement"):
        graphc.multinomial(graphc.ones(2), 3)


def test_fork_leaves_the_stream_where_it_was() -> None:
    graphc.manual_seed(4)
    with graphc.random.fork_rng():
        inside = graphc.rand(3)
    assert graphc.rand(3).tolist() == inside.tolist()


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout_keeps_the_mean(p: float) -> None:
    graphc.manual_seed(2)
    x = graphc.ones(20_000, requires_grad=True)
    y = graphc.nn.functional.dropout(x, p)
    share = (y == 0).float().mean().item()
    assert abs(share - p) < 0.02
    if p < 1:
        assert abs(y.mean().item() - 1) < 0.03 and set(y.tolist()) <= {0.0, np.float32(1 / (1 - p)).item()}
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    assert graphc.nn.functional.dropout(x, p, training=False) is x


@pytest.mark.parametrize("bad", [lambda: graphc.rand(2, dtype=graphc.int64), lambda: graphc.normal(0.0, -1.0, size=(1,)),
                                 lambda: graphc.bernoulli(graphc.tensor([1.5])), lambda: graphc.empty(1).uniform_(2, 1),
                                 lambda: graphc.nn.Dropout(1.5)])
def test_impossible_parameters_are_refused(bad) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        bad()
