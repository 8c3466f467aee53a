"""ONNX models that are wrong, or made to do harm, are refused with a message that says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import FLOAT, TensorProto, helper, model, node, tensor

from graphc.errors import PackageError
from graphc.onnx_format import Limits, read_onnx

X, Y = [tensor("x", FLOAT, 2)], [tensor("y", FLOAT, 2)]
RECURSIVE = helper.make_function("own", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="own")],
                                 [helper.make_opsetid("own", 1)])


def weight(**fields: Any) -> Any:
    return TensorProto(**{"name": "w", "data_type": FLOAT, "dims": [2], **fields})


def outside(location: str, offset: str = "0") -> Any:
    made = weight(data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": offset, "length": "8"}.items():
        made.external_data.add(key=key, value=value)
    return made


ADD = [node("Add", "x w", "y")]
WRONG = {
    "not a model": (b"PK\x03\x04 this is something else", "not an ONNX model"),
    "empty": (b"", "not an ONNX model"),
    "a cycle": (model([node("Add", "x b", "a"), node("Neg", "a", "b"), node("Neg", "b", "y")], X, Y), "graph is cyclic"),
    "out of order": (model([node("Neg", "a", "y"), node("Neg", "x", "a")], X, Y), "not in order"),
    "a name for nothing": (model([node("Add", "x nothing", "y")], X, Y), "'nothing' is used, and nothing is called so"),
    "a missing operand": (model([node("Add", "x", "y")], X, Y), "operand 1 is missing"),
    "an output that nothing makes": (model([node("Neg", "x", "z")], X, Y), "nothing is called 'y'"),
    "a name twice": (model([node("Neg", "x", "y"), node("Abs", "x", "y")], X, Y), "'y' is defined twice"),
    "an input that a node makes": (model([node("Neg", "x", "x")], X, X), "'x' is defined twice"),
    "an unknown operator": (model([helper.make_node("Frobnicate", ["x"], ["y"], name="here")], X, Y),
                            r"node 'here' \(Frobnicate\): the operator Frobnicate is not supported"),
    "an unknown domain": (model([helper.make_node("Neg", ["x"], ["y"], domain="com.else")], X, Y),
                          "no operators of the domain"),
    "random numbers": (model([node("RandomNormalLike", "x", "y")], X, Y), "draw the numbers outside"),
    "shapes that do not fit": (model(ADD, X, Y, [("w", np.ones(3, np.float32))]), r"Add -> y"),
    "dtypes that do not fit": (model(ADD, X, Y, [("w", np.ones(2))]), "the operands differ in dtype"),
    "an attribute of another kind": (model([node("Softmax", "x", "y", axis="one")], X, Y), "the attribute axis is a bytes"),
    "a dimension that is not there": (model([node("Softmax", "x", "y", axis=3)], X, Y), "there is no dimension 3"),
    "a kernel of other size": (model([node("Conv", "x w", "y", kernel_shape=[3])], [tensor("x", FLOAT, 1, 1, 9)], Y,
                                     [("w", np.ones((1, 1, 2), np.float32))]), "kernel_shape is not that of the weight"),
    "a string": (model([node("Identity", "x", "y")], [tensor("x", TensorProto.STRING, 2)], Y), "string is not supported"),
    "too few bytes": (model(ADD, X, Y, [weight(raw_data=b"1234")]), "another number of bytes"),
    "too many numbers": (model(ADD, X, Y, [weight(float_data=[1, 2, 3])]), "another number of numbers"),
    "a negative size": (model(ADD, X, Y, [weight(dims=[-2])]), "a negative size"),
    "sizes whose product overflows": (model(ADD, X, Y, [weight(dims=[1 << 40, 1 << 40], raw_data=b"")]), "too large"),
    "a huge result": (model([node("ConstantOfShape", "w", "y")], X, Y, [("w", np.array([1 << 40, 1 << 20]))]), "too large"),
    "a huge repetition": (model([node("Tile", "x n", "y")], X, Y, [("n", np.array([1 << 60]))]), "too large"),
    "a negative input": (model([node("Neg", "x", "y")], [tensor("x", FLOAT, -3)], Y), "a negative size"),
    "a reshape to nothing": (model([node("Reshape", "x n", "y")], X, Y, [("n", np.array([-1, -1]))]), "one of them -1"),
    "weights in another folder": (model(ADD, X, Y, [outside("../weights.bin")]), "file of its own"),
    "functions without end": (model([helper.make_node("F", ["x"], ["y"], domain="own")], X, Y, functions=[RECURSIVE]),
                              "nested more than 16 deep"),
    "a function twice": (model([node("Neg", "x", "y")], X, Y, functions=[RECURSIVE, RECURSIVE]), "is defined twice"),
    "one name for two inputs": (model([node("Neg", "x", "y")], X + X, Y), "two inputs have one name"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_models_are_refused(name: str) -> None:
    data, message = WRONG[name]
    with pytest.raises(PackageError, match=message):
        read_onnx(data)


@pytest.mark.parametrize("location", [
    "../weights.bin", "/etc/passwd", "sub/../../weights.bin", "link.bin", "", "nothing.bin", "sub"])
def test_weights_outside_of_the_folder(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "weights.bin").write_bytes(bytes(8))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    (folder / "model.onnx").write_bytes(model(ADD, X, Y, [outside(location)]))
    with pytest.raises(PackageError, match=r"outside of the model's folder|cannot be read|beyond the end"):
        read_onnx(folder / "model.onnx")


def test_weights_beside_the_model(tmp_path: Path) -> None:
    np.array([0, 3, 4], np.float32).tofile(tmp_path / "weights.bin")
    (tmp_path / "model.onnx").write_bytes(model(ADD, X, Y, [outside("weights.bin", "4")]))
    assert read_onnx(tmp_path / "model.onnx")(np.ones(2, np.float32))[0].tolist() == [4, 5]
    for offset in ("8", "-4", "x", str(1 << 70)):
        (tmp_path / "model.onnx").write_bytes(model(ADD, X, Y, [outside("weights.bin", offset)]))
        with pytest.raises(PackageError, match=r"beyond the end|cannot be read"):
            read_onnx(tmp_path / "model.onnx")


def test_limits() -> None:
    nodes = [node("Neg", "x" if not i else f"v{i}", f"v{i + 1}") for i in range(20)]
    data = model(nodes, X, [tensor("v20", FLOAT, 2)])
    assert read_onnx(data)(np.ones(2, np.float32))[0].tolist() == [1, 1]
    with pytest.raises(PackageError, match="more than 10 nodes"):
        read_onnx(data, limits=Limits(nodes=10))


def test_damaged_bytes_are_refused_or_read() -> None:
    """Any change of a model gives a model or a PackageError."""
    data = model([node("Conv", "x w b", "y", pads=[1, 1]), node("Relu", "y", "z")], [tensor("x", FLOAT, "N", 1, 4)],
                 [tensor("z", FLOAT, "N", 2, 4)], [("w", np.ones((2, 1, 3), np.float32)), ("b", np.ones(2, np.float32))])
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(600):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        try:
            read_onnx(bytes(damaged[: rng.integers(1, len(data) + 200)]))
        except PackageError:
            refused += 1
    assert refused > 100
