"""Weights that are computed from others: parametrisations, their removal, and the ones that come with the library."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.nn.utils import parametrizations, parametrize


class Symmetric(nn.Module):
    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return x.triu() + x.triu(1).mT

    def right_inverse(self, x: graphc.Tensor) -> graphc.Tensor:
        return x.triu()


class Doubled(nn.Module):
    calls = 0

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        Doubled.calls += 1
        return x * 2

    def right_inverse(self, x: graphc.Tensor) -> graphc.Tensor:
        return x / 2


class Plain(nn.Module):
    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return x + 1


class Wrong(nn.Module):
    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return x[0]


def test_a_parametrised_weight_is_computed_and_trained() -> None:
    layer = nn.Linear(3, 3)
    original = layer.weight
    before = original.detach().clone()
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert layer.parametrizations.weight.original is original and list(layer.state_dict()) == [
        "bias", "parametrizations.weight.original"]
    np.testing.assert_array_equal(layer.weight.detach().numpy(), (before.triu() + before.triu(1).mT).numpy())
    layer(graphc.ones(1, 3)).sum().backward()
    assert original.grad.tolist() == [[1, 2, 2], [0, 1, 2], [0, 0, 1]]
    assert type(layer).__name__ == "ParametrizedLinear" and isinstance(layer, nn.Linear)
    assert repr(layer) == (
        "ParametrizedLinear(\n  in_features=3, out_features=3, bias=True\n  (parametrizations): ModuleDict(\n"
        "    (weight): ParametrizationList(\n      (0): Symmetric()\n    )\n  )\n)")


def test_several_parametrisations_follow_each_other_and_can_be_assigned_to() -> None:
    layer = nn.Linear(2, 2)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    parametrize.register_parametrization(layer, "weight", Doubled())
    target = graphc.tensor([[1.0, 4.0], [4.0, 2.0]])
    layer.weight = target
    assert layer.weight.tolist() == target.tolist()
    assert layer.parametrizations.weight.original.tolist() == [[0.5, 2.0], [0.0, 1.0]]
    with pytest.raises(KeyError, match="already exists"):
        layer.weight = nn.Parameter(target)
    parametrize.register_parametrization(layer, "bias", Plain())
    assert parametrize.is_parametrized(layer, "bias") and not parametrize.is_parametrized(layer, "other")
    with pytest.raises(RuntimeError, match="does not implement right_inverse"):
        layer.bias = graphc.ones(2)


@pytest.mark.parametrize("leave", [True, False])
def test_removal(leave: bool) -> None:
    layer = nn.Linear(2, 2)
    original, before = layer.weight, layer.weight.detach().clone()
    parametrize.register_parametrization(layer, "weight", Plain())
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=leave)
    assert type(layer) is nn.Linear and layer.weight is original and not parametrize.is_parametrized(layer)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), (before + 1 if leave else before).numpy())
    assert sorted(layer.state_dict()) == ["bias", "weight"]


def test_values_are_computed_once_while_they_are_cached() -> None:
    layer = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Doubled())
    Doubled.calls = 0
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert Doubled.calls == 1
    assert layer.weight is not layer.weight


def test_copies_are_independent_and_pickles_are_refused() -> None:
    layer = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Doubled())
    other = copy.deepcopy(layer)
    parametrize.remove_parametrizations(layer, "weight")
    assert parametrize.is_parametrized(other, "weight") and other.weight.tolist() == layer.weight.tolist()
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        pickle.dumps(other)
    fresh = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Doubled())
    fresh.load_state_dict(other.state_dict())
    assert fresh.weight.tolist() == other.weight.tolist()
    moved = parametrize.transfer_parametrizations_and_params(other, nn.Linear(2, 2))
    assert moved.weight.tolist() == other.weight.tolist()


def test_buffers_and_compiled_functions() -> None:
    module = nn.Module()
    module.register_buffer("scale", graphc.ones(2))
    parametrize.register_parametrization(module, "scale", Doubled())
    assert module.scale.tolist() == [1, 1] and [n for n, _ in module.named_buffers()] == ["parametrizations.scale.original"]
    layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    optimizer = graphc.optim.SGD(layer.parameters(), 0.01)

    @graphc.compile
    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = layer(x).pow(2).sum()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(graphc.ones(2, 3)).item() for _ in range(4)]
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(layer.weight.detach().numpy(), layer.weight.detach().numpy().T)


@pytest.mark.parametrize("call, message", [
    (lambda: parametrize.register_parametrization(nn.Linear(3, 3), "weight", Wrong()), "may not change the shape"),
    (lambda: parametrize.register_parametrization(nn.Linear(3, 3), "nothing", Plain()), "does not have a parameter"),
    (lambda: parametrize.remove_parametrizations(nn.Linear(3, 3), "weight"), "does not have a parametrization on weight"),
    (lambda: parametrizations.weight_norm(nn.ReLU()), "has no parameter"),
    (lambda: parametrizations.orthogonal(nn.Linear(3, 3), "bias"), "Expected a matrix"),
    (lambda: parametrizations.orthogonal(nn.Linear(3, 3), orthogonal_map="x"), "has to be one of"),
    (lambda: parametrizations.spectral_norm(nn.Linear(3, 3), n_power_iterations=0), "to be positive"),
])
def test_misuse(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_refused_parametrisation_leaves_the_weight_as_it_was() -> None:
    layer = nn.Linear(3, 3)
    before = layer.weight.tolist()
    with pytest.raises(ValueError, match="may not change the shape"):
        parametrize.register_parametrization(layer, "weight", Wrong())
    assert layer.weight.tolist() == before and type(layer) is nn.Linear
    assert tuple(parametrize.register_parametrization(layer, "weight", Wrong(), unsafe=True).weight.shape) == (3,)


# Size and direction


@pytest.mark.parametrize("dim", [0, 1, -1, None])
@pytest.mark.parametrize("older", [False, True])
def test_weight_norm(dim: int | None, older: bool) -> None:
    layer = nn.Conv1d(3, 4, 2)
    before = layer.weight.detach().clone()
    if older:
        with pytest.warns(FutureWarning, match="deprecated"):
            nn.utils.weight_norm(layer, dim=dim)
        g, v = layer.weight_g, layer.weight_v
        assert list(layer.state_dict()) == ["bias", "weight_g", "weight_v"] and repr(layer).startswith("Conv1d(")
    else:
        parametrizations.weight_norm(layer, dim=dim)
        g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    np.testing.assert_allclose(layer.weight.detach().numpy(), before.numpy(), rtol=1e-6)
    with graphc.no_grad():
        v.mul_(3)
        g.mul_(2)
    np.testing.assert_allclose(layer.weight.detach().numpy(), 2 * before.numpy(), rtol=1e-6)
    if dim is not None and dim >= 0:
        assert g.numel() == layer.weight.shape[dim]
    layer(graphc.ones(1, 3, 5)).sum().backward()
    assert g.grad is not None and v.grad is not None
    if older:
        nn.utils.remove_weight_norm(layer)
    else:
        parametrize.remove_parametrizations(layer, "weight")
    np.testing.assert_allclose(layer.weight.detach().numpy(), 2 * before.numpy(), rtol=1e-6)
    assert sorted(layer.state_dict()) == ["bias", "weight"] and type(layer) is nn.Conv1d


@pytest.mark.parametrize("older", [False, True])
def test_spectral_norm(older: bool) -> None:
    graphc.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 3, 2)
    before = layer.weight.detach().numpy().copy()
    (nn.utils if older else parametrizations).spectral_norm(layer)
    for _ in range(200):
        layer(graphc.ones(1, 4, 2, 2))
    layer.eval()
    first = np.linalg.svd(before.transpose(1, 0, 2, 3).reshape(3, -1), compute_uv=False)[0]
    np.testing.assert_allclose(layer.weight.detach().numpy(), before / first, rtol=1e-4)
    again = layer.weight.detach().numpy()
    np.testing.assert_array_equal(layer.weight.detach().numpy(), again)  # no iteration in eval mode
    names = ["bias", "weight_orig", "weight_u", "weight_v"] if older else [
        "bias", "parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v"]
    assert list(layer.state_dict()) == names
    if older:
        nn.utils.remove_spectral_norm(layer)
        assert sorted(layer.state_dict()) == ["bias", "weight"]
        with pytest.raises(ValueError, match="not found"):
            nn.utils.remove_spectral_norm(layer)
    else:
        one = parametrizations.spectral_norm(nn.Linear(3, 4), "bias")
        assert one.bias.norm().item() == pytest.approx(1, rel=1e-5)


# Orthogonal weights


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("trivial", [True, False])
def test_orthogonal(shape: tuple[int, int], kind: str, trivial: bool) -> None:
    layer = nn.Linear(shape[1], shape[0], dtype=graphc.float64)
    parametrizations.orthogonal(layer, orthogonal_map=kind, use_trivialization=trivial)
    optimizer = graphc.optim.SGD(layer.parameters(), 0.1)
    wide = shape[0] < shape[1]
    for _ in range(3):
        weight = layer.weight
        product = weight @ weight.mT if wide else weight.mT @ weight
        np.testing.assert_allclose(product.detach().numpy(), np.eye(min(shape)), atol=1e-10)
        optimizer.zero_grad()
        (weight * graphc.arange(weight.numel(), dtype=weight.dtype).view(shape)).sum().backward()
        assert layer.parametrizations.weight.original.grad.abs().sum().item() > 0
        optimizer.step()
    target = nn.init.orthogonal_(graphc.empty(shape, dtype=graphc.float64))
    if trivial or kind == "householder":
        layer.weight = target
        np.testing.assert_allclose(layer.weight.detach().numpy(), target.numpy(), atol=1e-10)
    else:
        with pytest.raises(NotImplementedError, match="not possible to assign"):
            layer.weight = target
