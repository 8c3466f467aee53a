"""Making a batch of samples: tensors are stacked, containers are batched element by element."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentTypeError, DimError, GraphcError
from graphc.frontend.from_data import as_tensor, tensor
from graphc.frontend.joining import stack
from graphc.frontend.tensor import Tensor, wrap
from graphc.types import float64

Collate = Callable[..., Any]
Table = Mapping[Any, Collate]

_NO_NUMBERS = "SUO"
"""NumPy's letters for the arrays that cannot become tensors: strings and objects."""


def default_collate(batch: Sequence[Any]) -> Any:
    """Samples of one kind as a batch, with the batch as the first dimension.

    Tensors, arrays and numbers become one tensor, strings and bytes a list; mappings, named tuples and sequences are
    batched element by element, tuples to lists. Python floats give float64.

    DimError for no samples, GraphcError for sequences of different lengths, ShapeError for tensors of different shapes,
    ArgumentTypeError for samples of another kind.

    >>> default_collate([(1, "a"), (2, "b")])
    [tensor([1, 2]), ('a', 'b')]
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)


def collate(batch: Sequence[Any], *, collate_fn_map: Table | None = None) -> Any:
    """`default_collate` with other rules: the function to call by the type, or tuple of types, of a sample."""
    if not batch:
        raise DimError("there are no samples to make a batch of", expected="a list of at least one sample", got=repr(batch))
    first = batch[0]
    rule = _rule(first, collate_fn_map or {})
    if rule is not None:
        return rule(batch, collate_fn_map=collate_fn_map)
    if isinstance(first, Mapping):
        return _like(first, {key: collate([sample[key] for sample in batch], collate_fn_map=collate_fn_map) for key in first})
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise GraphcError("each element in list of batch should be of equal size",
                              got=f"lengths {sorted({len(sample) for sample in batch})}")
        parts = [collate(column, collate_fn_map=collate_fn_map) for column in zip(*batch)]
        return _like(first, parts)
    raise _unknown(type(first))


def _rule(sample: Any, rules: Table) -> Collate | None:
    exact = rules.get(type(sample))
    return exact or next((rule for kind, rule in rules.items() if isinstance(sample, kind)), None)


def _like(sample: Any, content: Any) -> Any:
    """The content in a container of the sample's kind, where one can be made; in a dict or list otherwise."""
    if isinstance(sample, tuple):
        return type(sample)(*content) if hasattr(sample, "_fields") else content
    try:
        if isinstance(sample, MutableMapping):
            filled = copy.copy(sample)
            filled.update(content)
            return filled
        if isinstance(sample, MutableSequence):
            filled_sequence = copy.copy(sample)
            for i, item in enumerate(content):
                filled_sequence[i] = item
            return filled_sequence
        return type(sample)(content)
    except TypeError:
        return content


def _unknown(kind: Any) -> ArgumentTypeError:
    return ArgumentTypeError("default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found "
                             f"{kind}", hint="pass a collate_fn that makes a batch of such samples")


def _tensors(batch: Sequence[Tensor], *, collate_fn_map: Table | None = None) -> Tensor:
    alike = len({(sample._data.shape, sample._data.dtype) for sample in batch}) == 1
    if not alike or any(sample.requires_grad for sample in batch):
        return stack(list(batch), 0)
    # the same without recording, and much faster for many small samples
    return wrap(np.stack([sample._array("default_collate") for sample in batch]))


def _arrays(batch: Sequence[np.ndarray], *, collate_fn_map: Table | None = None) -> Any:
    if batch[0].dtype.kind in _NO_NUMBERS:
        raise _unknown(batch[0].dtype)
    return collate([as_tensor(array) for array in batch], collate_fn_map=collate_fn_map)


def _array_scalars(batch: Sequence[Any], *, collate_fn_map: Table | None = None) -> Tensor:
    return as_tensor(np.array(batch))


def _floats(batch: Sequence[float], *, collate_fn_map: Table | None = None) -> Tensor:
    return tensor(batch, dtype=float64)


def _integers(batch: Sequence[int], *, collate_fn_map: Table | None = None) -> Tensor:
    return tensor(batch)


def _texts(batch: Sequence[Any], *, collate_fn_map: Table | None = None) -> Sequence[Any]:
    return batch


default_collate_fn_map: dict[Any, Collate] = {
    Tensor: _tensors, np.ndarray: _arrays, (np.bool_, np.number, np.object_): _array_scalars, float: _floats,
    int: _integers, str: _texts, bytes: _texts,
}
"""The rules of `default_collate`; what is added here holds for it too."""


def default_convert(data: Any) -> Any:
    """A sample with its arrays as tensors, which share their memory; what a loader without batches gives.

    >>> import numpy as np
    >>> graphc.data.default_convert([np.zeros(2), "label"])
    [tensor([0., 0.], dtype=graphc.float64), 'label']
    """
    if isinstance(data, Tensor):
        return data
    if isinstance(data, (np.ndarray, np.generic)):
        return data if data.dtype.kind in _NO_NUMBERS else as_tensor(data)
    if isinstance(data, Mapping):
        return _like(data, {key: default_convert(data[key]) for key in data})
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _like(data, [default_convert(item) for item in data])
    return data
