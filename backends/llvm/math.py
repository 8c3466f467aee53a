"""The elementary functions as vector code for any width, in float and double.

`emit` adds one internal function per (name, element type, width) to the module and calls it; it is always inlined.
Each is branch-free (but sin, cos and tan branch on a rare large argument, lgamma and digamma on a negative one), calls
nothing outside the module, keeps the sign of a zero and subnormal numbers, and is within about 2 units in the last place of
the true value, pow too.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm import math_arc, math_erf, math_exp, math_gamma, math_log, math_pow, math_trig
from graphc.backends.llvm.builder import Function, mangle, vector
from graphc.backends.llvm.lanes import Lanes, Real


def rsqrt(v: Lanes, x: Real) -> Real:
    return 1.0 / x.sqrt()


_UNARY: dict[str, Callable[[Lanes, Real], Real]] = {
    **math_exp.FUNCTIONS,
    **math_log.FUNCTIONS,
    **math_trig.FUNCTIONS,
    **math_erf.FUNCTIONS,
    **math_arc.FUNCTIONS,
    **math_gamma.FUNCTIONS,
    "rsqrt": rsqrt,
}
_BINARY: dict[str, Callable[[Lanes, Real, Real], Real]] = {"atan2": math_arc.atan2, "pow": math_pow.pow}

FUNCTIONS = frozenset(_UNARY) | frozenset(_BINARY)


def emit(f: Function, name: str, scalar: str, width: int, *args: str) -> str:
    """Emit code computing the elementary function `name` on operands of type vector(scalar, width) inside `f`; returns
    the result operand.

    `scalar` is "float" or "double", `width` a power of two from 1 to 64. pow and atan2 take two operands.
    """
    arity = 1 if name in _UNARY else 2
    if name not in FUNCTIONS or len(args) != arity:
        raise ValueError(f"{name} of {len(args)} operands is no elementary function; there are {sorted(FUNCTIONS)}")
    type_ = vector(scalar, width)
    symbol = f"graphc.{name}.{mangle(type_)}"
    if not f.module.has(symbol):
        params = [(type_, "x"), (type_, "y")][:arity]
        helper = f.module.function(symbol, params, type_, linkage="internal", attributes="alwaysinline nounwind")
        v = Lanes(helper, scalar, width)
        if arity == 1:
            result = _UNARY[name](v, v.real("%x"))
        else:
            result = _BINARY[name](v, v.real("%x"), v.real("%y"))
        helper.do(f"ret {type_} {result.operand}")
    return f.call(type_, f"@{symbol}", *((type_, arg) for arg in args))
