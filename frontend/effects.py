"""What a function does besides computing tensors, seen while it is traced: it asks something of the world, or changes
Python's state. A graph does not do that again."""

from __future__ import annotations

import builtins
import dis
import gc
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import BuiltinFunctionType, CodeType, FrameType, ModuleType
from typing import Any

from graphc.errors import Location
from graphc.frontend import world
from graphc.frontend.device import device
from graphc.frontend.guard_text import text
from graphc.frontend.guards import Snapshot
from graphc.frontend.meta import Size
from graphc.frontend.modes import mode
from graphc.frontend.pytree import flatten
from graphc.frontend.survey import KNOWN, PLAIN
from graphc.frontend.symbolic_number import SymbolicNumber
from graphc.frontend.tensor import Tensor
from graphc.types import get_default_dtype

_VALUES = (*PLAIN, Tensor, SymbolicNumber, Size, device, Enum, type, ModuleType, BuiltinFunctionType)
"""Types of results that a graph can give again: those of whose objects one is as good as another."""


@dataclass(frozen=True)
class Effect:
    """One thing that a function did."""

    what: str
    """What it does, as in "calls print"."""
    place: Location | None
    lasting: bool
    """Whether it is going to do so at each call; otherwise it may be something that is done once, such as filling a cache."""

    def __str__(self) -> str:
        return self.what if self.place is None else f"{self.what} at {self.place}"


class Watch:
    """Looks on while a function is traced.

    Where nothing that the function reaches could ask anything of the world, it costs nothing. Otherwise it is told of
    every call by the interpreter, as a profiler is, so that what the function could have done and did not does not count.
    """

    def __init__(self, before: Snapshot) -> None:
        """`before` is the state that the function reaches, as it is now."""
        self._before = before
        self._effects: list[Effect] = [Effect(f"uses {name}", None, True) for name in sorted(before.asks)]
        self._sources = [(text(name), read, read()) for name, read in before.sources]
        self._sources += [(name, read, read()) for name, read in world.global_generators().items()]
        self._modes = _modes()

    @contextmanager
    def looking(self) -> Iterator[None]:
        """While the function runs."""
        if not self._before.suspects:
            yield
        elif sys.getprofile() is not None:  # somebody else is looking
            self._effects += [Effect(f"uses {name}", self._place([name]), True) for name in sorted(self._before.suspects)]
            yield
        else:
            with _collections_apart(self._called):
                yield

    def effects(self, result: Any = None) -> list[Effect]:
        """What was seen, when the function has returned this."""
        found = list(self._effects)
        modes = _modes()
        found += [Effect(f"leaves {name} changed", None, True) for name in modes if modes[name] != self._modes[name]]
        for leaf in flatten(result)[0]:
            if not isinstance(leaf, _VALUES) and id(leaf) not in self._before.reached:
                found.append(Effect(f"returns a {type(leaf).__name__}, which is a new one each time", None, True))
                break
        for name, read, state in self._sources:
            if read() != state:
                found.append(Effect(f"reads from {name}", self._place(name.split(".")), True))
        difference = self._before.difference()
        if difference is not None:
            names = [difference.key] if isinstance(difference.key, str) else []
            found.append(Effect(f"changes Python state ({difference.text})", self._place(names), False))
        return found

    def _called(self, frame: FrameType, event: str, function: Any) -> None:
        """What the interpreter tells."""
        if event == "c_call":
            if _is_users(frame) and world.asks(*world.called(function)):
                self._note(world.called(function), frame)
        elif event == "call":
            caller = frame.f_back
            module = str(frame.f_globals.get("__name__"))
            if module == "logging":  # which functions of it write something depends on levels
                while caller is not None and caller.f_globals.get("__name__") == module:
                    caller = caller.f_back
            if caller is not None and not _is_users(frame) and _is_users(caller):
                name = frame.f_code.co_name
                if world.asks(module, name):
                    self._note((module, name), caller)

    def _note(self, called: tuple[str, str], frame: FrameType) -> None:
        module, name = called
        place = Location(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        full = name if hasattr(builtins, name) else "logging" if module == "logging" else f"{module}.{name}"
        self._effects.append(Effect(f"calls {full}", place, True))

    def _place(self, names: Iterable[Any]) -> Location | None:
        """The first place in the scanned code that mentions one of the names, where it is written to if there is one."""
        wanted = set(names)
        mentions = [
            (not instruction.opname.startswith("STORE"), Location(code.co_filename, line, code.co_name))
            for code in self._before.codes
            for instruction, line in _lines(code)
            if instruction.argval in wanted or (instruction.opname == "LOAD_CONST" and instruction.argval in wanted)
        ]
        return min(mentions, key=lambda found: found[0])[1] if mentions else None


@contextmanager
def _collections_apart(look: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """Have the interpreter tell of the calls in this thread, but for those that the garbage collector makes: it comes at any
    time, and what runs then (other libraries' `gc.callbacks`, finalizers) is nothing that the traced function does."""
    thread = threading.get_ident()

    def begins(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and threading.get_ident() == thread:
            sys.setprofile(None)

    def ends(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and threading.get_ident() == thread:
            sys.setprofile(look)

    gc.callbacks.insert(0, begins)
    gc.callbacks.append(ends)
    sys.setprofile(look)
    try:
        yield
    finally:
        gc.callbacks.remove(ends)
        gc.callbacks.remove(begins)
        sys.setprofile(None)


def _lines(code: CodeType) -> Iterator[tuple[dis.Instruction, int]]:
    """The instructions of a piece of code and of those within it, that have an argument with a hash, with their lines."""
    line = code.co_firstlineno
    for instruction in dis.get_instructions(code):
        line = instruction.starts_line or line
        if isinstance(instruction.argval, (str, int)):
            yield instruction, line
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _lines(constant)


def _modes() -> dict[str, Any]:
    """What a function should leave as it was."""
    return {
        "the grad mode": mode.grad, "inference mode": mode.inference, "autocast": mode.autocast,
        "the default dtype": get_default_dtype(),
    }  # fmt: skip


def _is_users(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] not in KNOWN
