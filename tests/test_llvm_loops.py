"""Loop nests as LLVM code, against the interpreter of kernels, on memory that faults when touched outside of buffers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import program_of, run_interpreted, run_native

from graphc import index, ops
from graphc.backends.llvm.fetching import what_to_fetch
from graphc.backends.llvm.jit import emit_object
from graphc.backends.llvm.program import render
from graphc.backends.llvm.target import Target
from graphc.expression import Accumulator, Axis, Buffer, Expr, cast, constant, load
from graphc.kernel import Accumulate, Loop, Loops, Reset, Store
from graphc.types import DTYPES, DType, bool_, float16, float32, float64, int8, int32, int64

EXTENTS = (0, 1, 7, 16, 33, 100)
rng = np.random.default_rng(0)


def numbers(size: int, dtype: DType = float32) -> np.ndarray:
    """Small whole numbers: every order of summing them gives the same."""
    if dtype is bool_:
        return rng.random(size) < 0.5
    return rng.integers(-9 if dtype.is_signed else 0, 10, size).astype(dtype.numpy)


def check(kernels: list[Loops], memory: dict[Buffer, np.ndarray], temporaries: tuple[Buffer, ...] = ()) -> dict:
    """Run natively and by the interpreter; the same must come out."""
    native = run_native(kernels, memory, temporaries)
    for buffer, wanted in run_interpreted(kernels, memory, temporaries).items():
        np.testing.assert_array_equal(native[buffer], wanted, err_msg=f"{buffer}")
    return native


def number(value: int) -> Expr:
    return constant(value, int64)


def divided(x: Expr, by: int) -> Expr:
    return Expr("quotient", (x, number(by)), int64)


def rest(x: Expr, by: int) -> Expr:
    return Expr("modulo", (x, number(by)), int64)


# Loads

# name: the offset of iteration i of n, and how large the buffer must be
OFFSETS = {
    "consecutive": (lambda i, n: i, lambda n: n),
    "shifted": (lambda i, n: i + 3, lambda n: n + 3),
    "backwards": (lambda i, n: number(n - 1) - i, lambda n: n),
    "uniform": (lambda i, n: number(5), lambda n: 6),
    "stride 2": (lambda i, n: i * 2, lambda n: 2 * n - 1),
    "stride 3": (lambda i, n: i * 3 + 1, lambda n: 3 * n - 1),
    "stride 4": (lambda i, n: i * 4, lambda n: 4 * n - 3),
    "stride -2": (lambda i, n: number(2 * n - 2) - i * 2, lambda n: 2 * n - 1),
    "stride 7": (lambda i, n: i * 7, lambda n: 7 * n - 6),
    "quotient": (lambda i, n: divided(i, 3), lambda n: (n - 1) // 3 + 1),
    "quotient by lanes": (lambda i, n: divided(i, 32), lambda n: (n - 1) // 32 + 1),
    "modulo": (lambda i, n: rest(i, 5), lambda n: min(n, 5)),
    "modulo of lanes": (lambda i, n: rest(i, 48) + 1, lambda n: min(n, 48) + 1),
    "modulo of strides": (lambda i, n: rest(i * 2, 64), lambda n: min(2 * n - 1, 63)),
}


@pytest.mark.parametrize("dtype", [float32, float64, float16, bool_, int8, int64], ids=lambda d: d.name)
@pytest.mark.parametrize("offset", OFFSETS)
def test_loads(offset, dtype):
    place, size = OFFSETS[offset]
    kernels, memory = [], {}
    for extent in EXTENTS:
        for lanes in (0, 16):
            x = Buffer(f"x{extent}", dtype, max(0, size(extent)) if extent else 0, "input")
            out = Buffer(f"out{extent}", dtype, extent, "output")
            i = Axis("i", extent)
            body = Store(out, i.value, load(x, place(i.value, extent)))
            kernels.append(Loops(f"k{extent}", (), (Loop(i, (body,), lanes),), 1.0))
            memory |= {x: numbers(x.size, dtype), out: np.zeros(extent, dtype.numpy)}
    check(kernels, memory)


@pytest.mark.parametrize("width", [2, 4, 8, 32, 64])
def test_loads_of_other_widths(width):
    kernels, memory = [], {}
    for name, (place, size) in OFFSETS.items():
        extent = 2 * width + 3
        x = Buffer(name, float32, size(extent), "input")
        out = Buffer(f"{name}.out", float32, extent, "output")
        i = Axis("i", extent)
        kernels.append(Loops("k", (), (Loop(i, (Store(out, i.value, load(x, place(i.value, extent))),), width),), 1.0))
        memory |= {x: numbers(x.size), out: np.zeros(extent, np.float32)}
    check(kernels, memory)


@pytest.mark.parametrize("dtype", [float32, float64, float16, bool_, int32], ids=lambda d: d.name)
@pytest.mark.parametrize("extent", [1, 16, 37])
def test_gather(dtype, extent):
    table = Buffer("table", dtype, 11, "input")
    where = Buffer("where", int64, extent, "input")
    short = Buffer("short", int32, extent, "input")
    outs = [Buffer(f"out{k}", dtype, extent, "output") for k in range(3)]
    i = Axis("i", extent)
    far = load(where, i.value)
    body = (
        Store(outs[0], i.value, load(table, far)),
        Store(outs[1], i.value, load(table, cast(load(short, i.value), int64))),
        # outside of the table where the mask is false
        Store(outs[2], i.value, load(table, far * 100 - 100, ops.bitwise_and(far * 100 >= 100, far * 100 < 111))),
    )
    places = rng.integers(0, 11, extent)
    memory = {table: numbers(11, dtype), where: places, short: places.astype(np.int32)}
    check([Loops("k", (), (Loop(i, body, 16),), 1.0)], memory | {b: np.zeros(extent, dtype.numpy) for b in outs})


@pytest.mark.parametrize("lanes", [0, 16])
@pytest.mark.parametrize("extent", [3, 16, 40])
def test_masked_loads(extent, lanes):
    """Windows that hang over both ends of a row, as in a padded convolution."""
    rows = 3
    x = Buffer("x", float32, rows * extent, "input")
    outs = [Buffer(f"out{k}", float32, 5 * 3 * extent, "output") for k in range(6)]
    r, s, i = Axis("r", 5), Axis("s", 3), Axis("i", extent)
    row, column = r.value - 1, i.value + s.value - 1
    row_inside = ops.bitwise_and(row >= 0, row < rows)
    inside = ops.bitwise_and(column >= 0, column < extent)
    start = row * extent
    place = r.value * (3 * extent) + s.value * extent + i.value
    values = (
        load(x, start + column, ops.bitwise_and(row_inside, inside)),
        load(x, start, row_inside),  # the same in all lanes, and so is the mask
        load(x, start + i.value, row_inside),
        load(x, start + extent - 1 - i.value, row_inside),
        load(x, r.value * extent, ops.bitwise_and(row_inside, ops.bitwise_and(r.value < rows, inside))),  # a mask by lanes
        load(x, r.value * extent + i.value, ops.bitwise_and(r.value < rows, i.value >= 2)),  # true behind the last iteration
    )
    body = tuple(Store(b, place, v) for b, v in zip(outs, values))
    memory = {x: numbers(x.size)} | {b: np.zeros(b.size, np.float32) for b in outs}
    check([Loops("k", (r, s), (Loop(i, body, lanes),), 1.0)], memory)


def test_empty_buffers_are_not_touched():
    x, nothing = Buffer("x", float32, 0, "input"), Buffer("nothing", float32, 0, "output")
    out = Buffer("out", float32, 20, "output")
    i, j = Axis("i", 20), Axis("j", 0)
    masked = Store(out, i.value, load(x, i.value, i.value < 0) + load(x, number(0), constant(False, bool_)) + 2.0)
    kernels = [
        Loops("masked", (), (Loop(i, (masked,), 16),), 1.0),
        Loops("no steps", (j,), (Store(nothing, j.value, load(x, j.value)),), 1.0),
        Loops("no steps in parallel", (i, j), (Store(nothing, j.value, load(x, j.value)),), 1e9),
    ]
    got = check(kernels, {x: np.zeros(0, np.float32), nothing: np.zeros(0, np.float32), out: np.zeros(20, np.float32)})
    assert (got[out] == 2).all()


# Stores


@pytest.mark.parametrize("dtype", [float32, float64, float16, bool_, int8], ids=lambda d: d.name)
@pytest.mark.parametrize("lanes", [0, 16])
@pytest.mark.parametrize("extent", [1, 16, 35])
def test_stores(extent, lanes, dtype):
    x = Buffer("x", dtype, extent, "input")
    flags = Buffer("flags", bool_, extent, "input")
    chosen = Buffer("chosen", bool_, 2, "input")
    places = {
        "forward": lambda i: i,
        "backward": lambda i: number(extent - 1) - i,
        "strided": lambda i: i * 3,
    }
    kernels, memory = [], {x: numbers(extent, dtype), flags: numbers(extent, bool_), chosen: np.array([False, True])}
    for name, place in places.items():
        for kind in ("all", "by lane", "none", "every"):
            out = Buffer(f"{name}.{kind}", dtype, 3 * extent - 2 if name == "strided" else extent, "output")
            i = Axis("i", extent)
            mask = {
                "all": None,
                "by lane": load(flags, i.value),
                "none": load(chosen, number(0)),
                "every": load(chosen, number(1)),
            }[kind]
            body = Store(out, place(i.value), load(x, i.value), mask)
            kernels.append(Loops("k", (), (Loop(i, (body,), lanes),), 1.0))
            memory[out] = np.zeros(out.size, dtype.numpy)
    check(kernels, memory)


def test_store_of_one_value_in_lanes():
    out = Buffer("out", float32, 21, "output")
    i = Axis("i", 21)
    check([Loops("k", (), (Loop(i, (Store(out, i.value, constant(3.5, float32)),), 8),), 1.0)], {out: np.zeros(21, np.float32)})


def test_neighbouring_stores_take_effect_together():
    x = Buffer("x", float32, 40, "input")
    t, u = (Buffer(n, float32, 40, "output") for n in "tu")
    i, j = Axis("i", 40), Axis("j", 40)
    old = load(t, i.value)
    kernel = Loops("k", (), (
        Loop(i, (Store(t, i.value, old + load(x, i.value)), Store(u, i.value, old * 2.0)), 16),
        Loop(j, (Store(u, j.value, load(u, j.value) + load(t, j.value)),), 16),
    ), 1.0)
    check([kernel], {x: numbers(40), t: numbers(40), u: np.zeros(40, np.float32)})


def test_what_is_written_is_read_again():
    """A value that was computed before a store to what it reads is computed anew after it."""
    t, out = Buffer("t", float32, 2, "temporary"), Buffer("out", float32, 36, "output")
    i, apart = Axis("i", 12), Accumulator("apart", "sum", float32)
    value = load(t, number(0)) * 2.0
    body = (
        Store(out, i.value * 3, value), Reset(apart),
        Store(t, number(0), cast(i.value, float32)), Reset(apart),
        Store(out, i.value * 3 + 1, value), Reset(apart),
        Loop(Axis("j", 1), (Store(t, number(0), value),)),
        Store(out, i.value * 3 + 2, value),
    )
    start = Store(t, number(0), constant(0.5, float32))
    check([Loops("k", (), (start, Loop(i, body)), 1.0)], {out: np.zeros(36, np.float32)}, (t,))


# Reductions


@pytest.mark.parametrize("dtype", [d for d in DTYPES.values() if d.has_code and d is not bool_], ids=lambda d: d.name)
@pytest.mark.parametrize("lanes", [0, 4, 64])
def test_reduce_along_lanes(dtype, lanes):
    kernels, memory = [], {}
    for extent in EXTENTS:
        x = Buffer(f"x{extent}", dtype, extent, "input")
        out = Buffer(f"out{extent}", dtype, 3, "output")
        accumulators = [Accumulator(kind, kind, dtype) for kind in ("sum", "max", "min")]
        i = Axis("i", extent)
        kernels.append(Loops("k", (), (
            *(Reset(a) for a in accumulators),
            Loop(i, tuple(Accumulate(a, load(x, i.value)) for a in accumulators), lanes),
            *(Store(out, number(k), a.value) for k, a in enumerate(accumulators)),
        ), 1.0))
        memory |= {x: np.abs(numbers(extent, dtype)) % 5, out: np.zeros(3, dtype.numpy)}
    check(kernels, memory)


@pytest.mark.parametrize("where", [0, 15, 16, 33, 36])
def test_extrema_of_nan(where):
    x, out = Buffer("x", float32, 37, "input"), Buffer("out", float32, 2, "output")
    values = numbers(37)
    values[where] = np.nan
    high, low = Accumulator("high", "max", float32), Accumulator("low", "min", float32)
    i = Axis("i", 37)
    body = (
        Reset(high), Reset(low),
        Loop(i, (Accumulate(high, load(x, i.value)), Accumulate(low, load(x, i.value))), 16),
        Store(out, number(0), high.value), Store(out, number(1), low.value),
    )
    assert np.isnan(check([Loops("k", (), body, 1.0)], {x: values, out: np.zeros(2, np.float32)})[out]).all()


@pytest.mark.parametrize("extent", [5, 16, 50])
def test_reduce_booleans(extent):
    x, out = Buffer("x", bool_, extent, "input"), Buffer("out", bool_, 2, "output")
    some, every = Accumulator("any", "max", bool_), Accumulator("all", "min", bool_)
    i = Axis("i", extent)
    body = (
        Reset(some), Reset(every),
        Loop(i, (Accumulate(some, load(x, i.value)), Accumulate(every, load(x, i.value))), 16),
        Store(out, number(0), some.value), Store(out, number(1), every.value),
    )
    for values in (np.zeros(extent, bool), np.ones(extent, bool), np.arange(extent) == extent - 1):
        check([Loops("k", (), body, 1.0)], {x: values, out: np.zeros(2, bool)})


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 7), (20, 16), (5, 33), (9, 100), (0, 4), (4, 0)])
def test_reduce_matrix_every_way(rows, columns):
    x = Buffer("x", float32, rows * columns, "input")
    total, by_row, by_column = (Buffer(n, float32, s, "output") for n, s in (("all", 1), ("rows", rows), ("columns", columns)))
    weights = Buffer("weights", float32, rows, "input")

    def element(r: Axis, c: Axis) -> Expr:
        return load(x, r.value * columns + c.value)

    a, b = Accumulator("a", "sum", float32), Accumulator("b", "max", float32)
    r, c = Axis("r", rows), Axis("c", columns)
    r2, c2, r3, c3 = Axis("r", rows), Axis("c", columns), Axis("r", rows), Axis("c", columns)
    kernels = [
        # lanes inside a serial loop that began after the reset: combined at the end of each row
        Loops("all", (), (
            Reset(a), Loop(r, (Loop(c, (Accumulate(a, element(r, c)),), 16),)), Store(total, number(0), a.value),
        ), 1.0),
        Loops("rows", (r2,), (
            Reset(a), Reset(b),
            Loop(c2, (Accumulate(a, element(r2, c2)), Accumulate(b, element(r2, c2))), 16),
            Store(by_row, r2.value, a.value + b.value * load(weights, r2.value)),
        ), 1.0),
        # each lane has a sum of its own
        Loops("columns", (), (Loop(c3, (
            Reset(a),
            Loop(r3, (Accumulate(a, element(r3, c3) * load(weights, r3.value)),)),
            Store(by_column, c3.value, a.value),
        ), 16),), 1.0),
    ]
    if columns == 0:
        kernels = [kernels[0], kernels[2]]  # the greatest of nothing is -inf, times a weight of 0
    memory = {x: numbers(x.size), weights: numbers(rows)}
    check(kernels, memory | {b: np.zeros(b.size, np.float32) for b in (total, by_row, by_column)})


def test_the_order_of_a_sum_is_fixed():
    """Each lane in turn, then halves with each other."""
    values = rng.standard_normal(32 + 5).astype(np.float32)
    x, out = Buffer("x", float32, 37, "input"), Buffer("out", float32, 1, "output")
    a, i = Accumulator("a", "sum", float32), Axis("i", 37)
    body = (Reset(a), Loop(i, (Accumulate(a, load(x, i.value)),), 8), Store(out, number(0), a.value))
    lanes = np.zeros(8, np.float32)
    for start in range(0, 37, 8):
        part = values[start : start + 8]
        lanes[: part.size] += part
    while lanes.size > 1:
        lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
    assert run_native([Loops("k", (), body, 1.0)], {x: values, out: np.zeros(1, np.float32)})[out] == lanes


# Loops


@pytest.mark.parametrize("limit", [-3, 0, 1, 7, 16, 33, 64, 70])
@pytest.mark.parametrize("lanes", [0, 16])
def test_limits(limit, lanes):
    """The buffers end where the limit is: nothing behind it may be read, not even ahead of the loop."""
    stop = Buffer("stop", int64, 1, "input")
    size = max(limit, 1)
    x, y = Buffer("x", float32, size, "input"), Buffer("y", float32, size, "input")
    out, total = Buffer("out", float32, size, "output"), Buffer("total", float32, 1, "output")
    i, a = Axis("i", 70), Accumulator("a", "sum", float32)
    end = load(stop, number(0))
    value = load(x, i.value) * load(y, end - 1)  # which is not there if nothing is to be done
    loop = Loop(i, (Accumulate(a, value), Store(out, i.value, value)), lanes, end)
    memory = {stop: np.array([limit]), x: numbers(size), y: numbers(size), out: np.zeros(size, np.float32)}
    kernel = Loops("k", (), (Reset(a), loop, Store(total, number(0), a.value)), 1.0)
    check([kernel], memory | {total: np.zeros(1, np.float32)})


@pytest.mark.parametrize("cost", [1.0, 1e6])
@pytest.mark.parametrize("extents", [(), (1,), (13,), (1, 5, 1), (3, 4, 5), (2, 1, 300), (700, 2), (1, 700)])
def test_grids(extents, cost):
    grid = tuple(Axis(f"g{k}", e) for k, e in enumerate(extents))
    size = int(np.prod(extents, dtype=int))
    x, out = Buffer("x", float32, size, "input"), Buffer("out", float32, size, "output")
    place = index.ravel([a.value for a in grid], extents)
    mirrored = index.ravel([Expr("sub", (number(a.extent - 1), a.value), int64) for a in grid], extents)
    kernel = Loops("k", grid, (Store(out, place, load(x, mirrored) + 1.0),), cost)
    check([kernel], {x: numbers(size), out: np.zeros(size, np.float32)})


def test_local_buffers_and_nested_loops():
    """A step that gathers a tile, and reads it across: small loops are unrolled, long ones are not."""
    for tile in (3, 20):
        x, out = Buffer("x", float32, 6 * tile * tile, "input"), Buffer("out", float32, 6 * tile * tile, "output")
        local = Buffer("tile", float32, tile * tile, "local")
        flags = Buffer("flags", bool_, tile, "local")
        b = Axis("b", 6)
        r, c, r2, c2 = (Axis(n, tile) for n in ("r", "c", "r2", "c2"))
        value = load(x, b.value * (tile * tile) + r.value * tile + c.value)
        across = load(local, c2.value * tile + r2.value)
        body = (
            Loop(r, (Loop(c, (Store(local, r.value * tile + c.value, value * 2.0), Store(flags, c.value, value > 0.0)), 8),)),
            Loop(r2, (Loop(c2, (
                Store(out, b.value * (tile * tile) + r2.value * tile + c2.value, ops.where(load(flags, c2.value), across, 0.0)),
            ), 8),)),
        )
        check([Loops("k", (b,), body, 1e4)], {x: numbers(x.size), out: np.zeros(out.size, np.float32)})


@pytest.mark.parametrize("columns", [1, 16, 30, 64, 77])
def test_softmax(columns):
    rows = 5
    x, out = Buffer("x", float32, rows * columns, "input"), Buffer("out", float32, rows * columns, "output")
    r = Axis("r", rows)
    axes = [Axis(n, columns) for n in "abc"]
    high, total = Accumulator("high", "max", float32), Accumulator("total", "sum", float32)
    places = [r.value * columns + a.value for a in axes]
    kernel = Loops("softmax", (r,), (
        Reset(high), Loop(axes[0], (Accumulate(high, load(x, places[0])),), 64),
        Reset(total), Loop(axes[1], (Accumulate(total, ops.exp(load(x, places[1]) - high.value)),), 16),
        Loop(axes[2], (Store(out, places[2], ops.exp(load(x, places[2]) - high.value) / total.value),), 16),
    ), 1.0)
    values = rng.standard_normal((rows, columns)).astype(np.float32) * 10
    got = run_native([kernel], {x: values.reshape(-1), out: np.zeros(out.size, np.float32)})[out]
    e = np.exp(values - values.max(1, keepdims=True))
    np.testing.assert_allclose(got.reshape(rows, columns), e / e.sum(1, keepdims=True), rtol=2e-6, atol=1e-12)


def test_values_of_an_axis():
    """Numbers beyond int32 too."""
    outs = {d: Buffer(d.name, d, 40, "output") for d in (int64, int32, float32, float64, bool_)}
    i = Axis("i", 40)
    far = i.value * 3_000_000_000 - 5
    body = [Store(b, i.value, cast(i.value, d)) for d, b in outs.items()]
    extra = {n: Buffer(n, int64, 40, "output") for n in ("far", "shifted", "least", "signed", "power")}
    body += [
        Store(extra["far"], i.value, far),
        Store(extra["shifted"], i.value, i.value << 40),
        Store(extra["least"], i.value, ops.minimum(i.value, far)),
        Store(extra["signed"], i.value, ops.floor_divide(i.value - 20, 3)),
        Store(extra["power"], i.value, ops.pow(i.value - 20, 3)),
    ]
    wide = i.value * 3_000_000_000 + 5
    more, real = Buffer("more", bool_, 40, "output"), Buffer("real", float64, 40, "output")
    less = Buffer("less", int64, 40, "output")
    body += [Store(more, i.value, wide > 100), Store(real, i.value, cast(wide, float64))]
    body += [Store(less, i.value, divided(wide, 7))]
    memory = {b: np.zeros(40, b.dtype.numpy) for b in (*outs.values(), *extra.values(), more, real, less)}
    check([Loops("k", (), (Loop(i, tuple(body), 16),), 1.0)], memory)


def test_deep_expressions():
    x, out = Buffer("x", float32, 20, "input"), Buffer("out", float32, 20, "output")
    i = Axis("i", 20)
    value = load(x, i.value)
    for _ in range(3000):
        value = value + 1.0
    kernel = Loops("k", (), (Loop(i, (Store(out, i.value, value),), 16),), 1.0)
    got = run_native([kernel], {x: np.zeros(20, np.float32), out: np.zeros(20, np.float32)})
    assert (got[out] == 3000).all()


# Programs


def test_constants_and_temporaries():
    """Kernels run one after another, on several threads where that is worth it; memory is shared in turn."""
    table = Buffer("table", float32, 100, "constant", numbers(100))
    x, out = Buffer("x", float32, 5000, "input"), Buffer("out", float32, 5000, "output")
    total = Buffer("total", float32, 1, "output")
    first, second = Buffer("first", float32, 5000), Buffer("second", float32, 50)
    g, i, j, a = Axis("g", 50), Axis("i", 100), Axis("j", 50), Accumulator("a", "sum", float32)
    place = g.value * 100 + i.value
    kernels = [
        Loops("scale", (g,), (Loop(i, (Store(first, place, load(x, place) * load(table, i.value)),), 16),), 1e5),
        Loops("sums", (g,), (
            Reset(a), Loop(i, (Accumulate(a, load(first, place)),), 16), Store(second, g.value, a.value),
        ), 1e5),
        Loops("sub 1/2", (g,), (Loop(i, (Store(out, place, load(first, place) - load(second, g.value)),), 16),), 1.0),
        Loops("total", (), (
            Reset(a), Loop(j, (Accumulate(a, load(second, j.value)),), 16), Store(total, number(0), a.value),
        ), 1.0),
    ]
    memory = {x: numbers(5000), table: table.data, out: np.zeros(5000, np.float32), total: np.zeros(1, np.float32)}
    check(kernels, memory, (first, second))


@pytest.mark.parametrize("triple", ["aarch64-linux-gnu", "x86_64-windows-msvc"])
def test_other_machines(triple):
    """Every way of touching memory has code on another machine, too."""
    kernels, buffers = [], []
    for dtype in (float32, float16, bool_, int64):
        x, out, where = Buffer("x", dtype, 99, "input"), Buffer("o", dtype, 99, "output"), Buffer("w", int64, 33, "input")
        i = Axis("i", 33)
        places = (i.value, number(98) - i.value, i.value * 2, i.value * 3, load(where, i.value))
        stores = tuple(Store(out, place, load(x, place)) for place in places)
        kernels.append(Loops("k", (), (Loop(i, stores, 8),), 1.0))
        buffers += [x, out, where]
    target = Target.named(triple)
    assert emit_object(str(render(program_of(kernels, buffers), target).module), target)


@st.composite
def indices(draw: st.DrawFn, axes: list[Axis]) -> Expr:
    """An index made of axes the way movement ops make them, and left as it comes."""
    expr = number(draw(st.integers(0, 40)))
    for axis in draw(st.permutations(axes)):
        term = axis.value * draw(st.sampled_from((0, 1, 1, 2, 3, 8, 16, 24, 48)))
        if draw(st.booleans()):
            term = term + draw(st.sampled_from((0, 1, 16, 32)))
            term = (divided if draw(st.booleans()) else rest)(term, draw(st.sampled_from((1, 2, 3, 7, 8, 16, 32, 48, 64))))
        expr = expr + term
    if draw(st.booleans()):
        expr = (divided if draw(st.booleans()) else rest)(expr, draw(st.sampled_from((2, 5, 16, 32, 64))))
    return expr


@settings(max_examples=25)
@given(st.data())
def test_any_index(data):
    """Whatever form an index takes, and whatever is known of it, the right elements are read."""
    g, s = Axis("g", data.draw(st.sampled_from((1, 3, 4)))), Axis("s", data.draw(st.sampled_from((1, 2, 9))))
    i = Axis("i", data.draw(st.sampled_from((1, 5, 16, 32, 45))))
    lanes = data.draw(st.sampled_from((0, 4, 16)))
    places = data.draw(st.lists(indices([g, s, i]), min_size=3, max_size=6))
    stores, memory = [], {}
    at = index.ravel([g.value, s.value, i.value], [g.extent, s.extent, i.extent])
    for k, place in enumerate(places):
        _, high = index.bounds(place)
        x = Buffer(f"x{k}", float32, int(high) + 1, "input")
        y = Buffer(f"y{k}", int64, g.extent * s.extent * i.extent, "output")
        z = Buffer(f"z{k}", float32, y.size, "output")
        stores += [Store(y, at, place), Store(z, at, load(x, place))]
        memory |= {x: numbers(x.size), y: np.zeros(y.size, np.int64), z: np.zeros(z.size, np.float32)}
    check([Loops("k", (g,), (Loop(s, (Loop(i, tuple(stores), lanes),)),), 1.0)], memory)


def test_rows_that_an_inner_loop_goes_through():
    """Sums over columns, merged: what each reads has rows, but no single next row to fetch ahead."""
    i, r, block = Axis("i", 320), Axis("r", 25), Axis("b", 2)
    x = Buffer("x", float32, 25 * 640, "input")
    at = index.ravel([r.value, block.value, i.value], [25, 2, 320])
    body, memory = [], {x: numbers(x.size)}
    for k in range(3):
        y, total = Buffer(f"y{k}", float32, 640, "output"), Accumulator(f"a{k}", "sum", float32)
        inner = (Reset(total), Loop(r, (Accumulate(total, load(x, at)),)),
                 Store(y, block.value * 320 + i.value, total.value))
        body.append(Loop(i, inner, 16))
        memory[y] = np.zeros(640, np.float32)
    check([Loops("k", (block,), tuple(body), 1.0)], memory)


@pytest.mark.parametrize(("length", "is_far"), [(8200, True), (4096, False)])
def test_rows_of_a_matrix_are_fetched_beside_a_long_vector(length: int, is_far: bool) -> None:
    i, k = Axis("i", 2), Axis("k", length)
    x, w = (Buffer(name, float32, size, "input") for name, size in (("x", length), ("w", 2 * length)))
    y = Buffer("y", float32, 2, "output")
    total = Accumulator("a", "sum", float32)
    row = load(w, index.ravel([i.value, k.value], [2, length]))
    loop = Loop(k, (Accumulate(total, load(x, k.value) * row),), 64)
    kernel = Loops("k", (i,), (Reset(total), loop, Store(y, i.value, total.value)), 1.0)
    assert [one for one, _ in what_to_fetch(kernel).get(loop, ())] == ([row] if is_far else [])
    check([kernel], {x: numbers(x.size), w: numbers(w.size), y: np.zeros(64, np.float32)})


@pytest.mark.parametrize("computes_much", [False, True])
def test_what_maps_read_is_fetched_if_they_compute_much(computes_much: bool) -> None:
    i = Axis("i", 8192)
    x, y = Buffer("x", float32, i.extent, "input"), Buffer("y", float32, i.extent, "output")
    read = load(x, i.value)
    value = Expr("tanh", (read,), float32)
    if computes_much:
        value = value * Expr("exp", (read,), float32)
    loop = Loop(i, (Store(y, i.value, value),), 16)
    kernel = Loops("k", (), (loop,), 1.0)
    assert [one for one, _ in what_to_fetch(kernel).get(loop, ())] == ([read] if computes_much else [])
    memory = {x: numbers(x.size), y: np.zeros(y.size, np.float32)}
    native, wanted = run_native([kernel], memory), run_interpreted([kernel], memory)
    np.testing.assert_allclose(native[y], wanted[y], rtol=1e-6)
