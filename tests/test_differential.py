"""Finding out where compiled code is wrong. To have something to find, the tests break a rule, or a back end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import graphc.ops as ops
from graphc.backend import Layout
from graphc.bisection import bisect
from graphc.compiler import clear_cache, compile_graph
from graphc.config import override
from graphc.differential import Verified, check, first_difference, mismatch
from graphc.errors import AccuracyError
from graphc.fuel import allowed, limited
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.parse import parse_graph
from graphc.passes import pipeline, simplify
from graphc.rewrite import Rule, Var
from graphc.types import bool_, float16, float32, int64

TEXT = """graph @main(%x: float32[8], %y: float32[8]) -> (float32[8], float32[8]) {
  %0 = mul(%x, %y) : float32[8]
  %1 = neg(%0) : float32[8]
  %2 = neg(%1) : float32[8]
  %3 = tanh(%2) : float32[8]
  %4 = exp(%3) : float32[8]
  %5 = exp(%3) : float32[8]
  %6 = add(%4, %5) : float32[8]
  %7 = sub(%6, %y) : float32[8]
  return %7, %3
}"""


@pytest.fixture
def graph() -> Graph:
    return parse_graph(TEXT)


@pytest.fixture
def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.standard_normal(8).astype(np.float32) for _ in range(2)]


@pytest.fixture
def wrong_rule(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    x, y = Var("x"), Var("y")
    wrong = Rule("sub_is_add", ops.sub(x, y), lambda x, y: ops.add(x, y))
    monkeypatch.setattr(simplify, "RULES", [*simplify.RULES, wrong])
    clear_cache()
    yield
    clear_cache()


@pytest.fixture
def wrong_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The code of exp computes 2 ** x."""
    from graphc.backends.llvm import elementwise

    monkeypatch.setitem(elementwise.RULES, "exp", elementwise.RULES["exp2"])
    clear_cache()
    with override(cache_dir=None):
        yield
    clear_cache()


def test_right_code_agrees(graph: Graph, arrays: list[np.ndarray]) -> None:
    assert check(graph, arrays) is None
    assert first_difference(graph, arrays) is None
    assert bisect(graph, arrays) is None


def test_the_first_wrong_rewrite_is_found(graph: Graph, arrays: list[np.ndarray], wrong_rule: None) -> None:
    culprit = bisect(graph, arrays)
    assert culprit is not None
    assert culprit.failure.kind == "wrong"
    assert culprit.rewrite is not None
    assert culprit.rewrite.rule == "sub_is_add"
    assert "sub(" in culprit.rewrite.node
    assert 1 < culprit.rewrite.number <= culprit.rewrites
    assert "sub_is_add" in str(culprit)


def test_a_rule_that_raises_is_found(graph: Graph, arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = Var("x"), Var("y")
    wrong = Rule("other_type", ops.sub(x, y), lambda x: ops.sum(x, axes=(0,)))
    monkeypatch.setattr(simplify, "RULES", [*simplify.RULES, wrong])
    clear_cache()
    failure = check(graph, arrays)
    assert failure is not None
    assert (failure.kind, failure.exception) == ("error", "RewriteError")


def test_a_wrong_back_end_is_no_rewrite(graph: Graph, arrays: list[np.ndarray], wrong_code: None) -> None:
    culprit = bisect(graph, arrays)
    assert culprit is not None
    assert culprit.rewrite is None
    assert "back end" in str(culprit)


def test_the_first_wrong_node_is_named(graph: Graph, arrays: list[np.ndarray], wrong_code: None) -> None:
    found = first_difference(graph, arrays)
    assert found is not None
    assert found.node is graph.nodes[4]
    assert found.mismatch.count > 4
    assert 0.1 < found.mismatch.error < 10


def test_verified_code_raises_and_leaves_the_state(graph: Graph, arrays: list[np.ndarray], wrong_code: None) -> None:
    code = Verified(graph, Layout((None, None), ((0, 0),)))
    before = arrays[0].copy()
    with pytest.raises(AccuracyError, match="the first node that differs is exp"):
        code.run(arrays, [arrays[0], np.empty(8, np.float32)])
    np.testing.assert_array_equal(arrays[0], before)


def test_verified_code_computes(graph: Graph, arrays: list[np.ndarray]) -> None:
    expected = interpret(graph, arrays)
    code = Verified(graph, Layout((None, None), ((0, 0),)))
    out = np.empty(8, np.float32)
    code.run(arrays, [arrays[0], out])
    np.testing.assert_allclose(arrays[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(out, expected[1], rtol=1e-5)


@pytest.mark.parametrize("fuel", [0, 1, 2, 3, 4, 100])
def test_fuel_stops_rewriting(graph: Graph, arrays: list[np.ndarray], fuel: int) -> None:
    expected = interpret(graph, arrays)
    with limited(-1) as all_of_it:
        pipeline.run(graph)
    with override(fuel=fuel):
        with limited(fuel) as spent:
            after = pipeline.run(graph)
        assert spent.spent == min(fuel, all_of_it.spent)
        for got, right in zip(compile_graph(graph)(*arrays), expected):
            np.testing.assert_allclose(got, right, rtol=1e-5)
    assert len(after.nodes) >= len(pipeline.run(graph).nodes)
    if fuel == 0:
        assert [node.op for node in after.nodes] == [node.op for node in graph.nodes]


def test_fuel_is_counted_over_all_passes() -> None:
    with limited(2) as fuel:
        assert [allowed("a", "n"), allowed("b", "m"), allowed("c", "k")] == [True, True, False]
    assert str(fuel.last) == "rewrite 2: b at m"
    assert allowed("anything", "anywhere")


@pytest.mark.parametrize(
    ("got", "expected", "differs"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([1.0, 2.00001], [1.0, 2.0], 0),
        ([1.0, 2.001], [1.0, 2.0], 1),
        ([np.nan, 1.0], [np.nan, 1.0], 0),
        ([np.nan, 1.0], [1.0, 1.0], 1),
        ([np.inf, 1.0], [np.inf, 1.0], 0),
        ([-np.inf, 1.0], [np.inf, 1.0], 1),
        ([1.0, 1e-9], [1.0, 0.0], 0),
    ],
)
def test_what_counts_as_a_mismatch(got: list[float], expected: list[float], differs: int) -> None:
    found = mismatch(np.array(got, np.float32), np.array(expected, np.float32), float32)
    assert (0 if found is None else found.count) == differs


def test_integers_agree_to_the_bit() -> None:
    found = mismatch(np.array([[1, 2], [3, 5]]), np.array([[1, 2], [3, 4]]), int64)
    assert found is not None
    assert (found.index, found.got, found.expected, found.count, found.size) == ((1, 1), 5, 4, 1, 4)
    assert mismatch(np.array([True]), np.array([False]), bool_) is not None
    assert mismatch(np.zeros(0, np.float16), np.zeros(0, np.float16), float16) is None


def test_rounding_is_no_failure() -> None:
    """A sum that cancels: its error is large beside the result, and no larger than that of the definition."""
    graph = parse_graph("""graph @main(%x: float32[4096]) -> float32[] {
  %0 = sum(%x) {axes = [0]} : float32[]
  return %0
}""")
    x = np.random.default_rng(0).standard_normal(4096).astype(np.float32) * 1e4
    x[-1] = -x[:-1].astype(np.float64).sum()
    assert check(graph, [x]) is None
