"""Runs programs of kernels one element at a time: what a back end's code must compute, said in the plainest way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

import graphc.ops  # noqa: F401  (defines the ops)
from graphc.errors import DimError
from graphc.expression import Accumulator, Axis, Buffer, Expr
from graphc.kernel import (
    Accumulate,
    Block,
    Call,
    Control,
    Gemm,
    Kernel,
    Loop,
    Reset,
    Statement,
    Store,
    writes,
)
from graphc.op import OPS
from graphc.program import Program


class Machine:
    """Memory and registers."""

    def __init__(self) -> None:
        self.memory: dict[Buffer, np.ndarray] = {}
        self.axes: dict[Axis, int] = {}
        self.accumulators: dict[Accumulator, np.generic] = {}

    def evaluate(self, root: Expr) -> np.generic:
        """The value of an expression at the present axes."""
        known: dict[Expr, np.generic] = {}
        for e in root.walk():
            known[e] = self._apply(e, [known[a] for a in e.args])
        return known[root]

    def _apply(self, e: Expr, args: list[np.generic]) -> np.generic:
        match e.op:
            case "constant":
                return e.dtype.numpy.type(e.attr)
            case "axis":
                return np.int64(self.axes[e.attr])
            case "accumulator":
                return self.accumulators[e.attr]
            case "load":
                if len(args) > 1 and not args[1]:
                    return e.dtype.numpy.type(0)
                assert 0 <= args[0] < e.attr.size, f"{e} reads at {args[0]}"
                return self.memory[e.attr][args[0]]
            case "cast":
                with np.errstate(all="ignore"):
                    return args[0].astype(e.dtype.numpy)
            case "quotient":
                assert args[0] >= 0
                return args[0] // args[1]
            case "modulo":
                assert args[0] >= 0
                return args[0] % args[1]
        with np.errstate(all="ignore"):
            return OPS[e.op].ref(*map(np.asarray, args))[()].astype(e.dtype.numpy)

    def run(self, body: Sequence[Statement]) -> None:
        """Execute statements; the values of neighbouring stores are computed before the first is written."""
        for stores, group in itertools.groupby(body, lambda s: isinstance(s, Store)):
            if stores:
                done = [self._store(s) for s in group]
                for buffer, offset, value in filter(None, done):
                    assert 0 <= offset < buffer.size, f"write to {buffer} at {offset}"
                    self.memory[buffer][offset] = value
                continue
            for s in group:
                self._statement(s)

    def _store(self, s: Store) -> tuple[Buffer, int, np.generic] | None:
        if s.mask is not None and not self.evaluate(s.mask):
            return None
        return s.buffer, int(self.evaluate(s.offset)), self.evaluate(s.value)

    def _statement(self, s: Statement) -> None:
        match s:
            case Reset():
                self.accumulators[s.accumulator] = s.accumulator.dtype.numpy.type(s.accumulator.initial)
            case Accumulate():
                value = self.evaluate(s.value)
                if s.accumulator.reduction != "last":
                    op = {"sum": np.add, "max": np.maximum, "min": np.minimum}[s.accumulator.reduction]
                    with np.errstate(over="ignore"):
                        value = op(self.accumulators[s.accumulator], value)
                self.accumulators[s.accumulator] = value
            case Loop():
                limit = s.axis.extent if s.limit is None else int(self.evaluate(s.limit))
                assert limit <= s.axis.extent
                for i in range(limit):
                    self.axes[s.axis] = i
                    self.run(s.body)

    def block(self, block: Block) -> np.ndarray:
        """A tensor in memory."""
        start = self.memory[block.buffer][block.offset :]
        return np.lib.stride_tricks.as_strided(start, block.shape, [s * block.buffer.dtype.itemsize for s in block.strides])

    def kernel(self, kernel: Kernel) -> None:
        """Run one kernel."""
        if isinstance(kernel, Gemm):
            result = kernel.accumulator
            for outer in itertools.product(*(range(a.extent) for a in (*kernel.batch, *kernel.m, *kernel.n))):
                self.axes.update(zip((*kernel.batch, *kernel.m, *kernel.n), outer))
                self.accumulators[result] = result.dtype.numpy.type(0)
                for inner in itertools.product(*(range(a.extent) for a in kernel.k)):
                    self.axes.update(zip(kernel.k, inner))
                    with np.errstate(over="ignore"):  # small integers wrap around
                        self.accumulators[result] += self.evaluate(kernel.lhs) * self.evaluate(kernel.rhs)
                self.run(kernel.epilogue)
            return
        if isinstance(kernel, Call):
            operands, results = ([self.block(b) for b in blocks] for blocks in (kernel.operands, kernel.results))
            kernel.run(operands, results)
            return
        if isinstance(kernel, Control):
            for block, value in zip(kernel.results, self.control(kernel), strict=True):
                self.block(block)[...] = value.reshape(block.shape)
            return
        for s in kernel.statements():
            if isinstance(s, Store) and s.buffer.role == "local":
                self.memory[s.buffer] = np.zeros(s.buffer.size, s.buffer.dtype.numpy)
        for step in itertools.product(*(range(a.extent) for a in kernel.grid)):
            self.axes.update(zip(kernel.grid, step))
            self.run(kernel.body)

    def control(self, kernel: Control) -> list[np.ndarray]:
        """The results of an op that runs programs, flat."""
        attrs, programs = kernel.attrs, kernel.programs
        given = [self.memory[block.buffer][block.offset :] for block in kernel.operands]
        if kernel.op.name == "cond":
            return run_program(programs["then" if given[0][0] else "otherwise"], given[1:])
        carries = attrs["carries"]
        state = [array[: math.prod(block.shape)] for array, block in zip(given[:carries], kernel.operands)]
        if kernel.op.name == "scan":
            scanned, length = attrs["scanned"], attrs["length"]
            ys: list[list[np.ndarray]] = [[] for _ in kernel.results[carries:]]
            for at in reversed(range(length)) if attrs["reverse"] else range(length):
                strides = (block.strides[0] for block in kernel.operands[carries : carries + scanned])
                rows = [array[at * stride :] for array, stride in zip(given[carries:], strides)]
                found = run_program(programs["body"], [*state, *rows, *given[carries + scanned :]])
                state = found[:carries]
                for column, y in zip(ys, found[carries:]):
                    column.insert(0 if attrs["reverse"] else length, y)
            return [*state, *map(np.concatenate, ys)]
        count = len(attrs["body"].inputs)
        states, same = [state], given[carries:count]
        while run_program(programs["condition"], [*states[-1], *same])[0]:
            states.append(run_program(programs["body"], [*states[-1], *same]))
        if kernel.op.name == "while_loop":
            return states[-1]
        sums = [np.zeros(math.prod(b.shape), b.buffer.dtype.numpy) for b in kernel.results[len(given) - count :]]
        cotangents = [*given[count:], *sums]
        for before in reversed(states[:-1]):
            cotangents = run_program(programs["backward"], [*before, *same, *cotangents])
        return cotangents


def run_program(program: Program, arrays: Sequence[np.ndarray], donated: dict[int, int] | None = None) -> list[np.ndarray]:
    """The outputs of a program, flat; a donated output is written over (a copy of) its input. Temporaries share one arena,
    as planned."""
    machine = Machine()
    for buffer, array in zip(program.inputs, arrays, strict=True):
        machine.memory[buffer] = np.array(array).reshape(-1)
    arena = np.full(program.arena, 0xA5, np.uint8)
    for buffer in program.temporaries:
        machine.memory[buffer] = arena[buffer.offset : buffer.offset + buffer.nbytes].view(buffer.dtype.numpy)
    for buffer in program.constants:
        machine.memory[buffer] = buffer.data.reshape(-1)
    for j, buffer in enumerate(program.outputs):
        if j in (donated or {}):
            machine.memory[buffer] = machine.memory[program.inputs[donated[j]]]
        else:
            machine.memory[buffer] = np.zeros(buffer.size, buffer.dtype.numpy)
    for kernel in program.kernels:
        machine.kernel(kernel)
        for check in program.checks:
            if check.buffer in writes(kernel) and machine.memory[check.buffer][0]:
                raise DimError(check.problem, expected=check.expected, at=check.at)
    return [machine.memory[buffer] for buffer in program.outputs]
