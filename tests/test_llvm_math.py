"""The vectorised elementary functions against mpmath, in units in the last place, on each kind of CPU there is here."""

from __future__ import annotations

import ctypes
import itertools
import math
import re
from collections.abc import Callable
from functools import cache

import llvmlite.binding as llvm
import minimax
import numpy as np
import pytest
from mpmath import mp, mpf

from graphc.backends.llvm import math as llvm_math
from graphc.backends.llvm import math_arc, math_erf, math_exp, math_gamma, math_log, math_pow, math_trig
from graphc.backends.llvm.builder import Function, Module, vector
from graphc.backends.llvm.target import Target

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

FORMATS = {"float": np.float32, "double": np.float64}
NAMES = sorted(llvm_math.FUNCTIONS)
BINARY = {"pow", "atan2"}
ON_X86 = llvm.get_process_triple().startswith(("x86_64", "i386", "i686"))
HOST_FEATURES = llvm.get_host_cpu_features()
HOST_HAS_FMA = not ON_X86 or HOST_FEATURES.get("fma", False)

# cpu, features, whether it has an FMA
TARGETS = {"host": (llvm.get_host_cpu_name(), HOST_FEATURES.flatten() + ",-prefer-256-bit", HOST_HAS_FMA)}
if ON_X86:
    TARGETS["x86-64"] = ("x86-64", "", False)
if ON_X86 and HOST_FEATURES.get("avx2", False) and HOST_HAS_FMA:
    TARGETS["x86-64-v3"] = ("x86-64-v3", "", True)

# The largest errors that are let pass, in units in the last place
WITH_FMA = {"sigmoid": 2.5, "lgamma": 2.25}
WITHOUT_FMA = {**WITH_FMA, "erfinv": 2.5, "erfc": 2.25, "sin": 2.5, "cos": 2.5, "atan": 2.25, "atan2": 2.25}
DEFAULT_BOUND = 1.9


def kernel(name: str, scalar: str, width: int, has_fma: bool, vector_bytes: int = 16) -> str:
    """A module whose function "kernel" (n, x, y, result) runs `name` over n elements, `width` at a time."""
    module = Module(name, has_fma, vector_bytes)
    pointers = [("ptr", "x"), ("ptr", "y"), ("ptr", "result")]
    f = module.function("kernel", [("i64", "n"), *pointers], attributes='nounwind "prefer-vector-width"="512"')
    type_ = vector(scalar, width)

    def element(array: str, index: str) -> str:
        return f.value(f"getelementptr {scalar}, ptr %{array}, i64 {index}")

    with f.loop("0", "%n", str(width)) as i:
        arrays = ("x", "y") if name in BINARY else ("x",)
        args = [f.value(f"load {type_}, ptr {element(array, i)}, align 4") for array in arrays]
        result = llvm_math.emit(f, name, scalar, width, *args)
        f.do(f"store {type_} {result}, ptr {element('result', i)}, align 4")
    f.do("ret void")
    return str(module)


def optimised(text: str, triple: str, cpu: str, features: str, **options: str) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    module = llvm.parse_assembly(text)
    module.triple = triple
    module.verify()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2, **options)
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    return module, machine


@cache
def function(name: str, scalar: str, width: int, target: str) -> Callable[..., np.ndarray]:
    cpu, features, has_fma = TARGETS[target]
    text = kernel(name, scalar, width, has_fma, Target.host().vector_bytes if target == "host" else 16)
    module, machine = optimised(text, llvm.get_process_triple(), cpu, features)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    native = prototype(engine.get_function_address("kernel"))

    def run(*args: np.ndarray) -> np.ndarray:
        padded = [np.concatenate([arg, np.ones(-len(arg) % 64, arg.dtype)]).astype(FORMATS[scalar]) for arg in args]
        result = np.empty_like(padded[0])
        native(len(result), padded[0].ctypes.data, padded[-1].ctypes.data, result.ctypes.data)
        return result[: len(args[0])]

    run.engine = engine  # the code lives as long as the engine
    return run


def sigmoid(x: mpf) -> mpf:
    return 1 / (1 + mp.exp(-x)) if x > -1000 else mp.exp(x)


def erfinv(x: mpf) -> mpf:
    with mp.workprec(250):
        return mp.erfinv(x) if abs(x) > 1e-30 else x * mp.sqrt(mp.pi) / 2


REFERENCE: dict[str, Callable[..., mpf]] = {
    **{name: getattr(mp, name) for name in ("exp", "expm1", "log", "log10", "log1p", "sin", "cos", "tan", "asin")},
    **{name: getattr(mp, name) for name in ("acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh")},
    **{name: getattr(mp, name) for name in ("atanh", "erf")},
    "erfc": lambda x: mp.erfc(max(x, mpf(-1000))) if x < 1000 else mpf(0),  # mpmath overflows far out
    "digamma": mp.digamma,
    "erfinv": erfinv,
    "exp2": lambda x: mpf(2) ** x,
    "lgamma": lambda x: mp.re(mp.loggamma(x)),
    "log2": lambda x: mp.log(x, 2),
    "pow": lambda x, y: mp.power(x, y),
    "rsqrt": lambda x: 1 / mp.sqrt(x),
    "sigmoid": sigmoid,
}

# Where the function is defined, and where most of the arguments are drawn from
DOMAIN = {
    # lgamma and digamma left of 0, where they have poles and zeros, are a test of their own
    **dict.fromkeys(("log", "log2", "log10", "rsqrt", "lgamma", "digamma"), (0, math.inf)),
    **dict.fromkeys(("asin", "acos", "erfinv"), (-1, 1)),
    "log1p": (-1, math.inf),
    "acosh": (1, math.inf),
    "atanh": (-1, 1),
    "pow": (0, math.inf),
}
INTERVALS = {
    **{name: {"float": (-105, 90), "double": (-750, 711)} for name in ("exp", "expm1", "sinh", "cosh")},
    "exp2": {"float": (-151, 129), "double": (-1076, 1025)},
    "sigmoid": {"float": (-105, 30), "double": (-750, 50)},
    "erfc": {"float": (-4, 10.1), "double": (-6, 27.3)},
    **{name: {"float": (-5000, 5000), "double": (-50000, 50000)} for name in ("sin", "cos", "tan")},
}


def hard_arguments(name: str) -> list[float]:
    """Arguments near the roots, poles and switching points that a random one misses."""
    if name in ("sin", "cos", "tan"):
        multiples = [k * math.pi / 2 for k in (1, 2, 3, 4, 355 // 2, 355, 10**6 + 1, 2**30 + 1, 10**15)]
        # the double nearest of all to a multiple of pi / 2, and some beyond each bound of the reduction
        return [*multiples, 6381956970095103.0 * 2.0**797, 2.0**12 + 1, 2.0**17 + 1, 2.0**20 + 1, 2.0**30 + 1, 1e22, 1e300]
    switches = (0.25, 0.3465, 0.3466, 0.5, 0.55, 0.75, 0.85, 1.0, math.sqrt(0.5), math.sqrt(2), 2.0, 4.0, 6.0)
    if name in ("lgamma", "digamma"):
        switches = (*switches, 1.4616321449683623, 1.5, 2.5, 3.0, 3.5, 4.5)
    return [sign * s * (1 + step * 2.0**-20) for s in switches for step in (-1, 0, 1) for sign in (-1, 1)]


@cache
def cases(name: str, scalar: str) -> tuple[tuple[np.ndarray, ...], list[mpf]]:
    """Arguments in the function's domain, and its exact values there."""
    rng = np.random.default_rng([NAMES.index(name), len(scalar)])
    dtype = FORMATS[scalar]
    low, high = DOMAIN.get(name, (-math.inf, math.inf))
    left, right = INTERVALS.get(name, {scalar: (max(low, -8), min(high, 8))})[scalar]

    def draw() -> np.ndarray:
        info = np.iinfo(np.int32 if scalar == "float" else np.int64)
        patterns = rng.integers(info.min, info.max, 400, dtype=info.dtype).view(dtype)
        near_one = (1 + rng.uniform(-1, 1, 100) * 10 ** rng.uniform(-7, 0, 100)) * rng.choice([-1, 1], 100)
        drawn = [patterns, rng.uniform(left, right, 500), rng.uniform(-2, 2, 300), near_one, hard_arguments(name)]
        return np.concatenate([part.astype(dtype) for part in map(np.asarray, drawn)])

    with np.errstate(over="ignore"):
        args = [draw(), rng.permutation(draw())] if name in BINARY else [draw()]
    inside = np.isfinite(args).all(axis=0) & (args[0] > low) & (args[0] < high) & (np.array(args) != 0).all(axis=0)
    args = [arg[inside] for arg in args]
    with mp.workprec(120):
        values = [REFERENCE[name](*map(mpf, map(float, each))) for each in zip(*args)]
    return tuple(args), values


def errors(result: np.ndarray, exact: list[mpf]) -> np.ndarray:
    """The distance of each result from the exact value, in units of that value's last place; an infinity counts as the
    power of two beyond the largest number."""
    info = np.finfo(result.dtype)
    limit = mpf(2) ** int(info.maxexp)
    found = []
    for number, value in zip(result, exact):
        value = max(-limit, min(limit, value))
        exponent = value.man.bit_length() + value.exp - 1 if value else int(info.minexp)
        unit = mpf(2) ** (min(max(exponent, int(info.minexp)), int(info.maxexp) - 1) - int(info.nmant))
        got = mpf(float(number)) if np.isfinite(number) else (math.nan if np.isnan(number) else limit * np.sign(number))
        error = float(abs(got - value) / unit)
        if value and np.signbit(number) != (value < 0):
            error = math.inf
        found.append(error if error == error else math.inf)
    return np.array(found)


@pytest.mark.parametrize("target", ["host", "x86-64"])
@pytest.mark.parametrize("scalar", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_accuracy(name, scalar, target):
    if target not in TARGETS:
        pytest.skip("not an x86 CPU")
    args, exact = cases(name, scalar)
    found = errors(function(name, scalar, 8, target)(*args), exact)
    bounds = WITH_FMA if TARGETS[target][2] else WITHOUT_FMA
    worst = int(found.argmax())
    assert found[worst] <= bounds.get(name, DEFAULT_BOUND), [arg[worst] for arg in args]


@pytest.mark.parametrize("scalar", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_every_width_and_cpu_with_an_fma_gives_the_same_bits(name, scalar):
    args, _ = cases(name, scalar)
    expected = function(name, scalar, 8, "host")(*args)
    for width in (1, 4, 16, 64):
        np.testing.assert_array_equal(function(name, scalar, width, "host")(*args), expected, err_msg=f"width {width}")
    if HOST_HAS_FMA and "x86-64-v3" in TARGETS:
        np.testing.assert_array_equal(function(name, scalar, 8, "x86-64-v3")(*args), expected)


@pytest.mark.parametrize("scalar", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_every_width_without_an_fma_gives_the_same_bits(name, scalar):
    if "x86-64" not in TARGETS:
        pytest.skip("not an x86 CPU")
    args, _ = cases(name, scalar)
    expected = function(name, scalar, 8, "x86-64")(*args)
    for width in (1, 4):
        np.testing.assert_array_equal(function(name, scalar, width, "x86-64")(*args), expected, err_msg=f"width {width}")


inf, nan = math.inf, math.nan
SPECIAL_VALUES = {
    "exp": [(0.0, 1), (-0.0, 1), (inf, inf), (-inf, 0)],
    "exp2": [
        (0.0, 1),
        (-0.0, 1),
        (inf, inf),
        (-inf, 0),
        (10, 1024),
        (-3, 0.125),
        (127, 2.0**127),
        (-126, 2.0**-126),
        (-149, 2.0**-149),
    ],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -1)],
    "log": [(1, 0), (0.0, -inf), (-0.0, -inf), (inf, inf), (-inf, nan), (-1, nan), (-1e-40, nan)],
    "log2": [(1, 0), (0.0, -inf), (-0.0, -inf), (inf, inf), (-inf, nan), (-1, nan), (1024, 10), (2.0**-149, -149)],
    "log10": [(1, 0), (0.0, -inf), (-0.0, -inf), (inf, inf), (-inf, nan), (-1, nan)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1, -inf), (inf, inf), (-inf, nan), (-2, nan)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (inf, nan), (-inf, nan)],
    "cos": [(0.0, 1), (-0.0, 1), (inf, nan), (-inf, nan)],
    "tan": [(0.0, 0.0), (-0.0, -0.0), (inf, nan), (-inf, nan)],
    "asin": [(0.0, 0.0), (-0.0, -0.0), (1, math.pi / 2), (-1, -math.pi / 2), (1.001, nan), (inf, nan), (-inf, nan)],
    "acos": [
        (1, 0.0),
        (-1, math.pi),
        (0.0, math.pi / 2),
        (-0.0, math.pi / 2),
        (1.001, nan),
        (-1.001, nan),
        (inf, nan),
        (-inf, nan),
    ],
    "atan": [(0.0, 0.0), (-0.0, -0.0), (1, math.pi / 4), (-1, -math.pi / 4), (inf, math.pi / 2), (-inf, -math.pi / 2)],
    "sinh": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf)],
    "cosh": [(0.0, 1), (-0.0, 1), (inf, inf), (-inf, inf)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (inf, 1), (-inf, -1), (30, 1), (-30, -1)],
    "asinh": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf)],
    "acosh": [(1, 0.0), (inf, inf), (0.999, nan), (0.0, nan), (-1, nan), (-2, nan), (-inf, nan)],
    "atanh": [(0.0, 0.0), (-0.0, -0.0), (1, inf), (-1, -inf), (1.001, nan), (-2, nan), (inf, nan), (-inf, nan)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (inf, 1), (-inf, -1), (7, 1), (-7, -1)],
    "erfc": [(0.0, 1), (-0.0, 1), (inf, 0.0), (-inf, 2), (40, 0.0), (-7, 2)],
    "erfinv": [(0.0, 0.0), (-0.0, -0.0), (1, inf), (-1, -inf), (1.001, nan), (-2, nan), (inf, nan), (-inf, nan)],
    "lgamma": [
        *((x, inf) for x in (0.0, -0.0, -1, -2, -1001, -(2.0**40), -(2.0**100), inf, -inf)),
        (1, 0.0),
        (2, 0.0),
    ],
    "digamma": [(0.0, -inf), (-0.0, inf), (inf, inf), *((x, nan) for x in (-1, -2, -1001, -(2.0**40), -(2.0**100), -inf))],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (inf, 1), (-inf, 0.0), (50, 1)],
    "rsqrt": [(1, 1), (4, 0.5), (0.0, inf), (-0.0, -inf), (inf, 0.0), (-1, nan), (-inf, nan)],
}


def assert_identical(result: np.ndarray, expected: np.ndarray, *args: np.ndarray) -> None:
    """The same numbers, zeros with the same sign, NaNs where NaNs are due."""
    same = np.where(np.isnan(expected), np.isnan(result), (result == expected) & ~(np.signbit(result) ^ np.signbit(expected)))
    assert same.all(), list(zip(*(each[~same] for each in (*args, result, expected)), strict=True))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scalar", FORMATS)
@pytest.mark.parametrize("name", sorted(set(NAMES) - BINARY))
def test_special_values(name, scalar, target):
    x, expected = np.array([*SPECIAL_VALUES[name], (nan, nan)], FORMATS[scalar]).T
    assert_identical(function(name, scalar, 8, target)(x), expected, x)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scalar", FORMATS)
def test_special_values_of_pow(scalar, target):
    """C11, F.10.4.4."""
    dtype = FORMATS[scalar]
    largest, smallest = float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)
    precision = np.finfo(dtype).nmant + 1
    parity = (2.0 ** (precision - 1) + 1, 2.0**precision, 2.0 ** (precision - 2) + 0.5)
    numbers = [0.0, 0.5, 1, 1.5, 2, 3, 4, 5, inf, largest, smallest, 1 + 2.0**-23, 1 - 2.0**-23, *parity]
    numbers = [*numbers, *(-each for each in numbers), nan]
    x, y = np.array(list(itertools.product(numbers, numbers)), dtype).T
    with np.errstate(all="ignore"):
        expected = np.power(x.astype(np.float64), y.astype(np.float64)).astype(dtype)
    result = function("pow", scalar, 8, target)(x, y)
    exact = np.isnan(expected) | np.isinf(expected) | np.isin(np.abs(expected), (0, 1))
    assert_identical(result[exact], expected[exact], x[exact], y[exact])
    np.testing.assert_allclose(result[~exact], expected[~exact], rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scalar", FORMATS)
def test_special_values_of_atan2(scalar, target):
    """C11, F.10.1.4."""
    dtype = FORMATS[scalar]
    numbers = [0.0, 1.0, 3.0, inf, float(np.finfo(dtype).max), float(np.finfo(dtype).smallest_subnormal)]
    numbers = [*numbers, *(-each for each in numbers), nan]
    y, x = np.array(list(itertools.product(numbers, numbers)), dtype).T
    with np.errstate(under="ignore"):
        expected = np.arctan2(y.astype(np.float64), x.astype(np.float64)).astype(dtype)
    result = function("atan2", scalar, 8, target)(y, x)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(result[numbers]), np.signbit(expected[numbers]))
    np.testing.assert_array_max_ulp(result[numbers], expected[numbers], 1)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scalar", FORMATS)
@pytest.mark.parametrize("name", ["exp", "exp2", "expm1", "sinh", "cosh"])
def test_overflow_where_it_is_due(name, scalar, target):
    info = np.finfo(FORMATS[scalar])
    largest = mpf(float(info.max))
    inverse = {"exp": mp.log, "exp2": lambda x: mp.log(x, 2), "expm1": mp.log1p, "sinh": mp.asinh, "cosh": mp.acosh}[name]
    edge = FORMATS[scalar](float(inverse(largest)))
    x = np.concatenate([edge * (1 - np.arange(2, 8) * info.eps), edge * (1 + np.arange(2, 8) * info.eps)])
    result = function(name, scalar, 8, target)(x.astype(FORMATS[scalar]))
    assert np.isfinite(result[:6]).all()
    assert np.isinf(result[6:]).all()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scalar", FORMATS)
@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_gamma_functions_left_of_zero(name, scalar, target):
    """Single precision to the last place, near the zeros as well; double precision there to that of the terms that cancel."""
    rng = np.random.default_rng(7)
    near_integers = -rng.integers(0, 40, 300) + rng.choice([-1, 1], 300) * 10 ** rng.uniform(-12, -1, 300)
    zeros = [-0.504083008264455, -1.573498473162390, -10.70250014, -2.457024738220, -2.747682646, -3.143580889, -39.9999999]
    tiny = -(10 ** rng.uniform(-35, 0, 200))
    drawn = [rng.uniform(-12, 0, 600), rng.uniform(-2000, 0, 300), -(10 ** rng.uniform(1, 8, 200)), near_integers, tiny, zeros]
    x = np.concatenate(drawn).astype(FORMATS[scalar])
    x = x[x != np.rint(x)]
    with mp.workprec(200):
        exact = [REFERENCE[name](mpf(float(each))) for each in x]
        terms = np.array([float(abs(REFERENCE[name](mpf(float(abs(each))))) + 1) for each in x])
    result = function(name, scalar, 8, target)(x)
    if scalar == "float":
        assert errors(result, exact).max() < 0.6
    found = [float(abs(mpf(float(got)) - value) / (abs(value) + term)) for got, value, term in zip(result, exact, terms)]
    assert max(found) < 5 * np.finfo(FORMATS[scalar]).epsneg


@pytest.mark.parametrize("target", TARGETS)
def test_subnormal_results_and_arguments(target):
    assert function("exp", "float", 8, target)(np.float32([-100.0]))[0] == np.float32(3.783505853677006e-44)
    assert function("exp", "double", 8, target)(np.array([-740.0]))[0] == math.exp(-740.0)
    assert function("sigmoid", "float", 8, target)(np.float32([-100.0]))[0] == np.float32(3.783505853677006e-44)
    for scalar, dtype in FORMATS.items():
        tiny = np.arange(1, 65) * np.finfo(dtype).smallest_subnormal * dtype([1, -1] * 32)
        for name in ("expm1", "log1p", "sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh"):
            assert_identical(function(name, scalar, 8, target)(tiny), tiny, tiny)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scalar", FORMATS)
def test_odd_functions_and_their_bounds(scalar, target):
    rng = np.random.default_rng(0)
    for name in ("sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf", "erfinv"):
        x = (rng.uniform(-1, 1, 4096) * 2.0 ** rng.integers(-30, 60, 4096)).astype(FORMATS[scalar])
        run = function(name, scalar, 8, target)
        result = run(x)
        np.testing.assert_array_equal(run(-x), -result, err_msg=name)
        if name in ("sin", "tanh", "erf"):
            assert np.abs(result).max() <= 1
    x = rng.uniform(-50, 50, 4096).astype(FORMATS[scalar])
    assert np.abs(function("cos", scalar, 8, target)(x)).max() <= 1
    within = function("sigmoid", scalar, 8, target)(x)
    assert within.min() > 0
    assert within.max() <= 1


@pytest.mark.parametrize(
    ("triple", "cpu", "has_fma"),
    [
        ("x86_64-unknown-linux-gnu", "x86-64", False),
        ("x86_64-unknown-linux-gnu", "x86-64-v3", True),
        ("aarch64-unknown-linux-gnu", "generic", True),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_outside_the_module_is_called(name, triple, cpu, has_fma):
    for scalar in FORMATS:
        text = kernel(name, scalar, 4, has_fma)
        module, machine = optimised(text, triple, cpu, "", reloc="pic", codemodel="small")
        defined = {each.name for each in module.functions if not each.is_declaration}
        assembly = machine.emit_assembly(module)
        called = set(re.findall(r"^\s+(?:callq?|jmp|bl|b)\s+\*?([\w.$]+)", assembly, re.MULTILINE))
        assert {each for each in called if not each.startswith((".L", "$"))} <= defined


@pytest.mark.parametrize(
    "name",
    [
        *("EXP", "SINH", "TANH", "LOG", "ATANH", "SIN", "COS", "ASIN", "ATAN", "ERF", "LOG_ERFC", "ERFCX", "ERFINV"),
        *("ERFINV_TAIL", "LGAMMA", "LGAMMA_TAIL", "DIGAMMA", "DIGAMMA_TAIL"),
    ],
)
def test_coefficients_are_those_of_the_approximation_stated(name):
    modules = (math_arc, math_erf, math_exp, math_gamma, math_log, math_pow, math_trig)
    [written] = [vars(module)[name] for module in modules if name in vars(module)]
    with mp.workdps(60):
        tables = minimax.tables()
        for scalar in written:
            dtype = FORMATS[scalar]
            table = tables.get(f"{name} {scalar}", tables.get(name))
            terms = table.float_terms if scalar == "float" else table.double_terms
            coefficients = np.array(written[scalar], dtype)[-terms:].tolist()  # those before them are exact
            assert minimax.largest_error(table, coefficients) < 0.6 * np.finfo(dtype).epsneg / 2


def test_a_function_is_emitted_once_a_module():
    module = Module("twice")
    f = module.function("f", [("<8 x float>", "x")], "<8 x float>")
    once = llvm_math.emit(f, "tanh", "float", 8, "%x")
    f.do(f"ret <8 x float> {llvm_math.emit(f, 'tanh', 'float', 8, once)}")
    assert str(module).count("define internal <8 x float> @graphc.tanh.v8f32") == 1
    llvm.parse_assembly(str(module)).verify()


@pytest.mark.parametrize(("name", "args"), [("gamma", ("%x",)), ("exp", ("%x", "%x")), ("pow", ("%x",))])
def test_an_unknown_function_is_refused(name, args):
    f: Function = Module("refused").function("f", [("float", "x")])
    with pytest.raises(ValueError, match=name):
        llvm_math.emit(f, name, "float", 1, *args)
