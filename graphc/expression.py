"""Scalar expressions: what one step of a kernel computes with.

An expression is a tree over five leaves: constants, sizes, axes (the value of a loop variable), loads and accumulators. Its
other nodes are the elementwise ops of the tensor level, by the same names; ops written over public functions work on
expressions too:

>>> import graphc.ops as ops
>>> from graphc.types import float32
>>> x = Buffer("x", float32, 8)
>>> i = Axis("i", 8)
>>> ops.tanh(load(x, i.value) * 2.0)
tanh(mul(x[i], 2.0))
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias
from weakref import KeyedRef

import numpy as np

from graphc.dims import Dim
from graphc.op import OpDef, common_dtype
from graphc.operators import Operators
from graphc.types import DType, Real, Scalar, Size, TensorType, bool_, dtype_of, int64, scalar_array


class Axis:
    """A loop variable: it runs from 0 to extent - 1. Compared by identity."""

    __slots__ = ("extent", "name", "value")

    def __init__(self, name: str, extent: Size) -> None:
        self.name = name
        self.extent = extent
        self.value = Expr("axis", (), int64, self)

    def __repr__(self) -> str:
        return f"{self.name}<{self.extent}"


class Buffer:
    """A flat piece of memory: `size` elements of one dtype. Compared by identity.

    role
        "input" and "output": given at each call; "constant": `data`, given once; "temporary": a place in the program's
        arena, at `offset` bytes, alive between kernels; "prepared": a place in memory that outlives calls, at `offset` bytes;
        "local": on the stack of one grid step of one kernel.
    host
        The output in whose memory a temporary has its place instead, before that is written.
    """

    __slots__ = ("data", "dtype", "host", "name", "offset", "role", "size")

    def __init__(
        self,
        name: str,
        dtype: DType,
        size: Size,
        role: Literal["input", "output", "constant", "temporary", "prepared", "local"] = "temporary",
        data: np.ndarray | None = None,
    ) -> None:
        self.name = name
        self.dtype = dtype
        self.size = size
        self.role = role
        self.data = data
        self.offset: Size = 0
        self.host: Buffer | None = None

    @property
    def nbytes(self) -> Size:
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.name}: {self.role} {self.dtype.name}[{self.size}]"


Reduction: TypeAlias = Literal["sum", "max", "min"]


def identity(reduction: Reduction, dtype: DType) -> Real:
    """The number that a reduction starts from: taking it in changes nothing."""
    if reduction == "sum":
        return 0
    if dtype is bool_:
        return reduction == "min"
    if dtype.is_floating_point:
        return -np.inf if reduction == "max" else np.inf
    bounds = np.iinfo(dtype.numpy)
    return int(bounds.min if reduction == "max" else bounds.max)


class Accumulator:
    """A running reduction, in a register. max and min propagate NaN. One that is "last" is what has been taken in last, which
    may be computed of what it was before; it starts from `initial`. Compared by identity.
    """

    __slots__ = ("dtype", "initial", "name", "reduction", "value")

    def __init__(self, name: str, reduction: Reduction | Literal["last"], dtype: DType, initial: Real = 0) -> None:
        self.name = name
        self.reduction = reduction
        self.dtype = dtype
        self.initial: Real = initial if reduction == "last" else identity(reduction, dtype)
        self.value = Expr("accumulator", (), dtype, self)

    def __repr__(self) -> str:
        return f"{self.name}: {self.reduction} {self.dtype.name}"


class Expr(Operators):
    """A scalar expression. Immutable; equal expressions are one object.

    op
        "constant" (attr: the number), "size" (attr: a Dim, dtype int64), "axis" (attr: the Axis, dtype int64),
        "accumulator" (attr: the Accumulator),
        "load" (attr: the Buffer; args: the offset in elements, and perhaps a boolean mask, where which is false nothing
        is read and the value is 0); "quotient" and "modulo" (args: x, c, with x >= 0 and a constant or size c > 0: index
        arithmetic); "cast" (to dtype); or the name of an elementwise op.
    """

    __slots__ = ("__weakref__", "args", "attr", "bounds", "dtype", "op", "terms")

    op: str
    args: tuple[Expr, ...]
    dtype: DType
    attr: Any
    terms: Any
    bounds: Any
    """What `graphc.index` has found out; None before."""

    def __new__(cls, op: str, args: tuple[Expr, ...], dtype: DType, attr: Any = None) -> Expr:
        # numbers and sizes by their spelling (-0.0, NaN), other attributes by identity: a key that held an axis would keep
        # the axis' own expression alive, and so itself
        key = (op, args, dtype, None if attr is None else repr(attr) if isinstance(attr, _SPELLED) else id(attr))
        known = _known.get(key)
        expr = None if known is None else known()
        if expr is None:
            with _known_lock:
                known = _known.get(key)
                expr = None if known is None else known()
                if expr is None:
                    expr = super().__new__(cls)
                    expr.op, expr.args, expr.dtype, expr.attr, expr.terms, expr.bounds = op, args, dtype, attr, None, None
                    _known[key] = KeyedRef(expr, _forget, key)
        return expr

    def __repr__(self) -> str:
        texts: dict[Expr, str] = {}
        for e in self.walk():
            text = e._text([texts[arg] for arg in e.args])
            texts[e] = text if len(text) <= _LONGEST_TEXT else "..."  # what is shared would be spelt out each time
        return texts[self]

    def _text(self, args: list[str]) -> str:
        match self.op:
            case "constant":
                return str(self.attr)
            case "size":
                return f"({self.attr})"
            case "axis" | "accumulator":
                return self.attr.name
            case "load":
                return f"{self.attr.name}[{' if '.join(args)}]"
            case "cast":
                return f"{self.dtype.name}({args[0]})"
        if self.dtype is int64 and self.op in ("add", "mul"):
            return f"({args[0]} {'+' if self.op == 'add' else '*'} {args[1]})"
        return f"{self.op}({', '.join(args)})"

    @property
    def __graphc_emitter__(self) -> ExprEmitter:
        return _EMITTER

    @property
    def shape(self) -> tuple[()]:
        return ()

    def walk(self) -> Iterator[Expr]:
        """This expression and all that it is made of, each once, operands first."""
        return walk((self,))


def walk(roots: Iterable[Expr], seen: set[Expr] | None = None) -> Iterator[Expr]:
    """Expressions and all that they are made of, each once, operands first; but for what has been `seen`."""
    seen = set() if seen is None else seen
    for root in roots:
        stack = [root]
        while stack:
            expr = stack.pop()
            if expr in seen:
                continue
            if expr.args:
                missing = [arg for arg in expr.args if arg not in seen]
                if missing:
                    stack.append(expr)
                    missing.reverse()
                    stack += missing
                    continue
            seen.add(expr)
            yield expr


_LONGEST_TEXT = 5000
_SPELLED = (bool, int, float, complex, Dim)
# What a WeakValueDictionary would do, at half the price: half of a compilation's expressions are known already.
_known: dict[Any, KeyedRef[Any, Expr]] = {}
_known_lock = threading.RLock()


def _forget(known: KeyedRef[Any, Expr]) -> None:
    """An expression is gone, and no other has taken its place."""
    if _known.get(known.key) is known:
        del _known[known.key]


class ExprEmitter:
    """What `emit` does for expressions: numbers become constants, composite ops their scalar form."""

    priority = 20

    def emit(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Expr:
        if record.name == "cast":
            return cast(args[0], attrs["dtype"])
        if record.name == "constant":
            return constant(attrs["value"].item(), dtype_of(attrs["value"].dtype))
        args = tuple(size(arg) if isinstance(arg, Dim) else arg for arg in args)
        # a shape of its own for expressions, so that Python numbers give way to them in promotion
        dtype = common_dtype(record, [TensorType(a.dtype, (1,)) if isinstance(a, Expr) else a for a in args])
        operands = tuple(
            (arg if name in record.keeps else cast(arg, dtype)) if isinstance(arg, Expr) else constant(arg, dtype)
            for name, arg in zip(record.operands, args)
        )
        if record.scalar is not None:
            return _rounded_once(record, operands, dtype)
        result = record.infer(*(TensorType(e.dtype, ()) for e in operands), **attrs)
        return Expr(record.name, operands, result.dtype)


_EMITTER = ExprEmitter()


def _rounded_once(record: OpDef, operands: tuple[Expr, ...], dtype: DType) -> Expr:
    """The scalar form of an op: of halves it is computed in single precision, and its result alone is rounded."""
    wide = dtype.computes_in
    if wide is dtype:
        return record.scalar(*operands)  # type: ignore[misc]
    result: Expr = record.scalar(*(cast(e, wide) if e.dtype is dtype else e for e in operands))  # type: ignore[misc]
    return cast(result, dtype) if result.dtype is wide else result


def constant(value: Scalar, dtype: DType) -> Expr:
    """A number: rounded to the dtype, or cut to its bits."""
    if dtype is int64 and type(value) is int and -(1 << 63) <= value < 1 << 63:  # an index, nearly always
        return Expr("constant", (), dtype, value)
    return Expr("constant", (), dtype, scalar_array(value, dtype).item())


def cast(x: Expr, dtype: DType) -> Expr:
    """x converted to dtype; x itself where it has that dtype already."""
    if x.dtype is dtype:
        return x
    if x.op == "constant":
        return constant(x.attr, dtype)
    if x.op == "cast" and x.args[0].dtype is dtype and dtype.computes_in is x.dtype:
        return x.args[0]  # a half that was widened
    return Expr("cast", (x,), dtype)


def size(value: Size) -> Expr:
    """A size as an int64."""
    return Expr("size", (), int64, value) if isinstance(value, Dim) else constant(value, int64)


def load(buffer: Buffer, offset: Expr, mask: Expr | None = None) -> Expr:
    """The element at `offset`; with a mask, 0 (and no access) where that is false."""
    return Expr("load", (offset,) if mask is None else (offset, mask), buffer.dtype, buffer)
