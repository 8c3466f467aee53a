"""Reading `.pt` and `.pth` files of PyTorch: a zip archive with a pickle, and the tensors' memory beside it.

A pickle is a program for a small stack machine, which can call whatever Python can import. The machine here knows the
instructions that build containers, numbers and text, and a fixed list of names to call, each of which is answered by code
of this file; it imports nothing. Any other name is refused. Sizes are checked before memory is allocated, and tensors
against the memory that they claim to lie in.
"""

from __future__ import annotations

import io
import os
import pickletools
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import GraphcError, PackageError
from graphc.frontend.device import device
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Size, Tensor, wrap
from graphc.types import DTYPES, DType

_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of PyTorch before 1.6 begins, which is no archive."""

_STORAGES = {
    "torch.FloatStorage": "float32", "torch.DoubleStorage": "float64", "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16", "torch.LongStorage": "int64", "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16", "torch.CharStorage": "int8", "torch.ByteStorage": "uint8", "torch.BoolStorage": "bool",
    "torch.ComplexFloatStorage": "complex64", "torch.ComplexDoubleStorage": "complex128",
}
_UNTYPED = "torch.storage.UntypedStorage"

_TYPES = {f"torch.{name}": dtype for name, dtype in DTYPES.items()}

_STACKED_TO: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": set, "NONE": lambda: None,
    "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
}
"""Instructions that put a new value on the stack."""

_LITERALS = frozenset((
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))
"""Instructions whose argument is the value."""


_DAMAGE = (
    zipfile.BadZipFile, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError,
)
"""What reading bytes that make no sense ends with, in this file and in the standard library."""


class _Refused(Exception):
    """What is wrong with a file, without its name."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


@dataclass(frozen=True)
class _Name:
    """A name that a pickle refers to, which the machine knows."""

    text: str


@dataclass(frozen=True)
class _Storage:
    """Bytes of the archive, and the dtype that they were stored as, unless that stands in the tensors."""

    data: np.ndarray
    dtype: DType | None


def is_pt_file(members: list[str]) -> bool:
    """Whether these are the members of an archive that PyTorch wrote."""
    return any(name == "data.pkl" or name.endswith("/data.pkl") for name in members)


def read_pt_file(source: str | os.PathLike[str] | io.BytesIO, name: str) -> Any:
    """What `torch.save` wrote to a file: tensors, parameters, numbers and text in containers.

    PackageError names what else is in it, or what is wrong with the file; `name` is how to call it.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            return _Reader(archive).read()
    except _Refused as refused:
        raise PackageError(f"{name}: {refused.reason}", hint=refused.hint) from None
    except _DAMAGE as error:
        said = error.problem if isinstance(error, GraphcError) else f"{type(error).__name__}: {error}"
        raise PackageError(f"{name}: a damaged file of PyTorch ({said})") from None


def old_format(start: bytes) -> str | None:
    """A hint on what to do with a file that begins like a pickle; None for others."""
    if start.startswith(_MAGIC):
        return "this is a file of PyTorch before 1.6: load it with PyTorch and save it again"
    return "this is a pickle, which can hold code: save tensors with safetensors instead" if start[:1] == b"\x80" else None


class _Reader:
    """One archive: its pickle, and the storages that this names."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        members = archive.namelist()
        pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Refused("a zip archive, but none of PyTorch", "expected one data.pkl in it")
        self._root = pickles[0].removesuffix("data.pkl")
        if f"{self._root}constants.pkl" in members:
            raise _Refused("a TorchScript program, which holds code", "save its state_dict() with PyTorch instead")
        order = self._root + "byteorder"
        self._swapped = order in members and self._bytes(order, 16).tobytes() == b"big"
        self._storages: dict[str, np.ndarray] = {}

    def read(self) -> Any:
        return _Machine(self._storage).run(self._bytes(f"{self._root}data.pkl", None).tobytes())

    def _bytes(self, name: str, size: int | None) -> np.ndarray:
        """A member's bytes; at most `size` of them are expected, if that is given."""
        member = self._archive.getinfo(name)
        end = self._archive.fp.seek(0, os.SEEK_END) if self._archive.fp else 0
        if member.compress_type != zipfile.ZIP_STORED or member.header_offset + member.file_size > end:
            raise _Refused(f"its member {name} is compressed or larger than the file", "PyTorch stores members as they are")
        if size is not None and member.file_size > size:
            raise _Refused(f"its member {name} has {member.file_size} bytes where {size} are expected")
        data = np.empty(member.file_size, np.uint8)
        with self._archive.open(member) as file:
            if file.readinto(data.data) != data.size:  # type: ignore[attr-defined]  # typeshed has it in a base class
                raise _Refused(f"its member {name} is truncated")
        return data

    def _storage(self, reference: Any) -> _Storage:
        """The storage that ("storage", its class, its key, where it was, its length) refers to."""
        kind, name, key, _, length = reference
        if kind != "storage" or not isinstance(name, _Name) or not isinstance(key, str) or type(length) is not int:
            raise _Refused(f"a reference to {reference!r:.80}, which is no storage")
        dtype = DTYPES[_STORAGES[name.text]] if name.text in _STORAGES else None
        if dtype is None and name.text != _UNTYPED:
            raise _Refused(f"a storage of the class {name.text}")
        size = length * (1 if dtype is None else dtype.itemsize)
        data = self._storages.get(key)
        if data is None:
            data = self._storages[key] = self._bytes(f"{self._root}data/{key}", size)
            if self._swapped and dtype is not None:
                parts = 2 if dtype.is_complex else 1
                data[:] = data.reshape(-1, dtype.itemsize // parts)[:, ::-1].reshape(-1)
        if data.size != size:
            raise _Refused(f"the storage {key} has {data.size} bytes where {size} are expected")
        if self._swapped and dtype is None:
            raise _Refused(f"the storage {key} is in the byte order of another kind of machine")
        return _Storage(data, dtype)


class _Machine:
    """Runs a pickle."""

    def __init__(self, storage: Callable[[Any], _Storage]) -> None:
        self._storage = storage
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, program: bytes) -> Any:
        stack = self._stack
        argument: Any  # what it is follows from the instruction
        for instruction, argument, _ in pickletools.genops(program):
            name = instruction.name
            if name == "STOP":
                return stack.pop()
            if name in _LITERALS:
                stack.append(argument)
            elif name in _STACKED_TO:
                stack.append(_STACKED_TO[name]())
            elif name == "GLOBAL":
                stack.append(_known(argument.replace(" ", ".")))
            elif name == "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_known(f"{module}.{attribute}"))
            elif name in ("BINPUT", "LONG_BINPUT"):
                self._memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(self._memo[argument])
            elif name == "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            elif name == "BINPERSID":
                stack.append(self._storage(stack.pop()))
            elif name == "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            elif name not in ("PROTO", "FRAME"):
                self._build(name)
        raise EOFError("the pickle has no end")

    def _build(self, name: str) -> None:
        """The instructions that put values together."""
        stack = self._stack
        if name == "MARK":
            self._marks.append(len(stack))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [stack.pop() for _ in range(int(name[-1]))]
            stack.append(tuple(reversed(items)))
        elif name in ("TUPLE", "LIST", "FROZENSET"):
            items = self._since_mark()
            stack.append({"TUPLE": tuple, "LIST": list, "FROZENSET": frozenset}[name](items))
        elif name == "DICT":
            items = self._since_mark()
            stack.append(dict(zip(items[::2], items[1::2], strict=True)))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._since_mark()
            _expect(stack[-1], list).extend(items)
        elif name == "ADDITEMS":
            items = self._since_mark()
            _expect(stack[-1], set).update(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._since_mark()
            _expect(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "BUILD":
            self._set_state(stack.pop())
        else:
            raise _Refused(f"its pickle uses {name}, which torch.save does not write")

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _set_state(self, state: Any) -> None:
        """The attributes of a mapping, such as the versions in a state_dict; and the byte order of NumPy's dtypes."""
        target = self._stack[-1]
        if isinstance(target, OrderedDict) and isinstance(state, dict) and set(state) <= {"_metadata"}:
            target.__dict__.update(state)
        elif isinstance(target, np.dtype) and isinstance(state, tuple):
            self._stack[-1] = target.newbyteorder(state[1])
        else:
            raise _Refused(f"attributes of a {type(target).__name__}", "save state_dict() instead of objects")

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Name) or function.text not in _CALLS:
            raise _Refused(f"a call of {function!r:.80}")
        return _CALLS[function.text](*_expect(arguments, tuple))


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise _Refused(f"a {type(value).__name__} where a {kind.__name__} is expected")
    return value


def _known(name: str) -> Any:
    """A name of the pickle: a dtype as one of ours, others to be called or to stand for a class."""
    name = name.replace("__builtin__.", "builtins.").replace("numpy._core.", "numpy.core.")
    if name in _TYPES:
        return _TYPES[name]
    if name in _CALLS or name in _STORAGES or name in (_UNTYPED, "torch.Tensor"):
        return _Name(name)
    raise _Refused(f"it holds {name}, which is neither a tensor nor a plain container",
                   "save state_dict() instead of objects: what a pickle makes of them can run any code")


# What the names that can be called stand for


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: bool, hooks: Any = None, metadata: Any = None
) -> Tensor:
    if _expect(storage, _Storage).dtype is None:
        raise _Refused("a tensor without a dtype")
    return _view(storage.data, storage.dtype, offset, shape, strides, requires_grad, metadata)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, requires_grad: bool, hooks: Any, dtype: Any, metadata: Any = None
) -> Tensor:
    return _view(_expect(storage, _Storage).data, _expect(dtype, DType), offset, shape, strides, requires_grad, metadata)


def _view(
    data: np.ndarray, dtype: DType, offset: Any, shape: Any, strides: Any, requires_grad: Any, metadata: Any
) -> Tensor:
    numbers = (offset, *_expect(shape, tuple), *_expect(strides, tuple))
    if len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in numbers):
        raise _Refused(f"a tensor of shape {shape} with strides {strides} at {offset}")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides))
    if 0 not in shape and last >= data.size // dtype.itemsize:
        raise _Refused(f"a tensor of shape {shape} with strides {strides} at {offset}, which is beyond its memory")
    flat = data.view(np.uint8 if dtype.kind == "bool" else dtype.numpy)
    if dtype.kind == "bool":
        flat = np.not_equal(flat, 0, out=flat.view(bool))
    if 0 in shape:
        array = np.empty(shape, dtype.numpy)
    else:
        array = np.lib.stride_tricks.as_strided(flat[offset:], shape, [s * dtype.itemsize for s in strides])
    marks = metadata or {}
    if marks.get("conj"):
        array = array.conj()
    if marks.get("neg"):
        array = -array
    made = wrap(array)
    return made.requires_grad_() if requires_grad is True else made


def _parameter(data: Any, requires_grad: Any, hooks: Any, state: Any = None) -> Parameter:
    return Parameter(_expect(data, Tensor), requires_grad=requires_grad is True)


def _with_attributes(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor on which attributes were set. They are left out."""
    if not isinstance(function, _Name) or kind != _Name("torch.Tensor"):
        raise _Refused(f"a tensor of the class {kind!r:.80}")
    return _CALLS[function.text](*_expect(arguments, tuple))


def _encoded(text: Any, encoding: Any) -> bytes:
    return _expect(text, str).encode("latin-1" if encoding == "latin1" else "ascii")


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict(_expect(items, list) if items else ())


def _array_dtype(text: Any, *flags: Any) -> np.dtype:
    found = np.dtype(_expect(text, str))
    if found.kind not in "biufc":
        raise _Refused(f"NumPy's dtype {text!r:.40}")
    return found


def _array_scalar(dtype: Any, data: Any) -> Any:
    if len(_expect(data, bytes)) != _expect(dtype, np.dtype).itemsize:
        raise _Refused(f"a number of {len(data)} bytes as {dtype}")
    return np.frombuffer(data, dtype)[0].astype(dtype.newbyteorder("="))


_CALLS: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "torch.Size": lambda sizes: Size(_expect(sizes, tuple)),
    "torch.device": lambda kind, index=None: device(kind, index),
    "collections.OrderedDict": _ordered,
    "collections.Counter": lambda counts: Counter(_expect(counts, dict)),
    "builtins.set": lambda items: set(_expect(items, list)),
    "builtins.frozenset": lambda items: frozenset(_expect(items, list)),
    "builtins.complex": lambda real, imaginary: complex(_expect(real, float), _expect(imaginary, float)),
    "builtins.bytearray": lambda data: bytearray(_expect(data, bytes)),
    "_codecs.encode": _encoded,
    "numpy.dtype": _array_dtype,
    "numpy.core.multiarray.scalar": _array_scalar,
}
