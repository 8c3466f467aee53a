"""Tour, 3 of 8: the same code, compiled.

    python examples/03_compile.py

`graphc.compile` runs a function once to record its operations, as a graph, and runs machine code made of that graph from
then on. A whole training step is one function: forward and backward pass, and the optimizer's update.
"""

import time

import graphc
from graphc import nn

graphc.manual_seed(0)
x = graphc.randn(256, 20)
y = (x[:, :1] * x[:, 1:2]).tanh()
model = nn.Sequential(nn.Linear(20, 64), nn.GELU(), nn.Linear(64, 1))
optimizer = graphc.optim.AdamW(model.parameters(), lr=1e-2)


def step(x, y):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


def seconds(function, calls=200):
    begin = time.perf_counter()
    for _ in range(calls):
        function(x, y)
    return (time.perf_counter() - begin) / calls


compiled = graphc.compile(step)
begin = time.perf_counter()
first = compiled(x, y)
print(f"the first call, which compiles: {time.perf_counter() - begin:.2f} s, loss {first.item():.4f}")
print(f"a step, eager: {seconds(step) * 1e3:.3f} ms, compiled: {seconds(compiled) * 1e3:.3f} ms")
print(f"loss after 400 steps more: {compiled(x, y).item():.4f}")

# Nothing is frozen: what the function read when it was recorded is looked at in each call, and if need be it is recorded
# again. A learning rate is an input of the graph, and needs no new one.
optimizer.param_groups[0]["lr"] = 1e-3
compiled(x, y)
compiled(x[:100], y[:100])
model.eval()
compiled(x, y)
print("\nwhat was recorded, and why:", compiled.explain().partition("\n\n")[0], sep="\n")


# A graph as text. The compiler fuses it: all of this is one loop over memory.
print(graphc.trace(lambda a, b: (a * b + 1).relu().sum(), (graphc.ones(8), graphc.ones(8))))
