"""The kernel level: loop nests over scalar expressions, and matrix products, on flat buffers.

The scheduler makes a `Program` of kernels from a tensor graph; a back end renders each kernel, and knows nothing of
tensors. Two kinds of kernel, `Loops` and `Gemm`, read their operands through expressions, so what feeds a kernel and what
follows it can be fused into it. `Attention` and `AttentionBackward` read matrices where they stand. Besides, `Call` leaves an
op to Python, and `Control` runs programs.

An expression is a tree over five leaves: constants, sizes, axes (the value of a loop variable), loads and accumulators. Its
other nodes are the elementwise ops of the tensor level, by the same names; ops written over public functions work on
expressions too:

>>> import graphc.ops as ops
>>> from graphc.types import float32
>>> x = Buffer("x", float32, 8)
>>> i = Axis("i", 8)
>>> ops.tanh(load(x, i.value) * 2.0)
tanh(mul(x[i], 2.0))
"""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias
from weakref import KeyedRef

import numpy as np

from graphc.dims import Dim
from graphc.errors import Location, VerifyError
from graphc.op import OpDef, common_dtype
from graphc.operators import Operators
from graphc.sizes import Facts
from graphc.types import DType, Real, Scalar, Size, TensorType, bool_, dtype_of, int64, scalar_array


class Axis:
    """A loop variable: it runs from 0 to extent - 1. Compared by identity."""

    __slots__ = ("extent", "name", "value")

    def __init__(self, name: str, extent: Size) -> None:
        self.name = name
        self.extent = extent
        self.value = Expr("axis", (), int64, self)

    def __repr__(self) -> str:
        return f"{self.name}<{self.extent}"


class Buffer:
    """A flat piece of memory: `size` elements of one dtype. Compared by identity.

    role
        "input" and "output": given at each call; "constant": `data`, given once; "temporary": a place in the program's
        arena, at `offset` bytes, alive between kernels; "prepared": a place in memory that outlives calls, at `offset` bytes;
        "local": on the stack of one grid step of one kernel.
    """

    __slots__ = ("data", "dtype", "name", "offset", "role", "size")

    def __init__(
        self,
        name: str,
        dtype: DType,
        size: Size,
        role: Literal["input", "output", "constant", "temporary", "prepared", "local"] = "temporary",
        data: np.ndarray | None = None,
    ) -> None:
        self.name = name
        self.dtype = dtype
        self.size = size
        self.role = role
        self.data = data
        self.offset: Size = 0

    @property
    def nbytes(self) -> Size:
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.name}: {self.role} {self.dtype.name}[{self.size}]"


Reduction: TypeAlias = Literal["sum", "max", "min"]


class Accumulator:
    """A running reduction, in a register. max and min propagate NaN. Compared by identity."""

    __slots__ = ("dtype", "name", "reduction", "value")

    def __init__(self, name: str, reduction: Reduction, dtype: DType) -> None:
        self.name = name
        self.reduction = reduction
        self.dtype = dtype
        self.value = Expr("accumulator", (), dtype, self)

    @property
    def initial(self) -> Real:
        """The number that changes nothing."""
        if self.reduction == "sum":
            return 0
        if self.dtype is bool_:
            return self.reduction == "min"
        if self.dtype.is_floating_point:
            return -np.inf if self.reduction == "max" else np.inf
        bounds = np.iinfo(self.dtype.numpy)
        return int(bounds.min if self.reduction == "max" else bounds.max)

    def __repr__(self) -> str:
        return f"{self.name}: {self.reduction} {self.dtype.name}"


class Expr(Operators):
    """A scalar expression. Immutable; equal expressions are one object.

    op
        "constant" (attr: the number), "size" (attr: a Dim, dtype int64), "axis" (attr: the Axis, dtype int64),
        "accumulator" (attr: the Accumulator),
        "load" (attr: the Buffer; args: the offset in elements, and perhaps a boolean mask, where which is false nothing
        is read and the value is 0); "quotient" and "modulo" (args: x, c, with x >= 0 and a constant or size c > 0: index
        arithmetic); "cast" (to dtype); or the name of an elementwise op.
    """

    __slots__ = ("__weakref__", "args", "attr", "bounds", "dtype", "op", "terms")

    op: str
    args: tuple[Expr, ...]
    dtype: DType
    attr: Any
    terms: Any
    bounds: Any
    """What `graphc.index` has found out; None before."""

    def __new__(cls, op: str, args: tuple[Expr, ...], dtype: DType, attr: Any = None) -> Expr:
        # numbers and sizes by their spelling (-0.0, NaN), other attributes by identity: a key that held an axis would keep
        # the axis' own expression alive, and so itself
        key = (op, args, dtype, None if attr is None else repr(attr) if isinstance(attr, _SPELLED) else id(attr))
        known = _known.get(key)
        expr = None if known is None else known()
        if expr is None:
            with _known_lock:
                known = _known.get(key)
                expr = None if known is None else known()
                if expr is None:
                    expr = super().__new__(cls)
                    expr.op, expr.args, expr.dtype, expr.attr, expr.terms, expr.bounds = op, args, dtype, attr, None, None
                    _known[key] = KeyedRef(expr, _forget, key)
        return expr

    def __repr__(self) -> str:
        texts: dict[Expr, str] = {}
        for e in self.walk():
            text = e._text([texts[arg] for arg in e.args])
            texts[e] = text if len(text) <= _LONGEST_TEXT else "..."  # what is shared would be spelt out each time
        return texts[self]

    def _text(self, args: list[str]) -> str:
        match self.op:
            case "constant":
                return str(self.attr)
            case "size":
                return f"({self.attr})"
            case "axis" | "accumulator":
                return self.attr.name
            case "load":
                return f"{self.attr.name}[{' if '.join(args)}]"
            case "cast":
                return f"{self.dtype.name}({args[0]})"
        if self.dtype is int64 and self.op in ("add", "mul"):
            return f"({args[0]} {'+' if self.op == 'add' else '*'} {args[1]})"
        return f"{self.op}({', '.join(args)})"

    @property
    def __graphc_emitter__(self) -> ExprEmitter:
        return _EMITTER

    @property
    def shape(self) -> tuple[()]:
        return ()

    def walk(self) -> Iterator[Expr]:
        """This expression and all that it is made of, each once, operands first."""
        return walk((self,))


def walk(roots: Iterable[Expr], seen: set[Expr] | None = None) -> Iterator[Expr]:
    """Expressions and all that they are made of, each once, operands first; but for what has been `seen`."""
    seen = set() if seen is None else seen
    for root in roots:
        stack = [root]
        while stack:
            expr = stack.pop()
            if expr in seen:
                continue
            if expr.args:
                missing = [arg for arg in expr.args if arg not in seen]
                if missing:
                    stack.append(expr)
                    missing.reverse()
                    stack += missing
                    continue
            seen.add(expr)
            yield expr


_LONGEST_TEXT = 5000
_SPELLED = (bool, int, float, complex, Dim)
# What a WeakValueDictionary would do, at half the price: half of a compilation's expressions are known already.
_known: dict[Any, KeyedRef[Any, Expr]] = {}
_known_lock = threading.RLock()


def _forget(known: KeyedRef[Any, Expr]) -> None:
    """An expression is gone, and no other has taken its place."""
    if _known.get(known.key) is known:
        del _known[known.key]


class ExprEmitter:
    """What `emit` does for expressions: numbers become constants, composite ops their scalar form."""

    priority = 20

    def emit(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Expr:
        if record.name == "cast":
            return cast(args[0], attrs["dtype"])
        if record.name == "constant":
            return constant(attrs["value"].item(), dtype_of(attrs["value"].dtype))
        args = tuple(size(arg) if isinstance(arg, Dim) else arg for arg in args)
        # a shape of its own for expressions, so that Python numbers give way to them in promotion
        dtype = common_dtype(record, [TensorType(a.dtype, (1,)) if isinstance(a, Expr) else a for a in args])
        operands = tuple(
            (arg if name in record.keeps else cast(arg, dtype)) if isinstance(arg, Expr) else constant(arg, dtype)
            for name, arg in zip(record.operands, args)
        )
        if record.scalar is not None:
            return _rounded_once(record, operands, dtype)
        result = record.infer(*(TensorType(e.dtype, ()) for e in operands))
        return Expr(record.name, operands, result.dtype)


_EMITTER = ExprEmitter()


def _rounded_once(record: OpDef, operands: tuple[Expr, ...], dtype: DType) -> Expr:
    """The scalar form of an op: of halves it is computed in single precision, and its result alone is rounded."""
    wide = dtype.computes_in
    if wide is dtype:
        return record.scalar(*operands)  # type: ignore[misc]
    result: Expr = record.scalar(*(cast(e, wide) if e.dtype is dtype else e for e in operands))  # type: ignore[misc]
    return cast(result, dtype) if result.dtype is wide else result


def constant(value: Scalar, dtype: DType) -> Expr:
    """A number: rounded to the dtype, or cut to its bits."""
    if dtype is int64 and type(value) is int and -(1 << 63) <= value < 1 << 63:  # an index, nearly always
        return Expr("constant", (), dtype, value)
    return Expr("constant", (), dtype, scalar_array(value, dtype).item())


def cast(x: Expr, dtype: DType) -> Expr:
    """x converted to dtype; x itself where it has that dtype already."""
    if x.dtype is dtype:
        return x
    if x.op == "constant":
        return constant(x.attr, dtype)
    if x.op == "cast" and x.args[0].dtype is dtype and dtype.computes_in is x.dtype:
        return x.args[0]  # a half that was widened
    return Expr("cast", (x,), dtype)


def size(value: Size) -> Expr:
    """A size as an int64."""
    return Expr("size", (), int64, value) if isinstance(value, Dim) else constant(value, int64)


def load(buffer: Buffer, offset: Expr, mask: Expr | None = None) -> Expr:
    """The element at `offset`; with a mask, 0 (and no access) where that is false."""
    return Expr("load", (offset,) if mask is None else (offset, mask), buffer.dtype, buffer)


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
    itself, and the lanes are combined in a fixed order when the loop ends."""

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
        stack = list(reversed(self.body))
        while stack:
            statement = stack.pop()
            yield statement
            if isinstance(statement, Loop):
                stack.extend(reversed(statement.body))


@dataclass(eq=False)
class Gemm(_Kernel):
    """A batch of matrix products, out[b, m, n] = epilogue(sum over k of lhs[b, m, k] * rhs[b, k, n]).

    Each of batch, m, n and k is a tuple of axes, of which the last runs fastest: a convolution has the rows and columns
    of its image as n, and channels and places of the kernel as k. `lhs` is an expression over the batch, m and k axes,
    `rhs` over the batch, k and n axes. `epilogue` are Store statements over the batch, m and n axes and
    `accumulator.value`; each element of the result is stored once, after its whole sum. `panels` are prepared buffers in
    which a back end keeps `lhs` and `rhs` as it reads them, None for those that it takes from memory at each run.
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
    one for all."""

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
    multiplies element by element. The keys of the mask stand side by side, or are one for all."""

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
    for statement in kernel.statements():
        match statement:
            case Store():
                yield from (e for e in (statement.offset, statement.value, statement.mask) if e is not None)
            case Accumulate():
                yield statement.value
            case Loop(limit=Expr() as limit):
                yield limit


def reads(kernel: Kernel) -> set[Buffer]:
    """The buffers that a kernel loads from."""
    return {buffer for buffer, used in kernel.accesses.items() if used.loads}


def writes(kernel: Kernel) -> set[Buffer]:
    """The buffers that a kernel stores to."""
    return {buffer for buffer, used in kernel.accesses.items() if used.stores}


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A boolean that one kernel stores. Where it is true the run ends after that kernel, with this `problem`."""

    buffer: Buffer
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
                    sign = {"sum": "+=", "max": "max=", "min": "min="}[s.accumulator.reduction]
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
        write(1, f"{kernel.accumulator.name} += {kernel.lhs} * {kernel.rhs}")
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
    body(kernel.epilogue, batch | m | n, {kernel.accumulator}, False)
