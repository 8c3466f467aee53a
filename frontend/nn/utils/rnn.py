"""Sequences of different lengths: padded to one tensor, or packed without padding for recurrent networks.

A packed sequence holds all first elements, then all second ones, and so on, of sequences in the order of decreasing
length; `batch_sizes` counts how many sequences there are at each step.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from graphc.errors import ArgumentError, ArgumentTypeError, GraphcError
from graphc.frontend.creation import full
from graphc.frontend.from_data import tensor
from graphc.frontend.indexing import index_select
from graphc.frontend.joining import cat
from graphc.frontend.movement import expand, part, reshape, transpose
from graphc.frontend.splitting import split
from graphc.frontend.tensor import Tensor
from graphc.types import int64

_UNSORTED = (
    "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass `enforce_sorted=False` to "
    "pack_padded_sequence and/or pack_sequence to sidestep this requirement if you do not need ONNX exportability."
)


class _Fields(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Fields):
    """Sequences without padding, as `pack_padded_sequence` and `pack_sequence` make them.

    data
        The elements of all sequences, [sum of batch_sizes, ...].
    batch_sizes
        How many sequences have a t-th element, for each t; int64.
    sorted_indices, unsorted_indices
        The order in which the sequences lie, and its inverse; None where they were sorted already.
    """

    _sizes: list[int] | None = None
    """`batch_sizes` as numbers, where they are known: inside a trace the tensor's are not."""

    def __new__(cls, data: Tensor, batch_sizes: Tensor | None = None, sorted_indices: Tensor | None = None,
                unsorted_indices: Tensor | None = None) -> PackedSequence:
        if batch_sizes is None:
            if not isinstance(data, (tuple, list)) or len(data) != 2:
                raise ArgumentTypeError("PackedSequence: expected data and batch_sizes, or a list or tuple of length 2 of them")
            data, batch_sizes = data
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def with_data(self, data: Tensor) -> PackedSequence:
        """Other data in the same order."""
        made = type(self)(data, *self[1:])
        made._sizes = self._sizes
        return made

    def sizes(self) -> list[int]:
        """`batch_sizes` as numbers."""
        return self.batch_sizes.tolist() if self._sizes is None else self._sizes

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same with the data converted as `Tensor.to` does."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else self.with_data(data)

    def cpu(self) -> PackedSequence:
        """The same in CPU memory, where it is already."""
        return self

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The same on a GPU: an error where there is none."""
        return self.with_data(self.data.cuda(*args, **kwargs))

    def _as(self, name: str) -> PackedSequence:
        return self.with_data(getattr(self.data, name)())

    def double(self) -> PackedSequence:
        """The same with float64 data."""
        return self._as("double")

    def float(self) -> PackedSequence:
        """The same with float32 data."""
        return self._as("float")

    def half(self) -> PackedSequence:
        """The same with float16 data."""
        return self._as("half")

    def long(self) -> PackedSequence:
        """The same with int64 data."""
        return self._as("long")

    def int(self) -> PackedSequence:
        """The same with int32 data."""
        return self._as("int")

    @property
    def is_cuda(self) -> bool:
        """Whether the data lies on a GPU."""
        return self.data.is_cuda


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes another one; None for None."""
    if permutation is None:
        return None
    return tensor(_inverse(permutation.tolist()), dtype=int64)


def _inverse(order: Sequence[int]) -> list[int]:
    inverse = [0] * len(order)
    for place, i in enumerate(order):
        inverse[i] = place
    return inverse


def pack_padded_sequence(input: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False,
                         enforce_sorted: bool = True) -> PackedSequence:
    """Pack a padded batch [T, N, ...] (or [N, T, ...] with `batch_first`) of sequences of the given lengths.

    With `enforce_sorted` the lengths must decrease; otherwise the sequences are sorted, and put back in order by
    `pad_packed_sequence`.
    """
    counts: list[int] = lengths.tolist() if isinstance(lengths, Tensor) else [int(n) for n in lengths]
    order = back = None
    if not enforce_sorted:
        places = sorted(range(len(counts)), key=lambda i: -counts[i])
        order, back = tensor(places, dtype=int64), tensor(_inverse(places), dtype=int64)
        counts = [counts[i] for i in places]
        input = index_select(input, 0 if batch_first else 1, order)
    if batch_first:
        input = transpose(input, 0, 1)
    steps, batch, *rest = input._data.shape
    if len(counts) != batch:
        raise GraphcError(f"Expected `len(lengths)` to be equal to batch_size, but got {len(counts)} (batch_size={batch})")
    if any(a < b for a, b in itertools.pairwise(counts)):
        raise GraphcError(_UNSORTED)
    if not counts or counts[-1] <= 0:
        raise GraphcError("Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0")
    if counts[0] > steps:
        raise GraphcError("pack_padded_sequence: a length exceeds that of the padded sequences", expected=f"at most {steps}",
                          got=str(counts[0]))
    blocks, sizes, begin = [], [], 0
    for present in range(batch, 0, -1):
        # the steps at which exactly so many sequences go on, at once
        end = counts[present - 1]
        if end > begin:
            block = part(part(input, 0, begin, end), 1, 0, present)
            blocks.append(reshape(block, ((end - begin) * present, *rest)))
            sizes += [present] * (end - begin)
            begin = end
    packed = PackedSequence(cat(blocks), tensor(sizes, dtype=int64), order, back)
    packed._sizes = sizes
    return packed


def pad_packed_sequence(sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
                        total_length: int | None = None) -> tuple[Tensor, Tensor]:
    """The padded batch [T, N, ...] (or [N, T, ...]) of a packed sequence, and the lengths, in the original order.

    T is the longest length, or `total_length`.
    """
    sizes = sequence.sizes()
    steps = len(sizes)
    if total_length is not None:
        if total_length < steps:
            raise ArgumentError("Expected total_length to be at least the length of the longest sequence in input, but got "
                                f"total_length={total_length} and max sequence length being {steps}")
        steps = total_length
    rest = sequence.data._data.shape[1:]
    rows = []
    for t, row in enumerate(split(sequence.data, sizes)):
        missing = sizes[0] - sizes[t]
        rows.append(row if not missing else cat([row, _filled((missing, *rest), padding_value, row)]))
    if steps > len(sizes):
        rows.append(_filled(((steps - len(sizes)) * sizes[0], *rest), padding_value, sequence.data))
    padded = reshape(cat(rows), (steps, sizes[0], *rest))
    lengths = tensor([sum(size > i for size in sizes) for i in range(sizes[0])], dtype=int64)
    if sequence.unsorted_indices is not None:
        padded = index_select(padded, 1, sequence.unsorted_indices)
        lengths = index_select(lengths, 0, sequence.unsorted_indices)
    return (transpose(padded, 0, 1) if batch_first else padded), lengths


def _filled(shape: tuple[Any, ...], value: float, like: Tensor) -> Tensor:
    return expand(full((1,) * len(shape), value, dtype=like.dtype), shape)


def pad_sequence(sequences: Tensor | Iterable[Tensor], batch_first: bool = False, padding_value: float = 0.0,
                 padding_side: str = "right") -> Tensor:
    """Tensors [length, ...] in one padded tensor [T, N, ...], or [N, T, ...] with `batch_first`."""
    if padding_side not in ("left", "right"):
        raise GraphcError("padding_side should be either 'right' or 'left'", got=repr(padding_side))
    if not isinstance(sequences, (Tensor, Iterable)):
        raise GraphcError("pad_sequence: Expected iterable for input sequences, but got arg of type: "
                          f"{type(sequences).__name__}")
    rows = list(sequences)
    if not rows:
        raise GraphcError("received an empty list of sequences")
    steps = max(row._data.shape[0] for row in rows)
    padded = []
    for row in rows:
        count, *rest = row._data.shape
        pieces = [row] if count == steps else [row, _filled((steps - count, *rest), padding_value, row)]
        padded.append(reshape(cat(pieces if padding_side == "right" else pieces[::-1]), (1, steps, *rest)))
    batch = cat(padded)
    return batch if batch_first else transpose(batch, 0, 1)


def unpad_sequence(padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False) -> list[Tensor]:
    """The sequences of a padded batch, without their padding."""
    batch = padded_sequences if batch_first else transpose(padded_sequences, 0, 1)
    return [part(row, 0, 0, length) for row, length in zip(batch, lengths.tolist())]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack tensors [length, ...]; with `enforce_sorted` their lengths must decrease."""
    lengths = [row._data.shape[0] for row in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of a packed sequence, in their original order."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
