"""Tour, 1 of 8: tensors, which compute at once.

    python examples/01_eager.py

Whoever knows PyTorch knows this page. A tensor holds a NumPy array: what is a view in NumPy is one here, and memory goes
both ways without a copy. Code that is still being written is best run like this, where every line can be looked at.
"""

import numpy as np

import graphc

# Made of Python's numbers, of NumPy's arrays, of shapes, of chance.
x = graphc.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
graphc.manual_seed(0)
noise = graphc.randn(2, 3) * 0.1
print(x, x.shape, x.dtype, x.device, sep="\n")

# Operators, functions and methods are the same functions; shapes are broadcast, dtypes promoted.
assert graphc.equal(x + 1, graphc.add(x, graphc.tensor(1)))
print("columns' means:", x.mean(dim=0), "\nsoftmax of the rows:", (x + noise).softmax(dim=1))

# Indexing as NumPy does it. Slices are views: to change one is to change what it is a slice of.
x[:, 0] = 0.0
row = x[1]
row.mul_(10)
print("after x[:, 0] = 0 and a view times 10:", x)

# NumPy reads tensors, and arrays become tensors on the same memory.
array = np.linspace(0, 1, 5, dtype=np.float32)
shared = graphc.from_numpy(array)
shared.add_(1)
print("the array that a tensor was added to:", array, "and its mean by NumPy:", np.mean(shared.numpy()))

# Mistakes name the shapes, what was expected, and the line.
try:
    x @ x
except graphc.errors.ShapeError as error:
    print("\nx @ x is refused:", error, sep="\n")
