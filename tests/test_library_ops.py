"""Ops that CuPy computes on the GPU, with CuPy's functions played by NumPy's: they say what the definitions say. And the CuPy
that is installed knows them."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import cupy_functions
import cupy_stand_in
import gpu_checks
import numpy as np
import pytest
from cuda_emulator import EmulatedDriver
from op_cases import CASES, assert_agree

import graphc
from graphc.backend import Layout
from graphc.backends.cuda import backend, cupy_libraries, library_ops
from graphc.backends.cuda.backend import CUDABackend
from graphc.backends.cuda.library_ops import LIBRARY_OPS, REFUSALS, Placed, Refused
from graphc.backends.cuda.program import CallStep
from graphc.errors import GraphcError, LinAlgError, OutOfMemoryError
from graphc.interpret import interpret
from graphc.ir import Builder, Graph
from graphc.op import OPS
from graphc.types import DTYPES, TensorType, dtype_of

_rng = np.random.default_rng(0)
NAN, INF = np.nan, np.inf


def graph(name: str, arrays: Sequence[np.ndarray], attrs: dict[str, Any]) -> Graph:
    """A graph of one op."""
    builder = Builder("f")
    made = builder.emit(OPS[name], tuple(builder.input(None, TensorType(dtype_of(a.dtype), a.shape)) for a in arrays), attrs)
    return builder.finish(list(made) if isinstance(made, tuple) else [made])


def steps(graph: Graph, layout: Layout | None = None) -> list[CallStep]:
    """What its program leaves to CuPy, or to the CPU."""
    return [step for step in backend.rendered(graph, layout).steps if isinstance(step, CallStep)]


def placed(array: np.ndarray) -> Placed:
    return Placed(array.__array_interface__["data"][0], array.dtype, array.shape, array.strides)


def computed(name: str, arrays: Sequence[np.ndarray], attrs: dict[str, Any]) -> list[np.ndarray]:
    """The results of an op by way of CuPy, into memory in which nothing is right by chance."""
    made = graph(name, arrays, attrs)
    found = [step for step in steps(made) if step.kernel.op.name == name]
    assert len(found) == 1 and found[0].library is not None
    operands = [np.broadcast_to(a.astype(block.buffer.dtype.numpy), block.shape)
                for a, block in zip(arrays, found[0].kernel.operands, strict=True)]
    outputs = []
    for value in made.outputs:
        outputs.append(np.empty(value.shape, value.dtype.numpy))
        outputs[-1].view(np.uint8 if outputs[-1].ndim else outputs[-1].dtype).fill(0x5A)
    library_ops.compute(found[0].library, OPS[name], attrs, cupy_functions.Libraries(), list(map(placed, operands)),
                        list(map(placed, outputs)))
    return outputs


def check(name: str, *arrays: np.ndarray, **attrs: Any) -> None:
    expected = interpret(graph(name, arrays, attrs), arrays)
    assert_agree(computed(name, arrays, attrs), expected)


def run(name: str, arrays: Sequence[np.ndarray], attrs: dict[str, Any]) -> list[np.ndarray]:
    """The results of a program, in which the CPU computes what CuPy refuses."""
    made = graph(name, arrays, attrs)
    executable = CUDABackend(EmulatedDriver()).compile(made, Layout.plain(made))
    outputs = [np.empty(t.shape, t.dtype.numpy) for t in executable.outputs]
    executable.run(arrays, outputs)
    return outputs


def of_complex(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Numbers with imaginary parts."""
    return [a * np.asarray(1 - 0.5j, np.complex64) if a.dtype.kind == "f" else a for a in arrays]


def cases() -> Iterator[Any]:
    """Calls of each op of the table: its own samples, and those with complex numbers."""
    for name, case in CASES.items():
        attrs = dict(case.sample.attrs)
        for kind, arrays in ("", case.arrays), ("-complex", of_complex(case.arrays)):
            if case.record.name not in LIBRARY_OPS or (kind and all(a.dtype.kind != "c" for a in arrays)):
                continue
            if kind and (case.sample.hermitian or case.sample.triangular):
                continue
            try:
                left = steps(graph(case.record.name, arrays, attrs))
            except (GraphcError, TypeError):  # complex numbers are not for this op
                continue
            if any(step.library is not None and step.kernel.op is case.record for step in left):
                yield pytest.param(case.record.name, arrays, attrs, id=name + kind)


ALL = list(cases())


@pytest.mark.parametrize(("name", "arrays", "attrs"), ALL)
def test_each_op(name: str, arrays: Sequence[np.ndarray], attrs: dict[str, Any]) -> None:
    check(name, *arrays, **attrs)


def test_all_ops_have_been_tested() -> None:
    assert {parameter.values[0] for parameter in ALL} == LIBRARY_OPS.keys()


# Order


ROWS = np.array([3, NAN, -0.0, 0.0, -NAN, INF, 3, -INF, 0.0, -2, NAN], np.float32)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int8", "uint64", "bool"])
def test_sorting_is_stable_with_nan_at_the_end(dtype: str, descending: bool) -> None:
    numpy = DTYPES[dtype].numpy
    row = ROWS if dtype_of(numpy).is_floating_point else np.nan_to_num(ROWS, posinf=9, neginf=0) ** 2 % 5
    for shape in (11,), (1,), (3, 11), (11, 2), (1, 1), (2, 11, 3):
        x = np.moveaxis(np.resize(row, shape), 0, -1).astype(numpy)
        for axis in range(x.ndim):
            check("argsort", x, axis=axis, descending=descending)
            for count in {0, 1, x.shape[axis]}:
                check("argtopk", x, axis=axis, count=count, descending=descending)


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_searching(right: bool, size: int) -> None:
    sequence = np.sort(np.resize(ROWS, (2, 3, size)), -1)
    values = np.resize(ROWS, (2, 3, 11))
    check("searchsorted", sequence, values, right=right)
    check("searchsorted", sequence[0, 1].copy(), values, right=right)
    check("searchsorted", sequence.astype(np.float16), values.astype(np.float16), right=right)


# Transforms, complex numbers


@pytest.mark.parametrize("scale", ["none", "root", "full"])
@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_transforms(scale: str, size: int) -> None:
    x = _rng.normal(size=(3, size, 5)) + 1j * _rng.normal(size=(3, size, 5))
    for inverse, axes in itertools.product((False, True), ((1,), (1, 0), (0, 1, 2), ())):
        check("fft_c2c", x.astype(np.complex64), axes=axes, inverse=inverse, scale=scale)
    check("fft_r2c", x.real.copy(), axis=1, scale=scale)
    check("fft_c2r", x[:, : size // 2 + 1].copy(), axis=1, size=size, scale=scale)  # with parts that no spectrum has


def test_sums_and_places_of_complex_numbers() -> None:
    x = (_rng.normal(size=(3, 4, 5)) * (1 + 1j)).astype(np.complex64)
    for axes in (), (0,), (2,), (0, 1, 2):
        check("sum", x, axes=axes)
    check("pad", x, low=(0, 1, 2), high=(1, 0, 0), value=2.5)
    check("gather", x, _rng.integers(0, 4, (2, 7, 5)), axis=1)
    check("reshape", x, shape=(5, 12))


def test_operands_in_place_of_which_results_are_written() -> None:
    x = np.arange(5) * (1 + 1j)
    (step,) = steps(graph("flip", [x], {"axes": (0,)}))
    assert step.library is not None
    there = x.copy()
    library_ops.compute(step.library, step.kernel.op, {"axes": (0,)}, cupy_functions.Libraries(), [placed(there)],
                        [placed(there)])
    assert there.tolist() == x[::-1].tolist()


@pytest.mark.parametrize("shift", [-1, 1, 4, 5])
def test_results_that_overlap_operands(shift: int) -> None:
    x = np.arange(5) * (1 + 1j)
    (step,) = steps(graph("flip", [x], {"axes": (0,)}))
    assert step.library is not None
    memory = np.zeros(15, x.dtype)
    operand, result = memory[5:10], memory[5 + shift : 10 + shift]
    operand[:] = x
    assert placed(operand).overlaps(placed(result)) == (shift < 5)
    assert not placed(operand[:0]).overlaps(placed(operand)) and placed(operand[::-2]).overlaps(placed(operand[1:2]))
    library_ops.compute(step.library, step.kernel.op, {"axes": (0,)}, cupy_functions.Libraries(), [placed(operand)],
                        [placed(result)])
    assert result.tolist() == x[::-1].tolist()


# Special functions


@pytest.mark.parametrize("n", [0, 1, 170, 171, 172, 400])
def test_polygamma_of_any_order(n: int) -> None:
    check("polygamma", np.array([0.5, 1.0, 3.0, 200.0, INF]), n=n)


# Matrices


def matrices(*shape: int, dtype: Any = np.float64) -> np.ndarray:
    x = _rng.normal(size=shape) + 1j * _rng.normal(size=shape)
    return np.ascontiguousarray(x if np.dtype(dtype).kind == "c" else x.real).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (1, 3, 3), (2, 3, 4, 4)])
def test_square_matrices(shape: tuple[int, ...], dtype: Any) -> None:
    x, b = matrices(*shape, dtype=dtype), matrices(*shape[:-1], 2, dtype=dtype)
    positive = x @ x.conj().swapaxes(-1, -2) + np.eye(shape[-1])
    for upper in False, True:
        only = np.triu(positive) if upper else np.tril(positive)  # the other triangle is not read
        check("cholesky", only, upper=upper, check=True)
        check("cholesky_solve", np.linalg.cholesky(positive, upper=upper), b, upper=upper)
        check("eigh", only, upper=upper)
        check("eigvalsh", only, upper=upper)
        for unit in False, True:
            check("triangular_solve", x + 5 * np.eye(shape[-1]), b, upper=upper, unit=unit)
    for name in "solve", "inv", "lu_factor":
        check(name, *(x, b) if name == "solve" else (x,), check=True)
    for name in "det", "slogdet", "matrix_exp", "geqrf", "svdvals":
        check(name, x)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 1, 5), (2, 5, 1)])
def test_other_matrices(shape: tuple[int, ...]) -> None:
    x = matrices(*shape)
    for mode in "reduced", "complete", "r":
        check("qr", x, mode=mode)
    for full in False, True:
        check("svd", x, full=full)
    check("lu_factor", x, check=False)
    check("pinv", x, *(np.full(shape[:-2], t) for t in (0.0, 1e-10)), hermitian=False)


@pytest.mark.parametrize("name", ["inv", "solve", "cholesky", "lu_factor"])
def test_what_is_wrong_with_matrices_the_definition_says(name: str) -> None:
    """With the code for each matrix, or the error of the first."""
    x = np.stack([np.eye(2), np.array([[1.0, 2.0], [2.0, 4.0]]) - 2 * np.eye(2) * (name == "cholesky")])
    arrays = [x, np.ones((2, 2, 1))] if name == "solve" else [x]
    attrs = {"upper": False} if name == "cholesky" else {}
    with pytest.raises(REFUSALS):
        computed(name, arrays, {**attrs, "check": True})

    unchecked = {**attrs, "check": False}
    assert_agree(run(name, arrays, unchecked), interpret(graph(name, arrays, unchecked), arrays))
    with pytest.raises(LinAlgError, match="Batch element 1"):
        run(name, arrays, {**attrs, "check": True})


def test_matrices_that_are_not_finite() -> None:
    x = np.array([[NAN, 0.0], [0.0, 1.0]])
    for name in "eigh", "eigvalsh":
        with pytest.raises(LinAlgError, match="contained non-finite values"):
            computed(name, [x], {"upper": False})
    for name, attrs in ("cholesky", {"upper": False, "check": True}), ("inv", {"check": True}), ("matrix_exp", {}):
        with pytest.raises(REFUSALS):
            computed(name, [x], attrs)


def test_warnings_are_left_to_who_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their filters are those of all threads, of which here the one that began first is done first."""
    inside, done = threading.Barrier(2), threading.Event()

    def lu_factor(x: Any, check_finite: bool) -> Any:
        inside.wait(60)
        if threading.current_thread() is last:
            assert done.wait(60)
        return linalg.lu_factor(x, check_finite=check_finite)

    def factors() -> None:
        found.append(computed("lu_factor", [np.eye(2)], {"check": False}))
        done.set()

    linalg = cupy_functions.Libraries.linalg
    found: list[Any] = []
    filters = list(warnings.filters)
    monkeypatch.setattr(cupy_functions.Libraries, "linalg", SimpleNamespace(lu_factor=lu_factor))
    first, last = threading.Thread(target=factors), threading.Thread(target=factors)
    first.start()
    last.start()
    first.join()
    last.join()
    assert len(found) == 2 and warnings.filters == filters
    monkeypatch.undo()
    for filter_ in "ignore", "error":
        with warnings.catch_warnings():
            warnings.simplefilter(filter_)  # type: ignore[arg-type]
            with pytest.raises(Refused):
                computed("lu_factor", [np.ones((2, 2))], {"check": False})


def _overflowing(matrix: Any) -> Any:
    raise OverflowError("math range error")


@pytest.mark.parametrize("expm", [_overflowing, lambda matrix: matrix * NAN])
def test_exponentials_that_cupy_does_not_find(expm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_functions.Libraries, "linalg", SimpleNamespace(expm=expm))
    for x in np.diag([1000.0, 1000.0]), np.diag([1.0, 2.0]):
        assert_agree(run("matrix_exp", [x], {}), interpret(graph("matrix_exp", [x], {}), [x]))


def _diverging(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have one of the factorisations not converge on the GPU."""
    function = getattr(np.linalg, name)

    def diverge(x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, cupy_functions.Array):
            raise np.linalg.LinAlgError("Did not converge")
        return function(x, *args, **kwargs)

    monkeypatch.setattr(np.linalg, name, diverge)


@pytest.mark.parametrize(("name", "attrs", "function"), [
    ("svd", {"full": False}, "svd"), ("eigh", {"upper": False}, "eigh"), ("eigvals", {}, "eigvals"), ("cofactor", {}, "svd"),
])  # fmt: skip
def test_what_does_not_converge_the_cpu_computes(
    name: str, attrs: dict[str, Any], function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = matrices(3, 3) + 5 * np.eye(3)
    expected = interpret(graph(name, [x], attrs), [x])
    _diverging(monkeypatch, function)
    with pytest.raises(REFUSALS):
        computed(name, [x], attrs)
    assert_agree(run(name, [x], attrs), expected)


@pytest.mark.skipif(cupy_stand_in.cuda_emulator.COMPILER is None, reason="the emulator needs g++")
def test_profiles_have_what_the_gpu_has_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    with cupy_stand_in.installed(interpreted=False):
        x = graphc.randn(3, 3).cuda()

        def kernels() -> list[str]:
            with graphc.profiler.profile() as prof:
                graphc.linalg.eigh(x + x.T)
            return [event.name for event in prof.events() if event.kind == "kernel"]

        assert "eigh" in kernels()
        _diverging(monkeypatch, "eigh")
        assert "eigh" not in kernels() != []


# What CuPy does not compute


@pytest.mark.parametrize(("name", "shapes", "dtype", "attrs"), [
    ("eig", [(2, 3, 3)], "float32", {}),
    ("lu_factor", [(65, 2, 2)], "float32", {"check": False}),
    ("cofactor", [(1, 1)], "float32", {}),
    ("argsort", [(0,)], "float32", {"axis": 0, "descending": False}),
    ("inv", [(0, 3, 3)], "float32", {"check": False}),
    ("reshape", [(4,)], "complex32", {"shape": (2, 2)}),
    ("nextafter", [(3,), (3,)], "bfloat16", {}),
    ("pow", [(3,), (3,)], "complex64", {}),
])  # fmt: skip
def test_what_the_cpu_computes(name: str, shapes: Sequence[tuple[int, ...]], dtype: str, attrs: dict[str, Any]) -> None:
    arrays = [np.zeros(shape, DTYPES[dtype].numpy) for shape in shapes]
    (step,) = steps(graph(name, arrays, attrs))
    assert step.library is None


def test_the_source_says_who_computes_what() -> None:
    def source(function: Any, *tensors: graphc.Tensor) -> str:
        return graphc.compile(function, backend="cuda").source(*tensors)

    x = graphc.eye(3)
    assert "CuPy computes this argsort" in source(lambda x: x.argsort(0), x)
    assert "CuPy, with cufft, computes this fft_c2c" in source(graphc.fft.fft, graphc.ones(3, dtype=graphc.complex64))
    assert "CuPy, with cublas and cusolver, computes this inv" in source(graphc.linalg.inv, x)
    assert "the CPU computes this ldl_factor" in source(lambda x: graphc.linalg.ldl_factor(x)[0], x)


# The CuPy that is installed


class _CompileException(Exception):
    pass


def test_what_is_missing_the_cpu_computes_and_a_warning_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """That comes once; CuPy may lack a library, or the headers of the CUDA toolkit."""
    pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'graphc[cuda]'")

    def ones(shape: int, dtype: Any) -> float:
        if fake.broken is not None:
            raise fake.broken
        return 1.0

    class Cuda(SimpleNamespace):
        def __getattr__(self, name: str) -> Any:
            raise ImportError(f"no lib{name}")

    cuda = Cuda(compiler=SimpleNamespace(CompileException=_CompileException),
                memory=SimpleNamespace(OutOfMemoryError=cupy_stand_in.OutOfMemoryError),
                runtime=SimpleNamespace(CUDARuntimeError=cupy_stand_in.CUDARuntimeError),
                driver=SimpleNamespace(CUDADriverError=cupy_stand_in.CUDARuntimeError))
    fake = SimpleNamespace(ones=ones, cuda=cuda, broken=None, __version__="14.0.0b1")
    monkeypatch.setattr(cupy_libraries, "import_cupy", lambda: fake)
    libraries = cupy_libraries.CupyLibraries()
    assert libraries.has(())
    with pytest.warns(RuntimeWarning, match=r"no cufft for: no libcufft(.|\n)*graphc\[cuda\]"):
        assert not libraries.has(("cufft",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not libraries.has(("cufft",)) and libraries.has(())
    for fake.broken in (_CompileException("catastrophic error: cannot open source file cuda_fp16.h\nmore"),
                        RuntimeError("CuPy failed to load libnvrtc.so, which has cuda_fp16.h")):
        with pytest.warns(RuntimeWarning, match=r"no kernels for: .*cuda_fp16.h"):
            assert not cupy_libraries.CupyLibraries().has(())
    for fake.broken, error in ((cupy_stand_in.OutOfMemoryError(2, 1), OutOfMemoryError),
                               (cupy_stand_in.CUDARuntimeError("of the GPU"), cupy_stand_in.CUDARuntimeError)):
        with pytest.raises(error):
            cupy_libraries.CupyLibraries().has(())
    fake.broken, fake.__version__ = None, "13.6.0"
    with pytest.warns(RuntimeWarning, match=r"no kernels for: CuPy 13.6.0 is installed, and 14 or later is needed"):
        assert not cupy_libraries.CupyLibraries().has(())


@pytest.mark.skipif(cupy_stand_in.cuda_emulator.COMPILER is None, reason="the emulator needs g++")
def test_tensors_without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_functions.Libraries, "has", lambda self, needs: False)
    with cupy_stand_in.installed(interpreted=False):
        before = cupy_stand_in.state.downloads
        assert graphc.tensor([2.0, 1.0], device="cuda").argsort().tolist() == [1, 0]
        assert cupy_stand_in.state.downloads >= before + 2


@pytest.mark.skipif(cupy_stand_in.cuda_emulator.COMPILER is None, reason="the emulator needs g++")
def test_nobody_waits_for_what_needs_none() -> None:
    with cupy_stand_in.installed(interpreted=False):
        x, z = graphc.randn(5, 7).cuda(), graphc.randn(4, 6, dtype=graphc.complex64).cuda()
        compiled = graphc.compile(lambda x, z: ((x * 2).sort(1).values + 1, graphc.fft.fft(z) * 2))
        compiled(x, z)  # which copies constants
        before = cupy_stand_in.state.waits
        for eager in x.argsort, lambda: x.topk(2), lambda: graphc.fft.fft(z), lambda: graphc.special.i0(x), lambda: z * z:
            eager()
        for _ in range(3):
            there = compiled(x, z)
        assert cupy_stand_in.state.waits == before
        np.testing.assert_allclose(there[0].tolist(), ((x.cpu() * 2).sort(1).values + 1).tolist(), rtol=1e-6)
        np.testing.assert_allclose(there[1].tolist(), (graphc.fft.fft(z.cpu()) * 2).tolist(), rtol=1e-4, atol=1e-4)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Any:
    """CuPy itself, and arrays over memory that it cannot reach."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'graphc[cuda]'")
    if not gpu_checks.why_not():
        pytest.skip("there is a GPU, on which these numbers would be written somewhere")
    monkeypatch.setattr(cupy_libraries, "import_cupy", lambda: cupy)
    monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda: 0)
    monkeypatch.setattr(cupy.cuda, "get_current_stream", lambda: SimpleNamespace(ptr=0))
    return cupy_libraries.CupyLibraries()


def test_arrays_over_the_memory_of_a_program(real: Any) -> None:
    array = real.array(Placed(1 << 20, np.dtype(np.float32), (3, 4, 1), (-16, 8, 0)))
    assert (array.data.ptr, array.shape, array.strides, array.data.device_id) == (1 << 20, (3, 4, 1), (-16, 8, 0), 0)
    assert (array.data.mem.ptr, array.data.mem.size) == ((1 << 20) - 32, 60)
    with real.raising():
        from cupyx import _ufunc_config

        assert _ufunc_config.get_config_linalg() == "raise"


def test_what_libraries_cannot_go_on_with_is_refused(real: Any) -> None:
    """And so the CPU computes; not so what the GPU cannot go on with."""
    with pytest.raises(Refused, match="geev is not available"), real.raising():
        raise RuntimeError("geev is not available")
    with pytest.raises(np.linalg.LinAlgError), real.raising():
        raise np.linalg.LinAlgError
    with pytest.raises(real.cupy.cuda.runtime.CUDARuntimeError), real.raising():
        raise real.cupy.cuda.runtime.CUDARuntimeError(700)


def test_two_streams_share_no_plan(real: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are kept by thread and GPU."""
    cleared: list[tuple[int, int]] = []
    now = SimpleNamespace()
    cuda = real.cupy.cuda
    monkeypatch.setattr(cuda.runtime, "getDevice", lambda: now.place[0])
    monkeypatch.setattr(cuda, "get_current_stream", lambda: SimpleNamespace(ptr=now.place[1]))
    monkeypatch.setattr(real.cupy.fft, "config", SimpleNamespace(clear_plan_cache=lambda: cleared.append(now.place)))
    for now.place in (0, 1), (0, 1), (1, 1), (0, 2), (0, 2), (1, 1):
        assert real.fft is real.cupy.fft
    assert cleared == [(0, 2)]
    now.place = 0, 3
    other = threading.Thread(target=lambda: real.fft)
    other.start()
    other.join()
    assert cleared == [(0, 2)]
    assert real.fft is real.cupy.fft and cleared == [(0, 2), (0, 3)]


@pytest.mark.parametrize("name", list(LIBRARY_OPS))
def test_the_installed_cupy_stops_for_want_of_a_driver_alone(real: Any, name: str) -> None:
    """What comes before the first call that needs one is CuPy's own; the arguments of all calls are held against CuPy's
    signatures where `cupy_functions.py` plays it."""
    arrays, attrs = next(parameter.values[1:] for parameter in ALL if parameter.values[0] == name)
    made = graph(name, arrays, attrs)
    step = next(step for step in steps(made) if step.kernel.op.name == name)
    assert step.library is not None
    operands = [a.astype(b.buffer.dtype.numpy) for a, b in zip(arrays, step.kernel.operands, strict=True)]
    there = [Placed(1 << 20, a.dtype, a.shape, a.strides) for a in operands]
    results = [Placed(1 << 24, v.dtype.numpy, v.shape, np.empty(v.shape, v.dtype.numpy).strides) for v in made.outputs]
    with pytest.raises((real.cupy.cuda.runtime.CUDARuntimeError, ImportError)) as caught:
        library_ops.compute(step.library, OPS[name], attrs, real, there, results)
    assert "Insufficient" in str(caught.value) or "NoDevice" in str(caught.value) or "lib" in str(caught.value)
