"""Tracing: running Python code on tensors whose operations are written down as a graph instead of being computed.

Tensors that existed before are *lifted*: they become inputs of the graph, whether they came as arguments or were found
in a closure, a module or an optimizer. What is changed in place becomes an output that is written back. `.grad` is
kept in a table of its own until the trace is over, so nothing outside has changed while the function runs.

Where Python needs the numbers of a tensor, it asks the trace, and that asks its oracle, if it has one.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

import graphc.ops as ops
from graphc.errors import TraceError
from graphc.frontend.described import as_dtype
from graphc.frontend.device import CPU, device
from graphc.frontend.device_arrays import byte_bounds, is_array, is_on_device
from graphc.frontend.modes import mode
from graphc.frontend.nn.module import Module
from graphc.frontend.node import Edge
from graphc.frontend.symbolic_number import SymbolicNumber
from graphc.frontend.tensor import Tensor, View, wrap
from graphc.frontend.trace_devices import TraceDevices
from graphc.frontend.trace_inputs import Argument, Captured, Gradient, GradState, Lifted, Number, Source
from graphc.frontend.tracer import BegunState
from graphc.ir import Builder, Value
from graphc.op import OpDef, common_dtype, working_dtype
from graphc.types import Shape, TensorType, bool_, complex32, complex64, convert, float64, int64, scalar_dtype


class OnlyEagerly(TraceError):
    """Something that eager code may do and no graph can say."""


class NumbersNeeded(TraceError):
    """Python needs the numbers of a tensor where nobody knows them."""


class Oracle(Protocol):
    """Who knows the numbers of a trace: those of the present call."""

    refuses: bool
    """Whether it tells nothing but constants."""

    @property
    def plain_numbers(self) -> bool:
        """Whether `item()` is to give Python's own numbers."""
        ...

    def numbers(self, value: Value, what: str) -> np.ndarray:
        """The numbers, of which Python can make anything."""
        ...

    def decide(self, value: Value, kind: type[bool] | type[int], what: str) -> bool | int:
        """The one element as a bool or an int, of which Python learns nothing else."""
        ...


class Trace:
    """One trace. Used as the active tracer of a thread while the traced function runs."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[Any] = (),
        names: Mapping[int, str] | None = None,
        doors: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> None:
        """`doors` are pairs of an argument that stands for the result of another computation, and the leaf that its history
        ends in: there a backward pass would go on outside."""
        self.builder = Builder(name)
        self.backward_at: int | None = None
        """How many nodes there were when a backward pass first began."""
        self.oracle: Oracle | None = None
        self.given: list[weakref.ref[SymbolicNumber]] = []
        """The numbers that `item()` has given, and what became of them."""
        self.inputs: list[Lifted] = []
        self.grads: dict[int, GradState] = {}
        self._arguments = {id(a): i for i, a in reversed(list(enumerate(arguments))) if isinstance(a, Tensor)}
        self._doors = {id(argument): door for argument, door in doors}
        self._with_history = {id(door) for _, door in doors}
        self._names = names or {}
        self._lifted: dict[int, Lifted] = {}
        self._gradients: dict[int, Tensor] = {}  # id of a .grad that was there before -> the tensor that it belongs to
        self._current: dict[int, Value] = {}  # id of a tensor that was changed in place -> what it holds now
        self._views: dict[tuple[int, Value], Value] = {}
        self._scalars: dict[tuple[int, str], tuple[Tensor, Any]] = {}
        self.state_begun: list[BegunState] = []
        """What optimizers have made, in this order."""
        self._made: set[int] = set()
        self._aliased: dict[int, Tensor] = {}
        self._recorded: set[int] = set()  # ids of the tensors that a backward pass may read
        self._outdated: set[int] = set()  # ids of what lies in memory that a tensor had before it was given other memory
        self._shared: set[int] = set()  # ids of tensors whose memory is another one's, too
        self._turned: dict[int, Tensor] = {}  # id of a tensor whose shape was changed -> one that holds the memory in its place
        self.devices = TraceDevices(name)
        self.watched: set[int] = set()
        """The ids of tensors that were changed where autograd sees it: not under no_grad, and not by way of detach()."""
        self.hides_changes = False
        """Whether a tensor was changed that requires grad, and keeps its history: the graph's derivative is not the tape's."""
        self.leaves_traces = False
        """Whether the call does something to Python's state, and may have left there what it has made."""
        self._alive: list[Any] = [*arguments]  # ids must not be used again while the trace runs

    # What the front end asks (see graphc.frontend.tracer)

    def apply(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Value | tuple[Value, ...]:
        """Append a node."""
        operands = tuple(self.value(a) if isinstance(a, Tensor) else a for a in args)
        if self.given:
            operands = self._with_numbers(record, operands)
            attrs = {key: a.plain() if type(a) is SymbolicNumber else a for key, a in attrs.items()}
        if record.operands:
            result = self.builder.emit(record, operands, attrs)
        else:
            result = self.builder.emit(record, (), attrs)
        self.devices.check_together(operands)
        if any(isinstance(a, Tensor) and a.requires_grad for a in args):
            if not mode.grad:  # the tape does not see this: nor shall a derivative of the graph
                return tuple(map(stopped, result)) if isinstance(result, tuple) else stopped(result)
            self._recorded.update(id(self._root_of(a)) for a in args if isinstance(a, Tensor))
        return result

    def value(self, tensor: Tensor) -> Value:
        """The tensor's contents as they are at this point of the trace."""
        view, base = self._base(tensor)
        if view is None or base is None:
            return self._root(tensor)
        if id(base) not in self._current and not is_array(tensor._data):
            now = tensor._data  # made in this trace, of a base that has not changed since
        else:
            now = self._root(base)
            if id(base) in self._lifted and is_array(tensor._data):
                self._lifted[id(base)].is_viewed = True
        key = (id(tensor), now)
        if key not in self._views:
            self._alive.append(tensor)
            read = now if now is tensor._data else view.read(now)
            self._views[key] = read if view.tracked else stopped(read)
        return self._views[key]

    def write(self, tensor: Tensor, value: Value) -> None:
        """The tensor holds `value` from here on, and so do its views and its base."""
        view, base = self._base(tensor)
        if view is not None and base is not None:
            value, tensor = view.write(self._root(base), value), base
        else:
            self._root(tensor)
        if id(tensor) in self._shared:
            raise self._other_memory()
        if mode.grad and (view is None or view.tracked):
            self.watched.add(id(tensor))
        elif tensor.requires_grad:
            self.hides_changes = True
        self._alive.append(tensor)
        self._current[id(tensor)] = value

    def replace(self, tensor: Tensor, new: Tensor) -> None:
        """`tensor.data = new`: as a change by way of `data`, where that comes to the same; OnlyEagerly where it does not."""
        own, other = self._root_of(tensor), self._root_of(new)
        if new._data.shape != tensor._data.shape or new.dtype is not tensor.dtype:
            raise OnlyEagerly(f"{self.builder.name!r} gives a tensor numbers of another type by way of data: "
                              f"{tensor.dtype} {list(tensor.shape)} becomes {new.dtype} {list(new.shape)}",
                              hint="make a new tensor")
        if other is own:
            self.write(tensor.data, self.value(new))
            return
        if self._is_outside(other) or not {id(other), id(own)}.isdisjoint(self._shared) or id(own) in self._recorded:
            raise self._other_memory()
        self._outdated.update(key for key, alias in self._aliased.items()
                              if key not in self._outdated and self._root_of(alias) is own)
        self.write(tensor.data, self.value(new))
        self._shared.add(id(other))
        self._alive.append(other)

    def turn(self, tensor: Tensor) -> None:
        """See `Tracer`. The memory becomes that of a tensor that nobody sees; OnlyEagerly for a tensor from outside."""
        view, base = self._base(tensor)
        lifted = id(tensor) in self._lifted or id(tensor) in self._arguments
        if lifted or (is_array(tensor._data) and not self.is_made(tensor) and not self.is_alias(tensor)):
            raise OnlyEagerly(f"{self.builder.name!r} changes the shape of a tensor in place that was there before",
                              hint="make a view of it instead")
        if view is not None and base is not None:
            return
        memory = self._turned[id(tensor)] = wrap(tensor._data)
        memory._node, memory._state().index = tensor._node, tensor.output_nr
        memory._state().version = tensor._version_counter()
        if id(tensor) in self._made:
            self._made.remove(id(tensor))
            self.made(memory)
        if id(tensor) in self._current:
            self._current[id(memory)] = self._current.pop(id(tensor))
        own = tensor._state().view = View(memory, None, None, tracked=mode.grad, detached=False)
        own.turned = True
        self._alive.append(tensor)

    def settle(self, tensor: Tensor) -> None:
        """What is left of a call: see to it that a view knows the tensor whose memory it lies in now. OnlyEagerly where the
        memory is another one's, too."""
        if id(self._root_of(tensor)) in self._shared:
            raise self._other_memory()

    def _other_memory(self) -> OnlyEagerly:
        return OnlyEagerly(f"{self.builder.name!r} gives a tensor other memory by way of data, and it matters which it has",
                           hint="change it in place: x.data.copy_(new)")

    def get_grad(self, tensor: Tensor) -> Tensor | None:
        """`tensor.grad` at this point of the trace."""
        if self._is_made(tensor):
            return None if tensor._meta is None else tensor._meta.grad
        state = self.grads.get(id(tensor))
        if state is None:
            state = self._grad_state(tensor, read=True)
            if state.initial is not None:
                self._gradients[id(state.initial)] = tensor
        return state.current

    def set_grad(self, tensor: Tensor, grad: Tensor | None) -> None:
        """`tensor.grad = grad` from here on."""
        if self._is_made(tensor):
            tensor._state().grad = grad
            return
        if id(tensor) in self._with_history:
            raise OnlyEagerly(
                f"backward() inside {self.builder.name!r} reaches an argument that is itself the result of a computation: "
                "it would have to go on outside",
                expected="leaves, or backward() called on the result of the compiled function",
                hint="detach() the argument, or take backward() out of the compiled function",
            )
        state = self.grads.get(id(tensor)) or self._grad_state(tensor, read=False)
        state.current = grad

    @property
    def answers(self) -> bool:
        """Whether there are numbers to be had."""
        return self.oracle is not None and not self.oracle.refuses

    def tells_of(self, tensor: Tensor) -> bool:
        """Whether there are those of what is computed from a tensor, on the CPU."""
        return self.answers and self.devices.gpu is None and self.value(tensor).builder is self.builder

    def concrete(self, tensor: Tensor, what: str) -> np.ndarray:
        """The numbers of a tensor, which may not be written to; a TraceError that names the user's line where nobody knows
        them."""
        return self.ask(self.value(tensor), what)

    def decide(self, tensor: Tensor, kind: type[bool] | type[int], what: str) -> Any:
        """The one element as a bool or an int, where Python's way on depends on it; a TraceError as from `concrete`."""
        return self.choose(self.value(tensor), kind, what)

    def number(self, tensor: Tensor) -> Any:
        """The one element as a Python number, or as something like it that stays in the graph."""
        value = self.value(tensor)
        if value.dtype.is_complex or (self.oracle is not None and self.oracle.plain_numbers and value.dtype.is_differentiable):
            return convert(self.ask(value, "item()"), complex64 if value.dtype is complex32 else value.dtype).item()
        if value.dtype is bool_ or (self.oracle is not None and self.oracle.plain_numbers):
            return self.choose(value, bool if value.dtype is bool_ else int, "item()")
        wide = ops.cast(ops.reshape(value, ()), dtype=float64 if value.dtype.is_differentiable else int64)
        return SymbolicNumber(self, stopped(wide))

    def ask(self, value: Value, what: str) -> np.ndarray:
        """The numbers of a value."""
        return self._oracle(value, what).numbers(value, what)

    def choose(self, value: Value, kind: type[bool] | type[int], what: str) -> Any:
        """The one element of a value as a bool or an int."""
        return self._oracle(value, what).decide(value, kind, what)

    def _oracle(self, value: Value, what: str) -> Oracle:
        if value.builder is None:
            value.__graphc_emitter__  # noqa: B018  (raises: the number outlived its trace)
        if self.oracle is None:
            raise self.refusal(value, what)
        return self.oracle

    def refusal(self, value: Value, what: str) -> NumbersNeeded:
        """The error of a question that nobody answers."""
        return NumbersNeeded(
            f"{what} needs the numbers of a tensor while {self.builder.name!r} is being traced: data-dependent control "
            "flow cannot become part of one graph",
            expected="code that does not look at the values of tensors",
            got=f"{what} of {value.type}",
            hint="choose with where(condition, a, b), keep the value a tensor, or compile without fullgraph=True",
        )

    def begin_backward(self) -> None:
        """A backward pass begins: what comes from now on may compute again what was computed before."""
        if self.backward_at is None:
            self.backward_at = len(self.builder.nodes)
        self._recorded.clear()

    def compute_later(self, tensor: Tensor) -> Tensor:
        """The tensor as another value, which waits for what was computed last."""
        latest = next((node.results[0] for node in reversed(self.builder.nodes) if node.operands), None)
        if latest is None:
            return tensor
        return wrap(ops.fence(self.value(tensor), latest)).requires_grad_(tensor.requires_grad)

    def records(self, tensor: Tensor) -> bool:
        """All tensors may have a history within the trace."""
        return True

    def call_function(self, function: Any, args: Sequence[Any]) -> Any:
        """Apply a user-defined `Function`: the operations of its forward are recorded, its backward is known to the tape."""
        return function.run(args)

    def device_of(self, tensor: Tensor) -> device:
        """Where the program has the tensor."""
        return self.place_of(self.value(tensor))

    def place_of(self, value: Value) -> device:
        """Where the program has a value."""
        return self.devices.of(value)

    def transfer(self, tensor: Tensor, where: device) -> Value:
        """The same numbers, which the program has elsewhere from here on."""
        value = self.value(tensor)
        moved = self.builder.emit(ops.cast, (value,), {"dtype": value.dtype})
        self.devices.put(moved, where)
        return moved

    def made(self, tensor: Tensor) -> None:
        """A tensor of numbers in the code is lifted as any other; each call has one of its own."""
        self._made.add(id(tensor))
        self._alive.append(tensor)

    def is_made(self, tensor: Tensor) -> bool:
        """Whether the code has made a tensor of numbers, of which each call has one of its own."""
        return id(tensor) in self._made

    def aliased(self, tensor: Tensor) -> None:
        """See `Tracer`; of what the trace itself has computed there is nothing to note."""
        if is_array(tensor._data):
            self._aliased[id(tensor)] = tensor

    def is_alias(self, tensor: Tensor) -> bool:
        """Whether the code has made a tensor on memory from outside: each call makes one of its own."""
        return id(tensor) in self._aliased

    def leaves_on_memory(self) -> list[Tensor]:
        """Leaves that the code has made on memory from outside."""
        return [x for x in self._aliased.values() if x._node is None and x.requires_grad and is_array(x._data)]

    def scalar(self, mapping: Mapping[str, Any], key: str) -> Tensor:
        """`mapping[key]`, read anew at each call of the compiled function, as a 0-d float64 tensor."""
        now = mapping[key]
        known, number = self._scalars.get((id(mapping), key), (None, None))
        if known is None or now is not number:
            value = self.builder.input(None, TensorType(float64, ()), number=key)
            self.inputs.append(Lifted(Number(mapping, key), value, array=np.asarray(now, np.float64)))
            known = wrap(value)
            self._scalars[id(mapping), key] = known, now
            self._alive.append(mapping)
        return known

    def begun(self, begun: BegunState) -> None:
        """See `Tracer`."""
        self.state_begun.append(begun)

    def _with_numbers(self, record: OpDef, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        """Operands of which some are numbers of the graph: these get the dtypes that Python's own would get."""
        if not any(type(a) is SymbolicNumber for a in operands):
            return operands
        plain: list[Any] = [
            a.__class__(1) if type(a) is SymbolicNumber else a.type if isinstance(a, Value) else a for a in operands
        ]
        common = working_dtype(record, plain, common_dtype(record, plain)) if record.elementwise else None
        cast = []
        for a, name, number in zip(operands, record.operands, plain):
            if type(a) is SymbolicNumber:
                dtype = scalar_dtype(number) if name in record.keeps else common
                a = a.value if dtype is None or a.value.dtype is dtype else ops.cast(a.value, dtype=dtype)
            cast.append(a)
        return tuple(cast)

    # Afterwards

    def owner(self, tensor: Tensor) -> Argument | Captured:
        """What a tensor is at another call: the argument in its place, or itself."""
        return Argument(self._arguments[id(tensor)]) if id(tensor) in self._arguments else Captured(tensor)

    def updates(self) -> list[tuple[int, Value]]:
        """The inputs that were changed in place, by number, with what they hold in the end."""
        return [
            (i, self._current[id(lifted.tensor)])
            for i, lifted in enumerate(self.inputs)
            if lifted.tensor is not None
            and (self.leaves_traces or not self.is_made(lifted.tensor))
            and id(lifted.tensor) in self._current
            and (self._current[id(lifted.tensor)] is not lifted.value or self.changes(lifted))
        ]

    def lifted(self, tensor: Tensor) -> Lifted | None:
        """The input that stands for a tensor, if it was used."""
        return self._lifted.get(id(tensor))

    def check_overlaps(self) -> None:
        """Inputs that share memory without one being a view of the other can only be read; OnlyEagerly otherwise."""
        written = {i for i, _ in self.updates()}
        spans = []
        for i, lifted in enumerate(self.inputs):
            if lifted.tensor is not None and lifted.data.size:
                low, high = byte_bounds(lifted.data)
                spans.append((low, high, i))
        spans.sort()
        reach, owner = 0, -1
        for low, high, i in spans:
            if low < reach and (i in written or owner in written):
                raise OnlyEagerly(
                    f"{self.builder.name!r} changes a tensor in place whose memory another one uses: inputs {owner} and {i}",
                    expected="tensors with memory of their own, or views made by graphc",
                    hint="clone() one of them",
                )
            if high > reach:
                reach, owner = high, i

    def check_histories(self) -> None:
        """OnlyEagerly where a tensor from outside has a history now that it could not be given when the trace is over."""
        for lifted in self.inputs:
            tensor = lifted.tensor
            if tensor is None or tensor._node is lifted.node or (self.is_made(tensor) and not self.leaves_traces):
                continue
            grown = isinstance(lifted.source, (Argument, Captured)) and id(tensor) in self._current
            if not grown or tensor._node is None or (lifted.node is not None and id(tensor) not in self._doors):
                raise OnlyEagerly(
                    f"{self.builder.name!r} changes the history of a tensor that was not passed to it, or takes it away: "
                    f"{lifted.value!r}",
                    expected="in-place changes of arguments, or of tensors without a history",
                    hint="return the new value instead",
                )

    def edge_to_input(self, lifted: Lifted) -> Edge:
        """Where in the trace's tape the cotangent of an input comes out; OnlyEagerly where the tape goes on outside."""
        assert lifted.tensor is not None
        if id(lifted.tensor) in self._doors:
            return self._doors[id(lifted.tensor)], 0
        if lifted.node is not None:
            raise OnlyEagerly(
                f"{self.builder.name!r} uses a tensor with a history that was not passed to it: {lifted.value!r}",
                hint="make it an argument, or detach() it",
            )
        return lifted.tensor, 0

    def input_at(self, target: Tensor) -> Lifted | None:
        """The input that stands for a leaf of the tape."""
        inside = next((argument for argument, door in self._doors.items() if door is target), id(target))
        return self._lifted.get(inside)

    def changes(self, lifted: Lifted) -> int:
        """How often an input was changed in place."""
        return 0 if lifted.tensor is None else lifted.tensor._version - lifted.version

    def restore(self) -> None:
        """The end, good or bad: the values are cut loose, and tensors from outside have the history and the version that they
        had."""
        self.builder.abandon()
        for lifted in self.inputs:
            tensor = lifted.tensor
            if tensor is not None:
                tensor._node = lifted.node
                if tensor._version != lifted.version:
                    tensor._version_counter().count = lifted.version

    # Within

    def _grad_state(self, tensor: Tensor, read: bool) -> GradState:
        initial = None if tensor._meta is None else tensor._meta.grad
        state = self.grads[id(tensor)] = GradState(tensor, initial, initial, read)
        self._alive += [tensor, initial]
        return state

    def _base(self, tensor: Tensor) -> tuple[View | None, Tensor | None]:
        meta = tensor._meta
        view = None if meta is None else meta.view
        if meta is None or view is None or id(tensor) in self._lifted:
            return None, None
        if id(tensor) in self._outdated:
            raise self._other_memory()
        if view.detached and meta.requires_grad and is_array(tensor._data) and not self.is_alias(tensor):
            return None, None  # a leaf, that others' gradients flow to: it is an input by itself
        base = view.base
        if base is not None and id(base) in self._turned and id(base) != id(tensor):
            base = self._turned[id(base)]
            view.rebase(base)
        return view, base

    def _root(self, tensor: Tensor) -> Value:
        """The contents of a tensor that is no view."""
        now = self._current.get(id(tensor))
        if now is not None:
            return now
        if not is_array(tensor._data):
            return tensor._data
        lifted = self._lifted.get(id(tensor))
        return (self._lift(tensor) if lifted is None else lifted).value

    def _root_of(self, tensor: Tensor) -> Tensor:
        base = self._base(tensor)[1]
        return tensor if base is None else base

    def _is_outside(self, tensor: Tensor) -> bool:
        """Whether a tensor that is no view was there before the trace."""
        return not self.is_made(tensor) and (is_array(tensor._data) or id(tensor) in self._lifted)

    def _is_made(self, tensor: Tensor) -> bool:
        """Whether a tensor has been computed in this trace."""
        return not is_array(tensor._data) and id(tensor) not in self._lifted

    def declare_sizes(self, tensor: Tensor, shape: Shape, name: str | None = None) -> None:
        """Make an argument an input whose sizes are those of `shape`, symbols among them. The tensor, which must be nobody
        else's, has that shape from here on."""
        lifted = self._lift(tensor, name)
        lifted.array, lifted.value.type = tensor._data, lifted.value.type.with_shape(shape)
        tensor._data = lifted.value

    def declare(self, tensor: Tensor, name: str | None) -> None:
        """Make an argument an input now, by this name, whether it is going to be used or not."""
        self._lift(tensor, name)

    def _lift(self, tensor: Tensor, name: str | None = None) -> Lifted:
        source: Source
        info = {}
        if id(tensor) in self._arguments:
            source = Argument(self._arguments[id(tensor)])
        elif id(tensor) in self._gradients:
            source = Gradient(self.owner(self._gradients[id(tensor)]))
        else:
            source = Captured(tensor)
        if id(tensor) in self._names:
            info = {"param": self._names[id(tensor)]}
        if name is not None:
            taken = {x.value.name for x in self.inputs}
            while name in taken:
                name += "_"
        data = tensor._data
        value = self.builder.input(name, TensorType(as_dtype(data.dtype), data.shape), **info)
        where = tensor.device if is_on_device(data) else CPU
        if id(tensor) not in self._made or where is not CPU:
            self.devices.put(value, where)
        lifted = self._lifted[id(tensor)] = Lifted(
            source, value, tensor, tensor._node, tensor.requires_grad, tensor._version)
        self.inputs.append(lifted)
        self._alive.append(tensor)
        return lifted


def stopped(value: Value) -> Value:
    """The value, through which no gradient flows."""
    return ops.stop_gradient(value) if value.dtype.is_differentiable else value


def parameter_names(function: Any) -> dict[int, str]:
    """The names of the parameters and buffers of a module, by the id of the tensor."""
    owner = function if isinstance(function, Module) else getattr(function, "__self__", None)
    if not isinstance(owner, Module):
        return {}
    return {id(t): name for name, t in (*owner.named_parameters(), *owner.named_buffers())}


def graph_name(function: Any) -> str:
    """What the graph of a function is called."""
    name = getattr(function, "__name__", type(function).__name__)
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name).strip("_") or "main"
