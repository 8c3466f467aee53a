"""Native code that makes arrays of others, whatever their strides: copies, sums of what was broadcast, other dtypes.

What is made is row-major and nobody else's. The functions that make an array return null with an exception set, and None where
the arrays are not such as they are for.
"""

from __future__ import annotations

from graphc.backends.llvm import objects
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.entry_table import Slots
from graphc.backends.llvm.entry_writer import Writer

MOST_DIMS = 32
"""Dimensions of the arrays that the code is for."""

_PARTS = 4
"""Sums that are taken side by side, since each addition waits for the one before."""


def render_strided(module: Module, slots: Slots) -> None:
    """Add `copy_strided`, `spread`, `unbroadcast`, `converted` and `put_into_zeros`. The module has `new_array` and `elements`
    already."""
    _render_copy(module, slots)
    _render_row_major(module, slots)
    _render_spread(module, slots)
    _render_total(module, slots)
    _render_totals(module, slots)
    _render_unbroadcast(module, slots)
    _render_converted(module, slots)
    _render_put_into_zeros(module, slots)


def copy_bytes(w: Writer, target: str, source: str, count: str) -> None:
    copy = w.f.module.declare("llvm.memcpy.p0.p0.i64", "void", ["ptr", "ptr", "i64", "i1"])
    w.f.call("void", copy, ("ptr", target), ("ptr", source), ("i64", count), ("i1", "false"))


def _along(w: Writer, base: str, step: str, i: str) -> str:
    """Where the i-th element of a dimension is."""
    return w.at(base, w.f.value(f"mul i64 {i}, {step}"))


def _render_copy(module: Module, slots: Slots) -> None:
    """`copy_strided(target, source, dims, to, from, ndim, itemsize)`: copy elements that are `to` bytes and `from` bytes apart
    along each of the dimensions."""
    words = ("%dims", "%to", "%from")
    pointers = [("ptr", name) for name in ("target", "source", "dims", "to", "from")]
    f = module.function("copy_strided", [*pointers, ("i64", "ndim"), ("i64", "itemsize")], linkage="internal")
    w = Writer(f, slots)
    with f.when(w.equal("i64", "%ndim", "0")):
        copy_bytes(w, "%target", "%source", "%itemsize")
        f.do("ret void")
        f.enter(f.label("dead"))
    size, to, from_ = (w.load("i64", each) for each in words)
    with f.when(w.equal("i64", "%ndim", "1")):
        dense = f.value(f"and i1 {w.equal('i64', to, '%itemsize')}, {w.equal('i64', from_, '%itemsize')}")
        with f.when(dense):
            copy_bytes(w, "%target", "%source", f.value(f"mul i64 {size}, %itemsize"))
            f.do("ret void")
            f.enter(f.label("dead"))
        for width in (4, 8):
            with f.when(w.equal("i64", "%itemsize", str(width))):
                with f.loop("0", size) as i:
                    element = f.value(f"load i{8 * width}, ptr {_along(w, '%source', from_, i)}, align 1")
                    f.do(f"store i{8 * width} {element}, ptr {_along(w, '%target', to, i)}, align 1")
                f.do("ret void")
                f.enter(f.label("dead"))
    rest = [("ptr", w.word(each, 1)) for each in words]
    with f.loop("0", size) as i:
        places = [("ptr", _along(w, base, step, i)) for base, step in (("%target", to), ("%source", from_))]
        f.call("void", "@copy_strided", *places, *rest, ("i64", f.value("sub i64 %ndim, 1")), ("i64", "%itemsize"))
    f.do("ret void")


def _render_row_major(module: Module, slots: Slots) -> None:
    """`row_major(strides, dims, ndim, itemsize)`: write the strides of a row-major array; returns its bytes."""
    pointers = [("ptr", name) for name in ("strides", "dims")]
    f = module.function("row_major", [*pointers, ("i64", "ndim"), ("i64", "itemsize")], "i64", linkage="internal")
    w = Writer(f, slots)
    step = f.slot("i64")
    w.store("i64", "%itemsize", step)
    with f.loop("0", "%ndim") as k:
        axis = f.value(f"sub i64 {f.value('sub i64 %ndim, 1')}, {k}")
        now = w.load("i64", step)
        w.store_word("i64", now, "%strides", axis)
        w.store("i64", f.value(f"mul i64 {now}, {w.load_word('i64', '%dims', axis)}"), step)
    f.do(f"ret i64 {w.load('i64', step)}")


def _ndim(w: Writer, array: str) -> str:
    return w.f.value(f"zext i32 {w.load('i32', array, objects.ARRAY_NDIM)} to i64")


def _itemsize(w: Writer, array: str) -> str:
    return w.load("i64", w.load("ptr", array, objects.ARRAY_DTYPE), objects.DTYPE_ITEMSIZE)


def _render_spread(module: Module, slots: Slots) -> None:
    """`spread(array, like)`: a copy, stretched to the shape of another array."""
    f = module.function("spread", [("ptr", "array"), ("ptr", "like")], "ptr", linkage="internal")
    w = Writer(f, slots)
    from_, to = (f.slot(f"[{MOST_DIMS} x i64]", 16) for _ in range(2))
    less, ndim = (_ndim(w, array) for array in ("%array", "%like"))
    w.require(f.value(f"icmp sle i64 {ndim}, {MOST_DIMS}"), "left")
    missing = f.value(f"sub i64 {ndim}, {less}")
    w.require(f.value(f"icmp sge i64 {missing}, 0"), "left")
    dims, sizes, strides = (
        w.load("ptr", array, place) for array, place in (
            ("%like", objects.ARRAY_DIMS), ("%array", objects.ARRAY_DIMS), ("%array", objects.ARRAY_STRIDES),
        )
    )  # fmt: skip
    with f.loop("0", missing) as k:
        w.store_word("i64", "0", from_, k)
    with f.loop("0", less) as k:
        axis = f.value(f"add i64 {k}, {missing}")
        size = w.load_word("i64", sizes, k)
        stretched, equal, stored = f.label("stretched"), f.label("equal"), f.label("stored")
        f.branch(w.equal("i64", size, w.load_word("i64", dims, axis)), equal, stretched)
        f.enter(equal)
        w.store_word("i64", w.load_word("i64", strides, k), from_, axis)
        f.jump(stored)
        f.enter(stretched)
        w.require(w.equal("i64", size, "1"), "left")
        w.store_word("i64", "0", from_, axis)
        f.jump(stored)
        f.enter(stored)
    itemsize = _itemsize(w, "%array")
    nbytes = f.call("i64", "@row_major", ("ptr", to), ("ptr", dims), ("i64", ndim), ("i64", itemsize))
    dtype = w.load("ptr", "%array", objects.ARRAY_DTYPE)
    made = f.call("ptr", "@new_array", ("ptr", dtype), ("i64", nbytes), ("i64", ndim), ("ptr", dims))
    w.require(w.differ("ptr", made, "null"), "failed")
    places = [("ptr", w.load("ptr", array, objects.ARRAY_DATA)) for array in (made, "%array")]
    f.call("void", "@copy_strided", *places, ("ptr", dims), ("ptr", to), ("ptr", from_), ("i64", ndim), ("i64", itemsize))
    f.do(f"ret ptr {made}")
    f.enter("left")
    f.do(f"ret ptr {w.object('None')}")
    f.enter("failed")
    f.do("ret ptr null")


def _render_total(module: Module, slots: Slots) -> None:
    """`total(source, dims, strides, ndim, is_double)`: the sum of elements, of double or else single precision. It begins with
    -0.0, which changes no sum; that of nothing is -0.0."""
    pointers = [("ptr", name) for name in ("source", "dims", "strides")]
    f = module.function("total", [*pointers, ("i64", "ndim"), ("i1", "is_double")], "double", linkage="internal")
    w = Writer(f, slots)

    def element(place: str, is_double: bool) -> str:
        if is_double:
            return f.value(f"load double, ptr {place}, align 8")
        return f.value(f"fpext float {f.value(f'load float, ptr {place}, align 4')} to double")

    def add(place: str, more: str) -> None:
        w.store("double", f.value(f"fadd double {w.load('double', place)}, {more}"), place)

    with f.when(w.equal("i64", "%ndim", "0")):
        wide, narrow = f.label("wide"), f.label("narrow")
        f.branch("%is_double", wide, narrow)
        for label in (wide, narrow):
            f.enter(label)
            f.do(f"ret double {element('%source', label is wide)}")
        f.enter(f.label("dead"))
    size, step = (w.load("i64", words) for words in ("%dims", "%strides"))
    parts = [f.slot("double") for _ in range(_PARTS)]
    for part in parts:
        w.store("double", "-0.0", part)
    inner, outer, over = f.label("inner"), f.label("outer"), f.label("over")
    f.branch(w.equal("i64", "%ndim", "1"), inner, outer)
    f.enter(inner)
    wide, narrow = f.label("wide"), f.label("narrow")
    whole = f.value(f"and i64 {size}, {-_PARTS}")
    f.branch("%is_double", wide, narrow)
    for label in (wide, narrow):
        f.enter(label)
        with f.loop("0", whole, str(_PARTS)) as i:
            for k, part in enumerate(parts):
                add(part, element(_along(w, "%source", step, f.value(f"add i64 {i}, {k}")), label is wide))
        with f.loop(whole, size) as i:
            add(parts[0], element(_along(w, "%source", step, i), label is wide))
        f.jump(over)
    f.enter(outer)
    rest = [("ptr", w.word(words, 1)) for words in ("%dims", "%strides")]
    with f.loop("0", size) as i:
        less = ("i64", f.value("sub i64 %ndim, 1"))
        add(parts[0], f.call("double", "@total", ("ptr", _along(w, "%source", step, i)), *rest, less, ("i1", "%is_double")))
    f.jump(over)
    f.enter(over)
    left, right, *others = (w.load("double", part) for part in parts)
    pairs = [f.value(f"fadd double {left}, {right}"), f.value(f"fadd double {others[0]}, {others[1]}")]
    f.do(f"ret double {f.value(f'fadd double {pairs[0]}, {pairs[1]}')}")


def _render_totals(module: Module, slots: Slots) -> None:
    """`totals(target, source, sizes, strides, ndim, others, other_sizes, other_strides, is_double)`: write sums over the other
    dimensions, one after another, for each place in the first ones; returns where the next would be."""
    pointers = [("ptr", name) for name in ("target", "source", "sizes", "strides")]
    others = [("i64", "others"), ("ptr", "other_sizes"), ("ptr", "other_strides")]
    f = module.function("totals", [*pointers, ("i64", "ndim"), *others, ("i1", "is_double")], "ptr", linkage="internal")
    w = Writer(f, slots)
    several = f.label("several")
    w.require(w.equal("i64", "%ndim", "0"), several)
    summed = [("ptr", "%other_sizes"), ("ptr", "%other_strides"), ("i64", "%others")]
    total = f.call("double", "@total", ("ptr", "%source"), *summed, ("i1", "%is_double"))
    wide, narrow = f.label("wide"), f.label("narrow")
    f.branch("%is_double", wide, narrow)
    f.enter(wide)
    f.do(f"store double {total}, ptr %target, align 8")
    f.do(f"ret ptr {w.at('%target', 8)}")
    f.enter(narrow)
    f.do(f"store float {f.value(f'fptrunc double {total} to float')}, ptr %target, align 4")
    f.do(f"ret ptr {w.at('%target', 4)}")

    f.enter(several)
    place = f.slot("ptr")
    w.store("ptr", "%target", place)
    size, step = (w.load("i64", words) for words in ("%sizes", "%strides"))
    rest = [("ptr", w.word(words, 1)) for words in ("%sizes", "%strides")]
    with f.loop("0", size) as i:
        now = [("ptr", w.load("ptr", place)), ("ptr", _along(w, "%source", step, i)), *rest]
        less = ("i64", f.value("sub i64 %ndim, 1"))
        summed = [("i64", "%others"), ("ptr", "%other_sizes"), ("ptr", "%other_strides")]
        w.store("ptr", f.call("ptr", "@totals", *now, less, *summed, ("i1", "%is_double")), place)
    f.do(f"ret ptr {w.load('ptr', place)}")


def _render_unbroadcast(module: Module, slots: Slots) -> None:
    """`unbroadcast(array, shape)`: the sums over the dimensions along which a value of a shape, a tuple, was stretched, for
    float32 and float64. Sums of single precision are taken in double."""
    f = module.function("unbroadcast", [("ptr", "array"), ("ptr", "shape")], "ptr", linkage="internal")
    w = Writer(f, slots)
    dtype = w.load("ptr", "%array", objects.ARRAY_DTYPE)
    is_double = w.equal("ptr", dtype, w.object("float64"))
    w.require(f.value(f"or i1 {is_double}, {w.equal('ptr', dtype, w.object('float32'))}"), "left")
    ndim, wanted = _ndim(w, "%array"), w.load("i64", "%shape", objects.SIZE)
    w.require(f.value(f"icmp sle i64 {ndim}, {MOST_DIMS}"), "left")
    missing = f.value(f"sub i64 {ndim}, {wanted}")
    w.require(f.value(f"icmp sge i64 {missing}, 0"), "left")
    dims, strides = (w.load("ptr", "%array", place) for place in (objects.ARRAY_DIMS, objects.ARRAY_STRIDES))
    result, kept_sizes, kept_strides, sizes, steps = (f.slot(f"[{MOST_DIMS} x i64]", 16) for _ in range(5))
    kept, summed, elements = (f.slot("i64") for _ in range(3))
    for count, first in ((kept, "0"), (summed, "0"), (elements, "1")):
        w.store("i64", first, count)
    with f.loop("0", ndim) as k:
        size, stride = w.load_word("i64", dims, k), w.load_word("i64", strides, k)
        stays, inside, goes, next_ = (f.label(hint) for hint in ("stays", "inside", "goes", "next"))
        own = f.value(f"sub i64 {k}, {missing}")
        f.branch(f.value(f"icmp sge i64 {own}, 0"), inside, goes)
        f.enter(inside)
        item = w.load_word("ptr", w.at("%shape", objects.TUPLE_ITEMS), own)
        w.require_object(item, w.object("int"), "left")
        number = w.api("PyLong_AsLongLong", item)
        w.store_word("i64", number, result, own)
        w.store("i64", f.value(f"mul i64 {w.load('i64', elements)}, {number}"), elements)
        stretched = f.label("stretched")
        f.branch(w.equal("i64", number, size), stays, stretched)
        f.enter(stretched)
        f.branch(w.equal("i64", number, "1"), goes, "left")
        for label, count, lists in ((stays, kept, (kept_sizes, kept_strides)), (goes, summed, (sizes, steps))):
            f.enter(label)
            number = w.load("i64", count)
            for content, there in zip((size, stride), lists, strict=True):
                w.store_word("i64", content, there, number)
            w.store("i64", f.value(f"add i64 {number}, 1"), count)
            f.jump(next_)
        f.enter(next_)
    itemsize = f.value(f"select i1 {is_double}, i64 8, i64 4")
    nbytes = f.value(f"mul i64 {w.load('i64', elements)}, {itemsize}")
    made = f.call("ptr", "@new_array", ("ptr", dtype), ("i64", nbytes), ("i64", wanted), ("ptr", result))
    w.require(w.differ("ptr", made, "null"), "failed")
    target = w.load("ptr", made, objects.ARRAY_DATA)
    nothing, something = f.label("nothing"), f.label("something")
    f.branch(w.equal("i64", f.call("i64", "@elements", ("ptr", "%array")), "0"), nothing, something)
    f.enter(nothing)
    clear_bytes(w, target, nbytes)
    f.do(f"ret ptr {made}")
    f.enter(something)
    source = w.load("ptr", "%array", objects.ARRAY_DATA)
    f.call(
        "ptr", "@totals", ("ptr", target), ("ptr", source), ("ptr", kept_sizes), ("ptr", kept_strides),
        ("i64", w.load("i64", kept)), ("i64", w.load("i64", summed)), ("ptr", sizes), ("ptr", steps), ("i1", is_double),
    )
    f.do(f"ret ptr {made}")
    f.enter("left")
    f.do(f"ret ptr {w.object('None')}")
    f.enter("failed")
    f.do("ret ptr null")


def clear_bytes(w: Writer, target: str, count: str) -> None:
    clear = w.f.module.declare("llvm.memset.p0.i64", "void", ["ptr", "i8", "i64", "i1"])
    w.f.call("void", clear, ("ptr", target), ("i8", "0"), ("i64", count), ("i1", "false"))


def _render_converted(module: Module, slots: Slots) -> None:
    """`converted(array, dtype)`: a row-major array of float32 as float64, or the other way round."""
    f = module.function("converted", [("ptr", "array"), ("ptr", "dtype")], "ptr", linkage="internal")
    w = Writer(f, slots)
    own = w.load("ptr", "%array", objects.ARRAY_DTYPE)
    float32, float64 = (w.object(name) for name in ("float32", "float64"))
    pairs = [f.value(f"and i1 {w.equal('ptr', own, a)}, {w.equal('ptr', '%dtype', b)}")
             for a, b in ((float32, float64), (float64, float32))]
    w.require(f.value(f"or i1 {pairs[0]}, {pairs[1]}"), "left")
    flags = f.value(f"and i32 {w.load('i32', '%array', objects.ARRAY_FLAGS)}, {objects.C_CONTIGUOUS}")
    w.require(w.differ("i32", flags, "0"), "left")
    count = f.call("i64", "@elements", ("ptr", "%array"))
    nbytes = f.value(f"mul i64 {count}, {f.value(f'select i1 {pairs[0]}, i64 8, i64 4')}")
    dims = w.load("ptr", "%array", objects.ARRAY_DIMS)
    made = f.call("ptr", "@new_array", ("ptr", "%dtype"), ("i64", nbytes), ("i64", _ndim(w, "%array")), ("ptr", dims))
    w.require(w.differ("ptr", made, "null"), "failed")
    target, source = (w.load("ptr", array, objects.ARRAY_DATA) for array in (made, "%array"))
    widen, narrow = f.label("widen"), f.label("narrow")
    f.branch(pairs[0], widen, narrow)
    for label, operation, (before, after) in ((widen, "fpext", ("float", "double")), (narrow, "fptrunc", ("double", "float"))):
        f.enter(label)
        with f.loop("0", count) as i:
            element = f.value(f"load {before}, ptr {f.value(f'getelementptr {before}, ptr {source}, i64 {i}')}, align 1")
            there = f.value(f"getelementptr {after}, ptr {target}, i64 {i}")
            f.do(f"store {after} {f.value(f'{operation} {before} {element} to {after}')}, ptr {there}, align 1")
        f.do(f"ret ptr {made}")
    f.enter("left")
    f.do(f"ret ptr {w.object('None')}")
    f.enter("failed")
    f.do("ret ptr null")


def _render_put_into_zeros(module: Module, slots: Slots) -> None:
    """`put_into_zeros(array, shape, starts, steps, most)`: zeros of a shape, with the array in the region that begins at the
    starts, with steps between its elements: all tuples. For up to so many elements."""
    params = [("ptr", name) for name in ("array", "shape", "starts", "steps")]
    f = module.function("put_into_zeros", [*params, ("i64", "most")], "ptr", linkage="internal")
    w = Writer(f, slots)
    ndim = _ndim(w, "%array")
    w.require(f.value(f"icmp sle i64 {ndim}, {MOST_DIMS}"), "left")
    for tuple_ in ("%shape", "%starts", "%steps"):
        w.require_object(tuple_, w.object("tuple"), "left")
        w.require(w.equal("i64", w.load("i64", tuple_, objects.SIZE), ndim), "left")
    sizes, strides = (f.slot(f"[{MOST_DIMS} x i64]", 16) for _ in range(2))
    elements = f.slot("i64")
    w.store("i64", "1", elements)

    def number(tuple_: str, k: str) -> str:
        item = w.load_word("ptr", w.at(tuple_, objects.TUPLE_ITEMS), k)
        w.require_object(item, w.object("int"), "left")
        return w.api("PyLong_AsLongLong", item)

    with f.loop("0", ndim) as k:
        size = number("%shape", k)
        w.require(f.value(f"icmp ule i64 {size}, %most"), "left")
        w.store_word("i64", size, sizes, k)
        more = f.value(f"mul i64 {w.load('i64', elements)}, {size}")
        w.require(f.value(f"icmp ule i64 {more}, %most"), "left")
        w.store("i64", more, elements)
    dtype, itemsize = w.load("ptr", "%array", objects.ARRAY_DTYPE), _itemsize(w, "%array")
    nbytes = f.call("i64", "@row_major", ("ptr", strides), ("ptr", sizes), ("i64", ndim), ("i64", itemsize))
    dims = w.load("ptr", "%array", objects.ARRAY_DIMS)
    offset = f.slot("i64")
    w.store("i64", "0", offset)
    with f.loop("0", ndim) as k:
        start, step, count = number("%starts", k), number("%steps", k), w.load_word("i64", dims, k)
        for low in (start, step):
            w.require(f.value(f"icmp ule i64 {low}, %most"), "left")
        with f.when(w.differ("i64", count, "0")):
            more = f.value(f"sub i64 {count}, 1")
            last = f.value(f"add i64 {start}, {f.value(f'mul i64 {more}, {step}')}")
            w.require(f.value(f"icmp ult i64 {last}, {w.load_word('i64', sizes, k)}"), "left")
        stride = w.load_word("i64", strides, k)
        w.store("i64", f.value(f"add i64 {w.load('i64', offset)}, {f.value(f'mul i64 {start}, {stride}')}"), offset)
        w.store_word("i64", f.value(f"mul i64 {step}, {stride}"), strides, k)
    made = f.call("ptr", "@new_array", ("ptr", dtype), ("i64", nbytes), ("i64", ndim), ("ptr", sizes))
    w.require(w.differ("ptr", made, "null"), "failed")
    target = w.load("ptr", made, objects.ARRAY_DATA)
    clear_bytes(w, target, nbytes)
    with f.when(w.differ("i64", f.call("i64", "@elements", ("ptr", "%array")), "0")):
        places = [("ptr", w.at(target, w.load("i64", offset))), ("ptr", w.load("ptr", "%array", objects.ARRAY_DATA))]
        lists = [("ptr", dims), ("ptr", strides), ("ptr", w.load("ptr", "%array", objects.ARRAY_STRIDES))]
        f.call("void", "@copy_strided", *places, *lists, ("i64", ndim), ("i64", itemsize))
    f.do(f"ret ptr {made}")
    f.enter("left")
    f.do(f"ret ptr {w.object('None')}")
    f.enter("failed")
    f.do("ret ptr null")
