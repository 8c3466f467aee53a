"""Products whose tasks stream rows of the left operand past a block of the right one, which they pack themselves."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from native_kernels import run_native
from test_llvm_gemm import AVX512, LAYOUTS, Product, bias_and_relu, check, cpu, product, rng, tasks_everywhere  # noqa: F401

import graphc
from graphc.backends.llvm import gemm_plan
from graphc.backends.llvm.gemm_plan import plan_gemm
from graphc.backends.llvm.planned_gemm import Access, Plan
from graphc.backends.llvm.runtime import get_num_threads, set_num_threads
from graphc.backends.llvm.target import Target
from graphc.types import DType, float32, float64, int32

SHAPES = [(60, 130, 64), (97, 101, 89), (50, 160, 130), (45, 64, 33), (200, 160, 100), (57, 300, 500)]


def plan_for(p: Product, cores: int = 2) -> Plan:
    return plan_gemm(p.kernel, dataclasses.replace(Target.host(), cores=cores))


def streamed(*products: Product) -> tuple[Product, ...]:
    """The products, all of which are computed in this way."""
    assert all(plan_for(p, Target.host().cores).streams for p in products)
    return products


@pytest.fixture
def cores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """As many cores as the parameter says."""
    host = Target.host()
    monkeypatch.setattr(Target, "host", staticmethod(lambda: dataclasses.replace(host, cores=request.param)))
    return int(request.param)


@pytest.mark.parametrize(("left", "right"), LAYOUTS)
def test_shapes(cpu: str, left: str, right: str, tasks_everywhere: None) -> None:  # noqa: F811
    finishes = itertools.cycle((None, bias_and_relu))
    check(*streamed(*(product(left, right, "mn", dict(zip("mnk", sizes, strict=True)), finish=finish)
                      for sizes, finish in zip(SHAPES, finishes))))  # fmt: skip


@pytest.mark.parametrize("steps", [32, 48, 100])
@pytest.mark.parametrize("cores", [1, 2, 3, 7], indirect=True)
def test_blocks_of_steps_and_parts(
    steps: int, cores: int, monkeypatch: pytest.MonkeyPatch, tasks_everywhere: None  # noqa: F811
) -> None:
    monkeypatch.setattr(gemm_plan, "_k_block", lambda *_: steps)
    sizes = ((100, 250, 4 * steps + 20), (30, 161, steps), (61, 96, 2 * steps + 17))
    products = [product(*layout, "mn", dict(zip("mnk", size, strict=True)), finish=bias_and_relu)
                for size in sizes for layout in LAYOUTS]  # fmt: skip
    check(*products)
    assert any(plan_for(p, cores).k_blocks > 1 and plan_for(p, cores).streams for p in products)
    assert cores == 1 or any(plan_for(p, cores).tasks > 1 for p in products)


@pytest.mark.parametrize("dtype", [float64, int32])
def test_dtypes(dtype: DType, tasks_everywhere: None) -> None:  # noqa: F811
    check(*streamed(*(product(left, "kn", "mn", {"m": 70, "n": 130, "k": 77}, dtype) for left in ("mk", "km"))))


@pytest.mark.parametrize(("left", "right"), [("bmk", "bkn"), ("bmk", "kn"), ("mk", "bkn"), ("bmk", "bnk"), ("bkm", "bkn")])
def test_batches(left: str, right: str, tasks_everywhere: None) -> None:  # noqa: F811
    check(*streamed(product(left, right, "bmn", {"b": 3, "m": 70, "n": 160, "k": 60}, finish=bias_and_relu)))


def check_bits(p: Product, monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The results are the same bits for any number of cores and threads; the plans for the cores."""
    before, host, results, plans = get_num_threads(), Target.host(), set(), []
    try:
        for cores, threads in ((1, 1), (2, 2), (2, 1), (16, 3)):
            monkeypatch.setattr(Target, "host", staticmethod(lambda cores=cores: dataclasses.replace(host, cores=cores)))
            plans.append(plan_gemm(p.kernel, Target.host()))
            set_num_threads(threads)
            results.add(run_native([p.kernel], p.memory)[p.out].tobytes())
    finally:
        set_num_threads(before)
    assert len({plan.grid for plan in plans}) > 1 and len(results) == 1
    return plans


def test_same_bits_for_any_number_of_cores_and_threads(monkeypatch: pytest.MonkeyPatch, tasks_everywhere: None) -> None:  # noqa: F811
    m, n, k = 130, 200, 1700
    p = product("mk", "kn", "mn", {"m": m, "n": n, "k": k}, finish=bias_and_relu)
    x, y, *_ = p.memory
    p.memory[x], p.memory[y] = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (k, n)))
    assert all(plan.streams and plan.k_blocks > 1 for plan in check_bits(p, monkeypatch))


def test_large_products_stream_and_small_ones_do_not() -> None:
    target = dataclasses.replace(AVX512, cores=2)

    def accesses(left: str, m: int, n: int, k: int) -> tuple[Access, Access]:
        plan = plan_gemm(product(left, "kn", "mn", {"m": m, "n": n, "k": k}).kernel, target)
        return plan.lhs_access, plan.rhs_access

    assert accesses("mk", 512, 256, 256) == accesses("km", 512, 256, 256) == (Access.STREAMED, Access.PRIVATE)
    assert Access.STREAMED not in accesses("mk", 8, 64, 64)
    # a line of its own for each step of a tile, from beyond the cache
    far = 16 * target.l2_bytes // 4 // 512
    assert Access.STREAMED not in accesses("km", far, 512, 512)
    assert accesses("mk", far, 512, 512)[0] is accesses("km", far, 512, 64)[0] is Access.STREAMED
    assert Access.STREAMED not in accesses("mk", 2000, 16, 16)  # hardly any tile to copy rows beside


def test_tasks_are_as_many_as_cores_can_share_evenly() -> None:
    p = product("mk", "kn", "mn", {"m": 600, "n": 512, "k": 256}, float32)
    for cores in (1, 2, 4, 8):
        plan = plan_for(p, cores)
        assert plan.streams and plan.tasks % cores == 0


@pytest.mark.parametrize("turns", ["neither", "left", "right", "both"])
@pytest.mark.parametrize("sizes", [(230, 900, 200), (1, 1500, 700, 96), (3, 90, 400, 330)], ids=str)
def test_rows_are_taken_by_whoever_is_free(sizes: tuple[int, ...], turns: str) -> None:
    """With more threads than cores some are late, and the others take their rows: each is computed once, with its own block."""
    *batch, m, k, n = sizes
    numbers = np.random.default_rng(0)
    a, b = (numbers.integers(-4, 5, (*batch, *shape)).astype(np.float32) for shape in ((m, k), (k, n)))
    expected = np.maximum(a @ b + 1, 0)
    left, right = turns in ("left", "both"), turns in ("right", "both")
    x = graphc.tensor(np.ascontiguousarray(a.swapaxes(-1, -2)) if left else a)
    y = graphc.tensor(np.ascontiguousarray(b.swapaxes(-1, -2)) if right else b)

    @graphc.compile
    def layer(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        return graphc.relu((x.mT if left else x) @ (y.mT if right else y) + 1)

    before = get_num_threads()
    try:
        for threads in (2, 3, 5, 1, 4):
            set_num_threads(threads)
            for _ in range(20):
                np.testing.assert_array_equal(layer(x, y).numpy(), expected)
    finally:
        set_num_threads(before)


def test_tasks_do_not_write_to_lines_that_others_write_to() -> None:
    target = dataclasses.replace(AVX512, cores=2)

    def columns_of_a_task(n: int) -> bool:
        """Whether a task has all columns."""
        plan = plan_gemm(product("mk", "kn", "mn", {"m": n, "n": n, "k": n}).kernel, target)
        assert plan.streams and plan.tasks > 1
        return plan.n_block * plan.tile.columns >= n

    assert columns_of_a_task(127) and columns_of_a_task(120) and columns_of_a_task(255)
    assert not columns_of_a_task(128)
