"""Random programs as users write them: Python source with views, changes in place, branches and loops on data, gradients."""

from __future__ import annotations

import linecache
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

import graphc

Shape = tuple[Any, ...]
"""Sizes, of which "N" is another one in each call."""

INPUTS: dict[str, Shape] = {"x": ("N", 3), "y": ("N", 3), "v": (3,), "m": (4, 3), "s": ()}
PARAMETERS: dict[str, Shape] = {"w": (3, 4), "b": (3,)}
"""Leaves that require grad, which programs find by name."""
BUFFERS: dict[str, Shape] = {"seen": (3,)}
"""Besides, there are `net`, a module of 3 inputs and outputs; `opt`, its optimizer; and `log`, a list of numbers."""

UNARY = (
    "T.tanh({})", "T.sigmoid({})", "T.relu({})", "T.sin({})", "abs({})", "-{}", "T.exp(T.tanh({}))", "T.sqrt(abs({}) + 0.5)",
    "T.log1p(abs({}))", "{}.clone()", "{} * 0.5", "1.5 - {}", "{} / 3", "{} ** 2", "{}.clamp(-0.7, 0.8)", "T.softmax({}, -1)",
    "T.cumsum({}, -1)", "{}.flip(-1)", "T.where({} > 0.1, 1.0, -0.5) * 0.3", "{}.detach() * 2", "T.nn.functional.gelu({})",
)  # fmt: skip
BINARY = (
    "{} + {}", "{} - {}", "{} * {}", "{} / (abs({}) + 1.0)", "T.maximum({}, {})", "T.minimum({}, {})",
    "T.where({0} > {1}, {0}, {1} * 0.5)", "T.atan2({}, abs({}) + 0.5)", "T.lerp({}, {}, 0.3)",
)  # fmt: skip
REDUCTIONS = ("{}.sum({})", "{}.mean({})", "{}.amax({})", "T.logsumexp({}, {})", "{}.amin({})")
CONDITIONS = ("{}.sum() > {}", "{}.mean() < {}", "{}.amax() > {}", "bool(({} > {}).any())", "{}.sum().item() > {}")


@dataclass
class Program:
    """The source of a function `program(x, y, v, m, s)` that finds the rest among its globals."""

    source: str

    def load(self, world: dict[str, Any]) -> Callable[..., Any]:
        """The function, in a world of its own."""
        name = f"<program {abs(hash(self.source)):x}>"
        linecache.cache[name] = (len(self.source), None, self.source.splitlines(True), name)
        namespace = {"T": graphc, **world}
        exec(compile(self.source, name, "exec"), namespace)
        function: Callable[..., Any] = namespace["program"]
        return function

    def __repr__(self) -> str:
        return "\n" + textwrap.indent(self.source, "    ")


@dataclass
class _Writer:
    draw: Any
    lines: list[str] = field(default_factory=list)
    tensors: dict[str, Shape] = field(default_factory=lambda: {**INPUTS, **PARAMETERS, **BUFFERS})
    numbers: list[str] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)
    """Tensors made in the program, which may be changed in place."""
    depth: int = 0
    count: int = 0

    def choose(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def line(self, text: str) -> None:
        self.lines.append("    " * (self.depth + 1) + text)

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def let(self, text: str, shape: Shape, *, own: bool = True) -> str:
        name = self.name()
        self.line(f"{name} = {text}")
        self.tensors[name] = shape
        if own:
            self.fresh.add(name)
        return name

    def some(self, fits: Callable[[Shape], bool] = lambda shape: True) -> str:
        names = [name for name, shape in self.tensors.items() if fits(shape)]
        recent = names[-4:]
        return self.choose(recent if self.draw(st.booleans()) else names)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """What is made inside is not known outside."""
        self.line(head)
        self.depth += 1
        before = dict(self.tensors), list(self.numbers), set(self.fresh)
        yield
        self.tensors, self.numbers, self.fresh = before
        self.depth -= 1

    # Statements

    def statement(self) -> None:
        kinds = [self.unary, self.unary, self.binary, self.binary, self.reduction, self.view, self.product, self.in_place,
                 self.in_place, self.number, self.join, self.gather, self.draws, self.mode, self.module, self.note,
                 self.literal]
        if self.depth < 2:
            kinds += [self.branch, self.branch, self.loop, self.gradient, self.train, self.refuse]
        self.choose(kinds)()

    def unary(self) -> None:
        one = self.some(lambda shape: len(shape) > 0)
        self.let(self.choose(UNARY).format(one), self.tensors[one])

    def binary(self) -> None:
        one = self.some()
        shape = self.tensors[one]
        other = self.some(lambda s: len(s) <= len(shape) and s == shape[len(shape) - len(s) :])
        number = self.choose(self.numbers) if self.numbers and self.draw(st.booleans()) else None
        if number is not None:
            self.let(f"{one} * {number} + {other}", shape)
        else:
            self.let(self.choose(BINARY).format(one, other), shape)

    def reduction(self) -> None:
        one = self.some(lambda shape: len(shape) > 0)
        shape = self.tensors[one]
        dim = self.draw(st.integers(-len(shape), len(shape) - 1))
        keep = self.draw(st.booleans())
        at = dim % len(shape)
        reduced = (*shape[:at], *((1,) if keep else ()), *shape[at + 1 :])
        self.let(self.choose(REDUCTIONS).format(one, f"{dim}, keepdim={keep}"), reduced)

    def view(self) -> None:
        one = self.some(lambda shape: len(shape) > 0)
        shape = self.tensors[one]
        options: list[tuple[str, Shape]] = [
            (f"{one}.unsqueeze(0)", (1, *shape)), (f"{one}[None]", (1, *shape)), (f"{one}.unsqueeze(-1)", (*shape, 1)),
        ]  # fmt: skip
        if len(shape) == 2:
            options += [(f"{one}.t()", shape[::-1]), (f"{one}.transpose(0, -1)", shape[::-1])]
        if isinstance(shape[-1], int) and shape[-1] > 1:
            options += [(f"{one}[..., 1:]", (*shape[:-1], shape[-1] - 1)), (f"{one}[..., 0]", shape[:-1]),
                        (f"{one}[..., ::2]", (*shape[:-1], -(-shape[-1] // 2)))]
        if shape[0] != "N" and shape[0] > 1:
            options += [(f"{one}[1]", shape[1:]), (f"{one}[-1:]", (1, *shape[1:]))]
        if shape[0] == "N":
            options += [(f"{one}[:1]", (1, *shape[1:])), (f"{one}.reshape(x.shape[0], -1)" if len(shape) == 2 else one, shape)]
        text, made = self.choose(options)
        self.let(text, made, own=one in self.fresh)

    def product(self) -> None:
        left = self.some(lambda shape: len(shape) == 2)
        rows, inner = self.tensors[left]
        rights = [name for name, shape in self.tensors.items() if len(shape) in (1, 2) and shape[0] == inner]
        if rights:
            right = self.choose(rights)
            self.let(f"T.tanh({left} @ {right})", (rows, *self.tensors[right][1:]))

    def in_place(self) -> None:
        """Of what the program made, of arguments and of buffers."""
        targets = [name for name in self.tensors if name in self.fresh or name in INPUTS or name in BUFFERS]
        one = self.choose(targets)
        shape = self.tensors[one]
        value = self.choose([name for name, s in self.tensors.items() if s == shape])
        plain = one in BUFFERS or (one in INPUTS and self.draw(st.booleans()))  # a buffer's history would outlive its graph
        value = f"{value}.detach()" if plain else value
        options = [
            f"{one}.mul_(0.9)", f"{one}.add_({value})", f"{one}.clamp_(-2, 2)", f"{one} += {value}", f"{one}.copy_({value})",
        ]  # fmt: skip
        if shape:
            options += [f"{one}[0] = 0.25", f"{one}[..., -1] = {one}[..., 0].detach() * 2", f"{one}[0].add_(1.0)",
                        f"{one}[{one} > 1.0] = 0.5"]
        if len(shape) == 2:
            options += [f"{one}.t()[0].mul_(0.5)", f"{one}[:, 1:].neg_()"]
        self.line(self.choose(options))

    def number(self) -> None:
        one = self.some()
        name = f"n{len(self.numbers)}_{self.count}"
        self.count += 1
        text = self.choose([f"{one}.sum().item()", f"float({one}.mean())", f"{one}.shape[0] if {one}.dim() else 1",
                            "x.shape[0]", f"int(({one} > 0.2).sum())"])
        self.line(f"{name} = {text}")
        if self.draw(st.booleans()):
            self.line(f"{name} = {name} / 7 + 0.5")
        self.numbers.append(name)

    def join(self) -> None:
        one = self.some(lambda shape: len(shape) > 0)
        shape = self.tensors[one]
        other = self.choose([name for name, s in self.tensors.items() if s == shape])
        if shape[0] == "N":
            if len(shape) == 2 and isinstance(shape[1], int):
                self.let(f"T.cat([{one}, {other}], dim=1)", (shape[0], 2 * shape[1]))
        else:
            joined = self.choose([f"T.cat([{one}, {other}])", f"T.cat([{other}, {one}, {one}])[:{2 * shape[0]}]"])
            self.let(joined, (2 * shape[0], *shape[1:]))

    def gather(self) -> None:
        one = self.some(lambda shape: len(shape) == 2 and isinstance(shape[1], int))
        rows, columns = self.tensors[one]
        option = self.choose(["argmax", "sort", "index"])
        if option == "argmax":
            self.let(f"T.gather({one}, 1, {one}.argmax(1, keepdim=True))", (rows, 1))
        elif option == "sort":
            self.let(f"{one}.sort(dim=1)[0]", (rows, columns))
        else:
            self.let(f"{one}[:, [0, -1]]", (rows, 2))

    def draws(self) -> None:
        one = self.some(lambda shape: len(shape) > 0)
        self.let(self.choose([f"{one} + T.rand_like({one}) * 0.1", f"T.nn.functional.dropout({one}, 0.5)"]), self.tensors[one])

    def mode(self) -> None:
        with self.block("with T.no_grad():"):
            self.in_place()
            self.unary()

    def condition(self) -> str:
        if self.numbers and self.draw(st.booleans()):
            return f"{self.choose(self.numbers)} > {self.choose([0.37, 1.41, 2.73])}"
        return self.choose(CONDITIONS).format(self.some(), self.choose([0.371, -0.213, 1.137]))

    def branch(self) -> None:
        result = self.name()
        one = self.some()
        shape = self.tensors[one]
        with self.block(f"if {self.condition()}:"):
            self.few()
            self.line(f"{result} = {self.choose([name for name, s in self.tensors.items() if s == shape])} * 1.25")
        if self.draw(st.booleans()):
            with self.block("elif " + self.condition() + ":"):
                self.line(f"{result} = {one} - 0.125")
        with self.block("else:"):
            self.few()
            self.line(f"{result} = {self.choose([name for name, s in self.tensors.items() if s == shape])} + 0.5")
        self.tensors[result] = shape
        self.fresh.add(result)

    def loop(self) -> None:
        one = self.some()
        shape = self.tensors[one]
        result = self.let(f"{one} * 1.0", shape)
        if self.draw(st.booleans()):
            with self.block(f"for _ in range({self.choose([0, 1, 2, 3])}):"):
                self.line(f"{result} = T.tanh({result} + 0.1)")
                if self.draw(st.booleans()):
                    self.line(f"if {result}.sum() > 0.731: break")
        else:
            counter = f"k{self.count}"
            self.line(f"{counter} = 0")
            with self.block(f"while {counter} < 4 and {result}.mean() < {self.choose([0.217, 1.683])}:"):
                self.line(f"{counter} += 1")
                self.line(f"{result} = {result} * 0.75 + 0.4")
            self.numbers.append(counter)

    def gradient(self) -> None:
        """Of w, within the program."""
        one = self.some()
        loss = self.name()
        self.line(f"{loss} = ((T.tanh(x.detach() @ w).sum(1, keepdim=True) * b).sum() + ({one} ** 2).sum().detach())")
        if self.draw(st.booleans()):
            made = self.name()
            self.line(f"({made},) = T.autograd.grad({loss}, w, create_graph=True)")
            self.tensors[made] = PARAMETERS["w"]
            return
        self.line(f"{loss}.backward()")
        if self.draw(st.booleans()):
            with self.block("with T.no_grad():"):
                self.line("w -= 0.1 * w.grad")
                self.line("b.sub_(b.grad, alpha=0.05)")
            self.line("w.grad = b.grad = None")

    def literal(self) -> None:
        options: list[tuple[str, Shape]] = [
            ("T.tensor([0.5, -0.25, 1.0], dtype=T.float64)", (3,)), ("T.zeros(3, dtype=T.float64)", (3,)),
            ("T.full((x.shape[0], 3), 0.75, dtype=T.float64)", ("N", 3)), ("T.ones_like(y)", ("N", 3)),
        ]  # fmt: skip
        self.let(*self.choose(options))

    def module(self) -> None:
        one = self.some(lambda shape: shape == ("N", 3))
        self.let(f"net({one})", ("N", 3))

    def train(self) -> None:
        """A step of the optimizer."""
        loss = self.name()
        self.line("opt.zero_grad()")
        self.line(f"{loss} = ((net(x.detach()) - {self.some(lambda shape: shape == ('N', 3))}.detach()) ** 2).mean()")
        self.line(f"{loss}.backward()")
        self.line("opt.step()")
        self.tensors[loss] = ()

    def note(self) -> None:
        """Python state."""
        if self.numbers:
            self.line(f"log.append({self.choose(self.numbers)})")
        self.line("if len(log) > 3: log.clear()")

    def refuse(self) -> None:
        with self.block(f"if {self.condition()} and {self.some()}.sum() > 2.917:"):
            self.line("raise ValueError('too much')")

    def few(self) -> None:
        for _ in range(self.draw(st.integers(0, 2))):
            self.statement()


@st.composite
def programs(draw: Any) -> Program:
    """A program of three to a dozen statements."""
    writer = _Writer(draw)
    for _ in range(draw(st.integers(3, 12))):
        writer.statement()
    made = [name for name in writer.tensors if name.startswith("t")] or ["x"]
    results = draw(st.lists(st.sampled_from(made), min_size=1, max_size=3))
    extra = draw(st.sampled_from(writer.numbers)) if writer.numbers and draw(st.booleans()) else None
    if extra is not None:
        writer.line(f"return {{'tensors': [{', '.join(results)}], 'number': {extra}}}")
    else:
        writer.line(f"return {', '.join(results)}")
    head = ["def program(x, y, v, m, s):", "    global w, b, seen"]
    return Program("\n".join([*head, *writer.lines, ""]))
