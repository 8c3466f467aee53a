"""Programs are compiled in units, each once."""

from __future__ import annotations

import ctypes
import gc
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.backend import get_backend
from graphc.backends.llvm import jit
from graphc.backends.llvm.jit import compile_module, compile_units
from graphc.backends.llvm.program import render
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.units import Unit, Units, divide, joined
from graphc.compiler import clear_cache
from graphc.config import override
from graphc.disk_cache import DiskCache
from graphc.errors import CompileError
from graphc.op import OPS
from graphc.passes import pipeline
from graphc.schedule import Machine, lower

NO_CACHE = DiskCache(None, 0)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The texts that LLVM compiles from here on, with nothing on disk and no program of an earlier test in memory."""
    texts: list[str] = []
    generate_all = jit.generate_all

    def counting(given: Mapping[str, str], *arguments: Any) -> Any:
        texts.extend(given.values())
        return generate_all(given, *arguments)

    monkeypatch.setattr(jit, "generate_all", counting)
    clear_cache()
    gc.collect()
    with override(cache_dir=None):
        yield texts


def kernels(texts: list[str]) -> int:
    return sum(text.startswith("; kernel") for text in texts)


def units_of(function: Any, *inputs: graphc.Tensor) -> Units:
    graph = graphc.trace(function, inputs).ir
    return divide(render(lower(pipeline.run(graph), Machine(vector_bytes=64)), Target.host()).module)


def test_the_code_of_a_kernel_that_is_shown_has_all_that_it_calls() -> None:
    x, y = graphc.ones(40, 40), graphc.ones(40, 40)
    (product,) = get_backend("llvm").code(pipeline.run(graphc.trace(lambda x, y: x @ y, (x, y)).ir))
    called = set(re.findall(r"call void @(graphc\.[\w.]+)\(", product.ir))
    assert called and all(f"define internal void @{name}(" in product.ir and f"{name}:" in product.assembly for name in called)


def odd(x: graphc.Tensor) -> graphc.Tensor:
    return graphc.tanh(x * 1.2345) - x


def test_a_kernel_is_compiled_once(compiled: list[str]) -> None:
    x, y = graphc.randn(1237), graphc.randn(3, 5)
    expected = odd(x)
    compiled.clear()
    first = graphc.compile(odd)
    np.testing.assert_allclose(first(x).numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert kernels(compiled) == 1
    compiled.clear()

    def with_more(x: graphc.Tensor, y: graphc.Tensor) -> tuple[graphc.Tensor, graphc.Tensor]:
        return odd(x), graphc.exp(y.sum())

    got, total = graphc.compile(with_more)(x, y)
    np.testing.assert_array_equal(got.numpy(), first(x).numpy())
    np.testing.assert_allclose(total.item(), np.exp(y.numpy().sum()), rtol=1e-5)
    assert kernels(compiled) == 1, "the sum alone is new"


def test_a_training_step_is_compiled_once(compiled: list[str]) -> None:
    """The second trace, in which the optimizer's state is there, has the same layers."""
    graphc.manual_seed(0)
    model = nn.Sequential(*(layer for _ in range(3) for layer in (nn.Linear(512, 512), nn.ReLU())))
    optimizer = graphc.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    x = graphc.randn(256, 512)

    @graphc.compile
    def step(x: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = (model(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    losses: list[float] = []
    counts: list[int] = []
    for _ in range(5):
        compiled.clear()
        losses.append(step(x).item())
        counts.append(kernels(compiled))
    assert losses == sorted(losses, reverse=True)
    assert counts[1] < counts[0], "the momenta alone are new"
    assert counts[2:] == [0, 0, 0]


def test_what_is_on_disk_is_not_compiled(compiled: list[str], tmp_path: Path) -> None:
    x = graphc.randn(1239)
    compiled.clear()
    with override(cache_dir=tmp_path):
        expected = graphc.compile(odd)(x)
        assert kernels(compiled) == 1
        clear_cache()
        gc.collect()
        compiled.clear()
        again = graphc.compile(lambda value: odd(value))(x)
    np.testing.assert_array_equal(again.numpy(), expected.numpy())
    assert kernels(compiled) == 0


def test_units_do_not_depend_on_names_and_neighbours() -> None:
    x, w, other = graphc.randn(64, 64), graphc.randn(64, 64), graphc.randn(5, 7)
    alone = units_of(lambda x, w: graphc.relu(x @ w), x, w)
    among = units_of(lambda a, value, matrix: (a.exp(), graphc.relu(value @ matrix), a.sum()), other, x, w)
    assert alone.parts
    assert {unit.exports for unit in alone.parts} <= {unit.exports for unit in among.parts}
    assert set(alone.parts) <= set(among.parts)


def test_equal_kernels_are_one_unit() -> None:
    def layers(x: graphc.Tensor, w: graphc.Tensor) -> graphc.Tensor:
        for _ in range(12):
            x = graphc.tanh(x @ w)
        return x

    units = units_of(layers, graphc.randn(8, 8), graphc.randn(8, 8))
    texts = [unit.text for unit in units.parts]
    assert len(texts) == len(set(texts)) <= 6


PARTS = (
    Unit("; one\ndefine i64 @one(i64 %x) {\n %y = add i64 %x, 1\n ret i64 %y\n}\n", ("one",)),
    Unit("; two\ndeclare i64 @one(i64)\ndefine i64 @two(i64 %x) {\n %y = call i64 @one(i64 %x)\n"
         " %z = call i64 @one(i64 %y)\n ret i64 %z\n}\n", ("two",)),
)  # fmt: skip
MAIN = """; main
declare i64 @two(i64)
define i64 @run(i64 %x) {{
  %y = call i64 @two(i64 %x)
  %z = add i64 %y, {}
  ret i64 %z
}}
"""


def run(module: jit.NativeModule, x: int) -> int:
    return module.function("run", ctypes.c_int64, ctypes.c_int64)(x)


def test_units_outlive_the_program_that_brought_them(compiled: list[str]) -> None:
    first = compile_units(Units(MAIN.format(10), PARTS), Target.host(), cache=NO_CACHE, name="first")
    assert run(first, 1) == 13
    assert len(compiled) == 3
    second = compile_units(Units(MAIN.format(20), PARTS), Target.host(), cache=NO_CACHE, name="second")
    assert len(compiled) == 4
    del first
    gc.collect()
    assert run(second, 1) == 23
    del second
    gc.collect()
    assert run(compile_units(Units(MAIN.format(20), PARTS), Target.host(), cache=NO_CACHE, name="third"), 1) == 23
    assert len(compiled) == 7


def test_units_for_another_cpu_are_others(compiled: list[str]) -> None:
    host = Target.host()
    with override(cpu="x86-64" if host.architecture == "x86_64" else "generic"):
        least = Target.host()
    for target in {host, least}:
        assert run(compile_units(Units(MAIN.format(0), PARTS), target, cache=NO_CACHE, name=target.cpu), 1) == 3
    assert len(compiled) == 3 * len({host, least})


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_error_in_a_unit(bad: int) -> None:
    texts = [PARTS[0].text, PARTS[1].text, MAIN.format(77)]
    texts[bad] = texts[bad].replace("ret i64", "return i64")
    units = Units(texts[2], tuple(Unit(text, unit.exports) for text, unit in zip(texts, PARTS)))
    with pytest.raises(CompileError, match=r"(?s)broken: LLVM refuses the module: expected instruction.*at test_units\.py"):
        compile_units(units, Target.host(), cache=NO_CACHE, name="broken")


def test_a_unit_that_is_missing() -> None:
    with pytest.raises(CompileError, match="undefined symbols: two"):
        compile_units(Units(MAIN.format(78), PARTS[:1]), Target.host(), cache=NO_CACHE, name="part")


def test_threads_that_need_the_same_units() -> None:
    results: dict[int, int] = {}

    def work(number: int) -> None:
        for turn in range(4):
            units = Units(MAIN.format(number * 100 + turn), PARTS)
            results[number * 100 + turn] = run(compile_units(units, Target.host(), cache=NO_CACHE, name="many"), 0)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number * 100 + turn: number * 100 + turn + 2 for number in range(5) for turn in range(4)}


def test_garbage_of_modules_while_units_compile() -> None:
    """A thread that helps drops modules: it must not wait for the one that waits for it."""
    others = [Unit(f"define i64 @f{i}(i64 %x) {{\n ret i64 %x\n}}\n", (f"f{i}",)) for i in range(40)]
    units = Units(MAIN.format(5), (*PARTS, *others))
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(6):
            cycle: list[Any] = [compile_module(f"define i64 @f() {{\n ret i64 {number}\n}}", Target.host(), cache=NO_CACHE)]
            cycle.append(cycle)
            del cycle
            assert run(compile_units(units, Target.host(), cache=NO_CACHE, name="garbage"), 1) == 8
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert not jit._dropped


def test_native_code_of_ops_stays_apart() -> None:
    """Two ops of one name: what calls them looks the same."""
    text = "define void @kernel(ptr %y, ptr %x, i64 %n) {{\n store float {}, ptr %y\n ret void\n}}"
    try:
        for number in (1.0, 2.0):
            constant = graphc.custom_op(
                "unit_tests.constant", lambda x: np.ones_like(x), llvm=text.format(number), infer=lambda x: x, replace=True
            )
            assert graphc.compile(lambda x, f=constant: f(x))(graphc.zeros(1)).item() == number
    finally:
        del OPS["unit_tests.constant"]


def numbered(number: int, helper: str = "define internal i64 @one() { ret i64 1 }") -> Unit:
    """A unit whose function returns its number and one."""
    name = f"number{number}"
    function = f"define i64 @{name}() {{\n  %one = call i64 @one()\n  %sum = add i64 {number}, %one\n  ret i64 %sum\n}}"
    return Unit(f"; {name}\n{helper}\n{function}\n", (name,), (helper, function))


def total(units: list[Unit]) -> Units:
    """A program whose main function adds up what units return."""
    names = [unit.exports[0] for unit in units]
    lines = [f"declare i64 @{name}()" for name in names]
    calls = [f"  %r{k} = call i64 @{name}()\n  %s{k + 1} = add i64 %s{k}, %r{k}" for k, name in enumerate(names)]
    body = "\n".join(["  %s0 = add i64 0, 0", *calls, f"  ret i64 %s{len(names)}"])
    return Units("\n".join(["; total", *lines, f"define i64 @total() {{\n{body}\n}}"]) + "\n", tuple(units))


def sum_of(units: list[Unit], cache: DiskCache) -> int:
    module = compile_units(total(units), Target.host(), cache=cache, name="total")
    return module.function("total", ctypes.c_int64)()


def test_joined_units_have_each_thing_once() -> None:
    text = joined([numbered(1), numbered(2), Unit("", (), ("declare i64 @number1()",))])
    assert text is not None and text.count("@one() {") == 1 and "declare" not in text
    assert joined([numbered(1), numbered(2, "define internal i64 @one() { ret i64 2 }")]) is None


def test_many_units_are_compiled_several_at_a_time(
    compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "available_cpus", lambda: 1)
    cache = DiskCache(tmp_path, 1 << 24)
    units = [numbered(number) for number in range(40)]
    assert sum_of(units, cache) == sum(range(1, 41))
    assert len(compiled) <= 10
    compiled.clear()
    gc.collect()
    assert sum_of(units, cache) == sum(range(1, 41)) and not compiled, "all of them are on disk"
    assert sum_of(units[:3], cache) == 6 and len(compiled) == 1, "and so are some of them"


SHARED = Unit("; shared\ndefine i64 @graphc.shared() { ret i64 100 }\n", ("graphc.shared",))


def calling_shared() -> Unit:
    helper = "declare i64 @graphc.shared()"
    caller = "define i64 @number9() {\n  %r = call i64 @graphc.shared()\n  ret i64 %r\n}"
    return Unit(f"; number9\n{helper}\n{caller}\n", ("number9",), (helper, caller))


def test_units_that_were_compiled_with_others_do_not_need_what_those_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "available_cpus", lambda: 1)
    monkeypatch.setattr(jit, "_MOST_JOINED", 2)
    cache = DiskCache(tmp_path, 1 << 24)
    needy, shared = calling_shared(), SHARED
    plain = [numbered(number) for number in range(3)]
    assert sum_of([shared, needy, *plain], cache) == 206
    gc.collect()
    for unit in plain:
        assert sum_of([unit], cache) == int(unit.exports[0][-1]) + 1
    gc.collect()
    assert sum_of([shared, needy, *plain], cache) == 206


def test_programs_that_share_units_find_those_of_each(compiled: list[str], tmp_path: Path) -> None:
    """What one has compiled with others does not hide where another program has it."""
    cache, target = DiskCache(tmp_path, 1 << 24), Target.host()
    one, two, needy = numbered(1), numbered(2), calling_shared()
    assert sum_of([SHARED], cache) == 100
    for batch in ([needy, one], [one, two]):
        text = joined(batch)
        assert text is not None
        key = jit._key(text, target)
        jit._generated({key: text}, target, "batch", cache)
        for member in batch:
            jit._keep_place(cache, jit._key(member.text, target), key)
    compiled.clear()
    for units, result in (([SHARED, one, needy], 202), ([one, two], 5), ([SHARED, one, needy], 202)):
        gc.collect()
        assert sum_of(units, cache) == result
    assert len(compiled) == 2, "what adds the numbers up, for each program"


def test_a_unit_that_comes_with_another_is_not_compiled_besides(compiled: list[str], tmp_path: Path) -> None:
    cache, target = DiskCache(tmp_path, 1 << 24), Target.host()
    first, second = numbered(1), numbered(2)
    for member, batch in ((first, [first, second]), (second, [calling_shared(), second])):
        text = joined(batch)
        assert text is not None
        key = jit._key(text, target)
        jit._generated({key: text}, target, "batch", cache)
        cache.put(jit._key(member.text, target), jit._ELSEWHERE + key.encode())
    compiled.clear()
    # the second one's own entry is of no use here, as it comes with what is not there, but the first one's has it
    assert sum_of([second, first], cache) == 5 and len(compiled) == 1


def test_what_was_compiled_twice_with_others_is_loaded_once(
    compiled: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two processes do it at the same time."""
    monkeypatch.setattr(jit, "available_cpus", lambda: 1)
    monkeypatch.setattr(jit, "_MOST_JOINED", 2)
    cache, other = DiskCache(tmp_path / "one", 1 << 24), DiskCache(tmp_path / "other", 1 << 24)
    units = [numbered(number) for number in range(8)]
    assert sum_of(units[:5], cache) == 15 and sum_of(units[::2] + units[1:2], other) == 18
    gc.collect()
    for path in (tmp_path / "other").rglob("*"):
        if path.is_file():
            target = tmp_path / "one" / path.relative_to(tmp_path / "other")
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    assert sum_of(units, cache) == sum(range(1, 9))
    kept = compile_units(total(units[1:3]), Target.host(), cache=cache, name="total")
    assert sum_of(units, cache) == sum(range(1, 9)), "with some of them in this process already"
    assert kept.function("total", ctypes.c_int64)() == 5
