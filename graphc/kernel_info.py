"""What the kernels of a program compute: of which nodes, from which lines, with how many operations and bytes.

>>> from graphc.parse import parse_graph
>>> from graphc.schedule import Machine, lower
>>> graph = parse_graph('''graph @f(%x: float32[4, 8]) -> float32[4] {
...   %0 = tanh(%x) : float32[4, 8]
...   %1 = sum(%0) {axes = [1]} : float32[4]
...   return %1
... }''')
>>> info = describe(lower(graph, Machine(vector_bytes=64)))[0]
>>> info.ops, info.flops, info.bytes
(('tanh', 'sum'), 64, 144)
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.errors import Location
from graphc.flops import node_flops
from graphc.ir import Graph, Node
from graphc.kernel import Control, Kernel
from graphc.program import Program, print_kernel
from graphc.types import Size


@dataclass(frozen=True, eq=False)
class KernelInfo:
    """One kernel."""

    program: str
    name: str
    kind: str
    """"loops", "gemm", "attention", "attention_backward", "call", "control"; or "packing" of what products read."""
    nodes: tuple[Node, ...] = field(repr=False)
    """Those that it computes, after all passes, in the order of the graph."""
    flops: Size
    bytes: Size
    """Of the buffers that it reads, and of those that it writes."""
    kernel: Kernel | None = field(repr=False)

    @property
    def ops(self) -> tuple[str, ...]:
        """What the nodes are; constants and broadcasts apart."""
        names = [node.op.name for node in self.nodes]
        return tuple(name for name in names if name not in ("constant", "broadcast_to", "reshape")) or tuple(names)

    @property
    def title(self) -> str:
        """A short name: its ops, the first and the last of many."""
        distinct = list(dict.fromkeys(self.ops))
        shown = distinct if len(distinct) < 5 else [*distinct[:2], "..", *distinct[-2:]]
        return "+".join(shown) or ("copy" if self.kind in ("loops", "call") else self.kind)  # those of no node copy a value

    @property
    def locations(self) -> tuple[Location, ...]:
        """The lines that the nodes come from."""
        return tuple(dict.fromkeys(node.location for node in self.nodes if node.location is not None))

    @property
    def text(self) -> str:
        """The kernel as pseudo-code."""
        return "" if self.kernel is None else print_kernel(self.kernel)


@dataclass(frozen=True, eq=False)
class KernelCode:
    """A kernel as a back end writes it."""

    info: KernelInfo
    ir: str
    """In the language of the compiler that it is given to."""
    assembly: str
    """Empty where nobody asked for it."""


@dataclass(frozen=True, slots=True)
class KernelRun:
    """One run of a kernel, in nanoseconds of `time.perf_counter_ns`."""

    kernel: KernelInfo
    start: int
    stop: int
    thread: int
    """As `threading.get_ident` has it."""
    part: bool = False
    """Whether it is what another thread has done of a run."""


def describe(program: Program) -> list[KernelInfo]:
    """The kernels of a program, in the order in which they run."""
    return [_info(program, kernel) for kernel in program.kernels]


def describe_preparation(program: Program) -> list[KernelInfo]:
    """The kernels that compute what a program computes once."""
    return [_info(program, kernel) for kernel in program.preparation]


def inner_kernels(program: Program) -> list[KernelInfo]:
    """The kernels of the programs that kernels of a program run, such as the steps of a loop, each program before those inside
    of it."""
    found: list[KernelInfo] = []
    for kernel in (*program.preparation, *program.kernels):
        for inner in kernel.programs.values() if isinstance(kernel, Control) else ():
            found += [*describe(inner), *inner_kernels(inner)]
    return found


def packing(program: Program) -> KernelInfo:
    """What is done once to operands of products that a back end keeps as it reads them."""
    return KernelInfo(program.name, "packing", "packing", (), 0, program.prepared, None)


def nodes_of(program: Program, kernel: Kernel) -> tuple[Node, ...]:
    """The nodes that a kernel computes. Kernels that were merged have the names of all of them."""
    parts = dict.fromkeys(kernel.name.split("."))
    nodes: Sequence[Node] = [node for part in parts for node in program.origins.get(part, ())]
    return tuple(dict.fromkeys(nodes))


def nodes_of_graph(graph: Graph, kernels: Sequence[KernelInfo]) -> dict[Node, int]:
    """For the nodes of a graph that has been scheduled, the number of the kernel that computes each: of several the first. The
    scheduler may have worked on a copy, to which it has added what checks indices."""
    numbers = {node: number for number, kernel in reversed(list(enumerate(kernels))) for node in kernel.nodes}
    copies: dict[Any, deque[Node]] = defaultdict(deque)
    for node in dict.fromkeys(node for kernel in kernels for node in kernel.nodes):
        copies[_alike(node)].append(node)
    found: dict[Node, int] = {}
    for node in graph.nodes:
        same = node if node in numbers else next(iter(copies.get(_alike(node), ())), None)
        if same is not None:
            found[node] = numbers[same]
            if same is not node and len(copies[_alike(node)]) > 1:
                copies[_alike(node)].popleft()
    return found


def _alike(node: Node) -> Any:
    return node.op.name, tuple(value.type for value in (*node.operands, *node.results)), node.location


def _info(program: Program, kernel: Kernel) -> KernelInfo:
    nodes = nodes_of(program, kernel)
    traffic: Size = 0
    for buffer, accesses in kernel.accesses.items():
        if buffer.role != "local":
            traffic += buffer.size * buffer.dtype.itemsize * (bool(accesses.loads) + bool(accesses.stores))
    flops = sum((node_flops(node) for node in nodes), start=0)
    return KernelInfo(program.name, kernel.name, _KINDS.get(type(kernel).__name__, ""), nodes, flops, traffic, kernel)


_KINDS = {"Loops": "loops", "Gemm": "gemm", "Attention": "attention", "AttentionBackward": "attention_backward",
          "Call": "call", "Control": "control"}  # fmt: skip
