"""A function of a script profiled in both ways of running, eagerly and compiled."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from graphc import script

_WARM_UP = 3
"""Calls before: in the first one a function is traced, and from the third one on it is called natively."""


@dataclass(frozen=True)
class BothModes:
    """The profiles, as `graphc.profiler` makes them."""

    eager: Any
    compiled: Any

    def write(self, path: str) -> None:
        """Write them as one trace, for https://ui.perfetto.dev."""
        importlib.import_module("graphc.profiler").export_chrome_trace(path, {"eager": self.eager, "compiled": self.compiled})


def profile(target: script.Target, calls: int = 3, size: int | None = None) -> BothModes:
    """Call a function of a script a few times in each way, with the inputs that the script gives it.

    For a process of its own: `import torch` gives graphc from then on, and what the script asks to be compiled meanwhile is
    not, on any thread. What the function changes, it goes on changing. ScriptError where it fails.
    """
    public: Any = importlib.import_module("graphc")
    importlib.import_module("graphc.as_torch").install()
    compile_ = public.compile
    # what is compiled is the function as a whole, and eagerly nothing
    public.compile = _unchanged
    stand_in: Any = importlib.import_module("torch")
    stand_in.compile = _unchanged
    try:
        module = script.load(target.path)
        function = script.function(module, target.name)
        profiles = []
        with script.running(target):
            args, keywords = script.inputs(module, target.name, size)
            for called in (function, compile_(function)):
                for _ in range(_WARM_UP):
                    called(*args, **keywords)
                with public.profiler.profile() as made:
                    for _ in range(calls):
                        called(*args, **keywords)
                profiles.append(made)
    finally:
        public.compile = stand_in.compile = compile_
    return BothModes(*profiles)


def _unchanged(model: Any = None, *args: Any, **options: Any) -> Any:
    """In the place of `compile`, also as a decorator with arguments."""
    return model if model is not None else lambda function: function
