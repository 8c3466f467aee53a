"""The native code of calls that are one node of the tape: `recorded(arguments...)` runs a graph on tensors, and records that.

`self` is a tuple (table, what the table points to, fallback), and the table is read as `Recorded` says. The node is a copy of
a template. Whatever is otherwise than when the table was made goes to the fallback, before anything has been done.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from graphc.backend import RecordedSpec
from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.entry_table import Slots
from graphc.backends.llvm.entry_writer import Writer
from graphc.backends.llvm.tape_code import DONE

MOST_TENSORS = 16
"""Inputs and outputs of the largest graph."""


class Recorded(IntEnum):
    """The first words of a table. Then come three words for each input, as in `Input`; for each edge of the node the number of
    the input; for each result the number of the node's output that it is, as Python's object, or 0 where no gradient comes from
    it; for each output that the node keeps its number, and that as Python's object, if it is a result, or else 0; and a list of
    checks."""

    ARGUMENTS = 0
    """How many are given by position."""
    INPUTS = 1
    EDGES = 2
    RESULTS = 3
    KEPT = 4
    TUPLE = 5
    """Whether the results come in a tuple."""
    FUNCTION = 6
    """Of the inputs' arrays, to a tuple of the outputs'."""
    NODE = 7
    """The template."""
    WORDS = 8
    """Its size."""
    GRAD = 9
    """Four words: where gradients are on."""
    HOOKS = 13
    """Four words: where there are no hooks on saved tensors."""
    KEYWORDS = 17
    """A tuple of the names of the arguments that come then; 0 for none."""
    LISTS = 18


class Input(IntEnum):
    """The words of an input."""

    ARGUMENT = 0
    WANTED = 1
    """Whether a gradient goes to it, as it was when the table was made."""
    READ = 2
    """Whether a derivative reads it. Otherwise it may go on to change: the node keeps its type alone."""
    END = 3


def recorded_table(spec: RecordedSpec, entries: Any, alive: list[Any]) -> list[int]:
    """The words of a table. `entries` is the module that has the code; `alive` is what the table points to."""

    def at(thing: Any) -> int:
        alive.append(thing)
        return id(thing)

    grad, hooks = (entries.thread_attribute(*which, alive) for which in (spec.grad, spec.hooks))
    words = {
        Recorded.ARGUMENTS: len(spec.arguments) - len(spec.keywords),
        Recorded.INPUTS: len(spec.inputs),
        Recorded.EDGES: len(spec.edges),
        Recorded.RESULTS: len(spec.seeds),
        Recorded.KEPT: len(spec.kept),
        Recorded.TUPLE: int(spec.is_tuple),
        Recorded.FUNCTION: at(spec.function),
        Recorded.NODE: at(spec.node),
        Recorded.WORDS: type(spec.node).__basicsize__ // 8,
    }
    lists = [
        *(int(word) for each in spec.inputs for word in each), *spec.edges,
        *(0 if seed is None else at(seed) for seed in spec.seeds),
        *(word for j in spec.kept for word in (j, at(j) if j < len(spec.seeds) else 0)),
    ]  # fmt: skip
    keywords = at(spec.keywords) if spec.keywords else 0
    return [*(words[which] for which in Recorded if which < Recorded.GRAD), *grad, *hooks, keywords, *lists]


def render_recorded(module: Module, slots: Slots) -> None:
    """Add `recorded`. The module has the code of entries, of the tape and of eager ops already."""
    f = module.function("recorded", [("ptr", "self"), ("ptr", "args"), ("i64", "nargs"), ("ptr", "kwnames")], "ptr")
    w = Writer(f, slots)
    table = w.load("ptr", w.load("ptr", "%self", objects.TUPLE_ITEMS), objects.ARRAY_DATA)
    none = w.object("None")

    def word(type_: str, which: Recorded) -> str:
        return w.load_word(type_, table, which)

    def after(base: str, count: str, size: int) -> str:
        return w.word(base, f.value(f"mul i64 {count}, {size}"))

    names = word("ptr", Recorded.KEYWORDS)
    w.require(f.call("i1", "@same_names", ("ptr", names), ("ptr", "%kwnames")), "miss")
    w.require(w.equal("i64", "%nargs", word("i64", Recorded.ARGUMENTS)), "miss")
    inputs, edges, results, kept = (
        word("i64", which) for which in (Recorded.INPUTS, Recorded.EDGES, Recorded.RESULTS, Recorded.KEPT)
    )
    input_list = w.word(table, Recorded.LISTS)
    edge_list = after(input_list, inputs, Input.END)
    seed_list = w.word(edge_list, edges)
    kept_list = w.word(seed_list, results)
    checks = after(kept_list, kept, 2)
    w.require(f.call("i1", "@check", ("ptr", checks), ("ptr", "%args"), ("ptr", "null"), ("i64", "0")), "miss")
    w.require(f.call("i1", "@is_now", ("ptr", w.word(table, Recorded.GRAD))), "miss")
    w.require(f.call("i1", "@is_now", ("ptr", w.word(table, Recorded.HOOKS))), "miss")
    w.require(w.equal("ptr", w.load("ptr", w.object("anomaly"), slots.enabled), w.object("False")), "miss")

    tensors, arrays, places = (f.slot(f"[{size} x i64]", 16) for size in (MOST_TENSORS, MOST_TENSORS, 2 * MOST_TENSORS))
    with f.loop("0", inputs) as k:
        each = after(input_list, k, Input.END)
        tensor = w.load_word("ptr", "%args", w.load_word("i64", each, Input.ARGUMENT))
        w.store_word("ptr", tensor, tensors, k)
        w.store_word("ptr", w.load("ptr", tensor, slots.data), arrays, k)
        place = after(places, k, 2)
        w.require(w.equal("i32", f.call("i32", "@edge", ("ptr", tensor), ("ptr", place)), str(DONE)), "miss")
        goes = f.value(f"zext i1 {w.differ('ptr', w.load_word('ptr', place, 0), 'null')} to i64")
        w.require(w.equal("i64", goes, w.load_word("i64", each, Input.WANTED)), "miss")

    # what the arguments are now is noted before other threads may run
    node = f.call("ptr", "@copy_object", ("ptr", word("ptr", Recorded.NODE)), ("i64", word("i64", Recorded.WORDS)))
    w.require(w.differ("ptr", node, "null"), "failed")
    made, tensor_results = f.slot("ptr"), f.slot(f"[{MOST_TENSORS} x i64]", 16)
    w.store("ptr", "null", made)
    with f.loop("0", results) as k:
        w.store_word("ptr", "null", tensor_results, k)
    tuple_ = w.api("PyTuple_New", edges)
    w.require(w.differ("ptr", tuple_, "null"), "dropped")
    w.exchange(tuple_, node, slots.node_edges)
    with f.loop("0", edges) as k:
        place = after(places, w.load_word("i64", edge_list, k), 2)
        target, index, next_, nowhere = w.load_word("ptr", place, 0), f.slot("ptr"), f.label("next"), f.label("nowhere")
        item = w.at(w.word(tuple_, k), objects.TUPLE_ITEMS)
        w.require(w.differ("ptr", target, "null"), nowhere)
        w.store("ptr", w.load_word("ptr", place, 1), index)
        w.api("Py_IncRef", target)
        w.api("Py_IncRef", w.load("ptr", index))
        pair = f.call("ptr", "@pair", ("ptr", target), ("ptr", w.load("ptr", index)))
        w.require(w.differ("ptr", pair, "null"), "dropped")
        w.store("ptr", pair, item)
        f.jump(next_)
        f.enter(nowhere)
        w.api("Py_IncRef", none)
        w.store("ptr", none, item)
        f.jump(next_)
        f.enter(next_)
    saved = w.api("PyList_New", inputs)
    w.require(w.differ("ptr", saved, "null"), "dropped")
    w.exchange(saved, node, slots.compiled_saved)
    with f.loop("0", inputs) as k:
        tensor, thing = w.load_word("ptr", tensors, k), f.slot("ptr")
        read, unread, stored = f.label("read"), f.label("unread"), f.label("stored")
        f.branch(w.differ("i64", w.load_word("i64", after(input_list, k, Input.END), Input.READ), "0"), read, unread)
        f.enter(read)
        w.store("ptr", f.call("ptr", "@keep", ("ptr", tensor), ("i1", "true")), thing)
        f.jump(stored)
        f.enter(unread)
        array = w.load_word("ptr", arrays, k)
        w.api("Py_IncRef", array)
        w.store("ptr", f.call("ptr", "@wrap", ("ptr", array), ("ptr", none)), thing)
        f.jump(stored)
        f.enter(stored)
        w.require(w.differ("ptr", w.load("ptr", thing), "null"), "dropped")
        w.store_word("ptr", w.load("ptr", thing), w.load("ptr", saved, objects.LIST_ITEMS), k)

    w.store("ptr", w.api("PyObject_Vectorcall", word("ptr", Recorded.FUNCTION), arrays, inputs, "null"), made)
    outputs = w.load("ptr", made)
    w.require(w.differ("ptr", outputs, "null"), "dropped")
    sequence = w.api("PyIter_Next", w.object("sequence"))
    w.require(w.differ("ptr", sequence, "null"), "dropped")
    w.exchange(sequence, node, slots.node_sequence)
    items = w.at(outputs, objects.TUPLE_ITEMS)
    with f.loop("0", results) as k:
        array = w.load_word("ptr", items, k)
        w.api("Py_IncRef", array)
        tensor = f.call("ptr", "@wrap", ("ptr", array), ("ptr", none))
        w.require(w.differ("ptr", tensor, "null"), "dropped")
        w.store_word("ptr", tensor, tensor_results, k)
        seed, linked = w.load_word("ptr", seed_list, k), f.label("linked")
        with f.when(w.differ("ptr", seed, "null")):
            w.api("Py_IncRef", node)
            w.exchange(node, tensor, slots.node)
            w.require(w.differ("ptr", seed, w.object("zero")), linked)
            w.require(w.differ("ptr", f.call("ptr", "@counter", ("ptr", tensor)), "null"), "dropped")
            w.api("Py_IncRef", seed)
            w.exchange(seed, w.load("ptr", tensor, slots.metadata), slots.index)
            f.jump(linked)
            f.enter(linked)
    list_, versions = (w.api("PyList_New", size) for size in (kept, "0"))
    for thing, slot in ((list_, slots.compiled_kept), (versions, slots.compiled_versions)):
        w.require(w.differ("ptr", thing, "null"), "dropped")
        w.exchange(thing, node, slot)
    with f.loop("0", kept) as k:
        place = after(kept_list, k, 2)
        number = w.load_word("i64", place, 0)
        array = w.load_word("ptr", items, number)
        w.api("Py_IncRef", array)
        w.store_word("ptr", array, w.load("ptr", list_, objects.LIST_ITEMS), k)
        which = w.load_word("ptr", place, 1)
        with f.when(w.differ("ptr", which, "null")):
            # the tensor itself would be a reference to this node: its version tells whether the array is what it was
            version = f.call("ptr", "@counter", ("ptr", w.load_word("ptr", tensor_results, number)))
            w.require(w.differ("ptr", version, "null"), "dropped")
            w.api("Py_IncRef", which)
            w.api("Py_IncRef", version)
            pair = f.call("ptr", "@pair", ("ptr", which), ("ptr", version))
            w.require(w.differ("ptr", pair, "null"), "dropped")
            status = w.api("PyList_Append", versions, pair)
            w.api("Py_DecRef", pair)
            w.require(w.equal("i32", status, "0"), "dropped")
    several, single = f.label("several"), f.label("single")
    f.branch(w.equal("i64", word("i64", Recorded.TUPLE), "0"), single, several)
    f.enter(single)
    w.api("Py_DecRef", outputs)
    w.api("Py_DecRef", node)
    f.do(f"ret ptr {w.load_word('ptr', tensor_results, 0)}")
    f.enter(several)
    answer = w.api("PyTuple_New", results)
    w.require(w.differ("ptr", answer, "null"), "dropped")
    with f.loop("0", results) as k:
        w.store_word("ptr", w.load_word("ptr", tensor_results, k), w.at(answer, objects.TUPLE_ITEMS), k)
    w.api("Py_DecRef", outputs)
    w.api("Py_DecRef", node)
    f.do(f"ret ptr {answer}")

    f.enter("dropped")
    with f.loop("0", results) as k:
        w.give_back(w.load_word("ptr", tensor_results, k))
    w.give_back(w.load("ptr", made))
    w.api("Py_DecRef", node)
    f.jump("failed")
    f.enter("failed")
    f.do("ret ptr null")
    f.enter("miss")
    fallback = w.load("ptr", "%self", objects.TUPLE_ITEMS + 16)
    f.do(f"ret ptr {w.api('PyObject_Vectorcall', fallback, '%args', '%nargs', '%kwnames')}")
