"""Products of matrices, convolutions, systems and transforms."""

from __future__ import annotations

import math

from graphc.ops.linalg import parse_spec
from graphc.stablehlo.table import writes
from graphc.stablehlo.writer import Operand, Step, Writer, integers
from graphc.types import TensorType


@writes("contract")
def _contract(w: Writer, step: Step) -> Operand:
    x, y = step.operands
    left, right, out = parse_spec(step.attrs["spec"])
    batch = [c for c in left if c in right and c in out]
    summed = [c for c in left if c in right and c not in out]
    made = [*batch, *(c for c in left if c not in right), *(c for c in right if c not in left)]
    sizes = dict(zip(left, x.type.shape)) | dict(zip(right, y.type.shape))
    lists = {
        "lhs_batching_dimensions": [left.index(c) for c in batch], "rhs_batching_dimensions": [right.index(c) for c in batch],
        "lhs_contracting_dimensions": [left.index(c) for c in summed],
        "rhs_contracting_dimensions": [right.index(c) for c in summed],
    }  # fmt: skip
    numbers = ", ".join(f"{name} = {value}" for name, value in lists.items())
    product = w.emit("dot_general", x, y, type=x.type.with_shape([sizes[c] for c in made]),
                     dot_dimension_numbers=f"#stablehlo.dot<{numbers}>",
                     precision_config="[#stablehlo<precision HIGHEST>, #stablehlo<precision HIGHEST>]")
    return w.transpose(product, [made.index(c) for c in out])


@writes("conv")
def _conv(w: Writer, step: Step) -> Operand:
    x, weight = step.operands
    if 0 in step.type.shape or 0 in x.type.shape:
        return w.number(0, step.type)
    spatial = ", ".join(map(str, range(x.type.ndim - 2)))
    padding = ", ".join(f"[{low}, {high}]" for low, high in step.attrs["padding"])
    return w.emit(
        "convolution", x, weight, type=step.type, window_strides=integers(step.attrs["stride"]),
        padding=f"dense<[{padding}]> : tensor<{x.type.ndim - 2}x2xi64>", rhs_dilation=integers(step.attrs["dilation"]),
        dimension_numbers=f"#stablehlo.conv<[b, f, {spatial}]x[o, i, {spatial}]->[b, f, {spatial}]>",
        feature_group_count=f"{step.attrs['groups']} : i64", batch_group_count="1 : i64",
        precision_config="[#stablehlo<precision HIGHEST>, #stablehlo<precision HIGHEST>]",
    )  # fmt: skip


@writes("triangular_solve")
def _triangular_solve(w: Writer, step: Step) -> Operand:
    def truth(value: bool) -> str:
        return "true" if value else "false"

    return w.emit("triangular_solve", *step.operands, type=step.type, left_side="true", lower=truth(not step.attrs["upper"]),
                  unit_diagonal=truth(step.attrs["unit"]), transpose_a="#stablehlo<transpose NO_TRANSPOSE>")


@writes("fft_c2c")
def _fft(w: Writer, step: Step) -> Operand:
    (x,) = step.operands
    out = x
    for axis in step.attrs["axes"]:
        out = _along(w, out, axis, "IFFT" if step.attrs["inverse"] else "FFT", out.type, out.type.shape[axis])
    return _scaled(w, out, math.prod(x.type.shape[axis] for axis in step.attrs["axes"]), step.attrs["scale"],
                   inverse=step.attrs["inverse"])


@writes("fft_r2c")
def _rfft(w: Writer, step: Step) -> Operand:
    (x,), axis = step.operands, step.attrs["axis"]
    length = x.type.shape[axis]
    return _scaled(w, _along(w, x, axis, "RFFT", step.type, length), length, step.attrs["scale"], inverse=False)


@writes("fft_c2r")
def _irfft(w: Writer, step: Step) -> Operand:
    (x,), axis, length = step.operands, step.attrs["axis"], step.attrs["size"]
    return _scaled(w, _along(w, x, axis, "IRFFT", step.type, length), length, step.attrs["scale"], inverse=True)


def _along(w: Writer, x: Operand, axis: int, kind: str, type_: TensorType, length: int) -> Operand:
    """The transform along one dimension."""
    order = [k for k in range(x.type.ndim) if k != axis] + [axis]
    moved = w.transpose(x, order)
    made = w.emit("fft", moved, type=type_.with_shape([type_.shape[k] for k in order]),
                  fft_type=f"#stablehlo<fft_type {kind}>", fft_length=integers([length]))
    return w.transpose(made, [order.index(k) for k in range(x.type.ndim)])


def _scaled(w: Writer, x: Operand, count: int, scale: str, *, inverse: bool) -> Operand:
    """StableHLO divides inverse transforms by their lengths, and others by nothing."""
    factor = {"none": 1.0, "root": count**-0.5, "full": 1.0 / count}[scale] * (count if inverse else 1)
    return x if factor == 1 else w.same("multiply", x, w.number(factor, x.type))
