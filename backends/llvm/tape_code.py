"""The native code that puts an operation on the tape.

A node is a copy of a template, which holds all that is the same for each call of the op with the same operands wanted, and
gets what differs: its edges, its number, and what it keeps for the backward pass. Whatever is out of the ordinary (hooks
on saved tensors, anomaly mode, a view whose base was changed in place, code that has not been met yet) is left to Python.
"""

from __future__ import annotations

from enum import IntEnum, auto

from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.entry_table import Slots
from graphc.backends.llvm.entry_writer import Writer
from graphc.specs import NodePlan


class Plan(IntEnum):
    """The words of what is recorded when certain operands are wanted."""

    NODE = 0
    """The template; 0 where Python records."""
    WORDS = auto()
    """The size of the template."""
    SAVES = auto()
    """A bit for each operand that is kept."""
    SAVED = auto()
    """How many these are."""
    SAVES_OUT = auto()
    """Whether the result is kept."""


def plan_words(plan: NodePlan | None) -> list[int]:
    """The words of a plan, which has to stay alive."""
    if plan is None:
        return [0] * len(Plan)
    words = type(plan.template).__basicsize__ // 8
    return [id(plan.template), words, sum(1 << i for i in plan.saves), len(plan.saves), int(plan.saves_out)]


DONE, LEFT, FAILED = 1, 0, -1
"""What `record` returns: the node is there, or none is needed; nothing has been done; an exception is set."""


def render_tape(module: Module, slots: Slots) -> None:
    """Add `is_now`, `copy_object`, `record` and what that needs. The module has `find_namespaces` already."""
    _render_is_now(module, slots)
    _render_copy(module, slots)
    _render_locate(module, slots)
    _render_edge(module, slots)
    _render_keep(module, slots)
    _render_described(module, slots)
    _render_record(module, slots)


def _render_is_now(module: Module, slots: Slots) -> None:
    """`is_now(attribute)`: whether an attribute of a thread-local object, given in four words, is as it has to be. The
    namespaces of the thread have been found before."""
    f = module.function("is_now", [("ptr", "attribute")], "i1", linkage="internal")
    w = Writer(f, slots)
    namespace = w.load_word("ptr", "@namespaces", w.load("i64", "%attribute"))
    found = w.api("PyDict_GetItemWithError", namespace, w.load("ptr", "%attribute", 8))
    unset = w.equal("ptr", found, "null")
    now = f.value(f"select i1 {unset}, ptr {w.load('ptr', '%attribute', 24)}, ptr {found}")
    f.do(f"ret i1 {w.equal('ptr', now, w.load('ptr', '%attribute', 16))}")


def _render_copy(module: Module, slots: Slots) -> None:
    """`copy_object(template, words)`: a new object of its class with the same in its slots; null with an exception set."""
    f = module.function("copy_object", [("ptr", "template"), ("i64", "words")], "ptr", linkage="internal")
    w = Writer(f, slots)
    made = w.api("PyType_GenericAlloc", w.type_of("%template"), "0")
    w.require(w.differ("ptr", made, "null"), "failed")
    with f.loop(str(objects.HEADER_WORDS), "%words") as k:
        content = w.load_word("ptr", "%template", k)
        w.api("Py_IncRef", content)
        w.store_word("ptr", content, made, k)
    f.do(f"ret ptr {made}")
    f.enter("failed")
    f.do("ret ptr null")


def _render_locate(module: Module, slots: Slots) -> None:
    """`locate(node)`: have the node say which code of the user's made it, and where in it."""
    f = module.function("locate", [("ptr", "node")], "i32", linkage="internal")
    w = Writer(f, slots)
    frame = w.api("PyEval_GetFrame")
    w.require(w.differ("ptr", frame, "null"), "left")
    w.api("Py_IncRef", frame)
    place = f.slot("ptr")
    w.store("ptr", frame, place)
    f.jump("each")
    f.enter("each")
    frame = w.load("ptr", place)
    code = w.api("PyFrame_GetCode", frame)
    w.api("Py_DecRef", code)  # the frame has it
    key = w.api("PyLong_FromVoidPtr", code)
    w.require(w.differ("ptr", key, "null"), "failed")
    known = w.api("PyDict_GetItemWithError", w.object("own_code"), key)
    w.api("Py_DecRef", key)
    w.require(w.differ("ptr", known, "null"), "unknown")
    own, found, outer = f.label("own"), f.label("found"), f.label("outer")
    f.branch(w.equal("ptr", w.load("ptr", known, objects.TUPLE_ITEMS), w.object("True")), own, found)
    f.enter(own)
    back = w.api("PyFrame_GetBack", frame)
    f.branch(w.equal("ptr", back, "null"), found, outer)
    f.enter(outer)
    w.store("ptr", back, place)
    w.api("Py_DecRef", frame)
    f.jump("each")
    f.enter(found)
    last = w.api("PyLong_FromLongLong", f.value(f"sext i32 {w.api('PyFrame_GetLasti', frame)} to i64"))
    w.require(w.differ("ptr", last, "null"), "failed")
    w.exchange(last, "%node", slots.node_last)
    w.api("Py_IncRef", code)
    w.exchange(code, "%node", slots.node_code)
    w.api("Py_DecRef", frame)
    f.do(f"ret i32 {DONE}")
    f.enter("unknown")
    w.api("Py_DecRef", frame)
    f.jump("left")
    f.enter("left")
    f.do(f"ret i32 {LEFT}")
    f.enter("failed")
    w.api("Py_DecRef", frame)
    f.do(f"ret i32 {FAILED}")


def _render_edge(module: Module, slots: Slots) -> None:
    """`edge(tensor, place)`: whether gradients go to a tensor; to what, and to which output of it, is put into two words.
    LEFT where Python has to look, DONE else."""
    f = module.function("edge", [("ptr", "tensor"), ("ptr", "place")], "i32", linkage="internal")
    w = Writer(f, slots)

    def goes_to(target: str, index: str) -> None:
        w.store_word("ptr", target, "%place", 0)
        w.store_word("ptr", index, "%place", 1)
        f.do(f"ret i32 {DONE}")

    w.store_word("ptr", "null", "%place", 0)
    metadata, node = w.load("ptr", "%tensor", slots.metadata), w.load("ptr", "%tensor", slots.node)
    bare, some, made, leaf = f.label("bare"), f.label("some"), f.label("made"), f.label("leaf")
    f.branch(w.equal("ptr", metadata, w.object("None")), bare, some)
    f.enter(bare)
    w.require(w.differ("ptr", node, w.object("None")), "nowhere")
    goes_to(node, w.object("zero"))

    f.enter(some)
    w.require_object(metadata, w.object("metadata"), "left")
    w.require(w.equal("ptr", w.load("ptr", metadata, slots.inference), w.object("False")), "left")
    version, counted = w.load("ptr", metadata, slots.version), f.label("counted")
    with f.when(w.differ("ptr", version, w.object("None"))):
        w.require_object(version, w.object("counter"), "left")
    f.jump(counted)
    f.enter(counted)
    view, tracked, known = w.load("ptr", metadata, slots.view), f.label("tracked"), f.label("known")
    viewing = f.label("viewing")
    f.branch(w.equal("ptr", view, w.object("None")), known, viewing)
    f.enter(viewing)
    w.require_object(view, w.object("view"), "left")
    f.branch(w.equal("ptr", w.load("ptr", view, slots.tracked), w.object("False")), known, tracked)
    f.enter(tracked)  # the base has the history that it had when the view got its own
    seen = w.load("ptr", w.load("ptr", view, slots.base), slots.node)
    f.branch(w.equal("ptr", seen, w.load("ptr", view, slots.seen)), known, "left")
    f.enter(known)
    f.branch(w.equal("ptr", node, w.object("None")), leaf, made)
    f.enter(made)
    goes_to(node, w.load("ptr", metadata, slots.index))
    f.enter(leaf)
    w.require(w.equal("ptr", w.load("ptr", metadata, slots.requires_grad), w.object("True")), "nowhere")
    goes_to("%tensor", w.object("zero"))

    f.enter("nowhere")
    f.do(f"ret i32 {DONE}")
    f.enter("left")
    f.do(f"ret i32 {LEFT}")


def _render_keep(module: Module, slots: Slots) -> None:
    """`keep(operand, is_tensor)`: what the node has of an operand, a new reference: itself, or with the version that it has
    now; null with an exception set."""
    f = module.function("keep", [("ptr", "operand"), ("i1", "is_tensor")], "ptr", linkage="internal")
    w = Writer(f, slots)
    w.require("%is_tensor", "itself")
    metadata = w.load("ptr", "%operand", slots.metadata)
    w.require(w.differ("ptr", metadata, w.object("None")), "itself")
    version = w.load("ptr", metadata, slots.version)
    w.require(w.differ("ptr", version, w.object("None")), "itself")
    saved = f.call("ptr", "@copy_object", ("ptr", w.object("saved")), ("i64", str(slots.saved_words)))
    w.require(w.differ("ptr", saved, "null"), "failed")
    contents = {slots.saved_tensor: "%operand", slots.saved_version: version,
                slots.saved_count: w.load("ptr", version, slots.count)}
    for slot, content in contents.items():
        w.api("Py_IncRef", content)
        w.exchange(content, saved, slot)
    f.do(f"ret ptr {saved}")
    f.enter("itself")
    w.api("Py_IncRef", "%operand")
    f.do("ret ptr %operand")
    f.enter("failed")
    f.do("ret ptr null")


def _render_described(module: Module, slots: Slots) -> None:
    """`described(array)`: a tuple of its shape and its dtype; null with an exception set."""
    f = module.function("described", [("ptr", "array")], "ptr", linkage="internal")
    w = Writer(f, slots)
    shape = w.api("PyObject_GetAttr", "%array", w.object("shape"))
    w.require(w.differ("ptr", shape, "null"), "failed")
    dtype = w.load("ptr", "%array", objects.ARRAY_DTYPE)
    w.api("Py_IncRef", dtype)
    f.do(f"ret ptr {f.call('ptr', '@pair', ('ptr', shape), ('ptr', dtype))}")
    f.enter("failed")
    f.do("ret ptr null")

    f = module.function("pair", [("ptr", "first"), ("ptr", "second")], "ptr", linkage="internal")
    w = Writer(f, slots)
    made = w.api("PyTuple_New", "2")
    w.require(w.differ("ptr", made, "null"), "failed")
    w.store("ptr", "%first", made, objects.TUPLE_ITEMS)
    w.store("ptr", "%second", made, objects.TUPLE_ITEMS + 8)
    f.do(f"ret ptr {made}")
    f.enter("failed")
    w.api("Py_DecRef", "%first")
    w.api("Py_DecRef", "%second")
    f.do("ret ptr null")


def _render_record(module: Module, slots: Slots) -> None:
    """`record(plans, hooks, out, args, count, types, attrs)`: put on the tape that `out` was made of one or two operands.

    `plans` has a plan for each set of wanted operands, `hooks` the attribute that says that there are none. With `types`,
    the node keeps the operands' shapes and dtypes; `attrs` is null for an op without attributes.
    """
    pointers = [("ptr", name) for name in ("plans", "hooks", "out", "args")]
    params = [*pointers, ("i64", "count"), ("i1", "types"), ("ptr", "attrs")]
    f = module.function("record", params, "i32", linkage="internal")
    w = Writer(f, slots)
    places, are_tensors, mask = f.slot("[4 x i64]", 16), f.slot("[2 x i64]", 16), f.slot("i64")
    w.store("i64", "0", mask)
    with f.loop("0", "%count") as k:
        argument = w.load_word("ptr", "%args", k)
        place = w.word(places, f.value(f"shl i64 {k}, 1"))
        w.store_word("ptr", "null", place, 0)
        type_ = w.type_of(argument)
        itself = w.equal("ptr", type_, w.object("tensor"))
        derived = w.equal("ptr", w.load("ptr", type_, objects.TYPE_BASE), w.object("tensor"))
        is_tensor = f.value(f"or i1 {itself}, {derived}")
        w.store_word("i64", f.value(f"zext i1 {is_tensor} to i64"), are_tensors, k)
        with f.when(is_tensor):
            w.require(w.equal("i32", f.call("i32", "@edge", ("ptr", argument), ("ptr", place)), str(DONE)), "left")
            goes = w.differ("ptr", w.load_word("ptr", place, 0), "null")
            bit = f.value(f"shl i64 {f.value(f'zext i1 {goes} to i64')}, {k}")
            w.store("i64", f.value(f"or i64 {w.load('i64', mask)}, {bit}"), mask)
    wanted = w.load("i64", mask)
    w.require(w.differ("i64", wanted, "0"), "done")
    number = f.value(f"mul i64 {f.value(f'sub i64 {wanted}, 1')}, {len(Plan)}")
    plan = w.word("%plans", number)
    template = w.load_word("ptr", plan, Plan.NODE.value)
    w.require(w.differ("ptr", template, "null"), "left")
    w.require(w.equal("ptr", w.load("ptr", w.object("anomaly"), slots.enabled), w.object("False")), "left")
    w.require(f.call("i1", "@is_now", ("ptr", "%hooks")), "left")

    node = f.call("ptr", "@copy_object", ("ptr", template), ("i64", w.load_word("i64", plan, Plan.WORDS.value)))
    w.require(w.differ("ptr", node, "null"), "failed")
    saves, saved = (w.load_word("i64", plan, which.value) for which in (Plan.SAVES, Plan.SAVED))
    saves_out = w.load_word("i64", plan, Plan.SAVES_OUT.value)
    with f.when(w.differ("i64", f.value(f"or i64 {saves}, {saves_out}"), "0")):
        located = f.call("i32", "@locate", ("ptr", node))
        with f.when(w.differ("i32", located, str(DONE))):
            w.api("Py_DecRef", node)
            f.do(f"ret i32 {located}")
            f.enter(f.label("dead"))

    edges = w.api("PyTuple_New", "%count")
    w.require(w.differ("ptr", edges, "null"), "dropped")
    w.exchange(edges, node, slots.node_edges)
    with f.loop("0", "%count") as k:
        place = w.word(places, f.value(f"shl i64 {k}, 1"))
        target, nowhere, somewhere, next_ = w.load_word("ptr", place, 0), *map(f.label, ("nowhere", "somewhere", "next"))
        item = w.at(w.word(edges, k), objects.TUPLE_ITEMS)
        f.branch(w.equal("ptr", target, "null"), nowhere, somewhere)
        f.enter(nowhere)
        w.api("Py_IncRef", w.object("None"))
        w.store("ptr", w.object("None"), item)
        f.jump(next_)
        f.enter(somewhere)
        index = w.load_word("ptr", place, 1)
        w.api("Py_IncRef", target)
        w.api("Py_IncRef", index)
        pair = f.call("ptr", "@pair", ("ptr", target), ("ptr", index))
        w.require(w.differ("ptr", pair, "null"), "dropped")
        w.store("ptr", pair, item)
        f.jump(next_)
        f.enter(next_)
    sequence = w.api("PyIter_Next", w.object("sequence"))
    w.require(w.differ("ptr", sequence, "null"), "dropped")
    w.exchange(sequence, node, slots.node_sequence)

    with f.when(w.differ("i64", saved, "0")):
        listed = w.api("PyList_New", saved)
        w.require(w.differ("ptr", listed, "null"), "dropped")
        w.exchange(listed, node, slots.node_saved)
        items, next_item = w.load("ptr", listed, objects.LIST_ITEMS), f.slot("i64")
        w.store("i64", "0", next_item)
        with f.loop("0", "%count") as k:
            bit = f.value(f"and i64 {f.value(f'lshr i64 {saves}, {k}')}, 1")
            with f.when(w.differ("i64", bit, "0")):
                is_tensor = w.differ("i64", w.load_word("i64", are_tensors, k), "0")
                kept = f.call("ptr", "@keep", ("ptr", w.load_word("ptr", "%args", k)), ("i1", is_tensor))
                w.require(w.differ("ptr", kept, "null"), "dropped")
                position = w.load("i64", next_item)
                w.store_word("ptr", kept, items, position)
                w.store("i64", f.value(f"add i64 {position}, 1"), next_item)

    with f.when(w.differ("i64", saves_out, "0")):
        # the tensor itself would be a reference to this node: what it holds is kept, and its version
        metadata = f.call("ptr", "@copy_object", ("ptr", w.object("plain_metadata")), ("i64", str(slots.metadata_words)))
        w.require(w.differ("ptr", metadata, "null"), "dropped")
        w.exchange(metadata, "%out", slots.metadata)
        version = f.call("ptr", "@copy_object", ("ptr", w.object("plain_counter")), ("i64", str(slots.counter_words)))
        w.require(w.differ("ptr", version, "null"), "dropped")
        w.exchange(version, metadata, slots.version)
        array = w.load("ptr", "%out", slots.data)
        w.api("Py_IncRef", array)
        w.api("Py_IncRef", version)
        pair = f.call("ptr", "@pair", ("ptr", array), ("ptr", version))
        w.require(w.differ("ptr", pair, "null"), "dropped")
        w.exchange(pair, node, slots.node_out)

    with f.when("%types"):
        listed = w.api("PyList_New", "%count")
        w.require(w.differ("ptr", listed, "null"), "dropped")
        w.exchange(listed, node, slots.node_types)
        items = w.load("ptr", listed, objects.LIST_ITEMS)
        with f.loop("0", "%count") as k:
            tensor, number, next_ = map(f.label, ("tensor", "number", "next"))
            f.branch(w.differ("i64", w.load_word("i64", are_tensors, k), "0"), tensor, number)
            f.enter(tensor)
            array = w.load("ptr", w.load_word("ptr", "%args", k), slots.data)
            described = f.call("ptr", "@described", ("ptr", array))
            w.require(w.differ("ptr", described, "null"), "dropped")
            w.store_word("ptr", described, items, k)
            f.jump(next_)
            f.enter(number)
            w.api("Py_IncRef", w.object("None"))
            w.store_word("ptr", w.object("None"), items, k)
            f.jump(next_)
            f.enter(next_)
    with f.when(w.differ("ptr", "%attrs", "null")):
        w.api("Py_IncRef", "%attrs")
        w.exchange("%attrs", node, slots.node_attrs)
    w.exchange(node, "%out", slots.node)
    f.jump("done")

    f.enter("done")
    f.do(f"ret i32 {DONE}")
    f.enter("left")
    f.do(f"ret i32 {LEFT}")
    f.enter("dropped")
    w.api("Py_DecRef", node)
    f.jump("failed")
    f.enter("failed")
    f.do(f"ret i32 {FAILED}")
