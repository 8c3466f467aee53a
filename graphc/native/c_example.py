"""A small C program that calls an entry: what to hand to it, and where the results are."""

from __future__ import annotations

from graphc.dims import Dim, Quotient
from graphc.native.c_text import comment
from graphc.native.signature import Shared, Signature
from graphc.types import Size

_FORMATS = {
    "float": ("%.9g", "{}"), "double": ("%.17g", "{}"), "int64_t": ("%lld", "(long long){}"),
    "uint64_t": ("%llu", "(unsigned long long){}"),
}  # fmt: skip
_SMALL = ("%ld", "(long){}")
_HEAD = """\
/* {title}
 *
 *     cc {program}.c {object}{libm} -o {program}
 *     ./{program} {usage}
 *
 * Files hold raw numbers, row-major; what is not given is zeros. Prints the results, a number a line. */
#include <stdio.h>
#include <stdlib.h>
#include "{header}"

static void *allocate(int64_t bytes)
{{
    void *memory = calloc(bytes > 0 ? (size_t)bytes : 1, 1);
    if (memory == NULL) {{
        fprintf(stderr, "no %lld bytes of memory\\n", (long long)bytes);
        exit(1);
    }}
    return memory;
}}

static void read_file(const char *path, void *memory, int64_t bytes)
{{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fread(memory, 1, (size_t)bytes, file) != (size_t)bytes) {{
        fprintf(stderr, "%s: not %lld bytes that can be read\\n", path, (long long)bytes);
        exit(1);
    }}
    fclose(file);
}}

static void check(int32_t code, const char *function)
{{
    if (code != 0) {{
        fprintf(stderr, "%s: code %ld, see {header}\\n", function, (long)code);
        exit(1);
    }}
}}
"""
_QUOTIENT = """
static int64_t quotient(int64_t a, int64_t b) /* rounded down */
{
    return a / b - (a % b < 0);
}
"""


def example(header: str, entry: Signature, shared: Shared, sizes: dict[str, int], needs_libm: bool) -> str:
    """The program's text. It takes sizes and files of raw numbers as arguments; `sizes` are those without any."""
    code, symbol = entry.code, entry.code.symbol
    arrays = (*entry.inputs, *entry.outputs)
    names = dict(entry.sizes)
    counts = {array: " * ".join(_size(size, names) for size in array.type.shape) or "1" for array in arrays}
    usage = [*(f"[{c_name}]" for c_name in names.values()), *(f"[{array.c_name} as a file]" for array in entry.inputs)]
    head = _HEAD.format(title=comment(entry.title), program=f"{symbol}_example", object=f"{header.removesuffix('.h')}.o",
                        libm=" -lm" if needs_libm else "", usage=" ".join(usage), header=header)
    if any("quotient(" in count for count in counts.values()):
        head += _QUOTIENT

    lines = ["int next = 1;"]
    for name, c_name in entry.sizes:
        lines.append(f"int64_t {c_name} = next < argc ? strtoll(argv[next++], NULL, 10) : {sizes[name]};")
    lines.append(f"int64_t bytes = {symbol}_workspace({', '.join(names.values())});")
    lines.append(f'check(bytes < 0 ? (int32_t)bytes : 0, "{symbol}_workspace");')
    for array in arrays:
        nbytes = f"{array.c_name}_count * (int64_t)sizeof *{array.c_name}"
        lines.append(f"int64_t {array.c_name}_count = {counts[array]};")
        lines.append(f"{array.c_type} *{array.c_name} = allocate({nbytes});")
        if array in entry.inputs:
            lines += ["if (next < argc)", f"    read_file(argv[next++], {array.c_name}, {nbytes});"]
    lines.append("void *workspace = allocate(bytes);")
    given = {"weights": entry.takes_weights, "prepared": code.prepared > 0, "state": entry.takes_state, "workspace": True,
             "NULL": entry.threads is not None}
    last = [name for name, is_there in given.items() if is_there]
    if shared.weights is not None:
        file, nbytes = comment(shared.weights[0]), str(shared.weights[1])
        lines += [f"void *weights = allocate({nbytes});", f'read_file("{file}", weights, {nbytes});']
    if code.prepared:
        arguments = ", ".join({"workspace": "preparing"}.get(name, name) for name in last if name != "state")
        lines += [
            f"void *prepared = allocate({entry.macro}_PREPARED);",
            f"void *preparing = allocate({entry.macro}_PREPARE_WORKSPACE);",
            f'check({symbol}_prepare({arguments}), "{symbol}_prepare");',
            "free(preparing);",
        ]
    if entry.takes_state:
        reset = ", ".join(["state", *(["weights"] if shared.weights is not None else [])])
        lines += [f"void *state = allocate({shared.macro}_STATE_BYTES);", f"{shared.prefix}_reset({reset});"]
    arguments = ", ".join([*(array.c_name for array in arrays), *names.values(), *last])
    lines.append(f'check({symbol}({arguments}), "{symbol}");')
    for array in entry.outputs:
        text, value = _FORMATS.get(array.c_type, _SMALL)
        lines.append(f"for (int64_t i = 0; i < {array.c_name}_count; i++)")
        lines.append(f'    printf("{text}\\n", {value.format(f"{array.c_name}[i]")});')
    held = dict.fromkeys([*(array.c_name for array in arrays), *last, *(["weights"] if shared.weights is not None else [])])
    lines += [f"free({name});" for name in held if name != "NULL"]
    lines.append("return 0;")
    return "\n".join([head, "int main(int argc, char **argv)", "{", *(f"    {line}" for line in lines), "}"]) + "\n"


def _size(size: Size, names: dict[str, str]) -> str:
    """A size as an expression."""
    if not isinstance(size, Dim):
        return str(size)
    parts = []
    for factors, coefficient in size.terms:
        product = [names[factor] if factor in names else _quotient(factor, names) for factor in factors]
        parts.append(" * ".join([*([] if coefficient == 1 and product else [str(coefficient)]), *product]))
    return parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"


def _quotient(factor: str, names: dict[str, str]) -> str:
    assert isinstance(factor, Quotient), factor
    return f"quotient({_size(factor.dividend, names)}, {_size(factor.divisor, names)})"
