"""What type rules ask of dtypes and of attributes."""

from __future__ import annotations

from collections.abc import Callable, Collection

from graphc.errors import ArgumentError, UnsupportedDTypeError
from graphc.types import DType, TensorType

_REAL = ("bool", "int", "uint", "float")
_NUMERIC = ("int", "uint", "float", "complex")


def only(name: str, allowed: str, *kinds: str) -> Callable[..., TensorType]:
    """The type rule of an op that is defined on some kinds of dtype alone."""

    def infer(x: TensorType, *_: TensorType) -> TensorType:
        if x.dtype.kind not in kinds:
            raise UnsupportedDTypeError(f"{name} is not supported for {_described(x.dtype)} inputs: not implemented for "
                                        f"'{x.dtype.name}'", expected=allowed, got=str(x))
        return x

    return infer


def _described(dtype: DType) -> str:
    return {"bool": "bool", "complex": "complex", "float": "floating-point"}.get(dtype.kind, "integer")


def only_real(name: str) -> Callable[..., TensorType]:
    """The type rule of an op that complex numbers are refused."""
    return only(name, "a dtype that is not complex", *_REAL)


def only_numeric(name: str) -> Callable[..., TensorType]:
    """The type rule of an op that booleans are refused."""
    return only(name, "a numeric dtype", *_NUMERIC)


def only_floating(name: str) -> Callable[..., TensorType]:
    """The type rule of an op that is defined on real floating-point numbers alone."""
    return only(name, "a floating-point dtype", "float")


def check_choice(name: str, attribute: str, value: str, choices: Collection[str]) -> None:
    """ArgumentError unless an attribute is one of the strings that there are."""
    if value not in choices:
        raise ArgumentError(f"{name}: no {attribute} {value!r}", expected=f"one of {', '.join(choices)}")
