"""An entry of a program as an ONNX model, in memory and as a file."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from graphc.conditions import conditions, relying_on
from graphc.errors import ArgumentError
from graphc.ir import Builder, Value, copy_node
from graphc.onnx_format.export import control, elementwise, movement, products, reductions
from graphc.onnx_format.export.graphs import write_nodes
from graphc.onnx_format.export.values import value_info
from graphc.onnx_format.export.writer import Model, Writer
from graphc.onnx_format.protobuf import element_type, onnx
from graphc.op import OPS
from graphc.package.entry import Entry, free_name, prepare
from graphc.package.quantize import QUANTIZED
from graphc.package.replacing import writing
from graphc.types import TensorType, dtype_of

MIN_OPSET, OPSET, MAX_OPSET = 18, 18, 23
"""Versions of ONNX's operators: the least and the greatest that models can be made for, and the usual one."""

FAMILIES = (control, elementwise, movement, products, reductions)
"""The modules that hold the tables."""

_IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
"""The version of the file format that came with a version of the operators."""
_MOST_INLINE = (1 << 31) - (1 << 24)
"""Bytes of weights up to which a model is one file: a protobuf message is less than 2 GB."""
_SMALLEST_OUTSIDE = 1024
_ALIGNMENT = 4096


def write_onnx(
    entry: Entry,
    weights: Mapping[str, np.ndarray],
    path: str | os.PathLike[str] | None = None,
    *,
    opset: int = OPSET,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    external_data: bool | None = None,
) -> Any:
    """An entry of a program as a `ModelProto`, checked by `onnx.checker`, and written to `path` if one is given.

    Inputs, outputs and weights keep their names, and sizes that may change theirs. Conditions on sizes are not kept, as ONNX
    has none. State is an input with a default, and its next value an output: the model's metadata have the names of both as
    JSON, under `graphc.state`.

    opset
        The version of ONNX's operators, from 18 to 23.
    input_names, output_names
        What inputs and outputs are called, if not as the entry's graph has them. There, an output that is called as an input is
        has a number behind its name.
    external_data
        Whether the weights stand in a file of their own beside the model, `<name>.data`; by default where they come to 2 GB.

    UnsupportedError, with the line that it comes from, for what ONNX has no operator for. ArgumentError for another opset, for
    weights of 2 GB without a path, and for an entry that returns nothing.
    """
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ArgumentError(f"opset {opset}", expected=f"{MIN_OPSET} to {MAX_OPSET}")
    if not entry.graph.outputs:
        raise ArgumentError(f"{entry.graph.name!r} returns no tensor", expected="a result, as ONNX models are run for theirs")
    entry, constants = prepare(entry)
    entry = _with_constants(entry, {**weights, **constants})
    called = [str(value.name) for value in entry.arguments]
    inputs = _names("input_names", input_names, called)
    outputs = _names("output_names", output_names, entry.graph.output_names or ())
    if output_names is None:
        outputs = _unlike(outputs, inputs)
    model, main, state = _graph(entry, {**weights, **constants}, opset, inputs, outputs)
    total = sum(array.nbytes for array in model.initializers.values())
    outside = total >= _MOST_INLINE if external_data is None else external_data
    if path is None and outside:
        raise ArgumentError(f"a model with {total} bytes of weights in a file of their own", expected="a path to write it to")
    helper = onnx("onnx.helper")
    made = helper.make_model(main, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSIONS[opset],
                             producer_name="graphc")
    if state:
        following = {state[name]: outputs[number] for name, number in entry.updates.items()}
        helper.set_model_props(made, {"graphc.state": json.dumps(following)})
    if path is not None and outside:
        _check_without_weights(made, model.initializers)
        _write_outside(made, model.initializers, os.fspath(path))
        return made
    made.graph.initializer.extend(_inline(name, array) for name, array in model.initializers.items())
    onnx("onnx.checker").check_model(made, full_check=True)
    if path is not None:
        with writing(path) as file:
            file.write(made.SerializeToString())
    return made


def _with_constants(entry: Entry, arrays: Mapping[str, np.ndarray]) -> Entry:
    """The entry with its large constants in the graph, not beside it: some of them say which operator their readers are."""
    builder = Builder(entry.graph.name, locations=False)
    new: dict[Value, Value] = {}
    held = []
    for value in entry.graph.inputs:
        array = arrays.get(value.info["constant"]) if "constant" in value.info and QUANTIZED not in value.info else None
        if array is None:
            new[value] = builder.input(value.name, value.type, **value.info)
        else:
            held.append((value, array))
    for value, array in held:
        new[value] = builder.append(OPS["constant"], (), {"value": array}, [value.type]).result
    for node in entry.graph.nodes:
        new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
    return replace(entry, graph=builder.finish([new[v] for v in entry.graph.outputs], entry.graph.output_names))


def _names(what: str, given: Sequence[str] | None, own: Sequence[str]) -> list[str]:
    names = list(own if given is None else given)
    if len(names) != len(own) or not all(isinstance(name, str) and name for name in names):
        raise ArgumentError(f"{what}: {names}", expected=f"a name for each of {', '.join(own)}")
    return names


def _unlike(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """The names, with numbers behind those that others have: Python lets a result be called as an argument is."""
    taken = {*names, *others}
    found = []
    for name in names:
        found.append(free_name(name, taken) if name in others else name)
        taken.add(found[-1])
    return found


def _graph(
    entry: Entry, weights: Mapping[str, np.ndarray], opset: int, inputs: list[str], outputs: list[str]
) -> tuple[Model, Any, dict[str, str]]:
    """What all graphs share, the main graph without its weights, and what the inputs are called that are state."""
    graph = entry.graph
    model = Model(opset)
    bound = entry.weights
    names = dict(zip((i for i in range(len(graph.inputs)) if i not in bound), inputs, strict=True))
    model.taken.update(inputs, outputs)  # what a caller names is never renamed
    if len(model.taken) < len(inputs) + len(outputs):
        twice = next(name for name, count in Counter([*inputs, *outputs]).items() if count > 1)
        raise ArgumentError(f"two inputs or outputs are called {twice!r}", expected="different names, as ONNX needs them",
                            hint="give others by input_names and output_names")
    by_weight: dict[str, str] = {}
    kept: dict[str, TensorType] = {}
    for i, weight in bound.items():
        if weight not in by_weight:
            by_weight[weight] = model.free(weight)
            model.initializers[by_weight[weight]] = weights[weight]
            if weight in entry.state:
                kept[by_weight[weight]] = graph.inputs[i].type
        names[i] = by_weight[weight]
    main = Writer(model)
    given = [(names[i], value.type) for i, value in enumerate(graph.inputs) if i not in bound]
    with relying_on(conditions(value.info for value in graph.inputs)):
        main.learn_sizes(given)
        results = write_nodes(main, graph, [names[i] for i in range(len(graph.inputs))])
    _name_outputs(main, results, outputs)
    taken = [value_info(name, type_) for name, type_ in (*given, *kept.items())]
    made = [value_info(name, value.type) for name, value in zip(outputs, graph.outputs, strict=True)]
    state = {weight: name for weight, name in by_weight.items() if name in kept}
    return model, onnx("onnx.helper").make_graph(main.nodes, graph.name, taken, made), state


def _name_outputs(main: Writer, results: list[str], outputs: list[str]) -> None:
    """Let results be called as the outputs are: a node of their own copies those that other nodes read, too."""
    read = Counter(_names_read(main.nodes))
    read.update(results)
    made = {name: (node, i) for node in main.nodes for i, name in enumerate(node.output)}
    for result, output in zip(results, outputs):
        if result in made and read[result] == 1:
            node, i = made[result]
            node.output[i] = output
        else:
            main.append("Identity", [result], [output])


def _names_read(nodes: Iterable[Any]) -> Iterator[str]:
    """The names that nodes, and those of the graphs inside of them, take."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _names_read(attribute.g.node)


def _check_without_weights(made: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Have a model checked that is not written yet, with inputs for the weights that are going to stand in another file."""
    checked = onnx().ModelProto()
    checked.CopyFrom(made)
    for name, array in arrays.items():
        if array.nbytes < _SMALLEST_OUTSIDE:
            checked.graph.initializer.append(_inline(name, array))
        else:
            element = element_type(dtype_of(array.dtype))
            checked.graph.input.append(onnx("onnx.helper").make_tensor_value_info(name, element, array.shape))
    onnx("onnx.checker").check_model(checked, full_check=True)


def _write_outside(made: Any, arrays: Mapping[str, np.ndarray], path: str) -> None:
    """Write a model, and its weights to a file beside it: both or none of them."""
    data = f"{path}.data"
    with writing(path) as file, writing(data) as data_file:
        for name, array in arrays.items():
            small = array.nbytes < _SMALLEST_OUTSIDE
            made.graph.initializer.append(_inline(name, array) if small else _outside(name, array, data_file, data))
        file.write(made.SerializeToString())
        file.flush()  # before the weights take the place of others


def _inline(name: str, array: np.ndarray) -> Any:
    """A weight as a TensorProto."""
    proto = _described(name, array)
    proto.raw_data = _little_endian(array).tobytes()
    return proto


def _outside(name: str, array: np.ndarray, file: BinaryIO, path: str) -> Any:
    """A weight as a TensorProto that says where in a file its numbers are, which are written there."""
    proto = _described(name, array)
    file.write(bytes(-file.tell() % _ALIGNMENT))
    place = {"location": os.path.basename(path), "offset": file.tell(), "length": array.nbytes}
    file.write(_little_endian(array).reshape(-1).view(np.uint8).data)
    proto.data_location = onnx().TensorProto.EXTERNAL
    for key, value in place.items():
        proto.external_data.add(key=key, value=str(value))
    return proto


def _described(name: str, array: np.ndarray) -> Any:
    return onnx().TensorProto(name=name, data_type=element_type(dtype_of(array.dtype)), dims=array.shape)


def _little_endian(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    return array.byteswap() if sys.byteorder == "big" else array
