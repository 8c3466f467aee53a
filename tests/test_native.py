"""Programs as object files: what generated code computes without Python, on this machine and, in form, for others."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import needs_file_limits, without_room
from native_files import CC, NativeEntry, close, needs_cc

import graphc
from graphc import native, nn
from graphc.backends.llvm.object_symbols import undefined_symbols
from graphc.backends.llvm.target import Target
from graphc.config import override
from graphc.errors import ArgumentError, ArgumentTypeError, BackendError, CompileError, ShapeError
from graphc.ir import Builder
from graphc.native.c_text import comment, identifier
from graphc.package import Entry
from graphc.runtime import Program
from graphc.types import TensorType, float32

TARGETS = {
    # name: how the file begins, and where what says which machine
    "x86_64": ("elf", 62), "x86-64-v2": ("elf", 62), "x86-64-v3": ("elf", 62), "x86_64_v4": ("elf", 62),
    "aarch64": ("elf", 183), "aarch64:neoverse-v1": ("elf", 183), "riscv64": ("elf", 243), "wasm32": ("wasm", 0),
    "wasm32:mvp": ("wasm", 0), "macos-arm64": ("macho", 0x0100000C), "macos-x86_64": ("macho", 0x01000007),
    "windows-x86_64": ("coff", 0x8664), "aarch64-linux-android": ("elf", 183),
}  # fmt: skip


@pytest.fixture(scope="module")
def mlp() -> Any:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 300), nn.GELU(), nn.LayerNorm(300), nn.Linear(300, 7), nn.Softmax(-1)).eval()
    return graphc.export(model, (graphc.randn(5, 20),))


def compiled(files: native.NativeFiles, number: int, *arguments: object) -> list[str]:
    """What the example of an entry prints."""
    example = files.examples[number]
    assert CC is not None
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic"]
    sanitizer = ["-fsanitize=address,undefined", "-fno-sanitize-recover"]
    program = example.with_suffix("")
    for extra in (sanitizer, []):  # a compiler may lack the libraries of its sanitizers
        command = [CC, *flags, *extra, example.name, files.object_file.name, "-lm", "-o", program.name]
        done = subprocess.run(command, cwd=example.parent, capture_output=True, text=True, check=False)
        if done.returncode == 0 or not extra or "error: " in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    ran = subprocess.run([str(program), *map(str, arguments)], cwd=example.parent, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    return ran.stdout.split()


@needs_cc
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("prepare", [False, True])
def test_the_example_computes_what_the_program_does(mlp: Any, tmp_path: Path, weights: bool, prepare: bool) -> None:
    x = np.random.default_rng(0).standard_normal((5, 20), np.float32)
    x.tofile(tmp_path / "x.bin")
    files = native.export(mlp, tmp_path, name="mlp", weights=tmp_path / "mlp.weights" if weights else None, prepare=prepare,
                          threads=weights)
    numbers = np.array(compiled(files, 0, "x.bin"), np.float32)
    close([numbers.reshape(5, 7)], mlp.program(x))
    assert (files.code.entries[0].prepared > 0) == prepare
    assert (files.weights is not None) == weights
    assert not weights or len(files.code.data) < 60_000


@needs_cc
def test_sizes_are_arguments(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 49, 10)).eval()
    batch = graphc.Dim("batch", min=1, max=400)
    program = graphc.export(model, (graphc.randn(2, 3, 16, 16),), dynamic_shapes={"input": {0: batch}})
    files = native.export(program, tmp_path, name="conv", shared=True)
    entry = NativeEntry(files)
    for n in (1, 2, 3, 16, 63, 64, 65, 130, 400):
        x = np.random.default_rng(n).standard_normal((n, 3, 16, 16), np.float32)
        status, found = entry({"input": x}, {"batch": n})
        assert status == 0
        close(found, program.program(x))
    for n in (0, -1, 401, 1 << 62):
        assert entry.workspace(batch=n) == -1
        assert entry({"input": np.zeros(0, np.float32)}, {"batch": n if n < 1 else 401})[0] == -1 if n <= 401 else True
    assert " * where\n *     batch >= 1\n *     batch <= 400\n" in files.header.read_text()
    with pytest.raises(ShapeError, match=r"does not stand for these sizes\n.*batch <= 400"):
        native.export(program, tmp_path, sizes=[{"batch": 401}])
    x = np.random.default_rng(7).standard_normal((7, 3, 16, 16), np.float32)
    x.tofile(tmp_path / "x.bin")
    close([np.array(compiled(files, 0, 7, "x.bin"), np.float32).reshape(7, 10)], program.program(x))


@needs_cc
def test_sizes_that_were_named_alone(tmp_path: Path) -> None:
    # where an op needs numbers, there is code for those sizes that are named
    program = graphc.export(lambda x: (x @ x.T).tanh(), (graphc.randn(3, 4),), dynamic_shapes={"x": {0: graphc.Dim("n")}})
    files = native.export(program, tmp_path, name="f", shared=True, sizes=[{"n": 3}, {"n": 500}])
    entry = NativeEntry(files)
    for n in (3, 500):
        x = np.random.default_rng(n).standard_normal((n, 4), np.float32)
        status, found = entry({"x": x}, {"n": n})
        assert status == 0
        close(found, program.program(x))
    with pytest.raises(ArgumentError, match="no size is given for n"):
        native.export(program, tmp_path, name="f", sizes=[{"m": 3}])


def test_products_of_sizes_and_quotients_in_the_example(tmp_path: Path) -> None:
    n = graphc.Dim("n", min=2)
    program = graphc.export(lambda x: x[1::2].reshape(-1) * 2, (graphc.randn(6, 3),), dynamic_shapes={"x": {0: n}})
    files = native.export(program, tmp_path, name="f", shared=CC is not None)
    if CC is not None:
        x = np.arange(21, dtype=np.float32).reshape(7, 3)
        x.tofile(tmp_path / "x.bin")
        assert np.array(compiled(files, 0, 7, "x.bin"), np.float32).tolist() == (x[1::2].reshape(-1) * 2).tolist()
    assert "quotient(" in files.examples[0].read_text()


class Lookup(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, index: Any, other: Any) -> Any:
        return self.table(index), graphc.gather(self.table.weight, 1, other)


@needs_cc
def test_errors_are_codes(tmp_path: Path) -> None:
    program = graphc.export(Lookup().eval(), (graphc.tensor([1, 2]), graphc.tensor([[0], [3]])))
    files = native.export(program, tmp_path, name="lookup", shared=True)
    entry = NativeEntry(files)
    good = {"index": np.array([0, 9]), "other": np.array([[0], [3]])}
    status, found = entry(good)
    assert status == 0
    close(found, program.program(good["index"], good["other"]))
    errors = files.code.entries[0].errors
    assert len(errors) == 2 and all(error.at is not None and "test_native.py" in str(error.at) for error in errors)
    codes = {entry(good | {"index": np.array([10, 0])})[0], entry(good | {"other": np.array([[0], [4]])})[0]}
    assert codes == {1, 2}
    text = files.header.read_text()
    for number, size in ((1, 10), (2, 4)):
        said = rf" \* Returns {number} if [^\n]*index is out of bounds[^\n]*0 <= index < {size}[^\n]*test_native.py"
        assert re.search(said, text)


@needs_cc
@pytest.mark.parametrize("name, stem, library", [
    ("m", "m", "m_program"), ("math", "math_program", "math"), ("C", "C", "C_program"),
])  # fmt: skip
def test_files_are_not_called_as_those_of_the_system(name: str, stem: str, library: str, tmp_path: Path) -> None:
    """The example still finds the C library's header and library where ours are looked for first."""
    program = graphc.export(lambda x: x.exp() + 1, (graphc.ones(3),))
    program.save(tmp_path / f"{name}.gcz")
    files = native.export(tmp_path / f"{name}.gcz", tmp_path / "out", shared=True)
    assert [path.name for path in files.paths] == [
        f"{stem}.o", f"{stem}.h", f"{name}_forward_example.c", f"lib{library}.so"]
    program_file = tmp_path / "other.c"
    program_file.write_text(f"""
#include <math.h>
#include <stdio.h>
#include "{stem}.h"
int main(int argc, char **argv)
{{
    (void)argv;
    float x[3] = {{0, 0, 0}}, y[3];
    static char workspace[{name.upper()}_FORWARD_WORKSPACE + 1];
    int code = (int){name}_forward(x, y, workspace);
    printf("%d %g %g\\n", code, y[2], cosh(argc - 1.0));
    return 0;
}}
""")
    out = tmp_path / "out"
    assert CC is not None
    subprocess.run([CC, f"-I{out}", f"-L{out}", str(program_file), f"-l{library}", "-lm", "-o", str(tmp_path / "other")],
                   check=True)
    done = subprocess.run([str(tmp_path / "other")], capture_output=True, text=True, check=True,
                          env={**os.environ, "LD_LIBRARY_PATH": str(out)})
    assert done.stdout.split() == ["0", "2", "1"]


@needs_cc
def test_calls_at_once_and_on_threads_give_the_same_bits(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256)).eval()
    program = graphc.export(model, (graphc.randn(200, 256),))
    files = native.export(program, tmp_path, name="m", shared=True, threads=True)
    entry = NativeEntry(files)
    body_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
    loop_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, body_type, ctypes.c_void_p, ctypes.c_int64)
    counts: list[int] = []

    @loop_type
    def parallel_for(user: int, body: Any, context: int, chunks: int) -> None:
        counts.append(chunks)
        assert user == 42

        def work(first: int) -> None:
            for chunk in range(first, chunks, 3):
                body(context, chunks - 1 - chunk)

        workers = [threading.Thread(target=work, args=(first,)) for first in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    class Threads(ctypes.Structure):
        _fields_ = (("parallel_for", loop_type), ("user", ctypes.c_void_p))

    x = np.random.default_rng(0).standard_normal((200, 256), np.float32)
    alone = entry({"input": x})
    threaded = entry({"input": x}, threads=ctypes.byref(Threads(parallel_for, 42)))
    nobody = entry({"input": x}, threads=ctypes.byref(Threads()))
    assert alone[0] == threaded[0] == nobody[0] == 0 and max(counts) > 1
    np.testing.assert_array_equal(alone[1][0], threaded[1][0])
    np.testing.assert_array_equal(alone[1][0], nobody[1][0])
    close(alone[1], program.program(x))
    results: list[np.ndarray] = []
    callers = [threading.Thread(target=lambda: results.append(entry({"input": x})[1][0])) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 4 and all((result == alone[1][0]).all() for result in results)


def test_weights_do_not_take_the_place_of_the_object(tmp_path: Path) -> None:
    program = graphc.export(nn.Linear(4, 2), (graphc.ones(1, 4),))
    with pytest.raises(ArgumentError, match="is where the object or the header is written"):
        native.export(program, tmp_path, name="model", weights=tmp_path / "." / "model.o")
    assert not list(tmp_path.iterdir())


@needs_cc
def test_several_entries_share_weights_and_names_are_made_fit_for_c(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    first, second = graphc.tensor(weight), graphc.tensor(weight)
    names = ["für */ elise", "for", "For", "1st\n??/ step", "../up", "for_workspace", "reset"]
    graphs = [graphc.export(lambda x: x @ first * 2, (graphc.randn(3, 64),)).graph,
              graphc.export(lambda x: x @ second + 1, (graphc.randn(3, 64),)).graph]
    entries = {name: Entry(graphs[k % 2]) for k, name in enumerate(names)}
    program = Program(entries, {name: weight for entry in entries.values() for name in entry.weights.values()})
    files = native.export(program, tmp_path, name='int main() { return "*/ 0; }', shared=True)
    symbols = [entry.code.symbol for entry in files.signatures]
    assert len({symbol.upper() for symbol in symbols}) == len(names)
    assert all(re.fullmatch(r"int_main_return_0_\w+", symbol) for symbol in symbols)
    x = np.random.default_rng(1).standard_normal((3, 64), np.float32)
    for number, name in enumerate(names):
        status, found = NativeEntry(files, number)({"x": x})
        assert status == 0
        close(found, program.functions[name](x))
        compiled(files, number)
    assert len(files.code.data) < 1.7 * weight.nbytes + 30_000 * len(names)


@pytest.mark.parametrize(("text", "expected"), [
    ("x", "x"), ("for", "for_"), ("1x", "x1x"), ("a.b[0]", "a_b_0"), ("", "x"), ("___", "x"), ("Größe", "Gr_e"),
    ("int", "int_"), ("main", "main_"), ("x" * 300, "x" * 100),
])  # fmt: skip
def test_identifiers(text: str, expected: str) -> None:
    assert identifier(text) == expected
    assert identifier(text, {expected}) == f"{expected}_2"


def test_comments_stay_comments() -> None:
    assert comment("a */ b /* c ??/ \n d \\ ü \u202e") == "a * / b / * c ? ?/ <U+000A> d / <U+00FC> <U+202E>"
    assert "*/" not in comment("**//**//*/") and "/*" not in comment("**//**//*/")


@pytest.mark.parametrize("target", TARGETS)
def test_objects_for_other_machines(mlp: Any, tmp_path: Path, target: str) -> None:
    files = native.export(mlp, tmp_path, name="mlp", target=target)
    data = files.object_file.read_bytes()
    kind, machine = TARGETS[target]
    match kind:
        case "elf":
            assert data[:6] == b"\x7fELF\x02\x01"
            assert int.from_bytes(data[16:18], "little") == 1 and int.from_bytes(data[18:20], "little") == machine
        case "macho":
            assert data[:4] == b"\xcf\xfa\xed\xfe" and int.from_bytes(data[4:8], "little") == machine
        case "coff":
            assert int.from_bytes(data[:2], "little") == machine
        case "wasm":
            assert data[:8] == b"\0asm\1\0\0\0"
    prefix = b"_" if kind == "macho" else b""
    for symbol in ("mlp_forward", "mlp_forward_workspace", "mlp_forward_prepare"):
        assert prefix + symbol.encode() in data
    assert not re.search(rb"Py[A-Z]\w+|host_call|futex|pthread|graphc\.parking", data)
    allowed = {"_fltused", "__chkstk"} if kind == "coff" else set()
    assert set(undefined_symbols(data)) <= allowed
    if target == "riscv64":
        assert int.from_bytes(data[48:52], "little") & 6 == 4  # the calling convention with double precision in registers


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 33).half()

    def forward(self, x: Any, y: Any) -> Any:
        h = self.layer(x)
        return h.tanh(), (y.half() + 1).double(), (h.float() * 3).bfloat16() / 7, (y * 50).to(graphc.int8) // 3, h > y[:, :33]


@needs_cc
@pytest.mark.parametrize("target", ["x86_64", "x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_lesser_cpus_compute_the_same(tmp_path: Path, target: str) -> None:
    if platform.system() != "Linux" or platform.machine() != "x86_64" or not Target.for_export(target).runs_here:
        pytest.skip(f"this machine does not run code for {target}")
    graphc.manual_seed(0)
    x, y = graphc.randn(7, 24).half(), graphc.randn(7, 40).double()
    program = graphc.export(Halves().eval(), (x, y)).program
    files = native.export(program, tmp_path, name="halves", target=target, shared=True)
    status, found = NativeEntry(files)({"x": x.numpy(), "y": y.numpy()})
    assert status == 0 and not files.code.externals
    with override(cpu=files.code.cpu):
        expected = program(x.numpy(), y.numpy())
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-2, atol=1e-3)


@needs_cc
@pytest.mark.skipif(platform.system() != "Linux", reason="nm of binutils reads ELF files")
def test_symbols_as_nm_sees_them(mlp: Any, tmp_path: Path) -> None:
    files = native.export(mlp, tmp_path, name="mlp")
    done = subprocess.run(["nm", "-g", str(files.object_file)], capture_output=True, text=True, check=True)
    seen = {tuple(line.split()[-2:]) for line in done.stdout.splitlines()}
    assert seen == {("T", "mlp_forward"), ("T", "mlp_forward_workspace"), ("T", "mlp_forward_prepare")}
    remainder = graphc.export(lambda x, y: graphc.fmod(x, y), (graphc.ones(3), graphc.ones(3)))
    files = native.export(remainder, tmp_path, name="fmod")
    done = subprocess.run(["nm", "-u", str(files.object_file)], capture_output=True, text=True, check=True)
    assert tuple(line.split()[-1] for line in done.stdout.splitlines()) == files.code.externals == ("fmodf",)
    assert "fmodf (libm)" in files.header.read_text()


def test_special_functions_with_code_call_nothing(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        return graphc.erfinv(x / 4) + graphc.lgamma(x) * graphc.digamma(-x)

    files = native.export(graphc.export(function, (graphc.ones(3),)), tmp_path, name="special")
    assert not files.code.externals


def test_what_is_left_to_python_is_refused_with_its_line(tmp_path: Path) -> None:
    def ranks(x: Any) -> Any:
        return graphc.sort(x)[0] + graphc.i0(x)

    with pytest.raises(CompileError, match=r"left to Python: argsort \(at test_native.py:\d+ in ranks\), i0") as raised:
        native.export(graphc.export(ranks, (graphc.ones(3),)), tmp_path)
    assert "test_native.py" in str(raised.value)
    assert not list(tmp_path.iterdir())
    dynamic = graphc.export(ranks, (graphc.ones(3),), dynamic_shapes={"x": {0: graphc.Dim("n")}})
    with pytest.raises(CompileError, match="argsort"):
        native.export(dynamic, tmp_path)
    with pytest.raises(CompileError, match="left to Python"):
        native.export(graphc.export(lambda x: x * 1j, (graphc.ones(3),)), tmp_path)


def test_wrong_arguments(mlp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="unknown target 'z80'"):
        native.export(mlp, tmp_path, target="z80")
    with pytest.raises(ArgumentError, match="unknown CPU 'cray'"):
        native.export(mlp, tmp_path, target="aarch64:cray")
    with pytest.raises(BackendError, match="no object files are written for armv7"):
        native.export(mlp, tmp_path, target="armv7-unknown-linux-gnueabihf")
    with pytest.raises(BackendError, match="cannot generate code"):
        native.export(mlp, tmp_path, target="z80-unknown-none")
    with pytest.raises(ArgumentError, match="no entry 'backward'"):
        native.export(mlp, tmp_path, entries=["backward"])
    with pytest.raises(ArgumentTypeError, match="a int cannot be written"):
        native.export(3, tmp_path)
    monkeypatch.setattr("graphc.backends.llvm.native._MOST_DATA", 1000)
    with pytest.raises(ArgumentError, match="too large to stand in an object file"):
        native.export(mlp, tmp_path)
    native.export(mlp, tmp_path, weights=tmp_path / "beside")
    monkeypatch.undo()
    monkeypatch.setenv("CC", "false")
    with pytest.raises(BackendError, match="cannot link"):
        native.export(mlp, tmp_path, shared=True)


@needs_file_limits
def test_a_full_disk_leaves_the_files_that_there_were(tmp_path: Path) -> None:
    path = tmp_path / "model.gcz"
    graphc.save(graphc.export(nn.Linear(64, 8), (graphc.ones(2, 64),)), path)
    native.export(path, tmp_path, weights=tmp_path / "model.weights")
    graphc.save(graphc.export(nn.Linear(64, 800), (graphc.ones(2, 64),)), path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write = f"graphc.native.export({str(path)!r}, {str(tmp_path)!r}, weights={str(tmp_path / 'model.weights')!r})"
    assert without_room(write, 100_000, before="import graphc.native") == "File too large"  # the weights alone are more
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@needs_cc
@pytest.mark.parametrize("beside", [False, True])
def test_state_is_kept_in_memory_of_the_callers(tmp_path: Path, beside: bool) -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = graphc.optim.Adam(model.parameters(), lr=0.01)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = graphc.randn(8, 6), graphc.randn(8, 1)
    program = graphc.export({"step": step, "predict": model}, {"step": (x, y), "predict": (x,)}, state=True).program
    files = native.export(program, tmp_path, name="training", shared=True, weights=tmp_path / "w" if beside else None)
    train = NativeEntry(files, [entry.title.startswith("step") for entry in files.signatures].index(True))
    predict = NativeEntry(files, [entry.title.startswith("predict") for entry in files.signatures].index(True))
    predict.state = train.state
    inputs = {"x": x.numpy(), "y": y.numpy()}
    for _ in range(4):
        status, found = train(inputs)
        assert status == 0
        close(found, program.functions["step"](**inputs))
    after = predict(dict(zip(program.functions["predict"].inputs, [x.numpy()])))[1]
    close(after, program.functions["predict"](x.numpy()))
    assert train.state is not None
    for name, type_, offset in files.shared.state:
        kept = train.state.bytes[offset : offset + program.state[name].nbytes].view(type_.dtype.numpy)
        np.testing.assert_allclose(kept, program.state[name].reshape(-1), rtol=1e-5, atol=1e-7)
    compiled(files, 0)


@needs_cc
def test_a_failed_call_leaves_the_state(tmp_path: Path) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", graphc.zeros(4))

        def forward(self, index: Any) -> Any:
            self.total += 1
            return self.total[index]

    program = graphc.export(Counter().eval(), (graphc.tensor([0, 1]),), state=True)
    files = native.export(program, tmp_path, name="counter", shared=True)
    entry = NativeEntry(files)
    assert entry({"index": np.array([0, 3])})[1][0].tolist() == [1, 1]
    assert entry({"index": np.array([0, 4])})[0] == 1
    assert entry({"index": np.array([0, 3])})[1][0].tolist() == [2, 2]


@needs_cc
def test_weights_of_8_bits(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8)).eval()
    program = graphc.export(model, (graphc.randn(5, 64),), weights="int8").program
    files = native.export(program, tmp_path, name="small", shared=True)
    x = np.random.default_rng(0).standard_normal((5, 64), np.float32)
    status, found = NativeEntry(files)({"input": x})
    assert status == 0
    close(found, program(x))
    assert len(files.code.data) < 64 * 128 * 4


@needs_cc
def test_a_weight_that_two_inputs_are_bound_to(tmp_path: Path) -> None:
    builder = Builder("twice", locations=False)
    x = builder.input("x", TensorType(float32, (3,)))
    first = builder.input("a", TensorType(float32, (3,)), param="w")
    second = builder.input("b", TensorType(float32, (3,)), param="w", next=1)
    graph = builder.finish([first * x, second + first + x], ("y", "w"))
    weight = np.array([1, 2, 3], np.float32)
    program = Program({"forward": Entry(graph)}, {"w": weight})
    files = native.export(program, tmp_path, name="twice", shared=True)
    entry = NativeEntry(files)
    x = np.array([1, 1, 2], np.float32)
    for _ in range(3):
        status, found = entry({"x": x})
        assert status == 0
        close(found, program(x))
