"""CUDA kernels that take sizes as arguments: made once, and right for every size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cuda_emulator import EmulatedDriver
from cuda_runs import driver, needs_compiler, needs_nvrtc
from symbolic_graphs import SymbolicMaker

import graphc
from graphc import nn
from graphc.backend import Layout
from graphc.backends.cuda import nvrtc
from graphc.backends.cuda.backend import CUDABackend, rendered
from graphc.backends.cuda.program import translation_unit
from graphc.bind import bind_graph
from graphc.errors import GraphcError
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.sizes import Facts, relying_on
from graphc.variants import SizedExecutable

__all__ = ["driver"]
F = nn.functional
W = graphc.randn(64, 80, generator=graphc.Generator().manual_seed(0))
FUNCTIONS: dict[str, tuple[Callable[..., object], tuple[graphc.Tensor, ...]]] = {
    "map": (lambda x: (x * 2).exp(), (graphc.ones(30, 64),)),
    "softmax": (lambda x: x.softmax(1), (graphc.ones(30, 64),)),
    "layer norm": (lambda x: F.layer_norm(x, (64,)), (graphc.ones(30, 64),)),
    "columns": (lambda x: x.sum(0), (graphc.ones(300, 64),)),
    "all": (lambda x: x.square().sum(), (graphc.ones(300, 64),)),
    "turned": (lambda x: x.T.contiguous() * 2, (graphc.ones(300, 64),)),
    "linear": (lambda x: (x @ W).relu(), (graphc.ones(300, 64),)),
    "gradient of weights": (lambda x: x.T @ x, (graphc.ones(300, 64),)),
    "rows": (lambda i: W[i], (graphc.zeros(300, dtype=graphc.int64),)),
    "scatter": (lambda i, s: graphc.zeros(50, 64).index_add(0, i, s),
                (graphc.zeros(300, dtype=graphc.int64), graphc.ones(300, 64))),
}


def symbolic(name: str) -> Graph:
    function, tensors = FUNCTIONS[name]
    size = graphc.Dim("N")
    return graphc.export(function, tensors, dynamic_shapes=tuple({0: size} for _ in tensors)).graph


def numbers(graph: Graph, **sizes: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    types = [v.type.bind(sizes) for v in graph.inputs]
    return [(rng.standard_normal(t.shape) if t.dtype.is_floating_point else rng.integers(0, 3, t.shape)).astype(t.dtype.numpy)
            for t in types]


@needs_compiler
@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_program_for_all_sizes(driver: EmulatedDriver, name: str) -> None:
    graph = symbolic(name)
    backend = CUDABackend(driver)
    executable = SizedExecutable(graph, Layout.plain(graph), backend.compile)
    for size in (300, 70, 257, 1000, 35):
        arrays, bound = numbers(graph, N=size), bind_graph(graph, {"N": size})
        code = executable.for_shapes(tuple(a.shape for a in arrays))
        results = [np.empty(t.shape, t.dtype.numpy) for t in code.outputs]
        code.run(arrays, results)
        for result, expected in zip(results, interpret(bound, arrays), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    assert len(executable._variants) == 1 and executable._variants[0].facts is not None
    kept = executable.for_shapes(tuple(a.shape for a in numbers(graph, N=70)))
    assert kept is executable.at({"N": 70})


@needs_compiler
@pytest.mark.parametrize("seed", range(6))
def test_random_graphs(driver: EmulatedDriver, seed: int) -> None:
    made = SymbolicMaker(seed, 6)
    executable = SizedExecutable(made.graph, Layout.plain(made.graph), CUDABackend(driver).compile)
    for n, m in ((5, 7), (33, 4), (2, 2), (40, 65)):
        arrays = made.arrays(n, m, seed)
        try:
            expected = interpret(bind_graph(made.graph, {"N": n, "M": m}), arrays)
        except GraphcError:
            continue  # the graph has no meaning for these sizes
        code = executable.for_shapes(tuple(a.shape for a in arrays))
        results = [np.empty(t.shape, t.dtype.numpy) for t in code.outputs]
        code.run(arrays, results)
        for result, e in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, e, rtol=1e-4, atol=1e-4)


@needs_compiler
def test_sizes_for_which_a_fact_does_not_hold_get_a_variant(driver: EmulatedDriver) -> None:
    graph = symbolic("columns")  # cut in pieces where there are many rows
    executable = SizedExecutable(graph, Layout.plain(graph), CUDABackend(driver).compile)
    for size in (1000, 3):
        arrays = numbers(graph, N=size)
        code = executable.for_shapes(tuple(a.shape for a in arrays))
        results = [np.empty(t.shape, t.dtype.numpy) for t in code.outputs]
        code.run(arrays, results)
        np.testing.assert_allclose(results[0], arrays[0].sum(0), rtol=1e-4, atol=1e-4)
    assert len(executable._variants) == 2


def test_kernels_do_not_depend_on_the_first_size_they_are_made_for() -> None:
    graph = symbolic("map")
    texts = []
    for size in (8, 1 << 20):
        with relying_on(Facts({"N": size})):
            texts.append(dict(rendered(graph).functions))
    assert texts[0] == texts[1] and "load_vector<4>" in "".join(texts[0].values())


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_kernels_compile(architecture: str) -> None:
    functions: dict[str, str] = {}
    for name, (_, tensors) in FUNCTIONS.items():
        with relying_on(Facts({"N": tensors[0].shape[0]})):
            made = rendered(symbolic(name))
            functions |= {**made.functions, **made.unaligned}
    assert nvrtc.compile_source(translation_unit(functions), architecture)[:4] == b"\x7fELF"
