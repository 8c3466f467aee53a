"""Which values are written to memory, and which are computed together.

A *root* is a value that gets a buffer. Everything else is computed inside the kernels of the roots that need it. An
*anchor* is a reduction, a contraction or a scatter: a value that takes a loop of its own. A root may absorb one anchor:
`relu(x @ w + b)` is one root whose kernel is a matrix product with an epilogue.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from graphc.ir import Graph, Node, Value
from graphc.schedule.preparation import kept_values
from graphc.sizes import estimate
from graphc.types import Shape, float32, is_one

_LARGEST = 240
"""How many operations one element may take before a part of them goes through memory."""
_FUNCTION = 7.0
"""Nanoseconds of an elementary function. What takes longer counts for several operations."""
_CHEAP = 1.0
"""Nanoseconds of an op that is sooner done twice than written to memory and read."""
_SMALL = 64
"""A value of so few elements costs no memory to speak of."""
_FEW = 64
"""How many times larger a result is than operands that stay in a cache as they are read again and again."""
_COPIES = 4
"""How often a value may be computed rather than be written to memory."""
_BESIDE = 1
"""How many arrays as large as its result a product's kernel may read beside its operands; and it writes one. Its tiles are a
few numbers each of many rows, which memory takes several times as long to bring as what is read on and on."""
_CACHED = 1 << 15
"""Numbers that are still in a cache when the next kernel reads them."""


def runs_on_host(node: Node) -> bool:
    """Whether a node is left to its op's own definition: because the op is, or because no code is made for the dtype."""
    if node.op.kernel == "control":
        return False
    return node.op.kernel == "host" or any(not v.dtype.has_code for v in (*node.operands, *node.results))


def is_closed(node: Node) -> bool:
    """Whether nothing can be fused with a node: it takes its operands from memory, and writes all of its results."""
    return node.op.kernel == "control" or runs_on_host(node)


def is_in_memory(value: Value) -> bool:
    """Whether a value is a constant that the program keeps, rather than a number in the code."""
    return value.node is not None and value.node.op.name == "constant" and (value.shape != () or not value.dtype.has_code)


@dataclass(eq=False)
class Root:
    """A value that is written to memory, with the anchor that its kernel is built around."""

    value: Value
    anchor: Node | None = None

    @property
    def is_map(self) -> bool:
        """Whether each element is computed by itself."""
        return self.anchor is None


@dataclass(eq=False)
class Group:
    """Roots that are computed by one kernel, and all values that it computes or reads."""

    roots: list[Root]
    touched: set[Value]

    @property
    def joinable(self) -> bool:
        """Whether maps can be stored along with what is computed already: not after a scatter, whose results are
        finished only at its end, and not with what no loops are made for."""
        anchor = self.roots[0].anchor
        return anchor is None or (anchor.op.kernel not in ("scatter", "attention") and not is_closed(anchor))


def plan(graph: Graph, steady: Collection[Value] = (), halves: bool = False) -> list[Group]:
    """The kernels to be made, in an order in which they can run. Dead nodes are expected to be gone. Kernels that compute
    `steady` values compute no others. With `halves`, products and attention read operands in half precision that are widened
    for them."""
    return _group(_recomputed(graph, _with_small_epilogues(_roots(graph, steady, halves)), steady), steady)


def _roots(graph: Graph, steady: Collection[Value], halves: bool) -> dict[Value, Root]:
    """The values that get buffers, by going through the graph backwards."""
    users: dict[Value, list[Node]] = {value: [] for value in graph.values()}
    for node in graph.nodes:
        for operand in node.operands:
            users[operand].append(node)
    weight, written = _weights(graph)
    written |= set(graph.outputs)
    if steady:
        written |= kept_values(graph, steady)
    closed = {node for node in graph.nodes if is_closed(node)}
    for node in closed:
        written.update(v for v in (*node.operands, *node.results) if not is_in_memory(v))
    written.update(v for node in graph.nodes if node.op.kernel == "attention" for v in node.results)
    widened = {node for node in graph.nodes if halves and widens_halves(node)
               and (_is_widened_for_products(node, users) or any(u.op.kernel == "attention" for u in users[node.result]))}
    feeds: set[Value] = set()  # what contractions and scatters read, but for views
    roots: dict[Value, Root] = {}
    reach: dict[Value, set[Value]] = {}  # for a value that is no root: the roots that it is computed in
    for node in reversed(graph.nodes):
        for value in node.results:
            into: set[Value] = set()
            for user in users[value]:
                for result in user.results:
                    into |= {result} if result in roots else reach.get(result, set())
            reach[value] = into
            for user in users[value]:
                reads_memory = user.op.kernel is not None and user.op.kernel != "running"
                passes_on = user.op.only_moves or user in widened
                if reads_memory or (passes_on and user.result in feeds and user.result not in roots):
                    feeds.add(value)
            if (
                value in written
                or (node not in widened and _needs_memory(value, node, users, into, weight, value in feeds, feeds))
                or (len(into) > 1 and _stands_for_several(value, users, roots.keys() - written))
            ):
                roots[value] = Root(value, node if node.op.is_anchor or node in closed else None)
            elif node.op.is_anchor:
                (root,) = into if len(into) == 1 else (None,)
                along_rows = _goes_along_rows(node) and root is not None and _takes_functions(root)
                if root is not None and roots[root].is_map and not along_rows and _elementwise_between(value, root, users):
                    roots[root].anchor = node
                else:
                    roots[value] = Root(value, node)
    return {value: roots[value] for node in graph.nodes for value in node.results if value in roots}


def _needs_memory(
    value: Value, node: Node, users: dict[Value, list[Node]], into: set[Value], weight: dict[Value, int], feeds: bool,
    images: set[Value],
) -> bool:
    """Whether a value that is no anchor is better written than computed where it is used. What is padded to be one of the
    `images` that products read is written into their midst."""
    if node.op.is_anchor or not node.operands:
        return False
    if node.op.name == "copy":
        return True
    if node.op.only_moves and (not node.op.pointwise or weight[value] == 0):
        return False  # it can be read where its operand stands
    if any(user.op.name == "pad" and user.result in images for user in users[value]):
        return True
    if feeds:
        return not (_is_half_of_input(node) or _is_widened_input(node) or _is_widened_for_attention(node, users[value]))
    if _is_stretched(value, users, _COPIES * estimate(value.type.size)):
        return True
    if any(map(_goes_along_rows, users[value])) and _takes_functions(value):
        return True
    return len(into) > 1 and (weight[value] > 4 or node.op.nanoseconds > _CHEAP)


def _goes_along_rows(node: Node) -> bool:
    """Whether a node takes one element after another, and not neighbours in lanes, as functions are computed soonest."""
    return node.op.kernel == "running" and node.attrs["axis"] == node.result.ndim - 1


def _takes_functions(value: Value) -> bool:
    """Whether functions, or divisions, are computed for a value, of what has loops of its own or is given."""
    pending, seen = [value], {value}
    while pending:
        node = pending.pop().node
        if node is None or node.op.is_anchor:
            continue
        if node.op.nanoseconds > _CHEAP:
            return True
        pending += (v for v in node.operands if v not in seen)
        seen.update(node.operands)
    return False


def _is_stretched(value: Value, users: dict[Value, list[Node]], size: int) -> bool:
    """Whether a value is moved to where it has so many elements."""
    for user in users[value]:
        if not user.op.pointwise and not user.op.is_anchor and (
            estimate(user.result.type.size) >= size or (user.op.name == "reshape" and _is_stretched(user.result, users, size))
        ):
            return True
    return False


def _stands_for_several(value: Value, users: dict[Value, list[Node]], roots: Collection[Value]) -> bool:
    """Whether several roots are sooner computed again from a value than written beside each other."""
    return value.node is not None and sum(_is_computed_again(v, value, users) for v in _results(users[value]) if v in roots) > 1


def _results(nodes: Iterable[Node]) -> dict[Value, None]:
    return dict.fromkeys(result for node in nodes for result in node.results)


def _is_computed_again(value: Value, source: Value, users: dict[Value, list[Node]], roots: Collection[Value] = ()) -> bool:
    """Whether a value is sooner computed again where it is used, from `source` and little else, than written to memory and
    read. Of the `roots`, each is in memory."""
    made = value.node
    if made is None or not made.op.elementwise or made.op.nanoseconds > _CHEAP:
        return False
    if any(not user.op.elementwise for user in users[value]):
        return False
    most = max(1, estimate(value.type.size) // _FEW)
    small = {v for v in made.operands if estimate(_moved(v).type.size) <= most and (_moved(v) in roots or _is_there(_moved(v)))}
    return set(made.operands) - small == {source} and source.dtype.itemsize <= value.dtype.itemsize


def _is_there(value: Value) -> bool:
    """Whether a value is in memory or a number in the code, whatever is fused."""
    return value.node is None or not value.node.operands or value.node.op.is_anchor


def _moved(value: Value) -> Value:
    """What a value is made of by moving elements, such as the number that was broadcast."""
    while value.node is not None and value.node.op.only_moves and len(value.node.operands) == 1:
        value = value.node.operands[0]
    return value


def _with_small_epilogues(roots: dict[Value, Root]) -> dict[Value, Root]:
    """The roots, with products of their own that would have to read much beside."""
    changed: dict[Value, Root] = {}
    for value, root in roots.items():
        product = root.anchor.results[0] if root.anchor is not None else value
        if product is not value and root.anchor is not None and root.anchor.op.kernel == "contract":
            read = _arrays(product, set(_beside(root, roots)) - {value}, roots)
            if len(read) > _BESIDE:
                changed[product] = Root(product, root.anchor)
                root = Root(value)
        changed[value] = root
    return changed


def _arrays(product: Value, touched: Iterable[Value], roots: dict[Value, Root]) -> set[Value]:
    """The values in memory among those touched that are as large as a product, if that is large."""
    size = estimate(product.type.size)
    if size < _CACHED:
        return set()
    return {v for v in touched if (v in roots or v.node is None) and estimate(v.type.size) >= size}


def _recomputed(graph: Graph, roots: dict[Value, Root], steady: Collection[Value]) -> dict[Value, Root]:
    """The roots without those that are sooner computed again, from one other. Closed nodes take theirs from memory."""
    users: dict[Value, list[Node]] = {value: [] for value in graph.values()}
    for node in graph.nodes:
        for operand in node.operands:
            users[operand].append(node)
    read = (v for node in graph.nodes if is_closed(node) for v in node.operands)
    written = {*graph.outputs, *steady, *read}
    for value, root in list(roots.items()):
        if value.node is None or not root.is_map or value in written:
            continue
        if any(source in roots and _is_computed_again(value, source, users, roots) for source in value.node.operands):
            del roots[value]
    return roots


def _is_half_of_input(node: Node) -> bool:
    """Whether a node rounds what the graph is given to halves: a product does that to its operand as it packs it."""
    if node.op.name != "cast" or node.result.dtype.computes_in is node.result.dtype:
        return False
    value = node.operands[0]
    while (made := value.node) is not None and made.op.only_moves and not made.op.pointwise:
        value = made.operands[0]
    return made is None and value.dtype is node.result.dtype.computes_in


def _is_widened_input(node: Node) -> bool:
    """Whether a node widens a matrix that the graph is given in fewer bits, such as weights that are stored so: a product does
    that as it reads its operand, and the wide numbers are never in memory."""
    if node.op.name != "cast" or node.result.ndim != 2:
        return False
    return node.operands[0].node is None and node.operands[0].dtype.itemsize < node.result.dtype.itemsize


def _is_widened_for_attention(node: Node, users: list[Node]) -> bool:
    """Whether a node widens halves for attention, whose kernels read them as they are, or else have them widened themselves."""
    return widens_halves(node) and all(user.op.kernel == "attention" for user in users)


def _is_widened_for_products(node: Node, users: dict[Value, list[Node]]) -> bool:
    """Whether a node widens halves for products alone, all of whose operands are such: they are read, and multiplied, as they
    are."""
    pending = [node.result]
    while pending:
        for user in users[pending.pop()]:
            if user.op.only_moves and user.op.name != "cast":
                pending.append(user.result)
            elif user.op.kernel != "contract" or not all(map(_is_widened_half, user.operands)):
                return False
    return True


def widens_halves(node: Node) -> bool:
    """Whether a node takes numbers in half precision to single precision."""
    source = node.operands[0].dtype if node.op.name == "cast" else float32
    return source.itemsize == 2 and source.computes_in is node.result.dtype is float32


def _is_widened_half(value: Value) -> bool:
    while (made := value.node) is not None and made.op.only_moves and made.op.name != "cast":
        value = made.operands[0]
    return made is not None and widens_halves(made)


def _weights(graph: Graph) -> tuple[dict[Value, int], set[Value]]:
    """How many operations an element takes, at most, and the values at which that would become too much."""
    weight: dict[Value, int] = dict.fromkeys(graph.inputs, 0)
    written: set[Value] = set()
    for node in graph.nodes:
        if node.op.is_anchor:
            total = 0
        else:
            own = math.ceil(node.op.nanoseconds / _FUNCTION) if node.operands else 0
            times = node.op.taps(*(v.type for v in node.operands), **node.attrs) if node.op.taps else 1
            total = 0 if _fills_rows(node) else own + times * sum(weight[v] + 1 for v in dict.fromkeys(node.operands))
        if total > _LARGEST and _is_by_element(node):
            total = _shared_weight(node, weight, written)
        if total > _LARGEST and node.operands:
            written.update(node.results)
            total = 0
        weight.update(dict.fromkeys(node.results, total))
    return weight, written


def _is_by_element(node: Node) -> bool:
    return node.op.pointwise and not node.op.is_anchor and not node.op.taps


def _shared_weight(last: Node, weight: dict[Value, int], written: set[Value]) -> int:
    """How many operations an element takes if each is counted once, however often its result is used: where ops go element by
    element, all of them need the same one."""
    total, pending, seen = 0, [last], {last}
    while pending and total <= _LARGEST:
        node = pending.pop()
        if not _is_by_element(node):  # others may need other elements of it
            total += max(weight[v] for v in node.results) + 1
            continue
        total += math.ceil(node.op.nanoseconds / _FUNCTION) + 1
        for value in dict.fromkeys(node.operands):
            before = value.node
            if before is None or not before.operands or value in written:
                total += 1
            elif before not in seen:
                seen.add(before)
                pending.append(before)
    return total




def _fills_rows(node: Node) -> bool:
    """Whether a node stretches numbers over rows: they are computed once for a row."""
    if node.op.name != "broadcast_to" or not node.result.ndim:
        return False
    (operand,), row = node.operands, node.result.shape[-1]
    return estimate(row) >= _FEW and (not operand.ndim or is_one(operand.shape[-1]))


def _elementwise_between(value: Value, root: Value, users: dict[Value, list[Node]]) -> bool:
    """Whether `value` reaches `root` through elementwise ops alone, so that both have one index."""
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        if current is root:
            continue
        for user in users[current]:
            if not user.op.pointwise:
                return False
            if user.result not in seen:
                seen.add(user.result)
                pending.append(user.result)
    return True


def _group(roots: dict[Value, Root], steady: Collection[Value]) -> list[Group]:
    """Let maps join a kernel that computes values of their shape and touches the same memory, where the order allows it:
    that of other maps, or a reduction or product, which they are then stored along with."""
    groups: list[Group] = []
    place: dict[Value, int] = {}  # the group in which a root is computed
    open_groups: dict[Shape, int] = {}
    for value, root, touched in _small_first(roots):
        if root.anchor is not None and len(root.anchor.results) > 1:
            first = next((place[v] for v in root.anchor.results if v in place), None)
            if first is not None:  # all results of a node come from one kernel
                groups[first].roots.append(root)
                place[value] = first
                continue
        earliest = max((place[v] for v in touched if v in place), default=-1)
        candidates = {earliest, open_groups.get(value.shape, -1)} - {-1} if root.is_map else ()
        joined = next(
            (
                i
                for i in sorted(candidates)
                if i >= earliest
                and groups[i].roots[0].value.shape == value.shape
                and groups[i].joinable
                and (groups[i].roots[0].value in steady) == (value in steady)
                and any(_is_shared(v, value, roots) for v in touched & groups[i].touched)
                and len(touched | groups[i].touched) <= _LARGEST
                and _fits_beside(value, touched, groups[i], roots)
                and _same_index(root, groups[i], roots)
            ),
            None,
        )
        if joined is not None:
            groups[joined].roots.append(root)
            groups[joined].touched |= touched
            place[value] = joined
            continue
        place[value] = len(groups)
        open_groups[value.shape] = len(groups)
        groups.append(Group([root], touched))
    return groups


def _is_shared(v: Value, value: Value, roots: dict[Value, Root]) -> bool:
    """Whether two kernels that touch `v`, of which one computes `value`, had better be one: if both read it from memory; and
    where it is small, so that to start a kernel counts, if both compute it."""
    if v is value or v.type.size != value.type.size:
        return False
    return v in roots or v.node is None or estimate(v.type.size) < _CACHED


def _fits_beside(value: Value, touched: set[Value], group: Group, roots: dict[Value, Root]) -> bool:
    """Whether a value can be stored along with a group: not with a product that would have to read much beside, or write it;
    nor with what takes one element after another, if functions are computed for it."""
    anchor = group.roots[0].anchor
    if anchor is not None and _goes_along_rows(anchor):
        return not _takes_functions(value)
    if anchor is None or anchor.op.kernel != "contract":
        return True
    written = {value, *(root.value for root in group.roots)}
    read = touched.union(*(_beside(root, roots) for root in group.roots)) - written
    return len(_arrays(anchor.result, read, roots)) <= _BESIDE and len(_arrays(anchor.result, written, roots)) <= 1


def _small_first(roots: dict[Value, Root]) -> Iterable[tuple[Value, Root, set[Value]]]:
    """The roots with what their kernels compute or read, in an order in which they can run: small ones that need only
    small ones come first, so that what depends on them can join the kernels of larger things."""
    touched = {value: set(_inside(root, roots)) for value, root in roots.items()}
    small: set[Value] = set()
    for value in roots:
        if estimate(value.type.size) <= _SMALL and all(v in small for v in touched[value] if v in roots and v is not value):
            small.add(value)
    for first in (True, False):
        for value, root in roots.items():
            if (value in small) == first:
                yield value, root, touched[value]


def _inside(root: Root, roots: dict[Value, Root], past: Node | None = None) -> Iterable[Value]:
    """The values that are computed in a root's kernel, and those that it reads; but for what only the node `past` reads."""
    pending, seen = [root.value], {root.value}
    while pending:
        value = pending.pop()
        yield value
        if value.node is None or value.node is past or (value in roots and value is not root.value):
            continue
        for operand in value.node.operands:
            if operand not in seen:
                seen.add(operand)
                pending.append(operand)


def _beside(root: Root, roots: dict[Value, Root]) -> Iterable[Value]:
    """What a product's kernel computes and reads, but for the product's own operands."""
    return _inside(root, roots, past=root.anchor)


def _same_index(root: Root, group: Group, roots: dict[Value, Root]) -> bool:
    """Whether the root reads the group's values only at the index that it computes itself."""
    members = {r.value for r in group.roots}
    pending: list[tuple[Value, bool]] = [(root.value, True)]
    seen: set[tuple[Value, bool]] = set()
    while pending:
        value, same = pending.pop()
        if (value, same) in seen:
            continue
        seen.add((value, same))
        if value in members and not same:
            return False
        if value.node is None or (value in roots and value is not root.value and value not in members):
            continue
        pending.extend((operand, same and value.node.op.pointwise) for operand in value.node.operands)
    return True
