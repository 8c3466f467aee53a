"""The native code of calls that are one node of the tape: `recorded(arguments...)` runs a graph on tensors, and records that.

`self` is a tuple (table, what the table points to, fallback), and the table is read as `Recorded` says. The node is a copy of
a template. Whatever is otherwise than when the table was made goes to the fallback, before anything has been done.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.entry_table import Slots
from graphc.backends.llvm.entry_writer import Writer
from graphc.backends.llvm.tape_code import DONE
from graphc.specs import RecordedSpec

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
    call = _Call(Writer(f, slots))
    call.check()
    call.note_arguments()
    call.make_node()
    call.link_edges()
    call.save_inputs()
    call.run()
    call.make_results()
    call.keep_outputs()
    call.answer()
    call.ends()


class _Call:
    """The function under construction, a step after another. Before the node is made, what is otherwise goes to the block
    "miss"; afterwards, to "dropped", with an exception set."""

    def __init__(self, w: Writer) -> None:
        f = w.f
        self.w, self.f, self.slots = w, f, w.slots
        self.table = w.load("ptr", w.load("ptr", "%self", objects.TUPLE_ITEMS), objects.ARRAY_DATA)
        self.none = w.object("None")

    def word(self, type_: str, which: Recorded) -> str:
        return self.w.load_word(type_, self.table, which)

    def after(self, base: str, count: str, size: int) -> str:
        return self.w.word(base, self.f.value(f"mul i64 {count}, {size}"))

    def made(self, thing: str) -> None:
        """Go on where there is an object."""
        self.w.require(self.w.differ("ptr", thing, "null"), "dropped")

    def check(self) -> None:
        """Whether all is as it was when the table was made, but for the arguments' gradients."""
        w, f, word = self.w, self.f, self.word
        names = word("ptr", Recorded.KEYWORDS)
        w.require(f.call("i1", "@same_names", ("ptr", names), ("ptr", "%kwnames")), "miss")
        w.require(w.equal("i64", "%nargs", word("i64", Recorded.ARGUMENTS)), "miss")
        self.inputs, self.edges, self.results, self.kept = (
            word("i64", which) for which in (Recorded.INPUTS, Recorded.EDGES, Recorded.RESULTS, Recorded.KEPT)
        )
        self.input_list = w.word(self.table, Recorded.LISTS)
        self.edge_list = self.after(self.input_list, self.inputs, Input.END)
        self.seed_list = w.word(self.edge_list, self.edges)
        self.kept_list = w.word(self.seed_list, self.results)
        checks = self.after(self.kept_list, self.kept, 2)
        w.require(f.call("i1", "@check", ("ptr", checks), ("ptr", "%args"), ("ptr", "null"), ("i64", "0")), "miss")
        w.require(f.call("i1", "@is_now", ("ptr", w.word(self.table, Recorded.GRAD))), "miss")
        w.require(f.call("i1", "@is_now", ("ptr", w.word(self.table, Recorded.HOOKS))), "miss")
        w.require(w.equal("ptr", w.load("ptr", w.object("anomaly"), self.slots.enabled), w.object("False")), "miss")

    def note_arguments(self) -> None:
        """The inputs' tensors and arrays, and the places of the tape that their gradients go to."""
        w, f = self.w, self.f
        self.tensors, self.arrays, self.places = (
            f.slot(f"[{size} x i64]", 16) for size in (MOST_TENSORS, MOST_TENSORS, 2 * MOST_TENSORS)
        )
        with f.loop("0", self.inputs) as k:
            each = self.after(self.input_list, k, Input.END)
            tensor = w.load_word("ptr", "%args", w.load_word("i64", each, Input.ARGUMENT))
            w.store_word("ptr", tensor, self.tensors, k)
            w.store_word("ptr", w.load("ptr", tensor, self.slots.data), self.arrays, k)
            place = self.after(self.places, k, 2)
            w.require(w.equal("i32", f.call("i32", "@edge", ("ptr", tensor), ("ptr", place)), str(DONE)), "miss")
            goes = f.value(f"zext i1 {w.differ('ptr', w.load_word('ptr', place, 0), 'null')} to i64")
            w.require(w.equal("i64", goes, w.load_word("i64", each, Input.WANTED)), "miss")

    def make_node(self) -> None:
        # what the arguments are now is noted before other threads may run
        w, f = self.w, self.f
        self.node = f.call(
            "ptr", "@copy_object", ("ptr", self.word("ptr", Recorded.NODE)), ("i64", self.word("i64", Recorded.WORDS))
        )
        w.require(w.differ("ptr", self.node, "null"), "failed")
        self.outputs, self.tensor_results = f.slot("ptr"), f.slot(f"[{MOST_TENSORS} x i64]", 16)
        w.store("ptr", "null", self.outputs)
        with f.loop("0", self.results) as k:
            w.store_word("ptr", "null", self.tensor_results, k)

    def link_edges(self) -> None:
        """The nodes that the gradients go to."""
        w, f = self.w, self.f
        edges = w.api("PyTuple_New", self.edges)
        self.made(edges)
        w.exchange(edges, self.node, self.slots.node_edges)
        with f.loop("0", self.edges) as k:
            place = self.after(self.places, w.load_word("i64", self.edge_list, k), 2)
            target, index, next_, nowhere = w.load_word("ptr", place, 0), f.slot("ptr"), f.label("next"), f.label("nowhere")
            item = w.at(w.word(edges, k), objects.TUPLE_ITEMS)
            w.require(w.differ("ptr", target, "null"), nowhere)
            w.store("ptr", w.load_word("ptr", place, 1), index)
            w.api("Py_IncRef", target)
            w.api("Py_IncRef", w.load("ptr", index))
            pair = f.call("ptr", "@pair", ("ptr", target), ("ptr", w.load("ptr", index)))
            self.made(pair)
            w.store("ptr", pair, item)
            f.jump(next_)
            f.enter(nowhere)
            w.api("Py_IncRef", self.none)
            w.store("ptr", self.none, item)
            f.jump(next_)
            f.enter(next_)

    def save_inputs(self) -> None:
        """The tensors that a derivative reads, and of the others the types."""
        w, f = self.w, self.f
        saved = w.api("PyList_New", self.inputs)
        self.made(saved)
        w.exchange(saved, self.node, self.slots.compiled_saved)
        with f.loop("0", self.inputs) as k:
            tensor, thing = w.load_word("ptr", self.tensors, k), f.slot("ptr")
            read, unread, stored = f.label("read"), f.label("unread"), f.label("stored")
            is_read = w.load_word("i64", self.after(self.input_list, k, Input.END), Input.READ)
            f.branch(w.differ("i64", is_read, "0"), read, unread)
            f.enter(read)
            w.store("ptr", f.call("ptr", "@keep", ("ptr", tensor), ("i1", "true")), thing)
            f.jump(stored)
            f.enter(unread)
            array = w.load_word("ptr", self.arrays, k)
            w.api("Py_IncRef", array)
            w.store("ptr", f.call("ptr", "@wrap", ("ptr", array), ("ptr", self.none)), thing)
            f.jump(stored)
            f.enter(stored)
            self.made(w.load("ptr", thing))
            w.store_word("ptr", w.load("ptr", thing), w.load("ptr", saved, objects.LIST_ITEMS), k)

    def run(self) -> None:
        w = self.w
        function = self.word("ptr", Recorded.FUNCTION)
        w.store("ptr", w.api("PyObject_Vectorcall", function, self.arrays, self.inputs, "null"), self.outputs)
        self.made(w.load("ptr", self.outputs))
        sequence = w.api("PyIter_Next", w.object("sequence"))
        self.made(sequence)
        w.exchange(sequence, self.node, self.slots.node_sequence)

    def make_results(self) -> None:
        """Tensors of the first outputs, each with its place at the node if a gradient comes from it."""
        w, f = self.w, self.f
        self.items = w.at(w.load("ptr", self.outputs), objects.TUPLE_ITEMS)
        with f.loop("0", self.results) as k:
            array = w.load_word("ptr", self.items, k)
            w.api("Py_IncRef", array)
            tensor = f.call("ptr", "@wrap", ("ptr", array), ("ptr", self.none))
            self.made(tensor)
            w.store_word("ptr", tensor, self.tensor_results, k)
            seed, linked = w.load_word("ptr", self.seed_list, k), f.label("linked")
            with f.when(w.differ("ptr", seed, "null")):
                w.api("Py_IncRef", self.node)
                w.exchange(self.node, tensor, self.slots.node)
                w.require(w.differ("ptr", seed, w.object("zero")), linked)
                self.made(f.call("ptr", "@counter", ("ptr", tensor)))
                w.api("Py_IncRef", seed)
                w.exchange(seed, w.load("ptr", tensor, self.slots.metadata), self.slots.index)
                f.jump(linked)
                f.enter(linked)

    def keep_outputs(self) -> None:
        """The arrays that the node keeps, and for those that are results their versions."""
        w, f = self.w, self.f
        kept, versions = (w.api("PyList_New", size) for size in (self.kept, "0"))
        for thing, slot in ((kept, self.slots.compiled_kept), (versions, self.slots.compiled_versions)):
            self.made(thing)
            w.exchange(thing, self.node, slot)
        with f.loop("0", self.kept) as k:
            place = self.after(self.kept_list, k, 2)
            number = w.load_word("i64", place, 0)
            array = w.load_word("ptr", self.items, number)
            w.api("Py_IncRef", array)
            w.store_word("ptr", array, w.load("ptr", kept, objects.LIST_ITEMS), k)
            which = w.load_word("ptr", place, 1)
            with f.when(w.differ("ptr", which, "null")):
                # the tensor itself would be a reference to this node: its version tells whether the array is what it was
                version = f.call("ptr", "@counter", ("ptr", w.load_word("ptr", self.tensor_results, number)))
                self.made(version)
                w.api("Py_IncRef", which)
                w.api("Py_IncRef", version)
                pair = f.call("ptr", "@pair", ("ptr", which), ("ptr", version))
                self.made(pair)
                status = w.api("PyList_Append", versions, pair)
                w.api("Py_DecRef", pair)
                w.require(w.equal("i32", status, "0"), "dropped")

    def answer(self) -> None:
        """One tensor, or a tuple of them."""
        w, f = self.w, self.f
        several, single = f.label("several"), f.label("single")
        f.branch(w.equal("i64", self.word("i64", Recorded.TUPLE), "0"), single, several)
        f.enter(single)
        self._return(w.load_word("ptr", self.tensor_results, 0))
        f.enter(several)
        answer = w.api("PyTuple_New", self.results)
        self.made(answer)
        with f.loop("0", self.results) as k:
            w.store_word("ptr", w.load_word("ptr", self.tensor_results, k), w.at(answer, objects.TUPLE_ITEMS), k)
        self._return(answer)

    def _return(self, answer: str) -> None:
        w = self.w
        w.api("Py_DecRef", w.load("ptr", self.outputs))
        w.api("Py_DecRef", self.node)
        self.f.do(f"ret ptr {answer}")

    def ends(self) -> None:
        """The blocks of those calls that do not come to an answer."""
        w, f = self.w, self.f
        f.enter("dropped")
        with f.loop("0", self.results) as k:
            w.give_back(w.load_word("ptr", self.tensor_results, k))
        w.give_back(w.load("ptr", self.outputs))
        w.api("Py_DecRef", self.node)
        f.jump("failed")
        f.enter("failed")
        f.do("ret ptr null")
        w.miss()
