"""Weight and spectral normalisation in their older form: the parts lie in the module itself, as weight_g and weight_v, or
weight_orig, weight_u and weight_v. `nn.utils.parametrizations` has the newer form."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

from graphc.errors import ArgumentError, GraphcError
from graphc.frontend.modes import no_grad
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.nn.utils.parametrizations import (
    _WeightNorm,
    as_matrix,
    check_iterations,
    default_dim,
    divided,
    first_singular_vectors,
    power_iteration,
)
from graphc.frontend.nn.utils.parametrize import compute_attribute, stop_computing
from graphc.frontend.tensor import Tensor

M = TypeVar("M", bound=Module)


def _take_out(module: Module, name: str, kind: str) -> Parameter:
    """The parameter, which the module has no longer."""
    if (kind, name) in _kinds(module):
        raise GraphcError(f"Cannot register two {kind} hooks on the same parameter {name}")
    weight = module._parameters.get(name)
    if weight is None:
        raise ArgumentError(f"Module '{module}' has no parameter with name '{name}'")
    delattr(module, name)
    _kinds(module)[kind, name] = None
    return weight


def _kinds(module: Module) -> dict[Any, Any]:
    return module.__dict__.setdefault("_normalized_weights", {})


def _put_back(module: M, name: str, kind: str, parts: tuple[str, ...]) -> M:
    if (kind, name) not in _kinds(module):
        raise ArgumentError(f"{kind} of '{name}' not found in {module}")
    with no_grad():
        weight = getattr(module, name)
    del _kinds(module)[kind, name]
    stop_computing(module, name)
    for part in parts:
        delattr(module, name + part)
    module.register_parameter(name, Parameter(weight.detach()))
    return module


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Split a weight into its size along `dim`, `<name>_g`, and its direction, `<name>_v`.

    ArgumentError where the module has no such parameter, GraphcError where it has been done already.

    >>> layer = nn.utils.weight_norm(nn.Linear(3, 5))
    >>> layer.weight_g.shape, layer.weight_v.shape
    (graphc.Size([5, 1]), graphc.Size([5, 3]))
    """
    warnings.warn("`nn.utils.weight_norm` is deprecated in favor of `nn.utils.parametrizations.weight_norm`.", FutureWarning,
                  stacklevel=2)
    rule = _WeightNorm(dim)
    weight = _take_out(module, name, "weight_norm")
    with no_grad():
        size, direction = rule.right_inverse(weight.detach())
    module.register_parameter(f"{name}_g", Parameter(size.detach()))
    module.register_parameter(f"{name}_v", Parameter(direction.detach()))

    def compute(self: Any) -> Tensor:
        return rule(getattr(self, f"{name}_g"), getattr(self, f"{name}_v"))

    compute_attribute(module, name, property(compute))
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Make the weight a parameter again.

    ArgumentError where it has not been done.

    >>> layer = nn.utils.remove_weight_norm(nn.utils.weight_norm(nn.Linear(3, 5)))
    >>> sorted(name for name, _ in layer.named_parameters())
    ['bias', 'weight']
    """
    return _put_back(module, name, "weight_norm", ("_g", "_v"))


def spectral_norm(module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
                  dim: int | None = None) -> M:
    """Divide a weight, `<name>_orig`, by its largest singular value, which power iteration estimates in training.

    ArgumentError where the module has no such parameter, GraphcError where it has been done already.

    >>> layer = nn.utils.spectral_norm(nn.Linear(3, 5))
    >>> layer(graphc.zeros(2, 3)).shape, layer.weight_orig.shape
    (graphc.Size([2, 5]), graphc.Size([5, 3]))
    """
    check_iterations(n_power_iterations)
    axis = default_dim(module) if dim is None else dim
    weight = _take_out(module, name, "spectral_norm")
    u, v = first_singular_vectors(as_matrix(weight.detach(), axis), eps)
    module.register_parameter(f"{name}_orig", weight)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)

    def compute(self: Any) -> Tensor:
        original, u, v = (getattr(self, name + part) for part in ("_orig", "_u", "_v"))
        matrix = as_matrix(original, axis)
        if self.training:
            power_iteration(matrix, u, v, n_power_iterations, eps)
        return divided(original, matrix, u, v)

    compute_attribute(module, name, property(compute))
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Make the weight, divided by its largest singular value, a parameter again.

    ArgumentError where it has not been done.

    >>> layer = nn.utils.remove_spectral_norm(nn.utils.spectral_norm(nn.Linear(3, 5)))
    >>> sorted(name for name, _ in layer.named_parameters())
    ['bias', 'weight']
    """
    return _put_back(module, name, "spectral_norm", ("_orig", "_u", "_v"))
