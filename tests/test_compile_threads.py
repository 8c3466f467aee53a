"""Compiled functions with many threads, in other processes, and after interruptions."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.frontend import compiled as compiled_module
from graphc.frontend.capture import Capture
from graphc.frontend.compiled import Compiled

THREADS = 8


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is traced."""
    names: list[str] = []
    make = Compiled.__init__

    def counted(self: Compiled, function: Any, name: str, *rest: Any, **options: Any) -> None:
        names.append(name)
        make(self, function, name, *rest, **options)

    monkeypatch.setattr(Compiled, "__init__", counted)
    return names


def at_once(work: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """What work(0), work(1), ... return, begun at the same moment by so many threads."""
    barrier = threading.Barrier(threads)

    def begin(k: int) -> Any:
        barrier.wait()
        return work(k)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))


@pytest.mark.usefixtures("switching")
def test_one_function_is_traced_once_for_all_threads(traces: list[str]) -> None:
    @graphc.compile
    def polynomial(x: Any) -> Any:
        for k in range(20):
            x = x * 0.5 + k
        return x

    x = graphc.arange(5.0)
    expected = polynomial.function(x).tolist()
    for results in at_once(lambda k: [polynomial(x).tolist() for _ in range(20)]):
        assert results == [expected] * 20
    assert traces == ["polynomial"]


@pytest.mark.usefixtures("switching")
def test_different_functions_and_shapes_at_once() -> None:
    def work(k: int) -> bool:
        f = graphc.compile(lambda x, w: (x @ w).relu() + k)
        for n in range(2, 6):
            x, w = graphc.randn(n, 3), graphc.randn(3, n)
            for _ in range(3):
                assert graphc.allclose(f(x, w), (x @ w).relu() + k, atol=1e-5)
        return True

    assert all(at_once(work))
    shared = graphc.compile(lambda x: x.cumsum(0) * 2)
    assert all(at_once(lambda k: all(shared(graphc.ones(n + k)).tolist() == [2.0 * i for i in range(1, n + k + 1)]
                                     for n in range(2, 8))))  # fmt: skip


@pytest.mark.usefixtures("switching")
def test_state_that_another_thread_changes_is_seen_whole() -> None:
    options = SimpleNamespace(scale=2.0)
    f = graphc.compile(lambda x: x * options.scale)
    x, stop = graphc.ones(3), threading.Event()

    def toggle() -> None:
        while not stop.is_set():
            options.scale = 5.0 - options.scale

    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        seen = {f(x).sum().item() for _ in range(2000)}
    finally:
        stop.set()
        thread.join()
    assert seen <= {6.0, 9.0}


@pytest.mark.parametrize("requires_grad", [False, True])
def test_state_may_be_changed_while_a_derivative_is_made(requires_grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    options = SimpleNamespace(scale=2.0)
    original = Capture.differentiate

    def meanwhile(*args: Any) -> bool:
        options.scale += 1.0
        return original(*args)

    monkeypatch.setattr(Capture, "differentiate", meanwhile)
    f = graphc.compile(lambda x: x * options.scale)
    x = graphc.ones(3, requires_grad=requires_grad)
    for _ in range(4):
        changes = options.scale
        y = f(x)
        assert set(y.tolist()) <= {changes, options.scale}
        if requires_grad:
            (gradient,) = graphc.autograd.grad(y.sum(), x)
            assert gradient.tolist() == y.tolist()
    monkeypatch.undo()
    assert f(x).tolist() == f(x).tolist() == f(x).tolist() == [options.scale] * 3


@pytest.mark.usefixtures("switching")
def test_models_that_train_side_by_side_train_as_if_alone() -> None:
    x, y = graphc.randn(16, 4), graphc.randn(16, 1)

    def train(seed: int) -> list[float]:
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        with graphc.no_grad():
            for k, p in enumerate(model.parameters()):
                p.copy_(graphc.linspace(-1, 1, p.numel()).reshape(p.shape) * (seed + k + 1) / 4)
        optimizer = graphc.optim.Adam(model.parameters(), lr=0.05)

        @graphc.compile
        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return [step(x, y).item() for _ in range(8)]

    alone = [train(k) for k in range(4)]
    assert at_once(train, 4) == alone


def test_a_trace_is_no_matter_of_other_threads() -> None:
    results = []

    def f(x: Any) -> Any:
        thread = threading.Thread(target=lambda: results.append((graphc.ones(2) * 3).tolist()))
        thread.start()
        thread.join()
        return x + 1

    assert graphc.compile(f)(graphc.ones(2)).tolist() == [2.0, 2.0]
    assert results == [[3.0, 3.0]]


def in_child(f: Any, queue: Any) -> None:
    g = graphc.compile(lambda x: x.exp().sum())
    queue.put((f(graphc.ones(3)).tolist(), f(graphc.ones(4)).tolist(), round(g(graphc.zeros(5)).item())))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_after_compiling_calls_and_compiles() -> None:
    f = graphc.compile(lambda x: x * 2 + 1)
    for _ in range(4):
        f(graphc.ones(3))
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=in_child, args=(f, queue))
    process.start()
    assert queue.get() == ([3.0] * 3, [3.0] * 4, 5)
    process.join()
    assert process.exitcode == 0
    assert f(graphc.ones(3)).tolist() == [3.0] * 3


def test_a_spawned_process_compiles_for_itself(tmp_path: Any) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(textwrap.dedent("""
        import multiprocessing
        import graphc

        @graphc.compile
        def f(x):
            return x * 2 + 1

        def work(queue):
            queue.put([f(graphc.ones(3)).tolist() for _ in range(3)])

        if __name__ == "__main__":
            for _ in range(3):
                f(graphc.ones(3))
            context = multiprocessing.get_context("spawn")
            queue = context.SimpleQueue()
            process = context.Process(target=work, args=(queue,))
            process.start()
            assert queue.get() == [[3.0] * 3] * 3
            process.join()
    """))
    subprocess.run([sys.executable, str(script)], check=True, timeout=60)


def test_ctrl_c_during_a_trace(traces: list[str]) -> None:
    w = graphc.ones(2, requires_grad=True)
    state = SimpleNamespace(interrupt=True)

    @graphc.compile
    def step(x: Any) -> Any:
        (w * x).sum().backward()
        if state.interrupt:
            raise KeyboardInterrupt
        return w.grad * 2

    with pytest.raises(KeyboardInterrupt):
        step(graphc.ones(2))
    assert w.grad is None and (graphc.ones(2) + 1).tolist() == [2.0, 2.0]
    state.interrupt = False
    for k in range(1, 5):
        assert step(graphc.ones(2)).tolist() == [2.0 * k] * 2
    assert "step" in traces


def test_ctrl_c_while_code_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    make = compiled_module.executable
    interrupts = iter([True])

    def interrupted(*args: Any, **options: Any) -> Any:
        if next(interrupts, False):
            raise KeyboardInterrupt
        return make(*args, **options)

    monkeypatch.setattr(compiled_module, "executable", interrupted)
    f = graphc.compile(lambda x: x * 2)
    with pytest.raises(KeyboardInterrupt):
        f(graphc.ones(2))
    assert [f(graphc.ones(2)).tolist() for _ in range(4)] == [[2.0, 2.0]] * 4


def test_a_function_that_is_called_in_its_own_trace() -> None:
    @graphc.compile
    def power(x: Any, n: int) -> Any:
        return x if n == 0 else power(x, n - 1) * x

    for _ in range(3):
        assert [power(graphc.full((2,), 2.0), n)[0].item() for n in range(5)] == [2.0, 4.0, 8.0, 16.0, 32.0]


def test_recursion_that_is_too_deep_leaves_all_usable() -> None:
    def endless(x: Any, n: int) -> Any:
        return endless(x + 1, n + 1) if n else x * 2

    f = graphc.compile(endless)
    with pytest.raises(RecursionError):
        f(graphc.ones(1), 1)
    assert [f(graphc.ones(1), 0).item() for _ in range(3)] == [2.0] * 3
    assert (graphc.ones(1) + 1).item() == 2.0


@pytest.mark.usefixtures("switching")
def test_functions_that_python_runs_at_each_call() -> None:
    kept: list[Any] = []

    @graphc.compile
    def f(x: Any) -> Any:
        y = x * 2
        kept.append(y)
        return y + 1

    def work(k: int) -> bool:
        x = graphc.full((4,), float(k))
        return all(f(x).tolist() == [2.0 * k + 1] * 4 for _ in range(20))

    assert all(at_once(work))
    assert sorted(t.tolist() for t in kept) == sorted([[2.0 * k] * 4 for k in range(THREADS)] * 20)


@pytest.mark.usefixtures("switching")
def test_methods_of_many_instances() -> None:
    class Scaled(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.weight = nn.Parameter(graphc.full((2,), scale))

        @graphc.compile
        def forward(self, x: Any) -> Any:
            return x * self.weight

    modules = [Scaled(float(k)) for k in range(3)]
    assert all(at_once(lambda k: all(modules[k % 3](graphc.ones(2)).tolist() == [float(k % 3)] * 2 for _ in range(20))))
    assert [repr(module.forward) for module in modules] == ["<compiled forward: 1 graph>"] * 3
    assert set(modules[0].state_dict()) == {"weight"}
