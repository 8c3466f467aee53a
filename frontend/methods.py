"""Functions as methods, operators and in-place methods of tensors: the one place where they are attached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import ops
from graphc.dim_numbers import DimNumber
from graphc.dims import Dim
from graphc.frontend import (
    complex_numbers,
    conversion,
    eager,
    elementary,
    from_data,
    inplace,
    movement,
    pointwise,
    printing,
    splitting,
    subscript,
)
from graphc.frontend.autograd import backward
from graphc.frontend.families import ALIASES, FAMILIES, names
from graphc.frontend.public import method
from graphc.frontend.tensor import Tensor
from graphc.op import OpDef

ARITHMETIC = {"add": ops.add, "sub": ops.sub, "mul": ops.mul, "div": ops.div}
OVERWRITING = {**ARITHMETIC, "relu": ops.relu}
"""In-place methods that need no memory besides where no gradient is wanted."""

TURNED = "as_strided squeeze swapaxes t transpose unsqueeze"
"""In-place methods that leave the memory where it is."""

OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide", "mod": "remainder", "pow": "pow",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}
DIRECT = {"add": ops.add, "mul": ops.mul, "div": ops.div}
NATIVE = {"add": "add", "radd": "add", "sub": "sub", "mul": "mul", "rmul": "mul", "truediv": "div"}
"""Operators that take no time in Python, once it pays."""
COMPARISONS = ("eq", "ge", "gt", "le", "lt", "ne")

_OPERAND = (Tensor, int, float, bool, complex, np.ndarray, np.generic, Dim, DimNumber)


def _operator(function: Callable[..., Any]) -> Callable[..., Any]:
    def operate(self: Tensor, other: Any) -> Any:
        return function(self, other) if isinstance(other, _OPERAND) else NotImplemented

    return operate


def _direct(record: OpDef) -> Callable[..., Any]:
    """The operator of a function that is one op and nothing else: the functions on the way to it would take longer."""
    emit = Tensor.__graphc_emitter__.emit

    def operate(self: Tensor, other: Any) -> Any:
        return emit(record, (self, other), {}) if isinstance(other, _OPERAND) else NotImplemented

    return operate


def _between_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    def operate(self: Tensor, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            other = from_data.as_tensor(other)
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
    """Add the gradients of this tensor to `.grad` of the leaves that it was computed from; see autograd.backward.

    AutogradError for a tensor that was not computed from anything that requires grad, and for one of several elements without a
    gradient; FreedGraphError where an earlier pass has freed what was saved.

    >>> x = graphc.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4.])
    """
    backward(self, gradient, retain_graph, create_graph, inputs=inputs)


def _attach() -> None:
    functions: dict[str, Callable[..., Any]] = {}
    for family in FAMILIES:
        for name in names(family, "METHODS"):
            functions[name] = getattr(family, name)
            setattr(Tensor, name, method(functions[name]))
        for name in names(family, "IN_PLACE"):
            setattr(Tensor, f"{name}_", inplace.in_place(functions[name], f"{name}_"))
    for name, record in OVERWRITING.items():
        eager.attach_in_place(f"{name}_", record, inplace.elementwise(functions[name], record, f"{name}_"))
    for name in TURNED.split():
        setattr(Tensor, f"{name}_", inplace.retyped(functions[name], f"{name}_"))
    for other, name in ALIASES.items():
        for suffix in ("", "_"):
            if hasattr(Tensor, name + suffix):
                setattr(Tensor, other + suffix, getattr(Tensor, name + suffix))
    for name, convert in conversion.CONVERTERS.items():
        setattr(Tensor, name, convert)
    for symbol, name in OPERATORS.items():
        setattr(Tensor, f"__{symbol}__", _direct(DIRECT[name]) if name in DIRECT else _operator(functions[name]))
        setattr(Tensor, f"__r{symbol}__", _reflected(functions[name]))
        setattr(Tensor, f"__i{symbol}__", _operator(getattr(Tensor, f"{name}_")))
    for symbol, name in OPERATORS.items():
        if name in ARITHMETIC:
            eager.attach_in_place(f"__i{symbol}__", ARITHMETIC[name], getattr(Tensor, f"__i{symbol}__"))
    for symbol, name in NATIVE.items():
        eager.attach(f"__{symbol}__", getattr(ops, name), getattr(Tensor, f"__{symbol}__"))
    for name in COMPARISONS:
        # as for any object: what is not a number is unequal, and has no order
        otherwise = {"eq": False, "ne": True}.get(name, NotImplemented)
        setattr(Tensor, f"__{name}__", _comparison(functions[name], otherwise))
    special: dict[str, Any] = {
        "__abs__": functions["abs"], "__invert__": functions["bitwise_not"],
        "__matmul__": _between_tensors(functions["matmul"]), "__neg__": functions["neg"], "__pos__": functions["positive"],
        "__rdiv__": _reflected(functions["div"]),
        "__repr__": printing.tensor_text, "__rmatmul__": _between_tensors(lambda self, other: functions["matmul"](other, self)),
        "__setitem__": subscript.setitem, "where": pointwise.where_method, "split": splitting.split_method,
        "polygamma": elementary.polygamma_method, "polygamma_": inplace.in_place(elementary.polygamma_method, "polygamma_"),
        "T": property(_reversed), "H": property(complex_numbers.conjugated_matrix),
        "mT": property(complex_numbers.swapped_matrices), "mH": property(complex_numbers.conjugated_matrices),
        "real": property(complex_numbers.real, complex_numbers.set_real),
        "imag": property(complex_numbers.imag, complex_numbers.set_imag), "backward": _backward, "nelement": Tensor.numel,
        "ndimension": Tensor.dim,
    }
    for name, value in special.items():
        setattr(Tensor, name, value)
    eager.attach_subscript(subscript.NATIVE)


def _reversed(self: Tensor) -> Tensor:
    """All dimensions in reversed order: of a matrix the transpose.

    >>> graphc.tensor([[1, 2], [3, 4]]).T
    tensor([[1, 3],
            [2, 4]])
    """
    return movement.permute(self, tuple(reversed(range(self.ndim))))


_attach()
