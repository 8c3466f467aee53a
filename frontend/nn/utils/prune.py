"""Pruning: some elements of a parameter are held at zero by a mask.

`module.<name>` becomes `<name>_orig * <name>_mask`, computed each time that it is read: `<name>_orig` is the parameter that
there was and goes on being trained, `<name>_mask` a buffer of ones and zeros. `remove` makes the product a parameter again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

from graphc.errors import ArgumentError, ArgumentTypeError
from graphc.frontend.creation_like import full_like, ones_like
from graphc.frontend.joining import cat
from graphc.frontend.linalg_norms import norm
from graphc.frontend.modes import no_grad
from graphc.frontend.movement import flatten, movedim
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.utils.parametrize import compute_attribute, stop_computing
from graphc.frontend.random import rand, rand_like
from graphc.frontend.settings_text import PrintsSettings
from graphc.frontend.sorting import topk
from graphc.frontend.tensor import Tensor

M = TypeVar("M", bound=Module)
Amount = int | float


class BasePruningMethod(PrintsSettings, ABC):
    """A rule that says which elements are pruned. Subclasses define `compute_mask`, and PRUNING_TYPE: what the method is
    shown of a tensor that has been pruned before, "unstructured" the elements that are left, "structured" the slices that
    have any left, "global" all.
    """

    PRUNING_TYPE: ClassVar[str]
    _tensor_name: str

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask for elements of importance `t`: zeros where `default_mask` has them, and where the rule wants them."""

    @classmethod
    def apply(cls, module: Module, name: str, *args: Any, importance_scores: Tensor | None = None,
              **kwargs: Any) -> BasePruningMethod:
        """Prune a parameter of a module by this rule, which gets the remaining arguments; returns the rule.

        `importance_scores` has the parameter's shape and is looked at in its stead. A parameter that is pruned already is
        pruned further.
        """
        method = cls(*args, **kwargs)
        method._tensor_name = name
        tensor = getattr(module, name, None)
        if not isinstance(tensor, Tensor):
            raise AttributeError(f"{type(module).__name__} has no parameter '{name}' to prune")
        with no_grad():
            scores = tensor.detach() if importance_scores is None else importance_scores
            if scores.shape != tensor.shape:
                raise ArgumentError(f"importance_scores should have the same shape as parameter {name} of {module}",
                                    expected=str(list(tensor.shape)), got=str(list(scores.shape)))
            before = _methods(module).get(name)
            if before is None:
                original = module._parameters.get(name)
                if original is None:
                    raise ArgumentError(f"prune: '{name}' is not a parameter of {type(module).__name__}")
                mask = method.compute_mask(scores, ones_like(tensor.detach())).to(tensor.dtype)
                delattr(module, name)
                module.register_parameter(f"{name}_orig", original)
                module.register_buffer(f"{name}_mask", mask)
                compute_attribute(module, name, property(lambda self: method.apply_mask(self)))
            else:
                container = before if isinstance(before, PruningContainer) else PruningContainer(before)
                container.add_pruning_method(method)
                mask = container.compute_mask(scores, getattr(module, f"{name}_mask"))
                setattr(module, f"{name}_mask", mask.to(tensor.dtype))
                method = container
        _methods(module)[name] = method
        return method

    def apply_mask(self, module: Module) -> Tensor:
        """The parameter with zeros where it is pruned."""
        original = getattr(module, f"{self._tensor_name}_orig")
        return getattr(module, f"{self._tensor_name}_mask").to(original.dtype) * original

    def prune(self, t: Tensor, default_mask: Tensor | None = None, importance_scores: Tensor | None = None) -> Tensor:
        """A tensor pruned by this rule; it stays as it is itself."""
        scores = t if importance_scores is None else importance_scores
        if scores.shape != t.shape:
            raise ArgumentError("importance_scores should have the same shape as tensor t", expected=str(list(t.shape)),
                                got=str(list(scores.shape)))
        mask = ones_like(t) if default_mask is None else default_mask
        return t * self.compute_mask(scores, mask)

    def remove(self, module: Module) -> None:
        """Make the pruned parameter an ordinary one, with its zeros."""
        name = self._tensor_name
        if _methods(module).pop(name, None) is None:
            raise ArgumentError(f"Module {module} has to be pruned before pruning can be removed")
        with no_grad():
            value = self.apply_mask(module)
        original = module._parameters[f"{name}_orig"]
        assert original is not None
        original.data = value.detach()
        stop_computing(module, name)
        delattr(module, f"{name}_orig")
        delattr(module, f"{name}_mask")
        module.register_parameter(name, original)


def _methods(module: Module) -> dict[str, BasePruningMethod]:
    """The rules by which a module's parameters are pruned."""
    return module.__dict__.setdefault("_pruning_methods", {})


class PruningContainer(BasePruningMethod):
    """Several rules on one parameter, each of which prunes what the earlier ones have left."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, *args: Any) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        given = args[0] if len(args) == 1 and not isinstance(args[0], BasePruningMethod) else args
        if isinstance(given, Iterable):
            for method in given:
                self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        """Add a rule for the same parameter."""
        if not isinstance(method, BasePruningMethod):
            raise ArgumentTypeError(f"{type(method)} is not a BasePruningMethod subclass")
        name = getattr(method, "_tensor_name", None)
        if not self._pruning_methods and name is not None:
            self._tensor_name = name
        elif name != getattr(self, "_tensor_name", name):
            raise ArgumentError("Can only add pruning methods acting on the parameter named "
                                f"'{self._tensor_name}' to PruningContainer {self}", got=repr(name))
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Any:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """`default_mask` with more zeros, by the rule that came last."""
        method = self._pruning_methods[-1]
        mask = default_mask.clone()
        if method.PRUNING_TYPE == "unstructured":
            left: Any = mask == 1
        elif method.PRUNING_TYPE == "structured":
            dim = _dimension(t, method.dim)  # type: ignore[attr-defined]
            left = (slice(None),) * dim + (flatten(movedim(mask, dim, 0), 1).sum(1) != 0,)
        elif method.PRUNING_TYPE == "global":
            left = (slice(None),) * t.dim()
        else:
            raise ArgumentError(f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}",
                                expected="unstructured, structured or global")
        mask[left] = method.compute_mask(t[left], mask[left]).to(mask.dtype)
        return mask


class Identity(BasePruningMethod):
    """Prunes nothing: the parameter is masked by ones."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """`default_mask` itself."""
        return default_mask


class RandomUnstructured(BasePruningMethod):
    """Prunes elements at random."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: Amount) -> None:
        _check_amount(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """`default_mask` with zeros at random places."""
        return _without(default_mask, rand_like(t.float()), _count(self.amount, t.numel()))


class L1Unstructured(BasePruningMethod):
    """Prunes the elements of the smallest size."""

    PRUNING_TYPE = "unstructured"

    def __init__(self, amount: Amount) -> None:
        _check_amount(amount)
        self.amount = amount

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """`default_mask` with zeros where |t| is smallest."""
        return _without(default_mask, t.abs(), _count(self.amount, t.numel()))


class RandomStructured(BasePruningMethod):
    """Prunes slices along a dimension at random."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: Amount, dim: int = -1) -> None:
        _check_amount(amount)
        self.amount = amount
        self.dim = dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """`default_mask` without some slices."""
        dim = _dimension(t, self.dim)
        size = t.shape[dim]
        return _without_slices(default_mask, rand(size), _count(self.amount, size), dim)


class LnStructured(BasePruningMethod):
    """Prunes the slices along a dimension whose n-norm is smallest."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: Amount, n: Any, dim: int = -1) -> None:
        _check_amount(amount)
        self.amount = amount
        self.n = n
        self.dim = dim

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """`default_mask` without the slices of small norm."""
        dim = _dimension(t, self.dim)
        sizes = norm(t, self.n, tuple(i for i in range(t.dim()) if i != dim))
        return _without_slices(default_mask, sizes, _count(self.amount, t.shape[dim]), dim)


class CustomFromMask(BasePruningMethod):
    """Prunes what a mask says."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """`default_mask` with the zeros of this rule's mask too."""
        if self.mask.shape != default_mask.shape:
            raise ArgumentError("prune: the mask has another shape than the parameter",
                                expected=str(list(default_mask.shape)), got=str(list(self.mask.shape)))
        return default_mask * self.mask.to(default_mask.dtype)


def _check_amount(amount: Any) -> None:
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise ArgumentTypeError(f"Invalid type for amount: {amount}. Must be int or float.")
    if amount < 0 or (isinstance(amount, float) and amount > 1):
        raise ArgumentError(f"amount={amount} should either be a float in the range [0.0, 1.0] or a non-negative integer")


def _count(amount: Amount, size: int) -> int:
    """How many of `size` things are pruned: a share of them, or a number."""
    if isinstance(amount, float):
        return round(amount * size)
    if amount > size:
        raise ArgumentError(f"amount={amount} should be smaller than the number of parameters to prune={size}")
    return amount


def _dimension(t: Tensor, dim: int) -> int:
    if t.dim() <= 1:
        raise ArgumentError("Structured pruning can only be applied to a multidimensional tensor.",
                            got=f"shape {list(t.shape)}", hint="use an unstructured method")
    if not -t.dim() <= dim < t.dim():
        raise IndexError(f"Invalid dimension: {dim} for tensor of size {list(t.shape)}")
    return dim % t.dim()


def _without(mask: Tensor, sizes: Tensor, count: int) -> Tensor:
    """A mask with zeros for the `count` smallest sizes."""
    mask = mask.clone()
    if count:
        mask.reshape(-1)[topk(sizes.reshape(-1), count, largest=False).indices] = 0
    return mask


def _without_slices(mask: Tensor, sizes: Tensor, count: int, dim: int) -> Tensor:
    """A mask with zeros in the `count` slices along `dim` whose sizes are smallest."""
    kept = full_like(sizes, 1)
    kept[topk(sizes, count, largest=False).indices] = 0
    return mask * kept.reshape([-1 if i == dim else 1 for i in range(mask.dim())]).to(mask.dtype)


# Functions


def identity(module: M, name: str) -> M:
    """Mask a parameter by ones."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: M, name: str, amount: Amount) -> M:
    """Prune a share of the elements, or a number of them, at random."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(module: M, name: str, amount: Amount, importance_scores: Tensor | None = None) -> M:
    """Prune a share of the elements, or a number of them: those of the smallest size, or of the smallest score.

    >>> import graphc
    >>> layer = graphc.nn.Linear(2, 2, bias=False)
    >>> layer.weight.data = graphc.tensor([[3.0, -1.0], [0.5, 2.0]])
    >>> graphc.nn.utils.prune.l1_unstructured(layer, "weight", amount=0.5).weight
    tensor([[3., -0.],
            [0., 2.]], grad_fn=<MulBackward0>)
    >>> [name for name, _ in layer.named_parameters()], [name for name, _ in layer.named_buffers()]
    (['weight_orig'], ['weight_mask'])
    """
    L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module


def random_structured(module: M, name: str, amount: Amount, dim: int) -> M:
    """Prune a share of the slices along a dimension, or a number of them, at random."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(module: M, name: str, amount: Amount, n: Any, dim: int, importance_scores: Tensor | None = None) -> M:
    """Prune a share of the slices along a dimension, or a number of them: those with the smallest n-norm."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: M, name: str, mask: Tensor) -> M:
    """Prune the elements for which a mask of the parameter's shape is zero."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(parameters: Iterable[tuple[Module, str]], pruning_method: type[BasePruningMethod],
                        importance_scores: dict[tuple[Module, str], Tensor] | None = None, **kwargs: Any) -> None:
    """Prune several parameters, given as pairs (module, name), by one rule over the elements of all of them together."""
    pairs = list(parameters) if isinstance(parameters, Iterable) else []
    if not pairs:
        raise ArgumentTypeError("global_unstructured(): parameters is not a list of pairs (module, name)")
    if importance_scores is not None and not isinstance(importance_scores, dict):
        raise ArgumentTypeError("global_unstructured(): importance_scores should be a dict",
                                got=type(importance_scores).__name__)
    rule = pruning_method(**kwargs)
    if rule.PRUNING_TYPE != "unstructured":
        raise ArgumentTypeError(f'Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. Found method '
                                f"{pruning_method} of type {rule.PRUNING_TYPE}")
    with no_grad():
        scores, masks = [], []
        for module, name in pairs:
            tensor = getattr(module, name).detach()
            scores.append((importance_scores or {}).get((module, name), tensor).reshape(-1))
            masks.append(getattr(module, f"{name}_mask", ones_like(tensor)).reshape(-1))
        rule._tensor_name = "all"
        container = PruningContainer(rule)
        found = container.compute_mask(cat(scores), cat(masks))
        start = 0
        for module, name in pairs:
            tensor = getattr(module, name)
            custom_from_mask(module, name, found[start : start + tensor.numel()].view(tensor.shape))
            start += tensor.numel()


def remove(module: M, name: str) -> M:
    """Make a pruned parameter an ordinary one, with its zeros."""
    method = _methods(module).get(name)
    if method is None:
        raise ArgumentError(f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed")
    method.remove(module)
    return module


def is_pruned(module: Module) -> bool:
    """Whether a parameter of the module, or of one inside it, is pruned."""
    return any(part.__dict__.get("_pruning_methods") for part in module.modules())
