"""`weights.safetensors`: a JSON header, then the tensors' bytes one after another.

The format is that of the safetensors library, which reads and writes whole files: it cannot write into an archive
without a copy of all weights, nor map them out of one. Each tensor's dtype, shape and place are checked against each
other and against the size of the file before anything is made of them.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.package import strict_json
from graphc.package.archive import Malformed
from graphc.types import DTYPES, DType, TensorType, dtype_of
from graphc.verify import type_violation

_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "uint32": "U32", "int64": "I64",
    "uint16": "U16", "uint64": "U64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex64": "C64",
}  # fmt: skip
_DTYPES = {text: DTYPES[name] for name, text in _NAMES.items()}
_PARTS = {"complex32": "float16", "complex128": "float64"}
"""Dtypes that the format does not know: stored as their real and imaginary parts, side by side in a last dimension. The
names of such tensors are in the header's metadata, under the dtype."""
_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"


def encode(weights: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> list[memoryview]:
    """The header, then each tensor's bytes: those of wide elements first, so that every tensor is aligned."""
    order = sorted(weights, key=lambda name: (-weights[name].itemsize, name))
    header: dict[str, Any] = {}
    split: dict[str, list[str]] = {}
    parts, offset = [], 0
    for name in order:
        array = weights[name]
        dtype, shape = dtype_of(array.dtype).name, list(array.shape)
        array = np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        parts.append(array.reshape(-1).view(np.uint8).data)
        if dtype in _PARTS:
            split.setdefault(dtype, []).append(name)
            dtype, shape = _PARTS[dtype], [*shape, 2]
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    if split or metadata:
        header[_METADATA] = {**(metadata or {}), **{dtype: json.dumps(names) for dtype, names in split.items()}}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)  # the library's own padding
    return [memoryview(_LENGTH.pack(len(text)) + text), *parts]


def decode(data: memoryview, max_header: int, max_items: int, max_tensors: int) -> dict[str, np.ndarray]:
    """The tensors, read-only and on the memory of `data`; Malformed where header and data do not fit."""
    if len(data) < _LENGTH.size:
        raise Malformed("the weights are truncated")
    (length,) = _LENGTH.unpack_from(data)
    if length > min(max_header, len(data) - _LENGTH.size):
        raise Malformed(f"the header of the weights has {length} bytes, more than there are or than {max_header}")
    header = strict_json.decode(bytes(data[_LENGTH.size : _LENGTH.size + length]), "the header of the weights", max_items)
    whole = _whole(header.pop(_METADATA, None))
    if len(header) > max_tensors:
        raise Malformed(f"there are {len(header)} weights, more than {max_tensors}")
    content = data[_LENGTH.size + length :]
    regions = {name: _region(name, description) for name, description in header.items()}
    end = 0
    for name in sorted(regions, key=lambda name: regions[name][1:]):
        _, begin, finish = regions[name]
        if begin != end:
            raise Malformed(f"the weight {name!r} does not begin where the one before it ends")
        end = finish
    if end != len(content):
        raise Malformed(f"the weights have {len(content)} bytes, and their header describes {end}")
    return {name: _array(content, *region, whole.get(name)) for name, region in regions.items()}


def metadata_of(data: memoryview) -> dict[str, str]:
    """The texts that `encode` was given besides the tensors, of data that `decode` takes."""
    (length,) = _LENGTH.unpack_from(data)
    header = json.loads(bytes(data[_LENGTH.size : _LENGTH.size + length]))
    found = header.get(_METADATA)
    return {key: text for key, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}


def _whole(metadata: Any) -> dict[str, DType]:
    """The tensors that are stored in parts, with their dtypes."""
    found: dict[str, DType] = {}
    for dtype in _PARTS:
        text = metadata.get(dtype, "[]") if isinstance(metadata, dict) else "[]"
        try:
            names = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Malformed(f"the list of the weights that are {dtype} is none")
        found.update(dict.fromkeys(names, DTYPES[dtype]))
    return found


def _region(name: str, description: Any) -> tuple[TensorType, int, int]:
    """A tensor's type, and where its bytes begin and end."""
    if not isinstance(description, dict) or set(description) != {"dtype", "shape", "data_offsets"}:
        raise Malformed(f"the weight {name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = description["dtype"], description["shape"], description["data_offsets"]
    known: DType | None = _DTYPES.get(dtype) if isinstance(dtype, str) else None
    if known is None:
        raise Malformed(f"the weight {name!r} is of the dtype {dtype!r:.40}, which this version does not know")
    for numbers, what in ((shape, "shape"), (offsets, "data_offsets")):
        if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
            raise Malformed(f"the {what} of the weight {name!r} is not a list of sizes")
    type_ = TensorType(known, tuple(shape))
    if found := type_violation(type_):
        raise Malformed(f"the weight {name!r}: {found.problem}")
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * known.itemsize:
        raise Malformed(f"the weight {name!r} is {type_}, and its bytes are not as many")
    return type_, offsets[0], offsets[1]


def _array(content: memoryview, type_: TensorType, begin: int, end: int, whole: DType | None) -> np.ndarray:
    if whole is not None:
        if type_.dtype.name != _PARTS[whole.name] or type_.shape[-1:] != (2,):
            raise Malformed(f"a weight that is {whole.name} is stored as {type_}")
        type_ = TensorType(whole, type_.shape[:-1])
    dtype = type_.dtype.numpy.newbyteorder("<")
    flat = np.frombuffer(content[begin:end], dtype)
    if type_.dtype.kind == "bool" and (flat.view(np.uint8) > 1).any():
        raise Malformed("a bool among the weights is neither 0 nor 1")
    array = flat.reshape([size for size in type_.shape if isinstance(size, int)])
    array = np.require(array.astype(type_.dtype.numpy, copy=False), requirements="A")
    array.setflags(write=False)
    return array
