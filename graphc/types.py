"""Types: dtypes, tensor types, and PyTorch's rules for promotion and broadcasting.

>>> from graphc.types import TensorType, float32
>>> TensorType(float32, (2, 3))
float32[2, 3]
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from graphc.dims import Dim
from graphc.errors import DTypeError, ShapeError

Size: TypeAlias = Any
"""An int, or a Dim that is not known yet. Any to type checkers, because the same code serves both: what works on graphs
takes either, what comes after `bind_graph` knows that all are ints."""
Shape: TypeAlias = tuple[Size, ...]
Scalar: TypeAlias = bool | int | float | complex


_CATEGORIES = {"bool": 0, "uint": 1, "int": 1, "float": 2, "complex": 3}
"""The rungs of the promotion ladder."""


class DType:
    """The type of a tensor's elements. There is one object for each, so `is` and `==` agree."""

    def __init__(self, name: str, kind: str, itemsize: int) -> None:
        self.name = name
        self.kind = kind  # "bool", "int" (signed), "uint", "float" or "complex"
        self.itemsize = itemsize
        self.bits = 8 * itemsize
        self.category = _CATEGORIES[kind]

    @cached_property
    def numpy(self) -> np.dtype:
        """NumPy's dtype. That of bfloat16 comes from ml_dtypes, which is imported when it is first asked for."""
        if self.name == "bfloat16":
            import ml_dtypes

            return np.dtype(ml_dtypes.bfloat16)
        return np.dtype(self.name)

    @property
    def is_floating_point(self) -> bool:
        return self.kind == "float"

    @property
    def is_complex(self) -> bool:
        return self.kind == "complex"

    @property
    def is_differentiable(self) -> bool:
        """Whether tensors of it can have gradients."""
        return self.kind in ("float", "complex")

    @property
    def is_signed(self) -> bool:
        return self.kind not in ("bool", "uint")

    def to_real(self) -> DType:
        """The dtype of real and imaginary part; of what is not complex, the dtype itself."""
        return DTYPES[f"float{self.bits // 2}"] if self.is_complex else self

    def to_complex(self) -> DType:
        """The complex dtype whose parts are at least as precise: complex128 for float64, else complex64."""
        return self if self.is_complex else complex128 if self is float64 else complex64

    def __repr__(self) -> str:
        return f"graphc.{self.name}"

    def __reduce__(self) -> str:
        return self.name if self.name != "bool" else "bool_"


bool_ = DType("bool", "bool", 1)
uint8 = DType("uint8", "uint", 1)
uint16 = DType("uint16", "uint", 2)
uint32 = DType("uint32", "uint", 4)
uint64 = DType("uint64", "uint", 8)
int8 = DType("int8", "int", 1)
int16 = DType("int16", "int", 2)
int32 = DType("int32", "int", 4)
int64 = DType("int64", "int", 8)
float16 = DType("float16", "float", 2)
bfloat16 = DType("bfloat16", "float", 2)
float32 = DType("float32", "float", 4)
float64 = DType("float64", "float", 8)
complex64 = DType("complex64", "complex", 8)
complex128 = DType("complex128", "complex", 16)

DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float16, bfloat16, float32, float64, complex64,
        complex128,
    )
}  # fmt: skip
_BY_NUMPY: dict[Any, DType] = {d.numpy: d for d in DTYPES.values() if d is not bfloat16}


def dtype_of(numpy_dtype: np.dtype | type) -> DType:
    """The DType of a NumPy dtype; DTypeError where graphc has none."""
    native = np.dtype(numpy_dtype).newbyteorder("=")
    found = _BY_NUMPY.get(native)
    if found is None:
        if native.name == "bfloat16":
            return bfloat16
        raise DTypeError(f"dtype {np.dtype(numpy_dtype)} is not supported", expected=f"one of {', '.join(DTYPES)}")
    return found


def scalar_dtype(value: Scalar) -> DType:
    """The dtype that a Python number has by itself: bool, int64, float32 or complex64."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, (complex, np.complexfloating)):
        return complex64
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
    """The smallest dtype that both convert to, as PyTorch defines it: floats win over integers whatever their width,
    complex numbers over floats that are no more precise."""
    if a is b:
        return a
    if a.category != b.category:
        higher, lower = (a, b) if a.category > b.category else (b, a)
        return complex128 if higher is complex64 and lower is float64 else higher
    if a.kind == b.kind:
        if a.bits == b.bits:
            return float32  # float16 and bfloat16
        return a if a.bits > b.bits else b
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
