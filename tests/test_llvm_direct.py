"""Products whose operands are read where they stand: convolutions with the channels last, and the gradients of their weights.

All numbers are small whole ones, so that results are exact whatever the order of the sums.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_llvm_gemm import Product, check, cpu, numbers  # noqa: F401  (cpu is a fixture)

from graphc import index
from graphc.backends.llvm import direct_plan, gemm_plan
from graphc.backends.llvm.direct_plan import DirectPlan, plan_direct
from graphc.backends.llvm.runtime import get_num_threads, set_num_threads
from graphc.backends.llvm.target import Target
from graphc.expression import Accumulator, Axis, Buffer, Expr, load
from graphc.kernel import Gemm, Store
from graphc.ops import maximum
from graphc.types import DType, float32, float64


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution of images [N, H, W, C] that have their padding already."""

    images: tuple[int, int, int, int]
    channels: int
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    dilation: int = 1
    dtype: DType = float32


LAYERS = {
    "rows of whole tiles": Layer((2, 6, 30, 16), 32),
    "rows shorter than a tile": Layer((3, 9, 9, 32), 48),
    "images of few pixels": Layer((3, 6, 6, 16), 64),
    "odd rows": Layer((2, 5, 19, 7), 16),
    "strided": Layer((2, 13, 29, 8), 32, stride=2),
    "far apart": Layer((1, 12, 17, 16), 16, dilation=3),
    "one column": Layer((7, 11, 3, 16), 16, (3, 3)),
    "few channels, large kernel": Layer((2, 21, 21, 3), 16, (7, 7), stride=2),
    "one row of the kernel": Layer((1, 4, 30, 16), 32, (1, 5)),
    "double precision": Layer((2, 7, 16, 8), 24, dtype=float64),
    "many channels": Layer((1, 5, 5, 160), 80),
}


def axes_of(layer: Layer) -> dict[str, Axis]:
    n, h, w, c = layer.images
    p, q = layer.kernel
    u, v = ((size - layer.dilation * (k - 1) - 1) // layer.stride + 1 for size, k in ((h, p), (w, q)))
    return {s: Axis(s, e) for s, e in zip("nuvcopq", (n, u, v, c, layer.channels, p, q))}


def place(axes: dict[str, Axis], letters: str) -> Expr:
    """The place of an element in a contiguous array with these dimensions."""
    values = [axes[s].value if axes[s].extent > 1 else index.ZERO for s in letters]
    return index.strided(values, index.contiguous_strides([axes[s].extent for s in letters]))


def windows(layer: Layer, axes: dict[str, Axis], image: Buffer, pixels: np.ndarray) -> tuple[Expr, np.ndarray]:
    """What the kernel's places meet, as a load and as an array [n, u, v, p, q, c]."""
    _, h, w, c = layer.images
    value = {s: axis.value if axis.extent > 1 else index.ZERO for s, axis in axes.items()}
    row, column = (
        index.plus(index.times(value[t], layer.stride), index.times(value[k], layer.dilation)) for t, k in ("up", "vq")
    )
    pixel = load(image, index.strided((value["n"], row, column, value["c"]), (h * w * c, w * c, c, 1)))
    spans = tuple(layer.dilation * (k - 1) + 1 for k in layer.kernel)
    seen = np.lib.stride_tricks.sliding_window_view(pixels, spans, (1, 2))[:, :: layer.stride, :: layer.stride]
    return pixel, seen[..., :: layer.dilation, :: layer.dilation].transpose(0, 1, 2, 4, 5, 3)


def forward(layer: Layer, block: int = 0) -> Product:
    """The convolution with a bias and a maximum, of weights [P, Q, C, O]; or in blocks, [O / block, P, Q, C, block]."""
    axes, dtype = axes_of(layer), layer.dtype
    pixels, weights, bias = (
        numbers(shape, dtype) for shape in (layer.images, (*layer.kernel, layer.images[3], layer.channels), (layer.channels,))
    )
    image, other, shift = (Buffer(s, dtype, a.size, "input") for s, a in (("x", pixels), ("w", weights), ("b", bias)))
    pixel, seen = windows(layer, axes, image, pixels)
    want = np.maximum(np.einsum("nuvpqc,pqco->nuvo", seen, weights) + bias, 0)
    stored, there = weights, place(axes, "pqco")
    if block:
        o = axes["o"].value
        size = weights.size // layer.channels * block
        inner = index.times(place(axes, "pqc"), block)
        there = index.plus(index.plus(index.times(index.quotient(o, block), size), inner), index.modulo(o, block))
        split = weights.reshape(*weights.shape[:3], layer.channels // block, block)
        stored = np.ascontiguousarray(split.transpose(3, 0, 1, 2, 4))
    accumulator = Accumulator("acc", "sum", dtype)
    value = maximum(accumulator.value + load(shift, axes["o"].value), 0.0)
    to = Buffer("out", dtype, want.size, "output")
    m, n, k = (tuple(axes[s] for s in letters) for letters in ("nuv", "o", "pqc"))
    kernel = Gemm("conv", (), m, n, k, pixel, load(other, there), accumulator, (Store(to, place(axes, "nuvo"), value),))
    return Product(kernel, {image: pixels, other: stored, shift: bias, to: np.zeros_like(want)}, to, want)


def weight_gradient(layer: Layer) -> Product:
    """The gradient of weights [O, C, P, Q], added to what is there."""
    axes, dtype = axes_of(layer), layer.dtype
    pixels = numbers(layer.images, dtype)
    given = numbers(tuple(axes[s].extent for s in "nuvo"), dtype)
    before = numbers(tuple(axes[s].extent for s in "ocpq"), dtype)
    image, other, old = (Buffer(s, dtype, a.size, "input") for s, a in (("x", pixels), ("g", given), ("old", before)))
    pixel, seen = windows(layer, axes, image, pixels)
    want = before + np.einsum("nuvpqc,nuvo->ocpq", seen, given)
    accumulator = Accumulator("acc", "sum", dtype)
    to = Buffer("out", dtype, want.size, "output")
    m, n, k = (tuple(axes[s] for s in letters) for letters in ("o", "pqc", "nuv"))
    value = load(old, place(axes, "ocpq")) + accumulator.value
    store = Store(to, place(axes, "ocpq"), value)
    kernel = Gemm("gradient", (), m, n, k, load(other, place(axes, "nuvo")), pixel, accumulator, (store,))
    return Product(kernel, {image: pixels, other: given, old: before, to: np.zeros_like(want)}, to, want)


def products(layer: Layer) -> list[Product]:
    blocked = [forward(layer, block) for block in (8, 16) if layer.channels % block == 0]
    return [forward(layer), *blocked, weight_gradient(layer)]


def plan_of(product: Product) -> DirectPlan:
    plan = plan_direct(product.kernel, Target.host())
    assert plan is not None
    return plan


@pytest.mark.parametrize("name", LAYERS)
def test_convolutions(cpu: str, name: str) -> None:  # noqa: F811
    check(*products(LAYERS[name]))


@pytest.mark.parametrize("name", ["rows of whole tiles", "rows shorter than a tile", "images of few pixels", "many channels"])
def test_in_blocks_of_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_plan, "_FEWEST_STEPS", 1)
    monkeypatch.setattr(direct_plan, "_SHARE", 1 << 14)
    assert plan_of(weight_gradient(LAYERS[name])).blocks > 1
    check(*products(LAYERS[name]))


@pytest.mark.parametrize("name", LAYERS)
def test_in_many_tasks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_plan, "SERIAL", 0)
    monkeypatch.setattr(gemm_plan, "_TASK", 50)
    assert plan_of(forward(LAYERS[name])).tasks > 1
    same, found = products(LAYERS[name]), []
    before = get_num_threads()
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            found.append(check(*same))
    finally:
        set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert one.tobytes() == two.tobytes()


def test_what_is_read_directly() -> None:
    layer = LAYERS["rows of whole tiles"]
    assert plan_of(forward(layer, 16)).blocks == 1
    grouped = plan_of(weight_gradient(layer))
    assert grouped.groups == 9 and len(grouped.epilogue.n) == 1
    turned = forward(layer).kernel
    turned.rhs = load(turned.rhs.attr, index.times(turned.rhs.args[0], 2))  # columns that do not stand side by side
    assert plan_direct(turned, Target.host()) is None
