"""What compiled code computes once of weights: that it is used, and never stale."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import pickle
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, runtime
from graphc.config import override

ROWS, WIDTH, OUT = 96, 80, 112


class Net(nn.Module):
    """A product with packed weights, and a scale that is computed of others."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, OUT)
        self.scale = nn.Parameter(graphc.rand(OUT))
        self.register_buffer("spread", graphc.rand(OUT) + 0.5)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return self.linear(x) * (self.scale / graphc.sqrt(self.spread + 1e-5))


class Subject:
    """A net with its compiled function, called often enough to have a native entry."""

    def __init__(self) -> None:
        graphc.manual_seed(0)
        self.net = Net()
        self.x = graphc.randn(ROWS, WIDTH)
        self.function = graphc.compile(lambda x: self.net(x))
        self.agree()

    def agree(self, calls: int = 12) -> None:
        """Calls give what eager code does, each of them."""
        with graphc.no_grad():
            expected = self.net(self.x)
            for _ in range(calls):
                assert graphc.allclose(self.function(self.x), expected, rtol=1e-4, atol=1e-5)

    @property
    def graphs(self) -> list[Any]:
        return [graph for graphs in self.function._graphs.values() for graph in graphs]

    @property
    def is_prepared(self) -> bool:
        """Whether native calls take what was computed before."""
        (graph,) = self.graphs
        return graph.entry is not None and graph.entry.calls > 0 and bool(graph.steady._known)


@pytest.fixture
def subject() -> Subject:
    made = Subject()
    assert made.is_prepared
    return made


def test_prepared_code_is_used_and_computes_the_same_bits(subject: Subject) -> None:
    with graphc.no_grad():
        prepared = subject.function(subject.x).numpy().copy()
        with override(prepare_weights=False):
            plain = graphc.compile(lambda x: subject.net(x))
            for _ in range(4):
                assert np.array_equal(plain(subject.x).numpy(), prepared)
    (graph,) = [graph for graphs in plain._graphs.values() for graph in graphs]
    assert graph.executable.preparation is None
    served = subject.graphs[0].entry.calls
    subject.agree(5)
    assert subject.graphs[0].entry.calls == served + 5


def test_weights_are_not_packed_that_products_read_as_fast_where_they_stand() -> None:
    linear, x = nn.Linear(768, 1024), graphc.randn(128, 768)
    function = graphc.compile(lambda x: linear(x))
    with graphc.no_grad():
        for _ in range(3):
            assert graphc.allclose(function(x), linear(x), rtol=1e-4, atol=1e-4)
    (graph,) = [graph for graphs in function._graphs.values() for graph in graphs]
    assert graph.executable.preparation is None


@pytest.mark.parametrize("age", ["young", "old"])
def test_garbage_that_shares_a_weight_is_found(age: str) -> None:
    """What a collection has passed over is old; weights of many bytes are worth looking for it."""
    linear, x = nn.Linear(WIDTH, OUT), graphc.randn(ROWS, WIDTH)
    cycle: list[Any] = [linear.weight.detach()]
    cycle.append(cycle)
    gc.disable()
    try:
        if age == "old":
            gc.collect()
        del cycle
        function = graphc.compile(lambda x: linear(x) * 2)
        with graphc.no_grad():
            function(x)
    finally:
        gc.enable()
    (graph,) = [graph for graphs in function._graphs.values() for graph in graphs]
    assert any(tensor is linear.weight for tensor in graph.steady.tensors.values())


def test_garbage_is_not_sought_for_a_tensor_in_which_a_view_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a mask does that a module keeps: somebody has its memory, and will."""
    mask, x = graphc.tril(graphc.ones(ROWS, ROWS)).view(1, ROWS, ROWS), graphc.randn(ROWS, ROWS)
    function = graphc.compile(lambda x: x.masked_fill(mask[:, :ROWS, :ROWS] == 0, 0.0))
    monkeypatch.setattr(gc, "collect", lambda *generation: pytest.fail("garbage was collected"))
    assert np.array_equal(function(x).numpy()[0], np.tril(x.numpy()))
    (graph,) = [graph for graphs in function._graphs.values() for graph in graphs]
    assert not graph.steady.tensors
    mask.zero_()
    assert not function(x).any()


def sgd(s: Subject) -> None:
    s.net(s.x).square().mean().backward()
    graphc.optim.SGD(s.net.parameters(), lr=1.0).step()


def data(s: Subject) -> None:
    s.net.linear.weight.data[...] = 2.0


def kept_data(s: Subject) -> None:
    alias = s.net.linear.weight.data
    s.agree()
    alias.mul_(3.0)
    s.agree()
    view = alias[1:]
    s.agree()
    del alias
    view.fill_(1.0)


def add(s: Subject) -> None:
    with graphc.no_grad():
        s.net.linear.weight.add_(1.0)
        s.net.scale.mul_(2.0)


def item(s: Subject) -> None:
    with graphc.no_grad():
        s.net.linear.weight[3, 5] = 100.0


def buffer(s: Subject) -> None:
    s.net.spread.mul_(4.0)


def copied(s: Subject) -> None:
    s.net.linear.weight.detach().copy_(graphc.ones(OUT, WIDTH))


def through_numpy(s: Subject) -> None:
    array = s.net.linear.weight.detach().numpy()
    for _ in range(3):
        array += 1.0
        s.agree()
    array[...] = 0.5


def through_an_address(s: Subject) -> None:
    address = s.net.linear.weight.data_ptr()
    s.agree()
    (ctypes.c_float * (OUT * WIDTH)).from_address(address)[:] = [0.25] * (OUT * WIDTH)


def through_the_address_of_an_array(s: Subject) -> None:
    address = np.asarray(s.net.linear.weight.data).ctypes.data
    s.agree()
    (ctypes.c_float * (OUT * WIDTH)).from_address(address)[:] = [0.25] * (OUT * WIDTH)


def through_dlpack(s: Subject) -> None:
    array = np.from_dlpack(s.net.linear.weight.detach())
    if not array.flags.writeable:  # as NumPy 1 gives it
        array = np.asarray(s.net.linear.weight.detach())
    s.agree()
    array[...] = 3.0


def through_storage(s: Subject) -> None:
    address = s.net.linear.weight.untyped_storage().data_ptr()
    s.agree()
    (ctypes.c_float * 8).from_address(address)[:] = [9.0] * 8


def state_dict(s: Subject) -> None:
    s.net.load_state_dict({name: value + 1.0 for name, value in s.net.state_dict().items()})


def assigned_state_dict(s: Subject) -> None:
    state = {name: value + 1.0 for name, value in s.net.state_dict().items()}
    s.net.load_state_dict(state, assign=True)
    s.agree()
    with graphc.no_grad():
        for value in state.values():
            value.mul_(0.5)


def parameter(s: Subject) -> None:
    s.net.linear.weight = nn.Parameter(graphc.ones(OUT, WIDTH))


def set_data(s: Subject) -> None:
    other = graphc.ones(OUT, WIDTH)
    s.net.linear.weight.data = other
    s.agree()
    other.mul_(5.0)
    s.agree()
    del other
    s.agree()
    s.net.linear.weight.data = graphc.zeros(OUT, WIDTH)


def shared_parameter(s: Subject) -> None:
    again = nn.Parameter(s.net.linear.weight)
    s.agree()
    with graphc.no_grad():
        again.mul_(2.0)


def shared_buffer(s: Subject) -> None:
    again = nn.Buffer(s.net.spread)
    s.agree()
    again.add_(2.0)


def copy_of_the_tensor(s: Subject) -> None:
    again = copy.copy(s.net.linear.weight)
    s.agree()
    with graphc.no_grad():
        again.zero_()


def from_numpy(s: Subject) -> None:
    array = np.ones((OUT, WIDTH), np.float32)
    s.net.linear.weight = nn.Parameter(graphc.from_numpy(array))
    for k in range(4):
        array += k
        s.agree()


def view(s: Subject) -> None:
    part = s.net.linear.weight.detach().view(-1)[7:100]
    s.agree()
    part.fill_(4.0)


def tied(s: Subject) -> None:
    other = nn.Linear(WIDTH, OUT)
    other.weight = s.net.linear.weight
    with graphc.no_grad():
        other.weight.sub_(1.0)


def compiled_update(s: Subject) -> None:
    optimizer = graphc.optim.Adam(s.net.parameters(), lr=0.1)

    @graphc.compile
    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = s.net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(6):
        step(s.x)
        s.agree()
    assert s.is_prepared


def compiled_update_of_an_alias(s: Subject) -> None:
    double = graphc.compile(lambda w: w.mul_(2.0))
    alias = s.net.linear.weight.data
    for _ in range(5):
        double(alias)
        s.agree(3)


def another_thread(s: Subject) -> None:
    thread = threading.Thread(target=add, args=(s,))
    thread.start()
    thread.join()


def pickled(s: Subject) -> None:
    pickle.dumps(s.net.linear)
    s.agree()
    add(s)


def requires_grad(s: Subject) -> None:
    s.net.linear.weight.requires_grad_(False)
    s.agree()
    s.net.linear.weight.fill_(1.0)
    s.agree()
    s.net.linear.weight.requires_grad_(True)
    add(s)


def moved(s: Subject) -> None:
    s.net.to(graphc.float64)
    s.x = s.x.to(graphc.float64)
    s.agree()
    add(s)


def shared_memory(s: Subject) -> None:
    s.net.linear.weight.data.share_memory_()
    s.net.linear.weight.share_memory_()
    s.agree()
    s.net.linear.weight.detach().numpy()[...] = 2.0


def transposed_in_place(s: Subject) -> None:
    s.net.linear.weight.data = graphc.ones(WIDTH, OUT).cumsum(0)
    with graphc.no_grad():
        s.net.linear.weight.requires_grad_(False)
        s.net.linear.weight.t_()


def resized(s: Subject) -> None:
    with graphc.no_grad():
        graphc.add(graphc.ones(OUT, WIDTH), 1.0, out=s.net.linear.weight.requires_grad_(False))


def threads(s: Subject) -> None:
    with graphc.no_grad():
        s.net.linear.weight.mul_(1.5)
        expected = s.net(s.x)
    wrong: list[float] = []

    def call() -> None:
        with graphc.no_grad():
            for _ in range(20):
                off = (s.function(s.x) - expected).abs().max().item()
                if off > 1e-3:
                    wrong.append(off)

    running = [threading.Thread(target=call) for _ in range(3)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not wrong


CHANGES: list[Callable[[Subject], None]] = [
    sgd, data, kept_data, add, item, buffer, copied, through_numpy, through_an_address, through_the_address_of_an_array,
    through_dlpack, through_storage, state_dict, assigned_state_dict, parameter, set_data, shared_parameter, shared_buffer,
    copy_of_the_tensor, from_numpy, view, tied, compiled_update, compiled_update_of_an_alias, another_thread, pickled,
    requires_grad, moved, shared_memory, transposed_in_place, resized, threads,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_shows_at_the_next_call(subject: Subject, change: Callable[[Subject], None]) -> None:
    change(subject)
    subject.agree()
    change(subject)
    subject.agree(2)


def test_weights_that_change_now_and_then_are_prepared_again(subject: Subject) -> None:
    for _ in range(5):
        add(subject)
        subject.agree()
        assert subject.is_prepared


def test_weights_that_change_at_each_call_are_given_up(subject: Subject) -> None:
    for _ in range(12):
        add(subject)
        subject.agree(1)
    (graph,) = subject.graphs
    numbers = {id(tensor) for tensor in graph.steady.tensors.values()}
    assert id(subject.net.linear.weight) not in numbers
    assert id(subject.net.spread) in numbers
    subject.agree()


def test_nothing_is_prepared_where_gradients_are_computed() -> None:
    net = Net()
    function = graphc.compile(lambda x: net(x))
    function(graphc.ones(ROWS, WIDTH)).sum().backward()
    (graph,) = [graph for graphs in function._graphs.values() for graph in graphs]
    assert {id(t) for t in graph.steady.tensors.values()} == {id(net.spread)}


def test_a_frozen_trunk_is_prepared_while_the_head_is_trained() -> None:
    trunk, head = nn.Linear(WIDTH, OUT).requires_grad_(False), nn.Linear(OUT, 64)
    optimizer = graphc.optim.SGD(head.parameters(), lr=0.01)
    x = graphc.randn(ROWS, WIDTH)

    @graphc.compile
    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = head(trunk(x).relu()).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(x).item() for _ in range(8)]
    assert losses == sorted(losses, reverse=True)
    graph = next(graph for graphs in step._graphs.values() for graph in graphs if graph.steady._known)
    assert {id(t) for t in graph.steady.tensors.values()} >= {id(trunk.weight)}
    with graphc.no_grad():
        trunk.weight.zero_()
        trunk.bias.zero_()
        expected = head(trunk(x).relu()).square().mean()
    assert graphc.allclose(step(x), expected)


def test_each_of_two_equal_nets_has_its_own(subject: Subject) -> None:
    other = Subject()
    add(other)
    other.agree()
    subject.agree()
    twin = copy.deepcopy(subject.net)
    function = graphc.compile(lambda x: twin(x))
    with graphc.no_grad():
        twin.linear.weight.mul_(2.0)
        for _ in range(5):
            assert graphc.allclose(function(subject.x), twin(subject.x), rtol=1e-4, atol=1e-5)
    subject.agree()


def test_sizes_that_change_share_what_is_prepared() -> None:
    net = Net()
    function = graphc.compile(lambda x: net(x), dynamic=True)
    with graphc.no_grad():
        for rows in (96, 128, 70, 96, 128, 70, 96):
            x = graphc.randn(rows, WIDTH)
            for _ in range(4):
                assert graphc.allclose(function(x), net(x), rtol=1e-4, atol=1e-5)
            net.linear.weight.mul_(1.1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_weights_of_its_own(subject: Subject) -> None:
    child = os.fork()
    if child == 0:
        try:
            subject.agree(2)
            add(subject)
            subject.agree(3)
            os._exit(0)
        except BaseException:  # a child must not go on with the tests
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    subject.agree()


def test_threads_may_be_fewer_or_more(subject: Subject) -> None:
    before = graphc.get_num_threads()
    try:
        for threads in (1, 2, 1):
            graphc.set_num_threads(threads)
            subject.agree(3)
            add(subject)
    finally:
        graphc.set_num_threads(before)
    subject.agree()


def test_a_file_is_prepared_once(tmp_path: Path) -> None:
    net = Net().eval()
    x = graphc.randn(ROWS, WIDTH)
    rows = graphc.Dim("rows", min=2, max=500)
    program = graphc.export(net, (x,), dynamic_shapes={"x": {0: rows}})
    expected = net(x).detach().numpy()
    graphc.save(program, str(tmp_path / "net.gcz"))
    loaded = runtime.load(str(tmp_path / "net.gcz"))
    for _ in range(3):
        assert np.allclose(loaded(x.numpy()), expected, rtol=1e-4, atol=1e-5)
        assert np.allclose(loaded(x.numpy()[:17]), expected[:17], rtol=1e-4, atol=1e-5)
    assert loaded.main._compiled._prepared
    own = runtime.Program({"forward": loaded.main.entry}, {name: array.copy() for name, array in loaded.weights.items()})
    assert np.allclose(own(x.numpy()), expected, rtol=1e-4, atol=1e-5)
    for array in own.weights.values():
        array[...] = 0
    assert not own(x.numpy()).any()


def test_what_is_prepared_goes_with_the_function() -> None:
    made = Subject()
    memory = weakref.ref(next(iter(made.graphs[0].steady._known.values())))
    del made
    gc.collect()
    assert memory() is None
