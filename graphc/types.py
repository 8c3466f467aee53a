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
Real: TypeAlias = bool | int | float
Scalar: TypeAlias = Real | complex


_CATEGORIES = {"bool": 0, "uint": 1, "int": 1, "float": 2, "complex": 3}
"""The rungs of the promotion ladder."""


class DType:
    """The type of a tensor's elements. There is one object for each, so `is` and `==` agree.

    >>> graphc.float32, graphc.float32.itemsize, graphc.int8.is_floating_point
    (graphc.float32, 4, False)
    """

    def __init__(self, name: str, kind: str, itemsize: int) -> None:
        self.name = name
        self.kind = kind  # "bool", "int" (signed), "uint", "float" or "complex"
        self.itemsize = itemsize
        self.bits = 8 * itemsize
        self.category = _CATEGORIES[kind]

    @cached_property
    def numpy(self) -> np.dtype:
        """NumPy's dtype. That of bfloat16 comes from ml_dtypes, which is imported when it is first asked for; complex32,
        which NumPy does not know, is a record of two halves that `convert` makes and reads."""
        if self.name == "bfloat16":
            import ml_dtypes

            return np.dtype(ml_dtypes.bfloat16)
        if self.name == "complex32":
            return np.dtype([("real", np.float16), ("imag", np.float16)])
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
    def has_code(self) -> bool:
        """Whether code is generated for numbers of it; graphs run ops on others by the ops' definitions."""
        return not self.is_complex

    @property
    def is_signed(self) -> bool:
        return self.kind not in ("bool", "uint")

    def to_real(self) -> DType:
        """The dtype of real and imaginary part; of what is not complex, the dtype itself."""
        return DTYPES[f"float{self.bits // 2}"] if self.is_complex else self

    def to_complex(self) -> DType:
        """The complex dtype whose parts are of this dtype; complex64 where there is none."""
        if self.is_complex:
            return self
        return complex128 if self is float64 else complex32 if self is float16 else complex64

    @property
    def computes_in(self) -> DType:
        """The dtype in which reductions and products of it are computed: float32 for the halves."""
        if self is float16 or self is bfloat16:
            return float32
        return complex64 if self is complex32 else self

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
complex32 = DType("complex32", "complex", 4)
complex64 = DType("complex64", "complex", 8)
complex128 = DType("complex128", "complex", 16)

DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        bool_, uint8, uint16, uint32, uint64, int8, int16, int32, int64, float16, bfloat16, float32, float64, complex32,
        complex64, complex128,
    )
}  # fmt: skip
BY_NUMPY: dict[Any, DType] = {d.numpy: d for d in DTYPES.values() if d is not bfloat16}
"""The DTypes by NumPy's native dtypes; bfloat16 is added when it is first met."""


def dtype_of(numpy_dtype: np.dtype | type) -> DType:
    """The DType of a NumPy dtype; DTypeError where graphc has none."""
    native = np.dtype(numpy_dtype).newbyteorder("=")
    found = BY_NUMPY.get(native)
    if found is None and native.name == "bfloat16":
        found = BY_NUMPY[native] = bfloat16
    if found is None:
        raise DTypeError(f"dtype {np.dtype(numpy_dtype)} is not supported", expected=f"one of {', '.join(DTYPES)}")
    return found


_default = float32


def get_default_dtype() -> DType:
    """The dtype of floating-point tensors made from Python numbers: float32 unless changed.

    >>> graphc.get_default_dtype()
    graphc.float32
    """
    return _default


def set_default_dtype(dtype: DType) -> None:
    """Change the dtype of floating-point tensors made from Python numbers, and with it that of complex ones."""
    global _default  # noqa: PLW0603  (one setting of the process, with this one writer)
    if not isinstance(dtype, DType) or not dtype.is_floating_point:
        raise DTypeError("only floating-point types are supported as the default type",
                         expected="float32, float64, float16 or bfloat16", got=str(dtype))
    _default = dtype


def scalar_dtype(value: Any) -> DType:
    """The dtype that a Python number has by itself: bool, int64 (as sizes have), or the default dtypes, float32 and
    complex64."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, (complex, np.complexfloating)):
        return _default.to_complex()
    return int64 if isinstance(value, (int, np.integer, Dim)) else _default


def convert(array: np.ndarray, dtype: DType) -> np.ndarray:
    """The array in another dtype, always a copy. Of complex numbers real dtypes get the real part; what an integer dtype
    cannot hold wraps around, or is whatever the machine makes of it."""
    if array.dtype == complex32.numpy:
        if dtype is complex32:
            return array.copy()
        parts = array["real"].astype(np.complex64)
        parts.imag = array["imag"]
        array = parts
    if array.dtype.kind in "biuf" and dtype.numpy.kind == "f" and dtype.itemsize >= max(array.dtype.itemsize, 4):
        return array.astype(dtype.numpy)  # nothing overflows: what silences NumPy takes longer than this
    with np.errstate(all="ignore"):
        if dtype is complex32:
            array = np.asarray(array)
            made = np.empty(array.shape, complex32.numpy)
            made["real"], made["imag"] = array.real, array.imag if array.dtype.kind == "c" else 0
            return made
        if array.dtype.kind == "c" and not dtype.is_complex:
            # whether a number is true is for both parts to say
            array = array != 0 if dtype is bool_ else array.real
        return array.astype(dtype.numpy)


def widened(array: np.ndarray) -> np.ndarray:
    """Halves as float32, in which what adds up many numbers, or takes several steps, is computed; others as they are."""
    if array.dtype.itemsize > 4 or array.dtype.kind not in "fV":
        return array
    dtype = dtype_of(array.dtype)
    return array if dtype.computes_in is dtype else convert(array, dtype.computes_in)


def scalar_array(value: Scalar, dtype: DType) -> np.ndarray:
    """A Python number as a 0-d array: rounded to the dtype, or cut to its bits."""
    if isinstance(value, int) and not dtype.is_differentiable:
        value = (value + (1 << 63)) % (1 << 64) - (1 << 63)
    return convert(np.asarray(value), dtype)


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

    def on(self, device: str) -> TensorType:
        """The same on another device."""
        return TensorType(self.dtype, self.shape, device)

    def bind(self, sizes: Mapping[str, int | Dim]) -> TensorType:
        """The type with numbers put in for symbolic sizes."""
        return self.with_shape(s.bind(sizes) if isinstance(s, Dim) else s for s in self.shape)

    def __str__(self) -> str:
        where = "" if self.device == "cpu" else f"@{self.device}"
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]{where}"

    __repr__ = __str__


def promote_types(type1: DType, type2: DType) -> DType:
    """The smallest dtype that both convert to, as PyTorch defines it: floats win over integers whatever their width, and
    complex numbers over all, with parts as precise as those of both.

    DTypeError for uint64 and a signed integer, which no integer dtype holds both.

    >>> graphc.promote_types(graphc.int64, graphc.float32)
    graphc.float32
    """
    a, b = type1, type2
    if a is b:
        return a
    if a.is_complex or b.is_complex:
        parts = [d.to_real() for d in (a, b) if d.is_differentiable]
        return promote_types(parts[0], parts[-1]).to_complex()
    if a.category != b.category:
        return a if a.category > b.category else b
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

    Tensors with dimensions decide; a 0-d tensor counts only where it is of a higher category (bool < int < float <
    complex) than all of them, and a Python number only where it is of a higher category than every tensor. A complex one
    of these takes its precision from the floats that it meets.
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
    for found in reversed(ranks):
        if found is not None:
            result = found if result is None else _over(found, result)
    if result is None:
        raise DTypeError("result_type of no operands")
    return result


def _over(higher: DType, lower: DType) -> DType:
    """The dtype of operands that decide, next to some that count by their category alone."""
    if lower.category <= higher.category:
        return higher
    return higher.to_complex() if lower.is_complex and higher.is_floating_point else lower


def is_one(size: Size) -> bool:
    """Whether a size is the number 1; a symbol is not asked."""
    return type(size) is int and size == 1


def is_stretched(shape: Shape, to: Shape) -> bool:
    """Whether a shape is not yet the one that it is to be broadcast to. Sizes that differ from each other, and are not 1, are
    none of its business."""
    return len(shape) != len(to) or any(is_one(size) and not is_one(wanted) for size, wanted in zip(shape, to))


def broadcast_shapes(*shapes: Shape, op: str = "broadcast") -> Shape:
    """The shape that all the shapes stretch to: aligned at the right, sizes equal or 1."""
    first = shapes[0]
    if all(hash(shape) == hash(first) and shape == first for shape in shapes):  # by the hash, for a symbol is not to be asked
        return first
    out: list[Size] = [1] * max(map(len, shapes))
    for shape in shapes:
        offset = len(out) - len(shape)
        for i, size in enumerate(shape, offset):
            if is_one(out[i]):
                out[i] = size
            elif is_one(size) or size == out[i]:
                continue
            elif out[i] == 1:  # a symbol, which is seldom 1: asked last
                out[i] = size
            elif size != 1:
                raise ShapeError(
                    f"The size of tensor a ({out[i]}) must match the size of tensor b ({size}) at non-singleton dimension {i}",
                    expected="shapes that broadcast: equal sizes, or 1, counted from the right",
                    got=f"{op} of {' and '.join(str(list(s)) for s in shapes)}",
                )
    return tuple(out)
