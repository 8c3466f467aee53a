"""The memory that compiled programs work in."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import compiler
from graphc.backends.llvm import workspace
from graphc.backends.llvm.workspace import Workspace


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """The programs of other tests may need more than those here."""
    compiler.clear_cache()
    gc.collect()
    yield
    compiler.clear_cache()


def twice_multiplied(n: int) -> tuple[Any, Any]:
    """A function with a temporary of n x n numbers, and its argument."""
    return graphc.compile(lambda x: graphc.relu(x @ x) @ x), graphc.randn(n, n)


def shared_bytes() -> int:
    return int(workspace._shared_words()[2])


def test_large_arenas_are_one() -> None:
    before = set(workspace._sharing)  # of other tests' programs, which may not have run yet
    small, large = twice_multiplied(520), twice_multiplied(640)
    for function, x in (small, large, small):
        expected = np.maximum(x.numpy() @ x.numpy(), 0) @ x.numpy()
        np.testing.assert_allclose(function(x).numpy(), expected, rtol=1e-3, atol=1e-2)
    own = set(workspace._sharing) - before
    assert len(own) == 2 and len({w.address for w in own}) == 1
    assert shared_bytes() >= max(w.nbytes for w in own) >= 4 * 640 * 640


def test_it_is_as_large_as_what_is_left_needs() -> None:
    small, large = twice_multiplied(530), twice_multiplied(2600)  # larger than what other tests may have left
    large[0](large[1])
    small[0](small[1])
    before = shared_bytes()
    del large
    compiler.clear_cache()
    gc.collect()
    expected = small[0](small[1])
    assert 0 < shared_bytes() < before
    np.testing.assert_array_equal(small[0](small[1]).numpy(), expected.numpy())


def test_threads_that_call_at_once_work_in_memory_of_their_own() -> None:
    functions = [twice_multiplied(n) for n in (510, 540, 570)]
    expected = [function(x).numpy() for function, x in functions]
    wrong = []

    def work(first: int) -> None:
        for number in range(first, first + 6):
            function, x = functions[number % 3]
            if not np.array_equal(function(x).numpy(), expected[number % 3]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_small_arenas_are_an_executables_own() -> None:
    one, other = Workspace(1000), Workspace(1000)
    assert one.address != other.address
    assert Workspace(1 << 20).address == Workspace(1 << 24).address
