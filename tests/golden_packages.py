"""Makes the saved files in golden/packages, which have to load for ever.

Each comes with its inputs and outputs (`.npz`): `NAME.gcz` takes `in0`, `in1`, ... and gives `out0`, `out1`, ...
When the format changes, run `python tests/golden_packages.py` and add the new folder; leave the old ones as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import graphc
import graphc.ops as ops
from graphc import Dim, nn, runtime
from graphc.ir import Builder
from graphc.package import Entry
from graphc.package.structure import describe
from graphc.package.upgrade import FORMAT_VERSION
from graphc.types import DTYPES, TensorType, float32

FOLDER = Path(__file__).parent / "golden" / "packages"


class Transformer(nn.Module):
    """A layer of attention over embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 8), nn.Embedding(16, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, tokens: Any) -> Any:
        length = tokens.shape[1]
        mask = graphc.triu(graphc.ones(length, length), 1).bool()
        return self.layer(self.tokens(tokens) + self.positions(graphc.arange(length)), src_mask=mask)


def programs() -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Name, program, and the arguments of a call."""
    graphc.manual_seed(0)
    images, tokens, steps = graphc.randn(2, 1, 8, 8), graphc.randint(0, 11, (2, 5)), graphc.randn(2, 4, 3)
    batch = Dim("batch", min=1, max=16)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                            nn.Linear(64, 3)).eval()
    yield "convolution", graphc.export(network, (images,), dynamic_shapes={"input": {0: batch}}), (images,)
    lengths = {"tokens": {0: batch, 1: Dim("length", min=2, max=16)}}
    yield "transformer", graphc.export(Transformer().eval(), (tokens,), dynamic_shapes=lengths), (tokens,)
    yield "lstm", graphc.export(nn.LSTM(3, 4, batch_first=True).eval(), (steps,)), (steps,)
    yield "newton", graphc.export(newton, (graphc.tensor(9.0),)), (graphc.tensor(9.0),)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(x) - x.sum(-1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    yield "training", graphc.export(step, (steps,), state=True), (steps,)
    linear = nn.Linear(32, 32)
    rows = graphc.randn(2, 32)
    for dtype in ("int8", "bfloat16", "float16"):
        yield dtype, graphc.export(linear, (rows,), weights=dtype), (rows,)
    yield "nested", nested(), ([np.float32([1, 2]), np.float32([3, 4])],)


def newton(a: Any) -> Any:
    """A square root by a loop, and which of two ways was taken by a branch."""
    root = graphc.while_loop(lambda y: (y * y - a).abs() > 1e-4, lambda y: (y + a / y) / 2, (a,))[0]
    return {"root": root, "way": graphc.cond(root > 2, lambda x: x * 10, lambda x: x - 1, (root,))}


def nested() -> runtime.Program:
    """Two entries, a weight of every dtype, a large constant, metadata, and arrays nested in lists and dicts."""
    rng = np.random.default_rng(5)
    weights = {name: rng.integers(0, 2, (3, 2)).astype(dtype.numpy) for name, dtype in DTYPES.items()}
    arrays = describe((([np.zeros(2), np.zeros(2)],), {}), lambda x: isinstance(x, np.ndarray))
    results = describe({"sum": np.zeros(2), "rest": [None, (np.zeros(2), "text", 0.5)]}, lambda x: isinstance(x, np.ndarray))
    entries = {}
    for name, factor in (("forward", 1.0), ("other", 2.0)):
        builder = Builder(name, locations=False)
        a, b = builder.input("a", TensorType(float32, (2,))), builder.input("b", TensorType(float32, (2,)))
        w = builder.input("float32", TensorType(float32, (3, 2)), param="float32")
        table = builder.constant(np.arange(200, dtype=np.float32).reshape(100, 2))
        entries[name] = Entry(builder.finish([(a + b) * factor, ops.sum(table, (0,)) + ops.sum(w, (0,)) * b]), arrays, results)
    return runtime.Program(entries, weights, {"epochs": [1, 2.5, None], "name": "nested, größer"})


def arrays_in(tree: Any) -> list[np.ndarray]:
    """The arrays and tensors of nested containers, from left to right."""
    if isinstance(tree, (tuple, list, dict)):
        children = tree.values() if isinstance(tree, dict) else tree
        return [array for child in children for array in arrays_in(child)]
    return [] if tree is None or isinstance(tree, (str, float)) else [np.asarray(tree)]


def main() -> None:
    folder = FOLDER / f"format_{FORMAT_VERSION}"
    folder.mkdir(parents=True)
    for name, program, args in programs():
        program.save(folder / f"{name}.gcz")
        given, results = arrays_in(args), arrays_in(program(*args))
        stored = {f"in{i}": array for i, array in enumerate(given)} | {f"out{i}": array for i, array in enumerate(results)}
        np.savez(folder / f"{name}.npz", **stored)


if __name__ == "__main__":
    main()
