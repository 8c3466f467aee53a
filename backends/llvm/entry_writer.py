"""Writing native code that works on Python's objects."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.entry_table import Slots

FUNCTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "PyDict_DelItem": ("i32", ("ptr", "ptr")),
    "PyDict_GetItemWithError": ("ptr", ("ptr", "ptr")),
    "PyDict_New": ("ptr", ()),
    "PyDict_Next": ("i32", ("ptr", "ptr", "ptr", "ptr")),
    "PyDict_SetItem": ("i32", ("ptr", "ptr", "ptr")),
    "PyDict_Size": ("i64", ("ptr",)),
    "PyErr_Clear": ("void", ()),
    "PyErr_NoMemory": ("ptr", ()),
    "PyErr_Occurred": ("ptr", ()),
    "PyErr_SetString": ("void", ("ptr", "ptr")),
    "PyEval_GetFrame": ("ptr", ()),
    "PyEval_RestoreThread": ("void", ("ptr",)),
    "PyEval_SaveThread": ("ptr", ()),
    "PyFrame_GetBack": ("ptr", ("ptr",)),
    "PyFrame_GetCode": ("ptr", ("ptr",)),
    "PyFrame_GetLasti": ("i32", ("ptr",)),
    "PyFunction_GetCode": ("ptr", ("ptr",)),
    "PyFunction_GetDefaults": ("ptr", ("ptr",)),
    "PyFunction_GetKwDefaults": ("ptr", ("ptr",)),
    "PyIter_Next": ("ptr", ("ptr",)),
    "PyList_Append": ("i32", ("ptr", "ptr")),
    "PyList_New": ("ptr", ("i64",)),
    "PyLong_AsDouble": ("double", ("ptr",)),
    "PyLong_AsLongLong": ("i64", ("ptr",)),
    "PyLong_FromLongLong": ("ptr", ("i64",)),
    "PyLong_FromVoidPtr": ("ptr", ("ptr",)),
    "PyMem_RawFree": ("void", ("ptr",)),
    "PyMem_RawMalloc": ("ptr", ("i64",)),
    "PyNumber_Add": ("ptr", ("ptr", "ptr")),
    "PyObject_GenericGetDict": ("ptr", ("ptr", "ptr")),
    "PyObject_GetAttr": ("ptr", ("ptr", "ptr")),
    "PyObject_RichCompareBool": ("i32", ("ptr", "ptr", "i32")),
    "PyObject_Vectorcall": ("ptr", ("ptr", "ptr", "i64", "ptr")),
    "PySlice_AdjustIndices": ("i64", ("i64", "ptr", "ptr", "i64")),
    "PyThreadState_Get": ("ptr", ()),
    "PyThreadState_GetID": ("i64", ("ptr",)),
    "PyTuple_New": ("ptr", ("i64",)),
    "PyType_GenericAlloc": ("ptr", ("ptr", "i64")),
    "PyType_IsSubtype": ("i32", ("ptr", "ptr")),
    "Py_DecRef": ("void", ("ptr",)),
    "Py_IncRef": ("void", ("ptr",)),
}
"""Functions of Python's C interface that the code calls."""

OBJECTS = ("None", "True", "False", "float", "int", "str", "ndarray", "tensor", "metadata", "counter", "view", "zero",
           "one", "RuntimeError", "__dict__", "shape", "handler", "plain_metadata", "plain_counter", "plain_view", "saved",
           "sequence", "own_code", "anomaly", "node", "op_node", "compiled_node", "tuple", "list", "dict", "float32", "float64",
           "order", "starts", "stops", "steps", "heappush", "heapreplace", "slice", "Ellipsis")
"""Objects whose addresses the code knows as symbols `object.<name>`."""

class Writer:
    """A function under construction, in the vocabulary of Python's objects."""

    def __init__(self, f: Function, slots: Slots) -> None:
        self.f = f
        self.slots = slots

    def api(self, name: str, *operands: str) -> str:
        """Call a function of Python's C interface."""
        result, types = FUNCTIONS[name]
        return self.f.call(result, self.f.module.declare(name, result, types), *zip(types, operands, strict=True))

    def object(self, name: str) -> str:
        """The address of one of OBJECTS. It is declared as a function, since nothing but its address is used."""
        assert name in OBJECTS
        return self.f.module.declare(f"object.{name}", "void", ())

    def at(self, base: str, offset: int | str) -> str:
        """An address, some bytes on."""
        return self.f.value(f"getelementptr i8, ptr {base}, i64 {offset}") if offset != 0 else base

    def word(self, base: str, index: int | str) -> str:
        """The address of a 64-bit word in an array."""
        return self.f.value(f"getelementptr i64, ptr {base}, i64 {index}")

    def load(self, type_: str, base: str, offset: int | str = 0) -> str:
        return self.f.value(f"load {type_}, ptr {self.at(base, offset)}, align {4 if type_ == 'i32' else 8}")

    def load_word(self, type_: str, base: str, index: int | str) -> str:
        return self.f.value(f"load {type_}, ptr {self.word(base, index)}, align 8")

    def store(self, type_: str, value: str, base: str, offset: int | str = 0) -> None:
        self.f.do(f"store {type_} {value}, ptr {self.at(base, offset)}, align 8")

    def store_word(self, type_: str, value: str, base: str, index: int | str) -> None:
        self.f.do(f"store {type_} {value}, ptr {self.word(base, index)}, align 8")

    def equal(self, type_: str, left: str, right: str) -> str:
        return self.f.value(f"icmp eq {type_} {left}, {right}")

    def differ(self, type_: str, left: str, right: str) -> str:
        return self.f.value(f"icmp ne {type_} {left}, {right}")

    def type_of(self, thing: str) -> str:
        return self.load("ptr", thing, objects.OBJECT_TYPE)

    def require(self, condition: str, otherwise: str) -> None:
        """Go on where the condition holds, to the block `otherwise` where not."""
        following = self.f.label("ok")
        self.f.branch(condition, following, otherwise)
        self.f.enter(following)

    def require_object(self, thing: str, type_: str, otherwise: str) -> None:
        """Go on where there is an object of the very type."""
        self.require(self.differ("ptr", thing, "null"), otherwise)
        self.require(self.equal("ptr", self.type_of(thing), type_), otherwise)

    def miss(self) -> None:
        """The block `miss` of an entry: the third of its items, the fallback, is called with what it was called with."""
        self.f.enter("miss")
        fallback = self.load("ptr", "%self", objects.TUPLE_ITEMS + 16)
        self.f.do(f"ret ptr {self.api('PyObject_Vectorcall', fallback, '%args', '%nargs', '%kwnames')}")

    def give_back(self, thing: str) -> None:
        """Drop a reference to an object that may be null."""
        with self.f.when(self.differ("ptr", thing, "null")):
            self.api("Py_DecRef", thing)

    def exchange(self, thing: str, base: str, offset: int) -> None:
        """Put an object into a slot, reference and all."""
        before = self.load("ptr", base, offset)
        self.store("ptr", thing, base, offset)
        self.give_back(before)

    def walk(self, instructions: str, operations: Sequence[IntEnum], *ahead: str) -> tuple[str, ...]:
        """Begin a loop over instructions: a block for each operation, named after it, which ends with `self.next()`.

        Returns the address of the instruction, and its first operands as the types in `ahead`.
        """
        f = self.f
        self._place = f.slot("ptr")
        f.do(f"store ptr {instructions}, ptr {self._place}")
        f.jump("each")
        f.enter("each")
        instruction = f.value(f"load ptr, ptr {self._place}")
        operation = self.load("i64", instruction)
        operands = [self.load_word(type_, instruction, 2 + k) for k, type_ in enumerate(ahead)]
        cases = " ".join(f"i64 {op.value}, label %{op.name.lower()}" for op in operations[1:])
        f.do(f"switch i64 {operation}, label %{operations[0].name.lower()} [ {cases} ]")
        self._instruction = instruction
        return instruction, *operands

    def next(self) -> None:
        """Go to the next instruction."""
        length = self.load_word("i64", self._instruction, 1)
        self.store("ptr", self.word(self._instruction, length), self._place)
        self.f.jump("each")
