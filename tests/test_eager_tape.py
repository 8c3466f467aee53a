"""What native code puts on the tape is what Python puts there."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.backend import get_backend
from graphc.config import config
from graphc.frontend import dispatch, eager
from graphc.frontend.autograd.graph import saved_tensors_hooks
from graphc.frontend.node import Node
from graphc.frontend.tape import OpNode, Saved, record_op
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.viewing import _made
from graphc.op import OPS, OpDef

pytestmark = pytest.mark.skipif(config.backend != "llvm", reason="the reference back end makes no native code")

NATIVE = [r for r in (*eager.OWN, *filter(eager.numpy_loop, OPS.values())) if r not in (
    ops.eq, ops.ne, ops.lt, ops.le, ops.gt, ops.ge)]  # fmt: skip


class Missed(Exception):
    pass


def missed(*args: Any) -> Any:
    raise Missed


@pytest.fixture(scope="module")
def natives() -> Iterator[dict[OpDef, Callable[..., Any]]]:
    get_backend("llvm")
    yield {record: eager.native(record, missed) for record in NATIVE}


def number_of(kept: Any) -> Any:
    if isinstance(kept, Saved):
        return "saved", id(kept.tensor), kept.count, id(kept.version), kept.unpack_hook
    return id(kept) if isinstance(kept, Tensor) else kept


def described(node: Node | None) -> Any:
    """All that there is to a node, but its number."""
    if node is None:
        return None
    assert isinstance(node, OpNode)
    out = None if node.out is None else (id(node.out[0]) != 0, node.out[1].count)
    wanted = [edge is not None for edge in node.edges]
    types = None if node.types is None else [t for t, w in zip(node.types, wanted) if w]
    if node.types is not None and types and len(set(types)) == 1:
        types = None  # alike, which may go without saying
    return (type(node), node.edges, node.plan, dict(node.attrs), types, out, node._code,
            None if node.saved is None else list(map(number_of, node.saved)))


def inputs(dtype: Any) -> list[Any]:
    leaf = graphc.full((2, 3), 0.7, dtype=dtype, requires_grad=True)
    changed = graphc.full((2, 3), 0.5, dtype=dtype, requires_grad=True)
    with graphc.no_grad():
        changed.mul_(1.5)
    made = leaf * 0.9
    several = graphc.stack([leaf, leaf]).unbind(0)[1]
    plain, row = graphc.full((2, 3), 0.6, dtype=dtype), graphc.full((3,), 0.4, dtype=dtype, requires_grad=True)
    parameter = graphc.nn.Parameter(graphc.full((2, 3), 0.3, dtype=dtype))
    kept = leaf * 0.8
    kept.retain_grad()
    counted = plain.clone().add_(0.1)
    view = (leaf * 0.5).reshape(2, 3)
    return [leaf, changed, made, several, plain, row, parameter, kept, counted, view, leaf.detach(), 0.5, 2, leaf.sum() * 0.1]


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64], ids=str)
@pytest.mark.parametrize("record", NATIVE, ids=lambda record: record.name)
def test_nodes_are_those_that_python_makes(natives: Any, record: OpDef, dtype: Any) -> None:
    if natives[record] is missed:
        pytest.skip("NumPy has no loop that native code could call")
    given = inputs(dtype)
    for x in given:
        for y in given if len(record.operands) == 2 else (None,):
            args = (x,) if y is None else (x, y)
            if not any(isinstance(arg, Tensor) for arg in args):
                continue
            out, expected = natives[record](*args), dispatch._elementwise(record, args)
            rounding = 1e-6 if record in eager.OWN and record not in eager.EXACT else 0.0
            assert np.allclose(out._data, expected._data, rtol=rounding, atol=0, equal_nan=True)
            assert described(out._node) == described(expected._node)
            assert out.requires_grad is expected.requires_grad
            if not out.requires_grad:
                continue
            leaves = [t for t in given if isinstance(t, Tensor) and t.requires_grad and t.is_leaf]
            ways = [graphc.autograd.grad(o.sum(), leaves, allow_unused=True, retain_graph=True) for o in (out, expected)]
            for one, other in zip(*ways, strict=True):
                assert (one is None) == (other is None)
                assert one is None or np.allclose(one._data, other._data, rtol=rounding, atol=0, equal_nan=True)


def test_later_nodes_have_larger_numbers(natives: Any) -> None:
    x = graphc.ones(3, requires_grad=True)
    numbers = []
    for _ in range(3):
        numbers += [natives[ops.mul](x, x)._node.sequence, dispatch._elementwise(ops.mul, (x, x))._node.sequence]
    assert numbers == sorted(set(numbers))


def test_a_change_in_place_is_seen(natives: Any) -> None:
    x, y = graphc.ones(3, requires_grad=True), graphc.full((3,), 2.0)
    product = natives[ops.mul](x, y)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()
    root = natives[ops.sqrt](x)
    root.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        root.sum().backward()


def test_hooks_on_saved_tensors_are_called(natives: Any) -> None:
    x, packed = graphc.full((3,), 3.0, requires_grad=True), []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor)
        return tensor * 2

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        square = natives[ops.mul](x, x)
    assert len(packed) == 2
    square.sum().backward()
    assert x.grad.tolist() == [12.0] * 3


def test_anomaly_mode_names_the_line(natives: Any) -> None:
    x = graphc.zeros(1, requires_grad=True)
    with pytest.warns(UserWarning) as caught, pytest.raises(RuntimeError, match="nan"), graphc.autograd.detect_anomaly():
        natives[ops.div](x, x).sum().backward()
    assert any("natives[ops.div](x, x)" in str(warning.message) for warning in caught)


def test_nothing_is_recorded_where_no_gradient_is_wanted(natives: Any) -> None:
    x = graphc.ones(3, requires_grad=True)
    with graphc.no_grad():
        assert natives[ops.mul](x, x)._node is None
    assert natives[ops.mul](x.detach(), 2.0)._node is None


def test_code_that_has_not_been_met_is_left_to_python_and_known_then(natives: Any) -> None:
    scope: dict[str, Any] = {"mul": natives[ops.mul], "x": graphc.ones(3, requires_grad=True)}
    code = compile("def f():\n    return mul(x, x)\n", "somewhere.py", "exec")
    exec(code, scope)
    for _ in range(2):
        assert str(scope["f"]()._node.location()) == "somewhere.py:2 in f"


def test_nodes_go_when_the_result_goes(natives: Any) -> None:
    x, y = graphc.ones(3, requires_grad=True), graphc.ones(3, requires_grad=True)
    with graphc.no_grad():
        y.mul_(2)
    view, indexed = eager.native_view(ops.reshape, "Seen", missed), eager.native_view(None, None, missed)
    plain = graphc.ones(3)

    def calls() -> None:
        out = natives[ops.sqrt](natives[ops.mul](natives[ops.add](x, 1.0), y))
        node = weakref.ref(out._node)
        seen = view(out, out._data.reshape(1, 3), {"shape": (1, 3)}), indexed(plain, plain._data[1:], list)
        del out, seen
        assert node() is None

    shared = (x, y, plain, None, True, False, 0)
    for _ in range(100):
        calls()
    gc.collect()
    before = list(map(sys.getrefcount, shared))
    for _ in range(1000):
        calls()
    gc.collect()
    assert all(abs(sys.getrefcount(thing) - count) < 100 for thing, count in zip(shared, before, strict=True))


# Views

STEPS: list[tuple[OpDef, Callable[[np.ndarray], np.ndarray], dict[str, Any]]] = [
    (ops.reshape, lambda a: a.reshape(6, 4), {"shape": (6, 4)}),
    (ops.permute, lambda a: a.transpose(2, 0, 1), {"order": (2, 0, 1)}),
    (ops.slice, lambda a: a[1:, ::2], {"starts": (1, 0, 0), "stops": (2, 3, 4), "steps": (1, 2, 1)}),
    (ops.reshape, lambda a: a.transpose().reshape(24), {"shape": (24,)}),  # a copy, as far as memory goes
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[0].name)
@pytest.mark.parametrize("grad", [True, False])
def test_views_are_those_that_python_makes(step: Any, grad: bool) -> None:
    record, see, attrs = step
    get_backend("llvm")
    native = eager.native_view(record, "Seen", missed)
    leaf = graphc.rand(2, 3, 4, requires_grad=True)
    part = graphc.rand(3, 3, 4, requires_grad=True)[1:]
    stale = (leaf * 2).reshape(2, 3, 4)
    stale._base.mul_(2)
    sources = [leaf, graphc.rand(2, 3, 4), leaf * 2, part, graphc.nn.Parameter(graphc.rand(2, 3, 4)), stale,
               graphc.rand(2, 3, 4)[:]]
    for source in sources:
        if not grad and source.requires_grad:
            source = source.detach().clone()
        with graphc.set_grad_enabled(grad):
            array = see(source._data)
            out, expected = native(source, array, attrs), _made(record, "Seen", source, array, attrs)
        assert out._data is array
        assert out.requires_grad == expected.requires_grad
        assert described(out.grad_fn) == described(expected.grad_fn)
        assert (out._base is expected._base) and out._is_view() == expected._is_view()
        if not out._is_view():
            continue
        ours, theirs = out._meta.view, expected._meta.view
        assert (ours.step, ours.parent, ours.tracked, ours.seen, ours.detached) == (
            theirs.step, theirs.parent, theirs.tracked, theirs.seen, theirs.detached)
        before = source._version
        out.detach().add_(1)
        assert source._version == before + 1 == out._version == expected._version


def test_views_that_python_has_to_make() -> None:
    native = eager.native_view(ops.reshape, None, missed)
    x = graphc.ones(2, 3)
    attrs = {"shape": (6,)}
    with graphc.inference_mode(), pytest.raises(Missed):
        native(x, x._data.reshape(6), attrs)
    with pytest.raises(Missed):
        native(x.detach(), x._data.reshape(6), attrs)  # its base is held weakly
    with pytest.raises(Missed):
        native(x, [1.0], attrs)
    with pytest.raises(Missed):
        graphc.trace(lambda v: native(x, x._data.reshape(6), attrs), (graphc.ones(1),))
    assert native(wrap(x._data), x._data.reshape(6), attrs).shape == (6,)


def test_a_change_through_a_native_view_reaches_the_base() -> None:
    native = eager.native_view(ops.reshape, None, missed)
    leaf = graphc.ones(2, 3, requires_grad=True)
    base = leaf * 3
    view = native(base, base._data.reshape(6), {"shape": (6,)})
    view.mul_(2)
    base.sum().backward()
    assert leaf.grad.tolist() == [[6.0] * 3] * 2


def test_recording_by_python_names_the_node() -> None:
    native = eager.native_view(ops.reshape, "Flat", missed)
    x = graphc.ones(2, 3, requires_grad=True) * 1
    with saved_tensors_hooks(lambda t: t, lambda t: t):
        assert native(x, x._data.reshape(6), {"shape": (6,)}).grad_fn.name() == "FlatBackward0"
    out = wrap(x._data.reshape(6))
    record_op(ops.reshape, (x,), {"shape": (6,)}, out)
    assert out.grad_fn.name() == "ReshapeBackward0"
