"""Attention and transformers, against NumPy and against what masks must mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn

Array = np.ndarray


def draw(*shape: int) -> graphc.Tensor:
    return graphc.randn(*shape, dtype=graphc.float64)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q: Array, k: Array, v: Array, bias: Array | float = 0.0, scale: float | None = None) -> Array:
    scores = q @ k.swapaxes(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    return softmax(scores + bias) @ v


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_weighted_means(batch: tuple[int, ...], scale: float | None) -> None:
    q, k, v = draw(*batch, 4, 5), draw(*batch, 6, 5), draw(*batch, 6, 7)
    mask = draw(4, 6)
    got = F.scaled_dot_product_attention(q, k, v, mask, scale=scale)
    np.testing.assert_allclose(got.numpy(), attention(*(x.numpy() for x in (q, k, v)), mask.numpy(), scale), rtol=1e-10)


def test_boolean_masks_say_who_takes_part() -> None:
    q, k, v = draw(2, 4, 5), draw(2, 6, 5), draw(2, 6, 3)
    mask = graphc.tensor(np.random.default_rng(0).random((4, 6)) < 0.6)
    got = F.scaled_dot_product_attention(q, k, v, mask)
    bias = np.where(mask.numpy(), 0.0, -np.inf)
    np.testing.assert_allclose(got.numpy(), attention(q.numpy(), k.numpy(), v.numpy(), bias), rtol=1e-10)
    causal = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    explicit = F.scaled_dot_product_attention(q, k, v, graphc.ones(4, 6, dtype=graphc.bool).tril())
    np.testing.assert_allclose(causal.numpy(), explicit.numpy(), rtol=1e-12)
    np.testing.assert_allclose(causal[:, 0].numpy(), v[:, 0].numpy(), rtol=1e-12)


@pytest.mark.parametrize("additive", [False, True])
def test_a_query_without_keys_gets_zeros_and_passes_no_nan_on(additive: bool) -> None:
    q, k, v = (draw(3, 4).requires_grad_() for _ in range(3))
    mask = graphc.tensor([[True, False, True], [False, False, False], [True, True, True]])
    if additive:
        mask = graphc.where(mask, 0.0, -math.inf).double()
    out = F.scaled_dot_product_attention(q, k, v, mask)
    assert out[1].tolist() == [0, 0, 0, 0]
    out.sum().backward()
    for x in (q, k, v):
        assert x.grad.isfinite().all()
    assert q.grad[1].tolist() == [0, 0, 0, 0]


def test_heads_that_share_keys() -> None:
    q, k, v = draw(2, 6, 4, 5), draw(2, 3, 4, 5), draw(2, 3, 4, 5)
    got = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    wanted = attention(q.numpy(), k.numpy().repeat(2, 1), v.numpy().repeat(2, 1))
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-10)


def test_dropout_of_weights() -> None:
    q, k, v = draw(2, 4, 5), draw(2, 6, 5), draw(2, 6, 3)
    assert not F.scaled_dot_product_attention(q, k, v, dropout_p=1.0).numpy().any()


@pytest.mark.parametrize("call, kind, message", [
    (lambda x: F.scaled_dot_product_attention(x, x, x, graphc.ones(3, 3).bool(), is_causal=True), RuntimeError, "Explicit"),
    (lambda x: F.scaled_dot_product_attention(x, x, x.float()), RuntimeError, "same dtype"),
    (lambda x: F.scaled_dot_product_attention(x[0], x, x), RuntimeError, "at least 2 dimensional"),
    (lambda x: F.scaled_dot_product_attention(x, x, x, graphc.ones(3, 3).long()), RuntimeError, "attn_mask dtype"),
    (lambda x: nn.MultiheadAttention(4, 3), ValueError, "divisible by num_heads"),
    (lambda x: nn.MultiheadAttention(4, 0), ValueError, "greater than 0"),
    (lambda x: nn.MultiheadAttention(4, 2)(x, x, x), RuntimeError, "embedding dimension of 4"),
    (lambda x: nn.MultiheadAttention(3, 1)(x, x, x[None]), RuntimeError, "2-D"),
    (lambda x: nn.MultiheadAttention(3, 1).double()(x, x, x, attn_mask=graphc.ones(2, 2)), RuntimeError, r"should be \(3, 3\)"),
    (lambda x: nn.MultiheadAttention(3, 1).double()(x, x, x, is_causal=True), RuntimeError, "Need attn_mask"),
])
def test_misuse(call, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(draw(3, 3))


# Several heads


def heads(module: nn.MultiheadAttention, q: Array, k: Array, v: Array, bias: Array | float = 0.0) -> tuple[Array, Array]:
    """One sequence through the module, by NumPy: the result, and the weights of each head."""
    p = {name: x.detach().numpy() for name, x in module.named_parameters()}
    weights = np.split(p["in_proj_weight"], 3) if "in_proj_weight" in p else [p[f"{n}_proj_weight"] for n in "qkv"]
    biases = np.split(p["in_proj_bias"], 3) if "in_proj_bias" in p else [np.zeros(module.embed_dim)] * 3
    q, k, v = (x @ w.T + b for x, w, b in zip((q, k, v), weights, biases))
    if "bias_k" in p:
        k, v = np.concatenate([k, p["bias_k"][0]]), np.concatenate([v, p["bias_v"][0]])
    if module.add_zero_attn:
        k, v = (np.concatenate([x, np.zeros((1, module.embed_dim))]) for x in (k, v))
    parts, probabilities = [], []
    for i in range(module.num_heads):
        at = slice(i * module.head_dim, (i + 1) * module.head_dim)
        scores = q[:, at] @ k[:, at].T / math.sqrt(module.head_dim)
        extra = scores.shape[1] - (bias.shape[1] if isinstance(bias, np.ndarray) else scores.shape[1])
        added = np.pad(bias, ((0, 0), (0, extra))) if isinstance(bias, np.ndarray) else bias
        probabilities.append(softmax(scores + added))
        parts.append(probabilities[-1] @ v[:, at])
    out = np.concatenate(parts, -1) @ p["out_proj.weight"].T + p.get("out_proj.bias", 0)
    return out, np.stack(probabilities)


@pytest.mark.parametrize("options", [
    {}, {"bias": False}, {"kdim": 5, "vdim": 3}, {"add_bias_kv": True}, {"add_zero_attn": True},
    {"add_bias_kv": True, "add_zero_attn": True, "batch_first": True},
])
@pytest.mark.parametrize("need_weights", [True, False])
def test_heads_attend_on_their_own(options: dict[str, object], need_weights: bool) -> None:
    module = nn.MultiheadAttention(6, 2, dtype=graphc.float64, **options)
    for p in module.parameters():
        nn.init.normal_(p)
    q, k, v = draw(4, 2, 6), draw(5, 2, options.get("kdim", 6)), draw(5, 2, options.get("vdim", 6))
    bias = draw(4, 5)
    given = [x.transpose(0, 1) if module.batch_first else x for x in (q, k, v)]
    out, weights = module(*given, attn_mask=bias, need_weights=need_weights)
    out = out.transpose(0, 1) if module.batch_first else out
    for n in range(2):
        wanted, each = heads(module, q.numpy()[:, n], k.numpy()[:, n], v.numpy()[:, n], bias.numpy())
        np.testing.assert_allclose(out[:, n].detach().numpy(), wanted, rtol=1e-8)
        if need_weights:
            np.testing.assert_allclose(weights[n].detach().numpy(), each.mean(0), rtol=1e-8)
    assert need_weights or weights is None


def test_masks_of_several_heads() -> None:
    module = nn.MultiheadAttention(6, 2, dtype=graphc.float64)
    x = draw(4, 3, 6)
    padding = graphc.tensor([[False] * 4, [False, False, True, True], [False, True, False, False]])
    causal = graphc.ones(4, 4).triu(1).bool()
    for need_weights in (True, False):
        out = module(x, x, x, key_padding_mask=padding, attn_mask=causal, need_weights=need_weights)[0]
        for n in range(3):
            bias = np.where(causal.numpy() | padding.numpy()[n], -np.inf, 0.0)
            np.testing.assert_allclose(out[:, n].detach().numpy(), heads(module, *[x.numpy()[:, n]] * 3, bias)[0], rtol=1e-9)
    each = module(x, x, x, average_attn_weights=False)[1]
    assert tuple(each.shape) == (3, 2, 4, 4)
    np.testing.assert_allclose(each.sum(-1).detach().numpy(), 1, rtol=1e-12)
    alone, weights = module(x[:, 1], x[:, 1], x[:, 1], key_padding_mask=padding[1])
    assert tuple(alone.shape) == (4, 6) and not weights[:, 2:].detach().numpy().any()
    three = graphc.stack([causal.float(), causal.float() * 0] * 3).bool()  # one mask for each member and head
    np.testing.assert_allclose(module(x, x, x, attn_mask=three, average_attn_weights=False)[1][0, 0, 0].tolist(), [1, 0, 0, 0])


def test_parameters_of_attention() -> None:
    assert list(nn.MultiheadAttention(4, 2, add_bias_kv=True).state_dict()) == [
        "in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "out_proj.weight", "out_proj.bias"]
    assert list(nn.MultiheadAttention(4, 2, kdim=3).state_dict())[:3] == ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
    assert "(out_proj): NonDynamicallyQuantizableLinear(in_features=4" in repr(nn.MultiheadAttention(4, 2))
    fresh = nn.MultiheadAttention(4, 2)
    assert not fresh.in_proj_bias.any() and not fresh.out_proj.bias.any()
    assert fresh.in_proj_weight.abs().max().item() <= math.sqrt(6 / 16)


# Transformers


def norm(x: Array, layer: nn.LayerNorm) -> Array:
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
    return y * layer.weight.detach().numpy() + layer.bias.detach().numpy()


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_layer(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, activation="gelu", norm_first=norm_first, dtype=graphc.float64)
    x = draw(4, 1, 6)
    a = x.numpy()[:, 0]

    def attend(y: Array) -> Array:
        return heads(layer.self_attn, y, y, y)[0]

    def feed(y: Array) -> Array:
        z = F.gelu(layer.linear1(graphc.tensor(y)))
        return layer.linear2(z).detach().numpy()

    if norm_first:
        a = a + attend(norm(a, layer.norm1))
        a = a + feed(norm(a, layer.norm2))
    else:
        a = norm(a + attend(a), layer.norm1)
        a = norm(a + feed(a), layer.norm2)
    np.testing.assert_allclose(layer(x)[:, 0].detach().numpy(), a, rtol=1e-9)


@pytest.mark.parametrize("batch_first", [False, True])
def test_causal_decoders_do_not_look_ahead(batch_first: bool) -> None:
    model = nn.Transformer(6, 2, 1, 2, 8, dropout=0.0, batch_first=batch_first, dtype=graphc.float64)
    source, target = draw(3, 2, 6), draw(5, 2, 6)
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=graphc.float64)
    assert mask[1].tolist() == [0, 0, -math.inf, -math.inf, -math.inf]

    def run(target: graphc.Tensor) -> graphc.Tensor:
        if not batch_first:
            return model(source, target, tgt_mask=mask, tgt_is_causal=True)
        return model(source.transpose(0, 1), target.transpose(0, 1), tgt_mask=mask).transpose(0, 1)

    before = run(target)
    changed = target.clone()
    changed[3:] += 1
    after = run(changed)
    np.testing.assert_allclose(after[:3].detach().numpy(), before[:3].detach().numpy(), rtol=1e-9)
    assert not np.allclose(after[3:].detach().numpy(), before[3:].detach().numpy())


def test_stacks_are_copies_and_print_as_trees() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 2, nn.LayerNorm(4))
    assert encoder.layers[0].linear1.weight is not encoder.layers[1].linear1.weight
    assert encoder.layers[0].linear1.weight.tolist() == encoder.layers[1].linear1.weight.tolist()
    assert list(dict(nn.TransformerDecoderLayer(4, 2, 8).named_children())) == [
        "self_attn", "multihead_attn", "linear1", "dropout", "linear2", "norm1", "norm2", "norm3", "dropout1", "dropout2",
        "dropout3"]
    with pytest.raises(RuntimeError, match="batch number"):
        nn.Transformer(4, 2, 1, 1, 8)(graphc.ones(2, 2, 4), graphc.ones(2, 3, 4))
    with pytest.raises(RuntimeError, match="equal to d_model"):
        nn.Transformer(4, 2, 1, 1, 8)(graphc.ones(2, 2, 3), graphc.ones(2, 2, 4))
    with pytest.raises(RuntimeError, match="relu/gelu"):
        nn.TransformerEncoderLayer(4, 2, activation="tanh")


def test_compiled_encoders_train_like_eager_ones() -> None:
    losses = []
    for wrap in (lambda f: f, graphc.compile):
        graphc.manual_seed(0)
        model = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, dtype=graphc.float64)
        optimizer = graphc.optim.Adam(model.parameters(), 0.01)
        x = graphc.arange(24, dtype=graphc.float64).reshape(2, 3, 4).sin()
        padding = graphc.tensor([[False, False, True], [False, False, False]])

        def step(model: nn.Module = model, optimizer: graphc.optim.Adam = optimizer, x: graphc.Tensor = x,
                 padding: graphc.Tensor = padding) -> graphc.Tensor:
            optimizer.zero_grad()
            loss = (model(x, src_key_padding_mask=padding) - x.flip(1)).pow(2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        losses.append([run().item() for _ in range(5)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-8)
    assert losses[0][-1] < losses[0][0]
