"""Initial values: their distributions, bounds and structure."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc
from graphc.nn import init


@pytest.fixture(autouse=True)
def seed() -> None:
    graphc.manual_seed(0)


@pytest.mark.parametrize("fill, deviation, bound", [
    (lambda t: init.xavier_uniform_(t, gain=2.0), 2 * math.sqrt(2 / 500), 2 * math.sqrt(6 / 500)),
    (lambda t: init.xavier_normal_(t), math.sqrt(2 / 500), None),
    (lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(2 / 300), math.sqrt(6 / 300)),
    (lambda t: init.kaiming_normal_(t, a=1.0, mode="fan_out"), math.sqrt(1 / 200), None),
    (lambda t: init.uniform_(t, -1, 3), 4 / math.sqrt(12), None),
    (lambda t: init.normal_(t, 5.0, 0.1), 0.1, None),
])
def test_deviations(fill, deviation: float, bound: float | None) -> None:
    t = graphc.empty(200, 300)
    assert fill(t) is t and not t.requires_grad
    assert t.std().item() == pytest.approx(deviation, rel=0.02)
    if bound is not None:
        assert abs(t).max().item() <= bound


def test_truncated_normal() -> None:
    t = init.trunc_normal_(graphc.empty(20_000), mean=0.5, std=2.0, a=-1.0, b=1.5)
    assert -1 <= t.min().item() < -0.99 and 1.49 < t.max().item() <= 1.5
    # the mean of a normal distribution that is cut off at both ends
    density = [math.exp(-((x - 0.5) / 2) ** 2 / 2) / math.sqrt(2 * math.pi) for x in (-1.0, 1.5)]
    mass = 0.5 * (math.erf(0.5 / math.sqrt(2)) - math.erf(-0.75 / math.sqrt(2)))
    assert t.mean().item() == pytest.approx(0.5 + 2 * (density[0] - density[1]) / mass, abs=0.02)
    with pytest.warns(UserWarning, match="more than 2 std"):
        init.trunc_normal_(t, mean=9.0)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3), (3, 2, 4)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    t = init.orthogonal_(graphc.empty(shape, dtype=graphc.float64), gain=2.0)
    matrix = t.numpy().reshape(shape[0], -1)
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-12)
    assert not np.allclose(init.orthogonal_(graphc.empty(shape, dtype=graphc.float64), gain=2.0).numpy(), t.numpy())


def test_structures() -> None:
    assert init.eye_(graphc.empty(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert init.constant_(graphc.empty(2), 7).tolist() == [7, 7]
    x = graphc.randn(1, 4, 5)
    passed = graphc.nn.functional.conv1d(x, init.dirac_(graphc.empty(4, 2, 3), groups=2), padding=1, groups=2)
    np.testing.assert_allclose(passed.numpy(), x.numpy())
    sparse = init.sparse_(graphc.empty(10, 4), 0.25, std=1.0)
    assert (sparse == 0).sum(0).tolist() == [3, 3, 3, 3]


def test_generators_decide() -> None:
    draws = [init.normal_(graphc.empty(3), generator=graphc.Generator().manual_seed(5)).tolist() for _ in range(2)]
    assert draws[0] == draws[1]


@pytest.mark.parametrize("name, gain", [("linear", 1), ("sigmoid", 1), ("tanh", 5 / 3), ("relu", 2**0.5), ("selu", 0.75)])
def test_gains(name: str, gain: float) -> None:
    assert init.calculate_gain(name) == pytest.approx(gain)
    assert init.calculate_gain("leaky_relu", 1.0) == pytest.approx(1)


@pytest.mark.parametrize("call, message", [
    (lambda: init.xavier_normal_(graphc.empty(3)), "fewer than 2 dimensions"),
    (lambda: init.kaiming_normal_(graphc.empty(3, 3), mode="x"), "not supported"),
    (lambda: init.calculate_gain("x"), "Unsupported nonlinearity"),
    (lambda: init.eye_(graphc.empty(3)), "2 dimensions"),
    (lambda: init.dirac_(graphc.empty(3, 3)), "3, 4, or 5"),
    (lambda: init.orthogonal_(graphc.empty(3)), "2 or more"),
    (lambda: init.sparse_(graphc.empty(3), 0.5), "2 dimensions"),
])
def test_misuse(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", [name for name in init.__all__ if f"{name}_" in init.__all__])
def test_names_of_old_fill_the_tensor_and_warn(name: str) -> None:
    shape = (2, 3, 3) if name == "dirac" else (2, 3)
    given = {"constant": (2.0,), "sparse": (0.5,)}.get(name, ())
    t = graphc.empty(shape)
    graphc.manual_seed(1)
    with pytest.warns(FutureWarning, match=f"nn.init.{name}_"):
        assert getattr(init, name)(t, *given) is t
    graphc.manual_seed(1)
    assert graphc.equal(t, getattr(init, f"{name}_")(graphc.empty(shape), *given))
