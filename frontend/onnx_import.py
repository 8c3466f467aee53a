"""`graphc.onnx.load`: ONNX models as modules."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from graphc.bind import bind_graph, bind_sizes, solve, substitute
from graphc.errors import ArgumentTypeError
from graphc.frontend.graph_call import apply_graph
from graphc.frontend.modes import no_grad
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import active
from graphc.ir import Graph, inline
from graphc.onnx_format import Limits, OnnxModel, read_onnx
from graphc.package.entry import weight_name
from graphc.runtime import Program


class ImportedModel(Module):
    """An ONNX model as a module: called with tensors, trained, compiled and exported as any other one.

    Floating-point weights are parameters under their names in the model, with underscores for dots; running means and variances
    are buffers. Called with arrays, it gives arrays, and nothing is differentiated. One result is given as it is, several as a
    tuple.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = graphc.onnx.export(nn.Linear(2, 1), (graphc.zeros(5, 2),), f"{folder}/model.onnx")
    ...     model = graphc.onnx.load(f"{folder}/model.onnx")
    >>> model(graphc.zeros(5, 2)).shape, [name for name, _ in model.named_parameters()]
    (graphc.Size([5, 1]), ['weight', 'bias'])
    """

    def __init__(self, model: OnnxModel) -> None:
        super().__init__()
        self.model = model
        """The model over arrays."""
        self._names: dict[str, str] = {}

    @property
    def graph(self) -> Graph:
        """The graph for all inputs; ArgumentError where one is made for each of some values or shapes."""
        return self.model.program.main.graph

    @property
    def program(self) -> Program:
        """The program that `graphc.save` and `graphc.runtime` know, with the weights as they were loaded."""
        return self.model.program

    def forward(self, *inputs: Any) -> Any:
        """The results for the inputs, in the order of the model."""
        if inputs and all(isinstance(x, np.ndarray) for x in inputs):
            with no_grad():
                results: list[Any] = [_array(result) for result in self._results([wrap(np.array(x)) for x in inputs])]
        else:
            results = list(self._results(inputs))
        return results[0] if len(results) == 1 else tuple(results)

    def _results(self, inputs: Sequence[Any]) -> list[Tensor]:
        if len(inputs) != len(self.model.input_names) or not all(isinstance(x, Tensor) for x in inputs):
            raise ArgumentTypeError(f"{self.model.name} is called with {len(inputs)} inputs", got=_listed(inputs),
                                    expected=f"tensors, or arrays, for {', '.join(self.model.input_names)}")
        program = self.model.program_for([_array(x) for x in inputs] if self.model.is_made_for_each_call else [])
        function = program.main
        arguments = iter(self.model.inputs_of(inputs))
        values = []
        for value in function.graph.inputs:
            weight = weight_name(value)
            values.append(next(arguments) if weight is None else self._weight(weight, program, "param" in value.info))
        shapes = [tuple(x.shape) for x in values]
        if active() is None:
            return apply_graph(bind_graph(function.graph, bind_sizes(function.graph, shapes)), values)
        sizes = solve([value.shape for value in function.graph.inputs], shapes)  # which may be symbols of the trace
        # a graph that is made for a call may have none of its inputs left
        return inline(substitute(function.graph, sizes), values, values[0] if values else wrap(np.zeros(0)))

    def _weight(self, name: str, program: Program, trained: bool) -> Tensor:
        own = self._names.get(name)
        if own is None:
            own = self._add(name, program.weights[name], trained)
        found: Tensor = getattr(self, own)
        return found

    def _add(self, name: str, array: np.ndarray, trained: bool) -> str:
        """A weight of the model as a parameter or a buffer of this module."""
        own = name.replace(".", "_") or "_"
        while hasattr(self, own):
            own += "_"
        self._names[name] = own
        tensor = wrap(np.array(array))
        if trained:
            self.register_parameter(own, Parameter(tensor))
        else:
            self.register_buffer(own, tensor)
        return own

    def extra_repr(self) -> str:
        return repr(self.model)


def _array(x: Tensor) -> np.ndarray:
    array: np.ndarray = x.detach().numpy()
    return array


def _listed(inputs: Sequence[Any]) -> str:
    return ", ".join(type(x).__name__ for x in inputs) or "nothing"


def load(
    path: str | os.PathLike[str] | BinaryIO | bytes, *, constants: Mapping[str, Any] | None = None,
    shapes: Mapping[str, Sequence[int | str]] | None = None, limits: Limits | None = None, backend: str | None = None,
) -> ImportedModel:
    """Load an ONNX model as a module: `model(x)` computes with tensors or arrays, and `model.parameters()` can be trained.

    constants
        Inputs that are to be the same for every call, by name: arrays or tensors.
    shapes
        Shapes of inputs by name, instead of those in the model: numbers, and names of sizes that may change.
    limits
        How much a model may ask for before it is refused: a `graphc.onnx.Limits`.

    Sizes that are names in the model stand for any number. Where small inputs of integers decide on shapes, a graph is made for
    each of their values. PackageError, a ValueError, says what is wrong with a model and which node it is; nothing in it is
    executed, and weights in files of their own are read from the model's folder alone.

    >>> import graphc
    >>> exported = graphc.onnx.export(graphc.nn.Linear(2, 1), (graphc.ones(3, 2),))
    >>> model = graphc.onnx.load(exported.SerializeToString())
    >>> model(graphc.ones(3, 2)).shape, [name for name, _ in model.named_parameters()]
    (graphc.Size([3, 1]), ['weight', 'bias'])
    """
    given = {name: _array(x) if isinstance(x, Tensor) else x for name, x in (constants or {}).items()}
    model = ImportedModel(read_onnx(path, constants=given, shapes=shapes, limits=limits, backend=backend))
    if not model.model.is_made_for_each_call:
        program = model.model.program
        for value in program.main.graph.inputs:
            weight = weight_name(value)
            if weight is not None:
                model._weight(weight, program, "param" in value.info)
    return model
