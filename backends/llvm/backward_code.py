"""The native code that runs nodes of the tape, one after another, as far as it knows them.

    PyObject *walk(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)

is called with a node that is ready and the state of a run (see `Walk`), and returns None where no node follows, or the node
that Python has to run next. What the code knows of a node stands in a table that its plan holds (see `backward_node`):
loops for the rules of elementwise ops, made of the rules themselves, how shapes change, and the backward of compiled graphs.
Operands that were changed in place, whatever is watched, tensors that are large: all that is left to Python, before anything
has been done.
"""

from __future__ import annotations

from enum import IntEnum, auto

from graphc.backends.llvm import objects
from graphc.backends.llvm.backward_node import MOST_EDGES, Call, render_node
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.entry_table import Slots
from graphc.backends.llvm.entry_writer import Writer
from graphc.backends.llvm.tape_code import DONE, LEFT


class Walk(IntEnum):
    """The arguments of `walk`."""

    NODE = 0
    READY = auto()
    """The heap of nodes that are ready, too, each behind the negative of its number."""
    BUFFERS = auto()
    """What has come to each target so far: a list with a place for each of its outputs."""
    PENDING = auto()
    """From how many edges something may come to each target."""
    FREES = auto()
    """Whether what nodes keep is let go of."""
    LEAF = auto()
    """Called with a leaf when all has come to it."""
    ADD = auto()
    """Called with an edge and what goes along it, where the code does not add it up itself."""
    SUM = auto()
    """The function that adds two tensors."""


def render_backward(module: Module, slots: Slots) -> None:
    """Add `walk` and `dependencies`. The module has the code of the tape and of eager ops already."""
    render_node(module, slots)
    _render_is_node(module, slots)
    _render_send(module, slots)
    _render_walk(module, slots)
    _render_dependencies(module, slots)


def _render_is_node(module: Module, slots: Slots) -> None:
    """`is_node(target)`: whether a target is a node, or else a leaf."""
    f = module.function("is_node", [("ptr", "target")], "i1", linkage="internal")
    w = Writer(f, slots)
    type_ = w.type_of("%target")
    base = w.load("ptr", type_, objects.TYPE_BASE)
    w.require(w.differ("ptr", base, w.object("op_node")), "yes")
    w.require(w.differ("ptr", type_, w.object("tensor")), "no")
    w.require(w.differ("ptr", base, w.object("tensor")), "no")
    is_subtype = w.api("PyType_IsSubtype", type_, w.object("node"))
    f.do(f"ret i1 {w.differ('i32', is_subtype, '0')}")
    f.enter("yes")
    f.do("ret i1 true")
    f.enter("no")
    f.do("ret i1 false")


def _render_send(module: Module, slots: Slots) -> None:
    """`send(args, edge, ct)`: add a cotangent, which is taken over, to what has come to an output of a target; false with an
    exception set."""
    f = module.function("send", [("ptr", "args"), ("ptr", "edge"), ("ptr", "ct")], "i1", linkage="internal")
    w = Writer(f, slots)
    target = w.load("ptr", "%edge", objects.TUPLE_ITEMS)
    buffers = w.load_word("ptr", "%args", Walk.BUFFERS)
    type_ = w.type_of(target)
    base = w.load("ptr", type_, objects.TYPE_BASE)
    single = w.equal("ptr", base, w.object("op_node"))
    for kind in (type_, base):
        single = f.value(f"or i1 {single}, {w.equal('ptr', kind, w.object('tensor'))}")
    known, unknown, count, index = f.label("known"), f.label("unknown"), f.slot("i64"), f.slot("i64")
    w.store("i64", "1", count)
    w.store("i64", "0", index)
    f.branch(single, known, unknown)
    f.enter(unknown)
    w.require(f.call("i1", "@is_compiled", ("ptr", type_)), "by_python")
    w.store("i64", w.api("PyLong_AsLongLong", w.load("ptr", target, slots.compiled_outputs)), count)
    w.store("i64", w.api("PyLong_AsLongLong", w.load("ptr", "%edge", objects.TUPLE_ITEMS + 8)), index)
    f.jump(known)
    f.enter(known)
    outputs, output = w.load("i64", count), w.load("i64", index)
    w.require(f.value(f"icmp ult i64 {output}, {outputs}"), "by_python")
    there = w.api("PyDict_GetItemWithError", buffers, target)
    new, old = f.label("new"), f.label("old")
    f.branch(w.equal("ptr", there, "null"), new, old)
    f.enter(new)
    w.require(w.equal("ptr", w.api("PyErr_Occurred"), "null"), "failed")
    made = w.api("PyList_New", outputs)
    w.require(w.differ("ptr", made, "null"), "failed")
    items = w.load("ptr", made, objects.LIST_ITEMS)
    with f.loop("0", outputs) as k:
        w.api("Py_IncRef", w.object("None"))
        w.store_word("ptr", w.object("None"), items, k)
    w.exchange("%ct", w.word(items, output), 0)
    status = w.api("PyDict_SetItem", buffers, target, made)
    w.api("Py_DecRef", made)
    f.do(f"ret i1 {w.equal('i32', status, '0')}")

    f.enter(old)
    w.require_object(there, w.object("list"), "by_python")
    w.require(w.equal("i64", w.load("i64", there, objects.SIZE), outputs), "by_python")
    before, another = w.load_word("ptr", w.load("ptr", there, objects.LIST_ITEMS), output), f.label("another")
    w.require(w.equal("ptr", before, w.object("None")), another)
    w.exchange("%ct", w.word(w.load("ptr", there, objects.LIST_ITEMS), output), 0)
    f.do("ret i1 true")
    f.enter(another)
    w.api("Py_IncRef", there)
    total = _called(w, w.load_word("ptr", "%args", Walk.SUM), before, "%ct")
    w.api("Py_DecRef", "%ct")
    summed, unsummed = f.label("summed"), f.label("unsummed")
    f.branch(w.differ("ptr", total, "null"), summed, unsummed)
    f.enter(summed)
    w.exchange(total, w.word(w.load("ptr", there, objects.LIST_ITEMS), output), 0)
    w.api("Py_DecRef", there)
    f.do("ret i1 true")
    f.enter(unsummed)
    w.api("Py_DecRef", there)
    f.do("ret i1 false")

    f.enter("by_python")
    answer = _called(w, w.load_word("ptr", "%args", Walk.ADD), "%edge", "%ct")
    w.api("Py_DecRef", "%ct")
    w.give_back(answer)
    f.do(f"ret i1 {w.differ('ptr', answer, 'null')}")
    f.enter("failed")
    w.api("Py_DecRef", "%ct")
    f.do("ret i1 false")


def _called(w: Writer, function: str, *operands: str) -> str:
    """What a function returns."""
    arguments = w.f.slot(f"[{len(operands)} x i64]", 16)
    for k, operand in enumerate(operands):
        w.store_word("ptr", operand, arguments, k)
    return w.api("PyObject_Vectorcall", function, arguments, str(len(operands)), "null")


def _render_walk(module: Module, slots: Slots) -> None:
    """Add `walk`."""
    f = module.function("walk", [("ptr", "self"), ("ptr", "args"), ("i64", "nargs"), ("ptr", "kwnames")], "ptr")
    w = Writer(f, slots)
    results = f.slot(f"[{MOST_EDGES} x i64]", 16)
    node_place, following = f.slot("ptr"), f.slot("ptr")
    ready, buffers, pending = (w.load_word("ptr", "%args", which) for which in (Walk.READY, Walk.BUFFERS, Walk.PENDING))
    first = w.load_word("ptr", "%args", Walk.NODE)
    w.api("Py_IncRef", first)
    w.store("ptr", first, node_place)
    f.jump("each")

    f.enter("each")
    node = w.load("ptr", node_place)
    type_ = w.type_of(node)
    is_op = w.equal("ptr", w.load("ptr", type_, objects.TYPE_BASE), w.object("op_node"))
    w.require(f.value(f"or i1 {is_op}, {f.call('i1', '@is_compiled', ('ptr', type_))}"), "by_python")
    w.require(w.equal("ptr", w.load("ptr", node, slots.node_watched), w.object("False")), "by_python")
    w.require(w.equal("ptr", w.load("ptr", w.object("anomaly"), slots.enabled), w.object("False")), "by_python")
    buffer = w.api("PyDict_GetItemWithError", buffers, node)
    w.require_object(buffer, w.object("list"), "by_python")
    an_op, a_call, ran, place = f.label("an_op"), f.label("a_call"), f.label("ran"), f.slot("i32")
    f.branch(is_op, an_op, a_call)
    f.enter(an_op)
    ct = w.load("ptr", w.load("ptr", buffer, objects.LIST_ITEMS))
    w.require(w.equal("ptr", w.type_of(ct), w.object("tensor")), "by_python")
    w.api("Py_IncRef", buffer)
    ran_as = f.call("i32", "@run_node", ("ptr", node), ("ptr", ct), ("ptr", results))
    f.do(f"store i32 {ran_as}, ptr {place}, align 4")
    f.jump(ran)
    f.enter(a_call)
    w.api("Py_IncRef", buffer)
    ran_as = f.call("i32", "@run_call", ("ptr", node), ("ptr", buffer), ("ptr", results))
    f.do(f"store i32 {ran_as}, ptr {place}, align 4")
    f.jump(ran)
    f.enter(ran)
    status = w.load("i32", place)
    w.api("Py_DecRef", buffer)
    w.require(w.differ("i32", status, str(LEFT)), "by_python")
    w.require(w.equal("i32", status, str(DONE)), "failed")
    edges = w.load("ptr", node, slots.node_edges)
    w.api("Py_IncRef", edges)
    w.store("ptr", "null", following)
    removed = w.api("PyDict_DelItem", buffers, node)
    w.require(w.equal("i32", removed, "0"), "broken")
    with f.when(w.equal("ptr", w.load_word("ptr", "%args", Walk.FREES), w.object("True"))):
        op, call, freed = f.label("op"), f.label("call"), f.label("freed")
        f.branch(is_op, op, call)
        for label, kept in (
            (op, (slots.node_saved, slots.node_out)), (call, (slots.compiled_kept, slots.compiled_saved)),
        ):  # fmt: skip
            f.enter(label)
            if label == call:  # where nothing is missing for another run, there may be one, as with a node of one op
                table = w.load("ptr", w.load("ptr", node, slots.compiled_how), slots.plan_native)
                table = w.load("ptr", table, objects.ARRAY_DATA)
                read = f.value(f"or i64 {w.load_word('i64', table, Call.KEPT)}, {w.load_word('i64', table, Call.TAKEN)}")
                w.require(w.differ("i64", read, "0"), freed)
            for slot in kept:
                w.api("Py_IncRef", w.object("None"))
                w.exchange(w.object("None"), node, slot)
            f.jump(freed)
        f.enter(freed)
    with f.loop("0", w.load("i64", edges, objects.SIZE)) as k:
        next_, unwanted = f.label("next"), f.label("unwanted")
        edge = w.load_word("ptr", w.at(edges, objects.TUPLE_ITEMS), k)
        w.require(w.differ("ptr", edge, w.object("None")), unwanted)
        target = w.load("ptr", edge, objects.TUPLE_ITEMS)
        count = w.api("PyDict_GetItemWithError", pending, target)
        w.require(w.differ("ptr", count, "null"), unwanted)
        left = f.value(f"sub i64 {w.api('PyLong_AsLongLong', count)}, 1")
        result = w.load_word("ptr", results, k)
        w.store_word("ptr", "null", results, k)
        with f.when(w.differ("ptr", result, "null")):
            w.require(f.call("i1", "@send", ("ptr", "%args"), ("ptr", edge), ("ptr", result)), "broken")
        last, more = f.label("last"), f.label("more")
        f.branch(w.equal("i64", left, "0"), last, more)
        f.enter(more)
        fewer = w.api("PyLong_FromLongLong", left)
        w.require(w.differ("ptr", fewer, "null"), "broken")
        stored = w.api("PyDict_SetItem", pending, target, fewer)
        w.api("Py_DecRef", fewer)
        w.require(w.equal("i32", stored, "0"), "broken")
        f.jump(next_)

        f.enter(last)
        leaf, inner, chosen, waiting = f.label("leaf"), f.label("inner"), f.label("chosen"), f.label("waiting")
        f.branch(f.call("i1", "@is_node", ("ptr", target)), inner, leaf)
        f.enter(leaf)
        answer = _called(w, w.load_word("ptr", "%args", Walk.LEAF), target)
        w.require(w.differ("ptr", answer, "null"), "broken")
        w.api("Py_DecRef", answer)
        f.jump(next_)
        f.enter(inner)
        f.branch(w.equal("ptr", w.load("ptr", following), "null"), chosen, waiting)
        f.enter(chosen)
        w.api("Py_IncRef", target)
        w.store("ptr", target, following)
        f.jump(next_)
        f.enter(waiting)
        item = f.call("ptr", "@heap_item", ("ptr", target))
        w.require(w.differ("ptr", item, "null"), "broken")
        answer = _called(w, w.object("heappush"), ready, item)
        w.api("Py_DecRef", item)
        w.require(w.differ("ptr", answer, "null"), "broken")
        w.api("Py_DecRef", answer)
        f.jump(next_)

        f.enter(unwanted)
        before = w.load_word("ptr", results, k)
        w.store_word("ptr", "null", results, k)
        w.give_back(before)
        f.jump(next_)
        f.enter(next_)
    w.api("Py_DecRef", edges)
    w.api("Py_DecRef", node)
    w.store("ptr", "null", node_place)
    now = w.load("ptr", following)
    w.require(w.differ("ptr", now, "null"), "over")
    w.store("ptr", now, node_place)
    with f.when(w.differ("i64", w.load("i64", ready, objects.SIZE), "0")):
        top = w.load("ptr", w.load("ptr", ready, objects.LIST_ITEMS))
        highest = w.api("PyLong_AsLongLong", w.load("ptr", top, objects.TUPLE_ITEMS))
        own = w.api("PyLong_AsLongLong", w.load("ptr", now, slots.node_sequence))
        with f.when(f.value(f"icmp sgt i64 {f.value(f'sub i64 0, {highest}')}, {own}")):
            item = f.call("ptr", "@heap_item", ("ptr", now))
            w.require(w.differ("ptr", item, "null"), "failed")
            popped = _called(w, w.object("heapreplace"), ready, item)
            w.api("Py_DecRef", item)
            w.require(w.differ("ptr", popped, "null"), "failed")
            younger = w.load("ptr", popped, objects.TUPLE_ITEMS + 8)
            w.api("Py_IncRef", younger)
            w.store("ptr", younger, node_place)
            w.api("Py_DecRef", now)
            w.api("Py_DecRef", popped)
    f.jump("each")

    f.enter("over")
    w.api("Py_IncRef", w.object("None"))
    f.do(f"ret ptr {w.object('None')}")
    f.enter("by_python")
    f.do(f"ret ptr {w.load('ptr', node_place)}")
    f.enter("broken")  # amid the edges
    with f.loop("0", str(MOST_EDGES)) as k:
        w.give_back(w.load_word("ptr", results, k))
    w.give_back(w.load("ptr", following))
    w.api("Py_DecRef", edges)
    f.jump("failed")
    f.enter("failed")
    w.give_back(w.load("ptr", node_place))
    f.do("ret ptr null")
    _render_heap_item(module, slots)


def _render_heap_item(module: Module, slots: Slots) -> None:
    """`heap_item(node)`: a node behind the negative of its number; null with an exception set."""
    f = module.function("heap_item", [("ptr", "node")], "ptr", linkage="internal")
    w = Writer(f, slots)
    number = w.api("PyLong_AsLongLong", w.load("ptr", "%node", slots.node_sequence))
    key = w.api("PyLong_FromLongLong", f.value(f"sub i64 0, {number}"))
    w.require(w.differ("ptr", key, "null"), "failed")
    w.api("Py_IncRef", "%node")
    f.do(f"ret ptr {f.call('ptr', '@pair', ('ptr', key), ('ptr', '%node'))}")
    f.enter("failed")
    f.do("ret ptr null")


def _render_dependencies(module: Module, slots: Slots) -> None:
    """`dependencies(targets, counts)`: add to a list of targets all that can be reached from them, and to a dict that has them
    already how many edges lead into each."""
    f = module.function("dependencies", [("ptr", "self"), ("ptr", "args"), ("i64", "nargs"), ("ptr", "kwnames")], "ptr")
    w = Writer(f, slots)
    targets, counts = (w.load_word("ptr", "%args", k) for k in range(2))
    place = f.slot("i64")
    w.store("i64", "0", place)
    f.jump("each")
    f.enter("each")
    number = w.load("i64", place)
    w.require(f.value(f"icmp slt i64 {number}, {w.load('i64', targets, objects.SIZE)}"), "over")
    w.store("i64", f.value(f"add i64 {number}, 1"), place)
    target = w.load_word("ptr", w.load("ptr", targets, objects.LIST_ITEMS), number)
    w.require(f.call("i1", "@is_node", ("ptr", target)), "each")
    edges = w.load("ptr", target, slots.node_edges)
    with f.loop("0", w.load("i64", edges, objects.SIZE)) as k:
        next_, new, known = f.label("next"), f.label("new"), f.label("known")
        edge = w.load_word("ptr", w.at(edges, objects.TUPLE_ITEMS), k)
        w.require(w.differ("ptr", edge, w.object("None")), next_)
        child = w.load("ptr", edge, objects.TUPLE_ITEMS)
        count = w.api("PyDict_GetItemWithError", counts, child)
        f.branch(w.equal("ptr", count, "null"), new, known)
        f.enter(new)
        w.require(w.equal("ptr", w.api("PyErr_Occurred"), "null"), "failed")
        w.require(w.equal("i32", w.api("PyDict_SetItem", counts, child, w.object("one")), "0"), "failed")
        w.require(w.equal("i32", w.api("PyList_Append", targets, child), "0"), "failed")
        f.jump(next_)
        f.enter(known)
        more = w.api("PyNumber_Add", count, w.object("one"))
        w.require(w.differ("ptr", more, "null"), "failed")
        status = w.api("PyDict_SetItem", counts, child, more)
        w.api("Py_DecRef", more)
        w.require(w.equal("i32", status, "0"), "failed")
        f.jump(next_)
        f.enter(next_)
    f.jump("each")
    f.enter("over")
    w.api("Py_IncRef", w.object("None"))
    f.do(f"ret ptr {w.object('None')}")
    f.enter("failed")
    f.do("ret ptr null")

