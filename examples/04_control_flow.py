"""Tour, 4 of 8: branches and loops that depend on numbers.

    python examples/04_control_flow.py

Python's own `if` and `while` compile too: the code is cut where Python has to know a number, and each way that is met is
recorded once. `cond`, `while_loop`, `scan` and `map` put them into the graph itself, where they run natively, can be
exported, and have derivatives.
"""

import graphc


# Python's: compiled in segments, with every path that has been seen.
@graphc.compile
def halved_until_small(v):
    steps = 0
    while v.abs().max() > 1:
        v = v / 2
        steps += 1
    return v, steps


print(halved_until_small(graphc.tensor([10.0, -3.0])), halved_until_small(graphc.tensor([0.5])))
print(halved_until_small.explain())

# `fullgraph=True` refuses instead, and names the line.
try:
    graphc.compile(lambda v: v if v.sum() > 0 else -v, fullgraph=True)(graphc.ones(2))
except graphc.errors.GraphcError as error:
    print("\nfullgraph=True refuses:", error, sep="\n")


# The graph's: Newton's method, with a derivative through the loop.
@graphc.compile
def root(a):
    return graphc.while_loop(lambda y: (y * y - a).abs() > 1e-5, lambda y: (y + a / y) / 2, (a,))[0]


a = graphc.tensor(2.0, requires_grad=True)
root(a).backward()
print(f"\nroot of 2: {root(a).item():.6f}, its derivative: {a.grad.item():.6f}, which is 1 / (2 root(2))")
assert abs(a.grad.item() - 0.5 / 2**0.5) < 1e-3


# A recurrence over a sequence: `scan` carries a state, and gathers a result for each step.
def smoothed(xs, decay):
    def one(state, x):
        state = decay * state + (1 - decay) * x
        return state, state

    return graphc.scan(one, xs[0], xs)[1]


noisy = graphc.sin(graphc.linspace(0, 6, 40)) + 0.3 * graphc.randn(40)
print("a running mean:", graphc.compile(smoothed)(noisy, graphc.tensor(0.8))[-5:])
