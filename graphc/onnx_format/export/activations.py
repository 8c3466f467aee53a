"""Activations, which are several nodes of a graph, as ONNX's operators: where the numbers in them are those of the operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import graphc.ops as ops
from graphc.ir import Node, Value
from graphc.onnx_format.export.matching import Match, number, operator, stretched
from graphc.rewrite import Pattern, Var, match
from graphc.types import float32

_x, _low, _high, _nan, _alpha, _gamma, _factor, _third = map(
    Var, ("x", "low", "high", "nan", "alpha", "gamma", "factor", "third")
)
Found = Mapping[str, Value]


def match_activation(node: Node) -> Match | None:
    """What a node is the end of. Doubles are left as they are: runtimes have few of these operators for them."""
    if node.results[0].dtype is not float32:
        return None
    for pattern, made_of in _BY_ROOT.get(node.op.name, ()):
        found = match(pattern, node)
        made = None if found is None else made_of(found)
        if made is not None:
            return made
    return None


def _plain(op_type: str, **attributes: Any) -> Callable[[Found], Match]:
    return lambda found: Match((found["x"],), operator(op_type, **attributes))


def _is(value: Value, expected: float) -> bool:
    """Whether a constant is the number, as rounded to single precision."""
    got = number(value)
    return got is not None and math.isclose(got, expected, rel_tol=1e-6)


# x times something

_DISTRIBUTION = ops.add(1.0, ops.erf(ops.mul(_x, _factor)))
_CUBIC = ops.mul(_factor, ops.add(_x, ops.mul(_third, ops.mul(ops.mul(_x, _x), _x))))


def _gelu(found: Found) -> Match | None:
    return Match((found["x"],), operator("Gelu"), opset=20) if _is(found["factor"], math.sqrt(0.5)) else None


def _gelu_by_tanh(found: Found) -> Match | None:
    if not (_is(found["factor"], math.sqrt(2 / math.pi)) and _is(found["third"], 0.044715)):
        return None
    return Match((found["x"],), operator("Gelu", approximate="tanh"), opset=20)


def _softplus(x: Any) -> Any:
    beyond = ops.gt(x, 20.0)  # where log(1 + exp(x)) is x in single precision
    return ops.where(beyond, x, ops.log1p(ops.exp(ops.where(beyond, 0.0, x))))


# Below zero something else

_BELOW = ops.where(ops.le(_x, 0.0), _x, 0.0)


def _elu(below: Any, above: Any = _x) -> Any:
    return ops.where(ops.le(_x, 0.0), below, above)


def _elu_of(found: Found) -> Match | None:
    alpha = number(found["alpha"])
    return None if alpha is None else Match((found["x"],), operator("Elu", alpha=alpha))


def _celu(found: Found) -> Match | None:
    alpha, factor = number(found["alpha"]), found["factor"]
    if not alpha or not _is(factor, 1 / alpha):
        return None
    return Match((found["x"],), operator("Celu", alpha=alpha))


def _selu(found: Found) -> Match | None:
    both, gamma = number(found["alpha"]), number(found["gamma"])
    if both is None or not gamma:
        return None
    return Match((found["x"],), operator("Selu", alpha=both / gamma, gamma=gamma))


def _leaky(found: Found) -> Match | None:
    alpha = number(found["alpha"])
    if alpha is not None:
        return Match((found["x"],), operator("LeakyRelu", alpha=alpha))
    return Match((found["x"], stretched(found["alpha"])), operator("PRelu"))


# Between two bounds


def _between(x: Any, low: Any, high: Any) -> Any:
    """x inside of the open interval, else the bound, or NaN."""
    outside = ops.where(ops.ge(x, high), high, ops.where(ops.le(x, low), low, _nan))
    return ops.where(ops.bitwise_and(ops.gt(x, low), ops.lt(x, high)), x, outside)


def _has_nan(found: Found) -> bool:
    other = number(found["nan"])
    return other is not None and math.isnan(other)


def _clip(found: Found) -> Match | None:
    low, high = found["low"], found["high"]
    if number(low) is None or number(high) is None or not _has_nan(found):
        return None
    return Match((found["x"], stretched(low), stretched(high)), operator("Clip"))


def _hard_sigmoid(found: Found) -> Match | None:
    return Match((found["x"],), operator("HardSigmoid", alpha=1 / 6, beta=0.5)) if _has_nan(found) else None


_INSIDE = ops.where(ops.bitwise_or(ops.le(_x, -3.0), ops.ge(_x, 3.0)), 0.0, _x)
_HARD_SWISH = ops.where(
    ops.le(_x, -3.0), 0.0, ops.where(ops.ge(_x, 3.0), _x, ops.div(ops.mul(_INSIDE, ops.add(_INSIDE, 3.0)), 6.0))
)

_RULES: tuple[tuple[Pattern, Callable[[Found], Match | None]], ...] = (
    (ops.mul(ops.mul(_x, 0.5), _DISTRIBUTION), _gelu),
    (ops.mul(ops.mul(0.5, _x), ops.add(1.0, ops.tanh(_CUBIC))), _gelu_by_tanh),
    (ops.mul(_x, ops.tanh(_softplus(_x))), _plain("Mish")),
    (_softplus(_x), _plain("Softplus")),
    (ops.div(_x, ops.add(ops.abs(_x), 1.0)), _plain("Softsign")),
    (_elu(ops.expm1(_BELOW)), _plain("Elu", alpha=1.0)),
    (_elu(ops.mul(ops.expm1(_BELOW), _alpha)), _elu_of),
    (_elu(ops.mul(ops.expm1(ops.mul(_BELOW, _factor)), _alpha)), _celu),
    (_elu(ops.mul(ops.expm1(_BELOW), _alpha), ops.mul(_x, _gamma)), _selu),
    (ops.where(ops.gt(_x, 0.0), _x, ops.mul(_x, _alpha)), _leaky),
    (_HARD_SWISH, _plain("HardSwish")),
    (ops.div(_between(ops.add(_x, 3.0), 0.0, 6.0), 6.0), _hard_sigmoid),
    (_between(_x, _low, _high), _clip),
)
_BY_ROOT: dict[str, list[tuple[Pattern, Callable[[Found], Match | None]]]] = {}
for _rule in _RULES:
    _BY_ROOT.setdefault(_rule[0].op.name, []).append(_rule)
