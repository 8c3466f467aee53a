"""Garbage is collected again when compilations are over, whoever began and ended first."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.garbage import give_back, kept_for_now, sought_seldom


def test_blocks_nest_and_end_by_exceptions() -> None:
    assert gc.isenabled()
    with pytest.raises(KeyError), kept_for_now():
        with kept_for_now():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_what_was_off_stays_off() -> None:
    gc.disable()
    try:
        with kept_for_now():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_threads_that_overlap() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def other() -> None:
        with kept_for_now():
            inside.set()
            assert go_on.wait(30)

    thread = threading.Thread(target=other)
    with kept_for_now():
        thread.start()
        assert inside.wait(30)
    assert not gc.isenabled()
    go_on.set()
    thread.join()
    assert gc.isenabled()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say how much memory a process has")
def test_memory_is_given_back() -> None:
    give_back()
    kept, size = [], 1 << 16
    for _ in range(1000):  # the small ones keep the large ones from going back by themselves
        large = np.ones(size, np.uint8)
        kept.append((large, np.ones(4096, np.uint8)))
    small = [pair[1] for pair in kept]
    before = resident()
    del kept, large
    give_back()
    assert len(small) == 1000
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        assert resident() < before - 500 * size


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say how much memory a process has")
def test_memory_that_is_kept_for_the_next_result_goes_back() -> None:
    function, x = graphc.compile(lambda x: x + 1), graphc.ones(1 << 23)
    for _ in range(3):
        function(x)
    before = resident()
    give_back()
    assert resident() < before - 0.9 * x.nbytes
    assert function(x)[-1].item() == 2.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_collects() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def other() -> None:
        with kept_for_now():
            inside.set()
            assert go_on.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(30)
    child = os.fork()
    if child == 0:
        os._exit(0 if gc.isenabled() else 1)
    go_on.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert gc.isenabled()


def test_compiling_leaves_it_on() -> None:
    assert graphc.compile(lambda x: x * 3 + 1)(graphc.ones(5)).tolist() == [4.0] * 5
    assert gc.isenabled()


def test_garbage_is_sought_seldom_while_a_function_is_traced() -> None:
    before = gc.get_threshold()
    seen: list[int] = []

    def f(x: graphc.Tensor) -> graphc.Tensor:
        seen.append(gc.get_threshold()[0])
        if len(seen) > 1:
            raise KeyError
        return x + 1

    graphc.compile(f)(graphc.ones(3))
    with pytest.raises(KeyError):
        graphc.compile(f)(graphc.ones(4))
    assert seen[0] > before[0] and seen[1] == seen[0]
    assert gc.get_threshold() == before


def test_what_the_user_says_about_garbage_stays() -> None:
    before = gc.get_threshold()
    try:
        with sought_seldom():
            with sought_seldom():
                assert gc.get_threshold()[0] > before[0]
            gc.set_threshold(123, 4, 5)
        assert gc.get_threshold()[0] == 123
        gc.set_threshold(0)
        with sought_seldom():
            assert gc.get_threshold()[0] == 0
        assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)
