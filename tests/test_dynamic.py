"""Compiled functions whose arguments change size: one graph for all sizes, with the answers of eager code."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentError, DimError, ShapeError


def traces(compiled: Any) -> int:
    return len(compiled._tracings.all)


def check(function: Any, *shapes: tuple[tuple[int, ...], ...], graphs: int = 1, dynamic: bool | None = True) -> Any:
    """Compare compiled and eager results for arguments of several shapes, and count the traces."""
    compiled = graphc.compile(function, dynamic=dynamic)
    rng = np.random.default_rng(0)
    for shape in shapes:
        arguments = [graphc.from_numpy(rng.standard_normal(s).astype(np.float32)) for s in shape]
        found, expected = compiled(*arguments), function(*arguments)
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert traces(compiled) == graphs, compiled.explain()
    return compiled


def test_the_second_size_makes_a_graph_for_all() -> None:
    compiled = check(lambda x: x.softmax(-1) * 2, ((4, 3),), ((5, 3),), ((6, 3),), ((9, 3),), graphs=2, dynamic=None)
    assert "float32[s0, 3]" in compiled.explain() and ": 2 graphs" in compiled.explain()


def test_a_dimension_that_has_not_changed_stays_a_number() -> None:
    compiled = check(lambda x: x.sum(1), ((4, 3),), ((5, 3),), ((5, 6),), ((7, 8),), ((4, 9),), graphs=3, dynamic=None)
    assert "float32[s0, s1]" in compiled.explain()


def test_sizes_one_and_zero_have_graphs_of_their_own() -> None:
    check(lambda x: x + graphc.ones(3, 1), ((3, 4),), ((3, 5),), ((3, 1),), ((3, 0),), ((3, 7),), graphs=3)


def test_never_dynamic() -> None:
    check(lambda x: x * 2, ((4,),), ((5,),), ((6,),), graphs=3, dynamic=False)


def test_sizes_as_numbers() -> None:
    check(lambda x: x.sum(0) / x.shape[0] + x.size(1) - x.numel(), ((4, 3),), ((5, 2),), ((9, 7),))
    check(lambda x: x * x.shape[0] + x.shape[0] * x - (x.shape[0] - x), ((4, 3),), ((5, 2),))


def test_sizes_in_shapes() -> None:
    def f(x: Any) -> Any:
        b, t, c = x.shape
        y = x.view(b, t, 2, -1).transpose(1, 2).reshape(b * 2, t, c // 2)
        return y.sum(-1) + graphc.arange(t) + graphc.zeros(b * 2, t) + x.new_ones(t)

    check(f, ((2, 5, 6),), ((3, 7, 8),), ((4, 2, 2),))


def test_slices_of_half_of_it() -> None:
    check(lambda x: graphc.cat([x[: len(x.shape)], x[x.shape[0] // 2 :], x[:-1], x[::2]]), ((6, 3),), ((7, 3),), ((13, 3),))


def test_a_branch_on_a_size_is_a_guard() -> None:
    compiled = check(lambda x: x * 2 if x.shape[0] > 5 else x * 3, ((4,),), ((5,),), ((6,),), ((60,),), ((3,),), graphs=2)
    assert "where s0 >= 6, at test_dynamic.py:" in compiled.explain()


def test_a_loop_over_a_size_makes_it_a_number() -> None:
    def f(x: Any) -> Any:
        total = x[0]
        for i in range(1, x.shape[0]):
            total = total + x[i]
        return total

    check(f, ((4, 3),), ((5, 3),), ((4, 2),), ((5, 7),), graphs=2)


def test_sizes_that_have_to_be_equal_get_one_symbol() -> None:
    compiled = check(lambda x, y: x + y, ((4, 3), (4, 3)), ((5, 2), (5, 2)))
    with pytest.raises(ShapeError):
        compiled(graphc.ones(4, 3), graphc.ones(5, 3))
    assert compiled(graphc.ones(4, 3), graphc.ones(4, 1)).shape == (4, 3)


def test_sizes_that_depend_on_each_other() -> None:
    check(lambda x, y: x[1:] * y, ((6,), (5,)), ((4,), (3,)), ((9,), (8,)))
    check(lambda x: x.view(-1, 4).sum(0), ((8,),), ((12,),), ((20,),))


def test_one_tensor_twice_and_not() -> None:
    check(lambda x, y: x @ y.T, ((6, 2), (5, 2)), ((4, 3), (3, 3)))
    compiled = graphc.compile(lambda x, y: x @ y.T, dynamic=True)
    for n in (3, 4):
        x = graphc.randn(n, 5)
        np.testing.assert_allclose(compiled(x, x).numpy(), (x @ x.T).numpy(), rtol=1e-5)
    assert traces(compiled) == 1


def test_layouts_that_are_not_row_major() -> None:
    compiled = graphc.compile(lambda x: x * 2 + 1, dynamic=True)
    for n in (4, 5, 6):
        x = graphc.randn(3, n).T
        np.testing.assert_array_equal(compiled(x).numpy(), (x * 2 + 1).numpy())
        np.testing.assert_array_equal(compiled(x.contiguous()).numpy(), (x * 2 + 1).numpy())


def test_backward_through_a_dynamic_call() -> None:
    layer = nn.Linear(3, 2)
    compiled = graphc.compile(lambda x: (layer(x).relu() / x.shape[0]).sum(), dynamic=True)
    for n in (4, 7, 7, 2):
        x = graphc.randn(n, 3, requires_grad=True)
        layer.zero_grad()
        compiled(x).backward()
        found = [x.grad.clone(), layer.weight.grad.clone(), layer.bias.grad.clone()]
        x.grad = None
        layer.zero_grad()
        compiled.function(x).backward()
        for a, b in zip(found, [x.grad, layer.weight.grad, layer.bias.grad]):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
    assert traces(compiled) == 1


def test_second_derivatives_of_a_dynamic_call() -> None:
    compiled = graphc.compile(lambda x: (x**3).sum() * x.shape[0], dynamic=True)
    for n in (3, 5):
        x = graphc.randn(n, requires_grad=True)
        (first,) = graphc.autograd.grad(compiled(x), x, create_graph=True)
        (second,) = graphc.autograd.grad(first.sum(), x)
        np.testing.assert_allclose(second.numpy(), 6 * n * x.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize("dynamic", [None, True])
def test_training_with_a_smaller_last_batch(dynamic: bool | None) -> None:
    def run(compiled: bool) -> tuple[list[float], Any]:
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
        optimizer = graphc.optim.Adam(model.parameters(), lr=1e-2)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        function = graphc.compile(step, dynamic=dynamic) if compiled else step
        x, y = graphc.randn(37, 4), graphc.randint(0, 3, (37,))
        losses = [function(x[i : i + 10], y[i : i + 10]).item() for _ in range(4) for i in range(0, 37, 10)]
        return losses, function

    losses, compiled = run(True)
    np.testing.assert_allclose(losses, run(False)[0], rtol=1e-4)
    assert traces(compiled) <= 3 and not compiled._sizes.refusals(), compiled.explain()


def test_results_are_those_of_a_static_graph() -> None:
    def f(x: Any, w: Any) -> Any:
        return ((x @ w).softmax(-1).mean(0) + x.var()) / x.shape[0]

    dynamic, static = graphc.compile(f, dynamic=True), graphc.compile(f, dynamic=False)
    for n in (3, 17, 64):
        x, w = graphc.randn(n, 33), graphc.randn(33, 5)
        np.testing.assert_array_equal(dynamic(x, w).numpy(), static(x, w).numpy())


def test_arguments_that_are_changed_in_place() -> None:
    def f(x: Any, total: Any) -> Any:
        x.mul_(2)[1:].add_(1)
        total += x.sum(0)
        return x[0]

    compiled = graphc.compile(f, dynamic=True)
    for n in (3, 5, 4):
        own = [graphc.arange(n * 2).float().reshape(n, 2), graphc.zeros(2)]
        other = [x.clone() for x in own]
        np.testing.assert_array_equal(compiled(*own).numpy(), f(*other).numpy())
        for a, b in zip(own, other):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert traces(compiled) == 1


def test_random_numbers_are_those_of_eager_code() -> None:
    compiled = graphc.compile(lambda x: nn.functional.dropout(x, 0.5) + graphc.rand(x.shape[0], 1) + graphc.randn_like(x),
                              dynamic=True)
    for n in (3, 50, 7):
        x = graphc.ones(n, 4)
        graphc.manual_seed(n)
        found = [compiled(x), compiled(x)]
        graphc.manual_seed(n)
        for a in found:
            np.testing.assert_allclose(a.numpy(), compiled.function(x).numpy(), rtol=1e-5, atol=1e-6)
    assert traces(compiled) == 1


def test_what_the_code_reads_is_still_guarded() -> None:
    scale = {"by": 2.0}
    compiled = graphc.compile(lambda x: x * scale["by"], dynamic=True)
    assert compiled(graphc.ones(3)).tolist() == [2] * 3
    assert compiled(graphc.ones(4)).tolist() == [2] * 4
    scale["by"] = 3.0
    assert compiled(graphc.ones(4)).tolist() == [3] * 4
    assert compiled(graphc.ones(5)).tolist() == [3] * 5
    assert compiled(graphc.ones(3)).tolist() == [3] * 3
    assert traces(compiled) == 2


def test_numbers_among_the_arguments_are_static() -> None:
    compiled = graphc.compile(lambda x, n: x * n, dynamic=True)
    for size, n in ((3, 2), (4, 2), (4, 5), (6, 5), (6, 2)):
        assert compiled(graphc.ones(size), n).tolist() == [n] * size
    assert traces(compiled) == 2


def test_the_functions_own_errors() -> None:
    def f(x: Any) -> Any:
        if x.shape[0] > 5:
            raise ValueError("too long")
        return x * 2

    compiled = graphc.compile(f, dynamic=True)
    assert compiled(graphc.ones(3)).tolist() == [2] * 3
    with pytest.raises(ValueError, match="too long"):
        compiled(graphc.ones(6))
    assert compiled(graphc.ones(4)).tolist() == [2] * 4


def test_marked_dimensions_are_symbols_at_once() -> None:
    compiled = graphc.compile(lambda x: x.sum(0))
    x = graphc.ones(5, 3)
    graphc.mark_dynamic(x, 0, min=2, max=8)
    assert compiled(x).tolist() == [5] * 3
    assert compiled(graphc.ones(8, 3)).tolist() == [8] * 3 and traces(compiled) == 1
    assert compiled(graphc.ones(9, 3)).tolist() == [9] * 3 and traces(compiled) == 2


def test_a_marked_dimension_that_the_code_pins() -> None:
    compiled = graphc.compile(lambda x: x + graphc.ones(5))
    x = graphc.ones(5)
    graphc.mark_dynamic(x, -1)
    with pytest.raises(ShapeError, match=r"dimension 0 of argument 0 was marked .* makes it 5") as caught:
        compiled(x)
    assert "test_dynamic.py" in str(caught.value)


def test_what_cannot_be_marked() -> None:
    with pytest.raises(DimError):
        graphc.mark_dynamic(graphc.ones(3), 1)
    with pytest.raises(ArgumentError, match="outside the bounds"):
        graphc.mark_dynamic(graphc.ones(3), 0, min=4)
    with pytest.raises(ArgumentError, match="no size"):
        graphc.mark_dynamic(graphc.ones(3), 0, min=4, max=3)
    with pytest.raises(TypeError):
        graphc.mark_dynamic([1.0], 0)  # type: ignore[arg-type]


def test_two_threads_with_changing_sizes() -> None:
    compiled = graphc.compile(lambda x: x.cumsum(0) * x.shape[0])
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for n in range(seed, 12):
                x = graphc.ones(n)
                assert compiled(x).tolist() == [n * (k + 1) for k in range(n)]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and traces(compiled) <= 2


def test_modules() -> None:
    model = graphc.compile(nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.MaxPool2d(2), nn.Flatten()), dynamic=True)
    for n, h in ((2, 8), (3, 12), (5, 9)):
        x = graphc.randn(n, 2, h, h)
        np.testing.assert_allclose(model(x).detach().numpy(), model._original(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    assert traces(model._compiled) == 1, model.explain()


def test_what_python_does_besides_is_done_at_each_call(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []

    def f(x: Any) -> Any:
        seen.append(1)
        print("called")
        return x * 2

    compiled = graphc.compile(f, dynamic=True)
    for n in (3, 4, 4, 5):
        assert compiled(graphc.ones(n)).tolist() == [2] * n
    assert len(seen) == 4 and capsys.readouterr().out.count("called") == 4


def test_branches_on_numbers_have_graphs_for_each_size() -> None:
    compiled = graphc.compile(lambda x: x * 2 if x.sum() > 3.5 else x * 3, dynamic=True)
    for n in (3, 4, 4, 5, 2):
        assert compiled(graphc.ones(n)).tolist() == [2 if n > 3 else 3] * n


def test_sizes_that_are_returned_are_those_of_the_call() -> None:
    f = graphc.compile(lambda x: (x * 2, x.shape[0], x.shape, x.shape[0] / 2 + 1))
    for n in (2, 5, 7, 5, 2):
        assert f(graphc.ones(n, 3))[1:] == (n, graphc.Size([n, 3]), n / 2 + 1)


def test_a_wrong_call_does_not_end_it() -> None:
    compiled = graphc.compile(lambda x, y: x + y, dynamic=True)
    with pytest.raises(ShapeError):
        compiled(graphc.ones(4), graphc.ones(5))
    for n in (4, 5, 6):
        assert compiled(graphc.ones(n), graphc.ones(n)).tolist() == [2] * n
    assert ": 1 graph" in repr(compiled) and not compiled._sizes.refusals()


def test_sizes_without_end_are_forgotten() -> None:
    compiled = graphc.compile(lambda x: x * 2, dynamic=True, backend="reference")
    for n in range(2, 300):
        assert compiled(graphc.ones(n)).shape == (n,)
    assert sum(map(len, compiled._graphs.values())) == 256
    assert compiled(graphc.ones(2)).tolist() == [2, 2] and ": 1 graph" in repr(compiled)


def test_loops_in_the_graph_over_any_number_of_steps() -> None:
    compiled = graphc.compile(lambda x: graphc.scan(lambda c, row: (c + row, c * row), graphc.zeros(3), x)[1], dynamic=True)
    recurrent = nn.LSTM(3, 4, batch_first=True)
    module = graphc.compile(lambda x: recurrent(x)[0], dynamic=True)
    for n, t in ((2, 5), (4, 7), (3, 6)):
        x = graphc.randn(n, t, 3)
        np.testing.assert_array_equal(compiled(x[0]).numpy(), compiled.function(x[0]).numpy())
        np.testing.assert_allclose(module(x).detach().numpy(), recurrent(x)[0].detach().numpy(), rtol=1e-5, atol=1e-6)
    assert ": 1 graph" in repr(compiled) and ": 1 graph" in repr(module)


@pytest.mark.parametrize("dynamic", [None, True, False])
def test_sizes_that_are_kept_are_plain_numbers(dynamic: bool | None) -> None:
    log: list[Any] = []
    kept: dict[str, Any] = {}

    @graphc.compile(dynamic=dynamic)
    def f(x: graphc.Tensor) -> graphc.Tensor:
        log.append(x.shape[0])
        log.append((x.shape[0], 1))
        kept["half"] = x.shape[0] / 2
        kept["shape"] = x.shape
        return x * 2

    for n in (2, 2, 5, 3):
        f(graphc.ones(n, 3))
        assert log[-2:] == [n, (n, 1)]
        assert kept == {"half": n / 2, "shape": (n, 3)}
        assert [type(log[-2]), type(log[-1][0]), type(kept["half"]), type(kept["shape"][0])] == [int, int, float, int]
