"""Running saved programs on NumPy arrays."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from package_files import WEIGHT, linear, saved

import graphc.ops as ops
from graphc import runtime
from graphc.dims import Dim
from graphc.errors import ArgumentError, ArgumentTypeError, DTypeError, GraphcError, PackageError, ShapeError
from graphc.ir import Builder, Graph
from graphc.package import Entry, write_package
from graphc.package.structure import describe
from graphc.types import TensorType, bool_, float32, int64, uint8

X = np.random.default_rng(3).standard_normal((5, 3), np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return saved(tmp_path / "model.gcz")


@pytest.mark.parametrize("backend", ["reference", None])
def test_a_saved_program_runs(path: Path, backend: str | None) -> None:
    program = runtime.load(path, backend=backend)
    for x in (X, X[:1], X[:0], X[::2], X.copy("F"), X[::-1]):
        for result in (program(x), program(x=x), program.run("forward", x=x), program.run(x=x)):
            np.testing.assert_allclose(result, x @ WEIGHT * 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(program.run("other", x=X), X @ WEIGHT * 3, rtol=1e-5, atol=1e-6)
    assert program.metadata == {"epochs": [1, 2.5, None]}


def test_description(path: Path) -> None:
    program = runtime.load(path)
    assert program.function("forward").signature == "forward(x: float32[N, 3]) -> (logits: float32[N, 4])"
    assert program.signature.split("\n")[1] == "other(x: float32[N, 3]) -> (logits: float32[N, 4])"
    assert repr(program).startswith("<Program model.gcz: forward(x: float32[N, 3])")
    assert program.main.inputs == {"x": TensorType(float32, (Dim.symbol("N"), 3))}
    assert program.main.outputs == {"logits": TensorType(float32, (Dim.symbol("N"), 4))}


@pytest.mark.parametrize("args, kwargs, error, parts", [
    ((X[:, :2],), {}, ShapeError, ["'x'", "float32[N, 3]", "[5, 2]"]),
    ((X[0],), {}, ShapeError, ["'x'", "float32[N, 3]", "[3]"]),
    ((X.astype(float),), {}, DTypeError, ["forward: the input 'x'", "float32[N, 3]", "float64[5, 3]", "astype(numpy.float32)"]),
    ((X, X), {}, ArgumentTypeError, ["2 inputs were given", "forward(x: float32[N, 3])"]),
    ((), {}, ArgumentTypeError, ["no 'x' was given"]),
    ((X,), {"x": X}, ArgumentTypeError, ["'x' was given twice"]),
    ((), {"y": X}, ArgumentTypeError, ["'y' is not an input"]),
    (("text",), {}, ArgumentTypeError, ["'x'", "<U4 is not supported"]),
    (([[1, 2], [3]],), {}, ArgumentTypeError, ["'x' is not an array", "list"]),
    ((None,), {}, ArgumentTypeError, ["'x'", "object is not supported"]),
    ((2.0,), {}, DTypeError, ["'x'", "float64[]"]),
])  # fmt: skip
def test_wrong_inputs(path: Path, args: Any, kwargs: Any, error: type[Exception], parts: list[str]) -> None:
    with pytest.raises(error) as caught:
        runtime.load(path, backend="reference")(*args, **kwargs)
    for part in parts:
        assert part in str(caught.value)


def test_entries(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"model.gcz has no entry 'backward'(.|\n)*one of forward, other"):
        runtime.load(path).run("backward", x=X)
    with pytest.raises(ArgumentTypeError, match="no 'x' was given"):
        runtime.load(path).run()
    only = runtime.load(saved(tmp_path / "only.gcz", entries={"predict": linear()}), backend="reference")
    np.testing.assert_allclose(only(X), X @ WEIGHT * 2, rtol=1e-5)
    several = runtime.load(saved(tmp_path / "several.gcz", entries={"a": linear(), "b": linear()}), backend="reference")
    with pytest.raises(ArgumentError, match="none is called 'forward'"):
        several(X)


def test_errors_name_the_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gcz"
    bad.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(PackageError, match=r"bad\.gcz: it is truncated"):
        runtime.load(bad)


def test_sizes_are_bound_at_each_call(tmp_path: Path) -> None:
    n, m = Dim.symbol("N"), Dim.symbol("M")
    builder = Builder("f", locations=False)
    x, y = builder.input("x", TensorType(float32, (n, m))), builder.input("y", TensorType(float32, (m, 2 * n)))
    sums = ops.broadcast_to(ops.reshape(ops.sum(x, (1,)), (n, 1)), (n, 2 * n))
    out = ops.concat(ops.matmul(x, y), sums, axis=0)
    program = runtime.Program({"forward": Entry(builder.finish([out]))}, {}, backend="reference")
    for rows, columns in ((2, 3), (1, 1), (4, 2), (2, 3)):
        a, b = np.ones((rows, columns), np.float32), np.full((columns, 2 * rows), 2, np.float32)
        expected = np.concatenate([a @ b, np.broadcast_to(a.sum(1)[:, None], (rows, 2 * rows))])
        np.testing.assert_allclose(program(a, b), expected)
    with pytest.raises(ShapeError, match="input 'y' has the wrong shape"):
        program(np.ones((2, 3), np.float32), np.ones((3, 5), np.float32))


def test_sizes_that_break_a_rule_are_refused_before_code_runs() -> None:
    """With symbols the type rule cannot tell that a slice ends outside; with numbers it can."""
    builder = Builder("f", locations=False)
    x = builder.input("x", TensorType(float32, (Dim.symbol("N"),)))
    program = runtime.Program({"forward": Entry(builder.finish([ops.slice(x, (0,), (4,), (1,))]))}, {})
    np.testing.assert_array_equal(program(np.arange(6, dtype=np.float32)), np.arange(4))
    with pytest.raises(GraphcError, match="outside dimension 0"):
        program(np.arange(3, dtype=np.float32))


def scalars() -> Graph:
    builder = Builder("f", locations=False)
    values = [builder.input(t.name, TensorType(t, ())) for t in (float32, int64, uint8, bool_)]
    return builder.finish(values)


def test_numbers_stand_for_arrays_without_dimensions() -> None:
    program = runtime.Program({"forward": Entry(scalars())}, {}, backend="reference")
    for given in ((0.5, 3, 255, True), (True, True, True, False), (1, 0, 0, True)):
        for value, result, dtype in zip(given, program(*given), ("float32", "int64", "uint8", "bool")):
            assert result == value and result.dtype == dtype and result.shape == ()
    for wrong in ((0.5, 0.5, 0, True), (0.5, 2**70, 0, True), (0.5, 0, 256, True), (0.5, 0, -1, True), (0.5, 0, 0, 1)):
        with pytest.raises(DTypeError, match="cannot take this number"):
            program(*wrong)


def nested() -> tuple[Entry, Any]:
    """A function of `(pair, scale, *, table)`, in other containers than arrays one after another."""
    builder = Builder("f", locations=False)
    a, b, t = (builder.input(name, TensorType(float32, (2,))) for name in ("a", "b", "t"))
    call = (([np.zeros(2), np.zeros(2)], 2), {"table": {"t": np.zeros(2)}})
    result = {"sum": np.zeros(2), "rest": [None, (np.zeros(2), "text")]}
    structures = [describe(tree, lambda x: isinstance(x, np.ndarray)) for tree in (call, result)]
    return Entry(builder.finish([a + b, t * 2]), *structures), call


def test_nested_inputs_and_outputs(tmp_path: Path) -> None:
    entry, _ = nested()
    write_package(tmp_path / "m.gcz", {"forward": entry}, {})
    program = runtime.load(tmp_path / "m.gcz", backend="reference")
    a, b, t = (np.full(2, i, np.float32) for i in (1, 2, 3))
    for result in (program([a, b], 2, table={"t": t}), program.run(a=a, b=b, t=t)):
        np.testing.assert_array_equal(result["sum"], a + b)
        np.testing.assert_array_equal(result["rest"][1][0], 2 * t)
        assert list(result) == ["sum", "rest"] and result["rest"][0] is None and result["rest"][1][1] == "text"
    with pytest.raises(ArgumentTypeError, match=r"at inputs\[0\]\[0\](.|\n)*a list of 2(.|\n)*a list of 1"):
        program([a], 2, table={"t": t})
    with pytest.raises(ArgumentTypeError, match=r"at inputs\[0\]\[1\](.|\n)*2, as the program was exported with"):
        program([a, b], 3, table={"t": t})


def test_keywords_of_the_exported_call_and_names_of_inputs() -> None:
    builder = Builder("f", locations=False)
    x, y = (builder.input(name, TensorType(float32, ())) for name in ("x", "input_1"))
    structure = describe(((np.zeros(2),), {"scale": np.zeros(2)}), lambda v: isinstance(v, np.ndarray))
    program = runtime.Program({"forward": Entry(builder.finish([x - y]), structure)}, {}, backend="reference")
    assert program(5.0, scale=2.0) == program(5.0, 2.0) == program(x=5.0, input_1=2.0) == program(5.0, input_1=2.0) == 3
    with pytest.raises(ArgumentTypeError, match="'other' is not an input"):
        program(5.0, other=2.0)


def test_programs_in_memory_and_saved(tmp_path: Path) -> None:
    builder = Builder("f", locations=False)
    x = builder.input(None, TensorType(float32, (100,)))
    constant = builder.constant(np.arange(100, dtype=np.float32))
    program = runtime.Program({"forward": Entry(builder.finish([x + constant]))}, {}, {"kind": "test"}, backend="reference")
    program.save(tmp_path / "m.gcz")
    again = runtime.load(tmp_path / "m.gcz", backend="reference")
    again.save(tmp_path / "n.gcz")
    assert (tmp_path / "m.gcz").read_bytes() == (tmp_path / "n.gcz").read_bytes()
    x = np.ones(100, np.float32)
    np.testing.assert_array_equal(program(x), again(input_0=x))
    assert again.metadata == {"kind": "test"}


def test_threads(path: Path) -> None:
    program = runtime.load(path)
    failures: list[BaseException] = []

    def work(rows: int) -> None:
        try:
            for _ in range(5):
                x = np.full((rows, 3), rows, np.float32)
                np.testing.assert_allclose(program(x), x @ WEIGHT * 2, rtol=1e-5, atol=1e-6)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(1 + i % 3,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_what_running_a_file_imports(path: Path, tmp_path: Path) -> None:
    """NumPy and llvmlite, and lark to read the graph: others may be missing, and what is not needed yet is not loaded."""
    code = f"""
import sys
import numpy as np

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("scipy", "ml_dtypes", "typer", "rich", "onnx"):
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
before = set(sys.modules)
from graphc import runtime
imported = {{name.partition(".")[0] for name in set(sys.modules) - before}}
assert not imported & {{"llvmlite", "lark", "hashlib", "_hashlib", "zipfile", "shutil", "difflib"}}, imported
program = runtime.load({str(path)!r})
program(np.ones((2, 3), np.float32))
assert not [name for name in sys.modules if name.startswith(("graphc.frontend", "graphc.cli", "graphc.native"))]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_what_makes_code_is_not_loaded_where_code_is_on_disk(path: Path, tmp_path: Path) -> None:
    code = f"""
import sys
import numpy as np
from graphc import runtime
runtime.load({str(path)!r})(np.ones((2, 3), np.float32))
parts = ("passes.pipeline", "schedule", "kernel", "specs", "backends.llvm.compilation", "backends.llvm.entry")
print([part for part in parts if f"graphc.{{part}}" in sys.modules])
"""
    environment = {**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path / "cache"), "GRAPHC_VERIFY": "0"}
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert "compilation" in runs[0].stdout and runs[1].stdout.strip() == "[]"


def test_the_front_end_is_not_imported(path: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    code = f"""
import sys
import numpy as np
from graphc import runtime
program = runtime.load({str(path)!r})
y = program(np.load({str(tmp_path / "x.npy")!r}))
np.save({str(tmp_path / "y.npy")!r}, y)
loaded = [name for name in sys.modules if name.startswith("graphc.frontend")]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), X @ WEIGHT * 2, rtol=1e-5, atol=1e-6)
