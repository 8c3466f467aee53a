"""Attention: weighted means of values, with weights from the products of queries and keys."""

from __future__ import annotations

import math

from graphc import ops
from graphc.errors import DTypeError, GraphcError, ShapeError
from graphc.frontend.activations import softmax
from graphc.frontend.autocast import lowered
from graphc.frontend.composite import composite
from graphc.frontend.creation import zeros
from graphc.frontend.dropout import dropout
from graphc.frontend.joining import cat
from graphc.frontend.matrices import linear, matmul
from graphc.frontend.modes import mode
from graphc.frontend.movement import expand, part, permute, reshape, squeeze, transpose, unsqueeze
from graphc.frontend.pointwise import cast, where
from graphc.frontend.reductions import amax, any, mean
from graphc.frontend.splitting import chunk
from graphc.frontend.tensor import Tensor
from graphc.types import bool_, int64

MaybeTensor = Tensor | None


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: MaybeTensor = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """softmax(query @ key.T * scale + mask) @ value, for query [..., L, E], key [..., S, E] and value [..., S, V].

    `scale` is 1 / sqrt(E) if it is not given. A mask of booleans is True where a key takes part; one of numbers is added. A
    query that may look at no key gets zeros. `is_causal` lets query i look at the keys up to i. With `enable_gqa` there
    may be fewer heads (dimension -3) of keys and values than of queries, each of which then serves several of them.

    GraphcError for a mask beside `is_causal`, DTypeError for one of another dtype; ShapeError for operands of less than two
    dimensions, and where the sizes do not fit.

    >>> q = graphc.randn(2, 4, 5, 8)
    >>> F.scaled_dot_product_attention(q, q, q, is_causal=True).shape
    graphc.Size([2, 4, 5, 8])
    """
    if mode.autocast is not None:
        query, key, value = lowered(query, mode.autocast), lowered(key, mode.autocast), lowered(value, mode.autocast)
        attn_mask = lowered(attn_mask, mode.autocast)
    _check_attention(query, key, value)
    if attn_mask is not None:
        if is_causal:
            raise GraphcError("_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True")
        if attn_mask.dtype is not bool_ and attn_mask.dtype is not query.dtype:
            raise DTypeError("Expected attn_mask dtype to be bool or float or to match query dtype",
                             expected=f"bool or {query.dtype.name}", got=attn_mask.dtype.name)
    if enable_gqa:
        heads = query._data.shape[-3]
        key, value = _each_for_several(key, heads), _each_for_several(value, heads)
    if scale is None:
        scale = 1 / math.sqrt(query._data.shape[-1])
    if dropout_p > 0.0:
        return matmul(dropout(_weights(query, key, attn_mask, is_causal, scale), dropout_p), value)
    return _attention(query, key, value, attn_mask, is_causal, scale)


@composite
def _attention(query: Tensor, key: Tensor, value: Tensor, mask: MaybeTensor, causal: bool, scale: float) -> Tensor:
    return matmul(_weights(query, key, mask, causal, scale), value)


def _weights(query: Tensor, key: Tensor, mask: MaybeTensor, causal: bool, scale: float) -> Tensor:
    scores = matmul(query * scale, transpose(key, -2, -1))
    if causal:
        scores = where(_causal(query._data.shape[-2], key._data.shape[-2]), scores, -math.inf)
    return softmax(scores, -1) if mask is None else _masked_softmax(scores, mask)


def _check_attention(query: Tensor, key: Tensor, value: Tensor) -> None:
    if not query.dtype is key.dtype is value.dtype:
        raise DTypeError("Expected query, key, and value to have the same dtype, but got query.dtype: "
                         f"{query.dtype.name} key.dtype: {key.dtype.name} and value.dtype: {value.dtype.name} instead.")
    if min(query.dim(), key.dim(), value.dim()) < 2:
        raise ShapeError("scaled_dot_product_attention: Expected query, key, and value to all be at least 2 dimensional, but "
                         f"got Query dim: {query.dim()}, Key dim: {key.dim()}, Value dim: {value.dim()} instead.")


def _each_for_several(x: Tensor, heads: int) -> Tensor:
    *batch, own, length, width = x._data.shape
    if heads % own:
        raise ShapeError("scaled_dot_product_attention: Number of heads in key and value must divide the number of heads in "
                         "query", got=f"{own} heads for {heads}")
    shared = expand(unsqueeze(x, -3), (*batch, own, heads // own, length, width))
    return reshape(shared, (*batch, heads, length, width))


def _causal(queries: int, keys: int) -> Tensor:
    row = ops.iota(shape=(queries, keys), axis=0, dtype=int64, like=Tensor)
    return row >= ops.iota(shape=(queries, keys), axis=1, dtype=int64, like=Tensor)


def _masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """softmax over the last dimension; rows of which the mask leaves nothing are zeros, with gradients of zero."""
    if mask.dtype is bool_:
        open_ = any(mask, -1, keepdim=True)
        scores = where(mask, scores, -math.inf)
    else:
        open_ = amax(mask.detach(), -1, keepdim=True) > -math.inf
        scores = scores + mask
    return where(open_, softmax(where(open_, scores, 0.0), -1), 0.0)


def multi_head_attention_forward(
    query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int, in_proj_weight: MaybeTensor,
    in_proj_bias: MaybeTensor, bias_k: MaybeTensor, bias_v: MaybeTensor, add_zero_attn: bool, dropout_p: float,
    out_proj_weight: Tensor, out_proj_bias: MaybeTensor, training: bool = True, key_padding_mask: MaybeTensor = None,
    need_weights: bool = True, attn_mask: MaybeTensor = None, use_separate_proj_weight: bool = False,
    q_proj_weight: MaybeTensor = None, k_proj_weight: MaybeTensor = None, v_proj_weight: MaybeTensor = None,
    static_k: MaybeTensor = None, static_v: MaybeTensor = None, average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, MaybeTensor]:
    """Attention of several heads, each over a part of projections of query [L, N, E], key [S, N, K] and value [S, N, V].

    Returns the result [L, N, E] and, with `need_weights`, the weights [N, L, S], their mean over the heads or else
    [N, heads, L, S]. The dimension N may be left out. Masks of booleans are True where a key takes no part, others are
    added: `key_padding_mask` [N, S], `attn_mask` [L, S] or [N * heads, L, S].

    ShapeError where sizes do not fit, or the heads do not divide the width; DTypeError for masks of integers; GraphcError for
    `is_causal` without `attn_mask`, and where a projection's weight is missing.

    >>> attention = nn.MultiheadAttention(4, 2)
    >>> x = graphc.ones(3, 1, 4)
    >>> out, weights = F.multi_head_attention_forward(
    ...     x, x, x, 4, 2, attention.in_proj_weight, attention.in_proj_bias, None, None, False, 0.0,
    ...     attention.out_proj.weight, attention.out_proj.bias)
    >>> out.shape, weights.shape
    (graphc.Size([3, 1, 4]), graphc.Size([1, 3, 3]))
    """
    batched = _check_heads(query, key, value, key_padding_mask, attn_mask, num_heads)
    if not batched:
        query, key, value = unsqueeze(query, 1), unsqueeze(key, 1), unsqueeze(value, 1)
        key_padding_mask = None if key_padding_mask is None else unsqueeze(key_padding_mask, 0)
    length, batch, width = query._data.shape
    heads, each = num_heads, width // num_heads
    if width != embed_dim_to_check:
        raise ShapeError(f"was expecting embedding dimension of {embed_dim_to_check}, but got {width}")
    if each * heads != width:
        raise ShapeError(f"embed_dim {width} not divisible by num_heads {heads}")
    if is_causal and attn_mask is None:
        raise GraphcError("Need attn_mask if specifying the is_causal hint.")
    if attn_mask is not None:
        expected = ((length, key._data.shape[0]), (batch * heads, length, key._data.shape[0]))
        if tuple(attn_mask._data.shape) not in expected:
            raise ShapeError(f"The shape of the {attn_mask.dim()}D attn_mask is {tuple(attn_mask.shape)}, but should be "
                             f"{expected[attn_mask.dim() - 2]}.")
    padding = _additive(key_padding_mask, "key_padding_mask", query)
    mask = _additive(attn_mask, "attn_mask", query)
    q, k, v = _projected(query, key, value, in_proj_weight, in_proj_bias,
                         (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None)
    if bias_k is not None and bias_v is not None:
        # one more key and value, the same for all; no mask hides it
        k, v = (cat([x, expand(extra, (1, batch, width))]) for x, extra in ((k, bias_k), (v, bias_v)))
        mask, padding = _one_more(mask), _one_more(padding)
    q = _by_head(q, heads, each)
    k = _by_head(k, heads, each) if static_k is None else _given(static_k, "static_k", batch * heads, each)
    v = _by_head(v, heads, each) if static_v is None else _given(static_v, "static_v", batch * heads, each)
    if add_zero_attn:
        nothing = zeros(batch * heads, 1, each, dtype=k.dtype)
        k, v = cat([k, nothing], 1), cat([v, nothing], 1)
        mask, padding = _one_more(mask), _one_more(padding)
    keys = k._data.shape[1]
    if mask is not None and mask.dim() == 2:
        mask = unsqueeze(mask, 0)
    if padding is not None:
        if tuple(padding._data.shape) != (batch, keys):
            raise ShapeError(f"expecting key_padding_mask shape of {(batch, keys)}, but got {tuple(padding.shape)}")
        padding = reshape(expand(reshape(padding, (batch, 1, 1, keys)), (batch, heads, 1, keys)), (batch * heads, 1, keys))
        mask = padding if mask is None else mask + padding
    weights: MaybeTensor = None
    if need_weights:
        scores = matmul(q * math.sqrt(1.0 / each), transpose(k, -2, -1))
        weights = softmax(scores if mask is None else scores + mask, -1)
        if training and dropout_p > 0.0:
            weights = dropout(weights, dropout_p)
        out = matmul(weights, v)
    else:
        out = scaled_dot_product_attention(q, k, v, mask, dropout_p if training else 0.0)
    out = linear(reshape(transpose(out, 0, 1), (length * batch, width)), out_proj_weight, out_proj_bias)
    out = reshape(out, (length, batch, out._data.shape[-1]))
    if weights is not None:
        weights = reshape(weights, (batch, heads, length, keys))
        if average_attn_weights:
            weights = mean(weights, 1)
        if not batched:
            weights = squeeze(weights, 0)
    return out if batched else squeeze(out, 1), weights


def _check_heads(query: Tensor, key: Tensor, value: Tensor, padding: MaybeTensor, mask: MaybeTensor, heads: int) -> bool:
    """Whether there is a batch; an error where numbers of dimensions do not go together."""
    ndim = query.dim()
    if ndim not in (2, 3):
        raise ShapeError(f"query should be unbatched 2D or batched 3D tensor but received {ndim}-D query tensor")
    kind = "batched (3-D)" if ndim == 3 else "unbatched (2-D)"
    if key.dim() != ndim or value.dim() != ndim:
        raise ShapeError(f"For {kind} `query`, expected `key` and `value` to be {ndim}-D but found {key.dim()}-D and "
                         f"{value.dim()}-D tensors respectively")
    if padding is not None and padding.dim() != ndim - 1:
        raise ShapeError(f"For {kind} `query`, expected `key_padding_mask` to be `None` or {ndim - 1}-D but found "
                         f"{padding.dim()}-D tensor instead")
    if mask is not None and mask.dim() not in (2, 3):
        raise ShapeError(f"For {kind} `query`, expected `attn_mask` to be `None`, 2-D or 3-D but found {mask.dim()}-D tensor "
                         "instead")
    if mask is not None and ndim == 2 and mask.dim() == 3 and mask._data.shape[0] != heads:
        raise ShapeError(f"Expected `attn_mask` shape to be {(heads, query._data.shape[0], key._data.shape[0])} but got "
                         f"{tuple(mask.shape)}")
    if tuple(key._data.shape[:-1]) != tuple(value._data.shape[:-1]):
        raise ShapeError(f"key's sequence and batch dims {tuple(key.shape[:-1])} do not match value's "
                         f"{tuple(value.shape[:-1])}")
    return ndim == 3


def _additive(mask: MaybeTensor, name: str, like: Tensor) -> MaybeTensor:
    """A mask as numbers to be added: -inf where a mask of booleans is True."""
    if mask is None:
        return None
    if mask.dtype is bool_:
        return where(mask, -math.inf, cast(zeros(1), like.dtype))
    if not mask.dtype.is_floating_point:
        raise DTypeError(f"only bool and floating types of {name} are supported", got=mask.dtype.name)
    return cast(mask, like.dtype)


def _projected(query: Tensor, key: Tensor, value: Tensor, weight: MaybeTensor, bias: MaybeTensor,
               separate: tuple[MaybeTensor, MaybeTensor, MaybeTensor] | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values out of their weights and biases, which lie in one tensor or in three."""
    biases = (None, None, None) if bias is None else chunk(bias, 3)
    if separate is not None:
        for x, name in zip(separate, "qkv"):
            if x is None:
                raise GraphcError(f"use_separate_proj_weight is True but {name}_proj_weight is None")
        q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), separate, biases))  # type: ignore[arg-type]
        return q, k, v
    if weight is None:
        raise GraphcError("use_separate_proj_weight is False but in_proj_weight is None")
    if query is key and key is value:
        q, k, v = chunk(linear(query, weight, bias), 3, -1)
        return q, k, v
    width = query._data.shape[-1]
    if key is value:
        q = linear(query, part(weight, 0, 0, width), biases[0])
        both = linear(key, part(weight, 0, width, 3 * width), None if bias is None else part(bias, 0, width, 3 * width))
        k, v = chunk(both, 2, -1)
        return q, k, v
    q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), chunk(weight, 3), biases))
    return q, k, v


def _by_head(x: Tensor, heads: int, each: int) -> Tensor:
    """[S, N, heads * each] as [N * heads, S, each]."""
    length, batch, _ = x._data.shape
    return permute(reshape(x, (length, batch * heads, each)), (1, 0, 2))


def _given(x: Tensor, name: str, rows: int, each: int) -> Tensor:
    if x._data.shape[0] != rows or x._data.shape[2] != each:
        raise ShapeError(f"expecting {name}.size(0) of {rows} and {name}.size(2) of {each}, but got {list(x.shape)}")
    return x


def _one_more(mask: MaybeTensor) -> MaybeTensor:
    """A mask for one more key, which it does not hide."""
    if mask is None:
        return None
    return cat([mask, zeros(*mask._data.shape[:-1], 1, dtype=mask.dtype)], -1)

