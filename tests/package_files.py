"""Saved files for the tests of the format: a good one, and what makes a bad one of it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc.ops as ops
from graphc.dims import Dim
from graphc.errors import PackageError
from graphc.ir import Builder, Graph
from graphc.package import Package, read_package, write_package
from graphc.package.archive import write_archive
from graphc.package.manifest import MANIFEST, checksum
from graphc.types import TensorType, float32

RNG = np.random.default_rng(7)
WEIGHT = RNG.standard_normal((3, 4), np.float32)


def linear(scale: float = 2.0) -> Graph:
    """`x @ fc.weight * scale` for any number of rows."""
    builder = Builder("linear", locations=False)
    x = builder.input("x", TensorType(float32, (Dim.symbol("N"), 3)))
    w = builder.input("fc.weight", TensorType(float32, (3, 4)), param="fc.weight")
    return builder.finish([ops.matmul(x, w) * scale], ["logits"])


def saved(path: Path, **changes: Any) -> Path:
    """A file with two entries and a weight, or with something else in it."""
    contents: dict[str, Any] = {
        "entries": {"forward": linear(), "other": linear(3.0)},
        "weights": {"fc.weight": WEIGHT},
        "metadata": {"epochs": [1, 2.5, None]},
        **changes,
    }
    write_package(path, **contents)
    return path


def same(a: Package, b: Package) -> bool:
    """Whether two files hold the same."""
    weights = a.weights.keys() == b.weights.keys() and all(
        a.weights[n].tobytes() == b.weights[n].tobytes() and a.weights[n].dtype == b.weights[n].dtype for n in a.weights
    )
    return weights and a.entries == b.entries and a.metadata == b.metadata and a.producer == b.producer


def rewrite(
    path: Path,
    change: Callable[[dict[str, Any]], Any] | None = None,
    members: dict[str, bytes] | None = None,
    manifest: bytes | None = None,
) -> Path:
    """Change a file's manifest or members and make the checksums right again."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content.update(members or {})
    described = json.loads(content.pop(MANIFEST))
    described["checksums"] = {name: checksum([memoryview(data)]) for name, data in content.items()}
    if change is not None:
        change(described)
    data = json.dumps(described).encode() if manifest is None else manifest
    path.unlink()  # what maps the old file keeps it
    with open(path, "xb") as file:
        write_archive(file, [(name, [memoryview(d)]) for name, d in {MANIFEST: data, **content}.items()])
    return path


def refused(path: Path, problem: str, **options: Any) -> PackageError:
    with pytest.raises(PackageError, match=problem) as caught:
        read_package(path, **options)
    assert str(caught.value).startswith(f"{path}: "), "the file is named first"
    return caught.value
