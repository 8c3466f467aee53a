"""What the names of a model stand for while its graph is made: values of the graph, or numbers that are known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

import graphc.ops as ops
from graphc.dims import Dim
from graphc.interpret import interpret
from graphc.ir import Builder, Graph, Value, copy_node
from graphc.onnx_format.reader.limits import BadModel, NeedsContent
from graphc.types import DType, TensorType


@dataclass(frozen=True, eq=False)
class Known:
    """Numbers that are known while the model is read: an array, or an array of objects with symbolic sizes among them."""

    array: np.ndarray
    dtype: DType
    weight: str | None = None
    """The name of the weight that they are, which stays one where it is computed with."""

    @property
    def is_symbolic(self) -> bool:
        return self.array.dtype == object

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, self.array.shape)


Operand: TypeAlias = Value | Known


def known(array: Any, dtype: DType) -> Known:
    """Numbers, symbolic sizes kept as such."""
    array = np.asarray(array)
    if array.dtype == object and not any(isinstance(x, Dim) for x in array.flat):
        array = array.astype(dtype.numpy)
    return Known(array if array.dtype == object else array.astype(dtype.numpy, copy=False), dtype)


class Weights:
    """The weights that a graph takes as inputs."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.inputs: dict[str, Value] = {}

    def input(self, builder: Builder, constant: Known, kind: str) -> Value:
        """The input for a weight, a "param" or a "buffer"."""
        name = str(constant.weight)
        if name not in self.inputs:
            self.arrays[name] = constant.array
            self.inputs[name] = builder.input(self.input_name(builder, name), constant.type, **{kind: name})
        return self.inputs[name]

    @staticmethod
    def input_name(builder: Builder, name: str) -> str:
        taken = {value.name for value in builder.inputs}
        return free_name(identifier(name), taken)


def identifier(name: str) -> str:
    """The name, with underscores for what a name in a graph's text cannot hold."""
    cleaned = re.sub(r"[^\w.]", "_", name, flags=re.ASCII)
    return cleaned if re.match(r"[A-Za-z_]", cleaned) else f"_{cleaned}"


def free_name(name: str, taken: set[Any]) -> str:
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


class Scope:
    """The names of one graph. What an inner graph takes from outside becomes an input of it."""

    def __init__(self, builder: Builder, weights: Weights, outer: Scope | None = None, level: int = 0) -> None:
        self.builder = builder
        self.weights = weights
        self.outer = outer
        self.level = level
        self.names: dict[str, Operand] = {}
        self.captured: dict[str, Value] = {}
        """Inputs for what is taken from outside, by name, in order."""
        self.absent: set[str] = set()
        """Names of a function's operands that a call has not given."""
        self._constants: dict[Known, Value] = {}

    def find(self, name: str) -> Operand | None:
        """What a name stands for, here."""
        found = self.names.get(name)
        if found is not None or self.outer is None:
            return found
        found = self.outer.find(name)
        if isinstance(found, Known) and found.weight is None:
            return found
        if found is None:
            return None
        if isinstance(found, Known) and not found.is_symbolic:
            found = self.outer.value(found)
        assert isinstance(found, Value)
        self.captured[name] = self.names[name] = self.builder.input(None, found.type)
        return self.names[name]

    def value(self, operand: Operand, kind: str = "param") -> Value:
        """An operand as a value of this graph."""
        if isinstance(operand, Value):
            return operand
        if operand.weight is not None and self.outer is None:
            return self.weights.input(self.builder, operand, kind)
        if operand not in self._constants:
            made = self._symbolic(operand) if operand.is_symbolic else self.builder.constant(operand.array, operand.dtype)
            self._constants[operand] = made
        return self._constants[operand]

    def branch(self) -> Scope:
        """For a graph whose nodes are put among those of this one: what it defines is not seen outside of it."""
        made = Scope(self.builder, self.weights, self.outer, self.level + 1)
        made.names, made.captured = dict(self.names), self.captured
        return made

    def _symbolic(self, operand: Known) -> Value:
        """Sizes as numbers to compute with."""
        array = operand.array
        parts = [ops.reshape(self.builder.constant(x, operand.dtype), (1,)) for x in array.flat]
        joined = parts[0] if len(parts) == 1 else ops.concat(*parts, axis=0)
        return ops.reshape(joined, array.shape) if array.shape != (1,) else joined

    def content(self, operand: Operand) -> np.ndarray | None:
        """The numbers of an operand, if they are known: those of a value that is made of constants and weights are computed."""
        if isinstance(operand, Known):
            return operand.array
        graph = self._made_of(operand)
        if graph is None:
            return None
        arrays = [self.weights.arrays[str(next(iter(value.info.values())))] for value in graph.inputs]
        (result,) = interpret(graph, arrays)
        return result

    def _made_of(self, value: Value) -> Graph | None:
        """The nodes that a value is made of, as a graph of weights; None where it depends on anything else."""
        weights = {id(v) for v in self.weights.inputs.values()}
        needed, order, pending = {value}, [], [value]
        while pending:
            current = pending.pop()
            if current.node is None:
                if id(current) not in weights:
                    return None
                continue
            if current.node.op.name == "random_bits" or not current.type.is_static:
                return None
            for operand in current.node.operands:
                if operand not in needed:
                    needed.add(operand)
                    pending.append(operand)
        builder = Builder("content", locations=False)
        new: dict[Value, Value] = {}
        for own in self.weights.inputs.values():
            if own in needed:
                new[own] = builder.input(own.name, own.type, **own.info)
        for node in self.builder.nodes:
            if any(result in needed for result in node.results):
                order.append(node)
                new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
        return builder.finish([new[value]])


def needs(name: str, why: str) -> NeedsContent:
    """The error for a value whose numbers are not known."""
    return NeedsContent(frozenset((name,)), why)


def missing(name: str) -> BadModel:
    """The error for a name that stands for nothing."""
    return BadModel(f"{name!r} is used, and nothing is called so",
                    hint="the nodes are not in order, the graph is cyclic, or an input is missing")
