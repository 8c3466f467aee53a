"""Moving values between the devices that the nodes of a graph are placed on."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.expression import Expr
from graphc.op import Sample, op
from graphc.types import TensorType, float32


def _lower(read: Any, index: tuple[Expr, ...], types: Any, device: str) -> Expr:
    return read(0, index)


def _vjp(ct: Any, x_type: TensorType) -> Any:
    return transfer(ct, device=x_type.device)


def _ref(x: np.ndarray, device: str) -> np.ndarray:
    return x


transfer = op("transfer", "x", "device", infer=lambda x, device: x.on(device), ref=_ref, lower=_lower, vjp=_vjp, nanoseconds=0,
              samples=(Sample((TensorType(float32, (3, 5)),), {"device": "cpu"}),))
"""The same numbers on another device."""
