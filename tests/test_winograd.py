"""Convolutions by Winograd's algorithm: which are computed so, and what they compute, on several CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cpus import code_for

import graphc
from graphc import nn
from graphc.config import override
from graphc.schedule import winograd

F = graphc.nn.functional
ERROR = 2e-5
"""Of the largest result: by how much one may be off."""


@pytest.fixture(params=["native", "haswell", "x86-64"])
def cpu(request: pytest.FixtureRequest) -> Iterator[str]:
    with override(numerics="strict"), code_for(request.param) as name:
        yield name


def convolution(images: int, inputs: int, outputs: int, size: tuple[int, int], kernel: int = 3) -> tuple[graphc.Tensor, ...]:
    rng = np.random.default_rng(inputs * outputs + size[0])
    shapes = (images, inputs, *size), (outputs, inputs, kernel, kernel)
    return tuple(graphc.from_numpy(rng.standard_normal(shape, np.float32)) for shape in shapes)


def is_transformed(f: Any, *args: graphc.Tensor) -> bool:
    return ".products" in graphc.compile(f, numerics="high").source(*args)


def check(f: Any, *args: graphc.Tensor) -> None:
    """Compare what it computes with the same in float64, at the first calls and once code enters natively."""
    exact = f(*(x.double() for x in args)).numpy()
    compiled = graphc.compile(f, numerics="high")
    for _ in range(3):
        np.testing.assert_allclose(compiled(*args).numpy(), exact, rtol=0, atol=ERROR * np.abs(exact).max())


@pytest.mark.parametrize(("images", "inputs", "outputs", "size", "padding"), [
    (1, 64, 64, (28, 28), 1), (2, 64, 96, (13, 22), 0), (3, 48, 64, (7, 31), 1), (1, 128, 128, (16, 40), 2),
    (5, 64, 64, (13, 13), 1), (1, 100, 64, (30, 22), 1),
])  # fmt: skip
def test_results(cpu: str, images: int, inputs: int, outputs: int, size: tuple[int, int], padding: int) -> None:
    x, w = convolution(images, inputs, outputs, size)

    def f(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
        return F.conv2d(x, w, padding=padding)

    assert is_transformed(f, x, w)
    check(f, x, w)


@pytest.mark.parametrize("transforms", winograd._TRANSFORMS, ids=lambda t: f"F({t.m}x{t.m}, 3x3)")
def test_each_tile(monkeypatch: pytest.MonkeyPatch, transforms: Any) -> None:
    monkeypatch.setattr(winograd, "_TRANSFORMS", (transforms,))
    monkeypatch.setattr(winograd, "_GAIN", 1e9)
    x, w = convolution(2, 16, 16, (11, 6))
    with override(cache_dir=None):
        assert is_transformed(lambda x, w: F.conv2d(x, w, padding=1), x, w)
        check(lambda x, w: F.conv2d(x, w, padding=1), x, w)


def test_images_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_NEAR_BYTES", 36 * 9 * 64 * 4 * 2)  # two images of three by three tiles
    x, w = convolution(5, 64, 64, (12, 12))
    with override(cache_dir=None):
        source = graphc.compile(lambda x, w: F.conv2d(x, w, padding=1), numerics="high").source(x, w)
        assert source.count("products") >= 3
        check(lambda x, w: F.relu(F.conv2d(x, w, padding=1)), x, w)


def test_the_epilogue_is_fused(cpu: str) -> None:
    x, w = convolution(2, 64, 64, (28, 29))
    bias = graphc.from_numpy(np.random.default_rng(1).standard_normal(64, np.float32))

    def f(x: graphc.Tensor, w: graphc.Tensor, bias: graphc.Tensor) -> graphc.Tensor:
        return F.relu(F.conv2d(x, w, bias, padding=1) + x)

    assert is_transformed(f, x, w, bias)
    check(f, x, w, bias)


def test_layers_whose_weights_are_kept() -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1),
                          nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)).eval()  # fmt: skip
    compiled, x = graphc.compile(model, numerics="high"), graphc.randn(1, 3, 28, 28)
    with graphc.no_grad():
        for _ in range(2):
            exact = model.double()(x.double()).numpy()
            model.float()
            for _ in range(6):
                np.testing.assert_allclose(compiled(x).numpy(), exact, rtol=0, atol=ERROR * np.abs(exact).max())
            for parameter in model.parameters():
                parameter.mul_(1.5)  # what was computed of them is no longer so


def test_gradients_are_computed_in_the_same_way() -> None:
    x, w = convolution(2, 64, 64, (28, 28))
    ct = convolution(2, 64, 64, (28, 28))[0]

    def grads(x: graphc.Tensor, w: graphc.Tensor, ct: graphc.Tensor) -> graphc.Tensor:
        x = x.detach().requires_grad_()
        F.conv2d(x, w, padding=1).backward(ct)
        assert x.grad is not None
        return x.grad

    assert is_transformed(grads, x, w, ct)
    check(grads, x, w, ct)


@pytest.mark.parametrize(("channels", "kernel", "settings"), [
    ((64, 64), 3, {"stride": 2}), ((64, 64), 3, {"dilation": 2}), ((64, 64), 3, {"groups": 2}), ((64, 64), 5, {}),
    ((64, 64), 1, {}), ((64, 17), 3, {}), ((3, 64), 3, {}), ((512, 512), 3, {"padding": 0}),
])  # fmt: skip
def test_what_is_computed_as_ever(channels: tuple[int, int], kernel: int, settings: dict[str, Any]) -> None:
    size = (3, 3) if settings.get("padding") == 0 else (16, 16)  # one result a channel: the weights would take longer to come
    x, w = convolution(1, channels[0], channels[1], size, kernel)
    w = w[:, : channels[0] // settings.get("groups", 1)].contiguous()

    def f(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
        return F.conv2d(x, w, **settings)

    assert not is_transformed(f, x, w)
    results = {graphc.compile(f, numerics=numerics)(x, w).numpy().tobytes() for numerics in ("strict", "high")}
    assert len(results) == 1


def test_other_dtypes_and_dimensions() -> None:
    x, w = convolution(1, 64, 64, (28, 28))
    for dtype in (graphc.float64, graphc.bfloat16):
        assert not is_transformed(lambda x, w: F.conv2d(x, w, padding=1), x.to(dtype), w.to(dtype))
    assert not is_transformed(lambda x, w: F.conv1d(x[:, :, 0], w[:, :, 0], padding=1), x, w)
    assert not is_transformed(lambda x, w: F.conv3d(x[:, :, None], w[:, :, None]), x, w)
    assert ".products" not in graphc.compile(lambda x, w: F.conv2d(x, w, padding=1)).source(x, w)


def test_numbers_that_are_none_stay_within_their_tiles() -> None:
    x, w = convolution(1, 64, 64, (28, 28))
    x[0, 3, 0, 0] = np.nan
    result = graphc.compile(lambda x, w: F.conv2d(x, w, padding=1), numerics="high")(x, w).numpy()
    assert np.isnan(result[0, :, :2, :2]).all()
    assert np.isfinite(result[0, :, 4:, :]).all()
    assert np.isfinite(result[0, :, :, 4:]).all()
