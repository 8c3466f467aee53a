"""The kernel level: loop nests over scalar expressions, and matrix products, on flat buffers.

The scheduler makes kernels from a tensor graph; a back end renders each of them, and knows nothing of tensors. Two kinds,
`Loops` and `Gemm`, read their operands through expressions, so what feeds a kernel and what follows it can be fused into it.
`Attention` and `AttentionBackward` read matrices where they stand. Besides, `Call` leaves an op to Python, and `Control` runs
programs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from graphc.expression import Accumulator, Axis, Buffer, Expr, constant, walk
from graphc.op import OpDef
from graphc.types import Size, int64

if TYPE_CHECKING:
    from graphc.program import Check, Program

# Statements


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """Write one element. `mask`: only where it is true."""

    buffer: Buffer
    offset: Expr
    value: Expr
    mask: Expr | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Reset:
    """Start a reduction anew."""

    accumulator: Accumulator


@dataclass(frozen=True, slots=True, eq=False)
class Accumulate:
    """Take one more value into a reduction. Inside a `lanes` loop that began after the Reset, each lane reduces for
    itself, and the lanes are combined in a fixed order when the loop ends: so what is "last" is not carried through lanes."""

    accumulator: Accumulator
    value: Expr


@dataclass(frozen=True, slots=True, eq=False)
class Loop:
    """Run the body for each value of the axis, in order.

    lanes
        0: one at a time. Else: `lanes` (a power of two) at a time, as vectors; the last, partial vector is masked. The
        iterations must not depend on each other but through accumulators. Lanes loops do not nest.
    limit
        Stop before this value (an int64 expression <= axis.extent) instead of at the axis' extent.
    """

    axis: Axis
    body: tuple[Statement, ...]
    lanes: int = 0
    limit: Expr | None = None


Statement: TypeAlias = Store | Reset | Accumulate | Loop
Source: TypeAlias = Buffer | Accumulator
"""What a value is read from, and changes with."""


def walk_statements(body: Sequence[Statement]) -> Iterator[Statement]:
    """Statements and those inside of them, loops before their bodies."""
    for statement in body:
        yield statement
        if isinstance(statement, Loop):
            yield from walk_statements(statement.body)


def changing(body: Sequence[Statement]) -> set[Source]:
    """The buffers that statements write to, and the accumulators that they change."""
    found: set[Source] = set()
    for statement in walk_statements(body):
        match statement:
            case Store():
                found.add(statement.buffer)
            case Reset() | Accumulate():
                found.add(statement.accumulator)
    return found


def carried(body: Sequence[Statement]) -> list[Accumulator]:
    """The accumulators that a loop's body goes on with from one iteration to the next."""
    statements = list(walk_statements(body))
    reset = {s.accumulator for s in statements if isinstance(s, Reset)}
    return list(dict.fromkeys(s.accumulator for s in statements if isinstance(s, Accumulate) and s.accumulator not in reset))


def evaluated(statements: Iterable[Statement]) -> Iterator[Expr]:
    """The expressions of statements, but for those inside of loops."""
    for statement in statements:
        match statement:
            case Store():
                yield from (e for e in (statement.offset, statement.value, statement.mask) if e is not None)
            case Accumulate():
                yield statement.value
            case Loop(limit=Expr() as limit):
                yield limit


# Kernels


@dataclass(frozen=True, slots=True)
class Accesses:
    """The offsets at which a kernel loads from a buffer, and at which it stores to it."""

    loads: tuple[Expr, ...]
    stores: tuple[Expr, ...]


class _Kernel(ABC):
    """What all kernels have in common. A kernel is not changed once it is made."""

    @abstractmethod
    def statements(self) -> Iterator[Statement]:
        """All statements, loops before their bodies."""

    @cached_property
    def accesses(self) -> Mapping[Buffer, Accesses]:
        """How each buffer is used."""
        loads: dict[Buffer, dict[Expr, None]] = {}
        stores: dict[Buffer, dict[Expr, None]] = {}
        for e in walk(expressions(self)):
            if e.op == "load":
                loads.setdefault(e.attr, {})[e.args[0]] = None
        for statement in self.statements():
            if isinstance(statement, Store):
                stores.setdefault(statement.buffer, {})[statement.offset] = None
        buffers = dict.fromkeys((*loads, *stores))
        return {buffer: Accesses(tuple(loads.get(buffer, ())), tuple(stores.get(buffer, ()))) for buffer in buffers}


@dataclass(eq=False)
class Loops(_Kernel):
    """Loop nests over a grid of independent steps.

    The steps of the grid (the product of its axes, row-major) may run in any order and at the same time; a step runs the
    body once. `cost` estimates one step's time in nanoseconds, by which a back end decides what is worth running
    in parallel; where `work` is not a number, the time goes with it.
    """

    name: str
    grid: tuple[Axis, ...]
    body: tuple[Statement, ...]
    cost: float
    work: Size = 1

    def statements(self) -> Iterator[Statement]:
        return walk_statements(self.body)


@dataclass(frozen=True, slots=True, eq=False)
class Margin:
    """Where an operand is zero, whatever is multiplied by it: outside of begin <= `place` < end, an index over its axes."""

    place: Expr
    begin: int
    end: int


@dataclass(eq=False)
class Gemm(_Kernel):
    """A batch of matrix products, out[b, m, n] = epilogue(sum over k of lhs[b, m, k] * rhs[b, k, n]).

    Each of batch, m, n and k is a tuple of axes, of which the last runs fastest: a convolution has the rows and columns
    of its image as n, and channels and places of the kernel as k. `lhs` is an expression over the batch, m and k axes,
    `rhs` over the batch, k and n axes. `epilogue` are Store statements over the batch, m and n axes and
    `accumulator.value`; each element of the result is stored once, after its whole sum. `panels` are prepared buffers in
    which a back end keeps `lhs` and `rhs` as it reads them, None for those that it takes from memory at each run. What lies
    in one of the `margins` of `lhs`, as the padding of an image does, need not be multiplied.
    """

    name: str
    batch: tuple[Axis, ...]
    m: tuple[Axis, ...]
    n: tuple[Axis, ...]
    k: tuple[Axis, ...]
    lhs: Expr
    rhs: Expr
    accumulator: Accumulator
    epilogue: tuple[Store, ...]
    panels: tuple[Buffer | None, Buffer | None] = (None, None)
    margins: tuple[Margin, ...] = ()

    def statements(self) -> Iterator[Statement]:
        yield from self.epilogue


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A tensor that stands in a buffer: element i at `offset` + the sum of i * `strides`, in elements."""

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0


@dataclass(eq=False)
class Call(_Kernel):
    """An op that generated code leaves to its own definition: `results` become `op.ref(*operands, **attrs)`.

    The operands are read whole before any result is written.
    """

    name: str
    op: OpDef
    attrs: Mapping[str, Any]
    operands: tuple[Block, ...]
    results: tuple[Block, ...]

    def statements(self) -> Iterator[Statement]:
        return iter(())

    @cached_property
    def accesses(self) -> Mapping[Buffer, Accesses]:
        loads, stores = ({block.buffer for block in blocks} for blocks in (self.operands, self.results))
        whole = (constant(0, int64),)
        return {
            buffer: Accesses(whole if buffer in loads else (), whole if buffer in stores else ())
            for buffer in dict.fromkeys(block.buffer for block in (*self.operands, *self.results))
        }

    def run(self, operands: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> None:
        """Compute the results into arrays."""
        with np.errstate(all="ignore"):
            made = self.op.ref(*operands, **self.attrs)
            values = [np.asarray(value) for value in (made if isinstance(made, tuple) else (made,))]
            if len(values) > 1:  # one that is a view of an operand must not change as another is written
                values = [v.copy() if any(np.may_share_memory(v, array) for array in results) else v for v in values]
            for array, value in zip(results, values, strict=True):
                np.copyto(array, value, casting="unsafe")


@dataclass(eq=False)
class _OfAttention(_Kernel):
    """What attention and its derivative have in common: matrices of a batch, q [*batch, queries, width],
    k [*batch, keys, width] and v [*batch, keys, columns]. Of these are the scores, scale * q k^T, of which those are -inf for
    which `mask` [*batch, queries, keys] is false, and if the attention is `causal` those of keys behind the query's own number.
    Results are written while operands are still read."""

    name: str
    scale: float
    causal: bool
    q: Block
    k: Block
    v: Block
    mask: Block | None

    @property
    def batch(self) -> tuple[int, ...]:
        return self.q.shape[:-2]

    @property
    def queries(self) -> int:
        return self.q.shape[-2]

    @property
    def keys(self) -> int:
        return self.k.shape[-2]

    @property
    def width(self) -> int:
        return self.q.shape[-1]

    @property
    def columns(self) -> int:
        return self.v.shape[-1]

    @property
    def operands(self) -> tuple[Block, ...]:
        return (self.q, self.k, self.v, *(() if self.mask is None else (self.mask,)))

    @property
    @abstractmethod
    def results(self) -> tuple[Block, ...]: ...

    @property
    @abstractmethod
    def products(self) -> int:
        """How many numbers are multiplied, where no key is left out."""

    def statements(self) -> Iterator[Statement]:
        return iter(())

    @cached_property
    def accesses(self) -> Mapping[Buffer, Accesses]:
        first, second = constant(0, int64), constant(1, int64)
        loads = {block.buffer: Accesses((first, second), ()) for block in self.operands}
        return {**loads, **{block.buffer: Accesses((), (first,)) for block in self.results}}


@dataclass(eq=False)
class Attention(_OfAttention):
    """out = softmax(scores) v, and lse[*batch, queries], the logarithm of the sum of the scores' exponentials. A query that may
    look at no key gets NaN, and -inf as lse; with `zeros`, zeros and inf. The queries of the mask stand side by side, or are
    one for all, but for machines of many threads."""

    zeros: bool
    out: Block
    lse: Block

    @property
    def results(self) -> tuple[Block, ...]:
        return (self.out, self.lse)

    @property
    def products(self) -> int:
        return math.prod(self.batch) * self.queries * self.keys * (self.width + self.columns)


@dataclass(eq=False)
class AttentionBackward(_OfAttention):
    """With the weights p = exp(scores - lse), and s = scale * p o (ct v^T - inner), which is 0 where scores are -inf:
    dq = s k, dk = s^T q and dv = p^T ct. `ct` is [*batch, queries, columns], lse and inner are [*batch, queries]; `o`
    multiplies element by element. The keys of the mask stand side by side, or are one for all, but for machines of many
    threads."""

    ct: Block
    lse: Block
    inner: Block
    dq: Block
    dk: Block
    dv: Block

    @property
    def operands(self) -> tuple[Block, ...]:
        return (*super().operands, self.ct, self.lse, self.inner)

    @property
    def results(self) -> tuple[Block, ...]:
        return (self.dq, self.dk, self.dv)

    @property
    def products(self) -> int:
        return math.prod(self.batch) * self.queries * self.keys * (3 * self.width + 2 * self.columns)


@dataclass(eq=False)
class Control(_Kernel):
    """An op of `graphc.ops.control*`: programs that are run once, many times or not at all.

    The programs are made for operands where they lie, one row of those that are scanned, and row-major results.
    """

    name: str
    op: OpDef
    attrs: Mapping[str, Any]
    programs: Mapping[str, Program]
    """By the names of the attributes whose graphs they are."""
    operands: tuple[Block, ...]
    results: tuple[Block, ...]
    spares: tuple[Buffer | None, ...]
    """For each value that is carried from step to step, in the results' order, memory by turns with the result's; None
    where a step computes it in place."""

    def statements(self) -> Iterator[Statement]:
        return iter(())

    @cached_property
    def constants(self) -> tuple[Buffer, ...]:
        """Those of the programs, one program's after another's."""
        return tuple(buffer for program in self.programs.values() for buffer in program.constants)

    @cached_property
    def accesses(self) -> Mapping[Buffer, Accesses]:
        first, second = constant(0, int64), constant(1, int64)  # results are written before all operands are read
        loads = dict.fromkeys((*(block.buffer for block in self.operands), *self.constants))
        stores = dict.fromkeys((*(block.buffer for block in self.results), *filter(None, self.spares)))
        return {
            buffer: Accesses((first, second) if buffer in loads else (), (first,) if buffer in stores else ())
            for buffer in {**loads, **stores}
        }

    @property
    def checks(self) -> tuple[Check, ...]:
        """Those of the programs, in order."""
        return tuple(check for program in self.programs.values() for check in program.checks)

    def calls(self) -> Iterator[Call]:
        """What the programs leave to Python, in order."""
        for program in self.programs.values():
            yield from program.calls()


Kernel: TypeAlias = Loops | Gemm | Attention | AttentionBackward | Call | Control


def expressions(kernel: _Kernel) -> Iterator[Expr]:
    """The expressions that a kernel evaluates."""
    if isinstance(kernel, Gemm):
        yield from (kernel.lhs, kernel.rhs)
    yield from evaluated(kernel.statements())


def reads(kernel: Kernel) -> set[Buffer]:
    """The buffers that a kernel loads from."""
    return {buffer for buffer, used in kernel.accesses.items() if used.loads}


def writes(kernel: Kernel) -> set[Buffer]:
    """The buffers that a kernel stores to."""
    return {buffer for buffer, used in kernel.accesses.items() if used.stores}
