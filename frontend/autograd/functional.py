"""Jacobians, Hessians, and their products with vectors, of functions of tensors.

`graphc.func` does the same by transforming the function, and nests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentTypeError, AutogradError
from graphc.frontend.autograd.derivatives import grad
from graphc.frontend.joining import stack
from graphc.frontend.modes import enable_grad, is_grad_enabled, set_grad_enabled
from graphc.frontend.movement import reshape, view_as
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.triangles import eye
from graphc.types import TensorType

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Given = Any
"""A tensor, or a tuple of tensors."""


def vjp(
    func: Callable[..., Any], inputs: Given, v: Given = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value of `func`, and the product of the vector `v`, of the value's shape, with its Jacobian.

    create_graph
        Let results be differentiable.
    strict
        An output that does not depend on the inputs, or an input that no output depends on, is an error instead of zeros.
    """
    run = _Run("vjp", func, inputs, create_graph, strict)
    cotangents = run.vector(v, run.outputs, "the user-provided function returns a single Tensor with a single element")
    found = run.pull(run.outputs, cotangents, run.inputs, create_graph)
    return run.like_outputs(run.values()), run.like_inputs(run.filled(found, run.inputs, "back"))


def jvp(
    func: Callable[..., Any], inputs: Given, v: Given = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value of `func`, and the product of its Jacobian with the vector `v`, of the inputs' shape."""
    run = _Run("jvp", func, inputs, create_graph, strict)
    tangents = run.vector(v, run.inputs, "the input to the user-provided function is a single Tensor with a single element")
    found = run.push(run.outputs, tangents)
    return run.like_outputs(run.values()), run.like_outputs(run.filled(found, run.outputs, "forward"))


def jacobian(
    func: Callable[..., Any],
    inputs: Given,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of `func`: for a result of shape [*m] and an input of shape [*n] a tensor of shape [*m, *n].

    For several inputs, a tuple of one for each; for several results, a tuple of these.

    vectorize
        All rows at once, as by vmap.
    strategy
        "reverse-mode" for rows, or "forward-mode" for columns, which has to be vectorized.
    """
    if strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError(f'jacobian: strategy={strategy!r}; it is "forward-mode", which suits functions of few inputs, or '
                             '"reverse-mode", which suits those of few outputs')
    if strategy == "forward-mode" and not vectorize:
        raise NotImplementedError("jacobian: forward-mode takes all columns at once: it needs vectorize=True")
    if strict and vectorize:
        raise AutogradError("jacobian: strict=True looks at one row after the other, vectorize=True at all at once",
                            hint="leave one of the two out")
    if strict and strategy == "forward-mode":
        raise AutogradError('jacobian: strict=True goes with strategy="reverse-mode" alone')
    run = _Run("jacobian", func, inputs, create_graph, strict)
    rows = []
    for i, y in enumerate(run.outputs):
        if strategy == "forward-mode":
            blocks = run.columns(i, y)
        else:
            blocks = run.rows(i, y, vectorize)
        rows.append(run.like_inputs(blocks))
    return run.like_outputs(rows)


def hessian(
    func: Callable[..., Any],
    inputs: Given,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of `func`, which returns one number: for an input of shape [*n] a tensor of shape [*n, *n].

    For several inputs, a tuple of tuples, one for each pair of them.
    """
    alone = not isinstance(inputs, tuple)

    def gradient(*args: Tensor) -> Any:
        found = jacobian(_checked("hessian", func), args[0] if alone else args, create_graph=True, strict=strict)
        return found

    return jacobian(gradient, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)


def vhp(
    func: Callable[..., Any], inputs: Given, v: Given = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value of `func`, which returns one number, and the product of the vector `v` with its Hessian."""
    run = _Run("vhp", _checked("vhp", func), inputs, create_graph, strict, twice=True)
    vector = run.vector(v, run.inputs, "the input to the user-provided function is a single Tensor with a single element")
    gradient = run.filled(run.pull(run.outputs, [None], run.inputs, True), run.inputs, "back", final=False)
    found = run.pull(gradient, vector, run.inputs, create_graph)
    return run.like_outputs(run.values()), run.like_inputs(run.filled(found, run.inputs, "double_back"))


def hvp(
    func: Callable[..., Any], inputs: Given, v: Given = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The value of `func`, which returns one number, and the product of its Hessian with the vector `v`."""
    run = _Run("hvp", _checked("hvp", func), inputs, create_graph, strict, twice=True)
    vector = run.vector(v, run.inputs, "the input to the user-provided function is a single Tensor with a single element")
    gradient = run.filled(run.pull(run.outputs, [None], run.inputs, True), run.inputs, "back", final=False)
    found = run.push(gradient, vector)
    return run.like_outputs(run.values()), run.like_inputs(run.filled(found, run.inputs, "double_back"))


class _Run:
    """One run of a function on inputs of its own, recorded."""

    def __init__(
        self, name: str, func: Callable[..., Any], inputs: Given, create_graph: bool, strict: bool, twice: bool = False
    ) -> None:
        given, self.alone = _tensors(inputs, f"inputs given to {name}", "inputs")
        self.name, self.create_graph, self.strict = name, create_graph, strict
        with enable_grad():
            # with create_graph, the results depend on the inputs as they were given
            self.inputs = [view_as(x, x) if create_graph else x.detach().requires_grad_() for x in given]
            for x in self.inputs:
                if not x.requires_grad:
                    x.requires_grad_()
            result = func(*self.inputs)
        what = "outputs of the user-provided function"
        self.outputs, self.single = _tensors(result, f"{what} given to {name}", what)
        if strict:
            for i, y in enumerate(self.outputs):
                if not y.requires_grad:
                    raise AutogradError(f"Output {i} of the user-provided function does not require gradients: in strict mode "
                                        "it has to depend on the inputs")

    def values(self) -> list[Tensor]:
        """The outputs as results."""
        return [y if self.create_graph else y.detach() for y in self.outputs]

    def like_inputs(self, found: Sequence[Any]) -> Any:
        return found[0] if self.alone else tuple(found)

    def like_outputs(self, found: Sequence[Any]) -> Any:
        return found[0] if self.single else tuple(found)

    def vector(self, v: Given, against: Sequence[Tensor], otherwise: str) -> list[Any]:
        """The vector of a product, of the shapes of `against`."""
        if v is None:
            if len(against) != 1 or against[0].numel() != 1:
                raise AutogradError(f"The vector v can only be None if {otherwise}.")
            return [ops.full(TensorType(against[0].dtype, tuple(against[0].shape)), 1, like=against[0])]
        found, _ = _tensors(v, f"v given to {self.name}", "v")
        if len(found) != len(against):
            raise AutogradError(f"v is a tuple of invalid length: should be {len(against)} but got {len(found)}.")
        for i, (x, y) in enumerate(zip(found, against)):
            if x.shape != y.shape:
                entry = f"Entry {i} in " if len(against) > 1 else ""
                raise AutogradError(f"{entry}v has invalid size: should be {y.shape} but got {x.shape}.")
        return found

    def pull(
        self, outputs: Sequence[Tensor], cotangents: Sequence[Any], inputs: Sequence[Tensor], create_graph: bool
    ) -> list[Any]:
        """Cotangents of the inputs, None where there is none."""
        pairs = [(y, ct) for y, ct in zip(outputs, cotangents) if y.requires_grad]
        if not pairs:
            return [None] * len(inputs)
        with set_grad_enabled(create_graph or is_grad_enabled()):
            return list(grad([y for y, _ in pairs], inputs, [ct for _, ct in pairs], retain_graph=True,
                             create_graph=create_graph, allow_unused=True))

    def push(self, outputs: Sequence[Tensor], tangents: Sequence[Tensor]) -> list[Any]:
        """Tangents of the outputs: the vector-Jacobian product is linear, and pulled back once more it pushes forward."""
        with enable_grad():
            seeds = [ops.zeros_like(y).requires_grad_() for y in outputs]
            pulled = self.pull(outputs, seeds, self.inputs, True)
        pairs = [(g, t) for g, t in zip(pulled, tangents) if g is not None]
        return self.pull([g for g, _ in pairs], [t for _, t in pairs], seeds, self.create_graph)

    def filled(self, found: Sequence[Any], like: Sequence[Tensor], stage: str, final: bool = True) -> list[Tensor]:
        """Zeros where there is no gradient; an error in strict mode."""
        results = []
        for i, (g, x) in enumerate(zip(found, like)):
            if self.strict and g is None:
                raise AutogradError(
                    f"The output of the user-provided function is independent of input {i}, which strict mode refuses"
                    if stage != "double_back" else
                    f"The hessian of the user-provided function with respect to input {i} is independent of the input, which "
                    "strict mode refuses where it is to be differentiated again")
            g = ops.zeros_like(x) if g is None else g
            results.append(g.detach() if final and not self.create_graph else g)
        return results

    def rows(self, i: int, y: Tensor, vectorize: bool) -> list[Tensor]:
        """The Jacobian of output i by each input, row by row."""
        count = y.numel()
        basis = reshape(eye(count, dtype=y.dtype), (count, *y.shape))
        if vectorize and count and y.requires_grad:
            with set_grad_enabled(True):
                found: Sequence[Any] = grad([y], self.inputs, [basis], retain_graph=True, create_graph=self.create_graph,
                                            allow_unused=True, is_grads_batched=True)
            blocks = [ops.full(TensorType(x.dtype, (count, *x.shape)), 0, like=x) if g is None else g
                      for g, x in zip(found, self.inputs)]
        else:
            columns: list[list[Tensor]] = [[] for _ in self.inputs]
            for j in range(count):
                pulled = self.pull([y], [basis[j]], self.inputs, self.create_graph)
                self._check_row(i, pulled)
                for column, g, x in zip(columns, pulled, self.inputs):
                    column.append(ops.zeros_like(x) if g is None else g)
            blocks = [stack(c) if c else ops.full(TensorType(x.dtype, (0, *x.shape)), 0, like=x)
                      for c, x in zip(columns, self.inputs)]
        return self._shaped(blocks, y)

    def _check_row(self, i: int, pulled: Sequence[Any]) -> None:
        if not self.strict:
            return
        for k, g in enumerate(pulled):
            if g is None:
                raise AutogradError(f"Output {i} of the user-provided function is independent of input {k}, which strict mode "
                                    "refuses")
            if self.create_graph and not g.requires_grad:
                raise AutogradError(f"The jacobian of the user-provided function is independent of input {k}, which strict "
                                    "mode refuses with create_graph=True")

    def columns(self, i: int, y: Tensor) -> list[Tensor]:
        """The Jacobian of output i by each input, all columns at once."""
        blocks = []
        with enable_grad():
            seed = ops.zeros_like(y).requires_grad_()
            pulled = self.pull([y], [seed], self.inputs, True)
        for g, x in zip(pulled, self.inputs):
            count = x.numel()
            if g is None or not g.requires_grad or not count:
                blocks.append(ops.full(TensorType(y.dtype, (*y.shape, *x.shape)), 0, like=y))
                continue
            basis = reshape(eye(count, dtype=x.dtype), (count, *x.shape))
            with enable_grad():
                (pushed,) = grad([g], [seed], [basis], retain_graph=True, create_graph=self.create_graph, is_grads_batched=True)
            order = (*range(1, pushed.ndim), 0)
            blocks.append(reshape(ops.permute(pushed, order), (*y.shape, *x.shape)))
        return blocks if self.create_graph else [b.detach() for b in blocks]

    def _shaped(self, blocks: Sequence[Tensor], y: Tensor) -> list[Tensor]:
        shaped = [reshape(b, (*y.shape, *x.shape)) for b, x in zip(blocks, self.inputs)]
        return shaped if self.create_graph else [wrap(b.detach()._data) for b in shaped]


def _tensors(given: Given, where: str, what: str) -> tuple[list[Tensor], bool]:
    """The tensors of a tuple, and whether it was one alone."""
    if isinstance(given, Tensor):
        return [given], True
    if not isinstance(given, tuple):
        raise ArgumentTypeError(f"The {where} must be either a Tensor or a tuple of Tensors but the given {what} has type "
                                f"{type(given)}.")
    for i, x in enumerate(given):
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(f"The {where} must be either a Tensor or a tuple of Tensors but the value at index {i} has "
                                    f"type {type(x)}.")
    return list(given), False


def _checked(name: str, func: Callable[..., Any]) -> Callable[..., Tensor]:
    """The function, which has to return one number."""

    def one(*args: Tensor) -> Tensor:
        result = func(*args)
        if not isinstance(result, Tensor):
            raise AutogradError(f"The function given to {name} should return a single Tensor")
        if result.numel() != 1:
            raise AutogradError(f"The Tensor returned by the function given to {name} should contain a single element")
        return reshape(result, ())

    return one
