"""Names and comments of C, made of names that may be anything."""

from __future__ import annotations

import re
from collections.abc import Collection

from graphc.types import DType

_WORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class compl concept
const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype default delete do double
dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable namespace new noexcept
not not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires restrict return short signed
sizeof static static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename typeof
typeof_unqual union unsigned using virtual void volatile wchar_t while xor xor_eq int8_t int16_t int32_t int64_t uint8_t
uint16_t uint32_t uint64_t size_t ptrdiff_t I NULL EOF BUFSIZ NAN INFINITY HUGE_VAL errno assert main linux unix near far min
max stdin stdout stderr
"""
"""The keywords of C and C++, and what common headers define as macros."""
_RESERVED = frozenset(_WORDS.split())
_HEADERS = """
assert complex ctype errno fenv float inttypes iso646 limits locale math memory new setjmp signal stdalign stdarg stdatomic
stdbit stdbool stdckdint stddef stdint stdio stdlib stdnoreturn string strings tgmath threads time uchar unistd wchar wctype
"""
_LIBRARIES = """
anl asan atomic bsd c cpp crypt curses dl g gcc gcc_s gfortran gomp intl iconv m mvec ncurses nsl omp pthread python quadmath
resolv rt socket thread_db tsan ubsan unwind util z
"""
"""What the headers and the libraries of C are called, without `lib`: a compiler that looks for ours first would take them."""
_SYSTEMS_HEADERS, _SYSTEMS_LIBRARIES = frozenset(_HEADERS.split()), frozenset(_LIBRARIES.split())
_TYPES = {
    "bool": "uint8_t", "float16": "uint16_t", "bfloat16": "uint16_t", "float32": "float", "float64": "double",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip
_MOST_COMMENT = 1000


def c_type(dtype: DType) -> str:
    """The type of an element: bool as a byte that is 0 or 1, 16-bit floating-point numbers as their bits."""
    return _TYPES[dtype.name]


def identifier(text: str, taken: Collection[str] = ()) -> str:
    """An identifier that is not in `taken`, nor a word of C or C++, as much like the text as may be."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:100] or "x"
    if name[0].isdigit():
        name = f"x{name}"
    if name in _RESERVED:
        name += "_"
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def file_stem(prefix: str, *, library: bool = False) -> str:
    """What a header and what belongs to it, or a library, is called: the prefix of functions, if none of the system is."""
    theirs = _SYSTEMS_LIBRARIES if library else _SYSTEMS_HEADERS
    return f"{prefix}_program" if prefix.lower() in theirs else prefix


def comment(text: str) -> str:
    """A text for the inside of a comment: on one line, in ASCII, and not ending it."""
    shown = "".join(c if " " <= c <= "~" else f"<U+{ord(c):04X}>" for c in text[:_MOST_COMMENT])
    return shown.replace("*/", "* /").replace("/*", "/ *").replace("??/", "? ?/").replace("\\", "/")
