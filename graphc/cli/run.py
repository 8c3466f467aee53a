"""`graphc run`: a saved program on arrays from files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from graphc.cli.files import of_dtype, read_array
from graphc.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np

    from graphc.runtime import Function


def run(
    file: Annotated[str, typer.Argument(help="A saved program (.gcz).")],
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", metavar="NAME=FILE.npy", help="An input; once for each.")
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", metavar="[NAME=]FILE.npy", help="Where an output goes; by default it is printed."),
    ] = None,
    entry: Annotated[str | None, typer.Option(help='The entry to run; by default "forward", or the only one.')] = None,
    save: Annotated[
        str | None, typer.Option(metavar="FILE.gcz", help="Where the program goes with the state that it has afterwards.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help='"llvm" or "reference".')] = None,
) -> None:
    """Run a saved program on .npy files."""
    from graphc import runtime

    program = runtime.load(file, backend=backend)
    function = program.main if entry is None else program.function(entry)
    names = list(function.inputs)
    files = _assignments(inputs or [], names, "input", function)
    arrays = {name: of_dtype(read_array(path), function.inputs[name].dtype) for name, path in files.items()}
    targets = _assignments(outputs or [], list(function.outputs), "output", function)
    results = dict(zip(function.outputs, function.compute(function.named(arrays))))
    for name, path in targets.items():
        _save(path, results[name])
    if save is not None:
        program.save(save)
    if not targets:
        for (name, type_), array in zip(function.outputs.items(), results.values()):
            typer.echo(f"{name}: {type_.dtype.name}{list(array.shape)}\n{array}")


def _assignments(given: list[str], names: list[str], what: str, function: Function) -> dict[str, str]:
    """NAME=FILE as a dict; a single name may be left away."""
    found: dict[str, str] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or (name not in names and len(names) == 1 and not name.isidentifier()):
            if len(names) != 1:
                raise ArgumentError(f"--{what} {text}", expected=f"NAME=FILE, NAME being one of {', '.join(names)}")
            name, path = names[0], text
        if name not in names:
            raise ArgumentError(f"--{what} {text}: there is no {what} {name!r}", expected=function.signature)
        if name in found:
            raise ArgumentError(f"--{what} {name} is given twice")
        found[name] = path
    return found


def _save(path: str, array: np.ndarray) -> None:
    import numpy as np

    from graphc.package.replacing import writing

    with writing(path) as file:  # given a name, numpy.save would add an ending to it
        np.save(file, array, allow_pickle=False)
