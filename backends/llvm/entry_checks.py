"""The native code of an entry's checks: whether all is as it was when the table was made."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.entry_table import ANY, THREAD_LOCALS, Check, Slots, Tensor
from graphc.backends.llvm.entry_writer import Writer


def render_checks(module: Module, slots: Slots) -> None:
    """Add `check(checks, args, frame, inputs)`, which fills in the frame's part for the inputs, and what it needs."""
    _render_same_value(module, slots)
    _render_find_namespaces(module, slots)
    _render_same_names(module, slots)
    _render_check(module, slots)


def _render_same_names(module: Module, slots: Slots) -> None:
    """`same_names(names, now)`: whether the names of keywords are the same objects in the same order; null is none."""
    f = module.function("same_names", [("ptr", "names"), ("ptr", "now")], "i1", linkage="internal")
    w = Writer(f, slots)
    w.require(w.differ("ptr", "%names", "%now"), "same")
    w.require(w.differ("ptr", "%names", "null"), "different")
    w.require(w.differ("ptr", "%now", "null"), "different")
    count = w.load("i64", "%names", objects.SIZE)
    w.require(w.equal("i64", count, w.load("i64", "%now", objects.SIZE)), "different")
    with f.loop("0", count) as k:
        left, right = (w.load_word("ptr", w.at(names, objects.TUPLE_ITEMS), k) for names in ("%names", "%now"))
        w.require(w.equal("ptr", left, right), "different")
    f.jump("same")
    f.enter("same")
    f.do("ret i1 true")
    f.enter("different")
    f.do("ret i1 false")


def _render_same_value(module: Module, slots: Slots) -> None:
    """`same_value(expected, now)`: whether an object stands for the same: itself, or the same int, float or str, or a
    tuple of such."""
    f = module.function("same_value", [("ptr", "expected"), ("ptr", "now")], "i1", linkage="internal")
    w = Writer(f, slots)
    same, different = f.label("same"), f.label("different")
    compare, bits = f.label("compare"), f.label("bits")
    with f.when(w.equal("ptr", "%expected", "%now")):
        f.do("ret i1 true")
        f.enter(f.label("dead"))
    w.require(w.differ("ptr", "%expected", "null"), different)
    w.require(w.differ("ptr", "%now", "null"), different)
    type_ = w.type_of("%expected")
    w.require(w.equal("ptr", type_, w.type_of("%now")), different)
    integer, text = w.equal("ptr", type_, w.object("int")), w.equal("ptr", type_, w.object("str"))
    other, several, elements = f.label("other"), f.label("several"), f.label("elements")
    f.branch(f.value(f"or i1 {integer}, {text}"), compare, other)
    f.enter(other)
    f.branch(w.equal("ptr", type_, w.object("float")), bits, several)
    f.enter(several)
    f.branch(w.equal("ptr", type_, w.object("tuple")), elements, different)
    f.enter(elements)
    count = w.load("i64", "%expected", objects.SIZE)
    w.require(w.equal("i64", count, w.load("i64", "%now", objects.SIZE)), different)
    with f.loop("0", count) as k:
        items = [w.load_word("ptr", w.at(thing, objects.TUPLE_ITEMS), k) for thing in ("%expected", "%now")]
        w.require(f.call("i1", "@same_value", *(("ptr", item) for item in items)), different)
    f.jump(same)
    f.enter(compare)
    f.branch(w.equal("i32", w.api("PyObject_RichCompareBool", "%expected", "%now", "2"), "1"), same, different)
    f.enter(bits)  # 0.0 and -0.0 are equal, and not the same
    values = [w.load("i64", thing, objects.FLOAT_VALUE) for thing in ("%expected", "%now")]
    f.branch(w.equal("i64", *values), same, different)
    f.enter(same)
    f.do("ret i1 true")
    f.enter(different)
    f.do("ret i1 false")


def _render_find_namespaces(module: Module, slots: Slots) -> None:
    """`find_namespaces()`: have @namespaces hold the `__dict__` that each of @locals has in this thread; false on errors.

    They are looked up when another thread comes along. Python never gives the number of a thread's state to another one,
    and a thread-local object has one `__dict__` for a thread, as long as that runs.
    """
    module.imported("locals", f"[{THREAD_LOCALS} x ptr]")
    module.imported("namespaces", f"[{THREAD_LOCALS} x ptr]")
    module.imported("thread", "i64")
    f = module.function("find_namespaces", [], "i1", linkage="internal")
    w = Writer(f, slots)
    thread = w.api("PyThreadState_GetID", w.api("PyThreadState_Get"))
    with f.when(w.equal("i64", thread, w.load("i64", "@thread"))):
        f.do("ret i1 true")
        f.enter(f.label("dead"))
    w.store("i64", "-1", "@thread")
    with f.loop("0", str(THREAD_LOCALS)) as k:
        owner = w.load_word("ptr", "@locals", k)
        with f.when(w.differ("ptr", owner, "null")):
            namespace = w.api("PyObject_GetAttr", owner, w.object("__dict__"))
            w.require(w.differ("ptr", namespace, "null"), "failed")
            w.exchange(namespace, w.word("@namespaces", k), 0)
    w.store("i64", thread, "@thread")
    f.do("ret i1 true")
    f.enter("failed")
    f.do("ret i1 false")


def _render_check(module: Module, slots: Slots) -> None:
    """`check(checks, args, frame, inputs)`: whether all is as it was. Fills in the frame's part for the inputs."""
    f = module.function(
        "check", [("ptr", "checks"), ("ptr", "args"), ("ptr", "frame"), ("i64", "inputs")], "i1", linkage="internal"
    )
    w = Writer(f, slots)
    parts = [w.word("%frame", f.value(f"mul i64 %inputs, {k}")) for k in range(5)]
    scratch = {name: f.slot("i64") for name in ("place", "key", "value")}
    code, one, two = w.walk("%checks", list(Check), "ptr", "ptr")

    def begin(check: Check) -> None:
        f.enter(check.name.lower())

    def expect(expected: str, now: str) -> None:
        """The value itself, or one that stands for the same."""
        other, same = f.label("other"), f.label("same")
        f.branch(w.equal("ptr", expected, now), same, other)
        f.enter(other)
        f.branch(f.call("i1", "@same_value", ("ptr", expected), ("ptr", now)), same, "differs")
        f.enter(same)

    begin(Check.THREAD)
    w.require(f.call("i1", "@find_namespaces"), "differs")
    with f.loop("0", w.load_word("i64", code, 2)) as k:
        attribute = w.word(code, f.value(f"add i64 {f.value(f'shl i64 {k}, 2')}, 3"))
        namespace = w.load_word("ptr", "@namespaces", w.load("i64", attribute))
        found = w.api("PyDict_GetItemWithError", namespace, w.load("ptr", attribute, 8))
        unset = w.equal("ptr", found, "null")
        now = f.value(f"select i1 {unset}, ptr {w.load('ptr', attribute, 24)}, ptr {found}")
        w.require(w.equal("ptr", now, w.load("ptr", attribute, 16)), "differs")
    w.next()

    begin(Check.CELL)
    expect(two, w.load("ptr", one, objects.CELL_CONTENTS))
    w.next()

    begin(Check.ITEM)
    expect(w.load_word("ptr", code, 4), w.api("PyDict_GetItemWithError", one, two))
    w.next()

    begin(Check.DICT)
    count = w.load_word("i64", code, 3)
    w.require(w.equal("i64", w.api("PyDict_Size", one), count), "differs")
    f.do(f"store i64 0, ptr {scratch['place']}")
    pair = w.word(code, 4)
    with f.loop("0", count) as k:
        more = w.api("PyDict_Next", one, scratch["place"], scratch["key"], scratch["value"])
        w.require(w.differ("i32", more, "0"), "differs")
        key = w.word(pair, f.value(f"shl i64 {k}, 1"))
        w.require(w.equal("ptr", w.load("ptr", key), w.load("ptr", scratch["key"])), "differs")
        expected, any_, compared = w.load("ptr", key, 8), f.label("any"), f.label("compared")
        f.branch(w.equal("ptr", expected, "null"), any_, compared)
        f.enter(compared)
        expect(expected, w.load("ptr", scratch["value"]))
        f.jump(any_)
        f.enter(any_)
    w.next()

    begin(Check.LIST)
    count = w.load_word("i64", code, 3)
    w.require(w.equal("i64", w.load("i64", one, objects.SIZE), count), "differs")
    items = w.load("ptr", one, objects.LIST_ITEMS)
    expected_items = w.word(code, 4)
    with f.loop("0", count) as k:
        expect(w.load_word("ptr", expected_items, k), w.load_word("ptr", items, k))
    w.next()

    begin(Check.SLOT)
    expect(w.load_word("ptr", code, 4), w.load("ptr", one, w.load_word("i64", code, 3)))
    w.next()

    begin(Check.FUNCTION)
    for place, part in enumerate(("Code", "Defaults", "KwDefaults"), 3):
        found = w.api(f"PyFunction_Get{part}", one)
        w.require(w.equal("ptr", found, w.load_word("ptr", code, place)), "differs")
    w.next()

    begin(Check.TYPE)
    w.require(w.equal("ptr", w.type_of(one), two), "differs")
    w.next()

    begin(Check.VERSION)
    tag = f.value(f"zext i32 {w.load('i32', one, objects.TYPE_VERSION)} to i64")
    w.require(w.equal("i64", tag, w.load_word("i64", code, 3)), "differs")
    w.next()

    begin(Check.NAMESPACE)
    found = w.api("PyObject_GenericGetDict", one, "null")
    w.require(w.differ("ptr", found, "null"), "differs")
    w.api("Py_DecRef", found)
    w.require(w.equal("ptr", found, two), "differs")
    w.next()

    begin(Check.VALUE)
    expect(two, w.load_word("ptr", "%args", w.load_word("i64", code, 2)))
    w.next()

    begin(Check.TENSOR)
    _tensor_check(w, code, parts)
    w.next()

    begin(Check.ARRAY)
    array, number = w.load_word("ptr", "%args", w.load_word("i64", code, 2)), w.load_word("i64", code, 3)
    for kind, content in ((0, w.load("ptr", array, objects.ARRAY_DATA)), (2, array)):
        w.store_word("ptr", content, parts[kind], number)
    w.next()

    begin(Check.ADDRESS)
    number = w.load_word("i64", code, 3)
    w.store_word("ptr", one, parts[0], number)
    for part in parts[1:]:
        w.store_word("ptr", "null", part, number)
    w.next()

    begin(Check.SAME)
    left, right = (w.load_word("ptr", "%args", w.load_word("i64", code, k)) for k in (2, 3))
    same = f.value(f"zext i1 {w.equal('ptr', left, right)} to i64")
    w.require(w.equal("i64", same, w.load_word("i64", code, 4)), "differs")
    w.next()

    begin(Check.NUMBER)
    _number_check(w, code, parts)
    w.next()

    begin(Check.APART)
    first = w.load_word("i64", code, 2)
    low, high = (w.load_word("i64", parts[k], first) for k in (3, 4))
    others = w.word(code, 4)
    with f.loop("0", w.load_word("i64", code, 3)) as k:
        other = w.load_word("i64", others, k)
        other_low, other_high = (w.load_word("i64", parts[k], other) for k in (3, 4))
        before = f.value(f"icmp ule i64 {high}, {other_low}")
        after = f.value(f"icmp ule i64 {other_high}, {low}")
        w.require(f.value(f"or i1 {before}, {after}"), "differs")
    w.next()

    begin(Check.HOLDER)
    w.require_object(w.load("ptr", one, slots.metadata), w.object("metadata"), "differs")
    w.next()

    begin(Check.NO_GRAD)
    metadata, some, none = w.load("ptr", one, slots.metadata), f.label("some"), f.label("none")
    f.branch(w.equal("ptr", metadata, w.object("None")), none, some)
    f.enter(some)
    w.require_object(metadata, w.object("metadata"), "differs")
    f.branch(w.equal("ptr", w.load("ptr", metadata, slots.grad), w.object("None")), none, "differs")
    f.enter(none)
    w.next()

    begin(Check.END)
    f.do("ret i1 true")
    f.enter("differs")
    w.api("PyErr_Clear")  # a look-up may have failed
    f.do("ret i1 false")


def _tensor_check(w: Writer, code: str, parts: Sequence[str]) -> None:
    """A tensor of the right class, outside autograd, whose array has the right dtype and layout."""
    f, slots = w.f, w.slots

    def operand(type_: str, which: Tensor) -> str:
        return w.load_word(type_, code, which.value)

    argument, known = operand("i64", Tensor.ARGUMENT), operand("ptr", Tensor.OBJECT)
    given, held, found = f.label("given"), f.label("held"), f.label("found")
    place = f.slot("ptr")
    f.branch(f.value(f"icmp sge i64 {argument}, 0"), given, held)
    f.enter(given)
    tensor = w.load_word("ptr", "%args", argument)
    w.store("ptr", tensor, place)
    either = f.value(f"or i1 {w.equal('ptr', known, 'null')}, {w.equal('ptr', known, tensor)}")
    f.branch(either, found, "differs")
    f.enter(held)
    w.store("ptr", known, place)
    f.jump(found)
    f.enter(found)
    tensor = w.load("ptr", place)
    w.require(w.equal("ptr", w.type_of(tensor), operand("ptr", Tensor.TYPE)), "differs")
    requires_grad = operand("ptr", Tensor.REQUIRES_GRAD)
    with f.when(w.differ("ptr", requires_grad, "null")):
        w.require(w.equal("ptr", w.load("ptr", tensor, slots.node), w.object("None")), "differs")
        _metadata_check(w, w.load("ptr", tensor, slots.metadata), requires_grad, operand("i64", Tensor.COUNTED))

    array = w.load("ptr", tensor, slots.data)
    w.require_object(array, w.object("ndarray"), "differs")
    expected, data = operand("ptr", Tensor.ADDRESS), w.load("ptr", array, objects.ARRAY_DATA)
    w.require(f.value(f"or i1 {w.equal('ptr', expected, 'null')}, {w.equal('ptr', expected, data)}"), "differs")
    w.require(w.equal("ptr", w.load("ptr", array, objects.ARRAY_DTYPE), operand("ptr", Tensor.DTYPE)), "differs")
    flags = f.value(f"zext i32 {w.load('i32', array, objects.ARRAY_FLAGS)} to i64")
    wanted = operand("i64", Tensor.FLAGS)
    w.require(w.equal("i64", f.value(f"and i64 {flags}, {wanted}"), wanted), "differs")
    ndim = operand("i64", Tensor.NDIM)
    w.require(w.equal("i64", f.value(f"zext i32 {w.load('i32', array, objects.ARRAY_NDIM)} to i64"), ndim), "differs")
    dims, strides = w.load("ptr", array, objects.ARRAY_DIMS), w.load("ptr", array, objects.ARRAY_STRIDES)
    shape = w.word(code, Tensor.DIMS.value)
    steps = w.word(shape, ndim)
    with f.loop("0", ndim) as k:
        w.require(w.equal("i64", w.load_word("i64", dims, k), w.load_word("i64", shape, k)), "differs")
        step = w.load_word("i64", steps, k)
        right = w.equal("i64", step, w.load_word("i64", strides, k))
        w.require(f.value(f"or i1 {right}, {w.equal('i64', step, str(ANY))}"), "differs")

    number = operand("i64", Tensor.INPUT)
    with f.when(f.value(f"icmp sge i64 {number}, 0")):
        data = w.load("i64", array, objects.ARRAY_DATA)
        low = f.value(f"add i64 {data}, {operand('i64', Tensor.LOW)}")
        high = f.value(f"add i64 {data}, {operand('i64', Tensor.HIGH)}")
        for part, (type_, value) in zip(
            parts, (("i64", data), ("ptr", tensor), ("ptr", array), ("i64", low), ("i64", high)), strict=True
        ):
            w.store_word(type_, value, part, number)


def _metadata_check(w: Writer, metadata: str, requires_grad: str, counted: str) -> None:
    f, slots = w.f, w.slots
    none, some, done = f.label("none"), f.label("some"), f.label("done")
    f.branch(w.equal("ptr", metadata, w.object("None")), none, some)
    f.enter(none)
    w.require(w.equal("ptr", requires_grad, w.object("False")), "differs")
    f.branch(w.equal("i64", counted, "0"), done, "differs")
    f.enter(some)
    w.require_object(metadata, w.object("metadata"), "differs")
    w.require(w.equal("ptr", w.load("ptr", metadata, slots.requires_grad), requires_grad), "differs")
    with f.when(w.differ("i64", counted, "0")):
        counter = w.load("ptr", metadata, slots.version)
        w.require_object(counter, w.object("counter"), "differs")
        w.require_object(w.load("ptr", counter, slots.count), w.object("int"), "differs")
    view, viewing, tracked = w.load("ptr", metadata, slots.view), f.label("viewing"), f.label("tracked")
    f.branch(w.equal("ptr", view, w.object("None")), done, viewing)
    f.enter(viewing)
    w.require_object(view, w.object("view"), "differs")
    f.branch(w.equal("ptr", w.load("ptr", view, slots.tracked), w.object("False")), done, tracked)
    f.enter(tracked)  # neither had its base a history when the view was made, nor has it now
    w.require(w.equal("ptr", w.load("ptr", view, slots.seen), w.object("None")), "differs")
    base = w.load("ptr", view, slots.base)
    w.require(w.differ("ptr", base, "null"), "differs")
    f.branch(w.equal("ptr", w.load("ptr", base, slots.node), w.object("None")), done, "differs")
    f.enter(done)


def _number_check(w: Writer, code: str, parts: Sequence[str]) -> None:
    """A float or an int in a dict."""
    f = w.f
    found = w.api("PyDict_GetItemWithError", w.load_word("ptr", code, 2), w.load_word("ptr", code, 3))
    w.require(w.differ("ptr", found, "null"), "differs")
    place = w.word("%frame", w.load_word("i64", code, 5))
    float_, other, stored = f.label("float"), f.label("integer"), f.label("stored")
    type_ = w.type_of(found)
    f.branch(w.equal("ptr", type_, w.object("float")), float_, other)
    f.enter(float_)
    w.store("double", w.load("double", found, objects.FLOAT_VALUE), place)
    f.jump(stored)
    f.enter(other)
    w.require(w.equal("ptr", type_, w.object("int")), "differs")
    w.store("double", w.api("PyLong_AsDouble", found), place)
    f.branch(w.equal("ptr", w.api("PyErr_Occurred"), "null"), stored, "differs")
    f.enter(stored)
    number = w.load_word("i64", code, 4)
    w.store_word("ptr", place, parts[0], number)
    for part in parts[1:]:
        w.store_word("ptr", "null", part, number)
