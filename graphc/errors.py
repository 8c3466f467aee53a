"""What graphc raises.

Every message says what was expected, what came, where in the user's code, and how to fix it:

    ShapeError: matmul: inner dimensions differ
      expected: left.shape[1] == right.shape[0]
      got:      3 != 4   (float32[2, 3] @ float32[4, 5])
      at train.py:41 in forward

Each kind also derives from the built-in exception that PyTorch users catch in its place.
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from types import FrameType
from typing import Literal

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_INTERNAL = tuple(
    path + os.sep
    for path in (
        _PACKAGE,
        # In a checkout the two sides live beside the core; in an installed wheel they are inside it.
        os.path.join(os.path.dirname(_PACKAGE), "frontend"),
        os.path.join(os.path.dirname(_PACKAGE), "backends"),
    )
)
_COMMANDS = os.path.join(_PACKAGE, "cli") + os.sep
_Owner = Literal["user", "package", "command"]
_owners: dict[str, _Owner] = {}
"""Whose files are: asked for each op of each trace, of each frame. Python's own import machinery counts as the package's."""


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the user's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        inside = "" if self.function == "<module>" else f" in {self.function}"
        return f"{os.path.basename(self.file)}:{self.line}{inside}"


def user_location() -> Location | None:
    """Where the user's code called into graphc: the innermost frame outside the package. None where a command of graphc's is
    what calls."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        owner = _owners.get(file)
        if owner is None:
            owner = _owners[file] = _owner(file)
        if owner == "user":
            return Location(file, frame.f_lineno, frame.f_code.co_name)
        if owner == "command":
            return None
        frame = frame.f_back
    return None


def _owner(file: str) -> _Owner:
    if file.startswith(_COMMANDS):
        return "command"
    return "package" if file.startswith((*_INTERNAL, "<frozen")) else "user"


def user_traceback(error: BaseException) -> str:
    """A traceback without graphc's own frames, of the errors that led to this one too; empty if there are no other frames."""
    shown = traceback.TracebackException.from_exception(error, compact=True)
    each: traceback.TracebackException | None = shown
    while each is not None:
        each.stack = traceback.StackSummary.from_list([frame for frame in each.stack if _owner(frame.filename) == "user"])
        each = each.__cause__ or each.__context__
    return "".join(shown.format()).rstrip() if shown.stack else ""


class GraphcError(RuntimeError):
    """The base of all errors that graphc raises on purpose.

    `expected`, `got` and `hint` are one line each; `at` defaults to the user's line that led here.
    """

    def __init__(
        self,
        problem: str,
        *,
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
        at: Location | str | None = None,
    ) -> None:
        self.problem, self.expected, self.got, self.hint = problem, expected, got, hint
        self.location = at if at is not None else user_location()
        lines = [problem]
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if got is not None:
            lines.append(f"  got:      {got}")
        if hint is not None:
            lines.append(f"  fix:      {hint}")
        if self.location is not None:
            lines.append(f"  at {self.location}")
        super().__init__("\n".join(lines))


class ShapeError(GraphcError):
    """Operands whose shapes do not fit the operation."""


class DTypeError(GraphcError):
    """Operands whose dtypes do not fit the operation."""


class UnsupportedDTypeError(DTypeError, NotImplementedError):
    """Operands of a dtype that the operation does not exist for."""


class DimError(GraphcError, IndexError):
    """A dimension or an index that the tensor does not have."""


class ArgumentError(GraphcError, ValueError):
    """An argument outside what the operation accepts."""


class ArgumentTypeError(GraphcError, TypeError):
    """An argument of a type that the operation does not accept."""


class UnknownNameError(GraphcError, KeyError):
    """A name under which there is nothing."""


class UnsupportedError(GraphcError, NotImplementedError):
    """A combination of arguments that the operation is not defined on, where PyTorch raises NotImplementedError."""


class LinAlgError(GraphcError):
    """A matrix that the operation is not defined on, or an iteration that does not converge.

    >>> try:
    ...     graphc.linalg.inv(graphc.zeros(2, 2))
    ... except graphc.linalg.LinAlgError:
    ...     print("singular")
    singular
    """


class DivisionByZeroError(GraphcError, ZeroDivisionError):
    """Integers divided by zero."""


class AutogradError(GraphcError):
    """A misuse of automatic differentiation."""


class FreedGraphError(AutogradError):
    """A backward pass over a graph whose saved values are gone."""


class TraceError(GraphcError):
    """Code that cannot be turned into a graph."""


class VerifyError(GraphcError):
    """A graph that breaks a rule of the IR: a bug in a pass, or a hand-written graph that is wrong."""


class RewriteError(GraphcError):
    """Rewriting that does not come to an end."""


class ParseError(GraphcError, ValueError):
    """Text that is not a graph; the message names line and column."""


class CompileError(GraphcError):
    """A back end could not compile a graph."""


class AccuracyError(GraphcError, AssertionError):
    """Compiled code that computes something else than the definitions of the ops: a bug of graphc's."""


class ProfilerError(GraphcError):
    """A misuse of the profiler."""


class BackendError(GraphcError):
    """A back end that does not exist or cannot run here."""


class OutOfMemoryError(GraphcError, MemoryError):
    """A device without enough free memory.

    >>> def step(batch):
    ...     try:
    ...         return graphc.zeros(batch, 1000)
    ...     except graphc.cuda.OutOfMemoryError:
    ...         return step(batch // 2)
    >>> step(4).shape
    graphc.Size([4, 1000])
    """


class ScriptError(GraphcError):
    """A user's script that cannot be used: it fails when it is imported, or lacks what was named."""


class PackageError(GraphcError, ValueError):
    """A saved file that is damaged, not ours, or newer than this version."""
