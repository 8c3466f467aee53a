"""The level that vmap runs a function on: a tensor stands for a batch of them, of which the function sees one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.batching import apply_batched
from graphc.errors import AutogradError, GraphcError
from graphc.frontend import inplace
from graphc.frontend.autograd.function import Function, VmapInfo
from graphc.frontend.level import Inner, Key, Level
from graphc.frontend.tensor import Tensor, wrap
from graphc.op import OpDef
from graphc.ops.movement import stack_operand
from graphc.ops.random import blocks


class BatchLevel(Level):
    """One run of a function under vmap. The batch is dimension 0 of the tensors outside."""

    def __init__(self, size: Any, randomness: str, key: Key | None = None) -> None:
        super().__init__(key)
        self.size = size
        self.randomness = randomness

    def enter_batch(self, tensor: Tensor) -> Tensor:
        """The tensor inside that stands for the elements of one outside along its dimension 0."""
        return wrap(Inner(self.key, tensor, batched=True))

    def stacked(self, tensor: Tensor) -> Tensor:
        """The tensor outside with the whole batch as its dimension 0, also where all elements are the same."""
        value = self.value(tensor)
        outer = self.leave(tensor)
        with self.outside():
            return stack_operand(outer, self.size, value.batched)

    def is_batched(self, tensor: Any) -> bool:
        """Whether a tensor differs from one element of the batch to the other."""
        return isinstance(tensor, Tensor) and self.value(tensor).batched

    # What the front end asks

    def apply(self, record: OpDef, args: tuple[Any, ...], attrs: dict[str, Any]) -> Inner | tuple[Inner, ...]:
        batched = [self.is_batched(a) for a in args]
        operands = [self.leave(a) if isinstance(a, Tensor) else a for a in args]
        with self.outside():
            if record is ops.random_bits:
                found, several = self._draw(operands[0], batched[0], **attrs)
            else:
                several = any(batched)
                found = (apply_batched(record, self.size, operands, batched, attrs) if several
                         else record(*operands, like=Tensor, **attrs))
        if isinstance(found, tuple):
            return tuple(Inner(self.key, x, several, own=True) for x in found)
        return Inner(self.key, found, several, own=True)

    def _draw(self, state: Tensor, batched: bool, shape: tuple[Any, ...]) -> tuple[Tensor, bool]:
        """Random bits: the same for all elements of the batch, or a draw for each."""
        if self.randomness == "error":
            raise GraphcError("vmap: called random operation while in randomness error mode: it is to be said whether all "
                              "elements get the same numbers",
                              hint="vmap(f, randomness='different'), or 'same'; or draw the numbers outside of vmap")
        if batched:
            raise GraphcError("vmap: the state of a random generator differs from one element of the batch to the other",
                              hint="give each element numbers of its own by randomness='different'")
        if self.randomness == "same":
            return ops.random_bits(state, shape=shape), False
        words = ops.random_bits(state, shape=(self.size, *shape))
        # the caller will move the generator on by what one element takes
        more = blocks(self.size * math.prod(shape)) - blocks(math.prod(shape))
        inplace.assign(state, ops.add(state, np.array([0, more], np.int64)))
        return words, True

    def _write_outside(self, target: Inner, value: Inner) -> None:
        if value.batched and not target.batched:
            raise GraphcError(
                "vmap: inplace arithmetic on a tensor from outside is not possible with operands that differ from element to "
                "element of the batch: it has no room for them",
                hint="use the operation without the trailing underscore, or give each element a tensor of its own: clone() it")
        with self.outside():
            inplace.refuse(target.value)
            new = stack_operand(value.value, self.size, value.batched) if target.batched else value.value
            inplace.assign(target.value, new)

    def concrete(self, tensor: Tensor, what: str) -> Any:
        if not self.is_batched(tensor):
            return super().concrete(tensor, what)
        raise self._without_numbers(what)

    def decide(self, tensor: Tensor, kind: Any, what: str) -> Any:
        if not self.is_batched(tensor):
            return super().decide(tensor, kind, what)
        raise self._without_numbers(what)

    def number(self, tensor: Tensor) -> Any:
        if not self.is_batched(tensor):
            return super().number(tensor)
        raise self._without_numbers("item()")

    def _without_numbers(self, what: str) -> GraphcError:
        if what == "bool()":
            return GraphcError("vmap: data-dependent control flow: the elements of the batch may take different branches",
                               hint="choose with where(condition, a, b)")
        return GraphcError(f"vmap: .{what} of a tensor that stands for a batch: there is not one value, but {self.size}",
                           hint="use operations on tensors")

    def call_function(self, function: type[Function], args: Sequence[Any]) -> Any:
        batched = [self.is_batched(a) for a in args]
        operands = [self.leave(a) if isinstance(a, Tensor) else a for a in args]
        own_rule = function.vmap is not Function.vmap
        if not any(batched):
            with self.outside():
                result = function.apply(*operands)
            return self._results(result, None)
        if own_rule and function.generate_vmap_rule:
            raise AutogradError(f"vmap of {function.__name__}: it has both generate_vmap_rule=True and a vmap staticmethod",
                                hint="leave one of the two out")
        if own_rule:
            with self.outside():
                in_dims = tuple(0 if own else None for own in batched)
                result, out_dims = function.vmap(VmapInfo(self.size, self.randomness), in_dims, *operands)
            return self._results(result, out_dims)
        if not function.generate_vmap_rule:
            raise AutogradError(f"vmap of {function.__name__}: it does not have vmap support",
                                hint="set generate_vmap_rule = True, or define a static method vmap")
        with self.outside():
            whole = _whole(function, self, batched)
            result = whole.apply(*operands)
        outputs = result if isinstance(result, tuple) else (result,)
        flags = whole.flags
        inside = [wrap(Inner(self.key, o, own)) if isinstance(o, Tensor) else o for o, own in zip(outputs, flags)]
        return tuple(inside) if isinstance(result, tuple) else inside[0]

    def _results(self, result: Any, out_dims: Any) -> Any:
        """What a function outside returned, inside; out_dims say where the batch lies, None where there is none."""
        if isinstance(result, (tuple, list)):
            dims = out_dims if isinstance(out_dims, (tuple, list)) else [out_dims] * len(result)
            return type(result)(self._results(o, d) for o, d in zip(result, dims, strict=True))
        if not isinstance(result, Tensor):
            return result
        if out_dims is None:
            return self.enter(result)
        with self.outside():
            return self.enter_batch(to_front(result, out_dims))


def to_front(tensor: Tensor, dim: int) -> Tensor:
    """A dimension moved to the front."""
    at = ops.normalize_axis(dim, tensor.ndim)
    order = (at, *(i for i in range(tensor.ndim) if i != at))
    return tensor if at == 0 else ops.permute(tensor, order)


def from_front(tensor: Tensor, dim: int) -> Tensor:
    """The first dimension moved to another place."""
    at = ops.normalize_axis(dim, tensor.ndim)
    order = (*range(1, at + 1), 0, *range(at + 1, tensor.ndim))
    return tensor if at == 0 else ops.permute(tensor, order)


def _whole(function: type[Function], level: BatchLevel, batched: Sequence[bool]) -> Any:
    """The Function that does for a whole batch what `function` does for an element: both its halves run under vmap."""

    def inside(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
        return [wrap(Inner(level.key, x, own)) if isinstance(x, Tensor) else x for x, own in zip(values, flags)]

    def again() -> BatchLevel:
        return BatchLevel(level.size, level.randomness, level.key)

    class Whole(Function):
        flags: Sequence[bool] = ()
        """Which outputs have the batch."""

        @staticmethod
        def forward(*args: Any) -> Any:
            run = again()
            with run.entered():
                result = function.forward(*inside(args, batched))
                outputs = result if isinstance(result, tuple) else (result,)
                Whole.flags = [run.is_batched(o) for o in outputs]
            plain = tuple(run.leave(o) if isinstance(o, Tensor) else o for o in outputs)
            return plain if isinstance(result, tuple) else plain[0]

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            given, made = inside(inputs, batched), inside(outputs, Whole.flags)
            ctx.inner = inner = function._node_class((None,) * len(inputs))
            inner.needs_input_grad = ctx.needs_input_grad
            with again().entered():
                function.setup_context(inner, tuple(given), tuple(made) if isinstance(output, tuple) else made[0])
                inner._keep(())
            known = {id(t): outer for t, outer in zip((*given, *made), (*inputs, *outputs))}
            ctx.mark_non_differentiable(*(known[id(t)] for t in inner._non_differentiable))
            ctx.mark_dirty(*(known[id(t)] for t in inner._dirty))
            ctx.set_materialize_grads(inner.materialize_grads)

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            run = again()
            with run.entered():
                found = function.backward(ctx.inner, *inside(cotangents, Whole.flags))
                results = []
                for ct, own in zip(found if isinstance(found, tuple) else (found,), batched):
                    if not isinstance(ct, Tensor):
                        results.append(ct)
                        continue
                    # of what is the same for all elements, the gradient is the sum of theirs
                    whole = run.stacked(ct)
                    with run.outside():
                        results.append(whole if own else ops.sum(whole, (0,)))
            return tuple(results)

    Whole.__name__ = Whole.__qualname__ = function.__name__
    Whole._node_class.__name__ = f"{function.__name__}Backward"
    return Whole
