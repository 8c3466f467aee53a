"""`graphc upgrade`: a saved program in this version's format."""

from __future__ import annotations

from typing import Annotated

import typer


def upgrade(
    file: Annotated[str, typer.Argument(help="A saved program (.gcz).")],
    output: Annotated[str | None, typer.Option("--output", "-o", help="Where it goes; by default it is replaced.")] = None,
) -> None:
    """Write a saved program in the newest format. Older ones can be read for ever: other programs may want this one."""
    from graphc.package import read_package, write_package
    from graphc.package.upgrade import FORMAT_VERSION

    package = read_package(file)
    if package.format_version == FORMAT_VERSION and output in (None, file):
        typer.echo(f"{file} is in format {FORMAT_VERSION} already")
        return
    write_package(output or file, package.entries, package.weights, package.metadata)
    typer.echo(f"{output or file}: from format {package.format_version} to format {FORMAT_VERSION}")
