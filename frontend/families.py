"""The files whose functions are public. Each says by constants of its own which of them are what:

    FUNCTIONS   functions of `graphc.`, which get an `out=` argument
    METHODS     methods of tensors
    IN_PLACE    those of the methods that have a form which changes the tensor: `relu` has `relu_`
    ALIASES     other names, which hold for all three kinds

The constants are lists of names, separated by white space; ALIASES is a mapping to them.
"""

from __future__ import annotations

from types import ModuleType

from graphc.frontend import (
    activations,
    adaptive_pooling,
    arithmetic,
    complex_numbers,
    conversion,
    convolution,
    copying,
    creation,
    creation_like,
    cumulative,
    diagonals,
    distance_matrices,
    distances,
    dropout,
    einsum,
    elementary,
    exchange,
    filling,
    from_data,
    grid_sampling,
    grids,
    indexing,
    inplace,
    joining,
    linalg_norms,
    linalg_toplevel,
    logic,
    matrices,
    movement,
    namesakes,
    normalization,
    padding,
    patches,
    pointwise,
    pooling,
    products,
    queries,
    random,
    ranges,
    recurrent,
    reductions,
    scattering,
    sharing,
    sorting,
    spectral,
    splitting,
    statistics,
    triangles,
    windows,
)

FAMILIES: tuple[ModuleType, ...] = (
    pointwise, arithmetic, elementary, logic, complex_numbers, reductions, movement, copying, joining, indexing, matrices,
    activations, creation, creation_like, from_data, ranges, triangles, exchange, random, filling, conversion, queries, inplace,
    sorting, cumulative, recurrent, statistics, splitting, diagonals, scattering, grids, distances, products, distance_matrices,
    convolution, pooling, adaptive_pooling, dropout, normalization, namesakes, padding, grid_sampling, patches, windows,
    einsum, linalg_norms, linalg_toplevel, spectral,
    sharing,
)  # fmt: skip


def names(family: ModuleType, kind: str) -> list[str]:
    """The names that a file lists under one of the constants."""
    return getattr(family, kind, "").split()


ALIASES: dict[str, str] = {other: name for family in FAMILIES for other, name in getattr(family, "ALIASES", {}).items()}
"""All other names of functions."""
