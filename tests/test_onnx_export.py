"""ONNX models made of graphs: checked by onnx, run by onnxruntime, and compared with the definitions of the ops."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import needs_file_limits, without_room
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx_runs import BATCH, TIME, Everything, agrees, operators, run
from op_samples import draw, graph_of
from random_graphs import Maker

import graphc
from graphc import nn
from graphc.errors import ArgumentError, BackendError, ShapeError, UnsupportedError
from graphc.interpret import interpret
from graphc.onnx_format import MAX_OPSET, MIN_OPSET, read_onnx, write_onnx
from graphc.op import OPS, OpDef, Sample
from graphc.package import Entry
from graphc.parse import parse_graph

onnx = pytest.importorskip("onnx", reason="the onnx package is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

# Every op that ONNX has

SPECIAL = """
    airy_ai airy_ai_prime bessel_j0 bessel_j1 bessel_k0 bessel_k0e bessel_k1 bessel_k1e bessel_y0 bessel_y1 digamma erfcx erfinv
    exponent i0 i0e i1 i1e igamma igammac lgamma log_ndtr ndtri nextafter polygamma polynomial zeta
"""
MATRICES = """
    cholesky cholesky_solve cofactor eig eigh eigvals eigvalsh geqrf inv ldl_factor ldl_solve lstsq lu_factor matrix_exp
    permutation pinv qr slogdet solve svd svdvals triangular_solve
"""
COMPLEX = "complex conj fft_c2c fft_c2r fft_r2c imag real sgn view_as_complex view_as_real"
LACKING = {*SPECIAL.split(), *MATRICES.split(), *COMPLEX.split(), "random_bits"}


def is_complex(record: OpDef, sample: Sample) -> bool:
    graph = graph_of(record, sample, draw(sample, record.name))
    return any(value.dtype.is_complex for value in graph.values())


CASES = {f"{r.name}-{n}": (r, s) for r in OPS.values() if r.name not in LACKING for n, s in enumerate(r.samples)}
REAL = {name: case for name, case in CASES.items() if not is_complex(*case)}


@pytest.mark.parametrize("name", REAL)
def test_ops(name: str) -> None:
    record, sample = REAL[name]
    arrays = draw(sample, name)
    graph = graph_of(record, sample, arrays)
    for theirs, ours in zip(run(write_onnx(Entry(graph), {}), arrays), interpret(graph, arrays), strict=True):
        assert theirs.dtype == ours.dtype and theirs.shape == ours.shape
        np.testing.assert_allclose(theirs, ours, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", sorted(LACKING))
def test_ops_that_onnx_lacks_are_named(name: str) -> None:
    record = OPS[name]
    graph = graph_of(record, record.samples[0], draw(record.samples[0], name))
    with pytest.raises(UnsupportedError, match=f"ONNX has no operator for {name}.*\n.*got:.*\n.*fix:"):
        write_onnx(Entry(graph), {})


def test_an_op_that_onnx_lacks_is_reported_with_its_line() -> None:
    def function(x: graphc.Tensor) -> graphc.Tensor:
        return graphc.lgamma(x)

    with pytest.raises(UnsupportedError, match=r"test_onnx_export.py:\d+ in function"):
        graphc.onnx.export(function, (graphc.ones(3),))


# Models


@pytest.mark.parametrize("opset", range(MIN_OPSET, MAX_OPSET + 1))
def test_opsets(opset: int) -> None:
    model = agrees(Everything().eval(), (graphc.randn(2, 1, 8, 8),), opset=opset)
    assert model.opset_import[0].version == opset
    agrees(nn.LSTM(3, 4).eval(), (graphc.randn(5, 2, 3),), opset=opset)


def test_resnet() -> None:
    from models.resnet import resnet18

    model = agrees(resnet18().eval(), (graphc.randn(1, 3, 64, 64),), dynamic={"x": {0: BATCH}})
    assert set(operators(model)) == {
        "Add", "BatchNormalization", "Conv", "Gemm", "MaxPool", "ReduceMean", "Relu", "Reshape"}


def test_gpt_on_any_batch_and_length() -> None:
    from models.gpt import GPT, GPTConfig

    gpt = GPT(GPTConfig(block_size=32, vocab_size=20, n_layer=2, n_head=2, n_embd=32)).eval()
    agrees(gpt, (graphc.randint(0, 20, (2, 9)),), (graphc.randint(0, 20, (3, 13)),), (graphc.randint(0, 20, (1, 1)),),
           dynamic=({0: BATCH, 1: TIME},))


@pytest.mark.parametrize("layer, count", [
    (nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), 4), (nn.GRU(3, 4, batch_first=True), 1),
    (nn.RNN(3, 4, batch_first=True), 1), (nn.RNN(3, 4, 2, nonlinearity="relu", bias=False, batch_first=True), 2),
    (nn.GRU(3, 4, 1, bias=False, bidirectional=True, batch_first=True), 2), (nn.LSTM(3, 4, bias=False, batch_first=True), 1),
], ids=str)
def test_recurrent_layers_on_any_batch_and_length(layer: Any, count: int) -> None:
    x = graphc.randn(2, 5, 3)
    model = agrees(layer.eval(), (x,), (graphc.randn(1, 9, 3),), dynamic=({0: BATCH, 1: TIME},))
    assert operators(model).count(layer.mode.partition("_")[0]) == count and "Scan" not in operators(model)
    back = read_onnx(model.SerializeToString())(x.numpy())
    np.testing.assert_allclose(back[0], layer(x)[0].detach().numpy(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("layer, states", [(nn.LSTM(3, 4), 2), (nn.GRU(3, 4), 1), (nn.RNN(3, 4), 1)], ids=str)
def test_recurrent_layers_that_go_on(layer: Any, states: int) -> None:
    given = [graphc.randn(1, 2, 4) for _ in range(states)]

    def function(x: graphc.Tensor, *state: graphc.Tensor) -> Any:
        y, last = layer(x, state if states == 2 else state[0])
        return y, *(last if states == 2 else (last,))

    model = agrees(function, (graphc.randn(5, 2, 3), *given))
    assert layer.mode.partition("_")[0] in operators(model)


def test_other_recurrences_are_scans() -> None:
    """A projection, doubles, and cells whose gates stand in another order, or end otherwise."""
    x = graphc.randn(5, 2, 3)
    for layer, sequence in ((nn.LSTM(3, 4, proj_size=2), x), (nn.GRU(3, 4).double(), x.double())):
        assert "Scan" in operators(agrees(layer.eval(), (sequence,)))
    w, r = graphc.randn(16, 3), graphc.randn(16, 4)

    def layer_of(order: tuple[int, ...], end: Callable[[graphc.Tensor], graphc.Tensor]) -> Callable[..., Any]:
        def step(carry: Any, row: graphc.Tensor) -> Any:
            hidden, state = carry
            gates = (row + hidden @ r.t()).chunk(4, 1)
            into, forget, cell, out = (gates[i] for i in order)
            state = forget.sigmoid() * state + into.sigmoid() * cell.tanh()
            hidden = out.sigmoid() * end(state)
            return (hidden, state), hidden

        def function(x: graphc.Tensor) -> Any:
            zero = graphc.zeros(2, 4)
            rows = (x.reshape(10, 3) @ w.t()).reshape(5, 2, 16)
            return graphc.scan(step, (zero, zero), rows)[1]

        return function

    for order, end, expected in (((0, 1, 2, 3), graphc.tanh, "LSTM"), ((3, 1, 2, 0), graphc.tanh, "Scan"),
                                 ((0, 1, 2, 3), graphc.relu, "Scan")):  # fmt: skip
        assert expected in operators(agrees(layer_of(order, end), (x,)))


def test_digits() -> None:
    import digits

    model = next(v for v in vars(digits).values() if isinstance(v, type) and issubclass(v, nn.Module))()
    agrees(model.eval(), (graphc.rand(4, 1, 8, 8),), (graphc.rand(7, 1, 8, 8),), dynamic=({0: BATCH},))


# Control flow


def test_branches_and_loops() -> None:
    def branch(x: graphc.Tensor) -> graphc.Tensor:
        y = x * 2
        return graphc.cond(x.sum() > 0, lambda a: (a + y).exp(), lambda a: -a, (x,))

    assert "If" in operators(agrees(branch, (graphc.ones(3),), (-graphc.ones(3),)))

    def root(x: graphc.Tensor) -> graphc.Tensor:
        return graphc.while_loop(lambda y: (y * y - x).abs().max() > 1e-4, lambda y: (y + x / y) / 2, (x,))[0]

    assert "Loop" in operators(agrees(root, (graphc.tensor([2.0, 9.0]),), (graphc.tensor([1.0, 1.0]),)))

    def sums(x: graphc.Tensor) -> Any:
        return graphc.scan(lambda carry, row: (carry + row, carry * row), x[0], x)

    agrees(sums, (graphc.randn(4, 3),), (graphc.randn(7, 3),), dynamic=({0: graphc.Dim("rows", min=2)},))


def test_derivatives_of_loops() -> None:
    def slope(x: graphc.Tensor, a: graphc.Tensor) -> Any:
        x, a = x.detach().requires_grad_(), a.detach().requires_grad_()
        y = graphc.while_loop(lambda y: y.abs().max() < 10, lambda y: y * a + 1, (x,))[0]
        return graphc.autograd.grad((y * y).sum(), (x, a))

    rows = graphc.Dim("rows")
    args = graphc.tensor([[1.0, -2.0]]), graphc.tensor([[1.5, 2.0]])
    others = [(graphc.randn(n, 2), graphc.tensor([[1.5, 2.0]])) for n in (3, 5)]
    model = agrees(slope, args, *others, (graphc.full((2, 2), 11.0), args[1]), dynamic=({0: rows}, None))
    assert operators(model).count("Loop") == 3  # the loop, once more with what it keeps, and back


def test_a_branch_that_returns_what_it_takes() -> None:
    def branch(x: graphc.Tensor, y: graphc.Tensor) -> Any:
        return graphc.cond(x.sum() > 0, lambda a, b: (a, b), lambda a, b: (b, a), (x, y))

    agrees(branch, (graphc.ones(3), graphc.zeros(3)), (-graphc.ones(3), graphc.zeros(3)))


# Programs with state, and with narrow weights


def test_a_training_step_whose_caller_keeps_the_state() -> None:
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = graphc.optim.Adam(model.parameters(), lr=1e-2)

    def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = graphc.randn(8, 6), graphc.randn(8, 2)
    program = graphc.export(step, (x, y), state=True)
    exported = graphc.onnx.export(program)
    (state,) = (json.loads(prop.value) for prop in exported.metadata_props if prop.key == "graphc.state")
    assert state["model.0.weight"] == "next.model.0.weight" and set(state) < set(program.state)
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["x", "y"]
    assert {value.name for value in session.get_overridable_initializers()} == set(program.state)
    names = [value.name for value in session.get_outputs()]
    kept: dict[str, np.ndarray] = {"opt.lr": np.float32(1e-2)} if "opt.lr" in state else {}
    for _ in range(4):
        found = dict(zip(names, session.run(None, {"x": x.numpy(), "y": y.numpy(), **kept}), strict=True))
        kept |= {name: found[following] for name, following in state.items()}
        np.testing.assert_allclose(found["output"], program(x, y).numpy(), rtol=1e-4)
    for name, array in kept.items():
        np.testing.assert_allclose(array, program.state[name].numpy(), rtol=1e-3, atol=1e-5)
    (loss, *_) = run(graphc.onnx.export(program), [x.numpy(), y.numpy()])  # from here on
    np.testing.assert_allclose(loss, program(x, y).numpy(), rtol=1e-4)


def test_a_recurrent_network_with_state(tmp_path: Path) -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", graphc.zeros(3))
            self.cell = nn.GRUCell(2, 3)

        def forward(self, x: graphc.Tensor) -> graphc.Tensor:
            self.total.copy_(self.cell(x, self.total))
            return self.total * 2

    program = graphc.export(Counter().eval(), (graphc.ones(2),), state=True)
    program.save(tmp_path / "counter.gcz")
    exported = graphc.onnx.export(tmp_path / "counter.gcz", input_names=["total"])  # which the state is called, too
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    (state,) = (json.loads(prop.value) for prop in exported.metadata_props)
    kept: dict[str, np.ndarray] = {}
    for _ in range(3):
        x = np.random.default_rng(0).standard_normal(2).astype(np.float32)
        result, following = session.run(None, {"total": x, **kept})
        kept = dict.fromkeys(state, following)
        np.testing.assert_allclose(result, program(graphc.tensor(x)).numpy(), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int8", "bfloat16", "float16"])
def test_weights_of_fewer_bits(dtype: str) -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)).eval()
    program = graphc.export(model, (graphc.randn(2, 8, 8, 8),), weights=dtype)
    exported = graphc.onnx.export(program)
    wide = [i for i in exported.graph.initializer if i.data_type == onnx.TensorProto.FLOAT and np.prod(i.dims) >= 512]
    assert not wide
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(exported, [x])[0], program.program(x), rtol=1e-3, atol=1e-4)


# Sizes


def test_sizes_that_are_computed() -> None:
    def function(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        rows, columns = x.shape
        halves = x.reshape(rows // 2, 2, columns).sum(1) / columns
        return graphc.cat([halves.flatten(), (y.expand(rows, 3) * x[:, :1]).flatten()])

    rows, columns = graphc.Dim("rows", min=1), graphc.Dim("columns", min=2)
    args = graphc.randn(8, 5), graphc.randn(1, 3)
    agrees(function, args, (graphc.randn(4, 3), args[1]), dynamic=({0: 2 * rows, 1: columns}, None))


def test_no_rows() -> None:
    agrees(nn.Linear(3, 2), (graphc.randn(4, 3),), (graphc.randn(0, 3),), dynamic=({0: graphc.Dim("rows", min=0)},))


def test_a_size_that_no_input_tells() -> None:
    graph = parse_graph("""
graph @f(%x: float32[M*N]) -> float32[M, N] {
  %0 = reshape(%x) {shape = [M, N]} : float32[M, N]
  return %0
}""")
    with pytest.raises(ShapeError, match="is not a dimension of an input"):
        write_onnx(Entry(graph), {})


# Random graphs, and corners that they have found


@settings(max_examples=30)
@given(st.integers(0, 1 << 32))
def test_random_graphs_there_and_back(seed: int) -> None:
    made = Maker(seed, 8, largest=300)
    assume(all(n.op.name != "random_bits" for n in made.graph.nodes))
    model = read_onnx(write_onnx(Entry(made.graph), {}).SerializeToString(), backend="reference")
    with np.errstate(all="ignore"):
        expected = interpret(made.graph, made.arrays)
    for theirs, ours in zip(model(*made.arrays), expected, strict=True):
        assert theirs.dtype == ours.dtype and theirs.shape == ours.shape
        tolerance = 0.0 if ours.dtype.kind in "biu" else 2e-2 if ours.dtype.itemsize == 2 else 2e-4
        np.testing.assert_allclose(theirs, ours, rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "uint8", "uint16", "uint32", "uint64"])
def test_products_of_integers_that_onnx_has_none_of(dtype: str) -> None:
    graph = parse_graph(f"""
graph @f(%x: {dtype}[2, 2]) -> {dtype}[2, 2] {{
  %0 = matmul(%x, %x) : {dtype}[2, 2]
  return %0
}}""")
    x = np.array([[1, 1], [0, 1]]).astype(dtype)
    (theirs,) = run(write_onnx(Entry(graph), {}), [x])
    assert theirs.dtype == x.dtype and (theirs == interpret(graph, [x])[0]).all()


def test_shifts_of_negative_numbers() -> None:
    x, by = np.array([-5, 5, -1, -(1 << 63)]), np.array([1, 1, 63, 63])
    graph = parse_graph("""
graph @f(%x: int64[4], %y: int64[4]) -> int64[4] {
  %0 = shift_right(%x, %y) : int64[4]
  return %0
}""")
    assert run(write_onnx(Entry(graph), {}), [x, by])[0].tolist() == [-3, 2, -1, -1]


@pytest.mark.parametrize("text", [
    "graph @f(%x: float32[]) -> float32[] {\n  %0 = permute(%x) {order = []} : float32[]\n  return %0\n}",
    "graph @f(%x: float32[]) -> float32[] {\n  %0 = pad(%x) {low = [], high = [], value = 0.0} : float32[]\n  return %0\n}",
    "graph @f(%x: float32[]) -> float32[] {\n  %0 = amax(%x) {axes = []} : float32[]\n  return %0\n}",
    "graph @f(%x: float32[]) -> float32[] {\n  return %x\n}",
])
def test_numbers_without_dimensions(text: str) -> None:
    assert run(write_onnx(Entry(parse_graph(text)), {}), [np.array(3, np.float32)])[0] == 3


# Names, files, mistakes


def test_names() -> None:
    program = graphc.export(lambda a, b: (a + b, a, a), (graphc.ones(2), graphc.ones(2)))
    model = graphc.onnx.export(program, input_names=["left", "right:0"], output_names=["sum", "same", "again"])
    assert [value.name for value in model.graph.input] == ["left", "right:0"]
    assert [value.name for value in model.graph.output] == ["sum", "same", "again"]
    assert [x.tolist() for x in run(model, [np.ones(2, np.float32)] * 2)] == [[2, 2], [1, 1], [1, 1]]
    with pytest.raises(ArgumentError, match="a name for each of"):
        graphc.onnx.export(program, input_names=["a"])
    with pytest.raises(ArgumentError, match="two inputs or outputs are called 'a'"):
        graphc.onnx.export(program, output_names=["x", "y", "a"])


def test_results_that_are_called_as_arguments_are() -> None:
    program = graphc.export(lambda a, b: {"a": a + b, "a_1": a, "c": b}, (graphc.ones(2), graphc.ones(2)))
    model = graphc.onnx.export(program)
    assert [value.name for value in model.graph.input] == ["a", "b"]
    assert [value.name for value in model.graph.output] == ["a_2", "a_1", "c"]
    assert [x.tolist() for x in run(model, [np.ones(2, np.float32)] * 2)] == [[2, 2], [1, 1], [1, 1]]


@pytest.mark.parametrize("dtype", [graphc.float16, graphc.float64, graphc.int64, graphc.uint8, graphc.bool, graphc.bfloat16])
def test_dtypes_of_weights(dtype: graphc.DType) -> None:
    weight = graphc.arange(6).reshape(2, 3).to(dtype).clone()
    model = graphc.onnx.export(lambda x: graphc.where(x, weight, weight), (graphc.ones(2, 3, dtype=graphc.bool),))
    kept = onnx.numpy_helper.to_array(model.graph.initializer[0])
    assert kept.astype(np.float64).tolist() == weight.to(graphc.float64).tolist()


def test_files(tmp_path: Path) -> None:
    layer, x = nn.Linear(64, 8), graphc.randn(2, 64)
    graphc.save(graphc.export(layer, (x,)), tmp_path / "model.gcz")
    expected = layer(x).detach().numpy()
    for outside in (False, True):
        path = tmp_path / f"{outside}.onnx"
        graphc.onnx.export(tmp_path / "model.gcz", path=path, external_data=outside)
        assert (tmp_path / f"{outside}.onnx.data").exists() is outside
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ArgumentError, match="in a file of their own"):
        graphc.onnx.export(layer, (x,), external_data=True)


@pytest.mark.parametrize("outside", [False, True])
def test_a_model_that_does_not_pass_the_checker_replaces_none(
    outside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    graphc.onnx.export(nn.Linear(64, 8), (graphc.ones(2, 64),), path, external_data=outside)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def refuse(*model: object, **options: object) -> None:
        raise onnx.checker.ValidationError("no such operator")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(onnx.checker.ValidationError, match="no such operator"):
        graphc.onnx.export(nn.Linear(64, 80), (graphc.ones(2, 64),), path, external_data=outside)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@needs_file_limits
@pytest.mark.parametrize("outside", [False, True])
def test_a_full_disk_leaves_the_model_that_there_was(outside: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    graphc.onnx.export(nn.Linear(64, 8), (graphc.ones(2, 64),), path, external_data=outside)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write = f"graphc.onnx.export(graphc.nn.Linear(64, 80), (graphc.ones(2, 64),), {str(path)!r}, external_data={outside})"
    assert without_room(write, 4096) == "File too large"
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_mistakes() -> None:
    with pytest.raises(ArgumentError, match="opset 12"):
        graphc.onnx.export(nn.Linear(2, 1), (graphc.ones(1, 2),), opset=12)
    with pytest.raises(ArgumentError, match="returns no tensor"):
        graphc.onnx.export(lambda x: None, (graphc.ones(2),))
    with pytest.raises(ArgumentError, match="no arguments to trace"):
        graphc.onnx.export(nn.Linear(2, 1))
    with pytest.raises(ArgumentError, match="traced already"):
        graphc.onnx.export(graphc.export(nn.Linear(2, 1), (graphc.ones(1, 2),)), (graphc.ones(1, 2),))


def test_without_the_onnx_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BackendError, match=r"pip install 'graphc\[onnx\]'"):
        graphc.onnx.load(b"")
