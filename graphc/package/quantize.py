"""Weights stored in fewer bits, and graphs that widen them where they are used.

A weight w becomes q of 8 bits and a scale s for each channel, w = q * s with s = max |w| / 127 over the channel (symmetric,
round to nearest: Jacob et al., "Quantization and Training of Neural Networks", 2018, section 2.1); or it is rounded to a
16-bit float. `cast` and `mul` are ops like any other: they become part of how a product reads its operand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

import graphc.ops as ops
from graphc.errors import ArgumentError
from graphc.ir import Builder, Graph, Node, Value, copy_node
from graphc.package.entry import Entry, weight_name
from graphc.types import TensorType, bfloat16, dtype_of, float16, float32, int8

STORED = {"int8": int8, "bfloat16": bfloat16, "float16": float16}
"""The dtypes that weights may be stored in."""

QUANTIZED = "quantized"
"""An input whose `info` has this is narrower than what it stands for: nothing wide that depends on it is to be kept."""

_MIN_ELEMENTS = 512
"""Smaller weights stay as they are: there is nothing to gain."""


def quantize(
    entries: Mapping[str, Entry], weights: Mapping[str, np.ndarray], dtype: str
) -> tuple[dict[str, Entry], dict[str, np.ndarray]]:
    """The same functions over weights that are stored as "int8", "bfloat16" or "float16".

    Float32 weights of two dimensions and more are narrowed, but for those that a call changes; vectors, such as biases and
    what normalisations scale by, are not. ArgumentError for another dtype, and for infinities and NaN as int8.
    """
    if dtype not in STORED:
        raise ArgumentError(f"weights cannot be stored as {dtype!r}", expected=f"one of {', '.join(STORED)}")
    kept = {name for entry in entries.values() for name in entry.state}
    used = {name for entry in entries.values() for name in entry.weights.values()} - kept
    channels: dict[str, tuple[int, ...]] = {}
    for entry in entries.values():
        for value, axes in _channels(entry.graph).items():
            name = weight_name(value)
            if name is not None and name in used and _is_worth_it(weights[name]):
                channels.setdefault(name, axes)
    narrow = dict(weights)
    scales: dict[str, str] = {}
    for name, axes in channels.items():
        if dtype == "int8":
            scales[name] = _free_name(f"{name}.scale", narrow)
            narrow[name], narrow[scales[name]] = _to_int8(name, weights[name], axes)
        else:
            narrow[name] = weights[name].astype(STORED[dtype].numpy)
    made = {key: replace(entry, graph=_widened(entry.graph, narrow, channels, scales)) for key, entry in entries.items()}
    return made, narrow


def _is_worth_it(array: np.ndarray) -> bool:
    return dtype_of(array.dtype) is float32 and array.ndim >= 2 and array.size >= _MIN_ELEMENTS


def _free_name(name: str, taken: Mapping[str, np.ndarray]) -> str:
    while name in taken:
        name += "_"
    return name


def _to_int8(name: str, array: np.ndarray, channels: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of -127 to 127, and the scales, which have the same dimensions, of size 1 but for those of the channels."""
    others = tuple(axis for axis in range(array.ndim) if axis not in channels)
    largest = np.abs(array).max(axis=others, keepdims=True)
    if not np.isfinite(largest).all():
        raise ArgumentError(f"the weight {name!r} has infinities or NaN, which int8 has not", hint="bfloat16 has")
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    scale = np.maximum(scale, np.finfo(np.float32).tiny)  # a quotient by what is nearly nothing is no number
    return np.rint(array / scale).clip(-127, 127).astype(np.int8), scale


def _channels(graph: Graph) -> dict[Value, tuple[int, ...]]:
    """For each input, the dimensions along which its scale changes: those that the first product with it does not sum over."""
    found: dict[Value, tuple[int, ...]] = {value: (0,) for value in graph.inputs if value.ndim}
    settled: set[Value] = set()
    origins: dict[Value, tuple[Value, tuple[int, ...]]] = {value: (value, tuple(range(value.ndim))) for value in graph.inputs}
    for node in graph.nodes:
        for position, operand in enumerate(node.operands):
            if operand not in origins:
                continue
            source, axes = origins[operand]
            if node.op.name == "permute":
                origins[node.result] = source, tuple(axes[axis] for axis in node.attrs["order"])
            elif (summed := _summed(node, position, operand.ndim)) is not None and source not in settled:
                settled.add(source)
                found[source] = tuple(sorted(set(axes) - {axes[axis] for axis in summed}))
    return found


def _summed(node: Node, position: int, ndim: int) -> tuple[int, ...] | None:
    """The dimensions of an operand that a product sums over; None for what is no product."""
    match node.op.name:
        case "matmul" if ndim >= 2:
            return (ndim - 1,) if position == 0 else (ndim - 2,)
        case "conv" if position == 1:
            return tuple(range(1, ndim))
        case "conv_input_grad" if position == 1 and node.attrs["groups"] == 1:
            return (0, *range(2, ndim))
        case "contract":
            letters = node.attrs["spec"].partition("->")[0].split(",")[position]
            result = node.attrs["spec"].partition("->")[2]
            return tuple(axis for axis, letter in enumerate(letters) if letter not in result)
    return None


def _widened(
    graph: Graph, weights: Mapping[str, np.ndarray], narrowed: Mapping[str, tuple[int, ...]], scales: Mapping[str, str]
) -> Graph:
    """The graph with the narrow weights as inputs, after them their scales, and what makes the wide ones of them."""
    builder = Builder(graph.name, locations=False)
    new: dict[Value, Value] = {}
    for value in graph.inputs:
        name = weight_name(value)
        if name is not None and name in narrowed:
            type_ = TensorType(dtype_of(weights[name].dtype), value.shape)
            new[value] = builder.input(value.name, type_, **value.info, **{QUANTIZED: True})
        else:
            new[value] = builder.input(value.name, value.type, **value.info)
    factors = {}
    for name in sorted({str(weight_name(value)) for value in graph.inputs} & scales.keys()):
        factors[name] = builder.input(None, TensorType(float32, weights[scales[name]].shape), param=scales[name])
    products: dict[Node, Value] = {}
    for value in graph.inputs:
        name = weight_name(value)
        if name is None or name not in narrowed:
            continue
        new[value] = ops.cast(new[value], dtype=float32)
        if name in factors:
            found = _products(graph, value, narrowed[name])
            products.update(dict.fromkeys(found, factors[name]))
            if not found:
                new[value] = ops.mul(new[value], factors[name])
    for node in graph.nodes:
        results: tuple[Value, ...] = copy_node(builder, node, [new[v] for v in node.operands]).results
        if node in products:
            trailing = (1,) * (node.result.ndim - 2) if node.op.name == "conv" else ()
            results = (ops.mul(results[0], ops.reshape(products[node], (products[node].type.size, *trailing))),)
        new.update(zip(node.results, results))
    return builder.finish([new[v] for v in graph.outputs], graph.output_names)


def _products(graph: Graph, weight: Value, channels: tuple[int, ...]) -> list[Node]:
    """The products that a weight is used in, if it is used in nothing else, and its channels are those of their results:
    then these are scaled, which are fewer numbers than the weight's."""
    axes: dict[Value, tuple[int, ...]] = {weight: tuple(range(weight.ndim))}
    products: list[Node] = []
    for node in graph.nodes:
        used = [i for i, operand in enumerate(node.operands) if operand in axes]
        if not used:
            continue
        order = axes[node.operands[used[0]]]
        if node.op.name == "permute":
            axes[node.result] = tuple(order[axis] for axis in node.attrs["order"])
        elif used == [1] and (
            (node.op.name == "matmul" and len(order) == 2 and channels == order[1:])
            or (node.op.name == "conv" and channels == order[:1])
        ):
            products.append(node)
        else:
            return []
    return [] if weight in graph.outputs else products
