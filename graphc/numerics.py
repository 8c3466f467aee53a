"""How exactly float32 is computed with.

    strict  as it is written: the default
    high    convolutions may take fewer multiplications, and round more: Winograd's algorithm
    fast    and products may round their factors to bfloat16, where the CPU has instructions for that; sums are float32. On
            such a CPU convolutions are products

On a GPU both let products and convolutions round their factors to 11 bits (TF32), which its tensor cores multiply.

It is chosen for one function by `graphc.compile(f, numerics="fast")`; for all that is compiled from now on by
`GRAPHC_NUMERICS`, by `config.numerics`, or by PyTorch's name for it, `set_float32_matmul_precision`. It is no part of a saved
file: `runtime.load(path, numerics=...)` chooses. Gradients are computed in the same way as what they are gradients of.

With factors in bfloat16, a result is off by at most 1/127 of the sum of the absolute products; numbers beyond 3.39e38 are
infinite, and subnormal ones zero. A convolution by Winograd's algorithm is off by about 1e-5 of the largest result; an infinity
or NaN of its image spreads to results three pixels away.

>>> from graphc.config import override
>>> with override(numerics="fast"):
...     get_float32_matmul_precision()
'medium'
"""

from __future__ import annotations

from graphc.config import NUMERICS, check_numerics, config
from graphc.errors import ArgumentError

_PRECISIONS = dict(zip(("highest", "high", "medium"), NUMERICS, strict=True))


def set_float32_matmul_precision(precision: str) -> None:
    """Choose how exactly products and convolutions of float32 are computed: "highest", the default, in float32; "high", with
    fewer multiplications in float32; or "medium", with operands in bfloat16 where that is faster. See `graphc.numerics`.

    Compiled functions that were not told their numerics are traced again. ArgumentError for any other name.

    >>> import graphc
    >>> graphc.set_float32_matmul_precision("medium")
    >>> graphc.get_float32_matmul_precision()
    'medium'
    >>> graphc.set_float32_matmul_precision("highest")
    """
    if not isinstance(precision, str) or precision not in _PRECISIONS:
        raise ArgumentError("set_float32_matmul_precision: no such precision",
                            expected=f"one of {', '.join(map(repr, _PRECISIONS))}", got=repr(precision))
    config.numerics = _PRECISIONS[precision]


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` was told: "highest", "high" or "medium".

    >>> graphc.get_float32_matmul_precision()
    'highest'
    """
    return next(name for name, numerics in _PRECISIONS.items() if numerics == config.numerics)


def pinned(backend: str | None, numerics: str | None = None) -> str:
    """A back end by its name, None for the default, with these numerics before it; by default with those that it is pinned to
    already, or those in force now.

    >>> pinned("llvm"), pinned(None, "fast")
    ('strict llvm', 'fast ')
    """
    known, name = divided(backend)
    if numerics is not None:
        check_numerics(numerics, "numerics=")
    return f"{numerics or known} {name or ''}"


def divided(backend: str | None) -> tuple[str, str | None]:
    """The numerics that a back end was pinned to, or those in force now, and its name.

    >>> divided("fast llvm"), divided("fast ")
    (('fast', 'llvm'), ('fast', None))
    """
    first, _, rest = (backend or "").partition(" ")
    return (first, rest or None) if first in NUMERICS else (config.numerics, backend or None)
