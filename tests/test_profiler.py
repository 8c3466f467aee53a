"""`graphc.profiler`: what it records eagerly and compiled, its tables, and its traces against the rules of their format."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.backend import RecordsKernels, get_backend
from graphc.config import override
from graphc.errors import BackendError, ProfilerError
from graphc.frontend.profiler import _trace_event
from graphc.frontend.tracer import _state as trace_state
from graphc.kernel_info import describe
from graphc.nn import functional as F
from graphc.profiler import ProfilerActivity, profile, record_function
from graphc.trace_events import TraceEvent, document, joined


def named(prof: profile, kind: str) -> list[str]:
    return [event.name for event in prof.events() if event.kind == kind]


def lines(event: Any) -> set[str]:
    return {location.function for location in event.locations}


# Eager


def test_operations_with_their_types_lines_and_flops() -> None:
    x, w = graphc.randn(6, 4), graphc.randn(4, 5)
    with profile() as prof:
        y = graphc.tanh(x @ w + 1.0)
        y.add_(1)
        z = F.layer_norm(y, (5,))
    assert named(prof, "op") == ["matmul", "add", "tanh", "add_", "layer_norm"]
    product, add, tanh, in_place, norm = (event for event in prof.events() if event.kind == "op")
    assert product.input_shapes == ((6, 4), (4, 5)) and product.flops == 2 * 6 * 4 * 5
    assert product.bytes == 4 * (24 + 20 + 30) and product.detail["outputs"] == ["float32[6, 5]"]
    assert add.flops == tanh.flops == in_place.flops == 30 and norm.flops is not None and norm.flops > 90
    assert all(lines(event) == {"test_operations_with_their_types_lines_and_flops"} for event in prof.events())
    assert z.shape == (6, 5) and trace_state.tracer is None


def test_results_are_those_of_code_that_nobody_watches() -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    x = graphc.randn(2, 2, 8, 8, requires_grad=True)

    def run() -> list[Any]:
        model.zero_grad()
        x.grad = None
        F.cross_entropy(model(x), graphc.tensor([0, 2])).backward()
        return [tensor.grad.numpy().copy() for tensor in (x, *model.parameters()) if tensor.grad is not None]

    for _ in range(2):
        expected = run()
    with profile() as prof:
        made = run()
    for got, want in zip(made, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)  # watched, functions of several ops run op by op
    backward = named(prof, "backward")
    assert {"AddmmBackward0", "ReluBackward0", "ConvolutionBackward0"} <= set(backward)
    relu = next(event for event in prof.events() if event.name == "ReluBackward0")
    assert lines(relu) == {"run"}


def test_views_hooks_and_errors_are_as_ever() -> None:
    x = graphc.arange(6.0)
    seen: list[Any] = []
    leaf = graphc.ones(3, requires_grad=True)
    leaf.register_hook(lambda g: seen.append(g))
    with profile():
        view = x[1:4]
        view.mul_(2)
        (leaf * 3).sum().backward()
        with pytest.raises(RuntimeError, match=r"matmul|shapes"):
            graphc.ones(2, 3) @ graphc.ones(2, 3)
        assert trace_state.watcher is not None  # as before the error
        assert graphc.func.grad(lambda v: (v * v).sum())(graphc.ones(2)).tolist() == [2.0, 2.0]
        assert graphc.trace(lambda v: v * 2, (x,)).outputs
    assert x.tolist() == [0, 2, 4, 6, 4, 5] and view._base is x
    assert seen[0].tolist() == [3, 3, 3] and leaf.grad is not None and leaf.grad.tolist() == [3, 3, 3]


# Compiled


def test_kernels_with_their_ops_and_lines() -> None:
    def norm_of_product(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
        return graphc.relu(x @ w).softmax(1)

    step = graphc.compile(norm_of_product)
    x, w = graphc.randn(64, 32), graphc.randn(32, 48)
    for _ in range(4):
        expected = step(x, w)
    with profile() as prof:
        for _ in range(3):
            made = step(x, w)
    step(x, w)
    assert bool((made == expected).all())
    (call, *calls) = (event for event in prof.events() if event.kind == "compiled")
    assert len(calls) == 2 and call.name == "compiled norm_of_product"
    kernels = [event for event in prof.events() if event.kind == "kernel"]
    assert len(kernels) % 3 == 0 and {"relu", "contract"} <= {op for kernel in kernels for op in kernel.detail["ops"]}
    assert {"norm_of_product"} == set().union(*map(lines, kernels))
    assert sum(kernel.flops or 0 for kernel in kernels) >= 3 * 2 * 64 * 32 * 48
    inside = [kernel for kernel in kernels if call.start <= kernel.start and kernel.stop <= call.stop]
    assert len(inside) == len(kernels) // 3
    assert call.self_time == call.time - sum(kernel.time for kernel in inside)


def test_a_program_is_recorded_only_while_it_is_profiled() -> None:
    double = graphc.compile(lambda x: x * 2)
    x = graphc.ones(50)
    for _ in range(4):
        double(x)  # natively
    with profile() as prof:
        pass
    double(x)
    assert not prof.events()
    with profile() as prof:
        double(x)
    assert len(named(prof, "kernel")) == 1


def test_kernels_of_other_threads_and_of_new_programs() -> None:
    made: list[int] = []

    def work() -> None:
        made.append(threading.get_ident())
        graphc.compile(lambda x: x + 3)(graphc.ones(70))

    with profile() as prof:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    (kernel,) = (event for event in prof.events() if event.kind == "kernel")
    assert kernel.thread == made[0] != threading.get_ident()


def test_parts_of_the_thread_pool() -> None:
    before = graphc.get_num_threads()
    graphc.set_num_threads(3)
    try:
        function = graphc.compile(lambda x: (x.exp() * 2).tanh().sum(1))
        x = graphc.randn(1000, 1000)
        function(x)
        with profile() as prof:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:  # workers may come too late for one call
                function(x)
                if get_parts_so_far():
                    break
    finally:
        graphc.set_num_threads(before)
    parts = [event for event in prof.events() if event.kind == "part"]
    kernels = [event for event in prof.events() if event.kind == "kernel"]
    assert parts and all(part.thread != kernels[0].thread for part in parts)
    for part in parts:
        assert any(k.start <= part.start and part.stop <= k.stop and k.name == part.name for k in kernels)
    assert len(prof.key_averages()) == len({(e.kind, e.name) for e in prof.events() if e.kind != "part"})


def get_parts_so_far() -> bool:
    from graphc.backends.llvm import kernel_clock

    return bool((kernel_clock._log().records()["key"] == 0).any())


def test_training_steps_and_what_is_computed_once() -> None:
    model = nn.Linear(300, 200)
    infer = graphc.compile(model.eval())
    x = graphc.randn(128, 300)
    with profile() as prof, graphc.no_grad():
        for _ in range(3):
            infer(x)
    assert "contract" in {op for e in prof.events() if e.kind == "kernel" for op in e.detail["ops"]}

    optimizer = graphc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @graphc.compile
    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(3):
        step(x)
    with profile() as prof:
        step(x)
    assert len(named(prof, "compiled")) == 1 and len(named(prof, "kernel")) > 2


def test_loops_host_ops_and_symbolic_sizes() -> None:
    def function(x: graphc.Tensor) -> graphc.Tensor:
        y = graphc.scan(lambda c, _: ((c * 2 + 1).tanh(), c), x, graphc.ones(6, 1))[0]
        return y.sort(0).values

    compiled = graphc.compile(function, dynamic=True)
    with profile() as prof:
        for size in (5, 9):
            compiled(graphc.randn(size))
    kinds = {event.detail["kind"] for event in prof.events() if event.kind == "kernel"}
    assert {"control", "call"} <= kinds
    assert json.dumps([event.detail for event in prof.events() if event.kind == "kernel"])


def test_kernels_inside_loops_and_branches() -> None:
    """At each step, inside of the kernel that is the loop; programs inside of others too."""
    def turn(i: graphc.Tensor, y: graphc.Tensor, w: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        z = graphc.cond(y.sum() > 1e9, lambda: y.exp(), lambda: (y @ w).tanh())
        return i + 1, graphc.scan(lambda c, row: (c * row.sum(), c), z, w[:3])[0], w

    def function(x: graphc.Tensor, w: graphc.Tensor, long: bool) -> graphc.Tensor:
        first = (x @ w).relu()
        y = graphc.while_loop(lambda i, y, w: i < 4, turn, (graphc.tensor(0), first, w))[1]
        if long:  # a program of so many kernels that it calls them by tables
            for k in range(40):
                y = graphc.while_loop(lambda i, y: i < 1, lambda i, y: (i + 1, y.softmax(1)), (graphc.tensor(0), y + k))[1]
        return y

    w, x = graphc.randn(30, 30) * 0.1, graphc.randn(20, 30)
    for long in (False, True):
        compiled = graphc.compile(function)
        expected = function(x, w, long)
        for _ in range(3):
            compiled(x, w, long)
        with profile() as prof:
            result = compiled(x, w, long)
        assert graphc.allclose(result, expected, atol=1e-5)
        kernels = [event for event in prof.events() if event.kind == "kernel"]
        loops = [event for event in kernels if event.name == "while_loop"]
        assert len(loops) == (41 if long else 1) and all(event.flops is None for event in loops)
        inside = [e for e in kernels if loops[0].start <= e.start and e.stop <= loops[0].stop and e is not loops[0]]
        assert sum("contract" in event.name for event in inside) == 4 and not any("exp" in event.name for event in inside)
        scans = [event for event in inside if event.name == "scan"]
        assert sum(s.start <= event.start and event.stop <= s.stop for s in scans for event in inside) >= 4 * (1 + 3)
        assert all("test_profiler.py" in str(event.locations) for event in inside if "contract" in event.name)
        assert len(scans) == 4
        calls = [event for event in prof.events() if event.kind == "compiled"]
        assert sum(event.self_time for event in kernels) <= sum(event.time for event in calls)
        assert broken_rules(document({"p": list(map(_trace_event, prof.events()))}, {})) == []


def test_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = get_backend("llvm")
    assert isinstance(backend, RecordsKernels)
    from graphc.backends.llvm import kernel_clock

    double = graphc.compile(lambda x: x * 2)
    x = graphc.ones(30)
    double(x)
    kernel_clock.start(most=2)
    for _ in range(5):
        double(x)
    runs, lost = kernel_clock.stop()
    assert (len(runs), lost) == (2, 3)
    with profile() as prof:
        double(x)
    assert prof.lost == 0 and len(named(prof, "kernel")) == 1


def test_errors_of_compiled_code_pass_through() -> None:
    take = graphc.compile(lambda x, i: x[i])
    with profile() as prof, pytest.raises(IndexError):
        take(graphc.ones(3), graphc.tensor([7]))
    assert named(prof, "kernel")


# Tables and misuse


def test_averages_and_their_table() -> None:
    x = graphc.ones(4)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as prof:
        with record_function("mine"):
            for _ in range(3):
                x = graphc.tanh(x)
        graphc.tanh(graphc.ones(2))
    averages = prof.key_averages()
    by_name = {event.key: event for event in averages}
    tanh = by_name["tanh"]
    assert (tanh.count, tanh.flops, tanh.bytes) == (4, 14, 8 * 14)
    assert tanh.cpu_time_total == pytest.approx(sum(e.time for e in prof.events() if e.name == "tanh") / 1000)
    assert by_name["mine"].cpu_time_total >= by_name["mine"].self_cpu_time_total
    assert averages.total_average().count == sum(event.count for event in averages)
    assert {e.count for e in prof.key_averages(group_by_input_shape=True) if e.key == "tanh"} == {1, 3}
    text = averages.table(sort_by="count", row_limit=1)
    assert "tanh" in text and "mine" not in text and "test_profiler.py" in text
    assert len(prof.key_averages().table().splitlines()) == len(averages) + 4
    with pytest.raises(ValueError, match=r"cannot sort by 'speed'(.|\n)*self_cpu_time_total"):
        averages.table(sort_by="speed")


def test_a_profile_that_cannot_begin_is_in_nobodys_way() -> None:
    with override(backend="nosuch"), pytest.raises(BackendError, match="no back end 'nosuch'"):
        profile().start()
    with profile() as prof:
        graphc.ones(3) + 1
    assert prof.events()


def test_a_profile_ends_on_its_thread() -> None:
    prof = profile()
    prof.start()
    errors: list[Exception] = []

    def stop() -> None:
        try:
            prof.stop()
        except ProfilerError as error:
            errors.append(error)

    other = threading.Thread(target=stop)
    other.start()
    other.join()
    assert "another thread" in str(errors[0])
    graphc.ones(3) + 1
    prof.stop()
    assert prof.events()


def test_misuse() -> None:
    prof = profile()
    with pytest.raises(ProfilerError, match="has not begun"):
        prof.stop()
    with pytest.raises(ProfilerError, match="not over"):
        prof.events()
    with prof:
        with pytest.raises(ProfilerError, match=r"another profile is running, begun at test_profiler\.py:\d+ in test_misuse"):
            profile().start()
        with pytest.raises(ProfilerError, match="begun once"):
            prof.start()
    with pytest.raises(ProfilerError, match="begun once"):
        prof.start()
    with pytest.raises(ValueError, match=r"ProfilerActivity\.CPU"):
        profile(activities=["cuda"])  # type: ignore[list-item]
    with pytest.raises(KeyError), profile() as over:
        raise KeyError("the user's own")
    assert over.events() == [] and trace_state.tracer is None


def test_a_profile_may_be_handed_on() -> None:
    given: list[profile] = []
    with profile(on_trace_ready=given.append):
        graphc.ones(3) + 1
    assert named(given[0], "op") == ["add"]


def test_kernels_without_the_llvm_back_end() -> None:
    from graphc.config import override

    with override(backend="reference"), profile() as prof:
        graphc.compile(lambda x: x + 1)(graphc.ones(3))
    assert named(prof, "compiled") and not named(prof, "kernel")


# Traces


def broken_rules(trace: dict[str, Any]) -> list[str]:
    """What a trace breaks of the trace-event format's rules, as Perfetto's importer reads it."""
    wrong: list[str] = []
    threads: dict[tuple[int, int], list[dict[str, Any]]] = {}
    named_threads = set()
    for event in trace["traceEvents"]:
        missing = {"name", "ph", "pid", "tid", "ts"} - event.keys()
        if missing or not isinstance(event["name"], str) or not event["name"]:
            wrong.append(f"{event}: {missing}")
            continue
        if event["ph"] == "M":
            if event["name"] not in ("process_name", "thread_name", "process_sort_index", "thread_sort_index"):
                wrong.append(f"unknown metadata {event['name']}")
            if event["name"] == "thread_name":
                named_threads.add((event["pid"], event["tid"]))
            continue
        numbers = [event.get("ts"), event.get("dur")]
        if event["ph"] != "X" or not all(isinstance(n, (int, float)) and n >= 0 for n in numbers) or "cat" not in event:
            wrong.append(f"not a complete event: {event}")
        if not isinstance(event.get("args"), dict) or not all(type(event[key]) is int for key in ("pid", "tid")):
            wrong.append(f"args or ids: {event}")
        threads.setdefault((event["pid"], event["tid"]), []).append(event)
    for thread, events in threads.items():
        if thread not in named_threads:
            wrong.append(f"thread {thread} has no name")
        if any(later["ts"] < event["ts"] for event, later in itertools.pairwise(events)):
            wrong.append(f"the events of {thread} are not by their beginning")
        open_: list[int] = []  # events of one thread must nest, to the nanosecond; the importer drops those that do not
        for event in events:
            start, duration = int(event["ts"] * 1000), int(event["dur"] * 1000)  # cut off, as the importer does
            while open_ and open_[-1] <= start:
                open_.pop()
            if open_ and start + duration > open_[-1]:
                wrong.append(f"{event['name']} ends after what is around it")
            open_.append(start + duration)
    return wrong


def test_a_trace_of_both_modes(tmp_path: Path) -> None:
    def function(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
        return F.layer_norm(graphc.relu(x @ w), (300,)).sum()

    x, w = graphc.randn(400, 200), graphc.randn(200, 300, requires_grad=True)
    with profile() as eager:
        function(x, w).backward()
    compiled = graphc.compile(function)
    compiled(x, w)
    with profile() as prof:
        compiled(x, w).backward()
    path = tmp_path / "trace.json"
    graphc.profiler.export_chrome_trace(path, {"eager": eager, "compiled": prof})
    trace = json.loads(path.read_text())
    assert broken_rules(trace) == []
    processes = {e["args"]["name"]: e["pid"] for e in trace["traceEvents"] if e["name"] == "process_name"}
    assert list(processes) == ["eager", "compiled"]
    categories = {name: {e["cat"] for e in trace["traceEvents"] if e["pid"] == pid and e["ph"] == "X"}
                  for name, pid in processes.items()}  # fmt: skip
    assert {"op", "backward"} <= categories["eager"] and {"compiled", "kernel"} <= categories["compiled"]
    kernel = next(e for e in trace["traceEvents"] if e.get("cat") == "kernel" and e["args"].get("FLOPs"))
    assert {"line", "FLOPs", "GFLOP/s", "bytes", "GB/s", "program", "kernel", "ops"} <= kernel["args"].keys()
    assert "test_profiler.py" in kernel["args"]["line"]
    single = tmp_path / "single.json"
    prof.export_chrome_trace(single)
    assert broken_rules(json.loads(single.read_text())) == []


def test_the_rules_see_what_is_wrong() -> None:
    good = TraceEvent("a", "op", 100, 200, 7)
    assert broken_rules(document({"p": [good, TraceEvent("b", "op", 150, 180, 7)]}, {7: "main"})) == []
    across = [TraceEvent("b", "op", 150_000, 280_000, 7), TraceEvent("c", "op", 160_000, 300_000, 7)]
    assert broken_rules(document({"p": across}, {}))
    assert broken_rules(document({"p": [TraceEvent("a", "op", 200, 100, 7)]}, {}))
    turned = document({"p": [good, TraceEvent("b", "op", 300, 400, 7)]}, {})
    turned["traceEvents"].reverse()
    assert broken_rules(turned)
    assert document({}, {}) == {"traceEvents": [], "displayTimeUnit": "ms", "otherData": {}}


def test_times_are_exact_to_the_nanosecond() -> None:
    """What fills all that is around it ends with it, whatever the numbers are."""
    for stop in range(1_001, 90_000_000, 70_001):
        events = [TraceEvent("around", "op", 0, stop, 7), TraceEvent("rest", "op", stop // 3, stop, 7)]
        made = document({"p": events}, {})
        assert broken_rules(made) == []
        assert [int(e["dur"] * 1000) for e in made["traceEvents"] if e["ph"] == "X"] == [stop, stop - stop // 3]


def test_traces_of_several_processes_are_joined() -> None:
    one = document({"graphc": [TraceEvent("a", "op", 5, 9, 7)]}, {7: "main"})
    two = document({"x": [TraceEvent("b", "op", 50, 90, 7)], "y": [TraceEvent("c", "op", 1, 2, 3)]}, {}, {"lost": 3})
    both = joined({"eager": one, "compiled": two})
    assert broken_rules(both) == [] and both["otherData"] == {"lost": 3}
    names = [e["args"]["name"] for e in both["traceEvents"] if e["name"] == "process_name"]
    assert names == ["eager", "compiled: x", "compiled: y"]
    assert [e["pid"] for e in both["traceEvents"] if e["ph"] == "X"] == [1, 2, 3]


def test_the_first_thread_alone_has_its_processs_number() -> None:
    """Perfetto calls that one the main thread."""
    events = [TraceEvent("a", "op", 5, 90, 7), TraceEvent("b", "op", 9, 20, 8), TraceEvent("c", "op", 30, 40, 9)]
    for made in (document({"x": events, "y": events}, {}), joined(dict.fromkeys("xyz", document({"": events}, {})))):
        runs = [e for e in made["traceEvents"] if e["ph"] == "X"]
        assert [e["name"] for e in runs if e["tid"] == e["pid"]] == ["a"] * len({e["pid"] for e in runs})
        assert len({e["tid"] for e in runs}) == len(runs)


def test_infos_know_their_nodes() -> None:
    """Every node that is computed at all is computed by some kernel."""
    from graphc.passes import pipeline
    from graphc.schedule import Machine, lower

    graph = graphc.trace(lambda x, w: F.layer_norm(graphc.relu(x @ w).cumsum(0), (5,)).sort(0).values,
                         (graphc.ones(6, 4), graphc.ones(4, 5))).ir  # fmt: skip
    optimised = pipeline.run(graph)
    program = lower(optimised, Machine(vector_bytes=32))
    infos = describe(program)
    # what indices are checked with is added when a graph is scheduled
    known = Counter(node.op.name for node in {node for info in infos for node in info.nodes})
    assert Counter(node.op.name for node in optimised.nodes if node.op.name != "in_range") <= known
    assert {info.kind for info in infos} >= {"loops", "call"}
    assert all(info.text for info in infos)
