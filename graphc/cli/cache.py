"""`graphc cache`: the compiled code that is kept between processes."""

from __future__ import annotations

import typer

cache = typer.Typer(help="Show or clear the cache of compiled code.", invoke_without_command=True)


@cache.callback()
def show(context: typer.Context) -> None:
    """Show where compiled code is kept, and how much of it there is."""
    if context.invoked_subcommand is not None:
        return
    from graphc.disk_cache import DiskCache

    kept = DiskCache.configured()
    if kept.directory is None:
        typer.echo("nothing is kept: the cache is switched off")
        return
    entries, nbytes = kept.usage()
    typer.echo(f"path     {kept.directory}")
    typer.echo(f"entries  {entries}")
    typer.echo(f"size     {nbytes / 1e6:.1f} MB of {kept.max_bytes / 1e6:.0f} MB")


@cache.command()
def clear() -> None:
    """Delete what is kept."""
    from graphc.disk_cache import DiskCache

    typer.echo(f"deleted {DiskCache.configured().clear()} entries")
