"""Printing graphs. What is printed is read back exactly: `parse_graph(print_graph(graph)) == graph`.

    graph @forward(%x: float32[N, 784], %w: float32[784, 10] {param = "fc.weight"}) -> float32[N, 10] {
      %0 = matmul(%x, %w) : float32[N, 10]
      %scale = constant() {value = 0.5} : float32[]
      %1 = broadcast_to(%scale) {shape = [N, 10]} : float32[N, 10]
      %2 = mul(%0, %1) : float32[N, 10]
      return %2 as "logits"
    }

A value without a name gets a number; a name that several values share is told apart by a suffix, as in `%x` and `%x~1`,
that is no part of it. Whatever is not an identifier is quoted: `%"a b"`. Attributes are written

    true  -3  0.5  -inf  nan  "text"  float32  none  [1, [2, 3]]    Python's and NumPy's values; a dtype; None; tuples
    1.0-2.5j                                                        complex numbers
    N  2*N + 1  size(inf)                                           sizes; `size` around those that look like others
    [[0.5, -0.0]]  dense<"AAAAPw==">                                the elements of a constant of the result's type;
                                                                    dense: little-endian bytes in base64
    graph @step(%x: float32[]) -> float32[] { ... }                 the graphs that control flow runs

and integers and floats are told apart by the point or the exponent.
"""

from __future__ import annotations

import base64
import json
import math
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from graphc.dims import Dim
from graphc.ir import Graph, Node, Value, is_name
from graphc.types import DTYPES, DType, TensorType

RESERVED = frozenset({"true", "false", "none", "inf", "nan", "graph", *DTYPES})
"""Words of the attribute syntax: a size whose symbol is called so is written `size(inf)`."""

_INLINE_ELEMENTS = 32  # constants with more elements are printed as bytes
_LINE_LENGTH = 120


def print_graph(graph: Graph, *, locations: bool = False) -> str:
    """The graph as text, without a newline at the end.

    With `locations`, each node is followed by a comment that says which line of the user's code it comes from.
    """
    names = value_names(graph)
    lines = [_signature(graph, names)]
    for node in graph.nodes:
        comment = f"  # {' '.join(str(node.location).split())}" if locations and node.location else ""
        text = print_node(node, names, locations=locations)
        lines.append(f"{textwrap.indent(text, '  ')}{comment}")
    lines += [f"  {_return(graph, names)}", "}"]
    return "\n".join(lines)


class ValueNames(dict[Value, str]):
    """How each value of a graph is written. A value that is not the graph's is written so that it stands out."""

    def __missing__(self, value: Value) -> str:
        return f"%<undefined {value.name or value.index}>"


def value_names(graph: Graph) -> ValueNames:
    """How the graph's values are written: `%x`, `%0`, `%"a b"`, `%x~1`."""
    names = ValueNames()
    repeats: dict[str, int] = {}
    unnamed = 0
    for value in graph.values():
        if value.name is None:
            names[value] = f"%{unnamed}"
            unnamed += 1
            continue
        text = _quote(str(value.name))
        count = repeats[text] = repeats.get(text, -1) + 1
        names[value] = f"%{text}~{count}" if count else f"%{text}"
    return names


def print_node(node: Node, names: Mapping[Value, str], *, locations: bool = False) -> str:
    """A node: `%1 = permute(%0) {order = [1, 0]} : float32[3, 2]`. One line, but for graphs among the attributes."""
    results = ", ".join(names[value] for value in node.results)
    operands = ", ".join(names[value] for value in node.operands)
    attributes = _attributes({name: node.attrs[name] for name in _attribute_order(node)}, locations)
    types = print_types(value.type for value in node.results)
    return f"{f'{results} = ' if results else ''}{node.op.name}({operands}){attributes} : {types}"


def print_types(types: Iterable[TensorType]) -> str:
    """One type as it is; none or several in parentheses."""
    texts = list(map(str, types))
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def print_attribute(attribute: Any) -> str:
    """An attribute's value. One that the textual form has no words for is printed as `<repr>`, which does not parse."""
    if attribute is None:
        return "none"
    if isinstance(attribute, bool):
        return "true" if attribute else "false"
    if type(attribute) is int:
        return str(attribute)
    if isinstance(attribute, float):
        return repr(float(attribute))
    if isinstance(attribute, complex):
        return _complex(repr(attribute.real), repr(attribute.imag))
    if isinstance(attribute, str):
        return _string(attribute)
    if isinstance(attribute, DType):
        return attribute.name
    if isinstance(attribute, Dim):
        text = str(attribute)
        return f"size({text})" if "(" in text or "//" in text or attribute.symbols() & RESERVED else text
    if isinstance(attribute, tuple):
        return f"[{', '.join(map(print_attribute, attribute))}]"
    if isinstance(attribute, np.ndarray):
        return print_array(attribute)
    if isinstance(attribute, Graph):
        return print_graph(attribute)
    return f"<{attribute!r}>"


def print_array(array: np.ndarray) -> str:
    """An array's elements, exactly: as numbers where that is short and says everything, else as bytes."""
    if array.size <= _INLINE_ELEMENTS and array.dtype.names is None:
        elements = [_element(item) for item in array.flat]
        # a NaN's payload and sign are not in the word "nan"
        if not any("nan" in text for text in elements) or _plain_nans(array):
            return _nested(elements, array.shape)
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return f'dense<"{base64.b64encode(data).decode("ascii")}">'


def _signature(graph: Graph, names: Mapping[Value, str]) -> str:
    inputs = [f"{names[value]}: {value.type}{_attributes(dict(value.info))}" for value in graph.inputs]
    head, tail = f"graph @{_quote(graph.name)}(", f") -> {print_types(v.type for v in graph.outputs)} {{"
    line = head + ", ".join(inputs) + tail
    if len(line) <= _LINE_LENGTH or not inputs:
        return line
    return head + "".join(f"\n    {text}," for text in inputs).removesuffix(",") + "\n" + tail


def _return(graph: Graph, names: Mapping[Value, str]) -> str:
    outputs = [names[value] for value in graph.outputs]
    if graph.output_names is not None:
        outputs = [f"{value} as {_string(name)}" for value, name in zip(outputs, graph.output_names)]
    return f"return {', '.join(outputs)}".rstrip()


def _attribute_order(node: Node) -> list[str]:
    """The order of the op's record, so that equal graphs have the same text; what the record does not know comes last."""
    known = [name for name in node.op.attrs if name in node.attrs]
    return known + sorted(set(node.attrs) - set(known))


def _attributes(attributes: Mapping[str, Any], locations: bool = False) -> str:
    """In braces on one line; with graphs, an attribute a line."""
    if not attributes:
        return ""
    texts = [
        f"{_quote(name)} = {print_graph(a, locations=locations) if isinstance(a, Graph) else print_attribute(a)}"
        for name, a in attributes.items()
    ]
    if any(isinstance(attribute, Graph) for attribute in attributes.values()):
        return " {\n" + ",\n".join(textwrap.indent(text, "  ") for text in texts) + "\n}"
    return f" {{{', '.join(texts)}}}"


def _quote(name: str) -> str:
    return name if is_name(name) else _string(name)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _element(item: Any) -> str:
    """An element of an array, a NumPy scalar, so that reading it as a Python number first gives the same bits."""
    if isinstance(item, np.bool_):
        return "true" if item else "false"
    if isinstance(item, np.integer):
        return str(item)
    if isinstance(item, np.complexfloating):
        return _complex(_element(item.real), _element(item.imag))
    short = str(item)
    if short.removeprefix("-").isdigit():
        short += ".0"  # as bfloat16 is written
    return short if math.isnan(item) or type(item)(float(short)) == item else repr(float(item))


def _complex(real: str, imaginary: str) -> str:
    return f"{real}{'' if imaginary.startswith('-') else '+'}{imaginary}j"


def _plain_nans(array: np.ndarray) -> bool:
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag])
    nans = array[np.isnan(array)]
    return nans.tobytes() == np.full(nans.shape, math.nan, array.dtype).tobytes()


def _nested(elements: list[str], shape: tuple[int, ...]) -> str:
    """The elements in row-major order as lists inside lists; an empty array is `[]` whatever its shape."""
    if not shape:
        return elements[0]
    if not elements:
        return "[]"
    step = len(elements) // shape[0]
    return f"[{', '.join(_nested(elements[i : i + step], shape[1:]) for i in range(0, len(elements), step))}]"

