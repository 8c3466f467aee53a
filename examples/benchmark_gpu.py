"""Compare graphc on an NVIDIA GPU with PyTorch, eager and compiled, and with JAX: the same computations, in one run.

    python examples/benchmark_gpu.py
    python examples/benchmark_gpu.py --workloads softmax,matmul --sides graphc,torch --plot speed.png
    python examples/benchmark_gpu.py --device cpu --scale 0.001      # without a GPU: to see that it works

Times are those of the GPU between two events, the best of several rounds. graphc replays CUDA graphs by itself; PyTorch's
calls, eager ones too, are captured in one and replayed; JAX has no such control, so of it the host's clock is read. Each call
gets other inputs, more of them than the level-2 cache holds. The results of all sides are compared: a line whose results differ
is marked, and the script ends with status 1, as it does where a side fails, whose error is printed before the others go on.
Percentages are of the limit: of the speed at which the GPU copies memory, as measured here, or of what `--peak` says of its
tensor cores. The side graphc-kernels leaves no product to cuBLAS.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import sys
import time
import traceback
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from graphc import compiler
from graphc.backends.cuda import products

_MODELS = Path(__file__).parent / "models"
_CACHE = 50 << 20
"""Bytes of the level-2 cache of an H100."""
_MOST_INPUTS = 16


@dataclass(frozen=True)
class Workload:
    """A computation. `function(library)` is for graphc and for torch, whose names are the same; `inputs` are of float32 or
    int64, and floats are cast to `dtype`. It moves `nbytes` at the least, or takes `flops`."""

    name: str
    inputs: Callable[[np.random.Generator], Sequence[np.ndarray]]
    function: Callable[[Any], Callable[..., Any]]
    jax: Callable[[Any], Callable[..., Any]] | None = None
    dtype: str = "float32"
    nbytes: int = 0
    flops: float = 0
    tolerance: float = 1e-3


def _numbers(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], Sequence[np.ndarray]]:
    return lambda rng: [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def workloads(scale: float = 1.0) -> list[Workload]:
    """All of them, with `scale` times as many rows, at least one."""

    def rows(count: int) -> int:
        return max(1, int(count * scale))

    n, side = rows(16384), max(64, int(4096 * scale ** (1 / 3)) // 64 * 64)
    wide, length, heads = 4096, max(64, int(2048 * math.sqrt(scale)) // 64 * 64), 16
    batch, matrix, square = rows(8), n * wide, (side, side)
    time_ = length // 2

    def gpt(name: str, train: bool, sequences: int) -> Workload:
        sizes = {} if scale >= 1 else {"n_layer": 1, "n_head": 2, "n_embd": 32, "vocab_size": 500}
        return _model(f"GPT-2, {name}", "gpt", lambda m: m.GPT(m.GPTConfig(**sizes)), train, (sequences, time_ + 1))

    def resnet(name: str, train: bool, images: int) -> Workload:
        size = 224 if scale >= 1 else 32
        return _model(f"ResNet-18, {name}", "resnet", lambda m: m.resnet18(), train, (images, 3, size, size))

    return [
        Workload("copy", _numbers((n, wide)), lambda T: lambda x: x.clone(), lambda J: lambda x: J.copy(x), nbytes=8 * matrix),
        Workload("x * y + z", _numbers(*[(n, wide)] * 3), lambda T: lambda x, y, z: x * y + z,
                 lambda J: lambda x, y, z: x * y + z, nbytes=16 * matrix),
        Workload("gelu, bfloat16", _numbers((n, wide)), lambda T: lambda x: T.nn.functional.gelu(x),
                 lambda J: lambda x: _jax().nn.gelu(x, approximate=False), "bfloat16", nbytes=4 * matrix, tolerance=2e-2),
        Workload("softmax", _numbers((n, wide)), lambda T: lambda x: x.softmax(1),
                 lambda J: lambda x: _jax().nn.softmax(x, 1), nbytes=8 * matrix),
        Workload("layer norm", _numbers((n, wide)), lambda T: lambda x: T.nn.functional.layer_norm(x, (wide,)),
                 _layer_norm_of_jax, nbytes=8 * matrix),
        Workload("sum of rows", _numbers((n, wide)), lambda T: lambda x: x.sum(1), lambda J: lambda x: x.sum(1),
                 nbytes=4 * matrix),
        Workload("sum of columns", _numbers((n, wide)), lambda T: lambda x: x.sum(0), lambda J: lambda x: x.sum(0),
                 nbytes=4 * matrix),
        Workload("matmul", _numbers(square, square), lambda T: lambda x, y: x @ y,
                 lambda J: lambda x, y: J.matmul(x, y, precision="highest"), flops=2 * side**3),
        Workload("matmul, bfloat16", _numbers(square, square), lambda T: lambda x, y: x @ y, lambda J: lambda x, y: x @ y,
                 "bfloat16", flops=2 * side**3, tolerance=2e-2),
        Workload("relu(x @ y.T + b), bfloat16", _numbers(square, square, (side,)),
                 lambda T: lambda x, y, b: T.relu(x @ y.T + b), lambda J: lambda x, y, b: J.maximum(x @ y.T + b, 0), "bfloat16",
                 flops=2 * side**3, tolerance=2e-2),
        Workload("causal attention, bfloat16", _numbers(*[(batch, heads, length, 64)] * 3),
                 lambda T: lambda q, k, v: T.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
                 _attention_of_jax, "bfloat16", flops=2 * batch * heads * length**2 * 64, tolerance=2e-2),
        Workload("gradient of an embedding", lambda rng: [rng.integers(0, wide, n), rng.standard_normal((n, 768), np.float32)],
                 lambda T: lambda i, g: T.zeros(wide, 768, device=g.device).index_add(0, i, g),
                 lambda J: lambda i, g: J.zeros((wide, 768)).at[i].add(g), nbytes=4 * 768 * (n + 2 * wide)),
        resnet("1 image", False, 1),
        resnet(f"{rows(32)} images", False, rows(32)),
        resnet(f"training step on {max(2, rows(32))} images", True, max(2, rows(32))),
        gpt(f"{time_} tokens", False, 1),
        gpt(f"{rows(32)} x {time_} tokens", False, rows(32)),
        gpt(f"training step on {batch} x {time_} tokens", True, batch),
    ]  # fmt: skip


def _layer_norm_of_jax(library: Any) -> Callable[..., Any]:
    return lambda x: (x - x.mean(1, keepdims=True)) / library.sqrt(x.var(1, keepdims=True) + 1e-5)


def _attention_of_jax(library: Any) -> Callable[..., Any]:
    del library
    attend = _jax().nn.dot_product_attention
    return lambda *heads: attend(*(x.swapaxes(1, 2) for x in heads), is_causal=True).swapaxes(1, 2)


def _jax() -> Any:
    import jax

    return jax


# Models: those of examples/models, of which PyTorch gets the same text


def _module(library: Any, name: str) -> types.ModuleType:
    text = (_MODELS / f"{name}.py").read_text().replace("graphc", library.__name__)
    module = types.ModuleType(f"{library.__name__}_{name}")
    sys.modules[module.__name__] = module  # where dataclasses look for their module
    exec(compile(text, f"{name}.py", "exec"), module.__dict__)
    return module


def _model(name: str, file: str, make: Callable[[Any], Any], train: bool, shape: tuple[int, ...]) -> Workload:
    def inputs(rng: np.random.Generator) -> Sequence[np.ndarray]:
        if len(shape) == 2:
            tokens = rng.integers(0, 500, shape)
            return [tokens[:, :-1].copy(), tokens[:, 1:].copy()]
        return [rng.standard_normal(shape, dtype=np.float32), rng.integers(0, 1000, shape[0])]

    def function(library: Any) -> Callable[..., Any]:
        graphc.manual_seed(0)
        weights = {key: value.numpy() for key, value in make(_module(graphc, file)).state_dict().items()}
        model = make(_module(library, file))
        model.load_state_dict({key: library.from_numpy(value.copy()) for key, value in weights.items()})
        model.train(train)
        loss_of = library.nn.functional.cross_entropy

        def infer(x: Any, y: Any) -> Any:
            del y
            with library.no_grad():
                return model(x)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = loss_of(model(x).flatten(0, -2), y.flatten())
            loss.backward()
            optimizer.step()
            return loss

        run = step if train else infer
        run.model = model  # type: ignore[attr-defined]
        optimizer = library.optim.SGD(model.parameters(), lr=1e-3)
        return run

    return Workload(name, inputs, function, tolerance=2e-2)


# Sides


class Graphc:
    """graphc.compile."""

    name = "graphc"

    def __init__(self, device: str) -> None:
        self.device = device

    def missing(self) -> str:
        """Why it cannot run; empty where it can."""
        if self.device == "cpu" or graphc.cuda.is_available():
            return ""
        return "graphc finds no GPU: pip install 'graphc[cuda]', and see whether nvidia-smi shows one"

    def load(self, workload: Workload, inputs: Sequence[Sequence[np.ndarray]]) -> Callable[[int], Any]:
        """A function that computes with the i-th inputs."""
        function = _placed(workload.function(graphc), self.device)
        tensors = [_tensors(graphc, each, workload.dtype, self.device) for each in inputs]
        compiler.clear_cache()  # in which the other side's code is
        compiled = graphc.compile(function)
        return lambda i: compiled(*tensors[i])

    def array(self, result: Any) -> np.ndarray:
        """A result's numbers."""
        return np.asarray(result.detach().float().cpu().numpy())

    def seconds(self, call: Callable[[int], Any], count: int) -> float:
        """What a call takes, of so many with different inputs."""
        if self.device == "cpu":
            return _by_clock(call, count, lambda result: result)
        start, end = (graphc.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for i in range(count):
            call(i)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / count

    def release(self) -> None:
        """Leave the GPU's memory to the next side."""
        compiler.clear_cache()
        gc.collect()
        graphc.cuda.empty_cache()


class GraphcKernels(Graphc):
    """graphc.compile without cuBLAS: where that is as fast, estimates in graphc.backends.cuda.products are to be changed."""

    name = "graphc-kernels"

    def load(self, workload: Workload, inputs: Sequence[Sequence[np.ndarray]]) -> Callable[[int], Any]:
        """A function that computes with the i-th inputs."""
        call = super().load(workload, inputs)

        def run(i: int) -> Any:
            before, products.THEIRS = products.THEIRS, dict.fromkeys(products.THEIRS, 0.0)
            try:
                return call(i)
            finally:
                products.THEIRS = before

        return run


class Torch:
    """PyTorch."""

    name = "torch"
    compiled = False

    def __init__(self, device: str) -> None:
        self.device = device

    def missing(self) -> str:
        """Why it cannot run; empty where it can."""
        try:
            import torch
        except ImportError:
            return "PyTorch is not installed: pip install torch"
        return "" if self.device == "cpu" or torch.cuda.is_available() else "PyTorch finds no GPU: torch.cuda.is_available()"

    def load(self, workload: Workload, inputs: Sequence[Sequence[np.ndarray]]) -> Callable[[int], Any]:
        """A function that computes with the i-th inputs."""
        import torch

        function = _placed(workload.function(torch), self.device)
        tensors = [_tensors(torch, each, workload.dtype, self.device) for each in inputs]
        if self.compiled:
            torch._dynamo.reset()
            function = torch.compile(function)
        return lambda i: function(*tensors[i])

    def array(self, result: Any) -> np.ndarray:
        """A result's numbers."""
        return np.asarray(result.detach().float().cpu().numpy())

    def seconds(self, call: Callable[[int], Any], count: int) -> float:
        """What a call takes, of so many with different inputs, replayed as one CUDA graph."""
        import torch

        if self.device == "cpu":
            return _by_clock(call, count, lambda result: result)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(count):
                call(i)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph.replay()
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / count

    def release(self) -> None:
        """Leave the GPU's memory to the next side."""
        import torch

        if self.compiled:
            torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()


class TorchCompiled(Torch):
    """torch.compile."""

    name = "torch.compile"
    compiled = True


class Jax:
    """jax.jit."""

    name = "jax"

    def __init__(self, device: str) -> None:
        self.device = device

    def missing(self) -> str:
        """Why it cannot run; empty where it can."""
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else most of the memory is JAX's from now on
        try:
            import jax
        except ImportError:
            return "JAX is not installed: pip install 'jax[cuda13]'"
        if self.device == "cpu" or any(device.platform == "gpu" for device in jax.devices()):
            return ""
        return "JAX finds no GPU: pip install 'jax[cuda13]'"

    def load(self, workload: Workload, inputs: Sequence[Sequence[np.ndarray]]) -> Callable[[int], Any] | None:
        """A function that computes with the i-th inputs; None where the workload has none for JAX."""
        if workload.jax is None:
            return None
        import jax

        function = jax.jit(workload.jax(jax.numpy))
        arrays = [[jax.numpy.asarray(a, workload.dtype if a.dtype.kind == "f" else None) for a in each] for each in inputs]
        return lambda i: function(*arrays[i])

    def array(self, result: Any) -> np.ndarray:
        """A result's numbers."""
        return np.asarray(result, np.float32)

    def seconds(self, call: Callable[[int], Any], count: int) -> float:
        """What a call takes, of so many with different inputs, by the host's clock."""
        return _by_clock(call, count, lambda result: result.block_until_ready())

    def release(self) -> None:
        """Leave the GPU's memory to the next side."""
        _jax().clear_caches()
        gc.collect()


SIDES = {side.name: side for side in (Graphc, GraphcKernels, Torch, TorchCompiled, Jax)}


def _placed(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    model = getattr(function, "model", None)
    if model is not None:
        model.to(device)
    return function


def _tensors(library: Any, arrays: Sequence[np.ndarray], dtype: str, device: str) -> list[Any]:
    tensors = [library.from_numpy(array).to(device) for array in arrays]
    return [t.to(getattr(library, dtype)) if t.dtype.is_floating_point else t for t in tensors]


def _by_clock(call: Callable[[int], Any], count: int, wait: Callable[[Any], Any]) -> float:
    start = time.perf_counter()
    for i in range(count):
        result = call(i)
    wait(result)
    return (time.perf_counter() - start) / count


# Measuring


@dataclass
class Figure:
    """What one side took for one workload, in seconds: a call, and the first call; for ever where it failed. How far its result
    is from the others'."""

    workload: Workload
    side: str
    seconds: float
    first: float
    error: float


def measure(workload: Workload, sides: Sequence[Any], rounds: int) -> list[Figure]:
    """All sides on the same inputs, of which there are more than the cache holds; a side without the workload has no figure."""
    rng = np.random.default_rng(0)
    inputs = [workload.inputs(rng)]
    nbytes = sum(a.nbytes for a in inputs[0])
    count = max(2, min(_MOST_INPUTS, math.ceil(2 * _CACHE / nbytes)))
    inputs += [workload.inputs(rng) for _ in range(count - 1)]
    figures: list[Figure] = []
    expected: np.ndarray | None = None
    for side in sides:
        try:
            found = _measured(workload, side, inputs, rounds)
        except Exception:  # of any kind: the others are to be measured all the same
            traceback.print_exc()
            figures.append(Figure(workload, side.name, math.inf, math.inf, math.inf))
        else:
            if found is None:
                continue
            seconds, first, result = found
            expected = result if expected is None else expected
            error = float(np.abs(result - expected).max(initial=0) / max(1.0, np.abs(expected).max(initial=0)))
            figures.append(Figure(workload, side.name, seconds, first, error))
        side.release()
    return figures


def _measured(
    workload: Workload, side: Any, inputs: Sequence[Sequence[np.ndarray]], rounds: int
) -> tuple[float, float, np.ndarray] | None:
    """What a call takes, and what the first one took, and its result; None where the side has no such workload."""
    call = side.load(workload, inputs)
    if call is None:
        return None
    start = time.perf_counter()
    result = side.array(call(0))
    first = time.perf_counter() - start
    for i in range(len(inputs)):
        call(i)
    return min(side.seconds(call, len(inputs)) for _ in range(rounds)), first, result


def table(figures: Sequence[Figure], sides: Sequence[str], peak: float) -> str:
    """A line for each workload: the times of all sides, and how near graphc is to the limit."""
    bandwidth = max((f.workload.nbytes / f.seconds for f in figures if f.workload.name == "copy"), default=0.0)
    lines = [f"{'ms a call':<42}" + "".join(f"{side:>15}" for side in sides) + f"{'of the limit':>14}{'first call, s':>15}"]
    for name in dict.fromkeys(f.workload.name for f in figures):
        of = {f.side: f for f in figures if f.workload.name == name}
        cells = [_cell(of.get(side)) for side in sides]
        mine, part = of.get("graphc"), "-"
        if mine is None or mine.seconds == math.inf:
            pass
        elif mine.workload.nbytes and bandwidth:
            part = f"{mine.workload.nbytes / mine.seconds / bandwidth:.0%}"
        elif mine.workload.flops and peak and mine.workload.dtype == "bfloat16":
            part = f"{mine.workload.flops / mine.seconds / peak:.0%}"
        first = "-" if mine is None else f"{mine.first:.2f}"
        lines.append(f"{name:<42}" + "".join(f"{cell:>15}" for cell in cells) + f"{part:>14}{first:>15}")
    if any(not is_right(f) for f in figures):
        lines.append("(!) results differ, or a side has failed")
    return "\n".join(lines)


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    if figure.seconds == math.inf:
        return "failed (!)"
    return f"{1e3 * figure.seconds:.3f}{'' if is_right(figure) else ' (!)'}"


def is_right(figure: Figure) -> bool:
    """Whether a result is that of the others."""
    return figure.error <= figure.workload.tolerance


def plot(figures: Sequence[Figure], sides: Sequence[str], path: str) -> None:
    """Bars: how many times as fast as PyTorch's eager calls, or else as the slowest side, each side is."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(f.workload.name for f in figures))
    figure, axes = pyplot.subplots(figsize=(10, 1 + 0.5 * len(names)), layout="constrained")
    for k, side in enumerate(sides):
        widths = []
        for name in names:
            of = {f.side: f.seconds for f in figures if f.workload.name == name and f.seconds < math.inf}
            widths.append(of.get("torch", max(of.values())) / of[side] if side in of else 0)
        axes.barh(np.arange(len(names)) + k / (len(sides) + 1), widths, 1 / (len(sides) + 1), label=side)
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as PyTorch, eager" if "torch" in sides else "times as fast as the slowest")
    axes.legend()
    figure.savefig(path)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and save the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sides", default=",".join(SIDES), help="which, separated by commas (default: %(default)s)")
    parser.add_argument("--workloads", default="", help="those whose names contain one of these, separated by commas")
    parser.add_argument("--scale", type=float, default=1.0, help="times as large")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", type=float, default=989e12,
                        help="operations a second of the tensor cores in bfloat16 (default: an H100's)")
    parser.add_argument("--plot", default="benchmark_gpu.png", help="where the plot goes; empty for none")
    options = parser.parse_args(arguments)
    wanted = [name for name in options.sides.split(",") if name]
    unknown = [name for name in wanted if name not in SIDES]
    if unknown:
        parser.error(f"no such side: {', '.join(unknown)}; there are {', '.join(SIDES)}")
    sides = []
    for name in wanted:
        side = SIDES[name](options.device)
        if reason := side.missing():
            print(f"left out {name}: {reason}", file=sys.stderr)
        else:
            sides.append(side)
    if not sides:
        print("nothing to measure; --device cpu shows how it works without a GPU", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    for workload in workloads(options.scale):
        if any(part in workload.name for part in options.workloads.split(",")):
            print(f"{workload.name} ...", file=sys.stderr)
            found = measure(workload, sides, options.rounds)
            print("  " + ", ".join(f"{figure.side} {_cell(figure)}" for figure in found), file=sys.stderr)
            figures += found
    names = [side.name for side in sides]
    print(table(figures, names, options.peak))
    if options.plot and figures:
        plot(figures, names, options.plot)
        print(f"plot: {options.plot}")
    return 0 if all(map(is_right, figures)) else 1


if __name__ == "__main__":
    sys.exit(main())
