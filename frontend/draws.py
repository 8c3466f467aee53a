"""Random numbers by code that is made once for any number of them, and kept on disk: a model's weights are of many shapes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.backend import Executable, Layout
from graphc.compiler import executable
from graphc.config import config
from graphc.dims import Dim
from graphc.frontend.device_ops import gpu_of_backend
from graphc.frontend.modes import mode
from graphc.frontend.tensor import Tensor, wrap
from graphc.frontend.tracer import _state as trace_state
from graphc.numerics import pinned

LARGE = 1 << 12
"""From how many numbers on code pays at the first draw: NumPy takes a third of a millisecond for so many normal ones."""

_made: dict[Any, tuple[Executable, list[int]]] = {}
"""Code, and the numbers of the arguments that its inputs are: the state, one number for each that is wanted, and `numbers`."""
_making = threading.Lock()


def draw(rule: Callable[..., Tensor], state: Tensor, shape: tuple[Any, ...], *values: Any,
         numbers: tuple[float, ...] = ()) -> Tensor:
    """`rule(state, shape, *values, *numbers)`: what is drawn by a generator in this state, which stays as it is. Each number
    depends on its place in the order of memory, and on nothing else of the shape. There is code for any `numbers`, and other
    code for other `values`."""
    is_here = trace_state.tracer is None and type(state._data) is np.ndarray and config.fuse_eager and not mode.inference
    if not is_here or math.prod(shape) < LARGE or gpu_of_backend(None) >= 0:
        return rule(state, shape, *values, *numbers)
    key = (rule, values, tuple(map(type, numbers)), pinned(None))
    made = _made.get(key)
    if made is None:
        with _making:
            made = _made.get(key) or _made.setdefault(key, _make(rule, values, numbers))
    code, order = made
    (kind,) = code.outputs
    found = np.empty(shape, kind.dtype.numpy)
    arrays = [state._data, np.empty(found.size, np.bool_), *map(np.asarray, numbers)]
    code.at({"n": found.size}).run([arrays[i] for i in order], [found.reshape(-1)])
    return wrap(found)


def _make(rule: Callable[..., Tensor], values: tuple[Any, ...], numbers: tuple[float, ...]) -> tuple[Executable, list[int]]:
    from graphc.frontend.compiled import trace_once  # it stands above all functions

    def function(state: Tensor, places: Tensor, *numbers: Tensor) -> Tensor:
        return rule(state, tuple(places.shape), *values, *numbers)

    arguments = [wrap(array) for array in (np.zeros(2, np.int64), np.zeros(LARGE, np.bool_), *map(np.asarray, numbers))]
    traced = trace_once(function, tuple(arguments), {}, {1: (Dim.symbol("n"),)})
    assert traced is not None, f"{rule.__name__} does more than draw numbers"
    order = [next(i for i, argument in enumerate(arguments) if argument is taken) for taken in traced.inputs]
    return executable(traced.graph, Layout((None,) * len(order)), backend=pinned(None)), order
