"""Tour, 6 of 8: models as files that are safe to open.

    python examples/06_export.py

A `.gcz` file holds graphs, weights and checksums, and no code. It is read by `graphc.runtime`, which needs no front end, and
by the command line. ONNX, safetensors and StableHLO go to other tools.
"""

import tempfile
from pathlib import Path

import numpy as np

import graphc
from graphc import nn, runtime

graphc.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3), nn.Softmax(dim=1)).eval()
example = graphc.randn(4, 8)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.gcz"

    # Sizes that may change get names and bounds, which every call checks.
    batch = graphc.Dim("batch", min=1, max=1024)
    program = graphc.export(model, (example,), dynamic_shapes={"input": {0: batch}}, metadata={"classes": ["a", "b", "c"]})
    graphc.save(program, path)
    print(program.signature, f"{path.stat().st_size} bytes")

    # Arrays in, arrays out. This part of the package is all that a server has to import.
    loaded = runtime.load(path)
    probabilities = loaded(np.ones((2, 8), np.float32))
    assert np.allclose(probabilities, model(graphc.ones(2, 8)).detach().numpy(), atol=1e-6)
    print(loaded.metadata, probabilities[0])

    # A file that has been damaged is refused, with the reason.
    damaged = Path(folder) / "damaged.gcz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    try:
        runtime.load(damaged)
    except graphc.errors.PackageError as error:
        print("\na flipped bit:", error, sep="\n")

    # Smaller: weights as integers, with a scale for each channel. They are widened while products read them.
    small = graphc.export(model, (example,), weights="int8")
    graphc.save(small, Path(folder) / "small.gcz")
    print("\nwith int8 weights:", (Path(folder) / "small.gcz").stat().st_size, "bytes, off by",
          f"{(small(example) - model(example)).abs().max().item():.1e}")

    # A program that changes: a training step keeps its parameters and what its optimizer remembers.
    optimizer = graphc.optim.Adam(model.parameters(), lr=0.05)

    def step(x, labels):
        optimizer.zero_grad()
        loss = nn.functional.nll_loss(model(x).log(), labels)
        loss.backward()
        optimizer.step()
        return loss

    labels = graphc.tensor([0, 1, 2, 0])
    training = graphc.export({"step": step, "predict": model}, {"step": (example, labels), "predict": (example,)}, state=True)
    losses = [training.function("step")(example, labels).item() for _ in range(30)]
    print(f"\ntrained by a program: loss {losses[0]:.3f} to {losses[-1]:.3f}; it keeps {len(training.state)} tensors")
    training.save(Path(folder) / "training.gcz")  # to be gone on with by whoever loads it
    assert losses[-1] < losses[0]
