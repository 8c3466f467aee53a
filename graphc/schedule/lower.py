"""From a tensor graph to a program of kernels over planned memory."""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any

import graphc.index as ix
import graphc.ops as ops
from graphc.config import config
from graphc.dims import Dim
from graphc.errors import CompileError
from graphc.expression import Buffer
from graphc.ir import Graph, Node, Value
from graphc.kernel import Block, Call, Control, Kernel
from graphc.memory import place_temporaries
from graphc.program import Check, Program, verify_kernel
from graphc.schedule.attention import attention_kernels
from graphc.schedule.checks import with_checks
from graphc.schedule.control import control_kernel, is_control, must_be_plain
from graphc.schedule.elements import Stored, stored
from graphc.schedule.fusion import Group, Root, is_closed, is_in_memory, plan, runs_on_host
from graphc.schedule.layout import Order, choose_orders, orders_of_attention, strides_in, within_margins
from graphc.schedule.loops import map_kernel, margin_kernels, reduction_kernels
from graphc.schedule.machine import Machine
from graphc.schedule.merge import merge_kernels
from graphc.schedule.preparation import divide, keep, steady_values
from graphc.schedule.products import product_kernels
from graphc.schedule.running import running_kernel
from graphc.schedule.scatter import scatter_kernel
from graphc.sizes import NumberNeeded, current_facts, greatest
from graphc.types import DType, Size, bool_


def lower(
    graph: Graph,
    machine: Machine,
    *,
    strides: Sequence[tuple[Size, ...] | None] | None = None,
    donated: Mapping[int, int] | None = None,
    steady: Collection[int] = (),
) -> Program:
    """Schedule a graph whose ops all have a lowering, and whose sizes are numbers; or, while facts are relied on, symbols:
    then the program is right for all sizes for which the facts hold that are noted. NumberNeeded where none can be made.

    strides
        For each input, its strides in elements; None for row-major.
    donated
        Output number -> input number: the output is written over that input's memory.
    steady
        Numbers of inputs that are the same at most calls, none of them donated: what depends on them alone goes to the
        program's `preparation`.
    """
    strides, donated = strides or [None] * len(graph.inputs), dict(donated or {})
    return _lower(graph, machine, strides, donated, {}, steady)[0]


def _lower(
    graph: Graph,
    machine: Machine,
    strides: Sequence[tuple[Size, ...] | None],
    donated: dict[int, int],
    wished: Mapping[int, int],
    steady: Collection[int] = (),
) -> tuple[Program, set[int]]:
    """`wished` are further donations, which are made where nothing has to be copied for it; returns those outputs, too."""
    _check(graph, strides, {**donated, **wished})
    graph, checked = with_checks(graph, bounded=machine.threads)
    indirect: set[int] = set()
    granted = dict(wished)
    while True:
        lowering = _Lowering(graph, checked, machine, strides, {**donated, **granted}, granted.keys(), indirect, steady)
        lowering.make_kernels()
        unsafe = lowering.unsafe_donations() - indirect
        if not unsafe:
            return lowering.program(), set(granted)
        indirect |= unsafe - granted.keys()
        granted = {j: i for j, i in granted.items() if j not in unsafe}


def _check(graph: Graph, strides: Sequence[tuple[Size, ...] | None], donated: Mapping[int, int]) -> None:
    """CompileError for sizes that are not known, and for a layout that does not fit the graph."""
    for value in graph.values():
        if not value.type.is_static and current_facts() is None:
            raise CompileError(f"graph {graph.name!r} has sizes that are not known: {value!r}", hint="bind them first")
    if len(strides) != len(graph.inputs) or any(s and len(s) != v.ndim for s, v in zip(strides, graph.inputs)):
        raise CompileError(
            f"graph {graph.name!r}: strides that do not fit the inputs",
            expected=f"one for each dimension of {list(graph.inputs)}", got=str(strides),
        )  # fmt: skip
    for j, i in donated.items():
        if graph.outputs[j].type != graph.inputs[i].type:
            raise CompileError(
                f"graph {graph.name!r}: output {j} cannot be written over input {i}",
                expected=str(graph.inputs[i].type), got=str(graph.outputs[j].type),
            )  # fmt: skip
    if len(set(donated.values())) != len(donated):
        raise CompileError(f"graph {graph.name!r}: two outputs would be written over one input", got=str(dict(donated)))


class _Lowering:
    """One attempt at a program. The graph's last outputs are what is to be checked, for the nodes `checked`; `indirect`
    outputs are computed elsewhere and copied to their place at the end, and so are those that it adds. Donations that are
    `optional` are given up instead."""

    def __init__(
        self,
        graph: Graph,
        checked: Sequence[Node],
        machine: Machine,
        strides: Sequence[tuple[Size, ...] | None],
        donated: dict[int, int],
        optional: Collection[int],
        indirect: set[int],
        steady: Collection[int],
    ) -> None:
        self.graph = graph
        self.steady = steady
        self.steady_values: Collection[Value] = ()
        self.machine = machine
        self.donated = donated
        self.optional = optional
        self.indirect = indirect
        self.memory: dict[Value, Stored] = {}
        self.temporaries: list[Buffer] = []
        self.constants: list[Buffer] = []
        self.kernels: list[Kernel] = []
        self.origins: dict[str, list[Node]] = {}
        self.inputs: list[Buffer] = []
        for i, (value, layout) in enumerate(zip(graph.inputs, strides, strict=True)):
            buffer = Buffer(f"in{i}", value.dtype, _extent(value.shape, layout), "input")
            self.inputs.append(buffer)
            self.memory[value] = stored(value, buffer) if layout is None else Stored(buffer, layout)
        results = graph.outputs[: len(graph.outputs) - len(checked)]
        self.outputs = [
            Buffer(f"out{j}", v.dtype, _extent(v.shape, self._layout(j, strides)), "output") for j, v in enumerate(results)
        ]
        self.checks = [self._check_of(node, f"check{k}") for k, node in enumerate(checked)]
        self.outputs += [check.buffer for check in self.checks]
        self.strides = strides

    def _check_of(self, node: Node, name: str) -> Check:
        size, axis = node.attrs["size"], node.attrs["axis"]
        problem = f"{node.attrs['name']}: an index is out of bounds"
        return Check(self.scratch(name, bool_, 1), size, problem, f"0 <= index < {size} along dimension {axis}", node.location)

    def _layout(self, output: int, strides: Sequence[tuple[Size, ...] | None]) -> tuple[Size, ...] | None:
        """A donated output has the strides of its input."""
        return strides[self.donated[output]] if output in self.donated else None

    def _output(self, j: int) -> Stored:
        value = self.graph.outputs[j]
        layout = self._layout(j, self.strides)
        return stored(value, self.outputs[j]) if layout is None else Stored(self.outputs[j], layout)

    def make_kernels(self) -> None:
        """Plan what is written to memory, and make the kernels that compute it."""
        for node in self.graph.nodes:
            if any(map(is_in_memory, node.results)):
                data = node.attrs["value"]
                buffer = Buffer(f"const{len(self.constants)}", node.result.dtype, data.size, "constant", data)
                self.constants.append(buffer)
                self.memory[node.result] = stored(node.result, buffer)
        self.steady_values = steady_values(self.graph, self.steady)
        groups = self._late_updates(plan(self.graph, self.steady_values, self.machine.threads))
        roots = [root for group in groups for root in group.roots]
        closed = {root.value for root in roots if root.anchor is not None and is_closed(root.anchor)}
        orders = {**choose_orders(groups, closed, set(self.graph.outputs)), **orders_of_attention(self.graph)}
        self.indirect |= self._too_early(groups)
        direct: dict[Value, int] = {}
        for j, value in enumerate(self.graph.outputs):
            if j not in self.indirect and value not in orders:
                direct.setdefault(value, j)
        whole = self._reshaped(roots, direct, orders)
        placed = set(whole.values())
        targets: dict[Value, Stored] = {}
        for root in roots:
            value = root.value
            if value in direct and is_control(root.anchor) and self._layout(direct[value], self.strides) is not None:
                del direct[value]  # programs write what is row-major
            if value in whole:
                targets[value] = stored(value, self.outputs[direct[whole[value]]])
            else:
                targets[value] = self._output(direct[value]) if value in direct else self.temporary(value, orders.get(value))
        self.origins = _origins(self.graph, groups)
        within = within_margins(groups, orders, set(self.graph.outputs))
        for value, padded in within.items():
            self.temporaries.remove(targets[value].buffer)
            targets[value] = _inside(targets[padded], padded)
        for number, group in enumerate(groups):
            value = group.roots[0].value
            if value in placed and len(group.roots) == 1:
                pass  # its numbers are in their place
            elif value.node is not None and within.get(value.node.operands[0] if value.node.operands else value) is value:
                self.kernels += margin_kernels(f"k{number}", value, targets[value], self.machine)
            else:
                self.kernels += self._kernels(f"k{number}", group, targets)
            for root in group.roots:
                self.memory[root.value] = targets[root.value]
        # what no kernel has computed in its place: inputs, constants, values returned twice, indirect outputs
        held = {j: self._held(j) for j in sorted(self.indirect)}
        for j, value in enumerate(self.graph.outputs):
            if j in held:
                continue
            if value not in targets or direct.get(value) != j:
                self._copy(f"copy{j}", value, self._output(j))
        for j, value in enumerate(self.graph.outputs):
            if j in held:
                self.memory[value] = held[j]
                self._copy(f"update{j}", value, self._output(j))

    def _reshaped(
        self, roots: Sequence[Root], direct: Mapping[Value, int], orders: Mapping[Value, Order]
    ) -> dict[Value, Value]:
        """Values whose numbers stand as those of an output that is made of them by reshaping: they can be computed there."""
        anchors = {root.value for root in roots if root.anchor is not None}
        found: dict[Value, Value] = {}
        for output, j in direct.items():
            value = output
            while value.node is not None and value.node.op is ops.reshape and value not in anchors:
                value = value.node.operands[0]
            free = value in anchors and value not in direct and value not in orders and value not in self.steady_values
            if value is not output and free and j not in self.donated:
                found.setdefault(value, output)
        return found

    def program(self) -> Program:
        """The finished program: kernels merged, memory planned."""
        same_memory = {self.outputs[j]: self.inputs[i] for j, i in self.donated.items()}
        steady = [self.inputs[i] for i in sorted(self.steady)]
        division = divide(self.kernels, steady, [check.buffer for check in self.checks])
        prepared = keep(division.kept)
        preparation, temporaries = merge_kernels(division.once, self._in_arena(division.once), {}, self.machine)
        kernels, others = merge_kernels(division.always, self._in_arena(division.always), same_memory, self.machine)
        if config.verify:
            for kernel in (*preparation, *kernels):
                verify_kernel(kernel)
        used = {buffer for kernel in (*preparation, *kernels) for buffer in kernel.accesses}
        constants = [constant for constant in self.constants if constant in used]
        arena = place_temporaries(kernels, others)
        if temporaries:
            arena = greatest(place_temporaries(preparation, temporaries), arena)
        return Program(
            self.graph.name, tuple(self.inputs), tuple(b for b in self.outputs if b.role == "output"), tuple(constants),
            (*temporaries, *others), tuple(kernels), arena,
            (*self.checks, *(check for kernel in kernels if isinstance(kernel, Control) for check in kernel.checks)),
            _symbols(self.graph), current_facts(), tuple(preparation), tuple(steady), prepared, self.origins,
        )

    def _in_arena(self, kernels: Sequence[Kernel]) -> list[Buffer]:
        """The temporaries of some kernels."""
        used = {buffer for kernel in kernels for buffer in kernel.accesses}
        return [buffer for buffer in self.temporaries if buffer in used and buffer.role == "temporary"]

    def _held(self, j: int) -> Stored:
        """A place in the arena that has the contents of an indirect output."""
        value = self.graph.outputs[j]
        known = self.memory.get(value)
        if known is not None and known.buffer.role == "temporary":
            return known
        held = self.temporary(value)
        self._copy(f"hold{j}", value, held)
        return held

    def _copy(self, name: str, value: Value, target: Stored) -> None:
        if not value.dtype.has_code:
            source, to = self._block(value, self.memory[value]), self._block(value, target)
            self.kernels.append(Call(name, ops.cast, {"dtype": value.dtype}, (source,), (to,)))
            return
        self.kernels.append(map_kernel(name, [value], self.memory, {value: target}, self.machine))

    def temporary(self, value: Value, order: Order | None = None) -> Stored:
        """A place in the arena for a whole value, row-major or in another order."""
        buffer = self.scratch(f"t{len(self.temporaries)}", value.dtype, value.type.size)
        return stored(value, buffer) if order is None else Stored(buffer, strides_in(order, value.shape))

    def scratch(self, name: str, dtype: DType, size: Size) -> Buffer:
        """A buffer in the arena."""
        buffer = Buffer(name, dtype, size, "temporary")
        self.temporaries.append(buffer)
        return buffer

    def _kernels(self, name: str, group: Group, targets: dict[Value, Stored]) -> list[Kernel]:
        root = group.roots[0]
        node = root.anchor
        values = [r.value for r in group.roots]
        if node is not None and runs_on_host(node):
            _need_numbers(node.attrs.values())
            plain = range(len(node.operands)) if node.op.native is not None else ()
            operands, copies = self._operands(name, node, plain)
            results = tuple(self._block(v, targets[v]) for v in node.results)
            return [*copies, Call(name, node.op, node.attrs, operands, results)]
        if node is None:
            return [map_kernel(name, values, self.memory, targets, self.machine)]
        if is_control(node):
            return self._control(name, node, targets)
        if node.op.kernel == "contract":
            return product_kernels(name, node, values, self.memory, targets, self.machine, self.scratch, self.steady_values)
        if node.op.kernel == "attention":
            return attention_kernels(name, node, self.memory, targets, self.machine, self.temporary)
        if node.op.kernel == "running":
            return [running_kernel(name, node, values, self.memory, targets, self.machine)]
        if node.op.kernel == "scatter":
            base, result = node.operands[0], node.result
            own = targets[result] if root.value is result else self.temporary(result)
            copy = map_kernel(f"{name}.base", [base], self.memory, {base: own}, self.machine)
            kernels: list[Kernel] = [copy, scatter_kernel(name, node, self.memory, own, self.machine)]
            if root.value is not result:
                # what is computed from the sums cannot begin before the last addition
                memory = {**self.memory, result: own}
                kernels.append(map_kernel(f"{name}.map", [root.value], memory, targets, self.machine))
            return kernels
        return reduction_kernels(name, node, values, self.memory, targets, self.machine, self.scratch)

    def _control(self, name: str, node: Node, targets: dict[Value, Stored]) -> list[Kernel]:
        _need_numbers(node.attrs.values())
        operands, copies = self._operands(name, node, must_be_plain(node))
        results = [self._block(v, targets[v]) for v in node.results]

        def program(graph: Graph, strides: Sequence[Any], wished: Mapping[int, int]) -> tuple[Program, set[int]]:
            return _lower(graph, self.machine, strides, {}, wished)

        kernel = control_kernel(name, node, operands, results, program, self.scratch)
        self.constants += kernel.constants
        return [*copies, kernel]

    def _operands(self, name: str, node: Node, plain: Container[int]) -> tuple[tuple[Block, ...], list[Kernel]]:
        """Where the operands are, and what copies those in `plain` to where they are row-major."""
        copies: list[Kernel] = []
        operands: list[Block] = []
        for i, value in enumerate(node.operands):
            place = self.memory[value]
            if i in plain and place.strides != ix.contiguous_strides(value.shape):
                place = self.temporary(value)
                if value.dtype.has_code:
                    copies.append(map_kernel(f"{name}.row_major{i}", [value], self.memory, {value: place}, self.machine))
                else:
                    source, to = self._block(value, self.memory[value]), self._block(value, place)
                    copies.append(Call(f"{name}.row_major{i}", ops.cast, {"dtype": value.dtype}, (source,), (to,)))
            operands.append(self._block(value, place))
        return tuple(operands), copies

    def _block(self, value: Value, place: Stored) -> Block:
        _need_numbers((value.shape, place.strides, place.offset))
        return Block(place.buffer, value.shape, place.strides, place.offset)

    def _late_updates(self, groups: list[Group]) -> list[Group]:
        """Groups that write over donated inputs, and that no other group reads, wait until the old contents have been read by
        all others, and nothing can fail any more; no longer, as what they are computed from takes memory meanwhile."""
        outputs = set(self.graph.outputs)
        donated = {self.graph.outputs[j]: self.graph.inputs[i] for j, i in self.donated.items()}
        checked = set(self.graph.outputs[len(self.graph.outputs) - len(self.checks) :]) if self.checks else set()
        read = {value for group in groups for value in group.touched - {root.value for root in group.roots}}
        values = [{root.value for root in group.roots} for group in groups]
        touching: dict[Value, list[int]] = {}
        for k, group in enumerate(groups):
            for value in group.touched:
                touching.setdefault(value, []).append(k)
        def can_fail(group: Group) -> bool:
            return any(root.anchor is not None and is_closed(root.anchor) for root in group.roots)

        passed = max((k for k, group in enumerate(groups) if can_fail(group) or not values[k].isdisjoint(checked)), default=-1)

        computed = {value: k for k, own in enumerate(values) for value in own}

        def place(k: int) -> tuple[int, bool]:
            own = values[k]
            late = own <= outputs and not own.isdisjoint(donated) and own.isdisjoint(read)
            if not late:
                return k, False
            ready = max((computed[value] for value in groups[k].touched - own if value in computed), default=-1)
            others = (j for v in own if v in donated for j in touching.get(donated[v], ()) if j != k)
            return max(ready, passed, *others), True

        return [groups[k] for k in sorted(range(len(groups)), key=place)]

    def _too_early(self, groups: list[Group]) -> set[int]:
        """Outputs that would overwrite what later groups read, or do so before all checks have passed: those of the unsafe ones
        that can be told before there are kernels."""
        checked = set(self.graph.outputs[len(self.graph.outputs) - len(self.checks) :]) if self.checks else set()
        computed = {root.value: k for k, group in enumerate(groups) for root in group.roots}
        last = {value: k for k, group in enumerate(groups) for value in group.touched}
        passed = max((computed[value] for value in checked if value in computed), default=-1)
        found = set()
        for j, i in self.donated.items():
            place = computed.get(self.graph.outputs[j])
            if place is None or j in self.optional:
                continue
            if place <= passed or place < last.get(self.graph.inputs[i], -1):
                found.add(j)
        return found

    def unsafe_donations(self) -> set[int]:
        """The outputs that would overwrite what is still to be read, by them or later, or before all checks have passed."""
        loads: dict[Buffer, list[int]] = {}
        stores: dict[Buffer, list[int]] = {}
        for number, kernel in enumerate(self.kernels):
            for buffer, accesses in kernel.accesses.items():
                if accesses.loads:
                    loads.setdefault(buffer, []).append(number)
                if accesses.stores:
                    stores.setdefault(buffer, []).append(number)
        checked = max((stores[check.buffer][-1] for check in self.checks), default=-1)
        controls = [number for number, kernel in enumerate(self.kernels) if isinstance(kernel, Control) and kernel.checks]
        checked = max((checked, *controls))
        unsafe = set()
        for j, i in self.donated.items():
            old, new = self.inputs[i], self.outputs[j]
            if new in stores and stores[new][0] <= checked:
                unsafe.add(j)
            if old not in loads or new not in stores or loads[old][-1] < stores[new][0]:
                continue
            if stores[new] != [loads[old][-1]] or not _in_place(self.kernels[loads[old][-1]], old, new):
                unsafe.add(j)
        return unsafe


def _origins(graph: Graph, groups: Sequence[Group]) -> dict[str, list[Node]]:
    """The nodes that groups compute, in the graph's order, by the names of their kernels."""
    roots = {root.value for group in groups for root in group.roots}
    places: dict[Node, list[int]] = {}
    for number, group in enumerate(groups):
        own = {root.value for root in group.roots}
        for value in group.touched:
            if value.node is not None and (value in own or value not in roots):
                places.setdefault(value.node, []).append(number)
    origins: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for number in dict.fromkeys(places.get(node, ())):
            origins.setdefault(f"k{number}", []).append(node)
    return origins


def _inside(place: Stored, padded: Value) -> Stored:
    """Where that stands which is padded."""
    assert padded.node is not None
    start = sum(low * stride for low, stride in zip(padded.node.attrs["low"], place.strides))
    return Stored(place.buffer, place.strides, place.offset + start)


def _in_place(kernel: Kernel, old: Buffer, new: Buffer) -> bool:
    """Whether a kernel reads `old` only at the place of `new` that it is about to write."""
    places = kernel.accesses[new].stores
    return len(places) == 1 and set(kernel.accesses[old].loads) <= set(places)


def _symbols(graph: Graph) -> tuple[str, ...]:
    """The symbols that the inputs tell."""
    return tuple(sorted({name for value in graph.inputs for size in value.shape if isinstance(size, Dim)
                         for name in size.symbols()}))


def _need_numbers(attributes: Iterable[object]) -> None:
    """NumberNeeded if there are symbolic sizes among attributes."""
    for attribute in attributes:
        if isinstance(attribute, Dim):
            raise NumberNeeded(attribute)
        if isinstance(attribute, tuple):
            _need_numbers(attribute)
        if isinstance(attribute, Graph):
            _need_numbers(value.shape for value in attribute.values())


def _extent(shape: Sequence[Size], strides: tuple[Size, ...] | None) -> Size:
    """How many elements of memory a tensor spans."""
    if 0 in shape:
        return 0
    if strides is None:
        return math.prod(shape)
    return sum((size - 1) * abs(stride) for size, stride in zip(shape, strides)) + 1
