"""Which version of this package's own code runs: what compilations have in common that give the same result."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

from graphc.config import LOADED

_SUFFIXES = (".py", ".ll")
_APART = ("frontend", "backends", "cli", "benchmark", "__pycache__")
"""What no compilation depends on: of the front end it sees the graph. Back ends name their own folders."""


@functools.cache
def sources_key(*folders: str) -> str | None:
    """A digest of the package's code, and of that in `folders`; None where it is not to be found in files, or has been edited
    since it was loaded, so that nobody can tell what runs."""
    import hashlib  # which loads OpenSSL

    digest = hashlib.sha256()
    count = 0
    for folder in (os.path.dirname(__file__), *folders):
        for path in _files(folder):
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_mtime > LOADED:
                    return None
                text = file.read()
            digest.update(f"{path.removeprefix(folder)} {len(text)}\n".encode())
            digest.update(text)
            count += 1
    return digest.hexdigest() if count else None


def _files(folder: str) -> Iterator[str]:
    """The files below a folder, in the same order everywhere."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # the package is in an archive
        return
    for entry in entries:
        if entry.name.endswith(_SUFFIXES):
            yield entry.path
        elif entry.name not in _APART and entry.is_dir():
            yield from _files(entry.path)
