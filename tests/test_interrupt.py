"""Loops in compiled code that never end: what a signal's handler raises ends them, and nothing else suffers."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

import graphc
from graphc import Tensor

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs the timer of a POSIX system")


class Enough(Exception):
    """What the handler raises."""


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Have a signal come after some seconds, whose handler raises Enough."""

    def handler(number: int, frame: object) -> None:
        raise Enough("enough")

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def never_ends(x: Tensor) -> Tensor:
    return graphc.while_loop(lambda i: i.sum() >= 0, lambda i: (i * 1.001).clamp(0, 5), (x,))[0]


@pytest.mark.parametrize("size", [1, 10000])
def test_a_signal_ends_a_loop(alarm: Callable[[float], None], size: int) -> None:
    compiled = graphc.compile(never_ends)
    for _ in range(3):
        alarm(0.2)
        with pytest.raises(Enough, match="enough"):
            compiled(graphc.ones(size))
    counted = graphc.compile(lambda x: graphc.while_loop(lambda i: i < 100000, lambda i: i + 1, (x,))[0])
    assert counted(graphc.zeros(())).item() == 100000


def test_a_signal_ends_the_loop_that_a_backward_pass_goes_through(alarm: Callable[[float], None]) -> None:
    @graphc.compile
    def f(x: Tensor, end: Tensor) -> Tensor:
        return graphc.while_loop(lambda i, end: i.sum() < end, lambda i, end: ((i * 0.5 + 1).clamp(0, 3), end), (x, end))[0]

    x = graphc.ones(2, requires_grad=True)
    (slope,) = graphc.autograd.grad(f(x, graphc.tensor(2.5)).sum(), x)
    assert slope.tolist() == [0.5, 0.5]
    alarm(0.2)
    with pytest.raises(Enough):
        f(x, graphc.tensor(100.0))


def test_no_references_are_lost(alarm: Callable[[float], None]) -> None:
    compiled = graphc.compile(never_ends)
    alarm(0.1)
    with pytest.raises(Enough) as caught:
        compiled(graphc.ones(1))
    error = caught.value
    del caught
    assert sys.getrefcount(error) <= 3


def test_other_threads_go_on_with_their_loops(alarm: Callable[[float], None]) -> None:
    results: list[float] = []
    counted = graphc.compile(lambda x: graphc.while_loop(lambda i: i < 3e6, lambda i: i + 1, (x,))[0])
    thread = threading.Thread(target=lambda: results.append(counted(graphc.zeros((), dtype=graphc.float64)).item()))
    thread.start()
    alarm(0.1)
    with pytest.raises(Enough):
        graphc.compile(never_ends)(graphc.ones(1))
    thread.join()
    assert results == [3e6]
