"""Kernel expressions as LLVM operands.

    evaluator = Evaluator(f, 16, pointers)
    with f.loop("0", "%n", "16") as i:
        inner = evaluator.child()
        inner.bind(axis, i, lanes=True)
        x = inner.vector(expr)

An evaluator is a scope: it reuses what it or the scopes around it have computed already. Code is emitted where the
function stands, so a child is used while the function is inside the block or loop that the child was made for, and
dropped with it.

A value has one of three forms, and takes the least of them that it can: index arithmetic stays scalar, whatever the
width is, and a load of consecutive elements is known for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from graphc import index
from graphc.backends.llvm import elementwise, memory
from graphc.backends.llvm.builder import Function, vector
from graphc.backends.llvm.elementwise import REGISTER, Registers
from graphc.backends.llvm.sizes import size_operand
from graphc.expression import Accumulator, Axis, Buffer, Expr, walk
from graphc.kernel import Source, Store
from graphc.types import DType, Real, bool_, int32, int64

_LONGEST_STRIDE = 4  # of what consecutive loads and shuffles are cheaper for than a gather
_INDEX_OPS = frozenset(("add", "sub", "mul", "neg", "quotient", "modulo"))
_COMPARISONS = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))


@dataclass(frozen=True, slots=True)
class Uniform:
    """The same number in each lane, in a scalar register. `number` is its value where that is known; an int64 is a
    multiple of `divisor` (only 0 is one of 0)."""

    operand: str
    divisor: int = 1
    number: Real | None = None


@dataclass(frozen=True, slots=True)
class Linear:
    """An int64 that grows by `stride` (not 0) from lane to lane; `base` is lane 0's."""

    base: Uniform
    stride: int


@dataclass(frozen=True, slots=True)
class Varying:
    """A number of its own in each lane, in a vector register. A `narrow` int64 fits an int32, and is held as one."""

    operand: str
    narrow: bool = False


Value: TypeAlias = Uniform | Linear | Varying


class Evaluator:
    """Evaluates expressions inside a function, on `width` lanes at a time (1 for scalar code).

    `pointers(buffer)` is the operand of a buffer's base address. `mask` is the vector("i1", width) of the lanes that may
    touch memory, at least one of them; None for all.
    """

    def __init__(self, f: Function, width: int, pointers: Callable[[Buffer], str], mask: str | None = None) -> None:
        self.f = f
        self.width = width
        self.mask = mask
        self.streamed: frozenset[Store] = frozenset()
        """What is stored past the caches."""
        self._pointers = pointers
        self._parent: Evaluator | None = None
        self._values: dict[Expr, Value] = {}
        self._vectors: dict[Expr, str] = {}
        self._accumulators: dict[Accumulator, tuple[str, bool]] = {}
        # shared by all scopes of a function
        self._sources: dict[Expr, frozenset[Source]] = {}
        self._fits: dict[Expr, bool] = {}

    def child(self, *, width: int | None = None, mask: str | None = None) -> Evaluator:
        """A scope inside this one. `mask` is this one's by default; the width may change only from 1. What is known here
        is not computed anew there, whatever the mask is."""
        child = Evaluator(self.f, width or self.width, self._pointers, mask or self.mask)
        child.streamed = self.streamed
        child._parent = self
        child._sources = self._sources
        child._fits = self._fits
        return child

    # What leaves stand for

    def bind(self, axis: Axis, operand: str, *, lanes: bool = False, divisor: int = 1) -> None:
        """Give an axis its i64 operand; with `lanes` that is lane 0's value, and lane j's is j more. `divisor` is a
        number that is known to divide the operand."""
        if operand.startswith("%"):
            base = Uniform(operand, divisor)
        else:
            base = Uniform(operand, abs(int(operand)), int(operand))
        self.define(axis.value, Linear(base, 1) if lanes and self.width > 1 else base)

    def bind_accumulator(self, accumulator: Accumulator, slot: str, *, varying: bool) -> None:
        """An accumulator stands in a stack slot; `varying` as a vector of the evaluator's width, else as a scalar."""
        self._accumulators[accumulator] = slot, varying
        self.forget({accumulator})

    def accumulator(self, accumulator: Accumulator) -> tuple[str, bool]:
        """The slot of an accumulator, and whether it is varying; a KeyError if it has none."""
        for scope in self._scopes():
            if accumulator in scope._accumulators:
                return scope._accumulators[accumulator]
        raise KeyError(f"{accumulator} has no slot here")

    def define(self, expr: Expr, value: Value) -> None:
        """Give an expression a value that was computed elsewhere, as in define(gemm.accumulator.value, Varying(sum))."""
        self._values[expr] = value
        self._sources[expr] = frozenset(e.attr for e in expr.walk() if e.op in ("load", "accumulator"))

    # Values

    def evaluate(self, expr: Expr) -> Value:
        """The value, in the form that comes of itself."""
        pending = [expr]
        while pending:  # not by recursion: expressions can be deep
            e = pending[-1]
            missing = [] if self._find(e) else [arg for arg in e.args if not self._find(arg)]
            pending.extend(reversed(missing))
            if not missing:
                pending.pop()
                if not self._find(e):
                    self._values[e] = self._compute(e)
                    own = {e.attr} if e.op in ("load", "accumulator") else ()
                    self._sources[e] = frozenset(own).union(*(self._sources[arg] for arg in e.args))
        return self._value(expr)

    def scalar(self, expr: Expr) -> str:
        """The operand of a value that is the same in each lane; a ValueError if it is not known to be."""
        value = self.evaluate(expr)
        if not isinstance(value, Uniform):
            raise ValueError(f"{expr} differs from lane to lane")
        return value.operand

    def first(self, expr: Expr) -> str:
        """The operand of an index at the first lane; a ValueError if it is not known to grow evenly from there."""
        value = self.evaluate(expr)
        if isinstance(value, Varying):
            raise ValueError(f"{expr} has no first lane")
        return (value.base if isinstance(value, Linear) else value).operand

    def vector(self, expr: Expr) -> str:
        """The operand of type vector(REGISTER[dtype], width), whatever the form is."""
        if self.width == 1:
            return self.scalar(expr)
        for scope in self._scopes():
            if expr in scope._vectors:
                return scope._vectors[expr]
        self._vectors[expr] = self._spread(expr, self.evaluate(expr))
        return self._vectors[expr]

    def prepare(self, roots: Iterable[Expr], changing: Collection[Source]) -> None:
        """Evaluate here, outside a loop, the parts of the roots that are the same throughout: that depend neither on axes
        yet to be bound nor on the sources that the loop changes. The loop must run at least once, or what it loads might
        not be there to be loaded."""

        def evaluate(e: Expr) -> None:
            if e.dtype is int64:  # indices mostly stay scalars
                self.evaluate(e)
            else:
                self.vector(e)

        self.forget(changing)
        ready: dict[Expr, bool] = {}
        seen: set[Expr] = set()
        for root in roots:
            for e in walk((root,), seen):
                if e.op in ("axis", "accumulator"):
                    ready[e] = e.attr not in changing and (e.op == "accumulator" or self._find(e) is not None)
                else:
                    ready[e] = all(ready[arg] for arg in e.args) and not (e.op == "load" and e.attr in changing)
                if not ready[e]:
                    for arg in e.args:
                        if ready[arg]:
                            evaluate(arg)
            if ready[root]:
                evaluate(root)

    def forget(self, changed: Collection[Source]) -> None:
        """The sources are no longer what they were: compute anew what depends on them."""
        for scope in self._scopes():
            for known in (scope._values, scope._vectors):
                for e in [e for e in known if not self._sources[e].isdisjoint(changed)]:
                    del known[e]

    def _scopes(self) -> Iterator[Evaluator]:
        scope: Evaluator | None = self
        while scope is not None:
            yield scope
            scope = scope._parent

    def _find(self, expr: Expr) -> Value | None:
        scope: Evaluator | None = self
        while scope is not None:
            value = scope._values.get(expr)
            if value is not None:
                return value
            scope = scope._parent
        return None

    def _value(self, expr: Expr) -> Value:
        value = self._find(expr)
        assert value is not None, expr
        return value

    def _compute(self, e: Expr) -> Value:
        """The value of an expression whose operands have been computed."""
        match e.op:
            case "constant":
                number = Registers(self.f, e.dtype, 1).number(e.attr)
                return Uniform(number, abs(int(e.attr)) if e.dtype is int64 else 1, e.attr)
            case "size":
                return Uniform(size_operand(self.f, e.attr))
            case "axis":
                raise KeyError(f"axis {e.attr} is not bound here")
            case "accumulator":
                return self._read_accumulator(e.attr)
            case "load":
                return self._load(e)
        values = [self._value(arg) for arg in e.args]
        is_sized = e.op in ("quotient", "modulo") and e.args[1].op == "size"
        if is_sized:
            values[1] = self._divisor(values[1])
        if e.dtype is int64 and e.op in _INDEX_OPS:
            value = self._index(e.op, values)
            if value is not None:
                return value
        constants = tuple(v.number if isinstance(v, Uniform) else None for v in values)
        dtype = e.args[-1].dtype
        if all(isinstance(v, Uniform) for v in values):
            operands = [v.operand for v in values if isinstance(v, Uniform)]
            return Uniform(elementwise.render(self.f, e.op, dtype, 1, operands, result=e.dtype, constants=constants))

        narrow = dtype is int64 and all(self._is_narrow(arg) for arg in e.args)
        if narrow and e.op in _INDEX_OPS and self._is_narrow(e):
            operands = [self._spread(arg, v, narrow=True) for arg, v in zip(e.args, values)]
            return Varying(elementwise.render(self.f, e.op, int32, self.width, operands, result=int32), narrow=True)
        if narrow and (e.op in _COMPARISONS or e.op == "cast"):
            operands = [self._spread(arg, v, narrow=True) for arg, v in zip(e.args, values)]
            dtype = int32
        else:
            operands = [self._spread(arg, v) if is_sized else self.vector(arg) for arg, v in zip(e.args, values)]
        uniform = tuple(v.operand if isinstance(v, Uniform) else None for v in values)
        return Varying(elementwise.render(
            self.f, e.op, dtype, self.width, operands, result=e.dtype, constants=constants, uniform=uniform
        ))  # fmt: skip

    def _divisor(self, size: Value) -> Uniform:
        """A size to divide by. Where it is 0 the quotient is of no use, but may be computed: beside a mask, or outside a loop
        that has no iterations."""
        assert isinstance(size, Uniform)
        return Uniform(self.f.intrinsic("llvm.umax", "i64", size.operand, "1"))

    def _is_narrow(self, expr: Expr) -> bool:
        """Whether an int64 is known to fit an int32."""
        if expr not in self._fits:
            low, high = index.bounds(expr)
            self._fits[expr] = index.surely(low, -(2**31)) and high < 2**31
        return self._fits[expr]

    def _spread(self, expr: Expr, value: Value, narrow: bool = False) -> str:
        """The value as a vector; `narrow` for an int64 that fits as a vector of i32."""
        f, scalar = self.f, REGISTER[expr.dtype.name]
        element = "i32" if narrow else scalar
        type_ = vector(element, self.width)
        match value:
            case Varying():
                if value.narrow == narrow:
                    return value.operand
                held = vector("i32" if value.narrow else "i64", self.width)
                return f.value(f"{'trunc' if narrow else 'sext'} {held} {value.operand} to {type_}")
            case Uniform(number=None):
                operand = f.value(f"trunc i64 {value.operand} to i32") if narrow else value.operand
                return f.splat(element, operand, self.width)
            case Uniform():
                return f"splat ({element} {value.operand})"
            case Linear():
                steps = ", ".join(f"{element} {lane * value.stride}" for lane in range(self.width))
                return f.value(f"add {type_} {self._spread(expr, value.base, narrow)}, <{steps}>")

    def _read_accumulator(self, accumulator: Accumulator) -> Value:
        slot, varying = self.accumulator(accumulator)
        type_ = vector(REGISTER[accumulator.dtype.name], self.width if varying else 1)
        operand = self.f.value(f"load {type_}, ptr {slot}")
        return Varying(operand) if varying and self.width > 1 else Uniform(operand)

    # Index arithmetic, on scalars as far as it goes

    def _index(self, op: str, values: list[Value]) -> Value | None:
        """An op on index values as a uniform or linear value; None if it is neither."""
        x = values[0]
        y = values[-1]
        if isinstance(x, Varying) or isinstance(y, Varying):
            return None
        a, step = (x.base, x.stride) if isinstance(x, Linear) else (x, 0)
        b, other_step = (y.base, y.stride) if isinstance(y, Linear) else (y, 0)
        match op:
            case "neg":
                return _linear(self._integer("sub", Uniform("0", 0, 0), a), -step)
            case "add":
                return _linear(self._integer("add", a, b), step + other_step)
            case "sub":
                return _linear(self._integer("sub", a, b), step - other_step)
            case "mul" if not step and not other_step:
                return self._integer("mul", a, b)
            case "mul" if not other_step and b.number is not None:
                return _linear(self._integer("mul", a, b), step * int(b.number))
            case "mul" if not step and a.number is not None:
                return _linear(self._integer("mul", a, b), other_step * int(a.number))
            case "quotient" | "modulo" if b.number is not None:
                # base % c is at most c - g, where g divides both: the lanes do not reach the next multiple of c
                g = math.gcd(a.divisor, int(b.number))
                if step and not 0 < step * (self.width - 1) < g:
                    return None
                return _linear(self._integer(op, a, b), step if op == "modulo" else 0)
            case "quotient" | "modulo" if not step and not other_step:
                return self._integer(op, a, b)
        return None

    def _integer(self, op: str, a: Uniform, b: Uniform) -> Uniform:
        """Scalar i64 arithmetic."""
        match op, a.number, b.number:
            case ("add" | "sub", _, 0) | ("mul" | "quotient", _, 1):
                return a
            case ("add", 0, _) | ("mul", 1, _):
                return b
            case _, int(x), int(y):
                exact = {"add": x + y, "sub": x - y, "mul": x * y, "quotient": x // (y or 1), "modulo": x % (y or 1)}[op]
                number = (exact + 2**63) % 2**64 - 2**63
                return Uniform(str(number), abs(number), number)
        if op == "mul":
            divisor = a.divisor * b.divisor
        elif op == "quotient":
            divisor = a.divisor // b.divisor if b.number is not None and a.divisor % b.divisor == 0 else 1
        else:
            divisor = math.gcd(a.divisor, b.divisor)
        instruction = {"quotient": "udiv", "modulo": "urem"}.get(op, op)
        return Uniform(self.f.value(f"{instruction} i64 {a.operand}, {b.operand}"), divisor)

    # Memory

    def _load(self, e: Expr) -> Value:
        f, width, buffer, dtype = self.f, self.width, e.attr, e.dtype
        zero = Registers(f, dtype, 1).number(0)
        offset = self._value(e.args[0])
        condition, mask = self._masks(e.args[1] if len(e.args) > 1 else None)
        if buffer.size == 0 or condition == "false":
            return Uniform(zero)
        pointer = self._pointers(buffer)

        if isinstance(offset, Uniform):
            chosen = mask if mask is not self.mask else None  # the lanes of a mask of the load's own
            needed = condition if chosen is None else elementwise.any_lane(f, chosen, width)
            if condition is not None and chosen is not None:
                needed = f.value(f"and i1 {condition}, {needed}")
            place = offset.operand if needed is None else f.value(f"select i1 {needed}, i64 {offset.operand}, i64 0")
            operand = memory.load_one(f, dtype, pointer, place)
            if needed is not None:
                operand = Registers(f, dtype, 1).select(needed, operand, zero)
            if chosen is None:
                return Uniform(operand)
            registers = Registers(f, dtype, width)
            return Varying(registers.select(chosen, f.splat(registers.scalar, operand, width), registers.number(0)))

        if condition is not None:
            mask = self._both(mask, f.splat("i1", condition, width))
        if isinstance(offset, Linear) and (abs(offset.stride) == 1 or (mask is None and abs(offset.stride) <= _LONGEST_STRIDE)):
            return Varying(self._load_linear(dtype, pointer, offset, mask))
        return Varying(memory.gather(f, dtype, width, pointer, self._offsets(e.args[0], offset), mask))

    def _load_linear(self, dtype: DType, pointer: str, offset: Linear, mask: str | None) -> str:
        f, width, scalar = self.f, self.width, REGISTER[dtype.name]
        first, mask = self._ascending(offset, mask)
        stride = abs(offset.stride)
        if stride == 1:
            operand = memory.load_consecutive(f, dtype, width, pointer, first, mask)
        else:
            operand = memory.load_strided(f, dtype, width, pointer, first, stride)
        return operand if offset.stride > 0 else memory.reverse(f, scalar, width, operand)

    def store(self, *statements: Store) -> None:
        """Write one element for each active lane.

        The values of all statements are computed before the first is written, since an output may stand where an input
        does; and they are computed whether or not a statement's own mask holds, so their loads need masks themselves.
        """
        for statement in statements:
            for e in filter(None, (statement.mask, statement.offset, statement.value)):
                self.evaluate(e)
        for statement in statements:
            self._store(statement)
        self.forget({statement.buffer for statement in statements})

    def _store(self, statement: Store) -> None:
        f, width, buffer, dtype = self.f, self.width, statement.buffer, statement.buffer.dtype
        offset, value = self._value(statement.offset), self._value(statement.value)
        condition, mask = self._masks(statement.mask)
        if buffer.size == 0 or condition == "false":
            return
        pointer = self._pointers(buffer)
        one = isinstance(offset, Uniform) and isinstance(value, Uniform) and (mask is self.mask or width == 1)
        operand = value.operand if one and isinstance(value, Uniform) else self.vector(statement.value)
        with f.when(condition) if condition is not None else nullcontext():
            if one and isinstance(offset, Uniform):
                memory.store_one(f, dtype, pointer, offset.operand, operand)
            elif isinstance(offset, Linear) and abs(offset.stride) == 1:
                first, mask = self._ascending(offset, mask)
                if offset.stride < 0:
                    operand = memory.reverse(f, REGISTER[dtype.name], width, operand)
                streamed = statement in self.streamed
                memory.store_consecutive(f, dtype, width, pointer, first, operand, mask, streamed=streamed)
            else:
                memory.scatter(f, dtype, width, pointer, self._offsets(statement.offset, offset), operand, mask)

    def _masks(self, own: Expr | None) -> tuple[str | None, str | None]:
        """Where memory is touched: an i1 that holds for all lanes alike, and a mask; None for always."""
        value = None if own is None else self._value(own)
        if self.width == 1:
            operand = value.operand if isinstance(value, Uniform) and value.number is not True else None
            return self._both(self.mask, operand), None
        match value:
            case None | Uniform(number=True):
                return None, self.mask
            case Uniform():
                return value.operand, self.mask
            case Varying():
                return None, self._both(self.mask, value.operand)
        raise TypeError(f"the mask {own} is not boolean")

    def _both(self, a: str | None, b: str | None) -> str | None:
        if a is None or b is None:
            return a or b
        return Registers(self.f, bool_, self.width).do("and", a, b)

    def _ascending(self, offset: Linear, mask: str | None) -> tuple[str, str | None]:
        """The offset of the lowest element, and the mask in the order of memory."""
        if offset.stride > 0:
            return offset.base.operand, mask
        span = (self.width - 1) * offset.stride
        first = self._integer("add", offset.base, Uniform(str(span), abs(span), span))
        return first.operand, mask if mask is None else memory.reverse(self.f, "i1", self.width, mask)

    def _offsets(self, expr: Expr, value: Value) -> tuple[str, str]:
        """Offsets as a vector, as narrow as they can be."""
        narrow = self._is_narrow(expr)
        return vector("i32" if narrow else "i64", self.width), self._spread(expr, value, narrow)


def _linear(base: Uniform, stride: int) -> Value:
    return Linear(base, stride) if stride else base
