"""Several nodes that ONNX has one operator for: convolutions with a bias, softmax, pooling, means."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

import numpy as np

from graphc.ir import Node, Value
from graphc.onnx_format.export.activations import match_activation
from graphc.onnx_format.export.attention import match_attention
from graphc.onnx_format.export.matching import (
    Match,
    is_in_place,
    is_kept,
    kept,
    less_its_maximum,
    made_by,
    mean_of,
    number,
    of_channels,
    operator,
    softmax_of,
    stretched,
)
from graphc.onnx_format.export.norms import match_norm, match_response_norm
from graphc.onnx_format.export.products import as_index, reaches_all, write_conv, write_conv_transpose
from graphc.onnx_format.export.recurrent import match_recurrent
from graphc.onnx_format.export.reductions import reduce
from graphc.onnx_format.export.resizing import match_resize
from graphc.onnx_format.export.sampling import match_affine_grid, match_grid_sample, match_pixels_in_a_line
from graphc.onnx_format.export.writer import Names, Step, Writer


def match(node: Node, opset: int, needed: Collection[Value] = ()) -> Match | None:
    """What a node is the end of, and these operators can say, where other nodes need those values."""
    return next((found for found in _matches(node) if found.opset <= opset and found.inside.isdisjoint(needed)), None)


def _matches(node: Node) -> Iterator[Match]:
    if (activation := match_activation(node)) is not None:
        yield activation
    if node.op.name in ("add", "mul"):
        yield from match_norm(node)
    for pattern in _PATTERNS.get(node.op.name, ()):
        found = pattern(node)
        if found is not None:
            yield found


# Softmax


def _softmax(node: Node) -> Match | None:
    x, axes = softmax_of(node.results[0])
    return None if x is None else Match((x,), operator("Softmax", axis=axes[0]))


def _log_softmax(node: Node) -> Match | None:
    """(x - max) - log(sum(exp(x - max)))"""
    x, axes = less_its_maximum(node.operands[0])
    logarithm = made_by(stretched(node.operands[1]), "log", "reshape")
    if logarithm is not None and logarithm.op.name == "reshape":
        logarithm = made_by(logarithm.operands[0], "log")
    total = None if logarithm is None else made_by(kept(logarithm.operands[0]), "sum")
    powers = None if total is None else made_by(total.operands[0], "exp")
    if x is None or total is None or powers is None:
        return None
    if powers.operands[0] is not node.operands[0] or total.attrs["axes"] != axes or not is_in_place(node.operands[1], x, axes):
        return None
    return Match((x,), operator("LogSoftmax", axis=axes[0]))


# Products with a bias


def _gemm(node: Node) -> Match | None:
    """x @ w + bias, and x @ w.T + bias"""
    for product, bias in (node.operands, node.operands[::-1]):
        matmul, added = made_by(product, "matmul"), stretched(bias)
        if matmul is None or product.ndim != 2 or added.ndim != 1 or not product.dtype.is_floating_point:
            continue
        x, weight = matmul.operands
        turned = made_by(weight, "permute")
        if turned is not None and turned.attrs["order"] == (1, 0):
            return Match((x, turned.operands[0], added), operator("Gemm", transB=1))
        return Match((x, weight, added), operator("Gemm"))
    return None


def _conv_with_bias(node: Node) -> Match | None:
    conv, bias = made_by(node.operands[0], "conv", "conv_input_grad"), of_channels(node.operands[1], node.results[0].ndim)
    if conv is None or bias is None or not bias.dtype.is_floating_point:
        return None
    write_op = write_conv
    if conv.op.name == "conv_input_grad":
        if not reaches_all(conv):
            return None
        write_op = write_conv_transpose

    def write(w: Writer, step: Step) -> Names:
        written = write_op(w, Step(conv.op, step.operands, step.names, conv.attrs, step.types, step.location))
        assert written is not None  # as for all floats
        return written

    return Match((*conv.operands, bias), write)


# Reductions


def _write_mean(axes: tuple[int, ...], keepdims: bool) -> Callable[[Writer, Step], str]:
    return lambda w, step: str(w.emit("ReduceMean", step.names[0], w.array(np.array(axes, np.int64)), keepdims=int(keepdims)))


def _mean(node: Node) -> Match | None:
    x, axes = mean_of(node.results[0])
    return None if x is None else Match((x,), _write_mean(axes, node.results[0].ndim == x.ndim))


def _keeping_dimensions(node: Node) -> Match | None:
    """A reduction, and sizes of 1 where dimensions have been."""
    reduced = node.operands[0]
    x, axes = mean_of(reduced)
    if x is not None and is_kept(node.results[0], reduced.type, axes):
        return Match((x,), _write_mean(axes, True))
    inner = made_by(reduced, "sum", "amax", "amin")
    if inner is None or not inner.attrs["axes"] or not is_kept(node.results[0], reduced.type, inner.attrs["axes"]):
        return None
    return Match(inner.operands, lambda w, s: reduce(
        w, Step(inner.op, s.operands, s.names, inner.attrs, s.types, s.location), keepdims=True))


# Pooling


def _maximum(node: Node) -> Match | None:
    """The element at the place of the maximum, as pooling takes it: the sum of all with zeros for the others."""
    chosen = made_by(node.operands[0], "where")
    axes = node.attrs["axes"]
    if chosen is None or len(axes) != 1 or number(chosen.operands[2]) != 0:
        return None
    where, x = made_by(chosen.operands[0], "eq"), chosen.operands[1]
    if where is None or made_by(where.operands[0], "iota") is None:
        return None
    place = made_by(kept(where.operands[1]), "argmax")
    counter = where.operands[0].node
    if place is None or counter is None or place.operands[0] is not x or (place.attrs["axis"],) != axes != (
            counter.attrs["axis"],) or not is_in_place(where.operands[1], x, axes):
        return None
    merged = made_by(x, "reshape")
    if merged is not None and axes == (x.ndim - 1,):
        pooled = _max_pool(merged.operands[0], merged.operands[0].ndim - x.ndim + 1)
        if pooled is not None:
            return pooled
    return Match((x,), lambda w, s: str(w.emit("ReduceMax", s.names[0], w.array(np.array(axes, np.int64)), keepdims=0)))


def _pool_of_maxima(node: Node) -> Match | None:
    count = len(node.attrs["axes"])
    ndim = node.operands[0].ndim
    return _max_pool(node.operands[0], count) if node.attrs["axes"] == tuple(range(ndim - count, ndim)) else None


def _windows(value: Value, count: int) -> tuple[Value, dict[str, list[int]]] | None:
    """What `count` windows move over, along all dimensions behind the first two, and their sizes."""
    if count not in (1, 2, 3) or value.ndim != 2 + 2 * count:
        return None
    found: dict[str, list[int]] = {"kernel_shape": [], "strides": [], "dilations": []}
    for i in reversed(range(count)):
        node = made_by(value, "window")
        if node is None or node.attrs["axis"] != 2 + i:
            return None
        for key, name in (("kernel_shape", "size"), ("strides", "step"), ("dilations", "dilation")):
            found[key].insert(0, node.attrs[name])
        value = node.operands[0]
    return value, found


def _padding(value: Value, fill: float) -> tuple[Value, list[int]]:
    """What was padded with `fill` behind the first two dimensions, and by how much."""
    node = made_by(value, "pad")
    nothing = [0] * (2 * (value.ndim - 2))
    if node is None or node.attrs["value"] != fill or any((*node.attrs["low"][:2], *node.attrs["high"][:2])):
        return value, nothing
    pads = [*node.attrs["low"][2:], *node.attrs["high"][2:]]
    return (node.operands[0], pads) if all(isinstance(n, int) for n in pads) else (value, nothing)


def _max_pool(value: Value, count: int) -> Match | None:
    windows = _windows(value, count)
    if windows is None or not value.dtype.is_floating_point:
        return None
    source, attributes = windows
    x, pads = _padding(source, -math.inf)
    kernel = attributes["kernel_shape"]
    if any(2 * n > size for n, size in zip(pads, kernel * 2)):
        x, pads = source, [0] * len(pads)
    return Match((x,), operator("MaxPool", pads=pads, **attributes))


def _average_pool(node: Node) -> Match | None:
    """The sum of windows over the number of their elements, zeros around the image counted among them."""
    total = made_by(node.operands[0], "sum")
    if total is None:
        return None
    value, axes = total.operands[0], total.attrs["axes"]
    windows = _windows(value, len(axes))
    if windows is None or axes != tuple(range(value.ndim - len(axes), value.ndim)):
        return None
    source, attributes = windows
    kernel = attributes["kernel_shape"]
    if number(node.operands[1]) != math.prod(kernel) or set(attributes.pop("dilations")) != {1}:
        return None
    x, pads = _padding(source, 0.0)
    if any(2 * n > size for n, size in zip(pads, kernel * 2)):
        x, pads = source, [0] * len(pads)
    return Match((x,), operator("AveragePool", pads=pads, count_include_pad=1, **attributes))


# Bounds


def _clip(node: Node) -> Match | None:
    """The bound where a number is beyond it, below or above, else the number"""
    bounds: dict[str, Value] = {}
    x = node.results[0]
    while (chosen := made_by(x, "where")) is not None and chosen.result.dtype.is_floating_point:
        beyond = made_by(chosen.operands[0], "lt", "gt")
        bound = chosen.operands[1]
        if beyond is None or beyond.operands != (chosen.operands[2], bound) or number(bound) is None:
            break
        if beyond.op.name in bounds or "lt" in bounds:
            break  # with the lower bound last it is another function where that is above the upper one
        bounds[beyond.op.name] = stretched(bound)
        x = chosen.operands[2]
    if not bounds:
        return None
    which = [bounds[name] for name in ("lt", "gt") if name in bounds]

    def write(w: Writer, step: Step) -> str:
        given = iter(step.names[1:])
        return str(w.emit("Clip", step.names[0], *(next(given) if name in bounds else "" for name in ("lt", "gt"))))

    return Match((x, *which), write)


# Rows of a table


def _rows(node: Node) -> Match | None:
    """Whole rows: an index that is a vector, stretched along the other dimensions."""
    x, index = node.operands
    axis = node.attrs["axis"]
    line = stretched(index)
    other = [i for i in range(x.ndim) if i != axis]
    if x.ndim < 2 or line is index or line.ndim != x.ndim or any(line.shape[i] != 1 for i in other):
        return None
    if any(str(index.shape[i]) != str(x.shape[i]) for i in other):
        return None

    def write(w: Writer, step: Step) -> str:
        places = w.reshape(as_index(w, step.names[1], line.type), line.type, (line.shape[axis],))
        return str(w.emit("Gather", step.names[0], places, axis=axis))

    return Match((x, line), write)


def _embedding(node: Node) -> Match | None:
    """Whole rows at places in several dimensions."""
    taken = made_by(node.operands[0], "gather")
    rows = None if taken is None else _rows(taken)
    if taken is None or rows is None or taken.attrs["axis"] != 0:
        return None
    x, line = rows.operands
    index = made_by(line, "reshape")
    if index is None or list(map(str, node.results[0].shape)) != list(map(str, (*index.operands[0].shape, *x.shape[1:]))):
        return None
    return Match((x, index.operands[0]), lambda w, step: str(
        w.emit("Gather", step.names[0], as_index(w, step.names[1], step.operands[1].type), axis=0)))


_PATTERNS: dict[str, tuple[Callable[[Node], Match | None], ...]] = {
    "add": (_gemm, _conv_with_bias, match_grid_sample, match_resize),
    "amax": (_pool_of_maxima,),
    "div": (_softmax, match_response_norm, _average_pool, _mean),
    "gather": (match_pixels_in_a_line, match_resize, _rows),
    "matmul": (match_attention,),
    "scan": (match_recurrent,),
    "reshape": (_keeping_dimensions, _embedding, match_affine_grid, match_grid_sample, match_resize),
    "sub": (_log_softmax,),
    "sum": (_maximum, match_resize),
    "where": (_clip, match_grid_sample),
}
