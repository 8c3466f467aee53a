"""Products of matrices, and the general contraction that they and convolutions are lowered to."""

from __future__ import annotations

import math
import string
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.op import Sample, op
from graphc.ops.complex_numbers import conjugate
from graphc.ops.movement import permute, reshape, stack_operand
from graphc.types import Size, TensorType, float32, float64

_a = TensorType(float32, (3, 4))
_b = TensorType(float32, (4, 5))


def transpose_last(x: Any) -> Any:
    """Exchange the last two dimensions."""
    n = len(x.shape)
    return permute(x, (*range(n - 2), n - 1, n - 2))


def adjoint(x: Any) -> Any:
    """The conjugate transpose of the last two dimensions."""
    return conjugate(transpose_last(x))


def _matmul_infer(x: TensorType, y: TensorType) -> TensorType:
    if x.dtype is not y.dtype:
        raise DTypeError(f"expected m1 and m2 to have the same dtype, but got: {x.dtype.name} != {y.dtype.name}",
                         hint="convert one with .to(dtype)", got=f"{x} @ {y}")
    if x.ndim < 2 or x.ndim != y.ndim or x.shape[:-2] != y.shape[:-2]:
        raise ShapeError("matmul: operands are not matrices of one batch",
                         expected="[..., m, k] @ [..., k, n] with equal leading sizes", got=f"{x} @ {y}")
    if x.shape[-1] != y.shape[-2]:
        left, right = ("x".join(map(str, t.shape[-2:])) for t in (x, y))
        raise ShapeError(f"mat1 and mat2 shapes cannot be multiplied ({left} and {right})",
                         expected="left.shape[-1] == right.shape[-2]", got=f"{x.shape[-1]} != {y.shape[-2]}   ({x} @ {y})")
    return x.with_shape((*x.shape[:-1], y.shape[-1]))


def _matmul_ref(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.matmul(x, y).astype(x.dtype, copy=False)  # of bfloat16 NumPy makes float32


def _matmul_decompose(x: Any, y: Any) -> Any:
    batch = "".join(letter for letter in string.ascii_letters if letter not in "ijk")[: len(x.shape) - 2]
    return contract(x, y, f"{batch}ik,{batch}kj->{batch}ij")


def _matmul_batch(size: Size, batched: tuple[bool, bool], x: Any, y: Any) -> Any:
    if not batched[1] and len(y.shape) == 2:  # the rows of all of them as one matrix
        rows = tuple(x.shape)[1:-1]
        product = matmul(reshape(x, (math.prod((size, *rows)), x.shape[-1])), y)
        return reshape(product, (size, *rows, y.shape[-1]))
    return matmul(stack_operand(x, size, batched[0]), stack_operand(y, size, batched[1]))


matmul = op("matmul", "x y", infer=_matmul_infer, ref=_matmul_ref, decompose=_matmul_decompose, batch=_matmul_batch,
            vjp=(lambda ct, y: matmul(ct, adjoint(y)), lambda ct, x: matmul(adjoint(x), ct)),
            samples=(Sample((_a, _b)), Sample((TensorType(float32, (2, 3, 4)), TensorType(float32, (2, 4, 5)))),
                     Sample((TensorType(float64, (3, 4)), TensorType(float64, (4, 1))))))


def parse_spec(spec: str) -> tuple[str, str, str]:
    """The dimensions' letters of left operand, right operand and result of "ik,kj->ij"."""
    inputs, arrow, out = spec.partition("->")
    left, comma, right = inputs.partition(",")
    letters = left + right + out
    if not arrow or not comma or not (letters + "x").isalpha() or any(len(set(s)) != len(s) for s in (left, right, out)):
        raise ArgumentError(f"contract: {spec!r} is not a contraction", expected='letters as in "bik,bkj->bij", each once')
    if set(out) - set(left + right) or (set(left) ^ set(right)) - set(out):
        raise ArgumentError(f"contract: {spec!r} is not a contraction",
                            expected="letters of one operand in the result, letters of the result in an operand")
    return left, right, out


def _contract_infer(x: TensorType, y: TensorType, spec: str) -> TensorType:
    left, right, out = parse_spec(spec)
    if x.dtype is not y.dtype:
        raise DTypeError("contract: operands differ in dtype", got=f"{x} and {y}")
    sizes: dict[str, Size] = {}
    for letters, type_ in ((left, x), (right, y)):
        if len(letters) != type_.ndim:
            raise ShapeError(f"contract: {spec!r} does not fit", expected=f"{len(letters)} dimensions", got=str(type_))
        for letter, size in zip(letters, type_.shape):
            if sizes.setdefault(letter, size) != size:
                raise ShapeError(f"contract: dimension {letter!r} of {spec!r} has two sizes",
                                 expected=f"{sizes[letter]}", got=f"{size}   ({x} and {y})")
    return x.with_shape(sizes[letter] for letter in out)


def _contract_ref(x: np.ndarray, y: np.ndarray, spec: str) -> np.ndarray:
    """As one product of (batches of) matrices, which NumPy leaves to BLAS."""
    left, right, out = parse_spec(spec)
    size = {**dict(zip(left, x.shape)), **dict(zip(right, y.shape))}
    batch = [c for c in left if c in right and c in out]
    summed = [c for c in left if c in right and c not in out]
    rows, columns = [c for c in left if c not in right], [c for c in right if c not in left]

    def arranged(array: np.ndarray, letters: str, *groups: list[str]) -> np.ndarray:
        order = [letters.index(c) for group in (batch, *groups) for c in group]
        return array.transpose(order).reshape([size[c] for c in batch] + [math.prod(size[c] for c in g) for g in groups])

    product = _matmul_ref(arranged(x, left, rows, summed), arranged(y, right, summed, columns))
    made = [*batch, *rows, *columns]
    return product.reshape([size[c] for c in made]).transpose([made.index(c) for c in out])


def _contract_left(ct: Any, y: Any, spec: str) -> Any:
    left, right, out = parse_spec(spec)
    return contract(ct, conjugate(y), f"{out},{right}->{left}")


def _contract_right(ct: Any, x: Any, spec: str) -> Any:
    left, right, out = parse_spec(spec)
    return contract(conjugate(x), ct, f"{left},{out}->{right}")


def _contract_batch(size: Size, batched: tuple[bool, bool], x: Any, y: Any, spec: str) -> Any:
    left, right, out = parse_spec(spec)
    letter = next(c for c in string.ascii_letters if c not in spec)
    left, right = (letter + letters if own else letters for letters, own in zip((left, right), batched))
    return contract(x, y, f"{left},{right}->{letter}{out}")


contract = op("contract", "x y", "spec", infer=_contract_infer, ref=_contract_ref, kernel="contract", batch=_contract_batch,
              vjp=(_contract_left, _contract_right),
              samples=(Sample((_a, _b), {"spec": "ik,kj->ji"}),
                       Sample((TensorType(float32, (2, 3, 4)), TensorType(float32, (4, 3, 5))), {"spec": "bki,ikj->bj"})))
