"""Run a program written for PyTorch on graphc, as it is.

    python -m graphc.as_torch script.py ARGS

In its process, and in those that it starts with `multiprocessing`, `import torch` gives graphc. `install()` does the same
for a session that is already running, such as a notebook.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

from graphc.errors import GraphcError
from graphc.frontend.torch_modules import TorchFinder

_COMMAND = "graphc.as_torch"
_SCRIPT = "GRAPHC_AS_TORCH"
"""The environment variable that tells processes started by the program which one it is."""


def install() -> None:
    """Let `import torch` give graphc from now on. GraphcError if PyTorch itself has been imported before."""
    if any(isinstance(finder, TorchFinder) for finder in sys.meta_path):
        return
    if "torch" in sys.modules:
        raise GraphcError("install: torch has been imported already", hint="call install() before that, in a new process")
    sys.meta_path.insert(0, TorchFinder())


def main() -> None:
    """Run the script that the command line names, with the arguments that follow it."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-"):
        _usage()
    script = os.path.abspath(arguments[0])
    if not os.path.isfile(script):
        print(f"{_COMMAND}: no file {arguments[0]!r}", file=sys.stderr)
        sys.exit(2)
    install()
    sys.argv[:] = arguments
    if not sys.flags.safe_path:
        sys.path[0] = os.path.dirname(script)
    os.environ[_SCRIPT] = script
    # what it defines is looked up in __main__, by pickle for one; processes that multiprocessing spawns import `_COMMAND`
    module = ModuleType("__main__")
    module.__file__ = script
    module.__spec__ = ModuleSpec(_COMMAND, None, origin=script)
    sys.modules["__main__"] = module
    _execute(script, module.__dict__)


def run_in_child(namespace: dict[str, object]) -> None:
    """Define in `namespace` what the program defines, in a process that it has spawned."""
    install()
    _execute(os.environ[_SCRIPT], namespace)


def _execute(script: str, namespace: dict[str, object]) -> None:
    with open(script, "rb") as file:
        code = compile(file.read(), script, "exec")
    exec(code, namespace)


def _usage() -> NoReturn:
    print(f"usage: python -m {_COMMAND} script.py [arguments of the script]", file=sys.stderr)
    sys.exit(2)


if __name__ in ("__main__", "__mp_main__"):
    from graphc.frontend import as_torch  # this copy of the file goes by another name

    if __name__ == "__main__":
        as_torch.main()
    else:
        as_torch.run_in_child(globals())
