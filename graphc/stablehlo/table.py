"""The table of how ops are written, and the ops that are written as others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.stablehlo.writer import Operand, Step, Write, Writer

SAME_NAMED = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negate", "pow": "power", "atan2": "atan2",
    "maximum": "maximum", "minimum": "minimum", "fmod": "remainder", "exp": "exponential", "expm1": "exponential_minus_one",
    "log": "log", "log1p": "log_plus_one", "sqrt": "sqrt", "rsqrt": "rsqrt", "sin": "sine", "cos": "cosine", "tan": "tan",
    "tanh": "tanh", "sigmoid": "logistic", "bitwise_and": "and", "bitwise_or": "or", "bitwise_xor": "xor",
    "bitwise_not": "not", "where": "select", "shift_left": "shift_left", "complex": "complex", "real": "real", "imag": "imag",
    "reshape": "reshape", "asin": "chlo.asin", "acos": "chlo.acos", "atan": "chlo.atan", "sinh": "chlo.sinh",
    "cosh": "chlo.cosh", "asinh": "chlo.asinh", "acosh": "chlo.acosh", "atanh": "chlo.atanh", "erf": "chlo.erf",
    "erfc": "chlo.erfc", "erfinv": "chlo.erf_inv", "lgamma": "chlo.lgamma", "digamma": "chlo.digamma", "zeta": "chlo.zeta",
    "nextafter": "chlo.next_after", "i1e": "chlo.bessel_i1e",
}  # fmt: skip
"""Ops that are one operation of StableHLO's, or of its companion dialect CHLO's, on the same operands."""

IDENTITIES = ("copy", "stop_gradient", "fence", "transfer", "in_range")
"""Ops that give their first operand. `in_range` also checks an index, for which StableHLO has nothing."""

WRITERS: dict[str, Write] = {}
"""How an op is written, by its name."""

EXPANSIONS: dict[str, Callable[..., Any]] = {}
"""Ops as functions of operands and attributes over other ops."""


def writes(*ops: str) -> Callable[[Write], Write]:
    """Enter a function that writes these ops."""

    def enter(write: Write) -> Write:
        WRITERS.update(dict.fromkeys(ops, write))
        return write

    return enter


def _same_named(w: Writer, step: Step) -> Operand:
    return w.emit(SAME_NAMED[step.node.op.name], *step.operands, type=step.type)


def _identity(w: Writer, step: Step) -> Operand:
    return step.operands[0]


WRITERS.update(dict.fromkeys(SAME_NAMED, _same_named))
WRITERS.update(dict.fromkeys(IDENTITIES, _identity))
