"""Collecting the nodes of an ONNX graph: names, constants, and sizes that are computed when the model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from graphc.dims import Dim, Quotient, decided
from graphc.errors import Location, ShapeError
from graphc.ir import Builder, Value
from graphc.onnx_format.protobuf import element_type, onnx
from graphc.op import OpDef
from graphc.types import DType, Size, TensorType, dtype_of, int64

END = (1 << 63) - 1
"""A stop that a slice never reaches."""


@dataclass(frozen=True)
class Step:
    """One node of a graph, or several that become one of ONNX's, about to be written."""

    op: OpDef
    operands: tuple[Value, ...]
    """What ONNX's node reads: the node's operands, or what they have been made of."""
    names: tuple[str, ...]
    """The names of the operands in the model."""
    attrs: Mapping[str, Any]
    types: tuple[TensorType, ...]
    """The types of the results."""
    location: Location | None = None

    @property
    def type(self) -> TensorType:
        """The type of the only result."""
        return self.types[0]

    @property
    def dtype(self) -> DType:
        """The dtype of the first operand."""
        return self.operands[0].dtype


Names: TypeAlias = str | Sequence[str]


@dataclass
class Model:
    """What all graphs of a model share."""

    opset: int
    taken: set[str] = field(default_factory=set)
    initializers: dict[str, np.ndarray] = field(default_factory=dict)
    constants: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    sizes: dict[Any, str] = field(default_factory=dict)
    """The names of int64[1] tensors that hold sizes, by symbols, quotients and whole polynomials."""

    sources: dict[str, tuple[str, int, Dim]] = field(default_factory=dict)
    """For each symbol an input, the number of a dimension, and that dimension."""

    def free(self, wanted: str) -> str:
        """`wanted`, or with a number behind it if that is taken."""
        name, number = wanted, 0
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return name


_LARGEST_SHARED = 1 << 12


class Writer:
    """The nodes of one graph of a model. Inner graphs read what the outer ones define, by its name."""

    def __init__(self, model: Model, outer: Writer | None = None) -> None:
        self.model = model
        self.main: Writer = self if outer is None else outer.main
        self.nodes: list[Any] = []
        self.values: dict[Value, str] = {}

    @property
    def opset(self) -> int:
        return self.model.opset

    def emit(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; the name of its result, or a tuple of the names of several."""
        names = [self.model.free(f"{op_type.lower()}_{len(self.nodes)}" if self is self.main else op_type.lower())
                 for _ in range(outputs)]
        self.append(op_type, inputs, names, **attributes)
        return names[0] if outputs == 1 else tuple(names)

    def append(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Append a node with results of these names."""
        given = {name: value for name, value in attributes.items() if value is not None}
        self.nodes.append(onnx("onnx.helper").make_node(op_type, list(inputs), list(outputs), **given))

    # Constants

    def array(self, array: np.ndarray, name: str = "constant") -> str:
        """A tensor of the model that holds this; small equal ones are one."""
        element_type(dtype_of(array.dtype))
        key = None
        if array.nbytes <= _LARGEST_SHARED:
            key = (array.dtype.name, array.shape, array.tobytes())
            if key in self.model.constants:
                return self.model.constants[key]
        name = self.model.free(name)
        self.model.initializers[name] = array
        if key is not None:
            self.model.constants[key] = name
        return name

    def number(self, value: Any, dtype: DType) -> str:
        """A number as a tensor without dimensions."""
        return self.array(np.asarray(value).astype(dtype.numpy))

    def cast(self, name: str, dtype: DType) -> str:
        """The tensor in another dtype."""
        return str(self.emit("Cast", name, to=element_type(dtype)))

    # Sizes

    def sizes(self, sizes: Sequence[Size]) -> str:
        """A vector of sizes, int64."""
        if all(isinstance(size, int) for size in sizes):
            return self.array(np.array(sizes, np.int64).reshape(len(sizes)))
        key = tuple(sizes)
        if key not in self.model.sizes:
            parts: list[str] = []
            known: list[int] = []
            for size in (*sizes, None):
                if isinstance(size, int):
                    known.append(size)
                    continue
                if known:
                    parts.append(self.array(np.array(known, np.int64)))
                    known = []
                if size is not None:
                    parts.append(self.size(size))
            self.model.sizes[key] = parts[0] if len(parts) == 1 else self.main.emit("Concat", *parts, axis=0)
        return self.model.sizes[key]

    def size(self, size: Size) -> str:
        """One size, int64[1]."""
        if isinstance(size, int):
            return self.array(np.array([size], np.int64))
        if size not in self.model.sizes:
            total = None
            for monomial, coefficient in size.terms:
                product = None if coefficient == 1 and monomial else self.size(coefficient)
                for factor in monomial:
                    product = self._arithmetic("Mul", product, self._factor(factor))
                total = self._arithmetic("Add", total, product)
            assert total is not None  # no polynomial is empty
            self.model.sizes[size] = total
        return self.model.sizes[size]

    def _arithmetic(self, op_type: str, left: str | None, right: str | None) -> str | None:
        return right if left is None or right is None else str(self.main.emit(op_type, left, right))

    def _factor(self, factor: str) -> str:
        if factor in self.model.sizes:
            return self.model.sizes[factor]
        if not isinstance(factor, Quotient):
            self.model.sizes[factor] = self._symbol(factor)
            return self.model.sizes[factor]
        dividend, divisor = self.size(factor.dividend), self.size(factor.divisor)
        if not decided(factor.dividend, ">="):  # ONNX rounds towards zero
            dividend = self.main.emit("Sub", dividend, self.main.emit("Mod", dividend, divisor))
        self.model.sizes[factor] = self.main.emit("Div", dividend, divisor)
        return self.model.sizes[factor]

    def learn_sizes(self, inputs: Sequence[tuple[str, TensorType]]) -> None:
        """Find out which dimension of which input tells each symbol: one that is the symbol if there is one, else a multiple of
        it plus a number."""
        for only_symbols in (True, False):
            for name, type_ in inputs:
                for axis, dim in enumerate(type_.shape):
                    if isinstance(dim, Dim) and dim.is_symbol is only_symbols and len(dim.symbols()) == 1:
                        (symbol,) = dim.symbols()
                        self.model.sources.setdefault(symbol, (name, axis, dim))

    def _symbol(self, symbol: str) -> str:
        name, axis, dim = self.model.sources.get(symbol, ("", 0, None))
        terms = {} if dim is None else dict(dim.terms)
        factor, rest = terms.pop((symbol,), 0), terms.pop((), 0)
        if terms or not factor:
            raise ShapeError(f"the size {symbol} is not a dimension of an input, by which an ONNX model could tell it")
        size = str(self.main.emit("Shape", name, start=axis, end=axis + 1))
        if rest:
            size = self.main.emit("Sub", size, self.size(rest))
        return size if factor == 1 else str(self.main.emit("Div", size, self.size(factor)))

    # Shapes

    def reshape(self, name: str, type_: TensorType, shape: Sequence[Size]) -> str:
        """The tensor in another shape."""
        if tuple(type_.shape) == tuple(shape):
            return name
        unknown = [i for i, size in enumerate(shape) if not isinstance(size, int)]
        if len(unknown) == 1 and 0 not in shape:
            return str(self.emit("Reshape", name, self.sizes([-1 if i in unknown else n for i, n in enumerate(shape)])))
        # without the attribute a zero would mean that the dimension stays as it is
        zeros = any(not decided(size - 1, ">=") for size in shape)
        return str(self.emit("Reshape", name, self.sizes(shape), allowzero=1 if zeros else None))

    def expand(self, name: str, type_: TensorType, shape: Sequence[Size]) -> str:
        """The tensor stretched to a shape."""
        if tuple(type_.shape) == tuple(shape):
            return name
        return str(self.emit("Expand", name, self.sizes(shape)))


def builder_for(step: Step) -> tuple[Builder, list[Value]]:
    """A graph with inputs like the operands of a step, in which its results can be written by other ops."""
    builder = Builder(step.op.name, locations=False)
    return builder, [builder.input(None, value.type) for value in step.operands]


_NARROW = frozenset(("bool", "int8", "int16", "uint8", "uint16", "uint32", "uint64"))
"""Integers that ONNX has not all arithmetic for."""


def widened(w: Writer, step: Step, write: Callable[[Sequence[str]], str]) -> str:
    """A result of arithmetic that is done in int64 for some integers: its lowest bits are those of theirs."""
    if step.dtype.name not in _NARROW:
        return write(step.names)
    return w.cast(write([w.cast(name, int64) for name in step.names]), step.type.dtype)
