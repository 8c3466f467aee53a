"""The native code of eager elementwise ops: one function for all of them, and the loops of each.

    PyObject *eager(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)

`self` is a tuple (table, what the table points to, fallback), and the table is read as `Eager` says. Operands are tensors
of one dtype, row-major and of any size up to a limit, and Python's numbers beside them. Shapes are equal, or one is the
end of the other. The loops are the op's own or NumPy's. Whatever is otherwise goes to `fallback`, before anything has
been done.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Function, Module
from graphc.backends.llvm.entry_table import Slots
from graphc.backends.llvm.entry_writer import Writer
from graphc.backends.llvm.expression import Evaluator
from graphc.backends.llvm.tape_code import DONE, FAILED, Plan
from graphc.expression import Axis, Buffer, constant, load
from graphc.kernel import Store
from graphc.op import OpDef
from graphc.types import DType, int64

LOOPS = ("whole", "number_right", "number_left")
"""The loops of an op of two operands: both of the result's size, or one of them a single element. A unary op has the first."""


class Eager(IntEnum):
    """The words of the table of one op and dtype."""

    OPERANDS = 0
    """One or two."""
    DTYPE = 1
    """Of the tensors."""
    RESULT = 2
    """The dtype of the result."""
    ITEMSIZE = 3
    RESULT_ITEMSIZE = 4
    MOST = 5
    """Elements of the largest result."""
    RECORD = 6
    """What is called with the result, whether the tensors among the operands are of its type, and the operands, where one may
    have a history, gradients are on, and Python has to record; 0 for an op without a derivative."""
    WHOLE = 7
    """The loops, as in LOOPS."""
    NUMBER_RIGHT = 8
    NUMBER_LEFT = 9
    IN_PLACE = 10
    """Whether the result is written over the first operand."""
    GRAD = 11
    """Four words, (thread-local object, attribute, value, value if unset): where gradients are on."""
    HOOKS = 15
    """Four words: where there are no hooks on saved tensors."""
    PLANS = 19
    """What is recorded if gradients go to the first operand, the second, both."""
    THREAD = 19 + 3 * len(Plan)
    """A check that the thread is in its ordinary state, as a list of instructions."""


def render_loops(module: Module, record: OpDef, dtype: DType, result: DType) -> None:
    """Add the op's loops `(result, left, right, count)`, each named as in LOOPS; a unary op leaves `right` alone."""
    unary = len(record.operands) == 1
    for name in LOOPS[:1] if unary else LOOPS:
        f = module.function(name, [("ptr", "result"), ("ptr", "left"), ("ptr", "right"), ("i64", "count")])
        axis = Axis("i", 1 << 30)
        left, right = (Buffer(side, dtype, 1 << 30, "input") for side in ("left", "right"))
        out = Buffer("result", result, 1 << 30, "output")
        operands = [load(left, constant(0, int64) if name == "number_left" else axis.value)]
        if not unary:
            operands.append(load(right, constant(0, int64) if name == "number_right" else axis.value))
        pointers = {left: "%left", right: "%right", out: "%result"}
        fill(f, axis, Store(out, axis.value, record(*operands)), pointers, module.vector_bytes // dtype.itemsize)


def fill(f: Function, axis: Axis, store: Store, pointers: Mapping[Buffer, str], width: int) -> None:
    """Write a whole function of `count` elements: a store for each value of the axis, so many at a time."""
    whole = f.value(f"and i64 %count, {-width}")
    for start, stop, lanes in (("0", whole, width), (whole, "%count", 1)):
        evaluator = Evaluator(f, lanes, pointers.__getitem__)
        with f.loop(start, stop, str(lanes)) as i:
            inner = evaluator.child()
            inner.bind(axis, i, lanes=True)
            inner.store(store)
    f.do("ret void")


def render_ufunc(module: Module, itemsize: int) -> None:
    """Add the loop of a unary op that runs NumPy's own, `numpy_loop`, with its `numpy_data`."""
    f = module.function(LOOPS[0], [("ptr", "result"), ("ptr", "left"), ("ptr", "right"), ("i64", "count")])
    arrays, steps, size = f.slot("[2 x ptr]"), f.slot("[2 x i64]"), f.slot("i64")
    for k, operand in enumerate(("%left", "%result")):
        f.do(f"store ptr {operand}, ptr {f.value(f'getelementptr ptr, ptr {arrays}, i64 {k}')}, align 8")
        f.do(f"store i64 {itemsize}, ptr {f.value(f'getelementptr i64, ptr {steps}, i64 {k}')}, align 8")
    f.do(f"store i64 %count, ptr {size}, align 8")
    types = ("ptr", "ptr", "ptr", "ptr")
    loop = module.declare("numpy_loop", "void", types)
    data = module.declare("numpy_data", "void", ())
    f.call("void", loop, *zip(types, (arrays, size, steps, data), strict=True))
    f.do("ret void")


def render_eager(module: Module, slots: Slots) -> None:
    """Add `eager`. The module has the entries' code already."""
    _render_operand(module, slots)
    _render_is_end(module, slots)
    _render_counter(module, slots)
    f = module.function("eager", [("ptr", "self"), ("ptr", "args"), ("i64", "nargs"), ("ptr", "kwnames")], "ptr")
    w = Writer(f, slots)
    table = w.load("ptr", w.load("ptr", "%self", objects.TUPLE_ITEMS), objects.ARRAY_DATA)

    def field(type_: str, which: Eager) -> str:
        return w.load_word(type_, table, which.value)

    w.require(w.equal("ptr", "%kwnames", "null"), "miss")
    count = field("i64", Eager.OPERANDS)
    w.require(w.equal("i64", "%nargs", count), "miss")
    thread = w.word(table, Eager.THREAD.value)
    w.require(f.call("i1", "@check", ("ptr", thread), ("ptr", "%args"), ("ptr", "null"), ("i64", "0")), "miss")

    arrays, numbers = (f.slot("[2 x i64]", 16) for _ in range(2))
    watched = f.slot("i1")
    f.do(f"store i1 false, ptr {watched}")
    w.store_word("ptr", "null", arrays, "1")  # a unary op has no second operand
    with f.loop("0", count) as k:
        operands = (("ptr", table), ("ptr", w.load_word("ptr", "%args", k)), ("ptr", w.word(numbers, k)), ("ptr", watched))
        array = f.call("ptr", "@operand", *operands)
        w.require(w.differ("ptr", array, w.object("None")), "miss")
        w.store_word("ptr", array, arrays, k)

    big, left, right = f.slot("ptr"), f.slot("ptr"), f.slot("ptr")
    loop, inner, alike = f.slot("ptr"), f.slot("i64"), f.slot("i1")
    first, second = (w.load_word("ptr", arrays, k) for k in range(2))

    def choose(array: str, which: Eager, elements: str | None, same: bool) -> None:
        """The result is of the array's shape, and this is how its elements are made, so many at a time."""
        w.store("ptr", array, big)
        w.store("ptr", field("ptr", which), loop)
        w.store("i64", elements or "-1", inner)
        f.do(f"store i1 {str(same).lower()}, ptr {alike}")

    def memory(k: int) -> str:
        return w.load("ptr", w.load_word("ptr", arrays, k), objects.ARRAY_DATA)

    binary, chosen = f.label("binary"), f.label("chosen")
    left_tensor, right_tensor = f.label("left_tensor"), f.label("right_tensor")
    number_right, number_left = f.label("number_right"), f.label("number_left")
    unary = f.label("unary")
    f.branch(w.equal("i64", count, "1"), unary, binary)
    f.enter(unary)
    w.require(w.differ("ptr", first, "null"), "miss")
    choose(first, Eager.WHOLE, None, True)
    w.store("ptr", memory(0), left)
    w.store("ptr", "null", right)
    f.jump(chosen)

    f.enter(binary)
    f.branch(w.equal("ptr", first, "null"), number_left, left_tensor)
    f.enter(number_left)
    w.require(w.differ("ptr", second, "null"), "miss")
    choose(second, Eager.NUMBER_LEFT, None, True)
    w.store("ptr", w.word(numbers, 0), left)
    w.store("ptr", memory(1), right)
    f.jump(chosen)
    f.enter(left_tensor)
    w.store("ptr", memory(0), left)
    f.branch(w.equal("ptr", second, "null"), number_right, right_tensor)
    f.enter(number_right)
    choose(first, Eager.NUMBER_RIGHT, None, True)
    w.store("ptr", w.word(numbers, 1), right)
    f.jump(chosen)

    f.enter(right_tensor)
    w.store("ptr", memory(1), right)
    ndims = [w.load("i32", array, objects.ARRAY_NDIM) for array in (first, second)]
    same, other, larger, smaller = (f.label(hint) for hint in ("same", "other", "larger", "smaller"))
    f.branch(w.equal("i32", *ndims), same, other)
    f.enter(same)
    w.require(f.call("i1", "@is_end", ("ptr", first), ("ptr", second)), "miss")
    choose(first, Eager.WHOLE, None, True)
    f.jump(chosen)
    f.enter(other)
    f.branch(f.value(f"icmp sgt i32 {ndims[0]}, {ndims[1]}"), larger, smaller)
    for label, whole, part, number in (
        (larger, first, second, Eager.NUMBER_RIGHT), (smaller, second, first, Eager.NUMBER_LEFT),
    ):  # fmt: skip
        f.enter(label)
        w.require(f.call("i1", "@is_end", ("ptr", whole), ("ptr", part)), "miss")
        single, rows = f.label("single"), f.label("rows")
        f.branch(w.equal("i32", w.load("i32", part, objects.ARRAY_NDIM), "0"), single, rows)
        f.enter(single)
        choose(whole, number, None, False)
        f.jump(chosen)
        f.enter(rows)
        choose(whole, Eager.WHOLE, f.call("i64", "@elements", ("ptr", part)), False)
        f.jump(chosen)

    f.enter(chosen)
    shape = w.load("ptr", big)
    total = f.call("i64", "@elements", ("ptr", shape))
    w.require(f.value(f"icmp sle i64 {total}, {field('i64', Eager.MOST)}"), "miss")
    target_place, made_place = f.slot("ptr"), f.slot("ptr")
    fresh, over, placed = f.label("fresh"), f.label("over"), f.label("placed")
    f.branch(w.equal("i64", field("i64", Eager.IN_PLACE), "0"), fresh, over)

    f.enter(over)
    w.require(w.equal("ptr", shape, first), "miss")
    flags = f.value(f"and i32 {w.load('i32', first, objects.ARRAY_FLAGS)}, {objects.WRITEABLE}")
    w.require(w.differ("i32", flags, "0"), "miss")
    with f.when(f.value(f"load i1, ptr {watched}")):
        recording = f.call("i1", "@is_now", ("ptr", w.word(table, Eager.GRAD.value)))
        w.require(f.value(f"xor i1 {recording}, true"), "miss")
    with f.when(w.differ("ptr", second, "null")):  # the memory of both is the same, or has no byte in common
        starts = [memory(k) for k in range(2)]
        sizes = [f.call("i64", "@elements", ("ptr", array)) for array in (first, second)]
        ends = [w.at(start, f.value(f"mul i64 {size}, {field('i64', Eager.ITEMSIZE)}")) for start, size in zip(starts, sizes)]
        before, after = (f.value(f"icmp ule ptr {ends[k]}, {starts[1 - k]}") for k in range(2))
        same = f.value(f"and i1 {w.equal('ptr', *starts)}, {w.equal('ptr', *ends)}")
        w.require(f.value(f"or i1 {same}, {f.value(f'or i1 {before}, {after}')}"), "miss")
    counter = f.call("ptr", "@counter", ("ptr", w.load_word("ptr", "%args", "0")))
    w.require(w.differ("ptr", counter, "null"), "uncounted")
    w.store("ptr", counter, made_place)
    w.store("ptr", memory(0), target_place)
    f.jump(placed)
    f.enter("uncounted")
    f.branch(w.equal("ptr", w.api("PyErr_Occurred"), "null"), "miss", "failed")

    f.enter(fresh)
    ndim = f.value(f"zext i32 {w.load('i32', shape, objects.ARRAY_NDIM)} to i64")
    nbytes = f.value(f"mul i64 {total}, {field('i64', Eager.RESULT_ITEMSIZE)}")
    made = f.call("ptr", "@new_array", ("ptr", field("ptr", Eager.RESULT)), ("i64", nbytes), ("i64", ndim),
                  ("ptr", w.load("ptr", shape, objects.ARRAY_DIMS)))
    w.require(w.differ("ptr", made, "null"), "failed")
    w.store("ptr", made, made_place)
    w.store("ptr", w.load("ptr", made, objects.ARRAY_DATA), target_place)
    f.jump(placed)

    f.enter(placed)
    target = w.load("ptr", target_place)
    run = w.load("ptr", loop)
    whole_run, by_rows, done = f.label("whole_run"), f.label("by_rows"), f.label("done")
    part = w.load("i64", inner)
    f.branch(f.value(f"icmp slt i64 {part}, 0"), whole_run, by_rows)
    f.enter(whole_run)
    _run(f, run, target, w.load("ptr", left), w.load("ptr", right), total)
    f.jump(done)
    f.enter(by_rows)
    row_bytes = f.value(f"mul i64 {part}, {field('i64', Eager.ITEMSIZE)}")
    is_left = w.equal("ptr", shape, first)
    steps = [f.value(f"select i1 {is_left}, i64 {a}, i64 {b}") for a, b in ((row_bytes, "0"), ("0", row_bytes))]
    result_step = f.value(f"mul i64 {part}, {field('i64', Eager.RESULT_ITEMSIZE)}")
    row = f.slot("i64")
    f.do(f"store i64 0, ptr {row}")
    places = [f.slot("ptr") for _ in range(3)]
    for place, start in zip(places, (target, w.load("ptr", left), w.load("ptr", right)), strict=True):
        w.store("ptr", start, place)
    step = f.value(f"select i1 {w.equal('i64', part, '0')}, i64 1, i64 {part}")
    with f.loop("0", total, step):
        now = [w.load("ptr", place) for place in places]
        _run(f, run, now[0], now[1], now[2], part)
        for place, at, size in zip(places, now, (result_step, *steps), strict=True):
            w.store("ptr", w.at(at, size), place)
    f.jump(done)

    f.enter(done)
    changed, new = f.label("changed"), f.label("new")
    f.branch(w.equal("i64", field("i64", Eager.IN_PLACE), "0"), new, changed)
    f.enter(changed)
    counter = w.load("ptr", made_place)
    more = w.api("PyNumber_Add", w.load("ptr", counter, slots.count), w.object("one"))
    w.require(w.differ("ptr", more, "null"), "failed")
    w.exchange(more, counter, slots.count)
    itself = w.load_word("ptr", "%args", "0")
    w.api("Py_IncRef", itself)
    f.do(f"ret ptr {itself}")
    f.enter(new)
    tensor = f.call("ptr", "@wrap", ("ptr", w.load("ptr", made_place)), ("ptr", w.object("None")))
    w.require(w.differ("ptr", tensor, "null"), "failed")
    finished, recorded = f.label("finished"), f.label("recorded")
    f.branch(f.value(f"load i1, ptr {watched}"), recorded, finished)
    f.enter(recorded)
    record = field("ptr", Eager.RECORD)
    w.require(w.differ("ptr", record, "null"), finished)
    w.require(f.call("i1", "@is_now", ("ptr", w.word(table, Eager.GRAD.value))), finished)
    arguments, dropped = f.slot("[4 x i64]", 16), f.label("dropped")
    is_alike = f.value(f"load i1, ptr {alike}")
    status = f.call(
        "i32", "@record", ("ptr", w.word(table, Eager.PLANS.value)), ("ptr", w.word(table, Eager.HOOKS.value)), ("ptr", tensor),
        ("ptr", "%args"), ("i64", count), ("i1", f.value(f"xor i1 {is_alike}, true")), ("ptr", "null"),
    )
    w.require(w.differ("i32", status, str(DONE)), finished)
    w.require(w.differ("i32", status, str(FAILED)), dropped)
    w.store_word("ptr", tensor, arguments, 0)
    chosen_object = f.value(f"select i1 {is_alike}, ptr {w.object('True')}, ptr {w.object('False')}")
    w.store_word("ptr", chosen_object, arguments, 1)
    with f.loop("0", count) as k:
        w.store_word("ptr", w.load_word("ptr", "%args", k), w.word(arguments, 2), k)
    answer = w.api("PyObject_Vectorcall", record, arguments, f.value(f"add i64 {count}, 2"), "null")
    kept = f.label("kept")
    f.branch(w.equal("ptr", answer, "null"), dropped, kept)
    f.enter(dropped)
    w.api("Py_DecRef", tensor)
    f.jump("failed")
    f.enter(kept)
    w.api("Py_DecRef", answer)
    f.jump(finished)
    f.enter(finished)
    f.do(f"ret ptr {tensor}")

    f.enter("failed")
    f.do("ret ptr null")
    w.miss()


def _run(f: Function, loop: str, result: str, left: str, right: str, count: str) -> None:
    f.call("void", loop, ("ptr", result), ("ptr", left), ("ptr", right), ("i64", count))


def _render_operand(module: Module, slots: Slots) -> None:
    """`operand(table, argument, number, watched)`: the array of a tensor that will do; null for a number, which is put into
    `number` as the dtype has it; None for anything else. `watched` becomes true where there may be a history."""
    f = module.function(
        "operand", [("ptr", "table"), ("ptr", "argument"), ("ptr", "number"), ("ptr", "watched")], "ptr", linkage="internal"
    )
    w = Writer(f, slots)
    type_ = w.type_of("%argument")
    tensor, derived, other = f.label("tensor"), f.label("derived"), f.label("other")
    f.branch(w.equal("ptr", type_, w.object("tensor")), tensor, derived)
    f.enter(derived)  # a parameter
    f.branch(w.equal("ptr", w.load("ptr", type_, objects.TYPE_BASE), w.object("tensor")), tensor, other)
    f.enter(tensor)
    array = w.load("ptr", "%argument", slots.data)
    w.require_object(array, w.object("ndarray"), "neither")
    dtype = w.load_word("ptr", "%table", Eager.DTYPE.value)
    w.require(w.equal("ptr", w.load("ptr", array, objects.ARRAY_DTYPE), dtype), "neither")
    wanted = objects.C_CONTIGUOUS | objects.ALIGNED
    flags = f.value(f"and i32 {w.load('i32', array, objects.ARRAY_FLAGS)}, {wanted}")
    w.require(w.equal("i32", flags, str(wanted)), "neither")
    node, metadata = (w.load("ptr", "%argument", slot) for slot in (slots.node, slots.metadata))
    seen, more, some, done = f.label("seen"), f.label("more"), f.label("some"), f.label("done")
    f.branch(w.equal("ptr", node, w.object("None")), more, seen)
    f.enter(more)
    f.branch(w.equal("ptr", metadata, w.object("None")), done, some)
    f.enter(some)
    w.require_object(metadata, w.object("metadata"), seen)
    w.require(w.equal("ptr", w.load("ptr", metadata, slots.requires_grad), w.object("False")), seen)
    f.branch(w.equal("ptr", w.load("ptr", metadata, slots.view), w.object("None")), done, seen)
    f.enter(seen)
    f.do("store i1 true, ptr %watched")
    f.jump(done)
    f.enter(done)
    f.do(f"ret ptr {array}")

    f.enter(other)
    value = f.slot("double")
    floating, integer, stored = f.label("floating"), f.label("integer"), f.label("stored")
    f.branch(w.equal("ptr", type_, w.object("float")), floating, integer)
    f.enter(floating)
    w.store("double", w.load("double", "%argument", objects.FLOAT_VALUE), value)
    f.jump(stored)
    f.enter(integer)
    w.require(w.equal("ptr", type_, w.object("int")), "neither")
    w.store("double", w.api("PyLong_AsDouble", "%argument"), value)
    with f.when(w.differ("ptr", w.api("PyErr_Occurred"), "null")):
        w.api("PyErr_Clear")
        f.jump("neither")
        f.enter(f.label("dead"))
    f.jump(stored)
    f.enter(stored)
    single = w.equal("i64", w.load_word("i64", "%table", Eager.ITEMSIZE.value), "4")
    narrow, wide = f.label("narrow"), f.label("wide")
    f.branch(single, narrow, wide)
    f.enter(narrow)
    rounded = f.value(f"fptrunc double {w.load('double', value)} to float")
    f.do(f"store float {rounded}, ptr %number, align 8")
    f.do("ret ptr null")
    f.enter(wide)
    w.store("double", w.load("double", value), "%number")
    f.do("ret ptr null")
    f.enter("neither")
    f.do(f"ret ptr {w.object('None')}")


def _render_counter(module: Module, slots: Slots) -> None:
    """`counter(tensor)`: what counts the changes of a tensor in place, made if need be; null with an exception set, or without
    one where Python has to look."""
    f = module.function("counter", [("ptr", "tensor")], "ptr", linkage="internal")
    w = Writer(f, slots)
    place = f.slot("ptr")
    w.store("ptr", w.load("ptr", "%tensor", slots.metadata), place)
    with f.when(w.equal("ptr", w.load("ptr", place), w.object("None"))):
        made = f.call("ptr", "@copy_object", ("ptr", w.object("plain_metadata")), ("i64", str(slots.metadata_words)))
        w.require(w.differ("ptr", made, "null"), "none")
        w.exchange(made, "%tensor", slots.metadata)
        w.store("ptr", made, place)
    metadata = w.load("ptr", place)
    w.require_object(metadata, w.object("metadata"), "none")
    w.require(w.equal("ptr", w.load("ptr", metadata, slots.inference), w.object("False")), "none")
    with f.when(w.equal("ptr", w.load("ptr", metadata, slots.version), w.object("None"))):
        made = f.call("ptr", "@copy_object", ("ptr", w.object("plain_counter")), ("i64", str(slots.counter_words)))
        w.require(w.differ("ptr", made, "null"), "none")
        w.exchange(made, metadata, slots.version)
    version = w.load("ptr", metadata, slots.version)
    w.require_object(version, w.object("counter"), "none")
    f.do(f"ret ptr {version}")
    f.enter("none")
    f.do("ret ptr null")


def _render_is_end(module: Module, slots: Slots) -> None:
    """`is_end(whole, part)`: whether the shape of an array ends in that of another one, which has no more dimensions; and
    `elements(array)`."""
    f = module.function("is_end", [("ptr", "whole"), ("ptr", "part")], "i1", linkage="internal")
    w = Writer(f, slots)
    longer, shorter = (f.value(f"zext i32 {w.load('i32', a, objects.ARRAY_NDIM)} to i64") for a in ("%whole", "%part"))
    skipped = f.value(f"sub i64 {longer}, {shorter}")
    dims, end = (w.load("ptr", a, objects.ARRAY_DIMS) for a in ("%whole", "%part"))
    with f.loop("0", shorter) as k:
        there = w.load_word("i64", dims, f.value(f"add i64 {skipped}, {k}"))
        w.require(w.equal("i64", there, w.load_word("i64", end, k)), "differs")
    f.do("ret i1 true")
    f.enter("differs")
    f.do("ret i1 false")

    f = module.function("elements", [("ptr", "array")], "i64", linkage="internal")
    w = Writer(f, slots)
    product = f.slot("i64")
    w.store("i64", "1", product)
    ndim = f.value(f"zext i32 {w.load('i32', '%array', objects.ARRAY_NDIM)} to i64")
    dims = w.load("ptr", "%array", objects.ARRAY_DIMS)
    with f.loop("0", ndim) as k:
        w.store("i64", f.value(f"mul i64 {w.load('i64', product)}, {w.load_word('i64', dims, k)}"), product)
    f.do(f"ret i64 {w.load('i64', product)}")
