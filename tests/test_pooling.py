"""Pooling of all kinds, against loops over the windows."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn

RNG = np.random.default_rng(1)
MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
ADAPTIVE_AVG = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
ADAPTIVE_MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
UNPOOL = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}
SIZE = (7, 6, 5)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def count(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    found = (math.ceil(span / stride) if ceil_mode else span // stride) + 1
    return found - (ceil_mode and (found - 1) * stride >= size + padding)


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> list[list[int]]:
    """The places of each window, those in the padding included."""
    return [[t * stride - padding + k * dilation for k in range(kernel)]
            for t in range(count(size, kernel, stride, padding, dilation, ceil_mode))]


SETTINGS = list(itertools.product((2, 3), (1, 2, 3), (0, 1), (1, 2), (False, True)))


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "ceil_mode"), SETTINGS)
def test_max_pool_and_its_places(kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> None:
    x = draw(2, 3, 7, 6)
    got, places = F.max_pool2d(graphc.tensor(x), kernel, stride, padding, dilation, ceil_mode, return_indices=True)
    lines = [windows(n, kernel, stride, padding, dilation, ceil_mode) for n in (7, 6)]
    assert got.shape == (2, 3, len(lines[0]), len(lines[1]))
    for i, j in itertools.product(*map(range, got.shape[2:])):
        rows, columns = ([p for p in line if 0 <= p < n] for line, n in ((lines[0][i], 7), (lines[1][j], 6)))
        part = x[:, :, rows][:, :, :, columns]
        np.testing.assert_array_equal(got[:, :, i, j].numpy(), part.max((2, 3)))
    flat = np.take_along_axis(x.reshape(2, 3, -1), places.numpy().reshape(2, 3, -1), 2)
    np.testing.assert_array_equal(flat.reshape(got.shape), got.numpy())


@pytest.mark.parametrize("dims", MAX)
def test_ties_and_their_gradient_go_to_the_first_place(dims: int) -> None:
    x = graphc.ones(1, 1, *SIZE[:dims], requires_grad=True)
    out, places = MAX[dims](x, 2, return_indices=True)
    first = np.ravel_multi_index(np.meshgrid(*[range(0, n // 2 * 2, 2) for n in SIZE[:dims]], indexing="ij"), SIZE[:dims])
    np.testing.assert_array_equal(places[0, 0].numpy(), first)
    out.sum().backward()
    assert set(np.flatnonzero(x.grad.numpy())) == set(first.flatten())


def test_a_window_of_minus_infinity_names_a_place_of_the_input() -> None:
    _, places = F.max_pool1d(graphc.full((1, 1, 3), -math.inf), 3, 1, 1, return_indices=True)
    assert places.tolist() == [[[0, 0, 1]]]


def test_integers_are_pooled() -> None:
    x = graphc.tensor([[[-5, -7, -6, -9]]])
    assert F.max_pool1d(x, 2, padding=1, stride=2).tolist() == [[[-5, -6, -9]]]
    assert F.avg_pool2d(graphc.tensor([[[-5, -7], [-6, -9]]]), 2).item() == -6


@pytest.mark.parametrize("dims", AVG)
@pytest.mark.parametrize(("kernel", "stride", "padding", "include", "ceil_mode"),
                         list(itertools.product((2, 3), (1, 2), (0, 1), (False, True), (False, True)))[::2])
def test_avg_pool(dims: int, kernel: int, stride: int, padding: int, include: bool, ceil_mode: bool) -> None:
    size = SIZE[:dims]
    x = draw(1, 2, *size)
    got = AVG[dims](graphc.tensor(x), kernel, stride, padding, ceil_mode, include).numpy()
    lines = [windows(n, kernel, stride, padding, 1, ceil_mode) for n in size]
    assert got.shape[2:] == tuple(map(len, lines))
    for place in np.ndindex(*got.shape[2:]):
        inside = [[p for p in lines[d][t] if 0 <= p < size[d]] for d, t in enumerate(place)]
        # padding counts, but not what lies beyond it
        counted = [[p for p in lines[d][t] if p < size[d] + padding] for d, t in enumerate(place)] if include else inside
        part = x[np.ix_([0], [0, 1], *inside)].sum(tuple(range(2, 2 + dims)))
        np.testing.assert_allclose(got[(slice(None), slice(None), *place)], part / math.prod(map(len, counted)), atol=1e-12)


def test_divisor_override() -> None:
    x = graphc.arange(8.0).reshape(1, 2, 4)
    assert F.avg_pool2d(x, 2, divisor_override=2).tolist() == [[[5.0, 9.0]]]
    with pytest.raises(RuntimeError, match="divisor must be not zero"):
        F.avg_pool2d(x, 2, divisor_override=0)


@pytest.mark.parametrize("dims", ADAPTIVE_AVG)
@pytest.mark.parametrize("wanted", [1, 2, 3, 5, 7, 9])
def test_adaptive_pooling(dims: int, wanted: int) -> None:
    size = SIZE[:dims]
    x = draw(2, 1, *size)
    mean = ADAPTIVE_AVG[dims](graphc.tensor(x), wanted).numpy()
    most, places = ADAPTIVE_MAX[dims](graphc.tensor(x), wanted, return_indices=True)
    for place in np.ndindex(*(wanted,) * dims):
        spans = tuple(slice(j * n // wanted, -(-(j + 1) * n // wanted)) for j, n in zip(place, size))
        part = x[(slice(None), slice(None), *spans)].reshape(2, 1, -1)
        np.testing.assert_allclose(mean[(slice(None), slice(None), *place)], part.mean(2), atol=1e-12)
        np.testing.assert_array_equal(most.numpy()[(slice(None), slice(None), *place)], part.max(2))
    flat = np.take_along_axis(x.reshape(2, 1, -1), places.numpy().reshape(2, 1, -1), 2)
    np.testing.assert_array_equal(flat, most.numpy().reshape(2, 1, -1))


def test_adaptive_pooling_keeps_infinities_apart() -> None:
    x = graphc.tensor([[[1.0, math.inf, 2.0, 3.0, 4.0]]])
    np.testing.assert_allclose(F.adaptive_avg_pool1d(x, 3).numpy(), [[[math.inf, math.inf, 3.5]]])


def test_adaptive_output_size_of_none_keeps_the_input_size() -> None:
    assert F.adaptive_avg_pool2d(graphc.ones(1, 4, 5), (None, 2)).shape == (1, 4, 2)
    assert nn.AdaptiveMaxPool2d((2, None))(graphc.ones(1, 4, 5)).shape == (1, 2, 5)


@pytest.mark.parametrize("dims", UNPOOL)
def test_unpooling_puts_the_maxima_back(dims: int) -> None:
    size = (8, 6, 4)[:dims]
    x = graphc.tensor(draw(2, 3, *size))
    most, places = MAX[dims](x, 2, return_indices=True)
    back = UNPOOL[dims](most, places, 2)
    assert back.shape == x.shape
    kept = back != 0
    assert kept.sum().item() == most.numel()
    np.testing.assert_array_equal(back[kept].numpy(), x[kept].numpy())


def test_a_place_that_two_windows_name_holds_its_element_once() -> None:
    x = graphc.tensor([[[1.0, 5.0, 2.0, 3.0]]])
    most, places = F.max_pool1d(x, 2, 1, return_indices=True)
    assert places.tolist() == [[[1, 1, 3]]]
    most.requires_grad_()
    back = F.max_unpool1d(most, places, 2, 1)
    assert back.tolist() == [[[0.0, 5.0, 0.0, 3.0]]]
    (back * graphc.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert most.grad.tolist() == [[[2.0, 2.0, 4.0]]]


def test_unpooling_to_a_size() -> None:
    most, places = F.max_pool1d(graphc.arange(5.0).reshape(1, 1, 5), 2, return_indices=True)
    assert nn.MaxUnpool1d(2)(most, places, output_size=(1, 1, 5)).shape == (1, 1, 5)
    with pytest.raises(ValueError, match="invalid output_size"):
        F.max_unpool1d(most, places, 2, output_size=(9,))
    with pytest.raises(RuntimeError, match="invalid max index"):
        F.max_unpool1d(most, places + 9, 2)


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_power_pooling(p: float) -> None:
    x = np.abs(draw(1, 2, 6, 4))
    got = F.lp_pool2d(graphc.tensor(x), p, 2).numpy()
    blocks = x.reshape(1, 2, 3, 2, 2, 2) ** p
    np.testing.assert_allclose(got, blocks.sum((3, 5)) ** (1 / p), rtol=1e-12)
    np.testing.assert_array_equal(F.lp_pool1d(graphc.tensor(-x[0]), math.inf, 2).numpy(),
                                  F.max_pool1d(graphc.tensor(x[0]), 2).numpy())


def test_power_pooling_of_zeros_has_no_gradient() -> None:
    x = graphc.zeros(1, 1, 4, requires_grad=True)
    F.lp_pool1d(x, 2, 2).sum().backward()
    assert not x.grad.any()


def test_fractional_pooling_begins_where_the_samples_say() -> None:
    x = graphc.arange(23.0).reshape(1, 1, 1, 23).expand(1, 1, 2, 23)
    sample = graphc.tensor([[[0.6, 0.1]]])  # of images, the number for the width first
    out, places = F.fractional_max_pool2d(x, (1, 1), (1, 9), return_indices=True, _random_samples=sample)
    step = 22 / 8
    begins = [int((i + 0.6) * step) - int(0.6 * step) for i in range(8)] + [22]
    assert out[0, 0, 0].tolist() == begins and places[0, 0, 0].tolist() == [23 + b for b in begins]


def test_fractional_pooling_draws_by_itself() -> None:
    graphc.manual_seed(0)
    x = graphc.tensor(draw(3, 4, 9, 9), requires_grad=True)
    out, places = F.fractional_max_pool2d(x, 2, output_ratio=0.5, return_indices=True)
    assert out.shape == (3, 4, 4, 4)
    np.testing.assert_array_equal(out.detach().numpy().reshape(3, 4, -1),
                                  np.take_along_axis(x.detach().numpy().reshape(3, 4, -1), places.numpy().reshape(3, 4, -1), 2))
    out.sum().backward()
    assert x.grad.sum().item() == out.numel()
    assert nn.FractionalMaxPool3d(2, (2, 3, 4))(graphc.ones(1, 5, 5, 5)).shape == (1, 2, 3, 4)
    with pytest.raises(ValueError, match="output_size or an output_ratio"):
        F.fractional_max_pool2d(x, 2)
    with pytest.raises(RuntimeError, match="too large relative to input"):
        F.fractional_max_pool2d(x, 2, 9)


@pytest.mark.parametrize("function", [
    lambda x: F.max_pool2d(x, 3, 2, 1), lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), lambda x: F.lp_pool2d(x, 3, 2),
    lambda x: F.adaptive_avg_pool2d(x, (4, 3)), lambda x: F.adaptive_max_pool2d(x, (4, 3)),
    lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
])  # fmt: skip
def test_gradients_eager_and_compiled(function: Any) -> None:
    x = graphc.tensor(np.abs(draw(1, 2, 7, 6)), requires_grad=True)
    assert graphc.autograd.gradcheck(function, (x,))
    compiled = graphc.compile(function)
    np.testing.assert_allclose(compiled(x).detach().numpy(), function(x).detach().numpy(), rtol=1e-12)
    got, expected = (graphc.autograd.grad(f(x).square().sum(), x)[0].numpy() for f in (compiled, function))
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: F.max_pool2d(graphc.ones(1, 1, 4, 4), 2, padding=2), "at most half of effective kernel size"),
    (lambda: F.max_pool2d(graphc.ones(4, 4), 2), "Expected 3D .unbatched. or 4D .batched. input to max_pool2d"),
    (lambda: F.max_pool1d(graphc.ones(1, 1, 2), 5), "Output size is too small"),
    (lambda: F.max_pool1d(graphc.ones(1, 1, 4), 2, stride=0), "stride should not be zero"),
    (lambda: F.avg_pool1d(graphc.ones(1, 1, 4), (2, 2)), "2 numbers for 1 spatial dimensions"),
    (lambda: F.adaptive_max_pool1d(graphc.ones(1, 1, 0), 2), "non-zero size for non-batch dimensions"),
    (lambda: F.adaptive_avg_pool1d(graphc.ones(1, 1, 3), -1), "greater than or equal to 0"),
])  # fmt: skip
def test_errors_say_what_does_not_fit(call: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        call()


def test_the_backward_pass_of_a_maximum_keeps_places(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.frontend import composite

    made: list[Any] = []
    start = composite._Form.__init__
    monkeypatch.setattr(composite._Form, "__init__", lambda self, *args: (start(self, *args), made.append(self))[0])
    monkeypatch.setattr(composite, "LARGE", 1)
    x = graphc.arange(2.0 * 3 * 11 * 13).reshape(2, 3, 11, 13).requires_grad_()
    F.max_pool2d(x, 3, 2, 1).sum().backward()
    assert [v.type.size for v in made[0].function._graph.outputs] == [2 * 3 * 6 * 7] * 2
    assert x.grad.sum() == 2 * 3 * 6 * 7
