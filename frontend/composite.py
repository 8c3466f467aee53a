"""Functions made of several ops that run as one native function, eagerly too.

A composite is an ordinary pure function of tensors and plain values. Called outside a trace, it is traced for its
arguments' types and compiled once that pays: at once where the tensors are large, and otherwise when it has been called
with such arguments many times. Until then, and wherever anything is out of the ordinary, its ops run one by one; the
last bits of the numbers may differ. On the tape it is one node, whose backward is one native function too.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np

from graphc.backend import Entry, Executable, get_backend
from graphc.config import config
from graphc.errors import ArgumentTypeError, DimError, GraphcError
from graphc.frontend.argument_errors import not_a_tensor
from graphc.frontend.graph_call import ArrayFunction, CompiledBackward, Differentiable, compiled_template
from graphc.frontend.hooks import saved_hooks
from graphc.frontend.modes import mode
from graphc.frontend.native import TENSORS, array_function, identities, tensor_check
from graphc.frontend.node import node_class
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import _state as trace_state
from graphc.frontend.weights import LARGE as LARGE_WEIGHT
from graphc.frontend.weights import Weights
from graphc.ir import Graph
from graphc.specs import EntrySpec, RecordedSpec, ResultLeaf, TensorCheck, ValueCheck
from graphc.types import DType

LARGE = 1 << 14
"""Elements of a tensor for which code is made at the first call: so many take NumPy longer than its calls do."""
OFTEN = 40
"""Calls with arguments of the same types that make up for making code, however small the tensors."""
HUGE = 1 << 17
"""Elements of a tensor from which on code is made for what NumPy does well, too: it runs on several threads, and goes over
memory once."""
SEVERAL = 4
"""Calls with arguments of the same types after which it is: by then nothing suggests that sizes change from call to call."""
_MOST = 256
"""Combinations of types and values that one function has code for. With more, sizes seem to change from call to call."""

_MOST_COUNTED = 1 << 12
"""Combinations of types and values that calls are counted for at a time."""

_ENTRIES = 6
"""How many of them can be called natively at a time: those made, or called often by Python, last."""

F = TypeVar("F", bound=Callable[..., Any])

_PLAIN = frozenset((int, float, bool, str, type(None), tuple, DType))
"""Types of arguments that the trace may take as they are."""


class Traced(NamedTuple):
    """The graph of a call."""

    results: int
    """How many of its outputs are results; 0 for one that comes by itself, in no tuple."""

    graph: Graph
    inputs: list[Tensor]
    """The arguments that its inputs are."""
    differentiable: Differentiable | None
    name: str
    """What the last node is called on the tape."""


class _Form:
    """A composite for arguments of certain types."""

    __slots__ = (
        "arguments", "bind", "call", "differentiable", "function", "is_settled", "misses", "node", "results", "state", "weight",
    )  # fmt: skip

    def __init__(self, traced: Traced, tensors: list[Tensor], weight: Any) -> None:
        self.function = ArrayFunction(traced.graph)
        places = {id(tensor): i for i, tensor in reversed(list(enumerate(tensors)))}
        self.arguments = [places[id(tensor)] for tensor in traced.inputs]
        self.differentiable = traced.differentiable
        self.results = traced.results
        self.node = node_class(traced.name, CompiledBackward)
        self.is_settled = False
        """Whether there is a native entry, or cannot be one."""
        self.bind: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
        """The entry; a function of the fallback."""
        self.misses = 0
        """Calls by Python since it was last among the entries that are in use."""
        self.state = [(trace_state, "tracer", None), (mode, "inference", False), (mode, "autocast", mode.autocast),
                      (config, "numerics", config.numerics)]
        """(object, attribute, value): what it was made for."""
        self.weight: int | None = None
        """The number of the input that is a weight of which things may be computed once."""
        if self.differentiable is None and config.prepare_weights:
            large = (k for k, tensor in enumerate(traced.inputs) if tensor is weight and tensor._data.size >= LARGE_WEIGHT)
            self.weight = next(large, None)

    def _weight_code(self, inputs: list[Tensor], weight: int) -> Executable | None:
        """Code that computes once what depends on the weight alone; None if nothing does."""
        code = self.function.executable([tensor._data for tensor in inputs], (weight,))
        if code.preparation is None:
            self.weight = None
            return None
        return code

    def entry(self, arguments: tuple[Any, ...], keywords: tuple[str, ...]) -> Entry | None:
        """A native way in for arguments such as these, the last ones by keywords, of which no gradient is wanted."""
        places = [k for k, argument in enumerate(arguments) if isinstance(argument, Tensor)]
        inputs = {places[i]: number for number, i in enumerate(self.arguments)}
        checks = [
            tensor_check(argument, k, inputs.get(k), held=False) if isinstance(argument, Tensor) else ValueCheck(k, argument)
            for k, argument in enumerate(arguments)
        ]
        thread = [*self.state]
        if any(arguments[k].requires_grad for k in places):  # where no gradients are on, it does not matter who wants one
            thread.append((mode, "grad", False))
            checks = [replace(check, requires_grad=None) if isinstance(check, TensorCheck) else check for check in checks]
        return self.function.executable([arguments[places[i]]._data for i in self.arguments]).entry(EntrySpec(
            tensors=TENSORS, thread=tuple(thread), arguments=tuple(checks), held=(), numbers=(),
            guards=(), identities=identities(arguments), updates=(), grads=(), no_grads=(),
            leaves=tuple(ResultLeaf("output", j) for j in range(self.results or 1)), result="tuple" if self.results else "one",
            keywords=keywords,
        ))  # fmt: skip

    def recorded(
        self, arguments: tuple[Any, ...], keywords: tuple[str, ...]
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """The same for arguments such as these where a gradient is wanted; a function of the fallback."""
        how = self.differentiable
        assert how is not None
        places = [k for k, argument in enumerate(arguments) if isinstance(argument, Tensor)]
        inputs = [arguments[places[i]] for i in self.arguments]
        self.call = array_function(self.function.executable([tensor._data for tensor in inputs]))
        return get_backend(config.backend).recorded(RecordedSpec(
            tensors=TENSORS, grad=(mode, "grad", True), hooks=(saved_hooks, "stack", ()),
            thread=tuple(self.state), arguments=tuple(
                replace(tensor_check(argument, k, None, held=False), requires_grad=None) if isinstance(argument, Tensor)
                else ValueCheck(k, argument) for k, argument in enumerate(arguments)
            ),
            identities=identities(arguments), function=self.call, node=compiled_template(self.node, how),
            inputs=tuple((places[i], inputs[k].requires_grad, k in how.read) for k, i in enumerate(self.arguments)),
            edges=tuple(how.wanted), kept=tuple(how.kept), is_tuple=bool(self.results),
            seeds=tuple(how.seeded.index(j) if j in how.seeded else None for j in range(self.results or 1)),
            keywords=keywords,
        ))  # fmt: skip

    def __call__(self, tensors: list[Tensor], weights: Weights | None) -> Any:
        inputs = [tensors[i] for i in self.arguments]
        function: Callable[..., tuple[np.ndarray, ...]] = self.function
        weight = self.weight  # another thread may find that there is nothing to compute
        if weight is not None and weights is not None:
            function = weights.prepared(self, inputs, weight, lambda: self._weight_code(inputs, weight)) or function
        arrays = function(*[tensor._data for tensor in inputs])
        results = tuple([wrap(array) for array in arrays[: self.results or 1]])
        if self.differentiable is not None:
            self.node(self.differentiable, inputs, arrays, results)
        return results if self.results else results[0]


_forgets: list[Callable[[], None]] = []


def forget_forms() -> None:
    """After the default dtype has changed, which results for integers have."""
    for forget in _forgets:
        forget()


@overload
def composite(function: F, /) -> F: ...
@overload
def composite(*, weight: str | None = None, large: bool = True) -> Callable[[F], F]: ...
def composite(function: Any = None, /, *, weight: str | None = None, large: bool = True) -> Any:
    """Make a function a composite: a pure one that takes its tensors as arguments, not in lists, and returns a tensor or a
    tuple of tensors. Where its `weight`, an argument, is the same at many calls, what its code computes of that alone is kept.
    Unless `large`, it has code for tensors alone that are small, or huge and met several times: for what NumPy is good at, the
    calls apart.
    """
    if function is not None:
        return _composite(function, None, True)
    return functools.partial(_composite, weight=weight, large=large)


def _composite(function: F, weight: str | None, large: bool) -> F:
    forms: dict[Any, _Form | None] = {}  # None for what is left alone
    calls: dict[Any, int] = {}  # so far, of what is in no form yet
    entries: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = []
    weights = None if weight is None else Weights()
    code = inspect.unwrap(function).__code__
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    weight_place = None if weight is None else parameters.index(weight)
    inplace_at = parameters.index("inplace") if "inplace" in parameters else None
    native: Callable[..., Any]
    """The entries of the forms made last, one behind the other, and last `by_python`."""

    def by_python(*args: Any, **kwargs: Any) -> Any:
        if trace_state.tracer is not None or saved_hooks.stack:
            if trace_state.watcher is not None:
                return trace_state.watcher.run(function, call, *args, **kwargs)
            return function(*args, **kwargs)
        if inplace_at is not None and (args[inplace_at] if inplace_at < len(args) else kwargs.get("inplace")):
            return over_input(args, kwargs)
        key: list[Any] = [mode.autocast, config.numerics]
        tensors: list[Tensor] = []
        grad = mode.grad
        for arg in args if not kwargs else (*args, *kwargs.values()):
            if isinstance(arg, Tensor):
                array = arg._data
                if type(array) is not np.ndarray:
                    return function(*args, **kwargs)
                meta = arg._meta
                key += (type(arg), array.dtype, array.shape, array.strides,
                        grad and (arg._node is not None or (
                            meta is not None and (meta.requires_grad or (meta.view is not None and arg.requires_grad)))))
                tensors.append(arg)
            elif type(arg) in _PLAIN:
                key.append(_value_key(arg))
            else:
                return function(*args, **kwargs)
        array = None  # whether others have a weight's array is told by the references to it
        if kwargs:
            key.append(tuple(kwargs))
        if len(tensors) > 1:
            ids = [id(tensor) for tensor in tensors]
            if len(set(ids)) < len(ids):
                key += map(ids.index, ids)
        try:
            form = forms.get(signature := tuple(key))
        except TypeError:  # a tuple of something that has no hash
            return function(*args, **kwargs)
        if form is None and signature in forms:
            return function(*args, **kwargs)
        if form is None:
            form = _consider(forms, calls, signature, tensors, function, args, kwargs, given_weight(args, kwargs), large)
            if form is None:
                return function(*args, **kwargs)
        if form.weight is None and not form.is_settled:
            form.is_settled = True
            make_entry(form, args, kwargs)
        elif form.bind is not None and form.bind not in entries:
            form.misses += 1
            if form.misses >= OFTEN:
                use(form)
        return form(tensors, weights)

    def over_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of the same call without `inplace`, written over the first argument. What is recorded for a gradient must
        not be written over: then the ops know what they need."""
        assert inplace_at is not None
        target = args[0] if args else None
        if not isinstance(target, Tensor) or (mode.grad and target.requires_grad):
            return function(*args, **kwargs)
        from graphc.frontend.inplace import assign, refuse  # they are made of composites

        if inplace_at < len(args):
            args = (*args[:inplace_at], False, *args[inplace_at + 1 :])
        else:
            kwargs = {**kwargs, "inplace": False}
        result = call(*args, **kwargs)
        refuse(target)
        return assign(target, result)

    def given_weight(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if weight_place is None or weight is None:
            return None
        return args[weight_place] if weight_place < len(args) else kwargs.get(weight)

    def make_entry(form: _Form, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Have a native way in for calls such as this one, if there can be one."""
        arguments, keywords = (*args, *kwargs.values()), tuple(map(sys.intern, kwargs))
        if form.differentiable is not None:
            form.bind = form.recorded(arguments, keywords)
        else:
            entry = form.entry(arguments, keywords)
            form.bind = None if entry is None else entry.bind
        if form.bind is not None:
            use(form)

    def use(form: _Form) -> None:
        """Try a form's entry first, and no longer the one that was tried last if there are many."""
        nonlocal native
        assert form.bind is not None
        form.misses = 0
        entries.insert(0, form.bind)
        del entries[_ENTRIES:]
        native = functools.reduce(lambda fallback, bind: bind(fallback), reversed(entries), by_python)

    def forget() -> None:
        nonlocal native
        forms.clear()
        calls.clear()
        entries.clear()
        if weights is not None:
            weights.clear()
        native = by_python

    native = by_python
    _forgets.append(forget)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return native(*args, **kwargs)
        except (AttributeError, ArgumentTypeError):
            wrong = not_a_tensor(function, args, kwargs)
            if wrong is None:
                raise
            raise wrong from None
        except DimError as error:
            if trace_state.tracer is not None:
                raise
            function(*args, **kwargs)  # op by op it says which index is out of bounds
            raise error

    return call  # type: ignore[return-value]


def _value_key(value: Any) -> Any:
    """What a value that is no tensor is found by: 0.0 == -0.0, nan != nan, and (2,) == (2.0,)."""
    kind = type(value)
    if kind is float:
        return (kind, math.copysign(1, value), value if value == value else "nan")
    return (kind, *map(_value_key, value)) if kind is tuple else (kind, value)


def _pays(traced: Traced, size: int) -> bool:
    """Whether code is quicker than the ops one by one, of which those that call back into Python are not."""
    steps = traced.graph.nodes
    back = sum(node.op.kernel == "host" and node.op.decompose is None for node in steps)
    return not back or (size < LARGE and (traced.differentiable is not None or back < len(steps)))


def _consider(
    forms: dict[Any, _Form | None], calls: dict[Any, int], signature: Any, tensors: list[Tensor], function: Callable[..., Any],
    args: tuple[Any, ...], kwargs: dict[str, Any], weight: Any, for_large: bool,
) -> _Form | None:
    """Count a call, and make code if that pays."""
    size = max(tensor._data.size for tensor in tensors) if tensors else 0
    if not config.fuse_eager or (not for_large and LARGE <= size < HUGE) or len(forms) >= _MOST:
        return None
    if size < LARGE or not for_large:
        count = calls.pop(signature, 0) + 1
        if count < (OFTEN if size < LARGE else SEVERAL):
            if len(calls) >= _MOST_COUNTED:  # values that never come again must not fill memory
                calls.clear()
            calls[signature] = count
            return None
    forms[signature] = None
    from graphc.frontend.compiled import trace_once  # it stands above the functions that are composites

    try:
        traced = trace_once(function, args, kwargs)
    except GraphcError:
        return None  # the function itself, which is called now, says what is wrong
    if traced is None or (not for_large and not _pays(traced, size)):
        return None
    form = forms[signature] = _Form(traced, tensors, weight)
    return form
