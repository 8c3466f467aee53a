"""Train a small convolutional network on handwritten digits: eagerly, compiled, and again from a file.

    python examples/digits.py

The same code is trained twice from the same seed: once eagerly, and once with the whole training step (zero_grad,
forward, loss, backward, optimizer step) compiled to machine code. The trained model is exported to digits.gcz, and a new
process that never imports the front end runs it. Ends with status 1 if one of the checks at the end fails.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import graphc
from graphc import nn

DATA = Path(__file__).parent / "data" / "digits.csv.gz"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(32 * 2 * 2, 10)

    def forward(self, x):
        x = self.pool(self.relu(self.norm1(self.conv1(x))))  # [N, 16, 4, 4]
        x = self.pool(self.relu(self.norm2(self.conv2(x))))  # [N, 32, 2, 2]
        return self.fc(self.dropout(x.flatten(1)))


def load_digits():
    """Images float32[1797, 1, 8, 8] from 0 to 1 and labels int64[1797], as two parts: every fifth one is held out."""
    table = np.loadtxt(DATA, delimiter=",", dtype=np.float32)
    images, labels = table[:, :64].reshape(-1, 1, 8, 8) / 16, table[:, 64].astype(np.int64)
    held_out = np.arange(len(table)) % 5 == 0
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])


@dataclass
class Run:
    """What came out of one training."""

    model: Net
    losses: list[float]
    seconds: list[float]
    accuracy: float = 0.0

    @property
    def step_time(self):
        return float(np.median(self.seconds))

    @property
    def compile_time(self):
        """What the first steps took beyond the usual, for tracing and compiling."""
        return sum(self.seconds[:3]) - 3 * self.step_time


def train(images, labels, options, compiled, on_step):
    graphc.manual_seed(options.seed)
    model = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = graphc.optim.Adam(model.parameters(), lr=3e-3)

    def step(x, y):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        step = graphc.compile(step)

    run = Run(model, [], [])
    shuffle = np.random.default_rng(options.seed)
    for _ in range(options.epochs):
        order = shuffle.permutation(len(images))
        for start in range(0, len(images) - options.batch_size + 1, options.batch_size):
            batch = order[start : start + options.batch_size]
            x, y = graphc.tensor(images[batch]), graphc.tensor(labels[batch])
            began = time.perf_counter()
            loss = step(x, y).item()
            run.seconds.append(time.perf_counter() - began)
            run.losses.append(loss)
            on_step(run)
    return run


def accuracy(model, images, labels):
    model.eval()
    with graphc.no_grad():
        predicted = model(graphc.tensor(images)).argmax(1)
    return float((predicted.numpy() == labels).mean())


RELOAD = """
import sys
import numpy as np
import graphc.runtime

program = graphc.runtime.load(sys.argv[1])
logits = program(np.load(sys.argv[2]))
np.save(sys.argv[3], logits.argmax(1))
assert "graphc.frontend" not in sys.modules
"""


def export_and_reload(model, images, folder):
    """The predictions of digits.gcz, made in a new process that has no front end."""
    model.eval()
    graphc.save(graphc.export(model, (graphc.tensor(images),)), folder / "digits.gcz")
    with tempfile.TemporaryDirectory() as scratch:
        given, predicted = Path(scratch, "images.npy"), Path(scratch, "predicted.npy")
        np.save(given, images)
        subprocess.run([sys.executable, "-c", RELOAD, folder / "digits.gcz", given, predicted], check=True)
        return np.load(predicted)


def plot(eager, compiled, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(3, 1), layout="constrained")
    left.semilogy(eager.losses, color="#9db8d9", linewidth=4, label="eager")
    left.semilogy(compiled.losses, color="#b3402e", linewidth=1, label="compiled")
    left.set(title="Training loss on the UCI digits, same seed", xlabel="step", ylabel="cross entropy")
    left.grid(which="major", color="#dddddd", linewidth=0.6)
    left.legend(frameon=False)
    bars = right.bar(["eager", "compiled"], [1e3 * r.step_time for r in (eager, compiled)], color=["#9db8d9", "#b3402e"])
    right.bar_label(bars, fmt="%.2f ms", padding=2)
    right.set(title="Time a step")
    right.margins(y=0.12)
    right.yaxis.set_visible(False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    right.spines["left"].set_visible(False)
    figure.savefig(path, dpi=150)


def sparkline(values, width=24):
    """A curve in one line of text."""
    means = [part.mean() for part in np.array_split(values, min(width, len(values)))]
    return "".join("▁▂▃▄▅▆▇█"[round(7 * mean / max(means))] for mean in means)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-plot", action="store_true", help="do not draw digits.png (needs no matplotlib)")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="where digits.gcz and digits.png go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()

    (images, labels), (test_images, test_labels) = load_digits()
    steps = options.epochs * (len(images) // options.batch_size)
    columns = [TextColumn("{task.description:8}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"),
               TextColumn("loss {task.fields[loss]:.4f}"), TimeElapsedColumn()]
    runs = {}
    with Progress(*columns, console=console) as progress:
        for name in ("eager", "compiled"):
            task = progress.add_task(name, total=steps, loss=float("nan"))
            run = train(images, labels, options, name == "compiled",
                        lambda run, task=task: progress.update(task, advance=1, loss=run.losses[-1]))
            run.accuracy = accuracy(run.model, test_images, test_labels)
            runs[name] = run
    eager, compiled = runs["eager"], runs["compiled"]

    table = Table("", *runs)
    table.add_row("loss, step by step", *(sparkline(run.losses) for run in runs.values()))
    table.add_row("last loss", *(f"{run.losses[-1]:.4f}" for run in runs.values()))
    table.add_row("test accuracy", *(f"{run.accuracy:.2%}" for run in runs.values()))
    table.add_row("time a step", *(f"{1e3 * run.step_time:.2f} ms" for run in runs.values()))
    table.add_row("compile time", "", f"{compiled.compile_time:.2f} s")
    table.add_row("speed-up", "", f"{eager.step_time / compiled.step_time:.1f}x")
    console.print(table)

    predicted = export_and_reload(compiled.model, test_images, options.out)
    with graphc.no_grad():
        expected = compiled.model(graphc.tensor(test_images)).argmax(1).numpy()
    if not options.no_plot:
        plot(eager, compiled, options.out / "digits.png")
        console.print(f"curves in {options.out / 'digits.png'}, model in {options.out / 'digits.gcz'}")

    first, second = np.array(eager.losses[:50]), np.array(compiled.losses[:50])
    difference = (abs(first - second) / first).max()
    checks = {
        f"the first 50 losses agree to 1e-4 (largest relative difference {difference:.1e})": difference <= 1e-4,
        "both reach 97% on the held-out fifth": min(eager.accuracy, compiled.accuracy) >= 0.97,
        "their accuracies are within a point": abs(eager.accuracy - compiled.accuracy) <= 0.01,
        "digits.gcz predicts the same in a process without the front end": np.array_equal(predicted, expected),
    }
    for check, passed in checks.items():
        console.print(f"[green]yes[/] {check}" if passed else f"[red]NO[/]  {check}", highlight=False)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
