"""Where CPython and NumPy keep what native code reads of their objects.

Each place is checked once against what Python itself says of a real object. Where a check fails (another interpreter,
a debug build, a release that moved a field) `array_constructor` says so, and there are no native entries: everything goes by
way of Python.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import sysconfig
import types
from typing import Any

import numpy as np

OBJECT_TYPE = 8
"""ob_type of any object."""
HEADER_WORDS = 2
"""What any object that can have slots begins with: its references and its type."""
REFERENCES = 0
"""ob_refcnt of any object; its lower half is what counts from Python 3.12 on."""

# PyArrayObject_fields
ARRAY_DATA = 16
ARRAY_NDIM = 24
ARRAY_DIMS = 32
ARRAY_STRIDES = 40
ARRAY_BASE = 48
ARRAY_DTYPE = 56
ARRAY_FLAGS = 64
ARRAY_WEAKREFS = 72
ARRAY_HANDLER = 88

# PySliceObject
SLICE_START = 16
SLICE_STOP = 24
SLICE_STEP = 32

# PyArray_Descr
DTYPE_ITEMSIZE = 40

# PyUFuncObject
UFUNC_NIN = 16
UFUNC_NOUT = 20
UFUNC_LOOPS = 32
UFUNC_DATA = 40
UFUNC_TYPE_COUNT = 48
UFUNC_NAME = 56
UFUNC_TYPES = 64

C_CONTIGUOUS = 0x0001
OWNS_DATA = 0x0004
ALIGNED = 0x0100
WRITEABLE = 0x0400
_FLAGS = {C_CONTIGUOUS: "c_contiguous", OWNS_DATA: "owndata", ALIGNED: "aligned", WRITEABLE: "writeable"}

# Others
CELL_CONTENTS = 16
FLOAT_VALUE = 16
SIZE = 16
"""ob_size of lists and tuples."""
LIST_ITEMS = 24
"""The pointer to a list's items."""
TUPLE_ITEMS = getattr(tuple, "__basicsize__", 0)  # PyPy's types have none
TYPE_BASE = 256
"""tp_base of a type."""
TYPE_VERSION = 384
"""tp_version_tag of a type: 0, or a number that no other state of the type and its bases has had."""

# Slots of NumPy's _ARRAY_API table, part of its binary interface.
_API_ARRAY_TYPE = 2
_API_NEW_FROM_DESCR = 94
_API_DEFAULT_HANDLER = 306


class Unsupported(Exception):
    """This interpreter keeps its objects otherwise."""


def address_of(function: Any) -> int:
    """The address of a C function, such as `ctypes.pythonapi.<name>`, or of a callback."""
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


def load(address: int) -> int:
    """The 64-bit word at an address."""
    return ctypes.c_int64.from_address(address).value


def load_pointer(address: int) -> int:
    """The pointer at an address."""
    return ctypes.c_uint64.from_address(address).value


def member_offset(descriptor: Any) -> int:
    """Where objects keep what a slot of their class holds, by the slot's descriptor."""
    if type(descriptor) is not types.MemberDescriptorType:
        raise Unsupported(f"{descriptor!r} is no slot")
    # PyMemberDescrObject.d_member -> PyMemberDef.offset
    return load(load_pointer(id(descriptor) + 40) + 16)


def slot_offset(cls: type, name: str) -> int:
    """Where objects of a class keep the slot `name`; tried out on one."""
    descriptor: Any = next(base.__dict__[name] for base in cls.__mro__ if name in base.__dict__)
    offset = member_offset(descriptor)
    probe: object = object.__new__(cls)
    content = object()
    descriptor.__set__(probe, content)
    _agree(f"the slot {cls.__name__}.{name}", load_pointer(id(probe) + offset), id(content))
    return offset


def type_version(cls: type) -> int:
    """The number that stands for the present state of a class and its bases."""
    with contextlib.suppress(AttributeError):
        type.__getattribute__(cls, "no such attribute")  # a look-up gives it one if it has none
    version = ctypes.c_uint32.from_address(id(cls) + TYPE_VERSION).value
    if not version:
        raise Unsupported(f"{cls.__name__} has changed too often to have a version")
    return version


@functools.cache
def array_constructor() -> int:
    """The address of PyArray_NewFromDescr, after a check of all the places above; Unsupported says what is not there."""
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise Unsupported("native entries are for CPython with a global interpreter lock")
    if object.__basicsize__ != 16 or ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        raise Unsupported("native entries are for 64-bit processes and release builds of CPython")
    _check_python()
    _check_arrays()
    table = _numpy_table()
    _agree("NumPy's table of functions", load_pointer(table + 8 * _API_ARRAY_TYPE), id(np.ndarray))
    new = load_pointer(table + 8 * _API_NEW_FROM_DESCR)
    _check_new(new)
    return new


def ufunc_loop(ufunc: np.ufunc, dtype: np.dtype[Any]) -> tuple[int, int]:
    """The addresses of the function by which a ufunc of one operand goes through arrays of a dtype, and of its data, which may
    be 0: part of NumPy's binary interface. Unsupported where there is no such function."""
    types = f"{dtype.char}->{dtype.char}"
    if types not in ufunc.types:
        raise Unsupported(f"{ufunc.__name__} has no loop for {dtype}")
    number, start = ufunc.types.index(types), id(ufunc)
    counts = [ctypes.c_int32.from_address(start + place).value for place in (UFUNC_NIN, UFUNC_NOUT, UFUNC_TYPE_COUNT)]
    if counts != [1, 1, ufunc.ntypes]:
        raise Unsupported("the loops of a ufunc are not where they were expected")
    _agree("the name of a ufunc", int(ctypes.string_at(load_pointer(start + UFUNC_NAME)) == ufunc.__name__.encode()), 1)
    codes = ctypes.string_at(load_pointer(start + UFUNC_TYPES) + 2 * number, 2)
    _agree("the types of a loop", int(codes == bytes([dtype.num, dtype.num])), 1)
    functions, data = load_pointer(start + UFUNC_LOOPS), load_pointer(start + UFUNC_DATA)
    return load_pointer(functions + 8 * number), load_pointer(data + 8 * number) if data else 0


def default_handler() -> int:
    """The address of the capsule with NumPy's own functions for the memory of arrays."""
    array_constructor()
    return load_pointer(load_pointer(_numpy_table() + 8 * _API_DEFAULT_HANDLER))


def capsule_pointer(capsule: int, name: bytes | None) -> int:
    """What a capsule, given by its address, holds."""
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
        address_of(ctypes.pythonapi.PyCapsule_GetPointer)
    )
    return get(capsule, name)


def _numpy_table() -> int:
    return capsule_pointer(id(np._core._multiarray_umath._ARRAY_API), None)  # type: ignore[attr-defined]


def _agree(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise Unsupported(f"{what} is not where it was expected")


def _check_python() -> None:
    item = object()
    listed, tupled, cell = [item, item], (item, item), types.CellType(item)
    _agree("the type of an object", load_pointer(id(listed) + OBJECT_TYPE), id(list))
    references = ctypes.c_uint32.from_address(id(listed) + REFERENCES).value
    another = listed
    _agree("the reference count", ctypes.c_uint32.from_address(id(another) + REFERENCES).value, references + 1)
    _agree("the length of a list", load(id(listed) + SIZE), 2)
    _agree("a list's items", load_pointer(load_pointer(id(listed) + LIST_ITEMS) + 8), id(item))
    _agree("a tuple's items", load_pointer(id(tupled) + TUPLE_ITEMS + 8), id(item))
    _agree("the contents of a cell", load_pointer(id(cell) + CELL_CONTENTS), id(item))
    part = slice(item, listed, tupled)
    for place, content in ((SLICE_START, item), (SLICE_STOP, listed), (SLICE_STEP, tupled)):
        _agree("a slice", load_pointer(id(part) + place), id(content))
    number = 1.25
    _agree("the value of a float", load(id(number) + FLOAT_VALUE), 0x3FF4000000000000)
    _agree("the base of a type", load_pointer(id(bool) + TYPE_BASE), id(int))
    _check_type_version()


def _check_type_version() -> None:
    class Base:
        attribute = 1

    class Derived(Base):
        pass

    def version() -> int:
        assert Derived.attribute
        return ctypes.c_uint32.from_address(id(Derived) + TYPE_VERSION).value

    before = version()
    same = version()
    Base.attribute = 2
    if not before or before != same or before == version():
        raise Unsupported("the version of a type is not where it was expected")


def _check_arrays() -> None:
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    part = whole[1:, ::2]
    start = id(part)
    _agree("the data of an array", load_pointer(start + ARRAY_DATA), part.__array_interface__["data"][0])
    _agree("the dimensions of an array", ctypes.c_int32.from_address(start + ARRAY_NDIM).value, 2)
    for axis in range(2):
        _agree("the shape of an array", load(load_pointer(start + ARRAY_DIMS) + 8 * axis), part.shape[axis])
        _agree("the strides of an array", load(load_pointer(start + ARRAY_STRIDES) + 8 * axis), part.strides[axis])
    assert part.base is not None
    _agree("the base of an array", load_pointer(start + ARRAY_BASE), id(part.base))
    _agree("the dtype of an array", load_pointer(start + ARRAY_DTYPE), id(part.dtype))
    for dtype in map(np.dtype, (np.bool_, np.float32, np.complex128)):
        _agree("the size of a dtype", load(id(dtype) + DTYPE_ITEMSIZE), dtype.itemsize)
    _agree("the weak references of an array", load_pointer(start + ARRAY_WEAKREFS), 0)
    part.flags.writeable = False
    for array in (whole, part, part.base):
        flags = ctypes.c_int32.from_address(id(array) + ARRAY_FLAGS).value
        for bit, name in _FLAGS.items():
            _agree("the flags of an array", bool(flags & bit), getattr(array.flags, name))


def _check_new(address: int) -> None:
    """Make an array through the C interface."""
    new = ctypes.PYFUNCTYPE(
        *[ctypes.py_object] * 3, ctypes.c_int, *[ctypes.c_void_p] * 3, ctypes.c_int, ctypes.c_void_p
    )(address)
    dtype = np.dtype(np.float32)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(dtype))  # the array takes a reference
    made = new(np.ndarray, dtype, 2, (ctypes.c_int64 * 2)(3, 5), None, None, 0, None)
    if type(made) is not np.ndarray or made.shape != (3, 5) or made.dtype is not dtype or not made.flags.owndata:
        raise Unsupported("PyArray_NewFromDescr is not where it was expected")
