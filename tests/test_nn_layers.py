"""Activations, dropout, normalisation and lazy layers."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn

RNG = np.random.default_rng(4)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


# Activations


def test_rrelu_draws_slopes_in_training() -> None:
    graphc.manual_seed(0)
    x = graphc.full((2000,), -1.0, requires_grad=True)
    y = F.rrelu(x, 0.2, 0.6, training=True)
    slopes = -y.detach().numpy()
    assert 0.2 <= slopes.min() < 0.21 and 0.59 < slopes.max() < 0.6
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), slopes, rtol=1e-6)
    layer = nn.RReLU(0.2, 0.6).eval()
    np.testing.assert_allclose(layer(graphc.tensor([-1.0, 2.0])).numpy(), [-0.4, 2.0], rtol=1e-6)
    with pytest.raises(RuntimeError, match="Lower bound should be less than or equal"):
        F.rrelu(x, 1.0, 0.0)


def test_gumbel_softmax() -> None:
    graphc.manual_seed(0)
    logits = graphc.tensor(np.log([[0.1, 0.6, 0.3]])).expand(20000, 3).clone().requires_grad_()
    hard = F.gumbel_softmax(logits, tau=0.5, hard=True)
    assert (hard.detach().sum(1) - 1).abs().max().item() < 1e-6
    np.testing.assert_allclose(hard.detach().mean(0).numpy(), [0.1, 0.6, 0.3], atol=0.02)
    (hard * graphc.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert np.isfinite(logits.grad.numpy()).all() and logits.grad.any()
    soft = F.gumbel_softmax(logits, dim=0)
    np.testing.assert_allclose(soft.detach().sum(0).numpy(), 1)


@pytest.mark.parametrize(("in_place", "function"), [
    (lambda x: F.elu_(x), F.elu), (lambda x: F.celu_(x, 0.5), lambda x: F.celu(x, 0.5)), (lambda x: F.selu_(x), F.selu),
    (lambda x: F.leaky_relu_(x, 0.2), lambda x: F.leaky_relu(x, 0.2)), (lambda x: F.hardtanh_(x), F.hardtanh),
    (lambda x: F.threshold_(x, 0.1, 7), lambda x: F.threshold(x, 0.1, 7)), (lambda x: F.rrelu_(x), F.rrelu),
    (lambda x: nn.SiLU(inplace=True)(x), F.silu), (lambda x: nn.ReLU6(inplace=True)(x), F.relu6),
])  # fmt: skip
def test_in_place_forms(in_place: Any, function: Any) -> None:
    x = graphc.tensor(draw(20))
    expected = function(x).numpy()
    y = in_place(x)
    assert y.data_ptr() == x.data_ptr()
    np.testing.assert_array_equal(x.numpy(), expected)


@pytest.mark.parametrize("function", [F.elu, F.gelu, F.silu, F.softplus, F.hardshrink, F.logsigmoid, F.leaky_relu, F.mish])
def test_activations_of_integers_say_what_they_take(function: Any) -> None:
    with pytest.raises(NotImplementedError, match="not implemented for int64"):
        function(graphc.arange(3))


def test_methods_and_checks() -> None:
    x = graphc.tensor([-1.0, 0.2, 3.0])
    assert x.hardshrink(0.5).tolist() == [-1.0, 0.0, 3.0]
    np.testing.assert_allclose(x.prelu(graphc.tensor(0.5)).numpy(), [-0.5, 0.2, 3.0])
    for call, message in ((lambda: F.relu(x > 0), "Boolean inputs"), (lambda: F.celu(x, 0.0), "alpha cannot be 0"),
                          (lambda: F.glu(x), "Halving dimension must be even"),
                          (lambda: F.prelu(x, graphc.ones(1).double()), "Type promoting not supported")):
        with pytest.raises(RuntimeError, match=message):
            call()
    with pytest.raises(AssertionError, match="must be greater than"):
        nn.Hardtanh(2, 1)


# Dropout


def lowest(p: float) -> float:
    """Where alpha dropout puts what it takes away."""
    floor = 1.7580993408473766
    return floor * (p - 1) / math.sqrt((floor**2 * p + 1) * (1 - p))


@pytest.mark.parametrize("function", [F.alpha_dropout, F.feature_alpha_dropout])
def test_alpha_dropout_keeps_mean_and_variance(function: Any) -> None:
    graphc.manual_seed(0)
    x = graphc.randn(400, 300)
    y = function(x, 0.3, training=True)
    assert abs(y.mean().item()) < 0.02 and abs(y.std().item() - 1) < 0.02
    dropped = graphc.isclose(y, graphc.tensor(lowest(0.3)))
    assert abs(dropped.float().mean().item() - 0.3) < 0.01
    assert function(x, 0.3) is x


def test_feature_alpha_dropout_takes_whole_channels() -> None:
    graphc.manual_seed(0)
    y = nn.FeatureAlphaDropout(0.5)(graphc.randn(8, 40, 3, 3))
    low = graphc.isclose(y, graphc.tensor(lowest(0.5))).flatten(2)
    assert (low.all(2) == low.any(2)).all() and low.any() and not low.all()
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        F.feature_alpha_dropout(graphc.ones(3), 0.5, True)


def test_channel_dropout_of_inputs_without_a_batch() -> None:
    graphc.manual_seed(0)
    whole = F.dropout1d(graphc.ones(200, 6), 0.5)
    assert set(whole.sum(1).tolist()) == {0.0, 12.0}
    with pytest.warns(UserWarning, match="3D input is taken for"):
        rows = F.dropout2d(graphc.ones(20, 30, 6), 0.5)  # as PyTorch: (N, C, L)
    assert set(rows.sum(2).flatten().tolist()) == {0.0, 12.0}
    with pytest.raises(RuntimeError, match="Expected 2D or 3D input"):
        F.dropout1d(graphc.ones(3))
    with pytest.raises(RuntimeError, match="result type Float can't be cast"):
        F.dropout(graphc.arange(3))


# Normalisation


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_local_response_norm(size: int) -> None:
    x = draw(2, 5, 3, 2)
    expected = np.empty_like(x)
    for c in range(5):
        near = x[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1]
        expected[:, c] = x[:, c] / (2 + 0.5 * (near**2).sum(1) / size) ** 0.6
    got = nn.LocalResponseNorm(size, alpha=0.5, beta=0.6, k=2)(graphc.tensor(x))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="Expected 3D or higher"):
        F.local_response_norm(graphc.ones(2, 3), 2)


@pytest.mark.parametrize("dtype", [graphc.float16, graphc.bfloat16])
def test_norms_of_half_precision_are_computed_in_single(dtype: graphc.DType) -> None:
    x = graphc.tensor(draw(4, 6), dtype=graphc.float32).to(dtype)
    wide = x.float()
    weight, bias = graphc.tensor(draw(6)).float(), graphc.tensor(draw(6)).float()
    for function in (lambda x: F.layer_norm(x, (6,), weight, bias), lambda x: F.group_norm(x, 2, weight, bias),
                     lambda x: F.batch_norm(x, None, None, weight, bias, training=True), lambda x: F.rms_norm(x, (6,))):
        got = function(x)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.float().numpy(), function(wide).to(dtype).float().numpy())


@pytest.mark.parametrize(("call", "kind", "message"), [
    (lambda x: F.batch_norm(x, None, None), RuntimeError, "running_mean must be defined in evaluation mode"),
    (lambda x: F.batch_norm(x, graphc.ones(3), graphc.ones(4)), RuntimeError, "running_mean should contain 4 elements not 3"),
    (lambda x: F.batch_norm(x[:1], None, None, training=True), ValueError, "more than 1 value per channel"),
    (lambda x: F.group_norm(x, 3), RuntimeError, "divisible by num_groups"),
    (lambda x: F.group_norm(x[:1], 4), ValueError, "more than 1 value per channel"),
    (lambda x: F.layer_norm(x, (3,)), RuntimeError, r"expected input with shape \[\*, 3\]"),
    (lambda x: F.layer_norm(x, (4,), graphc.ones(3)), RuntimeError, "Expected weight to be of same shape"),
    (lambda x: F.layer_norm(x.long(), (4,)), NotImplementedError, "not implemented for int64"),
    (lambda x: nn.InstanceNorm1d(3, affine=True)(x[None]), ValueError, "to match num_features"),
])  # fmt: skip
def test_errors_of_norms(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(graphc.tensor(draw(5, 4)))


def test_empty_batches_are_normalised_to_themselves() -> None:
    running = graphc.zeros(3), graphc.ones(3)
    out = F.batch_norm(graphc.ones(0, 3), *running, training=True)
    assert out.shape == (0, 3) and running[0].tolist() == [0.0] * 3
    assert F.group_norm(graphc.ones(0, 4), 2).shape == (0, 4)


# Lazy layers

LAZY: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {
    "Linear": (lambda: nn.LazyLinear(3), (2, 5), (3, 5)),
    "Conv1d": (lambda: nn.LazyConv1d(4, 3, groups=2), (2, 6, 8), (4, 3, 3)),
    "Conv2d": (lambda: nn.LazyConv2d(4, (2, 3)), (6, 8, 8), (4, 6, 2, 3)),
    "Conv3d": (lambda: nn.LazyConv3d(4, 2, bias=False), (1, 2, 4, 4, 4), (4, 2, 2, 2, 2)),
    "ConvTranspose1d": (lambda: nn.LazyConvTranspose1d(4, 3), (2, 6, 8), (6, 4, 3)),
    "ConvTranspose2d": (lambda: nn.LazyConvTranspose2d(4, 3, 2, groups=2), (2, 6, 8, 8), (6, 2, 3, 3)),
    "ConvTranspose3d": (lambda: nn.LazyConvTranspose3d(4, 1), (2, 6, 2, 2, 2), (6, 4, 1, 1, 1)),
    "BatchNorm1d": (lambda: nn.LazyBatchNorm1d(), (4, 3), (3,)),
    "BatchNorm2d": (lambda: nn.LazyBatchNorm2d(momentum=0.5), (4, 3, 2, 2), (3,)),
    "BatchNorm3d": (lambda: nn.LazyBatchNorm3d(), (4, 3, 2, 2, 2), (3,)),
    "InstanceNorm1d": (lambda: nn.LazyInstanceNorm1d(), (3, 5), (3,)),
    "InstanceNorm2d": (lambda: nn.LazyInstanceNorm2d(), (4, 3, 2, 2), (3,)),
    "InstanceNorm3d": (lambda: nn.LazyInstanceNorm3d(), (4, 3, 2, 2, 2), (3,)),
}


@pytest.mark.parametrize("name", LAZY)
def test_lazy_layers_become_ordinary_ones(name: str) -> None:
    make, shape, weight = LAZY[name]
    layer = make()
    assert layer.has_uninitialized_params() and repr(layer.weight) == "<UninitializedParameter>"
    wanted = list(dict(layer.named_parameters()))
    layer.double()
    x = graphc.tensor(draw(*shape))
    out = layer(x)
    assert type(layer) is getattr(nn, name) and layer.weight.shape == weight and out.dtype == graphc.float64
    assert type(layer.weight) is nn.Parameter and list(dict(layer.named_parameters())) == wanted
    assert not layer._has_hooks()
    np.testing.assert_array_equal(copy.deepcopy(layer).eval()(x).detach().numpy(), layer.eval()(x).detach().numpy())


def test_an_uninitialized_parameter_says_what_to_do() -> None:
    layer = nn.LazyLinear(3)
    for use in (lambda: layer.weight + 1, lambda: layer.weight.numel(), lambda: layer.weight.sum()):
        with pytest.raises(ValueError, match="Attempted to use an uninitialized parameter"):
            use()
    with pytest.raises(RuntimeError, match="Can't access the shape of an uninitialized parameter"):
        layer.weight.shape  # noqa: B018
    assert repr(copy.deepcopy(layer).weight) == repr(pickle.loads(pickle.dumps(layer.weight))) == "<UninitializedParameter>"


def test_lazy_layers_take_their_state_and_that_of_ordinary_ones() -> None:
    model, trained = nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.LazyLinear(2)), nn.Sequential(
        nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    fresh = nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.LazyLinear(2))
    fresh.load_state_dict(model.state_dict())
    assert fresh[0].has_uninitialized_params()
    model.load_state_dict(trained.state_dict())
    x = graphc.randn(5, 4)
    np.testing.assert_array_equal(model(x).detach().numpy(), trained(x).detach().numpy())
    assert type(model[0]) is nn.Linear and model[0].in_features == 4


def test_lazy_layers_name_inputs_that_do_not_fit() -> None:
    with pytest.raises(RuntimeError, match=r"Expected 3D \(unbatched\) or 4D \(batched\) input to LazyConv2d"):
        nn.LazyConv2d(3, 2)(graphc.ones(4, 5))
    with pytest.raises(ValueError, match="in_channels must be divisible by groups"):
        nn.LazyConv2d(4, 2, groups=2)(graphc.ones(1, 3, 5, 5))


# How layers are printed

TEXTS = [
    (nn.ConvTranspose2d(2, 4, (3, 5), stride=3, padding=(1, 2), output_padding=(1, 0), groups=2, bias=False),
     "ConvTranspose2d(2, 4, kernel_size=(3, 5), stride=(3, 3), padding=(1, 2), output_padding=(1, 0), groups=2, bias=False)"),
    (nn.BatchNorm2d(3, affine=False),
     "BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=False, bias=False, track_running_stats=True)"),
    (nn.GroupNorm(1, 2), "GroupNorm(1, 2, eps=1e-05, affine=True, bias=True)"),
    (nn.LocalResponseNorm(2), "LocalResponseNorm(2, alpha=0.0001, beta=0.75, k=1.0)"),
    (nn.LazyConv2d(3, 2), "LazyConv2d(0, 3, kernel_size=(2, 2), stride=(1, 1))"),
    (nn.RReLU(inplace=True), "RReLU(lower=0.125, upper=0.3333333333333333, inplace=True)"),
    (nn.Hardswish(True), "Hardswish()"),
    (nn.MaxUnpool2d((2, 3), 1), "MaxUnpool2d(kernel_size=(2, 3), stride=(1, 1), padding=(0, 0))"),
    (nn.LPPool1d(2, 3), "LPPool1d(norm_type=2, kernel_size=3, stride=None, ceil_mode=False)"),
    (nn.FractionalMaxPool2d(2, 3), "FractionalMaxPool2d()"),
    (nn.Upsample(scale_factor=2), "Upsample(scale_factor=2.0, mode='nearest')"),
    (nn.UpsamplingBilinear2d(size=(3, 4)), "UpsamplingBilinear2d(size=(3, 4), mode='bilinear')"),
    (nn.ConstantPad1d(2, 3.5), "ConstantPad1d(padding=(2, 2), value=3.5)"),
    (nn.TripletMarginWithDistanceLoss(), "TripletMarginWithDistanceLoss(\n  (distance_function): PairwiseDistance()\n)"),
]


@pytest.mark.parametrize(("layer", "text"), TEXTS)
def test_layers_print_as_pytorchs_do(layer: nn.Module, text: str) -> None:
    assert repr(layer) == text


def test_hardtanh_and_its_names_of_old() -> None:
    with pytest.warns(FutureWarning, match="min_value"):
        layer = nn.Hardtanh(min_value=-3.0)
    assert repr(layer) == "Hardtanh(min_val=-3.0, max_val=1.0)"
    assert layer(graphc.tensor([-9.0, 0.5, 9.0])).tolist() == [-3.0, 0.5, 1.0]
    assert math.isnan(layer(graphc.tensor(math.nan)).item())


@pytest.mark.parametrize(("size", "total"), [(1, 0.1228), (2, 0.1186), (3, 0.1342), (4, 0.1291), (5, 0.1237), (11, 0.1)])
def test_cross_map_norm_is_pytorchs(size: int, total: float) -> None:
    x = graphc.tensor(np.sin(np.arange(2 * 6 * 4 * 5)).reshape(2, 6, 4, 5), dtype=graphc.float32)
    assert abs(nn.CrossMapLRN2d(size, 0.5, 0.75, 1.5)(x).sum().item() - total) < 1e-4  # PyTorch's
    with pytest.raises(ValueError, match="4D"):
        nn.CrossMapLRN2d(size)(x[0])


def test_batch_norms_become_synchronous_ones() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4, affine=False)),
                          nn.InstanceNorm2d(4)).eval()
    x = graphc.randn(3, 2, 5, 5)
    expected, state = model(x), model.state_dict()
    made = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert [type(m).__name__ for m in made.modules() if "Norm" in type(m).__name__] == [
        "SyncBatchNorm", "SyncBatchNorm", "InstanceNorm2d"]
    assert made.state_dict().keys() == state.keys() and graphc.equal(made(x), expected)
    with pytest.raises(ValueError, match="at least 2D"):
        nn.SyncBatchNorm(3)(graphc.ones(3))


def test_data_parallel_is_the_module_under_another_name() -> None:
    inner = nn.Linear(2, 1)
    model = nn.DataParallel(inner, device_ids=[0, 1])
    x = graphc.randn(3, 2)
    assert graphc.equal(model(x), inner(x)) and list(model.state_dict()) == ["module.weight", "module.bias"]


def test_older_names() -> None:
    with pytest.warns(FutureWarning, match="NLLLoss"):
        loss = nn.NLLLoss2d()
    scores = graphc.randn(2, 3, 4, 4).log_softmax(1)
    target = graphc.zeros(2, 4, 4, dtype=graphc.int64)
    assert graphc.equal(loss(scores, target), nn.NLLLoss()(scores, target))


@pytest.mark.parametrize(("name", "shape", "args"), [
    ("adaptive_max_pool1d", (2, 3, 7), (3,)), ("adaptive_max_pool2d", (2, 3, 7, 5), ((3, 2),)),
    ("adaptive_max_pool3d", (2, 3, 4, 7, 5), (2,)), ("fractional_max_pool2d", (2, 3, 7, 7), (2, (3, 3))),
    ("fractional_max_pool3d", (2, 3, 5, 5, 5), (2, 3)),
])  # fmt: skip
def test_pools_that_give_places_by_name(name: str, shape: tuple[int, ...], args: tuple[object, ...]) -> None:
    x = graphc.randn(*shape)
    out, places = getattr(nn.functional, f"{name}_with_indices")(x, *args)
    assert places.dtype is graphc.int64
    np.testing.assert_array_equal(x.flatten(2).gather(2, places.flatten(2)).view(out.shape), out)


def test_batch_norm_takes_states_without_the_number_of_batches() -> None:
    source, target = nn.Sequential(nn.BatchNorm1d(3)), nn.Sequential(nn.BatchNorm1d(3))
    source(graphc.randn(8, 3))
    old = {name: value for name, value in source.state_dict().items() if "tracked" not in name}
    target.load_state_dict(old)
    assert graphc.equal(target[0].running_mean, source[0].running_mean) and target[0].num_batches_tracked == 0
    new = source.state_dict()
    del new["0.num_batches_tracked"]  # its notes say that it should be there
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        target.load_state_dict(new)
