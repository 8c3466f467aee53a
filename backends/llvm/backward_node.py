"""The native code that runs one node of the tape: by loops for the rules of elementwise ops, as a view, or as the backward of a
compiled graph. What it knows of a node stands in a table that the node's plan holds (see `Steps` and `Call`).
"""

from __future__ import annotations

from enum import IntEnum, auto

from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.entry_table import Slots
from graphc.backends.llvm.entry_writer import Writer
from graphc.backends.llvm.tape_code import DONE, FAILED, LEFT

MOST_EDGES = 8
"""Edges of the nodes that have a table."""

MOST_ARRAYS = 32
"""What the backward of a compiled graph is given, at most."""


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


class Call(IntEnum):
    """The first words of the table of nodes of a compiled graph. Then come the shape of its output, the numbers of the inputs
    that it takes, and for each edge whether a cotangent goes there."""

    EDGES = 0
    KEPT = auto()
    """How many arrays the node keeps."""
    TAKEN = auto()
    """How many inputs are taken."""
    FUNCTION = auto()
    """Of the arrays kept, of the inputs taken and of the cotangent, to a tuple of arrays."""
    DTYPE = auto()
    """Of the output."""
    NDIM = auto()
    LISTS = auto()


class Kind(IntEnum):
    """How a cotangent is made."""

    PASS = 0
    """It is that of the result."""
    LOOP = auto()
    RESHAPE = auto()
    """It is that of the result, in the operand's shape."""
    PERMUTE = auto()
    """It is that of the result with its dimensions put back in order."""


def render_node(module: Module, slots: Slots) -> None:
    """Add `run_node` and `run_call`. The module has the code of the tape and of eager ops already."""
    _render_is_unchanged(module, slots)
    _render_source(module, slots)
    _render_is_type(module, slots)
    _render_view_of(module, slots)
    _render_loop(module, slots)
    _render_step(module, slots)
    _render_run_node(module, slots)
    _render_is_compiled(module, slots)
    _render_run_call(module, slots)


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
    """`view_of(array, ndim, shape, strides)`: another array on its memory, row-major where there are no strides; null with an
    exception set."""
    params = [("ptr", "array"), ("i64", "ndim"), ("ptr", "shape"), ("ptr", "strides")]
    f = module.function("view_of", params, "ptr", linkage="internal")
    w = Writer(f, slots)
    types = ("ptr", "ptr", "i32", "ptr", "ptr", "ptr", "i32", "ptr")
    new = module.declare("PyArray_NewFromDescr", "ptr", types)
    dtype, memory = w.load("ptr", "%array", objects.ARRAY_DTYPE), w.load("ptr", "%array", objects.ARRAY_DATA)
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


def _render_loop(module: Module, slots: Slots) -> None:
    """`loop_step(node, table, step, array)`: the array that a step's loop makes of the cotangent's; null with an exception set,
    None where Python has to look."""
    params = [("ptr", name) for name in ("node", "table", "step", "array")]
    f = module.function("loop_step", params, "ptr", linkage="internal")
    w = Writer(f, slots)
    wanted = objects.C_CONTIGUOUS | objects.ALIGNED

    def require_plain(array: str) -> None:
        flags = f.value(f"and i32 {w.load('i32', array, objects.ARRAY_FLAGS)}, {wanted}")
        w.require(w.equal("i32", flags, str(wanted)), "left")

    require_plain("%array")
    total = f.call("i64", "@elements", ("ptr", "%array"))
    w.require(f.value(f"icmp sle i64 {total}, {w.load_word('i64', '%table', Steps.MOST)}"), "left")
    dtype = w.load("ptr", "%array", objects.ARRAY_DTYPE)
    is_double = w.equal("ptr", dtype, w.object("float64"))
    known = f.value(f"or i1 {is_double}, {w.equal('ptr', dtype, w.object('float32'))}")
    w.require(known, "left")
    itemsize = f.value(f"select i1 {is_double}, i64 8, i64 4")
    ndim = f.value(f"zext i32 {w.load('i32', '%array', objects.ARRAY_NDIM)} to i64")
    memory = w.load("ptr", "%array", objects.ARRAY_DATA)

    numbers = [f.slot("double") for _ in range(2)]
    pointers = [f.slot("ptr") for _ in range(2)]
    is_number, part = f.slot("i64"), f.slot("i64")
    w.store("i64", "0", is_number)
    w.store("i64", total, part)
    for which, pointer, number in zip((Step.FIRST, Step.SECOND), pointers, numbers, strict=True):
        w.store("ptr", "null", pointer)
        source = w.load_word("i64", "%step", which)
        with f.when(w.differ("i64", source, "0")):
            found = f.call("ptr", "@source", ("ptr", "%node"), ("i64", source), ("ptr", number))
            w.require(w.differ("ptr", found, w.object("None")), "left")
            single, several, stored = f.label("single"), f.label("several"), f.label("stored")
            f.branch(w.equal("ptr", found, "null"), single, several)
            f.enter(single)
            if which is Step.SECOND:
                f.jump("left")
            else:
                wide, narrow, written = f.label("wide"), f.label("narrow"), f.label("written")
                f.branch(is_double, wide, narrow)
                f.enter(narrow)
                rounded = f.value(f"fptrunc double {w.load('double', number)} to float")
                f.do(f"store float {rounded}, ptr {number}, align 8")
                f.jump(written)
                f.enter(wide)
                f.jump(written)
                f.enter(written)
                w.store("ptr", number, pointer)
                w.store("i64", "1", is_number)
                f.jump(stored)
            f.enter(several)
            w.require(w.equal("ptr", w.load("ptr", found, objects.ARRAY_DTYPE), dtype), "left")
            require_plain(found)
            own = w.load("i32", found, objects.ARRAY_NDIM)
            w.require(f.value(f"icmp ule i32 {own}, {w.load('i32', '%array', objects.ARRAY_NDIM)}"), "left")
            w.require(f.call("i1", "@is_end", ("ptr", "%array"), ("ptr", found)), "left")
            w.store("ptr", w.load("ptr", found, objects.ARRAY_DATA), pointer)
            shorter = f.value(f"icmp ult i32 {own}, {w.load('i32', '%array', objects.ARRAY_NDIM)}")
            if which is Step.SECOND:
                w.require(f.value(f"xor i1 {shorter}, true"), "left")
                f.jump(stored)
            else:
                with f.when(shorter):
                    w.require(w.equal("i64", w.load_word("i64", "%step", Step.SECOND), "0"), "left")
                    w.store("i64", f.call("i64", "@elements", ("ptr", found)), part)
                f.jump(stored)
            f.enter(stored)
    second = w.load_word("i64", "%step", Step.SECOND)
    lone = f.value(f"or i1 {w.equal('i64', w.load('i64', is_number), '0')}, {w.equal('i64', second, '0')}")
    w.require(lone, "left")
    variant = f.value(f"add i64 {f.value(f'select i1 {is_double}, i64 2, i64 0')}, {w.load('i64', is_number)}")
    loop = w.load_word("ptr", "%step", f.value(f"add i64 {variant}, {Step.LOOPS.value}"))
    w.require(w.differ("ptr", loop, "null"), "left")

    nbytes = f.value(f"mul i64 {total}, {itemsize}")
    dims = w.load("ptr", "%array", objects.ARRAY_DIMS)
    # no code of Python's runs before the loop is over: what was found stays where it is
    made = f.call("ptr", "@new_array", ("ptr", dtype), ("i64", nbytes), ("i64", ndim), ("ptr", dims))
    w.require(w.differ("ptr", made, "null"), "failed")
    target = w.load("ptr", made, objects.ARRAY_DATA)
    length = w.load("i64", part)
    step = f.value(f"call i64 @llvm.smax.i64(i64 {length}, i64 1)")
    module.declare("llvm.smax.i64", "i64", ("i64", "i64"))
    with f.loop("0", total, step) as start:
        offset = f.value(f"mul i64 {start}, {itemsize}")
        operands = (w.at(target, offset), w.at(memory, offset), w.load("ptr", pointers[0]), w.load("ptr", pointers[1]))
        f.call("void", loop, *(("ptr", operand) for operand in operands), ("i64", length))
    f.do(f"ret ptr {made}")
    f.enter("left")
    f.do(f"ret ptr {w.object('None')}")
    f.enter("failed")
    f.do("ret ptr null")


def _render_step(module: Module, slots: Slots) -> None:
    """`step(node, table, step, ct)`: the cotangent that a step makes; null with an exception set, None where Python has to
    look."""
    params = [("ptr", name) for name in ("node", "table", "step", "ct")]
    f = module.function("step", params, "ptr", linkage="internal")
    w = Writer(f, slots)
    array = w.load("ptr", "%ct", slots.data)
    ndim = f.value(f"zext i32 {w.load('i32', array, objects.ARRAY_NDIM)} to i64")
    made = f.slot("ptr")
    sizes, strides = (f.slot("[32 x i64]", 16) for _ in range(2))
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
    labels = {kind: f.label(kind.name.lower()) for kind in Kind}
    cases = " ".join(f"i64 {kind.value}, label %{labels[kind]}" for kind in Kind)
    f.do(f"switch i64 {w.load_word('i64', '%step', Step.KIND)}, label %left [ {cases} ]")

    def require_own_type() -> None:
        with f.when(w.differ("ptr", type_, "null")):
            w.require(f.call("i1", "@is_type", ("ptr", type_), ("ptr", array)), "left")

    f.enter(labels[Kind.PASS])
    require_own_type()
    w.api("Py_IncRef", "%ct")
    f.do("ret ptr %ct")

    f.enter(labels[Kind.LOOP])
    require_own_type()
    operands = ("%node", "%table", "%step", array)
    w.store("ptr", f.call("ptr", "@loop_step", *(("ptr", operand) for operand in operands)), made)
    f.jump("made")

    f.enter(labels[Kind.RESHAPE])
    w.require_object(type_, w.object("tuple"), "left")
    flags = f.value(f"and i32 {w.load('i32', array, objects.ARRAY_FLAGS)}, {objects.C_CONTIGUOUS}")
    w.require(w.differ("i32", flags, "0"), "left")
    shape, dtype = (w.load("ptr", type_, objects.TUPLE_ITEMS + 8 * k) for k in range(2))
    w.require(w.equal("ptr", dtype, w.load("ptr", array, objects.ARRAY_DTYPE)), "left")
    w.require_object(shape, w.object("tuple"), "left")
    length = w.load("i64", shape, objects.SIZE)
    w.require(f.value(f"icmp sle i64 {length}, 32"), "left")
    product = f.slot("i64")
    w.store("i64", "1", product)
    with f.loop("0", length) as k:
        size = w.load_word("ptr", w.at(shape, objects.TUPLE_ITEMS), k)
        w.require_object(size, w.object("int"), "left")
        number = w.api("PyLong_AsLongLong", size)
        w.store_word("i64", number, sizes, k)
        w.store("i64", f.value(f"mul i64 {w.load('i64', product)}, {number}"), product)
    w.require(w.equal("i64", w.load("i64", product), f.call("i64", "@elements", ("ptr", array))), "left")
    w.store("ptr", f.call("ptr", "@view_of", ("ptr", array), ("i64", length), ("ptr", sizes), ("ptr", "null")), made)
    f.jump("made")

    f.enter(labels[Kind.PERMUTE])
    w.require_object(type_, w.object("tuple"), "left")
    attributes = w.load("ptr", "%node", slots.node_attrs)
    w.require_object(attributes, w.object("dict"), "left")
    order = w.api("PyDict_GetItemWithError", attributes, w.object("order"))
    w.require_object(order, w.object("tuple"), "left")
    w.require(w.equal("i64", w.load("i64", order, objects.SIZE), ndim), "left")
    w.require(f.value(f"icmp sle i64 {ndim}, 32"), "left")
    with f.loop("0", ndim) as k:
        axis = w.api("PyLong_AsLongLong", w.load_word("ptr", w.at(order, objects.TUPLE_ITEMS), k))
        w.require(f.value(f"icmp ult i64 {axis}, {ndim}"), "left")
        for there, place in ((sizes, objects.ARRAY_DIMS), (strides, objects.ARRAY_STRIDES)):
            w.store_word("i64", w.load_word("i64", w.load("ptr", array, place), k), there, axis)
    w.store("ptr", f.call("ptr", "@view_of", ("ptr", array), ("i64", ndim), ("ptr", sizes), ("ptr", strides)), made)
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


def _render_run_node(module: Module, slots: Slots) -> None:
    """`run_node(node, ct, results)`: put the cotangents of the node's operands into `results`, or null where there is none;
    DONE, LEFT, where nothing has been done, or FAILED."""
    f = module.function("run_node", [("ptr", "node"), ("ptr", "ct"), ("ptr", "results")], "i32", linkage="internal")
    w = Writer(f, slots)
    with f.loop("0", str(MOST_EDGES)) as k:
        w.store_word("ptr", "null", "%results", k)
    table_array = w.load("ptr", w.load("ptr", "%node", slots.node_plan), slots.plan_native)
    w.require_object(table_array, w.object("ndarray"), "left")
    w.require_object(w.load("ptr", "%ct", slots.data), w.object("ndarray"), "left")
    table = w.load("ptr", table_array, objects.ARRAY_DATA)
    edges = w.load("ptr", "%node", slots.node_edges)
    w.require(w.equal("i64", w.load("i64", edges, objects.SIZE), w.load_word("i64", table, Steps.EDGES)), "left")
    failed, stopped = f.slot("i32"), f.label("stopped")
    with f.loop("0", w.load_word("i64", table, Steps.COUNT)) as k:
        start = f.value(f"add i64 {f.value(f'mul i64 {k}, {Step.END.value}')}, {len(Steps)}")
        step = w.word(table, start)
        made = f.call("ptr", "@step", *(("ptr", operand) for operand in ("%node", table, step, "%ct")))
        f.do(f"store i32 {FAILED}, ptr {failed}, align 4")
        w.require(w.differ("ptr", made, "null"), stopped)
        f.do(f"store i32 {LEFT}, ptr {failed}, align 4")
        w.require(w.differ("ptr", made, w.object("None")), stopped)
        w.store_word("ptr", made, "%results", w.load_word("i64", step, Step.OPERAND))
    f.do(f"ret i32 {DONE}")
    f.enter(stopped)
    with f.loop("0", str(MOST_EDGES)) as k:
        before = w.load_word("ptr", "%results", k)
        w.store_word("ptr", "null", "%results", k)
        w.give_back(before)
    f.do(f"ret i32 {w.load('i32', failed)}")
    f.enter("left")
    f.do(f"ret i32 {LEFT}")


def _render_is_compiled(module: Module, slots: Slots) -> None:
    """`is_compiled(type)`: whether nodes of a type are those of compiled graphs."""
    f = module.function("is_compiled", [("ptr", "type")], "i1", linkage="internal")
    w = Writer(f, slots)
    base = w.load("ptr", "%type", objects.TYPE_BASE)
    w.require(w.differ("ptr", base, "null"), "no")
    above = w.load("ptr", base, objects.TYPE_BASE)
    direct, named = (w.equal("ptr", type_, w.object("compiled_node")) for type_ in (base, above))
    f.do(f"ret i1 {f.value(f'or i1 {direct}, {named}')}")
    f.enter("no")
    f.do("ret i1 false")


def _render_run_call(module: Module, slots: Slots) -> None:
    """`run_call(node, ct, results)`: as `run_node`, for a node of a compiled graph."""
    f = module.function("run_call", [("ptr", "node"), ("ptr", "ct"), ("ptr", "results")], "i32", linkage="internal")
    w = Writer(f, slots)
    with f.loop("0", str(MOST_EDGES)) as k:
        w.store_word("ptr", "null", "%results", k)
    table_array = w.load("ptr", w.load("ptr", "%node", slots.compiled_how), slots.plan_native)
    w.require_object(table_array, w.object("ndarray"), "left")
    table = w.load("ptr", table_array, objects.ARRAY_DATA)
    arrays, number = f.slot(f"[{MOST_ARRAYS} x i64]", 16), f.slot("double")
    kept_count, taken_count, edges, ndim = (
        w.load_word("i64", table, which) for which in (Call.KEPT, Call.TAKEN, Call.EDGES, Call.NDIM)
    )
    shape = w.word(table, Call.LISTS)
    taken_list = w.word(shape, ndim)
    comes_list = w.word(taken_list, taken_count)

    def require_plain(array: str) -> None:
        wanted = objects.C_CONTIGUOUS | objects.ALIGNED
        w.require_object(array, w.object("ndarray"), "left")
        flags = f.value(f"and i32 {w.load('i32', array, objects.ARRAY_FLAGS)}, {wanted}")
        w.require(w.equal("i32", flags, str(wanted)), "left")

    kept, saved, versions = (
        w.load("ptr", "%node", slot) for slot in (slots.compiled_kept, slots.compiled_saved, slots.compiled_versions)
    )
    for thing in (kept, saved, versions):
        w.require_object(thing, w.object("list"), "left")
    w.require(w.equal("i64", w.load("i64", kept, objects.SIZE), kept_count), "left")
    with f.loop("0", w.load("i64", versions, objects.SIZE)) as k:
        pair = w.load_word("ptr", w.load("ptr", versions, objects.LIST_ITEMS), k)
        version = w.load("ptr", pair, objects.TUPLE_ITEMS + 8)
        w.require_object(version, w.object("counter"), "left")
        w.require(w.equal("ptr", w.load("ptr", version, slots.count), w.object("zero")), "left")
    with f.loop("0", kept_count) as k:
        array = w.load_word("ptr", w.load("ptr", kept, objects.LIST_ITEMS), k)
        require_plain(array)
        w.store_word("ptr", array, arrays, k)
    inputs = w.word(arrays, kept_count)
    with f.loop("0", taken_count) as k:
        which = w.load_word("i64", taken_list, k)
        w.require(f.value(f"icmp ult i64 {which}, {w.load('i64', saved, objects.SIZE)}"), "left")
        thing = w.load_word("ptr", w.load("ptr", saved, objects.LIST_ITEMS), which)
        array = f.call("ptr", "@kept_array", ("ptr", thing), ("ptr", number))
        require_plain(array)
        w.store_word("ptr", array, inputs, k)
    array = w.load("ptr", "%ct", slots.data)
    require_plain(array)
    w.require(w.equal("ptr", w.load("ptr", array, objects.ARRAY_DTYPE), w.load_word("ptr", table, Call.DTYPE)), "left")
    own = f.value(f"zext i32 {w.load('i32', array, objects.ARRAY_NDIM)} to i64")
    w.require(w.equal("i64", own, ndim), "left")
    dims = w.load("ptr", array, objects.ARRAY_DIMS)
    with f.loop("0", ndim) as k:
        w.require(w.equal("i64", w.load_word("i64", dims, k), w.load_word("i64", shape, k)), "left")
    w.store_word("ptr", array, inputs, taken_count)
    count = f.value(f"add i64 {f.value(f'add i64 {kept_count}, {taken_count}')}, 1")
    made = w.api("PyObject_Vectorcall", w.load_word("ptr", table, Call.FUNCTION), arrays, count, "null")
    w.require(w.differ("ptr", made, "null"), "failed")
    with f.loop("0", edges) as k, f.when(w.differ("i64", w.load_word("i64", comes_list, k), "0")):
        array = w.load_word("ptr", w.at(made, objects.TUPLE_ITEMS), k)
        w.api("Py_IncRef", array)
        result = f.call("ptr", "@wrap", ("ptr", array), ("ptr", w.object("None")))
        w.require(w.differ("ptr", result, "null"), "dropped")
        w.store_word("ptr", result, "%results", k)
    w.api("Py_DecRef", made)
    f.do(f"ret i32 {DONE}")
    f.enter("left")
    f.do(f"ret i32 {LEFT}")
    f.enter("dropped")
    w.api("Py_DecRef", made)
    with f.loop("0", edges) as k:
        w.give_back(w.load_word("ptr", "%results", k))
    f.jump("failed")
    f.enter("failed")
    f.do(f"ret i32 {FAILED}")
