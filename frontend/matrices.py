"""Products of matrices and vectors."""

from __future__ import annotations

import math
import string
from collections.abc import Callable
from typing import Any

from graphc import ops
from graphc.errors import DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import emit, scalar_type
from graphc.frontend.autocast import full_precision, lowered
from graphc.frontend.composite import composite
from graphc.frontend.modes import mode
from graphc.frontend.movement import expand, reshape, unsqueeze
from graphc.frontend.pointwise import cast
from graphc.frontend.reductions import sum
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import bool_, broadcast_shapes, float32, int64

FUNCTIONS = "addbmm addmm addmv addr baddbmm bmm dot inner matmul mm mv outer tensordot vdot"
METHODS = "addbmm addmm addmv addr baddbmm bmm dot inner matmul mm mv outer trace vdot"
IN_PLACE = "addbmm addmm addmv addr baddbmm"
ALIASES = {"ger": "outer"}


def _product(x: Tensor, y: Tensor) -> Tensor:
    if x.dtype is bool_ and y.dtype is bool_:
        return cast(emit(ops.matmul, (cast(x, int64), cast(y, int64)), {}), bool_)
    return emit(ops.matmul, (x, y), {})


@composite
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The product of matrices, of batches of them (which stretch to each other), or of vectors. [..., n, k] and [..., k, m]
    give [..., n, m].

    A vector on the left is a row, one on the right a column; its dimension is dropped from the result.

    GraphcError for a single number, ShapeError where the inner sizes differ.

    >>> graphc.matmul(graphc.tensor([[1.0, 2.0], [3.0, 4.0]]), graphc.tensor([1.0, 1.0]))
    tensor([3., 7.])
    >>> graphc.matmul(graphc.ones(5, 2, 3), graphc.ones(3, 4)).shape
    graphc.Size([5, 2, 4])
    """
    if mode.autocast is not None:
        input, other = lowered(input, mode.autocast), lowered(other, mode.autocast)
    left, right = input._data.shape, other._data.shape
    if not left or not right:
        raise GraphcError("both arguments to matmul need to be at least 1D, but they are "
                          f"{len(left)}D and {len(right)}D")
    if len(left) == 2 and len(right) == 2:
        return named(_product(input, other), "Mm")
    if len(left) == 1 and len(right) == 1:
        return dot(input, other)
    if len(right) == 1:
        if left[-1] != right[0]:
            raise ShapeError(f"size mismatch, got input ({left[-2]}), mat ({left[-2]}x{left[-1]}), vec ({right[0]})")
        out = matmul(input, reshape(other, (right[0], 1)))
        return named(reshape(out, out._data.shape[:-1]), "Mv")
    if len(left) == 1:
        out = matmul(reshape(input, (1, left[0])), other)
        return named(reshape(out, (*out._data.shape[:-2], out._data.shape[-1])), "Squeeze")
    if len(right) == 2:
        # one matrix for the whole batch: a single product of tall matrices
        flat = _product(reshape(input, (math.prod(left[:-1]), left[-1])) if len(left) > 2 else input, other)
        return named(reshape(flat, (*left[:-1], right[-1])), "UnsafeView")
    batch = broadcast_shapes(left[:-2], right[:-2], op="matmul")
    x = input if left[:-2] == batch else expand(input, (*batch, *left[-2:]))
    y = other if right[:-2] == batch else expand(other, (*batch, *right[-2:]))
    return named(_product(x, y), "Bmm" if len(batch) == 1 else "UnsafeView")


@composite
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices, [N, K] and [K, M]: [N, M]. GraphcError for what is no matrix, ShapeError where the inner
    sizes differ.

    >>> graphc.mm(graphc.tensor([[1.0, 2.0]]), graphc.tensor([[3.0], [4.0]]))
    tensor([[11.]])
    """
    if len(input._data.shape) != 2:
        raise GraphcError("self must be a matrix", got=str(list(input.shape)))
    if len(mat2._data.shape) != 2:
        raise GraphcError("mat2 must be a matrix", got=str(list(mat2.shape)))
    if mode.autocast is not None:
        input, mat2 = lowered(input, mode.autocast), lowered(mat2, mode.autocast)
    return named(_product(input, mat2), "Mm")


@composite(large=False)
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two equally long stacks of matrices, [B, N, K] and [B, K, M]: [B, N, M].

    GraphcError for operands that are not of three dimensions, ShapeError where batches or inner sizes differ.

    >>> graphc.bmm(graphc.ones(2, 1, 3), graphc.ones(2, 3, 4)).shape
    graphc.Size([2, 1, 4])
    """
    for name, x in (("batch1", input), ("batch2", mat2)):
        if len(x._data.shape) != 3:
            raise GraphcError(f"{name} must be a 3D tensor", got=str(list(x.shape)))
    if input._data.shape[0] != mat2._data.shape[0] or input._data.shape[2] != mat2._data.shape[1]:
        a, b = list(input.shape), list(mat2.shape)
        raise ShapeError(f"Expected size for first two dimensions of batch2 tensor to be: [{a[0]}, {a[2]}] but got: "
                         f"[{b[0]}, {b[1]}].")
    if mode.autocast is not None:
        input, mat2 = lowered(input, mode.autocast), lowered(mat2, mode.autocast)
    return named(_product(input, mat2), "Bmm")


@composite(large=False)
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix [N, K] and a vector [K]: [N].

    GraphcError for operands that are not a matrix and a vector, ShapeError where their sizes differ.

    >>> graphc.mv(graphc.tensor([[1.0, 2.0], [3.0, 4.0]]), graphc.tensor([1.0, 1.0]))
    tensor([3., 7.])
    """
    if len(input._data.shape) != 2 or len(vec._data.shape) != 1:
        raise GraphcError(f"vector + matrix @ vector expected, got 1, {input.dim()}, {vec.dim()}")
    if input._data.shape[1] != vec._data.shape[0]:
        rows, columns = input._data.shape
        raise ShapeError(f"size mismatch, got input ({rows}), mat ({rows}x{columns}), vec ({vec._data.shape[0]})")
    return named(reshape(_product(input, reshape(vec, (-1, 1))), input._data.shape[:1]), "Mv")


@composite(large=False)
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The sum of the products of two vectors' elements. [n] and [n] give [].

    GraphcError for operands that are not vectors, ShapeError where their sizes differ, DTypeError where their dtypes do.

    >>> graphc.dot(graphc.tensor([1.0, 2.0]), graphc.tensor([3.0, 4.0]))
    tensor(11.)
    """
    a, b = input._data.shape, tensor._data.shape
    if len(a) != 1 or len(b) != 1:
        raise GraphcError(f"1D tensors expected, but got {len(a)}D and {len(b)}D tensors")
    if a != b:
        raise ShapeError(f"inconsistent tensor size, expected tensor [{a[0]}] and src [{b[0]}] to have the same number of "
                         f"elements, but got {a[0]} and {b[0]} elements respectively")
    if input.dtype is not tensor.dtype:
        raise DTypeError(f"dot : expected both vectors to have same dtype, but found {scalar_type(input.dtype)} and "
                         f"{scalar_type(tensor.dtype)}")
    out = _product(reshape(input, (1, a[0])), reshape(tensor, (a[0], 1)))
    return named(reshape(out, ()), "Dot")


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The sum of the products of one vector's conjugates with the other's elements. [n] and [n] give [].

    GraphcError for what is not a vector, ShapeError where the sizes differ, DTypeError where the dtypes do.

    >>> graphc.vdot(graphc.tensor([1j]), graphc.tensor([1j]))
    tensor(1.+0.j)
    """
    return dot(ops.conjugate(input), other)


@composite(large=False)
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The products of every element of one vector with every one of another.

    GraphcError for what is not a vector.

    >>> graphc.outer(graphc.tensor([1.0, 2.0]), graphc.tensor([3.0, 4.0]))
    tensor([[3., 4.],
            [6., 8.]])
    """
    if len(input._data.shape) != 1 or len(vec2._data.shape) != 1:
        raise GraphcError(f"outer: Expected 1-D arguments, but got {input.dim()}D and {vec2.dim()}D")
    return reshape(input, (-1, 1)) * reshape(vec2, (1, -1))


def inner(input: Tensor, other: Tensor) -> Tensor:
    """The products summed over the last dimensions of both. [*a, k] and [*b, k] give [*a, *b].

    ShapeError where the last sizes differ.

    >>> graphc.inner(graphc.tensor([1.0, 2.0]), graphc.tensor([[3.0, 4.0], [5.0, 6.0]]))
    tensor([11., 17.])
    """
    if not input._data.shape or not other._data.shape:
        return input * other
    if input._data.shape[-1] != other._data.shape[-1]:
        raise ShapeError("inner() the last dimension must match on both input tensors but got shapes "
                         f"{list(input.shape)} and {list(other.shape)}")
    return tensordot(input, other, ([-1], [-1]))


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """The products summed over dimensions of `a` paired with dimensions of `b`: the last and first `dims`, or two lists.

    GraphcError where there are not as many dimensions on both sides, DTypeError where the dtypes differ; ShapeError where the
    sizes differ.

    >>> graphc.tensordot(graphc.ones(2, 3, 4), graphc.ones(4, 3), dims=([1, 2], [1, 0]))
    tensor([12., 12.])
    """
    if mode.autocast is not None:
        a, b = lowered(a, mode.autocast), lowered(b, mode.autocast)
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise GraphcError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(a.ndim, b.ndim):
            raise GraphcError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        left, right = list(range(a.ndim - dims, a.ndim)), list(range(dims))
    else:
        left, right = ([d] if isinstance(d, int) else list(d) for d in dims)
    if len(left) != len(right):
        raise GraphcError("both dimension lists should have same length", got=f"{left} and {right}")
    if a.dtype is not b.dtype:
        raise DTypeError("both inputs should have same dtype", got=f"{a.dtype.name} and {b.dtype.name}")
    left = [ops.normalize_axis(d, a.ndim) for d in left]
    right = [ops.normalize_axis(d, b.ndim) for d in right]
    for i, j in zip(left, right, strict=True):
        # a size of 1 stretches: the other side is summed up
        if a._data.shape[i] == 1 and b._data.shape[j] != 1:
            b = sum(b, j, keepdim=True)
        elif b._data.shape[j] == 1 and a._data.shape[i] != 1:
            a = sum(a, i, keepdim=True)
        if a._data.shape[i] != b._data.shape[j]:
            raise ShapeError(f"contracted dimensions need to match, but first has size {a._data.shape[i]} in dim {i} and "
                             f"second has size {b._data.shape[j]} in dim {j}")
    letters = iter(string.ascii_letters)
    names_a = [next(letters) for _ in range(a.ndim)]
    names_b = [names_a[left[right.index(j)]] if j in right else next(letters) for j in range(b.ndim)]
    out = [n for i, n in enumerate(names_a) if i not in left] + [n for j, n in enumerate(names_b) if j not in right]
    return emit(ops.contract, (a, b), {"spec": f"{''.join(names_a)},{''.join(names_b)}->{''.join(out)}"})


def _plus(name: str, input: Tensor, multiply: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor,
          beta: Any, alpha: Any) -> Tensor:
    """beta * input + alpha * the product of left and right; of half precision rounded once, at the end."""
    if mode.autocast is not None and name not in ("Addmv", "Addr"):
        input, left, right = lowered(input, mode.autocast), lowered(left, mode.autocast), lowered(right, mode.autocast)
    dtype = input.dtype
    if dtype.is_floating_point and dtype.bits < 32 and dtype is left.dtype is right.dtype:
        product = multiply(cast(left, float32), cast(right, float32))
        return named(cast(_added(name, cast(input, float32), product, beta, alpha), dtype), name)
    return _added(name, input, multiply(left, right), beta, alpha)


def _added(name: str, input: Tensor, product: Tensor, beta: Any, alpha: Any) -> Tensor:
    if not product.dtype.is_differentiable:
        beta, alpha = int(beta), int(alpha)  # as PyTorch: the factors take the dtype of the tensors
    scaled = product if alpha == 1 else product * alpha
    if beta == 0:
        return named(expand(scaled, product._data.shape), name)
    if broadcast_shapes(input._data.shape, product._data.shape, op=name.lower()) != product._data.shape:
        input = expand(input, product._data.shape)  # says that it does not stretch
    return named((input if beta == 1 else input * beta) + scaled, name)


@composite
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * mat1 @ mat2.

    >>> graphc.addmm(graphc.ones(1, 1), graphc.tensor([[1.0, 2.0]]), graphc.tensor([[3.0], [4.0]]), beta=10)
    tensor([[21.]])
    """
    return _plus("Addmm", input, mm, mat1, mat2, beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * mat @ vec.

    >>> graphc.addmv(graphc.zeros(1), graphc.tensor([[1.0, 2.0]]), graphc.tensor([3.0, 4.0]), alpha=2)
    tensor([22.])
    """
    return _plus("Addmv", input, mv, mat, vec, beta, alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * outer(vec1, vec2).

    >>> graphc.addr(graphc.ones(2, 2), graphc.tensor([1.0, 2.0]), graphc.tensor([3.0, 4.0]))
    tensor([[4., 5.],
            [7., 9.]])
    """
    return _plus("Addr", input, outer, vec1, vec2, beta, alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * batch1 @ batch2, matrix by matrix.

    >>> graphc.baddbmm(graphc.zeros(2, 1, 1), graphc.ones(2, 1, 3), graphc.ones(2, 3, 1))
    tensor([[[3.]],
    <BLANKLINE>
            [[3.]]])
    """
    return _plus("Baddbmm", input, bmm, batch1, batch2, beta, alpha)


def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta * input + alpha * the sum of batch1 @ batch2 over the batch. batch1 is [b, n, k], batch2 is [b, k, m], and the input
    stretches to the result's [n, m].

    GraphcError for operands that are not of three dimensions, ShapeError where the sizes do not fit.

    >>> graphc.addbmm(graphc.zeros(1, 1), graphc.ones(2, 1, 3), graphc.ones(2, 3, 1))
    tensor([[6.]])
    """
    return _plus("Addbmm", input, lambda x, y: sum(bmm(x, y), 0), batch1, batch2, beta, alpha)


@full_precision
@composite(large=False)
def trace(input: Tensor) -> Tensor:
    """The sum of the elements on the diagonal of a matrix.

    GraphcError for what is not a matrix.

    >>> graphc.trace(graphc.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor(5.)
    """
    if len(input._data.shape) != 2:
        raise GraphcError(f"trace: expected a matrix, but got tensor with dim {input.dim()}")
    return named(sum(emit(ops.diagonal, (input,), {"offset": 0, "row": 0, "column": 1})), "Trace")


@composite
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias, over the last dimension of the input: [..., I], [O, I] and [O] give [..., O].

    ShapeError where the last size is not the weight's, DTypeError where the dtypes differ.

    >>> F.linear(graphc.tensor([[1.0, 2.0]]), graphc.tensor([[3.0, 4.0]]), graphc.tensor([0.5]))
    tensor([[11.5000]])
    """
    if len(weight._data.shape) == 1:
        out = matmul(input, weight)
    else:
        out = matmul(input, ops.transpose_last(weight))
    if bias is None:
        return out
    if mode.autocast is not None:
        bias = lowered(bias, mode.autocast)
    return named(emit(ops.add, (out, bias), {}), "Addmm" if len(input._data.shape) == 2 else "View")


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input1 @ weight[k] @ input2 + bias[k] over the last dimensions, for each k of weight [K, I, J]: [..., K].

    ShapeError where the sizes do not fit.

    >>> F.bilinear(graphc.tensor([[1.0, 2.0]]), graphc.tensor([[3.0, 4.0]]), graphc.ones(1, 2, 2))
    tensor([[21.]])
    """
    left, right, (outputs, rows, columns) = input1._data.shape, input2._data.shape, weight._data.shape
    if len(left) != len(right):
        raise ShapeError(f"bilinear(): input dimensions do not match: got {len(left)} and {len(right)}")
    for i, (a, b) in enumerate(zip(left[:-1], right[:-1])):
        if a != b:
            raise ShapeError(f"bilinear(): input batch dimensions do not match at dim {i}: got {a} and {b}")
    for name, got, wanted in (("input1", left[-1], rows), ("input2", right[-1], columns)):
        if got != wanted:
            raise ShapeError(f"bilinear(): {name} size does not match weight size: got {got} but expected {wanted}")
    if bias is not None and bias._data.shape != (outputs,):
        raise ShapeError(f"bilinear(): bias size does not match weight size: got {bias._data.shape[0]} but expected {outputs}")
    products = emit(ops.mul, (unsqueeze(input1, -1), unsqueeze(input2, -2)), {})
    flat = reshape(products, (*left[:-1], rows * columns))
    return linear(flat, reshape(weight, (outputs, rows * columns)), bias)
