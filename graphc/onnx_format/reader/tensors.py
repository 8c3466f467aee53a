"""The numbers of a TensorProto, checked before they are used."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from graphc.errors import DTypeError
from graphc.onnx_format.protobuf import dtype_of_element, onnx
from graphc.onnx_format.reader.limits import BadModel
from graphc.types import DType

_MOST_BYTES = 1 << 40
_FIELDS = {
    "float32": "float_data", "complex64": "float_data", "float64": "double_data", "complex128": "double_data",
    "int64": "int64_data", "uint32": "uint64_data", "uint64": "uint64_data",
}  # fmt: skip
"""Where numbers are that are not raw bytes; all others are in int32_data."""


def tensor_dtype(number: int, what: str) -> DType:
    """The dtype of an element type; BadModel, which says what is of it, where graphc has none."""
    try:
        return dtype_of_element(number)
    except DTypeError as error:
        raise BadModel(f"{what}: {error.problem}", expected=error.expected) from None


def read_tensor(proto: Any, folder: Path | None) -> np.ndarray:
    """The numbers of a tensor. Files of its own are read from the model's folder and no other place."""
    what = f"the tensor {proto.name!r}"
    dtype = tensor_dtype(proto.data_type, what)
    shape = tuple(proto.dims)
    if any(size < 0 for size in shape):
        raise BadModel(f"{what} has a negative size", got=str(list(shape)))
    count = math.prod(shape)
    nbytes = count * dtype.itemsize
    if nbytes > _MOST_BYTES or len(shape) > 64:
        raise BadModel(f"{what} is too large", got=f"{dtype.name}{list(shape)}")
    if proto.data_location == onnx().TensorProto.EXTERNAL:
        return _external(proto, folder, what, nbytes).view(dtype.numpy).reshape(shape)
    if proto.HasField("raw_data"):
        _check_count(what, len(proto.raw_data), nbytes, "bytes")
        array = np.frombuffer(proto.raw_data, dtype.numpy)
        return (array.byteswap() if sys.byteorder == "big" else array).reshape(shape)
    numbers = getattr(proto, _FIELDS.get(dtype.name, "int32_data"))
    _check_count(what, len(numbers), count * (2 if dtype.is_complex else 1), "numbers")
    if dtype.is_complex:
        return np.array(numbers, dtype.to_real().numpy).view(dtype.numpy).reshape(shape)
    wide = np.array(numbers)
    if dtype.name in ("float16", "bfloat16"):  # by their bits
        return wide.astype(np.uint16).view(dtype.numpy).reshape(shape)
    return wide.astype(dtype.numpy).reshape(shape)


def _check_count(what: str, found: int, expected: int, unit: str) -> None:
    if found != expected:
        raise BadModel(f"{what} has another number of {unit} than its shape says", expected=str(expected), got=str(found))


def _external(proto: Any, folder: Path | None, what: str, nbytes: int) -> np.ndarray:
    """The bytes of a tensor in a file beside the model, mapped into memory."""
    told = {entry.key: entry.value for entry in proto.external_data}
    location = told.get("location", "")
    if folder is None:
        raise BadModel(f"{what} is in a file of its own, {location!r}", hint="load the model by its path")
    path = folder / location
    if not location or os.path.isabs(location) or not path.resolve().is_relative_to(folder.resolve()):
        raise BadModel(f"{what} is in a file outside of the model's folder", got=repr(location))
    try:
        offset, length = int(told.get("offset", 0)), int(told.get("length", nbytes))
        size = path.stat().st_size
    except (ValueError, OSError) as error:
        raise BadModel(f"{what} is in a file that cannot be read: {error}") from None
    _check_count(what, length, nbytes, "bytes")
    if offset < 0 or offset + length > size or not path.is_file():
        raise BadModel(f"{what} reaches beyond the end of {location!r}", got=f"bytes {offset} to {offset + length} of {size}")
    if not nbytes:
        return np.zeros(0, np.uint8)
    return np.memmap(path, np.uint8, "r", offset, (length,))
