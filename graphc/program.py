"""A whole graph as kernels over planned memory, which run one after another; and kernels as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from graphc.errors import Location, VerifyError
from graphc.expression import Accumulator, Axis, Buffer, Expr
from graphc.ir import Node
from graphc.kernel import (
    Accumulate,
    Attention,
    AttentionBackward,
    Call,
    Control,
    Gemm,
    Kernel,
    Loop,
    Loops,
    Reset,
    Statement,
    Store,
    reads,
)
from graphc.sizes import Facts
from graphc.types import Size, int64


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A boolean that one kernel stores: whether some index is not below `size`. Where it is true the run ends after that
    kernel, with this `problem`."""

    buffer: Buffer
    size: Size
    problem: str
    expected: str
    at: Location | None


@dataclass(eq=False)
class Program:
    """A whole graph as kernels that run one after another.

    `inputs` and `outputs` are in the graph's order. `arena` bytes hold all temporaries, each at its `offset`, aligned to
    64 bytes.
    """

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    constants: tuple[Buffer, ...]
    temporaries: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    arena: Size = 0
    checks: tuple[Check, ...] = ()
    """What kernels check, then what the programs inside of kernels do."""
    symbols: tuple[str, ...] = ()
    """Of sizes: those that the inputs tell."""
    facts: Facts | None = None
    """What the program takes for granted of them."""
    preparation: tuple[Kernel, ...] = ()
    """What fills the prepared buffers: run when the steady inputs have changed, before the other kernels."""
    steady: tuple[Buffer, ...] = ()
    """Inputs that are the same at most calls."""
    prepared: int = 0
    """How many bytes the prepared buffers take."""
    origins: Mapping[str, Sequence[Node]] = field(default_factory=dict)
    """The nodes that a kernel computes, by its name, or by the parts of the name that it was made of."""

    def __str__(self) -> str:
        once = [f"once:\n{print_kernel(kernel)}" for kernel in self.preparation]
        return "\n\n".join([*once, *map(print_kernel, self.kernels)])

    def once(self) -> set[Buffer]:
        """The buffers that are read to fill the prepared ones."""
        found = {buffer for kernel in self.preparation for buffer in reads(kernel)}
        for kernel in self.kernels:
            if isinstance(kernel, Gemm):
                for panels, operand in zip(kernel.panels, (kernel.lhs, kernel.rhs), strict=True):
                    if panels is not None:
                        found.update(e.attr for e in operand.walk() if e.op == "load")
        return found

    def calls(self) -> Iterator[Call]:
        """What is left to Python, in the order of the kernels."""
        for kernel in self.kernels:
            if isinstance(kernel, Call):
                yield kernel
            elif isinstance(kernel, Control):
                yield from kernel.calls()


def print_kernel(kernel: Kernel) -> str:
    """A kernel as indented pseudo-code."""
    lines: list[str] = []

    def write(depth: int, text: str) -> None:
        lines.append("  " * depth + text)

    def body(statements: Sequence[Statement], depth: int) -> None:
        for s in statements:
            match s:
                case Store():
                    condition = f" if {s.mask}" if s.mask is not None else ""
                    write(depth, f"{s.buffer.name}[{s.offset}] = {s.value}{condition}")
                case Reset():
                    write(depth, f"{s.accumulator.name} = {s.accumulator.initial}")
                case Accumulate():
                    sign = {"sum": "+=", "max": "max=", "min": "min=", "last": "="}[s.accumulator.reduction]
                    write(depth, f"{s.accumulator.name} {sign} {s.value}")
                case Loop():
                    lanes = f" in lanes of {s.lanes}" if s.lanes else ""
                    limit = f" while < {s.limit}" if s.limit is not None else ""
                    write(depth, f"for {s.axis}{lanes}{limit}:")
                    body(s.body, depth + 1)

    if isinstance(kernel, Loops):
        write(0, f"loops {kernel.name} over ({', '.join(map(repr, kernel.grid))}):")
        body(kernel.body, 1)
    elif isinstance(kernel, Call):
        operands, results = (
            ", ".join(f"{block.buffer.name}: {block.buffer.dtype.name}{list(block.shape)}" for block in blocks)
            for blocks in (kernel.operands, kernel.results)
        )
        attrs = "".join(f", {name}={value}" for name, value in kernel.attrs.items())
        write(0, f"call {kernel.name}: {results} = {kernel.op.name}({operands}{attrs})")
    elif isinstance(kernel, (Attention, AttentionBackward)):
        operands, results = (
            ", ".join(f"{b.buffer.name}[{b.offset}: {b.shape} by {b.strides}]" for b in blocks)
            for blocks in (kernel.operands, kernel.results)
        )
        attrs = f"scale={kernel.scale}, masked={kernel.mask is not None}, causal={kernel.causal}"
        write(0, f"{type(kernel).__name__} {kernel.name}: {results} = ({operands}, {attrs})")
    elif isinstance(kernel, Control):
        operands, results = (", ".join(block.buffer.name for block in blocks) for blocks in (kernel.operands, kernel.results))
        attrs = "".join(f", {name}={value}" for name, value in kernel.attrs.items() if name not in kernel.programs)
        write(0, f"{kernel.op.name} {kernel.name}: {results} = ({operands}{attrs})")
        for name, program in kernel.programs.items():
            write(1, f"{name}:")
            lines.extend(f"    {line}" for line in str(program).splitlines())
    else:
        axes = "; ".join(", ".join(map(repr, group)) for group in (kernel.batch, kernel.m, kernel.n, kernel.k))
        write(0, f"gemm {kernel.name} over (batch; m; n; k) = ({axes}):")
        inside = [f"{margin.begin} <= {margin.place} < {margin.end}" for margin in kernel.margins]
        condition = f" if {' and '.join(inside)}" if inside else ""
        write(1, f"{kernel.accumulator.name} += {kernel.lhs} * {kernel.rhs}{condition}")
        body(kernel.epilogue, 1)
    return "\n".join(lines)


def verify_kernel(kernel: Kernel) -> None:
    """Check that axes are bound, accumulators reset, and lanes loops not nested; VerifyError otherwise."""

    def expression(root: Expr, axes: set[Axis], accumulators: set[Accumulator]) -> None:
        for e in root.walk():
            if e.op == "axis" and e.attr not in axes:
                raise VerifyError(f"kernel {kernel.name}: axis {e.attr} is used outside its loop")
            if e.op == "accumulator" and e.attr not in accumulators:
                raise VerifyError(f"kernel {kernel.name}: accumulator {e.attr} is read before it is reset")
            if e.op == "load" and e.args[0].dtype is not int64:
                raise VerifyError(f"kernel {kernel.name}: the offset of {e} is not int64")

    def body(statements: Sequence[Statement], axes: set[Axis], accumulators: set[Accumulator], lanes: bool) -> None:
        for s in statements:
            match s:
                case Reset():
                    accumulators.add(s.accumulator)
                case Accumulate():
                    expression(s.value, axes, accumulators | {s.accumulator})
                    if s.accumulator not in accumulators or s.value.dtype is not s.accumulator.dtype:
                        raise VerifyError(f"kernel {kernel.name}: bad accumulation into {s.accumulator}")
                case Store():
                    expression(s.value, axes, accumulators)
                    expression(s.offset, axes, accumulators)
                    if s.mask is not None:
                        expression(s.mask, axes, accumulators)
                    if s.value.dtype is not s.buffer.dtype:
                        raise VerifyError(f"kernel {kernel.name}: {s.value.dtype} is stored to {s.buffer}")
                case Loop():
                    if s.lanes and (lanes or s.lanes & (s.lanes - 1)):
                        raise VerifyError(f"kernel {kernel.name}: lanes loop over {s.axis} is nested, or no power of two")
                    if s.limit is not None:
                        expression(s.limit, axes, accumulators)
                    body(s.body, axes | {s.axis}, accumulators, lanes or bool(s.lanes))

    if isinstance(kernel, Loops):
        body(kernel.body, set(kernel.grid), set(), False)
        return
    if isinstance(kernel, (Call, Control)):
        for block in (*kernel.operands, *kernel.results):
            last = block.offset + sum((size - 1) * stride for size, stride in zip(block.shape, block.strides) if stride > 0)
            if 0 not in block.shape and last >= block.buffer.size:
                raise VerifyError(f"kernel {kernel.name}: {block} reaches beyond its buffer")
        return
    if isinstance(kernel, (Attention, AttentionBackward)):
        return
    batch, m, n, k = map(set, (kernel.batch, kernel.m, kernel.n, kernel.k))
    expression(kernel.lhs, batch | m | k, set())
    expression(kernel.rhs, batch | k | n, set())
    for margin in kernel.margins:
        expression(margin.place, batch | m | k, set())
    body(kernel.epilogue, batch | m | n, {kernel.accumulator}, False)
