"""CUDA kernels that read and write 16 bytes at a time: they compute what others do, and spill no registers."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from cuda_emulator import EmulatedDriver
from cuda_runs import check, driver, needs_compiler, needs_nvrtc
from op_cases import assert_agree

import graphc
from graphc import nn
from graphc.backend import Layout
from graphc.backends.cuda import loops, nvrtc
from graphc.backends.cuda.backend import CUDABackend, rendered
from graphc.backends.cuda.program import Rendered, translation_unit
from graphc.expression import Accumulator, Axis, Buffer, load
from graphc.index import ZERO
from graphc.interpret import interpret
from graphc.kernel import Accumulate, Store
from graphc.schedule.threads import row_nest

__all__ = ["driver"]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors, too, are read by vectors."""
    monkeypatch.setattr(loops, "_BLOCKS", 0)
    monkeypatch.setattr(loops, "_COLUMN_THREADS", 0)
    monkeypatch.setattr(loops, "_BLOCK", 32)


def kernels(function: Callable[..., object], *tensors: graphc.Tensor) -> Rendered:
    return rendered(graphc.trace(function, tensors).ir)


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("size", [1, 3, 128, 511, 513, 2048])
@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float16, graphc.float64, graphc.int8])
def test_maps(driver: EmulatedDriver, size: int, dtype: graphc.dtype) -> None:
    x = graphc.arange(size).remainder(50).to(dtype)
    check(driver, lambda x: (x + x * 2, x > 7), x)


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shape", [(5, 64), (3, 4, 40), (40, 7)])
def test_maps_of_operands_that_differ(driver: EmulatedDriver, shape: tuple[int, ...]) -> None:
    """Rows that are repeated, numbers that are, other dtypes, what is left out, and rows that an index chooses."""
    x, row, column, mask = graphc.randn(shape), graphc.randn(shape[-1]), graphc.randn(*shape[:-1], 1), graphc.rand(shape) < 0.5
    check(driver, lambda x, row, column, mask: graphc.where(mask, x * row, column).half(), x, row, column, mask)
    check(driver, lambda x: nn.functional.pad(x, (4, 4)) * 2, x)
    check(driver, lambda x: x[..., 1:] + x[..., :-1], x)
    check(driver, lambda x, i: x[i] * 2, x, graphc.tensor([2, 0, 1, 1]))


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shape", [(70, 64), (700, 128), (33, 36)])
def test_columns(driver: EmulatedDriver, shape: tuple[int, int]) -> None:
    check(driver, lambda x: (x.sum(0), x.amax(0) * 2), graphc.randn(shape))
    check(driver, lambda x: x.half().sum(0), graphc.randn(shape))


@needs_compiler
@pytest.mark.parametrize("columns", [256, 1000, 4096])
def test_rows(driver: EmulatedDriver, columns: int) -> None:
    for x in (graphc.randn(5, columns), graphc.randn(5, columns).bfloat16()):
        check(driver, lambda x: x.softmax(1), x)
        check(driver, lambda x: nn.functional.layer_norm(x, (columns,)), x)
        check(driver, lambda x: (x.amax(1), x.argmax(1)), x)


@needs_compiler
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("function", [lambda x: x.exp() + 1, lambda x: x.softmax(1), lambda x: x.sum(0)])
def test_arrays_that_are_not_aligned(driver: EmulatedDriver, function: Callable[..., graphc.Tensor]) -> None:
    """The result is the same to the bit, whatever the addresses are."""
    graph = graphc.trace(function, (graphc.ones(48, 256),)).ir
    executable = CUDABackend(driver).compile(graph, Layout.plain(graph))
    assert any(step.launch.aligned for step in rendered(graph).steps)
    memory = np.random.default_rng(0).standard_normal(48 * 256 + 16).astype(np.float32)
    start = -memory.ctypes.data // 4 % 4
    expected = None
    for shift in (0, 1, 3):
        x = memory[start + shift : start + shift + 48 * 256].reshape(48, 256)
        x[:] = np.arange(x.size).reshape(x.shape) % 13 / 7
        place = np.zeros(executable.outputs[0].shape, np.float32)
        executable.run([x], [place])
        assert_agree([place], interpret(graph, [x]))
        expected = place.tobytes() if expected is None else expected
        assert place.tobytes() == expected


def test_what_is_read_16_bytes_at_a_time() -> None:
    def widths(function: Callable[..., object], *tensors: graphc.Tensor) -> set[str]:
        text = "".join(kernels(function, *tensors).functions.values())
        return {part[: part.index(">")] for part in text.split("_vector<")[1:]}

    large = graphc.ones(1 << 22)
    assert widths(lambda x: x + 1, large) == {"4"}
    assert widths(lambda x: x + 1, large.half()) == {"8"}
    assert widths(lambda x: x.half() + 1, large) == {"4"}
    assert widths(lambda x: x.softmax(1), large.reshape(4096, 1024)) == {"4"}
    assert widths(lambda x: x.softmax(1), graphc.ones(100, 1023)) == set()
    assert widths(lambda x: x.sum(0), large.reshape(4096, 1024)) >= {"4"}


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_registers(architecture: str) -> None:
    """Nothing is spilled, and as many threads have room as it takes to have enough bytes on the way."""
    large, rows = graphc.ones(1 << 24), graphc.ones(16384, 1024)
    for function, tensors, most in (
        (lambda x: x + 1, (large,), 40),
        (lambda x, y: (x + y).relu(), (large, large), 40),
        (lambda x: nn.functional.gelu(x), (large,), 64),
        (lambda x: x.softmax(1), (rows,), 40),
        (lambda x: nn.functional.layer_norm(x, (1024,)), (rows,), 40),
        (lambda x: x.sum(0), (rows,), 64),
        (lambda x: x.sum(1), (rows,), 40),
    ):
        made = kernels(function, *tensors)
        for used in nvrtc.resources(translation_unit(made.functions), architecture).values():
            assert used.spilled == 0 and used.registers <= most


@pytest.mark.parametrize(("size", "int_type"), [(1 << 30, "int"), ((1 << 31) - 8, "long long"), (3 << 30, "long long")])
def test_lanes_do_not_count_beyond_32_bits(size: int, int_type: str) -> None:
    """The last step of a row's threads goes beyond its end."""
    x, out, row = Buffer("x", graphc.float32, size, "input"), Buffer("out", graphc.float32, 1, "output"), Axis("i", size)
    total = Accumulator("total", "sum", graphc.float32)
    kernel = row_nest("k", (), (row,), Accumulate(total, load(x, row.value)), (Store(out, ZERO, total.value),), 1.0)
    text, _ = loops.render_loops(kernel, "k", [x, out])
    assert re.findall(r"for \((int|long long) i\d+ = lane", text) == [int_type]
