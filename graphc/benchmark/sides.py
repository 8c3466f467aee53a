"""Who takes part in a comparison: libraries in their ways of running, and which of them are there."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphc.benchmark.process import WorkerProcess, foreign_worker, own_worker
from graphc.errors import ArgumentError

_MODULE = "graphc.benchmark.participant"


@dataclass(frozen=True)
class Side:
    """One library in one way of running."""

    name: str
    library: str
    compiled: bool
    """Whether there is something to compile, which a later process finds in a cache."""

    @property
    def title(self) -> str:
        return self.name.replace("-", " ", 1)

    def process(self, threads: int, interpreter: str, cache: Path) -> WorkerProcess:
        """A process for it, which keeps compiled code in a folder."""
        variables = {
            "GRAPHC_CACHE_DIR": str(cache), "TORCHINDUCTOR_CACHE_DIR": str(cache), "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "JAX_PLATFORMS": "cpu",
        }  # fmt: skip
        if self.library == "graphc":
            return own_worker(_MODULE, threads=threads, environment=variables)
        return foreign_worker(_MODULE, threads=threads, interpreter=interpreter, environment=variables)


SIDES = (
    Side("graphc-eager", "graphc", False),
    Side("graphc-compiled", "graphc", True),
    Side("torch-eager", "torch", False),
    Side("torch-compile", "torch", True),
    Side("jax", "jax", True),
    Side("onnxruntime", "onnxruntime", True),
)
PEERS = ("torch", "jax", "onnxruntime")


def chosen(text: str | None) -> list[Side]:
    """The sides that a list such as `graphc-eager,torch` names, in that order; a library stands for all its ways."""
    if text is None:
        return list(SIDES)
    found: list[Side] = []
    for name in (part.strip() for part in text.split(",")):
        meant = [side for side in SIDES if name in (side.name, side.library)]
        if not meant:
            raise ArgumentError(f"--sides: there is no side {name!r}", expected=f"some of {', '.join(s.name for s in SIDES)}")
        found += [side for side in meant if side not in found]
    return found


def interpreters(given: Sequence[str]) -> dict[str, str]:
    """Which Python each peer runs in, as `--python torch=PATH` says; by default this one."""
    found = dict.fromkeys(PEERS, sys.executable)
    for each in given:
        peer, equals, path = each.partition("=")
        if not equals or peer not in PEERS:
            raise ArgumentError("--python", expected=f"PEER=PATH, with a peer of {', '.join(PEERS)}", got=repr(each))
        if not Path(path).is_file():
            raise ArgumentError(f"--python {peer}: {path}: there is no such file", expected="the path of a Python")
        found[peer] = path
    return found


def absent(sides: Sequence[Side], pythons: Mapping[str, str]) -> dict[str, str]:
    """The sides that cannot take part, with what to do about it."""
    found = {}
    for library in dict.fromkeys(side.library for side in sides if side.library != "graphc"):
        if _has(pythons[library], library):
            continue
        hint = f"not installed: pip install {library}, or --python {library}=PATH for a Python that has it"
        found.update({side.name: hint for side in sides if side.library == library})
    if any(side.library == "onnxruntime" for side in sides) and "onnxruntime" not in found and not _has(sys.executable, "onnx"):
        found["onnxruntime"] = "models cannot be exported for it: pip install 'graphc[onnx]'"
    return found


def _has(python: str, library: str) -> bool:
    if python == sys.executable:
        return importlib.util.find_spec(library) is not None
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({library!r}) is None)"
    return subprocess.run([python, "-P", "-c", code], capture_output=True, check=False).returncode == 0
