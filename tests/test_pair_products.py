"""Products of bfloat16: by AMX, by AVX-512, and widened, on memory that faults where nothing may be read."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cpus import code_for
from native_kernels import run_native

import graphc
import graphc.index as ix
from graphc.backends.llvm import gemm_plan
from graphc.backends.llvm.gemm_plan import plan_gemm
from graphc.backends.llvm.pairtile import STEPS, PairTile, choose_pair_tile
from graphc.backends.llvm.planned_gemm import Access
from graphc.backends.llvm.target import Target
from graphc.expression import Accumulator, Axis, Buffer, cast, load
from graphc.kernel import Gemm, Store
from graphc.threads import set_num_threads
from graphc.types import DType, bfloat16, float32

F = graphc.nn.functional
CPUS = ["native", "znver4", "haswell", "x86-64"]


@pytest.fixture(params=CPUS)
def cpu(request: pytest.FixtureRequest) -> Iterator[str]:
    """Code with AMX, if this machine has it; with AVX-512's dot products; and with neither."""
    with code_for(request.param) as name:
        yield name


@pytest.fixture
def tasks_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are shared among threads however small they are."""
    monkeypatch.setattr(gemm_plan, "SERIAL", 0)
    monkeypatch.setattr(gemm_plan, "_TASK", 50)


def rounded(array: np.ndarray) -> np.ndarray:
    return array.astype(bfloat16.numpy)


def small_numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Whole numbers whose sums of products are exact in float32, and in bfloat16 too if they are small."""
    return rng.integers(-3, 4, shape).astype(np.float32)


def product(m: int, n: int, k: int, *, turned: tuple[bool, bool] = (False, False), source: DType = bfloat16, gap: int = 0):
    """A kernel, and where its operands and its result are: rows `gap` numbers apart from each other, or as columns."""
    axes = i, j, s = Axis("i", m), Axis("j", n), Axis("k", k)

    def operand(name: str, lane: Axis, is_turned: bool):
        outer, inner = (s, lane) if is_turned else (lane, s)
        row = inner.extent + gap
        buffer = Buffer(name, source, max(0, outer.extent * row - gap), "input")
        return buffer, cast(load(buffer, ix.plus(ix.times(outer.value, row), inner.value)), bfloat16), row

    x, lhs, x_row = operand("x", i, turned[0])
    y, rhs, y_row = operand("y", j, turned[1])
    out = Buffer("out", bfloat16, m * n, "output")
    total = Accumulator("acc", "sum", bfloat16)
    stores = (Store(out, ix.plus(ix.times(i.value, n), j.value), total.value),)
    return Gemm("product", (), (axes[0],), (axes[1],), (axes[2],), lhs, rhs, total, stores), (x, x_row), (y, y_row), out


def in_memory(matrix: np.ndarray, buffer: Buffer, row: int, is_turned: bool) -> np.ndarray:
    """A matrix of lanes by steps as it stands in a buffer; gaps are NaN."""
    stands = matrix.T if is_turned else matrix
    memory = np.full((stands.shape[0], row), np.nan, np.float32)
    memory[:, : stands.shape[1]] = stands
    return memory.reshape(-1)[: buffer.size].astype(buffer.dtype.numpy)


SHAPES = [(1, 1, 40), (1, 100, 33), (3, 5, 1100), (16, 16, 32), (17, 33, 31), (32, 32, 64), (33, 65, 65), (50, 16, 1),
          (64, 31, 1025), (5, 130, 2079)]  # fmt: skip


@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("source", [bfloat16, float32], ids=lambda d: d.name)
def test_shapes(cpu: str, turned: tuple[bool, bool], source: DType, tasks_everywhere: None) -> None:
    rng = np.random.default_rng(0)
    kernels, memory, wanted = [], {}, {}
    for m, n, k in SHAPES:
        kernel, (x, x_row), (y, y_row), out = product(m, n, k, turned=turned, source=source, gap=3)
        a, b = small_numbers(rng, m, k), small_numbers(rng, n, k)
        kernels.append(kernel)
        memory |= {x: in_memory(a, x, x_row, turned[0]), y: in_memory(b, y, y_row, turned[1])}
        memory[out], wanted[out] = np.zeros(m * n, bfloat16.numpy), rounded(a @ b.T)
    results = run_native(kernels, memory)
    for (out, want), shape in zip(wanted.items(), SHAPES):
        np.testing.assert_array_equal(results[out].reshape(want.shape), want, err_msg=str(shape))


def test_pairs_are_used_where_there_are_instructions(cpu: str) -> None:
    kernel, *_ = product(64, 64, 256)
    plan = plan_gemm(kernel, Target.host())
    assert isinstance(plan.tile, PairTile) == (Target.host().has_amx_bf16 or Target.host().has("avx512bf16"))
    if isinstance(plan.tile, PairTile):
        assert plan.tile.amx == Target.host().has_amx_bf16
        assert Access.DIRECT not in (plan.lhs_access, plan.rhs_access)


@pytest.mark.parametrize("k", [1, 31, 32, 1024, 1025, 4608, 100_000])
def test_blocks_of_steps_are_whole_pairs(k: int) -> None:
    kernel, *_ = product(64, 64, k)
    plan = plan_gemm(kernel, Target.named("x86_64-unknown-linux-gnu", "sapphirerapids"))
    assert isinstance(plan.tile, PairTile) and isinstance(plan.k_block, int)
    assert plan.k_blocks == 1 or plan.k_block % STEPS == 0
    assert (plan.k_blocks - 1) * plan.k_block < k <= plan.k_blocks * plan.k_block


def test_tiles_fit_the_rows() -> None:
    amx = Target.named("x86_64-unknown-linux-gnu", "sapphirerapids")
    for m, n in [(1, 1000), (49, 512), (128, 768), (3, 3)]:
        tile = choose_pair_tile(amx, m, n, 512)
        assert tile is not None and tile.amx and tile.rows <= min(m, 32) and tile.columns in (16, 32)
    assert choose_pair_tile(amx, 49, 512, 512).rows == 25
    assert choose_pair_tile(Target.named("x86_64-unknown-linux-gnu", "haswell"), 49, 512, 512) is None


def near(actual: graphc.Tensor, exact: graphc.Tensor, terms: float) -> None:
    """Within half a unit in the last place of bfloat16, and what float32 sums may be off."""
    assert actual.dtype is bfloat16
    a, e = actual.double().numpy(), exact.numpy()
    bound = np.abs(e) * (2.0**-8 + 2.0**-16) + terms * 2.0**-23
    assert (np.abs(a - e) <= bound).all(), np.abs(a - e).max()


@pytest.mark.parametrize("function", [
    lambda x, y: x @ y.T, lambda x, y: y @ x.T, lambda x, y: x.T @ y[: x.shape[0]], lambda x, y: (x @ y.T).relu() * 2,
    lambda x, y: x.relu() @ y.T, lambda x, y: x[:, ::2] @ y[:, ::2].T, lambda x, y: x.flip(1) @ y.T,
    lambda x, y: x.reshape(7, 5, -1) @ y.reshape(7, 10, -1).mT,
])  # fmt: skip
def test_as_exact_as_can_be(cpu: str, function) -> None:
    graphc.manual_seed(1)
    x, y = graphc.randn(35, 210).bfloat16(), graphc.randn(70, 210).bfloat16()
    near(graphc.compile(function)(x, y), function(x.double(), y.double()), 210 * 8)


@pytest.mark.parametrize(("channels", "kernel", "options"), [
    (3, 7, {"stride": 2, "padding": 3}), (16, 3, {"padding": 1}), (64, 3, {"padding": 1}), (64, 1, {"stride": 2}),
    (32, 3, {"padding": 2, "dilation": 2}), (32, 3, {"groups": 4}), (8, 5, {"stride": 3}),
])  # fmt: skip
def test_convolutions_and_their_gradients(cpu: str, channels: int, kernel: int, options: dict[str, int]) -> None:
    graphc.manual_seed(2)
    x = graphc.randn(2, channels, 15, 13).bfloat16()
    w = graphc.randn(32, channels // options.get("groups", 1), kernel, kernel).bfloat16()

    def gradients(x, w):
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        y = F.conv2d(x, w, **options)
        return y.detach(), *graphc.autograd.grad(y.sum(), (x, w))

    for got, want in zip(graphc.compile(gradients)(x, w), gradients(x.double(), w.double())):
        near(got, want, 8 * x.numel())


def test_infinities_and_nans(cpu: str) -> None:
    x = graphc.ones(40, 70)
    x[3, 69], x[20, 0], x[39, 5] = float("inf"), float("nan"), 3e38
    y = graphc.ones(70, 40).bfloat16()
    out = graphc.compile(lambda x, y: x.bfloat16() @ y)(x, y).float()
    assert (out[3] == float("inf")).all() and out[20].isnan().all()
    rest = [i for i in range(40) if i not in (3, 20, 39)]
    assert (out[rest] == 70).all()


def test_subnormal_numbers_are_small(cpu: str) -> None:
    """They may count as zeros, and do no harm beside other numbers."""
    x = graphc.full((32, 64), 1e-39).bfloat16()
    x[:, 0] = 1
    y = graphc.ones(64, 32).bfloat16()
    assert (graphc.compile(lambda x, y: x @ y)(x, y) == 1).all()


def test_same_bits_for_any_number_of_threads(cpu: str, tasks_everywhere: None) -> None:
    graphc.manual_seed(3)
    x, y = graphc.randn(130, 2100).bfloat16(), graphc.randn(2100, 90).bfloat16()
    results = []
    before = graphc.get_num_threads()
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results.append(graphc.compile(lambda x, y: x @ y)(x, y).float().numpy())
    set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_many_python_threads_at_once(cpu: str) -> None:
    graphc.manual_seed(4)
    function = graphc.compile(lambda x, y: x @ y)
    pairs = [(graphc.randn(49, 700).bfloat16(), graphc.randn(700, 40).bfloat16()) for _ in range(4)]
    wanted = [function(*pair).tolist() for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert [r.tolist() for r in pool.map(lambda pair: function(*pair), pairs)] == wanted


def test_sizes_that_change(cpu: str) -> None:
    graphc.manual_seed(5)
    function = graphc.compile(lambda x, y: x @ y, dynamic=True)
    for m, n, k in [(40, 50, 60), (33, 100, 1500), (128, 33, 32), (70, 70, 2049)]:
        x, y = graphc.randn(m, k).bfloat16(), graphc.randn(k, n).bfloat16()
        near(function(x, y), x.double() @ y.double(), k * 8)


def test_autocast_packs_what_it_rounds(cpu: str) -> None:
    graphc.manual_seed(6)
    layer, x = graphc.nn.Linear(96, 200, bias=False), graphc.randn(64, 96)

    @graphc.compile
    def forward(x):
        with graphc.autocast("cpu"):
            return layer(x)

    exact = x.bfloat16().double() @ layer.weight.bfloat16().double().T
    near(forward(x).detach(), exact.detach(), 96 * 8)


def test_weights_of_equal_layers_are_kept_apart(cpu: str) -> None:
    graphc.manual_seed(7)
    layers = graphc.nn.Sequential(*(graphc.nn.Linear(96, 96, bias=False) for _ in range(3))).eval()
    convolutions = graphc.nn.Sequential(*(graphc.nn.Conv2d(32, 32, 3, padding=1, bias=False) for _ in range(3))).eval()
    x, image = graphc.randn(64, 96), graphc.randn(1, 32, 9, 9)

    @graphc.compile
    def forward(x, image):
        with graphc.no_grad(), graphc.autocast("cpu"):
            return [layer(x) for layer in layers], [layer(image) for layer in convolutions]

    for _ in range(3):
        products, images = forward(x, image)
        for layer, got in zip(layers, products):
            near(got, x.bfloat16().double() @ layer.weight.detach().bfloat16().double().T, 96 * 8)
        for layer, got in zip(convolutions, images):
            exact = F.conv2d(image.bfloat16().double(), layer.weight.detach().bfloat16().double(), padding=1)
            near(got, exact, 288 * 8)
