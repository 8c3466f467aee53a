"""Checking derivatives against differences of values."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import ArgumentError, GraphcError
from graphc.frontend.autograd import forward_ad
from graphc.frontend.autograd.derivatives import grad
from graphc.frontend.tensor import Tensor, wrap
from graphc.types import float64

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]


class GradcheckError(RuntimeError):
    """Derivatives that are not those of the function."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Whether the gradients of `func` at `inputs` are near those of finite differences, for each input that requires grad.

    Inputs should be of double precision. A difference is taken over `eps` to both sides; `atol` and `rtol` are as in allclose.

    raise_exception
        Raise GradcheckError instead of returning False.
    nondet_tol
        By how much two backward passes may differ.
    check_undefined_grad
        Whether the function's backward takes gradients that are not there for zeros.
    check_forward_ad, check_batched_grad
        Forward mode, and gradients of a batch of cotangents, are checked too.
    fast_mode
        Look at one random direction instead of every element.

    >>> x = graphc.tensor([0.5, 1.5], dtype=graphc.float64, requires_grad=True)
    >>> graphc.autograd.gradcheck(graphc.sin, (x,))
    True
    """
    if not (check_forward_ad or check_backward_ad):
        raise AssertionError("Expected at least one of check_forward_ad or check_backward_ad to be True")
    if check_batched_grad and not check_backward_ad:
        raise AssertionError("Setting check_batched_grad=True requires check_backward_ad to be True")
    if check_batched_forward_grad and not check_forward_ad:
        raise AssertionError("Setting check_batched_forward_grad=True requires check_forward_ad to be True")
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    check = _Check(func, given, eps, atol, rtol, nondet_tol)
    try:
        check.inputs_are_fit()
        if check_backward_ad:
            check.backward(fast_mode, check_grad_dtypes)
            if check_batched_grad:
                check.batched()
            if check_undefined_grad:
                check.undefined()
        if check_forward_ad:
            check.forward(fast_mode)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Tensor | Sequence[Any],
    grad_outputs: Tensor | Sequence[Any] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """Whether the second derivatives of `func` are right: `gradcheck` of its gradients, as functions of the inputs and of
    `grad_outputs`, which are random unless given.

    GradcheckError where they are not, unless `raise_exception` is False.

    >>> x = graphc.tensor([0.5, 1.5], dtype=graphc.float64, requires_grad=True)
    >>> graphc.autograd.gradgradcheck(graphc.sin, (x,))
    True
    """
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if grad_outputs is None:
        outputs = _differentiable(func(*(x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x
                                         for x in given)))
        cotangents = tuple(_random_like(y, gen_non_contig_grad_outputs).requires_grad_() for y in outputs)
    else:
        cotangents = (grad_outputs,) if isinstance(grad_outputs, Tensor) else tuple(grad_outputs)
    count = len(cotangents)

    def gradients(*args: Any) -> tuple[Tensor, ...]:
        own, cts = args[:-count], args[-count:]
        own = tuple(x.clone() if isinstance(x, Tensor) and x.is_leaf and x.requires_grad else x for x in own)
        outputs = _differentiable(func(*own))
        wanted = [x for x in own if isinstance(x, Tensor) and x.requires_grad]
        found = grad(outputs, wanted, cts, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        gradients, given + cotangents, eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception, nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad, check_grad_dtypes=check_grad_dtypes, check_batched_grad=check_batched_grad,
        check_forward_ad=check_fwd_over_rev, check_backward_ad=check_rev_over_rev, fast_mode=fast_mode,
    )  # fmt: skip


def _differentiable(result: Any) -> list[Tensor]:
    """The outputs that have gradients."""
    outputs = [result] if isinstance(result, Tensor) else list(result)
    return [y for y in outputs if isinstance(y, Tensor) and y.requires_grad]


def _random_like(y: Tensor, strided: bool) -> Tensor:
    numbers: Any = np.random.default_rng(0).uniform(-1, 1, (*y.shape, 2) if strided else tuple(y.shape))
    if y.dtype.is_complex:
        numbers = numbers * (1 + 0.5j)
    array = numbers.astype(y.dtype.numpy)
    return _tensor(array[..., 0] if strided else array)


class _Check:
    """One check of one function."""

    def __init__(
        self, func: Callable[..., Any], inputs: tuple[Any, ...], eps: float, atol: float, rtol: float, nondet_tol: float
    ) -> None:
        self.func = func
        self.inputs = inputs
        self.eps, self.atol, self.rtol, self.nondet_tol = eps, atol, rtol, nondet_tol
        self.wanted = [(i, x) for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]

    def inputs_are_fit(self) -> None:
        if not self.wanted:
            raise ArgumentError("gradcheck expects at least one input tensor to require gradient",
                                hint="set requires_grad=True for what the function is differentiated by")
        for i, x in self.wanted:
            if x.dtype.to_real() is not float64:
                warnings.warn(f"Input #{i} requires gradient and is not of double precision: differences of it are too coarse "
                              "for the check to succeed", stacklevel=3)
            if any(step == 0 and size > 1 for step, size in zip(x.stride(), x.shape)):
                raise GraphcError(f"The {i}th input has a dimension with stride 0: its elements cannot be changed one by one",
                                  hint="pass x.contiguous()")
            x.retain_grad()

    def outputs(self) -> list[Tensor]:
        return _differentiable(self.func(*self.inputs))

    # By differences

    def differences(self, number: int, x: Tensor, outputs: Sequence[Tensor]) -> list[np.ndarray]:
        """The derivative of each output by the real numbers that input `number` is made of, one column each."""
        array = _numbers(x)
        steps: list[complex] = [1.0, 1j] if np.iscomplexobj(array) else [1.0]
        columns: list[list[np.ndarray]] = [[] for _ in outputs]
        for place, step in itertools.product(np.ndindex(array.shape), steps):
            direction = np.zeros_like(array)
            direction[place] = step
            for column, d in zip(columns, self.slope(number, array, direction)):
                column.append(d)
        return [np.stack(c, 1) if c else np.zeros((y.numel(), 0)) for c, y in zip(columns, outputs)]

    def slope(self, number: int, array: np.ndarray, direction: np.ndarray) -> list[np.ndarray]:
        """How fast the outputs' elements change along a direction."""
        values = []
        for sign in (1, -1):
            moved = _tensor((array + sign * self.eps * direction).astype(array.dtype)).requires_grad_()
            result = self.func(*(moved if i == number else x for i, x in enumerate(self.inputs)))
            values.append([_numbers(y).reshape(-1) for y in self._same_outputs(result)])
        return [(up - down) / (2 * self.eps) for up, down in zip(*values)]

    def _same_outputs(self, result: Any) -> list[Tensor]:
        outputs = [result] if isinstance(result, Tensor) else list(result)
        return [outputs[i] for i in self._places]

    # The checks

    def backward(self, fast: bool, check_dtypes: bool) -> None:
        result = self.func(*self.inputs)
        everything = [result] if isinstance(result, Tensor) else list(result)
        self._places = [i for i, y in enumerate(everything) if isinstance(y, Tensor) and y.requires_grad]
        outputs = [everything[i] for i in self._places]
        if not outputs:
            self._places = [i for i, y in enumerate(everything) if isinstance(y, Tensor) and y.dtype.is_differentiable]
            for number, x in self.wanted:
                if any(np.abs(d).max(initial=0) > self.eps for d in self.differences(number, x, self._same_outputs(result))):
                    raise GradcheckError("Numerical gradient for function expected to be zero")
            return
        for j, y in enumerate(outputs):
            for number, x in self.wanted:
                if fast:
                    self._along_one_direction(j, y, number, x)
                else:
                    self._every_element(j, y, number, x, check_dtypes)

    def _every_element(self, j: int, y: Tensor, number: int, x: Tensor, check_dtypes: bool) -> None:
        numerical = self.differences(number, x, [y] * len(self._places))[j]
        analytical = self._jacobian(y, x, check_dtypes)
        again = self._jacobian(y, x, False)
        if not self._near(analytical, numerical):
            raise GradcheckError(f"Jacobian mismatch for output {j} with respect to input {number},\n"
                                 f"numerical:{numerical}\nanalytical:{analytical}\n")
        # functions that are called often come to run as native code, whose last bits may differ
        rounding = 64 * np.finfo(analytical.dtype).eps * np.abs(analytical).max(initial=0)
        if np.abs(analytical - again).max(initial=0) > self.nondet_tol + rounding:
            raise GradcheckError("Backward is not reentrant: a second pass with the same input and the same grad_output gave "
                                 f"other values, by more than nondet_tol={self.nondet_tol}; the first ones are right")

    def _jacobian(self, y: Tensor, x: Tensor, check_dtypes: bool) -> np.ndarray:
        """The derivative of y by the real numbers that x is made of, one column each, from backward passes.

        A gradient g of a real part stands for the derivatives Re g by the real part of x, and Im g by the imaginary one.
        """
        complex_x = x.dtype.is_complex
        rows = []
        for place in np.ndindex(*y.shape):
            parts = []
            for unit in (1, 1j) if y.dtype.is_complex else (1,):
                seed = np.zeros(tuple(y.shape), y.dtype.numpy)
                seed[place] = unit
                (g,) = grad(y, x, _tensor(seed), retain_graph=True, allow_unused=True)
                if g is None:
                    g = ops.zeros_like(x)
                if check_dtypes and g.dtype is not x.dtype:
                    raise GradcheckError("Backward has returned a gradient of another dtype", f"{g.dtype.name}, {x.dtype.name}")
                numbers = _numbers(g).reshape(-1)
                parts.append(np.stack([numbers.real, numbers.imag], 1).reshape(-1) if complex_x else numbers.real)
            rows.append(parts[0] if len(parts) == 1 else parts[0] + 1j * parts[1])
        return np.stack(rows) if rows else np.zeros((0, x.numel() * (1 + complex_x)))

    def _along_one_direction(self, j: int, y: Tensor, number: int, x: Tensor) -> None:
        rng = np.random.default_rng(j + number)
        array = _numbers(x)
        direction = rng.standard_normal(array.shape).astype(array.dtype)
        seed = rng.standard_normal(tuple(y.shape)).astype(y.dtype.numpy)
        slope = self.slope(number, array, direction)[j]
        numerical = np.sum(slope.conj() * seed.reshape(-1)).real
        (g,) = grad(y, x, _tensor(seed), retain_graph=True, allow_unused=True)
        analytical = 0.0 if g is None else np.sum(_numbers(g).conj() * direction).real
        if not self._near(np.asarray(analytical), np.asarray(numerical)):
            raise GradcheckError(f"Jacobian mismatch for output {j} with respect to input {number} along a random direction,\n"
                                 f"numerical:{numerical}\nanalytical:{analytical}\n\nThe above quantities are "
                                 "computed in fast mode: with fast_mode=False all elements are shown.")

    def undefined(self) -> None:
        """Gradients that are not there count as zeros."""
        outputs = self.outputs()
        wanted = [x for _, x in self.wanted]
        for missing in _subsets(len(outputs)):
            kept = [(y, ops.zeros_like(y)) for i, y in enumerate(outputs) if i not in missing]
            if not kept:
                continue
            found = grad([y for y, _ in kept], wanted, [ct for _, ct in kept], retain_graph=True, allow_unused=True)
            if any(g is not None and np.any(_numbers(g) != 0) for g in found):
                raise GradcheckError("Expected all input grads to be undefined or zero when all output grads are undefined or "
                                     "zero: backward has to take None, where no gradient came, for zeros")

    def batched(self) -> None:
        """A batch of cotangents gives what each of them gives."""
        wanted = [x for _, x in self.wanted]
        for j, y in enumerate(self.outputs()):
            seeds = np.random.default_rng(j).standard_normal((3, *y.shape)).astype(y.dtype.numpy)
            one_by_one = [grad(y, wanted, _tensor(seed), retain_graph=True, allow_unused=True) for seed in seeds]
            together = grad(y, wanted, _tensor(seeds), retain_graph=True, allow_unused=True, is_grads_batched=True)
            for k, (expected, found) in enumerate(zip(zip(*one_by_one), together)):
                if found is not None and not self._near(_numbers(found), np.stack([_numbers(g) for g in expected])):
                    raise GradcheckError(f"For output {j} and input {self.wanted[k][0]}: the batched gradient differs from "
                                         "those computed one by one")

    def forward(self, fast: bool) -> None:
        """Tangents against differences."""
        result = self.func(*self.inputs)
        everything = [result] if isinstance(result, Tensor) else list(result)
        self._places = [i for i, y in enumerate(everything) if isinstance(y, Tensor) and y.dtype.is_differentiable]
        for number, x in self.wanted:
            array = _numbers(x)
            for direction in self._directions(array, fast):
                with forward_ad.dual_level():
                    dual = forward_ad.make_dual(x.detach(), _tensor(direction))
                    found = self.func(*(dual if i == number else v for i, v in enumerate(self.inputs)))
                    tangents = [forward_ad.unpack_dual(y).tangent for y in self._same_outputs(found)]
                for j, (tangent, slope) in enumerate(zip(tangents, self.slope(number, array, direction))):
                    pushed = np.zeros_like(slope) if tangent is None else _numbers(tangent).reshape(-1)
                    if not self._near(pushed, slope):
                        raise GradcheckError(f"Jacobian computed with forward mode mismatch for output {j} with respect to "
                                             f"input {number},\nnumerical:{slope}\nanalytical:{pushed}\n")

    def _directions(self, array: np.ndarray, fast: bool) -> Iterator[np.ndarray]:
        if fast:
            yield np.random.default_rng(0).standard_normal(array.shape).astype(array.dtype)
            return
        for place, step in itertools.product(np.ndindex(array.shape), (1, 1j) if np.iscomplexobj(array) else (1,)):
            direction = np.zeros_like(array)
            direction[place] = step
            yield direction

    def _near(self, a: np.ndarray, b: np.ndarray) -> bool:
        return a.shape == b.shape and np.allclose(a, b, self.rtol, self.atol)


def _subsets(count: int) -> Iterator[tuple[int, ...]]:
    """Each output alone, and none."""
    yield ()
    if count > 1:
        for i in range(count):
            yield (i,)


def _numbers(x: Tensor) -> np.ndarray:
    return np.asarray(x.detach().numpy())


def _tensor(numbers: Any) -> Tensor:
    return wrap(np.asarray(numbers))
