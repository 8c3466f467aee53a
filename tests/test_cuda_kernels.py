"""CUDA kernels without a GPU: of every op, and of its derivative, they are compiled by NVRTC, and run by an emulator."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cuda_emulator import EmulatedDriver
from cuda_runs import check, driver, emulator, needs_compiler, needs_nvrtc, run
from op_cases import CASES, DIFFERENTIABLE, Case, assert_agree

import graphc
from graphc import nn
from graphc.autodiff import vjp_graph
from graphc.backend import Layout
from graphc.backends.cuda import nvrtc
from graphc.backends.cuda.backend import CUDABackend, rendered
from graphc.backends.cuda.program import translation_unit
from graphc.cli import main
from graphc.errors import BackendError, CompileError, DimError
from graphc.interpret import interpret
from graphc.ir import Graph
from graphc.kernel import Loop

__all__ = ["driver"]
_TOGETHER = 100
"""Functions that are compiled at a time."""


@functools.cache
def forward(name: str) -> Graph:
    return CASES[name].graph()


@functools.cache
def backward(name: str) -> Graph:
    return vjp_graph(CASES[name].graph())


@functools.cache
def all_functions() -> dict[str, str]:
    """The functions of all ops and derivatives."""
    graphs = [*map(forward, CASES), *map(backward, DIFFERENTIABLE)]
    made = [rendered(graph) for graph in graphs]
    return {symbol: text for each in made for symbol, text in (*each.functions.items(), *each.unaligned.items())}


def batches() -> Iterator[dict[str, str]]:
    items = list(all_functions().items())
    for first in range(0, len(items), _TOGETHER):
        yield dict(items[first : first + _TOGETHER])


@pytest.fixture(scope="module")
def with_all_ops() -> EmulatedDriver:
    for functions in batches():
        emulator().load(functions)
    return emulator()


@needs_compiler
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_kernels_of_each_op(case: Case, with_all_ops: EmulatedDriver, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    assert_agree(run(with_all_ops, forward(name), case.arrays), interpret(case.graph(), case.arrays))


@needs_compiler
@pytest.mark.parametrize("case", DIFFERENTIABLE.values(), ids=list(DIFFERENTIABLE))
def test_kernels_of_each_derivative(case: Case, with_all_ops: EmulatedDriver, request: pytest.FixtureRequest) -> None:
    graph = vjp_graph(case.graph())
    rng = np.random.default_rng(1)
    cotangents = [rng.uniform(0.5, 1.5, v.shape).astype(v.dtype.numpy) for v in graph.inputs[len(case.arrays) :]]
    arrays = [*case.arrays, *cotangents]
    assert_agree(run(with_all_ops, backward(request.node.callspec.id), arrays), interpret(graph, arrays))


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_all_kernels_compile(architecture: str) -> None:
    for functions in batches():
        assert nvrtc.compile_source(translation_unit(functions), architecture)[:4] == b"\x7fELF"


@needs_nvrtc
def test_what_does_not_compile_is_an_error_with_the_reason() -> None:
    with pytest.raises(CompileError, match="undefined_name"):
        nvrtc.compile_source('extern "C" __global__ void f(float* a) { a[0] = undefined_name; }', "sm_90")


# Shapes of kernels


F = nn.functional


@needs_compiler
@pytest.mark.parametrize("shape", [(), (0,), (1,), (31,), (7, 1, 33), (1025, 1023)])
def test_maps(driver: EmulatedDriver, shape: tuple[int, ...]) -> None:
    check(driver, lambda x, y: (x + y).exp() - x, graphc.randn(shape), graphc.randn(shape))


@needs_compiler
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 17), (129, 200), (5, 3000), (2, 20_000), (3000, 5), (700, 130)])
@pytest.mark.parametrize("dim", [0, 1, (0, 1)])
def test_reductions(driver: EmulatedDriver, shape: tuple[int, ...], dim: int | tuple[int, ...]) -> None:
    check(driver, lambda x: (x.sum(dim), x.amax(dim)), graphc.rand(shape) - 0.1)  # whose sums do not come near 0 by chance


@needs_compiler
@pytest.mark.parametrize("columns", [1, 3, 20, 700, 5000])
def test_rows_are_finished_by_one_kernel(driver: EmulatedDriver, columns: int) -> None:
    x = graphc.randn(6, columns)
    check(driver, lambda x: (x * 2).softmax(1), x)
    check(driver, lambda x: F.layer_norm(x, (columns,)), x)
    kernels = rendered(graphc.trace(lambda x: x.softmax(1), (graphc.randn(600, 700),)).ir).program.kernels
    assert len(kernels) == 1 and any(isinstance(s, Loop) and s.lanes for s in kernels[0].statements())


@needs_compiler
@pytest.mark.parametrize("shape", [(2, 3), (32, 64), (65, 33), (3, 70, 41)])
@pytest.mark.parametrize("dtype", [graphc.float32, graphc.int8, graphc.float64, graphc.bool])
def test_turned_operands(driver: EmulatedDriver, shape: tuple[int, ...], dtype: graphc.dtype) -> None:
    x = graphc.randint(0, 2, shape).to(dtype)
    check(driver, lambda x: x.transpose(-1, -2).contiguous(), x)
    check(driver, lambda x, y: x.transpose(-1, -2) | y if x.dtype is graphc.bool else x.transpose(-1, -2) + y * 2,
          x, x.transpose(-1, -2).contiguous())


@needs_compiler
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float16])
@pytest.mark.parametrize("width", [8, 64, 130])
def test_attention(driver: EmulatedDriver, causal: bool, dtype: graphc.dtype, width: int) -> None:
    q, k, v = (graphc.randn(2, 3, size, width).to(dtype) for size in (37, 45, 45))
    check(driver, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal), q, k, v)
    check(driver, graphc.func.grad(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal).square().sum(),
                                   (0, 1, 2)), q, k, v)
    if not causal:
        mask = graphc.rand(37, 45) < 0.5
        check(driver, lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m), q, k, v, mask)


@needs_compiler
def test_an_index_out_of_bounds_ends_the_run(driver: EmulatedDriver) -> None:
    table, index = graphc.randn(5, 3), graphc.tensor([0, 4, 2])
    check(driver, lambda t, i: t[i] * 2, table, index)
    graph = graphc.trace(lambda t, i: t[i] * 2, (table, index)).ir
    with pytest.raises(DimError, match="out of bounds"):
        run(driver, graph, [table.numpy(), np.array([0, 5, 2])])


@needs_compiler
def test_control_flow(driver: EmulatedDriver) -> None:
    x = graphc.tensor([3.0, 40.0, 5.0])
    check(driver, lambda x: graphc.while_loop(lambda y: y.sum() < 1000, lambda y: (y * 1.5,), (x,)), x)
    check(driver, lambda x: graphc.cond(x.sum() > 3, lambda x: x * 2, lambda x: x - 1, (x,)), x)
    check(driver, lambda x: graphc.cond(x.sum() < 3, lambda x: x * 2, lambda x: x - 1, (x,)), x)
    check(driver, lambda x: graphc.scan(lambda c, y: (c * 0.5 + y, c.sin()), graphc.zeros(4), x), graphc.randn(6, 4))
    check(driver, graphc.func.grad(lambda x: graphc.while_loop(
        lambda y: y.sum() < 1000, lambda y: (y.cos() + y * 1.5,), (x,))[0].sum()), x)


@needs_compiler
def test_outputs_over_inputs(driver: EmulatedDriver) -> None:
    """A donated output stands in its input's memory."""
    graph = graphc.trace(lambda p, g: (p - 0.1 * g, (p * g).sum()), (graphc.ones(40, 9), graphc.ones(40, 9))).ir
    rng = np.random.default_rng(0)
    p, g = rng.standard_normal((2, 40, 9)).astype(np.float32)
    expected = interpret(graph, [p, g])
    executable = CUDABackend(driver).compile(graph, Layout((None, None), donated=((0, 0),)))
    place, total = p.copy(), np.empty((), np.float32)
    executable.run([place, g], [place, total])
    assert_agree([place, total], expected)


@needs_compiler
def test_what_threads_keep_beside_what_one_of_them_writes(driver: EmulatedDriver) -> None:
    """Each thread of a group has its own of what a row starts with, and one of them stores what goes to memory."""
    x, y = graphc.rand(5, 1) + 1.5, graphc.rand(5) + 0.5
    check(driver, lambda x, y: graphc.special.zeta(x.double(), y.double()), x, y)


@needs_compiler
def test_operands_that_are_views(driver: EmulatedDriver) -> None:
    graph = graphc.trace(lambda x: x.sum(1) + 1, (graphc.ones(30, 20),)).ir
    x = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    executable = CUDABackend(driver).compile(graph, Layout(((1, 30),)))
    result = np.empty(30, np.float32)
    executable.run([x], [result])
    assert_agree([result], interpret(graph, [x.T]))


class Block(nn.Module):
    """A transformer's layer behind an image's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        x = F.max_pool2d(self.norm(self.conv(x)).relu(), 2)
        return self.head(self.layer(x.flatten(2).transpose(1, 2)).mean(1))


@needs_compiler
def test_a_training_step(driver: EmulatedDriver) -> None:
    graphc.manual_seed(0)
    model = Block()
    parameters = [p.detach().clone() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]

    def step(x: graphc.Tensor, y: graphc.Tensor, *values: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        def loss(*values: graphc.Tensor) -> graphc.Tensor:
            return F.cross_entropy(graphc.func.functional_call(model, dict(zip(names, values)), (x,)), y)

        gradients = graphc.func.grad(loss, tuple(range(len(values))))(*values)
        return loss(*values), *(p - 0.1 * g for p, g in zip(values, gradients))

    graph = graphc.trace(step, (graphc.randn(4, 3, 8, 6), graphc.tensor([0, 4, 2, 2]), *parameters)).ir
    arrays = [t.detach().numpy() for t in (graphc.randn(4, 3, 8, 6), graphc.tensor([0, 4, 2, 2]), *parameters)]
    arrays += [np.zeros(v.shape, v.dtype.numpy) if v.dtype.is_floating_point else np.ones(v.shape, v.dtype.numpy)
               for v in graph.inputs[len(arrays) :]]
    for got, expected in zip(run(driver, graph, arrays), interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_sources_of_a_graph_need_no_gpu() -> None:
    text = graphc.compile(lambda x: x.softmax(1), backend="cuda").source(graphc.randn(600, 700))
    assert text.count("__global__") == 1 and "combine_group<64, max_of>" in text


def test_maps_of_many_elements_take_several_a_thread() -> None:
    step = rendered(graphc.trace(lambda x: x + 1, (graphc.ones(1 << 23),)).ir).steps[0]
    assert step.launch.blocks * step.launch.threads * 16 == 1 << 23  # four vectors of four
    few = rendered(graphc.trace(lambda x: x + 1, (graphc.ones(3),)).ir).steps[0]
    assert (few.launch.blocks, few.launch.threads) == (1, 32)


@needs_compiler
def test_runs_at_the_same_addresses_are_recorded_and_replayed(driver: EmulatedDriver) -> None:
    graph = graphc.trace(lambda x: (x @ x + 1, (x * 2).sum(0)), (graphc.ones(40, 40),)).ir
    executable = CUDABackend(driver).compile(graph, Layout.plain(graph))
    rng = np.random.default_rng(0)
    x, other = rng.standard_normal((2, 40, 40)).astype(np.float32)
    before = driver.recordings
    results = [np.empty(t.shape, t.dtype.numpy) for t in executable.outputs]
    for factor in range(1, 5):
        x *= factor  # the contents change, the addresses do not
        executable.run([x], results)
        assert_agree(results, interpret(graph, [x]))
        elsewhere = [np.empty_like(result) for result in results]
        executable.run([other], elsewhere)
        assert_agree(elsewhere, interpret(graph, [other]))
    assert driver.recordings - before >= 1


@needs_compiler
def test_inputs_that_take_turns_are_replayed(driver: EmulatedDriver) -> None:
    graph = graphc.trace(lambda x: (x @ x, x.sum(0)), (graphc.ones(40, 40),)).ir
    assert len(rendered(graph).steps) == 2 and not rendered(graph).program.temporaries
    executable = CUDABackend(driver).compile(graph, Layout.plain(graph))
    inputs = [np.full((40, 40), k, np.float32) for k in range(16)]
    results = [np.empty(t.shape, t.dtype.numpy) for t in executable.outputs]
    recordings = []
    for _ in range(4):
        for k, x in enumerate(inputs):
            executable.run([x], results)
            assert (results[0] == 40 * k * k).all() and (results[1] == 40 * k).all()
        recordings.append(driver.recordings)
    assert recordings[1] - recordings[0] == 16 and recordings[1] == recordings[3]


def test_inspect_prints_the_kernels_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "double.gir"
    path.write_text(str(graphc.trace(lambda x: x * 2, (graphc.ones(3),)).ir))
    with pytest.raises(SystemExit, match="0"):
        main(["inspect", str(path), "--cuda"])
    assert "__global__" in capsys.readouterr().out


def test_without_a_gpu_there_is_an_error_that_says_so() -> None:
    if graphc.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match=r"no CUDA device|not installed") as raised:
        graphc.compile(lambda x: x * 2, backend="cuda")(graphc.ones(3))
    assert "pip install" in str(raised.value) or "nvidia-smi" in str(raised.value)


def test_source_says_what_has_no_kernel() -> None:
    source = graphc.compile(lambda x: (x.sort(1).values + 1).exp(), backend="cuda").source(graphc.ones(3, 4))
    said = re.findall(r"^// \w+: CuPy computes this (\w+)$", source, re.MULTILINE)
    assert said == ["argsort"] and source.count("__global__") == 2

    def step(count: graphc.Tensor, x: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        return count + 1, graphc.linalg.svdvals(x).diag()

    looping = graphc.compile(lambda x: graphc.while_loop(lambda i, x: i < 3, step, (graphc.tensor(0), x)), backend="cuda")
    source = looping.source(graphc.eye(3))
    assert source.count("CuPy, with cublas and cusolver, computes this svdvals") == 1
    assert "the CPU" not in graphc.compile(lambda x: x.softmax(1), backend="cuda").source(graphc.ones(3, 4))
