"""Bad input raises what the docstring of the function says, in words of graphc's own.

The calls stand in bad_calls.txt, below the error that each of them raises.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.errors
import graphc.runtime
import graphc.signal.windows
import graphc.stablehlo
from graphc import native, nn
from graphc.frontend.autograd.gradcheck import GradcheckError


def bad_calls() -> list[tuple[str, str]]:
    found, error = [], ""
    for line in Path(__file__).with_name("bad_calls.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            found.append((line.strip(), error))
        else:
            error = line
    return found


def names() -> dict[str, Any]:
    """What the calls are written with."""
    return {
        "graphc": graphc, "nn": nn, "F": nn.functional, "np": np, "native": native,
        "x": graphc.full((2, 3), 0.5), "ints": graphc.tensor([1, 2]), "ints2": graphc.tensor([[1, 2], [3, 4]]),
        "bools": graphc.tensor([True, False]), "images": graphc.ones(1, 3, 4, 4),
        "square": graphc.tensor([[2.0, 1.0], [1.0, 3.0]]), "needs": graphc.ones(2, requires_grad=True),
        "optimizer": graphc.optim.Adam([graphc.ones(1, requires_grad=True)]), "this_file": __file__,
    }


def docstring(call: str) -> str:
    """That of the function or class which the call is of; of a class with those that it derives from."""
    node = ast.parse(call, mode="eval").body
    while not isinstance(node, ast.Attribute):
        assert isinstance(node, (ast.Call, ast.Subscript))
        node = node.func if isinstance(node, ast.Call) else node.value
    value = eval(ast.unparse(node.value), names())
    found = getattr(type(value) if isinstance(value, graphc.Tensor) else value, node.attr)
    kinds = found.__mro__[:-1] if isinstance(found, type) else (found,)
    return "\n".join(inspect.getdoc(kind) or "" for kind in kinds)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("call", "error"), bad_calls())
def test_what_bad_input_raises(call: str, error: str) -> None:
    wanted = GradcheckError if error == "GradcheckError" else getattr(graphc.errors, error, None) or getattr(builtins, error)
    with pytest.raises(wanted) as raised:
        eval(call, names())
    assert raised.type is wanted
    assert str(raised.value).strip()
    assert error in docstring(call)


@pytest.mark.parametrize("call", [
    "graphc.abs_('text')", "graphc.fill_('text', 1)", "graphc.detach_('text')", "graphc.detach('text')", "graphc.numel('text')",
    "graphc.atleast_1d('text')", "graphc.atleast_3d(x, 'text')", "graphc.to_dlpack('text')", "graphc.full_like('text', 1)",
    "graphc.is_floating_point('text')", "F.dropout1d('text')", "F.dropout2d('text')", "F.dropout3d('text')",
])
def test_what_is_no_tensor_is_named(call: str) -> None:
    """Every function says so, whether its docstring does or not."""
    function = call.partition("(")[0].split(".")[-1]
    with pytest.raises(graphc.errors.ArgumentTypeError, match=rf"^{function}\(\): argument '\w+' .*must be Tensor, not str"):
        eval(call, names())


@pytest.mark.parametrize(("call", "got"), [
    ("F.conv1d(graphc.ones(1, 2, 4), graphc.ones(1, 2, 2), stride=0)", "[0]"),
    ("F.conv2d(images, images, padding='same', stride=(1, 2))", "[1, 2]"),
    ("F.conv1d(graphc.ones(1, 2, 4), graphc.ones(1, 2, 2), padding=-3)", "[-3]"),
    ("F.conv_transpose1d(graphc.ones(1, 2, 4), graphc.ones(2, 2, 2), output_padding=-1)", "[-1]"),
    ("F.hardtanh(x, 2.0, 1.0)", "2.0 and 1.0"),
    ("F.one_hot(graphc.tensor([-4]))", "-4"),
    ("F.one_hot(graphc.tensor([7]), 3)", "7"),
    ("F.huber_loss(x, x, delta=-2.0)", "-2.0"),
    ("F.pad(x, (1, 2, 3))", "[1, 2, 3]"),
    ("F.pad(graphc.ones(1, 2), (5, 6), 'circular')", "(5, 6) at dimension 1 of [1, 2]"),
    ("F.max_pool1d(images[0], 2, stride=-1)", "[-1]"),
    ("graphc.fliplr(graphc.ones(4))", "[4]"),
    ("x.repeat(2)", "1 repeats for [2, 3]"),
    ("graphc.empty_permuted((2, 3), (0, 0))", "[0, 0]"),
    ("graphc.einsum('ij,jk', x)", "1 for 2 terms"),
    ("graphc.repeat_interleave(ints, graphc.tensor([1, -5]))", "-5"),
    ("graphc.linalg.cond(ints)", "[2]"),
    ("x.narrow(0, 0, -2)", "-2"),
    ("graphc.linspace(0, 1, -9)", "-9"),
    ("graphc.aminmax(graphc.ones(0, 2))", "[0, 2]"),
    ("graphc.bincount(graphc.tensor([-6]))", "-6"),
    ("graphc.bincount(ints2)", "[2, 2]"),
    ("graphc.multinomial(graphc.ones(3), 4)", "4 of 3"),
    ("graphc.normal(x, x - 1)", "-0.5"),
    ("graphc.poisson(x - 2)", "-1.5"),
    ("graphc.func.stack_module_state([nn.Linear(1, 1), nn.ReLU()])", "Linear, ReLU"),
    ("graphc.data.DataLoader([1], timeout=-7)", "-7"),
    ("graphc.data.default_collate([])", "[]"),
    ("graphc.distributions.Bernoulli()", "neither"),
    ("graphc.distributions.Bernoulli(0.5, 0.5)", "both"),
    ("graphc.grid_sampler(images, graphc.ones(1, 2, 2, 2), 0, 8, False)", "8"),
    ("graphc.optim.lr_scheduler.LinearLR(optimizer, start_factor=3.0)", "3.0"),
    ("graphc.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=4.0)", "4.0"),
    ("nn.Conv2d(4, 6, 3, groups=3)", "4 channels, 3 groups"),
    ("nn.init.eye_(ints)", "[2]"),
    ("nn.Linear(1, 1).train('yes')", "'yes'"),
    ("range(graphc.ones(2, 2))", "float32[2, 2]"),
])  # fmt: skip
def test_messages_say_what_came(call: str, got: str) -> None:
    with pytest.raises(graphc.errors.GraphcError) as raised:
        eval(call, names())
    assert f"\n  got:      {got}\n" in str(raised.value)
