"""Code for symbolic sizes: one executable computes, for all sizes, what code for numbers computes, to the bit."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_samples import draw
from symbolic_graphs import SymbolicMaker

import graphc.ops as ops
from graphc.backend import Layout
from graphc.bind import bind_graph
from graphc.compiler import compile_graph, executable
from graphc.dims import Dim
from graphc.errors import GraphcError, ShapeError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Value
from graphc.op import OPS, OpDef, Sample
from graphc.sizes import Facts, relying_on
from graphc.types import TensorType, dtype_of, float32, int64
from graphc.variants import SizedExecutable
from graphc.verify import verify

N, M = Dim.symbol("N"), Dim.symbol("M")


def numbers(graph: Graph, seed: int = 0, **sizes: int) -> list[np.ndarray]:
    """Inputs of a graph for some sizes."""
    rng = np.random.default_rng(seed)
    types = [v.type.bind(sizes) for v in graph.inputs]
    return [
        (rng.standard_normal(t.shape) if t.dtype.is_floating_point else rng.integers(0, 3, t.shape)).astype(t.dtype.numpy)
        for t in types
    ]


def check(
    graph: Graph, *sizes: dict[str, int], variants: int | None = None, tolerance: float = 1e-4, exact: bool = True
) -> SizedExecutable:
    """One executable against the interpreter, and to the bit against code for numbers. Code for at most so many ranges of
    sizes is made, none of it for numbers."""
    compiled = compile_graph(graph)
    for each in sizes:
        arrays, bound = numbers(graph, **each), bind_graph(graph, each)
        for got, want, static in zip(compiled(*arrays), interpret(bound, arrays), compile_graph(bound)(*arrays)):
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
            if exact:
                np.testing.assert_array_equal(got, static)
    code = executable(graph)
    assert isinstance(code, SizedExecutable)
    if variants is not None:
        assert len(code._variants) <= variants and all(v.facts is not None for v in code._variants)
    return code


def build(*shapes: Any) -> tuple[Builder, list[Value]]:
    b = Builder("symbolic", locations=False)
    return b, [b.input(f"x{i}", TensorType(float32, shape)) for i, shape in enumerate(shapes)]


# Every op


def _with_symbol(attribute: Any, number: int) -> Any:
    if isinstance(attribute, tuple):
        return tuple(_with_symbol(item, number) for item in attribute)
    return N if isinstance(attribute, int) and not isinstance(attribute, bool) and attribute == number else attribute


def symbolic_cases(record: OpDef, sample: Sample) -> Iterator[tuple[int, Graph]]:
    """The op with a symbol in the place of each size of its operands, as far as it goes without that size as a number."""
    arrays = [np.empty(o.shape, o.dtype.numpy) if isinstance(o, TensorType) else np.asarray(o) for o in sample.operands]
    for number in sorted({size for array in arrays for size in array.shape if size >= 2}):
        for attrs in ({k: _with_symbol(a, number) for k, a in sample.attrs.items()}, dict(sample.attrs)):
            b = Builder(record.name, locations=False)
            try:
                types = [TensorType(dtype_of(a.dtype), _with_symbol(a.shape, number)) for a in arrays]
                made = b.emit(record, tuple(b.input(f"x{i}", t) for i, t in enumerate(types)), attrs)
                graph = b.finish(made if isinstance(made, tuple) else [made])
                verify(bind_graph(graph, {"N": number}))
            except (GraphcError, TypeError, ValueError):
                continue  # the size has to be a number, or an attribute has to stay as it is
            yield number, graph
            break


CASES = {f"{r.name}-{n}": (r, sample) for r in OPS.values() if r.kernel != "host" for n, sample in enumerate(r.samples)}


@pytest.mark.parametrize(("record", "sample"), CASES.values(), ids=list(CASES))
def test_every_op(record: OpDef, sample: Sample) -> None:
    for number, graph in symbolic_cases(record, sample):
        compiled = compile_graph(graph)
        for size in (number, 1, 37):
            types = [v.type.bind({"N": size}) for v in graph.inputs]
            operands = [t if isinstance(o, TensorType) else np.resize(np.asarray(o), t.shape)
                        for o, t in zip(sample.operands, types)]
            arrays = draw(Sample(tuple(operands), sample.attrs, sample.low, sample.high), record.name)
            bound = bind_graph(graph, {"N": size})
            try:
                verify(bound)
                expected = interpret(bound, arrays)
            except (GraphcError, ValueError):
                with pytest.raises((GraphcError, ValueError)):
                    compiled(*arrays)
                continue
            for got, want in zip(compiled(*arrays), expected):
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


# Graphs


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed: int) -> None:
    graph = SymbolicMaker(seed, 6).graph
    compiled = compile_graph(graph)
    for n, m in ((5, 3), (17, 33), (1, 1), (4, 0)):
        arrays, bound = SymbolicMaker(seed, 6).arrays(n, m, seed), bind_graph(graph, {"N": n, "M": m})
        try:
            verify(bound)
        except GraphcError:
            with pytest.raises(GraphcError):
                compiled(*arrays)
            continue
        for got, want in zip(compiled(*arrays), compile_graph(bound)(*arrays)):
            np.testing.assert_array_equal(got, want)


def softmax_graph() -> Graph:
    b, (x,) = build((N, M))
    shifted = x - ops.expand(ops.amax(x, (1,)), x.shape, (1,))
    e = ops.exp(shifted)
    return b.finish([e / ops.expand(ops.sum(e, (1,)), x.shape, (1,))])


def test_softmax_of_any_rows() -> None:
    sizes = [{"N": n, "M": m} for n, m in ((3, 40), (1, 33), (200, 64), (7, 1000), (0, 40))]
    check(softmax_graph(), *sizes, variants=1)


@given(st.integers(0, 70), st.integers(0, 70))
@settings(deadline=None, max_examples=25)
def test_softmax_of_any_shape(n: int, m: int) -> None:
    graph = softmax_graph()
    if m == 0:
        with pytest.raises(GraphcError, match="no elements"):
            compile_graph(graph)(np.zeros((n, m), np.float32))
    else:  # a single short row is summed in lanes, any number of them side by side
        check(graph, {"N": n, "M": m}, exact=n != 1)


def test_a_batch_of_any_size_goes_through_a_perceptron() -> None:
    b, (x, w, c, v) = build((N, 96), (96, 80), (80,), (40, 80))
    hidden = ops.tanh(ops.matmul(x, w) + ops.broadcast_to(c, (N, 80)))
    graph = b.finish([ops.contract(hidden, v, "ab,cb->ac"), ops.contract(x, hidden, "ab,ac->bc"), ops.sum(hidden, (0,))])
    check(graph, *({"N": n} for n in (66, 67, 100, 203)), variants=1, tolerance=1e-3)
    check(graph, *({"N": n} for n in (0, 1, 2, 7, 30, 500, 1009)), tolerance=1e-3, exact=False)


def test_all_sizes_of_a_product() -> None:
    b, (x, y) = build((N, M), (M, N))
    graph = b.finish([ops.matmul(x, y)])
    check(graph, *({"N": n, "M": m} for n, m in ((70, 80), (65, 130), (100, 200))), variants=1, tolerance=1e-3)
    others = ((3, 600), (70, 1100), (33, 0), (0, 33), (64, 64))
    check(graph, *({"N": n, "M": m} for n, m in others), tolerance=1e-2, exact=False)


def test_attention_over_any_length() -> None:
    b, (q, k, v) = build((N, 4, M, 16), (N, 4, M, 16), (N, 4, M, 16))
    scores = ops.contract(q, k, "abcd,abed->abce") * 0.25
    row, column = (ops.iota(shape=(M, M), axis=axis, dtype=int64, like=q) for axis in (0, 1))
    seen = ops.broadcast_to(ops.le(column, row), (N, 4, M, M))
    masked = ops.where(seen, scores, ops.full(scores.type, -1e9, scores))
    e = ops.exp(masked - ops.expand(ops.amax(masked, (3,)), masked.shape, (3,)))
    weights = e / ops.expand(ops.sum(e, (3,)), e.shape, (3,))
    mixed = ops.permute(ops.contract(weights, v, "abce,abed->abcd"), (0, 2, 1, 3))
    graph = b.finish([ops.reshape(mixed, (N, M, 64))])
    check(graph, *({"N": n, "M": m} for n, m in ((2, 65), (1, 70), (5, 100))), variants=1)
    check(graph, *({"N": n, "M": m} for n, m in ((3, 5), (1, 1), (2, 33), (1, 130))))


def test_a_sum_in_pieces_has_the_order_of_its_shape() -> None:
    b, (x,) = build((N, 3))
    sizes: tuple[dict[str, int], ...] = tuple({"N": n} for n in (5, 100, 30_000, 80_001, 200_000))
    check(b.finish([ops.sum(x, (0, 1)), ops.sum(ops.exp(x), (1,))]), *sizes, tolerance=1e-2)


def test_long_columns() -> None:
    """Those of numbers are summed several rows at a time, or in pieces, so the last bits differ."""
    for columns in (3, 16, 100):
        b, (x,) = build((N, columns))
        graph = b.finish([ops.sum(x, (0,))])
        check(graph, *({"N": n} for n in (5, 100, 30_000)), tolerance=1e-2, exact=False)


def test_rows_that_are_looked_up() -> None:
    b = Builder("lookup", locations=False)
    table = b.input("table", TensorType(float32, (M, 24)))
    index = b.input("index", TensorType(int64, (N, 24)))
    graph = b.finish([ops.gather(table, index, 0)])
    check(graph, {"N": 7, "M": 3}, {"N": 1, "M": 5}, {"N": 300, "M": 9}, variants=1)
    check(graph, {"N": 0, "M": 4}, {"N": 0, "M": 0})
    with pytest.raises(GraphcError, match="out of bounds"):
        compile_graph(graph)(np.zeros((2, 24), np.float32), np.full((5, 24), 2))


def test_a_size_of_nothing_does_not_spoil_it_for_others() -> None:
    b = Builder("lookup", locations=False)
    table, index = b.input("table", TensorType(float32, (M, 3))), b.input("index", TensorType(int64, (N, 3)))
    graph = b.finish([ops.gather(table, index, 0) + 1.0])
    check(graph, {"N": 0, "M": 4}, {"N": 5, "M": 4}, {"N": 8, "M": 9})
    assert [v.facts is None for v in executable(graph)._variants] == [True, False]  # type: ignore[attr-defined]


def test_random_numbers_do_not_depend_on_how_the_size_is_known() -> None:
    b = Builder("random", locations=False)
    state = b.input("state", TensorType(int64, (2,)))
    x = b.input("x", TensorType(float32, (N, 5)))
    graph = b.finish([ops.random_bits(state, (N, 5)), x + 1.0])
    check(graph, {"N": 3}, {"N": 100}, {"N": 0}, variants=1)


def test_convolutions_of_batches_and_images_of_any_size() -> None:
    b, (x, w) = build((N, 3, M, M), (4, 3, 3, 3))
    made = ops.conv(x, w, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    graph = b.finish([ops.relu(made)])
    # where sizes are numbers, channels stand last, and are summed in another order
    check(graph, *({"N": n, "M": m} for n, m in ((2, 8), (5, 8), (1, 13), (0, 8))), exact=False)


def test_images_of_any_size_beside_one_of_a_pixel() -> None:
    b, (x, w, v) = build((2, 16, M, M), (16, 16, 3, 3), (16, 16, 3, 3))
    same = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    image = ops.relu(ops.conv(x, w, **same))
    pixel = ops.tanh(ops.conv(ops.reshape(ops.sum(image, (2, 3)), (2, 16, 1, 1)) * 0.01, v, **same))
    graph = b.finish([image * ops.broadcast_to(pixel, image.shape) + 1.0])
    check(graph, *({"M": m} for m in (8, 5, 13)), tolerance=1e-3, exact=False)


def test_a_size_may_be_a_sum_of_others() -> None:
    b, (x, y) = build((2 * N + 1,), (N,))
    graph = b.finish([ops.concat(x, y, axis=0) * 2.0, ops.sum(x, (0,))])
    check(graph, {"N": 3}, {"N": 0}, {"N": 50})
    with pytest.raises(ShapeError, match="wrong shape"):
        compile_graph(graph)(np.ones(4, np.float32), np.ones(2, np.float32))


def test_places_behind_the_end_are_refused() -> None:
    b, (x,) = build((N,))
    graph = b.finish([ops.slice(x, (3,), (5,), (1,))])
    compiled = compile_graph(graph)
    assert compiled(np.arange(9, dtype=np.float32))[0].tolist() == [3, 4]
    with pytest.raises(GraphcError, match="slice"):
        compiled(np.ones(4, np.float32))
    assert compiled(np.arange(5, dtype=np.float32))[0].tolist() == [3, 4]


def test_a_size_that_no_input_tells_is_named() -> None:
    b, (x,) = build((3,))
    graph = b.finish([ops.broadcast_to(x, (N, 3))])
    with pytest.raises(ShapeError, match="size N is not known"):
        compile_graph(graph)(np.ones(3, np.float32))


def test_what_needs_numbers_gets_them() -> None:
    b, (x,) = build((N, M))
    graph = b.finish([ops.cumsum(x, 1) if hasattr(ops, "cumsum") else ops.sort(x, 1)])
    compiled = compile_graph(graph)
    for n, m in ((3, 5), (2, 4), (3, 5)):
        (array,) = numbers(graph, N=n, M=m)
        np.testing.assert_allclose(compiled(array)[0], interpret(bind_graph(graph, {"N": n, "M": m}), [array])[0], rtol=1e-5)


def test_nothing_is_divided_by_a_size_of_zero() -> None:
    b, (x,) = build((N, M))
    flat = ops.pad(ops.reshape(ops.permute(x, (1, 0)), (M * N,)), (1,), (7,), 0.5)
    graph = b.finish([ops.tanh(ops.concat(flat, flat, axis=0))])
    check(graph, *({"N": n, "M": m} for n, m in ((3, 5), (3, 0), (0, 4), (0, 0), (40, 33))))


# Memory


def test_inputs_with_strides_and_outputs_in_place() -> None:
    b, (x, y) = build((N, M), (N, M))
    graph = b.finish([x + y * 2.0])
    code = executable(graph, Layout((None, (1, N)), ((0, 0),)))
    for n, m in ((3, 5), (40, 33), (0, 4)):
        first, second = numbers(graph, N=n, M=m)
        transposed = np.ascontiguousarray(second.T).T
        expected = first + second * 2
        code.run([first, transposed], [first])
        np.testing.assert_array_equal(first, expected)


def test_temporaries_share_memory() -> None:
    b, (x, w) = build((N, 256), (256, 256))
    for _ in range(6):
        x = ops.tanh(ops.matmul(x, w))
    graph = b.finish([x])
    check(graph, {"N": 100}, tolerance=1e-2)
    (variant,) = executable(graph)._variants  # type: ignore[attr-defined]
    buffers = variant.code.program.temporaries
    assert len(buffers) == 5 and len({str(buffer.offset) for buffer in buffers}) == 2


def test_threads_with_different_sizes() -> None:
    graph = softmax_graph()
    compiled = compile_graph(graph)
    sizes = [(50, 40), (3, 2000), (400, 64), (1, 100)]
    wrong: list[tuple[int, int]] = []

    def work(n: int, m: int) -> None:
        (array,) = numbers(graph, N=n, M=m)
        expected = interpret(bind_graph(graph, {"N": n, "M": m}), [array])[0]
        if not all(np.allclose(compiled(array)[0], expected, rtol=1e-4, atol=1e-6) for _ in range(50)):
            wrong.append((n, m))

    threads = [threading.Thread(target=work, args=size) for size in sizes * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_does_not_wait_for_threads_that_it_does_not_have() -> None:
    graph = softmax_graph()
    code = executable(graph)
    assert isinstance(code, SizedExecutable)
    with code._lock:  # as while another thread compiles
        child = os.fork()
        if child == 0:
            (array,) = numbers(graph, N=6, M=50)
            out = np.empty_like(array)
            code.run([array], [out])
            os._exit(0 if np.allclose(out.sum(1), 1) else 1)
    assert os.waitpid(child, 0)[1] == 0


# Facts


def test_an_answer_is_a_fact_only_where_it_depends_on_the_size() -> None:
    facts = Facts({"N": 20})
    with relying_on(facts):
        assert N + 3 > 2 and 2 * N >= N and not facts.at_least_zero
        assert N > 16 and not N > 30 and N != 20
    assert [facts.hold({"N": n}) for n in (16, 17, 30, 31)] == [False, True, True, False]
