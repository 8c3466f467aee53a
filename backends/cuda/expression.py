"""Kernel expressions as C++ values.

A scope reuses what it, or the scopes around it, have computed already. Code is written where the function stands, so a scope
is used inside the block that it was made for, and dropped with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from graphc import index
from graphc.backends.cuda.code import Code
from graphc.backends.cuda.elementwise import C_TYPE, literal, render
from graphc.backends.cuda.launch import Sizes
from graphc.dims import Dim
from graphc.expression import Accumulator, Axis, Buffer, Expr
from graphc.kernel import Source, Store
from graphc.types import Size, bool_, int64

_INDEX_OPS = {"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "neg": "-{}", "quotient": "{} / {}", "modulo": "{} % {}"}
_COMPARISONS = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))
_LEAVES = frozenset(("constant", "size", "axis"))


class Scope:
    """Evaluates expressions in one block of a function. `pointer(buffer)` is what a buffer's numbers are found by, `sizes` what
    the function knows of symbolic sizes."""

    def __init__(self, code: Code, pointer: Callable[[Buffer], str], sizes: Sizes) -> None:
        self.code = code
        self._pointer = pointer
        self._size_names = sizes
        self._parent: Scope | None = None
        self._values: dict[Expr, str] = {}
        # shared by all scopes of a function
        self._sources: dict[Expr, frozenset[Source]] = {}
        self._narrow: dict[Expr, bool] = {}

    def child(self) -> Scope:
        """A scope inside this one."""
        child = Scope(self.code, self._pointer, self._size_names)
        child._parent, child._sources, child._narrow = self, self._sources, self._narrow
        return child

    def bind(self, axis: Axis, text: str) -> None:
        """Give an axis its value: an int, or a long long where its extent takes one."""
        self._values[axis.value] = text
        self._sources[axis.value] = frozenset()

    def bind_accumulator(self, accumulator: Accumulator, variable: str) -> None:
        """Give an accumulator its variable, or another one."""
        self.forget({accumulator})
        self._values[accumulator.value] = variable
        self._sources[accumulator.value] = frozenset((accumulator,))

    def bind_load(self, load: Expr, text: str) -> None:
        """Give a load the value that has been read already."""
        self._values[load] = text
        self._sources[load] = frozenset((load.attr,))

    def value(self, expr: Expr) -> str:
        """The name, or the literal, of an expression's value."""
        pending = [expr]
        while pending:  # not by recursion: expressions can be deep
            e = pending[-1]
            missing = [] if self._find(e) is not None else [arg for arg in e.args if self._find(arg) is None]
            pending.extend(reversed(missing))
            if not missing:
                pending.pop()
                if self._find(e) is None:
                    self._values[e] = self._compute(e)
                    own = {e.attr} if e.op == "load" else ()
                    self._sources[e] = frozenset(own).union(*(self._sources[arg] for arg in e.args))
        return self._known(expr)

    def prepare(self, roots: Iterable[Expr], changing: Collection[Source]) -> None:
        """Evaluate here, before a loop that runs at least once, what is the same throughout: what depends neither on axes that
        have no value yet nor on the sources that the loop changes."""
        self.forget(changing)
        ready: dict[Expr, bool] = {}
        for root in roots:
            for e in root.walk():
                if e in ready:
                    continue
                if e.op in ("axis", "accumulator"):
                    ready[e] = e.attr not in changing and self._find(e) is not None
                else:
                    ready[e] = all(ready[arg] for arg in e.args) and not (e.op == "load" and e.attr in changing)
                if not ready[e]:
                    for arg in e.args:
                        if ready[arg]:
                            self.value(arg)
            if ready[root]:
                self.value(root)

    def forget(self, changed: Collection[Source]) -> None:
        """The sources are no longer what they were: what depends on them is computed anew."""
        for scope in self._scopes():
            for e in [e for e in scope._values if not self._sources[e].isdisjoint(changed)]:
                del scope._values[e]

    def store(self, stores: Sequence[Store], condition: str | None = None) -> None:
        """Write one element each. All values are computed before the first is written, since an output may stand where an
        input does; and they are computed whether or not the masks hold, so their loads have masks themselves."""
        lines: list[str] = []
        for store in stores:
            value, offset = self.value(store.value), self.value(store.offset)
            mask = None if store.mask is None else self.value(store.mask)
            if store.buffer.size == 0 or mask == "false":
                continue
            conditions = [c for c in (condition, mask) if c not in (None, "true")]
            head = f"if ({' && '.join(filter(None, conditions))}) " if conditions else ""
            lines.append(f"{head}{self._pointer(store.buffer)}[{offset}] = {value};")
        for line in lines:
            self.code.line(line)
        self.forget({store.buffer for store in stores})

    def is_narrow(self, e: Expr) -> bool:
        """Whether an int64 is held as an int."""
        known = self._narrow.get(e)
        if known is None:
            fits = e.dtype is int64 and (e.op in _LEAVES or (e.op in _INDEX_OPS and all(map(self.is_narrow, e.args))))
            if fits:
                low, high = index.bounds(e)
                fits = _at_least(low, -(1 << 31)) and _at_least((1 << 31) - 1, high)
            known = self._narrow[e] = fits
        return known

    def _scopes(self) -> Iterator[Scope]:
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope._parent

    def _find(self, expr: Expr) -> str | None:
        for scope in self._scopes():
            if expr in scope._values:
                return scope._values[expr]
        return None

    def _known(self, expr: Expr) -> str:
        text = self._find(expr)
        assert text is not None, expr
        return text

    def _compute(self, e: Expr) -> str:
        """The value of an expression whose operands have been computed."""
        match e.op:
            case "constant":
                return str(e.attr) if self.is_narrow(e) else literal(e.attr, e.dtype)
            case "size":
                text = self._size_names.text(e.attr)
                return text if self.is_narrow(e) else f"(long long){text}"
            case "axis" | "accumulator":
                raise KeyError(f"{e.attr} has no value here")
            case "load":
                return self._load(e)
        operands = [self._known(arg) for arg in e.args]
        narrow = [self.is_narrow(arg) for arg in e.args]
        if self.is_narrow(e):
            return self.code.value("int", _INDEX_OPS[e.op].format(*operands), "i")
        if not (e.op in _COMPARISONS and all(narrow)):
            operands = [f"(long long){x}" if is_int else x for x, is_int in zip(operands, narrow)]
        exponent = e.args[1].attr if e.op == "pow" and e.args[1].op == "constant" else None
        text = render(e.op, e.args[-1].dtype, operands, result=e.dtype, exponent=exponent)
        return self.code.value(C_TYPE[e.dtype.name], text)

    def _load(self, e: Expr) -> str:
        buffer: Buffer = e.attr
        mask = self._known(e.args[1]) if len(e.args) > 1 else None
        zero = literal(0, e.dtype)
        if buffer.size == 0 or mask == "false":
            return zero
        text = f"{self._pointer(buffer)}[{self._known(e.args[0])}]"
        if buffer.dtype is bool_:
            text = f"{text} != 0"
        if mask is not None and mask != "true":
            text = f"{mask} ? {text} : {zero}"
        return self.code.value(C_TYPE[e.dtype.name], text)


def _at_least(a: Size | float, b: Size | float) -> bool:
    """Whether a >= b: for symbolic sizes that becomes a fact if it is so now. Floats are infinite."""
    if isinstance(a, Dim) or isinstance(b, Dim):
        return index.surely(a, b) if isinstance(a, float) or isinstance(b, float) else a >= b
    return a >= b
