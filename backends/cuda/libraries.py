"""NVIDIA's libraries: of its own packages for Python, or of the system."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def load(name: str) -> ctypes.CDLL | None:
    """A library, such as "nvrtc"; None where there is none that can be loaded."""
    for path in _candidates(name):
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            continue
    return None


def _version(path: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", path.name.partition(".so" if path.suffix != ".dll" else "64_")[2])))


def _candidates(name: str) -> Iterator[Path | str]:
    package = find_spec("nvidia")
    pattern = f"{name}64_*.dll" if sys.platform == "win32" else f"lib{name}.so*"
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        # the latest version first, of all packages: another library may have brought an older one
        yield from sorted(Path(folder).glob(f"**/{pattern}"), key=lambda path: (_version(path), str(path)), reverse=True)
    system = ctypes.util.find_library(name)
    if system:
        yield system
