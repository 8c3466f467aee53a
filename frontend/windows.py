"""The window functions of old, `hann_window` and its like: those of `graphc.signal.windows`, one period of them by default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import DTypeError, GraphcError
from graphc.frontend.arguments import integer
from graphc.frontend.creation import Device, finished
from graphc.frontend.pointwise import cast
from graphc.frontend.signal import windows
from graphc.frontend.tensor import Tensor
from graphc.types import DType, float64, get_default_dtype

FUNCTIONS = "bartlett_window blackman_window hamming_window hann_window kaiser_window"


def bartlett_window(
    window_length: int, periodic: bool = True, *, out: Tensor | None = None, dtype: DType | None = None,
    layout: object = None, device: Device = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:
    """A triangle that starts at 0.

    GraphcError for a negative length, DTypeError for integers.

    >>> graphc.bartlett_window(4)
    tensor([0.0000, 0.5000, 1.0000, 0.5000])
    """
    return _window("bartlett_window", windows.bartlett, window_length, periodic, out, dtype, device, requires_grad)


def blackman_window(
    window_length: int, periodic: bool = True, *, out: Tensor | None = None, dtype: DType | None = None,
    layout: object = None, device: Device = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:
    """0.42 - 0.5 cos(a) + 0.08 cos(2 a) over one turn of a.

    GraphcError for a negative length, DTypeError for integers.

    >>> graphc.blackman_window(4)
    tensor([-1.3878e-17,  3.4000e-01,  1.0000e+00,  3.4000e-01])
    """
    return _window("blackman_window", windows.blackman, window_length, periodic, out, dtype, device, requires_grad)


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *, out: Tensor | None = None,
    dtype: DType | None = None, layout: object = None, device: Device = None, pin_memory: bool = False,
    requires_grad: bool = False,
) -> Tensor:
    """alpha - beta cos(a) over one turn of a.

    GraphcError for a negative length, DTypeError for integers.

    >>> graphc.hamming_window(4)
    tensor([0.0800, 0.5400, 1.0000, 0.5400])
    """
    def hamming(length: int, **given: Any) -> Tensor:
        return windows.general_cosine(length, a=(alpha, beta), **given)

    return _window("hamming_window", hamming, window_length, periodic, out, dtype, device, requires_grad)


def hann_window(
    window_length: int, periodic: bool = True, *, out: Tensor | None = None, dtype: DType | None = None,
    layout: object = None, device: Device = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:
    """(1 - cos(a)) / 2 over one turn of a.

    GraphcError for a negative length, DTypeError for integers.

    >>> graphc.hann_window(4)
    tensor([0.0000, 0.5000, 1.0000, 0.5000])
    """
    return _window("hann_window", windows.hann, window_length, periodic, out, dtype, device, requires_grad)


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, *, out: Tensor | None = None, dtype: DType | None = None,
    layout: object = None, device: Device = None, pin_memory: bool = False, requires_grad: bool = False,
) -> Tensor:
    """i0(beta sqrt(1 - x^2)) / i0(beta) for x from -1 to 1.

    GraphcError for a negative length, DTypeError for integers.

    >>> graphc.kaiser_window(4)
    tensor([5.2773e-05, 2.1567e-01, 1.0000e+00, 2.1567e-01])
    """
    def kaiser(length: int, **given: Any) -> Tensor:
        return windows.kaiser(length, beta=beta, **given)

    return _window("kaiser_window", kaiser, window_length, periodic, out, dtype, device, requires_grad)


def _window(
    name: str, function: Callable[..., Tensor], length: int, periodic: bool, out: Tensor | None, dtype: DType | None,
    device: Device, requires_grad: bool,
) -> Tensor:
    length = integer(length, f"{name}(): argument 'window_length'")
    if length < 0:
        raise GraphcError(f"{name} requires non-negative window_length, got window_length={length}")
    dtype = dtype or (get_default_dtype() if out is None else out.dtype)
    if not dtype.is_floating_point:
        raise DTypeError(f"{name} expects floating point dtypes, got: {dtype.name}")
    return finished(cast(function(length, sym=not periodic, dtype=float64), dtype), out, requires_grad, device)
