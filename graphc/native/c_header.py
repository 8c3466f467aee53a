"""The C header of an object file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from graphc.native.c_text import comment
from graphc.native.interface import UNFIT_SIZES, ObjectCode, RunError
from graphc.native.signature import Shared, Signature

_HEAD = """\
/* {name}: machine code for {triple}, CPU {cpu}, by graphc {version}
 *
{titles}
 *
 * The functions may run on several threads at once, each call with a workspace of its own. They
 * allocate nothing and keep nothing. Arrays are row-major and without gaps; results must not overlap
 * inputs. A bool is a byte, 0 or 1; float16 and bfloat16 are passed as their bits.
 * Needed from libraries: {externals}.
 */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif
"""
_WEIGHTS = """
/* The parameter `weights` is the contents of this file, mapped or read. */
#define {prefix}_WEIGHTS_FILE "{file}"
#define {prefix}_WEIGHTS_BYTES {nbytes}
"""
_THREADS = """
/* How loops run on threads: parallel_for calls body(context, chunk) once for each chunk from 0 to
 * chunks - 1, in any order, and returns when all are done. It may be called from within a body, where
 * it may do all by itself. Results are the same bits for any number of threads. NULL, or one whose
 * parallel_for is NULL: the calling thread alone. */
typedef struct {threads} {{
    void (*parallel_for)(void *user, void (*body)(void *context, int64_t chunk), void *context,
                         int64_t chunks);
    void *user;
}} {threads};
"""
_STATE = """
/* What is kept from call to call, in memory of the caller's that malloc has given or that divides by
 * 16. It is changed by a call that returns 0; of two at once on the same memory nobody knows which. */
#define {macro}_STATE_BYTES {nbytes}
{places}
/* Fill it with what the program begins with. */
{declaration}
"""
_WORKSPACE = """
/* How many bytes the workspace must have{condition}. */
{constant}{declaration}
"""
_PREPARE = """
/* What depends on weights alone, such as their order in memory: call this once, with {macro}_PREPARED
 * bytes to fill and a workspace of {macro}_PREPARE_WORKSPACE bytes, and hand the filled memory to each
 * call. Returns 0, or a code as {symbol} does. */
#define {macro}_PREPARED {prepared}
#define {macro}_PREPARE_WORKSPACE {preparing}
{declaration}
"""
_END = """
#ifdef __cplusplus
}
#endif

#endif
"""


def header(name: str, code: ObjectCode, entries: Sequence[Signature], shared: Shared) -> str:
    """The text."""
    parts = [_HEAD.format(
        name=comment(name), triple=code.triple, cpu=code.cpu or "generic", version=version("graphc"),
        guard=f"{shared.macro}_H",
        titles="\n".join(f" *     {comment(entry.title)}" for entry in entries),
        externals=f"{', '.join(code.externals)} (libm)" if code.externals else "nothing",
    )]  # fmt: skip
    if shared.weights is not None:
        file, nbytes = shared.weights
        parts.append(_WEIGHTS.format(prefix=shared.macro, file=comment(file), nbytes=nbytes))
    if shared.threads is not None:
        parts.append(_THREADS.format(threads=shared.threads))
    if shared.state:
        places = [f"/* at byte {offset}: {comment(f'{array}: {type_}')} */" for array, type_, offset in shared.state]
        parts.append(_STATE.format(
            macro=shared.macro, nbytes=shared.state_bytes, places="\n".join(places),
            declaration=_declaration("void", f"{shared.prefix}_reset", shared.reset_parameters()),
        ))  # fmt: skip
    return "".join([*parts, *map(_entry, entries), _END])


def _entry(entry: Signature) -> str:
    code, macro = entry.code, entry.macro
    lines = ["", f"/* {comment(entry.title)}", " *"]
    for direction, arrays in (("reads", entry.inputs), ("writes", entry.outputs)):
        lines += [f" * {direction} {array.c_name}: {comment(f'{array.name}: {array.type}')}" for array in arrays]
    lines += [f" * size {c_name}: {comment(name)}" for name, c_name in entry.sizes]
    if entry.conditions:
        lines += [" * where", *(f" *     {comment(condition)}" for condition in entry.conditions)]
    returns = [f"{number} if {comment(_said(error))}" for number, error in enumerate(code.errors, 1)]
    if entry.sizes:
        returns.append(f"{UNFIT_SIZES} ({macro}_SIZES) if there is no code for the sizes")
    lines += [" *", *(f" * Returns {text}" for text in returns), f" * Returns 0{' otherwise' if returns else ''}."]
    if entry.sizes:
        lines += [" * There is code for", *(f" *     {comment(variant)}" for variant in code.variants)]
    lines.append(" */")
    if entry.sizes:
        lines.append(f"#define {macro}_SIZES ({UNFIT_SIZES})")
    lines += [_declaration("int32_t", code.symbol, entry.parameters()), ""]
    measure = _declaration("int64_t", f"{code.symbol}_workspace", entry.size_parameters() or ["void"])
    workspace = _WORKSPACE.format(
        condition=f" for these sizes; {UNFIT_SIZES} if there is no code for them" if entry.sizes else "", declaration=measure,
        constant="" if code.workspace is None else f"#define {macro}_WORKSPACE {code.workspace}\n",
    ).lstrip("\n")
    prepare = _PREPARE.format(
        macro=macro, symbol=code.symbol, prepared=code.prepared, preparing=code.preparing,
        declaration=_declaration("int32_t", f"{code.symbol}_prepare", entry.shared_parameters(fills=True)),
    ) if code.prepared else ""  # fmt: skip
    return "\n".join(lines) + "\n" + workspace + prepare


def _said(error: RunError) -> str:
    where = f" (at {error.at})" if error.at is not None else ""
    return f"{error.problem}; expected: {error.expected}{where}"


def _declaration(result: str, name: str, parameters: Sequence[str]) -> str:
    line = f"{result} {name}({', '.join(parameters)});"
    return line if len(line) <= 100 else f"{result} {name}(\n    " + ",\n    ".join(parameters) + ");"
