"""Recording primitive operations: what to save, and how a node turns its cotangent into those of the operands."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import Any, Protocol

import numpy as np

from graphc import ops
from graphc.errors import _INTERNAL, ArgumentTypeError, AutogradError, FreedGraphError, Location
from graphc.frontend.described import as_dtype
from graphc.frontend.hooks import saved_hooks
from graphc.frontend.modes import anomaly, mode, no_grad
from graphc.frontend.node import Edge, Node, edge_to, next_sequence, node_class
from graphc.frontend.tape_plan import Native, Plan, plan_for, planned
from graphc.frontend.tensor import Tensor, Version, View, wrap
from graphc.frontend.tracer import active
from graphc.op import OpDef, apply_joint
from graphc.specs import NodePlan
from graphc.types import TensorType, scalar_dtype

FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already been "
    "freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad()."
)
RETAIN = "specify retain_graph=True if you need to backward through the graph a second time"


def freed_error(name: str) -> FreedGraphError:
    """The error of using a node whose saved values are gone."""
    return FreedGraphError(FREED, hint=RETAIN, got=f"{name}, which has run already")


def node_plan(record: OpDef, wanted: tuple[int, ...], name: str | None = None) -> NodePlan | None:
    """What native code records of an op when gradients go to the `wanted` operands, as `name` if given; None where there are
    none to record."""
    plan = planned(record, wanted, OpNode)
    if not plan.rules:
        return None
    template = plan.template()
    if name is not None:
        template.__class__ = node_class(f"{name}Backward0", OpNode)
    return NodePlan(template, plan.saves, plan.saves_out)


def wants_only(record: OpDef, wanted: tuple[int, ...], kinds: tuple[str, ...]) -> bool:
    """Whether the rules of the wanted operands ask for nothing but what is of these kinds."""
    rules = planned(record, wanted, OpNode).rules.values()
    return all(kind in kinds for _, sources in rules for kind, _ in sources)


def keep(operand: Any) -> Any:
    """An operand for the backward pass: a number, a tensor that has never been changed in place as it is, or `Saved`."""
    if isinstance(operand, Tensor):
        meta = operand._meta
        if saved_hooks.stack or (meta is not None and (meta.version is not None or meta.inference)):
            return Saved(operand)
    return operand


class Keeper(Protocol):
    """What keeps tensors for the backward pass."""

    def name(self) -> str: ...


def unkeep(kept: Any, node: Keeper) -> Any:
    """What `keep` was given; an error if it was changed in place since."""
    if type(kept) is Saved:
        return kept.unpack(node)
    if isinstance(kept, Tensor) and kept._meta is not None and kept._version:
        raise modified_error(node, kept, kept._version, 0)
    return kept


class Saved:
    """A tensor kept for the backward pass, with the version that it had; or what a hook made of it."""

    __slots__ = ("count", "edge", "tensor", "unpack_hook", "version")

    def __init__(self, tensor: Tensor) -> None:
        meta = tensor._meta
        self.tensor = tensor
        self.version: Version | None = None
        self.count = 0
        if meta is not None:
            if meta.inference and not mode.inference:
                raise AutogradError(
                    "Inference tensors cannot be saved for backward",
                    hint="to work around, make a clone of it to get a normal tensor, or use no_grad() instead of "
                         "inference_mode()")
            if meta.version is not None:
                self.version, self.count = meta.version, meta.version.count
        self.unpack_hook: Any = None
        if saved_hooks.stack:
            pack, self.unpack_hook = saved_hooks.stack[-1]
            self.edge = edge_to(tensor)
            self.tensor = _packed(tensor, pack)

    def unpack(self, node: Keeper) -> Tensor:
        """The tensor; an error if it was changed in place since."""
        if self.unpack_hook is not None:
            return _unpacked(self.tensor, self.unpack_hook, self.edge)
        now = self.tensor._version if self.version is None else self.version.count
        if now != self.count:
            raise modified_error(node, self.tensor, now, self.count)
        return self.tensor


def _packed(tensor: Tensor, pack: Any) -> Any:
    """What a hook makes of a tensor that is saved."""
    before = tensor._version
    with no_hooks(), no_grad():
        made = pack(tensor)
    if tensor._version != before:
        raise AutogradError("A saved tensor pack hook is modifying its input in place. Tensors provided as input to pack hook "
                            "cannot be modified by in-place operations as this can lead to unexpected side-effects.",
                            hint="change a clone() of it, and return that")
    return made


def _unpacked(packed: Any, unpack: Any, edge: Edge) -> Tensor:
    """The tensor again, out of what the hook made of it, with the history that it had."""
    tensor = unpack(packed)
    if not isinstance(tensor, Tensor):
        raise ArgumentTypeError("Output of saved tensor unpack_hook expected to be a Tensor but got result of type "
                                f"{type(tensor).__name__}")
    if edge is None or not mode.grad:
        return tensor
    known = wrap(tensor._data)
    target, index = edge
    if isinstance(target, Node):
        known._node, known._state().index = target, index
    else:
        known._node = AliasNode((edge,))
    return known


@contextmanager
def no_hooks() -> Iterator[None]:
    """What runs inside saves its tensors as they are: a hook is no business of another hook's."""
    before, saved_hooks.stack = saved_hooks.stack, ()
    try:
        yield
    finally:
        saved_hooks.stack = before


def modified_error(node: Keeper, tensor: Tensor, now: int, expected: int) -> AutogradError:
    """The error of a saved tensor that was changed in place."""
    where = node.location() if isinstance(node, OpNode) else None
    return AutogradError(
        "one of the variables needed for gradient computation has been modified by an inplace operation: "
        f"[{tensor.dtype.name} {list(tensor.shape)}], which {node.name()} saved",
        expected=f"version {expected}", got=f"the tensor is at version {now}",
        hint="change a clone() of it, or write the operation without the trailing underscore"
             + (f"; it was saved at {where}" if where else ""))


class OpNode(Node):
    """A recorded primitive. Keeps the operands, shapes and attributes that its VJP rules ask for, and nothing else."""

    __slots__ = ("_code", "_last", "attrs", "out", "plan", "saved", "types")

    def __init__(
        self, plan: Plan, edges: tuple[Edge, ...], args: tuple[Any, ...], attrs: Mapping[str, Any], out: Any,
        alike: bool = False,
    ) -> None:
        """`alike`: all operands are tensors of the result's type."""
        # what Node.__init__ does: one call less
        self.edges = edges
        self.watched = False
        self.sequence = next_sequence()
        if anomaly.enabled:
            self.note_traceback()
        self.plan = plan
        self.attrs = attrs
        self.types = None if alike else [
            (arg._data.shape, arg._data.dtype) if isinstance(arg, Tensor) else _described(arg) for arg in args
        ]
        self.saved: list[Any] | None = None
        self.out: Any = None
        self._code: CodeType | None = None
        if plan.saves:
            self.saved = [keep(args[i]) for i in plan.saves]
            self._code, self._last = _user_code()
        if plan.saves_out:
            self.out = self._kept(out)
            if self._code is None:
                self._code, self._last = _user_code()

    @property
    def record(self) -> OpDef:
        return self.plan.record

    def _kept(self, out: Any) -> Any:
        # the tensor itself would be a reference to this node: only what it holds is kept, and its version
        return Saved(wrap(out._data)) if saved_hooks.stack else out._data, out._version_counter()

    def _result(self, data: Any, version: Version) -> Tensor:
        """The result, made again of what was kept of it."""
        if type(data) is Saved:
            out = wrap(data.unpack(self)._data)
            out._node = self
            return out
        out = wrap(data)
        if version.count:
            raise modified_error(self, out, version.count, 0)
        if mode.grad or active() is not None:
            out._node = self
            out._state().version = version
        return out

    def _given(self, cotangents: list[Any]) -> tuple[Any, Any]:
        """What the rules know as `ct` and as `out`."""
        return cotangents[0], None if self.out is None else self._result(*self.out)

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        plan = self.plan
        if (plan.saves and self.saved is None) or (plan.saves_out and self.out is None):  # `is_freed`: one call less
            raise freed_error(self.name())
        ct, out = (cotangents[0], None) if self.out is None and self.outputs == 1 else self._given(cotangents)
        types = self.types
        # once, however many rules ask for it: hooks are told of each time
        operands = None if self.saved is None else [
            unkeep(kept, self) if type(kept) is Saved or isinstance(kept, Tensor) else kept for kept in self.saved
        ]
        results: list[Any] = [None] * len(self.edges)
        for i, rule, given, place in plan.steps:
            if given == "ct":
                result = rule(ct)
            elif given == "operand":
                result = rule(ct, operands[place])  # type: ignore[index]
            elif given == "out":
                result = rule(ct, out)
            else:
                if types is None:
                    types = [(ct._data.shape, ct._data.dtype)] * len(self.edges)
                result = rule(*self._arguments(plan.rules[i][1], i, ct, operands, out, types))
            if types is not None:
                if result is not None:
                    data, type_ = result._data, types[i]
                    shape, wanted = data.shape, type_[0]  # symbols are compared only where there are as many
                    if len(shape) != len(wanted) or shape != wanted or data.dtype is not type_[1]:
                        result = match(result, *type_)
            elif result is not ct and result is not None:
                data, own = result._data, ct._data
                if data.shape != own.shape or data.dtype is not own.dtype:
                    result = match(result, own.shape, own.dtype)
            results[i] = result
        return results

    def _arguments(
        self, sources: tuple[tuple[str, Any], ...], i: int, ct: Any, operands: Any, out: Any, types: list[Any]
    ) -> list[Any]:
        """What the rule of operand i is given."""
        plan = self.plan
        arguments: list[Any] = []
        for kind, key in sources:
            if kind == "ct":
                arguments.append(ct)
            elif kind == "operand":
                arguments.append(operands[plan.saves.index(key)])
            elif kind == "out":
                arguments.append(out)
            elif kind == "attribute":
                arguments.append(self.attrs[key])
            elif kind == "type":
                arguments.append(_tensor_type(types[key]))
            elif kind == "attrs":
                arguments.append(self.attrs)
            elif kind == "types":
                arguments.append(tuple(map(_tensor_type, types)))
            else:
                arguments.append(i)
        return arguments

    def free(self) -> None:
        self.saved = self.out = None

    @property
    def is_freed(self) -> bool:
        return (bool(self.plan.saves) and self.saved is None) or (self.plan.saves_out and self.out is None)

    def location(self) -> Location | None:
        """The user's line that made this node, as far as it is known."""
        if self._code is None:
            return None
        line = next((line for start, stop, line in self._code.co_lines() if start <= self._last < stop and line), 0)
        return Location(self._code.co_filename, line, self._code.co_name)

    def __getattr__(self, name: str) -> Any:
        # grad_fn._saved_self and the like: what was saved, by the operand's name
        if name.startswith("_saved_"):
            wanted = name.removeprefix("_saved_")
            if wanted == "result" and self.plan.saves_out:
                if self.out is None:
                    raise freed_error(self.name())
                return self.out[0].unpack(self) if type(self.out[0]) is Saved else wrap(self.out[0])
            if wanted in self.record.attrs:
                return self.attrs[wanted]
            names = [f"_saved_{operand}" for operand in self.record.operands]
            if names and wanted in ("self", "other"):
                name = names[("self", "other").index(wanted)] if len(names) > 1 or wanted == "self" else name
            if name in names and names.index(name) in self.plan.saves:
                if self.saved is None:
                    raise freed_error(self.name())
                return unkeep(self.saved[self.plan.saves.index(names.index(name))], self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class SeveralNode(OpNode):
    """A recorded primitive that has several results."""

    __slots__ = ("outputs",)

    def _kept(self, out: Any) -> Any:
        return [OpNode._kept(self, result) for result in out]

    def _given(self, cotangents: list[Any]) -> tuple[Any, Any]:
        results = None
        if self.out is not None:
            results = tuple(self._result(*kept) for kept in self.out)
            for index, result in enumerate(results):
                result._state().index = index
        return tuple(cotangents), results


class JointNode(SeveralNode):
    """A recorded primitive whose rule gives the cotangents of all operands at once."""

    __slots__ = ("kept",)

    def __init__(self, plan: Plan, edges: tuple[Edge, ...], args: tuple[Any, ...], attrs: Mapping[str, Any], out: Any) -> None:
        SeveralNode.__init__(self, plan, edges, args, attrs, out)
        self.kept: list[Any] | None = list(map(keep, args))

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        if self.kept is None:
            raise freed_error(self.name())
        rule = self.record.joint_vjp
        assert rule is not None and self.types is not None
        ct, out = self._given(cotangents)
        wanted = tuple(i for i in self.plan.rules if self.edges[i] is not None)
        operands = [unkeep(kept, self) for kept in self.kept]
        results: list[Any] = [None] * len(self.edges)
        for i, given in zip(wanted, apply_joint(rule, ct, operands, out or (), wanted, self.attrs)):
            results[i] = match(given, *self.types[i])
        return results

    def free(self) -> None:
        self.kept = self.out = None

    @property
    def is_freed(self) -> bool:
        return self.kept is None


class CompiledNode(Node):
    """A recorded call of a compiled graph, as native code knows it."""

    __slots__ = ("how", "kept", "outputs", "saved", "versions")

    how: Native
    kept: list[np.ndarray] | None
    """Some of the outputs."""
    saved: list[Any] | None
    """The inputs."""
    versions: list[tuple[int, Version]]
    """Of results among what is kept, by their numbers."""


class AliasNode(Node):
    """The same tensor once more."""

    __slots__ = ()

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        return cotangents


class ZeroNode(Node):
    """The result does not vary with the inputs, though it was computed from them: their gradients are zeros."""

    __slots__ = ("types",)

    def __init__(self, inputs: Sequence[Any]) -> None:
        Node.__init__(self, tuple(edge_to(x) if isinstance(x, Tensor) else None for x in inputs))
        self.types = [_described(x) for x in inputs]

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        return [None if edge is None else ops.full(_tensor_type(described), 0, like=cotangents[0])
                for edge, described in zip(self.edges, self.types)]


class CopySlices(Node):
    """A tensor was changed in place through one of its views: the view's part of the gradient goes to the new part."""

    __slots__ = ("view",)

    def __init__(self, view: View, base: Edge, new: Edge) -> None:
        Node.__init__(self, (base, new))
        self.view = view

    def apply(self, cotangents: list[Any]) -> Sequence[Any]:
        (ct,) = cotangents
        part = self.view.read(ct)
        rest = None if self.edges[0] is None else self.view.write(ct, ops.zeros_like(part))
        return [rest, part]


def _described(arg: Any) -> tuple[Any, Any]:
    """Shape and dtype of an operand."""
    if isinstance(arg, Tensor):
        return arg._data.shape, arg._data.dtype
    return np.shape(arg), arg.dtype if isinstance(arg, (np.ndarray, np.generic)) else scalar_dtype(arg)


def _tensor_type(described: tuple[Any, Any]) -> TensorType:
    shape, dtype = described
    return TensorType(as_dtype(dtype), shape)


def match(ct: Any, shape: Any, dtype: Any) -> Any:
    """Bring a cotangent to the type of its operand: sum over what was broadcast, cast back what was promoted."""
    if ct is None:
        return None
    own = ct._data.shape
    if len(own) != len(shape) or own != shape:
        ct = ops.unbroadcast(ct, shape)
    return ct if ct._data.dtype == dtype or ct.dtype is as_dtype(dtype) else ops.cast(ct, dtype=as_dtype(dtype))


_MOST_CODE = 1 << 12
own_code: dict[int, tuple[bool, CodeType]] = {}
"""Whether code belongs to the package, for what has been met on the way to the user's; by address, since the hash of code
takes long."""


def _user_code() -> tuple[CodeType, int]:
    """The code object and instruction of the innermost frame outside the package: a line is made of them if need be."""
    frame: Any = sys._getframe(2)
    while True:
        code = frame.f_code
        known = own_code.get(id(code))
        if known is None:
            if len(own_code) > _MOST_CODE:
                own_code.clear()
            known = own_code[id(code)] = code.co_filename.startswith(_INTERNAL), code
        if not known[0] or frame.f_back is None:
            return code, frame.f_lasti
        frame = frame.f_back


def record_op(record: OpDef, args: tuple[Any, ...], attrs: Mapping[str, Any], out: Tensor, alike: bool = False) -> None:
    """Put an operation on the tape: `out` becomes differentiable in the operands that require grad.

    The caller has seen that grad mode is on and that `out` is of a floating-point dtype, and leaves `attrs` as they are. If
    `alike`, all operands are tensors of the type of `out`.
    """
    edges = tuple([edge_to(arg) if isinstance(arg, Tensor) else None for arg in args])
    for edge in edges:
        if edge is not None:
            plan = plan_for(record, edges, OpNode)
            if plan.rules:
                out._node = plan.cls(plan, edges, args, attrs, out, alike)
            return


def record_several(record: OpDef, args: tuple[Any, ...], attrs: Mapping[str, Any], outs: tuple[Tensor, ...]) -> None:
    """`record_op` for an op with several results."""
    edges = tuple([edge_to(arg) if isinstance(arg, Tensor) else None for arg in args])
    plan = plan_for(record, edges, SeveralNode if record.joint_vjp is None else JointNode)
    if not plan.rules or not any(out.dtype.is_differentiable for out in outs):
        return
    node = plan.cls(plan, edges, args, attrs, outs)
    node.outputs = len(outs)  # type: ignore[misc]
    for index, out in enumerate(outs):
        if out.dtype.is_differentiable:
            out._node = node
            out._state().index = index


def without_slope(result: Tensor, inputs: Sequence[Any], name: str) -> Tensor:
    """A result whose gradient is zero wherever it has one, in the graph as PyTorch has it."""
    if mode.grad and result.dtype.is_differentiable and any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
        result._node = node_class(f"{name}Backward0", ZeroNode)(inputs)
    return result


def named(result: Tensor, name: str) -> Tensor:
    """Give the node that made `result` the name of the public function that was called: `grad_fn=<MeanBackward0>`."""
    node = result._node
    if node is not None:
        base: Any = type(node).__base__
        if isinstance(node, OpNode) or (isinstance(node, CompiledNode) and base.__base__ is CompiledNode):
            node.__class__ = node_class(f"{name}Backward0", base)
    return result
