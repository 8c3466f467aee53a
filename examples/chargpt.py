"""Train a small GPT, character by character, on the source code of Python's own standard library.

    python examples/chargpt.py

The first steps are taken twice from the same seed, eagerly and with the whole training step compiled; the compiled run
goes on to the end. Then the model writes some code of its own, and its weights are saved, loaded and checked. Ends with
status 1 if one of the checks at the end fails.
"""

import argparse
import math
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
from digits import sparkline
from models import GPT, GPTConfig
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import graphc
from graphc import nn
from graphc.data import DataLoader, Dataset, RandomSampler

KNOWN = "\n" + "".join(map(chr, range(32, 127)))
"""The characters that the model knows; others are left out of the text."""


class Passages(Dataset):
    """Passages of a text: tokens int64[length] and the tokens that follow each."""

    def __init__(self, tokens, length):
        self.tokens, self.length = tokens, length

    def __len__(self):
        return len(self.tokens) - self.length

    def __getitem__(self, start):
        passage = self.tokens[start : start + self.length + 1]
        return passage[:-1], passage[1:]


def library_text(limit):
    """The modules of the standard library, in alphabetical order, as one text."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    if not files:
        sys.exit("the source of Python's standard library is not installed here")
    text, size = [], 0
    for file in files:
        text.append(file.read_text(encoding="utf-8", errors="ignore"))
        size += len(text[-1])
        if size > limit:
            break
    return "".join(text)[:limit]


def encode(text):
    table = np.full(128, -1)
    table[[ord(c) for c in KNOWN]] = np.arange(len(KNOWN))
    codes = np.frombuffer(text.encode("ascii", "ignore"), np.uint8)
    tokens = table[codes]
    return graphc.from_numpy(tokens[tokens >= 0].astype(np.int64))


def decode(tokens):
    return "".join(KNOWN[i] for i in tokens)


def learning_rate(step, options):
    """Rises in the first steps, then falls along half a cosine."""
    if step < options.warmup:
        return options.lr * (step + 1) / options.warmup
    return options.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - options.warmup) / (options.steps - options.warmup))))


class Trainer:
    """A model, its optimizer and the passages it reads, all from one seed."""

    def __init__(self, options, passages, compiled):
        graphc.manual_seed(options.seed)
        self.options = options
        self.model = GPT(GPTConfig(block_size=options.context, vocab_size=len(KNOWN), n_layer=options.layers,
                                   n_head=options.heads, n_embd=options.width))
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        others = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = graphc.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.99))
        order = RandomSampler(passages, num_samples=options.steps * options.batch_size,
                              generator=graphc.Generator().manual_seed(options.seed))
        self.loader = DataLoader(passages, options.batch_size, sampler=order)
        self.step = graphc.compile(self._step) if compiled else self._step
        self.losses, self.seconds = [], []

    def _step(self, x, y):
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(x).flatten(0, 1), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss

    def run(self, steps, on_step):
        for i, (x, y) in zip(range(steps), self.loader):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(i, self.options)
            began = time.perf_counter()
            self.losses.append(self.step(x, y).item())
            self.seconds.append(time.perf_counter() - began)
            on_step(self.losses[-1])

    @property
    def step_time(self):
        return float(np.median(self.seconds))

    @property
    def compile_time(self):
        """What the first steps took beyond the usual, for tracing and compiling."""
        return sum(self.seconds[:3]) - 3 * self.step_time


@graphc.no_grad()
def held_out_loss(model, passages, batch_size, batches):
    """The mean loss on passages spread evenly over a text that was not trained on."""
    model.eval()
    starts = np.linspace(0, len(passages) - 1, batches * batch_size).astype(int).tolist()
    losses = [
        nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
        for x, y in DataLoader(passages, batch_size, sampler=starts)
    ]
    return float(np.mean(losses))


def plot(eager, compiled, held_out, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), width_ratios=(3, 1), layout="constrained")
    window = max(1, len(compiled.losses) // 100)
    smooth = np.convolve(compiled.losses, np.ones(window) / window, "valid")
    left.plot(compiled.losses, color="#e6c3bd", linewidth=0.8)
    left.plot(np.arange(len(smooth)) + window // 2, smooth, color="#b3402e", linewidth=1.5, label="compiled")
    left.plot(eager.losses, color="#4a78b0", linewidth=1.5, label=f"eager, the first {len(eager.losses)} steps")
    left.axhline(held_out, color="#555555", linewidth=0.8, linestyle="--", label="held-out text, at the end")
    left.set(title="A GPT on Python's standard library", xlabel="step", ylabel="cross entropy a character", ylim=(0.8, 4.8))
    left.grid(which="major", color="#dddddd", linewidth=0.6)
    left.legend(frameon=False)
    bars = right.bar(["eager", "compiled"], [1e3 * r.step_time for r in (eager, compiled)], color=["#9db8d9", "#b3402e"])
    right.bar_label(bars, fmt="%.1f ms", padding=2)
    right.set(title="Time a step")
    right.margins(y=0.12)
    right.yaxis.set_visible(False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    right.spines["left"].set_visible(False)
    figure.savefig(path, dpi=150)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--eager-steps", type=int, default=40, help="how many of them are taken eagerly too")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--context", type=int, default=64, help="characters that the model sees")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--characters", type=int, default=2_000_000, help="how much of the library is read")
    parser.add_argument("--write", type=int, default=400, help="characters to write at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-plot", action="store_true", help="do not draw chargpt.png (needs no matplotlib)")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="where the weights and the plot go")
    return parser.parse_args()


def main():
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()

    tokens = encode(library_text(options.characters))
    split = len(tokens) * 9 // 10
    training, held_out = Passages(tokens[:split], options.context), Passages(tokens[split:], options.context)
    runs = {"eager": Trainer(options, training, False), "compiled": Trainer(options, training, True)}
    eager, compiled = runs.values()
    count = sum(p.numel() for p in compiled.model.parameters())
    console.print(f"{len(tokens):,} characters, {count:,} parameters", highlight=False)

    columns = [TextColumn("{task.description:8}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"),
               TextColumn("loss {task.fields[loss]:.3f}"), TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console) as progress:
        for name, run in runs.items():
            steps = min(options.eager_steps, options.steps) if name == "eager" else options.steps
            task = progress.add_task(name, total=steps, loss=float("nan"))
            run.run(steps, lambda loss, task=task: progress.update(task, advance=1, loss=loss))
    held_out_at_end = held_out_loss(compiled.model, held_out, options.batch_size, 20)

    table = Table("", *runs)
    table.add_row("loss, step by step", *(sparkline(run.losses) for run in runs.values()))
    table.add_row("last loss", *(f"{np.mean(run.losses[-10:]):.3f}" for run in runs.values()))
    table.add_row("held-out text", "", f"{held_out_at_end:.3f}")
    table.add_row("time a step", *(f"{1e3 * run.step_time:.1f} ms" for run in runs.values()))
    table.add_row("compile time", "", f"{compiled.compile_time:.1f} s")
    table.add_row("speed-up", "", f"{eager.step_time / compiled.step_time:.1f}x")
    console.print(table)

    start = "\n    def "
    written = compiled.model.generate(encode(start).unsqueeze(0), options.write, temperature=0.7, top_k=20)
    console.print(Panel(decode(written[0].tolist()), title="what it writes", highlight=False), markup=False)

    graphc.save(compiled.model.state_dict(), options.out / "chargpt.safetensors")
    again = GPT(compiled.model.config)
    again.load_state_dict(graphc.load(options.out / "chargpt.safetensors"))
    reloaded = held_out_loss(again, held_out, options.batch_size, 20)
    if not options.no_plot:
        plot(eager, compiled, held_out_at_end, options.out / "chargpt.png")
        console.print(f"curves in {options.out / 'chargpt.png'}, weights in {options.out / 'chargpt.safetensors'}")

    first, second = np.array(eager.losses), np.array(compiled.losses[: len(eager.losses)])
    difference = (abs(first - second) / first).max()
    checks = {
        f"eager and compiled losses agree to 1% (largest relative difference {difference:.1e})": difference <= 1e-2,
        "it learns: the held-out text costs less than half of what it costs at first": held_out_at_end < first[0] / 2,
        "the saved weights give the same loss": reloaded == held_out_at_end,
    }
    for check, passed in checks.items():
        console.print(f"[green]yes[/] {check}" if passed else f"[red]NO[/]  {check}", highlight=False)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
