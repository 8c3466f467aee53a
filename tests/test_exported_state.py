"""Exported programs that change: training steps, recurrent networks with a state, random numbers; and programs of several
entries that share what they hold."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, runtime
from graphc.errors import ArgumentError, ArgumentTypeError, DTypeError, GraphcError, ShapeError, TraceError
from graphc.nn import functional as F


def reloaded(program: Any) -> runtime.Program:
    """The program as it is read back from its file, without the front end."""
    stream = io.BytesIO()
    program.save(stream)
    stream.seek(0)
    return runtime.load(stream)


class Recurrent(nn.Module):
    """A cell that keeps its hidden vector: by putting another in its place, or by writing to it."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 5)
        self.in_place = in_place
        self.register_buffer("h", graphc.zeros(2, 5))

    def forward(self, x: Any) -> Any:
        h = self.cell(x, self.h)
        if self.in_place:
            self.h.copy_(h)
        else:
            self.h = h
        return h

    def hidden(self) -> Any:
        return self.h * 1


def training(make_optimizer: Any, *layers: nn.Module) -> tuple[nn.Module, Any, Any]:
    model = nn.Sequential(nn.Linear(4, 8), *layers, nn.ReLU(), nn.Linear(8, 1))
    optimizer = make_optimizer(model.parameters())

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return {"loss": loss}

    return model, optimizer, step


@pytest.mark.parametrize("make_optimizer", [
    lambda p: graphc.optim.SGD(p, lr=0.1), lambda p: graphc.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    lambda p: graphc.optim.Adam(p, lr=0.01), lambda p: graphc.optim.AdamW([{"params": list(p), "lr": 0.02}]),
    lambda p: graphc.optim.RMSprop(p, lr=0.01, centered=True),
])  # fmt: skip
def test_a_training_step(make_optimizer: Any) -> None:
    graphc.manual_seed(0)
    model, _, step = training(make_optimizer)
    x, y = graphc.randn(16, 4), graphc.randn(16, 1)
    program = graphc.export(step, (x, y), state=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in before.items():
        assert graphc.equal(model.state_dict()[name], tensor), "exporting changes nothing"
    assert program.signature == "forward(x: float32[16, 4], y: float32[16, 1]) -> (loss: float32[])"
    half = [program(x, y)["loss"].item() for _ in range(3)]
    saved = reloaded(program)
    got = half + [float(saved(x.numpy(), y.numpy())["loss"]) for _ in range(3)]
    np.testing.assert_allclose(got, [step(x, y)["loss"].item() for _ in range(6)], rtol=1e-4)
    for name, tensor in model.state_dict().items():
        np.testing.assert_allclose(saved.state[f"model.{name}"], tensor.numpy(), rtol=1e-4, atol=1e-5)
    saved.reset()
    program.reset()
    assert program(x, y)["loss"].item() == pytest.approx(half[0]), "reset goes back to the beginning"
    assert float(saved(x.numpy(), y.numpy())["loss"]) == pytest.approx(got[3]), "which is what the file holds"


def test_running_statistics_and_dropout() -> None:
    graphc.manual_seed(3)
    model, _, step = training(lambda p: graphc.optim.SGD(p, lr=0.1), nn.BatchNorm1d(8), nn.Dropout(0.5))
    x, y = graphc.randn(16, 4), graphc.randn(16, 1)
    program = graphc.export(step, (x, y), state=True)
    assert {"generator", "model.1.running_mean", "model.1.num_batches_tracked"} <= set(program.state)
    got = [program(x, y)["loss"].item() for _ in range(4)]
    np.testing.assert_allclose(got, [step(x, y)["loss"].item() for _ in range(4)], rtol=1e-4)
    assert program.state["model.1.num_batches_tracked"].item() == 4
    np.testing.assert_allclose(program.state["model.1.running_var"].numpy(), model[1].running_var.numpy(), rtol=1e-3, atol=1e-4)


def test_a_learning_rate_is_state() -> None:
    model, _, step = training(lambda p: graphc.optim.SGD(p, lr=0.1))
    x, y = graphc.randn(16, 4), graphc.randn(16, 1)
    program = reloaded(graphc.export(step, (x, y), state=True))
    program.state["optimizer.lr"] = 0.0
    before = program.state["model.0.weight"]
    program(x.numpy(), y.numpy())
    np.testing.assert_array_equal(program.state["model.0.weight"], before)
    program.state["optimizer.lr"] = 0.5
    program(x.numpy(), y.numpy())
    assert (program.state["model.0.weight"] != before).any()
    np.testing.assert_array_equal(before, model[0].weight.detach().numpy(), "what was read stays as it was")


@pytest.mark.parametrize("in_place", [True, False])
def test_a_recurrent_network_and_a_second_entry(in_place: bool) -> None:
    graphc.manual_seed(1)
    model = Recurrent(in_place)
    xs = [graphc.randn(2, 3) for _ in range(4)]
    program = graphc.export({"forward": model, "hidden": model.hidden}, {"forward": (xs[0],), "hidden": ()}, state=True)
    assert not model.h.any() and isinstance(model.h, graphc.Tensor), "the module has its own state back"
    assert list(program.state) == ["h"] and len(program.program.weights) == 5
    saved = reloaded(program)
    with graphc.no_grad():
        for x in xs:
            expected = model(x).numpy()
            np.testing.assert_allclose(program(x).numpy(), expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(saved(x.numpy()), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(program.function("hidden")().numpy(), program.state["h"].numpy())
    np.testing.assert_array_equal(saved.run("hidden"), saved.state["h"])
    saved.reset()
    assert not saved.run("hidden").any()


def test_gradients_that_add_up_over_calls() -> None:
    weight = nn.Parameter(graphc.ones(3))
    weight.grad = graphc.zeros(3)

    def accumulate(x: Any) -> Any:
        loss = (weight * x).sum()
        loss.backward()
        return loss

    def step() -> Any:
        with graphc.no_grad():
            weight.sub_(weight.grad)
            weight.grad.zero_()

    program = graphc.export({"accumulate": accumulate, "step": step}, {"accumulate": (graphc.ones(3),), "step": ()}, state=True)
    assert list(program.state) == ["weight", "weight.grad"]
    for _ in range(3):
        program.function("accumulate")(graphc.tensor([1.0, 2.0, 3.0]))
    assert program.state["weight.grad"].tolist() == [3, 6, 9]
    assert program.function("step")() is None
    assert program.state["weight"].tolist() == [-2, -5, -8] and not program.state["weight.grad"].any()


def test_state_is_set_and_checked() -> None:
    total = graphc.zeros(2)
    count = graphc.zeros((), dtype=graphc.int64)

    def add(x: Any) -> Any:
        total.add_(x)
        count.add_(1)
        return total * count

    program = graphc.export(add, (graphc.ones(2),), state=True)
    state = program.program.state
    program.state["total"] = graphc.tensor([1.0, 2.0])
    program.state.update({"count": 4})
    assert program(graphc.ones(2)).tolist() == [10, 15] and dict(program.state)["count"].item() == 5
    assert "total" in state and "mean" not in state and state.get("mean") is None and len(state) == 2
    assert repr(state) == "<state {count: int64[], total: float32[2]}>"
    wrong = [("total", np.zeros(3), ShapeError), ("total", np.zeros(2), DTypeError), ("count", 1.5, DTypeError),
             ("mean", 1, KeyError), ("total", "text", GraphcError)]  # fmt: skip
    for name, value, error in wrong:
        with pytest.raises(error):
            state[name] = value
    with pytest.raises(ValueError, match="read-only"):
        state["total"][0] = 1
    program.state["total"].zero_()
    assert program.state["total"].tolist() == [2, 3], "a copy was changed"
    mine = np.ones(2, np.float32)
    state["total"] = mine
    mine[:] = 7
    assert state["total"].tolist() == [1, 1]


def test_memory_of_former_calls_is_used_again_where_nobody_has_it() -> None:
    total = graphc.zeros(1000)
    program = reloaded(graphc.export(lambda x: total.add_(x).sum(), (graphc.ones(1000),), state=True))
    one = np.ones(1000, np.float32)
    state = program.state
    places, kept = [], []
    for number in range(1, 9):
        program(one)
        places.append(state["total"].ctypes.data)
        if number >= 5:
            kept.append((number, state["total"]))
    assert places[2] == places[0] and places[3] == places[1], "two arrays by turns"
    assert len(set(places[4:])) == 4, "what somebody looks at is left alone"
    for number, array in kept:
        assert (array == number).all()
    mine = np.full(1000, 3, np.float32)
    state["total"] = mine
    program(one), program(one), program(one)
    assert (mine == 3).all() and (state["total"] == 6).all()
    program.reset()
    program(one), program(one)
    program.reset()
    assert not state["total"].any(), "the beginning is kept"


def test_a_call_that_fails_changes_nothing() -> None:
    program = reloaded(graphc.export(Recurrent(False), (graphc.ones(2, 3),), state=True))
    program(np.ones((2, 3), np.float32))
    before = program.state["h"]
    with pytest.raises(ShapeError):
        program(np.ones((3, 3), np.float32))
    np.testing.assert_array_equal(program.state["h"], before)


def test_threads_take_turns() -> None:
    count = graphc.zeros((), dtype=graphc.int64)
    program = reloaded(graphc.export(lambda: count.add_(1) * 1, (), state=True))
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.extend(int(program()) for _ in range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(1, 201)) and program.state["count"] == 200


def test_what_cannot_be_kept() -> None:
    class Growing(nn.Module):
        def forward(self, x: Any) -> Any:
            self.h = x * 2
            return self.h

    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = graphc.zeros(1)

        def forward(self, x: Any) -> Any:
            self.h = graphc.cat([self.h, x])
            return self.h

    x = graphc.ones(2)
    growing = Growing()
    with pytest.raises(TraceError, match=r"(?s)keeps a tensor as 'h'.*register_buffer"):
        graphc.export(growing, (x,), state=True)
    assert not hasattr(growing, "h")
    with pytest.raises(TraceError, match=r"(?s)of another type.*float32\[1\].*float32\[3\]"):
        graphc.export(Changing(), (x,), state=True)
    with pytest.raises(TraceError, match=r"(?s)its argument 'x' in place.*clone\(\)"):
        graphc.export(lambda x: x.add_(1), (x,), state=True)
    weight = nn.Parameter(graphc.ones(2))
    with pytest.raises(TraceError, match=r"(?s)adds to gradients that are None at first.*zero_grad"):
        graphc.export(lambda x: (weight * x).sum().backward(), (x,), state=True)
    with pytest.raises(TraceError, match=r"(?s)changes h in place.*state=True"):
        graphc.export(Recurrent(False), (graphc.ones(2, 3),))


def test_what_is_written_to_and_then_replaced() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = graphc.zeros(2)

        def forward(self, x: Any) -> Any:
            self.h.add_(x)
            self.h = self.h * 2
            self.h.sub_(1)
            return self.h

    program, model = graphc.export(Both(), (graphc.ones(2),), state=True), Both()
    for _ in range(3):
        assert program(graphc.ones(2)).tolist() == model(graphc.ones(2)).tolist()
    assert program.state["h"].tolist() == model.h.tolist()
    viewing = Both()
    viewing.h = graphc.zeros(4)[1:3]
    with pytest.raises(TraceError, match=r"(?s)a view of another tensor, float32\[2\].*clone"):
        graphc.export(viewing, (graphc.ones(2),), state=True)


def test_names_of_what_is_found() -> None:
    table: dict[str, Any] = {"a": graphc.ones(2), "self": None}
    table["self"] = table  # data of any kind are passed over
    rows = [graphc.ones(2), graphc.ones(2)]

    class Owner:
        def __init__(self) -> None:
            self.scale, self.model = graphc.ones(2), nn.Linear(2, 2)

        def run(self, x: Any) -> Any:
            return self.model(x) * self.scale + table["a"] + rows[1] + sum(made[:1])

    made = [graphc.ones(2) for _ in range(2)]
    program = graphc.export(Owner().run, (graphc.ones(2),))
    assert set(program.program.weights) == {"scale", "model.weight", "model.bias", "table.a", "rows.1", "made.0"}
    program = graphc.export({"a": lambda: made[0] * 1, "b": lambda: (lambda: made[1] + rows[0])()}, {"a": (), "b": ()})
    assert set(program.program.weights) == {"made.0", "tensor.0", "tensor.1"} or len(program.program.weights) == 3
    if "never" in table:
        later = graphc.ones(2)
    assert graphc.export(lambda x: x if "never" not in table else later, (graphc.ones(2),))(graphc.ones(2)).tolist() == [1, 1]


def test_entries_share_their_tensors() -> None:
    autoencoder = nn.ModuleDict({"encoder": nn.Linear(4, 2), "decoder": nn.Linear(2, 4)})
    batch = graphc.Dim("batch")
    program = graphc.export(
        {"encode": autoencoder["encoder"], "both": lambda x: autoencoder["decoder"](autoencoder["encoder"](x))},
        {"encode": (graphc.ones(3, 4),), "both": (graphc.ones(3, 4),)},
        dynamic_shapes={"both": {"x": {0: batch}}}, metadata={"epochs": 3},
    )
    saved = reloaded(program)
    assert len(saved.weights) == 4 and saved.metadata == {"epochs": 3} == program.metadata and not saved.state
    assert saved.signature.split("\n") == [
        "both(x: float32[batch, 4]) -> (output: float32[batch, 4])", "encode(input: float32[3, 4]) -> (output: float32[3, 2])",
    ]
    x = graphc.randn(5, 4)
    expected = autoencoder["decoder"](autoencoder["encoder"](x)).detach().numpy()
    np.testing.assert_allclose(saved.run("both", x=x.numpy()), expected, rtol=1e-5, atol=1e-6)
    for wrong in ({"encode": (x,), "other": (x,)}, {"encode": (x,)}, (x,)):
        with pytest.raises((ArgumentError, ArgumentTypeError), match=r"example.inputs"):
            graphc.export({"encode": autoencoder["encoder"], "both": autoencoder["decoder"]}, wrong)


def test_keyword_arguments_and_names() -> None:
    def f(x: Any, *, options: Any, scale: Any) -> Any:
        return {"logits": x * scale, "more": [x + options["bias"], {"deep": x}], 3: x}, x

    batch = graphc.Dim("batch", max=9)
    x, one = graphc.ones(4), graphc.ones(())
    program = graphc.export(f, (x,), {"options": {"bias": one}, "scale": one}, dynamic_shapes={"x": {0: batch}, "scale": None})
    assert program.signature == (
        "forward(x: float32[batch], options.bias: float32[], scale: float32[]) -> (output_0.logits: float32[batch], "
        "output_0.more.0: float32[batch], output_0.more.1.deep: float32[batch], output_0.3: float32[batch], "
        "output_1: float32[batch])"
    )
    results, last = reloaded(program)(np.ones(2, np.float32), options={"bias": 2.0}, scale=3.0)
    assert results["logits"].tolist() == [3, 3] and results["more"][0].tolist() == [3, 3] and last.tolist() == [1, 1]
    assert list(results) == ["logits", "more", 3]
