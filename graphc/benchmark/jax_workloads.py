"""The built-in workloads as users of JAX write them, compiled with `jax.jit`.

Each is made of the very numbers that the others have: inputs, which are called `inputs[0]` and so on, and parameters, which are
called as the model's are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Params = dict[str, Any]
Call = Callable[[], Any]


def make(name: str, tensors: Mapping[str, Any]) -> Call:
    """The call that does the work of a workload; KeyError if there is none for JAX."""
    build = _WORKLOADS[name]
    inputs = [jnp.asarray(value) for key, value in tensors.items() if key.startswith("inputs[")]
    model = "function.model."
    params = {key.removeprefix(model): jnp.asarray(value) for key, value in tensors.items() if key.startswith(model)}
    return build(params, *inputs)


def is_there(name: str) -> bool:
    return name in _WORKLOADS


def _call(function: Callable[..., Any], *arguments: Any) -> Call:
    jitted = jax.jit(function)
    return lambda: jitted(*arguments)


def _plain(function: Callable[..., Any]) -> Callable[..., Call]:
    return lambda params, *inputs: _call(function, *inputs)


def _infer(forward: Callable[[Params, Any], Any]) -> Callable[..., Call]:
    return lambda params, x: _call(forward, params, x)


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1.0 + jnp.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def _layer_norm(x: Any, w: Any, b: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-5) * w + b


def _overhead(x: Any, w: Any) -> Any:
    for _ in range(10):
        x = jnp.tanh(x * w + 1.0)
    return x


def _attention(q: Any, k: Any, v: Any) -> Any:
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) / math.sqrt(q.shape[-1])
    seen = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1), v)


def _convolve(x: Any, w: Any, stride: int = 1, groups: int = 1) -> Any:
    edge = (w.shape[-1] - 1) // 2
    return lax.conv_general_dilated(x, w, (stride, stride), [(edge, edge)] * 2, feature_group_count=groups)


def _convolution(x: Any, w: Any, b: Any) -> Any:
    return jax.nn.relu(_convolve(x, w) + b[:, None, None])


def _batch_norm(p: Params, name: str, x: Any) -> Any:
    scale = p[f"{name}.weight"] * lax.rsqrt(p[f"{name}.running_var"] + 1e-5)
    shift = p[f"{name}.bias"] - p[f"{name}.running_mean"] * scale
    return x * scale[:, None, None] + shift[:, None, None]


def _pool(x: Any, size: int, stride: int, edge: int) -> Any:
    edges = [(0, 0), (0, 0), (edge, edge), (edge, edge)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, size, size), (1, 1, stride, stride), edges)


def _dense(p: Params, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def _resnet18(p: Params, x: Any) -> Any:
    x = jax.nn.relu(_batch_norm(p, "bn1", _convolve(x, p["conv1.weight"], 2)))
    x = _pool(x, 3, 2, 1)
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            shortcut = x
            if f"{name}.downsample.0.weight" in p:
                shortcut = _convolve(x, p[f"{name}.downsample.0.weight"], stride)
                shortcut = _batch_norm(p, f"{name}.downsample.1", shortcut)
            x = jax.nn.relu(_batch_norm(p, f"{name}.bn1", _convolve(x, p[f"{name}.conv1.weight"], stride)))
            x = jax.nn.relu(_batch_norm(p, f"{name}.bn2", _convolve(x, p[f"{name}.conv2.weight"])) + shortcut)
    return _dense(p, "fc", x.mean((2, 3)))


def _mobilenet(p: Params, x: Any) -> Any:
    x = jnp.clip(_batch_norm(p, "features.0.1", _convolve(x, p["features.0.0.weight"], 2)), 0, 6)
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    number = 1
    for expansion, _, blocks, first_stride in stages:
        for block in range(blocks):
            name, stride, shortcut = f"features.{number}.conv", first_stride if block == 0 else 1, x
            part = 0
            if expansion > 1:
                x = jnp.clip(_batch_norm(p, f"{name}.0.1", _convolve(x, p[f"{name}.0.0.weight"])), 0, 6)
                part = 1
            x = _convolve(x, p[f"{name}.{part}.0.weight"], stride, groups=x.shape[1])
            x = jnp.clip(_batch_norm(p, f"{name}.{part}.1", x), 0, 6)
            x = _batch_norm(p, f"{name}.{part + 2}", _convolve(x, p[f"{name}.{part + 1}.weight"]))
            if stride == 1 and x.shape == shortcut.shape:
                x = x + shortcut
            number += 1
    x = jnp.clip(_batch_norm(p, f"features.{number}.1", _convolve(x, p[f"features.{number}.0.weight"])), 0, 6)
    return _dense(p, "classifier.1", x.mean((2, 3)))


def _vgg16(p: Params, x: Any) -> Any:
    layer = 0
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            x = jax.nn.relu(_convolve(x, p[f"features.{layer}.weight"]) + p[f"features.{layer}.bias"][:, None, None])
            layer += 2
        x = _pool(x, 2, 2, 0)
        layer += 1
    x = x.reshape(x.shape[0], -1)
    for number in (0, 3):
        x = jax.nn.relu(_dense(p, f"classifier.{number}", x))
    return _dense(p, "classifier.6", x)


def _gpt(p: Params, tokens: Any) -> Any:
    batch, time = tokens.shape
    heads = 6
    x = p["transformer.wte.weight"][tokens] + p["transformer.wpe.weight"][:time]
    for layer in range(6):
        name = f"transformer.h.{layer}"
        h = _layer_norm(x, p[f"{name}.ln_1.weight"], p[f"{name}.ln_1.bias"])
        parts = jnp.split(_dense(p, f"{name}.attn.c_attn", h), 3, axis=-1)
        q, k, v = (part.reshape(batch, time, heads, -1).transpose(0, 2, 1, 3) for part in parts)
        h = _attention(q, k, v).transpose(0, 2, 1, 3).reshape(batch, time, -1)
        x = x + _dense(p, f"{name}.attn.c_proj", h)
        h = _dense(p, f"{name}.mlp.c_fc", _layer_norm(x, p[f"{name}.ln_2.weight"], p[f"{name}.ln_2.bias"]))
        x = x + _dense(p, f"{name}.mlp.c_proj", jax.nn.gelu(h, approximate=False))
    x = _layer_norm(x, p["transformer.ln_f.weight"], p["transformer.ln_f.bias"])
    return x @ p["transformer.wte.weight"].T


def _perceptron(p: Params, x: Any) -> Any:
    for layer in (0, 2):
        x = jax.nn.relu(_dense(p, str(layer), x))
    return _dense(p, "4", x)


def _training(forward: Callable[[Params, Any], Any], lr: float, decay: float) -> Callable[..., Call]:
    """Steps of AdamW (Loshchilov, Hutter 2019), which is Adam without decay. A step writes over what the one before left."""

    def loss_of(p: Params, x: Any, y: Any) -> Any:
        logits = forward(p, x)
        logs = jax.nn.log_softmax(logits.reshape(-1, logits.shape[-1]))
        return -jnp.take_along_axis(logs, y.reshape(-1, 1), 1).mean()

    def step(p: Params, first: Params, second: Params, count: Any, x: Any, y: Any) -> Any:
        loss, slopes = jax.value_and_grad(loss_of)(p, x, y)
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slopes)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slopes)
        size = lr / (1 - 0.9**count)

        def updated(w: Any, m: Any, v: Any) -> Any:
            return w * (1 - lr * decay) - size * m / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)

        return loss, (jax.tree.map(updated, p, first, second), first, second, count)

    def build(params: Params, x: Any, y: Any) -> Call:
        jitted = jax.jit(step, donate_argnums=(0, 1, 2, 3))
        state = (params, *(jax.tree.map(jnp.zeros_like, params) for _ in range(2)), jnp.float32(0))

        def call() -> Any:
            nonlocal state
            loss, state = jitted(*state, x, y)
            return loss

        return call

    return build


_WORKLOADS: Mapping[str, Callable[..., Call]] = {
    "gelu": _plain(_gelu),
    "softmax": _plain(lambda x: jax.nn.softmax(x, -1)),
    "layer_norm": _plain(_layer_norm),
    "sum": _plain(lambda x: (jnp.exp(x) * x).sum()),
    "transpose": _plain(lambda x, y: (x.T + y) * 2.0),
    "linear": _plain(lambda x, w, b: jax.nn.relu(x @ w + b)),
    "attention": _plain(_attention),
    "convolution": _plain(_convolution),
    "overhead": _plain(_overhead),
    "perceptron_training": _training(_perceptron, 1e-3, 0.0),
    "resnet18": _infer(_resnet18),
    "mobilenet_v2": _infer(_mobilenet),
    "vgg16": _infer(_vgg16),
    "gpt": _infer(_gpt),
    "gpt_training": _training(_gpt, 3e-4, 1e-2),
}
