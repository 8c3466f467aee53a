"""Products that are computed the other way round, as their right operand would have to be turned to be packed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from native_kernels import run_native
from test_llvm_gemm import (  # noqa: F401
    Finish,
    Product,
    at,
    bias_and_relu,
    check,
    cpu,
    half_as_double,
    product,
    rng,
    tasks_everywhere,
)
from test_streamed_products import check_bits, plan_for

from graphc.backends.llvm import gemm_plan
from graphc.backends.llvm.planned_gemm import Access, Plan
from graphc.expression import Axis, Buffer, Expr, load
from graphc.kernel import Store
from graphc.types import DType, float32, float64, int32

SHAPES = [(32, 300, 64), (33, 161, 50), (64, 257, 70), (40, 500, 130), (16, 97, 33), (100, 1000, 40)]


@pytest.fixture
def turned_everywhere(monkeypatch: pytest.MonkeyPatch, tasks_everywhere: None) -> None:  # noqa: F811
    """Products are turned wherever they can be."""
    cycles = Plan.cycles.fget
    assert cycles is not None
    monkeypatch.setattr(Plan, "cycles", property(lambda plan: 0.0 if plan.turned else cycles(plan)))


def linear(left: str, sizes: tuple[int, int, int], dtype: DType = float32, finish: Finish | None = None) -> Product:
    """A product with the right operand of a linear layer."""
    return product(left, "nk", "mn", dict(zip("mnk", sizes, strict=True)), dtype, finish)


@pytest.mark.parametrize("left", ["mk", "km"])
def test_shapes(cpu: str, left: str, turned_everywhere: None) -> None:  # noqa: F811
    finishes = itertools.cycle((None, bias_and_relu, half_as_double))
    products = [linear(left, sizes, finish=finish) for sizes, finish in zip(SHAPES, finishes)]
    assert all(plan_for(p).turned for p in products)
    check(*products)


@pytest.mark.parametrize("steps", [32, 70])
def test_blocks_of_steps(steps: int, monkeypatch: pytest.MonkeyPatch, turned_everywhere: None) -> None:
    """Sums are collected in scratch memory, of which squares reach beyond the last row and column."""
    monkeypatch.setattr(gemm_plan, "_k_block", lambda *_: steps)
    products = [linear("mk", (m, n, 4 * steps + 17), finish=bias_and_relu) for m, n in ((64, 255), (33, 161), (160, 90))]
    plans = [plan_for(p) for p in products]
    assert all(plan.turned and plan.k_blocks > 1 for plan in plans) and any(plan.streams for plan in plans)
    check(*products)


@pytest.mark.parametrize("dtype", [float64, int32])
def test_dtypes(dtype: DType, turned_everywhere: None) -> None:
    check(linear("mk", (40, 230, 77), dtype), linear("km", (33, 100, 20), dtype))


@pytest.mark.parametrize(("left", "right"), [("bmk", "bnk"), ("bmk", "nk"), ("mk", "bnk"), ("bkm", "bnk")])
def test_batches(left: str, right: str, turned_everywhere: None) -> None:
    p = product(left, right, "bmn", {"b": 3, "m": 20, "n": 170, "k": 60}, finish=bias_and_relu)
    assert plan_for(p).turned
    check(p)


def test_stores_that_are_no_plain_matrix(turned_everywhere: None) -> None:
    """Rows and columns on several axes, and a second store the other way round."""
    p = product("amk", "nck", "ancm", {"a": 3, "m": 14, "n": 20, "c": 9, "k": 50})
    check(p)
    p = linear("mk", (40, 230, 60))
    axes: dict[str, Axis] = {axis.name: axis for axis in (*p.kernel.m, *p.kernel.n)}
    other = Buffer("other", float32, 40 * 230, "output")
    total: Expr = p.kernel.accumulator.value
    p.kernel.epilogue = (Store(p.out, at(axes, "mn"), total * 2.0), Store(other, at(axes, "nm"), total))
    p.memory[other] = np.zeros((230, 40), np.float32)
    assert plan_for(p).turned
    results = run_native([p.kernel], p.memory)
    np.testing.assert_array_equal(results[p.out].reshape(40, 230), p.want * 2)
    np.testing.assert_array_equal(results[other].reshape(230, 40), p.want.T)


def test_output_that_stands_where_an_input_does(turned_everywhere: None) -> None:
    old = Buffer("old", float32, 40 * 230, "input")

    def update(axes: dict[str, Axis], value: Expr, want: np.ndarray) -> tuple[Expr, np.ndarray, dict]:
        before = rng.integers(-4, 5, want.shape).astype(np.float32)
        return load(old, at(axes, "mn")) - value, before - want, {old: before}

    check(linear("mk", (40, 230, 60), finish=update))


def test_nan_stays_in_its_row_and_column(turned_everywhere: None) -> None:
    p = linear("mk", (33, 161, 50))
    a, b, _ = p.memory.values()
    a[32], b[160] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        p.want = a @ b.T
    assert np.isfinite(p.want[:32, :160]).all()
    check(p)


def test_same_bits_for_any_number_of_cores_and_threads(monkeypatch: pytest.MonkeyPatch, turned_everywhere: None) -> None:
    m, n, k = 64, 500, 1700
    p = linear("mk", (m, n, k), finish=bias_and_relu)
    x, y, *_ = p.memory
    p.memory[x], p.memory[y] = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, k), (n, k)))
    assert all(plan.turned and plan.streams and plan.k_blocks > 1 for plan in check_bits(p, monkeypatch))


def test_which_products_are_turned() -> None:
    def plan(right: str, m: int, n: int, k: int, cores: int = 2) -> Plan:
        return plan_for(product("mk", right, "mn", {"m": m, "n": n, "k": k}), cores)

    few = plan("nk", 128, 3072, 768)
    assert few.turned and (few.lhs_access, few.rhs_access) == (Access.STREAMED, Access.PRIVATE) and few.m == 3072
    assert not plan("kn", 128, 3072, 768).turned  # its columns stand side by side
    assert not plan("nk", 1024, 1024, 1024).turned  # as many results to turn as weights to pack
    assert not plan("nk", 1, 3072, 768).turned
    assert {plan("nk", 128, 3072, 768, cores).turned for cores in (1, 2, 64)} == {True}
