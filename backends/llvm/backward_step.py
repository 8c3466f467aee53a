"""The native code that makes the cotangent of one operand of a node: by the loop of an elementwise op's rule, as a view, as a
part of zeros, summed over what was broadcast.
"""

from __future__ import annotations

from enum import IntEnum, auto

from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.entry_table import Slots
from graphc.backends.llvm.entry_writer import Writer
from graphc.backends.llvm.strided_code import MOST_DIMS


class Steps(IntEnum):
    """The first words of a table; then come the steps."""

    EDGES = 0
    """How many operands the op has."""
    COUNT = auto()
    """How many of them are wanted."""
    MOST = auto()
    """Elements of the largest cotangent: larger ones are for several threads."""


class Step(IntEnum):
    """The words of a step, which makes the cotangent of one operand."""

    OPERAND = 0
    KIND = auto()
    FIRST = auto()
    """What the loop is given besides the cotangent: 0 nothing, k the (k - 1)th of what was saved, -1 the result."""
    SECOND = auto()
    LOOPS = auto()
    """For float32, then for float64, two loops `(result, ct, first, second, count)`: on all elements, and with one number in
    place of the first; 0 where there is none."""
    END = 8


class Kind(IntEnum):
    """How a cotangent is made."""

    PASS = 0
    """It is that of the result."""
    LOOP = auto()
    RESHAPE = auto()
    """It is that of the result, in the operand's shape."""
    PERMUTE = auto()
    """It is that of the result with its dimensions put back in order."""
    SLICE = auto()
    """It is zero but for the part that the op took."""


def render_step(module: Module, slots: Slots) -> None:
    """Add `step`. The module has the code of the tape, of eager ops and of strided arrays already."""
    _render_is_unchanged(module, slots)
    _render_source(module, slots)
    _render_is_type(module, slots)
    _render_view_of(module, slots)
    _render_plain(module, slots)
    _render_matched(module, slots)
    _render_loop(module, slots)
    _render_step(module, slots)


def _render_is_unchanged(module: Module, slots: Slots) -> None:
    """`is_unchanged(tensor)`: whether a tensor has not been changed in place ever."""
    f = module.function("is_unchanged", [("ptr", "tensor")], "i1", linkage="internal")
    w = Writer(f, slots)
    metadata = w.load("ptr", "%tensor", slots.metadata)
    w.require(w.differ("ptr", metadata, w.object("None")), "yes")
    w.require_object(metadata, w.object("metadata"), "no")
    version = w.load("ptr", metadata, slots.version)
    w.require(w.differ("ptr", version, w.object("None")), "yes")
    w.require_object(version, w.object("counter"), "no")
    w.require(w.equal("ptr", w.load("ptr", version, slots.count), w.object("zero")), "no")
    f.jump("yes")
    f.enter("yes")
    f.do("ret i1 true")
    f.enter("no")
    f.do("ret i1 false")


def _render_source(module: Module, slots: Slots) -> None:
    """`source(node, which, number)`: the array that a loop is given; null for a number, which is put into `number` as a double;
    None where Python has to look. And `kept_array(thing, number)`, the same of an operand as a node keeps it."""
    f = module.function("source", [("ptr", "node"), ("i64", "which"), ("ptr", "number")], "ptr", linkage="internal")
    w = Writer(f, slots)
    operand, result = f.label("operand"), f.label("result")
    f.branch(f.value("icmp sgt i64 %which, 0"), operand, result)

    f.enter(result)
    kept = w.load("ptr", "%node", slots.node_out)
    w.require(w.differ("ptr", kept, w.object("None")), "left")
    w.require_object(kept, w.object("tuple"), "left")
    array, version = (w.load("ptr", kept, objects.TUPLE_ITEMS + 8 * k) for k in range(2))
    w.require_object(array, w.object("ndarray"), "left")
    w.require_object(version, w.object("counter"), "left")
    w.require(w.equal("ptr", w.load("ptr", version, slots.count), w.object("zero")), "left")
    f.do(f"ret ptr {array}")

    f.enter(operand)
    saved = w.load("ptr", "%node", slots.node_saved)
    w.require_object(saved, w.object("list"), "left")
    w.require(f.value(f"icmp sle i64 %which, {w.load('i64', saved, objects.SIZE)}"), "left")
    kept = w.load_word("ptr", w.load("ptr", saved, objects.LIST_ITEMS), f.value("sub i64 %which, 1"))
    f.do(f"ret ptr {f.call('ptr', '@kept_array', ('ptr', kept), ('ptr', '%number'))}")
    f.enter("left")
    f.do(f"ret ptr {w.object('None')}")

    f = module.function("kept_array", [("ptr", "thing"), ("ptr", "number")], "ptr", linkage="internal")
    w = Writer(f, slots)
    thing, type_ = "%thing", w.type_of("%thing")
    versioned, plain, other, tensor = f.label("versioned"), f.label("plain"), f.label("other"), f.slot("ptr")
    f.branch(w.equal("ptr", type_, w.type_of(w.object("saved"))), versioned, plain)
    f.enter(versioned)
    w.require(w.equal("ptr", w.load("ptr", thing, slots.saved_unpack), w.object("None")), "left")
    version = w.load("ptr", thing, slots.saved_version)
    w.require_object(version, w.object("counter"), "left")
    now, then = w.load("ptr", version, slots.count), w.load("ptr", thing, slots.saved_count)
    same, compared = f.label("same"), f.label("compared")
    f.branch(w.equal("ptr", now, then), same, compared)
    f.enter(compared)
    w.require(w.equal("i64", w.api("PyLong_AsLongLong", now), w.api("PyLong_AsLongLong", then)), "left")
    f.jump(same)
    f.enter(same)
    w.store("ptr", w.load("ptr", thing, slots.saved_tensor), tensor)
    f.jump("known")

    f.enter(plain)
    is_tensor = f.label("is_tensor")
    itself = w.equal("ptr", type_, w.object("tensor"))
    derived = w.equal("ptr", w.load("ptr", type_, objects.TYPE_BASE), w.object("tensor"))
    f.branch(f.value(f"or i1 {itself}, {derived}"), is_tensor, other)
    f.enter(is_tensor)
    w.require(f.call("i1", "@is_unchanged", ("ptr", thing)), "left")
    w.store("ptr", thing, tensor)
    f.jump("known")

    f.enter("known")
    found = w.load("ptr", w.load("ptr", tensor), slots.data)
    w.require_object(found, w.object("ndarray"), "left")
    f.do(f"ret ptr {found}")

    f.enter(other)
    floating, integer = f.label("floating"), f.label("integer")
    f.branch(w.equal("ptr", type_, w.object("float")), floating, integer)
    f.enter(floating)
    w.store("double", w.load("double", thing, objects.FLOAT_VALUE), "%number")
    f.do("ret ptr null")
    f.enter(integer)
    w.require(w.equal("ptr", type_, w.object("int")), "left")
    w.store("double", w.api("PyLong_AsDouble", thing), "%number")
    with f.when(w.differ("ptr", w.api("PyErr_Occurred"), "null")):
        w.api("PyErr_Clear")
        f.jump("left")
        f.enter(f.label("dead"))
    f.do("ret ptr null")
    f.enter("left")
    f.do(f"ret ptr {w.object('None')}")


def _render_is_type(module: Module, slots: Slots) -> None:
    """`is_type(described, array)`: whether a tuple of a shape and a dtype is the type of an array."""
    f = module.function("is_type", [("ptr", "described"), ("ptr", "array")], "i1", linkage="internal")
    w = Writer(f, slots)
    w.require_object("%described", w.object("tuple"), "no")
    shape, dtype = (w.load("ptr", "%described", objects.TUPLE_ITEMS + 8 * k) for k in range(2))
    w.require(w.equal("ptr", dtype, w.load("ptr", "%array", objects.ARRAY_DTYPE)), "no")
    w.require_object(shape, w.object("tuple"), "no")
    ndim = f.value(f"zext i32 {w.load('i32', '%array', objects.ARRAY_NDIM)} to i64")
    w.require(w.equal("i64", w.load("i64", shape, objects.SIZE), ndim), "no")
    dims = w.load("ptr", "%array", objects.ARRAY_DIMS)
    with f.loop("0", ndim) as k:
        size = w.load_word("ptr", w.at(shape, objects.TUPLE_ITEMS), k)
        w.require_object(size, w.object("int"), "no")
        w.require(w.equal("i64", w.api("PyLong_AsLongLong", size), w.load_word("i64", dims, k)), "no")
    f.do("ret i1 true")
    f.enter("no")
    f.do("ret i1 false")


def _render_view_of(module: Module, slots: Slots) -> None:
    """`view_of(array, ndim, shape, strides, offset)`: another array on its memory, so many bytes on, row-major where there
    are no strides; null with an exception set."""
    params = [("ptr", "array"), ("i64", "ndim"), ("ptr", "shape"), ("ptr", "strides"), ("i64", "offset")]
    f = module.function("view_of", params, "ptr", linkage="internal")
    w = Writer(f, slots)
    types = ("ptr", "ptr", "i32", "ptr", "ptr", "ptr", "i32", "ptr")
    new = module.declare("PyArray_NewFromDescr", "ptr", types)
    dtype, memory = w.load("ptr", "%array", objects.ARRAY_DTYPE), w.at(w.load("ptr", "%array", objects.ARRAY_DATA), "%offset")
    kept = objects.WRITEABLE | objects.ALIGNED
    flags = f.value(f"and i32 {w.load('i32', '%array', objects.ARRAY_FLAGS)}, {kept}")
    flags = f.value(f"or i32 {flags}, {objects.C_CONTIGUOUS}")  # NumPy looks at the strides, if there are any
    w.api("Py_IncRef", dtype)
    operands = (w.object("ndarray"), dtype, f.value("trunc i64 %ndim to i32"), "%shape", "%strides", memory, flags, "null")
    made = f.call("ptr", new, *zip(types, operands, strict=True))
    w.require(w.differ("ptr", made, "null"), "failed")
    # as NumPy does, views of views hold the array that has the memory
    base, owner = w.load("ptr", "%array", objects.ARRAY_BASE), f.slot("ptr")
    w.store("ptr", "%array", owner)
    with f.when(w.differ("ptr", base, "null")), f.when(w.equal("ptr", w.type_of(base), w.object("ndarray"))):
        w.store("ptr", base, owner)
    held = w.load("ptr", owner)
    w.api("Py_IncRef", held)
    w.store("ptr", held, made, objects.ARRAY_BASE)
    f.do(f"ret ptr {made}")
    f.enter("failed")
    f.do("ret ptr null")


def _render_plain(module: Module, slots: Slots) -> None:
    """`plain(array, most)`: a new reference to the array if it is row-major, or else to a copy that is, of up to so many
    elements; null with an exception set, None where Python has to look."""
    f = module.function("plain", [("ptr", "array"), ("i64", "most")], "ptr", linkage="internal")
    w = Writer(f, slots)
    other = f.label("other")
    w.require(_is_plain(w, "%array"), other)
    w.api("Py_IncRef", "%array")
    f.do("ret ptr %array")
    f.enter(other)
    few = f.value(f"icmp sle i64 {f.call('i64', '@elements', ('ptr', '%array'))}, %most")
    w.require(few, "left")
    f.do(f"ret ptr {f.call('ptr', '@spread', ('ptr', '%array'), ('ptr', '%array'))}")
    f.enter("left")
    f.do(f"ret ptr {w.object('None')}")


def _is_plain(w: Writer, array: str) -> str:
    """Whether an array is row-major."""
    wanted = objects.C_CONTIGUOUS | objects.ALIGNED
    flags = w.f.value(f"and i32 {w.load('i32', array, objects.ARRAY_FLAGS)}, {wanted}")
    return w.equal("i32", flags, str(wanted))


def _render_matched(module: Module, slots: Slots) -> None:
    """`matched(array, described, most)`: a new reference to what becomes of an array, a reference to which is taken over, when
    it is summed over what was broadcast, and converted, so as to be of the type that a tuple of a shape and a dtype says, or of
    any with null. Null with an exception set, None where Python has to look."""
    f = module.function("matched", [("ptr", "array"), ("ptr", "described"), ("i64", "most")], "ptr", linkage="internal")
    w = Writer(f, slots)
    w.require(w.differ("ptr", "%described", "null"), "same")
    fits, other = f.label("fits"), f.label("other")
    f.branch(f.call("i1", "@is_type", ("ptr", "%described"), ("ptr", "%array")), "same", other)
    f.enter(other)
    w.require_object("%described", w.object("tuple"), "left")
    w.require(f.value(f"icmp sle i64 {f.call('i64', '@elements', ('ptr', '%array'))}, %most"), "left")
    shape, dtype = (w.load("ptr", "%described", objects.TUPLE_ITEMS + 8 * k) for k in range(2))
    w.require_object(shape, w.object("tuple"), "left")
    summed = f.call("ptr", "@unbroadcast", ("ptr", "%array"), ("ptr", shape))
    w.require(w.differ("ptr", summed, w.object("None")), "left")
    w.api("Py_DecRef", "%array")
    w.require(w.differ("ptr", summed, "null"), "failed")
    f.branch(w.equal("ptr", w.load("ptr", summed, objects.ARRAY_DTYPE), dtype), fits, "wide")
    f.enter("wide")
    converted = f.call("ptr", "@converted", ("ptr", summed), ("ptr", dtype))
    w.api("Py_DecRef", summed)
    f.do(f"ret ptr {converted}")
    f.enter(fits)
    f.do(f"ret ptr {summed}")
    f.enter("same")
    f.do("ret ptr %array")
    f.enter("left")
    w.api("Py_DecRef", "%array")
    f.do(f"ret ptr {w.object('None')}")
    f.enter("failed")
    f.do("ret ptr null")


def _render_loop(module: Module, slots: Slots) -> None:
    """`loop_step(node, table, step, array)`: the array that a step's loop makes of the cotangent's, which is row-major; null
    with an exception set, None where Python has to look."""
    params = [("ptr", name) for name in ("node", "table", "step", "array")]
    f = module.function("loop_step", params, "ptr", linkage="internal")
    w = Writer(f, slots)
    total = f.call("i64", "@elements", ("ptr", "%array"))
    w.require(f.value(f"icmp sle i64 {total}, {w.load_word('i64', '%table', Steps.MOST)}"), "left")
    dtype = w.load("ptr", "%array", objects.ARRAY_DTYPE)
    is_double = w.equal("ptr", dtype, w.object("float64"))
    known = f.value(f"or i1 {is_double}, {w.equal('ptr', dtype, w.object('float32'))}")
    w.require(known, "left")
    itemsize = f.value(f"select i1 {is_double}, i64 8, i64 4")
    ndim = f.value(f"zext i32 {w.load('i32', '%array', objects.ARRAY_NDIM)} to i64")
    memory = w.load("ptr", "%array", objects.ARRAY_DATA)

    numbers, pointers, copies = ([f.slot(type_) for _ in range(2)] for type_ in ("double", "ptr", "ptr"))
    is_number, part, result = f.slot("i64"), f.slot("i64"), f.slot("ptr")
    w.store("i64", "0", is_number)
    w.store("i64", total, part)
    for copy in copies:
        w.store("ptr", "null", copy)
    lone = w.equal("i64", w.load_word("i64", "%step", Step.SECOND), "0")
    for which, pointer, number, copy in zip((Step.FIRST, Step.SECOND), pointers, numbers, copies, strict=True):
        w.store("ptr", "null", pointer)
        source = w.load_word("i64", "%step", which)
        with f.when(w.differ("i64", source, "0")):
            found = f.call("ptr", "@source", ("ptr", "%node"), ("i64", source), ("ptr", number))
            w.require(w.differ("ptr", found, w.object("None")), "leave")
            single, several, stored = f.label("single"), f.label("several"), f.label("stored")
            f.branch(w.equal("ptr", found, "null"), single, several)
            f.enter(single)
            w.require(lone, "leave")
            with f.when(f.value(f"xor i1 {is_double}, true")):
                rounded = f.value(f"fptrunc double {w.load('double', number)} to float")
                f.do(f"store float {rounded}, ptr {number}, align 8")
            w.store("ptr", number, pointer)
            w.store("i64", "1", is_number)
            f.jump(stored)

            f.enter(several)
            w.require(w.equal("ptr", w.load("ptr", found, objects.ARRAY_DTYPE), dtype), "leave")
            stretched, number_, rows, by_rows = (f.label(hint) for hint in ("stretched", "number", "rows", "by_rows"))
            own = w.load("i32", found, objects.ARRAY_NDIM)
            fewer = f.value(f"icmp ult i32 {own}, {w.load('i32', '%array', objects.ARRAY_NDIM)}")
            more = f.value(f"icmp ugt i32 {own}, {w.load('i32', '%array', objects.ARRAY_NDIM)}")
            w.require(f.value(f"xor i1 {more}, true"), "leave")
            w.require(_is_plain(w, found), stretched)
            w.require(f.call("i1", "@is_end", ("ptr", "%array"), ("ptr", found)), stretched)
            w.store("ptr", w.load("ptr", found, objects.ARRAY_DATA), pointer)
            f.branch(fewer, rows, stored)
            f.enter(rows)
            w.require(lone, stretched)
            length = f.call("i64", "@elements", ("ptr", found))
            f.branch(w.equal("i32", own, "0"), number_, by_rows)
            f.enter(by_rows)
            w.store("i64", length, part)
            f.jump(stored)
            f.enter(number_)
            w.store("i64", "1", is_number)
            f.jump(stored)
            f.enter(stretched)
            made = f.call("ptr", "@spread", ("ptr", found), ("ptr", "%array"))
            w.require(w.differ("ptr", made, "null"), "fail")
            w.require(w.differ("ptr", made, w.object("None")), "leave")
            w.store("ptr", made, copy)
            w.store("ptr", w.load("ptr", made, objects.ARRAY_DATA), pointer)
            f.jump(stored)
            f.enter(stored)
    variant = f.value(f"add i64 {f.value(f'select i1 {is_double}, i64 2, i64 0')}, {w.load('i64', is_number)}")
    loop = w.load_word("ptr", "%step", f.value(f"add i64 {variant}, {Step.LOOPS.value}"))
    w.require(w.differ("ptr", loop, "null"), "leave")

    nbytes = f.value(f"mul i64 {total}, {itemsize}")
    dims = w.load("ptr", "%array", objects.ARRAY_DIMS)
    # no code of Python's runs before the loop is over: what was found stays where it is
    made = f.call("ptr", "@new_array", ("ptr", dtype), ("i64", nbytes), ("i64", ndim), ("ptr", dims))
    w.require(w.differ("ptr", made, "null"), "fail")
    target = w.load("ptr", made, objects.ARRAY_DATA)
    length = w.load("i64", part)
    step = f.value(f"call i64 @llvm.smax.i64(i64 {length}, i64 1)")
    module.declare("llvm.smax.i64", "i64", ("i64", "i64"))
    with f.loop("0", total, step) as start:
        offset = f.value(f"mul i64 {start}, {itemsize}")
        operands = (w.at(target, offset), w.at(memory, offset), w.load("ptr", pointers[0]), w.load("ptr", pointers[1]))
        f.call("void", loop, *(("ptr", operand) for operand in operands), ("i64", length))
    w.store("ptr", made, result)
    f.jump("done")
    for label, outcome in (("fail", "null"), ("leave", w.object("None"))):
        f.enter(label)
        w.store("ptr", outcome, result)
        f.jump("done")
    f.enter("done")
    for copy in copies:
        w.give_back(w.load("ptr", copy))
    f.do(f"ret ptr {w.load('ptr', result)}")
    f.enter("left")
    f.do(f"ret ptr {w.object('None')}")


def _render_step(module: Module, slots: Slots) -> None:
    """`step(node, table, step, ct)`: the cotangent that a step makes; null with an exception set, None where Python has to
    look."""
    params = [("ptr", name) for name in ("node", "table", "step", "ct")]
    f = module.function("step", params, "ptr", linkage="internal")
    w = Writer(f, slots)
    own = w.load("ptr", "%ct", slots.data)
    most = w.load_word("i64", "%table", Steps.MOST)
    array_place, made = f.slot("ptr"), f.slot("ptr")
    sizes, strides = (f.slot(f"[{MOST_DIMS} x i64]", 16) for _ in range(2))
    types = w.load("ptr", "%node", slots.node_types)
    operand = w.load_word("i64", "%step", Step.OPERAND)
    described, described_place = f.label("described"), f.slot("ptr")
    w.store("ptr", "null", described_place)
    with f.when(w.differ("ptr", types, w.object("None"))):
        w.require_object(types, w.object("list"), "left")
        w.require(f.value(f"icmp slt i64 {operand}, {w.load('i64', types, objects.SIZE)}"), "left")
        w.store("ptr", w.load_word("ptr", w.load("ptr", types, objects.LIST_ITEMS), operand), described_place)
    f.jump(described)
    f.enter(described)
    type_ = w.load("ptr", described_place)
    attributes = w.load("ptr", "%node", slots.node_attrs)
    labels = {kind: f.label(kind.name.lower()) for kind in Kind}
    cases = " ".join(f"i64 {kind.value}, label %{labels[kind]}" for kind in Kind)
    f.do(f"switch i64 {w.load_word('i64', '%step', Step.KIND)}, label %left [ {cases} ]")

    def attribute(name: str, otherwise: str) -> str:
        """A tuple."""
        found = w.api("PyDict_GetItemWithError", attributes, w.object(name))
        w.require_object(found, w.object("tuple"), otherwise)
        return found

    def row_major() -> str:
        """The cotangent's array, or a copy of it, which is to be given back."""
        array = f.call("ptr", "@plain", ("ptr", own), ("i64", most))
        w.require(w.differ("ptr", array, "null"), "failed")
        w.require(w.differ("ptr", array, w.object("None")), "left")
        w.store("ptr", array, array_place)
        return array

    def finish_with(array: str) -> None:
        """Go on with an array that was made of the one that is to be given back now."""
        w.store("ptr", array, made)
        w.api("Py_DecRef", w.load("ptr", array_place))
        f.jump("made")

    f.enter(labels[Kind.PASS])
    same, other = f.label("same"), f.label("other")
    typed = f.label("typed")
    f.branch(w.equal("ptr", type_, "null"), same, typed)
    f.enter(typed)
    f.branch(f.call("i1", "@is_type", ("ptr", type_), ("ptr", own)), same, other)
    f.enter(same)
    w.api("Py_IncRef", "%ct")
    f.do("ret ptr %ct")
    f.enter(other)
    w.store("ptr", f.call("ptr", "@matched", ("ptr", row_major()), ("ptr", type_), ("i64", most)), made)
    f.jump("made")

    f.enter(labels[Kind.LOOP])
    operands = ("%node", "%table", "%step", row_major())
    computed = f.call("ptr", "@loop_step", *(("ptr", operand) for operand in operands))
    finished, usable = f.label("finished"), f.label("usable")
    f.branch(w.equal("ptr", computed, "null"), finished, usable)
    f.enter(usable)
    matching = f.label("matching")
    f.branch(w.equal("ptr", computed, w.object("None")), finished, matching)
    f.enter(finished)
    finish_with(computed)
    f.enter(matching)
    finish_with(f.call("ptr", "@matched", ("ptr", computed), ("ptr", type_), ("i64", most)))

    f.enter(labels[Kind.RESHAPE])
    w.require_object(type_, w.object("tuple"), "left")
    shape, dtype = (w.load("ptr", type_, objects.TUPLE_ITEMS + 8 * k) for k in range(2))
    w.require(w.equal("ptr", dtype, w.load("ptr", own, objects.ARRAY_DTYPE)), "left")
    w.require_object(shape, w.object("tuple"), "left")
    length = w.load("i64", shape, objects.SIZE)
    w.require(f.value(f"icmp sle i64 {length}, {MOST_DIMS}"), "left")
    product = f.slot("i64")
    w.store("i64", "1", product)
    with f.loop("0", length) as k:
        size = w.load_word("ptr", w.at(shape, objects.TUPLE_ITEMS), k)
        w.require_object(size, w.object("int"), "left")
        number = w.api("PyLong_AsLongLong", size)
        w.store_word("i64", number, sizes, k)
        w.store("i64", f.value(f"mul i64 {w.load('i64', product)}, {number}"), product)
    w.require(w.equal("i64", w.load("i64", product), f.call("i64", "@elements", ("ptr", own))), "left")
    finish_with(f.call("ptr", "@view_of", ("ptr", row_major()), ("i64", length), ("ptr", sizes), ("ptr", "null"), ("i64", "0")))

    f.enter(labels[Kind.PERMUTE])
    w.require_object(type_, w.object("tuple"), "left")
    w.require_object(attributes, w.object("dict"), "left")
    order = attribute("order", "left")
    ndim = f.value(f"zext i32 {w.load('i32', own, objects.ARRAY_NDIM)} to i64")
    w.require(w.equal("i64", w.load("i64", order, objects.SIZE), ndim), "left")
    w.require(f.value(f"icmp sle i64 {ndim}, {MOST_DIMS}"), "left")
    with f.loop("0", ndim) as k:
        axis = w.api("PyLong_AsLongLong", w.load_word("ptr", w.at(order, objects.TUPLE_ITEMS), k))
        w.require(f.value(f"icmp ult i64 {axis}, {ndim}"), "left")
        for there, place in ((sizes, objects.ARRAY_DIMS), (strides, objects.ARRAY_STRIDES)):
            w.store_word("i64", w.load_word("i64", w.load("ptr", own, place), k), there, axis)
    operands_ = (("ptr", own), ("i64", ndim), ("ptr", sizes), ("ptr", strides), ("i64", "0"))
    w.store("ptr", f.call("ptr", "@view_of", *operands_), made)
    f.jump("made")

    f.enter(labels[Kind.SLICE])
    w.require_object(type_, w.object("tuple"), "left")
    w.require_object(attributes, w.object("dict"), "left")
    shape, dtype = (w.load("ptr", type_, objects.TUPLE_ITEMS + 8 * k) for k in range(2))
    w.require(w.equal("ptr", dtype, w.load("ptr", own, objects.ARRAY_DTYPE)), "left")
    region = [("ptr", thing) for thing in (own, shape, attribute("starts", "left"), attribute("steps", "left"))]
    w.store("ptr", f.call("ptr", "@put_into_zeros", *region, ("i64", most)), made)
    f.jump("made")

    f.enter("made")
    result = w.load("ptr", made)
    w.require(w.differ("ptr", result, "null"), "failed")
    w.require(w.differ("ptr", result, w.object("None")), "left")
    f.do(f"ret ptr {f.call('ptr', '@wrap', ('ptr', result), ('ptr', w.object('None')))}")
    f.enter("left")
    f.do(f"ret ptr {w.object('None')}")
    f.enter("failed")
    f.do("ret ptr null")
