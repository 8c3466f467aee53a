"""Each algebraic rule keeps each bit of each result: for all dtypes, and for the numbers that are special in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc.ops as ops
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Value
from graphc.passes.prune import prune
from graphc.passes.simplify import RULES
from graphc.rewrite import Pattern, Rewriter, Rule, Var
from graphc.types import DTYPES, DType, TensorType, bool_, convert, float32, float64, int8, uint8
from graphc.verify import verify

SHAPE = (2, 7)
ATTRS: dict[str, list[dict[str, Any]]] = {
    "cast": [{"dtype": dtype} for dtype in DTYPES.values()],
    "reshape": [{"shape": SHAPE}, {"shape": (7, 2)}, {"shape": (14,)}],
    "broadcast_to": [{"shape": SHAPE}, {"shape": (3, *SHAPE)}, {"shape": (1, 3, *SHAPE)}, {"shape": (4, 3, *SHAPE)}],
    "permute": [{"order": (0, 1)}, {"order": (1, 0)}],
    "slice": [{"starts": (0, 0), "stops": SHAPE, "steps": (1, 1)}, {"starts": (0, 1), "stops": SHAPE, "steps": (1, 2)}],
    "pad": [{"low": low, "high": high, "value": 0.0} for low, high in (((0, 0), (0, 0)), ((1, 0), (0, 2)), ((1, 0), (-1, 0)))],
    "flip": [{"axes": ()}, {"axes": (0, 1)}],
    "sum": [{"axes": ()}, {"axes": (1,)}],
    "amax": [{"axes": ()}, {"axes": (1,)}],
    "amin": [{"axes": ()}, {"axes": (1,)}],
    "concat": [{"axis": 0}, {"axis": 1}],
}
"""What attributes the ops of patterns are tried with."""


def special(dtype: DType) -> np.ndarray:
    """Numbers at which rules go wrong."""
    if dtype is bool_:
        numbers: list[Any] = [False, True]
    elif dtype.kind in ("int", "uint"):
        info = np.iinfo(dtype.numpy)
        numbers = [0, 1, 2, 3, info.max, info.min, info.max - 1, info.min + 1, *((-1, -2) if info.min else ())]
    else:
        parts = [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, np.inf, -np.inf, np.nan, -2.5, 1e-7, 6e4, -6e4]
        numbers = [complex(a, b) for a, b in itertools.product(parts[:9], parts[:9])] if dtype.is_complex else parts
    with np.errstate(all="ignore"):
        array = convert(np.array(numbers), dtype)
    return np.resize(array, (max(1, -(-array.size // 14)) * 14,))


def built(pattern: Any, builder: Builder, inputs: dict[str, Value], dtype: DType, shape: tuple[int, ...]) -> Iterator[Value]:
    """The pattern as nodes, with all attributes that fit."""
    if isinstance(pattern, Var):
        if pattern.name not in inputs:
            wanted = bool_ if pattern.name == "c" else dtype
            inputs[pattern.name] = builder.input(f"{pattern.name}{len(shape)}", TensorType(wanted, shape))
        yield inputs[pattern.name]
    elif isinstance(pattern, Pattern):
        parts = [list(built(arg, builder, inputs, dtype, shape)) for arg in pattern.args]
        for args, attrs in itertools.product(itertools.product(*parts), ATTRS.get(pattern.op.name, [{}])):
            try:
                yield pattern.op(*args, **attrs)
            except (ValueError, TypeError, IndexError, RuntimeError):  # not an op for this dtype, or these attributes
                continue
    else:
        yield builder.constant(pattern, dtype)


def cases(rule: Rule, dtype: DType) -> Graph | None:
    """A graph that returns the rule's pattern, with operands of a dtype, once for each choice of attributes."""
    builder = Builder("rule", locations=False)
    outputs: list[Value] = []
    for shape in (SHAPE, ()):
        outputs += built(rule.pattern, builder, {}, dtype, shape)
    return builder.finish(outputs) if outputs else None


def same_bits(got: np.ndarray, expected: np.ndarray) -> bool:
    """Whether all bits are equal; one NaN is as good as another."""
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return False
    if got.dtype.names:
        return all(same_bits(got[name].copy(), expected[name].copy()) for name in got.dtype.names)
    if got.dtype.kind == "c":
        return same_bits(got.real.copy(), expected.real.copy()) and same_bits(got.imag.copy(), expected.imag.copy())
    equal = got.view(f"u{got.itemsize}") == expected.view(f"u{got.itemsize}") if got.size else np.array(True)
    if got.dtype.kind in "fV":
        with np.errstate(all="ignore"):
            equal = equal | ((got != got) & (expected != expected))
    return bool(np.all(equal))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_keeps_all_bits(rule: Rule, dtype: DType) -> None:
    graph = cases(rule, dtype)
    if graph is None:  # the op does not take this dtype
        return
    after = prune(Rewriter([rule])(graph))
    verify(after)
    numbers = special(dtype)
    for shift in range(0, numbers.size, 5):
        arrays = []
        for k, value in enumerate(graph.inputs):
            source = special(value.dtype) if value.dtype is bool_ else numbers
            rolled = np.roll(source, shift * (k + 1))
            arrays.append(rolled[: value.type.size].reshape(value.shape))
        for number, (got, expected) in enumerate(zip(interpret(after, arrays), interpret(graph, arrays), strict=True)):
            assert same_bits(np.asarray(got), np.asarray(expected)), (number, got, expected, arrays)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_fires(rule: Rule) -> None:
    rewriter = Rewriter([rule])
    for dtype in (float32, int8, bool_):
        graph = cases(rule, dtype)
        if graph is not None:
            rewriter(graph)
    assert rewriter.fired[rule.name]


def test_the_check_finds_wrong_rules() -> None:
    x = Var("x")
    wrong = [
        Rule("add_zero", ops.add(x, 0), lambda x: x),  # -0.0 + 0.0 is 0.0
        Rule("sub_self", ops.sub(x, x), lambda x: ops.zeros_like(x)),  # inf - inf is NaN
        Rule("mul_zero", ops.mul(x, 0), lambda x: ops.zeros_like(x)),
        Rule("neg_by_sub", ops.neg(x), lambda x: ops.sub(ops.zeros_like(x), x)),
    ]
    for rule in wrong:
        with pytest.raises(AssertionError):
            test_a_rule_keeps_all_bits(rule, float32)
    wraps = Rule("abs_abs", ops.abs(ops.neg(x)), lambda x: ops.abs(x))
    for dtype in (int8, uint8, float64):
        if dtype is not uint8:
            test_a_rule_keeps_all_bits(wraps, dtype)
    with pytest.raises(AssertionError):  # of unsigned numbers the negative is another one, and greater
        test_a_rule_keeps_all_bits(wraps, uint8)
