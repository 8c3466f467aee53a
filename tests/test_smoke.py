"""The whole way through in some seconds: eager, compiled, trained, saved, and run again where there is no front end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc import nn


class Net(nn.Module):
    """One of each layer of the example."""

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.features = nn.Sequential(convolution, nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.dropout = nn.Dropout(0.3)
        self.classify = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return self.classify(self.dropout(self.features(x).flatten(1)))


def data() -> tuple[graphc.Tensor, graphc.Tensor]:
    """Three classes of 8x8 images: noise, with one bright row a class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 30)
    images = rng.standard_normal((30, 1, 8, 8)).astype(np.float32)
    images[np.arange(30), 0, 2 * labels] += 2
    return graphc.tensor(images), graphc.tensor(labels)


def train(wrap: Callable[..., Callable[..., graphc.Tensor]], steps: int = 30) -> tuple[Net, list[float]]:
    graphc.manual_seed(0)
    model = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = graphc.optim.Adam(model.parameters(), lr=1e-2)

    def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = wrap(step)
    return model, [run(*data()).item() for _ in range(steps)]


@pytest.fixture(scope="module")
def trained() -> Net:
    return train(graphc.compile)[0].eval()


def test_eager_arithmetic_and_gradient() -> None:
    x = graphc.tensor([[1.0, -2.0], [3.0, 4.0]], requires_grad=True)
    (x.relu() @ x).sum().backward()
    assert x.grad.tolist() == [[3.0, 4.0], [3.0, 11.0]]


def test_compiled_function_agrees_with_eager() -> None:
    def f(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        return graphc.tanh(x @ y + 1).sum(dim=1)

    x, y = graphc.randn(5, 7), graphc.randn(7, 3)
    np.testing.assert_allclose(graphc.compile(f)(x, y).numpy(), f(x, y).numpy(), rtol=1e-5)


def test_compiled_training_agrees_with_eager() -> None:
    """Dropout, batch statistics and Adam's state included; the loss goes down, so something is learned."""
    eager_model, eager = train(lambda step: step)
    compiled_model, compiled = train(graphc.compile)
    np.testing.assert_allclose(compiled, eager, rtol=1e-4)
    assert compiled[-1] < 0.3 * compiled[0]
    state = compiled_model.state_dict()
    for name, tensor in eager_model.state_dict().items():
        np.testing.assert_allclose(state[name].numpy(), tensor.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


RUN = """
import sys
import numpy as np
from graphc import runtime

np.save("logits.npy", runtime.load("model.gcz")(np.load("images.npy")))
assert not [name for name in sys.modules if name.startswith("graphc.frontend")]
"""


def test_saved_program_runs_without_the_front_end(trained: Net, tmp_path: Path) -> None:
    images, _ = data()
    graphc.save(graphc.export(trained, (images,)), tmp_path / "model.gcz")
    np.save(tmp_path / "images.npy", images.numpy())
    subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, check=True)
    with graphc.no_grad():
        expected = trained(images).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(graphc.load(tmp_path / "model.gcz")(images).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_command_line_shows_and_transforms_it(trained: Net, tmp_path: Path) -> None:
    graphc.save(graphc.export(trained, (data()[0],)), tmp_path / "model.gcz")
    command = [sys.executable, "-m", "graphc"]
    shown = subprocess.run([*command, "inspect", "model.gcz"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "float32[30, 1, 8, 8]" in shown.stdout and "classify.weight" in shown.stdout
    passes = ["opt", "model.gcz", "-p", "simplify,cse", "--print-all"]
    printed = subprocess.run([*command, *passes], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert printed.stdout.index("# after simplify") < printed.stdout.index("# after cse")


def test_error_says_where_and_what() -> None:
    message = r"(?s)cannot be multiplied.*expected:.*got:.*float32\[2, 3\].*at test_smoke\.py:\d+"
    with pytest.raises(RuntimeError, match=message):
        graphc.ones(2, 3) @ graphc.ones(4, 5)
