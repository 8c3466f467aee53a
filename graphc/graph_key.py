"""By what a graph is known, in this process and in any other.

>>> from graphc.ir import Builder
>>> from graphc.types import TensorType, float32
>>> def double(size):
...     b = Builder("double")
...     x = b.input("x", TensorType(float32, (size,)))
...     return b.finish([x + x])
>>> graph_key(double(3)) == graph_key(double(3)), graph_key(double(3)) == graph_key(double(4))
(True, False)
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from graphc.dims import Dim
from graphc.ir import Graph
from graphc.types import DType, TensorType


class Unspelled(Exception):
    """Something that is no part of what can be written down, such as an object of the user's."""


def graph_key(graph: Graph) -> str:
    """The same for equal graphs, and for those alone: a digest of all that makes a graph, constants included. Unspelled where
    an attribute is nothing that text or a file could hold."""
    if graph.key is None:
        graph.key = _digest("\n".join(_lines(graph)).encode("utf-8", "surrogatepass"))
    return graph.key


def spelled(item: Any) -> str:
    """An attribute, or a tuple of them, as text that tells 1 from 1.0 and True, 0.0 from -0.0, and one NaN from another."""
    if item is None or isinstance(item, (bool, int, str)):
        return repr(item)
    if isinstance(item, float):
        return f"float {_bits(item)}"
    if isinstance(item, complex):
        return f"complex {_bits(item.real)} {_bits(item.imag)}"
    if isinstance(item, tuple):
        return f"({','.join(map(spelled, item))})"
    if isinstance(item, Dim):
        return f"size {item}"
    if isinstance(item, DType):
        return f"dtype {item.name}"
    if isinstance(item, TensorType):
        return f"{item.dtype.name}{spelled(item.shape)} on {item.device!r}"
    if isinstance(item, np.ndarray) and not item.dtype.hasobject:
        return f"array {item.dtype.str}{item.shape} {_digest(item.tobytes())}"
    if isinstance(item, Graph):
        return f"graph {graph_key(item)}"
    raise Unspelled(f"a {type(item).__name__}")


def _lines(graph: Graph) -> list[str]:
    """A line for each part of a graph. Values go by their numbers."""
    types: dict[int, str] = {}  # by identity: inside a trace, to compare sizes is to ask something of them

    def type_text(type_: TensorType) -> str:
        found = types.get(id(type_))
        if found is None:
            found = types[id(type_)] = spelled(type_)
        return found

    number = {value: i for i, value in enumerate(graph.values())}
    lines = [f"{graph.name!r} {graph.output_names!r} {[number[value] for value in graph.outputs]}"]
    for value in graph.inputs:
        info = [(key, spelled(item)) for key, item in sorted(value.info.items())] if value.info else ""
        lines.append(f"{value.name!r} {type_text(value.type)} {info}")
    for node in graph.nodes:
        attrs = [f"{key}={spelled(item)}" for key, item in sorted(node.attrs.items())] if node.attrs else ""
        results = [(value.name, type_text(value.type)) for value in node.results]
        lines.append(f"{node.op.name!r} {[number[v] for v in node.operands]} {attrs} {results}")
    return lines


def _bits(number: float) -> str:
    return struct.pack("<d", number).hex()


def _digest(data: bytes) -> str:
    import hashlib  # which loads OpenSSL

    return hashlib.sha256(data).hexdigest()
