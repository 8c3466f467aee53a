"""vmap: a function of one example made a function of a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError, GraphcError
from graphc.frontend.func.batch import BatchLevel, from_front, to_front
from graphc.frontend.joining import cat
from graphc.frontend.movement import part
from graphc.frontend.pytree import LEAF, Structure, flatten, unflatten
from graphc.frontend.random import default_generator
from graphc.frontend.tensor import Tensor


def vmap(
    func: Callable[..., Any], in_dims: Any = 0, out_dims: Any = 0, randomness: str = "error", *, chunk_size: int | None = None
) -> Callable[..., Any]:
    """A function that applies `func` to every element of a batch at once, and returns the results as a batch.

    Inside, `func` sees tensors without the batch's dimension. Each operation runs once, for the whole batch.

    in_dims
        The dimension of each argument that is the batch's; None for what is the same for all. A number for all arguments,
        or a tuple nested as they are.
    out_dims
        Where the batch goes in each result; None for a result that is the same for all, which then gets no batch.
    randomness
        What random functions do: "error", "same" numbers for all elements, or "different" ones.
    chunk_size
        At most so many elements at once, to save memory.

    GraphcError for another `randomness`, ArgumentError for a `chunk_size` below 1, and at a call where `in_dims` or `out_dims`
    do not fit what comes or is returned, or the batch is not of one size.

    >>> import graphc
    >>> graphc.vmap(graphc.dot)(graphc.ones(3, 2), graphc.ones(3, 2))
    tensor([2., 2., 2.])
    """
    if randomness not in ("error", "different", "same"):
        raise GraphcError(f"Only allowed values for randomness are 'error', 'different', or 'same'. Got {randomness}")
    if chunk_size is not None and chunk_size <= 0:
        raise ArgumentError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")
    name = _name(func)
    for dim in flatten(out_dims)[0]:
        if not isinstance(dim, int) and dim is not None:
            raise ArgumentError(f"vmap({name}, ..., out_dims={out_dims}): `out_dims` must be an int, None or a python "
                                "collection of ints representing where in the outputs the vmapped dimension should appear.")

    @functools.wraps(func, assigned=[a for a in functools.WRAPPER_ASSIGNMENTS if hasattr(func, a)], updated=())
    def batched(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = flatten(args)
        dims = _in_dims(name, in_dims, leaves, structure)
        size = _size(leaves, dims)

        def run(size: Any, leaves: Sequence[Any]) -> tuple[list[Any], list[int | None], Structure]:
            fronted = [x if dim is None else to_front(x, dim) for x, dim in zip(leaves, dims)]
            level = BatchLevel(size, randomness)
            with level.entered():
                inside = [x if dim is None else level.enter_batch(x) for x, dim in zip(fronted, dims)]
                result = func(*unflatten(structure, inside), **kwargs)
                return _outside(name, level, result, out_dims)

        if chunk_size is None or chunk_size >= size:
            results, _, result_structure = run(size, leaves)
            return unflatten(result_structure, results)
        return _in_chunks(run, leaves, dims, size, chunk_size, keep_state=randomness == "same")

    return batched


def _name(func: Callable[..., Any]) -> str:
    if isinstance(func, functools.partial):
        return f"functools.partial({_name(func.func)}, ...)"
    return getattr(func, "__name__", None) or repr(func)


def _in_dims(name: str, in_dims: Any, leaves: Sequence[Any], structure: Structure) -> list[int | None]:
    """The batch's dimension of each leaf of the arguments."""
    call = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>)"
    if not isinstance(in_dims, (int, tuple)):
        raise ArgumentError(f"{call}: expected `in_dims` to be int or a (potentially nested) tuple matching the structure of "
                            f"inputs, got: {type(in_dims)}.")
    if not structure.children:
        raise ArgumentError(f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are trying to vmap "
                            "over a function with no inputs. The latter is unsupported.")
    found = spread(in_dims, structure)
    if found is None:
        raise ArgumentError(f"{call}: in_dims is not compatible with the structure of `inputs`. in_dims has structure "
                            f"{described(in_dims)} but inputs has structure {described(unflatten(structure, leaves))}.")
    dims: list[int | None] = []
    for x, dim in zip(leaves, found):
        if not isinstance(dim, int) and dim is not None:
            raise ArgumentError(f"{call}: Got in_dim={dim} for an input but in_dim must be either an integer dimension or "
                                "None.")
        if dim is not None and not isinstance(x, Tensor):
            raise ArgumentError(f"{call}: Got in_dim={dim} for an input but the input is of type {type(x)}. We cannot vmap "
                                "over non-Tensor arguments, please use None as the respective in_dim")
        if dim is not None and not -x.dim() <= dim < x.dim():
            raise ArgumentError(f"{call}: Got in_dim={dim} for some input, but that input is a Tensor of dimensionality "
                                f"{x.dim()} so expected in_dim to satisfy -{x.dim()} <= in_dim < {x.dim()}.")
        dims.append(dim if dim is None else dim % x.dim())
    return dims


def _size(leaves: Sequence[Any], dims: Sequence[int | None]) -> Any:
    sizes = [x.shape[dim] for x, dim in zip(leaves, dims) if dim is not None]
    if not sizes:
        raise ArgumentError("vmap: Expected at least one Tensor to vmap over")
    if any(size != sizes[0] for size in sizes):
        raise ArgumentError("vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
                            f"{sizes} for the mapped dimension")
    return sizes[0]


def _outside(name: str, level: BatchLevel, result: Any, out_dims: Any) -> tuple[list[Any], list[int | None], Structure]:
    """The results outside of the level, with the batch where out_dims say."""
    leaves, structure = flatten(result)
    wanted = out_dims
    if isinstance(result, Tensor) and isinstance(out_dims, tuple) and len(out_dims) == 1:
        wanted = out_dims[0]
    dims = spread(wanted, structure)
    if dims is None:
        raise ArgumentError(f"vmap({name}, ..., out_dims={out_dims})(<inputs>): out_dims is not compatible with the structure "
                            f"of `outputs`. out_dims has structure {described(out_dims)} but outputs has structure "
                            f"{described(result)}.")
    results: list[Any] = []
    for x, dim in zip(leaves, dims):
        if dim is None:
            if level.is_batched(x):
                raise ArgumentError(f"vmap({name}, ...): `{name}` can not return a BatchedTensor when out_dim is None")
            results.append(level.leave(x) if isinstance(x, Tensor) else x)
        elif not isinstance(x, Tensor):
            raise ArgumentError(f"vmap({name}, ...): `{name}` must only return Tensors, got type {type(x)}. Did you mean to "
                                "set out_dims= to None for output?")
        else:
            whole = level.stacked(x)
            with level.outside():
                results.append(from_front(whole, dim))
    return results, dims, structure


def _in_chunks(
    run: Callable[..., Any], leaves: Sequence[Any], dims: Sequence[int | None], size: int, chunk_size: int, keep_state: bool
) -> Any:
    chunks = []
    state = default_generator._state.clone() if keep_state else None
    for start in range(0, size, chunk_size):
        stop = min(start + chunk_size, size)
        if state is not None:
            default_generator._state.copy_(state)
        chunks.append(run(stop - start, [x if dim is None else part(x, dim, start, stop) for x, dim in zip(leaves, dims)]))
    _, out_dims, structure = chunks[0]
    return unflatten(structure, [
        pieces[0] if dim is None else cat(pieces, dim) for dim, pieces in zip(out_dims, zip(*(c[0] for c in chunks)))
    ])


def spread(prefix: Any, structure: Structure) -> list[Any] | None:
    """A tree that is nested as `structure`, or less deep, with what it says of a container said of each leaf in it."""
    own = flatten_one(prefix)
    if own is None:
        return [prefix] * structure.leaves
    kind, children, keys = own
    if kind != structure.kind or len(children) != len(structure.children) or keys != structure.keys:
        return None
    found: list[Any] = []
    for child, below in zip(children, structure.children):
        spreaded = spread(child, below)
        if spreaded is None:
            return None
        found += spreaded
    return found


def flatten_one(tree: Any) -> tuple[str, list[Any], tuple[Any, ...]] | None:
    """Kind, children and keys of a container; None for a leaf."""
    leaves, structure = flatten(tree)
    if structure == LEAF:
        return None
    children, start = [], 0
    for child in structure.children:
        children.append(unflatten(child, leaves[start : start + child.leaves]))
        start += child.leaves
    return structure.kind, children, structure.keys


def described(tree: Any) -> str:
    """How a tree is nested, a star for each leaf."""
    leaves, structure = flatten(tree)
    return str(unflatten(structure, [_Star()] * len(leaves)))


class _Star:
    def __repr__(self) -> str:
        return "*"
