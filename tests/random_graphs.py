"""Random graphs for differential tests: every kind of op, odd shapes, values used once, often or never."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

import graphc.ops as ops
from graphc.ir import Builder, Graph, Value
from graphc.types import TensorType, bool_, float32, int64

_SIZES = (0, 1, 2, 3, 5, 7, 16, 17)
_UNARY = (ops.neg, ops.abs, ops.tanh, ops.sigmoid, ops.relu, ops.sin, ops.floor, ops.sign, ops.stop_gradient)
_BINARY = (ops.add, ops.sub, ops.mul, ops.maximum, ops.minimum)


class Maker:
    """Draws one graph. All float values stay within a few powers of ten, so that tolerances mean something."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.b = Builder("random", locations=False)
        self.values: list[Value] = []
        self.arrays: list[np.ndarray] = []
        for _ in range(self.random.randint(1, 3)):
            shape = tuple(self.random.choice(_SIZES) for _ in range(self.random.randint(0, 3)))
            self.input(self.rng.standard_normal(shape).astype(np.float32))
        steps: list[Callable[[Value], Value | None]] = [
            self.unary, self.unary, self.binary, self.binary, self.scalar, self.broadcast, self.reduce, self.reshape,
            self.permute, self.slice, self.pad, self.concat, self.flip, self.window, self.where, self.update, self.matmul,
            self.gather, self.argmax, self.dead, self.random_bits, self.constant, self.rule,
        ]
        while nodes:
            made = self.random.choice(steps)(self.random.choice(self.values))
            if made is not None and made.type.size <= 4096:
                self.values.append(ops.tanh(made) if self.grows(made) else made)
                nodes -= 1
        outputs = self.random.sample(self.values, min(len(self.values), self.random.randint(1, 3)))
        self.graph: Graph = self.b.finish([*outputs, self.values[-1]])

    def input(self, array: np.ndarray) -> Value:
        """One more input of the graph."""
        dtype = {"f": float32, "i": int64, "b": bool_}[array.dtype.kind]
        value = self.b.input(None, TensorType(dtype, array.shape))
        self.arrays.append(array)
        if dtype is float32:
            self.values.append(value)
        return value

    def grows(self, value: Value) -> bool:
        return value.node is not None and value.node.op.name in ("mul", "sum", "matmul", "fold")

    def axes(self, x: Value) -> tuple[int, ...]:
        return tuple(sorted(self.random.sample(range(x.ndim), self.random.randint(0, x.ndim))))

    def unary(self, x: Value) -> Value:
        return self.random.choice(_UNARY)(x)

    def binary(self, x: Value) -> Value:
        mates = [v for v in self.values if v.shape == x.shape or v.shape == () or v.shape == x.shape[1:]]
        return self.random.choice(_BINARY)(x, self.random.choice(mates))

    def scalar(self, x: Value) -> Value:
        return self.random.choice(_BINARY)(x, self.random.choice([0.0, 1.0, -1.0, 0.5, -0.0, 2]))

    def broadcast(self, x: Value) -> Value | None:
        shape = tuple(self.random.choice((1, 2, 3)) if s == 1 else s for s in x.shape)
        return ops.broadcast_to(x, (*(self.random.choice((1, 2)) for _ in range(self.random.randint(0, 1))), *shape))

    def reduce(self, x: Value) -> Value | None:
        axes = self.axes(x)
        if any(x.shape[a] == 0 for a in axes):
            return ops.sum(x, axes)
        return self.random.choice((ops.sum, ops.amax, ops.amin))(x, axes)

    def argmax(self, x: Value) -> Value | None:
        if not x.ndim or 0 in x.shape:
            return None
        return ops.cast(ops.argmax(x, self.random.randrange(x.ndim)), float32) * 0.1

    def reshape(self, x: Value) -> Value:
        size = x.type.size
        divisors = [d for d in range(1, max(size, 1) + 1) if size % d == 0]
        first = self.random.choice(divisors) if size else 0
        shape = self.random.choice([(size,), (first, size // first if first else 1), (1, size, 1), (*x.shape, 1)])
        return ops.reshape(x, shape)

    def permute(self, x: Value) -> Value:
        return ops.permute(x, tuple(self.random.sample(range(x.ndim), x.ndim)))

    def slice(self, x: Value) -> Value:
        starts = tuple(self.random.randint(0, s) for s in x.shape)
        stops = tuple(self.random.randint(a, s) for a, s in zip(starts, x.shape))
        return ops.slice(x, starts, stops, tuple(self.random.choice((1, 1, 2, 3)) for _ in x.shape))

    def update(self, x: Value) -> Value:
        part = self.slice(x)
        attrs = part.node.attrs
        return ops.slice_update(x, part * 0.5, attrs["starts"], attrs["stops"], attrs["steps"])

    def pad(self, x: Value) -> Value:
        low, high = (tuple(self.random.choice((0, 0, 1, 2)) for _ in x.shape) for _ in range(2))
        return ops.pad(x, low, high, self.random.choice((0.0, -1.5)))

    def concat(self, x: Value) -> Value | None:
        mates = [v for v in self.values if v.shape == x.shape]
        return ops.concat(x, self.random.choice(mates), x, axis=self.random.randrange(x.ndim)) if x.ndim else None

    def flip(self, x: Value) -> Value:
        return ops.flip(x, self.axes(x))

    def window(self, x: Value) -> Value | None:
        if not x.ndim:
            return None
        axis, size, step, dilation = self.random.randrange(x.ndim), *(self.random.randint(1, 3) for _ in range(3))
        if x.shape[axis] < dilation * (size - 1) + 1:
            return None
        windows = ops.window(x, axis, size, step, dilation)
        return ops.fold(windows * 0.5, axis, x.shape[axis], step, dilation) if self.random.random() < 0.5 else windows

    def where(self, x: Value) -> Value:
        return ops.where(ops.gt(x, 0.1), x, self.random.choice((0.0, x * 0.5)))

    def matmul(self, x: Value) -> Value | None:
        if x.ndim < 2:
            return None
        n = self.random.choice(_SIZES[1:])
        w = self.input(self.rng.standard_normal((*x.shape[:-2], x.shape[-1], n)).astype(np.float32) * 0.3)
        return ops.matmul(x, w)

    def gather(self, x: Value) -> Value | None:
        if not x.ndim or 0 in x.shape:
            return None
        axis = self.random.randrange(x.ndim)
        shape = tuple(self.random.randint(1, 6) if k == axis else n for k, n in enumerate(x.shape))
        index = self.input(self.rng.integers(0, x.shape[axis], shape))
        taken = ops.gather(x, index, axis)
        return ops.scatter_add(x * 0.1, index, taken, axis) if self.random.random() < 0.5 else taken

    def dead(self, x: Value) -> None:
        ops.exp(x)

    def random_bits(self, x: Value) -> Value:
        state = self.input(self.rng.integers(0, 1 << 40, 2))
        return x + ops.cast(ops.random_bits(state, tuple(x.shape)), float32) * 2.0**-32

    def constant(self, x: Value) -> Value:
        return x * self.b.constant(self.rng.standard_normal(x.shape).astype(np.float32))

    def rule(self, x: Value) -> Value:
        """Something that a simplification rule looks for."""
        return self.random.choice(
            (
                lambda: ops.neg(ops.neg(x)),
                lambda: ops.permute(ops.permute(x, tuple(reversed(range(x.ndim)))), tuple(reversed(range(x.ndim)))),
                lambda: ops.reshape(ops.reshape(x, (x.type.size,)), x.shape),
                lambda: ops.cast(ops.cast(x, float32), float32),
                lambda: ops.pow(x, 2.0) * 0.1,
                lambda: ops.where(ops.lt(x, 0.0), x, x),
            )
        )()
