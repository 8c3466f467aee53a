"""Mixed precision: inside `autocast`, products run in a smaller dtype, and what needs precision in float32.

A function that takes part begins with `if mode.autocast is not None`, and asks `lowered` for its operands in the smaller
dtype; `full_precision` decorates those that are computed in float32.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, overload

from graphc import gpu
from graphc.errors import ArgumentError, ArgumentTypeError, GraphcError
from graphc.frontend.argument_errors import not_a_tensor
from graphc.frontend.modes import mode
from graphc.frontend.pointwise import cast
from graphc.frontend.settings_text import PrintsSettings
from graphc.frontend.tensor import Tensor
from graphc.types import DType, bfloat16, float16, float32, float64

F = TypeVar("F", bound=Callable[..., Any])

_DEFAULTS: dict[str, DType] = {"cpu": bfloat16, "cuda": float16}


@overload
def lowered(tensor: Tensor, dtype: DType) -> Tensor: ...
@overload
def lowered(tensor: None, dtype: DType) -> None: ...
def lowered(tensor: Tensor | None, dtype: DType) -> Tensor | None:
    """A floating-point operand in the dtype of the autocast; float64 and other dtypes stay as they are."""
    if tensor is None or not tensor.dtype.is_floating_point or tensor.dtype is float64:
        return tensor
    return cast(tensor, dtype)


def full_precision(function: F) -> F:
    """Let a function compute in float32 under autocast."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            if mode.autocast is None:
                return function(*args, **kwargs)
            with autocast("cpu", enabled=False):
                return function(*(_raised(a) for a in args), **{k: _raised(v) for k, v in kwargs.items()})
        except AttributeError:
            wrong = not_a_tensor(function, args, kwargs)
            if wrong is None:
                raise
            raise wrong from None

    return call  # type: ignore[return-value]


def _raised(value: Any) -> Any:
    return cast(value, float32) if isinstance(value, Tensor) and value.dtype in (float16, bfloat16) else value


class autocast(PrintsSettings):
    """Compute products (matmul, linear, convolution, attention, LSTM) in a smaller dtype inside, by `with` block or decorator.

    Operands are cast as they come, so that parameters and their gradients keep their dtype. Losses, factorisations of
    matrices and Fourier transforms are computed in float32, and everything else in the dtype that its operands have. float64
    is left alone.

    device_type
        "cpu"; "cuda" is switched off with a warning where there is no GPU.
    dtype
        bfloat16 (the default on a CPU) or float16.
    enabled
        False switches an autocast outside off.

    GraphcError for another kind of device, ArgumentTypeError for one that is no string.

    >>> import graphc
    >>> with graphc.autocast("cpu"):
    ...     print((graphc.ones(2, 2) @ graphc.ones(2, 2)).dtype)
    graphc.bfloat16
    """

    def __init__(self, device_type: str, dtype: DType | None = None, enabled: bool = True,
                 cache_enabled: bool | None = None) -> None:
        if not isinstance(device_type, str):
            raise ArgumentTypeError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
        if device_type not in _DEFAULTS:
            raise GraphcError(f"User specified an unsupported autocast device_type '{device_type}'", expected="'cpu' or 'cuda'")
        self.device = device_type
        self.fast_dtype = _DEFAULTS[device_type] if dtype is None else dtype
        if enabled and device_type == "cuda" and not gpu.device_count():
            warnings.warn("User provided device_type of 'cuda', but CUDA is not available. Disabling", stacklevel=2)
            enabled = False
        if enabled and self.fast_dtype not in (bfloat16, float16):
            warnings.warn("In CPU autocast, but the target dtype is not supported. Disabling autocast.\nCPU Autocast only "
                          "supports dtype of graphc.bfloat16, graphc.float16 currently.", stacklevel=2)
            enabled = False
        self._enabled = enabled
        self._before: list[DType | None] = []

    def _printed_settings(self) -> dict[str, Any]:
        return {"device_type": self.device, "dtype": self.fast_dtype, "enabled": self._enabled}

    def __enter__(self) -> autocast:
        self._before.append(mode.autocast)
        if self._enabled:
            mode.autocast = self.fast_dtype
        elif self.device == "cpu" or gpu.device_count():
            mode.autocast = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        mode.autocast = self._before.pop()

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether the code runs under an autocast for the device.

    >>> with graphc.autocast("cpu", dtype=graphc.bfloat16):
    ...     graphc.is_autocast_enabled("cpu")
    True
    """
    return mode.autocast is not None and (device_type == "cpu" or (device_type == "cuda" and gpu.device_count() > 0))


def is_autocast_cpu_enabled() -> bool:
    """Whether the code runs under an autocast for the CPU.

    >>> graphc.is_autocast_cpu_enabled()
    False
    """
    return mode.autocast is not None


def get_autocast_dtype(device_type: str) -> DType:
    """The dtype that an autocast for the device computes products in.

    ArgumentError for another kind of device.

    >>> graphc.get_autocast_dtype("cpu")
    graphc.bfloat16
    """
    if device_type == "cpu" and mode.autocast is not None:
        return mode.autocast
    if device_type not in _DEFAULTS:
        raise ArgumentError(f"there is no autocast for device_type {device_type!r}", expected="'cpu' or 'cuda'")
    return _DEFAULTS[device_type]


def is_autocast_available(device_type: str) -> bool:
    """Whether there can be an autocast for a kind of device.

    >>> graphc.amp.is_autocast_available("cpu")
    True
    """
    return device_type in _DEFAULTS


def custom_fwd(fwd: Callable[..., Any] | None = None, *, device_type: str, cast_inputs: DType | None = None) -> Any:
    """Decorate the `forward` of a custom autograd.Function: with `cast_inputs` it runs on inputs of that dtype, outside the
    autocast; `backward` runs as `forward` did, if it is decorated by `custom_bwd`.

    >>> class Square(graphc.autograd.Function):
    ...     @staticmethod
    ...     @graphc.amp.custom_fwd(device_type="cpu", cast_inputs=graphc.float32)
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x
    ...
    ...     @staticmethod
    ...     @graphc.amp.custom_bwd(device_type="cpu")
    ...     def backward(ctx, grad):
    ...         x, = ctx.saved_tensors
    ...         return 2 * x * grad
    >>> with graphc.autocast("cpu"):
    ...     Square.apply(graphc.ones(2, dtype=graphc.bfloat16)).dtype
    graphc.float32
    """
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    forward = fwd

    @functools.wraps(forward)
    def call(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        ctx._fwd_used_autocast = mode.autocast if cast_inputs is None else None
        if cast_inputs is None or mode.autocast is None:
            return forward(ctx, *args, **kwargs)
        with autocast(device_type, enabled=False):
            return forward(ctx, *(_as(a, cast_inputs) for a in args), **{k: _as(v, cast_inputs) for k, v in kwargs.items()})

    return call


def _as(value: Any, dtype: DType) -> Any:
    return lowered(value, dtype) if isinstance(value, Tensor) else value


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str) -> Any:
    """Decorate the `backward` of a custom autograd.Function whose `forward` is decorated by `custom_fwd`; see there.

    >>> class Double(graphc.autograd.Function):
    ...     @staticmethod
    ...     @graphc.amp.custom_fwd(device_type="cpu")
    ...     def forward(ctx, x):
    ...         return x * 2
    ...
    ...     @staticmethod
    ...     @graphc.amp.custom_bwd(device_type="cpu")
    ...     def backward(ctx, grad):
    ...         return grad * 2
    >>> x = graphc.ones(1, requires_grad=True)
    >>> Double.apply(x).backward()
    >>> x.grad
    tensor([2.])
    """
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)
    backward = bwd

    @functools.wraps(backward)
    def call(*args: Any, **kwargs: Any) -> Any:
        used = args[0]._fwd_used_autocast
        with autocast(device_type, dtype=used, enabled=used is not None):
            return backward(*args, **kwargs)

    return call
