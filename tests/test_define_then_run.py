"""Graphs that are written by hand: what is recorded, under which names, with which sizes; and their numbers against eager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentError, ArgumentTypeError, AutogradError, ShapeError, TraceError
from graphc.frontend.func import grad, vmap
from graphc.verify import verify

F = nn.functional


@pytest.fixture
def graph() -> graphc.Graph:
    return graphc.Graph("tested")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Small programs, each run from a graph of unknown sizes and eagerly, with its derivatives


def in_place(x: Any) -> Any:
    y = x * 2
    y += 1
    y[:, 0] = 5.0
    y[1:].mul_(x[1:])
    return y


def through_views(x: Any) -> Any:
    y = x.clone()
    part = y[:, 1:]
    part.add_(x[:, :1])
    y.t()[0].zero_()
    return part * y[:, :2]


def out_argument(x: Any) -> Any:
    target = graphc.zeros(3)
    graphc.sum(x.detach(), dim=0, out=target)
    return target * x


def newton(x: Any) -> Any:
    y = x
    for _ in range(4):
        y = y - (y**2 - 2 - x**2) / (2 * y + 3)
    return y


def penalty(x: Any) -> Any:
    return vmap(grad(lambda v: (v.sin() * v).sum()))(x) ** 2


class Clipped(graphc.autograd.Function):
    """An operation whose derivative is not that of what it computes."""

    @staticmethod
    def forward(ctx: Any, x: Any, limit: float) -> Any:
        ctx.save_for_backward(x)
        return x.clamp(-limit, limit)

    @staticmethod
    def backward(ctx: Any, cotangent: Any) -> Any:
        (x,) = ctx.saved_tensors
        return cotangent * x * 3, None


@graphc.compile
def compiled(x: Any) -> Any:
    return x.tanh() * x.shape[0]


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "in place": in_place,
    "views": through_views,
    "out": out_argument,
    "newton": newton,
    "transforms": penalty,
    "custom function": lambda x: Clipped.apply(x * 2, 0.5) * x,
    "compiled inside": lambda x: compiled(x) + compiled(x * 2),
    "no_grad": lambda x: x * _without_gradient(x),
    "detach": lambda x: x * x.detach(),
    "mean and std": lambda x: (x - x.mean(0)) / (x.std(0) + 1e-3),
    "size as number": lambda x: x.sum(0) / x.shape[0] + x.shape[0] ** 2 * x.size(0),
    "inverse of size": lambda x: x * (1.0 / x.shape[0]) ** 0.5,
    "reshape": lambda x: x.reshape(-1).view(x.shape[0], -1).reshape(3, -1).t().contiguous().flatten(),
    "unbind": lambda x: graphc.stack([a * i for i, a in enumerate(x.unbind(1))], 1),
    "gram": lambda x: graphc.einsum("ni,nj->ij", x, x) + x.t() @ x,
    "pairwise": lambda x: (x[:, None] - x[None]).abs().sum(-1),
    "softmax": lambda x: F.log_softmax(x, 1) * F.softmax(x, 0),
    "where": lambda x: graphc.where(x > 0, x.exp(), -x).masked_fill(x > 1, 0.0),
    "gather": lambda x: x.gather(1, x.argsort(dim=1)) * graphc.arange(3.0),
    "sort": lambda x: x.sort(dim=0)[0] + x.cumsum(0),
    "top": lambda x: x.topk(2, dim=1)[0].sum(1) * x.amax(1) + x.min(dim=1)[0],
    "norm": lambda x: F.normalize(x, dim=1) + x.norm() + x.logsumexp(0),
    "pad": lambda x: F.pad(x, (1, 2, 1, 0)),
    "roll": lambda x: x.roll(1, 0) * x.flip(1) + graphc.cat([x[1:], x[:1]]),
    "dtypes": lambda x: (x.double() * 2).float() + x.to(graphc.bfloat16).float() + (x > 0).int(),
    "linear": lambda x: F.gelu(F.linear(x, graphc.ones(4, 3) * 0.1, graphc.zeros(4))),
    "literal": lambda x: x * graphc.tensor([1.0, -2.0, 3.0]) + graphc.tensor(0.5),
    "counters": lambda x: x * graphc.arange(x.shape[0])[:, None] + graphc.eye(3).sum(0),
    "full": lambda x: x * graphc.full((x.shape[0], 1), 2.0) + graphc.zeros_like(x) + x.new_ones(x.shape),
    "autocast": lambda x: _in_bfloat16(x),
    "complex": lambda x: graphc.complex(x, x * 2).abs(),
    "conv": lambda x: F.conv1d(x[:, None], graphc.ones(2, 1, 2), padding=1).sum(1),
    "layer norm": lambda x: F.layer_norm(x, (3,)) * x.var(dim=1, keepdim=True, unbiased=False),
    "covariance": lambda x: graphc.cov(x.t()),
    "distances": lambda x: graphc.cdist(x * 2, x[1:] + 5),
    "number of NumPy": lambda x: x * np.float64(0.5) * np.sqrt(x.shape[1]),
    "determinant": lambda x: graphc.linalg.det(x.t() @ x + graphc.eye(3)),
}


def _without_gradient(x: Any) -> Any:
    with graphc.no_grad():
        return (x * 3).exp()


def _in_bfloat16(x: Any) -> Any:
    with graphc.autocast("cpu", dtype=graphc.bfloat16):
        return (x @ x.t()).float()


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_program_has_the_numbers_of_eager_code(name: str, graph: graphc.Graph) -> None:
    program = PROGRAMS[name]
    with graph:
        x = graphc.placeholder("x", (None, 3))
        y = program(x * 1)
        (slope,) = graphc.gradients(y, [x])
    assert slope is not None
    session = graphc.Session(graph)
    verify(graph.ir)
    assert graphc.parse_ir(str(graph)) == graph
    for count in (4, 2, 7):
        data = numbers(count, 3, seed=count)
        eager = graphc.tensor(data, requires_grad=True)
        want = program(eager * 1)
        want.sum().backward()
        got, got_slope = session.run([y, slope], {x: data})
        assert got.dtype == want.dtype.numpy
        rounding = 2e-2 if name in ("dtypes", "autocast") else 2e-4
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=rounding, atol=rounding)
        np.testing.assert_allclose(got_slope, eager.grad.numpy(), rtol=rounding, atol=rounding)


# Sizes


def test_equal_names_are_equal_sizes(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", ("n", 2))
        z = graphc.placeholder("z", ("n",))
        y = x + z[:, None]
    assert "float32[n, 2]" in str(graph) and x.shape == (None, 2)
    session = graphc.Session(graph)
    assert session.run(y, {x: np.ones((3, 2)), z: [1, 2, 3]}).tolist() == [[2, 2], [3, 3], [4, 4]]
    with pytest.raises(ShapeError, match=r"(?s)do not go together.*'z'.*4.*\[3\]"):
        session.run(y, {x: np.ones((4, 2)), z: [1, 2, 3]})


def test_sizes_that_have_to_be_equal_become_one(graph: graphc.Graph) -> None:
    with graph:
        x, z = graphc.placeholder("x", (None, None)), graphc.placeholder("z", (None,))
        y = x * z
        w = x @ graphc.ones(5, 2)
    assert x.shape == (None, 5) and z.shape == (5,) and y.shape == (None, 5) and w.shape == (None, 2)
    with pytest.raises(ShapeError, match=r"(?s)'z' does not take this shape.*\(5,\).*\(4,\)"):
        graphc.Session(graph).run(y, {x: np.ones((3, 5)), z: np.ones(4)})


def test_sizes_that_may_differ_stay_apart(graph: graphc.Graph) -> None:
    with graph:
        x, z = graphc.placeholder("x", (None, 3)), graphc.placeholder("z", (None, 3))
        y = x @ z.t()
        both = graphc.cat([x, z])
    data = numbers(2, 3), numbers(5, 3)
    got = graphc.Session(graph).run([y, both], {x: data[0], z: data[1]})
    np.testing.assert_allclose(got[0], data[0] @ data[1].T, rtol=1e-5)
    np.testing.assert_array_equal(got[1], np.concatenate(data))


def test_a_size_is_seen_as_none_outside_and_computed_with_inside(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None, 4))
        assert str(x.shape[0] * 2 + 1) == "2*x_0 + 1" and x.shape[1] == 4
        y = graphc.cat([x, x, x[:1]])
    assert y.shape == (None, 4) and y.size(0) is None and y.ndim == 2
    assert repr(y.shape) == "graphc.Size([None, 4])"


def test_a_branch_on_a_size_is_checked_when_it_is_fed(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None,))
        before = x + 1
        y = before * 100 if x.shape[0] == 3 else before  # <size>
        z = x[:5] * 2
        single = x[None].squeeze()
    session = graphc.Session(graph)
    assert session.run(y, {x: np.ones(4)}).tolist() == [2, 2, 2, 2]
    line = next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("# <size>"))
    with pytest.raises(ShapeError, match=rf"(?s)x.shape\[0\] != 3.*x.shape\[0\] is 3.*test_define_then_run.py:{line}"):
        session.run(z, {x: np.ones(3)})
    with pytest.raises(ShapeError, match=r"(?s)x.shape\[0\] >= 5.*x.shape\[0\] is 4"):
        session.run(z, {x: np.ones(4)})
    with pytest.raises(ShapeError, match=r"x.shape\[0\] != 1"):
        session.run(single, {x: np.ones(1)})
    assert session.run(single, {x: np.ones(2)}).shape == (2,)


def test_what_is_taken_for_granted_is_in_the_text(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None, 2))
        y = x[:5] if x.shape[0] != 7 else x
        z = y + x[1:6]
    text = str(graph)
    assert '%x: float32[x_0, 2] {where = ["x_0 != 7", "x_0 >= 5", ' in text
    again = graphc.parse_ir(text)
    assert again == graph and str(again) == text
    session = graphc.Session(again)
    np.testing.assert_array_equal(session.run(z.name, {"x": np.ones((8, 2))}), np.full((5, 2), 2.0))
    for count, broken in ((7, "!= 7"), (4, ">= 5")):
        with pytest.raises(ShapeError, match=rf"x\.shape\[0\] {broken}"):
            session.run(z.name, {"x": np.ones((count, 2))})
    with again:
        other = graphc.placeholder("other", (None, 2))
        total = again["x"] + other
    assert graphc.Session(again).run(total, {"x": np.ones((6, 2)), other: np.ones((6, 2))}).shape == (6, 2)


def test_a_size_has_no_number(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None,))
        with pytest.raises(TraceError, match=r"number x\.shape\[0\]"):
            range(x.shape[0])


def test_what_does_not_fit_the_sizes_of_a_run(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None, 3))
        y = x.reshape(2, -1)
    session = graphc.Session(graph)
    assert session.run(y, {x: np.ones((4, 3))}).shape == (2, 6)
    with pytest.raises(RuntimeError):
        session.run(y, {x: np.ones((3, 3))})


def test_halves_have_to_be_equal(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None,))
        y = x[: x.shape[0] // 2] + x[x.shape[0] // 2 :]
    session = graphc.Session(graph)
    assert session.run(y, {x: [1, 2, 3, 4]}).tolist() == [4, 6]
    with pytest.raises(ShapeError, match=r"(?s)do not go together.*'x'.*\[3\]"):
        session.run(y, {x: [1, 2, 3]})


class Attention(nn.Module):
    """Of as many steps as there are; each sees those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(8, 24)

    def forward(self, x: Any) -> Any:
        batch, steps, width = x.size()
        q, k, v = (z.view(batch, steps, 2, width // 2).transpose(1, 2) for z in self.mix(x).split(width, dim=2))
        scores = (q @ k.transpose(-2, -1)) * (1.0 / np.sqrt(k.size(-1)))
        scores = scores.masked_fill(graphc.tril(graphc.ones(steps, steps)) == 0, float("-inf"))
        return (F.softmax(scores, dim=-1) @ v).transpose(1, 2).reshape(batch, steps, width)


@pytest.mark.parametrize("make", [
    Attention, lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    lambda: nn.GRU(8, 4, batch_first=True), lambda: nn.LSTM(8, 4, num_layers=2, batch_first=True),
], ids=["attention", "encoder", "GRU", "LSTM"])  # fmt: skip
def test_sequences_of_any_number_and_length(graph: graphc.Graph, make: Callable[[], nn.Module]) -> None:
    graphc.manual_seed(0)
    net = make()
    with graph:
        x = graphc.placeholder("x", ("n", "steps", 8))
        result = net(x)
        y = result[0] if isinstance(result, tuple) else result
        slopes = graphc.gradients(y.square().sum(), list(net.parameters()))
    session = graphc.Session(graph)
    for count, steps in ((2, 5), (3, 7), (1, 2)):
        data = numbers(count, steps, 8)
        got, *got_slopes = session.run([y, *slopes], {x: data})
        eager = net(graphc.tensor(data))
        eager = eager[0] if isinstance(eager, tuple) else eager
        np.testing.assert_allclose(got, eager.detach(), rtol=1e-4, atol=1e-5)
        net.zero_grad()
        eager.square().sum().backward()
        for slope, parameter in zip(got_slopes, net.parameters()):
            np.testing.assert_allclose(slope, parameter.grad, rtol=1e-3, atol=1e-4)


# Names


def test_names_are_those_of_ops_and_unique(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("add", (2,))
        a, b = x + x, x + x
    assert [v.name for v in (x, a, b)] == ["add", "add_1", "add_2"]
    assert graph["add_2"].name == "add_2" and graphc.ones(1).name is None


def test_name_scopes(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (2,))
        with graph.name_scope("encoder"), graph.name_scope("layer1"):
            y = x.exp()
            (slope,) = graphc.gradients(y, [x])
        with graph.name_scope("encoder"):
            z = graphc.placeholder("x", (2,))
        w = x.exp()
    assert (y.name, z.name, w.name) == ("encoder.layer1.exp", "encoder.x", "exp")
    assert slope is not None and str(slope.name).startswith("encoder.layer1.gradients.")
    assert "%encoder.layer1.exp = exp(%x)" in str(graph)
    with pytest.raises(ArgumentError, match="not a name"):
        graph.name_scope("a b")


def test_nodes_tell_op_inputs_and_line(graph: graphc.Graph) -> None:
    w = nn.Parameter(graphc.ones(2))
    with graph:
        x = graphc.placeholder("x", (2,))
        y = x * w
        values = graphc.linalg.svd(y[None])[1]
    nodes = {node.name: node for node in graph.nodes}
    assert len(nodes) == len(graph.nodes)
    assert (nodes["x"].op, nodes["parameter"].op, nodes["mul"].inputs) == ("placeholder", "captured", ("x", "parameter"))
    assert repr(nodes["mul"]) == "<mul = mul(x, parameter) : float32[2]>" and nodes["mul"].device == "cpu:0"
    assert nodes["mul"].location is not None and nodes["mul"].location.function == "test_nodes_tell_op_inputs_and_line"
    assert all(name in nodes for node in graph.nodes for name in node.inputs)
    assert values.shape == (1,) and graph.captured == {"parameter": w}
    assert repr(graph).startswith("<Graph 'tested': 1 placeholders,")


def test_equality_is_that_of_the_text(graph: graphc.Graph) -> None:
    def write(scale: float) -> graphc.Graph:
        with graphc.Graph("tested") as made:
            graphc.placeholder("x", (None,)).mul(scale)
        return made

    assert write(2.0) == write(2.0) and write(2.0) != write(3.0) and write(2.0) != "text"
    with pytest.raises(TypeError):
        hash(graph)


# Errors


def test_a_placeholder_is_declared_well(graph: graphc.Graph) -> None:
    with pytest.raises(TraceError, match="outside of any graph"):
        graphc.placeholder("x", (1,))
    with graph:
        for shape, kind in (("ab", ArgumentTypeError), (3, ArgumentTypeError), ((1.5,), ArgumentTypeError),
                            ((-1,), ShapeError), (("a b",), ArgumentError), ((True,), ArgumentTypeError)):
            with pytest.raises(kind, match="placeholder"):
                graphc.placeholder("x", shape)  # type: ignore[arg-type]
        for name in ("a b", "", 3):
            with pytest.raises(ArgumentError, match="identifier"):
                graphc.placeholder(name, (1,))  # type: ignore[arg-type]
        with pytest.raises(ArgumentTypeError, match="dtype"):
            graphc.placeholder("x", (1,), "float")  # type: ignore[arg-type]
        graphc.placeholder("x", (1,))
        with pytest.raises(TraceError, match="has a node 'x' already"):
            graphc.placeholder("x", (1,))


def test_values_are_of_no_use_outside(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None, 2))
    for use in (lambda: x + 1, lambda: x.tolist(), lambda: float(x.sum()), lambda: x.numpy()):
        with pytest.raises(RuntimeError, match=r"(?s)name='x'.*Session.*test_define_then_run\.py"):
            use()
    assert repr(x) == "tensor(..., size=(None, 2), dtype=graphc.float32, name='x')"


def test_graphs_do_not_mix(graph: graphc.Graph) -> None:
    with graphc.Graph("other"):
        z = graphc.placeholder("z", (2,))
    with graph:
        x = graphc.placeholder("x", (2,))
        for use in (lambda: x + z, lambda: z + x, lambda: z.exp(), lambda: graphc.cat([x, z]),
                    lambda: graphc.gradients(x, [z])):
            with pytest.raises(TraceError, match="another graph"):
                use()


def test_a_failed_line_leaves_no_nodes_behind(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None, 3))
        before = len(graph.nodes)
        with pytest.raises(ShapeError, match="cannot be multiplied"):
            x @ graphc.ones(4, 5)
        y = x @ graphc.ones(3, 5)
    assert len(graph.nodes) <= before + 5 and y.shape == (None, 5)


def test_a_graph_is_left_when_its_block_fails(graph: graphc.Graph) -> None:
    with pytest.raises(ZeroDivisionError), graph, graph.name_scope("a"):
        graphc.placeholder("x", (1,))
        raise ZeroDivisionError
    assert graphc.ones(1).tolist() == [1.0]
    with graph:
        assert graphc.placeholder("y", (1,)).name == "y"


def test_blocks_nest() -> None:
    outer, inner = graphc.Graph("outer"), graphc.Graph("inner")
    with outer:
        x = graphc.placeholder("x", (1,))
        with inner:
            y = graphc.placeholder("x", (1,)) * 2
        with outer:
            z = x * 3
    assert len(outer.nodes) == 4 and len(inner.nodes) == 4
    assert graphc.Session(outer).run(z, {x: [2]}) == [6] and graphc.Session(inner).run(y, {"x": [2]}) == [4]


# Derivatives


def test_gradients_by_outside_tensors_views_and_changed_ones(graph: graphc.Graph) -> None:
    w, used = graphc.tensor([1.0, 2.0]), graphc.tensor([3.0])
    with graph:
        x = graphc.placeholder("x", (2,))
        part = w[:1]
        y = (x * w).sum() + part.sum() * 10
        by_whole, by_none = graphc.gradients(y, [w, used])
        w.mul_(5)
        again, changed = graphc.gradients(y, w)[0], graphc.gradients((w * x).sum(), w)[0]
    assert by_none is None
    got = graphc.Session(graph).run([by_whole, again, changed], {x: [1.0, 1.0]})
    assert [g.tolist() for g in got] == [[11, 1], [11, 1], [1, 1]] and w.tolist() == [1, 2]


def test_seeds_and_several_results(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (2,))
        (seeded,) = graphc.gradients(x * 3, x, grad_ys=np.array([1.0, 10.0]))
        (several,) = graphc.gradients([x * 3, x.exp()], [x], grad_ys=[graphc.tensor([1.0, 2.0]), None])
        with pytest.raises(ShapeError, match="seed"):
            graphc.gradients(x, x, grad_ys=np.ones(3))
        with pytest.raises(AutogradError, match="1 of grad_ys for 2"):
            graphc.gradients([x, x], x, grad_ys=[None])
        with pytest.raises(AutogradError, match="cannot be differentiated"):
            graphc.gradients(x > 0, x)
        with pytest.raises(ArgumentTypeError, match="differentiate by a float"):
            graphc.gradients(x, [1.0])
    got = graphc.Session(graph).run([seeded, several], {x: [0.0, 0.0]})
    assert [g.tolist() for g in got] == [[3, 30], [4, 7]]


def test_gradients_may_be_asked_for_outside_the_block(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", ())
        y = x**3
    (slope,) = graphc.gradients(y, [x])
    (curvature,) = graphc.gradients(slope, [x])
    assert graphc.Session(graph).run([slope, curvature], {x: 2.0}) == [12, 12]
    with pytest.raises(TraceError, match="outside of any graph"):
        graphc.gradients(graphc.ones(1), [graphc.ones(1)])


def test_backward_inside_a_graph_keeps_gradients_there(graph: graphc.Graph) -> None:
    w = nn.Parameter(graphc.tensor([2.0]))
    with graph:
        x = graphc.placeholder("x", (1,))
        (w * x).sum().backward()
        slope = w.grad
    assert w.grad is None
    assert slope is not None and graphc.Session(graph).run(slope, {x: [7.0]}) == [7]


# Traces


def test_a_trace_is_such_a_graph() -> None:
    net = nn.Linear(3, 2)
    graph = graphc.trace(net, (graphc.ones(4, 3),))
    assert isinstance(graph, graphc.Graph) and [v.name for v in graph.inputs] == ["input"]
    assert set(graph.captured.values()) == set(net.parameters()) and len(graph.outputs) == 1
    assert [node.name for node in graph.nodes][-1] == graph.outputs[0].name == str(len(graph.ir.nodes) + 1)
    data = numbers(4, 3)
    session = graphc.Session(graph)
    with graphc.no_grad():
        net.bias.add_(1)  # seen, as it is referred to
    np.testing.assert_allclose(session.run(graph.outputs[0], {"input": data}), net(graphc.tensor(data)).detach(), rtol=1e-5)
    with graph:
        total = graph.outputs[0].sum()
        (slope,) = graphc.gradients(total, [net.bias])
    assert session.run(slope, {"input": data}).tolist() == [4, 4]


def test_a_parsed_graph_is_extended(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None,))
        x.exp()
    again = graphc.parse_ir(str(graph))
    with again:
        y = again["exp"] * again["x"].shape[0]
    assert graphc.Session(again).run(y, {"x": [0, 0]}).tolist() == [2, 2]


def test_many_nodes(graph: graphc.Graph) -> None:
    with graph:
        x = y = graphc.placeholder("x", (2,))
        for _ in range(1500):
            y = y + x
        assert graphc.gradients(y, [x])[0] is not None
    assert graphc.Session(graph, backend="reference").run(y, {x: [1.0, 2.0]}).tolist() == [1501, 3002]


@pytest.fixture(autouse=True)
def eager_afterwards() -> Iterator[None]:
    yield
    assert graphc.ones(2).sum().item() == 2.0
