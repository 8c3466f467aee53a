"""The native code that runs one node of the tape: by steps, or as the backward of a compiled graph. What it knows of a node
stands in a table that the node's plan holds (see `backward_step` and `Call`).
"""

from __future__ import annotations

from enum import IntEnum, auto

from graphc.backends.llvm import objects
from graphc.backends.llvm.backward_step import Step, Steps, render_step
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.entry_table import Slots
from graphc.backends.llvm.entry_writer import Writer
from graphc.backends.llvm.strided_code import render_strided
from graphc.backends.llvm.tape_code import DONE, FAILED, LEFT

MOST_EDGES = 8
"""Edges of the nodes that have a table."""

MOST_ARRAYS = 32
"""What the backward of a compiled graph is given, at most."""


class Call(IntEnum):
    """The first words of the table of nodes of a compiled graph. Then come an array for each of its outputs, of the output's
    type and, where there are several, of zeros; the numbers of the inputs that it takes; and for each edge a bit for each
    output that a cotangent can come there from."""

    EDGES = 0
    KEPT = auto()
    """How many arrays the node keeps."""
    TAKEN = auto()
    """How many inputs are taken."""
    FUNCTION = auto()
    """Of the arrays kept, of the inputs taken and of the cotangents, to a tuple of arrays."""
    OUTPUTS = auto()
    MOST = auto()
    """Elements of the largest array that is copied, where it is not row-major."""
    LISTS = auto()


def render_node(module: Module, slots: Slots) -> None:
    """Add `run_node` and `run_call`. The module has the code of the tape and of eager ops already."""
    render_strided(module, slots)
    render_step(module, slots)
    _render_run_node(module, slots)
    _render_is_compiled(module, slots)
    _render_run_call(module, slots)


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
    """`run_call(node, cotangents, results)`: as `run_node`, for a node of a compiled graph; it takes a list, with None for what
    has not come."""
    f = module.function("run_call", [("ptr", "node"), ("ptr", "cotangents"), ("ptr", "results")], "i32", linkage="internal")
    w = Writer(f, slots)
    with f.loop("0", str(MOST_EDGES)) as k:
        w.store_word("ptr", "null", "%results", k)
    table_array = w.load("ptr", w.load("ptr", "%node", slots.compiled_how), slots.plan_native)
    w.require_object(table_array, w.object("ndarray"), "left")
    table = w.load("ptr", table_array, objects.ARRAY_DATA)
    arrays, number, present, status = f.slot(f"[{MOST_ARRAYS} x i64]", 16), f.slot("double"), f.slot("i64"), f.slot("i32")
    held = f.slot("i64")
    """How many of the arrays are ours."""
    kept_count, taken_count, edges, outputs, most = (
        w.load_word("i64", table, which) for which in (Call.KEPT, Call.TAKEN, Call.EDGES, Call.OUTPUTS, Call.MOST)
    )
    output_list = w.word(table, Call.LISTS)
    taken_list = w.word(output_list, outputs)
    sources_list = w.word(taken_list, taken_count)

    kept, saved, versions = (
        w.load("ptr", "%node", slot) for slot in (slots.compiled_kept, slots.compiled_saved, slots.compiled_versions)
    )
    for thing in (kept, saved, versions):
        w.require_object(thing, w.object("list"), "left")
    w.require(w.equal("i64", w.load("i64", kept, objects.SIZE), kept_count), "left")
    w.require(w.equal("i64", w.load("i64", "%cotangents", objects.SIZE), outputs), "left")
    with f.loop("0", w.load("i64", versions, objects.SIZE)) as k:
        pair = w.load_word("ptr", w.load("ptr", versions, objects.LIST_ITEMS), k)
        version = w.load("ptr", pair, objects.TUPLE_ITEMS + 8)
        w.require_object(version, w.object("counter"), "left")
        w.require(w.equal("ptr", w.load("ptr", version, slots.count), w.object("zero")), "left")

    w.store("i64", "0", held)
    w.store("i64", "0", present)
    f.do(f"store i32 {LEFT}, ptr {status}, align 4")

    def hold(array: str) -> None:
        """Go on with an array, row-major, or end the call."""
        w.require_object(array, w.object("ndarray"), "over")
        plain = f.call("ptr", "@plain", ("ptr", array), ("i64", most))
        w.require(w.differ("ptr", plain, "null"), "broken")
        w.require(w.differ("ptr", plain, w.object("None")), "over")
        count = w.load("i64", held)
        w.store_word("ptr", plain, arrays, count)
        w.store("i64", f.value(f"add i64 {count}, 1"), held)

    with f.loop("0", kept_count) as k:
        hold(w.load_word("ptr", w.load("ptr", kept, objects.LIST_ITEMS), k))
    with f.loop("0", taken_count) as k:
        which = w.load_word("i64", taken_list, k)
        w.require(f.value(f"icmp ult i64 {which}, {w.load('i64', saved, objects.SIZE)}"), "over")
        thing = w.load_word("ptr", w.load("ptr", saved, objects.LIST_ITEMS), which)
        hold(f.call("ptr", "@kept_array", ("ptr", thing), ("ptr", number)))
    with f.loop("0", outputs) as k:
        ct = w.load_word("ptr", w.load("ptr", "%cotangents", objects.LIST_ITEMS), k)
        template = w.load_word("ptr", output_list, k)
        some, none, next_ = (f.label(hint) for hint in ("some", "none", "next"))
        f.branch(w.equal("ptr", ct, w.object("None")), none, some)
        f.enter(some)
        w.require(w.equal("ptr", w.type_of(ct), w.object("tensor")), "over")
        array = w.load("ptr", ct, slots.data)
        w.require_object(array, w.object("ndarray"), "over")
        dtypes = [w.load("ptr", each, objects.ARRAY_DTYPE) for each in (array, template)]
        w.require(w.equal("ptr", *dtypes), "over")
        w.require(w.equal("i32", *(w.load("i32", each, objects.ARRAY_NDIM) for each in (array, template))), "over")
        w.require(f.call("i1", "@is_end", ("ptr", template), ("ptr", array)), "over")
        hold(array)
        bit = f.value(f"shl i64 1, {k}")
        w.store("i64", f.value(f"or i64 {w.load('i64', present)}, {bit}"), present)
        f.jump(next_)
        f.enter(none)
        hold(template)
        f.jump(next_)
        f.enter(next_)
    function = w.load_word("ptr", table, Call.FUNCTION)
    made = w.api("PyObject_Vectorcall", function, arrays, w.load("i64", held), "null")
    w.require(w.differ("ptr", made, "null"), "broken")
    came = w.load("i64", present)
    with f.loop("0", edges) as k:
        sources = f.value(f"and i64 {w.load_word('i64', sources_list, k)}, {came}")
        with f.when(w.differ("i64", sources, "0")):
            array = w.load_word("ptr", w.at(made, objects.TUPLE_ITEMS), k)
            w.api("Py_IncRef", array)
            result = f.call("ptr", "@wrap", ("ptr", array), ("ptr", w.object("None")))
            w.require(w.differ("ptr", result, "null"), "dropped")
            w.store_word("ptr", result, "%results", k)
    w.api("Py_DecRef", made)
    f.do(f"store i32 {DONE}, ptr {status}, align 4")
    f.jump("over")
    f.enter("dropped")
    w.api("Py_DecRef", made)
    with f.loop("0", edges) as k:
        w.give_back(w.load_word("ptr", "%results", k))
    f.jump("broken")
    f.enter("broken")
    f.do(f"store i32 {FAILED}, ptr {status}, align 4")
    f.jump("over")
    f.enter("over")
    with f.loop("0", w.load("i64", held)) as k:
        w.api("Py_DecRef", w.load_word("ptr", arrays, k))
    f.do(f"ret i32 {w.load('i32', status)}")
    f.enter("left")
    f.do(f"ret i32 {LEFT}")
