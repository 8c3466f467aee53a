"""Running saved programs: NumPy arrays in, NumPy arrays out. Nothing here needs the front end.

    from graphc import runtime

    program = runtime.load("digits.gcz")
    logits = program(images)                  # one positional array an input, nested as they were exported
    logits = program.run("forward", x=images)

What a program changes at its calls, such as parameters that it trains, is `program.state`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from graphc.bind import bind_graph, bind_sizes
from graphc.compiler import compile_graph
from graphc.errors import ArgumentError, ArgumentTypeError, DTypeError, GraphcError
from graphc.ir import Graph, Value
from graphc.numerics import pinned
from graphc.package import Entry, Limits, read_package, write_package
from graphc.package.entry import prepare
from graphc.package.quantize import QUANTIZED
from graphc.package.structure import flatten, names_inputs, unflatten
from graphc.state import State
from graphc.types import Scalar, TensorType, dtype_of, scalar_array, scalar_dtype
from graphc.verify import verify

__all__ = ["MAIN", "Function", "Limits", "Program", "State", "load"]

MAIN = "forward"
"""The entry that runs where none is named."""


def load(
    path: str | os.PathLike[str] | BinaryIO,
    *,
    backend: str | None = None,
    numerics: str | None = None,
    check_weights: bool = True,
    limits: Limits | None = None,
) -> Program:
    """Load a `.gcz` file; see `graphc.package.read_package` for its errors and its options, and
    `graphc.numerics`.

    PackageError for a file that is damaged, no program of ours, or newer than this version; FileNotFoundError where there is
    none.

    >>> import io
    >>> import numpy as np
    >>> buffer = io.BytesIO()
    >>> graphc.save(graphc.export(lambda x: x * 2, (graphc.ones(2),)), buffer)
    >>> from graphc import runtime
    >>> program = runtime.load(io.BytesIO(buffer.getvalue()))
    >>> program(np.ones(2, dtype=np.float32))
    array([2., 2.], dtype=float32)
    """
    backend = pinned(backend, numerics)
    package = read_package(path, check_weights=check_weights, limits=limits)
    name = os.path.basename(os.fspath(path)) if isinstance(path, (str, os.PathLike)) else "<stream>"
    return Program(package.entries, package.weights, package.metadata, name=name, backend=backend)


class Function:
    """One entry of a program, with its weights: a callable over NumPy arrays.

    A call is `build(compute(arguments(args, kwargs)))`; whoever has other tensors than arrays converts in between.

    >>> program = graphc.export(lambda x: x * 2, (graphc.ones(2),)).program
    >>> program.function("forward").inputs
    {'x': float32[2]}
    """

    def __init__(
        self, name: str, entry: Entry, weights: Mapping[str, np.ndarray], backend: str | None = None, state: State | None = None
    ) -> None:
        self.name = name
        self.entry = entry
        self.backend = backend
        self.state = State({weight: weights[weight] for weight in sorted(entry.state)}) if state is None else state
        """What may change from call to call; other entries of a program have the same."""
        self._weights = {i: weights[weight] for i, weight in entry.weights.items() if weight not in self.state}
        self._kept = {i: weight for i, weight in entry.weights.items() if weight in self.state}
        self._updates, self._results = entry.updates, entry.results
        self._names = [str(value.name) for value in entry.arguments]
        # those of a file; arrays that may be written to may be written to between calls
        steady = [i for i, array in sorted(self._weights.items()) if not (array.flags.writeable or self._is_quantized(i))]
        self._compiled = compile_graph(entry.graph, backend=backend, steady=steady)
        self._checked: set[tuple[tuple[str, int], ...]] = set()

    @property
    def graph(self) -> Graph:
        return self.entry.graph

    def _is_quantized(self, position: int) -> bool:
        return QUANTIZED in self.graph.inputs[position].info

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The weights that the function takes, by name, with its state as it is now."""
        arrays = {**self._weights, **self._state_arrays()}
        return {name: arrays[position] for position, name in self.entry.weights.items()}

    @property
    def inputs(self) -> dict[str, TensorType]:
        """The types of the arrays that a call gives, by name and in order."""
        return {name: value.type for name, value in zip(self._names, self.entry.arguments)}

    @property
    def outputs(self) -> dict[str, TensorType]:
        """The types of the results, by name and in order."""
        names = self.graph.output_names
        return {} if names is None else {names[i]: self.graph.outputs[i].type for i in self._results}

    @property
    def signature(self) -> str:
        """`forward(x: float32[N, 784]) -> (logits: float32[N, 10])`."""
        inputs, outputs = (", ".join(f"{name}: {t}" for name, t in side.items()) for side in (self.inputs, self.outputs))
        return f"{self.name}({inputs}) -> ({outputs})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run with arrays, nested as the function was exported; the results are nested as it returned them.

        ShapeError, DTypeError and ArgumentTypeError name the input that does not fit.
        """
        return self.build(self.compute(self.arguments(args, kwargs)))

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """What the call gives for each input, in order."""
        structure = self.entry.inputs
        if structure is not None and not names_inputs(structure, args, kwargs):
            return flatten(structure, (tuple(args), dict(kwargs)))
        if len(args) > len(self._names):
            raise ArgumentTypeError(f"{self.name}: {len(args)} inputs were given", expected=self.signature)
        given = dict(zip(self._names, args))
        for name, value in kwargs.items():
            if name not in self._names or name in given:
                problem = "was given twice" if name in given else "is not an input"
                raise ArgumentTypeError(f"{self.name}: {name!r} {problem}", expected=self.signature)
            given[name] = value
        missing = [name for name in self._names if name not in given]
        if missing:
            raise ArgumentTypeError(f"{self.name}: no {missing[0]!r} was given", expected=self.signature)
        return [given[name] for name in self._names]

    def named(self, inputs: Mapping[str, Any]) -> list[Any]:
        """What is given for each input, in order, by the names of the inputs, however they are nested in a call."""
        wrong = sorted(set(inputs) ^ set(self._names))
        if wrong:
            problem = f"no {wrong[0]!r} was given" if wrong[0] in self._names else f"{wrong[0]!r} is not an input"
            raise ArgumentTypeError(f"{self.name}: {problem}", expected=self.signature)
        return [inputs[name] for name in self._names]

    def compute(self, arguments: Sequence[Any]) -> list[np.ndarray]:
        """The results for the inputs, each an array or what NumPy makes one of; a number stands for a 0-d array."""
        if not self._updates:
            return self._run(arguments, {})
        with self.state.lock:
            outputs = self._run(arguments, self.state.spare(self._updates))
            self.state.replace({name: outputs[number] for name, number in self._updates.items()})
        return [outputs[number] for number in self._results]

    def _run(self, arguments: Sequence[Any], into: Mapping[int, np.ndarray]) -> list[np.ndarray]:
        """All outputs, those that are kept for the next call among them; some are written to arrays that there are."""
        given = iter(arguments)
        fixed = self._weights if not self._kept else {**self._weights, **self._state_arrays()}
        arrays = [
            fixed[i] if i in fixed else self._array(value, next(given)) for i, value in enumerate(self.graph.inputs)
        ]
        sizes = bind_sizes(self.graph, [array.shape for array in arrays])
        key = tuple(sorted(sizes.items()))
        if key not in self._checked:
            self._check(sizes)
            self._checked.add(key)
        return self._compiled.run(arrays, into)

    def _state_arrays(self) -> dict[int, np.ndarray]:
        with self.state.lock:  # of one moment
            return {position: self.state[name] for position, name in self._kept.items()}

    def build(self, results: Sequence[Any]) -> Any:
        """The results nested as the function returned them."""
        if self.entry.outputs is not None:
            return unflatten(self.entry.outputs, results)
        return results[0] if len(results) == 1 else tuple(results)

    def _check(self, sizes: dict[str, int]) -> None:
        """What the type rules could not tell of symbols is checked for numbers: the graph may come from anywhere, and
        generated code checks nothing."""
        bound = bind_graph(self.graph, sizes)
        if bound is not self.graph:
            verify(bound)

    def _array(self, value: Value, given: Any) -> np.ndarray:
        where = f"{self.name}: the input {value.name!r}"
        if isinstance(given, (bool, int, float, complex)) and value.ndim == 0:
            return _scalar(where, value.type, given)
        try:
            array = np.asarray(given)
            found = TensorType(dtype_of(array.dtype), array.shape)
        except GraphcError as error:
            raise ArgumentTypeError(f"{where}: {error.problem}", expected=str(value.type)) from None
        except (TypeError, ValueError) as error:
            got = f"{type(given).__name__}: {error}"
            raise ArgumentTypeError(f"{where} is not an array", expected=str(value.type), got=got) from None
        if found.dtype is not value.dtype:
            library = "ml_dtypes" if value.dtype.name == "bfloat16" else "numpy"
            hint = (f"convert it: {value.name}.astype({library}.{value.dtype.numpy.name}), or of a tensor "
                    f"{value.name}.to(graphc.{value.dtype.name})")
            raise DTypeError(f"{where} has the wrong dtype", expected=str(value.type), got=str(found), hint=hint)
        return np.asarray(array, value.dtype.numpy)  # in this machine's byte order

    def __repr__(self) -> str:
        return f"<function {self.signature}>"


class Program:
    """Graphs with their weights, ready to run. Calling it runs the entry "forward", or the only one there is.

    ArgumentTypeError where the metadata are no dict.

    >>> from graphc import runtime
    >>> program = graphc.export(lambda x: x * 2, (graphc.ones(2),)).program
    >>> isinstance(program, runtime.Program), program.signature
    (True, 'forward(x: float32[2]) -> (output: float32[2])')
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        weights: Mapping[str, np.ndarray],
        metadata: Mapping[str, Any] | None = None,
        *,
        name: str = "program",
        backend: str | None = None,
    ) -> None:
        if not isinstance(metadata, Mapping | None):
            raise ArgumentTypeError(f"the metadata are a {type(metadata).__name__}", expected="a dict with strings as keys")
        self.name = name
        self.metadata = dict(metadata or {})
        self.weights = dict(weights)
        self.functions: dict[str, Function] = {}
        prepared: dict[str, Entry] = {}
        for entry_name, entry in entries.items():
            if entry.graph.output_names is None or any(value.name is None for value in entry.graph.inputs):
                entry, constants = prepare(entry)
                self.weights.update(constants)
            prepared[entry_name] = entry
        kept = sorted(set().union(*(entry.state for entry in prepared.values())))
        self.state = State({weight: self.weights[weight] for weight in kept})
        """The arrays that calls change, by name; set an item to change it yourself."""
        for entry_name, entry in prepared.items():
            self.functions[entry_name] = Function(entry_name, entry, self.weights, backend, self.state)

    @property
    def main(self) -> Function:
        """What a call runs: "forward", or the only entry; ArgumentError where there are several others."""
        if len(self.functions) > 1 and MAIN not in self.functions:
            raise ArgumentError(f"{self.name} has several entries, and none is called {MAIN!r}",
                                expected=f"one of {', '.join(self.functions)}",
                                hint=f"program.function({next(iter(self.functions))!r}), or --entry of commands")
        return self.function(next(iter(self.functions)) if len(self.functions) == 1 else MAIN)

    def function(self, entry: str) -> Function:
        """The entry of that name; ArgumentError if there is none."""
        found = self.functions.get(entry)
        if found is None:
            raise ArgumentError(f"{self.name} has no entry {entry!r}", expected=f"one of {', '.join(self.functions)}")
        return found

    @property
    def signature(self) -> str:
        """One line an entry: `forward(x: float32[N, 784]) -> (logits: float32[N, 10])`."""
        return "\n".join(function.signature for function in self.functions.values())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the main entry; see `Function.__call__`."""
        return self.main(*args, **kwargs)

    def run(self, entry: str = MAIN, **inputs: Any) -> Any:
        """Run an entry with its inputs by name, however they are nested in a call."""
        function = self.function(entry) if entry != MAIN else self.main
        return function.build(function.compute(function.named(inputs)))

    def reset(self) -> None:
        """Go back to the state that the program began with."""
        self.state.reset()

    def save(self, path: str | os.PathLike[str] | BinaryIO) -> None:
        """Write the program, with its state as it is now, as a `.gcz` file; see `graphc.package.write_package`."""
        entries = {name: function.entry for name, function in self.functions.items()}
        write_package(path, entries, {**self.weights, **self.state}, self.metadata)

    def __repr__(self) -> str:
        return f"<Program {self.name}: {'; '.join(function.signature for function in self.functions.values())}>"


def _scalar(where: str, type_: TensorType, given: Scalar) -> np.ndarray:
    """A Python number as a 0-d array, where nothing of it is lost but a float's precision."""
    if scalar_dtype(given).category <= type_.dtype.category:
        if type_.dtype.is_differentiable:
            return scalar_array(given, type_.dtype)
        try:
            return np.asarray(given, type_.dtype.numpy)
        except OverflowError:
            pass  # reported below, as the other numbers that do not fit
    raise DTypeError(f"{where} cannot take this number", expected=str(type_), got=repr(given))
