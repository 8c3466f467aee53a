"""ONNX models as programs: read, checked, and turned into graphs."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from graphc.dim_text import parse_dim
from graphc.dims import Dim
from graphc.errors import ArgumentError, ArgumentTypeError, PackageError, ShapeError
from graphc.ir import Builder
from graphc.onnx_format.protobuf import onnx
from graphc.onnx_format.reader import (
    control,
    elementwise,
    indexing,
    movement,
    normalization,
    pooling,
    products,
    quantization,
    recurrent,
    reductions,
    resizing,
    sampling,
    signal,
)
from graphc.onnx_format.reader.convert import Converter, depends_on
from graphc.onnx_format.reader.limits import BadModel, Limits, NeedsContent
from graphc.onnx_format.reader.scope import Known, Scope, Weights, free_name, identifier
from graphc.onnx_format.reader.tensors import tensor_dtype
from graphc.package import Entry
from graphc.package.entry import weight_name
from graphc.passes import pipeline
from graphc.runtime import MAIN, Program
from graphc.types import DType, Shape, TensorType, dtype_of
from graphc.verify import verify

FAMILIES = (
    control, elementwise, indexing, movement, normalization, pooling, products, quantization, recurrent, reductions, resizing,
    sampling, signal,
)  # fmt: skip
"""The modules that hold the table of operators."""

_MOST_CONTENT = 4096
"""Elements of an input that may decide on shapes without being named a constant."""
_MOST_KEPT = 64
_MOST_NESTED = 100
"""Messages inside of each other, as protobuf allows them."""


def read_onnx(
    source: str | os.PathLike[str] | BinaryIO | bytes, *, constants: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Sequence[int | str]] | None = None, limits: Limits | None = None, backend: str | None = None,
) -> OnnxModel:
    """Read an ONNX model: a path, an open file, or its bytes.

    constants
        Inputs that are to be the same for every call, by name.
    shapes
        Shapes of inputs by name, instead of those in the model: numbers, and names of sizes that may change.
    limits
        How much a model may ask for before it is refused.
    backend
        Which back end computes: "llvm" or "reference".

    Nothing in a model is executed, sizes are checked before anything is allocated, and weights in files of their own are read
    from the model's folder alone. PackageError, a ValueError, says what is wrong with a model, and which node it is.
    """
    name, folder = "the model", None
    if isinstance(source, (str, os.PathLike)):
        name, folder = os.path.basename(os.fspath(source)), Path(source).resolve().parent
        data = Path(source).read_bytes()
    else:
        data = source if isinstance(source, bytes) else source.read()
    try:
        return OnnxModel(_parsed(data), folder, constants or {}, shapes or {}, limits or Limits(), name, backend)
    except BadModel as error:
        raise _refused(name, error) from None


def _refused(name: str, error: BadModel) -> PackageError:
    return PackageError(f"{name}: {error.reason}", expected=error.expected, got=error.got, hint=error.hint)


def _parsed(data: bytes) -> Any:
    try:
        proto = onnx().ModelProto.FromString(data)
    except Exception as error:  # protobuf's own kinds differ from version to version
        if type(error).__module__.startswith("google.protobuf"):
            raise BadModel(f"it is not an ONNX model: {error}") from None
        raise
    if not proto.HasField("graph") or not proto.opset_import:
        raise BadModel("it is not an ONNX model: there is no graph in it, or no version of the operators")
    _check_texts(proto)
    return proto


def _check_texts(message: Any, depth: int = 0) -> None:
    """BadModel where a name in it is not text: such are given as bytes."""
    for field, value in message.ListFields():
        values = [value] if isinstance(value, (str, bytes)) or hasattr(value, "ListFields") else value
        if field.type == field.TYPE_STRING and any(isinstance(text, bytes) for text in values):
            raise BadModel(f"the {field.name} of a {type(message).__name__} is not UTF-8 text")
        if field.type == field.TYPE_MESSAGE and depth < _MOST_NESTED:
            for inner in values:
                _check_texts(inner, depth + 1)


class OnnxModel:
    """A model that has been read. Calling it runs it on arrays.

    Where inputs decide on shapes, such as the second one of Reshape, a graph is made for each of their values; and one for each
    of the shapes of its inputs, where the model does not stand for all sizes at once.
    """

    def __init__(
        self, proto: Any, folder: Path | None, constants: Mapping[str, Any], shapes: Mapping[str, Sequence[int | str]],
        limits: Limits, name: str, backend: str | None,
    ) -> None:
        self.name = name
        self.backend = backend
        self._proto, self._folder, self._limits = proto, folder, limits
        self._opsets = {"" if o.domain == "ai.onnx" else o.domain: int(o.version) for o in proto.opset_import}
        self._functions = _functions(proto)
        graph = proto.graph
        defaults = {tensor.name for tensor in graph.initializer}
        given = [value for value in graph.input if value.name not in defaults]
        if len({value.name for value in given}) < len(given):
            raise BadModel("two inputs have one name")
        if unknown := (constants.keys() | shapes.keys()) - {value.name for value in graph.input}:
            raise ArgumentError(f"{name} has no input {min(unknown)!r}",
                                expected=f"some of {', '.join(value.name for value in graph.input)}")
        self._given = [value.name for value in given if value.name not in constants]
        self._types = {value.name: _declared(value, i, shapes.get(value.name)) for i, value in enumerate(graph.input)}
        self._constants = {key: np.asarray(array) for key, array in constants.items()}
        self.deciding: tuple[str, ...] = ()
        """The inputs whose numbers decide on shapes."""
        self._by_shape: ShapeError | None = None
        self._programs: dict[Any, Program] = {}
        self._lock = threading.Lock()
        self._program = self._first()

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs in the model."""
        return tuple(self._given)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the results in the model."""
        return tuple(value.name for value in self._proto.graph.output)

    @property
    def program(self) -> Program:
        """The program for all inputs; ArgumentError where a graph is made for each of some values or shapes."""
        if self._program is None:
            if self.deciding:
                raise ArgumentError(f"{self.name}: the numbers in {', '.join(self.deciding)} decide on shapes",
                                    hint="give them as constants={name: array} when the model is loaded")
            assert self._by_shape is not None  # the only other reason
            raise ArgumentError(f"{self.name} does not stand for all sizes: {self._by_shape.problem}",
                                hint="give the shapes as shapes={name: (...)} when the model is loaded")
        return self._program

    @property
    def is_made_for_each_call(self) -> bool:
        """Whether there are programs for the values or shapes of some calls, and none for all."""
        return self._program is None

    def program_for(self, arrays: Sequence[np.ndarray]) -> Program:
        """The program that takes these inputs, in order."""
        if self._program is not None:
            return self._program
        if len(arrays) != len(self._given):
            raise ArgumentTypeError(f"{self.name} takes {len(self._given)} inputs", expected=", ".join(self._given),
                                    got=str(len(arrays)))
        named = dict(zip(self._given, map(np.asarray, arrays)))
        while True:
            contents = {name: named[name] for name in self.deciding}
            shapes = {name: array.shape for name, array in named.items()} if self._by_shape is not None else {}
            key = tuple((k, a.shape, a.tobytes()) for k, a in contents.items()), tuple(shapes.items())
            with self._lock:
                found = self._programs.get(key)
            if found is not None:
                return found
            try:
                made = self._convert(contents, shapes)
            except NeedsContent as error:
                self._decides(error, named)
                continue
            except BadModel as error:
                raise _refused(self.name, error) from None
            with self._lock:
                self._programs[key] = made
                while len(self._programs) > _MOST_KEPT:
                    del self._programs[next(iter(self._programs))]
            return made

    def inputs_of(self, arrays: Sequence[Any]) -> list[Any]:
        """Those of the inputs that the program for them takes."""
        return [array for name, array in zip(self._given, arrays, strict=True) if name not in self.deciding]

    def __call__(self, *arrays: Any, **named: Any) -> tuple[np.ndarray, ...]:
        """The results for the inputs, in order or by name, as arrays."""
        given = [*arrays, *(named[name] for name in self._given[len(arrays) :] if name in named)]
        if len(given) != len(self._given) or len(arrays) + len(named) != len(given):
            raise ArgumentTypeError(f"{self.name} takes {len(self._given)} inputs", expected=", ".join(self._given),
                                    got=str(len(arrays) + len(named)))
        program = self.program_for([np.asarray(array) for array in given])
        return tuple(program.main.compute(self.inputs_of(given)))

    # Making programs

    def _first(self) -> Program | None:
        """The program for all inputs, if there is one for all values and shapes."""
        while True:
            symbolic = any(type_ is None or not type_.is_static for type_ in map(self._types.get, self._given))
            try:
                return self._convert({}, {}) if not self.deciding else None
            except NeedsContent as error:
                self._decides(error, {})
            except ShapeError as error:
                if not symbolic:
                    raise PackageError(f"{self.name}: {error.problem}", expected=error.expected, got=error.got) from None
                self._by_shape = error
                return None

    def _decides(self, error: NeedsContent, arrays: Mapping[str, np.ndarray]) -> None:
        """Inputs that decide on shapes, from now on."""
        reached = depends_on(error.names, self._proto.graph.node, set(self._given))
        found = [name for name in self._given if name in reached]
        large = [name for name in found if _elements(self._types[name], arrays.get(name)) > _MOST_CONTENT]
        floats = [name for name in found if name not in large and self._real(name)]
        if not found or set(found) <= set(self.deciding) or large or floats:
            what = f", which depends on the inputs {', '.join(found)}" if found else ""
            raise BadModel(f"{error.why}{what}", expected="numbers that are known, or small inputs of integers",
                           hint="give inputs that are always the same as constants={name: array}")
        self.deciding = tuple(name for name in self._given if name in found or name in self.deciding)

    def _real(self, name: str) -> bool:
        """Whether an input holds measurements, which are another number each time, rather than sizes."""
        type_ = self._types[name]
        return type_ is not None and type_.dtype.is_differentiable and not (type_.is_static and type_.size <= 8)

    def _convert(self, contents: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> Program:
        """A program for inputs with these numbers and shapes."""
        graph = self._proto.graph
        builder, weights = Builder(identifier(graph.name or "model"), locations=False), Weights()
        scope = Scope(builder, weights)
        taken: set[Any] = set()
        for name, array in {**self._constants, **contents}.items():
            declared = self._types[name]
            if declared is not None and dtype_of(array.dtype) is not declared.dtype:
                raise ArgumentError(f"{self.name}: {name!r} has another dtype", expected=str(declared), got=str(array.dtype))
            scope.names[name] = Known(array, dtype_of(array.dtype))
        for name in self._given:
            if name in contents:
                continue
            type_ = self._types[name]
            if name in shapes:
                type_ = TensorType(self._dtype(name), shapes[name])
            if type_ is None:
                raise ShapeError(f"the number of dimensions of {name!r} is not known")
            own = free_name(identifier(name), taken)
            taken.add(own)
            scope.names[name] = builder.input(own, type_)
        converter = Converter(self._limits, self._folder, self._functions)
        converter.read(graph, scope, self._opsets)
        outputs = []
        for value in graph.output:
            found = scope.find(value.name)
            if found is None:
                raise BadModel(f"nothing is called {value.name!r}, which is an output")
            outputs.append(scope.value(found))
        names = self.output_names
        made = builder.finish(outputs, names)
        verify(made)
        made = pipeline.run(made, ("prune", "simplify", "control", "hoist", "cse"))
        used = set(map(weight_name, made.inputs))
        arrays = {name: array for name, array in weights.arrays.items() if name in used}
        metadata = {"onnx": {"producer": self._proto.producer_name, "opset": self._opsets.get("", 0)}}
        return Program({MAIN: Entry(made)}, arrays, metadata, name=self.name, backend=self.backend)

    def _dtype(self, name: str) -> DType:
        for value in self._proto.graph.input:
            if value.name == name:
                return tensor_dtype(value.type.tensor_type.elem_type, f"the input {name!r}")
        raise ArgumentError(f"{self.name} has no input {name!r}")

    def __repr__(self) -> str:
        return f"<OnnxModel {self.name}: {', '.join(self._given)} -> {', '.join(self.output_names)}>"


def _elements(type_: TensorType | None, array: np.ndarray | None) -> int:
    """How many there are, as far as is known."""
    if array is not None:
        return int(array.size)
    return int(type_.size) if type_ is not None and type_.is_static else 0


def _functions(proto: Any) -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}
    for function in proto.functions:
        key = ("" if function.domain == "ai.onnx" else function.domain, function.name)
        if key in found:
            raise BadModel(f"the function {function.name!r} is defined twice")
        found[key] = function
    return found


def _declared(value: Any, number: int, shape: Sequence[int | str] | None) -> TensorType | None:
    """What the model says of an input; None where it does not say how many dimensions there are."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise BadModel(f"the input {value.name!r} is a {kind or 'value without a type'}", expected="a tensor")
    described = value.type.tensor_type
    dtype = tensor_dtype(described.elem_type, f"the input {value.name!r}")
    if shape is not None:
        return TensorType(dtype, tuple(size if isinstance(size, int) else _symbol(size) for size in shape))
    if not described.HasField("shape"):
        return None
    sizes: list[int | Dim] = []
    for axis, dim in enumerate(described.shape.dim):
        if dim.HasField("dim_value"):
            if dim.dim_value < 0:
                raise BadModel(f"the input {value.name!r} has a negative size", got=str(dim.dim_value))
            sizes.append(int(dim.dim_value))
        else:
            sizes.append(_symbol(dim.dim_param) if dim.dim_param else Dim.symbol(f"{_plain(value.name)}_{axis}"))
    return TensorType(dtype, tuple(sizes))


def _symbol(text: str) -> int | Dim:
    """A size by its name, or as an expression of others."""
    try:
        return parse_dim(text)
    except ShapeError:
        return Dim.symbol(_plain(text))


def _plain(text: str) -> str:
    return identifier(text).replace(".", "_")
