"""Saving and loading states: nestings, dtypes, shared memory, and files that are not ours."""

from __future__ import annotations

import io
import json
import os
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import graphc
from graphc.errors import PackageError

DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


def roundtrip(obj: object) -> object:
    buffer = io.BytesIO()
    graphc.save(obj, buffer)
    buffer.seek(0)
    return graphc.load(buffer)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3)])
def test_dtypes_and_shapes(name: str, shape: tuple[int, ...]) -> None:
    x = graphc.ones(shape, dtype=getattr(graphc, name))
    y = roundtrip({"x": x})["x"]
    assert y.dtype is x.dtype and y.shape == x.shape and (y == x).all()
    y.zero_()


def test_nested_plain_values() -> None:
    tree = {"epoch": 3, "lr": 0.1, "big": 2**70, "inf": float("inf"), "none": None, "flag": True, "text": "ä\n", 5: "int key",
            ("a", 1): [1, (2, 3.5), {"deep": [graphc.ones(1)]}], "raw": b"\x00\xff", "z": 1 + 2j, "dtype": graphc.float16,
            "device": graphc.device("cpu"), "size": graphc.Size([2]), "set": {1}, "np": np.arange(3),
            "ordered": OrderedDict(a=1)}
    back = roundtrip(tree)
    assert back["np"].tolist() == [0, 1, 2] and back[("a", 1)][2]["deep"][0].tolist() == [1]
    for key in tree:
        if key not in ("np", ("a", 1)):
            assert back[key] == tree[key] and type(back[key]) is type(tree[key]), key


def test_values_that_hold_code_are_named() -> None:
    with pytest.raises(TypeError, match=r"(?s)a Linear at model\.0 cannot be saved.*state_dict.*export"):
        graphc.save({"model": [graphc.nn.Linear(1, 1)]}, io.BytesIO())


def test_a_state_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    net = graphc.nn.Linear(2, 1)
    graphc.save(net.state_dict(), tmp_path / "w")
    found = safetensors.numpy.load_file(tmp_path / "w")
    np.testing.assert_array_equal(found["weight"], net.weight.detach().numpy())
    safetensors.numpy.save_file({"a": np.ones(2)}, tmp_path / "others")
    assert graphc.load(tmp_path / "others")["a"].tolist() == [1, 1]


def test_shared_memory_is_written_once_and_shared_again() -> None:
    x = graphc.arange(12.0)
    tied = graphc.ones(3)
    tree = [x, x[2:8].view(2, 3).t(), x[::3], tied, tied.detach()]
    buffer = io.BytesIO()
    graphc.save(tree, buffer)
    header = json.loads(buffer.getvalue()[8 : 8 + struct.unpack("<Q", buffer.getvalue()[:8])[0]])
    assert len(header) == 3  # metadata, one storage, one tied tensor
    buffer.seek(0)
    back = graphc.load(buffer)
    for old, new in zip(tree, back):
        np.testing.assert_array_equal(old.numpy(), new.numpy())
    back[1].zero_()
    assert back[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 8, 9, 10, 11]
    back[3].fill_(7)
    assert back[4].tolist() == [7, 7, 7]


def test_parameters_and_leaves_come_back_as_such() -> None:
    p = graphc.nn.Parameter(graphc.ones(2))
    q, x = roundtrip((p, graphc.ones(1, requires_grad=True)))
    assert isinstance(q, graphc.nn.Parameter) and q.requires_grad and x.requires_grad


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w"
    graphc.save(graphc.ones(1), path)
    with pytest.raises(TypeError):
        graphc.save(object(), path)
    assert graphc.load(path).tolist() == [1] and os.listdir(tmp_path) == ["w"]


@pytest.mark.parametrize("data", [b"", b"abc", b"\x00" * 64, b"\xff" * 64, b"PK\x03\x04 but no zip", b"\x80\x02}q\x00."])
def test_files_that_are_not_ours_are_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"weights\.bin"):
        graphc.load(path)


def test_damaged_files_are_refused() -> None:
    buffer = io.BytesIO()
    graphc.save({"a": graphc.ones(4), "b": [graphc.arange(6), graphc.arange(6)[1:]]}, buffer)
    data = buffer.getvalue()
    for cut in range(0, len(data), 7):
        with pytest.raises(ValueError):
            graphc.load(io.BytesIO(data[:cut]))


def test_views_beyond_their_memory_are_refused() -> None:
    x = graphc.arange(6)
    buffer = io.BytesIO()
    graphc.save([x, x[1:]], buffer)
    data = buffer.getvalue()
    assert b"[1, [5], [1]]" in data
    with pytest.raises(PackageError, match="a view reaches beyond its memory"):
        graphc.load(io.BytesIO(data.replace(b"[1, [5], [1]]", b"[1, [6], [1]]")))


def test_views_count_elements_however_their_memory_is_shaped() -> None:
    """A file may say that the memory is a matrix: the view stays within it all the same."""
    x = graphc.arange(12.0)
    buffer = io.BytesIO()
    graphc.save([x, x[1:]], buffer)
    data = buffer.getvalue()
    changed = data.replace(b'"shape":[12]', b'"shape":[2,6]').replace(b"}} ", b"}}", 1)
    assert len(changed) == len(data)
    assert graphc.load(io.BytesIO(changed))[1].tolist() == list(range(1, 12))


def test_newer_files_are_named_as_such() -> None:
    buffer = io.BytesIO()
    graphc.save([1], buffer)
    data = buffer.getvalue()
    assert rb'\"version\": 1' in data
    with pytest.raises(PackageError, match=r"^the stream: written by a newer version of graphc\n") as raised:
        graphc.load(io.BytesIO(data.replace(rb'\"version\": 1', rb'\"version\": 7')))
    assert "does not fit" not in str(raised.value)


@pytest.mark.parametrize("where", [None, "cpu", graphc.device("cpu"), {"cuda:0": "cpu"}, lambda storage, location: storage])
def test_locations_on_the_cpu(where: object) -> None:
    buffer = io.BytesIO()
    graphc.save(graphc.ones(1), buffer)
    buffer.seek(0)
    assert graphc.load(buffer, map_location=where).tolist() == [1]
