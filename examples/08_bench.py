"""Tour, 8 of 8: what a model consists of, where its time goes, and how much of it compiling saves.

    python examples/08_bench.py
    graphc bench examples/08_bench.py:step --html report.html

`graphc bench` runs a function of a script eagerly and compiled, in processes of their own that take turns, and checks first
that both compute the same. A script that says `import torch` where this one says `import graphc` is run by both libraries.
"""

import subprocess
import sys

import graphc
from graphc import nn

graphc.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.LayerNorm(256), nn.Linear(256, 10))
optimizer = graphc.optim.SGD(model.parameters(), lr=0.1)


def step(x, labels):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), labels)
    loss.backward()
    optimizer.step()
    return loss


def inputs(size=128):
    """What `graphc bench` calls `step` with. It may ask for several sizes: `--sizes 16,64,256`."""
    return graphc.randn(size, 64), graphc.arange(size) % 10


if __name__ == "__main__":
    x, labels = inputs()
    print(graphc.summary(model, x))

    # Eagerly the profiler shows operations, compiled the kernels that they were fused into, both with the lines they come from.
    for function in (step, graphc.compile(step)):
        function(x, labels)
        with graphc.profiler.profile() as profile:
            function(x, labels)
        print(profile.key_averages().table(row_limit=5))

    command = [sys.executable, "-m", "graphc", "bench", f"{__file__}:step", "--sides", "graphc", "--rounds", "3"]
    sys.exit(subprocess.run(command, check=False).returncode)
