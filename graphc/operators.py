"""Python's operators, for the values of a graph and the expressions of a kernel: `a + b` is the op `add`."""

from __future__ import annotations

from typing import Any

from graphc.op import OPS, emit


class Operators:
    """Gives a kind of value that `emit` understands its operators. `==` and `!=` are not among them: they compare the
    objects themselves, as tables of values and expressions need."""

    __slots__ = ()

    def __neg__(self) -> Any:
        return emit(OPS["neg"], self)

    def __invert__(self) -> Any:
        return emit(OPS["bitwise_not"], self)

    def __add__(self, other: Any) -> Any:
        return emit(OPS["add"], self, other)

    def __radd__(self, other: Any) -> Any:
        return emit(OPS["add"], other, self)

    def __sub__(self, other: Any) -> Any:
        return emit(OPS["sub"], self, other)

    def __rsub__(self, other: Any) -> Any:
        return emit(OPS["sub"], other, self)

    def __mul__(self, other: Any) -> Any:
        return emit(OPS["mul"], self, other)

    def __rmul__(self, other: Any) -> Any:
        return emit(OPS["mul"], other, self)

    def __truediv__(self, other: Any) -> Any:
        return emit(OPS["div"], self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return emit(OPS["div"], other, self)

    def __floordiv__(self, other: Any) -> Any:
        return emit(OPS["floor_divide"], self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return emit(OPS["floor_divide"], other, self)

    def __mod__(self, other: Any) -> Any:
        return emit(OPS["remainder"], self, other)

    def __rmod__(self, other: Any) -> Any:
        return emit(OPS["remainder"], other, self)

    def __pow__(self, other: Any) -> Any:
        return emit(OPS["pow"], self, other)

    def __rpow__(self, other: Any) -> Any:
        return emit(OPS["pow"], other, self)

    def __matmul__(self, other: Any) -> Any:
        return emit(OPS["matmul"], self, other)

    def __and__(self, other: Any) -> Any:
        return emit(OPS["bitwise_and"], self, other)

    def __rand__(self, other: Any) -> Any:
        return emit(OPS["bitwise_and"], other, self)

    def __or__(self, other: Any) -> Any:
        return emit(OPS["bitwise_or"], self, other)

    def __ror__(self, other: Any) -> Any:
        return emit(OPS["bitwise_or"], other, self)

    def __xor__(self, other: Any) -> Any:
        return emit(OPS["bitwise_xor"], self, other)

    def __rxor__(self, other: Any) -> Any:
        return emit(OPS["bitwise_xor"], other, self)

    def __lshift__(self, other: Any) -> Any:
        return emit(OPS["shift_left"], self, other)

    def __rlshift__(self, other: Any) -> Any:
        return emit(OPS["shift_left"], other, self)

    def __rshift__(self, other: Any) -> Any:
        return emit(OPS["shift_right"], self, other)

    def __rrshift__(self, other: Any) -> Any:
        return emit(OPS["shift_right"], other, self)

    def __lt__(self, other: Any) -> Any:
        return emit(OPS["lt"], self, other)

    def __le__(self, other: Any) -> Any:
        return emit(OPS["le"], self, other)

    def __gt__(self, other: Any) -> Any:
        return emit(OPS["gt"], self, other)

    def __ge__(self, other: Any) -> Any:
        return emit(OPS["ge"], self, other)
