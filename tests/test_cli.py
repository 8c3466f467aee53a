"""The `graphc` command."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from package_files import WEIGHT, linear, saved

import graphc as public
from graphc.cli import main
from graphc.config import config, override
from graphc.disk_cache import DiskCache
from graphc.parse import parse_graph, parse_graphs

GOLDEN = Path(__file__).parent / "golden"
OLD = GOLDEN / "packages" / "format_1"
MLP = str(GOLDEN / "text" / "mlp.gir")
DUPLICATES = """graph @f(%x: float32[2]) -> float32[2] {
  %0 = exp(%x) : float32[2]
  %1 = exp(%x) : float32[2]
  %2 = add(%0, %1) : float32[2]
  return %2
}
"""
X = np.random.default_rng(5).standard_normal((5, 3), np.float32)

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def graphc(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process: exit code, standard output, standard error."""

    def run(*argv: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main([str(a) for a in argv])
        out, err = capsys.readouterr()
        code = exit_.value.code
        return (code if isinstance(code, int) else 0), out, err

    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    return saved(tmp_path / "model.gcz")


def succeeded(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 0 and not err, err
    return out


def failed(result: tuple[int, str, str], *parts: str) -> None:
    code, _, err = result
    assert code == 1 and err.startswith("graphc: ") and "Traceback" not in err
    for part in parts:
        assert part in err


# inspect


def test_inspect_a_program(graphc: Command, path: Path) -> None:
    out = succeeded(graphc("inspect", path))
    assert "format 2, written by graphc" in out and '"epochs": [1, 2.5, null]' in out
    assert "forward(x: float32[N, 3]) -> (logits: float32[N, 4])\n  4 nodes, 28*N floating-point operations a call\n" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["matmul", "1", "24*N", "85.7%"] in rows and ["mul", "1", "4*N", "14.3%"] in rows
    (row,) = (line.split() for line in out.splitlines() if line.startswith("fc.weight"))
    assert row == ["fc.weight", "float32[3,", "4]", "48", "bytes", "forward,", "other"]
    assert "1 weights, 12 elements, 48 bytes" in out
    one = succeeded(graphc("inspect", path, "--entry", "other"))
    assert "other(" in one and "forward(" not in one


def test_inspect_prints_graphs_that_parse(graphc: Command, path: Path) -> None:
    graphs = parse_graphs(succeeded(graphc("inspect", path, "--graph")))
    assert len(graphs) == 2
    assert parse_graph(succeeded(graphc("inspect", path, "--graph", "--entry", "forward"))) == graphs[0]


def test_inspect_text(graphc: Command) -> None:
    out = succeeded(graphc("inspect", MLP))
    assert out.startswith("forward(x: float32[N, 784], fc.weight: float32[10, 784], fc.bias: float32[10]) -> (logits: ")
    assert "4 nodes, 15690*N floating-point operations a call" in out
    assert succeeded(graphc("inspect", "--graph", MLP)) == Path(MLP).read_text()


def test_long_names_are_not_cut_off_in_a_pipe(graphc: Command, tmp_path: Path) -> None:
    name = "layers." * 40 + "weight"
    saved(tmp_path / "m.gcz", weights={"fc.weight": WEIGHT, name: WEIGHT})
    assert name in succeeded(graphc("inspect", tmp_path / "m.gcz"))


def test_inspect_bounds_of_sizes(graphc: Command, tmp_path: Path) -> None:
    rows = public.Dim("rows", min=2, max=64)
    program = public.export(lambda x: x + 1, (public.ones(3, 2),), dynamic_shapes=[{0: rows}])
    program.save(tmp_path / "m.gcz")
    out = succeeded(graphc("inspect", tmp_path / "m.gcz"))
    assert "(x: float32[rows, 2]) -> (output: float32[rows, 2])\n  where rows >= 2, rows <= 64\n" in out


def test_inspect_what_is_none(graphc: Command, path: Path, tmp_path: Path) -> None:
    failed(graphc("inspect", tmp_path / "nothing.gcz"), "nothing.gcz: No such file")
    failed(graphc("inspect", tmp_path), "Is a directory")
    failed(graphc("inspect", path, "--entry", "x"), "has no entry 'x'", "one of forward, other")
    (tmp_path / "noise").write_bytes(b"graph\n\xff\xfe")
    failed(graphc("inspect", tmp_path / "noise"), "noise, line 2: this is not text")
    path.write_bytes(path.read_bytes()[:-1])
    failed(graphc("inspect", path), "model.gcz: it is truncated", "fix:")
    unknown = GOLDEN / "bad" / "unknown_op.gir"
    failed(graphc("inspect", unknown), "line 3, column 8", "did you mean matmul?", "at unknown_op.gir:3")


def test_inspect_symbolic_sizes_and_shared_weights(graphc: Command, tmp_path: Path) -> None:
    out = succeeded(graphc("inspect", OLD / "transformer.gcz"))
    assert "48*batch*length*length" in out and "share at 64" in out
    saved(tmp_path / "m.gcz", weights={"fc.weight": WEIGHT, "again": WEIGHT.copy()})
    rows = [line.split() for line in succeeded(graphc("inspect", tmp_path / "m.gcz")).splitlines()]
    assert ["fc.weight", "float32[3,", "4]", "as", "again", "forward,", "other"] in rows
    assert rows[-1] == ["2", "weights,", "24", "elements,", "48", "bytes"]


# diff, validate, upgrade


def test_diff(graphc: Command, path: Path, tmp_path: Path) -> None:
    other = saved(tmp_path / "other.gcz")
    assert graphc("diff", path, other) == (0, "", "")
    changed = WEIGHT.copy()
    changed[1, 2] += 0.5
    new = {"a": np.zeros(2), "d": np.zeros(3, np.int8)}
    old = {"b": np.zeros(2), "d": np.zeros(3)}
    saved(path, weights={"fc.weight": WEIGHT, **old})
    entries = {"forward": linear(4.0), "more": linear()}
    saved(other, entries=entries, weights={"fc.weight": changed, **new}, metadata={"epochs": 3})
    code, out, err = graphc("diff", path, other)
    assert code == 1 and not err
    lines = out.splitlines()
    assert [line for line in lines if "entry" in line] == ["- entry other", "+ entry more"]
    assert "-  %1 = constant() {value = 2.0} : float32[]" in lines and "+  %1 = constant() {value = 4.0} : float32[]" in lines
    assert {"- metadata epochs: [1, 2.5, null]", "+ metadata epochs: 3", "- weight b", "+ weight a"} <= set(lines)
    assert "weight d: float64[3] and int8[3]" in lines
    assert "weight fc.weight: 1 of 12 elements differ, by up to 0.5" in lines
    assert graphc("diff", "--quiet", path, other) == (1, "", "")
    assert graphc("diff", MLP, MLP) == (0, "", "")
    failed(graphc("diff", path, tmp_path / "nothing"), "nothing: No such file")


def test_validate(graphc: Command, path: Path, tmp_path: Path) -> None:
    out = succeeded(graphc("validate", "--run", path, OLD / "transformer.gcz"))
    assert f"{path}: good: format 2, 2 entries, 1 weight, " in out and "transformer.gcz: good: format 1, 1 entry, " in out
    bad = tmp_path / "bad.gcz"
    bad.write_bytes(path.read_bytes()[:-1])
    code, out, err = graphc("validate", bad, path, tmp_path / "nothing.gcz")
    assert code == 1 and out.startswith(f"{path}: good") and "bad.gcz: it is truncated" in err and "nothing.gcz: " in err


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\x00\x80 no text"])
@pytest.mark.parametrize("command", ["inspect", "diff", "run", "upgrade", "export"])
def test_files_that_are_no_programs(graphc: Command, command: str, content: bytes, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gcz"
    bad.write_bytes(content)
    others = {"diff": [MLP], "export": ["--stablehlo", "-"]}.get(command, [])
    failed(graphc(command, bad, *others), "bad.gcz: it is not a graphc file")


def test_upgrade(graphc: Command, tmp_path: Path) -> None:
    path = tmp_path / "m.gcz"
    path.write_bytes((OLD / "nested.gcz").read_bytes())
    assert succeeded(graphc("upgrade", path, "-o", tmp_path / "new.gcz")).endswith("new.gcz: from format 1 to format 2\n")
    assert path.read_bytes() == (OLD / "nested.gcz").read_bytes()
    assert "from format 1 to format 2" in succeeded(graphc("upgrade", path))
    assert path.read_bytes() == (tmp_path / "new.gcz").read_bytes()
    assert "is in format 2 already" in succeeded(graphc("upgrade", path))
    assert graphc("diff", path, OLD / "nested.gcz") == (0, "", "")
    failed(graphc("upgrade", MLP), "it is not a graphc file")


# run


def test_run(graphc: Command, path: Path, tmp_path: Path) -> None:
    y = tmp_path / "result"
    for options in (["--input", f"x={tmp_path}/x.npy", "--output", f"logits={y}"], ["-i", tmp_path / "x.npy", "-o", y]):
        y.unlink(missing_ok=True)
        assert succeeded(graphc("run", path, *options)) == ""
        np.testing.assert_allclose(np.load(y), X @ WEIGHT * 2, rtol=1e-5, atol=1e-6)
    succeeded(graphc("run", path, "--entry", "other", "--backend", "reference", "-i", f"x={tmp_path}/x.npy", "-o", y))
    np.testing.assert_allclose(np.load(y), X @ WEIGHT * 3, rtol=1e-5, atol=1e-6)
    assert "logits: float32[5, 4]\n[[" in succeeded(graphc("run", path, "-i", tmp_path / "x.npy"))


def test_run_keeps_state(graphc: Command, tmp_path: Path) -> None:
    total = public.zeros(3)
    public.export(lambda x: total.add_(x).clone(), (public.ones(3),), state=True).save(tmp_path / "sum.gcz")
    np.save(tmp_path / "x.npy", np.float32([1, 2, 3]))
    for factor in (1, 2, 3):
        options = ("-i", tmp_path / "x.npy", "-o", tmp_path / "y.npy", "--save", tmp_path / "sum.gcz")
        succeeded(graphc("run", tmp_path / "sum.gcz", *options))
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), np.float32([1, 2, 3]) * factor)
    assert "  changes total\n" in succeeded(graphc("inspect", tmp_path / "sum.gcz"))


def test_run_on_bfloat16(graphc: Command, tmp_path: Path) -> None:
    """NumPy's files do not say that they hold it: what was written can be read."""
    program, y = tmp_path / "double.gcz", tmp_path / "y.npy"
    public.export(lambda x: x * 2, (public.ones(3, dtype=public.bfloat16),)).save(program)
    np.save(tmp_path / "x.npy", public.tensor([1.0, 2.0, 3.0], dtype=public.bfloat16).numpy())
    succeeded(graphc("run", program, "-i", tmp_path / "x.npy", "-o", y))
    assert "[4 8 12]" in succeeded(graphc("run", program, "-i", y))
    np.save(y, np.ones(3, np.float32))
    failed(graphc("run", program, "-i", y), "wrong dtype", "x.astype(ml_dtypes.bfloat16)", "x.to(graphc.bfloat16)")


def test_run_without_what_it_needs(graphc: Command, path: Path, tmp_path: Path) -> None:
    x = f"x={tmp_path}/x.npy"
    failed(graphc("run", path), "no 'x' was given", "expected: forward(x: float32[N, 3])")
    failed(graphc("run", path, "-i", f"y={tmp_path}/x.npy"), "there is no input 'y'")
    failed(graphc("run", path, "-i", x, "-i", x), "--input x is given twice")
    failed(graphc("run", path, "-i", x, "-o", "b=c.npy"), "there is no output 'b'")
    failed(graphc("run", path, "-i", x, "--entry", "b"), "has no entry 'b'")
    failed(graphc("run", path, "-i", x, "--backend", "b"), "b")
    failed(graphc("run", path, "-i", "x=/nowhere/x.npy"), "/nowhere/x.npy: No such file")
    failed(graphc("run", path, "-i", x, "-o", "/nowhere/y.npy"), "/nowhere/y.npy: No such file")
    failed(graphc("run", MLP, "-i", x), "it is not a graphc file")
    np.save(tmp_path / "x.npy", X.astype(float))
    failed(graphc("run", path, "-i", x), "wrong dtype", "float64[5, 3]")


def test_run_never_unpickles(graphc: Command, path: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([print], dtype=object), allow_pickle=True)
    failed(graphc("run", path, "-i", tmp_path / "x.npy"), "is not a .npy file of numbers")
    (tmp_path / "x.npy").write_bytes(b"junk")
    failed(graphc("run", path, "-i", tmp_path / "x.npy"), "is not a .npy file of numbers\n  fix:      write it with numpy")
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY")
    failed(graphc("run", path, "-i", tmp_path / "x.npy"), "is not a .npy file of numbers")
    (tmp_path / "x.npy").write_bytes(b"")
    failed(graphc("run", path, "-i", tmp_path / "x.npy"), "is not a .npy file of numbers")
    np.savez(tmp_path / "x.npz", a=X, b=X)
    failed(graphc("run", path, "-i", tmp_path / "x.npz"), "holds several arrays")


# opt


def test_opt(graphc: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = tmp_path / "f.gir", tmp_path / "out.gir"
    file.write_text(DUPLICATES)
    merged = parse_graph(succeeded(graphc("opt", file, "-p", "cse", "--verify")))
    assert [node.op.name for node in merged.nodes] == ["exp", "add"]
    assert succeeded(graphc("opt", file, "-p", "cse,simplify", "-o", out)) == ""
    assert len(parse_graph(out.read_text()).nodes) == 2
    assert parse_graph(succeeded(graphc("opt", file, "-p", ""))) == parse_graph(DUPLICATES)
    assert len(parse_graph(succeeded(graphc("opt", file))).nodes) == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(DUPLICATES.encode())))
    assert parse_graph(succeeded(graphc("opt", "-", "-p", "cse"))) == merged


def test_opt_prints_each_step(graphc: Command, tmp_path: Path) -> None:
    (tmp_path / "f.gir").write_text(DUPLICATES)
    out = succeeded(graphc("opt", tmp_path / "f.gir", "-p", "simplify,cse", "--print-all"))
    assert out.index("# after simplify\ngraph") < out.index("# after cse\ngraph")
    assert [len(graph.nodes) for graph in parse_graphs(out)] == [3, 2]


def test_opt_takes_several_graphs_and_programs(graphc: Command, path: Path, tmp_path: Path) -> None:
    (tmp_path / "two.gir").write_text(DUPLICATES + DUPLICATES)
    assert len(parse_graphs(succeeded(graphc("opt", tmp_path / "two.gir", "-p", "cse")))) == 2
    assert len(parse_graphs(succeeded(graphc("opt", path, "-p", "cse")))) == 2


def test_opt_lists_the_passes(graphc: Command) -> None:
    lines = succeeded(graphc("opt", "--list")).splitlines()
    assert {"cse", "simplify"} <= {line.split()[0] for line in lines} and all(len(line.split()) > 2 for line in lines)


def test_opt_mistakes(graphc: Command) -> None:
    failed(graphc("opt", MLP, "-p", "simplfy"), "there is no pass 'simplfy'", "did you mean simplify?")
    failed(graphc("opt", GOLDEN / "bad" / "wrong_type.gir", "-p", "cse"), "line 3, column 8", "expected: float32[2, 10]")


# cache, and the command itself


def test_cache(graphc: Command, tmp_path: Path) -> None:
    with override(cache_dir=tmp_path / "cache"):
        DiskCache.configured().put("key", b"x" * 1000)
        (tmp_path / "cache" / "mine.txt").write_text("not an entry")
        out = succeeded(graphc("cache"))
        assert str(tmp_path / "cache") in out and "entries  1" in out
        assert succeeded(graphc("cache", "clear")) == "deleted 1 entries\n"
        assert "entries  0" in succeeded(graphc("cache"))
        assert (tmp_path / "cache" / "mine.txt").exists(), "what is not an entry stays"
    with override(cache_dir=None):
        assert "switched off" in succeeded(graphc("cache"))
        assert succeeded(graphc("cache", "clear")) == "deleted 0 entries\n"


def test_version_and_help(graphc: Command) -> None:
    assert succeeded(graphc("--version")).startswith("graphc 0.")
    out = succeeded(graphc("--help"))
    assert all(command in out for command in ("inspect", "run", "opt", "cache"))
    for command in ("inspect", "run", "opt", "cache"):
        assert "Usage: graphc" in succeeded(graphc(command, "--help"))


@pytest.mark.parametrize("argv", [["what"], ["run"], ["inspect", "a", "b"], ["opt", "--what"]])
def test_wrong_usage(graphc: Command, argv: list[str]) -> None:
    code, _, err = graphc(*argv)
    assert code == 2 and "Usage: graphc" in err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with override(debug=1), pytest.raises(FileNotFoundError):
        main(["inspect", str(tmp_path / "nothing")])
    assert config.debug == 0


def test_as_a_module_and_quick(tmp_path: Path) -> None:
    """`python -m graphc` works, and its help imports nothing heavy."""
    code = """
import sys
from graphc.cli import main
try:
    main(["--help"])
except SystemExit:
    heavy = {"numpy", "lark", "llvmlite", "graphc.frontend"} & set(sys.modules)
    assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    module = [sys.executable, "-m", "graphc"]
    version = subprocess.run([*module, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert version.stdout.startswith("graphc ")
    broken = subprocess.run([*module, "inspect", "nothing"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert broken.returncode == 1 and broken.stderr == "graphc: nothing: No such file or directory\n"


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that turns sums into differences."""
    from graphc import ops
    from graphc.compiler import clear_cache
    from graphc.passes import simplify
    from graphc.rewrite import Rule, Var

    x, y = Var("x"), Var("y")
    wrong = Rule("add_is_sub", ops.add(x, y), lambda x, y: ops.sub(x, y))
    monkeypatch.setattr(simplify, "RULES", [*simplify.RULES, wrong])
    clear_cache()


def test_bisect_names_the_rule(graphc: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "agrees" in succeeded(graphc("bisect", MLP))
    broken(monkeypatch)
    code, out, _ = graphc("bisect", MLP)
    assert code == 1
    assert "add_is_sub at <add(" in out


def test_minify_writes_what_is_left(graphc: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failed(graphc("minify", MLP), "does not fail")
    broken(monkeypatch)
    assert "add(" in succeeded(graphc("minify", MLP))
    said = succeeded(graphc("minify", MLP, "-o", tmp_path / "small.gir"))
    assert "1 nodes, wrong" in said
    (node,) = parse_graph((tmp_path / "small.gir").read_text(encoding="utf-8")).nodes
    assert node.op.name == "add"


def test_cases_take_inputs_from_files(graphc: Command, path: Path, tmp_path: Path) -> None:
    assert "agrees" in succeeded(graphc("bisect", path, "-i", f"x={tmp_path / 'x.npy'}"))
    np.savez(tmp_path / "x.npz", x=X)
    assert "agrees" in succeeded(graphc("bisect", path, "--inputs", tmp_path / "x.npz"))
    failed(graphc("bisect", path, "-i", f"y={tmp_path / 'x.npy'}"), "no input 'y'")
    failed(graphc("bisect", path, "--entry", "nothing"), "no graph 'nothing'")


# export


def test_export_native_and_stablehlo(graphc: Command, path: Path, tmp_path: Path) -> None:
    there = tmp_path / "build"
    out = succeeded(graphc("export", path, "--native", there, "--name", "m", "--target", "aarch64", "--entry", "forward"))
    assert [Path(line.partition(":")[0]).name for line in out.splitlines()] == ["m.o", "m.h", "m_forward_example.c"]
    assert (there / "m.o").read_bytes()[:4] == b"\x7fELF"
    out = succeeded(graphc("export", path, "--native", tmp_path, "--sizes", "N=4", "--weights", tmp_path / "w.safetensors"))
    assert "w.safetensors" in out and (tmp_path / "w.safetensors").stat().st_size > WEIGHT.nbytes
    failed(graphc("export", path, "--native", tmp_path, "--sizes", "N"), "--sizes N", "each size once with a number")
    failed(graphc("export", path, "--native", tmp_path, "--target", "z80"), "unknown target 'z80'")
    text = succeeded(graphc("export", path, "--stablehlo", "-", "--sizes", "N=4", "--entry", "other"))
    assert text.startswith("module @") and "tensor<4x3xf32>" in text
    succeeded(graphc("export", path, "--stablehlo", tmp_path / "m.mlir", "--sizes", "N=4", "--entry", "other"))
    assert (tmp_path / "m.mlir").read_text() == text
    failed(graphc("export", path, "--stablehlo", "-"), "N is none")
    failed(graphc("export", path), "one format")
    failed(graphc("export", path, "--stablehlo", "-", "--native", tmp_path), "one format")


def test_export_to_onnx(graphc: Command, path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the onnx package is not installed")
    target = path.with_suffix(".onnx")
    assert "opset 19" in succeeded(graphc("export", path, "--onnx", target, "--opset", 19))
    assert [value.name for value in onnx.load(target).graph.input] == ["x"]
    failed(graphc("export", path, "--onnx", target, "--entry", "forward", "--entry", "other"), "of 2 entries", "one --entry")
    failed(graphc("export", path), "one format", "--onnx")
    failed(graphc("export", path, "--onnx", target, "--opset", 3), "opset 3", "18 to 23")
    back = path.with_name("back.gcz")
    assert "forward(x: float32[" in succeeded(graphc("import", target, back, "--shape", "x=rows,3"))
    assert "rows" in succeeded(graphc("inspect", back))
    failed(graphc("import", path, back), "not an ONNX model")
    failed(graphc("import", target, back, "--shape", "x"), "expected: NAME=")
