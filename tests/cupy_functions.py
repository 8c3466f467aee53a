"""CuPy's functions of arrays, played by NumPy's and SciPy's: what `backends/cuda/library_ops.py` computes with, without a GPU.

They are as strict as CuPy is, and ask it where it is installed: its arrays become none of NumPy's, and go together with numbers
and with each other alone; a function or a method has to be there under its name, and to take the arguments that are passed.
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import scipy.fft
import scipy.linalg
import scipy.special
from numpy.lib.mixins import NDArrayOperatorsMixin

from graphc.backends.cuda.library_ops import Placed

try:
    import cupy
    import cupyx
    import cupyx.scipy.linalg
    import cupyx.scipy.special
except ImportError:  # then names and arguments go unchecked
    cupy = cupyx = None

_ATTRIBUTES = ("dtype", "shape", "ndim", "size", "itemsize", "nbytes", "strides")


_CODES = {"E": ml_dtypes.bfloat16}
"""CuPy's codes of dtypes that NumPy has none for."""


class Array(NDArrayOperatorsMixin):
    """An array of a GPU."""

    __slots__ = ("_array",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, array: Any) -> None:
        self._array = np.asanyarray(array)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
                        "explicitly.")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or (ufunc.signature is not None and ufunc is not np.matmul):
            return NotImplemented
        if cupy is not None:
            found = getattr(cupy, ufunc.__name__, None) or getattr(cupyx.scipy.special, ufunc.__name__, None)
            assert isinstance(found, cupy.ufunc) or ufunc is np.matmul, f"CuPy has no {ufunc.__name__}"
            _check_types(found, inputs)
        assert not kwargs or set(kwargs) == {"dtype"}, f"{ufunc.__name__}: {list(kwargs)} are not known to be CuPy's"
        return wrapped(ufunc(*map(plain, inputs), **kwargs))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        module = function.__module__.partition("numpy")[2].lstrip(".")
        check(".".join(filter(None, (module, function.__name__))), args, kwargs)
        return wrapped(function(*plain(args), **plain(kwargs)))

    def __getattr__(self, name: str) -> Any:
        if cupy is not None and not hasattr(cupy.ndarray, name):
            raise AttributeError(f"CuPy's arrays have no {name}")
        found = getattr(self._array, name)
        if not callable(found):
            return found if name in _ATTRIBUTES else wrapped(found)

        def method(*args: Any, **kwargs: Any) -> Any:
            if cupy is not None:
                _bind(f"ndarray.{name}", getattr(cupy.ndarray, name), (self, *args), kwargs)
            return wrapped(found(*plain(args), **plain(kwargs)))

        return method

    @property
    def flags(self) -> Any:
        return SimpleNamespace(c_contiguous=self._array.flags.c_contiguous, f_contiguous=self._array.flags.f_contiguous)

    @property
    def real(self) -> Array:
        return Array(self._array.real)

    @real.setter
    def real(self, value: Array) -> None:
        self._array.real = plain(value)

    @property
    def imag(self) -> Array:
        return Array(self._array.imag)

    @imag.setter
    def imag(self, value: Array) -> None:
        self._array.imag = plain(value)

    def __getitem__(self, index: Any) -> Array:
        return Array(self._array[plain(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self._array[plain(index)] = plain(value)

    def __len__(self) -> int:
        return len(self._array)

    def __bool__(self) -> bool:
        return bool(self._array)

    def __float__(self) -> float:
        return float(self._array)

    def __int__(self) -> int:
        return int(self._array)


def plain(value: Any) -> Any:
    """Arguments as NumPy takes them. CuPy's functions take none of its arrays."""
    match value:
        case Array():
            return value._array
        case tuple() | list():
            return type(value)(map(plain, value))
        case dict():
            return {name: plain(item) for name, item in value.items()}
        case np.ndarray():
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value


def wrapped(value: Any) -> Any:
    """Results: CuPy's functions return arrays for numbers too."""
    if isinstance(value, (np.ndarray, np.generic)):
        return Array(value)
    if isinstance(value, (tuple, list)):
        return tuple(map(wrapped, value))
    return value


def _check_types(function: Any, inputs: Sequence[Any]) -> None:
    """That one of CuPy's ufuncs has a loop for these operands."""
    dtypes = [value.dtype for value in inputs if isinstance(value, Array)]
    if not hasattr(function, "types"):  # of matrices
        return
    for loop in function.types:
        if all(np.can_cast(dtype, np.dtype(_CODES.get(code, code))) for dtype, code in zip(dtypes, loop)):
            return
    raise AssertionError(f"CuPy's {function.name} is not for {dtypes}")


def check(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """That CuPy has a function which takes these arguments."""
    if cupy is None:
        return
    found: Any = cupy
    for part in name.split("."):
        found = getattr(found, part, None)
    assert callable(found) and not isinstance(found, np.ufunc), f"CuPy has no {name}"
    _bind(name, found, args, kwargs)


def _bind(name: str, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:
        head = (function.__doc__ or "").partition("\n")[0]
        for keyword in kwargs:
            assert keyword in head, f"CuPy's {name} takes no {keyword}: {head}"
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise AssertionError(f"CuPy's {name} does not take these arguments: {error}") from None


class _Module:
    """A module of CuPy's, whose functions are those of another one."""

    def __init__(self, prefix: str, functions: Any, **special: Any) -> None:
        self._prefix, self._functions, self._special = prefix, functions, special

    def __getattr__(self, name: str) -> Any:
        if isinstance(self._special.get(name), _Module):
            return self._special[name]
        found = self._special.get(name) or getattr(self._functions, name)

        def function(*args: Any, **kwargs: Any) -> Any:
            if cupy is not None:
                real: Any = cupyx if self._prefix.startswith("scipy") else cupy
                for part in filter(None, (*self._prefix.split("."), name)):
                    real = getattr(real, part)
                assert callable(real), f"CuPy has no {name}"
                if not isinstance(real, cupy.ufunc):
                    _bind(name, real, args, kwargs)
            return wrapped(found(*plain(args), **plain(kwargs)))

        return found if isinstance(found, (type, float)) else function


def _argsort(a: np.ndarray, axis: int = -1, kind: str | None = None) -> np.ndarray:
    """Of one row of numbers, which CuPy sorts by their bits, a nan with a sign comes first."""
    assert kind == "stable"
    if a.ndim == 1 and a.dtype.kind == "f":
        bits = a.view(f"i{a.itemsize}")
        a = np.where(bits < 0, np.iinfo(bits.dtype).min - bits - 1, bits)
    return np.argsort(a, axis, kind="stable")


def _irfft(a: np.ndarray, n: int | None = None, axis: int = -1, norm: str | None = None) -> np.ndarray:
    """What cuFFT makes of what is no half of a spectrum nobody says."""
    rows = np.moveaxis(a.imag, axis, -1)
    assert n is not None and not rows[..., 0].any() and (n % 2 or not rows[..., n // 2].any())
    return scipy.fft.irfft(a, n, axis, norm)


def _memory(array: Any) -> Any:
    """What an array is a view of."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def _may_share_memory(a: np.ndarray, b: np.ndarray) -> bool:
    """As CuPy does, which takes memory of two owners to be two."""
    return _memory(a) is _memory(b) and np.may_share_memory(a, b)


def _copyto(dst: np.ndarray, src: np.ndarray, casting: str) -> None:
    """All numbers at once, not as NumPy's, which sees to what is read after it has been written."""
    assert not np.may_share_memory(dst, src)
    np.copyto(dst, src, casting=casting)  # type: ignore[arg-type]


class Libraries:
    """`graphc.backends.cuda.library_ops.Libraries` without a GPU."""

    cupy = _Module("", np, linalg=_Module("linalg", np.linalg), fft=_Module("fft", scipy.fft, irfft=_irfft), argsort=_argsort,
                   may_share_memory=_may_share_memory, copyto=_copyto)
    special = _Module("scipy.special", scipy.special)
    linalg = _Module("scipy.linalg", scipy.linalg)
    fft = cupy.fft

    def has(self, needs: Sequence[str]) -> bool:
        return True

    def raising(self) -> Any:
        if cupy is not None:
            inspect.signature(cupyx.errstate).bind(linalg="raise")
        return contextlib.nullcontext()

    def array(self, placed: Placed) -> Array:
        """An array over memory that is there."""
        low, high = placed.bounds
        memory = (ctypes.c_uint8 * (high - low)).from_address(low)
        return Array(np.ndarray(placed.shape, placed.dtype, memory, placed.address - low, placed.strides))
