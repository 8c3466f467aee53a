"""What becomes of the sums of a product: the function that stores them, or what is computed from them element by element."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from graphc.backends.llvm.axes import locate
from graphc.backends.llvm.builder import Function
from graphc.backends.llvm.context import Context
from graphc.backends.llvm.elementwise import REGISTER, Registers, cast
from graphc.backends.llvm.expression import Evaluator, Uniform, Varying
from graphc.backends.llvm.integers import Integers, known
from graphc.backends.llvm.memory import load_consecutive
from graphc.backends.llvm.planned_gemm import Epilogue
from graphc.expression import Axis
from graphc.kernel import Gemm, Source
from graphc.types import DType

_UNROLLED = 4
"""As many vectors of a row are stored without a loop."""


def emit_epilogue(
    context: Context, kernel: Gemm, epilogue: Epilogue, dtype: DType, width: int, columns: int | None, symbol: str
) -> None:
    """Add the function

        void symbol(ptr context, i64 batch, ptr sums, i64 step, i64 row, i64 rows, i64 column, i64 columns)

    that stores what becomes of a part of a matrix of sums in `dtype`, in vectors of `width` columns. Row i of the sums is
    `step` * i elements behind row 0. Where there are always as many columns, `columns` says how many.
    """
    numbers = [("i64", name) for name in ("step", "row", "rows", "column", "columns")]
    params = [("ptr", "context"), ("i64", "batch"), ("ptr", "sums"), *numbers]
    f = context.module.function(symbol, params, linkage="internal")
    _Writer(context, f, kernel, epilogue, dtype, width, "%columns" if columns is None else str(columns)).write()
    f.do("ret void")


class _Writer:
    """Writes the body of the function."""

    def __init__(
        self, context: Context, f: Function, kernel: Gemm, epilogue: Epilogue, dtype: DType, width: int, columns: str
    ) -> None:
        self.f = f
        self.integers = Integers(f)
        self.kernel = kernel
        self.epilogue = epilogue
        self.dtype = dtype
        self.width = width
        self.columns = columns
        stores = self.epilogue.stores
        self.roots = [e for s in stores for e in (s.offset, s.value, s.mask) if e is not None]
        self.changing: set[Source] = {self.kernel.accumulator, *(s.buffer for s in stores)}
        loaded = {e.attr for root in self.roots for e in root.walk() if e.op == "load"}
        self.pointers = context.pointers(f, loaded | {s.buffer for s in stores})

    def write(self) -> None:
        """Go through the rows, and through the columns in vectors."""
        f, epilogue, integers = self.f, self.epilogue, self.integers
        base = Evaluator(f, self.width if epilogue.n else 1, self.pointers)
        for axis, place in zip(epilogue.batch, locate(f, epilogue.batch, "%batch"), strict=True):
            base.bind(axis, place)
        base.prepare(self.roots, self.changing)
        with (
            self.stretches(base, epilogue.m, "%row", "%rows") as (outside, before, low, count),
            f.loop(low, integers.add(low, count), hint="row", reduced=False) as place,
        ):
            scope = outside.child()
            if epilogue.m:
                scope.bind(epilogue.m[-1], place)
            scope.prepare(self.roots, self.changing)
            i = integers.add(before, integers.subtract(place, low))
            sums = self.element("%sums", integers.multiply(i, "%step"))
            with self.stretches(scope, epilogue.n, "%column", self.columns) as (inside, column, first, count):
                self.run(inside, self.element(sums, column), first, count)

    @contextmanager
    def stretches(
        self, scope: Evaluator, axes: Sequence[Axis], first: str, count: str
    ) -> Iterator[tuple[Evaluator, str, str, str]]:
        """Go through the places from `first` on in stretches along the last axis; yields a scope in which the axes before are
        bound, how many places came before, where on the last axis the stretch begins, and how long it is."""
        f, integers = self.f, self.integers
        if len(axes) < 2:
            yield scope, "0", first, count
            return
        row = axes[-1].extent
        end = integers.add(first, count)
        lines = integers.divide(first, row), integers.divide(integers.add(end, row - 1), row)
        with f.loop(*lines, hint="line", reduced=False) as number:
            begin = integers.multiply(number, row)
            low, high = integers.greatest(first, begin), integers.least(end, integers.add(begin, row))
            inside = scope.child()
            for axis, place in zip(axes[:-1], locate(f, axes[:-1], number), strict=True):
                inside.bind(axis, place)
            inside.prepare(self.roots, self.changing)
            yield inside, integers.subtract(low, first), integers.subtract(low, begin), integers.subtract(high, low)

    def run(self, scope: Evaluator, sums: str, first: str, count: str) -> None:
        """Store neighbouring columns, `first` being the place of the first one on the last axis of n."""
        f, width, integers = self.f, scope.width, self.integers
        total = known(count)
        if total is not None and total <= _UNROLLED * width:
            for j in range(0, total, width):
                self.store(scope, sums, first, str(j), integers.mask(width, 0, total - j) if total - j < width else None)
            return
        whole = f.value(f"and i64 {count}, {-width}") if total is None else str(total // width * width)
        with f.loop("0", whole, str(width), hint="vector", reduced=False) as place:
            self.store(scope, sums, first, place, None)
        left = integers.subtract(count, whole)
        if width > 1 and left != "0":
            with f.when(f.value(f"icmp ne i64 {left}, 0")) if total is None else nullcontext():
                self.store(scope, sums, first, whole, integers.mask(width, 0, left))

    def store(self, scope: Evaluator, sums: str, first: str, j: str, mask: str | None) -> None:
        """Store a vector of columns, or some lanes of it, from number j of the neighbouring ones on."""
        f, width = self.f, scope.width
        inside = scope.child(mask=mask)
        if self.epilogue.n:
            inside.bind(self.epilogue.n[-1], self.integers.add(first, j), lanes=True)
        dtype, accumulator = self.dtype, self.kernel.accumulator
        total = load_consecutive(f, dtype, width, sums, j, mask)
        total = cast(Registers(f, dtype, width), total, accumulator.dtype)
        inside.define(accumulator.value, Varying(total) if width > 1 else Uniform(total))
        inside.store(*self.epilogue.stores)

    def element(self, sums: str, offset: str) -> str:
        """The address of a sum."""
        return sums if offset == "0" else self.f.value(f"getelementptr {REGISTER[self.dtype.name]}, ptr {sums}, i64 {offset}")
