"""Kernels that are equal but for their buffers are one function of a program."""

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.backends.llvm.program import render
from graphc.backends.llvm.target import Target
from graphc.compiler import compile_graph
from graphc.expression import Axis, Buffer, load
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.kernel import Call, Gemm, Loop, Loops, Store
from graphc.kernel_key import Place, kernel_key
from graphc.passes import pipeline
from graphc.schedule import Machine, lower
from graphc.types import float32


def functions(graph: Graph) -> tuple[int, int]:
    """How many kernels the program of a graph has, and how many functions stand for them."""
    program = lower(pipeline.run(graph), Machine(vector_bytes=64))
    module = render(program, Target.host()).module
    shared = [f for f in module.functions if f.name.startswith("kernel") and f.name.count(".") == 1]
    return sum(not isinstance(k, Call) for k in program.kernels), len(shared)


def layers(count: int, widths: tuple[int, ...] = (8,), rows: int = 4) -> Graph:
    """An MLP with one random matrix a layer."""
    weights = [graphc.randn(widths[i % len(widths)], widths[(i + 1) % len(widths)]) for i in range(count)]

    def run(x: graphc.Tensor, *weights: graphc.Tensor) -> graphc.Tensor:
        for w in weights:
            x = graphc.tanh(x @ w)
        return x

    return graphc.trace(run, (graphc.randn(rows, widths[0]), *weights)).ir


def test_layers_share_their_code():
    # the first layer reads an input and the last writes an output
    assert functions(layers(3)) == (3, 3)
    assert functions(layers(20)) == (20, 3)


def test_layers_of_other_sizes_do_not():
    kernels, shared = functions(layers(20, (8, 5, 7)))
    assert kernels == 20
    assert shared == 5


@pytest.mark.parametrize("count", [1, 2, 9])
def test_results(count: int):
    graph = layers(count, (8, 5))
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=v.shape).astype(np.float32) for v in graph.inputs]
    (expected,) = interpret(graph, arrays)
    (got,) = compile_graph(graph)(*arrays)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


def test_a_training_step():
    def losses(compiled: bool) -> list[float]:
        graphc.manual_seed(0)
        model = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU())))
        optimizer = graphc.optim.Adam(model.parameters(), lr=1e-2)
        x = graphc.randn(16, 8)

        def step(x: graphc.Tensor) -> graphc.Tensor:
            optimizer.zero_grad()
            loss = ((model(x) - x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = graphc.compile(step) if compiled else step
        return [run(x).item() for _ in range(8)]

    np.testing.assert_allclose(losses(True), losses(False), rtol=1e-4)


def map_of(source: Buffer, target: Buffer, *, extent: int = 8, step: int = 1, times: float = 2.0, lanes: int = 8) -> Loops:
    i = Axis("i", extent)
    store = Store(target, i.value * step, load(source, i.value) * times)
    return Loops(f"{source.name}.{target.name}", (), (Loop(i, (store,), lanes),), 1.0)


def test_what_keys_tell_apart():
    a, b, c = (Buffer(name, float32, 64) for name in "abc")
    known = kernel_key(map_of(a, b))
    assert known[1] == [Place(b, 0), Place(a, 0)]
    assert kernel_key(map_of(b, c)) == (known[0], [Place(c, 0), Place(b, 0)])
    assert kernel_key(map_of(a, a))[0] != known[0], "in place"
    others = [map_of(a, b, extent=9), map_of(a, b, step=2), map_of(a, b, times=-2.0), map_of(a, b, lanes=4)]
    others += [map_of(Buffer("a", float32, 64, "input"), b), map_of(Buffer("a", float32, 65), b)]
    keys = {kernel_key(kernel)[0] for kernel in others}
    assert len(keys) == len(others)
    assert known[0] not in keys


def test_zeros_of_either_sign_are_different():
    a, b = Buffer("a", float32, 64), Buffer("b", float32, 64)
    assert kernel_key(map_of(a, b, times=0.0))[0] != kernel_key(map_of(a, b, times=-0.0))[0]


def test_products_count_their_operands():
    program = lower(pipeline.run(layers(4, (64,), rows=64)), Machine(vector_bytes=64))
    first, second, third, last = (kernel_key(k) for k in program.kernels if isinstance(k, Gemm))
    assert second[0] == third[0] != first[0] != last[0]
    assert len(second[1]) == 3
    assert second[1] != third[1]


def test_a_place_in_a_buffer_does_not_count():
    a, b = Buffer("a", float32, 64), Buffer("b", float32, 64)
    i = Axis("i", 8)

    def part(start: int, apart: int) -> Loops:
        sum_ = load(a, i.value + start) + load(a, i.value + (start + apart))
        return Loops("part", (), (Loop(i, (Store(b, i.value + 2 * start, sum_),), 8),), 1.0)

    key, places = kernel_key(part(8, 3))
    assert places == [Place(b, 16), Place(a, 8)]
    assert kernel_key(part(0, 3)) == (key, [Place(b, 0), Place(a, 0)])
    assert kernel_key(part(8, 4))[0] != key


@pytest.mark.parametrize("rows", [4, 48])
def test_steps_of_an_unrolled_loop_share_their_code(rows: int):
    def run(x: graphc.Tensor, w: graphc.Tensor, u: graphc.Tensor) -> graphc.Tensor:
        h = x[0]
        for t in range(12):
            h = graphc.tanh(x[t] @ w + h @ u)
        return h

    rng = np.random.default_rng(0)
    shapes = [(12, rows, 48), (48, 48), (48, 48)]
    arrays = [rng.normal(size=shape, scale=0.2).astype(np.float32) for shape in shapes]
    graph = graphc.trace(run, [graphc.from_numpy(a) for a in arrays]).ir
    kernels, shared = functions(graph)
    assert kernels >= 12
    assert shared <= 8
    np.testing.assert_allclose(compile_graph(graph)(*arrays)[0], interpret(graph, arrays)[0], rtol=1e-4, atol=1e-5)
