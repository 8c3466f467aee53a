"""The trace that is running in this thread, or the level of a transform such as vmap, and what the front end asks of it; and
who watches what runs eagerly.

Everything that reads or writes a tensor asks `active()` first. The tracers are `graphc.frontend.trace` and the
levels of `graphc.frontend.level`; they stand above the tensor, which is why the question "is anybody tracing?" has a file
of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from graphc.frontend.autograd.function import Function
    from graphc.frontend.tensor import Tensor
    from graphc.op import OpDef


class BegunState(NamedTuple):
    """What an optimizer keeps of a parameter, made in the middle of a trace."""

    states: dict[Any, dict[str, Any]]
    """That of all parameters."""
    parameter: Tensor
    state: dict[str, Any]
    made: dict[str, Any]
    """What is new in it."""
    is_alike: bool
    """Whether the update that made it is like all that find it there."""

    @property
    def is_gone(self) -> bool:
        """Whether somebody has thrown it away since."""
        return self.parameter not in self.states or not self.made.keys() <= self.states[self.parameter].keys()

    @property
    def is_untouched(self) -> bool:
        """Whether it is as it was made, and all that there is."""
        state = self.states.get(self.parameter)
        same = state is self.state and state.keys() == self.made.keys()
        return same and all(self.state[name] is made for name, made in self.made.items())


class Tracer(Protocol):
    """What a running trace does for the tensors that are used inside it."""

    def apply(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """Append a node; `args` are tensors, Python numbers and arrays. Returns what the result holds, a graph's value."""
        ...

    def value(self, tensor: Tensor) -> Any:
        """The tensor's contents as they are at this point of the trace."""
        ...

    def write(self, tensor: Tensor, value: Any) -> None:
        """The tensor holds `value` from here on, and so do its views and its base."""
        ...

    def replace(self, tensor: Tensor, new: Tensor) -> None:
        """`tensor.data = new`."""
        ...

    def turn(self, tensor: Tensor) -> None:
        """The tensor is going to be another view of its memory, in another shape."""
        ...

    def get_grad(self, tensor: Tensor) -> Tensor | None:
        """`tensor.grad` at this point of the trace."""
        ...

    def set_grad(self, tensor: Tensor, grad: Tensor | None) -> None:
        """`tensor.grad = grad` from here on."""
        ...

    def concrete(self, tensor: Tensor, what: str) -> Any:
        """The tensor's array, where Python needs numbers; a TraceError naming the user's line where there are none yet."""
        ...

    def decide(self, tensor: Tensor, kind: Any, what: str) -> Any:
        """The tensor's one element as a `kind`, bool or int, where Python's way on depends on it; errors as above."""
        ...

    def number(self, tensor: Tensor) -> Any:
        """The tensor's one element as a Python number, or as something like it that stays in the graph."""
        ...

    @property
    def answers(self) -> bool:
        """Whether numbers can be had of it."""
        ...

    def tells_of(self, tensor: Tensor) -> bool:
        """Whether `decide` has an answer for what is computed from a tensor, and is to be asked for checks that eager code
        makes: not of what runs on a GPU, and not of what a transform runs."""
        ...

    def begin_backward(self) -> None:
        """A backward pass begins."""
        ...

    def compute_later(self, tensor: Tensor) -> Tensor:
        """The tensor, for what is to be computed from it again, now, and not to be merged with what was computed before."""
        ...

    def records(self, tensor: Tensor) -> bool:
        """Whether the tensor's history is kept here: to the levels of vmap and grad, tensors from outside are constants."""
        ...

    def call_function(self, function: type[Function], args: Sequence[Any]) -> Any:
        """Apply a user-defined `Function`."""
        ...

    def device_of(self, tensor: Tensor) -> Any:
        """Where a tensor that holds no array lives."""
        ...

    def transfer(self, tensor: Tensor, where: Any) -> Any:
        """What the tensor holds on another device."""
        ...

    def made(self, tensor: Tensor) -> None:
        """The code that is traced has made a tensor of numbers that it holds itself."""
        ...

    def aliased(self, tensor: Tensor) -> None:
        """The code that is traced has made a tensor on memory that another one has."""
        ...

    def scalar(self, mapping: Mapping[str, Any], key: str) -> Tensor:
        """`mapping[key]`, read anew at each call of the compiled function, as a 0-d float64 tensor."""
        ...

    def begun(self, begun: BegunState) -> None:
        """An optimizer that the code has not made itself has made state for a parameter."""
        ...


class Watcher(Protocol):
    """What takes note of the operations that a thread runs eagerly, and of calls of compiled functions."""

    def run(self, what: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the function, which is not watched meanwhile. `what` it is: an op, a function, or a name."""
        ...


class _State(threading.local):
    active: Tracer | None = None
    watcher: Watcher | None = None
    """Who watches, where nothing is traced."""
    around: Watcher | None = None
    """Who watches what is not traced."""
    tracer: Tracer | Watcher | None = None
    """The tracer or the watcher. Where there is neither, native code runs by itself."""


_state = _State()


def active() -> Tracer | None:
    """The trace that this thread is making, or None."""
    return _state.active


@contextmanager
def activated(tracer: Tracer | None) -> Iterator[None]:
    """Let `tracer` see everything that this thread does inside the block; None runs eagerly."""
    before = _state.active
    _switch(tracer, _state.around)
    try:
        yield
    finally:
        _switch(before, _state.around)


@contextmanager
def watched(watcher: Watcher | None) -> Iterator[None]:
    """Let `watcher` run what this thread does eagerly inside the block; with None, nothing is watched."""
    before = _state.around
    _switch(_state.active, watcher)
    try:
        yield
    finally:
        _switch(_state.active, before)


def _switch(tracer: Tracer | None, watcher: Watcher | None) -> None:
    _state.active, _state.around = tracer, watcher
    _state.watcher = watcher if tracer is None else None
    _state.tracer = watcher if tracer is None else tracer


def suspended() -> Any:
    """Run eagerly in the middle of a trace, for state that is made once."""
    return activated(None)
