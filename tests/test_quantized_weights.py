"""Weights stored in fewer bits: how close the results are, and that no wide copy of the weights is made."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.ops as ops
from graphc import nn, runtime
from graphc.errors import ArgumentError
from graphc.ir import Builder, Graph
from graphc.package import Entry
from graphc.package import quantize as module
from graphc.package.quantize import quantize
from graphc.passes import pipeline
from graphc.schedule import Machine, lower
from graphc.types import TensorType, float32

DTYPES = {"int8": 0.02, "bfloat16": 0.008, "float16": 0.001}
"""The largest error, relative to the largest result."""


class Everything(nn.Module):
    """Weights in all the ways in which they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.linear, self.tied = nn.Embedding(40, 32), nn.Linear(32, 48), nn.Linear(32, 40, bias=False)
        self.tied.weight = self.tokens.weight
        self.convolution, self.norm = nn.Conv1d(48, 24, 3, groups=2), nn.BatchNorm1d(24)
        self.transposed = nn.ConvTranspose1d(24, 12, 3)
        self.lstm = nn.LSTM(12, 16, bidirectional=True)
        self.matrix = nn.Parameter(graphc.randn(32, 20))
        self.bilinear = nn.Bilinear(20, 20, 7)

    def forward(self, tokens: Any) -> Any:
        x = self.tokens(tokens)
        y = self.norm(self.convolution(self.linear(x).transpose(-1, -2)))
        z = self.lstm(self.transposed(y).permute(2, 0, 1))[0]
        left, right = z @ self.matrix, graphc.einsum("lbk,kj->lbj", z, self.matrix)
        results = {"tied": self.tied(x), "conv": y, "lstm": z, "left": left, "right": right}
        return {**results, "bilinear": self.bilinear(left, right)}


def reloaded(program: Any, backend: str | None = None) -> runtime.Program:
    stream = io.BytesIO()
    program.save(stream)
    stream.seek(0)
    return runtime.load(stream, backend=backend)


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_close(dtype: str) -> None:
    graphc.manual_seed(0)
    model, tokens = Everything().eval(), graphc.randint(0, 40, (3, 9))
    batch = graphc.Dim("batch", min=2)
    program = graphc.export(model, (tokens,), weights=dtype, dynamic_shapes={"tokens": {0: batch}})
    saved = reloaded(program)
    narrow = {name for name, array in saved.weights.items() if array.dtype.name == dtype}
    matrices = {name for name, parameter in model.named_parameters() if parameter.ndim >= 2}
    assert narrow == matrices and saved.weights["linear.bias"].dtype == np.float32
    for n in (3, 2, 6):
        tokens = graphc.randint(0, 40, (n, 9))
        results, defined = saved(tokens.numpy()), reloaded(program, "reference")(tokens.numpy())
        for name, expected in model(tokens).items():
            limit = DTYPES[dtype] * expected.abs().max().item()
            np.testing.assert_allclose(results[name], expected.detach().numpy(), rtol=0, atol=4 * limit, err_msg=name)
            np.testing.assert_allclose(results[name], defined[name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_alone_is_within_rounding(dtype: str) -> None:
    rng = np.random.default_rng(0)
    linear = nn.Linear(256, 64, bias=False)
    scales = np.exp(rng.uniform(-9, 9, (64, 1))).astype(np.float32)  # one scale for all channels would lose most of them
    linear.weight.data = graphc.tensor(rng.standard_normal((64, 256), np.float32) * scales)
    x = graphc.tensor(rng.standard_normal((32, 256), np.float32))
    got = graphc.export(linear, (x,), weights=dtype)(x).numpy()
    exact = linear(x).detach().numpy()
    error = np.sqrt(((got - exact) ** 2).mean(0) / (exact**2).mean(0))
    assert error.max() < DTYPES[dtype], "the error of each channel, by its own size"


def wide_buffers(graph: Graph, elements: int) -> int:
    """How many temporaries of a compiled graph have so many elements or more."""
    program = lower(pipeline.run(graph), Machine(vector_bytes=16))
    return sum(buffer.size >= elements for buffer in program.temporaries)


@pytest.mark.parametrize("rows", [1, 8, 100])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_wide_numbers_are_never_in_memory(dtype: str, rows: int) -> None:
    model = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 300))
    program = graphc.export(model, (graphc.ones(rows, 300),), weights=dtype)
    assert wide_buffers(program.graph, 200 * 300) == 0
    saved = reloaded(program)
    saved(np.ones((rows, 300), np.float32))
    assert not any(array.size >= 200 * 300 for array in saved.main._compiled._prepared.values())


def test_files_are_smaller() -> None:
    model, x = nn.Linear(512, 512), graphc.ones(1, 512)
    sizes = {}
    for dtype in (None, *DTYPES):
        stream = io.BytesIO()
        graphc.export(model, (x,), weights=dtype).save(stream)
        sizes[dtype] = len(stream.getvalue())
    assert sizes["int8"] < 0.28 * sizes[None] and sizes["bfloat16"] < 0.52 * sizes[None]


def test_what_is_not_narrowed() -> None:
    weight, small = nn.Parameter(graphc.randn(64, 64)), nn.Parameter(graphc.randn(4, 4))

    def step(x: Any) -> Any:
        with graphc.no_grad():
            weight.mul_(0.5)
        return x @ weight, small * 2

    program = graphc.export(step, (graphc.ones(64, 64),), state=True, weights="int8")
    assert {array.dtype.name for array in program.program.weights.values()} == {"float32"}
    with pytest.raises(ArgumentError, match=r"(?s)stored as 'int4'.*one of int8, bfloat16, float16"):
        graphc.export(nn.Linear(2, 2), (graphc.ones(2, 2),), weights="int4")
    infinite = nn.Linear(64, 64)
    infinite.weight.data[3, 3] = float("inf")
    with pytest.raises(ArgumentError, match=r"'weight' has infinities"):
        graphc.export(infinite, (graphc.ones(2, 64),), weights="int8")
    assert graphc.export(infinite, (graphc.ones(2, 64),), weights="bfloat16")(graphc.ones(2, 64)).isinf()[0, 3]


def test_channels_of_zeros_and_of_tiny_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MIN_ELEMENTS", 1)
    builder = Builder("f", locations=False)
    x = builder.input("x", TensorType(float32, (1, 2)))
    w = builder.input("w", TensorType(float32, (4, 2)), param="w")
    entry = Entry(builder.finish([ops.matmul(x, ops.permute(w, (1, 0)))]))
    weights = {"w": np.float32([[0, 0], [1e-44, -1e-44], [1e38, 3e38], [-0.0, 1e-30]])}
    entries, narrow = quantize({"forward": entry}, weights, "int8")
    for backend in (None, "reference"):
        got = runtime.Program(entries, narrow, backend=backend)(np.float32([[1, 0]]))
        np.testing.assert_allclose(got, weights["w"][:, :1].T, rtol=1e-2, atol=1e-38)
