"""The knobs. Each has an environment variable for its default; `override` changes some for a while.

>>> from graphc.config import config, override
>>> with override(debug=1):
...     config.debug
1
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from graphc.errors import ArgumentError

LOADED = time.time()
"""When this process began to load the package."""

NUMERICS = ("strict", "high", "fast")
"""How exactly float32 may be computed with: see `graphc.numerics`."""


def _integer(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise ArgumentError(
            f"environment variable {name}", expected="an integer", got=repr(text), hint=f"unset {name} or correct it"
        ) from None


def _cache_directory() -> Path | None:
    """`GRAPHC_CACHE_DIR`, or the platform's folder for caches; None where caching is switched off."""
    chosen = os.environ.get("GRAPHC_CACHE_DIR")
    if chosen is not None:
        return None if chosen in ("", "off") else Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/AppData/Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "graphc"


@dataclass
class Config:
    """The settings in force. Change them with `override`, or for the whole process by assignment."""

    debug: int
    """`GRAPHC_DEBUG`. 1: passes with their times and rewrite counts, and compile times; 2: the graph after each
    pass; 3: the kernels; 4: the generated code."""
    backend: str
    """`GRAPHC_BACKEND`: what compiled functions run on, "llvm" or "reference"."""
    cache_dir: Path | None
    """`GRAPHC_CACHE_DIR`: where compiled code is kept between processes; None (`off`) keeps nothing."""
    cache_size: int
    """`GRAPHC_CACHE_SIZE`: how many bytes the disk cache may hold."""
    cpu: str
    """`GRAPHC_CPU`: generate code for this CPU ("native", "x86-64", "haswell", ...)."""
    verify: bool
    """`GRAPHC_VERIFY=1`: verify the graph after every pass."""
    fuel: int
    """`GRAPHC_FUEL=n`: stop rewriting a graph after n rewrites, over all passes; -1 does not. `graphc bisect` finds the n from
    which on a result is wrong."""
    retrace: bool
    """`GRAPHC_RETRACE=0`: a compiled function that would have to be traced again raises an error that says why."""
    fuse_eager: bool
    """`GRAPHC_FUSE_EAGER=0`: run eager code op by op: no native code for functions such as softmax, for elementwise ops on
    large tensors and for the updates of optimizers."""

    numerics: str
    """`GRAPHC_NUMERICS`: one of `NUMERICS`, for what is compiled from now on. See `graphc.numerics`."""

    prepare_weights: bool
    """`GRAPHC_PREPARE_WEIGHTS=0`: compute at each call of a compiled function what depends on weights alone, and pack them anew
    for each product. It is slower, and takes less memory: what is kept takes up to about twice that of the weights."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "numerics":
            check_numerics(value, "GRAPHC_NUMERICS, config.numerics")
            value = sys.intern(value)  # native code looks whether it is the same object
        object.__setattr__(self, name, value)


def check_numerics(numerics: object, where: str) -> None:
    """ArgumentError for what is none of `NUMERICS`."""
    if numerics not in NUMERICS:
        raise ArgumentError(f"{where}: no such numerics", expected=f"one of {', '.join(map(repr, NUMERICS))}",
                            got=repr(numerics))


def _from_environment() -> Config:
    return Config(
        debug=_integer("GRAPHC_DEBUG", 0),
        backend=os.environ.get("GRAPHC_BACKEND") or "llvm",
        cache_dir=_cache_directory(),
        cache_size=_integer("GRAPHC_CACHE_SIZE", 1 << 30),
        cpu=os.environ.get("GRAPHC_CPU") or "native",
        verify=bool(_integer("GRAPHC_VERIFY", 0)),
        fuel=_integer("GRAPHC_FUEL", -1),
        retrace=bool(_integer("GRAPHC_RETRACE", 1)),
        fuse_eager=bool(_integer("GRAPHC_FUSE_EAGER", 1)),
        numerics=os.environ.get("GRAPHC_NUMERICS") or "strict",
        prepare_weights=bool(_integer("GRAPHC_PREPARE_WEIGHTS", 1)),
    )


config = _from_environment()


def note(level: int, *parts: object) -> None:
    """Print to standard error where `config.debug` is at least `level`."""
    if config.debug >= level:
        print(*parts, file=sys.stderr, flush=True)


@contextmanager
def override(**settings: Any) -> Iterator[Config]:
    """Change settings inside a `with` block; an unknown name is an ArgumentError."""
    known = {field.name for field in fields(Config)}
    for name in settings:
        if name not in known:
            raise ArgumentError(f"config: no setting {name!r}", expected=f"one of {', '.join(sorted(known))}")
    before = {name: getattr(config, name) for name in settings}
    for name, value in settings.items():
        setattr(config, name, value)
    try:
        yield config
    finally:
        for name, value in before.items():
            setattr(config, name, value)
