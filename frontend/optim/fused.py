"""The update of a parameter as one native function, which changes parameter and state where they are.

The same `_update` that runs op by op is traced for the types of a parameter, its gradient and its state, once that pays: for
large ones, from the step on for which there is a state. Other options than those have code when they are seen a second time, as
there are schedules that change them at each step. The learning rate is read at each call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.backend import Executable, Layout
from graphc.compiler import executable
from graphc.config import config
from graphc.errors import GraphcError
from graphc.frontend.native import strides_of
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace import Trace
from graphc.frontend.trace_inputs import Argument, Number
from graphc.frontend.tracer import activated, active

if TYPE_CHECKING:
    from graphc.frontend.optim.optimizer import Optimizer

LARGE = 1 << 13
"""Elements of a parameter from which on code is made for its update."""
_MOST = 512
"""Combinations of types and options that are remembered."""

_VARIABLE = frozenset(("lr", "initial_lr", "params", "param_names"))
"""Options that an update has not been made for."""

_forms: dict[Any, _Form | int | None] = {}  # the number of sightings; None for what runs op by op
_types: set[Any] = set()  # what code has been asked for, whatever the options


class _Form:
    """An update for certain types and options."""

    __slots__ = ("code", "sources", "updated")

    def __init__(self, code: Executable, sources: list[Argument | Number], updated: list[int]) -> None:
        self.code = code
        self.sources = sources
        self.updated = updated

    def __call__(self, tensors: list[Tensor], group: dict[str, Any]) -> None:
        arrays = [
            tensors[source.index]._data if isinstance(source, Argument) else np.asarray(group[source.key], np.float64)
            for source in self.sources
        ]
        self.code.run(arrays, [arrays[i] for i in self.updated])
        for i in self.updated:
            source = self.sources[i]
            assert isinstance(source, Argument)
            tensors[source.index]._version_counter().count += 1


def update(optimizer: Optimizer, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> bool:
    """Do what `optimizer._update` does with these arguments, if there is code for it; tells whether it did."""
    if parameter._data.size < LARGE or not state or not config.fuse_eager or active() is not None:
        return False
    tensors = [parameter, grad, *state.values()]
    key: list[Any] = [type(optimizer), *state]
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or type(tensor._data) is not np.ndarray or not tensor._data.flags.writeable:
            return False
        key += (tensor._data.dtype, tensor._data.shape, tensor._data.strides)
    if isinstance(group["lr"], Tensor) or group.get("differentiable") or np.may_share_memory(parameter._data, grad._data):
        return False
    types = tuple(key)
    signature = (*types, *[(name, type(value), value) for name, value in group.items() if name not in _VARIABLE])
    try:
        form = _forms.get(signature, 0)
    except TypeError:  # an option without a hash
        return False
    if form == 0 and len(_forms) < _MOST:
        _forms[signature] = 1
        form = 0 if types in _types else 1
        _types.add(types)
    if form == 1:
        form = _forms[signature] = _made(optimizer, tensors, state, group)
    if type(form) is not _Form:
        return False
    form(tensors, group)
    return True


def _made(optimizer: Optimizer, tensors: list[Tensor], state: dict[str, Any], group: dict[str, Any]) -> _Form | None:
    """The update for arguments like these; None where it does more than change them."""
    inside = [wrap(tensor._data) for tensor in tensors]
    inner = dict(zip(state, inside[2:]))
    tracer = Trace(f"{type(optimizer).__name__}_update", inside, {})
    try:
        with activated(tracer):
            optimizer._update(inside[0], inside[1], inner, group)
        if list(inner) != list(state) or any(a is not b for a, b in zip(inner.values(), inside[2:])):
            return None
        updates = tracer.updates()
        sources = [lifted.source for lifted in tracer.inputs]
        graph = tracer.builder.finish([value for _, value in updates])
    except GraphcError:
        return None  # it looks at numbers: op by op it can
    finally:
        tracer.restore()
    if not all(isinstance(source, (Argument, Number)) for source in sources):
        return None
    layout = Layout(
        tuple(strides_of(tensors[s.index]._data) if isinstance(s, Argument) else None for s in sources),
        tuple((j, i) for j, (i, _) in enumerate(updates)),
    )
    return _Form(executable(graph, layout), sources, [i for i, _ in updates])  # type: ignore[arg-type]
