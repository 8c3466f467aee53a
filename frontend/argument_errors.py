"""A word on arguments that should have been tensors, once something has gone wrong: a check before each call takes time.

Where functions call each other, the outermost has the last word: it knows the arguments by the names that the user gave.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from graphc.errors import ArgumentTypeError
from graphc.frontend.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])

_WANTED = ("Tensor", "Tensor | None")
"""How functions annotate arguments that have to be tensors."""


def not_a_tensor(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ArgumentTypeError | None:
    """The error for the first argument that is no tensor and has to be one, by the function's annotations."""
    plain = inspect.unwrap(function)
    try:
        given = inspect.signature(plain).bind(*args, **kwargs).arguments
    except TypeError:
        return None  # it cannot be called like that, which is an error of its own
    for position, (name, value) in enumerate(given.items(), 1):
        wanted = plain.__annotations__.get(name)
        if wanted in _WANTED and not isinstance(value, Tensor) and not (value is None and wanted != "Tensor"):
            return ArgumentTypeError(f"{plain.__name__}(): argument '{name}' (position {position}) must be Tensor, not "
                                     f"{type(value).__name__}", hint="make one with graphc.tensor(...)")
    return None


def explained(function: F) -> F:
    """The function with an ArgumentTypeError in the place of the AttributeError of what is no tensor."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (AttributeError, ArgumentTypeError):
            wrong = not_a_tensor(function, args, kwargs)
            if wrong is None:
                raise
            raise wrong from None

    return call  # type: ignore[return-value]
