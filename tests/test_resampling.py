"""Resizing, grid sampling, patches and padding, against NumPy, SciPy and their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.ndimage

import graphc
import graphc.nn.functional as F
from graphc import nn

RNG = np.random.default_rng(2)
SIZES = (1, 2, 3, 5, 8, 13)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


# Interpolation


@pytest.mark.parametrize("want", SIZES)
def test_linear_is_numpys_interp(want: int) -> None:
    x = draw(5)
    aligned = F.interpolate(graphc.tensor(x)[None, None], want, mode="linear", align_corners=True)[0, 0]
    places = np.linspace(0, 4, want) if want > 1 else np.zeros(1)
    np.testing.assert_allclose(aligned.numpy(), np.interp(places, np.arange(5), x), atol=1e-12)
    squares = F.interpolate(graphc.tensor(x)[None, None], want, mode="linear")[0, 0]
    places = np.clip((np.arange(want) + 0.5) * 5 / want - 0.5, 0, 4)
    np.testing.assert_allclose(squares.numpy(), np.interp(places, np.arange(5), x), atol=1e-12)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("mode", "size", "want"), [("bilinear", (4, 5), (7, 3)), ("trilinear", (3, 4, 2), (5, 2, 6))])
def test_dimensions_are_resized_one_by_one(mode: str, size: tuple[int, ...], want: tuple[int, ...], aligned: bool) -> None:
    x = graphc.tensor(draw(2, 3, *size))
    expected = x
    for at, n in enumerate(want, 2):
        rows = expected.movedim(at, -1)
        flat = F.interpolate(rows.reshape(1, -1, rows.shape[-1]), n, mode="linear", align_corners=aligned)
        expected = flat.reshape(*rows.shape[:-1], n).movedim(-1, at)
    got = F.interpolate(x, want, mode=mode, align_corners=aligned)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("want", SIZES)
def test_nearest_and_nearest_exact(want: int) -> None:
    x = draw(1, 1, 5)
    places = np.arange(want) * 5 // want
    np.testing.assert_array_equal(F.interpolate(graphc.tensor(x), want).numpy(), x[..., places])
    centres = np.minimum(((np.arange(want) + 0.5) * 5 / want).astype(int), 4)
    np.testing.assert_array_equal(F.interpolate(graphc.tensor(x), want, mode="nearest-exact").numpy(), x[..., centres])


def test_cubic_reproduces_what_its_kernel_can() -> None:
    """Keys' kernel with a = -0.75 is exact for constants; at the pixels themselves, for everything."""
    flat = F.interpolate(graphc.full((1, 1, 4, 4), 3.0), (9, 7), mode="bicubic")
    np.testing.assert_allclose(flat.numpy(), 3.0, rtol=1e-6)
    x = draw(1, 1, 4, 5)
    finer = F.interpolate(graphc.tensor(x), (7, 9), mode="bicubic", align_corners=True).numpy()
    np.testing.assert_allclose(finer[..., ::2, ::2], x, atol=1e-12)
    middle = F.interpolate(graphc.tensor(x[:, :, :1]), (1, 9), mode="bicubic", align_corners=True).numpy()[0, 0, 0, 3]
    np.testing.assert_allclose(middle, x[0, 0, 0, :4] @ [-0.09375, 0.59375, 0.59375, -0.09375], atol=1e-12)


def test_area_is_adaptive_pooling() -> None:
    x = graphc.tensor(draw(1, 2, 7, 5))
    np.testing.assert_array_equal(F.interpolate(x, (3, 2), mode="area").numpy(), F.adaptive_avg_pool2d(x, (3, 2)).numpy())


@pytest.mark.parametrize(("mode", "radius"), [("bilinear", 1), ("bicubic", 2), ("lanczos", 3)])
@pytest.mark.parametrize("want", [2, 3, 7, 12])
def test_antialiasing_widens_the_kernel(mode: str, radius: int, want: int) -> None:
    def kernel(d: float) -> float:
        d = abs(d)
        if d >= radius:
            return 0.0
        if mode == "bilinear":
            return 1 - d
        if mode == "bicubic":
            return 1.5 * d**3 - 2.5 * d**2 + 1 if d < 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
        return float(np.sinc(d) * np.sinc(d / 3))

    size = 7
    x = draw(size)
    stretch = max(size / want, 1.0)
    expected = []
    for j in range(want):
        weights = np.array([kernel(((i + 0.5) - (j + 0.5) * size / want) / stretch) for i in range(size)])
        expected.append(x @ weights / weights.sum())
    got = F.interpolate(graphc.tensor(x)[None, None, None], (1, want), mode=mode, antialias=True)
    np.testing.assert_allclose(got[0, 0, 0].numpy(), expected, atol=1e-12)


def test_a_scale_factor_is_used_as_given_unless_recomputed() -> None:
    x = graphc.tensor(draw(1, 1, 10))
    given = F.interpolate(x, scale_factor=0.35, mode="linear")
    assert given.shape == (1, 1, 3)
    places = (np.arange(3) + 0.5) / 0.35 - 0.5
    np.testing.assert_allclose(given[0, 0].numpy(), np.interp(places, np.arange(10), x[0, 0].numpy()))
    fitted = F.interpolate(x, scale_factor=0.35, mode="linear", recompute_scale_factor=True)
    np.testing.assert_array_equal(fitted.numpy(), F.interpolate(x, 3, mode="linear").numpy())


def test_other_dtypes() -> None:
    x = graphc.tensor([[[[0, 100], [200, 255]]]], dtype=graphc.uint8)
    assert F.interpolate(x, (3, 3), mode="bilinear").tolist() == [[[[0, 50, 100], [100, 139, 178], [200, 228, 255]]]]
    assert F.interpolate(x.half(), 4, mode="bicubic").dtype == graphc.float16
    with pytest.raises(NotImplementedError, match="not implemented for int64"):
        F.interpolate(x.long(), 4)


def test_an_infinite_pixel_stays_among_its_neighbours() -> None:
    x = graphc.zeros(1, 1, 1, 9)
    x[..., 4] = math.inf
    out = F.interpolate(x, (1, 18), mode="bilinear")[0, 0, 0]
    assert out[:6].tolist() == [0.0] * 6 and out[-6:].tolist() == [0.0] * 6


@pytest.mark.parametrize(("arguments", "kind", "message"), [
    ({}, ValueError, "either size or scale_factor should be defined"),
    ({"size": 2, "scale_factor": 2}, ValueError, "only one of size or scale_factor"),
    ({"size": (2,)}, ValueError, "must have the same number of spatial dimensions"),
    ({"size": 2, "align_corners": True}, ValueError, "align_corners option can only be set"),
    ({"size": 2, "mode": "linear"}, NotImplementedError, "Got 4D input, but linear mode needs 3D input"),
    ({"size": 2, "mode": "other"}, NotImplementedError, "Only 3D, 4D and 5D input Tensors supported"),
    ({"size": 2, "antialias": True}, ValueError, "Anti-alias option is restricted"),
    ({"size": 2, "mode": "lanczos"}, ValueError, "requires antialias=True"),
    ({"size": 0}, RuntimeError, "should be greater than 0"),
    ({"size": 2, "recompute_scale_factor": True}, ValueError, "not meaningful with an explicit size"),
])  # fmt: skip
def test_errors_of_interpolation(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        F.interpolate(graphc.ones(1, 1, 3, 3), **arguments)


# Grids


def test_the_identity_grid_reads_the_image_itself() -> None:
    for shape in ((2, 3, 4, 5), (1, 2, 3, 4, 2)):
        x = graphc.tensor(draw(*shape))
        dims = len(shape) - 2
        theta = graphc.eye(dims, dims + 1, dtype=graphc.float64).expand(shape[0], dims, dims + 1)
        for aligned in (False, True):
            grid = F.affine_grid(theta, shape, align_corners=aligned)
            for mode in ("bilinear", "nearest"):
                got = F.grid_sample(x, grid, mode, align_corners=aligned)
                np.testing.assert_allclose(got.numpy(), x.numpy(), atol=1e-12)


@pytest.mark.parametrize(("padding", "scipys"), [("zeros", "grid-constant"), ("border", "nearest"), ("reflection", "reflect")])
@pytest.mark.parametrize("dims", [2, 3])
def test_linear_sampling_is_scipys(dims: int, padding: str, scipys: str) -> None:
    size = (5, 4, 6)[:dims]
    x, grid = draw(1, 1, *size), RNG.uniform(-2.5, 2.5, (1, *(3,) * dims, dims))
    got = F.grid_sample(graphc.tensor(x), graphc.tensor(grid), padding_mode=padding)
    places = [((grid[0, ..., dims - 1 - i] + 1) * n - 1) / 2 for i, n in enumerate(size)]
    expected = scipy.ndimage.map_coordinates(x[0, 0], places, order=1, mode=scipys)
    np.testing.assert_allclose(got[0, 0].numpy(), expected, atol=1e-12)


def test_bicubic_sampling_between_pixels() -> None:
    x = draw(1, 1, 1, 6)
    grid = graphc.tensor([[[[(2 * 2.5 + 1) / 6 - 1, 0.0]]]], dtype=graphc.float64)  # half way between pixels 2 and 3
    got = F.grid_sample(graphc.tensor(x), grid, "bicubic", "border").item()
    np.testing.assert_allclose(got, x[0, 0, 0, 1:5] @ [-0.09375, 0.59375, 0.59375, -0.09375], atol=1e-12)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_gradients_of_grid_sampling(mode: str, padding: str) -> None:
    x = graphc.tensor(draw(2, 2, 3, 4), requires_grad=True)
    grid = graphc.tensor(RNG.uniform(-1.3, 1.3, (2, 2, 3, 2)), requires_grad=True)
    assert graphc.autograd.gradcheck(lambda x, g: F.grid_sample(x, g, mode, padding, align_corners=True), (x, grid))


def test_numbers_for_the_modes() -> None:
    x, grid = graphc.tensor(draw(1, 1, 3, 3)), graphc.tensor(RNG.uniform(-1, 1, (1, 2, 2, 2)))
    np.testing.assert_array_equal(graphc.grid_sampler_2d(x, grid, 2, 1, True).numpy(),
                                  F.grid_sample(x, grid, "bicubic", "border", True).numpy())


@pytest.mark.parametrize(("call", "kind", "message"), [
    (lambda: F.grid_sample(graphc.ones(1, 1, 2, 2), graphc.ones(1, 2, 2, 3)), RuntimeError, "to have size 2 in last dimension"),
    (lambda: F.grid_sample(graphc.ones(1, 1, 2, 2), graphc.ones(2, 2, 2, 2)), RuntimeError, "same batch size"),
    (lambda: F.grid_sample(graphc.ones(1, 1, 2, 2), graphc.ones(1, 2, 2, 2), "cubic"), ValueError, "expected mode to be"),
    (lambda: F.affine_grid(graphc.ones(2, 3), (1, 1, 2, 2)), ValueError, "Expected a batch of 2D affine matrices"),
    (lambda: F.affine_grid(graphc.ones(1, 2, 3), (1, 1, 0, 2)), ValueError, "non-zero, positive output size"),
])  # fmt: skip
def test_errors_of_grids(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


# Patches


@pytest.mark.parametrize("settings", [(2, 1, 0, 1), ((2, 3), 1, 1, 2), (2, 2, (1, 0), (1, 3))])
def test_unfolding_makes_convolution_a_product(settings: tuple[Any, ...]) -> None:
    kernel, dilation, padding, stride = settings
    x = graphc.tensor(draw(2, 3, 7, 6))
    w = graphc.tensor(draw(4, 3, *((kernel,) * 2 if isinstance(kernel, int) else kernel)))
    image = F.conv2d(x, w, stride=stride, padding=padding, dilation=dilation)
    product = w.reshape(4, -1) @ F.unfold(x, kernel, dilation, padding, stride)
    np.testing.assert_allclose(product.numpy(), image.reshape(2, 4, -1).numpy(), atol=1e-12)


def test_folding_sums_where_blocks_overlap() -> None:
    x = graphc.tensor(draw(2, 3, 5, 6))
    columns = F.unfold(x, 3, padding=1)
    often = F.fold(F.unfold(graphc.ones_like(x), 3, padding=1), (5, 6), 3, padding=1)
    np.testing.assert_allclose((F.fold(columns, (5, 6), 3, padding=1) / often).numpy(), x.numpy(), atol=1e-12)
    np.testing.assert_array_equal(F.fold(columns[0], (5, 6), 3, padding=1).numpy(),
                                  F.fold(columns, (5, 6), 3, padding=1)[0].numpy())
    layer = nn.Fold((5, 6), 3, padding=1)
    assert repr(layer) == "Fold(output_size=(5, 6), kernel_size=3, dilation=1, padding=1, stride=1)"
    with pytest.raises(RuntimeError, match=r"5 \* 6 = 30, but got input.size"):
        layer(columns[:, :, 1:])
    with pytest.raises(RuntimeError, match="divisible by the product of kernel_size"):
        layer(columns[:, 1:])


def test_shuffles() -> None:
    x = draw(2, 12, 3, 4)
    shuffled = F.pixel_shuffle(graphc.tensor(x), 2)
    expected = x.reshape(2, 3, 2, 2, 3, 4).transpose(0, 1, 4, 2, 5, 3).reshape(2, 3, 6, 8)
    np.testing.assert_array_equal(shuffled.numpy(), expected)
    np.testing.assert_array_equal(F.pixel_unshuffle(shuffled, 2).numpy(), x)
    dealt = nn.ChannelShuffle(3)(graphc.arange(6.0).reshape(1, 6, 1))
    assert dealt.flatten().tolist() == [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]
    with pytest.raises(RuntimeError, match="not divisible by 9"):
        F.pixel_shuffle(graphc.tensor(x), 3)


# Padding


@pytest.mark.parametrize(("mode", "numpys"), [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
@pytest.mark.parametrize("pad", [(1, 2), (0, 3), (2, 1, 1, 0), (1, 1, 2, 0, 0, 1)])
def test_padding_is_numpys(mode: str, numpys: str, pad: tuple[int, ...]) -> None:
    dims = len(pad) // 2
    x = draw(2, *(4, 5, 4)[:dims])
    edges = [(0, 0), *((pad[2 * i], pad[2 * i + 1]) for i in reversed(range(dims)))]
    got = F.pad(graphc.tensor(x), pad, mode)
    np.testing.assert_array_equal(got.numpy(), np.pad(x, edges, mode=numpys))
    name = {"reflect": "Reflection", "replicate": "Replication", "circular": "Circular"}[mode]
    layer = getattr(nn, f"{name}Pad{dims}d")(pad)
    np.testing.assert_array_equal(layer(graphc.tensor(x)).numpy(), got.numpy())
    assert repr(layer) == f"{type(layer).__name__}({pad})"


def test_padding_with_a_number_and_cutting_off() -> None:
    x = graphc.arange(6).reshape(2, 3)
    assert graphc.constant_pad_nd(x, (1, -1, 0, 1), 7).tolist() == [[7, 0, 1], [7, 3, 4], [7, 7, 7]]
    assert nn.ConstantPad1d(1, 9.0)(x).tolist() == [[9, 0, 1, 2, 9], [9, 3, 4, 5, 9]]
    assert nn.ZeroPad2d((0, 0, 1, 0))(x[None]).tolist() == [[[0, 0, 0], [0, 1, 2], [3, 4, 5]]]
    with pytest.raises(NotImplementedError, match="Padding size 2 is not supported for 1D input"):
        F.pad(graphc.ones(3), (1, 1), "reflect")
    with pytest.raises(RuntimeError, match="less than the corresponding input dimension"):
        F.pad(graphc.ones(1, 1, 3), (3, 0), "reflect")


@pytest.mark.parametrize("function", [
    lambda x: F.interpolate(x, (5, 7), mode="bilinear"), lambda x: F.interpolate(x, scale_factor=2),
    lambda x: F.interpolate(x, (2, 7), mode="bicubic", antialias=True), lambda x: F.unfold(x, 2, stride=2),
    lambda x: F.fold(F.unfold(x, 2), (4, 4), 2), lambda x: F.pixel_unshuffle(x, 2), lambda x: F.pad(x, (2, 1, 0, 3), "reflect"),
])  # fmt: skip
def test_gradients_eager_and_compiled(function: Any) -> None:
    x = graphc.tensor(draw(1, 2, 4, 4), requires_grad=True)
    assert graphc.autograd.gradcheck(function, (x,))
    compiled = graphc.compile(function)
    np.testing.assert_allclose(compiled(x).detach().numpy(), function(x).detach().numpy(), rtol=1e-12, atol=1e-14)
    got, expected = (graphc.autograd.grad(f(x).square().sum(), x)[0].numpy() for f in (compiled, function))
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)
