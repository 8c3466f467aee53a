"""Keeping less for a backward pass, and computing it again.

What the forward pass has computed and the backward pass reads is kept from the one to the other. With a budget of memory,
some of it is dropped and computed again from the rest: first what frees most bytes for each nanosecond that this takes.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import graphc.ops as ops
from graphc.errors import ArgumentError
from graphc.ir import Builder, Graph, Node, Value, copy_node

_MULTIPLICATIONS = 16.0
"""In a nanosecond, of a slow core."""
_LANES = 16
"""How many numbers the nanoseconds of an op are for."""
_BYTES = 10.0
"""Read or written in a nanosecond."""
_HOST = 10_000.0
"""Nanoseconds that an op takes which Python computes, at least."""


class _State(threading.local):
    budget: float | int | None = None


_state = _State()


@contextmanager
def budgeted(budget: float | int | None) -> Iterator[None]:
    """Have what is traced in the block, in this thread, keep no more than this for its backward passes: a number of bytes, or
    as a float a part of what would be kept."""
    before, _state.budget = _state.budget, budget
    try:
        yield
    finally:
        _state.budget = before


def current_budget() -> float | int | None:
    """The budget that this thread traces with; None if there is none."""
    return _state.budget


def check_budget(budget: object) -> None:
    """ArgumentError for what is no budget."""
    part = isinstance(budget, float) and 0 <= budget <= 1
    if not part and (type(budget) is not int or budget < 0):
        raise ArgumentError(f"memory_budget={budget!r}", got=type(budget).__name__,
                            expected="a float from 0 to 1, the part of what would be kept, or an int of bytes")


def kept(residuals: Sequence[Value], free: Collection[Value], available: Collection[Value], budget: float | int) -> set[Value]:
    """Which of `residuals` to keep.

    free
        Those among them that are kept in any case, and cost nothing.
    available
        What can be read again without being kept, such as inputs.
    """
    saved = dict.fromkeys(residuals)
    total = sum(_nbytes(value) for value in saved if value not in free)
    limit = budget * total if isinstance(budget, float) else budget
    reachable = set(available)
    heap: list[tuple[float, int, Value]] = []
    order = {value: i for i, value in enumerate(saved)}

    def price(value: Value) -> float:
        """Nanoseconds for each byte that is freed."""
        nodes = chain([value], reachable | (saved.keys() - {value}))
        if nodes is None:
            return math.inf
        return sum(map(nanoseconds, nodes)) / max(1, _nbytes(value))

    for value in saved:
        if value not in free and _nbytes(value):
            heapq.heappush(heap, (price(value), order[value], value))
    while heap and total > limit:
        before, _, value = heapq.heappop(heap)
        now = price(value)  # what it is made of may not be kept any more
        if math.isinf(now):
            continue
        if now > before and heap and now > heap[0][0]:
            heapq.heappush(heap, (now, order[value], value))
            continue
        del saved[value]
        total -= _nbytes(value)
    return set(saved)


def chain(values: Iterable[Value], known: Collection[Value]) -> list[Node] | None:
    """The nodes that compute values from those that are known, in an order in which they can run; None if there are none."""
    found: dict[Node, None] = {}
    pending = [value.node for value in values if value not in known]
    while pending:
        node = pending[-1]
        if node is None:
            return None
        missing = [v.node for v in node.operands if v not in known and v.node not in found]
        if missing:
            pending += missing
            continue
        pending.pop()
        found[node] = None
    return list(found)


def nanoseconds(node: Node) -> float:
    """What a node takes, roughly, by itself."""
    sizes = [_size(v) for v in (*node.operands, *node.results)]
    moved = sum(_nbytes(v) for v in (*node.operands, *node.results)) / _BYTES
    if node.op.kernel == "contract" or node.op.decompose is not None:
        # for a product of matrices these are its multiplications; others come near
        largest = sorted(sizes)[-3:]
        return math.sqrt(math.prod(largest)) / _MULTIPLICATIONS + moved
    if node.op.kernel is not None:
        return _HOST + moved
    return node.op.nanoseconds * sizes[-1] / _LANES + (moved if node.op.is_anchor else 0.0)


def recompute(graph: Graph, boundary: int, budget: float | int) -> Graph:
    """A graph whose first `boundary` nodes are a forward pass and whose others are a backward pass, with no more kept in
    between than the budget allows; the graph itself if that is so already."""
    ahead, behind = graph.nodes[:boundary], graph.nodes[boundary:]
    made = {result for node in ahead if node.operands for result in node.results}
    residuals = [v for v in dict.fromkeys(v for node in behind for v in node.operands) if v in made]
    constants = {result for node in ahead if not node.operands for result in node.results}
    saved = kept(residuals, set(graph.outputs), {*graph.inputs, *constants}, budget)
    if len(saved) == len(residuals):
        return graph
    builder = Builder(graph.name, locations=False)
    new: dict[Value, Value] = {v: builder.input(v.name, v.type, **v.info) for v in graph.inputs}
    for node in ahead:
        new.update(zip(node.results, copy_node(builder, node, [new[v] for v in node.operands]).results))
    again: dict[Value, Value] = {}
    known = saved | set(graph.inputs) | constants
    latest = next((new[node.results[0]] for node in reversed(ahead) if node.operands), None)
    for node in behind:
        dropped = [v for v in node.operands if v in made and v not in saved and v not in again]
        if dropped:
            _again(builder, dropped, known, new, again, latest)
        copied = copy_node(builder, node, [again.get(v, new[v]) for v in node.operands])
        new.update(zip(node.results, copied.results))
        if node.op.is_anchor:
            latest = copied.results[0]
    return builder.finish([new[v] for v in graph.outputs], graph.output_names)


def _again(
    builder: Builder, values: Sequence[Value], known: Collection[Value], new: Mapping[Value, Value],
    again: dict[Value, Value], latest: Value | None,
) -> None:
    """Append the computation of values from what is known, once more."""
    nodes = chain(values, {*known, *again})
    assert nodes is not None  # as `kept` has seen
    fenced: dict[Value, Value] = {}
    for node in nodes:
        operands = []
        for v in node.operands:
            if v not in again and v not in fenced:
                builder.location = node.location
                fixed = latest is None or (v.node is not None and not v.node.operands)
                fenced[v] = new[v] if fixed else ops.fence(new[v], latest)
            operands.append(again.get(v) or fenced[v])
        again.update(zip(node.results, copy_node(builder, node, operands).results))


def _size(value: Value) -> int:
    return value.type.size if value.type.is_static else 0


def _nbytes(value: Value) -> int:
    return value.type.nbytes if value.type.is_static else 0
