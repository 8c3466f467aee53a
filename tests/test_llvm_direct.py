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
from graphc.backends.llvm.lines import Lines
from graphc.backends.llvm.padding import Edge, Skips, Trims
from graphc.backends.llvm.runtime import get_num_threads, set_num_threads
from graphc.backends.llvm.target import Target
from graphc.expression import Accumulator, Axis, Buffer, Expr, load
from graphc.kernel import Gemm, Margin, Store
from graphc.ops import maximum
from graphc.types import DType, float32, float64


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution of images [N, H, W, C] that have their padding already: some pixels on each side are zero."""

    images: tuple[int, int, int, int]
    channels: int
    kernel: tuple[int, int] = (3, 3)
    stride: int = 1
    dilation: int = 1
    dtype: DType = float32
    padding: int = 0


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


def margins(layer: Layer, axes: dict[str, Axis]) -> tuple[Margin, ...]:
    """Where an image is known to be zero."""
    found = []
    for letters, size in (("up", layer.images[1]), ("vq", layer.images[2])):
        u, p = (axes[s].value if axes[s].extent > 1 else index.ZERO for s in letters)
        place = index.plus(index.times(u, layer.stride), index.times(p, layer.dilation))
        found.append(Margin(place, layer.padding, size - layer.padding))
    return tuple(found) if layer.padding else ()


def forward(layer: Layer, block: int = 0, poison: tuple[bool, bool] = (False, False)) -> Product:
    """The convolution with a bias and a maximum, of weights [P, Q, C, O]; or in blocks, [O / block, P, Q, C, block]. With
    `poison`, what should be zero in memory is not a number: the rows of the padding above and below, its columns."""
    axes, dtype = axes_of(layer), layer.dtype
    pixels, weights, bias = (
        numbers(shape, dtype) for shape in (layer.images, (*layer.kernel, layer.images[3], layer.channels), (layer.channels,))
    )
    inside = tuple(slice(layer.padding, size - layer.padding) for size in layer.images[1:3])
    outside = np.ones(layer.images, bool)
    outside[:, inside[0], inside[1]] = False
    pixels[outside] = 0
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
    store = Store(to, place(axes, "nuvo"), value)
    kernel = Gemm("conv", (), m, n, k, pixel, load(other, there), accumulator, (store,), margins=margins(layer, axes))
    for is_poisoned, across in zip(poison, ((slice(None), inside[1]), (inside[0], slice(None)))):
        beyond = outside[:, *across]
        pixels[:, *across][beyond] = np.nan if is_poisoned else 0
    if all(poison):
        pixels[outside] = np.nan
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


@pytest.mark.parametrize("padding", [1, 2, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_padding(name: str, padding: int) -> None:
    most = (min(LAYERS[name].images[1:3]) - 1) // 2
    layer = dataclasses.replace(LAYERS[name], padding=min(padding, most))
    check(*(forward(layer, block) for block in (0, 8, 16) if block == 0 or layer.channels % block == 0))


@pytest.mark.parametrize("padding", [1, 2])
@pytest.mark.parametrize(
    "layer",
    [
        LAYERS["rows of whole tiles"], LAYERS["odd rows"], LAYERS["strided"], LAYERS["double precision"],
        Layer((4, 7, 23, 16), 32, (4, 3)), Layer((2, 9, 29, 8), 16, (5, 5), stride=2), Layer((2, 9, 30, 16), 32, (7, 3)),
        Layer((4, 9, 9, 16), 32), Layer((6, 9, 6, 16), 48), Layer((1, 12, 17, 16), 32, dilation=3),
    ],
)  # fmt: skip
def test_padding_is_left_out(layer: Layer, padding: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of single rows of images never look at their padding, in one block of steps or several."""
    layer = dataclasses.replace(layer, padding=padding)

    def check_poisoned() -> DirectPlan:
        plan = plan_of(forward(layer))
        check(forward(layer, poison=(plan.skips is not None and plan.skips.span == 0, plan.trims is not None)))
        return plan

    monkeypatch.setattr(direct_plan, "_RUN", 0)
    plan = check_poisoned()
    assert plan.skips is not None
    if Target.host().vector_registers == 32 and padding == 1:
        assert plan.skips.span == 0 and plan.trims is not None
    monkeypatch.setattr(direct_plan, "_FEWEST_STEPS", 1)
    monkeypatch.setattr(direct_plan, "_SHARE", 1 << 14)
    check_poisoned()


def test_how_much_is_left_out() -> None:
    rows, taps = Axis("u", 4), Axis("p", 7)
    edge = Edge(rows, taps, row=2, step=1, begin=3, end=11)  # 8 lines, padded by 3, in windows of 7
    skips = Skips(edge, axis=1)
    assert [skips.bounds(u) for u in range(4)] == [(3, 7), (1, 7), (0, 7), (0, 5)]
    assert skips.share() == (4 + 6 + 7 + 5) / 28
    together = dataclasses.replace(skips, span=1)
    assert [together.bounds(u) for u in range(3)] == [(1, 7), (0, 7), (0, 7)]
    beyond = dataclasses.replace(skips, edge=dataclasses.replace(edge, begin=9, end=9))
    assert all(first >= last for first, last in map(beyond.bounds, range(4)))
    trims = Trims.of(Edge(Axis("v", 5), Axis("q", 3), row=1, step=1, begin=1, end=6), Lines(total=20, length=5, size=3))
    assert trims.kinds == ((1, 2), (0, 1, 2), (0, 1))
    assert trims.classes == ((0, 1, 1), (1, 1, 2)) and trims.numbers == (0, 1)  # the second begins a pixel early


def test_images_side_by_side() -> None:
    """Short rows of a few images are one tile's, if they divide the images evenly."""
    layer = Layer((6, 9, 9, 32), 64, padding=1)
    plan = plan_of(forward(layer, 16))
    if Target.host().vector_registers == 32:
        assert [axis.extent for axis in plan.lhs.lanes] == [3, 7, 2, 7] and plan.tile.rows == 14
    check(forward(layer, 16), forward(dataclasses.replace(layer, images=(5, 9, 9, 32)), 16), forward(layer))


def test_what_is_read_directly() -> None:
    layer = LAYERS["rows of whole tiles"]
    assert plan_of(forward(layer, 16)).blocks == 1
    grouped = plan_of(weight_gradient(layer))
    assert grouped.groups == 9 and len(grouped.epilogue.n) == 1
    turned = forward(layer).kernel
    turned.rhs = load(turned.rhs.attr, index.times(turned.rhs.args[0], 2))  # columns that do not stand side by side
    assert plan_direct(turned, Target.host()) is None
