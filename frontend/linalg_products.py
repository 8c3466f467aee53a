"""Products, powers and functions of matrices, and determinants."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentTypeError, DTypeError, GraphcError, ShapeError
from graphc.frontend import return_types
from graphc.frontend.arguments import axis, emit, need_tensor, scalar_type
from graphc.frontend.arithmetic import mul
from graphc.frontend.autocast import lowered
from graphc.frontend.copying import clone
from graphc.frontend.creation import ones
from graphc.frontend.cumulative import cumprod
from graphc.frontend.joining import cat, roll
from graphc.frontend.linalg_checks import need_numbers, need_square, one_dtype, several, squares
from graphc.frontend.linalg_solvers import inv
from graphc.frontend.matrices import matmul
from graphc.frontend.modes import mode
from graphc.frontend.movement import expand, reshape, unsqueeze
from graphc.frontend.pointwise import log, where
from graphc.frontend.reductions import sum
from graphc.frontend.tape import named, without_slope
from graphc.frontend.tensor import Tensor
from graphc.frontend.triangles import eye
from graphc.types import bool_, int64

# Determinants


def det(A: Tensor) -> Tensor:
    """The determinants of square matrices, [..., n, n]: [...]. Their gradient is exact for singular matrices too.

    ShapeError for what are no square matrices.

    >>> graphc.linalg.det(graphc.tensor([[2.0, 1.0], [0.0, 3.0]]))
    tensor(6.)
    """
    return named(emit(ops.det, (squares(A, "linalg.det"),), {}), "LinalgDet")


def slogdet(A: Tensor) -> Any:
    """The sign of the determinants (of complex matrices a number of absolute value 1), and log |det A|. A is [..., n, n], the
    results are [...].

    ShapeError for what are no square matrices.

    >>> sign, logarithm = graphc.linalg.slogdet(graphc.tensor([[0.0, 2.0], [2.0, 0.0]]))
    >>> sign, logarithm
    (tensor(-1.), tensor(1.3863))
    """
    return return_types.linalg_slogdet(*several(ops.slogdet, (squares(A, "linalg.slogdet"),), {}, "LinalgSlogdet"))


def logdet(A: Tensor) -> Tensor:
    """The logarithm of the determinants: nan where they are negative, -inf where they are zero. A is [..., n, n], the results
    are [...].

    ShapeError for what are no square matrices.

    >>> graphc.logdet(graphc.tensor([[2.0, 0.0], [0.0, 2.0]]))
    tensor(1.3863)
    """
    sign, logarithm = several(ops.slogdet, (squares(A, "logdet"),), {}, "LinalgSlogdet")
    if A.dtype.is_complex:
        return log(sign) + logarithm
    return where(sign == -1, float("nan"), logarithm)


# Powers


def matrix_power(A: Tensor, n: int) -> Tensor:
    """A multiplied by itself, n factors in all; for a negative n the power of the inverse.

    ArgumentTypeError where n is no int.

    >>> graphc.linalg.matrix_power(graphc.tensor([[1.0, 1.0], [0.0, 1.0]]), 3)
    tensor([[1., 3.],
            [0., 1.]])
    """
    need_square(A, "linalg.matrix_power")
    try:
        count = operator.index(n)
    except TypeError:
        raise ArgumentTypeError(f"matrix_power(): argument 'n' must be int, not {type(n).__name__}") from None
    if count == 0:
        unit = expand(eye(A._data.shape[-1], dtype=A.dtype, device=A.device), A._data.shape)
        return without_slope(clone(unit), (A,), "Copy")
    factor = A if count > 0 else inv(A)
    count = abs(count)
    if count == 1:
        return clone(factor) if factor is A else factor
    result: Tensor | None = None
    while count:
        if count % 2:
            result = factor if result is None else matmul(result, factor)
        count //= 2
        if count:
            factor = matmul(factor, factor)
    assert result is not None  # count was at least 2
    return result


def matrix_exp(A: Tensor) -> Tensor:
    """The sum of A^k / k! over all k >= 0. A is [..., n, n].

    ShapeError for what are no square matrices.

    >>> graphc.linalg.matrix_exp(graphc.tensor([[0.0, 1.0], [0.0, 0.0]]))
    tensor([[1., 1.],
            [0., 1.]])
    """
    return named(emit(ops.matrix_exp, (squares(A, "linalg.matrix_exp"),), {}), "LinalgMatrixExp")


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """The powers x^0 ... x^(N-1) of each element, along a new last dimension; N is the last size of x if it is not given.

    GraphcError for an N below 2, DTypeError for bools, float16 and bfloat16.

    >>> graphc.linalg.vander(graphc.tensor([2, 3]), N=3)
    tensor([[1, 2, 4],
            [1, 3, 9]])
    """
    need_tensor(x, "linalg.vander", "x")
    if x.dtype is bool_ or (x.dtype.is_differentiable and x.dtype.to_real().bits < 32):
        raise DTypeError("linalg.vander supports floating point, complex, and integer tensors, but got "
                         f"{scalar_type(x.dtype)}")
    count = N if N is not None else x._data.shape[-1] if x.ndim else 0
    if count <= 1:
        raise GraphcError("N must be greater than 1.", got=str(count))
    shape = tuple(x._data.shape)
    dtype = x.dtype if x.dtype.is_differentiable else int64
    first = ones((*shape, 1), dtype=dtype)
    powers = cumprod(expand(unsqueeze(x, -1), (*shape, count - 1)), -1)
    return cat((first, powers), -1)


# Products


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of matrices, in the order of multiplications that takes the fewest; the first and the last one may be
    vectors.

    GraphcError for less than two tensors, ShapeError for those that are no matrices; DTypeError where the dtypes differ,
    ArgumentTypeError for what is no list of tensors.

    >>> graphc.linalg.multi_dot([graphc.ones(10, 2), graphc.ones(2, 10), graphc.ones(10)]).shape
    graphc.Size([10])
    """
    if not isinstance(tensors, (tuple, list)):
        raise ArgumentTypeError("linalg_multi_dot(): argument 'tensors' must be tuple of Tensors, not "
                                f"{type(tensors).__name__}")
    if len(tensors) < 2:
        raise GraphcError(f"multi_dot(): expected at least 2 tensors but got {len(tensors)}")
    given = [need_tensor(x, "multi_dot", f"tensors[{i}]") for i, x in enumerate(tensors)]
    for i, x in enumerate(given):
        ends = i in (0, len(given) - 1)
        if x.ndim != 2 and not (ends and x.ndim == 1):
            wanted = "the first and last tensors must be 1D or 2D" if ends else f"tensor {i} must be 2D"
            raise ShapeError(f"multi_dot(): {wanted} but got {x.ndim}D")
        if x.dtype is not given[0].dtype:
            raise DTypeError(f"multi_dot(): all tensors must have be the same dtype but tensor 0 is "
                             f"{scalar_type(given[0].dtype)} and tensor {i} {scalar_type(x.dtype)}")
    row, column = given[0].ndim == 1, given[-1].ndim == 1
    factors = list(given)
    factors[0] = unsqueeze(factors[0], 0) if row else factors[0]
    factors[-1] = unsqueeze(factors[-1], 1) if column else factors[-1]
    for i in range(len(factors) - 1):
        left, right = factors[i]._data.shape, factors[i + 1]._data.shape
        if left[1] != right[0]:
            raise ShapeError(f"multi_dot(): tensors {i} and {i + 1} with shapes {list(given[i].shape)} and "
                             f"{list(given[i + 1].shape)} cannot be multiplied")
    cuts = _cheapest([x._data.shape[0] for x in factors] + [factors[-1]._data.shape[1]])

    def product(first: int, last: int) -> Tensor:
        if first == last:
            return factors[first]
        cut = cuts[first, last]
        return matmul(product(first, cut), product(cut + 1, last))

    out = product(0, len(factors) - 1)
    shape = [s for s, dropped in zip(out._data.shape, (row, column)) if not dropped]
    return reshape(out, tuple(shape)) if row or column else out


def _cheapest(sizes: list[Any]) -> dict[tuple[int, int], int]:
    """After which matrix to cut each run of them, so that the multiplications are fewest: by the dynamic program of Cormen,
    Leiserson, Rivest and Stein, "Introduction to Algorithms", 15.2. Sizes that are not known count as one."""
    known = [s if isinstance(s, int) else 1 for s in sizes]
    count = len(sizes) - 1
    cost = {(i, i): 0 for i in range(count)}
    cuts = {}
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            options = {k: cost[i, k] + cost[k + 1, j] + known[i] * known[k + 1] * known[j + 1] for k in range(i, j)}
            cuts[i, j] = min(options, key=options.__getitem__)
            cost[i, j] = options[cuts[i, j]]
    return cuts


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """The sum of conj(x) * y along a dimension; the others stretch to each other.

    DTypeError where the dtypes differ, ShapeError where the shapes do not broadcast.

    >>> graphc.linalg.vecdot(graphc.tensor([[1.0, 2.0]]), graphc.tensor([3.0, 4.0]))
    tensor([11.])
    """
    name = "linalg.vecdot"
    need_tensor(x, name, "x")
    need_tensor(y, name, "y")
    if mode.autocast is not None:
        x, y = lowered(x, mode.autocast), lowered(y, mode.autocast)
    need_numbers(x, name, low_precision=True)
    one_dtype(x, y, name, ("x", "y"))
    return sum(mul(ops.conjugate(x), y), dim)


def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The vector products of vectors of length 3, which lie along a dimension; the others stretch to each other.

    ShapeError for vectors of another length and for different numbers of dimensions, DTypeError where the dtypes differ.

    >>> graphc.linalg.cross(graphc.tensor([1.0, 0.0, 0.0]), graphc.tensor([0.0, 1.0, 0.0]))
    tensor([0., 0., 1.])
    """
    name = "linalg.cross"
    need_tensor(input, name)
    need_tensor(other, name, "other")
    if input.ndim != other.ndim:
        raise ShapeError("linalg.cross: inputs must have the same number of dimensions.",
                         got=f"{list(input.shape)} and {list(other.shape)}")
    if input.dtype is not other.dtype:
        raise DTypeError(f"expected scalar type {scalar_type(input.dtype)} but found {scalar_type(other.dtype)}")
    at = axis(dim, input.ndim)
    left, right = (x._data.shape[at] if x.ndim else 1 for x in (input, other))
    if left != 3 or right != 3:
        raise ShapeError(f"linalg.cross: inputs dimension {dim} must have length 3. Got {left} and {right}")
    product = roll(input, -1, at) * roll(other, -2, at) - roll(input, -2, at) * roll(other, -1, at)
    return named(product, "LinalgCross")
