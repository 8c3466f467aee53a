"""From a graph to a native function over a planned arena."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from graphc.backend import Layout
from graphc.backends.llvm import host, kernel_clock
from graphc.backends.llvm.artifact import ENTRY, PRECOMPUTE, Artifact
from graphc.backends.llvm.artifact_cache import artifact_key, keep_artifact, kept_artifact
from graphc.backends.llvm.host import FAILED, HostCalls, native_code, native_symbol, take_error
from graphc.backends.llvm.jit import NativeModule, compile_units, load_units
from graphc.backends.llvm.runtime import get_num_threads, parallel_for_address, set_num_threads
from graphc.backends.llvm.sizes import PREPARE
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.workspace import Workspace
from graphc.config import note
from graphc.errors import DimError
from graphc.ir import Graph
from graphc.memory import ALIGNMENT
from graphc.passes.order import DEFAULT
from graphc.sizes import Facts, current_facts, relying_on

if TYPE_CHECKING:
    from graphc.backends.llvm.entry import NativeEntry
    from graphc.kernel import Call
    from graphc.kernel_info import KernelCode, KernelRun
    from graphc.native.interface import ObjectCode, ObjectRequest
    from graphc.program import Program
    from graphc.specs import CallSpec, EagerSpec, EntrySpec, RecordedSpec, RuleSpec, SubscriptSpec, TensorClass, ViewSpec

# Programs that run saved graphs, whose code is on disk, load neither what makes code nor what serves the front end: functions
# below import it.


class LLVMExecutable:
    """A compiled graph: one native function. `program` makes its kernels anew, for people to look at."""

    def __init__(self, graph: Graph, made: Artifact, module: NativeModule, program: Callable[[], Program]) -> None:
        self.inputs = tuple(v.type for v in graph.inputs)
        self.outputs = tuple(v.type for v in graph.outputs)
        self.artifact = made
        self.module = module
        self.address = module.address(ENTRY)
        self._program = program
        self._precompute = module.address(PRECOMPUTE) if made.prepared else None
        self._prepare = None if made.symbols is None else module.function(PREPARE, ctypes.c_int64, ctypes.c_void_p)
        self.workspace = Workspace(made.arena)
        self._host = HostCalls(made.calls)
        self.constants = (ctypes.c_void_p * (len(made.constants) + 2))(*map(_address, made.constants), self._host.key, 0)
        self._clock: kernel_clock.Clock | None = None
        kernel_clock.register(self)

    @property
    def key(self) -> int:
        """A number that no other program of this process has."""
        return self._host.key

    def record(self, wanted: bool) -> None:
        """Have kernels recorded from the next run on, or not; see `kernel_clock`."""
        if wanted and self._clock is None:
            self._clock = kernel_clock.Clock(self.key)
        self.constants[len(self.constants) - 1] = self._clock.address if wanted and self._clock is not None else 0

    @property
    def program(self) -> Program:
        """The kernels. They are not kept: this takes as long as to compile the graph."""
        return self._program()

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Compute into `outputs`; other Python threads go on meanwhile, and may run the same executable. A DimError where
        an index is out of bounds, and whatever an op raises that Python computes."""
        self.run_at(inputs, outputs, None)

    @property
    def preparation(self) -> LLVMPreparation | None:
        """What is computed once, if anything is."""
        return None if self._precompute is None else LLVMPreparation(self)

    def at(self, sizes: Mapping[str, int]) -> LLVMExecutable | LLVMAtSizes:
        """The same for symbolic sizes that are these numbers; the facts of the program must hold for them."""
        symbols = self.artifact.symbols
        if self._prepare is None or symbols is None:
            return self
        table = (ctypes.c_int64 * self.artifact.words)(*(sizes[name] for name in symbols))
        arena = self._prepare(table)
        assert arena >= 0, f"{self.artifact.name} is not for {dict(sizes)}"
        return LLVMAtSizes(self, sizes, table, arena)

    def run_at(
        self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], prepared: np.ndarray | None,
        sizes: int | None = None, arena: int | None = None,
    ) -> None:
        """Run with the table of sizes at this address, and with an arena of so many bytes."""
        if prepared is None and self._precompute is not None:
            prepared = self.prepare_at(inputs, sizes, arena)
        self._call(self.address, inputs, outputs, prepared, sizes, arena)

    def prepare_at(self, inputs: Sequence[np.ndarray], sizes: int | None = None, arena: int | None = None) -> np.ndarray:
        """Compute what is computed once, in the same way."""
        assert self._precompute is not None, f"{self.artifact.name} computes nothing once"
        memory = aligned(self.artifact.prepared)
        self._call(self._precompute, inputs, (), memory, sizes, arena)
        return memory

    def _call(
        self, function: int, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], prepared: np.ndarray | None,
        sizes: int | None, arena: int | None,
    ) -> None:
        addresses = [*map(_address, inputs)]
        if prepared is not None:
            addresses.append(_address(prepared))
        if sizes is not None:
            addresses.append(sizes)
        sources = (ctypes.c_void_p * len(addresses))(*addresses)
        targets = (ctypes.c_void_p * len(self.outputs))(*map(_address, outputs))
        status = self.workspace.run(function, sources, targets, self.constants, arena)
        if status:
            self.failed(status)

    def failed(self, status: int) -> NoReturn:
        """Raise the error for what a run has returned, if not 0."""
        if status == FAILED:
            raise take_error()
        failure = self.artifact.failures[status - 1]
        raise DimError(failure.problem, expected=failure.expected, at=failure.at)

    def entry(self, spec: EntrySpec) -> NativeEntry | None:
        """A native entry; None where the interpreter or the spec does not allow for one."""
        from graphc.backends.llvm.entry import make_entry

        return make_entry(
            spec,
            self.outputs,
            run=self.address,
            constants=ctypes.addressof(self.constants),
            workspace=self.workspace,
            nanoseconds=self.artifact.nanoseconds(),
            failed=self.failed,
            alive=[self],
            prepares=self._precompute is not None,
        )

    def source(self) -> str:
        """The kernels, as text."""
        return str(self.program)


class LLVMPreparation:
    """What is computed once of steady inputs, for sizes in a table, if any, and with an arena of so many bytes."""

    def __init__(self, code: LLVMExecutable, sizes: int | None = None, arena: int | None = None) -> None:
        self.key = code
        self.inputs = code.artifact.prepared_from
        self._where = sizes, arena

    def prepare(self, inputs: Sequence[np.ndarray]) -> np.ndarray:
        """What runs with the same contents of these inputs need, in memory of its own."""
        return self.key.prepare_at(inputs, *self._where)

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], prepared: np.ndarray) -> None:
        """As the `run` of the executable, with what has been prepared."""
        self.key.run_at(inputs, outputs, prepared, *self._where)


class LLVMAtSizes:
    """Code for symbolic sizes, with numbers in their place."""

    def __init__(self, code: LLVMExecutable, sizes: Mapping[str, int], table: ctypes.Array[ctypes.c_int64], arena: int) -> None:
        self.inputs = tuple(t.bind(sizes) for t in code.inputs)
        self.outputs = tuple(t.bind(sizes) for t in code.outputs)
        self._code = code
        self._sizes = sizes
        self._table = table
        self._arena = arena

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """As the `run` of all executables."""
        self._code.run_at(inputs, outputs, None, ctypes.addressof(self._table), self._arena)

    @property
    def preparation(self) -> LLVMPreparation | None:
        """That of the code for all sizes."""
        if self._code.preparation is None:
            return None
        return LLVMPreparation(self._code, ctypes.addressof(self._table), self._arena)

    def at(self, sizes: Mapping[str, int]) -> LLVMAtSizes:
        """There are no symbols left."""
        del sizes
        return self

    def entry(self, spec: EntrySpec) -> NativeEntry | None:
        """A native entry for these sizes."""
        from graphc.backends.llvm.entry import make_entry

        code = self._code
        with relying_on(Facts(self._sizes)):
            nanoseconds = code.artifact.nanoseconds()
        return make_entry(
            spec,
            self.outputs,
            run=code.address,
            constants=ctypes.addressof(code.constants),
            workspace=code.workspace,
            nanoseconds=nanoseconds,
            failed=code.failed,
            alive=[self],
            prepares=code.preparation is not None,
            sizes=ctypes.addressof(self._table),
            arena=self._arena,
        )


class LLVMBackend:
    """Makes native code for one target."""

    name = "llvm"

    def compile(self, graph: Graph, layout: Layout, passes: Sequence[str] = DEFAULT) -> LLVMExecutable:
        """Compile a graph for the host's CPU, or load what has been compiled before."""
        target, facts = Target.host(), current_facts()
        example = None if facts is None else facts.example

        def program() -> Program:
            from graphc.backends.llvm.compilation import make_program

            with relying_on(None if example is None else Facts(example)):
                return make_program(graph, layout, passes, target)

        key = artifact_key(graph, layout, passes, target)
        loaded = None if key is None else _loaded(key, graph, target, program)
        if loaded is not None:
            return loaded
        from graphc.backends.llvm.compilation import make_program, make_units

        made, units = make_units(make_program(graph, layout, passes, target), target)
        module = compile_units(units, target, imports=_imports(made.calls, target), name=made.name)
        if key is not None:
            keep_artifact(key, made, graph)
        return LLVMExecutable(graph, made, module, program)

    def source(self, graph: Graph, layout: Layout | None = None) -> str:
        """The kernels for the host's CPU, as pseudo-code."""
        from graphc.backends.llvm.compilation import make_program

        return str(make_program(graph, layout or Layout.plain(graph), DEFAULT, Target.host()))

    def code(self, graph: Graph, assembly: bool = True) -> list[KernelCode]:
        """The kernels for the host's CPU with their LLVM IR, before LLVM has optimised it, and assembly."""
        from graphc.backends.llvm.compilation import make_program
        from graphc.backends.llvm.listing import listing

        return listing(make_program(graph, Layout.plain(graph), (), Target.host()), Target.host(), assembly)

    def eager(self, spec: EagerSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """An eager op of any size, called natively."""
        from graphc.backends.llvm.eager import make_eager

        return make_eager(spec, Target.host())

    def view(self, spec: ViewSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """Views of tensors, made natively."""
        from graphc.backends.llvm.eager import make_view

        return make_view(spec)

    def subscript(self, spec: SubscriptSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """Parts of tensors, made natively."""
        from graphc.backends.llvm.eager import make_subscript

        return make_subscript(spec)

    def engine(self, tensors: TensorClass) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
        """Nodes of the tape, run natively."""
        from graphc.backends.llvm.backward import make_engine

        return make_engine(tensors)

    def rules(self, spec: RuleSpec | CallSpec) -> Any | None:
        """The rules of elementwise ops as loops, and calls of compiled graphs."""
        from graphc.backends.llvm.backward import make_call, make_rules
        from graphc.specs import RuleSpec

        return make_rules(spec, Target.host()) if isinstance(spec, RuleSpec) else make_call(spec)

    def recorded(self, spec: RecordedSpec) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """Calls of graphs that are recorded natively."""
        from graphc.backends.llvm.backward import make_recorded

        return make_recorded(spec)

    def object_code(self, request: ObjectRequest, target: str | None) -> ObjectCode:
        """An object file for a target, by its name (see `Target.for_export`), or for this machine."""
        from graphc.backends.llvm.native import object_code

        return object_code(request, Target.for_export(target))

    def target(self) -> Target:
        """The CPU that code is made for."""
        return Target.host()

    def multiply_adds(self) -> tuple[Callable[[int], float], int]:
        """See `speed_limits`."""
        from graphc.backends.llvm import speed_limits

        return speed_limits.multiply_adds()

    def copies(self) -> tuple[list[Callable[[int, int, int, int], None]], int]:
        """See `speed_limits`."""
        from graphc.backends.llvm import speed_limits

        return speed_limits.copies()

    def start_recording(self) -> None:
        """Record when kernels run, on all threads; see `graphc.backend.RecordsKernels`."""
        kernel_clock.start()

    def stop_recording(self) -> tuple[list[KernelRun], int]:
        """Record no more."""
        return kernel_clock.stop()

    def set_num_threads(self, threads: int) -> None:
        """How many threads kernels run on, the caller's included."""
        set_num_threads(threads)

    def get_num_threads(self) -> int:
        """How many threads kernels run on."""
        return get_num_threads()


def _loaded(key: str, graph: Graph, target: Target, program: Callable[[], Program]) -> LLVMExecutable | None:
    """What is kept of a graph on disk, if all of it is there."""
    start = time.perf_counter()
    made = kept_artifact(key, graph)
    if made is None:
        return None
    module = load_units(made.units, target, imports=_imports(made.calls, target), name=made.name)
    if module is None:
        return None
    facts = current_facts()
    if facts is not None:
        facts.at_least_zero.update(made.facts)
    note(1, f"graphc: {graph.name}: loaded from the disk cache in {1e3 * (time.perf_counter() - start):.1f} ms")
    return LLVMExecutable(graph, made, module, program)


def _imports(calls: Sequence[Call], target: Target) -> dict[str, int]:
    """The addresses of what programs need from outside, and of the native code of these ops."""
    imports = {"parallel_for": parallel_for_address(), **host.imports()}
    natives = {call.op: native_code(call.op, target) for call in calls if call.op.native is not None}
    return imports | {native_symbol(op): code.address("kernel") for op, code in natives.items()}


def aligned(nbytes: int) -> np.ndarray:
    """Memory that begins at the start of a line of the cache."""
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -_address(memory) % ALIGNMENT
    return memory[start : start + nbytes]


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
