"""Branches and loops: functions that call the functions of other programs.

A loop has its programs write into one of two places by turns, so that what is carried from step to step is never copied
but to where the loop leaves it; or in one place, where a step reads nothing that it has overwritten. The programs work in
the scratch memory of the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import graphc.ops as ops
from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.context import ALIGNMENT, Context
from graphc.backends.llvm.host import FAILED
from graphc.kernel import Block, Control
from graphc.program import Program
from graphc.recompute import nanoseconds

_FIRST = 1e6
"""Nanoseconds after which a loop looks for signals, as far as it can be told before."""
_MOST_STEPS = 4096
_SOME_STEPS = 64
"""Steps after which it does: at most, and where sizes are symbols."""
OUT_OF_MEMORY = -1
"""What a program returns where the carries of a loop take more memory than there is."""


@dataclass(frozen=True)
class Inner:
    """A program that has been rendered: its symbol, and the bytes of its arena."""

    symbol: str
    arena: int
    program: Program


def render_control(context: Context, kernel: Control, inner: Mapping[str, Inner], name: str, first_check: int) -> None:
    """Add the kernel to the context's module as `i32 name(ptr context)`, which returns 0, or what a program returned that has
    failed; checks of the programs count from `first_check` on."""
    arena = -(-max((program.arena for program in inner.values()), default=0) // ALIGNMENT) * ALIGNMENT
    keeps = kernel.op is ops.while_loop_vjp and not context.hosted
    context.reserve_scratch(arena + (_Checkpoints.ROWS * _Rows(kernel).nbytes if keeps else 0))
    f = context.module.function(name, [("ptr", "context")], "i32", linkage="internal")
    writer = _Writer(context, kernel, inner, f, first_check)
    if kernel.op is ops.cond:
        writer.cond()
    elif kernel.op is ops.scan:
        writer.scan()
    elif kernel.op is ops.while_loop:
        writer.while_loop()
    elif keeps:
        writer.while_loop_vjp_in(arena)
    else:
        writer.while_loop_vjp()


class _Call:
    """A program with its tables of addresses, which are filled as far as they stay the same."""

    def __init__(self, writer: _Writer, attribute: str) -> None:
        self._writer = writer
        self._inner = writer.inner[attribute]
        f, program = writer.f, self._inner.program
        self.inputs, self.outputs, self._constants = (
            f.slot(f"[{max(1, count)} x ptr]")
            for count in (len(program.inputs), len(program.outputs), len(program.constants) + 2)
        )
        for number, buffer in enumerate(program.constants):
            writer.put(self._constants, number, writer.pointer(buffer))
        writer.put(self._constants, len(program.constants), writer.host)
        if writer.clock is not None:
            writer.put(self._constants, len(program.constants) + 1, writer.clock)

    def run(self, stop: Callable[[], None] | None = None) -> None:
        """Call it. Where it fails, so does the kernel, after `stop`."""
        writer, f = self._writer, self._writer.f
        arguments = (self.inputs, self.outputs, self._constants, writer.scratch)
        status = f.call("i32", self._inner.symbol, *(("ptr", argument) for argument in arguments))
        with f.when(f.value(f"icmp ne i32 {status}, 0")):
            if stop is not None:
                stop()
            first = writer.first_check[self._inner.program]
            counted = f.value(f"add i32 {status}, {first}")
            checked = f.value(f"icmp sgt i32 {status}, 0")
            f.do(f"ret i32 {f.value(f'select i1 {checked}, i32 {counted}, i32 {status}')}")
            f.enter(f.label("never"))


class _Watch:
    """Looks for signals, such as Ctrl-C, in a loop that may have no end."""

    def __init__(self, writer: _Writer) -> None:
        self._f = f = writer.f
        self._hosted = writer.hosted
        if not self._hosted:
            return  # there is no Python to look for signals in
        body = writer.kernel.attrs["body"]
        sizes = [size for node in body.nodes for result in node.results for size in result.shape]
        known = all(isinstance(size, int) for size in sizes)
        first = max(1, min(_MOST_STEPS, int(_FIRST / max(sum(map(nanoseconds, body.nodes)), 1)))) if known else _SOME_STEPS
        words = f.slot("[6 x i64]")
        self._words = [writer.offset(words, str(8 * k)) for k in range(6)]
        for place, word in zip(self._words, (first, 0, first, 0, 0, 0)):
            f.do(f"store i64 {word}, ptr {place}")

    def step(self, stop: Callable[[], None] | None = None) -> None:
        """Count a step, and look if it is time. Where a signal's handler has raised, the kernel fails, after `stop`."""
        if not self._hosted:
            return
        f, declare = self._f, self._f.module.declare
        words, error = self._words[0], [("ptr", place) for place in self._words[3:]]
        left = f.value(f"sub i64 {f.value(f'load i64, ptr {words}')}, 1")
        f.do(f"store i64 {left}, ptr {words}")
        with f.when(f.value(f"icmp eq i64 {left}, 0")):
            state = f.call("i32", declare("PyGILState_Ensure", "i32", []))
            raised = f.call("i32", declare("PyErr_CheckSignals", "i32", []))
            with f.when(f.value(f"icmp ne i32 {raised}, 0")):
                for name in ("PyErr_Fetch", "PyErr_NormalizeException"):
                    f.call("void", declare(name, "void", ["ptr"] * 3), *error)
            f.call("void", declare("PyGILState_Release", "void", ["i32"]), ("i32", state))
            f.call("void", declare("poll", "void", ["ptr"]), ("ptr", words))
            with f.when(f.value(f"icmp eq i64 {f.value(f'load i64, ptr {words}')}, 0")):
                if stop is not None:
                    stop()
                f.do(f"ret i32 {FAILED}")
                f.enter(f.label("never"))


class _Writer:
    def __init__(
        self, context: Context, kernel: Control, inner: Mapping[str, Inner], f: Function, first_check: int
    ) -> None:
        self.kernel = kernel
        self.inner = inner
        self.f = f
        self.hosted = context.hosted
        self.pointer = context.pointers(f, kernel.accesses)
        self.host = context.host_key(f)
        self.clock = context.clock(f)
        self.scratch = context.scratch(f)
        self.operands = [self._address(block) for block in kernel.operands]
        self.results = [self._address(block) for block in kernel.results]
        self.spares = [None if spare is None else self.pointer(spare) for spare in kernel.spares]
        self.first_check: dict[Program, int] = {}
        for program in kernel.programs.values():
            self.first_check[program] = first_check
            first_check += len(program.checks)

    # Addresses

    def _address(self, block: Block) -> str:
        return self.offset(self.pointer(block.buffer), str(block.offset * block.buffer.dtype.itemsize))

    def offset(self, base: str, nbytes: str) -> str:
        return base if nbytes == "0" else self.f.value(f"getelementptr i8, ptr {base}, i64 {nbytes}")

    def put(self, table: str, number: int, address: str) -> None:
        self.f.do(f"store ptr {address}, ptr {self._slot(table, number)}")

    def get(self, table: str, number: int) -> str:
        return self.f.value(f"load ptr, ptr {self._slot(table, number)}")

    def put_all(self, table: str, addresses: Sequence[str], first: int = 0) -> None:
        for number, address in enumerate(addresses, first):
            self.put(table, number, address)

    def _slot(self, table: str, number: int) -> str:
        return self.f.value(f"getelementptr ptr, ptr {table}, i64 {number}")

    def copy(self, target: str, source: str, nbytes: int) -> None:
        memcpy = self.f.module.declare("llvm.memcpy.p0.p0.i64", "void", ["ptr", "ptr", "i64", "i1"])
        self.f.call("void", memcpy, ("ptr", target), ("ptr", source), ("i64", str(nbytes)), ("i1", "false"))

    # The kinds

    def cond(self) -> None:
        f = self.f
        calls = {name: _Call(self, name) for name in ("then", "otherwise")}
        for call in calls.values():
            self.put_all(call.inputs, self.operands[1:])
            self.put_all(call.outputs, self.results)
        truth = f.value(f"icmp ne i8 {f.value(f'load i8, ptr {self.operands[0]}')}, 0")
        then, otherwise, after = f.label("then"), f.label("otherwise"), f.label("after")
        f.branch(truth, then, otherwise)
        for label, name in ((then, "then"), (otherwise, "otherwise")):
            f.enter(label)
            calls[name].run()
            f.jump(after)
        f.enter(after)
        f.do("ret i32 0")

    def scan(self) -> None:
        f, attrs = self.f, self.kernel.attrs
        carries, scanned, length = attrs["carries"], attrs["scanned"], attrs["length"]
        call = _Call(self, "body")
        self.put_all(call.inputs, self.operands)
        self.put_all(call.outputs, self.results)
        for j in range(carries):
            if self.spares[j] is None or length == 0:
                self.copy(self.results[j], self.operands[j], self._bytes(j))
                self.put(call.inputs, j, self.results[j])
        rows = {i: self._row_bytes(self.kernel.operands[i]) for i in range(carries, carries + scanned)}
        result_rows = {j: self._row_bytes(self.kernel.results[j]) for j in range(carries, len(self.results))}
        with f.loop("0", str(length), hint="step") as step:
            left = f.value(f"sub i64 {length - 1}, {step}")
            even = f.value(f"icmp eq i64 {f.value(f'and i64 {left}, 1')}, 0")  # the last step writes the result
            for j, spare in enumerate(self.spares):
                if spare is not None:
                    target = f.value(f"select i1 {even}, ptr {self.results[j]}, ptr {spare}")
                    self.put(call.outputs, j, target)
            at = left if attrs["reverse"] else step
            for table, moving, bases in ((call.inputs, rows, self.operands), (call.outputs, result_rows, self.results)):
                for i, nbytes in moving.items():
                    self.put(table, i, self.offset(bases[i], f.value(f"mul i64 {at}, {nbytes}")))
            call.run()
            for j, spare in enumerate(self.spares):
                if spare is not None:
                    self.put(call.inputs, j, self.get(call.outputs, j))
        f.do("ret i32 0")

    def while_loop(self) -> None:
        f = self.f
        condition, body = _Call(self, "condition"), _Call(self, "body")
        truth = f.slot("i8")
        self.put(condition.outputs, 0, truth)
        self.put_all(condition.inputs, self.operands)
        self.put_all(body.inputs, self.operands)
        self._start_turns(body, 0)
        watch = _Watch(self)
        head, again, done = f.label("head"), f.label("again"), f.label("done")
        f.jump(head)
        f.enter(head)
        for j in range(len(self.results)):
            self.put(condition.inputs, j, self.get(body.inputs, j))
        condition.run()
        f.branch(f.value(f"icmp ne i8 {f.value(f'load i8, ptr {truth}')}, 0"), again, done)
        f.enter(again)
        watch.step()
        self._turn(body, 0)
        f.jump(head)
        f.enter(done)
        self._end_turns(body, 0)
        f.do("ret i32 0")

    def while_loop_vjp(self) -> None:
        f = self.f
        condition, body, backward = self._calls_of_vjp()
        stack = _Stack(self)
        truth, steps = f.slot("i8"), f.slot("i64")
        self.put(condition.outputs, 0, truth)
        f.do(f"store i64 0, ptr {steps}")
        stack.hold("0")
        for j, place in enumerate(stack.places("0")):
            self.copy(place, self.operands[j], self._operand_bytes(j))
        watch = _Watch(self)
        head, again, back = f.label("head"), f.label("again"), f.label("back")
        f.jump(head)
        f.enter(head)
        done = f.value(f"load i64, ptr {steps}")
        self.put_all(condition.inputs, stack.places(done))
        condition.run(stack.free)
        f.branch(f.value(f"icmp ne i8 {f.value(f'load i8, ptr {truth}')}, 0"), again, back)
        f.enter(again)
        watch.step(stack.free)
        following = f.value(f"add i64 {done}, 1")
        stack.hold(following)
        self.put_all(body.inputs, stack.places(done))
        self.put_all(body.outputs, stack.places(following))
        body.run(stack.free)
        f.do(f"store i64 {following}, ptr {steps}")
        f.jump(head)
        f.enter(back)
        self._go_back(backward, done, stack.places, stack.free)
        stack.free()
        f.do("ret i32 0")

    def while_loop_vjp_in(self, arena: int) -> None:
        """The same in memory that does not grow, behind the arena: the steps are counted first."""
        f = self.f
        condition, body, backward = self._calls_of_vjp()
        kept = _Checkpoints(self, body, arena)
        truth, row, steps = f.slot("i8"), f.slot("i64"), f.slot("i64")
        self.put(condition.outputs, 0, truth)
        f.do(f"store i64 0, ptr {row}")
        f.do(f"store i64 0, ptr {steps}")
        for j, place in enumerate(kept.places("0")):
            self.copy(place, self.operands[j], self._operand_bytes(j))
        head, again, back = f.label("head"), f.label("again"), f.label("back")
        f.jump(head)
        f.enter(head)
        done, here = f.value(f"load i64, ptr {steps}"), f.value(f"load i64, ptr {row}")
        self.put_all(condition.inputs, kept.places(here))
        condition.run()
        f.branch(f.value(f"icmp ne i8 {f.value(f'load i8, ptr {truth}')}, 0"), again, back)
        f.enter(again)
        there = kept.between(done)
        kept.run(here, there)
        f.do(f"store i64 {there}, ptr {row}")
        f.do(f"store i64 {f.value(f'add i64 {done}, 1')}, ptr {steps}")
        f.jump(head)
        f.enter(back)
        self._go_back(backward, done, kept.at)
        f.do("ret i32 0")

    def _calls_of_vjp(self) -> tuple[_Call, _Call, _Call]:
        """The condition, the body and the step back, with what stays the same."""
        carries, count = self.kernel.attrs["carries"], len(self.kernel.attrs["body"].inputs)
        condition, body, backward = (_Call(self, name) for name in ("condition", "body", "backward"))
        for call in (condition, body, backward):
            self.put_all(call.inputs, self.operands[carries:count], carries)
        return condition, body, backward

    def _go_back(
        self, backward: _Call, done: str, places: Callable[[str], list[str]], stop: Callable[[], None] | None = None
    ) -> None:
        """Take the steps back, from the last of so many: `places` says where what is carried stands before a step."""
        f, count = self.f, len(self.kernel.attrs["body"].inputs)
        given = len(self.operands) - count
        self.put_all(backward.inputs, self.operands[count:], count)
        memset = f.module.declare("llvm.memset.p0.i64", "void", ["ptr", "i8", "i64", "i1"])
        for j in range(given, len(self.results)):
            f.call("void", memset, ("ptr", self.results[j]), ("i8", "0"), ("i64", str(self._bytes(j))), ("i1", "false"))
            self.put(backward.inputs, count + j, self.results[j])
        self._start_turns(backward, count, given)
        with f.loop("0", done, hint="back") as turned:
            at = f.value(f"sub i64 {f.value(f'sub i64 {done}, 1')}, {turned}")
            self.put_all(backward.inputs, places(at))
            self._turn(backward, count, stop)
        self._end_turns(backward, count)

    # What is carried: at `first` in the inputs of the call, and at 0 in its outputs

    def _start_turns(self, call: _Call, first: int, given: int | None = None) -> None:
        """The first values are in the inputs: what is computed in place is moved to where the result will be. Of `given`
        operands the others have been there from the start."""
        for j, spare in enumerate(self.spares):
            if spare is None:
                if given is None or j < given:
                    self.copy(self.results[j], self.get(call.inputs, first + j), self._bytes(j))
                self.put(call.inputs, first + j, self.results[j])
                self.put(call.outputs, j, self.results[j])

    def _turn(self, call: _Call, first: int, stop: Callable[[], None] | None = None) -> None:
        f = self.f
        for j, spare in enumerate(self.spares):
            if spare is not None:
                here = f.value(f"icmp eq ptr {self.get(call.inputs, first + j)}, {self.results[j]}")
                self.put(call.outputs, j, f.value(f"select i1 {here}, ptr {spare}, ptr {self.results[j]}"))
        call.run(stop)
        for j, spare in enumerate(self.spares):
            if spare is not None:
                self.put(call.inputs, first + j, self.get(call.outputs, j))

    def _end_turns(self, call: _Call, first: int) -> None:
        for j, spare in enumerate(self.spares):
            if spare is not None:
                last = self.get(call.inputs, first + j)
                with self.f.when(self.f.value(f"icmp ne ptr {last}, {self.results[j]}")):
                    self.copy(self.results[j], last, self._bytes(j))

    def _bytes(self, result: int) -> int:
        return _nbytes(self.kernel.results[result])

    def _operand_bytes(self, operand: int) -> int:
        return _nbytes(self.kernel.operands[operand])

    def _row_bytes(self, block: Block) -> int:
        return block.strides[0] * block.buffer.dtype.itemsize


class _Rows:
    """How all that is carried by a kernel stands in a row of memory."""

    def __init__(self, kernel: Control) -> None:
        self.offsets = [0]
        for size in map(_nbytes, kernel.operands[: kernel.attrs["carries"]]):
            self.offsets.append(self.offsets[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
        self.nbytes = max(ALIGNMENT, self.offsets.pop())

    def places(self, writer: _Writer, base: str, row: str) -> list[str]:
        """Where the values of a row are, counted from an address."""
        f = writer.f
        start = f.value(f"getelementptr i8, ptr {base}, i64 {f.value(f'mul i64 {row}, {self.nbytes}')}")
        return [writer.offset(start, str(offset)) for offset in self.offsets]


class _Checkpoints:
    """Some steps of a loop, in memory that does not grow, from which those between them are computed again."""

    KEPT = 64
    ROWS = KEPT + 2
    """With two more, by turns those of the steps between."""

    def __init__(self, writer: _Writer, body: _Call, arena: int) -> None:
        self._writer, self._body = writer, body
        self._rows = _Rows(writer.kernel)
        f = writer.f
        self._base = f.value(f"getelementptr i8, ptr {writer.scratch}, i64 {arena}")
        self._steps, self._last, self._row = f.slot(f"[{self.KEPT} x i64]"), f.slot("i64"), f.slot("i64")
        f.do(f"store i64 0, ptr {self._last}")
        f.do(f"store i64 0, ptr {self._step_of('0')}")

    def _step_of(self, row: str) -> str:
        return self._writer.f.value(f"getelementptr i64, ptr {self._steps}, i64 {row}")

    def places(self, row: str) -> list[str]:
        return self._rows.places(self._writer, self._base, row)

    def between(self, turn: str) -> str:
        """One of the rows that take turns."""
        f = self._writer.f
        return f.value(f"add i64 {f.value(f'and i64 {turn}, 1')}, {self.KEPT}")

    def run(self, source: str, target: str) -> None:
        """Compute a step from the one in another row."""
        self._writer.put_all(self._body.inputs, self.places(source))
        self._writer.put_all(self._body.outputs, self.places(target))
        self._body.run()

    def at(self, step: str) -> list[str]:
        """Where the values of a step are; of all that are asked for, each is before the last one.

        The nearest step before it that is kept is the last one that is. From there on others are kept: all, where there is
        room for all, else at distances of twice their share of the room, so that most of it is taken for the nearer ones. With
        room for one, it is the step itself.
        """
        f, last = self._writer.f, self._last
        head, on, there = f.label("find"), f.label("on"), f.label("there")
        f.jump(head)
        f.enter(head)
        row = f.value(f"load i64, ptr {last}")
        begin = f.value(f"load i64, ptr {self._step_of(row)}")
        distance = f.value(f"sub i64 {step}, {begin}")
        f.branch(f.value(f"icmp sgt i64 {distance}, 0"), on, there)
        f.enter(on)
        room = f.value(f"sub i64 {self.KEPT - 1}, {row}")
        share = f.value(f"sdiv i64 {f.value(f'shl i64 {distance}, 1')}, {room}")
        share = f.intrinsic("llvm.smin", "i64", f.value(f"add i64 {share}, 1"), distance)
        for_all = f.value(f"icmp sle i64 {distance}, {room}")
        length = f.value(f"select i1 {for_all}, i64 1, i64 {share}")
        following = f.value(f"add i64 {row}, 1")
        f.do(f"store i64 {row}, ptr {self._row}")
        with f.loop("1", f.value(f"add i64 {length}, 1"), hint="again") as done:
            is_last = f.value(f"icmp eq i64 {done}, {length}")
            target = f.value(f"select i1 {is_last}, i64 {following}, i64 {self.between(done)}")
            self.run(f.value(f"load i64, ptr {self._row}"), target)
            f.do(f"store i64 {target}, ptr {self._row}")
        f.do(f"store i64 {f.value(f'add i64 {begin}, {length}')}, ptr {self._step_of(following)}")
        f.do(f"store i64 {following}, ptr {last}")
        f.jump(head)
        f.enter(there)
        f.do(f"store i64 {f.value(f'sub i64 {row}, 1')}, ptr {last}")
        return self.places(row)


class _Stack:
    """Memory that grows: rows of all that is carried."""

    def __init__(self, writer: _Writer) -> None:
        self._writer = writer
        self._layout = _Rows(writer.kernel)
        f = writer.f
        self._base, self._rows = f.slot("ptr"), f.slot("i64")
        f.do(f"store ptr null, ptr {self._base}")
        f.do(f"store i64 0, ptr {self._rows}")

    def places(self, row: str) -> list[str]:
        """Where the values of a row are."""
        return self._layout.places(self._writer, self._writer.f.value(f"load ptr, ptr {self._base}"), row)

    def hold(self, row: str) -> None:
        """Have room for the row: twice as much as before, if there is none. The rows may move."""
        f = self._writer.f
        rows = f.value(f"load i64, ptr {self._rows}")
        with f.when(f.value(f"icmp sge i64 {row}, {rows}")):
            more = f.value(f"add i64 {f.value(f'mul i64 {rows}, 2')}, 16")
            realloc = f.module.declare("PyMem_RawRealloc", "ptr", ["ptr", "i64"])
            old = f.value(f"load ptr, ptr {self._base}")
            new = f.call("ptr", realloc, ("ptr", old), ("i64", f.value(f"mul i64 {more}, {self._layout.nbytes}")))
            with f.when(f.value(f"icmp eq ptr {new}, null")):
                self.free()
                f.do(f"ret i32 {OUT_OF_MEMORY}")
                f.enter(f.label("never"))
            f.do(f"store ptr {new}, ptr {self._base}")
            f.do(f"store i64 {more}, ptr {self._rows}")

    def free(self) -> None:
        f = self._writer.f
        free = f.module.declare("PyMem_RawFree", "void", ["ptr"])
        f.call("void", free, ("ptr", f.value(f"load ptr, ptr {self._base}")))


def _nbytes(block: Block) -> int:
    return math.prod(block.shape) * block.buffer.dtype.itemsize
