"""Movement of data: what is where."""

from __future__ import annotations

import numpy as np

from graphc.stablehlo.table import writes
from graphc.stablehlo.writer import Operand, Step, Writer, integers
from graphc.types import TensorType, bool_, int64


@writes("constant")
def _constant(w: Writer, step: Step) -> Operand:
    return w.constant(step.attrs["value"])


@writes("size")
def _size(w: Writer, step: Step) -> Operand:
    return w.constant(step.attrs["value"], step.attrs["dtype"])


@writes("iota")
def _iota(w: Writer, step: Step) -> Operand:
    return w.iota(step.type.shape, step.attrs["axis"], step.type.dtype)


@writes("permute")
def _permute(w: Writer, step: Step) -> Operand:
    return w.transpose(step.operands[0], step.attrs["order"])


@writes("broadcast_to")
def _broadcast_to(w: Writer, step: Step) -> Operand:
    return w.broadcast(step.operands[0], step.type.shape)


@writes("slice")
def _slice(w: Writer, step: Step) -> Operand:
    (x,) = step.operands
    starts, stops, steps = (list(step.attrs[name]) for name in ("starts", "stops", "steps"))
    for k, size in enumerate(step.type.shape):  # what is empty has no place that it must not begin at
        if size == 0:
            starts[k] = stops[k] = 0
    return w.slice(x, starts, stops, steps)


@writes("slice_update")
def _slice_update(w: Writer, step: Step) -> Operand:
    """What is new in its places, chosen where there are any."""
    base, new = step.operands
    if 0 in new.type.shape:
        return base
    low, between = step.attrs["starts"], [stride - 1 for stride in step.attrs["steps"]]
    high = [n - a - (m + (m - 1) * b) for n, a, m, b in zip(base.type.shape, low, new.type.shape, between)]
    placed = w.pad(new, low, high, 0, between)
    covered = w.pad(w.number(True, new.type.with_dtype(bool_)), low, high, False, between)
    return w.select(covered, placed, base)


@writes("pad")
def _pad(w: Writer, step: Step) -> Operand:
    return w.pad(step.operands[0], step.attrs["low"], step.attrs["high"], step.attrs["value"])


@writes("concat")
def _concat(w: Writer, step: Step) -> Operand:
    return w.concatenate(step.operands, step.attrs["axis"])


@writes("flip")
def _flip(w: Writer, step: Step) -> Operand:
    return w.emit("reverse", step.operands[0], type=step.type, dimensions=integers(step.attrs["axes"]))


@writes("window")
def _window(w: Writer, step: Step) -> Operand:
    """The numbers in the same place of each window, for one place after another."""
    (x,) = step.operands
    axis, stride, dilation = (step.attrs[name] for name in ("axis", "step", "dilation"))
    count, ones = step.type.shape[axis], [1] * x.type.ndim
    if 0 in step.type.shape:
        return w.number(0, step.type)
    steps = [stride if k == axis else 1 for k in range(x.type.ndim)]
    parts = []
    for place in range(step.attrs["size"]):
        starts = [place * dilation if k == axis else 0 for k in range(x.type.ndim)]
        stops = [starts[k] + (count - 1) * stride + 1 if k == axis else size for k, size in enumerate(x.type.shape)]
        part = w.slice(x, starts, stops, steps)
        parts.append(w.reshape(part, (*part.type.shape, 1)))
    return w.concatenate(parts, len(ones))


@writes("fold")
def _fold(w: Writer, step: Step) -> Operand:
    """The sum of what each place of the windows brings along."""
    (x,) = step.operands
    axis, length, stride, dilation = (step.attrs[name] for name in ("axis", "length", "step", "dilation"))
    rest = list(x.type.shape[:-1])
    total = w.number(0, step.type)
    if 0 in x.type.shape:
        return total
    for place in range(x.type.shape[-1]):
        part = w.slice(x, [0] * len(rest) + [place], [*rest, place + 1], [1] * x.type.ndim)
        low = [place * dilation if k == axis else 0 for k in range(len(rest))]
        between = [stride - 1 if k == axis else 0 for k in range(len(rest))]
        high = [length - low[k] - (rest[k] - 1) * stride - 1 if k == axis else 0 for k in range(len(rest))]
        total = w.same("add", total, w.pad(w.reshape(part, rest), low, high, 0, between))
    return total


@writes("diagonal", "diagonal_update", "as_strided")
def _places(w: Writer, step: Step) -> Operand:
    """By the numbers of the places that the op's own definition takes elements from."""
    sizes = [int(np.prod(x.type.shape)) for x in step.operands]
    starts = np.cumsum([0, *sizes])
    numbered = [start + np.arange(n).reshape(x.type.shape) for x, n, start in zip(step.operands, sizes, starts)]
    index = np.asarray(step.node.op.ref(*numbered, **step.attrs), np.int64)
    if index.size == 0:
        return w.number(0, step.type)
    flat = w.concatenate([w.reshape(x, (n,)) for x, n in zip(step.operands, sizes)], 0)
    places = w.constant(index.reshape(-1, 1))
    taken = w.emit(
        "gather", flat, places, type=step.type.with_shape((index.size,)), slice_sizes=integers([1]),
        dimension_numbers="#stablehlo.gather<offset_dims = [], collapsed_slice_dims = [0], start_index_map = [0], "
        "index_vector_dim = 1>",
    )  # fmt: skip
    return w.reshape(taken, step.type.shape)


@writes("gather")
def _gather(w: Writer, step: Step) -> Operand:
    x, index = step.operands
    if 0 in step.type.shape:
        return w.number(0, step.type)
    every = list(range(x.type.ndim))
    return w.emit(
        "gather", x, coordinates(w, index, step.attrs["axis"]), type=step.type, slice_sizes=integers([1] * x.type.ndim),
        dimension_numbers=f"#stablehlo.gather<offset_dims = [], collapsed_slice_dims = {every}, start_index_map = {every}, "
        f"index_vector_dim = {x.type.ndim}>",
    )  # fmt: skip


_COMBINED = {"scatter_add": "add", "scatter_mul": "multiply", "scatter_max": "maximum", "scatter_min": "minimum"}


@writes(*_COMBINED, "scatter_update")
def _scatter(w: Writer, step: Step) -> Operand:
    base, index, src = step.operands
    if 0 in src.type.shape:
        return base
    every, scalar = list(range(base.type.ndim)), TensorType(base.type.dtype, ())
    name = _COMBINED.get(step.node.op.name)
    combine = w.region([scalar] * 2, lambda pair: pair[1:]) if name is None else w.combine(name, base.type.dtype)
    return w.emit_many(
        "scatter", [base, coordinates(w, index, step.attrs["axis"]), src], [step.type], [combine],
        scatter_dimension_numbers=f"#stablehlo.scatter<inserted_window_dims = {every}, scatter_dims_to_operand_dims = {every}, "
        f"index_vector_dim = {base.type.ndim}>",
    )[0]  # fmt: skip


def coordinates(w: Writer, index: Operand, axis: int) -> Operand:
    """Where an index along one dimension is, in all dimensions: these stand side by side in a last one."""
    shape, place = index.type.shape, w.cast(index, int64)
    parts = [place if k == axis else w.iota(shape, k) for k in range(len(shape))]
    return w.concatenate([w.reshape(part, (*shape, 1)) for part in parts], len(shape))
