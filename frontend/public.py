"""What turns a function of the front end into a public one: `out=`, and a word on arguments that are no tensors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from graphc.errors import ArgumentTypeError
from graphc.frontend.argument_errors import not_a_tensor
from graphc.frontend.inplace import write_out
from graphc.frontend.tensor import Tensor, wrap
from graphc.types import scalar_array, scalar_dtype

EITHER = frozenset((
    "add", "bitwise_and", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "bucketize", "div",
    "float_power", "floor_divide", "isin", "mul", "polygamma", "pow", "remainder", "result_type",
    "special_chebyshev_polynomial_t", "special_chebyshev_polynomial_u", "special_chebyshev_polynomial_v",
    "special_chebyshev_polynomial_w", "special_hermite_polynomial_h", "special_hermite_polynomial_he",
    "special_laguerre_polynomial_l", "special_legendre_polynomial_p", "special_shifted_chebyshev_polynomial_t",
    "special_shifted_chebyshev_polynomial_u", "special_shifted_chebyshev_polynomial_v",
    "special_shifted_chebyshev_polynomial_w", "special_xlog1py", "special_zeta", "sub", "xlogy",
))
"""Functions whose first or second argument may be a number, but not both."""

NUMBERS = frozenset(("add", "div", "floor_divide", "mul", "sub"))
"""Those of them that two numbers may be given to."""

BOTH = frozenset((
    "atan2", "fmax", "fmin", "gcd", "heaviside", "hypot", "igamma", "igammac", "isclose", "lcm", "ldexp", "logaddexp",
    "logaddexp2", "logical_and", "logical_or", "logical_xor", "maximum", "minimum", "nextafter",
))
"""Functions of two tensors."""


SETTINGS = (
    ("axis", "dim"), ("keepdims", "keepdim"), ("sections", "indices_or_sections"), ("indices", "indices_or_sections"),
    ("dim0", "axis0"), ("dim1", "axis1"), ("train", "training"),
)
"""Other names of arguments, NumPy's for the most part, that PyTorch takes too: (the other name, ours)."""

OPERANDS = (("x", "input"), ("a", "input"), ("x1", "input"), ("x2", "other"), ("input", "A"), ("input", "x"))
"""Other names of the tensors that functions are given; those of `linalg` are `A` in PyTorch's documents and `input` to it."""


def _other_names(function: Callable[..., Any], pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    code = inspect.unwrap(function).__code__  # of hundreds of functions at import: inspect.signature() takes ten times as long
    own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return {other: name for other, name in pairs if name in own and other not in own}


def method(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a method, which takes the other names of its settings too."""
    others = _other_names(function, SETTINGS)
    if not others:
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            for other in others.keys() & kwargs.keys():
                kwargs[others[other]] = kwargs.pop(other)
        return function(*args, **kwargs)

    return call


def public(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function with an `out=` argument for the tensor to write into; ArgumentTypeError for what is no tensor."""
    others = _other_names(function, SETTINGS + OPERANDS)
    either, numbers, both = name in EITHER, name in NUMBERS, name in BOTH

    @functools.wraps(function)
    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if kwargs:
            for other in others.keys() & kwargs.keys():
                kwargs[others[other]] = kwargs.pop(other)
        if args and not isinstance(args[0], Tensor) and not (
            either and any(isinstance(a, Tensor) for a in (*args[1:], *kwargs.values()))
        ):
            if not (numbers and isinstance(args[0], (int, float, complex))):
                raise _refused(name, "input", 1, args[0])
            args = (wrap(scalar_array(args[0], scalar_dtype(args[0]))), *args[1:])
        if both and len(args) > 1 and not isinstance(args[1], Tensor):
            raise _refused(name, "other", 2, args[1])
        try:
            result = function(*args, **kwargs)
        except (AttributeError, ArgumentTypeError):
            wrong = not_a_tensor(function, args, kwargs)
            if wrong is None:
                raise
            raise wrong from None
        return result if out is None else _written(result, out)

    return call


def with_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with an `out=` argument; for functions whose first argument is not a tensor."""
    function = method(function)

    @functools.wraps(function)
    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return result if out is None else _written(result, out)

    return call


def _refused(name: str, argument: str, position: int, got: Any) -> ArgumentTypeError:
    return ArgumentTypeError(f"{name}(): argument '{argument}' (position {position}) must be Tensor, not {type(got).__name__}",
                             hint="make one with graphc.tensor(...)")


def _written(result: Any, out: Any) -> Any:
    if not isinstance(out, (tuple, list)):
        return write_out(result, out)
    written = tuple(write_out(made, target) for made, target in zip(result, out, strict=True))
    return written if type(result) is tuple else type(result)(*written)
