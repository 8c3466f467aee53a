"""Fourier transforms. ONNX keeps real and imaginary parts in a last dimension of two, and real numbers in one of one."""

from __future__ import annotations

from typing import Any

import graphc.ops as ops
from graphc.ir import Value
from graphc.onnx_format.reader.call import Call, part
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.movement import padded
from graphc.onnx_format.reader.table import reads


def _resized(x: Value, axis: int, size: Any) -> Value:
    """Cut off, or filled up with zeros."""
    if size is None or size == x.shape[axis]:
        return x
    if size < x.shape[axis]:
        return part(x, axis, 0, size)
    return padded(x, [0] * x.ndim, [size - x.shape[axis] if i == axis else 0 for i in range(x.ndim)], 0)


def _complex(x: Value) -> Value:
    if x.shape[-1] == 2:
        return ops.view_as_complex(x)
    if x.shape[-1] != 1:
        raise BadModel("the last dimension is neither one nor two numbers", got=str(x.type))
    only = ops.reshape(x, tuple(x.shape[:-1]))
    return ops.complex(only, ops.zeros_like(only))


@reads("DFT")
def _dft(c: Call) -> Value:
    x = c[0]
    if c.opset >= 20:
        axis = c.checked_axis(c.number(2, -2), x.ndim)
    else:
        axis = c.axis(1)
    inverse, half = bool(c.int("inverse", 0)), bool(c.int("onesided", 0))
    size = None if not c.has(1) else int(c.number(1))
    scale = "full" if inverse else "none"
    if half and inverse:
        length = 2 * (int(x.shape[axis]) - 1) if size is None else size
        spectrum = _complex(_resized(x, axis, length // 2 + 1))
        out = ops.fft_c2r(spectrum, axis=axis, size=length, scale=scale)
        return ops.reshape(out, (*out.shape, 1))
    x = _resized(x, axis, size)
    if half and x.shape[-1] == 1:
        return ops.view_as_real(ops.fft_r2c(ops.reshape(x, tuple(x.shape[:-1])), axis=axis, scale=scale))
    out = ops.view_as_real(ops.fft_c2c(_complex(x), axes=(axis,), inverse=inverse, scale=scale))
    return part(out, axis, 0, x.shape[axis] // 2 + 1) if half else out


@reads("STFT")
def _stft(c: Call) -> Value:
    """The transforms of windows that move over a signal."""
    x, step = c[0], int(c.number(1))
    window = c.optional(2)
    length = int(c.number(3)) if c.has(3) else window.shape[0] if window is not None else None
    if length is None:
        raise BadModel("neither a window nor a frame_length")
    half = bool(c.int("onesided", 1))
    if x.ndim == 3 and x.shape[2] == 1:
        x = ops.reshape(x, tuple(x.shape[:2]))
    elif x.ndim == 3:
        x = _complex(x)
    frames = ops.window(x, 1, length, step, 1)
    if window is not None:
        frames = frames * window
    if half and not frames.dtype.is_complex:
        return ops.view_as_real(ops.fft_r2c(frames, axis=2, scale="none"))
    wide = frames if frames.dtype.is_complex else ops.complex(frames, ops.zeros_like(frames))
    return ops.view_as_real(ops.fft_c2c(wide, axes=(2,), inverse=False, scale="none"))
