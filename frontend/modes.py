"""Switching the recording of gradients on and off, by `with` block, decorator or call; each thread has its own state."""

from __future__ import annotations

import functools
import inspect
import threading
import warnings
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, TypeVar

from graphc.errors import ArgumentTypeError
from graphc.frontend.settings_text import PrintsSettings
from graphc.types import DType

F = TypeVar("F", bound=Callable[..., Any])


class _Mode(threading.local):
    grad = True
    inference = False
    autocast: DType | None = None


_now = mode = _Mode()
"""The calling thread's state. `grad`: whether operations are recorded; `inference`: whether inference_mode is on; `autocast`:
the dtype of products under `graphc.autocast`."""


class _Anomaly:
    __slots__ = ("check_nan", "enabled")

    def __init__(self) -> None:
        self.enabled = False
        self.check_nan = True


anomaly = _Anomaly()
"""Whether nodes remember the calls that made them, and whether gradients are searched for NaNs; for all threads."""


def is_grad_enabled() -> bool:
    """Whether operations on tensors that require grad are recorded.

    >>> graphc.is_grad_enabled()
    True
    """
    return mode.grad


def is_inference_mode_enabled() -> bool:
    """Whether the code runs under inference_mode.

    >>> graphc.is_inference_mode_enabled()
    False
    """
    return mode.inference


class _Switch(PrintsSettings):
    """A context manager that is also a decorator; `_enter` changes the mode, leaving restores it."""

    _grad: bool
    _inference: bool | None = None

    def __init__(self) -> None:
        self._before: list[tuple[bool, bool]] = []

    def __enter__(self) -> None:
        self._before.append((mode.grad, mode.inference))
        mode.grad = self._grad
        if self._inference is not None:
            mode.inference = self._inference

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        mode.grad, mode.inference = self._before.pop()

    def _clone(self) -> _Switch:
        return type(self)()

    def __call__(self, function: F) -> F:
        if not callable(function):
            raise ArgumentTypeError(f"{type(self).__name__}: not a function", expected="a function to decorate",
                                    got=type(function).__name__)

        if inspect.isclass(function):
            warnings.warn("Decorating classes is deprecated: it concerns __init__ alone, which can be decorated itself",
                          FutureWarning, stacklevel=2)
        if inspect.isgeneratorfunction(function):
            return self._around_steps(function)  # type: ignore[return-value]

        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self._clone():
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]

    def _around_steps(self, function: Callable[..., Generator[Any, Any, Any]]) -> Callable[..., Any]:
        """A generator function whose steps run inside, and what uses them outside."""

        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            steps = function(*args, **kwargs)
            step: Callable[..., Any] = functools.partial(next, steps)
            while True:
                try:
                    with self._clone():
                        made = step()
                except StopIteration as end:
                    return end.value
                try:
                    sent = yield made
                except GeneratorExit:
                    with self._clone():
                        steps.close()
                    raise
                except BaseException as error:
                    step = functools.partial(steps.throw, error)
                else:
                    step = functools.partial(steps.send, sent)

        return inside


class no_grad(_Switch):
    """Record nothing inside. Also a decorator.

    >>> x = graphc.ones(1, requires_grad=True)
    >>> with graphc.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    _grad = False

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        # `@no_grad` without parentheses decorates the function at once
        return super().__new__(cls) if function is None else cls()(function)


class enable_grad(no_grad):
    """Record inside, also within a no_grad block. Also a decorator.

    >>> x = graphc.ones(1, requires_grad=True)
    >>> with graphc.no_grad(), graphc.enable_grad():
    ...     y = x * 2
    >>> y.requires_grad
    True
    """

    _grad = True


class set_grad_enabled(_Switch):
    """Record or not, by a flag. Called plainly it stays in force; as a `with` block or decorator it is undone at the end.

    >>> with graphc.set_grad_enabled(False):
    ...     graphc.is_grad_enabled()
    False
    """

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self._grad = bool(mode)
        self._outside = (_now.grad, _now.inference)
        _now.grad = self._grad

    def __enter__(self) -> None:
        self._before.append(self._outside)
        _now.grad = self._grad

    def _printed_settings(self) -> dict[str, Any]:
        return {"mode": self._grad}

    def _clone(self) -> _Switch:
        return set_grad_enabled(self._grad)

    def __call__(self, function: F) -> F:
        _now.grad, _now.inference = self._outside
        return super().__call__(function)


class inference_mode(_Switch):
    """Record nothing, and mark the tensors made inside as ones that never take part in a gradient.

    >>> with graphc.inference_mode():
    ...     y = graphc.ones(1) * 2
    >>> y.is_inference()
    True
    """

    def __init__(self, mode: bool | Callable[..., Any] = True) -> None:
        super().__init__()
        self._inference = bool(mode)

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Any:
        return super().__new__(cls) if isinstance(mode, bool) else cls()(mode)

    def __enter__(self) -> None:
        self._grad = False if self._inference else _now.grad
        super().__enter__()

    def _printed_settings(self) -> dict[str, Any]:
        return {"mode": self._inference}

    def _clone(self) -> _Switch:
        return inference_mode(bool(self._inference))
