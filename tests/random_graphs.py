"""Random graphs for differential tests: every kind of op and dtype, odd shapes, values used once, often or never.

Two correct runs of a graph may differ in the last bits of sums and elementary functions. So that nothing makes more of
that than a tolerance allows, the maker knows which values are exact. What jumps (comparisons, floor, casts to integers)
and what bends (maximum, abs: their derivatives jump) takes exact values alone, and values that grow are bounded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np

import graphc.ops as ops
from graphc.ir import Builder, Graph, Value
from graphc.types import (
    DType,
    TensorType,
    bool_,
    dtype_of,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
    uint16,
    uint32,
    uint64,
)

SIZES = (0, 1, 2, 3, 5, 7, 16, 17)
LARGE = (1, 2, 3, 7, 33, 64, 129, 1000)
DTYPES = (float64, float16, int64, int32, int16, int8, uint8, uint16, uint32, uint64, bool_)
"""The dtypes besides float32, which every other value has."""

_INEXACT = frozenset(("tanh", "sigmoid", "sin", "cos", "exp", "expm1", "log", "log1p", "erf", "pow"))
_ORDERED = frozenset(("sum", "matmul", "contract", "conv", "fold", "scatter_add"))
"""Exact on integers; on floats it depends on the order of additions."""
_SMOOTH = (ops.tanh, ops.sigmoid, ops.sin, ops.cos, ops.erf, ops.neg, ops.stop_gradient)
_BENT = (ops.relu, ops.abs)
_JUMPS = (ops.floor, ops.ceil, ops.trunc, ops.round, ops.sign)
_INTEGER = (ops.neg, ops.abs, ops.relu, ops.sign, ops.bitwise_not)
_COMPARE = (ops.eq, ops.ne, ops.lt, ops.le, ops.gt, ops.ge)
_BITS = (ops.bitwise_and, ops.bitwise_or, ops.bitwise_xor)
_NUMBERS = (0.0, 1.0, -1.0, 0.5, -0.0, 2)


class Maker:
    """Draws one graph, and arrays for its inputs.

    sizes
        What dimensions are drawn from.
    largest
        How many elements a value may have.
    special
        Whether inputs hold infinities and NaNs.
    """

    def __init__(
        self, seed: int, nodes: int, *, sizes: tuple[int, ...] = SIZES, largest: int = 4096, special: bool = False
    ) -> None:
        self.random = random.Random(seed)
        self.rng = np.random.default_rng(seed)
        self.b = Builder("random", locations=False)
        self.sizes = sizes
        self.special = special
        self.values: list[Value] = []
        self.exact: set[Value] = set()
        self.arrays: list[np.ndarray] = []
        for k in range(self.random.randint(1, 3)):
            shape: tuple[int, ...] = ()
            for _ in range(self.random.randint(0, 3)):
                shape = (*shape, self.choose([s for s in sizes if math.prod(shape) * s <= largest]))
            self.draw(float32 if k == 0 or self.random.random() < 0.5 else self.choose(DTYPES), shape)
        steps = [step for step, times in self.steps().items() for _ in range(times)]
        while nodes:
            first = len(self.b.nodes)
            made = self.choose(steps)(self.choose(self.values))
            self.mark_exact(first)
            if made is not None and made.type.size <= largest:
                self.values.append(self.bounded(made))
                nodes -= 1
        outputs = self.random.sample(self.values, min(len(self.values), self.random.randint(1, 3)))
        self.graph: Graph = self.b.finish([*outputs, self.values[-1]])

    def steps(self) -> dict[Callable[[Value], Value | None], int]:
        """The ways to make a value from another, and how often each is tried."""
        return {
            self.unary: 2, self.binary: 3, self.scalar: 1, self.cast: 2, self.compare: 1, self.bits: 1, self.divide: 1,
            self.broadcast: 1, self.reduce: 2, self.argument: 1, self.reshape: 1, self.permute: 1, self.slice: 1,
            self.update: 1, self.pad: 1, self.concat: 1, self.flip: 1, self.window: 1, self.where: 1, self.matmul: 1,
            self.conv: 1, self.gather: 1, self.scatter: 1, self.dead: 1, self.random_bits: 1, self.constant: 1, self.rule: 1,
        }  # fmt: skip

    # Values

    def choose(self, options: list | tuple) -> object:
        return self.random.choice(options)

    def draw(self, dtype: DType, shape: tuple[int, ...], scale: float = 1.0) -> Value:
        """An input with random numbers."""
        if dtype is bool_:
            array = self.rng.random(shape) < 0.5
        elif dtype.is_floating_point:
            array = np.asarray(self.rng.standard_normal(shape) * scale, dtype.numpy)
            if self.special and array.size and self.random.random() < 0.5:
                array.reshape(-1)[self.rng.integers(0, array.size, 2)] = self.choose((np.nan, np.inf, -np.inf, -0.0))
        else:
            bounds = np.iinfo(dtype.numpy)
            wide = self.random.random() < 0.3
            low, high = (bounds.min, bounds.max) if wide else (max(-9, bounds.min), 9)
            array = self.rng.integers(low, high, shape, dtype.numpy, endpoint=True)
        return self.input(np.asarray(array))

    def input(self, array: np.ndarray) -> Value:
        value = self.b.input(None, TensorType(dtype_of(array.dtype), array.shape))
        self.arrays.append(array)
        self.exact.add(value)
        self.values.append(value)
        return value

    def index(self, shape: tuple[int, ...], stop: int) -> Value:
        """An input of indices below `stop`, which other values are not made of."""
        value = self.input(np.asarray(self.rng.integers(0, stop, shape), self.choose((np.int64, np.int32, np.uint8))))
        self.values.pop()
        return value

    def mark_exact(self, first: int) -> None:
        """Tell which results are exact, from node `first` on."""
        for node in self.b.nodes[first:]:
            rounded = node.op.name in _INEXACT or (node.op.name in _ORDERED and node.result.dtype.is_floating_point)
            if not rounded and self.exact.issuperset(node.operands):
                self.exact.update(node.results)

    def bounded(self, made: Value) -> Value:
        """A value of a few units, from one that may be larger."""
        if not made.dtype.is_floating_point:
            return made
        first = len(self.b.nodes)
        bounded = ops.minimum(ops.maximum(made, -4.0), 4.0) if made in self.exact else ops.tanh(made * 0.25)
        self.mark_exact(first)
        return bounded if made.node is not None and made.node.op.name not in ("tanh", "reshape", "permute", "slice") else made

    def axes(self, x: Value) -> tuple[int, ...]:
        return tuple(sorted(self.random.sample(range(x.ndim), self.random.randint(0, x.ndim))))

    def mates(self, x: Value) -> list[Value]:
        """Values that x can be combined with."""
        return [v for v in self.values if v.shape == x.shape or v.shape == () or v.shape == x.shape[1:]]

    # Elementwise

    def unary(self, x: Value) -> Value:
        if x.dtype is bool_:
            return ops.bitwise_not(x)
        if not x.dtype.is_floating_point:
            return self.choose(_INTEGER)(x)
        return self.choose((*_SMOOTH, *_BENT, *_JUMPS) if x in self.exact else _SMOOTH)(x)

    def binary(self, x: Value) -> Value | None:
        y = self.choose(self.mates(x))
        if {x.dtype, y.dtype} & {uint32, uint64} and x.dtype is not y.dtype:
            return None  # there may be no dtype for both
        kinds = [ops.add, ops.mul] + [ops.sub] * (bool_ not in (x.dtype, y.dtype))
        return self.choose(kinds + [ops.maximum, ops.minimum] * (x in self.exact and y in self.exact))(x, y)

    def scalar(self, x: Value) -> Value | None:
        number = self.choose(_NUMBERS)
        return None if x.dtype is bool_ else self.choose((ops.add, ops.sub, ops.mul))(x, number)

    def cast(self, x: Value) -> Value | None:
        dtype = self.choose((float32, *DTYPES))
        if self.special and x.dtype.is_floating_point and dtype.kind == "uint":
            return None  # what NumPy makes of a NaN depends on where in the array it stands
        if x in self.exact:
            return ops.cast(x, dtype)
        return ops.cast(x, dtype) if dtype in (float32, float64) and x.dtype is not float16 else None

    def compare(self, x: Value) -> Value | None:
        mates = [v for v in self.mates(x) if v.dtype is x.dtype and v in self.exact]
        return self.choose(_COMPARE)(x, self.choose([*mates, 0])) if x in self.exact else None

    def bits(self, x: Value) -> Value | None:
        if x.dtype.is_floating_point:
            return None
        if x.dtype is not bool_ and self.random.random() < 0.5:
            return self.choose((ops.shift_left, ops.shift_right))(x, self.random.randint(0, x.dtype.bits - 1))
        return self.choose(_BITS)(x, self.choose([v for v in self.mates(x) if v.dtype is x.dtype]))

    def divide(self, x: Value) -> Value | None:
        if x.dtype is bool_ or x not in self.exact or x.dtype is float16:
            return None
        if x.dtype.is_floating_point:
            return self.choose((ops.div, ops.floor_divide, ops.remainder))(x, self.choose((2.0, 3.0, -0.7)))
        mates = [v for v in self.mates(x) if v.dtype is x.dtype]
        divisor = self.choose([ops.bitwise_or(v, 1) for v in mates[:2]] + [7, 1])
        return self.choose((ops.floor_divide, ops.remainder))(x, divisor)

    def where(self, x: Value) -> Value:
        conditions = [v for v in self.mates(x) if v.dtype is bool_]
        condition = self.choose(conditions) if conditions else ops.gt(self.draw(float32, x.shape), 0.1)
        return ops.where(condition, x, self.choose((x, False)) if x.dtype is bool_ else self.choose((0, x * 2)))

    def random_bits(self, x: Value) -> Value:
        bits = ops.random_bits(self.state(), tuple(x.shape))
        return x + ops.cast(bits, float32) * 2.0**-32

    def state(self) -> Value:
        value = self.input(self.rng.integers(0, 1 << 40, 2))
        self.values.pop()
        return value

    def constant(self, x: Value) -> Value:
        return x * self.b.constant(self.rng.integers(-2, 3, x.shape).astype(x.dtype.numpy))

    # Movement

    def broadcast(self, x: Value) -> Value | None:
        shape = tuple(self.choose((1, 2, 3)) if s == 1 else s for s in x.shape)
        return ops.broadcast_to(x, (*(self.choose((1, 2)) for _ in range(self.random.randint(0, 1))), *shape))

    def reshape(self, x: Value) -> Value:
        size = x.type.size
        divisors = [d for d in range(1, max(size, 1) + 1) if size % d == 0]
        first = self.choose(divisors) if size else 0
        return ops.reshape(x, self.choose([(size,), (first, size // first if first else 1), (1, size, 1), (*x.shape, 1)]))

    def permute(self, x: Value) -> Value:
        return ops.permute(x, tuple(self.random.sample(range(x.ndim), x.ndim)))

    def slice(self, x: Value) -> Value:
        starts = tuple(self.random.randint(0, s) for s in x.shape)
        stops = tuple(self.random.randint(a, s) for a, s in zip(starts, x.shape))
        return ops.slice(x, starts, stops, tuple(self.choose((1, 1, 2, 3)) for _ in x.shape))

    def update(self, x: Value) -> Value:
        part = self.slice(x)
        attrs = part.node.attrs
        return ops.slice_update(x, part if x.dtype is bool_ else part * 2, attrs["starts"], attrs["stops"], attrs["steps"])

    def pad(self, x: Value) -> Value:
        low, high = (tuple(self.choose((0, 0, 1, 2)) for _ in x.shape) for _ in range(2))
        return ops.pad(x, low, high, self.choose((0.0, -1.5) if x.dtype.is_floating_point else (0, 1)))

    def concat(self, x: Value) -> Value | None:
        if not x.ndim:
            return None
        axis = self.random.randrange(x.ndim)

        def beside(v: Value) -> tuple:
            return v.dtype, v.shape[:axis], v.shape[axis + 1 :]

        mates = [v for v in self.values if v.ndim == x.ndim and beside(v) == beside(x)]
        return ops.concat(x, *(self.choose(mates) for _ in range(self.choose((0, 1, 2, 12)))), axis=axis)

    def flip(self, x: Value) -> Value:
        return ops.flip(x, self.axes(x))

    def window(self, x: Value) -> Value | None:
        if not x.ndim:
            return None
        axis, size, step, dilation = self.random.randrange(x.ndim), *(self.random.randint(1, 3) for _ in range(3))
        if x.shape[axis] < dilation * (size - 1) + 1:
            return None
        windows = ops.window(x, axis, size, step, dilation)
        if x.dtype is bool_ or self.random.random() < 0.5:
            return windows
        return ops.fold(windows, axis, x.shape[axis] + self.random.randint(0, 2), step, dilation)

    # Reductions, products, indices

    def reduce(self, x: Value) -> Value | None:
        axes = self.axes(x)
        kinds = [ops.sum] * (x.dtype is not bool_)
        if x in self.exact and all(x.shape[a] for a in axes):
            kinds += [ops.amax, ops.amin]
        return self.choose(kinds)(x, axes) if kinds else None

    def argument(self, x: Value) -> Value | None:
        if not x.ndim or 0 in x.shape or x not in self.exact:
            return None
        return self.choose((ops.argmax, ops.argmin))(x, self.random.randrange(x.ndim))

    def matmul(self, x: Value) -> Value | None:
        if x.ndim < 2 or x.dtype is float16:
            return None
        n = self.choose([s for s in self.sizes if s <= 64])
        shape = (*x.shape[:-2], x.shape[-1], n)
        return ops.matmul(x, self.draw(x.dtype, shape, 0.3)) if math.prod(shape) <= 65536 else None

    def conv(self, x: Value) -> Value | None:
        n = x.ndim - 2
        if n < 1 or x.dtype in (float16, bool_) or 0 in x.shape:
            return None
        groups = self.choose([g for g in (1, 2, 3) if x.shape[1] % g == 0])
        kernel, stride, dilation = (tuple(self.random.randint(1, 3) for _ in range(n)) for _ in range(3))
        padding = tuple((self.random.randint(0, 2), self.random.randint(0, 2)) for _ in range(n))
        if any(s + sum(p) < d * (k - 1) + 1 for s, p, d, k in zip(x.shape[2:], padding, dilation, kernel)):
            return None
        w = self.draw(x.dtype, (groups * self.random.randint(1, 3), x.shape[1] // groups, *kernel), 0.3)
        return ops.conv(x, w, stride, padding, dilation, groups)

    def gather(self, x: Value) -> Value | None:
        if not x.ndim or 0 in x.shape:
            return None
        axis = self.random.randrange(x.ndim)
        shape = tuple(self.choose((0, 1, 3, 6, 30)) if k == axis else self.random.randint(1, n) for k, n in enumerate(x.shape))
        return ops.gather(x, self.index(shape, min(x.shape[axis], 256)), axis)

    def scatter(self, x: Value) -> Value | None:
        taken = self.gather(x)
        if taken is None or x.dtype is bool_:
            return None
        return ops.scatter_add(x, taken.node.operands[1], taken * 2, taken.node.attrs["axis"])

    # Work for the passes

    def dead(self, x: Value) -> None:
        ops.exp(x)

    def rule(self, x: Value) -> Value | None:
        """Something that a simplification rule looks for."""
        if x.dtype is bool_:
            return ops.bitwise_not(ops.bitwise_not(x))
        return self.choose(
            (
                lambda: ops.neg(ops.neg(x)),
                lambda: ops.permute(ops.permute(x, tuple(reversed(range(x.ndim)))), tuple(reversed(range(x.ndim)))),
                lambda: ops.reshape(ops.reshape(x, (x.type.size,)), x.shape),
                lambda: ops.cast(ops.cast(x, x.dtype), x.dtype),
                lambda: ops.pow(x, 2),
                lambda: ops.where(self.draw(bool_, x.shape), x, x),
            )
        )()
