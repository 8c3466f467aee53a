"""Everything that `graphc.` offers by name, collected from the front end's files."""

from __future__ import annotations

import math
from typing import Any

from graphc.frontend import (
    activations,
    conversion,
    creation,
    indexing,
    inplace,
    joining,
    matrices,
    methods,
    movement,
    pointwise,
    printing,
    reductions,
)
from graphc.frontend import random as _random
from graphc.frontend.autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from graphc.frontend.compile import compile
from graphc.frontend.creation import set_default_dtype
from graphc.frontend.device import device
from graphc.frontend.export import Program, export
from graphc.frontend.export import trace as _trace
from graphc.frontend.printing import set_printoptions
from graphc.frontend.public import public, with_out
from graphc.frontend.random import Generator, default_generator, fork_rng
from graphc.frontend.serialization import load, save
from graphc.frontend.tensor import Size, Tensor
from graphc.ir import Graph
from graphc.parse import parse_graph as parse_ir
from graphc.threads import get_num_threads, set_num_threads
from graphc.types import (
    DType,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    uint8,
    uint32,
    uint64,
)

pi, e, inf, nan = math.pi, math.e, math.inf, math.nan
newaxis = None
dtype = DType
strided = "graphc.strided"
contiguous_format, preserve_format, channels_last = "contiguous_format", "preserve_format", "channels_last"

short, int, long = int16, int32, int64
half, float, double = float16, float32, float64
bool = bool_

_FUNCTIONS: dict[Any, str] = {
    pointwise: """add addcdiv addcmul abs allclose bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
        bitwise_xor can_cast ceil clamp clamp_max clamp_min cos cosh deg2rad div eq equal erf erfc exp exp2 expm1 float_power
        floor floor_divide fmax fmin fmod frac ge gt isclose isfinite isinf isnan isneginf isposinf le lerp log log10 log1p log2
        logaddexp logical_and logical_not logical_or logical_xor logit lt maximum minimum mul nan_to_num ne neg pow rad2deg
        reciprocal relu remainder result_type round rsqrt rsub sigmoid sign sin sinh sqrt square sub tan tanh trunc""",
    reductions: """all amax amin aminmax any argmax argmin count_nonzero dist logsumexp max mean min nanmean nansum norm prod
        std std_mean sum var var_mean""",
    movement: """adjoint broadcast_shapes broadcast_tensors broadcast_to chunk clone flatten flip fliplr flipud movedim narrow
        permute ravel reshape select split squeeze swapaxes t tensor_split tile transpose unbind unflatten unsqueeze""",
    joining: "atleast_1d atleast_2d cat column_stack dstack hstack roll stack vstack",
    indexing: """gather index_add index_put index_select masked_fill masked_select nonzero repeat_interleave scatter
        scatter_add take take_along_dim where""",
    matrices: "addbmm addmm addmv addr baddbmm bmm dot inner matmul mm mv outer tensordot",
    activations: "log_softmax softmax dropout selu celu prelu threshold",
    creation: """arange as_tensor asarray empty empty_like eye from_numpy full full_like get_default_dtype linspace logspace
        ones ones_like scalar_tensor tensor tril triu zeros zeros_like""",
    _random: """bernoulli get_rng_state initial_seed manual_seed multinomial normal rand rand_like randint randint_like randn
        randn_like randperm seed set_rng_state""",
}

_OUT_ELSEWHERE = {creation, _random}
"""Whose functions have an out= argument of their own, or none."""
_WITHOUT_TENSOR = {"broadcast_shapes", "broadcast_tensors", "can_cast"}

for _module, _names in _FUNCTIONS.items():
    for _name in _names.split():
        _function = getattr(_module, _name)
        if _module is joining:
            _function = with_out(_function)
        elif _module not in _OUT_ELSEWHERE and _name not in _WITHOUT_TENSOR:
            _function = public(_function, _name)
        globals()[_name] = _function
for _name, _known in methods.ALIASES.items():
    if _known in globals():
        globals()[_name] = globals()[_known]


def trace(function: Any, example_inputs: Any = None) -> Any:
    """The graph of a function, traced on example inputs; or, given a matrix alone, the sum of its diagonal."""
    return matrices.trace(function) if isinstance(function, Tensor) else _trace(function, example_inputs)


def is_tensor(obj: object) -> Any:
    """Whether an object is a tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> Any:
    """Whether the elements are floating-point numbers."""
    return input.is_floating_point()


def numel(input: Tensor) -> Any:
    """How many elements a tensor has."""
    return input.numel()


def detach(input: Tensor) -> Tensor:
    """The same memory, outside the graph."""
    return input.detach()


def hint(name: str) -> str:
    """What to say about a name that does not exist."""
    if name.endswith("_") and hasattr(Tensor, name):
        return f"; in-place functions are methods: Tensor.{name}"
    if hasattr(Tensor, name):
        return f"; there is a method Tensor.{name}"
    return ""


__all__ = sorted(
    name for name in globals()
    if not name.startswith("_") and name not in ("Any", "annotations", "hint", "math", "public", "with_out", *(
        m.__name__.rpartition(".")[2] for m in (activations, conversion, creation, indexing, inplace, joining, matrices,
                                                methods, movement, pointwise, printing, reductions)))
)
