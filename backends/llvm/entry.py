"""Native entries: a graph's checks, inputs and results as a table (see `entry_table`) for the code in `entry_code`."""

from __future__ import annotations

import ctypes
import functools
import heapq
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.backends.llvm import objects
from graphc.backends.llvm.blocks import blocks
from graphc.backends.llvm.entry_code import render
from graphc.backends.llvm.entry_table import ANY, THREAD_LOCALS, After, Check, Header, Leaf, Output, Result, Slots, Tensor
from graphc.backends.llvm.entry_writer import FUNCTIONS, OBJECTS
from graphc.backends.llvm.jit import NativeModule, compile_module
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.workspace import Workspace, run_program_address
from graphc.config import note
from graphc.specs import ABSENT, ANYTHING, ArrayInput, EntrySpec, Guard, TensorCheck, TensorClass, ValueCheck
from graphc.types import TensorType

RELEASE_NANOSECONDS = 20_000
"""Work from which on other threads may run meanwhile: handing over the interpreter's lock costs some hundred nanoseconds."""

_METH_FASTCALL_KEYWORDS = 0x0080 | 0x0002


class NativeEntry:
    """A table, and everything that it points to."""

    def __init__(self, module: EntryModule, words: np.ndarray, alive: list[Any]) -> None:
        self._module = module
        self._words = words
        self._alive = (alive, module)

    @property
    def calls(self) -> int:
        """How many calls have passed the checks."""
        return int(self._words[Header.CALLS])

    def bind(self, fallback: Callable[..., Any]) -> Callable[..., Any]:
        """A built-in function: the graph's, or else what `fallback` returns."""
        return self._module.new((self._words, self._alive, fallback))


def make_entry(
    spec: EntrySpec,
    outputs: Sequence[TensorType],
    *,
    run: int,
    constants: int,
    workspace: Workspace,
    nanoseconds: float,
    failed: Callable[[int], Any],
    alive: Sequence[Any],
    prepares: bool,
    sizes: int | None = None,
    arena: int | None = None,
) -> NativeEntry | None:
    """The entry of a program.

    run, constants
        Addresses of the program and of the array of its constants' addresses.
    nanoseconds
        How long a run takes, roughly.
    failed
        Raises the error for what a program returns if not 0.
    alive
        What must not go while there is an entry.
    prepares
        Whether the program takes prepared memory, which the spec must have then.
    sizes, arena
        For symbolic sizes: the address of their table, and how many bytes the arena must have.
    """
    if prepares and spec.prepared is None:
        return None
    table = _Table(spec, outputs, sizes)
    try:
        module = entry_module(spec.tensors)
        nbytes = workspace.nbytes if arena is None else arena
        words = table.words(module, run, constants, workspace, nbytes, failed, nanoseconds >= RELEASE_NANOSECONDS)
    except objects.Unsupported as reason:
        note(1, f"graphc: no native entry: {reason}")
        return None
    return NativeEntry(module, words, [*table.alive, workspace, *alive])


class _Table:
    """The words of a table under construction."""

    def __init__(self, spec: EntrySpec, outputs: Sequence[TensorType], sizes: int | None) -> None:
        self.spec = spec
        self.sizes = sizes
        self.outputs = outputs
        self.alive: list[Any] = []
        checks = [*spec.arguments, *spec.held]
        self.inputs = len(spec.numbers) + sum(not isinstance(c, ValueCheck) and c.input is not None for c in checks)
        self.inputs += (spec.prepared is not None) + (sizes is not None)
        self._written = {i for _, i in spec.updates}

    def words(
        self, module: EntryModule, run: int, constants: int, workspace: Workspace, arena: int, failed: Callable[[int], Any],
        releases: bool,
    ) -> np.ndarray:
        """The whole table."""
        spec = self.spec
        checks, outputs, afterwards, leaves = self._checks(module), self._outputs(), self._afterwards(), self._leaves()
        kinds = {"one": Result.ONE, "tuple": Result.TUPLE, "list": Result.LIST}
        finish, kind = (None, kinds[spec.result]) if isinstance(spec.result, str) else (spec.result, Result.FINISHED)
        starts = np.cumsum([len(Header), len(checks), len(outputs), len(afterwards)])
        header = {
            Header.ARGUMENTS: len(spec.arguments) - len(spec.keywords),
            Header.KEYWORDS: self._object(spec.keywords) if spec.keywords else 0,
            Header.INPUTS: self.inputs,
            Header.OUTPUTS: len(self.outputs),
            Header.FRAME: self._numbers_place + len(spec.numbers),
            Header.CHECKS: starts[0],
            Header.OUTPUT_LIST: starts[1],
            Header.AFTERWARDS: starts[2],
            Header.RESULT: starts[3],
            Header.LEAVES: len(spec.leaves),
            Header.RESULT_KIND: kind,
            Header.FINISH: self._object(finish) if finish else 0,
            Header.RUN: run,
            Header.CONSTANTS: constants,
            Header.WORKSPACE: workspace.address,
            Header.ARENA_BYTES: arena,
            Header.RELEASES: releases,
            Header.FAILED: self._object(functools.partial(_stopped, spec, failed)),
            Header.CALLS: 0,
        }
        words = [*(header[which] for which in Header), *checks, *outputs, *afterwards, *leaves]
        return np.array([int(word) for word in words], np.int64)

    @property
    def _numbers_place(self) -> int:
        return 5 * self.inputs + 2 * len(self.outputs)

    def _object(self, thing: Any) -> int:
        """The address of an object, which stays as long as the table does."""
        self.alive.append(thing)
        return id(thing)

    def _value(self, thing: Any) -> int:
        return 0 if thing is ABSENT or thing is ANYTHING else self._object(thing)

    def _checks(self, module: EntryModule) -> list[int]:
        spec, words = self.spec, []
        # What is most likely to differ comes first. Checks of Python's state may run code, a destructor if nothing else, that
        # lets go of an array: tensors are looked at once more when nothing but the run is to come.
        for number, check in enumerate(spec.arguments):
            if isinstance(check, ValueCheck):
                words += _instruction(Check.VALUE, number, self._object(check.value))
            elif isinstance(check, ArrayInput):
                words += _instruction(Check.ARRAY, check.argument, check.input)
            else:
                words += self._tensor(check)
        for left, right, same in spec.identities:
            words += _instruction(Check.SAME, left, right, int(same))
        if spec.thread:
            words += module.thread_check(spec.thread, self.alive)
        for guard in spec.guards:
            words += self._guard(guard)
        for k, number_input in enumerate(spec.numbers):
            place = self._numbers_place + k
            words += _instruction(
                Check.NUMBER, self._object(number_input.mapping), self._object(number_input.key), number_input.input, place
            )
        for check in (*spec.arguments, *spec.held):
            if isinstance(check, TensorCheck):
                words += self._tensor(check)
        words += self._apart()
        if spec.prepared is not None:
            self.alive.append(spec.prepared)
            place = self.inputs - 1 - (self.sizes is not None)
            words += _instruction(Check.ADDRESS, spec.prepared.__array_interface__["data"][0], place)
        if self.sizes is not None:
            words += _instruction(Check.ADDRESS, self.sizes, self.inputs - 1)
        for tensor, _ in spec.grads:
            words += _instruction(Check.HOLDER, self._object(tensor))
        for tensor in spec.no_grads:
            words += _instruction(Check.NO_GRAD, self._object(tensor))
        return [*words, *END]

    def _guard(self, guard: Guard) -> list[int]:
        owner, expected = self._object(guard.owner), guard.expected
        match guard.kind:
            case "cell":
                return _instruction(Check.CELL, owner, self._value(expected))
            case "item":
                return _instruction(Check.ITEM, owner, self._object(guard.key), self._value(expected))
            case "dict":
                pairs = [word for key, value in expected for word in (self._object(key), self._value(value))]
                return _instruction(Check.DICT, owner, len(expected), *pairs)
            case "list":
                return _instruction(Check.LIST, owner, len(expected), *map(self._object, expected))
            case "slot":
                offset = objects.member_offset(guard.key)
                if objects.load_pointer(owner + offset) != self._value(expected):
                    raise objects.Unsupported(f"the slot {guard.key!r} is not where it was expected")
                return _instruction(Check.SLOT, owner, offset, self._value(expected))
            case "function":
                # a missing default is null in C
                parts = [0 if part is None else self._object(part) for part in expected]
                return _instruction(Check.FUNCTION, owner, *parts)
            case "type":
                return _instruction(Check.TYPE, owner, self._object(expected))
            case "class":
                return _instruction(Check.VERSION, owner, objects.type_version(guard.owner))
            case "namespace":
                return _instruction(Check.NAMESPACE, owner, self._object(expected))

    def _tensor(self, check: TensorCheck) -> list[int]:
        itemsize, strides = check.dtype.itemsize, check.strides or row_major(check.shape)
        low = sum((n - 1) * s * itemsize for n, s in zip(check.shape, strides) if s < 0)
        high = sum((n - 1) * s * itemsize for n, s in zip(check.shape, strides) if s > 0) + itemsize
        empty = 0 in check.shape
        written = check.input in self._written
        operands = {
            Tensor.ARGUMENT: -1 if check.argument is None else check.argument,
            Tensor.OBJECT: 0 if check.tensor is None else self._object(check.tensor),
            Tensor.TYPE: self._object(check.type),
            Tensor.REQUIRES_GRAD: 0 if check.requires_grad is None else id(check.requires_grad),
            Tensor.ADDRESS: check.address or 0,
            Tensor.DTYPE: self._object(check.dtype),
            Tensor.FLAGS: objects.ALIGNED | (objects.WRITEABLE if written else 0),
            Tensor.INPUT: -1 if check.input is None else check.input,
            Tensor.COUNTED: int(written),
            Tensor.LOW: 0 if empty else low,
            Tensor.HIGH: 0 if empty else high,
            Tensor.NDIM: len(check.shape),
        }
        steps = [ANY if empty or n == 1 else s * itemsize for n, s in zip(check.shape, strides)]
        return _instruction(Check.TENSOR, *operands.values(), *check.shape, *steps)

    def _apart(self) -> list[int]:
        """No argument may share memory with what is written, nor a written one with anything.

        Of tensors that are no arguments the arrays are known: whoever made the spec has seen to those.
        """
        words: list[int] = []
        if not self._written:
            return words
        every = [c.input for c in (*self.spec.arguments, *self.spec.held) if isinstance(c, TensorCheck) and c.input is not None]
        arguments = {c.input for c in self.spec.arguments if isinstance(c, TensorCheck) and c.input is not None}
        done: set[int] = set()
        for number in sorted(arguments):
            done.add(number)
            others = [i for i in every if i not in done and (number in self._written or i in self._written)]
            if others:
                words += _instruction(Check.APART, number, len(others), *others)
        return words

    def _outputs(self) -> list[int]:
        words: list[int] = []
        donated = dict(self.spec.updates)
        grads = {j: tensor for tensor, j in self.spec.grads if j is not None}
        for j, type_ in enumerate(self.outputs):
            if j in donated:
                words += _instruction(Output.DONATED, j, donated[j])
                continue
            shape = [int(n) for n in type_.shape]
            dtype = type_.dtype.numpy
            nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            operands = [j, self._object(dtype), nbytes, len(shape), *shape]
            if j in grads:
                words += _instruction(Output.GRADIENT, *operands, self._object(grads[j]))
            else:
                words += _instruction(Output.FRESH, *operands)
        return [*words, *END]

    def _afterwards(self) -> list[int]:
        words: list[int] = []
        for _, i in self.spec.updates:
            words += _instruction(After.COUNT, i)
        for tensor, j in self.spec.grads:
            if j is None:
                words += _instruction(After.CLEAR_GRAD, self._object(tensor))
            else:
                words += _instruction(After.SET_GRAD, self._object(tensor), j)
        return [*words, *END]

    def _leaves(self) -> list[int]:
        kinds = {"output": Leaf.OUTPUT, "array": Leaf.ARRAY, "argument": Leaf.ARGUMENT, "object": Leaf.OBJECT}
        words: list[int] = []
        for leaf in self.spec.leaves:
            reference = self._object(leaf.reference) if leaf.kind == "object" else leaf.reference
            words += [kinds[leaf.kind], reference, self._object(leaf.node)]
        return words


def _stopped(spec: EntrySpec, failed: Callable[[int], Any], status: int) -> None:
    """Raise the error for what a program returned. Gradients that it was to replace are gone: part may be written over."""
    for tensor, output in spec.grads:
        metadata = getattr(tensor, spec.tensors.metadata)
        if output is not None and metadata is not None:
            setattr(metadata, spec.tensors.grad, None)
    failed(status)


END = (0, 2, 0, 0)  # the first two operands of an instruction are read before it is known to be the last


def _instruction(operation: int, *operands: int) -> list[int]:
    words = [int(operation), 0, *operands]
    words += [0] * (4 - len(words))
    words[1] = len(words)
    return words


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a row-major array, in elements."""
    strides = [1]
    for n in reversed(shape[1:]):
        strides.append(strides[-1] * n)
    return tuple(reversed(strides)) if shape else ()


class _MethodDef(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))


_PARTS = (("entry",), ("eager", "view", "recorded", "subscript"), ("walk", "dependencies"))
"""The functions that are compiled together, as soon as one of them is called for: of all they take a third of a second."""


class _Shared(ctypes.Structure):
    """The variables of all parts: thread-local objects, the `__dict__` of each in the thread whose number follows, or -1."""

    _fields_ = (
        ("locals", ctypes.c_void_p * THREAD_LOCALS), ("namespaces", ctypes.c_void_p * THREAD_LOCALS), ("thread", ctypes.c_int64)
    )  # fmt: skip


class EntryModule:
    """The code of all entries for a class of tensors."""

    def __init__(self, tensors: TensorClass) -> None:
        self._tensors = tensors
        self._shared = _Shared(thread=-1)
        imports = {"PyArray_NewFromDescr": objects.array_constructor(), "run_program": run_program_address()}
        imports |= blocks().imports
        imports |= {name: objects.address_of(getattr(ctypes.pythonapi, name)) for name in FUNCTIONS}
        self._objects = {
            "None": None, "True": True, "False": False, "float": float, "int": int, "str": str, "ndarray": np.ndarray,
            "tensor": tensors.tensor, "metadata": tensors.metadata_class, "counter": tensors.counter_class,
            "view": tensors.view_class, "zero": 0, "one": 1, "RuntimeError": RuntimeError,
            "__dict__": sys.intern("__dict__"), "shape": sys.intern("shape"), "handler": blocks().capsule,
            "plain_metadata": tensors.metadata_class(), "plain_counter": tensors.counter_class(),
            "plain_view": tensors.plain_view, "saved": tensors.plain_saved, "sequence": tensors.sequence,
            "own_code": tensors.own_code, "anomaly": tensors.anomaly,
            "node": tensors.node_base, "op_node": tensors.node_class,
            "compiled_node": tensors.compiled_class, "tuple": tuple, "list": list, "dict": dict,
            "float32": np.dtype(np.float32), "float64": np.dtype(np.float64), "order": sys.intern("order"),
            "starts": sys.intern("starts"), "stops": sys.intern("stops"), "steps": sys.intern("steps"),
            "slice": slice, "Ellipsis": Ellipsis,
            "heappush": heapq.heappush, "heapreplace": heapq.heapreplace,
        }  # fmt: skip
        imports |= {f"object.{name}": id(self._objects[name]) for name in OBJECTS}
        start = ctypes.addressof(self._shared)
        self._imports = imports | {name: start + getattr(_Shared, name).offset for name, _ in _Shared._fields_}
        self._module = render(_slots(tensors))
        self._natives: list[NativeModule] = []
        self._definitions: dict[str, _MethodDef] = {}
        self._named: list[_MethodDef] = []
        self._new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
            objects.address_of(ctypes.pythonapi.PyCFunction_NewEx)
        )
        self._known_locals: list[Any] = []

    def _definition(self, function: str) -> _MethodDef:
        """A function, which may have to be compiled first. Threads that want it at once may each compile it."""
        if function not in self._definitions:
            part = next(part for part in _PARTS if function in part)
            native = compile_module(self._module.part(part), Target.host(), imports=self._imports)
            self._natives.append(native)
            for name in part:
                made = _MethodDef(f"graphc_{name}".encode(), native.address(name), _METH_FASTCALL_KEYWORDS, None)
                self._definitions.setdefault(name, made)
        return self._definitions[function]

    def thread_local(self, owner: Any) -> int:
        """The number of a thread-local object."""
        for number, known in enumerate(self._known_locals):
            if known is owner:
                return number
        number = len(self._known_locals)
        if number == THREAD_LOCALS:
            raise objects.Unsupported("too many thread-local objects")
        self._known_locals.append(owner)
        self._shared.locals[number] = id(owner)
        self._shared.thread = -1  # the code has to ask again
        return number

    def thread_attribute(self, owner: Any, name: str, value: Any, alive: list[Any]) -> list[int]:
        """What an attribute of a thread-local object has to be, in four words; `alive` is what they point to."""
        unset = getattr(type(owner), name, ABSENT)
        name = sys.intern(name)
        alive += [name, value, unset]
        return [self.thread_local(owner), id(name), id(value), 0 if unset is ABSENT else id(unset)]

    def thread_check(self, thread: Sequence[tuple[Any, str, Any]], alive: list[Any]) -> list[int]:
        """An instruction that checks such attributes."""
        words = [word for attribute in thread for word in self.thread_attribute(*attribute, alive)]
        return _instruction(Check.THREAD, len(thread), *words)

    def checks(
        self, arguments: tuple[TensorCheck | ValueCheck, ...], identities: tuple[tuple[int, int, bool], ...],
        thread: tuple[tuple[Any, str, Any], ...], alive: list[Any],
    ) -> list[int]:
        """A list of instructions that checks arguments and the thread's state."""
        table = _Table(EntrySpec(
            tensors=self._tensors, thread=thread, arguments=arguments, held=(), numbers=(), guards=(), identities=identities,
            updates=(), grads=(), no_grads=(), leaves=(), result="tuple",
        ), (), None)  # fmt: skip
        alive.append(table.alive)
        return table._checks(self)

    def new(self, state: tuple[Any, ...], function: str = "entry") -> Callable[..., Any]:
        """A built-in function with this `self`."""
        return self._new(ctypes.addressof(self._definition(function)), state, None)

    def new_documented(self, state: tuple[Any, ...], function: str, like: Callable[..., Any]) -> Callable[..., Any]:
        """One that has the docstring of the function in whose place it is called."""
        plain = self._definition(function)
        definition = _MethodDef(plain.name, plain.function, plain.flags, (like.__doc__ or "").encode() or None)
        self._named.append(definition)  # as long as the function lives, which may be as long as the process
        return self._new(ctypes.addressof(definition), state, None)


@functools.cache
def entry_module(tensors: TensorClass) -> EntryModule:
    return EntryModule(tensors)


def _slots(tensors: TensorClass) -> Slots:
    classes: dict[type, tuple[str, ...]] = {
        tensors.tensor: ("data", "node", "metadata"),
        tensors.metadata_class: ("requires_grad", "grad", "version", "view", "index", "inference"),
        tensors.counter_class: ("count",),
        tensors.view_class: ("base", "tracked", "seen", "parent", "step", "detached"),
        tensors.node_class: ("edges", "sequence", "saved", "out", "types", "attrs", "code", "last", "plan", "watched"),
        tensors.plan_class: ("native",),
        tensors.compiled_class: ("how", "kept", "saved", "versions", "outputs"),
        type(tensors.plain_saved): ("tensor", "version", "count", "unpack"),
        type(tensors.anomaly): ("enabled",),
    }
    own = {tensors.node_class: "node_", tensors.plan_class: "plan_", tensors.compiled_class: "compiled_",
           type(tensors.plain_saved): "saved_"}
    offsets = {
        own.get(cls, "") + field: objects.slot_offset(cls, getattr(tensors, own.get(cls, "") + field))
        for cls, fields in classes.items() for field in fields
    }  # fmt: skip
    words = {
        "metadata_words": tensors.metadata_class, "counter_words": tensors.counter_class, "view_words": tensors.view_class,
        "saved_words": type(tensors.plain_saved),
    }  # fmt: skip
    return Slots(**offsets, **{name: cls.__basicsize__ // 8 for name, cls in words.items()})
