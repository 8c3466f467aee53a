"""Random graphs: no pass, no schedule and no back end may change what a graph computes."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_interpreter import run_program
from random_graphs import Maker

import graphc.ops as ops
from graphc.compiler import compile_graph, executable
from graphc.interpret import interpret
from graphc.ir import Builder
from graphc.passes.pipeline import DEFAULT, PASSES
from graphc.schedule import Machine, lower
from graphc.types import TensorType, int64
from graphc.verify import verify

EXAMPLES = int(os.environ.get("GRAPHC_FUZZ", "60"))
"""Set it higher to search longer."""
seeds = st.integers(0, 1 << 32)
sizes = st.integers(1, 14)


def agree(got: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 2e-5) -> None:
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g.reshape(e.shape), e, rtol=tolerance, atol=tolerance)


@settings(max_examples=EXAMPLES)
@given(seeds, sizes)
def test_passes_keep_what_a_graph_computes(seed: int, nodes: int) -> None:
    made = Maker(seed, nodes)
    verify(made.graph)
    expected = interpret(made.graph, made.arrays)
    graph = made.graph
    for name in DEFAULT:
        graph = PASSES[name](graph)
        verify(graph)
        agree(interpret(graph, made.arrays), expected)


@settings(max_examples=EXAMPLES)
@given(seeds, sizes)
def test_passes_come_to_an_end(seed: int, nodes: int) -> None:
    graph = Maker(seed, nodes).graph
    for name in ("fold", "simplify", "cse", "decompose", "prune"):
        once = PASSES[name](graph)
        assert PASSES[name](once) == once
        graph = once


@settings(max_examples=EXAMPLES // 3)
@given(seeds, st.integers(1, 8))
def test_schedules_keep_what_a_graph_computes(seed: int, nodes: int) -> None:
    made = Maker(seed, nodes)
    graph = made.graph
    for name in DEFAULT:
        graph = PASSES[name](graph)
    agree(run_program(lower(graph, Machine(16)), made.arrays), interpret(made.graph, made.arrays))


@settings(max_examples=EXAMPLES)
@given(seeds, sizes)
def test_native_code_computes_what_the_graph_does(seed: int, nodes: int) -> None:
    made = Maker(seed, nodes)
    agree(compile_graph(made.graph)(*made.arrays), interpret(made.graph, made.arrays))


def test_the_last_lane_of_a_narrowed_vector_is_stored_alone() -> None:
    # LLVM 22 turned a masked store of one truncated lane into a store of the wide element
    builder = Builder("last")
    state = builder.input("state", TensorType(int64, (2,)))
    graph = builder.finish([ops.random_bits(state, (17,))])
    memory = np.full(64, 7, np.uint32)
    executable(graph).run([np.array([3, 4])], [memory[:17]])
    np.testing.assert_array_equal(memory[:17], interpret(graph, [np.array([3, 4])])[0])
    assert (memory[17:] == 7).all()
