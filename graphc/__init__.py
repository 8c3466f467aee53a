"""graphc: an eager, PyTorch-style front end over a static-graph tensor compiler.

The public names live in the front end and are imported on first use, so that `import graphc` costs next to nothing and
a program that only runs saved graphs never loads the front end. This is the one place of the core that names it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys

TYPE_CHECKING = False  # typing's, which takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any

    from graphc.frontend.api import *  # noqa: F403

__version__ = "0.1.0"

_FRONTEND = "graphc.frontend."
_MODULES = frozenset((
    "amp", "as_torch", "autograd", "cuda", "data", "distributions", "fft", "func", "jit", "linalg", "multiprocessing", "nn",
    "onnx", "optim", "profiler", "random", "return_types", "signal", "special", "testing", "utils",
))
"""The front end's modules that are public: `graphc.nn` is `graphc.frontend.nn`."""
_MOVED = {"utils.checkpoint": "checkpoint", "utils.data": "data"}
"""Those that are public under another name too."""


class _Alias:
    """Makes `import graphc.nn.functional` the very module `graphc.frontend.nn.functional`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, rest = fullname.partition(".")
        if package != __name__ or rest.partition(".")[0] not in _MODULES:
            return None
        for other, own in _MOVED.items():
            if f"{rest}.".startswith(f"{other}."):
                rest = own + rest[len(other) :]
        return importlib.machinery.ModuleSpec(fullname, self, origin=_FRONTEND + rest)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        if spec.origin is None:
            raise ImportError(f"not one of graphc's modules: {spec.name}")
        try:
            module = importlib.import_module(spec.origin)
        except ModuleNotFoundError as error:
            if error.name == spec.origin:
                raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name) from None
            raise
        self._specs[spec.name] = module.__spec__
        return module

    def get_code(self, name: str) -> CodeType | None:
        """What `python -m` runs."""
        import importlib.util

        spec = self.find_spec(name)
        loader = None if spec is None else importlib.util.find_spec(str(spec.origin)).loader  # type: ignore[union-attr]
        return loader.get_code(loader.name) if isinstance(loader, importlib.machinery.SourceFileLoader) else None

    def exec_module(self, module: ModuleType) -> None:
        # the import system has just given the module the alias's spec: it keeps its own
        alias = module.__spec__
        if alias is not None:
            module.__spec__ = self._specs.pop(alias.name)
            # so are its parts: importing one later must not put it in the place of the function that has its name
            own = f"{module.__name__}."
            for name in [name for name in sys.modules if name.startswith(own)]:
                sys.modules.setdefault(f"{alias.name}.{name.removeprefix(own)}", sys.modules[name])

    def __init__(self) -> None:
        self._specs: dict[str, importlib.machinery.ModuleSpec | None] = {}


sys.meta_path.insert(0, _Alias())


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if importlib.machinery.PathFinder.find_spec(f"{__name__}.{name}", sys.modules[__name__].__path__) is not None:
        return importlib.import_module(f"{__name__}.{name}")  # a module of the core, as in `from graphc import ops`
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    api = importlib.import_module("graphc.frontend.api")
    try:
        value = getattr(api, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{api.hint(name)}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    api = importlib.import_module("graphc.frontend.api")
    helpers = {"TYPE_CHECKING", "annotations", "importlib", "sys"}
    return sorted({*globals(), *api.__all__, *_MODULES} - helpers)
