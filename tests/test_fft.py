"""Fourier transforms against NumPy, which defines them alike, and their gradients against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from finite_differences import check_gradients
from matrix_samples import array, near, numpy

import graphc
from graphc import fft

OF_COMPLEX = ("fft", "ifft", "irfft", "hfft")
OF_REAL = ("rfft", "ihfft")
NORMS = pytest.mark.parametrize("norm", [None, "backward", "ortho", "forward"])


def sample(name: str, *shape: int) -> np.ndarray:
    return array(*shape, kind="real" if name.startswith(OF_REAL) else "complex")


@NORMS
@pytest.mark.parametrize("n", [None, 1, 2, 4, 5, 9])
@pytest.mark.parametrize("name", OF_COMPLEX + OF_REAL)
def test_along_one_dimension(name: str, n: int | None, norm: Any) -> None:
    x = sample(name, 2, 5, 3)
    near(getattr(fft, name)(graphc.tensor(x), n, 1, norm), getattr(np.fft, name)(x, n, 1, norm))
    check_gradients(lambda x: getattr(fft, name)(x, n, dim=1, norm=norm), [x])


@NORMS
@pytest.mark.parametrize(("s", "dim"), [(None, None), ((3, 4), (0, 2)), ((4, 5), (2, 1)), (None, (1,)), ((6,), (0,))])
@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_along_several_dimensions(name: str, s: Any, dim: Any, norm: Any) -> None:
    x = sample(name, 2, 5, 3)
    near(getattr(fft, name)(graphc.tensor(x), s, dim, norm), getattr(np.fft, name)(x, s, dim, norm))
    check_gradients(lambda x: getattr(fft, name)(x, s=s, dim=dim, norm=norm), [x])
    if dim is not None and len(dim) == 2:
        two = getattr(fft, name.replace("n", "2"))
        near(two(graphc.tensor(x), s, dim, norm), getattr(np.fft, name)(x, s, dim, norm))


@pytest.mark.parametrize("name", ["hfft", "ihfft"])
def test_hermitian_transforms_of_several_dimensions(name: str) -> None:
    """They are the complex transform along the others, and then that along the last, or the other way round."""
    x = sample(name, 2, 5, 3)
    t = graphc.tensor(x)
    if name == "hfft":
        expected = np.fft.hfft(np.fft.fft(x, axis=0), 7, axis=2)
        near(fft.hfftn(t, (-1, 7), (0, 2)), expected)
        near(fft.hfft2(t, (-1, 7), (0, 2)), expected)
    else:
        expected = np.fft.ifft(np.fft.ihfft(x, 4, axis=2), axis=0)
        near(fft.ihfftn(t, (-1, 4), (0, 2)), expected)
        near(fft.ihfft2(t, (-1, 4), (0, 2)), expected)


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.complex64, graphc.int64, graphc.bool])
def test_single_precision_stays(dtype: Any) -> None:
    x = graphc.ones(3, 4).to(dtype)
    assert fft.fft(x).dtype is fft.ifft2(x).dtype is graphc.complex64
    assert fft.irfft(x).dtype is fft.hfftn(x).dtype is graphc.float32


def test_nothing_to_transform() -> None:
    assert fft.fft(graphc.zeros(0, 4)).shape == (0, 4)
    assert fft.rfft(graphc.zeros(0, 4)).shape == (0, 3)
    assert fft.irfft(graphc.zeros(0, 3)).shape == (0, 4)
    assert fft.fftn(graphc.tensor(2.0)).item() == 2
    x = graphc.tensor(array(3))
    near(fft.fftn(x, dim=()), numpy(x).astype(complex))


def test_frequencies_and_their_order() -> None:
    for n in (1, 4, 5):
        near(fft.fftfreq(n, 0.5, dtype=graphc.float64), np.fft.fftfreq(n, 0.5))
        near(fft.rfftfreq(n, 0.5, dtype=graphc.float64), np.fft.rfftfreq(n, 0.5))
    for shape, dim in (((5,), None), ((4, 3), None), ((4, 3), 1), ((2, 3, 4), (0, -1))):
        x = array(*shape)
        near(fft.fftshift(graphc.tensor(x), dim), np.fft.fftshift(x, dim))
        near(fft.ifftshift(graphc.tensor(x), dim), np.fft.ifftshift(x, dim))
    check_gradients(fft.fftshift, [array(5, 2)])


def test_what_is_refused() -> None:
    x = graphc.ones(3, 4)
    for call, kind, message in (
        (lambda: fft.fft(x, 0), RuntimeError, r"Invalid number of data points \(0\)"),
        (lambda: fft.fft(x, norm="whole"), RuntimeError, "Invalid normalization mode"),
        (lambda: fft.fft(graphc.tensor(1.0)), IndexError, "Dimension specified as -1 but tensor has no dimensions"),
        (lambda: fft.fft(x, dim=2), IndexError, "Dimension out of range"),
        (lambda: fft.rfft(x.to(graphc.complex64)), RuntimeError, "rfft expects a real input tensor, but got ComplexFloat"),
        (lambda: fft.fft(x.half()), RuntimeError, "Unsupported dtype Half"),
        (lambda: fft.fftn(x, (1, 2, 3)), RuntimeError, "Got shape with 3 values but input tensor only has 2 dimensions"),
        (lambda: fft.fftn(x, (1, 2), (0,)), RuntimeError, "dim and shape arguments must have the same length"),
        (lambda: fft.fftn(x, dim=(0, -2)), RuntimeError, "FFT dims must be unique"),
        (lambda: fft.rfftn(x, dim=()), RuntimeError, "rfftn must transform at least one axis"),
        (lambda: fft.irfft(graphc.ones(1)), RuntimeError, r"Invalid number of data points \(0\)"),
        (lambda: fft.fft(graphc.ones(0)), RuntimeError, r"Invalid number of data points \(0\)"),
    ):
        with pytest.raises(kind, match=message):
            call()


def test_written_into_a_tensor() -> None:
    out = graphc.empty(3, dtype=graphc.complex64)
    assert fft.fft(graphc.tensor([1.0, 2.0, 4.0]), out=out) is out
    near(out, np.fft.fft([1, 2, 4]).astype(np.complex64), 1e-6)


@pytest.mark.parametrize("name", OF_COMPLEX + OF_REAL)
def test_compiled_with_gradients(name: str) -> None:
    x = sample(name, 4, 6)
    function = lambda x: graphc.abs(getattr(fft, name)(x * 2, dim=0) + 1)  # noqa: E731
    compiled = graphc.compile(function, fullgraph=True)
    leaf, other = (graphc.tensor(x, requires_grad=True) for _ in range(2))
    for _ in range(2):
        expected, got = function(leaf), compiled(other)
        near(got, numpy(expected))
        near(graphc.autograd.grad(got.sum(), other)[0], numpy(graphc.autograd.grad(expected.sum(), leaf)[0]))


# Short-time transforms


def framed(x: np.ndarray, n_fft: int, hop: int, window: np.ndarray) -> np.ndarray:
    """The transforms of windows, by definition."""
    starts = range(0, x.shape[-1] - n_fft + 1, hop)
    return np.stack([np.fft.fft(x[..., s : s + n_fft] * window) for s in starts], -1)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("onesided", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_stft(center: bool, onesided: bool, normalized: bool) -> None:
    x, window = array(2, 30), np.hanning(8)[1:7] + 0.1
    whole = np.pad(window, 1)
    padded = np.pad(x, ((0, 0), (4, 4)), "reflect") if center else x
    expected = framed(padded, 8, 3, whole)[:, : 5 if onesided else 8] / (np.sqrt(8) if normalized else 1)

    def transformed(x: Any, window: Any) -> Any:
        return graphc.stft(x, 8, 3, 6, window, center=center, normalized=normalized, onesided=onesided, return_complex=True)

    near(transformed(graphc.tensor(x), graphc.tensor(window)), expected)
    near(transformed(graphc.tensor(x[0]), graphc.tensor(window)), expected[0])
    check_gradients(transformed, [x, window])


def test_stft_as_pairs_of_real_numbers() -> None:
    x = graphc.tensor(array(20))
    with pytest.warns(UserWarning, match="return_complex=False is deprecated"):
        pairs = x.stft(8, return_complex=False)
    near(pairs, numpy(graphc.view_as_real(x.stft(8, return_complex=True))))
    with pytest.raises(RuntimeError, match="requires the return_complex parameter"):
        graphc.stft(x, 8)
    assert graphc.stft(x.to(graphc.complex128), 8).shape == (8, 11)


def test_stft_that_begins_with_its_window() -> None:
    x, window = array(20), np.ones(4)
    got = graphc.stft(graphc.tensor(x), 8, 3, 4, graphc.tensor(window), center=False, align_to_window=True, return_complex=True)
    near(got[0], np.array([x[s : s + 4].sum() for s in range(0, 17, 3)]).astype(complex))


@pytest.mark.parametrize("length", [None, 12, 40])
@pytest.mark.parametrize("normalized", [True, False])
def test_istft_undoes_stft(length: int | None, normalized: bool) -> None:
    x, window = graphc.tensor(array(2, 30)), graphc.tensor(np.hanning(10)[1:9])
    spectra = graphc.stft(x, 8, 2, window=window, normalized=normalized, return_complex=True)
    back = graphc.istft(spectra, 8, 2, window=window, normalized=normalized, length=length)
    known = min(length or 30, 30)
    near(back[:, :known], numpy(x[:, :known]))
    assert back.shape == (2, length or 30)
    check_gradients(lambda s, w: graphc.istft(s, 8, 2, window=w, normalized=normalized, length=length),
                    [numpy(spectra), numpy(window)], order=1)


def test_istft_of_whole_spectra() -> None:
    x = graphc.tensor(array(30, kind="complex"))
    spectra = graphc.stft(x, 8, 2, return_complex=True)
    near(graphc.istft(spectra, 8, 2, onesided=False, return_complex=True), numpy(x))


def test_istft_refuses_windows_that_leave_parts_out() -> None:
    spectra = graphc.ones(5, 4, dtype=graphc.complex64)
    with pytest.raises(RuntimeError, match="window overlap add min"):
        graphc.istft(spectra, 8, 2, window=graphc.zeros(8))
    with pytest.raises(RuntimeError, match="complex-valued input tensor"):
        graphc.istft(graphc.ones(5, 4), 8)
    with pytest.raises(RuntimeError, match="to match n_fft"):
        graphc.istft(spectra, 12)


@pytest.mark.parametrize("shape", [(257, 301), (3, 100_003), (70, 1, 1024)])
def test_large_transforms_are_the_same_on_any_number_of_threads(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    before, found = graphc.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            graphc.set_num_threads(threads)
            t = graphc.from_numpy(x)
            half = graphc.fft.rfft(t, dim=0)
            found.append([graphc.fft.fft(t), half, graphc.fft.irfft(half, n=shape[0], dim=0), graphc.fft.ifft2(t)])
    finally:
        graphc.set_num_threads(before)
    wide = x.astype(np.float64)
    wanted = [np.fft.fft(wide), np.fft.rfft(wide, axis=0), wide, np.fft.ifft2(wide)]
    for one, two, three, exact in zip(*found, wanted, strict=True):
        assert one.tolist() == two.tolist() == three.tolist()
        np.testing.assert_allclose(one.numpy(), exact, atol=2e-6 * float(np.abs(exact).max()))
