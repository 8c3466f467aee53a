"""How workloads run in each library: a runner loads one, gives it its numbers, and calls it. In the process of a side."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from graphc import script
from graphc.benchmark import workloads
from graphc.benchmark.reachable import Reach, fill, save, to_array
from graphc.errors import ScriptError


@dataclass(frozen=True)
class Task:
    """What is to be measured: a function of a script, or a built-in workload, at a size."""

    name: str
    """The function's, or the workload's."""
    path: str | None = None
    """The script's."""
    size: int | None = None
    trains: bool = False


_PROFILED = 3
"""How many calls are profiled."""


class NotApplicable(ScriptError):
    """A task that a library is not for, which is nobody's fault."""


class Runner:
    """Runs tasks in one library."""

    version: str

    def load(self, task: Task) -> None:
        """Make the function and its inputs."""
        raise NotImplementedError

    def save(self, path: str) -> None:
        """Write the numbers of all tensors that the function can reach."""
        raise NotImplementedError

    def fill(self, path: str) -> None:
        """Take those that another library has written."""
        raise NotImplementedError

    def start(self) -> None:
        """Have it compiled from now on, if that is this side's way."""

    def call(self) -> Any:
        """Call it once, to the end."""
        raise NotImplementedError

    def to_array(self, value: Any) -> np.ndarray | None:
        """A tensor of this library as an array; None if it is no tensor."""
        raise NotImplementedError


class TorchLike(Runner):
    """graphc and PyTorch, on the same code. `torch` and `graphc` in that code are the library at hand, whichever it names."""

    def __init__(self, library: str, compiled: bool, threads: int) -> None:
        self.compiled = compiled
        self.task = Task("")
        self.module: Any = importlib.import_module(library)
        self.module.set_num_threads(threads)
        self.version = importlib.metadata.version(library)
        self._compile = self.module.compile
        stand_in: Any = _torch_for_graphc() if library == "torch" else _graphc_for_torch()
        libraries: tuple[Any, ...] = (self.module, stand_in)
        for each in libraries:
            each.compile = _unchanged  # what is compiled is the function as a whole, and eagerly nothing
        self.function: Callable[..., Any] = _unchanged
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self._tensors: dict[str, Any] = {}

    def load(self, task: Task) -> None:
        self.task = task
        random.seed(0)
        np.random.seed(0)
        self.module.manual_seed(0)
        if task.path is None:
            workload = workloads.find(task.name)
            self.function, self.args = workload.make(self.module, task.size or workload.size)
            roots = {"inputs": self.args, "function": self.function}
            self._tensors = Reach(self.module, modules=(workloads.__name__,)).tensors(roots)
            return
        loaded = script.load(task.path)
        self.function = script.function(loaded, task.name)
        self.args, self.kwargs = script.inputs(loaded, task.name, task.size)
        stem = os.path.basename(task.path).partition(".")[0]
        named = {f"{stem}.{name}": value for name, value in vars(loaded).items() if not name.startswith("__")}
        roots = {"inputs": self.args, "keywords": self.kwargs, **named, "function": self.function}
        self._tensors = Reach(self.module, folder=os.path.dirname(os.path.abspath(task.path))).tensors(roots)

    def save(self, path: str) -> None:
        save(self._tensors, path)

    def fill(self, path: str) -> None:
        with self.module.no_grad():
            problem = fill(self._tensors, path, self.module.from_numpy)
        if problem is not None:
            raise ScriptError(problem, expected="the same tensors in every library")

    def start(self) -> None:
        if self.compiled:
            self.function = self._compile(self.function)

    def call(self) -> Any:
        return self.function(*self.args, **self.kwargs)

    def to_array(self, value: Any) -> np.ndarray | None:
        return to_array(value) if isinstance(value, self.module.Tensor) else None

    def export_onnx(self, path: str) -> None:
        """Write the function as an ONNX model."""
        if self.kwargs:
            raise ScriptError("a function of keyword arguments cannot be exported")
        self.module.onnx.export(self.function, self.args, path)

    def profile(self) -> list[dict[str, Any]]:
        """Where the time of a call goes: by op eagerly, by kernel compiled, the longest first."""
        for _ in range(2):  # what is compiled is profiled from its next call on
            with self.module.profiler.profile() as profile:
                for _ in range(_PROFILED):
                    self.call()
        parts = [
            {"name": event.key, "kind": event.kind, "calls": event.count / _PROFILED, "flops": event.flops / _PROFILED,
             "seconds": event.self_cpu_time_total / 1e6 / _PROFILED}
            for event in profile.key_averages() if event.self_cpu_time_total
        ]  # fmt: skip
        return sorted(parts, key=lambda part: -part["seconds"])

    def work(self) -> tuple[float, float]:
        """The floating-point operations of a call, and the bytes of what it takes, such as parameters, and gives."""
        graph = self.module.trace(lambda *args: self.function(*args, **self.kwargs), self.args).ir
        flops = importlib.import_module("graphc.flops").graph_flops(graph)
        values = [*graph.inputs, *graph.outputs]
        return float(flops), float(sum(value.type.size * value.type.dtype.itemsize for value in values))


class Jax(Runner):
    """Built-in workloads, as they are written for JAX."""

    def __init__(self) -> None:
        self._jax: Any = importlib.import_module("jax")
        self._workloads: Any = importlib.import_module("graphc.benchmark.jax_workloads")
        self.version = self._jax.__version__
        self._task = Task("")
        self._call: Callable[[], Any] = _unchanged

    def load(self, task: Task) -> None:
        if task.path is not None:
            raise NotApplicable("scripts are written for PyTorch, not for JAX")
        if not self._workloads.is_there(task.name):
            raise NotApplicable(f"{task.name} is not written for JAX")
        self._task = task

    def fill(self, path: str) -> None:
        with np.load(path) as tensors:
            self._call = self._workloads.make(self._task.name, tensors)

    def call(self) -> Any:
        return self._jax.block_until_ready(self._call())

    def to_array(self, value: Any) -> np.ndarray | None:
        return np.asarray(value) if isinstance(value, self._jax.Array) else None


class OnnxRuntime(Runner):
    """Models that graphc has exported."""

    def __init__(self, threads: int) -> None:
        self._runtime: Any = importlib.import_module("onnxruntime")
        self.version = self._runtime.__version__
        self._threads = threads
        self._session: Any = None
        self._feed: dict[str, np.ndarray] = {}
        self.model = ""

    def load(self, task: Task) -> None:
        if task.trains:
            raise NotApplicable("onnxruntime does not train")

    def fill(self, path: str) -> None:
        self._path = path

    def start(self) -> None:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        self._session = self._runtime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])
        with np.load(self._path) as tensors:
            given = [tensors[name] for name in tensors if name.startswith("inputs[")]
        wanted = self._session.get_inputs()
        if len(wanted) != len(given):
            raise ScriptError(f"the exported model takes {len(wanted)} inputs instead of {len(given)}")
        self._feed = {one.name: array for one, array in zip(wanted, given, strict=True)}

    def call(self) -> Sequence[np.ndarray]:
        return self._session.run(None, self._feed)

    def to_array(self, value: Any) -> np.ndarray | None:
        return value if isinstance(value, np.ndarray) else None


def runner(library: str, compiled: bool, threads: int) -> Runner:
    if library == "jax":
        return Jax()
    return OnnxRuntime(threads) if library == "onnxruntime" else TorchLike(library, compiled, threads)


def _unchanged(model: Any = None, *args: Any, **options: Any) -> Any:
    """In the place of `compile`, also as a decorator with arguments."""
    return model if model is not None else lambda function: function


def _graphc_for_torch() -> ModuleType:
    """`import torch` gives graphc."""
    importlib.import_module("graphc.as_torch").install()
    return importlib.import_module("torch")


def _torch_for_graphc() -> ModuleType:
    """`import graphc` gives PyTorch, in this process, from now on; what has been imported of graphc itself goes on working."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "graphc"]:
        del sys.modules[name]
    sys.meta_path.insert(0, _TorchForGraphc())
    return importlib.import_module("graphc")


class _TorchForGraphc(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds PyTorch's modules under graphc's name."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if fullname.partition(".")[0] != "graphc":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        name = "torch" + spec.name.removeprefix("graphc")
        name = name.replace("torch.data", "torch.utils.data", 1)
        module = importlib.import_module(name)
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # the import system has just given the module another name's spec: it keeps its own
        assert module.__spec__ is not None
        module.__spec__ = self._specs.pop(module.__spec__.name)

    def __init__(self) -> None:
        self._specs: dict[str, importlib.machinery.ModuleSpec | None] = {}
