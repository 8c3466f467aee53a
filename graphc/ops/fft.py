"""Discrete Fourier transforms, which SciPy's pocketfft computes.

    forward    y[k] = sum_j x[j] exp(-2 pi i j k / n)
    inverse    the same with the sign of the exponent turned

Either is multiplied by 1 (`scale` is "none"), by 1/sqrt(n) ("root") or by 1/n ("full"), so that each transform's derivative
is another one with the same scale: the adjoint of the forward one is the inverse one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.dims import surely_less
from graphc.errors import DimError, DTypeError, ShapeError
from graphc.op import Sample, op
from graphc.ops.checks import check_choice
from graphc.ops.creation import iota
from graphc.ops.elementwise import cast, eq, where
from graphc.ops.movement import check_axis, reshape
from graphc.types import Size, TensorType, complex64, complex128, float32, float64, int64

_z = TensorType(complex64, (2, 5))
_x = TensorType(float32, (3, 6))

workers: Callable[[], int] | None = None
"""How many threads a large transform may take; `graphc.threads` says so, which stands above."""
_LARGE = 1 << 16
"""Numbers that several threads transform sooner than one."""


def _workers(x: np.ndarray) -> int:
    return 1 if workers is None or x.size < _LARGE else workers()


FORWARD = {"none": "backward", "root": "ortho", "full": "forward"}
"""SciPy's names for the scales of forward transforms; of inverse ones "none" and "full" change places."""
INVERSE = {"none": "forward", "root": "ortho", "full": "backward"}


def _check(name: str, x: TensorType, axes: tuple[int, ...], scale: str, complex_: bool) -> None:
    if x.dtype not in ((complex64, complex128) if complex_ else (float32, float64)):
        raise DTypeError(f"{name}: Unsupported dtype {x.dtype.name}", got=str(x),
                         expected="complex64 or complex128" if complex_ else "float32 or float64")
    check_choice(name, "scale", scale, FORWARD)
    if len(set(axes)) != len(axes):
        raise DimError(f"{name}: {axes} names a dimension twice", got=str(x))
    for axis in axes:
        check_axis(name, axis, x)
        if isinstance(x.shape[axis], int) and x.shape[axis] < 1:
            raise ShapeError(f"{name}: Invalid number of data points ({x.shape[axis]}) specified", got=str(x))


def _c2c_infer(x: TensorType, axes: tuple[int, ...], inverse: bool, scale: str) -> TensorType:
    _check("fft_c2c", x, axes, scale, True)
    return x


def _c2c_ref(x: np.ndarray, axes: tuple[int, ...], inverse: bool, scale: str) -> np.ndarray:
    import scipy.fft

    if not x.size or not axes:
        return x.copy()
    if inverse:
        return scipy.fft.ifftn(x, axes=axes, norm=INVERSE[scale], workers=_workers(x))
    return scipy.fft.fftn(x, axes=axes, norm=FORWARD[scale], workers=_workers(x))


fft_c2c = op("fft_c2c", "x", "axes inverse scale", infer=_c2c_infer, ref=_c2c_ref, kernel="host",
             vjp=lambda ct, axes, inverse, scale: fft_c2c(ct, axes=axes, inverse=not inverse, scale=scale),
             samples=(Sample((_z,), {"axes": (1,), "inverse": False, "scale": "none"}),
                      Sample((_z,), {"axes": (0, 1), "inverse": True, "scale": "full"})))
"""The transform of complex numbers along `axes`."""


def _half_weights(like: Any, axis: int, size: Size, inner: float) -> Any:
    """1 for the frequencies that are their own mirror images, 0 and size / 2, and `inner` for the others, each of which
    stands for two: along `axis` of a half spectrum."""
    place = iota(shape=(like.shape[axis],), axis=0, dtype=int64, like=like)
    weights = where(eq(place, 0) | eq(place * 2, size), 1.0, inner)
    shape = tuple(n if i == axis else 1 for i, n in enumerate(like.shape))
    return reshape(cast(weights, like.dtype.to_real()), shape)


def _r2c_infer(x: TensorType, axis: int, scale: str) -> TensorType:
    _check("fft_r2c", x, (axis,), scale, False)
    shape = tuple(n // 2 + 1 if i == axis else n for i, n in enumerate(x.shape))
    return TensorType(x.dtype.to_complex(), shape, x.device)


def _r2c_ref(x: np.ndarray, axis: int, scale: str) -> np.ndarray:
    import scipy.fft

    if not x.size:
        shape = [n // 2 + 1 if i == axis else n for i, n in enumerate(x.shape)]
        return np.zeros(shape, np.result_type(x.dtype, np.complex64))
    return scipy.fft.rfft(x, axis=axis, norm=FORWARD[scale], workers=_workers(x))


def _r2c_vjp(ct: Any, x_type: TensorType, axis: int, scale: str) -> Any:
    size = x_type.shape[axis]
    return fft_c2r(ct * _half_weights(ct, axis, size, 0.5), axis=axis, size=size, scale=scale)


def _c2r_infer(x: TensorType, axis: int, size: Size, scale: str) -> TensorType:
    _check("fft_c2r", x, (axis,), scale, True)
    if surely_less(size, 1):
        raise ShapeError(f"Invalid number of data points ({size}) specified")
    if x.shape[axis] != size // 2 + 1:
        raise ShapeError(f"fft_c2r: not half of the spectrum of {size} numbers", expected=f"{size // 2 + 1} frequencies",
                         got=f"{x.shape[axis]}   ({x})")
    return TensorType(x.dtype.to_real(), tuple(size if i == axis else n for i, n in enumerate(x.shape)), x.device)


def _c2r_ref(x: np.ndarray, axis: int, size: int, scale: str) -> np.ndarray:
    import scipy.fft

    if not x.size:
        return np.zeros([size if i == axis else n for i, n in enumerate(x.shape)], x.real.dtype)
    return scipy.fft.irfft(x, size, axis=axis, norm=INVERSE[scale], workers=_workers(x))


def _c2r_vjp(ct: Any, axis: int, size: Size, scale: str) -> Any:
    half = fft_r2c(ct, axis=axis, scale=scale)
    return half * _half_weights(half, axis, size, 2.0)


fft_r2c = op("fft_r2c", "x", "axis scale", infer=_r2c_infer, ref=_r2c_ref, vjp=_r2c_vjp, kernel="host",
             samples=(Sample((_x,), {"axis": 1, "scale": "none"}), Sample((_x,), {"axis": 0, "scale": "full"}),
                      Sample((TensorType(float64, (7,)),), {"axis": 0, "scale": "root"})))
"""The forward transform of real numbers along one dimension: its first n // 2 + 1 frequencies, of which the others are
the conjugates."""
fft_c2r = op("fft_c2r", "x", "axis size scale", infer=_c2r_infer, ref=_c2r_ref, vjp=_c2r_vjp, kernel="host",
             samples=(Sample((_z,), {"axis": 1, "size": 9, "scale": "none"}),
                      Sample((_z,), {"axis": 1, "size": 8, "scale": "full"}),
                      Sample((_z,), {"axis": 0, "size": 2, "scale": "root"})))
"""The inverse transform, to `size` real numbers, of the half spectrum along one dimension. Imaginary parts that such a
spectrum has not (at frequency 0, and at size / 2) do not count."""
