"""Which functions ask something of the world, or do something to it: what they did once says nothing about the next call.

The world is all that is neither an argument nor Python's state: clocks, files, streams, random numbers that are not
graphc's, processes and threads.
"""

from __future__ import annotations

import io
import itertools
import random
import sys
from collections.abc import Callable, Iterator, Set
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

_ALL = frozenset({
    "_asyncio", "_csv", "_ctypes", "_io", "_queue", "_random", "_socket", "_sqlite3", "_thread", "asyncio", "bz2", "cProfile",
    "concurrent", "csv", "ctypes", "curses", "ftplib", "getpass", "glob", "gzip", "http", "io", "linecache", "lzma", "mmap",
    "multiprocessing", "nt", "os", "pathlib", "pdb", "posix", "profile", "pty", "queue", "random", "readline", "resource",
    "sched", "secrets", "select", "selectors", "shutil", "signal", "smtplib", "socket", "sqlite3", "ssl", "subprocess",
    "tarfile", "tempfile", "threading", "time", "timeit", "traceback", "urllib", "webbrowser", "xmlrpc", "zipfile",
    "graphc.frontend.data", "graphc.frontend.serialization", "numpy.random",
})  # fmt: skip
"""Modules, with those below them, all of whose functions do."""
_SOME: dict[str, frozenset[str]] = {
    "builtins": frozenset({"breakpoint", "eval", "exec", "exit", "help", "id", "input", "open", "print", "quit"}),
    "datetime": frozenset({"datetime.now", "datetime.today", "datetime.utcnow", "date.today"}),
    "genericpath": frozenset({"exists", "getatime", "getctime", "getmtime", "getsize", "isdir", "isfile", "samefile"}),
    "graphc.threads": frozenset({"get_num_threads", "set_num_threads"}),
    "inspect": frozenset({"currentframe", "stack", "trace"}),
    "json": frozenset({"dump", "load"}),
    "logging": frozenset({"_log"}),
    "ntpath": frozenset({"abspath", "exists", "expanduser", "expandvars", "isdir", "isfile", "realpath"}),
    "numpy": frozenset({"fromfile", "genfromtxt", "load", "loadtxt", "save", "savetxt", "savez", "savez_compressed"}),
    "pickle": frozenset({"dump", "load"}),
    "_pickle": frozenset({"dump", "load"}),
    "posixpath": frozenset({"abspath", "expanduser", "expandvars", "islink", "ismount", "lexists", "realpath"}),
    "sys": frozenset({"_getframe", "getrecursionlimit", "getrefcount", "setrecursionlimit"}),
    "uuid": frozenset({"getnode", "uuid1", "uuid4"}),
    "_warnings": frozenset({"warn", "warn_explicit"}),
    "warnings": frozenset({"warn", "warn_explicit"}),
}
"""Modules some of whose functions do."""
_NOT = frozenset({
    ("_thread", "RLock"), ("_thread", "lock"), ("_thread", "allocate_lock"), ("_thread", "LockType"), ("threading", "Lock"),
    ("threading", "RLock"), ("os", "fsdecode"), ("os", "fsencode"), ("os", "fspath"), ("os", "getenv"), ("posix", "fspath"),
    ("nt", "fspath"), ("pathlib", "PurePath"), ("pathlib", "PurePosixPath"),
})  # fmt: skip
"""Those of `_ALL` that do not: (module, function or class). The environment's variables are guarded like other state."""


def asks(module: str, name: str) -> bool:
    """Whether a function does, by its module and its name there, of the form `f` or `Class.f`."""
    if name in _SOME.get(module, ()):
        return True
    parents = itertools.accumulate(module.split("."), "{}.{}".format)
    return any(parent in _ALL for parent in parents) and (module, name.partition(".")[0]) not in _NOT


def called(function: Any) -> tuple[str, str]:
    """The module and the name of a function that is called, for `asks`."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__name__", "")
    if isinstance(owner, ModuleType):
        return owner.__name__, name
    if owner is not None and isinstance(function, (BuiltinFunctionType, MethodType)):
        cls = owner if isinstance(owner, type) else type(owner)
        return str(cls.__module__), f"{cls.__name__}.{name}"
    return str(getattr(function, "__module__", "")), name


def may_ask(value: Any, mentioned: Set[str]) -> bool:
    """Whether code that reaches this value, and names these attributes, might ask something of the world."""
    if isinstance(value, (BuiltinFunctionType, FunctionType, MethodType)):
        return asks(*called(value))
    cls = value if isinstance(value, type) else type(value)
    module = str(cls.__module__)
    if module == "logging":
        return True
    if module in _SOME and module != "builtins":
        return any(asks(module, f"{cls.__name__}.{name}") for name in mentioned)
    return asks(module, cls.__name__) and not (isinstance(value, type) and issubclass(value, BaseException))


def names_that_ask(cls: type) -> Set[str]:
    """The attributes of a class and its objects that ask something of the world, where others do not."""
    parts = (name.partition(".") for name in _SOME.get(str(cls.__module__), ()))
    return {attribute for owner, _, attribute in parts if owner == cls.__name__}


# Things whose state shows whether they were used


def is_one_shot(value: Any) -> bool:
    """Whether a value is a generator or another iterator of Python's own, which is used up by reading."""
    return isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools", "_csv")


def state_of(value: Any) -> Callable[[], Any] | None:
    """How to read the state that a source of random numbers or a file has; None for other things."""
    if isinstance(value, random.SystemRandom):
        return None
    if isinstance(value, random.Random):
        return value.getstate
    if isinstance(value, np.random.Generator):
        return lambda: _frozen(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return lambda: _frozen(value.get_state(legacy=False))
    if isinstance(value, io.IOBase):
        return lambda: _position(value)
    return None


def _position(file: io.IOBase) -> Any:
    """Where a file is read or written next."""
    try:
        return None if file.closed or not file.seekable() else file.tell()
    except OSError:  # of a text file that is read line by line, nobody can say
        return object()


def global_generators() -> dict[str, Callable[[], Any]]:
    """The random numbers of the whole process: how to read their state."""
    found: dict[str, Callable[[], Any]] = {"random": random.getstate}
    if "numpy.random" in sys.modules:
        found["numpy.random"] = lambda: _frozen(np.random.get_state(legacy=False))
    return found


def _frozen(state: Any) -> Any:
    """The state of one of NumPy's generators, to compare."""
    if isinstance(state, dict):
        return tuple((key, _frozen(value)) for key, value in state.items())
    return state.tobytes() if isinstance(state, np.ndarray) else state
