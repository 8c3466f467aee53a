"""The elementwise ops as LLVM instructions: one table, `RULES`, from an op's name to how it is rendered.

NumPy's definition of each op holds to the bit, but for the elementary functions, which are `math`'s. Nothing traps and
nothing is undefined, whatever the numbers are: vectors are computed whole, lanes that nobody asked for included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import frexp
from typing import TypeAlias

from graphc.backends.llvm import math
from graphc.backends.llvm.builder import Function, literal, mangle, vector
from graphc.backends.llvm.half import HALVES, bits_of, narrow, widen
from graphc.errors import CompileError
from graphc.types import DType, Real, bfloat16, bool_, float32, float64, int32, int64

REGISTER = {
    "bool": "i1", "int8": "i8", "uint8": "i8", "int16": "i16", "uint16": "i16", "int32": "i32", "uint32": "i32", "int64": "i64",
    "uint64": "i64", "float16": "half", "bfloat16": "i16", "float32": "float", "float64": "double",
}  # fmt: skip
"""The LLVM type that holds a number of each dtype in a register. In memory a bool is a byte."""


@dataclass(frozen=True)
class Registers:
    """Emits instructions on registers of `width` numbers of one dtype. `constants` are the operands' values, where the
    code generator knows them, and `uniform` the operands as scalars, where they are the same in all lanes."""

    f: Function
    dtype: DType
    width: int
    constants: tuple[Real | None, ...] = ()
    uniform: tuple[str | None, ...] = ()

    @property
    def scalar(self) -> str:
        return REGISTER[self.dtype.name]

    @property
    def type(self) -> str:
        return vector(self.scalar, self.width)

    @property
    def mask_type(self) -> str:
        return vector("i1", self.width)

    def of(self, dtype: DType) -> Registers:
        """As many numbers of another dtype."""
        return replace(self, dtype=dtype)

    def number(self, value: Real) -> str:
        """A constant in each lane."""
        if isinstance(value, int) and not self.dtype.is_floating_point and value >> 63 == 1:
            value -= 1 << 64
        text = str(bits_of(value)) if self.dtype is bfloat16 else literal(value, self.scalar)
        return text if self.width == 1 else f"splat ({self.scalar} {text})"

    def do(self, instruction: str, x: str, y: str) -> str:
        """A binary instruction."""
        return self.f.value(f"{instruction} {self.type} {x}, {y}")

    def compare(self, predicate: str, x: str, y: str) -> str:
        """An i1 for each lane: a predicate of fcmp for floats, of icmp otherwise."""
        return self.do(f"{'fcmp' if self.dtype.is_floating_point else 'icmp'} {predicate}", x, y)

    def select(self, mask: str, x: str, y: str) -> str:
        return self.f.value(f"select {self.mask_type} {mask}, {self.type} {x}, {self.type} {y}")

    def intrinsic(self, name: str, *operands: str) -> str:
        return self.f.intrinsic(name, self.type, *operands)

    def convert(self, instruction: str, x: str, dtype: DType) -> str:
        """A conversion instruction to another dtype."""
        return self.f.value(f"{instruction} {self.type} {x} to {self.of(dtype).type}")

    def mask(self, instruction: str, x: str, y: str) -> str:
        """A binary instruction on masks."""
        return self.f.value(f"{instruction} {self.mask_type} {x}, {y}")

    def bits(self, x: str) -> str:
        """Floating-point numbers as integers."""
        return self.f.value(f"bitcast {self.type} {x} to {vector(f'i{self.dtype.bits}', self.width)}")

    def integer(self, instruction: str, x: str, number: int) -> str:
        """A binary instruction on integers of the dtype's width and a constant."""
        scalar = f"i{self.dtype.bits}"
        text = str(number) if self.width == 1 else f"splat ({scalar} {number})"
        return self.f.value(f"{instruction} {vector(scalar, self.width)} {x}, {text}")

    def compare_bits(self, predicate: str, x: str, number: int) -> str:
        """Compare integers of the dtype's width with a constant."""
        return self.integer(f"icmp {predicate}", x, number)

    def negative(self, x: str) -> str:
        """Which integers are below zero."""
        return self.compare("slt", x, self.number(0))


Rule: TypeAlias = Callable[..., str]
"""`rule(registers, *operands)`: emits code on operands of the registers' dtype; returns the result."""


_EXACT = frozenset(("abs", "ceil", "copysign", "floor", "maximum", "minimum", "neg", "round", "trunc"))
"""Of halves, these are halves: there is nothing to round."""


def render(
    f: Function,
    name: str,
    dtype: DType,
    width: int,
    operands: Sequence[str],
    *,
    result: DType,
    constants: tuple[Real | None, ...] = (),
    uniform: tuple[str | None, ...] = (),
) -> str:
    """Emit the op `name` into f on registers of `width` numbers.

    `dtype` is that of the operands (the condition of `where` is boolean), `result` the op's own. Halves are computed in
    single precision and rounded after each op, as NumPy does.
    """
    registers = Registers(f, dtype, width, constants, uniform)
    if name == "cast":
        return cast(registers, operands[0], result)
    if name not in RULES:
        raise CompileError(f"{name}: the LLVM back end has no code for this op",
                           hint="give its record a scalar form: `scalar=` in terms of other ops")
    if dtype not in HALVES or name == "where":
        return RULES[name](registers, *operands)
    single = replace(registers, dtype=float32, uniform=())
    value = RULES[name](single, *(widen(f, dtype, width, operand) for operand in operands))
    return narrow(f, result, width, value, exact=name in _EXACT) if result in HALVES else value


def _by_kind(**rules: str | Rule) -> Rule:
    """Another rule, or binary instruction, for each kind of dtype; "int" stands for "uint" too where that is not named."""

    def rule(v: Registers, *operands: str) -> str:
        chosen = rules.get(v.dtype.kind) or rules["int"]
        return v.do(chosen, *operands) if isinstance(chosen, str) else chosen(v, *operands)

    return rule


def _compare(floating: str, signed: str, unsigned: str) -> Rule:
    def rule(v: Registers, x: str, y: str) -> str:
        return v.compare({"float": floating, "int": signed}.get(v.dtype.kind, unsigned), x, y)

    return rule


def _intrinsic(name: str) -> Rule:
    return lambda v, *operands: v.intrinsic(name, *operands)


def _function(name: str) -> Rule:
    return lambda v, *operands: math.emit(v.f, name, v.scalar, v.width, *operands)


def _itself(v: Registers, x: str) -> str:
    return x


def _negative(v: Registers, x: str) -> str:
    return v.f.value(f"fneg {v.type} {x}") if v.dtype.is_floating_point else v.do("sub", v.number(0), x)


def _absolute_integer(v: Registers, x: str) -> str:
    return v.select(v.negative(x), v.do("sub", v.number(0), x), x)


def _extremum(floating: str, signed: str, unsigned: str, boolean: str) -> Rule:
    """A NaN in either operand wins; of two equal ones (0 and -0) the second is taken."""

    def rule(v: Registers, x: str, y: str) -> str:
        match v.dtype.kind:
            case "bool":
                return v.do(boolean, x, y)
            case "float":
                if v.constants and v.constants[1] == v.constants[1] is not None:  # a number, and not NaN
                    return v.select(v.compare(f"u{floating}", x, y), x, y)
                ordered = v.select(v.compare(f"o{floating}", x, y), x, y)
                return v.select(v.compare("uno", x, x), x, ordered)
            case kind:
                return v.intrinsic(signed if kind == "int" else unsigned, x, y)

    return rule


# Division


def _divisor(v: Registers, x: str, y: str) -> str:
    """The divisor, with 1 in the place of those that the processor would trap on."""
    traps = v.compare("eq", y, v.number(0))
    if v.dtype.is_signed:
        overflows = v.compare("eq", x, v.number(-1 << (v.dtype.bits - 1)))
        traps = v.mask("or", traps, v.mask("and", v.compare("eq", y, v.number(-1)), overflows))
    return v.select(traps, v.number(1), y)


def _integer_floor_divide(v: Registers, x: str, y: str) -> str:
    """Rounded down; 0 where y is 0."""
    divisor = _divisor(v, x, y)
    if v.dtype.is_signed:
        truncated = v.do("sdiv", x, divisor)
        rest = v.do("sub", x, v.do("mul", truncated, divisor))
        down = v.mask("and", v.compare("ne", rest, v.number(0)), v.negative(v.do("xor", rest, divisor)))
        quotient = v.do("sub", truncated, v.select(down, v.number(1), v.number(0)))
    else:
        quotient = v.do("udiv", x, divisor)
    return v.select(v.compare("eq", y, v.number(0)), v.number(0), quotient)


def _integer_remainder(v: Registers, x: str, y: str) -> str:
    """Of the divisor's sign; 0 where y is 0."""
    divisor = _divisor(v, x, y)
    rest = v.do("srem" if v.dtype.is_signed else "urem", x, divisor)
    if v.dtype.is_signed:
        up = v.mask("and", v.compare("ne", rest, v.number(0)), v.negative(v.do("xor", rest, divisor)))
        rest = v.do("add", rest, v.select(up, divisor, v.number(0)))
    return v.select(v.compare("eq", y, v.number(0)), v.number(0), rest)


def _float_remainder(v: Registers, x: str, y: str) -> str:
    """Of the divisor's sign, zeros too; NaN where y is 0."""
    rest = _float_fmod(v, x, y)
    zero = v.number(0.0)
    up = v.do("fadd", rest, v.select(_signs_differ(v, rest, y), y, zero))
    none = v.mask("and", v.compare("oeq", rest, zero), v.compare("one", y, zero))
    return v.select(none, v.intrinsic("llvm.copysign", zero, y), up)


def _integer_fmod(v: Registers, x: str, y: str) -> str:
    """Of the dividend's sign; 0 where y is 0."""
    rest = v.do("srem" if v.dtype.is_signed else "urem", x, _divisor(v, x, y))
    return v.select(v.compare("eq", y, v.number(0)), v.number(0), rest)


def _float_floor_divide(v: Registers, x: str, y: str) -> str:
    """By the exact remainder: floor(x / y) would be one too high where the quotient is rounded up to a whole number."""
    zero, ratio = v.number(0.0), v.do("fdiv", x, y)
    rest = _float_fmod(v, x, y)
    whole = v.do("fdiv", v.do("fsub", x, rest), y)  # rounded, but next to a whole number
    down = v.mask("and", v.compare("one", rest, zero), _signs_differ(v, rest, y))
    whole = v.do("fsub", whole, v.select(down, v.number(1.0), zero))
    floor = v.intrinsic("llvm.floor", whole)
    low = v.compare("ogt", v.do("fsub", whole, floor), v.number(0.5))
    floor = v.do("fadd", floor, v.select(low, v.number(1.0), zero))
    floor = v.select(v.compare("oeq", whole, zero), v.intrinsic("llvm.copysign", zero, ratio), floor)
    return v.select(v.compare("oeq", y, zero), ratio, floor)


def _signs_differ(v: Registers, x: str, y: str) -> str:
    return v.mask("xor", v.compare("olt", x, v.number(0.0)), v.compare("olt", y, v.number(0.0)))


# Powers


def _product_power(v: Registers, x: str, n: int) -> str:
    """x * x * ... for n >= 1, by squaring."""
    multiply = "fmul" if v.dtype.is_floating_point else "mul"
    result = ""
    while True:
        if n & 1:
            result = v.do(multiply, result, x) if result else x
        n >>= 1
        if not n:
            return result
        x = v.do(multiply, x, x)


def _float_power(v: Registers, x: str, y: str) -> str:
    exponent = v.constants[1] if v.constants else None
    if exponent in (2.0, 3.0, 4.0):  # two roundings at most, which is as near as `pow` comes
        return _product_power(v, x, int(exponent))
    if exponent == 0.5:  # as NumPy has it, for -inf too
        return v.intrinsic("llvm.sqrt", x)
    return math.emit(v.f, "pow", v.scalar, v.width, x, y)


def _integer_power(v: Registers, x: str, y: str) -> str:
    """Modulo 2^bits; 1 / x^-y truncated where y < 0, and 0 where that is 1 / 0."""
    exponent = v.constants[1] if v.constants else None
    if exponent is not None and 1 <= exponent <= 64:
        return _product_power(v, x, int(exponent))
    f = v.f
    power, base, rest = (f.slot(v.type) for _ in range(3))
    for slot, start in ((power, v.number(1)), (base, x), (rest, y)):
        f.do(f"store {v.type} {start}, ptr {slot}")
    again, done = f.label("power"), f.label("power.end")
    f.jump(again)
    f.enter(again)
    so_far, square, bits = (f.value(f"load {v.type}, ptr {slot}") for slot in (power, base, rest))
    odd = v.compare("ne", v.do("and", bits, v.number(1)), v.number(0))
    result = v.select(odd, v.do("mul", so_far, square), so_far)
    left = v.do("lshr", bits, v.number(1))
    for slot, value in ((power, result), (base, v.do("mul", square, square)), (rest, left)):
        f.do(f"store {v.type} {value}, ptr {slot}")
    f.branch(any_lane(f, v.compare("ne", left, v.number(0)), v.width), again, done)
    f.enter(done)
    if not v.dtype.is_signed:
        return result
    one, minus_one = v.compare("eq", x, v.number(1)), v.compare("eq", x, v.number(-1))
    even = v.compare("eq", v.do("and", y, v.number(1)), v.number(0))
    inverse = v.select(minus_one, v.select(even, v.number(1), v.number(-1)), v.number(0))
    return v.select(v.negative(y), v.select(one, v.number(1), inverse), result)


def any_lane(f: Function, mask: str, width: int) -> str:
    """An i1: whether the mask holds for any lane."""
    if width == 1:
        return mask
    type_ = vector("i1", width)
    name = f.module.declare(f"llvm.vector.reduce.or.{mangle(type_)}", "i1", [type_])
    return f.call("i1", name, (type_, mask))


# Division

_SAFE_EXPONENT = {"float32": 60, "float64": 500}
"""Between two to this power and its inverse, nothing in `_float_divide` leaves the range of normal numbers."""


def _float_divide(v: Registers, x: str, y: str) -> str:
    """x / y. By a number that is the same in all lanes, vectors are multiplied with its reciprocal, and the quotient is
    corrected by the exact remainder, twice: that is the quotient rounded once, in a fraction of a division's time.

    Markstein: "Computation of elementary functions on the IBM RISC System/6000 processor" (1990), theorem 8.4.
    """
    divisor = v.uniform[1] if len(v.uniform) == 2 else None
    number = v.constants[1] if v.constants else None
    exponent = _SAFE_EXPONENT.get(v.dtype.name)
    power = isinstance(number, float) and number != 0 and frexp(number)[0] in (0.5, -0.5)
    if v.width == 1 or divisor is None or v.uniform[0] is not None or exponent is None or power or not v.f.module.has_fma:
        return v.do("fdiv", x, y)
    f, one, wide = v.f, replace(v, width=1), v
    fast, slow, done = f.label("by_reciprocal"), f.label("by_division"), f.label("divided")
    near = _in_range(one, divisor, exponent)
    nothing = wide.compare_bits("eq", wide.bits(x), 0)
    inside = wide.mask("or", _in_range(wide, x, exponent), nothing)
    outside = any_lane(f, wide.mask("xor", inside, "splat (i1 true)"), v.width)
    f.branch(f.value(f"select i1 {near}, i1 {outside}, i1 true"), slow, fast)
    f.enter(fast)
    reciprocal = f.splat(v.scalar, one.do("fdiv", one.number(1.0), divisor), v.width)
    negative = f.splat(v.scalar, f.value(f"fneg {v.scalar} {divisor}"), v.width)
    quotient = v.do("fmul", x, reciprocal)
    for _ in range(2):
        remainder = v.intrinsic("llvm.fma", negative, quotient, x)
        quotient = v.intrinsic("llvm.fma", remainder, reciprocal, quotient)
    f.jump(done)
    f.enter(slow)
    exact = v.do("fdiv", x, y)
    f.jump(done)
    f.enter(done)
    return f.value(f"phi {v.type} [ {quotient}, %{fast} ], [ {exact}, %{slow} ]")


def _in_range(v: Registers, x: str, exponent: int) -> str:
    """Whether the magnitude is between 2 to the power of -exponent and of exponent."""
    mantissa, bias = {"float32": (23, 127), "float64": (52, 1023)}[v.dtype.name]
    magnitude = v.integer("and", v.bits(x), (1 << (v.dtype.bits - 1)) - 1)
    above = v.integer("sub", magnitude, (bias - exponent) << mantissa)
    return v.compare_bits("ult", above, 2 * exponent << mantissa)


_WHOLE_BITS = {"float32": 22, "float64": 51}
"""Quotients below two to this power are off by less than a half when they are rounded."""


def _float_fmod(v: Registers, x: str, y: str) -> str:
    """Of the dividend's sign, zeros too; NaN where y is 0, or x infinite.

    Where the quotient is not large, what is left of so many whole divisors is a number without rounding, as is what is left of
    one too many, which a quotient that is rounded up may be. The system's function, for the others, takes one lane at a time.
    """
    bits = _WHOLE_BITS.get(v.dtype.name)
    if v.width == 1 or bits is None or not v.f.module.has_fma:
        return v.do("frem", x, y)
    f = v.f
    fast, slow, done = f.label("by_quotient"), f.label("by_remainder"), f.label("remainder")
    ratio = v.do("fdiv", x, y)
    known = v.compare("olt", v.intrinsic("llvm.fabs", ratio), v.number(2.0**bits))
    f.branch(any_lane(f, v.mask("xor", known, "splat (i1 true)"), v.width), slow, fast)
    f.enter(fast)
    whole = v.intrinsic("llvm.trunc", ratio)
    rest = v.intrinsic("llvm.fma", f.value(f"fneg {v.type} {whole}"), y, x)
    rest = v.select(v.compare("oeq", whole, v.number(0.0)), x, rest)  # of an infinite divisor, too
    size = v.intrinsic("llvm.copysign", rest, v.number(1.0))
    beyond = v.mask("and", _signs_differ(v, rest, x), v.compare("one", rest, v.number(0.0)))
    size = v.select(beyond, v.do("fsub", v.intrinsic("llvm.fabs", y), size), size)
    quick = v.intrinsic("llvm.copysign", size, x)
    f.jump(done)
    f.enter(slow)
    exact = v.do("frem", x, y)
    f.jump(done)
    f.enter(done)
    return f.value(f"phi {v.type} [ {quick}, %{fast} ], [ {exact}, %{slow} ]")


# Shifts: by as many bits as there are, or by a negative number, shifts everything out


def _shift_left(v: Registers, x: str, y: str) -> str:
    inside = v.compare("ult", y, v.number(v.dtype.bits))
    return v.select(inside, v.do("shl", x, v.select(inside, y, v.number(0))), v.number(0))


def _shift_right(v: Registers, x: str, y: str) -> str:
    inside = v.compare("ult", y, v.number(v.dtype.bits))
    if v.dtype.is_signed:
        return v.do("ashr", x, v.select(inside, y, v.number(v.dtype.bits - 1)))
    return v.select(inside, v.do("lshr", x, v.select(inside, y, v.number(0))), v.number(0))


def _sign_bit(v: Registers, x: str) -> str:
    bits = v.of(int64 if v.dtype is float64 else int32)
    return bits.negative(v.f.value(f"bitcast {v.type} {x} to {bits.type}"))


def _never(v: Registers, x: str) -> str:
    return v.compare("ne", x, x)


def _where(v: Registers, condition: str, x: str, y: str) -> str:
    return v.select(condition, x, y)


def _not(v: Registers, x: str) -> str:
    return v.do("xor", x, v.number(True if v.dtype is bool_ else -1))


# Conversion


def cast(v: Registers, x: str, dtype: DType) -> str:
    """Numbers of the registers' dtype converted to another.

    A float that an integer dtype cannot hold becomes what x86 makes of it: the least number of int32 or int64, of which
    the smaller and the unsigned dtypes keep the low bits.
    """
    if v.dtype is dtype:
        return x
    if v.dtype in HALVES:
        return cast(v.of(float32), widen(v.f, v.dtype, v.width, x), dtype)
    if dtype is bool_:
        return v.compare("une" if v.dtype.is_floating_point else "ne", x, v.number(0))
    if dtype in HALVES:
        return narrow(v.f, dtype, v.width, _to_single(v, x))
    if v.dtype.is_floating_point:
        if dtype.is_floating_point:
            return v.convert("fpext" if dtype.bits > v.dtype.bits else "fptrunc", x, dtype)
        return _to_integer(v, x, dtype)
    if dtype.is_floating_point:
        return v.convert("sitofp" if v.dtype.kind == "int" else "uitofp", x, dtype)
    if dtype.bits == v.dtype.bits and v.dtype is not bool_:
        return x
    if v.dtype is not bool_ and dtype.bits < v.dtype.bits:
        return v.convert("trunc", x, dtype)
    return v.convert("sext" if v.dtype.kind == "int" else "zext", x, dtype)


def _to_single(v: Registers, x: str) -> str:
    """As single precision, on the way to a half."""
    if v.dtype is not float64:
        return cast(v, x, float32)
    # rounded to odd, so that rounding once more gives what rounding once would have
    long = v.of(int64)
    bits = v.f.value(f"bitcast {v.type} {x} to {long.type}")
    cut = long.compare("ne", long.do("and", bits, long.number((1 << 29) - 1)), long.number(0))
    sticky = long.select(cut, long.number(1 << 29), long.number(0))
    bits = long.do("or", long.do("and", bits, long.number(-(1 << 29))), sticky)
    return v.convert("fptrunc", v.f.value(f"bitcast {long.type} {bits} to {v.type}"), float32)


def _to_integer(v: Registers, x: str, dtype: DType) -> str:
    if dtype.bits < 32:
        return cast(v.of(int32), _to_signed(v, x, int32), dtype)
    if dtype.kind == "int":
        return _to_signed(v, x, dtype)
    if dtype.bits == 32:
        return cast(v.of(int64), _to_signed(v, x, int64), dtype)
    half_range = v.number(2.0**63)
    high = v.compare("oge", x, half_range)
    low_part = _to_signed(v, v.select(high, v.do("fsub", x, half_range), x), int64)
    long = v.of(int64)
    return long.select(high, long.do("xor", low_part, long.number(-(1 << 63))), low_part)


def _to_signed(v: Registers, x: str, dtype: DType) -> str:
    limit = 2.0 ** (dtype.bits - 1)
    inside = v.mask("and", v.compare("ogt", x, v.number(-limit - 1)), v.compare("olt", x, v.number(limit)))
    to = v.of(dtype)
    return to.select(inside, v.convert("fptosi", x, dtype), to.number(-(1 << (dtype.bits - 1))))


RULES: dict[str, Rule] = {
    "add": _by_kind(float="fadd", int="add", bool="or"),
    "sub": _by_kind(float="fsub", int="sub"),
    "mul": _by_kind(float="fmul", int="mul", bool="and"),
    "div": _by_kind(float=_float_divide),
    "neg": _negative,
    "abs": _by_kind(float=_intrinsic("llvm.fabs"), int=_absolute_integer, uint=_itself),
    "pow": _by_kind(float=_float_power, int=_integer_power),
    "floor_divide": _by_kind(float=_float_floor_divide, int=_integer_floor_divide),
    "remainder": _by_kind(float=_float_remainder, int=_integer_remainder),
    "fmod": _by_kind(float=_float_fmod, int=_integer_fmod),
    "exp": _function("exp"),
    "expm1": _function("expm1"),
    "log": _function("log"),
    "log1p": _function("log1p"),
    "sqrt": _intrinsic("llvm.sqrt"),
    "exp2": _function("exp2"),
    "log2": _function("log2"),
    "log10": _function("log10"),
    "sin": _function("sin"),
    "cos": _function("cos"),
    "tan": _function("tan"),
    "asin": _function("asin"),
    "acos": _function("acos"),
    "atan": _function("atan"),
    "atan2": _function("atan2"),
    "sinh": _function("sinh"),
    "cosh": _function("cosh"),
    "asinh": _function("asinh"),
    "acosh": _function("acosh"),
    "atanh": _function("atanh"),
    "tanh": _function("tanh"),
    "sigmoid": _function("sigmoid"),
    "erf": _function("erf"),
    "erfc": _function("erfc"),
    "erfinv": _function("erfinv"),
    "lgamma": _function("lgamma"),
    "digamma": _function("digamma"),
    "floor": _by_kind(float=_intrinsic("llvm.floor"), int=_itself, bool=_itself),
    "ceil": _by_kind(float=_intrinsic("llvm.ceil"), int=_itself, bool=_itself),
    "trunc": _by_kind(float=_intrinsic("llvm.trunc"), int=_itself, bool=_itself),
    "round": _by_kind(float=_intrinsic("llvm.rint"), int=_itself, bool=_itself),
    "maximum": _extremum("gt", "llvm.smax", "llvm.umax", "or"),
    "minimum": _extremum("lt", "llvm.smin", "llvm.umin", "and"),
    "where": _where,
    "copysign": _intrinsic("llvm.copysign"),
    "signbit": _by_kind(float=_sign_bit, int=Registers.negative, uint=_never, bool=_never),
    "eq": _compare("oeq", "eq", "eq"),
    "ne": _compare("une", "ne", "ne"),
    "lt": _compare("olt", "slt", "ult"),
    "le": _compare("ole", "sle", "ule"),
    "gt": _compare("ogt", "sgt", "ugt"),
    "ge": _compare("oge", "sge", "uge"),
    "bitwise_and": _by_kind(int="and"),
    "bitwise_or": _by_kind(int="or"),
    "bitwise_xor": _by_kind(int="xor"),
    "bitwise_not": _not,
    "shift_left": _shift_left,
    "shift_right": _shift_right,
    # index arithmetic, on numbers that are not negative
    "quotient": _by_kind(int="udiv"),
    "modulo": _by_kind(int="urem"),
}
