"""The primitive ops, as functions: each works on tensors, graph values and kernel expressions alike."""

from graphc.ops.conv import conv, conv_input_grad, conv_weight_grad
from graphc.ops.creation import constant, full, iota, zeros_like
from graphc.ops.elementwise import (
    abs,
    add,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    cast,
    ceil,
    cos,
    div,
    eq,
    erf,
    exp,
    expm1,
    floor,
    floor_divide,
    ge,
    gt,
    le,
    log,
    log1p,
    lt,
    maximum,
    minimum,
    mul,
    ne,
    neg,
    pow,
    relu,
    remainder,
    round,
    rsqrt,
    shift_left,
    shift_right,
    sigmoid,
    sign,
    sin,
    sqrt,
    stop_gradient,
    sub,
    tanh,
    trunc,
    where,
)
from graphc.ops.indexing import gather, in_range, scatter_add, scatter_max, scatter_min, scatter_mul, scatter_update
from graphc.ops.linalg import contract, matmul, transpose_last
from graphc.ops.movement import (
    broadcast_to,
    concat,
    flip,
    fold,
    inverse_permutation,
    normalize_axis,
    pad,
    permute,
    reshape,
    slice,
    slice_update,
    unbroadcast,
    window,
)
from graphc.ops.random import random_bits
from graphc.ops.reduce import amax, amin, argmax, argmin, expand, keepdims, prod, sum
from graphc.ops.scan import argcummax, argcummin, cumprod, cumsum, linear_recurrence, logcumsumexp
from graphc.ops.sort import argsort, searchsorted
