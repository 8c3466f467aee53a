"""Many numbers to one, in order or not."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import ops
from graphc.expression import Reduction, identity
from graphc.stablehlo.table import EXPANSIONS, writes
from graphc.stablehlo.writer import Operand, Step, Writer, integers
from graphc.types import TensorType, float32, int64

_HALVES = ("float16", "bfloat16")


@writes("sum", "prod")
def _sum(w: Writer, step: Step) -> Operand:
    (x,), dtype = step.operands, step.type.dtype
    axes = step.attrs["axes"] if step.node.op.name == "sum" else (step.attrs["axis"],)
    wide = float32 if dtype.name in _HALVES else dtype
    name, initial = ("add", 0) if step.node.op.name == "sum" else ("multiply", 1)
    return w.cast(_reduce(w, name, w.cast(x, wide), axes, initial), dtype)


@writes("amax", "amin")
def _extreme(w: Writer, step: Step) -> Operand:
    largest = step.node.op.name == "amax"
    return _reduce(w, "maximum" if largest else "minimum", step.operands[0], step.attrs["axes"],
                   identity("max" if largest else "min", step.type.dtype))


def _reduce(w: Writer, op: str, x: Operand, axes: tuple[int, ...], initial: float) -> Operand:
    shape = [size for k, size in enumerate(x.type.shape) if k not in axes]
    start = w.constant(np.asarray(initial).astype(x.type.dtype.numpy))
    return w.emit_many("reduce", [x, start], [x.type.with_shape(shape)], [w.combine(op, x.type.dtype)],
                       dimensions=integers(sorted(axes)))[0]


_RUNNING: dict[str, tuple[str, Reduction | None]] = {
    "cumsum": ("add", "sum"), "cumprod": ("multiply", None), "cummax": ("maximum", "max"), "cummin": ("minimum", "min"),
}


@writes(*_RUNNING)
def _cumulative(w: Writer, step: Step) -> Operand:
    (x,), axis = step.operands, step.attrs["axis"]
    if 0 in x.type.shape:
        return x
    op, reduction = _RUNNING[step.node.op.name]
    initial = 1 if reduction is None else identity(reduction, x.type.dtype)
    length = x.type.shape[axis]
    sizes = [length if k == axis else 1 for k in range(x.type.ndim)]
    low = ", ".join(f"[{length - 1 if k == axis else 0}, 0]" for k in range(x.type.ndim))
    start = w.constant(np.asarray(initial).astype(x.type.dtype.numpy))
    return w.emit_many("reduce_window", [x, start], [x.type], [w.combine(op, x.type.dtype)],
                       window_dimensions=integers(sizes), padding=f"dense<[{low}]> : tensor<{x.type.ndim}x2xi64>")[0]


@writes("argsort")
def _argsort(w: Writer, step: Step) -> Operand:
    """Stable; NaN counts as the largest number."""
    (x,), axis, descending = step.operands, step.attrs["axis"], step.attrs["descending"]
    if 0 in x.type.shape:
        return w.number(0, step.type)
    scalar, place = TensorType(x.type.dtype, ()), TensorType(int64, ())

    def before(pair: list[Operand]) -> list[Operand]:
        a, b = pair[:2]
        if descending:
            a, b = b, a
        less = w.compare("LT", a, b)
        if x.type.dtype.is_floating_point:
            numbers, nan = w.compare("EQ", a, a), w.compare("NE", b, b)
            less = w.same("or", less, w.same("and", numbers, nan))
        return [less]

    comparator = w.region([scalar, scalar, place, place], before)
    return w.emit_many("sort", [x, w.iota(x.type.shape, axis)], [x.type, step.type], [comparator],
                       dimension=f"{axis} : i64", is_stable="true")[1]


def _argtopk(x: Any, axis: int, count: int, descending: bool) -> Any:
    places = ops.argsort(x, axis, descending)
    ends = (*places.shape[:axis], count, *places.shape[axis + 1 :])
    return ops.slice(places, (0,) * places.ndim, ends, (1,) * places.ndim)


EXPANSIONS["argtopk"] = _argtopk
