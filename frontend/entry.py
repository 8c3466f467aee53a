"""What a native call of a compiled function checks and does, told to the back end."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from graphc.frontend import tracer
from graphc.frontend.aliases import Again, Alias, completed
from graphc.frontend.guards import Snapshot
from graphc.frontend.modes import mode
from graphc.frontend.native import TENSORS, identities, tensor_check
from graphc.frontend.pytree import Structure, unflatten
from graphc.frontend.tensor import Tensor
from graphc.frontend.trace_inputs import Argument, Captured, Lifted, Number
from graphc.specs import EntrySpec, NumberInput, ResultLeaf, TensorCheck, ValueCheck


@dataclass(frozen=True)
class Output:
    """A leaf of the result that the graph computes."""

    index: int


@dataclass(frozen=True)
class Item:
    """A leaf of the result that is a Python number, which the graph computes as an output."""

    index: int


@dataclass(frozen=True)
class Given:
    """A leaf of the result that is a tensor among the arguments, by its number."""

    index: int


@dataclass(frozen=True)
class Same:
    """A leaf of the result that is one of the tensors that went in, by the number of the input."""

    input: int


@dataclass(frozen=True, eq=False)
class Constant:
    """A leaf of the result that is not computed."""

    value: Any


@dataclass(frozen=True, eq=False)
class Plan:
    """How a call of a compiled function goes in and out of its graph, where no tape is involved."""

    inputs: Sequence[Lifted]
    updates: Sequence[tuple[int, int]]
    """(output, input) for the inputs that are changed in place."""
    grads: Sequence[tuple[Argument | Captured, int | None]]
    """Whose gradient becomes which output, or None."""
    without_grad: Sequence[Argument | Captured]
    """Tensors that must have no gradient when the call begins."""
    results: Sequence[Output | Item | Given | Same | Constant | Alias | Again]
    structure: Structure
    """How the results are nested."""
    nodes: Mapping[int, Any]
    """Histories of outputs, by their number."""
    snapshot: Snapshot
    pinned: Mapping[int, Tensor]
    """Arguments that the function also finds by itself, by their number: they must be these tensors."""


def entry_spec(plan: Plan, arguments: Sequence[Any]) -> EntrySpec | None:
    """The native way to a graph, as the state of the world is now, which must be one that the graph stands for.

    None where it takes Python: for gradients that the graph reads, gradients of arguments, inference mode, and state that
    only Python can compare.

    arguments
        The positional arguments of a call that the graph stands for, none of them a container.
    """
    owners = [*(owner for owner, _ in plan.grads), *plan.without_grad]
    if mode.inference or not plan.snapshot.native or any(isinstance(owner, Argument) for owner in owners):
        return None
    inputs: dict[int, int] = {}
    held: list[TensorCheck] = []
    numbers: list[NumberInput] = []
    for i, lifted in enumerate(plan.inputs):
        source = lifted.source
        if isinstance(source, Argument):
            inputs[source.index] = i
        elif isinstance(source, Captured):
            held.append(tensor_check(source.tensor, None, i, held=True))
        elif isinstance(source, Number) and is_dict(source.mapping):
            numbers.append(NumberInput(source.mapping, source.key, i))
        else:
            return None
    written = {i for _, i in plan.updates}
    if written and any_overlap([(c.tensor._data, c.input in written) for c in held]):
        return None

    checks: list[TensorCheck | ValueCheck] = []
    for k, argument in enumerate(arguments):
        if isinstance(argument, Tensor):
            checks.append(tensor_check(argument, k, inputs.get(k), held=k in plan.pinned))
        else:
            checks.append(ValueCheck(k, argument))
    kind = plan.structure.kind
    flat = kind == "leaf" or (kind in ("tuple", "list") and all(child.kind == "leaf" for child in plan.structure.children))
    result: Any = {"leaf": "one"}.get(kind, kind) if flat else functools.partial(unflatten, plan.structure)
    if any(isinstance(leaf, (Item, Alias, Again)) for leaf in plan.results):
        result = functools.partial(_assembled, plan.structure, plan.results)
    return EntrySpec(
        tensors=TENSORS,
        thread=((tracer._state, "tracer", None), (mode, "grad", mode.grad), (mode, "inference", False),
                (mode, "autocast", mode.autocast)),
        arguments=tuple(checks),
        held=tuple(held),
        numbers=tuple(numbers),
        guards=tuple(plan.snapshot.guards),
        identities=identities(arguments),
        updates=tuple(plan.updates),
        grads=tuple((owner.tensor, j) for owner, j in plan.grads if isinstance(owner, Captured)),
        no_grads=tuple(owner.tensor for owner in plan.without_grad if isinstance(owner, Captured)),
        leaves=tuple(_leaf(plan, leaf) for leaf in plan.results),
        result=result,
    )


def is_dict(mapping: Any) -> TypeGuard[dict[Any, Any]]:
    """Whether what it has under a key is what a dict has."""
    return isinstance(mapping, dict) and type(mapping).__getitem__ is dict.__getitem__


def _assembled(structure: Structure, results: Sequence[Any], leaves: Sequence[Any]) -> Any:
    known = [leaf.item() if isinstance(result, Item) else leaf for result, leaf in zip(results, leaves)]
    return unflatten(structure, completed(results, known))


def _leaf(plan: Plan, result: Output | Item | Given | Same | Constant | Alias | Again) -> ResultLeaf:
    match result.base if isinstance(result, Alias) else result:
        case Item(index):
            return ResultLeaf("array", index)
        case Output(index):
            return ResultLeaf("output", index, plan.nodes.get(index))
        case Given(index):
            return ResultLeaf("argument", index)
        case Same(index):
            source = plan.inputs[index].source
            assert isinstance(source, (Argument, Captured))  # entry_spec has seen to the others
            return ResultLeaf("argument", source.index) if isinstance(source, Argument) else ResultLeaf("object", source.tensor)
        case Constant(value):
            return ResultLeaf("object", value)
        case _:  # again, which is filled in when all others are there
            return ResultLeaf("object", None)


def any_overlap(arrays: Sequence[tuple[np.ndarray, bool]]) -> bool:
    """Whether an array that is written, by the flag beside it, shares memory with another one, as far as the first and the
    last bytes tell."""
    spans = sorted((*np.lib.array_utils.byte_bounds(array), written) for array, written in arrays if array.size)
    reach = reach_of_written = 0
    for low, high, is_written in spans:
        if low < (reach if is_written else reach_of_written):
            return True
        reach = max(reach, high)
        if is_written:
            reach_of_written = max(reach_of_written, high)
    return False
