"""Random graphs: no pass, no schedule and no back end may change what a graph computes."""

from __future__ import annotations

import os
import platform
import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_interpreter import run_program
from random_graphs import LARGE, Maker
from symbolic_graphs import SymbolicMaker

from graphc import threads
from graphc.autodiff import vjp_graph
from graphc.backend import Layout
from graphc.compiler import compile_graph, executable
from graphc.config import override
from graphc.interpret import interpret
from graphc.ir import Graph, rebuild
from graphc.passes.order import DEFAULT
from graphc.passes.pipeline import PASSES
from graphc.schedule import Machine, lower
from graphc.verify import verify

EXAMPLES = int(os.environ.get("GRAPHC_FUZZ", "40"))
"""Set it higher to search longer."""
TOLERANCE = {"float16": 2e-2, "float32": 2e-4, "float64": 1e-9}
seeds = st.integers(0, 1 << 32)
sizes = st.integers(1, 14)
few = settings(max_examples=EXAMPLES // 4)


def run(graph: Graph, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The interpreter's results."""
    with np.errstate(all="ignore"):
        return interpret(graph, arrays)


def agree(got: Sequence[np.ndarray], expected: Sequence[np.ndarray], graph: Graph) -> None:
    """Integers and booleans to the bit, floats as far as the least precise of the graph's dtypes goes."""
    tolerance = max((TOLERANCE[v.dtype.name] for v in graph.values() if v.dtype.is_floating_point), default=0.0)
    for g, e in zip(got, expected, strict=True):
        assert g.dtype == e.dtype and g.size == e.size
        allowed = tolerance if e.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(g.reshape(e.shape), e, rtol=allowed, atol=4 * allowed)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several steps of a grid, reductions in pieces, and everything in parallel, at sizes that can be interpreted."""
    monkeypatch.setattr("graphc.schedule.loops._STEP", 20)
    monkeypatch.setattr("graphc.schedule.loops._SPLIT", 60)
    monkeypatch.setattr("graphc.schedule.products._SMALL", 100)
    monkeypatch.setattr("graphc.backends.llvm.loops._PARALLEL_NS", 0)
    monkeypatch.setattr("graphc.backends.llvm.loops._CHUNK_NS", 20)


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


@settings(max_examples=EXAMPLES)
@given(seeds, sizes)
def test_passes_keep_what_a_graph_computes(seed: int, nodes: int) -> None:
    made = Maker(seed, nodes)
    verify(made.graph)
    expected = run(made.graph, made.arrays)
    graph = made.graph
    for name in DEFAULT:
        graph = PASSES[name](graph)
        verify(graph)
        agree(run(graph, made.arrays), expected, graph)


@settings(max_examples=EXAMPLES)
@given(seeds, sizes)
def test_passes_come_to_an_end(seed: int, nodes: int) -> None:
    graph = Maker(seed, nodes).graph
    for name in ("fold", "simplify", "cse", "decompose", "prune"):
        once = PASSES[name](graph)
        assert PASSES[name](once) == once
        graph = once


def schedule(graph: Graph) -> Graph:
    for name in DEFAULT:
        graph = PASSES[name](graph)
    return graph


@few
@given(seeds, st.integers(1, 8))
def test_schedules_keep_what_a_graph_computes(seed: int, nodes: int) -> None:
    made = Maker(seed, nodes, largest=300)
    agree(run_program(lower(schedule(made.graph), Machine(16)), made.arrays), run(made.graph, made.arrays), made.graph)


@pytest.mark.usefixtures("small_steps")
class TestSmallSteps:
    """What large tensors go through, with small ones."""

    @few
    @given(seeds, st.integers(1, 8))
    def test_schedules(self, seed: int, nodes: int) -> None:
        made = Maker(seed, nodes, largest=150)
        agree(run_program(lower(schedule(made.graph), Machine(16)), made.arrays), run(made.graph, made.arrays), made.graph)

    @pytest.mark.usefixtures("restored_threads")
    @few
    @given(seeds, sizes)
    def test_any_number_of_threads_makes_the_same_bits(self, seed: int, nodes: int) -> None:
        made = Maker(seed, nodes)
        compiled = compile_graph(made.graph)
        results = []
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            results.append(compiled(*made.arrays))
        agree(results[0], run(made.graph, made.arrays), made.graph)
        for others in results[1:]:
            assert [o.tobytes() for o in others] == [o.tobytes() for o in results[0]]

    @few
    @given(seeds, sizes)
    def test_strided_and_donated_inputs(self, seed: int, nodes: int) -> None:
        check_layout(seed, nodes)


@settings(max_examples=EXAMPLES)
@given(seeds, sizes, st.booleans())
def test_native_code_computes_what_the_graph_does(seed: int, nodes: int, special: bool) -> None:
    made = Maker(seed, nodes, special=special)
    agree(compile_graph(made.graph)(*made.arrays), run(made.graph, made.arrays), made.graph)


@few
@given(seeds, sizes)
def test_native_code_for_large_tensors(seed: int, nodes: int) -> None:
    made = Maker(seed, nodes, sizes=LARGE, largest=100_000)
    agree(compile_graph(made.graph)(*made.arrays), run(made.graph, made.arrays), made.graph)


@few
@given(seeds, st.integers(1, 8))
def test_native_derivatives(seed: int, nodes: int) -> None:
    made = Maker(seed, nodes)
    graph = vjp_graph(made.graph)
    verify(graph)
    cotangents = [made.rng.standard_normal(v.shape).astype(v.dtype.numpy) for v in graph.inputs[len(made.arrays) :]]
    arrays = [*made.arrays, *cotangents]
    agree(compile_graph(graph)(*arrays), run(graph, arrays), graph)


@pytest.mark.parametrize("cpu", ["x86-64", "haswell"] if platform.machine() in ("x86_64", "AMD64") else ["generic"])
@settings(max_examples=max(1, EXAMPLES // 8))
@given(seeds, sizes)
def test_native_code_for_older_cpus(cpu: str, seed: int, nodes: int) -> None:
    made = Maker(seed, nodes)
    with override(cpu=cpu):
        agree(compile_graph(made.graph)(*made.arrays), run(made.graph, made.arrays), made.graph)


@few
@given(seeds, st.integers(1, 8), st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3))
def test_symbolic_sizes_are_bound_at_each_call(seed: int, nodes: int, calls: list[tuple[int, int]]) -> None:
    made = SymbolicMaker(seed, nodes)
    verify(made.graph)
    optimised = schedule(made.graph)
    compiled = compile_graph(made.graph)
    for n, m in calls:
        arrays = made.arrays(n, m, seed)
        expected = run(made.graph, arrays)
        agree(compiled(*arrays), expected, made.graph)
        agree(run(optimised, arrays), expected, made.graph)


# Layouts


class Placed:
    """An array within a larger one, at strides of any kind; what lies between must stay as it is."""

    def __init__(self, array: np.ndarray, draw: random.Random) -> None:
        n = array.ndim
        order = draw.sample(range(n), n)
        steps, before = [draw.choice((1, 1, 2, 3)) for _ in order], [draw.choice((0, 0, 1, 5)) for _ in order]
        extents = [before[k] + array.shape[k] * steps[k] + 1 for k in order]
        self.around = np.full(extents, 1, array.dtype)
        regions = tuple(slice(before[k], before[k] + array.shape[k] * steps[k], steps[k]) for k in order)
        view = self.around[regions].transpose([order.index(k) for k in range(n)])
        self.array = view[(..., *(slice(None, None, draw.choice((1, 1, -1))) for _ in range(n)))]
        self.array[...] = array
        self._before = self.around.tobytes()
        self._contents = array

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(s // self.array.itemsize for s in self.array.strides)

    def check_surroundings(self) -> None:
        """Nothing but the array itself was written to."""
        self.array[...] = self._contents
        assert self.around.tobytes() == self._before


def check_layout(seed: int, nodes: int) -> None:
    """A graph of which some outputs are written over some inputs, which are strided, and others are steady."""
    draw = random.Random(seed)
    made = Maker(seed, nodes)
    values = [v for v in made.graph.values() if any(v.type == i.type for i in made.graph.inputs)]
    graph = rebuild(made.graph, lambda *_: None, outputs=[*made.graph.outputs, *draw.sample(values, min(3, len(values)))])
    expected = run(graph, made.arrays)
    donated: dict[int, int] = {}
    for j in draw.sample(range(len(graph.outputs)), len(graph.outputs)):
        fitting = [i for i, v in enumerate(graph.inputs) if v.type == graph.outputs[j].type and i not in donated.values()]
        if fitting:
            donated[j] = draw.choice(fitting)
    placed = [Placed(array, draw) for array in made.arrays]
    steady = [i for i in range(len(placed)) if i not in donated.values() and draw.random() < 0.7]
    layout = Layout(tuple(p.strides for p in placed), tuple(donated.items()), tuple(steady))
    outputs = [np.empty(v.shape, v.dtype.numpy) for v in graph.outputs]
    for j, i in donated.items():
        outputs[j] = placed[i].array
    executable(graph, layout).run([p.array for p in placed], outputs)
    agree(outputs, expected, graph)
    for i, (p, array) in enumerate(zip(placed, made.arrays)):
        if i not in donated.values():
            np.testing.assert_array_equal(p.array, array)
        p.check_surroundings()
