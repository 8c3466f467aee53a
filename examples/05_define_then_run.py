"""Tour, 5 of 8: graphs that are written first, and run later.

    python examples/05_define_then_run.py

Inside `with graph:` nothing is computed: operations become nodes. A session computes what is fetched, from what is fed, and
nothing else. Derivatives are nodes like any others, and so are updates.
"""

import numpy as np

import graphc
from graphc import nn

graphc.manual_seed(0)
net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))

with graphc.Graph("circle") as graph:
    points = graphc.placeholder("points", ("batch", 2))
    inside = graphc.placeholder("inside", ("batch", 1))
    with graph.name_scope("model"):
        logits = net(points)
    with graph.name_scope("loss"):
        loss = nn.functional.binary_cross_entropy_with_logits(logits, inside)
    parameters = list(net.parameters())
    slopes = graphc.gradients(loss, parameters)

session = graphc.Session(graph)
random = np.random.default_rng(0)
for number in range(400):
    batch = random.uniform(-1, 1, (128, 2)).astype(np.float32)
    labels = (np.square(batch).sum(1, keepdims=True) < 0.5).astype(np.float32)
    value, *gradients = session.run([loss, *slopes], feed_dict={points: batch, inside: labels})
    with graphc.no_grad():
        for parameter, gradient in zip(parameters, gradients):
            parameter -= 1.0 * graphc.from_numpy(gradient)  # sessions refer to parameters: the next run sees this
    if number % 100 == 0:
        print(f"{number:4d}  loss {value:.4f}")

# Only what leads to the fetched values runs: no loss, and no derivatives.
guess = session.run(logits, feed_dict={points: [[0.0, 0.0], [0.9, 0.9]]})
print("log odds of being inside, at the middle and in a corner:", guess.ravel())
print(len(session.last_run.executed_nodes), "nodes ran, of", len(graph.ir.nodes))
assert guess[0] > 0 > guess[1]

# Any value can be fed, in the place of what would be computed.
print("the loss of given log odds:", session.run(loss, feed_dict={logits: [[4.0]], inside: [[1.0]]}))

# A graph is text, and the text is a graph.
again = graphc.parse_ir(str(graph))
assert again == graph
print("\n".join(str(graph).splitlines()[:4]), "...", sep="\n")
