"""Runs of ONNX models that graphs are exported as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn

onnx = pytest.importorskip("onnx", reason="the onnx package is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

BATCH, TIME = graphc.Dim("batch"), graphc.Dim("time", max=32)


def run(model: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """By onnxruntime; where it has no kernel for a dtype, by onnx's own definitions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    feeds = {value.name: array for value, array in zip(model.graph.input, arrays)}  # state has its defaults
    assert len(feeds) == len(arrays) == len({v.name for v in model.graph.input} - {i.name for i in model.graph.initializer})
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        from onnx.reference import ReferenceEvaluator

        with np.errstate(all="ignore"):
            return [np.asarray(result) for result in ReferenceEvaluator(model).run(None, feeds)]
    return list(session.run(None, feeds))


def operators(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def agrees(function: Any, args: tuple[Any, ...], *others: tuple[Any, ...], opset: int = 18, dynamic: Any = None) -> Any:
    """Export a function, run it on its arguments and others, and compare; returns the model."""
    program = graphc.export(function, args, dynamic_shapes=dynamic)
    model = graphc.onnx.export(program, opset=opset)
    for tensors in (args, *others):
        arrays = [x.numpy() for x in tensors]
        expected, got = program.program.main.compute(arrays), run(model, arrays)
        for ours, theirs in zip(expected, got, strict=True):
            assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
            np.testing.assert_allclose(theirs, ours, rtol=2e-4, atol=2e-5)
    return model


class Everything(nn.Module):
    """Layers that become one operator each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(64, 10)
        self.layer_norm = nn.LayerNorm(10)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        x = nn.functional.max_pool2d(self.norm(self.conv(x)).relu(), 2)
        x = nn.functional.avg_pool2d(x, 3, 1, 1).mean(-1, keepdim=True)
        return self.layer_norm(self.linear(x.expand(-1, -1, -1, 4).flatten(1))).log_softmax(-1)
