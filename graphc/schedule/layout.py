"""In which order the dimensions of temporaries stand in memory.

The images of a convolution stand with their channels last: then the numbers that are multiplied with one column of the
kernel's weights stand side by side, and those of a pixel are found where the pixel is, so that products read images where
they stand. What is computed from an image element by element stands as the image does; so nothing is turned round between
layers. What comes from outside and goes there has the order that is wanted there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import graphc.ops as ops
from graphc.ir import Graph, Node, Value
from graphc.ops.linalg import parse_spec
from graphc.passes.layout import is_windows
from graphc.schedule.fusion import Group
from graphc.sizes import is_static
from graphc.types import Shape

_FEW_CHANNELS = 8
"""With fewer channels than that in the result, the pixels fill vectors better than they do."""

Order = tuple[int, ...]
"""Dimensions, that of the greatest stride first."""


def choose_orders(groups: Iterable[Group], fixed: set[Value], outputs: set[Value]) -> dict[Value, Order]:
    """The orders of the values in memory that are not row-major; `fixed` ones are, and so are the outputs of the graph, but for
    those that a convolution computes: to write them with the channels last, and copy them then, takes less time."""
    groups = list(groups)
    roots = {root.value for group in groups for root in group.roots}
    last: set[Value] = set()
    for anchor, value in ((root.anchor, root.value) for group in groups for root in group.roots):
        if anchor is not None and anchor.op is ops.contract:
            last.update(v for v in _images(anchor, value, roots) if is_static(*v.shape))
    # whole families of images that are computed from each other
    alike = _Families()
    for group in groups:
        is_product = any(root.anchor is not None and root.anchor.op is ops.contract for root in group.roots)
        first: dict[Shape, Value] = {}
        for value in group.touched:
            if value in roots and value.ndim >= 3:
                shape = value.shape if is_product else value.shape[:2]
                alike.unite(first.setdefault(shape, value), value)
    wanted = {alike.of(value) for value in last}
    moved = {v for v in roots - fixed if v in last or (v.ndim >= 3 and v not in outputs and alike.of(v) in wanted)}
    return {v: channels_last(v.ndim) for v in moved if is_static(*v.shape)}


def orders_of_attention(graph: Graph) -> dict[Value, Order]:
    """The orders of what attention and its derivative compute: that in which heads are put side by side again, if that is what
    is done with them."""
    made = {value for node in graph.nodes if node.op.kernel == "attention" for value in node.results if is_static(*value.shape)}
    wanted: dict[Value, set[Order]] = {value: set() for value in made - set(graph.outputs)}
    for node in graph.nodes:
        if node.op is ops.permute and node.operands[0] in wanted:
            wanted[node.operands[0]].add(node.attrs["order"])
    return {value: order for value, orders in wanted.items() for order in orders
            if len(orders) == 1 and order[-1] == value.ndim - 1}


def within_margins(groups: Iterable[Group], orders: Mapping[Value, Order], outputs: set[Value]) -> dict[Value, Value]:
    """Images that can be computed where they stand within what is padded of them: the padded value by the image. Then nothing
    but its margins is left to be computed of that."""
    within: dict[Value, Value] = {}
    for group in groups:
        root = group.roots[0]
        node = root.value.node
        if len(group.roots) > 1 or root.anchor is not None or node is None or node.op is not ops.pad:
            continue
        (image,) = node.operands
        nested = root.value in within or image in within.values()
        if image in orders and root.value in orders and image not in outputs and not nested:
            within.setdefault(image, root.value)
    return within


def channels_last(ndim: int) -> Order:
    """Dimension 1 after all others."""
    return (0, *range(2, ndim), 1)


def _images(node: Node, result: Value, roots: set[Value]) -> Iterable[Value]:
    """The values in memory around a convolution, or the gradient of its weights, that are better read or written with
    their channels last."""
    left, right, out = parse_spec(node.attrs["spec"])
    x, y = node.operands
    if not is_windows(y) or any(letter in left and letter in right for letter in out):
        return
    places = (y.ndim - 2) // 2
    if len(out) == 2 + places and out[0] in right and out[1] not in right:
        channels = result.shape[1]
        if isinstance(channels, int) and channels >= _FEW_CHANNELS:
            yield result
    elif left[0] in right and x.ndim == 2 + places:  # the gradient of the weights: x is that of the result
        yield from _sources(x, roots)
    yield from _sources(y, roots)


def _sources(value: Value, roots: set[Value]) -> Iterable[Value]:
    """What stands in memory beneath slices, windows and paddings."""
    while True:
        if value in roots:
            yield value
        node = value.node
        if node is None or node.op not in (ops.window, ops.slice, ops.pad):
            return
        value = node.operands[0]


class _Families:
    """Sets of values, which can be united."""

    def __init__(self) -> None:
        self._parent: dict[Value, Value] = {}

    def of(self, value: Value) -> Value:
        """The value that stands for the set."""
        while (parent := self._parent.get(value, value)) is not value:
            self._parent[value] = self._parent.get(parent, parent)
            value = parent
        return value

    def unite(self, a: Value, b: Value) -> None:
        """Make one set of two."""
        self._parent[self.of(a)] = self.of(b)


def strides_in(order: Order, shape: Shape) -> tuple[int, ...]:
    """The strides of a tensor whose dimensions stand in that order."""
    strides: dict[int, int] = {}
    step = 1
    for dim in reversed(order):
        strides[dim] = step
        size = shape[dim]
        assert isinstance(size, int)
        step *= size
    return tuple(strides[dim] for dim in range(len(shape)))


def memory_order(strides: tuple[int, ...]) -> Order:
    """The dimensions by their strides, the greatest first; as they are where a stride is not a number."""
    dims = range(len(strides))
    return tuple(sorted(dims, key=lambda dim: -abs(strides[dim]))) if is_static(*strides) else tuple(dims)
