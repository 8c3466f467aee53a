"""Modules as functions of their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.errors import ArgumentError, ArgumentTypeError, GraphcError
from graphc.frontend.joining import stack
from graphc.frontend.nn.module import Module
from graphc.frontend.tensor import Tensor

State = Mapping[str, Tensor]


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: State | Sequence[State],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call a module with other tensors in the place of its parameters and buffers, which are given by their names.

    What is not named stays as it is. In-place changes of a buffer go to the tensor that was given for it.

    tie_weights
        A parameter that the module has under several names is replaced under all of them.
    strict
        Names that are missing, and names that the module does not have, are errors.

    ArgumentError for what is no dict or list of them, and for a name that several have; ArgumentTypeError for what is no
    tensor; KeyError for a name that the module does not have, with `strict` GraphcError for that and for one that is missing.

    >>> layer = nn.Linear(2, 1)
    >>> graphc.func.functional_call(layer, {"weight": graphc.ones(1, 2), "bias": graphc.zeros(1)}, graphc.ones(1, 2))
    tensor([[2.]])
    """
    if isinstance(parameter_and_buffer_dicts, Mapping):
        given = dict(parameter_and_buffer_dicts)
    elif isinstance(parameter_and_buffer_dicts, Sequence):
        given = {}
        for i, one in enumerate(parameter_and_buffer_dicts):
            if not isinstance(one, Mapping):
                raise ArgumentError("Expected all elements of parameter_and_buffer_dicts to be dictionaries",
                                    got=f"{type(one).__name__} at {i}")
            repeated = [name for name in one if name in given]
            if repeated:
                raise ArgumentError(f"{', '.join(repeated)} appeared in multiple dictionaries; behavior of functional call is "
                                    "ambiguous")
            given.update(one)
    else:
        raise ArgumentError("Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got "
                            f"{type(parameter_and_buffer_dicts)}")
    if args is None:
        args = ()
    elif not isinstance(args, tuple):
        args = (args,)
    with _replaced(module, given, tie_weights, strict):
        return module(*args, **(kwargs or {}))


@contextmanager
def _replaced(module: Module, given: dict[str, Tensor], tie_weights: bool, strict: bool) -> Iterator[None]:
    """The module with other tensors, as long as the block runs."""
    places = dict(_places(module))
    unknown = [name for name in given if name not in places]
    if strict:
        known = {id(places[name][0][places[name][1]]) for name in given if name in places} if tie_weights else set()
        missing = [name for name, (home, own) in places.items()
                   if name not in given and home[own] is not None and id(home[own]) not in known]
        if unknown or missing:
            problems = [f"{what} key(s): {', '.join(repr(n) for n in found)}."
                        for what, found in (("Unexpected", unknown), ("Missing", missing)) if found]
            raise GraphcError(f"Error(s) in reparametrizing for {type(module).__name__}:\n\t" + "\n\t".join(problems))
    elif unknown:
        raise KeyError(f"{unknown[0]}: {type(module).__name__} has no parameter or buffer of this name")
    if tie_weights:
        given = _tied(places, given)
    before = {}
    try:
        for name, tensor in given.items():
            home, own = places[name]
            if tensor is not None and not isinstance(tensor, Tensor):
                raise ArgumentTypeError(f"{tensor!r} is not an instance of graphc.Tensor", got=f"for {name}")
            before[name] = home[own]
            home[own] = tensor
        yield
    finally:
        for name, tensor in before.items():
            home, own = places[name]
            home[own] = tensor


def _places(module: Module) -> Iterator[tuple[str, tuple[dict[str, Any], str]]]:
    """Every parameter and buffer by its full name, with the table that it stands in; a shared one under all its names."""
    for prefix, part in module.named_modules(remove_duplicate=False):
        for home in (part._parameters, part._buffers):
            for name in home:
                yield f"{prefix}.{name}" if prefix else name, (home, name)


def _tied(places: Mapping[str, tuple[dict[str, Any], str]], given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under all names of what they replace."""
    names: dict[int, list[str]] = {}
    for name, (home, own) in places.items():
        if home[own] is not None:
            names.setdefault(id(home[own]), []).append(name)
    tied = dict(given)
    for group in names.values():
        tensors = {id(given[name]): given[name] for name in group if name in given}
        if len(tensors) > 1:
            raise ArgumentError(f"functional_call got multiple values for keys {sorted(n for n in group if n in given)}, which "
                                "are tied. Consider using tie_weights=False")
        for tensor in tensors.values():
            tied.update(dict.fromkeys(group, tensor))
    return tied


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters and the buffers of several modules of one kind, those of the same name stacked along dimension 0.

    With `functional_call` and `vmap`, they run as an ensemble. Stacked parameters are leaves that require grad.

    GraphcError for no modules, and for those of different classes or modes, or of which only some require grad.

    >>> parameters, buffers = graphc.func.stack_module_state([nn.Linear(2, 1), nn.Linear(2, 1)])
    >>> parameters["weight"].shape
    graphc.Size([2, 1, 2])
    """
    if len(models) == 0:
        raise GraphcError("stack_module_state: Expected at least one model, got 0.")
    if len({m.training for m in models}) > 1:
        raise GraphcError("stack_module_state: Expected all models to have the same training/eval mode.")
    if len({type(m) for m in models}) > 1:
        raise GraphcError("stack_module_state: Expected all models to be of the same class.",
                          got=", ".join(sorted({type(m).__name__ for m in models})))
    parameters = [dict(m.named_parameters()) for m in models]
    buffers = [dict(m.named_buffers()) for m in models]
    stacked = {name: _leaf([p[name] for p in parameters]) for name in parameters[0]}
    return stacked, {name: _leaf([b[name] for b in buffers]) for name in buffers[0]}


def _leaf(tensors: Sequence[Tensor]) -> Tensor:
    needs = {t.requires_grad for t in tensors}
    if len(needs) > 1:
        raise GraphcError("Expected parameters from each model to have the same .requires_grad")
    return stack([t.detach() for t in tensors]).requires_grad_(needs.pop())


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Let all batch norms of a module go without running statistics, which vmap could not keep; returns the module.

    >>> model = graphc.func.replace_all_batch_norm_modules_(nn.Sequential(nn.BatchNorm1d(3)))
    >>> model[0].running_mean is None
    True
    """
    for part in root.modules():
        if hasattr(part, "track_running_stats") and hasattr(part, "running_mean"):
            part.running_mean = part.running_var = part.num_batches_tracked = None
            part.track_running_stats = False
    return root
