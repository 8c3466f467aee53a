"""The driver: what is compiled once, by whichever thread, and what is done about arrays of all kinds."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

import graphc.ops as ops
from graphc import compiler
from graphc.compiler import clear_cache, compile_graph, executable, run_op
from graphc.dims import Dim
from graphc.errors import GraphcError, ShapeError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph
from graphc.op import OPS
from graphc.types import TensorType, float32


def double(name: str = "double", size: int | Dim = 3) -> Graph:
    b = Builder(name, locations=False)
    x = b.input("x", TensorType(float32, (size,)))
    return b.finish([x + x])


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the graphs that are compiled, in the course of a test that begins with an empty cache."""
    clear_cache()
    made: list[str] = []
    compile_ = compiler._compile

    def counting(graph: Graph, *rest: object) -> object:
        made.append(graph.name)
        return compile_(graph, *rest)

    monkeypatch.setattr(compiler, "_compile", counting)
    return made


def test_equal_graphs_are_compiled_once(compilations: list[str]) -> None:
    assert executable(double()) is executable(double())
    assert executable(double("other")) is not executable(double())
    assert compilations == ["double", "other"]


def test_threads_that_ask_at_once_share_the_work(compilations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = compiler._compile
    monkeypatch.setattr(compiler, "_compile", lambda *args: (time.sleep(0.05), compile_(*args))[1])
    found: list[object] = []
    workers = [threading.Thread(target=lambda: found.append(executable(double()))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 8 and len(set(map(id, found))) == 1 and compilations == ["double"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, GraphcError("no")])
def test_what_was_interrupted_is_tried_again(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    clear_cache()

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(compiler, "_compile", fail)
        with pytest.raises(BaseException) as caught:
            executable(double())
    assert caught.value is error or caught.type is error
    assert executable(double()).outputs == (TensorType(float32, (3,)),)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_compiling_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clear_cache()
    begun, go_on = threading.Event(), threading.Event()
    compile_, main = compiler._compile, threading.current_thread()

    def slow(*args: object) -> object:
        if threading.current_thread() is not main:
            begun.set()
            go_on.wait()
        return compile_(*args)

    monkeypatch.setattr(compiler, "_compile", slow)
    other = threading.Thread(target=executable, args=(double(),))
    other.start()
    begun.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if executable(double()).outputs else 1)
    deadline = time.monotonic() + 60
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, 9)
    go_on.set()
    other.join()
    assert ended and status == 0


def test_the_cache_has_an_end(compilations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_MOST_KEPT", 4)
    for size in range(1, 7):
        np.testing.assert_array_equal(compile_graph(double(size=size))(np.ones(size, np.float32))[0], np.full(size, 2))
    assert len(compiler._executables) == 4
    compile_graph(double(size=6))(np.ones(6, np.float32))
    assert len(compilations) == 6
    compile_graph(double(size=1))(np.ones(1, np.float32))
    assert len(compilations) == 7


def test_sizes_for_which_the_graph_has_no_meaning_are_refused() -> None:
    n = Dim.symbol("N")
    b = Builder("tail", locations=False)
    x = b.input("x", TensorType(float32, (n,)))
    graph = b.finish([ops.slice(x, (3,), (n,), (1,))])
    compiled = compile_graph(graph)
    np.testing.assert_array_equal(compiled(np.arange(5, dtype=np.float32))[0], [3, 4])
    with pytest.raises(GraphcError, match="slice"):
        compiled(np.ones(2, np.float32))


def test_arrays_that_do_not_fit_are_refused() -> None:
    compiled = compile_graph(double())
    for wrong in ([np.ones(3)], [np.ones(4, np.float32)], [np.ones((3, 1), np.float32)], []):
        with pytest.raises(ShapeError):
            compiled(*wrong)


def arrays_of_all_kinds() -> dict[str, np.ndarray]:
    plain = np.arange(1, 4, dtype=np.float32)
    unaligned = np.zeros(13, np.uint8)[1:].view(np.float32)
    unaligned[:] = plain
    frozen = plain.copy()
    frozen.setflags(write=False)
    return {
        "strided": np.repeat(plain, 2)[::2], "reversed": plain[::-1].copy()[::-1], "swapped": plain.astype(">f4"),
        "unaligned": unaligned, "frozen": frozen, "broadcast": np.broadcast_to(np.float32(2), 3),
    }  # fmt: skip


@pytest.mark.parametrize("kind", arrays_of_all_kinds())
def test_arrays_of_all_kinds_are_taken(kind: str) -> None:
    array = arrays_of_all_kinds()[kind]
    np.testing.assert_array_equal(compile_graph(double())(array)[0], array * 2)
    np.testing.assert_allclose(run_op(OPS["erf"], [array], {}), OPS["erf"].ref(array.astype(np.float32)), rtol=1e-6)


def test_large_constants_are_told_apart_by_their_contents() -> None:
    rng = np.random.default_rng(0)
    array = rng.standard_normal(10_000).astype(np.float32)
    other = array.copy()
    other[-1] += 1

    def graph(constant: np.ndarray) -> Graph:
        b = Builder("scale", locations=False)
        x = b.input("x", TensorType(float32, array.shape))
        return b.finish([x * constant])

    assert graph(array) == graph(array.copy()) and graph(array) != graph(other)
    assert len(str(graph(array).structure())) < 2000
    for constant in (array, other):
        np.testing.assert_array_equal(compile_graph(graph(constant))(array)[0], interpret(graph(constant), [array])[0])


def test_a_number_of_a_row_is_read_after_it_is_written() -> None:
    """A product with a vector and the copy of its result are one loop over rows."""
    b = Builder("product", locations=False)
    x, y = b.input("x", TensorType(float32, (7, 5))), b.input("y", TensorType(float32, (5, 1)))
    graph = b.finish([ops.reshape(ops.matmul(x, y), (7,))])
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(t.shape).astype(np.float32) for t in (x.type, y.type)]
    np.testing.assert_allclose(compile_graph(graph)(*arrays)[0], interpret(graph, arrays)[0], rtol=1e-5)
