"""Norms, which are several nodes of a graph, as ONNX's operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import graphc.ops as ops
from graphc.ir import Builder, Graph, Node, Value, rebuild
from graphc.onnx_format.export.matching import (
    Match,
    is_by_channel,
    is_in_place,
    kept,
    made_by,
    mean_of,
    number,
    of_channels,
    operator,
    stretched,
)
from graphc.onnx_format.export.writer import Step, Writer
from graphc.passes.cse import cse
from graphc.types import Size, float32

_PARTS = (ops.standardize, ops.squared_deviations)


def spelled_out(graph: Graph) -> Graph:
    """The graph with the parts of norms by the ops that the patterns below are made of."""
    if not any(node.op in _PARTS for node in graph.nodes):
        return graph

    def spell_out(builder: Builder, node: Node, operands: tuple[Value, ...]) -> tuple[Value] | None:
        make = node.op.scalar or node.op.decompose
        return (make(*operands, **node.attrs),) if node.op in _PARTS and make is not None else None

    return cse(rebuild(graph, spell_out))


def match_norm(node: Node) -> list[Match]:
    """What a node is the end of, the best first."""
    patterns = (_batch_norm, _scaled_and_shifted, _group_norm) if node.op.name == "add" else (_scaled, _rms_norm, _alone)
    return [found for pattern in patterns if (found := pattern(node)) is not None]


# By numbers that are known


def _batch_norm(node: Node) -> Match | None:
    """(x - mean) * (rsqrt(variance + epsilon) * weight) + bias, by numbers for each channel"""
    ndim = node.results[0].ndim
    scaled, bias = made_by(node.operands[0], "mul"), of_channels(node.operands[1], ndim)
    if scaled is None or bias is None:
        return None
    centered, factor = made_by(scaled.operands[0], "sub"), made_by(_peeled(scaled.operands[1]), "mul")
    mean = None if centered is None else of_channels(centered.operands[1], ndim)
    if centered is None or factor is None or mean is None:
        return None
    variance, epsilon = _inverse_deviation(_peeled(factor.operands[0]))
    if variance is None or epsilon is None:
        return None
    vectors = (_peeled(factor.operands[1]), bias, mean, _peeled(variance))
    if any(v.type != bias.type for v in vectors) or not is_by_channel(scaled.operands[1], bias.shape[0], ndim):
        return None
    return Match((centered.operands[0], *vectors), operator("BatchNormalization", epsilon=epsilon))


def _peeled(value: Value) -> Value:
    """What was given other dimensions of size 1, and stretched."""
    while (node := made_by(value, "broadcast_to", "reshape")) is not None:
        value = node.operands[0]
    return value


def _inverse_deviation(value: Value) -> tuple[Value | None, float | None]:
    """The variance and the number of rsqrt(variance + number)."""
    root = made_by(value, "rsqrt")
    total = None if root is None else made_by(root.operands[0], "add")
    return (None, None) if total is None else (total.operands[0], number(total.operands[1]))


# By those of the input


@dataclass(frozen=True)
class _Standard:
    """(x - mean) * rsqrt(mean of squares + epsilon)"""

    x: Value
    axes: tuple[int, ...]
    epsilon: float

    @property
    def is_of_last(self) -> bool:
        return self.axes == tuple(range(self.axes[0], self.x.ndim))

    @property
    def is_of_images(self) -> bool:
        """Whether each channel of each image is a whole. In single precision: runtimes have no other for it."""
        return self.x.ndim > 2 and self.axes == tuple(range(2, self.x.ndim)) and self.x.dtype is float32


def _standard(value: Value) -> _Standard | None:
    norm = made_by(value, "mul")
    centered = None if norm is None else made_by(norm.operands[0], "sub")
    if norm is None or centered is None:
        return None
    variance, epsilon = _inverse_deviation(stretched(norm.operands[1]))
    if variance is None or epsilon is None:
        return None
    squares, axes = mean_of(kept(variance))
    x, same_axes = mean_of(kept(centered.operands[1]))
    if x is None or x is not centered.operands[0] or axes != same_axes or not _is_square(squares, centered.result):
        return None
    if not is_in_place(centered.operands[1], x, axes) or not is_in_place(norm.operands[1], x, axes):
        return None
    return _Standard(x, axes, epsilon)


def _is_square(value: Value | None, of: Value) -> bool:
    node = None if value is None else made_by(value, "mul")
    return node is not None and all(operand is of for operand in node.operands)


def _scaled_and_shifted(node: Node) -> Match | None:
    scaled, bias = made_by(node.operands[0], "mul"), node.operands[1]
    found = None if scaled is None else _standard(scaled.operands[0])
    if scaled is None or found is None:
        return None
    weight, shape = scaled.operands[1], node.results[0].shape
    if found.is_of_last and _is_of_shape(shape[found.axes[0] :], stretched(weight), stretched(bias)):
        return Match((found.x, stretched(weight), stretched(bias)),
                     operator("LayerNormalization", axis=found.axes[0], epsilon=found.epsilon))
    by_channel = [of_channels(value, len(shape)) for value in (weight, bias)]
    if found.is_of_images and by_channel[0] is not None and by_channel[1] is not None:
        return Match((found.x, by_channel[0], by_channel[1]), operator("InstanceNormalization", epsilon=found.epsilon))
    return None


def _is_of_shape(shape: tuple[Size, ...], *values: Value) -> bool:
    return all(tuple(value.shape) == tuple(shape) for value in values)


def _scaled(node: Node) -> Match | None:
    found, weight = _standard(node.operands[0]), stretched(node.operands[1])
    if found is None or not found.is_of_last or not _is_of_shape(found.x.shape[found.axes[0] :], weight):
        return None
    return Match((found.x, weight), operator("LayerNormalization", axis=found.axes[0], epsilon=found.epsilon))


def _alone(node: Node) -> Match | None:
    """Without weights: ONNX's operators have them."""
    found = _standard(node.results[0])
    if found is None:
        return None
    x, axes, epsilon = found.x, found.axes, found.epsilon
    if found.is_of_images and isinstance(channels := x.shape[1], int):

        def write(w: Writer, step: Step) -> str:
            ones, zeros = (w.array(np.full(channels, n, np.float32)) for n in (1, 0))
            return str(w.emit("InstanceNormalization", step.names[0], ones, zeros, epsilon=epsilon))

        return Match((x,), write)
    shape = [size for size in x.shape[axes[0] :] if isinstance(size, int)]
    if not found.is_of_last or len(shape) < len(axes):
        return None
    return Match((x,), lambda w, step: str(w.emit("LayerNormalization", step.names[0], w.array(
        np.ones(shape, x.dtype.numpy)), axis=axes[0], epsilon=epsilon)))


def _group_norm(node: Node) -> Match | None:
    """Images of another shape, in which groups of channels are one, standardised, scaled and shifted by channel"""
    shape = node.results[0].shape
    scaled, bias = made_by(node.operands[0], "mul"), of_channels(node.operands[1], len(shape))
    weight = None if scaled is None else of_channels(scaled.operands[1], len(shape))
    shaped = None if scaled is None else made_by(scaled.operands[0], "reshape")
    found = None if shaped is None else _standard(shaped.operands[0])
    merged = None if found is None else made_by(found.x, "reshape")
    if bias is None or weight is None or found is None or merged is None or not found.is_of_images or found.x.ndim != 3:
        return None
    x, groups = merged.operands[0], found.x.shape[1]
    if tuple(x.shape) != tuple(shape) or str(x.shape[0]) != str(found.x.shape[0]) or not isinstance(groups, int):
        return None
    return Match((x, weight, bias), operator("GroupNormalization", num_groups=groups, epsilon=found.epsilon), opset=21)


def _rms_norm(node: Node) -> Match | None:
    """x * rsqrt(mean of squares + epsilon) * weight, over the last dimensions"""
    norm, weight = made_by(node.operands[0], "mul"), stretched(node.operands[1])
    if norm is None:
        return None
    x = norm.operands[0]
    power, epsilon = _inverse_deviation(stretched(norm.operands[1]))
    if power is None or epsilon is None:
        return None
    squares, axes = mean_of(kept(power))
    if not _is_square(squares, x) or axes != tuple(range(axes[0], x.ndim)) or not _is_of_shape(x.shape[axes[0] :], weight):
        return None
    if not is_in_place(norm.operands[1], x, axes):
        return None
    return Match((x, weight), operator("RMSNormalization", axis=axes[0], epsilon=epsilon), opset=23)


def match_response_norm(node: Node) -> Match | None:
    """x / (k + alpha * mean of the squares of neighbouring channels)^beta, of images and as many channels before as behind:
    runtimes have no other."""
    x, root = node.operands[0], made_by(node.operands[1], "pow")
    shifted = None if root is None else made_by(root.operands[0], "add")
    scaled = None if shifted is None else made_by(shifted.operands[0], "mul")
    mean = None if scaled is None else made_by(scaled.operands[0], "div")
    total = None if mean is None else made_by(mean.operands[0], "sum")
    windows = None if total is None else made_by(total.operands[0], "window")
    padded = None if windows is None else made_by(windows.operands[0], "pad")
    if root is None or shifted is None or scaled is None or mean is None or total is None or windows is None or padded is None:
        return None
    numbers = [number(part.operands[1]) for part in (root, shifted, scaled, mean)]
    size, half = windows.attrs["size"], windows.attrs["size"] // 2
    beside = (0, half, *(0 for _ in x.shape[2:]))
    if x.ndim != 4 or x.dtype is not float32 or not size % 2 or numbers[3] != size or None in numbers:
        return None
    if (windows.attrs["axis"], windows.attrs["step"], windows.attrs["dilation"], total.attrs["axes"]) != (1, 1, 1, (4,)):
        return None
    if not _is_square(padded.operands[0], x) or padded.attrs["value"] != 0 or {padded.attrs["low"], padded.attrs["high"]} != {
            beside}:
        return None
    beta, bias, alpha, _ = numbers
    return Match((x,), operator("LRN", size=size, alpha=alpha, beta=beta, bias=bias))
