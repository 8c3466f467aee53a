"""Modules: registration, state, hooks, printing, and what the layers compute, against NumPy."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn
from graphc.frontend.nn.module import clock


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.scale = nn.Parameter(graphc.ones(1))
        self.register_buffer("seen", graphc.zeros(1))
        self.register_buffer("scratch", graphc.zeros(1), persistent=False)
        self.parts = nn.ModuleList([nn.Linear(8, 4), nn.Linear(4, 2)])

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        x = self.norm(self.conv(x)).flatten(1) * self.scale
        for part in self.parts:
            x = part(x)
        return x


NAMES = ["scale", "conv.weight", "conv.bias", "norm.weight", "norm.bias", "parts.0.weight", "parts.0.bias", "parts.1.weight",
         "parts.1.bias"]


def test_names_follow_the_nesting() -> None:
    net = Net()
    assert [n for n, _ in net.named_parameters()] == NAMES
    assert "scratch" not in net.state_dict() and "seen" in net.state_dict()
    assert [n for n, _ in net.named_modules()] == ["", "conv", "norm", "parts", "parts.0", "parts.1"]
    shared = nn.Sequential(net.conv, net.conv)
    assert len(list(shared.modules())) == 2 and len(list(shared.modules(remove_duplicate=False))) == 3
    assert net.get_parameter("parts.1.bias") is net.parts[1].bias and net.get_submodule("parts.0") is net.parts[0]
    assert net.get_buffer("norm.running_var") is net.norm.running_var


def test_attributes_of_each_kind_replace_each_other() -> None:
    net = nn.Module()
    net.x = nn.Parameter(graphc.ones(1))
    with pytest.raises(TypeError, match=r"cannot assign 'graphc\.FloatTensor' as parameter 'x'"):
        net.x = graphc.ones(1)
    net.x = nn.Identity()
    assert not list(net.parameters()) and list(dict(net.named_children())) == ["x"]
    net.x = nn.Buffer(graphc.ones(1))
    assert list(net.state_dict()) == ["x"] and not list(net.children())
    del net.x
    assert not hasattr(net, "x")
    net.plain = graphc.ones(1)
    net.register_parameter("later", None)
    assert net.later is None and not list(net.parameters())
    with pytest.raises(KeyError, match="already exists"):
        net.register_buffer("plain", graphc.ones(1))
    with pytest.raises(KeyError, match="contain"):
        net.add_module("a.b", nn.Identity())
    with pytest.raises(AttributeError, match=r"before Module\.__init__"):
        type("Bad", (nn.Module,), {"__init__": lambda self: setattr(self, "a", nn.Parameter())})()


def test_changes_of_attributes_are_counted() -> None:
    net = Net()
    for change in (lambda: setattr(net, "flag", 1), lambda: setattr(net.norm, "momentum", 0.2), lambda: net.eval(),
                   lambda: delattr(net, "flag"), lambda: net.parts.append(nn.Identity()), lambda: net.double()):
        before = clock.ticks
        change()
        assert clock.ticks > before
    before = net.norm._version
    net.norm.eps = 1e-3
    assert net.norm._version == before + 1


def test_state_dicts_copy_into_the_parameters() -> None:
    a, b = Net(), Net()
    weight = b.conv.weight
    a(graphc.randn(4, 1, 4, 4))
    result = b.load_state_dict(a.state_dict())
    assert repr(result) == "<All keys matched successfully>" and b.conv.weight is weight
    for name, value in a.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), b.state_dict()[name].numpy())
    a.state_dict()["scale"].fill_(5)
    assert a.scale.item() == 5 and a.scale.requires_grad
    c = nn.Linear(2, 1)
    given = OrderedDict(weight=graphc.ones(1, 2), bias=graphc.zeros(1))
    c.load_state_dict(given, assign=True)
    given["weight"].fill_(9)
    assert c.weight.tolist() == [[9, 9]] and isinstance(c.weight, nn.Parameter)


def test_states_that_do_not_fit_name_everything() -> None:
    net = nn.Linear(2, 1)
    message = (r"(?s)Error\(s\) in loading state_dict for Linear.*Missing.*\"bias\".*Unexpected.*\"x\"."
               r"*size mismatch for weight: .*\[3, 3\].*\[1, 2\]")
    with pytest.raises(RuntimeError, match=message):
        net.load_state_dict({"weight": graphc.ones(3, 3), "x": graphc.ones(1)})
    result = net.load_state_dict({"x": graphc.ones(1)}, strict=False)
    assert result.missing_keys == ["weight", "bias"] and result.unexpected_keys == ["x"]


def test_modules_convert_in_place() -> None:
    net = Net()
    weight = net.conv.weight
    net(graphc.randn(2, 1, 4, 4)).sum().backward()
    net.double()
    assert net.conv.weight is weight and weight.dtype is graphc.float64 and weight.grad.dtype is graphc.float64
    assert net.norm.running_mean.dtype is graphc.float64 and net.norm.num_batches_tracked.dtype is graphc.int64
    assert net(graphc.randn(2, 1, 4, 4, dtype=graphc.float64)).dtype is graphc.float64
    other = copy.deepcopy(net)
    other.scale.data.zero_()
    assert net.scale.item() == 1 and other.conv.weight is not net.conv.weight


def test_forward_hooks_run_in_order_and_may_replace() -> None:
    layer, order = nn.Identity(), []
    layer.register_forward_hook(lambda m, a, out: order.append("last"))
    layer.register_forward_hook(lambda m, a, out: order.append("first"), prepend=True)
    layer.register_forward_pre_hook(lambda m, a, k: ((a[0] + k.pop("by"),), k), with_kwargs=True)
    layer.register_forward_hook(lambda m, a, out: out * 2)
    assert layer(graphc.ones(1), by=2).item() == 6 and order == ["first", "last"]


def test_backward_hooks_see_gradients_of_inputs_and_outputs() -> None:
    layer, seen = nn.Linear(2, 2), []
    layer.register_full_backward_pre_hook(lambda m, gout: (gout[0] * 2,))
    layer.register_full_backward_hook(lambda m, gin, gout: seen.append((gin[0], gout[0])))
    x = graphc.randn(3, 2)
    layer(x).sum().backward()  # the input needs no gradient
    assert seen[0][0] is None and seen[0][1].tolist() == [[2, 2]] * 3
    x.requires_grad_()
    layer(x).sum().backward()
    np.testing.assert_allclose(seen[1][0].numpy(), x.grad.numpy())


def test_containers() -> None:
    seq = nn.Sequential(OrderedDict(a=nn.Linear(1, 2), b=nn.ReLU()))
    assert seq.a is seq[0] and seq[-1] is seq.b and len(seq[:1]) == 1
    seq.append(nn.Tanh())
    seq.insert(1, nn.Sigmoid())
    assert [type(m).__name__ for m in seq] == ["Linear", "Sigmoid", "ReLU", "Tanh"]
    assert isinstance(seq.pop(0), nn.Linear) and list(dict(seq.named_children())) == ["0", "1", "2"]
    with pytest.raises(IndexError):
        seq[3]
    layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(3))
    layers[0] = nn.ReLU()
    del layers[1]
    assert len(layers) == 2 and len(layers[1:]) == 1 and layers[-1] in layers
    table = nn.ModuleDict({"a": nn.ReLU()})
    table["b"] = nn.Linear(1, 1)
    assert list(table) == ["a", "b"] and "a" in table and isinstance(table.pop("a"), nn.ReLU)
    parameters = nn.ParameterList([graphc.ones(2), nn.Parameter(graphc.zeros(1))])
    assert all(isinstance(p, nn.Parameter) for p in parameters) and len(list(parameters.parameters())) == 2
    named = nn.ParameterDict({"x": graphc.ones(1)})
    assert named.get("y") is None and named["x"].requires_grad and list(dict(named.named_parameters())) == ["x"]


def test_modules_print_as_trees() -> None:
    assert repr(nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Tanh()])) == "ModuleList(\n  (0-1): 2 x ReLU()\n  (2): Tanh()\n)"
    assert repr(nn.Sequential()) == "Sequential()"
    assert repr(nn.Conv2d(2, 4, 3, padding="same", dilation=2, groups=2, bias=False, padding_mode="reflect")) == (
        "Conv2d(2, 4, kernel_size=(3, 3), stride=(1, 1), padding=same, dilation=(2, 2), groups=2, bias=False, "
        "padding_mode=reflect)")
    assert repr(nn.ParameterList([graphc.ones(2, 3)])) == (
        "ParameterList(  (0): Parameter containing: [graphc.float32 of size 2x3])")
    assert repr(nn.Embedding(3, 2, padding_idx=-1)) == "Embedding(3, 2, padding_idx=2)"
    assert repr(nn.LayerNorm(4)) == "LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)"


# Layers


def windows(x: np.ndarray, kernel: tuple[int, int], stride: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, kernel, (2, 3))[:, :, ::stride, ::stride]


@pytest.mark.parametrize("options", [
    {}, {"stride": 2}, {"padding": 1}, {"padding": "same"}, {"dilation": 2, "padding": 2}, {"groups": 2}, {"bias": False},
    {"padding": 1, "padding_mode": "circular"}, {"padding": "same", "padding_mode": "reflect"},
])
def test_convolution(options: dict) -> None:
    layer = nn.Conv2d(2, 4, 3, **options).double()
    x = graphc.randn(2, 2, 7, 6, dtype=graphc.float64)
    p = {"same": 1}.get(options.get("padding", 0), options.get("padding", 0))
    mode = {"circular": "wrap", "reflect": "reflect"}.get(options.get("padding_mode"), "constant")
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (p, p), (p, p)), mode=mode)
    d, groups = options.get("dilation", 1), options.get("groups", 1)
    seen = windows(padded, (2 * d + 1, 2 * d + 1), options.get("stride", 1))[..., ::d, ::d]
    w = layer.weight.detach().numpy().reshape(groups, 4 // groups, 2 // groups, 3, 3)
    seen = seen.reshape(2, groups, 2 // groups, *seen.shape[2:])
    expected = np.einsum("bgchwij,gocij->bgohw", seen, w).reshape(2, 4, *seen.shape[3:5])
    if layer.bias is not None:
        expected = expected + layer.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer(x[0]).detach().numpy(), expected[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer, x, message", [
    (nn.Conv2d(2, 1, 3), (1, 3, 5, 5), r"expected input\[1, 3, 5, 5\] to have 2 channels, but got 3"),
    (nn.Conv2d(2, 1, 3), (2, 5), "Expected 3D"), (nn.Conv1d(1, 1, 5), (1, 1, 4), "Kernel size"),
    (nn.Linear(3, 2), (4, 5), "cannot be multiplied"), (nn.MaxPool2d(2), (5, 5), "Expected 3D"),
    (nn.BatchNorm1d(3), (2, 3, 4, 4), "expected 2D or 3D"), (nn.BatchNorm2d(3), (1, 3, 1, 1), "more than 1 value per channel"),
    (nn.LayerNorm(3), (2, 4), "expected input with shape"), (nn.MaxPool2d(3, padding=2), (1, 1, 5, 5), "half of"),
    (nn.GroupNorm(2, 4), (2, 3), "divisible"),
])
def test_inputs_that_do_not_fit_are_named(layer: nn.Module, x: tuple[int, ...], message: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=message):
        layer(graphc.zeros(*x))


def test_maximum_pooling_sends_the_gradient_to_the_first_maximum() -> None:
    x = graphc.zeros(1, 1, 4, 4, requires_grad=True)  # all equal: ties everywhere
    y, index = F.max_pool2d(x, 2, return_indices=True)
    y.sum().backward()
    assert index.tolist() == [[[[0, 2], [8, 10]]]]
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(x.grad.numpy()[0, 0], expected)


@pytest.mark.parametrize(
    "kernel, stride, padding, ceil", [(2, 2, 0, False), (3, 2, 1, True), (3, 1, 1, False), (2, 3, 0, True)])
def test_pooling(kernel: int, stride: int, padding: int, ceil: bool) -> None:
    x = graphc.randn(2, 3, 8, 7, dtype=graphc.float64)
    big = np.pad(x.numpy(), ((0, 0), (0, 0), (padding, padding + stride), (padding, padding + stride)), constant_values=-np.inf)
    y = F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil)
    seen = windows(big, (kernel, kernel), stride)[:, :, : y.shape[2], : y.shape[3]]
    np.testing.assert_array_equal(y.numpy(), seen.max((-2, -1)))
    inside = np.where(np.isinf(seen), 0, seen)
    mean = F.avg_pool2d(x, kernel, stride, padding, ceil_mode=ceil, count_include_pad=False)
    np.testing.assert_allclose(mean.numpy(), inside.sum((-2, -1)) / np.isfinite(seen).sum((-2, -1)))


def test_batch_normalisation_in_training_and_evaluation() -> None:
    layer = nn.BatchNorm1d(3, momentum=0.3).double()
    x = graphc.randn(5, 3, 4, dtype=graphc.float64) * 2 + 1
    a = x.numpy()
    mean, var = a.mean((0, 2), keepdims=True), a.var((0, 2), keepdims=True)
    np.testing.assert_allclose(layer(x).detach().numpy(), (a - mean) / np.sqrt(var + 1e-5))
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.3 * mean.reshape(-1))
    np.testing.assert_allclose(layer.running_var.numpy(), 0.7 + 0.3 * a.var((0, 2), ddof=1))
    layer.eval()
    before = layer.running_mean.tolist()
    expected = (a - layer.running_mean.numpy()[:, None]) / np.sqrt(layer.running_var.numpy()[:, None] + 1e-5)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected)
    assert layer.running_mean.tolist() == before and layer.num_batches_tracked.item() == 1
    plain = nn.BatchNorm1d(3, track_running_stats=False, affine=False).eval()
    assert not list(plain.state_dict()) and abs(plain(x.float()).mean().item()) < 1e-6


def test_cumulative_momentum_is_the_mean_of_all_batches() -> None:
    layer = nn.BatchNorm1d(2, momentum=None)
    batches = [graphc.randn(6, 2) for _ in range(3)]
    for batch in batches:
        layer(batch)
    np.testing.assert_allclose(layer.running_mean.numpy(), np.mean([b.numpy().mean(0) for b in batches], 0), rtol=1e-5)


LOSSES = {
    "cross_entropy": lambda x, t: F.cross_entropy(x, t),
    "weighted": lambda x, t: F.cross_entropy(x, t, weight=graphc.tensor([1.0, 2.0, 0.5], dtype=graphc.float64)),
    "ignoring": lambda x, t: F.cross_entropy(x, t, ignore_index=2),
    "smooth": lambda x, t: F.cross_entropy(x, t, label_smoothing=0.2),
    "sum": lambda x, t: F.cross_entropy(x, t, reduction="sum"),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("extra", [(), (2,), (2, 3)])
def test_cross_entropy(name: str, extra: tuple[int, ...]) -> None:
    x = graphc.randn(4, 3, *extra, dtype=graphc.float64)
    t = graphc.arange(x.numel() // 3).reshape(4, *extra) % 3  # every class, so that the weights never sum to zero
    logits, target = np.moveaxis(x.numpy(), 1, -1).reshape(-1, 3), t.numpy().reshape(-1)
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    weight = np.array([1.0, 2.0, 0.5])[target] if name == "weighted" else np.ones(len(target))
    if name == "ignoring":
        weight = (target != 2) * 1.0
    losses = -logp[np.arange(len(target)), target]
    if name == "smooth":
        losses = 0.8 * losses - 0.2 * logp.mean(1)
    expected = (losses * weight).sum() / (1 if name == "sum" else weight.sum())
    np.testing.assert_allclose(LOSSES[name](x, t).item(), expected)


def test_targets_that_are_no_classes_are_named() -> None:
    with pytest.raises(IndexError, match="Target 3 is out of bounds"):
        F.cross_entropy(graphc.zeros(2, 3), graphc.tensor([0, 3]))
    with pytest.raises(ValueError, match="batch_size"):
        F.cross_entropy(graphc.zeros(2, 3), graphc.tensor([0]))
    with pytest.raises(RuntimeError, match="integers"):
        F.nll_loss(graphc.zeros(2, 3), graphc.zeros(2))


def test_losses_stay_finite_at_the_ends() -> None:
    x = graphc.tensor([0.0, 1.0], requires_grad=True)
    loss = F.binary_cross_entropy(x, graphc.tensor([1.0, 0.0]))
    assert loss.item() == 100
    z = graphc.tensor([-1e4, 0.0, 1e4], requires_grad=True)
    F.binary_cross_entropy_with_logits(z, graphc.tensor([1.0, 1.0, 0.0]), reduction="sum").backward()
    assert z.grad.tolist() == [-1, -0.5, 1]
    y = graphc.tensor([[1e4, 0.0]], requires_grad=True)
    F.cross_entropy(y, graphc.tensor([1])).backward()
    assert y.grad.tolist() == [[1, -1]]


def test_embeddings() -> None:
    layer = nn.Embedding(5, 3, padding_idx=1)
    assert layer.weight[1].tolist() == [0, 0, 0]
    layer(graphc.tensor([[0, 1], [4, 4]])).sum().backward()
    assert layer.weight.grad.sum(1).tolist() == [3, 0, 0, 0, 6]
    with pytest.raises(IndexError, match="out of range"):
        layer(graphc.tensor([5]))
    assert not nn.Embedding.from_pretrained(graphc.ones(2, 2)).weight.requires_grad
    assert F.one_hot(graphc.tensor([[0, 2]])).tolist() == [[[1, 0, 0], [0, 0, 1]]]


def test_initial_values_have_their_spread() -> None:
    graphc.manual_seed(0)
    w = graphc.empty(200, 300)
    assert abs(nn.init.kaiming_uniform_(w, nonlinearity="relu").std().item() - (2 / 300) ** 0.5) < 2e-3
    assert abs(nn.init.xavier_normal_(w).std().item() - (2 / 500) ** 0.5) < 2e-3
    assert nn.init.trunc_normal_(w, std=2.0, a=-1.0, b=0.5).max().item() <= 0.5 and w.min().item() >= -1
    assert nn.init.eye_(graphc.empty(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]
    p = nn.Parameter(graphc.empty(3))
    assert nn.init.constant_(p, 2.0) is p and p.is_leaf and p.requires_grad
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        nn.init.xavier_uniform_(graphc.empty(3))


@pytest.mark.parametrize("name", [
    "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "leaky_relu", "relu6", "hardtanh", "hardswish",
    "hardsigmoid", "logsigmoid", "tanhshrink", "hardshrink", "softshrink"])
def test_activations_are_finite_far_out_and_in_place_where_asked(name: str) -> None:
    x = graphc.tensor([-1e4, -3.0, -0.5, 0.0, 0.5, 3.0, 1e4], requires_grad=True)
    y = getattr(F, name)(x)
    y.sum().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()
    if name in ("elu", "selu", "celu", "silu", "mish", "leaky_relu", "relu6", "hardtanh", "hardswish", "hardsigmoid"):
        z = x.detach().clone()
        assert getattr(F, name)(z, inplace=True) is z and z.tolist() == y.tolist()


def test_normalisation_without_a_batch() -> None:
    x = graphc.randn(2, 4, 3, 5, dtype=graphc.float64)
    a = x.numpy()

    def normal(v: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
        return (v - v.mean(axes, keepdims=True)) / np.sqrt(v.var(axes, keepdims=True) + 1e-5)

    np.testing.assert_allclose(nn.InstanceNorm2d(4)(x).numpy(), normal(a, (2, 3)))
    np.testing.assert_allclose(nn.InstanceNorm2d(4)(x[0]).numpy(), normal(a, (2, 3))[0])
    np.testing.assert_allclose(F.group_norm(x, 2).numpy(), normal(a.reshape(2, 2, -1), (2,)).reshape(a.shape))
    np.testing.assert_allclose(F.layer_norm(x, (3, 5)).numpy(), normal(a, (2, 3)))
    np.testing.assert_allclose(F.rms_norm(x, (5,), eps=1e-3).numpy(), a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-3))
    tracked = nn.InstanceNorm1d(4, track_running_stats=True).double()
    tracked(x[:, :, 0])
    np.testing.assert_allclose(tracked.running_mean.numpy(), 0.1 * a[:, :, 0].mean((0, 2)))


def test_channel_dropout_zeroes_channels_together() -> None:
    graphc.manual_seed(0)
    y = nn.Dropout2d(0.5)(graphc.ones(8, 16, 3, 3)).reshape(128, 9)
    assert set(y.sum(1).tolist()) == {0.0, 18.0}
    with pytest.warns(UserWarning, match="2-D input to dropout2d, which is deprecated"):
        F.dropout2d(graphc.ones(2, 2))
