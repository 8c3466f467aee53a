"""Graphs inside of graphs: their text, their rules, passes, derivatives and code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from random_control_flow import random_graph

import graphc.ops as ops
from graphc.autodiff import vjp_graph
from graphc.compiler import compile_graph, executable
from graphc.errors import GraphcError, ParseError, VerifyError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph
from graphc.kernel import Control
from graphc.ops.control import saving_branches
from graphc.ops.control_scan import saving
from graphc.parse import parse_graph
from graphc.passes import pipeline
from graphc.text import print_graph
from graphc.types import TensorType, bool_, float32, float64
from graphc.verify import MAX_NESTING, verify

V = TensorType(float64, (3,))


def step(make: Any, *types: TensorType) -> Graph:
    builder = Builder("step", locations=False)
    return builder.finish(make(*(builder.input(None, type_) for type_ in types)))


def nested(depth: int, inner: Graph | None = None) -> Graph:
    """A branch in a branch in a branch."""
    graph = inner or step(lambda p, x: [x], TensorType(bool_, ()), V)
    for _ in range(depth):
        builder = Builder("branch", locations=False)
        p, x = builder.input("p", TensorType(bool_, ())), builder.input("x", V)
        graph = builder.finish(ops.cond(p, p, x, then=graph, otherwise=graph))
    return graph


def test_nesting_has_a_limit() -> None:
    graph = nested(3)
    verify(graph)
    assert parse_graph(print_graph(graph)) == graph
    text = print_graph(_chain(MAX_NESTING))
    assert print_graph(parse_graph(text)) == text
    with pytest.raises(VerifyError, match="nested more than"):
        verify(_chain(MAX_NESTING + 1))
    with pytest.raises(ParseError, match="nested more than"):
        parse_graph(print_graph(_chain(MAX_NESTING + 1)))


def _chain(depth: int) -> Graph:
    graph = step(lambda x: [x], V)
    for _ in range(depth):
        builder = Builder("chain", locations=False)
        x = builder.input("x", V)
        graph = builder.finish(ops.scan(x, body=graph, carries=1, scanned=0, length=2, reverse=False))
    return graph


def test_errors_inside_have_their_line() -> None:
    text = print_graph(_chain(2)).replace("length = 2,", "length = 3,", 1)
    assert parse_graph(text)
    broken = text.replace("return %0\n    }", "return %9\n    }")
    line = next(n for n, content in enumerate(broken.splitlines(), 1) if "%9" in content)
    with pytest.raises(ParseError, match=rf"line {line}, .*%9 is not defined"):
        parse_graph(broken)


def test_a_graph_is_no_constant_and_nothing_to_keep_with_an_input() -> None:
    graph = print_graph(step(lambda x: [x], V))
    for where in (f"graph @f(%x: float64[] {{g = {graph}}}) -> float64[] {{ return %x }}",
                  f"graph @f() -> float64[] {{ %0 = constant() {{value = {graph}}} : float64[] return %0 }}",
                  f"graph @f() -> float64[1] {{ %0 = constant() {{value = [{graph}]}} : float64[1] return %0 }}"):
        with pytest.raises(ParseError):
            parse_graph(where)


@pytest.mark.parametrize(("make", "message"), [
    (lambda x: ops.scan(x, body=step(lambda x: [x], V), carries=1, scanned=1, length=3, reverse=False), "not so many operands"),
    (lambda x: ops.scan(x, body=step(lambda x: [x * 2], V), carries=0, scanned=1, length=4, reverse=False), "another length"),
    (lambda x: ops.scan(x, body=step(lambda x: [ops.sum(x, (0,))], V), carries=1, scanned=0, length=4, reverse=False),
     "other carries than it takes"),
    (lambda x: ops.scan(x, x, body=step(lambda x: [x], V), carries=1, scanned=0, length=4, reverse=False),
     "inputs of the body are not what it is given"),
    (lambda x: ops.cond(x, x, then=step(lambda x: [x], V), otherwise=step(lambda x: [x], V)), "predicate is not one bool"),
    (lambda x: ops.while_loop(x, condition=step(lambda x: [x > 0], V), body=step(lambda x: [x], V), carries=1),
     "condition is not one bool"),
])  # fmt: skip
def test_type_rules(make: Any, message: str) -> None:
    builder = Builder("main")
    with pytest.raises(GraphcError, match=message):
        make(builder.input("x", V))


def test_equal_bodies_are_computed_once() -> None:
    builder = Builder("main", locations=False)
    x = builder.input("x", V)
    results = [
        ops.scan(x, body=step(lambda x: [ops.tanh(x)], V), carries=1, scanned=0, length=3, reverse=False)[0] for _ in range(2)
    ]
    graph = pipeline.run(builder.finish([results[0] + results[1]]), ("cse",))
    assert [node.op.name for node in graph.nodes] == ["scan", "add"]


def test_a_scan_gives_what_a_smaller_one_does() -> None:
    builder = Builder("main", locations=False)
    x = builder.input("x", V)
    bodies = [step(lambda x: [ops.tanh(x)], V), step(lambda x: [ops.tanh(x), ops.exp(x)], V)]
    results = [ops.scan(x, body=body, carries=1, scanned=0, length=3, reverse=False) for body in bodies]
    graph = builder.finish([results[0][0], results[1][1]])
    shared = pipeline.run(graph, ("control",))
    assert [node.op.name for node in shared.nodes] == ["scan"]
    for a, b in zip(interpret(shared, [np.ones(3)]), interpret(graph, [np.ones(3)])):
        np.testing.assert_array_equal(a, b)


def control_kernels(graph: Graph) -> list[Control]:
    program = executable(graph, backend="llvm").program  # type: ignore[attr-defined]
    return [kernel for kernel in program.kernels if isinstance(kernel, Control)]


def test_what_can_be_computed_in_place_is() -> None:
    m = TensorType(float32, (3, 3))
    body = step(lambda a, b: [a + 1, ops.matmul(b, b)], m, m)
    builder = Builder("main", locations=False)
    inputs = [builder.input(None, m) for _ in range(2)]
    (kernel,) = control_kernels(builder.finish(ops.scan(*inputs, body=body, carries=2, scanned=0, length=5, reverse=False)))
    assert [spare is None for spare in kernel.spares] == [True, False]


def test_weights_of_all_steps_get_one_product() -> None:
    m = TensorType(float32, (4, 4))
    body = step(lambda h, w: [ops.tanh(ops.matmul(h, w))], m, m)
    builder = Builder("main", locations=False)
    h, w = builder.input(None, m), builder.input(None, m)
    graph = builder.finish(ops.scan(h, w, body=body, carries=1, scanned=0, length=5, reverse=False))
    backward = pipeline.run(vjp_graph(graph), ("prune",))
    assert [node.op.name for node in backward.nodes if node.op.name in ("scan", "contract")] == ["scan", "scan", "contract"]
    arrays = [np.random.default_rng(i).standard_normal((4, 4)).astype(np.float32) for i in range(3)]
    for a, b in zip(compile_graph(backward)(*arrays), interpret(backward, arrays)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_loop_keeps_what_is_made_of_a_product_with_large_weights_and_not_the_product() -> None:
    """The weights are there once, and what is kept each time: the gates, of which half are read, and the last factor."""
    state, row, weights = (TensorType(float32, shape) for shape in ((2, 8), (2, 32), (8, 32)))

    def cell(h: Any, x: Any, w: Any) -> list[Any]:
        gates = ops.sigmoid(x + ops.matmul(h, w))
        first, second = (ops.slice(gates, (0, k), (2, k + 8), (1, 1)) for k in (0, 8))
        return [first * ops.tanh(second)]

    kept = saving(step(cell, state, row, weights), 1, 1).outputs[1:]
    assert {value.node.op.name if value.node else "input" for value in kept} == {"sigmoid", "slice", "tanh", "input"}


def test_a_branch_does_not_run_again_for_its_derivative() -> None:
    m = TensorType(float32, (4, 4))
    twice = step(lambda x, w: [ops.matmul(ops.tanh(ops.matmul(x, w)), w)], m, m)
    branches = saving_branches(twice, step(lambda x, w: [ops.tanh(ops.matmul(w, x))], m, m))
    assert [len(branch.outputs) for branch in branches] == [2, 2], "the branches share the place for what they leave"
    builder = Builder("main", locations=False)
    p, x, w = builder.input(None, TensorType(bool_, ())), builder.input(None, m), builder.input(None, m)
    graph = builder.finish(ops.cond(p, x, w, then=branches[0], otherwise=branches[1])[:1])
    backward = vjp_graph(graph)
    last = backward.nodes[-1]
    assert [sum(n.op is ops.matmul for n in last.attrs[name].nodes) for name in ("then", "otherwise")] == [4, 2]
    for truth in (True, False):
        arrays = [np.array(truth), *(np.random.default_rng(i).standard_normal((4, 4)).astype(np.float32) for i in range(3))]
        for a, b in zip(compile_graph(backward)(*arrays), interpret(backward, arrays)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_carries_of_many_steps_are_kept() -> None:
    graph = parse_graph("""
graph @main(%x: float64[5], %n: int64[]) -> float64[5] {
  %0 = constant() {value = 0} : int64[]
  %1, %2 = while_loop(%x, %0, %n) {
    condition = graph @condition(%x: float64[5], %i: int64[], %n: int64[]) -> bool[] {
      %0 = lt(%i, %n) : bool[]
      return %0
    },
    body = graph @body(%x: float64[5], %i: int64[], %n: int64[]) -> (float64[5], int64[]) {
      %0 = sin(%x) : float64[5]
      %1 = constant() {value = 1} : int64[]
      %2 = add(%i, %1) : int64[]
      return %0, %2
    },
    carries = 2
  } : (float64[5], int64[])
  return %1
}""")
    backward = compile_graph(vjp_graph(graph))
    x = np.linspace(0.1, 1, 5)
    for count in (0, 1, 16, 17, 1000):
        y, slope = x, np.ones(5)
        for _ in range(count):
            slope, y = slope * np.cos(y), np.sin(y)
        (got,) = backward(x, np.array(count), np.ones(5))
        np.testing.assert_allclose(got, slope, rtol=1e-12)


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs(seed: int) -> None:
    """Printed and read, run natively and by definition: the graph, and its derivatives to the second order."""
    graph, arrays = random_graph(seed)
    rng = np.random.default_rng(seed)
    for _ in range(3 if seed % 4 == 0 else 1):
        verify(graph)
        assert parse_graph(print_graph(graph)) == graph
        for a, b in zip(compile_graph(graph)(*arrays), interpret(graph, arrays), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8)
        arrays = [*arrays, *(rng.standard_normal(v.shape) for v in graph.outputs)]
        graph = vjp_graph(graph)
