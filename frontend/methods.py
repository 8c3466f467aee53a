"""Functions as methods, operators and in-place methods of tensors: the one place where they are attached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import ops
from graphc.frontend import (
    activations,
    conversion,
    creation,
    indexing,
    inplace,
    joining,
    matrices,
    movement,
    pointwise,
    printing,
    random,
    reductions,
)
from graphc.frontend.autograd import backward
from graphc.frontend.tensor import Tensor

METHODS = {
    pointwise: """abs add addcdiv addcmul allclose bitwise_and bitwise_left_shift bitwise_not bitwise_or
        bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min cos cosh deg2rad div eq equal erf erfc exp exp2 expm1
        float_power floor floor_divide fmax fmin fmod frac ge gt isclose isfinite isinf isnan isneginf isposinf le lerp log
        log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor logit lt maximum minimum mul nan_to_num ne
        neg pow rad2deg reciprocal relu remainder round rsqrt sigmoid sign sin sinh sqrt square sub tan tanh trunc""",
    reductions: """all amax amin aminmax any argmax argmin count_nonzero dist logsumexp max mean min nanmean nansum norm prod
        std sum var""",
    movement: """adjoint broadcast_to chunk clone contiguous expand expand_as flatten flip fliplr flipud movedim narrow permute
        ravel repeat reshape reshape_as select split squeeze swapaxes t tensor_split tile transpose unbind unflatten unfold
        unsqueeze view view_as""",
    joining: "roll",
    indexing: """gather index_add index_put index_put_ index_select masked_fill masked_select nonzero repeat_interleave scatter
        scatter_add take take_along_dim""",
    matrices: "addbmm addmm addmv addr baddbmm bmm dot inner matmul mm mv outer trace",
    activations: "log_softmax softmax",
    creation: "new_empty new_full new_ones new_tensor new_zeros tril triu",
    random: "bernoulli bernoulli_ exponential_ multinomial normal_ random_ uniform_",
    conversion: "cpu cuda to type type_as",
    inplace: "copy_ detach_ fill_ zero_",
}

ALIASES = {
    "absolute": "abs", "arccos": "acos", "clip": "clamp", "concat": "cat", "concatenate": "cat", "divide": "div",
    "fix": "trunc", "ger": "outer", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le",
    "moveaxis": "movedim", "multiply": "mul", "negative": "neg", "not_equal": "ne", "sgn": "sign", "subtract": "sub",
    "swapdims": "swapaxes", "true_divide": "div",
}
"""Other names of functions; they hold for methods and in-place methods too."""

IN_PLACE = """abs addcdiv addcmul bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil
    clamp clamp_max clamp_min cos cosh deg2rad eq erf erfc exp exp2 expm1 float_power floor floor_divide fmod frac ge gt le lerp
    log log10 log1p log2 logical_and logical_not logical_or logical_xor logit lt nan_to_num ne neg pow rad2deg reciprocal relu
    remainder round rsqrt sigmoid sign sin sinh sqrt square tan tanh trunc
    index_add masked_fill scatter scatter_add tril triu addbmm addmm addmv addr baddbmm"""

ARITHMETIC = {"add": ops.add, "sub": ops.sub, "mul": ops.mul, "div": ops.div}
"""In-place methods that need no memory besides where no gradient is wanted."""

TURNED = "squeeze swapaxes t transpose unsqueeze"
"""In-place methods that leave the memory where it is."""

OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide", "mod": "remainder", "pow": "pow",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}
COMPARISONS = ("eq", "ge", "gt", "le", "lt", "ne")

_OPERAND = (Tensor, int, float, bool, np.ndarray, np.generic)


def _operator(function: Callable[..., Any]) -> Callable[..., Any]:
    def operate(self: Tensor, other: Any) -> Any:
        return function(self, other) if isinstance(other, _OPERAND) else NotImplemented

    return operate


def _between_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    def operate(self: Tensor, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            other = creation.as_tensor(other)
        return function(self, other) if isinstance(other, Tensor) else NotImplemented

    return operate


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    def operate(self: Tensor, other: Any) -> Any:
        return function(other, self) if isinstance(other, _OPERAND) else NotImplemented

    return operate


def _comparison(function: Callable[..., Any], otherwise: Any) -> Callable[..., Any]:
    def compare(self: Tensor, other: Any) -> Any:
        return function(self, other) if isinstance(other, _OPERAND) else otherwise

    return compare


def _backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Add the gradients of this tensor to `.grad` of the leaves that it was computed from; see autograd.backward."""
    backward(self, gradient, retain_graph, create_graph, inputs=inputs)


def _attach() -> None:
    functions: dict[str, Callable[..., Any]] = {}
    for module, names in METHODS.items():
        for name in names.split():
            functions[name] = getattr(module, name)
    for name, function in functions.items():
        setattr(Tensor, name, function)
    for name in IN_PLACE.split():
        setattr(Tensor, f"{name}_", inplace.in_place(functions[name], f"{name}_"))
    for name, record in ARITHMETIC.items():
        setattr(Tensor, f"{name}_", inplace.arithmetic(functions[name], record, f"{name}_"))
    for name in TURNED.split():
        setattr(Tensor, f"{name}_", inplace.retyped(functions[name], f"{name}_"))
    for other, name in ALIASES.items():
        for suffix in ("", "_"):
            if hasattr(Tensor, name + suffix):
                setattr(Tensor, other + suffix, getattr(Tensor, name + suffix))
    for name, convert in conversion.CONVERTERS.items():
        setattr(Tensor, name, convert)
    for symbol, name in OPERATORS.items():
        setattr(Tensor, f"__{symbol}__", _operator(functions[name]))
        setattr(Tensor, f"__r{symbol}__", _reflected(functions[name]))
        setattr(Tensor, f"__i{symbol}__", _operator(getattr(Tensor, f"{name}_")))
    for name in COMPARISONS:
        # as for any object: what is not a number is unequal, and has no order
        otherwise = {"eq": False, "ne": True}.get(name, NotImplemented)
        setattr(Tensor, f"__{name}__", _comparison(functions[name], otherwise))
    special: dict[str, Any] = {
        "__abs__": functions["abs"], "__getitem__": indexing.getitem, "__invert__": functions["bitwise_not"],
        "__matmul__": _between_tensors(functions["matmul"]), "__neg__": functions["neg"], "__pos__": lambda self: self,
        "__repr__": printing.tensor_text, "__rmatmul__": _between_tensors(lambda self, other: functions["matmul"](other, self)),
        "__setitem__": indexing.setitem, "where": pointwise.where_method,
        "T": property(_reversed), "H": property(functions["t"]),
        "mT": property(functions["adjoint"]), "backward": _backward, "nelement": Tensor.numel, "ndimension": Tensor.dim,
    }
    for name, value in special.items():
        setattr(Tensor, name, value)


def _reversed(self: Tensor) -> Tensor:
    """All dimensions in reversed order."""
    return movement.permute(self, tuple(reversed(range(self.ndim))))


_attach()
