"""Methods that overwrite a tensor with random numbers."""

from __future__ import annotations

import math
from typing import Any

from graphc import ops
from graphc.errors import ArgumentTypeError, GraphcError, UnsupportedDTypeError
from graphc.frontend.arguments import emit, integer, scalar_type
from graphc.frontend.elementary import tan
from graphc.frontend.generator import Generator, drawn_from
from graphc.frontend.inplace import assign, refuse
from graphc.frontend.limits import finfo
from graphc.frontend.modes import no_grad
from graphc.frontend.pointwise import cast, ceil, exp, log
from graphc.frontend.random import below, check_bounds, check_continuous, check_std, gaussian, integers, largest_exact, unit
from graphc.frontend.tape import without_slope
from graphc.frontend.tensor import Tensor
from graphc.types import float32, float64

METHODS = "bernoulli_ cauchy_ exponential_ geometric_ log_normal_ normal_ random_ uniform_"


def _filled(self: Tensor, drawn: Tensor, name: str) -> Tensor:
    return assign(self, without_slope(cast(drawn, self.dtype), (self,), name))


def _source(self: Tensor, generator: Generator | None) -> Generator:
    return drawn_from(generator, self.device)


def _shape(self: Tensor) -> tuple[Any, ...]:
    return tuple(self._data.shape)


def _given(function: str, args: tuple[Any, ...], named: dict[str, Any], defaults: dict[str, Any]) -> list[Any]:
    """Arguments of which one is called `from`, which is no name for a parameter in Python."""
    if len(args) > len(defaults) or set(named) - set(defaults):
        unknown = next(iter(set(named) - set(defaults)), None)
        raise ArgumentTypeError(f"{function}() got an unexpected keyword argument '{unknown}'" if unknown else
                                f"{function}() takes {len(defaults)} arguments and was given {len(args)}",
                                expected=", ".join(defaults))
    return list({**defaults, **dict(zip(defaults, args)), **named}.values())


def uniform_(self: Tensor, *args: float, generator: Generator | None = None, **ends: float) -> Tensor:
    """Overwrite with numbers uniform on [from, to): `uniform_(from=0, to=1)`.

    GraphcError where `from` is greater than `to`. So it is where one of them is more than the dtype can hold; ArgumentTypeError
    for other arguments.

    >>> x = graphc.empty(3).uniform_(2, 3)
    >>> bool(((x >= 2) & (x < 3)).all())
    True
    """
    refuse(self)
    low, high = _given("uniform_", args, ends, {"from": 0.0, "to": 1.0})
    check_continuous(self.dtype, "check_uniform_bounds")
    limit = finfo(self.dtype).max
    for name, value in (("from", low), ("to", high)):
        if not -limit <= value <= limit:
            raise GraphcError(f"{name} is out of bounds for {scalar_type(self.dtype).lower()}", got=str(value))
    if low > high:
        raise GraphcError(f"uniform_ expects to return a [from, to) range, but found from={low} > to={high}")
    with no_grad():
        drawn = unit(_shape(self), self.dtype, _source(self, generator)) * (high - low)
        drawn = drawn + (complex(low, low) if self.is_complex() else low)
    return _filled(self, drawn, "Uniform")


def normal_(self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with normal numbers.

    UnsupportedDTypeError for integers, GraphcError for a negative deviation.

    >>> graphc.empty(3).normal_(mean=5.0, std=0.0)
    tensor([5., 5., 5.])
    """
    refuse(self)
    check_std("normal", std)
    check_continuous(self.dtype, "normal_kernel_cpu")
    with no_grad():
        drawn = gaussian(_shape(self), self.dtype, _source(self, generator)) * std + mean
    return _filled(self, drawn, "Normal")


def _open(self: Tensor, generator: Generator | None) -> Tensor:
    """Uniform between 0 and 1, neither of them, in float64 or float32."""
    wide = float64 if self.dtype is float64 else float32
    drawn = unit(_shape(self), wide, _source(self, generator))
    return emit(ops.maximum, (drawn, 2.0 ** (-54 if wide is float64 else -25)), {})


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with exponentially distributed numbers of rate lambd: -log(u) / lambd.

    GraphcError for a lambd that is not positive.

    >>> bool((graphc.empty(3).exponential_() >= 0).all())
    True
    """
    refuse(self)
    _need_floating(self, "Exponential")
    if lambd <= 0:
        raise GraphcError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    with no_grad():
        drawn = log(_open(self, generator)) * (-1.0 / lambd)
    return _filled(self, drawn, "Exponential")


def cauchy_(self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with numbers of a Cauchy distribution: median + sigma * tan(pi * (u - 1/2)).

    GraphcError for integers, and a sigma that is not positive.

    >>> graphc.empty(3).cauchy_().shape
    graphc.Size([3])
    """
    refuse(self)
    _need_floating(self, "Cauchy")
    if sigma <= 0:
        raise GraphcError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    with no_grad():
        drawn = tan((_open(self, generator) - 0.5) * math.pi) * sigma + median
    return _filled(self, drawn, "Cauchy")


def _need_floating(self: Tensor, distribution: str) -> None:
    if not self.dtype.is_floating_point:
        raise GraphcError(f"{distribution} distribution is a continuous probability distribution. dtype must be a floating "
                          f"point but you specified {scalar_type(self.dtype)}")


def log_normal_(self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with numbers whose logarithm is normal with this mean and standard deviation.

    UnsupportedDTypeError for integers, GraphcError for a deviation that is not positive.

    >>> bool((graphc.empty(3).log_normal_() > 0).all())
    True
    """
    refuse(self)
    if not self.dtype.is_floating_point:
        raise UnsupportedDTypeError(f'"log_normal_cpu" not implemented for \'{scalar_type(self.dtype)}\'')
    if std <= 0:
        raise GraphcError(f"log_normal_ expects std > 0.0, but found std={std}")
    with no_grad():
        wide = float64 if self.dtype is float64 else float32
        drawn = exp(gaussian(_shape(self), wide, _source(self, generator)) * std + mean)
    return _filled(self, drawn, "LogNormal")


def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with the number of trials up to the first success, each with probability p: ceil(log(u) / log(1 - p)).

    UnsupportedDTypeError for bools and complex numbers, GraphcError for a p that is not between 0 and 1.

    >>> graphc.empty(3).geometric_(1 - 1e-7)
    tensor([1., 1., 1.])
    """
    refuse(self)
    if self.dtype.is_complex or self.dtype.kind == "bool":
        raise UnsupportedDTypeError(f'"geometric_cpu" not implemented for \'{scalar_type(self.dtype)}\'')
    if not 0 < p < 1:
        raise GraphcError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    with no_grad():
        drawn = ceil(log(_open(self, generator)) / math.log1p(-p))
    return _filled(self, drawn, "Geometric")


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Overwrite with ones of probability p, a number or a tensor, and zeros.

    UnsupportedDTypeError for complex numbers, GraphcError for a p outside [0, 1].

    >>> graphc.empty(2).bernoulli_(graphc.tensor([0.0, 1.0]))
    tensor([0., 1.])
    """
    refuse(self)
    if self.dtype.is_complex:
        raise UnsupportedDTypeError(f'"bernoulli_scalar_cpu_" not implemented for \'{scalar_type(self.dtype)}\'')
    return _filled(self, below(_shape(self), p, _source(self, generator)), "Bernoulli")


def random_(self: Tensor, *args: int | None, generator: Generator | None = None, **ends: int | None) -> Tensor:
    """Overwrite with integers: `random_(from, to)` from the first up to but not including the second, `random_(to)` from 0,
    `random_()` over all that the dtype holds exactly.

    GraphcError where `from` is not less than `to`, UnsupportedDTypeError for complex numbers, ArgumentTypeError for other
    arguments.

    >>> graphc.empty(3, dtype=graphc.int64).random_(5, 6)
    tensor([5, 5, 5])
    """
    refuse(self)
    if self.dtype.is_complex:
        raise UnsupportedDTypeError(f'"random_kernel_cpu" not implemented for \'{scalar_type(self.dtype)}\'')
    if len(args) == 1 and not ends:
        args = (0, *args)
    low, high = _given("random_", args, ends, {"from": 0, "to": None})
    low = integer(low, "random_(): argument 'from'")
    if high is None:
        high = largest_exact(self.dtype) + 1
    else:
        high = integer(high, "random_(): argument 'to'")
        check_bounds(low, high, self.dtype)
    with no_grad():
        return _filled(self, integers(low, high, _shape(self), _source(self, generator)), "Random")
