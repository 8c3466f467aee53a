"""Sums of products over named dimensions."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Sequence
from typing import Any

from graphc import ops
from graphc.errors import ArgumentError, ArgumentTypeError, DTypeError, GraphcError, ShapeError
from graphc.frontend.arguments import emit, scalar_type
from graphc.frontend.arithmetic import mul
from graphc.frontend.autocast import lowered
from graphc.frontend.composite import composite
from graphc.frontend.diagonals import diagonal
from graphc.frontend.modes import mode
from graphc.frontend.movement import permute, reshape
from graphc.frontend.reductions import sum
from graphc.frontend.tensor import Tensor
from graphc.types import bool_

FUNCTIONS = "einsum"

_ELLIPSIS = "..."
Labels = tuple[str, ...]
"""A name for each dimension."""


@composite(large=False)
def einsum(*args: Any) -> Tensor:
    """The sum of products that an equation describes: "bik,bkj->bij" names the dimensions of each operand and of the result.

    Over names that the result has not is summed. A name that one operand has twice stands for its diagonal; "..." for
    dimensions that stretch to each other. Without "->" the result has those names that occur once, in alphabetical order,
    after the dimensions of "...". Operands can also come each with a list of numbers in place of names, and the result's
    list last: `einsum(a, [0, 1], b, [1, 2], [0, 2])`.

    GraphcError where the equation names more or fewer operands than there are. It is also for a name of the result's that no
    operand has, and for signs that are no letters; ShapeError where dimensions of one name differ in size, or an operand has
    another number of them; DTypeError where the dtypes differ; ArgumentError without operands, ArgumentTypeError for those that
    are no tensors.

    >>> import graphc
    >>> graphc.einsum("ij,j->i", graphc.ones(2, 3), graphc.tensor([1.0, 2.0, 3.0]))
    tensor([6., 6.])
    """
    terms, out, operands = _arguments(args)
    if len(operands) < len(terms):
        raise GraphcError("einsum(): fewer operands were provided than specified in the equation",
                          got=f"{len(operands)} for {len(terms)} terms")
    if len(operands) > len(terms):
        raise GraphcError("einsum(): more operands were provided than specified in the equation",
                          got=f"{len(operands)} for {len(terms)} terms")
    if mode.autocast is not None and len(operands) > 1:
        operands = [lowered(x, mode.autocast) for x in operands]
    for x in operands[1:]:
        if x.dtype is not operands[0].dtype:
            raise DTypeError(f"expected scalar type {scalar_type(operands[0].dtype)} but found {scalar_type(x.dtype)}",
                             hint="convert the operands to one dtype with .to(dtype)")
    if len(operands) > 1 and operands[0].dtype is bool_:
        raise DTypeError("einsum(): products of bools have no sum", hint="convert the operands with .to(graphc.int64)")
    named, spread = _without_ellipses(terms, operands)
    result = _result(terms, out, named, spread)
    return _contracted([_diagonal(x, labels, i) for i, (x, labels) in enumerate(zip(operands, named))], result)


# Reading the arguments


def _arguments(args: Sequence[Any]) -> tuple[list[Labels], Labels | None, list[Tensor]]:
    """The names of each operand's dimensions, those of the result if they are given, and the operands."""
    if len(args) < 2:
        raise ArgumentError("einsum(): must specify the equation string and at least one operand, or at least one operand and "
                            "its subscripts list")
    if isinstance(args[0], str):
        operands = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
        terms, out = _equation(args[0])
    else:
        operands = args[0 : len(args) // 2 * 2 : 2]
        terms = [_listed(labels) for labels in args[1::2]]
        out = _listed(args[-1]) if len(args) % 2 else None
    for i, x in enumerate(operands):
        if not isinstance(x, Tensor):
            raise ArgumentTypeError(f"einsum(): operand {i} must be Tensor, not {type(x).__name__}")
    return terms, out, list(operands)


def _listed(labels: Any) -> Labels:
    """Names given as numbers."""
    if not isinstance(labels, (tuple, list)):
        raise ArgumentError("einsum(): an operand's subscripts are not a list", expected="a list of ints and ...",
                            got=type(labels).__name__)
    found = []
    for label in labels:
        if label is Ellipsis:
            found.append(_ELLIPSIS)
        elif isinstance(label, int) and 0 <= label < 52:
            found.append((string.ascii_uppercase + string.ascii_lowercase)[label])
        else:
            raise ArgumentError("einsum(): subscript in subscript list is not within the valid range [0, 52)", got=str(label))
    return tuple(found)


def _equation(text: str) -> tuple[list[Labels], Labels | None]:
    inputs, arrow, out = text.partition("->")
    terms = [_term(term, f"operand {i}", text) for i, term in enumerate(inputs.split(","))]
    return terms, _term(out, "the output", text) if arrow else None


def _term(term: str, what: str, equation: str) -> Labels:
    found: list[str] = []
    rest = term.replace(" ", "")
    while rest:
        if rest.startswith(_ELLIPSIS):
            if _ELLIPSIS in found:
                raise GraphcError(f"einsum(): found '.' for {what} for which an ellipsis was already found", got=equation)
            found.append(_ELLIPSIS)
            rest = rest[3:]
            continue
        if rest[0] == ".":
            raise GraphcError(f"einsum(): found '.' for {what} that is not part of any ellipsis", got=equation)
        if rest[0] not in string.ascii_letters:
            raise GraphcError(f"einsum(): invalid subscript given at index {equation.index(rest[0])} in the equation string, "
                              "subscripts must be in [a-zA-Z]", got=equation)
        found.append(rest[0])
        rest = rest[1:]
    return tuple(found)


def _without_ellipses(terms: Sequence[Labels], operands: Sequence[Tensor]) -> tuple[list[Labels], Labels]:
    """A name for each dimension of each operand, and the names that the dimensions of ellipses have got."""
    lengths = []
    for i, (labels, x) in enumerate(zip(terms, operands)):
        plain = len(labels) - (_ELLIPSIS in labels)
        if x.ndim < plain or (x.ndim > plain and _ELLIPSIS not in labels):
            given = "but an ellipsis was given" if _ELLIPSIS in labels else "and no ellipsis was given"
            raise ShapeError(f"einsum(): the number of subscripts in the equation ({plain}) does not match the number of "
                             f"dimensions ({x.ndim}) for operand {i} {given}")
        lengths.append(x.ndim - plain)
    used = set(itertools.chain(*terms))
    alphabet = itertools.chain(string.ascii_letters, map(chr, itertools.count(0xC0)))
    letters = (c for c in alphabet if c.isalpha() and c not in used)
    spread = tuple(itertools.islice(letters, max(lengths, default=0)))
    named = [tuple(itertools.chain(*(spread[len(spread) - n :] if c == _ELLIPSIS else (c,) for c in labels)))
             for labels, n in zip(terms, lengths)]
    return named, spread


def _result(terms: Sequence[Labels], out: Labels | None, named: Sequence[Labels], spread: Labels) -> Labels:
    """The names of the result's dimensions."""
    count: dict[str, int] = {}
    for label in itertools.chain(*terms):
        count[label] = count.get(label, 0) + 1
    if out is None:
        return (*spread, *sorted(label for label, n in count.items() if n == 1 and label != _ELLIPSIS))
    for label in out:
        if label == _ELLIPSIS:
            continue
        if out.count(label) > 1:
            raise GraphcError(f"einsum(): output subscript {label} appears more than once in the output")
        if label not in count:
            raise GraphcError(f"einsum(): output subscript {label} does not appear in the equation for any input operand")
    return tuple(itertools.chain(*(spread if c == _ELLIPSIS else (c,) for c in out)))


# Computing


Operand = tuple[Tensor, Labels]


def _diagonal(x: Tensor, labels: Labels, number: int) -> Operand:
    """The operand with each name once."""
    while len(set(labels)) < len(labels):
        label = next(c for c in labels if labels.count(c) > 1)
        first = labels.index(label)
        second = labels.index(label, first + 1)
        a, b = x._data.shape[first], x._data.shape[second]
        if a != b:
            raise ShapeError(f"einsum(): subscript {label} is repeated for operand {number} but the sizes don't match, "
                             f"{b} != {a}")
        x = diagonal(x, 0, first, second)
        labels = (*(c for i, c in enumerate(labels) if i not in (first, second)), label)
    return x, labels


def _contracted(operands: list[Operand], out: Labels) -> Tensor:
    size: dict[str, Any] = {}
    for i, (x, labels) in enumerate(operands):
        for label, n in zip(labels, x._data.shape):
            known = size.setdefault(label, n)
            if known == 1:
                size[label] = n
            elif n not in (1, known):
                raise ShapeError(f"einsum(): subscript {label} has size {n} for operand {i} which does not broadcast with "
                                 f"previously seen size {known}")
    operands = [_shrunk(x, labels, size) for x, labels in operands]
    while len(operands) > 1:
        i, j = _next_pair(operands, out, size)
        pair = operands[i], operands[j]
        rest = [operand for k, operand in enumerate(operands) if k not in (i, j)]
        wanted = set(out).union(*(labels for _, labels in rest))
        operands = [_product(*pair, wanted, None if rest else out), *rest]
    x, labels = _summed(*operands[0], set(out))
    missing = tuple(label for label in out if label not in labels)  # sizes of 1 that were left out
    x = reshape(x, (*(1 for _ in missing), *x._data.shape)) if missing else x
    labels = (*missing, *labels)
    return x if labels == out else permute(x, tuple(labels.index(label) for label in out))


def _shrunk(x: Tensor, labels: Labels, size: dict[str, Any]) -> Operand:
    """Without the dimensions of size 1 that others stretch: the numbers along those are all the same."""
    kept = [i for i, (label, n) in enumerate(zip(labels, x._data.shape)) if n == size[label]]
    if len(kept) == len(labels):
        return x, labels
    return reshape(x, tuple(x._data.shape[i] for i in kept)), tuple(labels[i] for i in kept)


def _summed(x: Tensor, labels: Labels, wanted: Iterable[str]) -> Operand:
    """Summed over the names that nobody wants."""
    over = tuple(i for i, label in enumerate(labels) if label not in wanted)
    if not over:
        return x, labels
    return sum(x, over, dtype=x.dtype), tuple(label for i, label in enumerate(labels) if i not in over)


def _product(left: Operand, right: Operand, wanted: set[str], order: Labels | None) -> Operand:
    """The product of two operands, summed over what both have and nobody wants."""
    x, a = _summed(*left, wanted | set(right[1]))
    y, b = _summed(*right, wanted | set(left[1]))
    together = (*a, *(label for label in b if label not in a))
    out = order if order is not None and set(order) == set(together) & wanted else tuple(c for c in together if c in wanted)
    if set(out) == set(together):
        return mul(_spread(x, a, out), _spread(y, b, out)), out
    return emit(ops.contract, (x, y), {"spec": f"{''.join(a)},{''.join(b)}->{''.join(out)}"}), out


def _spread(x: Tensor, labels: Labels, out: Labels) -> Tensor:
    """The dimensions in the order of `out`, with a size of 1 for those that are not there."""
    order = [labels.index(label) for label in out if label in labels]
    turned = x if order == sorted(order) else permute(x, tuple(order))
    sizes = iter(turned._data.shape)
    shape = tuple(next(sizes) if label in labels else 1 for label in out)
    return turned if len(shape) == turned.ndim else reshape(turned, shape)


def _next_pair(operands: Sequence[Operand], out: Labels, size: dict[str, Any]) -> tuple[int, int]:
    """The two operands whose product is smallest beside what they themselves take up; sizes not known count as many."""
    if len(operands) == 2:
        return 0, 1

    def elements(labels: Iterable[str]) -> int:
        total = 1
        for label in labels:
            total *= size[label] if isinstance(size[label], int) else 1 << 10
        return total

    def growth(pair: tuple[int, int]) -> int:
        a, b = (set(operands[k][1]) for k in pair)
        rest = set(out).union(*(labels for k, (_, labels) in enumerate(operands) if k not in pair))
        return elements((a | b) & rest) - elements(a) - elements(b)

    return min(itertools.combinations(range(len(operands)), 2), key=growth)
