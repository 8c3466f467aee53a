"""Products, convolutions, and what goes by indices, as ONNX nodes."""

from __future__ import annotations

import math
from typing import Any

import graphc.ops as ops
from graphc.ir import Node
from graphc.onnx_format.export.table import MISSING, expands, writes
from graphc.onnx_format.export.writer import Step, Writer, widened
from graphc.types import Size, TensorType, int32, int64


@writes("matmul")
def _matmul(w: Writer, step: Step) -> str:
    return widened(w, step, lambda names: str(w.emit("MatMul", *names)))


@writes("contract")
def _contract(w: Writer, step: Step) -> str:
    return widened(w, step, lambda names: str(w.emit("Einsum", *names, equation=step.attrs["spec"])))


@writes("det")
def _det(w: Writer, step: Step) -> str:
    return str(w.emit("Det", *step.names))


def _conv_attributes(step: Step) -> dict[str, Any]:
    padding = step.attrs["padding"]
    return {
        "strides": list(step.attrs["stride"]), "dilations": list(step.attrs["dilation"]), "group": step.attrs["groups"],
        "pads": [*(low for low, _ in padding), *(high for _, high in padding)],
    }  # fmt: skip


@writes("conv")
def write_conv(w: Writer, step: Step) -> str | None:
    """Two operands, or three: with a bias. None for integers, of which ONNX has no convolutions that are exact."""
    if not step.dtype.is_floating_point:
        return None
    return str(w.emit("Conv", *step.names, kernel_shape=list(step.operands[1].shape[2:]), **_conv_attributes(step)))


def _more(node: Node | Step) -> list[Size]:
    """By how much a result is longer than what a transposed convolution comes to."""
    spatial = zip(node.attrs["size"], node.operands[0].shape[2:], node.operands[1].shape[2:], node.attrs["stride"],
                  node.attrs["padding"], node.attrs["dilation"])
    return [size - ((g - 1) * s + d * (k - 1) + 1 - sum(p)) for size, g, k, s, p, d in spatial]


def reaches_all(node: Node) -> bool:
    """Whether a transposed convolution reaches every number of its result, so that a bias can be added by it."""
    return all(isinstance(n, int) and 0 <= n < s for n, s in zip(_more(node), node.attrs["stride"]))


@writes("conv_input_grad")
def write_conv_transpose(w: Writer, step: Step) -> str | None:
    """Two operands, or three: with a bias. None where a transposed convolution does not come to the size; then the op is
    decomposed."""
    if not step.dtype.is_floating_point:
        return None
    attributes = _conv_attributes(step)
    more = [n for n in _more(step) if isinstance(n, int) and n >= 0]
    if len(more) < len(step.attrs["size"]):
        return None
    beyond = [max(0, n - s + 1) for n, s in zip(more, step.attrs["stride"])]
    attributes["output_padding"] = [n - b for n, b in zip(more, beyond)]
    out = str(w.emit("ConvTranspose", *step.names, kernel_shape=list(step.operands[1].shape[2:]), **attributes))
    if not any(beyond):
        return out
    lead = len(step.type.shape) - len(beyond)  # rows that no kernel reaches
    return str(w.emit("Pad", out, w.sizes([*(0 for _ in step.type.shape), *(0 for _ in range(lead)), *beyond]),
                      w.number(0, step.dtype)))


# Places that are data


@writes("gather")
def _gather(w: Writer, step: Step) -> str:
    x, index = step.operands
    places = as_index(w, step.names[1], index.type)
    if x.ndim == index.ndim == 1:
        return str(w.emit("Gather", step.names[0], places, axis=0))
    return str(w.emit("GatherElements", step.names[0], places, axis=step.attrs["axis"]))


def as_index(w: Writer, name: str, type_: TensorType) -> str:
    """Places in a dtype that ONNX takes for them."""
    return name if type_.dtype in (int32, int64) else w.cast(name, int64)


_SCATTER = {"scatter_update": None, "scatter_add": "add", "scatter_mul": "mul", "scatter_max": "max", "scatter_min": "min"}


@writes(*_SCATTER)
def _scatter(w: Writer, step: Step) -> str:
    base, index, src = step.names
    index = as_index(w, index, step.operands[1].type)
    return str(w.emit("ScatterElements", base, index, src, axis=step.attrs["axis"], reduction=_SCATTER[step.op.name]))


# In other words


@expands("attention")
def _attention(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool, zeros: bool) -> Any:
    """The result, and the logarithms of the sums of exp(scores)."""
    shape = (*q.shape[:-1], k.shape[-2])
    axes = (len(shape) - 1,)
    seen = ops.broadcast_to(mask, shape)
    if causal:
        row, column = (ops.iota(shape=shape, axis=len(shape) - n, dtype=int64, like=q) for n in (2, 1))
        seen = seen & (row >= column)
    scores = ops.where(seen, ops.matmul(q, ops.transpose_last(k)) * scale, -math.inf)
    greatest = ops.amax(scores, axes)
    nothing = ops.eq(greatest, -math.inf)
    shift = ops.where(nothing, 0.0, greatest)
    powers = ops.exp(scores - ops.expand(shift, shape, axes))
    total = ops.sum(powers, axes)
    weights, logarithms = powers / ops.expand(total, shape, axes), ops.log(total) + shift
    if zeros:
        weights = ops.where(ops.expand(nothing, shape, axes), 0.0, weights)
        logarithms = ops.where(nothing, math.inf, logarithms)
    return ops.matmul(weights, v), logarithms


MISSING.update(dict.fromkeys(
    ("cholesky", "cholesky_solve", "cofactor", "eig", "eigh", "eigvals", "eigvalsh", "geqrf", "inv", "ldl_factor", "ldl_solve",
     "lstsq", "lu_factor", "matrix_exp", "permutation", "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "triangular_solve"),
    "ONNX has no factorisations of matrices, and solves no systems",
))
MISSING.update(dict.fromkeys(
    ("random_bits",), "ONNX's random numbers are other ones; compute them outside, and pass them as an input"))
