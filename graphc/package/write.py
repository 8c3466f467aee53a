"""Writing a saved file: all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from graphc.errors import ArgumentError, ArgumentTypeError
from graphc.ir import Graph
from graphc.package import strict_json, tensors
from graphc.package.archive import Malformed, write_archive
from graphc.package.entry import Entry, fits, prepare
from graphc.package.manifest import MANIFEST, WEIGHTS, check_entry, checksum, graph_member, is_entry_name, make_manifest
from graphc.package.replacing import is_replaceable, replacing
from graphc.text import print_graph
from graphc.types import TensorType, dtype_of
from graphc.verify import verify


def write_package(
    target: str | os.PathLike[str] | BinaryIO,
    entries: Mapping[str, Graph | Entry],
    weights: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write graphs and weights as a `.gcz` file.

    entries
        The graphs by the names of the functions that they are, "forward" being the one that a program runs by default.
        Inputs whose info names a param, a buffer or a constant are bound to the weight of that name.
    weights
        The arrays by name; they may be more than the entries use. Those that are equal are stored once.
    metadata
        What else is kept: anything that JSON holds.

    A path is replaced only when everything has been written: a full disk or an interrupt leaves the old file as it was.
    ArgumentError for what cannot be saved; VerifyError for a graph that breaks a rule.
    """
    members = _members(entries, weights, metadata or {})
    if not isinstance(target, (str, os.PathLike)):
        _write_stream(target, members)
    elif is_replaceable(target):
        with replacing(target) as file:
            write_archive(file, members)
    else:
        with open(target, "wb") as stream:
            _write_stream(stream, members)


def _write_stream(stream: BinaryIO, members: list[tuple[str, list[memoryview]]]) -> None:
    """Write to what cannot go back, as an archive's writer does."""
    import shutil
    import tempfile  # which those who only read do without

    with tempfile.SpooledTemporaryFile(1 << 24) as scratch:
        write_archive(scratch, members)  # type: ignore[arg-type]
        scratch.seek(0)
        shutil.copyfileobj(scratch, stream)


def _members(
    given: Mapping[str, Graph | Entry], weights: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> list[tuple[str, list[memoryview]]]:
    """The archive's members with their bytes, everything checked that reading will check."""
    if not given:
        raise ArgumentError("a saved file without entries", expected="at least one graph")
    arrays = {name: _weight(name, weight) for name, weight in weights.items()}
    entries: dict[str, Entry] = {}
    for name, entry in given.items():
        if not is_entry_name(name):
            raise ArgumentError(f"an entry called {name!r}", expected="an identifier, of at most 100 characters")
        entry = entry if isinstance(entry, Entry) else Entry(entry)
        verify(entry.graph)
        entries[name], constants = prepare(entry)
        arrays.update(constants)
    for name, entry in entries.items():
        _check_weights(name, entry, arrays)
    members = {graph_member(name): [_view(f"{print_graph(entry.graph)}\n")] for name, entry in sorted(entries.items())}
    shared = _shared(arrays)
    members[WEIGHTS] = tensors.encode({name: array for name, array in arrays.items() if name not in shared})
    manifest = make_manifest(entries, shared, {name: checksum(parts) for name, parts in members.items()}, metadata)
    for name, entry in entries.items():
        try:
            check_entry(name, manifest["entries"][name], entry)
        except Malformed as error:
            raise ArgumentError(error.reason) from None
    try:
        header = strict_json.encode(manifest)
        same = strict_json.decode(header, "the manifest", len(header))["metadata"] == metadata
        problem = "" if same else ": what would be read is not what was given"
    except (TypeError, ValueError, RecursionError, Malformed) as error:
        problem = f": {error}"
    if problem:
        raise ArgumentError(f"the metadata cannot be saved{problem}", expected="strings, finite numbers, lists and dicts "
                            "with strings as keys")
    return [(MANIFEST, [memoryview(header)]), *members.items()]


def _weight(name: str, weight: np.ndarray) -> np.ndarray:
    if not isinstance(name, str) or name == "__metadata__":
        raise ArgumentError(f"a weight called {name!r}", expected="a string other than '__metadata__'")
    if not isinstance(weight, np.ndarray):
        raise ArgumentTypeError(f"the weight {name!r} is a {type(weight).__name__}", expected="a NumPy array")
    return np.asarray(weight, dtype_of(weight.dtype).numpy, order="C")


def _check_weights(name: str, entry: Entry, arrays: Mapping[str, np.ndarray]) -> None:
    for position, weight in entry.weights.items():
        value = entry.graph.inputs[position]
        if weight not in arrays:
            raise ArgumentError(f"{name}: the input {value.name!r} is bound to the weight {weight!r}, which is not given")
        array = arrays[weight]
        if not fits(array, value.type):
            raise ArgumentError(
                f"{name}: the weight {weight!r} does not fit the input {value.name!r}",
                expected=str(value.type), got=str(TensorType(dtype_of(array.dtype), array.shape)),
            )


def _shared(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The weights that equal another one to the bit, each with the name under which both are stored."""
    alike: dict[Any, list[str]] = {}
    shared: dict[str, str] = {}
    for name in sorted(arrays):
        array = arrays[name]
        content = array.reshape(-1).view(np.uint8)
        others = alike.setdefault((array.dtype, array.shape, content[:64].tobytes(), content[-64:].tobytes()), [])
        same = next((other for other in others if np.array_equal(content, arrays[other].reshape(-1).view(np.uint8))), None)
        if same is None:
            others.append(name)
        elif array.nbytes:
            shared[name] = same
    return shared


def _view(text: str) -> memoryview:
    return memoryview(text.encode("utf-8"))
