"""`Distribution`: what all distributions have, and the checks of their parameters and of values."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Self

from graphc.errors import ArgumentError
from graphc.frontend.creation import full
from graphc.frontend.modes import no_grad
from graphc.frontend.movement import broadcast_tensors
from graphc.frontend.tensor import Size, Tensor


class Constraint(NamedTuple):
    """What values may be: a name, and a test that gives a tensor of bools."""

    name: str
    test: Callable[[Tensor], Tensor]


REAL = Constraint("Real()", lambda x: x == x)
POSITIVE = Constraint("GreaterThan(lower_bound=0.0)", lambda x: x > 0)
NOT_NEGATIVE = Constraint("GreaterThanEq(lower_bound=0.0)", lambda x: x >= 0)
UNIT = Constraint("Interval(lower_bound=0.0, upper_bound=1.0)", lambda x: (x >= 0) & (x <= 1))
BOOLEAN = Constraint("Boolean()", lambda x: (x == 0) | (x == 1))


class Distribution:
    """A distribution, or a batch of independent ones.

    `batch_shape` is the shape of the batch, `event_shape` that of one draw. Parameters are checked when a distribution is
    made, and values when their probability is asked for, unless `validate_args=False`. A compiled function checks them at
    each call, but not where it must be one graph: with `fullgraph` or symbolic sizes, or within vmap and grad.

    >>> normal = graphc.distributions.Normal(graphc.zeros(3), 1.0)
    >>> normal.batch_shape, normal.event_shape, normal.sample((2,)).shape
    (graphc.Size([3]), graphc.Size([]), graphc.Size([2, 3]))
    """

    has_rsample = False
    """Whether `rsample` is there: draws through which gradients flow to the parameters."""

    parameters: ClassVar[dict[str, Constraint]] = {}
    _validate = True

    def __init__(
        self, batch_shape: Sequence[int] = (), event_shape: Sequence[int] = (), validate_args: bool | None = None
    ) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate = validate_args
        if self._validate:
            found = ((name.lstrip("_"), self.__dict__.get(name), test) for name, test in self.parameters.items())
            self._check_parameters([(name, value, test) for name, value, test in found if value is not None])

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Check parameters and values, or not, where a distribution is not told."""
        Distribution._validate = value

    def _check_parameters(self, given: Sequence[tuple[str, Tensor, Constraint]]) -> None:
        """ArgumentError where one is not as its constraint says."""
        if all_hold([(value, constraint) for _, value, constraint in given]):
            return
        for name, value, constraint in given:
            if not all_hold([(value, constraint)]):
                raise _not_valid(f"Expected parameter {name} (Tensor of shape {tuple(value.shape)}) of distribution {self!r} "
                                 f"to satisfy the constraint {constraint.name}", value)

    def _validate_sample(self, value: Tensor) -> None:
        """ArgumentError for a value that the distribution cannot have."""
        if self._validate and not all_hold([(value, self.support)]):
            raise _not_valid(f"Expected value argument (Tensor of shape {tuple(value.shape)}) to be within the support "
                             f"({self.support.name}) of the distribution {self!r}", value)

    @property
    def support(self) -> Constraint:
        """The values that there are."""
        return REAL

    @property
    def batch_shape(self) -> Size:
        """The shape of the parameters."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one draw of one distribution."""
        return self._event_shape

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> Size:
        return Size(sample_shape) + self._batch_shape + self._event_shape

    @property
    def mean(self) -> Tensor:
        """The expectation."""
        raise NotImplementedError

    @property
    def variance(self) -> Tensor:
        """The variance."""
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws in a leading `sample_shape`; no gradient flows through them."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws through which gradients flow to the parameters."""
        raise NotImplementedError(f"{type(self).__name__} has no draws that can be differentiated")

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or of the probability, at values."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        raise NotImplementedError

    def perplexity(self) -> Tensor:
        """The exponential of the entropy."""
        return self.entropy().exp()

    def expand(self, batch_shape: Sequence[int]) -> Self:
        """The distribution repeated to a larger batch."""
        given = {name: value.expand(Size(batch_shape) + value.shape[len(self._batch_shape):])
                 for name, value in self.__dict__.items() if name in self.parameters and value is not None}
        return type(self)(**given, validate_args=False)

    def __repr__(self) -> str:
        found = ((name.lstrip("_"), self.__dict__.get(name)) for name in self.parameters)
        shown = ", ".join(f"{name}: {_brief(value)}" for name, value in found if value is not None)
        return f"{type(self).__name__}({shown})"


def all_hold(tests: Sequence[tuple[Tensor, Constraint]]) -> bool:
    """Whether tensors are as they have to be, as far as that can be told: in a compiled function, one question for all."""
    held = [constraint.test(value.detach()).all() for value, constraint in tests if value._can_be_decided()]
    return not held or bool(functools.reduce(operator.and_, held))


def _not_valid(problem: str, value: Tensor) -> ArgumentError:
    shown = value._known_to_python("an error") if value.dim() else value.item()
    return ArgumentError(f"{problem}, but found invalid values:\n{shown}")


def _brief(value: Tensor) -> str:
    if value.numel() != 1:
        return repr(value.shape)
    return str(value.item()) if not value.dim() else repr(value)


def together(*values: Any) -> list[Tensor]:
    """Parameters, numbers or tensors, in one shape."""
    dtype = next((value.dtype for value in values if isinstance(value, Tensor)), None)
    made = [value if isinstance(value, Tensor) else full((), float(value), dtype=dtype) for value in values]
    return list(broadcast_tensors(*made))
