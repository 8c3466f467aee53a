"""Pooling into a given number of windows: evenly spread ones, and pseudo-random ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, ArgumentTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import emit
from graphc.frontend.autocast import full_precision
from graphc.frontend.composite import composite
from graphc.frontend.indexing import gather, index_select
from graphc.frontend.movement import expand, movedim, reshape, squeeze, unflatten, unsqueeze
from graphc.frontend.pointwise import cast, floor, where
from graphc.frontend.pooling import maxima, positions
from graphc.frontend.random import rand
from graphc.frontend.spatial import Ints, batched, constant, places, spread, unbatched
from graphc.frontend.tape import named
from graphc.frontend.tensor import Tensor
from graphc.types import float32, int64

FUNCTIONS = "adaptive_avg_pool1d adaptive_max_pool1d"


def _output_size(function: str, output_size: Any, x: Tensor, dims: int) -> tuple[int, ...]:
    given = (output_size,) * dims if isinstance(output_size, int) or output_size is None else tuple(output_size)
    if len(given) == 1:
        given = given * dims
    if len(given) != dims:
        raise ArgumentTypeError(f"{function}: output_size has {len(given)} numbers", expected=str(dims))
    if 0 in x._data.shape[1:]:
        raise ShapeError(f"{function}: Expected input to have non-zero size for non-batch dimensions, but input has sizes "
                         f"{list(x.shape)}")
    wanted = tuple(s if g is None else int(g) for g, s in zip(given, x._data.shape[2:]))
    if any(w < 0 for w in wanted):
        raise ArgumentError(f"{function}: elements of output_size must be greater than or equal to 0", got=str(list(wanted)))
    return wanted


class _Spans:
    """Along one dimension: window j reaches from floor(j * size / count) up to ceil((j + 1) * size / count)."""

    def __init__(self, size: int, count: int) -> None:
        self.size, self.count = size, count
        self.starts = [j * size // count for j in range(count)]
        self.lengths = [-(-(j + 1) * size // count) - start for j, start in enumerate(self.starts)]
        self.longest = max(self.lengths, default=0)

    def windows(self, x: Tensor, at: int) -> Tensor:
        """Dimension `at` as [count, longest]. Shorter windows have their last element several times."""
        if self.size == self.count * self.longest:
            return unflatten(x, at, (self.count, self.longest))
        table = [start + min(k, length - 1) for start, length in zip(self.starts, self.lengths) for k in range(self.longest)]
        return unflatten(index_select(x, at, places(table)), at, (self.count, self.longest))


@composite
def _adaptive_avg_pool(input: Tensor, output_size: Any, dims: int) -> Tensor:
    x, alone = batched(input, dims, f"adaptive_avg_pool{dims}d")
    wanted = _output_size(f"adaptive_avg_pool{dims}d", output_size, x, dims)
    narrow = input.dtype.is_floating_point and input.dtype.bits == 16
    x = cast(x, float32) if narrow else x
    if all(w == 1 for w in wanted):
        axes = tuple(range(2, 2 + dims))
        total = emit(ops.sum, (x,), {"axes": axes})
        out = ops.keepdims(total, x._data.shape, axes) / math.prod(x._data.shape[2:])
        return named(unbatched(cast(out, input.dtype), alone), "Mean")
    for i, want in enumerate(wanted):
        spans = _Spans(x._data.shape[2 + i], want)
        if want == spans.size:
            continue
        windows = spans.windows(x, 2 + i)
        beyond = (1,) * (dims - 1 - i)
        if min(spans.lengths, default=0) == spans.longest:
            count: Any = spans.longest
        else:
            count = reshape(constant(spans.lengths, x), (want, *beyond))
            own = places(range(spans.longest)) < reshape(places(spans.lengths), (want, 1))
            windows = where(reshape(own, (want, spans.longest, *beyond)), windows, 0.0)
        x = emit(ops.sum, (windows,), {"axes": (3 + i,)}) / count
    return named(unbatched(cast(x, input.dtype), alone), f"AdaptiveAvgPool{dims}D")


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """Means of as many windows as `output_size` says, of [N, C, L] or [C, L].

    ShapeError for another number of dimensions and for sizes of 0, ArgumentTypeError where `output_size` has another number of
    sizes, ArgumentError for negative ones.

    >>> F.adaptive_avg_pool1d(graphc.tensor([[1.0, 2.0, 3.0, 4.0]]), 2)
    tensor([[1.5000, 3.5000]])
    """
    return _adaptive_avg_pool(input, output_size, 1)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means of as many windows as `output_size` says, of [N, C, H, W] or [C, H, W]; a size that is None stays as it is.

    ShapeError for another number of dimensions and for sizes of 0, ArgumentTypeError where `output_size` has another number of
    sizes, ArgumentError for negative ones.

    >>> F.adaptive_avg_pool2d(graphc.ones(1, 3, 7, 5), 1).shape
    graphc.Size([1, 3, 1, 1])
    """
    return _adaptive_avg_pool(input, output_size, 2)


@full_precision
def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """Means of as many windows as `output_size` says, of [N, C, D, H, W] or [C, D, H, W].

    ShapeError for another number of dimensions and for sizes of 0, ArgumentTypeError where `output_size` has another number of
    sizes, ArgumentError for negative ones.

    >>> F.adaptive_avg_pool3d(graphc.ones(1, 3, 4, 7, 5), (2, 1, None)).shape
    graphc.Size([1, 3, 2, 1, 5])
    """
    return _adaptive_avg_pool(input, output_size, 3)


def _adaptive_max_pool(input: Tensor, output_size: Any, return_indices: bool, dims: int) -> Any:
    function = f"adaptive_max_pool{dims}d"
    x, alone = batched(input, dims, function)
    wanted = _output_size(function, output_size, x, dims)
    size = tuple(x._data.shape[2:])
    spans = [_Spans(s, w) for s, w in zip(size, wanted)]
    for i in reversed(range(dims)):  # the windows' own dimensions come last, in their order
        x = movedim(spans[i].windows(x, 2 + i), 3 + i, 2 + dims)
    out, chosen = maxima(x, dims)
    out = named(unbatched(out, alone), f"AdaptiveMaxPool{dims}D")
    if not return_indices:
        return out
    found = positions(chosen, [s.longest for s in spans], [s.starts for s in spans], (1,) * dims, size)
    return out, unbatched(found, alone)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of as many windows as `output_size` says; with `return_indices` their places in [L] too.

    ShapeError for another number of dimensions and for sizes of 0, ArgumentTypeError where `output_size` has another number of
    sizes, ArgumentError for negative ones.

    >>> F.adaptive_max_pool1d(graphc.tensor([[1.0, 2.0, 3.0, 4.0]]), 2)
    tensor([[2., 4.]])
    """
    return _adaptive_max_pool(input, output_size, return_indices, 1)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of as many windows as `output_size` says; with `return_indices` their places in the flattened [H, W] too.

    ShapeError for another number of dimensions and for sizes of 0, ArgumentTypeError where `output_size` has another number of
    sizes, ArgumentError for negative ones.

    >>> F.adaptive_max_pool2d(graphc.ones(1, 3, 7, 5), (2, 2)).shape
    graphc.Size([1, 3, 2, 2])
    """
    return _adaptive_max_pool(input, output_size, return_indices, 2)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of as many windows as `output_size` says; with `return_indices` their places in the flattened [D, H, W] too.

    ShapeError for another number of dimensions and for sizes of 0, ArgumentTypeError where `output_size` has another number of
    sizes, ArgumentError for negative ones.

    >>> F.adaptive_max_pool3d(graphc.ones(1, 3, 4, 7, 5), 2).shape
    graphc.Size([1, 3, 2, 2, 2])
    """
    return _adaptive_max_pool(input, output_size, return_indices, 3)


# Fractional pooling: Graham, "Fractional max-pooling" (2014), with overlapping windows of one size


def _wanted_windows(function: str, size: Sequence[int], kernel: Sequence[int], output_size: Any,
                    output_ratio: Any) -> tuple[int, ...]:
    dims = len(kernel)
    if output_size is not None:
        wanted = spread(output_size, dims, "output_size")
    elif output_ratio is not None:
        ratios = (output_ratio,) * dims if isinstance(output_ratio, float) else tuple(output_ratio)
        if len(ratios) != dims:
            raise ArgumentError(f"{function}: output_ratio has {len(ratios)} numbers", expected=str(dims))
        wanted = tuple(int(s * r) for s, r in zip(size, ratios))
    else:
        raise ArgumentError(f"{function} requires specifying either an output_size or an output_ratio")
    for s, k, w in zip(size, kernel, wanted):
        if w + k - 1 > s or w < 1:
            raise GraphcError(f"{function}: pool size {k} too large relative to input size {s}",
                              expected=f"1 <= output_size <= {s - k + 1}", got=str(w))
    return wanted


def _begins(sample: Tensor, size: int, kernel: int, count: int) -> Tensor:
    """Where the windows begin: [N, C, count] out of one random number in [0, 1) for each channel [N, C]."""
    if count == 1:
        return cast(reshape(sample, (*sample.shape, 1)) * 0.0, int64) + (size - kernel)
    step = (size - kernel) / (count - 1)
    shift = reshape(sample, (*sample.shape, 1))
    begins = cast(floor((constant(range(count), sample) + shift) * step), int64) - cast(floor(shift * step), int64)
    return where(places(range(count)) == count - 1, size - kernel, begins)


def _fractional_max_pool(input: Tensor, kernel_size: Ints, output_size: Any, output_ratio: Any, return_indices: bool,
                         samples: Tensor | None, dims: int) -> Any:
    function = f"fractional_max_pool{dims}d"
    x, alone = batched(input, dims, function)
    if 0 in x._data.shape[1:]:
        raise ShapeError(f"{function}: Expected input to have non-zero size for non-batch dimensions, but input has sizes "
                         f"{list(input.shape)}")
    kernel = spread(kernel_size, dims, "kernel_size")
    lead, size = tuple(x._data.shape[:2]), tuple(x._data.shape[2:])
    wanted = _wanted_windows(function, size, kernel, output_size, output_ratio)
    if samples is None:
        samples = rand(*lead, dims, dtype=x.dtype, device=x.device)
    elif tuple(samples._data.shape[-1:]) != (dims,) or tuple(samples._data.shape[:2]) != lead:
        raise ShapeError(f"{function}: Expect _random_samples of shape {[*lead, dims]}", got=str(list(samples.shape)))
    flat: Any = 0
    for i in range(dims):  # the places that the windows meet: [N, C, *T, *K]
        # of images PyTorch reads the number for the width first, of volumes that for the depth
        sample = samples[..., 1 - i if dims == 2 else i].detach()
        begins = _begins(sample, size[i], kernel[i], wanted[i])
        begins = reshape(begins, (*lead, *(w if j == i else 1 for j, w in enumerate(wanted)), *(1,) * dims))
        flat = flat * size[i] + begins + reshape(places(range(kernel[i])), tuple(k if j == i else 1
                                                                                 for j, k in enumerate(kernel)))
    flat = expand(flat, (*lead, *wanted, *kernel))
    listed = reshape(flat, (*lead, math.prod(wanted) * math.prod(kernel)))
    windows = reshape(gather(reshape(x, (*lead, math.prod(size))), 2, listed), (*lead, *wanted, *kernel))
    out, chosen = maxima(windows, dims)
    out = named(unbatched(out, alone), f"FractionalMaxPool{dims}D")
    if not return_indices:
        return out
    met = reshape(flat, (*lead, *wanted, math.prod(kernel)))
    found = squeeze(gather(met, 2 + dims, unsqueeze(chosen, -1)), -1)
    return out, unbatched(found, alone)


def fractional_max_pool2d(input: Tensor, kernel_size: Ints, output_size: Any = None, output_ratio: Any = None,
                          return_indices: bool = False, _random_samples: Tensor | None = None) -> Any:
    """Maxima of pseudo-randomly placed windows, as many as `output_size`, or `output_ratio` of the input's size.

    ArgumentError without `output_size` and `output_ratio`, GraphcError for more windows than fit, ShapeError for another number
    of dimensions and for sizes of 0.

    >>> F.fractional_max_pool2d(graphc.ones(1, 1, 7, 7), 2, output_size=4).shape
    graphc.Size([1, 1, 4, 4])
    """
    return _fractional_max_pool(input, kernel_size, output_size, output_ratio, return_indices, _random_samples, 2)


def fractional_max_pool3d(input: Tensor, kernel_size: Ints, output_size: Any = None, output_ratio: Any = None,
                          return_indices: bool = False, _random_samples: Tensor | None = None) -> Any:
    """Maxima of pseudo-randomly placed windows, as many as `output_size`, or `output_ratio` of the input's size.

    ArgumentError without `output_size` and `output_ratio`, GraphcError for more windows than fit, ShapeError for another number
    of dimensions and for sizes of 0.

    >>> F.fractional_max_pool3d(graphc.ones(1, 1, 7, 7, 7), 2, output_ratio=0.5).shape
    graphc.Size([1, 1, 3, 3, 3])
    """
    return _fractional_max_pool(input, kernel_size, output_size, output_ratio, return_indices, _random_samples, 3)


# With the places, by names of their own


def adaptive_max_pool1d_with_indices(input: Tensor, output_size: Any, return_indices: bool = True) -> tuple[Tensor, Tensor]:
    """adaptive_max_pool1d with return_indices=True.

    >>> F.adaptive_max_pool1d_with_indices(graphc.tensor([[1.0, 2.0, 3.0, 4.0]]), 2)
    (tensor([[2., 4.]]), tensor([[1, 3]]))
    """
    return adaptive_max_pool1d(input, output_size, True)


def adaptive_max_pool2d_with_indices(input: Tensor, output_size: Any, return_indices: bool = True) -> tuple[Tensor, Tensor]:
    """adaptive_max_pool2d with return_indices=True.

    >>> values, indices = F.adaptive_max_pool2d_with_indices(graphc.ones(1, 3, 7, 5), 2)
    >>> indices.shape
    graphc.Size([1, 3, 2, 2])
    """
    return adaptive_max_pool2d(input, output_size, True)


def adaptive_max_pool3d_with_indices(input: Tensor, output_size: Any, return_indices: bool = True) -> tuple[Tensor, Tensor]:
    """adaptive_max_pool3d with return_indices=True.

    >>> values, indices = F.adaptive_max_pool3d_with_indices(graphc.ones(1, 3, 4, 7, 5), 2)
    >>> indices.shape
    graphc.Size([1, 3, 2, 2, 2])
    """
    return adaptive_max_pool3d(input, output_size, True)


def fractional_max_pool2d_with_indices(input: Tensor, kernel_size: Ints, output_size: Any = None, output_ratio: Any = None,
                                       return_indices: bool = True,
                                       _random_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """fractional_max_pool2d with return_indices=True.

    >>> values, indices = F.fractional_max_pool2d_with_indices(graphc.ones(1, 1, 7, 7), 2, output_size=4)
    >>> indices.shape
    graphc.Size([1, 1, 4, 4])
    """
    return fractional_max_pool2d(input, kernel_size, output_size, output_ratio, True, _random_samples)


def fractional_max_pool3d_with_indices(input: Tensor, kernel_size: Ints, output_size: Any = None, output_ratio: Any = None,
                                       return_indices: bool = True,
                                       _random_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """fractional_max_pool3d with return_indices=True.

    >>> values, indices = F.fractional_max_pool3d_with_indices(graphc.ones(1, 1, 7, 7, 7), 2, output_size=4)
    >>> indices.shape
    graphc.Size([1, 1, 4, 4, 4])
    """
    return fractional_max_pool3d(input, kernel_size, output_size, output_ratio, True, _random_samples)
