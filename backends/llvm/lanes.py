"""A notation for floating-point formulas over vectors of any width, emitted as LLVM IR.

`Lanes` knows the function under construction, the element type and the width; `Real`, `Bits` and `Mask` wrap operands of
the floating-point, integer and i1 vectors of that shape, so that a formula reads as one:

    v = Lanes(f, "float", 16)
    x = v.real("%x")
    y = v.fma(x, x, 1.0).sqrt()
    f.do(f"store {v.real_type} {y.operand}, ptr %p")

Nothing here is "fast math": each operator is one correctly rounded IEEE operation, and no two are ever merged.
Where the module's target has no fused multiply-add, `fma` rounds twice, and `two_prod` splits its operands instead.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from graphc.backends.llvm.builder import Function, literal, vector

_AVX512_BYTES = 64
_CURRENT_ROUNDING = 4


@dataclass(frozen=True)
class Format:
    """An IEEE 754 binary format: the LLVM type, the integer type of its bits, its width, precision and exponent bias."""

    scalar: str
    integer: str
    width: int
    precision: int
    bias: int

    @property
    def mantissa(self) -> int:
        """Bits of the stored significand."""
        return self.precision - 1

    def bits_of(self, value: float) -> int:
        """The bits of a number rounded to this format."""
        code = {"float": "<fI", "double": "<dQ"}[self.scalar]
        return struct.unpack("<" + code[2], struct.pack(code[:2], value))[0]

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def largest(self) -> float:
        return (2.0 - 2.0**-self.mantissa) * 2.0**self.bias

    @property
    def round_magic(self) -> float:
        """Added to a number below 2^(precision-2), rounds it to an integer that then stands in the sum's low bits."""
        return 1.5 * 2.0**self.mantissa


FORMATS = {"float": Format("float", "i32", 32, 24, 127), "double": Format("double", "i64", 64, 53, 1023)}


class Lanes:
    """Emits operations on vectors of `width` elements of `scalar` ("float" or "double") into a function."""

    def __init__(self, f: Function, scalar: str, width: int) -> None:
        self.f = f
        self.scalar = scalar
        self.width = width
        self.format = FORMATS[scalar]
        self.has_fma = f.module.has_fma
        self.has_scalef = f.module.vector_bytes == _AVX512_BYTES and width * self.format.width % (8 * _AVX512_BYTES) == 0
        """Whether `Real.scalef` is one instruction."""
        self.real_type = vector(scalar, width)
        self.bits_type = vector(self.format.integer, width)
        self.mask_type = vector("i1", width)

    def real(self, value: RealLike | str) -> Real:
        """A constant in each element, or the wrapper of an operand given by its name."""
        if isinstance(value, Real):
            return value
        if isinstance(value, str):
            return Real(self, value)
        return Real(self, self._splat(self.scalar, value))

    def bits(self, value: BitsLike) -> Bits:
        """An integer constant in each element."""
        return value if isinstance(value, Bits) else Bits(self, self._splat(self.format.integer, value))

    def _splat(self, scalar: str, value: float) -> str:
        constant = literal(value, scalar)
        return constant if self.width == 1 else f"splat ({scalar} {constant})"

    def fma(self, a: RealLike, b: RealLike, c: RealLike) -> Real:
        """a * b + c, rounded once where the target can."""
        if not self.has_fma:
            return self.real(a) * b + c
        operands = (self.real(each).operand for each in (a, b, c))
        return Real(self, self.f.intrinsic("llvm.fma", self.real_type, *operands))

    def polynomial(self, x: Real, coefficients: Sequence[float]) -> Real:
        """The polynomial whose coefficients are given from the constant term upwards.

        The high part of a long one goes by its even and odd powers, side by side: a single chain of operations leaves
        the processor waiting.
        """
        head, tail = (coefficients[:3], coefficients[3:]) if len(coefficients) > 8 else (coefficients[:-1], ())
        if tail:
            square = x * x
            result = self.fma(self.polynomial(square, tail[1::2]), x, self.polynomial(square, tail[::2]))
        else:
            result = self.real(coefficients[-1])
        for coefficient in reversed(head):
            result = self.fma(result, x, coefficient)
        return result

    def select(self, mask: Mask, a: RealLike, b: RealLike) -> Real:
        """`a` where the mask holds, else `b`."""
        yes, no = self.real(a).operand, self.real(b).operand
        text = f"select {self.mask_type} {mask.operand}, {self.real_type} {yes}, {self.real_type} {no}"
        return Real(self, self.f.value(text))

    def select_bits(self, mask: Mask, a: BitsLike, b: BitsLike) -> Bits:
        """`a` where the mask holds, else `b`."""
        yes, no = self.bits(a).operand, self.bits(b).operand
        text = f"select {self.mask_type} {mask.operand}, {self.bits_type} {yes}, {self.bits_type} {no}"
        return Bits(self, self.f.value(text))

    def least(self, a: RealLike, b: RealLike) -> Real:
        """min(a, b), and `b` where either is a NaN."""
        return self.select(self.real(a) < b, a, b)

    def greatest(self, a: RealLike, b: RealLike) -> Real:
        """max(a, b), and `b` where either is a NaN."""
        return self.select(self.real(a) > b, a, b)

    def clamp(self, x: Real, low: float, high: float) -> Real:
        """`x` held between the bounds; a NaN stays one."""
        return self.least(high, self.greatest(low, x))

    def split(self, x: Real, lanes: int) -> list[str]:
        """The operand in parts of so many lanes."""
        if lanes == self.width:
            return [x.operand]
        return [self._shuffled(self.real_type, x.operand, x.operand, range(start, start + lanes))
                for start in range(0, self.width, lanes)]

    def joined(self, parts: Sequence[str], lanes: int) -> str:
        """The parts that `split` makes, side by side."""
        while len(parts) > 1:
            type_ = vector(self.scalar, lanes)
            lanes *= 2
            parts = [self._shuffled(type_, a, b, range(lanes)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def _shuffled(self, type_: str, a: str, b: str, picks: Sequence[int]) -> str:
        lanes = ", ".join(f"i32 {pick}" for pick in picks)
        return self.f.value(f"shufflevector {type_} {a}, {type_} {b}, <{len(picks)} x i32> <{lanes}>")

    def two_sum(self, a: RealLike, b: RealLike) -> tuple[Real, Real]:
        """The rounded sum and its exact error."""
        a, b = self.real(a), self.real(b)
        total = a + b
        part = total - a
        return total, (a - (total - part)) + (b - part)

    def fast_two_sum(self, a: RealLike, b: RealLike) -> tuple[Real, Real]:
        """The rounded sum and its exact error, for |a| >= |b| or a = 0."""
        a, b = self.real(a), self.real(b)
        total = a + b
        return total, b - (total - a)

    def two_prod(self, a: RealLike, b: RealLike) -> tuple[Real, Real]:
        """The rounded product and its exact error."""
        a, b = self.real(a), self.real(b)
        product = a * b
        if self.has_fma:
            return product, self.fma(a, b, -product)
        a_high, a_low = a.halves()
        b_high, b_low = b.halves()
        return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


@dataclass(frozen=True, eq=False)
class Real:
    """A floating-point vector. Comparisons are ordered: false for a NaN."""

    lanes: Lanes
    operand: str

    def _binary(self, op: str, a: RealLike, b: RealLike) -> Real:
        v = self.lanes
        return Real(v, v.f.value(f"{op} {v.real_type} {v.real(a).operand}, {v.real(b).operand}"))

    def __add__(self, other: RealLike) -> Real:
        return self._binary("fadd", self, other)

    def __radd__(self, other: float) -> Real:
        return self._binary("fadd", other, self)

    def __sub__(self, other: RealLike) -> Real:
        return self._binary("fsub", self, other)

    def __rsub__(self, other: float) -> Real:
        return self._binary("fsub", other, self)

    def __mul__(self, other: RealLike) -> Real:
        return self._binary("fmul", self, other)

    def __rmul__(self, other: float) -> Real:
        return self._binary("fmul", other, self)

    def __truediv__(self, other: RealLike) -> Real:
        return self._binary("fdiv", self, other)

    def __rtruediv__(self, other: float) -> Real:
        return self._binary("fdiv", other, self)

    def __neg__(self) -> Real:
        return Real(self.lanes, self.lanes.f.value(f"fneg {self.lanes.real_type} {self.operand}"))

    def __abs__(self) -> Real:
        return self._intrinsic("llvm.fabs")

    def sqrt(self) -> Real:
        return self._intrinsic("llvm.sqrt")

    def copysign(self, sign: Real) -> Real:
        """This magnitude with the sign of `sign`."""
        return self._intrinsic("llvm.copysign", sign)

    def scalef(self, exponent: Real) -> Real:
        """This times 2 to the power of an integer, rounded once; for lanes that `has_scalef`."""
        v, lanes = self.lanes, 8 * _AVX512_BYTES // self.lanes.format.width
        part, letter = vector(v.scalar, lanes), "s" if v.scalar == "float" else "d"
        params = [part, part, part, f"i{lanes}", "i32"]
        name = v.f.module.declare(f"llvm.x86.avx512.mask.scalef.p{letter}.512", part, params)
        scaled = []
        for x, n in zip(v.split(self, lanes), v.split(exponent, lanes), strict=True):
            rest = ((part, "zeroinitializer"), (f"i{lanes}", "-1"), ("i32", str(_CURRENT_ROUNDING)))
            scaled.append(v.f.call(part, name, (part, x), (part, n), *rest))
        return Real(v, v.joined(scaled, lanes))

    def _intrinsic(self, base: str, *others: Real) -> Real:
        operands = (self.operand, *(other.operand for other in others))
        return Real(self.lanes, self.lanes.f.intrinsic(base, self.lanes.real_type, *operands))

    def _compare(self, predicate: str, other: RealLike) -> Mask:
        v = self.lanes
        text = f"fcmp {predicate} {v.real_type} {self.operand}, {v.real(other).operand}"
        return Mask(v, v.f.value(text))

    def __lt__(self, other: RealLike) -> Mask:
        return self._compare("olt", other)

    def __le__(self, other: RealLike) -> Mask:
        return self._compare("ole", other)

    def __gt__(self, other: RealLike) -> Mask:
        return self._compare("ogt", other)

    def __ge__(self, other: RealLike) -> Mask:
        return self._compare("oge", other)

    def equals(self, other: RealLike) -> Mask:
        return self._compare("oeq", other)

    def unordered(self, other: RealLike) -> Mask:
        """Where either is a NaN."""
        return self._compare("uno", other)

    def bits(self) -> Bits:
        v = self.lanes
        return Bits(v, v.f.value(f"bitcast {v.real_type} {self.operand} to {v.bits_type}"))

    def to(self, lanes: Lanes) -> Real:
        """The numbers in another format."""
        v = self.lanes
        if v.scalar == lanes.scalar:
            return Real(lanes, self.operand)
        op = "fpext" if lanes.scalar == "double" else "fptrunc"
        return Real(lanes, v.f.value(f"{op} {v.real_type} {self.operand} to {lanes.real_type}"))

    def halves(self) -> tuple[Real, Real]:
        """An exact sum of two numbers with half the significand's bits each, so that products of halves are exact
        (Veltkamp's splitting; overflows near the format's largest numbers)."""
        scaled = self * (2.0 ** ((self.lanes.format.precision + 1) // 2) + 1.0)
        high = scaled - (scaled - self)
        return high, self - high


@dataclass(frozen=True, eq=False)
class Bits:
    """A vector of integers as wide as the floating-point elements."""

    lanes: Lanes
    operand: str

    def _binary(self, op: str, a: BitsLike, b: BitsLike) -> Bits:
        v = self.lanes
        return Bits(v, v.f.value(f"{op} {v.bits_type} {v.bits(a).operand}, {v.bits(b).operand}"))

    def __add__(self, other: BitsLike) -> Bits:
        return self._binary("add", self, other)

    def __sub__(self, other: BitsLike) -> Bits:
        return self._binary("sub", self, other)

    def __rsub__(self, other: int) -> Bits:
        return self._binary("sub", other, self)

    def __and__(self, other: BitsLike) -> Bits:
        return self._binary("and", self, other)

    def __or__(self, other: BitsLike) -> Bits:
        return self._binary("or", self, other)

    def __xor__(self, other: BitsLike) -> Bits:
        return self._binary("xor", self, other)

    def __lshift__(self, count: int) -> Bits:
        return self._binary("shl", self, count)

    def __rshift__(self, count: int) -> Bits:
        """The logical shift: zeros come in from above."""
        return self._binary("lshr", self, count)

    def to(self, lanes: Lanes) -> Bits:
        """The low bits as integers of another format, no wider than this one's."""
        v = self.lanes
        if v.scalar == lanes.scalar:
            return Bits(lanes, self.operand)
        return Bits(lanes, v.f.value(f"trunc {v.bits_type} {self.operand} to {lanes.bits_type}"))

    def is_negative(self) -> Mask:
        """Where the highest bit is set: a floating-point number's sign."""
        v = self.lanes
        return Mask(v, v.f.value(f"icmp slt {v.bits_type} {self.operand}, {v.bits(0).operand}"))

    def is_odd(self) -> Mask:
        return (self << (self.lanes.format.width - 1)).is_negative()

    def as_real(self) -> Real:
        v = self.lanes
        return Real(v, v.f.value(f"bitcast {v.bits_type} {self.operand} to {v.real_type}"))


@dataclass(frozen=True, eq=False)
class Mask:
    """A vector of truth values."""

    lanes: Lanes
    operand: str

    def _binary(self, op: str, other: Mask) -> Mask:
        v = self.lanes
        return Mask(v, v.f.value(f"{op} {v.mask_type} {self.operand}, {other.operand}"))

    def __and__(self, other: Mask) -> Mask:
        return self._binary("and", other)

    def __or__(self, other: Mask) -> Mask:
        return self._binary("or", other)

    def __xor__(self, other: Mask) -> Mask:
        return self._binary("xor", other)

    def __invert__(self) -> Mask:
        v = self.lanes
        ones = "true" if v.width == 1 else "splat (i1 true)"
        return Mask(v, v.f.value(f"xor {v.mask_type} {self.operand}, {ones}"))

    def any(self) -> str:
        """An i1: whether it holds for any element."""
        v = self.lanes
        if v.width == 1:
            return self.operand
        name = v.f.module.declare(f"llvm.vector.reduce.or.v{v.width}i1", "i1", [v.mask_type])
        return v.f.call("i1", name, (v.mask_type, self.operand))


RealLike: TypeAlias = Real | float
BitsLike: TypeAlias = Bits | int
