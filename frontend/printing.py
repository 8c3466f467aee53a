"""Tensors as text, laid out as PyTorch lays them out."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.frontend.device_arrays import is_array
from graphc.frontend.level import Inner
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracer import active
from graphc.types import bool_, get_default_dtype, int64


class _Options(threading.local):
    precision = 4
    threshold: float = 1000
    edgeitems = 3
    linewidth = 80
    sci_mode: bool | None = None


options = _Options()

_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """How tensors are printed.

    precision
        Digits after the point.
    threshold, edgeitems
        Tensors with more elements than `threshold` show `edgeitems` at each end of each dimension.
    linewidth
        Characters a line.
    profile
        "default", "short" or "full", which the other arguments then change.
    sci_mode
        Scientific notation always (True), never (False), or where it is needed (None).

    ArgumentError for another profile.

    >>> graphc.set_printoptions(precision=2)
    >>> graphc.tensor([1.2345])
    tensor([1.23])
    >>> graphc.set_printoptions(precision=4)
    """
    if profile is not None:
        if profile not in _PROFILES:
            raise ArgumentError(f"set_printoptions: no profile {profile!r}", expected=f"one of {', '.join(_PROFILES)}")
        for name, value in _PROFILES[profile].items():
            setattr(options, name, value)
    for name, value in {"precision": precision, "threshold": threshold, "edgeitems": edgeitems,
                        "linewidth": linewidth}.items():
        if value is not None:
            setattr(options, name, value)
    options.sci_mode = sci_mode


class _Formatter:
    """How the numbers of one tensor are written: all with the same width and notation."""

    def __init__(self, shown: np.ndarray) -> None:
        self.floating = shown.dtype.kind in "fV"
        self.integral = True
        self.scientific = False
        self.width = 1
        if not self.floating:
            self.width = max((len(str(v)) for v in shown.reshape(-1).tolist()), default=1)
            return
        values = shown.astype(np.float64).reshape(-1)
        values = values[np.isfinite(values) & (values != 0)]  # the others do not count
        if values.size:
            low, high = float(np.abs(values).min()), float(np.abs(values).max())
            self.integral = bool((np.ceil(values) == values).all())
            self.scientific = high / low > 1000.0 or high > 1.0e8 or (not self.integral and low < 1.0e-4)
        if options.sci_mode is not None:
            self.scientific = options.sci_mode
        self.width = max((len(self._text(v)) for v in values.tolist()), default=1)

    def _text(self, value: Any) -> str:
        if not self.floating:
            return str(value)
        if not math.isfinite(value):
            return str(value)
        if self.scientific:
            return f"{value:.{options.precision}e}"
        return f"{value:.0f}." if self.integral else f"{value:.{options.precision}f}"

    def __call__(self, value: Any) -> str:
        return self._text(value).rjust(self.width)


class _ComplexFormatter:
    """How complex numbers are written: real and imaginary parts each in a width and notation of their own."""

    def __init__(self, shown: np.ndarray) -> None:
        self.real, self.imaginary = _Formatter(shown.real), _Formatter(shown.imag)
        self.width = self.real.width + self.imaginary.width + 1  # the parts and a j; the sign has no place of its own

    def __call__(self, value: complex) -> str:
        imaginary = self.imaginary(value.imag).lstrip()
        return f"{self.real(value.real)}{'' if imaginary.startswith('-') else '+'}{imaginary}j"


def _formatter(shown: np.ndarray) -> Any:
    return _ComplexFormatter(shown) if shown.dtype.kind == "c" else _Formatter(shown)


def _edges(array: np.ndarray) -> np.ndarray:
    """The elements that a summary shows."""
    edge = options.edgeitems
    for axis, size in enumerate(array.shape):
        if size > 2 * edge:
            array = np.concatenate([array.take(range(edge), axis), array.take(range(size - edge, size), axis)], axis)
    return array


def _vector(array: np.ndarray, indent: int, summarise: bool, formatter: Any) -> str:
    # a number takes its width and ", "
    per_line = max(1, (options.linewidth - indent) // (formatter.width + 2))
    values = array.tolist()
    edge = options.edgeitems
    if summarise and not edge:
        words = ["..."]
    elif summarise and len(values) > 2 * edge:
        words = [*map(formatter, values[:edge]), " ...", *map(formatter, values[-edge:])]
    else:
        words = [formatter(v) for v in values]
    lines = [", ".join(words[i : i + per_line]) for i in range(0, len(words), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _nested(array: np.ndarray, indent: int, summarise: bool, formatter: Any) -> str:
    if array.ndim == 0:
        return formatter(array.tolist())
    if array.ndim == 1:
        return _vector(array, indent, summarise, formatter)
    edge = options.edgeitems
    if summarise and len(array) > 2 * edge:
        rows = [*(_nested(a, indent + 1, summarise, formatter) for a in array[:edge]), "...",
                *(_nested(a, indent + 1, summarise, formatter) for a in array[len(array) - edge :])]
    else:
        rows = [_nested(a, indent + 1, summarise, formatter) for a in array]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(rows) + "]"


def tensor_text(self: Tensor, *, tensor_contents: Any = None) -> str:
    """The tensor as print() shows it."""
    prefix = "tensor("
    data = self._data
    if isinstance(data, Inner):
        return repr(data)
    if self.name is not None:
        return f"tensor(..., size={tuple(self.shape)}, dtype={self.dtype!r}, name={self.name!r})"
    tracer = active()
    if not is_array(data) and data.builder is not None and (tracer is None or not tracer.answers):
        return f"tensor(..., size={tuple(data.shape)}, dtype={self.dtype!r}, traced as {data!r})"
    array = self._known_to_python("printing")
    notes: list[str] = []
    if array.size == 0:
        contents = "[]"
        if array.ndim != 1:
            notes.append(f"size={tuple(array.shape)}")
        named_dtype = self.dtype is not get_default_dtype()
    else:
        summarise = array.size > options.threshold
        contents = _nested(array, len(prefix), summarise, _formatter(_edges(array) if summarise else array))
        default = get_default_dtype()
        named_dtype = self.dtype not in (int64, bool_, default, default.to_complex())
        if not options.edgeitems:  # a summary would say nothing of the size
            notes.append(f"size={tuple(array.shape)}")
    if self.is_cuda:
        notes.append(f"device='{self.device}'")
    if named_dtype:
        notes.append(f"dtype={self.dtype!r}")
    node = self.grad_fn
    if node is not None:
        notes.append(f"grad_fn=<{node.name()}>")
    elif self.requires_grad:
        notes.append("requires_grad=True")
    return _joined(prefix + contents, notes, len(prefix)) + ")"


def _joined(text: str, notes: list[str], indent: int) -> str:
    """The notes after the numbers, on lines of their own where they do not fit."""
    length = len(text) - text.rfind("\n") + 1
    parts = [text]
    for note in notes:
        if length + len(note) + 2 > options.linewidth:
            parts.append(",\n" + " " * indent + note)
            length = indent + len(note)
        else:
            parts.append(", " + note)
            length += len(note) + 2
    return "".join(parts)
