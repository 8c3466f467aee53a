"""What native code knows of tensors, and graphs as native functions of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.backend import Executable
from graphc.frontend.modes import anomaly
from graphc.frontend.node import Node, sequence
from graphc.frontend.tape import CompiledNode, OpNode, Saved, own_code
from graphc.frontend.tape_plan import Native
from graphc.frontend.tensor import Meta, Tensor, Version, View
from graphc.specs import ArrayInput, EntrySpec, ResultLeaf, TensorCheck, TensorClass


def _plain(cls: type, **contents: Any) -> Any:
    """An object of a class, with this in its slots, and else with None."""
    made: Any = object.__new__(cls)
    for slot in cls.__slots__:  # type: ignore[attr-defined]
        setattr(made, slot, contents.get(slot))
    return made


TENSORS = TensorClass(
    tensor=Tensor, data="_data", node="_node", metadata="_meta",
    metadata_class=Meta, requires_grad="requires_grad", grad="grad", version="version", view="view",
    counter_class=Version, count="count",
    view_class=View, base="_base", tracked="tracked", seen="seen",
    index="index", inference="inference", parent="parent", step="step", detached="detached",
    plain_view=_plain(View, tracked=False, detached=False), node_class=OpNode, node_edges="edges", node_sequence="sequence",
    node_saved="saved", node_out="out", node_types="types", node_attrs="attrs", node_code="_code", node_last="_last",
    node_plan="plan", node_watched="watched", node_base=Node, plan_class=Native, plan_native="native",
    compiled_class=CompiledNode, compiled_how="how", compiled_kept="kept", compiled_saved="saved",
    compiled_versions="versions", compiled_outputs="outputs",
    plain_saved=_plain(Saved, count=0), saved_tensor="tensor", saved_version="version", saved_count="count",
    saved_unpack="unpack_hook",
    sequence=sequence, own_code=own_code, anomaly=anomaly, enabled="enabled",
)  # fmt: skip


def array_function(code: Executable, prepared: np.ndarray | None = None) -> Callable[..., tuple[np.ndarray, ...]]:
    """A graph as a function of arrays, in the graph's order, of the types and layouts that it was compiled for, which is not
    checked. It returns a tuple of new arrays. What has been `prepared` of steady inputs stands for them."""
    spec = EntrySpec(
        tensors=TENSORS, thread=(), arguments=tuple(ArrayInput(i, i) for i in range(len(code.inputs))), held=(), numbers=(),
        guards=(), identities=(), updates=(), grads=(), no_grads=(),
        leaves=tuple(ResultLeaf("array", j) for j in range(len(code.outputs))), result="tuple",
        prepared=prepared,
    )  # fmt: skip
    entry = code.entry(spec)

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = [np.empty(t.shape, t.dtype.numpy) for t in code.outputs]
        if prepared is not None and code.preparation is not None:
            code.preparation.run(arrays, outputs, prepared)
        else:
            code.run(arrays, outputs)
        return tuple(outputs)

    return run if entry is None else entry.bind(run)


def tensor_check(tensor: Tensor, argument: int | None, input_: int | None, *, held: bool) -> TensorCheck:
    """What must be so of a tensor as it is now; if `held`, it must be this one, and if it is no argument, with its memory."""
    data = tensor._data
    strides = None if data.flags.c_contiguous else tuple(s // data.itemsize for s in data.strides)
    return TensorCheck(
        argument=argument, tensor=tensor if held else None, type=type(tensor),
        requires_grad=tensor._meta is not None and tensor._meta.requires_grad,
        address=data.__array_interface__["data"][0] if argument is None else None, dtype=tensor.dtype.numpy,
        shape=data.shape, strides=strides, input=input_,
    )  # fmt: skip


def identities(arguments: Sequence[Any]) -> tuple[tuple[int, int, bool], ...]:
    """For each two tensors among the arguments, whether they are one."""
    tensors = [k for k, argument in enumerate(arguments) if isinstance(argument, Tensor)]
    return tuple((j, k, arguments[j] is arguments[k]) for n, k in enumerate(tensors) for j in tensors[:n])


def strides_of(array: np.ndarray) -> tuple[int, ...] | None:
    """Strides in elements; None for row-major."""
    if array.flags.c_contiguous:
        return None
    return tuple(s // array.itemsize for s in array.strides)
