"""Complex tensors: arithmetic, parts that share memory, gradients, and the same in compiled functions and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Tensor

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((3, 4)) + 1j * RNG.standard_normal((3, 4))
W = RNG.standard_normal((3, 4)) + 1j * RNG.standard_normal((3, 4))
X = RNG.standard_normal((3, 4))


def test_python_numbers_and_lists() -> None:
    assert graphc.tensor([1, 2j]).dtype is graphc.complex64 and graphc.tensor(1j).item() == 1j
    assert graphc.tensor([1.5], dtype=graphc.cdouble).tolist() == [1.5 + 0j]
    assert complex(graphc.tensor(2 - 1j)) == 2 - 1j and float(graphc.tensor(2 + 0j)) == 2.0
    with pytest.raises(RuntimeError, match="without overflow"):
        float(graphc.tensor(1j))
    with pytest.raises(TypeError, match="must be real number, not complex"):
        graphc.tensor([1j], dtype=graphc.float32)


@pytest.mark.parametrize("function, expected", [
    (lambda z, w: z + w, Z + W), (lambda z, w: z - 2j, Z - 2j), (lambda z, w: 1j * z, 1j * Z), (lambda z, w: z / w, Z / W),
    (lambda z, w: 1j / z, 1j / Z), (lambda z, w: z**w, Z**W), (lambda z, w: z**2, Z**2),
    (lambda z, w: (1 + 1j) ** z, (1 + 1j) ** Z),
    (lambda z, w: -z, -Z), (lambda z, w: abs(z), abs(Z)), (lambda z, w: z @ w.mH, Z @ W.conj().T),
    (lambda z, w: z.sum(0), Z.sum(0)), (lambda z, w: z.mean(), Z.mean()), (lambda z, w: z.prod(), Z.prod()),
    (lambda z, w: z == w, Z == W), (lambda z, w: z != z, Z != Z), (lambda z, w: z.angle(), np.angle(Z)),
    (lambda z, w: z.real, Z.real), (lambda z, w: z.imag, Z.imag), (lambda z, w: z.conj(), Z.conj()),
    (lambda z, w: z.sgn(), Z / abs(Z)), (lambda z, w: z.exp().log(), np.log(np.exp(Z))), (lambda z, w: z.sqrt(), np.sqrt(Z)),
    (lambda z, w: graphc.view_as_real(z), np.stack([Z.real, Z.imag], -1)), (lambda z, w: z.bool(), Z != 0),
    (lambda z, w: graphc.where(z.real > 0, z, w), np.where(Z.real > 0, Z, W)),
])  # fmt: skip
def test_values(function: Callable[..., Tensor], expected: np.ndarray) -> None:
    got = function(graphc.tensor(Z), graphc.tensor(W))
    assert got.numpy().dtype == expected.dtype
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)
    compiled = graphc.compile(function)(graphc.tensor(Z), graphc.tensor(W))
    np.testing.assert_allclose(compiled.numpy(), expected, rtol=1e-12)


def test_numbers_of_parts() -> None:
    x, y = graphc.tensor(X), graphc.tensor(X.T.copy().T)
    np.testing.assert_array_equal(graphc.complex(x, y).numpy(), X + 1j * X)
    np.testing.assert_allclose(graphc.polar(abs(x), y).numpy(), abs(X) * np.exp(1j * X))
    with pytest.raises(RuntimeError, match="Half, Float or Double"):
        graphc.complex(graphc.tensor([1]), graphc.tensor([1]))
    with pytest.raises(RuntimeError, match="Expected object of scalar type Float but got scalar type Double"):
        graphc.complex(x.float(), y)
    with pytest.raises(TypeError, match=r"'imag'.*must be Tensor, not float"):
        graphc.complex(x, 1.0)


@pytest.mark.parametrize("dtype", [graphc.complex64, graphc.complex128])
def test_parts_share_memory(dtype: graphc.DType) -> None:
    z = graphc.zeros(2, 3, dtype=dtype)
    z.real.fill_(3)
    z.imag = graphc.ones(2, 3)
    graphc.view_as_real(z)[0, 0, 1] = 5
    assert z.tolist() == [[3 + 5j, 3 + 1j, 3 + 1j], [3 + 1j] * 3]
    pairs = graphc.zeros(4, 2, dtype=dtype.to_real())
    graphc.view_as_complex(pairs)[1] = 1 - 2j
    assert pairs[1].tolist() == [1.0, -2.0]
    assert graphc.view_as_complex(graphc.view_as_real(z.t())).tolist() == z.t().tolist()


def test_views_of_odd_layouts_are_right() -> None:
    pairs = graphc.arange(24.0).reshape(2, 3, 4)[..., 1:3]  # not at multiples of a complex number
    expected = pairs.numpy()[..., 0] + 1j * pairs.numpy()[..., 1]
    np.testing.assert_array_equal(graphc.view_as_complex(pairs).numpy(), expected)
    assert graphc.view_as_real(graphc.zeros(0, 3, dtype=graphc.cfloat)).shape == (0, 3, 2)
    with pytest.raises(RuntimeError, match="last dimension of size 2"):
        graphc.view_as_complex(graphc.zeros(3, 3))
    with pytest.raises(RuntimeError, match="only supported for complex"):
        graphc.view_as_real(graphc.zeros(3))


def test_what_is_real_is_its_own_real_part_and_conjugate() -> None:
    x = graphc.tensor(X)
    assert x.real is x and x.conj() is x and not x.is_complex() and not graphc.is_complex(x)
    with pytest.raises(RuntimeError, match="imag is not implemented for tensors with non-complex dtypes"):
        _ = x.imag
    np.testing.assert_array_equal(graphc.angle(x).numpy(), np.angle(X))
    assert graphc.angle(graphc.tensor([1, -2])).tolist() == pytest.approx([0, np.pi])


@pytest.mark.parametrize("names, operands", [
    ("floor ceil trunc round sign erf relu amax max argmin", 1),
    ("lt ge maximum remainder fmod floor_divide bitwise_and", 2),
])
def test_what_complex_numbers_have_not(names: str, operands: int) -> None:
    for name in names.split():
        with pytest.raises(RuntimeError, match=r"not supported|not implemented"):
            getattr(graphc, name)(*[graphc.tensor(Z)] * operands)


def test_casts_to_real_dtypes_take_the_real_part_and_warn() -> None:
    z = graphc.tensor([1.7 + 2j, -3.5 - 1j])
    with pytest.warns(UserWarning, match="discards the imaginary part"):
        assert z.int().tolist() == [1, -3]
    x = graphc.zeros(2)
    x.copy_(z)
    assert x.tolist() == pytest.approx([1.7, -3.5])
    with pytest.raises(RuntimeError, match="can't be cast to the desired output type Float"):
        x.add_(1j)


# Gradients: those of pairs of real numbers, checked by differences of the real and of the imaginary part


def difference_quotients(function: Callable[..., Any], arrays: list[np.ndarray], weights: np.ndarray) -> list[np.ndarray]:
    """dL/dRe + i dL/dIm of L = Re sum(conj(weights) * function(...))."""

    def loss(changed: list[np.ndarray]) -> float:
        return float(np.real(np.sum(np.conj(weights) * function(*map(graphc.tensor, changed)).numpy())))

    found = []
    for k, array in enumerate(arrays):
        slope = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            for direction in (1, 1j) if array.dtype.kind == "c" else (1,):
                ends = []
                for step in (1e-6, -1e-6):
                    moved = array.copy()
                    moved[place] += step * direction
                    ends.append(loss([*arrays[:k], moved, *arrays[k + 1 :]]))
                slope[place] += direction * (ends[0] - ends[1]) / 2e-6
        found.append(slope)
    return found


@pytest.mark.parametrize("function, arrays", [
    (lambda z, w: z * w, [Z, W]), (lambda z, x: z * x, [Z, X]), (lambda x, z: x / z, [X, Z]), (lambda z, w: z**w, [Z, W]),
    (lambda x, z: (abs(x) + 1) ** z, [X, Z]), (lambda z: z**3, [Z]), (lambda z: z ** (1 + 1j), [Z]), (lambda z: 2.0**z, [Z]),
    (lambda x: x * 1j + (2 - 1j), [X]), (lambda z: abs(z), [Z]), (lambda z: z.sgn(), [Z]), (lambda z: z.angle(), [Z]),
    (lambda z: z.real * z.imag, [Z]), (lambda z: z.conj() * z.exp(), [Z]), (lambda z: z.tanh() + z.sin() * z.log(), [Z]),
    (lambda z: z.sqrt() + z.rsqrt(), [Z]), (lambda z: z.sigmoid(), [Z]), (lambda z, w: z @ w.mT, [Z, W]),
    (lambda x, y: graphc.complex(x, y) ** 2, [X, X + 1]), (lambda x, y: graphc.polar(x, y), [abs(X), X]),
    (lambda z: graphc.view_as_real(z)[..., 1] * 2, [Z]), (lambda x: graphc.view_as_complex(x.reshape(6, 2)) ** 2, [X]),
    (lambda z, x: graphc.where(z.real > 0, z, x), [Z, X]), (lambda x: x.to(graphc.complex128) * 1j, [X]),
    (lambda z: (z - z.mean(0)).sum(1), [Z]), (lambda z: graphc.cat([z, z.conj()]).cumsum(0), [Z]),
])  # fmt: skip
def test_gradients(function: Callable[..., Tensor], arrays: list[np.ndarray]) -> None:
    leaves = [graphc.tensor(a, requires_grad=True) for a in arrays]
    out = function(*leaves)
    weights = RNG.standard_normal(tuple(out.shape)) + (1j * RNG.standard_normal(tuple(out.shape)) if out.is_complex() else 0)
    found = graphc.autograd.grad(out, leaves, graphc.tensor(weights))
    for got, expected in zip(found, difference_quotients(function, arrays, weights), strict=True):
        assert got.numpy().dtype == expected.dtype
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6, atol=1e-6)
    compiled = graphc.compile(function)(*leaves)
    for got, again in zip(found, graphc.autograd.grad(compiled, leaves, graphc.tensor(weights)), strict=True):
        np.testing.assert_allclose(got.numpy(), again.numpy(), rtol=1e-9)


def test_second_derivatives() -> None:
    z = graphc.tensor(Z, requires_grad=True)
    (first,) = graphc.autograd.grad((z.exp() * z.conj()).real.sum(), z, create_graph=True)
    loss = (first * first.conj()).real.sum()
    (second,) = graphc.autograd.grad(loss, z)

    def slope(array: np.ndarray) -> float:
        x = graphc.tensor(array, requires_grad=True)
        (g,) = graphc.autograd.grad((x.exp() * x.conj()).real.sum(), x)
        return float((abs(g) ** 2).sum())

    direction = W / 1e6
    expected = (slope(Z + direction) - slope(Z - direction)) / 2e-6
    assert float((second.conj() * graphc.tensor(W)).real.sum()) == pytest.approx(expected, rel=1e-5)


def test_changes_of_a_part_in_place_are_differentiated() -> None:
    z = graphc.tensor(Z, requires_grad=True)
    y = z * 1
    y.real.mul_(3)
    (abs(y) ** 2).sum().backward()
    np.testing.assert_allclose(z.grad.numpy(), 18 * Z.real + 2j * Z.imag)


def test_a_complex_loss_needs_a_gradient() -> None:
    z = graphc.tensor([1 + 1j], requires_grad=True)
    with pytest.raises(RuntimeError, match="only for real scalar outputs"):
        (z * z).sum().backward()
    (z * z).sum().backward(graphc.tensor(1 + 0j))
    assert z.grad.tolist() == [2 - 2j]


# Compiled, traced, saved


def test_a_training_step_compiles() -> None:
    target = graphc.tensor(Z)
    weight = graphc.zeros(3, 4, dtype=graphc.complex128, requires_grad=True)
    optimizer = graphc.optim.SGD([weight], lr=0.2)

    @graphc.compile
    def step() -> Tensor:
        optimizer.zero_grad()
        loss = (abs(weight - target) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step().item() for _ in range(30)]
    assert losses[-1] < 1e-6 * losses[0]


def test_saved_programs_and_states_keep_complex_numbers(tmp_path: Path) -> None:
    factor = graphc.tensor([1j, 2, 3, -1 + 0.5j], dtype=graphc.complex128)
    program = graphc.export(lambda z: z * factor + (1 - 1j), (graphc.tensor(Z),))
    graphc.save(program, tmp_path / "model.gcz")
    loaded = graphc.load(tmp_path / "model.gcz")
    np.testing.assert_array_equal(loaded(graphc.tensor(Z)).numpy(), Z * factor.numpy() + (1 - 1j))
    graphc.save({"z": factor, "y": factor.to(graphc.complex64)}, tmp_path / "state.safetensors")
    state = graphc.load(tmp_path / "state.safetensors")
    assert state["z"].dtype is graphc.complex128 and state["y"].dtype is graphc.complex64
    assert state["z"].tolist() == factor.tolist()


def test_graphs_print_complex_numbers_and_read_them_back() -> None:
    graph = graphc.trace(lambda z: z * (2 - 0.5j), (graphc.tensor(Z),))
    assert "value = 2.0-0.5j" in str(graph)
    assert graphc.parse_ir(str(graph)) == graph


@pytest.mark.parametrize(
    "factor", [np.float64(2.0), np.float32(2.0), np.int64(2), np.array(2.0), np.complex64(2 + 1j)], ids=repr)
def test_gradients_beside_numbers_of_numpy(factor: Any) -> None:
    x = graphc.tensor([1.0, 3.0], dtype=graphc.complex64 if isinstance(factor, np.complex64) else None, requires_grad=True)
    (x * factor).sum().abs().backward()
    assert x.grad is not None
    np.testing.assert_allclose(np.abs(x.grad.numpy()), np.full(2, abs(factor)), rtol=1e-6)


@pytest.mark.parametrize("part", ["real", "imag"])
def test_gradients_of_parts_are_computed_within_a_compiled_function(part: str) -> None:
    def step(z: Any) -> Any:
        loss = getattr(z, part).exp().sum()
        loss.backward()
        return loss.detach()

    eager, compiled = (graphc.complex(graphc.ones(2), graphc.ones(2)).requires_grad_() for _ in range(2))
    assert step(eager).item() == pytest.approx(graphc.compile(step)(compiled).item())
    assert graphc.allclose(eager.grad, compiled.grad)
