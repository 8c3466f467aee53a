"""MLIR text: operations in their generic form, one a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from graphc.errors import CompileError, Location
from graphc.ir import Graph, Node, Value
from graphc.types import DType, TensorType, bool_, dtype_of, int64, uint8

_ELEMENTS = {
    "bool": "i1", "bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64", "complex64": "complex<f32>",
    "complex128": "complex<f64>", **{f"int{bits}": f"i{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"ui{bits}" for bits in (8, 16, 32, 64)},
}  # fmt: skip


class Operand(NamedTuple):
    """A value of the text."""

    name: str
    type: TensorType


class Step(NamedTuple):
    """A node that is written: its operands and attributes."""

    node: Node
    operands: tuple[Operand, ...]
    attrs: Mapping[str, Any]

    @property
    def type(self) -> TensorType:
        """The type of the only result."""
        return self.node.result.type

    @property
    def types(self) -> tuple[TensorType, ...]:
        return tuple(value.type for value in self.node.results)


Write: TypeAlias = Callable[["Writer", Step], "Operand | Sequence[Operand]"]
"""Writes the operations for a node; its results."""


class Writer:
    """Writes a function's body. `table` says how ops are written."""

    def __init__(self, table: Mapping[str, Write]) -> None:
        self._table = table
        self._lines: list[str] = []
        self._count = 0
        self._depth = 2
        self._location = ""

    def lines(self) -> list[str]:
        return self._lines

    def graph(self, graph: Graph, operands: Sequence[Operand]) -> list[Operand]:
        """The operations of a graph with these inputs; its outputs."""
        values: dict[Value, Operand] = dict(zip(graph.inputs, operands, strict=True))
        for node in graph.nodes:
            write = self._table.get(node.op.name)
            if write is None:
                raise CompileError(f"StableHLO has nothing for {node.op.name}", expected="ops of StableHLO or CHLO",
                                   at=node.location, hint="leave the op out of what is exported")
            before, self._location = self._location, _location(node.location)
            made = write(self, Step(node, tuple(values[v] for v in node.operands), node.attrs))
            self._location = before
            values.update(zip(node.results, [made] if isinstance(made, Operand) else made, strict=True))
        return [values[value] for value in graph.outputs]

    def emit(self, op: str, *operands: Operand, type: TensorType, **attributes: str) -> Operand:
        """One operation with one result; attributes as MLIR text."""
        return self.emit_many(op, operands, [type], **attributes)[0]

    def emit_many(
        self, op: str, operands: Sequence[Operand], types: Sequence[TensorType], regions: Sequence[Sequence[str]] = (),
        **attributes: str,
    ) -> list[Operand]:
        """One operation; `regions` are what `region` has given."""
        name = op if "." in op else f"stablehlo.{op}"
        first = self._count
        self._count += 1
        results = [Operand(f"%{first}" if len(types) == 1 else f"%{first}#{k}", t) for k, t in enumerate(types)]
        bound = f"%{first} = " if len(types) == 1 else f"%{first}:{len(types)} = " if types else ""
        properties = f" <{{{', '.join(f'{key} = {value}' for key, value in attributes.items())}}}>" if attributes else ""
        signature = f"({', '.join(mlir_type(o.type) for o in operands)}) -> "
        signature += mlir_type(types[0]) if len(types) == 1 else f"({', '.join(map(mlir_type, types))})"
        call = f'{bound}"{name}"({", ".join(o.name for o in operands)}){properties}'
        pad = "  " * self._depth
        if regions:
            self._lines.append(f"{pad}{call} ({{")
            for number, region in enumerate(regions):
                self._lines += region
                self._lines.append(f"{pad}}}, {{" if number + 1 < len(regions) else f"{pad}}}) : {signature}{self._location}")
        else:
            self._lines.append(f"{pad}{call} : {signature}{self._location}")
        return results

    def region(self, types: Sequence[TensorType], body: Callable[[list[Operand]], Sequence[Operand]]) -> list[str]:
        """The lines of a region that takes values of these types and returns what `body` makes of them."""
        with self._inside() as lines:
            arguments = [Operand(f"%{self._count + k}", t) for k, t in enumerate(types)]
            self._count += len(arguments)
            if arguments:
                listed = ", ".join(f"{argument.name}: {mlir_type(argument.type)}" for argument in arguments)
                lines.append("  " * (self._depth - 1) + f"^bb0({listed}):")
            self.emit_many("return", list(body(arguments)), [])
        return lines

    @contextmanager
    def _inside(self) -> Iterator[list[str]]:
        outer, self._lines = self._lines, []
        self._depth += 1
        try:
            yield self._lines
        finally:
            self._depth -= 1
            self._lines = outer

    # What most ops need

    def constant(self, array: Any, dtype: DType | None = None) -> Operand:
        """An array's numbers."""
        given = np.asarray(array) if dtype is None else np.asarray(array, dtype.numpy)
        type_ = TensorType(dtype_of(given.dtype), given.shape)
        if type_.dtype is bool_ and given.size > 1:
            return self.cast(self.constant(given.astype(np.uint8)), bool_)
        return self.emit("constant", type=type_, value=f"{_dense(given, type_)} : {mlir_type(type_)}")

    def number(self, value: Any, like: TensorType) -> Operand:
        """A number as an array of this type."""
        return self.broadcast(self.constant(np.asarray(value).astype(like.dtype.numpy)), like.shape)

    def broadcast(self, x: Operand, shape: Sequence[Any]) -> Operand:
        """Stretched as NumPy does."""
        if tuple(x.type.shape) == tuple(shape):
            return x
        first = len(shape) - x.type.ndim
        return self.emit("broadcast_in_dim", x, type=x.type.with_shape(shape),
                         broadcast_dimensions=integers(range(first, len(shape))))

    def reshape(self, x: Operand, shape: Sequence[Any]) -> Operand:
        return x if tuple(x.type.shape) == tuple(shape) else self.emit("reshape", x, type=x.type.with_shape(shape))

    def transpose(self, x: Operand, order: Sequence[int]) -> Operand:
        if list(order) == list(range(x.type.ndim)):
            return x
        shape = [x.type.shape[k] for k in order]
        return self.emit("transpose", x, type=x.type.with_shape(shape), permutation=integers(order))

    def slice(self, x: Operand, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]) -> Operand:
        shape = [max(0, -(-(stop - start) // step)) for start, stop, step in zip(starts, stops, steps)]
        return self.emit("slice", x, type=x.type.with_shape(shape), start_indices=integers(starts),
                         limit_indices=integers(stops), strides=integers(steps))

    def pad(
        self, x: Operand, low: Sequence[int], high: Sequence[int], value: Any, between: Sequence[int] | None = None
    ) -> Operand:
        """With a number on either side, and between neighbours."""
        between = between or [0] * x.type.ndim
        shape = [a + n + max(0, n - 1) * b + c for a, n, b, c in zip(low, x.type.shape, between, high)]
        filling = self.constant(np.asarray(value).astype(x.type.dtype.numpy))
        return self.emit("pad", x, filling, type=x.type.with_shape(shape), edge_padding_low=integers(low),
                         edge_padding_high=integers(high), interior_padding=integers(between))

    def concatenate(self, parts: Sequence[Operand], axis: int) -> Operand:
        first = parts[0].type
        shape = list(first.shape)
        shape[axis] = sum(part.type.shape[axis] for part in parts)
        return self.emit("concatenate", *parts, type=first.with_shape(shape), dimension=f"{axis} : i64")

    def cast(self, x: Operand, dtype: DType) -> Operand:
        return x if x.type.dtype is dtype else self.emit("convert", x, type=x.type.with_dtype(dtype))

    def compare(self, direction: str, x: Operand, y: Operand) -> Operand:
        """EQ, NE, LT, LE, GT or GE of two arrays."""
        kind = {"int": "SIGNED", "uint": "UNSIGNED", "bool": "UNSIGNED"}.get(x.type.dtype.kind, "FLOAT")
        return self.emit("compare", x, y, type=x.type.with_dtype(bool_),
                         comparison_direction=f"#stablehlo<comparison_direction {direction}>",
                         compare_type=f"#stablehlo<comparison_type {kind}>")

    def select(self, condition: Operand, x: Operand, y: Operand) -> Operand:
        return self.emit("select", condition, x, y, type=x.type)

    def same(self, op: str, *operands: Operand) -> Operand:
        """An operation whose result has the type of its operands."""
        return self.emit(op, *operands, type=operands[0].type)

    def iota(self, shape: Sequence[Any], axis: int, dtype: DType = int64) -> Operand:
        own = uint8 if dtype is bool_ else dtype
        return self.cast(self.emit("iota", type=TensorType(own, tuple(shape)), iota_dimension=f"{axis} : i64"), dtype)

    def combine(self, op: str, dtype: DType) -> list[str]:
        """The region that makes one number of two."""
        return self.region([TensorType(dtype, ())] * 2, lambda pair: [self.same(op, *pair)])


def mlir_type(type_: TensorType) -> str:
    """`tensor<2x3xf32>`; CompileError for a dtype that StableHLO lacks."""
    element = _ELEMENTS.get(type_.dtype.name)
    if element is None:
        raise CompileError(f"StableHLO has no {type_.dtype.name}", expected=", ".join(_ELEMENTS))
    return f"tensor<{''.join(f'{size}x' for size in type_.shape)}{element}>"


def integers(numbers: Sequence[int] | range) -> str:
    """An attribute that is a list of numbers."""
    return f"array<i64: {', '.join(map(str, numbers))}>" if len(numbers) else "array<i64>"


def quoted(text: str) -> str:
    """A string of MLIR's."""
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:02X}" for b in text.encode()) + '"'


def _dense(array: np.ndarray, type_: TensorType) -> str:
    if array.size == 0:
        return "dense<>"
    if type_.dtype is bool_:
        return f"dense<{'true' if array.reshape(-1)[0] else 'false'}>"
    flat = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1)
    raw = flat.view(np.uint8).reshape(flat.size, -1)
    if (raw == raw[0]).all():
        raw = raw[:1]
    return f'dense<"0x{raw.tobytes().hex().upper()}">'


def _location(at: Location | None) -> str:
    return "" if at is None else f" loc({quoted(at.file)}:{at.line}:0)"
