"""Limits for gradients, parameters as vectors, fused normalisations, modules without initial values."""

from __future__ import annotations

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.nn import utils


def with_grads(*grads: list[float]) -> list[nn.Parameter]:
    parameters = []
    for grad in grads:
        parameters.append(nn.Parameter(graphc.zeros(len(grad))))
        parameters[-1].grad = graphc.tensor(grad)
    return parameters


@pytest.mark.parametrize("norm_type, total", [(2.0, 13.0), (1, 19.0), (float("inf"), 12.0)])
def test_norms_of_gradients_are_limited_together(norm_type: float, total: float) -> None:
    parameters = [*with_grads([3.0, -4.0], [12.0]), nn.Parameter(graphc.ones(1))]
    assert utils.clip_grad_norm_(parameters, 2 * total, norm_type).item() == pytest.approx(total)
    assert parameters[0].grad.tolist() == [3, -4]
    assert utils.clip_grad_norm_(iter(parameters), 1.0, norm_type).item() == pytest.approx(total)
    np.testing.assert_allclose(parameters[0].grad.numpy(), np.array([3, -4]) / total, rtol=1e-5)
    assert utils.get_total_norm([p.grad for p in parameters[:2]], norm_type).item() == pytest.approx(1, rel=1e-5)
    assert parameters[2].grad is None


def test_values_of_gradients_are_limited() -> None:
    (p,) = with_grads([3.0, -4.0, 0.5])
    utils.clip_grad_value_(p, 1)
    assert p.grad.tolist() == [1, -1, 0.5]
    (q,) = with_grads([float("inf")])
    with pytest.raises(RuntimeError, match="non-finite"):
        utils.clip_grad_norm_(q, 1.0, error_if_nonfinite=True)
    with pytest.warns(UserWarning, match="empty generator"):
        assert utils.clip_grad_norm_([], 1.0).item() == 0
    with pytest.warns(FutureWarning, match="deprecated"):
        utils.clip_grad_norm(p, 0.1)


def test_clipping_compiles() -> None:
    layer = nn.Linear(2, 1)
    optimizer = graphc.optim.SGD(layer.parameters(), 1.0)
    before = layer.weight.detach().clone()

    @graphc.compile
    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        layer(x).sum().backward()
        norm = utils.clip_grad_norm_(layer.parameters(), 0.5)
        optimizer.step()
        return norm

    assert step(graphc.tensor([[2.0, 2.0]])).item() == pytest.approx(3)
    np.testing.assert_allclose((before - layer.weight.detach()).numpy(), [[1 / 3, 1 / 3]], rtol=1e-5)


def test_parameters_as_a_vector() -> None:
    model = nn.Linear(2, 3)
    vector = utils.parameters_to_vector(model.parameters())
    assert vector.tolist() == [*model.weight.flatten().tolist(), *model.bias.tolist()]
    utils.vector_to_parameters(graphc.arange(9.0), model.parameters())
    assert model.weight.tolist() == [[0, 1], [2, 3], [4, 5]] and model.bias.tolist() == [6, 7, 8]
    with pytest.raises(TypeError, match="but got: list"):
        utils.vector_to_parameters([1.0], model.parameters())
    with pytest.raises(RuntimeError, match="shorter than the parameters"):
        utils.vector_to_parameters(graphc.ones(3), model.parameters())


def worn(norm: nn.Module) -> nn.Module:
    """A normalisation with statistics and weights that differ from channel to channel."""
    for tensor in (norm.running_mean, norm.weight, norm.bias):
        if tensor is not None:
            nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm.eval()


@pytest.mark.parametrize("make, norm, shape", [
    (lambda bias: nn.Conv2d(2, 4, 3, bias=bias), nn.BatchNorm2d(4), (2, 2, 5, 5)),
    (lambda bias: nn.Conv1d(2, 4, 3, groups=2, bias=bias), nn.BatchNorm1d(4, affine=False), (2, 2, 5)),
    (lambda bias: nn.ConvTranspose2d(2, 4, 3, bias=bias), nn.BatchNorm2d(4), (2, 2, 5, 5)),
    (lambda bias: nn.Linear(3, 4, bias=bias), nn.BatchNorm1d(4), (5, 3)),
])
@pytest.mark.parametrize("bias", [False, True])
def test_normalisations_fold_into_the_layer_before(make, norm: nn.Module, shape: tuple[int, ...], bias: bool) -> None:
    layer, x = make(bias).eval(), graphc.randn(*shape)
    worn(norm)
    if isinstance(layer, nn.Linear):
        fused = utils.fuse_linear_bn_eval(layer, norm)
    else:
        fused = utils.fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, nn.ConvTranspose2d))
    np.testing.assert_allclose(fused(x).detach().numpy(), norm(layer(x)).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert (layer.bias is None) is not bias and isinstance(fused.bias, nn.Parameter)
    with pytest.raises(RuntimeError, match="only for eval"):
        utils.fuse_conv_bn_eval(layer.train(), norm)


def test_modules_without_initial_values() -> None:
    graphc.manual_seed(3)
    wanted = graphc.rand(2).tolist()
    graphc.manual_seed(3)
    layer = utils.skip_init(nn.Linear, 2, 3, bias=False)
    assert tuple(layer.weight.shape) == (3, 2) and layer.bias is None and graphc.rand(2).tolist() == wanted
    with pytest.raises(RuntimeError, match="must support a 'device' arg"):
        utils.skip_init(nn.ReLU)
    with pytest.raises(TypeError, match="Expected a Module"):
        utils.skip_init(3)
