"""What a primitive operation is: one record, the registry, and `emit`.

An op is defined once, by `op(...)` in `graphc/ops/`; its record holds everything that is known about it. Public
functions call `emit`, and the arguments decide what happens: a tensor computes now, a graph value appends a node,
a kernel expression builds code.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Protocol

from graphc.errors import ArgumentTypeError, GraphcError
from graphc.types import DType, Real, Scalar, TensorType, get_default_dtype, result_type


class _NotDifferentiable:
    """The derivative of an op whose result does not vary smoothly with its operands: comparisons, indices, random bits."""

    def __repr__(self) -> str:
        return "not_differentiable"


not_differentiable = _NotDifferentiable()


class Undefined:
    """The rule for an operand by which there is a derivative, but no formula for it: asking for it is an error."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, ct: Any) -> NoReturn:
        raise GraphcError(f"the derivative for '{self.what}' is not implemented.",
                          hint="detach() the operand, or make it one that does not require grad")


@dataclass(frozen=True)
class Sample:
    """One call of an op for the tests: operand types (or arrays), attributes, and how to test it.

    `low` and `high` bound the numbers drawn for floating-point operands, so that they stay inside the op's domain and
    away from its kinks. A `hermitian` sample's first operand is made a positive-definite matrix, or a batch of them, and
    varied among Hermitian ones only; that of a `triangular` one is a lower triangle, and varied among such.
    """

    operands: tuple[Any, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    low: float = -2.0
    high: float = 2.0
    hermitian: bool = False
    triangular: bool = False


@dataclass(frozen=True, eq=False)
class OpDef:
    """The record of one primitive. See `op` for the fields."""

    name: str
    operands: tuple[str, ...]
    attrs: tuple[str, ...]
    infer: Callable[..., Any]
    ref: Callable[..., Any]
    vjp: tuple[Vjp | None, ...] | Vjp | _NotDifferentiable
    scalar: Callable[..., Any] | None
    lower: Callable[..., Any] | None
    reduction: Literal["sum", "max", "min"] | None
    kernel: Literal["contract", "scatter", "running", "attention", "host", "control"] | None
    decompose: Callable[..., Any] | None
    view: Callable[..., Any] | None
    elementwise: bool
    floating: bool
    keeps: tuple[str, ...]
    pointwise: bool
    nanoseconds: float
    taps: Callable[..., int] | None
    index_operand: int | None
    costly: bool
    exact_numbers: bool
    native: str | None
    batch: Callable[..., Any] | Literal["leading"] | None
    step: Callable[..., Any] | None
    initial: Real
    samples: tuple[Sample, ...]

    def __call__(self, *args: Any, like: Any = None, **attrs: Any) -> Any:
        """Apply the op; attributes may follow the operands by position, as in `permute(x, (1, 0))`."""
        count = len(self.operands)
        if len(args) > count and not self.variadic:
            attrs.update(zip(self.attrs, args[count:]))
            args = args[:count]
        return _emitter(self, args, like).emit(self, args, attrs)

    @functools.cached_property
    def variadic(self) -> bool:
        """Whether the op takes any number of operands."""
        return self.operands[-1:] != () and self.operands[-1].startswith("*")

    @property
    def is_anchor(self) -> bool:
        """Whether the op takes loops of its own, around which a kernel is built."""
        return self.reduction is not None or self.kernel is not None

    @property
    def only_moves(self) -> bool:
        """Whether each element of the result is one of the operand's, perhaps in another dtype."""
        return self.nanoseconds == 0 and len(self.operands) > 0

    @property
    def computes(self) -> bool:
        """Whether numbers are computed with, and not only moved, read in parts or converted: complex32 ones are widened for
        that."""
        return self.nanoseconds > 0 and self.view is None and self.kernel != "control"

    @property
    def joint_vjp(self) -> Vjp | None:
        """The rule that gives the cotangents of all operands at once, if there is one."""
        rule = next(filter(None, self.vjp), None) if isinstance(self.vjp, tuple) else self.vjp
        return rule if isinstance(rule, Vjp) and "wanted" in rule.needs else None

    def __repr__(self) -> str:
        return f"<op {self.name}({', '.join((*self.operands, *self.attrs))})>"


@dataclass(frozen=True, eq=False)
class Vjp:
    """How the cotangent of the result becomes the cotangent of one operand.

    The parameter names of `rule` say what it needs, and so what must be saved: `ct`, operands by name, `out` for the
    result, attributes by name; `x_type` is the TensorType of operand `x`, which saves no numbers. A variadic op's rule
    asks for `types` (of all operands) and `index` (of the operand whose cotangent is wanted); `attrs` is all attributes.
    A rule that asks for `wanted`, the numbers of operands, returns the cotangents of all of these at once; it may ask for
    `operands` and `out`, all of them, and its `ct` is always a sequence.
    """

    rule: Callable[..., Any]
    needs: tuple[str, ...]

    def __call__(self, **available: Any) -> Any:
        return self.rule(**{name: available[name] for name in self.needs})


OPS: dict[str, OpDef] = {}
"""Every op by its name."""


def op(
    name: str,
    operands: str = "",
    attrs: str = "",
    *,
    infer: Callable[..., TensorType | tuple[TensorType, ...]],
    ref: Callable[..., Any],
    vjp: Callable[..., Any] | tuple[Callable[..., Any] | None, ...] | _NotDifferentiable,
    scalar: Callable[..., Any] | None = None,
    lower: Callable[..., Any] | None = None,
    reduction: Literal["sum", "max", "min"] | None = None,
    kernel: Literal["contract", "scatter", "running", "attention", "host", "control"] | None = None,
    decompose: Callable[..., Any] | None = None,
    view: Callable[..., Any] | None = None,
    elementwise: bool = False,
    floating: bool = False,
    keeps: str = "",
    pointwise: bool = False,
    nanoseconds: float = 0.3,
    taps: Callable[..., int] | None = None,
    index_operand: int | None = None,
    costly: bool = False,
    exact_numbers: bool = False,
    native: str | None = None,
    batch: Callable[..., Any] | Literal["leading"] | None = None,
    step: Callable[..., Any] | None = None,
    initial: Real = 0,
    samples: tuple[Sample, ...],
) -> OpDef:
    """Define an op and register it.

    operands, attrs
        Names, separated by spaces; a last operand `*xs` stands for any number.
    infer
        `infer(*operand_types, **attrs)`: the result's type (a tuple of types for several results), or an error.
    ref
        `ref(*arrays, **attrs)`: the result as a NumPy array. The definition that everything else is tested against.
    vjp
        One rule an operand (None for an operand without a derivative; the last one is for all operands of a `*xs`), one
        rule for all of a variadic op's operands, or `not_differentiable`. A rule is written with the public functions; its
        parameter names say what must be saved.
        For an op with several results, `ct` and `out` are tuples; an entry of `ct` is None where no cotangent comes.
        `Undefined` is the rule of an operand by which nobody has written the derivative down.
    scalar
        For an elementwise op that back ends do not know by name: the same computation on one element, written with
        functions over kernel expressions.
    lower
        For an op whose elements can be computed one by one: `lower(read, index, types, **attrs)` is the expression of
        the element at `index` (a tuple of index expressions), where `read(i, index, mask=None)` is the element of
        operand i at another index; with a mask nothing is read where that is false.
    reduction
        For a reduction: "sum", "max" or "min" over the attribute `axes`; for a running one, up to each place along `axis`.
    kernel
        For an op that takes loops of its own but is no plain reduction: which kind of kernel it becomes. "host" is for what is
        left to a library: compiled programs call `ref`. "control" is for ops that run graphs.
    decompose
        `decompose(*operands, **attrs)`: the same computation by simpler ops, for an op that has no lowering of its own;
        None where it is better left as it is.
    view
        For an op whose result shares its operand's memory: `view(base, new, **attrs)` is `base` after `new` has been
        written through the view.
    elementwise
        Operands are promoted to one dtype (but for those named in `keeps`) and broadcast to one shape first. A
        `floating` op turns integer operands into the default dtype.
    pointwise
        An element of the result depends on the element at the same index alone, as it does for elementwise ops.
    nanoseconds
        What a vector of results takes, roughly; 0 for an op that only moves numbers.
    taps
        `taps(*operand_types, **attrs)`: how many elements of the operand an element is made of, if more than one.
    index_operand
        Which operand holds places along the dimension `axis` of the first operand.
    costly
        NumPy is slow at it: eager calls run the op's own compiled kernel.
    exact_numbers
        A Python float beside float16 or bfloat16 is not rounded to it first, as in PyTorch: the op is computed in float32.
    native
        For a "host" op: LLVM IR that back ends for CPUs run instead of `ref`. See `graphc.custom_op`.
    batch
        How the op is applied to a batch at once, for vmap: "leading" where it takes leading dimensions as they come, or
        `batch(size, batched, *operands, **attrs)`, where `batched` says which operands have the batch, of `size`, as
        their dimension 0; so has the result. Elementwise ops and those that name dimensions by `axis` or `axes` alone
        need none. Any other op without one is applied to one element of the batch after another.
    step, initial
        For a running op that is no plain reduction: `step(so_far, *elements)` is what there is up to a place along `axis`, of
        what there was in front of it, `initial` at the start, and of the operands' elements there. For a scattering one:
        `step(there, new)` is what a place holds when an element has come to it.
    """
    if name in OPS:
        raise GraphcError(f"op {name!r} is defined twice")
    rules: Any = vjp
    if callable(vjp):
        rules = _rule(vjp) if operands.split()[-1].startswith("*") else (_rule(vjp),)
    elif isinstance(vjp, tuple):
        rules = tuple(None if rule is None else _rule(rule) for rule in vjp)
    record = OpDef(
        name, tuple(operands.split()), tuple(attrs.split()), infer, ref, rules, scalar, lower, reduction, kernel, decompose,
        view, elementwise, floating, tuple(keeps.split()), pointwise or elementwise, nanoseconds, taps,
        index_operand, costly, exact_numbers, native, batch, step, initial, samples,
    )
    OPS[name] = record
    return record


def common_dtype(record: OpDef, operands: Sequence[TensorType | Scalar]) -> DType:
    """The dtype that the operands of an elementwise op are converted to."""
    dtype = result_type([t for t, name in zip(operands, record.operands) if name not in record.keeps])
    return get_default_dtype() if record.floating and not dtype.is_differentiable else dtype


def working_dtype(record: OpDef, operands: Sequence[TensorType | Scalar], dtype: DType) -> DType:
    """The dtype that an elementwise op computes in for operands whose common dtype is `dtype`, to which the result is
    rounded: another one for complex32, and for a half beside a Python float where the op is for `exact_numbers`."""
    if dtype.is_complex or (record.exact_numbers and any(isinstance(x, float) for x in operands)):
        return dtype.computes_in
    return dtype


def _rule(rule: Callable[..., Any]) -> Vjp:
    return Vjp(rule, tuple(inspect.signature(rule).parameters))


def vjp_rule(record: OpDef, index: int) -> Vjp | None:
    """The rule for the cotangent of operand `index`, or None where there is none."""
    if isinstance(record.vjp, _NotDifferentiable):
        return None
    return record.vjp if isinstance(record.vjp, Vjp) else record.vjp[min(index, len(record.vjp) - 1)]


def apply_vjp(
    record: OpDef,
    index: int,
    ct: Any,
    operands: Sequence[Any],
    types: Sequence[TensorType],
    out: Any,
    attrs: Mapping[str, Any],
) -> Any:
    """The cotangent of operand `index`, given that of the result; None where the op has no derivative there.

    `operands` and `out` may be None where the rule does not need them. The answer may be of the broadcast shape, or of
    the promoted dtype: `graphc.ops.match` brings it back to the operand's type.
    """
    rule = vjp_rule(record, index)
    if rule is None:
        return None
    available: dict[str, Any] = dict(attrs, ct=ct, out=out, index=index, types=types, attrs=attrs)
    for name, operand, type_ in zip(record.operands, operands, types):
        available[name] = operand
        available[f"{name}_type"] = type_
    return rule(**available)


def apply_joint(
    rule: Vjp, ct: Sequence[Any], operands: Sequence[Any], out: Sequence[Any], wanted: tuple[int, ...], attrs: Mapping[str, Any]
) -> Sequence[Any]:
    """The cotangents of the `wanted` operands by a rule that gives all at once."""
    return rule(ct=ct, operands=operands, out=out, wanted=wanted, attrs=attrs)


class Emitter(Protocol):
    """A kind of value: what `emit` does for arguments of that kind."""

    priority: int
    """Where arguments are of several kinds, the highest one decides."""

    def emit(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """Apply the op; returns the result, a tuple of them for several."""
        ...


def emit(record: OpDef, *args: Any, like: Any = None, **attrs: Any) -> Any:
    """Apply `record` to `args` in whatever way they ask for.

    An argument takes part by a `__graphc_emitter__` attribute, an `Emitter`. `like` names a value to be
    imitated by an op without operands.
    """
    return _emitter(record, args, like).emit(record, args, attrs)


def _emitter(record: OpDef, args: tuple[Any, ...], like: Any) -> Emitter:
    """Who decides what is done."""
    chosen: Emitter | None = None if like is None else getattr(like, "__graphc_emitter__", None)
    for arg in args:
        emitter = getattr(arg, "__graphc_emitter__", None)
        if emitter is not None and (chosen is None or emitter.priority > chosen.priority):
            chosen = emitter
    if chosen is None:
        raise ArgumentTypeError(
            f"{record.name}: no tensor among the arguments",
            expected="at least one tensor or graph value",
            got=", ".join(type(arg).__name__ for arg in args) or "no arguments",
        )
    return chosen
