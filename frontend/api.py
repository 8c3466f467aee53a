"""Everything that `graphc.` offers by name, collected from the front end's files."""

from __future__ import annotations

import functools
import math
from typing import Any

from graphc.frontend import (
    conversion,
    creation,
    creation_like,
    exchange,
    from_data,
    joining,
    matrices,
    queries,
    ranges,
    triangles,
)
from graphc.frontend import methods as _methods
from graphc.frontend import random as _random
from graphc.frontend import windows as _windows
from graphc.frontend.arguments import need_tensor as _need_tensor
from graphc.frontend.associative_scan import associative_scan
from graphc.frontend.autocast import autocast, get_autocast_dtype, is_autocast_cpu_enabled, is_autocast_enabled
from graphc.frontend.autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from graphc.frontend.autograd.anomaly_mode import is_anomaly_check_nan_enabled, is_anomaly_enabled
from graphc.frontend.compile import compile
from graphc.frontend.control_flow import cond, map, scan, while_loop
from graphc.frontend.conversion import set_default_tensor_type
from graphc.frontend.creation import set_default_dtype
from graphc.frontend.custom_op import custom_op
from graphc.frontend.define import Graph, gradients, parse_ir, placeholder
from graphc.frontend.device import device, get_default_device, set_default_device
from graphc.frontend.dynamic import mark_dynamic
from graphc.frontend.dynamic_shapes import Dim
from graphc.frontend.export import Program, export
from graphc.frontend.export import trace as _trace
from graphc.frontend.families import ALIASES, FAMILIES, names
from graphc.frontend.formats import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    layout,
    memory_format,
    preserve_format,
    strided,
)
from graphc.frontend.func.vectorize import vmap
from graphc.frontend.limits import finfo, iinfo
from graphc.frontend.minify import minify
from graphc.frontend.printing import set_printoptions
from graphc.frontend.public import public, with_out
from graphc.frontend.random import Generator, default_generator, fork_rng
from graphc.frontend.serialization import load, save
from graphc.frontend.session import Session
from graphc.frontend.summary import summary
from graphc.frontend.tensor import Size, Tensor
from graphc.frontend.view_graph import view_graph
from graphc.numerics import get_float32_matmul_precision, set_float32_matmul_precision
from graphc.op import not_differentiable
from graphc.threads import get_num_threads, set_num_threads
from graphc.types import (
    DType,
    bfloat16,
    bool_,
    complex32,
    complex64,
    complex128,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    uint8,
    uint16,
    uint32,
    uint64,
)

pi, e, inf, nan = math.pi, math.e, math.inf, math.nan
newaxis = None
dtype = DType

short, int, long = int16, int32, int64
half, float, double = float16, float32, float64
chalf, cfloat, cdouble = complex32, complex64, complex128
bool = bool_

_OUT_ELSEWHERE = {creation, creation_like, from_data, exchange, queries, ranges, triangles, _random, _windows}
"""Whose functions have an out= argument of their own, or none."""
_WITHOUT_TENSOR = {
    "block_diag", "broadcast_shapes", "broadcast_tensors", "can_cast", "cartesian_prod", "chain_matmul", "einsum", "meshgrid",
}

for _family in FAMILIES:
    for _name in names(_family, "FUNCTIONS"):
        _function = getattr(_family, _name)
        if _family is joining:
            _function = with_out(_function)
        elif _family not in _OUT_ELSEWHERE and _name not in _WITHOUT_TENSOR:
            _function = public(_function, _name)
        globals()[_name] = _function
globals().update(conversion.TYPED)
for _name, _known in ALIASES.items():
    if _known in globals():
        globals()[_name] = globals()[_known]

_IN_PLACE = """
    abs acos acosh arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh ceil clamp clamp_max clamp_min clip
    cos cosh deg2rad detach erf erfc exp exp2 expm1 fill fix floor frac gcd i0 lcm ldexp log log10 log1p log2 logit
    nan_to_num neg negative rad2deg reciprocal round rsqrt sigmoid sin sinc sinh sqrt square tan tanh trunc xlogy zero
"""


def _as_function(name: str) -> Any:
    """A method as a function: abs_(x) is x.abs_()."""

    @functools.wraps(getattr(Tensor, name))
    def call(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return getattr(_need_tensor(input, name), name)(*args, **kwargs)

    return call


for _name in _IN_PLACE.split():
    globals()[f"{_name}_"] = _as_function(f"{_name}_")


def trace(function: Any, example_inputs: Any = None) -> Any:
    """The graph of a function, traced on example inputs; or, given a matrix alone, the sum of its diagonal.

    TraceError, with the line, where the function cannot become a graph.

    >>> print(graphc.trace(lambda x: x * 2, (graphc.ones(3),)))
    graph @lambda(%x: float32[3]) -> float32[3] {
      %0 = constant() {value = 2.0} : float32[]
      %1 = broadcast_to(%0) {shape = [3]} : float32[3]
      %2 = mul(%x, %1) : float32[3]
      return %2
    }
    >>> graphc.trace(graphc.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor(5.)
    """
    return matrices.trace(function) if isinstance(function, Tensor) else _trace(function, example_inputs)


def is_tensor(obj: object) -> Any:
    """Whether an object is a tensor.

    >>> graphc.is_tensor(graphc.ones(1)), graphc.is_tensor(1.0)
    (True, False)
    """
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> Any:
    """Whether the elements are floating-point numbers.

    ArgumentTypeError for what is no tensor.

    >>> graphc.is_floating_point(graphc.ones(1)), graphc.is_floating_point(graphc.arange(3))
    (True, False)
    """
    return _need_tensor(input, "is_floating_point").is_floating_point()


def numel(input: Tensor) -> Any:
    """How many elements a tensor has.

    ArgumentTypeError for what is no tensor.

    >>> graphc.numel(graphc.zeros(2, 3))
    6
    """
    return _need_tensor(input, "numel").numel()


def detach(input: Tensor) -> Tensor:
    """The same memory, outside the graph.

    ArgumentTypeError for what is no tensor.

    >>> x = graphc.ones(2, requires_grad=True)
    >>> graphc.detach(x).requires_grad
    False
    """
    return _need_tensor(input, "detach").detach()


def hint(name: str) -> str:
    """What to say about a name that does not exist."""
    if name.endswith("_") and hasattr(Tensor, name):
        return f"; in-place functions are methods: Tensor.{name}"
    if hasattr(Tensor, name):
        return f"; there is a method Tensor.{name}"
    return ""


_NOT_PUBLIC = {
    "ALIASES", "Any", "FAMILIES", "annotations", "conversion", "creation", "creation_like", "exchange", "from_data", "hint",
    "joining", "math", "matrices", "names", "public", "queries", "ranges", "triangles", "with_out",
}
__all__ = sorted(name for name in globals() if not name.startswith("_") and name not in _NOT_PUBLIC)
