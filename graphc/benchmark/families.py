"""Workloads of any size, written against PyTorch's interface: how their time grows is what `graphc bench --scale` shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Made = tuple[Callable[..., Any], tuple[Any, ...]]

ELEMENTS = (*(1 << exponent for exponent in range(10, 27)), 10**8)
"""From a thousand to a hundred million elements."""


@dataclass(frozen=True)
class Family:
    """One computation, by its size."""

    name: str
    unit: str
    """What its size counts."""
    make: Callable[[Any, int], Made]
    """A function and its arguments for a module with PyTorch's interface and a size."""
    sizes: tuple[int, ...]
    odd: tuple[tuple[int, int], ...]
    """Pairs of an awkward size and the plain one that it is compared with."""
    elements: Callable[[int], float]
    """How many elements, or products, a size stands for: what the time is divided by."""
    flops: Callable[[int], float]
    nbytes: Callable[[int], float]
    """What has to be read and written at least."""


def _columns(n: int) -> int:
    return 32 if n < 1 << 15 else 1024


def _pointwise(T: Any, n: int) -> Made:
    return (lambda x, y: x * y + 1.0), (T.randn(n), T.randn(n))


def _row_sums(T: Any, n: int) -> Made:
    return (lambda x: x.sum(-1)), (T.randn(n // _columns(n), _columns(n)),)


def _column_sums(T: Any, n: int) -> Made:
    return (lambda x: x.sum(0)), (T.randn(n // _columns(n), _columns(n)),)


_TOTAL = 1 << 20


def _row_sums_of_length(T: Any, columns: int) -> Made:
    return (lambda x: x.sum(-1)), (T.randn(_TOTAL // columns, columns),)


def _column_sums_beside(T: Any, columns: int) -> Made:
    return (lambda x: x.sum(0)), (T.randn(_TOTAL // columns, columns),)


def _elements_of_columns(columns: int) -> float:
    return float(_TOTAL // columns * columns)


def _bytes_of_rows(columns: int) -> float:
    return 4.0 * (_TOTAL // columns * columns + _TOTAL // columns)


def _bytes_of_columns(columns: int) -> float:
    return 4.0 * (_TOTAL // columns * columns + columns)


def _transpose(T: Any, n: int) -> Made:
    rows = math.isqrt(n)
    return (lambda x: x.t() + 1.0), (T.randn(rows, n // rows),)


def _matmul(T: Any, n: int) -> Made:
    return (lambda x, y: x @ y), (T.randn(n, n), T.randn(n, n))


_IMAGE, _CHANNELS = 32, (3, 16, 32)


def _convnet(T: Any, batch: int) -> Made:
    nn = T.nn
    first, second, third = _CHANNELS
    model = nn.Sequential(
        nn.Conv2d(first, second, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(second, third, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(third, 10),
    ).eval()  # fmt: skip

    def run(x: Any) -> Any:
        with T.no_grad():
            return model(x)

    return run, (T.randn(batch, first, _IMAGE, _IMAGE),)


def _convnet_flops(batch: int) -> float:
    first, second, third = _CHANNELS
    return 2.0 * batch * 9 * (_IMAGE**2 * first * second + (_IMAGE // 2) ** 2 * second * third)


def _convnet_bytes(batch: int) -> float:
    first, second, third = _CHANNELS
    weights = 9 * (first * second + second * third)
    return 4.0 * (batch * first * _IMAGE**2 + weights)


_NEAR = ((1023**2, 1 << 20), (1025**2, 1 << 20), (1_000_003, 1 << 20))
"""Around a million elements: squares of odd numbers, and a prime."""
_LENGTHS = tuple(1 << exponent for exponent in range(2, 19, 2))
_ODD_LENGTHS = ((15, 16), (17, 16), (63, 64), (251, 256), (1021, 1024), (1023, 1024), (1025, 1024), (4099, 4096))
_MATRICES = tuple(sorted({*(1 << e for e in range(4, 13)), *(3 << e for e in range(3, 11))}))
_ODD_MATRICES = (
    (31, 32), (33, 32), (127, 128), (129, 128), (251, 256), (257, 256), (509, 512), (513, 512), (1021, 1024), (1023, 1024),
    (1025, 1024),
)  # fmt: skip

FAMILIES = (
    Family("pointwise", "elements", _pointwise, ELEMENTS, _NEAR, float, lambda n: 2.0 * n, lambda n: 12.0 * n),
    Family("row sums", "elements", _row_sums, ELEMENTS, (), float, float, lambda n: 4.0 * n),
    Family("column sums", "elements", _column_sums, ELEMENTS, (), float, float, lambda n: 4.0 * n),
    Family("rows of a length", "columns", _row_sums_of_length, _LENGTHS, _ODD_LENGTHS, _elements_of_columns,
           _elements_of_columns, _bytes_of_rows),
    Family("columns side by side", "columns", _column_sums_beside, _LENGTHS, _ODD_LENGTHS, _elements_of_columns,
           _elements_of_columns, _bytes_of_columns),
    Family("transpose", "elements", _transpose, ELEMENTS, _NEAR[:2], float, float, lambda n: 8.0 * n),
    Family("matmul", "rows", _matmul, _MATRICES, _ODD_MATRICES, lambda n: 1.0 * n**3, lambda n: 2.0 * n**3,
           lambda n: 12.0 * n * n),
    Family("convnet", "images", _convnet, (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64), ((7, 8), (13, 12), (31, 32), (63, 64)),
           float, _convnet_flops, _convnet_bytes),
)
