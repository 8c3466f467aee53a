"""Gradients of functions of tensors against central differences, to the second order, of real and of complex numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphc

STEP = 1e-6


def inner(x: np.ndarray, y: np.ndarray) -> float:
    """The inner product; of complex numbers as pairs of real ones, which is how their gradients are defined."""
    return float(np.sum((np.conj(x) * y).real))


def normal(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    """Normally distributed numbers in the shape of an array, complex where that is."""
    numbers = rng.standard_normal(like.shape)
    return numbers + 1j * rng.standard_normal(like.shape) if like.dtype.kind == "c" else numbers


def listed(made: Any) -> list[Any]:
    """The differentiable results of a function."""
    results = made if isinstance(made, (tuple, list)) else (made,)
    return [x for x in results if x.dtype.is_differentiable]


def check_gradients(
    function: Callable[..., Any], arrays: Sequence[np.ndarray], order: int = 2, hermitian: bool = False
) -> None:
    """The slope of a random combination of the results along a random direction, by autograd and by differences.

    The arrays are float64 or complex128. With `hermitian` the first one is varied among Hermitian matrices only.
    """
    rng = np.random.default_rng(order)
    cotangents = [normal(rng, x.detach().numpy()) for x in listed(function(*map(graphc.tensor, arrays)))]
    directions = [normal(rng, a) for a in arrays]
    if hermitian:
        directions[0] = directions[0] + directions[0].conj().swapaxes(-1, -2)

    def backward(*tensors: Any) -> list[Any]:
        given, kept = tensors[: len(arrays)], tensors[len(arrays) :]
        results = listed(function(*given))
        pairs = [(x, ct) for x, ct in zip(results, kept, strict=True) if x.requires_grad]
        if not pairs:  # a linear function's gradient varies with nothing
            return [graphc.zeros_like(x) for x in given]
        outputs, seeds = zip(*pairs)
        found = graphc.autograd.grad(outputs, given, seeds, create_graph=True, allow_unused=True)
        return [graphc.zeros_like(x) if g is None else g for x, g in zip(given, found, strict=True)]

    leaves = [graphc.tensor(a, requires_grad=True) for a in arrays]
    got = sum(inner(g.detach().numpy(), d) for g, d in zip(backward(*leaves, *map(graphc.tensor, cotangents)), directions))

    def value(t: float) -> float:
        moved = [graphc.tensor(a + t * d) for a, d in zip(arrays, directions)]
        return sum(inner(ct, x.detach().numpy()) for ct, x in zip(cotangents, listed(function(*moved))))

    expected = (value(STEP) - value(-STEP)) / (2 * STEP)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)
    if order > 1:
        fixed = list(map(graphc.tensor, cotangents))

        def again(*tensors: Any) -> list[Any]:
            given = [x if x.requires_grad else x.requires_grad_() for x in tensors]
            return backward(*given, *fixed)

        check_gradients(again, arrays, order - 1, hermitian)
