"""Random graphs of nested branches and loops, for tests that compare two ways of running them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

import graphc.ops as ops
from graphc.ir import Builder, Graph, Value
from graphc.types import TensorType, float64, int64

SHAPES: list[tuple[int, ...]] = [(), (3,), (2, 3), (3, 3), (1,), (2, 0)]


def random_graph(seed: int) -> tuple[Graph, list[np.ndarray]]:
    """A graph, and numbers for its inputs."""
    r = random.Random(seed)
    builder = Builder("main", locations=False)
    types = [TensorType(float64, shape) for shape in [*r.sample(SHAPES, r.randint(1, 3)), (3, 3)]]
    values = [builder.input(f"x{i}", type_) for i, type_ in enumerate(types)]
    for _ in range(r.randint(1, 3)):
        values += _control(r, values, 2)
    outputs = [r.choice(values) for _ in range(r.randint(1, 4))]
    rng = np.random.default_rng(seed)
    return builder.finish(outputs), [rng.standard_normal(type_.shape) for type_ in types]


def _expression(r: random.Random, values: Sequence[Value], start: Value) -> Value:
    v = start
    for _ in range(r.randint(0, 4)):
        other = r.choice([x for x in values if x.shape == v.shape] or [v])
        match r.randint(0, 8):
            case 0:
                v = ops.tanh(v)
            case 1:
                v = ops.sin(v) * 0.7
            case 2:
                v = v * 0.5 + ops.sin(other)
            case 3:
                v = ops.maximum(v, other)
            case 4 if v.shape == (3, 3):
                v = ops.matmul(v, other) * 0.3
            case 5 if v.shape == (3, 3):
                v = ops.permute(v, (1, 0))
            case 6 if v.ndim:
                total = ops.reshape(ops.sum(v, tuple(range(v.ndim))), (1,) * v.ndim)
                v = v * 0.5 + ops.broadcast_to(total, v.shape) * 0.1
            case 7 if v.ndim:
                v = ops.flip(v, (0,))
            case 8:
                v = ops.where(v > 0, v, v * 0.3)
    return v


def _body(r: random.Random, types: Sequence[TensorType], results: Sequence[TensorType], depth: int) -> Graph:
    builder = Builder("body", locations=False)
    values = [builder.input(None, type_) for type_ in types]
    if depth and r.random() < 0.5:
        values += _control(r, values, depth - 1)
    outputs = []
    for type_ in results:
        start = r.choice([v for v in values if v.type == type_] or [ops.full(type_, 0.5, values[0])])
        outputs.append(_expression(r, [v for v in values if v.dtype is float64], start))
    return builder.finish(outputs)


def _control(r: random.Random, values: Sequence[Value], depth: int) -> list[Value]:
    known = [v for v in values if v.dtype is float64]
    carry = [r.choice(known) for _ in range(r.randint(1, 3))]
    same = [r.choice(known) for _ in range(r.randint(0, 2))]
    carried, fixed = [v.type for v in carry], [v.type for v in same]
    match r.choice(["cond", "scan", "while_loop"]):
        case "cond":
            results = [r.choice(carried) for _ in range(r.randint(1, 3))]
            pred = ops.sum(carry[0], tuple(range(carry[0].ndim))) > 0.1
            branches = [_body(r, carried + fixed, results, depth) for _ in range(2)]
            return list(ops.cond(pred, *carry, *same, then=branches[0], otherwise=branches[1]))
        case "scan":
            length = r.choice([0, 1, 2, 3, 5])
            xs = [_rows(r.choice(known), length) for _ in range(r.randint(0, 2))]
            rows = [x.type.with_shape(x.shape[1:]) for x in xs]
            results = [r.choice(carried + rows) for _ in range(r.randint(0, 2))]
            body = _body(r, carried + rows + fixed, carried + results, depth)
            return list(ops.scan(*carry, *xs, *same, body=body, carries=len(carry), scanned=len(xs), length=length,
                                 reverse=r.random() < 0.5))
    count, steps = len(carry), r.randint(0, 4)
    types = [*carried, TensorType(int64, ()), *fixed]
    builder = Builder("condition", locations=False)
    condition = builder.finish([ops.lt([builder.input(None, type_) for type_ in types][count], steps)])
    builder = Builder("body", locations=False)
    inputs = [builder.input(None, type_) for type_ in types]
    floating = [v for v in inputs if v.dtype is float64]
    starts = [r.choice([v for v in floating if v.type == type_]) for type_ in carried]
    body = builder.finish([*(_expression(r, floating, v) for v in starts), inputs[count] + 1])
    zero = ops.constant(like=carry[0], value=np.zeros((), np.int64))
    return list(ops.while_loop(*carry, zero, *same, condition=condition, body=body, carries=count + 1)[:count])


def _rows(x: Value, length: int) -> Value:
    """Different rows like x."""
    rows = ops.broadcast_to(ops.reshape(x, (1, *x.shape)), (length, *x.shape))
    counted = ops.reshape(ops.iota(like=x, shape=(length,), axis=0, dtype=float64), (length, *(1,) * x.ndim))
    return rows * 0.5 + counted * 0.1
