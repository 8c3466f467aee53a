"""What print shows: recorded from PyTorch for layouts that are easy to get wrong."""

from __future__ import annotations

import numpy as np
import pytest

import graphc

CASES = {
    "tensor([ 1.0000e+00,  1.0000e-05, -2.3000e+06])": [1.0, 1e-5, -2.3e6],
    "tensor([0., nan, inf])": [0.0, float("nan"), float("inf")],
    "tensor([  0.5000,      nan,     -inf, -12.2500])": [0.5, float("nan"), -float("inf"), -12.25],
    "tensor([1.0000e+09, 1.0000e+00])": [1e9, 1.0],
    "tensor([1.0000e+08, 1.0000e+00])": [1e8, 1.0],
    "tensor([9.9999e+04, 1.5000e+00])": [99999.0, 1.5],
    "tensor([-0., 0.])": [-0.0, 0.0],
    "tensor([1.0000e-08])": [1e-8],
    "tensor(1.0000e-08)": 1e-8,
    "tensor([], size=(1, 1, 0))": [[[]]],
}


@pytest.mark.parametrize("text", CASES)
def test_notations(text: str) -> None:
    assert repr(graphc.tensor(CASES[text])) == text


def test_dtypes_and_histories_wrap_to_their_own_line() -> None:
    x = graphc.full((12,), 0.123456, dtype=graphc.float64, requires_grad=True)
    row = ", ".join(["0.1235"] * 9)
    assert repr(x * 1) == f"tensor([{row},\n        0.1235, 0.1235, 0.1235], dtype=graphc.float64, grad_fn=<MulBackward0>)"
    y = graphc.full((11,), 0.5, dtype=graphc.float64, requires_grad=True).view(11)
    row = ", ".join(["0.5000"] * 9)
    assert repr(y) == f"tensor([{row},\n        0.5000, 0.5000], dtype=graphc.float64, grad_fn=<ViewBackward0>)"
    z = graphc.full((8,), -0.5, dtype=graphc.float64, requires_grad=True)
    assert repr(z) == f"tensor([{', '.join(['-0.5000'] * 8)}],\n       dtype=graphc.float64, requires_grad=True)"


def test_summaries_of_many_dimensions() -> None:
    x = graphc.zeros(8, 8, 20, dtype=graphc.int32)
    row = "[0, 0, 0,  ..., 0, 0, 0]"
    rows = [row] * 3 + ["..."] + [row] * 3
    block = "[" + ",\n         ".join(rows) + "]"
    blocks = [block] * 3 + ["..."] + [block] * 3
    assert repr(x) == "tensor([" + ",\n\n        ".join(blocks) + "], dtype=graphc.int32)"


def test_options() -> None:
    try:
        graphc.set_printoptions(precision=2, sci_mode=False)
        assert repr(graphc.tensor([1e-5, 1.0])) == "tensor([0.00, 1.00])"
        graphc.set_printoptions(profile="full")
        assert "..." not in repr(graphc.zeros(1200))
        graphc.set_printoptions(profile="short")
        assert repr(graphc.tensor(0.126)) == "tensor(0.13)"
        graphc.set_printoptions(threshold=3, edgeitems=1)
        assert repr(graphc.arange(5)) == "tensor([0,  ..., 4])"
        with pytest.raises(ValueError, match="profile"):
            graphc.set_printoptions(profile="nothing")
    finally:
        graphc.set_printoptions(profile="default")


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (1, 1, 1, 1), (3, 1, 2)])
@pytest.mark.parametrize("dtype", [graphc.bool, graphc.uint8, graphc.int64, graphc.float16, graphc.float64])
def test_every_shape_and_dtype_prints(shape: tuple[int, ...], dtype: graphc.DType) -> None:
    text = repr(graphc.ones(shape, dtype=dtype))
    assert text.startswith("tensor(") and text.count("[") >= text.count("]")
    numbers = graphc.ones(shape, dtype=dtype).numel()
    assert text.count("True" if dtype is graphc.bool else "1") >= numbers


def test_views_print_their_own_elements() -> None:
    assert repr(graphc.from_numpy(np.arange(6).reshape(2, 3).T[::2])) == "tensor([[0, 3],\n        [2, 5]])"


@pytest.mark.parametrize("text, values", [
    ("tensor([[ 1.0000+2.0000e+00j, -3.5000+1.0000e-05j]])", [[1 + 2j, -3.5 + 1e-5j]]),
    ("tensor([nan+1.j, inf-0.j])", [complex(float("nan"), 1), complex(float("inf"), -0.0)]),
    ("tensor([1.0000e+10+1.j, 2.0000e+00+0.j])", [1e10 + 1j, 2]),
    ("tensor(1.5000-2.j)", 1.5 - 2j),
    ("tensor([0.+1.j, -0.-2.j])", [1j, -2j]),
])
def test_complex_numbers(text: str, values: object) -> None:
    assert repr(graphc.tensor(values)) == text
    assert repr(graphc.tensor(values, dtype=graphc.complex128)) == text[:-1] + ", dtype=graphc.complex128)"


def test_other_dtypes_are_named() -> None:
    assert repr(graphc.tensor([1.5, 2.0], dtype=graphc.bfloat16)) == "tensor([1.5000, 2.0000], dtype=graphc.bfloat16)"
    assert repr(graphc.zeros(1, dtype=graphc.complex32)) == "tensor([0.+0.j], dtype=graphc.complex32)"
    assert repr(graphc.zeros(0, dtype=graphc.complex64)) == "tensor([], dtype=graphc.complex64)"
    assert repr(graphc.tensor([1j], requires_grad=True)) == "tensor([0.+1.j], requires_grad=True)"


def test_nothing_at_the_edges() -> None:
    graphc.set_printoptions(edgeitems=0, threshold=2)
    try:
        assert repr(graphc.ones(3, 3)) == "tensor([...], size=(3, 3))"
    finally:
        graphc.set_printoptions(profile="default")
