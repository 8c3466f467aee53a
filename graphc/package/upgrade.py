"""Versions of the format: files of older ones are brought up to date, files of newer ones refused.

`FORMAT_VERSION` counts changes of the archive and of the manifest; `OPSET_VERSION` changes of what ops mean. Whoever
raises the first adds a step here and a golden file of the old version to the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphc.package.archive import Malformed

FORMAT_VERSION = 2
OPSET_VERSION = 1


@dataclass(frozen=True)
class Contents:
    """What a file says before it is given meaning: the manifest, and each entry's graph as text."""

    manifest: dict[str, Any]
    graphs: dict[str, str]


def _shared_weights(contents: Contents) -> Contents:
    """Format 2 stores equal weights once, and has weights that change from call to call."""
    return Contents({**contents.manifest, "shared": {}}, contents.graphs)


STEPS: dict[int, Callable[[Contents], Contents]] = {1: _shared_weights}
"""`STEPS[n]` turns the contents of a file of format n into those of format n + 1."""


def check_versions(manifest: dict[str, Any]) -> None:
    """Malformed for what is not a manifest of graphc's, or is newer than this version."""
    if manifest.get("format") != "graphc":
        raise Malformed("its manifest is not one of graphc's")
    for key, ours in (("format_version", FORMAT_VERSION), ("opset_version", OPSET_VERSION)):
        version = manifest.get(key)
        if type(version) is not int or version < 1:
            raise Malformed(f"{key} is missing in the manifest, or is not a positive integer")
        if version > ours:
            producer = manifest.get("producer")
            by = f" by {producer}" if isinstance(producer, str) and len(producer) < 100 else ""
            name = {"format_version": "format", "opset_version": "op set"}[key]
            raise Malformed(f"it was written{by} in {name} {version}, and this version of graphc reads up to {name} {ours}",
                            "update graphc: pip install -U graphc")


def upgrade(contents: Contents) -> Contents:
    """The contents in this version's form."""
    for version in range(contents.manifest["format_version"], FORMAT_VERSION):
        contents = STEPS[version](contents)
    return contents
