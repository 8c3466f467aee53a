"""Convolution and transposed convolution: against loops, and against each other."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
import graphc.ops as ops
from graphc import nn
from graphc.compiler import CompiledGraph
from graphc.ir import Builder
from graphc.kernel import Gemm
from graphc.kernel_key import kernel_key
from graphc.passes import pipeline
from graphc.schedule import Machine, lower
from graphc.types import TensorType, float32

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def convolution(x: np.ndarray, w: np.ndarray, stride: int, padding: int, dilation: int, groups: int) -> np.ndarray:
    """The definition, for [N, C, L] and [O, C / groups, K]."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding)))
    count, kernel = w.shape[0], w.shape[2]
    length = (x.shape[2] - dilation * (kernel - 1) - 1) // stride + 1
    out = np.zeros((x.shape[0], count, length))
    per_group = x.shape[1] // groups
    for o, t in itertools.product(range(count), range(length)):
        first = o // (count // groups) * per_group
        for k in range(kernel):
            out[:, o, t] += x[:, first : first + per_group, t * stride + k * dilation] @ w[o, :, k]
    return out


SETTINGS = list(itertools.product((1, 2, 3), (0, 1, 2), (1, 2), (1, 2)))


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), SETTINGS)
def test_convolution_is_its_definition(stride: int, padding: int, dilation: int, groups: int) -> None:
    x, w, b = draw(2, 4, 9), draw(6, 4 // groups, 3), draw(6)
    got = F.conv1d(*map(graphc.tensor, (x, w, b)), stride=stride, padding=padding, dilation=dilation, groups=groups)
    expected = convolution(x, w, stride, padding, dilation, groups) + b[:, None]
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


FUNCTIONS = {1: (F.conv1d, F.conv_transpose1d), 2: (F.conv2d, F.conv_transpose2d), 3: (F.conv3d, F.conv_transpose3d)}


@pytest.mark.parametrize("dims", FUNCTIONS)
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), SETTINGS[::3])
def test_transposed_convolution_is_the_adjoint(dims: int, stride: int, padding: int, dilation: int, groups: int) -> None:
    """<conv(x), y> == <x, conv_transpose(y)>, with output_padding for the rows of x that the convolution leaves out."""
    forward, transposed = FUNCTIONS[dims]
    size = (8, 7, 6)[:dims]
    x, w = graphc.tensor(draw(2, 4, *size)), graphc.tensor(draw(6, 4 // groups, *(3,) * dims))
    span = [n + 2 * padding - dilation * 2 - 1 for n in size]
    if min(span) < 0:
        pytest.skip("the kernel is larger than the input")
    image = forward(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    y = graphc.tensor(draw(*image.shape))
    rest = [s % stride for s in span]
    back = transposed(y, w, stride=stride, padding=padding, output_padding=rest, dilation=dilation, groups=groups)
    assert back.shape == x.shape
    np.testing.assert_allclose((image * y).sum().item(), (x * back).sum().item(), rtol=1e-10)


@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "groups"), [
    ((9, 8), (3, 3), (2, 2), (1, 1), 1),
    ((11, 11), (5, 5), (2, 2), (0, 2), 2),  # no two dimensions alike
    ((13, 10), (3, 5), (2, 1), (0, 0), 2),
    ((8, 9), (5, 5), (2, 3), (1, 2), 4),
    ((1, 7), (3, 4), (2, 3), (1, 3), 2),  # a phase without a place
    ((12, 9), (4, 4), (2, 2), (1, 1), 8),
    ((8, 9, 10), (6, 4, 4), (1, 2, 3), (1, 1, 0), 2),
])  # fmt: skip
def test_the_gradient_with_strides_is_the_adjoint(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], groups: int,
) -> None:
    conv = FUNCTIONS[len(size)][0]
    x = graphc.tensor(draw(2, 8, *size)).double()
    w = graphc.tensor(draw(16, 8 // groups, *kernel)).double()

    def gradient(x: graphc.Tensor) -> graphc.Tensor:
        x = x.detach().requires_grad_()
        return graphc.autograd.grad(conv(x, w, None, stride, padding, groups=groups).square().sum(), x)[0]

    y = conv(x, w, None, stride, padding, groups=groups)
    for f in (gradient, graphc.compile(gradient)):
        for _ in range(3):
            z = graphc.tensor(draw(2, 8, *size)).double()
            expected = (2 * y * conv(z, w, None, stride, padding, groups=groups)).sum().item()
            assert (f(x) * z).sum().item() == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_a_cotangent_that_reaches_nowhere() -> None:
    g, w = TensorType(float32, (1, 2, 1)), TensorType(float32, (2, 1, 3))
    attrs = {"stride": (2,), "padding": ((5, 5),), "dilation": (1,), "groups": 2, "size": (6,)}
    builder = Builder("test")
    graph = builder.finish([ops.conv_input_grad(builder.input("g", g), builder.input("w", w), **attrs)])
    arrays = [np.ones((1, 2, 1), np.float32), np.ones((2, 1, 3), np.float32)]
    np.testing.assert_array_equal(CompiledGraph(graph)(*arrays)[0], np.zeros((1, 2, 6), np.float32))


def test_output_padding_beyond_the_stride() -> None:
    """As long as it is below the dilation: the rows at the end are zero but for the bias."""
    x, w, b = graphc.tensor(draw(1, 2, 3)), graphc.tensor(draw(2, 1, 2)), graphc.tensor([5.0], dtype=graphc.float64)
    out = F.conv_transpose1d(x, w, b, stride=1, output_padding=2, dilation=3)
    assert out.shape == (1, 1, 8)
    np.testing.assert_array_equal(out[0, 0, 6:].numpy(), [5.0, 5.0])


@pytest.mark.parametrize("settings", [
    {}, {"stride": 2, "output_padding": 1}, {"padding": 1, "groups": 2}, {"stride": 1, "dilation": 2, "output_padding": 1},
])  # fmt: skip
def test_gradients_of_transposed_convolution(settings: dict[str, Any]) -> None:
    groups = settings.get("groups", 1)
    inputs = [graphc.tensor(draw(*shape), requires_grad=True) for shape in ((2, 4, 3), (4, 3, 2), (3 * groups,))]
    assert graphc.autograd.gradcheck(lambda *t: F.conv_transpose1d(*t, **settings), inputs)
    assert graphc.autograd.gradgradcheck(lambda *t: F.conv_transpose1d(*t, **settings), inputs)


@pytest.mark.parametrize("dims", FUNCTIONS)
def test_input_without_a_batch(dims: int) -> None:
    for function in FUNCTIONS[dims]:
        x, w = graphc.tensor(draw(2, *(5,) * dims)), graphc.tensor(draw(2, 2, *(2,) * dims))
        np.testing.assert_array_equal(function(x, w).numpy(), function(x[None], w)[0].numpy())


@pytest.mark.parametrize("dims", FUNCTIONS)
def test_empty_batch(dims: int) -> None:
    for function in FUNCTIONS[dims]:
        x = graphc.zeros(0, 2, *(5,) * dims, requires_grad=True)
        w = graphc.ones(2, 2, *(2,) * dims, requires_grad=True)
        out = function(x, w)
        out.sum().backward()
        assert out.shape[:2] == (0, 2) and x.grad.shape == x.shape and not w.grad.any()


def test_same_padding_keeps_the_size() -> None:
    x, w = graphc.tensor(draw(1, 1, 7)), graphc.tensor(draw(1, 1, 4))
    out = F.conv1d(x, w, padding="same")
    np.testing.assert_allclose(out.numpy(), F.conv1d(F.pad(x, (1, 2)), w).numpy())
    with pytest.raises(RuntimeError, match="not supported for strided"):
        F.conv1d(x, w, stride=2, padding="same")


def test_half_precision_is_summed_in_single() -> None:
    x, w = graphc.ones(1, 1, 4096, dtype=graphc.float16), graphc.ones(1, 1, 4096, dtype=graphc.float16)
    assert F.conv1d(x, w).item() == 4096.0  # half precision counts by ones up to 2048
    y = F.conv_transpose1d(graphc.ones(1, 4096, 1, dtype=graphc.bfloat16), graphc.ones(4096, 1, 1, dtype=graphc.bfloat16))
    assert y.dtype == graphc.bfloat16 and y.item() == 4096.0


def test_conv_tbc() -> None:
    x, w, b = (graphc.tensor(draw(*shape)) for shape in ((6, 2, 3), (3, 3, 4), (4,)))
    expected = F.conv1d(x.permute(1, 2, 0), w.permute(2, 1, 0), b, padding=1).permute(2, 0, 1)
    np.testing.assert_array_equal(graphc.conv_tbc(x, w, b, 1).numpy(), expected.numpy())


@pytest.mark.parametrize(("call", "message"), [
    (lambda: F.conv1d(graphc.ones(1, 2, 5), graphc.ones(1, 3, 2)), "expected input.*to have 3 channels, but got 2 channels"),
    (lambda: F.conv2d(graphc.ones(2, 5), graphc.ones(1, 2, 2, 2)), "Expected 3D .unbatched. or 4D .batched. input to conv2d"),
    (lambda: F.conv1d(graphc.ones(1, 2, 5), graphc.ones(3, 2, 2), graphc.ones(2)), "expected bias to be 1-dimensional with 3"),
    (lambda: F.conv1d(graphc.ones(1, 2, 2), graphc.ones(1, 2, 3)), "Kernel size can't be greater than actual input size"),
    (lambda: F.conv1d(graphc.ones(1, 2, 2), graphc.ones(1, 2, 1), stride=0), "non-positive stride"),
    (lambda: F.conv1d(graphc.ones(1, 2, 2), graphc.ones(1, 2, 1), padding=-1), "negative padding"),
    (lambda: F.conv1d(graphc.ones(1, 2, 2).double(), graphc.ones(1, 2, 1)), "should be the same"),
    (lambda: F.conv_transpose1d(graphc.ones(1, 2, 5), graphc.ones(3, 1, 2)), "transposed=1.*to have 3 channels"),
    (lambda: F.conv_transpose1d(graphc.ones(1, 2, 5), graphc.ones(2, 1, 2), output_padding=1), "smaller than either stride"),
    (lambda: F.conv_transpose1d(graphc.ones(1, 2, 1), graphc.ones(2, 1, 1), padding=3), "Output size is too small"),
])  # fmt: skip
def test_errors_say_what_does_not_fit(call: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        call()


def test_transposed_layer_takes_an_output_size() -> None:
    layer = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1)
    x = graphc.ones(1, 3, 4, 4)
    assert layer(x).shape == (1, 2, 7, 7)
    assert layer(x, output_size=(8, 7)).shape == (1, 2, 8, 7)
    assert layer(x, output_size=(1, 2, 8, 8)).shape == (1, 2, 8, 8)
    with pytest.raises(ValueError, match="requested an output size"):
        layer(x, output_size=(9, 9))
    assert layer.weight.shape == (3, 2, 3, 3) and repr(layer) == (
        "ConvTranspose2d(3, 2, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))")


def test_transposed_layer_compiles_with_its_gradients() -> None:
    layer = nn.ConvTranspose1d(3, 4, 3, stride=2, groups=1, bias=True).double()
    x = graphc.tensor(draw(2, 3, 5))

    def loss(x: graphc.Tensor) -> graphc.Tensor:
        return layer(x).square().sum()

    np.testing.assert_allclose(graphc.compile(loss)(x).item(), loss(x).item(), rtol=1e-12)
    loss(x).backward()
    expected = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    graphc.compile(lambda x: loss(x).backward())(x)
    for p, e in zip(layer.parameters(), expected, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), e.numpy(), rtol=1e-10)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_of_layers(mode: str) -> None:
    layer = nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode=mode).double()
    x = draw(1, 2, 5, 6)
    names = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    padded = graphc.tensor(np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)), mode=names[mode]))
    np.testing.assert_allclose(layer(graphc.tensor(x)).detach().numpy(),
                               F.conv2d(padded, layer.weight, layer.bias).detach().numpy(), atol=1e-12)


def test_weights_of_a_model_that_is_only_run_are_prepared_once() -> None:
    model = graphc.nn.Sequential(graphc.nn.Conv2d(16, 32, 3, padding=1), graphc.nn.ReLU(), graphc.nn.Conv2d(32, 16, 1)).eval()
    x = graphc.randn(2, 16, 9, 9)
    compiled = graphc.compile(model)
    with graphc.no_grad():
        for _ in range(3):
            assert graphc.testing.assert_close(compiled(x), model(x)) is None
            model[0].weight.mul_(0.5)


def gemms(f: Any, *inputs: graphc.Tensor) -> list[Gemm]:
    """The products that a function becomes."""
    program = lower(pipeline.run(graphc.trace(f, inputs).ir), Machine(vector_bytes=64))
    return [kernel for kernel in program.kernels if isinstance(kernel, Gemm)]


def test_products_know_where_images_are_padded() -> None:
    x, w = graphc.ones(2, 16, 14, 20), graphc.ones(32, 16, 3, 3)
    (product,) = gemms(lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(2, 1), dilation=(1, 3)), x, w)
    assert [(str(m.place), m.begin, m.end) for m in product.margins] == [("((u * 2) + p)", 2, 16), ("(v + (q * 3))", 1, 21)]
    (other,) = gemms(lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(2, 1), dilation=(1, 3)), x, w)
    assert kernel_key(product)[0] == kernel_key(other)[0]
    other.margins = other.margins[1:]
    assert kernel_key(product)[0] != kernel_key(other)[0]
    assert not gemms(F.conv2d, x, w)[0].margins
    (filled,) = gemms(lambda x, w: F.conv2d(F.pad(x, (1, 1, 1, 1), value=3.0), w), x, w)
    assert not filled.margins


def test_what_lies_in_padding_is_not_multiplied() -> None:
    """The first row of a kernel never meets the first row of an image, not even if it is infinite: as in PyTorch."""
    x, w = graphc.randn(2, 32, 14, 14), graphc.randn(32, 32, 3, 3)
    w[:, :, 0] = math.inf
    for call in (F.conv2d, graphc.compile(F.conv2d)):
        found = call(x, w, padding=1).isnan().sum((0, 1, 3))
        assert found[0] == 0 and (found[1:] > 0).all()
