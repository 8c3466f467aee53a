"""graphc.compile: functions whose way depends on numbers do what they do eagerly, and Python runs only where it has to."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marked_lines import line_of
from ways import INPUTS, Made, agree, close, pure, way

import graphc
from graphc import nn
from graphc.errors import GraphcError, TraceError
from graphc.frontend import branching

THIS = Path(__file__)
pytestmark = pytest.mark.usefixtures("recorded_however_small")


# What Python may want to know

WANTS: dict[str, Callable[[Any], Any]] = {
    "if": lambda x: x * 10 if x.sum() > 0 else x - 1,
    "not": lambda x: x if not (x > 0).any() else -x,
    "and": lambda x: x if x[0] > 0 and x[1] > 0 else x * 3,
    "chained": lambda x: x if 0 < x[0] < 2 else x * 3,
    "elif": lambda x: x if x[0] > 3 else x + 1 if x[0] > 0 else x + 2 if x[1] < -1 else x + 3,
    "int": lambda x: x * int(x.abs().sum()),
    "int of a fraction": lambda x: [x + k for k in range(int(x.abs().max() * 1.5))],
    "index": lambda x: x * [1.0, 10.0][x.argmax()],
    "slice": lambda x: x[: x.argmax() + 1],
    "range": lambda x: sum(range(x.abs().sum().long()), x),
    "dict": lambda x: x * {True: 2.0, False: 3.0}[bool(x[0] > x[1])],
    "float": lambda x: x * float(x.sum()) + float(x[0]),
    "tolist": lambda x: x * x.tolist()[0] + sum(x.tolist()),
    "numpy": lambda x: x + graphc.from_numpy((x + 1).numpy() * 2),
    "array": lambda x: x * float(np.abs(np.asarray(x)).max()),
    "max": lambda x: max(x[0], x[1]) * x,
    "sorted": lambda x: graphc.stack(sorted(x)),
    "iteration": lambda x: sum(v * 2 if v > 0 else v for v in x),
    "in": lambda x: x * 2 if 5.0 in x else x,
    "allclose": lambda x: x * 2 if graphc.allclose(x, x.abs()) else x,
    "equal": lambda x: x * 2 if graphc.equal(x, x.abs()) else x,
    "format": lambda x: (x, f"{x.sum():.3f} {x} {x[0]!r}"),
    "tensor of numbers": lambda x: graphc.tensor([float(x[0]), 2.0]) * x,
    "shape from data": lambda x: graphc.zeros(int(x.abs().sum()), 2) + x,
    "raise": lambda x: _checked(x) * 2,
}


def _checked(x: Any) -> Any:
    if not (x < 4).all():
        raise ValueError(f"too large: {x.max()}")
    return x


@pytest.mark.parametrize("name", WANTS)
def test_python_is_told_numbers(name: str) -> None:
    agree(lambda: pure(WANTS[name]))


def test_print_prints_each_time() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        print("y", y, y.sum(), f"{y.sum():.2f}")
        return y + 1

    agree(lambda: pure(f))


def test_print_on_one_branch_prints_each_time() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            print("positive")
            return x
        return -x

    agree(lambda: pure(f))


# Loops


def test_while_loops_of_any_length(python_runs: list[str]) -> None:
    def f(x: Any) -> Any:
        err, n = x.abs().sum(), 0
        while err > 0.1:
            err, n = err * 0.5, n + 1
        return err, n, x * n

    agree(lambda: pure(f))
    runs = len(python_runs)
    agree(lambda: pure(f))
    assert len(python_runs) == 2 * runs  # the new function learns what the other one knew, and not more


def test_a_long_loop() -> None:
    def f(x: Any) -> Any:
        while x.sum() < 500:
            x = x + 1
        return x

    compiled = graphc.compile(f)
    for _ in range(3):
        assert compiled(graphc.zeros(2)).tolist() == [250, 250]
        assert compiled(graphc.ones(2) * 200).tolist() == [250, 250]


def test_newtons_method() -> None:
    def root(a: Any) -> Any:
        x = a.clone()
        while ((x * x - a) / a).abs().max() > 1e-4:
            x = (x + a / x) / 2
        return x

    f = graphc.compile(root)
    for a in (2.0, 9.0, 1e4, 2.0, 9.0):
        assert f(graphc.tensor([a, a + 1])).tolist() == pytest.approx([math.sqrt(a), math.sqrt(a + 1)], rel=1e-3)


# Where Python runs, and where not


def test_known_ways_are_walked_natively(python_runs: list[str]) -> None:
    def f(x: Any) -> Any:
        return x * 10 if x.sum() > 0 else x - 1

    compiled = graphc.compile(f)
    up, down = graphc.ones(2), -graphc.ones(2)
    compiled(up), compiled(up), compiled(down)
    assert len(python_runs) == 2
    for _ in range(100):
        assert compiled(up).tolist() == [10, 10] and compiled(down).tolist() == [-2, -2]
    assert len(python_runs) == 2


def test_the_native_entry_serves_ways_that_are_met_later(python_runs: list[str]) -> None:
    weight = graphc.ones(2)

    def f(x: Any) -> Any:
        a, b = x.exp(), (x * weight).sin()
        if x.sum() > 0:
            return a
        if x[0] < -1:
            return a * b
        if x[1] < -1:
            raise ValueError("too small")
        return b

    compiled = graphc.compile(f)
    for start in ([1.0, 2.0], [-3.0, 1.0], [-0.5, 0.25], [2.0, 1.0]):
        for _ in range(6):
            assert close(compiled(graphc.tensor(start)).tolist(), f(graphc.tensor(start)).tolist())
    for _ in range(3):
        with pytest.raises(ValueError, match="too small"):
            compiled(graphc.tensor([0.5, -2.0]))
    assert compiled._entered and len(python_runs) == 4  # three ways, and the one that ends with an exception
    weight.mul_(2)
    assert close(compiled(graphc.tensor([-3.0, 1.0])).tolist(), f(graphc.tensor([-3.0, 1.0])).tolist())
    weight.data = graphc.full((2,), 3.0)
    for _ in range(3):
        assert close(compiled(graphc.tensor([-0.5, 0.25])).tolist(), f(graphc.tensor([-0.5, 0.25])).tolist())


def test_answers_that_python_can_use_in_any_way_are_not_frozen(python_runs: list[str]) -> None:
    compiled = graphc.compile(lambda x: x * float(x.sum()))
    for k in range(5):
        assert compiled(graphc.tensor([1.0, k])).tolist() == [1 + k, k * (1 + k)]
    assert len(python_runs) == 5


def test_what_is_native_before_an_open_question_stays_native(python_runs: list[str]) -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x * float(x[0])

    compiled = graphc.compile(f)
    for _ in range(3):
        assert compiled(graphc.ones(2)).tolist() == [2, 2]
        assert compiled(graphc.tensor([-3.0, 1.0])).tolist() == [9, -3]
    assert len(python_runs) == 4


@pytest.mark.parametrize("small", [True, False])
def test_python_runs_again_eagerly_where_tensors_are_small(
    small: bool, python_runs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(branching, "_WORTH_RECORDING", 1000)
    weight = nn.Parameter(graphc.ones(10 if small else 10000))

    @graphc.compile
    def f(x: Any) -> Any:
        weight.grad = None
        (weight * x).sum().backward()
        print(weight.grad[0])
        return weight.grad.sum().item()

    assert [f(graphc.tensor(float(k))) for k in range(5)] == [len(weight) * k for k in range(5)]
    assert capsys.readouterr().out == "".join(f"tensor({k}.)\n" for k in range(5))
    assert len(python_runs) == (1 if small else 5)
    assert ("eagerly" if small else "natively") in f.explain()


def test_more_answers_than_ways_are_kept_for() -> None:
    compiled = graphc.compile(lambda x: x + int(x[0]))
    for _ in range(2):
        for k in range(50):
            assert compiled(graphc.tensor([k, 1.0])).tolist() == [2 * k, 1 + k]
    assert re_matches(r"warning: int\(\).*more than \d+ answers", compiled.explain())


def re_matches(pattern: str, text: str) -> bool:
    import re

    return re.search(pattern, text, re.DOTALL) is not None


def test_explain_shows_questions_answers_and_lines() -> None:
    @graphc.compile
    def f(x: Any) -> Any:
        if x.sum() > 0:  # <question>
            return x
        return float(x[0]) * x  # <open>

    f(graphc.ones(2)), f(-graphc.ones(2))
    text = f.explain()
    assert f"bool() of bool[] at {THIS.name}:{line_of(THIS, 'question')}" in text
    assert f"float() of float64[] at {THIS.name}:{line_of(THIS, 'open')}" in text and "Python goes on" in text
    assert "True: 1, False: 2" in text


def test_a_branch_on_a_constant_is_no_question(python_runs: list[str]) -> None:
    @graphc.compile(fullgraph=True)
    def f(x: Any) -> Any:
        return x * 2 if graphc.arange(4).sum() == 6 else x

    assert f(graphc.ones(2)).tolist() == [2, 2]


def test_fullgraph_refuses_and_names_the_line() -> None:
    @graphc.compile(fullgraph=True)
    def f(x: Any) -> Any:
        return x if x.sum() > 0 else -x  # <refused>

    with pytest.raises(TraceError, match=rf"(?s)data-dependent.*{THIS.name}:{line_of(THIS, 'refused')}"):
        f(graphc.ones(2))


# State


def test_state_is_written_back_on_every_way() -> None:
    def make() -> Made:
        buffer, weight = graphc.zeros(2), nn.Parameter(graphc.ones(2))

        def f(x: Any) -> Any:
            buffer.add_(x)
            if buffer.sum() > 4:
                buffer.zero_()
                x.mul_(2)
            with graphc.no_grad():
                weight.mul_(0.5)
                if weight[0] < 0.1:
                    weight.fill_(1)
            return buffer + weight.detach() + x

        return f, lambda: [buffer, weight]

    agree(make)


def test_exceptions_leave_behind_what_they_leave_eagerly() -> None:
    def make() -> Made:
        buffer = graphc.zeros(2)

        def f(x: Any) -> Any:
            buffer.add_(x)
            if x.sum() < 0:
                raise ValueError("negative")
            if x[0] > 4:
                return {}[int(x[0])]
            buffer.add_(1)
            return x / buffer

        return f, lambda: [buffer]

    agree(make)


def test_an_error_in_the_middle_is_the_one_of_eager_code() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x @ graphc.ones(3, 3)
        return x

    compiled = graphc.compile(f)
    for _ in range(3):
        assert compiled(-graphc.ones(2)).tolist() == [-1, -1]
        with pytest.raises(GraphcError, match=r"size mismatch|cannot be multiplied") as eager:
            f(graphc.ones(2))
        with pytest.raises(type(eager.value), match=r"size mismatch|cannot be multiplied"):
            compiled(graphc.ones(2))


def test_random_numbers_are_those_of_eager_code() -> None:
    def make() -> Made:
        def f(x: Any) -> Any:
            r = graphc.rand(2)
            if r.sum() > 1:
                return x * r
            return nn.functional.dropout(x, 0.5) - graphc.rand(2)

        return f, lambda: [graphc.rand(1)]

    agree(make)


def test_python_state_is_changed_at_each_call() -> None:
    def make() -> Made:
        class Counter(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.calls = 0
                self.last: Any = None
                self.large: list[Any] = []

            def forward(self, x: Any) -> Any:
                self.calls += 1
                self.last = x * 3
                if x.sum() > 2:
                    self.large.append(x.sum())
                return self.last + self.calls

        counter = Counter()
        return counter, lambda: [counter.calls, counter.last, counter.large]

    agree(make)


def test_a_tensor_left_behind_has_its_history() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.hidden: Any = None

        def forward(self, x: Any) -> Any:
            self.hidden = self.fc(x).tanh()
            return self.hidden.sum()

    gradients = []
    for compiled in (False, True):
        graphc.manual_seed(0)
        net = Keeps()
        run = graphc.compile(net) if compiled else net
        for _ in range(3):
            net.zero_grad()
            out = run(graphc.ones(1, 2))
            (out + (net.hidden**2).sum()).backward()
            gradients.append(net.fc.weight.grad.tolist())
    assert close(gradients[:3], gradients[3:])


# Results


def test_an_argument_that_is_returned_is_itself() -> None:
    compiled = graphc.compile(lambda x: (x, x * 2) if x.sum() > 0 else (x * 3, x))
    for _ in range(3):
        up, down = graphc.ones(2), -graphc.ones(2)
        assert compiled(up)[0] is up and compiled(down)[1] is down


def test_sizes_that_depend_on_data() -> None:
    for f in (
        lambda x: (x > 0).nonzero(),
        lambda x: x[x > 0] * 2,
        lambda x: graphc.masked_select(x, x > 0).sum(),
        lambda x: graphc.unique(graphc.cat([x, x])),
        lambda x: graphc.where(x > 0)[0],
        lambda x: x.repeat_interleave((x > 0).long() + 1),
        lambda x: graphc.bincount((x > 0).long()),
        lambda x: x.clone().masked_fill_(x > 0, 0)[(x > 0).nonzero()[:, 0]],
    ):
        agree(lambda f=f: pure(f))  # type: ignore[misc]


NEGATIVE_SIZES: dict[str, Callable[[Any], Any]] = {
    "zeros": lambda x: graphc.zeros(int(x)),
    "ones of a tensor": lambda x: graphc.ones(2, x),
    "full": lambda x: graphc.full((int(x), 2), 1.5),
    "empty": lambda x: graphc.empty(int(x)).shape,
    "like another": lambda x: (x.new_zeros(int(x)), x.new_full((int(x),), 3)),
    "computed": lambda x: graphc.zeros(int(x) - 3),
    "constant": lambda x: graphc.zeros(-1) + x,
    "repeats": lambda x: graphc.arange(2).repeat_interleave(graphc.stack([x, x + 1])),
    "repeats alone": lambda x: graphc.repeat_interleave(graphc.stack([x, x + 1])),
}


def _outcome(function: Callable[..., Any], x: Any) -> str:
    try:
        return repr(function(graphc.tensor(x)))
    except GraphcError as error:
        return f"{type(error).__name__}: {error.problem}"


@pytest.mark.parametrize("name", NEGATIVE_SIZES)
def test_negative_sizes_are_the_errors_of_eager_code(name: str) -> None:
    function = NEGATIVE_SIZES[name]
    compiled = graphc.compile(function)
    for x in (-2, -2, 2, -2, 4):
        assert _outcome(compiled, x) == _outcome(function, x)


FILLED: dict[str, Callable[[Any], Any]] = {
    "full": lambda x: graphc.full((2,), x.item()),
    "of a dtype": lambda x: graphc.full((2,), x.item(), dtype=graphc.uint8),
    "computed": lambda x: graphc.full((2,), x.item() + 0.5),
    "like another": lambda x: (x.new_full((2,), x.item()), graphc.full_like(x, x.item())),
    "masked": lambda x: graphc.zeros(2).masked_fill(graphc.tensor([True, False]), x.item()),
    "a leaf": lambda x: graphc.full((2,), x.item() * 1.0, requires_grad=True),
}


@pytest.mark.parametrize("name", FILLED)
def test_a_tensor_is_filled_with_the_number_of_its_call(name: str) -> None:
    function = FILLED[name]
    compiled = graphc.compile(function)
    for x in (-1, -1, 3, 300, -1, 300):
        assert _outcome(compiled, x) == _outcome(function, x)


def test_many_threads_at_once() -> None:
    compiled = graphc.compile(way)
    inputs = [graphc.tensor(x) for x in INPUTS]
    want = [way(x).tolist() for x in inputs]
    wrong: list[Any] = []

    def work(first: int) -> None:
        for k in range(first, first + 40):
            got = compiled(inputs[k % len(inputs)]).tolist()
            if not close(got, want[k % len(inputs)]):
                wrong.append(got)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_python_can_be_made_to_run_each_time(python_runs: list[str]) -> None:
    compiled = graphc.compile(lambda x: x * 2)
    compiled.run_by_python("the test wants it")
    for k in range(4):
        assert compiled(graphc.ones(2) * k).tolist() == [2 * k, 2 * k]
    assert len(python_runs) == 4 and "the test wants it" in compiled.explain()
    (graph,) = next(iter(compiled._graphs.values()))
    assert isinstance(graph, branching.Branching)


def test_state_that_comes_and_goes_is_changed_at_each_call_with_symbolic_sizes() -> None:
    log: list[float] = []

    @graphc.compile(dynamic=True)
    def f(x: graphc.Tensor) -> graphc.Tensor:
        for _ in range(2):
            log.append(x.sum().item())
            if len(log) > 3:
                log.clear()
        return x * 2

    for k, n in enumerate((2, 2, 5, 3, 2, 2)):
        f(graphc.full((n,), float(k)))
        assert log == ([] if k % 2 else [n * k] * 2)
