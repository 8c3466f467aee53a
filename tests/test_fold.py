"""Constant folding: what fails, or would be too large, is left for the run."""

from __future__ import annotations

import numpy as np
import pytest

import graphc.ops as ops
from graphc.compiler import compile_graph
from graphc.errors import GraphcError
from graphc.ir import Builder, Graph
from graphc.op import OpDef
from graphc.passes.fold import fold
from graphc.types import TensorType, float32


def of(value: np.ndarray, record: OpDef, **attrs: object) -> Graph:
    builder = Builder("constants", locations=False)
    builder.input("unused", TensorType(float32, ()))
    made = record(builder.constant(value), **attrs)
    return builder.finish(made if isinstance(made, tuple) else [made])


def test_constants_become_one() -> None:
    graph = fold(of(np.arange(6.0, dtype=np.float32).reshape(2, 3), ops.sum, axes=(1,)))
    (node,) = graph.nodes
    assert node.op is ops.constant
    assert node.attrs["value"].tolist() == [3.0, 12.0]


@pytest.mark.parametrize("record", [ops.cholesky], ids=["cholesky"])
def test_errors_belong_to_the_run(record: OpDef) -> None:
    graph = of(np.array([[1.0, 2.0], [2.0, 1.0]]), record, upper=False, check=True)
    assert fold(graph).nodes[-1].op is record
    compiled = compile_graph(graph)
    with pytest.raises(GraphcError, match="positive"):
        compiled(np.float32(0))


def test_large_results_are_computed_each_time() -> None:
    graph = of(np.zeros((1000, 1), np.float32), ops.broadcast_to, shape=(1000, 1000))
    assert fold(graph).nodes[-1].op is ops.broadcast_to
