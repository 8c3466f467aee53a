"""Layers and functions of several ops become one operator of ONNX each, and what only looks like one does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_runs import BATCH, TIME, Everything, agrees, operators

import graphc
from graphc import nn
from graphc.onnx_format import read_onnx


def test_layers_become_single_operators() -> None:
    model = agrees(Everything().eval(), (graphc.randn(2, 1, 8, 8),), (graphc.randn(5, 1, 8, 8),), dynamic={"x": {0: BATCH}})
    assert sorted(operators(model)) == [
        "AveragePool", "BatchNormalization", "Concat", "Conv", "Expand", "Gemm", "LayerNormalization", "LogSoftmax", "MaxPool",
        "ReduceMean", "Relu", "Reshape", "Shape"]
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == ["batch", 1, 8, 8]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["x", "output"]
    assert {"conv.weight", "norm.running_var", "layer_norm.bias"} <= {tensor.name for tensor in model.graph.initializer}


@pytest.mark.parametrize("function, shape, expected", [
    (lambda x: x.softmax(1), (2, 5), ["Softmax"]),
    (lambda x: x.mean((0, 1)), (2, 5), ["ReduceMean"]),
    (lambda x: nn.functional.max_pool1d(x, 3, 2, 1), (2, 3, 9), ["MaxPool"]),
    (lambda x: nn.functional.max_pool3d(x, 2), (1, 2, 4, 4, 4), ["MaxPool"]),
    (lambda x: nn.functional.max_pool2d(x, 3, 1, 1, 1), (1, 2, 6, 6), ["MaxPool"]),
    (lambda x: nn.functional.avg_pool1d(x, 2), (2, 3, 8), ["AveragePool"]),
    (lambda x: x + graphc.ones(5) * 2.0, (3, 5), ["Add"]),
    (lambda x: x.clamp(-0.5, 0.5), (3, 5), ["Clip"]),
    (lambda x: x.clamp(min=0.5), (3, 5), ["Clip"]),
])  # fmt: skip
def test_patterns(function: Callable[..., Any], shape: tuple[int, ...], expected: list[str]) -> None:
    assert sorted(operators(agrees(function, (graphc.randn(*shape),)))) == expected


ACTIVATIONS: list[tuple[nn.Module, str]] = [
    (nn.GELU(), "Gelu"), (nn.GELU(approximate="tanh"), "Gelu"), (nn.Mish(), "Mish"), (nn.Softplus(), "Softplus"),
    (nn.Softsign(), "Softsign"), (nn.ELU(), "Elu"), (nn.ELU(0.5), "Elu"), (nn.CELU(), "Elu"), (nn.CELU(0.3), "Celu"),
    (nn.SELU(), "Selu"), (nn.LeakyReLU(0.2), "LeakyRelu"), (nn.Hardswish(), "HardSwish"), (nn.Hardsigmoid(), "HardSigmoid"),
    (nn.Hardtanh(-0.5, 2.0), "Clip"), (nn.ReLU6(), "Clip"),
]  # fmt: skip


@pytest.mark.parametrize("layer, operator", ACTIVATIONS, ids=[str(layer) for layer, _ in ACTIVATIONS])
def test_activations(layer: nn.Module, operator: str) -> None:
    x = graphc.cat([graphc.linspace(-30, 30, 61), graphc.tensor([-0.0, 1e-6, -1e-6])])
    model = agrees(layer, (x,), opset=20)
    assert operators(model) == [operator]
    back = read_onnx(model.SerializeToString())
    np.testing.assert_allclose(back(x.numpy())[0], layer(x).numpy(), rtol=2e-4, atol=2e-5)
    assert operator not in operators(agrees(layer, (x.double(),), opset=20)) or operator == "Clip"


def test_activations_by_other_numbers_are_others() -> None:
    x = graphc.linspace(-3, 3, 13)
    others = [lambda x: x * 0.5 * (1.0 + (x * 0.7).erf()), lambda x: graphc.where(x <= 0, x * 0.1, x * 2.0),
              lambda x: nn.functional.softplus(x, threshold=1.0), nn.Softplus(2.0), lambda x: x / (x.abs() + 2.0),
              lambda x: 0.5 * x * (1 + (0.7978845608 * (x + 0.05 * x * x * x)).tanh())]  # fmt: skip
    for function in others:
        assert len(operators(agrees(function, (x,), opset=20))) > 1
    gelu = agrees(nn.GELU(), (x,), opset=19)
    assert "Gelu" not in operators(gelu)  # it came with 20


def interpolated(**how: Any) -> Callable[[graphc.Tensor], graphc.Tensor]:
    return lambda x: nn.functional.interpolate(x, **how)


@pytest.mark.parametrize("how, shape", [
    ({"scale_factor": 2}, (2, 3, 6, 5)), ({"scale_factor": (3, 1)}, (2, 3, 6, 5)), ({"scale_factor": 3}, (2, 3, 6)),
    ({"scale_factor": 2}, (1, 2, 3, 4, 5)), ({"size": (9, 13)}, (2, 3, 6, 5)), ({"size": (12, 13)}, (2, 3, 6, 5)),
    ({"scale_factor": 1.7}, (2, 3, 6, 5)), ({"size": (9, 13), "mode": "nearest-exact"}, (2, 3, 6, 5)),
    ({"scale_factor": 2, "mode": "linear"}, (2, 3, 6)), ({"scale_factor": 2, "mode": "bilinear"}, (2, 3, 6, 5)),
    ({"scale_factor": 1.7, "mode": "bilinear"}, (2, 3, 6, 5)), ({"size": (3, 8), "mode": "bilinear"}, (2, 3, 6, 5)),
    ({"size": (1, 5), "mode": "bilinear"}, (2, 3, 6, 5)),
    ({"size": (40, 90), "mode": "bilinear", "align_corners": True}, (2, 3, 6, 5)),
    ({"size": (3, 4), "mode": "bilinear", "antialias": True}, (2, 3, 6, 5)),
    ({"size": (9, 8, 7), "mode": "trilinear"}, (1, 2, 3, 4, 5)),
    ({"size": (9, 8), "mode": "bicubic"}, (2, 3, 6, 5)), ({"scale_factor": 1.7, "mode": "bicubic"}, (2, 3, 6, 5)),
    ({"size": (9, 8), "mode": "bicubic", "align_corners": True}, (2, 3, 6, 5)),
    ({"size": (3, 4), "mode": "bicubic", "antialias": True}, (2, 3, 6, 5)),
], ids=str)  # fmt: skip
def test_resized_images(how: dict[str, Any], shape: tuple[int, ...], tmp_path: Path) -> None:
    x, function = graphc.randn(*shape), interpolated(**how)
    model = agrees(function, (x,), (graphc.randn(5, *shape[1:]),), dynamic=({0: BATCH},))
    assert operators(model) == ["Resize"]
    back = read_onnx(model.SerializeToString())
    np.testing.assert_allclose(back(x.numpy())[0], function(x).numpy(), rtol=2e-4, atol=2e-5)
    graphc.export(function, (x,)).save(tmp_path / "resized.gcz")  # in which large tables are weights
    assert operators(graphc.onnx.export(tmp_path / "resized.gcz")) == ["Resize"]


def test_nearest_elements_of_images_of_any_size() -> None:
    rows, columns = graphc.Dim("rows"), graphc.Dim("columns")
    x = graphc.randn(2, 3, 4, 5)
    model = agrees(nn.Upsample(scale_factor=2), (x,), (graphc.randn(1, 3, 7, 1),), dynamic=({0: BATCH, 2: rows, 3: columns},))
    assert operators(model) == ["Resize"]


def test_images_of_any_size_between_their_elements() -> None:
    rows, columns = graphc.Dim("rows"), graphc.Dim("columns")
    for how, shape, dims in (({"mode": "bilinear", "scale_factor": (2, 4)}, (2, 3, 4, 5), {2: rows, 3: columns}),
                             ({"mode": "linear", "scale_factor": 3}, (2, 3, 4), {2: rows})):
        x, others = graphc.randn(*shape), [graphc.randn(1, 3, *sizes[: len(shape) - 2]) for sizes in ((1, 7), (9, 1), (6, 6))]
        model = agrees(interpolated(**how), (x,), *((other,) for other in others), dynamic=({0: BATCH, **dims},))
        assert operators(model) == ["Resize"]
    for how in ({"size": (7, 9)}, {"scale_factor": 2, "align_corners": True}):
        function = interpolated(mode="bilinear", **how)
        model = agrees(function, (graphc.randn(2, 3, 4, 6),), (graphc.randn(2, 3, 8, 10),), dynamic=({2: rows, 3: columns},))
        assert "Gather" in operators(model)

    def other_shares(x: graphc.Tensor) -> graphc.Tensor:
        """As the function does it, with another share."""
        size = x.shape[2]
        centre = graphc.maximum((graphc.arange(2 * size, dtype=graphc.float32) + 0.5) * 0.5 - 0.5, graphc.tensor(0.0))
        low = centre.long().clamp(max=size - 1)
        share = (centre - low).clamp(0, 1)
        return x.index_select(2, low) * (1 - share) + x.index_select(2, (low + 1).clamp(max=size - 1)) * (share * share)

    model = agrees(other_shares, (graphc.randn(2, 3, 4),), (graphc.randn(2, 3, 7),), dynamic=({2: rows},))
    assert "Resize" not in operators(model)


def test_what_only_looks_like_another_size_is_no_resize() -> None:
    x = graphc.randn(1, 2, 4, 4)
    weights = graphc.tensor([[1.0, 0.0], [0.7, 0.3], [0.25, 0.75], [0.0, 1.0]])

    def other_weights(x: graphc.Tensor) -> graphc.Tensor:
        taken = x[:, :, graphc.tensor([0, 1, 0, 1, 1, 2, 2, 3])].reshape(1, 2, 4, 2, 4)
        return (taken * weights.reshape(4, 2, 1)).sum(3)

    others: list[Callable[..., Any]] = [
        other_weights, interpolated(size=(3, 3), mode="bicubic", antialias=True), interpolated(size=(3, 3), mode="area"),
        interpolated(size=(3, 3), mode="lanczos", antialias=True), lambda x: x.repeat_interleave(2, 1),
        lambda x: x[:, :, ::2, ::2], lambda x: x[:, :, graphc.tensor([0, 2, 1, 1])][..., graphc.tensor([3, 2])],
        lambda x: x.repeat(1, 1, 2, 2), lambda x: nn.functional.interpolate(x, scale_factor=2).double(),
        lambda x: nn.functional.interpolate(x.double(), scale_factor=2),
    ]  # fmt: skip
    found = ["Resize" in operators(agrees(function, (x,))) for function in others]
    assert found == [False, True, False, False, False, False, False, False, True, False]


@pytest.mark.parametrize("size, shape, expected", [(3, (2, 6, 4, 5), True), (5, (2, 6, 4, 5), True), (2, (2, 6, 4, 5), False),
                                                   (3, (2, 6, 5), False)])  # fmt: skip
def test_local_response_norm(size: int, shape: tuple[int, ...], expected: bool) -> None:
    layer, x = nn.LocalResponseNorm(size, 0.3, 0.6, 2.0), graphc.randn(*shape)
    model = agrees(layer, (x,))
    assert (operators(model) == ["LRN"]) == expected
    np.testing.assert_allclose(read_onnx(model.SerializeToString())(x.numpy())[0], layer(x).numpy(), rtol=1e-5)


def test_responses_divided_otherwise() -> None:
    def function(x: graphc.Tensor, other: graphc.Tensor) -> graphc.Tensor:
        squares = nn.functional.pad(other * other, (0, 0, 0, 0, 1, 1))
        return x / (squares.unfold(1, 3, 1).sum(-1) / 3 * 0.1 + 1.0) ** 0.75

    x = graphc.randn(2, 6, 4, 5)
    assert "LRN" not in operators(agrees(function, (x, graphc.randn(2, 6, 4, 5))))
    assert "LRN" in operators(agrees(lambda x: function(x, x), (x,)))


attend = nn.functional.scaled_dot_product_attention
OPEN = graphc.tensor([[True, False, True], [False, False, False], [True, True, True], [False, True, False]])


@pytest.mark.parametrize("function, others, expected", [
    (attend, (), ["Attention"]),
    (lambda q, k, v: attend(q, k, v, is_causal=True, scale=0.3), (), ["Attention"]),
    (lambda q, k, v: attend(k, q, q, is_causal=True), (), ["Attention"]),
    (lambda q, k, v: attend(q, k[:, :1], v[:, :1], enable_gqa=True), (), ["Attention"]),
    (lambda q, k, v: attend(q[0], k[0], v[0]), (), ["Attention"]),
    (lambda q, k, v: ((q @ k.transpose(-2, -1)) / 2.0).softmax(-1) @ v, (), ["Attention"]),
    (lambda q, k, v, m: ((q @ k.transpose(-2, -1)) * 0.5 + m).softmax(-1) @ v, (graphc.randn(2, 1, 4, 3),), ["Attention"]),
    (attend, (OPEN,), ["ReduceMax", "Attention", "Where"]),
    (attend, (graphc.randn(4, 3),), ["ReduceMax", "Greater", "Attention", "Where"]),
    (attend, (graphc.where(OPEN, 0.0, -float("inf")),), ["ReduceMax", "Greater", "Attention", "Where"]),
    (attend, (graphc.rand(2, 1, 1, 3) > -1,), ["ReduceMax", "Expand", "Attention", "Where"]),
    (lambda q, k, v, m: attend(q[0], k[0], v[0], m), (graphc.randn(2, 4, 3),), ["ReduceMax", "Greater", "Attention", "Where"]),
])  # fmt: skip
def test_attention(function: Callable[..., Any], others: tuple[graphc.Tensor, ...], expected: list[str]) -> None:
    args = graphc.randn(2, 2, 4, 5), graphc.randn(2, 2, 3, 5), graphc.randn(2, 2, 3, 5), *others
    model = agrees(function, args, opset=23)
    assert [name for name in operators(model) if name not in ("Cast", "Gather", "Reshape", "Slice", "Squeeze")] == expected
    back = read_onnx(model.SerializeToString())(*(x.numpy() for x in args))
    np.testing.assert_allclose(back[0], function(*args).numpy(), rtol=2e-4, atol=2e-5)
    assert "Attention" not in operators(agrees(function, args, opset=22))  # it came with 23


def test_attention_on_any_batch_and_length() -> None:
    q = graphc.randn(2, 2, 4, 5)
    model = agrees(lambda q: attend(q, q, q, is_causal=True), (q,), (graphc.randn(1, 2, 9, 5),), opset=23,
                   dynamic=({0: BATCH, 2: TIME},))
    assert operators(model) == ["Attention"]


def test_what_only_looks_like_attention() -> None:
    q, k, v = graphc.randn(2, 2, 3, 3), graphc.randn(2, 2, 3, 3), graphc.randn(2, 2, 3, 3)

    def not_causal(q: graphc.Tensor, k: graphc.Tensor, v: graphc.Tensor) -> graphc.Tensor:
        places = graphc.arange(3)
        scores = graphc.where(places >= places[:, None], q @ k.mT, -float("inf"))
        return scores.softmax(-1) @ v

    def weights_too(q: graphc.Tensor, k: graphc.Tensor, v: graphc.Tensor) -> Any:
        weights = (q @ k.mT).softmax(-1)
        return weights @ v, weights

    others: list[Callable[..., Any]] = [
        weights_too, lambda q, k, v: (q @ k).softmax(-1) @ v, lambda q, k, v: (q @ k.mT).softmax(-2) @ v,
        lambda q, k, v: (q @ k.mT * -0.5).softmax(-1) @ v, lambda q, k, v: (q[0, 0] @ k[0, 0].mT).softmax(-1) @ v[0, 0],
        lambda q, k, v: attend(q.double(), k.double(), v.double()),
        lambda q, k, v: graphc.where(q @ k.mT > 0, (q @ k.mT), -1.0).softmax(-1) @ v,
    ]  # fmt: skip
    for function in others:
        assert "Attention" not in operators(agrees(function, (q, k, v), opset=23))
    assert "Attention" in operators(agrees(not_causal, (q, k, v), opset=23))  # by its mask


def test_reductions_that_are_put_along_another_dimension() -> None:
    """Of a square matrix, without a dimension of 1 in place of the one that was reduced."""
    def softmax(x: graphc.Tensor) -> graphc.Tensor:
        powers = (x - x.amax(1)).exp()
        return powers / powers.sum(1)

    def log_softmax(x: graphc.Tensor) -> graphc.Tensor:
        less = x - x.amax(1)
        return less - less.exp().sum(1).log()

    def layer_norm(x: graphc.Tensor) -> graphc.Tensor:
        centered = x - x.mean(1)
        return centered * ((centered * centered).mean(1) + 1e-5).rsqrt() * graphc.ones(5) + graphc.zeros(5)

    def rms_norm(x: graphc.Tensor) -> graphc.Tensor:
        return x * ((x * x).mean(1) + 1e-5).rsqrt() * graphc.arange(5.0)

    for function in (softmax, log_softmax, layer_norm, rms_norm):
        agrees(function, (graphc.randn(5, 5),), opset=23)


@pytest.mark.parametrize("layer, shape, opset, expected", [
    (nn.PReLU(), (4, 6), 18, ["PRelu", "Reshape"]),
    (nn.PReLU(3), (2, 3, 4), 18, ["PRelu", "Reshape"]),
    (nn.LayerNorm(6, bias=False), (4, 6), 18, ["LayerNormalization"]),
    (nn.LayerNorm((3, 6), elementwise_affine=False), (4, 3, 6), 18, ["LayerNormalization"]),
    (nn.InstanceNorm2d(3, affine=True), (2, 3, 5, 4), 18, ["InstanceNormalization"]),
    (nn.InstanceNorm1d(3), (2, 3, 5), 18, ["InstanceNormalization"]),
    (nn.GroupNorm(2, 6), (3, 6, 4, 5), 21, ["GroupNormalization"]),
    (nn.GroupNorm(2, 6), (3, 6, 4, 5), 20,
     ["Add", "InstanceNormalization", "Mul", "Reshape", "Reshape", "Reshape", "Reshape"]),
    (nn.RMSNorm(6, eps=1e-5), (4, 6), 23, ["RMSNormalization"]),
    (nn.ConvTranspose2d(3, 4, 3, 2, 1, 1), (2, 3, 5, 5), 18, ["ConvTranspose"]),
    (nn.ConvTranspose1d(4, 6, 3, 2, groups=2), (2, 4, 5), 18, ["ConvTranspose"]),
], ids=str)  # fmt: skip
def test_layers(layer: nn.Module, shape: tuple[int, ...], opset: int, expected: list[str]) -> None:
    for parameter in layer.parameters():
        with graphc.no_grad():
            parameter.add_(graphc.rand_like(parameter))
    x = graphc.randn(*shape)
    model = agrees(layer.eval(), (x,), opset=opset)
    assert sorted(operators(model)) == expected
    back = read_onnx(model.SerializeToString())
    np.testing.assert_allclose(back(x.numpy())[0], layer(x).detach().numpy(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("places", [graphc.tensor(3), graphc.tensor([1, 0]), graphc.tensor([[1, 4], [0, 1], [2, 2]])], ids=str)
def test_embeddings(places: graphc.Tensor) -> None:
    assert operators(agrees(nn.Embedding(5, 3), (places,))).count("Gather") == 1
    if places.ndim == 2:
        model = agrees(nn.Embedding(5, 3), (places,), (places[:1],), dynamic={"input": {0: BATCH}})
        assert operators(model) == ["Gather"]
