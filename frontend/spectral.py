"""Short-time Fourier transforms."""

from __future__ import annotations

import warnings

from graphc import ops
from graphc.errors import DTypeError, GraphcError, ShapeError
from graphc.frontend import fft
from graphc.frontend.arguments import emit, need_tensor
from graphc.frontend.creation import ones
from graphc.frontend.movement import narrow, reshape, transpose, unfold, unsqueeze
from graphc.frontend.padding import pad
from graphc.frontend.pointwise import abs
from graphc.frontend.tensor import Tensor
from graphc.frontend.tracer import active
from graphc.types import DType

FUNCTIONS = "istft stft"
METHODS = "istft stft"


def _window(window: Tensor | None, n_fft: int, win_length: int, dtype: DType) -> Tensor:
    """The window, with zeros on both sides up to n_fft."""
    found = ones(win_length, dtype=dtype) if window is None else window
    left = (n_fft - win_length) // 2
    return found if win_length == n_fft else pad(found, (left, n_fft - win_length - left))


def _check_window(name: str, n_fft: int, hop: int, win_length: int, window: Tensor | None) -> None:
    if hop <= 0 or (name == "istft" and hop > win_length):
        wanted = "0 < hop_length <= win_length" if name == "istft" else "hop_length > 0"
        raise GraphcError(f"{name}: expected {wanted}, but got hop_length={hop}")
    if not 0 < win_length <= n_fft:
        raise GraphcError(f"{name}: expected 0 < win_length <= n_fft, but got win_length={win_length}")
    if window is not None and tuple(window._data.shape) != (win_length,):
        raise ShapeError(f"{name}: expected a 1D window tensor of size equal to win_length={win_length}, but got window with "
                         f"size {list(window.shape)}")


def stft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
         window: Tensor | None = None, center: bool = True, pad_mode: str = "reflect", normalized: bool = False,
         onesided: bool | None = None, return_complex: bool | None = None, align_to_window: bool | None = None) -> Tensor:
    """The Fourier transforms of windows of n_fft numbers, hop_length (n_fft / 4) apart, of signals of shape [length] or
    [batch, length].

    Returns [..., frequencies, windows], complex, or with return_complex=False real with real and imaginary parts along
    a last dimension. With `center` window t has its middle at t * hop_length, the signal being padded at both ends;
    `normalized` divides by sqrt(n_fft); `onesided`, which real signals are by default, gives frequencies up to n_fft / 2.

    GraphcError for what is not one signal or several, for windows longer than the signal, and without `return_complex` for real
    signals; ShapeError for a window of another length than `win_length`.

    >>> graphc.stft(graphc.ones(100), n_fft=16, window=graphc.hann_window(16), return_complex=True).shape
    graphc.Size([9, 26])
    """
    x = need_tensor(input, "stft")
    if not x.dtype.is_differentiable or x.ndim not in (1, 2):
        raise GraphcError("stft: expected a 1D or 2D tensor of floating types", got=f"{x.dtype.name}{list(x.shape)}")
    hop = n_fft // 4 if hop_length is None else hop_length
    length = n_fft if win_length is None else win_length
    complex_window = window is not None and window.dtype.is_complex
    if return_complex is None:
        if not x.dtype.is_complex and not complex_window:
            raise GraphcError("stft requires the return_complex parameter be given for real inputs, and will further require "
                              "that return_complex=True in a future PyTorch release.")
        return_complex = True
    if not return_complex:
        warnings.warn("stft with return_complex=False is deprecated. In a future pytorch release, stft will return complex "
                      "tensors for all inputs, and return_complex=False will raise an error.", UserWarning, stacklevel=2)
    if align_to_window is not None and center:
        raise GraphcError("stft: align_to_window should only be set when center = false")
    batched = x.ndim == 2
    signal = x if batched else unsqueeze(x, 0)
    if center:
        signal = pad(unsqueeze(signal, 0), (n_fft // 2, n_fft // 2), pad_mode)[0]
    elif align_to_window:  # the first window begins with the signal, not the zeros around the window
        left = (n_fft - length) // 2
        signal = pad(signal, (left, left))
    size = signal._data.shape[-1]
    if n_fft <= 0 or (isinstance(size, int) and n_fft > size):
        raise GraphcError(f"stft: expected 0 < n_fft < {size}, but got n_fft={n_fft}")
    _check_window("stft", n_fft, hop, length, window)
    frames = unfold(signal, -1, n_fft, hop)
    if window is not None or length < n_fft:
        frames = frames * _window(window, n_fft, length, x.dtype)
    real = not frames.dtype.is_complex
    half = real if onesided is None else onesided
    if half and not real:
        raise GraphcError("Cannot have onesided output if window or input is complex")
    transform = fft.rfft if half else fft.fft
    out = transpose(transform(frames, norm="ortho" if normalized else "backward"), -2, -1)
    out = out if batched else out[0]
    return out if return_complex else emit(ops.view_as_real, (out,), {})


def istft(input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
          window: Tensor | None = None, center: bool = True, normalized: bool = False, onesided: bool | None = None,
          length: int | None = None, return_complex: bool = False) -> Tensor:
    """The signals that `stft` has made spectra of shape [frequencies, windows] or [batch, frequencies, windows] of.

    The windows' transforms are added up where they overlap, and divided by the sum of the windows' squares (Griffin and Lim
    1984, "Signal estimation from modified short-time Fourier transform"). Returns [..., length].

    ShapeError for what is no such spectra and for a window of another length than `win_length`, DTypeError for real numbers,
    GraphcError where the windows leave parts of the signal out.

    >>> window = graphc.hann_window(16)
    >>> signal = graphc.sin(graphc.arange(96.0))
    >>> spectrum = graphc.stft(signal, n_fft=16, window=window, return_complex=True)
    >>> graphc.allclose(graphc.istft(spectrum, n_fft=16, window=window), signal, atol=1e-5)
    True
    """
    x = need_tensor(input, "istft")
    if not x.dtype.is_complex:
        raise DTypeError("istft requires a complex-valued input tensor matching the output from stft with "
                         "return_complex=True.", got=x.dtype.name)
    hop = n_fft // 4 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    if x.numel() == 0 or x.ndim not in (2, 3):
        raise ShapeError("istft: expected a tensor with 2 or 3 dimensions that is not empty", got=str(list(x.shape)))
    half = x._data.shape[-2] != n_fft if onesided is None else onesided
    frequencies = n_fft // 2 + 1 if half else n_fft
    if x._data.shape[-2] != frequencies:
        raise ShapeError("istft: expected the frequency dimension (3rd to the last) of the input tensor to match "
                         f"n_fft{' / 2 + 1' if half else ''}={frequencies}, but got {x.shape[-2]}")
    if half and return_complex:
        raise GraphcError("Cannot have onesided output if window or input is complex")
    _check_window("istft", n_fft, hop, width, window)
    if window is not None and window.dtype.is_complex and not return_complex:
        raise GraphcError("Complex windows are incompatible with return_complex=False")
    batched = x.ndim == 3
    spectra = transpose(x if batched else unsqueeze(x, 0), -2, -1)
    norm = "ortho" if normalized else "backward"
    # of a whole spectrum, too, the half that real signals have is all that is looked at
    frames = fft.ifft(spectra, norm=norm) if return_complex else fft.irfft(spectra, n_fft, norm=norm)
    shape = _window(window, n_fft, width, x.dtype.to_real())
    count = frames._data.shape[1]
    total = n_fft + hop * (count - 1)
    together = {"axis": 1, "length": total, "step": hop, "dilation": 1}
    signal = emit(ops.fold, (frames * shape,), together)
    squares = ops.broadcast_to(reshape(shape * shape, (1, 1, n_fft)), (1, count, n_fft))
    envelope = emit(ops.fold, (squares,), together)
    start = n_fft // 2 if center else 0
    stop = total - start if length is None else min(start + length, total)
    signal, envelope = narrow(signal, 1, start, stop - start), narrow(envelope, 1, start, stop - start)
    if active() is None and bool((abs(envelope) < 1e-11).any()):
        raise GraphcError("istft: window overlap add min: 1, which is not invertible: windows leave parts of the signal out",
                          hint="use a smaller hop_length, or center=True")
    out = signal / envelope
    if length is not None and length > stop - start:
        out = pad(out, (0, length - (stop - start)))
    return out if batched else out[0]
