"""Index arithmetic: whatever is simplified has the value that it had, and expressions that are equal are one object."""

from __future__ import annotations

import gc
import math
import random
import weakref

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_interpreter import Machine

import graphc.index as ix
from graphc.expression import Axis, Buffer, Expr, cast, constant, load
from graphc.types import bool_, float32, int32, int64, uint8

AXES = (Axis("i", 5), Axis("j", 8), Axis("k", 3))
MEMORY = Buffer("places", int64, 8)


def value(expr: Expr, places: tuple[int, ...], contents: np.ndarray | None = None) -> int:
    """The value of an index where the axes are at `places`."""
    machine = Machine()
    machine.axes.update(zip(AXES, places))
    machine.memory[MEMORY] = np.arange(8) if contents is None else contents
    return int(machine.evaluate(expr))


places = st.tuples(*(st.integers(0, axis.extent - 1) for axis in AXES))
atoms = st.sampled_from([*(axis.value for axis in AXES), load(MEMORY, AXES[1].value)])
coefficients = st.integers(-9, 9)
sums = st.recursive(
    atoms | coefficients.map(ix.number),
    lambda inner: st.builds(ix.plus, inner, inner) | st.builds(ix.times, inner, coefficients),
    max_leaves=6,
)


@given(sums, places)
def test_bounds_hold(expr: Expr, at: tuple[int, ...]) -> None:
    low, high = ix.bounds(expr)
    assert low <= value(expr, at) <= high


@given(sums, sums, st.integers(1, 12), st.integers(1, 12), places)
def test_divisions_are_exact_where_nothing_is_negative(
    a: Expr, b: Expr, divisor: int, other: int, at: tuple[int, ...]
) -> None:
    def positive(expr: Expr) -> Expr:
        low, _ = ix.bounds(expr)
        return ix.plus(expr, -low) if math.isfinite(low) and low < 0 else expr

    a, b = positive(a), positive(b)
    assume(value(a, at) >= 0 and value(b, at) >= 0)
    x, y = value(a, at), value(b, at)
    assert value(ix.quotient(a, divisor), at) == x // divisor
    assert value(ix.modulo(a, divisor), at) == x % divisor
    again = ix.plus(ix.times(ix.quotient(a, divisor), divisor), ix.modulo(a, divisor))
    assert value(again, at) == x
    mixed = ix.plus(ix.times(ix.modulo(a, divisor), other), ix.quotient(b, other))
    assert value(ix.quotient(mixed, divisor), at) == (x % divisor * other + y // other) // divisor


shapes = st.lists(st.sampled_from([1, 1, 2, 3, 4, 6]), max_size=4).map(tuple)


@given(shapes, st.integers(0, 1 << 20))
def test_reindex_follows_numpy(shape: tuple[int, ...], seed: int) -> None:
    draw = random.Random(seed)
    size, other = math.prod(shape), []
    while size > 1 or draw.random() < 0.3:
        divisor = draw.choice([d for d in range(1, size + 1) if size % d == 0])
        other.append(divisor)
        size //= divisor
    axes = [Axis(f"a{n}", extent) for n, extent in enumerate(shape)]
    index = tuple(ix.ZERO if a.extent == 1 else a.value for a in axes)
    found = ix.reindex(index, shape, tuple(other))
    for at in np.ndindex(*shape):
        machine = Machine()
        machine.axes.update(zip(axes, at))
        expected = np.unravel_index(np.ravel_multi_index(at, shape), other) if shape and other else (0,) * len(other)
        assert tuple(int(machine.evaluate(e)) for e in found) == tuple(expected)


def test_shared_dimensions_keep_their_index() -> None:
    i, j, k = (axis.value for axis in AXES)
    assert ix.reindex((i, j, k), (5, 8, 3), (5, 24)) == (i, ix.plus(ix.times(j, 3), k))
    assert ix.reindex((i, j), (5, 8), (1, 5, 8, 1)) == (ix.ZERO, i, j, ix.ZERO)


def test_a_remainder_along_which_nothing_moves() -> None:
    i, j = AXES[0].value, AXES[1].value
    assert ix.strided((ix.modulo(ix.plus(ix.times(i, 2), j), 4), j), (0, 3)) is ix.times(j, 3)


def test_what_is_read_from_memory_has_no_bounds_but_its_dtype() -> None:
    place = load(MEMORY, ix.ZERO)
    assert ix.bounds(ix.quotient(place, 3)) == (-math.inf, math.inf)
    assert ix.bounds(ix.plus(place, ix.times(place, -1))) == (0, 0)
    for dtype, low, high in ((uint8, 0, 255), (int32, -(2**31), 2**31 - 1), (bool_, 0, 1)):
        assert ix.bounds(cast(load(Buffer("b", dtype, 1), ix.ZERO), int64)) == (low, high)


def test_a_quotient_of_what_is_read_is_not_taken_for_positive() -> None:
    i = AXES[0].value
    # 8 + 8 i - q with q = place // 2: not (1 + i) * 8 - q with a remainder of -q
    expr = ix.plus(ix.plus(ix.times(i, 8), 10), ix.times(ix.quotient(load(MEMORY, AXES[1].value), 2), -1))
    for at in np.ndindex(5, 8, 1):
        assert value(ix.quotient(expr, 8), at) == value(expr, at) // 8
        assert value(ix.modulo(expr, 8), at) == value(expr, at) % 8


def test_equal_expressions_are_one_object() -> None:
    i = AXES[0].value
    assert ix.plus(ix.times(i, 2), 1) is ix.plus(ix.times(i, 2), 1)
    assert constant(0.0, float32) is not constant(-0.0, float32)
    assert constant(math.nan, float32) is constant(math.nan, float32)
    assert constant(1, int64) is not constant(1, int32)
    assert constant(1, int64) is not constant(True, bool_)


def test_expressions_do_not_outlive_their_use() -> None:
    buffer = Buffer("b", float32, 8)
    gone = weakref.ref(load(buffer, ix.plus(Axis("i", 8).value, 1)))
    gc.collect()
    assert gone() is None


def test_numbers_are_cut_to_their_dtype() -> None:
    assert constant(300, uint8).attr == 44
    assert constant(-1, uint8).attr == 255
    assert constant(2**63, int64).attr == -(2**63)
    assert constant(2**64 + 5, int32).attr == 5
    assert constant(1e300, float32).attr == math.inf
    assert constant(math.nan, int32).attr == -(2**31)


def test_doubling_takes_no_time() -> None:
    x = load(MEMORY, ix.ZERO)
    for _ in range(200):
        x = x + x
    assert ix.terms(x) == ({load(MEMORY, ix.ZERO): 2**200}, 0)
    long = AXES[0].value
    for _ in range(5000):
        long = Expr("add", (long, AXES[1].value), int64)
    assert ix.terms(long)[0] == {AXES[0].value: 1, AXES[1].value: 5000}


@pytest.mark.parametrize("extent", [0, 1])
def test_axes_of_nothing_or_one(extent: int) -> None:
    assert ix.bounds(Axis("n", extent).value) == (0, 0)
