"""Nodes on several devices: where they are placed, what is transferred, what runs at the same time."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import BackendError, ParseError, VerifyError
from graphc.ir import Builder
from graphc.types import TensorType
from graphc.verify import verify


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture
def graph() -> graphc.Graph:
    return graphc.Graph("placed")


def two_branches(graph: graphc.Graph) -> tuple[Any, ...]:
    with graph:
        x = graphc.placeholder("x", (None, 3))
        h = x * 2
        with graphc.device("cpu:1"):
            left = (h @ graphc.ones(3, 4)).tanh().sum(1)
        with graphc.device("cpu:2"):
            right = h.exp().sum(1)
        y = right + left
    return x, h, left, right, y


def test_a_block_places_nodes_and_transfers_their_operands(graph: graphc.Graph) -> None:
    x, h, left, right, y = two_branches(graph)
    assert [str(v.device) for v in (x, h, left, right, y)] == ["cpu", "cpu", "cpu:1", "cpu:2", "cpu:2"]
    nodes = {node.name: node for node in graph.nodes}
    transfers = [node for node in graph.nodes if node.op == "transfer"]
    assert [(node.inputs, node.device) for node in transfers] == [
        (("mul",), "cpu:1"), (("mul",), "cpu:2"), ((left.name,), "cpu:2")]
    for node in graph.nodes:
        if node.op != "transfer":
            assert all(nodes[name].device == node.device for name in node.inputs), node


def test_placement_is_in_the_text_and_comes_back(graph: graphc.Graph) -> None:
    *_, y = two_branches(graph)
    text = str(graph)
    assert '%transfer = transfer(%mul) {device = "cpu:1"} : float32[x_0, 3]@cpu:1' in text
    again = graphc.parse_ir(text)
    assert again == graph and str(again) == text
    verify(graph.ir)
    data = numbers(5, 3)
    np.testing.assert_array_equal(*(graphc.Session(g).run(y.name, {"x": data}) for g in (graph, again)))
    with pytest.raises(ParseError, match="on several devices"):
        graphc.parse_ir(text.replace("tanh(%matmul) : float32[x_0, 4]@cpu:1", "tanh(%matmul) : float32[x_0, 4]@cpu:2"))


def test_the_numbers_are_those_of_one_device(graph: graphc.Graph) -> None:
    x, _, _, _, y = two_branches(graph)
    session = graphc.Session(graph)
    for count in (4, 1, 7, 4):
        data = numbers(count, 3)
        want = np.exp(2 * data).sum(1) + np.tanh(2 * data @ np.ones((3, 4), np.float32)).sum(1)
        np.testing.assert_allclose(session.run(y, {x: data}), want, rtol=1e-5)


def test_a_run_tells_where_each_node_ran(graph: graphc.Graph) -> None:
    x, h, left, right, y = two_branches(graph)
    session = graphc.Session(graph)
    session.run([y, h], {x: numbers(4, 3)})
    run = session.last_run
    assert run is not None and set(run.devices) == set(run.executed_nodes)
    assert [run.devices[v.name] for v in (h, left, right, y)] == ["cpu:0", "cpu:1", "cpu:2", "cpu:2"]
    assert sorted(name for part in run.parts for name in part.nodes) == sorted(run.executed_nodes)
    for part in run.parts:
        assert all(run.devices[name] == part.device for name in part.nodes) and part.seconds >= 0
        expected = threading.main_thread().name if part.device == "cpu:0" else f"graphc {part.device}"
        assert part.thread.startswith(expected)
    session.run(left, {x: numbers(4, 3)})
    assert set(session.last_run.devices.values()) == {"cpu:0", "cpu:1"}  # type: ignore[union-attr]


def test_independent_branches_run_at_the_same_time(graph: graphc.Graph) -> None:
    """Two nodes that wait for one another can only both end if they run side by side."""
    meeting = threading.Barrier(2, timeout=60)

    class Program:
        def __init__(self, ready: Any) -> None:
            self.ready = ready

        def __call__(self, *arrays: np.ndarray) -> Any:
            meeting.wait()
            return self.ready(*arrays)

    with graph:
        x = graphc.placeholder("x", (4,))
        with graphc.device("cpu:1"):
            left = x.exp()
        with graphc.device("cpu:2"):
            right = x * 2
    session = graphc.Session(graph)
    feed = {x: numbers(4)}
    session.run([left, right], feed)
    (program,) = session._programs.values()
    assert program.placed is not None
    (schedule,) = program.placed._schedules.values()
    assert len(schedule.segments) == 2
    for segment in schedule.segments:
        segment.code = Program(segment.code)  # type: ignore[assignment]
    got = session.run([left, right], feed)
    np.testing.assert_allclose(got[0], np.exp(feed[x]), rtol=1e-6)
    assert {part.thread for part in session.last_run.parts} == {"graphc cpu:1_0", "graphc cpu:2_0"}  # type: ignore[union-attr]


def test_devices_wait_for_what_they_need_alone(graph: graphc.Graph) -> None:
    """What another device waits for comes before the rest of a device's work."""
    with graph:
        x = graphc.placeholder("x", (8,))
        small = x + 1
        large = x.exp().log().sin()
        with graphc.device("cpu:1"):
            y = small * 2
        z = large + y.to("cpu:0")
    session = graphc.Session(graph)
    session.run(z, {x: numbers(8)})
    parts = session.last_run.parts  # type: ignore[union-attr]
    first = next(part for part in parts if "add" in part.nodes)
    assert "exp" not in first.nodes and len([part for part in parts if part.device == "cpu:0"]) == 3
    assert str(z.device) == "cpu" and [n.device for n in graph.nodes if n.op == "transfer"] == ["cpu:1", "cpu:0"]


def test_blocks_nest_and_do_not_touch_eager_tensors(graph: graphc.Graph) -> None:
    with graphc.device("cpu:3"):
        assert str(graphc.ones(2).device) == "cpu" and (graphc.ones(2) + 1).tolist() == [2, 2]
        with graph:
            x = graphc.placeholder("x", (2,))
            with graphc.device("cpu:0"):
                y = x + 1
            z = x + 1
    assert [str(v.device) for v in (x, y, z)] == ["cpu:3", "cpu", "cpu:3"]
    with graph, pytest.raises(BackendError), graphc.device("cuda:1"):
        pass
    got = graphc.Session(graph).run([y, z], {x: [1, 2]})
    assert [v.tolist() for v in got] == [[2, 3], [2, 3]]


def test_to_moves_a_value_of_a_graph(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (2,))
        there = x.to("cpu:1")
        back = (there * 2).to("cpu", graphc.float64)
        assert x.to("cpu") is x and there.to(graphc.device("cpu:1")) is there
    assert [str(v.device) for v in (there, back)] == ["cpu:1", "cpu"] and back.dtype is graphc.float64
    assert graphc.Session(graph).run(back, {x: [1, 2]}).tolist() == [2, 4]


def test_derivatives_run_where_their_values_do(graph: graphc.Graph) -> None:
    net = nn.Linear(3, 2)
    with graph:
        x = graphc.placeholder("x", (None, 3))
        with graphc.device("cpu:1"):
            loss = net(x).sigmoid().sum()
        slopes = graphc.gradients(loss, [x, net.weight])
    verify(graph.ir)
    assert [str(slope.device) for slope in slopes if slope is not None] == ["cpu", "cpu"]
    data = numbers(4, 3)
    session = graphc.Session(graph)
    got = session.run(slopes, {x: data})
    eager = graphc.tensor(data, requires_grad=True)
    net(eager).sigmoid().sum().backward()
    np.testing.assert_allclose(got[0], eager.grad, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[1], net.weight.grad, rtol=1e-5, atol=1e-6)
    assert "cpu:1" in session.last_run.devices.values()  # type: ignore[union-attr]


def test_random_numbers_and_changes_on_another_device(graph: graphc.Graph) -> None:
    count = graphc.zeros(1)
    with graph, graphc.device("cpu:1"):
        y = graphc.rand(3)
        count += y.sum()
    session = graphc.Session(graph)
    graphc.manual_seed(1)
    got = session.run([y, count])
    graphc.manual_seed(1)
    want = graphc.rand(3)
    np.testing.assert_allclose(got[0], want, rtol=1e-6)
    np.testing.assert_allclose(count, [want.sum().item()], rtol=1e-6)


def test_an_error_on_another_device_reaches_the_caller(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (2,))
        at = graphc.placeholder("at", (1,), graphc.int64)
        with graphc.device("cpu:1"):
            y = x[at]
        z = x + y.to("cpu")
    session = graphc.Session(graph)
    for _ in range(2):
        with pytest.raises((RuntimeError, IndexError), match="out of"):
            session.run(z, {x: [1, 2], at: [7]})
        assert session.run(z, {x: [1, 2], at: [1]}).tolist() == [3, 4]


def test_many_threads_on_many_devices(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (None,))
        parts = []
        for k in range(4):
            with graphc.device(f"cpu:{k}"):
                parts.append(x * (k + 1))
        y = parts[0]
        for part in [*parts[1:], *parts]:
            with graphc.device(str(part.device)):
                y = y + part
    session = graphc.Session(graph)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for i in range(10):
                np.testing.assert_allclose(session.run(y, {x: np.ones(i % 3 + 1)}), np.full(i % 3 + 1, 20.0))
        except BaseException as error:  # handed to the test's thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def _run_in_child(queue: Any, session: graphc.Session) -> None:
    queue.put(session.run("add", {"x": [1.0, 2.0]}).tolist())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs a POSIX system")
def test_devices_work_in_a_forked_process(graph: graphc.Graph) -> None:
    with graph:
        x = graphc.placeholder("x", (2,))
        with graphc.device("cpu:1"):
            y = x * 2
        y.to("cpu").add(1)
    session = graphc.Session(graph)
    assert session.run("add", {"x": [1, 2]}).tolist() == [3, 5]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_run_in_child, args=(queue, session))
    child.start()
    assert queue.get(timeout=60) == [3, 5]
    child.join()


def test_operands_elsewhere_are_refused_by_the_verifier() -> None:
    builder = Builder("wrong")
    a, b = (builder.input(name, TensorType(graphc.float32, (2,), where)) for name, where in (("a", "cpu"), ("b", "cpu:1")))
    total = a + b
    with pytest.raises(VerifyError, match=r"(?s)add is on several devices.*insert transfer"):
        verify(builder.finish([total]))
