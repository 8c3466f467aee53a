"""Every elementwise op as LLVM code, against NumPy: each dtype, one at a time and in lanes, with the numbers that bite."""

from __future__ import annotations

import math
import warnings

import ml_dtypes
import numpy as np
import pytest
from native_kernels import run_native

import graphc.ops as ops
from graphc.backends.llvm import elementwise
from graphc.compiler import compile_graph
from graphc.errors import GraphcError
from graphc.expression import Axis, Buffer, Expr, cast, load
from graphc.ir import Builder
from graphc.kernel import Loop, Loops, Store
from graphc.op import OPS, OpDef
from graphc.types import DTYPES, DType, TensorType, bool_, dtype_of, float32, float64, int32

LANES = 16
FUNCTIONS = {
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "digamma", "erf", "erfc", "erfinv", "exp",
    "exp2", "expm1", "lgamma", "log", "log10", "log1p", "log2", "pow", "sigmoid", "sin", "sinh", "tan", "tanh",
}  # fmt: skip
"""The ops that are not exact; of the rest every bit is compared."""


def rendered_ops() -> list[OpDef]:
    """The ops that back ends know by name."""
    return [record for record in OPS.values() if record.elementwise and not record.scalar and not record.kernel]


def test_every_elementwise_op_has_a_rule():
    missing = [record.name for record in rendered_ops() if record.name not in elementwise.RULES]
    assert not missing
    unknown = set(elementwise.RULES) - {record.name for record in rendered_ops()} - {"quotient", "modulo"}
    assert not unknown


def numbers(dtype: DType) -> np.ndarray:
    """Numbers of a dtype at which arithmetic goes wrong if it can, and some plain ones."""
    if dtype is bool_:
        return np.array([False, True])
    if dtype.is_floating_point:
        info = ml_dtypes.finfo(dtype.numpy)
        special = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, info.max, info.min, info.tiny, -info.smallest_subnormal]
        plain = [0.5, -2.5, 1.5, 2.0, 3.0, -7.25, 255.5, -300.0, 1e-3]
        return np.array(special + plain, dtype.numpy)
    info = np.iinfo(dtype.numpy)
    return np.array(sorted({info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 5, 7, 31, 64, 100}
                           | ({-1, -2, -3, -7, -64} if info.min else set())), dtype.numpy)


def accepts(record: OpDef, dtype: DType) -> bool:
    if record.floating and not dtype.is_floating_point:
        return False
    types = [TensorType(bool_ if name in record.keeps else dtype, ()) for name in record.operands]
    try:
        record.infer(*types)
    except GraphcError:
        return False
    return True


WITH_CODE = [dtype for dtype in DTYPES.values() if dtype.has_code]
CASES = [(record.name, dtype.name) for record in rendered_ops() for dtype in WITH_CODE if accepts(record, dtype)]


def expected(record: OpDef, arrays: list[np.ndarray], result: DType) -> np.ndarray:
    rule = {"floor_divide": np.floor_divide, "remainder": np.remainder}.get(record.name, record.ref)  # by zero too
    if record.name == "round" and not result.is_floating_point:
        return arrays[0]  # np.rint goes through float64, which does not hold all of them
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(rule(*arrays)).astype(result.numpy)


def assert_same(actual: np.ndarray, wanted: np.ndarray, ulps: int = 0) -> None:
    """Equal bits, but that all NaNs are alike; or within some units in the last place."""
    assert actual.dtype == wanted.dtype
    if not dtype_of(actual.dtype).is_floating_point:
        np.testing.assert_array_equal(actual, wanted)
        return
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(actual), nan)
    a, w = actual[~nan], wanted[~nan]
    if ulps:
        with np.errstate(all="ignore"):
            near = np.abs(a.astype(np.longdouble) - w) <= ulps * np.spacing(np.abs(w)).astype(np.longdouble)
        np.testing.assert_array_equal(a[~near], w[~near])
        np.testing.assert_array_equal(np.signbit(a), np.signbit(w))
    else:
        bits = f"u{a.dtype.itemsize}"
        different = a.view(bits) != w.view(bits)
        np.testing.assert_array_equal(a[different], w[different])
        assert not different.any(), f"zeros of another sign: {a[different]}, not {w[different]}"


def map_kernels(name: str, out: tuple[Buffer, Buffer], extent: int, value) -> list[Loops]:
    """`value(i)` computed in lanes into out[0], and one at a time into out[1]."""
    kernels = []
    for buffer, lanes in zip(out, (LANES, 0)):
        i = Axis("i", extent)
        kernels.append(Loops(name, (), (Loop(i, (Store(buffer, i.value, value(i.value)),), lanes),), 1.0))
    return kernels


@pytest.mark.parametrize(("name", "dtype_name"), CASES)
def test_op(name, dtype_name):
    record, dtype = OPS[name], DTYPES[dtype_name]
    values = [numbers(bool_ if operand in record.keeps else dtype) for operand in record.operands]
    if name == "fmod" and not dtype.is_floating_point:
        values[1] = values[1][values[1] != 0]  # an error eagerly
    grid = np.meshgrid(*values, indexing="ij")
    arrays = [np.ascontiguousarray(a.reshape(-1)) for a in grid]
    result = record.infer(*(TensorType(bool_ if o in record.keeps else dtype, ()) for o in record.operands)).dtype
    size = arrays[0].size
    buffers = [Buffer(o, bool_ if o in record.keeps else dtype, size, "input") for o in record.operands]
    out = Buffer("lanes", result, size, "output"), Buffer("single", result, size, "output")
    kernels = map_kernels(name, out, size, lambda i: Expr(name, tuple(load(b, i) for b in buffers), result))
    memory = dict(zip(buffers, arrays)) | {b: np.zeros(size, result.numpy) for b in out}
    got = run_native(kernels, memory)
    wanted = expected(record, arrays, result)
    ulps = 4 if name in FUNCTIONS and dtype.is_floating_point else 0
    if name == "lgamma":
        ulps *= 8  # SciPy's are off where terms cancel
    for b in out:
        actual = got[b]
        if dtype.is_floating_point and name in ("maximum", "minimum"):  # which zero is up to NumPy's build
            actual, wanted = actual + dtype.numpy.type(0), wanted + dtype.numpy.type(0)
        assert_same(actual, wanted, ulps)


def converted(x: float, dtype: DType) -> int:
    """A float as an integer dtype: what it cannot hold is cut as on x86, on every machine."""
    wide = 32 if dtype.bits < 32 or dtype is int32 else 64
    if dtype.name == "uint64" and x >= 2.0**63:
        number = int(x) if x < 2.0**64 else 0
    elif math.isfinite(x) and -(1 << (wide - 1)) <= int(x) < 1 << (wide - 1):
        number = int(x)
    else:
        number = -(1 << (wide - 1))
    low = number % (1 << dtype.bits)
    return low - (1 << dtype.bits) if dtype.is_signed and low >> (dtype.bits - 1) else low


@pytest.mark.parametrize("source", [d for d in DTYPES.values() if d.has_code], ids=lambda d: d.name)
def test_cast(source):
    array = numbers(source)
    if source.is_floating_point:
        more = [2.0**31, -(2.0**31), 2.0**32, 2.0**63, 1.5 * 2.0**63, 1e19, 65519.9, 65520.0]
        more += [1 + 2.0**-11, 1 + 2.0**-11 + 2.0**-40, 2.0**-25, 1.0001 * 2.0**-25]  # halfway between halves, and beyond
        with np.errstate(all="ignore"):
            array = np.concatenate([array, np.array(more, source.numpy)])
    x = Buffer("x", source, array.size, "input")
    memory, kernels, outs = {x: array}, [], {}
    for target in [d for d in DTYPES.values() if d.has_code]:
        outs[target] = tuple(Buffer(f"{target.name}.{k}", target, array.size, "output") for k in ("lanes", "single"))
        memory |= {b: np.zeros(array.size, target.numpy) for b in outs[target]}
        kernels += map_kernels(f"to.{target.name}", outs[target], array.size, lambda i, t=target: cast(load(x, i), t))
    got = run_native(kernels, memory)
    for target, out in outs.items():
        if source.is_floating_point and target.kind in ("int", "uint"):
            wanted = np.array([converted(v, target) for v in array.astype(float).tolist()], target.numpy)
        else:
            with np.errstate(all="ignore"):
                wanted = array.astype(target.numpy)
        for b in out:
            assert_same(got[b], wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_division_by_one_number_is_exact(dtype: type) -> None:
    """Vectors are divided by a number that all lanes share by way of its reciprocal: to the same bits."""
    rng = np.random.default_rng(0)
    bits = np.uint32 if dtype is np.float32 else np.uint64
    most = np.iinfo(bits).max
    plain = rng.standard_normal((40, 96)).astype(dtype)
    special = np.resize(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 1e-310, 3e38, 1e308, 1.0], np.float64), (10, 96))
    with np.errstate(all="ignore"):
        x = np.concatenate([plain, np.exp(plain * 9).astype(dtype), rng.integers(0, most, (40, 96), bits).view(dtype),
                            special.astype(dtype)])  # fmt: skip
        by = np.concatenate([rng.standard_normal(40), np.exp(40 * rng.standard_normal(50)),
                             rng.integers(0, most, 30, bits).view(dtype), special[0]])  # fmt: skip
        by = by[: len(x), None].astype(dtype)
        want = x / by
    b = Builder("quotients")
    numbers, divisors = b.input("x", TensorType(dtype_of(dtype), x.shape)), b.input("by", TensorType(dtype_of(dtype), by.shape))
    third = b.input("y", TensorType(dtype_of(dtype), x.shape))
    graph = b.finish([numbers / ops.broadcast_to(divisors, x.shape), third / 3.0, third / 4.0, 1.0 / third])
    got = compile_graph(graph)(x, by, x)
    with np.errstate(all="ignore"):
        for g, w in zip(got, (want, x / dtype(3), x / dtype(4), dtype(1) / x), strict=True):
            different = (g.view(bits) != w.view(bits)) & ~(np.isnan(g) & np.isnan(w))
            assert not different.any(), (g[different][:3], w[different][:3])


@pytest.mark.parametrize("name", ["fmod", "remainder", "floor_divide"])
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_remainders_are_exact_whatever_the_quotient(name: str, dtype) -> None:
    rng, count, plain = np.random.default_rng(0), 20_000, dtype.numpy
    bits = rng.integers(0, 1 << 63, count, dtype=np.int64)
    some, small = rng.standard_normal(count) * 10, rng.standard_normal(count)
    ends = np.finfo(plain)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 2.5, ends.smallest_subnormal, ends.max])
    with np.errstate(all="ignore"):
        anything = bits.view(np.float64) if dtype is float64 else bits.astype(np.int32).view(np.float32)
        anything = (anything * rng.choice([-1, 1], count)).astype(plain)
        near = rng.permutation(anything)
        multiple = near * rng.integers(1, 1 << 21, count).astype(plain)
        pairs = [(anything, near), (some, small), (multiple, near), (np.nextafter(multiple, plain.type(0)), near),
                 (np.nextafter(multiple, plain.type(np.inf)), -near), (np.round(some * 99) / 8, np.full(count, 0.125)),
                 (np.repeat(special, len(special) * LANES), np.tile(np.repeat(special, LANES), len(special)))]
        for x, y in ((x.astype(plain), y.astype(plain)) for x, y in pairs):
            buffers = [Buffer(o, dtype, x.size, "input") for o in "xy"]
            out = Buffer("lanes", dtype, x.size, "output"), Buffer("single", dtype, x.size, "output")
            kernels = map_kernels(name, out, x.size, lambda i, b=buffers: Expr(name, tuple(load(v, i) for v in b), dtype))
            memory = dict(zip(buffers, (x, y))) | {b: np.zeros(x.size, plain) for b in out}
            got = run_native(kernels, memory)
            for b in out:
                assert_same(got[b], getattr(np, name)(x, y))
