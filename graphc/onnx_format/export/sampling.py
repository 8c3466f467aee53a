"""Images read at places between their pixels as ONNX's GridSample, and places that an affine map gives as AffineGrid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

import graphc.passes.pipeline as pipeline
from graphc.dims import Dim
from graphc.ir import Builder, Node, Value
from graphc.onnx_format.export.matching import Match, made_by, stretched
from graphc.onnx_format.export.writer import Step, Writer
from graphc.onnx_format.sampling import PADDINGS, affine_points, sampled
from graphc.types import Size, float32

_AFFINE_GRID = 20
"""The version of the operators that AffineGrid came with, and GridSample of volumes."""
_MODES = {"nearest": ("nearest", "nearest"), "linear": ("bilinear", "linear"), "cubic": ("bicubic", "cubic")}
"""What modes are called before that version, and since."""
_MOST_POINTS = 1 << 22


def match_grid_sample(node: Node) -> Match | None:
    """What a node ends, if that is an image [N, C, ...] read at a grid. In single precision: runtimes have few other dtypes."""
    value = node.results[0]
    dims = value.ndim - 2
    if value.dtype is not float32 or dims not in (2, 3):
        return None
    for mode, term in _last_terms(value):
        chosen = made_by(term, "where")
        shaped = made_by(term if chosen is None else chosen.operands[1], "reshape")
        taken = None if shaped is None else made_by(shaped.operands[0], "gather")
        if taken is None or taken.attrs["axis"] != 2 or taken.result.ndim != 3 or (mode == "cubic" and dims != 2):
            continue
        flat = taken.operands[0]
        sizes = _sizes(flat, taken.operands[1], dims)
        if sizes is None:
            continue
        paddings = PADDINGS[:1] if chosen is not None else PADDINGS[1:]
        if (found := _sampling(value, (value.shape[0], *value.shape[2:]), flat, sizes, mode, paddings)) is not None:
            return found
    return None


def match_pixels_in_a_line(node: Node) -> Match | None:
    """The same for the nearest pixels as they are read, [N, C, product of the grid's sizes]: what would have given them the
    grid's sizes has become one with what gives them other ones."""
    pixels = node.results[0]
    line = made_by(stretched(node.operands[1]), "reshape")
    if line is None or pixels.dtype is not float32 or node.attrs["axis"] != 2 or pixels.ndim != 3:
        return None
    shape = line.operands[0].shape
    sizes = _sizes(node.operands[0], node.operands[1], len(shape) - 1) if len(shape) in (3, 4) else None
    return None if sizes is None else _sampling(pixels, shape, node.operands[0], sizes, "nearest", PADDINGS[1:])


def _sampling(
    value: Value, shape: Sequence[Size], flat: Value, sizes: Sequence[Size], mode: str, paddings: Sequence[str]
) -> Match | None:
    """A value as what the operator computes, of a grid whose coordinates have this shape, with one of the paddings."""
    for padding in paddings:
        for aligned in (False, True):
            places = _places(value, shape, flat, sizes, mode, padding, aligned)
            grid = None if places is None else _grid(places)
            if grid is not None:
                return _match(value, flat, sizes, grid, mode, padding, aligned)
    return None


def _last_terms(value: Value) -> Iterator[tuple[str, Value]]:
    """What the last of the elements is that are added up, in each mode."""
    yield "nearest", value
    mode = "linear"
    while (total := made_by(value, "add")) is not None and (product := made_by(total.operands[1], "mul")) is not None:
        value = product.operands[0]
        yield mode, value
        mode = "cubic"


def _sizes(flat: Value, index: Value, dims: int) -> tuple[Size, ...] | None:
    """The sizes of the image behind its channels, before its pixels stood in one line: its own, or those that indices are
    multiplied by."""
    shaped = made_by(flat, "reshape")
    if shaped is not None and shaped.operands[0].ndim == dims + 2:
        shape = shaped.operands[0].shape
        if list(map(str, (*shape[:2], math.prod(shape[2:])))) == list(map(str, flat.shape)):
            return tuple(shape[2:])
    line = made_by(stretched(index), "reshape")
    place = None if line is None else line.operands[0]
    sizes: list[int] = []
    for _ in range(dims - 1):
        total = None if place is None else made_by(place, "add")
        product = None if total is None else made_by(total.operands[0], "mul")
        size = None if product is None else _number(product.operands[1])
        if product is None or not isinstance(size, int) or size < 1:
            return None
        sizes.insert(0, size)
        place = product.operands[0]
    first, rest = divmod(flat.shape[2], math.prod(sizes)) if isinstance(flat.shape[2], int) else (0, 1)
    return None if rest or not first else (first, *sizes)


def _places(
    value: Value, shape: Sequence[Size], flat: Value, sizes: Sequence[Size], mode: str, padding: str, aligned: bool
) -> list[Value] | None:
    """The coordinates in each dimension, if the value is what the operator computes of them, or that in a line."""
    builder = Builder("sampled", locations=False)
    x = builder.input("x", flat.type)
    grid = [builder.input(f"place{i}", flat.type.with_shape(tuple(shape))) for i in range(len(sizes))]
    graph = pipeline.run(builder.finish([sampled(x, sizes, grid, mode, padding, aligned)]), ("simplify",))
    bound: dict[Value, Value] = {graph.inputs[0]: flat}
    (wanted,) = graph.outputs
    shaped = made_by(wanted, "reshape")
    if shaped is not None and value.ndim == shaped.operands[0].ndim:
        wanted = shaped.operands[0]
    return [bound[place] for place in graph.inputs[1:]] if _is_like(wanted, value, bound) else None


def _is_like(wanted: Value, value: Value, bound: dict[Value, Value]) -> bool:
    """Whether a value is computed as the wanted one is, which notes for each value of its graph what it stands for."""
    todo = [(wanted, value)]
    while todo:
        wanted, value = todo.pop()
        if wanted in bound:
            if bound[wanted] is not value and not _same_number(wanted, value):
                return False
            continue
        bound[wanted] = value
        if str(wanted.type) != str(value.type):
            return False
        if wanted.node is None or _same_number(wanted, value):
            continue
        if value.node is None or wanted.node.op is not value.node.op or str(wanted.node.attrs) != str(value.node.attrs):
            return False
        todo.extend(zip(wanted.node.operands, value.node.operands, strict=True))
    return True


def _same_number(wanted: Value, value: Value) -> bool:
    number = _number(wanted)
    return number is not None and str(wanted.type) == str(value.type) and str(number) == str(_number(value))


def _number(value: Value) -> Size | float | None:
    """The number that a value holds everywhere, or the size that is not known yet."""
    node = made_by(stretched(value), "constant", "size", "cast", "sub")
    if node is None or node.result.ndim:
        return None
    if node.op.name == "constant":
        number = float(node.attrs["value"])
        return int(number) if number.is_integer() else number
    if node.op.name == "size":
        size: Size = node.attrs["value"]
        return size
    numbers = [_number(operand) for operand in node.operands]
    if len(numbers) == 1:
        return numbers[0]
    left, right = numbers
    return left - right if isinstance(left, (int, Dim)) and isinstance(right, int) else None


def _grid(places: Sequence[Value]) -> Value | None:
    """What the coordinates of all dimensions, of which those in the last one stand first, are slices of."""
    grid = None
    for k, place in enumerate(reversed(places)):
        shaped = made_by(place, "reshape")
        part = None if shaped is None else made_by(shaped.operands[0], "slice")
        if part is None or grid not in (None, part.operands[0]):
            return None
        grid = part.operands[0]
        whole = (*place.shape, len(places))
        if list(map(str, grid.shape)) != list(map(str, whole)) or part.attrs["starts"] != (*(0 for _ in place.shape), k):
            return None
        if list(map(str, part.result.shape)) != list(map(str, (*place.shape, 1))):
            return None
    return grid


def _match(
    value: Value, flat: Value, sizes: Sequence[Size], grid: Value, mode: str, padding: str, aligned: bool
) -> Match:
    shape = (*flat.shape[:2], *sizes)
    shaped = made_by(flat, "reshape")
    if shaped is not None and list(map(str, shaped.operands[0].shape)) == list(map(str, shape)):
        flat = shaped.operands[0]

    def write(w: Writer, step: Step) -> str:
        x, places = step.names
        called = _MODES[mode][w.opset >= _AFFINE_GRID]
        read = str(w.emit("GridSample", w.reshape(x, flat.type, shape), places, mode=called, padding_mode=padding,
                          align_corners=int(aligned)))
        return w.reshape(read, flat.type.with_shape((*flat.shape[:2], *grid.shape[1:-1])), value.shape)

    return Match((flat, grid), write, _AFFINE_GRID if len(sizes) == 3 else 0)


# Grids


def match_affine_grid(node: Node) -> Match | None:
    """The points of an even grid, each multiplied by a matrix."""
    product = made_by(node.operands[0], "matmul")
    turned = None if product is None else made_by(product.operands[1], "permute")
    if product is None or turned is None or turned.attrs["order"] != (0, 2, 1) or turned.result.dtype is not float32:
        return None
    theta, shape = turned.operands[0], node.results[0].shape
    n, *sizes, count = shape
    if len(sizes) != count or count not in (2, 3) or tuple(theta.shape[1:]) != (count, count + 1):
        return None
    if str(n) != str(theta.shape[0]) or not all(isinstance(size, int) for size in sizes) or math.prod(sizes) > _MOST_POINTS:
        return None
    points = _points(product.operands[0])
    for aligned in (False, True) if min(sizes) > 1 else (False,):  # for the middle of one pixel there is no agreement
        builder = Builder("points", locations=False)
        like = builder.input("like", theta.type)
        graph = builder.finish([affine_points(like, sizes, aligned)])
        expected = _points(graph.outputs[0])
        if points is not None and expected is not None and points.shape == expected.shape and np.allclose(
                points, expected, rtol=0, atol=1e-6):
            return _affine_match(theta, (n, 1, *sizes), aligned)
    return None


def _affine_match(theta: Value, sizes: Sequence[Size], aligned: bool) -> Match:
    return Match((theta,), lambda w, step: str(
        w.emit("AffineGrid", step.names[0], w.sizes(sizes), align_corners=int(aligned))), _AFFINE_GRID)


def _points(value: Value) -> np.ndarray | None:
    """The numbers of a value that depends on nothing, before they were repeated for a batch."""
    node = stretched(value).node
    if node is None or node.op.kernel == "control" or not node.result.type.is_static:
        return None
    if node.result.type.size > 4 * _MOST_POINTS:
        return None
    operands = []
    for operand in node.operands:
        array = _points(operand)
        if array is None:
            return None
        operands.append(np.broadcast_to(array, [int(size) for size in operand.shape]))
    result: np.ndarray = node.op.ref(*operands, **node.attrs)
    return result
