"""The native code of views: `view(source, array, step)` is a tensor around an array that was made of the source's.

If the array lies in the source's memory, both know of each other: they count changes in place together, and the view knows
its base. On the tape it is the op of the table. Whatever is out of the ordinary goes to the fallback, before anything has
been done.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.entry_table import Slots
from graphc.backends.llvm.entry_writer import Writer
from graphc.backends.llvm.tape_code import DONE, FAILED, Plan, plan_words
from graphc.specs import ViewSpec


class View(IntEnum):
    """The words of the table."""

    OP = 0
    """What stands before `step`, the op's attributes, in the step of the view; 0 where `step` is the whole."""
    RECORD = 1
    """What is called with the source, the attributes and the view where Python has to put it on the tape; 0 for nothing."""
    GRAD = 2
    """Four words: where gradients are on."""
    HOOKS = 6
    """Four words: where there are no hooks on saved tensors."""
    PLAN = 10
    THREAD = 10 + len(Plan)
    """A check that the thread is in its ordinary state, as a list of instructions."""


def view_table(spec: ViewSpec, entries: Any, alive: list[Any]) -> list[int]:
    """The words of a table but for the end of its list of instructions. `entries` is the module that has the code; `alive` is
    what the table points to, the spec first of all."""
    grad, hooks = (entries.thread_attribute(*which, alive) for which in (spec.grad, spec.hooks))
    op, record = (0 if thing is None else id(thing) for thing in (spec.op, spec.record))
    return [op, record, *grad, *hooks, *plan_words(spec.node), *entries.thread_check(spec.thread, alive)]


def render_view(module: Module, slots: Slots) -> None:
    """Add `view`. The module has the entries' code and that of the tape already."""
    f = module.function("view", [("ptr", "self"), ("ptr", "args"), ("i64", "nargs"), ("ptr", "kwnames")], "ptr")
    w = Writer(f, slots)
    table = w.load("ptr", w.load("ptr", "%self", objects.TUPLE_ITEMS), objects.ARRAY_DATA)
    none = w.object("None")
    w.require(w.equal("ptr", "%kwnames", "null"), "miss")
    w.require(w.equal("i64", "%nargs", "3"), "miss")
    thread = w.word(table, View.THREAD.value)
    w.require(f.call("i1", "@check", ("ptr", thread), ("ptr", "%args"), ("ptr", "null"), ("i64", "0")), "miss")
    source, array, step = (w.load_word("ptr", "%args", k) for k in range(3))
    type_ = w.type_of(source)
    itself = w.equal("ptr", type_, w.object("tensor"))
    derived = w.equal("ptr", w.load("ptr", type_, objects.TYPE_BASE), w.object("tensor"))
    w.require(f.value(f"or i1 {itself}, {derived}"), "miss")
    own = w.load("ptr", source, slots.data)
    for thing in (own, array):
        w.require_object(thing, w.object("ndarray"), "miss")

    # what the source knows
    metadata_place = f.slot("ptr")
    metadata, some, looked = w.load("ptr", source, slots.metadata), f.label("some"), f.label("looked")
    parent, base = f.slot("ptr"), f.slot("ptr")
    tracked = f.slot("i1")
    w.store("ptr", none, parent)
    w.store("ptr", source, base)
    recording = f.call("i1", "@is_now", ("ptr", w.word(table, View.GRAD.value)))
    f.do(f"store i1 {recording}, ptr {tracked}")
    f.branch(w.equal("ptr", metadata, none), looked, some)
    f.enter(some)
    w.require_object(metadata, w.object("metadata"), "miss")
    w.require(w.equal("ptr", w.load("ptr", metadata, slots.inference), w.object("False")), "miss")
    with f.when(w.differ("ptr", w.load("ptr", metadata, slots.version), none)):
        w.require_object(w.load("ptr", metadata, slots.version), w.object("counter"), "miss")
    above = w.load("ptr", metadata, slots.view)
    with f.when(w.differ("ptr", above, none)):
        w.require_object(above, w.object("view"), "miss")
        w.require(w.equal("ptr", w.load("ptr", above, slots.detached), w.object("False")), "miss")
        w.store("ptr", above, parent)
        w.store("ptr", w.load("ptr", above, slots.base), base)
        also = w.equal("ptr", w.load("ptr", above, slots.tracked), w.object("True"))
        f.do(f"store i1 {f.value(f'and i1 {also}, {recording}')}, ptr {tracked}")
    f.jump(looked)

    f.enter(looked)
    w.api("Py_IncRef", array)
    out = f.call("ptr", "@wrap", ("ptr", array), ("ptr", none))
    w.require(w.differ("ptr", out, "null"), "failed")
    within = w.load("ptr", array, objects.ARRAY_BASE)
    lies, tie, tied = f.label("lies"), f.label("tie"), f.label("tied")
    f.branch(w.equal("ptr", within, "null"), tied, lies)
    f.enter(lies)
    same = f.value(f"or i1 {w.equal('ptr', within, own)}, {w.equal('ptr', within, w.load('ptr', own, objects.ARRAY_BASE))}")
    f.branch(same, tie, tied)

    f.enter(tie)
    w.store("ptr", w.load("ptr", source, slots.metadata), metadata_place)
    with f.when(w.equal("ptr", w.load("ptr", metadata_place), none)):
        made = f.call("ptr", "@copy_object", ("ptr", w.object("plain_metadata")), ("i64", str(slots.metadata_words)))
        w.require(w.differ("ptr", made, "null"), "dropped")
        w.exchange(made, source, slots.metadata)
        w.store("ptr", made, metadata_place)
    metadata = w.load("ptr", metadata_place)
    with f.when(w.equal("ptr", w.load("ptr", metadata, slots.version), none)):
        made = f.call("ptr", "@copy_object", ("ptr", w.object("plain_counter")), ("i64", str(slots.counter_words)))
        w.require(w.differ("ptr", made, "null"), "dropped")
        w.exchange(made, metadata, slots.version)
    version = w.load("ptr", metadata, slots.version)
    new = f.call("ptr", "@copy_object", ("ptr", w.object("plain_metadata")), ("i64", str(slots.metadata_words)))
    w.require(w.differ("ptr", new, "null"), "dropped")
    w.exchange(new, out, slots.metadata)
    w.api("Py_IncRef", version)
    w.exchange(version, new, slots.version)
    view = f.call("ptr", "@copy_object", ("ptr", w.object("plain_view")), ("i64", str(slots.view_words)))
    w.require(w.differ("ptr", view, "null"), "dropped")
    w.exchange(view, new, slots.view)
    is_tracked = f.value(f"load i1, ptr {tracked}")
    root = w.load("ptr", base)
    seen = f.value(f"select i1 {is_tracked}, ptr {w.load('ptr', root, slots.node)}, ptr {none}")
    flag = f.value(f"select i1 {is_tracked}, ptr {w.object('True')}, ptr {w.object('False')}")
    contents = ((slots.base, root), (slots.parent, w.load("ptr", parent)), (slots.tracked, flag), (slots.seen, seen))
    for slot, content in contents:
        w.api("Py_IncRef", content)
        w.exchange(content, view, slot)
    op = w.load_word("ptr", table, View.OP.value)
    whole, with_op, stepped = f.label("whole"), f.label("with_op"), f.label("stepped")
    w.api("Py_IncRef", step)
    f.branch(w.equal("ptr", op, "null"), whole, with_op)
    f.enter(whole)
    w.exchange(step, view, slots.step)
    f.jump(stepped)
    f.enter(with_op)
    w.api("Py_IncRef", op)
    pair = f.call("ptr", "@pair", ("ptr", op), ("ptr", step))
    w.require(w.differ("ptr", pair, "null"), "dropped")
    w.exchange(pair, view, slots.step)
    f.jump(stepped)
    f.enter(stepped)
    f.jump(tied)

    f.enter(tied)
    record = w.load_word("ptr", table, View.RECORD.value)
    w.require(f.value(f"and i1 {recording}, {w.differ('ptr', record, 'null')}"), "finished")
    hooks, plan = (w.word(table, which.value) for which in (View.HOOKS, View.PLAN))
    status = f.call("i32", "@record", ("ptr", plan), ("ptr", hooks), ("ptr", out), ("ptr", "%args"), ("i64", "1"),
                    ("i1", "true"), ("ptr", step))
    w.require(w.differ("i32", status, str(DONE)), "finished")
    w.require(w.differ("i32", status, str(FAILED)), "dropped")
    arguments = f.slot("[3 x i64]", 16)
    for k, argument in enumerate((source, step, out)):
        w.store_word("ptr", argument, arguments, k)
    answer = w.api("PyObject_Vectorcall", record, arguments, "3", "null")
    w.require(w.differ("ptr", answer, "null"), "dropped")
    w.api("Py_DecRef", answer)
    f.jump("finished")
    f.enter("finished")
    f.do(f"ret ptr {out}")

    f.enter("dropped")
    w.api("Py_DecRef", out)
    f.jump("failed")
    f.enter("failed")
    f.do("ret ptr null")
    w.miss()
