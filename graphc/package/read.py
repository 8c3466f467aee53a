"""Reading a saved file, trusting nothing in it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from graphc.errors import GraphcError, PackageError
from graphc.package import strict_json, tensors
from graphc.package.archive import Malformed, Member, check_crc, member_bytes, read_directory
from graphc.package.entry import Entry, fits
from graphc.package.manifest import (
    MANIFEST,
    WEIGHTS,
    check_entry,
    check_manifest,
    check_members,
    checksum,
    entry_of,
    graph_member,
)
from graphc.package.upgrade import Contents, check_versions, upgrade
from graphc.parse import parse_graph
from graphc.types import TensorType, dtype_of
from graphc.verify import verify

_PIECE = 1 << 24
_EXCERPT = 1000
_MARKS = (b",", b"(", b"[", b"{", b":", b"=")  # every node has four of them and more, and all that is nested has some


@dataclass(frozen=True)
class Limits:
    """How much of a file is read before it is refused.

    >>> from graphc import runtime
    >>> runtime.Limits(nodes=10).nodes
    10
    """

    members: int = 1024
    manifest_bytes: int = 1 << 24
    """The manifest, and the header of the weights."""
    manifest_items: int = 1 << 20
    """What there is in either of them: a weight takes some ten."""
    graph_bytes: int = 1 << 24
    """The text of all graphs."""
    graph_items: int = 500_000
    """Commas, colons, brackets and equals signs in it: most nodes have seven to ten. They are counted before anything is
    read, which takes some 400 bytes of memory for each."""
    nodes: int = 100_000
    """Nodes of all graphs: reading takes some 70 microseconds for each."""
    weights: int = 100_000


@dataclass(frozen=True)
class Package:
    """What a file holds. The weights are read-only arrays on the file's own memory, mapped and not copied."""

    entries: dict[str, Entry]
    weights: dict[str, np.ndarray]
    metadata: dict[str, Any]
    producer: str
    """What wrote the file: "graphc 0.1.0"."""
    format_version: int
    opset_version: int
    nbytes: int
    """The size of the file."""


def read_package(
    source: str | os.PathLike[str] | BinaryIO, *, check_weights: bool = True, limits: Limits | None = None
) -> Package:
    """Read a `.gcz` file.

    PackageError, a ValueError, with the file's name and the reason if anything in it is not as it should be: damaged,
    inconsistent, larger than `limits`, or newer than this version. OSError if it cannot be opened.

    The weights' checksum is a pass over all of them, at 1 to 2 GB a second; `check_weights=False` spares it.
    """
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "<stream>")
    data = _map(source)
    try:
        return _read(data, limits or Limits(), check_weights)
    except Malformed as error:
        raise PackageError(f"{name}: {error.reason}", hint=error.hint) from None


def _map(source: str | os.PathLike[str] | BinaryIO) -> memoryview:
    if not isinstance(source, (str, os.PathLike)):
        return memoryview(source.read())
    with open(source, "rb") as file:
        if not os.fstat(file.fileno()).st_size:  # an empty file has nothing to map, a pipe no size
            return memoryview(file.read())
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _read(data: memoryview, limits: Limits, check_weights: bool) -> Package:
    members = read_directory(data, limits.members)
    raw_manifest = member_bytes(data, members, MANIFEST, limits.manifest_bytes)
    check_crc(data, members[MANIFEST])
    manifest = strict_json.decode(bytes(raw_manifest), "the manifest", limits.manifest_items)
    check_versions(manifest)
    check_members(manifest, members)
    room = limits.graph_bytes
    for entry in filter(None, map(entry_of, members)):  # before so much is read for its checksum
        room -= len(member_bytes(data, members, graph_member(entry), room))
    for name, expected in manifest["checksums"].items():
        if name != WEIGHTS or check_weights:
            _check_sum(data, members[name], expected)
    contents = upgrade(Contents(manifest, _texts(data, members, limits)))
    manifest = contents.manifest
    check_manifest(manifest)
    raw_weights = member_bytes(data, members, WEIGHTS, len(data))
    weights = tensors.decode(raw_weights, limits.manifest_bytes, limits.manifest_items, limits.weights)
    _share(weights, manifest["shared"], limits)
    entries: dict[str, Entry] = {}
    nodes = 0
    for name, description in manifest["entries"].items():
        entries[name] = _entry(name, description, contents.graphs[name], weights)
        nodes += len(list(entries[name].graph.walk()))
        if nodes > limits.nodes:
            raise Malformed(f"its graphs have more than {limits.nodes} nodes", "raise the limit if you trust the file")
    return Package(
        entries, weights, manifest["metadata"], manifest["producer"], manifest["format_version"],
        manifest["opset_version"], len(data),
    )  # fmt: skip


def _check_sum(data: memoryview, member: Member, expected: Any) -> None:
    if checksum(_pieces(data, member)) != expected:
        raise Malformed(f"{member.name} is damaged: its checksum differs", "copy or download the file again")


def _pieces(data: memoryview, member: Member) -> Iterator[memoryview]:
    """The bytes of a member, piece by piece; what is mapped from a file is in memory for no longer than it is looked at."""
    mapped = data.obj if isinstance(data.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") else None
    end = member.offset + member.size
    for start in range(member.offset, end, _PIECE):
        yield data[start : min(start + _PIECE, end)]
        if mapped is not None:
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, page, min(start + _PIECE, end) - page)


def _texts(data: memoryview, members: Mapping[str, Member], limits: Limits) -> dict[str, str]:
    """The texts of the graphs by their entries, none of them read yet."""
    texts: dict[str, str] = {}
    marks = 0
    for entry in filter(None, map(entry_of, members)):
        raw = bytes(member_bytes(data, members, graph_member(entry), limits.graph_bytes))
        marks += sum(map(raw.count, _MARKS))
        if marks > limits.graph_items:
            raise Malformed(f"its graphs have more than {limits.graph_items} items", "raise the limit if you trust the file")
        try:
            texts[entry] = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed(f"the graph of {entry} is not UTF-8 text") from None
    return texts


def _share(weights: dict[str, np.ndarray], shared: Mapping[str, str], limits: Limits) -> None:
    """Add the weights that are stored under another's name."""
    if len(weights) + len(shared) > limits.weights:
        raise Malformed(f"there are {len(weights) + len(shared)} weights, more than {limits.weights}")
    if shared.keys() & weights.keys() or not weights.keys() >= set(shared.values()):
        raise Malformed("a weight that is stored under another's name has its own, too, or the other is not there")
    weights.update({name: weights[stored] for name, stored in shared.items()})


def _excerpt(text: str) -> str:
    """A message that may quote a megabyte of the file."""
    return text if len(text) <= 2 * _EXCERPT else f"{text[:_EXCERPT]} ... {text[-_EXCERPT:]}"


def _entry(name: str, description: Mapping[str, Any], text: str, weights: Mapping[str, np.ndarray]) -> Entry:
    try:
        graph = parse_graph(text, graph_member(name))
        verify(graph)
    except GraphcError as error:
        raise Malformed(f"the graph of {name} is not valid: {_excerpt(str(error))}") from None
    entry = Entry(graph, description.get("input_structure"), description.get("output_structure"))
    check_entry(name, description, entry)
    for position, weight in entry.weights.items():
        value, array = graph.inputs[position], weights.get(weight)
        if array is None:
            raise Malformed(f"{name} needs the weight {weight!r}, which is not there")
        if not fits(array, value.type):
            found = TensorType(dtype_of(array.dtype), array.shape)
            raise Malformed(f"{name} takes the weight {weight!r} as {value.type}, and it is {found}")
    return entry
