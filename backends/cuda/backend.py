"""From a graph to kernels on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from graphc.backend import Layout
from graphc.backends.cuda import kernel_clock
from graphc.backends.cuda.driver import Driver
from graphc.backends.cuda.program import (
    CallStep,
    ControlStep,
    KernelStep,
    ProductStep,
    Rendered,
    render,
    translation_unit,
)
from graphc.backends.cuda.run import Runner
from graphc.ir import Graph
from graphc.kernel_info import KernelRun
from graphc.passes import pipeline
from graphc.passes.order import DEFAULT
from graphc.schedule import Machine, lower
from graphc.specs import CallSpec, EagerSpec, EntrySpec, RecordedSpec, RuleSpec, SubscriptSpec, TensorClass, ViewSpec
from graphc.types import TensorType

MACHINE = Machine(vector_bytes=512, threads=True, local_bytes=40 << 10)
"""Lanes are threads: of a warp, or of a few."""


_OTHER = {"attention": "attention_of_halves"}
PASSES = tuple(_OTHER.get(name, name) for name in DEFAULT if name != "layout")
"""Operands go through shared memory, in which it does not matter in which blocks they stand; tensor cores multiply halves."""


class CUDAExecutable:
    """A graph whose kernels run one after another on a GPU. `sizes` are those of its symbols; as long as they are not known, it
    runs by what `at` returns."""

    def __init__(
        self, inputs: Sequence[TensorType], outputs: Sequence[TensorType], runner: Runner,
        sizes: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.inputs = tuple(t.bind(sizes) for t in inputs)
        self.outputs = tuple(t.bind(sizes) for t in outputs)
        self._runner = runner
        symbols = set(runner.program.symbols)
        self._sized = runner.at(sizes) if symbols <= sizes.keys() else None

    def run(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Compute into `outputs`, arrays of the GPU as the inputs are. Kernels are under way when this returns."""
        assert self._sized is not None, "sizes are not known"
        self._sized.run(inputs, outputs)

    @property
    def preparation(self) -> None:
        """None: everything is computed at each run."""

    def at(self, sizes: Mapping[str, int]) -> CUDAExecutable:
        """The same functions for sizes that are these numbers; the facts of the program must hold for them."""
        return self if self._sized is not None else CUDAExecutable(self.inputs, self.outputs, self._runner, sizes)

    def entry(self, spec: EntrySpec) -> None:
        """Everything goes by way of Python."""
        del spec


class CUDABackend:
    """Compiles for the GPU in use."""

    name = "cuda"

    def __init__(self, driver: Driver | None = None) -> None:
        self._driver = driver

    @property
    def driver(self) -> Driver:
        """What memory is taken from, and kernels are launched by; BackendError where there is no GPU."""
        if self._driver is None:
            from graphc.backends.cuda.cupy_driver import CupyDriver

            self._driver = CupyDriver()
        return self._driver

    def compile(self, graph: Graph, layout: Layout, passes: Sequence[str] = PASSES) -> CUDAExecutable:
        """Render the kernels, and compile them; or load them from the disk cache. Sizes that are symbols are arguments of the
        kernels."""
        runner = Runner(rendered(graph, layout, passes, cublas=bool(self.driver.workspace)), self.driver)
        return CUDAExecutable([v.type for v in graph.inputs], [v.type for v in graph.outputs], runner)

    def source(self, graph: Graph, layout: Layout | None = None) -> str:
        """The CUDA C++ of a graph's kernels, with all that they call: those as well that cuBLAS takes the place of where it is
        installed, which a comment says, as it does of ops that have no kernel. That takes neither a GPU nor CuPy."""
        made = rendered(graph, layout)
        kernels = {step.number: step.launch.symbol for step in made.steps if isinstance(step, KernelStep)}
        beside = rendered(graph, layout, cublas=True).steps
        left = dict.fromkeys(kernels[step.number] for step in beside if isinstance(step, ProductStep))
        said = [f"// {symbol}: cuBLAS computes this product instead where it is installed\n" for symbol in left]
        said += [f"// {step.kernel.name}: {_computes(step)}\n" for step in _calls(made)]
        return "".join(said) + translation_unit(made.functions)

    def eager(self, spec: EagerSpec) -> None:
        """Eager ops are kernels of their own."""
        del spec

    def subscript(self, spec: SubscriptSpec) -> None:
        """None: Python makes parts of tensors."""
        del spec

    def view(self, spec: ViewSpec) -> None:
        """None: Python makes views."""

    def engine(self, tensors: TensorClass) -> None:
        """None: Python runs nodes."""
        del tensors

    def rules(self, spec: RuleSpec | CallSpec) -> None:
        """None, as there is no engine."""
        del spec

    def recorded(self, spec: RecordedSpec) -> None:
        """None: Python records."""
        del spec

    def start_recording(self) -> None:
        """Record when kernels run, on all GPUs; see `graphc.backend.RecordsKernels`."""
        kernel_clock.start()

    def stop_recording(self) -> tuple[list[KernelRun], int]:
        """Record no more."""
        return kernel_clock.stop()

    def set_num_threads(self, threads: int) -> None:
        """The GPU has its own."""
        del threads

    def get_num_threads(self) -> int:
        """Python's one, which launches kernels."""
        return 1


def _calls(made: Rendered) -> Iterator[CallStep]:
    """What has no kernels, in loops and branches too."""
    for step in made.steps:
        match step:
            case CallStep():
                yield step
            case ControlStep():
                for inner in step.programs.values():
                    yield from _calls(inner)


def _computes(step: CallStep) -> str:
    if step.library is None:
        return f"the CPU computes this {step.kernel.op.name}, of numbers that are copied there and back"
    by = "CuPy" if not step.library.needs else f"CuPy, with {' and '.join(step.library.needs)},"
    return f"{by} computes this {step.kernel.op.name}"


def rendered(
    graph: Graph, layout: Layout | None = None, passes: Sequence[str] = PASSES, cublas: bool = False
) -> Rendered:
    """The kernels of a graph for inputs of this layout, beside what is left to cuBLAS, if there is one. That takes no GPU."""
    layout = layout or Layout.plain(graph)
    graph = pipeline.run(graph, passes)
    program = lower(graph, MACHINE, strides=layout.strides, donated=dict(layout.donated))
    return render(program, tf32=layout.numerics != "strict", cublas=cublas)
