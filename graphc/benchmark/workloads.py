"""What `graphc bench` runs when it is not given a script: common functions, and the models in examples/models.

Each is written once, against PyTorch's interface, so that graphc and PyTorch run the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from graphc.errors import ArgumentError
from graphc.script import load

Made = tuple[Callable[..., Any], tuple[Any, ...]]
Make = Callable[[Any, int], Made]
"""A function and its arguments, for a module with PyTorch's interface and a size."""


@dataclass(frozen=True)
class Workload:
    """One computation."""

    name: str
    summary: str
    unit: str
    """What its size counts."""
    make: Make
    size: int
    """That of a single measurement."""
    sizes: tuple[int, ...]
    """Those that show how its time grows."""
    is_model: bool = False
    trains: bool = False


def find(name: str) -> Workload:
    """The workload of that name."""
    if name not in WORKLOADS:
        names = ", ".join((*GROUPS, *WORKLOADS))
        raise ArgumentError(f"there is no workload {name!r}", expected=f"a SCRIPT.py:FUNCTION, or one of {names}")
    return WORKLOADS[name]


def models_folder() -> Path | None:
    """Where the models are: beside this package, or in the current folder; they are no part of what is installed."""
    places = (Path(__file__).resolve().parents[2], Path.cwd())
    return next((place / "examples" / "models" for place in places if (place / "examples" / "models").is_dir()), None)


def _model(name: str) -> ModuleType:
    folder = models_folder()
    if folder is None:
        raise ArgumentError(f"the model {name} is not installed with graphc", expected="a clone of graphc's repository",
                            hint="run graphc bench there, or name a function of your own: graphc bench SCRIPT.py:FUNCTION")
    return load(str(folder / f"{name}.py"))


def _gelu(T: Any, n: int) -> Made:
    def gelu(x: Any) -> Any:
        return 0.5 * x * (1.0 + T.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))

    return gelu, (T.randn(n),)


def _softmax(T: Any, n: int) -> Made:
    return (lambda x: T.softmax(x, dim=-1)), (T.randn(n, 1024),)


def _layer_norm(T: Any, n: int) -> Made:
    return (lambda x, w, b: T.nn.functional.layer_norm(x, (1024,), w, b)), (T.randn(n, 1024), T.randn(1024), T.randn(1024))


def _sum(T: Any, n: int) -> Made:
    return (lambda x: (x.exp() * x).sum()), (T.randn(n),)


def _transpose(T: Any, n: int) -> Made:
    return (lambda x, y: (x.t() + y) * 2.0), (T.randn(n, n), T.randn(n, n))


def _linear(T: Any, n: int) -> Made:
    return (lambda x, w, b: T.relu(x @ w + b)), (T.randn(n, n), T.randn(n, n), T.randn(n))


def _overhead(T: Any, n: int) -> Made:
    def overhead(x: Any, w: Any) -> Any:
        for _ in range(10):
            x = T.tanh(x * w + 1.0)
        return x

    return overhead, (T.randn(n), T.randn(n))


def _attention(T: Any, n: int) -> Made:
    def attention(q: Any, k: Any, v: Any) -> Any:
        return T.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    return attention, tuple(T.randn(1, 8, n, 64) for _ in range(3))


def _convolution(T: Any, n: int) -> Made:
    def convolution(x: Any, w: Any, b: Any) -> Any:
        return T.relu(T.nn.functional.conv2d(x, w, b, padding=1))

    return convolution, (T.randn(n, 64, 56, 56), T.randn(64, 64, 3, 3) * 0.05, T.randn(64))


def _inference(T: Any, model: Any, *arguments: Any) -> Made:
    model.eval()

    def infer(*arguments: Any) -> Any:
        with T.no_grad():
            return model(*arguments)

    return infer, arguments


def _training(T: Any, model: Any, optimizer: Any, loss_of: Callable[[Any, Any], Any], x: Any, y: Any) -> Made:
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, (x, y)


def _perceptron_training(T: Any, n: int) -> Made:
    nn = T.nn
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    optimizer = T.optim.Adam(model.parameters(), lr=1e-3)
    return _training(T, model, optimizer, nn.functional.cross_entropy, T.randn(n, 784), T.randint(0, 10, (n,)))


def _resnet(T: Any, n: int) -> Made:
    return _inference(T, _model("resnet").resnet18(), T.randn(n, 3, 224, 224))


def _mobilenet(T: Any, n: int) -> Made:
    return _inference(T, _model("mobilenet").mobilenet_v2(), T.randn(n, 3, 224, 224))


def _vgg(T: Any, n: int) -> Made:
    return _inference(T, _model("vgg").vgg16(), T.randn(n, 3, 224, 224))


def _resnet_training(T: Any, n: int) -> Made:
    model = _model("resnet").resnet18(10)
    optimizer = T.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)  # at 1e-2 rounding alone changes the third loss by 0.2%
    images, classes = T.randn(n, 3, 112, 112), T.randint(0, 10, (n,))
    return _training(T, model, optimizer, T.nn.functional.cross_entropy, images, classes)


_VOCABULARY, _TOKENS = 512, 128


def _small_gpt() -> Any:
    gpt = _model("gpt")
    return gpt.GPT(gpt.GPTConfig(block_size=_TOKENS, vocab_size=_VOCABULARY, n_layer=6, n_head=6, n_embd=384))


def _tokens(T: Any, *shape: int) -> Any:
    return T.randint(0, _VOCABULARY, shape)


def _gpt(T: Any, n: int) -> Made:
    return _inference(T, _small_gpt(), _tokens(T, n, _TOKENS))


def _classes_of_tokens(T: Any) -> Callable[[Any, Any], Any]:
    return lambda logits, y: T.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))


def _gpt_training(T: Any, n: int) -> Made:
    model = _small_gpt()
    optimizer = T.optim.AdamW(model.parameters(), lr=3e-4)
    return _training(T, model, optimizer, _classes_of_tokens(T), _tokens(T, n, _TOKENS), _tokens(T, n, _TOKENS))


def _lstm_training(T: Any, n: int) -> Made:
    model = _model("lstm").CharLSTM(_VOCABULARY)
    optimizer = T.optim.Adam(model.parameters(), lr=1e-3)
    loss = _classes_of_tokens(T)
    tokens, following = _tokens(T, _TOKENS, n), _tokens(T, _TOKENS, n)
    return _training(T, model, optimizer, lambda result, y: loss(result[0], y), tokens, following)


def _powers(first: int, last: int, step: int = 1) -> tuple[int, ...]:
    return tuple(1 << exponent for exponent in range(first, last + 1, step))


_FUNCTIONS = (
    Workload("gelu", "GELU by tanh", "elements", _gelu, 1 << 22, _powers(10, 24, 2)),
    Workload("softmax", "softmax of rows of 1024", "rows", _softmax, 4096, _powers(0, 14, 2)),
    Workload("layer_norm", "layer norm of rows of 1024", "rows", _layer_norm, 4096, _powers(0, 14, 2)),
    Workload("sum", "the sum of exp(x) * x", "elements", _sum, 1 << 24, _powers(10, 24, 2)),
    Workload("transpose", "(x.t() + y) * 2 on squares", "rows", _transpose, 2048, _powers(5, 12)),
    Workload("linear", "relu(x @ w + b) on squares", "rows", _linear, 1024, _powers(5, 11)),
    Workload("attention", "causal attention, 8 heads of 64", "positions", _attention, 512, _powers(6, 11)),
    Workload("convolution", "3x3 convolution and relu, 64 channels of 56x56", "images", _convolution, 8, _powers(0, 5)),
    Workload("overhead", "thirty ops on few numbers", "elements", _overhead, 16, _powers(2, 10, 2)),
)
_BATCHES = _powers(0, 4)
_MODELS = (
    Workload("perceptron_training", "784-512-512-10, Adam", "images", _perceptron_training, 128, _powers(4, 10), True, True),
    Workload("resnet18", "ResNet-18, images of 224x224", "images", _resnet, 1, _BATCHES, True),
    Workload("resnet18_training", "ResNet-18, images of 112x112, SGD", "images", _resnet_training, 8, _BATCHES, True, True),
    Workload("mobilenet_v2", "MobileNetV2, images of 224x224", "images", _mobilenet, 1, _BATCHES, True),
    Workload("vgg16", "VGG-16, images of 224x224", "images", _vgg, 1, _BATCHES, True),
    Workload("gpt", "GPT of 6 layers of 384, 128 tokens", "sequences", _gpt, 1, _BATCHES, True),
    Workload("gpt_training", "the same, AdamW", "sequences", _gpt_training, 4, _BATCHES, True, True),
    Workload("lstm_training", "LSTM of 2 layers of 256, 128 characters, Adam", "sequences", _lstm_training, 16,
             _powers(2, 6), True, True),
)  # fmt: skip
WORKLOADS: Mapping[str, Workload] = {workload.name: workload for workload in (*_FUNCTIONS, *_MODELS)}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "functions": tuple(workload.name for workload in _FUNCTIONS),
    "models": tuple(workload.name for workload in _MODELS),
}
