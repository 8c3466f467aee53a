"""How far compiled elementwise functions are from the true value, over all float32 numbers.

    python tests/accuracy.py                        # every function, each of its 2^32 arguments: minutes a function
    python tests/accuracy.py tanh erf --step 1000   # every 1000th argument: a second a function
    python tests/accuracy.py --log accuracy.jsonl   # takes up where it was stopped, as long as the code is the same

The reference is NumPy's or SciPy's function in double precision, whose own error is below 1e-6 of a float32's last place.
An error is counted in units in the last place of the true value; an infinity counts as the power of two beyond the largest
number; a NaN or a sign where it is not due counts as an infinite error. So 2.5 is two from the correctly rounded value.
Functions of two numbers have too many arguments: of them all pairs of some hundred telling numbers are taken, and a million
drawn pairs.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.backend import Executable
from graphc.compiler import executable
from graphc.config import override
from graphc.ir import Builder, Node
from graphc.op import OPS
from graphc.types import TensorType, float32

CHUNK = 1 << 16
"""Numbers at a time: what is computed of them stays in a level-2 cache."""
ARGUMENTS = 1 << 32
SLICES = 64
"""A function's arguments are walked, and written to the log, in so many parts."""
LARGEST = 2.0**128
"""What an infinity counts as."""

Reference = Callable[..., np.ndarray]


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, np.zeros((), x.dtype))


def _sign(x: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x), 0.0, np.sign(x))  # as PyTorch's


def _entropy(x: np.ndarray) -> np.ndarray:
    return np.where(x == 0, 0.0, np.where(x < 0, -np.inf, -x * np.log(x)))


def _erfinv(x: np.ndarray) -> np.ndarray:
    inside = np.abs(x) <= 1  # SciPy takes long elsewhere, and has no -0
    return np.where(inside, np.copysign(scipy.special.erfinv(np.where(inside, x, 0)), x), np.nan)


def _lgamma(x: np.ndarray) -> np.ndarray:
    return np.where((x < 0) & (x == np.floor(x)), np.inf, scipy.special.gammaln(x))  # SciPy has no poles far left of zero


def _floor_divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # NumPy's and PyTorch's algorithm, which is one too low or high itself where the quotient has more bits than float32
    return np.floor_divide(x.astype(np.float32), y.astype(np.float32))


UNARY: Mapping[str, Reference] = {
    **{name: getattr(np, name) for name in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan")},
    **{name: getattr(np, name) for name in ("sinh", "cosh", "tanh", "sqrt", "floor", "ceil", "trunc", "abs")},
    **{name: getattr(np, "arc" + name[1:]) for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh")},
    "conj": np.positive,
    "entr": _entropy,
    "erf": scipy.special.erf,
    "digamma": scipy.special.psi,
    "erfc": scipy.special.erfc,
    "erfinv": _erfinv,
    "lgamma": _lgamma,
    "neg": np.negative,
    "relu": _relu,
    "round": np.rint,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sign": _sign,
    "stop_gradient": np.positive,
}
"""The functions of one number that compiled code has code for, in double precision."""

BINARY: Mapping[str, Reference] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "atan2": np.arctan2,
    "copysign": np.copysign,
    "floor_divide": _floor_divide,
    "fmod": np.fmod,
    "hypot": np.hypot,
    "logaddexp": np.logaddexp,
    "logaddexp2": np.logaddexp2,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "pow": np.power,
    "remainder": np.remainder,
    "xlog1py": scipy.special.xlog1py,
    "xlogy": scipy.special.xlogy,
}
"""Those of two."""

OF_OPERANDS = frozenset(("logaddexp", "logaddexp2"))
"""Sums that may cancel: their errors are counted in last places of the largest of result and operands."""


@dataclass(frozen=True)
class Worst:
    """The largest error of a function in units in the last place, and the arguments that have it."""

    ulp: float = 0.0
    at: tuple[float, ...] = ()

    def __str__(self) -> str:
        places = ", ".join(f"{x!r} ({np.float32(x).view(np.uint32):#010x})" for x in self.at)
        return f"{self.ulp:.3f} ulp" + (f" at {places}" if self.at else "")


def compiled(name: str, length: int, cpu: str) -> Executable:
    """The op `name` on vectors of so many float32 numbers, as code for a CPU."""
    record, type_ = OPS[name], TensorType(float32, (length,))
    builder = Builder(name, locations=False)
    node: Node = builder.append(record, [builder.input(None, type_) for _ in record.operands], {}, (type_,))
    with override(cpu=cpu):
        return executable(builder.finish(node.results), backend="llvm")


def errors(result: np.ndarray, exact: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """The distance of float32 numbers from those in double precision, in units in the last place of the latter, or of those of
    `scale`; then small numbers may have either sign."""
    unit = ((exact if scale is None else scale).view(np.int64) & 0x7FF0_0000_0000_0000).view(np.float64)
    np.clip(unit, 2.0**-126, 2.0**127, out=unit)
    unit *= 2.0**-23
    found = result.astype(np.float64)
    np.clip(found, -LARGEST, LARGEST, out=found)
    found -= np.clip(exact, -LARGEST, LARGEST)
    np.abs(found, out=found)
    found /= unit
    no_number = np.isnan(found)
    found[no_number] = 0.0
    wrong = np.isnan(result) != np.isnan(exact)
    if scale is None:
        wrong |= (np.signbit(result) != np.signbit(exact)) & ~no_number
    found[wrong] = math.inf
    return found


class Function:
    """An op as code for several CPUs, and its reference."""

    def __init__(self, name: str, cpus: Sequence[str], length: int = CHUNK) -> None:
        self.name = name
        self.length = length
        self.reference = UNARY.get(name) or BINARY[name]
        self.code = {cpu: compiled(name, length, cpu) for cpu in cpus}

    def worst(self, batches: Iterator[tuple[np.ndarray, ...]]) -> dict[str, Worst]:
        """The largest error of each CPU's code over batches of `length` arguments."""
        found = dict.fromkeys(self.code, Worst())
        result = np.empty(self.length, np.float32)
        for arguments in batches:
            with np.errstate(all="ignore"):
                exact = np.asarray(self.reference(*(x.astype(np.float64) for x in arguments)), np.float64)
                scale = np.max(np.abs([exact, *arguments]), axis=0) if self.name in OF_OPERANDS else None
                seen: dict[bytes, tuple[float, int]] = {}
                for cpu, code in self.code.items():
                    code.run(arguments, [result])
                    bits = result.tobytes()
                    if bits not in seen:  # CPUs mostly agree
                        distances = errors(result, exact, scale)
                        place = int(distances.argmax())
                        seen[bits] = (float(distances[place]), place)
                    ulp, place = seen[bits]
                    if ulp > found[cpu].ulp:
                        found[cpu] = Worst(ulp, tuple(float(x[place]) for x in arguments))
        return found


def every(start: int, stop: int, step: int, length: int = CHUNK) -> Iterator[tuple[np.ndarray, ...]]:
    """The float32 numbers whose bits, read as an integer, are in range(start, stop, step), in batches; the last of which
    goes on beyond `stop`."""
    offsets = np.arange(length, dtype=np.int64) * step
    for first in range(start, stop, length * step):
        yield ((offsets + first).astype(np.uint32).view(np.float32),)


def telling_numbers() -> np.ndarray:
    """Numbers at which functions of two arguments have something to get wrong: bounds of the format, whole numbers and their
    neighbours, halves, what is next to 1, and all of them negative."""
    info = np.finfo(np.float32)
    whole = [1, 2, 3, 4, 5, 7, 10, 17, 100, 255, 1023, 4095, 2.0**23 - 1, 2.0**23, 2.0**24 - 1, 2.0**24, 2.0**31, 2.0**63]
    small = [info.smallest_subnormal, 3 * info.smallest_subnormal, info.tiny / 2, info.tiny, info.tiny * 1.5, 1e-30, 1e-9]
    other = [0.0, 0.1, 0.25, 0.5, 0.75, 1.5, 2.5, 1 / 3, math.e, math.pi, 88.7, 127.5, 2.0**22 + 0.5, 1e10, 1e20, 1e30]
    numbers = np.array([*whole, *small, *other, info.max / 2, info.max, math.inf], np.float32)
    with np.errstate(over="ignore"):
        beside = [np.nextafter(numbers, np.float32(0)), np.nextafter(numbers, np.float32(math.inf))]
    positive = np.unique(np.concatenate([numbers, *beside]))
    return np.concatenate([positive, -positive, [math.nan]]).astype(np.float32)


def pairs(name: str, drawn: int, length: int = CHUNK) -> Iterator[tuple[np.ndarray, ...]]:
    """Arguments of a function of two numbers: all pairs of telling ones, and as many drawn ones as asked for."""
    rng = np.random.default_rng(len(name))
    numbers = telling_numbers()
    x, y = (np.ravel(a) for a in np.meshgrid(numbers, numbers))
    for start in range(0, len(x), length):
        yield tuple(np.resize(a[start : start + length], length) for a in (x, y))
    for number in range(-(-drawn // length)):
        anything = rng.integers(0, ARGUMENTS, (2, length), dtype=np.uint32).view(np.float32)
        usual = (rng.standard_normal((2, length)) * 10.0 ** rng.uniform(-3, 3, (2, length))).astype(np.float32)
        near = (usual[0] * (1 + rng.standard_normal(length) * 10.0 ** rng.uniform(-7, 0, length))).astype(np.float32)
        # so that x^y is anywhere in the format's range
        base = np.exp(rng.uniform(-88, 88, length) * 10.0 ** rng.uniform(-8, 0, length)).astype(np.float32)
        with np.errstate(all="ignore"):
            exponent = (rng.uniform(-104, 89, length) / np.log(base.astype(np.float64))).astype(np.float32)
        kinds: list[tuple[np.ndarray, ...]] = [tuple(anything), tuple(usual), (usual[0], near), (base, exponent)]
        yield kinds[number % len(kinds)]


def _finished(log: Path | None) -> dict[tuple[str, str, int], Worst]:
    """What an earlier run has found: by function, CPU and slice."""
    if log is None or not log.exists():
        return {}
    records: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    return {(r["function"], r["cpu"], r["slice"]): Worst(r["ulp"], tuple(r["at"])) for r in records}


def walk(name: str, cpus: Sequence[str], step: int, log: Path | None = None) -> dict[str, Worst]:
    """The largest error of a function over every `step`th argument."""
    if name in BINARY:
        return Function(name, cpus).worst(pairs(name, max(1 << 20, ARGUMENTS // step // 256)))
    if step > 1:
        return Function(name, cpus).worst(every(0, ARGUMENTS, step))
    done = _finished(log)
    function: Function | None = None
    found = dict.fromkeys(cpus, Worst())
    width = ARGUMENTS // SLICES
    for number in range(SLICES):
        here = {cpu: done[name, cpu, number] for cpu in cpus if (name, cpu, number) in done}
        if len(here) < len(cpus):
            function = function or Function(name, cpus)
            here = function.worst(every(number * width, (number + 1) * width, step))
            if log is not None:
                with log.open("a") as file:
                    for cpu, worst in here.items():
                        record = {"function": name, "cpu": cpu, "slice": number, "ulp": worst.ulp, "at": worst.at}
                        file.write(json.dumps(record) + "\n")
        found = {cpu: max(found[cpu], here[cpu], key=lambda worst: worst.ulp) for cpu in cpus}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("function", nargs="*", help=f"one of {', '.join([*UNARY, *BINARY])}; all of them if none is named")
    parser.add_argument("--step", type=int, default=1, help="take every so many arguments")
    parser.add_argument("--cpus", default="native", help="CPUs to make code for, as GRAPHC_CPU names them: native,x86-64")
    parser.add_argument("--log", type=Path, help="keep what is found there, part by part, and skip what it holds")
    options = parser.parse_args()
    for name in options.function or [*UNARY, *BINARY]:
        start = time.perf_counter()
        for cpu, worst in walk(name, options.cpus.split(","), options.step, options.log).items():
            print(f"{name:<14} {cpu:<10} {worst}", flush=True)
        print(f"{name:<14} {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
