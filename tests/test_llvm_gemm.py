"""Matrix products as LLVM code, against NumPy, on memory that faults when touched outside of buffers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from cpus import code_for
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import program_of, run_native

from graphc import index, ops
from graphc.backends.llvm import gemm_plan, planned_gemm
from graphc.backends.llvm.dotkernel import DotTile
from graphc.backends.llvm.gemm_plan import plan_gemm
from graphc.backends.llvm.jit import emit_object
from graphc.backends.llvm.microkernel import AHEAD, Tile
from graphc.backends.llvm.planned_gemm import Access, Plan
from graphc.backends.llvm.program import render
from graphc.backends.llvm.runtime import get_num_threads, set_num_threads
from graphc.backends.llvm.target import Target
from graphc.expression import Accumulator, Axis, Buffer, Expr, cast, constant, load
from graphc.kernel import Gemm, Store
from graphc.types import DTYPES, DType, bool_, float16, float32, float64, int32

rng = np.random.default_rng(0)

LAYOUTS = list(itertools.product(("mk", "km"), ("kn", "nk")))


def numbers(shape: tuple[int, ...], dtype: DType = float32) -> np.ndarray:
    """Small whole numbers: every order of summing their products gives the same."""
    if dtype is bool_:
        return rng.random(shape) < 0.3
    return rng.integers(-4 if dtype.is_signed else 0, 5, shape).astype(dtype.numpy)


def at(axes: dict[str, Axis], letters: str, without: str = "") -> Expr:
    """The place of an element in a contiguous array with these dimensions; along those of `without` it does not move."""
    strides = index.contiguous_strides([axes[s].extent for s in letters])
    places = [(axes[s].value, stride) for s, stride in zip(letters, strides) if axes[s].extent > 1 and s not in without]
    return index.strided([place for place, _ in places], [stride for _, stride in places])


@dataclasses.dataclass
class Product:
    """A product of arrays given by the letters of their dimensions, as "mk", "kn" and "mn"."""

    kernel: Gemm
    memory: dict[Buffer, np.ndarray]
    out: Buffer
    want: np.ndarray


Finish = Callable[[dict[str, Axis], Expr, np.ndarray], tuple[Expr, np.ndarray, dict[Buffer, np.ndarray]]]


def product(
    left: str, right: str, out: str, sizes: dict[str, int], dtype: DType = float32, finish: Finish | None = None
) -> Product:
    """The product, with the sum over letters that are not in `out`. `finish` gives what is stored of the sum, what that
    is by NumPy, and the buffers that it reads."""
    axes = {letter: Axis(letter, size) for letter, size in sizes.items()}
    a, b = (numbers(tuple(sizes[s] for s in letters), dtype) for letters in (left, right))
    x, y = (Buffer(name, dtype, array.size, "input") for name, array in (("x", a), ("y", b)))
    wide = a.dtype if dtype is bool_ else np.result_type(a.dtype, np.int64 if a.dtype.kind in "iu" else np.float64)
    want = np.einsum(f"{left},{right}->{out}", a.astype(wide), b.astype(wide)).astype(dtype.numpy)
    accumulator = Accumulator("acc", "sum", dtype)
    value, read = accumulator.value, {}
    if finish is not None:
        value, want, read = finish(axes, value, want)
    to = Buffer("out", value.dtype, want.size, "output")

    def group(letters: str) -> tuple[Axis, ...]:
        return tuple(axes[s] for s in letters)

    kernel = Gemm(
        "product",
        group("".join(s for s in out if s in left and s in right)),
        group("".join(s for s in out if s not in right)),
        group("".join(s for s in out if s not in left)),
        group("".join(s for s in right if s not in out)),
        load(x, at(axes, left)),
        load(y, at(axes, right)),
        accumulator,
        (Store(to, at(axes, out), value),),
    )
    memory = {x: a, y: b, **read, to: np.zeros(want.shape, want.dtype)}
    return Product(kernel, memory, to, want)


def check(*products: Product) -> list[np.ndarray]:
    """Run as one program; returns the results."""
    memory = {buffer: array for p in products for buffer, array in p.memory.items()}
    results = run_native([p.kernel for p in products], memory)
    for p in products:
        np.testing.assert_array_equal(results[p.out].reshape(p.want.shape), p.want, err_msg=f"{p.kernel}")
    return [results[p.out] for p in products]


@pytest.fixture(params=["native", "haswell", "x86-64"])
def cpu(request: pytest.FixtureRequest) -> Iterator[str]:
    """Code for this machine, for AVX2 and for the least of x86-64."""
    with code_for(request.param) as name:
        yield name


@pytest.fixture
def tasks_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are shared among threads however small they are."""
    monkeypatch.setattr(gemm_plan, "SERIAL", 0)
    monkeypatch.setattr(gemm_plan, "_TASK", 50)


AVX512 = Target.named("x86_64-linux-gnu", "skylake-avx512")
"""For plans that depend on how many registers there are."""


def plan_of(p: Product, target: Target | None = None) -> Plan:
    return plan_gemm(p.kernel, Target.host() if target is None else target)


# Shapes

SHAPES = [
    (1, 1, 1), (2, 3, 1), (1, 16, 7), (3, 1, 14), (7, 15, 2), (14, 32, 3), (15, 33, 16), (16, 31, 17), (31, 2, 33),
    (13, 100, 5), (100, 7, 31), (33, 47, 0), (0, 5, 3), (5, 0, 3), (1, 300, 3), (300, 1, 20), (29, 64, 64), (97, 101, 89),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), LAYOUTS)
def test_shapes_and_layouts(cpu: str, left: str, right: str) -> None:
    check(*(product(left, right, "mn", {"m": m, "n": n, "k": k}) for m, n, k in SHAPES))


@settings(max_examples=40)
@given(st.tuples(*[st.integers(0, 40)] * 3), st.sampled_from(LAYOUTS), st.sampled_from([float32, float64, int32]))
def test_any_shape(shape: tuple[int, int, int], layout: tuple[str, str], dtype: DType) -> None:
    check(product(*layout, "mn", dict(zip("mnk", shape)), dtype))


@pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if d.has_code], ids=str)
def test_dtypes(cpu: str, dtype: DType) -> None:
    check(*(product(*layout, "mn", {"m": 17, "n": 35, "k": 40}, dtype) for layout in LAYOUTS))


def test_half_precision_is_summed_in_single() -> None:
    p = product("mk", "kn", "mn", {"m": 3, "n": 20, "k": 4000}, float16)
    a, b, _ = p.memory.values()
    a[...], b[...] = 1.0, 1.0
    p.want[...] = 4000.0  # in half precision, sums of ones would stop at 2048
    check(p)


@pytest.mark.parametrize("stored", ["mn", "nm"])
def test_result_side_by_side_along_rows_or_columns(stored: str) -> None:
    check(product("mk", "kn", stored, {"m": 33, "n": 50, "k": 20}))


def test_operand_that_is_the_same_in_all_rows_or_columns() -> None:
    for letter in "mn":
        p = product("mk", "kn", "mn", {"m": 20, "n": 40, "k": 9})
        a, b, _ = p.memory.values()
        x, y, _ = p.memory
        axes = {axis.name: axis for axis in (*p.kernel.m, *p.kernel.n, *p.kernel.k)}
        side, buffer, array = ("lhs", x, a) if letter == "m" else ("rhs", y, b)
        letters = "mk" if letter == "m" else "kn"
        setattr(p.kernel, side, load(buffer, at(axes, letters, without=letter)))
        fixed = np.broadcast_to(array.take([0], letters.index(letter)), array.shape)
        p.want = fixed @ b if letter == "m" else a @ fixed
        check(p)


VIEWS: dict[str, tuple[slice, slice]] = {
    "backwards": (slice(None, None, -1), slice(None, None, -1)),
    "first dimension backwards": (slice(None, None, -1), slice(None)),
    "last dimension backwards": (slice(None), slice(None, None, -1)),
    "every second": (slice(None, None, 2), slice(None, None, 2)),
    "every third of the last": (slice(None), slice(1, None, 3)),
    "part": (slice(2, 50), slice(3, 60)),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_operands_are_views(cpu: str, view: tuple[slice, slice]) -> None:
    """Operands with gaps, and with dimensions that run backwards."""
    products = []
    for left, right in LAYOUTS:
        bases = [numbers((100, 200)) for _ in "xy"]
        a, b = (base[view] for base in bases)
        k = min(a.shape[left.index("k")], b.shape[right.index("k")])
        a, b = a[:, :k] if left == "mk" else a[:k], b[:, :k] if right == "nk" else b[:k]
        sizes = {"k": k, "m": a.shape[left.index("m")], "n": b.shape[right.index("n")]}
        p = product(left, right, "mn", sizes)
        axes = {axis.name: axis for axis in (*p.kernel.m, *p.kernel.n, *p.kernel.k)}
        for buffer, base, seen, letters, side in zip(p.memory, bases, (a, b), (left, right), ("lhs", "rhs")):
            start = (seen.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // 4
            strides = [stride // 4 for stride in seen.strides]
            buffer.size = base.size
            offset = index.plus(index.strided([axes[s].value for s in letters], strides), start)
            setattr(p.kernel, side, load(buffer, offset))
            p.memory[buffer] = base
        p.want = (a if left == "mk" else a.T) @ (b if right == "kn" else b.T)
        products.append(p)
    check(*products)


def test_what_pads_a_tile_stays_out_of_the_result() -> None:
    """NaN in a row or a column shows up nowhere else."""
    p = product("mk", "kn", "mn", {"m": 15, "n": 35, "k": 10})
    a, b, _ = p.memory.values()
    a[14], b[:, 34] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        p.want = a @ b
    check(p)
    assert np.isfinite(p.want[:14, :34]).all()


# Batches


@pytest.mark.parametrize(
    ("left", "right", "out"),
    [("bmk", "bkn", "bmn"), ("mk", "bkn", "bmn"), ("bmk", "kn", "bmn"), ("bmk", "nk", "bmn"), ("bk", "bkn", "bn"),
     ("bamk", "bakn", "bamn"), ("bamk", "bkn", "bamn"), ("bmk", "bkn", "mbn"), ("bkm", "bkn", "nbm")],
)  # fmt: skip
@pytest.mark.parametrize("tasks", [False, True])
def test_batches(left: str, right: str, out: str, tasks: bool, request: pytest.FixtureRequest) -> None:
    if tasks:
        request.getfixturevalue("tasks_everywhere")
    products = []
    for b, m, n, k in ((3, 17, 33, 10), (2, 1, 50, 40), (5, 8, 7, 3), (0, 3, 3, 3), (1, 40, 64, 5)):
        products.append(product(left, right, out, {"a": 2, "b": b, "m": m, "n": n, "k": k}))
    check(*products)


def test_batch_becomes_rows_or_columns_where_it_fills_tiles() -> None:
    sizes = {"b": 8, "m": 64, "n": 49, "k": 32}
    for left, right, batch in (("mk", "bkn", 1), ("bmk", "bkn", 8)):
        p = product(left, right, "bmn", sizes)
        assert plan_of(p).batch == batch
        check(p)


# Blocks of steps


def bias_and_relu(axes: dict[str, Axis], value: Expr, want: np.ndarray) -> tuple[Expr, np.ndarray, dict]:
    n = axes["n"]
    bias = numbers((n.extent,))
    buffer = Buffer("bias", float32, n.extent, "input")
    total = want + (bias if want.shape[-1] == n.extent else bias[:, None])
    return ops.maximum(value + load(buffer, n.value), 0.0), np.maximum(total, 0), {buffer: bias}


def half_as_double(axes: dict[str, Axis], value: Expr, want: np.ndarray) -> tuple[Expr, np.ndarray, dict]:
    return cast(value * 0.5, float64), want.astype(np.float64) / 2, {}


@pytest.mark.parametrize("finish", [None, bias_and_relu, half_as_double])
def test_depths(cpu: str, finish: Finish | None) -> None:
    depths, stored = (0, 5, 700, 2500), ("mn", "nm", "mn", "mn")
    check(*(product(*layout, out, {"m": 30, "n": 70, "k": k}, finish=finish)
            for k, layout, out in zip(depths * 2, LAYOUTS * 2, stored + stored[::-1], strict=True)))  # fmt: skip


@pytest.mark.parametrize("shared", [1 << 14, 1 << 30])
def test_steps_in_rounds(shared: int, monkeypatch: pytest.MonkeyPatch, tasks_everywhere: None) -> None:
    """Where the packed operands would take too much memory, some blocks of steps are packed at a time."""
    monkeypatch.setattr(planned_gemm, "_SHARED_BYTES", shared)
    monkeypatch.setattr(gemm_plan, "_k_block", lambda *_: 32)
    monkeypatch.setattr(gemm_plan, "choose_blocks", lambda *_: (1, 1, 1))
    monkeypatch.setattr(gemm_plan, "_turned", lambda *_: None)
    p = product("km", "nk", "mn", {"m": 50, "n": 100, "k": 500}, finish=bias_and_relu)
    plan = plan_of(p, AVX512)
    assert plan.k_blocks == 16 and plan.rhs_access is Access.SHARED
    assert (plan.round < plan.k_blocks) == (shared < 1 << 30)
    check(p)


# Threads


@pytest.mark.parametrize("sizes", [(64, 640, 200), (640, 64, 200), (320, 320, 320), (30, 40, 5000)])
def test_same_bits_on_any_number_of_threads(sizes: tuple[int, int, int], tasks_everywhere: None) -> None:
    m, n, k = sizes
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (n, k)))
    p = product("mk", "nk", "mn", {"m": m, "n": n, "k": k}, finish=bias_and_relu)
    x, y, *_ = p.memory
    p.memory[x], p.memory[y] = a, b
    assert plan_of(p).tasks > 1
    before = get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            results.append(run_native([p.kernel], p.memory)[p.out])
    finally:
        set_num_threads(before)
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
    bias = next(array for buffer, array in p.memory.items() if buffer.name == "bias")
    exact = np.maximum(a.astype(np.float64) @ b.T.astype(np.float64) + bias, 0)
    np.testing.assert_allclose(results[0].reshape(m, n), exact, atol=1e-6 * k)


def test_plan_has_tasks_for_many_threads_but_none_for_small_products() -> None:
    for left in ("mk", "km"):
        kernel = product(left, "kn", "mn", {"m": 512, "n": 512, "k": 256}).kernel
        large = plan_gemm(kernel, dataclasses.replace(Target.host(), cores=64))
        assert large.is_parallel and large.tasks >= 16
    batch = plan_of(product("bmk", "bkn", "bmn", {"b": 500, "m": 32, "n": 32, "k": 32}))
    assert batch.is_parallel and batch.grid[0] >= 16 and batch.tasks == batch.grid[0]
    small = plan_of(product("mk", "kn", "mn", {"m": 8, "n": 64, "k": 64}))
    assert not small.is_parallel and small.tasks == 1


def test_operands_are_packed_only_where_it_pays() -> None:
    def access(left: str, right: str, m: int, n: int, k: int) -> tuple[Access, Access]:
        plan = plan_of(product(left, right, "mn", {"m": m, "n": n, "k": k}), AVX512)
        return plan.lhs_access, plan.rhs_access

    assert access("mk", "kn", 8, 64, 64) == (Access.DIRECT, Access.DIRECT)
    assert Access.DIRECT not in access("km", "kn", 1000, 1000, 64)
    assert access("mk", "nk", 100, 64, 64) == (Access.DIRECT, Access.PRIVATE)


def test_few_steps_are_fetched_ahead_that_compete_for_the_same_lines() -> None:
    def ahead(n: int) -> int:
        p = product("mk", "kn", "mn", {"m": 4, "n": n, "k": 60})
        check(p)
        plan = plan_of(p, AVX512)
        assert isinstance(plan.tile, Tile) and plan.rhs_access is Access.DIRECT
        return plan.tile.ahead

    assert ahead(1000) == AHEAD > ahead(512) > ahead(1024) == ahead(2048) > 0


def test_few_rows_are_dot_products_where_steps_stand_side_by_side() -> None:
    for m, n in ((1, 500), (500, 1), (4, 30)):
        p = product("mk", "nk", "mn", {"m": m, "n": n, "k": 70})
        assert isinstance(plan_of(p, AVX512).tile, DotTile)
        check(p)
    assert not isinstance(plan_of(product("mk", "kn", "mn", {"m": 1, "n": 500, "k": 70}), AVX512).tile, DotTile)


# What becomes of the sums


@pytest.mark.parametrize("k", [20, 1500])
def test_several_stores_and_masks(cpu: str, k: int) -> None:
    p = product("mk", "kn", "mn", {"m": 20, "n": 50, "k": k})
    axes = {axis.name: axis for axis in (*p.kernel.m, *p.kernel.n)}
    total = p.kernel.accumulator.value
    other = Buffer("other", float64, 20 * 50, "output")
    few = Expr("lt", (axes["n"].value, index.number(30)), bool_)
    offset = at(axes, "nm")
    p.kernel.epilogue = (Store(p.out, at(axes, "mn"), total * 2.0, few), Store(other, offset, cast(total, float64)))
    p.memory[other] = np.zeros((50, 20))
    results = run_native([p.kernel], p.memory)
    np.testing.assert_array_equal(results[p.out].reshape(20, 50)[:, :30], p.want[:, :30] * 2)
    assert not results[p.out].reshape(20, 50)[:, 30:].any()
    np.testing.assert_array_equal(results[other].reshape(50, 20), p.want.T)


@pytest.mark.parametrize("k", [20, 1500])
def test_output_that_stands_where_an_input_does(k: int) -> None:
    """An update, x -= a @ b: the old x is read at the place that is written, and may be the same memory."""
    old = Buffer("old", float32, 30 * 50, "input")

    def update(axes: dict[str, Axis], value: Expr, want: np.ndarray) -> tuple[Expr, np.ndarray, dict]:
        before = numbers(want.shape)
        return load(old, at(axes, "mn")) - value, before - want, {old: before}

    p = product("km", "kn", "mn", {"m": 30, "n": 50, "k": k}, finish=update)
    place = plan_of(p).place
    assert place is None or place.buffer is None, "sums must not be collected where the old value stands"
    check(p)


def test_sums_are_collected_in_the_output_where_that_is_safe() -> None:
    p = product("mk", "kn", "mn", {"m": 30, "n": 50, "k": 1500}, finish=bias_and_relu)
    place = plan_of(p).place
    assert place is not None and place.buffer is p.out


# Convolutions: groups of several axes, windows that overlap, borders


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Of a convolution."""

    size: tuple[int, int, int, int]
    kernel: tuple[int, int, int]
    stride: int = 1
    padding: int = 0
    dilation: int = 1


GEOMETRIES = {
    "3x3": Geometry((2, 3, 14, 14), (5, 3, 3)),
    "padded": Geometry((1, 4, 28, 28), (20, 3, 3), padding=1),
    "small image": Geometry((3, 16, 7, 7), (9, 3, 3), padding=1),
    "strided": Geometry((1, 3, 33, 31), (16, 3, 3), stride=2, padding=1),
    "far apart": Geometry((1, 2, 20, 19), (4, 2, 3), stride=3, dilation=2, padding=2),
    "1x1": Geometry((2, 20, 9, 11), (6, 1, 1)),
    "strided 1x1": Geometry((2, 5, 16, 16), (7, 1, 1), stride=2),
    "rows only": Geometry((1, 3, 1, 70), (4, 1, 5), padding=0),
    "one channel": Geometry((1, 1, 5, 5), (1, 5, 5), padding=2),
    "one channel to many": Geometry((1, 1, 19, 3), (40, 5, 5), padding=2),
    "many channels": Geometry((1, 70, 8, 8), (14, 3, 3), padding=1),
}


def convolution(g: Geometry, kind: str) -> Product:
    """The convolution, or one of its gradients, straight from the image, as `out[letters]` of a sum."""
    b, c, h, w = g.size
    o, p, q = g.kernel
    y, x = ((s + 2 * g.padding - g.dilation * (f - 1) - 1) // g.stride + 1 for s, f in ((h, p), (w, q)))
    axes = {s: Axis(s, e) for s, e in zip("bcyxopq", (b, c, y, x, o, p, q))}

    def place(letter: str) -> Expr:
        return axes[letter].value if axes[letter].extent > 1 else index.ZERO

    rows, columns = (
        index.plus(index.plus(index.times(place(t), g.stride), index.times(place(f), g.dilation)), -g.padding)
        for t, f in ("yp", "xq")
    )
    inside = index.both(index.at_least(rows, 0), index.less(rows, h), index.at_least(columns, 0), index.less(columns, w))
    image = Buffer("image", float32, b * c * h * w, "input")
    offset = index.strided((place("b"), place("c"), rows, columns), (c * h * w, h * w, w, 1))
    pixel = load(image, offset, inside)
    if inside is not None:
        pixel = Expr("where", (inside, pixel, constant(0.0, float32)), float32)

    pixels = numbers(g.size)
    padded = np.pad(pixels, ((0, 0), (0, 0), *[(g.padding, g.padding)] * 2))
    spans = (g.dilation * (p - 1) + 1, g.dilation * (q - 1) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, (2, 3))
    windows = windows[:, :, :: g.stride, :: g.stride, :: g.dilation, :: g.dilation]

    left, out, m, n, k = {
        "forward": ("ocpq", "boyx", "o", "yx", "cpq"),
        "weight gradient": ("boyx", "ocpq", "o", "cpq", "byx"),
        "turned": ("copq", "boyx", "o", "yx", "cpq"),
    }[kind.rpartition(":")[0] or kind]
    other = numbers(tuple(axes[s].extent for s in left))
    factor = Buffer("other", float32, other.size, "input")
    there = at(axes, left)
    if left == "copq":
        there = index.substitute(there, {axes[s].value: index.plus(index.times(place(s), -1), axes[s].extent - 1)
                                         for s in "pq" if axes[s].extent > 1})
        other_seen = other[:, :, ::-1, ::-1]
    else:
        other_seen = other
    want = np.einsum(f"{left},bcyxpq->{out}", other_seen, windows, dtype=np.float64).astype(np.float32)
    accumulator = Accumulator("acc", "sum", float32)
    to = Buffer("out", float32, want.size, "output")
    batch = tuple(axes[s] for s in out if s not in m + n)
    group = [tuple(axes[s] for s in letters) for letters in (m, n, k)]
    store = Store(to, at(axes, out), accumulator.value)
    kernel = Gemm(kind, batch, *group, load(factor, there), pixel, accumulator, (store,))
    return Product(kernel, {image: pixels, factor: other, to: np.zeros_like(want)}, to, want)


@pytest.mark.parametrize("kind", ["forward", "weight gradient", "turned"])
def test_convolutions(cpu: str, kind: str) -> None:
    check(*(convolution(geometry, f"{kind}:{name}") for name, geometry in GEOMETRIES.items()))


@pytest.mark.parametrize("kind", ["forward", "weight gradient", "turned"])
def test_convolutions_in_many_blocks(kind: str, tasks_everywhere: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in (9, 18, 25):  # whole numbers of the kernel's places, and not
        with monkeypatch.context() as patch:
            patch.setattr(gemm_plan, "_k_block", lambda *_, block=block: block)
            check(*(convolution(g, kind) for g in (GEOMETRIES["padded"], GEOMETRIES["small image"])))


# Operands that are computed


def test_operands_are_expressions(cpu: str) -> None:
    for layout in LAYOUTS:
        p = product(*layout, "mn", {"m": 20, "n": 40, "k": 30})
        a, b, _ = p.memory.values()
        p.kernel.lhs = ops.maximum(p.kernel.lhs, 0.0) * 2.0
        p.kernel.rhs = p.kernel.rhs + cast(p.kernel.k[0].value, float32)
        steps = np.arange(30, dtype=np.float32)
        left = np.maximum(a if layout[0] == "mk" else a.T, 0) * 2
        right = b + steps[:, None] if layout[1] == "kn" else (b + steps).T
        p.want = left @ right
        check(p)


def test_operand_without_memory() -> None:
    """A product with constants: a sum over k."""
    p = product("mk", "kn", "mn", {"m": 9, "n": 20, "k": 50})
    _, b, _ = p.memory.values()
    p.kernel.lhs = constant(1.0, float32)
    p.want = np.broadcast_to(b.sum(0), (9, 20))
    check(p)


# Modules


def test_products_of_one_shape_share_their_micro_kernel() -> None:
    products = [product("km", "nk", "mn", {"m": 128, "n": 512, "k": 700 + i}) for i in range(3)]
    memory = {buffer: array for p in products for buffer, array in p.memory.items()}
    module = render(program_of([p.kernel for p in products], list(memory)), Target.host()).module
    names = [function.name for function in module.functions]
    assert len(names) == len(set(names))
    assert len([name for name in names if name.startswith("graphc.gemm.float32") and "merge" not in name]) == 1


@pytest.mark.parametrize("triple", ["aarch64-unknown-linux-gnu", "arm64-apple-darwin", "x86_64-pc-windows-msvc"])
def test_objects_for_other_machines(triple: str) -> None:
    target = Target.named(triple)
    products = [product("mk", "nk", "mn", {"m": 128, "n": 100, "k": 64}, dtype) for dtype in (float32, float64, float16)]
    products.append(convolution(GEOMETRIES["padded"], "forward"))
    for p in products:
        text = str(render(program_of([p.kernel], list(p.memory)), target).module)
        assert len(emit_object(text, target)) > 1000
