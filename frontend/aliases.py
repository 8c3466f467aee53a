"""Results of compiled functions that are other results again, or views of these, of arguments or of captured tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphc.bind import bind_attributes
from graphc.frontend.device_arrays import is_array
from graphc.frontend.modes import no_grad
from graphc.frontend.tensor import Tensor
from graphc.ir import attribute_key
from graphc.op import OpDef


@dataclass(frozen=True)
class Again:
    """A leaf of the result that is the same tensor as an earlier one."""

    index: int


@dataclass(frozen=True)
class Alias:
    """A leaf of the result that is a view of a tensor: made anew of that at each call, as the function would eagerly."""

    base: Any
    """The tensor: which leaf of the result it would be, or is (`Again`)."""
    key: Any
    """The ops, to compare."""
    steps: Sequence[tuple[OpDef, Mapping[str, Any]]] = field(compare=False)
    tracked: bool
    """Whether gradients flow to the base."""
    detached: bool

    def of(self, base: Tensor) -> Tensor:
        """The view."""
        with contextlib.nullcontext() if self.tracked else no_grad():
            view = base
            for record, attrs in self.steps:
                view = record(view, **attrs)
        return view.detach() if self.detached else view

    def bind(self, sizes: Mapping[str, int]) -> Alias:
        """The same with numbers for symbolic sizes."""
        return replace(self, steps=[(record, bind_attributes(attrs, sizes)) for record, attrs in self.steps])


def alias_of(tensor: Tensor, base: Any) -> Alias | None:
    """What a traced view comes to whose base is the leaf `base` of the result; None where no ops say how it was made."""
    view = None if tensor._meta is None else tensor._meta.view
    if view is None or not (view.steps or view.detached):
        return None
    steps = view.steps
    key = tuple((record.name, tuple((name, attribute_key(value)) for name, value in attrs.items())) for record, attrs in steps)
    return Alias(base, key, steps, view.tracked, view.detached)


def shared_bases(leaves: Sequence[Any], made: Callable[[Tensor], bool]) -> list[Tensor]:
    """The traced tensors, no leaves themselves, that several leaves are views of: as `x.sum(0, keepdim=True)` may be one, of
    the sums. They are made real, too, for the sake of the memory that the leaves have in common. So are tensors of numbers in
    the code, of which `made` tells."""
    views: dict[int, dict[int, Tensor]] = {}
    for leaf in leaves:
        base = leaf._base if isinstance(leaf, Tensor) else None
        if base is not None and (not is_array(base._data) or made(base)):
            views.setdefault(id(base), {})[id(leaf)] = base
    known = set(map(id, leaves))
    return [next(iter(found.values())) for key, found in views.items() if len(found) > 1 and key not in known]


def completed(results: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """The leaves of a result. `values` are known ones; in the place of an alias, what it is a view of, if that is no leaf."""
    leaves = list(values)
    for k, result in enumerate(results):
        if isinstance(result, Again):
            leaves[k] = leaves[result.index]
        elif isinstance(result, Alias):
            leaves[k] = result.of(leaves[result.base.index if isinstance(result.base, Again) else k])
    return leaves
