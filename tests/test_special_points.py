"""Gradients at the points where functions have several slopes or none, against PyTorch's (special_points.py)."""

import math

import numpy as np
import pytest
import special_points

import graphc
import graphc.nn.functional as F

NAN, INF = math.nan, math.inf

DIFFERENT = {
    # where there is nan it has the gradient, as that of max() and min(); in PyTorch's amax and amin, nothing equals the extreme
    **{f"x.{name}": {6: 1.5, 7: 0.0, 8: 1.5} for name in ("amax(1)", "amin(1)", "aminmax(dim=1)[0]", "aminmax(dim=1)[1]")},
    "x.amax(0)": dict(enumerate((0, 0, 0, 0, 0, 0, 1, 0, 3, 0, 0, 0, 0, 2, 0, 0, 0, 0))),
    "x.amin(0)": dict(enumerate((0, 0, 0, 0, 0, 0, 1, 0, 3, 0, 1, 0, 0, 0, 0, 0, 1, 0))),
    **{f"x.{name}": dict(enumerate((0,) * 6 + (0.5, 0, 0.5) + (0,) * 9)) for name in ("amax()", "amin()", "amax((0, 1))")},
    # -1 / -0.0, as 1 / x has it
    "x.logit()": {5: -INF},
    # x ** -0.5 is not the reciprocal of the root: 0 of -inf, inf of -0.0
    "x.pow(0.5)": {0: 0.0, 5: INF},
    # poles, of which PyTorch's float32 comes near, and its limit
    "x.digamma()": {0: INF, 1: INF, 2: INF, 3: INF},
    # PyTorch replaces nan by a number
    "T.special.i1(x)": {14: NAN},
    # the exact derivative of a product that is infinite: PyTorch divides by factors
    "x.cumprod(1)": {12: -INF, 13: -INF, 14: INF},
    # a norm that is nan is not known to be small
    "x.renorm(2, 0, 1.0)": {6: NAN, 7: NAN, 8: NAN},
}
"""Where graphc's gradients are others, and which."""


def _function(expression):
    names = {"T": graphc, "F": F, "w": graphc.tensor([0.25]), "inf": INF}
    return eval(f"lambda x, y=None: {expression}", names)


def _gradients(function, operands, ordered):
    result = function(*operands)
    ones = graphc.ones_like(result)
    seed = graphc.arange(1, result.numel() + 1, dtype=result.dtype).reshape(result.shape) if ordered else ones
    return graphc.autograd.grad(result, operands, seed)


def _eagerly(function, operands, ordered):
    return _gradients(function, operands, ordered)


def _compiled(function, operands, ordered):
    return graphc.compile(lambda *operands: _gradients(function, operands, ordered))(*operands)


def _check(how, expression, inputs, expected, ordered=False):
    operands = [graphc.tensor(values, requires_grad=True) for values in inputs]
    different = DIFFERENT.get(expression, {})
    for gradient, row in zip(how(_function(expression), operands, ordered), expected, strict=True):
        wanted = [different.get(i, None if value == "*" else float(value)) for i, value in enumerate(row.split())]
        got = gradient.flatten().tolist()
        known = [i for i, value in enumerate(wanted) if value is not None]
        np.testing.assert_allclose([got[i] for i in known], [wanted[i] for i in known], rtol=1e-4, atol=1e-4)


WAYS = pytest.mark.parametrize("how", [_eagerly, _compiled])


@WAYS
@pytest.mark.parametrize("expression", special_points.OF_ONE)
def test_functions_of_one_tensor(how, expression):
    _check(how, expression, [special_points.POINTS], [special_points.OF_ONE[expression]])


@WAYS
@pytest.mark.parametrize("expression", special_points.OF_TWO)
def test_functions_of_two_tensors(how, expression):
    _check(how, expression, list(zip(*special_points.PAIRS)), special_points.OF_TWO[expression])


@WAYS
@pytest.mark.parametrize("expression", special_points.OF_ROWS)
def test_functions_of_rows(how, expression):
    _check(how, expression, [special_points.ROWS], [special_points.OF_ROWS[expression]], ordered=True)
