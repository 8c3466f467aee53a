"""ONNX models for the tests, written down in a few words."""

from __future__ import annotations

from typing import Any

import pytest

onnx = pytest.importorskip("onnx", reason="the onnx package is not installed")
from onnx import TensorProto, helper  # noqa: E402

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def tensor(name: str, dtype: int, *shape: Any) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes: Any, inputs: Any, outputs: Any, weights: Any = (), opset: int = 18, functions: Any = ()) -> bytes:
    """A model's bytes; it need not be right."""
    initializers = [w if isinstance(w, TensorProto) else onnx.numpy_helper.from_array(w[1], w[0]) for w in weights]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), initializers)
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid("own", 1)] if functions else [])]
    made: bytes = helper.make_model(graph, opset_imports=opsets, functions=list(functions)).SerializeToString()
    return made


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)
