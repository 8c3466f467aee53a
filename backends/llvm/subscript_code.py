"""The native code of `tensor[index]`, where the index consists of ints, slices forwards, None and Ellipsis.

`subscript(tensor, index)` works out the shape, the strides and the place of the view, and has `view` make the tensors: one,
whose steps are worked out when somebody asks, where nobody wants a gradient; otherwise one that is cut out, and then one
without the dimensions that numbers drop. Whatever is otherwise goes to the fallback, before anything has been done.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Any

from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.entry_table import Slots
from graphc.backends.llvm.entry_writer import Writer
from graphc.backends.llvm.strided_code import MOST_DIMS
from graphc.specs import SubscriptSpec

_MOST_STEP = 1 << 31


class Subscript(IntEnum):
    """The words of the table."""

    LAZY = 0
    """What `view` is given as itself, for each way of making one: by steps that are worked out later."""
    CUT = 1
    """By slices alone."""
    SELECTED = 2
    """By slices, of which some stand for numbers."""
    DROPPED = 3
    """Without the dimensions that these have left."""
    ALIAS = 4
    """In another shape, or the same."""
    PARTIAL = 5
    """Makes steps to be worked out later of a function, of the index and of the shape."""
    STEPS = 6
    """The function."""
    GRAD = 7
    """Four words: where gradients are on."""
    THREAD = 11
    """A check that the thread is in its ordinary state, as a list of instructions."""


class Region(IntEnum):
    """The words of what an index says of an array."""

    STARTS = 0
    """For each dimension of the array, the part that is taken; so for those that follow."""
    STOPS = MOST_DIMS
    STEPS = 2 * MOST_DIMS
    SIZES = 3 * MOST_DIMS
    STRIDES = 4 * MOST_DIMS
    OUT_SIZES = 5 * MOST_DIMS
    """For each dimension of the result."""
    OUT_STRIDES = 6 * MOST_DIMS
    AXES = 7 * MOST_DIMS
    """How many dimensions of the array have been gone through."""
    OUT = auto()
    """How many the result has."""
    NEW = auto()
    """How many of them are made by None."""
    NUMBERS = auto()
    """How many numbers the index has."""
    CUTS = auto()
    """How many items of it leave something out."""
    OFFSET = auto()
    """How many bytes into the array's memory the result begins."""
    END = auto()


def subscript_table(spec: SubscriptSpec, entries: Any, alive: list[Any]) -> list[int]:
    """The words of a table but for the end of its list of instructions. `entries` is the module that has the code; `alive` is
    what the table points to, the spec first of all."""
    natives: tuple[Any, ...] = (spec.lazy, spec.cut, spec.selected, spec.dropped, spec.alias)
    makers = [make.__self__ for make in natives]
    alive += makers
    grad = entries.thread_attribute(*spec.grad, alive)
    return [*map(id, makers), id(spec.partial), id(spec.steps), *grad, *entries.thread_check(spec.thread, alive)]


def render_subscript(module: Module, slots: Slots) -> None:
    """Add `subscript`. The module has `view` and `view_of` already."""
    _render_put_tuple(module, slots)
    _render_is_quiet(module, slots)
    _render_regions(module, slots)
    _render_subscript(module, slots)


def _render_put_tuple(module: Module, slots: Slots) -> None:
    """`put_tuple(attributes, name, words, count)`: put a tuple of numbers into a dict; false with an exception set."""
    params = [("ptr", name) for name in ("attributes", "name", "words")]
    f = module.function("put_tuple", [*params, ("i64", "count")], "i1", linkage="internal")
    w = Writer(f, slots)
    made = w.api("PyTuple_New", "%count")
    w.require(w.differ("ptr", made, "null"), "failed")
    with f.loop("0", "%count") as k:
        number = w.api("PyLong_FromLongLong", w.load_word("i64", "%words", k))
        w.require(w.differ("ptr", number, "null"), "dropped")
        w.store_word("ptr", number, w.at(made, objects.TUPLE_ITEMS), k)
    status = w.api("PyDict_SetItem", "%attributes", "%name", made)
    w.api("Py_DecRef", made)
    f.do(f"ret i1 {w.equal('i32', status, '0')}")
    f.enter("dropped")
    w.api("Py_DecRef", made)
    f.jump("failed")
    f.enter("failed")
    f.do("ret i1 false")


def _render_is_quiet(module: Module, slots: Slots) -> None:
    """`is_quiet(tensor)`: whether no gradient goes to a tensor, for all that can be seen at once."""
    f = module.function("is_quiet", [("ptr", "tensor")], "i1", linkage="internal")
    w = Writer(f, slots)
    none = w.object("None")
    w.require(w.equal("ptr", w.load("ptr", "%tensor", slots.node), none), "no")
    metadata = w.load("ptr", "%tensor", slots.metadata)
    w.require(w.differ("ptr", metadata, none), "yes")
    w.require_object(metadata, w.object("metadata"), "no")
    w.require(w.equal("ptr", w.load("ptr", metadata, slots.requires_grad), w.object("False")), "no")
    view = w.load("ptr", metadata, slots.view)
    w.require(w.differ("ptr", view, none), "yes")
    w.require_object(view, w.object("view"), "no")
    f.branch(w.equal("ptr", w.load("ptr", view, slots.tracked), w.object("False")), "yes", "no")
    f.enter("yes")
    f.do("ret i1 true")
    f.enter("no")
    f.do("ret i1 false")


def _render_regions(module: Module, slots: Slots) -> None:
    """`regions(array, items, count, words)`: write what an index of so many items says of an array, as in `Region`; false where
    Python has to look."""
    params = [("ptr", "array"), ("ptr", "items"), ("i64", "count"), ("ptr", "words")]
    f = module.function("regions", params, "i1", linkage="internal")
    w = Writer(f, slots)
    none, ellipsis = w.object("None"), w.object("Ellipsis")
    for counter in (Region.AXES, Region.OUT, Region.NEW, Region.NUMBERS, Region.CUTS, Region.OFFSET):
        w.store_word("i64", "0", "%words", counter)
    dims, strides = (w.load("ptr", "%array", place) for place in (objects.ARRAY_DIMS, objects.ARRAY_STRIDES))
    ndim = f.value(f"zext i32 {w.load('i32', '%array', objects.ARRAY_NDIM)} to i64")

    def add(counter: Region, more: str) -> None:
        w.store_word("i64", f.value(f"add i64 {w.load_word('i64', '%words', counter)}, {more}"), "%words", counter)

    def take(start: str, stop: str, step: str, size: str, stride: str) -> None:
        """This part of the next dimension."""
        axis = w.load_word("i64", "%words", Region.AXES)
        contents = {
            Region.STARTS: start, Region.STOPS: stop, Region.STEPS: step, Region.SIZES: size, Region.STRIDES: stride,
        }  # fmt: skip
        for place, content in contents.items():
            w.store_word("i64", content, w.word("%words", place), axis)
        add(Region.AXES, "1")

    def give(size: str, stride: str) -> None:
        """The next dimension of the result."""
        out = w.load_word("i64", "%words", Region.OUT)
        for place, content in ((Region.OUT_SIZES, size), (Region.OUT_STRIDES, stride)):
            w.store_word("i64", content, w.word("%words", place), out)
        add(Region.OUT, "1")

    def here() -> tuple[str, str]:
        """The size and the stride of the next dimension."""
        axis = w.load_word("i64", "%words", Region.AXES)
        return w.load_word("i64", dims, axis), w.load_word("i64", strides, axis)

    def number(thing: str) -> str:
        """What an int is, if it has 64 bits."""
        w.require_object(thing, w.object("int"), "left")
        value = w.api("PyLong_AsLongLong", thing)
        with f.when(w.equal("i64", value, "-1")), f.when(w.differ("ptr", w.api("PyErr_Occurred"), "null")):
            w.api("PyErr_Clear")
            f.jump("left")
            f.enter(f.label("dead"))
        return value

    # how many dimensions are left to Ellipsis
    rest, ellipses, item = f.slot("i64"), f.slot("i64"), f.slot("ptr")
    w.store("i64", ndim, rest)
    w.store("i64", "0", ellipses)
    with f.loop("0", "%count") as k:
        w.store("ptr", w.load_word("ptr", "%items", k), item)
        is_new, is_rest = (w.equal("ptr", w.load("ptr", item), thing) for thing in (none, ellipsis))
        w.store("i64", f.value(f"add i64 {w.load('i64', ellipses)}, {f.value(f'zext i1 {is_rest} to i64')}"), ellipses)
        add(Region.NEW, f.value(f"zext i1 {is_new} to i64"))
        uses = f.value(f"xor i1 {f.value(f'or i1 {is_new}, {is_rest}')}, true")
        w.store("i64", f.value(f"sub i64 {w.load('i64', rest)}, {f.value(f'zext i1 {uses} to i64')}"), rest)
    left_over = w.load("i64", rest)
    w.require(f.value(f"icmp sge i64 {left_over}, 0"), "left")
    w.require(f.value(f"icmp ule i64 {w.load('i64', ellipses)}, 1"), "left")
    most = f.value(f"add i64 {ndim}, {w.load_word('i64', '%words', Region.NEW)}")
    w.require(f.value(f"icmp sle i64 {most}, {MOST_DIMS}"), "left")

    with f.loop("0", f.value("add i64 %count, 1")) as k:  # without an Ellipsis, there is one at the end
        inside, behind, known, next_ = (f.label(hint) for hint in ("inside", "behind", "known", "next"))
        f.branch(f.value(f"icmp slt i64 {k}, %count"), inside, behind)
        f.enter(inside)
        w.store("ptr", w.load_word("ptr", "%items", k), item)
        f.jump(known)
        f.enter(behind)
        w.require(w.equal("i64", w.load("i64", ellipses), "0"), next_)
        w.store("ptr", ellipsis, item)
        f.jump(known)
        f.enter(known)
        thing = w.load("ptr", item)
        with f.when(w.equal("ptr", thing, none)):
            give("1", "0")
            f.jump(next_)
            f.enter(f.label("dead"))
        with f.when(w.equal("ptr", thing, ellipsis)):
            with f.loop("0", left_over):
                size, stride = here()
                take("0", size, "1", size, stride)
                give(size, stride)
            f.jump(next_)
            f.enter(f.label("dead"))
        size, stride = here()
        with f.when(w.equal("ptr", w.type_of(thing), w.object("int"))):
            given = number(thing)
            from_end = f.value(f"select i1 {f.value(f'icmp slt i64 {given}, 0')}, i64 {size}, i64 0")
            place = f.value(f"add i64 {given}, {from_end}")
            w.require(f.value(f"icmp ult i64 {place}, {size}"), "left")
            add(Region.OFFSET, f.value(f"mul i64 {place}, {stride}"))
            take(place, f.value(f"add i64 {place}, 1"), "1", "1", stride)
            for counter in (Region.CUTS, Region.NUMBERS):
                add(counter, "1")
            f.jump(next_)
            f.enter(f.label("dead"))
        w.require_object(thing, w.object("slice"), "left")
        ends = [f.slot("i64") for _ in range(3)]
        for place_, missing, end in zip((objects.SLICE_START, objects.SLICE_STOP, objects.SLICE_STEP), ("0", size, "1"), ends):
            w.store("i64", missing, end)
            given = w.load("ptr", thing, place_)
            with f.when(w.differ("ptr", given, none)):
                w.store("i64", number(given), end)
        step = w.load("i64", ends[2])
        w.require(f.value(f"icmp sge i64 {step}, 1"), "left")
        w.require(f.value(f"icmp sle i64 {step}, {_MOST_STEP}"), "left")
        length = w.api("PySlice_AdjustIndices", size, ends[0], ends[1], step)
        start = w.load("i64", ends[0])
        stop = f.intrinsic("llvm.smax", "i64", start, w.load("i64", ends[1]))
        whole = [w.equal("i64", *pair) for pair in ((start, "0"), (stop, size), (step, "1"))]
        partly = f.value(f"xor i1 {f.value(f'and i1 {whole[0]}, {whole[1]}')}, true")
        partly = f.value(f"or i1 {partly}, {f.value(f'xor i1 {whole[2]}, true')}")
        add(Region.CUTS, f.value(f"zext i1 {partly} to i64"))
        # an empty part may begin anywhere: its memory is that of the whole
        distance = f.value(f"select i1 {w.equal('i64', length, '0')}, i64 0, i64 {f.value(f'mul i64 {start}, {stride}')}")
        add(Region.OFFSET, distance)
        apart = f.value(f"mul i64 {stride}, {step}")
        take(start, stop, step, length, apart)
        give(length, apart)
        f.jump(next_)
        f.enter(next_)
    f.do("ret i1 true")
    f.enter("left")
    f.do("ret i1 false")


def _render_subscript(module: Module, slots: Slots) -> None:
    f = module.function("subscript", [("ptr", "self"), ("ptr", "args"), ("i64", "nargs"), ("ptr", "kwnames")], "ptr")
    w = Writer(f, slots)
    table = w.load("ptr", w.load("ptr", "%self", objects.TUPLE_ITEMS), objects.ARRAY_DATA)
    w.require(w.equal("ptr", "%kwnames", "null"), "miss")
    w.require(w.equal("i64", "%nargs", "2"), "miss")
    thread = w.word(table, Subscript.THREAD)
    w.require(f.call("i1", "@check", ("ptr", thread), ("ptr", "%args"), ("ptr", "null"), ("i64", "0")), "miss")
    source, index = (w.load_word("ptr", "%args", k) for k in range(2))
    type_ = w.type_of(source)
    derived = w.equal("ptr", w.load("ptr", type_, objects.TYPE_BASE), w.object("tensor"))
    w.require(f.value(f"or i1 {w.equal('ptr', type_, w.object('tensor'))}, {derived}"), "miss")
    array = w.load("ptr", source, slots.data)
    w.require_object(array, w.object("ndarray"), "miss")
    ndim = f.value(f"zext i32 {w.load('i32', array, objects.ARRAY_NDIM)} to i64")
    words, arguments = f.slot(f"[{Region.END.value} x i64]", 16), f.slot("[3 x i64]", 16)
    is_tuple = w.equal("ptr", w.type_of(index), w.object("tuple"))
    several = w.at(index, objects.TUPLE_ITEMS)
    items = f.value(f"select i1 {is_tuple}, ptr {several}, ptr {w.word('%args', 1)}")
    count, known = f.slot("i64"), f.label("known")
    w.store("i64", "1", count)
    with f.when(is_tuple):
        w.store("i64", w.load("i64", index, objects.SIZE), count)
    f.jump(known)
    f.enter(known)
    operands = (("ptr", array), ("ptr", items), ("i64", w.load("i64", count)), ("ptr", words))
    w.require(f.call("i1", "@regions", *operands), "miss")

    def region(which: Region) -> str:
        return w.load_word("i64", words, which)

    held = [f.slot("ptr") for _ in range(4)]
    whole, fewer, step, part = held
    for place in held:
        w.store("ptr", "null", place)

    def view(of: str, array: str, way: str) -> str:
        """Have `view` make a tensor around an array, by what is in `step`."""
        for k, argument in enumerate((of, array, w.load("ptr", step))):
            w.store_word("ptr", argument, arguments, k)
        made = f.call("ptr", "@view", ("ptr", way), ("ptr", arguments), ("i64", "3"), ("ptr", "null"))
        w.require(w.differ("ptr", made, "null"), "failed")
        return made

    def seen(array: str, ndim: str, sizes: Region, strides: Region, offset: str, place: str) -> str:
        """An array on the memory of another one."""
        lists = (("ptr", w.word(words, sizes)), ("ptr", w.word(words, strides)))
        made = f.call("ptr", "@view_of", ("ptr", array), ("i64", ndim), *lists, ("i64", offset))
        w.require(w.differ("ptr", made, "null"), "failed")
        w.store("ptr", made, place)
        return made

    def say(attributes: dict[str, Region], count: str) -> None:
        """A new dict in `step`, of tuples."""
        made = w.api("PyDict_New")
        w.require(w.differ("ptr", made, "null"), "failed")
        w.exchange(made, step, 0)
        for name, which in attributes.items():
            operands = (("ptr", made), ("ptr", w.object(name)), ("ptr", w.word(words, which)), ("i64", count))
            w.require(f.call("i1", "@put_tuple", *operands), "failed")

    def way(which: Subscript) -> str:
        return w.load_word("ptr", table, which)

    quiet, recorded, looked, cut, shaped = (f.label(hint) for hint in ("quiet", "recorded", "looked", "cut", "shaped"))
    result = f.slot("ptr")
    w.store("ptr", "null", result)
    f.branch(f.call("i1", "@is_now", ("ptr", w.word(table, Subscript.GRAD))), looked, quiet)
    f.enter(looked)
    f.branch(f.call("i1", "@is_quiet", ("ptr", source)), quiet, recorded)

    f.enter(quiet)
    found = seen(array, region(Region.OUT), Region.OUT_SIZES, Region.OUT_STRIDES, region(Region.OFFSET), whole)
    shape = w.api("PyObject_GetAttr", array, w.object("shape"))
    w.require(w.differ("ptr", shape, "null"), "failed")
    w.store("ptr", shape, fewer)
    for k, argument in enumerate((way(Subscript.STEPS), index, shape)):
        w.store_word("ptr", argument, arguments, k)
    later = w.api("PyObject_Vectorcall", way(Subscript.PARTIAL), arguments, "3", "null")
    w.require(w.differ("ptr", later, "null"), "failed")
    w.store("ptr", later, step)
    w.store("ptr", view(source, found, way(Subscript.LAZY)), result)
    f.jump("over")

    f.enter(recorded)
    f.branch(w.equal("i64", region(Region.CUTS), "0"), shaped, cut)
    f.enter(shaped)
    found = seen(array, region(Region.OUT), Region.OUT_SIZES, Region.OUT_STRIDES, "0", whole)
    say({"shape": Region.OUT_SIZES}, region(Region.OUT))
    w.store("ptr", view(source, found, way(Subscript.ALIAS)), result)
    f.jump("over")

    f.enter(cut)
    w.require(w.equal("i64", region(Region.NEW), "0"), "miss")
    found = seen(array, ndim, Region.SIZES, Region.STRIDES, region(Region.OFFSET), whole)
    say({"starts": Region.STARTS, "stops": Region.STOPS, "steps": Region.STEPS}, ndim)
    plain = w.equal("i64", region(Region.NUMBERS), "0")
    chosen = f.value(f"select i1 {plain}, ptr {way(Subscript.CUT)}, ptr {way(Subscript.SELECTED)}")
    taken, all_, dropping = view(source, found, chosen), f.label("all"), f.label("dropping")
    f.branch(plain, all_, dropping)
    f.enter(all_)
    w.store("ptr", taken, result)
    f.jump("over")
    f.enter(dropping)
    w.store("ptr", taken, part)
    smaller = seen(found, region(Region.OUT), Region.OUT_SIZES, Region.OUT_STRIDES, "0", fewer)
    say({"shape": Region.OUT_SIZES}, region(Region.OUT))
    w.store("ptr", view(taken, smaller, way(Subscript.DROPPED)), result)
    f.jump("over")

    f.enter("failed")
    f.jump("over")
    f.enter("over")
    for place in held:
        w.give_back(w.load("ptr", place))
    f.do(f"ret ptr {w.load('ptr', result)}")
    w.miss()
