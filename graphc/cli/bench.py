"""`graphc bench`: how fast code runs on this machine, and what memory it takes."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from graphc.errors import ArgumentError

_OPTIONS = {
    "targets": (
        "--sides", "--sizes", "--by-size", "--threads", "--python", "--html", "--json", "--csv", "--markdown", "--profile",
    ),
    "--scale": ("--only", "--threads", "--largest", "--json", "--svg"),
    "--memory": ("--only", "--json"),
    "--list": (),
}  # fmt: skip
"""Which options what is measured takes; those with defaults that are numbers are for all."""


def bench(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET]...", help="SCRIPT.py:FUNCTION, a built-in workload, or functions, or models."),
    ] = None,
    sides: Annotated[str | None, typer.Option(help="Who takes part: graphc,torch-eager. By default all installed.")] = None,
    sizes: Annotated[str | None, typer.Option(help="Sizes to time: 16,64,256.")] = None,
    by_size: Annotated[bool, typer.Option("--by-size", help="Time built-in workloads at all their sizes.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="How often the sides take turns.")] = 9,
    seconds: Annotated[float, typer.Option(help="How long a round, or with --scale a size, is timed.")] = 0.1,
    threads: Annotated[str | None, typer.Option(help="How many threads; with --scale, several numbers: 1,2.")] = None,
    python: Annotated[
        list[str] | None, typer.Option(metavar="PEER=PATH", help="The Python that has a peer: torch=venv/bin/python.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which a step of a side is given up.")] = 300,
    html_file: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write a report with plots there.")] = None,
    json_file: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write all numbers there.")] = None,
    csv_file: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="Write a table there.")] = None,
    markdown_file: Annotated[
        str | None, typer.Option("--markdown", metavar="FILE", help="Write a table for a README there.")
    ] = None,
    profile_file: Annotated[
        str | None, typer.Option("--profile", metavar="FILE", help="Write a trace of a script's function, eager and compiled.")
    ] = None,
    svg_file: Annotated[str | None, typer.Option("--svg", metavar="FILE", help="With --scale: draw the times.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the built-in workloads.")] = False,
    scale: Annotated[bool, typer.Option("--scale", help="Time against size, beside the machine's limits.")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="The memory of training steps, beside PyTorch's.")] = False,
    only: Annotated[str | None, typer.Option(help="With --scale, --memory: some computations: matmul,transpose.")] = None,
    largest: Annotated[float | None, typer.Option(help="With --scale: no sizes above this many elements.")] = None,
) -> None:
    """Compare eager with compiled code, and both with PyTorch, JAX and onnxruntime where they are installed.

    A function of a script that takes arguments needs inputs beside it: def inputs(size=64): return torch.randn(size, 10),
    or <function>_inputs. The script may import torch or graphc: each library runs it in its turn.
    """
    if scale + memory + listed + bool(targets) > 1:
        raise ArgumentError("graphc bench: measures one thing at a time",
                            expected="targets, or one of --scale, --memory and --list")
    mode = "--scale" if scale else "--memory" if memory else "--list" if listed else "targets"
    given = {
        "--sides": sides, "--sizes": sizes, "--by-size": by_size or None, "--threads": threads, "--python": python,
        "--html": html_file, "--json": json_file, "--csv": csv_file, "--markdown": markdown_file, "--profile": profile_file,
        "--svg": svg_file, "--only": only, "--largest": largest,
    }  # fmt: skip
    for option, value in given.items():
        if value is not None and option not in _OPTIONS[mode]:
            modes = [each for each, options in _OPTIONS.items() if option in options]
            raise ArgumentError(f"graphc bench: {option} is not for {mode}", expected=f"{option} with {' or '.join(modes)}")
    if not 0 < seconds < math.inf:
        raise ArgumentError("--seconds", expected="a positive number", got=str(seconds))
    if listed:
        from graphc.cli.bench_compare import show_workloads

        show_workloads()
    elif memory:
        from graphc.cli.bench_scale import show_memory

        show_memory(only, json_file)
    elif scale:
        from graphc.cli.bench_scale import show_growth

        show_growth(only, threads, largest, seconds, json_file, svg_file)
    else:
        from graphc.cli.bench_compare import Files, compare
        from graphc.cli.files import check_writable
        from graphc.cli.profile import only_target, write_trace

        profiled = None if profile_file is None else only_target(targets or [])
        check_writable(profile_file, html_file, json_file, csv_file, markdown_file)
        compare(
            targets or ["functions", "models"], sides=sides, sizes=sizes, by_size=by_size, rounds=rounds, seconds=seconds,
            threads=threads, pythons=python or [], timeout=timeout, files=Files(html_file, json_file, csv_file, markdown_file),
        )  # fmt: skip
        if profiled is not None and profile_file is not None:
            write_trace(profiled, profile_file)
