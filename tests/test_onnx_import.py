"""ONNX models read: run, trained, compiled, of any size."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import FLOAT, INT, TensorProto, helper, model, node, onnx, tensor

import graphc
from graphc import nn
from graphc.errors import ArgumentError, ArgumentTypeError, PackageError, ShapeError
from graphc.onnx_format import read_onnx
from graphc.parse import parse_graph

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

BATCH, TIME = graphc.Dim("batch"), graphc.Dim("time", max=32)


def round_trip(module: Any, args: tuple[Any, ...], *others: tuple[Any, ...], dynamic: Any = None) -> Any:
    """Export a module, load it, and compare; returns what was loaded."""
    loaded = graphc.onnx.load(graphc.onnx.export(module, args, dynamic_shapes=dynamic).SerializeToString())
    for given in (args, *others):
        expected, got = (flat(f(*given)) for f in (module, loaded))
        for a, b in zip(expected, got, strict=True):
            np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), rtol=2e-4, atol=2e-5)
    return loaded


def flat(results: Any) -> list[graphc.Tensor]:
    return [x for r in results for x in flat(r)] if isinstance(results, tuple) else [results]


# What they compute


def test_resnet() -> None:
    from models.resnet import resnet18

    loaded = round_trip(resnet18().eval(), (graphc.randn(1, 3, 64, 64),), dynamic={"x": {0: BATCH}})
    assert len(list(loaded.parameters())) == 62 and len(list(loaded.buffers())) == 40


def test_gpt_is_compiled_and_trained() -> None:
    from models.gpt import GPT, GPTConfig

    gpt = GPT(GPTConfig(block_size=32, vocab_size=20, n_layer=1, n_head=2, n_embd=32)).eval()
    tokens = graphc.randint(0, 20, (2, 9))
    loaded = round_trip(gpt, (tokens,), (graphc.randint(0, 20, (3, 13)),), dynamic=({0: BATCH, 1: TIME},))
    compiled = graphc.compile(loaded)
    for given in (tokens, graphc.randint(0, 20, (3, 11))):
        np.testing.assert_allclose(compiled(given).detach().numpy(), gpt(given).detach().numpy(), rtol=2e-4, atol=2e-5)
    optimizer = graphc.optim.Adam(loaded.parameters(), lr=1e-2)

    @graphc.compile
    def step() -> graphc.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(loaded(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(20)]
    assert losses[-1] < losses[0] / 3


def test_lstm_on_any_batch_and_length() -> None:
    lstm = nn.LSTM(3, 4, 2, bidirectional=True).eval()
    round_trip(lstm, (graphc.randn(5, 2, 3),), (graphc.randn(3, 1, 3),), dynamic=({0: TIME, 1: BATCH},))


def test_gradients_are_those_of_the_module() -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.GELU(), nn.Flatten(), nn.Linear(48, 2)).eval()
    x = graphc.randn(2, 1, 6, 6)
    loaded = round_trip(module, (x,))
    for f in (module, loaded):
        f(x).square().sum().backward()
    ours = {tuple(p.shape): p.grad.numpy() for p in loaded.parameters()}
    for p in module.parameters():
        if p.shape != (3,):  # of which there are several
            np.testing.assert_allclose(ours[tuple(p.shape)], p.grad.numpy(), rtol=1e-3, atol=1e-4)


def test_arrays_and_programs(tmp_path: Path) -> None:
    x = np.ones((3, 2), np.float32)
    layer = nn.Linear(2, 1)
    graphc.onnx.export(layer, (graphc.ones(3, 2),), tmp_path / "layer.onnx", external_data=True)
    loaded = graphc.onnx.load(tmp_path / "layer.onnx")
    expected = layer(graphc.ones(3, 2)).detach().numpy()
    got = loaded(x)
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    loaded.program.save(tmp_path / "layer.gcz")
    np.testing.assert_allclose(graphc.runtime.load(tmp_path / "layer.gcz")(x), expected, rtol=1e-6)
    assert graphc.export(loaded, (graphc.ones(3, 2),)).signature == "forward(input0: float32[3, 2]) -> (output: float32[3, 1])"


def test_names_that_graphs_cannot_hold() -> None:
    made = read_onnx(model([node("Add", "input.1:0 /w/1", "7:out")], [tensor("input.1:0", FLOAT, "a b", 2)],
                           [tensor("7:out", FLOAT, "a b", 2)], [("/w/1", np.ones(2, np.float32))]))
    assert made.input_names == ("input.1:0",) and made.output_names == ("7:out",)
    assert made(np.zeros((3, 2), np.float32))[0].tolist() == [[1.0, 1.0]] * 3
    assert parse_graph(str(made.program.main.graph)) == made.program.main.graph


# Sizes


def test_shapes_that_a_model_computes() -> None:
    """As exporters write `x.reshape(x.shape[0], -1, 2)`."""
    nodes = [
        node("Shape", "x", "shape"), node("Gather", "shape zero", "rows", axis=0), node("Unsqueeze", "rows axes", "rows1"),
        node("Concat", "rows1 rest", "wanted", axis=0), node("Reshape", "x wanted", "y"),
    ]  # fmt: skip
    weights = [("zero", np.array(0)), ("axes", np.array([0])), ("rest", np.array([-1, 2]))]
    made = read_onnx(model(nodes, [tensor("x", FLOAT, "N", 4, 3)], [tensor("y", FLOAT, "N", 6, 2)], weights))
    assert str(made.program.main.graph.outputs[0].type) == "float32[N, 6, 2]"
    assert made(np.zeros((5, 4, 3), np.float32))[0].shape == (5, 6, 2)


def test_sizes_as_numbers_to_compute_with() -> None:
    nodes = [node("Shape", "x", "shape"), node("Cast", "shape", "floats", to=FLOAT),
             node("ReduceProd", "floats", "y", keepdims=0)]
    made = read_onnx(model(nodes, [tensor("x", FLOAT, "N", "M")], [tensor("y", FLOAT)]))
    assert made(np.zeros((5, 4), np.float32))[0] == 20


def test_inputs_that_decide_on_shapes() -> None:
    inputs = [tensor("x", FLOAT, 2, 6), tensor("shape", INT, 2)]
    data = model([node("Reshape", "x shape", "y")], inputs, [tensor("y", FLOAT, None, None)])
    loaded = graphc.onnx.load(data)
    x = graphc.randn(2, 6)
    assert loaded(x, graphc.tensor([3, 4])).shape == (3, 4)
    assert loaded(x, graphc.tensor([-1, 1])).shape == (12, 1)
    with pytest.raises(ArgumentError, match="the numbers in shape decide on shapes"):
        _ = loaded.graph
    small = model([node("NonZero", "x", "y")], [tensor("x", FLOAT, 3)], [tensor("y", INT, 1, None)])
    compiled = graphc.compile(graphc.onnx.load(small))  # nothing of whose graph is left to be given
    assert [compiled(graphc.tensor(x)).tolist() for x in ([0.0, 1, 2], [1.0, 0, 0])] == [[[1, 2]], [[0]]]
    fixed = graphc.onnx.load(data, constants={"shape": graphc.tensor([4, 3])})
    assert fixed(x).shape == (4, 3) and fixed.program.signature == "forward(x: float32[2, 6]) -> (y: float32[4, 3])"


def test_a_model_that_is_made_for_each_shape() -> None:
    """Whether N and M are to be equal, or one of them 1, depends on the inputs."""
    data = model([node("Add", "x y", "z")], [tensor("x", FLOAT, "N"), tensor("y", FLOAT, "M")], [tensor("z", FLOAT, None)])
    loaded = graphc.onnx.load(data)
    assert loaded(graphc.ones(3), graphc.ones(3)).tolist() == [2, 2, 2]
    assert loaded(graphc.ones(1), graphc.ones(2)).tolist() == [2, 2]
    with pytest.raises(ArgumentError, match="does not stand for all sizes"):
        _ = loaded.program
    named = graphc.onnx.load(data, shapes={"y": ["N"]})
    assert named.program.signature == "forward(x: float32[N], y: float32[N]) -> (z: float32[N])"


def test_data_that_decide_on_shapes_are_refused() -> None:
    with pytest.raises(PackageError, match=r"operand 0 of NonZero decides on the size .*depends on the inputs x"):
        read_onnx(model([node("NonZero", "x", "y")], [tensor("x", FLOAT, 100)], [tensor("y", INT, 1, None)]))


# Control flow


def branch(name: str, *nodes: Any) -> Any:
    return helper.make_graph(list(nodes), name, [], [tensor(nodes[-1].output[0], FLOAT, 2)])


def test_branches() -> None:
    choose = node("If", "c", "y", then_branch=branch("then", node("Add", "x w", "a")),
                  else_branch=branch("else", node("Neg", "x", "b"), node("Mul", "b b", "d")))
    inputs = [tensor("c", TensorProto.BOOL), tensor("x", FLOAT, 2)]
    loaded = graphc.onnx.load(model([choose], inputs, [tensor("y", FLOAT, 2)], [("w", np.ones(2, np.float32))]))
    x = graphc.tensor([1.0, 3.0], requires_grad=True)
    assert loaded(graphc.tensor(True), x).tolist() == [2, 4]
    y = loaded(graphc.tensor(False), x)
    y.sum().backward()
    assert y.tolist() == [1, 9] and x.grad.tolist() == [2, 6]
    constant = graphc.onnx.load(model([choose], inputs, [tensor("y", FLOAT, 2)], [("w", np.ones(2, np.float32))]),
                                constants={"c": np.array(False)})
    assert "cond" not in str(constant.graph) and constant(x).tolist() == [1, 9]


def test_loops() -> None:
    body = helper.make_graph(
        [node("Add", "v x", "v2"), node("ReduceSum", "v2", "s", keepdims=0), node("Less", "s limit", "again"),
         node("Identity", "v2", "row")], "body",
        [tensor("i", INT), tensor("going", TensorProto.BOOL), tensor("v", FLOAT, 2)],
        [tensor("again", TensorProto.BOOL), tensor("v2", FLOAT, 2)])
    limit = ("limit", np.array(10, np.float32))
    made = read_onnx(model([helper.make_node("Loop", ["", "", "x"], ["y"], body=body)], [tensor("x", FLOAT, 2)],
                           [tensor("y", FLOAT, 2)], [limit]))
    assert made(np.ones(2, np.float32))[0].tolist() == [5, 5]
    fixed = helper.make_graph(
        [node("Add", "v x", "v2"), node("Identity", "going", "again"), node("Identity", "v2", "row")], "body",
        [tensor("i", INT), tensor("going", TensorProto.BOOL), tensor("v", FLOAT, 2)],
        [tensor("again", TensorProto.BOOL), tensor("v2", FLOAT, 2), tensor("row", FLOAT, 2)])
    made = read_onnx(model([helper.make_node("Loop", ["n", "", "x"], ["y", "rows"], body=fixed)],
                           [tensor("x", FLOAT, 2)], [tensor("y", FLOAT, 2), tensor("rows", FLOAT, 3, 2)], [("n", np.array(3))]))
    last, rows = made(np.ones(2, np.float32))
    assert last.tolist() == [4, 4] and rows.tolist() == [[2, 2], [3, 3], [4, 4]]


def test_functions_of_the_model() -> None:
    square = helper.make_function("own", "Scaled", ["a"], ["b"], [
        node("Mul", "a a", "c"), node_with_reference()], [helper.make_opsetid("", 18)], ["alpha"])
    call = helper.make_node("Scaled", ["x"], ["y"], domain="own", alpha=0.5)
    made = read_onnx(model([call], [tensor("x", FLOAT, 2)], [tensor("y", FLOAT, 2)], functions=[square]))
    assert made(np.array([2, -4], np.float32))[0].tolist() == [4, 16]


def node_with_reference() -> Any:
    made = node("LeakyRelu", "c", "b")
    made.attribute.add(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    return made


def test_wrong_calls() -> None:
    loaded = graphc.onnx.load(model([node("Add", "x x", "y")], [tensor("x", FLOAT, "N", 2)], [tensor("y", FLOAT, "N", 2)]))
    with pytest.raises(ArgumentTypeError, match="is called with 2 inputs"):
        loaded(graphc.ones(1, 2), graphc.ones(1, 2))
    with pytest.raises(ShapeError):
        loaded(graphc.ones(1, 3))
    with pytest.raises(ArgumentError, match="has no input 'z'"):
        read_onnx(model([node("Neg", "x", "y")], [tensor("x", FLOAT, 2)], [tensor("y", FLOAT, 2)]), constants={"z": np.ones(2)})
