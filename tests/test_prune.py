"""Pruning: masks over parameters, what they leave out, and how they combine."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.nn.utils import prune

WEIGHT = np.array([[3.0, -1.0, 0.5], [-0.25, 2.0, -4.0]], np.float32)


def layer() -> nn.Linear:
    made = nn.Linear(3, 2)
    made.weight.data = graphc.tensor(WEIGHT)
    made.bias.data = graphc.tensor([1.0, -0.5])
    return made


def zeros(tensor: graphc.Tensor) -> list[list[int]]:
    return graphc.nonzero(tensor == 0).tolist()


def test_the_smallest_elements_are_masked() -> None:
    pruned = prune.l1_unstructured(layer(), "weight", amount=2)
    assert zeros(pruned.weight) == [[0, 2], [1, 0]]
    assert sorted(pruned.state_dict()) == ["bias", "weight_mask", "weight_orig"]
    np.testing.assert_array_equal(pruned.weight_orig.detach(), WEIGHT)
    assert prune.is_pruned(nn.Sequential(pruned)) and not prune.is_pruned(layer())


def test_amounts_are_numbers_or_shares_of_what_is_left() -> None:
    pruned = prune.l1_unstructured(layer(), "weight", amount=0.5)
    assert len(zeros(pruned.weight)) == 3
    prune.l1_unstructured(pruned, "weight", amount=0.34)  # of three
    assert len(zeros(pruned.weight)) == 4
    prune.l1_unstructured(pruned, "weight", amount=0)
    assert len(zeros(pruned.weight)) == 4


def test_importance_may_be_given() -> None:
    scores = graphc.arange(6).reshape(2, 3) + 1
    pruned = prune.l1_unstructured(layer(), "weight", amount=2, importance_scores=scores)
    assert zeros(pruned.weight) == [[0, 0], [0, 1]]


@pytest.mark.parametrize(("n", "dim", "column"), [(1, 0, 0), (2, 0, 0), (float("inf"), 0, 0), (1, 1, 1), (float("inf"), 1, 1)])
def test_whole_slices_are_masked(n: float, dim: int, column: int) -> None:
    pruned = prune.ln_structured(layer(), "weight", 1, n, dim)
    sizes = np.linalg.norm(WEIGHT, n, axis=1 - dim)
    assert [index[dim] for index in zeros(pruned.weight)] == [int(sizes.argmin())] * WEIGHT.shape[1 - dim]


def test_slices_that_are_gone_are_not_counted_again() -> None:
    pruned = prune.ln_structured(layer(), "weight", 1, 2, dim=1)
    prune.ln_structured(pruned, "weight", 1, 2, dim=1)
    assert len({tuple(index)[1] for index in zeros(pruned.weight)}) == 2


def test_random_choices_have_the_right_number() -> None:
    graphc.manual_seed(3)
    assert len(zeros(prune.random_unstructured(layer(), "weight", 4).weight)) == 4
    assert len(zeros(prune.random_structured(layer(), "weight", 1, dim=1).weight)) == 2


def test_one_threshold_for_several_parameters() -> None:
    small, large = layer(), layer()
    small.weight.data *= 0.01
    prune.global_unstructured([(small, "weight"), (large, "weight")], prune.L1Unstructured, amount=6)
    assert len(zeros(small.weight)) == 6 and not zeros(large.weight)
    prune.global_unstructured([(small, "weight"), (large, "weight")], prune.L1Unstructured, amount=2)
    assert zeros(large.weight) == [[0, 2], [1, 0]]


def test_a_mask_of_ones_own_and_a_rule_of_ones_own() -> None:
    mask = graphc.tensor([[1, 0, 1], [0, 1, 1]])
    assert zeros(prune.custom_from_mask(layer(), "weight", mask).weight) == [[0, 1], [1, 0]]

    class First(prune.BasePruningMethod):
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t: graphc.Tensor, default_mask: graphc.Tensor) -> graphc.Tensor:
            mask = default_mask.clone()
            mask.view(-1)[0] = 0
            return mask

    pruned = layer()
    First.apply(pruned, "bias")
    First.apply(pruned, "bias")  # the first of what is left
    assert pruned.bias.tolist() == [0, 0]


def test_only_what_is_left_is_trained() -> None:
    pruned = prune.l1_unstructured(layer(), "weight", amount=3)
    optimizer = graphc.optim.SGD(pruned.parameters(), lr=0.1)
    x = graphc.ones(4, 3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = pruned(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and len(zeros(pruned.weight)) == 3
    assert zeros(pruned.weight_orig.grad) == zeros(pruned.weight)
    compiled = graphc.compile(pruned)
    np.testing.assert_allclose(compiled(x).detach(), pruned(x).detach(), rtol=1e-6)


def test_removing_keeps_the_zeros_and_the_parameter() -> None:
    pruned = layer()
    before = pruned.weight
    prune.l1_unstructured(pruned, "weight", amount=2)
    prune.l1_unstructured(pruned, "weight", amount=1)
    prune.remove(pruned, "weight")
    assert pruned.weight is before and len(zeros(pruned.weight)) == 3
    assert sorted(pruned.state_dict()) == ["bias", "weight"] and type(pruned) is nn.Linear and not prune.is_pruned(pruned)


def test_a_pruned_module_is_copied_whole() -> None:
    pruned = prune.l1_unstructured(layer(), "weight", amount=2)
    other = copy.deepcopy(pruned)
    other.weight_mask.fill_(1)
    assert not zeros(other.weight) and len(zeros(pruned.weight)) == 2
    assert str(pruned) == str(layer())


@pytest.mark.parametrize(("prune_it", "error", "message"), [
    (lambda: prune.l1_unstructured(layer(), "weight", amount="all"), TypeError, "Invalid type for amount"),
    (lambda: prune.l1_unstructured(layer(), "weight", amount=-1), ValueError, "amount=-1"),
    (lambda: prune.l1_unstructured(layer(), "weight", amount=1.5), ValueError, "float in the range"),
    (lambda: prune.l1_unstructured(layer(), "weight", amount=100), ValueError, "smaller than the number"),
    (lambda: prune.l1_unstructured(layer(), "weights", amount=1), AttributeError, "no parameter 'weights'"),
    (lambda: prune.ln_structured(layer(), "bias", 1, 2, 0), ValueError, "multidimensional"),
    (lambda: prune.ln_structured(layer(), "weight", 1, 2, 5), IndexError, "Invalid dimension: 5"),
    (lambda: prune.remove(layer(), "weight"), ValueError, "has to be pruned before"),
    (lambda: prune.custom_from_mask(layer(), "weight", graphc.ones(3)), ValueError, "another shape"),
    (lambda: prune.global_unstructured(3, prune.L1Unstructured, amount=1), TypeError, "list of pairs"),
    (lambda: prune.global_unstructured([(layer(), "weight")], prune.LnStructured, amount=1, n=1), TypeError, "unstructured"),
])  # fmt: skip
def test_refusals(prune_it, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        prune_it()
