"""Ops of the user's own, which are used like those that are there: eagerly, in graphs, in saved files."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np

from graphc.compiler import clear_cache
from graphc.errors import ArgumentError, ArgumentTypeError, GraphcError, ShapeError, TraceError
from graphc.frontend.composite import forget_forms
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace import Trace
from graphc.frontend.tracer import activated
from graphc.ir import Graph, inline
from graphc.op import OPS, OpDef, Undefined, _NotDifferentiable, op
from graphc.types import DType, TensorType, dtype_of

Rule: TypeAlias = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Any])


class CustomOp:
    """An op that `custom_op` has registered. Call it with tensors, and with its attributes by keyword or after these."""

    def __init__(self, record: OpDef, signature: inspect.Signature, doc: str | None) -> None:
        self.record = record
        self.__name__ = record.name.rpartition(".")[2]
        self.__doc__ = doc
        self.__signature__ = signature

    @property
    def name(self) -> str:
        """The name by which graphs and files know the op."""
        return self.record.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Apply the op. A tensor, or a tuple of tensors where the op has several results."""
        bound = self.__signature__.bind(*args, **kwargs)
        bound.apply_defaults()
        operands = tuple(bound.arguments[name] for name in self.record.operands)
        attrs = {name: _attribute(self.name, name, bound.arguments[name]) for name in self.record.attrs}
        if not any(isinstance(operand, Tensor) for operand in operands):
            raise ArgumentTypeError(f"{self.name}: no tensor among the operands", expected="at least one tensor",
                                    got=", ".join(type(operand).__name__ for operand in operands))
        return Tensor.__graphc_emitter__.emit(self.record, operands, attrs)

    def __repr__(self) -> str:
        return f"<custom op {self.name}{self.__signature__}>"


@overload
def custom_op(
    name: str, function: None = None, *, infer: Rule | None = None,
    vjp: Rule | tuple[Rule | None, ...] | _NotDifferentiable | None = None, scalar: Rule | None = None, llvm: str | None = None,
    elementwise: bool = False, nanoseconds: float = 6.3, replace: bool = False,
) -> Callable[[Rule], CustomOp]: ...
@overload
def custom_op(
    name: str, function: Rule, *, infer: Rule | None = None,
    vjp: Rule | tuple[Rule | None, ...] | _NotDifferentiable | None = None, scalar: Rule | None = None, llvm: str | None = None,
    elementwise: bool = False, nanoseconds: float = 6.3, replace: bool = False,
) -> CustomOp: ...
def custom_op(
    name: str, function: Rule | None = None, *, infer: Rule | None = None,
    vjp: Rule | tuple[Rule | None, ...] | _NotDifferentiable | None = None, scalar: Rule | None = None, llvm: str | None = None,
    elementwise: bool = False, nanoseconds: float = 6.3, replace: bool = False,
) -> Any:  # fmt: skip
    """Register an op, by its definition in NumPy: `function(*arrays, **attributes)`, which may be decorated.

    The function's positional parameters are the op's operands, those that are keywords only its attributes: numbers,
    strings, dtypes, and tuples of these. It must return new arrays, and leave those that it is given as they are.

    name
        What graphs and saved files call the op, with a prefix of your own, as in "mylib.softsign". A file that has the op
        can be opened where it is registered.
    infer
        The type rule, `infer(*types, **attributes)`: the result's `TensorType` for those of the operands, or a tuple of
        types for several results. An elementwise op has one already. Without a rule the function is tried out on ones,
        each time that the op joins a graph: sizes must be known then.
    vjp
        The derivative: for each operand a function that gives its cotangent, or None for one without; for a single operand
        the function itself. Parameters say what is needed, by name: `ct`, the result's cotangent (a tuple of several, None
        where none comes); operands; `out`, the result; attributes. Written with graphc's functions, it can be
        differentiated again. `graphc.not_differentiable` cuts the gradient off; without any of these, asking for a
        gradient is an error.
    scalar
        The op on one element, written with graphc's elementwise functions: compiled code has it in its own loops, fused
        with what is around it, instead of calling the function. The op is elementwise then.
    llvm
        The op in LLVM IR, for compiled code: a definition of `void @kernel(...)`, whose parameters are pointers to the
        memory of the results, then of the operands (both row-major); each operand's sizes, as i64; and the attributes, i64
        for integers and bools, double for floats. Nothing checks what it does.
    elementwise
        Operands are promoted to one dtype and broadcast to one shape, which are the result's.
    nanoseconds
        What 16 results of the `scalar` form take, roughly: whether to compute them again rather than keep them.
    replace
        Take the place of an op of the same name.

    ArgumentError for a name without a prefix or that is taken, and where the forms given do not go together; GraphcError, at a
    call, where the function returns something else than the type rule says; TraceError where a rule uses tensors from outside.

    >>> import numpy as np, graphc
    >>> @graphc.custom_op("docs.softsign", vjp=lambda ct, x: ct / (1 + abs(x)) ** 2, scalar=lambda x: x / (1 + abs(x)),
    ...                   replace=True)
    ... def softsign(x):
    ...     return x / (1 + np.abs(x))
    >>> x = graphc.tensor([-1.0, 3.0], requires_grad=True)
    >>> softsign(x)
    tensor([-0.5000,  0.7500], grad_fn=<SoftsignBackward0>)
    >>> graphc.compile(softsign)(x).detach()
    tensor([-0.5000,  0.7500])
    """
    if function is None:
        return functools.partial(
            custom_op, name, infer=infer, vjp=vjp, scalar=scalar, llvm=llvm, elementwise=elementwise, nanoseconds=nanoseconds,
            replace=replace,
        )  # fmt: skip
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name):
        raise ArgumentError(f"custom_op: {name!r} is no name for an op", expected="a prefix and a name, as in 'mylib.softsign'")
    if name in OPS and not replace:
        raise ArgumentError(f"custom_op: there is an op {name!r} already", hint="pass replace=True to take its place")
    signature = inspect.signature(function)
    operands, attrs = _parameters(name, signature)
    elementwise = elementwise or scalar is not None
    if elementwise and infer is not None:
        raise ArgumentError(f"custom_op {name!r}: an elementwise op has a type rule", hint="leave infer= away")
    if elementwise and llvm is not None:
        raise ArgumentError(f"custom_op {name!r}: an elementwise op has scalar= for compiled code", hint="leave llvm= away")
    if elementwise:
        rule = _same
    else:
        rule = infer or functools.partial(_tried_out, name, function)
    before = OPS.pop(name, None)
    try:
        record = op(
            name, " ".join(operands), " ".join(attrs), infer=rule, ref=_checked(name, function, rule, elementwise),
            vjp=_rules(name, operands, vjp), scalar=None if scalar is None else _over_graphs(name, scalar),
            kernel="host" if scalar is None else None, native=llvm, elementwise=elementwise, nanoseconds=nanoseconds,
            costly=llvm is not None, samples=(),
        )  # fmt: skip
    except BaseException:
        if before is not None:
            OPS[name] = before
        raise
    if before is not None:  # equal graphs have ops of the same name
        clear_cache()
        forget_forms()
    return CustomOp(record, signature, inspect.getdoc(function))


def _parameters(name: str, signature: inspect.Signature) -> tuple[list[str], list[str]]:
    """The operands and the attributes."""
    operands, attrs = [], []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            operands.append(parameter.name)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            attrs.append(parameter.name)
        else:
            raise ArgumentError(f"custom_op {name!r}: the function takes {parameter}", expected="parameters with names")
    if not operands:
        raise ArgumentError(f"custom_op {name!r}: the function takes no operand",
                            expected="positional parameters for the operands, keyword-only ones for the attributes")
    taken = {"ct", "out"}.intersection(operands, attrs)
    if taken:
        raise ArgumentError(f"custom_op {name!r}: the parameter {min(taken)!r} would mean something else in a vjp rule",
                            expected="other names than ct and out")
    return operands, attrs


def _attribute(name: str, attribute: str, value: Any) -> Any:
    """An attribute as graphs and files can hold it."""
    if value is None or isinstance(value, (bool, int, float, complex, str, DType)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return tuple(_attribute(name, attribute, item) for item in value)
    raise ArgumentTypeError(f"{name}: the attribute {attribute!r} cannot be a {type(value).__name__}",
                            expected="a number, a string, a dtype, or a tuple of these",
                            hint="make it an operand" if isinstance(value, (Tensor, np.ndarray)) else None)


def _same(first: TensorType, *others: TensorType, **attrs: Any) -> TensorType:
    del others, attrs
    return first


def _tried_out(name: str, function: Rule, *types: TensorType, **attrs: Any) -> Any:
    """The result's type, as the function itself shows it on ones."""
    for type_ in types:
        if not all(isinstance(size, int) for size in type_.shape):
            raise ShapeError(f"{name}: the sizes of {type_} are not known yet", expected="a type rule for the op",
                             hint="pass infer= to custom_op")
    made = function(*(np.ones(t.shape, t.dtype.numpy) for t in types), **attrs)
    found = [TensorType(dtype_of(a.dtype), a.shape) for a in map(np.asarray, made if isinstance(made, tuple) else (made,))]
    return tuple(found) if isinstance(made, tuple) else found[0]


def _checked(name: str, function: Rule, infer: Rule, elementwise: bool) -> Rule:
    """The function, held to its type rule."""

    def ref(*arrays: Any, **attrs: Any) -> Any:
        made = function(*arrays, **attrs)
        results = tuple(map(np.asarray, made if isinstance(made, tuple) else (made,)))
        given = [np.asarray(a) for a in arrays]
        types = [TensorType(dtype_of(a.dtype), a.shape) for a in given]
        if elementwise:
            shape = np.broadcast_shapes(*(a.shape for a in given))
            tensors = [a.dtype for a in arrays if isinstance(a, np.ndarray)]
            expected = [TensorType(dtype_of(tensors[0] if tensors else types[0].dtype.numpy), shape)]
        elif isinstance(infer, functools.partial):
            expected = [TensorType(dtype_of(r.dtype), r.shape) for r in results]
        else:
            inferred = infer(*types, **attrs)
            expected = list(inferred) if isinstance(inferred, tuple) else [inferred]
        found = [TensorType(dtype_of(r.dtype), r.shape) for r in results]
        if [(t.dtype, t.shape) for t in found] != [(t.dtype, t.shape) for t in expected]:
            raise GraphcError(f"{name}: the function does not return what its type rule says",
                              expected=", ".join(map(str, expected)), got=", ".join(map(str, found)))
        return results if isinstance(made, tuple) else results[0]

    return ref


def _rules(name: str, operands: Sequence[str], vjp: Any) -> Any:
    """The rules of the op's record."""
    if isinstance(vjp, _NotDifferentiable):
        return vjp
    if vjp is None:
        return tuple(Undefined(name) for _ in operands)
    rules = vjp if isinstance(vjp, tuple) else (vjp,)
    if len(rules) != len(operands):
        raise ArgumentError(f"custom_op {name!r}: {len(rules)} derivative rules for {len(operands)} operands",
                            expected="one for each operand, or None for one without")
    return tuple(None if rule is None else _over_graphs(name, rule) for rule in rules)


def _over_graphs(name: str, rule: Rule) -> Rule:
    """A rule of the user's, written for tensors, that takes values of graphs and expressions of kernels, too."""
    parameters = list(inspect.signature(rule).parameters)
    graphs: dict[Any, Graph | None] = {}

    @functools.wraps(rule)
    def adapted(*args: Any, **kwargs: Any) -> Any:
        arguments = [*args, *(kwargs[parameter] for parameter in parameters[len(args) :])]
        values: list[Any] = []
        described = [_described(argument, values) for argument in arguments]
        if all(isinstance(value, Tensor) for value in values):
            return rule(*arguments)
        key = tuple(described)
        if key not in graphs:
            graphs[key] = _written_down(name, rule, described)
        graph = graphs[key]
        return None if graph is None else inline(graph, values, values[0])[0]

    return adapted


def _described(argument: Any, values: list[Any]) -> Any:
    """An argument of a rule, with types in the place of values, which are put into a list."""
    if isinstance(argument, tuple):
        return tuple(_described(item, values) for item in argument)
    if isinstance(argument, Tensor) or hasattr(argument, "__graphc_emitter__"):
        values.append(argument)
        return TensorType(argument.dtype, tuple(argument.shape))
    return argument


def _written_down(name: str, rule: Rule, described: Sequence[Any]) -> Graph | None:
    """What a rule does with values of these types, as a graph; None if it returns None."""
    trace = Trace(name.replace(".", "_"))

    def stand_in(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return tuple(map(stand_in, argument))
        return wrap(trace.builder.input(None, argument)) if isinstance(argument, TensorType) else argument

    try:
        with activated(trace):
            result = rule(*map(stand_in, described))
            if result is None:
                return None
            if not isinstance(result, Tensor):
                raise TraceError(f"a rule of the op {name!r} returns a {type(result).__name__}", expected="a tensor, or None")
            output = trace.value(result)
        if trace.inputs:
            raise TraceError(f"a rule of the op {name!r} uses a tensor that is not among its parameters",
                             expected="a function of its parameters and of Python numbers")
        return trace.builder.finish([output])
    finally:
        trace.restore()
