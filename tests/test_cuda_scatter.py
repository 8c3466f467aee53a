"""Additions at places that an index chooses, on the GPU: many threads, and the bits that one thread would compute."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_emulator import EmulatedDriver
from cuda_runs import driver, needs_compiler, run

import graphc
from graphc.backends.cuda import loops
from graphc.backends.cuda.backend import rendered
from graphc.kernel import Loops

__all__ = ["driver"]


@needs_compiler
@pytest.mark.parametrize("columns", [0, 1, 5, 8])
@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float16, graphc.int32])
def test_the_order_is_that_of_one_thread(
    driver: EmulatedDriver, columns: int, dtype: graphc.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Duplicates are added in the order of the source: sums of numbers of very different size show it."""
    monkeypatch.setattr(loops, "_COLUMN_THREADS", 0)
    rng = np.random.default_rng(0)
    shape = (7, columns) if columns else (7,)
    numbers = rng.standard_normal((200, *shape[1:])) * 10.0 ** rng.integers(0, 4, (200, *shape[1:]))
    base, source = graphc.zeros(shape).to(dtype), graphc.tensor(numbers).to(dtype)
    index = graphc.tensor(rng.integers(0, 7, 200))
    graph = graphc.trace(lambda b, i, s: b.index_add(0, i, s), (base, index, source)).ir
    expected = base.numpy().copy()
    for place, row in zip(index.tolist(), source.numpy()):
        expected[place] = expected[place] + row
    arrays = [t.numpy() for t in (base, index, source)]
    np.testing.assert_array_equal(run(driver, graph, arrays)[0], expected)


def test_the_gradient_of_an_embedding_is_computed_by_many_threads() -> None:
    table, index = graphc.ones(5000, 64), graphc.zeros(512, dtype=graphc.int64)
    graph = graphc.trace(lambda g, i: graphc.zeros(5000, 64).index_add(0, i, g), (graphc.ones(512, 64), index)).ir
    scatter = next(k for k in rendered(graph).program.kernels if isinstance(k, Loops) and k.grid and k.grid[0].name == "share")
    assert scatter.grid[0].extent * table.shape[1] >= 1 << 14
