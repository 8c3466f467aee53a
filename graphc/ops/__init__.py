"""The primitive ops, as functions: each works on tensors, graph values and kernel expressions alike."""

from graphc.op import OPS
from graphc.ops.attention import attention
from graphc.ops.attention_backward import attention_backward
from graphc.ops.complex_numbers import complex, conj, conjugate, imag, real, view_as_complex, view_as_real
from graphc.ops.control import cond
from graphc.ops.control_scan import scan
from graphc.ops.control_while import while_loop, while_loop_vjp
from graphc.ops.conv import conv, conv_input_grad, conv_weight_grad
from graphc.ops.creation import constant, full, iota, size, zeros_like
from graphc.ops.cumulative import argcummax, argcummin, cummax, cummin, cumprod, cumsum, linear_recurrence, logcumsumexp
from graphc.ops.eigen import eig, eigh, eigvals, eigvalsh, svd, svdvals
from graphc.ops.elementary import (
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    copysign,
    cosh,
    entr,
    erfc,
    exp2,
    exponent,
    gcd,
    hypot,
    log2,
    log10,
    logaddexp,
    logaddexp2,
    nextafter,
    signbit,
    sinh,
    tan,
    xlog1py,
    xlogy,
)
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
    fmod,
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
    sgn,
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
from graphc.ops.fence import fence
from graphc.ops.fft import fft_c2c, fft_c2r, fft_r2c
from graphc.ops.indexing import gather, in_range, scatter_add, scatter_max, scatter_min, scatter_mul, scatter_update
from graphc.ops.lapack import cholesky, geqrf, ldl_factor, ldl_solve, lu_factor, permutation, qr, take_rows
from graphc.ops.least_squares import lstsq
from graphc.ops.linalg import adjoint, contract, matmul, transpose_last
from graphc.ops.matrices import lower_triangle, upper_triangle
from graphc.ops.matrix_functions import cofactor, det, inv, matrix_exp, pinv, slogdet
from graphc.ops.movement import (
    broadcast_to,
    concat,
    copy,
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
from graphc.ops.normalization import squared_deviations, standardize
from graphc.ops.random import random_bits
from graphc.ops.reduce import amax, amin, argmax, argmin, expand, keepdims, prod, sum
from graphc.ops.sort import argsort, argtopk, searchsorted
from graphc.ops.special import (
    airy_ai,
    digamma,
    erfcx,
    erfinv,
    i0,
    i0e,
    i1,
    i1e,
    igamma,
    igammac,
    j0,
    j1,
    k0,
    k0e,
    k1,
    k1e,
    lgamma,
    log_ndtr,
    ndtri,
    polygamma,
    polynomial,
    y0,
    y1,
    zeta,
)
from graphc.ops.strided import as_strided, diagonal, diagonal_update
from graphc.ops.systems import cholesky_solve, solve, triangular_solve
from graphc.ops.transfer import transfer

PRIMITIVES = frozenset(OPS.values())
"""The ops that this package defines. What is registered later is the user's."""
