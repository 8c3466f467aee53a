"""Compiled code at the corners of dtypes and shapes, against each op's definition: the same numbers, no trap, no crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

import graphc.ops as ops
from graphc.backend import Layout, get_backend
from graphc.compiler import compile_graph, executable
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Value
from graphc.passes import pipeline
from graphc.passes.order import DEFAULT
from graphc.schedule import Machine, lower
from graphc.types import TensorType, bool_, dtype_of, float32, int32, int64, uint8


def graph_of(function: Callable[..., Value | Sequence[Value]], arrays: Sequence[np.ndarray]) -> Graph:
    """The function, traced over inputs of the arrays' types."""
    b = Builder("corner", locations=False)
    results = function(*(b.input(None, TensorType(dtype_of(a.dtype), a.shape)) for a in arrays))
    return b.finish([results] if isinstance(results, Value) else results)


def check(function: Callable[..., Value | Sequence[Value]], *arrays: np.ndarray, tolerance: float = 0.0) -> None:
    """Compiled and interpreted results agree."""
    graph = graph_of(function, arrays)
    for got, expected in zip(compile_graph(graph)(*arrays), interpret(graph, arrays), strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


rng = np.random.default_rng(0)
INTS = rng.integers(-100, 100, (3, 4))
BYTES = INTS.astype(np.uint8)
BOOLS = INTS > 0
NAN, INF = np.nan, np.inf
SPECIAL = np.array([[1, NAN, 3], [NAN, NAN, 0], [1, 2, 2], [INF, -INF, 0], [-0.0, 0.0, -1], [-INF, -INF, -INF]], np.float32)

NUMBERS = {
    "an int64 sum that wraps": (lambda x: (x + 2**62) + 2**62, INTS),
    "an int64 product that wraps": (lambda x: (x * 2**40) * 2**40 + 5, INTS),
    "a number that int32 cannot hold": (lambda x: x + 2**40, INTS.astype(np.int32)),
    "a number that int64 cannot hold": (lambda x: x + (2**64 + 7), INTS),
    "the largest of uint64": (lambda x: ops.maximum(x + (2**64 - 1), 2**63), BYTES.astype(np.uint64)),
    "minus one as a byte": (lambda x: x + (-1), BYTES),
    "a float32 that overflows": (lambda x: x * 1e300, INTS.astype(np.float32)),
    "signs of bytes": (lambda x: ops.sign(x), BYTES),
    "signs of NaN and zeros": (lambda x: ops.sign(x), SPECIAL),
    "minima of bytes and of minus one": (lambda x: ops.minimum(x, -1), BYTES),
}
CASTS = {
    "to int64": (lambda x: ops.cast(x * 1e30, int64), SPECIAL),
    "to int32": (lambda x: ops.cast(x * 1e9, int32), SPECIAL),
    "to uint8": (lambda x: ops.cast(x * 100.7, uint8), SPECIAL),
    "of a NaN that is broadcast": (lambda x: x + ops.cast(ops.broadcast_to(nan(x), (70000,)), int64), np.arange(70000)),
    "to bool": (lambda x: ops.cast(x, bool_), SPECIAL),
}
PADDING = {
    "ints by a float": (lambda x: ops.pad(x, (1, 0), (0, 2), 0.0), INTS),
    "ints by a fraction": (lambda x: ops.pad(x, (1, 0), (0, 2), -1.5), INTS),
    "bools": (lambda x: ops.pad(x, (1, 0), (0, 2), 1), BOOLS),
    "bytes by too much": (lambda x: ops.pad(x, (1, 0), (0, 2), 300), BYTES),
    "a convolution of ints": (
        lambda x, w: ops.conv(x, w, (1,), ((1, 1),), (1,), 1), INTS.reshape(1, 3, 4), INTS.reshape(2, 3, 2)
    ),
}
EXTREMES = {
    "maxima": (lambda x: [ops.amax(x, (1,)), ops.amin(x, (1,)), ops.amax(x, (0,)), ops.amin(x, (0, 1))], SPECIAL),
    "places": (lambda x: [ops.argmax(x, 1), ops.argmin(x, 1), ops.argmax(x, 0), ops.argmin(x, 0)], SPECIAL),
    "of pairs": (lambda x: [ops.maximum(x, ops.flip(x, (0, 1))), ops.minimum(x, ops.flip(x, (0, 1))), ops.relu(x)], SPECIAL),
    "of bools": (lambda x: [ops.amax(x, (1,)), ops.amin(x, (0,)), ops.argmax(x, 1), ops.argmin(x, 0)], BOOLS),
    "of the least int": (lambda x: [ops.amax(x, (0,)), ops.abs(x), ops.neg(x)], np.array([-(2**63), -(2**63) + 1])),
}  # fmt: skip
DIVISION = {
    "of the least int by minus one": (lambda x: [ops.floor_divide(x, -1), ops.remainder(x, -1)], np.array([-(2**63), 5])),
    "of floats by zero": (lambda x: [x / 0.0, ops.floor_divide(x, 0.0), ops.remainder(x, 0.0)], SPECIAL),
    "of ints by zero, as floats": (lambda x: x / 0, INTS),
}
PRODUCTS = {
    "of ints": (ops.matmul, INTS, INTS.T),
    "of bytes": (ops.matmul, BYTES, BYTES.T),
    "of bools": (ops.matmul, BOOLS, BOOLS.T),
    "of many ints": (ops.matmul, *(rng.integers(-(2**62), 2**62, s) for s in ((40, 50), (50, 30)))),
    "of many bytes": (ops.matmul, *(rng.integers(0, 256, s, np.uint8) for s in ((40, 50), (50, 30)))),
    "of many bools": (ops.matmul, *(rng.random(s) < 0.1 for s in ((40, 50), (50, 30)))),
    "in twelve dimensions": (ops.matmul, INTS.reshape(*[1] * 8, 3, 1, 2, 2), INTS.reshape(*[1] * 8, 3, 1, 2, 2)),
    "in four spatial dimensions": (
        lambda x, w: ops.conv(x, w, (1,) * 4, ((0, 1),) * 4, (1,) * 4, 1),
        rng.integers(-9, 9, (1, 1, 3, 3, 3, 3)), rng.integers(-9, 9, (1, 1, 2, 2, 2, 2)),
    ),
}  # fmt: skip
CASES = {
    f"{family}: {name}": case
    for family, cases in {
        "numbers": NUMBERS, "casts": CASTS, "padding": PADDING, "extremes": EXTREMES, "division": DIVISION, "products": PRODUCTS
    }.items()
    for name, case in cases.items()
}  # fmt: skip


def nan(like: Value) -> Value:
    return ops.constant(like=like, value=np.array(NAN, np.float32))


@pytest.mark.parametrize("name", CASES)
def test_compiled_as_defined(name: str) -> None:
    function, *arrays = CASES[name]
    check(function, *arrays)


def test_division_of_ints_by_zero_does_not_trap() -> None:
    graph = graph_of(lambda x, y: [ops.floor_divide(x, y), ops.remainder(x, y)], [INTS, INTS])
    for result in compile_graph(graph)(INTS, np.zeros_like(INTS)):
        np.testing.assert_array_equal(result, np.zeros_like(INTS))


def test_half_precision_is_summed_in_single() -> None:
    tenths = np.full((3, 5000), 0.1, np.float16)
    (total,) = compile_graph(graph_of(lambda x: ops.sum(x, (1,)), [tenths]))(tenths)
    np.testing.assert_array_equal(total, np.full(3, np.float32(np.float16(0.1)) * 5000, np.float16))
    ones = np.ones((5000, 2), np.float16)
    (product,) = compile_graph(graph_of(lambda x, y: ops.matmul(x, y) * 0.5, [tenths[:1], ones]))(tenths[:1], ones)
    np.testing.assert_array_equal(product, np.full((1, 2), np.float32(np.float16(0.1)) * 2500, np.float16))


def test_negative_zeros_that_nothing_is_added_to_stay() -> None:
    base, index, src = np.full((2, 3), -0.0, np.float32), np.array([[0], [2]]), np.ones((2, 1), np.float32)
    (got,) = compile_graph(graph_of(lambda b, i, s: ops.scatter_add(b, i, s, 1), [base, index, src]))(base, index, src)
    np.testing.assert_array_equal(np.signbit(got), got == 0)


@pytest.mark.parametrize("backend", ["llvm", "reference"])
@pytest.mark.parametrize("wrong", [-1, 3, -(2**63), 2**62])
def test_places_out_of_bounds_are_errors(wrong: int, backend: str) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    index = np.zeros((2, 9), np.int64)
    ones = np.ones(index.shape, np.float32)
    functions = {
        "gather": lambda x, i, s: ops.gather(x, i, 1) * 2.0,
        "scatter_add": lambda x, i, s: ops.scatter_add(x, i, s, 1),
        "few places": lambda x, i, s: ops.scatter_add(x, ops.slice(i, (0, 7), (2, 9), (1, 1)),
                                                      ops.slice(s, (0, 7), (2, 9), (1, 1)), 1),
        "stretched": lambda x, i, s: ops.gather(x, ops.broadcast_to(ops.slice(i, (1, 8), (2, 9), (1, 1)), (2, 4)), 1),
    }  # fmt: skip
    for function in functions.values():
        compiled = compile_graph(graph_of(function, [x, index, ones]), backend=backend)
        compiled(x, index, ones)
        index[1, 8] = wrong
        with pytest.raises(IndexError, match="out of bounds"):
            compiled(x, index, ones)
        index[1, 8] = 0


def test_nothing_is_written_over_before_indices_are_checked() -> None:
    weights, index = np.ones((4, 3), np.float32), np.full((2, 3), 4)
    graph = graph_of(lambda w, i: [w - ops.scatter_add(w * 0.0, i, ops.gather(w, i, 0) * 2.0, 0)], [weights, index])
    run = executable(graph, Layout((None, None), ((0, 0),))).run
    with pytest.raises(IndexError, match=r"gather: .*out of bounds\s+expected: 0 <= index < 4 along dimension 0"):
        run([weights, index], [weights])
    np.testing.assert_array_equal(weights, np.ones((4, 3)))


def test_a_failed_call_leaves_all_its_state_as_it_was() -> None:
    """Even what could be written early, and what depends on nothing that is checked."""
    counter, table, index = np.zeros((), np.int64), np.ones((4, 3), np.float32), np.full((2, 3), 4)

    def step(n: Value, t: Value, i: Value) -> list[Value]:
        return [n + 1, t * 2.0, ops.gather(ops.exp(t), ops.cast(ops.gather(n + i, i * 0, 0), int64), 0)]

    run = executable(graph_of(step, [counter, table, index]), Layout((None,) * 3, ((0, 0), (1, 1)))).run
    taken = np.empty((2, 3), np.float32)
    with pytest.raises(IndexError, match="out of bounds"):
        run([counter, table, index], [counter, table, taken])
    assert counter == 0 and (table == 1).all()
    run([counter, table, index - 4], [counter, table, taken])
    assert counter == 1 and (table == 2).all() and np.allclose(taken, np.exp(1))


def test_indices_that_are_known_take_no_check() -> None:
    b = Builder("known")
    x = b.input("x", TensorType(float32, (4, 3)))
    places = b.constant(np.array([[3, 0, 1]]))
    counted = ops.iota(shape=(4, 3), axis=0, dtype=int64, like=x)
    graph = b.finish([ops.gather(x, ops.broadcast_to(places, (2, 3)), 0), ops.gather(x, counted, 0),
                      ops.gather(x, ops.broadcast_to(b.constant(3), (1, 3)), 0)])  # fmt: skip
    assert not lower(pipeline.run(graph), Machine()).checks
    b = Builder("wrong")
    x = b.input("x", TensorType(float32, (4, 3)))
    graph = b.finish([ops.gather(x, b.constant(np.array([[4, 0, 1]])), 0)])
    assert len(lower(pipeline.run(graph), Machine()).checks) == 1


def test_equal_indices_are_checked_once() -> None:
    b = Builder("twice")
    x, y = (b.input(None, TensorType(float32, (4, n))) for n in (3, 5))
    index = b.input("index", TensorType(uint8, (2, 1)))
    taken = [ops.gather(v, ops.broadcast_to(index, (2, v.shape[1])), 0) for v in (x, y)]
    graph = b.finish([*taken, ops.gather(x, ops.broadcast_to(index, (2, 3)), 1)])
    checks = lower(pipeline.run(graph), Machine()).checks
    assert [check.expected for check in checks] == [f"0 <= index < {n} along dimension {k}" for n, k in ((4, 0), (3, 1))]


def test_places_out_of_bounds_are_neither_read_nor_written() -> None:
    """Memory is safe even where nothing is checked."""
    def unchecked(graph: Graph) -> Callable[..., list[np.ndarray]]:
        passes = [name for name in DEFAULT if name != "guard"]
        compiled = get_backend("llvm").compile(graph, Layout.plain(graph), passes)

        def run(*arrays: np.ndarray) -> list[np.ndarray]:
            outputs = [np.empty(t.shape, t.dtype.numpy) for t in compiled.outputs]
            compiled.run(arrays, outputs)
            return outputs

        return run

    x = np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3)
    index = np.array([[-1, 3, 2**62, 0], [-(2**63), 2**63 - 1, 1, -3]])
    (got,) = unchecked(graph_of(lambda x, i: ops.gather(x, i, 1), [x, index]))(x, index)
    np.testing.assert_array_equal(got, [[0, 0, 0, 1], [0, 0, 5, 0]])
    for places in (index, np.tile(index, (1, 9))):  # few are compared with, many go through a loop
        given = (x, places, np.full(places.shape, 10, np.float32))
        (got,) = unchecked(graph_of(lambda b, i, s: ops.scatter_add(b, i, s, 1), given))(*given)
        times = places.shape[1] // 4 * 10
        np.testing.assert_array_equal(got, x + np.array([[times, 0, 0], [0, times, 0]]))


def test_a_constant_is_a_copy() -> None:
    array = np.ones(3, np.float32)
    graph = graph_of(lambda x: x * array, [array])
    compiled = compile_graph(graph)
    array[:] = 5
    for run in (compiled, lambda x: interpret(graph, [x])):
        np.testing.assert_array_equal(run(array)[0], array)


def test_a_constant_of_another_byte_order() -> None:
    swapped = np.arange(3, dtype=">f4")
    check(lambda x: x + swapped, np.ones(3, np.float32))


def test_python_numbers_have_their_own_dtypes() -> None:
    b = Builder("numbers")
    assert [b.constant(value).dtype for value in (True, 3, 0.5)] == [bool_, int64, float32]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (7, 129), (300, 1)])
def test_rows_divided_by_their_own_number(shape: tuple[int, int], dtype: type) -> None:
    x = np.random.default_rng(0).uniform(0.5, 2, shape).astype(dtype)

    def function(x: Value) -> list[Value]:
        total = ops.broadcast_to(ops.reshape(ops.sum(x, (1,)) + 1.0, (shape[0], 1)), shape)
        return [x / total, ops.exp(x) / total]

    graph = graph_of(function, [x])
    for got, want in zip(compile_graph(graph)(x), interpret(graph, [x]), strict=True):
        np.testing.assert_allclose(got, want, rtol=4e-3 if dtype is np.float16 else 1e-5)
