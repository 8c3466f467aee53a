"""Attention, which is two products and a softmax between them, as ONNX's operator."""

from __future__ import annotations

import math

from graphc.ir import Node, Value
from graphc.onnx_format.export.matching import Match, made_by, number, softmax_of, stretched
from graphc.onnx_format.export.writer import Step, Writer
from graphc.types import float32

_OPSET = 23


def match_attention(node: Node) -> Match | None:
    """softmax(q @ k.T * scale, masked) @ v, for [N, L, E] or [N, heads, L, E], where nothing else needs the weights. In single
    precision: runtimes have few others. Rows of zeros, for which there is no key, are made by a node of their own: what the
    operator makes of them is not the same everywhere."""
    weights, v = node.operands
    if node.results[0].dtype is not float32 or v.ndim not in (3, 4):
        return None
    inside: list[Value] = []
    some = None
    if (chosen := _where(weights, inside)) is not None:
        some, weights, zero = chosen
        if zero != 0 or stretched(some).shape[-1:] != (1,):
            return None
    scores, axes = softmax_of(weights)
    if scores is None or axes != (v.ndim - 1,) or weights.node is None:
        return None
    inside += (weights, weights.node.operands[0])
    if some is not None:
        chosen = _where(scores, inside)
        if chosen is None or chosen[0] is not some or chosen[2] != 0:
            return None
        scores = chosen[1]
    mask, causal = None, False
    if (chosen := _where(scores, inside)) is not None:
        mask, scores, lowest = chosen
        if lowest != -math.inf:
            return None
        causal = _is_causal(mask)
    elif (total := made_by(scores, "add")) is not None:
        inside.append(scores)
        scores, mask = total.operands
    found = _scaled_product(scores, inside)
    if found is None:
        return None
    q, k, scale = found
    if not 0 < scale < math.inf or 0 in (*q.shape, *k.shape, *v.shape):
        return None
    k, v = _of_fewer_heads(k, v)
    heads = 1 if v.ndim == 3 else None
    source = None if mask is None or causal else _of_pairs(mask)
    others = [value for value in (source, None if some is None else stretched(some)) if value is not None]

    def write(w: Writer, step: Step) -> str:
        names = list(step.names[:3])
        if source is not None:
            names.append(_as_mask(w, step.names[3], source, scores))
        out = str(w.emit("Attention", *names, scale=scale, is_causal=1 if causal else None, q_num_heads=heads,
                         kv_num_heads=heads))
        return out if some is None else str(w.emit("Where", step.names[-1], out, w.number(0, float32)))

    return Match((q, k, v, *others), write, _OPSET, frozenset(inside))


def _where(value: Value, inside: list[Value]) -> tuple[Value, Value, float] | None:
    """The condition, the numbers where it holds, and the one that is there elsewhere."""
    node = made_by(value, "where")
    other = None if node is None else number(node.operands[2])
    if node is None or other is None:
        return None
    inside.append(value)
    return node.operands[0], node.operands[1], other


def _is_causal(mask: Value) -> bool:
    """Whether the number of a row is at least that of the column."""
    node = made_by(stretched(mask), "ge")
    counters = [] if node is None else [made_by(stretched(operand), "iota") for operand in node.operands]
    places = [counter.attrs["axis"] - counter.result.ndim for counter in counters if counter is not None]
    return places == [-2, -1]


def _scaled_product(scores: Value, inside: list[Value]) -> tuple[Value, Value, float] | None:
    """q, k and the number of q @ k.T * number, whichever of them has been multiplied or divided by it."""
    scores, after = _without_factor(scores, inside)
    product = made_by(scores, "matmul")
    turned = None if product is None else made_by(product.operands[1], "permute")
    if product is None or turned is None or turned.attrs["order"] != (
            *range(scores.ndim - 2), scores.ndim - 1, scores.ndim - 2):
        return None
    inside.append(scores)
    q, before = _without_factor(product.operands[0], [])
    return q, turned.operands[0], before * after


def _without_factor(value: Value, inside: list[Value]) -> tuple[Value, float]:
    node = made_by(value, "mul", "div")
    factor = None if node is None else number(node.operands[1])
    if node is None or not factor:
        return value, 1.0
    inside.append(value)
    return node.operands[0], factor if node.op.name == "mul" else 1 / factor


def _of_fewer_heads(k: Value, v: Value) -> tuple[Value, Value]:
    """Keys and values before each head of them was made several."""
    few = [_before_repeated(value) for value in (k, v)]
    if few[0] is None or few[1] is None or few[0].shape[1] != few[1].shape[1]:
        return k, v
    return few[0], few[1]


def _before_repeated(value: Value) -> Value | None:
    """What has each element of its second dimension several times one after the other."""
    merged = made_by(value, "reshape")
    repeated = None if merged is None else made_by(merged.operands[0], "broadcast_to")
    apart = None if repeated is None else made_by(repeated.operands[0], "reshape")
    if repeated is None or apart is None or value.ndim != 4:
        return None
    source, shape = apart.operands[0], tuple(value.shape)
    if source.ndim != 4 or apart.result.ndim != 5 or apart.result.shape[2] != 1:
        return None
    batch, heads, *rest = source.shape
    times = repeated.result.shape[2]
    fits = [str(size) for size in (batch, heads * times, *rest)] == [str(size) for size in shape]
    same = [str(size) for size in repeated.result.shape] == [str(size) for size in (batch, heads, times, *rest)]
    return source if fits and same else None


def _of_pairs(mask: Value) -> Value:
    """A mask before it was stretched, if it has a number for each query and key by then."""
    source = stretched(mask)
    same = source.ndim >= 2 and [str(size) for size in source.shape[-2:]] == [str(size) for size in mask.shape[-2:]]
    return source if same else mask


def _as_mask(w: Writer, name: str, mask: Value, scores: Value) -> str:
    """Of single heads, the mask of each batch in a dimension of its own."""
    if scores.ndim == 4 or mask.ndim == 2:
        return name
    return w.reshape(name, mask.type, (mask.shape[0], 1, *mask.shape[1:]))
