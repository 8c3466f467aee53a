"""`graphc.summary`: what it finds, and that it leaves everything as it was."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.flops import graph_flops


class Net(nn.Module):
    """Nested, with a layer that is called twice under two names, tied weights, a list that is never called itself, state that
    calls change, and a branch on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.norm = nn.BatchNorm1d(4)
        self.blocks = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
        self.blocks[2].weight = self.first.weight
        self.drop = nn.Dropout(0.5)
        self.unused = nn.Linear(2, 3)
        self.calls = 0

    def forward(self, batch: dict[str, graphc.Tensor], scale: float = 1.0) -> dict[str, Any]:
        self.calls += 1
        x = self.first(self.drop(self.first(batch["x"]))) * scale
        if x.sum() > 1e9:
            raise AssertionError("the numbers are others")
        x = self.norm(x)
        for block in self.blocks:
            x = block(x)
        self.last = x
        return {"logits": x, "parts": [x.argmax(1)]}


def test_layers_of_a_perceptron() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    found = graphc.summary(model, graphc.ones(4, 8))
    assert [(layer.path, layer.kind, layer.depth) for layer in found] == [
        ("", "Sequential", 0), ("0", "Linear", 1), ("1", "ReLU", 1), ("2", "Linear", 1)]
    assert [layer.output_text for layer in found] == ["float32[4, 2]", "float32[4, 16]", "float32[4, 16]", "float32[4, 2]"]
    assert [layer.flops for layer in found] == [1416, 4 * 16 * 17, 64, 4 * 2 * 33]
    assert found.flops == graph_flops(graphc.trace(model, (graphc.ones(4, 8),)).ir)
    assert (found.parameters, found.parameter_bytes, found.input_bytes) == (178, 712, 128)
    assert found.output_bytes == (4 * 16 + 4 * 16 + 4 * 2) * 4
    with pytest.raises(KeyError):
        found["3"]


def test_modules_that_are_shared_called_twice_or_never() -> None:
    found = graphc.summary(Net(), {"x": graphc.ones(5, 4)}, scale=2.0)
    assert found["first"].calls == 2 and found["first"].flops == 2 * 5 * 4 * 9
    assert found["again"].same_as == "first" and found["again"].flops == 0
    assert found["blocks"].calls == 0 and found["blocks"].flops == 3 * found["blocks.0"].flops
    assert found["unused"].calls == 0 and found["unused"].parameters == 9
    own = 20 + 8 + (2 * 20 + 4) + 9  # the last block's weight is that of the first layer
    assert found.parameters == found.trainable_parameters == own
    assert found["blocks.2"].parameters == 20
    assert [str(t) for t in found[""].outputs[0]] == ["float32[5, 4]", "int64[5]"]
    assert found.buffer_bytes == 4 * 4 * 2 + 8
    text = str(found)
    assert "first: Linear (called 2 times)" in text and "the same as first" in text and repr(found) == text
    assert "│  └─ 2: Linear" in text and "\n└─ unused: Linear" in text


def test_nothing_changes() -> None:
    model = Net()
    x = graphc.randn(5, 4, requires_grad=True)
    model({"x": x})["logits"].sum().backward()
    del model.last
    calls, compiled = model.calls, graphc.compile(lambda t: model.first(t))
    compiled(x)
    graphs = compiled.explain()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = {name: p.grad for name, p in model.named_parameters()}
    attributes, generator = set(vars(model)), graphc.get_rng_state()
    graphc.summary(model, {"x": x})
    assert all(bool((value == state[name]).all()) for name, value in model.state_dict().items())
    assert all(p.grad is grads[name] for name, p in model.named_parameters())
    assert bool((graphc.get_rng_state() == generator).all())
    assert model.training and model.calls == calls and set(vars(model)) == attributes
    assert x.grad_fn is None and not any(module._has_hooks() for module in model.modules())
    compiled(x)
    assert compiled.explain() == graphs


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_the_models(training: bool) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Flatten()).train(training)
    assert (graphc.summary(model, graphc.ones(2, 3, 4))["0"].flops > 0) is training
    assert model.training is training


def test_frozen_parameters_and_other_dtypes() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)).bfloat16()
    model[0].requires_grad_(False)
    found = graphc.summary(model, graphc.ones(0, 3, dtype=graphc.bfloat16))
    assert (found.parameters, found.trainable_parameters, found.parameter_bytes) == (32, 12, 64)
    assert found.flops == 0 and found["1"].output_text == "bfloat16[0, 2]"
    assert "12 trainable, 20 not" in str(found)


def test_depth_is_for_the_table_alone() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Tanh())
    found = graphc.summary(model, graphc.ones(1, 2), depth=1)
    assert len(found) == 5 and "Linear" not in str(found) and "└─ 1: Tanh" in str(found)


def test_compiled_modules_are_those_that_they_compile() -> None:
    model = nn.Sequential(nn.Linear(3, 3), graphc.compile(nn.Linear(3, 2)))
    assert str(graphc.summary(graphc.compile(model), graphc.ones(2, 3))) == str(graphc.summary(model, graphc.ones(2, 3)))
    assert graphc.summary(model, graphc.ones(2, 3)).flops == 2 * 3 * 7 + 2 * 2 * 7


def test_recurrence_counts_its_steps() -> None:
    short, long = (graphc.summary(nn.LSTM(4, 8), graphc.ones(steps, 2, 4)).flops for steps in (3, 6))
    assert 1.9 * short < long <= 2 * short


def test_numbers_that_the_model_asks_for() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, n: graphc.Tensor, x: graphc.Tensor) -> graphc.Tensor:
            for _ in range(int(n.item())):
                x = self.inner(x)
            return x[x.sum(1) > -1e9] if bool(n > 1) else x

    assert graphc.summary(Steps(), graphc.tensor(3), graphc.ones(4, 2))["inner"].calls == 3
    assert graphc.summary(Steps(), graphc.tensor(0), graphc.ones(4, 2))["inner"].calls == 0


def test_errors() -> None:
    with pytest.raises(TypeError, match=r"summary: not a module(.|\n)*got:      function"):
        graphc.summary(lambda x: x, graphc.ones(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"0\.weight has no shape yet(.|\n)*call the model once"):
        graphc.summary(nn.Sequential(nn.LazyLinear(3)), graphc.ones(2, 3))
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
    with pytest.raises(RuntimeError, match=r"shapes cannot be multiplied \(4x7 and 8x16\)"):
        graphc.summary(model, graphc.ones(4, 7))
    assert not model._has_hooks()
    with pytest.raises(TypeError):
        graphc.summary(model)


def test_other_threads_are_not_looked_at() -> None:
    model, stop = nn.Sequential(nn.Linear(4, 4), nn.Tanh()), threading.Event()
    x = graphc.ones(2, 4)
    expected = model(x).detach().numpy()
    wrong: list[Any] = []

    def run() -> None:
        while not stop.is_set():
            made = model(x)
            if not np.array_equal(made.detach().numpy(), expected):
                wrong.append(made)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        found = [graphc.summary(model, x) for _ in range(20)]
    finally:
        stop.set()
        thread.join()
    assert not wrong and {layer.calls for each in found for layer in each} == {1}
