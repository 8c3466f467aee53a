"""`manifest.json`: what the file is, which version wrote it, what each entry takes and gives, and checksums.

The graphs say the same of inputs and outputs; the manifest says it to programs that do not read graphs. On reading, the
two are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from graphc.package.archive import Malformed
from graphc.package.entry import NEXT, Entry, updates_violation, weight_name
from graphc.package.structure import check, check_call
from graphc.package.upgrade import FORMAT_VERSION, OPSET_VERSION

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")


def graph_member(entry: str) -> str:
    """The name of the member that holds an entry's graph."""
    return f"graphs/{entry}.gir"


def is_entry_name(name: str) -> bool:
    """Whether an entry may be called so: it is part of a file's name."""
    return _ENTRY.fullmatch(name) is not None


def checksum(parts: Iterable[memoryview]) -> str:
    """SHA-256 of the parts, one after another."""
    import hashlib  # which loads OpenSSL

    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def make_manifest(
    entries: Mapping[str, Entry], shared: Mapping[str, str], checksums: Mapping[str, str], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest of a file with these entries and members; `shared` are weights that are stored under another's name."""
    from importlib.metadata import version  # slow to import, and reading needs it not

    return {
        "format": "graphc",
        "format_version": FORMAT_VERSION,
        "opset_version": OPSET_VERSION,
        "producer": f"graphc {version('graphc')}",
        "entries": {name: _describe(entry) for name, entry in entries.items()},
        "shared": dict(shared),
        "checksums": dict(checksums),
        "metadata": dict(metadata),
    }


def entry_of(member: str) -> str | None:
    """The entry whose graph a member holds; None for a member that holds none."""
    name = member.removeprefix("graphs/").removesuffix(".gir")
    return name if member == graph_member(name) and is_entry_name(name) else None


def check_members(manifest: Mapping[str, Any], members: Iterable[str]) -> None:
    """Malformed where a member has a name that no member has, or the manifest lists other members than there are."""
    others = set(members) - {MANIFEST}
    for name in sorted(others):
        if name != WEIGHTS and entry_of(name) is None:
            raise Malformed(f"it has a member {name!r}, which no file of graphc's has")
    checksums = manifest.get("checksums")
    if not isinstance(checksums, dict) or set(checksums) != others:
        raise Malformed("the manifest lists other members than there are")


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Malformed where the manifest is not of this version's form."""
    for key, kind in {"producer": str, "entries": dict, "shared": dict, "checksums": dict, "metadata": dict}.items():
        if not isinstance(manifest.get(key), kind):
            raise Malformed(f"{key} is missing in the manifest, or is not a {kind.__name__}")
    entries = manifest["entries"]
    if not entries or not all(is_entry_name(name) and isinstance(entry, dict) for name, entry in entries.items()):
        raise Malformed("the manifest's entries are not named descriptions")
    if not all(isinstance(stored, str) for stored in manifest["shared"].values()):
        raise Malformed("the weights that are stored under another's name are not listed as names")
    if set(manifest["checksums"]) != {graph_member(name) for name in entries} | {WEIGHTS}:
        raise Malformed("the manifest's entries are not those of its graphs")


def check_entry(name: str, description: Mapping[str, Any], entry: Entry) -> None:
    """Malformed where the manifest says of an entry what its graph does not."""
    if (problem := updates_violation(entry)) is not None:
        raise Malformed(f"{name}: {problem}")
    if entry.inputs is not None:
        check_call(entry.inputs, len(entry.arguments), f"the nesting of the inputs of {name}")
    if entry.outputs is not None:
        check(entry.outputs, len(entry.results), f"the nesting of the outputs of {name}")
    if _describe(entry) != description:
        raise Malformed(f"the manifest and the graph of {name} differ in inputs or outputs")


def _describe(entry: Entry) -> dict[str, Any]:
    graph = entry.graph
    names = graph.output_names or ()
    inputs: list[dict[str, Any]] = []
    for value in graph.inputs:
        described = {"name": value.name, "type": str(value.type)}
        if (weight := weight_name(value)) is not None:
            described["weight"] = weight
            if NEXT in value.info:
                described["next"] = names[value.info[NEXT]]
        inputs.append(described)
    outputs = [{"name": name, "type": str(value.type)} for name, value in zip(names, graph.outputs)]
    return {"inputs": inputs, "outputs": outputs, "input_structure": entry.inputs, "output_structure": entry.outputs}
