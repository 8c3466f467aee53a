"""Matrices for the tests of linear algebra, and how their results are compared with NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

EITHER_KIND = pytest.mark.parametrize("kind", ["real", "complex"])


def array(*shape: int, kind: str = "real", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng((seed, *shape))
    numbers = rng.standard_normal(shape)
    return numbers + 1j * rng.standard_normal(shape) if kind == "complex" else numbers


def adjoint(a: np.ndarray) -> np.ndarray:
    return a.conj().swapaxes(-1, -2)


def positive(*shape: int, kind: str = "real") -> np.ndarray:
    a = array(*shape, kind=kind)
    return a @ adjoint(a) + np.eye(shape[-1])


def numpy(x: Any) -> np.ndarray:
    return x.detach().numpy()


def near(got: Any, expected: Any, tolerance: float = 1e-10) -> None:
    got = numpy(got)
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)
