"""What a traced call comes to: the values that it computes, and what is done with them when it is over."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import graphc.ops as ops
from graphc.autodiff import Joint, divide, extract, with_attention
from graphc.dim_numbers import DimNumber
from graphc.dims import Dim
from graphc.errors import TraceError
from graphc.frontend import device_arrays, engine
from graphc.frontend.aliases import Again, Alias, alias_of, completed, shared_bases
from graphc.frontend.call_key import is_used_up
from graphc.frontend.device_arrays import byte_bounds, index_of, is_array, known_on_host
from graphc.frontend.device_ops import copied, gpu_of_backend, moved
from graphc.frontend.entry import Constant, Given, Item, Output, Plan, Same
from graphc.frontend.graph_call import FREED, ArrayFunction, CompiledBackward, Differentiable, SecondOrder, is_freed, is_plain
from graphc.frontend.guards import Snapshot
from graphc.frontend.inplace import adopt, check_writable, refuse
from graphc.frontend.modes import enable_grad, no_grad
from graphc.frontend.native import strides_of
from graphc.frontend.node import Node, edge_to
from graphc.frontend.pytree import Structure, flatten, unflatten
from graphc.frontend.symbolic_number import SymbolicNumber, plain_key
from graphc.frontend.tensor import Size, Tensor, wrap
from graphc.frontend.trace import OnlyEagerly, Trace
from graphc.frontend.trace_inputs import Argument, Captured, Gradient, Number, Source
from graphc.ir import Graph, Value
from graphc.types import TensorType


class Capture:
    """The inputs and outputs of a trace, and how a call of its graph goes in and out."""

    def __init__(self, trace: Trace, arguments: Sequence[Any], result: Any, known: Container[int],
                 left: Sequence[Tensor | SymbolicNumber] = ()) -> None:
        """`arguments` are the leaves that the function was traced with; `known` are the ids of the tensors that it reached
        before it ran; `left` are tensors and numbers of the trace that it has left behind, which a call makes real.
        `differentiate` is to follow."""
        leaves, self.structure = flatten(result)
        for leaf in (*leaves, *left):
            if isinstance(leaf, Tensor):
                trace.settle(leaf)
        self.left = left
        self.returned = [(k, weakref.ref(leaf)) for k, leaf in enumerate(leaves) if type(leaf) is SymbolicNumber]
        """Numbers of the trace that are returned, by their number among the leaves: somebody else may hold them, too."""
        places = {id(leaf): i for i, leaf in reversed(list(enumerate(arguments))) if isinstance(leaf, Tensor)}

        def own(tensor: Tensor) -> bool:
            """Whether each call makes one of its own, of numbers that the code has."""
            return trace.is_made(tensor) and not trace.leaves_traces

        def own_alias(tensor: Tensor) -> bool:
            """Whether each call makes one of its own, on memory from outside."""
            return trace.is_alias(tensor) and not trace.leaves_traces

        def is_of_this_call(tensor: Tensor) -> bool:
            """Whether it is a leaf on memory from outside that this one call has made, and no other."""
            return trace.leaves_traces and trace.is_alias(tensor) and tensor._node is None and tensor.requires_grad

        def is_new_leaf(tensor: Tensor) -> bool:
            """Whether it is a leaf that each call makes, on such memory or by computing it."""
            if tensor._node is not None or not tensor.requires_grad or id(tensor) in places:
                return False
            return own_alias(tensor) or (not is_array(tensor._data) and trace.lifted(tensor) is None)

        new = {id(leaf): leaf for leaf in (*leaves, *left) if isinstance(leaf, Tensor) and is_new_leaf(leaf)}
        of_this_call = {id(leaf): leaf for leaf in (*leaves, *left)
                        if isinstance(leaf, Tensor) and is_of_this_call(leaf) and id(leaf) not in places}
        alone = [(leaf, trace.get_grad(leaf)) for leaf in (new | of_this_call).values()]
        if alone and not _stand_alone(alone, [*leaves, *left]):
            raise _own_leaf(trace)
        leaves += shared_bases([*leaves, *left], own)
        leaves += left
        updates = trace.updates()
        trace.check_overlaps()
        trace.check_histories()
        self._exact = not trace.hides_changes
        outputs: list[Value] = []
        self.results: list[Output | Item | Given | Same | Constant | Alias | Again] = []
        positions: dict[int, int] = {}
        seeds: list[tuple[int, Tensor]] = []
        for k, leaf in enumerate(leaves):
            lifted = trace.lifted(leaf) if isinstance(leaf, Tensor) else None
            if positions.setdefault(id(leaf), k) != k and isinstance(leaf, Tensor):
                self.results.append(Again(positions[id(leaf)]))
            elif type(leaf) is SymbolicNumber and leaf.value.builder is trace.builder:
                self.results.append(Item(len(outputs)))
                outputs.append(leaf.value)
            elif not isinstance(leaf, Tensor):
                if is_used_up(leaf):
                    raise TraceError(f"{trace.builder.name!r} returns a {type(leaf).__name__}, which runs only once",
                                     expected="tensors and values", hint="make it a list or a tuple")
                self.results.append(Constant(leaf))
            elif id(leaf) in places:
                self.results.append(Given(places[id(leaf)]))
            elif own(leaf) and leaf._node is None and leaf.requires_grad:
                raise _own_leaf(trace)
            elif is_of_this_call(leaf):
                self.results.append(Constant(leaf))
            elif own(leaf):
                self.results.append(Output(len(outputs)))
                if leaf.requires_grad:
                    seeds.append((len(outputs), leaf))
                outputs.append(trace.value(leaf))
            elif lifted is not None:
                self.results.append(Same(trace.inputs.index(lifted)))
            elif is_array(leaf._data) and (leaf._base is None or id(leaf) in known):
                if id(leaf) in known or leaf.requires_grad:
                    self.results.append(Constant(leaf))
                else:  # made inside, so each call makes one of its own; or a gradient that was there before
                    trace.value(leaf)
                    found = trace.lifted(leaf)
                    if found is not None and isinstance(found.source, Gradient):
                        self.results.append(Same(trace.inputs.index(found)))
                    else:
                        self.results.append(Output(len(outputs)))
                        outputs.append(trace.value(leaf))
            elif (alias := self._alias(trace, leaf, leaves, places, known)) is not None:
                self.results.append(alias)
            else:
                self.results.append(Output(len(outputs)))
                if leaf.requires_grad and id(leaf) not in new:
                    seeds.append((len(outputs), leaf))
                outputs.append(trace.value(leaf))
        self.visible = len(outputs)
        """How many outputs become tensors of the result; those after them are written back, or kept for a backward pass."""
        self.updates = [(len(outputs) + k, i) for k, (i, _) in enumerate(updates)]
        """(output, input) for the inputs that are changed in place."""
        changed = [trace.inputs[i] for i, _ in updates]
        self.changes = list(map(trace.changes, changed))
        """How often each of these inputs is changed."""
        self.watched = [id(lifted.tensor) in trace.watched for lifted in changed]
        """Whether it is where autograd sees it, and may refuse."""
        seeds += [(j, lifted.tensor) for (j, _), lifted in zip(self.updates, changed)
                  if lifted.tensor is not None and lifted.tensor._node is not lifted.node]
        outputs += [value for _, value in updates]
        self.grads: list[tuple[Argument | Captured, int | None]] = []
        """Whose gradient becomes which output, or None."""
        self.grad_guards: list[tuple[Argument | Captured, bool]] = []
        """Whose gradient was looked at, and whether there was none."""
        for state in trace.grads.values():
            if own_alias(state.tensor):
                continue
            owner = trace.owner(state.tensor)
            if state.read:
                self.grad_guards.append((owner, state.initial is None))
            if state.current is state.initial:
                continue
            if state.current is None:
                self.grads.append((owner, None))
            else:
                self.grads.append((owner, len(outputs)))
                outputs.append(trace.value(state.current))
        self.new_leaves: list[tuple[int, int | None]] = []
        """Which of the results are leaves that the call makes, and which output becomes the gradient of each, or None."""
        for k, leaf in enumerate(leaves):
            if id(leaf) in new and positions[id(leaf)] == k:
                grad = trace.get_grad(new[id(leaf)])
                self.new_leaves.append((k, None if grad is None else len(outputs)))
                outputs += [] if grad is None else [trace.value(grad)]
        self.differentiable: Differentiable | None = None
        self._fused: Graph | None = None
        """The graph of the call, where it is not what the trace has written down."""
        self.nodes = len(trace.builder.nodes)
        """How many nodes of the trace the call itself runs."""
        self.freed = [j for j, leaf in seeds if is_freed(leaf)]
        self._seeds = live = [(j, leaf) for j, leaf in seeds if j not in self.freed]
        self.node_name = live[0][1]._node.name() if live and live[0][1]._node is not None else ""
        self.inputs = list(trace.inputs)
        self.outputs = outputs
        self.types = [lifted.value.type for lifted in self.inputs]
        self.needs_grad = [lifted.needs_grad for lifted in self.inputs]
        self.layouts = [strides_of(lifted.data) if lifted.tensor is not None else None for lifted in self.inputs]
        self.input_places = [index_of(lifted.data) for lifted in self.inputs]
        """The GPUs that inputs are on; -1 for the CPU."""
        gpu = trace.devices.gpu
        self.gpu = -1 if gpu is None else gpu.index or 0
        """The GPU that the graph runs on."""
        self.output_places: dict[int, int] = {}
        """Where outputs go to that are not kept for a backward pass, or written over inputs."""
        if self.gpu >= 0:
            wanted = map(trace.place_of, outputs[: self.visible])
            self.output_places = {j: place.index or 0 if place.type == "cuda" else -1 for j, place in enumerate(wanted)}
            for owner, j in self.grads:
                if j is not None:
                    self.output_places[j] = index_of(owned_by(owner, arguments)._data)

    def _alias(
        self, trace: Trace, leaf: Tensor, leaves: Sequence[Any], places: Mapping[int, int], known: Container[int]
    ) -> Alias | None:
        """How a leaf of the result is a view of something that there is when the call is over; None if it is not."""
        base = leaf._base
        if base is None:
            return None
        lifted = trace.lifted(base)
        found = next((k for k, other in enumerate(leaves) if other is base), None)
        if id(base) in places:
            return alias_of(leaf, Given(places[id(base)]))
        if found is not None:
            return alias_of(leaf, Again(found))
        if trace.is_made(base) and not trace.leaves_traces:
            return None  # each call makes another
        if lifted is not None:
            return alias_of(leaf, Same(trace.inputs.index(lifted)))
        return alias_of(leaf, Constant(base)) if id(base) in known and is_array(base._data) else None

    def differentiate(self, trace: Trace, backend: str | None, again: bool = True) -> bool:
        """Where the results have a history, run the tape backwards within the trace, and cut what has been written down into
        forward and backward. The backward may compute things `again`, and the forward other things than what has been written
        down, unless the forward does not run by the same code: of other bits, no element is equal to the maximum.

        Whether code of the user's has run for it: hooks, or backward functions."""
        seeds, self._seeds = self._seeds, []
        if not seeds:
            return False
        inputs = self.inputs
        below = [engine.leaves_below(edge_to(tensor)) for _, tensor in seeds]
        doors = {i: trace.edge_to_input(x) for i, x in enumerate(inputs) if x.needs_grad}
        sources = {i: [k for k, leaves in enumerate(below) if edge is not None and id(edge[0]) in leaves]
                   for i, edge in doors.items()}
        wanted = [i for i in doors if sources[i]]
        values = [x.value for x in inputs]
        cotangents = [trace.builder.input(None, self.outputs[j].type) for j, _ in seeds]
        plain = all(is_plain(edge_to(tensor)) for _, tensor in seeds)
        exact = self._exact and plain
        sent = [wrap(ct) if exact else wrap(ct).requires_grad_() for ct in cotangents]
        roots = [(edge_to(tensor), ct) for (_, tensor), ct in zip(seeds, sent)]
        try:
            found = engine.run(roots, keep_graph=not exact, create_graph=not exact, inputs=[doors[i] for i in wanted],
                               accumulate=False)
        except TraceError:
            raise
        except Exception as error:  # it belongs where the backward pass is, if there is going to be one
            raise OnlyEagerly(f"the backward pass of {trace.builder.name!r} fails: {error}") from error
        with no_grad():
            grads = [
                trace.value(g) if g is not None else ops.zeros_like(inputs[i].value) for i, g in zip(wanted, found)
            ]
        second = None if exact else self._second(trace, [doors[i] for i in wanted], found, grads, sent, wanted)
        if len(trace.inputs) != len(inputs):
            raise OnlyEagerly(f"{trace.builder.name!r}: the backward pass reads tensors that the forward does not",
                              hint="use them in the forward, or save them with save_for_backward")
        # the whole as one graph, for derivatives of higher order
        whole = self._extract(trace)
        read = _inputs_read(whole, [j for j, _ in seeds]) if second is None else _inputs_read(second.first)
        if second is not None and isinstance(second.second, Graph):
            read |= _inputs_read(second.second)
        name, nodes = trace.builder.name, trace.builder.nodes
        joint = Joint(nodes[: self.nodes], nodes[self.nodes :], values, self.outputs, cotangents, grads)
        fused = with_attention(name, joint) if again else None
        self.outputs, backward, kept, taken = divide(name, fused or joint, self.visible, [i for _, i in self.updates], again)
        self._fused = None if fused is None else extract(name, fused.inputs, fused.ahead, self.outputs)
        function = ArrayFunction(backward, backend)
        read = frozenset(i for i in read if i < len(inputs)) | frozenset(taken)
        self.differentiable = Differentiable(
            whole, second, function, wanted, [j for j, _ in seeds], [sources[i] for i in wanted], kept, taken, read,
            trace.devices.gpu is not None or gpu_of_backend(backend) >= 0)
        return not plain

    def _second(
        self, trace: Trace, doors: Sequence[Any], found: Sequence[Tensor | None], grads: Sequence[Value],
        cotangents: Sequence[Tensor], wanted: Sequence[int],
    ) -> SecondOrder:
        """The derivative that the tape has found, and its own derivative."""
        builder = trace.builder
        operands = [*(x.value for x in self.inputs), *(ct._data for ct in cotangents)]
        first = extract(f"{builder.name}.backward", operands, builder.nodes, grads)
        seeded = [k for k, grad in enumerate(found) if grad is not None and edge_to(grad) is not None]
        targets = [*wanted, *range(len(self.inputs), len(operands))]
        seeds = [builder.input(None, grads[k].type) for k in seeded]
        roots = [(edge_to(found[k]), wrap(seed)) for k, seed in zip(seeded, seeds)]  # type: ignore[arg-type]
        try:
            again = engine.run(roots, keep_graph=False, create_graph=False, accumulate=False,
                               inputs=[*doors, *map(edge_to, cotangents)])
        except TraceError:
            raise
        except Exception as error:
            return SecondOrder(first, error, seeded, targets)
        with no_grad():
            results = [trace.value(g) if g is not None else ops.zeros_like(operands[i]) for i, g in zip(targets, again)]
        second = extract(f"{builder.name}.second", [*operands, *seeds], builder.nodes, results)
        return SecondOrder(first, second, seeded, targets)

    def _extract(self, trace: Trace) -> Graph:
        values = [x.value for x in self.inputs]
        return extract(trace.builder.name, values, trace.builder.nodes[: self.nodes], self.outputs)

    def signature(self, trace: Trace) -> Any:
        """What tells captures apart whose outputs are equal; None where they cannot be told apart."""
        owners = [(owner.index if isinstance(owner, Argument) else id(owner.tensor), j) for owner, j in self.grads]
        places = [(type(result), None if isinstance(result, Constant) else result) for result in self.results]
        tape = _tape_signature(trace, [tensor for _, tensor in self._seeds])
        seeds = tuple(j for j, _ in self._seeds)
        if not self._exact:
            return None
        return None if tape is None else (
            self.structure, self.visible, self.updates, owners, places, self.freed, seeds, tape, self.node_name)

    def adopt(self, other: Capture) -> None:
        """Take the derivative from a capture of the same signature and the same outputs."""
        self._seeds = []
        self.differentiable = other.differentiable

    def graph(self, trace: Trace) -> Graph:
        """All that a call computes, as one graph. The trace is over then."""
        if self.differentiable is None:
            return trace.builder.finish(self.outputs)
        graph = self._extract(trace) if self._fused is None else self._fused
        trace.builder.abandon()
        return graph

    def bind(self, sizes: Mapping[str, int], graph: Graph, leaves: Sequence[Any]) -> Capture:
        """The same with numbers for symbolic sizes, for arguments such as these; `graph` is that of the call, with them."""
        new = copy.copy(self)
        new.results = [_bound(result, sizes) for result in self.results]
        new.inputs = [replace(lifted, value=value) for lifted, value in zip(self.inputs, graph.inputs)]
        new.types = [value.type for value in graph.inputs]
        new.layouts = [strides_of(leaves[x.source.index]._data) if isinstance(x.source, Argument) else layout
                       for x, layout in zip(self.inputs, self.layouts)]
        new.differentiable = None if self.differentiable is None else self.differentiable.bind(sizes)
        return new

    def forget_arguments(self) -> None:
        """Let go of the tensors of the traced call."""
        for lifted in self.inputs:
            if isinstance(lifted.source, Argument):
                lifted.tensor = lifted.array = None

    # A call

    def mismatch(self, leaves: Sequence[Any]) -> str | None:
        """What is different about the gradients and the captured tensors of a call with these arguments; None if nothing."""
        for owner, none in self.grad_guards:
            if gradient_differs(owner, none, leaves):
                return f"a gradient was {'None' if none else 'there'}, and is not any more"
        for lifted, type_, layout, needs, place in zip(
            self.inputs, self.types, self.layouts, self.needs_grad, self.input_places
        ):
            if isinstance(lifted.source, (Captured, Gradient)):
                difference = differs(given_as(lifted.source, leaves), type_, layout, needs, place)
                if difference is not None:
                    return difference
        if self.updates and self.overlapping(leaves):
            return "an argument shares memory with a tensor that the function changes in place"
        return None

    def overlapping(self, leaves: Sequence[Any]) -> bool:
        """Whether an argument shares memory with another input, and one of them is written to."""
        written = {i for _, i in self.updates}
        arrays = {i: given_as(x.source, leaves)._data for i, x in enumerate(self.inputs) if not isinstance(x.source, Number)}
        places = {i: (index_of(array), *byte_bounds(array)) for i, array in arrays.items()}
        for i in arrays:
            if isinstance(self.inputs[i].source, Argument):
                device, low, high = places[i]
                for j, (other, start, stop) in places.items():
                    if low < stop and start < high and device == other and i != j and (i in written or j in written):
                        return True
        return False

    def tensors(self, leaves: Sequence[Any]) -> list[Tensor]:
        """What the inputs are at a call with these arguments."""
        return [given_as(lifted.source, leaves) for lifted in self.inputs]

    def replaced_gradients(self, leaves: Sequence[Any]) -> dict[int, Tensor]:
        """The tensors whose gradients outputs become, by the output."""
        return {j: owned_by(owner, leaves) for owner, j in self.grads if j is not None}

    def goes_to_gpu(self, output: int) -> bool:
        """Whether an output stays on the GPU."""
        return self.gpu >= 0 and self.output_places.get(output, self.gpu) >= 0

    def check_writable(self, tensors: Sequence[Tensor]) -> None:
        """AutogradError where autograd refuses a change in place, GraphcError where memory is read-only: as eagerly."""
        for (_, i), watched in zip(self.updates, self.watched):
            if tensors[i]._meta is not None:
                with enable_grad() if watched else no_grad():
                    refuse(tensors[i])
            check_writable(tensors[i]._data)

    def before(self, tensors: Sequence[Tensor]) -> dict[int, np.ndarray]:
        """What inputs hold that the call is going to change, as far as a derivative is computed from it."""
        if self.differentiable is None:
            return {}
        return {i: copied(tensors[i]._data) for _, i in self.updates if i in self.differentiable.read}

    def finish(
        self, leaves: Sequence[Any], tensors: Sequence[Tensor], outputs: Sequence[np.ndarray], before: Mapping[int, np.ndarray]
    ) -> Any:
        """Do what remains when the outputs are there, those of `updates` in the memory of their inputs; the result."""
        if self.output_places or device_arrays.kinds:
            outputs = [moved(array, self.output_places.get(j, index_of(array) if self.gpu >= 0 else -1))
                       for j, array in enumerate(outputs)]
        for (_, i), changes in zip(self.updates, self.changes):
            tensors[i]._version_counter().count += changes
        for owner, j in self.grads:
            owned_by(owner, leaves)._state().grad = None if j is None else wrap(outputs[j])
        made = [wrap(outputs[j]) for j in range(self.visible)]
        for j in self.freed:
            if j < self.visible:
                made[j]._node = FREED
        node = None
        if self.differentiable is not None:
            node = CompiledBackward(self.differentiable, tensors, outputs, made, before)
        for j, i in self.updates:
            if j in self.freed:
                _give_history(tensors[i], FREED, 0)
            elif node is not None and j in node.how.seeded:
                _give_history(tensors[i], node, node.how.seeded.index(j))
        results: list[Any] = []
        for result in self.results:
            match result.base if isinstance(result, Alias) else result:
                case Output(index):
                    results.append(made[index])
                case Item(index):
                    results.append(known_on_host(outputs[index]).item())
                case Given(index):
                    results.append(leaves[index])
                case Same(index):
                    results.append(tensors[index])
                case Constant(value):
                    results.append(value)
                case Again():
                    results.append(None)
        results = completed(self.results, results)
        for k, j in self.new_leaves:
            results[k].requires_grad_()._state().grad = None if j is None else wrap(outputs[j])
        for k, left in enumerate(self.left, len(results) - len(self.left)):
            real, result = results[k], self.results[k]
            if isinstance(left, Tensor):
                left._data, left._node, left._meta = real._data, real._node, real._meta
                if isinstance(result, Again):
                    results[result.index] = left
            else:
                left.become(real)
        for k, reference in self.returned:
            number = reference()
            if number is not None:
                number.become(results[k])
        if self.left or self.returned:
            self.structure = _with_plain_keys(self.structure)
        return unflatten(self.structure, results[: len(results) - len(self.left)])

    def plan(self, snapshot: Snapshot, pinned: Mapping[int, Tensor]) -> Plan | None:
        """What a native entry is told of a call; None where it takes Python."""
        updated = {j for j, _ in self.updates}
        if self.differentiable is not None or self.new_leaves or not updated.isdisjoint(self.freed):
            return None
        if not all(none for _, none in self.grad_guards):
            return None
        return Plan(
            inputs=self.inputs, updates=self.updates, grads=self.grads, without_grad=[owner for owner, _ in self.grad_guards],
            results=self.results, structure=self.structure, nodes=dict.fromkeys(self.freed, FREED), snapshot=snapshot,
            pinned=pinned,
        )  # fmt: skip


def _with_plain_keys(structure: Structure) -> Structure:
    """The structure with Python's own numbers for those of the trace among the keys of its dicts."""
    return replace(structure, children=tuple(map(_with_plain_keys, structure.children)),
                   keys=tuple(map(plain_key, structure.keys)))


def _own_leaf(trace: Trace) -> OnlyEagerly:
    return OnlyEagerly(f"{trace.builder.name!r} returns a leaf that it makes: each call has one of its own",
                       hint="make it outside, or return a tensor computed from it")


def _stand_alone(new: Sequence[tuple[Tensor, Tensor | None]], leaves: Sequence[Any]) -> bool:
    """Whether nothing else that a call leaves behind has to do with leaves that it makes and their gradients: none will flow to
    them from other results, and nobody else has those that they have, or is told of them."""
    metas = [tensor._meta for tensor, _ in new if tensor._meta is not None]
    held = {id(grad) for _, grad in new}
    reached: set[int] = set()
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            reached |= engine.leaves_below(edge_to(leaf)) if leaf._node is not None else {id(leaf)} & held
    return reached.isdisjoint(held.union(id(tensor) for tensor, _ in new)) and not any(
        meta.hooks or meta.post_hooks for meta in metas)


def _give_history(tensor: Tensor, node: Node, index: int) -> None:
    """Tell autograd of a change in place: what the tensor holds now is an output of a node."""
    new = wrap(tensor._data)
    new._node, new._state().index = node, index
    with enable_grad():
        adopt(tensor, new)


def _inputs_read(graph: Graph, outputs: Sequence[int] | None = None) -> frozenset[int]:
    """The numbers of the inputs that some outputs are computed from."""
    live = set(graph.outputs if outputs is None else [graph.outputs[j] for j in outputs])
    for node in reversed(graph.nodes):
        if any(result in live for result in node.results):
            live.update(node.operands)
    return frozenset(i for i, value in enumerate(graph.inputs) if value in live)


def owned_by(owner: Argument | Captured, leaves: Sequence[Any]) -> Tensor:
    """The tensor that an argument of this call, or a captured one, is."""
    return leaves[owner.index] if isinstance(owner, Argument) else owner.tensor


def given_as(source: Source, leaves: Sequence[Any]) -> Tensor:
    """The tensor that an input is at a call with these arguments."""
    if isinstance(source, Number):
        return wrap(np.asarray(source.mapping[source.key], np.float64))
    if isinstance(source, Gradient):
        grad = owned_by(source.owner, leaves)._state().grad
        assert grad is not None  # a guard has seen to that
        return grad
    return owned_by(source, leaves)


def differs(
    tensor: Tensor, type_: TensorType, layout: tuple[int, ...] | None, needs_grad: bool, place: int = -1
) -> str | None:
    """What is different about a captured tensor; None if nothing."""
    data = tensor._data
    if index_of(data) != place:
        return f"a captured tensor was on {'the CPU' if place < 0 else f'cuda:{place}'}, and is on {tensor.device}"
    if data.shape != type_.shape or data.dtype != type_.dtype.numpy or strides_of(data) != layout:
        return f"a captured tensor was {type_}, is {TensorType(tensor.dtype, data.shape)}"
    return None if tensor.requires_grad == needs_grad else "requires_grad of a captured tensor has changed"


def gradient_differs(owner: Argument | Captured, none: bool, leaves: Sequence[Any]) -> bool:
    """Whether a gradient that was not there is there, or the other way round."""
    meta = owned_by(owner, leaves)._meta
    return (meta is None or meta.grad is None) != none


def _tape_signature(trace: Trace, tensors: Sequence[Tensor]) -> tuple[Any, ...] | None:
    """The shape of the tape behind some results: what kinds of nodes there are, and where they lead. None where hooks hang
    on it, which can do anything."""
    found: list[Any] = []
    numbers: dict[int, int] = {}
    pending = [edge_to(tensor) for tensor in reversed(tensors)]
    while pending:
        edge = pending.pop()
        if edge is None:
            found.append(None)
            continue
        target, index = edge
        if isinstance(target, Tensor):
            if target._meta is not None and (target._meta.hooks or target._meta.post_hooks):
                return None
            lifted = trace.input_at(target)
            found.append(("leaf", -1 if lifted is None else trace.inputs.index(lifted)))
        elif id(target) in numbers:
            found.append((numbers[id(target)], index))
        elif target.hooks or target.prehooks or target.tensor_prehooks or target.retainers:
            return None
        else:
            numbers[id(target)] = len(numbers)
            found.append((type(target), index, len(target.edges)))
            pending += reversed(target.edges)
    return tuple(found)


def _bound(result: Any, sizes: Mapping[str, int]) -> Any:
    """A result with numbers for symbolic sizes: for those that it is itself, too."""
    if isinstance(result, Alias):
        return result.bind(sizes)
    return Constant(_number(result.value, sizes)) if isinstance(result, Constant) else result


def _number(value: Any, sizes: Mapping[str, int]) -> Any:
    if isinstance(value, (Dim, DimNumber)):
        return value.bind(sizes)
    return Size(_number(size, sizes) for size in value) if type(value) is Size else value
