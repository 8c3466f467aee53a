"""Reading images at places that a grid of coordinates gives (Jaderberg et al. 2015, "Spatial transformer networks")."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from graphc.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from graphc.frontend.arithmetic import remainder
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.indexing import gather
from graphc.frontend.joining import stack
from graphc.frontend.matrices import matmul
from graphc.frontend.movement import expand, reshape, select, transpose, unsqueeze
from graphc.frontend.pointwise import abs, cast, clamp, floor, round, where
from graphc.frontend.resampling import cubic
from graphc.frontend.spatial import constant
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import int64

FUNCTIONS = "affine_grid_generator grid_sampler grid_sampler_2d grid_sampler_3d"

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")


@full_precision
def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Tensor:
    """The elements of [N, C, H, W] at the coordinates [N, H', W', 2], or of [N, C, D, H, W] at [N, D', H', W', 3].

    Coordinates are (x, y) or (x, y, z), from -1 at one end of the input to 1 at the other: at the outer edges of its
    outermost elements, or, with `align_corners`, at their centres. What lies outside is read as zero, at the border, or
    reflected.

    ArgumentError for another mode or padding; ShapeError where the sizes do not fit, UnsupportedError for integers, DTypeError
    where the dtypes differ.

    >>> image = graphc.arange(4.0).view(1, 1, 2, 2)
    >>> F.grid_sample(image, graphc.zeros(1, 1, 1, 2), align_corners=True)
    tensor([[[[1.5000]]]])
    """
    if mode not in _MODES:
        raise ArgumentError(f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', but got: "
                            f"'{mode}'")
    if padding_mode not in _PADDINGS:
        raise ArgumentError("nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or 'reflection', but "
                            f"got: '{padding_mode}'")
    _check_grid(input, grid, mode)
    return _sampled(input, grid, mode, padding_mode, bool(align_corners))


@composite
def _sampled(input: Tensor, grid: Tensor, mode: str, padding_mode: str, aligned: bool) -> Tensor:
    sizes = tuple(input._data.shape[2:])
    # the last dimension's coordinate stands first
    centres = [_unnormalized(select(grid, -1, len(sizes) - 1 - i), n, aligned) for i, n in enumerate(sizes)]
    read = _Reader(input, padding_mode, aligned)
    if mode == "bicubic":
        out = _bicubic(read, centres)
    else:
        if padding_mode != "zeros":
            centres = [read.inside(c, i) for i, c in enumerate(centres)]
        out = read(list(map(round, centres))) if mode == "nearest" else _linear(read, centres)
    return named(out, f"GridSampler{len(sizes)}D")


def _check_grid(input: Tensor, grid: Tensor, mode: str) -> None:
    dims = input.dim() - 2
    if dims not in (2, 3) or grid.dim() != input.dim():
        raise ShapeError("grid_sampler(): expected 4D or 5D input and grid with same number of dimensions, but got input with "
                         f"sizes {list(input.shape)} and grid with sizes {list(grid.shape)}")
    if grid._data.shape[0] != input._data.shape[0]:
        raise ShapeError("grid_sampler(): expected grid and input to have same batch size, but got input with sizes "
                         f"{list(input.shape)} and grid with sizes {list(grid.shape)}")
    if grid._data.shape[-1] != dims:
        raise ShapeError(f"grid_sampler(): expected grid to have size {dims} in last dimension, but got grid with sizes "
                         f"{list(grid.shape)}")
    for i, n in enumerate(input._data.shape[2:]):
        if isinstance(n, int) and n == 0:
            raise ShapeError("grid_sampler(): expected input to have non-empty spatial dimensions, but input has sizes "
                             f"{list(input.shape)} with dimension {i + 2} being empty")
    if mode == "bicubic" and dims != 2:
        raise ShapeError("grid_sampler(): bicubic interpolation only supports 4D input", got=str(list(input.shape)))
    if not input.dtype.is_floating_point:
        raise UnsupportedError(f'"grid_sampler_{dims}d" not implemented for {input.dtype.name}',
                               expected="a floating-point dtype")
    if grid.dtype is not input.dtype:
        raise DTypeError(f"expected scalar type {input.dtype.name} but found {grid.dtype.name}",
                         expected="input and grid of one dtype")


def _unnormalized(coordinate: Tensor, size: int, aligned: bool) -> Tensor:
    """-1 ... 1 as the index of an element, with a fraction."""
    return (coordinate + 1) / 2 * (size - 1) if aligned else ((coordinate + 1) * size - 1) / 2


class _Reader:
    """Reads the elements [N, C, *T] of an input at places: one tensor [N, *T] of whole numbers a dimension."""

    def __init__(self, input: Tensor, padding: str, aligned: bool) -> None:
        self.shape = tuple(input._data.shape)
        self.sizes = self.shape[2:]
        self.flat = reshape(input, (*self.shape[:2], math.prod(self.sizes)))
        self.padding = padding
        self.aligned = aligned

    def inside(self, centre: Tensor, i: int) -> Tensor:
        """A coordinate, moved into the input as the padding says."""
        size = self.sizes[i]
        if self.padding == "reflection":
            low, high = (0.0, size - 1.0) if self.aligned else (-0.5, size - 0.5)
            centre = _reflected(centre, low, high)
        # no gradient at the ends and beyond; what is no number is read at the first element
        held = where(centre > 0, where(centre < size - 1, centre, size - 1.0), 0.0)
        return held

    def __call__(self, place: Sequence[Tensor]) -> Tensor:
        shape = tuple(place[0]._data.shape)
        flat: Any = 0
        within: Any = None
        for p, size in zip(place, self.sizes):
            p = p.detach()
            if self.padding == "zeros":
                here = (p >= 0) & (p <= size - 1)
                within = here if within is None else within & here
                p = where(here, p, 0.0)
            flat = flat * size + cast(p, int64)
        count = math.prod(shape[1:])
        channels = self.shape[1]
        index = expand(reshape(flat, (shape[0], 1, count)), (shape[0], channels, count))
        read = reshape(gather(self.flat, 2, index), (shape[0], channels, *shape[1:]))
        return read if within is None else where(unsqueeze(within, 1), read, 0.0)


def _reflected(x: Tensor, low: float, high: float) -> Tensor:
    """x, reflected at both ends until it lies between them."""
    if low == high:
        return x * 0.0
    span = high - low
    distance = remainder(abs(x - low), 2 * span)
    return where(distance <= span, distance, 2 * span - distance) + low


def _linear(read: _Reader, centres: Sequence[Tensor]) -> Tensor:
    lows = [floor(c.detach()) for c in centres]
    shares = [c - low for c, low in zip(centres, lows)]
    out: Any = None
    for corner in itertools.product((0, 1), repeat=len(centres)):
        weight: Any = None
        place = []
        for step, low, share, size in zip(corner, lows, shares, read.sizes):
            factor = share if step else 1 - share
            weight = factor if weight is None else weight * factor
            place.append(low + step if read.padding == "zeros" else clamp(low + step, max=size - 1))
        term = read(place) * unsqueeze(weight, 1)
        out = term if out is None else out + term
    return out


def _bicubic(read: _Reader, centres: Sequence[Tensor]) -> Tensor:
    lows = [floor(c.detach()) for c in centres]
    rows, columns = (cubic(c - low, -0.75) for c, low in zip(centres, lows))
    out: Any = None
    for i, row in enumerate(rows):
        line: Any = None
        for j, column in enumerate(columns):
            place = [low + (step - 1) for low, step in zip(lows, (i, j))]
            if read.padding != "zeros":
                place = [read.inside(p, k) for k, p in enumerate(place)]
            term = read(place) * unsqueeze(column, 1)
            line = term if line is None else line + term
        line = line * unsqueeze(row, 1)
        out = line if out is None else out + line
    return out


def grid_sampler(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
    """`grid_sample` with numbers for the modes: 0 bilinear, 1 nearest, 2 bicubic; 0 zeros, 1 border, 2 reflection.

    ArgumentError for another number.

    >>> image = graphc.arange(4.0).view(1, 1, 2, 2)
    >>> graphc.grid_sampler(image, graphc.zeros(1, 1, 1, 2), 0, 0, True)
    tensor([[[[1.5000]]]])
    """
    mode = _numbered(interpolation_mode, _MODES, "interpolation_mode")
    return grid_sample(input, grid, mode, _numbered(padding_mode, _PADDINGS, "padding_mode"), align_corners)


def _numbered(number: int, names: tuple[str, ...], argument: str) -> str:
    if not 0 <= number < len(names):
        raise ArgumentError(f"grid_sampler(): there is no {argument} of this number",
                            expected=", ".join(f"{i} ({name})" for i, name in enumerate(names)), got=str(number))
    return names[number]


def grid_sampler_2d(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
    """`grid_sampler` for [N, C, H, W].

    ShapeError for an input that is not of four dimensions.

    >>> image = graphc.arange(4.0).view(1, 1, 2, 2)
    >>> graphc.grid_sampler_2d(image, graphc.zeros(1, 1, 1, 2), 0, 0, True)
    tensor([[[[1.5000]]]])
    """
    if input.dim() != 4:
        raise ShapeError(f"grid_sampler_2d: expected 4D input, got {list(input.shape)}")
    return grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners)


def grid_sampler_3d(input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool) -> Tensor:
    """`grid_sampler` for [N, C, D, H, W].

    ShapeError for an input that is not of five dimensions.

    >>> image = graphc.arange(8.0).view(1, 1, 2, 2, 2)
    >>> graphc.grid_sampler_3d(image, graphc.zeros(1, 1, 1, 1, 3), 0, 0, True)
    tensor([[[[[3.5000]]]]])
    """
    if input.dim() != 5:
        raise ShapeError(f"grid_sampler_3d: expected 5D input, got {list(input.shape)}")
    return grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners)


# Grids


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid that `grid_sample` needs for an affine map: theta [N, 2, 3] and size (N, C, H, W) give [N, H, W, 2],
    theta [N, 3, 4] and size (N, C, D, H, W) give [N, D, H, W, 3].

    ArgumentError where theta does not fit the size or is of integers, and for sizes below 1; UnsupportedError for sizes of
    another number of dimensions.

    >>> F.affine_grid(graphc.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), (1, 1, 2, 2), align_corners=True)[0, 1]
    tensor([[-1.,  1.],
            [ 1.,  1.]])
    """
    if not theta.dtype.is_floating_point:
        raise ArgumentError(f"Expected theta to have floating point type, but got {theta.dtype}")
    dims = len(size) - 2
    if dims not in (2, 3):
        raise UnsupportedError("affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. Got "
                               f"size {tuple(size)}.")
    if theta.dim() != 3 or tuple(theta._data.shape[1:]) != (dims, dims + 1):
        raise ArgumentError(f"Expected a batch of {dims}D affine matrices of shape Nx{dims}x{dims + 1} for size {tuple(size)}. "
                            f"Got {list(theta.shape)}.")
    if min(size) <= 0:
        raise ArgumentError(f"Expected non-zero, positive output size. Got {tuple(size)}")
    out = tuple(size[2:])
    lines = []
    for i in reversed(range(dims)):  # x stands first
        line = _even(out[i], bool(align_corners))
        along = tuple(out[i] if j == i else 1 for j in range(dims))
        lines.append(expand(reshape(constant(line, theta), along), out))
    ones = expand(constant(1.0, theta), out)
    points = reshape(stack([*lines, ones], -1), (1, math.prod(out), dims + 1))
    return reshape(matmul(points, transpose(theta, 1, 2)), (theta._data.shape[0], *out, dims))


def _even(count: int, aligned: bool) -> list[float]:
    """Evenly spaced numbers between -1 and 1: the ends themselves, or the middles of `count` intervals."""
    if aligned:
        return [2 * k / (count - 1) - 1 for k in range(count)] if count > 1 else [0.0]
    return [(2 * k + 1) / count - 1 for k in range(count)]


def affine_grid_generator(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """`affine_grid`.

    ArgumentError where theta does not fit the size.

    >>> graphc.affine_grid_generator(graphc.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), (1, 1, 2, 2), True)[0, 1]
    tensor([[-1.,  1.],
            [ 1.,  1.]])
    """
    return affine_grid(theta, size, align_corners)
