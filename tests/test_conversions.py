"""16-bit floats on CPUs that have no instructions for them."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from graphc.backends.llvm import jit
from graphc.backends.llvm.jit import compile_module
from graphc.backends.llvm.target import Target
from graphc.config import override

CPUS = ["x86-64", "haswell", "native"] if Target.host().architecture == "x86_64" else ["generic", "native"]
SAMPLES = np.random.default_rng(0)


def convert(cpu: str, instruction: str, source: str, result: str, values: np.ndarray, dtype: type) -> np.ndarray:
    text = f"""; {instruction} {source} to {result}
    define void @convert(ptr %from, ptr %to, i64 %n) {{
    entry:
      br label %loop
    loop:
      %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]
      %p = getelementptr {source}, ptr %from, i64 %i
      %x = load {source}, ptr %p
      %y = {instruction} {source} %x to {result}
      %q = getelementptr {result}, ptr %to, i64 %i
      store {result} %y, ptr %q
      %i.next = add i64 %i, 1
      %more = icmp slt i64 %i.next, %n
      br i1 %more, label %loop, label %out
    out:
      ret void
    }}"""
    with override(cpu=cpu):
        module = compile_module(text, Target.host())
    results = np.empty(values.shape, dtype)
    pointer = ctypes.c_void_p
    module.function("convert", None, pointer, pointer, ctypes.c_int64)(values.ctypes.data, results.ctypes.data, values.size)
    return results


def between(exact: np.ndarray) -> np.ndarray:
    """The numbers themselves, the points halfway to the next, and what lies just beside each."""
    points = np.concatenate([exact, (exact[1:] + exact[:-1]) / 2])
    return np.concatenate([points, np.nextafter(points, np.inf), np.nextafter(points, -np.inf)])


ALL_HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
FINITE_HALVES = np.sort(ALL_HALVES[np.isfinite(ALL_HALVES)])
ODDITIES = [0.0, -0.0, np.inf, -np.inf, np.nan, 65519.99, 65520.0, 65536.0, 1e30, -1e30, 1e-40, 5e-324, 2.0**-25, 2.0**-24]


def same(got: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    bits = np.dtype(f"u{expected.itemsize}")
    numbers = ~np.isnan(expected)
    assert np.array_equal(got[numbers].view(bits), expected[numbers].view(bits))


@pytest.mark.parametrize("cpu", CPUS)
def test_half_to_single(cpu: str) -> None:
    same(convert(cpu, "fpext", "half", "float", ALL_HALVES, np.float32), ALL_HALVES.astype(np.float32))
    same(convert(cpu, "fpext", "half", "double", ALL_HALVES, np.float64), ALL_HALVES.astype(np.float64))


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(("source", "dtype"), [("float", np.float32), ("double", np.float64)])
def test_to_half(cpu: str, source: str, dtype: type) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        random_bits = SAMPLES.integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32).astype(dtype)
        values = np.concatenate(
            [between(FINITE_HALVES.astype(dtype)), np.array(ODDITIES, dtype), -np.array(ODDITIES, dtype), random_bits]
        )
        same(convert(cpu, "fptrunc", source, "half", values, np.float16), values.astype(np.float16))


def nearest_bfloat(value: float) -> int:
    """The bits of the nearest bfloat16 in exact arithmetic, of two the even one; value is positive and finite."""
    below = int(np.float32(value).view(np.uint32) >> 16)
    while widen(below) > value:
        below -= 1
    while widen(below + 1) <= value:
        below += 1
    upper = float(2**128) if np.isinf(widen(below + 1)) else widen(below + 1)
    if value - widen(below) == upper - value:
        return below + (below & 1)
    return below if value - widen(below) < upper - value else below + 1


def widen(bits: int) -> float:
    return float(np.uint32(bits << 16).view(np.float32))


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(("source", "dtype"), [("float", np.float32), ("double", np.float64)])
def test_to_bfloat16(cpu: str, source: str, dtype: type) -> None:
    with np.errstate(over="ignore"):
        starts = np.concatenate([[0, 1, 2, 0x7F, 0x80, 0x3F7F, 0x3F80, 0x7F7E], SAMPLES.integers(0, 0x7F7F, 2000)])
        exact = np.concatenate([[widen(int(bits)), widen(int(bits) + 1)] for bits in starts]).astype(dtype)
        points = [between(exact[i : i + 2]) for i in range(0, exact.size, 2)]
        values = np.concatenate([*points, np.array([widen(0x7F7F), 3.3961775e38, 3.4e38, 1e-45], dtype)])
    values = values[(values >= 0) & np.isfinite(values)]
    expected = np.array([nearest_bfloat(float(value)) for value in values], np.uint16)
    # Results below the least normal number are flushed to zero by the native instructions, which round as bfloat16 does.
    normal = values >= 2.0**-126 if cpu == "native" else np.ones(values.shape, bool)
    got = convert(cpu, "fptrunc", source, "bfloat", values, np.uint16)
    assert np.array_equal(got[normal], expected[normal])
    negative = convert(cpu, "fptrunc", source, "bfloat", -values, np.uint16)
    assert np.array_equal(negative[normal], (expected | 0x8000)[normal])
    nans = np.array([np.nan, -np.nan, np.inf, -np.inf], dtype)
    bits = convert(cpu, "fptrunc", source, "bfloat", nans, np.uint16)
    assert np.all(bits[:2] & 0x7FC0 == 0x7FC0)
    assert bits[2:].tolist() == [0x7F80, 0xFF80]


def test_the_names_are_those_that_the_file_defines() -> None:
    text = (Path(jit.__file__).parent / "conversions.ll").read_text()
    defined = {line.split("@")[1].split("(")[0] for line in text.splitlines() if line.startswith("define") and "__" in line}
    assert defined == set(jit.CONVERSIONS)
