"""Files of every version of the format load, and compute what they did when they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_packages import FOLDER, arrays_in

from graphc import runtime
from graphc.package import read_package
from graphc.package.upgrade import FORMAT_VERSION
from graphc.types import DTYPES

FILES = sorted(FOLDER.glob("*/*.gcz"))


def test_every_version_has_files() -> None:
    assert {path.parent.name for path in FILES} == {f"format_{version}" for version in range(1, FORMAT_VERSION + 1)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_files_load_and_run(path: Path) -> None:
    assert f"format_{read_package(path).format_version}" == path.parent.name
    program = runtime.load(path)
    with np.load(path.with_suffix(".npz")) as stored:
        given = [stored[f"in{i}"] for i in range(sum(name.startswith("in") for name in stored.files))]
        expected = [stored[f"out{i}"] for i in range(sum(name.startswith("out") for name in stored.files))]
    function = program.main
    results = arrays_in(function.build(function.compute(given)))
    assert len(results) == len(expected)
    for got, wanted in zip(results, expected):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_metadata_and_weights_of_every_dtype_are_read() -> None:
    for path in FOLDER.glob("*/nested.gcz"):
        package = read_package(path)
        assert package.metadata == {"epochs": [1, 2.5, None], "name": "nested, größer"}
        rng = np.random.default_rng(5)
        for name, dtype in DTYPES.items():
            np.testing.assert_array_equal(package.weights[name], rng.integers(0, 2, (3, 2)).astype(dtype.numpy))
