"""What products are packed with: groups of axes, known integers, and squares turned in registers."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from graphc import index, ops
from graphc.backends.llvm.axes import collapse, extent, ordered
from graphc.backends.llvm.builder import Module
from graphc.backends.llvm.integers import Integers
from graphc.backends.llvm.jit import compile_module
from graphc.backends.llvm.packing import Operand
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.transpose import emit_transpose
from graphc.disk_cache import DiskCache
from graphc.expression import Axis, Buffer, Expr, cast, constant, load
from graphc.types import DType, float32, float64, int8, int64

rows, columns = Axis("rows", 3), Axis("columns", 8)
one, none = Axis("one", 1), Axis("none", 0)
memory = Buffer("memory", float32, 1000, "input")
numbers = Buffer("numbers", int64, 1000, "input")


def place(*terms: tuple[Axis, int], offset: int = 0) -> Expr:
    return index.plus(index.strided([axis.value for axis, _ in terms], [stride for _, stride in terms]), offset)


def test_neighbouring_axes_of_a_contiguous_matrix_become_one() -> None:
    value = load(memory, place((rows, 8), (columns, 1), offset=5))
    (axis,), (collapsed,) = collapse((rows, one, columns), (value,))
    assert axis.extent == 24
    assert collapsed == load(memory, index.plus(axis.value, 5))


@pytest.mark.parametrize(
    "value",
    [
        load(memory, place((rows, 9), (columns, 1))),
        load(memory, place((rows, 8), (columns, 2))),
        ops.maximum(load(memory, place((rows, 8), (columns, 1))), load(memory, columns.value)),
        load(memory, place((rows, 8), (columns, 1)), index.less(columns.value, 5)),
        load(memory, place((rows, 8), (columns, 1))) * cast(columns.value, float32),
        cast(load(numbers, place((rows, 8), (columns, 1))) + columns.value, float32),
    ],
    ids=["gap", "stride", "another use", "mask", "number", "among numbers read"],
)
def test_axes_stay_apart_where_an_index_needs_it(value: Expr) -> None:
    axes, roots = collapse((rows, columns), (value,))
    assert (axes, roots) == ((rows, columns), (value,))


def test_axes_become_one_for_whole_numbers_read_from_memory() -> None:
    value = load(numbers, place((rows, 8), (columns, 1))) + load(numbers, place((rows, 16), (columns, 2)))
    axes, _ = collapse((rows, columns), (value,))
    assert [axis.extent for axis in axes] == [24]


def test_axes_that_are_empty_or_of_one_element() -> None:
    axes, roots = collapse((one,), (load(memory, place((one, 7), offset=2)),))
    assert (axes, roots) == ((), (load(memory, index.number(2)),))
    axes, _ = collapse((rows, none), (load(memory, place((rows, 0), (none, 1))),))
    assert extent(axes) == 0
    assert extent(()) == 1


def test_terms_of_outer_loops_come_first() -> None:
    inner, outer = columns, rows
    value = load(memory, index.plus(place((inner, 30)), place((outer, 2), offset=3)))
    offset = ordered(value, (outer, inner)).args[0]
    assert index.terms(offset) == index.terms(value.args[0])
    assert list(index.terms(offset)[0]) == [outer.value, inner.value]
    assert ordered(constant(2.0, float32), (outer, inner)) == constant(2.0, float32)


def test_operands_that_can_be_read_where_they_stand() -> None:
    def strides(value: Expr) -> tuple[int, int] | None:
        return Operand.of(value, float32, (), (rows,), (columns,)).strides

    plain = load(memory, place((rows, 1), (columns, 40)))
    assert strides(plain) == (1, 40)
    assert strides(load(memory, place((columns, 1)))) == (0, 1)
    assert strides(plain * 2.0) is None
    assert strides(load(memory, place((rows, 1), (columns, 40)), index.less(rows.value, 2))) is None
    assert strides(load(Buffer("doubles", float64, 1000), place((rows, 1), (columns, 40)))) is None


def test_where_around_a_masked_load_is_the_load() -> None:
    inside = index.less(columns.value, 5)
    value = load(memory, columns.value, inside)
    plain = Operand.of(Expr("where", (inside, value, constant(0.0, float32)), float32), float32, (), (rows,), (columns,))
    assert plain.value == value
    other = Expr("where", (inside, value, constant(1.0, float32)), float32)
    assert Operand.of(other, float32, (), (rows,), (columns,)).value == other


def test_integers_keep_what_is_known() -> None:
    f = Module("test").function("f", [("i64", "x")])
    integers = Integers(f)
    before = str(f)
    assert integers.add(2, "3") == "5" and integers.add("%x", 0) == "%x" and integers.add(0, "%x") == "%x"
    assert integers.subtract("%x", "0") == "%x" and integers.subtract(3, 5) == "-2"
    assert integers.multiply("%x", 1) == "%x" and integers.multiply("%x", 0) == "0" and integers.multiply(1, "%x") == "%x"
    assert integers.divide(17, 5) == "3" and integers.divide("%x", 1) == "%x"
    assert integers.remainder(17, 5) == "2" and integers.remainder("%x", 1) == "0"
    assert integers.least(3, "4") == "3" and integers.greatest("3", 4) == "4"
    with integers.loop(4, 5) as i:
        assert i == "4"
    assert str(f) == before, "nothing of this needs an instruction"
    assert integers.add("%x", 1).startswith("%")


@pytest.mark.parametrize(
    ("dtype", "width"),
    [(float32, 4), (float32, 8), (float32, 16), (float64, 2), (float64, 4), (float64, 8), (int8, 16), (int64, 2)],
    ids=str,
)
def test_transposition(dtype: DType, width: int) -> None:
    module = Module("test")
    symbol = emit_transpose(module, dtype, width)
    params = [("ptr", "from"), ("i64", "from_step"), ("ptr", "to"), ("i64", "to_step")]
    f = module.function("turn", params)
    f.call("void", symbol, *((type_, f"%{name}") for type_, name in params))
    f.do("ret void")
    native = compile_module(str(module), Target.host(), cache=DiskCache(None, 0))
    types = [ctypes.c_void_p, ctypes.c_int64] * 2
    turn = ctypes.CFUNCTYPE(None, *types)(native.address("turn"))
    square = np.arange(width * (width + 5)).reshape(width, width + 5).astype(dtype.numpy)
    out = np.full((width, width + 3), 99, dtype.numpy)
    turn(square.ctypes.data, width + 5, out.ctypes.data, width + 3)
    np.testing.assert_array_equal(out[:, :width], square[:, :width].T)
    assert (out[:, width:] == 99).all()
