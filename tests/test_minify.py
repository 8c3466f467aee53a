"""Making failing graphs small. To have something that fails, the tests break a rule or the code of an op."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from random_graphs import Maker

import graphc
import graphc.op as ops_by_name
import graphc.ops as ops
from graphc.compiler import clear_cache
from graphc.config import override
from graphc.delta_debugging import check_isolated, minify_graph
from graphc.differential import Failure
from graphc.errors import ArgumentError
from graphc.ir import Builder, Graph
from graphc.parse import parse_graph
from graphc.passes import simplify
from graphc.rewrite import Rule, Var
from graphc.types import TensorType, bfloat16, float32
from graphc.verify import verify


def long_graph(count: int) -> Graph:
    """A chain with one exp within, whose sums lead to two outputs."""
    builder = Builder("long")
    x, y = (builder.input(name, TensorType(float32, (3, 4))) for name in "xy")
    a, b = x, y
    for i in range(count):
        a, b = ops.tanh(ops.mul(a, b)), ops.add(b, ops.sum(a, axes=(0,)))
        if i == count // 2:
            b = ops.add(ops.exp(ops.neg(ops.abs(b))), a)
    return builder.finish([b, ops.sub(a, x)])


@pytest.fixture
def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((3, 4)).astype(np.float32) for _ in range(2)]


@pytest.fixture
def wrong_rule(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    x = Var("x")
    wrong = Rule("exp_of_neg_is_exp", ops.exp(ops.neg(x)), lambda x: ops.exp(x))
    monkeypatch.setattr(simplify, "RULES", [*simplify.RULES, wrong])
    clear_cache()
    yield
    clear_cache()


def test_a_wrong_rule_becomes_its_pattern(arrays: list[np.ndarray], wrong_rule: None) -> None:
    found = minify_graph(long_graph(20), arrays)
    verify(found.graph)
    assert [node.op.name for node in found.graph.nodes] == ["neg", "exp"]
    assert found.failure.kind == "wrong"
    assert found.recipe is not None
    assert found.recipe.startswith("numpy.ones")


def test_the_report_can_be_run(arrays: list[np.ndarray], wrong_rule: None, tmp_path: Path) -> None:
    found = minify_graph(long_graph(4), arrays, isolated=False)
    found.save(tmp_path / "small.gir")
    text = (tmp_path / "small.gir").read_text(encoding="utf-8")
    assert parse_graph(text) == found.graph
    assert "wrong: output 0 is" in text
    assert "numpy.ones(shape, dtype)" in text
    assert not (tmp_path / "small.npz").exists()


def test_inputs_are_kept_where_they_matter(tmp_path: Path) -> None:
    graph = parse_graph("""graph @f(%x: float32[3]) -> float32[3] {
  %0 = neg(%x) : float32[3]
  %1 = tanh(%0) : float32[3]
  %2 = exp(%1) : float32[3]
  return %2
}""")
    arrays = [np.array([0.25, 0.777, 3.0], np.float32)]

    def fails(graph: Graph, arrays: Sequence[np.ndarray]) -> Failure | None:
        wrong = any(node.op is ops.tanh for node in graph.nodes) and any(np.any(np.abs(a) == np.float32(0.777)) for a in arrays)
        return Failure("wrong", "numbers of that kind") if wrong else None

    found = minify_graph(graph, arrays, fails=fails)
    assert found.recipe is None
    assert [node.op.name for node in found.graph.nodes] == ["tanh"]
    found.save(tmp_path / "small.gir")
    with np.load(tmp_path / "small.npz") as stored:
        (array,) = (stored[name] for name in stored.files)
    np.testing.assert_array_equal(array, found.inputs[0])
    assert "array(" in found.report()


def test_a_compile_error(arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    x = Var("x")
    wrong = Rule("exp_changes_type", ops.exp(x), lambda x: ops.sum(x, axes=(0,)))
    monkeypatch.setattr(simplify, "RULES", [*simplify.RULES, wrong])
    clear_cache()
    found = minify_graph(long_graph(8), arrays)
    assert [node.op.name for node in found.graph.nodes] == ["exp"]
    assert (found.failure.kind, found.failure.exception) == ("error", "RewriteError")


def test_a_crash_in_a_process_of_its_own(
    arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # a back end that takes the process with it when it meets exp; found by the process through its path
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "import graphc.differential as d\n"
        "whole = d.compile_graph\n"
        "def compile_graph(graph, **options):\n"
        "    if any(node.op.name == 'exp' for node in graph.nodes):\n"
        "        os.abort()\n"
        "    return whole(graph, **options)\n"
        "d.compile_graph = compile_graph\n",
        encoding="utf-8",
    )
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), before))))
    assert check_isolated(parse_graph("graph @f(%x: float32[2]) -> float32[2] {\n  return %x\n}"),
                          [np.ones(2, np.float32)]) is None
    found = minify_graph(long_graph(2), arrays)
    assert found.failure.kind == "crash"
    assert [node.op.name for node in found.graph.nodes] == ["exp"]


def test_what_does_not_fail_is_refused(arrays: list[np.ndarray]) -> None:
    with pytest.raises(ArgumentError, match="does not fail"):
        minify_graph(long_graph(2), arrays, isolated=False)


def test_narrow_floats_reach_the_process() -> None:
    builder = Builder("narrow")
    x = builder.input("x", TensorType(bfloat16, (5,)))
    graph = builder.finish([ops.exp(x)])
    assert check_isolated(graph, [np.linspace(-1, 1, 5).astype(bfloat16.numpy)]) is None


@pytest.mark.parametrize("seed", range(6))
def test_random_graphs(seed: int) -> None:
    """Whatever the graph, what is found is a graph that the check calls failing, and no node can be taken from it."""
    made = Maker(seed, 25)
    names = [node.op.name for node in made.graph.nodes if node.operands]
    wanted = names[len(names) // 2]

    def fails(graph: Graph, arrays: Sequence[np.ndarray]) -> Failure | None:
        verify(graph)
        return Failure("wrong", "it is there") if any(n.op.name == wanted for n in graph.nodes) else None

    found = minify_graph(made.graph, made.arrays, fails=fails)
    assert [node.op.name for node in found.graph.nodes if node.operands] == [wanted]


def test_fuel_holds_in_the_process(arrays: list[np.ndarray]) -> None:
    with override(fuel=0):
        assert check_isolated(long_graph(2), arrays) is None


def test_an_op_that_the_other_process_does_not_have() -> None:
    @graphc.custom_op("minified.off", scalar=lambda x: x * 1.01)
    def off(x: np.ndarray) -> np.ndarray:
        return x * 1.0

    try:
        found = graphc.minify(lambda x: off(x.sin()).exp().sum(), (graphc.linspace(1, 2, 7),))
    finally:
        ops_by_name.OPS.pop("minified.off")
    assert [node.op.name for node in found.graph.nodes] == ["minified.off"] and found.failure.kind != "crash"
