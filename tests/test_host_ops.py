"""Ops that compiled programs leave to Python: ops without code, dtypes without code, ops with several results."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest
from kernel_interpreter import run_program

import graphc
import graphc.ops as ops
from graphc.autodiff import vjp_graph
from graphc.compiler import compile_graph, executable
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Value
from graphc.op import OPS, OpDef, Sample, op
from graphc.passes import pipeline
from graphc.schedule import Machine, lower
from graphc.types import TensorType, bfloat16, complex64, dtype_of, float32, int64

_type = TensorType(float32, (2, 3))


@pytest.fixture
def halves() -> Iterator[OpDef]:
    """An op with two results: the sine and the cosine."""

    def vjp(ct: Any, out: Any) -> Any:
        sine, cosine = ct
        parts = [sine * out[1]] if sine is not None else []
        return sum([-cosine * out[0], *parts][1:], [-cosine * out[0], *parts][0]) if cosine is not None else parts[0]

    yield op("test_halves", "x", infer=lambda x: (x, x), ref=lambda x: (np.sin(x), np.cos(x)), vjp=vjp, kernel="host",
             samples=(Sample((_type,)),))  # fmt: skip
    del OPS["test_halves"]


@pytest.fixture
def failing() -> Iterator[OpDef]:
    """An op that raises where there is a negative number."""

    def ref(x: np.ndarray) -> np.ndarray:
        if (x < 0).any():
            raise np.linalg.LinAlgError("negative")
        return x + 1

    yield op("test_failing", "x", infer=lambda x: x, ref=ref, vjp=lambda ct: ct, kernel="host", samples=(Sample((_type,)),))
    del OPS["test_failing"]


def graph_of(function: Callable[..., Any], arrays: list[np.ndarray]) -> Graph:
    b = Builder("test")
    inputs = [b.input(None, TensorType(dtype_of(a.dtype), a.shape)) for a in arrays]
    made = function(*inputs)
    return b.finish([made] if isinstance(made, Value) else made)


def same(graph: Graph, arrays: list[np.ndarray]) -> None:
    """Interpreted, compiled and simulated, a graph gives the same."""
    want = interpret(graph, arrays)
    for got in (compile_graph(graph)(*arrays), compile_graph(graph, backend="reference")(*arrays)):
        for g, w in zip(got, want, strict=True):
            assert g.dtype == w.dtype and g.shape == w.shape
            np.testing.assert_allclose(g.astype(np.complex128), w.astype(np.complex128), rtol=2e-6, atol=1e-6)
    simulated = run_program(lower(pipeline.run(graph), Machine()), arrays)
    for g, w in zip(simulated, want, strict=True):
        np.testing.assert_allclose(g.astype(np.complex128), w.reshape(-1).astype(np.complex128), rtol=2e-6, atol=1e-6)


def complex_array(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def test_complex_numbers_among_others() -> None:
    z, x = complex_array(3, 4), np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    same(graph_of(lambda z, x: [z * z + ops.permute(z, (0, 1)), ops.exp(x) * 2.0, ops.cast(x, complex64) * z, z, z,
                                ops.sum(z * z, (1,)), ops.cast(ops.sin(x) + 1.0, complex64) * (2 + 1j)], [z, x]), [z, x])


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (7,)])
def test_complex_numbers_of_odd_shapes(shape: tuple[int, ...]) -> None:
    z = complex_array(*shape)
    same(graph_of(lambda z: [z + z, ops.full(TensorType(complex64, shape), 1j, like=z)], [z]), [z])


def test_complex_products() -> None:
    a, b = complex_array(3, 4), complex_array(4, 5)
    same(graph_of(lambda a, b: ops.matmul(a, b), [a, b]), [a, b])


def test_bfloat16() -> None:
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6).astype(bfloat16.numpy)
    same(graph_of(lambda x: [x * x, ops.cast(ops.cast(x, float32) * 2.0, bfloat16), ops.permute(x, (1, 0))], [x]), [x])


@pytest.mark.parametrize("turned", [False, True])
def test_operands_and_results_of_any_layout(turned: bool) -> None:
    base = complex_array(4, 3)
    x = base.T[::-1] if turned else base
    run = executable(graph_of(lambda z: z * 2 + 1, [x]), layout_of(x)).run
    out = np.empty(x.shape, np.complex64)
    run([x], [out])
    np.testing.assert_allclose(out, x * 2 + 1, rtol=1e-6)


def layout_of(x: np.ndarray) -> Any:
    from graphc.backend import Layout

    return Layout((None if x.flags.c_contiguous else tuple(s // x.itemsize for s in x.strides),), ())


def test_several_results(halves: OpDef) -> None:
    x = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
    same(graph_of(lambda x: [*halves(x * 2.0), halves(x)[1] + 1.0], [x]), [x])
    same(graph_of(lambda x: halves(x)[0], [x]), [x])


def test_gradients_of_several_results(halves: OpDef) -> None:
    x = graphc.tensor([[0.5, -1.0, 2.0]], requires_grad=True)
    for weights in ((1.0, 0.0), (0.0, 1.0), (3.0, -2.0)):
        sine, cosine = halves(x)
        assert sine.grad_fn is cosine.grad_fn and (sine.output_nr, cosine.output_nr) == (0, 1)
        used = [out * w for out, w in zip((sine, cosine), weights) if w]
        (slope,) = graphc.autograd.grad(sum(used[1:], used[0]).sum(), x, create_graph=True)
        value = x.detach().numpy()
        np.testing.assert_allclose(slope.detach(), weights[0] * np.cos(value) - weights[1] * np.sin(value), rtol=1e-6)
        (curve,) = graphc.autograd.grad(slope.sum(), x)
        np.testing.assert_allclose(curve, -weights[0] * np.sin(value) - weights[1] * np.cos(value), rtol=1e-6)


def test_gradients_of_several_results_in_graphs(halves: OpDef) -> None:
    x = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
    graph = vjp_graph(graph_of(lambda x: list(halves(x)), [x]))
    ones = np.ones_like(x)
    for run in (lambda *a: interpret(graph, a), compile_graph(graph)):
        (got,) = run(x, ones, 2 * ones)
        np.testing.assert_allclose(got, np.cos(x) - 2 * np.sin(x), rtol=1e-5, atol=1e-6)


def test_compiled_functions_and_training(halves: OpDef) -> None:
    w = graphc.tensor([0.3, 0.7], requires_grad=True)

    def loss(x: Any) -> Any:
        sine, cosine = halves(w * x)
        return (sine + 2 * cosine).sum()

    compiled = graphc.compile(lambda x: graphc.autograd.grad(loss(x), w)[0])
    x = graphc.tensor([1.0, 2.0])
    for _ in range(3):
        np.testing.assert_allclose(compiled(x), graphc.autograd.grad(loss(x), w)[0], rtol=1e-6)


def test_an_exception_comes_through_and_leaves_state_alone(failing: OpDef) -> None:
    total = graphc.zeros(2)

    @graphc.compile
    def f(x: Any) -> Any:
        total.add_(1)
        return failing(x) * 2

    good, bad = graphc.tensor([1.0, 2.0]), graphc.tensor([1.0, -2.0])
    for _ in range(3):
        assert f(good).tolist() == [4, 6]
        before = total.tolist()
        with pytest.raises(np.linalg.LinAlgError, match="negative"):
            f(bad)
        assert total.tolist() == before


def test_an_exception_on_the_way_into_the_call(failing: OpDef, monkeypatch: pytest.MonkeyPatch) -> None:
    # a signal's handler runs where Python is entered: there nothing catches what it raises
    f = compile_graph(graph_of(lambda x: failing(x) * 2.0, [np.ones(2, np.float32)]))
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)

    def interrupt(frame: FrameType, event: str, arg: Any) -> None:
        if frame.f_code.co_name == "_host_call":
            raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            f(np.ones(2, np.float32))
    finally:
        sys.setprofile(before)
    assert len(ignored) == 1
    assert f(np.ones(2, np.float32))[0].tolist() == [4, 4]


def test_state_is_untouched_where_an_op_fails_late(failing: OpDef) -> None:
    counter, x = np.zeros((), np.int64), np.array([-1.0], np.float32)
    graph = graph_of(lambda n, x: [n + 1, failing(ops.exp(x) * 0.0 + x)], [counter, x])
    from graphc.backend import Layout

    run = executable(graph, Layout((None, None), ((0, 0),))).run
    with pytest.raises(np.linalg.LinAlgError):
        run([counter, x], [counter, np.empty(1, np.float32)])
    assert counter == 0
    run([counter, -x], [counter, np.empty(1, np.float32)])
    assert counter == 1


def test_several_threads_at_once(failing: OpDef) -> None:
    f = compile_graph(graph_of(lambda x: ops.exp(failing(x)) + 1.0, [np.ones((3,), np.float32)]))
    wrong: list[Any] = []

    def work(number: int) -> None:
        for k in range(50):
            x = np.full(3, number + k if (number + k) % 5 else -1, np.float32) / 50
            try:
                (got,) = f(x)
                if (x < 0).any() or not np.allclose(got, np.exp(x + 1) + 1):
                    wrong.append(x)
            except np.linalg.LinAlgError:
                if not (x < 0).any():
                    wrong.append(x)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_programs_are_saved_and_run_elsewhere(tmp_path: Any) -> None:
    z = graphc.tensor(complex_array(2, 3))
    path = os.fspath(tmp_path / "z.gcz")
    graphc.save(graphc.export(lambda z: z * z + 1, (z,)), path)
    np.testing.assert_allclose(graphc.load(path)(z), (z * z + 1).numpy(), rtol=1e-6)


def test_integers_of_16_bits_have_code() -> None:
    x = np.arange(20, dtype=np.uint16) * 3277
    graph = graph_of(lambda x: [x + x, ops.cast(x, int64) * 2, ops.cast(ops.cast(x, float32), dtype_of(np.uint16))], [x])
    same(graph, [x])
    assert not any(type(kernel).__name__ == "Call" for kernel in lower(pipeline.run(graph), Machine()).kernels)
