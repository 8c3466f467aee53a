"""Fine-tune a network: train it to tell digits apart, then put a new head on its frozen trunk for another question.

    python examples/finetune.py

The question is whether a digit is odd or even, and the new head has fifty pictures to learn it from. It is trained eagerly
and compiled, on the trunk that knows the digits and, for comparison, on one that has learnt nothing. Ends with status 1 if
one of the checks at the end fails.
"""

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from digits import load_digits, sparkline
from models.resnet import BasicBlock, ResNet
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import graphc
from graphc import nn
from graphc.data import DataLoader, Subset, TensorDataset

SHOTS = 5
"""Pictures of each digit that the new head is trained on."""


def pictures(part, size):
    """Pictures float32[N, 3, size, size], as residual networks want them, and the digits on them."""
    images, labels = part
    x = nn.functional.interpolate(graphc.from_numpy(images), size=(size, size), mode="bilinear")
    return TensorDataset((x - 0.3).repeat(1, 3, 1, 1) * 3, graphc.from_numpy(labels))


def odd_or_even(dataset):
    """The same pictures with 1 for the odd digits, 0 for the even ones."""
    images, digits = dataset.tensors
    return TensorDataset(images, digits % 2)


def few_of_each(digits, count):
    """Where the first pictures of each digit are."""
    return np.concatenate([np.flatnonzero(digits == digit)[:count] for digit in range(10)]).tolist()


@dataclass
class Run:
    """What came out of one training."""

    model: ResNet
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    accuracy: float = 0.0

    @property
    def step_time(self):
        return float(np.median(self.seconds))


def new_network():
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=10)


def train(run, dataset, options, epochs, compiled, on_step):
    """Train the parameters that require gradients. The normalisation of a frozen trunk keeps its statistics."""
    model = run.model
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = len(trained) < len(list(model.parameters()))
    model.train(not frozen)
    optimizer = graphc.optim.Adam(trained, lr=options.head_lr if frozen else options.lr)

    def step(x, y):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    if compiled:
        step = graphc.compile(step)
    loader = DataLoader(dataset, options.batch_size, shuffle=True, drop_last=True,
                        generator=graphc.Generator().manual_seed(options.seed))
    # small steps at the end: what the network has learnt then depends little on the last batches
    schedule = graphc.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    for _ in range(epochs):
        for x, y in loader:
            began = time.perf_counter()
            run.losses.append(step(x, y).item())
            run.seconds.append(time.perf_counter() - began)
            schedule.step()
            on_step(run.losses[-1])


@graphc.no_grad()
def accuracy(model, dataset):
    model.eval()
    right = [(model(x).argmax(1) == y).sum().item() for x, y in DataLoader(dataset, 64)]
    return sum(right) / len(dataset)


def with_new_head(state, seed):
    """A network with the weights of a trained one, all of them frozen, and a last layer that is new."""
    graphc.manual_seed(seed)
    model = new_network()
    if state is not None:
        model.load_state_dict(state)
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.fc = nn.Linear(model.fc.in_features, 2)
    return model


def trunk_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith("fc.")}


def plot(pretraining, runs, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"eager": "#4a78b0", "compiled": "#b3402e", "untrained trunk": "#999999"}
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 4), width_ratios=(2, 2, 1.2), layout="constrained")
    left.semilogy(pretraining.losses, color="#b3402e", linewidth=1)
    left.set(title="The whole network: which digit?", xlabel="step", ylabel="cross entropy")
    for name, run in runs.items():
        middle.semilogy(run.losses, color=colours[name], linewidth=4 if name == "eager" else 1.2, alpha=0.5 if name == "eager"
                        else 1, label=name)
    middle.set(title=f"A new head, on {10 * SHOTS} pictures: odd or even?", xlabel="step")
    middle.legend(frameon=False)
    bars = right.bar(list(runs), [100 * run.accuracy for run in runs.values()], color=[colours[name] for name in runs])
    right.bar_label(bars, fmt="%.0f%%", padding=2)
    right.set(title="Odd or even, held out", ylim=(0, 110))
    right.tick_params(axis="x", labelrotation=20)
    right.yaxis.set_visible(False)
    right.spines["left"].set_visible(False)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(which="major", axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.savefig(path, dpi=150)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4, help="passes over the digits")
    parser.add_argument("--head-epochs", type=int, default=30, help="passes over the few pictures")
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--size", type=int, default=32, help="width and height that the pictures are brought to")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--head-lr", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-plot", action="store_true", help="do not draw finetune.png (needs no matplotlib)")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="where the weights and the plot go")
    return parser.parse_args()


def main():
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    training, held_out = load_digits()
    digits, held_out_digits = (pictures(part, options.size) for part in (training, held_out))
    few = Subset(odd_or_even(digits), few_of_each(training[1], SHOTS))
    held_out_parity = odd_or_even(held_out_digits)

    columns = [TextColumn("{task.description:22}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"),
               TextColumn("loss {task.fields[loss]:.4f}"), TimeElapsedColumn()]
    with Progress(*columns, console=console) as progress:

        def trained(name, model, dataset, epochs, compiled):
            run = Run(model)
            task = progress.add_task(name, total=epochs * (len(dataset) // options.batch_size), loss=float("nan"))
            train(run, dataset, options, epochs, compiled, lambda loss: progress.update(task, advance=1, loss=loss))
            return run

        graphc.manual_seed(options.seed)
        pretraining = trained("digits", new_network(), digits, options.epochs, True)
        pretraining.accuracy = accuracy(pretraining.model, held_out_digits)
        graphc.save(pretraining.model.state_dict(), options.out / "finetune.safetensors")
        state = graphc.load(options.out / "finetune.safetensors")
        before = trunk_of(pretraining.model)

        runs = {}
        for name, weights, compiled in (("eager", state, False), ("compiled", state, True), ("untrained trunk", None, True)):
            model = with_new_head(weights, options.seed)
            runs[name] = trained(f"new head, {name}", model, few, options.head_epochs, compiled)
            runs[name].accuracy = accuracy(model, held_out_parity)
    eager, compiled, untrained = runs.values()

    table = Table("", "digits", *runs)
    shown = (pretraining, *runs.values())
    table.add_row("loss, step by step", *(sparkline(run.losses, 10) for run in shown))
    table.add_row("last loss", *(f"{np.mean(run.losses[-5:]):.4f}" for run in shown))
    table.add_row("held-out accuracy", *(f"{run.accuracy:.1%}" for run in shown))
    table.add_row("trained parameters", *(f"{sum(p.numel() for p in run.model.parameters() if p.requires_grad):,}"
                                          for run in shown))
    table.add_row("time a step", *(f"{1e3 * run.step_time:.1f} ms" for run in shown))
    console.print(table)
    if not options.no_plot:
        plot(pretraining, runs, options.out / "finetune.png")
        console.print(f"curves in {options.out / 'finetune.png'}, weights in {options.out / 'finetune.safetensors'}")

    unchanged = all(np.array_equal(tensor.numpy(), trunk_of(run.model)[name].numpy())
                    for run in (eager, compiled) for name, tensor in before.items())
    first, second = np.array(eager.losses), np.array(compiled.losses)
    difference = (abs(first - second) / (first + 1e-3)).max()
    checks = {
        "the network learns the digits (95% of the held-out ones)": pretraining.accuracy >= 0.95,
        "the frozen trunk is the same afterwards, bit for bit": unchanged,
        f"eager and compiled losses agree to 1% (largest relative difference {difference:.1e})": difference <= 1e-2,
        f"{10 * SHOTS} pictures are enough for 90%": min(eager.accuracy, compiled.accuracy) >= 0.9,
        "what the trunk has learnt helps": compiled.accuracy > untrained.accuracy + 0.05,
    }
    for check, passed in checks.items():
        console.print(f"[green]yes[/] {check}" if passed else f"[red]NO[/]  {check}", highlight=False)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
