"""What a back end is told of calls that it can run natively: of tensors, of the tape, of what is checked and what comes back.

The front end makes these records, of its own classes, which the core does not know. Running a graph takes none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from graphc.op import OpDef
from graphc.types import DType

ABSENT = object()
"""In a `Guard`: there is nothing."""
ANYTHING = object()
"""In a `Guard`: it does not matter what there is."""


@dataclass(slots=True, eq=False)
class Guard:
    """One fact about Python's state that a graph rests on: something in `owner` is the very object `expected`, or, for
    int, float and str, one of the same value. By kind:

    cell
        The contents of a closure's cell; ABSENT while it is empty.
    item
        What a dict has under the str `key`; ABSENT if nothing.
    dict
        All that a dict holds: a tuple of (key, value), in order; a value may be ANYTHING.
    list
        All that a list holds: a tuple.
    slot
        What an object holds in a slot, whose member descriptor is `key`; ABSENT if nothing.
    function
        The code, the defaults and the keyword defaults of a function: a tuple of the three.
    type
        The type of an object.
    class
        What a class or the nearest of its bases has under some names: a tuple of (name, value), ABSENT for nothing. A
        native entry watches the whole class.
    namespace
        The `__dict__` of an object.
    """

    kind: Literal["cell", "item", "dict", "list", "slot", "function", "type", "class", "namespace"]
    owner: Any
    key: Any
    expected: Any


@dataclass(frozen=True, eq=False)
class TensorClass:
    """The class of the tensors that go in and out of an entry, and the names of the slots by which native code knows it.

    A tensor's `data` holds the array; `node` is None unless a recorded operation made it; `metadata` is None or a
    `metadata_class`, whose slots are `requires_grad` (a bool), `grad` (None or a tensor), `version` (None or a
    `counter_class` with the int slot `count`), `view` (None or a `view_class`), `index` (the output of its node that it is)
    and `inference` (a bool). A view is outside autograd if it is not `tracked`, or if the `node` of its `base` is None and
    was None (`seen`) when the view was made; it has its `parent` (None or a view), the `step` from there, and says whether
    it is `detached`.

    A node is a `node_base`, most often a `node_class`: `edges`, a tuple of None and (node or leaf, output) pairs; its number,
    the next of `sequence`; a list of what it `saved`, operands as they are or, if they have been changed in place before, in
    a copy of `plain_saved`; of its `out` the array and the version; `types`, a list of (shape, dtype) of the operands;
    `attrs`; and the `code` of the user's that made it, with the `last` instruction there. `own_code` says by the address of
    code in the first place of a tuple whether it is the package's. Where `anomaly` is `enabled`, Python records. Nodes that
    somebody has hooks on are `watched`, and for Python to run; the others say in the `native` slot of their `plan` how native
    code runs them. The nodes of compiled graphs are of classes made of the `compiled_class`: they have the same slot in their
    `how`, and keep a list of arrays and one of the inputs, as a `node_class` does, and the versions of results among the
    arrays, each with a number.
    """

    tensor: type
    data: str
    node: str
    metadata: str
    metadata_class: type
    requires_grad: str
    grad: str
    version: str
    view: str
    counter_class: type
    count: str
    view_class: type
    base: str
    tracked: str
    seen: str
    index: str
    inference: str
    parent: str
    step: str
    detached: str
    plain_view: Any
    node_class: type
    node_edges: str
    node_sequence: str
    node_saved: str
    node_out: str
    node_types: str
    node_attrs: str
    node_code: str
    node_last: str
    node_plan: str
    node_watched: str
    node_base: type
    plan_class: type
    plan_native: str
    compiled_class: type
    compiled_how: str
    compiled_kept: str
    compiled_saved: str
    compiled_versions: str
    compiled_outputs: str
    plain_saved: Any
    saved_tensor: str
    saved_version: str
    saved_count: str
    saved_unpack: str
    sequence: Iterator[int]
    own_code: dict[int, Any]
    anomaly: Any
    enabled: str


@dataclass(frozen=True, eq=False)
class NodePlan:
    """What is recorded of an op when gradients go to certain of its operands."""

    template: Any
    """A node that has all that is the same for each call."""
    saves: tuple[int, ...]
    """The operands that it keeps."""
    saves_out: bool
    """Whether it keeps the result."""


@dataclass(frozen=True, eq=False)
class TensorCheck:
    """A tensor with an array of a certain dtype and layout."""

    argument: int | None
    """Which argument it is; None for `tensor`."""
    tensor: Any
    """The very object that it must be, or None."""
    type: type
    requires_grad: bool | None
    """Whether it requires gradients, outside autograd as it is otherwise; None for any tensor."""
    address: int | None
    """Where its memory must begin, or None."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    """In elements; None for row-major."""
    input: int | None
    """Which input of the graph it is."""


@dataclass(frozen=True, eq=False)
class ValueCheck:
    """An argument that must be this very object, or an int, float or str of the same value."""

    argument: int
    value: Any


@dataclass(frozen=True, eq=False)
class ArrayInput:
    """An argument that is an array of the layout that the graph was compiled for, which the caller has seen to."""

    argument: int
    input: int


@dataclass(frozen=True, eq=False)
class NumberInput:
    """An input of the graph that is a float or an int, read from a dict at each call."""

    mapping: dict[Any, Any]
    key: Any
    input: int


@dataclass(frozen=True, eq=False)
class ResultLeaf:
    """One leaf of what a call returns: an output of the graph as a tensor or as an array, an argument, or another object."""

    kind: Literal["output", "array", "argument", "object"]
    reference: Any
    node: Any = None
    """What the tensor made for an output has as its `node`."""


@dataclass(frozen=True, eq=False)
class EntrySpec:
    """All that a call of a graph checks and does, for a back end that can do it without Python."""

    tensors: TensorClass
    thread: tuple[tuple[Any, str, Any], ...]
    """(object, attribute, value): what differs by thread."""
    arguments: tuple[TensorCheck | ValueCheck | ArrayInput, ...]
    """The arguments, in order."""
    held: tuple[TensorCheck, ...]
    """Tensors that are no arguments."""
    numbers: tuple[NumberInput, ...]
    guards: tuple[Guard, ...]
    identities: tuple[tuple[int, int, bool], ...]
    """(argument, argument, whether they are one object)."""
    updates: tuple[tuple[int, int], ...]
    """(output, input): written over the input's memory, which must then have no byte in common with other inputs."""
    grads: tuple[tuple[Any, int | None], ...]
    """(tensor, output): the tensor's gradient becomes the output, or None. It must have metadata."""
    no_grads: tuple[Any, ...]
    """Tensors whose gradient must be None."""
    leaves: tuple[ResultLeaf, ...]
    result: Literal["one", "tuple", "list"] | Callable[[list[Any]], Any]
    """The one leaf itself, a tuple or list of leaves, or what a function makes of that list."""
    prepared: np.ndarray | None = None
    """What has been prepared of the steady inputs as they are; that they still are is among the guards."""
    keywords: tuple[str, ...] = ()
    """The names, interned, of the last arguments, which are given by them."""


@dataclass(frozen=True, eq=False)
class EagerSpec:
    """An elementwise op on tensors of one floating-point dtype and any size, as the front end runs it at once."""

    op: OpDef
    dtype: DType
    tensors: TensorClass
    thread: tuple[tuple[Any, str, Any], ...]
    """(object, attribute, value): the ordinary state of a thread; in any other the fallback is called."""
    grad: tuple[Any, str, Any]
    """(object, attribute, value): where operations are recorded."""
    hooks: tuple[Any, str, Any]
    """(object, attribute, value): where nobody wants to know what is saved."""
    nodes: tuple[NodePlan | None, ...]
    """What is recorded if gradients go to the first operand, the second, both; None for what is left to `record`."""
    record: Callable[..., Any] | None
    """Called, where operations are recorded, an operand may have a history, and things are out of the ordinary, with the
    result, whether the tensors among the operands are of its type, and the operands."""
    ufunc: np.ufunc | None
    """Whose own loop it is that computes the result; None for an op for which a loop of its own gives the same bits."""
    in_place: bool = False
    """Whether the result is written over the first operand, a tensor of its shape, which is returned."""


@dataclass(frozen=True, eq=False)
class RuleSpec:
    """How the nodes of an op make cotangents of operands, as the engine runs them natively."""

    op: OpDef
    wanted: tuple[int, ...]
    """The operands that cotangents go to."""
    saves: tuple[int, ...]
    """The operands that the nodes keep."""


@dataclass(frozen=True, eq=False)
class CallSpec:
    """How a node of a compiled graph makes cotangents, as the engine runs it natively. Who makes it has to keep it as long as
    there are such nodes."""

    function: Callable[..., tuple[np.ndarray, ...]]
    """Of row-major arrays: what the node kept, inputs that it takes, and the cotangents of its outputs."""
    kept: int
    """How many arrays it keeps."""
    taken: tuple[int, ...]
    """The numbers of the inputs that it takes."""
    outputs: tuple[np.ndarray, ...]
    """For each output an array of its type; where there are several, of zeros: what stands for a cotangent that is missing."""
    sources: tuple[tuple[int, ...], ...]
    """For each edge the numbers of the outputs that a cotangent can come from."""


@dataclass(frozen=True, eq=False)
class RecordedSpec:
    """A call of a graph on tensors that is one node of the tape."""

    tensors: TensorClass
    thread: tuple[tuple[Any, str, Any], ...]
    grad: tuple[Any, str, Any]
    hooks: tuple[Any, str, Any]
    """These as in EagerSpec."""
    arguments: tuple[TensorCheck | ValueCheck, ...]
    """The arguments, tensors of any history among them."""
    identities: tuple[tuple[int, int, bool], ...]
    """As in EntrySpec."""
    function: Callable[..., tuple[np.ndarray, ...]]
    """Of the inputs' arrays, to the outputs'."""
    node: Any
    """A node, a `compiled_class`, that has all that is the same for each call."""
    inputs: tuple[tuple[int, bool, bool], ...]
    """For each input of the graph the argument that it is, whether gradients go to it, and whether a derivative reads it."""
    edges: tuple[int, ...]
    """For each edge of the node the number of the input."""
    seeds: tuple[int | None, ...]
    """For each result, the first outputs, the output of the node that it is; None where no gradient comes from it."""
    kept: tuple[int, ...]
    """The numbers of the outputs that the node keeps."""
    is_tuple: bool
    """Whether the results come in a tuple."""
    keywords: tuple[str, ...] = ()
    """As in EntrySpec."""


@dataclass(frozen=True, eq=False)
class ViewSpec:
    """An op that makes views, or anything else that does, as the front end runs it at once."""

    tensors: TensorClass
    thread: tuple[tuple[Any, str, Any], ...]
    grad: tuple[Any, str, Any]
    hooks: tuple[Any, str, Any]
    """These as in EagerSpec."""
    op: OpDef | None
    """With the attributes, the step of the view; None where the step is given whole, and nothing is recorded."""
    node: NodePlan | None
    record: Callable[..., Any] | None
    """Called with the source, the attributes and the view as in EagerSpec."""


@dataclass(frozen=True, eq=False)
class SubscriptSpec:
    """How parts of tensors are made that ints, slices, None and Ellipsis choose, as the front end runs it at once."""

    tensors: TensorClass
    thread: tuple[tuple[Any, str, Any], ...]
    grad: tuple[Any, str, Any]
    """These as in EagerSpec."""
    lazy: Callable[..., Any]
    """What `Backend.view` has made of a spec without an op: it makes the parts that nobody wants a gradient of."""
    cut: Callable[..., Any]
    """What it has made for slices; with numbers among them `selected`, and the dimensions that these leave are `dropped`."""
    selected: Callable[..., Any]
    dropped: Callable[..., Any]
    alias: Callable[..., Any]
    """The same for another shape, where nothing is left out."""
    partial: Callable[..., Any]
    """Of `steps`, an index and a shape: the steps of a part that is made by `lazy`."""
    steps: Callable[..., Any]
