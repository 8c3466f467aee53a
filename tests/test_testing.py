"""`assert_close`: what is close, and what is said of what is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.testing import assert_close


@pytest.mark.parametrize(("actual", "expected", "options"), [
    (graphc.ones(3), graphc.ones(3) + 5e-6, {}), (graphc.tensor([1e-6]), graphc.zeros(1), {}),
    (graphc.ones(3), np.ones(3, np.float32), {}), (1.0, 1.0 + 1e-8, {}), (None, None, {}), (3, 3, {}),
    ([graphc.ones(2), {"a": 1}], (graphc.ones(2), {"a": 1}), {}), (graphc.zeros(0, 2), graphc.zeros(0, 2), {}),
    (graphc.tensor([float("nan")]), graphc.tensor([float("nan")]), {"equal_nan": True}),
    (graphc.tensor([float("inf")]), graphc.tensor([float("inf")]), {}),
    (graphc.ones(2), graphc.ones(2, dtype=graphc.float64), {"check_dtype": False}), (1, 1.05, {"rtol": 0.1, "atol": 0.0,
                                                                                             "check_dtype": False}),
    (graphc.ones(2).bfloat16(), graphc.ones(2).bfloat16() * 1.01, {}), (graphc.ones(2) * 1j, graphc.ones(2) * 1j, {}),
    (graphc.ones(2, requires_grad=True), graphc.ones(2), {}), (graphc.tensor(True), graphc.tensor(True), {}),
])  # fmt: skip
def test_what_is_close(actual: Any, expected: Any, options: dict[str, Any]) -> None:
    assert_close(actual, expected, **options)


@pytest.mark.parametrize(("actual", "expected", "options", "said"), [
    (graphc.tensor([1.0, 2.0, 3.0]), graphc.tensor([1.0, 2.5, 3.0]), {}, "1 of 3 elements .* 0.5 at 1, where 2 was to be 2.5"),
    (graphc.ones(2, 2), graphc.eye(2), {}, r"2 of 4 .* at \(0, 1\)"), (graphc.tensor(1), graphc.tensor(2), {}, "1 of 1"),
    (graphc.ones(2), graphc.ones(3), {}, r"the shapes differ: \[2\] and \[3\]"), (1.0, 1, {}, "the types differ"),
    (graphc.ones(2), graphc.ones(2).double(), {}, "the dtypes differ"), ([1], [1, 2], {}, "the lengths differ"),
    ({"a": 1}, {"b": 1}, {}, "the keys differ"), ({"a": [1, 2.0]}, {"a": [1, 2.1]}, {}, "item a: item 1: 2.0 is not close"),
    (graphc.tensor([float("nan")]), graphc.tensor([float("nan")]), {}, "1 of 1"), (float("nan"), float("nan"), {}, "nan"),
    (graphc.ones(2, 2).t(), graphc.ones(2, 2), {"check_stride": True}, "the strides differ"), (1, 2, {"msg": "mine"}, "mine"),
    (1, 2, {"msg": lambda said: f"here: {said}"}, "here: 1 is not close to 2"), (1.0, float("inf"), {}, "not close to inf"),
])  # fmt: skip
def test_what_is_said(actual: Any, expected: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        assert_close(actual, expected, **options)


def test_misuse() -> None:
    with pytest.raises(ValueError, match="given together"):
        assert_close(1, 1, rtol=0.1)
    with pytest.raises(TypeError, match="no comparing"):
        assert_close(graphc.ones(1), 1.0)
