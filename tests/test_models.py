"""The models of examples/models: names, shapes and numbers of their parameters, and that they run, eager and compiled."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def models() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield importlib.import_module("models")
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture
def without_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large models at once: weights stay as they are allocated."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


def norm(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {
        **{f"{prefix}.{name}": (channels,) for name in ("weight", "bias", "running_mean", "running_var")},
        f"{prefix}.num_batches_tracked": (),
    }


def resnet_state(bottleneck: bool, layers: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of torchvision's residual networks, by the structure of the paper."""
    expansion = 4 if bottleneck else 1
    state: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    inside = 64
    for stage, (blocks, planes) in enumerate(zip(layers, (64, 128, 256, 512)), start=1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            if bottleneck:
                state[f"{at}.conv1.weight"] = (planes, inside, 1, 1)
                state |= norm(f"{at}.bn1", planes)
                state[f"{at}.conv2.weight"] = (planes, planes, 3, 3)
                state |= norm(f"{at}.bn2", planes)
                state[f"{at}.conv3.weight"] = (4 * planes, planes, 1, 1)
                state |= norm(f"{at}.bn3", 4 * planes)
            else:
                state[f"{at}.conv1.weight"] = (planes, inside, 3, 3)
                state |= norm(f"{at}.bn1", planes)
                state[f"{at}.conv2.weight"] = (planes, planes, 3, 3)
                state |= norm(f"{at}.bn2", planes)
            if block == 0 and (stage > 1 or bottleneck):
                state[f"{at}.downsample.0.weight"] = (expansion * planes, inside, 1, 1)
                state |= norm(f"{at}.downsample.1", expansion * planes)
            inside = expansion * planes
    return state | {"fc.weight": (1000, inside), "fc.bias": (1000,)}


def vgg16_state() -> dict[str, tuple[int, ...]]:
    places = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512, 24: 512, 26: 512, 28: 512}
    state: dict[str, tuple[int, ...]] = {}
    inside = 3
    for place, channels in places.items():
        state |= {f"features.{place}.weight": (channels, inside, 3, 3), f"features.{place}.bias": (channels,)}
        inside = channels
    for place, (outputs, inputs) in {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}.items():
        state |= {f"classifier.{place}.weight": (outputs, inputs), f"classifier.{place}.bias": (outputs,)}
    return state


def mobilenet_state() -> dict[str, tuple[int, ...]]:
    state: dict[str, tuple[int, ...]] = {"features.0.0.weight": (32, 3, 3, 3), **norm("features.0.1", 32)}
    # expansion and channels of the seventeen blocks
    blocks = [(1, 16)] + [(6, c) for c, n in ((24, 2), (32, 3), (64, 4), (96, 3), (160, 3), (320, 1)) for _ in range(n)]
    inside = 32
    for i, (expansion, channels) in enumerate(blocks, start=1):
        at, hidden, next_ = f"features.{i}.conv", inside * expansion, 0
        if expansion > 1:
            state |= {f"{at}.0.0.weight": (hidden, inside, 1, 1), **norm(f"{at}.0.1", hidden)}
            next_ = 1
        state |= {f"{at}.{next_}.0.weight": (hidden, 1, 3, 3), **norm(f"{at}.{next_}.1", hidden)}
        state |= {f"{at}.{next_ + 1}.weight": (channels, hidden, 1, 1), **norm(f"{at}.{next_ + 2}", channels)}
        inside = channels
    state |= {"features.18.0.weight": (1280, 320, 1, 1), **norm("features.18.1", 1280)}
    return state | {"classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}


def gpt_state(vocabulary: int, block: int, layers: int, width: int) -> dict[str, tuple[int, ...]]:
    state: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (vocabulary, width)}
    state["transformer.wpe.weight"] = (block, width)
    for i in range(layers):
        for name, shape in {
            "ln_1": (width,), "attn.c_attn": (3 * width, width), "attn.c_proj": (width, width), "ln_2": (width,),
            "mlp.c_fc": (4 * width, width), "mlp.c_proj": (width, 4 * width),
        }.items():  # fmt: skip
            state |= {f"transformer.h.{i}.{name}.weight": shape, f"transformer.h.{i}.{name}.bias": shape[:1]}
    last: dict[str, tuple[int, ...]] = {"transformer.ln_f.weight": (width,), "transformer.ln_f.bias": (width,)}
    return state | last | {"lm_head.weight": (vocabulary, width)}


def lstm_state(tokens: int, inputs: int, hidden: int, layers: int) -> dict[str, tuple[int, ...]]:
    state: dict[str, tuple[int, ...]] = {"encoder.weight": (tokens, inputs)}
    for i in range(layers):
        state |= {
            f"rnn.weight_ih_l{i}": (4 * hidden, hidden if i else inputs), f"rnn.weight_hh_l{i}": (4 * hidden, hidden),
            f"rnn.bias_ih_l{i}": (4 * hidden,), f"rnn.bias_hh_l{i}": (4 * hidden,),
        }  # fmt: skip
    return state | {"decoder.weight": (tokens, hidden), "decoder.bias": (tokens,)}


@pytest.mark.usefixtures("without_numbers")
@pytest.mark.parametrize("make, state, parameters", [
    (lambda m: m.resnet18(), resnet_state(False, (2, 2, 2, 2)), 11_689_512),
    (lambda m: m.resnet34(), resnet_state(False, (3, 4, 6, 3)), 21_797_672),
    (lambda m: m.resnet50(), resnet_state(True, (3, 4, 6, 3)), 25_557_032),
    (lambda m: m.vgg16(), vgg16_state(), 138_357_544),
    (lambda m: m.mobilenet_v2(), mobilenet_state(), 3_504_872),
    (lambda m: m.GPT(m.GPTConfig()), gpt_state(50257, 1024, 12, 768), 124_439_808),
    (lambda m: m.CharLSTM(100), lstm_state(100, 64, 256, 2), None),
], ids=["resnet18", "resnet34", "resnet50", "vgg16", "mobilenet_v2", "gpt", "lstm"])  # fmt: skip
def test_names_and_shapes(models: ModuleType, make: Any, state: dict[str, tuple[int, ...]], parameters: int | None) -> None:
    model = make(models)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == state
    if parameters is not None:
        assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("make", [
    lambda m: m.ResNet(m.resnet.BasicBlock, (1, 1, 1, 1), 7), lambda m: m.ResNet(m.resnet.Bottleneck, (1, 1, 1, 1), 7),
    lambda m: m.mobilenet_v2(7, width_mult=0.25),
], ids=["basic", "bottleneck", "mobilenet"])  # fmt: skip
def test_pictures(models: ModuleType, make: Any) -> None:
    graphc.manual_seed(0)
    model = make(models)
    x = graphc.randn(2, 3, 33, 40)
    loss = nn.functional.cross_entropy(model(x), graphc.tensor([0, 6]))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    with graphc.no_grad():
        eager = model(x)
        np.testing.assert_allclose(graphc.compile(model)(x), eager, rtol=1e-3, atol=1e-3)
    assert eager.shape == (2, 7)


@pytest.mark.usefixtures("without_numbers")
def test_vgg_takes_any_size(models: ModuleType) -> None:
    model = models.vgg16(num_classes=3).eval()
    for parameter in model.parameters():
        parameter.data = graphc.zeros(1).expand(parameter.shape)
    with graphc.no_grad():
        assert model(graphc.ones(1, 3, 40, 32)).tolist() == [[0, 0, 0]]


def test_language_models_learn_a_sentence(models: ModuleType) -> None:
    text = "the quick brown fox jumps over the lazy dog "
    letters = sorted(set(text))
    tokens = graphc.tensor([letters.index(c) for c in text])
    graphc.manual_seed(0)
    gpt = models.GPT(models.GPTConfig(block_size=44, vocab_size=len(letters), n_layer=2, n_head=2, n_embd=32))
    lstm = models.CharLSTM(len(letters), 32, 64, 1)
    for model, logits in ((gpt, lambda x: gpt(x.unsqueeze(0))[0]), (lstm, lambda x: lstm(x.unsqueeze(1))[0][:, 0])):
        optimizer = graphc.optim.Adam(model.parameters(), lr=1e-2)

        def step(x: graphc.Tensor, y: graphc.Tensor, optimizer: Any = optimizer, logits: Any = logits) -> graphc.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(logits(x), y)
            loss.backward()
            optimizer.step()
            return loss

        compiled = graphc.compile(step)
        losses = [compiled(tokens[:-1], tokens[1:]).item() for _ in range(40)]
        assert losses[0] > 2.5 and losses[-1] < 0.5
    start = graphc.tensor([[letters.index("q")]])
    said = "".join(letters[i] for i in gpt.generate(start, 12, temperature=0.1, top_k=3)[0].tolist())
    assert said[0] == "q" and len(said) == 13


def test_the_future_does_not_change_the_past(models: ModuleType) -> None:
    graphc.manual_seed(0)
    gpt = models.GPT(models.GPTConfig(block_size=8, vocab_size=11, n_layer=2, n_head=2, n_embd=16)).eval()
    x = graphc.randint(0, 11, (2, 8))
    y = x.clone()
    y[:, 5:] = (y[:, 5:] + 1) % 11
    np.testing.assert_allclose(gpt(x)[:, :5].detach(), gpt(y)[:, :5].detach(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="longer than the block size"):
        gpt(graphc.zeros(1, 9, dtype=graphc.int64))


def test_the_state_carries_on(models: ModuleType) -> None:
    graphc.manual_seed(0)
    lstm = models.CharLSTM(11, 8, 16, 2, tie_weights=False).eval()
    x = graphc.randint(0, 11, (6, 3))
    whole, _ = lstm(x, lstm.init_hidden(3))
    first, state = lstm(x[:4])
    second, _ = lstm(x[4:], state)
    np.testing.assert_allclose(graphc.cat((first, second)).detach(), whole.detach(), rtol=1e-5, atol=1e-6)
    assert models.CharLSTM(11, 8, 8, tie_weights=True).state_dict().keys() == lstm.state_dict().keys()
    with pytest.raises(ValueError, match="tied weights"):
        models.CharLSTM(11, 8, 16, tie_weights=True)
