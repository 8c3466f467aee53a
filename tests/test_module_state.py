"""What modules hold: saving and loading level by level, replacing parts, converting, and the containers."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

import graphc
from graphc import nn


class Renamed(nn.Module):
    """A layer that once called its weight `old`."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.new = nn.Parameter(graphc.zeros(2))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest) -> None:
        if local_metadata.get("version", 1) < 2 and prefix + "old" in state_dict:
            state_dict[prefix + "new"] = state_dict.pop(prefix + "old")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def get_extra_state(self) -> int:
        return self.count

    def set_extra_state(self, state: int) -> None:
        self.count = state


def test_older_states_are_read_where_a_module_knows_how() -> None:
    model = nn.Sequential(Renamed(), nn.Linear(1, 1))
    state = model.state_dict()
    assert state._metadata[""] == {"version": 1} and state._metadata["0"] == {"version": 2}
    older = {"0.old" if key == "0.new" else key: value for key, value in state.items()}
    older["0.old"] = graphc.ones(2)
    assert str(model.load_state_dict(older)) == "<All keys matched successfully>"
    assert model[0].new.tolist() == [1, 1]
    state["0.old"] = state.pop("0.new")
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "0.new". \n\tUnexpected key\(s\).*"0.old"'):
        model.load_state_dict(state)


def test_messages_of_loading() -> None:
    model = nn.Linear(2, 3)
    found = model.load_state_dict({"weight": graphc.ones(3, 2), "x.y": graphc.ones(1)}, strict=False)
    assert found.missing_keys == ["bias"] and found.unexpected_keys == ["x.y"]
    assert repr(found) == "_IncompatibleKeys(missing_keys=['bias'], unexpected_keys=['x.y'])"
    with pytest.raises(RuntimeError, match=r"size mismatch for weight: copying a param with shape graphc.Size\(\[2\]\) from "
                                           r"checkpoint, the shape in current model is graphc.Size\(\[3, 2\]\)"):
        model.load_state_dict({"weight": graphc.ones(2)}, strict=False)
    with pytest.raises(RuntimeError, match=r"expected graphc.Tensor or Tensor-like object.* but received <class 'int'"):
        model.load_state_dict({"weight": 3}, strict=False)
    with pytest.raises(TypeError, match="dict-like"):
        model.load_state_dict([1])


def test_assigning_takes_the_tensors_themselves() -> None:
    model = nn.BatchNorm1d(2)
    state = {key: value.double() for key, value in model.state_dict().items()}
    model.weight.requires_grad_(False)
    model.load_state_dict(state, assign=True)
    assert model.weight.dtype is graphc.float64 and isinstance(model.weight, nn.Parameter) and not model.weight.requires_grad
    assert model.bias.requires_grad and model.running_mean is state["running_mean"]


def test_extra_state_and_hooks() -> None:
    model, order = nn.Sequential(Counting(), nn.Linear(1, 1)), []
    model[0].count = 5
    model[0].register_state_dict_pre_hook(lambda m, prefix, keep: order.append(("save", prefix)))
    model[1].register_load_state_dict_pre_hook(lambda m, state, prefix, *rest: order.append((sorted(state), prefix)))
    model[1]._register_load_state_dict_pre_hook(lambda state, prefix, *rest: order.append(prefix))
    model.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    state = model.state_dict()
    assert list(state) == ["0._extra_state", "1.weight", "1.bias"] and order == [("save", "0.")]
    model[0].count = 0
    del state["1.bias"]
    model.load_state_dict(state)  # the hook has forgiven what is missing
    assert model[0].count == 5 and order[1:] == [(["1.weight"], "1."), "1."]
    del state["0._extra_state"]
    result = nn.Sequential(Counting()).load_state_dict(state, strict=False)
    assert result.missing_keys == ["0._extra_state"]


def test_older_ways_of_asking_for_a_state() -> None:
    target: OrderedDict[str, graphc.Tensor] = OrderedDict()
    model = nn.Linear(1, 1)
    assert model.state_dict(target, "p.", True) is target and target["p.weight"] is model.weight


def test_replacing_and_converting() -> None:
    model = nn.Sequential(OrderedDict(body=nn.Sequential(nn.Linear(2, 2)), head=nn.Linear(2, 2)))
    model.set_submodule("body.0", nn.Identity())
    assert isinstance(model.body[0], nn.Identity)
    model.set_submodule("tail", nn.ReLU())
    with pytest.raises(AttributeError, match="has no attribute `other`"):
        model.set_submodule("other", nn.ReLU(), strict=True)
    with pytest.raises(ValueError, match=r"not an nn\.Module"):
        model.set_submodule("head", 3)
    model.register_buffer("steps", graphc.tensor([1]))
    assert model.bfloat16().head.weight.dtype is graphc.bfloat16 and model.steps.dtype is graphc.int64
    assert model.to(graphc.complex64).head.weight.dtype is graphc.complex64
    with pytest.raises(TypeError, match="floating point or complex"):
        model.to(graphc.int32)
    fresh = nn.Linear(2, 2)
    kept = fresh.weight
    assert fresh.to_empty(device="cpu").weight is kept


def test_names_that_are_taken() -> None:
    class Layer(nn.Linear):
        scale = 1.0

    layer = Layer(1, 1)
    with pytest.raises(KeyError, match="'scale' already exists"):
        layer.scale = nn.Parameter(graphc.ones(1))
    with pytest.raises(KeyError, match="'in_features' already exists"):
        layer.register_buffer("in_features", None)
    with pytest.raises(TypeError, match=r"cannot assign 'graphc.FloatTensor' object to parameter 'x'"):
        layer.register_parameter("x", graphc.ones(1))

    class Early(nn.Module):
        def __init__(self) -> None:
            self.register_buffer("x", graphc.ones(1))

    with pytest.raises(AttributeError, match=r"cannot assign buffer before Module.__init__\(\) call"):
        Early()


# Containers


def test_sequences_add_and_multiply() -> None:
    chain = nn.Sequential(nn.ReLU(), nn.Tanh())
    assert len(chain * 2) == 4 and len(3 * chain) == 6
    chain += nn.Sequential(nn.ReLU())
    chain *= 2
    assert [type(m).__name__ for m in chain] == ["ReLU", "Tanh", "ReLU"] * 2
    chain.insert(0, nn.Sigmoid())
    assert len(chain) == 7 and isinstance(chain[0], nn.Sigmoid) and chain[1] is chain[4]
    for wrong, kind in ((lambda: chain * 0, ValueError), (lambda: chain * 1.5, TypeError), (lambda: chain + 3, TypeError),
                        (lambda: chain.insert(99, nn.ReLU()), IndexError), (lambda: chain.append(3), TypeError)):
        with pytest.raises(kind):
            wrong()


def test_dictionaries_of_modules() -> None:
    table = nn.ModuleDict([["a", nn.ReLU()], ("b", nn.Tanh())])
    table.update({"c": nn.ReLU()})
    assert list(table) == ["a", "b", "c"]
    for wrong, kind in ((3, TypeError), ([3], TypeError), ([["a"]], ValueError), ({"a": 3}, TypeError)):
        with pytest.raises(kind):
            nn.ModuleDict(wrong)
    with pytest.raises(KeyError, match="already exists"):
        table["forward"] = nn.ReLU()


def test_dictionaries_of_parameters() -> None:
    table = nn.ParameterDict({"b": graphc.ones(2), "a": nn.Parameter(graphc.ones(3))})
    assert list(table) == ["a", "b"] and list(reversed(table)) == ["b", "a"]  # as PyTorch: a dict is sorted
    joined = table | nn.ParameterDict({"c": graphc.ones(1)})
    assert list(joined) == ["a", "b", "c"] and joined["a"] is table["a"]
    table |= joined
    assert table.popitem()[0] == "c" and table.setdefault("a", None) is joined["a"] and len(table.copy()) == 2
    assert list(table.fromkeys(["x", "y"], graphc.ones(1))) == ["x", "y"]
    assert repr(table) == ("ParameterDict(\n    (a): Parameter containing: [graphc.FloatTensor of size 3]\n"
                           "    (b): Parameter containing: [graphc.FloatTensor of size 2]\n)")
    with pytest.raises(TypeError, match="not a string"):
        table[3] = graphc.ones(1)


def test_lists_of_parameters() -> None:
    values = nn.ParameterList([graphc.ones(2), nn.Parameter(graphc.ones(2, 3)), 3])
    assert repr(values) == (
        "ParameterList(\n    (0): Parameter containing: [graphc.float32 of size 2]\n"
        "    (1): Parameter containing: [graphc.float32 of size 2x3]\n    (2): Object of type: int\n)")
    assert list(values.state_dict()) == ["0", "1"] and values[-1] == 3 and len(values[1:]) == 2
    np.testing.assert_array_equal(values[0].detach().numpy(), [1, 1])
    with pytest.raises(TypeError, match="iterable"):
        values.extend(3)
