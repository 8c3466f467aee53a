"""Tensors that gradients are wanted of."""

from __future__ import annotations

import graphc


def leaf(*numbers: float) -> graphc.Tensor:
    return graphc.tensor(numbers, dtype=graphc.float64, requires_grad=True)
