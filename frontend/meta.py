"""What a tensor knows besides its numbers: its shape as a tuple, and, for some, a version, a base, a gradient, hooks."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from graphc.dims import Dim
from graphc.errors import ArgumentTypeError, GraphcError

if TYPE_CHECKING:
    from graphc.frontend.hooks import Hooks
    from graphc.frontend.tensor import Tensor
    from graphc.op import OpDef


def _size(size: Any) -> Any:
    if isinstance(size, (float, complex, str)):
        raise ArgumentTypeError(f"Size() takes an iterable of 'int', and one is {type(size).__name__!r}", got=repr(size))
    return size.__index__() if hasattr(size, "__index__") and not isinstance(size, Dim) else size


class Size(tuple[int, ...]):
    """A shape: a tuple of sizes that can count its elements.

    ArgumentTypeError for a size that is no int.

    >>> graphc.zeros(2, 3).shape
    graphc.Size([2, 3])
    >>> graphc.Size([2, 3]).numel()
    6
    """

    __slots__ = ()

    def __new__(cls, sizes: Iterable[Any] = ()) -> Size:
        return tuple.__new__(cls, [s if type(s) is int else _size(s) for s in sizes])

    def numel(self) -> int:
        """How many elements a tensor of this shape has."""
        return math.prod(self)

    def __repr__(self) -> str:
        return f"graphc.Size([{', '.join(map(str, self))}])"

    def __add__(self, other: Any) -> Size:
        return Size(tuple.__add__(self, tuple(other)))

    def __radd__(self, other: Any) -> Size:
        return Size(tuple(other) + tuple(self))

    def __mul__(self, count: Any) -> Size:
        return Size(tuple.__mul__(self, count))

    __rmul__ = __mul__

    def __getitem__(self, index: Any) -> Any:
        item = tuple.__getitem__(self, index)
        return Size(item) if isinstance(index, slice) else item

    def __reduce__(self) -> Any:
        return Size, (tuple(self),)


class Version:
    """Counts the in-place changes of a piece of memory; tensors that share the memory share the counter."""

    __slots__ = ("count", "lent", "origin")

    def __init__(self, origin: Version | None = None) -> None:
        self.count = 0
        self.lent = 0
        """How often somebody got at the memory who changes it without being counted here; -1: somebody may have its address."""
        self.origin = origin
        """For a piece of memory that is counted twice, as by `data`: the other counter."""

    def lend(self) -> None:
        """Take note that others have got at the memory, who hold on to its array as long as they may change it."""
        if self.lent >= 0:
            self.lent += 1

    def expose(self) -> None:
        """Take note that others may know the address of the memory."""
        version: Version | None = self
        while version is not None:
            version.lent = -1
            version = version.origin


class Steps(Protocol):
    """Steps that are worked out when somebody asks."""

    def __call__(self) -> list[tuple[OpDef, dict[str, Any]]]:
        """The ops, with their attributes."""
        ...


class View:
    """How a tensor that shares another one's memory is made from it: a step from its base, or from another view."""

    __slots__ = ("_base", "detached", "parent", "refusal", "seen", "step", "tracked", "turned")

    def __init__(
        self, base: Tensor, parent: View | None, step: tuple[OpDef, dict[str, Any]] | Steps | None, tracked: bool,
        detached: bool,
    ) -> None:
        # what is detached must not keep the graph of what it was detached from alive
        self._base: Any = weakref.ref(base) if detached else base
        self.parent = parent
        """The view that this one was made from; None for one of the base itself."""
        self.step = step
        """The op that leads here, with its attributes, or several; None for an alias."""
        self.tracked = tracked
        """Whether the gradient of the view flows to the base: not for `detach`, `data` and views made under no_grad."""
        self.detached = detached
        self.refusal: str | None = None
        """Why a gradient cannot follow a change in place through this view."""
        self.seen = base._node if tracked else None
        """The base's history when the view's own was made; a change in place gives the base a new one."""
        self.turned = False
        """Whether it is a tensor of its own to the program, whose shape was changed in place within a trace."""

    @property
    def base(self) -> Tensor | None:
        """The tensor that the memory was made for, never a view itself; None if nobody holds it any more."""
        return self._base() if self.detached else self._base

    def rebase(self, base: Tensor) -> None:
        """The memory, and its history, are another tensor's from here on."""
        self._base = weakref.ref(base) if self.detached else base

    @property
    def stale(self) -> bool:
        """Whether the history of the view is older than that of the base."""
        return self.tracked and self.seen is not self._base._node

    @property
    def steps(self) -> list[tuple[OpDef, dict[str, Any]]]:
        """The ops that lead from the base to the view."""
        steps = []
        view: View | None = self
        while view is not None:
            if isinstance(view.step, tuple):
                steps.append(view.step)
            elif view.step is not None:
                steps += view.step()[::-1]
            view = view.parent
        return steps[::-1]

    def read(self, base: Any) -> Any:
        """The view of a tensor of the base's shape."""
        for record, attrs in self.steps:
            base = record(base, **attrs)
        return base

    def write(self, base: Any, new: Any) -> Any:
        """`base` with `new` in the place of the view."""
        steps, befores = self.steps, [base]
        for record, attrs in steps[:-1]:
            befores.append(record(befores[-1], **attrs))
        for (record, attrs), before in zip(reversed(steps), reversed(befores)):
            if record.view is None:
                raise GraphcError(
                    "unsupported operation: more than one element of the written-to tensor refers to a single memory "
                    "location", hint="clone() the tensor before changing it in place")
            new = record.view(before, new, **attrs)
        return new


class Meta:
    """What only some tensors have: leaves that require grad, views, tensors changed in place, tensors with hooks."""

    __slots__ = ("accumulator", "grad", "hooks", "index", "inference", "post_hooks", "requires_grad", "version", "view")

    def __init__(self) -> None:
        self.requires_grad = False
        self.grad: Tensor | None = None
        self.index = 0
        """Which output of its node the tensor is."""
        self.version: Version | None = None
        self.view: View | None = None
        self.hooks: Hooks | None = None
        self.post_hooks: Hooks | None = None
        self.accumulator: Any = None
        self.inference = False
