"""Random graphs whose dimensions are symbols, to be bound to numbers at each call."""

from __future__ import annotations

import random

import numpy as np

import graphc.ops as ops
from graphc.dims import Dim
from graphc.ir import Builder, Graph, Value
from graphc.types import Shape, TensorType, float32, int64

N, M = Dim.symbol("N"), Dim.symbol("M")
SIZES = (N, N, M, 1, 3)


class SymbolicMaker:
    """Draws one graph over the sizes N and M."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.random = random.Random(seed)
        self.b = Builder("symbolic", locations=False)
        self.values = [self.b.input(None, TensorType(float32, s)) for s in ((N,), (N, M), (3, M, N))]
        steps = (
            self.unary, self.binary, self.reduce, self.permute, self.flatten, self.stretch, self.concat, self.pad, self.slice,
            self.window, self.flip, self.matmul, self.gather, self.count, self.zeros, self.update,
        )  # fmt: skip
        while nodes:
            made = self.random.choice(steps)(self.random.choice(self.values))
            if made is not None:
                self.values.append(ops.tanh(made))
                nodes -= 1
        self.graph: Graph = self.b.finish(self.values[-2:])

    def arrays(self, n: int, m: int, seed: int) -> list[np.ndarray]:
        """Inputs for two sizes."""
        rng = np.random.default_rng(seed)
        made = []
        for value in self.graph.inputs:
            shape = tuple(value.type.bind({"N": n, "M": m}).shape)
            made.append(rng.integers(0, n, shape) if value.dtype is int64 else rng.standard_normal(shape).astype(np.float32))
        return made

    def input(self, shape: Shape) -> Value:
        return self.b.input(None, TensorType(float32, shape))

    def axis(self, x: Value) -> int:
        return self.random.randrange(x.ndim)

    def unary(self, x: Value) -> Value:
        return self.random.choice((ops.neg, ops.sin, ops.sigmoid))(x)

    def binary(self, x: Value) -> Value:
        return x * self.random.choice([v for v in self.values if v.shape in (x.shape, x.shape[1:], ())])

    def reduce(self, x: Value) -> Value:
        axes = tuple(sorted(self.random.sample(range(x.ndim), self.random.randint(0, x.ndim))))
        return x - ops.expand(ops.sum(x, axes), x.shape, axes) if self.random.random() < 0.5 else ops.sum(x, axes)

    def permute(self, x: Value) -> Value:
        return ops.permute(x, tuple(self.random.sample(range(x.ndim), x.ndim)))

    def flatten(self, x: Value) -> Value | None:
        if x.ndim < 2:
            return ops.reshape(x, (*x.shape, 1))
        k = self.random.randrange(x.ndim - 1)
        return ops.reshape(x, (*x.shape[:k], x.shape[k] * x.shape[k + 1], *x.shape[k + 2 :]))

    def stretch(self, x: Value) -> Value | None:
        return ops.broadcast_to(x, (self.random.choice((N, 2)), *x.shape)) if x.ndim < 4 else None

    def concat(self, x: Value) -> Value | None:
        return ops.concat(x, -x, x, axis=self.axis(x)) if x.ndim else None

    def pad(self, x: Value) -> Value:
        return ops.pad(x, tuple(self.random.randint(0, 2) for _ in x.shape), (1,) * x.ndim, 0.5)

    def slice(self, x: Value) -> Value:
        return ops.slice(x, (0,) * x.ndim, x.shape, (1,) * x.ndim)

    def window(self, x: Value) -> Value | None:
        if not x.ndim:
            return None
        padded = ops.pad(x, (0,) * x.ndim, (2,) * x.ndim, 0.0)
        return ops.window(padded, self.axis(x), 3, 1, 1)

    def flip(self, x: Value) -> Value | None:
        return ops.flip(x, (self.axis(x),)) if x.ndim else None

    def matmul(self, x: Value) -> Value | None:
        if x.ndim < 2:
            return None
        return ops.matmul(x, self.input((*x.shape[:-2], x.shape[-1], self.random.choice(SIZES))))

    def gather(self, x: Value) -> Value | None:
        axes = [k for k, size in enumerate(x.shape) if size == N]
        if not axes:
            return None
        axis = self.random.choice(axes)
        index = self.b.input(None, TensorType(int64, tuple(M if k == axis else n for k, n in enumerate(x.shape))))
        return ops.scatter_add(x, index, ops.gather(x, index, axis), axis)

    def count(self, x: Value) -> Value | None:
        return x + ops.iota(shape=x.shape, axis=self.axis(x), dtype=float32, like=x) if x.ndim else None

    def zeros(self, x: Value) -> Value:
        return x + ops.full(x.type, 0.25, like=x)

    def update(self, x: Value) -> Value | None:
        if not x.ndim:
            return None
        new = ops.slice(x * 0.5, (0,) * x.ndim, x.shape, (1,) * x.ndim)
        return ops.slice_update(ops.pad(x, (1,) * x.ndim, (0,) * x.ndim, 2.0), new, (1,) * x.ndim,
                                tuple(s + 1 for s in x.shape), (1,) * x.ndim)  # fmt: skip
