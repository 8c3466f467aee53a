"""Limiting gradients before an optimizer's step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from graphc.errors import GraphcError
from graphc.frontend.from_data import tensor
from graphc.frontend.joining import stack
from graphc.frontend.linalg_norms import norm
from graphc.frontend.logic import isfinite
from graphc.frontend.modes import no_grad
from graphc.frontend.pointwise import clamp_max
from graphc.frontend.tensor import Tensor

Tensors = Tensor | Iterable[Tensor]


def _gradients(parameters: Tensors) -> list[Tensor]:
    members = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if not members:
        warnings.warn("`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=3)
    grads = (parameter._get_grad() for parameter in members)
    return [grad for grad in grads if grad is not None]


@no_grad()
def get_total_norm(tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False,
                   foreach: bool | None = None) -> Tensor:
    """The norm of all elements of all tensors together, as if they were one vector.

    GraphcError where it is not finite, with `error_if_nonfinite`.

    >>> nn.utils.get_total_norm([graphc.tensor([3.0]), graphc.tensor([4.0])])
    tensor(5.)
    """
    members = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not members:
        return tensor(0.0)
    norms = [norm(member, norm_type) for member in members]
    total = norm(stack([n.to(norms[0].dtype) for n in norms]), norm_type)
    if error_if_nonfinite and not isfinite(total):
        raise GraphcError(f"The total norm of order {float(norm_type)} for gradients from `parameters` is non-finite, so it "
                          "cannot be clipped", hint="error_if_nonfinite=False lets it pass, and the gradients become nan")
    return total


@no_grad()
def clip_grads_with_norm_(parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None) -> None:
    """Scale all gradients by max_norm / total_norm where that is less than 1.

    >>> weight = graphc.tensor([3.0, 4.0], requires_grad=True)
    >>> (weight * weight / 2).sum().backward()
    >>> nn.utils.clip_grads_with_norm_([weight], 1.0, graphc.tensor(5.0))
    >>> weight.grad
    tensor([0.6000, 0.8000])
    """
    factor = clamp_max(max_norm / (total_norm + 1e-6), 1.0)
    for grad in _gradients(parameters):
        grad.mul_(factor)


@no_grad()
def clip_grad_norm_(parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
                    foreach: bool | None = None) -> Tensor:
    """Scale all gradients together so that their norm is at most `max_norm`; returns what it was before.

    GraphcError where the norm is not finite, with `error_if_nonfinite`.

    >>> weight = graphc.tensor([3.0, 4.0], requires_grad=True)
    >>> (weight * weight / 2).sum().backward()
    >>> nn.utils.clip_grad_norm_([weight], 1.0)
    tensor(5.)
    >>> weight.grad
    tensor([0.6000, 0.8000])
    """
    members = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    total = get_total_norm(_gradients(members), norm_type, error_if_nonfinite)
    if members:
        clip_grads_with_norm_(members, float(max_norm), total)
    return total


def clip_grad_norm(parameters: Tensors, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
                   foreach: bool | None = None) -> Tensor:
    """The older name of clip_grad_norm_.

    >>> weight = graphc.tensor([3.0, 4.0], requires_grad=True)
    >>> (weight * weight / 2).sum().backward()
    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     nn.utils.clip_grad_norm([weight], 1.0)
    tensor(5.)
    """
    warnings.warn("nn.utils.clip_grad_norm is deprecated in favor of nn.utils.clip_grad_norm_.", FutureWarning, stacklevel=2)
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


@no_grad()
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Limit each element of the gradients to [-clip_value, clip_value].

    >>> weight = graphc.tensor([3.0, 4.0], requires_grad=True)
    >>> (weight * weight / 2).sum().backward()
    >>> nn.utils.clip_grad_value_([weight], 3.5)
    >>> weight.grad
    tensor([3.0000, 3.5000])
    """
    limit = float(clip_value)
    for grad in _gradients(parameters):
        grad.clamp_(-limit, limit)
