"""Running the steps of a program: kernels are launched one after another, and the host looks at numbers where it has to."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

import graphc.ops as ops
from graphc.backends.cuda import kernel_clock
from graphc.backends.cuda.driver import Driver
from graphc.backends.cuda.launch import ALIGNMENT
from graphc.backends.cuda.library_ops import REFUSALS, Placed, compute
from graphc.backends.cuda.program import CallStep, CheckStep, ControlStep, KernelStep, ProductStep, Rendered, Step
from graphc.errors import DimError
from graphc.expression import Buffer
from graphc.gpu import look
from graphc.kernel import Block, Call
from graphc.program import Check
from graphc.sizes import evaluate

_MOST_RECORDED = 64
"""Recordings that a runner keeps: each holds for certain addresses of inputs, outputs and temporaries, which repeat as the
memory pool gives out the same memory again: so many that calls may go through some dozens of batches by turns."""
_SEEN = object()
_WORKSPACE_ALIGNMENT = 256


@dataclass(frozen=True, slots=True, eq=False)
class _Launch:
    """A launch with numbers for all sizes."""

    step: KernelStep
    blocks: int
    sizes: tuple[int, ...]


_Part: TypeAlias = "tuple[list[_Launch | ProductStep], Step | None]"
"""Kernels and products of cuBLAS that are launched one after another, and what the host does after them."""


class Runner:
    """One program on one GPU: its compiled functions, and its constants. Threads may run it at the same time."""

    def __init__(self, rendered: Rendered, driver: Driver, module: Any = None) -> None:
        self.rendered = rendered
        self.program = rendered.program
        self.is_inner = module is not None
        self.driver = driver
        self.module = driver.load(rendered.functions) if module is None else module
        self.fixed: dict[Buffer, int] = {}
        """The addresses that are the same for all runs."""
        self._constants: list[Any] = []
        for buffer in self.program.constants:
            assert buffer.data is not None
            array = np.ascontiguousarray(buffer.data)
            memory = driver.allocate(max(1, array.nbytes))
            driver.upload(driver.address(memory), array)
            self._constants.append(memory)
            self.fixed[buffer] = driver.address(memory)
        self.inner: dict[Rendered, SizedRunner] = {
            inner: Runner(inner, driver, self.module).at({})
            for step in rendered.steps if isinstance(step, ControlStep) for inner in step.programs.values()
        }  # fmt: skip
        self._loaded: set[str] = set()

    def at(self, sizes: Mapping[str, int]) -> SizedRunner:
        """The program where symbols are these numbers."""
        return SizedRunner(self, sizes)

    def launch(self, launch: _Launch, addresses: Sequence[int]) -> None:
        """Launch a kernel on buffers at these addresses."""
        step, symbol = launch.step, launch.step.launch.symbol
        if any(addresses[i] % ALIGNMENT for i in step.launch.aligned):
            symbol = step.unaligned
            if symbol not in self._loaded:
                self.driver.load({symbol: self.rendered.unaligned[symbol]})
                self._loaded.add(symbol)
        self.driver.launch(self.module, symbol, launch.blocks, step.launch.threads, (*addresses, *launch.sizes))


class SizedRunner:
    """A program with numbers for all sizes. Memory for its temporaries is the driver's, for the time of a run."""

    def __init__(self, runner: Runner, sizes: Mapping[str, int]) -> None:
        self._runner = runner
        self._driver = runner.driver
        program = self._program = runner.program
        steps = runner.rendered.steps
        self._late = () if runner.is_inner else tuple(
            step.check for step in steps if isinstance(step, CheckStep) and evaluate(step.check.size, sizes))
        """What is looked at when the run is over: wrong indices have been replaced by right ones, if there are any."""
        self._parts = _parts([s for s in steps if not (isinstance(s, CheckStep) and s.check in self._late)], sizes)
        self._sizes = dict(sizes)
        found = evaluate(program.arena, sizes)
        self._temporaries = -(-(found + len(self._late)) // _WORKSPACE_ALIGNMENT) * _WORKSPACE_ALIGNMENT
        multiplies = any(isinstance(launch, ProductStep) for launches, _ in self._parts for launch in launches)
        self._arena = self._temporaries + (self._driver.workspace if multiplies else 0)
        self._offsets = {buffer: evaluate(buffer.offset, sizes) for buffer in program.temporaries}
        self._offsets.update((check.buffer, found + k) for k, check in enumerate(self._late))
        self._lock = threading.Lock()
        self._recordings: dict[Any, Any] = {}

    def run(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Compute into the memory of `outputs`."""
        self.run_at([self._driver.address(a) for a in inputs], [self._driver.address(a) for a in outputs])

    def run_at(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """The same by addresses. Raises what runs before this one have found wrong, if that is known by now."""
        look()
        arena = self._driver.allocate(self._arena) if self._arena else None
        start = 0 if arena is None else self._driver.address(arena)
        given = (start, *inputs, *outputs)
        alone = len(self._parts) == 1 and self._parts[0][1] is None and kernel_clock.current is None
        if alone and (replay := self._known(0, given)) not in (None, _SEEN):
            replay()
            self._report(start)
            return
        places = dict(self._runner.fixed)
        places.update((buffer, start + offset) for buffer, offset in self._offsets.items())
        places.update(zip(self._program.inputs, inputs, strict=True))
        places.update(zip(self._program.outputs, outputs, strict=True))
        for number, (launches, step) in enumerate(self._parts):
            self._launch(number, launches, places, given)
            match step:
                case CallStep():
                    if not self._computed_by_library(step, places):
                        self._call(step.kernel, places)
                case CheckStep():
                    if _truth(self._driver, places[step.check.buffer]):
                        raise _problem(step.check)
                case ControlStep():
                    _Control(self._driver, step, places, self._runner.inner).run()
        self._report(start)

    def _report(self, start: int) -> None:
        """Have the checks looked at once the run is over."""
        if self._late:
            first = self._offsets[self._late[0].buffer]
            self._driver.report(start + first, len(self._late), functools.partial(_look_at, self._late))

    def _launch(
        self, part: int, launches: Sequence[_Launch | ProductStep], places: Mapping[Buffer, int], given: tuple[int, ...]
    ) -> None:
        """Launch kernels: those that ran with the same addresses before, as one."""
        if len(launches) < 2 or self._runner.is_inner or kernel_clock.current is not None:
            self._launch_each(launches, places, given[0])
            return
        known = self._known(part, given)
        if known is None:
            self._launch_each(launches, places, given[0])
            known = _SEEN
        else:
            if known is _SEEN:
                known = self._driver.record(lambda: self._launch_each(launches, places, given[0]))
            known()
        with self._lock:
            self._recordings[part, given] = known
            while len(self._recordings) > _MOST_RECORDED * len(self._parts):
                del self._recordings[next(iter(self._recordings))]

    def _known(self, part: int, given: tuple[int, ...]) -> Any:
        """What is known of a part that runs at these addresses, which becomes the last that has been used."""
        with self._lock:
            known = self._recordings.pop((part, given), None)
            if known is not None:
                self._recordings[part, given] = known
            return known

    def _launch_each(self, launches: Sequence[_Launch | ProductStep], places: Mapping[Buffer, int], arena: int) -> None:
        recording = kernel_clock.current
        for number, of_kernel in itertools.groupby(launches, _number):
            with contextlib.nullcontext() if recording is None else recording.kernel(self._driver, self._program, number):
                for launch in of_kernel:
                    self._launch_one(launch, places, arena)

    def _launch_one(self, launch: _Launch | ProductStep, places: Mapping[Buffer, int], arena: int) -> None:
        if isinstance(launch, ProductStep):
            product = launch.product
            left, right, out = (places[matrix.buffer] for matrix in (product.left, product.right, product.out))
            self._driver.multiply(product, self._sizes, (left, right, out), arena + self._temporaries)
        else:
            step = launch.step
            self._runner.launch(launch, [places[buffer] + shift for buffer, shift in zip(step.buffers, step.shifts)])

    def _computed_by_library(self, step: CallStep, places: Mapping[Buffer, int]) -> bool:
        """On the GPU by CuPy, if it can."""
        if step.library is None or not self._driver.libraries.has(step.library.needs):
            return False
        kernel, recording = step.kernel, kernel_clock.current
        operands, results = ([_placed(b, places) for b in blocks] for blocks in (kernel.operands, kernel.results))
        try:
            with contextlib.nullcontext() if recording is None else recording.kernel(self._driver, self._program, step.number):
                compute(step.library, kernel.op, kernel.attrs, self._driver.libraries, operands, results)
        except REFUSALS:
            return False
        return True

    def _call(self, kernel: Call, places: Mapping[Buffer, int]) -> None:
        """On the host: its operands are brought there, and its results back."""
        on_host: dict[Buffer, np.ndarray] = {}
        for block in (*kernel.operands, *kernel.results):
            if block.buffer not in on_host:
                on_host[block.buffer] = array = np.empty(int(block.buffer.size), block.buffer.dtype.numpy)
                if array.nbytes:
                    self._driver.download(places[block.buffer], array)
        operands, results = ([_view(on_host[b.buffer], b) for b in blocks] for blocks in (kernel.operands, kernel.results))
        kernel.run(operands, results)
        for buffer in dict.fromkeys(block.buffer for block in kernel.results):
            if on_host[buffer].nbytes:
                self._driver.upload(places[buffer], on_host[buffer])


def _number(launch: _Launch | ProductStep) -> int:
    """Which kernel of the program it is, or a part of."""
    return launch.number if isinstance(launch, ProductStep) else launch.step.number


def _look_at(checks: Sequence[Check], found: np.ndarray) -> None:
    for check, wrong in zip(checks, found, strict=True):
        if wrong:
            raise _problem(check, "kernels run on beside Python: it may have been a call before this one")


def _problem(check: Check, hint: str | None = None) -> DimError:
    return DimError(check.problem, expected=check.expected, at=check.at, hint=hint)


def _parts(steps: Sequence[Step], sizes: Mapping[str, int]) -> list[_Part]:
    parts: list[_Part] = []
    launches: list[_Launch | ProductStep] = []
    for step in steps:
        if isinstance(step, ProductStep):
            product = step.product
            if evaluate(product.batch, sizes) and evaluate(product.m, sizes) and evaluate(product.n, sizes):
                launches.append(step)
            continue
        if isinstance(step, KernelStep):
            blocks = evaluate(step.launch.blocks, sizes)
            if blocks > 0:
                launches.append(_Launch(step, blocks, tuple(evaluate(size, sizes) for size in step.launch.sizes)))
        else:
            parts.append((launches, step))
            launches = []
    return [*parts, (launches, None)] if launches else parts


def _placed(block: Block, places: Mapping[Buffer, int]) -> Placed:
    dtype = block.buffer.dtype.numpy
    strides = tuple(stride * dtype.itemsize for stride in block.strides)
    return Placed(places[block.buffer] + block.offset * dtype.itemsize, dtype, block.shape, strides)


def _view(memory: np.ndarray, block: Block) -> np.ndarray:
    strides = [stride * memory.itemsize for stride in block.strides]
    return np.lib.stride_tricks.as_strided(memory[block.offset :], block.shape, strides)


class _Control:
    """One run of a kernel that runs programs; see `graphc.kernel.Control`."""

    def __init__(
        self, driver: Driver, step: ControlStep, places: Mapping[Buffer, int], runners: Mapping[Rendered, SizedRunner]
    ) -> None:
        self.driver = driver
        self.kernel = kernel = step.kernel
        self.runners = {name: runners[inner] for name, inner in step.programs.items()}
        self.operands, self.results = (
            [places[b.buffer] + b.offset * b.buffer.dtype.itemsize for b in blocks]
            for blocks in (kernel.operands, kernel.results)
        )
        self.spares = [None if spare is None else places[spare] for spare in kernel.spares]

    def run(self) -> None:
        kinds = {ops.cond: self._cond, ops.scan: self._scan, ops.while_loop: self._while_loop}
        kinds.get(self.kernel.op, self._while_loop_vjp)()

    def _cond(self) -> None:
        branch = "then" if _truth(self.driver, self.operands[0]) else "otherwise"
        self.runners[branch].run_at(self.operands[1:], self.results)

    def _scan(self) -> None:
        attrs = self.kernel.attrs
        carries, scanned, length = attrs["carries"], attrs["scanned"], attrs["length"]
        inputs, outputs = list(self.operands), list(self.results)
        for j in range(carries):
            if self.spares[j] is None or length == 0:
                self.driver.copy(self.results[j], self.operands[j], _nbytes(self.kernel.results[j]))
                inputs[j] = self.results[j]
        for step in range(length):
            left = length - 1 - step
            at = left if attrs["reverse"] else step
            for j, spare in enumerate(self.spares):
                if spare is not None:
                    outputs[j] = spare if left % 2 else self.results[j]  # the last step writes the result
            for i in range(carries, carries + scanned):
                inputs[i] = self.operands[i] + at * _row_bytes(self.kernel.operands[i])
            for j in range(carries, len(self.results)):
                outputs[j] = self.results[j] + at * _row_bytes(self.kernel.results[j])
            self.runners["body"].run_at(inputs, outputs)
            for j, spare in enumerate(self.spares):
                if spare is not None:
                    inputs[j] = outputs[j]

    def _while_loop(self) -> None:
        inputs = list(self.operands)
        self._start_turns(inputs, 0, len(self.spares))
        while self._holds(inputs):
            self._turn("body", inputs, 0)
        self._end_turns(inputs, 0)

    def _while_loop_vjp(self) -> None:
        """Forward with all carries kept, then back through them."""
        attrs = self.kernel.attrs
        carries, count = attrs["carries"], len(attrs["body"].inputs)
        rows = [self._row(carries)]
        for (memory, place), operand, block in zip(rows[0], self.operands, self.kernel.operands):
            del memory
            self.driver.copy(place, operand, _nbytes(block))
        captured = self.operands[carries:count]
        while self._holds([*(place for _, place in rows[-1]), *captured]):
            following = self._row(carries)
            self.runners["body"].run_at([*(place for _, place in rows[-1]), *captured], [place for _, place in following])
            rows.append(following)
        given = len(self.operands) - count
        inputs = [*self.operands, *self.results[given:]]
        for j in range(given, len(self.results)):
            self.driver.clear(self.results[j], _nbytes(self.kernel.results[j]))
        self._start_turns(inputs, count, given)
        for row in reversed(rows[:-1]):
            inputs[:carries] = [place for _, place in row]
            self._turn("backward", inputs, count)
        self._end_turns(inputs, count)

    def _row(self, carries: int) -> list[tuple[Any, int]]:
        """Memory for all that is carried, and where it begins."""
        row = [self.driver.allocate(max(1, _nbytes(block))) for block in self.kernel.operands[:carries]]
        return [(memory, self.driver.address(memory)) for memory in row]

    # What is carried: at `first` in the inputs of a program, and at 0 in its outputs

    def _start_turns(self, inputs: list[int], first: int, given: int) -> None:
        """What is computed in place is moved to where the result will be; what was not `given` has been there."""
        for j, spare in enumerate(self.spares):
            if spare is None:
                if j < given:
                    self.driver.copy(self.results[j], inputs[first + j], _nbytes(self.kernel.results[j]))
                inputs[first + j] = self.results[j]

    def _turn(self, program: str, inputs: list[int], first: int) -> None:
        outputs = list(self.results)
        for j, spare in enumerate(self.spares):
            if spare is not None and inputs[first + j] == self.results[j]:
                outputs[j] = spare
        self.runners[program].run_at(inputs, outputs)
        for j in range(len(self.spares)):
            inputs[first + j] = outputs[j]

    def _end_turns(self, inputs: list[int], first: int) -> None:
        for j, spare in enumerate(self.spares):
            if spare is not None and inputs[first + j] != self.results[j]:
                self.driver.copy(self.results[j], inputs[first + j], _nbytes(self.kernel.results[j]))

    def _holds(self, inputs: Sequence[int]) -> bool:
        memory = self.driver.allocate(1)
        self.runners["condition"].run_at(inputs, [self.driver.address(memory)])
        return _truth(self.driver, self.driver.address(memory))


def _truth(driver: Driver, address: int) -> bool:
    """A boolean of the GPU's memory."""
    answer = np.empty(1, np.uint8)
    driver.download(address, answer)
    return bool(answer[0])


def _nbytes(block: Block) -> int:
    return math.prod(block.shape) * block.buffer.dtype.itemsize


def _row_bytes(block: Block) -> int:
    return block.strides[0] * block.buffer.dtype.itemsize
