"""How much memory training steps take: the largest that a process has had, over what it had when its libraries were loaded.

Each step runs in a process of its own, `python -m graphc.benchmark.footprint MODULE MODE NAME`, whose one line of output is a
JSON object. That of PyTorch, where it is installed, runs the very same code.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from graphc.benchmark import memory
from graphc.errors import BackendError

STEPS = 6
"""Of each training: the first ones are traced and compiled, and make the optimizer's state."""


@dataclass(frozen=True)
class Footprint:
    """Of one training step, in bytes."""

    step: str
    side: str
    """Which library, and how it ran."""
    base: int
    """What the process had when the library was loaded and had computed something small."""
    peak: int
    """The most that it had."""
    error: str | None = None
    """Why there are no numbers."""

    @property
    def over_base(self) -> int:
        return self.peak - self.base


def _perceptron(T: Any) -> tuple[Any, Any, Any]:
    nn = T.nn
    model = nn.Sequential(nn.Linear(1024, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10))
    return model, T.randn(256, 1024), T.randint(0, 10, (256,))


def _convnet(T: Any) -> tuple[Any, Any, Any]:
    nn, layers, channels = T.nn, [], 3
    for width in (32, 64, 128, 256):
        layers += [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(channels, 10))
    return model, T.randn(16, 3, 64, 64), T.randint(0, 10, (16,))


def _transformer(T: Any) -> tuple[Any, Any, Any]:
    nn = T.nn
    block = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    blocks = nn.TransformerEncoder(block, 4, enable_nested_tensor=False)
    tokens = T.randint(0, 512, (8, 128))
    return nn.Sequential(nn.Embedding(512, 256), blocks, nn.Linear(256, 512), nn.Flatten(0, 1)), tokens, tokens.reshape(-1)


TRAININGS: dict[str, Callable[[Any], tuple[Any, Any, Any]]] = {
    "perceptron": _perceptron, "convnet": _convnet, "transformer": _transformer,
}  # fmt: skip
"""Of each a model, its input, and the classes that it is to learn."""


def training_step(T: Any, name: str) -> Callable[[], Any]:
    """A step of AdamW, written against PyTorch's interface."""
    model, x, y = TRAININGS[name](T)
    optimizer = T.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> Any:
        optimizer.zero_grad()
        loss = T.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def sides() -> list[tuple[str, str]]:
    """What is compared: (module, mode)."""
    found = [("graphc", "compiled"), ("graphc", "eager")]
    return [*found, ("torch", "eager")] if importlib.util.find_spec("torch") is not None else found


def measure(names: list[str]) -> Iterator[Footprint]:
    """The footprints of some trainings on all sides, each in a process of its own. BackendError where the system does not say
    how much memory a process has."""
    if not memory.STATUS.exists():
        problem = "this system does not say how much memory a process has"
        raise BackendError(problem, expected=str(memory.STATUS), hint="use Linux")
    for name in names:
        for module, mode in sides():
            command = [sys.executable, "-m", "graphc.benchmark.footprint", module, mode, name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = done.stderr.strip().splitlines()
            error = None if done.returncode == 0 else lines[-1] if lines else f"ended with status {done.returncode}"
            numbers = {"base": 0, "peak": 0} if error else json.loads(done.stdout.splitlines()[-1])
            yield Footprint(name, f"{module} {mode}", numbers["base"], numbers["peak"], error)


def _run(module: str, mode: str, name: str) -> dict[str, int | None]:
    T: Any = importlib.import_module(module)
    T.manual_seed(0)
    small = T.nn.Linear(2, 1)  # what is loaded on first use
    T.optim.SGD(small.parameters(), lr=0.1)
    small(T.ones(1, 2)).sum().item()
    base = memory.resident()
    step = training_step(T, name)
    if mode == "compiled":
        step = T.compile(step)
    for _ in range(STEPS):
        step()
    return {"base": base, "peak": memory.peak()}


if __name__ == "__main__":
    print(json.dumps(_run(*sys.argv[1:])))
