"""The native code of entries: one function, which walks a table for each graph that it stands for.

    PyObject *entry(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)

`self` is a tuple (table, what the table points to, fallback). A check that fails, an error within one included, calls
`fallback` with the same arguments and returns what that returns. The code knows nothing of a single graph, so it is
compiled once and kept.
"""

from __future__ import annotations

from graphc.backends.llvm import blocks, objects
from graphc.backends.llvm.backward_code import render_backward
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.composite_code import render_recorded
from graphc.backends.llvm.eager_code import render_eager
from graphc.backends.llvm.entry_checks import render_checks
from graphc.backends.llvm.entry_table import FRAME_ON_STACK, After, Header, Leaf, Output, Result, Slots
from graphc.backends.llvm.entry_writer import Writer
from graphc.backends.llvm.subscript_code import render_subscript
from graphc.backends.llvm.tape_code import render_tape
from graphc.backends.llvm.view_code import render_view
from graphc.backends.llvm.workspace import OUT_OF_MEMORY


def render(slots: Slots) -> Module:
    """The module. It needs `run_program` (see `workspace`), `block_malloc` and `block_free` (see `blocks`), the FUNCTIONS, and
    the OBJECTS."""
    module = Module("graphc call entries")
    render_checks(module, slots)
    _render_new_array(module, slots)
    _render_outputs(module, slots)
    _render_wrap(module, slots)
    _render_afterwards(module, slots)
    _render_result(module, slots)
    _render_entry(module, slots)
    render_tape(module, slots)
    render_eager(module, slots)
    render_view(module, slots)
    render_backward(module, slots)
    render_recorded(module, slots)
    render_subscript(module, slots)
    return module


def _render_new_array(module: Module, slots: Slots) -> None:
    """`new_array(dtype, bytes, ndim, shape)`: an array that nobody else holds, or null with an exception set."""
    f = module.function(
        "new_array", [("ptr", "dtype"), ("i64", "bytes"), ("i64", "ndim"), ("ptr", "shape")], "ptr", linkage="internal"
    )
    w = Writer(f, slots)
    result, types = "ptr", ("ptr", "ptr", "i32", "ptr", "ptr", "ptr", "i32", "ptr")
    callee = module.declare("PyArray_NewFromDescr", result, types)
    malloc = module.declare("block_malloc", "ptr", ["ptr", "i64"])
    free = module.declare("block_free", "void", ["ptr", "ptr", "i64"])
    ndim = f.value("trunc i64 %ndim to i32")

    def new(memory: str, flags: int) -> str:
        operands = (w.object("ndarray"), "%dtype", ndim, "%shape", "null", memory, str(flags), "null")
        return f.call(result, callee, *zip(types, operands, strict=True))

    w.api("Py_IncRef", "%dtype")  # the array takes a reference
    small, large = f.label("small"), f.label("large")
    f.branch(f.value(f"icmp ult i64 %bytes, {blocks.SMALLEST}"), small, large)
    f.enter(large)
    block = f.call("ptr", malloc, ("ptr", "null"), ("i64", "%bytes"))
    w.require(w.differ("ptr", block, "null"), small)
    array = new(block, objects.C_CONTIGUOUS | objects.ALIGNED | objects.WRITEABLE)
    w.require(w.differ("ptr", array, "null"), "failed")
    flags = f.value(f"or i32 {w.load('i32', array, objects.ARRAY_FLAGS)}, {objects.OWNS_DATA}")
    f.do(f"store i32 {flags}, ptr {w.at(array, objects.ARRAY_FLAGS)}, align 4")
    w.api("Py_IncRef", w.object("handler"))
    w.store("ptr", w.object("handler"), array, objects.ARRAY_HANDLER)
    f.do(f"ret ptr {array}")
    f.enter("failed")
    f.call("void", free, ("ptr", "null"), ("ptr", block), ("i64", "%bytes"))
    f.do("ret ptr null")
    f.enter(small)
    f.do(f"ret ptr {new('null', 0)}")


def _render_outputs(module: Module, slots: Slots) -> None:
    """`make_outputs(list, inputs, outputs, made)`: memory for the outputs; false with an exception set."""
    f = module.function(
        "make_outputs", [("ptr", "list"), ("ptr", "inputs"), ("ptr", "outputs"), ("ptr", "made")], "i1", linkage="internal"
    )
    w = Writer(f, slots)
    code, output = w.walk("%list", list(Output), "i64")

    def keep(array: str) -> None:
        w.store_word("ptr", array, "%made", output)
        w.store_word("ptr", w.load("ptr", array, objects.ARRAY_DATA), "%outputs", output)
        w.next()

    f.enter(Output.DONATED.name.lower())
    w.store_word("ptr", w.load_word("ptr", "%inputs", w.load_word("i64", code, 3)), "%outputs", output)
    w.next()

    f.enter(Output.GRADIENT.name.lower())
    ndim = w.load_word("i64", code, 5)
    tensor = w.load_word("ptr", code, f.value(f"add i64 {ndim}, 6"))
    old = _sole_array(w, w.load("ptr", tensor, slots.metadata), code, ndim, "fresh")
    w.api("Py_IncRef", old)
    keep(old)

    f.enter(Output.FRESH.name.lower())
    operands = [w.load_word(type_, code, k) for k, type_ in ((3, "ptr"), (4, "i64"), (5, "i64"))]
    array = f.call("ptr", "@new_array", *zip(("ptr", "i64", "i64", "ptr"), (*operands, w.word(code, 6)), strict=True))
    w.require(w.differ("ptr", array, "null"), "failed")
    keep(array)

    f.enter(Output.END.name.lower())
    f.do("ret i1 true")
    f.enter("failed")
    f.do("ret i1 false")


def _sole_array(w: Writer, metadata: str, code: str, ndim: str, otherwise: str) -> str:
    """The array of a `.grad` if nobody else holds either, and it is of the right dtype and layout."""
    f, slots = w.f, w.slots

    def sole(thing: str) -> None:
        w.require(w.equal("i32", w.load("i32", thing, objects.REFERENCES), "1"), otherwise)

    grad = w.load("ptr", metadata, slots.grad)
    w.require_object(grad, w.object("tensor"), otherwise)
    sole(grad)
    w.require(w.equal("ptr", w.load("ptr", grad, slots.node), w.object("None")), otherwise)
    w.require(w.equal("ptr", w.load("ptr", grad, slots.metadata), w.object("None")), otherwise)
    array = w.load("ptr", grad, slots.data)
    w.require_object(array, w.object("ndarray"), otherwise)
    sole(array)
    w.require(w.equal("ptr", w.load("ptr", array, objects.ARRAY_DTYPE), w.load_word("ptr", code, 3)), otherwise)
    for place in (objects.ARRAY_BASE, objects.ARRAY_WEAKREFS):
        w.require(w.equal("ptr", w.load("ptr", array, place), "null"), otherwise)
    wanted = objects.C_CONTIGUOUS | objects.OWNS_DATA | objects.ALIGNED | objects.WRITEABLE
    flags = f.value(f"and i32 {w.load('i32', array, objects.ARRAY_FLAGS)}, {wanted}")
    w.require(w.equal("i32", flags, str(wanted)), otherwise)
    found = f.value(f"zext i32 {w.load('i32', array, objects.ARRAY_NDIM)} to i64")
    w.require(w.equal("i64", found, ndim), otherwise)
    dims, shape = w.load("ptr", array, objects.ARRAY_DIMS), w.word(code, 6)
    with f.loop("0", ndim) as k:
        w.require(w.equal("i64", w.load_word("i64", dims, k), w.load_word("i64", shape, k)), otherwise)
    return array


def _render_wrap(module: Module, slots: Slots) -> None:
    """`wrap(array, node)`: a tensor, which takes over the reference to the array; null with an exception set."""
    f = module.function("wrap", [("ptr", "array"), ("ptr", "node")], "ptr", linkage="internal")
    w = Writer(f, slots)
    made = w.api("PyType_GenericAlloc", w.object("tensor"), "0")
    w.require(w.differ("ptr", made, "null"), "failed")
    w.store("ptr", "%array", made, slots.data)
    for slot, content in ((slots.node, "%node"), (slots.metadata, w.object("None"))):
        w.api("Py_IncRef", content)
        w.store("ptr", content, made, slot)
    f.do(f"ret ptr {made}")
    f.enter("failed")
    w.api("Py_DecRef", "%array")
    f.do("ret ptr null")


def _render_afterwards(module: Module, slots: Slots) -> None:
    """`finish(list, tensors, made)`: what the run entails for tensors that were there; false with an exception set."""
    f = module.function("finish", [("ptr", "list"), ("ptr", "tensors"), ("ptr", "made")], "i1", linkage="internal")
    w = Writer(f, slots)
    code, one = w.walk("%list", list(After), "ptr")

    f.enter(After.COUNT.name.lower())
    changed, gone = w.load_word("ptr", "%tensors", w.load_word("i64", code, 2)), f.label("gone")
    # another thread may have been here since the check
    metadata = w.load("ptr", changed, slots.metadata)
    w.require_object(metadata, w.object("metadata"), gone)
    counter = w.load("ptr", metadata, slots.version)
    w.require_object(counter, w.object("counter"), gone)
    count = w.load("ptr", counter, slots.count)
    w.require_object(count, w.object("int"), gone)
    more = w.api("PyNumber_Add", count, w.object("one"))
    w.require(w.differ("ptr", more, "null"), "failed")
    w.exchange(more, counter, slots.count)
    f.jump(gone)
    f.enter(gone)
    w.next()

    def set_grad(value: str) -> None:
        """Unless another thread has left nothing to set it on."""
        metadata = w.load("ptr", one, slots.metadata)
        refused, done = f.label("refused"), f.label("done")
        w.require_object(metadata, w.object("metadata"), refused)
        w.exchange(value, metadata, slots.grad)
        f.jump(done)
        f.enter(refused)
        w.api("Py_DecRef", value)
        f.jump(done)
        f.enter(done)
        w.next()

    f.enter(After.SET_GRAD.name.lower())
    output = w.load_word("i64", code, 3)
    array = w.load_word("ptr", "%made", output)
    w.store_word("ptr", "null", "%made", output)
    grad = f.call("ptr", "@wrap", ("ptr", array), ("ptr", w.object("None")))
    w.require(w.differ("ptr", grad, "null"), "failed")
    set_grad(grad)

    f.enter(After.CLEAR_GRAD.name.lower())
    w.api("Py_IncRef", w.object("None"))
    set_grad(w.object("None"))

    f.enter(After.END.name.lower())
    f.do("ret i1 true")
    f.enter("failed")
    f.do("ret i1 false")


def _render_result(module: Module, slots: Slots) -> None:
    """`result(table, args, made)`: what the call returns; null with an exception set."""
    leaf = module.function("leaf", [("ptr", "place"), ("ptr", "args"), ("ptr", "made")], "ptr", linkage="internal")
    w = Writer(leaf, slots)
    reference = w.load_word("i64", "%place", 1)
    cases = " ".join(f"i64 {kind.value}, label %{kind.name.lower()}" for kind in Leaf if kind is not Leaf.OBJECT)
    leaf.do(f"switch i64 {w.load('i64', '%place')}, label %object [ {cases} ]")
    leaf.enter("output")
    array = w.load_word("ptr", "%made", reference)
    w.store_word("ptr", "null", "%made", reference)
    leaf.do(f"ret ptr {leaf.call('ptr', '@wrap', ('ptr', array), ('ptr', w.load_word('ptr', '%place', 2)))}")
    leaf.enter("array")
    array = w.load_word("ptr", "%made", reference)
    w.store_word("ptr", "null", "%made", reference)
    leaf.do(f"ret ptr {array}")
    leaf.enter("argument")
    argument = w.load_word("ptr", "%args", reference)
    w.api("Py_IncRef", argument)
    leaf.do(f"ret ptr {argument}")
    leaf.enter("object")
    thing = w.load_word("ptr", "%place", 1)
    w.api("Py_IncRef", thing)
    leaf.do(f"ret ptr {thing}")

    f = module.function("result", [("ptr", "table"), ("ptr", "args"), ("ptr", "made")], "ptr", linkage="internal")
    w = Writer(f, slots)
    leaves = w.word("%table", w.load_word("i64", "%table", Header.RESULT.value))
    count = w.load_word("i64", "%table", Header.LEAVES.value)
    kind = w.load_word("i64", "%table", Header.RESULT_KIND.value)
    with f.when(w.equal("i64", kind, str(Result.ONE.value))):
        f.do(f"ret ptr {f.call('ptr', '@leaf', ('ptr', leaves), ('ptr', '%args'), ('ptr', '%made'))}")
        f.enter(f.label("dead"))
    container, items = f.slot("ptr"), f.slot("ptr")
    tuple_, list_, fill = f.label("tuple"), f.label("list"), f.label("fill")
    f.branch(w.equal("i64", kind, str(Result.TUPLE.value)), tuple_, list_)
    f.enter(tuple_)
    made = w.api("PyTuple_New", count)
    w.require(w.differ("ptr", made, "null"), "failed")
    w.store("ptr", made, container)
    w.store("ptr", w.at(made, objects.TUPLE_ITEMS), items)
    f.jump(fill)
    f.enter(list_)
    made = w.api("PyList_New", count)
    w.require(w.differ("ptr", made, "null"), "failed")
    w.store("ptr", made, container)
    w.store("ptr", w.load("ptr", made, objects.LIST_ITEMS), items)
    f.jump(fill)
    f.enter(fill)
    made, places = w.load("ptr", container), w.load("ptr", items)
    with f.loop("0", count) as k:
        place = w.word(leaves, f.value(f"mul i64 {k}, 3"))
        item = f.call("ptr", "@leaf", ("ptr", place), ("ptr", "%args"), ("ptr", "%made"))
        w.require(w.differ("ptr", item, "null"), "drop")
        w.store_word("ptr", item, places, k)
    finished = f.label("finished")
    with f.when(w.differ("i64", kind, str(Result.FINISHED.value))):
        f.do(f"ret ptr {made}")
        f.enter(finished)
    finish = w.load_word("ptr", "%table", Header.FINISH.value)
    result = w.api("PyObject_Vectorcall", finish, container, "1", "null")
    w.api("Py_DecRef", made)
    f.do(f"ret ptr {result}")
    f.enter("drop")
    w.api("Py_DecRef", made)
    f.jump("failed")
    f.enter("failed")
    f.do("ret ptr null")


def _render_frame(w: Writer, words: str) -> tuple[str, str]:
    """The frame of a call, and its address once more if it is on the heap, for want of space on the stack, or null.

    Goes to the block `miss` where there is no memory.
    """
    f = w.f
    on_stack = f.slot(f"[{FRAME_ON_STACK} x i64]", 16)
    place = f.slot("ptr")
    w.store("ptr", "null", place)
    with f.when(f.value(f"icmp ugt i64 {words}, {FRAME_ON_STACK}")):
        memory = w.api("PyMem_RawMalloc", f.value(f"shl i64 {words}, 3"))
        w.require(w.differ("ptr", memory, "null"), "miss")
        w.store("ptr", memory, place)
    on_heap = w.load("ptr", place)
    return f.value(f"select i1 {w.equal('ptr', on_heap, 'null')}, ptr {on_stack}, ptr {on_heap}"), on_heap


def _render_entry(module: Module, slots: Slots) -> None:
    """`entry` itself; see the top of the file."""
    f = module.function("entry", [("ptr", "self"), ("ptr", "args"), ("i64", "nargs"), ("ptr", "kwnames")], "ptr")
    w = Writer(f, slots)
    table = w.load("ptr", w.load("ptr", "%self", objects.TUPLE_ITEMS), objects.ARRAY_DATA)

    def header(type_: str, which: Header) -> str:
        return w.load_word(type_, table, which.value)

    names = header("ptr", Header.KEYWORDS)
    w.require(f.call("i1", "@same_names", ("ptr", names), ("ptr", "%kwnames")), "miss")
    w.require(w.equal("i64", "%nargs", header("i64", Header.ARGUMENTS)), "miss")
    inputs, outputs = header("i64", Header.INPUTS), header("i64", Header.OUTPUTS)
    frame, on_heap = _render_frame(w, header("i64", Header.FRAME))
    tensors, arrays = w.word(frame, inputs), w.word(frame, f.value(f"mul i64 {inputs}, 2"))
    targets = w.word(frame, f.value(f"mul i64 {inputs}, 5"))
    made = w.word(targets, outputs)
    checks = w.word(table, header("i64", Header.CHECKS))
    operands = (("ptr", checks), ("ptr", "%args"), ("ptr", frame), ("i64", inputs))
    w.require(f.call("i1", "@check", *operands), "differs")
    w.store_word("i64", f.value(f"add i64 {header('i64', Header.CALLS)}, 1"), table, Header.CALLS.value)

    with f.loop("0", outputs) as k:
        w.store_word("ptr", "null", made, k)
    listed = w.word(table, header("i64", Header.OUTPUT_LIST))
    operands = (("ptr", listed), ("ptr", frame), ("ptr", targets), ("ptr", made))
    w.require(f.call("i1", "@make_outputs", *operands), "cleanup")

    types = ("ptr", "ptr", "ptr", "ptr", "ptr", "i64")
    program = (header("ptr", Header.RUN), frame, targets, header("ptr", Header.CONSTANTS), header("ptr", Header.WORKSPACE),
               header("i64", Header.ARENA_BYTES))
    run_program = module.declare("run_program", "i32", types)
    status_place, ran = f.slot("i32"), f.label("ran")

    def run() -> None:
        status = f.call("i32", run_program, *zip(types, program, strict=True))
        f.do(f"store i32 {status}, ptr {status_place}")

    # Other threads may let go of a tensor's array meanwhile: also where the lock is kept, since the first parallel loop of
    # a process starts its workers in Python.
    with f.loop("0", inputs) as k:
        array = w.load_word("ptr", arrays, k)
        with f.when(w.differ("ptr", array, "null")):
            w.api("Py_IncRef", array)
    alone, shared = f.label("alone"), f.label("shared")
    f.branch(w.equal("i64", header("i64", Header.RELEASES), "0"), alone, shared)
    f.enter(alone)
    run()
    f.jump(ran)
    f.enter(shared)
    thread = w.api("PyEval_SaveThread")
    run()
    w.api("PyEval_RestoreThread", thread)
    f.jump(ran)
    f.enter(ran)
    with f.loop("0", inputs) as k:
        w.give_back(w.load_word("ptr", arrays, k))
    status = f.value(f"load i32, ptr {status_place}")
    w.require(w.equal("i32", status, "0"), "stopped")

    afterwards = w.word(table, header("i64", Header.AFTERWARDS))
    w.require(f.call("i1", "@finish", ("ptr", afterwards), ("ptr", tensors), ("ptr", made)), "cleanup")
    result_place = f.slot("ptr")
    w.store("ptr", f.call("ptr", "@result", ("ptr", table), ("ptr", "%args"), ("ptr", made)), result_place)
    f.jump("leave")

    f.enter("stopped")
    memory, other = f.label("memory"), f.label("other")
    f.branch(w.equal("i32", status, str(OUT_OF_MEMORY)), memory, other)
    f.enter(memory)
    w.api("PyErr_NoMemory")
    f.jump("cleanup")
    f.enter(other)
    number, raised = f.slot("ptr"), f.label("raised")
    w.store("ptr", w.api("PyLong_FromLongLong", f.value(f"sext i32 {status} to i64")), number)
    w.require(w.differ("ptr", w.load("ptr", number), "null"), "cleanup")
    w.give_back(w.api("PyObject_Vectorcall", header("ptr", Header.FAILED), number, "1", "null"))
    w.api("Py_DecRef", w.load("ptr", number))
    silent = f.label("silent")
    f.branch(w.equal("ptr", w.api("PyErr_Occurred"), "null"), silent, raised)
    f.enter(silent)
    text = "compiled code has failed"
    message = module.constant("message", f'[{len(text) + 1} x i8] c"{text}\\00"')
    w.api("PyErr_SetString", w.object("RuntimeError"), message)
    f.jump(raised)
    f.enter(raised)
    f.jump("cleanup")
    f.enter("cleanup")
    w.store("ptr", "null", result_place)
    f.jump("leave")
    f.enter("leave")
    with f.loop("0", outputs) as k:
        w.give_back(w.load_word("ptr", made, k))
    w.api("PyMem_RawFree", on_heap)
    f.do(f"ret ptr {w.load('ptr', result_place)}")

    f.enter("differs")
    w.api("PyMem_RawFree", on_heap)
    f.jump("miss")
    w.miss()
