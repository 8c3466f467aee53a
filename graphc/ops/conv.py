"""Convolution and its two gradients, over one to five spatial dimensions.

The three are bilinear and closed under differentiation: each one's derivatives are the other two. None has a lowering of
its own: they decompose into sliding windows and a contraction, and code generation reads the windows straight from the
input while it packs them for the matrix product.

Shapes: x is [N, C, *S], w is [O, C / groups, *K], the result [N, O, *T] with
T = (S + low + high - dilation * (K - 1) - 1) // stride + 1.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import surely_less
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.op import Sample, op
from graphc.ops.complex_numbers import conjugate
from graphc.ops.elementwise import cast
from graphc.ops.linalg import contract
from graphc.ops.movement import concat, flip, fold, pad, permute, reshape, slice, stack_operand, window
from graphc.types import Size, TensorType, float32, is_one, widened

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

_K, _T = "pqrst", "uvwxy"  # letters of the kernel's and of the result's spatial dimensions
_MOST_PHASES = 8
"""Convolutions that a gradient with strides is made of at most."""


def _out_size(size: Size, kernel: int, stride: int, padding: tuple[int, int], dilation: int) -> Size:
    span = size + (padding[0] + padding[1] - dilation * (kernel - 1) - 1)
    return span // stride + 1


def _check_attributes(n: int, stride: Ints, padding: Pairs, dilation: Ints, groups: int) -> None:
    counts = {len(stride), len(padding), len(dilation)}
    small = min((*stride, *dilation, groups), default=1) < 1 or any(len(p) != 2 or min(p) < 0 for p in padding)
    if counts != {n} or small or not 1 <= n <= len(_K):
        raise ArgumentError(f"conv{n}d: stride {stride}, padding {padding}, dilation {dilation}, groups {groups}",
                            expected=f"one to {len(_K)} of each; stride, dilation and groups >= 1, padding pairs >= 0")


def _check_fit(name: str, x: TensorType, w: TensorType, g: TensorType, attrs: Mapping[str, Any]) -> None:
    """That a convolution of x with w has a result that g, a cotangent, may be of: all of it or its first part."""
    out = _conv_infer(x, w, **attrs)
    larger = any(map(surely_less, out.shape, g.shape))
    if g.dtype is not out.dtype or g.ndim != out.ndim or g.shape[:2] != out.shape[:2] or larger:
        raise ShapeError(f"{name}: the cotangent does not fit", expected=f"at most {out}, of {x} with {w}", got=str(g))


def _conv_infer(x: TensorType, w: TensorType, stride: Ints, padding: Pairs, dilation: Ints, groups: int) -> TensorType:
    n = len(stride)
    _check_attributes(n, stride, padding, dilation, groups)
    if x.ndim != n + 2 or w.ndim != n + 2:
        raise ShapeError(f"Expected {n + 2}D input and weight to conv{n}d", got=f"input {x}, weight {w}")
    if x.dtype is not w.dtype:
        raise DTypeError(f"conv{n}d: input and weight differ in dtype", got=f"{x} and {w}")
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ShapeError(f"conv{n}d: the channels do not fit",
                         expected=f"input[N, {w.shape[1] * groups}, ...] for weight {w} and groups={groups}", got=f"input {x}")
    spatial = tuple(map(_out_size, x.shape[2:], w.shape[2:], stride, padding, dilation))
    if any(surely_less(size, 1) for size in spatial):
        raise ShapeError(f"conv{n}d: Kernel size can't be greater than actual input size",
                         got=f"input {x}, weight {w}, padding {padding}, dilation {dilation}")
    return x.with_shape((x.shape[0], w.shape[0], *spatial))


def _windows(x: Any, kernel: Ints, stride: Ints, dilation: Ints) -> Any:
    """[N, C, *S] as [N, C, *T, *K]."""
    for i, (size, step, spread) in enumerate(zip(kernel, stride, dilation)):
        x = window(x, 2 + i, size, step, spread)
    return x


def _split_groups(x: Any, axis: int, groups: int) -> Any:
    """Dimension `axis` as two: groups, and what is in one."""
    shape = tuple(x.shape)
    return reshape(x, (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :]))


def _merge(x: Any, axis: int) -> Any:
    """Dimensions `axis` and `axis + 1` as one."""
    shape = tuple(x.shape)
    return reshape(x, (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]))


def _padded(x: Any, padding: Pairs) -> Any:
    if not any(map(any, padding)):
        return x
    return pad(x, (0, 0, *(low for low, _ in padding)), (0, 0, *(high for _, high in padding)), 0.0)


def _conv(x: Any, w: Any, stride: Ints, padding: Pairs, dilation: Ints, groups: int) -> Any:
    n = len(stride)
    k, t = _K[:n], _T[:n]
    windows = _windows(_padded(x, padding), tuple(w.shape[2:]), stride, dilation)
    if groups == 1:
        return contract(w, windows, f"oc{k},bc{t}{k}->bo{t}")
    if is_one(w.shape[1]) and w.shape[0] == groups:  # each channel by itself
        return contract(reshape(w, (groups, *w.shape[2:])), windows, f"z{k},bz{t}{k}->bz{t}")
    out = contract(_split_groups(w, 0, groups), _split_groups(windows, 1, groups), f"zoc{k},bzc{t}{k}->bzo{t}")
    return _merge(out, 1)


def _input_grad_infer(g: TensorType, w: TensorType, size: Ints, groups: int, **attrs: Any) -> TensorType:
    x = g.with_shape((g.shape[0], w.shape[1] * groups, *size))
    _check_fit("conv_input_grad", x, w, g, dict(attrs, groups=groups))
    return x


def _input_grad(g: Any, w: Any, size: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int) -> Any:
    n = len(stride)
    k, t = _K[:n], _T[:n]
    kernel = tuple(w.shape[2:])
    if groups > 1:
        g, w = _split_groups(g, 1, groups), _split_groups(w, 0, groups)
    group = "z" if groups > 1 else ""
    if all(step == 1 for step in stride):
        # a convolution of the padded cotangent with the kernel turned round
        spread = [dilation[i] * (kernel[i] - 1) for i in range(n)]
        lead = (0,) * (2 + len(group))
        low = [spread[i] - padding[i][0] for i in range(n)]
        high = [size[i] - (g.shape[len(lead) + i] + low[i] - spread[i]) for i in range(n)]
        if min(*low, *high) >= 0:
            g = pad(g, (*lead, *low), (*lead, *high), 0.0)
            for i in range(n):
                g = window(g, len(lead) + i, kernel[i], 1, dilation[i])
            turned = flip(w, tuple(range(len(w.shape) - n, len(w.shape))))
            out = contract(turned, g, f"{group}oc{k},b{group}o{t}{k}->b{group}c{t}")
            return _merge(out, 1) if groups > 1 else out
    if groups > 1 and _is_by_phase(kernel, stride, dilation) and all(isinstance(each, int) for each in (*size, *g.shape[-n:])):
        return _merge(_by_phase(g, w, size, stride, [low for low, _ in padding]), 1)
    if g.dtype.is_floating_point and g.dtype.computes_in is not g.dtype:
        # sums of products, of which some are added once more: rounded once
        wide = g.dtype.computes_in
        whole = _fold_products(cast(g, dtype=wide), cast(w, dtype=wide), size, stride, padding, dilation, groups)
        return cast(whole, dtype=g.dtype)
    return _fold_products(g, w, size, stride, padding, dilation, groups)


def _is_by_phase(kernel: Ints, stride: Ints, dilation: Ints) -> bool:
    """Whether windows overlap, so that adding up their parts takes longer than what `_by_phase` does. In groups products are
    small, and all of them at once take much memory; else they are one large product, which is faster than several."""
    overlap = all(k >= step for k, step in zip(kernel, stride)) and any(k > step > 1 for k, step in zip(kernel, stride))
    return overlap and all(step == 1 for step in dilation) and math.prod(stride) <= _MOST_PHASES


def _by_phase(g: Any, w: Any, size: Ints, stride: Ints, padding: Sequence[int]) -> Any:
    """The gradient at every stride-th place is a convolution of the cotangent with every stride-th row of the kernel, turned
    round. So there is one for each phase, and their results take turns; g is [N, groups, O, *T], w [groups, O, C, *K]."""
    n, lead = len(stride), 3
    k, t = _K[:n], _T[:n]

    def part(phase: Ints) -> Any:
        v, before, after = w, [0] * lead, [0] * lead
        for i, (first, step, low) in enumerate(zip(phase, stride, padding)):
            axis, shift = lead + i, (first + low) // step
            v = _resliced(v, axis, (first + low) % step, v.shape[axis], step)
            before.append(v.shape[axis] - 1 - shift)
            after.append(-(-size[i] // step) + shift - g.shape[axis])
        x = _lengthened(g, before, after)
        for i in range(n):
            x = window(x, lead + i, v.shape[lead + i], 1, 1)
        return contract(flip(v, tuple(range(lead, lead + n))), x, f"zoc{k},bzo{t}{k}->bzc{t}")

    def from_dimension(i: int, phase: Ints) -> Any:
        if i == n:
            return part(phase)
        parts = [from_dimension(i + 1, (*phase, first)) for first in range(stride[i])]
        shape, axis = tuple(parts[0].shape), lead + i
        if len(parts) == 1:
            return parts[0]
        turns = concat(*(reshape(each, (*shape[: axis + 1], 1, *shape[axis + 1 :])) for each in parts), axis=axis + 1)
        return _resliced(_merge(turns, axis), axis, 0, size[i], 1)

    return from_dimension(0, ())


def _resliced(x: Any, axis: int, start: int, stop: int, step: int) -> Any:
    """Some places of one dimension."""
    if (start, stop, step) == (0, x.shape[axis], 1):
        return x
    shape = tuple(x.shape)
    ones = (1,) * len(shape)
    return slice(x, (*(0 for _ in shape[:axis]), start, *(0 for _ in shape[axis + 1 :])),
                 (*shape[:axis], stop, *shape[axis + 1 :]), (*ones[:axis], step, *ones[axis + 1 :]))


def _lengthened(x: Any, before: Sequence[int], after: Sequence[int]) -> Any:
    """With so many zeros around it, or without so many places where a number is negative."""
    low, high = [0] * len(before), [0] * len(after)
    for axis, (first, last) in enumerate(zip(before, after)):
        size = x.shape[axis]
        start = min(max(0, -first), size)
        stop = max(start, size - max(0, -last))
        x = _resliced(x, axis, start, stop, 1)
        zeros = size + first + last - (stop - start)
        low[axis] = min(max(0, first), zeros)
        high[axis] = zeros - low[axis]
    return pad(x, tuple(low), tuple(high), 0.0) if any(low) or any(high) else x


def _fold_products(g: Any, w: Any, size: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int) -> Any:
    """The products of a cotangent with the whole kernel, added up where they belong; both are split into groups."""
    n = len(stride)
    k, t = _K[:n], _T[:n]
    group = "z" if groups > 1 else ""
    columns = contract(w, g, f"{group}oc{k},b{group}o{t}->b{group}c{t}{k}")
    columns = _merge(columns, 1) if groups > 1 else columns
    for i in reversed(range(n)):
        length = max(size[i] + sum(padding[i]), (g.shape[-n + i] - 1) * stride[i] + dilation[i] * (w.shape[-n + i] - 1) + 1)
        columns = fold(columns, 2 + i, length, stride[i], dilation[i])
    starts = (0, 0, *(low for low, _ in padding))
    stops = (*tuple(columns.shape[:2]), *(low + s for (low, _), s in zip(padding, size)))
    return slice(columns, starts, stops, (1,) * (n + 2))


def _weight_grad_infer(x: TensorType, g: TensorType, kernel: Ints, groups: int, **attrs: Any) -> TensorType:
    w = x.with_shape((g.shape[1], x.shape[1] // groups, *kernel))
    _check_fit("conv_weight_grad", x, w, g, dict(attrs, groups=groups))
    return w


def _weight_grad(x: Any, g: Any, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int) -> Any:
    n = len(stride)
    k, t = _K[:n], _T[:n]
    windows = _windows(_padded(x, padding), kernel, stride, dilation)
    extra = [windows.shape[2 + i] - g.shape[2 + i] for i in range(n)]
    if any(extra):  # conv_input_grad may have been asked for a size with unused rows at the end
        stops = (*windows.shape[:2], *g.shape[2:], *kernel)
        windows = slice(windows, (0,) * len(stops), tuple(stops), (1,) * len(stops))
    if groups == 1:
        return contract(g, windows, f"bo{t},bc{t}{k}->oc{k}")
    out = contract(_split_groups(g, 1, groups), _split_groups(windows, 1, groups), f"bzo{t},bzc{t}{k}->zoc{k}")
    return _merge(out, 0)


# Batches of convolutions are convolutions in groups: the batch stands among the channels, or among the examples where the
# kernel is the same for all. In the signatures: the size of the batch, and which operands have it.


def _beside_channels(x: Any) -> Any:
    """[batch, N, C, ...] as [N, batch * C, ...]."""
    return _merge(permute(x, (1, 0, *range(2, len(x.shape)))), 1)


def _from_channels(x: Any, size: Size) -> Any:
    """[N, batch * C, ...] as [batch, N, C, ...]."""
    split = _split_groups(x, 1, size)
    return permute(split, (1, 0, *range(2, len(split.shape))))


def _conv_batch(size: Any, batched: tuple[bool, bool], x: Any, w: Any, groups: int, **attrs: Any) -> Any:
    if not batched[1]:
        return _split_groups(conv(_merge(x, 0), w, groups=groups, **attrs), 0, size)
    if not batched[0] and groups == 1:
        return _from_channels(conv(x, _merge(w, 0), groups=1, **attrs), size)
    x = _beside_channels(stack_operand(x, size, batched[0]))
    return _from_channels(conv(x, _merge(w, 0), groups=size * groups, **attrs), size)


def _input_grad_batch(count: Any, batched: tuple[bool, bool], g: Any, w: Any, groups: int, **attrs: Any) -> Any:
    if not batched[1]:
        return _split_groups(conv_input_grad(_merge(g, 0), w, groups=groups, **attrs), 0, count)
    g = _beside_channels(stack_operand(g, count, batched[0]))
    return _from_channels(conv_input_grad(g, _merge(w, 0), groups=count * groups, **attrs), count)


def _weight_grad_batch(size: Any, batched: tuple[bool, bool], x: Any, g: Any, groups: int, **attrs: Any) -> Any:
    if not batched[0] and groups == 1:
        return _split_groups(conv_weight_grad(x, _beside_channels(g), groups=1, **attrs), 0, size)
    x, g = (_beside_channels(stack_operand(v, size, own)) for v, own in zip((x, g), batched))
    return _split_groups(conv_weight_grad(x, g, groups=size * groups, **attrs), 0, size)


# The definitions: one tap of the kernel after another


def _taps(x: np.ndarray, kernel: Ints, out: Ints, stride: Ints, dilation: Ints) -> Iterator[tuple[Ints, np.ndarray]]:
    """Each place of the kernel, with the elements of the padded x ([..., *S]) that it meets ([..., prod(out)])."""
    for place in np.ndindex(*kernel):
        region = tuple(
            builtins.slice(p * d, p * d + max((n - 1) * s + 1, 0), s) for p, n, s, d in zip(place, out, stride, dilation)
        )
        yield place, x[_last(region)]


def _last(places: Sequence[Any]) -> tuple[Any, ...]:
    """An index into the last dimensions."""
    return (..., *places)


def _grouped(x: np.ndarray, axis: int, groups: int) -> np.ndarray:
    return x.reshape(*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])


def _pad_ref(x: np.ndarray, padding: Pairs) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, 0), *padding))


def _conv_ref(
    x: np.ndarray, w: np.ndarray, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> np.ndarray:
    out = tuple(map(_out_size, x.shape[2:], w.shape[2:], stride, padding, dilation))
    xs, ws = _grouped(_pad_ref(widened(x), padding), 1, groups), _grouped(widened(w), 0, groups)
    y = np.zeros((x.shape[0], groups, w.shape[0] // groups, *out), xs.dtype)
    for place, seen in _taps(xs, w.shape[2:], out, stride, dilation):
        y += np.einsum("bzc...,zoc->bzo...", seen, ws[_last(place)])
    return y.reshape(x.shape[0], w.shape[0], *out).astype(x.dtype, copy=False)


def _input_grad_ref(
    g: np.ndarray, w: np.ndarray, size: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> np.ndarray:
    gs, ws = _grouped(widened(g), 1, groups), _grouped(widened(w), 0, groups)
    padded = tuple(low + s + high for s, (low, high) in zip(size, padding))
    dx = np.zeros((g.shape[0], groups, w.shape[1], *padded), gs.dtype)
    for place, seen in _taps(dx, w.shape[2:], g.shape[2:], stride, dilation):
        seen += np.einsum("bzo...,zoc->bzc...", gs, ws[_last(place)])
    inner = tuple(builtins.slice(low, low + s) for s, (low, _) in zip(size, padding))
    return np.ascontiguousarray(dx[_last(inner)], g.dtype).reshape(g.shape[0], groups * w.shape[1], *size)


def _weight_grad_ref(
    x: np.ndarray, g: np.ndarray, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> np.ndarray:
    xs, gs = _grouped(_pad_ref(widened(x), padding), 1, groups), _grouped(widened(g), 1, groups)
    dw = np.zeros((groups, gs.shape[2], xs.shape[2], *kernel), xs.dtype)
    count = math.prod(g.shape[2:])
    flat = gs.reshape(*gs.shape[:3], count)
    for place, seen in _taps(xs, kernel, g.shape[2:], stride, dilation):
        dw[_last(place)] = np.einsum("bzcp,bzop->zoc", seen.reshape(*xs.shape[:3], count), flat)
    return dw.reshape(g.shape[1], xs.shape[2], *kernel).astype(x.dtype, copy=False)


# The records

_names = "stride padding dilation groups"
_plain = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
_same = {"stride": (1, 1), "padding": ((1, 1), (1, 0)), "dilation": (1, 1), "groups": 1}
_strided = {"stride": (2, 1), "padding": ((1, 1), (0, 2)), "dilation": (1, 2), "groups": 1}
_spread = {"stride": (1,), "padding": ((0, 0),), "dilation": (2,), "groups": 1}
_in_groups = {"stride": (2,), "padding": ((1, 0),), "dilation": (1,), "groups": 2}


def _f(*shape: int) -> TensorType:
    return TensorType(float32, shape)


def _conv_first(x: Any, w: Any, wanted: TensorType, attrs: Mapping[str, Any]) -> Any:
    """The convolution up to the sizes of `wanted`: the gradients may have been asked for with rows unused at the end."""
    out = conv(x, w, **_shared(attrs))
    if tuple(out.shape) == tuple(wanted.shape):
        return out
    return slice(out, (0,) * wanted.ndim, tuple(wanted.shape), (1,) * wanted.ndim)


def _shared(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that the three ops have in common."""
    return {name: attrs[name] for name in _names.split()}


conv = op(
    "conv", "x w", _names, infer=_conv_infer, ref=_conv_ref, decompose=_conv, costly=True, batch=_conv_batch,
    vjp=(lambda ct, w, x_type, attrs: conv_input_grad(ct, conjugate(w), size=x_type.shape[2:], **_shared(attrs)),
         lambda ct, x, w_type, attrs: conv_weight_grad(conjugate(x), ct, kernel=w_type.shape[2:], **_shared(attrs))),
    samples=(Sample((_f(2, 3, 6, 5), _f(4, 3, 3, 2)), _plain), Sample((_f(2, 2, 6, 5), _f(3, 2, 3, 2)), _strided),
             Sample((_f(2, 4, 7), _f(6, 2, 3)), _in_groups)))

conv_input_grad = op(
    "conv_input_grad", "g w", f"size {_names}", infer=_input_grad_infer, ref=_input_grad_ref, decompose=_input_grad,
    costly=True, batch=_input_grad_batch,
    vjp=(lambda ct, w, g_type, attrs: _conv_first(ct, conjugate(w), g_type, attrs),
         lambda ct, g, w_type, attrs: conv_weight_grad(ct, conjugate(g), kernel=w_type.shape[2:], **_shared(attrs))),
    samples=(Sample((_f(2, 4, 6, 5), _f(4, 3, 3, 2)), {"size": (6, 5), **_same}),
             Sample((_f(2, 3, 3, 5), _f(3, 2, 3, 2)), {"size": (6, 5), **_strided}),
             Sample((_f(2, 6, 3), _f(6, 2, 3)), {"size": (7,), **_in_groups}),
             Sample((_f(2, 3, 3), _f(3, 2, 3)), {"size": (8,), **_spread})))

conv_weight_grad = op(
    "conv_weight_grad", "x g", f"kernel {_names}", infer=_weight_grad_infer, ref=_weight_grad_ref,
    decompose=_weight_grad, costly=True, batch=_weight_grad_batch,
    vjp=(lambda ct, g, x_type, attrs: conv_input_grad(conjugate(g), ct, size=x_type.shape[2:], **_shared(attrs)),
         lambda ct, x, g_type, attrs: _conv_first(conjugate(x), ct, g_type, attrs)),
    samples=(Sample((_f(2, 3, 6, 5), _f(2, 4, 6, 5)), {"kernel": (3, 2), **_same}),
             Sample((_f(2, 2, 6, 5), _f(2, 3, 3, 5)), {"kernel": (3, 2), **_strided}),
             Sample((_f(2, 4, 7), _f(2, 6, 3)), {"kernel": (3,), **_in_groups}),
             Sample((_f(2, 2, 8), _f(2, 3, 3)), {"kernel": (3,), **_spread})))
