"""`graphc.signal.windows`: window functions.

Each makes M numbers. With `sym=True` they are symmetric, as for designing filters; with `sym=False` they are one period of
M + 1 symmetric ones less the last, as for spectral analysis. They are computed in float64 and rounded to `dtype`, which is
the default dtype if not given. A window of one number is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from graphc.errors import ArgumentError, ArgumentTypeError
from graphc.frontend.arguments import integer
from graphc.frontend.creation import Device, finished, ones
from graphc.frontend.elementary import i0
from graphc.frontend.pointwise import abs, cast, clamp, cos, exp, sin, sqrt
from graphc.frontend.ranges import arange
from graphc.frontend.tensor import Tensor
from graphc.types import DType, float32, float64, get_default_dtype

__all__ = [
    "bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine", "general_hamming", "hamming", "hann",
    "kaiser", "nuttall",
]  # fmt: skip


def bartlett(M: int, *, sym: bool = True, dtype: DType | None = None, layout: object = None, device: Device = None,
             requires_grad: bool = False) -> Tensor:
    """A triangle from 0 to 0.

    ArgumentError for a negative length, and for other dtypes than float32 and float64.

    >>> graphc.signal.windows.bartlett(5)
    tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
    """
    def formula(n: Tensor, last: int) -> Tensor:
        return 1 - abs(n * (2 / last) - 1)

    return _window("bartlett", formula, M, sym, dtype, device, requires_grad)


def blackman(M: int, *, sym: bool = True, dtype: DType | None = None, layout: object = None, device: Device = None,
             requires_grad: bool = False) -> Tensor:
    """0.42 - 0.5 cos(a) + 0.08 cos(2 a) over one turn of a.

    ArgumentError for a negative length, and for other dtypes than float32 and float64.

    >>> graphc.signal.windows.blackman(5)
    tensor([-1.3878e-17,  3.4000e-01,  1.0000e+00,  3.4000e-01, -1.3878e-17])
    """
    return general_cosine(M, a=(0.42, 0.5, 0.08), sym=sym, dtype=dtype, device=device, requires_grad=requires_grad)


def cosine(M: int, *, sym: bool = True, dtype: DType | None = None, layout: object = None, device: Device = None,
           requires_grad: bool = False) -> Tensor:
    """Half a period of the sine: sin(pi (n + 1/2) / M).

    ArgumentError for a negative length, and for other dtypes than float32 and float64.

    >>> graphc.signal.windows.cosine(5)
    tensor([0.3090, 0.8090, 1.0000, 0.8090, 0.3090])
    """
    def formula(n: Tensor, last: int) -> Tensor:
        return sin((n + 0.5) * (math.pi / (last + 1)))

    return _window("cosine", formula, M, sym, dtype, device, requires_grad)


def exponential(M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True, dtype: DType | None = None,
                layout: object = None, device: Device = None, requires_grad: bool = False) -> Tensor:
    """exp(-|n - center| / tau), where `center` is the middle unless given.

    ArgumentError for a tau that is not positive, a `center` with `sym`, a negative length, and for other dtypes than float32
    and float64.

    >>> graphc.signal.windows.exponential(5)
    tensor([0.1353, 0.3679, 1.0000, 0.3679, 0.1353])
    """
    if tau <= 0:
        raise ArgumentError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ArgumentError("Center must be None for symmetric windows")

    def formula(n: Tensor, last: int) -> Tensor:
        return exp(abs(n - (last / 2 if center is None else center)) / -tau)

    return _window("exponential", formula, M, sym, dtype, device, requires_grad)


def gaussian(M: int, *, std: float = 1.0, sym: bool = True, dtype: DType | None = None, layout: object = None,
             device: Device = None, requires_grad: bool = False) -> Tensor:
    """exp(-(n - middle)^2 / (2 std^2)).

    ArgumentError for a deviation that is not positive.

    >>> graphc.signal.windows.gaussian(5)
    tensor([0.1353, 0.6065, 1.0000, 0.6065, 0.1353])
    """
    if std <= 0:
        raise ArgumentError(f"Standard deviation must be positive, got: {std} instead.")

    def formula(n: Tensor, last: int) -> Tensor:
        distance = (n - last / 2) / (std * math.sqrt(2))
        return exp(-distance * distance)

    return _window("gaussian", formula, M, sym, dtype, device, requires_grad)


def general_cosine(M: int, *, a: Iterable[float], sym: bool = True, dtype: DType | None = None, layout: object = None,
                   device: Device = None, requires_grad: bool = False) -> Tensor:
    """a[0] - a[1] cos(x) + a[2] cos(2 x) - ... over one turn of x.

    ArgumentError for no coefficients, a negative length, and for other dtypes than float32 and float64; ArgumentTypeError for
    what is no list of them.

    >>> graphc.signal.windows.general_cosine(5, a=[0.5, 0.5])
    tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
    """
    if not isinstance(a, Iterable):
        raise ArgumentTypeError("Coefficients must be a list/tuple", got=type(a).__name__)
    coefficients = tuple(a)
    if not coefficients:
        raise ArgumentError("Coefficients cannot be empty")

    def formula(n: Tensor, last: int) -> Tensor:
        angle = n * (2 * math.pi / last)
        total = angle * 0 + coefficients[0]
        for i, coefficient in enumerate(coefficients[1:], 1):
            total = total + cos(angle * i) * (-coefficient if i % 2 else coefficient)
        return total

    return _window("general_cosine", formula, M, sym, dtype, device, requires_grad)


def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True, dtype: DType | None = None, layout: object = None,
                    device: Device = None, requires_grad: bool = False) -> Tensor:
    """alpha - (1 - alpha) cos(a) over one turn of a.

    ArgumentError for a negative length, and for other dtypes than float32 and float64.

    >>> graphc.signal.windows.general_hamming(5)
    tensor([0.0800, 0.5400, 1.0000, 0.5400, 0.0800])
    """
    return general_cosine(M, a=(alpha, 1 - alpha), sym=sym, dtype=dtype, device=device, requires_grad=requires_grad)


def hamming(M: int, *, sym: bool = True, dtype: DType | None = None, layout: object = None, device: Device = None,
            requires_grad: bool = False) -> Tensor:
    """0.54 - 0.46 cos(a) over one turn of a.

    ArgumentError for a negative length, and for other dtypes than float32 and float64.

    >>> graphc.signal.windows.hamming(5)
    tensor([0.0800, 0.5400, 1.0000, 0.5400, 0.0800])
    """
    return general_hamming(M, sym=sym, dtype=dtype, device=device, requires_grad=requires_grad)


def hann(M: int, *, sym: bool = True, dtype: DType | None = None, layout: object = None, device: Device = None,
         requires_grad: bool = False) -> Tensor:
    """(1 - cos(a)) / 2 over one turn of a.

    ArgumentError for a negative length, and for other dtypes than float32 and float64.

    >>> graphc.signal.windows.hann(5)
    tensor([0.0000, 0.5000, 1.0000, 0.5000, 0.0000])
    """
    return general_hamming(M, alpha=0.5, sym=sym, dtype=dtype, device=device, requires_grad=requires_grad)


def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, dtype: DType | None = None, layout: object = None,
           device: Device = None, requires_grad: bool = False) -> Tensor:
    """i0(beta sqrt(1 - x^2)) / i0(beta) for x from -1 to 1.

    ArgumentError for a negative beta.

    >>> graphc.signal.windows.kaiser(5, beta=8.0)
    tensor([0.0023, 0.3690, 1.0000, 0.3690, 0.0023])
    """
    if beta < 0:
        raise ArgumentError(f"beta must be non-negative, got: {beta} instead.")

    def formula(n: Tensor, last: int) -> Tensor:
        x = n * (2 / last) - 1
        return i0(sqrt(clamp(1 - x * x, min=0)) * beta) / i0(x[:1] * 0 + beta)

    return _window("kaiser", formula, M, sym, dtype, device, requires_grad)


def nuttall(M: int, *, sym: bool = True, dtype: DType | None = None, layout: object = None, device: Device = None,
            requires_grad: bool = False) -> Tensor:
    """Nuttall's minimum 4-term Blackman-Harris window (IEEE Trans. ASSP 29, 1981).

    ArgumentError for a negative length, and for other dtypes than float32 and float64.

    >>> graphc.signal.windows.nuttall(5)
    tensor([3.6280e-04, 2.2698e-01, 1.0000e+00, 2.2698e-01, 3.6280e-04])
    """
    return general_cosine(M, a=(0.3635819, 0.4891775, 0.1365995, 0.0106411), sym=sym, dtype=dtype, device=device,
                          requires_grad=requires_grad)


def _window(
    name: str, formula: Callable[[Tensor, int], Tensor], M: int, sym: bool, dtype: DType | None, device: Device,
    requires_grad: bool,
) -> Tensor:
    """`formula(n, last)` for n = 0, 1, ... below M, where `last` is the n at the other end of the symmetric window."""
    M = integer(M, f"{name}(): argument 'M'")
    if M < 0:
        raise ArgumentError(f"{name} requires non-negative window length, got M={M}")
    dtype = dtype or get_default_dtype()
    if dtype not in (float32, float64):
        raise ArgumentError(f"{name} expects float32 or float64 dtypes, got: {dtype.name}")
    if M <= 1:
        made = ones(M, dtype=dtype)
    else:
        made = cast(formula(arange(M, dtype=float64), M - 1 if sym else M), dtype)
    return finished(made, None, requires_grad, device)

__all__ = [
    "bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine", "general_hamming", "hamming", "hann",
    "kaiser", "nuttall",
]  # fmt: skip
