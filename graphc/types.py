"""Types: dtypes, tensor types, and PyTorch's rules for promotion and broadcasting.

>>> from graphc.types import TensorType, float32
>>> TensorType(float32, (2, 3))
float32[2, 3]
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from graphc.dims import Dim
from graphc.errors import DTypeError, ShapeError

Size: TypeAlias = Any
"""An int, or a Dim that is not known yet. Any to type checkers, because the same code serves both: what works on graphs
takes either, what comes after `bind_graph` knows that all are ints."""
Shape: TypeAlias = tuple[Size, ...]
Scalar: TypeAlias = bool | int | float


class DType:
    """The type of a tensor's elements. There is one object for each, so `is` and `==` agree."""

    __slots__ = ("bits", "itemsize", "kind", "name", "numpy")

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind  # "bool", "int" (signed), "uint" or "float"
        self.numpy = np.dtype(name)
        self.itemsize = self.numpy.itemsize
        self.bits = 8 * self.itemsize

    @property
    def is_floating_point(self) -> bool:
        return self.kind == "float"

    @property
    def is_signed(self) -> bool:
        return self.kind in ("int", "float")

    @property
    def category(self) -> int:
        """The rung of the promotion ladder: 0 for bool, 1 for integers, 2 for floating point."""
        return {"bool": 0, "uint": 1, "int": 1, "float": 2}[self.kind]

    def __repr__(self) -> str:
        return f"graphc.{self.name}"

    def __reduce__(self) -> str:
        return self.name if self.name != "bool" else "bool_"


bool_ = DType("bool", "bool")
uint8 = DType("uint8", "uint")
uint32 = DType("uint32", "uint")
uint64 = DType("uint64", "uint")
int8 = DType("int8", "int")
int16 = DType("int16", "int")
int32 = DType("int32", "int")
int64 = DType("int64", "int")
float16 = DType("float16", "float")
float32 = DType("float32", "float")
float64 = DType("float64", "float")

DTYPES: dict[str, DType] = {
    d.name: d
    for d in (bool_, uint8, uint32, uint64, int8, int16, int32, int64, float16, float32, float64)
}
_BY_NUMPY = {d.numpy: d for d in DTYPES.values()}


def dtype_of(numpy_dtype: np.dtype | type) -> DType:
    """The DType of a NumPy dtype; DTypeError where graphc has none."""
    found = _BY_NUMPY.get(np.dtype(numpy_dtype).newbyteorder("="))
    if found is None:
        raise DTypeError(f"dtype {np.dtype(numpy_dtype)} is not supported", expected=f"one of {', '.join(DTYPES)}")
    return found


def scalar_dtype(value: Scalar) -> DType:
    """The dtype that a Python number has by itself: bool, int64 or float32."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    return int64 if isinstance(value, (int, np.integer)) else float32


def scalar_array(value: Scalar, dtype: DType) -> np.ndarray:
    """A Python number as a 0-d array: rounded to the dtype, or cut to its bits."""
    if isinstance(value, int) and not dtype.is_floating_point:
        value = (value + (1 << 63)) % (1 << 64) - (1 << 63)
    with np.errstate(all="ignore"):
        return np.asarray(value).astype(dtype.numpy)


@dataclass(frozen=True, slots=True)
class TensorType:
    """What is known of a tensor before it has numbers: dtype, shape and device."""

    dtype: DType
    shape: Shape
    device: str = "cpu"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Size:
        """How many elements."""
        return math.prod(self.shape)

    @property
    def is_static(self) -> bool:
        """Whether every dimension is a number."""
        return all(isinstance(size, int) for size in self.shape)

    @property
    def nbytes(self) -> Size:
        return self.size * self.dtype.itemsize

    def with_shape(self, shape: Iterable[Size]) -> TensorType:
        return TensorType(self.dtype, tuple(shape), self.device)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape, self.device)

    def bind(self, sizes: Mapping[str, int]) -> TensorType:
        """The type with numbers put in for symbolic sizes."""
        return self.with_shape(s.bind(sizes) if isinstance(s, Dim) else s for s in self.shape)

    def __str__(self) -> str:
        where = "" if self.device == "cpu" else f"@{self.device}"
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]{where}"

    __repr__ = __str__


def promote_types(a: DType, b: DType) -> DType:
    """The smallest dtype that both convert to, as PyTorch defines it: floats win over integers whatever their width."""
    if a is b:
        return a
    if a.category != b.category:
        return a if a.category > b.category else b
    if a.kind == b.kind:
        return a if a.bits >= b.bits else b
    unsigned, signed = (a, b) if a.kind == "uint" else (b, a)
    if signed.bits > unsigned.bits:
        return signed
    wider = DTYPES.get(f"int{2 * unsigned.bits}")
    if wider is None:
        raise DTypeError(f"no integer dtype holds both {a.name} and {b.name}", hint="convert one with .to(dtype)")
    return wider


def result_type(operands: Sequence[TensorType | Scalar]) -> DType:
    """PyTorch's promotion over tensors, 0-d tensors and Python numbers.

    Tensors with dimensions decide; a 0-d tensor counts only where it is of a higher category (bool < int < float) than
    all of them, and a Python number only where it is of a higher category than every tensor.
    """
    ranks: list[DType | None] = [None, None, None]  # tensors with dimensions, 0-d tensors, Python numbers
    for operand in operands:
        if isinstance(operand, TensorType):
            rank, dtype = (0 if operand.shape else 1), operand.dtype
        else:
            rank, dtype = 2, scalar_dtype(operand)
        found = ranks[rank]
        ranks[rank] = dtype if found is None else promote_types(found, dtype)
    result: DType | None = None
    for found in ranks:
        if found is not None and (result is None or found.category > result.category):
            result = found
    if result is None:
        raise DTypeError("result_type of no operands")
    return result


def broadcast_shapes(*shapes: Shape, op: str = "broadcast") -> Shape:
    """The shape that all the shapes stretch to: aligned at the right, sizes equal or 1."""
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    out: list[Size] = [1] * max(map(len, shapes))
    for shape in shapes:
        offset = len(out) - len(shape)
        for i, size in enumerate(shape, offset):
            if out[i] == 1:
                out[i] = size
            elif size not in (1, out[i]):
                raise ShapeError(
                    f"{op}: the size of tensor a ({out[i]}) must match the size of tensor b ({size}) "
                    f"at non-singleton dimension {i}",
                    expected="shapes that broadcast: equal sizes, or 1, counted from the right",
                    got=" and ".join(str(list(s)) for s in shapes),
                )
    return tuple(out)
