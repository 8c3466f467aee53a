"""`summary`: the layers of a module, with what they return, hold and compute."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.errors import ArgumentTypeError
from graphc.flops import node_flops
from graphc.frontend.compile import CompiledModule
from graphc.frontend.described import as_dtype
from graphc.frontend.exported_state import Rebinding
from graphc.frontend.follower import Follower
from graphc.frontend.guards import Snapshot
from graphc.frontend.nn.hooks import register_module_forward_hook, register_module_forward_pre_hook
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.uninitialized import is_lazy
from graphc.frontend.pytree import flatten, unflatten
from graphc.frontend.segments import Tree
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.trace import Trace, graph_name, parameter_names
from graphc.frontend.tracer import activated
from graphc.types import TensorType


@dataclass(frozen=True)
class Layer:
    """One module. What it holds, returns and computes includes the modules inside."""

    path: str
    """Its dotted name; empty for the model itself."""
    kind: str
    """The name of its class."""
    depth: int
    calls: int
    outputs: tuple[tuple[TensorType, ...], ...]
    """Of each call, the types of the tensors that it returned."""
    parameters: int
    """Numbers in parameters, each parameter once."""
    trainable_parameters: int
    """Those that require grad."""
    parameter_bytes: int
    buffer_bytes: int
    flops: int
    """Floating-point operations of all its calls, by `graphc.flops`. What a loop or branch of the graph runs, as in `scan`,
    counts for the module that has the loop."""
    same_as: str | None = None
    """The path at which the same module stands before, where its numbers are."""

    @property
    def output_bytes(self) -> int:
        """Of all calls."""
        return _nbytes(type_ for types in self.outputs for type_ in types)

    @property
    def output_text(self) -> str:
        """What it returns, as text: `float32[8, 10]`; different results of several calls one after another."""
        distinct = list(dict.fromkeys(", ".join(map(str, types)) for types in self.outputs))
        return "; ".join(distinct[:2] + ["..."] * (len(distinct) > 2))


@dataclass(frozen=True)
class Summary:
    """What `summary` has found. `print` shows it as a table; `summary["features.0"]` is a layer by its path."""

    layers: tuple[Layer, ...]
    """The model, and everything inside, in the order in which modules hold each other."""
    inputs: tuple[TensorType, ...]
    most: int | None = None
    """How deep a layer may be to be shown."""

    def __getitem__(self, path: str) -> Layer:
        for layer in self.layers:
            if layer.path == path:
                return layer
        raise KeyError(path)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def parameters(self) -> int:
        """Numbers in all parameters; one that several modules share counts once."""
        return self.layers[0].parameters

    @property
    def trainable_parameters(self) -> int:
        """Those that require grad."""
        return self.layers[0].trainable_parameters

    @property
    def flops(self) -> int:
        """Floating-point operations of the call."""
        return self.layers[0].flops

    @property
    def parameter_bytes(self) -> int:
        """Of all parameters."""
        return self.layers[0].parameter_bytes

    @property
    def buffer_bytes(self) -> int:
        """Of all buffers."""
        return self.layers[0].buffer_bytes

    @property
    def input_bytes(self) -> int:
        """Of the tensors that the model was called with."""
        return _nbytes(self.inputs)

    @property
    def output_bytes(self) -> int:
        """Of what layers return that have no others inside: about what a backward pass keeps."""
        holders = {layer.path.rpartition(".")[0] for layer in self.layers[1:]}
        return sum(layer.output_bytes for layer in self.layers if layer.path not in holders)

    def __str__(self) -> str:
        shown = [layer for layer in self.layers if self.most is None or layer.depth <= self.most]
        rows = [("layer", "output", "parameters", "FLOPs", "output bytes")]
        rows += [(label, *_cells(layer)) for label, layer in zip(_tree(shown), shown, strict=True)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(text.ljust(width) if i < 2 else text.rjust(width) for i, (text, width) in enumerate(zip(row, widths)))
            for row in rows
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        frozen = self.parameters - self.trainable_parameters
        lines += [
            lines[1],
            f"parameters: {self.parameters:,} ({_size(self.parameter_bytes)}), {self.trainable_parameters:,} trainable, "
            f"{frozen:,} not" + (f"; buffers: {_size(self.buffer_bytes)}" if self.buffer_bytes else ""),
            f"FLOPs: {_count(self.flops)}; inputs: {_size(self.input_bytes)}; outputs of layers: {_size(self.output_bytes)}",
        ]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__


def summary(model: Module, *inputs: Any, depth: int | None = None, **keywords: Any) -> Summary:
    """The layers of a model: what each returns for these inputs, its parameters, and how many operations it takes.

    The model is traced and not run, in the mode that it is in: parameters, buffers, gradients and random numbers stay as they
    are. Where it looks at numbers of tensors, as in `if x.sum() > 0:`, what they depend on is computed.

    ArgumentTypeError for what is no module, and for one that has lazy modules without a shape.

    >>> import graphc
    >>> from graphc import nn
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> found = graphc.summary(model, graphc.ones(4, 8))
    >>> print(found)
    layer         output          parameters  FLOPs  output bytes
    -------------------------------------------------------------
    Sequential    float32[4, 2]          178  1,416          32 B
    ├─ 0: Linear  float32[4, 16]         144  1,088         256 B
    ├─ 1: ReLU    float32[4, 16]           0     64         256 B
    └─ 2: Linear  float32[4, 2]           34    264          32 B
    -------------------------------------------------------------
    parameters: 178 (712 B), 178 trainable, 0 not
    FLOPs: 1.42 K; inputs: 128 B; outputs of layers: 544 B
    >>> found["2"].flops
    264

    inputs, keywords
        What the model is called with: tensors, perhaps nested, and other values.
    depth
        How deep the table goes: 1 shows the modules directly inside. The fields have all of them.

    Whatever the model raises for these inputs arrives as it is.
    """
    if not isinstance(model, Module):
        raise ArgumentTypeError("summary: not a module", expected="an nn.Module", got=type(model).__name__)
    if isinstance(model, CompiledModule):
        model = model._original
    lazy = next((name for name, t in (*model.named_parameters(), *model.named_buffers()) if is_lazy(t)), None)
    if lazy is not None:
        raise ArgumentTypeError(f"summary: {lazy} has no shape yet", expected="a model whose lazy modules have been called",
                                hint="call the model once before")
    calls = _Calls(model)
    types = calls.run(inputs, keywords)
    return Summary(tuple(_layers(model, calls)), types, depth)


@dataclass
class _Call:
    """A call of a module: the nodes of the trace that it has made, by their numbers, and what it returned."""

    start: int
    outermost: bool
    stop: int = 0
    outputs: tuple[TensorType, ...] = ()


class _Calls:
    """The calls of modules while a model is traced in this thread."""

    def __init__(self, model: Module) -> None:
        self._model = model
        self.of: dict[Module, list[_Call]] = {}
        self._running: list[tuple[Module, _Call]] = []
        self._thread = threading.get_ident()
        self._before = [0]
        """The operations of the first nodes, by how many these are."""

    def run(self, inputs: Sequence[Any], keywords: dict[str, Any]) -> tuple[TensorType, ...]:
        """Trace the model; returns the types of the tensors that go in."""
        leaves, structure = flatten((tuple(inputs), keywords))
        inside = [wrap(x._data).requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in leaves]
        name = graph_name(self._model)
        trace = self._trace = Trace(name, inside, parameter_names(self._model))
        trace.oracle = Follower(trace, Tree(name, None))
        trace.oracle.tree.plain_numbers = True
        before, rebinding = Snapshot(self._model, [], writes=True), Rebinding(self._model)
        handles = [register_module_forward_pre_hook(self._begin), register_module_forward_hook(self._end, always_call=True)]
        try:
            with activated(trace):
                args, kwargs = unflatten(structure, inside)
                self._model(*args, **kwargs)
            for node in trace.builder.nodes:
                flops = node_flops(node)
                assert isinstance(flops, int)  # sizes are those of the inputs
                self._before.append(self._before[-1] + flops)
        finally:
            for handle in handles:
                handle.remove()
            rebinding.undo()
            before.restore()
            trace.restore()
            trace.oracle = None
        return tuple(TensorType(as_dtype(x._data.dtype), x._data.shape) for x in leaves if isinstance(x, Tensor))

    def flops(self, module: Module) -> int | None:
        """The operations of a module's calls; None if there were none."""
        calls = self.of.get(module)
        return None if calls is None else sum(self._before[c.stop] - self._before[c.start] for c in calls if c.outermost)

    def _begin(self, module: Module, args: Any) -> None:
        if threading.get_ident() == self._thread:
            outermost = all(running is not module for running, _ in self._running)
            self._running.append((module, _Call(len(self._trace.builder.nodes), outermost)))

    def _end(self, module: Module, args: Any, output: Any) -> None:
        if threading.get_ident() != self._thread or not any(running is module for running, _ in self._running):
            return
        while True:  # those inside have ended without a word, as by a KeyboardInterrupt that the model has caught
            running, call = self._running.pop()
            if running is module:
                break
        call.stop = len(self._trace.builder.nodes)
        call.outputs = tuple(TensorType(x.dtype, tuple(x.shape)) for x in flatten(output)[0] if isinstance(x, Tensor))
        self.of.setdefault(module, []).append(call)


def _layers(model: Module, calls: _Calls) -> Iterator[Layer]:
    """The model and what is inside."""
    first: dict[Module, str] = {}

    def visit(module: Module, path: str, depth: int) -> tuple[list[Layer], int]:
        """The module with everything inside, and its operations."""
        kind = type(module).__name__
        if module in first:
            return [Layer(path, kind, depth, 0, (), 0, 0, 0, 0, 0, same_as=first[module])], 0
        first[module] = path
        inside: list[Layer] = []
        flops = 0
        for name, child in module._modules.items():
            if child is not None:
                layers, own = visit(child, f"{path}.{name}" if path else name, depth + 1)
                inside += layers
                flops += own
        called = calls.flops(module)
        flops = flops if called is None else called
        parameters = list(module.parameters())
        made = calls.of.get(module, ())
        layer = Layer(
            path, kind, depth, len(made), tuple(call.outputs for call in made),
            parameters=sum(p.numel() for p in parameters),
            trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            parameter_bytes=sum(p.nbytes for p in parameters),
            buffer_bytes=sum(b.nbytes for b in module.buffers()),
            flops=flops,
        )
        return [layer, *inside], flops

    yield from visit(model, "", 0)[0]


def _tree(layers: Sequence[Layer]) -> list[str]:
    """Names and classes, with lines that show what is inside of what."""
    labels: list[str] = []
    open_: dict[int, bool] = {}  # depth -> whether another layer of the same module comes further down
    for layer in reversed(layers):
        name = layer.path.rpartition(".")[2]
        label = f"{name}: {layer.kind}" if layer.depth else layer.kind
        lines = "".join("│  " if open_.get(depth) else "   " for depth in range(1, layer.depth))
        corner = "" if not layer.depth else "├─ " if open_.get(layer.depth) else "└─ "
        open_ = {depth: more for depth, more in open_.items() if depth < layer.depth} | {layer.depth: True}
        times = f" (called {layer.calls} times)" if layer.calls > 1 else ""
        labels.append(f"{lines}{corner}{label}{times}")
    return labels[::-1]


def _cells(layer: Layer) -> tuple[str, str, str, str]:
    if layer.same_as is not None:
        return f"the same as {layer.same_as}", "", "", ""
    flops = f"{layer.flops:,}" if layer.flops < 10_000 else _count(layer.flops)
    size = _size(layer.output_bytes) if layer.calls else ""
    return layer.output_text if layer.calls else "", f"{layer.parameters:,}", flops, size


def _nbytes(types: Iterable[TensorType]) -> int:
    total = sum((type_.nbytes for type_ in types), start=0)
    assert isinstance(total, int)  # a trace for these inputs has no symbols
    return total


def _count(number: int) -> str:
    return _scaled(number, ("", " K", " M", " G", " T", " P"))


def _size(nbytes: int) -> str:
    return _scaled(nbytes, (" B", " KB", " MB", " GB", " TB"))


def _scaled(number: int, units: Sequence[str]) -> str:
    """
    >>> [_size(n) for n in (0, 999, 1_000, 12_340_000)]
    ['0 B', '999 B', '1 KB', '12.3 MB']
    """
    size = float(number)
    for unit in units[:-1]:
        if size < 999.5:
            return f"{size:.3g}{unit}"
        size /= 1000
    return f"{size:.3g}{units[-1]}"
