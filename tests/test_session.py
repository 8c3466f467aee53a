"""Running graphs: feeds and fetches, what is executed, tensors from outside, random numbers, threads."""

from __future__ import annotations

import copy
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError, TraceError

F = nn.functional


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def graph() -> graphc.Graph:
    return graphc.Graph("tested")


class Pair(NamedTuple):
    first: Any
    second: Any


# Fetches


def test_results_are_nested_as_the_fetches(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (2,))
        y = x + 1
    run = graphc.Session(graph).run({"a": [y, (x,)], "b": Pair(y, {"name": "add"})}, {x: [1, 2]})
    assert run["a"][0].tolist() == [2, 3] and isinstance(run["a"][1], tuple) and run["a"][1][0].tolist() == [1, 2]
    assert isinstance(run["b"], Pair) and run["b"].second["name"].tolist() == [2, 3]
    assert graphc.Session(graph).run([]) == []


def test_results_are_arrays_of_their_own(graph: graphc.Graph) -> None:
    w = graphc.ones(2)
    with graph:
        x = graphc.placeholder("x", (2,))
        y = x * w
    session, data = graphc.Session(graph), np.ones(2, np.float32)
    first = session.run([x, y, w], {x: data})
    for array in first:
        array[:] = 7
    assert data.tolist() == [1, 1] and w.tolist() == [1, 1] and session.run(y, {x: data}).tolist() == [1, 1]


def test_what_cannot_be_fetched(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("pressure", (2,))
    session = graphc.Session(graph)
    with pytest.raises(ArgumentTypeError, match=r"(?s)NoneType.*gradients"):
        session.run([x, None], {x: [1, 2]})
    with pytest.raises(TraceError, match="does not use this tensor"):
        session.run(graphc.ones(2))
    with pytest.raises(TraceError, match=r"(?s)no value 'presure'.*did you mean 'pressure'"):
        session.run("presure")
    with pytest.raises(ArgumentTypeError, match="is not a graph"):
        graphc.Session(lambda: 1)  # type: ignore[arg-type]


# Feeds


def test_feeding_an_intermediate_value_cuts_the_graph_there(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None, 2))
        hidden = x.exp()
        y = hidden * x.shape[0] + hidden.sum()
        z = hidden * x
    session = graphc.Session(graph)
    assert session.run(y, {hidden: [[1, 2], [3, 4]]}).tolist() == [[12, 14], [16, 18]]
    assert "exp" not in session.last_run.executed_nodes
    assert session.run(hidden, {"exp": [[1, 2]]}).tolist() == [[1, 2]] and session.last_run.executed_nodes == []
    with pytest.raises(TraceError, match="'x' is needed"):
        session.run(z, {hidden: [[1, 2]]})


def test_a_placeholder_may_be_needed_for_its_size_alone(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None,))
        y = graphc.ones(x.shape[0], 2) * 3
    session = graphc.Session(graph)
    assert session.run(y, {x: [0, 0, 0]}).shape == (3, 2)
    with pytest.raises(TraceError, match=r"(?s)'x' is needed and was not fed, declared at test_session.py.*\(None,\)"):
        session.run(y)


def test_feeds_are_converted_where_nothing_is_lost(graph: graphc.Graph) -> None:
    with graph:
        real = graphc.placeholder("real", (None,), graphc.float16)
        whole = graphc.placeholder("whole", (None,), graphc.int8)
        truth = graphc.placeholder("truth", (None,), graphc.bool)
        imaginary = graphc.placeholder("imaginary", (None,), graphc.complex64)
    session = graphc.Session(graph)
    for given in ([1, 2], (1.0, 2.0), np.array([1.0, 2.0]), np.arange(1, 3), graphc.tensor([1, 2]), range(1, 3), [True, 2]):
        assert session.run(real, {real: given}).tolist() == [1, 2]
    assert session.run(whole, {whole: np.array([-128, 127])}).tolist() == [-128, 127]
    assert session.run(whole, {whole: []}).tolist() == [] and session.run(truth, {truth: [True]}).tolist() == [True]
    assert session.run(imaginary, {imaginary: [1, 2.5]}).tolist() == [1, 2.5]
    big = np.arange(6, dtype=">f4").reshape(2, 3).T[0]
    assert session.run(real, {real: big}).tolist() == [0, 3]
    for value, given in ((whole, [1.5]), (whole, [128]), (whole, np.array([1 << 40])), (real, [1j]), (truth, [1]),
                         (real, ["a"]), (real, [None])):
        with pytest.raises(DTypeError, match=f"placeholder '{value.name}'"):
            session.run(value, {value: given})


def test_feeds_that_do_not_fit(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None, 3))
        y = x + 1
    session = graphc.Session(graph)
    for given in (np.zeros((2, 4)), np.zeros(3), 1.0, np.zeros((1, 2, 3))):
        with pytest.raises(ShapeError, match=r"(?s)placeholder 'x' does not take this shape.*\(None, 3\)"):
            session.run(y, {x: given})
    with pytest.raises(ArgumentError, match="no array"):
        session.run(y, {x: [[1], [2, 3]]})
    with pytest.raises(ArgumentError, match="fed twice"):
        session.run(y, {x: np.zeros((1, 3)), "x": np.zeros((1, 3))})
    with pytest.raises(ArgumentTypeError, match="cannot feed a int"):
        session.run(y, {1: 2})
    with pytest.raises(ArgumentTypeError, match="feed_dict is a list"):
        session.run(y, [x])  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="numbers of a later run"):
        session.run(y, {x: y})


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (5, 3)])
def test_any_number_of_rows(graph: graphc.Graph, shape: tuple[int, ...]) -> None:
    with graph:
        x = graphc.placeholder("x", (None, 3))
        y = (x @ graphc.ones(3, 2)).relu().sum(0)
    data = numbers(*shape)
    got = graphc.Session(graph).run(y, {x: np.asfortranarray(data)})
    np.testing.assert_allclose(got, np.maximum(data @ np.ones((3, 2)), 0).sum(0), rtol=1e-5, atol=1e-6)


# What is executed


def test_a_run_tells_what_it_executed(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (2,))
        y = x.exp()
        z = y * y
        x.log()
    session = graphc.Session(graph)
    assert session.last_run is None
    session.run([z, y], {x: [0, 0]})
    assert session.last_run.executed_nodes == ["exp", "mul"] and session.last_run.devices == {"exp": "cpu:0", "mul": "cpu:0"}
    assert repr(session.last_run) == "<Run: 2 nodes on cpu:0>" and repr(session) == "<Session of graph 'tested': 1 programs>"


def test_impossible_nodes_cost_nothing_unless_they_run(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None,))
        monster = graphc.rand(10**8, 10**8).sum() * x
        good = x * 2
    assert graphc.Session(graph).run(good, {x: [1]}).tolist() == [2] and monster.shape == (None,)


def test_the_same_names_and_numbers_on_both_back_ends(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None, 3))
        y = F.softmax(x, 1).std()
    data = numbers(4, 3)
    results = [graphc.Session(graph, backend=backend).run(y, {x: data}) for backend in ("llvm", "reference")]
    np.testing.assert_allclose(*results, rtol=1e-5)


# Tensors from outside


def test_captured_tensors_are_read_at_each_run(graph: graphc.Graph) -> None:
    w = graphc.tensor([1.0, 2.0])
    view = w[1:]
    with graph:
        x = graphc.placeholder("x", (2,))
        y = x * w + view
    session = graphc.Session(graph)
    assert session.run(y, {x: [1, 1]}).tolist() == [3, 4]
    w.mul_(10)
    assert session.run(y, {x: [1, 1]}).tolist() == [30, 40]
    assert session.run(y, {x: [1, 1], w: [0, 5]}).tolist() == [5, 10]
    w.data = graphc.ones(3)
    with pytest.raises(ShapeError, match=r"(?s)calls 'tensor' has changed.*float32\[2\].*float32\[3\]"):
        session.run(y, {x: [1, 1]})


def test_a_change_in_place_happens_where_it_is_fetched_or_used(graph: graphc.Graph) -> None:
    count, other = graphc.zeros(1), graphc.zeros(1)
    with graph:
        x = graphc.placeholder("x", (1,))
        before = count * 1
        count += x
        after = count * 1
        other.add_(1)
    session = graphc.Session(graph)
    assert session.run(before, {x: [2]}) == [0] and count.item() == 0
    assert session.run(after, {x: [2]}) == [2] and count.item() == 2 and other.item() == 0
    assert [v.tolist() for v in session.run([before, count], {x: [3]})] == [[2], [5]] and count.item() == 5
    session.run(list(graph.changed), {x: [1]})
    assert (count.item(), other.item()) == (6, 1)


def test_literals_belong_to_the_graph(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (2,))
        table = graphc.tensor([1.0, 2.0])
        table += x
        y = table * graphc.tensor([10, 20])
    assert graph.captured == {}
    session = graphc.Session(graph)
    for _ in range(2):
        assert session.run(y, {x: [1, 1]}).tolist() == [20, 60]
    assert graphc.Session(graphc.parse_ir(str(graph))).run("mul", {"x": [1, 1]}).tolist() == [20, 60]


def test_random_numbers_are_those_of_eager_code(graph: graphc.Graph) -> None:
    def draw(x: Any) -> Any:
        noise = F.dropout(x, 0.5) + graphc.randn(3)
        return noise * graphc.rand_like(x), graphc.randperm(5), graphc.randint(0, 10, (4,))

    with graph:
        x = graphc.placeholder("x", (None, 3))
        fetches = draw(x)
    session, data = graphc.Session(graph), numbers(4, 3)
    graphc.manual_seed(3)
    got = [session.run(fetches, {x: data}) for _ in range(2)]
    after = graphc.rand(2)
    graphc.manual_seed(3)
    for run in got:
        for a, b in zip(run, draw(graphc.tensor(data))):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-6)
    assert graphc.rand(2).tolist() == after.tolist()


def test_a_generator_of_its_own(graph: graphc.Graph) -> None:
    generator = graphc.Generator().manual_seed(5)
    with graph:
        y = graphc.rand(3, generator=generator)
    session = graphc.Session(graph)
    first = session.run(y)
    generator.manual_seed(5)
    assert session.run(y).tolist() == first.tolist() != session.run(y).tolist()


def test_running_statistics_follow_the_module(graph: graphc.Graph) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4))
    twin = copy.deepcopy(net)
    with graph:
        x = graphc.placeholder("x", (None, 3))
        hidden = net[0](x)
        y = net[3](net[2](net[1](hidden)))
    session = graphc.Session(graph)
    session.run(hidden, {x: numbers(5, 3)})
    assert net[1].num_batches_tracked.item() == 0
    for i in range(3):
        data = numbers(5, 3, seed=i)
        np.testing.assert_allclose(session.run(y, {x: data}), twin(graphc.tensor(data)).detach(), rtol=1e-4, atol=1e-5)
    for name, want in twin.state_dict().items():
        np.testing.assert_allclose(net.state_dict()[name], want, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("make", [
    lambda p: graphc.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01), lambda p: graphc.optim.Adam(p, lr=0.05),
    lambda p: graphc.optim.AdamW(p, lr=0.05, amsgrad=True), lambda p: graphc.optim.RMSprop(p, lr=0.01),
    lambda p: graphc.optim.Adagrad(p, lr=0.1), lambda p: graphc.optim.Adadelta(p),
], ids=["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta"])  # fmt: skip
def test_a_training_step_written_into_the_graph(graph: graphc.Graph, make: Any) -> None:
    graphc.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    twin = copy.deepcopy(net)
    optimizer, eager = make(net.parameters()), make(twin.parameters())
    with graph:
        x, t = graphc.placeholder("x", ("n", 3)), graphc.placeholder("t", ("n", 1))
        loss = F.mse_loss(net(x), t)
        loss.backward()
        optimizer.step()
    session = graphc.Session(graph)
    data, goal = numbers(6, 3), numbers(6, 1, seed=1)
    for step in range(4):
        if step == 2:
            for group in (*optimizer.param_groups, *eager.param_groups):
                group["lr"] *= 0.1  # read anew in each run
        got = session.run([loss, *graph.changed], {x: data, t: goal})[0]
        eager.zero_grad()
        want = F.mse_loss(twin(graphc.tensor(data)), graphc.tensor(goal))
        want.backward()
        eager.step()
        np.testing.assert_allclose(got, want.item(), rtol=1e-4)
    for p, q in zip(net.parameters(), twin.parameters()):
        np.testing.assert_allclose(p.detach(), q.detach(), rtol=1e-4, atol=1e-5)


# Where sessions run


def test_a_session_runs_inside_a_block_and_not_inside_a_compiled_function(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (1,))
        y = x + 1
        assert graphc.Session(graph).run(y, {x: graphc.tensor([1.0])}) == [2]
        z = y * 2
    session = graphc.Session(graph)
    assert session.run(z, {x: [1]}) == [4]
    with pytest.raises(TraceError, match="would become constants"):
        graphc.compile(lambda v: v * float(session.run(z, {x: [1]})[0]), fullgraph=True)(graphc.ones(1))


def test_threads_run_one_session_and_write_one_graph(graph: graphc.Graph) -> None:
    count = graphc.zeros(1)
    with graph:
        x = graphc.placeholder("x", (None, 4))
        y = (x @ graphc.ones(4, 4)).tanh().sum(1)
        count += 1
    session = graphc.Session(graph)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in range(8):
                data = numbers(1 + (seed + i) % 3, 4, seed=seed)
                np.testing.assert_allclose(session.run(y, {x: data}), np.tanh(data @ np.ones((4, 4))).sum(1), rtol=1e-4)
                session.run(count)
                with graph, graph.name_scope(f"thread{seed}"):
                    z = x * seed
                np.testing.assert_allclose(session.run(z, {x: data}), data * seed, rtol=1e-6)
        except BaseException as error:  # handed to the test's thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert count.item() == 32
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)


def test_a_run_that_fails_changes_nothing(graph: graphc.Graph) -> None:
    table, place = graphc.zeros(3), graphc.zeros(1)
    with graph:
        at = graphc.placeholder("at", (1,), graphc.int64)
        y = table[at]
        place += y
    session = graphc.Session(graph)
    with pytest.raises((RuntimeError, IndexError), match="out of"):
        session.run(place, {at: [9]})
    assert place.item() == 0 and session.run(place, {at: [2]}) == [0]
