"""Functions of a user's script, named on the command line as `train.py:step`, and what they are called with.

The script is imported: what is under `if __name__ == "__main__":` does not run. A function without required parameters is
called as it is. Otherwise its inputs are what the script calls `<function>_inputs`, or `inputs`, or `example_inputs`: a tuple
of positional arguments, a dict of keyword arguments, one argument of any other type, or a function that gives one of these.
Such a function may take a size, as in `def inputs(batch=64)`, so that it can be asked for several.

Needs nothing but Python, so that it runs beside other libraries too.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from graphc.errors import ScriptError, user_traceback

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""
_SHARED = ("inputs", "example_inputs")
"""What inputs may be called that are those of all functions without inputs of their own."""
_FORM = "SCRIPT.py:FUNCTION, as in train.py:step"


@dataclass(frozen=True)
class Target:
    """A function of a script, by its name; it may be an attribute of an object, as in `model.py:net.forward`."""

    path: str
    name: str

    @staticmethod
    def parse(text: str) -> Target:
        """
        >>> Target.parse("train.py:step")
        Target(path='train.py', name='step')
        """
        path, colon, name = text.rpartition(":")
        if not colon or not path or not all(part.isidentifier() for part in name.split(".")):
            raise ScriptError(f"{text!r} names no function of a script", expected=_FORM, hint=_functions_hint(text))
        return Target(path, name)

    @staticmethod
    def is_one(text: str) -> bool:
        """Whether a word of the command line is meant as a script, or a function of one."""
        path, _, name = text.rpartition(":")
        return text.endswith(".py") or (path.endswith(".py") and bool(name)) or Path(text).is_file()

    def __str__(self) -> str:
        return f"{self.path}:{self.name}"


def load(path: str) -> ModuleType:
    """Import a script, as Python would from its own folder. ScriptError, with the script's line, where that fails."""
    file = Path(path).absolute()
    if not file.is_file():
        raise ScriptError(f"{path}: there is no such file", expected=_FORM)
    name = file.stem
    while name in sys.modules:  # no module that others import may be replaced
        name += "_"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ScriptError(f"{path}: not a Python file", expected=_FORM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))
    sys.argv[:] = [str(file)]
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        ran = not isinstance(error, (SyntaxError, ImportError))
        hint = 'put what a program does under `if __name__ == "__main__":`' if ran else None
        raise ScriptError(f"{path} cannot be imported: {describe(error, path)}", hint=hint) from error
    return module


def function(module: ModuleType, name: str) -> Callable[..., Any]:
    """A function, or another object that can be called, such as a module of layers."""
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise ScriptError(f"{_file(module)} has no {name}", expected=_functions(module))
        found = getattr(found, part)
    if not callable(found):
        raise ScriptError(f"{name} in {_file(module)} cannot be called", got=f"a {type(found).__name__}",
                          expected=_functions(module))
    if isinstance(found, type):
        raise ScriptError(f"{name} in {_file(module)} is a class", expected="a function, or an object that can be called",
                          hint=f"make one in the script, as in model = {name.rpartition('.')[2]}(), and name that")
    return found


def inputs(module: ModuleType, name: str, size: int | None = None) -> Inputs:
    """What the function of that name is to be called with, for a size if one is wanted."""
    called = function(module, name)
    names = (f"{name.rpartition('.')[2]}_inputs", *_SHARED)
    given = next((each for each in names if each != name and hasattr(module, each)), None)
    required = _required(getattr(called, "forward", called))
    if given is None or (not required and given != names[0]):
        if required:
            raise ScriptError(
                f"{name} in {_file(module)} takes {', '.join(required)}, and nothing says what that is",
                expected=f"a function or a tuple {' or '.join(names)} in the script",
                hint=f"def {names[0]}(): return ({', '.join(['torch.randn(64, 10)'] + ['...'] * (len(required) - 1))},)",
            )
        if size is not None:
            raise ScriptError(f"{name} in {_file(module)} takes no inputs, so it has no size",
                              hint=f"def {names[0]}(size=64): ...")
        return (), {}
    made = getattr(module, given)
    if callable(made) and not hasattr(made, "shape"):
        made = made(*_size(module, given, made, size))
    elif size is not None:
        raise ScriptError(f"{given} in {_file(module)} takes no size", hint=f"def {given}(size=64): ...")
    if isinstance(made, dict):
        return (), made
    return (tuple(made) if isinstance(made, (tuple, list)) else (made,)), {}


@contextmanager
def running(target: Target) -> Iterator[None]:
    """ScriptError, with the script's own frames, where what is run inside the block is the function and fails."""
    try:
        yield
    except ScriptError:
        raise
    except (Exception, SystemExit) as error:
        shown = user_traceback(error)
        if not shown:  # nothing of the script's has failed
            raise
        raise ScriptError(f"{target} has failed\n{shown}") from error


def describe(error: BaseException, path: str) -> str:
    """An error in one line: its kind, what it says, and the innermost line of the script that led to it."""
    file = str(Path(path).absolute())
    text = (str(error).strip() or "no message").splitlines()[0]
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{type(error).__name__}: {error.msg} at {Path(path).name}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not frames:
        return f"{type(error).__name__}: {text}"
    inside = "" if frames[-1].name == "<module>" else f" in {frames[-1].name}"
    return f"{type(error).__name__}: {text} at {Path(path).name}:{frames[-1].lineno}{inside}"


def _size(module: ModuleType, name: str, made: Callable[..., Any], size: int | None) -> tuple[int, ...]:
    parameters = _parameters(made)
    if size is not None and not parameters:
        raise ScriptError(f"{name}() in {_file(module)} takes no size", hint=f"def {name}(size=64): ...")
    if size is None and (required := _required(made)):
        raise ScriptError(f"{name}() in {_file(module)} takes {required[0]}, and no size is wanted",
                          hint=f"def {name}({required[0]}=64): ..., or --sizes 64")
    return () if size is None else (size,)


def _parameters(called: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):  # of some builtins nothing is known
        return []


def _required(called: Callable[..., Any]) -> list[str]:
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in _parameters(called) if p.default is p.empty and p.kind not in fixed]


def _file(module: ModuleType) -> str:
    return Path(module.__file__ or module.__name__).name


def _functions(module: ModuleType) -> str:
    """Which of a script's names could have been meant."""
    own = [name for name, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__]
    names = [name for name in own if not name.startswith("_") and name not in _SHARED and not name.endswith("_inputs")]
    return f"one of {', '.join(names)}" if names else "a function that the script defines"


def _functions_hint(text: str) -> str | None:
    """The functions of a script that was named alone; it is not run for that."""
    import ast

    if not text.endswith(".py") or not Path(text).is_file():
        return None
    try:
        tree = ast.parse(Path(text).read_bytes())
    except (SyntaxError, ValueError):
        return None
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    names = [name for name in names if name not in _SHARED and not name.endswith("_inputs")]
    return f"name one of its functions: {', '.join(f'{text}:{name}' for name in names)}" if names else None
