"""Products of matrices, and convolutions."""

from __future__ import annotations

import math
import string
from typing import Any

import graphc.ops as ops
from graphc.ir import Value
from graphc.onnx_format.reader.call import Call
from graphc.onnx_format.reader.limits import BadModel
from graphc.onnx_format.reader.table import reads
from graphc.types import Shape, broadcast_shapes


def matmul(x: Value, y: Value) -> Value:
    """A product of vectors, matrices, or batches of matrices, as NumPy's."""
    left, right = x.ndim == 1, y.ndim == 1
    if min(x.ndim, y.ndim) == 0:
        raise BadModel("a product of matrices with a number", got=f"{x.type} @ {y.type}")
    x = ops.reshape(x, (1, *x.shape)) if left else x
    y = ops.reshape(y, (*y.shape, 1)) if right else y
    if y.ndim == 2 and x.ndim > 2:  # the rows of all of them as one matrix
        rows = tuple(x.shape[:-1])
        out = ops.reshape(ops.matmul(ops.reshape(x, (math.prod(rows), x.shape[-1])), y), (*rows, y.shape[-1]))
    else:
        batch = broadcast_shapes(tuple(x.shape[:-2]), tuple(y.shape[:-2]))
        out = ops.matmul(stretched(x, batch), stretched(y, batch))
    if right:
        out = ops.reshape(out, tuple(out.shape[:-1]))
    return ops.reshape(out, (*out.shape[: out.ndim - 1 - (not right)], *out.shape[out.ndim - (not right) :])) if left else out


def stretched(x: Value, batch: Shape) -> Value:
    return ops.broadcast_to(x, (*batch, *x.shape[-2:]))


@reads("MatMul")
def _matmul(c: Call) -> Value:
    return matmul(c[0], c[1])


@reads("Gemm")
def _gemm(c: Call) -> Value:
    a, b = c[0], c[1]
    a = ops.transpose_last(a) if c.int("transA", 0) else a
    b = ops.transpose_last(b) if c.int("transB", 0) else b
    out = ops.matmul(a, b)
    alpha, beta = c.float("alpha", 1.0), c.float("beta", 1.0)
    out = out if alpha == 1 else _scaled(out, alpha)
    if not c.has(2):
        return out
    return out + (c[2] if beta == 1 else _scaled(c[2], beta))


def _scaled(x: Value, factor: float) -> Value:
    return x * (factor if x.dtype.is_floating_point else int(factor))


@reads("Det")
def _det(c: Call) -> Value:
    return ops.det(c[0])


# Einsum


@reads("Einsum")
def _einsum(c: Call) -> Value:
    """One operand after the other: diagonals taken, what stands nowhere else summed, and the rest contracted."""
    inputs, arrow, out = c.text("equation").replace(" ", "").partition("->")
    specs = inputs.split(",")
    values = c.values()
    if len(specs) != len(values):
        raise BadModel("the equation of an Einsum", expected=f"{len(values)} operands", got=c.text("equation"))
    unused = [letter for letter in string.ascii_letters if letter not in inputs + out]
    most = max(x.ndim - len(s.replace("...", "")) for s, x in zip(specs, values))
    dots = "".join(unused[:most])
    specs = [s.replace("...", dots[len(dots) - (x.ndim - len(s.replace("...", ""))) :]) for s, x in zip(specs, values)]
    if not arrow:
        letters = "".join(specs)
        out = dots + "".join(sorted(s for s in set(letters) if letters.count(s) == 1 and s not in dots))
    out = out.replace("...", dots)
    operands = [_plain(x, s) for x, s in zip(values, specs)]
    sizes: dict[str, Any] = {}
    for x, s in operands:
        for letter, size in zip(s, x.shape):
            if letter not in sizes or sizes[letter] == 1:
                sizes[letter] = size
    current, letters = operands[0]
    for k, (x, s) in enumerate(operands[1:], 1):
        later = set(out).union(*(t for _, t in operands[k + 1 :]))
        current, letters = _contracted(current, letters, x, s, later)
    current, letters = _summed(current, letters, set(out))
    current = ops.permute(current, tuple(letters.index(letter) for letter in out if letter in letters))
    return ops.broadcast_to(current, tuple(sizes[letter] for letter in out)) if out else current


def _plain(x: Value, letters: str) -> tuple[Value, str]:
    """Each letter once: of those that stand twice the diagonal."""
    for letter in dict.fromkeys(letters):
        while letters.count(letter) > 1:
            row, column = [i for i, s in enumerate(letters) if s == letter][:2]
            x = ops.diagonal(x, 0, row, column)
            letters = letters[:row] + letters[row + 1 : column] + letters[column + 1 :] + letter
    return x, letters


def _summed(x: Value, letters: str, wanted: set[str]) -> tuple[Value, str]:
    axes = tuple(i for i, letter in enumerate(letters) if letter not in wanted)
    return (ops.sum(x, axes) if axes else x), "".join(letter for letter in letters if letter in wanted)


def _contracted(x: Value, left: str, y: Value, right: str, later: set[str]) -> tuple[Value, str]:
    for letter in set(left) & set(right):  # a size of 1 stands for any
        a, b = x.shape[left.index(letter)], y.shape[right.index(letter)]
        if isinstance(a, int) and a == 1 and not (isinstance(b, int) and b == 1):
            x = ops.broadcast_to(x, tuple(b if s == letter else n for s, n in zip(left, x.shape)))
        elif isinstance(b, int) and b == 1 and not (isinstance(a, int) and a == 1):
            y = ops.broadcast_to(y, tuple(a if s == letter else n for s, n in zip(right, y.shape)))
    x, left = _summed(x, left, set(right) | later)
    y, right = _summed(y, right, set(left) | later)
    out = "".join(letter for letter in dict.fromkeys(left + right) if letter in later)
    return ops.contract(x, y, f"{left},{right}->{out}"), out


# Convolutions


def spatial(c: Call, kernel: tuple[int, ...], sizes: Any) -> dict[str, Any]:
    """Strides, dilations and padding of a convolution or a pooling."""
    n = len(kernel)
    strides, dilations = c.ints("strides", (1,) * n), c.ints("dilations", (1,) * n)
    if not len(strides) == len(dilations) == n:
        raise BadModel("strides and dilations", expected=f"{n} of each", got=f"{strides} and {dilations}")
    pads = c.ints("pads", (0,) * (2 * n))
    auto = c.text("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        total = [max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
                 for size, s, d, k in zip(map(int, sizes), strides, dilations, kernel)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = (*small, *large) if auto == "SAME_UPPER" else (*large, *small)
    elif auto == "VALID":
        pads = (0,) * (2 * n)
    elif auto != "NOTSET":
        raise BadModel(f"auto_pad {auto!r}", expected="NOTSET, SAME_UPPER, SAME_LOWER or VALID")
    if len(pads) != 2 * n:
        raise BadModel("the padding", expected=f"{2 * n} numbers", got=str(pads))
    return {"stride": strides, "padding": tuple(zip(pads[:n], pads[n:])), "dilation": dilations}


def biased(out: Value, bias: Value | None) -> Value:
    """With a number added for each channel."""
    return out if bias is None else out + ops.reshape(bias, (bias.shape[0], *(1 for _ in range(out.ndim - 2))))


def check_kernel(c: Call, kernel: tuple[int, ...]) -> None:
    if c.ints("kernel_shape", kernel) != kernel:
        raise BadModel("kernel_shape is not that of the weight", expected=str(kernel), got=str(c.ints("kernel_shape")))


@reads("Conv")
def _conv(c: Call) -> Value:
    x, w = c[0], c[1]
    kernel = tuple(w.shape[2:])
    check_kernel(c, kernel)
    return biased(ops.conv(x, w, groups=c.int("group", 1), **spatial(c, kernel, x.shape[2:])), c.optional(2))


@reads("ConvTranspose")
def _conv_transpose(c: Call) -> Value:
    x, w = c[0], c[1]
    kernel = tuple(w.shape[2:])
    check_kernel(c, kernel)
    n = len(kernel)
    strides, dilations = c.ints("strides", (1,) * n), c.ints("dilations", (1,) * n)
    more = c.ints("output_padding", (0,) * n)
    pads = list(c.ints("pads", (0,) * (2 * n)))
    full = [s * (size - 1) + d * (k - 1) + 1 for size, s, d, k in zip(x.shape[2:], strides, dilations, kernel)]
    auto, wanted = c.text("auto_pad", "NOTSET"), c.ints("output_shape")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(size * s for size, s in zip(x.shape[2:], strides))
    if wanted is not None:
        total = [max(0, f + m - size) for f, m, size in zip(full, more, wanted[-n:])]
        halves = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = [*halves[0], *halves[1]] if auto == "SAME_UPPER" else [*halves[1], *halves[0]]
        sizes = tuple(wanted[-n:])
    else:
        sizes = tuple(f + m - pads[i] - pads[i + n] for i, (f, m) in enumerate(zip(full, more)))
    out = ops.conv_input_grad(x, w, size=sizes, stride=strides, padding=tuple(zip(pads[:n], pads[n:])), dilation=dilations,
                              groups=c.int("group", 1))
    return biased(out, c.optional(2))
