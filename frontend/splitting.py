"""Functions that cut a tensor into several: all pieces are views."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.dims import Dim
from graphc.errors import ArgumentTypeError, DimError, GraphcError, ShapeError
from graphc.frontend.arguments import axis, integer
from graphc.frontend.modes import mode
from graphc.frontend.movement import part, select
from graphc.frontend.node import Node, edge_to, node_class
from graphc.frontend.subscript import plain_view
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.types import TensorType

FUNCTIONS = """
    chunk dsplit hsplit split split_with_sizes tensor_split unbind unsafe_chunk unsafe_split unsafe_split_with_sizes
    vsplit
"""
METHODS = FUNCTIONS


def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of the pieces along a dimension: of one size (the last may be smaller), or of the sizes given.

    GraphcError for a negative size, and for sizes that do not add up to that of the dimension; GraphcError for negative sizes,
    and for those that do not sum to the dimension's; DimError for a dimension that there is not.

    >>> graphc.split(graphc.arange(5), 2)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    >>> graphc.split(graphc.arange(5), [1, 4])
    (tensor([0]), tensor([1, 2, 3, 4]))
    """
    shape = tensor._data.shape
    at = axis(dim, len(shape))
    if not shape:
        raise GraphcError("split expects at least a 1-dimensional tensor")
    size = shape[at]
    if isinstance(split_size_or_sections, (int, Dim)) or not isinstance(split_size_or_sections, Sequence):
        step = integer(split_size_or_sections, "split_size")
        if step < 0 or (step == 0 and size != 0):
            raise GraphcError(f"split expects split_size be non-negative, but got split_size={step}")
        lengths = _lengths(size, step)
    else:
        lengths = [integer(length, "split_sizes") for length in split_size_or_sections]
        if sum(lengths) != size:
            raise GraphcError(f"split_with_sizes expects split_sizes to sum exactly to {size} (input tensor's size at "
                              f"dimension {at}), but got split_sizes={lengths}")
    pieces: list[Tensor] = []
    start = 0
    for length in lengths:
        pieces.append(_piece(tensor, at, slice(start, start + length)))
        start += length
    return _of_one_node(pieces, tensor, at, "Split")


def _piece(tensor: Tensor, at: int, where: slice | int) -> Tensor:
    """A view of a part along a dimension. Where it is to be an output of a node of several, it has none of its own."""
    if type(tensor._data) is np.ndarray and active() is None and not mode.inference:
        found = plain_view(tensor, (*(slice(None),) * at, where))
        assert found is not None
        return found
    return select(tensor, at, where) if isinstance(where, int) else part(tensor, at, where.start, where.stop)


def _lengths(size: int, step: int) -> list[int]:
    """Pieces of `step`, but for the last; the number of pieces of a symbolic size is that of the example."""
    lengths = []
    rest = size
    while rest > step:
        lengths.append(step)
        rest = rest - step
    return [*lengths, rest]


def split_method(self: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of the pieces along a dimension: of one size (the last may be smaller), or of the sizes given.

    >>> graphc.arange(5).split(2)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    """
    return split(self, split_size, dim)


class PiecesNode(Node):
    """A tensor was cut into pieces, the outputs, along a dimension, which single ones may drop: their gradients are joined."""

    __slots__ = ("axis", "drops", "outputs", "types")

    def __init__(self, pieces: Sequence[Tensor], tensor: Tensor, at: int) -> None:
        Node.__init__(self, (edge_to(tensor),))
        self.axis = at
        self.drops = len(pieces[0]._data.shape) < len(tensor._data.shape)
        self.outputs = len(pieces)  # type: ignore[misc]
        self.types = [TensorType(piece.dtype, piece._data.shape) for piece in pieces]

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        like = next(ct for ct in cotangents if ct is not None)
        if not mode.grad and active() is None and all(ct is None or type(ct._data) is np.ndarray for ct in cotangents):
            return [wrap(self._joined([None if ct is None else ct._data for ct in cotangents]))]
        parts = [ops.full(type_, 0, like=like) if ct is None else ct for ct, type_ in zip(cotangents, self.types)]
        if self.drops:
            shape = like._data.shape
            parts = [ops.reshape(ct, shape=(*shape[: self.axis], 1, *shape[self.axis :])) for ct in parts]
        return [parts[0] if len(parts) == 1 else ops.concat(*parts, axis=self.axis)]


    def _joined(self, arrays: list[np.ndarray | None]) -> np.ndarray:
        """The arrays one after the other, with zeros for those that are missing."""
        first, at = self.types[0], self.axis
        shape = list(first.shape)
        lengths = [1] * len(arrays) if self.drops else [int(type_.shape[at]) for type_ in self.types]
        shape[at : at if self.drops else at + 1] = [sum(lengths)]
        made = np.zeros if any(array is None for array in arrays) else np.empty
        whole = made(shape, first.dtype.numpy)
        start, before = 0, (slice(None),) * at
        for array, length in zip(arrays, lengths):
            if array is not None:
                whole[(*before, start if self.drops else slice(start, start + length))] = array
            start += length
        return whole


def _of_one_node(pieces: list[Tensor], tensor: Tensor, at: int, name: str) -> tuple[Tensor, ...]:
    """The views that a function returns, as outputs of one node. As in PyTorch, a gradient cannot follow changes in place
    through them."""
    for index, piece in enumerate(pieces):
        if piece._meta is not None and piece._meta.view is not None:
            piece._meta.view.refusal = (
                f"Output {index} of {name}Backward0 is a view and is being modified inplace: it comes from a function that "
                "returns several, through which gradients cannot follow. Use an operation that is not in place.")
    if pieces and (pieces[0]._node is not None or (mode.grad and edge_to(tensor) is not None)):
        if active() is None:
            node = node_class(f"{name}Backward0", PiecesNode)(pieces, tensor, at)
            for index, piece in enumerate(pieces):
                piece._node, piece._state().index = node, index
        else:
            for piece in pieces:
                named(piece, name)
    return tuple(pieces)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of `chunks` pieces of about equal size.

    GraphcError for less than one chunk.

    >>> graphc.chunk(graphc.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    if integer(chunks, "chunks") <= 0:
        raise GraphcError("chunk expects `chunks` to be greater than 0, got: " + str(chunks))
    size = input._data.shape[axis(dim, len(input._data.shape))] if input._data.shape else 1
    step = max(1, -(-size // chunks))
    if size == 0:
        return tuple(split(input, [0] * chunks, dim))
    return split(input, step, dim)


def tensor_split(input: Tensor, indices_or_sections: int | Sequence[int] | Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of pieces: a number of them, the first ones larger by one where it does not go up, or cut at the indices.

    GraphcError for less than one section.

    >>> graphc.tensor_split(graphc.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    if not input._data.shape:
        raise GraphcError("tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims")
    at = axis(dim, len(input._data.shape))
    size = input._data.shape[at]
    if isinstance(indices_or_sections, Tensor):
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        count = indices_or_sections
        if count <= 0:
            raise GraphcError(f"number of sections must be larger than 0, got {count}")
        lengths = [size // count + (i < size % count) for i in range(count)]
        edges = [0]
        for length in lengths:
            edges.append(edges[-1] + length)
    else:
        cuts = [min(max(i + size if i < 0 else i, 0), size) for i in indices_or_sections]
        edges = [0, *cuts, size]
    return tuple(part(input, at, a, max(a, b)) for a, b in itertools.pairwise(edges))


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of all elements along a dimension, which is dropped.

    DimError for a single number.

    >>> graphc.unbind(graphc.tensor([[1, 2], [3, 4]]))
    (tensor([1, 2]), tensor([3, 4]))
    """
    at = axis(dim, len(input._data.shape))
    if not input._data.shape:
        raise DimError("Dimension specified as 0 but tensor has no dimensions")
    return _of_one_node([_piece(input, at, i) for i in range(input._data.shape[at])], input, at, "Unbind")


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of pieces of the given sizes along a dimension.

    GraphcError for negative sizes, and for those that do not sum to the dimension's; DimError for a dimension that there is
    not.

    >>> graphc.split_with_sizes(graphc.arange(5), [1, 4])
    (tensor([0]), tensor([1, 2, 3, 4]))
    """
    return split(input, list(split_sizes), dim)


def unsafe_split(input: Tensor, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """`split` into pieces of one size. (PyTorch's pieces may be changed in place where those of `split` may not.)

    GraphcError for negative sizes, and for those that do not sum to the dimension's; DimError for a dimension that there is
    not.

    >>> graphc.unsafe_split(graphc.arange(4), 2)
    (tensor([0, 1]), tensor([2, 3]))
    """
    return split(input, integer(split_size, "split_size"), dim)


def unsafe_split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """`split_with_sizes`; see `unsafe_split`.

    GraphcError for negative sizes, and for those that do not sum to the dimension's; DimError for a dimension that there is
    not.

    >>> graphc.unsafe_split_with_sizes(graphc.arange(4), [1, 3])
    (tensor([0]), tensor([1, 2, 3]))
    """
    return split(input, list(split_sizes), dim)


def unsafe_chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """`chunk`; see `unsafe_split`.

    GraphcError for fewer than one piece.

    >>> graphc.unsafe_chunk(graphc.arange(4), 2)
    (tensor([0, 1]), tensor([2, 3]))
    """
    return chunk(input, chunks, dim)


def hsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Pieces side by side: along dimension 1, of a vector along its only one. See `vsplit`.

    ShapeError for too few dimensions, GraphcError where the size cannot be divided into so many, ArgumentTypeError for what are
    no indices.

    >>> graphc.hsplit(graphc.tensor([[1, 2], [3, 4]]), 2)
    (tensor([[1],
            [3]]), tensor([[2],
            [4]]))
    """
    return _along("hsplit", input, indices_or_sections, 1, 0 if input.ndim == 1 else 1)


def vsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Pieces one below the other, along dimension 0: so many of one size, or cut at the indices.

    ShapeError for too few dimensions, GraphcError where the size cannot be divided into so many, ArgumentTypeError for what are
    no indices.

    >>> graphc.vsplit(graphc.tensor([[1, 2], [3, 4]]), 2)
    (tensor([[1, 2]]), tensor([[3, 4]]))
    """
    return _along("vsplit", input, indices_or_sections, 2, 0)


def dsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """Pieces along dimension 2. See `vsplit`.

    ShapeError for too few dimensions, GraphcError where the size cannot be divided into so many, ArgumentTypeError for what are
    no indices.

    >>> [piece.shape for piece in graphc.dsplit(graphc.zeros(1, 2, 4), [1])]
    [graphc.Size([1, 2, 1]), graphc.Size([1, 2, 3])]
    """
    return _along("dsplit", input, indices_or_sections, 3, 2)


def _along(function: str, input: Tensor, where: int | Sequence[int], least: int, at: int) -> tuple[Tensor, ...]:
    if input.ndim < least:
        raise ShapeError(f"graphc.{function} requires a tensor with at least {least} dimension, but got a tensor with "
                         f"{input.ndim} dimensions!")
    if isinstance(where, (tuple, list)):
        return tensor_split(input, where, at)
    if not isinstance(where, int):
        raise ArgumentTypeError(f"{function}() received an invalid combination of arguments",
                                expected="a number of sections, or a list of indices", got=type(where).__name__)
    size = input._data.shape[at]
    if where <= 0 or size % where:
        raise GraphcError(f"graphc.{function} attempted to split along dimension {at}, but the size of the dimension {size} is "
                          f"not divisible by the split_size {where}!")
    return tensor_split(input, where, at)
