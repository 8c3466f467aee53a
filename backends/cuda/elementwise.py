"""The elementwise ops as C++ expressions: one table, `RULES`, from an op's name to how it is written.

Each op has the value that NumPy defines, but for the elementary functions, which are CUDA's: within 2 units in the last place
in single precision, and 1 in double ("CUDA C++ Programming Guide", mathematical functions), erfinv and lgamma within a few.
What needs more than an expression is a function of `prelude.cuh`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from graphc.errors import CompileError
from graphc.types import DType, Real, bfloat16, bool_, float16, float32, float64, int64, uint32, uint64

C_TYPE = {
    "bool": "bool", "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short",
    "int32": "int", "uint32": "unsigned", "int64": "long long", "uint64": "unsigned long long",
    "float16": "half_t", "bfloat16": "bfloat_t", "float32": "float", "float64": "double",
}  # fmt: skip
"""The type of a number of each dtype in a register."""
HALVES = frozenset((float16, bfloat16))


def memory_type(dtype: DType) -> str:
    """The type of a number in memory: a bool is a byte."""
    return "unsigned char" if dtype is bool_ else C_TYPE[dtype.name]


def _unsigned(dtype: DType) -> str:
    """Where integers of the dtype are added and multiplied: what overflows is cut off, and not undefined."""
    return "unsigned long long" if dtype.bits == 64 else "unsigned"


def literal(value: Real, dtype: DType) -> str:
    """A number in C++."""
    if dtype is bool_:
        return "true" if value else "false"
    if dtype in HALVES:
        return f"{_narrowed(dtype)}({literal(float(value), float32)})"
    if dtype.is_floating_point:
        value = float(value)
        if math.isnan(value):
            return f"not_a_number<{C_TYPE[dtype.name]}>()"
        if math.isinf(value):
            return f"{'-' if value < 0 else ''}infinity<{C_TYPE[dtype.name]}>()"
        return f"{value.hex()}{'' if dtype is float64 else 'f'}"
    number = int(value)
    if dtype.bits < 64:
        return f"({C_TYPE[dtype.name]}){number}" if dtype.bits < 32 or dtype is uint32 or number == -(1 << 31) else str(number)
    if dtype is uint64:
        return f"{number % (1 << 64)}ULL"
    return f"({number + 1}LL - 1)" if number == -(1 << 63) else f"{number}LL"


Rule = str | Mapping[str, str]
"""A format of the operands {0}, {1}, ...; the type {t}; and the unsigned type {u} of the same bits, at least 32. Or one for
each kind of dtype, where "int" stands for "uint" too if that is not named."""


def _function(name: str, operands: int = 1) -> str:
    return f"{name}({', '.join(f'{{{i}}}' for i in range(operands))})"


def _wrapping(sign: str) -> str:
    return f"({{t}})(({{u}}){{0}} {sign} ({{u}}){{1}})"


_ITSELF = {"int": "{0}", "bool": "{0}"}

RULES: dict[str, Rule] = {
    "add": {"float": "{0} + {1}", "int": _wrapping("+"), "bool": "{0} || {1}"},
    "sub": {"float": "{0} - {1}", "int": _wrapping("-")},
    "mul": {"float": "{0} * {1}", "int": _wrapping("*"), "bool": "{0} && {1}"},
    "div": {"float": "{0} / {1}"},
    "neg": {"float": "-{0}", "int": "({t})(0 - ({u}){0})"},
    "abs": {"float": "fabs({0})", "int": "({t})({0} < 0 ? 0 - ({u}){0} : ({u}){0})", "uint": "{0}"},
    "pow": {"float": "pow({0}, {1})", "int": _function("integer_power", 2)},
    "floor_divide": _function("floor_divide", 2),
    "remainder": _function("remainder_of", 2),
    "fmod": {"float": "fmod({0}, {1})", "int": _function("integer_fmod", 2)},
    **{name: _function(name) for name in (
        "exp", "expm1", "log", "log1p", "sqrt", "exp2", "log2", "log10", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
        "cosh", "asinh", "acosh", "atanh", "tanh", "erf", "erfc", "sigmoid", "erfinv", "lgamma", "digamma",
    )},
    "atan2": _function("atan2", 2),
    "floor": {**_ITSELF, "float": "floor({0})"},
    "ceil": {**_ITSELF, "float": "ceil({0})"},
    "trunc": {**_ITSELF, "float": "trunc({0})"},
    "round": {**_ITSELF, "float": "rint({0})"},
    "maximum": _function("maximum", 2),
    "minimum": _function("minimum", 2),
    "where": "{0} ? {1} : {2}",
    "copysign": _function("copysign", 2),
    "signbit": {"float": "is_negative({0})", "int": "{0} < 0", "uint": "false", "bool": "false"},
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "bitwise_and": {"int": "({t})({0} & {1})", "bool": "{0} && {1}"},
    "bitwise_or": {"int": "({t})({0} | {1})", "bool": "{0} || {1}"},
    "bitwise_xor": {"int": "({t})({0} ^ {1})", "bool": "{0} != {1}"},
    "bitwise_not": {"int": "({t})~{0}", "bool": "!{0}"},
    "shift_left": {"int": _function("shift_left", 2)},
    "shift_right": {"int": _function("shift_right", 2)},
    # index arithmetic, on numbers that are not negative
    "quotient": {"int": "({t})(({u}){0} / ({u}){1})"},
    "modulo": {"int": "({t})(({u}){0} % ({u}){1})"},
}  # fmt: skip


def render(name: str, dtype: DType, operands: Sequence[str], *, result: DType, exponent: Real | None = None) -> str:
    """An op of operands of a dtype (the condition of `where` is boolean) as an expression of type C_TYPE[result].

    Halves are computed in single precision and rounded after each op, as NumPy does. `exponent` is the number that a power is
    taken to, where it is known.
    """
    if name == "cast":
        return cast(operands[0], dtype, result)
    rule = RULES.get(name)
    if rule is None:
        raise CompileError(f"{name}: the CUDA back end has no code for this op",
                           hint="give its record a scalar form: `scalar=` in terms of other ops")
    if dtype in HALVES and name != "where":
        value = render(name, float32, [f"widen({x})" for x in operands], result=float32 if result in HALVES else result,
                       exponent=exponent)
        return f"{_narrowed(result)}({value})" if result in HALVES else value
    if name == "pow" and dtype.is_floating_point and exponent in (2, 3, 4):
        return f"power_{int(exponent or 0)}({operands[0]})"
    text = rule if isinstance(rule, str) else rule.get(dtype.kind) or rule["int"]
    return text.format(*operands, t=C_TYPE[dtype.name], u=_unsigned(dtype))


def _narrowed(dtype: DType) -> str:
    return "to_half" if dtype is float16 else "to_bfloat"


def cast(x: str, dtype: DType, to: DType) -> str:
    """A number of one dtype as one of another. A float that an integer dtype cannot hold becomes what x86 makes of it: the
    least number of int32 or int64, of which the smaller and the unsigned dtypes keep the low bits."""
    if dtype is to:
        return x
    if dtype in HALVES:
        return cast(f"widen({x})", float32, to)
    if to is bool_:
        return f"{x} != 0"
    if to in HALVES:
        single = f"round_to_odd({x})" if dtype is float64 else f"(float){x}"
        return f"{_narrowed(to)}({single})"
    type_ = C_TYPE[to.name]
    if not dtype.is_floating_point or to.is_floating_point:
        return f"({type_}){x}"
    if to is uint64:
        return f"to_unsigned_long({x})"
    if to in (int64, uint32):
        return f"({type_})to_long({x})"
    return f"({type_})to_int({x})"
