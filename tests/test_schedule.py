"""Scheduling: kernels, run one element at a time, compute what the graph computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from kernel_interpreter import run_program
from op_samples import draw, graph_of

import graphc
import graphc.ops as ops
from graphc.errors import CompileError
from graphc.frontend.random import _normal
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Value
from graphc.kernel import Accumulate, Gemm, Loop, Loops, Store
from graphc.op import OPS, OpDef, Sample
from graphc.passes import pipeline
from graphc.schedule import Machine, lower
from graphc.types import TensorType, float32, int64

MACHINE = Machine(vector_bytes=16)


def check(graph: Graph, arrays: list[np.ndarray], tolerance: float = 1e-5) -> list[Loops | Gemm]:
    """Scheduled and interpreted results agree; returns the kernels."""
    expected = interpret(graph, arrays)
    program = lower(pipeline.run(graph), MACHINE)
    for got, want in zip(run_program(program, arrays), expected):
        np.testing.assert_allclose(got.reshape(want.shape), want, rtol=tolerance, atol=tolerance)
    return list(program.kernels)


CASES = {f"{r.name}-{n}": (r, sample) for r in OPS.values() for n, sample in enumerate(r.samples)}


@pytest.mark.parametrize(("record", "sample"), CASES.values(), ids=list(CASES))
def test_every_op_has_a_lowering(record: OpDef, sample: Sample) -> None:
    arrays = draw(sample, record.name)
    check(graph_of(record, sample, arrays), arrays)


def build(*shapes: tuple[int, ...]) -> tuple[Builder, list[Value], list[np.ndarray]]:
    b = Builder("test")
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return b, [b.input(f"x{i}", TensorType(float32, shape)) for i, shape in enumerate(shapes)], arrays


def test_an_elementwise_chain_is_one_flat_loop() -> None:
    b, (x, y), arrays = build((4, 6), (4, 6))
    (kernel,) = check(b.finish([ops.tanh(x * y + 1.0) * x]), arrays)
    assert isinstance(kernel, Loops) and len(list(kernel.statements())) == 2


@pytest.mark.parametrize(("size", "lanes"), [(3, 4), (16, 16), (17, 8), (28, 16), (1000, 16)])
def test_elementary_functions_are_computed_side_by_side(size: int, lanes: int) -> None:
    b, (x,), arrays = build((size,))
    (kernel,) = check(b.finish([ops.tanh(x) * 2.0]), arrays)
    (loop,) = (s for s in kernel.statements() if isinstance(s, Loop))
    assert loop.lanes == lanes  # vectors have 4, of which 4 are taken at a time where that wastes few


def test_sums_of_elementary_functions_take_one_register() -> None:
    b, (x,), arrays = build((8, 1000))
    (kernel,) = check(b.finish([ops.sum(ops.tanh(x), axes=(1,))]), arrays)
    assert max(s.lanes for s in kernel.statements() if isinstance(s, Loop)) == 4


def test_a_bias_and_relu_are_an_epilogue() -> None:
    b, (x, w, bias), arrays = build((32, 40), (40, 24), (24,))
    kernels = check(b.finish([ops.relu(ops.matmul(x, w) + bias)]), arrays)
    assert [type(k) for k in kernels] == [Gemm]


def test_a_large_product_has_its_epilogue_however_large_its_operands_are() -> None:
    """They are packed: what is read beside the product is the bias alone."""
    b, (x, w, bias), _ = build((256, 512), (512, 256), (256,))
    program = lower(pipeline.run(b.finish([ops.relu(ops.matmul(x, w) + bias)])), MACHINE)
    assert [type(k) for k in program.kernels] == [Gemm]


def test_a_large_product_stores_nothing_as_large_beside_its_result() -> None:
    """Such as what an optimizer keeps, which a loop reads and writes several times as fast as tiles of a product are."""
    b, (x, w, momentum), _ = build((256, 512), (512, 256), (256, 256))
    gradient = ops.matmul(x, w)
    program = lower(pipeline.run(b.finish([gradient, momentum * 0.9 + gradient])), MACHINE)
    assert [type(k) for k in program.kernels] == [Gemm, Loops]


def test_a_small_product_is_a_loop() -> None:
    b, (x, w), arrays = build((5, 7), (7, 3))
    assert [type(k) for k in check(b.finish([ops.matmul(x, w)]), arrays)] == [Loops]


def test_a_softmax() -> None:
    b, (x,), arrays = build((5, 9))
    e = ops.exp(x - ops.expand(ops.amax(x, (1,)), (5, 9), (1,)))
    check(b.finish([e / ops.expand(ops.sum(e, (1,)), (5, 9), (1,))]), arrays)


def test_a_large_softmax_is_one_kernel_and_needs_no_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.schedule.loops._STEP", 30)
    b, (x,), arrays = build((6, 40))
    e = ops.exp(x - ops.expand(ops.amax(x, (1,)), (6, 40), (1,)))
    graph = b.finish([e / ops.expand(ops.sum(e, (1,)), (6, 40), (1,))])
    assert len(check(graph, arrays)) == 1
    program = lower(pipeline.run(graph), MACHINE)
    assert program.arena == 0 and not program.temporaries


def test_rows_are_centered_again_rather_than_kept() -> None:
    """However long they are: their means are computed once a row, so that little is left to do for an element."""
    b, (x,), arrays = build((6, 5000))
    centered = x - ops.expand(ops.sum(x, (1,)) / 5000.0, (6, 5000), (1,))
    variance = ops.sum(centered * centered, (1,)) / 5000.0
    graph = b.finish([centered * ops.expand(ops.rsqrt(variance + 1e-5), (6, 5000), (1,))])
    check(graph, arrays, 1e-4)
    program = lower(pipeline.run(graph), MACHINE)
    assert len(program.kernels) == 1 and program.arena == 0


def test_what_is_computed_of_each_column_is_not_computed_for_all_rows() -> None:
    b, (x, variance), arrays = build((500, 9), (9,))
    arrays[1] = np.abs(arrays[1])
    deviation = ops.reshape(ops.rsqrt(variance + 1e-5), (1, 9))
    first, second = check(b.finish([x * ops.broadcast_to(deviation, (500, 9))]), arrays)
    assert "sqrt" in str(first) and "sqrt" not in str(second)


@pytest.mark.parametrize(("beside", "kernels"), [(None, 1), (lambda sums: sums, 2), (ops.exp, 1), (ops.tanh, 1)])
def test_an_output_that_is_reshaped_is_not_copied(beside: Callable[[Value], Value] | None, kernels: int) -> None:
    b, (x,), arrays = build((8, 6, 5))
    sums = ops.sum(x, (2,))
    assert len(check(b.finish([ops.reshape(sums, (48,)), *([beside(sums)] if beside else [])]), arrays)) == kernels


def test_a_kernel_takes_little_of_the_stack() -> None:
    b, (x,), _ = build((16, 4000))
    y = x
    for _ in range(20):
        y = ops.tanh(y) - ops.expand(ops.sum(y, (1,)), (16, 4000), (1,))
    kernels = lower(pipeline.run(b.finish([y])), MACHINE).kernels
    assert len(kernels) <= 3
    for kernel in kernels:
        local = {s.buffer for s in kernel.statements() if isinstance(s, Store) and s.buffer.role == "local"}
        assert local and sum(buffer.nbytes for buffer in local) <= 1 << 16


def test_steps_that_read_what_others_write_are_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.schedule.loops._STEP", 30)
    b, (x,), arrays = build((6, 40))
    y = ops.tanh(x) - ops.expand(ops.sum(ops.tanh(x), (0,)), (6, 40), (0,))
    assert len(check(b.finish([ops.flip(ops.exp(y), (0,)) + y]), arrays)) > 1


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [10, 20])
def test_channels_that_are_convolved_by_themselves_are_in_lanes(size: int, stride: int) -> None:
    def block(x: graphc.Tensor, first: graphc.Tensor, w: graphc.Tensor, last: graphc.Tensor) -> graphc.Tensor:
        conv = graphc.nn.functional.conv2d
        return conv(graphc.relu(conv(conv(x, first), w, None, stride, 1, groups=32) * 2.0), last)

    shapes = ((2, 16, size, size), (32, 16, 1, 1), (32, 1, 3, 3), (16, 32, 1, 1))
    inputs = tuple(graphc.tensor(np.random.default_rng(size).integers(-4, 5, shape).astype(np.float32)) for shape in shapes)
    graph = graphc.trace(block, inputs).ir
    np.testing.assert_array_equal(graphc.compile(block)(*inputs), interpret(graph, [x.numpy() for x in inputs])[0])
    loops = [kernel for kernel in lower(pipeline.run(graph), MACHINE).kernels if isinstance(kernel, Loops)]
    (sums,) = (kernel for kernel in loops if any(isinstance(s, Accumulate) for s in kernel.statements()))
    (lanes,) = (s for s in sums.statements() if isinstance(s, Loop) and s.lanes)
    assert lanes.axis.extent == 32


def test_updates_of_one_shape_share_a_loop() -> None:
    b, (p, g, m), arrays = build((6, 5), (6, 5), (6, 5))
    new_m = m * 0.9 + g * 0.1
    kernels = check(b.finish([p - new_m * 0.5, new_m]), arrays)
    assert len(kernels) == 1


def test_large_reductions_are_cut_into_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.schedule.loops._SPLIT", 500)
    monkeypatch.setattr("graphc.schedule.loops._STEP", 40)
    b, (x,), arrays = build((7, 100))
    assert len(check(b.finish([ops.sum(x, (0, 1))]), arrays)) == 2
    b, (x,), arrays = build((1013, 2))
    assert len(check(b.finish([ops.sum(x, (0,)) * 2.0, ops.amax(x, (0, 1))]), arrays, 1e-4)) == 4


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), ()])
def test_empty_and_scalar_shapes(shape: tuple[int, ...]) -> None:
    b, (x,), arrays = build(shape)
    check(b.finish([ops.exp(x), ops.sum(x, tuple(range(len(shape))))]), arrays)


def test_returned_inputs_and_repeated_outputs_are_copies() -> None:
    b, (x, y), arrays = build((3, 4), (3, 4))
    z = x + y
    check(b.finish([x, z, z, y]), arrays)


def test_donated_updates_happen_in_place() -> None:
    b, (p, g), arrays = build((6,), (6,))
    graph = b.finish([p - g, ops.sum(p * 2.0, (0,))])
    program = lower(pipeline.run(graph), MACHINE, donated={0: 0})
    new, total = run_program(program, arrays, {0: 0})
    np.testing.assert_allclose(new, arrays[0] - arrays[1], rtol=1e-6)
    np.testing.assert_allclose(total[0], 2 * arrays[0].sum(), rtol=1e-5)


def test_donations_that_would_overwrite_what_is_still_read_are_buffered() -> None:
    b, (p, q), arrays = build((2, 3), (2, 3))
    graph = b.finish([q, p, ops.flip(p, (0,)) + q])
    donated = {0: 0, 1: 1}
    program = lower(pipeline.run(graph), MACHINE, donated=donated)
    outs = [o.reshape(2, 3) for o in run_program(program, arrays, donated)]
    np.testing.assert_array_equal(outs[0], arrays[1])
    np.testing.assert_array_equal(outs[1], arrays[0])
    np.testing.assert_allclose(outs[2], arrays[0][::-1] + arrays[1], rtol=1e-6)
    b, (p,), arrays = build((2, 3))
    program = lower(pipeline.run(b.finish([ops.flip(p, (0, 1)) * 1.0])), MACHINE, donated={0: 0})
    np.testing.assert_array_equal(run_program(program, arrays, {0: 0})[0], arrays[0].reshape(-1)[::-1])


def test_what_is_read_after_an_update_keeps_the_update_out_of_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.schedule.loops._STEP", 30)
    b, (p, x, y), arrays = build((6,), (6, 40), (6, 40))
    new = p + ops.sum(x, (1,))
    later = p * ops.sum(y * ops.expand(new, (6, 40), (1,)), (1,))  # the same steps as those of the update, after it
    graph = b.finish([new, later])
    program = lower(pipeline.run(graph), MACHINE, donated={0: 0})
    for got, expected in zip(run_program(program, arrays, {0: 0}), interpret(graph, arrays)):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("layout", [
    {"donated": {0: 1}}, {"donated": {0: 0, 1: 0}}, {"strides": [(1,), None]}, {"strides": [None]},
])  # fmt: skip
def test_layouts_that_do_not_fit_are_refused(layout: dict[str, object]) -> None:
    b, (x, y), _ = build((2, 3), (3,))
    with pytest.raises(CompileError):
        lower(b.finish([x * 2.0, x + y]), MACHINE, **layout)


def test_strided_inputs_are_read_in_place() -> None:
    b, (x,), _ = build((3, 4))
    base = np.arange(24, dtype=np.float32)
    program = lower(pipeline.run(b.finish([x + 1.0])), MACHINE, strides=[(8, 2)])
    (got,) = run_program(program, [base[:23]])
    np.testing.assert_array_equal(got.reshape(3, 4), base.reshape(3, 8)[:, ::2] + 1)


def test_a_long_chain_goes_through_memory_in_parts() -> None:
    b, (x, y), arrays = build((5,), (5,))
    z = x
    for _ in range(1500):
        z = z * 0.999 + y * 0.001
    kernels = check(b.finish([z]), arrays, 1e-3)
    assert len(kernels) > 3


def test_scatter_of_many_places() -> None:
    b, (x, src), arrays = build((4, 5), (4, 30))
    index = b.input("index", TensorType(int64, (4, 30)))
    graph = b.finish([ops.scatter_add(x, index, src, axis=1) * 2.0])
    check(graph, [*arrays, np.random.default_rng(0).integers(0, 5, (4, 30))])


def test_what_was_just_stored_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a norm, whose deviations are a number a row, is one kernel, and what lies between stays in the cache."""
    monkeypatch.setattr("graphc.schedule.loops._STEP", 256)
    b, (x,), arrays = build((32, 256))
    mean = ops.reshape(ops.sum(x, axes=(1,)), (32, 1)) / 256.0
    apart = x - ops.broadcast_to(mean, (32, 256))
    deviation = ops.reshape(ops.rsqrt(ops.sum(apart * apart, axes=(1,)) / 256.0 + 1e-5), (32, 1))
    kernels = check(b.finish([apart * ops.broadcast_to(deviation, (32, 256))]), arrays)
    assert len(kernels) == 1
    assert not any(buffer.role == "temporary" for buffer in kernels[0].accesses)


@pytest.mark.parametrize("shape", [(7, 5), (9, 130), (3, 1), (4, 0), (2, 3, 64)])
def test_rows_are_added_in_lanes(shape: tuple[int, ...]) -> None:
    b, (base, rows), arrays = build(shape, (11, *shape[1:]))
    index = b.input("index", TensorType(int64, (11, *[1] * (len(shape) - 1))))
    places = np.random.default_rng(2).integers(0, shape[0], index.shape)
    result = ops.scatter_add(base, ops.broadcast_to(index, rows.shape), rows, 0)
    check(b.finish([result]), [*arrays, places])


def test_what_is_used_several_times_counts_once() -> None:
    """Normal numbers are made in steps that use the number before them three times: none of it goes through memory."""
    drawn = graphc.trace(lambda state: _normal(state, (100_000,), float32), (graphc.tensor([1, 2]),)).ir
    program = lower(pipeline.run(drawn), Machine(vector_bytes=64))
    assert sum(buffer.nbytes for buffer in program.temporaries) <= 2 * 4 * 100_000, "the uniform numbers, and nothing else"
