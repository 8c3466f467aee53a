"""`save` and `load`: tensors in nested containers as safetensors files, and programs as `.gcz` files.

A saved state is a plain safetensors file: its tensors carry the keys of the state, joined by dots, and other tools can
read it. What else there was, numbers and strings and the nesting, stands as JSON in the file's metadata. Nothing in a
file is executed when it is loaded.
"""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from graphc import runtime
from graphc.errors import ArgumentTypeError, PackageError
from graphc.frontend import device as devices
from graphc.frontend import device_arrays
from graphc.frontend.export import Program
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.pt_files import is_pt_file, old_format, read_pt_file
from graphc.frontend.pytree import flatten
from graphc.frontend.sharing import memory_of
from graphc.frontend.tensor import Size, Tensor, wrap
from graphc.package import tensors
from graphc.package.archive import Malformed
from graphc.package.replacing import writing
from graphc.types import DTYPES, DType

File = str | os.PathLike[str] | BinaryIO

_TREE = "graphc"
"""The key of the metadata under which the nesting stands."""


def save(obj: Any, f: File, pickle_module: Any = None, pickle_protocol: int = 2,
         _use_new_zipfile_serialization: bool = True) -> None:
    """Write a program, or tensors nested in dicts, lists and tuples with plain values beside them, to a file.

    There is no pickle in it: the arguments about pickling are those of PyTorch, and mean nothing here. Tensors that share
    memory share it again when they are loaded. ArgumentTypeError names a value that cannot be kept.

    >>> import io
    >>> buffer = io.BytesIO()
    >>> graphc.save(nn.Linear(2, 1).state_dict(), buffer)
    >>> sorted(graphc.load(io.BytesIO(buffer.getvalue())))
    ['bias', 'weight']
    """
    if isinstance(obj, Program):
        obj.save(f)
        return
    packer = _Packer()
    tree = packer.pack(obj, "")
    parts = tensors.encode(packer.arrays(tree), {_TREE: json.dumps({"version": 1, "tree": tree})})
    if not isinstance(f, (str, os.PathLike)):
        for part in parts:
            f.write(part)
        return
    with writing(f) as file:
        for part in parts:
            file.write(part)


def load(f: File, map_location: Any = None, pickle_module: Any = None, *, weights_only: bool = True,
         mmap: bool | None = None, **pickle_load_args: Any) -> Any:
    """Read what `save` wrote: a program, or tensors in their nesting. A safetensors file of others is a dict of tensors.

    Files that PyTorch 1.6 and later have saved are read too, if they hold tensors, numbers, text and containers of them.
    PackageError if the file is none of these. Everything comes to the CPU, or to the GPU that
    `map_location` names, wherever it was when it was saved.

    >>> import io
    >>> buffer = io.BytesIO()
    >>> graphc.save({"weight": graphc.ones(2)}, buffer)
    >>> graphc.load(io.BytesIO(buffer.getvalue()))
    {'weight': tensor([1., 1.])}
    """
    index = _location(map_location)
    loaded = _loaded(f)
    if index >= 0:
        _move(loaded, index)
    return loaded


def _loaded(f: File) -> Any:
    name = os.fspath(f) if isinstance(f, (str, os.PathLike)) else getattr(f, "name", "the stream")
    if isinstance(f, (str, os.PathLike)):
        with open(f, "rb") as file:
            start = file.read(4)
            if start == b"PK\x03\x04":
                return _archived(f, str(name))
            data = start + file.read()
    else:
        data = f.read()
        if data[:4] == b"PK\x03\x04":
            return _archived(io.BytesIO(data), str(name))
    return _unpacked(data, str(name))


def _archived(f: str | os.PathLike[str] | io.BytesIO, name: str) -> Any:
    """What is in a zip archive: a program, or what PyTorch saved."""
    try:
        with zipfile.ZipFile(f) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise PackageError(f"{name}: a damaged zip archive: {error}", expected="a file that save() wrote") from None
    if isinstance(f, io.BytesIO):
        f.seek(0)
    if is_pt_file(members):
        return read_pt_file(f, name)
    if "manifest.json" not in members:
        raise PackageError(f"{name}: a zip archive, but not a program of graphc", expected="a file that save() wrote")
    return Program(runtime.load(f))


def _location(where: Any) -> int:
    """The GPU that a `map_location` names, -1 for the CPU; of a table, where it sends what is on the CPU."""
    if isinstance(where, Mapping):
        where = where.get("cpu")
    return -1 if where is None or callable(where) else devices.gpu_of(where)


def _move(loaded: Any, index: int) -> None:
    """Bring all tensors to a GPU; those that share memory share it there."""
    moved: dict[int, Any] = {}
    for tensor in flatten(loaded)[0]:
        if isinstance(tensor, Tensor) and isinstance(tensor._data, np.ndarray):
            array = tensor._data
            owner = memory_of(array)
            if not owner.flags.c_contiguous:
                owner = array = np.ascontiguousarray(array)
            if id(owner) not in moved:
                moved[id(owner)] = owner, device_arrays.upload(owner.reshape(-1).view(np.uint8), index)
            offset = array.ctypes.data - owner.ctypes.data if array.size else 0
            tensor._data = device_arrays.view(moved[id(owner)][1], array.shape, array.strides, offset, array.dtype)


_MAPPINGS: dict[str, type] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}
_SEQUENCES: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


def _instead_of(value: Any) -> str:
    """What to save in the place of an object that cannot be saved."""
    if isinstance(value, Module):
        return ("a file holds no code: save module.state_dict(), and load it into a module made by the same class; or save "
                "graphc.export(module, inputs), which runs without the class")
    if hasattr(value, "state_dict"):
        return "save its state_dict(), and load it into an object made in the same way"
    return "take out of it what is needed, or pickle it"


class _Packer:
    """Describes an object as JSON, with tensors replaced by references, and collects their memory."""

    def __init__(self) -> None:
        self._tensors: list[tuple[dict[str, Any], str, np.ndarray]] = []
        self._owners: dict[int, list[int]] = {}

    def pack(self, value: Any, path: str) -> Any:
        """The description of a value that is found at `path`."""
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
            return value if not isinstance(value, float) or np.isfinite(value) else {"float": repr(value)}
        if isinstance(value, Mapping):
            kind = next((kind.__name__ for kind in (OrderedDict, Counter) if isinstance(value, kind)), "dict")
            return {kind: [[self.pack(k, path), self.pack(v, f"{path}.{k}" if path else str(k))] for k, v in value.items()]}
        if isinstance(value, Size):
            return {"Size": list(value)}
        if type(value) in _SEQUENCES.values():
            items = [self.pack(v, f"{path}.{i}" if path else str(i)) for i, v in enumerate(value)]
            return {type(value).__name__: items}
        if isinstance(value, DType):
            return {"dtype": value.name}
        if isinstance(value, devices.device):
            return {"device": str(value)}
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": base64.b64encode(value).decode()}
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, np.ndarray):
            return {"ndarray": self._tensor(wrap(value), path)}
        if isinstance(value, np.generic):
            return self.pack(value.item(), path)
        raise ArgumentTypeError(f"save: a {type(value).__name__} at {path or 'the top'} cannot be saved",
                                expected="tensors, numbers, strings, and dicts, lists and tuples of them",
                                hint=_instead_of(value))

    def _tensor(self, tensor: Tensor, path: str) -> dict[str, Any]:
        array = tensor._array("save()")
        reference: dict[str, Any] = {"tensor": path or "data"}
        if tensor.requires_grad and tensor.is_leaf:
            reference["requires_grad"] = True
        if isinstance(tensor, Parameter):
            reference["parameter"] = True
        self._owners.setdefault(id(memory_of(array)), []).append(len(self._tensors))
        self._tensors.append((reference, path or "data", array))
        return reference

    def arrays(self, tree: Any) -> dict[str, np.ndarray]:
        """The arrays to write; references to memory that several tensors share are completed."""
        out: dict[str, np.ndarray] = {}

        def add(name: str, array: np.ndarray) -> str:
            unique, n = name, 1
            while unique in out:
                unique, n = f"{name}~{n}", n + 1
            out[unique] = array
            return unique

        for members in self._owners.values():
            arrays = [self._tensors[m][2] for m in members]
            owner = memory_of(arrays[0])
            first = arrays[0]
            same = all(_place(a) == _place(first) for a in arrays)
            if len(members) > 1 and not same and owner.flags.c_contiguous and all(a.dtype == owner.dtype for a in arrays):
                name = add(f"{self._tensors[members[0]][1]}.storage", owner.reshape(-1))
                for m in members:
                    reference, _, array = self._tensors[m]
                    size = array.itemsize
                    reference["tensor"] = name
                    reference["view"] = [(array.ctypes.data - owner.ctypes.data) // size, list(array.shape),
                                         [s // size for s in array.strides]]
                continue
            shared = None
            for m in members:
                reference, path, array = self._tensors[m]
                if not same or shared is None:
                    shared = add(path, np.ascontiguousarray(array).reshape(array.shape))
                reference["tensor"] = shared
        return out


def _place(array: np.ndarray) -> Any:
    return array.ctypes.data, array.shape, array.strides, array.dtype.str


def _unpacked(data: bytes, name: str) -> Any:
    try:
        stored = tensors.decode(view := memoryview(data), len(data), len(data), len(data))
        described = tensors.metadata_of(view).get(_TREE)
    except Malformed as error:
        raise PackageError(f"{name}: not a file that graphc can read: {error}",
                           expected="a safetensors or .gcz file, as save() writes them, or a .pt file of PyTorch",
                           hint=old_format(data)) from None
    arrays = {key: wrap(np.array(array)) for key, array in stored.items()}
    if described is None:
        return arrays
    try:
        content = json.loads(described)
        if content["version"] != 1:
            raise PackageError(f"{name}: written by a newer version of graphc", got=f"version {content['version']}")
        return _built(content["tree"], arrays)
    except PackageError:
        raise
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise PackageError(f"{name}: its description does not fit its tensors ({error})") from None


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "float": float, "dtype": DTYPES.__getitem__, "device": devices.device, "bytes": base64.b64decode,
    "complex": lambda parts: complex(*parts), "Size": Size,
}


def _built(tree: Any, arrays: Mapping[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return _restored(tree, arrays)
    ((kind, body),) = tree.items()
    if kind in _MAPPINGS:
        return _MAPPINGS[kind]({_built(k, arrays): _built(v, arrays) for k, v in body})
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](_built(v, arrays) for v in body)
    if kind == "ndarray":
        return _built(body, arrays).numpy()
    return _SCALARS[kind](body)


def _restored(reference: dict[str, Any], arrays: Mapping[str, Tensor]) -> Tensor:
    tensor = arrays[reference["tensor"]]
    if "view" in reference:
        offset, shape, strides = reference["view"]
        flat = tensor._data.reshape(-1)
        if min((offset, *shape, *strides), default=0) < 0 or (
                0 not in shape and offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) >= flat.size):
            raise ValueError("a view reaches beyond its memory")
        tensor = wrap(np.lib.stride_tricks.as_strided(flat[offset:], shape, [s * flat.itemsize for s in strides]))
    if "parameter" in reference:
        return Parameter(tensor, requires_grad=reference.get("requires_grad", False))
    return wrap(tensor._data).requires_grad_() if reference.get("requires_grad") else tensor


