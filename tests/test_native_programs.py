"""What exported native code computes: loops, derivatives, ops with code of their own, random graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native_files import NativeEntry, close, needs_cc
from random_graphs import Maker
from symbolic_graphs import SymbolicMaker

import graphc
from graphc import native
from graphc.errors import CompileError
from graphc.package import Entry
from graphc.runtime import Program


@needs_cc
def test_loops_and_branches(tmp_path: Path) -> None:
    def newton(x: Any) -> Any:
        return graphc.while_loop(lambda y: ((y * y - x).abs() > 1e-4).any(), lambda y: (y + x / y) / 2, (x,))[0]

    def running(x: Any) -> Any:
        total, partial = graphc.scan(lambda c, y: (c + y, c * y), x[0], x)
        return total, partial, graphc.cond(x.sum() > 0, lambda: x * 2, lambda: x - 1)

    for function, x in ((newton, np.array([4.0, 9, 2], np.float32)),
                        (running, np.random.default_rng(0).standard_normal((9, 37), np.float32))):
        program = graphc.export(function, (graphc.tensor(x),))
        files = native.export(program, tmp_path, name=function.__name__, shared=True)
        status, found = NativeEntry(files)({"x": x})
        assert status == 0 and not files.code.externals
        close(found, program.program(x))


@needs_cc
def test_derivatives_of_loops_of_any_length(tmp_path: Path) -> None:
    """In the caller's memory not all steps can be kept."""
    def slope(x: Any, a: Any, n: Any) -> Any:
        def turn(i: Any, y: Any, z: Any) -> Any:
            return i + 1, (y * 0.9 + a * z.sin()).tanh(), z * 0.999 + 0.01 * y

        with graphc.enable_grad():
            x, a = x.detach().requires_grad_(), a.detach().requires_grad_()
            _, y, z = graphc.while_loop(lambda i, y, z: i < n, turn, (graphc.zeros(1, dtype=graphc.int64), x, x * 2))
            return graphc.autograd.grad((y * z).sum(), (x, a))

    rng = np.random.default_rng(0)
    x, a = rng.standard_normal((2, 5)).astype(np.float64)
    program = graphc.export(slope, (graphc.tensor(x), graphc.tensor(a), graphc.tensor([3]))).program
    files = native.export(program, tmp_path, name="slope", shared=True)
    entry = NativeEntry(files)
    for length in (0, 1, 2, 3, 62, 63, 64, 65, 66, 127, 128, 500, 2000, 5000):
        given = {"x": x, "a": a, "n": np.array([length])}
        status, found = entry(given)
        assert status == 0
        close(found, program(*given.values()))


@needs_cc
def test_ops_with_code_of_their_own(tmp_path: Path) -> None:
    text = """
    define void @kernel(ptr %out, ptr %x, i64 %n) {
    entry:
      br label %loop
    loop:
      %i = phi i64 [ 0, %entry ], [ %next, %loop ]
      %p = getelementptr float, ptr %x, i64 %i
      %v = load float, ptr %p
      %w = call float @twice(float %v)
      %q = getelementptr float, ptr %out, i64 %i
      store float %w, ptr %q
      %next = add i64 %i, 1
      %more = icmp ult i64 %next, %n
      br i1 %more, label %loop, label %done
    done:
      ret void
    }
    define float @twice(float %x) {
      %y = fadd float %x, %x
      ret float %y
    }
    """
    double = graphc.custom_op("testing.native_double", llvm=text)(lambda x: x + x)
    program = graphc.export(lambda x: double(x) + 1, (graphc.ones(5),))
    files = native.export(program, tmp_path, name="double", shared=True)
    status, found = NativeEntry(files)({"x": np.arange(5, dtype=np.float32)})
    assert status == 0 and found[0].tolist() == [1, 3, 5, 7, 9]


@needs_cc
@pytest.mark.parametrize("seed", range(8))
def test_random_graphs(seed: int, tmp_path: Path) -> None:
    maker = Maker(seed, 12)
    program = Program({"forward": Entry(maker.graph)}, {})
    inputs = dict(zip(program.main.inputs, maker.arrays))
    try:
        files = native.export(program, tmp_path, name="random", shared=True)
    except CompileError as error:
        assert "left to Python" in str(error)
        return
    status, found = NativeEntry(files)(inputs)
    assert status == 0
    close(found, program.main.compute(list(inputs.values())))


@needs_cc
@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_of_symbolic_sizes(seed: int, tmp_path: Path) -> None:
    maker = SymbolicMaker(seed, 6)
    program = Program({"forward": Entry(maker.graph)}, {})
    files = native.export(program, tmp_path, name="random", shared=True, sizes=[{"N": 5, "M": 7}, {"N": 40, "M": 1}])
    entry = NativeEntry(files)
    for n, m in ((5, 7), (40, 1), (6, 7), (1, 1)):
        arrays = maker.arrays(n, m, seed)
        status, found = entry(dict(zip(program.main.inputs, arrays)), {"N": n, "M": m})
        assert status == 0 or (n, m) not in ((5, 7), (40, 1))
        if status == 0:
            close(found, program.main.compute(arrays))
