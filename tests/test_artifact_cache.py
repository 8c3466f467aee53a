"""What has been compiled is loaded by other processes, and by nobody for whom it is not."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_control_flow import random_graph
from random_graphs import Maker

import graphc
import graphc.ops as ops
from graphc import disk_cache, sources
from graphc.backend import Layout
from graphc.backends.llvm import artifact_cache, artifact_file, backend, compilation, jit
from graphc.backends.llvm.artifact import Artifact
from graphc.backends.llvm.target import Target
from graphc.compiler import clear_cache, compile_graph, executable
from graphc.config import config, override
from graphc.differential import interpret
from graphc.dims import Dim
from graphc.errors import DimError
from graphc.fuel import limited
from graphc.graph_key import Unspelled, graph_key
from graphc.ir import Builder, Graph
from graphc.op import OPS, Sample, op
from graphc.sizes import greatest
from graphc.types import TensorType, bfloat16, bool_, complex64, float32, int32, int64, set_default_dtype


class Compilations:
    """Counts how often the passes run, and forgets what this process knows as a new one would not know it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        run = compilation.run_passes

        def counting(graph: Graph, names: Sequence[str]) -> Graph:
            self.count += 1
            return run(graph, names)

        monkeypatch.setattr(compilation, "run_passes", counting)

    def start_anew(self) -> None:
        self.count = 0
        clear_cache()
        gc.collect()
        jit._loaded.clear()


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Compilations]:
    with override(cache_dir=tmp_path, verify=False, debug=0):
        made = Compilations(monkeypatch)
        made.start_anew()
        yield made
    clear_cache()


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def numbers(graph: Graph, **sizes: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    types = [v.type.bind(sizes) for v in graph.inputs]
    return [
        (rng.standard_normal(t.shape) if t.dtype.is_floating_point else rng.integers(0, 3, t.shape)).astype(t.dtype.numpy)
        for t in types
    ]


def built(function: Callable[..., Any], *types: TensorType, name: str = "main") -> Graph:
    b = Builder(name)
    results = function(*(b.input(None, type_) for type_ in types))
    return b.finish(results if isinstance(results, (list, tuple)) else [results])


N, M = Dim.symbol("N"), Dim.symbol("M")
TABLE = np.random.default_rng(1).standard_normal((5, 40)).astype(np.float32)


def scanned(x: Any) -> Any:
    body = built(lambda a: [ops.gather(ops.tanh(a) + TABLE[0], np.arange(40) % 7, 0)], TensorType(float32, (40,)))
    return ops.scan(x, body=body, carries=1, scanned=0, length=5, reverse=False)


GRAPHS: dict[str, tuple[Graph, dict[str, int]]] = {
    "loops": (built(lambda x: ops.tanh(x) * 2 - x, TensorType(float32, (1237,))), {}),
    "nothing": (built(lambda x: [x], TensorType(float32, (3,))), {}),
    "empty": (built(lambda x: ops.exp(x), TensorType(float32, (0, 4))), {}),
    "scalar": (built(lambda x: ops.exp(x), TensorType(float32, ())), {}),
    "product": (built(ops.matmul, TensorType(float32, (33, 65)), TensorType(float32, (65, 17))), {}),
    "halves": (built(lambda x, y: ops.matmul(x, y), *[TensorType(bfloat16, (16, 16))] * 2), {}),
    "constants": (built(lambda x: [x + TABLE, ops.where(TABLE[:, :1] > 0, x, np.float32(-0.0))], TensorType(float32, (5, 40))),
                  {}),
    "checks": (built(lambda x, i: ops.gather(x, i, 0), TensorType(float32, (9, 4)), TensorType(int32, (5, 4))), {}),
    "calls": (built(lambda x: [ops.argsort(x, 1, True, True), ops.cumsum(x, 0)], TensorType(float32, (6, 5))), {}),
    "complex": (built(lambda x: ops.exp(x) * (1 + 2j), TensorType(complex64, (4,))), {}),
    "control": (built(scanned, TensorType(float32, (40,))), {}),
    "symbols": (built(lambda x, w: ops.tanh(ops.matmul(x, w)), TensorType(float32, (N, 24)), TensorType(float32, (24, M))),
                {"N": 19, "M": 31}),
    "rows": (built(lambda x: ops.sum(x, (1,)) / ops.amax(x, (1,)), TensorType(float32, (N, 2 * M + 1))), {"N": 7, "M": 200}),
    "checked symbols": (built(lambda x, i: ops.gather(x, i, 0), TensorType(float32, (N, 4)), TensorType(int64, (M, 4))),
                        {"N": 9, "M": 5}),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_loaded_computes_the_same_bits(name: str, compilations: Compilations) -> None:
    graph, sizes = GRAPHS[name]
    arrays = numbers(graph, **sizes)
    first = compile_graph(graph)(*arrays)
    assert compilations.count >= 1
    compilations.start_anew()
    second = compile_graph(graph)(*arrays)
    assert compilations.count == 0
    for one, other, want in zip(first, second, interpret(graph, arrays)):
        assert one.tobytes() == other.tobytes()
        np.testing.assert_allclose(one.astype(want.dtype), want, rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs_are_loaded_as_they_were_made(seed: int, compilations: Compilations) -> None:
    made = Maker(seed, 12)
    flow, flow_arrays = random_graph(seed)
    given = [(made.graph, made.arrays), (flow, flow_arrays)]
    first = [compile_graph(graph)(*arrays) for graph, arrays in given]
    compilations.start_anew()
    for (graph, arrays), expected in zip(given, first):
        got = compile_graph(graph)(*arrays)
        assert [array.tobytes() for array in got] == [array.tobytes() for array in expected]
    assert compilations.count == 0


def test_what_is_loaded_is_for_the_sizes_that_it_was_made_for(compilations: Compilations) -> None:
    graph, _ = GRAPHS["rows"]
    sizes = [{"N": n, "M": m} for n, m in ((7, 200), (8, 200), (900, 300), (1, 1), (7, 0), (7, 3), (2, 150))]
    expected = [compile_graph(graph)(*numbers(graph, **each))[0] for each in sizes]
    facts = [variant.facts for variant in executable(graph)._variants]  # type: ignore[attr-defined]
    assert 1 < len(facts) < len(sizes)
    compilations.start_anew()
    for each, want in zip(sizes, expected):
        np.testing.assert_array_equal(compile_graph(graph)(*numbers(graph, **each))[0], want)
    again = [variant.facts for variant in executable(graph)._variants]  # type: ignore[attr-defined]
    assert [f and f.at_least_zero for f in again] == [f and f.at_least_zero for f in facts]
    assert compilations.count == 0


def test_what_is_prepared_of_weights(compilations: Compilations) -> None:
    graph = built(lambda x, w, s: ops.matmul(x, w) * ops.exp(s), TensorType(float32, (96, 80)), TensorType(float32, (80, 112)),
                  TensorType(float32, (112,)))
    arrays = numbers(graph)
    made = [compile_graph(graph, steady=(1, 2))(*arrays)[0]]
    kept = executable(graph, Layout((None,) * 3, (), (1, 2))).preparation
    assert kept is not None
    compilations.start_anew()
    compiled = compile_graph(graph, steady=(1, 2))
    made += [compiled(*arrays)[0], compiled(*arrays)[0]]
    loaded = executable(graph, Layout((None,) * 3, (), (1, 2))).preparation
    assert loaded is not None
    assert loaded.inputs == kept.inputs
    assert compilations.count == 0
    assert len({array.tobytes() for array in made}) == 1


def test_a_check_names_the_line_of_this_trace(compilations: Compilations) -> None:
    def traced(lines: int) -> Graph:
        text = "\n" * lines + "def take(x, i):\n    return x[i]\n"
        scope: dict[str, Any] = {}
        exec(compile(text, "somewhere.py", "exec"), scope)
        return graphc.trace(scope["take"], (graphc.zeros(4, 3), graphc.tensor([0, 1]))).ir

    wrong = [np.zeros((4, 3), np.float32), np.array([0, 9])]
    with pytest.raises(DimError, match=r"somewhere\.py:2 in take"):
        compile_graph(traced(0))(*wrong)
    compilations.start_anew()
    with pytest.raises(DimError, match=r"somewhere\.py:12 in take") as caught:
        compile_graph(traced(10))(*wrong)
    assert "0 <= index < 4 along dimension 0" in str(caught.value)
    assert compilations.count == 0


def test_kernels_can_be_looked_at(compilations: Compilations) -> None:
    graph, sizes = GRAPHS["rows"]
    arrays = numbers(graph, **sizes)
    compile_graph(graph)(*arrays)
    (variant,) = executable(graph)._variants  # type: ignore[attr-defined]
    text = variant.code.source()
    compilations.start_anew()
    compile_graph(graph)(*arrays)
    (variant,) = executable(graph)._variants  # type: ignore[attr-defined]
    assert compilations.count == 0
    assert variant.code.source() == text
    assert compilations.count == 1


def test_a_compiled_training_step_has_its_native_entry(compilations: Compilations) -> None:
    def losses() -> list[float]:
        graphc.manual_seed(0)
        model = graphc.nn.Sequential(graphc.nn.Embedding(11, 8), graphc.nn.Flatten(), graphc.nn.Linear(24, 5))
        optimizer = graphc.optim.Adam(model.parameters(), lr=0.1)
        x, y = graphc.randint(0, 11, (6, 3)), graphc.randint(0, 5, (6,))

        @graphc.compile
        def step() -> graphc.Tensor:
            optimizer.zero_grad()
            loss = graphc.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        found = [step().item() for _ in range(8)]
        graphs = [graph for graphs in step._graphs.values() for graph in graphs]
        assert any(graph.entry is not None and graph.entry.calls for graph in graphs)
        return found

    first = losses()
    assert compilations.count > 0
    compilations.start_anew()
    assert losses() == first
    assert compilations.count == 0


@pytest.mark.parametrize("change", ["sources", "cpu", "dtype", "passes", "layout", "donated", "name", "constant", "default"])
def test_what_was_made_under_other_conditions_is_not_used(
    change: str, compilations: Compilations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def graph(dtype: Any = float32, name: str = "main", number: float = 2.0) -> Graph:
        return built(lambda x: ops.exp(x * np.asarray(number, dtype.numpy)), TensorType(dtype, (8, 8)), name=name)

    compiler = backend.LLVMBackend()
    plain = Layout.plain(graph())
    compiler.compile(graph(), plain)
    compilations.count = 0
    compiler.compile(graph(), plain)
    assert compilations.count == 0
    if change == "sources":
        monkeypatch.setattr(artifact_cache, "sources_key", lambda *folders: "others")
        compiler.compile(graph(), plain)
    elif change == "cpu":
        other = "generic" if Target.host().architecture == "aarch64" else "haswell" if config.cpu == "x86-64" else "x86-64"
        with override(cpu=other):
            compiler.compile(graph(), plain)
    elif change == "dtype":
        compiler.compile(graph(bfloat16), plain)
    elif change == "passes":
        compiler.compile(graph(), plain, ("prune", "decompose"))
    elif change == "layout":
        compiler.compile(graph(), Layout(((1, 8),)))
    elif change == "donated":
        compiler.compile(graph(), Layout((None,), ((0, 0),)))
    elif change == "name":
        compiler.compile(graph(name="other"), plain)
    elif change == "constant":
        compiler.compile(graph(number=np.nextafter(np.float32(2), np.float32(3)).item()), plain)
    else:
        set_default_dtype(graphc.float64)
        try:
            compiler.compile(graph(), plain)
        finally:
            set_default_dtype(float32)
    assert compilations.count == 1


@pytest.mark.parametrize("setting", [{"debug": 2}, {"verify": True}, {"fuel": 5}, {"cache_dir": None}, {"cache_size": 0}])
def test_nothing_is_loaded_where_the_compilation_is_watched(
    setting: dict[str, Any], compilations: Compilations, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = GRAPHS["loops"][0]
    executable(graph)
    compilations.start_anew()
    with override(**setting):
        executable(graph)
    assert compilations.count == 1
    compilations.start_anew()
    with limited(-1):
        executable(graph)
    assert compilations.count == 1
    capsys.readouterr()


def test_ops_of_the_user_are_compiled_each_time(compilations: Compilations, tmp_path: Path) -> None:
    type_ = TensorType(float32, (5,))
    for number in (2.0, 3.0):
        record = op("test_scaled", "x", infer=lambda x: x, ref=lambda x, n=number: x * n, vjp=lambda ct: ct,
                    scalar=lambda x, n=number: x * n, elementwise=True, samples=(Sample((type_,)),))  # fmt: skip
        try:
            branches = {"then": built(record, type_), "otherwise": built(ops.neg, type_)}
            inside = built(lambda x, branches=branches: ops.cond(ops.sum(x, (0,)) > 0, x, **branches), type_)
            for graph in (built(record, type_), inside):
                compilations.start_anew()
                (got,) = compile_graph(graph)(np.ones(5, np.float32))
                np.testing.assert_array_equal(got, np.full(5, number))
                assert compilations.count == 1
        finally:
            del OPS["test_scaled"]


def test_a_damaged_entry_is_made_anew(compilations: Compilations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "_reported", set())
    graph, _ = GRAPHS["constants"]
    arrays = numbers(graph)
    expected = compile_graph(graph)(*arrays)
    for path in entries(tmp_path):
        compilations.start_anew()
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        disk_cache._reported.clear()
        with pytest.warns(RuntimeWarning, match="damaged entry"):
            got = compile_graph(graph)(*arrays)
        assert compilations.count == 1
        assert [array.tobytes() for array in got] == [array.tobytes() for array in expected]
        assert path.read_bytes() == data, "the same entry is there again"


def test_an_artifact_whose_object_code_was_evicted_is_made_anew(compilations: Compilations, tmp_path: Path) -> None:
    graph, _ = GRAPHS["product"]
    arrays = numbers(graph)
    expected = compile_graph(graph)(*arrays)
    for path in entries(tmp_path):
        compilations.start_anew()
        path.unlink()
        np.testing.assert_array_equal(compile_graph(graph)(*arrays)[0], expected[0])
        assert compilations.count == 1
        assert path.exists()


def test_a_full_disk_is_no_obstacle(compilations: Compilations, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*args: object, **keywords: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_cache, "_reported", set())
    monkeypatch.setattr(os, "replace", no_space)
    graph, _ = GRAPHS["loops"]
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        first = compile_graph(graph)(*numbers(graph))
    compilations.start_anew()
    np.testing.assert_array_equal(compile_graph(graph)(*numbers(graph))[0], first[0])
    assert compilations.count == 1


def test_large_constants_are_not_kept(compilations: Compilations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact_cache, "_MOST_CONSTANTS", TABLE.nbytes - 1)
    executable(GRAPHS["constants"][0])
    compilations.start_anew()
    executable(GRAPHS["constants"][0])
    assert compilations.count == 1


def test_processes_share_what_they_compile(tmp_path: Path) -> None:
    script = """
        import sys, warnings
        warnings.simplefilter("error")
        import graphc
        from graphc import nn
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
        optimizer = graphc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x, y = graphc.randn(8, 1, 8, 8), graphc.randint(0, 10, (8,))

        @graphc.compile
        def step():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        print([step().item().hex() for _ in range(4)])
    """
    environment = {**os.environ, "GRAPHC_CACHE_DIR": str(tmp_path), "GRAPHC_VERIFY": "0", "GRAPHC_DEBUG": "1"}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    at_once = [start() for _ in range(2)]
    runs = [process.communicate(timeout=120) for process in at_once]
    runs.append(start().communicate(timeout=120))
    losses = {output.splitlines()[-1] for output, _ in runs}
    assert len(losses) == 1 and "0x1." in losses.pop()
    last = runs[-1][1]
    assert "graphc: step: loaded from the disk cache" in last
    assert " kernels in " not in last and "prune" not in last


# The sources


def test_code_that_is_edited_while_it_runs_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("a.py", "b.ll", "inner/c.py", "notes.txt"):
        (tmp_path / name).write_text("before")
        os.utime(tmp_path / name, (1, 1))
    first = sources.sources_key.__wrapped__(str(tmp_path))
    assert first is not None and first == sources.sources_key.__wrapped__(str(tmp_path))
    (tmp_path / "notes.txt").write_text("after")
    assert sources.sources_key.__wrapped__(str(tmp_path)) == first
    (tmp_path / "inner" / "c.py").write_text("after!")
    monkeypatch.setattr(sources, "LOADED", os.stat(tmp_path / "inner" / "c.py").st_mtime - 1)
    os.utime(tmp_path / "inner" / "c.py", None)
    assert sources.sources_key.__wrapped__(str(tmp_path)) is None
    os.utime(tmp_path / "inner" / "c.py", (1, 1))
    assert sources.sources_key.__wrapped__(str(tmp_path)) not in (None, first)


def test_a_package_without_files_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "archive.zip" / "graphc" / "sources.py"))
    assert sources.sources_key.__wrapped__() is None


# The parts


def test_attributes_of_calls_come_back() -> None:
    array = np.array([[1.5, -0.0]], np.float32)
    attrs = {"a": None, "b": True, "c": -(1 << 70), "d": -0.0, "e": float("-inf"), "f": "\ud800\n", "g": (1, (2.5, "x"), ()),
             "h": bfloat16, "i": complex(-0.0, 2), "j": array, "k": bool_}  # fmt: skip
    arrays: list[np.ndarray] = []
    written = {name: artifact_file._attribute(value, arrays) for name, value in attrs.items()}
    read = artifact_file._Numbers(b"".join(a.tobytes() for a in arrays), 0)
    got = {name: artifact_file._attribute_of(value, read) for name, value in written.items()}
    np.testing.assert_array_equal(got.pop("j"), attrs.pop("j"))
    assert repr(got) == repr(attrs)
    with pytest.raises(artifact_file.Unwritable, match="a object"):
        artifact_file._attribute(object(), arrays)


def test_attributes_of_ops_for_python_can_be_written() -> None:
    for record in ops.PRIMITIVES:
        if record.kernel == "host":
            for sample in record.samples:
                for value in sample.attrs.values():
                    artifact_file._attribute(value, [])


def test_sizes_that_no_graph_has_are_not_written() -> None:
    assert artifact_file._size_text(3 * N // 2 + 1) == "N + N//2 + 1"
    with pytest.raises(artifact_file.Unwritable):
        artifact_file._size_text(greatest(N, M))


def test_what_is_loaded_is_what_was_made(compilations: Compilations) -> None:
    graph, _ = GRAPHS["calls"]
    made = executable(graph).artifact  # type: ignore[attr-defined]
    read = artifact_file.read_artifact(artifact_file.write_artifact(made, graph), graph)
    for name in Artifact.__slots__:
        if name not in ("calls", "constants"):
            assert getattr(read, name) == getattr(made, name)
    assert [(call.op, dict(call.attrs)) for call in read.calls] == [(call.op, dict(call.attrs)) for call in made.calls]


def test_graphs_go_by_all_that_they_are() -> None:
    x = TensorType(float32, (3,))

    def with_attribute(value: Any) -> Graph:
        b = Builder("main", locations=False)
        v = b.input("x", x)
        return b.finish(b.append(OPS["neg"], [v], {"value": value}, [x]).results)

    values = [1, 1.0, True, "1", 0.0, -0.0, float("nan"), 1j, (1,), ((1,),), (1, 2), None, "None", float32, "float32", N, "N",
              N + 1, 4 * N, np.array([1]), np.array([1.0]), np.array([[1]]), np.array(1), "a\nb", "a", 'a"', "a'"]  # fmt: skip
    values += [with_attribute(value) for value in (1, 2)]
    keys = [graph_key(with_attribute(value)) for value in values]
    assert len(set(keys)) == len(values)
    assert keys == [graph_key(with_attribute(value)) for value in values]
    with pytest.raises(Unspelled):
        graph_key(with_attribute(object()))


def test_equal_graphs_have_one_key() -> None:
    one = built(lambda x, y: [x + y, x], TensorType(float32, (3,)), TensorType(float32, (3,)))
    for other in (
        built(lambda x, y: [y + x, x], *[TensorType(float32, (3,))] * 2),
        built(lambda x, y: [x, x + y], *[TensorType(float32, (3,))] * 2),
        built(lambda x, y: [x + y, y], *[TensorType(float32, (3,))] * 2),
        built(lambda x, y: [x + y, x], *[TensorType(float32, (3,), "cpu:1")] * 2),
        built(lambda x, y: [x - y, x], *[TensorType(float32, (3,))] * 2),
    ):
        assert graph_key(other) != graph_key(one)
    assert graph_key(built(lambda x, y: [x + y, x], *[TensorType(float32, (3,))] * 2)) == graph_key(one)
