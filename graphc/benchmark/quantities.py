"""Seconds, bytes, ratios and numbers of things, as people read them."""

from __future__ import annotations


def time_text(seconds: float) -> str:
    """
    >>> [time_text(s) for s in (1.5, 0.0123, 4.2e-6, 3e-10, 2e-12, 0.0)]
    ['1.5 s', '12.3 ms', '4.2 us', '0.3 ns', '2 ps', '0 s']
    """
    if not seconds:
        return "0 s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-10)):
        if seconds >= size:
            return f"{_short(seconds / (1e-9 if unit == 'ns' else size))} {unit}"
    return f"{_short(seconds / 1e-12)} ps"


def interval_text(low: float, high: float) -> str:
    """Two times, with one unit if it is the same.

    >>> interval_text(0.0123, 0.0125)
    '12.3 - 12.5 ms'
    """
    first, last = time_text(low), time_text(high)
    if first.split()[1] == last.split()[1]:
        first = first.split()[0]
    return f"{first} - {last}"


def amount(number: int, unit: str) -> str:
    """
    >>> amount(1, "images"), amount(4096, "rows"), amount(8, "")
    ('1 image', '4,096 rows', '8')
    """
    return f"{number:,} {unit.removesuffix('s') if number == 1 else unit}".rstrip()


def bytes_text(nbytes: float) -> str:
    """
    >>> [bytes_text(n) for n in (12, 3.4e5, 128e6, 2.5e9)]
    ['12 B', '340 KB', '128 MB', '2.5 GB']
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if abs(nbytes) >= size:
            return f"{_short(nbytes / size)} {unit}"
    return f"{nbytes:.0f} B"


def ratio_text(ratio: float) -> str:
    """
    >>> [ratio_text(r) for r in (0.00412, 0.123, 1.0, 12.34, 1234.5)]
    ['0.0041x', '0.12x', '1.00x', '12.3x', '1234x']
    """
    if ratio < 0.0995:
        return f"{ratio:.2g}x"
    return f"{ratio:.2f}x" if ratio < 9.995 else f"{ratio:.1f}x" if ratio < 99.95 else f"{ratio:.0f}x"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 999.5 else f"{number:.3g}"
