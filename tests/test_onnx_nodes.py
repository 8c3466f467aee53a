"""ONNX's own tests of its operators, run by us."""

from __future__ import annotations

import functools
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.errors import GraphcError
from graphc.onnx_format import read_onnx

onnx = pytest.importorskip("onnx", reason="the onnx package is not installed")

OUR_DTYPES = {1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16}

EXCLUDED = {
    r"adagrad|adam|momentum|nesterov": "optimizers' steps are the front end's",
    r"ai_onnx_ml": "classical models of another domain: trees, feature extractors",
    r"bernoulli|training_dropout(?!_zero)": "random numbers, which no two systems have in common",
    r"bitcast": "graphc has no op that takes the bits of a number for those of another dtype",
    r"deform_conv|roialign|melweightmatrix": "not written: seldom met outside of the models that they were made for",
    r"image_decoder": "reads files of images",
    r"test_loop11$": "a part of a tensor at a place that changes from step to step",
    r"nonmaxsuppression|unique_(not_)?sorted": "the size of the result depends on floating-point data",
    r"tfidfvectorizer": "counts words",
}
"""What of the tests on our dtypes is not run, and why."""
LEAST = 0.95
"""The share of the tests on our dtypes that pass."""
MODELS = Path(onnx.__file__).parent / "backend" / "test" / "data"
SLICES = 4
"""Parts of the tests, which run side by side."""


def dtypes(model: Any) -> set[Any]:
    """The element types of inputs and outputs; the kinds of those that are no tensors."""
    found = set()
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.WhichOneof("value")
        found.add(value.type.tensor_type.elem_type if kind == "tensor_type" else kind)
    return found


@functools.cache
def cases() -> list[Any]:
    """The tests whose values are all of our dtypes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy's, about the numbers that some are made of
        from onnx.backend.test.loader import load_model_tests

        return [case for case in load_model_tests(kind="node") if dtypes(case.model) <= OUR_DTYPES]


def reason(name: str) -> str | None:
    """Why a test is not run."""
    return next((why for pattern, why in EXCLUDED.items() if re.search(pattern, name)), None)


def array(value: Any) -> np.ndarray:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def check(case: Any, backend: str) -> str | None:
    """What is wrong with our results, if anything."""
    try:
        model = read_onnx(case.model.SerializeToString(), backend=backend)
        for inputs, outputs in case.data_sets:
            for ours, expected in zip(model(*map(array, inputs)), map(array, outputs), strict=True):
                assert ours.dtype == expected.dtype and ours.shape == expected.shape
                half = ours.dtype.name == "bfloat16"  # two units in the last place
                if half:
                    ours, expected = ours.astype(np.float32), expected.astype(np.float32)
                np.testing.assert_allclose(ours, expected, rtol=1.6e-2 if half else max(case.rtol, 1e-3), atol=1e-5)
    except (AssertionError, GraphcError) as error:
        return f"{case.name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


@pytest.mark.parametrize("part", range(SLICES))
def test_operators(part: int) -> None:
    """By the definitions of the ops."""
    chosen = [case for case in cases()[part::SLICES] if reason(case.name) is None]
    failures = [failure for case in chosen if (failure := check(case, "reference")) is not None]
    assert not failures, "\n".join(failures)


def test_a_sample_of_operators_compiled() -> None:
    chosen = [case for case in cases() if reason(case.name) is None and "_expanded" not in case.name][::29]
    failures = [failure for case in chosen if (failure := check(case, "llvm")) is not None]
    assert not failures, "\n".join(failures)


def recorded(folder: Path, kind: str) -> list[np.ndarray]:
    """The tensors of a recorded call."""
    files = sorted(folder.glob(f"test_data_set_0/{kind}_*.pb"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return [array(onnx.TensorProto.FromString(path.read_bytes())) for path in files]


@pytest.mark.parametrize("kind", ["pytorch-operator", "pytorch-converted"])
def test_models_that_pytorch_exported(kind: str) -> None:
    """Of old versions of the operators, from 6 on."""
    folders = sorted(path.parent for path in (MODELS / kind).glob("*/model.onnx"))
    assert len(folders) > 30
    for folder in folders:
        results = read_onnx(folder / "model.onnx", backend="reference")(*recorded(folder, "input"))
        for ours, expected in zip(results, recorded(folder, "output"), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5, err_msg=folder.name)


def test_squeezenet() -> None:
    """A whole network, its weights made by nodes of the model."""
    model = read_onnx(MODELS / "light" / "light_squeezenet.onnx")
    (image,) = model.program.main.inputs.values()
    expected = onnx.TensorProto.FromString((MODELS / "light" / "light_squeezenet_output_0.pb").read_bytes())
    np.testing.assert_allclose(model(np.ones(image.shape, np.float32))[0], array(expected), rtol=1e-4)


def test_most_are_run() -> None:
    left = [case.name for case in cases() if reason(case.name) is not None]
    assert len(cases()) > 1000
    assert 1 - len(left) / len(cases()) >= LEAST
    for pattern in EXCLUDED:  # none that excludes nothing
        assert any(re.search(pattern, name) for name in left), pattern
